//! Steering traces: what an intervention read and changed at one token.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One intervention at one token and site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceEntry {
    /// Row of the batch.
    #[serde(skip)]
    pub row: usize,
    /// Absolute position in the row.
    #[serde(skip)]
    pub position: usize,
    /// Index of the intervention in its plan, from 0.
    pub intervention: usize,
    /// Name of the operation.
    pub operation: String,
    /// The steered site.
    pub site: String,
    /// The factor on the change: schedule times control; 0 where the condition did not hold.
    pub scale: f32,
    /// Length of the change, in activation units.
    pub moved: f32,
    /// Probabilities that condition and control read at the token, by query.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub readings: BTreeMap<String, f64>,
    /// The controller's error, in log-odds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    /// The active half-spaces of a projection, and how far each moved the state, in activation units.
    #[serde(rename = "faces", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub half_spaces: BTreeMap<String, f64>,
}
