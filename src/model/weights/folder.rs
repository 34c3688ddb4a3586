//! The weight files of a checkpoint folder: which of them count, in the order of transformers, and what a folder without
//! any holds instead.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::artifact::refuse_lfs_pointer;
use crate::error::{Error, Result};

pub(in crate::model) const SINGLE: &str = "model.safetensors";
pub(in crate::model) const INDEX: &str = "model.safetensors.index.json";
pub(in crate::model) const ADAPTER: &str = "adapter_config.json";
/// Beginnings of files that a training run leaves beside weights.
const STATE: [&str; 5] = ["training_args", "optimizer", "scheduler", "rng_state", "scaler"];

/// The files of a checkpoint's tensors.
pub(super) struct WeightFiles {
    pub paths: Vec<PathBuf>,
    /// The file of each tensor, where an index says it.
    pub listed: BTreeMap<String, String>,
}

impl WeightFiles {
    /// The single file if it is there, or else those of the index.
    ///
    /// # Errors
    /// Neither; an index that can't be read, or files of it that are missing.
    pub fn find(folder: &Path) -> Result<WeightFiles> {
        if folder.join(ADAPTER).is_file()
            && let Some((found, expected)) = other_weights(&[ADAPTER.into()])
        {
            return Err(Error::input(folder.display(), found, expected));
        }
        let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
        if single.is_file() {
            return Ok(WeightFiles { paths: vec![single], listed: BTreeMap::new() });
        }
        if !index.is_file() {
            let mut names = names_in(folder);
            // The layout of transformers.js and optimum.
            names.extend(names_in(&folder.join("onnx")).into_iter().map(|name| format!("onnx/{name}")));
            return Err(match other_weights(&names) {
                Some((found, expected)) => Error::input(folder.display(), found, expected),
                None => Error::input(single.display(), "no such file", format!("{SINGLE} or {INDEX}")),
            });
        }
        let listed = read_index(&index)?;
        let names: BTreeSet<&String> = listed.values().collect();
        let missing: Vec<&&String> = names.iter().filter(|name| !folder.join(name).is_file()).collect();
        if let [first, ..] = missing.as_slice() {
            let found = format!("no such file ({} of {} are missing)", missing.len(), names.len());
            let expected = format!("the files that {INDEX} lists, or {SINGLE}");
            return Err(Error::input(folder.join(first).display(), found, expected));
        }
        let paths = names.into_iter().map(|name| folder.join(name)).collect();
        Ok(WeightFiles { paths, listed })
    }
}

/// The file of each tensor in an index.
///
/// # Errors
/// A file that is no index, that lists no tensor, or that names files outside its folder.
pub(in crate::model) fn read_index(index: &Path) -> Result<BTreeMap<String, String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read(index).map_err(Error::file(index))?;
    refuse_lfs_pointer(index, &text)?;
    let read: Index = serde_json::from_slice(&text)
        .map_err(|error| Error::input(index.display(), error, "a weight_map from tensors to files"))?;
    if read.weight_map.is_empty() {
        return Err(Error::input(
            index.display(),
            "an empty weight_map",
            "a weight_map from tensors to files",
        ));
    }
    // An index may name files in its own folder only.
    match read.weight_map.values().find(|name| name.contains(['/', '\\'])) {
        Some(name) => {
            Err(Error::input(index.display(), format!("file {name}"), "names of files beside the index"))
        }
        None => Ok(read.weight_map),
    }
}

/// Names in a folder, sorted.
pub(in crate::model) fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What the files of a folder without `model.safetensors` and without an index are, and what to do with them; None where
/// no name is known.
pub(in crate::model) fn other_weights(names: &[String]) -> Option<(String, String)> {
    const CONVERTED: &str = "safetensors: load the model where it was trained, then `save_pretrained`";
    let first = |is: &dyn Fn(&str) -> bool| names.iter().find(|name| is(name));
    let ends = |ends: &[&str]| {
        let of_training = |name: &str| STATE.iter().any(|state| name.starts_with(state));
        first(&|name| !of_training(name) && ends.iter().any(|end| name.to_ascii_lowercase().ends_with(end)))
    };
    let with = |name: &String, what: &str, expected: &str| {
        let expected = expected.to_owned();
        Some((format!("{name}, {what}"), expected))
    };
    if let Some(name) = first(&|name| name == ADAPTER) {
        let expected = "the base model, with this folder as `--adapter`, or the merged model (`merge_and_unload()` of peft, then `save_pretrained`)";
        return with(name, "an adapter for another model, which is not applied", expected);
    }
    if let Some(name) = first(&|name| name.starts_with("consolidated") && name.ends_with(".safetensors")) {
        let expected = "the layout of transformers, model.safetensors (convert_mistral_weights_to_hf.py of transformers)";
        return with(name, "weights in Mistral's own layout, which is not read", expected);
    }
    if let Some(name) = first(&|name| name.starts_with("consolidated") && name.ends_with(".pth")) {
        let expected =
            "the layout of transformers, model.safetensors (convert_llama_weights_to_hf.py of transformers)";
        return with(name, "weights in Meta's own layout, which is not read", expected);
    }
    let shards: Vec<&String> =
        names.iter().filter(|name| name.contains("-of-") && name.ends_with(".safetensors")).collect();
    if let [first, ..] = shards.as_slice() {
        let found = format!("{first}, one of {} parts without {INDEX}", shards.len());
        return Some((found, format!("{INDEX} beside the parts (it is fetched with the model)")));
    }
    if let Some(name) = ends(&[".bin", ".pt", ".pth", ".ckpt"]) {
        let expected = format!(
            "{SINGLE}: `AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER)` of transformers writes it"
        );
        return with(name, "a pickle of PyTorch, which is not read, for it may run code", &expected);
    }
    if let Some(name) = ends(&[".safetensors"]) {
        return with(name, "under a name that transformers does not load", &format!("{SINGLE}, so named"));
    }
    if let Some(name) =
        ends(&[".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".tflite", ".mlmodel", ".npz"])
    {
        return with(name, "weights of another library, which are not read", CONVERTED);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_folder_without_safetensors_holds_is_named() {
        let named = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
            other_weights(&names).map(|(found, expected)| format!("{found}; {expected}"))
        };
        for (names, expected) in [
            (
                &["config.json", "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"][..],
                "save_pretrained",
            ),
            (&["adapter_config.json", "adapter_model.safetensors"], "merge_and_unload"),
            (&["consolidated.safetensors", "params.json"], "Mistral's own layout"),
            (&["consolidated.00.pth", "params.json"], "Meta's own layout"),
            (
                &["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
                "one of 2 parts without",
            ),
            (&["model.fp16.safetensors"], "so named"),
            (&["tf_model.h5"], "another library"),
            (&["onnx", "onnx/decoder_model.onnx"], "onnx/decoder_model.onnx, weights of another library"),
        ] {
            let said = named(names).unwrap();
            assert!(said.contains(expected), "{said}");
        }
        assert_eq!(named(&["config.json", "README.md"]), None);
    }
}
