//! A dense matrix of activations, standardised in place, and the products of its columns or rows.
//! It knows nothing of what is fitted on it.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

use super::cholesky::Square;
use super::matmul::{Threads, column_products, product, row_products};
use super::{BLOCK, Design, Part, diagonal_inverse, mask};
use crate::probe::split::Split;

/// Features of mean 0 and deviation 1 in every column over the rows in use, and the way back to what they were.
pub struct Standardised {
    /// `[rows, width]`, all rows: those that no fit takes are only read.
    values: Array2<f32>,
    mean: Array1<f64>,
    deviation: Array1<f64>,
    /// 1 for the rows in use.
    used: Vec<f32>,
    inverse: Option<Inverse>,
}

/// An approximate inverse of `curvature · XᵀX + 1`.
enum Inverse {
    /// By `XᵀX` itself.
    Columns(Square),
    /// By `XXᵀ`, and the curvature: the other follows (Woodbury's identity).
    Rows(Square, f32),
    /// By the diagonal of `XᵀX` alone.
    Diagonal(Array1<f32>),
}

/// Widest matrix whose columns' products (or, with fewer rows than columns, whose rows' products) precondition a fit.
const FULL_WIDTH: usize = 2048;
/// A column that varies less than this share of its size, beyond rounding, does not vary.
const STILL: f64 = 1e-10;

impl Standardised {
    /// Standardises features `[rows, width]` by the rows that some fit takes, in place. A column that does not vary
    /// there becomes 0, so that no weight falls on it.
    pub fn new(mut values: Array2<f32>, splits: &[Split]) -> Standardised {
        let mut used = vec![0f32; values.nrows()];
        splits.iter().flat_map(|split| &split.fit).for_each(|&row| used[row] = 1.0);
        let (mean, deviation) = spread(values.view(), &used);
        let scale = deviation.mapv(|deviation| if deviation > 0.0 { 1.0 / deviation } else { 0.0 });
        values.axis_chunks_iter_mut(Axis(0), BLOCK).into_par_iter().for_each(|mut block| {
            for mut row in block.rows_mut() {
                for ((value, mean), scale) in row.iter_mut().zip(&mean).zip(&scale) {
                    *value = ((f64::from(*value) - mean) * scale) as f32;
                }
            }
        });
        let deviation = deviation.mapv(|deviation| if deviation > 0.0 { deviation } else { 1.0 });
        Standardised { values, mean, deviation, used, inverse: None }
    }

    /// The part that a split's fit rows are, standardised by those rows alone.
    pub fn part(&self, split: &Split) -> Part {
        let mask = mask(self.rows(), split);
        let (mean, deviation) = spread(self.values.view(), &mask);
        // The design's columns have deviation 1: what is left of a column here below 1e-5 is rounding.
        let scale = |deviation: &f64| if *deviation > 1e-5 { (1.0 / deviation) as f32 } else { 0.0 };
        Part {
            mask,
            rows: split.fit.len(),
            shift: mean.mapv(|mean| mean as f32),
            scale: deviation.map(scale),
        }
    }

    /// Weights and bias for the features as they were, of weights `[heads, width]` and bias `[heads]` for these.
    pub fn fold_back(&self, weight: ArrayView2<f64>, bias: ArrayView1<f64>) -> (Array2<f32>, Array1<f32>) {
        let weight = (&weight / &self.deviation).mapv(|w| w as f32);
        // From the weights as they are saved, so that their rounding does not shift the logits of the mean.
        let bias = &bias - &weight.mapv(f64::from).dot(&self.mean);
        (weight, bias.mapv(|b| b as f32))
    }

    /// `[rows, width]`.
    pub fn values(&self) -> ArrayView2<'_, f32> {
        self.values.view()
    }
}

/// Mean and deviation of every column over the rows whose mask is 1; deviation 0 where a column does not vary.
fn spread(values: ArrayView2<f32>, mask: &[f32]) -> (Array1<f64>, Array1<f64>) {
    let count = mask.iter().map(|&m| f64::from(m)).sum::<f64>().max(1.0);
    let nothing = Array1::zeros(values.ncols());
    let mean = sums(values, mask, &nothing, |value| value) / count;
    let square = sums(values, mask, &mean, |away| away * away) / count;
    let deviation = square.iter().zip(&mean).map(|(square, mean)| {
        let deviation = square.sqrt();
        if deviation <= STILL * mean.abs() { 0.0 } else { deviation }
    });
    let deviation = deviation.collect();
    (mean, deviation)
}

/// Each column's sum of what `term` makes of a value less its column's `from`, over the rows whose mask is 1: block by
/// block, added up in order.
fn sums(
    values: ArrayView2<f32>,
    mask: &[f32],
    from: &Array1<f64>,
    term: impl Fn(f64) -> f64 + Sync,
) -> Array1<f64> {
    let blocks = values.axis_chunks_iter(Axis(0), BLOCK).into_par_iter().zip(mask.par_chunks(BLOCK));
    let blocks = blocks.map(|(block, mask)| {
        let mut sums = Array1::<f64>::zeros(from.len());
        for (row, _) in block.rows().into_iter().zip(mask).filter(|(_, mask)| **mask > 0.0) {
            let sums = sums.iter_mut().zip(row).zip(from);
            sums.for_each(|((sum, &value), from)| *sum += term(f64::from(value) - from));
        }
        sums
    });
    let nothing = Array1::zeros(from.len());
    blocks.collect::<Vec<_>>().into_iter().fold(nothing, |all: Array1<f64>, sums| all + sums)
}

impl Design for Standardised {
    fn rows(&self) -> usize {
        self.values.nrows()
    }

    fn width(&self) -> usize {
        self.values.ncols()
    }

    fn forward(&self, weight: ArrayView2<f32>) -> Array2<f32> {
        let columns = weight.nrows();
        let mut logits = Array2::zeros((columns, self.rows()));
        let blocks = self.values.axis_chunks_iter(Axis(0), BLOCK).into_par_iter();
        blocks.zip(logits.axis_chunks_iter_mut(Axis(1), BLOCK)).for_each(|(block, mut logits)| {
            // Row by row first, which the product is quickest at; then turned, while it is near.
            let mut near = Array2::zeros((block.nrows(), columns));
            product(block, weight.t(), near.view_mut(), false, Threads::One);
            logits.assign(&near.t());
        });
        logits
    }

    fn backward(&self, residual: ArrayView2<f32>) -> Array2<f32> {
        let mut sums = Array2::zeros((residual.nrows(), self.width()));
        product(residual, self.values.view(), sums.view_mut(), false, Threads::All);
        sums
    }

    fn prepare(&mut self, curvature: f64) {
        let (rows, width) = self.values.dim();
        // The products are made once, and every factor after that where the one before it was.
        let square = match self.inverse.take() {
            Some(Inverse::Columns(square) | Inverse::Rows(square, _)) => Some(square),
            _ => None,
        };
        self.inverse = Some(if width <= FULL_WIDTH {
            let made = || Square::new(column_products(self.values.view(), &self.used));
            let mut square = square.unwrap_or_else(made);
            square.factor(curvature);
            Inverse::Columns(square)
        } else if rows <= FULL_WIDTH {
            let made = || Square::new(row_products(self.values.view(), &self.used));
            let mut square = square.unwrap_or_else(made);
            square.factor(curvature);
            Inverse::Rows(square, curvature as f32)
        } else {
            // Every column has mean 0 and deviation 1.
            let squares = Array1::from_elem(width, self.used.iter().sum());
            Inverse::Diagonal(diagonal_inverse(&squares, curvature))
        });
    }

    fn precondition(&self, vectors: Array2<f32>) -> Array2<f32> {
        match &self.inverse {
            None => vectors,
            Some(Inverse::Columns(square)) => square.solve(vectors),
            Some(Inverse::Rows(square, curvature)) => {
                let inner = square.solve(self.forward(vectors.view()));
                vectors - self.backward(inner.view()) * *curvature
            }
            Some(Inverse::Diagonal(scales)) => vectors * scales,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::design_matrix::tests::all;
    use ndarray::array;

    #[test]
    fn standardises_by_the_rows_in_use_and_silences_what_does_not_vary() {
        let split = Split { fit: vec![0, 1, 2], test: vec![3] };
        let features = array![[1.0, 5.1], [3.0, 5.1], [5.0, 5.1], [3.0, 900.0]];
        let design = Standardised::new(features, &[split]);
        let unit = 1.5f32.sqrt();
        let expected = array![[-unit, 0.0], [0.0, 0.0], [unit, 0.0], [0.0, 0.0]];
        assert!((&design.values - &expected).iter().all(|d| d.abs() < 1e-6), "{}", design.values);
    }

    #[test]
    fn a_part_counts_as_if_it_had_been_standardised_alone() {
        let features =
            Array2::from_shape_fn((40, 3), |(r, c)| ((r * 7 + c * 3) % 11) as f32 * 10f32.powi(c as i32));
        let split =
            Split { fit: (0..40).filter(|row| row % 4 != 0).collect(), test: (0..40).step_by(4).collect() };
        let design = Standardised::new(features.clone(), &[all(40), split.clone()]);
        let part = design.part(&split);
        let alone = Standardised::new(features.select(Axis(0), &split.fit), &[all(30)]);
        let seen = (&design.values.select(Axis(0), &split.fit) - &part.shift) * &part.scale;
        assert!((seen - &alone.values).iter().all(|d| d.abs() < 1e-5));
    }

    #[test]
    fn folded_weights_give_the_same_logits() {
        let features = Array2::from_shape_fn((6, 3), |(r, c)| {
            (((r * 7 + c * 3) % 5) as f32 + 40.0) * 10f32.powi(c as i32)
        });
        let design = Standardised::new(features.clone(), &[all(6)]);
        let (weight, bias) = (array![[0.3, -2.0, 0.7], [1.0, 0.0, -1.0]], array![0.25, -4.0]);
        let inside =
            design.forward(weight.mapv(|w: f64| w as f32).view()).reversed_axes() + &bias.mapv(|b| b as f32);
        let (weight, bias) = design.fold_back(weight.view(), bias.view());
        let outside = features.dot(&weight.t()) + &bias;
        assert!((inside - outside).iter().all(|d| d.abs() < 2e-4));
    }

    #[test]
    fn the_inverse_undoes_the_matrix() {
        let x = array![[1.0f32, 2.0, 0.0], [0.0, 1.0, -1.0], [3.0, 1.0, 1.0], [1.0, 0.0, 2.0]];
        let mut design = Standardised::new(x, &[all(4)]);
        let x = design.values.clone();
        let wanted = array![[1.0, -2.0, 3.0]];
        let undone = |design: &Standardised, curvature: f32| {
            let matrix: Array2<f32> = x.t().dot(&x) * curvature + Array2::<f32>::eye(3);
            let found = design.precondition(wanted.dot(&matrix));
            assert!((found - &wanted).iter().all(|d| d.abs() < 1e-4));
        };
        design.prepare(7.0);
        undone(&design, 7.0);
        design.prepare(0.5);
        undone(&design, 0.5);
        let mut square = Square::new(row_products(x.view(), &design.used));
        square.factor(0.5);
        design.inverse = Some(Inverse::Rows(square, 0.5));
        undone(&design, 0.5);
    }
}
