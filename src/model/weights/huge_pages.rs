//! Buffers for weights in anonymous memory maps, with huge pages where the system has them: a pass over gigabytes of weights
//! then has fewer TLB misses.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use candle_core::{Error, Result};
use half::{bf16, f16};
use memmap2::{MmapMut, MmapOptions};

/// A type for which zero bytes are a zero, and any bytes are valid.
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
    /// A buffer of zeros.
    ///
    /// # Errors
    /// Too little memory.
    pub fn zeros(count: usize) -> Result<PageBuffer<T>> {
        let bytes =
            count.checked_mul(size_of::<T>()).ok_or_else(|| Error::Msg("a matrix too large".into()))?;
        // An empty map is an error.
        let map = MmapOptions::new().len(bytes.max(1)).map_anon().map_err(Error::wrap)?;
        // Advice only: without it, pages are small.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(PageBuffer { map, count, of: PhantomData })
    }
}

impl<T: PlainData> Deref for PageBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: a map is page-aligned and has the bytes of so many elements, and any bytes are valid.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.count) }
    }
}

impl<T: PlainData> DerefMut for PageBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast(), self.count) }
    }
}
