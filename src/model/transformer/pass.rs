//! What the blocks of one pass share: its tokens, rotations and cache, and the call of a hook.

use std::borrow::Cow;
use std::collections::BTreeMap;

use candle_core::{D, Tensor};

use super::kv_cache::Cache;
use crate::error::{Error, Result};
use crate::model::compute::Angles;
use crate::model::hook::Hook;
use crate::model::site::Site;
use crate::model::token::Token;

/// The state that all blocks of one pass share.
pub(crate) struct Pass<'a> {
    pub tokens: Cow<'a, [Token]>,
    /// One per rotary embedding of the model.
    pub angles: Vec<Angles>,
    pub cache: Option<&'a mut Cache>,
    /// Without a cache: keys and values that later blocks use, by block.
    pub kept: BTreeMap<usize, [Tensor; 2]>,
    /// What each block reads of the tokens themselves, `[tokens, blocks × width]`.
    pub per_layer: Option<Tensor>,
    /// The residual streams after the first.
    pub streams: Vec<Tensor>,
    /// The last site that the pass must reach.
    pub last: Site,
    /// Past the attention of the last block: the tokens whose results are used; none for all.
    pub needed: Option<Vec<usize>>,
}

impl Pass<'_> {
    /// Drops the tokens whose results nobody uses.
    pub fn keep_needed(&mut self, x: Tensor, heads: Tensor) -> Result<(Tensor, Tensor)> {
        let Some(needed) = self.needed.take() else { return Ok((x, heads)) };
        self.tokens = needed.iter().map(|&at| self.tokens[at].clone()).collect();
        let at = Tensor::new(needed.iter().map(|&at| at as u32).collect::<Vec<_>>(), x.device())?;
        for kept in self.per_layer.iter_mut().chain(&mut self.streams) {
            *kept = kept.index_select(&at, 0)?;
        }
        Ok((x.index_select(&at, 0)?, heads.index_select(&at, 0)?))
    }
}

/// Calls the hook if it wants the site, and refuses a result of another shape.
pub(crate) fn call_hook(
    hook: &mut dyn Hook,
    site: Site,
    activations: Tensor,
    tokens: &[Token],
) -> Result<Tensor> {
    if !hook.wants(site) {
        return Ok(activations);
    }
    let shape = activations.shape().clone();
    let changed = hook.call(site, activations, tokens)?;
    if *changed.shape() != shape {
        let width = shape.dim(D::Minus1)?;
        return Err(Error::input(
            format!("hook at {site}"),
            format!("a result of shape {:?}", changed.shape()),
            format!("[{}, {width}], the shape of its input", tokens.len()),
        ));
    }
    Ok(changed)
}

/// The token range of each row of a batch.
pub(crate) fn rows(tokens: &[Token]) -> Vec<std::ops::Range<usize>> {
    let mut begin = 0;
    let chunks = tokens.chunk_by(|a, b| a.row == b.row);
    chunks
        .map(|row| {
            let range = begin..begin + row.len();
            begin = range.end;
            range
        })
        .collect()
}
