//! Quantised matrices in GGML's block formats, kept as in the file and dequantised to f32 a few rows at a time.
//!
//! Formats: <https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c>, `dequantize_row_…`.

use candle_core::quantized::GgmlDType;

use super::block_layout::*;
use super::huge_pages::PageBuffer;
use super::lanes::{Lanes16, ValueSink};

/// A block format of GGML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantFormat {
    /// 4 bits, blocks of 32 with a scale.
    Q4_0,
    /// 4 bits, blocks of 32 with a scale and a minimum.
    Q4_1,
    /// 5 bits, blocks of 32 with a scale.
    Q5_0,
    /// 5 bits, blocks of 32 with a scale and a minimum.
    Q5_1,
    /// 8 bits, blocks of 32 with a scale.
    Q8_0,
    /// 2 bits, blocks of 256 with scales and minima of 4 bits per 16.
    Q2K,
    /// 3 bits, blocks of 256 with scales of 6 bits per 16.
    Q3K,
    /// 4 bits, blocks of 256 with scales and minima of 6 bits per 32.
    Q4K,
    /// 5 bits, blocks of 256 with scales and minima of 6 bits per 32.
    Q5K,
    /// 6 bits, blocks of 256 with scales of 8 bits per 16.
    Q6K,
    /// 4 bits that name one of sixteen uneven values, blocks of 32 with a scale.
    Iq4Nl,
    /// The same, blocks of 256 with scales of 6 bits per 32.
    Iq4Xs,
    /// Floats of 4 bits, blocks of 32 with a power of two (OCP Microscaling Formats 1.0).
    Mxfp4,
}

/// Calls a macro with the layout of a [`QuantFormat`].
macro_rules! for_block_layout {
    ($kind:expr, $with:ident) => {
        match $kind {
            $crate::model::weights::QuantFormat::Q4_0 => $with!(Q4_0),
            $crate::model::weights::QuantFormat::Q4_1 => $with!(Q4_1),
            $crate::model::weights::QuantFormat::Q5_0 => $with!(Q5_0),
            $crate::model::weights::QuantFormat::Q5_1 => $with!(Q5_1),
            $crate::model::weights::QuantFormat::Q8_0 => $with!(Q8_0),
            $crate::model::weights::QuantFormat::Q2K => $with!(Q2K),
            $crate::model::weights::QuantFormat::Q3K => $with!(Q3K),
            $crate::model::weights::QuantFormat::Q4K => $with!(Q4K),
            $crate::model::weights::QuantFormat::Q5K => $with!(Q5K),
            $crate::model::weights::QuantFormat::Q6K => $with!(Q6K),
            $crate::model::weights::QuantFormat::Iq4Nl => $with!(Iq4Nl),
            $crate::model::weights::QuantFormat::Iq4Xs => $with!(Iq4Xs),
            $crate::model::weights::QuantFormat::Mxfp4 => $with!(Mxfp4),
        }
    };
}
pub(crate) use for_block_layout;

/// A matrix of quantised rows.
#[derive(Debug)]
pub struct QuantizedMatrix {
    kind: QuantFormat,
    /// `[…, in]`; leading dimensions are those of several matrices.
    shape: Vec<usize>,
    bytes: PageBuffer<u8>,
}

impl QuantFormat {
    /// Every format.
    pub const ALL: [QuantFormat; 13] = [
        QuantFormat::Q4_0,
        QuantFormat::Q4_1,
        QuantFormat::Q5_0,
        QuantFormat::Q5_1,
        QuantFormat::Q8_0,
        QuantFormat::Q2K,
        QuantFormat::Q3K,
        QuantFormat::Q4K,
        QuantFormat::Q5K,
        QuantFormat::Q6K,
        QuantFormat::Iq4Nl,
        QuantFormat::Iq4Xs,
        QuantFormat::Mxfp4,
    ];

    /// GGML's name, values and bytes of a block, and the byte offsets of its f16 scales.
    #[inline(always)]
    const fn facts(self) -> (&'static str, usize, usize, &'static [usize]) {
        match self {
            QuantFormat::Q4_0 => ("Q4_0", 32, 18, &[0]),
            QuantFormat::Q4_1 => ("Q4_1", 32, 20, &[0, 2]),
            QuantFormat::Q5_0 => ("Q5_0", 32, 22, &[0]),
            QuantFormat::Q5_1 => ("Q5_1", 32, 24, &[0, 2]),
            QuantFormat::Q8_0 => ("Q8_0", 32, 34, &[0]),
            QuantFormat::Q2K => ("Q2_K", 256, 84, &[80, 82]),
            QuantFormat::Q3K => ("Q3_K", 256, 110, &[108]),
            QuantFormat::Q4K => ("Q4_K", 256, 144, &[0, 2]),
            QuantFormat::Q5K => ("Q5_K", 256, 176, &[0, 2]),
            QuantFormat::Q6K => ("Q6_K", 256, 210, &[208]),
            QuantFormat::Iq4Nl => ("IQ4_NL", 32, 18, &[0]),
            QuantFormat::Iq4Xs => ("IQ4_XS", 256, 136, &[0]),
            QuantFormat::Mxfp4 => ("MXFP4", 32, 17, &[]),
        }
    }

    /// GGML's name.
    pub fn name(self) -> &'static str {
        self.facts().0
    }

    /// Values of a block.
    pub fn numbers(self) -> usize {
        self.facts().1
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        self.facts().2
    }

    /// Candle's own type for a kind of block; none where it has none.
    pub(crate) fn candle(self) -> Option<GgmlDType> {
        match self {
            QuantFormat::Q4_0 => Some(GgmlDType::Q4_0),
            QuantFormat::Q4_1 => Some(GgmlDType::Q4_1),
            QuantFormat::Q5_0 => Some(GgmlDType::Q5_0),
            QuantFormat::Q5_1 => Some(GgmlDType::Q5_1),
            QuantFormat::Q8_0 => Some(GgmlDType::Q8_0),
            QuantFormat::Q2K => Some(GgmlDType::Q2K),
            QuantFormat::Q3K => Some(GgmlDType::Q3K),
            QuantFormat::Q4K => Some(GgmlDType::Q4K),
            QuantFormat::Q5K => Some(GgmlDType::Q5K),
            QuantFormat::Q6K => Some(GgmlDType::Q6K),
            QuantFormat::Iq4Nl | QuantFormat::Iq4Xs | QuantFormat::Mxfp4 => None,
        }
    }

    /// Whether a block's scales are finite: no other part of it can make a value that is not. The powers of two of MXFP4 end at
    /// 255, which stands for no number; those just below it give products out of the range of f32.
    fn is_finite(self, block: &[u8]) -> bool {
        match self {
            QuantFormat::Mxfp4 => block[0] <= 251,
            _ => self.facts().3.iter().all(|&at| scale_at(block, at).is_finite()),
        }
    }

    /// Index of the first block with a non-finite scale.
    pub(super) fn non_finite(self, bytes: &[u8]) -> Option<usize> {
        let blocks = bytes.chunks_exact(self.bytes());
        blocks.into_iter().position(|block| !self.is_finite(block))
    }

    /// Dequantises whole blocks.
    pub(crate) fn dequantize(self, bytes: &[u8], out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
                // SAFETY: the processor has AVX-512F, BW and VL.
                return unsafe { x86::dequantize_avx512(self, bytes, out) };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: the processor has AVX2 and FMA.
                return unsafe { x86::dequantize_avx2(self, bytes, out) };
            }
        }
        // SAFETY: portable code.
        unsafe { dequantize::<[f32; 16]>(self, bytes, out) }
    }
}

impl QuantizedMatrix {
    /// `bytes` has the size that the shape says, each row a whole number of blocks.
    pub(in crate::model) fn new(
        kind: QuantFormat,
        shape: Vec<usize>,
        bytes: PageBuffer<u8>,
    ) -> QuantizedMatrix {
        QuantizedMatrix { kind, shape, bytes }
    }

    /// Block format.
    pub fn kind(&self) -> QuantFormat {
        self.kind
    }

    /// Shape.
    pub fn dims(&self) -> &[usize] {
        &self.shape
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(0)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.shape[..self.shape.len().max(1) - 1].iter().product()
    }

    /// Dequantises some rows into `out`, which has their size.
    pub fn dequantize(&self, rows: std::ops::Range<usize>, out: &mut [f32]) {
        self.kind.dequantize(self.bytes(rows), out);
    }

    /// The bytes of some rows.
    pub fn bytes(&self, rows: std::ops::Range<usize>) -> &[u8] {
        let row = self.width() / self.kind.numbers() * self.kind.bytes();
        &self.bytes[rows.start * row..rows.end * row]
    }
}

/// Dequantises whole blocks with the registers of `L`.
///
/// # Safety
/// As [`Lanes16`].
#[inline(always)]
unsafe fn dequantize<L: Lanes16>(kind: QuantFormat, bytes: &[u8], out: &mut [f32]) {
    /// Writes the values one after the other.
    struct Write(*mut f32);

    impl<L: Lanes16> ValueSink<L> for Write {
        #[inline(always)]
        unsafe fn put(&mut self, group: usize, numbers: L::Bytes, scale: f32, add: f32) {
            // SAFETY: `each` gives a block room for its values.
            unsafe { L::scaled(numbers, scale, add).write(self.0.add(16 * group)) }
        }
    }

    // A function argument would not be inlined, and so not be compiled for the registers.
    macro_rules! each {
        ($format:ident) => {
            for (block, out) in bytes.as_chunks().0.iter().zip(out.chunks_exact_mut($format::VALUES)) {
                // SAFETY: as the caller says.
                unsafe { $format::decode::<L>(block, &mut Write(out.as_mut_ptr())) }
            }
        };
    }
    for_block_layout!(kind, each);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m256, __m512};

    use super::QuantFormat;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub fn dequantize_avx512(kind: QuantFormat, bytes: &[u8], out: &mut [f32]) {
        unsafe { super::dequantize::<__m512>(kind, bytes, out) }
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn dequantize_avx2(kind: QuantFormat, bytes: &[u8], out: &mut [f32]) {
        unsafe { super::dequantize::<[__m256; 2]>(kind, bytes, out) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::QTensor;
    use candle_core::{Device, Tensor};
    use half::f16;

    #[test]
    fn blocks_widen_to_what_another_implementation_gives() {
        let numbers = Tensor::randn(0f32, 1.0, (6, 512), &Device::Cpu).unwrap();
        for kind in QuantFormat::ALL {
            let Some(known) = kind.candle() else { continue };
            let other = QTensor::quantize(&numbers, known).unwrap();
            let bytes = other.data().unwrap().into_owned();
            assert_eq!(bytes.len(), 6 * 512 / kind.numbers() * kind.bytes());
            let expected = other.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap();
            let expected: Vec<f32> = expected.to_vec1().unwrap();
            let mut pages = PageBuffer::zeros(bytes.len()).unwrap();
            pages.copy_from_slice(&bytes);
            let blocks = QuantizedMatrix::new(kind, vec![6, 512], pages);
            let mut found = vec![0f32; 4 * 512];
            blocks.dequantize(1..5, &mut found);
            let far = found.iter().zip(&expected[512..5 * 512]).map(|(a, b)| (a - b).abs());
            assert!(far.fold(0.0, f32::max) <= 1e-6, "{}", kind.name());
            let mut plain = vec![0f32; 6 * 512];
            // SAFETY: portable code.
            unsafe { dequantize::<[f32; 16]>(kind, &blocks.bytes, &mut plain) };
            assert_eq!(found, plain[512..5 * 512], "{}", kind.name());
        }
    }

    /// Random bytes as the gguf package reads them (`tests/fixtures/gguf/make.py`).
    #[test]
    fn blocks_widen_to_what_ggufs_own_package_gives() {
        let path = "tests/fixtures/gguf/blocks.safetensors";
        let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        for kind in QuantFormat::ALL {
            let bytes: Vec<u8> = tensors[&format!("{}.blocks", kind.name())].to_vec1().unwrap();
            let expected: Vec<f32> = tensors[&format!("{}.numbers", kind.name())].to_vec1().unwrap();
            let mut found = vec![0f32; expected.len()];
            kind.dequantize(&bytes, &mut found);
            assert_eq!(found, expected, "{}", kind.name());
            let mut plain = vec![0f32; expected.len()];
            // SAFETY: portable code.
            unsafe { dequantize::<[f32; 16]>(kind, &bytes, &mut plain) };
            assert_eq!(plain, expected, "{}", kind.name());
        }
    }

    #[test]
    fn a_scale_that_is_no_number_is_found() {
        for kind in QuantFormat::ALL {
            let mut bytes = vec![0; 3 * kind.bytes()];
            assert_eq!(kind.non_finite(&bytes), None);
            match kind.facts().3 {
                [first, ..] => {
                    bytes[kind.bytes() + first..][..2].copy_from_slice(&f16::NAN.to_le_bytes());
                }
                [] => bytes[kind.bytes()] = 0xFF,
            }
            assert_eq!(kind.non_finite(&bytes), Some(1), "{}", kind.name());
        }
    }
}
