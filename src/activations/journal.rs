//! Journal of an unfinished store: one JSON line that identifies the run, then one for each finished shard.
//!
//! A run that finds a journal of the same run continues after its last shard. The manifest replaces it at the end.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::manifest::{self, JOURNAL, KIND, Manifest, SHARD_PREFIX, VERSION};
use super::shard::Shard;
use crate::artifact::{self, FolderLock, Header};
use crate::error::{Error, Result};

/// The journal's first line.
#[derive(Serialize, Deserialize)]
struct FirstLine {
    #[serde(flatten)]
    header: Header,
    #[serde(flatten)]
    manifest: Manifest,
}

/// A finished shard, and the progress of the run at its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    pub shard: Shard,
    /// Number of the shard.
    pub number: usize,
    /// Requested dialogues up to its end.
    pub end: usize,
    /// Tokens of its dialogues.
    pub tokens: usize,
    /// Dialogues that the template or the model refused since the last shard.
    pub refused: usize,
    /// Dialogues of the shard in which the selector picked nothing.
    #[serde(default)]
    pub unpicked: usize,
    /// Tokens that each part of the run has up to its end; empty without parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loads: Vec<u64>,
}

/// The day that the run which began a store told the chat template, if there is such a run.
pub(super) fn begun_on(folder: &Path) -> Option<NaiveDate> {
    if let Ok((_, manifest)) = Manifest::read(folder) {
        return manifest.date?.parse().ok();
    }
    let text = std::fs::read_to_string(folder.join(JOURNAL)).ok()?;
    serde_json::from_str::<FirstLine>(text.lines().next()?).ok()?.manifest.date?.parse().ok()
}

/// The journal of one folder, held by one run.
pub(super) struct Journal {
    folder: PathBuf,
    header: Header,
    manifest: Manifest,
    /// Finished shards, in order.
    pub entries: Vec<Entry>,
    /// Lock on the folder for the time of the run.
    _lock: FolderLock,
    file: Option<File>,
}

/// The state of a store's folder at the start of a run.
pub(super) enum FolderState {
    /// Empty, or with finished shards of an interrupted run.
    Open(Box<Journal>),
    /// With a complete store.
    Complete(Box<Manifest>),
}

impl Journal {
    /// Opens a folder, which need not exist: an empty one goes again where nothing is written.
    ///
    /// # Errors
    /// A store, finished or not, of another run; a folder that another run is writing to.
    pub fn open(folder: &Path, header: &Header, manifest: &Manifest) -> Result<FolderState> {
        let lock = FolderLock::take(folder)?;
        if folder.join(manifest::MANIFEST).exists() {
            let found = Manifest::read(folder)?;
            manifest.check_same(header, &found, folder)?;
            // Left by a run that was killed between its last two steps.
            remove(&folder.join(JOURNAL))?;
            return Ok(FolderState::Complete(Box::new(found.1)));
        }
        let mut journal = Journal {
            folder: folder.into(),
            header: header.clone(),
            manifest: manifest.clone(),
            entries: Vec::new(),
            _lock: lock,
            file: None,
        };
        match std::fs::read_to_string(folder.join(JOURNAL)) {
            Ok(text) => journal.resume(&text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => journal.refuse_shards()?,
            Err(error) => return Err(Error::file(&folder.join(JOURNAL))(error)),
        }
        Ok(FolderState::Open(Box::new(journal)))
    }

    /// Takes over the journal's entries, up to the first whose shard is missing or of another size.
    fn resume(&mut self, text: &str) -> Result<()> {
        let path = self.folder.join(JOURNAL);
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let begin: FirstLine = serde_json::from_str(first).map_err(|error| {
            let expected = "the journal of a store; without it, another folder";
            Error::input(path.display(), format!("no journal ({error})"), expected)
        })?;
        self.manifest.check_same(
            &self.header,
            &(begin.header.clone(), begin.manifest.clone()),
            &self.folder,
        )?;
        // File names stay those of the first run, so that the resumed store has the same bytes.
        (self.header, self.manifest) = (begin.header, begin.manifest);
        for line in lines {
            // Only the last line can be cut short, by a full disk or a kill.
            let Ok(entry) = serde_json::from_str::<Entry>(line) else { break };
            manifest::check_shard_name(&path, &entry.shard.name)?;
            let length = std::fs::metadata(self.folder.join(&entry.shard.name)).map(|data| data.len());
            if length.ok() != Some(entry.shard.bytes) {
                break;
            }
            self.entries.push(entry);
        }
        Ok(())
    }

    /// Refuses a folder with shards but without a journal: they belong to another store.
    fn refuse_shards(&self) -> Result<()> {
        let Ok(names) = std::fs::read_dir(&self.folder) else { return Ok(()) };
        let is_shard = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with(SHARD_PREFIX);
        match names.flatten().find(|entry| is_shard(&entry.file_name())) {
            None => Ok(()),
            Some(entry) => {
                let found = format!("{}, and no manifest", entry.file_name().to_string_lossy());
                Err(Error::input(self.folder.display(), found, "an empty folder, or none"))
            }
        }
    }

    /// Removes temporary files of a killed run and opens the journal, once.
    fn begin(&mut self) -> Result<&mut File> {
        if self.file.is_none() {
            let path = self.folder.join(JOURNAL);
            artifact::remove_abandoned(&self.folder);
            let header = Header { kind: KIND.into(), version: VERSION, ..self.header.clone() };
            let mut text = line(&FirstLine { header, manifest: self.manifest.clone() }, &path)?;
            for entry in &self.entries {
                text.extend(line(entry, &path)?);
            }
            artifact::write_atomic(&path, |file| file.write_all(&text))?;
            self.file = Some(OpenOptions::new().append(true).open(&path).map_err(Error::file(&path))?);
        }
        // The file was set above.
        self.file.as_mut().ok_or(Error::Stopped)
    }

    /// Writes a shard by `write`, given the folder, and then its line.
    pub fn add(&mut self, write: impl FnOnce(&Path) -> Result<Entry>) -> Result<()> {
        let path = self.folder.join(JOURNAL);
        self.begin()?;
        let entry = write(&self.folder)?;
        let text = line(&entry, &path)?;
        let file = self.begin()?;
        // Not synced: a line lost to a power failure costs one shard's computation. The shard itself is synced.
        file.write_all(&text).map_err(Error::file(&path))?;
        self.entries.push(entry);
        Ok(())
    }

    /// Writes the manifest and removes the journal; `refused` counts dialogues refused after the last shard.
    pub fn finish(mut self, refused: usize) -> Result<Manifest> {
        self.begin()?;
        for Entry { shard, tokens, refused, unpicked, .. } in &self.entries {
            self.manifest.rows += shard.rows;
            self.manifest.tokens_read = self.manifest.tokens_read.saturating_add(*tokens);
            self.manifest.refused = self.manifest.refused.saturating_add(*refused);
            self.manifest.unpicked = self.manifest.unpicked.saturating_add(*unpicked);
            self.manifest.shards.push(shard.name.clone());
            self.manifest.hashes.push(shard.hash.clone());
        }
        self.manifest.refused = self.manifest.refused.saturating_add(refused);
        self.manifest.write(&self.folder, &self.header)?;
        remove(&self.folder.join(JOURNAL))?;
        Ok(self.manifest)
    }

    /// Removes everything that was written, for a run without any row.
    pub fn discard(self) -> Result<()> {
        for entry in &self.entries {
            remove(&self.folder.join(&entry.shard.name))?;
        }
        remove(&self.folder.join(JOURNAL))?;
        // Fails, as it should, where the folder holds other files.
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
