//! AVX-512 microkernels: up to six tokens with one panel of a packed matrix, all accumulators in registers.

#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::*;

use half::{bf16, f16};

/// Rows of a packed matrix in a panel: four registers of sixteen.
pub(crate) const PANEL: usize = 64;

/// Tokens of one kernel call; with four registers each, their accumulators fill 24 of 32.
pub(crate) const TOKENS: usize = 6;

/// The kernel of a panel's element type.
pub(crate) trait Kernel: Copy + Send + Sync + Sized {
    /// Element type of the other operand.
    type With: Copy + Send + Sync;

    /// Multiplies up to [`TOKENS`] tokens with one panel and writes `columns` columns.
    ///
    /// # Safety
    /// The processor must have the instructions; `out` must have the tokens' rows, `stride` apart, with the columns.
    unsafe fn tile(
        x: &[Self::With],
        panel: &[Self],
        steps: usize,
        out: *mut f32,
        stride: usize,
        columns: usize,
    );
}

/// Defines the kernel for `N` tokens. `load` loads sixteen elements of the panel, `spread` broadcasts one of a token, `add` is the
/// multiply-add.
macro_rules! kernel {
    ($name:ident, $features:literal, $type:ty, $with:ty, $load:expr, $spread:expr, $add:expr) => {
        #[target_feature(enable = $features)]
        unsafe fn $name<const N: usize>(
            x: &[$with],
            panel: &[$type],
            steps: usize,
            out: *mut f32,
            stride: usize,
            columns: usize,
        ) {
            let rows: [*const $with; N] = std::array::from_fn(|token| x[token * steps..].as_ptr());
            let mut at = panel.as_ptr();
            let mut sums = [[_mm512_setzero_ps(); 4]; N];
            // SAFETY: every token has `steps` elements, and the panel as many rows of 64.
            unsafe {
                for step in 0..steps {
                    let weights = [$load(at), $load(at.add(16)), $load(at.add(32)), $load(at.add(48))];
                    at = at.add(PANEL);
                    for token in 0..N {
                        let x = $spread(rows[token].add(step));
                        for lane in 0..4 {
                            sums[token][lane] = $add(sums[token][lane], x, weights[lane]);
                        }
                    }
                }
                for token in 0..N {
                    for lane in 0..4 {
                        let left = columns.saturating_sub(16 * lane).min(16);
                        let mask = ((1u32 << left) - 1) as __mmask16;
                        // An empty mask writes nothing, wherever this points.
                        let out = out.wrapping_add(token * stride + 16 * lane);
                        _mm512_mask_storeu_ps(out, mask, sums[token][lane]);
                    }
                }
            }
        }

        impl Kernel for $type {
            type With = $with;

            #[inline]
            unsafe fn tile(
                x: &[$with],
                panel: &[$type],
                steps: usize,
                out: *mut f32,
                stride: usize,
                columns: usize,
            ) {
                // SAFETY: as the caller says.
                unsafe {
                    match x.len() / steps {
                        1 => $name::<1>(x, panel, steps, out, stride, columns),
                        2 => $name::<2>(x, panel, steps, out, stride, columns),
                        3 => $name::<3>(x, panel, steps, out, stride, columns),
                        4 => $name::<4>(x, panel, steps, out, stride, columns),
                        5 => $name::<5>(x, panel, steps, out, stride, columns),
                        _ => $name::<TOKENS>(x, panel, steps, out, stride, columns),
                    }
                }
            }
        }
    };
}

kernel!(
    floats,
    "avx512f",
    f32,
    f32,
    |at: *const f32| _mm512_loadu_ps(at),
    |x: *const f32| _mm512_set1_ps(*x),
    |sum, x, weight| _mm512_fmadd_ps(x, weight, sum)
);

kernel!(
    halves,
    "avx512f",
    f16,
    f32,
    |at: *const f16| _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())),
    |x: *const f32| _mm512_set1_ps(*x),
    |sum, x, weight| _mm512_fmadd_ps(x, weight, sum)
);

kernel!(
    widened,
    "avx512f",
    bf16,
    f32,
    |at: *const bf16| {
        let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
    },
    |x: *const f32| _mm512_set1_ps(*x),
    |sum, x, weight| _mm512_fmadd_ps(x, weight, sum)
);

kernel!(
    paired,
    "avx512f,avx512bf16",
    [bf16; 2],
    [bf16; 2],
    |at: *const [bf16; 2]| _mm512_loadu_si512(at.cast()),
    |x: *const [bf16; 2]| _mm512_set1_epi32(x.cast::<i32>().read_unaligned()),
    |sum, x: __m512i, weight: __m512i| {
        // SAFETY: both types are 64 plain bytes.
        _mm512_dpbf16_ps(
            sum,
            std::mem::transmute::<__m512i, __m512bh>(x),
            std::mem::transmute::<__m512i, __m512bh>(weight),
        )
    }
);
