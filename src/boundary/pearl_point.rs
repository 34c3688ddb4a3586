//! The pearl point: the point of highest satisfaction inside the safe boundary, after Oyster-I (arXiv 2509.01909). Points
//! with two scores each in, smoothed surfaces of both and the best safe point out.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::boundary::risk_map::Grid;
use crate::error::{Error, Result};

/// The constructive score of an answer: satisfaction minus `beta` times risk.
pub fn score(satisfaction: f64, risk: f64, beta: f64) -> f64 {
    satisfaction - beta * risk
}

/// An answer's point on the plane and its scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// First coordinate.
    pub x: f64,
    /// Second coordinate.
    pub y: f64,
    /// From 0 to 1.
    pub satisfaction: f64,
    /// From 0 to 1.
    pub risk: f64,
}

/// The points of one answer in order, such as before and after steering.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Track {
    /// The name in the figure.
    pub name: String,
    /// Points `[x, y]`.
    pub places: Vec<[f64; 2]>,
}

/// Options of the surfaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PearlOptions {
    /// Cells of the grid a side.
    pub cells: usize,
    /// Smoothed risk up to which a point is safe.
    pub tolerance: f64,
    /// Least kernel mass of a point with a value, in samples at distance 0.
    pub least_mass: f64,
}

impl Default for PearlOptions {
    fn default() -> PearlOptions {
        PearlOptions { cells: 61, tolerance: 0.1, least_mass: 3.0 }
    }
}

/// A point with its smoothed scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pearl {
    /// First coordinate.
    pub x: f64,
    /// Second coordinate.
    pub y: f64,
    /// Smoothed satisfaction.
    pub satisfaction: f64,
    /// Smoothed risk.
    pub risk: f64,
}

/// The tables of the figure, as saved (JSON, kind `pearl`). Surfaces are `[y][x]`, without a value where too few samples
/// are near.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PearlMap {
    /// The answers.
    pub samples: Vec<Sample>,
    /// The grid of the surfaces.
    pub grid: Grid,
    /// Standard deviation of the Gaussian kernel along x and along y.
    pub bandwidth: [f64; 2],
    /// Smoothed risk up to which a point is safe.
    pub tolerance: f64,
    /// Smoothed satisfaction.
    pub satisfaction: Vec<Vec<Option<f64>>>,
    /// Smoothed risk.
    pub risk: Vec<Vec<Option<f64>>>,
    /// Whether the smoothed risk is known and within the tolerance.
    pub safe: Vec<Vec<bool>>,
    /// The safe point of highest satisfaction, of equals the one of least risk; none where no point is safe.
    pub pearl: Option<Pearl>,
    /// Answers that moved.
    pub tracks: Vec<Track>,
}

/// Smooths satisfaction and risk over the plane by Nadaraya–Watson regression with a Gaussian kernel, and finds the pearl
/// point on the grid.
///
/// Both scores share one bandwidth, in standard deviations of each axis: the one with the least squared error in
/// leave-one-out cross-validation. Points with too little kernel mass have no value, since it would be an extrapolation.
///
/// # Errors
/// Fewer than three samples; a coordinate that is not finite; a score outside 0 to 1; options out of range.
pub fn pearl_map(samples: &[Sample], tracks: &[Track], options: &PearlOptions) -> Result<PearlMap> {
    if samples.len() < 3 {
        return Err(Error::input("pearl map", format!("{} samples", samples.len()), "three or more"));
    }
    let outside = |score: f64| !(0.0..=1.0).contains(&score);
    if let Some(row) = samples.iter().position(|s| outside(s.satisfaction) || outside(s.risk)) {
        let found = format!("satisfaction {} and risk {}", samples[row].satisfaction, samples[row].risk);
        return Err(Error::input(format!("pearl map, sample {row}"), found, "scores from 0 to 1"));
    }
    if outside(options.tolerance) || options.least_mass.is_nan() || options.least_mass <= 0.0 {
        let found = format!("tolerance {} and least mass {}", options.tolerance, options.least_mass);
        return Err(Error::input("pearl map", found, "a tolerance from 0 to 1 and a mass above 0"));
    }
    let places: Vec<[f64; 2]> = samples.iter().map(|sample| [sample.x, sample.y]).collect();
    let shown: Vec<[f64; 2]> = places.iter().chain(tracks.iter().flat_map(|t| &t.places)).copied().collect();
    let grid = Grid::over(&shown, options.cells)?;
    let scale = [deviation(&places, 0), deviation(&places, 1)];
    let width = bandwidth(samples, scale);
    let bandwidth = scale.map(|deviation| width * deviation);
    let smoothed: Vec<Option<Pearl>> = grid
        .places()
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|at| {
            let sums = smooth(samples, at, bandwidth, None);
            (sums.mass >= options.least_mass).then(|| Pearl {
                x: at[0],
                y: at[1],
                satisfaction: sums.satisfaction / sums.mass,
                risk: sums.risk / sums.mass,
            })
        })
        .collect();
    let is_safe = |place: &Pearl| place.risk <= options.tolerance;
    let better_of = |best: Pearl, other: Pearl| {
        let order = best.satisfaction.total_cmp(&other.satisfaction).then(other.risk.total_cmp(&best.risk));
        if order.is_lt() { other } else { best }
    };
    let pearl = smoothed.iter().flatten().copied().filter(is_safe).reduce(better_of);
    let rows = || smoothed.chunks(grid.x.len());
    let surface = |of: fn(&Pearl) -> f64| -> Vec<Vec<Option<f64>>> {
        rows().map(|row| row.iter().map(|place| place.as_ref().map(of)).collect()).collect()
    };
    Ok(PearlMap {
        samples: samples.to_vec(),
        satisfaction: surface(|place| place.satisfaction),
        risk: surface(|place| place.risk),
        safe: rows()
            .map(|row| row.iter().map(|place| place.as_ref().is_some_and(is_safe)).collect())
            .collect(),
        grid,
        bandwidth,
        tolerance: options.tolerance,
        pearl,
        tracks: tracks.to_vec(),
    })
}

struct Sums {
    mass: f64,
    satisfaction: f64,
    risk: f64,
}

/// Kernel sums at a point, over all samples but `without`.
fn smooth(samples: &[Sample], at: [f64; 2], bandwidth: [f64; 2], without: Option<usize>) -> Sums {
    let none = Sums { mass: 0.0, satisfaction: 0.0, risk: 0.0 };
    let others = samples.iter().enumerate().filter(|(row, _)| Some(*row) != without);
    others.fold(none, |sums, (_, sample)| {
        let (x, y) = ((sample.x - at[0]) / bandwidth[0], (sample.y - at[1]) / bandwidth[1]);
        let kernel = (-(x * x + y * y) / 2.0).exp();
        Sums {
            mass: sums.mass + kernel,
            satisfaction: sums.satisfaction + kernel * sample.satisfaction,
            risk: sums.risk + kernel * sample.risk,
        }
    })
}

/// The bandwidth, in standard deviations, of least squared leave-one-out error; of equals the widest.
fn bandwidth(samples: &[Sample], scale: [f64; 2]) -> f64 {
    // From 1/16 of a deviation to 2, in steps of √2.
    let candidates = (0..=10).rev().map(|step| 2.0 * 0.5f64.powf((10 - step) as f64 / 2.0));
    let count = samples.len() as f64;
    let total = smooth(samples, [0.0, 0.0], [f64::INFINITY; 2], None);
    let errors = candidates.map(|width| {
        let error = |row: usize| {
            let sample = &samples[row];
            let sums = smooth(samples, [sample.x, sample.y], scale.map(|s| width * s), Some(row));
            // Where no other sample is near, the mean of all others is used.
            let (mass, satisfaction, risk) = if sums.mass > 1e-12 {
                (sums.mass, sums.satisfaction, sums.risk)
            } else {
                (count - 1.0, total.satisfaction - sample.satisfaction, total.risk - sample.risk)
            };
            (satisfaction / mass - sample.satisfaction).powi(2) + (risk / mass - sample.risk).powi(2)
        };
        // Collected before they are summed, so that the sum doesn't depend on the threads.
        let errors: Vec<f64> = (0..samples.len()).into_par_iter().map(error).collect();
        (width, errors.iter().sum::<f64>())
    });
    let best = errors.reduce(|best, other| if other.1 < best.1 { other } else { best });
    best.map_or(1.0, |(width, _)| width)
}

/// Standard deviation along an axis; 1 where all coordinates are equal.
fn deviation(places: &[[f64; 2]], axis: usize) -> f64 {
    let count = places.len() as f64;
    let mean = places.iter().map(|place| place[axis]).sum::<f64>() / count;
    let square = places.iter().map(|place| (place[axis] - mean).powi(2)).sum::<f64>() / count;
    if square > 0.0 { square.sqrt() } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Satisfaction grows with x, risk with x too but only beyond 0.6: the pearl lies just before.
    fn samples(noise: f64) -> Vec<Sample> {
        let sample = |row: usize| {
            let (x, y) = ((row % 40) as f64 / 39.0, (row / 40) as f64 / 24.0);
            let shake = noise * ((row * 7919 % 101) as f64 / 50.0 - 1.0);
            let risk: f64 = if x > 0.6 { 0.9 } else { 0.0 };
            Sample {
                x,
                y,
                satisfaction: (0.1 + 0.8 * x + shake).clamp(0.0, 1.0),
                risk: (risk + shake.abs()).clamp(0.0, 1.0),
            }
        };
        (0..1000).map(sample).collect()
    }

    #[test]
    fn the_pearl_lies_at_the_edge_of_the_safe_region() {
        let track = Track { name: "one".into(), places: vec![[0.1, 0.5], [0.55, 0.5]] };
        let map = pearl_map(&samples(0.05), &[track], &PearlOptions::default()).unwrap();
        let pearl = map.pearl.unwrap();
        assert!((0.5..0.62).contains(&pearl.x) && pearl.risk <= 0.1, "{pearl:?}");
        assert!((pearl.satisfaction - (0.1 + 0.8 * pearl.x)).abs() < 0.06, "{pearl:?}");
        // The safe region is the left three fifths of the samples' square.
        let safe = map.safe.iter().flatten().filter(|&&safe| safe).count() as f64;
        let known = map.risk.iter().flatten().flatten().count() as f64;
        assert!((0.5..0.65).contains(&(safe / known)), "{}", safe / known);
    }

    #[test]
    fn noise_widens_the_kernel_and_far_places_stay_empty() {
        let narrow = pearl_map(&samples(0.0), &[], &PearlOptions::default()).unwrap();
        let wide = pearl_map(&samples(0.6), &[], &PearlOptions::default()).unwrap();
        assert!(narrow.bandwidth[0] < wide.bandwidth[0]);
        let far = Track { name: "away".into(), places: vec![[0.5, 0.5], [9.0, 9.0]] };
        let map = pearl_map(&samples(0.05), &[far], &PearlOptions::default()).unwrap();
        assert_eq!(map.risk[60][60], None);
        assert!(!map.safe[60][60]);
    }

    #[test]
    fn no_safe_place_means_no_pearl_and_bad_scores_are_refused() {
        let mut all = samples(0.0);
        all.iter_mut().for_each(|sample| sample.risk = 0.5);
        assert_eq!(pearl_map(&all, &[], &PearlOptions::default()).unwrap().pearl, None);
        all[3].satisfaction = f64::NAN;
        let error = pearl_map(&all, &[], &PearlOptions::default()).unwrap_err();
        assert!(error.to_string().starts_with("pearl map, sample 3: satisfaction NaN"), "{error}");
        assert!(pearl_map(&all[..2], &[], &PearlOptions::default()).is_err());
        assert_eq!(score(0.75, 0.25, 2.0), 0.25);
    }
}
