//! The pearl map of a steered site: satisfaction and risk of answers whose hidden state was moved over the plane of the
//! probe's direction and the steering vector.

use std::collections::BTreeMap;

use ndarray::{Array1, Array2, Axis};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::layer_sweep::Sweep;
use super::steering_eval::{Evaluation, Steered};
use crate::activations::{Activations, Recorder};
use crate::boundary::{self, PearlMap, PearlOptions, Plane, Sample, Track};
use crate::config::defaults::PEARL_ANSWERS;
use crate::error::{Error, Result};
use crate::judge::BROKEN;
use crate::model::{Chain, Site};
use crate::probe::Probe;
use crate::progress::Progress;
use crate::steer::OffsetHook;

/// A pearl map with its site and axes: the table of a plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SitePearlMap {
    /// The site that was moved.
    pub site: Site,
    /// Names of the two axes: the probe's first → last class, and the outcome steered from → to.
    pub axes: [String; 2],
    /// The map.
    pub map: PearlMap,
}

/// Maps the steered site. The x axis is the probe's direction from its first class to its last; the y axis is what is left
/// of the vector beside it. Dialogues of the fit part are answered with their hidden state moved by a random offset (up to
/// half the distance of neighbouring classes along x, a little farther than steering goes along y), and each answer's scores
/// stand at its place. The track is one answer of the test part before and after steering.
///
/// # Errors
/// A judge that does not weigh answers, a probe of fewer than two classes, or a stop.
pub fn pearl_map(
    evaluation: &Evaluation,
    sweep: &Sweep,
    activations: &Activations,
    steered: &Steered,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<SitePearlMap> {
    let trial = &steered.trials[steered.chosen];
    let probe = &sweep.at(trial.site)?.probe;
    let values = activations.at(trial.site)?;
    let numbers: Vec<usize> = evaluation.data.fit.iter().copied().take(PEARL_ANSWERS).collect();
    let plane = plane(evaluation, probe, values, steered, &numbers)?;
    let feet = plane.project(values.select(Axis(0), &numbers).view())?;
    let mut rng = StdRng::seed_from_u64(evaluation.experiment.seed);
    let reach = [
        half_class_distance(evaluation, probe, &numbers, &feet),
        1.25 * evaluation.amount(&steered.vector, trial)?,
    ];
    let (mut places, mut offsets) = (Vec::new(), BTreeMap::new());
    for (row, foot) in feet.rows().into_iter().enumerate() {
        let moved = [0, 1].map(|axis| reach[axis] * rng.random_range(-1.0..=1.0));
        let offset =
            (0..values.ncols()).map(|i| (moved[0] * plane.axes[0][i] + moved[1] * plane.axes[1][i]) as f32);
        offsets.insert(row, offset.collect());
        places.push([foot[0] + moved[0], foot[1] + moved[1]]);
    }
    let tokens = evaluation.experiment.read.tokens.clone();
    let mut hook = OffsetHook::new(&evaluation.model.decoder, trial.site, tokens, offsets)?;
    let answers = evaluation.answer(&numbers, &mut hook, "answer all over the map", on_progress)?;
    let sample = |(&[x, y], score): (&[f64; 2], &crate::judge::Score)| {
        // A broken answer is worth nothing, and what it would have risked isn't known: the worst is taken.
        if score.strategy == BROKEN {
            return Some(Sample { x, y, satisfaction: 0.0, risk: 1.0 });
        }
        Some(Sample { x, y, satisfaction: score.satisfaction?, risk: score.risk? })
    };
    let samples: Option<Vec<Sample>> = places.iter().zip(&answers.scores).map(sample).collect();
    let samples = samples.ok_or_else(|| {
        Error::input("pearl map", "answers without satisfaction and risk", "a judge that weighs answers")
    })?;
    let mut tracks = Vec::new();
    if let Some(number) = evaluation.turned(steered) {
        let before = values.row(number).to_vec();
        let after = steered_state(evaluation, steered, number)?;
        let foot = |state: Vec<f32>| -> Result<[f64; 2]> {
            let row = Array2::from_shape_vec((1, state.len()), state)
                .map_err(|error| Error::input("pearl map", error, "one row"))?;
            let foot = plane.project(row.view())?;
            Ok([foot[[0, 0]], foot[[0, 1]]])
        };
        let name = format!("{} before and after steering", evaluation.data.dialogues[number].id);
        tracks.push(Track { name, places: vec![foot(before)?, foot(after)?], stops: Vec::new() });
    }
    let map = boundary::pearl_map(
        &samples,
        &tracks,
        &PearlOptions { seed: evaluation.experiment.seed, ..PearlOptions::default() },
    )?;
    Ok(SitePearlMap { site: trial.site, axes: plane.names, map })
}

fn plane(
    evaluation: &Evaluation,
    probe: &Probe,
    values: &Array2<f32>,
    steered: &Steered,
    numbers: &[usize],
) -> Result<Plane> {
    let mean = values.select(Axis(0), numbers).mean_axis(Axis(0));
    let mean = mean.ok_or_else(|| Error::input("pearl map", "no answers", "some in the fit part"))?;
    let (Some(from), Some(to)) = (probe.classes.first(), probe.classes.last()) else {
        return Err(Error::input("pearl map", "a probe without classes", "two or more"));
    };
    let risk = probe.direction(from, to)?;
    let vector = &steered.vector.directions[&probe.source.site].values;
    let steering = evaluation.steering;
    let names = [format!("{from} → {to}"), format!("{} → {}", steering.from, steering.to)];
    let double = |values: &Array1<f32>| values.mapv(f64::from);
    Plane::of_directions(double(&mean).view(), double(&risk).view(), double(vector).view(), names)
}

/// Half the mean distance along x between neighbouring classes.
fn half_class_distance(evaluation: &Evaluation, probe: &Probe, numbers: &[usize], feet: &Array2<f64>) -> f64 {
    let mean = |class: &String| {
        let is = |row: &usize| {
            evaluation.data.dialogues[numbers[*row]].label(&probe.source.label).as_ref() == Some(class)
        };
        let x: Vec<f64> = (0..numbers.len()).filter(is).map(|row| feet[[row, 0]]).collect();
        x.iter().sum::<f64>() / x.len().max(1) as f64
    };
    let means: Vec<f64> = probe.classes.iter().map(mean).collect();
    let spread =
        means.iter().copied().fold(f64::MIN, f64::max) - means.iter().copied().fold(f64::MAX, f64::min);
    spread / (2 * means.len().saturating_sub(1).max(1)) as f64
}

/// The hidden state at the steered site, at the end of the prompt, under steering.
fn steered_state(evaluation: &Evaluation, steered: &Steered, number: usize) -> Result<Vec<f32>> {
    let trial = &steered.trials[steered.chosen];
    let dialogue = &evaluation.data.dialogues[number];
    let prompt = evaluation.model.chat.tokens(dialogue, 0, evaluation.experiment.thinking)?;
    let mut hook = evaluation.hook(&steered.vector, trial.site, trial.strength()?)?;
    let mut recorder = Recorder::new(vec![trial.site], evaluation.experiment.read.tokens.clone());
    let mut chain = Chain(vec![&mut hook, &mut recorder]);
    evaluation.model.decoder.forward(&prompt, None, &[], &mut chain)?;
    Ok(recorder.finish().1.into_iter().flat_map(|(_, values)| values).collect())
}
