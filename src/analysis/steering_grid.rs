//! A sweep: ways to steer, each at several sites and strengths, tried on the validation part; what each does to the goal
//! and to text that it should leave alone; the pick of each way, and what that does on the test part.
//! It prints nothing: whoever runs it hears of progress through a callback.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::Axis;
use serde::{Deserialize, Serialize};

pub use crate::config::steering_grid::{Arm, Control, Goal, Guard, Probing, SweepFile};

use super::dataset::Dataset;
use super::layer_sweep::label;
use crate::activations::{Activations, Reading, extract};
use crate::analysis::pareto::{mark_pareto, picks};
use crate::analysis::side_effects::{Text, damage, repetition, texts};
use crate::artifact::{self, Header};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, Sampling, Transcript, generate};
use crate::judge::{self, Score, Scorer};
use crate::model::{Hook, Model, Site};
use crate::probe::{Examples, Logistic, Plan, Probe, Source, Split, Targets, validate};
use crate::progress::Progress;
use crate::report::{self, Results};
use crate::stats::{Interval, Metric, bootstrap, wilson};
use crate::steer::{ContrastSet, Operation, Probes, SteerHook, Strength, Vector};

use crate::plots::steering_grid as plots;
pub use crate::plots::steering_grid::table;

/// What one way of steering did at one site and strength.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    pub arm: String,
    pub site: Site,
    pub strength: String,
    #[serde(flatten)]
    pub effect: Effect,
    /// Whether no other trial that is no control reaches as much with less damage.
    pub pareto: bool,
    /// Whether it keeps within the guard.
    pub guarded: bool,
}

/// What steering does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Share of the goal's users who got what they should.
    pub response: Interval,
    pub users: usize,
    /// Share of their answers that make no sense; where the world judges.
    pub broken: f64,
    /// Mean share of runs of three tokens that an answer to them repeats.
    pub repetition: f64,
    /// Mean KL(unsteered ‖ steered) a token on the guard's texts, nats.
    pub divergence: Interval,
    /// exp of the mean surprise a token at what the unsteered model answered there.
    pub perplexity: f64,
    pub texts: usize,
}

/// All that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The unsteered model on the validation part.
    pub unsteered: Effect,
    /// On the validation part, in the order in which they were tried.
    pub trials: Vec<Trial>,
    /// The trial that each arm is held at on the test part, an index into `trials`; none where no trial of the arm keeps
    /// within the guard.
    pub picked: Vec<(String, Option<usize>)>,
    /// On the test part: the unsteered model, then each arm at its pick.
    pub test: Vec<(String, Effect)>,
}

/// A part's dialogues that a trial is tried on.
struct Part {
    users: Vec<Dialogue>,
    guarded: Vec<Dialogue>,
    texts: Vec<Text>,
    split: &'static str,
}

struct Stage<'a> {
    file: &'a SweepFile,
    model: &'a Model,
    data: &'a Dataset,
    /// At each site: the probes, by the names that arms know them by.
    probes: BTreeMap<Site, Probes>,
    vector: Vector,
}

/// Rows that are decoded side by side.
const BATCH_ROWS: usize = 256;
const BATCH_TOKENS: usize = 1024;
const RESAMPLES: usize = 1000;
const UNSTEERED: &str = "unsteered";

/// Runs a sweep into a folder. `text` is its file's own text, kept beside the results.
pub fn run(
    file: &SweepFile,
    text: &str,
    model: &Model,
    out: &Path,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<(Found, Results)> {
    let data = Dataset::load(&file.data, file.seed)?;
    let header = |kind: &str| Header {
        model: Some(model.name.clone()),
        model_hash: Some(model.hash.clone()),
        data_hash: Some(data.hash.clone()),
        seed: Some(file.seed),
        ..Header::new(kind, 1)
    };
    artifact::write_text(&out.join("sweep.toml"), text)?;
    let sites = model.decoder.architecture().parse_sites(&file.sites)?;
    let (probes, vector) = fitted(file, model, &data, &sites, &header("activations"), out, on_progress)?;
    vector.save(&out.join("vectors").join("sweep.safetensors"), header("vector"))?;
    let stage = Stage { file, model, data: &data, probes, vector };

    let validation = stage.part(&data.validation, "validation", on_progress)?;
    let unsteered = stage.effect(&validation, &mut (), &mut (), on_progress)?;
    let mut trials = Vec::new();
    for arm in &file.arms {
        for &site in stage.vector.directions.keys() {
            for strength in arm.strengths.as_ref().unwrap_or(&file.strengths) {
                let trial = stage.trial(arm, site, strength, &validation, &unsteered, on_progress)?;
                trials.push(trial);
            }
        }
    }
    mark_pareto(&mut trials, &file.arms);
    let picked = picks(file, &trials);

    let test = stage.part(&data.test, "test", on_progress)?;
    let mut effects = vec![(UNSTEERED.to_string(), stage.effect(&test, &mut (), &mut (), on_progress)?)];
    for (arm, pick) in file.arms.iter().zip(&picked) {
        if let Some(index) = pick.1 {
            let trial = &trials[index];
            let mut hook = stage.hook(arm, trial.site, &trial.strength, &test.users)?;
            let mut guard = stage.hook(arm, trial.site, &trial.strength, &test.guarded)?;
            effects.push((arm.name.clone(), stage.effect(&test, &mut hook, &mut guard, on_progress)?));
        }
    }
    let found = Found { unsteered, trials, picked, test: effects };
    artifact::write_json(&out.join("sweep.json"), &header("sweep"), &found)?;
    let results = Results::new(&file.name, &model.name, file.seed, figures(file, &found));
    for (name, chart) in plots::charts(file, &found) {
        let text = serde_json::to_string(&chart)
            .map_err(|error| Error::input(&name, error, "a chart that JSON can hold"))?;
        artifact::write_text(&out.join(format!("{name}.chart.json")), &text)?;
    }
    report::draw_all(out)?;
    report::write(&plots::page(file, model, &data, &found), &out.join("report.html"))?;
    // Last, so that a folder with results is whole.
    results.write(&out.join("results.json"))?;
    Ok((found, results))
}

/// Probes at each site and the vector, from the fit part alone.
fn fitted(
    file: &SweepFile,
    model: &Model,
    data: &Dataset,
    sites: &[Site],
    header: &Header,
    out: &Path,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<(BTreeMap<Site, Probes>, Vector)> {
    let fit: Vec<Dialogue> = data.fit.iter().map(|&number| data.dialogues[number].clone()).collect();
    let reading = Reading {
        sites: sites.to_vec(),
        tokens: file.tokens.clone(),
        thinking: file.thinking,
        batch_tokens: BATCH_TOKENS,
    };
    let total = fit.len();
    let activations = extract(model, &fit, &reading, &mut |done| {
        on_progress(Progress { stage: "read the fit part", done, total })
    })?;
    if !activations.example.iter().copied().eq(0..total) {
        let expected = "a selector that picks one token a dialogue, or pools";
        return Err(Error::input(
            format!("tokens {}", file.tokens),
            "several tokens a dialogue, or none",
            expected,
        ));
    }
    let asks = file.vector.file.is_none() || file.probes.iter().any(|probing| probing.label.is_none());
    let scores = match asks {
        false => Vec::new(),
        true => scored(file, model, &fit, &mut (), "answer the fit part", on_progress)?.1,
    };
    let is_goal =
        |dialogue: &Dialogue| dialogue.label(&file.goal.label).as_deref() == Some(file.goal.class.as_str());
    let mut probes: BTreeMap<Site, Probes> = sites.iter().map(|site| (*site, Probes::default())).collect();
    for probing in &file.probes {
        let of = |row: &usize| -> Result<String> {
            match &probing.label {
                Some(name) => label(&fit[*row], name),
                None => Ok(scores[*row].strategy.clone()),
            }
        };
        let mut rows = Vec::new();
        for (row, dialogue) in fit.iter().enumerate() {
            let known = probing.order.is_empty() || probing.order.contains(&of(&row)?);
            if known && (!probing.goal || is_goal(dialogue)) {
                rows.push(row);
            }
        }
        for (site, known) in &mut probes {
            let probe = fit_probe(file, probing, *site, &rows, &of, &activations, &fit, header)?;
            probe.save(&out.join("probes").join(format!("{}-{site}.safetensors", probing.name)))?;
            *known = std::mem::take(known).with(Path::new(&probing.name), probe);
        }
    }
    let vector = match (&file.vector.file, &file.vector.from, &file.vector.to) {
        (Some(path), ..) => {
            let mut vector = Vector::load_for(path, model)?;
            vector.directions.retain(|site, _| sites.contains(site));
            if vector.directions.is_empty() {
                let found = format!("no direction at {}", file.sites);
                return Err(Error::input(path.display(), found, "sites that `pearl vector info` lists"));
            }
            vector
        }
        (None, from, to) => {
            let side = |strategy: &Option<String>| -> Vec<usize> {
                let such =
                    |&row: &usize| is_goal(&fit[row]) && Some(&scores[row].strategy) == strategy.as_ref();
                (0..total).filter(such).collect()
            };
            let (toward, away) = (side(to), side(from));
            let sides = sites.iter().map(|&site| {
                let values = activations.at(site)?;
                let (toward, away) = (values.select(Axis(0), &toward), values.select(Axis(0), &away));
                Ok(ContrastSet { site, positive: toward, negative: away })
            });
            Vector::build(file.vector.method.parse()?, &sides.collect::<Result<Vec<_>>>()?)?
        }
    };
    Ok((probes, vector))
}

#[expect(clippy::too_many_arguments, reason = "one call, and all of it is of this one fit")]
fn fit_probe(
    file: &SweepFile,
    probing: &Probing,
    site: Site,
    rows: &[usize],
    of: &dyn Fn(&usize) -> Result<String>,
    activations: &Activations,
    fit: &[Dialogue],
    header: &Header,
) -> Result<Probe> {
    let labels = rows.iter().map(of).collect::<Result<Vec<_>>>()?;
    let groups = rows.iter().map(|&row| label(&fit[row], &file.data.group)).collect::<Result<Vec<_>>>()?;
    let order: Vec<&str> = probing.order.iter().map(String::as_str).collect();
    let source = Source {
        site,
        tokens: file.tokens.clone(),
        label: probing.label.clone().unwrap_or_else(|| probing.name.clone()),
        model: header.model.clone(),
        model_hash: header.model_hash.clone(),
        data_hash: header.data_hash.clone(),
    };
    let targets = Targets::new(&labels, &groups, &order)?;
    let examples = Examples::new(source, activations.at(site)?.select(Axis(0), rows), targets.clone())?;
    // A fifth of the groups is held out of the fit for the probe's own scores.
    let split = Split::hold_out_share(&targets, 5, file.seed)?;
    let plan = Plan { seed: file.seed, resamples: 0, ..Plan::default() };
    Ok(validate(&Logistic::default(), examples, &split, &plan)?.probe)
}

/// Answers dialogues under a hook, and scores them where the world can.
fn scored(
    file: &SweepFile,
    model: &Model,
    dialogues: &[Dialogue],
    hook: &mut dyn Hook,
    stage: &'static str,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<(Vec<Transcript>, Vec<Score>)> {
    let options = GenerateOptions {
        sampling: Sampling::Temperature(1.0),
        max_tokens: file.max_tokens,
        seed: file.seed,
        thinking: file.thinking,
        batch_rows: BATCH_ROWS,
        ..GenerateOptions::default()
    };
    let total = dialogues.len();
    let mut heard = |done| on_progress(Progress { stage, done, total });
    let transcripts = generate(model, dialogues, &options, hook, &mut heard)?;
    let score = |(dialogue, transcript): (&Dialogue, &Transcript)| match &file.goal.strategy {
        Some(_) => judge::World.score(dialogue, transcript),
        None => {
            let said = transcript.text.to_lowercase();
            let has = file.goal.words.iter().any(|word| said.contains(&word.to_lowercase()));
            let strategy = if has { "has a word" } else { "has none" };
            let reason = "words of the goal".into();
            Ok(Score { strategy: strategy.into(), on_topic: true, satisfaction: 0.0, risk: 0.0, reason })
        }
    };
    let scores = dialogues.iter().zip(&transcripts).map(score).collect::<Result<Vec<_>>>()?;
    Ok((transcripts, scores))
}

impl Stage<'_> {
    fn part(
        &self,
        numbers: &[usize],
        split: &'static str,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Part> {
        let of = |name: &str, value: &str| -> Vec<Dialogue> {
            let such = |&&number: &&usize| self.data.dialogues[number].label(name).as_deref() == Some(value);
            numbers.iter().filter(such).map(|&number| self.data.dialogues[number].clone()).collect()
        };
        let (goal, guard) = (&self.file.goal, &self.file.guard);
        let users = of(&goal.label, &goal.class);
        let mut guarded = of(guard.label.as_ref().unwrap_or(&goal.label), &guard.class);
        guarded.truncate(guard.dialogues);
        if users.is_empty() || guarded.is_empty() {
            let found = format!(
                "{} users of the goal and {} of the guard in the {split} part",
                users.len(),
                guarded.len()
            );
            return Err(Error::input(&self.data.source, found, "some of each"));
        }
        let (answers, _) =
            scored(self.file, self.model, &guarded, &mut (), "answer the guard's part", on_progress)?;
        let texts = texts(self.model, &guarded, &answers, self.file.thinking)?;
        Ok(Part { users, guarded, texts, split })
    }

    /// The hook of an arm at a site, for these dialogues.
    fn hook(&self, arm: &Arm, site: Site, strength: &str, dialogues: &[Dialogue]) -> Result<SteerHook> {
        let mut change = arm.change.clone();
        change.strength = strength.parse::<Strength>()?;
        let vector = match arm.control {
            None => self.vector.clone(),
            Some(Control::Random) => self.vector.random_like(self.file.seed),
            Some(Control::Orthogonal) => self.vector.orthogonal_like(self.file.seed),
        };
        let own = (change.operation != Operation::PROJECT).then_some(&vector);
        change.sites = Some(site.into());
        let mut probes = self.probes.get(&site).cloned().unwrap_or_default();
        change.prepare(own, &mut probes, self.model, dialogues, self.file.thinking).map_err(|error| {
            match error {
                Error::Input { place, found, expected } => {
                    Error::Input { place: format!("arm {}, {place}", arm.name), found, expected }
                }
                other => other,
            }
        })
    }

    fn trial(
        &self,
        arm: &Arm,
        site: Site,
        strength: &str,
        part: &Part,
        unsteered: &Effect,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Trial> {
        let mut hook = self.hook(arm, site, strength, &part.users)?;
        let mut guard = self.hook(arm, site, strength, &part.guarded)?;
        let effect = self.effect(part, &mut hook, &mut guard, on_progress)?;
        let limits = &self.file.guard;
        let guarded = effect.divergence.value <= limits.max_kl
            && effect.perplexity <= limits.max_perplexity * unsteered.perplexity
            && effect.repetition <= unsteered.repetition + limits.max_repetition;
        Ok(Trial { arm: arm.name.clone(), site, strength: strength.into(), effect, pareto: false, guarded })
    }

    /// What a hook does to the users, and another (the same, for other rows) to the guard's texts.
    fn effect(
        &self,
        part: &Part,
        hook: &mut dyn Hook,
        guard: &mut dyn Hook,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Effect> {
        let damages = damage(self.model, &part.texts, guard)?;
        let stage = if part.split == "test" {
            "try the picks on the test part"
        } else {
            "try on the validation part"
        };
        let (transcripts, scores) = scored(self.file, self.model, &part.users, hook, stage, on_progress)?;
        let wanted = self.file.goal.strategy.as_deref().unwrap_or("has a word");
        let users = part.users.len();
        let share = |count: usize| count as f64 / users as f64;
        let reached = scores.iter().filter(|score| score.strategy == wanted).count();
        let none = Interval { value: 0.0, low: 0.0, high: 0.0 };
        let units: Vec<Vec<usize>> = (0..damages.len()).map(|row| vec![row]).collect();
        let mean = |rows: &[usize]| {
            let places: usize = rows.iter().map(|&row| damages[row].places).sum();
            let divergence: f64 = rows.iter().map(|&row| damages[row].divergence).sum();
            (places > 0).then(|| divergence / places as f64)
        };
        let (surprise, tokens) = damages
            .iter()
            .fold((0.0, 0), |(sum, count), damage| (sum + damage.surprise, count + damage.tokens));
        Ok(Effect {
            response: wilson(reached, users).unwrap_or(none),
            users,
            broken: share(scores.iter().filter(|score| score.strategy == judge::BROKEN).count()),
            repetition: transcripts.iter().map(|transcript| repetition(&transcript.tokens)).sum::<f64>()
                / users as f64,
            divergence: bootstrap(&units, RESAMPLES, self.file.seed, mean).unwrap_or(none),
            perplexity: (surprise / tokens.max(1) as f64).exp(),
            texts: damages.len(),
        })
    }
}

fn figures(file: &SweepFile, found: &Found) -> Vec<Metric> {
    let mut figures = Vec::new();
    let mut add = |prefix: String, effect: &Effect, split: &str| {
        let plain = |name: &str, value: f64, n: usize| Metric {
            name: format!("{prefix}/{name}"),
            value,
            low: None,
            high: None,
            n,
            split: split.into(),
        };
        figures.push(Metric::new(format!("{prefix}/response"), effect.response, effect.users, split));
        figures.push(Metric::new(format!("{prefix}/kl"), effect.divergence, effect.texts, split));
        figures.push(plain("perplexity", effect.perplexity, effect.texts));
        figures.push(plain("broken", effect.broken, effect.users));
        figures.push(plain("repetition", effect.repetition, effect.users));
    };
    let slug = |name: &str| name.replace([' ', ',', '/'], "-");
    let held_out = format!("{} held out", file.data.group);
    for (name, effect) in &found.test {
        add(format!("sweep/{}", slug(name)), effect, &held_out);
    }
    add("sweep/validation/unsteered".into(), &found.unsteered, "validation");
    for trial in &found.trials {
        let name = format!("sweep/validation/{}/{}/{}", slug(&trial.arm), trial.site, trial.strength);
        add(name, &trial.effect, "validation");
    }
    figures
}
