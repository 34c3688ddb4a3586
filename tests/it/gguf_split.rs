//! Models split over several GGUF files.

use std::path::{Path, PathBuf};

use candle_core::quantized::{QTensor, gguf_file};
use candle_core::{Device, Tensor};
use pearlpoint::model::{Checkpoint, Model};

use crate::gguf::{decoder, run};
use crate::model::error;

/// `fixture` in three parts as llama.cpp's `gguf-split` writes them: all metadata in the first, the tensors over all of them.
pub(crate) fn parts(fixture: &Path, folder: &Path) -> Vec<PathBuf> {
    let mut file = std::fs::File::open(fixture).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let mut names: Vec<&String> = content.tensor_infos.keys().collect();
    names.sort();
    let tensors: Vec<(&str, QTensor)> = names
        .iter()
        .map(|name| (name.as_str(), content.tensor(&mut file, name, &Device::Cpu).unwrap()))
        .collect();
    let (count, many) = (3, tensors.len().div_ceil(3));
    let write = |(number, tensors): (usize, &[(&str, QTensor)])| {
        let own = [
            ("split.no", gguf_file::Value::U16(number as u16)),
            ("split.count", gguf_file::Value::U16(count)),
            ("split.tensors.count", gguf_file::Value::I32(names.len() as i32)),
        ];
        let whole = content.metadata.iter().map(|(key, value)| (key.as_str(), value));
        let own = own.iter().map(|(key, value)| (*key, value));
        let pairs: Vec<_> = if number == 0 { whole.chain(own).collect() } else { own.collect() };
        let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let path = folder.join(format!("model-{:05}-of-{count:05}.gguf", number + 1));
        gguf_file::write(&mut std::fs::File::create(&path).unwrap(), &pairs, &tensors).unwrap();
        path
    };
    tensors.chunks(many).enumerate().map(write).collect()
}

const FIXTURE: &str = "tests/fixtures/gguf/qwen3.q4_0.gguf";

fn refused(path: &Path) -> String {
    let said = Checkpoint::open(path, None).err().unwrap().to_string();
    assert!(!said.contains('\n'), "{said}");
    said
}

#[test]
fn any_part_opens_the_whole_model() {
    let folder = tempfile::tempdir().unwrap();
    let parts = parts(Path::new(FIXTURE), folder.path());
    let rows = [vec![1, 5, 39, 7, 0], vec![2; 9]];
    let expected = run(&decoder(Path::new(FIXTURE), None), &rows);
    for path in parts.iter().map(PathBuf::as_path).chain([folder.path()]) {
        let path = match path.is_dir() {
            true => pearlpoint::model::gguf::find(path).unwrap().unwrap(),
            false => path.to_owned(),
        };
        let found: std::collections::BTreeMap<_, Tensor> = run(&decoder(&path, None), &rows);
        for (site, expected) in &expected {
            assert_eq!(error(&found[site], expected), 0.0, "{} {site}", path.display());
        }
    }
    assert_eq!(Model::open(folder.path(), None).unwrap().dtype, "q4_0");
}

#[test]
fn a_missing_or_foreign_part_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let parts = parts(Path::new(FIXTURE), folder.path());
    let second = std::fs::read(&parts[1]).unwrap();
    std::fs::remove_file(&parts[1]).unwrap();
    for path in [&parts[0], &parts[2]] {
        let said = refused(path);
        assert!(
            said.contains("model-00002-of-00003.gguf: no such file (1 of 3 parts are missing)"),
            "{said}"
        );
    }
    assert!(refused(folder.path()).contains("model-00002-of-00003.gguf: no such file"));
    // The third part under the second's name.
    std::fs::copy(&parts[2], &parts[1]).unwrap();
    let said = refused(&parts[0]);
    assert!(said.contains("00002-of-00003.gguf: split.no is 2; expected 1, as its name says"), "{said}");
    let key = |bytes: &[u8], key: &str| {
        bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap() + key.len() + 4
    };
    // A part of another number of parts.
    let mut bytes = second.clone();
    let at = key(&bytes, "split.count");
    bytes[at..at + 2].copy_from_slice(&4u16.to_le_bytes());
    std::fs::write(&parts[1], bytes).unwrap();
    let said = refused(&parts[0]);
    assert!(said.contains("00002-of-00003.gguf: split.count is 4; expected 3, as its name says"), "{said}");
    // Another number of tensors.
    std::fs::write(&parts[1], &second).unwrap();
    let mut bytes = std::fs::read(&parts[0]).unwrap();
    let at = key(&bytes, "split.tensors.count");
    bytes[at..at + 4].copy_from_slice(&99i32.to_le_bytes());
    std::fs::write(&parts[0], bytes).unwrap();
    let said = refused(&parts[2]);
    assert!(said.contains("split.tensors.count is 99, and the parts have "), "{said}");
    // A name that does not say which part it is.
    let other = folder.path().join("renamed.gguf");
    std::fs::rename(&parts[2], &other).unwrap();
    let said = refused(&other);
    assert!(said.contains("one of 3 parts, whose name does not say which"), "{said}");
}
