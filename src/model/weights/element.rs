//! The element types of a dense matrix (f32, bf16, f16), with their conversions from and to f32.

use candle_core::WithDType;
use half::slice::HalfFloatSliceExt;
use half::vec::HalfBitsVecExt;
use half::{bf16, f16};

/// The element type of a dense matrix. Elements are finite.
pub trait Element: WithDType {
    /// The same value as f32, exactly.
    fn upcast(self) -> f32;

    /// Whether it is neither infinite nor NaN.
    fn finite(self) -> bool;

    /// Reads little-endian bytes of this type.
    fn read_le(bytes: &[u8], out: &mut [Self]);

    /// Rounds to the nearest values of this type; overflow becomes infinity.
    fn downcast(numbers: &[f32], out: &mut [Self]);

    /// Zeros, in pages that the system allocates on the first write.
    fn zeros(count: usize) -> Vec<Self>;
}

impl Element for f32 {
    #[inline(always)]
    fn upcast(self) -> f32 {
        self
    }

    #[inline(always)]
    fn finite(self) -> bool {
        self.is_finite()
    }

    fn read_le(bytes: &[u8], out: &mut [f32]) {
        out.iter_mut().zip(bytes.as_chunks().0).for_each(|(out, &bytes)| *out = f32::from_le_bytes(bytes));
    }

    fn downcast(numbers: &[f32], out: &mut [f32]) {
        out.copy_from_slice(numbers);
    }

    fn zeros(count: usize) -> Vec<f32> {
        vec![0.0; count]
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn upcast(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }

    #[inline(always)]
    fn finite(self) -> bool {
        self.to_bits() & 0x7F80 != 0x7F80
    }

    fn read_le(bytes: &[u8], out: &mut [bf16]) {
        out.iter_mut().zip(bytes.as_chunks().0).for_each(|(out, &bytes)| *out = bf16::from_le_bytes(bytes));
    }

    fn downcast(numbers: &[f32], out: &mut [bf16]) {
        for (out, number) in out.iter_mut().zip(numbers) {
            // Round to nearest, ties to even; the carry of the largest values gives infinity.
            let bits = number.to_bits();
            *out = bf16::from_bits(((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) as u16);
        }
    }

    fn zeros(count: usize) -> Vec<bf16> {
        vec![0u16; count].reinterpret_into()
    }
}

impl Element for f16 {
    #[inline(always)]
    fn upcast(self) -> f32 {
        // The exponent's bias differs by 112. A multiplication corrects it and normalises subnormal values, without a branch.
        let bits = self.to_bits() as u32;
        let size = f32::from_bits((bits & 0x7FFF) << 13) * f32::from_bits((112 + 127) << 23);
        f32::from_bits(size.to_bits() | (bits & 0x8000) << 16)
    }

    #[inline(always)]
    fn finite(self) -> bool {
        self.to_bits() & 0x7C00 != 0x7C00
    }

    fn read_le(bytes: &[u8], out: &mut [f16]) {
        out.iter_mut().zip(bytes.as_chunks().0).for_each(|(out, &bytes)| *out = f16::from_le_bytes(bytes));
    }

    fn downcast(numbers: &[f32], out: &mut [f16]) {
        out.convert_from_f32_slice(numbers);
    }

    fn zeros(count: usize) -> Vec<f16> {
        vec![0u16; count].reinterpret_into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_finite_number_widens_to_itself() {
        for bits in 0..=u16::MAX {
            let (one, two) = (bf16::from_bits(bits), f16::from_bits(bits));
            assert_eq!(one.finite(), one.is_finite());
            assert_eq!(two.finite(), two.is_finite());
            if one.finite() {
                assert_eq!(one.upcast().to_bits(), one.to_f32().to_bits());
            }
            if two.finite() {
                assert_eq!(two.upcast().to_bits(), two.to_f32().to_bits());
            }
        }
    }

    proptest! {
        #[test]
        fn narrowing_takes_the_nearest_number(bits: u32) {
            let number = f32::from_bits(bits);
            if number.is_finite() {
                let (mut one, mut two) = ([bf16::ZERO], [f16::ZERO]);
                bf16::downcast(&[number], &mut one);
                f16::downcast(&[number], &mut two);
                prop_assert_eq!(one[0].to_bits(), bf16::from_f32(number).to_bits());
                prop_assert_eq!(two[0].to_bits(), f16::from_f32(number).to_bits());
            }
        }
    }
}
