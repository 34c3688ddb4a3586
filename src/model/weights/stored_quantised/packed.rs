//! Integers of a few bits, packed into words of 32 with a scale and a zero point for each group of inputs: GPTQ, AWQ, and
//! pack-quantized of compressed-tensors.

/// Where the number of an output and an input is in the words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Packing {
    /// `[in · bits / 32, out]`: a word has numbers of one output.
    Inputs,
    /// `[in, out / 8]`, the columns of a word in AWQ's order.
    Awq,
    /// `[out, in · bits / 32]`: a word has numbers of one output.
    Rows,
}

/// The half byte of a word that has the column: the conversion writes columns 0, 2, 4, 6, 1, 3, 5, 7.
const AWQ_ORDER: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// A packed matrix.
pub(super) struct Packed<'a> {
    pub packing: Packing,
    pub bits: usize,
    /// Little-endian words.
    pub words: &'a [u8],
    pub outputs: usize,
    pub inputs: usize,
    /// The group of each input.
    pub groups: Vec<u32>,
    /// Scale and zero point: `[groups, out]`, for [`Packing::Rows`] `[out, groups]`.
    pub scales: Vec<f32>,
    pub zeros: Vec<f32>,
}

impl Packed<'_> {
    /// Writes row `output` of the matrix `[out, in]`.
    pub fn row(&self, output: usize, out: &mut [f32]) {
        let count = self.scales.len() / self.outputs.max(1);
        let (by_group, by_output) = match self.packing {
            Packing::Inputs | Packing::Awq => (self.outputs, 1),
            Packing::Rows => (1, count),
        };
        for (input, (out, group)) in out.iter_mut().zip(&self.groups).enumerate() {
            let at = *group as usize * by_group + output * by_output;
            *out = self.scales[at] * (self.number(output, input) as f32 - self.zeros[at]);
        }
    }

    fn number(&self, output: usize, input: usize) -> u32 {
        let bit = input * self.bits;
        let (word, shift) = match self.packing {
            Packing::Inputs => (bit / 32 * self.outputs + output, bit % 32),
            Packing::Awq => (input * (self.outputs / 8) + output / 8, 4 * AWQ_ORDER[output % 8]),
            Packing::Rows => (output * (self.inputs * self.bits).div_ceil(32) + bit / 32, bit % 32),
        };
        number(self.words, word, shift, self.bits)
    }
}

/// A number of some bits within a word.
fn number(words: &[u8], word: usize, shift: usize, bits: usize) -> u32 {
    let word = u32::from_le_bytes(words.as_chunks().0[word]);
    (word >> shift) & ((1 << bits) - 1)
}

/// Zero points, packed by columns of `[rows, columns]`: of GPTQ with `offset`, or of AWQ, for which there is none.
pub(super) fn zeros(
    packing: Packing,
    words: &[u8],
    bits: usize,
    [rows, columns]: [usize; 2],
    offset: u32,
) -> Vec<f32> {
    let at = |row: usize, column: usize| match packing {
        Packing::Inputs => {
            let bit = column * bits;
            let found = number(words, row * (columns * bits / 32) + bit / 32, bit % 32, bits);
            // Less one is stored with a wrap-around.
            (found + offset) & ((1 << bits) - 1)
        }
        Packing::Awq => number(words, row * (columns / 8) + column / 8, 4 * AWQ_ORDER[column % 8], bits),
        // Packed by rows: `[rows · bits / 32, columns]`.
        Packing::Rows => {
            let bit = row * bits;
            number(words, bit / 32 * columns + column, bit % 32, bits)
        }
    };
    (0..rows)
        .flat_map(|row| (0..columns).map(move |column| (row, column)))
        .map(|(row, column)| at(row, column) as f32)
        .collect()
}
