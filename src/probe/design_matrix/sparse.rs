//! Sparse design matrix: for each row the columns that are not 0, with their values.

use ndarray::{Array1, Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::design::{BLOCK, Design, RowSubset, diagonal_inverse, mask};
use crate::probe::split::Split;

/// Parts of the rows that a gradient is summed over.
const PARTS: usize = 4;

/// A matrix `[rows, width]`, as a list of columns and values for each row: the words of each text, say.
pub struct SparseMatrix {
    rows: Vec<Vec<(u32, f32)>>,
    width: usize,
    /// Sums of squares of each column over the rows in use: the diagonal of XᵀX.
    squares: Array1<f32>,
    /// The diagonal preconditioner of [`Design::prepare`].
    inverse: Array1<f32>,
}

impl SparseMatrix {
    /// A matrix of zeros and ones: for each row the columns with a one, each below `width` and at most once.
    pub fn binary(rows: Vec<Vec<u32>>, width: usize, splits: &[Split]) -> SparseMatrix {
        let rows = rows.into_iter().map(|row| row.into_iter().map(|column| (column, 1.0)).collect());
        SparseMatrix::new(rows.collect(), width, splits)
    }

    /// Takes for each row columns and values, each column below `width` and at most once.
    pub fn new(rows: Vec<Vec<(u32, f32)>>, width: usize, splits: &[Split]) -> SparseMatrix {
        let mut used = vec![false; rows.len()];
        splits.iter().flat_map(|split| &split.fit).for_each(|&row| used[row] = true);
        let mut squares = Array1::zeros(width);
        let in_use = rows.iter().zip(used).filter(|(_, used)| *used).flat_map(|(row, _)| row);
        in_use.for_each(|&(column, value)| squares[column as usize] += value * value);
        SparseMatrix { rows, width, squares, inverse: Array1::ones(width) }
    }

    /// A split's fit rows, with weight on these columns alone.
    pub fn subset(&self, split: &Split, columns: &[u32]) -> RowSubset {
        let mut scale = Array1::zeros(self.width);
        columns.iter().for_each(|&column| scale[column as usize] = 1.0);
        RowSubset {
            mask: mask(self.rows.len(), split),
            rows: split.fit.len(),
            shift: Array1::zeros(self.width),
            scale,
        }
    }
}

impl Design for SparseMatrix {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn forward(&self, weight: ArrayView2<f32>) -> Array2<f32> {
        // Transposed, so that each one of a row reads one contiguous run of weights. Slices, because ndarray's views cost
        // more than so short a sum.
        let columns = weight.nrows();
        let by_word: Vec<f32> = weight.t().iter().copied().collect();
        let mut logits = Array2::zeros((columns, self.rows.len()));
        let blocks = self.rows.par_chunks(BLOCK).zip(logits.axis_chunks_iter_mut(Axis(1), BLOCK));
        blocks.for_each(|(rows, mut logits)| {
            let mut sums = vec![0f32; columns];
            for (row, mut logits) in rows.iter().zip(logits.columns_mut()) {
                sums.fill(0.0);
                for &(word, value) in row {
                    let weights = &by_word[word as usize * columns..][..columns];
                    sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += value * weight);
                }
                logits.iter_mut().zip(&sums).for_each(|(logit, sum)| *logit = *sum);
            }
        });
        logits
    }

    fn backward(&self, residual: ArrayView2<f32>) -> Array2<f32> {
        let columns = residual.nrows();
        // A few parts whatever the number of threads, so that the sums are the same on any.
        let parts = self.rows.len().div_ceil(PARTS).max(1);
        let blocks = self.rows.par_chunks(parts).zip(residual.axis_chunks_iter(Axis(1), parts));
        let sums = blocks.map(|(rows, residual)| {
            let mut sums = vec![0f64; self.width * columns];
            for (row, residual) in rows.iter().zip(residual.columns()) {
                let residual: Vec<f64> = residual.iter().map(|&value| f64::from(value)).collect();
                for &(word, value) in row {
                    let sums = &mut sums[word as usize * columns..][..columns];
                    let value = f64::from(value);
                    sums.iter_mut().zip(&residual).for_each(|(sum, residual)| *sum += value * residual);
                }
            }
            sums
        });
        let mut sums = sums.collect::<Vec<_>>().into_iter();
        let mut total = sums.next().unwrap_or_else(|| vec![0.0; self.width * columns]);
        sums.for_each(|part| total.iter_mut().zip(part).for_each(|(sum, part)| *sum += part));
        let sums = total;
        Array2::from_shape_fn((columns, self.width), |(column, word)| sums[word * columns + column] as f32)
    }

    fn prepare(&mut self, curvature: f64) {
        self.inverse = diagonal_inverse(&self.squares, curvature);
    }

    fn precondition(&self, vectors: Array2<f32>) -> Array2<f32> {
        vectors * &self.inverse
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::design_matrix::design::tests::all_rows;
    use ndarray::array;

    #[test]
    fn sparse_products_equal_dense_ones() {
        let split = all_rows(3);
        let sparse =
            SparseMatrix::new(vec![vec![(0, 1.0), (2, 0.5)], vec![], vec![(1, 1.0), (2, 1.0)]], 3, &[split]);
        let dense = array![[1.0, 0.0, 0.5], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]];
        let weight = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
        let residual = array![[1.0, 7.0, -1.0], [0.5, 7.0, 2.0]];
        assert_eq!(sparse.forward(weight.view()), weight.dot(&dense.t()));
        assert_eq!(sparse.backward(residual.view()), residual.dot(&dense));
    }
}
