//! Interface between the solver and a design matrix, and the subset of rows that one fit takes.

use ndarray::{Array1, Array2, ArrayView2};

use crate::probe::split::Split;

/// Rows per block of a parallel loop: a block of activations stays in a core's cache while it is used.
pub(super) const BLOCK: usize = 256;

/// A matrix X `[rows, width]` as the solver uses it. Numbers are f32: a sum over rows has a relative error of about 1e-7,
/// far below a fit's tolerance, and twice as many fit into a vector register.
pub(crate) trait Design: Sync {
    /// Number of rows.
    fn rows(&self) -> usize;

    /// Number of columns.
    fn width(&self) -> usize;

    /// `weight · Xᵀ`, `[columns, rows]`, of weights `[columns, width]`.
    fn forward(&self, weight: ArrayView2<f32>) -> Array2<f32>;

    /// `residual · X`, `[columns, width]`, of residuals `[columns, rows]`.
    fn backward(&self, residual: ArrayView2<f32>) -> Array2<f32>;

    /// Prepares an approximate inverse of `curvature · XᵀX + I` over the rows in use, in place of the last one.
    fn prepare(&mut self, curvature: f64);

    /// That inverse times `vectors`, `[count, width]`.
    fn precondition(&self, vectors: Array2<f32>) -> Array2<f32>;
}

/// The rows that one fit takes, and its own standardisation: a column of the design counts as `(column − shift) · scale`.
pub(crate) struct RowSubset {
    /// `[rows]`: 1 for a row that is fitted on, 0 for the others.
    pub mask: Vec<f32>,
    /// Number of rows that are fitted on.
    pub rows: usize,
    /// `[width]`.
    pub shift: Array1<f32>,
    /// `[width]`; 0 for a column that gets no weight.
    pub scale: Array1<f32>,
}

/// 1 for the split's fit rows, 0 for the others.
pub(super) fn mask(rows: usize, split: &Split) -> Vec<f32> {
    let mut mask = vec![0.0; rows];
    split.fit.iter().for_each(|&row| mask[row] = 1.0);
    mask
}

/// The inverse of the diagonal of `curvature · XᵀX + I`, from the diagonal of `XᵀX`.
pub(super) fn diagonal_inverse(squares: &Array1<f32>, curvature: f64) -> Array1<f32> {
    squares.mapv(|square| (1.0 / (curvature * f64::from(square) + 1.0)) as f32)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// All rows to fit on, none to test.
    pub(crate) fn all_rows(rows: usize) -> Split {
        Split { fit: (0..rows).collect(), test: Vec::new() }
    }
}
