//! Output of commands: text on stdout, tables and charts in folders, and how a command ended.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::console::STOPPED;
use pearlpoint::artifact::{self, Header, foreign_name};
use pearlpoint::error::Error;
use pearlpoint::model::Model;
use pearlpoint::printable::{one_line, printable};
use pearlpoint::report::{self, Chart};

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command did what it was asked.
    Done,
    /// The command is a check, and what it checked is not as it should be.
    CheckFailed,
    /// The command was stopped by Ctrl-C.
    Stopped,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> ExitCode {
        match outcome {
            Outcome::Done => ExitCode::SUCCESS,
            Outcome::CheckFailed => ExitCode::from(1),
            Outcome::Stopped => ExitCode::from(STOPPED as u8),
        }
    }
}

/// Prints text on stdout, its control characters escaped; newlines and tabs stay. `println!` would panic on a closed pipe.
pub fn print(text: impl std::fmt::Display) -> anyhow::Result<()> {
    print_exact(printable(&text.to_string()))
}

/// Prints text as one line on stdout; newlines and tabs in it are escaped too.
pub fn print_line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    print_exact(one_line(&text.to_string(), LONGEST_LINE))
}

/// Longest line of a name or a path, in characters.
const LONGEST_LINE: usize = 4000;

/// Prints JSON, a page, or text whose foreign parts are escaped already.
pub fn print_exact(text: impl std::fmt::Display) -> anyhow::Result<()> {
    write_stdout(format_args!("{text}\n"))
}

/// Writes to stdout and flushes, so that a full disk is noticed here and not when the program ends.
pub fn write_stdout(text: std::fmt::Arguments) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_fmt(text).and_then(|()| out.flush());
    Ok(written.map_err(Error::file(Path::new("stdout")))?)
}

/// The header of a table that a model's states or answers gave.
pub fn header(kind: &str, model: &Model) -> Header {
    let (name, hash) = (Some(model.name.clone()), Some(model.hash.clone()));
    Header { model: name, model_hash: hash, model_form: model.form().ok(), ..Header::new(kind, 1) }
}

/// Saves a chart's table as NAME.chart.json.
pub fn save_chart(folder: &Path, name: &str, chart: &Chart) -> anyhow::Result<()> {
    save(&folder.join(format!("{}.chart.json", foreign_name(name))), chart)
}

/// Saves a table that has no header of its own.
pub fn save(path: &Path, table: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_vec(table)?;
    artifact::write_atomic(path, |file| file.write_all(&text))?;
    Ok(())
}

/// Draws a folder's charts and prints their names.
pub fn draw_and_print(folder: &Path) -> anyhow::Result<Outcome> {
    report::draw_all(folder)?.iter().try_for_each(|drawn| print_line(drawn.display()))?;
    Ok(Outcome::Done)
}
