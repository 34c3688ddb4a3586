//! `pearl completions`: a shell's completion script, from the arguments themselves.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::output::{Outcome, write_stdout};

#[derive(Args)]
#[command(after_help = "Example:
  pearl completions bash")]
pub struct Arguments {
    /// The shell: bash, elvish, fish, powershell or zsh
    shell: Shell,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    generate(arguments.shell, &mut super::Arguments::command(), "pearl", &mut script);
    write_stdout(format_args!("{}", String::from_utf8_lossy(&script)))?;
    Ok(Outcome::Done)
}
