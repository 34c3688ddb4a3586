//! Export of a store: one file a site, as numpy arrays, CSV or Parquet.
//!
//! Each file holds the rows of one site in the store's order: columns `example`, `position` (−1 where tokens were pooled), then one a
//! dimension. Numpy arrays hold the dimensions alone, `[rows, width]` in f32, beside `example.npy` and `position.npy` (`[rows]`, i64).

use std::path::{Path, PathBuf};

use ndarray::Array2;

use super::store::Store;
use crate::artifact;
use crate::error::{Error, Result};
use crate::model::Site;

/// File format of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// Numpy arrays, `.npy` of version 1.0.
    Npy,
    /// Comma-separated values, with the shortest decimals that read back as the same f32.
    Csv,
    /// Parquet, in a build with the feature `parquet`.
    Parquet,
}

impl ExportFormat {
    /// Its file name's extension.
    pub fn extension(self) -> &'static str {
        match self {
            ExportFormat::Npy => "npy",
            ExportFormat::Csv => "csv",
            ExportFormat::Parquet => "parquet",
        }
    }
}

/// Writes the activations at some sites of a store to a folder, `SITE.EXTENSION` each, and gives the files. `on_progress` gets the
/// number of sites done, and stops the export by returning false.
///
/// # Errors
/// A format that this build lacks; a site that the store lacks; a damaged store; a file that can't be written.
pub fn export(
    store: &Store,
    sites: &[Site],
    format: ExportFormat,
    folder: &Path,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<PathBuf>> {
    if format == ExportFormat::Parquet && !cfg!(feature = "parquet") {
        let expected = "a build with it: cargo build --release --features parquet; or --npy or --csv";
        return Err(Error::input("--parquet", "Parquet files, without the feature `parquet`", expected));
    }
    let signed = |number: usize| number as i64;
    let example: Vec<i64> = store.example()?.into_iter().map(signed).collect();
    let position = store.position()?.into_iter();
    let position: Vec<i64> = position.map(|position| position.map_or(-1, signed)).collect();
    let mut written = Vec::new();
    let mut write = |name: String, bytes: &[u8]| -> Result<()> {
        let path = folder.join(format!("{name}.{}", format.extension()));
        artifact::write_atomic(&path, |file| file.write_all(bytes))?;
        written.push(path);
        Ok(())
    };
    for (done, &site) in sites.iter().enumerate() {
        let values = store.at(site)?;
        let bytes = match format {
            ExportFormat::Npy => {
                npy("<f4", &[values.nrows(), values.ncols()], values.iter().map(|v| v.to_le_bytes()))
            }
            ExportFormat::Csv => csv(&example, &position, &values),
            ExportFormat::Parquet => parquet(&example, &position, &values)?,
        };
        write(site.to_string(), &bytes)?;
        if !on_progress(done + 1) {
            return Err(Error::Stopped);
        }
    }
    if format == ExportFormat::Npy {
        for (name, numbers) in [("example", &example), ("position", &position)] {
            let bytes = npy("<i8", &[numbers.len()], numbers.iter().map(|number| number.to_le_bytes()));
            write(name.into(), &bytes)?;
        }
    }
    Ok(written)
}

/// A numpy array in C order (NEP 1): magic, version 1.0, a header padded to 64 bytes, and the numbers.
fn npy<const N: usize>(kind: &str, shape: &[usize], numbers: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
    // As Python writes a tuple: (2, 3), and (2,).
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if sizes.len() == 1 { "," } else { "" };
    let sizes = sizes.join(", ");
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({sizes}{comma}), }}");
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.push_str(&" ".repeat(length - 1 - header.len()));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(header.bytes());
    numbers.for_each(|number| bytes.extend(number));
    bytes
}

fn csv(example: &[i64], position: &[i64], values: &Array2<f32>) -> Vec<u8> {
    let mut text = String::from("example,position");
    (0..values.ncols()).for_each(|column| text.push_str(&format!(",{column}")));
    text.push('\n');
    for ((example, position), row) in example.iter().zip(position).zip(values.rows()) {
        text.push_str(&format!("{example},{position}"));
        row.iter().for_each(|value| text.push_str(&format!(",{value}")));
        text.push('\n');
    }
    text.into_bytes()
}

#[cfg(not(feature = "parquet"))]
fn parquet(_: &[i64], _: &[i64], _: &Array2<f32>) -> Result<Vec<u8>> {
    // The caller has refused before this.
    Ok(Vec::new())
}

/// Two required columns of i64 and one of f32 a dimension, in one row group, uncompressed: floats of activations hardly compress.
#[cfg(feature = "parquet")]
fn parquet(example: &[i64], position: &[i64], values: &Array2<f32>) -> Result<Vec<u8>> {
    use std::sync::Arc;

    use parquet::data_type::{FloatType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    let floats: String = (0..values.ncols()).map(|column| format!("REQUIRED FLOAT {column};")).collect();
    let message = format!("message rows {{ REQUIRED INT64 example; REQUIRED INT64 position; {floats} }}");
    let write = || -> parquet::errors::Result<Vec<u8>> {
        let schema = Arc::new(parse_message_type(&message)?);
        let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
        let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
        let mut group = file.next_row_group()?;
        let mut number = 0;
        while let Some(mut column) = group.next_column()? {
            match number {
                0 => column.typed::<Int64Type>().write_batch(example, None, None)?,
                1 => column.typed::<Int64Type>().write_batch(position, None, None)?,
                _ => {
                    let own = values.column(number - 2).to_vec();
                    column.typed::<FloatType>().write_batch(&own, None, None)?
                }
            };
            column.close()?;
            number += 1;
        }
        group.close()?;
        file.into_inner()
    };
    write().map_err(|error| Error::input("--parquet", error, "rows that Parquet can hold"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numpy_array_has_the_bytes_that_numpy_writes() {
        // numpy.save of numpy.array([[1.5, -2.0]], "<f4"), and of numpy.array([7]).
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }";
        let mut expected = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        expected.extend(format!("{header:<117}\n").bytes());
        expected.extend([0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0]);
        assert_eq!(npy("<f4", &[1, 2], [1.5f32, -2.0].iter().map(|v| v.to_le_bytes())), expected);
        let one = npy("<i8", &[1], [7i64].iter().map(|v| v.to_le_bytes()));
        assert!(one.windows(14).any(|part| part == b"'shape': (1,),"), "{}", String::from_utf8_lossy(&one));
        assert_eq!(one.len(), 128 + 8);
    }

    #[test]
    fn decimals_read_back_as_the_same_number() {
        let values = ndarray::array![[0.1f32, 1e-30], [-3.0, f32::MAX]];
        let text = String::from_utf8(csv(&[0, 4], &[-1, 9], &values)).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("example,position,0,1"));
        assert_eq!(lines.next(), Some("0,-1,0.1,0.000000000000000000000000000001"));
        let last: Vec<f32> = lines.next().unwrap().split(',').map(|cell| cell.parse().unwrap()).collect();
        assert_eq!(last, [4.0, 9.0, -3.0, f32::MAX]);
    }
}
