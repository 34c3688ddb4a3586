//! Products of dense f32 matrices, over `gemm`.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};

use super::design::BLOCK;

/// `XᵀX` `[width, width]` of X `[rows, width]`, over the rows whose mask is 1.
pub fn column_products(values: ArrayView2<f32>, mask: &[f32]) -> Array2<f32> {
    let width = values.ncols();
    let mut products = Array2::zeros((width, width));
    for (block, mask) in values.axis_chunks_iter(Axis(0), BLOCK).zip(mask.chunks(BLOCK)) {
        let mut kept = block.to_owned();
        mask.iter().zip(kept.rows_mut()).for_each(|(&mask, mut row)| row *= mask);
        product(kept.t(), kept.view(), products.view_mut(), true, Threads::All);
    }
    products
}

/// `XXᵀ` `[rows, rows]` of X `[rows, width]`; a row whose mask is 0 has products of 0.
pub fn row_products(values: ArrayView2<f32>, mask: &[f32]) -> Array2<f32> {
    let mut kept = values.to_owned();
    mask.iter().zip(kept.rows_mut()).for_each(|(&mask, mut row)| row *= mask);
    let mut products = Array2::zeros((values.nrows(), values.nrows()));
    product(kept.view(), kept.t(), products.view_mut(), false, Threads::All);
    products
}

/// Threads of one product.
#[derive(Clone, Copy, PartialEq)]
pub enum Threads {
    /// The calling thread, inside a loop that is parallel already.
    One,
    /// All threads of the pool.
    All,
}

/// Writes `a · b` to `out`, or adds it.
///
/// # Panics
/// Matrices whose shapes don't match; the shapes follow from the caller's own matrices.
pub fn product(
    a: ArrayView2<f32>,
    b: ArrayView2<f32>,
    mut out: ArrayViewMut2<f32>,
    add: bool,
    threads: Threads,
) {
    let (rows, columns) = out.dim();
    assert!(a.dim() == (rows, b.nrows()) && b.ncols() == columns, "matrices that do not fit");
    if rows == 0 || columns == 0 {
        return;
    }
    let parallelism = match threads {
        Threads::One => gemm::Parallelism::None,
        Threads::All => gemm::Parallelism::Rayon(0),
    };
    let (a_strides, b_strides) = ([a.strides()[0], a.strides()[1]], [b.strides()[0], b.strides()[1]]);
    let out_strides = [out.strides()[0], out.strides()[1]];
    // SAFETY: the shapes match, as asserted above, and the strides are those of the views.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            a.ncols(),
            out.as_mut_ptr(),
            out_strides[1],
            out_strides[0],
            add,
            a.as_ptr(),
            a_strides[1],
            a_strides[0],
            b.as_ptr(),
            b_strides[1],
            b_strides[0],
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
