//! Attention patterns: where each token of a dialogue looks, by block and head.
//!
//! The weights are those after the softmax. A weight says what was mixed into a token's state, not what the answer depends on
//! (Jain & Wallace 2019, arXiv 1902.10186).

use candle_core::Tensor;
use ndarray::Array3;
use serde::{Deserialize, Serialize};

use super::logit_lens::check_length;
use super::token_readout::ReadToken;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Hook, Model, Point, Site, Token};

/// The attention weights of one dialogue.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionWeights {
    /// The dialogue.
    pub id: String,
    /// Its tokens.
    pub tokens: Vec<ReadToken>,
    /// `[heads, tokens, tokens]` for each block: head, query token, key token. Each row sums to 1, less the share of an attention sink.
    pub blocks: Vec<(usize, Array3<f32>)>,
}

/// One matrix of attention weights: a head's, or the mean over a block's heads (the table of a plot).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttentionPattern {
    /// The dialogue.
    pub id: String,
    /// Its tokens.
    pub tokens: Vec<ReadToken>,
    /// The block.
    pub block: usize,
    /// The head; the mean over all where none.
    pub head: Option<usize>,
    /// Number of heads of the block.
    pub heads: usize,
    /// `[tokens, tokens]`: query token, key token.
    pub weights: Vec<Vec<f64>>,
}

impl AttentionWeights {
    /// The pattern of a head, or the mean over the heads of a block.
    ///
    /// # Errors
    /// A block that was not read, or a head that it lacks.
    pub fn pattern(&self, block: usize, head: Option<usize>) -> Result<AttentionPattern> {
        let found = self.blocks.iter().find(|(number, _)| *number == block);
        let (_, weights) = found.ok_or_else(|| {
            let read: Vec<String> = self.blocks.iter().map(|(number, _)| number.to_string()).collect();
            Error::input("attention", format!("block {block}"), format!("one of {}", read.join(", ")))
        })?;
        let (heads, count, _) = weights.dim();
        let chosen = match head {
            Some(head) if head >= heads => {
                let expected = format!("a head from 0 to {}", heads.saturating_sub(1));
                return Err(Error::input("attention", format!("head {head}"), expected));
            }
            Some(head) => head..head + 1,
            None => 0..heads,
        };
        let share = 1.0 / chosen.len() as f64;
        let weight = |query: usize, key: usize| {
            chosen.clone().map(|head| share * f64::from(weights[[head, query, key]])).sum::<f64>()
        };
        Ok(AttentionPattern {
            id: self.id.clone(),
            tokens: self.tokens.clone(),
            block,
            head,
            heads,
            weights: (0..count).map(|query| (0..count).map(|key| weight(query, key)).collect()).collect(),
        })
    }
}

/// The attention weights of a dialogue at some blocks, all of them where none is named.
///
/// # Errors
/// A block that the model lacks; a dialogue that the template refuses, or longer than the model's context.
pub fn attention_weights(
    model: &Model,
    dialogue: &Dialogue,
    blocks: &[usize],
    thinking: Option<bool>,
) -> Result<AttentionWeights> {
    let architecture = model.decoder.architecture();
    let all = architecture.blocks.len();
    if let Some(block) = blocks.iter().find(|&&block| block >= all) {
        let expected = format!("a block from 0 to {}", all.saturating_sub(1));
        return Err(Error::input("attention", format!("block {block}"), expected));
    }
    let attends = |block: &usize| architecture.has(Site::Block(*block, Point::AttnWeights));
    let attending: Vec<usize> = (0..all).filter(attends).collect();
    if let Some(block) = blocks.iter().find(|block| !attends(block)) {
        let found = format!("block {block}, which has a recurrent state in place of attention");
        let some: Vec<String> = attending.iter().take(8).map(usize::to_string).collect();
        return Err(Error::input(
            "attention",
            found,
            format!("a block with attention, such as {}", some.join(", ")),
        ));
    }
    let tokens = model.chat.tokens(dialogue, 0, thinking)?;
    let place = format!("dialogue {}", dialogue.id);
    if tokens.is_empty() {
        return Err(Error::input(place, "no token", "one or more"));
    }
    check_length(model, &place, tokens.len())?;
    let mut keep =
        Keep { blocks: if blocks.is_empty() { attending } else { blocks.to_vec() }, found: Vec::new() };
    model.decoder.forward(&tokens, None, &[], &mut keep)?;
    Ok(AttentionWeights {
        id: dialogue.id.clone(),
        tokens: tokens.iter().map(|token| ReadToken::of(&model.chat, token)).collect::<Result<_>>()?,
        blocks: keep.found,
    })
}

/// A hook that keeps the attention weights of one row.
struct Keep {
    blocks: Vec<usize>,
    found: Vec<(usize, Array3<f32>)>,
}

impl Hook for Keep {
    fn wants(&self, site: Site) -> bool {
        matches!(site, Site::Block(block, Point::AttnWeights) if self.blocks.contains(&block))
    }

    fn call(&mut self, site: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
        let count = tokens.len();
        let flat = activations.flatten_all()?.to_vec1::<f32>()?;
        let heads = flat.len() / (count * count).max(1);
        let found = Array3::from_shape_vec((count, heads, count), flat)
            .map_err(|error| Error::input(site, error, "heads × tokens columns"))?;
        // Query, head, key → head, query, key.
        let found = found.permuted_axes([1, 0, 2]).as_standard_layout().into_owned();
        self.found.extend(site.block().map(|block| (block, found)));
        Ok(activations)
    }
}
