//! The pearl point, after Oyster-I (arXiv 2509.01909): where the lower confidence bound of satisfaction is highest, among the
//! points whose risk has an upper confidence bound within the tolerance. Points with two scores each in, smoothed surfaces of
//! both with their bounds out, and the region in which the point lies when the answers are drawn again.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::boundary::pearl_region::{Cell, Pearl, PearlOptions, PearlSpread, Sample, choose, least_count};
use crate::boundary::risk_map::Grid;
use crate::error::{Error, Result};

/// The constructive score of an answer: satisfaction minus `beta` times risk.
pub fn score(satisfaction: f64, risk: f64, beta: f64) -> f64 {
    satisfaction - beta * risk
}

/// The points of one answer in order, such as before and after steering.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Track {
    /// The name in the figure.
    pub name: String,
    /// Points `[x, y]`.
    pub places: Vec<[f64; 2]>,
    /// Names of the points in the figure; empty for none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stops: Vec<String>,
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
    /// Upper confidence bound of the risk up to which a point is safe.
    pub tolerance: f64,
    /// Smoothed satisfaction.
    pub satisfaction: Vec<Vec<Option<f64>>>,
    /// Smoothed risk.
    pub risk: Vec<Vec<Option<f64>>>,
    /// One-sided lower 95 % confidence bound of the satisfaction at each point.
    pub satisfaction_low: Vec<Vec<Option<f64>>>,
    /// One-sided upper 95 % confidence bound of the risk at each point.
    pub risk_high: Vec<Vec<Option<f64>>>,
    /// Whether the upper bound of the risk is known and within the tolerance.
    pub safe: Vec<Vec<bool>>,
    /// The safe point whose satisfaction has the highest lower bound, of equals the one of least risk; none where no point is
    /// safe.
    pub pearl: Option<Pearl>,
    /// For each point, the share of resamples of the answers in which it is safe, and its lower bound of satisfaction comes
    /// within 0.05 of the best point's. The region of the pearl is where this is one half or more.
    pub region: Vec<Vec<Option<f64>>>,
    /// How far the pearl point moves when the answers are drawn again; none where no point is safe.
    pub spread: Option<PearlSpread>,
    /// Answers that moved.
    pub tracks: Vec<Track>,
}

/// Smooths satisfaction and risk over the plane by Nadaraya–Watson regression with a Gaussian kernel, bounds both at each point
/// of the grid, and finds the pearl point and its region.
///
/// Both scores share one bandwidth, in standard deviations of each axis: the one with the least squared error in
/// leave-one-out cross-validation. Points with too little kernel mass have no value, since it would be an extrapolation. The
/// bounds are of the smoothed means, one point at a time: Wilson's, with the effective number of answers `(Σk)² / Σk²`, which
/// are conservative for scores between 0 and 1. Where the point moves under a bootstrap of the answers is the region.
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
    let width = bandwidth(samples, scale, least_count(options.tolerance));
    let bandwidth = scale.map(|deviation| width * deviation);
    let cells: Vec<Cell> = grid
        .places()
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|at| Cell::new(samples, at, bandwidth))
        .collect();
    let chosen = choose(&cells, samples, options);
    let rows = || chosen.places.chunks(grid.x.len());
    let surface = |of: fn(&Pearl) -> f64| -> Vec<Vec<Option<f64>>> {
        rows().map(|row| row.iter().map(|place| place.as_ref().map(of)).collect()).collect()
    };
    let is_safe = |place: &Option<Pearl>| place.is_some_and(|place| place.risk_high <= options.tolerance);
    Ok(PearlMap {
        samples: samples.to_vec(),
        satisfaction: surface(|place| place.satisfaction),
        risk: surface(|place| place.risk),
        satisfaction_low: surface(|place| place.satisfaction_low),
        risk_high: surface(|place| place.risk_high),
        safe: rows().map(|row| row.iter().map(is_safe).collect()).collect(),
        region: chosen.region.chunks(grid.x.len()).map(<[_]>::to_vec).collect(),
        spread: chosen.spread(&grid),
        pearl: chosen.pearl.and_then(|place| chosen.places[place]),
        grid,
        bandwidth,
        tolerance: options.tolerance,
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

/// The bandwidth, in standard deviations, of least squared leave-one-out error; of equals the widest. Kernels so narrow that
/// half of the samples have fewer than `least` effective neighbours are not considered: nothing can be shown with them.
fn bandwidth(samples: &[Sample], scale: [f64; 2], least: f64) -> f64 {
    // From 2 deviations to 1/16, in steps of √2.
    let candidates = (0..=10).map(|step| 2.0 * 0.5f64.powf(f64::from(step) / 2.0));
    let is_wide = |width: &f64| {
        let effective = |sample: &Sample| {
            let cell = Cell::new(samples, [sample.x, sample.y], scale.map(|deviation| width * deviation));
            cell.effective()
        };
        let mut counts: Vec<f64> = samples.par_iter().map(effective).collect();
        counts.sort_by(f64::total_cmp);
        counts[counts.len() / 2] >= least
    };
    let count = samples.len() as f64;
    let total = smooth(samples, [0.0, 0.0], [f64::INFINITY; 2], None);
    let errors = candidates.take_while(is_wide).map(|width| {
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
    // Too few samples for any: the widest.
    best.map_or(2.0, |(width, _)| width)
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
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

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

    fn options() -> PearlOptions {
        PearlOptions { cells: 31, ..PearlOptions::default() }
    }

    #[test]
    fn the_pearl_lies_at_the_edge_of_the_safe_region() {
        let track = Track { name: "one".into(), places: vec![[0.1, 0.5], [0.55, 0.5]], stops: Vec::new() };
        let map = pearl_map(&samples(0.05), &[track], &options()).unwrap();
        let pearl = map.pearl.unwrap();
        assert!((0.4..0.62).contains(&pearl.x) && pearl.risk_high <= 0.1, "{pearl:?}");
        assert!((pearl.satisfaction - (0.1 + 0.8 * pearl.x)).abs() < 0.06, "{pearl:?}");
        assert!(pearl.satisfaction_low < pearl.satisfaction && pearl.risk < pearl.risk_high);
        // The safe region is a part of the left three fifths of the samples' square.
        let x_of = |column: usize| map.grid.x[column];
        for row in &map.safe {
            assert!(row.iter().enumerate().all(|(column, &safe)| !safe || x_of(column) < 0.62));
        }
        // Every y is as good as another: a region that is long along y, which is no point.
        let spread = map.spread.unwrap();
        assert!(spread.extent[1] > 0.3 && spread.extent[0] < 0.2 && !spread.is_point(), "{spread:?}");
    }

    #[test]
    fn a_peak_that_stays_where_it_is_is_a_point_and_a_flat_surface_is_none() {
        let at = |height: f64| -> Vec<Sample> {
            let mut all = samples(0.0);
            for sample in &mut all {
                let distance = (sample.x - 0.5).powi(2) + (sample.y - 0.5).powi(2);
                (sample.risk, sample.satisfaction) = (0.0, 0.2 + height * (-distance / 0.02).exp());
            }
            all
        };
        let peak = pearl_map(&at(0.8), &[], &options()).unwrap();
        let pearl = peak.pearl.unwrap();
        assert!((pearl.x - 0.5).abs() < 0.1 && (pearl.y - 0.5).abs() < 0.1, "{pearl:?}");
        assert!(peak.spread.unwrap().is_point(), "{:?}", peak.spread);
        let flat = pearl_map(&at(0.0), &[], &options()).unwrap();
        assert!(!flat.spread.unwrap().is_point() && flat.spread.unwrap().area > 0.5, "{:?}", flat.spread);
    }

    /// Satisfaction 0 or 1 with probability ½ everywhere, risk 0 or 1 with 0.08: whatever the draw, the lower bound at a fixed
    /// point is below ½, and the upper one above 0.08, in all but one of twenty.
    #[test]
    fn the_bounds_at_a_point_hold_as_often_as_they_promise() {
        let mut rng = StdRng::seed_from_u64(3);
        let (mut held, cases) = ([0, 0], 400);
        for _ in 0..cases {
            let all: Vec<Sample> = (0..150)
                .map(|_| Sample {
                    x: rng.random(),
                    y: rng.random(),
                    satisfaction: f64::from(u8::from(rng.random_bool(0.5))),
                    risk: f64::from(u8::from(rng.random_bool(0.08))),
                })
                .collect();
            let place = Cell::new(&all, [0.5, 0.5], [0.2, 0.2]).bounded(&all);
            held[0] += usize::from(place.satisfaction_low <= 0.5);
            held[1] += usize::from(place.risk_high >= 0.08);
        }
        let shares = held.map(|held| held as f64 / f64::from(cases));
        assert!(shares.iter().all(|share| *share >= 0.92), "{shares:?}");
    }

    #[test]
    fn noise_widens_the_kernel_and_far_places_stay_empty() {
        let narrow = pearl_map(&samples(0.0), &[], &options()).unwrap();
        let mut scrambled = samples(0.0);
        let mut rng = StdRng::seed_from_u64(4);
        for sample in &mut scrambled {
            (sample.satisfaction, sample.risk) = (rng.random(), rng.random());
        }
        let wide = pearl_map(&scrambled, &[], &options()).unwrap();
        assert!(narrow.bandwidth[0] < wide.bandwidth[0]);
        let far = Track { name: "away".into(), places: vec![[0.5, 0.5], [9.0, 9.0]], stops: Vec::new() };
        let map = pearl_map(&samples(0.05), &[far], &options()).unwrap();
        assert_eq!(map.risk[30][30], None);
        assert!(!map.safe[30][30]);
    }

    #[test]
    fn no_safe_place_means_no_pearl_and_bad_scores_are_refused() {
        let mut all = samples(0.0);
        all.iter_mut().for_each(|sample| sample.risk = 0.5);
        let map = pearl_map(&all, &[], &options()).unwrap();
        assert_eq!((map.pearl, map.spread), (None, None));
        // A mean risk of 0 of three answers shows nothing.
        let few: Vec<Sample> = samples(0.0)[..3].to_vec();
        assert_eq!(pearl_map(&few, &[], &options()).unwrap().pearl, None);
        all[3].satisfaction = f64::NAN;
        let error = pearl_map(&all, &[], &options()).unwrap_err();
        assert!(error.to_string().starts_with("pearl map, sample 3: satisfaction NaN"), "{error}");
        assert!(pearl_map(&all[..2], &[], &options()).is_err());
        assert_eq!(score(0.75, 0.25, 2.0), 0.25);
    }
}
