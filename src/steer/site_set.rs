//! A set of sites as it is written (`3,7.mlp_out`, `*.resid_post`), before the number of blocks is known.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::model::{Model, Site};

/// Sites by name, checked for syntax. [`SiteSet::resolve`] checks them against a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteSet(String);

/// More blocks than any model has: it bounds what `0-999999999.resid_post` allocates.
const MAX_BLOCKS: usize = 4096;

impl SiteSet {
    /// The sites, in the order of the forward pass.
    ///
    /// # Errors
    /// A site that the model lacks.
    pub fn resolve(&self, model: &Model) -> Result<Vec<Site>> {
        model.decoder.architecture().parse_sites(&self.0)
    }

    /// Whether it is the word `all`.
    pub fn is_all(&self) -> bool {
        self.0.trim() == "all"
    }

    /// The text of the set.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Site> for SiteSet {
    fn from(site: Site) -> SiteSet {
        SiteSet(site.to_string())
    }
}

impl FromStr for SiteSet {
    type Err = Error;

    fn from_str(text: &str) -> Result<SiteSet> {
        let blocks =
            text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<usize>().ok());
        // One block more than the largest number, so that only the syntax is checked.
        let blocks = blocks.max().map_or(1, |last| last.saturating_add(1)).min(MAX_BLOCKS);
        match Site::parse_set(text, blocks) {
            Ok(sites) if sites.is_empty() => {
                Err(Error::input(format!("sites {text:?}"), "no site", "sites such as 4-11.resid_post"))
            }
            Ok(_) => Ok(SiteSet(text.to_string())),
            Err(Error::Input { place, found, expected }) => {
                Err(Error::Input { place: format!("sites {text:?}, {place}"), found, expected })
            }
            Err(other) => Err(other),
        }
    }
}

impl fmt::Display for SiteSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for SiteSet {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SiteSet {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<SiteSet, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_syntax_is_checked_without_a_model() {
        for right in ["3.resid_post", "4-11.resid_post", "3, 70.mlp_out", "*.resid_post", "embed", "all"] {
            assert_eq!(right.parse::<SiteSet>().unwrap().to_string(), right);
        }
        for wrong in ["", "3", "3.nowhere", "9-2.resid_post", "0-999999999.resid_post"] {
            assert!(wrong.parse::<SiteSet>().is_err(), "{wrong}");
        }
    }
}
