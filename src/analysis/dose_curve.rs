//! Dose–response of one vector: how often answers have an outcome, and how often they break, by strength.

use serde::{Deserialize, Serialize};

use crate::model::Site;
use crate::stats::Interval;

/// Shares of answers by strength (the table of a plot).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DoseCurve {
    /// The vector.
    pub vector: String,
    /// Where it was added.
    pub site: Site,
    /// The outcome that was counted.
    pub outcome: String,
    /// In the order in which they were given.
    pub doses: Vec<Dose>,
}

/// The answers at one strength.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dose {
    /// The strength, such as `0.5n`.
    pub strength: String,
    /// Share of answers with the outcome, with Wilson's 95 % interval; none without answers.
    pub reached: Option<Interval>,
    /// Answers that are none: repeated or cut off.
    pub broken: usize,
    /// Answers.
    pub n: usize,
}

impl std::fmt::Display for DoseCurve {
    /// A line a strength.
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        writeln!(f, "{} at {}: share of answers with outcome {}", self.vector, self.site, self.outcome)?;
        for Dose { strength, reached, broken, n } in &self.doses {
            let share = reached
                .as_ref()
                .map_or("–".into(), |own| format!("{:.3} [{:.3}, {:.3}]", own.value, own.low, own.high));
            writeln!(f, "{strength:>7}  {share}  n = {n}, {broken} broken")?;
        }
        Ok(())
    }
}
