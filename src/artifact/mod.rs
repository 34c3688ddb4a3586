//! What every saved file starts with, and how a file is written whole and read with doubt.
//! It knows nothing of what the files hold: each kind is described where it is made.

mod foreign_name;
mod gguf;
mod mmap;
mod tensors;

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use foreign_name::{foreign_name, foreign_path};
pub use gguf::{GgmlType, GgufFile, GgufTensor, GgufValue};
pub use safetensors::tensor::Dtype as StoredType;
pub use tensors::{Numbers, TensorFile, write_tensors};

use crate::error::{Error, Result};

/// The first fields of a saved file. In JSON they stand beside the body's own fields; in safetensors they are
/// strings in the metadata. What is not known is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// What the file is: `probe`, `vector`, `activations`, `results`, …
    pub kind: String,
    /// Version of that kind's layout; a reader takes its own only.
    pub version: u32,
    /// The model that was read or steered, as the user named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// SHA-256 of the model's weights, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_hash: Option<String>,
    /// SHA-256 of the data that it was made from, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl Header {
    /// A header of which only kind and version are known.
    pub fn new(kind: impl Into<String>, version: u32) -> Header {
        Header { kind: kind.into(), version, ..Header::default() }
    }

    fn check(&self, path: &Path, kind: &str, version: u32) -> Result<()> {
        if self.kind != kind {
            let expected = format!("kind {kind:?}");
            return Err(Error::input(path.display(), format!("kind {:?}", self.kind), expected));
        }
        if self.version != version {
            let (found, expected) = (format!("version {}", self.version), format!("version {version}"));
            return Err(Error::input(path.display(), format!("{kind} of {found}"), expected));
        }
        Ok(())
    }
}

/// SHA-256 of `bytes`, in hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}

/// SHA-256 of a file's content, in hex.
///
/// # Errors
/// [`Error::File`] if it can't be read.
pub fn sha256_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::file(path))?;
    let mut state = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(Error::file(path))? {
            0 => return Ok(hex(state.finalize().as_slice())),
            read => state.update(&buffer[..read]),
        }
    }
}

/// The first twelve digits of a hash: enough to tell two files apart by eye.
pub fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the names of files begin with that are being written; a killed run leaves them behind.
pub const TEMPORARY: &str = ".pearl-";

/// Writes a file so that it is either whole or absent: `fill` writes a temporary file in the same folder (made if it
/// is missing), which is then brought to the disk and takes the place of `path` in one step.
///
/// # Errors
/// [`Error::File`] if the folder or the file can't be written; what stood at `path` before is then untouched.
pub fn write_atomic(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMPORARY);
        #[cfg(unix)]
        {
            // Temporary files are private by default; a result is as readable as any file that the user makes.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let temporary = builder.tempfile_in(folder)?;
        let mut buffered = BufWriter::with_capacity(1 << 20, temporary.as_file());
        fill(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        temporary.as_file().sync_all()?;
        temporary.persist(path).map_err(|refused| refused.error)?;
        Ok(())
    };
    write().map_err(Error::file(path))
}

/// Writes a file of text whole; see [`write_atomic`].
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    write_atomic(path, |file| file.write_all(text.as_bytes()))
}

/// Writes `body`'s fields after the header's as one JSON object, indented, whole or not at all.
///
/// # Errors
/// If `body` is no struct or map with string keys, or the file can't be written.
pub fn write_json<T: Serialize>(path: &Path, header: &Header, body: &T) -> Result<()> {
    #[derive(Serialize)]
    struct Whole<'a, T> {
        #[serde(flatten)]
        header: &'a Header,
        #[serde(flatten)]
        body: &'a T,
    }
    let mut text = serde_json::to_vec_pretty(&Whole { header, body })
        .map_err(|problem| Error::input(path.display(), problem, "a body that JSON can hold"))?;
    text.push(b'\n');
    write_atomic(path, |file| file.write_all(&text))
}

/// Reads what [`write_json`] wrote. `T` has to overlook fields that it does not know, for the header's are among them.
///
/// # Errors
/// [`Error::File`] if it can't be read; [`Error::Input`] if it is no JSON, of another kind or version, or lacks a field.
pub fn read_json<T: DeserializeOwned>(path: &Path, kind: &str, version: u32) -> Result<(Header, T)> {
    let bytes = std::fs::read(path).map_err(Error::file(path))?;
    let wrong = |problem: serde_json::Error| {
        Error::input(path.display(), problem, format!("a {kind} file of version {version}"))
    };
    let header: Header = serde_json::from_slice(&bytes).map_err(wrong)?;
    header.check(path, kind, version)?;
    Ok((header, serde_json::from_slice(&bytes).map_err(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn header() -> Header {
        Header { model: Some("organism".into()), seed: Some(7), ..Header::new("probe", 1) }
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn hashes_as_the_standard_says() {
        // FIPS 180-2, the example of one block.
        let hash = sha256(b"abc");
        assert_eq!(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let path = folder().path().join("abc");
        write_atomic(&path, |file| file.write_all(b"abc")).unwrap();
        assert_eq!((sha256_file(&path).unwrap(), short(&hash)), (hash.clone(), "ba7816bf8f01"));
    }

    #[test]
    fn json_comes_back_and_other_kinds_are_refused() {
        let path = folder().path().join("deep/results.json");
        let body = BTreeMap::from([("value".to_owned(), 0.1)]);
        write_json(&path, &header(), &body).unwrap();
        #[derive(Deserialize)]
        struct Body {
            value: f64,
        }
        let (read, back): (_, Body) = read_json(&path, "probe", 1).unwrap();
        assert_eq!((read, back.value), (header(), 0.1));
        let message = |kind, version| {
            let error = read_json::<Body>(&path, kind, version).err().unwrap();
            error.to_string()
        };
        assert!(message("vector", 1).ends_with("kind \"probe\"; expected kind \"vector\""));
        assert!(message("probe", 2).ends_with("probe of version 1; expected version 2"));
        std::fs::write(&path, "{\"kind\": \"probe\",").unwrap();
        assert!(message("probe", 1).contains("EOF"));
    }

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let folder = folder();
        let path = folder.path().join("file");
        write_atomic(&path, |file| file.write_all(b"old")).unwrap();
        let failed = write_atomic(&path, |file| {
            file.write_all(b"half of the n")?;
            Err(std::io::Error::other("disk full"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
