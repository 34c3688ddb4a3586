//! Which calibration a probe gets: the best of the fitting ones, or one by name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The calibration to fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CalibrationChoice {
    /// The one with the least cross-validated log loss; an isotonic curve only where its classes overlap.
    #[default]
    Auto,
    /// A temperature: a straight line through 0.
    Temperature,
    /// Slope and offset: a straight line, for two classes.
    Platt,
    /// A non-decreasing curve, which closed loops and `project` can't use.
    Isotonic,
    /// The probe's own logits.
    None,
}

/// Every choice with its name.
const CHOICES: [(&str, CalibrationChoice); 5] = [
    ("auto", CalibrationChoice::Auto),
    ("temperature", CalibrationChoice::Temperature),
    ("platt", CalibrationChoice::Platt),
    ("isotonic", CalibrationChoice::Isotonic),
    ("none", CalibrationChoice::None),
];

impl FromStr for CalibrationChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<CalibrationChoice> {
        let found = CHOICES.iter().find(|(name, _)| *name == text);
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            Error::input("calibration", format!("{text:?}"), "auto, temperature, platt, isotonic or none")
        })
    }
}

impl fmt::Display for CalibrationChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = CHOICES.iter().find(|(_, choice)| choice == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}
