//! Activations on disk: a folder with a manifest and safetensors shards, readable from Python with `safetensors` alone.
//! It knows nothing of models: what made the activations is told to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ndarray::{Array2, Axis};
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

/// A store that is read as it is asked for: its shards are mapped into memory, and one site's numbers are looked at
/// without the others'.
pub struct Store {
    folder: PathBuf,
    pub header: Header,
    pub manifest: Manifest,
    shards: Vec<TensorFile>,
}

impl Store {
    /// Opens a store and looks at its tables.
    ///
    /// # Errors
    /// A manifest or a shard that is missing, cut short, or no part of a store.
    pub fn open(folder: &Path) -> Result<Store> {
        let (header, manifest): (Header, Manifest) =
            artifact::read_json(&folder.join("manifest.json"), KIND, VERSION)?;
        let open = |name: &String| Ok(TensorFile::open_kind(&folder.join(name), KIND, VERSION)?.1);
        let shards = manifest.shards.iter().map(open).collect::<Result<_>>()?;
        Ok(Store { folder: folder.into(), header, manifest, shards })
    }

    /// Number of the dialogue that each row belongs to.
    pub fn example(&self) -> Result<Vec<usize>> {
        let mut example = Vec::new();
        for file in &self.shards {
            example.extend(file.integers("example")?.iter().map(|&number| number.max(0) as usize));
        }
        self.count("examples", example.len())?;
        Ok(example)
    }

    /// Absolute index of the token that each row was read at; none when pooled.
    pub fn position(&self) -> Result<Vec<Option<usize>>> {
        let mut position = Vec::new();
        for file in &self.shards {
            position.extend(file.integers("position")?.iter().map(|&at| usize::try_from(at).ok()));
        }
        self.count("positions", position.len())?;
        Ok(position)
    }

    /// The activations at one site, `[rows, width]`.
    pub fn at(&self, site: Site) -> Result<Array2<f32>> {
        let name = site.to_string();
        let mut whole: Option<Array2<f32>> = None;
        for file in &self.shards {
            let rows = file.matrix(&name)?;
            file.release(file.stored(&name)?.2);
            match &mut whole {
                None => whole = Some(rows),
                Some(whole) => whole.append(Axis(0), rows.view()).map_err(|error| {
                    Error::input(format!("{}, {site}", self.folder.display()), error, "shards of one width")
                })?,
            }
        }
        let whole = whole.unwrap_or_default();
        self.count(&format!("rows at {site}"), whole.nrows())?;
        Ok(whole)
    }

    fn count(&self, what: &str, found: usize) -> Result<()> {
        match self.manifest.rows == found {
            true => Ok(()),
            false => {
                let expected = format!("{}, as the manifest says", self.manifest.rows);
                Err(Error::input(self.folder.display(), format!("{found} {what} in the shards"), expected))
            }
        }
    }
}

/// Reads a store whole.
pub fn load(folder: &Path) -> Result<(Header, Manifest, Activations)> {
    let store = Store::open(folder)?;
    let (example, position) = (store.example()?, store.position()?);
    let sites =
        store.manifest.sites.iter().map(|&site| Ok((site, store.at(site)?))).collect::<Result<_>>()?;
    Ok((store.header, store.manifest, Activations { sites, example, position, tokens: 0 }))
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
