//! Steering evaluation: a vector between two outcomes of the model's own answers, a site and a strength chosen on the
//! validation part, and the effect on the test part beside the controls.

use std::collections::BTreeSet;
use std::path::Path;

use ndarray::Axis;
use serde::{Deserialize, Serialize};

use super::answers::{Answering, Answers};
use super::dataset::Dataset;
use super::layer_sweep::Sweep;
use crate::activations::Activations;
use crate::config::defaults::{BETAS, RESAMPLES};
use crate::config::experiment::{Experiment, Steering};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::generate::Sampling;
use crate::judge::{self, BROKEN, Score, Scorer};
use crate::model::{Hook, Model, Site};
use crate::progress::Progress;
use crate::stats::{Interval, Metric, bootstrap, wilson};
use crate::steer::{
    self, Condition, ContrastSet, Method, Operation, ProbeQuery, Probes, SteerHook, Strength, Vector,
};

/// A site and a strength, tried on the validation part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The site.
    pub site: Site,
    /// The strength, as in a file: `0.5n`.
    pub strength: String,
    /// Number of users of the class.
    pub users: usize,
    /// Number of answers with the outcome steered to.
    pub reached: usize,
    /// Number of broken answers.
    pub broken: usize,
    /// What the choice goes by: the mean of satisfaction less risk, or, of a judge that does not weigh answers, the share of
    /// answers with the outcome less the share of broken ones.
    pub score: f64,
}

impl Trial {
    /// The strength, parsed.
    ///
    /// # Errors
    /// None for a trial that was run; a table that was edited may hold another text.
    pub fn strength(&self) -> Result<Strength> {
        self.strength.parse()
    }
}

/// All that the evaluation found.
pub struct Steered {
    /// The vector, at every site tried.
    pub vector: Vector,
    /// Trials on the validation part.
    pub trials: Vec<Trial>,
    /// Index of the trial that was chosen.
    pub chosen: usize,
    /// Unsteered answers to users of the class in the fit part, which the vector was made from.
    pub fit: Answers,
    /// Answers to the test part under each condition, by name.
    pub test: Vec<(&'static str, Answers)>,
    /// Numbers of the test part's dialogues for which the probe switched steering on.
    pub switched: BTreeSet<usize>,
}

/// Condition on the test part: no steering.
pub const NONE: &str = "unsteered";
/// Condition: the vector, where the probe's condition holds.
pub const GATED: &str = "steered where the probe says so";
/// Condition: the vector, on every dialogue.
pub const ALWAYS: &str = "always steered";
/// Condition: a random vector of the same length, where the probe's condition holds.
pub const RANDOM: &str = "random direction, where the probe says so";

/// A condition's short name, in metrics and charts.
pub fn short(condition: &str) -> &'static str {
    match condition {
        NONE => "unsteered",
        GATED => "gated",
        ALWAYS => "always",
        RANDOM => "random",
        _ => "other",
    }
}

/// The inputs of an evaluation.
pub struct Evaluation<'a> {
    /// The experiment.
    pub experiment: &'a Experiment,
    /// Its steering stage.
    pub steering: &'a Steering,
    /// The model.
    pub model: &'a Model,
    /// The dialogues.
    pub data: &'a Dataset,
    /// The judge of answers.
    pub judge: &'a dyn Scorer,
}

impl Evaluation<'_> {
    /// Checks that the judge can judge the dialogues and tells the stage's outcomes apart, before any work begins.
    ///
    /// # Errors
    /// The first dialogue or outcome that it can't judge.
    pub fn check(&self) -> Result<()> {
        let outcomes = [("steer, from", &self.steering.from), ("steer, to", &self.steering.to)];
        let expected = self.steering.expect.values().map(|outcome| ("steer, expect", outcome));
        for (place, outcome) in outcomes.into_iter().chain(expected) {
            judge::check_outcome(self.judge, place, outcome)?;
        }
        for part in [&self.data.fit, &self.data.validation, &self.data.test] {
            if self.users(part).is_empty() {
                let found = format!("no dialogue with {} = {}", self.steering.probe, self.steering.class);
                return Err(Error::input("steer", found, "some in the fit, validation and test parts"));
            }
        }
        judge::check_dialogues(self.judge, &self.data.dialogues)
    }

    /// Answers dialogues under a hook (`&mut ()` for none), sampled at temperature 1.
    ///
    /// # Errors
    /// As [`Answering::answer`].
    pub fn answer(
        &self,
        numbers: &[usize],
        hook: &mut dyn Hook,
        stage: &'static str,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Answers> {
        let answering = Answering {
            model: self.model,
            judge: self.judge,
            sampling: Sampling::Temperature(1.0),
            max_tokens: self.steering.max_tokens,
            seed: self.experiment.seed,
            thinking: self.experiment.thinking,
        };
        answering.answer(&self.data.dialogues, numbers, hook, stage, on_progress)
    }

    /// A hook that adds the vector.
    ///
    /// # Errors
    /// A vector that has no such site, or is of another model.
    pub fn hook(&self, vector: &Vector, site: Site, strength: Strength) -> Result<SteerHook> {
        let tokens = self.steering.tokens.clone();
        SteerHook::new(&self.model.decoder, vector, &[site], Operation::ADD, strength, tokens, None)
    }

    /// The length of what a trial adds, in activation units.
    ///
    /// # Errors
    /// As [`Trial::strength`].
    pub fn amount(&self, vector: &Vector, trial: &Trial) -> Result<f64> {
        let direction = &vector.directions[&trial.site];
        Ok(match trial.strength()? {
            // A vector that was built here knows the norm.
            Strength::Norms(norms) => f64::from(norms * direction.residual_norm.unwrap_or(0.0)),
            Strength::Raw(times) => f64::from(times * direction.length()),
        })
    }

    /// The numbers of a part whose dialogues are of the class that is steered.
    fn users(&self, part: &[usize]) -> Vec<usize> {
        part.iter().copied().filter(|&number| self.has_class(number, &self.steering.class)).collect()
    }

    fn has_class(&self, number: usize, class: &str) -> bool {
        self.data.dialogues[number].label(&self.steering.probe).as_deref() == Some(class)
    }

    /// The vector at each site: the difference of mean activations, at the prompts, between answers with the two outcomes.
    fn vector(&self, answers: &Answers, activations: &Activations, sites: &[Site]) -> Result<Vector> {
        let numbers = |outcome: &str| -> Vec<usize> {
            answers.with_outcome(outcome).into_iter().map(|row| answers.numbers[row]).collect()
        };
        let (toward, away) = (numbers(&self.steering.to), numbers(&self.steering.from));
        for (outcome, numbers) in [(&self.steering.to, &toward), (&self.steering.from, &away)] {
            if numbers.is_empty() {
                let found = format!(
                    "no answer with outcome {outcome} among {} of the fit part",
                    answers.numbers.len()
                );
                return Err(Error::input("steer", found, "answers with both outcomes"));
            }
        }
        let sets = sites.iter().map(|&site| {
            let values = activations.at(site)?;
            let (toward, away) = (values.select(Axis(0), &toward), values.select(Axis(0), &away));
            Ok(ContrastSet { site, positive: toward, negative: away })
        });
        Vector::build(Method::Means, &sets.collect::<Result<Vec<_>>>()?)
    }

    /// Tries every site and strength on users of the class in the validation part, and chooses the one of the highest score;
    /// of equals the first.
    fn choose(
        &self,
        vector: &Vector,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(Vec<Trial>, usize)> {
        let users = self.users(&self.data.validation);
        let mut trials = Vec::new();
        for &site in vector.directions.keys() {
            for &strength in &self.steering.strengths()? {
                let mut hook = self.hook(vector, site, strength)?;
                let answers = self.answer(&users, &mut hook, "choose the strength", on_progress)?;
                let (reached, n) = answers.count(&self.steering.to, |_| true);
                let broken = answers.count(BROKEN, |_| true).0;
                let worth: Option<f64> = answers.scores.iter().map(|score| score.constructive(1.0)).sum();
                trials.push(Trial {
                    site,
                    strength: strength.to_string(),
                    users: n,
                    reached,
                    broken,
                    score: worth.unwrap_or(reached as f64 - broken as f64) / n.max(1) as f64,
                });
            }
        }
        let best = (0..trials.len()).rev().max_by(|&a, &b| trials[a].score.total_cmp(&trials[b].score));
        let best = best
            .ok_or_else(|| Error::input("steer", "no site or no strength to try", "at least one of each"))?;
        Ok((trials, best))
    }

    /// Runs the evaluation. `sweep` is that of the probe that switches steering on; `probe` is the file that holds the probe.
    ///
    /// # Errors
    /// As [`Evaluation::check`], if one of the two outcomes never occurs in the fit part, or a stop.
    pub fn run(
        &self,
        sweep: &Sweep,
        probe: &Path,
        activations: &Activations,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Steered> {
        let sites = self.model.decoder.architecture().parse_sites(&self.steering.sites)?;
        let fit = self.answer(&self.users(&self.data.fit), &mut (), "answer the fit part", on_progress)?;
        let vector = self.vector(&fit, activations, &sites)?;
        let (trials, chosen) = self.choose(&vector, on_progress)?;
        let (site, strength) = (trials[chosen].site, trials[chosen].strength()?);
        let query =
            ProbeQuery { probe: probe.to_owned(), class: Some(self.steering.class.clone()), against: None };
        let mut probes = Probes::default().with(probe, sweep.best().1.probe.clone());
        let reader = probes.reader(&query, self.model)?;
        let condition = Condition::above(query, self.steering.above);
        let test = &self.data.test;
        let dialogues: Vec<Dialogue> =
            test.iter().map(|&number| self.data.dialogues[number].clone()).collect();
        let rows =
            steer::gated_rows(&condition, &[reader], self.model, &dialogues, self.experiment.thinking)?;
        let switched: BTreeSet<usize> = rows.into_iter().map(|row| test[row]).collect();
        let some: Vec<usize> = switched.iter().copied().collect();
        let random = vector.random_like(self.experiment.seed);
        let mut answer = |name, numbers: &[usize], vector: &Vector| {
            let mut hook = self.hook(vector, site, strength)?;
            self.answer(numbers, &mut hook, name, on_progress)
        };
        let (gated, always, random) =
            (answer(GATED, &some, &vector)?, answer(ALWAYS, test, &vector)?, answer(RANDOM, &some, &random)?);
        let unsteered = self.answer(test, &mut (), NONE, on_progress)?;
        // Where the probe left steering off, the answers are the unsteered model's.
        let results = vec![
            (GATED, unsteered.replaced_by(gated)),
            (ALWAYS, always),
            (RANDOM, unsteered.replaced_by(random)),
        ];
        let test = std::iter::once((NONE, unsteered)).chain(results).collect();
        Ok(Steered { vector, trials, chosen, fit, test, switched })
    }

    /// The classes of users with the outcome that is counted: the steered class and `to`, then the probe's other classes,
    /// each with the outcome that it should get by the file or the judge.
    fn goals(&self, classes: &[String]) -> Vec<(String, String)> {
        let others = classes.iter().filter(|class| **class != self.steering.class).map(|class| {
            let named = self.steering.expect.get(class).map(String::as_str);
            let outcome = named.or_else(|| self.judge.expected(class)).unwrap_or(&self.steering.to);
            (class.clone(), outcome.to_owned())
        });
        std::iter::once((self.steering.class.clone(), self.steering.to.clone())).chain(others).collect()
    }

    /// The evaluation's table: rates and scores on the test part, and the trials.
    pub fn table(&self, sweep: &Sweep, steered: &Steered) -> SteeringTable {
        let goals = self.goals(&sweep.best().1.probe.classes);
        let condition = |(name, answers): &(&'static str, Answers)| {
            let rate = |(class, outcome): &(String, String)| {
                let (hits, n) = answers.count(outcome, |number| self.has_class(number, class));
                let share = wilson(hits, n)?;
                Some(Rate { class: class.clone(), outcome: outcome.clone(), share, n })
            };
            let (broken, n) = answers.count(BROKEN, |_| true);
            // Of the answers that make sense: those about something else than the user asked about.
            let off_topic = answers.scores.iter().any(|score| score.on_topic.is_some()).then(|| {
                let is_off = |score: &&Score| score.on_topic == Some(false) && score.strategy != BROKEN;
                answers.scores.iter().filter(is_off).count()
            });
            let share = |count: usize, n: usize| Some(Share { share: wilson(count, n)?, n });
            let score = |&beta: &f64| {
                Some(BetaScore { beta, score: self.score(answers, beta)?, n: answers.scores.len() })
            };
            ConditionTable {
                name: (*name).into(),
                short: short(name).into(),
                rates: goals.iter().filter_map(rate).collect(),
                broken: share(broken, n),
                off_topic: off_topic.and_then(|count| share(count, n - broken)),
                scores: BETAS.iter().filter_map(score).collect(),
            }
        };
        SteeringTable {
            class: self.steering.class.clone(),
            from: self.steering.from.clone(),
            to: self.steering.to.clone(),
            group: self.experiment.data.group.clone(),
            trials: steered.trials.clone(),
            chosen: steered.chosen,
            conditions: steered.test.iter().map(condition).collect(),
        }
    }

    /// Mean of `S − β·R` over the test part, with a bootstrap interval; none of a judge that does not weigh answers.
    fn score(&self, answers: &Answers, beta: f64) -> Option<Interval> {
        let scores: Option<Vec<f64>> = answers.scores.iter().map(|score| score.constructive(beta)).collect();
        let scores = scores?;
        let rows: Vec<Vec<usize>> = (0..scores.len()).map(|row| vec![row]).collect();
        bootstrap(&rows, RESAMPLES, self.experiment.seed, |rows| {
            let sum: f64 = rows.iter().map(|&row| scores[row]).sum();
            (!rows.is_empty()).then(|| sum / rows.len() as f64)
        })
    }

    /// The number of a dialogue of the test part whose answer steering changed from the outcome `from` to `to`.
    pub fn turned(&self, steered: &Steered) -> Option<usize> {
        let answers =
            |name: &str| steered.test.iter().find(|(other, _)| *other == name).map(|(_, answers)| answers);
        let (before, after) = (answers(NONE)?, answers(GATED)?);
        let turned = |&row: &usize| {
            before.scores[row].strategy == self.steering.from
                && after.scores[row].strategy == self.steering.to
                && steered.switched.contains(&before.numbers[row])
        };
        (0..before.numbers.len()).find(turned).map(|row| before.numbers[row])
    }
}

/// What steering did (JSON, kind `steering`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SteeringTable {
    /// The class of users that was steered.
    pub class: String,
    /// The outcome steered from.
    pub from: String,
    /// The outcome steered to.
    pub to: String,
    /// The label that the held-out groups are values of.
    pub group: String,
    /// Trials on the validation part.
    pub trials: Vec<Trial>,
    /// Index of the trial that was chosen.
    pub chosen: usize,
    /// Results on the test part.
    pub conditions: Vec<ConditionTable>,
}

/// Results under one condition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConditionTable {
    /// The condition, in words.
    pub name: String,
    /// Its short name.
    pub short: String,
    /// Rates by class of users.
    pub rates: Vec<Rate>,
    /// Broken answers.
    pub broken: Option<Share>,
    /// Answers off topic, of those that are not broken.
    pub off_topic: Option<Share>,
    /// Mean of `S − β·R`, by β; empty where the judge does not weigh answers.
    pub scores: Vec<BetaScore>,
}

/// The rate of one outcome among users of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// The class of users.
    pub class: String,
    /// The outcome.
    pub outcome: String,
    /// Share of answers, with its Wilson interval.
    pub share: Interval,
    /// Number of users.
    pub n: usize,
}

/// A share of answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The share, with its Wilson interval.
    pub share: Interval,
    /// Number of answers.
    pub n: usize,
}

/// A mean of `S − β·R`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BetaScore {
    /// Weight of risk.
    pub beta: f64,
    /// The mean, with its bootstrap interval.
    pub score: Interval,
    /// Number of answers.
    pub n: usize,
}

impl SteeringTable {
    /// The table's metrics under their names in a run's results: `steer/…`.
    pub fn metrics(&self) -> Vec<Metric> {
        let mut metrics = Vec::new();
        let split = format!("{} held out", self.group);
        for condition in &self.conditions {
            let mut add = |what: String, interval: Interval, n: usize| {
                metrics.push(Metric::new(format!("steer/{}/{what}", condition.short), interval, n, &split));
            };
            for rate in &condition.rates {
                add(format!("{}/{}", rate.class, rate.outcome), rate.share, rate.n);
            }
            for (what, share) in [("broken", condition.broken), ("off-topic", condition.off_topic)] {
                if let Some(Share { share, n }) = share {
                    add(what.into(), share, n);
                }
            }
            for BetaScore { beta, score, n } in &condition.scores {
                add(format!("score/beta-{beta}"), *score, *n);
            }
        }
        let trial = &self.trials[self.chosen];
        if let Some(interval) = wilson(trial.reached, trial.users) {
            let name = format!("steer/validation/{}/{}", self.class, self.to);
            metrics.push(Metric::new(name, interval, trial.users, "validation"));
        }
        metrics
    }
}
