//! The command line: one file a subcommand, and the only place that prints.

mod attention;
mod boundary;
#[cfg(feature = "serve")]
mod chat;
mod completions;
mod console;
mod constructive;
mod dash_values;
mod dialogues;
mod extract;
mod game;
mod generate;
mod inspect;
mod judge;
mod judge_choice;
mod lens;
mod man;
mod memory;
mod merge;
mod model;
mod organism;
mod output;
mod patch;
mod plot;
mod probe;
mod reasoning;
mod rounds;
mod run;
mod score_table;
#[cfg(feature = "serve")]
mod serve;
mod states;
mod steer_sweep;
mod store;
mod tokens;
mod vector;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use console::Console;
pub use console::complain;
use output::Outcome;

/// Read a language model's hidden states, map its risk boundary, and steer it
#[derive(Parser)]
#[command(name = "pearl", version, propagate_version = true)]
#[command(after_help = "Example:
  pearl demo")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print results and errors only
    #[arg(long, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Run the demo experiment on the embedded model: read, probe, map, steer, report
    Demo(run::Demo),
    /// Run an experiment file
    Run(run::Arguments),
    /// Record activations of dialogues in a store
    Extract(extract::Arguments),
    /// Merge or check stores of activations
    Store(store::Arguments),
    /// Show which tokens a selector picks
    Tokens(tokens::Arguments),
    /// Show the likeliest next tokens at each block and position (logit lens)
    Lens(lens::Arguments),
    /// Write a dialogue's attention weights, and draw those of a block or head
    Attention(attention::Arguments),
    /// Patch a prompt's hidden states into another prompt, block by block and position by position
    Patch(patch::Arguments),
    /// Fit, score and compare probes
    Probe(probe::Arguments),
    /// Map a probe's decision boundary, and compare it with the model's own
    Boundary(Box<boundary::Arguments>),
    /// Compute, combine, import and export steering vectors
    Vector(vector::Arguments),
    /// Compare steering methods over a grid of sites and strengths
    #[command(alias = "sweep")]
    SteerSweep(steer_sweep::Arguments),
    /// Answer prompts, steered or not
    Generate(generate::Arguments),
    /// Talk with a model in the terminal, steered and read
    #[cfg(feature = "serve")]
    Chat(Box<chat::Arguments>),
    /// Serve a model over HTTP as OpenAI's clients expect it, with steering and readings per request
    #[cfg(feature = "serve")]
    Serve(Box<serve::Arguments>),
    /// Solve the game between the model and its user, and explain the solution
    Game(game::Arguments),
    /// Fit a policy that reads the user, plays the game and steers the answer
    Constructive(constructive::Arguments),
    /// Parse safety chains, and refine those of failing answers
    Reasoning(reasoning::Arguments),
    /// Follow risk over the rounds of a dialogue: trace it, spread it, notice it
    Rounds(Box<rounds::Arguments>),
    /// Score saved answers by a judge, and compare judges with human labels
    Judge(judge::Arguments),
    /// Join the parts of answers or verdicts that were made with `--shard`
    Merge(merge::Arguments),
    /// Redraw every chart of a folder from its tables
    Plot(plot::Arguments),
    /// Describe a model: architecture, sizes, sites
    Inspect(inspect::Arguments),
    /// The embedded model: train, sample, check, export
    Organism(organism::Arguments),
    /// Print a script that completes commands and options in a shell
    Completions(completions::Arguments),
    /// Write man pages, one a command
    Man(man::Arguments),
}

impl Arguments {
    /// Parses the process's arguments.
    pub fn parse_or_error() -> Result<Arguments, clap::Error> {
        Arguments::parse_words(std::env::args_os().collect())
    }

    fn parse_words(words: Vec<OsString>) -> Result<Arguments, clap::Error> {
        let command = dash_values::allow(Arguments::command());
        let words = with_default_subcommand(words);
        dash_values::check(&command, &words)?;
        Arguments::from_arg_matches(&command.try_get_matches_from(words)?)
    }
}

/// `pearl boundary --store …` stands for `pearl boundary map --store …`.
fn with_default_subcommand(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let text = |argument: &OsString| argument.to_string_lossy().into_owned();
    let first = arguments.iter().skip(1).position(|argument| !text(argument).starts_with('-'));
    if let Some(at) = first.map(|at| at + 1).filter(|&at| text(&arguments[at]) == "boundary") {
        let next = arguments[at + 1..].iter().map(text).find(|argument| argument != "--quiet");
        let other = ["-h", "--help", "-V", "--version"];
        if next.is_some_and(|next| next.starts_with('-') && !other.contains(&next.as_str())) {
            arguments.insert(at + 1, "map".into());
        }
    }
    arguments
}

/// Runs a command.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let console = Console::new(arguments.quiet);
    match execute(arguments.command, &console) {
        Err(error) if matches!(error.downcast_ref(), Some(pearlpoint::Error::Stopped)) => {
            console.say_stopped();
            Ok(Outcome::Stopped)
        }
        outcome => outcome,
    }
}

fn execute(command: Command, console: &Console) -> anyhow::Result<Outcome> {
    match command {
        Command::Demo(arguments) => run::demo(arguments, console),
        Command::Run(arguments) => run::run(arguments, console),
        Command::Extract(arguments) => extract::run(arguments, console),
        Command::Store(arguments) => store::run(arguments, console),
        Command::Tokens(arguments) => tokens::run(arguments, console),
        Command::Lens(arguments) => lens::run(arguments, console),
        Command::Attention(arguments) => attention::run(arguments, console),
        Command::Patch(arguments) => patch::run(arguments, console),
        Command::Probe(arguments) => probe::run(arguments, console),
        Command::Boundary(arguments) => boundary::run(*arguments, console),
        Command::Vector(arguments) => vector::run(arguments, console),
        Command::SteerSweep(arguments) => steer_sweep::run(arguments, console),
        Command::Generate(arguments) => generate::run(arguments, console),
        #[cfg(feature = "serve")]
        Command::Chat(arguments) => chat::run(*arguments, console),
        #[cfg(feature = "serve")]
        Command::Serve(arguments) => serve::run(*arguments, console),
        Command::Game(arguments) => game::run(arguments, console),
        Command::Constructive(arguments) => constructive::run(arguments, console),
        Command::Reasoning(arguments) => reasoning::run(arguments, console),
        Command::Rounds(arguments) => rounds::run(*arguments, console),
        Command::Judge(arguments) => judge::run(arguments, console),
        Command::Merge(arguments) => merge::run(&arguments, console),
        Command::Plot(arguments) => plot::run(arguments, console),
        Command::Inspect(arguments) => inspect::run(arguments, console),
        Command::Organism(arguments) => organism::run(arguments, console),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments, console),
    }
}

/// Prints help as it is, and a usage error as one line.
pub fn refuse(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if !error.use_stderr() || error.kind() == DisplayHelpOnMissingArgumentOrSubcommand {
        return match error.print() {
            Err(problem) if problem.kind() != std::io::ErrorKind::BrokenPipe => {
                complain(format_args!("pearl: stdout: {problem}"));
                ExitCode::from(2)
            }
            _ if error.use_stderr() => ExitCode::from(2),
            _ => ExitCode::SUCCESS,
        };
    }
    let text = error.to_string();
    let mut parts = text.split("\n\n");
    let first = parts.next().unwrap_or_default().trim_start_matches("error: ");
    let tip = parts.find(|part| part.trim_start().starts_with("tip:")).unwrap_or_default();
    let line =
        format!("{} {tip}", with_expected_number(first)).split_whitespace().collect::<Vec<_>>().join(" ");
    complain(format_args!("pearl: {line}"));
    ExitCode::from(2)
}

/// What Rust says of a text that is no number, and what would be right.
const NO_NUMBERS: [(&str, &str); 7] = [
    ("invalid digit found in string", "not a whole number from 0; expected one, such as 8"),
    ("cannot parse integer from empty string", "nothing; expected a whole number, such as 8"),
    ("number too large to fit in target type", "too large; expected a smaller whole number"),
    ("number too small to fit in target type", "too small; expected a larger whole number"),
    ("number would be zero for non-zero type", "zero; expected a whole number from 1"),
    ("invalid float literal", "not a number; expected one, such as 0.5"),
    ("cannot parse float from empty string", "nothing; expected a number, such as 0.5"),
];

/// A usage error that says which number would be right.
fn with_expected_number(line: &str) -> String {
    let known =
        NO_NUMBERS.iter().find_map(|(said, right)| Some(format!("{}{right}", line.strip_suffix(said)?)));
    known.unwrap_or_else(|| line.into())
}

/// Whether the error is a closed pipe: nobody reads the output any more.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut io = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands without subcommands of their own.
    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        let own: Vec<&clap::Command> =
            command.get_subcommands().filter(|one| one.get_name() != "help").collect();
        if own.is_empty() {
            found.push((path.into(), command.clone()));
        }
        for one in own {
            leaves(one, &format!("{path} {}", one.get_name()), found);
        }
    }

    #[test]
    fn every_subcommand_has_an_example_that_parses() {
        let mut found = Vec::new();
        leaves(&Arguments::command(), "pearl", &mut found);
        assert!(found.len() > 25);
        for (path, command) in found {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  ")).collect();
            assert!(lines.iter().any(|line| line.starts_with(&path)), "{path}: {help}");
            for line in lines {
                // What stands in quotes is one word.
                let words = line.split('"').enumerate().flat_map(|(number, part)| match number % 2 {
                    0 => part.split_whitespace().collect::<Vec<_>>(),
                    _ => vec![part],
                });
                let parsed = Arguments::try_parse_from(words);
                assert!(parsed.is_ok(), "{line}: {}", parsed.err().unwrap());
            }
        }
    }

    fn parsed(words: &[&str]) -> Result<Arguments, String> {
        let words = std::iter::once("pearl").chain(words.iter().copied()).map(OsString::from).collect();
        // As `refuse` prints it.
        Arguments::parse_words(words)
            .map_err(|error| error.to_string().lines().next().unwrap_or_default().into())
    }

    #[test]
    fn every_option_takes_a_value_that_begins_with_a_dash() {
        let mut found = Vec::new();
        leaves(&Arguments::command(), "pearl", &mut found);
        let text = std::any::TypeId::of::<String>();
        let mut tried = 0;
        for (path, command) in found {
            let words: Vec<&str> = path.split(' ').skip(1).collect();
            for option in command.get_arguments().filter(|arg| arg.get_value_parser().type_id() == text) {
                let Some(name) = option.get_long().map(|name| format!("--{name}")) else { continue };
                for value in ["- rest", "---", "-x", "--nothing", "-1", "--", "-"] {
                    // Other options of the command are still missing, perhaps; the value is not what is wrong.
                    let error = parsed(&[&words[..], &[&name, value]].concat()).err().unwrap_or_default();
                    assert!(
                        !error.contains("unexpected") && !error.contains("a value is required"),
                        "{path} {name} {value}: {error}"
                    );
                    tried += 1;
                }
            }
        }
        assert!(tried > 150, "{tried}");
    }

    #[test]
    fn an_option_in_the_place_of_a_value_is_named() {
        for words in [
            &["generate", "--prompt", "--data", "d.jsonl"][..],
            &["tokens", "--prompt", "--quiet"],
            &["probe", "fit", "--store", "s", "--order", "--strengths", "1"],
            &["boundary", "map", "--from", "--to=b"],
            &["generate", "--prompt", "hi", "--stop", "--help"],
        ] {
            let error = parsed(words).err().unwrap();
            assert!(
                error.contains("a value is required for '--")
                    && error.contains("is an option; expected a value, or --"),
                "{error}"
            );
        }
        assert!(parsed(&["generate", "--prompt=--data", "--stop=--help"]).is_ok());
        assert!(parsed(&["generate", "--prompt", "--data", "--data", "d.jsonl"]).is_err());
        assert!(parsed(&["inspect", "--model", "m"]).is_ok() && parsed(&["inspect", "m"]).is_ok());
        assert!(parsed(&["inspect"]).is_err() && parsed(&["inspect", "m", "--model", "m"]).is_err());
    }

    #[test]
    fn old_names_still_parse() {
        let boundary = "--store s --data d --probe p --from a --to b --out o";
        for line in [
            "pearl sweep file.toml --out o",
            "pearl run file.toml --out o --again",
            "pearl probe fit --store s --data d --label l --out o --kind levels --strengths 0.1,1",
            "pearl boundary cross --data d --probe p --out o",
            "pearl boundary tokens --prompt a --probe p --class c --out o",
            "pearl boundary drift --data d --probe p --risk-map m --out o",
            "pearl boundary learn --store s --data d --label l --site embed --group g --held-out h --out o",
            &format!("pearl boundary {boundary}"),
            &format!("pearl --quiet boundary --quiet {boundary}"),
            &format!("pearl boundary map {boundary}"),
        ] {
            let words = line.split_whitespace().map(OsString::from).collect();
            let parsed = Arguments::try_parse_from(with_default_subcommand(words));
            assert!(parsed.is_ok(), "{line}: {}", parsed.err().unwrap());
        }
    }
}
