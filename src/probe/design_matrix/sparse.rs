//! A sparse matrix of zeros and ones: which words a text has.
//! It knows nothing of words.

use ndarray::{Array1, Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::{BLOCK, Design, Part, diagonal_inverse, mask};
use crate::probe::split::Split;

/// A matrix of zeros and ones, a list of columns a row: which words a text has.
pub struct Presence {
    rows: Vec<Vec<u32>>,
    width: usize,
    /// How many rows in use have each column.
    counts: Array1<f32>,
    /// What [`Design::prepare`] made of them.
    inverse: Array1<f32>,
}

impl Presence {
    /// Takes for each row the columns (below `width`, each at most once) that hold a one.
    pub fn new(rows: Vec<Vec<u32>>, width: usize, splits: &[Split]) -> Presence {
        let mut used = vec![false; rows.len()];
        splits.iter().flat_map(|split| &split.fit).for_each(|&row| used[row] = true);
        let mut counts = Array1::zeros(width);
        let in_use = rows.iter().zip(used).filter(|(_, used)| *used).flat_map(|(row, _)| row);
        in_use.for_each(|&column| counts[column as usize] += 1.0);
        Presence { rows, width, counts, inverse: Array1::ones(width) }
    }

    /// The part that a split's fit rows are, with these columns alone.
    pub fn part(&self, split: &Split, columns: &[u32]) -> Part {
        let mut scale = Array1::zeros(self.width);
        columns.iter().for_each(|&column| scale[column as usize] = 1.0);
        Part {
            mask: mask(self.rows.len(), split),
            rows: split.fit.len(),
            shift: Array1::zeros(self.width),
            scale,
        }
    }
}

impl Design for Presence {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn forward(&self, weight: ArrayView2<f32>) -> Array2<f32> {
        // A word's weights of all columns side by side: one place in memory for each one of a row. Plain slices,
        // because so short a sum costs less than a view of it.
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
    use crate::probe::design_matrix::tests::all;
    use ndarray::array;

    #[test]
    fn sparse_products_equal_dense_ones() {
        let split = all(3);
        let sparse = Presence::new(vec![vec![0, 2], vec![], vec![1, 2]], 3, &[split]);
        let dense = array![[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]];
        let weight = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
        let residual = array![[1.0, 7.0, -1.0], [0.5, 7.0, 2.0]];
        assert_eq!(sparse.forward(weight.view()), weight.dot(&dense.t()));
        assert_eq!(sparse.backward(residual.view()), residual.dot(&dense));
    }
}
