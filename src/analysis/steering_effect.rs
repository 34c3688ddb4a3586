//! The effect of one way of steering: the share of users who get the wanted outcome, and the damage to text that should stay
//! as it is.

use serde::{Deserialize, Serialize};

use super::answers::{Answering, Answers};
use super::group_interval;
use super::side_effects::{Damage, Text, damage, repetition, texts};
use crate::config::defaults::RESAMPLES;
use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::judge::{BROKEN, Score};
use crate::model::{Hook, Site};
use crate::progress::Progress;
use crate::stats::{Interval, Metric, bootstrap};

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
    /// Mean KL(unsteered ‖ steered) on the guard's texts, nats a token. An edit at one token is diluted over the answer.
    pub divergence: Interval,
    /// Mean KL of a whole answer there, nats.
    pub divergence_of_answer: Interval,
    /// Mean KL at an answer's first token there, nats.
    pub divergence_at_first: Interval,
    /// Share of the guard's users whose own sampled answer has the outcome that it should have: the judge's, or, where the judge
    /// knows none, that of the unsteered answer. Measured on the test part alone.
    pub kept: Option<Interval>,
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
    /// The outcome that each of the guard's users should get, where that is measured.
    due: Option<Vec<String>>,
    /// The rows of each group among the users, and among the guard's users.
    groups: [Vec<Vec<usize>>; 2],
    /// What measuring on this part is called, in progress reports.
    stage: &'static str,
}

impl Part {
    /// Has the unsteered model answer the guard's users. `guard`: their class, where their own answers under steering are to be
    /// judged too; `group`: the label whose values are held out.
    ///
    /// # Errors
    /// If generation fails, or a stop.
    pub fn new(
        users: Vec<Dialogue>,
        guarded: Vec<Dialogue>,
        (stage, guard, group): (&'static str, Option<&str>, &str),
        answering: &Answering,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Part> {
        let numbers: Vec<usize> = (0..guarded.len()).collect();
        let answers =
            answering.answer(&guarded, &numbers, &mut (), "answer the guard's part", on_progress)?;
        let texts = texts(answering.model, &guarded, &answers.transcripts, answering.thinking)?;
        let due = guard.map(|class| {
            let expected = answering.judge.expected(class);
            let due = |score: &Score| expected.map_or_else(|| score.strategy.clone(), str::to_owned);
            answers.scores.iter().map(due).collect()
        });
        let groups = [group_interval::groups(&users, group)?, group_interval::groups(&guarded, group)?];
        Ok(Part { users, guarded, texts, due, groups, stage })
    }
}

impl Part {
    /// The same part, on which the guard's users aren't answered again.
    pub(super) fn without_guard(self) -> Part {
        Part { due: None, ..self }
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
    let kept = match &part.due {
        None => None,
        Some(due) => {
            let numbers: Vec<usize> = (0..part.guarded.len()).collect();
            let answers = answering.answer(&part.guarded, &numbers, guard_hook, part.stage, on_progress)?;
            let kept = answers
                .scores
                .iter()
                .zip(due)
                .map(|(score, due)| score.strategy == *due)
                .collect::<Vec<bool>>();
            group_interval::share(&kept, &part.groups[1], answering.seed)
        }
    };
    let numbers: Vec<usize> = (0..part.users.len()).collect();
    let answers = answering.answer(&part.users, &numbers, hook, part.stage, on_progress)?;
    let users = part.users.len();
    let reached: Vec<bool> = answers.scores.iter().map(|score| score.strategy == wanted).collect();
    let [user_groups, text_groups] = &part.groups;
    let none = Interval { value: 0.0, low: 0.0, high: 0.0 };
    let rows: Vec<Vec<usize>> = (0..damages.len()).map(|row| vec![row]).collect();
    let units = if text_groups.len() > 1 { text_groups } else { &rows };
    let mean = |rows: &[usize]| {
        let places: usize = rows.iter().map(|&row| damages[row].places).sum();
        let divergence: f64 = rows.iter().map(|&row| damages[row].divergence).sum();
        (places > 0).then(|| divergence / places as f64)
    };
    let of_texts = |of: fn(&Damage) -> f64| {
        let values: Vec<f64> = damages.iter().map(of).collect();
        group_interval::mean(&values, text_groups, answering.seed).unwrap_or(none).within(0.0, f64::MAX)
    };
    let (surprise, tokens) =
        damages.iter().fold((0.0, 0), |(sum, count), damage| (sum + damage.surprise, count + damage.tokens));
    let repeated = answers.transcripts.iter().map(|transcript| repetition(&transcript.tokens));
    let effect = Effect {
        response: group_interval::share(&reached, user_groups, answering.seed).unwrap_or(none),
        users,
        broken: answers.count(BROKEN, |_| true).0 as f64 / users as f64,
        repetition: repeated.sum::<f64>() / users as f64,
        divergence: bootstrap(units, RESAMPLES, answering.seed, mean).unwrap_or(none).within(0.0, f64::MAX),
        divergence_of_answer: of_texts(|damage| damage.divergence),
        divergence_at_first: of_texts(|damage| damage.first),
        kept,
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
        let mut metrics = vec![
            Metric::new(format!("{prefix}/response"), self.response, self.users, split),
            Metric::new(format!("{prefix}/kl"), self.divergence, self.texts, split),
            Metric::new(format!("{prefix}/kl-answer"), self.divergence_of_answer, self.texts, split),
            Metric::new(format!("{prefix}/kl-first"), self.divergence_at_first, self.texts, split),
            plain("perplexity", self.perplexity, self.texts),
            plain("broken", self.broken, self.users),
            plain("repetition", self.repetition, self.users),
        ];
        metrics.extend(
            self.kept.map(|kept| Metric::new(format!("{prefix}/guard-kept"), kept, self.texts, split)),
        );
        metrics
    }
}
