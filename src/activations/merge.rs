//! Merging the parts of a run into the store that a single run would have made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::manifest::{self, Manifest};
use super::shard;
use crate::artifact::{self, FolderLock, TensorFile};
use crate::error::{Error, Result};

/// Copies the shards of all parts into one store. `on_progress` gets the number of shards done, and stops the copy by
/// returning false.
///
/// # Errors
/// Stores that are no parts, or of different runs; a missing or repeated part; a shard that was changed since it was
/// written; an existing store at `out`.
pub fn merge(parts: &[PathBuf], out: &Path, on_progress: &mut dyn FnMut(usize) -> bool) -> Result<Manifest> {
    if out.join(manifest::MANIFEST).exists() {
        return Err(Error::input(out.display(), "a store is there already", "another folder"));
    }
    let read =
        parts.iter().map(|folder| Ok((folder, Manifest::read(folder)?))).collect::<Result<Vec<_>>>()?;
    let Some((_, (header, first))) = read.first() else {
        return Err(Error::input("parts", "none", "the folders of all parts"));
    };
    let mut whole = Manifest { part: None, shards: Vec::new(), hashes: Vec::new(), ..first.clone() };
    (whole.rows, whole.tokens_read, whole.refused, whole.unpicked) = (0, 0, 0, 0);
    let mut seen: BTreeMap<usize, &Path> = BTreeMap::new();
    let mut shards: BTreeMap<usize, (&str, &Path, &str)> = BTreeMap::new();
    let of = first.part.map_or(0, |part| part.of);
    for (folder, (other, manifest)) in &read {
        let wrong = |found: String, expected: String| Error::input(folder.display(), found, expected);
        let Some(part) = manifest.part.filter(|part| part.of == of) else {
            let found = manifest.part.map_or("a whole store".into(), |part| format!("part {part}"));
            return Err(wrong(
                found,
                format!("a part of {}", if of == 0 { "a run".into() } else { of.to_string() }),
            ));
        };
        whole.check_same(header, &(other.clone(), Manifest { part: None, ..manifest.clone() }), folder)?;
        if let Some(twice) = seen.insert(part.number, folder) {
            return Err(wrong(format!("part {part}, as {} is", twice.display()), "each part once".into()));
        }
        whole.rows += manifest.rows;
        whole.tokens_read = whole.tokens_read.saturating_add(manifest.tokens_read);
        whole.refused = whole.refused.saturating_add(manifest.refused);
        whole.unpicked = whole.unpicked.saturating_add(manifest.unpicked);
        for (name, hash) in manifest.shards.iter().zip(&manifest.hashes) {
            let number = shard::number(name).ok_or_else(|| {
                wrong(
                    format!("the shard {name}"),
                    "shards by their numbers, as `pearl extract` writes them".into(),
                )
            })?;
            if shards.insert(number, (name, folder, hash)).is_some() {
                return Err(wrong(
                    format!("the shard {name}, as another part has"),
                    "each shard once".into(),
                ));
            }
        }
    }
    if let Some(missing) = (1..=of).find(|number| !seen.contains_key(number)) {
        let expected = format!("all {of} parts");
        return Err(Error::input("parts", format!("part {missing}/{of} is missing"), expected));
    }
    if let Some((missing, _)) = (0..).zip(shards.keys()).find(|(place, number)| place != *number) {
        let found = format!("shard {missing} is in none of them");
        return Err(Error::input("parts", found, "parts of one run of one version of this program"));
    }
    whole.balanced_by = None;
    let _lock = FolderLock::take(out)?;
    for (done, (_, (name, folder, hash))) in shards.into_iter().enumerate() {
        let file = TensorFile::open(folder.join(name))?;
        if artifact::sha256(file.bytes()) != hash {
            return Err(file.wrong("changed since it was written", "a part that passes `pearl store check`"));
        }
        artifact::write_atomic(&out.join(name), |to| to.write_all(file.bytes()))?;
        whole.shards.push(name.into());
        whole.hashes.push(hash.into());
        if !on_progress(done + 1) {
            return Err(Error::Stopped);
        }
    }
    whole.write(out, header)?;
    Ok(whole)
}
