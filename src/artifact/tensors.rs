//! Safetensors files: written atomically, checked when opened, tensors read on demand.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use ndarray::{Array2, ArrayD, Ix2, IxDyn};
use safetensors::View;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::de::DeserializeOwned;

use super::atomic_write::write_atomic;
use super::header::Header;
use super::mmap::Bytes;
use super::tensor_table::read_table;
use crate::error::{Error, Result};

/// Writes tensors with the header and further `metadata` as one safetensors file, atomically. The same content gives the
/// same bytes, so that hashes of files are comparable.
///
/// # Errors
/// A key of `metadata` that the header uses; a file that can't be written.
pub fn write_tensors<V: View>(
    path: &Path,
    header: &Header,
    metadata: &BTreeMap<String, String>,
    tensors: BTreeMap<String, V>,
) -> Result<()> {
    let mut strings = header_strings(header);
    for (key, value) in metadata {
        if strings.insert(key.clone(), value.clone()).is_some() {
            let found = format!("metadata {key:?}, which is a field of the header");
            return Err(Error::input(path.display(), found, "another name"));
        }
    }
    let mut tensors: Vec<(String, V)> = tensors.into_iter().collect();
    // The widest types first, which the format requires for alignment; the sort is stable, so that names stay in order.
    tensors.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.dtype()));
    let mut offset = 0;
    let infos = tensors.iter().map(|(name, tensor)| {
        let begin = offset;
        offset += tensor.data_len();
        let info = TensorInfo {
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            data_offsets: (begin, offset),
        };
        (name.clone(), info)
    });
    let problem = |problem: &dyn std::fmt::Display| {
        Error::input(path.display(), problem, "tensors that safetensors can hold")
    };
    let table = Metadata::new(Some(HashMap::from_iter(strings)), infos.collect()).map_err(|p| problem(&p))?;
    let mut table = serde_json::to_value(&table).map_err(|p| problem(&p))?;
    // The crate keeps metadata in a hash map, whose order differs between runs.
    if let Some(serde_json::Value::Object(strings)) = table.get_mut("__metadata__") {
        strings.sort_keys();
    }
    let mut table = table.to_string().into_bytes();
    table.resize(table.len().next_multiple_of(8), b' ');
    write_atomic(path, |file| {
        file.write_all(&(table.len() as u64).to_le_bytes())?;
        file.write_all(&table)?;
        tensors.iter().try_for_each(|(_, tensor)| file.write_all(&tensor.data()))
    })
}

fn header_strings(header: &Header) -> BTreeMap<String, String> {
    let optional = [
        ("model", header.model.clone()),
        ("model_hash", header.model_hash.clone()),
        ("model_form", header.model_form.clone()),
        ("data_hash", header.data_hash.clone()),
        ("seed", header.seed.map(|seed| seed.to_string())),
    ];
    let known = optional.into_iter().filter_map(|(key, value)| Some((key, value?)));
    let always = [("kind", header.kind.clone()), ("version", header.version.to_string())];
    let all = always.into_iter().chain(known);
    all.map(|(key, value)| (key.to_owned(), value)).collect()
}

/// An open, checked safetensors file. Tensors are read on demand.
#[derive(Debug)]
pub struct TensorFile {
    /// Its path, for errors.
    name: String,
    bytes: Bytes,
    table: Metadata,
    /// Offset of the tensor data.
    begin: usize,
    /// All metadata, including the header's fields.
    pub metadata: BTreeMap<String, String>,
}

/// Elements that are converted before their bytes in the file are released.
const CHUNK: usize = 1 << 16;

impl TensorFile {
    /// Opens any safetensors file.
    ///
    /// # Errors
    /// [`Error::File`] if it can't be read; [`Error::Input`] if it isn't a whole safetensors file.
    pub fn open(path: impl AsRef<Path>) -> Result<TensorFile> {
        let path = path.as_ref();
        TensorFile::new(path.display().to_string(), Bytes::open(path)?)
    }

    /// Opens a file embedded in the program.
    ///
    /// # Errors
    /// [`Error::Input`] if it isn't a whole safetensors file.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<TensorFile> {
        TensorFile::new(name.into(), Bytes::Static(bytes))
    }

    fn new(name: String, bytes: Bytes) -> Result<TensorFile> {
        if bytes.get().starts_with(b"GGUF") && bytes.get().get(8) != Some(&b'{') {
            return Err(Error::input(
                &name,
                "a GGUF file",
                "a safetensors file, or the name FILE.gguf for this one",
            ));
        }
        let (length, table) = read_table(&name, bytes.get())?;
        let metadata = table.metadata().clone().unwrap_or_default();
        Ok(TensorFile { name, bytes, table, begin: 8 + length, metadata: metadata.into_iter().collect() })
    }

    /// Opens a file of [`write_tensors`] of this kind and version.
    ///
    /// # Errors
    /// Those of [`TensorFile::open`]; [`Error::Input`] if the header is missing, or has another kind or version.
    pub fn open_kind(path: &Path, kind: &str, version: u32) -> Result<(Header, TensorFile)> {
        let expected = || format!("a file of kind {kind}, as pearl writes it");
        let file = TensorFile::open(path).map_err(|error| error.where_missing(expected()))?;
        let number = |key: &str| -> Result<Option<u64>> {
            let Some(text) = file.metadata.get(key) else {
                return Ok(None);
            };
            let wrong = |_| file.wrong(format!("{key} {text:?} in the metadata"), "a whole number");
            text.parse().map(Some).map_err(wrong)
        };
        let missing = |key| file.wrong(format!("no {key} in the metadata"), format!("a {kind} file"));
        let string = |key: &str| file.metadata.get(key).cloned();
        let header = Header {
            kind: string("kind").ok_or_else(|| missing("kind"))?,
            version: number("version")?
                .and_then(|version| version.try_into().ok())
                .ok_or_else(|| missing("version"))?,
            model: string("model"),
            model_hash: string("model_hash"),
            model_form: string("model_form"),
            data_hash: string("data_hash"),
            seed: number("seed")?,
        };
        header.check(path, kind, version)?;
        Ok((header, file))
    }

    /// Name in errors: its path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get()
    }

    /// Drops these bytes of the file from memory; they are read again on the next access.
    pub fn release(&self, bytes: &[u8]) {
        self.bytes.release(bytes);
    }

    /// The shape of a tensor; `None` if missing.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.table.info(name).map(|info| info.shape.as_slice())
    }

    /// Names of the tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names = self.table.offset_keys();
        names.sort();
        names
    }

    /// A metadata string.
    ///
    /// # Errors
    /// [`Error::Input`] if it is missing.
    pub fn string(&self, key: &str) -> Result<&str> {
        let value = self.metadata.get(key).map(String::as_str);
        value.ok_or_else(|| {
            self.wrong(format!("no {key} in the metadata"), "the metadata that this version writes")
        })
    }

    /// A metadata value in JSON.
    ///
    /// # Errors
    /// [`Error::Input`] if it is missing or isn't a `T`.
    pub fn json<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        let parsed = serde_json::from_str(self.string(key)?);
        parsed
            .map_err(|problem| self.wrong(format!("{problem} in {key}"), "the JSON that this version writes"))
    }

    /// A tensor as stored: element type, shape, and little-endian bytes.
    ///
    /// # Errors
    /// [`Error::Input`] if it is missing.
    pub fn stored(&self, name: &str) -> Result<(Dtype, &[usize], &[u8])> {
        let (info, bytes) = self.tensor(name)?;
        Ok((info.dtype, &info.shape, bytes))
    }

    /// A tensor of any float type, as f32.
    ///
    /// # Errors
    /// [`Error::Input`] if it is missing, isn't of a float type, or holds NaN or infinity.
    pub fn floats(&self, name: &str) -> Result<ArrayD<f32>> {
        let (info, _) = self.tensor(name)?;
        let mut values = vec![0.0; info.shape.iter().product()];
        self.fill(name, &mut values)?;
        self.shaped(name, info, values)
    }

    /// Reads a float tensor into `values`, which must have its number of elements. The file's pages are released while
    /// reading, so that memory holds the tensor once.
    ///
    /// # Errors
    /// Those of [`TensorFile::floats`]; another number of elements.
    pub fn fill(&self, name: &str, values: &mut [f32]) -> Result<()> {
        let (info, bytes) = self.tensor(name)?;
        let size = match info.dtype {
            Dtype::F64 => 8,
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            other => {
                return Err(self.wrong(format!("tensor {name} of type {other}"), "f32, f16, bf16 or f64"));
            }
        };
        if bytes.len() != size * values.len() {
            let found = format!("tensor {name} of shape {:?} with {} bytes", info.shape, bytes.len());
            return Err(self.wrong(found, format!("{} values", values.len())));
        }
        for (chunk, (bytes, values)) in bytes.chunks(size * CHUNK).zip(values.chunks_mut(CHUNK)).enumerate() {
            match info.dtype {
                Dtype::F64 => each(values, bytes, |b| f64::from_le_bytes(b) as f32),
                Dtype::F32 => each(values, bytes, f32::from_le_bytes),
                Dtype::F16 => each(values, bytes, |b| half::f16::from_le_bytes(b).to_f32()),
                _ => each(values, bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
            }
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                let place = chunk * CHUNK + index;
                let found = format!("{} at index {place} of tensor {name}", values[index]);
                return Err(self.wrong(found, "finite numbers"));
            }
            self.bytes.release(bytes);
        }
        self.check_unchanged()
    }

    /// Checks that the file has not been changed in place since it was opened.
    ///
    /// # Errors
    /// [`Error::Input`] if it has.
    pub fn check_unchanged(&self) -> Result<()> {
        self.bytes.check_unchanged()
    }

    /// A float tensor of two dimensions, as f32.
    ///
    /// # Errors
    /// Those of [`TensorFile::floats`]; another number of dimensions.
    pub fn matrix(&self, name: &str) -> Result<Array2<f32>> {
        let array = self.floats(name)?;
        let shape = array.shape().to_vec();
        let expected = "two dimensions";
        array
            .into_dimensionality::<Ix2>()
            .map_err(|_| self.wrong(format!("tensor {name} of shape {shape:?}"), expected))
    }

    /// A tensor of i64.
    ///
    /// # Errors
    /// [`Error::Input`] if it is missing or of another type.
    pub fn integers(&self, name: &str) -> Result<ArrayD<i64>> {
        let (info, bytes) = self.tensor(name)?;
        if info.dtype != Dtype::I64 {
            return Err(self.wrong(format!("tensor {name} of type {}", info.dtype), "i64"));
        }
        let values = bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect();
        self.shaped(name, info, values)
    }

    /// An [`Error::Input`] about this file.
    pub fn wrong(&self, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> Error {
        Error::input(&self.name, found, expected)
    }

    fn tensor(&self, name: &str) -> Result<(&TensorInfo, &[u8])> {
        let missing = || {
            let names = self.names();
            let shown = names.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
            self.wrong(format!("{} tensors ({shown})", names.len()), format!("a tensor {name}"))
        };
        let info = self.table.info(name).ok_or_else(missing)?;
        let (from, to) = info.data_offsets;
        // Offsets were checked on opening.
        let bytes = self.bytes.get().get(self.begin + from..self.begin + to);
        Ok((info, bytes.ok_or_else(missing)?))
    }

    fn shaped<T>(&self, name: &str, info: &TensorInfo, values: Vec<T>) -> Result<ArrayD<T>> {
        let found = format!("tensor {name} of shape {:?} with {} values", info.shape, values.len());
        ArrayD::from_shape_vec(IxDyn(&info.shape), values)
            .map_err(|problem| self.wrong(found, format!("as many as its shape says ({problem})")))
    }
}

/// Decodes little-endian elements of `N` bytes.
fn each<const N: usize>(values: &mut [f32], bytes: &[u8], number: impl Fn([u8; N]) -> f32) {
    values.iter_mut().zip(bytes.as_chunks().0).for_each(|(value, &bytes)| *value = number(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Numbers;
    use ndarray::array;
    use proptest::prelude::*;

    fn header() -> Header {
        Header { model: Some("organism".into()), seed: Some(7), ..Header::new("probe", 1) }
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn save(path: &Path) {
        let metadata = BTreeMap::from_iter((0..20).map(|n| (format!("key{n}"), n.to_string())));
        let weight = Numbers::floats(&array![[1.0f32, -2.5], [3.0, f32::MIN_POSITIVE]]);
        write_tensors(path, &header(), &metadata, [("weight".to_owned(), weight)].into()).unwrap();
    }

    #[test]
    fn tensors_come_back_and_the_same_content_gives_the_same_bytes() {
        let folder = folder();
        let (one, two) = (folder.path().join("a"), folder.path().join("b"));
        save(&one);
        save(&two);
        assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
        let (read, file) = TensorFile::open_kind(&one, "probe", 1).unwrap();
        assert_eq!(read, header());
        assert_eq!(file.matrix("weight").unwrap(), array![[1.0, -2.5], [3.0, f32::MIN_POSITIVE]]);
        assert_eq!(file.string("key3").unwrap(), "3");
        assert!(file.floats("nose").unwrap_err().to_string().contains("1 tensors (weight)"));
        assert!(TensorFile::open_kind(&one, "vector", 1).is_err());
    }

    #[test]
    fn rejects_nan() {
        let path = folder().path().join("nan");
        let bad = Numbers::floats(&array![0.0f32, f32::NAN]);
        write_tensors(&path, &header(), &BTreeMap::new(), [("bias".to_owned(), bad)].into()).unwrap();
        let error = TensorFile::open(&path).unwrap().floats("bias").unwrap_err();
        assert!(error.to_string().contains("NaN at index 1 of tensor bias"), "{error}");
    }

    #[test]
    fn rejects_hostile_headers() {
        let path = folder().path().join("hostile");
        let shapes = [
            // Offsets beyond the file, a shape whose product overflows, a shape that doesn't match its bytes.
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,800]}}"#,
            r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]}}"#,
            r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#,
            r#"[]"#,
        ];
        for shape in shapes {
            let mut bytes = (shape.len() as u64).to_le_bytes().to_vec();
            bytes.extend(shape.as_bytes());
            bytes.extend([0; 8]);
            write_atomic(&path, |file| file.write_all(&bytes)).unwrap();
            let error = TensorFile::open(&path).unwrap_err().to_string();
            assert!(error.contains("a whole safetensors file"), "{shape}: {error}");
        }
    }

    #[test]
    fn what_is_saved_under_the_name_of_safetensors_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        for (bytes, found) in [
            (
                &b"<!DOCTYPE html>\n<html><head>"[..],
                "a page of a website in place of the file; expected the file itself",
            ),
            (b"\n  <HTML lang=en>", "a page of a website"),
            (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied", "a page of a website"),
            (b"PK\x03\x04\x14\0\0\0\0\0model", "a zip archive"),
            (b"\x1f\x8b\x08\0\0\0\0\0\0\x03abc", "packed with gzip"),
            (b"\x28\xb5\x2f\xfd\x04\0abc\0\0", "packed with Zstandard"),
            (b"\x80\x02\x8a\x0alabcdef", "a pickle"),
            (b"{\"error\": \"Repository not found\"}", "text in JSON"),
            (b"GGUF\x03\0\0\0\0\0\0\0", "a GGUF file"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = TensorFile::open(&path).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}: {found}", path.display())), "{error}");
            assert!(error.contains("; expected ") && error.lines().count() == 1, "{error}");
        }
        // A table whose length looks like the beginning of something else.
        let mut bytes = 0x1_8b1f_u64.to_le_bytes().to_vec();
        bytes.extend(br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#);
        bytes.resize(8 + 0x1_8b1f, b' ');
        bytes.extend(1f32.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(TensorFile::open(&path).unwrap().names(), ["a"]);
    }

    proptest! {
        #[test]
        fn a_cut_or_changed_file_is_an_error_or_reads_without_panic(cut in 0usize..900, at in 0usize..900, byte: u8) {
            let path = folder().path().join("file");
            save(&path);
            let whole = std::fs::read(&path).unwrap();
            write_atomic(&path, |file| file.write_all(&whole[..cut.min(whole.len() - 1)])).unwrap();
            prop_assert!(TensorFile::open(&path).is_err());
            let mut changed = whole.clone();
            changed[at % whole.len()] = byte;
            write_atomic(&path, |file| file.write_all(&changed)).unwrap();
            if let Ok(file) = TensorFile::open(&path) {
                let _ = file.names().iter().map(|name| file.floats(name)).collect::<Vec<_>>();
            }
        }
    }
}
