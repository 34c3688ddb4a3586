//! Vectors of other tools, read whatever their format: GGUF control vectors, PyTorch and NumPy arrays, pickled arrays, and
//! the `.svec` files of activation-steering (CAST).

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::{Array1, ArrayD, Axis};

use super::{numpy, pickle, read_gguf, svec, torch};
use crate::artifact::{Header, TensorFile, refuse_lfs_pointer};
use crate::error::{Error, Result};
use crate::model::Site;
use crate::steer::vector::{Direction, Vector};

/// Bytes of the longest file that is read, far above a direction for each layer of any model.
const MAX_BYTES: u64 = 1 << 30;
/// What is read, for errors.
pub(super) const EXPECTED: &str = "a GGUF control vector, one tensor in a .pt or .safetensors file, one array in a .npy, .npz or .pkl file, \
    or a .svec file; numpy.save(\"vector.npy\", numpy.asarray(vector, \"f4\")) writes one";

/// Where the directions of a file belong that doesn't say it.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// Of a GGUF file: `direction.N` belongs to block N less this.
    pub layer_shift: i64,
    /// Of an array with one direction: its site.
    pub site: Option<Site>,
    /// Of an array with one direction a layer: the point in the block.
    pub point: String,
    /// Of an array `[positions, layers, width]`: the position, counted from the end if negative.
    pub position: i64,
}

impl Default for Placement {
    fn default() -> Placement {
        Placement { layer_shift: 0, site: None, point: "resid_pre".into(), position: -1 }
    }
}

/// Reads a vector, in the format that the file's first bytes tell.
///
/// # Errors
/// A file of none of the formats; one that holds anything but directions; a shape or numbers that no vector has.
pub fn read(path: &Path, placement: &Placement) -> Result<(Header, Vector)> {
    let mut begin = [0; 8];
    let open = std::fs::File::open(path).map_err(Error::file(path));
    let mut file = open.map_err(|error| error.where_missing(EXPECTED))?;
    // A shorter file leaves zeros.
    let _ = std::io::Read::read(&mut file, &mut begin).map_err(Error::file(path))?;
    if begin.starts_with(b"GGUF") {
        return read_gguf(path, placement.layer_shift);
    }
    let bytes = content(path)?;
    let wrong = |found: String| Error::input(path.display(), found, EXPECTED);
    let (method, array) = match &begin {
        [b'P', b'K', 3, 4, ..] if numpy::is_archive(&bytes) => {
            ("a .npz file", numpy::archive(bytes).map_err(wrong)?)
        }
        [b'P', b'K', 3, 4, ..] => ("a .pt file", torch::tensor(bytes).map_err(wrong)?),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => ("a .npy file", numpy::array(&bytes).map_err(wrong)?),
        [0x80, 2..=5, ..] => ("a pickled array", pickle::array(&bytes).map_err(wrong)?),
        // The length of a header, then the header.
        _ if bytes.get(8) == Some(&b'{') && u64::from_le_bytes(begin) <= bytes.len() as u64 => {
            let file = TensorFile::open(path)?;
            let names = file.names();
            match (names.as_slice(), file.metadata.contains_key("kind")) {
                ([name], false) => ("a safetensors file", file.floats(name)?),
                (_, true) => return Err(wrong("a file that `pearl` wrote".into())),
                (names, false) => return Err(wrong(format!("{} tensors", names.len()))),
            }
        }
        _ if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') => {
            return Ok((Header::default(), svec::vector(path, &bytes)?));
        }
        _ => return Err(wrong("a file of another format".into())),
    };
    Ok((Header::default(), place(path, &array, placement, format!("imported from {method}"))?))
}

/// The bytes of a file that is no longer than a vector can be.
pub(super) fn content(path: &Path) -> Result<Vec<u8>> {
    let metadata = std::fs::metadata(path).map_err(Error::file(path))?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        let found = if metadata.is_file() { format!("{} bytes", metadata.len()) } else { "no file".into() };
        return Err(Error::input(path.display(), found, EXPECTED));
    }
    let bytes = std::fs::read(path).map_err(Error::file(path))?;
    refuse_lfs_pointer(path, &bytes)?;
    Ok(bytes)
}

/// The directions of an array: `[width]` at a site, `[layers, width]` one a block, `[positions, layers, width]` one a block
/// for each of several positions.
pub(super) fn place(
    path: &Path,
    array: &ArrayD<f32>,
    placement: &Placement,
    method: String,
) -> Result<Vector> {
    let wrong = |found: String, expected: &str| Error::input(path.display(), found, expected);
    let direction = |values: Array1<f32>| Direction::new(values, None);
    let shape = array.shape().to_vec();
    let Placement { site, point, position, .. } = placement;
    let mut directions = BTreeMap::new();
    let chosen = match (shape.as_slice(), site) {
        ([_] | [1, _], Some(site)) => {
            directions.insert(*site, direction(array.iter().copied().collect()));
            None
        }
        ([_], None) => {
            return Err(wrong(format!("one direction, shape {shape:?}"), "--site, where it belongs"));
        }
        ([_, _], None) => Some(array.view()),
        ([layers, 1, width], None) if *layers > 1 => {
            let found =
                format!("shape {shape:?}, which may be one layer at {layers} positions, or {layers} layers");
            return Err(wrong(found, &format!("[{layers}, {width}] for layers (`array.squeeze(1)`)")));
        }
        ([positions, _, _], None) => {
            let count = *positions as i64;
            let at = if *position < 0 { count.checked_add(*position) } else { Some(*position) };
            let Some(at) = at.filter(|at| (0..count).contains(at)) else {
                return Err(wrong(
                    format!("{count} positions"),
                    &format!("--position within them, not {position}"),
                ));
            };
            Some(array.index_axis(Axis(0), at as usize))
        }
        ([_, _] | [_, _, _], Some(_)) => {
            return Err(wrong(format!("shape {shape:?}"), "no --site: it has one for each layer"));
        }
        _ => {
            let expected = "[width], [layers, width] or [positions, layers, width]";
            return Err(wrong(format!("an array of shape {shape:?}"), expected));
        }
    };
    for (layer, values) in chosen.iter().flat_map(|layers| layers.axis_iter(Axis(0)).enumerate()) {
        let site: Site = format!("{layer}.{point}").parse()?;
        directions.insert(site, direction(values.iter().copied().collect()));
    }
    // refusal_direction's files have a direction of 0 at a layer where nothing differs.
    directions.retain(|_, direction: &mut Direction| direction.length() > 0.0);
    if directions.is_empty() {
        return Err(wrong("no direction but 0".into(), "a direction of a length above 0"));
    }
    Ok(Vector { method, directions, best: None })
}

#[cfg(test)]
mod tests {
    use ndarray::IxDyn;

    use super::*;

    #[test]
    fn a_middle_side_of_one_is_layers_or_positions_and_refused() {
        let read = |shape: &[usize]| {
            let array = ArrayD::from_elem(IxDyn(shape), 1.0);
            place(Path::new("v.pt"), &array, &Placement::default(), "imported".into())
        };
        let error = read(&[24, 1, 8]).unwrap_err().to_string();
        assert_eq!(
            error,
            "v.pt: shape [24, 1, 8], which may be one layer at 24 positions, or 24 layers; expected [24, 8] for layers \
             (`array.squeeze(1)`)"
        );
        assert_eq!(read(&[24, 8]).unwrap().directions.len(), 24);
        assert_eq!(read(&[3, 24, 8]).unwrap().directions.len(), 24);
        assert_eq!(read(&[1, 24, 8]).unwrap().directions.len(), 24);
        assert_eq!(read(&[1, 1, 8]).unwrap().directions.len(), 1);
    }
}
