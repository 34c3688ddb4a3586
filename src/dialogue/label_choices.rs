//! Errors for labels and values that no dialogue has: they name those that there are.

use std::collections::BTreeSet;

use super::Dialogue;
use crate::error::{Error, Result};

/// Names that an error lists.
const LISTED: usize = 12;

/// Refuses a label that no dialogue has.
///
/// # Errors
/// If so; the message names the labels that there are.
pub fn check_label<'a>(dialogues: impl Iterator<Item = &'a Dialogue> + Clone, name: &str) -> Result<()> {
    if dialogues.clone().any(|dialogue| dialogue.label(name).is_some()) {
        return Ok(());
    }
    let names = dialogues.flat_map(|dialogue| dialogue.labels.keys().cloned());
    let expected = match listed(names.collect()) {
        names if names.is_empty() => "dialogues with labels".to_owned(),
        names => format!("one of {names}"),
    };
    Err(Error::input(format!("label {name}"), "on no dialogue", expected))
}

/// Refuses a value that no dialogue's label has. `place` begins the error.
///
/// # Errors
/// As [`check_label`]; if so; the message names the values that there are.
pub fn check_value<'a>(
    place: impl std::fmt::Display,
    dialogues: impl Iterator<Item = &'a Dialogue> + Clone,
    name: &str,
    value: &str,
) -> Result<()> {
    check_label(dialogues.clone(), name)?;
    let values: BTreeSet<String> = dialogues.filter_map(|dialogue| dialogue.label(name)).collect();
    match values.contains(value) {
        true => Ok(()),
        false => {
            let found = format!("no dialogue with {name} = {value}");
            Err(Error::input(place, found, format!("one of {}", listed(values))))
        }
    }
}

fn listed(names: BTreeSet<String>) -> String {
    let rest = names.len().saturating_sub(LISTED);
    let mut text = names.into_iter().take(LISTED).collect::<Vec<_>>().join(", ");
    if rest > 0 {
        text += &format!(" and {rest} more");
    }
    text
}
