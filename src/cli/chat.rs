//! `pearl chat`: a dialogue in the terminal, with readings beside the text.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;

use super::console::Console;
use super::model::ModelChoice;
use super::output::{Outcome, print, write_stdout};
use pearlpoint::generate::{GenerateOptions, Sampling};
use pearlpoint::printable::printable;
use pearlpoint::serve::{Library, ProbeReadings, Session};

#[derive(Args)]
#[command(after_help = "Example:
  pearl chat --model organism --vectors vectors --probe risk

Each line is a message. Lines that begin with / are commands: /steer, /probe, /system, /reset, /help, /quit.")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelChoice,
    /// Folder of vectors, probes (*.safetensors) and plans (*.toml, *.json), known by their files' names; may be repeated
    #[arg(long, value_name = "DIR")]
    vectors: Vec<PathBuf>,
    /// Steer from the beginning, as /steer does
    #[arg(long, value_name = "PLAN|VECTOR:STRENGTH", allow_hyphen_values = true)]
    steer: Option<String>,
    /// Read a probe from the beginning, as /probe does; may be repeated
    #[arg(long, value_name = "NAME[:CLASS]")]
    probe: Vec<String>,
    /// A system message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Tokens of an answer, at most
    #[arg(long, default_value_t = 512)]
    max_tokens: usize,
    /// Take the most probable token each time
    #[arg(long, conflicts_with = "temperature")]
    greedy: bool,
    /// Sampling temperature
    #[arg(long, default_value_t = 1.0)]
    temperature: f32,
    /// Seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

const HELP: &str = "/steer PLAN [FACTOR]                 steer by a plan of the folder
/steer VECTOR:STRENGTH[@SITES], …   steer by vectors
/steer                              steer no more
/probe NAME[:CLASS] …               read probes; * for all, nothing for none
/system TEXT                        begin the dialogue with a system message
/reset                              begin the dialogue anew
/quit                               end";

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let sampling = match arguments.greedy {
        true => Sampling::Greedy,
        false => Sampling::temperature(arguments.temperature)?,
    };
    let model = arguments.model.load(console)?;
    model.decoder.expect_logits()?;
    let library = Library::read(&arguments.vectors, &model, &|remark| console.say(remark))?;
    let options = GenerateOptions::default()
        .sampling(sampling)
        .max_tokens(arguments.max_tokens)
        .seed(arguments.seed)
        .thinking(arguments.model.thinking());
    let mut session = Session::new(&model, &library, options);
    if let Some(text) = &arguments.steer {
        session.steer(text)?;
    }
    session.probe(&arguments.probe)?;
    session.system(arguments.system.as_deref().unwrap_or_default());
    let is_terminal = std::io::stdin().is_terminal();
    let mut line = String::new();
    loop {
        if is_terminal {
            write!(std::io::stderr(), "> ").and_then(|()| std::io::stderr().flush()).ok();
        }
        line.clear();
        let read = std::io::stdin().lock().read_line(&mut line);
        let count = read.map_err(pearlpoint::Error::file(std::path::Path::new("stdin")))?;
        if count == 0 || !console.should_continue() {
            return Ok(Outcome::Done);
        }
        let said = line.trim();
        let outcome = match said.split_once(' ').unwrap_or((said, "")) {
            ("", _) => Ok(()),
            ("/quit" | "/exit", _) => return Ok(Outcome::Done),
            ("/help", _) => {
                console.say_lines(HELP);
                Ok(())
            }
            ("/reset", _) => {
                session.reset();
                session.system(arguments.system.as_deref().unwrap_or_default());
                Ok(())
            }
            ("/system", text) => {
                session.system(text.trim());
                Ok(())
            }
            ("/steer", text) => session.steer(text),
            ("/probe", text) => {
                let names: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
                session.probe(&names)
            }
            (command, _) if command.starts_with('/') => {
                let expected = "/steer, /probe, /system, /reset, /help or /quit";
                Err(pearlpoint::Error::input(command, "no such command", expected))
            }
            _ => answer(&mut session, said)?,
        };
        match outcome {
            // In a terminal a mistake is mended by the next line; elsewhere it ends the command.
            Err(error @ pearlpoint::Error::Input { .. }) if is_terminal => console.say(error),
            outcome => outcome?,
        }
    }
}

/// Prints the answer as it comes, and the readings under it.
fn answer(session: &mut Session, said: &str) -> anyhow::Result<pearlpoint::Result<()>> {
    let mut failed = None;
    let round = session.say(said, &mut |text| {
        failed = write_stdout(format_args!("{}", printable(text))).err();
        failed.is_none()
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let round = match round {
        Ok(round) => round,
        Err(error) => return Ok(Err(error)),
    };
    print("")?;
    for (name, readings) in &round.readings {
        print(format!("  [{}]", said_of(name, readings)))?;
    }
    Ok(Ok(()))
}

/// A line of what a probe read in the last round.
fn said_of(name: &str, readings: &ProbeReadings) -> String {
    let class = match name.contains(':') {
        true => String::new(),
        false => format!(" ({})", readings.class),
    };
    let mut parts = Vec::new();
    if let Some(turn) = readings.turns.last() {
        parts.push(format!("message {:.3}", turn.reading.probability));
    }
    parts.extend(readings.start.map(|start| format!("start {:.3}", start.probability)));
    parts.extend(readings.phases.iter().map(|(phase, mean)| format!("{phase} {mean:.3}")));
    if let Some(verdict) = &readings.verdict {
        let word = if verdict.flagged { "flagged" } else { "not flagged" };
        parts.push(format!("{word} from {:.3} on", verdict.threshold));
    }
    format!("{name}{class}: {}", parts.join(", "))
}
