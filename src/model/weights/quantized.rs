//! Quantised matrices in GGML's block formats, kept as in the file and dequantised to f32 a few rows at a time.
//!
//! Formats: <https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c>, `dequantize_row_…`.

use candle_core::quantized::GgmlDType;
use half::f16;

use super::element::Element;
use super::huge_pages::PageBuffer;

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
    /// 4 bits, blocks of 256 with scales and minima of 6 bits per 32.
    Q4K,
    /// 5 bits, blocks of 256 with scales and minima of 6 bits per 32.
    Q5K,
    /// 6 bits, blocks of 256 with scales of 8 bits per 16.
    Q6K,
}

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
    pub const ALL: [QuantFormat; 8] = [
        QuantFormat::Q4_0,
        QuantFormat::Q4_1,
        QuantFormat::Q5_0,
        QuantFormat::Q5_1,
        QuantFormat::Q8_0,
        QuantFormat::Q4K,
        QuantFormat::Q5K,
        QuantFormat::Q6K,
    ];

    /// GGML's name.
    pub fn name(self) -> &'static str {
        match self {
            QuantFormat::Q4_0 => "Q4_0",
            QuantFormat::Q4_1 => "Q4_1",
            QuantFormat::Q5_0 => "Q5_0",
            QuantFormat::Q5_1 => "Q5_1",
            QuantFormat::Q8_0 => "Q8_0",
            QuantFormat::Q4K => "Q4_K",
            QuantFormat::Q5K => "Q5_K",
            QuantFormat::Q6K => "Q6_K",
        }
    }

    /// Values of a block.
    pub fn numbers(self) -> usize {
        match self {
            QuantFormat::Q4K | QuantFormat::Q5K | QuantFormat::Q6K => 256,
            _ => 32,
        }
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        match self {
            QuantFormat::Q4_0 => 18,
            QuantFormat::Q4_1 => 20,
            QuantFormat::Q5_0 => 22,
            QuantFormat::Q5_1 => 24,
            QuantFormat::Q8_0 => 34,
            QuantFormat::Q4K => 144,
            QuantFormat::Q5K => 176,
            QuantFormat::Q6K => 210,
        }
    }

    /// Byte offsets of a block's f16 scales: the only parts of it that can be non-finite.
    fn scales(self) -> &'static [usize] {
        match self {
            QuantFormat::Q4_0 | QuantFormat::Q5_0 | QuantFormat::Q8_0 => &[0],
            QuantFormat::Q4_1 | QuantFormat::Q5_1 | QuantFormat::Q4K | QuantFormat::Q5K => &[0, 2],
            QuantFormat::Q6K => &[208],
        }
    }

    /// Index of the first block with a non-finite scale.
    pub(super) fn non_finite(self, bytes: &[u8]) -> Option<usize> {
        let blocks = bytes.chunks_exact(self.bytes());
        blocks.into_iter().position(|block| self.scales().iter().any(|&at| !scale_at(block, at).is_finite()))
    }

    /// Dequantises whole blocks.
    pub(crate) fn dequantize(self, bytes: &[u8], out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the processor has AVX-512F.
                return unsafe { x86::dequantize_avx512(self, bytes, out) };
            }
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has AVX2.
                return unsafe { x86::dequantize_avx2(self, bytes, out) };
            }
        }
        // SAFETY: portable code.
        unsafe { dequantize::<Portable>(self, bytes, out) }
    }
}

/// Candle's own type for a kind of block.
impl From<QuantFormat> for GgmlDType {
    fn from(kind: QuantFormat) -> GgmlDType {
        match kind {
            QuantFormat::Q4_0 => GgmlDType::Q4_0,
            QuantFormat::Q4_1 => GgmlDType::Q4_1,
            QuantFormat::Q5_0 => GgmlDType::Q5_0,
            QuantFormat::Q5_1 => GgmlDType::Q5_1,
            QuantFormat::Q8_0 => GgmlDType::Q8_0,
            QuantFormat::Q4K => GgmlDType::Q4K,
            QuantFormat::Q5K => GgmlDType::Q5K,
            QuantFormat::Q6K => GgmlDType::Q6K,
        }
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

/// Dequantises whole blocks, sixteen values at a time in the registers of `S`.
///
/// # Safety
/// As [`Lanes16::put`].
#[inline(always)]
unsafe fn dequantize<S: Lanes16>(kind: QuantFormat, bytes: &[u8], out: &mut [f32]) {
    // A function argument would not be inlined, and so not be compiled for the registers.
    macro_rules! each {
        ($block:ident) => {
            for (block, out) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
                // SAFETY: as the caller says.
                unsafe { $block::<S>(block, out) }
            }
        };
    }
    match kind {
        QuantFormat::Q4_0 => each!(q4_0),
        QuantFormat::Q4_1 => each!(q4_1),
        QuantFormat::Q5_0 => each!(q5_0),
        QuantFormat::Q5_1 => each!(q5_1),
        QuantFormat::Q8_0 => each!(q8_0),
        QuantFormat::Q4K => each!(q4_k),
        QuantFormat::Q5K => each!(q5_k),
        QuantFormat::Q6K => each!(q6_k),
    }
}

/// Dequantisation of sixteen values. Written per instruction set because the compiler vectorises across blocks and scatters the
/// results.
trait Lanes16 {
    /// Writes `scale · value + add` for each value.
    ///
    /// # Safety
    /// The processor must have the instructions of the type.
    unsafe fn put(out: &mut [f32; 16], numbers: [u8; 16], scale: f32, add: f32);
}

/// Portable code.
struct Portable;

impl Lanes16 for Portable {
    #[inline(always)]
    unsafe fn put(out: &mut [f32; 16], numbers: [u8; 16], scale: f32, add: f32) {
        for (out, number) in out.iter_mut().zip(numbers) {
            *out = scale * number as f32 + add;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _mm_loadu_si128, _mm_srli_si128, _mm256_add_ps, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32,
        _mm256_mul_ps, _mm256_set1_ps, _mm256_storeu_ps, _mm512_add_ps, _mm512_cvtepi32_ps,
        _mm512_cvtepu8_epi32, _mm512_mul_ps, _mm512_set1_ps, _mm512_storeu_ps,
    };

    use super::{Lanes16, QuantFormat};

    struct Avx512;
    struct Avx2;

    impl Lanes16 for Avx512 {
        #[inline(always)]
        unsafe fn put(out: &mut [f32; 16], numbers: [u8; 16], scale: f32, add: f32) {
            unsafe {
                let numbers =
                    _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(numbers.as_ptr().cast())));
                let scaled = _mm512_mul_ps(numbers, _mm512_set1_ps(scale));
                _mm512_storeu_ps(out.as_mut_ptr(), _mm512_add_ps(scaled, _mm512_set1_ps(add)));
            }
        }
    }

    impl Lanes16 for Avx2 {
        #[inline(always)]
        unsafe fn put(out: &mut [f32; 16], numbers: [u8; 16], scale: f32, add: f32) {
            unsafe {
                let numbers = _mm_loadu_si128(numbers.as_ptr().cast());
                for (half, numbers) in [(0, numbers), (8, _mm_srli_si128::<8>(numbers))] {
                    let numbers = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(numbers));
                    let scaled = _mm256_mul_ps(numbers, _mm256_set1_ps(scale));
                    _mm256_storeu_ps(out.as_mut_ptr().add(half), _mm256_add_ps(scaled, _mm256_set1_ps(add)));
                }
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    pub fn dequantize_avx512(kind: QuantFormat, bytes: &[u8], out: &mut [f32]) {
        unsafe { super::dequantize::<Avx512>(kind, bytes, out) }
    }

    #[target_feature(enable = "avx2")]
    pub fn dequantize_avx2(kind: QuantFormat, bytes: &[u8], out: &mut [f32]) {
        unsafe { super::dequantize::<Avx2>(kind, bytes, out) }
    }
}

#[inline(always)]
fn scale_at(block: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([block[at], block[at + 1]])
}

#[inline(always)]
fn scale(block: &[u8], at: usize) -> f32 {
    scale_at(block, at).upcast()
}

#[inline(always)]
fn bytes_at(block: &[u8], at: usize) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&block[at..at + 16]);
    bytes
}

/// The 4 bits of each byte from bit `shift` on.
#[inline(always)]
fn four(bytes: [u8; 16], shift: u32) -> [u8; 16] {
    let mut fours = bytes;
    for four in &mut fours {
        *four = *four >> shift & 15;
    }
    fours
}

/// Adds bits 4 and up: `mask` of each byte of `bytes` from bit `shift` on.
#[inline(always)]
fn with_bits(mut fours: [u8; 16], bytes: [u8; 16], shift: u32, mask: u8) -> [u8; 16] {
    for (four, byte) in fours.iter_mut().zip(bytes) {
        *four |= (byte >> shift & mask) << 4;
    }
    fours
}

/// Adds sixteen single bits as bit 4 of each byte.
#[inline(always)]
fn fifth(mut fours: [u8; 16], block: &[u8], at: usize) -> [u8; 16] {
    let bits = [block[at], block[at + 1]];
    for (i, four) in fours.iter_mut().enumerate() {
        *four |= (bits[i / 8] >> (i % 8) & 1) << 4;
    }
    fours
}

/// The `number`th group of sixteen values of a block.
#[inline(always)]
fn place<const N: usize>(out: &mut [f32; N], number: usize) -> &mut [f32; 16] {
    &mut out.as_chunks_mut().0[number]
}

// SAFETY (of all): they need the instructions of their `S`, as the caller guarantees.

#[inline(always)]
unsafe fn q4_0<S: Lanes16>(block: &[u8; 18], out: &mut [f32; 32]) {
    let (d, pairs) = (scale(block, 0), bytes_at(block, 2));
    unsafe {
        S::put(place(out, 0), four(pairs, 0), d, -8.0 * d);
        S::put(place(out, 1), four(pairs, 4), d, -8.0 * d);
    }
}

#[inline(always)]
unsafe fn q4_1<S: Lanes16>(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, least, pairs) = (scale(block, 0), scale(block, 2), bytes_at(block, 4));
    unsafe {
        S::put(place(out, 0), four(pairs, 0), d, least);
        S::put(place(out, 1), four(pairs, 4), d, least);
    }
}

#[inline(always)]
unsafe fn q5_0<S: Lanes16>(block: &[u8; 22], out: &mut [f32; 32]) {
    let (d, pairs) = (scale(block, 0), bytes_at(block, 6));
    unsafe {
        S::put(place(out, 0), fifth(four(pairs, 0), block, 2), d, -16.0 * d);
        S::put(place(out, 1), fifth(four(pairs, 4), block, 4), d, -16.0 * d);
    }
}

#[inline(always)]
unsafe fn q5_1<S: Lanes16>(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, least, pairs) = (scale(block, 0), scale(block, 2), bytes_at(block, 8));
    unsafe {
        S::put(place(out, 0), fifth(four(pairs, 0), block, 4), d, least);
        S::put(place(out, 1), fifth(four(pairs, 4), block, 6), d, least);
    }
}

#[inline(always)]
unsafe fn q8_0<S: Lanes16>(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = scale(block, 0);
    for half in 0..2 {
        // A signed byte plus 128 is the byte with its highest bit flipped.
        let numbers = bytes_at(block, 2 + 16 * half).map(|byte| byte ^ 0x80);
        unsafe { S::put(place(out, half), numbers, d, -128.0 * d) }
    }
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

#[inline(always)]
unsafe fn q4_k<S: Lanes16>(block: &[u8; 144], out: &mut [f32; 256]) {
    let scales = packed_scales(block);
    for part in 0..4 {
        for half in 0..2 {
            let pairs = bytes_at(block, 16 + 32 * part + 16 * half);
            for side in 0..2 {
                let (d, least) = scales[2 * part + side];
                let numbers = four(pairs, 4 * side as u32);
                unsafe { S::put(place(out, 4 * part + 2 * side + half), numbers, d, least) }
            }
        }
    }
}

#[inline(always)]
unsafe fn q5_k<S: Lanes16>(block: &[u8; 176], out: &mut [f32; 256]) {
    let scales = packed_scales(block);
    for part in 0..4 {
        for half in 0..2 {
            let (pairs, fifths) =
                (bytes_at(block, 48 + 32 * part + 16 * half), bytes_at(block, 16 + 16 * half));
            for side in 0..2 {
                let (d, least) = scales[2 * part + side];
                let numbers = with_bits(four(pairs, 4 * side as u32), fifths, (2 * part + side) as u32, 1);
                unsafe { S::put(place(out, 4 * part + 2 * side + half), numbers, d, least) }
            }
        }
    }
}

#[inline(always)]
unsafe fn q6_k<S: Lanes16>(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = scale(block, 208);
    for half in 0..2 {
        for quarter in 0..4 {
            for side in 0..2 {
                // Four bits of each value in one byte, the other two in another.
                let low = bytes_at(block, 64 * half + 32 * (quarter % 2) + 16 * side);
                let high = bytes_at(block, 128 + 32 * half + 16 * side);
                let numbers = with_bits(four(low, 4 * (quarter / 2) as u32), high, 2 * quarter as u32, 3);
                let d = d * (block[192 + 8 * half + 2 * quarter + side] as i8) as f32;
                unsafe { S::put(place(out, 8 * half + 2 * quarter + side), numbers, d, -32.0 * d) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::QTensor;
    use candle_core::{Device, Tensor};

    #[test]
    fn blocks_widen_to_what_another_implementation_gives() {
        let numbers = Tensor::randn(0f32, 1.0, (6, 512), &Device::Cpu).unwrap();
        for kind in QuantFormat::ALL {
            let other = QTensor::quantize(&numbers, kind.into()).unwrap();
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
            unsafe { dequantize::<Portable>(kind, &blocks.bytes, &mut plain) };
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
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{}", kind.name());
            }
        }
    }

    #[test]
    fn a_scale_that_is_no_number_is_found() {
        for kind in QuantFormat::ALL {
            let mut bytes = vec![0; 3 * kind.bytes()];
            assert_eq!(kind.non_finite(&bytes), None);
            bytes[kind.bytes() + kind.scales()[0]..][..2].copy_from_slice(&f16::NAN.to_le_bytes());
            assert_eq!(kind.non_finite(&bytes), Some(1), "{}", kind.name());
        }
    }
}
