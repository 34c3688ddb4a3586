//! NumPy's `.npy` files (versions 1 to 3) and `.npz` archives with one array. Arrays of objects are pickles, and refused.
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::io::{Cursor, Read};

use ndarray::ArrayD;
use zip::{CompressionMethod, ZipArchive};

use super::layout::{Layout, Number};

/// Whether a zip archive is NumPy's.
pub(super) fn is_archive(bytes: &[u8]) -> bool {
    ZipArchive::new(Cursor::new(bytes))
        .is_ok_and(|archive| archive.file_names().flatten().any(|name| name.ends_with(".npy")))
}

/// The only array of a `.npz` archive.
pub(super) fn archive(bytes: Vec<u8>) -> Result<ArrayD<f32>, String> {
    let length = bytes.len() as u64;
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|problem| problem.to_string())?;
    if archive.len() != 1 {
        return Err(format!("an archive of {} arrays", archive.len()));
    }
    let mut entry = archive.by_index(0).map_err(|problem| problem.to_string())?;
    if entry.compression() != CompressionMethod::Stored {
        return Err("a compressed array (savez_compressed)".into());
    }
    let mut content = Vec::new();
    // Stored entries are no longer than the archive.
    entry.by_ref().take(length).read_to_end(&mut content).map_err(|problem| problem.to_string())?;
    array(&content)
}

/// The array of a `.npy` file.
pub(super) fn array(bytes: &[u8]) -> Result<ArrayD<f32>, String> {
    let cut = || "a .npy file that was cut short".to_string();
    let [_, _, _, _, _, _, version, _, rest @ ..] = bytes else { return Err(cut()) };
    let (length, rest) = match version {
        1 => rest.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_le_bytes(*length)), rest)),
        2 | 3 => rest.split_first_chunk().map(|(length, rest)| (u32::from_le_bytes(*length) as usize, rest)),
        _ => return Err(format!("a .npy file of version {version}")),
    }
    .ok_or_else(cut)?;
    let (header, data) = rest.split_at_checked(length).ok_or_else(cut)?;
    let header = std::str::from_utf8(header).map_err(|_| "a .npy header that is no text".to_string())?;
    let (descr, by_columns, shape) = fields(header).ok_or_else(|| format!("the .npy header {header:?}"))?;
    let number = Number::of_numpy(&descr).ok_or_else(|| format!("an array of type {descr}"))?;
    let count = shape.iter().try_fold(1usize, |count, side| count.checked_mul(*side));
    if count.and_then(|count| count.checked_mul(number.size())) != Some(data.len()) {
        return Err(format!("{} bytes of numbers for the shape {shape:?}", data.len()));
    }
    let stride = Layout::strides(&shape, by_columns);
    Layout { number, bytes: data, offset: 0, shape: &shape, stride: &stride }.array()
}

/// `descr`, `fortran_order` and `shape` of a header, a literal of Python.
fn fields(header: &str) -> Option<(String, bool, Vec<usize>)> {
    let after = |key: &str| {
        let (_, rest) = header.split_once(&format!("'{key}'"))?;
        Some(rest.trim_start().strip_prefix(':')?.trim_start())
    };
    let descr = after("descr")?.strip_prefix('\'')?.split_once('\'')?.0.to_owned();
    let by_columns = after("fortran_order")?.starts_with("True");
    let sides = after("shape")?.strip_prefix('(')?.split_once(')')?.0;
    let sides = sides.split(',').map(str::trim).filter(|side| !side.is_empty());
    let shape = sides.map(|side| side.parse().ok()).collect::<Option<Vec<usize>>>()?;
    (shape.len() <= 32).then_some((descr, by_columns, shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let length = (header.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn headers_say_type_order_and_shape() {
        let numbers: Vec<u8> =
            [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|n| n.to_le_bytes()).collect();
        let rows = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", &numbers);
        assert_eq!(array(&rows).unwrap(), ndarray::array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]].into_dyn());
        let columns = npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n", &numbers);
        assert_eq!(array(&columns).unwrap(), ndarray::array![[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]].into_dyn());
        let big: Vec<u8> = [1.5f64, -2.0].iter().flat_map(|n| n.to_be_bytes()).collect();
        let big = npy("{'descr': '>f8', 'fortran_order': False, 'shape': (2,), }\n", &big);
        assert_eq!(array(&big).unwrap(), ndarray::array![1.5, -2.0].into_dyn());
    }

    #[test]
    fn claims_beyond_the_file_and_other_types_are_refused() {
        for (header, data, expected) in [
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 4), }",
                8,
                "bytes of numbers",
            ),
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 0), }",
                0,
                "beyond its storage",
            ),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", 8, "bytes of numbers"),
            ("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", 8, "an array of type |O"),
            ("{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }", 8, "an array of type <i8"),
            ("{'shape': (1,)}", 8, "header"),
        ] {
            let error = array(&npy(header, &vec![0; data])).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let whole = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", &[0; 4]);
        for length in 0..whole.len() {
            assert!(array(&whole[..length]).is_err(), "cut to {length}");
        }
    }
}
