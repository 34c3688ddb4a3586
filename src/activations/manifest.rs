//! Manifest of a store of activations: the provenance of the activations, and the list of shards.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::artifact::{self, Header, Part};
use crate::dialogue;
use crate::error::{Error, Result};
use crate::model::{Selector, Site};

/// Kind and version in the headers of manifest and shards.
pub(super) const KIND: &str = "activations";
pub(super) const VERSION: u32 = 1;
/// File name of the manifest. It is written last, so that a folder that has it is complete.
pub(super) const MANIFEST: &str = "manifest.json";
/// File name of the journal of an unfinished store.
pub(super) const JOURNAL: &str = "unfinished.jsonl";
/// How shards are assigned to parts: each to the part that has the fewest tokens so far.
pub(super) const BALANCE: &str = "tokens";
/// What the file names of shards begin with.
pub(super) const SHARD_PREFIX: &str = "shard-";

/// The contents of `manifest.json` after the header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Architecture family of the model.
    pub family: String,
    /// The file that the dialogues were read from, or how they were sampled.
    pub dataset: String,
    /// The selection of its dialogues.
    #[serde(default)]
    pub chosen: dialogue::ReadOptions,
    /// Sites of the activations.
    pub sites: Vec<Site>,
    /// Selector of the tokens.
    pub tokens: Selector,
    /// The type that activations are stored in: f32, f16 or bf16.
    pub dtype: String,
    /// The type that the model's weight matrices had in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// SHA-256 of the chat template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The template's thinking mode, where it was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<bool>,
    /// The day that the chat template was told (UTC, YYYY-MM-DD), where it asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Tokens of a batch. Part of the provenance, because another batch size rounds differently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_tokens: Option<usize>,
    /// Hash of the plan that the model was steered by, and of the files that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Which part, where the store holds a part of the dialogues only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// How shards were assigned to parts, in a part: `tokens`. Parts that were assigned in another way can't be joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balanced_by: Option<String>,
    /// Rows over all shards.
    pub rows: usize,
    /// Tokens of the dialogues.
    #[serde(default)]
    pub tokens_read: usize,
    /// Dialogues left out because the chat template or the model refused them.
    #[serde(default)]
    pub refused: usize,
    /// Dialogues in which the selector picked nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unpicked: usize,
    /// File names of the shards, in the order of their rows.
    pub shards: Vec<String>,
    /// SHA-256 of each shard file, in hex.
    #[serde(default)]
    pub hashes: Vec<String>,
}

impl Manifest {
    /// A manifest without shards, with f32 activations and without optional provenance.
    pub fn new(family: &str, dataset: &str, sites: Vec<Site>, tokens: &Selector) -> Manifest {
        Manifest {
            family: family.into(),
            dataset: dataset.into(),
            chosen: dialogue::ReadOptions::default(),
            sites,
            tokens: tokens.clone(),
            dtype: "f32".into(),
            weights: None,
            template: None,
            thinking: None,
            date: None,
            batch_tokens: None,
            plan: None,
            part: None,
            balanced_by: None,
            rows: 0,
            tokens_read: 0,
            refused: 0,
            unpicked: 0,
            shards: Vec::new(),
            hashes: Vec::new(),
        }
    }

    /// Writes it to the store's folder.
    pub(super) fn write(&self, folder: &Path, header: &Header) -> Result<()> {
        let header = Header { kind: KIND.into(), version: VERSION, ..header.clone() };
        artifact::write_json(&folder.join(MANIFEST), &header, self)
    }

    /// Reads the manifest of a store's folder.
    ///
    /// # Errors
    /// A folder that is no store, or an unfinished one.
    pub(super) fn read(folder: &Path) -> Result<(Header, Manifest)> {
        let path = folder.join(MANIFEST);
        if !path.exists() && folder.join(JOURNAL).exists() {
            let expected = "a complete one: the command that began it continues where it stopped";
            return Err(Error::input(folder.display(), "a store whose run was not finished", expected));
        }
        let there = std::fs::metadata(&path).map_err(Error::file(&path));
        there
            .map_err(|error| error.where_missing("a store, the folder that `pearl extract --out` writes"))?;
        let (header, manifest): (Header, Manifest) = artifact::read_json(&path, KIND, VERSION)?;
        manifest.shards.iter().try_for_each(|name| check_shard_name(&path, name))?;
        Ok((header, manifest))
    }

    /// Refuses a store of a run with another provenance. File names may differ, because hashes identify their contents.
    pub(super) fn check_same(
        &self,
        header: &Header,
        found: &(Header, Manifest),
        folder: &Path,
    ) -> Result<()> {
        let ours = identity(header, self);
        let theirs = identity(&found.0, &found.1);
        let none = Value::Null;
        for key in ours.keys().chain(theirs.keys()) {
            let (here, there) = (ours.get(key).unwrap_or(&none), theirs.get(key).unwrap_or(&none));
            if here != there {
                let (there, here) = difference(there, here);
                let found = format!("begun with another `{key}`: {there}");
                let expected = format!("{here}, as this run has it, or another folder");
                return Err(Error::input(folder.display(), found, expected));
            }
        }
        Ok(())
    }
}

/// Refuses a shard that would lie outside the folder of its manifest or journal, `path`.
pub(super) fn check_shard_name(path: &Path, name: &str) -> Result<()> {
    let inside = artifact::foreign_path(name).is_some_and(|path| path.components().count() == 1);
    match inside && name.starts_with(SHARD_PREFIX) {
        true => Ok(()),
        false => {
            let expected = format!("the name of a file beside it, {SHARD_PREFIX}NUMBER.safetensors");
            Err(Error::input(path.display(), format!("the shard {name:?}"), expected))
        }
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The keys and values in which two runs must agree to make the same store.
fn identity(header: &Header, manifest: &Manifest) -> BTreeMap<String, Value> {
    let values = [serde_json::to_value(header), serde_json::to_value(manifest)];
    let objects = values.into_iter().flatten().filter_map(|value| match value {
        Value::Object(object) => Some(object),
        _ => None,
    });
    let named = ["kind", "version", "model", "model_form", "dataset"];
    let counted = ["rows", "tokens_read", "refused", "unpicked", "shards", "hashes"];
    let kept = |key: &String| !named.contains(&key.as_str()) && !counted.contains(&key.as_str());
    let mut identity: BTreeMap<String, Value> = objects.flatten().filter(|(key, _)| kept(key)).collect();
    // A run that stopped at a bad record may be continued with `skip_bad`: they agree on everything before it.
    if let Some(Value::Object(chosen)) = identity.get_mut("chosen") {
        chosen.remove("skip_bad");
    }
    identity
}

/// Two different values as text; of lists, their lengths and the first items that the other lacks.
fn difference(one: &Value, other: &Value) -> (String, String) {
    let (Value::Array(many), Value::Array(others)) = (one, other) else {
        let plain = |value: &Value| match value {
            Value::Null => "none".into(),
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        return (plain(one), plain(other));
    };
    let list = |list: &[Value], others: &[Value]| {
        let only: Vec<&str> =
            list.iter().filter(|item| !others.contains(item)).filter_map(Value::as_str).take(4).collect();
        match only.as_slice() {
            [] => format!("{} of them", list.len()),
            only => format!("{} of them, {} among them", list.len(), only.join(", ")),
        }
    };
    (list(many, others), list(others, many))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_differs() {
        let manifest = |sites: &str| {
            let sites = Site::parse_set(sites, 4).unwrap();
            Manifest::new("qwen3", "data.jsonl", sites, &Selector::Last)
        };
        let one = manifest("*.resid_post");
        let folder = Path::new("store");
        let against = |header: Header, other: Manifest| {
            let found = (header, Manifest { rows: 7, dataset: "moved.jsonl".into(), ..other });
            one.check_same(&of_data("a"), &found, folder).map_err(|error| error.to_string())
        };
        assert_eq!(against(of_data("a"), one.clone()), Ok(()));
        assert_eq!(
            against(of_data("b"), one.clone()).unwrap_err(),
            "store: begun with another `data_hash`: b; expected a, as this run has it, or another folder"
        );
        let error = against(of_data("a"), manifest("0-2.resid_post,embed")).unwrap_err();
        assert!(
            error.contains("`sites`: 4 of them, embed among them; expected 4 of them, 3.resid_post"),
            "{error}"
        );
        let pooled = Manifest { tokens: "mean(answer)".parse().unwrap(), ..one.clone() };
        assert!(against(of_data("a"), pooled).unwrap_err().contains("`tokens`: mean(answer); expected last"));
        let bad = dialogue::ReadOptions { skip_bad: true, ..Default::default() };
        assert_eq!(against(of_data("a"), Manifest { chosen: bad, ..one.clone() }), Ok(()));
        let few = dialogue::ReadOptions { limit: Some(5), ..Default::default() };
        assert!(
            against(of_data("a"), Manifest { chosen: few, ..one.clone() }).unwrap_err().contains("`chosen`")
        );
    }

    fn of_data(hash: &str) -> Header {
        Header { data_hash: Some(hash.into()), ..Header::new(KIND, VERSION) }
    }
}
