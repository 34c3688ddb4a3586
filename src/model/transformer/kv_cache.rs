//! The cache of a batch, row by row: keys and values in blocks with attention, a recurrent state in the others.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;

use super::row_state::RowState;
use crate::error::{Error, Result};
use crate::model::compute::candle::ops as candle_ops;
use crate::model::compute::cpu::kv_segment::KvSegment;
use crate::model::site::{Point, Site};
use crate::model::token::Token;

fn too_short(held: usize, length: usize) -> Error {
    Error::input(
        "the cache",
        format!("{held} tokens of a row"),
        format!("{length} tokens or more, of every block"),
    )
}

/// Refuses the first tokens of more, where some block keeps a recurrent state: it is that after the last of them.
fn check_whole<'a>(length: usize, held: usize, mut states: impl Iterator<Item = &'a RowState>) -> Result<()> {
    if length == 0 || length == held || !states.any(RowState::is_recurrent) {
        return Ok(());
    }
    let found = format!("a recurrent state after {held} tokens of a row, of which {length} are asked for");
    Err(Error::input("the cache", found, "all of them: such a state can't be cut"))
}

/// What a cache keeps of a prefix that several rows share, in every block.
#[derive(Clone)]
pub struct Prefix {
    length: usize,
    blocks: Arc<[RowState]>,
}

impl Prefix {
    /// Its number of tokens.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Its size in memory.
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(RowState::bytes).sum()
    }
}

/// The cache of a batch. Rows and tokens are added by each pass.
#[derive(Clone, Default)]
pub struct Cache {
    /// Number of cached tokens of each row.
    lengths: Vec<usize>,
    /// Steering of each row's cached tokens: [`crate::model::Hook::cache_key`].
    steered: Vec<u64>,
    blocks: Vec<Vec<RowState>>,
    /// A prefix that every row begins with.
    prefix: Option<Prefix>,
    /// Number of blocks that are cached; none for all.
    depth: Option<usize>,
    /// Whether some block keeps a recurrent state.
    has_recurrent: bool,
    /// Whether blocks use the keys and values of earlier ones.
    is_shared: bool,
}

impl Cache {
    /// The keys and values of one row, as a prefix for other rows.
    pub fn into_prefix(mut self, row: usize) -> Prefix {
        self.take(row)
    }

    /// Removes a row, and gives its keys and values as a prefix for other rows.
    pub fn take(&mut self, row: usize) -> Prefix {
        let length = self.length(row);
        let of = |block: &mut Vec<RowState>| {
            block.get_mut(row).map(std::mem::take).unwrap_or_default().without_room()
        };
        let blocks = self.blocks.iter_mut().map(of).collect();
        self.forget(row);
        Prefix { length, blocks }
    }

    /// Copies of the keys and values of a row's first tokens; the row stays.
    ///
    /// # Errors
    /// Fewer cached tokens than `length`, or more where some block keeps a recurrent state.
    pub fn copy(&self, row: usize, length: usize) -> Result<Prefix> {
        let held = self.length(row);
        if held < length || self.prefix.is_some() {
            return Err(too_short(held, length));
        }
        check_whole(length, held, self.blocks.iter().filter_map(|block| block.get(row)))?;
        let of = |block: &Vec<RowState>| -> Result<RowState> {
            Ok(block.get(row).map(|state| state.first(length, held)).transpose()?.unwrap_or_default())
        };
        Ok(Prefix { length, blocks: self.blocks.iter().map(of).collect::<Result<_>>()? })
    }

    /// Begins a row with copies of the first `length` tokens of a prefix. `steered`: the row's [`crate::model::Hook::cache_key`]; the
    /// caller knows that its steering changes these tokens as that of the prefix did.
    ///
    /// # Errors
    /// A prefix of fewer tokens, or of more where some block keeps a recurrent state; a cache of first blocks or after a prefix.
    pub fn begin(&mut self, row: usize, prefix: &Prefix, length: usize, steered: u64) -> Result<()> {
        if prefix.length < length || self.prefix.is_some() || self.depth.is_some() {
            return Err(too_short(prefix.length, length));
        }
        check_whole(length, prefix.length, prefix.blocks.iter())?;
        if self.blocks.len() < prefix.blocks.len() {
            self.blocks.resize_with(prefix.blocks.len(), Vec::new);
        }
        for (block, kv) in self.blocks.iter_mut().zip(prefix.blocks.iter()) {
            if block.len() <= row {
                block.resize_with(row + 1, RowState::default);
            }
            block[row] = kv.first(length, prefix.length)?;
        }
        if self.lengths.len() <= row {
            self.lengths.resize(row + 1, 0);
        }
        self.lengths[row] = length;
        self.steer(row, steered);
        Ok(())
    }

    /// A cache for one pass over rows that all begin with `prefix`, which is in memory once. The rows' own keys and values aren't
    /// kept, so that they can be read but not continued.
    pub fn after(prefix: Prefix) -> Cache {
        Cache { prefix: Some(prefix), ..Cache::default() }
    }

    /// A cache of the first blocks only, for passes that go no deeper.
    pub fn of_first(blocks: usize) -> Cache {
        Cache { depth: Some(blocks), ..Cache::default() }
    }

    /// The last site that a pass must reach to fill the cache, in a model of so many blocks.
    pub(crate) fn last(&self, blocks: usize) -> Option<Site> {
        let deepest = self.depth.map_or(blocks, |depth| depth.min(blocks)).checked_sub(1)?;
        self.keeps().then_some(Site::Block(deepest, Point::AttnHeads))
    }

    /// Refuses a pass deeper than the cached blocks.
    pub(crate) fn check_depth(&self, last: Option<Site>, blocks: usize) -> Result<()> {
        let depth = self.prefix.as_ref().map(|prefix| prefix.blocks.len()).or(self.depth).unwrap_or(blocks);
        if depth < blocks && last >= Some(Site::Block(depth, Point::AttnHeads)) {
            let expected = "a cache of every block that the pass runs";
            return Err(Error::input(
                "the cache",
                format!("keys and values of {depth} blocks only"),
                expected,
            ));
        }
        Ok(())
    }

    /// Whether the tokens of a pass are cached.
    pub(crate) fn keeps(&self) -> bool {
        self.prefix.is_none()
    }

    /// Number of cached tokens of a row.
    pub fn length(&self, row: usize) -> usize {
        match &self.prefix {
            Some(prefix) => prefix.length,
            None => self.lengths.get(row).copied().unwrap_or(0),
        }
    }

    /// Steering of the cached tokens of a row.
    pub fn steered(&self, row: usize) -> u64 {
        self.steered.get(row).copied().unwrap_or(0)
    }

    /// Records the steering of a row.
    pub(crate) fn steer(&mut self, row: usize, mark: u64) {
        if self.steered.len() <= row {
            self.steered.resize(row + 1, 0);
        }
        self.steered[row] = mark;
    }

    /// Removes what a pass that failed left of its tokens.
    ///
    /// # Errors
    /// A tensor operation.
    pub fn undo(&mut self) -> Result<()> {
        let lengths = &self.lengths;
        for block in &mut self.blocks {
            for (row, kv) in block.iter_mut().enumerate() {
                let length = lengths.get(row).copied().unwrap_or(0);
                if kv.held > length {
                    *kv = kv.first(length, kv.held)?;
                }
            }
        }
        Ok(())
    }

    /// Removes a row's tokens.
    pub fn forget(&mut self, row: usize) {
        if let Some(length) = self.lengths.get_mut(row) {
            *length = 0;
        }
        for past in self.blocks.iter_mut().filter_map(|block| block.get_mut(row)) {
            *past = RowState::default();
        }
    }

    /// Appends the keys and values of new tokens in a block; gives all keys and values of each row. `width`: key heads × head width.
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

    /// [`Cache::extend`] for tensors `[tokens, key heads, head width]` on any device, where they stay.
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

    /// The recurrent states of the rows of new tokens in a block, as they are before these: `size` numbers each, to be changed in place.
    /// What becomes of them counts once the pass has ended.
    pub(crate) fn recur(
        &mut self,
        block: usize,
        tokens: &[Token],
        size: usize,
    ) -> Vec<(Range<usize>, &mut [f32])> {
        self.has_recurrent = true;
        let mut places = self.for_each_row(block, tokens, |state, shared, _| state.begin_pass(shared, size));
        places.sort_unstable_by_key(|(row, ..)| *row);
        let place = self.place(block);
        let mut places = places.into_iter().peekable();
        let states = self.blocks[place].iter_mut().enumerate().filter_map(|(row, state)| {
            let (_, tokens, ()) = places.next_if(|(next, ..)| *next == row)?;
            Some((tokens, state.running()))
        });
        states.collect()
    }

    /// Keeps the keys and values of every block through a pass, since later blocks use them.
    pub(crate) fn share_blocks(&mut self) {
        self.is_shared = true;
    }

    /// All keys and values of each row in an earlier block, `source`, to which this pass has added its own.
    pub(crate) fn shared(&mut self, block: usize, source: usize, tokens: &[Token]) -> Vec<KvSegment<'_>> {
        self.reach(block);
        let rows = self.rows_of(source, tokens).into_iter();
        rows.map(|(tokens, state)| KvSegment { tokens, keys: &state.keys, values: &state.values }).collect()
    }

    /// [`Cache::shared`] for tensors on any device.
    pub(crate) fn shared_tensors(
        &mut self,
        block: usize,
        source: usize,
        tokens: &[Token],
    ) -> Vec<candle_ops::KvSegment> {
        self.reach(block);
        let rows = self.rows_of(source, tokens).into_iter();
        let segment = |(tokens, state): (Range<usize>, &RowState)| {
            let [keys, values] = state.tensors.clone()?;
            Some(candle_ops::KvSegment { tokens, keys, values })
        };
        rows.filter_map(segment).collect()
    }

    /// Counts a block without keys and values of its own as cached.
    fn reach(&mut self, block: usize) {
        if self.blocks.len() <= block {
            self.blocks.resize_with(block + 1, Vec::new);
        }
    }

    /// The states of the rows of a pass in a block.
    fn rows_of(&self, block: usize, tokens: &[Token]) -> Vec<(Range<usize>, &RowState)> {
        let states = self.blocks.get(self.place(block)).map_or(&[][..], Vec::as_slice);
        let mut begin = 0;
        let rows = tokens.chunk_by(|a, b| a.row == b.row).filter_map(|row| {
            let range = begin..begin + row.len();
            begin = range.end;
            Some((range, states.get(row[0].row)?))
        });
        rows.collect()
    }

    /// Index of a block's storage: if nothing is kept, all blocks share one, unless they use those of others.
    fn place(&self, block: usize) -> usize {
        if self.keeps() || self.is_shared { block } else { 0 }
    }

    /// Calls `with` on each row's keys and values, the shared prefix, and the row's range of `tokens`; gives the row's number, that
    /// range, and the result.
    fn for_each_row<T>(
        &mut self,
        block: usize,
        tokens: &[Token],
        mut with: impl FnMut(&mut RowState, Option<&RowState>, Range<usize>) -> T,
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
                pasts.resize_with(number + 1, RowState::default);
            }
            pasts[number].held += tokens.len();
            (number, tokens.clone(), with(&mut pasts[number], shared, tokens))
        });
        rows.collect()
    }

    /// Counts tokens as cached, after they have passed every block.
    pub(crate) fn advance(&mut self, tokens: &[Token]) {
        if !self.keeps() {
            return;
        }
        if self.has_recurrent {
            for row in tokens.chunk_by(|a, b| a.row == b.row).map(|row| row[0].row) {
                self.blocks.iter_mut().filter_map(|block| block.get_mut(row)).for_each(RowState::end_pass);
            }
        }
        for token in tokens {
            if self.lengths.len() <= token.row {
                self.lengths.resize(token.row + 1, 0);
            }
            self.lengths[token.row] = token.position + 1;
        }
    }
}
