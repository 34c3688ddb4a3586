//! Design matrix of a fit, `[rows, width]`: dense and standardised, or sparse and binary.

mod cholesky;
mod dense;
mod design;
mod matmul;
mod sparse;

pub(super) use cholesky::solve_definite;
pub(super) use dense::Standardised;
#[cfg(test)]
pub(super) use design::tests::all_rows;
pub(super) use design::{Design, RowSubset};
pub(super) use matmul::column_products;
pub(super) use sparse::SparseMatrix;
