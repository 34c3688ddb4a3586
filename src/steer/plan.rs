//! Steering plans: interventions in order, from a TOML or JSON file or from objects, made into hooks.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::intervention::Intervention;
use super::probe_reader::Probes;
use super::source::{ProbeSource, VectorSource};
use super::steer_hook::SteerHook;
use crate::artifact;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::Model;

/// Interventions, applied in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The interventions.
    #[serde(rename = "intervention")]
    pub interventions: Vec<Intervention>,
}

/// The keys of an intervention, for errors.
const EXPECTED: &str = "interventions of vector or probe, sites, from, operation, strength, to, tokens, when, evaluate_at, schedule, \
                        control, ids";

impl Plan {
    /// Reads a plan, as JSON from a `.json` file and as TOML from any other.
    ///
    /// # Errors
    /// A file that can't be read; an unknown key; a value that its key can't have. The message begins with the file and
    /// the line.
    pub fn load(path: &Path) -> Result<Plan> {
        let text = artifact::read_settings(path)?;
        let plan = match path.extension().is_some_and(|extension| extension == "json") {
            true => Plan::parse_json(path, &text)?,
            false => Plan::parse_toml(path, &text)?,
        };
        plan.check().map_err(|error| within(&path.display().to_string(), error))?;
        Ok(plan)
    }

    fn parse_toml(path: &Path, text: &str) -> Result<Plan> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let before = text.get(..start).unwrap_or(text);
            let line = 1 + before.matches('\n').count();
            // A span begins at the value, or at a key that is unknown.
            let key = before.trim_end().strip_suffix('=').map(str::trim_end).map(|before| {
                let is_key = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
                before.rsplit(|c: char| !is_key(c)).next().unwrap_or_default()
            });
            parse_error(path, line, key, error.message())
        })
    }

    fn parse_json(path: &Path, text: &str) -> Result<Plan> {
        serde_json::from_str(text).map_err(|error| {
            let message = error.to_string();
            let position = format!(" at line {} column {}", error.line(), error.column());
            parse_error(path, error.line(), None, message.strip_suffix(&position).unwrap_or(&message))
        })
    }

    /// Checks all that needs no model: conditions that no probabilities satisfy, an operation without its vector or probe,
    /// a strength in a unit that the operation doesn't take.
    ///
    /// # Errors
    /// An intervention that can't be made; the message says which, counted from 1, where there are several.
    pub fn check(&self) -> Result<()> {
        for (index, intervention) in self.interventions.iter().enumerate() {
            intervention.check(intervention.vector.is_some()).map_err(|error| self.numbered(index, error))?;
        }
        Ok(())
    }

    /// The plan as hooks for these dialogues, whose indices are the rows of the batch. Conditions on the prompt are
    /// evaluated here, by the unsteered model.
    ///
    /// # Errors
    /// An intervention that can't be made; the message says which, counted from 1, where there are several.
    pub fn hooks(
        &self,
        model: &Model,
        dialogues: &[Dialogue],
        thinking: Option<bool>,
    ) -> Result<Vec<SteerHook>> {
        self.hooks_with(Probes::default(), model, dialogues, thinking)
    }

    /// As [`Plan::hooks`], with probes that are loaded already.
    ///
    /// # Errors
    /// As [`Plan::hooks`].
    pub fn hooks_with(
        &self,
        mut probes: Probes,
        model: &Model,
        dialogues: &[Dialogue],
        thinking: Option<bool>,
    ) -> Result<Vec<SteerHook>> {
        self.check()?;
        let mut hooks = Vec::new();
        for (index, intervention) in self.interventions.iter().enumerate() {
            let hook = intervention.prepare(None, &mut probes, model, dialogues, thinking);
            hooks.push(hook.map_err(|error| self.numbered(index, error))?);
        }
        Ok(hooks)
    }

    /// The plan for some of the dialogues that it was written for: ids that aren't among them are left out, and so are interventions
    /// of which no id is left.
    pub fn of_present(&self, dialogues: &[Dialogue]) -> Plan {
        let present = |intervention: &Intervention| {
            let mut own = intervention.clone();
            own.ids.retain(|id| dialogues.iter().any(|dialogue| dialogue.id == *id));
            (own.ids.is_empty() == intervention.ids.is_empty()).then_some(own)
        };
        Plan { interventions: self.interventions.iter().filter_map(present).collect() }
    }

    /// SHA-256 of the plan and of the files that it names, in hex.
    ///
    /// # Errors
    /// A file that can't be read; a vector or probe in memory.
    pub fn hash(&self) -> Result<String> {
        let text = serde_json::to_string(self)
            .map_err(|error| Error::input("plan", error, "files, which have a hash"))?;
        let mut all = text;
        for file in self.interventions.iter().flat_map(Intervention::files) {
            all += &artifact::sha256_file(&file)?;
        }
        Ok(artifact::sha256(all.as_bytes()))
    }

    /// What a reader should doubt before the plan is run: ablations to zero along a vector whose classes don't lie around it.
    ///
    /// # Errors
    /// A vector's file that can't be read, or is of another model.
    pub fn doubts(&self, model: &Model) -> Result<Vec<String>> {
        let mut doubts = Vec::new();
        for (index, intervention) in self.interventions.iter().enumerate() {
            let own = intervention.doubts(model).map_err(|error| self.numbered(index, error))?;
            doubts.extend(own.into_iter().map(|doubt| match self.interventions.len() {
                1 => doubt,
                _ => format!("intervention {}, {doubt}", index + 1),
            }));
        }
        Ok(doubts)
    }

    fn numbered(&self, index: usize, error: Error) -> Error {
        match self.interventions.len() {
            1 => error,
            _ => within(&format!("intervention {}", index + 1), error),
        }
    }
}

/// Plans of one intervention, as in [`Intervention`]'s constructors of the same names.
impl Plan {
    /// Adds a vector at `sites` (`"12.resid_post"`) with a strength (`"2"`, `"0.5n"`).
    ///
    /// # Errors
    /// Text that is no set of sites, or no strength.
    pub fn add(vector: impl Into<VectorSource>, sites: &str, strength: &str) -> Result<Plan> {
        Intervention::add(vector, sites, strength).map(Plan::from)
    }

    /// Adds a vector and keeps the norm of the state.
    ///
    /// # Errors
    /// As [`Plan::add`].
    pub fn add_keep_norm(vector: impl Into<VectorSource>, sites: &str, strength: &str) -> Result<Plan> {
        Intervention::add_keep_norm(vector, sites, strength).map(Plan::from)
    }

    /// Removes the component along a vector.
    ///
    /// # Errors
    /// Text that is no set of sites.
    pub fn ablate(vector: impl Into<VectorSource>, sites: &str) -> Result<Plan> {
        Intervention::ablate(vector, sites).map(Plan::from)
    }

    /// Sets the component along a vector.
    ///
    /// # Errors
    /// As [`Plan::add`].
    pub fn clamp(vector: impl Into<VectorSource>, sites: &str, value: &str) -> Result<Plan> {
        Intervention::clamp(vector, sites, value).map(Plan::from)
    }

    /// Lowers the component along a vector to a bound.
    ///
    /// # Errors
    /// As [`Plan::add`].
    pub fn cap(vector: impl Into<VectorSource>, sites: &str, bound: &str) -> Result<Plan> {
        Intervention::cap(vector, sites, bound).map(Plan::from)
    }

    /// Projects onto the states in which a probe's class is bounded: `"high/low < 0.2"`.
    ///
    /// # Errors
    /// A bound that is no probability.
    pub fn project(probe: impl Into<ProbeSource>, constraint: &str) -> Result<Plan> {
        Intervention::project(probe, constraint).map(Plan::from)
    }

    /// Appends an intervention.
    pub fn and(mut self, intervention: Intervention) -> Plan {
        self.interventions.push(intervention);
        self
    }

    /// Puts a condition on the last intervention, as [`Intervention::when`] does. A plan without one stays as it is.
    pub fn when(mut self, probe: impl Into<ProbeSource>, class: &str, above: f64) -> Plan {
        if let Some(last) = self.interventions.pop() {
            self.interventions.push(last.when(probe, class, above));
        }
        self
    }
}

impl From<Intervention> for Plan {
    fn from(intervention: Intervention) -> Plan {
        Plan { interventions: vec![intervention] }
    }
}

/// An error with an outer place before its own.
fn within(outer: &str, error: Error) -> Error {
    match error {
        Error::Input { place, found, expected } => {
            Error::Input { place: format!("{outer}, {place}"), found, expected }
        }
        other => other,
    }
}

/// An error at a line of a file. `message` mostly says what is expected itself.
fn parse_error(path: &Path, line: usize, key: Option<&str>, message: &str) -> Error {
    let split = message.rsplit_once("; expected ").or_else(|| message.split_once(", expected "));
    let (found, expected) = split.unwrap_or((message, EXPECTED));
    let place = format!("{}:{line}", path.display());
    match key.filter(|key| !key.is_empty() && !found.starts_with(key)) {
        Some(key) => Error::input(format!("{place}, {key}"), found, expected),
        None => Error::input(place, found, expected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steer::{EvaluateAt, Operation, Reference, Strength};

    #[test]
    fn reads_a_plan_and_says_it_again() {
        let plan: Plan = toml::from_str(
            "[[intervention]]\nvector = \"guide.safetensors\"\nstrength = \"0.4n\"\ntokens = \"generated\"\n\
             [[intervention]]\nvector = \"b.safetensors\"\noperation = \"ablate\"\nsites = \"3.resid_post\"\nto = \"midpoint\"",
        )
        .unwrap();
        assert_eq!(plan.interventions[0].strength, Strength::Norms(0.4));
        assert_eq!(plan.interventions[1].operation, Operation::ABLATE);
        assert_eq!(plan.interventions[1].to, Reference::Midpoint);
        assert!(toml::from_str::<Plan>("[[intervention]]\nvector = \"b\"\nstrenght = 1").is_err());
        let plan: Plan = toml::from_str(
            "[[intervention]]\noperation = \"project\"\nprobe = \"p:a/b < 0.2\"\nevaluate_at = \"token\"\n\
             [[intervention]]\nvector = \"v\"\nids = [\"one\"]\nschedule = \"decay(4)\"\n\
             when = \"probe p:a > 0.2 and not probe q < 0.3 at 4.resid_post\"\n\
             control = { probe = \"p:a\", target = 0.8, proportional = 0.1 }",
        )
        .unwrap();
        assert_eq!(plan.interventions[0].probe[0].to_string(), "p:a/b < 0.2");
        assert_eq!(plan.interventions[0].evaluate_at, EvaluateAt::Token);
        assert_eq!(plan.interventions[1].control.as_ref().unwrap().controller.max, 1.0);
        let text = toml::to_string(&plan).unwrap();
        assert_eq!(toml::from_str::<Plan>(&text).unwrap(), plan);
        let json = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
    }

    #[test]
    fn the_old_keys_mean_the_same() {
        let plan = |keys: &str| {
            toml::from_str::<Plan>(&format!("[[intervention]]\nvector = \"v\"\n{keys}")).unwrap()
        };
        let control = |limits: &str| {
            format!("control = {{ probe = \"p:a\", target = 0.8, proportional = 0.1, {limits} }}")
        };
        assert_eq!(plan("read = \"token\""), plan("evaluate_at = \"token\""));
        assert_eq!(plan("only = [\"one\", \"two\"]"), plan("ids = [\"one\", \"two\"]"));
        assert_eq!(plan(&control("least = -1.0, most = 2.0")), plan(&control("min = -1.0, max = 2.0")));
        assert_ne!(plan(&control("max = 2.0")), plan(&control("max = 3.0")));
    }

    #[test]
    fn an_error_names_the_line_and_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.toml");
        let cases = [
            ("sites = \"3.nowhere\"", "sites", "BLOCK.POINT"),
            ("operation = \"turn\"", "operation", "add, add-keep-norm"),
            ("strength = \"much\"", "strength", "0.4n"),
            ("to = \"nowhere\"", "to", "midpoint"),
            ("tokens = \"last\"", "tokens", "assistant.start"),
            ("when = \"probe a:b above 1\"", "when", "probe FILE:CLASS"),
            ("evaluate_at = \"now\"", "evaluate_at", "`prompt`"),
            ("schedule = \"grow(3)\"", "schedule", "ramp(TOKENS)"),
            ("probe = [\"a:b < 2\"]", "probe", "between 0 and 1"),
            ("control = { probe = \"a:b\", target = 2.0, proportional = 1.0 }", "control", "between 0 and 1"),
            ("ids = 3", "ids", "sequence"),
            ("color = 3", "color", "evaluate_at"),
        ];
        for (line, key, expected) in cases {
            std::fs::write(&path, format!("[[intervention]]\nvector = \"v\"\n{line}\n")).unwrap();
            let error = Plan::load(&path).unwrap_err().to_string();
            let (place, message) = error.split_once("plan.toml:3").unwrap_or_else(|| panic!("{error}"));
            assert!(!place.contains(' ') && message.contains(key) && message.contains(expected), "{error}");
            assert_eq!(error.matches("expected").count(), 1, "{error}");
        }
    }
}
