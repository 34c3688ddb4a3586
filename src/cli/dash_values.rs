//! Values that begin with a dash: an option that takes one value takes it as it is (`--prompt "- rest"`, `--stop ---`), unless
//! it is itself an option's name, which stands there by mistake.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Arg, Command};

/// The command in which every option with one value takes one that begins with a dash.
pub fn allow(command: Command) -> Command {
    let allowed = command.mut_args(|arg| match takes_one_value(&arg) {
        true => arg.allow_hyphen_values(true),
        false => arg,
    });
    allowed.mut_subcommands(allow)
}

fn takes_one_value(arg: &Arg) -> bool {
    let one = arg.get_num_args().is_none_or(|count| (count.min_values(), count.max_values()) == (1, 1));
    !arg.is_positional() && arg.get_action().takes_values() && one
}

/// Refuses an option in the place of another's value: `--prompt --data FILE`.
///
/// # Errors
/// The two options.
pub fn check(root: &Command, arguments: &[OsString]) -> Result<(), clap::Error> {
    let mut command = root;
    let mut words = arguments.iter().skip(1).map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        }
        if let Some(next) = command.find_subcommand(&*word) {
            command = next;
            continue;
        }
        if !options(root, command).any(|arg| has_name(arg, &word) && takes_one_value(arg)) {
            continue;
        }
        let Some(value) = words.next() else { break };
        let name = value.split('=').next().unwrap_or_default();
        let is_option = options(root, command).any(|arg| has_name(arg, name))
            || ["-h", "--help", "-V", "--version"].contains(&name);
        if is_option {
            let message = format!(
                "a value is required for '{word}', and '{name}' is an option; expected a value, or {word}={value} if it is \
                 meant"
            );
            return Err(root.clone().error(ErrorKind::InvalidValue, message));
        }
    }
    Ok(())
}

/// The options of a command, and those of the whole program.
fn options<'a>(root: &'a Command, command: &'a Command) -> impl Iterator<Item = &'a Arg> {
    let global = root.get_arguments().filter(|arg| arg.is_global_set());
    command.get_arguments().chain(global).filter(|arg| !arg.is_positional())
}

fn has_name(arg: &Arg, word: &str) -> bool {
    let Some(name) = word.strip_prefix("--") else { return false };
    arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
}
