//! A steering plan: interventions as the user writes them, in TOML or JSON or on the command line, made into hooks.
//! It knows nothing of how answers are generated.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::plan_builder::Objects;
use super::operation::{HalfSpace, Operation, SafeSet, Strength};
use super::pi_controller::PiController;
use super::probe_reader::{ProbeQuery, Probes, Reader};
use super::prompt_gate::rows;
use super::schedule::Schedule;
use super::steer_hook::Steer;
use super::vector::Vector;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Model, Selector, Site};

/// Interventions, applied in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    #[serde(rename = "intervention")]
    pub interventions: Vec<Intervention>,
    #[serde(skip)]
    pub(super) objects: Objects,
}

/// One change, where and how it is made, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intervention {
    /// A file that `pearl vector` wrote; every operation but `project` takes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector: Option<PathBuf>,
    /// What `project` brings to the safe side: `FILE:CLASS/OTHER < PROBABILITY` (or `>`), each at the site that its probe
    /// reads. Without a bound, below the threshold that the probe was calibrated to.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "one_or_many")]
    pub probe: Vec<String>,
    /// Sites of the vector's; all of them where none are named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sites: Option<String>,
    #[serde(default)]
    pub operation: Operation,
    /// A number of times the vector, or of residual norms along it (`0.4n`).
    #[serde(default = "once", with = "text")]
    pub strength: Strength,
    #[serde(default = "everywhere")]
    pub tokens: Selector,
    /// A condition on probes' readings; without one, every row is steered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Where the condition is read.
    #[serde(default, skip_serializing_if = "is_prompt")]
    pub read: ReadAt,
    /// `constant`, `decay(TOKENS)` or `ramp(TOKENS)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// A closed loop that sets the strength, in multiples of `strength`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
    /// Ids of the dialogues that it is for; all where none are named. So each row of a batch may have a plan of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
}

/// Where a condition is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadAt {
    /// Once, where the probe was fitted, on the prompt as the unsteered model reads it (CAST, arXiv 2409.05907).
    #[default]
    Prompt,
    /// At every token that may be steered, as it passes.
    Token,
}

fn is_prompt(read: &ReadAt) -> bool {
    *read == ReadAt::Prompt
}

/// A closed loop as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// `FILE:CLASS`, whose probability is held at the target.
    pub probe: String,
    #[serde(flatten)]
    pub law: PiController,
}

/// Nothing yet: once the vector, at every token of every row.
impl Default for Intervention {
    fn default() -> Intervention {
        Intervention {
            vector: None,
            probe: Vec::new(),
            sites: None,
            operation: Operation::Add,
            strength: once(),
            tokens: everywhere(),
            when: None,
            read: ReadAt::Prompt,
            schedule: None,
            control: None,
            only: Vec::new(),
        }
    }
}

fn once() -> Strength {
    Strength::Raw(1.0)
}

fn everywhere() -> Selector {
    Selector::All
}

/// One text, or a list of them.
mod one_or_many {
    use super::*;

    pub fn serialize<S: serde::Serializer>(texts: &[String], to: S) -> std::result::Result<S::Ok, S::Error> {
        texts.serialize(to)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> std::result::Result<Vec<String>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            One(String),
            Many(Vec<String>),
        }
        Ok(match Either::deserialize(from)? {
            Either::One(text) => vec![text],
            Either::Many(texts) => texts,
        })
    }
}

/// A strength is written as text; a bare number is understood too.
mod text {
    use super::*;

    pub fn serialize<S: serde::Serializer>(
        strength: &Strength,
        to: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(strength)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Strength, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(f32),
            Text(String),
        }
        let text = match Either::deserialize(from)? {
            Either::Number(number) => number.to_string(),
            Either::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Plan {
    /// Reads a plan: JSON where the name ends so, TOML otherwise.
    pub fn load(path: &Path) -> Result<Plan> {
        let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
        let expected = "interventions of vector or probe, sites, operation, strength, tokens, when, read, schedule, control, only";
        match path.extension().is_some_and(|extension| extension == "json") {
            true => {
                serde_json::from_str(&text).map_err(|error| Error::input(path.display(), error, expected))
            }
            false => {
                toml::from_str(&text).map_err(|error| Error::input(path.display(), error.message(), expected))
            }
        }
    }

    /// The plan as hooks for these dialogues, whose numbers are the rows. Conditions that are read on the prompt are read
    /// first.
    ///
    /// # Errors
    /// An intervention that can't be made; the message says which, by its place from 1.
    pub fn hooks(&self, model: &Model, dialogues: &[Dialogue], thinking: Option<bool>) -> Result<Vec<Steer>> {
        self.hooks_with(Probes::default(), model, dialogues, thinking)
    }

    /// The same with probes that are at hand.
    pub fn hooks_with(
        &self,
        probes: Probes,
        model: &Model,
        dialogues: &[Dialogue],
        thinking: Option<bool>,
    ) -> Result<Vec<Steer>> {
        let mut probes = self.objects.probes(probes);
        let mut hooks = Vec::new();
        for (number, intervention) in self.interventions.iter().enumerate() {
            let hook = intervention.prepare(self.objects.vector(number), &mut probes, model, dialogues, thinking);
            hooks.push(hook.map_err(|error| match error {
                Error::Input { place, found, expected } if self.interventions.len() > 1 => {
                    Error::Input { place: format!("intervention {}, {place}", number + 1), found, expected }
                }
                other => other,
            })?);
        }
        Ok(hooks)
    }
}

impl Intervention {
    /// The hook for these dialogues, whose numbers are the rows; with `own` instead of the vector's file, if it is given.
    ///
    /// # Errors
    /// What is missing, unknown, of another width or of another model; contradictory conditions.
    pub fn prepare(
        &self,
        own: Option<&Vector>,
        probes: &mut Probes,
        model: &Model,
        dialogues: &[Dialogue],
        thinking: Option<bool>,
    ) -> Result<Steer> {
        let condition = self.when.as_ref().map(|text| text.parse::<Condition>()).transpose()?;
        let readers = match &condition {
            None => Vec::new(),
            Some(condition) => condition
                .bounds()
                .into_iter()
                .map(|bound| {
                    let reader = probes.reader(&bound.asked, model)?;
                    check_at(&reader, bound.at)?;
                    Ok(reader)
                })
                .collect::<Result<Vec<Reader>>>()?,
        };
        let mut steered = self.named(dialogues)?;
        if let Some(condition) = condition.as_ref().filter(|_| self.read == ReadAt::Prompt) {
            let meeting = rows(condition, &readers, model, dialogues, thinking)?;
            steered = Some(match steered {
                None => meeting,
                Some(named) => named.intersection(&meeting).copied().collect(),
            });
        }
        let loaded = match (&self.vector, own) {
            (Some(path), None) => Some(Vector::load_for(path, model)?),
            (_, own) => own.cloned(),
        };
        let mut steer = match (self.operation, &loaded) {
            (Operation::Project, None) => self.projection(probes, model, steered)?,
            (Operation::Project, Some(_)) | (_, None) => {
                let found = if loaded.is_some() { "a vector" } else { "no vector" };
                let expected = "a vector; or, with operation project, probes instead";
                return Err(Error::input(format!("operation {}", self.operation.name()), found, expected));
            }
            (_, Some(_)) if !self.probe.is_empty() => {
                let place = format!("operation {}", self.operation.name());
                let expected =
                    "operation project for probes; `pearl vector build --method probe` makes a vector of one";
                return Err(Error::input(place, "a vector and probes", expected));
            }
            (_, Some(vector)) => self.hook(model, vector, steered)?,
        };
        if let Some(schedule) = &self.schedule {
            steer = steer.scheduled(schedule.parse::<Schedule>()?);
        }
        if let Some(control) = &self.control {
            steer =
                steer.controlled(control.law, probes.reader(&ProbeQuery::parse(&control.probe), model)?)?;
        }
        match condition.filter(|_| self.read == ReadAt::Token) {
            Some(condition) => steer.gated(condition, readers),
            None => Ok(steer),
        }
    }

    /// The rows of the dialogues that it is for.
    fn named(&self, dialogues: &[Dialogue]) -> Result<Option<BTreeSet<usize>>> {
        if self.only.is_empty() {
            return Ok(None);
        }
        let mut rows = BTreeSet::new();
        for id in &self.only {
            let before = rows.len();
            rows.extend((0..dialogues.len()).filter(|&row| dialogues[row].id == *id));
            if rows.len() == before {
                let found = format!("no dialogue {id:?}, or named twice");
                return Err(Error::input("only", found, "ids of dialogues, each once"));
            }
        }
        Ok(Some(rows))
    }

    /// One hook that applies `vector` to these rows, or to all.
    pub fn hook(&self, model: &Model, vector: &Vector, rows: Option<BTreeSet<usize>>) -> Result<Steer> {
        let sites: Vec<Site> = match &self.sites {
            None => vector.directions.keys().copied().collect(),
            Some(sites) => model.decoder.architecture().parse_sites(sites)?,
        };
        Steer::new(&model.decoder, vector, &sites, self.operation, self.strength, self.tokens.clone(), rows)
    }

    /// One hook that brings these rows, or all, to the safe side of its probes.
    fn projection(&self, probes: &mut Probes, model: &Model, rows: Option<BTreeSet<usize>>) -> Result<Steer> {
        let mut faces: BTreeMap<Site, Vec<HalfSpace>> = BTreeMap::new();
        for text in &self.probe {
            let (asked, bound) = safe_side(text)?;
            let reader = probes.reader(&asked, model)?;
            let (above, bound) = bound.or(reader.threshold.map(|bound| (false, bound))).ok_or_else(|| {
                let expected = format!("a bound ({text} < 0.5), or a probe with a threshold for the class");
                Error::input(format!("probe {text}"), "no bound, and no calibrated threshold", expected)
            })?;
            faces.entry(reader.site).or_default().extend(reader.faces(above, bound)?);
        }
        if let Some(sites) = &self.sites {
            let named = model.decoder.architecture().parse_sites(sites)?;
            if !named.iter().eq(faces.keys()) {
                let reads: Vec<String> = faces.keys().map(Site::to_string).collect();
                let found = format!("the probes read {}", reads.join(", "));
                return Err(Error::input(format!("sites {sites}"), found, "no sites: probes know their own"));
            }
        }
        if faces.is_empty() {
            return Err(Error::input(
                "operation project",
                "no probe",
                "probe = [\"FILE:CLASS < PROBABILITY\"]",
            ));
        }
        let polyhedra = faces.into_iter().map(|(site, faces)| Ok((site, SafeSet::new(faces)?)));
        let polyhedra = polyhedra.collect::<Result<_>>()?;
        Steer::project(&model.decoder, polyhedra, self.strength, self.tokens.clone(), rows)
    }
}

/// A condition that says a site must say the one that its probe reads.
fn check_at(reader: &Reader, at: Option<Site>) -> Result<()> {
    match at {
        Some(at) if at != reader.site => {
            let found = format!("it reads {}, not {at}", reader.site);
            Err(Error::input(format!("when probe {}", reader.name), found, "the probe's own site, or none"))
        }
        _ => Ok(()),
    }
}

/// `FILE:CLASS < PROBABILITY`, with `>`, or without a bound.
fn safe_side(text: &str) -> Result<(ProbeQuery, Option<(bool, f64)>)> {
    let Some(at) = text.find(['<', '>']) else { return Ok((ProbeQuery::parse(text.trim()), None)) };
    let (asked, bound) = (text[..at].trim(), text[at + 1..].trim());
    let bound = bound.parse().ok().filter(|bound: &f64| *bound > 0.0 && *bound < 1.0);
    let bound = bound.ok_or_else(|| {
        Error::input(
            format!("probe {text:?}"),
            "no bound",
            "FILE:CLASS < PROBABILITY (or >), between 0 and 1",
        )
    })?;
    Ok((ProbeQuery::parse(asked), Some((text[at..].starts_with('>'), bound))))
}

impl FromStr for Intervention {
    type Err = Error;

    /// `FILE:STRENGTH[@SITES]`: the vector is added at every token.
    fn from_str(text: &str) -> Result<Intervention> {
        let wrong =
            || Error::input(format!("vector {text}"), "no strength", "FILE:STRENGTH or FILE:STRENGTH@SITES");
        let (file, rest) = text.rsplit_once(':').ok_or_else(wrong)?;
        let (strength, sites) = match rest.split_once('@') {
            None => (rest, None),
            Some((strength, sites)) => (strength, Some(sites.to_string())),
        };
        Ok(Intervention {
            vector: Some(file.into()),
            sites,
            strength: strength.parse()?,
            ..Intervention::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_plan() {
        let plan: Plan = toml::from_str(
            "[[intervention]]\nvector = \"guide.safetensors\"\nstrength = \"0.4n\"\ntokens = \"generated\"\n\
             [[intervention]]\nvector = \"b.safetensors\"\noperation = \"ablate\"\nsites = \"3.resid_post\"",
        )
        .unwrap();
        assert_eq!(plan.interventions[0].strength, Strength::Norms(0.4));
        assert_eq!(plan.interventions[1].operation, Operation::Ablate);
        assert!(toml::from_str::<Plan>("[[intervention]]\nvector = \"b\"\nstrenght = 1").is_err());
        let plan: Plan = toml::from_str(
            "[[intervention]]\noperation = \"project\"\nprobe = \"p:a/b < 0.2\"\nread = \"token\"\n\
             [[intervention]]\nvector = \"v\"\nonly = [\"one\"]\nschedule = \"decay(4)\"\n\
             control = { probe = \"p:a\", target = 0.8, proportional = 0.1 }",
        )
        .unwrap();
        assert_eq!(plan.interventions[0].probe, ["p:a/b < 0.2"]);
        assert_eq!(plan.interventions[1].control.as_ref().unwrap().law.most, 1.0);
        let text = toml::to_string(&plan).unwrap();
        assert_eq!(toml::from_str::<Plan>(&text).unwrap(), plan);
    }

    #[test]
    fn reads_safe_sides() {
        let (asked, bound) = safe_side("a b.safetensors:x/y > 0.25").unwrap();
        assert_eq!((asked.to_string().as_str(), bound), ("a b.safetensors:x/y", Some((true, 0.25))));
        assert_eq!(safe_side("a:x").unwrap().1, None);
        for wrong in ["a < 1", "a < NaN", "a <", "a > 0"] {
            assert!(safe_side(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn reads_the_command_line_form() {
        let intervention: Intervention = "a/b.safetensors:-2@3.resid_post".parse().unwrap();
        assert_eq!(intervention.vector, Some(PathBuf::from("a/b.safetensors")));
        assert_eq!(
            (intervention.strength, intervention.sites.as_deref()),
            (Strength::Raw(-2.0), Some("3.resid_post"))
        );
        assert!("b.safetensors".parse::<Intervention>().is_err());
    }
}
