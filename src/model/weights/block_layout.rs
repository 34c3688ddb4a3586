//! The layouts of GGML's quantised blocks, and how sixteen of their values at a time become f32. What is done with the values
//! (written, or multiplied at once) is the caller's [`ValueSink`].
//!
//! Layouts: <https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c>, `dequantize_row_…`.

use half::f16;

use super::element::Element;

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

/// The layout of a block format.
pub(crate) trait BlockLayout {
    /// A block's bytes.
    type Block;
    /// A block's values.
    const VALUES: usize;

    /// Gives the block's values to the sink, in order: sums over them then have one order whoever computes them.
    ///
    /// # Safety
    /// As [`Lanes16`].
    unsafe fn decode<L: Lanes16>(block: &Self::Block, sink: &mut impl ValueSink<L>);
}

pub(crate) struct Q4_0;
pub(crate) struct Q4_1;
pub(crate) struct Q5_0;
pub(crate) struct Q5_1;
pub(crate) struct Q8_0;
pub(crate) struct Q4K;
pub(crate) struct Q5K;
pub(crate) struct Q6K;

/// The f16 at a place of a block.
#[inline(always)]
pub(super) fn scale_at(block: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([block[at], block[at + 1]])
}

#[inline(always)]
fn scale(block: &[u8], at: usize) -> f32 {
    scale_at(block, at).upcast()
}

/// Sixteen bytes of a block.
#[inline(always)]
unsafe fn bytes<L: Lanes16>(block: &[u8], at: usize) -> L::Bytes {
    // SAFETY: the slice has sixteen bytes; the instructions as the caller says.
    unsafe { L::bytes(block[at..at + 16].as_ptr()) }
}

/// Sixteen bits of a block.
#[inline(always)]
fn bits(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// Scale and minimum of each group of 32 values, six bits each, packed into 12 bytes.
#[inline(always)]
fn packed_scales(block: &[u8]) -> [(f32, f32); 8] {
    let (d, least) = (scale(block, 0), scale(block, 2));
    let packed = &block[4..16];
    let mut scales = [(0.0, 0.0); 8];
    for i in 0..4 {
        let (one, two, four) = (packed[i], packed[i + 4], packed[i + 8]);
        scales[i] = (d * (one & 63) as f32, -least * (two & 63) as f32);
        let (high_one, high_two) = (four & 15 | one >> 6 << 4, four >> 4 | two >> 6 << 4);
        scales[i + 4] = (d * high_one as f32, -least * high_two as f32);
    }
    scales
}

// SAFETY (of all): they need the instructions of their `L`, as the caller guarantees.

impl BlockLayout for Q4_0 {
    type Block = [u8; 18];
    const VALUES: usize = 32;

    #[inline(always)]
    unsafe fn decode<L: Lanes16>(block: &[u8; 18], sink: &mut impl ValueSink<L>) {
        let d = scale(block, 0);
        unsafe {
            let pairs = bytes::<L>(block, 2);
            sink.put(0, L::bits(pairs, 0, 15), d, -8.0 * d);
            sink.put(1, L::bits(pairs, 4, 15), d, -8.0 * d);
        }
    }
}

impl BlockLayout for Q4_1 {
    type Block = [u8; 20];
    const VALUES: usize = 32;

    #[inline(always)]
    unsafe fn decode<L: Lanes16>(block: &[u8; 20], sink: &mut impl ValueSink<L>) {
        let (d, least) = (scale(block, 0), scale(block, 2));
        unsafe {
            let pairs = bytes::<L>(block, 4);
            sink.put(0, L::bits(pairs, 0, 15), d, least);
            sink.put(1, L::bits(pairs, 4, 15), d, least);
        }
    }
}

impl BlockLayout for Q5_0 {
    type Block = [u8; 22];
    const VALUES: usize = 32;

    #[inline(always)]
    unsafe fn decode<L: Lanes16>(block: &[u8; 22], sink: &mut impl ValueSink<L>) {
        let d = scale(block, 0);
        unsafe {
            let pairs = bytes::<L>(block, 6);
            for half in 0..2 {
                let fifth = L::spread(bits(block, 2 + 2 * half));
                sink.put(half, L::with_high(L::bits(pairs, 4 * half as u32, 15), fifth), d, -16.0 * d);
            }
        }
    }
}

impl BlockLayout for Q5_1 {
    type Block = [u8; 24];
    const VALUES: usize = 32;

    #[inline(always)]
    unsafe fn decode<L: Lanes16>(block: &[u8; 24], sink: &mut impl ValueSink<L>) {
        let (d, least) = (scale(block, 0), scale(block, 2));
        unsafe {
            let pairs = bytes::<L>(block, 8);
            for half in 0..2 {
                let fifth = L::spread(bits(block, 4 + 2 * half));
                sink.put(half, L::with_high(L::bits(pairs, 4 * half as u32, 15), fifth), d, least);
            }
        }
    }
}

impl BlockLayout for Q8_0 {
    type Block = [u8; 34];
    const VALUES: usize = 32;

    #[inline(always)]
    unsafe fn decode<L: Lanes16>(block: &[u8; 34], sink: &mut impl ValueSink<L>) {
        let d = scale(block, 0);
        for half in 0..2 {
            unsafe { sink.put(half, L::flip_sign(bytes::<L>(block, 2 + 16 * half)), d, -128.0 * d) }
        }
    }
}

impl BlockLayout for Q4K {
    type Block = [u8; 144];
    const VALUES: usize = 256;

    #[inline(always)]
    unsafe fn decode<L: Lanes16>(block: &[u8; 144], sink: &mut impl ValueSink<L>) {
        let scales = packed_scales(block);
        for (group, (d, least)) in scales.into_iter().enumerate() {
            for half in 0..2 {
                unsafe {
                    let pairs = bytes::<L>(block, 16 + 32 * (group / 2) + 16 * half);
                    sink.put(2 * group + half, L::bits(pairs, 4 * (group % 2) as u32, 15), d, least);
                }
            }
        }
    }
}

impl BlockLayout for Q5K {
    type Block = [u8; 176];
    const VALUES: usize = 256;

    #[inline(always)]
    unsafe fn decode<L: Lanes16>(block: &[u8; 176], sink: &mut impl ValueSink<L>) {
        let scales = packed_scales(block);
        for (group, (d, least)) in scales.into_iter().enumerate() {
            for half in 0..2 {
                unsafe {
                    let pairs = bytes::<L>(block, 48 + 32 * (group / 2) + 16 * half);
                    let fifth = L::bits(bytes::<L>(block, 16 + 16 * half), group as u32, 1);
                    let numbers = L::with_high(L::bits(pairs, 4 * (group % 2) as u32, 15), fifth);
                    sink.put(2 * group + half, numbers, d, least);
                }
            }
        }
    }
}

impl BlockLayout for Q6K {
    type Block = [u8; 210];
    const VALUES: usize = 256;

    #[inline(always)]
    unsafe fn decode<L: Lanes16>(block: &[u8; 210], sink: &mut impl ValueSink<L>) {
        let d = scale(block, 208);
        for half in 0..2 {
            for quarter in 0..4 {
                for side in 0..2 {
                    unsafe {
                        // Four bits of each value in one byte, the other two in another.
                        let low = bytes::<L>(block, 64 * half + 32 * (quarter % 2) + 16 * side);
                        let high = bytes::<L>(block, 128 + 32 * half + 16 * side);
                        let low = L::bits(low, 4 * (quarter / 2) as u32, 15);
                        let numbers = L::with_high(low, L::bits(high, 2 * quarter as u32, 3));
                        let d = d * (block[192 + 8 * half + 2 * quarter + side] as i8) as f32;
                        sink.put(8 * half + 2 * quarter + side, numbers, d, -32.0 * d);
                    }
                }
            }
        }
    }
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
