//! The runner of a steering grid: a file to a folder with its results, answers, charts and page.

use std::path::Path;

use super::chart_file::save_chart;
use super::paths;
use crate::analysis::dataset::Dataset;
use crate::analysis::kept_trials::KeptTrials;
use crate::analysis::null_test::Spread;
use crate::analysis::steering_effect::Effect;
use crate::analysis::steering_grid::{ControlArm, Found, Grid};
use crate::artifact::{self, FolderLock, Header};
use crate::config::SteeringGrid;
use crate::error::{Error, Result};
use crate::judge::{self, Scorer, Words};
use crate::model::{Model, Site};
use crate::plots::grid_response::{self, GridTable, Quantity, goal};
use crate::plots::null_test::{self, NullTable};
use crate::plots::pareto::{self, ParetoTable};
use crate::progress::Progress;
use crate::report::table::Column;
use crate::report::{self, Chart, Page, Results, Section, Table};
use crate::stats::Interval;

/// Folder of finished trials in that of the results, until the run is whole.
pub const TRIALS: &str = "trials";

/// Runs a grid into a folder. `text` is its file's own text, kept beside the results; `on_progress` stops the run by giving
/// false.
///
/// # Errors
/// A judge that can't judge the data or the goal, before any work begins; an arm that can't be applied; a stop.
pub fn run(
    file: &SteeringGrid,
    text: &str,
    model: &Model,
    out: &Path,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<(Found, Results)> {
    paths::check_grid(file)?;
    let data = match file.is_fitted() {
        true => Dataset::load(&file.data, file.seed)?,
        false => Dataset::load_without_fit(&file.data, file.seed)?,
    };
    let judge = judge_of(file, model)?;
    let kept = kept_trials(file, text, model, &data, out)?;
    let grid = Grid { file, model, data: &data, judge: judge.as_ref(), kept: &kept };
    grid.check()?;
    let header = |kind: &str| Header {
        model: Some(model.name.clone()),
        model_hash: Some(model.hash.clone()),
        model_form: model.form().ok(),
        data_hash: Some(data.hash.clone()),
        seed: Some(file.seed),
        ..Header::new(kind, 1)
    };
    let _lock = FolderLock::take(out)?;
    artifact::write_text(&out.join("sweep.toml"), text)?;
    let mut fitted = grid.fit(&header("activations"), on_progress)?;
    for (name, site, probe) in &fitted.probes {
        probe.save(&paths::probe_at(out, name, *site))?;
    }
    fitted.vector.save(&paths::vector(out, "sweep"), header("vector"))?;

    let evaluated = grid.evaluate(&fitted, on_progress)?;
    let fit = fitted.answers.iter().map(|answers| ("fit", answers));
    let rest = evaluated.answers.iter().map(|(name, answers)| (name.as_str(), answers));
    for (name, answers) in fit.chain(rest) {
        artifact::write_text(&paths::transcript(out, name), &answers.to_jsonl()?)?;
    }
    let found = evaluated.found;
    if let Some(Some(trial)) =
        found.picked.first().map(|(_, pick)| pick.and_then(|pick| found.trials.get(pick)))
    {
        fitted.vector.best = Some(trial.site);
        fitted.vector.save(&paths::vector(out, "sweep"), header("vector"))?;
    }
    artifact::write_json(&out.join("sweep.json"), &header("sweep"), &found)?;
    let results = Results::new(&file.name, &model.name, file.seed, found.metrics(file));
    let results = results.doubting(found.doubts(file));
    let charts = charts(file, &found);
    for (name, chart) in &charts {
        save_chart(out, name, chart)?;
    }
    report::draw_all(out)?;
    report::write(&page(file, model, &data, &found, &charts), &out.join("report.html"))?;
    // Last, so that a folder with results is whole.
    results.write(&out.join("results.json"))?;
    let trials = out.join(TRIALS);
    if trials.exists() {
        std::fs::remove_dir_all(&trials).map_err(Error::file(&trials))?;
    }
    Ok((found, results))
}

/// Trials that an earlier run of the same grid left: of the same text, model, template and day, dialogues and vector.
fn kept_trials(
    file: &SteeringGrid,
    text: &str,
    model: &Model,
    data: &Dataset,
    out: &Path,
) -> Result<KeptTrials> {
    let vector = file.vector.file.as_deref().map(artifact::sha256_file).transpose()?;
    let date = model.chat.date().map(|date| date.to_string());
    let weights = (&model.hash, &model.dtype);
    let run = (text, weights, model.chat.template(), date, &data.hash, vector);
    let run =
        serde_json::to_vec(&run).map_err(|problem| Error::input("trials", problem, "what JSON can hold"))?;
    Ok(KeptTrials::new(out.join(TRIALS), artifact::sha256(&run)))
}

fn judge_of(file: &SteeringGrid, model: &Model) -> Result<Box<dyn Scorer>> {
    match file.goal.words.as_slice() {
        [] => judge::of_file(file.judge.as_deref(), &file.judge_options(), &model.name),
        words => Ok(Box::new(Words::new(words)?)),
    }
}

/// Charts by their files' names: response and damage by strength at each site, and one against the other.
fn charts(file: &SteeringGrid, found: &Found) -> Vec<(String, Chart)> {
    let mut sites: Vec<Site> = found.trials.iter().map(|trial| trial.site).collect();
    sites.sort_unstable();
    sites.dedup();
    let mut charts: Vec<(String, Chart)> = Vec::new();
    for site in sites {
        for (name, quantity) in [("response", Quantity::Response), ("damage", Quantity::Divergence)] {
            let table = GridTable { file: file.clone(), found: found.clone(), site, quantity };
            charts.push((format!("{name}-{site}"), grid_response::chart(&table)));
        }
    }
    let table = ParetoTable { file: file.clone(), found: found.clone() };
    charts.push(("pareto".into(), pareto::chart(&table)));
    if !found.nulls.is_empty() {
        let nulls = found.nulls.iter().map(|control| control.test.clone()).collect();
        let table = NullTable { class: file.goal.class.clone(), to: goal(file), nulls };
        charts.push(("nulls".into(), null_test::chart(&table)));
    }
    charts
}

/// The effect of each arm on the test part, as a table.
pub fn table(file: &SteeringGrid, found: &Found) -> Table {
    let columns = [("arm", false), ("site", false), ("strength", false), ("response", true), ("95 %", false)];
    let kept = format!("{} kept", file.guard.class);
    let more = [
        ("broken", true),
        ("KL a token", false),
        ("KL an answer", false),
        ("KL at the first", false),
        (kept.as_str(), true),
        ("perplexity", true),
        ("repetition", true),
    ];
    let columns =
        columns.iter().chain(&more).map(|(name, numbers)| Column { name: (*name).into(), numbers: *numbers });
    let place = |name: &str| {
        let pick = found.picked.iter().find(|(arm, _)| arm == name).and_then(|(_, pick)| *pick);
        pick.map_or([String::new(), String::new()], |index| {
            let trial = &found.trials[index];
            [trial.site.to_string(), trial.strength.clone()]
        })
    };
    let effect = found.test.first().map(|(_, effect)| effect);
    let (users, texts) = effect.map_or((0, 0), |effect| (effect.users, effect.texts));
    Table {
        caption: format!(
            "{} held out: {users} {} users, {texts} texts of {} users",
            file.data.held_out_labels(),
            file.goal.class,
            file.guard.class
        ),
        columns: columns.collect(),
        rows: found
            .test
            .iter()
            .map(|(name, effect)| row(name, place(name), effect))
            .chain(found.nulls.iter().map(null_row))
            .collect(),
    }
}

/// A control's median in the place of a value, and its least and most in that of an interval.
fn null_row(control: &ControlArm) -> Vec<String> {
    let ControlArm { arm, test, divergence } = control;
    let mut divergence = divergence.clone();
    divergence.sort_by(f64::total_cmp);
    let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.3}"));
    let range = |spread: Spread| format!("{:.3} to {:.3}", spread.least, spread.most);
    let p = test.p().map_or(String::new(), |p| format!(", p = {p:.3}"));
    vec![
        format!("{arm}, median of {}", test.draws.len()),
        String::new(),
        format!("rank {} of {}{p}", test.rank(), 1 + test.draws.len()),
        number(test.spread().map(|spread| spread.median)),
        test.spread().map_or(String::new(), range),
        number(test.broken().map(|spread| spread.median)),
        divergence.get(divergence.len() / 2).map_or(String::new(), |kl| format!("{kl:.1e}")),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
    ]
}

fn row(name: &str, place: [String; 2], effect: &Effect) -> Vec<String> {
    let interval = |interval: Interval| format!("[{:.3}, {:.3}]", interval.low, interval.high);
    let [site, strength] = place;
    vec![
        name.into(),
        site,
        strength,
        format!("{:.3}", effect.response.value),
        interval(effect.response),
        format!("{:.3}", effect.broken),
        format!("{:.1e}", effect.divergence.value),
        format!("{:.1e}", effect.divergence_of_answer.value),
        format!("{:.1e}", effect.divergence_at_first.value),
        effect.kept.map_or(String::new(), |kept| format!("{:.3}", kept.value)),
        format!("{:.3}", effect.perplexity),
        format!("{:.3}", effect.repetition),
    ]
}

fn page(
    file: &SteeringGrid,
    model: &Model,
    data: &Dataset,
    found: &Found,
    charts: &[(String, Chart)],
) -> Page {
    let left_out = found.picked.iter().filter(|(name, pick)| pick.is_none() && !file.is_control(name));
    let doubts = found.doubts(file).into_iter().map(|doubt| format!("Doubt: {doubt}"));
    let notes = left_out
        .map(|(name, _)| format!("{name}: no trial within the guard; not tried on the test part"))
        .chain(doubts)
        .chain(found.nulls.iter().map(|control| control.test.in_words()));
    let charts = |names: &str| {
        let chosen = charts.iter().filter(|(name, _)| name.starts_with(names));
        chosen.map(|(_, chart)| chart.clone()).collect()
    };
    let (goal_users, guard_users) = (&file.goal.class, &file.guard.class);
    let first = &file.arms[0].name;
    Page {
        title: format!("Steering grid: {}", file.name),
        lead: format!(
            "Ways to steer {goal_users} users to the outcome {}, compared where each reaches the response of {first}, and \
             their damage to {guard_users} users, whom steering should not change.",
            goal(file),
        ),
        facts: vec![
            ("model".into(), model.name.clone()),
            ("data".into(), data.source.clone()),
            ("seed".into(), file.seed.to_string()),
        ],
        sections: vec![
            Section {
                title: "Each way on held-out groups".into(),
                text: format!(
                    "Site and strength were chosen on the validation part: for each way the least damage (KL a token, on \
                     {guard_users} users' texts) at which it reaches the response of {first}, or else its highest response.",
                ),
                tables: vec![table(file, found)],
                notes: notes.collect(),
                ..Section::default()
            },
            Section { title: "Null directions".into(), charts: charts("nulls"), ..Section::default() },
            Section { title: "Response and damage".into(), charts: charts("pareto"), ..Section::default() },
            Section { title: "Dose and response".into(), charts: charts("response"), ..Section::default() },
            Section { title: "Dose and damage".into(), charts: charts("damage"), ..Section::default() },
        ],
    }
}
