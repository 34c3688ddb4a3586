//! The steering grid: ways to steer, each at several sites and strengths, measured on the validation part; each way's trial
//! for comparison, and its effect on the test part.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::Axis;

use super::answers::{Answering, Answers};
use super::dataset::{Dataset, label};
use super::kept_trials::KeptTrials;
use super::null_test::{Draw, NullTest};
use super::pareto::{mark_pareto, picks};
use super::steering_effect::{Effect, Part, Trial, effect};
pub use super::steering_grid_results::{ControlArm, Found, arm_slug};
use crate::activations::{Activations, Request, extract};
use crate::artifact::Header;
use crate::config::defaults::{BATCH_TOKENS, PROBE_FOLDS};
use crate::config::steering_grid::{Arm, GridProbe, SteeringGrid};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::generate::Sampling;
use crate::judge::{self, Scorer};
use crate::model::{Model, Site};
use crate::probe::{Examples, Logistic, Probe, Provenance, Split, Targets, ValidationPlan, validate};
use crate::progress::Progress;
use crate::steer::{ContrastRows, ContrastSet, Null, Operation, Probes, SteerHook, Strength, Vector};

/// A grid's results with its answers.
pub struct Evaluated {
    /// The results.
    pub found: Found,
    /// Answers to the goal's users, by what they were sampled for.
    pub answers: Vec<(String, Answers)>,
}

/// The inputs of a grid.
pub struct Grid<'a> {
    /// The grid's file.
    pub file: &'a SteeringGrid,
    /// The model.
    pub model: &'a Model,
    /// The dialogues.
    pub data: &'a Dataset,
    /// The judge of answers.
    pub judge: &'a dyn Scorer,
    /// Trials of an earlier run of the same grid.
    pub kept: &'a KeptTrials,
}

/// Probes and vector, from the fit part alone.
pub struct Fitted {
    /// Each probe of the file at each site.
    pub probes: Vec<(String, Site, Probe)>,
    /// The vector, at every site.
    pub vector: Vector,
    /// What it was made from; empty where it comes from a file.
    pub contrasts: Vec<ContrastSet>,
    /// The unsteered model's answers to the fit part, where the vector or a probe is made from them.
    pub answers: Option<Answers>,
}

/// Name of the answers without steering, among those of arms.
pub const UNSTEERED: &str = "unsteered";

impl Grid<'_> {
    /// Checks sites, parts and judge before any work begins.
    ///
    /// # Errors
    /// A site that the model lacks, a part without users of the goal or the guard, or an outcome or a dialogue that the judge
    /// can't judge.
    pub fn check(&self) -> Result<()> {
        let file = self.file;
        self.model.decoder.architecture().parse_sites(&file.sites)?;
        for sites in file.arms.iter().filter_map(|arm| arm.change.sites.as_ref()) {
            sites.resolve(self.model)?;
        }
        self.judge.check_model(Some(self.model))?;
        judge::check_outcome(self.judge, "goal, strategy", file.wanted())?;
        for (place, outcome) in [("vector, from", &file.vector.from), ("vector, to", &file.vector.to)] {
            if let Some(outcome) = outcome {
                judge::check_outcome(self.judge, place, outcome)?;
            }
        }
        for (part, name) in [(&self.data.validation, "validation"), (&self.data.test, "test")] {
            self.users(part, name)?;
        }
        judge::check_dialogues(self.judge, &self.data.dialogues)
    }

    fn answering(&self) -> Answering<'_> {
        Answering {
            model: self.model,
            judge: self.judge,
            sampling: match self.file.temperature {
                0.0 => Sampling::Greedy,
                temperature => Sampling::Temperature(temperature),
            },
            max_tokens: self.file.max_tokens,
            seed: self.file.seed,
            thinking: self.file.thinking,
        }
    }

    fn is_goal(&self, dialogue: &Dialogue) -> bool {
        dialogue.label(&self.file.goal.label).as_deref() == Some(self.file.goal.class.as_str())
    }

    /// A part's dialogues of the goal's users, and of the guard's.
    fn users(&self, part: &[usize], name: &str) -> Result<[Vec<Dialogue>; 2]> {
        let (goal, guard) = (&self.file.goal, &self.file.guard);
        let dialogues = || part.iter().map(|&number| &self.data.dialogues[number]);
        let guard_label = guard.label.as_ref().unwrap_or(&goal.label);
        let is_guarded =
            |dialogue: &&Dialogue| dialogue.label(guard_label).as_deref() == Some(guard.class.as_str());
        let users: Vec<Dialogue> = dialogues().filter(|dialogue| self.is_goal(dialogue)).cloned().collect();
        let guarded: Vec<Dialogue> = dialogues().filter(is_guarded).take(guard.dialogues).cloned().collect();
        if users.is_empty() || guarded.is_empty() {
            let found = format!(
                "{} users of the goal and {} of the guard in the {name} part",
                users.len(),
                guarded.len()
            );
            return Err(Error::input(&self.data.source, found, "some of each"));
        }
        Ok([users, guarded])
    }

    /// Fits the probes at each site, and builds the vector.
    ///
    /// # Errors
    /// A selector that does not pick one token a dialogue, a probe or a vector without examples of each kind, or a stop.
    pub fn fit(&self, header: &Header, on_progress: &mut dyn FnMut(Progress) -> bool) -> Result<Fitted> {
        let file = self.file;
        let sites = self.model.decoder.architecture().parse_sites(&file.sites)?;
        if let (Some(path), []) = (&file.vector.file, &file.probes[..]) {
            let vector = self.read_vector(path, &sites)?;
            return Ok(Fitted { probes: Vec::new(), vector, contrasts: Vec::new(), answers: None });
        }
        let dialogues: Vec<Dialogue> =
            self.data.fit.iter().map(|&number| self.data.dialogues[number].clone()).collect();
        let reading = Request {
            sites: sites.clone(),
            tokens: file.tokens.clone(),
            thinking: file.thinking,
            batch_tokens: BATCH_TOKENS,
            ..Request::default()
        };
        let total = dialogues.len();
        let activations = extract(self.model, &dialogues, &reading, &mut |done| {
            on_progress(Progress { stage: "read the fit part", done, total })
        })?;
        if !activations.example.iter().copied().eq(0..total) {
            let expected = "a selector that picks one token a dialogue, or pools";
            let place = format!("tokens {}", file.tokens);
            return Err(Error::input(place, "several tokens a dialogue, or none", expected));
        }
        let answers_needed =
            file.vector.file.is_none() || file.probes.iter().any(|probe| probe.label.is_none());
        let all: Vec<usize> = (0..total).collect();
        let answers = match answers_needed {
            false => None,
            true => Some(self.answering().answer(
                &dialogues,
                &all,
                &mut (),
                "answer the fit part",
                on_progress,
            )?),
        };
        let outcome = |row: usize| answers.as_ref().map(|answers| answers.scores[row].strategy.clone());
        let fit = FitPart { file, dialogues: &dialogues, activations: &activations, header };
        let mut probes = Vec::new();
        for probe in &file.probes {
            let label = |row: usize| match &probe.label {
                Some(name) => label(&dialogues[row], name),
                None => Ok(outcome(row).unwrap_or_default()),
            };
            let mut rows = Vec::new();
            for (row, dialogue) in dialogues.iter().enumerate() {
                let known = probe.order.is_empty() || probe.order.contains(&label(row)?);
                if known && (!probe.goal || self.is_goal(dialogue)) {
                    rows.push(row);
                }
            }
            let labels = rows.iter().map(|&row| label(row)).collect::<Result<Vec<_>>>()?;
            for &site in &sites {
                probes.push((probe.name.clone(), site, fit.probe(probe, site, &rows, &labels)?));
            }
        }
        let (vector, contrasts) = match &file.vector.file {
            Some(path) => (self.read_vector(path, &sites)?, Vec::new()),
            None => {
                let rows = |wanted: &Option<String>| -> Vec<usize> {
                    let such = |&row: &usize| self.is_goal(&dialogues[row]) && outcome(row) == *wanted;
                    (0..total).filter(such).collect()
                };
                let (positive, negative) = (rows(&file.vector.to), rows(&file.vector.from));
                if positive.is_empty() || negative.is_empty() {
                    let found = format!(
                        "{} answers with outcome {} and {} with {} in the fit part",
                        negative.len(),
                        file.vector.from.as_deref().unwrap_or_default(),
                        positive.len(),
                        file.vector.to.as_deref().unwrap_or_default()
                    );
                    return Err(Error::input("vector", found, "some of each"));
                }
                let chosen = ContrastRows {
                    sites: &sites,
                    position: &activations.position,
                    rows: [&positive, &negative],
                };
                let contrasts = sites.iter().map(|&site| chosen.contrast(site, |site| activations.at(site)));
                let contrasts = contrasts.collect::<Result<Vec<_>>>()?;
                (Vector::build(file.vector.method.parse()?, &contrasts)?, contrasts)
            }
        };
        Ok(Fitted { probes, vector, contrasts, answers })
    }

    /// A file's vector, at these sites.
    fn read_vector(&self, path: &Path, sites: &[Site]) -> Result<Vector> {
        let mut vector = Vector::load_for(path, self.model)?;
        vector.directions.retain(|site, _| sites.contains(site));
        if vector.directions.is_empty() {
            let found = format!("no direction at {}", self.file.sites);
            return Err(Error::input(path.display(), found, "sites that `pearl vector info` lists"));
        }
        Ok(vector)
    }

    /// Runs every trial on the validation part, picks each arm's, and measures the picks on the test part.
    ///
    /// # Errors
    /// An arm that can't be applied, logits that are not finite, or a stop.
    pub fn evaluate(
        &self,
        fitted: &Fitted,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Evaluated> {
        let file = self.file;
        let mut probes: BTreeMap<Site, Probes> = BTreeMap::new();
        for (name, site, probe) in &fitted.probes {
            let known = probes.entry(*site).or_default();
            *known = std::mem::take(known).with(Path::new(name), probe.clone());
        }
        let trials = Trials { grid: self, probes };
        let answering = self.answering();
        let mut answers: Vec<(String, Answers)> = Vec::new();

        let [users, guarded] = self.users(&self.data.validation, "validation")?;
        let stage = ("try on the validation part", None, file.data.group.as_str());
        let validation = Part::new(users, guarded, stage, &answering, on_progress)?;
        let (unsteered, unsteered_answers) =
            effect(&validation, file.wanted(), &answering, [&mut (), &mut ()], on_progress)?;
        answers.push((format!("validation-{UNSTEERED}"), unsteered_answers));
        let mut tried = Vec::new();
        for arm in file.arms.iter().filter(|arm| arm.control.is_none()) {
            for &site in fitted.vector.directions.keys() {
                for strength in arm.strengths.as_ref().unwrap_or(&file.strengths) {
                    let (effect, own) =
                        trials.effect(arm, site, strength, &fitted.vector, &validation, on_progress)?;
                    answers.push((format!("validation-{}-{site}-{strength}", arm_slug(&arm.name)), own));
                    let guarded = self.is_guarded(&effect, &unsteered);
                    let (arm, strength) = (arm.name.clone(), strength.clone());
                    tried.push(Trial { arm, site, strength, effect, pareto: false, guarded });
                }
            }
        }
        mark_pareto(&mut tried, file);
        let picked = picks(file, &tried);

        let [users, guarded] = self.users(&self.data.test, "test")?;
        let stage =
            ("try the picks on the test part", Some(file.guard.class.as_str()), file.data.group.as_str());
        let test = Part::new(users, guarded, stage, &answering, on_progress)?;
        let (plain, plain_answers) =
            effect(&test, file.wanted(), &answering, [&mut (), &mut ()], on_progress)?;
        answers.push((format!("test-{UNSTEERED}"), plain_answers));
        let mut effects = vec![(UNSTEERED.to_string(), plain)];
        for (arm, pick) in file.arms.iter().zip(&picked) {
            if let Some(index) = pick.1 {
                let trial = &tried[index];
                let (effect, own) =
                    trials.effect(arm, trial.site, &trial.strength, &fitted.vector, &test, on_progress)?;
                answers.push((format!("test-{}", arm_slug(&arm.name)), own));
                effects.push((arm.name.clone(), effect));
            }
        }
        let mut nulls = Vec::new();
        if let Some(reference) = picked.first().and_then(|(_, pick)| *pick) {
            let own =
                answers.iter().find(|(name, _)| *name == format!("test-{}", arm_slug(&file.arms[0].name)));
            let vector = own.map(|(_, own)| Draw::of("the vector", file.wanted(), &own.scores));
            // The guard's users aren't answered again for each of many directions.
            let test = test.without_guard();
            for arm in &file.arms {
                if let (Some(null), Some(vector)) = (arm.control, &vector) {
                    let stage = (null, vector, &tried[reference]);
                    nulls.push(trials.control(arm, stage, fitted, &test, on_progress)?);
                }
            }
        }
        let found = Found { unsteered, trials: tried, picked, test: effects, nulls };
        Ok(Evaluated { found, answers })
    }

    fn is_guarded(&self, effect: &Effect, unsteered: &Effect) -> bool {
        let limits = &self.file.guard;
        effect.divergence.value <= limits.max_kl
            && effect.perplexity <= limits.max_perplexity * unsteered.perplexity
            && effect.repetition <= unsteered.repetition + limits.max_repetition
    }
}

/// Effects of arms, with the probes that they may name.
struct Trials<'a> {
    grid: &'a Grid<'a>,
    /// At each site: the probes, by the names that arms know them by.
    probes: BTreeMap<Site, Probes>,
}

impl Trials<'_> {
    fn effect(
        &self,
        arm: &Arm,
        site: Site,
        strength: &str,
        vector: &Vector,
        part: &Part,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(Effect, Answers)> {
        self.grid.kept.next(|| {
            let mut hook = self.hook(arm, (site, strength), vector, &part.users)?;
            let mut guard = self.hook(arm, (site, strength), vector, &part.guarded)?;
            let (wanted, answering) = (self.grid.file.wanted(), self.grid.answering());
            effect(part, wanted, &answering, [&mut hook, &mut guard], on_progress)
        })
    }

    /// The null directions of a control at the first arm's site and strength, on the test part.
    fn control(
        &self,
        arm: &Arm,
        (null, vector, reference): (Null, &Draw, &Trial),
        fitted: &Fitted,
        part: &Part,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<ControlArm> {
        let file = self.grid.file;
        let mut own = fitted.vector.clone();
        own.directions.retain(|site, _| *site == reference.site);
        let (mut draws, mut divergence) = (Vec::new(), Vec::new());
        for direction in null.directions(&own, &fitted.contrasts, arm.draws, file.seed)? {
            let (effect, answers) =
                self.effect(arm, reference.site, &reference.strength, &direction, part, on_progress)?;
            draws.push(Draw::of(&direction.method, file.wanted(), &answers.scores));
            divergence.push(effect.divergence.value);
        }
        let test = NullTest { null, users: part.users.len(), vector: vector.clone(), draws };
        Ok(ControlArm { arm: arm.name.clone(), test, divergence })
    }

    /// The hook of an arm along a vector at a site, for these dialogues.
    fn hook(
        &self,
        arm: &Arm,
        (site, strength): (Site, &str),
        vector: &Vector,
        dialogues: &[Dialogue],
    ) -> Result<SteerHook> {
        let file = self.grid.file;
        let mut change = arm.change.clone();
        change.strength = strength.parse::<Strength>()?;
        let own = (change.operation != Operation::PROJECT).then_some(vector);
        // An arm's own sites all take the trial's direction.
        match change.sites {
            Some(_) => change.from = Some(site),
            None => change.sites = Some(site.into()),
        }
        let mut probes = self.probes.get(&site).cloned().unwrap_or_default();
        change.prepare(own, &mut probes, self.grid.model, dialogues, file.thinking).map_err(|error| {
            match error {
                Error::Input { place, found, expected } => {
                    Error::Input { place: format!("arm {}, {place}", arm.name), found, expected }
                }
                other => other,
            }
        })
    }
}

/// The fit part's dialogues and activations.
struct FitPart<'a> {
    file: &'a SteeringGrid,
    dialogues: &'a [Dialogue],
    activations: &'a Activations,
    header: &'a Header,
}

impl FitPart<'_> {
    /// Fits a probe at a site, on these rows with these labels.
    fn probe(&self, probe: &GridProbe, site: Site, rows: &[usize], labels: &[String]) -> Result<Probe> {
        let group = |&row: &usize| label(&self.dialogues[row], &self.file.data.group);
        let groups = rows.iter().map(group).collect::<Result<Vec<_>>>()?;
        let order: Vec<&str> = probe.order.iter().map(String::as_str).collect();
        let source = Provenance {
            site,
            tokens: self.file.tokens.clone(),
            label: probe.label.clone().unwrap_or_else(|| probe.name.clone()),
            model: self.header.model.clone(),
            model_hash: self.header.model_hash.clone(),
            model_form: self.header.model_form.clone(),
            data_hash: self.header.data_hash.clone(),
        };
        let targets = Targets::new(labels, &groups, &order)?;
        let values = self.activations.at(site)?.select(Axis(0), rows);
        let examples = Examples::new(source, values, targets.clone())?;
        let split = Split::hold_out_share(&targets, PROBE_FOLDS, self.file.seed)?;
        let plan = ValidationPlan { seed: self.file.seed, resamples: 0, ..ValidationPlan::default() };
        Ok(validate(&Logistic::default(), examples, &split, &plan)?.probe)
    }
}
