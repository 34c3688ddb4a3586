//! The matrix that probes are fitted on, dense and standardised or sparse, and the parts of its rows that fits take.
//! It knows nothing of classes or losses: it multiplies, and says roughly how its columns lie to one another.

mod sparse;
mod matmul;
mod cholesky;
mod dense;

pub(crate) use cholesky::solve_definite;
pub(crate) use dense::Standardised;
pub(crate) use matmul::column_products;
pub(crate) use sparse::Presence;

use ndarray::{Array1, Array2, ArrayView2};

use crate::probe::split::Split;

/// Rows that a thread takes at once: they stay near it while they are used.
const BLOCK: usize = 256;

/// What the solver needs of a matrix `[rows, width]`. Numbers are f32: sums over rows lose about 1e-7 of their size, far
/// less than a fit's tolerance, and twice as many fit into a register.
pub(crate) trait Design: Sync {
    fn rows(&self) -> usize;

    fn width(&self) -> usize;

    /// `weight · Xᵀ`, `[columns, rows]`, of weights `[columns, width]`.
    fn forward(&self, weight: ArrayView2<f32>) -> Array2<f32>;

    /// `residual · X`, `[columns, width]`, of residuals `[columns, rows]`.
    fn backward(&self, residual: ArrayView2<f32>) -> Array2<f32>;

    /// Makes ready an approximate inverse of `curvature · XᵀX + 1` over the rows in use, in place of the one before it.
    fn prepare(&mut self, curvature: f64);

    /// That inverse times `vectors`, `[count, width]`.
    fn precondition(&self, vectors: Array2<f32>) -> Array2<f32>;
}

/// The rows that one fit takes, and how its columns differ from the design's: a column counts as
/// `(column − shift) · scale` there.
pub(crate) struct Part {
    /// 1 for a row that is fitted on, 0 for the others.
    pub mask: Vec<f32>,
    pub rows: usize,
    pub shift: Array1<f32>,
    pub scale: Array1<f32>,
}

fn mask(rows: usize, split: &Split) -> Vec<f32> {
    let mut mask = vec![0.0; rows];
    split.fit.iter().for_each(|&row| mask[row] = 1.0);
    mask
}

/// The inverse of `curvature · squares + 1`, where a matrix has only these on its diagonal.
fn diagonal_inverse(squares: &Array1<f32>, curvature: f64) -> Array1<f32> {
    squares.mapv(|square| (1.0 / (curvature * f64::from(square) + 1.0)) as f32)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// All rows to fit on, none to test.
    pub(crate) fn all(rows: usize) -> Split {
        Split { fit: (0..rows).collect(), test: Vec::new() }
    }
}
