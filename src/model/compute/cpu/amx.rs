//! Matrix products of bf16 on AMX tiles (16 rows of 64 bytes), accumulated in f32.
//!
//! The instructions have no stable intrinsics yet, so each loop is one piece of assembly.

#![cfg(target_arch = "x86_64")]

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut, Range};

use half::bf16;

use super::bf16::Pair;

/// Rows of a tile: tokens on one side, pairs of inputs on the other.
pub(crate) const ROWS: usize = 16;

/// Tokens of one kernel call.
const TOKENS: usize = 2 * ROWS;

/// Columns of a panel: four tiles of sixteen.
pub(crate) const COLUMNS: usize = 64;

/// Inputs of one instruction; matrices are padded with zeros to a multiple.
pub(crate) const INPUTS: usize = 2 * ROWS;

/// Pairs in a tile.
const TILE: usize = ROWS * ROWS;

/// Largest number of operand pairs whose products are summed.
const MAX_OPERANDS: usize = 3;

/// One row of a tile, aligned to a cache line: a row across two lines takes three times as long to load.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct TileRow([Pair; ROWS]);

const ZERO_ROW: TileRow = TileRow([[bf16::ZERO; 2]; ROWS]);

/// Consecutive tiles.
#[derive(Default)]
pub(crate) struct Tiles(Vec<TileRow>);

impl Tiles {
    /// Tiles of `pairs` zeros.
    pub fn zeros(pairs: usize) -> Tiles {
        Tiles(vec![ZERO_ROW; pairs.div_ceil(ROWS)])
    }

    /// Room for `pairs` pairs. The last `zeros` of them are zero; the others are uninitialised.
    pub fn with_room(pairs: usize, zeros: usize) -> Tiles {
        let mut lines = Vec::with_capacity(pairs.div_ceil(ROWS));
        lines.spare_capacity_mut()[(pairs - zeros).div_ceil(ROWS)..].fill(MaybeUninit::new(ZERO_ROW));
        Tiles(lines)
    }

    /// Sets the length once the tiles have been written.
    ///
    /// # Safety
    /// There must be room for so many pairs, all of them initialised.
    pub unsafe fn written(&mut self, pairs: usize) {
        // SAFETY: as the caller says.
        unsafe { self.0.set_len(pairs.div_ceil(ROWS)) }
    }

    /// Changes the number of pairs; new ones are zero.
    pub fn resize(&mut self, pairs: usize) {
        self.0.resize(pairs.div_ceil(ROWS), ZERO_ROW);
    }

    /// The first pair.
    pub fn as_mut_ptr(&mut self) -> *mut Pair {
        self.0.as_mut_ptr().cast()
    }
}

impl Deref for Tiles {
    type Target = [Pair];

    fn deref(&self) -> &[Pair] {
        // SAFETY: a row is its pairs, end to end.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * ROWS) }
    }
}

impl DerefMut for Tiles {
    fn deref_mut(&mut self) -> &mut [Pair] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * ROWS) }
    }
}

/// Instructions for so many inputs.
pub(crate) fn steps(inputs: usize) -> usize {
    inputs.div_ceil(INPUTS)
}

/// Pairs in the tiles of so many tokens: `[tokens / 16, steps, 16, 16]`.
pub(crate) fn rows_size(tokens: usize, steps: usize) -> usize {
    tokens.div_ceil(ROWS) * steps * TILE
}

/// Pairs in a panel: `[steps, 4, 16, 16]`.
pub(crate) fn panel_size(steps: usize) -> usize {
    steps * 4 * TILE
}

/// Index of a pair of inputs of a column in a panel.
#[inline(always)]
pub(crate) fn panel_index(pair: usize, column: usize) -> usize {
    (pair / ROWS * 4 + column / ROWS) * TILE + pair % ROWS * ROWS + column % ROWS
}

/// Writes one token's row into its tiles: `large` gets the values rounded to bf16 (to nearest, ties to even), `small` the
/// rounding residuals. `token`: its row in the tile, below 16.
///
/// # Safety
/// Only with AMX; both buffers must have room for the tiles of as many inputs, `[steps, 16, 16]`.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) unsafe fn write_row(numbers: &[f32], token: usize, large: *mut Pair, small: Option<*mut Pair>) {
    for (step, numbers) in numbers.chunks(INPUTS).enumerate() {
        let place = step * TILE + token * ROWS;
        // SAFETY: the masks cover what `numbers` has, and the tiles are there.
        unsafe {
            let half = |first: usize| {
                let count = numbers.len().saturating_sub(first).min(16);
                let mask = ((1u32 << count) - 1) as __mmask16;
                _mm512_maskz_loadu_ps(mask, numbers.as_ptr().wrapping_add(first))
            };
            let halves = [half(0), half(16)];
            let bits = |x: __m512bh| std::mem::transmute::<__m512bh, __m512i>(x);
            let rounded = bits(_mm512_cvtne2ps_pbh(halves[1], halves[0]));
            _mm512_storeu_si512(large.add(place).cast(), rounded);
            let Some(small) = small else { continue };
            let widened = [_mm512_castsi512_si256(rounded), _mm512_extracti64x4_epi64::<1>(rounded)]
                .map(|half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half))));
            // Infinity minus infinity is NaN: it has no residual.
            let left = |at: usize| {
                let left = _mm512_sub_ps(halves[at], widened[at]);
                let number = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(left, left);
                _mm512_maskz_mov_ps(number, left)
            };
            _mm512_storeu_si512(small.add(place).cast(), bits(_mm512_cvtne2ps_pbh(left(1), left(0))));
        }
    }
}

/// Shapes of the eight tile registers, in the processor's format.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 8],
    reserved_too: [u8; 16],
    rows: [u8; 8],
    reserved_last: [u8; 8],
}

/// One pair of operands: tiles of activations, and the panel that they are multiplied with.
#[derive(Clone, Copy)]
#[repr(C)]
struct Operand {
    x: *const Pair,
    panel: *const Pair,
}

/// `out[token, column] = Σ over operand pairs and inputs`, for up to [`COLUMNS`] columns. An operand pair is rows of activations
/// as [`write_row`] writes them, from token 0 on, and a panel; both have `steps` steps. `tokens` begin at a multiple of [`ROWS`].
/// `out`: the first column of the first of these tokens; `stride`: elements from a token to the next.
///
/// # Safety
/// Only with AMX; `out` must have the columns for every token, and no other thread may write them.
pub(crate) unsafe fn multiply(
    operands: &[(&[Pair], &[Pair])],
    steps: usize,
    tokens: Range<usize>,
    columns: usize,
    out: *mut f32,
    stride: usize,
) {
    assert!(operands.len() <= MAX_OPERANDS && tokens.start.is_multiple_of(ROWS));
    if operands.is_empty() || steps == 0 {
        return;
    }
    let mut spare = [0f32; TOKENS * COLUMNS];
    let mut shaped = 0;
    for begin in tokens.clone().step_by(TOKENS) {
        let count = (tokens.end - begin).min(TOKENS);
        let mut at = [Operand { x: std::ptr::null(), panel: std::ptr::null() }; MAX_OPERANDS];
        for (at, (x, panel)) in at.iter_mut().zip(operands) {
            let x = &x[begin * steps * ROWS..][..rows_size(count, steps)];
            *at = Operand { x: x.as_ptr(), panel: panel[..panel_size(steps)].as_ptr() };
        }
        let at = &mut at[..operands.len()];
        // A result narrower than the tiles is written to a buffer and copied.
        let whole = columns == COLUMNS;
        // SAFETY: the caller's `out` has the tokens.
        let place = unsafe { out.add((begin - tokens.start) * stride) };
        let (to, to_stride) = if whole { (place, stride) } else { (spare.as_mut_ptr(), COLUMNS) };
        // SAFETY: the slices above have the tiles, which are configured before they are used.
        unsafe {
            if shaped != count {
                configure_tiles(count);
                shaped = count;
            }
            if count > ROWS {
                kernel_32x32(at, steps, to, 4 * to_stride);
                at.iter_mut().for_each(|side| side.panel = side.panel.add(2 * TILE));
                kernel_32x32(at, steps, to.add(COLUMNS / 2), 4 * to_stride);
            } else {
                kernel_16x64(at, steps, to, 4 * to_stride);
            }
            if !whole {
                for token in 0..count {
                    let from = spare.as_ptr().add(token * COLUMNS);
                    std::ptr::copy_nonoverlapping(from, place.add(token * stride), columns);
                }
            }
        }
    }
    // Released so that the kernel need not save the tiles of an idle thread.
    // SAFETY: nothing depends on their contents any more.
    unsafe { asm!("tilerelease", options(nostack, nomem)) }
}

/// Configures the tile registers for a block of so many tokens.
unsafe fn configure_tiles(tokens: usize) {
    let first = tokens.min(ROWS) as u8;
    // A tile has at least one row: without a second block, it gets the first one's shape.
    let second = if tokens > ROWS { (tokens - ROWS) as u8 } else { first };
    let full = ROWS as u8;
    let shapes = Shapes {
        palette: 1,
        start: 0,
        reserved: [0; 14],
        row_bytes: [64; 8],
        reserved_too: [0; 16],
        rows: [first, first, second, second, first, second, full, full],
        reserved_last: [0; 8],
    };
    // SAFETY: the shapes are in the processor's format, and outlive the instruction.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &shapes, options(nostack, readonly)) }
}

/// Prefetches the sixteen rows of a later tile.
macro_rules! prefetch_tile {
    ($name:literal, $begin:literal) => {
        concat!(
            ".irp line, 0, 64, 128, 192, 256, 320, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960\n",
            "prefetcht0 [{",
            $name,
            "} + ",
            $begin,
            " + \\line]\n",
            ".endr"
        )
    };
}

/// Up to [`ROWS`] tokens with [`COLUMNS`] columns, prefetching two steps ahead. `row`: bytes from a token's results to the next.
unsafe fn kernel_16x64(operands: &[Operand], steps: usize, out: *mut f32, row: usize) {
    // SAFETY: as the caller says; there is at least one step and one operand pair.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "3:",
            "mov {x}, [{side}]",
            "mov {panel}, [{side} + 8]",
            "mov {left}, {steps}",
            "2:",
            "tileloadd tmm4, [{x} + {tile_row}*1]",
            "tileloadd tmm6, [{panel} + {tile_row}*1]",
            prefetch_tile!("panel", "8192"),
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{panel} + {tile_row}*1 + 1024]",
            prefetch_tile!("panel", "9216"),
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm6, [{panel} + {tile_row}*1 + 2048]",
            prefetch_tile!("panel", "10240"),
            "tdpbf16ps tmm2, tmm4, tmm6",
            "tileloadd tmm7, [{panel} + {tile_row}*1 + 3072]",
            prefetch_tile!("panel", "11264"),
            "tdpbf16ps tmm3, tmm4, tmm7",
            "add {x}, 1024",
            "add {panel}, 4096",
            "dec {left}",
            "jnz 2b",
            "add {side}, 16",
            "dec {operands}",
            "jnz 3b",
            "tilestored [{out} + {row}*1], tmm0",
            "tilestored [{out} + {row}*1 + 64], tmm1",
            "tilestored [{out} + {row}*1 + 128], tmm2",
            "tilestored [{out} + {row}*1 + 192], tmm3",
            side = inout(reg) operands.as_ptr() => _,
            operands = inout(reg) operands.len() => _,
            x = out(reg) _,
            panel = out(reg) _,
            left = out(reg) _,
            steps = in(reg) steps,
            tile_row = in(reg) 4 * ROWS,
            out = in(reg) out,
            row = in(reg) row,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    }
}

/// More than [`ROWS`] tokens with half of [`COLUMNS`] columns: four accumulators for four loads. The second-level cache keeps up
/// only with a prefetch one step ahead.
unsafe fn kernel_32x32(operands: &[Operand], steps: usize, out: *mut f32, row: usize) {
    // SAFETY: as the caller says; there is at least one step and one operand pair. A prefetch of any address is harmless.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "3:",
            "mov {x}, [{side}]",
            "mov {panel}, [{side} + 8]",
            "mov {lower}, {steps}",
            "shl {lower}, 10",
            "add {lower}, {x}",
            "mov {left}, {steps}",
            "2:",
            "tileloadd tmm4, [{x} + {tile_row}*1]",
            "tileloadd tmm6, [{panel} + {tile_row}*1]",
            prefetch_tile!("x", "1024"),
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{lower} + {tile_row}*1]",
            prefetch_tile!("panel", "4096"),
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{panel} + {tile_row}*1 + 1024]",
            prefetch_tile!("panel", "5120"),
            "tdpbf16ps tmm1, tmm4, tmm7",
            prefetch_tile!("lower", "1024"),
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {x}, 1024",
            "add {lower}, 1024",
            "add {panel}, 4096",
            "dec {left}",
            "jnz 2b",
            "add {side}, 16",
            "dec {operands}",
            "jnz 3b",
            "tilestored [{out} + {row}*1], tmm0",
            "tilestored [{out} + {row}*1 + 64], tmm1",
            "mov {x}, {row}",
            "shl {x}, 4",
            "add {x}, {out}",
            "tilestored [{x} + {row}*1], tmm2",
            "tilestored [{x} + {row}*1 + 64], tmm3",
            side = inout(reg) operands.as_ptr() => _,
            operands = inout(reg) operands.len() => _,
            x = out(reg) _,
            lower = out(reg) _,
            panel = out(reg) _,
            left = out(reg) _,
            steps = in(reg) steps,
            tile_row = in(reg) 4 * ROWS,
            out = in(reg) out,
            row = in(reg) row,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    }
}
