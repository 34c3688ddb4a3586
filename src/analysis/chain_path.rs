//! Paths of refinements over the plane of the value probes: satisfaction and risk of answers after strategies drawn at random, smoothed over
//! the plane, and the states from which y0, y1, … followed.

use ndarray::{Array2, Axis};

use super::pearl_map::SitePearlMap;
use crate::activations::Readout;
use crate::boundary::{self, PearlOptions, Plane, Sample, Track};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::reasoning::answering::states;
use crate::reasoning::organism::Stated;
use crate::reasoning::{History, ValueProbes};

/// The map of the value probes' plane, with the paths of some refinements. The x axis is the direction in which answers become safe, the y
/// axis what is left of that in which they satisfy.
///
/// # Errors
/// Probes whose directions are parallel; chains that can't be written.
pub fn chain_paths(
    model: &Model,
    probes: &ValueProbes,
    refined: &[(&Dialogue, &Stated, &History)],
    seed: u64,
) -> Result<SitePearlMap> {
    let (drawn, losses) = &probes.drawn;
    let mean = drawn
        .mapv(f64::from)
        .mean_axis(Axis(0))
        .ok_or_else(|| Error::input("chain paths", "no answers", "some to draw the map from"))?;
    let [safe, satisfied] = probes.readouts().map(|readout| match readout {
        Readout::Direction(_, direction) => direction.mapv(f64::from),
        Readout::Logits(_) => mean.clone(),
    });
    let names = ["unsafe → safe", "unsatisfied → satisfied"].map(String::from);
    let plane = Plane::of_directions(mean.view(), safe.view(), satisfied.view(), names)?;
    let feet = plane.project(drawn.view())?;
    let samples: Vec<Sample> = feet
        .rows()
        .into_iter()
        .zip(losses)
        .map(|(foot, losses)| Sample {
            x: foot[0],
            y: foot[1],
            satisfaction: 1.0 - losses.satisfaction,
            risk: losses.safety,
        })
        .collect();
    let mut tracks = Vec::with_capacity(refined.len());
    for (dialogue, stated, history) in refined {
        let chains = std::iter::once(&history.chain).chain(history.steps.iter().map(|step| &step.chain));
        let thinking = chains.map(|chain| stated.write(chain)).collect::<Result<Vec<_>>>()?;
        let dialogues = vec![*dialogue; thinking.len()];
        let found = states(model, &dialogues, &thinking, &[probes.site])?;
        let feet: Array2<f64> = plane.project(found[0].1.view())?;
        tracks.push(Track {
            name: dialogue.id.clone(),
            places: feet.rows().into_iter().map(|foot| [foot[0], foot[1]]).collect(),
            stops: (0..thinking.len()).map(|step| format!("y{step}")).collect(),
        });
    }
    let map = boundary::pearl_map(&samples, &tracks, &PearlOptions { seed, ..PearlOptions::default() })?;
    Ok(SitePearlMap { site: probes.site, axes: plane.names, map })
}
