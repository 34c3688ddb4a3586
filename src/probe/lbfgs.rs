//! L-BFGS: minimises a smooth convex function from its values and gradients.
//! It knows nothing of what is minimised, nor of what its preconditioner approximates.

/// What is to be minimised.
pub(super) struct Problem<Value, Precondition, Done> {
    /// Gives the value at a point, and writes the gradient there.
    pub value: Value,
    /// Multiplies a vector by an approximate inverse of the Hessian, in place.
    pub precondition: Precondition,
    /// Whether a point with this value and gradient is good enough.
    pub done: Done,
}

/// Steps that are remembered, and steps that are taken at most.
const MEMORY: usize = 20;
const STEPS: usize = 1000;

/// The minimum, from `start`, and whether it was reached: whether `done` holds there, or f64 gets no nearer.
///
/// Two-loop recursion (Nocedal & Wright, algorithm 7.4) with the preconditioner, scaled to the last step, as initial
/// inverse Hessian, and a bisecting line search to the weak Wolfe conditions (Lewis & Overton 2013), which hold on
/// every convex function after finitely many halvings.
pub(super) fn minimise<V, P, D>(problem: &mut Problem<V, P, D>, start: Vec<f64>) -> (Vec<f64>, bool)
where
    V: FnMut(&[f64], &mut [f64]) -> f64,
    P: FnMut(&mut [f64]),
    D: FnMut(f64, &[f64]) -> bool,
{
    let mut point = start;
    let mut gradient = vec![0.0; point.len()];
    let mut value = (problem.value)(&point, &mut gradient);
    let mut steps: Vec<Step> = Vec::new();
    for _ in 0..STEPS {
        if (problem.done)(value, &gradient) {
            return (point, true);
        }
        let direction = descend(&gradient, &steps, &mut problem.precondition);
        let slope = dot(&gradient, &direction);
        let Some((next, next_value, next_gradient)) = search(problem, &point, value, slope, &direction)
        else {
            // On a convex function no step along the direction lowers the value only where rounding hides it: this is
            // as near as f64 gets.
            return (point, value.is_finite());
        };
        let moved: Vec<f64> = next.iter().zip(&point).map(|(a, b)| a - b).collect();
        let change: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        let curvature = dot(&moved, &change);
        if curvature > f64::MIN_POSITIVE {
            if steps.len() == MEMORY {
                steps.remove(0);
            }
            steps.push(Step { moved, change, curvature });
        }
        (point, value, gradient) = (next, next_value, next_gradient);
    }
    (point, false)
}

struct Step {
    moved: Vec<f64>,
    change: Vec<f64>,
    curvature: f64,
}

fn descend(gradient: &[f64], steps: &[Step], precondition: &mut impl FnMut(&mut [f64])) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut shares = Vec::with_capacity(steps.len());
    for step in steps.iter().rev() {
        let share = dot(&step.moved, &direction) / step.curvature;
        add(&mut direction, -share, &step.change);
        shares.push(share);
    }
    precondition(&mut direction);
    if let Some(last) = steps.last() {
        let mut change = last.change.clone();
        precondition(&mut change);
        let scale = last.curvature / dot(&last.change, &change);
        direction.iter_mut().for_each(|d| *d *= scale);
    }
    for (step, share) in steps.iter().zip(shares.into_iter().rev()) {
        let back = share - dot(&step.change, &direction) / step.curvature;
        add(&mut direction, back, &step.moved);
    }
    direction
}

type Found = (Vec<f64>, f64, Vec<f64>);

fn search<V, P, D>(
    problem: &mut Problem<V, P, D>,
    point: &[f64],
    value: f64,
    slope: f64,
    direction: &[f64],
) -> Option<Found>
where
    V: FnMut(&[f64], &mut [f64]) -> f64,
{
    let (mut low, mut high, mut length) = (0.0, f64::INFINITY, 1.0);
    for _ in 0..50 {
        let next: Vec<f64> = point.iter().zip(direction).map(|(p, d)| p + length * d).collect();
        let mut gradient = vec![0.0; point.len()];
        let next_value = (problem.value)(&next, &mut gradient);
        // Also false where the value is NaN or infinite, so that such a step is shortened.
        let lower = next_value <= value + 1e-4 * length * slope;
        if !lower {
            high = length;
        } else if dot(&gradient, direction) < 0.9 * slope {
            low = length;
        } else {
            return Some((next, next_value, gradient));
        }
        length = if high.is_finite() { (low + high) / 2.0 } else { 2.0 * low };
    }
    None
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    ndarray::ArrayView1::from(a).dot(&ndarray::ArrayView1::from(b))
}

fn add(to: &mut [f64], scale: f64, from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += scale * from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_minimum_of_a_crooked_valley() {
        // A convex relative of Rosenbrock's: f = (x − 1)⁴ + 100 (y − 2x)² + exp(z) − z has its minimum at (1, 2, 0).
        let mut problem = Problem {
            value: |p: &[f64], g: &mut [f64]| {
                let (a, b) = (p[0] - 1.0, p[1] - 2.0 * p[0]);
                g.copy_from_slice(&[4.0 * a.powi(3) - 400.0 * b, 200.0 * b, p[2].exp() - 1.0]);
                a.powi(4) + 100.0 * b * b + p[2].exp() - p[2]
            },
            precondition: |_: &mut [f64]| (),
            done: |_, g: &[f64]| g.iter().all(|g| g.abs() < 1e-7),
        };
        let (point, done) = minimise(&mut problem, vec![-3.0, 7.0, 5.0]);
        assert!(done);
        assert!((point[0] - 1.0).abs() < 5e-3 && (point[1] - 2.0).abs() < 1e-2 && point[2].abs() < 1e-6);
    }

    #[test]
    fn an_exact_preconditioner_needs_one_step_on_a_quadratic() {
        let mut asked = 0;
        let mut problem = Problem {
            value: |p: &[f64], g: &mut [f64]| {
                asked += 1;
                g.copy_from_slice(&[1e6 * (p[0] - 1.0), p[1] + 2.0]);
                0.5e6 * (p[0] - 1.0).powi(2) + 0.5 * (p[1] + 2.0).powi(2)
            },
            precondition: |d: &mut [f64]| d[0] /= 1e6,
            done: |_, g: &[f64]| g.iter().all(|g| g.abs() < 1e-9),
        };
        assert_eq!(minimise(&mut problem, vec![30.0, 40.0]), (vec![1.0, -2.0], true));
        assert_eq!(asked, 2);
    }
}
