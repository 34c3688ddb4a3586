//! A checkpoint's tensors, by name: one safetensors file or several with an index, memory-mapped, or bytes in the
//! program. It knows nothing of what a tensor is for.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Open tensors. They are read when they are taken.
pub struct Weights {
    files: Vec<Shard>,
    /// File of each tensor.
    places: BTreeMap<String, usize>,
}

struct Shard {
    /// Named in errors.
    name: String,
    bytes: Bytes,
    /// Where the tensors' bytes begin.
    begin: usize,
    metadata: Metadata,
}

enum Bytes {
    Mapped(Mmap),
    Static(&'static [u8]),
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
        }
    }
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
        let shards = paths.iter().map(|path| {
            if !path.is_file() {
                return Err(Error::input(
                    path.display(),
                    "no such file",
                    format!("{SINGLE} or {INDEX}"),
                ));
            }
            let file = File::open(path).map_err(Error::file(path))?;
            // SAFETY: the map is only read. A file that another program cuts short meanwhile would end this one;
            // that is the price of not copying gigabytes, as everywhere that checkpoints are mapped.
            let map = unsafe { Mmap::map(&file) }.map_err(Error::file(path))?;
            Shard::new(path.display().to_string(), Bytes::Mapped(map))
        });
        Weights::of(shards.collect::<Result<_>>()?)
    }

    /// Tensors that lie in the program itself.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Weights> {
        Weights::of(vec![Shard::new(name.into(), Bytes::Static(bytes))?])
    }

    fn of(files: Vec<Shard>) -> Result<Weights> {
        let mut places = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            for name in file.metadata.offset_keys() {
                if let Some(other) = places.insert(name.clone(), number) {
                    let found = format!("tensor {name} stands in {} too", files[other].name);
                    return Err(Error::input(&file.name, found, "each tensor once"));
                }
            }
        }
        Ok(Weights { files, places })
    }

    /// A tensor as f32, which must have this shape and hold finite numbers only.
    pub fn take(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Some(&file) = self.places.get(name) else {
            let files = self
                .files
                .iter()
                .map(|file| file.name.as_str())
                .collect::<Vec<_>>();
            return Err(Error::input(
                files.join(", "),
                format!("no tensor {name}"),
                format!("one of shape {shape:?}"),
            ));
        };
        let file = &self.files[file];
        let place = || format!("{}, tensor {name}", file.name);
        let bytes = file.bytes.get();
        let tensors = file.metadata.info(name).map(|info| {
            let (begin, end) = info.data_offsets;
            (info, &bytes[file.begin + begin..file.begin + end])
        });
        // `places` was made from this metadata.
        let Some((info, bytes)) = tensors else {
            return Err(Error::input(
                place(),
                "no such tensor",
                "the tensor that the header names",
            ));
        };
        if info.shape != shape {
            return Err(Error::input(
                place(),
                format!("shape {:?}", info.shape),
                format!("{shape:?}"),
            ));
        }
        let numbers: Vec<f32> = match info.dtype {
            Dtype::F32 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|&b| f32::from_le_bytes(b))
                .collect(),
            Dtype::F16 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|&b| f16::from_le_bytes(b).to_f32())
                .collect(),
            Dtype::BF16 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|&b| bf16::from_le_bytes(b).to_f32())
                .collect(),
            other => {
                return Err(Error::input(
                    place(),
                    format!("type {other:?}"),
                    "F32, F16 or BF16",
                ));
            }
        };
        if let Some(at) = numbers.iter().position(|number| !number.is_finite()) {
            return Err(Error::input(
                place(),
                format!("{} at number {at}", numbers[at]),
                "finite numbers",
            ));
        }
        Ok(Tensor::from_vec(numbers, shape, &Device::Cpu)?)
    }

    /// The number types that occur, as safetensors names them.
    pub fn dtypes(&self) -> Vec<String> {
        let infos = self
            .files
            .iter()
            .flat_map(|file| file.metadata.tensors().into_values());
        let names: std::collections::BTreeSet<String> =
            infos.map(|info| format!("{:?}", info.dtype)).collect();
        names.into_iter().collect()
    }

    /// SHA-256 over the files' bytes, in hex.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for file in &self.files {
            hash.update(file.bytes.get());
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Shard {
    fn new(name: String, bytes: Bytes) -> Result<Shard> {
        let wrong = |error| {
            Error::input(
                &name,
                format!("no whole safetensors file ({error})"),
                "a complete download",
            )
        };
        let (header, metadata) = SafeTensors::read_metadata(bytes.get()).map_err(wrong)?;
        Ok(Shard {
            begin: 8 + header,
            name,
            bytes,
            metadata,
        })
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
    let names: std::collections::BTreeSet<String> = read.weight_map.into_values().collect();
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
