//! The report page of a run: its charts, its metrics, and some dialogues before and after steering.

use super::boundary_stages::StageSection;
use crate::analysis::answers::Answers;
use crate::analysis::cross_validation::CrossValidated;
use crate::analysis::dataset::Dataset;
use crate::analysis::layer_sweep::Sweep;
use crate::analysis::null_test::NullTest;
use crate::analysis::pearl_map::SitePearlMap;
use crate::analysis::steering_eval::{Evaluation, GATED, NONE, Steered, short};
use crate::analysis::steering_table::SteeringTable;
use crate::boundary::RiskMap;
use crate::config::Experiment;
use crate::error::Result;
use crate::generate::Transcript;
use crate::judge::{BROKEN, Score};
use crate::model::Model;
use crate::plots;
use crate::plots::null_test::NullTable;
use crate::report::pages::{Answer, Card, Section, Tag, Tone};
use crate::report::{Chart, Page, Results, Table};
use crate::stats::Metric;

/// The page's sections and charts, in the order of the page.
#[derive(Default)]
pub(super) struct ReportPage {
    sections: Vec<Section>,
    /// File names of the charts, beside them.
    charts: Vec<(String, Chart)>,
}

/// Cards of dialogues on the page: more would be scrolled past.
const CARDS: usize = 6;

impl ReportPage {
    pub(super) fn sweeps(&mut self, sweeps: &[Sweep]) -> Result<()> {
        if sweeps.is_empty() {
            return Ok(());
        }
        for sweep in sweeps {
            let chart = plots::layer_sweep::chart(&sweep.table()?);
            self.charts.push((format!("sweep-{}", sweep.label), chart));
        }
        self.section(
            "Read",
            "Linear probes, one at each site, fitted on some groups of dialogues and tested on others. Words and bigrams \
             alone show how much of a score is in the words; probes on shuffled labels, how much is in the method.",
        );
        Ok(())
    }

    /// A chart for each label that was cross-validated.
    pub(super) fn cross_validations(&mut self, crossed: &[CrossValidated]) {
        let mut labels: Vec<&str> = crossed.iter().map(|one| one.label.as_str()).collect();
        labels.dedup();
        for label in &labels {
            let own: Vec<CrossValidated> =
                crossed.iter().filter(|one| one.label == *label).cloned().collect();
            self.charts.push((format!("cross-{label}"), plots::cross_validation::chart(&own)));
        }
        if !labels.is_empty() {
            self.section(
                "Cross-validation",
                "Every dialogue is scored by a probe that never saw it. A lower score where whole kinds are held out means \
                 that part of it came from what dialogues of one kind have in common.",
            );
        }
    }

    pub(super) fn map(&mut self, map: &RiskMap) {
        self.charts.push(("risk-map".into(), plots::risk_map::chart(map)));
        self.section(
            "Decide",
            &format!("The boundary between values of {}, in the model's activations.", map.label),
        );
    }

    pub(super) fn stage(&mut self, stage: StageSection) {
        self.charts.extend(stage.charts);
        self.section(&stage.title, &stage.text);
    }

    pub(super) fn steering(&mut self, evaluation: &Evaluation, steered: &Steered, table: &SteeringTable) {
        self.charts.push(("doses".into(), plots::dose_response::chart(table)));
        self.charts.push(("rates".into(), plots::rates::chart(table)));
        if table.conditions.iter().any(|condition| !condition.scores.is_empty()) {
            self.charts.push(("scores".into(), plots::safe_and_satisfied::chart(table)));
        }
        let (trial, steering) = (&steered.trials[steered.chosen], evaluation.steering);
        let text = format!(
            "One vector ({}), added at {} with strength {} ({}), chosen on the validation part. Steering is switched on where \
             the probe of {} reads {} with more than {} at the end of the prompt: on {} of {} dialogues.",
            steered.vector.method,
            trial.site,
            trial.strength,
            steering.tokens,
            steering.probe,
            steering.class,
            steering.above,
            steered.switched.len(),
            evaluation.data.test.len(),
        );
        if !table.nulls.is_empty() {
            self.charts.push((
                "nulls".into(),
                plots::null_test::chart(&NullTable {
                    class: table.class.clone(),
                    to: table.to.clone(),
                    nulls: table.nulls.clone(),
                }),
            ));
        }
        self.section("Steer", &text);
        if let Some(section) = self.sections.last_mut() {
            section.notes = table.doubts().into_iter().map(|doubt| format!("Doubt: {doubt}")).collect();
            section.notes.extend(table.nulls.iter().map(NullTest::in_words));
        }
    }

    pub(super) fn pearl(&mut self, map: &SitePearlMap) {
        self.charts.push(("pearl".into(), plots::pearl_map::chart(map)));
        self.section(
            "The pearl point",
            "Where the lower confidence bound of satisfaction is highest, among the points whose risk is safe by its upper bound. \
             The dashed region is where it lies when the answers are drawn again; a star is drawn only where that is small. One \
             answer is shown before and after steering.",
        );
    }

    /// Some dialogues of the class that is steered, before and after.
    pub(super) fn cards(&mut self, evaluation: &Evaluation, steered: &Steered) {
        let under =
            |name: &str| steered.test.iter().find(|(other, _)| *other == name).map(|(_, answers)| answers);
        let (Some(before), Some(after)) = (under(NONE), under(GATED)) else { return };
        let turned = evaluation.turned(steered);
        let mut rows: Vec<usize> = (0..before.numbers.len()).collect();
        // First the one that the pearl map shows, then others for which the probe switched steering on, then the rest.
        rows.sort_by_key(|&row| {
            let number = before.numbers[row];
            (Some(number) != turned, !steered.switched.contains(&number))
        });
        let half = steered.switched.len().min(CARDS / 2);
        let rows = rows[..half].iter().chain(&rows[steered.switched.len()..]).copied();
        let cards = rows.take(CARDS).map(|row| {
            let dialogue = &evaluation.data.dialogues[before.numbers[row]];
            let label = |name: &str| dialogue.label(name).map(|value| Tag::new(value, Tone::Plain));
            Card {
                id: dialogue.id.clone(),
                tags: [&evaluation.steering.probe, &evaluation.experiment.data.group]
                    .iter()
                    .filter_map(|name| label(name))
                    .collect(),
                prompt: dialogue
                    .messages
                    .iter()
                    .map(|m| format!("{}: {}", m.role_name(), m.content))
                    .collect::<Vec<_>>()
                    .join("\n"),
                answers: [(NONE, before), (GATED, after)]
                    .map(|(name, answers)| answer(name, answers, row))
                    .into(),
            }
        });
        let cards = cards.collect();
        self.section("Dialogues", "Answers sampled at temperature 1; the thinking part is folded.");
        if let Some(section) = self.sections.last_mut() {
            section.cards = cards;
        }
    }

    /// Dialogues with their answers.
    pub(super) fn answers(&mut self, cards: Vec<Card>) {
        self.section("Dialogues", "Greedy answers by strength.");
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
    pub(super) fn charts(&self) -> impl Iterator<Item = (&str, &Chart)> {
        self.charts.iter().map(|(name, chart)| (name.as_str(), chart))
    }

    pub(super) fn page(
        self,
        experiment: &Experiment,
        model: &Model,
        data: &Dataset,
        results: &Results,
    ) -> Page {
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
            title: "Metrics".into(),
            text: "With 95 % intervals; every metric of the run is in results.json.".into(),
            tables: vec![Table::of_figures("", &shown)],
            ..Section::default()
        });
        let (words, lead) = stages(experiment);
        Page {
            title: format!("{}: {words}", experiment.name),
            lead,
            facts: facts.map(|(name, value)| (name.to_string(), value)).into(),
            sections,
        }
    }
}

/// The stages that an experiment names, in words for a title and in a sentence.
fn stages(experiment: &Experiment) -> (String, String) {
    let reads = !experiment.probes.is_empty() || !experiment.cross_validations.is_empty();
    let decides = experiment.boundary.is_some()
        || experiment.boundary_report.is_some()
        || !experiment.interpolations.is_empty();
    let steers = experiment.steer.is_some() || experiment.dose.is_some();
    let all = [
        (reads, "read", "hidden states read by probes"),
        (decides, "decide", "the boundary between their classes"),
        (steers, "steer", if decides { "answers steered across it" } else { "answers steered" }),
    ];
    let run: Vec<_> = all.into_iter().filter(|(runs, ..)| *runs).collect();
    let words: Vec<&str> = run.iter().map(|(_, word, _)| *word).collect();
    let parts: Vec<&str> = run.iter().map(|(.., part)| *part).collect();
    let sentence = match parts.as_slice() {
        [] => "activations".to_owned(),
        [one] => (*one).to_owned(),
        [one, two] => format!("{one}, and {two}"),
        [first @ .., last] => format!("{}, and {last}", first.join(", ")),
    };
    let words = if words.is_empty() { "activations".to_owned() } else { words.join(", ") };
    (words, format!("{}{}.", sentence[..1].to_uppercase(), &sentence[1..]))
}

fn answer(name: &str, answers: &Answers, row: usize) -> Answer {
    let (transcript, score): (&Transcript, &Score) = (&answers.transcripts[row], &answers.scores[row]);
    let (thinking, text) = match transcript.text.split_once("</think>") {
        Some((thinking, text)) => (Some(thinking.trim().to_string()), text.trim()),
        None => (None, transcript.text.as_str()),
    };
    let tone = match score.constructive(1.0) {
        _ if score.strategy == BROKEN => Tone::Bad,
        None => Tone::Plain,
        Some(worth) if worth >= 0.6 => Tone::Good,
        Some(worth) if worth >= 0.0 => Tone::Middling,
        Some(_) => Tone::Bad,
    };
    Answer {
        name: short(name).into(),
        tags: vec![Tag::new(score.strategy.clone(), tone)],
        thinking: thinking.filter(|thinking| !thinking.is_empty()),
        text: text.into(),
    }
}

/// Whether a metric belongs in a short table; the others are in `results.json`.
pub fn headline(figure: &Metric) -> bool {
    let details = ["average_precision", "log_loss", "brier", "auroc/"];
    !details.iter().any(|detail| figure.name.contains(detail))
}
