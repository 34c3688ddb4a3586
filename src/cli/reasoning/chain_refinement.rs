//! `pearl reasoning refine`: failing answers, refined by edits of their chains.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::super::console::Console;
use super::super::judge_choice::JudgeChoice;
use super::super::model::ModelChoice;
use super::super::output::{Outcome, header, print, print_exact, save_chart};
use super::chain_records::{Format, chain_text, with_records};
use pearlpoint::Error;
use pearlpoint::analysis::chain_refinement::{
    Engine, FreeCase, FreeModels, Refined, RefinementOptions, RefinementTable, refine_dialogues,
    refine_failing,
};
use pearlpoint::artifact;
use pearlpoint::generate::GenerateOptions;
use pearlpoint::judge::{Endpoint, Purpose};
use pearlpoint::model::Model;
use pearlpoint::plots;
use pearlpoint::reasoning::{AskModel, EndpointModel, LocalModel, Refinement};
use pearlpoint::report;

#[derive(Args)]
#[command(after_help = "Examples:
  pearl reasoning refine --users 3000 --engine probes --engine gradient --engine random --out refined.jsonl
  pearl reasoning refine --data dialogues.jsonl --model ORG/NAME --engine model --judge \"rules: user-type=malicious\"
  pearl reasoning refine --data dialogues.jsonl --model ORG/NAME --engine endpoint --engine-url http://localhost:8000/v1 --judge-url http://localhost:8000/v1 --out refined.jsonl")]
pub struct Refine {
    #[command(flatten)]
    model: ModelChoice,
    /// Dialogues whose answers are refined, each with its chain or without [default: users of the embedded model's world]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Take at most this many dialogues
    #[arg(long, requires = "data")]
    limit: Option<usize>,
    /// How the chains of the dialogues are written
    #[arg(long, value_enum, default_value = "oyster", requires = "data")]
    format: Format,
    /// The column of chains; a dialogue without it has none, and the model that is asked for edits writes one
    #[arg(long, default_value = "Safety_chain", requires = "data")]
    column: String,
    /// Label to group by for intervals
    #[arg(long, default_value = "topic", requires = "data")]
    group: String,
    /// Users drawn from the world; those of held-out topics are refined, the others fit the value probes
    #[arg(long, default_value_t = RefinementOptions::default().users, conflicts_with = "data")]
    users: usize,
    /// What proposes edits: probes, gradient (the embedded model's world), random, model or endpoint; may be repeated [default: probes
    /// and random; with --engine-url endpoint, else model for dialogues]
    #[arg(long = "engine", value_name = "ENGINE")]
    engines: Vec<Engine>,
    /// For `--engine model`, the model that is asked [default: --model]; for `endpoint`, its name there
    #[arg(long, value_name = "NAME")]
    engine_model: Option<String>,
    /// URL of an OpenAI-compatible endpoint that is asked for edits; a token for it is read from PEARL_ENGINE_KEY
    #[arg(long, value_name = "URL")]
    engine_url: Option<String>,
    /// Seconds that an answer of the endpoint may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "engine_url")]
    engine_timeout: u64,
    /// Further tries of the endpoint after a failure, each after a longer pause
    #[arg(long, value_name = "NUMBER", default_value_t = 3, requires = "engine_url")]
    engine_retries: usize,
    /// Folder in which the endpoint's proposals are kept, so that none is asked for twice
    #[arg(long, value_name = "FOLDER", requires = "engine_url")]
    engine_cache: Option<PathBuf>,
    #[command(flatten)]
    judge: JudgeChoice,
    /// Tokens of an answer to a dialogue, at most
    #[arg(long, default_value_t = 256, requires = "data")]
    max_tokens: usize,
    /// Steps, at most
    #[arg(long, default_value_t = Refinement::default().steps)]
    steps: usize,
    /// Seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Paths that are drawn with --plot
    #[arg(long, default_value_t = 3)]
    paths: usize,
    /// Folder for a chart: paths y0 → y1 → … over the satisfaction of answers, with the safe boundary; of the embedded model's world
    #[arg(long, value_name = "FOLDER", conflicts_with = "data")]
    plot: Option<PathBuf>,
    /// Write every history: chains, edits and losses, as JSON Lines
    #[arg(long, value_name = "FILE.jsonl")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Refine {
    /// The engines asked for, or those that the other options imply.
    fn engines(&self) -> pearlpoint::Result<Vec<Engine>> {
        let mut engines = self.engines.clone();
        if engines.is_empty() {
            engines = match (&self.data, &self.engine_url) {
                (_, Some(_)) => vec![Engine::Endpoint],
                (Some(_), None) => vec![Engine::Model],
                (None, None) => RefinementOptions::default().engines,
            };
        }
        if let Some((at, twice)) = engines.iter().enumerate().find(|(at, one)| engines[..*at].contains(one)) {
            return Err(Error::input("--engine", format!("{twice} at {} again", at + 1), "each once"));
        }
        let has = |engine: Engine| engines.contains(&engine);
        if has(Engine::Endpoint) != self.engine_url.is_some() {
            let (found, expected) = match self.engine_url {
                Some(_) => ("--engine-url without that engine", "--engine endpoint"),
                None => ("endpoint without a URL", "--engine-url URL"),
            };
            return Err(Error::input("--engine", found, expected));
        }
        if self.engine_model.is_some() && !has(Engine::Model) && !has(Engine::Endpoint) {
            return Err(Error::input(
                "--engine-model",
                "no engine that asks one",
                "--engine model or endpoint",
            ));
        }
        Ok(engines)
    }

    /// The endpoint that is asked for edits.
    fn endpoint(&self) -> Option<Endpoint> {
        let default = Endpoint::default();
        self.engine_url.as_ref().map(|url| Endpoint {
            purpose: Purpose::Engine,
            url: url.clone(),
            model: self.engine_model.clone().unwrap_or(default.model),
            timeout: Duration::from_secs(self.engine_timeout),
            retries: self.engine_retries,
            cache: self.engine_cache.clone(),
            key: std::env::var("PEARL_ENGINE_KEY").ok().filter(|key| !key.is_empty()),
        })
    }
}

pub fn run(arguments: Refine, console: &Console) -> anyhow::Result<Outcome> {
    if !(1..=100).contains(&arguments.steps) {
        return Err(Error::input("--steps", arguments.steps, "1 to 100").into());
    }
    let refinement = Refinement { steps: arguments.steps, ..Refinement::default() };
    let options = RefinementOptions {
        users: arguments.users,
        engines: arguments.engines()?,
        refinement,
        paths: if arguments.plot.is_some() { arguments.paths } else { 0 },
        seed: arguments.seed,
    };
    if let Some(data) = &arguments.data {
        return free(&arguments, data, &options, console);
    }
    let model = arguments.model.load(console)?;
    let mut refined = Vec::new();
    let (table, map) = match refine_failing(&model, &options, &mut refined, &mut console.stages()) {
        Ok((table, map)) => (Ok(table), map),
        Err(error) => (Err(error), None),
    };
    if let (Some(folder), Some(map)) = (&arguments.plot, map) {
        artifact::write_json(&folder.join("chain-path.json"), &header("pearl", &model), &map)?;
        save_chart(folder, "chain-path", &plots::chain_path::chart(&map))?;
        report::draw_all(folder)?;
    }
    show(&arguments, table, &refined, console)
}

/// Refines answers to dialogues of a file.
fn free(
    arguments: &Refine,
    data: &Path,
    options: &RefinementOptions,
    console: &Console,
) -> anyhow::Result<Outcome> {
    arguments.judge.check()?;
    let endpoint = arguments.endpoint().as_ref().map(EndpointModel::new).transpose()?;
    let cases = cases(arguments, data)?;
    let model = arguments.model.load(console)?;
    let judge = arguments.judge.of(&model)?;
    let thinking = arguments.model.thinking();
    let asks_local = options.engines.contains(&Engine::Model);
    let other = match &arguments.engine_model {
        Some(name) if asks_local && endpoint.is_none() => Some(Model::load(name)?),
        _ => None,
    };
    let mut asked: Vec<(Engine, Box<dyn AskModel + '_>)> = Vec::new();
    if asks_local {
        asked.push((
            Engine::Model,
            Box::new(LocalModel { model: other.as_ref().unwrap_or(&model), thinking }),
        ));
    }
    if let Some(endpoint) = endpoint {
        asked.push((Engine::Endpoint, Box::new(endpoint)));
    }
    let generation = GenerateOptions::default().greedy().max_tokens(arguments.max_tokens).thinking(thinking);
    let models = FreeModels {
        model: &model,
        generation: &generation,
        judge: judge.as_ref(),
        asked,
        group: &arguments.group,
    };
    let mut refined = Vec::new();
    let table = refine_dialogues(&models, &cases, options, &mut refined, &mut console.stages());
    show(arguments, table, &refined, console)
}

/// The dialogues, each with its chain where its record has one.
fn cases(arguments: &Refine, data: &Path) -> anyhow::Result<Vec<FreeCase>> {
    let mut cases = Vec::new();
    for (dialogue, place, record) in with_records(data, arguments.limit)? {
        let chain = match chain_text(&record, Some(&arguments.column)).filter(|text| !text.trim().is_empty())
        {
            Some(text) => Some(arguments.format.parse(&place, &text)?),
            None => None,
        };
        cases.push(FreeCase { dialogue, chain });
    }
    Ok(cases)
}

/// Writes the histories, also where the run broke off, and prints the table.
fn show(
    arguments: &Refine,
    table: pearlpoint::Result<RefinementTable>,
    refined: &[Refined],
    console: &Console,
) -> anyhow::Result<Outcome> {
    if let Some(path) = arguments.out.as_ref().filter(|_| table.is_ok() || !refined.is_empty()) {
        let mut lines = String::new();
        for one in refined {
            lines += &serde_json::to_string(one)?;
            lines.push('\n');
        }
        artifact::write_text(path, &lines)?;
    }
    let table = table?;
    if arguments.json {
        let mut body = serde_json::to_value(&table)?;
        (body["kind"], body["version"]) = (json!("chain-refinement"), json!(1));
        print_exact(body)?;
        return Ok(Outcome::Done);
    }
    print(format_args!(
        "{} of {} answers fail a loss; {} have no chain, {} no verdict",
        table.failing, table.answers, table.without_chain, table.unjudged
    ))?;
    if let (Some(site), Some(accuracy)) = (table.site, table.accuracy) {
        print(format_args!(
            "value probes at {site}: right about {:.1} % of answers after strategies drawn at random\n",
            100.0 * accuracy
        ))?;
    }
    print(format_args!(
        "{:<8} {:>24}  {:<22} {:>6} {:>8} {:>13} {:>9} {:>11} {:>10}",
        "engine",
        "both losses met",
        "by step",
        "steps",
        "safety",
        "satisfaction",
        "unparsed",
        "past budget",
        "no verdict"
    ))?;
    for engine in &table.engines {
        let by_step: Vec<String> = engine.met_by_step.iter().map(|share| format!("{share:.3}")).collect();
        print(format_args!(
            "{:<8} {:>24}  {:<22} {:>6.2} {:>8.3} {:>13.3} {:>9} {:>11} {:>10}",
            engine.engine,
            format!("{:.3} [{:.3}, {:.3}]", engine.met.value, engine.met.low, engine.met.high),
            by_step.join(", "),
            engine.steps,
            engine.losses[0],
            engine.losses[1],
            engine.unparsed,
            engine.past_budget,
            engine.unjudged
        ))?;
    }
    console.say("losses are means at the end; 95 % intervals over groups");
    Ok(Outcome::Done)
}
