//! Download of a model from the hub into its client's cache: only the files that a model is opened from.
//!
//! Files are fetched for one commit, and the branch is set to that commit when all are there. An interrupted download
//! therefore leaves no model that looks complete, and the next one resumes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, RepoType};
use serde::Deserialize;

use super::cache::find_in;
use super::repo::Repo;
use super::settings::{self, Settings};
use crate::error::{Error, Result};
use crate::model::weights::{INDEX, SINGLE, read_index};

/// Files of a model besides its weights.
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const COMPANIONS: [&str; 6] = [
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/default.jinja",
];

/// Automatic retries of a failed download.
const RETRIES: usize = 3;

const LATER: &str = "an answer of the hub; the same command resumes the download";

/// Interval at which progress is reported.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Progress of a download.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// The file being fetched.
    pub file: String,
    /// Bytes received.
    pub done: u64,
    /// Bytes to fetch; 0 until the hub has listed the files.
    pub total: u64,
}

/// Fetches the model of a hub repository (`ORG/NAME`, with `@REVISION` or without) into the cache. Does nothing for a path,
/// for a model in the cache, and offline (`HF_HUB_OFFLINE`). `on_progress` gets the progress; `false` stops.
///
/// # Errors
/// A hub that can't be reached, or that refuses or lacks the model; a model without supported files; an interrupted
/// download; [`Error::Stopped`].
pub fn fetch(name: impl AsRef<Path>, on_progress: &mut dyn FnMut(&Fetched) -> bool) -> Result<()> {
    let name = name.as_ref();
    let variable = |name: &str| std::env::var_os(name);
    let Some(repo) = name.to_str().filter(|_| !name.exists()).and_then(Repo::parse) else { return Ok(()) };
    let (settings, cache) = (Settings::read(&variable), settings::cache(&variable));
    // Without a home folder there is no cache; opening the model reports that.
    let Some(cache) = cache.filter(|_| !settings.offline) else { return Ok(()) };
    if find_in(&repo, Some(&cache)).is_ok_and(|snapshot| is_complete(&snapshot)) {
        return Ok(());
    }
    let timeout = settings.timeout;
    let source = Source { id: repo.id.into(), revision: repo.revision.into(), settings, cache };
    let place = source.place();
    let shared = Arc::new(Shared::default());
    // The client has neither a timeout nor a way to be stopped, so that it runs on a thread of its own.
    let worker = std::thread::spawn({
        let shared = shared.clone();
        move || source.fetch(&shared)
    });
    let (mut last_beat, mut since) = (0, Instant::now());
    while !worker.is_finished() {
        let beat = shared.beat.load(Relaxed);
        if beat != last_beat {
            (last_beat, since) = (beat, Instant::now());
        }
        let fetched = shared.fetched.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !on_progress(&fetched) {
            shared.stop.store(true, Relaxed);
            return Err(Error::Stopped);
        }
        if since.elapsed() > timeout {
            shared.stop.store(true, Relaxed);
            let found = format!("the hub has sent nothing for {} s", timeout.as_secs());
            return Err(Error::input(place, found, LATER));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    worker.join().unwrap_or_else(|_| Err(Error::input(place, "the hub's client failed", LATER)))
}

/// State shared with the download thread.
#[derive(Default)]
struct Shared {
    fetched: Mutex<Fetched>,
    /// Incremented whenever data arrives.
    beat: AtomicU64,
    /// Set when the caller has given up.
    stop: AtomicBool,
}

impl Shared {
    /// The progress, to be updated because data arrived.
    fn update(&self) -> MutexGuard<'_, Fetched> {
        self.beat.fetch_add(1, Relaxed);
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Receiver of the client's progress on one file.
struct FileProgress<'a> {
    shared: &'a Shared,
    /// Bytes of the files before it.
    before: u64,
}

impl Progress for FileProgress<'_> {
    fn init(&mut self, _: usize, file: &str) {
        let mut fetched = self.shared.update();
        fetched.done = self.before;
        fetched.file = file.into();
    }

    fn update(&mut self, bytes: usize) {
        if self.shared.stop.load(Relaxed) {
            // The client can't be stopped otherwise; this ends its thread silently, and the part file stays.
            std::panic::resume_unwind(Box::new("stopped"));
        }
        self.shared.update().done += bytes as u64;
    }

    fn finish(&mut self) {}
}

/// The hub's list of a repository's files.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob: Option<String>,
    lfs: Option<Large>,
}

/// Large-file storage entry.
#[derive(Deserialize)]
struct Large {
    sha256: String,
}

/// A repository of a hub, and the cache to fetch it into.
struct Source {
    id: String,
    revision: String,
    settings: Settings,
    cache: PathBuf,
}

/// A listed repository at one commit.
struct Commit<'a> {
    source: &'a Source,
    api: ApiRepo,
    sha: String,
    files: BTreeMap<String, Sibling>,
}

impl Source {
    fn place(&self) -> String {
        Repo { id: &self.id, revision: &self.revision }.place()
    }

    fn wrong(&self, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> Error {
        Error::input(self.place(), found, expected)
    }

    fn folder(&self) -> PathBuf {
        self.cache.join(Repo { id: &self.id, revision: &self.revision }.folder())
    }

    fn at(&self, revision: &str) -> hf_hub::Repo {
        hf_hub::Repo::with_revision(self.id.clone(), RepoType::Model, revision.into())
    }

    fn fetch(&self, shared: &Shared) -> Result<()> {
        let cache = Cache::new(self.cache.clone());
        let api = ApiBuilder::from_cache(cache.clone())
            .with_endpoint(self.settings.endpoint.clone())
            .with_token(self.settings.token.clone())
            .with_retries(RETRIES)
            .build()
            .map_err(|error| self.refused(&error, None))?;
        let Listing { sha, siblings } = self.list(&api.repo(self.at(&self.revision)))?;
        let files = siblings.into_iter().map(|file| (file.rfilename.clone(), file)).collect();
        let commit = Commit { source: self, api: api.repo(self.at(&sha)), sha, files };
        commit.fetch(shared)?;
        if self.revision != commit.sha {
            let branch = cache.repo(self.at(&self.revision));
            branch.create_ref(&commit.sha).map_err(Error::file(&self.folder()))?;
        }
        Ok(())
    }

    fn list(&self, repo: &ApiRepo) -> Result<Listing> {
        let answer = repo.info_request().query("blobs", "true").call();
        let text = answer.and_then(|mut answer| answer.body_mut().read_to_string());
        let text = text.map_err(|error| self.refused(&Box::new(error).into(), None))?;
        let endpoint = &self.settings.endpoint;
        let listing: Listing = serde_json::from_str(&text).map_err(|error| {
            self.wrong(format!("{endpoint} answers {error}"), "a list of the model's files")
        })?;
        // It becomes the name of a folder.
        match listing.sha.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !listing.sha.is_empty() {
            true => Ok(listing),
            false => Err(self.wrong(format!("{endpoint} answers commit {:?}", listing.sha), "a hash")),
        }
    }

    /// The library's error for a client error. `file` is the file being fetched, if the hub had answered before.
    fn refused(&self, error: &ApiError, file: Option<&str>) -> Error {
        let endpoint = &self.settings.endpoint;
        let status = match error {
            ApiError::TooManyRetries(error) => return self.refused(error, file),
            ApiError::RequestError(error) => match **error {
                ureq::Error::StatusCode(status) => Some(status),
                _ => None,
            },
            _ => None,
        };
        let Some(status) = status else {
            return match file {
                Some(file) => self.wrong(format!("the download of {file} broke off ({error})"), LATER),
                None => {
                    let cache = self.cache.display();
                    let found = format!(
                        "no folder, not in the hub's cache {cache}, and {endpoint} can't be reached ({error})"
                    );
                    self.wrong(found, "a folder, a model in the cache, or a network")
                }
            };
        };
        let token = match &self.settings.token_file {
            Some(file) => format!("in HF_TOKEN or in {} (`hf auth login` writes it)", file.display()),
            None => "in HF_TOKEN".into(),
        };
        let what = file.map_or("the model".to_owned(), |file| format!("{file} of the model"));
        match (status, &self.settings.token) {
            (401 | 403, Some(_)) => {
                let found = format!(
                    "no folder, and {endpoint} answers {status} to a request for {what} with your token"
                );
                let expected = format!(
                    "a model that exists, and if it is private or gated, the token of an account that has access, {token}"
                );
                self.wrong(found, expected)
            }
            (401 | 403, None) => {
                let found = format!("no folder, and {endpoint} answers {status} to a request for {what}");
                let expected =
                    format!("a model that exists; a private or gated one needs a token, looked for {token}");
                self.wrong(found, expected)
            }
            (404, _) => {
                let found = format!("no folder, and {endpoint} has no such model or revision");
                self.wrong(found, "a checkpoint folder, or ORG/NAME of the hub, with @REVISION or without")
            }
            _ => self.wrong(format!("{endpoint} answers {status} to a request for {what}"), LATER),
        }
    }
}

impl Commit<'_> {
    fn fetch(&self, shared: &Shared) -> Result<()> {
        let Wanted { mut files, index } = self.wanted()?;
        if index {
            self.get(INDEX, &mut 0, shared)?;
            let path = self.snapshot().join(INDEX);
            for shard in read_index(&path)?.into_values() {
                if !self.files.contains_key(&shard) {
                    let found = format!("{INDEX} names {shard}, which is not there");
                    return Err(self.source.wrong(found, "all files of the index"));
                }
                files.push(shard);
            }
        }
        files.sort();
        files.dedup();
        files.retain(|file| !self.snapshot().join(file).exists());
        shared.update().total = files.iter().filter_map(|file| self.files[file].size).sum();
        let mut done = 0;
        files.iter().try_for_each(|file| self.get(file, &mut done, shared))
    }

    fn snapshot(&self) -> PathBuf {
        self.source.folder().join("snapshots").join(&self.sha)
    }

    /// Files to fetch; of a sharded checkpoint, the index first.
    fn wanted(&self) -> Result<Wanted> {
        let has = |name: &str| self.files.contains_key(name);
        let companions = || COMPANIONS.into_iter().filter(|name| has(name)).map(String::from);
        let lacks = |found: String| {
            let expected = format!("{CONFIG}, {TOKENIZER} and safetensors, or one GGUF file");
            self.source.wrong(found, expected)
        };
        if !has(INDEX) && !has(SINGLE) {
            let at_top = |name: &&String| !name.contains('/') && name.to_lowercase().ends_with(".gguf");
            let gguf: Vec<&String> = self.files.keys().filter(at_top).collect();
            return match gguf.as_slice() {
                [one] => Ok(Wanted { files: vec![one.to_string()], index: false }),
                [] => Err(lacks("the repository has no safetensors and no GGUF file".into())),
                [first, ..] => {
                    let found = format!("the repository has {} GGUF files", gguf.len());
                    let expected =
                        format!("one of them, fetched with `hf download {} {first}`", self.source.id);
                    Err(self.source.wrong(found, expected))
                }
            };
        }
        if let Some(missing) = [CONFIG, TOKENIZER].into_iter().find(|name| !has(name)) {
            return Err(lacks(format!("the repository has no {missing}")));
        }
        let mut files: Vec<String> = [CONFIG, TOKENIZER].map(String::from).into();
        files.extend(companions());
        files.extend((!has(INDEX)).then(|| SINGLE.to_owned()));
        Ok(Wanted { files, index: has(INDEX) })
    }

    /// Fetches a file unless it exists, and adds its bytes to `done`.
    fn get(&self, file: &str, done: &mut u64, shared: &Shared) -> Result<()> {
        let path = self.snapshot().join(file);
        if path.exists() {
            return Ok(());
        }
        let sibling = self.files.get(file);
        let size = sibling.and_then(|sibling| sibling.size);
        let blobs = self.source.folder().join("blobs");
        std::fs::create_dir_all(&blobs).map_err(Error::file(&blobs))?;
        // A part file with all bytes or more: the client would request the bytes after it, and be refused.
        let hash = sibling.and_then(|it| it.lfs.as_ref().map(|lfs| &lfs.sha256).or(it.blob.as_ref()));
        let part = hash.filter(|hash| hash.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        if let Some(part) = part.map(|hash| blobs.join(format!("{hash}.part"))) {
            let length = part.metadata().map_or(0, |part| part.len());
            if size.is_some_and(|size| length >= size) {
                let _ = std::fs::remove_file(&part);
            }
        }
        let got = self.api.download_with_progress(file, FileProgress { shared, before: *done });
        // The client writes a ref for the commit as if it were a branch.
        let _ = std::fs::remove_file(self.source.folder().join("refs").join(&self.sha));
        let got = got.map_err(|error| self.source.refused(&error, Some(file)))?;
        let length = got.metadata().map_err(Error::file(&got))?.len();
        if let Some(size) = size.filter(|size| *size != length) {
            let blob = got.canonicalize().map_err(Error::file(&got))?;
            [&got, &blob].into_iter().try_for_each(std::fs::remove_file).map_err(Error::file(&got))?;
            let found = format!("received {length} bytes of {file}, which has {size}");
            return Err(self.source.wrong(found, "all of them; the incomplete file was deleted"));
        }
        *done += length;
        Ok(())
    }
}

/// Files to fetch.
struct Wanted {
    files: Vec<String>,
    /// Whether an index names further files.
    index: bool,
}

/// Whether a snapshot has all files of a model: another program may have fetched only some, or a download was interrupted.
fn is_complete(snapshot: &Path) -> bool {
    let has = |name: &str| snapshot.join(name).is_file();
    let index = snapshot.join(INDEX);
    let weights = match index.is_file() {
        true => read_index(&index).is_ok_and(|shards| shards.values().all(|shard| has(shard))),
        false => has(SINGLE),
    };
    let is_gguf = |path: PathBuf| path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
    let entries = || std::fs::read_dir(snapshot).into_iter().flatten().flatten();
    weights && has(CONFIG) && has(TOKENIZER)
        || !index.is_file() && !has(SINGLE) && entries().any(|entry| is_gguf(entry.path()))
}
