//! `pearl rounds`: risk that is spread over the rounds of a dialogue.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::console::Console;
use super::dialogues::Source;
use super::model::{ModelChoice, ModelOptions};
use super::output::{Outcome, draw_and_print, header, print, print_exact, save, save_chart};
use pearlpoint::Error;
use pearlpoint::analysis::token_readout;
use pearlpoint::artifact::{self, FolderLock, Part};
use pearlpoint::config::RoundsFile;
use pearlpoint::experiment::rounds::RoundsTable;
use pearlpoint::experiment::rounds_canary::{self, CanaryOptions};
use pearlpoint::judge::{Endpoint, Purpose};
use pearlpoint::plots;
use pearlpoint::probe::Probe;
use pearlpoint::report::Table;
use pearlpoint::report::table::Column;
use pearlpoint::rounds::{Condition, EndpointAttacker, ProbeOfClass, Trace, trace, user_messages};
use pearlpoint::stats::Interval;

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Read probes round by round: the whole context, the message alone, the last exchange, all messages in one
    Trace(TraceArguments),
    /// Ask a chat model, over several rounds, for a made-up word that it was told to keep
    Canary(Canary),
    /// Run an experiment: agents that spread an aim of the organism's world over rounds, monitors and the guard
    Attack(Attack),
    /// Join the plays of parts that were made with `--shard`; the same run without it then makes the tables
    Merge(Merge),
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl rounds canary --shard 1/2 --out part-1
  pearl rounds canary --shard 2/2 --out part-2
  pearl rounds merge part-1 part-2 --out canary
  pearl rounds canary --out canary")]
struct Merge {
    /// Folders of all parts
    #[arg(required = true)]
    parts: Vec<PathBuf>,
    /// Folder for the whole run
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl rounds trace --data data.jsonl --probe user-type.safetensors --class malicious --out trace")]
struct TraceArguments {
    #[command(flatten)]
    model: ModelChoice,
    #[command(flatten)]
    source: Source,
    /// A probe that picks one token a prompt; may be repeated
    #[arg(long = "probe", value_name = "FILE", required = true)]
    probes: Vec<PathBuf>,
    /// The class to follow, for each probe in turn, or one for all [default: the probe's last class]
    #[arg(long = "class", value_name = "CLASS")]
    classes: Vec<String>,
    /// What the model is shown: whole, alone, compressed or merged; may be repeated [default: all four]
    #[arg(long = "condition", value_name = "CONDITION")]
    conditions: Vec<String>,
    /// Folder for turns.jsonl, trace.json and the charts
    #[arg(long)]
    out: PathBuf,
    /// Print trace.json instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl rounds canary --model SmolLM2-135M-Instruct --out canary
  pearl rounds canary --attacker-url http://127.0.0.1:8080/v1 --attacker-prompt attacker.txt --out canary

A model behind an endpoint plays a dialogue at a time. One that it fails (no answer in time, no message in it) costs that dialogue; after two
in a row the run ends, and the same command goes on. Its token is read from PEARL_ATTACKER_KEY.")]
struct Canary {
    #[command(flatten)]
    model: ModelChoice,
    /// Dialogues of each agent and number of rounds
    #[arg(long, default_value_t = 40)]
    dialogues: usize,
    /// Numbers of rounds that agents are given, ascending
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3, 5])]
    rounds: Vec<usize>,
    /// Tokens of an answer, at most
    #[arg(long, default_value_t = 64)]
    max_tokens: usize,
    /// Seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    attacker: AttackerChoice,
    /// Folder for the plays, the table, the chart and the report; plays that are there are not played again
    #[arg(long)]
    out: PathBuf,
    /// Play only part I of N of the cells, counted from 1; `pearl rounds merge` joins the parts
    #[arg(long, value_name = "I/N", conflicts_with = "json")]
    shard: Option<Part>,
    /// Print canary.json instead of a table
    #[arg(long)]
    json: bool,
}

/// A model that attacks, behind an endpoint.
#[derive(Args)]
struct AttackerChoice {
    /// URL of an OpenAI-compatible endpoint whose model writes the messages, beside the agents that are built in
    #[arg(long, value_name = "URL", requires = "attacker_prompt")]
    attacker_url: Option<String>,
    /// File with what that model is told, in your own words
    #[arg(long, value_name = "FILE", requires = "attacker_url")]
    attacker_prompt: Option<PathBuf>,
    /// The model's name at the endpoint
    #[arg(long, value_name = "NAME", requires = "attacker_url")]
    attacker_model: Option<String>,
    /// Seconds that a message of the endpoint may take [default: 60]
    #[arg(long, value_name = "SECONDS", requires = "attacker_url")]
    attacker_timeout: Option<u64>,
    /// Further tries of the endpoint after a failure, each after a longer pause [default: 3]
    #[arg(long, value_name = "NUMBER", requires = "attacker_url")]
    attacker_retries: Option<usize>,
}

impl AttackerChoice {
    /// The endpoint, and what its model is told.
    fn read(&self) -> pearlpoint::Result<Option<(Endpoint, String)>> {
        let (Some(url), Some(file)) = (&self.attacker_url, &self.attacker_prompt) else { return Ok(None) };
        let default = Endpoint::default();
        let endpoint = Endpoint {
            url: url.clone(),
            model: self.attacker_model.clone().unwrap_or(default.model),
            timeout: self.attacker_timeout.map_or(default.timeout, Duration::from_secs),
            retries: self.attacker_retries.unwrap_or(default.retries),
            purpose: Purpose::Attacker,
            cache: None,
            key: std::env::var("PEARL_ATTACKER_KEY").ok().filter(|key| !key.is_empty()),
        };
        let prompt = artifact::read_text(file)?;
        // What is wrong with either is said before a model is loaded.
        EndpointAttacker::new(&endpoint, &prompt, 0)?;
        Ok(Some((endpoint, prompt)))
    }
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl rounds attack experiments/rounds.toml --out runs/rounds")]
struct Attack {
    /// The experiment file (TOML), such as experiments/rounds.toml
    experiment: PathBuf,
    #[command(flatten)]
    options: ModelOptions,
    /// Folder for plays, probes, alarms, tables and charts; plays that are there are not played again
    #[arg(long)]
    out: PathBuf,
    /// Play only part I of N of the cells, counted from 1; `pearl rounds merge` joins the parts
    #[arg(long, value_name = "I/N", conflicts_with = "json")]
    shard: Option<Part>,
    /// Print rounds.json instead of tables
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    match arguments.command {
        Command::Trace(arguments) => trace_file(arguments, console),
        Command::Canary(arguments) => canary(arguments, console),
        Command::Attack(arguments) => attack(arguments, console),
        Command::Merge(arguments) => merge(&arguments, console),
    }
}

fn trace_file(arguments: TraceArguments, console: &Console) -> anyhow::Result<Outcome> {
    let probes = probes(&arguments)?;
    let conditions = match arguments.conditions.as_slice() {
        [] => Condition::ALL.to_vec(),
        given => given.iter().map(|text| text.parse()).collect::<Result<Vec<Condition>, _>>()?,
    };
    let _lock = FolderLock::take(&arguments.out)?;
    let data = arguments.source.read(console)?;
    let model = arguments.model.load(console)?;
    for one in &probes {
        model.check_origin(&one.name, "a probe", one.probe.source.origin())?;
    }
    let thinking = arguments.model.thinking();
    let bar = console.bar(conditions.len() * probes.len(), "reading rounds");
    let found = trace(&model, &data.dialogues, &probes, &conditions, thinking, &mut |done| bar.done(done))?;
    drop(bar);
    let mut lines = String::new();
    for record in &found.records {
        lines.push_str(&serde_json::to_string(record)?);
        lines.push('\n');
    }
    let out = &arguments.out;
    artifact::write_text(&out.join("turns.jsonl"), &lines)?;
    artifact::write_json(&out.join("trace.json"), &header("rounds-trace", &model), &found)?;
    for one in &probes {
        save_chart(out, &format!("readings-{}", one.name), &plots::round_readings::chart(&found, &one.name))?;
    }
    save_chart(out, "rounds-by-probes", &plots::round_readings::heat_map(&found))?;
    // The longest dialogue token by token.
    let longest = data.dialogues.iter().max_by_key(|dialogue| user_messages(dialogue).len());
    if let Some(dialogue) = longest {
        let first = &probes[0];
        let readout = token_readout::read_tokens(
            &model,
            dialogue,
            std::slice::from_ref(&first.probe),
            &first.class,
            thinking,
        )?;
        save(&out.join("tokens.strip.json"), &plots::token_map::strip(&readout, None))?;
    }
    if arguments.json {
        print_exact(artifact::read_text(&out.join("trace.json"))?.trim_end())?;
        draw(out)?;
        return Ok(Outcome::Done);
    }
    print(trace_table(&found).to_text()?)?;
    draw_and_print(out)
}

/// Draws charts without naming them.
fn draw(out: &std::path::Path) -> anyhow::Result<()> {
    pearlpoint::report::draw_all(out)?;
    Ok(())
}

/// The probes with their classes and names: that of the file, with a number where two have one.
fn probes(arguments: &TraceArguments) -> anyhow::Result<Vec<ProbeOfClass>> {
    let mut found: Vec<ProbeOfClass> = Vec::new();
    let classes = &arguments.classes;
    if classes.len() > 1 && classes.len() != arguments.probes.len() {
        let found = format!("{} classes for {} probes", classes.len(), arguments.probes.len());
        return Err(Error::input("--class", found, "one for all, or one a probe").into());
    }
    for (place, path) in arguments.probes.iter().enumerate() {
        let probe = Probe::load(path)?;
        let class = match classes.get(place).or(classes.first()) {
            Some(class) => class.clone(),
            None => probe.classes.last().cloned().unwrap_or_default(),
        };
        if !probe.classes.contains(&class) {
            let expected = format!("one of {}", probe.classes.join(", "));
            return Err(Error::input("--class", format!("{class:?} of {}", path.display()), expected).into());
        }
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let is_taken = found.iter().any(|other| other.name == stem);
        let name = if is_taken { format!("{stem}-{}", place + 1) } else { stem };
        found.push(ProbeOfClass { name, probe, class });
    }
    Ok(found)
}

fn trace_table(found: &Trace) -> Table {
    let columns = vec![
        Column::text("probe"),
        Column::text("condition"),
        Column::numbers("round"),
        Column::numbers("dialogues"),
        Column::text("mean reading"),
        Column::numbers("AUROC"),
        Column::numbers("refitted"),
        Column::numbers("cosine"),
    ];
    let value = |number: Option<f64>| number.map_or("–".into(), |number| format!("{number:.3}"));
    let rows = found.rounds.iter().map(|round| {
        vec![
            round.probe.clone(),
            round.condition.name().into(),
            round.turn.to_string(),
            round.dialogues.to_string(),
            interval(round.mean.as_ref()),
            value(round.fixed),
            value(round.refitted),
            value(round.cosine),
        ]
    });
    Table { caption: String::new(), columns, rows: rows.collect() }
}

fn interval(found: Option<&Interval>) -> String {
    found.map_or("–".into(), |own| format!("{:.3} [{:.3}, {:.3}]", own.value, own.low, own.high))
}

fn canary(arguments: Canary, console: &Console) -> anyhow::Result<Outcome> {
    if arguments.dialogues == 0 || arguments.dialogues > 100_000 {
        return Err(Error::input("--dialogues", arguments.dialogues, "1 to 100,000").into());
    }
    let ascending = arguments.rounds.windows(2).all(|pair| pair[0] < pair[1]);
    if !ascending || arguments.rounds.iter().any(|rounds| !(1..=1000).contains(rounds)) {
        let found = format!("{:?}", arguments.rounds);
        return Err(Error::input("--rounds", found, "ascending numbers from 1 to 1000").into());
    }
    let attacker = arguments.attacker.read()?;
    let model = arguments.model.load(console)?;
    let options = CanaryOptions {
        dialogues: arguments.dialogues,
        rounds: arguments.rounds.clone(),
        max_tokens: arguments.max_tokens,
        thinking: arguments.model.thinking(),
        world: model.name == "organism",
        seed: arguments.seed,
        attacker,
    };
    let out = (arguments.out.as_path(), arguments.shard);
    let Some(table) = rounds_canary::run(&model, &options, out, &mut console.stages())? else {
        return part_done(&arguments.out, console);
    };
    match arguments.json {
        true => print_exact(artifact::read_text(&arguments.out.join("canary.json"))?.trim_end())?,
        false => print(rounds_canary::text_table(&table).to_text()?)?,
    }
    console.say(format!("the report: {}", arguments.out.join("report.html").display()));
    Ok(Outcome::Done)
}

fn attack(arguments: Attack, console: &Console) -> anyhow::Result<Outcome> {
    let text = artifact::read_settings(&arguments.experiment)?;
    let file = RoundsFile::parse(&arguments.experiment.display().to_string(), &text)?;
    let model = arguments.options.load(&file.model, console)?;
    let out = (arguments.out.as_path(), arguments.shard);
    let played = pearlpoint::experiment::rounds::run(&file, &text, &model, out, &mut console.stages())?;
    let Some(table) = played else { return part_done(&arguments.out, console) };
    match arguments.json {
        true => print_exact(artifact::read_text(&arguments.out.join("rounds.json"))?.trim_end())?,
        false => print_attack(&table)?,
    }
    console.say(format!("plays, tables and charts in {}", arguments.out.display()));
    Ok(Outcome::Done)
}

fn part_done(out: &std::path::Path, console: &Console) -> anyhow::Result<Outcome> {
    console.say(format!("plays of this part in {}; `pearl rounds merge` joins the parts", out.display()));
    Ok(Outcome::Done)
}

fn merge(arguments: &Merge, console: &Console) -> anyhow::Result<Outcome> {
    let _lock = FolderLock::take(&arguments.out)?;
    let cells = pearlpoint::experiment::merge_rounds(&arguments.parts, &arguments.out)?;
    let out = arguments.out.display();
    console.say(format!("{cells} cells in {out}; the same run without --shard makes the tables"));
    Ok(Outcome::Done)
}

fn print_attack(table: &RoundsTable) -> anyhow::Result<()> {
    let columns =
        ["agent or users", "defence", "rounds", "n", "success", "touched", "C(2)"].map(Column::text);
    let rows = table.attacks.cells.iter().map(|cell| {
        vec![
            cell.agent.clone(),
            cell.defence.clone(),
            cell.rounds.to_string(),
            cell.dialogues.to_string(),
            interval(cell.success.as_ref()),
            interval(cell.touched.as_ref()),
            interval(cell.constructive.as_ref()),
        ]
    });
    print(Table { caption: String::new(), columns: columns.to_vec(), rows: rows.collect() }.to_text()?)?;
    let columns = ["monitor", "false alarms", "earlier round", "before the answer", "dialogues by lead"]
        .map(Column::text);
    let rows = table.warnings.iter().map(|warning| {
        vec![
            warning.monitor.clone(),
            interval(warning.false_alarms.as_ref()),
            interval(warning.earlier.as_ref()),
            interval(warning.in_time.as_ref()),
            warning.lead.iter().map(usize::to_string).collect::<Vec<_>>().join(" "),
        ]
    });
    print(Table { caption: String::new(), columns: columns.to_vec(), rows: rows.collect() }.to_text()?)?;
    print(format_args!(
        "the guard acts by: {}, {} times the policy's strengths",
        table.guard_monitor, table.guard_dose
    ))
}
