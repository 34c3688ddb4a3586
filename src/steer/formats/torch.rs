//! PyTorch `.pt` files with one tensor, as CAA and refusal_direction save them, read only: torch's zip archive, whose pickle
//! is described and not executed.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;

use ndarray::{Array1, ArrayD, Axis, Dimension, IxDyn};
use zip::ZipArchive;

use super::pickle::{self, Description};
use crate::artifact::{self, Header};
use crate::error::{Error, Result};
use crate::model::Site;
use crate::steer::vector::{Direction, Vector};

/// Bytes of the longest file that is read, far above a direction for each layer of any model.
const MAX_BYTES: u64 = 1 << 30;

/// Reads a vector: a tensor `[width]` is the direction at `site`; a tensor `[positions, layers, width]` holds one direction a
/// block at `point`, of which one position is read, counted from the end if negative.
///
/// # Errors
/// A file that is no torch archive, or holds anything but one tensor of floats; a tensor beyond its storage; another shape;
/// numbers that are not finite.
pub fn read_torch(path: &Path, site: Option<Site>, point: &str, position: i64) -> Result<(Header, Vector)> {
    let tensor = read_tensor(path)?;
    let wrong = |found: String, expected: &str| Error::input(path.display(), found, expected);
    let direction = |values: Array1<f32>| Direction { values, residual_norm: None };
    let shape = tensor.shape().to_vec();
    let mut directions = BTreeMap::new();
    match (shape.as_slice(), site) {
        ([_], Some(site)) => {
            let values = tensor.iter().copied().collect();
            directions.insert(site, direction(values));
        }
        ([_], None) => {
            return Err(wrong(format!("one direction, shape {shape:?}"), "--site, where it belongs"));
        }
        ([positions, layers, _], None) => {
            let count = *positions as i64;
            let at = if position < 0 { count.checked_add(position) } else { Some(position) };
            let Some(at) = at.filter(|at| (0..count).contains(at)) else {
                return Err(wrong(
                    format!("{count} positions"),
                    &format!("--position within them, not {position}"),
                ));
            };
            let chosen = tensor.index_axis(Axis(0), at as usize);
            for layer in 0..*layers {
                let site: Site = format!("{layer}.{point}").parse()?;
                let values = chosen.index_axis(Axis(0), layer).iter().copied().collect();
                directions.insert(site, direction(values));
            }
        }
        ([_, _, _], Some(_)) => {
            return Err(wrong(format!("shape {shape:?}"), "no --site: it has one for each layer"));
        }
        _ => {
            return Err(wrong(
                format!("a tensor of shape {shape:?}"),
                "[width] or [positions, layers, width]",
            ));
        }
    }
    // refusal_direction's files have a direction of 0 at a layer where nothing differs.
    directions.retain(|_, direction: &mut Direction| direction.length() > 0.0);
    if directions.is_empty() {
        return Err(wrong("no direction but 0".into(), "a direction of a length above 0"));
    }
    Ok((Header::default(), Vector { method: "imported from a .pt file".into(), directions }))
}

fn read_tensor(path: &Path) -> Result<ArrayD<f32>> {
    const EXPECTED: &str =
        "a .pt file in torch's zip format that holds one tensor of floats, and nothing else";
    let wrong = |found: String| Error::input(path.display(), found, EXPECTED);
    let length = std::fs::metadata(path).map_err(Error::file(path))?.len();
    if length > MAX_BYTES {
        return Err(wrong(format!("{length} bytes")));
    }
    let bytes = artifact::read_file(path)?;
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|problem| wrong(problem.to_string()))?;
    let names = archive.file_names().flatten().map(|name| name.into_owned());
    let pickles: Vec<String> = names.filter(|name| name.ends_with("data.pkl")).collect();
    let [pickle] = pickles.as_slice() else { return Err(wrong(format!("{} pickles in it", pickles.len()))) };
    let folder = pickle.trim_end_matches("data.pkl").to_string();
    let mut entry = |name: String| -> Result<Option<Vec<u8>>> {
        let Ok(mut file) = archive.by_name(&name) else { return Ok(None) };
        // torch stores entries uncompressed, so no entry is longer than the file.
        if file.size() > length {
            return Err(wrong(format!("{name} of {} bytes", file.size())));
        }
        let mut bytes = Vec::new();
        file.by_ref()
            .take(length)
            .read_to_end(&mut bytes)
            .map_err(|problem| wrong(format!("{name}: {problem}")))?;
        Ok(Some(bytes))
    };
    if entry(format!("{folder}byteorder"))?.is_some_and(|order| order != b"little") {
        return Err(wrong("numbers in big-endian order".into()));
    }
    let pickled = entry(pickle.clone())?.ok_or_else(|| wrong("no pickle that can be read".into()))?;
    let described = pickle::tensor(&pickled).map_err(&wrong)?;
    let storage = entry(format!("{folder}data/{}", described.storage))?;
    let storage = storage.ok_or_else(|| wrong(format!("no storage {:?}", described.storage)))?;
    numbers(&described, &storage).map_err(wrong)
}

/// The tensor's values, row-major.
fn numbers(described: &Description, storage: &[u8]) -> std::result::Result<ArrayD<f32>, String> {
    let Description { dtype, size, count, offset, shape, stride, .. } = described;
    if count.checked_mul(*size) != Some(storage.len()) {
        return Err(format!("a storage of {} bytes instead of {count} numbers", storage.len()));
    }
    let total = shape.iter().try_fold(1usize, |total, side| total.checked_mul(*side));
    // Index of the last value, by the strides.
    let reach = shape.iter().zip(stride).try_fold(*offset, |reach, (side, step)| {
        reach.checked_add(side.saturating_sub(1).checked_mul(*step)?)
    });
    let fits =
        reach.is_some_and(|reach| reach < *count) && total.is_some_and(|total| total > 0 && total <= *count);
    if shape.len() != stride.len() || !fits {
        return Err(format!(
            "a tensor of shape {shape:?}, strides {stride:?} and offset {offset} beyond its storage"
        ));
    }
    let number = |at: usize| {
        let bytes = &storage[at * size..(at + 1) * size];
        match (*dtype, bytes) {
            ("float32", &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            ("float64", &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
            ("float16", &[a, b]) => half::f16::from_le_bytes([a, b]).to_f32(),
            (_, &[a, b]) => half::bf16::from_le_bytes([a, b]).to_f32(),
            // No other type passes the pickle reader.
            _ => f32::NAN,
        }
    };
    let place =
        |index: IxDyn| offset + index.as_array_view().iter().zip(stride).map(|(i, s)| i * s).sum::<usize>();
    let numbers = ArrayD::from_shape_fn(IxDyn(shape), |index| number(place(index)));
    match numbers.iter().position(|number| !number.is_finite()) {
        None => Ok(numbers),
        Some(index) => Err(format!("a number that is not finite, at index {index}")),
    }
}
