//! The one forward pass: every family, reading, generating and training run through it, and every hook site is in it.
//! It knows nothing of files, of text, or of what its hooks are for.

use candle_core::{D, Device, Tensor};

use crate::error::{Error, Result};
use crate::model::architecture::Architecture;
use crate::model::cache::Cache;
use crate::model::hook::Hook;
use crate::model::linear::Linear;
use crate::model::operations::{Angles, Heads, attend, attention, gated_silu, rms_norm, rotate};
use crate::model::site::{Point, Site};
use crate::model::tokens::Token;
use crate::model::weights::{Place, Weight};

/// A decoder-only transformer with its weights.
pub struct Decoder {
    architecture: Architecture,
    /// `[vocabulary, width]`.
    embed: Weight,
    blocks: Vec<Block>,
    norm: Tensor,
    head: Linear,
    frequencies: Vec<f64>,
}

struct Block {
    attention_norm: Tensor,
    query: Linear,
    key: Linear,
    value: Linear,
    /// The norms' weights of query and key, where the family has them.
    head_norms: Option<(Tensor, Tensor)>,
    output: Linear,
    mlp_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// What every block of one pass shares.
struct Pass<'a> {
    tokens: &'a [Token],
    angles: Angles,
    cache: Option<&'a mut Cache>,
}

impl Decoder {
    /// Builds the decoder from tensors that `take` gives by their places in the checkpoint.
    pub fn build(
        architecture: Architecture,
        mut take: impl FnMut(&Place) -> Result<Weight>,
    ) -> Result<Decoder> {
        let a = &architecture;
        let (width, hidden) = (a.width, a.hidden);
        let (queries, keys) = (a.heads * a.head_width, a.kv_heads * a.head_width);
        let embed = take(&Place::whole(a.names.embed, &[a.vocabulary, width]))?;
        let mut blocks = Vec::with_capacity(a.blocks);
        for block in 0..a.blocks {
            let place =
                |name: &str, shape: &[usize]| Place::whole(format!("{}{block}.{name}", a.names.block), shape);
            let mut linear = |name: &str, out: usize, from: usize, bias: bool| -> Result<Linear> {
                let weight = take(&place(&format!("{name}.weight"), &[out, from]))?;
                let bias = match bias {
                    true => Some(take(&place(&format!("{name}.bias"), &[out]))?.floats()?),
                    false => None,
                };
                Ok(Linear::new(weight, bias))
            };
            let query = linear(a.names.query, queries, width, a.query_key_value_bias)?;
            let key = linear(a.names.key, keys, width, a.query_key_value_bias)?;
            let value = linear(a.names.value, keys, width, a.query_key_value_bias)?;
            let output = linear(a.names.output, width, queries, a.output_bias)?;
            let gate = linear(a.names.gate, hidden, width, a.mlp_bias)?;
            let up = linear(a.names.up, hidden, width, a.mlp_bias)?;
            let down = linear(a.names.down, width, hidden, a.mlp_bias)?;
            let mut vector =
                |name: &str, width: usize| -> Result<Tensor> { Ok(take(&place(name, &[width]))?.floats()?) };
            let head_norms = match a.query_key_norm {
                true => {
                    Some((vector(a.names.query_norm, a.head_width)?, vector(a.names.key_norm, a.head_width)?))
                }
                false => None,
            };
            blocks.push(Block {
                attention_norm: vector(a.names.attention_norm, width)?,
                mlp_norm: vector(a.names.mlp_norm, width)?,
                query,
                key,
                value,
                head_norms,
                output,
                gate,
                up,
                down,
            });
        }
        let norm = take(&Place::whole(a.names.norm, &[width]))?.floats()?;
        let head = match a.tied {
            true => embed.clone(),
            false => take(&Place::whole(a.names.head, &[a.vocabulary, width]))?,
        };
        Ok(Decoder {
            frequencies: a.rope.frequencies(a.head_width),
            head: Linear::new(head, None),
            architecture,
            embed,
            blocks,
            norm,
        })
    }

    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Width of the activations at a site.
    pub fn width(&self, site: Site) -> usize {
        let a = &self.architecture;
        match site {
            Site::Block(_, Point::AttnHeads) => a.heads * a.head_width,
            Site::Block(_, Point::MlpHidden) => a.hidden,
            Site::Logits => a.vocabulary,
            _ => a.width,
        }
    }

    /// Runs a ragged batch: `tokens` stand row after row, each row's in order. With a cache, a row goes on where the
    /// cache has it; without one, every row begins at position 0.
    ///
    /// Gives the logits `[logits_at.len(), vocabulary]` of the tokens with these indices. With none wanted, the pass
    /// ends after the last site that the hook wants, and the result is empty.
    pub fn forward(
        &self,
        tokens: &[Token],
        cache: Option<&mut Cache>,
        logits_at: &[usize],
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        // On one of the pool's own threads, so that the many short parallel steps of a pass need no change of thread.
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
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        let empty = || Ok(Tensor::zeros((0, vocabulary), candle_core::DType::F32, &Device::Cpu)?);
        if ids.is_empty() {
            return empty();
        }
        let mut last = match logits_at {
            [] => Site::all(self.blocks.len()).into_iter().rfind(|&site| hook.wants(site)),
            _ => Some(Site::Logits),
        };
        if cache.is_some() {
            // A cache holds whole tokens: every block's keys and values.
            last = last.max(Some(Site::FinalNorm));
        }
        let Some(last) = last else { return empty() };
        let mut pass = Pass {
            tokens,
            angles: Angles::new(tokens.iter().map(|token| token.position), &self.frequencies),
            cache,
        };
        let ids = Tensor::new(ids, &Device::Cpu)?;
        let mut x = visit(hook, Site::Embed, self.embed.rows(&ids)?, tokens)?;
        for (number, block) in self.blocks.iter().enumerate() {
            if last < Site::Block(number, Point::ResidPre) {
                return empty();
            }
            x = self.block(number, block, x, &mut pass, hook)?;
        }
        if let Some(cache) = pass.cache {
            cache.advance(tokens);
        }
        if last < Site::FinalNorm {
            return empty();
        }
        let everywhere = hook.wants(Site::FinalNorm) || hook.wants(Site::Logits);
        let at = Tensor::new(logits_at.iter().map(|&at| at as u32).collect::<Vec<_>>(), x.device())?;
        if !everywhere {
            if logits_at.is_empty() {
                return empty();
            }
            // Only tokens whose logits are wanted pay for the norm and the vocabulary product.
            x = x.index_select(&at, 0)?;
            let normed = rms_norm(&x, &self.norm, self.architecture.norm_epsilon)?;
            return Ok(self.head.forward(&normed)?);
        }
        let normed = rms_norm(&x, &self.norm, self.architecture.norm_epsilon)?;
        let mut normed = visit(hook, Site::FinalNorm, normed, tokens)?;
        if hook.wants(Site::Logits) {
            let logits = visit(hook, Site::Logits, self.head.forward(&normed)?, tokens)?;
            return if logits_at.is_empty() { empty() } else { Ok(logits.index_select(&at, 0)?) };
        }
        if logits_at.is_empty() {
            return empty();
        }
        normed = normed.index_select(&at, 0)?;
        Ok(self.head.forward(&normed)?)
    }

    fn block(
        &self,
        number: usize,
        block: &Block,
        x: Tensor,
        pass: &mut Pass,
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        let epsilon = self.architecture.norm_epsilon;
        let mut at = |point, activations| visit(hook, Site::Block(number, point), activations, pass.tokens);
        let x = at(Point::ResidPre, x)?;
        let normed = rms_norm(&x, &block.attention_norm, epsilon)?;
        let heads =
            self.heads(number, block, &normed, pass.tokens, &pass.angles, pass.cache.as_deref_mut())?;
        let heads = at(Point::AttnHeads, heads)?;
        let attention = at(Point::AttnOut, block.output.forward(&heads)?)?;
        let x = at(Point::ResidMid, (x + attention)?)?;
        let normed = rms_norm(&x, &block.mlp_norm, epsilon)?;
        let hidden = gated_silu(&block.gate.forward(&normed)?, &block.up.forward(&normed)?)?;
        let hidden = at(Point::MlpHidden, hidden)?;
        let mlp = at(Point::MlpOut, block.down.forward(&hidden)?)?;
        at(Point::ResidPost, (x + mlp)?)
    }

    /// The heads' outputs, concatenated: `[tokens, heads × head width]`.
    fn heads(
        &self,
        number: usize,
        block: &Block,
        normed: &Tensor,
        tokens: &[Token],
        angles: &Angles,
        cache: Option<&mut Cache>,
    ) -> Result<Tensor> {
        let a = &self.architecture;
        let (count, width) = (tokens.len(), a.head_width);
        let mut query = block.query.forward(normed)?.reshape((count, a.heads, width))?;
        let mut key = block.key.forward(normed)?.reshape((count, a.kv_heads, width))?;
        let value = block.value.forward(normed)?.reshape((count, a.kv_heads, width))?;
        if let Some((query_norm, key_norm)) = &block.head_norms {
            query = rms_norm(&query, query_norm, a.norm_epsilon)?;
            key = rms_norm(&key, key_norm, a.norm_epsilon)?;
        }
        let (query, key) = (rotate(&query, angles)?, rotate(&key, angles)?);
        let heads = Heads::causal(a.heads, a.kv_heads, width);
        let mixed = match cache {
            None => attention(&query, &key, &value, heads, rows(tokens))?,
            Some(cache) => {
                let flat = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
                let (keys, values) = (flat(&key)?, flat(&value)?);
                let stretches = cache.extend(number, tokens, &keys, &values, a.kv_heads * width);
                Tensor::new(attend(&flat(&query)?, heads, &stretches), query.device())?
            }
        };
        Ok(mixed.reshape((count, a.heads * width))?)
    }

    fn check(&self, tokens: &[Token], cache: Option<&Cache>) -> Result<()> {
        let vocabulary = self.architecture.vocabulary;
        if let Some(token) = tokens.iter().find(|token| token.id as usize >= vocabulary) {
            return Err(Error::input(
                format!("row {}, token {}", token.row, token.position),
                format!("token id {}", token.id),
                format!("an id below the vocabulary's size, {vocabulary}"),
            ));
        }
        for range in rows(tokens) {
            let row = &tokens[range];
            let begin = cache.map_or(0, |cache| cache.length(row[0].row));
            if let Some((expected, token)) = (begin..).zip(row).find(|(at, token)| *at != token.position) {
                return Err(Error::input(
                    format!("row {}", token.row),
                    format!("a token at position {}", token.position),
                    format!("position {expected}, where the row goes on"),
                ));
            }
        }
        Ok(())
    }
}

/// Calls the hook where it wants to be called, and holds it to the shape that it was given.
fn visit(hook: &mut dyn Hook, site: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
    if !hook.wants(site) {
        return Ok(activations);
    }
    let shape = activations.shape().clone();
    let changed = hook.call(site, activations, tokens)?;
    if *changed.shape() != shape {
        let width = shape.dim(D::Minus1)?;
        return Err(Error::input(
            format!("hook at {site}"),
            format!("gave back {:?}", changed.shape()),
            format!("[{}, {width}], as it was given", tokens.len()),
        ));
    }
    Ok(changed)
}

/// Where each row stands in a batch.
fn rows(tokens: &[Token]) -> Vec<std::ops::Range<usize>> {
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
