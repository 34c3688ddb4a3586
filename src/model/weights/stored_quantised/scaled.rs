//! Numbers of 8 bits with scales: FP8 (E4M3) of one scale a matrix, a row or a block, and integers.

use std::sync::LazyLock;

/// A matrix of bytes with scales.
pub(super) struct Scaled<'a> {
    pub numbers: &'a [u8],
    /// Whether a byte is a float (E4M3), not an integer.
    pub float: bool,
    pub inputs: usize,
    pub scales: Vec<f32>,
    /// A factor of all values after the scale.
    pub factor: f32,
    /// Zero points, as many as scales; empty for none.
    pub zeros: Vec<f32>,
    /// Rows and columns that share a scale.
    pub block: [usize; 2],
    /// Scales of a row of blocks.
    pub in_row: usize,
}

/// The values of E4M3 (no infinities; two NaNs): <https://arxiv.org/abs/2209.05433>.
static E4M3: LazyLock<[f32; 256]> = LazyLock::new(|| std::array::from_fn(|byte| e4m3(byte as u8)));

fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = ((byte >> 3 & 15) as i32, (byte & 7) as f32);
    let size = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 8.0 * 2f32.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if byte & 0x80 == 0 { size } else { -size }
}

impl Scaled<'_> {
    /// Writes row `output` of the matrix `[out, in]`.
    pub fn row(&self, output: usize, out: &mut [f32]) {
        let begin = output / self.block[0] * self.in_row;
        for (input, (out, byte)) in out.iter_mut().zip(&self.numbers[output * self.inputs..]).enumerate() {
            let at = begin + input / self.block[1];
            let number = if self.float { E4M3[*byte as usize] } else { f32::from(*byte as i8) };
            let zero = self.zeros.get(at).copied().unwrap_or(0.0);
            *out = (number - zero) * self.scales[at] * self.factor;
        }
    }
}

/// Rows and columns that share a scale, for scales of a shape; none where the shape fits no matrix of this size.
pub(super) fn block_of(
    scales: &[usize],
    [outputs, inputs]: [usize; 2],
    block: Option<[usize; 2]>,
) -> Option<[usize; 2]> {
    let [rows, columns] = match *scales {
        [] => [1, 1],
        [count] => [count, 1],
        [rows, columns] => [rows, columns],
        _ => return None,
    };
    let side = |count: usize, whole: usize, block: Option<usize>| match count {
        0 => None,
        // A block that is longer than the side has one scale, too.
        1 => Some(whole.max(1)),
        count if Some(count) == block.map(|block| whole.div_ceil(block)) => block,
        count => whole.is_multiple_of(count).then(|| whole / count),
    };
    Some([
        side(rows, outputs, block.map(|block| block[0]))?,
        side(columns, inputs, block.map(|block| block[1]))?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_of_eight_bits_are_those_of_the_format() {
        // The paper's table 1: largest, smallest normal and smallest subnormal numbers.
        for (byte, expected) in [
            (0x7E, 448.0),
            (0x08, 0.015625),
            (0x07, 0.875 * 0.015625),
            (0x01, 0.001953125),
            (0x38, 1.0),
            (0xB9, -1.125),
            (0x80, 0.0),
        ] {
            assert_eq!(e4m3(byte), expected);
        }
        assert!(e4m3(0x7F).is_nan() && e4m3(0xFF).is_nan());
    }

    #[test]
    fn a_scales_shape_says_what_shares_it() {
        let of = |scales: &[usize], block| block_of(scales, [6, 8], block);
        assert_eq!(of(&[], None), Some([6, 8]));
        assert_eq!(of(&[1], None), Some([6, 8]));
        assert_eq!(of(&[6, 1], None), Some([1, 8]));
        assert_eq!(of(&[6], None), Some([1, 8]));
        assert_eq!(of(&[6, 2], None), Some([1, 4]));
        // Blocks that the sides are no multiples of.
        assert_eq!(of(&[2, 3], Some([4, 3])), Some([4, 3]));
        assert_eq!(of(&[1, 1], Some([128, 128])), Some([6, 8]));
        assert_eq!(of(&[4, 1], None), None);
        assert_eq!(of(&[0], None), None);
    }
}
