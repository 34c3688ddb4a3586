//! Keys and values of tokens that were read before, a row at a time, so that a new token costs only itself.
//! It knows nothing of the model that fills it, but how many blocks that has.

use crate::model::operations::Stretch;
use crate::model::tokens::Token;

/// What one row left behind in one block: `[tokens, key heads, head width]`, flat.
#[derive(Clone, Default)]
struct Past {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// The cache of a batch. It grows by the rows and tokens that pass through.
#[derive(Clone, Default)]
pub struct Cache {
    /// Tokens that each row holds.
    lengths: Vec<usize>,
    /// What steered each row while it was read: [`crate::model::Hook::steers`].
    steered: Vec<u64>,
    blocks: Vec<Vec<Past>>,
}

impl Cache {
    /// How many tokens of a row are held.
    pub fn length(&self, row: usize) -> usize {
        self.lengths.get(row).copied().unwrap_or(0)
    }

    /// What steered the tokens that are held of a row.
    pub fn steered(&self, row: usize) -> u64 {
        self.steered.get(row).copied().unwrap_or(0)
    }

    /// Remembers what steers a row.
    pub(super) fn steer(&mut self, row: usize, mark: u64) {
        if self.steered.len() <= row {
            self.steered.resize(row + 1, 0);
        }
        self.steered[row] = mark;
    }

    /// Drops what is held of a row.
    pub fn forget(&mut self, row: usize) {
        if let Some(length) = self.lengths.get_mut(row) {
            *length = 0;
        }
        for past in self.blocks.iter_mut().filter_map(|block| block.get_mut(row)) {
            *past = Past::default();
        }
    }

    /// Keeps the new keys and values of a block and gives each row's whole past.
    /// `width`: key heads × head width. `tokens` stand row after row.
    pub(super) fn extend<'a>(
        &'a mut self,
        block: usize,
        tokens: &[Token],
        keys: &[f32],
        values: &[f32],
        width: usize,
    ) -> Vec<Stretch<'a>> {
        if self.blocks.len() <= block {
            self.blocks.resize_with(block + 1, Vec::new);
        }
        let pasts = &mut self.blocks[block];
        let mut places = Vec::new();
        let mut begin = 0;
        for row in tokens.chunk_by(|a, b| a.row == b.row) {
            let (number, end) = (row[0].row, begin + row.len());
            if pasts.len() <= number {
                pasts.resize_with(number + 1, Past::default);
            }
            pasts[number].keys.extend_from_slice(&keys[begin * width..end * width]);
            pasts[number].values.extend_from_slice(&values[begin * width..end * width]);
            places.push((number, begin..end));
            begin = end;
        }
        let stretch = |(number, tokens): (usize, _)| Stretch {
            tokens,
            keys: &pasts[number].keys,
            values: &pasts[number].values,
        };
        places.into_iter().map(stretch).collect()
    }

    /// Counts tokens as held, once they have passed through every block.
    pub(super) fn advance(&mut self, tokens: &[Token]) {
        for token in tokens {
            if self.lengths.len() <= token.row {
                self.lengths.resize(token.row + 1, 0);
            }
            self.lengths[token.row] = token.position + 1;
        }
    }
}
