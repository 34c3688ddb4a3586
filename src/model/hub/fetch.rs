//! Download of a model from the hub into its client's cache: only the files that a model is opened from.
//!
//! Files are fetched for one commit, and the branch is set to that commit when all are there. An interrupted download
//! therefore leaves no model that looks complete, and the next one resumes it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::cache::find_in;
use super::client::{Client, Refusal};
use super::download::{Failure, Listed, download};
use super::repo::Repo;
use super::settings::{self, Settings};
use crate::artifact::{self, check_values, foreign_path};
use crate::error::{Error, Result};
use crate::model::gguf::split::{PartName, first_of_one};
use crate::model::weights::{ADAPTER, INDEX, SINGLE, other_weights, read_index};

/// Files of a model besides its weights.
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const COMPANIONS: [&str; 7] = [
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/default.jinja",
];

/// The longest list of files that is read, in bytes.
const LONGEST_LISTING: u64 = 32 << 20;

/// Values of such a list, at most: the largest repositories have 100,000 files of seven values.
const MOST_LISTED: usize = 1 << 20;

/// Bytes that have to come within the time-out, so that a server that trickles does not hold the download for ever.
const PROGRESS: u64 = 16 << 10;

const LATER: &str = "an answer of the hub; the same command resumes the download";

/// Longest interval at which progress is reported; the first ones are shorter, for small answers.
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
    let (mut last_beat, mut since, mut done) = (0, Instant::now(), 0);
    let mut pause = Duration::from_millis(1);
    while !worker.is_finished() {
        let beat = shared.beat.load(Relaxed);
        let fetched = shared.fetched.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if beat != last_beat {
            (last_beat, since, done) = (beat, Instant::now(), fetched.done);
        }
        if !on_progress(&fetched) {
            shared.stop.store(true, Relaxed);
            return Err(Error::Stopped);
        }
        if since.elapsed() > timeout {
            shared.stop.store(true, Relaxed);
            return Err(silent(place, timeout, fetched.done.saturating_sub(done)));
        }
        std::thread::sleep(pause);
        pause = (2 * pause).min(POLL_INTERVAL);
    }
    worker.join().unwrap_or_else(|_| Err(Error::input(place, "the hub's client failed", LATER)))
}

/// The error of a hub that is reached and that has sent `bytes` within the time-out, too few.
fn silent(place: String, timeout: Duration, bytes: u64) -> Error {
    let seconds = timeout.as_secs();
    let found = match bytes {
        0 => format!("the hub has sent nothing for {seconds} s"),
        _ => format!("the hub has sent {bytes} bytes of a file in {seconds} s, fewer than {PROGRESS}"),
    };
    Error::input(place, found, LATER)
}

/// State shared with the download thread.
#[derive(Default)]
struct Shared {
    fetched: Mutex<Fetched>,
    /// Incremented whenever [`PROGRESS`] bytes have arrived, and at each file.
    beat: AtomicU64,
    /// Set when the caller has given up.
    stop: AtomicBool,
}

impl Shared {
    /// The progress, to be updated because something was done.
    fn update(&self) -> MutexGuard<'_, Fetched> {
        self.beat.fetch_add(1, Relaxed);
        self.fetched()
    }

    /// The progress, to be updated by bytes that may be few.
    fn fetched(&self) -> MutexGuard<'_, Fetched> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

impl Sibling {
    fn listed(&self) -> Option<Listed> {
        let hash = self.lfs.as_ref().map(|large| &large.sha256).or(self.blob.as_ref())?;
        Listed::new(self.size?, hash)
    }
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
    client: &'a Client,
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

    fn fetch(&self, shared: &Shared) -> Result<()> {
        let client = Client::new(&self.settings);
        let Listing { sha, siblings } = self.list(&client)?;
        let files = siblings.into_iter().map(|file| (file.rfilename.clone(), file)).collect();
        let commit = Commit { source: self, client: &client, sha, files };
        commit.fetch(shared)?;
        if self.revision != commit.sha {
            artifact::write_text(&self.folder().join("refs").join(&self.revision), &commit.sha)?;
        }
        Ok(())
    }

    fn list(&self, client: &Client) -> Result<Listing> {
        let path = format!("/api/models/{}/revision/{}?blobs=true", self.id, encoded(&self.revision));
        let answer = client.get(&path, 0).map_err(|refusal| self.refused(&refusal, None))?;
        let endpoint = self.settings.shown_endpoint();
        let wrong =
            |found: String| self.wrong(format!("{endpoint} answers {found}"), "a list of the model's files");
        let mut text = Vec::new();
        let body = answer.into_body().into_reader().take(LONGEST_LISTING + 1).read_to_end(&mut text);
        body.map_err(|error| self.refused(&Refusal::Broken(error.to_string()), None))?;
        if text.len() as u64 > LONGEST_LISTING {
            return Err(wrong(format!("a list of more than {LONGEST_LISTING} bytes")));
        }
        check_values(&text, MOST_LISTED).map_err(wrong)?;
        let listing: Listing = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        // The commit becomes a folder's name.
        let hash = listing.sha.bytes().all(|byte| byte.is_ascii_hexdigit());
        match hash && (7..=64).contains(&listing.sha.len()) {
            true => Ok(listing),
            false => Err(self.wrong(format!("{endpoint} answers commit {:?}", listing.sha), "a hash")),
        }
    }

    /// The library's error for a refusal. `file` is the file being fetched, if the hub had answered before.
    fn refused(&self, refusal: &Refusal, file: Option<&str>) -> Error {
        let endpoint = self.settings.shown_endpoint();
        let status = match (refusal, file) {
            (Refusal::Status(status), _) => *status,
            (Refusal::Silent, _) => return silent(self.place(), self.settings.timeout, 0),
            (Refusal::Broken(found), Some(file)) => {
                return self.wrong(format!("the download of {file} broke off ({found})"), LATER);
            }
            (Refusal::Broken(found), None) => {
                let cache = self.cache.display();
                let found = format!(
                    "no folder, not in the hub's cache {cache}, and {endpoint} can't be reached ({found})"
                );
                return self.wrong(found, "a folder, a model in the cache, or a network");
            }
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
        let names: Vec<String> = self.files.keys().cloned().collect();
        // Beside weights, transformers would apply an adapter.
        if has(ADAPTER)
            && let Some((found, expected)) = other_weights(&names)
        {
            return Err(self.source.wrong(found, expected));
        }
        if !has(INDEX) && !has(SINGLE) {
            let at_top = |name: &&String| !name.contains('/') && name.to_lowercase().ends_with(".gguf");
            let gguf: Vec<&str> = self.files.keys().filter(at_top).map(String::as_str).collect();
            if let Some(part) = first_of_one(&gguf) {
                let files: Vec<String> = part.all().collect();
                return match files.iter().find(|file| !has(file)) {
                    Some(missing) => Err(lacks(format!("the repository has no {missing}"))),
                    None => Ok(Wanted { files, index: false }),
                };
            }
            return match gguf.as_slice() {
                [one] => Ok(Wanted { files: vec![one.to_string()], index: false }),
                [] => Err(match other_weights(&names) {
                    Some((found, expected)) => self.source.wrong(found, expected),
                    None => lacks("the repository has no safetensors and no GGUF file".into()),
                }),
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
        files.extend(has(SINGLE).then(|| SINGLE.to_owned()));
        Ok(Wanted { files, index: !has(SINGLE) })
    }

    /// Fetches a file unless it exists, and adds its bytes to `done`.
    fn get(&self, file: &str, done: &mut u64, shared: &Shared) -> Result<()> {
        let source = self.source;
        let safe = foreign_path(file)
            .ok_or_else(|| source.wrong(format!("file {file:?}"), "names inside the repository"))?;
        let path = self.snapshot().join(&safe);
        if path.exists() {
            return Ok(());
        }
        let listed = self.files.get(file).and_then(Sibling::listed).ok_or_else(|| {
            let found = format!("{} lists {file} without its size or hash", source.settings.shown_endpoint());
            source.wrong(found, "both, by which a download is checked")
        })?;
        let blobs = source.folder().join("blobs");
        std::fs::create_dir_all(&blobs).map_err(Error::file(&blobs))?;
        shared.update().file = file.into();
        let mut counted = 0;
        let mut came = |length: u64| {
            shared.fetched().done = *done + length;
            // What begins anew is no progress.
            if length >= counted + PROGRESS || length == listed.size {
                counted = length;
                shared.beat.fetch_add(1, Relaxed);
            }
            !shared.stop.load(Relaxed)
        };
        let resolve = format!("/{}/resolve/{}/{}", source.id, self.sha, encoded_path(file));
        let blob =
            download(self.client, &resolve, &listed, &blobs, &mut came).map_err(|failure| match failure {
                Failure::Refused(refusal) => source.refused(&refusal, Some(file)),
                Failure::Wrong(found) => {
                    source.wrong(format!("{file}: {found}"), "the listed content; the download was deleted")
                }
                Failure::Error(error) => error,
            })?;
        link(&blob, &path, safe.components().count()).map_err(Error::file(&path))?;
        *done += listed.size;
        Ok(())
    }
}

/// Puts a blob into a snapshot, `depth` names below the commit's folder: a relative link where links can be made, as the
/// hub's own client has it.
fn link(blob: &Path, path: &Path, depth: usize) -> std::io::Result<()> {
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    #[cfg(unix)]
    {
        let up: PathBuf = std::iter::repeat_n("..", depth + 1).collect();
        let name = blob.file_name().unwrap_or_default();
        // A link that leads nowhere stays behind where somebody cleared the blobs.
        let _ = std::fs::remove_file(path);
        std::os::unix::fs::symlink(up.join("blobs").join(name), path)
    }
    #[cfg(not(unix))]
    {
        let _ = depth;
        std::fs::rename(blob, path)
    }
}

/// A string as one segment of a URL's path.
fn encoded(segment: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let letter = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    segment.bytes().map(letter).collect()
}

/// A file's name, whose slashes part segments.
fn encoded_path(file: &str) -> String {
    file.split('/').map(encoded).collect::<Vec<_>>().join("/")
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
    let weights = has(SINGLE)
        || index.is_file() && read_index(&index).is_ok_and(|shards| shards.values().all(|shard| has(shard)));
    let is_whole = |name: &str| {
        let gguf = Path::new(name).extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
        gguf && PartName::parse(name).is_none_or(|part| part.all().all(|name| has(&name)))
    };
    let entries = || std::fs::read_dir(snapshot).into_iter().flatten().flatten();
    weights && has(CONFIG) && has(TOKENIZER)
        || !index.is_file()
            && !has(SINGLE)
            && entries().any(|entry| entry.file_name().to_str().is_some_and(is_whole))
}
