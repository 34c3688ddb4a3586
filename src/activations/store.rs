//! Activations on disk: a folder with a manifest and safetensors shards, readable from Python with `safetensors` alone.
//! It knows nothing of models: what made the activations is told to it.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::{Array2, Axis, concatenate};
use serde::{Deserialize, Serialize};

use super::extract::Activations;
use crate::artifact::{self, Header, Numbers, TensorFile};
use crate::error::{Error, Result};
use crate::model::{Selector, Site};

const KIND: &str = "activations";
const VERSION: u32 = 1;
/// Rows of a shard.
const SHARD: usize = 4096;

/// What stands in `manifest.json` beside the header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub family: String,
    /// The file that the dialogues were read from, or how they were drawn.
    pub dataset: String,
    pub sites: Vec<Site>,
    pub tokens: Selector,
    pub dtype: String,
    pub rows: usize,
    /// File names, in the order of their rows.
    pub shards: Vec<String>,
}

/// Writes a store. The manifest comes last, so that a folder with one is whole.
pub fn save(
    folder: &Path,
    header: Header,
    family: &str,
    dataset: &str,
    tokens: &Selector,
    activations: &Activations,
) -> Result<Manifest> {
    let rows = activations.example.len();
    let mut shards = Vec::new();
    for begin in (0..rows).step_by(SHARD) {
        let at = begin..rows.min(begin + SHARD);
        let mut tensors = BTreeMap::new();
        for (site, values) in &activations.sites {
            let part = values.slice(ndarray::s![at.clone(), ..]).to_owned();
            tensors.insert(site.to_string(), Numbers::floats(&part));
        }
        let position = |position: &Option<usize>| position.map_or(-1, |position| position as i64);
        let positions: Vec<i64> = activations.position[at.clone()].iter().map(position).collect();
        let examples: Vec<i64> = activations.example[at].iter().map(|&example| example as i64).collect();
        tensors.insert("example".into(), Numbers::integers(&examples));
        tensors.insert("position".into(), Numbers::integers(&positions));
        let name = format!("shard-{:05}.safetensors", shards.len());
        artifact::write_tensors(&folder.join(&name), &Header::new(KIND, VERSION), &BTreeMap::new(), tensors)?;
        shards.push(name);
    }
    let manifest = Manifest {
        family: family.into(),
        dataset: dataset.into(),
        sites: activations.sites.iter().map(|(site, _)| *site).collect(),
        tokens: tokens.clone(),
        dtype: "f32".into(),
        rows,
        shards,
    };
    let header = Header { kind: KIND.into(), version: VERSION, ..header };
    artifact::write_json(&folder.join("manifest.json"), &header, &manifest)?;
    Ok(manifest)
}

/// Reads a store whole.
pub fn load(folder: &Path) -> Result<(Header, Manifest, Activations)> {
    let place = folder.join("manifest.json");
    let (header, manifest): (Header, Manifest) = artifact::read_json(&place, KIND, VERSION)?;
    let mut parts: Vec<Vec<Array2<f32>>> = vec![Vec::new(); manifest.sites.len()];
    let (mut example, mut position) = (Vec::new(), Vec::new());
    for name in &manifest.shards {
        let (_, file) = TensorFile::open_kind(&folder.join(name), KIND, VERSION)?;
        let examples = file.integers("example")?;
        for (site, parts) in manifest.sites.iter().zip(&mut parts) {
            let rows = file.matrix(&site.to_string())?;
            if rows.nrows() != examples.len() {
                let found = format!("{} rows at {site} and {} examples", rows.nrows(), examples.len());
                return Err(file.wrong(found, "as many of each"));
            }
            parts.push(rows);
        }
        example.extend(examples.iter().map(|&example| example.max(0) as usize));
        position.extend(file.integers("position")?.iter().map(|&at| usize::try_from(at).ok()));
    }
    if example.len() != manifest.rows || position.len() != manifest.rows {
        let found = format!("{} rows in the shards", example.len());
        return Err(Error::input(place.display(), found, format!("{}, as the manifest says", manifest.rows)));
    }
    let mut sites = Vec::new();
    for (site, parts) in manifest.sites.iter().zip(parts) {
        let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
        let whole = concatenate(Axis(0), &views).map_err(|error| {
            Error::input(format!("{}, {site}", place.display()), error, "shards of one width")
        })?;
        sites.push((*site, whole));
    }
    let activations = Activations { sites, example, position, tokens: 0 };
    Ok((header, manifest, activations))
}

/// Refuses dialogues that are not those which a store was read from.
pub fn check_dialogues(
    folder: &Path,
    header: &Header,
    activations: &Activations,
    hash: &str,
    count: usize,
) -> Result<()> {
    if header.data_hash.as_deref().is_some_and(|made| made != hash) {
        let expected = "the file that the store was read from, unchanged";
        return Err(Error::input(folder.display(), "read from other dialogues than these", expected));
    }
    match activations.example.iter().find(|&&example| example >= count) {
        None => Ok(()),
        Some(example) => {
            let found = format!("a row of dialogue {example}");
            Err(Error::input(
                folder.display(),
                found,
                format!("dialogues below {count}, as many as were read"),
            ))
        }
    }
}
