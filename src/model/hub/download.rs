//! One file's download into the hub's cache: what came before goes on, and the content's hash is compared with the one that
//! the hub lists.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};
use ureq::http::StatusCode;

use super::client::{Client, Refusal};
use crate::error::Error;

/// How often a download that broke off goes on by itself.
const RETRIES: usize = 3;

/// How often a download may begin anew from its first byte, where the server gives no part of it.
const RESTARTS: usize = 3;

/// Wait before the first retry; each further one waits twice as long.
const BACKOFF: Duration = Duration::from_millis(200);

/// Bytes that are read at once.
const CHUNK: usize = 1 << 18;

/// A file's content, as the hub lists it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Listed {
    /// In bytes.
    pub size: u64,
    /// In hex: SHA-256 of the content (64 digits, large files) or git's blob hash (40 digits).
    pub hash: String,
}

impl Listed {
    /// None where the hash is neither of the two kinds.
    pub fn new(size: u64, hash: &str) -> Option<Listed> {
        let hex = hash.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        (hex && [40, 64].contains(&hash.len())).then(|| Listed { size, hash: hash.into() })
    }

    fn hasher(&self) -> Hasher {
        match self.hash.len() {
            64 => Hasher::Sha256(Sha256::new()),
            _ => Hasher::Git(Sha1::new_with_prefix(format!("blob {}\0", self.size))),
        }
    }
}

enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Git(hasher) => hasher.update(bytes),
        }
    }

    fn hex(self) -> String {
        match self {
            Hasher::Sha256(hasher) => format!("{:x}", hasher.finalize()),
            Hasher::Git(hasher) => format!("{:x}", hasher.finalize()),
        }
    }
}

/// What there is of a file.
struct Part {
    out: File,
    hasher: Hasher,
    length: u64,
    restarts: usize,
}

impl Part {
    /// Throws away what there is.
    fn begin_anew(&mut self, listed: &Listed) -> std::result::Result<(), Failure> {
        self.restarts += 1;
        if self.restarts > RESTARTS {
            let found = format!("the server gave no part of it {RESTARTS} times");
            return Err(Failure::Refused(Refusal::Broken(found)));
        }
        self.out.set_len(0).map_err(io)?;
        (self.length, self.hasher) = (0, listed.hasher());
        Ok(())
    }
}

fn io(error: std::io::Error) -> Failure {
    Failure::Error(Error::input("the hub's cache", error, "a disk that can be written"))
}

/// Why a file did not come.
pub(super) enum Failure {
    Refused(Refusal),
    /// What came is not what the hub lists, in words; it is thrown away.
    Wrong(String),
    /// The cache can't be written, or the download was stopped.
    Error(Error),
}

/// Downloads the file at `path` of the hub into `blobs/HASH`, and returns where it is. `came` hears of the bytes that there
/// are, and answers whether to go on.
pub(super) fn download(
    client: &Client,
    path: &str,
    listed: &Listed,
    blobs: &Path,
    came: &mut dyn FnMut(u64) -> bool,
) -> std::result::Result<PathBuf, Failure> {
    let blob = blobs.join(&listed.hash);
    if blob.metadata().is_ok_and(|blob| blob.len() == listed.size) {
        return Ok(blob);
    }
    let part = blobs.join(format!("{}.part", listed.hash));
    let file = |error| Failure::Error(Error::file(&part)(error));
    let mut out = OpenOptions::new().create(true).read(true).append(true).open(&part).map_err(file)?;
    match out.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let found = "another run is downloading this file";
            return Err(Failure::Error(Error::input(part.display(), found, "one download at a time")));
        }
        Err(TryLockError::Error(error)) => return Err(file(error)),
    }
    let discard = |found: String| {
        let _ = std::fs::remove_file(&part);
        Err(Failure::Wrong(found))
    };
    let mut hasher = listed.hasher();
    let length = resume(&mut out, listed, &mut hasher).map_err(file)?;
    if !came(length) {
        return Err(Failure::Error(Error::Stopped));
    }
    let mut held = Part { out, hasher, length, restarts: 0 };
    let mut retries = 0;
    while held.length < listed.size {
        let before = held.length;
        match append(client, path, listed, &mut held, came) {
            Ok(()) => {}
            // More or other bytes than asked for can't be told apart from damage.
            Err(Failure::Wrong(found)) => return discard(found),
            Err(Failure::Refused(Refusal::Broken(_))) if retries < RETRIES && held.restarts <= RESTARTS => {
                std::thread::sleep(BACKOFF * (1 << retries));
                // A connection that brings something each time may break off as often as it likes.
                retries = if held.length > before { 0 } else { retries + 1 };
            }
            Err(failure) => return Err(failure),
        }
    }
    let hash = held.hasher.hex();
    if hash != listed.hash {
        return discard(format!("content with hash {hash}, where the hub lists {}", listed.hash));
    }
    held.out.sync_all().map_err(file)?;
    std::fs::rename(&part, &blob).map_err(file)?;
    Ok(blob)
}

/// Hashes what came before, and returns its length; more than the whole file is thrown away.
fn resume(out: &mut File, listed: &Listed, hasher: &mut Hasher) -> std::io::Result<u64> {
    let length = out.metadata()?.len();
    if length > listed.size {
        out.set_len(0)?;
        return Ok(0);
    }
    out.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; CHUNK];
    loop {
        match out.read(&mut buffer)? {
            0 => return Ok(length),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Appends what one request brings.
fn append(
    client: &Client,
    path: &str,
    listed: &Listed,
    held: &mut Part,
    came: &mut dyn FnMut(u64) -> bool,
) -> std::result::Result<(), Failure> {
    let broken = |found: String| Failure::Refused(Refusal::Broken(found));
    let response = match client.get(path, held.length) {
        // The range can't be had: begin again.
        Err(Refusal::Status(416)) if held.length > 0 => return held.begin_anew(listed),
        other => other.map_err(Failure::Refused)?,
    };
    if response.status() == StatusCode::OK && held.length > 0 {
        // The server doesn't know ranges and sends the whole.
        held.begin_anew(listed)?;
    }
    let mut body = response.into_body();
    let mut reader = body.as_reader();
    let mut buffer = vec![0; CHUNK];
    while held.length < listed.size {
        let read = reader.read(&mut buffer).map_err(|error| broken(error.to_string()))?;
        if read == 0 {
            let found = format!("the answer ended after {} of {} bytes", held.length, listed.size);
            return Err(broken(found));
        }
        if held.length + read as u64 > listed.size {
            return Err(Failure::Wrong(format!("more than the {} bytes that the hub lists", listed.size)));
        }
        held.hasher.update(&buffer[..read]);
        held.out.write_all(&buffer[..read]).map_err(io)?;
        held.length += read as u64;
        if !came(held.length) {
            return Err(Failure::Error(Error::Stopped));
        }
    }
    Ok(())
}
