//! The `[data]` table: which dialogues, and how they are split into a fit, a validation and a test part that share no group.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::organism;

/// Which dialogues, and how they are split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Data {
    /// A file of labelled dialogues.
    pub file: Option<PathBuf>,
    /// Instead of a file: this many dialogues sampled from the organism's world, in wordings that it was not trained on.
    #[serde(alias = "draw")]
    pub sample: Option<usize>,
    /// Excludes dialogues whose label has this value.
    #[serde(default, alias = "without")]
    pub exclude: BTreeMap<String, String>,
    /// The label whose values are the groups.
    pub group: String,
    /// Groups of the validation part: choices are made on them, nothing is fitted on them.
    #[serde(default)]
    pub validation: Vec<String>,
    /// Groups of the test part: results are measured on them, nothing is fitted or chosen on them.
    #[serde(default)]
    pub held_out: Vec<String>,
    /// Instead of names: this share of the groups, at least one, drawn by the seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_share: Option<f64>,
    /// Further labels, each with the values that are held out along with the groups: a dialogue is tested on where its group
    /// and its value of every such label are held out, fitted or chosen on where none of them is, and left out otherwise.
    #[serde(default)]
    pub held_out_with: BTreeMap<String, Vec<String>>,
    /// Merges values of the group's label into one group, by its new name.
    #[serde(default, rename = "merge_groups", alias = "merge-groups", alias = "together")]
    pub merge_groups: BTreeMap<String, Vec<String>>,
}

impl Data {
    /// The labels whose values are held out: the group's, and those held out with it.
    pub fn held_out_labels(&self) -> String {
        let names = std::iter::once(&self.group).chain(self.held_out_with.keys());
        names.map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// As [`Data::check`], where a share of the groups may be held out.
    ///
    /// # Errors
    /// As there; a share that is none, or beside groups by name.
    pub(super) fn check_with_share(&self, place: &str) -> Result<()> {
        if let Some(share) = self.held_out_share {
            let place = format!("{place}, data, held-out-share");
            if !(share > 0.0 && share < 1.0) {
                return Err(Error::input(place, share, "a share between 0 and 1, such as 0.3"));
            }
            if !self.held_out.is_empty() || !self.held_out_with.is_empty() {
                return Err(Error::input(place, "beside held-out", "one of the two"));
            }
        }
        Data { held_out_share: None, ..self.clone() }.check(place)
    }

    /// # Errors
    /// No source of dialogues, or two; a sample that is too large.
    pub(super) fn check(&self, place: &str) -> Result<()> {
        organism::check_count(&format!("{place}, data, sample"), self.sample.unwrap_or(0))?;
        if self.held_out_share.is_some() {
            let expected = "held-out = [GROUP, …]; shares are for experiment files";
            return Err(Error::input(format!("{place}, data"), "held-out-share", expected));
        }
        match (&self.file, self.sample) {
            (Some(_), None) | (None, Some(1..)) => Ok(()),
            _ => Err(Error::input(
                format!("{place}, data"),
                "no dialogues, or two sources",
                "file = PATH or sample = COUNT",
            )),
        }
    }
}
