//! A symmetric matrix, and a Cholesky factor of what is made of it.
//! It knows nothing of what the matrix is of.

use faer::MatMut;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt;
use ndarray::{Array2, ArrayView2};

pub struct Square {
    size: usize,
    /// The matrix from the diagonal on, row after row: half of its memory.
    half: Vec<f32>,
    /// The factor, column by column in what was the matrix's own memory; what is above its diagonal means nothing.
    factor: Array2<f32>,
    is_factored: bool,
}

impl Square {
    pub fn new(matrix: Array2<f32>) -> Square {
        let size = matrix.nrows();
        let mut half = Vec::with_capacity(size * (size + 1) / 2);
        matrix.rows().into_iter().enumerate().for_each(|(at, row)| half.extend(row.iter().skip(at)));
        Square { size, half, factor: matrix.as_standard_layout().into_owned(), is_factored: false }
    }

    /// Makes the factor of `curvature · matrix + 1`. It only has to be near: it is what a search is steered by.
    pub fn factor(&mut self, curvature: f64) {
        let (size, curvature) = (self.size, curvature as f32);
        let threads = faer::get_global_parallelism();
        let scratch = llt::factor::cholesky_in_place_scratch::<f32>(size, threads, Default::default());
        let mut memory = MemBuffer::new(scratch);
        let diagonal = (0..size).scan(0, |at, row| Some(self.half[std::mem::replace(at, *at + size - row)]));
        let largest = diagonal.fold(0.0, f32::max);
        // Where the ones drown in rounding beside the matrix, more is added.
        let mut ridge = 1.0 + 1e-6 * curvature * largest;
        for _ in 0..12 {
            let mut half = self.half.as_slice();
            for (at, mut row) in self.factor.rows_mut().into_iter().enumerate() {
                let (own, rest) = half.split_at(size - at);
                row.iter_mut().skip(at).zip(own).for_each(|(to, from)| *to = curvature * from);
                row[at] += ridge;
                half = rest;
            }
            let numbers = self.factor.as_slice_mut().unwrap_or_default();
            let lower = MatMut::from_column_major_slice_mut(numbers, size, size);
            let none = llt::factor::LltRegularization::default();
            let stack = MemStack::new(&mut memory);
            let done = llt::factor::cholesky_in_place(lower, none, threads, stack, Default::default());
            self.is_factored = done.is_ok();
            if self.is_factored {
                return;
            }
            ridge *= 10.0;
        }
    }

    /// The inverse of what was factored times `vectors`, `[count, size]`; the vectors as they are where there is no factor,
    /// which is never so for finite numbers: a search that nothing steers still ends.
    pub fn solve(&self, vectors: Array2<f32>) -> Array2<f32> {
        let (count, size) = vectors.dim();
        let Some(numbers) = self.factor.as_slice().filter(|_| self.is_factored) else { return vectors };
        let factor = faer::MatRef::from_column_major_slice(numbers, size, size);
        let mut vectors = vectors.as_standard_layout().into_owned();
        let threads = faer::get_global_parallelism();
        let mut memory = MemBuffer::new(llt::solve::solve_in_place_scratch::<f32>(size, count, threads));
        // Row by row `[count, size]` is column by column `[size, count]`.
        let columns = MatMut::from_column_major_slice_mut(
            vectors.as_slice_mut().unwrap_or_default(),
            size,
            count,
        );
        llt::solve::solve_in_place(factor, columns, threads, MemStack::new(&mut memory));
        vectors
    }
}

/// Solves `matrix · x = right` for symmetric positive definite `matrix` and `right` `[size, count]`, in f64; `None` where
/// the matrix is not positive definite.
pub fn solve_definite(matrix: ArrayView2<f64>, right: ArrayView2<f64>) -> Option<Array2<f64>> {
    use faer::linalg::solvers::Solve;
    let own = faer::Mat::<f64>::from_fn(matrix.nrows(), matrix.ncols(), |row, column| matrix[[row, column]]);
    let mut x = faer::Mat::<f64>::from_fn(right.nrows(), right.ncols(), |row, column| right[[row, column]]);
    own.llt(faer::Side::Lower).ok()?.solve_in_place(&mut x);
    Some(Array2::from_shape_fn(right.dim(), |(row, column)| x[(row, column)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_factor_after_another_undoes_the_same_matrix() {
        // Large enough for the solver's blocks, and of no even size.
        let root = Array2::from_shape_fn((301, 301), |(r, c)| ((r * 31 + c * 17) % 23) as f32 / 23.0 - 0.4);
        let matrix = root.dot(&root.t());
        let mut square = Square::new(matrix.clone());
        let wanted = Array2::from_shape_fn((3, 301), |(r, c)| (r as f32 - 1.0) * (c % 7) as f32);
        for curvature in [0.5, 2e-3, 0.1] {
            square.factor(curvature);
            let asked = wanted.dot(&(&matrix * curvature as f32 + Array2::<f32>::eye(301)));
            let found = square.solve(asked);
            assert!((found - &wanted).iter().all(|d| d.abs() < 2e-2), "{curvature}");
        }
    }
}
