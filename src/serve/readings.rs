//! Readings: a probe's calibrated probability at every token that a pass computes, prompt and answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::Array2;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::library::Library;
use crate::error::Result;
use crate::model::{Phase, Site, Token};
use crate::probe::{Link, Probe};
use crate::steer::ProbeQuery;

/// One class of a probe, ready to be read.
#[derive(Debug)]
pub(super) struct Reader {
    /// The name in the request: `NAME`, `NAME:CLASS` or `NAME:CLASS/OTHER`.
    pub name: String,
    /// The site that the probe reads.
    pub site: Site,
    probe: Arc<Probe>,
    class: usize,
    against: Option<usize>,
    /// Weights in f64, `[heads]` of `[width]`.
    weight: Vec<Vec<f64>>,
    /// What is known of its threshold.
    guarantee: Option<String>,
}

impl Reader {
    /// The readers that a request names: each `NAME` of a probe with two classes, `NAME:CLASS`, or every probe for `*`. A name without a
    /// class stands for every class of a probe with several.
    pub fn find(library: &Library, names: &[String]) -> std::result::Result<Vec<Reader>, ApiError> {
        let mut readers: Vec<Reader> = Vec::new();
        for name in names {
            let asked: Vec<String> = match name.as_str() {
                "*" => library.probe_names(),
                _ => vec![name.clone()],
            };
            for name in asked {
                let query = ProbeQuery::parse(&name);
                let (probe, guarantee) = library.probe(&query.probe.to_string_lossy(), "probes")?;
                let classes: Vec<usize> = match &query.class {
                    Some(class) => vec![class_of(&probe, class)?],
                    None if probe.classes.len() == 2 && probe.link != Link::MultiLabel => vec![1],
                    None => (0..probe.classes.len()).collect(),
                };
                let against =
                    query.against.as_deref().map(|against| class_of(&probe, against)).transpose()?;
                for &class in &classes {
                    if against == Some(class) {
                        let expected = "another class after the /";
                        return Err(ApiError::field(
                            "probes",
                            format_args!("{name}, against itself"),
                            expected,
                        ));
                    }
                    let single = classes.len() == 1;
                    let name = if single { name.clone() } else { format!("{name}:{}", probe.classes[class]) };
                    let weight = probe
                        .weight
                        .rows()
                        .into_iter()
                        .map(|row| row.iter().map(|w| f64::from(*w)).collect());
                    let (weight, guarantee) = (weight.collect(), guarantee.clone());
                    let (site, probe) = (probe.source.site, probe.clone());
                    if readers.len() == MOST {
                        let found = format_args!("more than {MOST} readings");
                        return Err(ApiError::field("probes", found, format_args!("at most {MOST}")));
                    }
                    readers.push(Reader { name, site, probe, class, against, weight, guarantee });
                }
            }
        }
        Ok(readers)
    }

    /// The calibrated probability of the class in a state `[width]`.
    pub fn read(&self, h: &[f32]) -> f64 {
        let logit = |(weight, bias): (&Vec<f64>, &f32)| {
            weight.iter().zip(h).map(|(weight, h)| weight * f64::from(*h)).sum::<f64>() + f64::from(*bias)
        };
        let logits: Vec<f64> = self.weight.iter().zip(&self.probe.bias).map(logit).collect();
        // One row of as many logits as there are heads.
        let Ok(logits) = Array2::from_shape_vec((1, logits.len()), logits) else { return f64::NAN };
        let probabilities = self.probe.from_logits(logits);
        let own = probabilities[[0, self.class]];
        match self.against {
            Some(other) => own / (own + probabilities[[0, other]]),
            None => own,
        }
    }

    fn threshold(&self) -> Option<f64> {
        self.probe.threshold.get(&self.probe.classes[self.class]).copied().filter(|_| self.against.is_none())
    }
}

/// Most readings of one request.
const MOST: usize = 64;

fn class_of(probe: &Probe, class: &str) -> std::result::Result<usize, ApiError> {
    probe.class(class).map_err(|error| ApiError::from(error).param("probes"))
}

/// What one reader read in a row: probabilities by position.
#[derive(Clone, Debug, Default)]
pub(super) struct Read(pub BTreeMap<usize, f64>);

/// A probability, with the threshold's verdict where the probe has a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub struct Reading {
    /// The calibrated probability of the class.
    pub probability: f64,
    /// Whether it reaches the threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flagged: Option<bool>,
}

/// A reading of one message of the prompt.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TurnReading {
    /// The number of the message, from 0.
    pub turn: usize,
    /// Its role.
    pub role: String,
    /// The reading at the message's last token.
    #[serde(flatten)]
    pub reading: Reading,
}

/// A reading of one token of the prompt.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PromptToken {
    /// The token's text.
    pub token: String,
    /// The number of its message, from 0.
    pub turn: usize,
    /// Whether it is part of the message's content, and not of the template around it.
    pub content: bool,
    /// The calibrated probability of the class there.
    pub probability: f64,
}

/// What a threshold says of an answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Verdict {
    /// Whether the class is flagged.
    pub flagged: bool,
    /// The largest probability at the tokens that the probe was fitted on.
    pub probability: f64,
    /// The threshold, from which on the class is flagged.
    pub threshold: f64,
    /// What is promised of it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guarantee: Option<String>,
}

/// All readings of one probe in one answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProbeReadings {
    /// The class whose probability is read.
    pub class: String,
    /// The site of the model that is read.
    pub site: String,
    /// The tokens that the probe was fitted on: its calibration is known there, and an extrapolation elsewhere.
    pub fitted_on: String,
    /// One a message of the prompt.
    pub turns: Vec<TurnReading>,
    /// At the last token before the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Reading>,
    /// One a token of the answer; null for a last token that the model never read.
    pub tokens: Vec<Option<f64>>,
    /// Means over the thinking part and over the rest of the answer.
    pub phases: BTreeMap<String, f64>,
    /// The threshold's verdict at the tokens that the probe was fitted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Every token of the prompt, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Vec<PromptToken>>,
}

impl Reader {
    /// A probability with its verdict.
    pub fn reading(&self, probability: f64) -> Reading {
        Reading { probability, flagged: self.threshold().map(|threshold| probability >= threshold) }
    }

    /// The readings of a row, of which `tokens` are the prompt's and the answer's tokens. `text`: a token's text, where the prompt's
    /// tokens are asked for.
    pub fn summary(
        &self,
        read: &Read,
        tokens: &[Token],
        text: Option<&dyn Fn(u32) -> Result<String>>,
    ) -> Result<ProbeReadings> {
        let prompt = tokens.iter().take_while(|token| !token.generated).count();
        let at = |token: &Token| read.0.get(&token.position).copied();
        let (given, answer) = tokens.split_at(prompt);
        let mut turns: Vec<TurnReading> = Vec::new();
        let content: Vec<&Token> = given.iter().filter(|token| token.is_content()).collect();
        for turn in content.chunk_by(|a, b| a.turn == b.turn) {
            let Some(last) = turn.last() else { continue };
            if let Some(probability) = at(last) {
                let (turn, role) = (last.turn, last.role.name().to_owned());
                turns.push(TurnReading { turn, role, reading: self.reading(probability) });
            }
        }
        let start = given.iter().rfind(|token| token.start).and_then(at);
        let mut phases = BTreeMap::new();
        for (name, phase) in [("think", Phase::Think), ("answer", Phase::Answer)] {
            let of: Vec<f64> = answer.iter().filter(|token| token.phase == phase).filter_map(at).collect();
            if !of.is_empty() {
                phases.insert(name.to_owned(), of.iter().sum::<f64>() / of.len() as f64);
            }
        }
        let fitted = &self.probe.source.tokens;
        let verdict = self.threshold().and_then(|threshold| {
            let most = fitted.pick(tokens).into_iter().filter_map(|index| at(&tokens[index]));
            let probability = most.fold(f64::NEG_INFINITY, f64::max);
            let (flagged, guarantee) = (probability >= threshold, self.guarantee.clone());
            probability.is_finite().then_some(Verdict { flagged, probability, threshold, guarantee })
        });
        let prompt = match text {
            None => None,
            Some(text) => {
                let mut all = Vec::with_capacity(given.len());
                for token in given {
                    if let Some(probability) = at(token) {
                        let (turn, content) = (token.turn, token.is_content());
                        all.push(PromptToken { token: text(token.id)?, turn, content, probability });
                    }
                }
                Some(all)
            }
        };
        Ok(ProbeReadings {
            class: self.probe.classes[self.class].clone(),
            site: self.site.to_string(),
            fitted_on: fitted.to_string(),
            turns,
            start: start.map(|probability| self.reading(probability)),
            tokens: answer.iter().map(at).collect(),
            phases,
            verdict,
            prompt,
        })
    }
}
