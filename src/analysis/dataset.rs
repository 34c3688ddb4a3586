//! The dialogues of an experiment in three parts (fit, validation and test) that share no group, and their labels.

use std::collections::BTreeMap;

use crate::artifact;
use crate::config::Data;
use crate::dialogue::{self, Dialogue, Label};
use crate::error::{Error, Result};
use crate::organism::{self, Split};

/// Dialogues, where they came from, and which of them belong to which part.
pub struct Dataset {
    /// All dialogues, those of no part too.
    pub dialogues: Vec<Dialogue>,
    /// The file, or how they were sampled.
    pub source: String,
    /// SHA-256, in hex.
    pub hash: String,
    /// Numbers of the dialogues that probes and vectors are fitted on.
    pub fit: Vec<usize>,
    /// Numbers of those that choices are made on.
    pub validation: Vec<usize>,
    /// Numbers of those that results are measured on.
    pub test: Vec<usize>,
}

impl Dataset {
    /// Reads or samples the dialogues, and splits them by their groups.
    ///
    /// # Errors
    /// A file that can't be read, a dialogue without the group's label, or a part without a dialogue.
    pub fn load(data: &Data, seed: u64) -> Result<Dataset> {
        let read = Dataset::load_without_fit(data, seed)?;
        match read.fit.is_empty() {
            true => Err(no_part(&read.source, "fit")),
            false => Ok(read),
        }
    }

    /// As [`Dataset::load`], where nothing is fitted: the fit part may be empty.
    ///
    /// # Errors
    /// As there.
    pub fn load_without_fit(data: &Data, seed: u64) -> Result<Dataset> {
        let (dialogues, source, hash) = dialogues(data, seed)?;
        let mut parts: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (number, dialogue) in dialogues.iter().enumerate() {
            let part = match label(dialogue, &data.group)? {
                group if data.held_out.contains(&group) => "test",
                group if data.validation.contains(&group) => "validation",
                _ => "fit",
            };
            parts.entry(part).or_default().push(number);
        }
        let mut part = |name: &str, groups: &[String]| match parts.remove(name) {
            Some(numbers) => Ok(numbers),
            // A part that the file does not name.
            None if groups.is_empty() => Ok(Vec::new()),
            None => Err(no_part(&source, name)),
        };
        let (fit, validation, test) =
            (part("fit", &[])?, part("validation", &data.validation)?, part("test", &data.held_out)?);
        Ok(Dataset { dialogues, source, hash, fit, validation, test })
    }

    /// The values of a label, one a dialogue.
    ///
    /// # Errors
    /// As [`labels`].
    pub fn labels(&self, name: &str) -> Result<Vec<String>> {
        labels(self.dialogues.iter(), name)
    }
}

fn no_part(source: &str, name: &str) -> Error {
    Error::input(source, format!("no dialogue in the {name} part"), "some in each part")
}

/// The dialogues, their source (the file, or how they were sampled), and their hash.
///
/// # Errors
/// A file that can't be read.
pub(super) fn dialogues(data: &Data, seed: u64) -> Result<(Vec<Dialogue>, String, String)> {
    let (mut dialogues, source, hash) = match (&data.file, data.sample) {
        (Some(file), _) => {
            let read = dialogue::read(file, &dialogue::ReadOptions::default())?;
            (read.dialogues, file.display().to_string(), read.hash)
        }
        (None, count) => {
            let sampled = organism::sample(count.unwrap_or(0), Split::HeldOutWording, seed);
            let dialogues: Vec<Dialogue> = sampled.into_iter().map(|(_, dialogue)| dialogue).collect();
            let text = serde_json::to_vec(&dialogues)
                .map_err(|error| Error::input("dialogues", error, "what JSON can hold"))?;
            (dialogues, format!("the organism's world, seed {seed}"), artifact::sha256(&text))
        }
    };
    let is_excluded = |dialogue: &Dialogue| {
        data.exclude.iter().any(|(label, value)| dialogue.label(label).as_deref() == Some(value))
    };
    dialogues.retain(|dialogue| !is_excluded(dialogue));
    for dialogue in &mut dialogues {
        let group = dialogue.label(&data.group);
        let merged = data
            .merge_groups
            .iter()
            .find(|(_, parts)| group.as_ref().is_some_and(|group| parts.contains(group)));
        if let Some((name, _)) = merged {
            dialogue.labels.insert(data.group.clone(), Label::Text(name.clone()));
        }
    }
    if !data.held_out_with.is_empty() {
        let mut kept = Vec::new();
        for dialogue in dialogues {
            if !is_between(&dialogue, data)? {
                kept.push(dialogue);
            }
        }
        dialogues = kept;
    }
    Ok((dialogues, source, hash))
}

/// Whether some of the dialogue's group and further labels are held out, but not all of them.
fn is_between(dialogue: &Dialogue, data: &Data) -> Result<bool> {
    let mut held_out = vec![data.held_out.contains(&label(dialogue, &data.group)?)];
    for (name, values) in &data.held_out_with {
        held_out.push(values.contains(&label(dialogue, name)?));
    }
    Ok(held_out.iter().any(|held_out| *held_out) && !held_out.iter().all(|held_out| *held_out))
}

/// The values of a label, one a dialogue.
///
/// # Errors
/// If some dialogues lack it: how many, and the first.
pub fn labels<'a>(dialogues: impl Iterator<Item = &'a Dialogue>, name: &str) -> Result<Vec<String>> {
    let (mut values, mut lacking, mut first) = (Vec::new(), 0, None);
    for dialogue in dialogues {
        match dialogue.label(name) {
            Some(value) => values.push(value),
            None => {
                lacking += 1;
                first = first.or(Some(&dialogue.id));
            }
        }
    }
    match first {
        None => Ok(values),
        Some(first) => {
            let found = format!(
                "missing on {lacking} of {} dialogues ({first} is the first)",
                values.len() + lacking
            );
            Err(Error::input(format!("label {name}"), found, "one on every dialogue; exclude those without"))
        }
    }
}

/// The values of a label that may be a list, a list a dialogue.
///
/// # Errors
/// As [`labels`].
pub fn lists<'a>(
    dialogues: impl Iterator<Item = &'a Dialogue> + Clone,
    name: &str,
) -> Result<Vec<Vec<String>>> {
    labels(dialogues.clone(), name)?;
    Ok(dialogues.map(|dialogue| dialogue.values(name).unwrap_or_default()).collect())
}

/// A label's value.
///
/// # Errors
/// If the dialogue lacks it.
pub fn label(dialogue: &Dialogue, name: &str) -> Result<String> {
    let missing = || {
        Error::input(format!("dialogue {}", dialogue.id), format!("no label {name}"), "one on every dialogue")
    };
    dialogue.label(name).ok_or_else(missing)
}
