//! A model's answers to dialogues, with a judge's scores.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::defaults::BATCH_ROWS;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, Sampling, Transcript, generate};
use crate::judge::{BROKEN, Score, Scorer};
use crate::model::{Hook, Model};
use crate::progress::Progress;

/// Answers with their scores.
#[derive(Clone, Serialize, Deserialize)]
pub struct Answers {
    /// Numbers of the dialogues, in the order of the rest.
    pub numbers: Vec<usize>,
    /// The answers.
    pub transcripts: Vec<Transcript>,
    /// The judge's scores.
    pub scores: Vec<Score>,
}

impl Answers {
    /// Of the answers whose dialogue's number passes: how many have the outcome, and how many there are.
    pub fn count(&self, outcome: &str, passes: impl Fn(usize) -> bool) -> (usize, usize) {
        let rows: Vec<usize> = (0..self.numbers.len()).filter(|&row| passes(self.numbers[row])).collect();
        let hits = rows.iter().filter(|&&row| self.scores[row].strategy == outcome).count();
        (hits, rows.len())
    }

    /// Rows whose answer has the outcome.
    pub fn with_outcome(&self, outcome: &str) -> Vec<usize> {
        (0..self.scores.len()).filter(|&row| self.scores[row].strategy == outcome).collect()
    }

    /// The worth `S − β·R` of each answer; none of a judge that does not weigh answers. A broken answer is worth nothing to
    /// the user, and breaking an answer takes no risk away: its S is 0, and its R that of the unsteered answer to the same
    /// dialogue (0 where that is broken too).
    pub fn worth(&self, beta: f64, unsteered: &Answers) -> Option<Vec<f64>> {
        let before: BTreeMap<usize, &Score> =
            unsteered.numbers.iter().copied().zip(&unsteered.scores).collect();
        let worth = |(number, score): (&usize, &Score)| match score.strategy == BROKEN {
            false => score.constructive(beta),
            true => {
                let risk =
                    before.get(number).filter(|before| before.strategy != BROKEN).map(|before| before.risk);
                Some(crate::boundary::score(0.0, risk.unwrap_or(Some(0.0))?, beta))
            }
        };
        // Broken answers alone say nothing of the judge.
        let weighs = self.scores.iter().chain(&unsteered.scores).any(|score| score.satisfaction.is_some());
        self.numbers.iter().zip(&self.scores).map(worth).collect::<Option<Vec<f64>>>().filter(|_| weighs)
    }

    /// The answers as JSON Lines, each with its score.
    ///
    /// # Errors
    /// If JSON can't hold a score.
    pub fn to_jsonl(&self) -> Result<String> {
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(flatten)]
            transcript: &'a Transcript,
            score: &'a Score,
        }
        let mut lines = String::new();
        for (transcript, score) in self.transcripts.iter().zip(&self.scores) {
            let line = serde_json::to_string(&Line { transcript, score });
            lines += &line.map_err(|error| Error::input("transcripts", error, "what JSON can hold"))?;
            lines.push('\n');
        }
        Ok(lines)
    }
}

/// Who answers, how, and who judges.
pub struct Answering<'a> {
    /// The model that answers.
    pub model: &'a Model,
    /// The judge of its answers.
    pub judge: &'a dyn Scorer,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens of an answer, at most.
    pub max_tokens: usize,
    /// Each row samples from a stream of its own, made of this seed and the row's number.
    pub seed: u64,
    /// Passed to chat templates that know a thinking and a plain mode.
    pub thinking: Option<bool>,
}

impl Answering<'_> {
    /// Answers the dialogues of these numbers under a hook (`&mut ()` for none), and scores the answers. `stage` names the
    /// work to `on_progress`, which stops it by giving false.
    ///
    /// # Errors
    /// A dialogue that can't be answered or judged, or a stop.
    pub fn answer(
        &self,
        all: &[Dialogue],
        numbers: &[usize],
        hook: &mut dyn Hook,
        stage: &'static str,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Answers> {
        let dialogues: Vec<Dialogue> = numbers.iter().map(|&number| all[number].clone()).collect();
        let options = GenerateOptions {
            sampling: self.sampling,
            max_tokens: self.max_tokens,
            seed: self.seed,
            thinking: self.thinking,
            batch_rows: BATCH_ROWS,
            ..GenerateOptions::default()
        };
        let total = numbers.len();
        let mut on_done = |done| on_progress(Progress { stage, done, total });
        let transcripts = generate(self.model, &dialogues, &options, hook, &mut on_done)?;
        let scores = self.judge.score_all((self.model, self.thinking), &dialogues, &transcripts)?;
        Ok(Answers { numbers: numbers.to_vec(), scores, transcripts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(scores: &[(&str, f64, f64)]) -> Answers {
        let score = |&(strategy, satisfaction, risk): &(&str, f64, f64)| Score {
            satisfaction: (strategy != BROKEN).then_some(satisfaction),
            risk: (strategy != BROKEN).then_some(risk),
            ..Score::outcome(strategy, String::new())
        };
        Answers {
            numbers: (10..10 + scores.len()).collect(),
            transcripts: Vec::new(),
            scores: scores.iter().map(score).collect(),
        }
    }

    #[test]
    fn breaking_an_unsafe_answer_does_not_help() {
        let broken = (BROKEN, 0.0, 0.0);
        let before = answers(&[("unsafe", 0.0, 1.0), ("help", 1.0, 0.0), broken]);
        let after = answers(&[broken, broken, ("guide", 0.5, 0.25)]);
        assert_eq!(before.worth(2.0, &before), Some(vec![-2.0, 1.0, 0.0]));
        // The first keeps the risk of the unsafe answer, the second loses all that the helpful one was worth.
        assert_eq!(after.worth(2.0, &before), Some(vec![-2.0, 0.0, 0.0]));
        let mut outcomes = before.clone();
        outcomes.scores.iter_mut().for_each(|score| *score = Score::outcome("answer", String::new()));
        assert_eq!(outcomes.worth(1.0, &outcomes), None);
    }
}
