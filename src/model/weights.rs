//! A checkpoint's tensors, by name: one safetensors file or several with an index, memory-mapped, or bytes in the
//! program. It knows nothing of what a tensor is for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};

use crate::artifact::TensorFile;
use crate::error::{Error, Result};

/// Open tensors. They are read when they are taken.
pub struct Weights {
    files: Vec<TensorFile>,
    /// File of each tensor.
    places: BTreeMap<String, usize>,
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

impl Weights {
    /// Opens `model.safetensors`, or the files that `model.safetensors.index.json` names, in a folder.
    pub fn open(folder: &Path) -> Result<Weights> {
        let paths = match folder.join(INDEX) {
            index if index.is_file() => shards(folder, &index)?,
            _ => vec![folder.join(SINGLE)],
        };
        let files = paths.iter().map(|path| match path.is_file() {
            true => TensorFile::open(path),
            false => Err(Error::input(path.display(), "no such file", format!("{SINGLE} or {INDEX}"))),
        });
        Weights::of(files.collect::<Result<_>>()?)
    }

    /// Tensors that lie in the program itself.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Weights> {
        Weights::of(vec![TensorFile::embedded(name, bytes)?])
    }

    fn of(files: Vec<TensorFile>) -> Result<Weights> {
        let mut places = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            for name in file.names() {
                if let Some(other) = places.insert(name.clone(), number) {
                    let found = format!("tensor {name} stands in {} too", files[other].name());
                    return Err(file.wrong(found, "each tensor once"));
                }
            }
        }
        Ok(Weights { files, places })
    }

    /// A tensor as f32, which must have this shape and hold finite numbers only.
    pub fn take(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Some(file) = self.places.get(name).map(|&file| &self.files[file]) else {
            let files = self.files.iter().map(TensorFile::name).collect::<Vec<_>>();
            return Err(Error::input(
                files.join(", "),
                format!("no tensor {name}"),
                format!("one of shape {shape:?}"),
            ));
        };
        match file.shape(name) {
            Some(found) if found != shape => {
                Err(file.wrong(format!("tensor {name} of shape {found:?}"), format!("shape {shape:?}")))
            }
            _ => {
                let numbers: Vec<f32> = file.floats(name)?.into_iter().collect();
                Ok(Tensor::from_vec(numbers, shape, &Device::Cpu)?)
            }
        }
    }

    /// SHA-256 over the files' bytes, in hex.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for file in &self.files {
            hash.update(file.bytes());
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The files that an index names, each once.
fn shards(folder: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read(index).map_err(Error::file(index))?;
    let read: Index = serde_json::from_slice(&text)
        .map_err(|error| Error::input(index.display(), error, "a weight_map from tensors to files"))?;
    let names: BTreeSet<String> = read.weight_map.into_values().collect();
    let paths = names.iter().map(|name| {
        // An index speaks of files beside it, and of nothing else on the disk.
        if name.contains(['/', '\\']) {
            return Err(Error::input(
                index.display(),
                format!("file {name}"),
                "names of files beside the index",
            ));
        }
        Ok(folder.join(name))
    });
    paths.collect()
}
