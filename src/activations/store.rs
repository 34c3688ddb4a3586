//! Activations on disk: a folder with a manifest and safetensors shards, readable from Python with `safetensors` alone.
//! It knows nothing of models: what made the activations is told to it.

use std::path::{Path, PathBuf};

use ndarray::{Array2, s};

use super::extract::Activations;
use super::manifest::{KIND, Manifest, VERSION};
use super::shard;
use crate::artifact::{Header, TensorFile};
use crate::dialogue::Dialogues;
use crate::error::{Error, Result};
use crate::model::{Dtype, Selector, Site};

/// Rows of a shard, where all rows are in memory.
const SHARD: usize = 4096;

/// Writes a store. The manifest comes last, so that a folder with one is whole.
pub fn save(
    folder: &Path,
    header: Header,
    family: &str,
    dataset: &str,
    tokens: &Selector,
    activations: &Activations,
) -> Result<Manifest> {
    let sites = activations.sites.iter().map(|(site, _)| *site).collect();
    let mut manifest = Manifest::new(family, dataset, sites, tokens);
    manifest.rows = activations.example.len();
    manifest.tokens_read = activations.tokens;
    for (number, begin) in (0..manifest.rows).step_by(SHARD).enumerate() {
        let at = begin..manifest.rows.min(begin + SHARD);
        let slice =
            |(site, values): &(Site, Array2<f32>)| (*site, values.slice(s![at.clone(), ..]).to_owned());
        let part = Activations {
            sites: activations.sites.iter().map(slice).collect(),
            example: activations.example[at.clone()].to_vec(),
            position: activations.position[at.clone()].to_vec(),
            tokens: 0,
        };
        let shard = shard::write(folder, number, &part, Dtype::F32)?;
        manifest.shards.push(shard.name);
        manifest.hashes.push(shard.hash);
    }
    manifest.write(folder, &header)?;
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
        let (header, manifest) = Manifest::read(folder)?;
        let open = |name: &String| Ok(TensorFile::open_kind(&folder.join(name), KIND, VERSION)?.1);
        let shards = manifest.shards.iter().map(open).collect::<Result<_>>()?;
        Ok(Store { folder: folder.into(), header, manifest, shards })
    }

    /// Number of the dialogue that each row belongs to: its number in the file, see [`Dialogues::indices`].
    pub fn example(&self) -> Result<Vec<usize>> {
        let mut example = Vec::new();
        for file in &self.shards {
            for &number in &file.integers("example")? {
                let expected = "numbers of dialogues, from 0";
                example.push(
                    usize::try_from(number).map_err(|_| file.wrong(format!("example {number}"), expected))?,
                );
            }
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

    /// The activations at one site, `[rows, width]`: in memory once, and nothing else of the store.
    pub fn at(&self, site: Site) -> Result<Array2<f32>> {
        if !self.manifest.sites.contains(&site) {
            let sites = self.manifest.sites.iter().map(Site::to_string).collect::<Vec<_>>();
            let found = format!("no site {site}");
            return Err(Error::input(self.folder.display(), found, sites.join(", ")));
        }
        let name = site.to_string();
        let shapes = self.shards.iter().map(|file| shape(file, &name)).collect::<Result<Vec<_>>>()?;
        let width = shapes.first().map_or(0, |[_, width]| *width);
        if let Some(other) = shapes.iter().find(|shape| shape[1] != width) {
            let place = format!("{}, {site}", self.folder.display());
            let found = format!("shards of width {width} and of {}", other[1]);
            return Err(Error::input(place, found, "shards of one width"));
        }
        let rows = shapes.iter().map(|[rows, _]| rows).sum();
        self.count(&format!("rows at {site}"), rows)?;
        let mut whole = Array2::zeros((rows, width));
        let mut left = whole.as_slice_mut().unwrap_or_default();
        for (file, [rows, width]) in self.shards.iter().zip(shapes) {
            let (own, rest) = left.split_at_mut(rows * width);
            file.fill(&name, own)?;
            left = rest;
        }
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

/// Rows and width of a shard's activations at a site.
fn shape(file: &TensorFile, site: &str) -> Result<[usize; 2]> {
    let (_, shape, _) = file.stored(site)?;
    let &[rows, width] = shape else {
        return Err(file.wrong(format!("tensor {site} of shape {shape:?}"), "two dimensions"));
    };
    let examples = file.shape("example").map_or(0, |shape| shape.iter().product());
    if rows != examples {
        let found = format!("{rows} rows at {site} and {examples} examples");
        return Err(file.wrong(found, "as many of each"));
    }
    Ok([rows, width])
}

/// Reads a store whole.
pub fn load(folder: &Path) -> Result<(Header, Manifest, Activations)> {
    let store = Store::open(folder)?;
    let (example, position) = (store.example()?, store.position()?);
    let sites =
        store.manifest.sites.iter().map(|&site| Ok((site, store.at(site)?))).collect::<Result<_>>()?;
    let activations = Activations { sites, example, position, tokens: store.manifest.tokens_read };
    Ok((store.header, store.manifest, activations))
}

/// Refuses dialogues that are not those which a store was read from.
pub fn check_dialogues(folder: &Path, header: &Header, hash: &str) -> Result<()> {
    match &header.data_hash {
        Some(made) if made != hash => {
            let expected = "the file that the store was read from, unchanged";
            Err(Error::input(folder.display(), "read from other dialogues than these", expected))
        }
        _ => Ok(()),
    }
}

/// The rows of these dialogues alone, each with the number that its dialogue has among them, not in the file.
///
/// # Errors
/// Dialogues of another file than the store was read from; a store that holds no row of any of them.
pub fn of_dialogues(
    folder: &Path,
    header: &Header,
    activations: Activations,
    data: &Dialogues,
) -> Result<Activations> {
    check_dialogues(folder, header, &data.hash)?;
    let among = |example: &usize| data.indices.binary_search(example).ok();
    let places: Vec<Option<usize>> = activations.example.iter().map(among).collect();
    let rows: Vec<usize> = (0..places.len()).filter(|&row| places[row].is_some()).collect();
    if rows.is_empty() {
        let expected = "dialogues that the store was read from (the same --where and --limit?)";
        return Err(Error::input(folder.display(), "no row of any of these dialogues", expected));
    }
    let mut chosen = if rows.len() == places.len() { activations } else { activations.select(&rows) };
    chosen.example = places.into_iter().flatten().collect();
    Ok(chosen)
}
