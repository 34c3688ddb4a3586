//! Platt scaling: slope and offset of a logistic regression on one logit, by Newton's method.

use ndarray::ArrayView1;

/// Newton iterations at most; convergence takes about ten.
const ITERATIONS: usize = 100;
/// Converged where no component of the mean gradient exceeds this.
const TOLERANCE: f64 = 1e-12;
/// Ridge that keeps the Hessian positive definite in rounding (Lin, Lin & Weng 2007, section 3).
const RIDGE: f64 = 1e-12;

/// The slope a and offset b that minimise Σ −t log p − (1 − t) log(1 − p), p = 1 / (1 + exp(−(a · logit + b))), over rows
/// with targets t = (n₊ + 1)/(n₊ + 2) for the n₊ positives and 1/(n₋ + 2) for the n₋ negatives (Platt 1999, "Probabilistic
/// outputs for support vector machines"). `None` where the logits do not vary.
///
/// Damped Newton iteration on the two parameters with backtracking (Lin, Lin & Weng 2007, "A note on Platt's probabilistic
/// outputs for support vector machines", algorithm 1). The targets lie inside (0, 1), so the minimum is finite even where
/// the classes are separable.
pub(super) fn slope_and_offset(logits: ArrayView1<f64>, positive: &[bool]) -> Option<(f64, f64)> {
    let deviation = logits.std(0.0);
    if !deviation.is_finite() || deviation == 0.0 {
        return None;
    }
    let positives = positive.iter().filter(|&&is| is).count() as f64;
    let negatives = positive.len() as f64 - positives;
    let (high, low) = ((positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0));
    // Scaled to deviation 1, so that both parameters are of one size.
    let rows: Vec<(f64, f64)> =
        logits.iter().zip(positive).map(|(z, &is)| (z / deviation, if is { high } else { low })).collect();
    let mut point = [0.0, ((positives + 1.0) / (negatives + 1.0)).ln()];
    let mut here = Loss::at(&rows, point);
    for _ in 0..ITERATIONS {
        if here.largest_gradient() <= TOLERANCE * rows.len() as f64 {
            break;
        }
        let Some((next, loss)) = here.newton_step(&rows, point) else { break };
        (point, here) = (next, loss);
    }
    Some((point[0] / deviation, point[1]))
}

/// The log loss at a slope and offset, with its derivatives.
struct Loss {
    value: f64,
    gradient: [f64; 2],
    /// ∂²/∂a², ∂²/∂a∂b, ∂²/∂b².
    hessian: [f64; 3],
}

impl Loss {
    fn at(rows: &[(f64, f64)], [slope, offset]: [f64; 2]) -> Loss {
        let mut loss = Loss { value: 0.0, gradient: [0.0; 2], hessian: [RIDGE, 0.0, RIDGE] };
        for &(z, target) in rows {
            let logit = slope * z + offset;
            let small = (-logit.abs()).exp();
            loss.value += small.ln_1p() + logit.max(0.0) - target * logit;
            let residual = if logit >= 0.0 { 1.0 } else { small } / (1.0 + small) - target;
            let curvature = small / (1.0 + small).powi(2);
            loss.gradient[0] += residual * z;
            loss.gradient[1] += residual;
            loss.hessian[0] += curvature * z * z;
            loss.hessian[1] += curvature * z;
            loss.hessian[2] += curvature;
        }
        loss
    }

    fn largest_gradient(&self) -> f64 {
        self.gradient[0].abs().max(self.gradient[1].abs())
    }

    /// The next point and its loss: the Newton step, halved until the loss falls enough (Armijo). `None` where no step
    /// lowers the loss beyond rounding.
    fn newton_step(&self, rows: &[(f64, f64)], point: [f64; 2]) -> Option<([f64; 2], Loss)> {
        let ([ga, gb], [haa, hab, hbb]) = (self.gradient, self.hessian);
        let determinant = haa * hbb - hab * hab;
        let step = [-(hbb * ga - hab * gb) / determinant, -(haa * gb - hab * ga) / determinant];
        let slope = ga * step[0] + gb * step[1];
        let mut length = 1.0;
        while length >= 1e-10 {
            let next = [point[0] + length * step[0], point[1] + length * step[1]];
            let loss = Loss::at(rows, next);
            // Both are false where the value is NaN.
            let lower = loss.value < self.value + 1e-4 * length * slope;
            // Near the minimum rounding hides the decrease of the loss, and the gradient still shows it.
            let flatter = -slope <= 1e-9 * self.value && loss.largest_gradient() < self.largest_gradient();
            if lower || flatter {
                return Some((next, loss));
            }
            length /= 2.0;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array1;

    #[test]
    fn agrees_with_a_reference_minimum() {
        // Gradient descent in f64 until the gradient was below 1e-14.
        let logits = Array1::from(vec![-3.0, -1.5, -0.5, 0.25, 0.75, 1.0, 2.5, 4.0]);
        let positive = [false, false, true, false, true, false, true, true];
        let (slope, offset) = slope_and_offset(logits.view(), &positive).unwrap();
        assert!(
            (slope - 0.457_704_534_261_284_2).abs() < 1e-10
                && (offset + 0.195_621_385_773_233_2).abs() < 1e-10,
            "{slope} {offset}"
        );
    }

    #[test]
    fn separable_and_one_sided_rows_have_a_finite_minimum() {
        let logits = Array1::from(vec![-1e3, -2.0, 3.0, 1e6]);
        for positive in [[false, false, true, true], [true; 4], [false; 4], [true, true, false, false]] {
            let (slope, offset) = slope_and_offset(logits.view(), &positive).unwrap();
            assert!(slope.is_finite() && offset.is_finite(), "{slope} {offset}");
        }
        assert_eq!(slope_and_offset(Array1::zeros(4).view(), &[true, false, true, false]), None);
    }
}
