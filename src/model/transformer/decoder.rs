//! The forward pass, one for every family and for reading, generating and training. Every hook site is in it.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::architecture::{Architecture, Head};
use super::kv_cache::Cache;
use super::loader;
use super::loader::Layers;
use super::pass::{Pass, call_hook, rows};
use crate::error::{Error, Result};
use crate::model::compute::Angles;
use crate::model::compute::cpu::attention::block_tokens;
use crate::model::hook::Hook;
use crate::model::site::{Point, Site};
use crate::model::token::Token;
use crate::model::weights::{TensorRef, Weight};

/// The fewest tokens of a prompt that its last pass reads, where it has as many: attention of fewer tokens is summed in another order, which
/// would change the last bits.
pub const SHORTEST_PART: usize = 16;

/// A transformer with its weights.
pub struct Decoder {
    architecture: Architecture,
    layers: Layers,
}

impl Decoder {
    /// Builds the decoder. `take` reads a tensor of the checkpoint.
    ///
    /// # Errors
    /// An error of `take`, or weights that can't be packed.
    pub fn build(
        architecture: Architecture,
        mut take: impl FnMut(&TensorRef) -> Result<Weight>,
    ) -> Result<Decoder> {
        let layers = loader::build(&architecture, &mut take)?;
        Ok(Decoder { architecture, layers })
    }

    /// The architecture that it was built from.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Whether a row with `held` tokens in a cache must be computed anew, from its first token, to reach `length`: the rotary
    /// embedding then has other frequencies.
    pub fn rereads(&self, held: usize, length: usize) -> bool {
        self.architecture.ropes.iter().any(|rope| rope.changes(held, length))
    }

    /// The number of tokens after multiples of which a prompt may be cut and read in parts, with the same bits as in one pass where at least
    /// sixteen tokens are left: attention is summed in the same blocks. None where keys depend on the length of the row.
    pub fn part_tokens(&self) -> Option<usize> {
        let a = &self.architecture;
        let is_whole = !a.causal || a.ropes.iter().any(|rope| rope.depends_on_length());
        if is_whole {
            return None;
        }
        let of = |block: usize| block_tokens(a.heads / a.heads_of(block)[0].max(1));
        let mut units: Vec<usize> = (0..a.blocks.len()).map(of).collect();
        units.sort_unstable();
        units.dedup();
        let common = |all: usize, unit: &usize| (1..).map(|n| n * all).find(|all| all.is_multiple_of(*unit));
        units.iter().try_fold(1, common)
    }

    /// How many of a prompt's first `shared` tokens, whose keys and values are known, need not be read again: as many as leave the numbers as
    /// they are without them.
    pub fn takes(&self, prompt: usize, shared: usize) -> usize {
        match self.prefix_tokens() {
            None => 0,
            Some(unit) => shared.min(prompt.saturating_sub(SHORTEST_PART)) / unit * unit,
        }
    }

    /// [`Decoder::part_tokens`] of a prefix that other rows may take a part of; none where a recurrent state can't be cut.
    pub fn prefix_tokens(&self) -> Option<usize> {
        self.part_tokens().filter(|_| !self.architecture.is_recurrent())
    }

    /// Runs a ragged batch: the tokens of each row in order, row after row. With a cache, each row continues where the cache ends;
    /// without one, it begins at position 0.
    ///
    /// Gives the logits of the tokens `logits_at`, f32 `[logits_at.len(), vocabulary]`. If there are none, the pass ends after the
    /// last site that the hook wants.
    ///
    /// # Errors
    /// A token id or position that the model lacks, a row that doesn't continue the cache, a cache that was filled under other
    /// steering, or an error of the hook.
    pub fn forward(
        &self,
        tokens: &[Token],
        cache: Option<&mut Cache>,
        logits_at: &[usize],
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        // On a thread of the pool, so that the many short parallel steps need no thread switch.
        rayon::scope(|_| self.pass(tokens, cache, logits_at, hook))
    }

    fn pass(
        &self,
        tokens: &[Token],
        cache: Option<&mut Cache>,
        logits_at: &[usize],
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        let vocabulary = self.architecture.vocabulary;
        self.check(tokens, cache.as_deref())?;
        let mut cache = cache;
        if let Some(cache) = &mut cache {
            check_steering(tokens, cache, hook)?;
        }
        let empty = || Ok(Tensor::zeros((0, vocabulary), candle_core::DType::F32, &Device::Cpu)?);
        if tokens.is_empty() {
            return empty();
        }
        let a = &self.architecture;
        let mut last = match logits_at {
            [] => {
                let weights = (0..a.blocks.len()).map(|block| Site::Block(block, Point::AttnWeights));
                a.sites().into_iter().chain(weights).filter(|&site| hook.wants(site)).max()
            }
            _ => Some(Site::Logits),
        };
        if let Some(cache) = cache.as_deref() {
            last = last.max(cache.last(a.blocks.len()));
            cache.check_depth(last, a.blocks.len())?;
        }
        let Some(last) = last else { return empty() };
        let last_block = last.block().unwrap_or(a.blocks.len().saturating_sub(1));
        let mut pass = Pass {
            tokens: tokens.into(),
            angles: self.angles(tokens),
            cache,
            kept: BTreeMap::new(),
            per_layer: None,
            streams: Vec::new(),
            last,
            needed: None,
        };
        if let Some(cache) = pass.cache.as_mut().filter(|_| a.blocks.iter().any(|b| b.shares.is_some())) {
            cache.share_blocks();
        }
        let mut needed = None;
        let mut x = call_hook(hook, Site::Embed, self.embed(tokens)?, tokens)?;
        if let Some(embed) = &self.layers.embed.per_layer {
            pass.per_layer = Some(embed.forward(tokens, &x)?);
        }
        if let Some(streams) = &self.layers.streams {
            pass.streams = streams.begin(&x)?;
        }
        for (number, block) in self.layers.blocks.iter().enumerate() {
            if last < Site::Block(number, Point::ResidPre) {
                break;
            }
            if number == last_block {
                needed = self.needed(last_block, tokens.len(), logits_at, hook);
                pass.needed = needed.clone();
            }
            x = block.forward(x, &mut pass, hook)?;
        }
        if let Some(cache) = pass.cache {
            cache.advance(tokens);
        }
        if last < Site::FinalNorm || (logits_at.is_empty() && !a.has(Site::FinalNorm)) {
            return empty();
        }
        let x = match &self.layers.streams {
            Some(streams) => streams.end(x, &pass.streams)?,
            None => x,
        };
        let everywhere = hook.wants(Site::FinalNorm) || hook.wants(Site::Logits);
        // From here on, indices are among the tokens that were kept.
        let tokens = &*pass.tokens;
        let place = |&at: &usize| match &needed {
            Some(needed) => needed.partition_point(|&other| other < at) as u32,
            None => at as u32,
        };
        let at = Tensor::new(logits_at.iter().map(place).collect::<Vec<_>>(), x.device())?;
        if !everywhere {
            if logits_at.is_empty() {
                return empty();
            }
            // The norm and the vocabulary product run only for the tokens of `logits_at`.
            return self.logits(&self.norm(x.index_select(&at, 0)?)?);
        }
        let mut normed = call_hook(hook, Site::FinalNorm, self.norm(x)?, tokens)?;
        if hook.wants(Site::Logits) && a.has(Site::Logits) {
            let logits = call_hook(hook, Site::Logits, self.logits(&normed)?, tokens)?;
            return if logits_at.is_empty() { empty() } else { Ok(logits.index_select(&at, 0)?) };
        }
        if logits_at.is_empty() {
            return empty();
        }
        normed = normed.index_select(&at, 0)?;
        self.logits(&normed)
    }

    /// The tokens whose results past the attention of the last block are used, ascending; none for all. A row of a product has the
    /// same bits whatever other rows there are.
    fn needed(&self, block: usize, count: usize, logits_at: &[usize], hook: &dyn Hook) -> Option<Vec<usize>> {
        let past = |&site: &Site| site > Site::Block(block, Point::AttnHeads);
        let read = self.architecture.sites().iter().filter(|site| past(site)).any(|&site| hook.wants(site));
        let mut needed = match (read, logits_at) {
            (true, []) => hook.token_indices()?,
            (true, _) => return None,
            (false, _) => logits_at.to_vec(),
        };
        needed.sort_unstable();
        needed.dedup();
        (!needed.is_empty() && needed.len() < count).then_some(needed)
    }

    /// The residual stream that enters the first block, `[tokens, width]`.
    fn embed(&self, tokens: &[Token]) -> Result<Tensor> {
        let embed = &self.layers.embed;
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        let mut x = embed.words.rows(&ids)?;
        if let Some(scale) = self.architecture.embed_scale {
            x = (x * scale)?;
        }
        if let Some(segment) = &embed.segment {
            x = x.broadcast_add(segment)?;
        }
        if let Some(positions) = &embed.positions {
            let at: Vec<u32> = tokens.iter().map(|token| token.position as u32).collect();
            x = (x + positions.rows(&at)?)?;
        }
        match &embed.norm {
            Some(norm) => Ok(norm.forward(&x)?),
            None => Ok(x),
        }
    }

    /// The angles of each rotary embedding. If they depend on the sequence length, a row's length includes these tokens; cached keys
    /// keep their old angles.
    fn angles(&self, tokens: &[Token]) -> Vec<Angles> {
        let rows = rows(tokens);
        let angles = self.architecture.ropes.iter().map(|rope| {
            if !rope.depends_on_length() {
                let places = tokens.iter().map(|token| (token.position, 0));
                return Angles::new(places, &[(rope.frequencies(0), rope.attention(0))]);
            }
            let lengths = rows.iter().map(|row| tokens[row.end - 1].position + 1);
            let lists: Vec<(Vec<f64>, f64)> =
                lengths.map(|length| (rope.frequencies(length), rope.attention(length))).collect();
            let places = rows.iter().enumerate();
            let places =
                places.flat_map(|(list, row)| row.clone().map(move |at| (tokens[at].position, list)));
            Angles::new(places, &lists)
        });
        angles.collect()
    }

    fn norm(&self, x: Tensor) -> Result<Tensor> {
        match &self.layers.norm {
            Some(norm) => Ok(norm.forward(&x)?),
            None => Ok(x),
        }
    }

    /// The logits `[rows, vocabulary]` that states of the residual stream `[rows, width]` have where they leave the last block: the
    /// final norm and the vocabulary product (logit lens, nostalgebraist 2020).
    ///
    /// # Errors
    /// A model without logits, or with several residual streams; states of another width.
    pub fn lens(&self, residual: Tensor) -> Result<Tensor> {
        self.expect_logits()?;
        if self.layers.streams.is_some() {
            let found = "several residual streams, of which a state is one";
            return Err(Error::input("the logit lens", found, "a model with one"));
        }
        self.logits(&self.norm(residual)?)
    }

    fn logits(&self, normed: &Tensor) -> Result<Tensor> {
        let head = match self.architecture.head {
            Head::Tied => &self.layers.embed.words,
            Head::Own | Head::None => self.layers.head.as_ref().ok_or_else(|| self.reads_only())?,
        };
        let mut logits = head.forward(normed)?;
        if let Some(bias) = &self.layers.head_bias {
            logits = logits.broadcast_add(bias)?;
        }
        if let Some(scale) = self.architecture.logit_scale {
            logits = (logits * scale)?;
        }
        match self.architecture.logit_cap {
            Some(cap) => Ok(((logits / cap)?.tanh()? * cap)?),
            None => Ok(logits),
        }
    }

    /// Refuses a model without logits: an encoder, or a checkpoint without a vocabulary head.
    ///
    /// # Errors
    /// Such a model.
    pub fn expect_logits(&self) -> Result<()> {
        match self.architecture.head {
            Head::None => Err(self.reads_only()),
            Head::Tied | Head::Own => Ok(()),
        }
    }

    fn reads_only(&self) -> Error {
        let a = &self.architecture;
        if a.causal {
            let found =
                format!("no vocabulary head ({}.weight): the checkpoint is for reading only", a.names.head);
            return Error::input("the model", found, "a checkpoint with a head, which has logits");
        }
        let found = format!("{} is an encoder, for reading only", a.family);
        Error::input("the model", found, "a decoder, which has logits")
    }

    fn check(&self, tokens: &[Token], cache: Option<&Cache>) -> Result<()> {
        let per_layer = self.architecture.per_layer.filter(|one| !one.first_beyond);
        let per_layer = per_layer.map_or(usize::MAX, |one| one.vocabulary);
        let vocabulary = self.architecture.vocabulary.min(per_layer);
        if cache.is_some() && !self.architecture.causal {
            return Err(self.reads_only());
        }
        let positions = self.architecture.positions.unwrap_or(usize::MAX);
        if let Some(token) = tokens.iter().find(|token| token.position >= positions) {
            let found = format!("a token at position {}", token.position);
            let expected = format!("at most {positions} tokens, one per learned position");
            return Err(Error::input(format!("row {}", token.row), found, expected));
        }
        if let Some(token) = tokens.iter().find(|token| token.id as usize >= vocabulary) {
            return Err(Error::input(
                format!("row {}, token {}", token.row, token.position),
                format!("token id {}", token.id),
                format!("an id below the vocabulary size, {vocabulary}"),
            ));
        }
        for range in rows(tokens) {
            let row = &tokens[range];
            let begin = cache.map_or(0, |cache| cache.length(row[0].row));
            if let Some((expected, token)) = (begin..).zip(row).find(|(at, token)| *at != token.position) {
                return Err(Error::input(
                    format!("row {}", token.row),
                    format!("a token at position {}", token.position),
                    format!("position {expected}, the next of the row"),
                ));
            }
        }
        Ok(())
    }
}

/// Refuses a cache that was filled under other steering, and records the steering of each row.
fn check_steering(tokens: &[Token], cache: &mut Cache, hook: &dyn Hook) -> Result<()> {
    for range in rows(tokens) {
        let row = tokens[range].first().map_or(0, |token| token.row);
        let mark = hook.cache_key(row);
        if cache.length(row) > 0 && cache.steered(row) != mark {
            let expected = "a fresh cache, or the steering that filled it";
            return Err(Error::input(
                format!("row {row}"),
                "a cache that was filled under another steering",
                expected,
            ));
        }
        cache.steer(row, mark);
    }
    Ok(())
}
