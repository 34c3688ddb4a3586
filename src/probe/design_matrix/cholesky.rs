//! Cholesky factorisation of `curvature · A + I` that keeps the symmetric matrix A, in the memory of one matrix.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt;
use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::linalg::triangular_solve::solve_lower_triangular_in_place;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use ndarray::{Array1, Array2, ArrayView2};

/// Columns per block of the factorisation.
const STRIP: usize = 128;
/// One thread: at these sizes two spend more time on synchronisation than on work.
const THREADS: Par = Par::Seq;
/// Rows and columns per tile of the copy between the triangles, so that both tiles stay in cache.
const TILE: usize = 32;

/// A symmetric matrix A `[size, size]` and the factor of `curvature · A + I`.
pub struct SymmetricMatrix {
    /// A below the diagonal; on and above it the factor: its lower triangle in column-major order is the upper triangle in
    /// row-major order.
    triangles: Array2<f32>,
    /// The diagonal of A.
    diagonal: Array1<f32>,
    is_factored: bool,
}

impl SymmetricMatrix {
    /// Takes the matrix A, which must be symmetric.
    pub fn new(matrix: Array2<f32>) -> SymmetricMatrix {
        // A symmetric matrix equals its transpose.
        let triangles = if matrix.is_standard_layout() { matrix } else { matrix.reversed_axes() };
        SymmetricMatrix { diagonal: triangles.diag().to_owned(), triangles, is_factored: false }
    }

    /// Factors `curvature · A + I`, approximately: it only preconditions the solver.
    pub fn factor(&mut self, curvature: f64) {
        let curvature = curvature as f32;
        let largest = self.diagonal.iter().copied().fold(0.0, f32::max);
        // Rounding may make the matrix indefinite where 1 is small beside its entries; a larger ridge is tried then.
        let mut ridge = 1.0 + 1e-6 * curvature * largest;
        for _ in 0..12 {
            self.begin(curvature, ridge);
            let size = self.diagonal.len();
            // Standard layout since `new`.
            let numbers = self.triangles.as_slice_mut().unwrap_or_default();
            let lower = MatMut::from_column_major_slice_mut(numbers, size, size);
            self.is_factored = factor_lower(lower);
            if self.is_factored {
                return;
            }
            ridge *= 10.0;
        }
    }

    /// Copies `curvature · A + ridge · I` to the triangle of the factor.
    fn begin(&mut self, curvature: f32, ridge: f32) {
        let size = self.diagonal.len();
        for top in (0..size).step_by(TILE) {
            for left in (0..=top).step_by(TILE) {
                for row in top..size.min(top + TILE) {
                    for column in left..row.min(left + TILE) {
                        self.triangles[[column, row]] = curvature * self.triangles[[row, column]];
                    }
                }
            }
        }
        self.triangles.diag_mut().zip_mut_with(&self.diagonal, |to, from| *to = curvature * from + ridge);
    }

    /// The inverse of the factored matrix times `vectors`, `[count, size]`. Without a factor (never for finite numbers) the
    /// vectors are unchanged, and the solver runs without a preconditioner.
    pub fn solve(&self, vectors: Array2<f32>) -> Array2<f32> {
        let (count, size) = vectors.dim();
        let Some(numbers) = self.triangles.as_slice().filter(|_| self.is_factored) else { return vectors };
        let factor = MatRef::from_column_major_slice(numbers, size, size);
        let mut vectors = vectors.as_standard_layout().into_owned();
        let threads = THREADS;
        let mut memory = MemBuffer::new(llt::solve::solve_in_place_scratch::<f32>(size, count, threads));
        // Row-major `[count, size]` is column-major `[size, count]`.
        let columns =
            MatMut::from_column_major_slice_mut(vectors.as_slice_mut().unwrap_or_default(), size, count);
        llt::solve::solve_in_place(factor, columns, threads, MemStack::new(&mut memory));
        vectors
    }
}

/// Blocked Cholesky factorisation in place that reads and writes the lower triangle only; false where the matrix is not
/// positive definite. (faer's own factorisation in place overwrites the upper triangle, which holds A here, so it gets
/// copies of the diagonal blocks.)
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
        let mut square = SymmetricMatrix::new(matrix.clone());
        let wanted = Array2::from_shape_fn((3, 301), |(r, c)| (r as f32 - 1.0) * (c % 7) as f32);
        for curvature in [0.5, 2e-3, 0.1] {
            square.factor(curvature);
            let asked = wanted.dot(&(&matrix * curvature as f32 + Array2::<f32>::eye(301)));
            let found = square.solve(asked);
            assert!((found - &wanted).iter().all(|d| d.abs() < 2e-2), "{curvature}");
            for (row, column) in (0..301).flat_map(|row| (0..row).map(move |column| (row, column))) {
                assert_eq!(square.triangles[[row, column]], matrix[[row, column]]);
            }
        }
    }
}
