//! Vectors of sixteen f32 in the registers of each instruction set. They are written per instruction set because autovectorised
//! code uses the narrowest registers.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use half::{bf16, f16};

use crate::model::weights::Element;

/// Elements of a vector.
pub(crate) const LANES: usize = 16;

/// A vector of sixteen f32.
///
/// # Safety
/// The functions need the instructions of the implementing type, and pointers to sixteen elements.
pub(crate) trait Lanes<T>: Copy {
    unsafe fn zero() -> Self;
    unsafe fn load(numbers: *const f32) -> Self;
    /// Loads elements of type `T` as f32.
    unsafe fn load_upcast(numbers: *const T) -> Self;
    /// `self + x · y`
    unsafe fn add_product(self, x: Self, y: Self) -> Self;
    unsafe fn store(self, numbers: *mut f32);
}

/// Horizontal sum, by halves.
pub(crate) fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Portable code.
impl<T: Element> Lanes<T> for [f32; LANES] {
    #[inline(always)]
    unsafe fn zero() -> Self {
        [0.0; LANES]
    }

    #[inline(always)]
    unsafe fn load(numbers: *const f32) -> Self {
        unsafe { *numbers.cast() }
    }

    #[inline(always)]
    unsafe fn load_upcast(numbers: *const T) -> Self {
        std::array::from_fn(|lane| unsafe { *numbers.add(lane) }.upcast())
    }

    #[inline(always)]
    unsafe fn add_product(self, x: Self, y: Self) -> Self {
        std::array::from_fn(|lane| self[lane] + x[lane] * y[lane])
    }

    #[inline(always)]
    unsafe fn store(self, numbers: *mut f32) {
        unsafe { *numbers.cast() = self }
    }
}

/// An element type that the wide registers can load.
#[cfg(target_arch = "x86_64")]
pub(crate) trait SimdElement: Element {
    /// Loads sixteen elements as f32.
    ///
    /// # Safety
    /// Only with AVX-512F, and sixteen elements there.
    unsafe fn load_16(numbers: *const Self) -> x86::Sixteen;
    /// Loads eight elements as f32.
    ///
    /// # Safety
    /// Only with AVX2 and F16C, and eight elements there.
    unsafe fn load_8(numbers: *const Self) -> x86::Eight;
}

#[cfg(target_arch = "aarch64")]
pub(crate) trait SimdElement: Element {
    /// Loads four elements as f32.
    ///
    /// # Safety
    /// Only with NEON, and four elements there.
    unsafe fn load_4(numbers: *const Self) -> neon::Four;
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) trait SimdElement: Element {}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
impl<T: Element> SimdElement for T {}

#[cfg(target_arch = "aarch64")]
pub(crate) mod neon {
    use super::{Lanes, SimdElement, bf16, f16};
    use std::arch::aarch64::{
        vandq_u32, vdupq_n_f32, vdupq_n_u32, vfmaq_f32, vld1_u16, vld1q_f32, vmovl_u16, vmulq_f32, vorrq_u32,
        vreinterpretq_f32_u32, vreinterpretq_u32_f32, vshlq_n_u32, vst1q_f32,
    };

    pub use std::arch::aarch64::float32x4_t as Four;

    impl<T: SimdElement> Lanes<T> for [Four; 4] {
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { [vdupq_n_f32(0.0); 4] }
        }

        #[inline(always)]
        unsafe fn load(numbers: *const f32) -> Self {
            std::array::from_fn(|part| unsafe { vld1q_f32(numbers.add(4 * part)) })
        }

        #[inline(always)]
        unsafe fn load_upcast(numbers: *const T) -> Self {
            std::array::from_fn(|part| unsafe { T::load_4(numbers.add(4 * part)) })
        }

        #[inline(always)]
        unsafe fn add_product(self, x: Self, y: Self) -> Self {
            std::array::from_fn(|part| unsafe { vfmaq_f32(self[part], x[part], y[part]) })
        }

        #[inline(always)]
        unsafe fn store(self, numbers: *mut f32) {
            for (part, four) in self.into_iter().enumerate() {
                unsafe { vst1q_f32(numbers.add(4 * part), four) }
            }
        }
    }

    impl SimdElement for f32 {
        #[inline(always)]
        unsafe fn load_4(numbers: *const f32) -> Four {
            unsafe { vld1q_f32(numbers) }
        }
    }

    impl SimdElement for bf16 {
        #[inline(always)]
        unsafe fn load_4(numbers: *const bf16) -> Four {
            unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(vld1_u16(numbers.cast())))) }
        }
    }

    impl SimdElement for f16 {
        /// As the `upcast` of `f16`: the multiplication corrects the exponent's bias and normalises subnormal numbers.
        #[inline(always)]
        unsafe fn load_4(numbers: *const f16) -> Four {
            unsafe {
                let bits = vmovl_u16(vld1_u16(numbers.cast()));
                let size = vshlq_n_u32::<13>(vandq_u32(bits, vdupq_n_u32(0x7FFF)));
                let bias = vdupq_n_f32(f32::from_bits((112 + 127) << 23));
                let size = vmulq_f32(vreinterpretq_f32_u32(size), bias);
                let sign = vshlq_n_u32::<16>(vandq_u32(bits, vdupq_n_u32(0x8000)));
                vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(size), sign))
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use super::{Lanes, SimdElement, bf16, f16};
    use std::arch::x86_64::{
        _mm_loadu_si128, _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_fmadd_ps,
        _mm256_loadu_ps, _mm256_loadu_si256, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps,
        _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
        _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_ps,
    };

    pub use std::arch::x86_64::{__m256 as Eight, __m512 as Sixteen};

    impl<T: SimdElement> Lanes<T> for Sixteen {
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { _mm512_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn load(numbers: *const f32) -> Self {
            unsafe { _mm512_loadu_ps(numbers) }
        }

        #[inline(always)]
        unsafe fn load_upcast(numbers: *const T) -> Self {
            unsafe { T::load_16(numbers) }
        }

        #[inline(always)]
        unsafe fn add_product(self, x: Self, y: Self) -> Self {
            unsafe { _mm512_fmadd_ps(x, y, self) }
        }

        #[inline(always)]
        unsafe fn store(self, numbers: *mut f32) {
            unsafe { _mm512_storeu_ps(numbers, self) }
        }
    }

    impl<T: SimdElement> Lanes<T> for [Eight; 2] {
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { [_mm256_setzero_ps(); 2] }
        }

        #[inline(always)]
        unsafe fn load(numbers: *const f32) -> Self {
            unsafe { [_mm256_loadu_ps(numbers), _mm256_loadu_ps(numbers.add(8))] }
        }

        #[inline(always)]
        unsafe fn load_upcast(numbers: *const T) -> Self {
            unsafe { [T::load_8(numbers), T::load_8(numbers.add(8))] }
        }

        #[inline(always)]
        unsafe fn add_product(self, x: Self, y: Self) -> Self {
            unsafe { [_mm256_fmadd_ps(x[0], y[0], self[0]), _mm256_fmadd_ps(x[1], y[1], self[1])] }
        }

        #[inline(always)]
        unsafe fn store(self, numbers: *mut f32) {
            unsafe {
                _mm256_storeu_ps(numbers, self[0]);
                _mm256_storeu_ps(numbers.add(8), self[1]);
            }
        }
    }

    impl SimdElement for f32 {
        #[inline(always)]
        unsafe fn load_16(numbers: *const f32) -> Sixteen {
            unsafe { _mm512_loadu_ps(numbers) }
        }

        #[inline(always)]
        unsafe fn load_8(numbers: *const f32) -> Eight {
            unsafe { _mm256_loadu_ps(numbers) }
        }
    }

    impl SimdElement for bf16 {
        #[inline(always)]
        unsafe fn load_16(numbers: *const bf16) -> Sixteen {
            unsafe {
                let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(numbers.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
            }
        }

        #[inline(always)]
        unsafe fn load_8(numbers: *const bf16) -> Eight {
            unsafe {
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(numbers.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
            }
        }
    }

    impl SimdElement for f16 {
        #[inline(always)]
        unsafe fn load_16(numbers: *const f16) -> Sixteen {
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(numbers.cast())) }
        }

        #[inline(always)]
        unsafe fn load_8(numbers: *const f16) -> Eight {
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(numbers.cast())) }
        }
    }
}
