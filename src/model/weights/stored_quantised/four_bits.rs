//! Four bits of bitsandbytes (NF4 and FP4): each names one of sixteen values, times the largest of its block (QLoRA, arXiv
//! 2305.14314).

use serde::Deserialize;

/// A matrix of half bytes, the earlier number in the high half.
pub(super) struct FourBits<'a> {
    pub bytes: &'a [u8],
    pub values: Vec<f32>,
    /// The scale of each block.
    pub scales: Vec<f32>,
    /// Numbers of a block.
    pub block: usize,
    pub inputs: usize,
}

/// What `quant_state` holds beside the tensors.
#[derive(Debug, Deserialize)]
pub(super) struct State {
    pub quant_type: String,
    pub blocksize: usize,
    pub shape: Vec<usize>,
    #[serde(default)]
    pub nested_blocksize: Option<usize>,
    #[serde(default)]
    pub nested_offset: Option<f32>,
}

impl FourBits<'_> {
    /// Writes row `output` of the matrix `[out, in]`.
    pub fn row(&self, output: usize, out: &mut [f32]) {
        for (at, out) in (output * self.inputs..).zip(out) {
            let byte = self.bytes[at / 2];
            let number = if at % 2 == 0 { byte >> 4 } else { byte & 15 };
            *out = self.values[number as usize] * self.scales[at / self.block];
        }
    }
}
