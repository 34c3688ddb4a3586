//! The dialogues of an experiment, and their three parts: fit, validation and test share no group.

use std::collections::BTreeMap;

use super::layer_sweep::{label, labels};
use crate::artifact;
use crate::config::experiment::Data;
use crate::dialogue::{self, Dialogue, Label};
use crate::error::{Error, Result};
use crate::organism::{self, Split};

/// Dialogues, where they came from, and which of them belong to which part.
pub struct Dataset {
    pub dialogues: Vec<Dialogue>,
    /// The file, or how they were drawn.
    pub source: String,
    /// SHA-256, in hex.
    pub hash: String,
    /// Numbers of the dialogues that probes and vectors are fitted on.
    pub fit: Vec<usize>,
    /// Those that choices are made on.
    pub validation: Vec<usize>,
    /// Those that results are measured on.
    pub test: Vec<usize>,
}

impl Dataset {
    pub fn load(data: &Data, seed: u64) -> Result<Dataset> {
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
            // A part that nobody asked for.
            None if groups.is_empty() && name != "fit" => Ok(Vec::new()),
            None => {
                Err(Error::input(&source, format!("no dialogue in the {name} part"), "some in each part"))
            }
        };
        let (fit, validation, test) =
            (part("fit", &[])?, part("validation", &data.validation)?, part("test", &data.held_out)?);
        Ok(Dataset { dialogues, source, hash, fit, validation, test })
    }

    /// The values of a label, one a dialogue.
    pub fn labels(&self, name: &str) -> Result<Vec<String>> {
        labels(self.dialogues.iter(), name)
    }
}

/// The dialogues that are asked for, the file that they are from or how they were drawn, and their hash.
pub(crate) fn dialogues(data: &Data, seed: u64) -> Result<(Vec<Dialogue>, String, String)> {
    let (mut dialogues, source, hash) = match (&data.file, data.draw) {
        (Some(file), _) => {
            let read = dialogue::read(file, &dialogue::ReadOptions::default())?;
            (read.dialogues, file.display().to_string(), read.hash)
        }
        (None, count) => {
            let drawn = organism::sample(count.unwrap_or(0), Split::HeldOutWording, seed);
            let dialogues: Vec<Dialogue> = drawn.into_iter().map(|(_, dialogue)| dialogue).collect();
            let text = serde_json::to_vec(&dialogues)
                .map_err(|error| Error::input("dialogues", error, "what JSON can hold"))?;
            (dialogues, format!("the organism's world, seed {seed}"), artifact::sha256(&text))
        }
    };
    let out = |dialogue: &Dialogue| {
        data.without.iter().any(|(label, value)| dialogue.label(label).as_deref() == Some(value))
    };
    dialogues.retain(|dialogue| !out(dialogue));
    for dialogue in &mut dialogues {
        let group = dialogue.label(&data.group);
        let whole =
            data.together.iter().find(|(_, parts)| group.as_ref().is_some_and(|group| parts.contains(group)));
        if let Some((name, _)) = whole {
            dialogue.labels.insert(data.group.clone(), Label::Text(name.clone()));
        }
    }
    Ok((dialogues, source, hash))
}
