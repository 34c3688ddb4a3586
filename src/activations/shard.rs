//! Shard of a store: consecutive rows of every site in one safetensors file, written atomically.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::activations::Activations;
use super::manifest::{KIND, SHARD_PREFIX, VERSION};
use crate::artifact::{self, Header, Numbers};
use crate::error::{Error, Result};
use crate::model::{Dtype, Site};

/// Tensor of the fingerprints of the rows' dialogues.
pub(super) const DIALOGUE: &str = "dialogue";

/// A shard that was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Shard {
    /// File name.
    pub name: String,
    /// SHA-256 of the file, in hex.
    pub hash: String,
    /// Size of the file.
    pub bytes: u64,
    /// Rows in it.
    pub rows: usize,
}

/// File name of a shard.
fn name(number: usize) -> String {
    format!("{SHARD_PREFIX}{number:05}.safetensors")
}

/// The number in a shard's file name.
pub(super) fn number(name: &str) -> Option<usize> {
    name.strip_prefix(SHARD_PREFIX)?.strip_suffix(".safetensors")?.parse().ok()
}

/// Writes a shard: a tensor `[rows, width]` for each site, `example` `[rows]`, `position` `[rows]` (−1 when pooled), and
/// `dialogue` `[rows]`, the fingerprints of the rows' dialogues, where they are known.
///
/// # Errors
/// A value that is not finite or out of the type's range, with its site and dialogue; a file that can't be written.
pub(super) fn write(
    folder: &Path,
    number: usize,
    activations: &Activations,
    fingerprints: Option<&[i64]>,
    dtype: Dtype,
) -> Result<Shard> {
    let mut tensors = BTreeMap::new();
    for (site, values) in &activations.sites {
        check(*site, values, &activations.example, dtype)?;
        let numbers = match dtype {
            Dtype::F32 => Numbers::floats(values),
            Dtype::Bf16 => Numbers::rounded(values),
            Dtype::F16 => Numbers::halved(values),
        };
        tensors.insert(site.to_string(), numbers);
    }
    let position = |position: &Option<usize>| position.map_or(-1, |position| position as i64);
    let positions: Vec<i64> = activations.position.iter().map(position).collect();
    let examples: Vec<i64> = activations.example.iter().map(|&example| example as i64).collect();
    tensors.insert("example".into(), Numbers::integers(&examples));
    tensors.insert("position".into(), Numbers::integers(&positions));
    if let Some(fingerprints) = fingerprints {
        tensors.insert(DIALOGUE.into(), Numbers::integers(fingerprints));
    }
    let name = name(number);
    let path = folder.join(&name);
    artifact::write_tensors(&path, &Header::new(KIND, VERSION), &BTreeMap::new(), tensors)?;
    let bytes = std::fs::metadata(&path).map_err(Error::file(&path))?.len();
    Ok(Shard { name, hash: artifact::sha256_file(&path)?, bytes, rows: examples.len() })
}

fn check(site: Site, values: &Array2<f32>, example: &[usize], dtype: Dtype) -> Result<()> {
    let holds = |value: f32| match dtype {
        Dtype::F32 => value.is_finite(),
        Dtype::Bf16 => half::bf16::from_f32(value).is_finite(),
        Dtype::F16 => half::f16::from_f32(value).is_finite(),
    };
    let bad =
        values.rows().into_iter().zip(example).find_map(|(row, example)| {
            row.iter().find(|&&value| !holds(value)).map(|value| (*value, example))
        });
    match bad {
        None => Ok(()),
        Some((value, example)) => {
            let expected = match value.is_finite() {
                true => format!("numbers that {dtype} can hold: --store-dtype bf16 or f32"),
                false => "finite numbers (weights in another --dtype may give them)".into(),
            };
            Err(Error::input(format!("dialogue {example}, site {site}"), format!("{value}"), expected))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::TensorFile;

    fn one(value: f32) -> Activations {
        let sites = vec![(Site::Embed, ndarray::array![[value, 1.0 / 3.0]])];
        Activations { sites, example: vec![4], position: vec![None], tokens: 3 }
    }

    #[test]
    fn a_value_out_of_the_range_of_its_type_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |value, dtype| write(folder.path(), 3, &one(value), None, dtype);
        let error = write(1e5, Dtype::F16).unwrap_err().to_string();
        assert!(error.starts_with("dialogue 4, site embed: 100000;") && error.contains("bf16"), "{error}");
        assert!(write(f32::NAN, Dtype::F32).unwrap_err().to_string().contains("NaN; expected finite"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        for (dtype, third) in [(Dtype::F32, 1.0 / 3.0), (Dtype::F16, 0.33325195), (Dtype::Bf16, 0.33398438)] {
            let shard = write(2.0, dtype).unwrap();
            let file = TensorFile::open(folder.path().join(&shard.name)).unwrap();
            assert_eq!(file.matrix("embed").unwrap(), ndarray::array![[2.0, third]]);
            assert_eq!((shard.rows, file.integers("position").unwrap()[0]), (1, -1));
        }
    }
}
