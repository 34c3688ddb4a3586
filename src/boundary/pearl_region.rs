//! Confidence bounds of smoothed scores at a point of the pearl map, the best safe point by them, and the region in which it
//! lies under a bootstrap of the answers.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;

use serde::{Deserialize, Serialize};

use super::risk_map::Grid;

/// The 95 % point of the standard normal distribution, for one-sided bounds.
const Z: f64 = 1.644_853_626_951_472_7;
/// How near to the best point's lower bound of satisfaction another has to come, to be as good.
const NEAR: f64 = 0.05;
/// Kernels below this are left out: they are less than a thousandth of the least mass together.
const LEAST_KERNEL: f64 = 1e-6;

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

/// Options of the surfaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PearlOptions {
    /// Cells of the grid a side.
    pub cells: usize,
    /// Upper confidence bound of the risk up to which a point is safe.
    pub tolerance: f64,
    /// Least kernel mass of a point with a value, in samples at distance 0.
    pub least_mass: f64,
    /// Resamples of the answers, for the region.
    pub resamples: usize,
    /// Seed of the resamples.
    pub seed: u64,
}

impl Default for PearlOptions {
    fn default() -> PearlOptions {
        PearlOptions { cells: 61, tolerance: 0.1, least_mass: 3.0, resamples: 200, seed: 0 }
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
    /// One-sided lower 95 % confidence bound of the satisfaction at this point.
    pub satisfaction_low: f64,
    /// One-sided upper 95 % confidence bound of the risk at this point.
    pub risk_high: f64,
}

/// Where the pearl point lies when the answers are drawn again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PearlSpread {
    /// The middle 90 % of the resampled points, along x and along y.
    pub range: [[f64; 2]; 2],
    /// The share of the grid's extent that these take up, along x and along y.
    pub extent: [f64; 2],
    /// Share of resamples in which a point is safe.
    pub found: f64,
    /// Share of the points with a value that belong to the region.
    pub area: f64,
}

impl PearlSpread {
    /// Whether the region is small enough to be called a point: the resampled points stay within a sixth of each axis, and
    /// nine of ten resamples have one.
    pub fn is_point(&self) -> bool {
        self.extent.iter().all(|extent| *extent <= 1.0 / 6.0) && self.found >= 0.9
    }
}

/// A point of the grid with the kernels of the samples near it.
pub(super) struct Cell {
    at: [f64; 2],
    /// Number of the sample, kernel.
    near: Vec<(usize, f64)>,
}

impl Cell {
    pub(super) fn new(samples: &[Sample], at: [f64; 2], bandwidth: [f64; 2]) -> Cell {
        let kernel = |(number, sample): (usize, &Sample)| {
            let (x, y) = ((sample.x - at[0]) / bandwidth[0], (sample.y - at[1]) / bandwidth[1]);
            let kernel = (-(x * x + y * y) / 2.0).exp();
            (kernel > LEAST_KERNEL).then_some((number, kernel))
        };
        Cell { at, near: samples.iter().enumerate().filter_map(kernel).collect() }
    }

    fn mass(&self) -> f64 {
        self.near.iter().map(|(_, kernel)| kernel).sum()
    }

    /// The effective number of samples, `(Σk)² / Σk²`.
    pub(super) fn effective(&self) -> f64 {
        let square: f64 = self.near.iter().map(|(_, kernel)| kernel * kernel).sum();
        if square > 0.0 { self.mass().powi(2) / square } else { 0.0 }
    }

    /// The smoothed scores and their bounds.
    pub(super) fn bounded(&self, samples: &[Sample]) -> Pearl {
        self.weighted(samples, |_| 1.0)
    }

    /// The same, each sample counted as often as `count` says.
    fn weighted(&self, samples: &[Sample], count: impl Fn(usize) -> f64) -> Pearl {
        let (mut mass, mut square, mut satisfaction, mut risk) = (0.0, 0.0, 0.0, 0.0);
        for &(number, kernel) in &self.near {
            let weight = count(number) * kernel;
            mass += weight;
            square += weight * kernel;
            satisfaction += weight * samples[number].satisfaction;
            risk += weight * samples[number].risk;
        }
        let (satisfaction, risk) = if mass > 0.0 { (satisfaction / mass, risk / mass) } else { (0.0, 1.0) };
        let effective = if square > 0.0 { mass * mass / square } else { 0.0 };
        Pearl {
            x: self.at[0],
            y: self.at[1],
            satisfaction,
            risk,
            satisfaction_low: wilson_bounds(satisfaction, effective)[0],
            risk_high: wilson_bounds(risk, effective)[1],
        }
    }
}

/// Wilson's one-sided bounds (1927) of a mean of scores between 0 and 1, whose variance is at most that of a proportion.
fn wilson_bounds(mean: f64, count: f64) -> [f64; 2] {
    if count <= 0.0 {
        return [0.0, 1.0];
    }
    let scale = 1.0 + Z * Z / count;
    let centre = (mean + Z * Z / (2.0 * count)) / scale;
    let reach = Z / scale * ((mean * (1.0 - mean)).max(0.0) / count + Z * Z / (4.0 * count * count)).sqrt();
    [(centre - reach).max(0.0), (centre + reach).min(1.0)]
}

/// The effective number of answers with which a risk of a good deal less than `tolerance` can be shown to be within it: twice
/// what a risk of 0 needs.
pub(super) fn least_count(tolerance: f64) -> f64 {
    2.0 * Z * Z * (1.0 - tolerance) / tolerance.max(1e-9)
}

/// The best safe point of a grid, and where it lies in resamples.
pub(super) struct Chosen {
    /// For each point of the grid its scores, where enough samples are near.
    pub(super) places: Vec<Option<Pearl>>,
    /// The best safe point.
    pub(super) pearl: Option<usize>,
    /// For each point with a value, the share of resamples in which it is safe and as good as the best.
    pub(super) region: Vec<Option<f64>>,
    /// The best safe point of each resample that has one.
    picks: Vec<usize>,
    resamples: usize,
}

/// The safe point of the highest lower bound of satisfaction, of equals the one of least risk.
fn best<'a>(places: impl Iterator<Item = (usize, &'a Pearl)>, tolerance: f64) -> Option<(usize, &'a Pearl)> {
    let safe = places.filter(|(_, place)| place.risk_high <= tolerance);
    safe.reduce(|best, other| {
        let order = best.1.satisfaction_low.total_cmp(&other.1.satisfaction_low);
        if order.then(other.1.risk.total_cmp(&best.1.risk)).is_lt() { other } else { best }
    })
}

/// Bounds the scores at every point, and chooses the best, in the samples and in each resample.
pub(super) fn choose(cells: &[Cell], samples: &[Sample], options: &PearlOptions) -> Chosen {
    let places: Vec<Option<Pearl>> = cells
        .par_iter()
        .map(|cell| (cell.mass() >= options.least_mass).then(|| cell.bounded(samples)))
        .collect();
    let known: Vec<usize> = (0..cells.len()).filter(|&place| places[place].is_some()).collect();
    let listed = places.iter().enumerate().filter_map(|(number, place)| Some((number, place.as_ref()?)));
    let pearl = best(listed, options.tolerance).map(|(number, _)| number);
    let mut counts = vec![0usize; cells.len()];
    let mut picks = Vec::new();
    let resamples = if pearl.is_some() { options.resamples } else { 0 };
    for resample in 0..resamples as u64 {
        let mut rng = StdRng::seed_from_u64(options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ resample);
        let mut drawn = vec![0.0; samples.len()];
        (0..samples.len()).for_each(|_| drawn[rng.random_range(0..samples.len())] += 1.0);
        let again: Vec<Pearl> =
            known.par_iter().map(|&place| cells[place].weighted(samples, |number| drawn[number])).collect();
        let Some((pick, top)) = best(again.iter().enumerate(), options.tolerance) else { continue };
        picks.push(known[pick]);
        for (&place, scores) in known.iter().zip(&again) {
            let is_near = scores.satisfaction_low >= top.satisfaction_low - NEAR;
            counts[place] += usize::from(is_near && scores.risk_high <= options.tolerance);
        }
    }
    let share = |place: usize| places[place].map(|_| counts[place] as f64 / resamples.max(1) as f64);
    let region = (0..cells.len()).map(share).collect();
    Chosen { places, pearl, region, picks, resamples }
}

impl Chosen {
    /// How far the point moves over the resamples; none where no resample has one.
    pub(super) fn spread(&self, grid: &Grid) -> Option<PearlSpread> {
        if self.picks.is_empty() {
            return None;
        }
        let side = |axis: usize| -> [f64; 2] {
            let mut values: Vec<f64> =
                self.picks.iter().filter_map(|&pick| self.places[pick]).map(|p| [p.x, p.y][axis]).collect();
            values.sort_by(f64::total_cmp);
            let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
            [at(0.05), at(0.95)]
        };
        let range = [side(0), side(1)];
        let extent = |axis: usize| {
            let values = [&grid.x, &grid.y][axis];
            let whole = values.last().copied().unwrap_or(1.0) - values.first().copied().unwrap_or(0.0);
            (range[axis][1] - range[axis][0]) / whole
        };
        let inside = self.region.iter().flatten().filter(|share| **share >= 0.5).count();
        let known = self.region.iter().flatten().count();
        Some(PearlSpread {
            range,
            extent: [extent(0), extent(1)],
            found: self.picks.len() as f64 / self.resamples.max(1) as f64,
            area: inside as f64 / known.max(1) as f64,
        })
    }
}
