//! Sixteen values at a time: bytes of quantised blocks to f32, portable and in the registers of x86.

/// Sixteen f32 in the registers of an instruction set, and the sixteen bytes that they are made from. Written per instruction set
/// because the compiler vectorises across blocks and scatters the results.
///
/// # Safety
/// The functions need the instructions of the implementing type, and pointers to sixteen elements.
pub(crate) trait Lanes16: Copy {
    /// Sixteen bytes.
    type Bytes: Copy;

    unsafe fn bytes(from: *const u8) -> Self::Bytes;
    /// `byte >> shift & mask` of each byte; `mask` has at most `8 - shift` bits.
    unsafe fn bits(bytes: Self::Bytes, shift: u32, mask: u8) -> Self::Bytes;
    /// `low | high << 4` of each pair of bytes; `high` is below 16.
    unsafe fn with_high(low: Self::Bytes, high: Self::Bytes) -> Self::Bytes;
    /// `low | high << 2` of each pair of bytes; `high` is below 64.
    unsafe fn with_third(low: Self::Bytes, high: Self::Bytes) -> Self::Bytes;
    /// The entry of a table at each byte; the bytes are below 16.
    unsafe fn look_up(table: &[u8; 16], bytes: Self::Bytes) -> Self::Bytes;
    /// The highest bit of each byte flipped: a signed byte plus 128.
    unsafe fn flip_sign(bytes: Self::Bytes) -> Self::Bytes;
    /// Sixteen single bits, the lowest first, as bytes 0 and 1.
    unsafe fn spread(bits: u16) -> Self::Bytes;
    /// `scale · byte + add` of each byte. The product is exact for every format, so that one rounding or two give the same.
    unsafe fn scaled(bytes: Self::Bytes, scale: f32, add: f32) -> Self;
    unsafe fn write(self, to: *mut f32);
}

/// What becomes of a block's values.
pub(crate) trait ValueSink<L: Lanes16> {
    /// Takes the `group`th sixteen values of the block, `scale · number + add`.
    ///
    /// # Safety
    /// As [`Lanes16`].
    unsafe fn put(&mut self, group: usize, numbers: L::Bytes, scale: f32, add: f32);
}

/// Portable code.
impl Lanes16 for [f32; 16] {
    type Bytes = [u8; 16];

    #[inline(always)]
    unsafe fn bytes(from: *const u8) -> [u8; 16] {
        unsafe { *from.cast() }
    }

    #[inline(always)]
    unsafe fn bits(bytes: [u8; 16], shift: u32, mask: u8) -> [u8; 16] {
        bytes.map(|byte| byte >> shift & mask)
    }

    #[inline(always)]
    unsafe fn with_high(low: [u8; 16], high: [u8; 16]) -> [u8; 16] {
        std::array::from_fn(|i| low[i] | high[i] << 4)
    }

    #[inline(always)]
    unsafe fn with_third(low: [u8; 16], high: [u8; 16]) -> [u8; 16] {
        std::array::from_fn(|i| low[i] | high[i] << 2)
    }

    #[inline(always)]
    unsafe fn look_up(table: &[u8; 16], bytes: [u8; 16]) -> [u8; 16] {
        bytes.map(|byte| table[(byte & 15) as usize])
    }

    #[inline(always)]
    unsafe fn flip_sign(bytes: [u8; 16]) -> [u8; 16] {
        bytes.map(|byte| byte ^ 0x80)
    }

    #[inline(always)]
    unsafe fn spread(bits: u16) -> [u8; 16] {
        std::array::from_fn(|i| (bits >> i & 1) as u8)
    }

    #[inline(always)]
    unsafe fn scaled(bytes: [u8; 16], scale: f32, add: f32) -> [f32; 16] {
        bytes.map(|byte| scale * byte as f32 + add)
    }

    #[inline(always)]
    unsafe fn write(self, to: *mut f32) {
        unsafe { to.cast::<[f32; 16]>().write(self) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Lanes16;

    /// The functions on bytes, which need SSSE3 and are the same for every instruction set above it.
    macro_rules! bytes_in_sse {
        () => {
            type Bytes = __m128i;

            #[inline(always)]
            unsafe fn bytes(from: *const u8) -> __m128i {
                unsafe { _mm_loadu_si128(from.cast()) }
            }

            #[inline(always)]
            unsafe fn bits(bytes: __m128i, shift: u32, mask: u8) -> __m128i {
                unsafe {
                    // The bits that come from the neighbouring byte are masked.
                    let shifted = _mm_srl_epi16(bytes, _mm_cvtsi32_si128(shift as i32));
                    _mm_and_si128(shifted, _mm_set1_epi8(mask as i8))
                }
            }

            #[inline(always)]
            unsafe fn with_high(low: __m128i, high: __m128i) -> __m128i {
                unsafe { _mm_or_si128(low, _mm_slli_epi16::<4>(high)) }
            }

            #[inline(always)]
            unsafe fn with_third(low: __m128i, high: __m128i) -> __m128i {
                unsafe { _mm_or_si128(low, _mm_slli_epi16::<2>(high)) }
            }

            #[inline(always)]
            unsafe fn look_up(table: &[u8; 16], bytes: __m128i) -> __m128i {
                unsafe { _mm_shuffle_epi8(_mm_loadu_si128(table.as_ptr().cast()), bytes) }
            }

            #[inline(always)]
            unsafe fn flip_sign(bytes: __m128i) -> __m128i {
                unsafe { _mm_xor_si128(bytes, _mm_set1_epi8(i8::MIN)) }
            }

            #[inline(always)]
            unsafe fn spread(bits: u16) -> __m128i {
                unsafe {
                    // Each of the two bytes eight times, then one bit of each.
                    let both = _mm_set1_epi16(bits as i16);
                    let each = _mm_shuffle_epi8(both, _mm_set_epi64x(0x0101_0101_0101_0101, 0));
                    let own = _mm_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
                    let set = _mm_cmpeq_epi8(_mm_and_si128(each, own), own);
                    _mm_and_si128(set, _mm_set1_epi8(1))
                }
            }
        };
    }

    impl Lanes16 for __m512 {
        bytes_in_sse!();

        #[inline(always)]
        unsafe fn scaled(bytes: __m128i, scale: f32, add: f32) -> __m512 {
            unsafe {
                let numbers = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
                _mm512_fmadd_ps(numbers, _mm512_set1_ps(scale), _mm512_set1_ps(add))
            }
        }

        #[inline(always)]
        unsafe fn write(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self) }
        }
    }

    impl Lanes16 for [__m256; 2] {
        bytes_in_sse!();

        #[inline(always)]
        unsafe fn scaled(bytes: __m128i, scale: f32, add: f32) -> [__m256; 2] {
            unsafe {
                let (scale, add) = (_mm256_set1_ps(scale), _mm256_set1_ps(add));
                [bytes, _mm_srli_si128::<8>(bytes)].map(|bytes| {
                    let numbers = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
                    _mm256_fmadd_ps(numbers, scale, add)
                })
            }
        }

        #[inline(always)]
        unsafe fn write(self, to: *mut f32) {
            unsafe {
                _mm256_storeu_ps(to, self[0]);
                _mm256_storeu_ps(to.add(8), self[1]);
            }
        }
    }
}
