//! One steering intervention: what is changed, at which sites and tokens, when, and how strongly.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::condition::Condition;
use super::constraint::{Constraint, Inequality, one_or_many};
use super::measured::doubt_of_zero;
use super::operation::{Change, CurvedFace, HalfSpace, Operation, Reference, SafeSet, Strength};
use super::pi_controller::PiController;
use super::probe_query::ProbeQuery;
use super::probe_reader::{ProbeReader, Probes};
use super::prompt_gate::gated_rows;
use super::schedule::Schedule;
use super::site_set::SiteSet;
use super::source::{ProbeSource, VectorSource};
use super::steer_hook::SteerHook;
use super::vector::{Direction, Vector};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Model, Selector, Site};

/// A change of hidden states. The default adds a vector once, at every token of every dialogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intervention {
    /// The vector; every operation but `project` takes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector: Option<VectorSource>,
    /// The bounds that `project` satisfies, each at the site that its probe reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub probe: Vec<Constraint>,
    /// The sites, out of the vector's where no `from` is given: its best one where none are named and that is known, and all
    /// of them otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sites: Option<SiteSet>,
    /// The site whose direction is used at every one of `sites`; of these, `all` means every point of the residual stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Site>,
    /// The kind of change.
    #[serde(default)]
    pub operation: Operation,
    /// How far to steer.
    #[serde(default)]
    pub strength: Strength,
    /// What `ablate` ablates to.
    #[serde(default, skip_serializing_if = "Reference::is_zero")]
    pub to: Reference,
    /// The tokens that are steered.
    #[serde(default = "all_tokens", deserialize_with = "steering_selector")]
    pub tokens: Selector,
    /// A condition on probes' probabilities; always met where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// Where the condition is evaluated.
    #[serde(default, alias = "read", skip_serializing_if = "is_prompt")]
    pub evaluate_at: EvaluateAt,
    /// The factor on the change over the tokens of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// A dose by a probe's reading, in multiples of `strength`: a closed loop where it acts at many tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
    /// Ids of the dialogues that are steered; all of them where none are given.
    #[serde(default, alias = "only", skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Probes in memory, by the names that `probe`, `when` and `control` know them by. They precede files.
    #[serde(skip_deserializing, serialize_with = "refuse_probes", skip_serializing_if = "Probes::is_empty")]
    pub probes: Probes,
}

/// Where a condition is evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EvaluateAt {
    /// Once a dialogue, on the prompt as the unsteered model reads it, where the probe was fitted (CAST, arXiv
    /// 2409.05907).
    #[default]
    Prompt,
    /// At every token that may be steered.
    Token,
}

/// A dose by a probe's reading, as a plan says it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ControlKeys")]
pub struct Control {
    /// The probability that is held at the target.
    pub probe: ProbeQuery,
    /// Target, gains and limits.
    #[serde(flatten)]
    pub controller: PiController,
}

/// The keys of [`Control`], in one table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ControlKeys {
    probe: ProbeQuery,
    target: f64,
    proportional: f64,
    #[serde(default)]
    integral: f64,
    #[serde(default = "PiController::default_min", alias = "least")]
    min: f64,
    #[serde(default = "PiController::default_max", alias = "most")]
    max: f64,
}

impl TryFrom<ControlKeys> for Control {
    type Error = Error;

    fn try_from(keys: ControlKeys) -> Result<Control> {
        let ControlKeys { probe, target, proportional, integral, min, max } = keys;
        let controller = PiController { target, proportional, integral, min, max };
        controller.check()?;
        Ok(Control { probe, controller })
    }
}

impl Default for Intervention {
    fn default() -> Intervention {
        Intervention {
            vector: None,
            probe: Vec::new(),
            sites: None,
            from: None,
            operation: Operation::default(),
            strength: Strength::default(),
            to: Reference::default(),
            tokens: all_tokens(),
            when: None,
            evaluate_at: EvaluateAt::default(),
            schedule: None,
            control: None,
            ids: Vec::new(),
            probes: Probes::default(),
        }
    }
}

fn all_tokens() -> Selector {
    Selector::All
}

fn is_prompt(evaluate_at: &EvaluateAt) -> bool {
    *evaluate_at == EvaluateAt::Prompt
}

/// A selector whose tokens are known while the answer is generated.
fn steering_selector<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Selector, D::Error> {
    let selector = Selector::deserialize(from)?;
    selector.check_steering().map_err(de::Error::custom)?;
    Ok(selector)
}

fn refuse_probes<S: Serializer>(_: &Probes, _: S) -> std::result::Result<S::Ok, S::Error> {
    Err(ser::Error::custom("probe: it is in memory; save it, and name the file"))
}

/// One constructor an operation.
impl Intervention {
    /// Adds a vector at `sites` (`"12.resid_post"`, `"4-11.resid_post"`) with a strength (`"2"`, `"0.5n"`).
    ///
    /// # Errors
    /// Text that is no set of sites, or no strength.
    pub fn add(vector: impl Into<VectorSource>, sites: &str, strength: &str) -> Result<Intervention> {
        Intervention::along(Operation::ADD, vector, sites, strength)
    }

    /// Adds a vector and keeps the norm of the state.
    ///
    /// # Errors
    /// As [`Intervention::add`].
    pub fn add_keep_norm(
        vector: impl Into<VectorSource>,
        sites: &str,
        strength: &str,
    ) -> Result<Intervention> {
        Intervention::along(Operation::ADD_KEEP_NORM, vector, sites, strength)
    }

    /// Removes the component along a vector.
    ///
    /// # Errors
    /// Text that is no set of sites.
    pub fn ablate(vector: impl Into<VectorSource>, sites: &str) -> Result<Intervention> {
        Intervention::along(Operation::ABLATE, vector, sites, "1")
    }

    /// Sets the component along a vector, in activation units (`"3.5"`) or in residual norms (`"1n"`).
    ///
    /// # Errors
    /// As [`Intervention::add`].
    pub fn clamp(vector: impl Into<VectorSource>, sites: &str, value: &str) -> Result<Intervention> {
        Intervention::along(Operation::CLAMP, vector, sites, value)
    }

    /// Lowers the component along a vector to a bound, in activation units or in residual norms.
    ///
    /// # Errors
    /// As [`Intervention::add`].
    pub fn cap(vector: impl Into<VectorSource>, sites: &str, bound: &str) -> Result<Intervention> {
        Intervention::along(Operation::CAP, vector, sites, bound)
    }

    /// Projects onto the states in which a probe's class is bounded: `"high/low < 0.2"`, or `"high"` for the probe's own
    /// threshold. [`Intervention::satisfy`] adds further bounds.
    ///
    /// # Errors
    /// A bound that is no probability.
    pub fn project(probe: impl Into<ProbeSource>, constraint: &str) -> Result<Intervention> {
        let intervention = Intervention { operation: Operation::PROJECT, ..Intervention::default() };
        intervention.satisfy(probe, constraint)
    }

    fn along(
        operation: Operation,
        vector: impl Into<VectorSource>,
        sites: &str,
        strength: &str,
    ) -> Result<Intervention> {
        Ok(Intervention {
            vector: Some(vector.into()),
            sites: Some(sites.parse()?),
            operation,
            strength: strength.parse()?,
            ..Intervention::default()
        })
    }
}

/// Builder methods.
impl Intervention {
    /// One more bound for `project`, as in [`Intervention::project`].
    ///
    /// # Errors
    /// A bound that is no probability.
    pub fn satisfy(mut self, probe: impl Into<ProbeSource>, constraint: &str) -> Result<Intervention> {
        let mut constraint: Constraint = format!(":{constraint}").parse()?;
        constraint.query.probe = self.probes.name(probe.into());
        self.probe.push(constraint);
        Ok(self)
    }

    /// Steers only where the class's calibrated probability is above a bound. Called again, all conditions must hold.
    pub fn when(mut self, probe: impl Into<ProbeSource>, class: &str, above: f64) -> Intervention {
        let probe = self.probes.name(probe.into());
        let query = ProbeQuery { probe, class: Some(class.to_string()), against: None };
        let condition = Condition::above(query, above);
        self.when = Some(match self.when.take() {
            None => condition,
            Some(Condition::All(mut parts)) => {
                parts.push(condition);
                Condition::All(parts)
            }
            Some(other) => Condition::All(vec![other, condition]),
        });
        self
    }

    /// Sets where the condition is evaluated.
    pub fn evaluate_at(mut self, evaluate_at: EvaluateAt) -> Intervention {
        self.evaluate_at = evaluate_at;
        self
    }

    /// Sets the tokens that are steered.
    pub fn tokens(mut self, tokens: Selector) -> Intervention {
        self.tokens = tokens;
        self
    }

    /// Sets the factor on the change over the tokens of the answer.
    pub fn schedule(mut self, schedule: Schedule) -> Intervention {
        self.schedule = Some(schedule);
        self
    }

    /// Sets what `ablate` ablates to.
    pub fn to(mut self, to: Reference) -> Intervention {
        self.to = to;
        self
    }

    /// Uses the direction of one site at every steered site.
    pub fn from(mut self, site: Site) -> Intervention {
        self.from = Some(site);
        self
    }

    /// Sets the strength.
    pub fn strength(mut self, strength: Strength) -> Intervention {
        self.strength = strength;
        self
    }

    /// Lets a controller of the class's probability set the strength.
    pub fn control(
        mut self,
        probe: impl Into<ProbeSource>,
        class: &str,
        controller: PiController,
    ) -> Intervention {
        let probe = self.probes.name(probe.into());
        let probe = ProbeQuery { probe, class: Some(class.to_string()), against: None };
        self.control = Some(Control { probe, controller });
        self
    }

    /// Steers only the dialogues with these ids.
    pub fn ids(mut self, ids: impl IntoIterator<Item = impl Into<String>>) -> Intervention {
        self.ids = ids.into_iter().map(Into::into).collect();
        self
    }
}

impl Intervention {
    /// Checks all that needs no model. `has_vector`: whether a vector is there, of its own or the caller's.
    pub(super) fn check(&self, has_vector: bool) -> Result<()> {
        self.when.iter().try_for_each(Condition::check)?;
        self.control.iter().try_for_each(|control| control.controller.check())?;
        self.tokens.check_steering()?;
        self.operation.check_strength(self.strength)?;
        self.operation.check_reference(self.to)?;
        let wrong = |found: &str, expected: &str| Err(Error::input(self.operation, found, expected));
        if self.operation.takes_probes() && self.from.is_some() {
            return wrong("from", "no from: a projection has no vector");
        }
        let vector = "a vector; or, with operation project, probes instead";
        match (self.operation.takes_probes(), has_vector, self.probe.is_empty()) {
            (true, true, _) => wrong("a vector", vector),
            (true, false, true) => wrong("no probe", "probe = [\"FILE:CLASS < PROBABILITY\"]"),
            (false, false, _) => wrong("no vector", vector),
            (false, true, false) => wrong(
                "a vector and probes",
                "operation project for probes; `pearl vector build --method probe` makes a vector of one",
            ),
            _ => Ok(()),
        }
    }

    /// The files of the vector and the probes.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let vector = self.vector.iter().filter_map(|vector| match vector {
            VectorSource::File(path) => Some(path.clone()),
            VectorSource::Memory(_) => None,
        });
        let bounds = self.when.iter().flat_map(Condition::bounds).map(|bound| bound.query.probe.clone());
        let constraints = self.probe.iter().map(|constraint| constraint.query.probe.clone());
        let control = self.control.iter().map(|control| control.probe.probe.clone());
        vector.chain(bounds).chain(constraints).chain(control).collect()
    }

    /// What a reader should doubt, a site each: an ablation to zero where zero is no point between the vector's classes.
    pub(super) fn doubts(&self, model: &Model) -> Result<Vec<String>> {
        let Some(source) = self.vector.as_ref().filter(|_| self.operation == Operation::ABLATE) else {
            return Ok(Vec::new());
        };
        if !self.to.is_zero() {
            return Ok(Vec::new());
        }
        let vector = source.load(model)?;
        let (vector, sites) = self.along_sites(model, &vector)?;
        let doubt = |(site, direction): (&Site, &Direction)| {
            let doubt = doubt_of_zero(direction.place_of_zero()?)?;
            Some(format!("ablate at {site}: {doubt}"))
        };
        let steered = vector.directions.iter().filter(|(site, _)| sites.contains(site));
        let mut doubts: Vec<String> = steered.filter_map(doubt).collect();
        // One direction at sixty sites is one thing to say.
        if let (Some(_), more @ 1..) = (self.from, doubts.len().saturating_sub(1)) {
            doubts.truncate(1);
            doubts[0] += &format!(" (and at {more} more sites)");
        }
        Ok(doubts)
    }

    /// The vector with a direction at every steered site, and these sites.
    fn along_sites<'a>(&self, model: &Model, vector: &'a Vector) -> Result<(Cow<'a, Vector>, Vec<Site>)> {
        let all = self.sites.as_ref().is_some_and(SiteSet::is_all);
        let Some(from) = self.from else {
            let sites = match &self.sites {
                None => vector.default_sites(),
                Some(_) if all => vector.directions.keys().copied().collect(),
                Some(sites) => sites.resolve(model)?,
            };
            return Ok((Cow::Borrowed(vector), sites));
        };
        let sites = match &self.sites {
            None => vec![from],
            Some(_) if all => model.decoder.architecture().stream_sites(),
            Some(sites) => sites.resolve(model)?,
        };
        Ok((Cow::Owned(vector.spread(from, &sites)?), sites))
    }

    /// Names the vector's best site where no sites are named.
    ///
    /// # Errors
    /// A vector with several directions of which none is known to be the best; a file that can't be read.
    pub fn at_best_site(mut self, model: &Model) -> Result<Intervention> {
        let Some(source) = self.vector.as_ref().filter(|_| self.sites.is_none() && self.from.is_none())
        else {
            return Ok(self);
        };
        let vector = source.load(model)?;
        match vector.default_sites().as_slice() {
            [site] => {
                self.sites = Some((*site).into());
                Ok(self)
            }
            sites => {
                let name = match source {
                    VectorSource::File(path) => path.display().to_string(),
                    VectorSource::Memory(_) => "vector".into(),
                };
                let found = format!("directions at {} sites, none of them known to be the best", sites.len());
                let (strength, middle) = (self.strength, sites[sites.len() / 2]);
                let expected =
                    format!("sites, as {name}:{strength}@{middle}, or {name}:{strength}@all for all of them");
                Err(Error::input(format!("vector {name}"), found, expected))
            }
        }
    }

    /// The hook for these dialogues, whose indices are the rows of the batch. `vector` replaces the intervention's own;
    /// probes are read from `probes` or, where it lacks them, from files. Conditions on the prompt are evaluated here.
    ///
    /// # Errors
    /// An intervention that [`super::Plan::check`] refuses; files that can't be read; vectors and probes of another width
    /// or of another model.
    pub fn prepare(
        &self,
        vector: Option<&Vector>,
        probes: &mut Probes,
        model: &Model,
        dialogues: &[Dialogue],
        thinking: Option<bool>,
    ) -> Result<SteerHook> {
        self.check(vector.is_some() || self.vector.is_some())?;
        let mut readers = Vec::new();
        for bound in self.when.iter().flat_map(Condition::bounds) {
            let reader = self.reader(&bound.query, probes, model)?;
            check_site(&reader, bound.site)?;
            readers.push(reader);
        }
        let mut rows = self.named_rows(dialogues)?;
        if let Some(condition) = self.when.as_ref().filter(|_| self.evaluate_at == EvaluateAt::Prompt) {
            let gated = gated_rows(condition, &readers, model, dialogues, thinking)?;
            rows = Some(match rows {
                None => gated,
                Some(named) => named.intersection(&gated).copied().collect(),
            });
        }
        let mut hook = match (vector, &self.vector) {
            (Some(vector), _) => self.hook(model, vector, rows)?,
            (None, Some(source)) => self.hook(model, source.load(model)?.as_ref(), rows)?,
            (None, None) => self.projection(probes, model, rows)?,
        };
        if let Some(schedule) = self.schedule {
            hook = hook.scheduled(schedule);
        }
        if let Some(control) = &self.control {
            hook = hook.controlled(control.controller, self.reader(&control.probe, probes, model)?)?;
        }
        match self.when.as_ref().filter(|_| self.evaluate_at == EvaluateAt::Token) {
            Some(condition) => hook.gated(condition.clone(), readers),
            None => Ok(hook),
        }
    }

    /// The hook of a vector on these rows; on all where none are given.
    ///
    /// # Errors
    /// Sites that the model or the vector lacks; a vector of another width.
    pub fn hook(&self, model: &Model, vector: &Vector, rows: Option<BTreeSet<usize>>) -> Result<SteerHook> {
        let (vector, sites) = self.along_sites(model, vector)?;
        let change = Change { operation: self.operation, strength: self.strength, to: self.to };
        SteerHook::new(&model.decoder, &vector, &sites, change, self.tokens.clone(), rows)
    }

    /// The hook of a projection onto the states that satisfy every constraint.
    fn projection(
        &self,
        probes: &mut Probes,
        model: &Model,
        rows: Option<BTreeSet<usize>>,
    ) -> Result<SteerHook> {
        let mut faces: BTreeMap<Site, (Vec<HalfSpace>, Vec<CurvedFace>)> = BTreeMap::new();
        for constraint in &self.probe {
            let reader = self.reader(&constraint.query, probes, model)?;
            let threshold = reader.threshold.map(|probability| Inequality { above: false, probability });
            let bound = constraint.bound.or(threshold).ok_or_else(|| {
                let expected =
                    format!("a bound ({constraint} < 0.5), or a probe with a threshold for the class");
                Error::input(format!("probe {constraint}"), "no bound, and no calibrated threshold", expected)
            })?;
            let (flat, curved) = faces.entry(reader.site).or_default();
            let half_spaces = reader.half_spaces(bound)?;
            match reader.curved_face(bound) {
                Some(face) => curved.push(face),
                None => flat.extend(half_spaces),
            }
        }
        if let Some(sites) = &self.sites
            && !sites.resolve(model)?.iter().eq(faces.keys())
        {
            let read: Vec<String> = faces.keys().map(Site::to_string).collect();
            let found = format!("the probes read {}", read.join(", "));
            return Err(Error::input(format!("sites {sites}"), found, "no sites: the probes' own are used"));
        }
        let safe_sets =
            faces.into_iter().map(|(site, (flat, curved))| Ok((site, SafeSet::with_curved(flat, curved)?)));
        let safe_sets = safe_sets.collect::<Result<_>>()?;
        SteerHook::project(
            &model.decoder,
            safe_sets,
            self.operation,
            self.strength,
            self.tokens.clone(),
            rows,
        )
    }

    /// The reader of a probe, from the intervention's own or the others.
    fn reader(&self, query: &ProbeQuery, probes: &mut Probes, model: &Model) -> Result<ProbeReader> {
        match self.probes.reader_in_memory(query, model) {
            Some(reader) => reader,
            None => probes.reader(query, model),
        }
    }

    /// The rows of the dialogues with the ids; none where no ids are given.
    fn named_rows(&self, dialogues: &[Dialogue]) -> Result<Option<BTreeSet<usize>>> {
        if self.ids.is_empty() {
            return Ok(None);
        }
        let mut rows = BTreeSet::new();
        for id in &self.ids {
            let before = rows.len();
            rows.extend((0..dialogues.len()).filter(|&row| dialogues[row].id == *id));
            if rows.len() == before {
                let found = format!("no dialogue {id:?}, or the id is there twice");
                return Err(Error::input("ids", found, "ids of dialogues, each once"));
            }
        }
        Ok(Some(rows))
    }
}

/// Checks the site of a condition against the one that its probe reads.
fn check_site(reader: &ProbeReader, site: Option<Site>) -> Result<()> {
    match site {
        Some(site) if site != reader.site => {
            let found = format!("it reads {}, not {site}", reader.site);
            Err(Error::input(format!("when probe {}", reader.name), found, "the probe's own site, or none"))
        }
        _ => Ok(()),
    }
}

impl FromStr for Intervention {
    type Err = Error;

    /// `FILE[@FROM]:[OPERATION=]STRENGTH[@SITES]`: adds the file's vector at every token, or does another operation along it.
    /// `FROM` is the one site whose direction is used at all of them; `ablate` alone is `ablate=1`.
    fn from_str(text: &str) -> Result<Intervention> {
        let wrong = || {
            let expected = "FILE:STRENGTH@SITES, FILE@SITE:ablate@all, FILE@SITE:clamp=1n@4-11.resid_post, …";
            Error::input(format!("vector {text}"), "no strength", expected)
        };
        let (file, rest) = text.rsplit_once(':').ok_or_else(wrong)?;
        let (change, sites) = match rest.split_once('@') {
            None => (rest, None),
            Some((change, sites)) => (change, Some(sites.parse()?)),
        };
        let (operation, strength) = match change.split_once('=') {
            Some((operation, strength)) => (operation.parse()?, strength.parse()?),
            None if change == Operation::ABLATE.name() => (Operation::ABLATE, Strength::default()),
            None => (Operation::default(), change.parse()?),
        };
        let site_after =
            |file: &str| Some((file.rsplit_once('@')?.0.to_owned(), file.rsplit_once('@')?.1.parse().ok()?));
        let (file, from) = match site_after(file) {
            Some((file, from)) => (file, Some(from)),
            None => (file.to_owned(), None),
        };
        let vector = Some(VectorSource::File(file.into()));
        Ok(Intervention { vector, sites, from, operation, strength, ..Intervention::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_command_line_form() {
        let intervention: Intervention = "a/b.safetensors:-2@3.resid_post".parse().unwrap();
        assert_eq!(intervention.vector, Some(VectorSource::File("a/b.safetensors".into())));
        assert_eq!(intervention.strength, Strength::Raw(-2.0));
        assert_eq!(intervention.sites.unwrap().as_str(), "3.resid_post");
        assert!("b.safetensors".parse::<Intervention>().is_err());
        assert!("b.safetensors:1@3.nowhere".parse::<Intervention>().is_err());
        let read = |text: &str| text.parse::<Intervention>().unwrap();
        let ablation = read("a@b.safetensors@15.resid_post:ablate@all");
        assert_eq!(ablation.vector, Some(VectorSource::File("a@b.safetensors".into())));
        assert_eq!((ablation.operation, ablation.strength), (Operation::ABLATE, Strength::Raw(1.0)));
        assert_eq!(ablation.from.unwrap().to_string(), "15.resid_post");
        assert!(ablation.sites.unwrap().is_all());
        let clamp = read("v@3.mlp_out:clamp=-0.5n@1-2.mlp_out");
        assert_eq!((clamp.operation, clamp.strength), (Operation::CLAMP, Strength::Norms(-0.5)));
        assert_eq!(read("b@1:2").from, None);
        assert!("v:turn=1@all".parse::<Intervention>().unwrap_err().to_string().contains("add-keep-norm"));
    }

    #[test]
    fn conditions_add_up() {
        let file = |name: &str| ProbeSource::File(name.into());
        let intervention = Intervention::default().when(file("a"), "x", 0.5).when(file("b"), "y", 0.25);
        assert_eq!(intervention.when.unwrap().to_string(), "probe a:x > 0.5 and probe b:y > 0.25");
        let projection = Intervention::project(file("a"), "x/y < 0.2").unwrap();
        assert_eq!(projection.probe[0].to_string(), "a:x/y < 0.2");
        assert!(Intervention::project(file("a"), "x < 2").is_err());
    }
}
