//! Choice of a steering direction by what it does (`refusal_direction`, Arditi et al., arXiv 2406.11717, appendix C): differences
//! of means at sites × token positions in; how far each removes an outcome when it is ablated everywhere, brings it about when
//! it is added, and changes harmless prompts, out. All effects are measured on dialogues that no direction was made from.

use serde::{Deserialize, Serialize};

use super::answers::Answering;
use super::side_effects::log_softmax;
use crate::activations::{Activations, Request, extract};
use crate::config::defaults::{BATCH_TOKENS, BATCH_TOKENS_LOGITS};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::generate::Sampling;
use crate::judge::{self, Scorer};
use crate::model::{Hook, Model, Selector, Site};
use crate::progress::Progress;
use crate::steer::{ContrastRows, Intervention, Method, Operation, SiteSet, Strength, Vector};

/// The inputs of a choice.
pub struct DirectionChoice<'a> {
    /// The model.
    pub model: &'a Model,
    /// Passed to chat templates that know a thinking and a plain mode.
    pub thinking: Option<bool>,
    /// Prompts that the directions are made from: of the class that they lead to, and of the one that they lead away from.
    pub fit: [Vec<Dialogue>; 2],
    /// Prompts that effects are measured on, of the same classes.
    pub validation: [Vec<Dialogue>; 2],
    /// The sites of the candidates.
    pub sites: Vec<Site>,
    /// The number of tokens at the end of the prompt whose states give candidates.
    pub positions: usize,
    /// The strength of additions.
    pub strength: Strength,
    /// How an effect is measured.
    pub measure: Measure<'a>,
    /// Which candidates may be chosen.
    pub filters: Filters,
}

/// How the outcome is measured that a direction should remove and bring about.
pub enum Measure<'a> {
    /// By a judge of greedy answers: the log-odds of the share with the outcome, each count half a count up.
    Judge {
        /// The judge.
        judge: &'a dyn Scorer,
        /// One of its outcomes.
        outcome: String,
        /// Tokens of an answer, at most.
        max_tokens: usize,
    },
    /// By the probability that the answer begins with one of these tokens: the mean of its log-odds over the prompts (the
    /// refusal metric of the paper). It needs no answer.
    Tokens(Vec<u32>),
}

/// Which candidates may be chosen. The default has the paper's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Filters {
    /// Log-odds of the outcome that adding the direction has to exceed.
    pub min_added: f64,
    /// Bound on the mean KL(unsteered ‖ ablated) of the answer's first token, nats.
    pub max_kl: f64,
    /// Bound on the block, as a share of the model's blocks.
    pub max_depth: f64,
}

impl Default for Filters {
    fn default() -> Filters {
        Filters { min_added: 0.0, max_kl: 0.1, max_depth: 0.8 }
    }
}

/// How often the outcome occurs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Log-odds, as [`Measure`] says.
    pub log_odds: f64,
    /// Share of the answers, or mean probability of the tokens.
    pub share: f64,
}

/// One direction with its effects on the validation part. Effects that no longer matter, since a filter has dropped the
/// candidate, aren't measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The site that it was read at.
    pub site: Site,
    /// The token that it was read at, from the end of the prompt: −1 is the last.
    pub position: i64,
    /// Mean KL(unsteered ‖ ablated) of the answer's first token on prompts of the class that it leads away from, nats.
    pub kl: Option<f64>,
    /// The outcome where it is added at its site, to prompts of the class that it leads away from.
    pub added: Option<Effect>,
    /// The outcome where it is ablated from the residual stream, on prompts of the class that it leads to.
    pub ablated: Option<Effect>,
    /// Why it may not be chosen.
    pub dropped: Option<String>,
}

/// All candidates (JSON, kind `direction-choice`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChoiceTable {
    /// The outcome: the judge's, or the first tokens.
    pub outcome: String,
    /// Number of prompts of each class that directions were made from: to, from.
    pub fit: [usize; 2],
    /// Number of prompts of each class that effects were measured on: to, from.
    pub validation: [usize; 2],
    /// The outcome without steering, on prompts of each class: to, from.
    pub unsteered: [Effect; 2],
    /// The filters.
    pub filters: Filters,
    /// The candidates, by position and site.
    pub candidates: Vec<Candidate>,
    /// Index of the chosen one: of those that pass every filter, the one whose ablation leaves the least of the outcome; of equals
    /// the one that brings it about the most, then the one of the least KL. None where none passes.
    pub chosen: Option<usize>,
}

impl ChoiceTable {
    /// What a reader should doubt.
    pub fn doubts(&self) -> Vec<String> {
        let [to, from] = self.unsteered;
        let mut doubts = Vec::new();
        if to.log_odds <= 0.0 {
            doubts.push(format!(
                "without steering, {} occurs with a share of {:.3} only on the prompts on which a direction has to remove it",
                self.outcome, to.share
            ));
        }
        if from.log_odds > 0.0 {
            doubts.push(format!(
                "without steering, {} occurs with a share of {:.3} on the prompts on which a direction has to bring it about",
                self.outcome, from.share
            ));
        }
        doubts
    }
}

impl DirectionChoice<'_> {
    /// Checks the inputs before any work begins.
    ///
    /// # Errors
    /// A class without a prompt in one of the parts; a prompt that ends with an answer; an outcome or a dialogue that the judge
    /// can't judge; no site or position.
    pub fn check(&self) -> Result<()> {
        self.model.decoder.expect_logits()?;
        for (part, name) in [(&self.fit, "fit"), (&self.validation, "validation")] {
            if part.iter().any(Vec::is_empty) {
                let found = format!("{} and {} prompts in the {name} part", part[0].len(), part[1].len());
                return Err(Error::input("classes", found, "some of both in both parts"));
            }
        }
        if self.sites.is_empty() || self.positions == 0 {
            return Err(Error::input("candidates", "no site or no position", "one of each, or more"));
        }
        let all = || self.fit.iter().chain(&self.validation).flatten();
        if let Some(answered) = all().find(|dialogue| {
            dialogue.messages.last().is_some_and(|last| last.role == crate::dialogue::Role::Assistant)
        }) {
            let expected = "prompts: dialogues whose last message is the user's";
            return Err(Error::input(
                format!("dialogue {}", answered.id),
                "it ends with an answer",
                expected,
            ));
        }
        match &self.measure {
            Measure::Judge { judge, outcome, .. } => {
                judge::check_outcome(*judge, "outcome", outcome)?;
                judge::check_dialogues(*judge, self.validation.iter().flatten())
            }
            Measure::Tokens(tokens) if tokens.is_empty() => {
                Err(Error::input("first tokens", "none", "at least one"))
            }
            Measure::Tokens(_) => Ok(()),
        }
    }

    /// Tries every candidate. Gives the table and, of the chosen one's position, the directions at every site, of which the chosen
    /// site is the best.
    ///
    /// # Errors
    /// As [`DirectionChoice::check`]; a stop.
    pub fn run(
        &self,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(ChoiceTable, Option<Vector>)> {
        self.check()?;
        let vectors = self.vectors(on_progress)?;
        let total = vectors.len() * self.sites.len();
        let unsteered = [
            self.effect(&self.validation[0], &mut (), (0, total), on_progress)?,
            self.effect(&self.validation[1], &mut (), (0, total), on_progress)?,
        ];
        let plain = self.first_logits(&self.validation[1], &mut ())?;
        let mut candidates = Vec::with_capacity(total);
        for (position, vector) in &vectors {
            for &site in &self.sites {
                let place = (candidates.len(), total);
                candidates.push(self.candidate((*position, site), vector, &plain, place, on_progress)?);
                if !on_progress(Progress { stage: "try directions", done: candidates.len(), total }) {
                    return Err(Error::Stopped);
                }
            }
        }
        let chosen = best(&candidates);
        let vector = chosen.and_then(|index| {
            let Candidate { site, position, .. } = candidates[index];
            let (_, mut vector) = vectors.into_iter().find(|(other, _)| *other == position)?;
            vector.method = format!("{} at token {position} of the prompt, chosen by effect", vector.method);
            vector.best = Some(site);
            Some(vector)
        });
        let table = ChoiceTable {
            outcome: match &self.measure {
                Measure::Judge { outcome, .. } => outcome.clone(),
                Measure::Tokens(tokens) => self.model.chat.decode(tokens, false)?,
            },
            fit: self.fit.each_ref().map(Vec::len),
            validation: self.validation.each_ref().map(Vec::len),
            unsteered,
            filters: self.filters,
            candidates,
            chosen,
        };
        Ok((table, vector))
    }

    /// The differences of means at every site where the classes differ, a vector a position.
    fn vectors(&self, on_progress: &mut dyn FnMut(Progress) -> bool) -> Result<Vec<(i64, Vector)>> {
        let dialogues = self.fit.concat();
        let total = dialogues.len();
        let request = Request {
            sites: self.sites.clone(),
            tokens: Selector::LastOf(Box::new(Selector::Given), self.positions),
            thinking: self.thinking,
            batch_tokens: BATCH_TOKENS,
            ..Request::default()
        };
        let activations = extract(self.model, &dialogues, &request, &mut |done| {
            on_progress(Progress { stage: "read the fit part", done, total })
        })?;
        let mut vectors = Vec::new();
        for back in (1..=self.positions).rev() {
            let [to, from] = self.rows(&activations, back);
            let rows =
                ContrastRows { sites: &self.sites, position: &activations.position, rows: [&to, &from] };
            let mut vector =
                Vector { method: Method::Means.to_string(), directions: Default::default(), best: None };
            for &site in &self.sites {
                let contrast = rows.contrast(site, |site| activations.at(site))?;
                // Tokens of the template don't differ at the embedding; such a site gives no candidate.
                if let Ok(one) = Vector::build(Method::Means, std::slice::from_ref(&contrast)) {
                    vector.directions.extend(one.directions);
                }
            }
            vectors.push((-(back as i64), vector));
        }
        Ok(vectors)
    }

    /// The rows of each class at the token that is `back` from the end of its prompt.
    fn rows(&self, activations: &Activations, back: usize) -> [Vec<usize>; 2] {
        let mut rows = [Vec::new(), Vec::new()];
        let numbers: Vec<usize> = (0..activations.example.len()).collect();
        for of_one in numbers.chunk_by(|&a, &b| activations.example[a] == activations.example[b]) {
            if let Some(&row) = of_one.len().checked_sub(back).and_then(|at| of_one.get(at)) {
                rows[usize::from(activations.example[row] >= self.fit[0].len())].push(row);
            }
        }
        rows
    }

    fn candidate(
        &self,
        (position, site): (i64, Site),
        vector: &Vector,
        plain: &[Vec<f64>],
        place: (usize, usize),
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Candidate> {
        let mut candidate = Candidate { site, position, kl: None, added: None, ablated: None, dropped: None };
        let Filters { min_added, max_kl, max_depth } = self.filters;
        let blocks = self.model.decoder.architecture().blocks.len();
        let is_late = match site {
            Site::Embed => false,
            _ => site.block().is_none_or(|block| block as f64 >= max_depth * blocks as f64),
        };
        if is_late || !vector.directions.contains_key(&site) {
            let why =
                if is_late { format!("not below {max_depth} of the blocks") } else { "no difference".into() };
            candidate.dropped = Some(why);
            return Ok(candidate);
        }
        let ablation =
            Intervention { from: Some(site), operation: Operation::ABLATE, ..Intervention::default() };
        let ablation = Intervention { sites: Some("all".parse()?), ..ablation };
        let mut ablate = ablation.hook(self.model, vector, None)?;
        let steered = self.first_logits(&self.validation[1], &mut ablate)?;
        let kl = mean(plain.iter().zip(&steered).map(|(p, q)| divergence(p, q)));
        candidate.kl = Some(kl).filter(|kl| kl.is_finite());
        // A number that isn't finite is above any bound.
        if candidate.kl.is_none_or(|kl| kl > max_kl) {
            candidate.dropped = Some(format!("KL above {max_kl}"));
            return Ok(candidate);
        }
        let addition = Intervention { strength: self.strength, ..Intervention::default() };
        let addition = Intervention { sites: Some(SiteSet::from(site)), ..addition };
        let mut add = addition.hook(self.model, vector, None)?;
        let added = self.effect(&self.validation[1], &mut add, place, on_progress)?;
        candidate.added = Some(added);
        if added.log_odds.is_nan() || added.log_odds <= min_added {
            candidate.dropped = Some(format!("added: log-odds not above {min_added}"));
            return Ok(candidate);
        }
        let mut ablate = ablation.hook(self.model, vector, None)?;
        candidate.ablated = Some(self.effect(&self.validation[0], &mut ablate, place, on_progress)?);
        Ok(candidate)
    }

    /// How often the outcome occurs in answers under a hook.
    fn effect(
        &self,
        dialogues: &[Dialogue],
        hook: &mut dyn Hook,
        (done, total): (usize, usize),
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Effect> {
        match &self.measure {
            Measure::Tokens(tokens) => {
                let probability =
                    |row: &Vec<f64>| tokens.iter().map(|&id| row[id as usize].exp()).sum::<f64>();
                let rows = self.first_logits(dialogues, hook)?;
                // The paper's ε, which keeps the logarithms finite.
                const TINY: f64 = 1e-8;
                let log_odds = |p: f64| (p + TINY).ln() - (1.0 - p + TINY).ln();
                Ok(Effect {
                    log_odds: mean(rows.iter().map(|row| log_odds(probability(row).clamp(0.0, 1.0)))),
                    share: mean(rows.iter().map(probability)),
                })
            }
            Measure::Judge { judge, outcome, max_tokens } => {
                let answering = Answering {
                    model: self.model,
                    judge: *judge,
                    sampling: Sampling::Greedy,
                    max_tokens: *max_tokens,
                    seed: 0,
                    thinking: self.thinking,
                };
                let numbers: Vec<usize> = (0..dialogues.len()).collect();
                let mut on_answers = |_| on_progress(Progress { stage: "try directions", done, total });
                let stage = "try directions";
                let answers = answering.answer(dialogues, &numbers, hook, stage, &mut on_answers)?;
                let (hits, count) = answers.count(outcome, |_| true);
                let (hits, count) = (hits as f64, count as f64);
                Ok(Effect { log_odds: ((hits + 0.5) / (count - hits + 0.5)).ln(), share: hits / count })
            }
        }
    }

    /// Log-probabilities of the answer's first token, `[dialogues][vocabulary]`.
    fn first_logits(&self, dialogues: &[Dialogue], hook: &mut dyn Hook) -> Result<Vec<Vec<f64>>> {
        let mut rows = Vec::with_capacity(dialogues.len());
        let (mut tokens, mut last) = (Vec::new(), Vec::new());
        for (row, dialogue) in dialogues.iter().enumerate() {
            let own = self.model.chat.tokens(dialogue, row, self.thinking)?;
            if !tokens.is_empty() && tokens.len() + own.len() > BATCH_TOKENS_LOGITS {
                self.flush(&mut tokens, &mut last, hook, &mut rows)?;
            }
            tokens.extend(own);
            last.push(tokens.len() - 1);
        }
        self.flush(&mut tokens, &mut last, hook, &mut rows)?;
        Ok(rows)
    }

    fn flush(
        &self,
        tokens: &mut Vec<crate::model::Token>,
        last: &mut Vec<usize>,
        hook: &mut dyn Hook,
        rows: &mut Vec<Vec<f64>>,
    ) -> Result<()> {
        let logits: Vec<Vec<f32>> = self.model.decoder.forward(tokens, None, last, hook)?.to_vec2()?;
        rows.extend(logits.iter().map(|logits| log_softmax(logits)));
        tokens.clear();
        last.clear();
        Ok(())
    }
}

/// The candidate to choose, among those that pass every filter.
fn best(candidates: &[Candidate]) -> Option<usize> {
    let key = |index: &usize| {
        let Candidate { kl, added, ablated, dropped, .. } = &candidates[*index];
        match dropped {
            Some(_) => None,
            None => Some((ablated.as_ref()?.log_odds, -added.as_ref()?.log_odds, (*kl)?)),
        }
    };
    let kept = (0..candidates.len()).filter_map(|index| Some((index, key(&index)?)));
    let order = |a: &(f64, f64, f64), b: &(f64, f64, f64)| {
        a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.total_cmp(&b.2))
    };
    kept.min_by(|a, b| order(&a.1, &b.1)).map(|(index, _)| index)
}

/// KL(p ‖ q) of two rows of log-probabilities, nats.
fn divergence(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>().max(0.0)
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(ablated: f64, added: f64, kl: f64, dropped: Option<&str>) -> Candidate {
        let effect = |log_odds: f64| Some(Effect { log_odds, share: 0.5 });
        Candidate {
            site: Site::Embed,
            position: -1,
            kl: Some(kl),
            added: effect(added),
            ablated: effect(ablated),
            dropped: dropped.map(str::to_owned),
        }
    }

    #[test]
    fn the_least_outcome_under_ablation_is_chosen_then_the_most_under_addition_then_the_least_kl() {
        let candidates = [
            candidate(-9.0, 5.0, 0.0, Some("KL above 0.1")),
            candidate(-2.0, 1.0, 0.01, None),
            candidate(-2.0, 3.0, 0.05, None),
            candidate(-2.0, 3.0, 0.02, None),
            candidate(-2.0, 3.0, 0.02, None),
            candidate(0.0, 9.0, 0.0, None),
        ];
        assert_eq!(best(&candidates), Some(3));
        assert_eq!(best(&candidates[..1]), None);
    }
}
