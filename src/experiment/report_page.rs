//! The report of a run: its charts, its figures, and some dialogues before and after, on one page.

use super::boundary_stages::Shown;
use crate::analysis::cross_validation;
use crate::analysis::cross_validation::Crossed;
use crate::analysis::dataset::Dataset;
use crate::analysis::layer_sweep::Sweep;
use crate::analysis::metrics;
use crate::analysis::metrics::{headline, short};
use crate::analysis::steering_eval::{Answers, GATED, NONE, Stage, Steered};
use crate::boundary::{PearlMap, RiskMap};
use crate::config::experiment::Experiment;
use crate::error::Result;
use crate::generate::Transcript;
use crate::judge::{BROKEN, Score};
use crate::model::Model;
use crate::plots::charts;
use crate::report::pages::{Answer, Card, Section, Tag, Tone};
use crate::report::{Chart, Page, Results, Table};
use crate::stats::Metric;

/// What there is to show, in the order of the page.
#[derive(Default)]
pub struct Show {
    sections: Vec<Section>,
    /// File names of the charts, beside them.
    charts: Vec<(String, Chart)>,
}

/// Cards of dialogues on the page.
const CARDS: usize = 6;

impl Show {
    pub fn sweeps(&mut self, sweeps: &[Sweep]) -> Result<()> {
        if sweeps.is_empty() {
            return Ok(());
        }
        for sweep in sweeps {
            self.charts.push((format!("sweep-{}", sweep.label), charts::sweep(sweep)?));
        }
        self.section(
            "Read",
            "A linear probe at each block says what the model knows at the end of the prompt. It is fitted on some groups \
             of dialogues and tested on others; words and bigrams alone, and probes on shuffled labels, say how much of \
             that is in the words or in the method.",
        );
        Ok(())
    }

    /// A chart for each label that was cross-validated.
    pub fn crossed(&mut self, crossed: &[Crossed]) {
        let mut labels: Vec<&str> = crossed.iter().map(|one| one.label.as_str()).collect();
        labels.dedup();
        for label in &labels {
            let own: Vec<&Crossed> = crossed.iter().filter(|one| one.label == *label).collect();
            self.charts.push((format!("cross-{label}"), cross_validation::chart(label, &own)));
        }
        if !labels.is_empty() {
            self.section(
                "Doubt",
                "Every dialogue is scored by a probe that never saw it. Where whole kinds are held out and the score falls,                  part of it was what dialogues of one kind have in common.",
            );
        }
    }

    pub fn map(&mut self, map: &RiskMap) {
        self.charts.push(("risk-map".into(), charts::risk_map(map)));
        self.section(
            "Decide",
            "Where one kind of user ends and the next begins, in the model's own activations.",
        );
    }

    pub fn decided(&mut self, shown: Shown) {
        self.charts.extend(shown.charts);
        self.section(&shown.title, &shown.text);
    }

    pub fn steering(&mut self, stage: &Stage, steered: &Steered) {
        self.charts.push(("doses".into(), charts::doses(stage, steered)));
        self.charts.push(("rates".into(), charts::rates(stage, steered)));
        self.charts.push(("scores".into(), charts::scores(stage, steered)));
        let trial = &steered.trials[steered.chosen];
        let text = format!(
            "One vector ({}), added at {} with strength {} ({}), chosen on the validation part; switched on where the probe \
             of {} reads {} with more than {} at the end of the prompt: on {} of {} dialogues.",
            steered.vector.method,
            trial.site,
            trial.strength,
            stage.steering.tokens,
            stage.steering.probe,
            stage.steering.class,
            stage.steering.above,
            steered.switched.len(),
            stage.data.test.len(),
        );
        self.section("Steer", &text);
    }

    pub fn pearl(&mut self, stage: &Stage, steered: &Steered, pearl: &PearlMap) {
        self.charts.push(("pearl".into(), charts::pearl(stage, steered, pearl)));
        self.section(
            "The pearl point",
            "Highest satisfaction inside the safe boundary, and the way of one answer.",
        );
    }

    /// Some dialogues of the class that is steered, before and after.
    pub fn cards(&mut self, stage: &Stage, steered: &Steered) {
        let of =
            |name: &str| steered.test.iter().find(|(other, _)| *other == name).map(|(_, answers)| answers);
        let (Some(before), Some(after)) = (of(NONE), of(GATED)) else { return };
        let turned = metrics::turned(stage, steered);
        let mut rows: Vec<usize> = (0..before.numbers.len()).collect();
        // The one whose way the pearl map shows, then others that the probe switched steering on for, then the rest.
        rows.sort_by_key(|&row| {
            let number = before.numbers[row];
            (Some(number) != turned, !steered.switched.contains(&number))
        });
        let half = steered.switched.len().min(CARDS / 2);
        let rows = rows[..half].iter().chain(&rows[steered.switched.len()..]).copied();
        let cards = rows.take(CARDS).map(|row| {
            let dialogue = &stage.data.dialogues[before.numbers[row]];
            let label = |name: &str| dialogue.label(name).map(|value| Tag::new(value, Tone::Plain));
            Card {
                id: dialogue.id.clone(),
                tags: [&stage.steering.probe, &stage.experiment.data.group]
                    .iter()
                    .filter_map(|name| label(name))
                    .collect(),
                prompt: dialogue
                    .messages
                    .iter()
                    .map(|m| format!("{}: {}", m.role.name(), m.content))
                    .collect::<Vec<_>>()
                    .join("\n"),
                answers: [(NONE, before), (GATED, after)]
                    .map(|(name, answers)| answer(name, answers, row))
                    .into(),
            }
        });
        let cards = cards.collect();
        self.section("Dialogues", "Sampled at temperature 1; the thinking part is folded.");
        if let Some(section) = self.sections.last_mut() {
            section.cards = cards;
        }
    }

    /// Opens a section with the charts that no section has yet.
    fn section(&mut self, title: &str, text: &str) {
        let shown: usize = self.sections.iter().map(|section| section.charts.len()).sum();
        let charts = self.charts[shown..].iter().map(|(_, chart)| chart.clone()).collect();
        self.sections.push(Section { title: title.into(), text: text.into(), charts, ..Section::default() });
    }

    /// The charts with the names of their files.
    pub fn charts(&self) -> impl Iterator<Item = (&str, &Chart)> {
        self.charts.iter().map(|(name, chart)| (name.as_str(), chart))
    }

    pub fn page(self, experiment: &Experiment, model: &Model, data: &Dataset, results: &Results) -> Page {
        let facts = [
            ("experiment", experiment.name.clone()),
            ("model", model.name.clone()),
            ("seed", experiment.seed.to_string()),
            ("dialogues", format!("{} ({})", data.dialogues.len(), data.source)),
            (
                "fit, validation, test",
                format!("{}, {}, {}", data.fit.len(), data.validation.len(), data.test.len()),
            ),
        ];
        let shown: Vec<Metric> = results.figures.iter().filter(|figure| headline(figure)).cloned().collect();
        let mut sections = self.sections;
        sections.push(Section {
            title: "Figures".into(),
            text: "With 95 % intervals; every figure of the run is in results.json.".into(),
            tables: vec![Table::of_figures("", &shown)],
            ..Section::default()
        });
        Page {
            title: format!("{}: read, decide, steer", experiment.name),
            lead:
                "Hidden states read by probes, a boundary drawn through them, and answers steered across it."
                    .into(),
            facts: facts.map(|(name, value)| (name.to_string(), value)).into(),
            sections,
        }
    }
}

fn answer(name: &str, answers: &Answers, row: usize) -> Answer {
    let (transcript, score): (&Transcript, &Score) = (&answers.transcripts[row], &answers.scores[row]);
    let (thinking, text) = match transcript.text.split_once("</think>") {
        Some((thinking, text)) => (Some(thinking.trim().to_string()), text.trim()),
        None => (None, transcript.text.as_str()),
    };
    let tone = match score.constructive(1.0) {
        _ if score.strategy == BROKEN => Tone::Bad,
        score if score >= 0.6 => Tone::Good,
        score if score >= 0.0 => Tone::Middling,
        _ => Tone::Bad,
    };
    Answer {
        name: short(name).into(),
        tags: vec![Tag::new(score.strategy.clone(), tone)],
        thinking: thinking.filter(|thinking| !thinking.is_empty()),
        text: text.into(),
    }
}
