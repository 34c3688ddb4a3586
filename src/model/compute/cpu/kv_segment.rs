//! Input and output of the CPU attention kernels: a row's keys and values, and the shared output buffer.

use std::ops::Range;

/// The new tokens of one row, with all keys and values of that row, the new ones last.
pub struct KvSegment<'a> {
    /// Range of the new tokens in the batch.
    pub tokens: Range<usize>,
    /// `[past + new, key heads, head width]`.
    pub keys: &'a [f32],
    /// `[past + new, key heads, head width]`.
    pub values: &'a [f32],
}

/// The output buffer `[tokens, query heads, head width]` while threads write it side by side, each a range of its own.
#[derive(Clone, Copy)]
pub(crate) struct HeadOutputs(*mut f32);

// SAFETY: no two threads write the same range, as `slice` demands.
unsafe impl Sync for HeadOutputs {}
// SAFETY: as above.
unsafe impl Send for HeadOutputs {}

impl HeadOutputs {
    /// The spare capacity of `out`, from its first element on.
    pub(crate) fn new(out: &mut Vec<f32>) -> HeadOutputs {
        HeadOutputs(out.as_mut_ptr())
    }

    /// A range of the output.
    ///
    /// # Safety
    /// The buffer must have the range, and no other thread may use it.
    pub(crate) unsafe fn slice<'a>(self, range: Range<usize>) -> &'a mut [f32] {
        // SAFETY: as the caller says.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(range.start), range.len()) }
    }
}
