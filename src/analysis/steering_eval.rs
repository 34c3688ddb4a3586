//! The steering stage: a vector from the model's own answers, a site and a strength chosen on the validation part, and
//! what they do on the test part beside the controls.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::Axis;

use super::dataset::Dataset;
use super::layer_sweep::Sweep;
use crate::activations::Activations;
use crate::config::experiment::{Experiment, Steering};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, Sampling, Transcript, generate};
use crate::judge::{Score, Scorer};
use crate::model::{Hook, Model, Site};
use crate::progress::Progress;
use crate::steer::{
    self, Condition, ContrastSet, Method, Operation, ProbeQuery, Probes, SteerHook, Strength, Vector,
};

/// Answers with their scores.
#[derive(Clone)]
pub struct Answers {
    /// Numbers of the dialogues, in the order of the rest.
    pub numbers: Vec<usize>,
    pub transcripts: Vec<Transcript>,
    pub scores: Vec<Score>,
}

impl Answers {
    /// Of those answers whose dialogue passes, how many there are and how many have the strategy.
    pub fn count(&self, strategy: &str, passes: impl Fn(usize) -> bool) -> (usize, usize) {
        let rows: Vec<usize> = (0..self.numbers.len()).filter(|&row| passes(self.numbers[row])).collect();
        let hits = rows.iter().filter(|&&row| self.scores[row].strategy == strategy).count();
        (hits, rows.len())
    }

    /// The same with other answers to some of the dialogues.
    fn with(&self, others: Answers) -> Answers {
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
    pub fn lines(&self) -> Result<String> {
        #[derive(serde::Serialize)]
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

/// What was tried on the validation part.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    pub site: Site,
    pub strength: Strength,
    /// Users of the class, how many of them were answered by the strategy steered to, how many answers are broken, and
    /// the mean of satisfaction less risk.
    pub users: usize,
    pub reached: usize,
    pub broken: usize,
    pub score: f64,
}

/// All that the stage found.
pub struct Steered {
    pub vector: Vector,
    pub trials: Vec<Trial>,
    /// Index of the trial that was chosen.
    pub chosen: usize,
    /// Unsteered answers to users of the class in the fit part: what the vector was made from.
    pub fit: Answers,
    /// Answers to the test part under each condition, by name; `none` is unsteered.
    pub test: Vec<(&'static str, Answers)>,
    /// Dialogues of the test part on which the probe switched steering on.
    pub switched: BTreeSet<usize>,
}

/// Names of the conditions on the test part.
pub const NONE: &str = "unsteered";
pub const GATED: &str = "steered where the probe says so";
pub const ALWAYS: &str = "always steered";
pub const RANDOM: &str = "random direction, where the probe says so";

/// Everything that the stage works with.
pub struct Stage<'a> {
    pub experiment: &'a Experiment,
    pub steering: &'a Steering,
    pub model: &'a Model,
    pub data: &'a Dataset,
    pub scorer: &'a dyn Scorer,
}

/// Rows that are decoded side by side.
const BATCH_ROWS: usize = 256;

impl Stage<'_> {
    /// Answers dialogues under interventions; each part of the data draws from a stream of its own.
    pub fn answer(
        &self,
        numbers: &[usize],
        hook: Option<&mut dyn Hook>,
        stage: &'static str,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Answers> {
        let dialogues: Vec<Dialogue> =
            numbers.iter().map(|&number| self.data.dialogues[number].clone()).collect();
        let options = GenerateOptions {
            sampling: Sampling::Temperature(1.0),
            max_tokens: self.steering.max_tokens,
            seed: self.experiment.seed,
            thinking: self.experiment.thinking,
            batch_rows: BATCH_ROWS,
            ..GenerateOptions::default()
        };
        let total = numbers.len();
        let mut heard = |done| on_progress(Progress { stage, done, total });
        let transcripts = match hook {
            Some(hook) => generate(self.model, &dialogues, &options, hook, &mut heard)?,
            None => generate(self.model, &dialogues, &options, &mut (), &mut heard)?,
        };
        let scored = dialogues
            .iter()
            .zip(&transcripts)
            .map(|(dialogue, transcript)| self.scorer.score(dialogue, transcript));
        Ok(Answers { numbers: numbers.to_vec(), scores: scored.collect::<Result<_>>()?, transcripts })
    }

    /// A hook that adds the vector to some rows, or to all.
    pub fn hook(
        &self,
        vector: &Vector,
        site: Site,
        strength: Strength,
        rows: Option<BTreeSet<usize>>,
    ) -> Result<SteerHook> {
        SteerHook::new(
            &self.model.decoder,
            vector,
            &[site],
            Operation::ADD,
            strength,
            self.steering.tokens.clone(),
            rows,
        )
    }

    /// How far a trial goes along the vector, in activation units.
    pub fn amount(&self, vector: &Vector, trial: &Trial) -> f64 {
        let direction = &vector.directions[&trial.site];
        match trial.strength {
            // The stage's own vectors know the norm.
            Strength::Norms(norms) => f64::from(norms * direction.residual_norm.unwrap_or(0.0)),
            Strength::Raw(times) => f64::from(times * direction.length()),
        }
    }

    fn is_class(&self, number: usize) -> bool {
        self.data.dialogues[number].label(&self.steering.probe).as_deref()
            == Some(self.steering.class.as_str())
    }

    /// Those of a part that are of the class which is steered.
    fn users(&self, part: &[usize]) -> Vec<usize> {
        part.iter().copied().filter(|&number| self.is_class(number)).collect()
    }

    /// The difference of means between the two kinds of answers, at the prompts that they answered.
    fn vector(&self, answers: &Answers, activations: &Activations, sites: &[Site]) -> Result<Vector> {
        let rows = |strategy: &str| -> Vec<usize> {
            let such = |&row: &usize| answers.scores[row].strategy == strategy;
            (0..answers.numbers.len()).filter(such).map(|row| answers.numbers[row]).collect()
        };
        let (toward, away) = (rows(&self.steering.to), rows(&self.steering.from));
        let sides = sites.iter().map(|&site| {
            let values = activations.at(site)?;
            let (toward, away) = (values.select(Axis(0), &toward), values.select(Axis(0), &away));
            Ok(ContrastSet { site, positive: toward, negative: away })
        });
        Vector::build(Method::Means, &sides.collect::<Result<Vec<_>>>()?)
    }

    /// Chooses site and strength: the highest mean of satisfaction less risk among users of the class in the validation
    /// part; of equals the first.
    fn choose(
        &self,
        vector: &Vector,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(Vec<Trial>, usize)> {
        let users = self.users(&self.data.validation);
        let mut trials = Vec::new();
        for &site in vector.directions.keys() {
            for &strength in &self.steering.strengths()? {
                let mut hook = self.hook(vector, site, strength, None)?;
                let answers = self.answer(&users, Some(&mut hook), "choose the strength", on_progress)?;
                let score: f64 = answers.scores.iter().map(|score| score.constructive(1.0)).sum();
                trials.push(Trial {
                    site,
                    strength,
                    users: users.len(),
                    reached: answers.count(&self.steering.to, |_| true).0,
                    broken: answers.count(crate::judge::BROKEN, |_| true).0,
                    score: score / users.len().max(1) as f64,
                });
            }
        }
        let best = (0..trials.len()).rev().max_by(|&a, &b| trials[a].score.total_cmp(&trials[b].score));
        let best = best
            .ok_or_else(|| Error::input("steer", "no site or no strength to try", "at least one of each"))?;
        Ok((trials, best))
    }

    /// Runs the stage. `sweep` is that of the probe which switches steering on; `probe` the file that it lies in.
    pub fn run(
        &self,
        sweep: &Sweep,
        probe: &std::path::Path,
        activations: &Activations,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Steered> {
        let sites = self.model.decoder.architecture().parse_sites(&self.steering.sites)?;
        let fit = self.answer(&self.users(&self.data.fit), None, "answer the fit part", on_progress)?;
        let vector = self.vector(&fit, activations, &sites)?;
        let (trials, chosen) = self.choose(&vector, on_progress)?;
        let Trial { site, strength, .. } = trials[chosen];
        let asked =
            ProbeQuery { probe: probe.to_owned(), class: Some(self.steering.class.clone()), against: None };
        let mut probes = Probes::default().with(probe, sweep.best().1.probe.clone());
        let reader = probes.reader(&asked, self.model)?;
        let condition = Condition::above(asked, self.steering.above);
        let test = &self.data.test;
        let dialogues: Vec<Dialogue> =
            test.iter().map(|&number| self.data.dialogues[number].clone()).collect();
        let rows =
            steer::gated_rows(&condition, &[reader], self.model, &dialogues, self.experiment.thinking)?;
        let switched: BTreeSet<usize> = rows.into_iter().map(|row| test[row]).collect();
        let some: Vec<usize> = switched.iter().copied().collect();
        let random = vector.random_like(self.experiment.seed);
        let mut answer = |name, numbers: &[usize], vector: &Vector| {
            let mut hook = self.hook(vector, site, strength, None)?;
            self.answer(numbers, Some(&mut hook), name, on_progress)
        };
        let (gated, always, random) =
            (answer(GATED, &some, &vector)?, answer(ALWAYS, test, &vector)?, answer(RANDOM, &some, &random)?);
        let unsteered = self.answer(test, None, NONE, on_progress)?;
        // Where the probe left steering off, the model is the unsteered one, and so are its answers.
        let results =
            vec![(GATED, unsteered.with(gated)), (ALWAYS, always), (RANDOM, unsteered.with(random))];
        let test = std::iter::once((NONE, unsteered)).chain(results).collect();
        Ok(Steered { vector, trials, chosen, fit, test, switched })
    }
}

/// Rows of the test part by the value of a label.
pub fn by_label(data: &Dataset, label: &str) -> BTreeMap<String, Vec<usize>> {
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for &number in &data.test {
        if let Some(value) = data.dialogues[number].label(label) {
            groups.entry(value).or_default().push(number);
        }
    }
    groups
}
