//! One steering intervention: what is changed, at which sites and tokens, when, and how strongly.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::condition::Condition;
use super::constraint::{Constraint, one_or_many};
use super::operation::{Operation, Reference, Strength};
use super::pi_controller::PiController;
use super::probe_query::ProbeQuery;
use super::probe_reader::Probes;
use super::schedule::Schedule;
use super::site_set::SiteSet;
use super::source::{ProbeSource, VectorSource};
use crate::error::{Error, Result};
use crate::model::{Selector, Site};

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
