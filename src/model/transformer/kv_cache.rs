//! Keys and values of tokens that were read before, a row at a time, so that a new token costs only itself.
//! It knows nothing of the model that fills it, but how many blocks that has.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::model::compute::candle::ops as candle_ops;
use crate::model::compute::cpu::kv_segment::KvSegment;
use crate::model::site::{Point, Site};
use crate::model::token::Token;

/// What one row left behind in one block: `[tokens, key heads, head width]`, flat.
#[derive(Clone, Default)]
struct RowKv {
    keys: Vec<f32>,
    values: Vec<f32>,
    /// Keys and values where candle's own operations made them: then there are no others.
    tensors: Option<[Tensor; 2]>,
}

/// What a beginning that several rows share left behind in every block.
#[derive(Clone)]
pub struct Prefix {
    length: usize,
    blocks: Arc<[RowKv]>,
}

/// The cache of a batch. It grows by the rows and tokens that pass through.
#[derive(Clone, Default)]
pub struct Cache {
    /// Tokens that each row holds.
    lengths: Vec<usize>,
    /// What steered each row while it was read: [`crate::model::Hook::cache_key`].
    steered: Vec<u64>,
    blocks: Vec<Vec<RowKv>>,
    /// What every row begins with.
    prefix: Option<Prefix>,
    /// How many blocks' keys and values are held; none for all.
    depth: Option<usize>,
}

impl Cache {
    /// What one row holds, for others to begin with.
    pub fn into_prefix(self, row: usize) -> Prefix {
        let length = self.length(row);
        let of = |mut block: Vec<RowKv>| block.get_mut(row).map(std::mem::take).unwrap_or_default();
        Prefix { length, blocks: self.blocks.into_iter().map(of).collect() }
    }

    /// For a pass over rows that all begin with `prefix`, which stands in memory once. What the rows add to it is not
    /// kept: they can be read, but not gone on with.
    pub fn after(prefix: Prefix) -> Cache {
        Cache { prefix: Some(prefix), ..Cache::default() }
    }

    /// For tokens of which only the first blocks' keys and values will be asked.
    pub fn of_first(blocks: usize) -> Cache {
        Cache { depth: Some(blocks), ..Cache::default() }
    }

    /// The last site that a pass must reach for what is to be held, in a model of so many blocks.
    pub(crate) fn last(&self, blocks: usize) -> Option<Site> {
        let deepest = self.depth.map_or(blocks, |depth| depth.min(blocks)).checked_sub(1)?;
        self.keeps().then_some(Site::Block(deepest, Point::AttnHeads))
    }

    /// Refuses a pass that goes on to blocks of which nothing is held.
    pub(crate) fn check_depth(&self, last: Option<Site>, blocks: usize) -> Result<()> {
        let depth = self.prefix.as_ref().map(|prefix| prefix.blocks.len()).or(self.depth).unwrap_or(blocks);
        if depth < blocks && last >= Some(Site::Block(depth, Point::AttnHeads)) {
            let expected = "a cache of every block that is run";
            return Err(Error::input(
                "the cache",
                format!("keys and values of {depth} blocks only"),
                expected,
            ));
        }
        Ok(())
    }

    /// Whether tokens that pass through are held.
    pub(crate) fn keeps(&self) -> bool {
        self.prefix.is_none()
    }

    /// How many tokens of a row are held.
    pub fn length(&self, row: usize) -> usize {
        match &self.prefix {
            Some(prefix) => prefix.length,
            None => self.lengths.get(row).copied().unwrap_or(0),
        }
    }

    /// What steered the tokens that are held of a row.
    pub fn steered(&self, row: usize) -> u64 {
        self.steered.get(row).copied().unwrap_or(0)
    }

    /// Remembers what steers a row.
    pub(crate) fn steer(&mut self, row: usize, mark: u64) {
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
            *past = RowKv::default();
        }
    }

    /// Keeps the new keys and values of a block and gives each row's whole past.
    /// `width`: key heads × head width. `tokens` stand row after row.
    pub(crate) fn extend<'a>(
        &'a mut self,
        block: usize,
        tokens: &[Token],
        keys: &[f32],
        values: &[f32],
        width: usize,
    ) -> Vec<KvSegment<'a>> {
        let places = self.for_each_row(block, tokens, |past, shared, tokens| {
            if let Some(shared) = shared {
                past.keys.clone_from(&shared.keys);
                past.values.clone_from(&shared.values);
            }
            past.keys.extend_from_slice(&keys[tokens.start * width..tokens.end * width]);
            past.values.extend_from_slice(&values[tokens.start * width..tokens.end * width]);
        });
        let pasts = &self.blocks[self.place(block)];
        let segment = |(number, tokens, ()): (usize, Range<usize>, ())| KvSegment {
            tokens,
            keys: &pasts[number].keys,
            values: &pasts[number].values,
        };
        places.into_iter().map(segment).collect()
    }

    /// [`Cache::extend`] of keys and values `[tokens, key heads, head width]` on any device, where they stay.
    pub(crate) fn extend_tensors(
        &mut self,
        block: usize,
        tokens: &[Token],
        sides: [&Tensor; 2],
    ) -> Result<Vec<candle_ops::KvSegment>> {
        let rows =
            self.for_each_row(block, tokens, |past, shared, tokens| -> Result<candle_ops::KvSegment> {
                let before = shared.unwrap_or(past).tensors.clone();
                let side = |which: usize| -> Result<Tensor> {
                    let new = sides[which].narrow(0, tokens.start, tokens.len())?;
                    match &before {
                        Some(before) => Ok(Tensor::cat(&[&before[which], &new], 0)?),
                        None => Ok(new),
                    }
                };
                let [keys, values] = [side(0)?, side(1)?];
                past.tensors = Some([keys.clone(), values.clone()]);
                Ok(candle_ops::KvSegment { tokens, keys, values })
            });
        rows.into_iter().map(|(_, _, segment)| segment).collect()
    }

    /// Where a block's past stands: where nothing is kept, each block takes the place of the one before it.
    fn place(&self, block: usize) -> usize {
        if self.keeps() { block } else { 0 }
    }

    /// Calls `with` on the past of each row, what all rows share of it, and where the row's tokens stand among `tokens`;
    /// gives each row's number, those places, and what `with` gave.
    fn for_each_row<T>(
        &mut self,
        block: usize,
        tokens: &[Token],
        mut with: impl FnMut(&mut RowKv, Option<&RowKv>, Range<usize>) -> T,
    ) -> Vec<(usize, Range<usize>, T)> {
        let place = self.place(block);
        if self.blocks.len() <= place {
            self.blocks.resize_with(place + 1, Vec::new);
        }
        let pasts = &mut self.blocks[place];
        let shared = self.prefix.as_ref().and_then(|prefix| prefix.blocks.get(block));
        let mut begin = 0;
        let rows = tokens.chunk_by(|a, b| a.row == b.row).map(|row| {
            let (number, tokens) = (row[0].row, begin..begin + row.len());
            begin = tokens.end;
            if pasts.len() <= number {
                pasts.resize_with(number + 1, RowKv::default);
            }
            (number, tokens.clone(), with(&mut pasts[number], shared, tokens))
        });
        rows.collect()
    }

    /// Counts tokens as held, once they have passed through every block.
    pub(crate) fn advance(&mut self, tokens: &[Token]) {
        if !self.keeps() {
            return;
        }
        for token in tokens {
            if self.lengths.len() <= token.row {
                self.lengths.resize(token.row + 1, 0);
            }
            self.lengths[token.row] = token.position + 1;
        }
    }
}
