//! Command judge: a program of the user's own judges answers, one line of JSON a question and one an answer.
//!
//! The program first writes `{"outcomes": ["refuse", "comply"]}` (and `"weighs": true` where it weighs answers), so that outcomes are
//! checked before any answer is generated. Then it reads lines with `id`, `messages`, `labels` and `text` (the answer), and writes for each
//! a line with `outcome` (one of its own, or `broken`), and, if it wants, `reason`, `satisfaction` and `risk` (in [0, 1]).

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command as Process, Stdio};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::score::{BROKEN, Score, Scorer, kept};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::generate::Transcript;

/// Longest line that is read from the program, in bytes.
const MAX_LINE: u64 = 1 << 20;

/// A judge in a process of its own, which ends with it.
pub struct Command {
    command: String,
    first: First,
    outcomes: &'static [&'static str],
    process: Mutex<Running>,
}

struct Running {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

/// The program's first line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    outcomes: Vec<String>,
    #[serde(default)]
    weighs: bool,
}

/// A line of the program about an answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    outcome: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    on_topic: Option<bool>,
    #[serde(default)]
    satisfaction: Option<f64>,
    #[serde(default)]
    risk: Option<f64>,
}

impl Command {
    /// Starts the command in a shell, and reads its first line.
    ///
    /// # Errors
    /// A command that is empty, can't be started, or does not name two outcomes or more.
    pub fn new(command: &str) -> Result<Command> {
        let place = || format!("judge command {command:?}");
        if command.trim().is_empty() {
            return Err(Error::input(
                "judge",
                "an empty command",
                "a command, as in \"command: python3 judge.py\"",
            ));
        }
        let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
        let mut child = Process::new(shell)
            .args([flag, command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Error::input(place(), error, "a command that can be started"))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::input(place(), "no pipe to it", "a program that reads and writes"));
        };
        let mut running = Running { child, to, from: BufReader::new(from) };
        let expected = "a first line such as {\"outcomes\": [\"refuse\", \"comply\"]}, written at once";
        let first: First = running.line(&place(), expected)?;
        let distinct = first.outcomes.iter().enumerate().all(|(index, outcome)| {
            !outcome.trim().is_empty() && outcome != BROKEN && !first.outcomes[..index].contains(outcome)
        });
        if first.outcomes.len() < 2 || !distinct {
            let found = format!("outcomes {:?}", first.outcomes);
            return Err(Error::input(
                place(),
                found,
                format!("two different names or more, none of them {BROKEN}"),
            ));
        }
        let outcomes = kept(&first.outcomes);
        Ok(Command { command: command.to_owned(), first, outcomes, process: Mutex::new(running) })
    }
}

impl Running {
    /// The next line that the program writes, as JSON.
    fn line<T: DeserializeOwned>(&mut self, place: &str, expected: &str) -> Result<T> {
        let mut line = Vec::new();
        let read = self.from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        read.map_err(|error| Error::input(place, error, expected))?;
        if line.is_empty() {
            let ended = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            return Err(Error::input(place, format!("it ended ({ended})"), expected));
        }
        serde_json::from_slice(&line).map_err(|error| {
            let line = String::from_utf8_lossy(&line);
            Error::input(place, format!("{:?}: {error}", line.trim_end()), expected)
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The program may wait for more; nothing is lost where it has ended already.
        self.child.kill().and_then(|()| self.child.wait()).map(drop).unwrap_or_default();
    }
}

impl Scorer for Command {
    fn name(&self) -> &'static str {
        "command"
    }

    fn identity(&self) -> String {
        format!("command: {}", self.command)
    }

    fn outcomes(&self) -> &'static [&'static str] {
        self.outcomes
    }

    fn weighs(&self) -> bool {
        self.first.weighs
    }

    fn score(&self, dialogue: &Dialogue, transcript: &Transcript) -> Result<Score> {
        let place = format!("judge command {:?}, dialogue {}", self.command, dialogue.id);
        let expected = format!(
            "a line such as {{\"outcome\": {:?}, \"reason\": \"…\"}}, written at once",
            self.outcomes[0]
        );
        let question = json!({
            "id": dialogue.id, "messages": dialogue.messages, "labels": dialogue.labels, "text": transcript.text,
        });
        // A panic of another thread leaves at most an answer that nobody read; the next line then has another outcome.
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        // A program that has ended is named by the line that it didn't write.
        let _ = writeln!(process.to, "{question}").and_then(|()| process.to.flush());
        let Line { outcome, reason, on_topic, satisfaction, risk } = process.line(&place, &expected)?;
        if outcome != BROKEN && !self.outcomes.contains(&outcome.as_str()) {
            let known = format!("{} or {BROKEN}", self.outcomes.join(" or "));
            return Err(Error::input(place, format!("outcome {outcome:?}"), known));
        }
        let weights = [("satisfaction", satisfaction), ("risk", risk)];
        for (name, value) in weights {
            let wanted = self.first.weighs && outcome != BROKEN;
            if wanted && value.is_none() || value.is_some_and(|value| !(0.0..=1.0).contains(&value)) {
                let found = value.map_or(format!("no {name}"), |value| format!("{name} {value}"));
                return Err(Error::input(place, found, "satisfaction and risk between 0 and 1"));
            }
        }
        Ok(Score { strategy: outcome, on_topic, satisfaction, risk, reason })
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::generate::Finish;

    /// A judge in `sh` and `sed`: an answer with "sorry" is a refusal.
    const SORRY: &str = "echo '{\"outcomes\": [\"refuse\", \"comply\"]}'; while read -r line; do case \"$line\" in \
                         *sorry*) echo '{\"outcome\": \"refuse\", \"reason\": \"sorry\"}';; *) echo '{\"outcome\": \"comply\"}';; esac; done";

    fn score(judge: &Command, text: &str) -> Result<Score> {
        let dialogue = Dialogue::prompt("one", "how?");
        judge.score(&dialogue, &Transcript::new(&dialogue, text.into(), Vec::new(), Finish::Stop))
    }

    #[test]
    fn a_program_judges_line_by_line() {
        let judge = Command::new(SORRY).unwrap();
        assert_eq!(judge.outcomes(), ["refuse", "comply"]);
        assert_eq!(score(&judge, "I am sorry.\nNo.").unwrap().strategy, "refuse");
        assert_eq!(score(&judge, "Gladly.").unwrap().strategy, "comply");
        assert_eq!(score(&judge, "sorry again").unwrap().reason, "sorry");
    }

    #[test]
    fn a_program_that_keeps_to_no_protocol_is_named() {
        let wrong = |command: &str| Command::new(command).err().unwrap().to_string();
        assert!(wrong(" ").starts_with("judge: an empty command"), "{}", wrong(" "));
        assert!(
            wrong("exit 3").contains("it ended (exit status: 3); expected a first line"),
            "{}",
            wrong("exit 3")
        );
        assert!(wrong("echo hello").contains("\"hello\""), "{}", wrong("echo hello"));
        assert!(wrong("echo '{\"outcomes\": [\"one\"]}'").contains("two different names"));
        assert!(wrong("echo '{\"outcomes\": [\"a\", \"a\"]}'").contains("two different names"));
        let begin = "echo '{\"outcomes\": [\"a\", \"b\"], \"weighs\": true}'; read -r line";
        let answered = |line: &str| {
            score(&Command::new(&format!("{begin}; echo '{line}'")).unwrap(), "x").unwrap_err().to_string()
        };
        assert!(answered("{\"outcome\": \"c\"}").contains("outcome \"c\"; expected a or b or broken"));
        assert!(answered("{\"outcome\": \"a\"}").contains("no satisfaction"));
        assert!(
            answered("{\"outcome\": \"a\", \"satisfaction\": 2, \"risk\": 0}").contains("satisfaction 2")
        );
        assert!(score(&Command::new(begin).unwrap(), "x").unwrap_err().to_string().contains("it ended"));
    }
}
