//! The header of every saved file: its kind, version and provenance.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The first fields of a saved file. In JSON they are fields beside the body's own, in safetensors strings of the metadata.
/// What isn't known is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// What the file is: `probe`, `vector`, `activations`, `results`, …
    pub kind: String,
    /// Version of that kind's layout; a reader accepts only its own.
    pub version: u32,
    /// The model that was read or steered, as the user named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// SHA-256 of the model's weights, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_hash: Option<String>,
    /// Family, shape and tokenizer of the model, which are the same in every precision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_form: Option<String>,
    /// SHA-256 of the data that it was made from, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_hash: Option<String>,
    /// Seed of the random numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// Where an artefact, or the activations that it is used on, come from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Name of the model.
    pub name: Option<&'a str>,
    /// SHA-256 of its weights.
    pub hash: Option<&'a str>,
    /// Its family, shape and tokenizer in a line.
    pub form: Option<&'a str>,
}

impl Header {
    /// The model that the file was made from.
    pub fn origin(&self) -> Origin<'_> {
        Origin {
            name: self.model.as_deref(),
            hash: self.model_hash.as_deref(),
            form: self.model_form.as_deref(),
        }
    }

    /// A header with kind and version only.
    pub fn new(kind: impl Into<String>, version: u32) -> Header {
        Header { kind: kind.into(), version, ..Header::default() }
    }

    /// Refuses another kind or version.
    pub(super) fn check(&self, path: &Path, kind: &str, version: u32) -> Result<()> {
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
