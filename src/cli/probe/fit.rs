//! `pearl probe fit`.

use std::path::PathBuf;

use clap::Args;

use super::held::Held;
use crate::cli::dialogues::Source;
use crate::cli::memory::{pages_go_back_after, pages_stay_small};
use crate::cli::model::Options;
use crate::cli::progress::Console;
use crate::cli::{Outcome, print};
use pearlpoint::analysis::layer_sweep;
use pearlpoint::analysis::layer_sweep::{Question, Read, Rows, Sweep};
use pearlpoint::analysis::probe_card;
use pearlpoint::analysis::probe_card::Concept;
use pearlpoint::error::Error;
use pearlpoint::experiment::{Progress, probe_card};
use pearlpoint::model::Site;
use pearlpoint::probe::{Fit as Method, TargetKind, ValidationPlan, defaults, method, method_names};
use pearlpoint::report::{Table, table::Column};
use pearlpoint::stats::Metric;

#[derive(Args)]
pub struct Fit {
    /// A concept's folder: its probe.toml says all that the other options do, and what is found is written beside it
    #[arg(required_unless_present = "store", conflicts_with = "store")]
    concept: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
    /// A store that `pearl extract` made
    #[arg(long, requires_all = ["data", "label", "out"])]
    store: Option<PathBuf>,
    /// Dialogues: JSON Lines, CSV or TSV
    #[arg(long)]
    data: Option<PathBuf>,
    #[command(flatten)]
    filter: crate::cli::dialogues::Filter,
    /// The label to read
    #[arg(long)]
    label: Option<String>,
    /// Whether a row has one of several classes, or levels, or any number of labels: classes, levels, labels
    #[arg(long, default_value = "classes")]
    kind: TargetKind,
    /// The classes in order, where the order of their names is not right
    #[arg(long, value_delimiter = ',')]
    order: Vec<String>,
    /// The label to group by; left out, each dialogue is a group of its own
    #[arg(long)]
    group: Option<String>,
    /// Groups to test on, which nothing is fitted or chosen on; left out, scores are of the folds
    #[arg(long, value_delimiter = ',', requires = "group")]
    held_out: Vec<String>,
    /// Sites of the store's; all of them where none are named
    #[arg(long)]
    sites: Option<String>,
    #[arg(long, default_value = defaults::METHOD, help = method_names())]
    method: String,
    /// Strengths to choose among, ascending (C of logistic and ridge, the covariance's share of lda)
    #[arg(long, value_delimiter = ',')]
    strengths: Vec<f64>,
    #[arg(long, default_value_t = ValidationPlan::default().folds)]
    folds: usize,
    /// Bootstrap whole groups instead of rows: wider intervals, honest about groups to come
    #[arg(long)]
    by_group: bool,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File for the probe
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Fit, talk: &Console) -> anyhow::Result<Outcome> {
    let bar = talk.bar(1, "fitting");
    let on_progress = |stage: &'static str, done: usize, total: usize| {
        bar.set_prefix(stage);
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        talk.should_continue()
    };
    if let Some(folder) = &arguments.concept {
        let concept = ProbeFile::load(folder)?;
        let model = arguments.options.open(&concept.model, talk)?;
        let sweep = probe_card::fit(&concept, folder, &model, &mut |Progress { stage, done, total }| {
            on_progress(stage, done, total)
        })?;
        bar.finish_and_clear();
        return show(&sweep, folder.join(probe_card::WEIGHTS), arguments.json, talk);
    }
    let missing = |option: &str| Error::input(format!("--{option}"), "left out", "it beside --store");
    let source = Source { data: arguments.data.ok_or_else(|| missing("data"))?, filter: arguments.filter };
    let label = arguments.label.ok_or_else(|| missing("label"))?;
    let out = arguments.out.ok_or_else(|| missing("out"))?;
    let store = arguments.store.ok_or_else(|| missing("store"))?;
    // One site's matrix takes the place of the one before it, and nothing of a fit is kept beside it.
    pages_go_back_after(0);
    pages_stay_small();
    let (store, example, data) = Held { store, source }.open()?;
    let sites = match &arguments.sites {
        None => store.manifest.sites.clone(),
        Some(sites) => Site::parse_set(
            sites,
            store.manifest.sites.iter().filter_map(|site| site.block()).max().map_or(0, |last| last + 1),
        )?,
    };
    let method: Box<dyn Method> = method(&arguments.method, &arguments.strengths)?;
    let question = Question {
        label: &label,
        kind: arguments.kind,
        order: &arguments.order,
        group: arguments.group.as_deref(),
        held_out: &arguments.held_out,
        method: method.as_ref(),
        plan: ValidationPlan {
            folds: arguments.folds,
            by_group: arguments.by_group,
            seed: arguments.seed,
            ..ValidationPlan::default()
        },
    };
    let chosen: Vec<usize> = (0..example.len()).collect();
    let rows = Read { header: &store.header, tokens: &store.manifest.tokens, sites: &sites, chosen: &chosen };
    let known = Rows { read: rows, example: &example, dialogues: &data.dialogues }.known(&question)?;
    // Thousands of dialogues take as much memory as a site's products.
    drop(data);
    let total = sites.len();
    let mut read = |site| store.at(site);
    let mut heard = |done| on_progress("fitting", done, total);
    let sweep = layer_sweep::sweep(&question, rows, &known, &mut read, &mut heard)?;
    bar.finish_and_clear();
    sweep.best().1.probe.save(&out)?;
    show(&sweep, out, arguments.json, talk)
}

fn show(sweep: &Sweep, out: PathBuf, json: bool, talk: &Console) -> anyhow::Result<Outcome> {
    let (site, _) = sweep.best();
    let mut figures: Vec<Metric> = Vec::new();
    for (site, validated) in &sweep.sites {
        let figure = layer_sweep::figure(validated, "auroc", sweep.on)?;
        figures.push(Metric { name: format!("{site}/auroc"), ..figure.clone() });
    }
    figures.extend(sweep.best_figures());
    figures.extend(sweep.controls().into_iter().cloned());
    if json {
        print(serde_json::to_string_pretty(&figures)?)?;
    } else {
        let mut table = Table::of_figures("", &figures);
        table.columns[0] = Column::text(&format!("{} ({})", sweep.label, sweep.split));
        print(table.to_text()?)?;
    }
    sweep.left_out.iter().for_each(|line| talk.say(format!("left out: {line}")));
    sweep.doubts()?.iter().for_each(|line| talk.say(format!("doubt: {line}")));
    talk.say(format!("the probe at {site}: {}", out.display()));
    Ok(Outcome::Done)
}
