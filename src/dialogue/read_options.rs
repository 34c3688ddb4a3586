//! Options of reading a file of dialogues.

use serde::{Deserialize, Serialize};

use super::column_map::ColumnMap;

/// Which dialogues of a file to read, and how to interpret its columns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ReadOptions {
    /// The meaning of the columns, for a layout that isn't known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map: Option<ColumnMap>,
    /// The most dialogues to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Only dialogues with all of these labels (name, value). A list label must contain the value.
    #[serde(rename = "where", skip_serializing_if = "Vec::is_empty")]
    pub where_label: Vec<(String, String)>,
    /// Skip and count bad records, instead of stopping at the first.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skip_bad: bool,
}

impl ReadOptions {
    /// Sets the column map.
    pub fn map(mut self, map: impl Into<Option<ColumnMap>>) -> ReadOptions {
        self.map = map.into();
        self
    }

    /// Sets the most dialogues to read.
    pub fn limit(mut self, limit: impl Into<Option<usize>>) -> ReadOptions {
        self.limit = limit.into();
        self
    }

    /// Adds a condition: only dialogues whose label `name` is, or contains, `value`.
    pub fn where_label(mut self, name: impl Into<String>, value: impl Into<String>) -> ReadOptions {
        self.where_label.push((name.into(), value.into()));
        self
    }

    /// Sets whether bad records are skipped.
    pub fn skip_bad(mut self, skip: bool) -> ReadOptions {
        self.skip_bad = skip;
        self
    }
}
