//! One block of the forward pass, with its hook sites: attention, then (or beside it) an MLP or experts.
//! It knows nothing of files, or of what its hooks are for.

use candle_core::{D, Tensor};

use crate::error::{Error, Result};
use crate::model::cache::Cache;
use crate::model::experts::Experts;
use crate::model::hook::Hook;
use crate::model::linear::Linear;
use crate::model::mlp::Mlp;
use crate::model::norm::Norm;
use crate::model::operations::{Angles, Heads, attend, attention, rotate};
use crate::model::site::{Point, Site};
use crate::model::tokens::Token;

pub(super) struct Block {
    pub number: usize,
    pub attention: Attention,
    pub attention_norms: Norms,
    pub feed: Feed,
    pub mlp_norms: Norms,
    /// Attention and MLP read the same residual stream.
    pub parallel: bool,
}

pub(super) struct Attention {
    pub heads: Heads,
    /// Which of the pass's rotations, if the model rotates.
    pub rope: Option<usize>,
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
    /// On queries and keys; as wide as one head, or as all of them.
    pub head_norms: Option<[Norm; 2]>,
    pub output: Linear,
}

/// The norms around attention or MLP; each family has some of them.
#[derive(Default)]
pub(super) struct Norms {
    /// On what the part reads.
    pub before: Option<Norm>,
    /// On what it adds to the residual stream.
    pub output: Option<Norm>,
    /// On the residual stream, after the addition.
    pub after: Option<Norm>,
}

pub(super) enum Feed {
    Mlp(Mlp),
    Experts(Experts),
}

/// What every block of one pass shares.
pub(super) struct Pass<'a> {
    pub tokens: &'a [Token],
    /// One a rotation of the model.
    pub angles: Vec<Angles>,
    pub cache: Option<&'a mut Cache>,
}

impl Block {
    /// `x`: the residual stream that enters, `[tokens, width]`; gives the one that leaves.
    pub fn forward(&self, x: Tensor, pass: &mut Pass, hook: &mut dyn Hook) -> Result<Tensor> {
        let tokens = pass.tokens;
        let mut at = |point, activations| visit(hook, Site::Block(self.number, point), activations, tokens);
        let x = at(Point::ResidPre, x)?;
        let normed = norm(&self.attention_norms.before, &x)?;
        let heads = at(Point::AttnHeads, self.attention.mix(self.number, &normed, pass)?)?;
        let added = norm(&self.attention_norms.output, &self.attention.output.forward(&heads)?)?;
        let added = at(Point::AttnOut, added)?;
        // What the MLP reads, and what its output is added to.
        let (read, x) = match self.parallel {
            true => (norm(&self.mlp_norms.before, &x)?, (x + added)?),
            false => {
                let x = norm(&self.attention_norms.after, &(x + added)?)?;
                let x = at(Point::ResidMid, x)?;
                (norm(&self.mlp_norms.before, &x)?, x)
            }
        };
        let added = match &self.feed {
            Feed::Mlp(mlp) => mlp.down.forward(&at(Point::MlpHidden, mlp.hidden(&read)?)?)?,
            Feed::Experts(experts) => experts.forward(&read, &at(Point::Router, experts.route(&read)?)?)?,
        };
        let added = at(Point::MlpOut, norm(&self.mlp_norms.output, &added)?)?;
        at(Point::ResidPost, norm(&self.mlp_norms.after, &(x + added)?)?)
    }
}

impl Attention {
    /// The heads' outputs, concatenated: `[tokens, heads × head width]`.
    fn mix(&self, block: usize, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let heads = self.heads;
        let count = pass.tokens.len();
        let split = |x: Tensor, heads: usize| x.reshape((count, heads, ()));
        let (mut query, mut key) = (self.query.forward(x)?, self.key.forward(x)?);
        let value = split(self.value.forward(x)?, heads.keys)?;
        if let Some([for_query, for_key]) = &self.head_norms {
            let normed = |norm: &Norm, x: Tensor| norm.forward(&x.reshape((count, (), norm.width()))?);
            (query, key) = (normed(for_query, query)?, normed(for_key, key)?);
        }
        let (mut query, mut key) = (split(query, heads.queries)?, split(key, heads.keys)?);
        if let Some(rope) = self.rope {
            (query, key) = (rotate(&query, &pass.angles[rope])?, rotate(&key, &pass.angles[rope])?);
        }
        let mixed = match &mut pass.cache {
            None => attention(&query, &key, &value, heads, rows(pass.tokens))?,
            Some(cache) => {
                let flat = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
                let (keys, values) = (flat(&key)?, flat(&value)?);
                let stretches = cache.extend(block, pass.tokens, &keys, &values, heads.keys * heads.width);
                Tensor::new(attend(&flat(&query)?, heads, &stretches), query.device())?
            }
        };
        Ok(mixed.reshape((count, heads.queries * heads.width))?)
    }
}

fn norm(norm: &Option<Norm>, x: &Tensor) -> Result<Tensor> {
    match norm {
        Some(norm) => Ok(norm.forward(x)?),
        None => Ok(x.clone()),
    }
}

/// Calls the hook where it wants to be called, and holds it to the shape that it was given.
pub(super) fn visit(
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
            format!("gave back {:?}", changed.shape()),
            format!("[{}, {width}], as it was given", tokens.len()),
        ));
    }
    Ok(changed)
}

/// Where each row stands in a batch.
pub(super) fn rows(tokens: &[Token]) -> Vec<std::ops::Range<usize>> {
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
