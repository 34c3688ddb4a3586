//! Evaluation of a policy: an experiment file in; the policy, the answers of each arm to users that nothing was fitted on, and their
//! constructive scores side by side out.

use std::path::Path;

use super::decision::{Ablation, Decision};
use super::dose::DoseOptions;
use super::fit::{FitOptions, fit};
use super::policy::Policy;
use crate::analysis::answers::Answers;
use crate::analysis::constructive_score::{JudgedAnswer, ScoreLabels, ScoreTable, score_systems};
use crate::analysis::dataset::Dataset;
use crate::analysis::game_estimate::EstimateOptions;
use crate::artifact::{self, FolderLock, Header};
use crate::config::constructive::UNSTEERED;
use crate::config::defaults::BATCH_ROWS;
use crate::config::{ConstructiveFile, Data, PolicyArm};
use crate::dialogue::{Dialogue, Dialogues};
use crate::error::{Error, Result};
use crate::game::Game;
use crate::generate::{GenerateOptions, Sampling, Transcript, generate};
use crate::judge::{self, Scorer};
use crate::model::{Chain, Hook, Model};
use crate::plots;
use crate::progress::Progress;
use crate::report;
use crate::steer::Plan;

/// Runs an experiment into a folder: `policy/`, `answers-ARM.jsonl`, `scores.json`, and C(β) as a chart.
///
/// # Errors
/// A judge that can't judge the data; an arm that names what the policy lacks; data without test users; a stop.
pub fn evaluate(
    file: &ConstructiveFile,
    text: &str,
    model: &Model,
    out: &Path,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<ScoreTable> {
    let judge = judge::of_file(file.judge.as_deref(), &judge::Options::default(), &model.name)?;
    judge.check_model(Some(model))?;
    let ablations = file.arms.iter().map(ablations).collect::<Result<Vec<_>>>()?;
    let options = fit_options(file)?;
    let data = Dataset::load(&file.data, file.seed)?;
    let test: Vec<Dialogue> = data.test.iter().map(|&number| data.dialogues[number].clone()).collect();
    if test.is_empty() {
        return Err(Error::input(&data.source, "no test part", "held-out values of the group's label"));
    }
    judge::check_dialogues(judge.as_ref(), &test)?;
    let labels = score_labels(file, &options);
    let fitted: Vec<Dialogue> =
        data.fit.iter().chain(&data.validation).map(|&number| data.dialogues[number].clone()).collect();
    let fitted = Dialogues::new(&data.source, fitted)?;
    let _lock = FolderLock::take(out)?;
    artifact::write_text(&out.join("experiment.toml"), text)?;
    let policy = fit(model, &fitted, judge.as_ref(), &options, on_progress)?;
    policy.save(&out.join("policy"))?;
    for (arm, own) in file.arms.iter().zip(&ablations) {
        check_arm(arm, own, &policy)?;
    }
    let answering = Evaluated { file, model, judge: judge.as_ref(), policy: &policy, test: &test, out };
    let alone =
        PolicyArm { name: UNSTEERED.into(), without: Vec::new(), always: None, random: false, system: None };
    let mut systems = vec![answering.answer(&alone, None, on_progress)?];
    for (arm, own) in file.arms.iter().zip(&ablations) {
        systems.push(answering.answer(arm, Some(own), on_progress)?);
    }
    let table = score_systems(judge.name(), &systems, &labels, file.seed)?;
    let header = Header {
        model: Some(model.name.clone()),
        model_hash: Some(model.hash.clone()),
        data_hash: Some(data.hash.clone()),
        seed: Some(file.seed),
        ..Header::new("constructive-score", 1)
    };
    artifact::write_json(&out.join("scores.json"), &header, &table)?;
    for part in table.parts.iter().filter(|part| !part.systems[0].constructive.is_empty()) {
        let chart = serde_json::to_string(&plots::constructive_score::chart(part))
            .map_err(|error| Error::input("scores", error, "a chart that JSON can hold"))?;
        artifact::write_text(
            &out.join(format!("scores-{}.chart.json", part.name.replace(' ', "-"))),
            &chart,
        )?;
    }
    report::draw_all(out)?;
    Ok(table)
}

/// The parts that an arm takes away.
fn ablations(arm: &PolicyArm) -> Result<Vec<Ablation>> {
    arm.without.iter().map(|name| name.parse()).collect()
}

fn check_arm(arm: &PolicyArm, ablations: &[Ablation], policy: &Policy) -> Result<()> {
    if let Some(action) = arm.always.as_ref().filter(|action| !policy.game.actions.contains(action)) {
        let expected = policy.game.actions.join(", ");
        return Err(Error::input(format!("arm {:?}, always", arm.name), format!("{action:?}"), expected));
    }
    // A random direction has no face of its own.
    if arm.random && ablations.contains(&Ablation::Face) {
        return Err(Error::input(format!("arm {:?}", arm.name), "random, without the face", "random alone"));
    }
    Ok(())
}

/// The options of the fit.
fn fit_options(file: &ConstructiveFile) -> Result<FitOptions> {
    let default = FitOptions::default();
    let own = &file.fit;
    let or = |given: &Option<String>, default: String| given.clone().unwrap_or(default);
    let Data { group, validation, held_out, .. } = &file.data;
    let further =
        file.held_out.iter().flat_map(|(label, values)| values.iter().map(move |value| (label, value)));
    let held_out = held_out.iter().map(|value| (group, value)).chain(further);
    Ok(FitOptions {
        label: or(&own.label, default.label),
        attack: or(&own.attack, default.attack),
        risk: or(&own.risk, default.risk),
        group: group.clone(),
        held_out: held_out.map(|(label, value)| (label.clone(), value.clone())).collect(),
        validation: validation.clone(),
        read_sites: or(&own.read_sites, default.read_sites),
        tokens: or(&own.tokens, default.tokens),
        sites: or(&own.sites, default.sites),
        strategies: match own.strategies.is_empty() {
            true => default.strategies,
            false => own.strategies.clone(),
        },
        game: own.game.as_deref().map(Game::load).transpose()?,
        estimate: EstimateOptions { users: own.users.unwrap_or(default.estimate.users), ..default.estimate },
        dose: DoseOptions {
            max_strength: own.max_strength.unwrap_or(default.dose.max_strength),
            answers: own.dose_answers.unwrap_or(default.dose.answers),
            ..default.dose
        },
        thinking: file.thinking,
        max_tokens: file.max_tokens,
        seed: file.seed,
        ..default
    })
}

fn score_labels(file: &ConstructiveFile, options: &FitOptions) -> ScoreLabels {
    let default = ScoreLabels::default();
    let further =
        file.held_out.iter().flat_map(|(label, values)| values.iter().map(move |value| (label, value)));
    ScoreLabels {
        benign: (options.label.clone(), file.fit.benign.clone().unwrap_or(default.benign.1)),
        attack: (options.label.clone(), options.attack.clone()),
        disguise: file.fit.disguise.clone().unwrap_or(default.disguise),
        group: options.group.clone(),
        held_out: further.map(|(label, value)| (label.clone(), value.clone())).collect(),
    }
}

/// What arms answer, with what, and where their answers go.
struct Evaluated<'a> {
    file: &'a ConstructiveFile,
    model: &'a Model,
    judge: &'a dyn Scorer,
    policy: &'a Policy,
    test: &'a [Dialogue],
    out: &'a Path,
}

impl Evaluated<'_> {
    /// The judged answers of an arm, saved with their decisions. `ablations`: none for the model alone.
    fn answer(
        &self,
        arm: &PolicyArm,
        ablations: Option<&Vec<Ablation>>,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(String, Vec<JudgedAnswer>)> {
        let mut dialogues = self.test.to_vec();
        if let Some(text) = &arm.system {
            dialogues = dialogues.into_iter().map(|dialogue| dialogue.with_instruction(text)).collect();
        }
        let (decisions, plan) = match ablations {
            Some(ablations) if arm.system.is_none() => self.decide(arm, ablations)?,
            _ => (Vec::new(), Plan::default()),
        };
        let options = GenerateOptions {
            sampling: Sampling::Temperature(1.0),
            max_tokens: self.file.max_tokens,
            seed: self.file.seed,
            thinking: self.file.thinking,
            batch_rows: BATCH_ROWS,
            ..GenerateOptions::default()
        };
        let mut hooks = plan.hooks(self.model, &dialogues, self.file.thinking)?;
        let mut chain = Chain(hooks.iter_mut().map(|hook| hook as &mut dyn Hook).collect());
        let total = dialogues.len();
        let mut on_done = |done| on_progress(Progress { stage: "answer held-out users", done, total });
        let mut transcripts = generate(self.model, &dialogues, &options, &mut chain, &mut on_done)?;
        for (transcript, decision) in transcripts.iter_mut().zip(&decisions) {
            transcript.decision = Some(decision.to_json()?);
        }
        let judged = self.judged(&transcripts)?;
        let answers = Answers {
            numbers: (0..transcripts.len()).collect(),
            scores: judged.iter().map(|answer| answer.score.clone()).collect(),
            transcripts,
        };
        let name = format!("answers-{}.jsonl", artifact::foreign_name(&arm.name));
        artifact::write_text(&self.out.join(name), &answers.to_jsonl()?)?;
        Ok((arm.name.clone(), judged))
    }

    fn judged(&self, transcripts: &[Transcript]) -> Result<Vec<JudgedAnswer>> {
        let judged = |(dialogue, transcript): (&Dialogue, &Transcript)| {
            JudgedAnswer::new(self.judge, dialogue.clone(), transcript)
        };
        self.test.iter().zip(transcripts).map(judged).collect()
    }

    fn decide(&self, arm: &PolicyArm, ablations: &[Ablation]) -> Result<(Vec<Decision>, Plan)> {
        let mut decisions = self.policy.decide(self.model, self.test, ablations, self.file.seed)?;
        if let Some(action) = &arm.always {
            decisions.iter_mut().for_each(|decision| decision.force(action));
        }
        let random;
        let policy = match arm.random {
            true => {
                random = self.policy.with_random_directions(self.file.seed);
                &random
            }
            false => self.policy,
        };
        let plan = policy.plan(&decisions, ablations)?;
        Ok((decisions, plan))
    }
}
