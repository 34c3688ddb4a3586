//! Batched L-BFGS: many L2-penalised fits on one design matrix, minimised side by side.
//!
//! A design matrix X `[rows, width]` and problems (a loss, a class for each row, a subset of the rows) go in; weights
//! `[heads, width]` and biases come out. Each iteration multiplies X with the directions of all problems at once.

use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use crate::probe::design_matrix::{Design, RowSubset};
use crate::probe::loss::{Loss, Truth};

/// One fit: minimises `C · Σ loss + ½ ‖weight‖²` over the subset's rows; biases have no penalty.
pub(super) struct Problem<'a> {
    pub loss: Loss,
    /// `[rows]`, of all rows of the design.
    pub classes: &'a [u32],
    /// The rows to fit on.
    pub subset: &'a RowSubset,
}

/// The optimum of a problem, in the columns of the design.
pub(super) struct Solution {
    /// `[heads, width]`.
    pub weight: Array2<f64>,
    /// One per head; with [`Loss::Ordinal`] one per level below the highest.
    pub bias: Array1<f64>,
    /// `weight · x + bias` of every row, `[rows, biases]`.
    pub logits: Array2<f64>,
    /// The objective, above its minimum by at most the tolerance times itself.
    #[cfg_attr(not(test), expect(dead_code, reason = "the parity tests compare it"))]
    pub objective: f64,
}

/// Steps in the L-BFGS memory.
const MEMORY: usize = 12;
/// Iterations at most.
const ITERATIONS: usize = 1000;
/// Evaluations of a line search at most.
const EVALUATIONS: usize = 60;
/// The line search ends where the slope has fallen to this share of the initial one (strong Wolfe curvature condition).
const CURVATURE_CONDITION: f64 = 0.3;

/// The found and expected parts of an input error; the caller adds the place.
pub(super) type Refusal = (String, &'static str);

/// The optimum of each problem at each of `strengths` (values of C), `[strength][problem]`. Ascending strengths are fastest:
/// each starts from the optimum of the last.
///
/// L-BFGS (Nocedal & Wright, Numerical Optimization, algorithm 7.4) whose initial inverse Hessian approximates
/// `(C · curvature · XᵀX + I)⁻¹`, with the mean curvature of the losses. An iteration costs two products with X: one for the
/// logits along the direction, on which the line search then runs alone, and one for the gradient.
///
/// The objective f is 1-strongly convex in the weights, so that f − min f ≤ ½ ‖∇f‖². A problem has converged when that
/// bound, with the bias gradients scaled by their approximate curvature, is at most `tolerance · f`.
pub(super) fn solve(
    design: &mut impl Design,
    problems: &[Problem],
    strengths: &[f64],
    tolerance: f64,
) -> Result<Vec<Vec<Solution>>, Refusal> {
    let mut runs: Vec<Run> = problems.iter().map(|problem| Run::new(problem, &*design)).collect();
    let mut all = Vec::with_capacity(strengths.len());
    for &strength in strengths {
        if !(strength.is_finite() && strength > 0.0) {
            return Err((format!("inverse penalty C = {strength}"), "a number above 0"));
        }
        minimise(design, &mut runs, strength, tolerance)?;
        all.push(runs.par_iter().map(|run| run.solution()).collect());
    }
    Ok(all)
}

/// Minimises all problems at one strength.
fn minimise(
    design: &mut impl Design,
    runs: &mut [Run],
    strength: f64,
    tolerance: f64,
) -> Result<(), Refusal> {
    // Logits are recomputed, so that the rounding errors of many steps don't accumulate.
    let mut active: Vec<&mut Run> = runs.iter_mut().collect();
    let weights = stack(&active, |run| run.weight.mapv(|w| w as f32));
    let logits = logits_of(&*design, &active, weights);
    for (run, logits) in active.iter_mut().zip(logits) {
        run.begin(logits, strength);
    }
    let curvature =
        active.iter().map(|run| run.curvature * run.row_share()).sum::<f64>() / active.len().max(1) as f64;
    design.prepare(curvature);
    let design = &*design;
    gradients(design, &mut active);
    for _ in 0..ITERATIONS {
        active.retain(|run| !run.has_converged(tolerance));
        if active.is_empty() {
            return Ok(());
        }
        let directions = directions(design, &mut active);
        let along = logits_of(design, &active, directions);
        active.par_iter_mut().zip(along).for_each(|(run, along)| run.line_search(along));
        gradients(design, &mut active);
        if let Some(stalled) = active.iter().find(|run| run.is_stalled && !run.is_acceptable()) {
            return Err(stalled.not_converged());
        }
        active.retain(|run| !run.is_stalled);
    }
    match active.iter().find(|run| !run.is_acceptable()) {
        Some(run) => Err(run.not_converged()),
        None => Ok(()),
    }
}

/// A matrix `[heads, width]` of each run, concatenated to `[all heads, width]`.
fn stack(runs: &[&mut Run], matrix: impl Fn(&Run) -> Array2<f32> + Sync) -> Array2<f32> {
    let parts: Vec<Array2<f32>> = runs.par_iter().map(|run| matrix(run)).collect();
    let views: Vec<ArrayView2<f32>> = parts.iter().map(|part| part.view()).collect();
    // All have the design's width, so that they concatenate.
    ndarray::concatenate(Axis(0), &views).unwrap_or_default()
}

/// Logits without biases, `[heads · rows]` for each run, of stacked weights `[all heads, width]`.
fn logits_of(design: &impl Design, runs: &[&mut Run], mut weights: Array2<f32>) -> Vec<Vec<f32>> {
    let mut shifts = Vec::with_capacity(weights.nrows());
    let mut row = 0;
    for run in runs {
        for _ in 0..run.heads() {
            let mut weight = weights.row_mut(row);
            weight *= &run.subset().scale;
            shifts.push(weight.dot(&run.subset().shift));
            row += 1;
        }
    }
    let mut logits = design.forward(weights.view());
    logits
        .axis_iter_mut(Axis(0))
        .zip(&shifts)
        .filter(|(_, shift)| **shift != 0.0)
        .for_each(|(mut own, shift)| own -= *shift);
    let mut logits = logits.into_raw_vec_and_offset().0;
    let mut parts = Vec::with_capacity(runs.len());
    for run in runs.iter().rev() {
        parts.push(logits.split_off(logits.len() - run.heads() * design.rows()));
    }
    parts.reverse();
    parts
}

/// Updates each run's gradient from its residuals.
fn gradients(design: &impl Design, runs: &mut [&mut Run]) {
    let rows = design.rows();
    let mut residuals = Vec::new();
    runs.iter().for_each(|run| residuals.extend_from_slice(&run.residual));
    let Ok(residuals) = Array2::from_shape_vec((residuals.len() / rows.max(1), rows), residuals) else {
        return;
    };
    let sums = design.backward(residuals.view());
    let mut begin = 0;
    for run in runs {
        let heads = run.heads();
        run.update_gradient(sums.slice(s![begin..begin + heads, ..]));
        begin += heads;
    }
}

/// Each run's next direction in its weights, stacked to `[all heads, width]`; a run keeps that of its biases.
fn directions(design: &impl Design, runs: &mut [&mut Run]) -> Array2<f32> {
    runs.par_iter_mut().for_each(|run| run.two_loop_backward());
    let directions = stack(runs, |run| run.direction.mapv(|d| d as f32));
    let changes = stack(runs, |run| match run.steps.last() {
        Some(step) => step.change.clone(),
        None => Array2::zeros(run.weight.dim()),
    });
    let count = directions.nrows();
    // Both have the design's width, so that they concatenate.
    let both = ndarray::concatenate(Axis(0), &[directions.view(), changes.view()]).unwrap_or_default();
    let both = design.precondition(both);
    let mut begin = 0;
    for run in &mut *runs {
        let heads = run.heads();
        let direction = both.slice(s![begin..begin + heads, ..]);
        run.two_loop_forward(direction, both.slice(s![count + begin..count + begin + heads, ..]));
        begin += heads;
    }
    stack(runs, |run| run.direction.mapv(|d| d as f32))
}

/// A step of the memory: the move s of the parameters and the change y of the gradient over it.
struct Step {
    /// s, in the weights `[heads, width]` and in the biases.
    moved: Array2<f32>,
    moved_bias: Vec<f64>,
    /// y, in the weights and in the biases.
    change: Array2<f32>,
    change_bias: Vec<f64>,
    /// sᵀy, above 0.
    curvature: f64,
}

/// The state of one problem's minimisation.
struct Run<'a> {
    problem: &'a Problem<'a>,
    strength: f64,
    rows: usize,
    /// `[heads, width]`, in the subset's own columns.
    weight: Array2<f64>,
    bias: Vec<f64>,
    gradient: Array2<f64>,
    bias_gradient: Vec<f64>,
    direction: Array2<f64>,
    bias_direction: Vec<f64>,
    /// `[heads · rows]`, without biases.
    logits: Vec<f32>,
    /// `[heads · rows]`: derivative of the loss in each logit.
    residual: Vec<f32>,
    /// The objective.
    value: f64,
    /// C times the mean second derivative of the loss in a logit.
    curvature: f64,
    steps: Vec<Step>,
    /// The last step in weights and in biases, before its change of gradient is known, and the bias gradient before it.
    pending: Option<(Array2<f64>, Vec<f64>, Vec<f64>)>,
    /// Whether no step lowers the objective any more.
    is_stalled: bool,
    /// The coefficients α of the two-loop recursion.
    alphas: Vec<f64>,
}

impl<'a> Run<'a> {
    fn new(problem: &'a Problem<'a>, design: &impl Design) -> Run<'a> {
        let shape = (problem.loss.heads(), design.width());
        let biases = problem.loss.biases();
        Run {
            problem,
            strength: 1.0,
            rows: design.rows(),
            weight: Array2::zeros(shape),
            bias: problem.loss.first_biases(),
            gradient: Array2::zeros(shape),
            bias_gradient: vec![0.0; biases],
            direction: Array2::zeros(shape),
            bias_direction: vec![0.0; biases],
            logits: Vec::new(),
            residual: vec![0.0; shape.0 * design.rows()],
            value: f64::INFINITY,
            curvature: 1.0,
            steps: Vec::new(),
            pending: None,
            is_stalled: false,
            alphas: Vec::new(),
        }
    }

    fn heads(&self) -> usize {
        self.problem.loss.heads()
    }

    fn subset(&self) -> &'a RowSubset {
        self.problem.subset
    }

    /// Share of the design's rows that are fitted on.
    fn row_share(&self) -> f64 {
        self.subset().rows as f64 / self.rows.max(1) as f64
    }

    fn truth(&self) -> Truth<'a> {
        Truth { classes: self.problem.classes, mask: &self.subset().mask }
    }

    /// Starts at the current weights with their logits, at a new strength.
    fn begin(&mut self, logits: Vec<f32>, strength: f64) {
        (self.logits, self.strength) = (logits, strength);
        (self.is_stalled, self.pending) = (false, None);
        self.steps.clear();
        let mut residual = std::mem::take(&mut self.residual);
        let value = self.problem.loss.value(self.truth(), &self.logits, &self.bias, &mut residual);
        self.curvature = strength * self.problem.loss.curvature(self.truth(), &residual).max(1e-4);
        self.residual = residual;
        self.bias_gradient = value.bias.iter().map(|g| g * strength).collect();
        self.value = strength * value.loss + square(&self.weight) / 2.0;
    }

    /// Approximate second derivative of the objective in a bias.
    fn bias_curvature(&self) -> f64 {
        self.curvature * self.subset().rows as f64
    }

    /// Bound on the objective's distance to its minimum; see [`solve`].
    fn gap(&self) -> f64 {
        let bias: f64 = self.bias_gradient.iter().map(|g| g * g).sum();
        (square(&self.gradient) + bias / self.bias_curvature()) / 2.0
    }

    fn has_converged(&self, tolerance: f64) -> bool {
        self.gap() <= tolerance * self.value
    }

    /// Whether the point is as good as sums in f32 allow.
    fn is_acceptable(&self) -> bool {
        self.has_converged(1e-5)
    }

    fn not_converged(&self) -> Refusal {
        let found = format!("no optimum found at C = {}", self.strength);
        (found, "a smaller C, or features of a smaller range")
    }

    /// Sets the gradient from the products of residuals and columns, `[heads, width]`, and adds the pending step to the
    /// memory.
    fn update_gradient(&mut self, sums: ArrayView2<f32>) {
        let subset = self.subset();
        let before = std::mem::take(&mut self.gradient);
        let mut gradient = self.weight.clone();
        for (head, (mut gradient, sums)) in gradient.rows_mut().into_iter().zip(sums.rows()).enumerate() {
            let residuals: f64 =
                self.residual[head * self.rows..][..self.rows].iter().map(|&r| f64::from(r)).sum();
            let columns = gradient.iter_mut().zip(sums).zip(subset.shift.iter().zip(&subset.scale));
            for ((gradient, sum), (shift, scale)) in columns {
                *gradient +=
                    self.strength * (f64::from(*sum) - f64::from(*shift) * residuals) * f64::from(*scale);
            }
        }
        self.gradient = gradient;
        let Some((moved, moved_bias, bias_before)) = self.pending.take() else { return };
        let change = &self.gradient - &before;
        let change_bias: Vec<f64> =
            self.bias_gradient.iter().zip(&bias_before).map(|(now, before)| now - before).collect();
        let curvature = (&moved * &change).sum() + dot(&moved_bias, &change_bias);
        if curvature > f64::MIN_POSITIVE {
            if self.steps.len() == MEMORY {
                self.steps.remove(0);
            }
            let round = |values: Array2<f64>| values.mapv(|v| v as f32);
            self.steps.push(Step {
                moved: round(moved),
                moved_bias,
                change: round(change),
                change_bias,
                curvature,
            });
        }
    }

    /// The first loop of the two-loop recursion, from the last step to the first.
    fn two_loop_backward(&mut self) {
        self.direction = -&self.gradient;
        self.bias_direction = self.bias_gradient.iter().map(|g| -g).collect();
        self.alphas.clear();
        for step in self.steps.iter().rev() {
            let alpha = (dot_mixed(&step.moved, &self.direction)
                + dot(&step.moved_bias, &self.bias_direction))
                / step.curvature;
            add_mixed(&mut self.direction, -alpha, &step.change);
            add(&mut self.bias_direction, -alpha, &step.change_bias);
            self.alphas.push(alpha);
        }
    }

    /// The second loop, from the preconditioned direction and the preconditioned last change of the gradient, which scales
    /// the initial inverse Hessian (Nocedal & Wright, equation 7.20).
    fn two_loop_forward(&mut self, direction: ArrayView2<f32>, change: ArrayView2<f32>) {
        self.direction = direction.mapv(f64::from);
        let curvature = self.bias_curvature();
        self.bias_direction.iter_mut().for_each(|d| *d /= curvature);
        if let Some(last) = self.steps.last() {
            let bias: f64 = last.change_bias.iter().map(|c| c * c / curvature).sum();
            let scale = last.curvature / (dot_mixed(&last.change, &change.mapv(f64::from)) + bias);
            if scale.is_finite() && scale > 0.0 {
                self.direction *= scale;
                self.bias_direction.iter_mut().for_each(|d| *d *= scale);
            }
        }
        for (step, alpha) in self.steps.iter().zip(self.alphas.iter().rev()) {
            let coefficient = alpha
                - (dot_mixed(&step.change, &self.direction) + dot(&step.change_bias, &self.bias_direction))
                    / step.curvature;
            add_mixed(&mut self.direction, coefficient, &step.moved);
            add(&mut self.bias_direction, coefficient, &step.moved_bias);
        }
    }

    /// Line search along the direction, whose logits are `along`, to the curvature condition on the slope. By convexity the
    /// objective is then lower; near the minimum slopes are accurate where differences of values are lost in rounding.
    fn line_search(&mut self, along: Vec<f32>) {
        let (weight_step, square_step) = ((&self.weight * &self.direction).sum(), square(&self.direction));
        let slope = (&self.gradient * &self.direction).sum() + dot(&self.bias_gradient, &self.bias_direction);
        if slope >= 0.0 || !slope.is_finite() {
            // No descent direction: retry without the memory; if that fails too, rounding is the limit.
            self.is_stalled = self.steps.is_empty();
            self.steps.clear();
            return;
        }
        let mut logits = vec![0f32; self.logits.len()];
        let mut residual = vec![0f32; self.residual.len()];
        // The bracket, as (length, slope): the longest step with a negative slope and the shortest with a positive one.
        let (mut low, mut high) = ((0.0, slope), None::<(f64, f64)>);
        let mut step = 1f32;
        for _ in 0..EVALUATIONS {
            let length = f64::from(step);
            let moved = logits.iter_mut().zip(&self.logits).zip(&along);
            moved.for_each(|((to, from), along)| *to = from + step * along);
            let bias = self.bias.iter().zip(&self.bias_direction).map(|(b, d)| b + length * d);
            let bias: Vec<f64> = bias.collect();
            let value = self.problem.loss.value(self.truth(), &logits, &bias, &mut residual);
            let loss_slope = residual.iter().zip(&along).map(|(r, a)| f64::from(*r) * f64::from(*a));
            let loss_slope = loss_slope.sum::<f64>() + dot(&value.bias, &self.bias_direction);
            let here = self.strength * loss_slope + weight_step + length * square_step;
            let penalty = square(&self.weight) + length * (2.0 * weight_step + length * square_step);
            let total = self.strength * value.loss + penalty / 2.0;
            let is_finite = total.is_finite() && here.is_finite();
            if is_finite && here.abs() <= CURVATURE_CONDITION * slope.abs() {
                let moved = &self.direction * length;
                let moved_bias = self.bias_direction.iter().map(|d| d * length).collect();
                self.weight += &moved;
                let now = value.bias.iter().map(|g| g * self.strength).collect();
                let before = std::mem::replace(&mut self.bias_gradient, now);
                self.pending = Some((moved, moved_bias, before));
                (self.bias, self.logits, self.residual, self.value) = (bias, logits, residual, total);
                return;
            }
            match is_finite && here < 0.0 {
                true => low = (length, here),
                false => high = Some((length, if is_finite { here } else { f64::INFINITY })),
            }
            step = next_length(low, high, slope) as f32;
        }
        self.is_stalled = self.steps.is_empty();
        self.steps.clear();
    }

    fn solution(&self) -> Solution {
        let subset = self.subset();
        let weight = &self.weight * &subset.scale.mapv(f64::from);
        let heads = self.heads();
        let shifts: Vec<f64> =
            weight.rows().into_iter().map(|row| row.dot(&subset.shift.mapv(f64::from))).collect();
        let mut bias = Array1::from(self.bias.clone());
        if let Loss::Softmax(_) = self.problem.loss {
            // Only differences between the heads matter; their mean is set to 0.
            bias -= bias.mean().unwrap_or(0.0);
        }
        let head = |k: usize| if heads == 1 { 0 } else { k };
        let logits = Array2::from_shape_fn((self.rows, bias.len()), |(row, k)| {
            f64::from(self.logits[head(k) * self.rows + row]) + bias[k]
        });
        let bias = bias.iter().enumerate().map(|(k, bias)| bias - shifts[head(k)]).collect();
        Solution { weight, bias, logits, objective: self.value }
    }
}

/// The next step length: the zero of the secant through two slopes, kept inside the bracket. `first` is the slope at 0.
fn next_length(low: (f64, f64), high: Option<(f64, f64)>, first: f64) -> f64 {
    let Some((far, up)) = high else {
        let guess = low.0 * first / (first - low.1);
        return if guess > 1.5 * low.0 { guess.min(10.0 * low.0) } else { 2.0 * low.0 };
    };
    let reach = far - low.0;
    let guess = low.0 - low.1 * reach / (up - low.1);
    match up.is_finite() {
        true => guess.clamp(low.0 + 0.05 * reach, far - 0.05 * reach),
        false => low.0 + reach / 2.0,
    }
}

fn square(values: &Array2<f64>) -> f64 {
    values.iter().map(|v| v * v).sum()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn dot_mixed(a: &Array2<f32>, b: &Array2<f64>) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * b).sum()
}

fn add(to: &mut [f64], scale: f64, from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += scale * from);
}

fn add_mixed(to: &mut Array2<f64>, scale: f64, from: &Array2<f32>) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += scale * f64::from(*from));
}
