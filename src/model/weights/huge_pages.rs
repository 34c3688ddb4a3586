//! Numbers that are read again and again for as long as the program runs: in pages of their own, large ones where the system
//! has them, so that a pass over gigabytes does not spend its time finding where they are. It knows nothing of matrices.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use candle_core::{Error, Result};
use half::{bf16, f16};
use memmap2::{MmapMut, MmapOptions};

/// A number for which bytes of zero are a zero, and any bytes some number.
pub(crate) trait PlainData: Copy + Send + Sync {}

impl PlainData for u8 {}
impl PlainData for f32 {}
impl PlainData for f16 {}
impl PlainData for bf16 {}
impl PlainData for [bf16; 2] {}

#[derive(Debug)]
pub(crate) struct PageBuffer<T> {
    map: MmapMut,
    count: usize,
    of: PhantomData<T>,
}

impl<T: PlainData> PageBuffer<T> {
    /// So many zeros.
    ///
    /// # Errors
    /// No memory for them.
    pub fn zeros(count: usize) -> Result<PageBuffer<T>> {
        let bytes =
            count.checked_mul(size_of::<T>()).ok_or_else(|| Error::Msg("a matrix too large".into()))?;
        // Nothing can't be mapped.
        let map = MmapOptions::new().len(bytes.max(1)).map_anon().map_err(Error::wrap)?;
        // Advice: where it isn't taken, pages are small.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(PageBuffer { map, count, of: PhantomData })
    }
}

impl<T: PlainData> Deref for PageBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: a map begins at a page's first byte, has the bytes of so many numbers, and any bytes are numbers.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.count) }
    }
}

impl<T: PlainData> DerefMut for PageBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast(), self.count) }
    }
}
