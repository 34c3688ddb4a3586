//! From what a sweep found to its charts and its page. It computes nothing new.

use crate::analysis::dataset::Dataset;
use crate::analysis::pareto::is_control;
use crate::analysis::steering_grid::{Effect, Found, SweepFile, Trial};
use crate::model::{Model, Site};
use crate::report::charts::chart::{LinePoint, Series, Style};
use crate::report::table::Column;
use crate::report::{Chart, LineChart, Page, Section, Table};
use crate::stats::Interval;
use crate::steer::Strength;

/// Charts by their files' names: a dose and its response at each site, and what the response costs.
pub fn charts(file: &SweepFile, found: &Found) -> Vec<(String, Chart)> {
    let mut sites: Vec<Site> = found.trials.iter().map(|trial| trial.site).collect();
    sites.sort_unstable();
    sites.dedup();
    let mut charts: Vec<(String, Chart)> = Vec::new();
    for site in sites {
        charts.push((format!("response-{site}"), dose(file, found, site, "response")));
        charts.push((format!("damage-{site}"), dose(file, found, site, "KL")));
    }
    charts.push(("pareto".into(), pareto(file, found)));
    charts
}

fn number(strength: &str) -> f64 {
    match strength.parse::<Strength>() {
        Ok(Strength::Raw(number) | Strength::Norms(number)) => f64::from(number),
        // Every strength was read before it was tried.
        Err(_) => 0.0,
    }
}

fn dose(file: &SweepFile, found: &Found, site: Site, what: &str) -> Chart {
    let of = |effect: &Effect| if what == "KL" { effect.divergence } else { effect.response };
    let point = |x: f64, interval: Interval| LinePoint {
        x,
        y: interval.value,
        low: Some(interval.low),
        high: Some(interval.high),
    };
    let series = file.arms.iter().map(|arm| {
        let own = found.trials.iter().filter(|trial| trial.arm == arm.name && trial.site == site);
        let start = point(0.0, of(&found.unsteered));
        let points = own.map(|trial| point(number(&trial.strength), of(&trial.effect)));
        let style = if arm.control.is_some() { Style::Dashed } else { Style::Solid };
        Series {
            name: arm.name.clone(),
            points: std::iter::once(start).chain(points).collect(),
            style,
            filled: false,
        }
    });
    let (goal, users) = (wanted(file), found.unsteered.users);
    let (title, subtitle, y_label) = match what {
        "KL" => (
            format!("What steering at {site} does to {} users", file.guard.class),
            format!("validation part, {} texts; bands are 95 % intervals", found.unsteered.texts),
            "KL from the unsteered model (nats a token)".to_string(),
        ),
        _ => (
            format!("Dose and response at {site}"),
            format!("validation part, {users} {} users; bands are 95 % intervals", file.goal.class),
            format!("share of answers: {goal}"),
        ),
    };
    Chart::Line(LineChart {
        title,
        subtitle,
        x_label: "strength (residual norms; of a projection or a loop, times the whole)".into(),
        y_label,
        y_range: (what != "KL").then_some([0.0, 1.0]),
        series: series.collect(),
        ..LineChart::default()
    })
}

fn pareto(file: &SweepFile, found: &Found) -> Chart {
    let point = |trial: &&Trial| LinePoint {
        x: trial.effect.divergence.value,
        y: trial.effect.response.value,
        ..LinePoint::default()
    };
    let sorted = |mut points: Vec<LinePoint>| {
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        points
    };
    let mut series: Vec<Series> = file
        .arms
        .iter()
        .map(|arm| Series {
            name: arm.name.clone(),
            points: sorted(
                found.trials.iter().filter(|trial| trial.arm == arm.name).map(|t| point(&t)).collect(),
            ),
            style: if arm.control.is_some() { Style::Dashed } else { Style::Solid },
            filled: false,
        })
        .collect();
    series.push(Series {
        name: "front".into(),
        points: sorted(found.trials.iter().filter(|trial| trial.pareto).map(|t| point(&t)).collect()),
        style: Style::Dotted,
        filled: false,
    });
    Chart::Line(LineChart {
        title: "What the response costs".into(),
        subtitle: format!("validation part, all sites and strengths; {} users pay", file.guard.class),
        x_label: "KL from the unsteered model (nats a token)".into(),
        y_label: format!("share of answers: {}", wanted(file)),
        y_range: Some([0.0, 1.0]),
        series,
        ..LineChart::default()
    })
}

fn wanted(file: &SweepFile) -> String {
    file.goal.strategy.clone().unwrap_or_else(|| format!("one of {}", file.goal.words.join(", ")))
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
        format!("{:.1e}", effect.divergence.value),
        format!("[{:.1e}, {:.1e}]", effect.divergence.low, effect.divergence.high),
        format!("{:.3}", effect.perplexity),
        format!("{:.3}", effect.broken),
        format!("{:.3}", effect.repetition),
    ]
}

/// The picks on the test part, as a table.
pub fn table(file: &SweepFile, found: &Found) -> Table {
    let columns = [("way", false), ("site", false), ("strength", false), ("response", true), ("95 %", false)];
    let more = [("KL", false), ("95 %", false), ("perplexity", true), ("broken", true), ("repetition", true)];
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
            file.data.group, file.goal.class, file.guard.class
        ),
        columns: columns.collect(),
        rows: found.test.iter().map(|(name, effect)| row(name, place(name), effect)).collect(),
    }
}

/// The report.
pub fn page(file: &SweepFile, model: &Model, data: &Dataset, found: &Found) -> Page {
    let left_out = found.picked.iter().filter(|(name, pick)| pick.is_none() && !is_control(&file.arms, name));
    let notes = left_out.map(|(name, _)| {
        format!("{name}: no trial kept within the guard; it was not tried on the test part")
    });
    let charts = |names: &str| {
        charts(file, found)
            .into_iter()
            .filter(|(name, _)| name.starts_with(names))
            .map(|(_, chart)| chart)
            .collect()
    };
    Page {
        title: format!("Sweep: {}", file.name),
        lead: format!(
            "Ways to steer {} users towards {}, each held where it reaches what {} reaches, and what they do to {} users, \
             whom steering should leave alone.",
            file.goal.class,
            wanted(file),
            file.arms[0].name,
            file.guard.class
        ),
        facts: vec![
            ("model".into(), model.name.clone()),
            ("data".into(), data.source.clone()),
            ("seed".into(), file.seed.to_string()),
        ],
        sections: vec![
            Section {
                title: "The picks, on groups held out".into(),
                text: format!(
                    "Site and strength were chosen on the validation part: for each way the least damage (KL a token, on \
                     {} users' texts) at which it reaches what {} reaches, or else the most that it reaches.",
                    file.guard.class, file.arms[0].name
                ),
                tables: vec![table(file, found)],
                notes: notes.collect(),
                ..Section::default()
            },
            Section { title: "Response and damage".into(), charts: charts("pareto"), ..Section::default() },
            Section { title: "Dose and response".into(), charts: charts("response"), ..Section::default() },
            Section { title: "Dose and damage".into(), charts: charts("damage"), ..Section::default() },
        ],
    }
}
