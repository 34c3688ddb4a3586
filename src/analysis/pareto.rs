//! Which of a sweep's trials are worth a second look: those that no other beats, and each way's pick. It knows nothing of models.

use super::steering_grid::{Arm, SweepFile, Trial};

/// How near an arm must come to the reference's response.
const NEAR: f64 = 0.02;

pub(crate) fn is_control(arms: &[Arm], name: &str) -> bool {
    arms.iter().any(|arm| arm.name == name && arm.control.is_some())
}

/// Marks the trials that no other one beats in response and divergence at once.
pub(crate) fn mark_pareto(trials: &mut [Trial], arms: &[Arm]) {
    let points: Vec<Option<(f64, f64)>> = trials
        .iter()
        .map(|trial| {
            let effect = &trial.effect;
            (!is_control(arms, &trial.arm)).then_some((effect.response.value, effect.divergence.value))
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

/// The reference arm's pick: of the trials within the guard (or of all, where none is) the one of highest response, of
/// equals the one of least damage. Every other arm is held where it comes near that response with least damage, or, where
/// it never does, by the reference's own rule; a control at the reference's own site and strength.
pub(crate) fn picks(file: &SweepFile, trials: &[Trial]) -> Vec<(String, Option<usize>)> {
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
        if arm.control.is_some() {
            let same = |&&index: &&usize| {
                (trials[index].site, &trials[index].strength)
                    == (trials[reference].site, &trials[reference].strength)
            };
            return own.iter().find(same).copied();
        }
        let near = own.iter().filter(|index| response(index) >= response(&reference) - NEAR);
        let near = near.min_by(|a, b| divergence(a).total_cmp(&divergence(b)));
        // An arm that never comes near is held where it does best.
        near.or_else(|| own.iter().filter(|index| trials[**index].guarded).max_by(better)).copied()
    };
    file.arms.iter().map(|arm| (arm.name.clone(), pick(arm))).collect()
}
