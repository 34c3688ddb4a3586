//! A symmetric matrix and a Cholesky factor of what is made of it, in the memory of one.
//! It knows nothing of what the matrix is of.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt;
use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::linalg::triangular_solve::solve_lower_triangular_in_place;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use ndarray::{Array1, Array2, ArrayView2};

/// Columns that are factored at once.
const STRIP: usize = 128;
/// Two threads would wait for each other longer than they work, and each keeps memory of its own.
const THREADS: Par = Par::Seq;
/// Rows and columns that are copied at once from one half to the other, so that both stay near.
const TILE: usize = 32;

pub struct Square {
    /// Below the diagonal the matrix, on it and above the factor: row by row what is column by column its lower half.
    halves: Array2<f32>,
    /// The matrix's own.
    diagonal: Array1<f32>,
    is_factored: bool,
}

impl Square {
    pub fn new(matrix: Array2<f32>) -> Square {
        // Read the other way, a symmetric matrix is itself.
        let halves = if matrix.is_standard_layout() { matrix } else { matrix.reversed_axes() };
        Square { diagonal: halves.diag().to_owned(), halves, is_factored: false }
    }

    /// Makes the factor of `curvature · matrix + 1`. It only has to be near: it is what a search is steered by.
    pub fn factor(&mut self, curvature: f64) {
        let curvature = curvature as f32;
        let largest = self.diagonal.iter().copied().fold(0.0, f32::max);
        // Where the ones drown in rounding beside the matrix, more is added.
        let mut ridge = 1.0 + 1e-6 * curvature * largest;
        for _ in 0..12 {
            self.begin(curvature, ridge);
            let size = self.diagonal.len();
            let numbers = self.halves.as_slice_mut().unwrap_or_default();
            let lower = MatMut::from_column_major_slice_mut(numbers, size, size);
            self.is_factored = factor_lower(lower);
            if self.is_factored {
                return;
            }
            ridge *= 10.0;
        }
    }

    /// Puts `curvature · matrix + ridge` where the factor is to be.
    fn begin(&mut self, curvature: f32, ridge: f32) {
        let size = self.diagonal.len();
        for top in (0..size).step_by(TILE) {
            for left in (0..=top).step_by(TILE) {
                for row in top..size.min(top + TILE) {
                    for column in left..row.min(left + TILE) {
                        self.halves[[column, row]] = curvature * self.halves[[row, column]];
                    }
                }
            }
        }
        self.halves.diag_mut().zip_mut_with(&self.diagonal, |to, from| *to = curvature * from + ridge);
    }

    /// The inverse of what was factored times `vectors`, `[count, size]`; the vectors as they are where there is no factor,
    /// which is never so for finite numbers: a search that nothing steers still ends.
    pub fn solve(&self, vectors: Array2<f32>) -> Array2<f32> {
        let (count, size) = vectors.dim();
        let Some(numbers) = self.halves.as_slice().filter(|_| self.is_factored) else { return vectors };
        let factor = MatRef::from_column_major_slice(numbers, size, size);
        let mut vectors = vectors.as_standard_layout().into_owned();
        let threads = THREADS;
        let mut memory = MemBuffer::new(llt::solve::solve_in_place_scratch::<f32>(size, count, threads));
        // Row by row `[count, size]` is column by column `[size, count]`.
        let columns =
            MatMut::from_column_major_slice_mut(vectors.as_slice_mut().unwrap_or_default(), size, count);
        llt::solve::solve_in_place(factor, columns, threads, MemStack::new(&mut memory));
        vectors
    }
}

/// The Cholesky factor of a matrix of which only the lower half is read and written; false where it has none. (faer's own
/// factorisation in place leaves anything above the diagonal, where the matrix itself still stands here: so it is given
/// the blocks on the diagonal aside, and does the rest between them.)
fn factor_lower(mut matrix: MatMut<'_, f32>) -> bool {
    let threads = THREADS;
    let size = matrix.nrows();
    let mut block = Mat::<f32>::zeros(STRIP.min(size), STRIP.min(size));
    let scratch = llt::factor::cholesky_in_place_scratch::<f32>(STRIP, threads, Default::default());
    let mut memory = MemBuffer::new(scratch);
    for begin in (0..size).step_by(STRIP) {
        let count = STRIP.min(size - begin);
        let (mut corner, _, mut below, rest) =
            matrix.as_mut().get_mut(begin.., begin..).split_at_mut(count, count);
        let mut own = block.as_mut().get_mut(..count, ..count);
        let places = || (0..count).flat_map(|column| (column..count).map(move |row| (row, column)));
        places().for_each(|at| own[at] = corner[at]);
        let none = llt::factor::LltRegularization::default();
        let stack = MemStack::new(&mut memory);
        if llt::factor::cholesky_in_place(own.as_mut(), none, threads, stack, Default::default()).is_err() {
            return false;
        }
        places().for_each(|at| corner[at] = own[at]);
        solve_lower_triangular_in_place(own.as_ref(), below.as_mut().transpose_mut(), threads);
        let (lower, full) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
        matmul(
            rest,
            lower,
            Accum::Add,
            below.as_ref(),
            full,
            below.as_ref().transpose(),
            full,
            -1.0,
            threads,
        );
    }
    true
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
    fn a_factor_leaves_the_matrix_as_it_was() {
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
            for (row, column) in (0..301).flat_map(|row| (0..row).map(move |column| (row, column))) {
                assert_eq!(square.halves[[row, column]], matrix[[row, column]]);
            }
        }
    }
}
