//! Verification of a store against its manifest: shards present and unchanged, values finite, rows unique and in order.

use std::collections::BTreeMap;
use std::path::Path;

use super::manifest::{JOURNAL, KIND, Manifest, SHARD_PREFIX, VERSION};
use super::shard::DIALOGUE;
use crate::artifact::{self, TensorFile};
use crate::error::{Error, Result};

/// The faults of a store, one line each; none if it is intact. Reads every shard, one at a time. `on_progress` gets the
/// number of shards done, and stops the check by returning false.
///
/// # Errors
/// A manifest that is missing or can't be read; a stopped check.
pub fn check(folder: &Path, on_progress: &mut dyn FnMut(usize) -> bool) -> Result<Vec<String>> {
    let (_, manifest) = Manifest::read(folder)?;
    let mut check =
        Check { manifest: &manifest, wrong: Vec::new(), widths: BTreeMap::new(), last: None, rows: 0 };
    if manifest.hashes.len() != manifest.shards.len() {
        let found = format!("{} hashes for {} shards", manifest.hashes.len(), manifest.shards.len());
        check
            .wrong
            .push(format!("manifest.json: {found}; expected one each (it was made by an older version?)"));
    }
    for (number, name) in manifest.shards.iter().enumerate() {
        if let Err(error) = check.shard(&folder.join(name), manifest.hashes.get(number)) {
            check.wrong.push(error.to_string());
        }
        if !on_progress(number + 1) {
            return Err(Error::Stopped);
        }
    }
    if check.rows != manifest.rows {
        let found = format!("{} rows in the shards", check.rows);
        check.wrong.push(format!("manifest.json: {found}; expected {}, as it says", manifest.rows));
    }
    let mut wrong = check.wrong;
    let entries = std::fs::read_dir(folder).map_err(Error::file(folder))?.flatten();
    let mut strays: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into()).collect();
    strays.sort();
    for name in strays {
        let ours = name.starts_with(SHARD_PREFIX) || name == JOURNAL || name.starts_with(artifact::TEMPORARY);
        if ours && !manifest.shards.contains(&name) {
            wrong.push(format!("{name}: a file of a run that is not in the manifest; expected none"));
        }
    }
    Ok(wrong)
}

struct Check<'a> {
    manifest: &'a Manifest,
    wrong: Vec<String>,
    /// Width of each site, from the first shard.
    widths: BTreeMap<String, usize>,
    /// Dialogue and position of the last row.
    last: Option<(i64, i64)>,
    rows: usize,
}

impl Check<'_> {
    fn shard(&mut self, path: &Path, hash: Option<&String>) -> Result<()> {
        let (_, file) = TensorFile::open_kind(path, KIND, VERSION)?;
        if hash.is_some_and(|hash| *hash != artifact::sha256(file.bytes())) {
            let expected = "the bytes that were written (its hash is another)";
            self.wrong.push(file.wrong("changed since it was written", expected).to_string());
        }
        let (example, position) = (file.integers("example")?, file.integers("position")?);
        if example.len() != position.len() {
            let found = format!("{} examples and {} positions", example.len(), position.len());
            return Err(file.wrong(found, "as many of each"));
        }
        self.rows += example.len();
        for row in example.iter().copied().zip(position.iter().copied()) {
            let found = format!("dialogue {}, token {}", row.0, row.1);
            if row.0 < 0 || row.1 < -1 {
                self.wrong.push(file.wrong(found, "numbers from 0 (a token's from -1)").to_string());
            } else if self.last == Some(row) {
                self.wrong.push(file.wrong(format!("{found} twice"), "every row once").to_string());
            } else if self.last.is_some_and(|last| row < last) {
                let found = format!("{found} after a later one");
                self.wrong
                    .push(file.wrong(found, "rows in the order of the dialogues, each once").to_string());
            }
            self.last = Some(row);
        }
        for site in &self.manifest.sites {
            let name = site.to_string();
            let (dtype, shape, bytes) = file.stored(&name)?;
            let (stored, shape) = (dtype.to_string().to_lowercase(), shape.to_vec());
            if stored != self.manifest.dtype {
                let expected = format!("{}, as the manifest says", self.manifest.dtype);
                self.wrong.push(file.wrong(format!("tensor {name} of type {stored}"), expected).to_string());
            }
            let width = *self.widths.entry(name.clone()).or_insert(shape.last().copied().unwrap_or(0));
            if shape != [example.len(), width] {
                let expected = format!("[{}, {width}]", example.len());
                self.wrong
                    .push(file.wrong(format!("tensor {name} of shape {shape:?}"), expected).to_string());
            }
            // Refuses values that are not finite.
            if let Err(error) = file.floats(&name) {
                self.wrong.push(error.to_string());
            }
            file.release(bytes);
        }
        let known = |name: &String| {
            ["example", "position", DIALOGUE].contains(&name.as_str())
                || self.manifest.sites.iter().any(|site| site.to_string() == *name)
        };
        if let Some(name) = file.names().iter().find(|name| !known(name)) {
            let found = format!("tensor {name}, which the manifest does not name");
            self.wrong.push(file.wrong(found, "its sites, `example`, `position` and `dialogue`").to_string());
        }
        Ok(())
    }
}
