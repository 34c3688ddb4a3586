//! Cholesky factorisation of `curvature · A + I` that keeps the symmetric matrix A, in the memory of one matrix.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut2, Axis, NdFloat, s};

/// Columns per block of the factorisation: a block and its panel stay in cache.
const STRIP: usize = 64;
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
            self.is_factored = factor_lower(self.triangles.view_mut().reversed_axes());
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
        if !self.is_factored {
            return vectors;
        }
        let mut columns = vectors.t().as_standard_layout().into_owned();
        solve_in_place(self.triangles.t(), columns.view_mut());
        columns.t().as_standard_layout().into_owned()
    }
}

/// Blocked left-looking Cholesky factorisation `L·Lᵀ` in place that reads and writes the lower triangle only (the upper one
/// holds A here); false where the matrix is not positive definite. Golub & Van Loan, Matrix Computations, algorithm 4.2.
fn factor_lower<T: NdFloat>(mut matrix: ArrayViewMut2<T>) -> bool {
    let size = matrix.nrows();
    for begin in (0..size).step_by(STRIP) {
        let count = STRIP.min(size - begin);
        let (factored, mut rest) = matrix.view_mut().split_at(Axis(1), begin);
        let (own, lower) =
            (factored.slice(s![begin..begin + count, ..]), factored.slice(s![begin + count.., ..]));
        let (mut corner, mut below) = rest.slice_mut(s![begin.., ..count]).split_at(Axis(0), count);
        let update = own.dot(&own.t());
        general_mat_mul(-T::one(), &lower, &own.t(), T::one(), &mut below);
        for column in 0..count {
            for row in column..count {
                let earlier = (0..column).map(|k| corner[[row, k]] * corner[[column, k]]);
                let sum = earlier.fold(corner[[row, column]] - update[[row, column]], |sum, term| sum - term);
                if row > column {
                    corner[[row, column]] = sum / corner[[column, column]];
                } else if sum > T::zero() {
                    corner[[row, column]] = sum.sqrt();
                } else {
                    return false;
                }
            }
            let (solved, mut unsolved) = below.view_mut().split_at(Axis(1), column);
            let mut own = unsolved.column_mut(0);
            for k in 0..column {
                own.scaled_add(-corner[[column, k]], &solved.column(k));
            }
            let diagonal = corner[[column, column]];
            own.mapv_inplace(|value| value / diagonal);
        }
    }
    true
}

/// Solves `L·Lᵀ·x = right` in place, `right` `[size, count]`, by blocked forward and backward substitution; the upper
/// triangle of `factor` is not read.
fn solve_in_place<T: NdFloat>(factor: ArrayView2<T>, mut right: ArrayViewMut2<T>) {
    let size = factor.nrows();
    let blocks = || (0..size).step_by(STRIP).map(|begin| (begin, size.min(begin + STRIP)));
    for (begin, end) in blocks() {
        let (solved, mut rest) = right.view_mut().split_at(Axis(0), begin);
        let mut own = rest.slice_mut(s![..end - begin, ..]);
        general_mat_mul(-T::one(), &factor.slice(s![begin..end, ..begin]), &solved, T::one(), &mut own);
        for row in 0..end - begin {
            let (earlier, mut later) = own.view_mut().split_at(Axis(0), row);
            eliminate(
                &mut later,
                0,
                earlier
                    .rows()
                    .into_iter()
                    .enumerate()
                    .map(|(k, values)| (factor[[begin + row, begin + k]], values)),
                factor[[begin + row, begin + row]],
            );
        }
    }
    for (begin, end) in blocks().rev() {
        let (mut rest, solved) = right.view_mut().split_at(Axis(0), end);
        let mut own = rest.slice_mut(s![begin.., ..]);
        general_mat_mul(-T::one(), &factor.slice(s![end.., begin..end]).t(), &solved, T::one(), &mut own);
        for row in (0..end - begin).rev() {
            let (mut earlier, later) = own.view_mut().split_at(Axis(0), row + 1);
            eliminate(
                &mut earlier,
                row,
                later
                    .rows()
                    .into_iter()
                    .enumerate()
                    .map(|(k, values)| (factor[[begin + row + 1 + k, begin + row]], values)),
                factor[[begin + row, begin + row]],
            );
        }
    }
}

/// One row of a substitution: the row minus the solved rows times their coefficients, over the diagonal.
fn eliminate<'a, T: NdFloat>(
    rows: &mut ArrayViewMut2<T>,
    row: usize,
    solved: impl Iterator<Item = (T, ArrayView1<'a, T>)>,
    diagonal: T,
) {
    let mut own = rows.row_mut(row);
    for (coefficient, values) in solved {
        own.scaled_add(-coefficient, &values);
    }
    own.mapv_inplace(|value| value / diagonal);
}

/// Solves `matrix · x = right` for symmetric positive definite `matrix` and `right` `[size, count]`, in f64; `None` where
/// the matrix is not positive definite.
pub fn solve_definite(matrix: ArrayView2<f64>, right: ArrayView2<f64>) -> Option<Array2<f64>> {
    let (mut factor, mut x) = (matrix.to_owned(), right.to_owned());
    factor_lower(factor.view_mut()).then(|| solve_in_place(factor.view(), x.view_mut()))?;
    Some(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_leaves_the_matrix_as_it_was() {
        // Large enough for several blocks, and of no even size.
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
