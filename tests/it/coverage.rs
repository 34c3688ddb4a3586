//! Coverage of every kind of interval on data whose truth is known: at least 92 % where 95 % is said, over sizes, prevalences and
//! separations, at the edge too. `PEARL_COVERAGE_DRAWS=5000 cargo test --release coverage` draws more.

use pearlpoint::stats::{
    CalibrationGap, Interval, Linearised, Ranking, Units, bootstrap, calibration_gap,
    debiased_calibration_error, normal_cdf, student_t,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;

/// Draws a setting: 400 put a standard error of 1.1 points on 95 %.
fn draws() -> usize {
    std::env::var("PEARL_COVERAGE_DRAWS").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

fn normal(random: &mut StdRng) -> f64 {
    random.sample(StandardNormal)
}

/// Asserts that intervals of this truth cover it often enough: 92 %, less two standard errors of the simulation.
fn covers(setting: &str, truth: f64, mut interval: impl FnMut(u64) -> Option<Interval>) {
    let found: Vec<Interval> = (0..draws() as u64).filter_map(&mut interval).collect();
    let covered = found.iter().filter(|one| one.low <= truth && truth <= one.high).count();
    let share = covered as f64 / found.len() as f64;
    let slack = 2.0 * (0.92 * 0.08 / found.len() as f64).sqrt();
    if std::env::var("PEARL_COVERAGE_DRAWS").is_ok() {
        let width = found.iter().map(|one| one.high - one.low).sum::<f64>() / found.len() as f64;
        println!("{setting}: {:.1} %, width {width:.4}", 100.0 * share);
    }
    assert!(share >= 0.92 - slack, "{setting}: {covered} of {}", found.len());
    assert!(found.iter().all(|one| one.low <= one.value && one.value <= one.high), "{setting}");
}

/// The difference of means at which two normal scores, one of unit deviation, have this AUROC.
fn apart(area: f64, deviation: f64) -> f64 {
    let (mut low, mut high) = (0.0, 8.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if normal_cdf(middle) < area { low = middle } else { high = middle }
    }
    low * (1.0 + deviation * deviation).sqrt()
}

#[test]
fn intervals_of_auroc_cover_at_every_size_prevalence_and_separation() {
    for (rows, prevalence) in [(30, 0.5), (60, 0.1), (60, 0.5), (300, 0.1), (300, 0.7)] {
        for area in [0.6, 0.9, 0.98, 0.997, 0.9995] {
            for deviation in [0.5, 1.0, 2.0] {
                let positives = ((rows as f64 * prevalence) as usize).max(5);
                let shift = apart(area, deviation);
                let units = Units::rows(rows);
                covers(
                    &format!("{rows} rows, {positives} positive, AUROC {area}, deviation {deviation}"),
                    area,
                    |seed| {
                        let mut random = StdRng::seed_from_u64(seed);
                        let positive: Vec<bool> = (0..rows).map(|row| row < positives).collect();
                        let score = |is: &bool| {
                            if *is { shift + deviation * normal(&mut random) } else { normal(&mut random) }
                        };
                        let scores: Vec<f64> = positive.iter().map(score).collect();
                        Some(Ranking::new(&scores, &positive)?.linearised_auroc()?.interval(&units))
                    },
                );
            }
        }
    }
}

#[test]
fn intervals_over_groups_cover_where_groups_differ() {
    for (groups, size, prevalence) in [
        (3, 30, 0.5),
        (5, 30, 0.5),
        (5, 150, 0.5),
        (5, 150, 0.05),
        (5, 150, 0.9),
        (12, 40, 0.5),
        (12, 40, 0.1),
    ] {
        for (effect, offset) in [(0.0, 0.0), (0.5, 0.5)] {
            for area in [0.7, 0.9, 0.98, 0.998] {
                let variance: f64 = 2.0 + effect * effect + 2.0 * offset * offset;
                let shift = apart(area, (variance - 1.0).sqrt());
                let of: Vec<usize> = (0..groups * size).map(|row| row / size).collect();
                let units = Units::groups(&of);
                let setting = format!(
                    "{groups} groups of {size}, {prevalence} positive, effect {effect}, offset {offset}, AUROC {area}"
                );
                covers(&setting, area, |seed| {
                    let mut random = StdRng::seed_from_u64(seed);
                    let effects: Vec<[f64; 2]> = (0..groups)
                        .map(|_| [effect * normal(&mut random), offset * normal(&mut random)])
                        .collect();
                    let positive: Vec<bool> = of.iter().map(|_| random.random_bool(prevalence)).collect();
                    let score = |(row, is): (usize, &bool)| {
                        let [effect, offset] = effects[of[row]];
                        offset + normal(&mut random) + if *is { shift + effect } else { 0.0 }
                    };
                    let scores: Vec<f64> = positive.iter().enumerate().map(score).collect();
                    Some(Ranking::new(&scores, &positive)?.linearised_auroc()?.interval(&units))
                });
            }
        }
    }
}

#[test]
fn intervals_of_a_share_over_groups_cover() {
    for (groups, size) in [(4, 25), (8, 60), (30, 10)] {
        for share in [0.6, 0.9, 0.99] {
            let of: Vec<usize> = (0..groups * size).map(|row| row / size).collect();
            let units = Units::groups(&of);
            covers(&format!("{groups} groups of {size}, share {share}"), share, |seed| {
                let mut random = StdRng::seed_from_u64(seed);
                // Beta-binomial by a mixture: a group is at the share, or half as far from 1, or half again as far.
                let far = 1.0 - share;
                let own: Vec<f64> =
                    (0..groups).map(|_| 1.0 - far * [0.5, 1.0, 1.5][random.random_range(0..3)]).collect();
                let right: Vec<f64> =
                    of.iter().map(|&group| f64::from(random.random::<f64>() < own[group])).collect();
                Some(Linearised::mean(&right)?.interval(&units))
            });
        }
    }
}

#[test]
fn intervals_of_a_paired_difference_cover_at_the_edge_too() {
    for (first, second) in [(0.7, 0.7), (0.9, 0.8), (0.999, 0.97), (0.9995, 0.9995)] {
        for shared in [0.0, 0.8] {
            let (rows, units) = (120, Units::rows(120));
            let shifts = [apart(first, 1.0), apart(second, 1.0)];
            covers(&format!("AUROC {first} and {second}, {shared} shared"), first - second, |seed| {
                let mut random = StdRng::seed_from_u64(seed);
                let positive: Vec<bool> = (0..rows).map(|row| row % 3 == 0).collect();
                let (mut one, mut other) = (Vec::new(), Vec::new());
                for &is in &positive {
                    let common: f64 = shared * normal(&mut random);
                    let mut own = || common + (1.0 - shared * shared).sqrt() * normal(&mut random);
                    one.push(own() + if is { shifts[0] } else { 0.0 });
                    other.push(own() + if is { shifts[1] } else { 0.0 });
                }
                let area = |scores: &[f64]| Ranking::new(scores, &positive)?.linearised_auroc();
                Some(area(&one)?.minus(&area(&other)?, &units))
            });
        }
    }
}

/// Confidences of a forecast, and how often it is right at each.
type Forecast = (&'static str, fn(f64) -> f64, fn(f64) -> f64);

#[test]
fn intervals_of_the_calibration_error_cover_and_reach_0_for_a_calibrated_forecast() {
    let spread = |u: f64| 0.5 + 0.5 * u;
    let sure = |u: f64| 1.0 - 0.01 * u;
    let forecasts: [Forecast; 6] = [
        ("calibrated", spread, |p| p),
        ("calibrated and sure", sure, |p| p),
        ("sure, and right throughout", sure, |_| 1.0),
        ("a little overconfident", spread, |p| p - 0.05),
        ("overconfident", spread, |p| 0.5 + (p - 0.5) * 0.5),
        ("underconfident in the middle", spread, |p| (p + 0.4 * (p - 0.5) * (1.0 - p) * 4.0).min(1.0)),
    ];
    const BINS: usize = 15;
    for (name, confidence, right) in forecasts {
        // The binned error of a forecast without noise: a fine grid of equal parts of the draws.
        let mut gaps = [0.0; BINS];
        for part in 0..20_000 {
            let p = confidence((part as f64 + 0.5) / 20_000.0);
            let bin = ((p * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
            gaps[bin] += (right(p) - p) / 20_000.0;
        }
        let truth: f64 = gaps.iter().map(|gap: &f64| gap.abs()).sum();
        for rows in [60, 250, 1000] {
            let units = Units::rows(rows);
            covers(
                &format!("{name}, {rows} rows, {truth:.4}"),
                if truth < 1e-9 { 0.0 } else { truth },
                |seed| {
                    let mut random = StdRng::seed_from_u64(seed);
                    let row = |_| {
                        let p = confidence(random.random());
                        let is = random.random::<f64>() < right(p);
                        let (bin, gap) =
                            calibration_gap(ndarray::array![1.0 - p, p].view(), usize::from(is), BINS);
                        vec![CalibrationGap { bin, gap, variance: p * (1.0 - p) }]
                    };
                    let rows: Vec<Vec<CalibrationGap>> = (0..rows).map(row).collect();
                    debiased_calibration_error(&rows, BINS, &units, 200, seed)
                },
            );
        }
    }
}

#[test]
fn bootstrap_intervals_of_a_mean_cover_with_few_units() {
    for units in [3, 6, 10, 15, 40] {
        covers(&format!("mean of {units} units"), 0.0, |seed| {
            let mut random = StdRng::seed_from_u64(seed);
            let values: Vec<f64> = (0..units).map(|_| normal(&mut random)).collect();
            let rows: Vec<Vec<usize>> = (0..units).map(|row| vec![row]).collect();
            bootstrap(&rows, 400, seed, |rows| {
                Some(rows.iter().map(|&row| values[row]).sum::<f64>() / rows.len() as f64)
            })
        });
    }
    assert!(student_t(4) > 2.7);
}
