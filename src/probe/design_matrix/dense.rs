//! Dense design matrix: activations `[rows, width]`, standardised in place.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

use super::cholesky::SymmetricMatrix;
use super::design::{BLOCK, Design, RowSubset, diagonal_inverse, mask};
use super::matmul::{Threads, column_products, product, row_products};
use crate::probe::split::Split;

/// Features with mean 0 and deviation 1 in every column over the rows in use, and the map back to the raw features.
pub struct Standardised {
    /// `[rows, width]`, all rows, those that no fit takes too.
    values: Array2<f32>,
    mean: Array1<f64>,
    deviation: Array1<f64>,
    /// 1 for the rows in use.
    used: Vec<f32>,
    inverse: Option<Inverse>,
}

/// An approximate inverse of `curvature · XᵀX + I`.
enum Inverse {
    /// From the factor of `curvature · XᵀX + I`.
    Columns(SymmetricMatrix),
    /// From the factor of `curvature · XXᵀ + I` and the curvature, by Woodbury's identity.
    Rows(SymmetricMatrix, f32),
    /// From the diagonal of `XᵀX`.
    Diagonal(Array1<f32>),
}

/// Most columns with which `XᵀX` is the preconditioner, and most rows with which `XXᵀ` is; beyond both, the diagonal.
const FULL_WIDTH: usize = 2048;
/// A column is constant if its deviation is at most this share of its mean.
const CONSTANT: f64 = 1e-10;

impl Standardised {
    /// Standardises features `[rows, width]` in place over the rows that some split fits on. A column that is constant there
    /// becomes 0, so that it gets no weight.
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

    /// A split's fit rows, standardised over those rows alone.
    pub fn subset(&self, split: &Split) -> RowSubset {
        let mask = mask(self.rows(), split);
        let (mean, deviation) = spread(self.values.view(), &mask);
        // The design's columns have deviation 1: a deviation below 1e-5 in a subset is rounding.
        let scale = |deviation: &f64| if *deviation > 1e-5 { (1.0 / deviation) as f32 } else { 0.0 };
        RowSubset {
            mask,
            rows: split.fit.len(),
            shift: mean.mapv(|mean| mean as f32),
            scale: deviation.map(scale),
        }
    }

    /// Weights `[heads, width]` and bias `[heads]` for the raw features, from those for the standardised ones.
    pub fn fold_back(&self, weight: ArrayView2<f64>, bias: ArrayView1<f64>) -> (Array2<f32>, Array1<f32>) {
        let weight = (&weight / &self.deviation).mapv(|w| w as f32);
        // From the weights rounded to f32, so that their rounding does not shift the logits at the mean.
        let bias = &bias - &weight.mapv(f64::from).dot(&self.mean);
        (weight, bias.mapv(|b| b as f32))
    }

    /// The standardised features `[rows, width]`.
    pub fn values(&self) -> ArrayView2<'_, f32> {
        self.values.view()
    }
}

/// Mean and deviation `[width]` of the columns over the rows whose mask is 1; deviation 0 for a constant column.
fn spread(values: ArrayView2<f32>, mask: &[f32]) -> (Array1<f64>, Array1<f64>) {
    let count = mask.iter().map(|&m| f64::from(m)).sum::<f64>().max(1.0);
    let zeros = Array1::zeros(values.ncols());
    let mean = sums(values, mask, &zeros, |value| value) / count;
    let square = sums(values, mask, &mean, |away| away * away) / count;
    let deviation = square.iter().zip(&mean).map(|(square, mean)| {
        let deviation = square.sqrt();
        if deviation <= CONSTANT * mean.abs() { 0.0 } else { deviation }
    });
    let deviation = deviation.collect();
    (mean, deviation)
}

/// Column sums of `term(value − from)` over the rows whose mask is 1. Blocks are added in order, so that the sums don't
/// depend on the number of threads.
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
    let zeros = Array1::zeros(from.len());
    blocks.collect::<Vec<_>>().into_iter().fold(zeros, |all: Array1<f64>, sums| all + sums)
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
            // Row-major first, which is the faster product; transposed while the block is in cache.
            let mut row_major = Array2::zeros((block.nrows(), columns));
            product(block, weight.t(), row_major.view_mut(), false, Threads::One);
            logits.assign(&row_major.t());
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
        // The products are computed once; each factor overwrites the last one.
        let square = match self.inverse.take() {
            Some(Inverse::Columns(square) | Inverse::Rows(square, _)) => Some(square),
            _ => None,
        };
        self.inverse = Some(if width <= FULL_WIDTH {
            let products = || SymmetricMatrix::new(column_products(self.values.view(), &self.used));
            let mut square = square.unwrap_or_else(products);
            square.factor(curvature);
            Inverse::Columns(square)
        } else if rows <= FULL_WIDTH {
            let products = || SymmetricMatrix::new(row_products(self.values.view(), &self.used));
            let mut square = square.unwrap_or_else(products);
            square.factor(curvature);
            Inverse::Rows(square, curvature as f32)
        } else {
            // Each column has mean 0 and deviation 1, so that its sum of squares is the number of rows.
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
    use crate::probe::design_matrix::design::tests::all_rows;
    use ndarray::array;

    #[test]
    fn standardises_over_the_rows_in_use_and_zeroes_constant_columns() {
        let split = Split { fit: vec![0, 1, 2], test: vec![3] };
        let features = array![[1.0, 5.1], [3.0, 5.1], [5.0, 5.1], [3.0, 900.0]];
        let design = Standardised::new(features, &[split]);
        let unit = 1.5f32.sqrt();
        let expected = array![[-unit, 0.0], [0.0, 0.0], [unit, 0.0], [0.0, 0.0]];
        assert!((&design.values - &expected).iter().all(|d| d.abs() < 1e-6), "{}", design.values);
    }

    #[test]
    fn a_subset_is_standardised_as_if_alone() {
        let features =
            Array2::from_shape_fn((40, 3), |(r, c)| ((r * 7 + c * 3) % 11) as f32 * 10f32.powi(c as i32));
        let split =
            Split { fit: (0..40).filter(|row| row % 4 != 0).collect(), test: (0..40).step_by(4).collect() };
        let design = Standardised::new(features.clone(), &[all_rows(40), split.clone()]);
        let subset = design.subset(&split);
        let alone = Standardised::new(features.select(Axis(0), &split.fit), &[all_rows(30)]);
        let seen = (&design.values.select(Axis(0), &split.fit) - &subset.shift) * &subset.scale;
        assert!((seen - &alone.values).iter().all(|d| d.abs() < 1e-5));
    }

    #[test]
    fn folded_weights_give_the_same_logits() {
        let features = Array2::from_shape_fn((6, 3), |(r, c)| {
            (((r * 7 + c * 3) % 5) as f32 + 40.0) * 10f32.powi(c as i32)
        });
        let design = Standardised::new(features.clone(), &[all_rows(6)]);
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
        let mut design = Standardised::new(x, &[all_rows(4)]);
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
        let mut square = SymmetricMatrix::new(row_products(x.view(), &design.used));
        square.factor(0.5);
        design.inverse = Some(Inverse::Rows(square, 0.5));
        undone(&design, 0.5);
    }
}
