//! The normal and Student's t distribution, as far as 95 % intervals need them, and Wilson's bounds by their quantiles.

/// The 97.5 % point of the standard normal distribution.
pub const Z: f64 = 1.959_963_984_540_054;

/// The 97.5 % points of Student's t with 1 to 30 degrees of freedom.
const T: [f64; 30] = [
    12.706_205, 4.302_653, 3.182_446, 2.776_445, 2.570_582, 2.446_912, 2.364_624, 2.306_004, 2.262_157,
    2.228_139, 2.200_985, 2.178_813, 2.160_369, 2.144_787, 2.131_450, 2.119_905, 2.109_816, 2.100_922,
    2.093_024, 2.085_963, 2.079_614, 2.073_873, 2.068_658, 2.063_899, 2.059_539, 2.055_529, 2.051_831,
    2.048_407, 2.045_230, 2.042_272,
];

/// The 97.5 % point of Student's t with this many degrees of freedom (at least 1 is assumed): exact to six digits up to 30, by the
/// Cornish–Fisher expansion (Abramowitz & Stegun 26.7.5) beyond.
pub fn student_t(degrees: usize) -> f64 {
    match T.get(degrees.max(1) - 1) {
        Some(&point) => point,
        None => {
            let (z, n) = (Z, degrees as f64);
            let first = (z.powi(3) + z) / (4.0 * n);
            let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n);
            let third =
                (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / (384.0 * n.powi(3));
            z + first + second + third
        }
    }
}

/// P(Z ≤ z) of the standard normal distribution, to 1e-7 (Abramowitz & Stegun 7.1.26).
pub fn normal_cdf(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let series = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let tail = series.iter().fold(0.0, |sum, term| (sum + term) * t) * (-x * x).exp() / 2.0;
    if z > 0.0 { 1.0 - tail } else { tail }
}

/// Wilson's bounds of a share among this many trials, which need not be whole, with the normal or Student's quantile.
pub(super) fn wilson_bounds(share: f64, trials: f64, quantile: f64) -> (f64, f64) {
    let square = quantile * quantile;
    let scale = 1.0 + square / trials;
    let centre = (share + square / (2.0 * trials)) / scale;
    let reach = quantile / scale * (share * (1.0 - share) / trials + square / (4.0 * trials * trials)).sqrt();
    // Rounding must not move a bound off the edge, or past the share.
    let low = if share <= 0.0 { 0.0 } else { (centre - reach).clamp(0.0, share) };
    let high = if share >= 1.0 { 1.0 } else { (centre + reach).clamp(share, 1.0) };
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_as_scipy_has_them() {
        // scipy.stats.t.ppf(0.975, df), scipy.stats.norm.cdf
        for (degrees, point) in
            [(1, 12.706_205), (4, 2.776_445), (30, 2.042_272), (31, 2.039_513), (100, 1.983_972)]
        {
            assert!((student_t(degrees) - point).abs() < 2e-5, "{degrees}: {}", student_t(degrees));
        }
        assert!((student_t(1_000_000) - Z).abs() < 1e-5);
        for (z, p) in [(-2.2, 0.013_903_45), (0.0, 0.5), (1.0, 0.841_344_75), (Z, 0.975)] {
            assert!((normal_cdf(z) - p).abs() < 2e-7, "{z}: {}", normal_cdf(z));
        }
    }
}
