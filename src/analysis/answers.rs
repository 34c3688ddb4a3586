//! A model's answers to dialogues, with a judge's scores.

use serde::Serialize;

use crate::config::defaults::BATCH_ROWS;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, Sampling, Transcript, generate};
use crate::judge::{Score, Scorer};
use crate::model::{Hook, Model};
use crate::progress::Progress;

/// Answers with their scores.
#[derive(Clone)]
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

    /// The same answers, but those of `others` where it has the dialogue.
    pub fn replaced_by(&self, others: Answers) -> Answers {
        let mut whole = self.clone();
        for ((number, transcript), score) in
            others.numbers.into_iter().zip(others.transcripts).zip(others.scores)
        {
            if let Some(row) = whole.numbers.iter().position(|&other| other == number) {
                (whole.transcripts[row], whole.scores[row]) = (transcript, score);
            }
        }
        whole
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
        let scores = dialogues.iter().zip(&transcripts);
        let scores = scores.map(|(dialogue, transcript)| self.judge.score(dialogue, transcript));
        Ok(Answers { numbers: numbers.to_vec(), scores: scores.collect::<Result<_>>()?, transcripts })
    }
}
