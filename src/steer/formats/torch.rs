//! PyTorch `.pt` files with one tensor, as CAA and refusal_direction save them, read only: torch's zip archive, whose pickle
//! is described and not executed.

use std::io::{Cursor, Read};

use ndarray::ArrayD;
use zip::ZipArchive;

use super::layout::Layout;
use super::pickle;

/// The tensor of an archive.
pub(super) fn tensor(bytes: Vec<u8>) -> Result<ArrayD<f32>, String> {
    let length = bytes.len() as u64;
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|problem| problem.to_string())?;
    let names = archive.file_names().flatten().map(|name| name.into_owned());
    let pickles: Vec<String> = names.filter(|name| name.ends_with("data.pkl")).collect();
    let [pickle] = pickles.as_slice() else { return Err(format!("{} pickles in it", pickles.len())) };
    let folder = pickle.trim_end_matches("data.pkl").to_string();
    let mut entry = |name: String| -> Result<Option<Vec<u8>>, String> {
        let Ok(mut file) = archive.by_name(&name) else { return Ok(None) };
        // torch stores entries uncompressed, so no entry is longer than the file.
        if file.size() > length {
            return Err(format!("{name} of {} bytes", file.size()));
        }
        let mut bytes = Vec::new();
        file.by_ref().take(length).read_to_end(&mut bytes).map_err(|problem| format!("{name}: {problem}"))?;
        Ok(Some(bytes))
    };
    if entry(format!("{folder}byteorder"))?.is_some_and(|order| order != b"little") {
        return Err("numbers in big-endian order".into());
    }
    let pickled = entry(pickle.clone())?.ok_or("no pickle that can be read")?;
    let described = pickle::tensor(&pickled)?;
    let storage = entry(format!("{folder}data/{}", described.storage))?;
    let storage = storage.ok_or_else(|| format!("no storage {:?}", described.storage))?;
    let (number, count) = (described.number, described.count);
    if count.checked_mul(number.size()) != Some(storage.len()) {
        return Err(format!("a storage of {} bytes instead of {count} numbers", storage.len()));
    }
    let (shape, stride) = (&described.shape, &described.stride);
    Layout { number, bytes: &storage, offset: described.offset, shape, stride }.array()
}
