//! The field `steering` of a request: a plan by name, interventions as a plan file has them, or EasySteer's object, made into a [`Plan`];
//! or a policy by name.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::ApiError;
use super::library::{self, Library};
use crate::constructive::Policy;
use crate::model::Selector;
use crate::steer::{Intervention, Operation, Plan, Strength};

/// Most interventions of a request.
const MOST: usize = 32;

/// Most bounds, constraints and doses of a request: each takes a copy of a probe's weights, made ready between passes.
const MOST_QUERIES: usize = 64;

/// The keys of the field.
const KEYS: &str = "plan, interventions, vectors, conflict, scale or constructive";

/// How a request is steered.
#[derive(Default)]
pub(super) struct Steered {
    /// By a plan.
    pub plan: Option<Arc<Plan>>,
    /// By a policy, which makes a plan of the prompt.
    pub policy: Option<Arc<Policy>>,
}

impl Steered {
    /// Whether it is steered at all.
    pub fn is_some(&self) -> bool {
        self.plan.is_some() || self.policy.is_some()
    }
}

/// How a request is steered.
///
/// # Errors
/// As [`plan`]; a policy and a plan.
pub(super) fn steered(field: &Value, library: &Library) -> Result<Steered, ApiError> {
    match field.get("constructive") {
        None | Some(Value::Null) => Ok(Steered { plan: plan(field, library)?.map(Arc::new), policy: None }),
        Some(Value::String(name)) => {
            let others = field.as_object().into_iter().flatten();
            if let Some((other, _)) =
                others.into_iter().find(|(key, value)| *key != "constructive" && !value.is_null())
            {
                let found = format!("a policy and {other}");
                return Err(ApiError::field(
                    "steering",
                    found,
                    "one of the two: a policy makes its own plan",
                ));
            }
            Ok(Steered { plan: None, policy: Some(library.policy(name, "steering.constructive")?) })
        }
        Some(other) => Err(ApiError::field("steering.constructive", kind(other), "a policy's name")),
    }
}

/// The plan of a request; none where it isn't steered.
///
/// # Errors
/// Keys or values that mean nothing; names that the server doesn't have.
pub(super) fn plan(field: &Value, library: &Library) -> Result<Option<Plan>, ApiError> {
    let object = match field {
        Value::Null | Value::Bool(false) => return Ok(None),
        Value::String(name) => return library.plan(name, "steering").map(Some),
        Value::Object(object) => object,
        other => {
            let found = format!("{}, not an object", kind(other));
            return Err(ApiError::field("steering", found, format_args!("an object of {KEYS}")));
        }
    };
    let mut plan = Plan::default();
    let mut scale = 1.0;
    for (key, value) in object {
        match (key.as_str(), value) {
            (_, Value::Null) | ("conflict" | "debug", _) => {}
            ("plan", Value::String(name)) => {
                plan.interventions.extend(library.plan(name, "steering.plan")?.interventions);
            }
            ("plan", other) => return Err(ApiError::field("steering.plan", kind(other), "a plan's name")),
            // Below: they come after the plan, whatever the order of the keys is.
            ("interventions" | "intervention" | "vectors", _) => {}
            ("scale", value) => {
                let number = value.as_f64().filter(|number| number.is_finite() && number.abs() <= 1e6);
                scale = number.ok_or_else(|| {
                    ApiError::field("steering.scale", value, "a number: a factor on every strength")
                })?;
            }
            (other, _) => return Err(ApiError::field("steering", format_args!("key {other:?}"), KEYS)),
        }
    }
    let written: usize = ["interventions", "intervention", "vectors"]
        .map(|key| list(object, key).map(<[Value]>::len))
        .into_iter()
        .sum::<Result<usize, ApiError>>()?;
    check_count(plan.interventions.len() + written)?;
    let mut queries = 0;
    for key in ["interventions", "intervention"] {
        for (number, value) in list(object, key)?.iter().enumerate() {
            let place = format!("steering.{key}[{number}]");
            let own: Intervention = serde_json::from_value(value.clone())
                .map_err(|error| ApiError::invalid(format_args!("{place}: {error}")).param(&place))?;
            queries += library::queries(&own).len();
            if queries > MOST_QUERIES {
                let found = format!("more than {MOST_QUERIES} bounds and doses by probes");
                return Err(ApiError::field("steering", found, format_args!("at most {MOST_QUERIES}")));
            }
            plan.interventions.push(library.resolve(own, &place)?);
        }
    }
    let vectors = list(object, "vectors")?;
    let mut layers: Vec<Option<Vec<u64>>> = Vec::new();
    for (number, value) in vectors.iter().enumerate() {
        let place = format!("steering.vectors[{number}]");
        let Value::Object(vector) = value else {
            return Err(ApiError::field(&place, kind(value), "an object with a source"));
        };
        let (own, at) = easy_steer(vector, &place)?;
        plan.interventions.push(library.resolve(own, &place)?);
        layers.push(at);
    }
    check_conflict(object.get("conflict"), &layers)?;
    if scale != 1.0 {
        plan.interventions.iter_mut().for_each(|own| own.strength = scaled(own.strength, scale as f32));
    }
    plan.check().map_err(|error| ApiError::from(error).param("steering"))?;
    Ok((!plan.interventions.is_empty()).then_some(plan))
}

fn check_count(interventions: usize) -> Result<(), ApiError> {
    match interventions {
        0..=MOST => Ok(()),
        count => {
            let found = format!("{count} interventions");
            Err(ApiError::field("steering", found, format_args!("at most {MOST}")))
        }
    }
}

fn scaled(strength: Strength, scale: f32) -> Strength {
    match strength {
        Strength::Raw(number) => Strength::Raw(number * scale),
        Strength::Norms(number) => Strength::Norms(number * scale),
    }
}

/// One vector of EasySteer's object as an intervention, with its layers: `{source, scale, layers, normalize, apply}`.
fn easy_steer(
    vector: &Map<String, Value>,
    place: &str,
) -> Result<(Intervention, Option<Vec<u64>>), ApiError> {
    let at = |key: &str| format!("{place}.{key}");
    let wrong = |key: &str, value: &Value, expected: &str| ApiError::field(&at(key), value, expected);
    let (mut own, mut layers) = (Intervention::default(), None);
    for (key, value) in vector {
        match (key.as_str(), value) {
            (_, Value::Null) | ("name", _) => {}
            ("source", Value::String(name)) => own.vector = Some(std::path::PathBuf::from(name).into()),
            ("source", value) => return Err(wrong(key, value, "a vector's name")),
            ("algorithm", Value::String(name)) if name == "direct" => {}
            ("algorithm", value) => return Err(wrong(key, value, "\"direct\"")),
            ("scale", value) => {
                let number = value.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
                own.strength = Strength::Raw(number.ok_or_else(|| wrong(key, value, "a number"))?);
            }
            ("normalize", Value::Bool(keep)) => {
                own.operation = if *keep { Operation::ADD_KEEP_NORM } else { Operation::ADD };
            }
            ("normalize", value) => return Err(wrong(key, value, "true or false")),
            ("layers", Value::Array(list)) => {
                let expected = "a list of layers, counted from 0";
                let numbers: Option<Vec<u64>> = list.iter().map(Value::as_u64).collect();
                let numbers = numbers.filter(|numbers| !numbers.is_empty() && numbers.len() <= 1024);
                let numbers = numbers.ok_or_else(|| wrong(key, value, expected))?;
                let text: Vec<String> = numbers.iter().map(u64::to_string).collect();
                let sites = format!("{}.resid_post", text.join(",")).parse();
                own.sites = Some(sites.map_err(|error| ApiError::from(error).param(&at(key)))?);
                layers = Some(numbers);
            }
            ("layers", value) => return Err(wrong(key, value, "a list of layers, counted from 0")),
            ("apply", value) => own.tokens = apply(value, &at(key))?,
            _ => {
                let expected = "source, scale, layers, normalize or apply";
                return Err(ApiError::field(place, format_args!("key {key:?}"), expected));
            }
        }
    }
    if own.vector.is_none() {
        return Err(ApiError::field(&at("source"), "nothing", "a vector's name"));
    }
    if own.sites.is_none() {
        own.sites = "all".parse().ok();
    }
    Ok((own, layers))
}

/// Which tokens EasySteer's `apply` names: `{"prompt": "all", "generation": "all"}`, or one of the two.
fn apply(value: &Value, place: &str) -> Result<Selector, ApiError> {
    let expected = "{\"prompt\": \"all\", \"generation\": \"all\"}, or one of the two";
    let wrong = || ApiError::field(place, value, expected);
    let object = value.as_object().ok_or_else(wrong)?;
    let side = |key: &str| match object.get(key) {
        None | Some(Value::Null) | Some(Value::Bool(false)) => Ok(false),
        Some(Value::String(word)) if word == "none" => Ok(false),
        Some(Value::String(word)) if word == "all" => Ok(true),
        Some(Value::Bool(true)) => Ok(true),
        Some(_) => Err(wrong()),
    };
    if object.keys().any(|key| key != "prompt" && key != "generation") {
        return Err(wrong());
    }
    match (side("prompt")?, side("generation")?) {
        (true, true) => Ok(Selector::All),
        (true, false) => Ok(Selector::Given),
        (false, true) => Ok(Selector::Generated),
        (false, false) => Err(wrong()),
    }
}

/// What happens where vectors share a layer: `sequential`, the default, adds them one after another; `error` refuses.
fn check_conflict(conflict: Option<&Value>, layers: &[Option<Vec<u64>>]) -> Result<(), ApiError> {
    let meet = |a: &Option<Vec<u64>>, b: &Option<Vec<u64>>| match (a, b) {
        (Some(a), Some(b)) => a.iter().any(|layer| b.contains(layer)),
        _ => true,
    };
    let overlap = (0..layers.len()).any(|at| layers[..at].iter().any(|other| meet(other, &layers[at])));
    match conflict {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(word)) if word == "sequential" => Ok(()),
        Some(Value::String(word)) if word == "error" || word == "priority" => {
            match (overlap, word.as_str()) {
                (false, _) => Ok(()),
                (true, "error") => Err(ApiError::field(
                    "steering.vectors",
                    "vectors that share a layer",
                    "\"conflict\": \"sequential\"",
                )),
                (true, _) => {
                    Err(ApiError::field("steering.conflict", "\"priority\"", "\"sequential\" or \"error\""))
                }
            }
        }
        Some(value) => Err(ApiError::field("steering.conflict", value, "\"sequential\" or \"error\"")),
    }
}

fn list<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a [Value], ApiError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(other) => Err(ApiError::field(&format!("steering.{key}"), kind(other), "a list")),
    }
}

/// The kind of a JSON value, in a word.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
