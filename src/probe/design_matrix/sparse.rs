//! Sparse binary design matrix: for each row the columns that hold a one.

use ndarray::{Array1, Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::design::{BLOCK, Design, RowSubset, diagonal_inverse, mask};
use crate::probe::split::Split;

/// A binary matrix `[rows, width]`, as a list of columns for each row: the words of each text, say.
pub struct BinaryMatrix {
    rows: Vec<Vec<u32>>,
    width: usize,
    /// Ones in each column over the rows in use: the diagonal of XᵀX.
    counts: Array1<f32>,
    /// The diagonal preconditioner of [`Design::prepare`].
    inverse: Array1<f32>,
}

impl BinaryMatrix {
    /// Takes for each row the columns with a one, each below `width` and at most once.
    pub fn new(rows: Vec<Vec<u32>>, width: usize, splits: &[Split]) -> BinaryMatrix {
        let mut used = vec![false; rows.len()];
        splits.iter().flat_map(|split| &split.fit).for_each(|&row| used[row] = true);
        let mut counts = Array1::zeros(width);
        let in_use = rows.iter().zip(used).filter(|(_, used)| *used).flat_map(|(row, _)| row);
        in_use.for_each(|&column| counts[column as usize] += 1.0);
        BinaryMatrix { rows, width, counts, inverse: Array1::ones(width) }
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

impl Design for BinaryMatrix {
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
                for &word in row {
                    let weights = &by_word[word as usize * columns..][..columns];
                    sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
                }
                logits.iter_mut().zip(&sums).for_each(|(logit, sum)| *logit = *sum);
            }
        });
        logits
    }

    fn backward(&self, residual: ArrayView2<f32>) -> Array2<f32> {
        let columns = residual.nrows();
        let mut sums = vec![0f64; self.width * columns];
        for (row, residual) in self.rows.iter().zip(residual.columns()) {
            let residual = residual.to_vec();
            for &word in row {
                let sums = &mut sums[word as usize * columns..][..columns];
                sums.iter_mut().zip(&residual).for_each(|(sum, residual)| *sum += f64::from(*residual));
            }
        }
        Array2::from_shape_fn((columns, self.width), |(column, word)| sums[word * columns + column] as f32)
    }

    fn prepare(&mut self, curvature: f64) {
        self.inverse = diagonal_inverse(&self.counts, curvature);
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
        let sparse = BinaryMatrix::new(vec![vec![0, 2], vec![], vec![1, 2]], 3, &[split]);
        let dense = array![[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]];
        let weight = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
        let residual = array![[1.0, 7.0, -1.0], [0.5, 7.0, 2.0]];
        assert_eq!(sparse.forward(weight.view()), weight.dot(&dense.t()));
        assert_eq!(sparse.backward(residual.view()), residual.dot(&dense));
    }
}
