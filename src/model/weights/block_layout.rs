//! The layouts of GGML's quantised blocks, and how sixteen of their values at a time become f32. What is done with the values
//! (written, or multiplied at once) is the caller's [`ValueSink`].
//!
//! Layouts: <https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c>, `dequantize_row_…`.

use half::f16;

use super::element::Element;
use super::lanes::{Lanes16, ValueSink};

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
pub(crate) struct Q2K;
pub(crate) struct Q3K;
pub(crate) struct Q4K;
pub(crate) struct Q5K;
pub(crate) struct Q6K;
pub(crate) struct Iq4Nl;
pub(crate) struct Iq4Xs;
pub(crate) struct Mxfp4;

/// The sixteen values of IQ4_NL and IQ4_XS, −127 to 113, plus 128.
const IQ4: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];
/// The doubled values of E2M1, −12 to 12, plus 12.
const E2M1: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];

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

impl BlockLayout for Q2K {
    type Block = [u8; 84];
    const VALUES: usize = 256;

    #[inline(always)]
    unsafe fn decode<L: Lanes16>(block: &[u8; 84], sink: &mut impl ValueSink<L>) {
        let (d, least) = (scale(block, 80), scale(block, 82));
        for (group, packed) in block[..16].iter().enumerate() {
            let (half, quarter, side) = (group / 8, group / 2 % 4, group % 2);
            let (d, least) = (d * (packed & 15) as f32, -least * (packed >> 4) as f32);
            unsafe {
                let fours = bytes::<L>(block, 16 + 32 * half + 16 * side);
                sink.put(group, L::bits(fours, 2 * quarter as u32, 3), d, least);
            }
        }
    }
}

impl BlockLayout for Q3K {
    type Block = [u8; 110];
    const VALUES: usize = 256;

    #[inline(always)]
    unsafe fn decode<L: Lanes16>(block: &[u8; 110], sink: &mut impl ValueSink<L>) {
        let d = scale(block, 108);
        let packed = &block[96..108];
        for group in 0..16 {
            let (half, quarter, side) = (group / 8, group / 2 % 4, group % 2);
            // Scales of six bits: four in the first eight bytes, two in the last four.
            let low = packed[group % 8] >> (4 * (group / 8)) & 15;
            let high = packed[8 + group % 4] >> (2 * (group / 4)) & 3;
            let d = d * ((low | high << 4) as f32 - 32.0);
            unsafe {
                let fours = bytes::<L>(block, 32 + 32 * half + 16 * side);
                let third = L::bits(bytes::<L>(block, 16 * side), (4 * half + quarter) as u32, 1);
                let numbers = L::with_third(L::bits(fours, 2 * quarter as u32, 3), third);
                sink.put(group, numbers, d, -4.0 * d);
            }
        }
    }
}

impl BlockLayout for Iq4Nl {
    type Block = [u8; 18];
    const VALUES: usize = 32;

    #[inline(always)]
    unsafe fn decode<L: Lanes16>(block: &[u8; 18], sink: &mut impl ValueSink<L>) {
        let d = scale(block, 0);
        unsafe {
            let pairs = bytes::<L>(block, 2);
            sink.put(0, L::look_up(&IQ4, L::bits(pairs, 0, 15)), d, -128.0 * d);
            sink.put(1, L::look_up(&IQ4, L::bits(pairs, 4, 15)), d, -128.0 * d);
        }
    }
}

impl BlockLayout for Iq4Xs {
    type Block = [u8; 136];
    const VALUES: usize = 256;

    #[inline(always)]
    unsafe fn decode<L: Lanes16>(block: &[u8; 136], sink: &mut impl ValueSink<L>) {
        let (d, high) = (scale(block, 0), bits(block, 2));
        for group in 0..8 {
            let low = block[4 + group / 2] >> (4 * (group % 2)) & 15;
            let scale = low | ((high >> (2 * group) & 3) as u8) << 4;
            let d = d * (scale as f32 - 32.0);
            unsafe {
                let pairs = bytes::<L>(block, 8 + 16 * group);
                sink.put(2 * group, L::look_up(&IQ4, L::bits(pairs, 0, 15)), d, -128.0 * d);
                sink.put(2 * group + 1, L::look_up(&IQ4, L::bits(pairs, 4, 15)), d, -128.0 * d);
            }
        }
    }
}

impl BlockLayout for Mxfp4 {
    type Block = [u8; 17];
    const VALUES: usize = 32;

    #[inline(always)]
    unsafe fn decode<L: Lanes16>(block: &[u8; 17], sink: &mut impl ValueSink<L>) {
        // Half the power of two (E8M0), for the values are doubled; the two smallest are subnormal.
        let d = match block[0] as u32 {
            small @ 0..2 => f32::from_bits(0x20_0000 << small),
            power => f32::from_bits((power - 1) << 23),
        };
        unsafe {
            let pairs = bytes::<L>(block, 1);
            sink.put(0, L::look_up(&E2M1, L::bits(pairs, 0, 15)), d, -12.0 * d);
            sink.put(1, L::look_up(&E2M1, L::bits(pairs, 4, 15)), d, -12.0 * d);
        }
    }
}
