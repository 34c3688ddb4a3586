//! The journal of a store that is being made: a line that says what makes it, then a line a shard. It is gone once the
//! manifest is there. It knows nothing of models.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::manifest::{self, KIND, Manifest, VERSION};
use super::shard::Shard;
use crate::artifact::{self, Header};
use crate::error::{Error, Result};

pub(super) const NAME: &str = "unfinished.jsonl";

/// What stands in the journal's first line.
#[derive(Serialize, Deserialize)]
struct Begin {
    #[serde(flatten)]
    header: Header,
    #[serde(flatten)]
    manifest: Manifest,
}

/// A shard that stands in the folder, and how far the run was with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    pub shard: Shard,
    /// The shard's number.
    pub number: usize,
    /// How many of the dialogues that were asked for lie before its end.
    pub end: usize,
    pub tokens: usize,
    pub refused: usize,
}

/// The journal of one folder, held by one run.
pub(super) struct Journal {
    folder: PathBuf,
    header: Header,
    manifest: Manifest,
    pub entries: Vec<Entry>,
    /// The folder, locked as long as the run lasts; none before there is one.
    lock: Option<File>,
    file: Option<File>,
}

/// What a folder holds when a run comes to it.
pub(super) enum Found {
    /// Nothing, or what an earlier run of the same left behind.
    Open(Journal),
    /// The whole store.
    Whole(Manifest),
}

impl Journal {
    /// Looks at a folder, which need not be there; changes nothing.
    ///
    /// # Errors
    /// What another run made, or is making.
    pub fn open(folder: &Path, header: &Header, manifest: &Manifest) -> Result<Found> {
        let lock = if folder.is_dir() { lock(folder)? } else { None };
        if folder.join(manifest::NAME).exists() {
            let found = Manifest::read(folder)?;
            manifest.check_same(header, &found, folder)?;
            // A run that was killed after its last step but one.
            remove(&folder.join(NAME))?;
            return Ok(Found::Whole(found.1));
        }
        let mut journal = Journal {
            folder: folder.into(),
            header: header.clone(),
            manifest: manifest.clone(),
            entries: Vec::new(),
            lock,
            file: None,
        };
        match std::fs::read_to_string(folder.join(NAME)) {
            Ok(text) => journal.resume(&text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => journal.refuse_shards()?,
            Err(error) => return Err(Error::file(&folder.join(NAME))(error)),
        }
        Ok(Found::Open(journal))
    }

    /// Goes on from what stands in the journal, as far as the shards are there.
    fn resume(&mut self, text: &str) -> Result<()> {
        let path = self.folder.join(NAME);
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let begin: Begin = serde_json::from_str(first).map_err(|error| {
            let expected = "the journal of a store; without it, another folder";
            Error::input(path.display(), format!("no journal ({error})"), expected)
        })?;
        self.manifest.check_same(
            &self.header,
            &(begin.header.clone(), begin.manifest.clone()),
            &self.folder,
        )?;
        // Names are those that the store was begun with, so that a resumed run ends as the first would have.
        (self.header, self.manifest) = (begin.header, begin.manifest);
        for line in lines {
            // A line that a full disk or a kill cut short is the last one.
            let Ok(entry) = serde_json::from_str::<Entry>(line) else { break };
            let length = std::fs::metadata(self.folder.join(&entry.shard.name)).map(|data| data.len());
            if length.ok() != Some(entry.shard.bytes) {
                break;
            }
            self.entries.push(entry);
        }
        Ok(())
    }

    /// Shards without a journal are some other store's.
    fn refuse_shards(&self) -> Result<()> {
        let Ok(names) = std::fs::read_dir(&self.folder) else { return Ok(()) };
        let shard = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("shard-");
        match names.flatten().find(|entry| shard(&entry.file_name())) {
            None => Ok(()),
            Some(entry) => {
                let found = format!("{}, and no manifest", entry.file_name().to_string_lossy());
                Err(Error::input(self.folder.display(), found, "an empty folder, or none"))
            }
        }
    }

    /// Makes the folder and the journal ready, once there is something to write. What a killed run was writing goes.
    fn begin(&mut self) -> Result<&mut File> {
        if self.file.is_none() {
            let path = self.folder.join(NAME);
            std::fs::create_dir_all(&self.folder).map_err(Error::file(&self.folder))?;
            if self.lock.is_none() {
                self.lock = lock(&self.folder)?;
            }
            for entry in std::fs::read_dir(&self.folder).map_err(Error::file(&self.folder))?.flatten() {
                if entry.file_name().to_string_lossy().starts_with(artifact::TEMPORARY) {
                    remove(&entry.path())?;
                }
            }
            let begin = Begin { header: self.header.clone(), manifest: self.manifest.clone() };
            let begin =
                Begin { header: Header { kind: KIND.into(), version: VERSION, ..begin.header }, ..begin };
            let mut text = line(&begin, &path)?;
            for entry in &self.entries {
                text.extend(line(entry, &path)?);
            }
            artifact::write_atomic(&path, |file| file.write_all(&text))?;
            self.file = Some(OpenOptions::new().append(true).open(&path).map_err(Error::file(&path))?);
        }
        // It was set above.
        self.file.as_mut().ok_or(Error::Stopped)
    }

    /// Writes a shard by `write`, given the folder, and then its line.
    pub fn add(&mut self, write: impl FnOnce(&Path) -> Result<Entry>) -> Result<()> {
        let path = self.folder.join(NAME);
        self.begin()?;
        let entry = write(&self.folder)?;
        let text = line(&entry, &path)?;
        let file = self.begin()?;
        // A line that a loss of power takes is a shard that is read again; the shard itself is on the disk.
        file.write_all(&text).map_err(Error::file(&path))?;
        self.entries.push(entry);
        Ok(())
    }

    /// Puts the manifest in the journal's place.
    pub fn finish(mut self, refused: usize) -> Result<Manifest> {
        self.begin()?;
        for Entry { shard, tokens, refused, .. } in &self.entries {
            self.manifest.rows += shard.rows;
            self.manifest.tokens_read += tokens;
            self.manifest.refused += refused;
            self.manifest.shards.push(shard.name.clone());
            self.manifest.hashes.push(shard.hash.clone());
        }
        self.manifest.refused += refused;
        self.manifest.write(&self.folder, &self.header)?;
        remove(&self.folder.join(NAME))?;
        Ok(self.manifest)
    }

    /// Removes what was written, for a run that has nothing to keep.
    pub fn discard(self) -> Result<()> {
        for entry in &self.entries {
            remove(&self.folder.join(&entry.shard.name))?;
        }
        remove(&self.folder.join(NAME))?;
        // It stays where something else is in it.
        let _ = std::fs::remove_dir(&self.folder);
        Ok(())
    }
}

fn line(value: &impl Serialize, path: &Path) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value)
        .map_err(|error| Error::input(path.display(), error, "what JSON can hold"))?;
    text.push(b'\n');
    Ok(text)
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file(path)(error)),
        _ => Ok(()),
    }
}

/// Keeps other runs out of a folder, where the system can; the lock goes with the process.
fn lock(folder: &Path) -> Result<Option<File>> {
    let Ok(file) = File::open(folder) else { return Ok(None) };
    match file.try_lock() {
        Err(std::fs::TryLockError::WouldBlock) => {
            let found = "another run is writing to it";
            Err(Error::input(folder.display(), found, "a folder of its own for each run"))
        }
        _ => Ok(Some(file)),
    }
}
