//! `.svec` files of activation-steering (CAST, arXiv 2409.05907), read only: JSON with a direction for the output of each
//! block. In the toolkit that took it over, a direction may be a list of one row.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::layout::insert;
use crate::error::{Error, Result};
use crate::model::Site;
use crate::steer::vector::{Direction, Vector};

/// CAST reads and adds at the output of a block.
const RESID_POST: &str = "resid_post";

#[derive(Deserialize)]
struct Svec {
    directions: Pairs,
}

/// The pairs of an object in their order, repeated keys included.
struct Pairs(Vec<(String, Values)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Pairs, D::Error> {
        struct Layers;
        impl<'de> Visitor<'de> for Layers {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map of layers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Layers)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    One(Vec<f64>),
    Rows(Vec<Vec<f64>>),
}

/// The directions of the file's text.
///
/// # Errors
/// JSON of another kind; a layer that is no number, or stands there twice; directions of different widths; a direction of several rows; numbers that are not finite.
pub(super) fn vector(path: &Path, bytes: &[u8]) -> Result<Vector> {
    let wrong = |found: String| {
        Error::input(path.display(), found, "a .svec file: {\"directions\": {\"LAYER\": [numbers]}}")
    };
    let read: Svec = serde_json::from_slice(bytes).map_err(|problem| wrong(problem.to_string()))?;
    let mut directions = BTreeMap::new();
    for (layer, values) in read.directions.0 {
        let block: usize = layer.parse().map_err(|_| wrong(format!("layer {layer:?}")))?;
        let site: Site = format!("{block}.{RESID_POST}").parse()?;
        let values = match values {
            Values::One(values) => values,
            Values::Rows(rows) => match <[Vec<f64>; 1]>::try_from(rows) {
                Ok([values]) => values,
                Err(rows) => return Err(wrong(format!("{} directions for layer {layer}", rows.len()))),
            },
        };
        let values: ndarray::Array1<f32> = values.into_iter().map(|value| value as f32).collect();
        if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
            return Err(wrong(format!("a direction of layer {layer} that is empty or not finite")));
        }
        insert(&path.display(), &mut directions, site, Direction::new(values, None))?;
    }
    directions.retain(|_, direction: &mut Direction| direction.length() > 0.0);
    if directions.is_empty() {
        return Err(wrong("no direction but 0".into()));
    }
    Ok(Vector { method: "imported from a .svec file".into(), directions, best: None })
}
