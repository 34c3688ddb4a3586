//! What steering read and did at a token, for whoever wants to see it.
//! It knows nothing of hooks or transcripts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One intervention at one token and site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Row of the batch, and absolute position in it.
    #[serde(skip)]
    pub row: usize,
    #[serde(skip)]
    pub position: usize,
    /// The intervention's place in its plan, from 0.
    pub intervention: usize,
    pub operation: String,
    pub site: String,
    /// The factor on the change: schedule and control together; 0 where the condition did not hold.
    pub scale: f32,
    /// Length of the change that was made, in activation units.
    pub moved: f32,
    /// Probabilities that conditions and control read at this token, by what was asked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub readings: BTreeMap<String, f64>,
    /// The control's error at the reading that set the strength, in log-odds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    /// The faces that pushed, and how far, in activation units: why a projection changed what it changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub faces: BTreeMap<String, f64>,
}
