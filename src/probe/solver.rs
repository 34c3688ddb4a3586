//! Many fits on one matrix, brought to their optima side by side: the products of all of them are one product.
//! It knows nothing of labels or splits; each fit is a loss, the truth of the rows, and the part of the rows that it takes.

use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use crate::probe::design_matrix::{Design, Part};
use crate::probe::loss::{Loss, Truth};

/// One fit: minimises `C · Σ loss + ½ ‖weight‖²` over the part's rows; biases have no penalty.
pub(super) struct Problem<'a> {
    pub loss: Loss,
    /// Class of each row, of all rows of the design.
    pub classes: &'a [u32],
    pub part: &'a Part,
}

/// Where a fit ended, in the design's own columns.
pub(super) struct Solution {
    /// `[heads, width]`.
    pub weight: Array2<f64>,
    /// One a head; for several levels, one each below the highest.
    pub bias: Array1<f64>,
    /// `weight · x + bias` of every row, `[rows, biases]`.
    pub logits: Array2<f64>,
    /// The objective's value: above the least by at most the tolerance times it.
    #[cfg_attr(not(test), expect(dead_code, reason = "what the optimum is checked by"))]
    pub objective: f64,
}

/// Steps that a search remembers, and steps that it takes at most.
const MEMORY: usize = 12;
const STEPS: usize = 1000;
/// A step ends where the slope along it is this share of what it was.
const FLAT: f64 = 0.3;

/// What was found and what would be right; the caller knows the place.
pub(super) type Refusal = (String, &'static str);

/// The optimum of each problem at each of `strengths` (C, ascending is quickest: each starts where the one before it
/// ended). Gives `[strength][problem]`.
///
/// L-BFGS (Nocedal & Wright, algorithm 7.4) with an inverse of C · curvature · XᵀX + 1 as its first guess of the inverse
/// Hessian, curvature being the losses' mean. A step costs one product with the matrix for the logits along it, whose
/// length is then found on the logits alone, and one for the gradient. The penalty alone has curvature 1, so that the
/// objective is above its least value by at most ½ ‖gradient‖² (its duality gap): that is what ends a search.
pub(super) fn solve(
    design: &mut impl Design,
    problems: &[Problem],
    strengths: &[f64],
    tolerance: f64,
) -> Result<Vec<Vec<Solution>>, Refusal> {
    let mut searches: Vec<Search> = problems.iter().map(|problem| Search::new(problem, &*design)).collect();
    let mut all = Vec::with_capacity(strengths.len());
    for &strength in strengths {
        if !(strength.is_finite() && strength > 0.0) {
            return Err((format!("inverse penalty C = {strength}"), "a number above 0"));
        }
        descend(design, &mut searches, strength, tolerance)?;
        all.push(searches.par_iter().map(|search| search.solution()).collect());
    }
    Ok(all)
}

/// Brings all searches to the optimum at one strength.
fn descend(
    design: &mut impl Design,
    searches: &mut [Search],
    strength: f64,
    tolerance: f64,
) -> Result<(), Refusal> {
    // Logits anew, so that the rounding of many steps does not add up.
    let mut active: Vec<&mut Search> = searches.iter_mut().collect();
    let weights = stack(&active, |search| search.weight.mapv(|w| w as f32));
    let logits = read(&*design, &active, weights);
    for (search, logits) in active.iter_mut().zip(logits) {
        search.begin(logits, strength);
    }
    let curvature = active.iter().map(|search| search.curvature * search.share()).sum::<f64>()
        / active.len().max(1) as f64;
    design.prepare(curvature);
    let design = &*design;
    gradients(design, &mut active);
    for _ in 0..STEPS {
        active.retain(|search| !search.done(tolerance));
        if active.is_empty() {
            return Ok(());
        }
        let directions = directions(design, &mut active);
        let along = read(design, &active, directions);
        active.par_iter_mut().zip(along).for_each(|(search, along)| search.step(along));
        gradients(design, &mut active);
        if let Some(stuck) = active.iter().find(|search| search.stuck && !search.near()) {
            return Err(stuck.lost());
        }
        active.retain(|search| !search.stuck);
    }
    match active.iter().find(|search| !search.near()) {
        Some(search) => Err(search.lost()),
        None => Ok(()),
    }
}

/// The searches' weights or directions below one another, `[all heads, width]`.
fn stack(searches: &[&mut Search], of: impl Fn(&Search) -> Array2<f32> + Sync) -> Array2<f32> {
    let parts: Vec<Array2<f32>> = searches.par_iter().map(|search| of(search)).collect();
    let views: Vec<ArrayView2<f32>> = parts.iter().map(|part| part.view()).collect();
    // All are as wide as the design.
    ndarray::concatenate(Axis(0), &views).unwrap_or_default()
}

/// Logits without biases of stacked weights, `[heads · rows]` a search.
fn read(design: &impl Design, searches: &[&mut Search], mut weights: Array2<f32>) -> Vec<Vec<f32>> {
    let mut shifts = Vec::with_capacity(weights.nrows());
    let mut row = 0;
    for search in searches {
        for _ in 0..search.heads() {
            let mut weight = weights.row_mut(row);
            weight *= &search.part().scale;
            shifts.push(weight.dot(&search.part().shift));
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
    let mut parts = Vec::with_capacity(searches.len());
    for search in searches.iter().rev() {
        parts.push(logits.split_off(logits.len() - search.heads() * design.rows()));
    }
    parts.reverse();
    parts
}

/// Each search's gradient from its residuals.
fn gradients(design: &impl Design, searches: &mut [&mut Search]) {
    let rows = design.rows();
    let mut residuals = Vec::new();
    searches.iter().for_each(|search| residuals.extend_from_slice(&search.residual));
    let Ok(residuals) = Array2::from_shape_vec((residuals.len() / rows.max(1), rows), residuals) else {
        return;
    };
    let sums = design.backward(residuals.view());
    let mut begin = 0;
    for search in searches {
        let heads = search.heads();
        search.gather(sums.slice(s![begin..begin + heads, ..]));
        begin += heads;
    }
}

/// Each search's next direction in its weights, stacked; that of the biases it keeps itself.
fn directions(design: &impl Design, searches: &mut [&mut Search]) -> Array2<f32> {
    searches.par_iter_mut().for_each(|search| search.look_back());
    let asked = stack(searches, |search| search.direction.mapv(|d| d as f32));
    let changes = stack(searches, |search| match search.steps.last() {
        Some(step) => step.change.clone(),
        None => Array2::zeros(search.weight.dim()),
    });
    let count = asked.nrows();
    let both = ndarray::concatenate(Axis(0), &[asked.view(), changes.view()]).unwrap_or_default();
    let both = design.precondition(both);
    let mut begin = 0;
    for search in &mut *searches {
        let heads = search.heads();
        let asked = both.slice(s![begin..begin + heads, ..]);
        search.look_on(asked, both.slice(s![count + begin..count + begin + heads, ..]));
        begin += heads;
    }
    stack(searches, |search| search.direction.mapv(|d| d as f32))
}

/// A step that was taken, and how the gradient changed over it; in weights and in biases.
struct Step {
    moved: Array2<f32>,
    moved_bias: Vec<f64>,
    change: Array2<f32>,
    change_bias: Vec<f64>,
    curvature: f64,
}

/// One problem's way to its optimum.
struct Search<'a> {
    problem: &'a Problem<'a>,
    strength: f64,
    rows: usize,
    /// `[heads, width]`, in the part's own columns.
    weight: Array2<f64>,
    bias: Vec<f64>,
    gradient: Array2<f64>,
    bias_gradient: Vec<f64>,
    direction: Array2<f64>,
    bias_direction: Vec<f64>,
    /// Without biases, `[heads · rows]`, and what each row pulls on them.
    logits: Vec<f32>,
    residual: Vec<f32>,
    value: f64,
    /// C times how much the loss bends in a logit.
    curvature: f64,
    steps: Vec<Step>,
    /// A step in weights and in biases whose change of gradient is still to come, and the biases' gradient before it.
    pending: Option<(Array2<f64>, Vec<f64>, Vec<f64>)>,
    stuck: bool,
    shares: Vec<f64>,
}

impl<'a> Search<'a> {
    fn new(problem: &'a Problem<'a>, design: &impl Design) -> Search<'a> {
        let shape = (problem.loss.heads(), design.width());
        let biases = problem.loss.biases();
        Search {
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
            stuck: false,
            shares: Vec::new(),
        }
    }

    fn heads(&self) -> usize {
        self.problem.loss.heads()
    }

    fn part(&self) -> &'a Part {
        self.problem.part
    }

    /// Share of the rows that are fitted on.
    fn share(&self) -> f64 {
        self.part().rows as f64 / self.rows.max(1) as f64
    }

    fn truth(&self) -> Truth<'a> {
        Truth { classes: self.problem.classes, mask: &self.part().mask }
    }

    fn begin(&mut self, logits: Vec<f32>, strength: f64) {
        (self.logits, self.strength) = (logits, strength);
        (self.stuck, self.pending) = (false, None);
        self.steps.clear();
        let mut residual = std::mem::take(&mut self.residual);
        let value = self.problem.loss.value(self.truth(), &self.logits, &self.bias, &mut residual);
        self.curvature = strength * self.problem.loss.curvature(self.truth(), &residual).max(1e-4);
        self.residual = residual;
        self.bias_gradient = value.bias.iter().map(|g| g * strength).collect();
        self.value = strength * value.loss + square(&self.weight) / 2.0;
    }

    /// About how much the objective bends in a bias.
    fn bias_curvature(&self) -> f64 {
        self.curvature * self.part().rows as f64
    }

    fn gap(&self) -> f64 {
        let bias: f64 = self.bias_gradient.iter().map(|g| g * g).sum();
        (square(&self.gradient) + bias / self.bias_curvature()) / 2.0
    }

    fn done(&self, tolerance: f64) -> bool {
        self.gap() <= tolerance * self.value
    }

    /// Whether this is as good a point as f32 sums give.
    fn near(&self) -> bool {
        self.done(1e-5)
    }

    fn lost(&self) -> Refusal {
        let found = format!("no optimum found at C = {}", self.strength);
        (found, "a smaller C, or features of a smaller range")
    }

    /// The gradient, of the sums of residuals times columns, `[heads, width]`.
    fn gather(&mut self, sums: ArrayView2<f32>) {
        let part = self.part();
        let before = std::mem::take(&mut self.gradient);
        let mut gradient = self.weight.clone();
        for (head, (mut gradient, sums)) in gradient.rows_mut().into_iter().zip(sums.rows()).enumerate() {
            let residuals: f64 =
                self.residual[head * self.rows..][..self.rows].iter().map(|&r| f64::from(r)).sum();
            let columns = gradient.iter_mut().zip(sums).zip(part.shift.iter().zip(&part.scale));
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

    /// The first half of the two-loop recursion.
    fn look_back(&mut self) {
        self.direction = -&self.gradient;
        self.bias_direction = self.bias_gradient.iter().map(|g| -g).collect();
        self.shares.clear();
        for step in self.steps.iter().rev() {
            let share = (dot_mixed(&step.moved, &self.direction)
                + dot(&step.moved_bias, &self.bias_direction))
                / step.curvature;
            add_mixed(&mut self.direction, -share, &step.change);
            add(&mut self.bias_direction, -share, &step.change_bias);
            self.shares.push(share);
        }
    }

    /// The second half, from what the preconditioner makes of the first and of the last change of the gradient.
    fn look_on(&mut self, asked: ArrayView2<f32>, changed: ArrayView2<f32>) {
        self.direction = asked.mapv(f64::from);
        let bend = self.bias_curvature();
        self.bias_direction.iter_mut().for_each(|d| *d /= bend);
        if let Some(last) = self.steps.last() {
            let bias: f64 = last.change_bias.iter().map(|c| c * c / bend).sum();
            let scale = last.curvature / (dot_mixed(&last.change, &changed.mapv(f64::from)) + bias);
            if scale.is_finite() && scale > 0.0 {
                self.direction *= scale;
                self.bias_direction.iter_mut().for_each(|d| *d *= scale);
            }
        }
        for (step, share) in self.steps.iter().zip(self.shares.iter().rev()) {
            let back = share
                - (dot_mixed(&step.change, &self.direction) + dot(&step.change_bias, &self.bias_direction))
                    / step.curvature;
            add_mixed(&mut self.direction, back, &step.moved);
            add(&mut self.bias_direction, back, &step.moved_bias);
        }
    }

    /// Goes along the direction, whose logits are `along`, to where the slope has nearly gone. By convexity the value
    /// is then lower, and slopes are exact where differences of values drown in rounding.
    fn step(&mut self, along: Vec<f32>) {
        let (across, square_step) = ((&self.weight * &self.direction).sum(), square(&self.direction));
        let slope = (&self.gradient * &self.direction).sum() + dot(&self.bias_gradient, &self.bias_direction);
        if slope >= 0.0 || !slope.is_finite() {
            // No way down: once more without a memory, and then it is rounding that is in the way.
            self.stuck = self.steps.is_empty();
            self.steps.clear();
            return;
        }
        let mut logits = vec![0f32; self.logits.len()];
        let mut residual = vec![0f32; self.residual.len()];
        // The farthest place known where it still goes down, and the nearest where it goes up, each with its slope.
        let (mut low, mut high) = ((0.0, slope), None::<(f64, f64)>);
        let mut times = 1f32;
        for _ in 0..60 {
            let length = f64::from(times);
            let moved = logits.iter_mut().zip(&self.logits).zip(&along);
            moved.for_each(|((to, from), along)| *to = from + times * along);
            let bias = self.bias.iter().zip(&self.bias_direction).map(|(b, d)| b + length * d);
            let bias: Vec<f64> = bias.collect();
            let value = self.problem.loss.value(self.truth(), &logits, &bias, &mut residual);
            let pulls = residual.iter().zip(&along).map(|(r, a)| f64::from(*r) * f64::from(*a));
            let pulls = pulls.sum::<f64>() + dot(&value.bias, &self.bias_direction);
            let here = self.strength * pulls + across + length * square_step;
            let penalty = square(&self.weight) + length * (2.0 * across + length * square_step);
            let total = self.strength * value.loss + penalty / 2.0;
            let known = total.is_finite() && here.is_finite();
            if known && here.abs() <= FLAT * slope.abs() {
                let moved = &self.direction * length;
                let moved_bias = self.bias_direction.iter().map(|d| d * length).collect();
                self.weight += &moved;
                let now = value.bias.iter().map(|g| g * self.strength).collect();
                let before = std::mem::replace(&mut self.bias_gradient, now);
                self.pending = Some((moved, moved_bias, before));
                (self.bias, self.logits, self.residual, self.value) = (bias, logits, residual, total);
                return;
            }
            match known && here < 0.0 {
                true => low = (length, here),
                false => high = Some((length, if known { here } else { f64::INFINITY })),
            }
            times = between(low, high, slope) as f32;
        }
        self.stuck = self.steps.is_empty();
        self.steps.clear();
    }

    fn solution(&self) -> Solution {
        let part = self.part();
        let weight = &self.weight * &part.scale.mapv(f64::from);
        let heads = self.heads();
        let shifts: Vec<f64> =
            weight.rows().into_iter().map(|row| row.dot(&part.shift.mapv(f64::from))).collect();
        let mut bias = Array1::from(self.bias.clone());
        if let Loss::Softmax(_) = self.problem.loss {
            // Only differences between the heads count.
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

/// The next length to try: where the line through two slopes crosses zero, kept inside what is known.
fn between(low: (f64, f64), high: Option<(f64, f64)>, first: f64) -> f64 {
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
