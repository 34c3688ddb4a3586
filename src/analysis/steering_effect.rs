//! The effect of one way of steering: the share of users who get the wanted outcome, and the damage to text that should stay
//! as it is.

use serde::{Deserialize, Serialize};

use super::answers::{Answering, Answers};
use super::side_effects::{Text, damage, repetition, texts};
use crate::config::defaults::RESAMPLES;
use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::judge::BROKEN;
use crate::model::{Hook, Site};
use crate::progress::Progress;
use crate::stats::{Interval, Metric, bootstrap, wilson};

/// What steering does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Share of the goal's users whose answer has the wanted outcome.
    pub response: Interval,
    /// Number of these users.
    pub users: usize,
    /// Share of their answers that are broken, by the judge.
    pub broken: f64,
    /// Mean share of repeated trigrams in an answer to them.
    pub repetition: f64,
    /// Mean KL(unsteered ‖ steered) on the guard's texts, nats a token.
    pub divergence: Interval,
    /// exp of the mean surprise a token at the unsteered model's answers there.
    pub perplexity: f64,
    /// Number of these texts.
    pub texts: usize,
}

/// The effect of one arm at one site and strength.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The arm's name.
    pub arm: String,
    /// The site.
    pub site: Site,
    /// The strength, as in the file.
    pub strength: String,
    /// The effect.
    #[serde(flatten)]
    pub effect: Effect,
    /// Whether no other trial but controls reaches as much with less damage.
    pub pareto: bool,
    /// Whether the damage is within the guard's bounds.
    pub guarded: bool,
}

/// A part's dialogues on which effects are measured.
pub struct Part {
    /// The goal's users.
    pub users: Vec<Dialogue>,
    /// The guard's users.
    pub guarded: Vec<Dialogue>,
    /// The guard's users' dialogues with the unsteered model's answers.
    texts: Vec<Text>,
    /// What measuring on this part is called, in progress reports.
    stage: &'static str,
}

impl Part {
    /// Has the unsteered model answer the guard's users.
    ///
    /// # Errors
    /// If generation fails, or a stop.
    pub fn new(
        users: Vec<Dialogue>,
        guarded: Vec<Dialogue>,
        stage: &'static str,
        answering: &Answering,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Part> {
        let numbers: Vec<usize> = (0..guarded.len()).collect();
        let answers =
            answering.answer(&guarded, &numbers, &mut (), "answer the guard's part", on_progress)?;
        let texts = texts(answering.model, &guarded, &answers.transcripts, answering.thinking)?;
        Ok(Part { users, guarded, texts, stage })
    }
}

/// Measures what a hook does to a part's users, and another (the same, for other rows) to the guard's texts. Gives the
/// answers too.
///
/// # Errors
/// Logits that are not finite, or a stop.
pub fn effect(
    part: &Part,
    wanted: &str,
    answering: &Answering,
    [hook, guard_hook]: [&mut dyn Hook; 2],
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<(Effect, Answers)> {
    let damages = damage(answering.model, &part.texts, guard_hook)?;
    let numbers: Vec<usize> = (0..part.users.len()).collect();
    let answers = answering.answer(&part.users, &numbers, hook, part.stage, on_progress)?;
    let users = part.users.len();
    let (reached, _) = answers.count(wanted, |_| true);
    let none = Interval { value: 0.0, low: 0.0, high: 0.0 };
    let units: Vec<Vec<usize>> = (0..damages.len()).map(|row| vec![row]).collect();
    let mean = |rows: &[usize]| {
        let places: usize = rows.iter().map(|&row| damages[row].places).sum();
        let divergence: f64 = rows.iter().map(|&row| damages[row].divergence).sum();
        (places > 0).then(|| divergence / places as f64)
    };
    let (surprise, tokens) =
        damages.iter().fold((0.0, 0), |(sum, count), damage| (sum + damage.surprise, count + damage.tokens));
    let repeated = answers.transcripts.iter().map(|transcript| repetition(&transcript.tokens));
    let effect = Effect {
        response: wilson(reached, users).unwrap_or(none),
        users,
        broken: answers.count(BROKEN, |_| true).0 as f64 / users as f64,
        repetition: repeated.sum::<f64>() / users as f64,
        divergence: bootstrap(&units, RESAMPLES, answering.seed, mean).unwrap_or(none),
        perplexity: (surprise / tokens.max(1) as f64).exp(),
        texts: damages.len(),
    };
    Ok((effect, answers))
}

impl Effect {
    /// The effect's metrics, their names after `prefix`.
    pub fn metrics(&self, prefix: &str, split: &str) -> Vec<Metric> {
        let plain = |name: &str, value: f64, n: usize| Metric {
            name: format!("{prefix}/{name}"),
            value,
            low: None,
            high: None,
            n,
            split: split.into(),
        };
        vec![
            Metric::new(format!("{prefix}/response"), self.response, self.users, split),
            Metric::new(format!("{prefix}/kl"), self.divergence, self.texts, split),
            plain("perplexity", self.perplexity, self.texts),
            plain("broken", self.broken, self.users),
            plain("repetition", self.repetition, self.users),
        ]
    }
}
