//! Pareto front of a steering grid's trials, and the trial at which each arm is compared.

use super::steering_effect::Trial;
use crate::config::defaults::NEAR_RESPONSE;
use crate::config::steering_grid::{Arm, SteeringGrid};

/// Marks the trials that no other one beats in response and divergence at once; controls take no part.
pub(super) fn mark_pareto(trials: &mut [Trial], file: &SteeringGrid) {
    let points: Vec<Option<(f64, f64)>> = trials
        .iter()
        .map(|trial| {
            let effect = &trial.effect;
            (!file.is_control(&trial.arm)).then_some((effect.response.value, effect.divergence.value))
        })
        .collect();
    for (index, trial) in trials.iter_mut().enumerate() {
        let Some((response, divergence)) = points[index] else { continue };
        let beats = |&(other, damage): &(f64, f64)| {
            other >= response && damage <= divergence && (other > response || damage < divergence)
        };
        trial.pareto = !points.iter().flatten().any(beats);
    }
}

/// The trial at which each arm is compared, as an index. The first arm's is the one of highest response within the guard (or
/// of all, where none is within it), of equals the one of least divergence. Another arm's is the one of least divergence that
/// comes near that response, or, where none does, the one that the first arm's rule picks. A control has no trial
/// of its own.
pub(super) fn picks(file: &SteeringGrid, trials: &[Trial]) -> Vec<(String, Option<usize>)> {
    let of =
        |arm: &str| -> Vec<usize> { (0..trials.len()).filter(|&index| trials[index].arm == arm).collect() };
    let response = |index: &usize| trials[*index].effect.response.value;
    let divergence = |index: &usize| trials[*index].effect.divergence.value;
    let own = of(&file.arms[0].name);
    let guarded: Vec<usize> = own.iter().copied().filter(|&index| trials[index].guarded).collect();
    let among = if guarded.is_empty() { own } else { guarded };
    let better = |a: &&usize, b: &&usize| {
        response(a).total_cmp(&response(b)).then(divergence(b).total_cmp(&divergence(a)))
    };
    let reference = among.iter().max_by(better).copied();
    let pick = |arm: &Arm| {
        let reference = reference?;
        if arm.name == file.arms[0].name {
            return Some(reference);
        }
        let own = of(&arm.name);
        let near = own.iter().filter(|index| response(index) >= response(&reference) - NEAR_RESPONSE);
        let near = near.min_by(|a, b| divergence(a).total_cmp(&divergence(b)));
        near.or_else(|| own.iter().filter(|index| trials[**index].guarded).max_by(better)).copied()
    };
    file.arms.iter().map(|arm| (arm.name.clone(), pick(arm))).collect()
}
