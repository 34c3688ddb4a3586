//! Store: activations on disk, a folder with a manifest and safetensors shards (docs/formats-probes.md).

use std::path::{Path, PathBuf};

use ndarray::{Array2, s};

use super::activations::Activations;
use super::manifest::{KIND, Manifest, VERSION};
use super::shard::{self, DIALOGUE};
use crate::artifact::{Header, TensorFile};
use crate::error::{Error, Result};
use crate::model::{Dtype, Selector, Site};

/// Rows of a shard that is written from memory.
const SHARD_ROWS: usize = 4096;

/// Writes activations in memory as a store.
///
/// # Errors
/// A value that is not finite; a file that can't be written.
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
    for (number, begin) in (0..manifest.rows).step_by(SHARD_ROWS).enumerate() {
        let rows = begin..manifest.rows.min(begin + SHARD_ROWS);
        let slice =
            |(site, values): &(Site, Array2<f32>)| (*site, values.slice(s![rows.clone(), ..]).to_owned());
        let part = Activations {
            sites: activations.sites.iter().map(slice).collect(),
            example: activations.example[rows.clone()].to_vec(),
            position: activations.position[rows.clone()].to_vec(),
            tokens: 0,
        };
        let shard = shard::write(folder, number, &part, None, Dtype::F32)?;
        manifest.shards.push(shard.name);
        manifest.hashes.push(shard.hash);
    }
    manifest.write(folder, &header)?;
    Ok(manifest)
}

/// A store whose shards are mapped into memory, so that one site is read without the others.
pub struct Store {
    folder: PathBuf,
    /// Model, data and versions.
    pub header: Header,
    /// Provenance and list of shards.
    pub manifest: Manifest,
    shards: Vec<TensorFile>,
}

impl Store {
    /// Opens a store and the headers of its shards.
    ///
    /// # Errors
    /// A missing, truncated or foreign manifest or shard.
    pub fn open(folder: &Path) -> Result<Store> {
        let (header, manifest) = Manifest::read(folder)?;
        let open = |name: &String| Ok(TensorFile::open_kind(&folder.join(name), KIND, VERSION)?.1);
        let shards = manifest.shards.iter().map(open).collect::<Result<_>>()?;
        Ok(Store { folder: folder.into(), header, manifest, shards })
    }

    /// `[rows]`: index of each row's dialogue in its file, see [`crate::dialogue::Dialogues::indices`].
    ///
    /// # Errors
    /// A negative index; another number of rows than the manifest says.
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

    /// `[rows]`: position of each row's token in its dialogue; none when pooled.
    ///
    /// # Errors
    /// Another number of rows than the manifest says.
    pub fn position(&self) -> Result<Vec<Option<usize>>> {
        let mut position = Vec::new();
        for file in &self.shards {
            position
                .extend(file.integers("position")?.iter().map(|&position| usize::try_from(position).ok()));
        }
        self.count("positions", position.len())?;
        Ok(position)
    }

    /// `[rows]`: fingerprint of each row's dialogue ([`crate::dialogue::Dialogue::fingerprint`]); none in a store without them.
    ///
    /// # Errors
    /// Another number of rows than the manifest says.
    pub fn fingerprints(&self) -> Result<Option<Vec<i64>>> {
        if self.shards.iter().any(|file| file.shape(DIALOGUE).is_none()) {
            return Ok(None);
        }
        let mut fingerprints = Vec::new();
        for file in &self.shards {
            fingerprints.extend(file.integers(DIALOGUE)?);
        }
        self.count("dialogues", fingerprints.len())?;
        Ok(Some(fingerprints))
    }

    /// The activations at one site, `[rows, width]`, read from every shard.
    ///
    /// # Errors
    /// A site that the store lacks; shards of different widths; a value that is not finite.
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
        // A new array is contiguous.
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

/// Reads a whole store into memory: its header, manifest and activations.
///
/// # Errors
/// As the methods of [`Store`].
pub fn load(folder: &Path) -> Result<(Header, Manifest, Activations)> {
    let store = Store::open(folder)?;
    let (example, position) = (store.example()?, store.position()?);
    let sites =
        store.manifest.sites.iter().map(|&site| Ok((site, store.at(site)?))).collect::<Result<_>>()?;
    let activations = Activations { sites, example, position, tokens: store.manifest.tokens_read };
    Ok((store.header, store.manifest, activations))
}

/// Checks that a store was extracted from the file of dialogues with this SHA-256.
///
/// # Errors
/// Another hash in the store's header.
pub fn check_dialogues(folder: &Path, header: &Header, hash: &str) -> Result<()> {
    match &header.data_hash {
        Some(made) if made != hash => {
            let expected = "the file that the store was extracted from, unchanged";
            Err(Error::input(folder.display(), "extracted from other dialogues than these", expected))
        }
        _ => Ok(()),
    }
}
