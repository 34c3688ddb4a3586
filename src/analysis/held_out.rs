//! A probe on the rows that were held out of its fit: what pictures of it are drawn from.

use ndarray::Axis;

use super::roc::{Roc, roc};
use crate::boundary::RiskMap;
use crate::error::Result;
use crate::probe::{Examples, Probe, Split};

/// A probe on the rows that were held out.
pub struct HeldOut {
    /// The map from its first class to its last.
    pub map: RiskMap,
    /// Its ROC curves.
    pub roc: Roc,
}

/// The probe on the split's test rows; none where it has one class.
///
/// # Errors
/// Examples of another width than the probe's.
pub(super) fn on_held_out(
    probe: &Probe,
    examples: &Examples,
    split: &Split,
    name: &str,
) -> Result<Option<HeldOut>> {
    let [Some(first), Some(last)] = [probe.classes.first(), probe.classes.last()] else { return Ok(None) };
    if first == last {
        return Ok(None);
    }
    let features = examples.features().select(Axis(0), &split.test);
    let targets = examples.targets().select(&split.test);
    let mut map = RiskMap::of_probe(probe, features.view(), &targets, first, last)?;
    map.split = Some(name.into());
    Ok(Some(HeldOut { map, roc: roc(probe, features.view(), &targets, name)? }))
}
