//! Products of small f32 matrices with arbitrary row and column strides, on one thread.

use gemm::Parallelism;

/// A strided matrix in a slice.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    numbers: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> View<'a> {
    /// `rows` rows of `columns` elements, `stride` apart.
    pub fn new(numbers: &'a [f32], rows: usize, columns: usize, stride: usize) -> View<'a> {
        let end = if rows == 0 { 0 } else { (rows - 1) * stride + columns };
        assert!(end <= numbers.len(), "a matrix that reaches out of its slice");
        View { numbers, rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// The transposed matrix, on the same elements.
    pub fn transposed(self) -> View<'a> {
        View {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// Writes `scale · a · b` to `out` (`[a.rows, b.columns]`, rows `stride` apart), or adds it.
pub(crate) fn product(out: &mut [f32], stride: usize, a: View, b: View, scale: f32, add: bool) {
    let (rows, columns) = (a.rows, b.columns);
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(a.columns == b.rows && (rows - 1) * stride + columns <= out.len(), "matrices that do not fit");
    // SAFETY: `View::new` and the assertion above keep every index of the three matrices inside their slices.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            a.columns,
            out.as_mut_ptr(),
            1,
            stride as isize,
            add,
            a.numbers.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.numbers.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplies_what_lies_apart() {
        // [1 2; 3 4] and [5 6; 7 8], rows three apart.
        let (a, b) = ([1.0, 2.0, 0.0, 3.0, 4.0], [5.0, 6.0, 0.0, 7.0, 8.0]);
        let (a, b) = (View::new(&a, 2, 2, 3), View::new(&b, 2, 2, 3));
        let mut out = [0.0; 4];
        product(&mut out, 2, a, b, 1.0, false);
        assert_eq!(out, [19.0, 22.0, 43.0, 50.0]);
        product(&mut out, 2, a, b.transposed(), 2.0, true);
        assert_eq!(out, [19.0 + 34.0, 22.0 + 46.0, 43.0 + 78.0, 50.0 + 106.0]);
    }
}
