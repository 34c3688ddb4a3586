//! The dose–response stage: the vector between two classes, and answers to dialogues of the test part at several strengths of it.

use std::path::Path;

use super::boundary_stages::StageSection;
use super::paths;
use crate::activations::{Activations, Labelled};
use crate::analysis::answers::{Answering, Answers};
use crate::analysis::dataset::Dataset;
use crate::analysis::dose_curve::DoseCurve;
use crate::analysis::layer_sweep::Sweep;
use crate::artifact::{self, Header};
use crate::config::Experiment;
use crate::config::experiment::DoseResponse;
use crate::dialogue::{self, Dialogues};
use crate::error::{Error, Result};
use crate::generate::Sampling;
use crate::judge::{self, BROKEN, Scorer};
use crate::model::{Chain, Hook, Model};
use crate::plots;
use crate::progress::Progress;
use crate::report::pages::{Answer, Card, Tag, Tone};
use crate::stats::Metric;
use crate::steer::{Plan, Vector};

/// Dialogues that the page shows.
const CARDS: usize = 4;

/// What the stage works with.
pub(super) struct DoseStage<'a> {
    pub experiment: &'a Experiment,
    pub file: &'a DoseResponse,
    pub model: &'a Model,
    pub data: &'a Dataset,
    pub judge: &'a dyn Scorer,
}

impl DoseStage<'_> {
    /// Checks the probe, the classes and the dialogues, before any work begins.
    ///
    /// # Errors
    /// A probe that the experiment lacks; a class that no dialogue of the fit part has; no test part; a dialogue that can't be judged.
    pub fn check(&self) -> Result<()> {
        let DoseStage { experiment, file, data, judge, .. } = self;
        if !experiment.probes.iter().any(|probe| probe.label == file.probe) {
            let labels: Vec<&str> = experiment.probes.iter().map(|probe| probe.label.as_str()).collect();
            return Err(Error::input("dose, probe", format!("{:?}", file.probe), labels.join(" or ")));
        }
        let fit = || data.fit.iter().map(|&number| &data.dialogues[number]);
        for (place, class) in [("dose, from", &file.from), ("dose, to", &file.to)] {
            dialogue::check_value(place, fit(), &file.probe, class)?;
        }
        let numbers = self.numbers()?;
        judge::check_dialogues(*judge, numbers.iter().map(|&number| &data.dialogues[number]))
    }

    /// Makes the vector, answers, saves vector, answers and table, and gives the page's section with cards of some dialogues.
    ///
    /// # Errors
    /// A class that the probe lacks, or has no row in a part; no test part; a dialogue that can't be answered or judged; a stop.
    pub fn run(
        &self,
        sweep: &Sweep,
        activations: &Activations,
        (out, header): (&Path, &Header),
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(StageSection, Vec<Card>)> {
        let DoseStage { experiment, file, model, data, judge } = self;
        let kind = |kind: &str| Header { kind: kind.into(), version: 1, ..header.clone() };
        let site = sweep.best().0;
        let vector = self.vector(sweep, activations, header)?;
        let path = paths::vector(out, &format!("{}-to-{}", file.from, file.to));
        let of_model = Header { model_form: model.form().ok(), ..kind("vector") };
        vector.save(&path, of_model)?;
        let numbers = self.numbers()?;
        let answering = Answering {
            model,
            judge: *judge,
            sampling: Sampling::Greedy,
            max_tokens: file.max_tokens,
            seed: experiment.seed,
            thinking: experiment.thinking,
        };
        let dialogues: Vec<_> = numbers.iter().map(|&number| data.dialogues[number].clone()).collect();
        let mut answered: Vec<(String, Answers)> = Vec::new();
        for strength in &file.strengths {
            let plan = Plan::add(vector.clone(), &site.to_string(), strength)?;
            let mut hooks = plan.hooks(model, &dialogues, experiment.thinking)?;
            let mut chain = Chain(hooks.iter_mut().map(|hook| hook as &mut dyn Hook).collect());
            let answers =
                answering.answer(&data.dialogues, &numbers, &mut chain, "answer by strength", on_progress)?;
            let place = paths::transcript(out, &format!("dose-{strength}"));
            artifact::write_text(&place, &answers.to_jsonl()?)?;
            answered.push((strength.clone(), answers));
        }
        let outcomes: Vec<(String, Vec<String>)> = answered
            .iter()
            .map(|(strength, own)| {
                (strength.clone(), own.scores.iter().map(|score| score.strategy.clone()).collect())
            })
            .collect();
        let curve = DoseCurve::new(&vector.method, site, *judge, &outcomes);
        artifact::write_json(&out.join("dose.json"), &kind("dose-curve"), &curve)?;
        let text = format!(
            "The vector from the mean state of {} to that of {} dialogues of the fit part, added at {site} at every token; greedy answers to {} \
             dialogues of the test part at each strength. A curve shows what the vector does, not that it does more than a random one: \
             compare it by `pearl steer-sweep`.",
            file.from,
            file.to,
            numbers.len()
        );
        let section = StageSection {
            title: "Steer".into(),
            text,
            charts: vec![("doses".into(), plots::dose_curve::chart(&curve))],
            figures: figures(&curve),
        };
        Ok((section, self.cards(&numbers, &answered)))
    }

    /// The difference of the class means at the probe's best site, of the fit part alone.
    fn vector(&self, sweep: &Sweep, activations: &Activations, header: &Header) -> Result<Vector> {
        let DoseStage { experiment, file, data, .. } = self;
        let site = sweep.best().0;
        let all = Dialogues::new(&data.source, data.dialogues.clone())?;
        let own = Activations {
            sites: vec![(site, activations.at(site)?.clone())],
            example: activations.example.clone(),
            position: activations.position.clone(),
            tokens: activations.tokens,
        };
        let states = Labelled::new(header.clone(), experiment.read.tokens.clone(), own, all)?;
        let contrast = states.contrast(&sweep.label, &file.from, &file.to);
        let held_out = experiment.data.held_out.iter().chain(&experiment.data.validation).cloned();
        Ok(contrast.group(&experiment.data.group).hold_out(held_out).build()?.0)
    }

    /// The first dialogues of the test part of every class in turn.
    fn numbers(&self) -> Result<Vec<usize>> {
        let DoseStage { file, data, .. } = self;
        let labels = data.labels(&file.probe)?;
        let mut by_class: Vec<(&str, Vec<usize>)> = Vec::new();
        for &number in &data.test {
            match by_class.iter_mut().find(|(class, _)| *class == labels[number]) {
                Some((_, own)) => own.push(number),
                None => by_class.push((&labels[number], vec![number])),
            }
        }
        let longest = by_class.iter().map(|(_, own)| own.len()).max().unwrap_or(0);
        let turns = (0..longest).flat_map(|turn| by_class.iter().filter_map(move |(_, own)| own.get(turn)));
        let mut numbers: Vec<usize> = turns.copied().take(file.answers).collect();
        numbers.sort_unstable();
        match numbers.is_empty() {
            true => {
                Err(Error::input("dose", "no dialogue in the test part", "held-out groups or held-out-share"))
            }
            false => Ok(numbers),
        }
    }

    /// Some dialogues with their answers at the least strength, at none, and at the greatest.
    fn cards(&self, numbers: &[usize], answered: &[(String, Answers)]) -> Vec<Card> {
        let ends = [0, answered.len() / 2, answered.len().saturating_sub(1)];
        let card = |row: usize| {
            let dialogue = &self.data.dialogues[numbers[row]];
            let tags = [&self.file.probe, &self.experiment.data.group];
            let prompt: Vec<String> =
                dialogue.messages.iter().map(|one| format!("{}: {}", one.role_name(), one.content)).collect();
            let answer = |(strength, own): &(String, Answers)| {
                let outcome = own.scores[row].strategy.clone();
                let tone = if outcome == BROKEN { Tone::Bad } else { Tone::Plain };
                Answer {
                    name: strength.clone(),
                    tags: vec![Tag::new(outcome, tone)],
                    thinking: None,
                    text: own.transcripts[row].text.clone(),
                }
            };
            let mut shown: Vec<usize> = ends.to_vec();
            shown.dedup();
            Card {
                id: dialogue.id.clone(),
                tags: tags
                    .iter()
                    .filter_map(|name| Some(Tag::new(dialogue.label(name)?, Tone::Plain)))
                    .collect(),
                prompt: prompt.join("\n"),
                answers: shown.into_iter().filter_map(|place| Some(answer(answered.get(place)?))).collect(),
            }
        };
        let step = numbers.len().div_ceil(CARDS).max(1);
        (0..numbers.len()).step_by(step).map(card).collect()
    }
}

/// The curve's shares as metrics, `dose/STRENGTH/OUTCOME`.
fn figures(curve: &DoseCurve) -> Vec<Metric> {
    let mut figures = Vec::new();
    for dose in &curve.doses {
        for (outcome, share) in curve.outcomes.iter().zip(&dose.shares) {
            let name = format!("dose/{}/{outcome}", dose.strength);
            figures.extend(share.map(|share| Metric::new(name, share, dose.n, "test")));
        }
    }
    figures
}
