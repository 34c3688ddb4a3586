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
    if is_terminal {
        console.say(format!("{}: each line is a message; /help has the commands, Ctrl-D ends", model.name));
    }
    let mut line = Vec::new();
    loop {
        if is_terminal {
            write!(std::io::stderr(), "> ").and_then(|()| std::io::stderr().flush()).ok();
        }
        line.clear();
        let read = std::io::stdin().lock().read_until(b'\n', &mut line);
        let count = read.map_err(pearlpoint::Error::file(std::path::Path::new("stdin")))?;
        if count == 0 || !console.should_continue() {
            return Ok(Outcome::Done);
        }
        let said = std::str::from_utf8(&line).map(str::trim);
        let outcome = match said.map(|said| said.split_once(char::is_whitespace).unwrap_or((said, ""))) {
            Err(_) => Err(pearlpoint::Error::input("the message", "bytes that are no UTF-8", "a text")),
            Ok(("", _)) => Ok(()),
            Ok(("/quit" | "/exit", _)) => return Ok(Outcome::Done),
            Ok(("/help", _)) => {
                console.say_lines(HELP);
                console.say_lines(&names(&library));
                Ok(())
            }
            Ok(("/reset", _)) => {
                session.reset();
                session.system(arguments.system.as_deref().unwrap_or_default());
                console.say("a new dialogue");
                Ok(())
            }
            Ok(("/system", text)) => {
                session.system(text.trim());
                console.say(if text.trim().is_empty() {
                    "no system message"
                } else {
                    "the system message is set"
                });
                Ok(())
            }
            Ok(("/steer", text)) => session.steer(text).map(|()| match text.trim() {
                "" => console.say("not steered"),
                text => console.say(format!("steered by {}", printable(text))),
            }),
            Ok(("/probe", text)) => {
                let names: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
                session.probe(&names).map(|()| match text.trim() {
                    "" => console.say("nothing is read"),
                    text => console.say(format!("read: {}", printable(text))),
                })
            }
            Ok((command, _)) if command.starts_with('/') => {
                let expected = "/steer, /probe, /system, /reset, /help or /quit";
                Err(pearlpoint::Error::input(printable(command), "no such command", expected))
            }
            Ok(_) => answer(&mut session, String::from_utf8_lossy(&line).trim())?,
        };
        match outcome {
            // In a terminal a mistake is mended by the next line; elsewhere it ends the command.
            Err(error @ pearlpoint::Error::Input { .. }) if is_terminal => console.say(error),
            outcome => outcome?,
        }
    }
}

/// What the folders have, a line each kind.
fn names(library: &Library) -> String {
    let kinds = [
        ("plans", library.plan_names()),
        ("vectors", library.vector_names()),
        ("probes", library.probe_names()),
    ];
    let line = |(kind, names): (&str, Vec<String>)| match names.is_empty() {
        true => format!("{kind}: none (--vectors DIR)"),
        false => format!("{kind}: {}", names.join(", ")),
    };
    kinds.map(line).join("\n")
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
