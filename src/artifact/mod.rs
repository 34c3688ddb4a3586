//! Saved files: the header that all of them share, atomic writes, and checked readers of safetensors and GGUF.

mod atomic_write;
#[cfg(unix)]
mod bus_error;
mod embedded;
mod folder_lock;
mod foreign_name;
mod gguf;
mod hash;
mod header;
mod json;
mod mmap;
mod part;
mod part_lines;
#[cfg(unix)]
mod pipe;
mod read_file;
mod numbers;
mod tensor_table;
mod tensors;

pub use atomic_write::{TEMPORARY, remove_abandoned, write_atomic, write_text};
#[cfg(unix)]
pub use bus_error::exit_on_truncated_files;
pub use embedded::{ORGANISM_POLICY, exists};
pub use folder_lock::FolderLock;
pub use foreign_name::{foreign_name, foreign_path};
pub use gguf::{GgmlType, GgufFile, GgufTensor, GgufValue};
pub use hash::{sha256, sha256_file, short};
pub use header::{Header, Origin};
pub use json::{check_values, read_json, write_json};
pub use mmap::refuse_lfs_pointer;
pub use numbers::Numbers;
pub use part::{Assignment, Part};
pub use part_lines::{ShardRow, join_lines};
pub(crate) use read_file::refuse_irregular;
pub use read_file::{read_file, read_settings, read_text};
pub use safetensors::tensor::Dtype as StoredType;
pub use tensors::{TensorFile, write_tensors};

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

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
