//! A matrix product's output `[tokens, outputs]` while threads write it side by side, each into columns of its own.

/// The output from one of its columns on.
#[derive(Clone, Copy)]
pub(crate) struct OutputColumns {
    begin: *mut f32,
    outputs: usize,
}

// SAFETY: no two threads write the same column, as `set` demands.
unsafe impl Send for OutputColumns {}
// SAFETY: as above.
unsafe impl Sync for OutputColumns {}

impl OutputColumns {
    /// All columns of `out`, whose rows have `outputs` elements.
    pub(crate) fn new(out: &mut [f32], outputs: usize) -> OutputColumns {
        OutputColumns { begin: out.as_mut_ptr(), outputs }
    }

    /// The output from a later column on.
    ///
    /// # Safety
    /// The output must have the column.
    pub(crate) unsafe fn column(self, column: usize) -> OutputColumns {
        // SAFETY: as the caller says.
        OutputColumns { begin: unsafe { self.begin.add(column) }, ..self }
    }

    /// Writes one element.
    ///
    /// # Safety
    /// The output must have the token and the column, and no other thread may use them.
    pub(crate) unsafe fn set(self, token: usize, column: usize, value: f32) {
        // SAFETY: as the caller says.
        unsafe { *self.begin.add(token * self.outputs + column) = value }
    }
}
