//! Steering evaluation: a vector between two outcomes of the model's own answers, a site and a strength chosen on the
//! validation part, and the effect on the test part beside the controls.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::answers::{Answering, Answers};
use super::dataset::Dataset;
use super::group_interval;
use super::layer_sweep::Sweep;
use super::null_test::{Draw, NullTest};
use super::steering_table::{BetaScore, ConditionTable, Rate, Share, SteeringTable, Trial};
use crate::activations::Activations;
use crate::config::defaults::{BETAS, NULL_COMPONENTS};
use crate::config::experiment::{Experiment, Steering};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::generate::Sampling;
use crate::judge::{self, BROKEN, Score, Scorer};
use crate::model::{Hook, Model, Site};
use crate::progress::Progress;
use crate::stats::{Interval, wilson};
use crate::steer::{
    self, Condition, ContrastRows, ContrastSet, Intervention, Method, Null, OffsetHook, Operation,
    ProbeQuery, Probes, SteerHook, Strength, Vector,
};

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
    /// The vector against null directions.
    pub nulls: Vec<NullTest>,
}

/// Condition on the test part: no steering.
pub const NONE: &str = "unsteered";
/// Condition: the vector, where the probe's condition holds.
pub const GATED: &str = "steered where the probe says so";
/// Condition: the vector, on every dialogue.
pub const ALWAYS: &str = "always steered";

/// A condition's short name, in metrics and charts.
pub fn short(condition: &str) -> &'static str {
    match condition {
        NONE => "unsteered",
        GATED => "gated",
        ALWAYS => "always",
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
        SteerHook::new(&self.model.decoder, vector, &[site], (Operation::ADD, strength), tokens, None)
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

    /// The contrast at each site, at the prompts, between answers with the two outcomes.
    fn contrasts(
        &self,
        answers: &Answers,
        activations: &Activations,
        sites: &[Site],
    ) -> Result<Vec<ContrastSet>> {
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
        let read: Vec<Site> = activations.sites.iter().map(|(site, _)| *site).collect();
        let rows = ContrastRows { sites: &read, position: &activations.position, rows: [&toward, &away] };
        sites.iter().map(|&site| rows.contrast(site, |site| activations.at(site))).collect()
    }

    /// Tries every site and strength on users of the class in the validation part, and chooses the one of the highest score;
    /// of equals the first.
    fn choose(
        &self,
        vector: &Vector,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(Vec<Trial>, usize)> {
        let users = self.users(&self.data.validation);
        let unsteered = self.answer(&users, &mut (), "choose the strength", on_progress)?;
        let mut trials = Vec::new();
        for &site in vector.directions.keys() {
            for &strength in &self.steering.strengths()? {
                let mut hook = self.hook(vector, site, strength)?;
                let answers = self.answer(&users, &mut hook, "choose the strength", on_progress)?;
                let (reached, n) = answers.count(&self.steering.to, |_| true);
                let broken = answers.count(BROKEN, |_| true).0;
                let worth = answers.worth(1.0, &unsteered).map(|worth| worth.iter().sum());
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
        let contrasts = self.contrasts(&fit, activations, &sites)?;
        let mut vector = Vector::build(Method::Means, &contrasts)?;
        let (trials, chosen) = self.choose(&vector, on_progress)?;
        vector.best = Some(trials[chosen].site);
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
        let switched: BTreeSet<usize> = rows.iter().map(|&row| test[row]).collect();
        let unsteered = self.answer(test, &mut (), NONE, on_progress)?;
        // The gate is run: every dialogue is answered under a hook that it switches on or leaves off.
        let change = Intervention {
            sites: Some(site.into()),
            strength,
            tokens: self.steering.tokens.clone(),
            ..Intervention::default()
        };
        let gated =
            self.answer(test, &mut change.hook(self.model, &vector, Some(rows))?, GATED, on_progress)?;
        let always = self.answer(test, &mut self.hook(&vector, site, strength)?, ALWAYS, on_progress)?;
        let nulls = self.null_tests((&vector, &contrasts), &trials[chosen], &switched, on_progress)?;
        let test = vec![(NONE, unsteered), (GATED, gated), (ALWAYS, always)];
        Ok(Steered { vector, trials, chosen, fit, test, switched, nulls })
    }

    /// Tries null directions of every kind at the chosen site and strength, on some users of the class for whom the probe
    /// switched steering on, and the vector on the same users. All of them are answered side by side: adding a vector is an
    /// offset of each row.
    fn null_tests(
        &self,
        (vector, contrasts): (&Vector, &[ContrastSet]),
        trial: &Trial,
        switched: &BTreeSet<usize>,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Vec<NullTest>> {
        let users: Vec<usize> = self
            .users(&self.data.test)
            .into_iter()
            .filter(|number| switched.contains(number))
            .take(self.steering.null_users)
            .collect();
        if users.is_empty() || self.steering.null_draws == 0 {
            return Ok(Vec::new());
        }
        let mut own = vector.clone();
        own.directions.retain(|site, _| *site == trial.site);
        let draws = self.steering.null_draws;
        let mut kinds = Vec::new();
        for (null, draws) in
            [(Null::Random, draws), (Null::Shuffled, draws), (Null::Components, 2 * NULL_COMPONENTS)]
        {
            kinds.push((null, null.directions(&own, contrasts, draws, self.experiment.seed)?));
        }
        let all: Vec<&Vector> =
            std::iter::once(&own).chain(kinds.iter().flat_map(|(_, directions)| directions)).collect();
        let amount = self.amount(vector, trial)? as f32;
        let (mut numbers, mut offsets) = (Vec::new(), BTreeMap::new());
        for one in &all {
            let offset = (one.directions[&trial.site].unit()? * amount).to_vec();
            for &number in &users {
                offsets.insert(numbers.len(), offset.clone());
                numbers.push(number);
            }
        }
        let tokens = self.steering.tokens.clone();
        let mut hook = OffsetHook::new(&self.model.decoder, trial.site, tokens, offsets)?;
        let answers = self.answer(&numbers, &mut hook, "try null directions", on_progress)?;
        let mut counted = all
            .iter()
            .zip(answers.scores.chunks(users.len()))
            .map(|(one, scores)| Draw::of(&one.method, &self.steering.to, scores));
        let Some(own) = counted.next() else { return Ok(Vec::new()) };
        let test = |(null, directions): (Null, Vec<Vector>)| NullTest {
            null,
            users: users.len(),
            vector: own.clone(),
            draws: counted.by_ref().take(directions.len()).collect(),
        };
        Ok(kinds.clone().into_iter().map(test).collect())
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
        let unsteered = &steered.test[0].1;
        let condition = |(name, answers): &(&'static str, Answers)| {
            let rate = |(class, outcome): &(String, String)| {
                let rows = answers.numbers.iter().zip(&answers.scores);
                let own = rows.filter(|(number, _)| self.has_class(**number, class));
                let (numbers, hits): (Vec<usize>, Vec<bool>) =
                    own.map(|(number, score)| (*number, score.strategy == *outcome)).unzip();
                let share = group_interval::share(&hits, &self.groups(&numbers), self.experiment.seed)?;
                Some(Rate { class: class.clone(), outcome: outcome.clone(), share, n: hits.len() })
            };
            let (broken, n) = answers.count(BROKEN, |_| true);
            // Of the answers that make sense: those about something else than the user asked about.
            let off_topic = answers.scores.iter().any(|score| score.on_topic.is_some()).then(|| {
                let is_off = |score: &&Score| score.on_topic == Some(false) && score.strategy != BROKEN;
                answers.scores.iter().filter(is_off).count()
            });
            let share = |count: usize, n: usize| Some(Share { share: wilson(count, n)?, n });
            let score = |&beta: &f64| {
                Some(BetaScore {
                    beta,
                    score: self.score(answers, unsteered, beta)?,
                    n: answers.scores.len(),
                })
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
            group: self.experiment.data.held_out_labels(),
            trials: steered.trials.clone(),
            chosen: steered.chosen,
            conditions: steered.test.iter().map(condition).collect(),
            nulls: steered.nulls.clone(),
        }
    }

    /// Mean of `S − β·R` over the test part, with a bootstrap interval; none of a judge that does not weigh answers.
    fn score(&self, answers: &Answers, unsteered: &Answers, beta: f64) -> Option<Interval> {
        let scores = answers.worth(beta, unsteered)?;
        let interval = group_interval::mean(&scores, &self.groups(&answers.numbers), self.experiment.seed);
        // Both S and R are in [0, 1].
        interval.map(|interval| interval.within(-beta, 1.0))
    }

    /// The rows of each held-out group among the dialogues of these numbers; none where a dialogue has no group.
    fn groups(&self, numbers: &[usize]) -> Vec<Vec<usize>> {
        let dialogues = numbers.iter().map(|&number| &self.data.dialogues[number]);
        group_interval::groups(dialogues, &self.experiment.data.group).unwrap_or_default()
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
