//! The table at the beginning of a safetensors file: read within bounds, and what is wrong with it in plain words.

use std::collections::{BTreeMap, HashSet};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Deserialize;

use super::json::check_values;
use crate::error::{Error, Result};

/// The longest table accepted, in bytes: room for some hundred thousand tensors.
const MAX_TABLE: u64 = 32 << 20;

/// Values of a table, at most.
const MOST_VALUES: usize = 4_000_000;

/// The length of a file's table in bytes, and the table.
///
/// # Errors
/// [`Error::Input`] if the file isn't a whole safetensors file, or has a table that is too large or names a tensor twice.
pub(super) fn read_table(name: &str, bytes: &[u8]) -> Result<(usize, Metadata)> {
    let claimed = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if claimed > MAX_TABLE {
        let expected = format!("a whole safetensors file with a table of at most {MAX_TABLE} bytes");
        return Err(Error::input(name, format!("a table of {claimed} bytes"), expected));
    }
    let length = usize::try_from(claimed).unwrap_or(usize::MAX);
    if let Some(table) = bytes.get(8..length.saturating_add(8)) {
        check_values(table, MOST_VALUES)
            .map_err(|found| Error::input(name, found, "a safetensors table of a usual size"))?;
    }
    let (length, table) = SafeTensors::read_metadata(bytes).map_err(|problem| {
        match claimed.try_into().ok().and_then(|length: usize| misfit(bytes.get(8..8 + length)?)) {
            Some((found, expected)) => Error::input(name, found, expected),
            None => Error::input(name, problem, "a whole safetensors file (was it truncated?)"),
        }
    })?;
    if let Some(twice) = duplicate_name(&bytes[8..8 + length]) {
        return Err(Error::input(name, format!("tensor {twice} twice"), "each tensor once"));
    }
    Ok((length, table))
}

/// A name that occurs twice in a table; parsing into a map would keep one of the two silently.
fn duplicate_name(table: &[u8]) -> Option<String> {
    struct Names(Option<String>);
    impl<'de> serde::de::Visitor<'de> for &mut Names {
        type Value = ();

        fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            f.write_str("a table of tensors")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
            let mut names = HashSet::new();
            while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                map.next_value::<serde::de::IgnoredAny>()?;
                match names.contains(&name) {
                    true => self.0 = Some(name.into_owned()),
                    false => drop(names.insert(name)),
                }
            }
            Ok(())
        }
    }
    let mut names = Names(None);
    // Anything but a table was refused before.
    let _ =
        serde::Deserializer::deserialize_map(&mut serde_json::Deserializer::from_slice(table), &mut names);
    names.0
}

/// What is wrong with the first tensor of a table whose type is unknown, or whose bytes are not as many as its type and
/// shape take, and what would be right.
fn misfit(table: &[u8]) -> Option<(String, String)> {
    let table: BTreeMap<String, serde_json::Value> = serde_json::from_slice(table).ok()?;
    table.iter().filter(|(name, _)| *name != "__metadata__").find_map(|(name, entry)| {
        let kind = entry.get("dtype").filter(|kind| kind.is_string())?;
        if Dtype::deserialize(kind).is_err() {
            return Some((format!("tensor {name} of type {kind}"), "a type of safetensors".into()));
        }
        let info = TensorInfo::deserialize(entry).ok()?;
        let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |bits, side| bits.checked_mul(*side))?;
        let found = info.data_offsets.1.checked_sub(info.data_offsets.0)?;
        (bits.div_ceil(8) != found).then(|| {
            let of = format!("tensor {name} of type {} and shape {:?}", info.dtype, info.shape);
            let expected = format!("{} bytes in a whole safetensors file", bits.div_ceil(8));
            (format!("{of} in {found} bytes"), expected)
        })
    })
}
