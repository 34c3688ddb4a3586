//! Vector files of lm-evaluation-harness's `steered` model, written only: a `.pt` file with `{hookpoint: {steering_vector,
//! steering_coefficient, action, bias, head_index}}`.

use std::io::{Cursor, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::artifact;
use crate::error::{Error, Result};
use crate::model::{Point, Site};
use crate::steer::operation::Strength;
use crate::steer::vector::Vector;

/// Writes the file. `hookpoint`: the name of a block in the model, with `{}` for its number: `layers.{}`, `h.{}`, …
///
/// # Errors
/// A direction at a site that is no block's output; a strength in residual norms where the vector has none; a name without
/// `{}`.
pub fn write_harness(path: &Path, vector: &Vector, strength: Strength, hookpoint: &str) -> Result<()> {
    if !hookpoint.contains("{}") {
        return Err(Error::input(
            format!("hookpoint {hookpoint:?}"),
            "no {} in it",
            "a name such as layers.{}",
        ));
    }
    let mut pickle = b"\x80\x02}(".to_vec();
    let mut storages = Vec::new();
    for (site, direction) in &vector.directions {
        let place = || format!("{}, {site}", path.display());
        let Site::Block(block, Point::ResidPost) = *site else {
            let expected = "directions at resid_post (--sites chooses them)";
            return Err(Error::input(place(), "the harness steers the output of a block", expected));
        };
        let coefficient = match strength {
            Strength::Raw(times) => f64::from(times),
            Strength::Norms(norms) => {
                let norm = direction.residual_norm.ok_or_else(|| {
                    Error::input(place(), "a vector without a residual norm", "a strength without n")
                })?;
                f64::from(norms * norm / direction.length())
            }
        };
        text(&mut pickle, &hookpoint.replace("{}", &block.to_string()));
        pickle.extend(b"}(");
        text(&mut pickle, "steering_vector");
        tensor(&mut pickle, storages.len(), direction.values.len());
        storages.push(direction.values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
        text(&mut pickle, "steering_coefficient");
        pickle.push(b'G');
        pickle.extend(coefficient.to_be_bytes());
        text(&mut pickle, "action");
        text(&mut pickle, "add");
        for none in ["bias", "head_index"] {
            text(&mut pickle, none);
            pickle.push(b'N');
        }
        pickle.push(b'u');
    }
    pickle.extend(b"u.");
    let mut entries =
        vec![("archive/data.pkl".to_string(), pickle), ("archive/byteorder".into(), b"little".to_vec())];
    entries.extend(
        storages.into_iter().enumerate().map(|(number, bytes)| (format!("archive/data/{number}"), bytes)),
    );
    entries.push(("archive/version".into(), b"3\n".to_vec()));
    let zipped =
        zipped(&entries).map_err(|problem| Error::input(path.display(), problem, "a zip archive"))?;
    artifact::write_atomic(path, |file| file.write_all(&zipped))
}

fn zipped(entries: &[(String, Vec<u8>)]) -> zip::result::ZipResult<Vec<u8>> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in entries {
        archive.start_file(name.as_str(), options)?;
        archive.write_all(bytes)?;
    }
    Ok(archive.finish()?.into_inner())
}

/// The pickle of a string.
fn text(pickle: &mut Vec<u8>, text: &str) {
    pickle.push(b'X');
    pickle.extend((text.len() as u32).to_le_bytes());
    pickle.extend(text.as_bytes());
}

/// The pickle of an integer.
fn number(pickle: &mut Vec<u8>, number: usize) {
    pickle.push(b'J');
    pickle.extend((number as u32).to_le_bytes());
}

/// The pickle of an f32 tensor `[width]` at the start of its storage.
fn tensor(pickle: &mut Vec<u8>, storage: usize, width: usize) {
    pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    text(pickle, "storage");
    pickle.extend(b"ctorch\nFloatStorage\n");
    text(pickle, &storage.to_string());
    text(pickle, "cpu");
    number(pickle, width);
    pickle.extend(b"tQ");
    number(pickle, 0);
    number(pickle, width);
    pickle.push(0x85);
    number(pickle, 1);
    pickle.push(0x85);
    // requires_grad = False, no backward hooks.
    pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
}
