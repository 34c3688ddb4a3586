//! Losses of linear models as functions of the logits, with their derivatives.
//!
//! Logits `[heads · rows]` and classes `[rows]` go in; the summed loss, its derivative in each logit and its gradient in the
//! biases come out.

use crate::model::compute::{exp, simd_dispatch};

/// Rows per vectorised loop.
const LANES: usize = 16;

/// A loss, summed over rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Negative log-likelihood of a binary class (0 or 1), one head.
    Logistic,
    /// Negative log-likelihood of one of this many classes under the softmax of one head each.
    Softmax(usize),
    /// Negative log-likelihood of one of this many levels under proportional odds (McCullagh 1980): one head, and the
    /// log-odds of more than level k are its logit plus bias k. Biases descend in k.
    Ordinal(usize),
    /// Half the squared distance to 1 for the row's class and −1 for the others, for this many classes; one head for two.
    Squared(usize),
}

/// The value of a loss.
pub(super) struct Value {
    /// The sum over rows.
    pub loss: f64,
    /// Its gradient in the biases.
    pub bias: Vec<f64>,
}

/// The classes of all rows, and the rows that the loss is summed over.
#[derive(Clone, Copy)]
pub(super) struct Truth<'a> {
    /// `[rows]`.
    pub classes: &'a [u32],
    /// `[rows]`: 1 for the rows of the sum, 0 for the others.
    pub mask: &'a [f32],
}

impl Loss {
    /// Number of heads.
    pub fn heads(self) -> usize {
        match self {
            Loss::Logistic | Loss::Ordinal(_) => 1,
            Loss::Softmax(classes) => classes,
            Loss::Squared(2) => 1,
            Loss::Squared(classes) => classes,
        }
    }

    /// Number of biases.
    pub fn biases(self) -> usize {
        match self {
            Loss::Ordinal(levels) => levels - 1,
            _ => self.heads(),
        }
    }

    /// Biases to start from: descending for [`Loss::Ordinal`], 0 otherwise.
    pub fn first_biases(self) -> Vec<f64> {
        let count = self.biases();
        match self {
            Loss::Ordinal(_) => (0..count).map(|k| (count as f64 - 1.0) / 2.0 - k as f64).collect(),
            _ => vec![0.0; count],
        }
    }

    /// The loss at logits `[heads · rows]` plus `bias`. Writes its derivative in each logit to `residual` `[heads · rows]`.
    /// Infinite where the ordinal biases are out of order.
    pub fn value(self, truth: Truth, logits: &[f32], bias: &[f64], residual: &mut [f32]) -> Value {
        match self {
            Loss::Logistic => simd_dispatch!(logistic(truth, logits, bias[0] as f32, residual)),
            Loss::Softmax(classes) => simd_dispatch!(softmax(classes, truth, logits, bias, residual)),
            Loss::Ordinal(_) => ordinal(truth, logits, bias, residual),
            Loss::Squared(_) => squared(truth, logits, bias, residual),
        }
    }

    /// Approximate second derivative of the loss in a logit, from the residuals: the mean over heads and rows of the sum.
    pub fn curvature(self, truth: Truth, residual: &[f32]) -> f64 {
        if let Loss::Squared(_) = self {
            return 1.0;
        }
        let heads = self.heads();
        let rows = truth.classes.len();
        let count: f64 = truth.mask.iter().map(|&m| f64::from(m)).sum();
        // A residual is p − y: |r| (1 − |r|) is p (1 − p) for either truth.
        let head_curvature = |head: usize| {
            let own = residual[head * rows..][..rows].iter();
            own.map(|r| f64::from(r.abs() * (1.0 - r.abs()).max(0.0))).sum::<f64>()
        };
        (0..heads).map(head_curvature).sum::<f64>() / (count.max(1.0) * heads as f64)
    }
}

#[inline(always)]
fn logistic(truth: Truth, logits: &[f32], bias: f32, residual: &mut [f32]) -> Value {
    let (mut linear, mut gradient) = ([0f64; LANES], [0f64; LANES]);
    // Σ log(1 + e) as the logarithm of a product of at most 512 factors up to 2, which stays within f64.
    let (mut loss, mut products) = (0.0, [1f64; LANES]);
    let whole = logits.len() / LANES * LANES;
    let chunks = |begin: usize| begin..(begin + LANES).min(logits.len());
    for (number, begin) in (0..logits.len()).step_by(LANES).enumerate() {
        let at = chunks(begin);
        let (z, y, m) = (&logits[at.clone()], &truth.classes[at.clone()], &truth.mask[at.clone()]);
        let out = &mut residual[at];
        let lanes = if begin < whole { LANES } else { logits.len() - begin };
        let mut step = |lane: usize| {
            // The logit of the wrong class: its probability keeps full precision where the row is classified surely.
            let sign = 1.0 - 2.0 * y[lane] as f32;
            let wrong = sign * (z[lane] + bias);
            let small = exp(-wrong.abs());
            let share = 1.0 / (1.0 + small);
            let p = if wrong >= 0.0 { share } else { small * share };
            let r = sign * p * m[lane];
            out[lane] = r;
            gradient[lane] += f64::from(r);
            linear[lane] += f64::from(wrong.max(0.0) * m[lane]);
            products[lane] *= 1.0 + f64::from(small * m[lane]);
        };
        if lanes == LANES {
            (0..LANES).for_each(&mut step);
        } else {
            (0..lanes).for_each(&mut step);
        }
        if number % 512 == 511 {
            loss += products.iter().map(|product| product.ln()).sum::<f64>();
            products = [1.0; LANES];
        }
    }
    loss += products.iter().map(|product| product.ln()).sum::<f64>() + linear.iter().sum::<f64>();
    Value { loss, bias: vec![gradient.iter().sum()] }
}

#[inline(always)]
fn softmax(heads: usize, truth: Truth, logits: &[f32], bias: &[f64], residual: &mut [f32]) -> Value {
    let rows = truth.classes.len();
    let bias: Vec<f32> = bias.iter().map(|&b| b as f32).collect();
    let mut gradient = vec![0f64; heads];
    let mut loss = 0.0;
    for begin in (0..rows).step_by(LANES) {
        let lanes = LANES.min(rows - begin);
        let (mut largest, mut sum, mut others, mut own) =
            ([f32::NEG_INFINITY; LANES], [0f32; LANES], [0f32; LANES], [0f32; LANES]);
        for head in 0..heads {
            let z = &logits[head * rows + begin..][..lanes];
            for lane in 0..lanes {
                largest[lane] = largest[lane].max(z[lane] + bias[head]);
            }
        }
        let (classes, mask) = (&truth.classes[begin..][..lanes], &truth.mask[begin..][..lanes]);
        for head in 0..heads {
            let z = &logits[head * rows + begin..][..lanes];
            let out = &mut residual[head * rows + begin..][..lanes];
            for lane in 0..lanes {
                let far = z[lane] + bias[head] - largest[lane];
                let e = exp(far);
                let is = classes[lane] as usize == head;
                out[lane] = e;
                sum[lane] += e;
                others[lane] += if is { 0.0 } else { e };
                own[lane] += if is { far } else { 0.0 };
            }
        }
        for head in 0..heads {
            let out = &mut residual[head * rows + begin..][..lanes];
            let mut sum_of_residuals = 0.0;
            for lane in 0..lanes {
                let is = classes[lane] as usize == head;
                // p − 1 of the row's class is minus the sum of the others, without cancellation where p is near 1.
                let up = if is { -others[lane] } else { out[lane] };
                out[lane] = up / sum[lane] * mask[lane];
                sum_of_residuals += f64::from(out[lane]);
            }
            gradient[head] += sum_of_residuals;
        }
        for lane in 0..lanes {
            loss += f64::from(mask[lane]) * (f64::from(sum[lane]).ln() - f64::from(own[lane]));
        }
    }
    Value { loss, bias: gradient }
}

fn ordinal(truth: Truth, logits: &[f32], bias: &[f64], residual: &mut [f32]) -> Value {
    let mut gradient = vec![0.0; bias.len()];
    let mut loss = 0.0;
    // P(level) = σ(A) − σ(B) = σ(A) σ(−B) (1 − exp(B − A)), with A the log-odds of more than the level below and B those of
    // more than this level.
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    for (row, (&class, &mask)) in truth.classes.iter().zip(truth.mask).enumerate() {
        residual[row] = 0.0;
        if mask == 0.0 {
            continue;
        }
        let (class, z) = (class as usize, f64::from(logits[row]));
        let below = class.checked_sub(1).map(|k| (k, z + bias[k]));
        let above = (class < bias.len()).then(|| (class, z + bias[class]));
        let mut slope = 0.0;
        if let Some((k, odds)) = below {
            loss += softplus(-odds);
            slope -= sigmoid(-odds);
            gradient[k] -= sigmoid(-odds);
        }
        if let Some((k, odds)) = above {
            loss += softplus(odds);
            slope += sigmoid(odds);
            gradient[k] += sigmoid(odds);
        }
        if let (Some((low, _)), Some((high, _))) = (below, above) {
            let gap = bias[low] - bias[high];
            if gap <= 0.0 {
                return Value { loss: f64::INFINITY, bias: gradient };
            }
            loss -= (-(-gap).exp()).ln_1p();
            let derivative = 1.0 / gap.exp_m1();
            gradient[low] -= derivative;
            gradient[high] += derivative;
        }
        residual[row] = slope as f32;
    }
    Value { loss, bias: gradient }
}

fn squared(truth: Truth, logits: &[f32], bias: &[f64], residual: &mut [f32]) -> Value {
    let rows = truth.classes.len();
    let mut gradient = vec![0.0; bias.len()];
    let mut loss = 0.0;
    for (head, gradient) in gradient.iter_mut().enumerate() {
        let own = if bias.len() == 1 { 1 } else { head };
        for row in 0..rows {
            let target = if truth.classes[row] as usize == own { 1.0 } else { -1.0 };
            let error =
                (f64::from(logits[head * rows + row]) + bias[head] - target) * f64::from(truth.mask[row]);
            loss += error * error / 2.0;
            *gradient += error;
            residual[head * rows + row] = error as f32;
        }
    }
    Value { loss, bias: gradient }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares derivatives with finite differences. Twenty rows, so that one block of lanes is full and the other is not;
    /// the last row is masked.
    fn check(loss: Loss, classes: usize, bias: &[f64]) {
        let rows = 20;
        let truth: Vec<u32> = (0..rows).map(|row| (row * 7 % classes) as u32).collect();
        let mut mask = vec![1.0; rows];
        mask[rows - 1] = 0.0;
        let truth = Truth { classes: &truth, mask: &mask };
        let heads = loss.heads();
        let logits: Vec<f32> = (0..heads * rows).map(|n| ((n * 13 % 29) as f32 - 14.0) / 4.0).collect();
        let mut residual = vec![f32::NAN; logits.len()];
        let here = loss.value(truth, &logits, bias, &mut residual);
        let at =
            |logits: &[f32], bias: &[f64]| loss.value(truth, logits, bias, &mut vec![0.0; heads * rows]).loss;
        for place in 0..logits.len() {
            let step = 0.0625;
            let moved = |by: f32| {
                let mut logits = logits.clone();
                logits[place] += by;
                at(&logits, bias)
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
            assert!(
                (slope - f64::from(residual[place])).abs() < 2e-3,
                "{loss:?} {place}: {slope} {}",
                residual[place]
            );
        }
        for place in 0..bias.len() {
            let moved = |by: f64| {
                let mut bias = bias.to_vec();
                bias[place] += by;
                at(&logits, &bias)
            };
            let slope = (moved(0.01) - moved(-0.01)) / 0.02;
            assert!(
                (slope - here.bias[place]).abs() < 2e-3,
                "{loss:?} bias {place}: {slope} {}",
                here.bias[place]
            );
        }
    }

    #[test]
    fn residuals_are_the_derivatives_of_the_loss() {
        check(Loss::Logistic, 2, &[0.3]);
        check(Loss::Softmax(3), 3, &[0.3, -0.2, 1.0]);
        check(Loss::Ordinal(4), 4, &[1.0, 0.25, -2.0]);
        check(Loss::Squared(2), 2, &[0.3]);
        check(Loss::Squared(3), 3, &[0.3, 0.1, 0.0]);
    }

    #[test]
    fn losses_by_hand() {
        let mask = [1.0, 1.0];
        let truth = Truth { classes: &[1, 0], mask: &mask };
        let mut residual = [0.0; 2];
        let two = Loss::Logistic.value(truth, &[0.0, 3.0], &[0.0], &mut residual);
        assert!((two.loss - (2f64.ln() + 3f64.exp().ln_1p())).abs() < 1e-6);
        // Beyond the range of exp: the loss is linear in the logit, and no residual is NaN.
        let sure = Loss::Logistic.value(truth, &[-1e30, 500.0], &[0.0], &mut residual);
        assert!((sure.loss / 1e30 - 1.0).abs() < 1e-6 && residual == [-1.0, 1.0]);
        // Ordinal biases out of order have no likelihood.
        let levels = Truth { classes: &[1, 0], mask: &mask };
        assert!(Loss::Ordinal(3).value(levels, &[0.0, 0.0], &[0.0, 1.0], &mut residual).loss.is_infinite());
    }
}
