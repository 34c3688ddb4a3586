//! Logit lens: the next tokens that a dialogue's hidden states would give if a block were the last.
//!
//! A state of the residual stream goes through the final norm and the vocabulary product (nostalgebraist 2020). What a middle block's
//! states say there is not calibrated: the model never reads them so.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::token_readout::ReadToken;
use crate::activations::Recorder;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Model, Point, Selector, Site};

/// Rows whose logits are in memory at a time.
const ROWS: usize = 32;

/// What is read.
#[derive(Clone, Debug)]
pub struct LensOptions {
    /// Sites in the residual stream.
    pub sites: Vec<Site>,
    /// Tokens at which it is read; those that a pooling selector pools, each by itself.
    pub tokens: Selector,
    /// Number of likeliest tokens kept in each place.
    pub top: usize,
    /// Text whose first token's probability and rank are kept in each place.
    pub target: Option<String>,
    /// Passed to chat templates that know a thinking and a plain mode.
    pub thinking: Option<bool>,
}

/// The likeliest tokens by site and token of one dialogue (JSON, kind `logit-lens`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogitLens {
    /// The dialogue.
    pub id: String,
    /// Sites, in the order of the forward pass.
    pub sites: Vec<Site>,
    /// The tokens that it is read at, with their positions.
    pub tokens: Vec<ReadToken>,
    /// `[tokens]`.
    pub positions: Vec<usize>,
    /// `[sites, tokens]`: the likeliest next tokens, the first the likeliest.
    pub likeliest: Vec<Vec<Vec<Likely>>>,
    /// `[sites, tokens]`: Kullback–Leibler divergence from the model's own next-token distribution, in nats.
    pub kl: Vec<Vec<f64>>,
    /// The token that is looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

/// A likely next token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Likely {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// Its probability.
    pub probability: f64,
}

/// A token that is looked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// `[sites, tokens]`.
    pub probability: Vec<Vec<f64>>,
    /// `[sites, tokens]`: 1 for the likeliest token.
    pub rank: Vec<Vec<usize>>,
}

/// Reads one dialogue through the lens.
///
/// # Errors
/// A model without logits; a site outside the residual stream; a selector that picks nothing; a target without a token.
pub fn logit_lens(model: &Model, dialogue: &Dialogue, options: &LensOptions) -> Result<LogitLens> {
    model.decoder.expect_logits()?;
    let is_residual = |site: &Site| {
        matches!(site, Site::Embed | Site::Block(_, Point::ResidPre | Point::ResidMid | Point::ResidPost))
    };
    if let Some(site) = options.sites.iter().find(|site| !is_residual(site)) {
        let expected = "sites in the residual stream: embed, resid_pre, resid_mid, resid_post";
        return Err(Error::input("logit lens", format!("site {site}"), expected));
    }
    let tokens = model.chat.tokens(dialogue, 0, options.thinking)?;
    let place = format!("dialogue {}", dialogue.id);
    check_length(model, &place, tokens.len())?;
    let picked = options.tokens.pick(&tokens);
    if picked.is_empty() {
        return Err(Error::input(place, format!("no token that {} picks", options.tokens), "one or more"));
    }
    let mut recorder = Recorder::new(options.sites.clone(), Selector::All);
    let own = model.decoder.forward(&tokens, None, &picked, &mut recorder)?;
    let own: Vec<Vec<f32>> = own.to_vec2()?;
    let own: Vec<Vec<f64>> = own.iter().map(|row| log_softmax(row)).collect();
    let (_, read) = recorder.finish();
    let target = options.target.as_deref().map(|text| first_token(model, text)).transpose()?;
    let width = model.decoder.architecture().width;
    let mut lens = LogitLens {
        id: dialogue.id.clone(),
        sites: read.iter().map(|(site, _)| *site).collect(),
        tokens: picked.iter().map(|&at| ReadToken::of(&model.chat, &tokens[at])).collect::<Result<_>>()?,
        positions: picked.iter().map(|&at| tokens[at].position).collect(),
        likeliest: Vec::new(),
        kl: Vec::new(),
        target: None,
    };
    let (mut probability, mut rank) = (Vec::new(), Vec::new());
    for (_, flat) in &read {
        let (mut likeliest, mut kl, mut of_target) = (Vec::new(), Vec::new(), Vec::new());
        for (at, own) in picked.chunks(ROWS).zip(own.chunks(ROWS)) {
            let states: Vec<f32> =
                at.iter().flat_map(|at| &flat[at * width..(at + 1) * width]).copied().collect();
            let states = Tensor::from_vec(states, (at.len(), width), &candle_core::Device::Cpu)?;
            let logits: Vec<Vec<f32>> = model.decoder.lens(states)?.to_vec2()?;
            for (row, own) in logits.iter().zip(own) {
                let log = log_softmax(row);
                likeliest.push(top(model, &log, options.top)?);
                kl.push(divergence(own, &log));
                if let Some(target) = target {
                    let own = log[target as usize];
                    of_target.push((own.exp(), 1 + log.iter().filter(|other| **other > own).count()));
                }
            }
        }
        lens.likeliest.push(likeliest);
        lens.kl.push(kl);
        probability.push(of_target.iter().map(|(probability, _)| *probability).collect());
        rank.push(of_target.iter().map(|(_, rank)| *rank).collect());
    }
    lens.target = match target {
        Some(id) => Some(Target { id, text: model.chat.decode(&[id], false)?, probability, rank }),
        None => None,
    };
    Ok(lens)
}

/// The first token of a text, as it would go on after a prompt.
///
/// # Errors
/// Text without a token, or with one that the model lacks.
pub fn first_token(model: &Model, text: &str) -> Result<u32> {
    let ids = model.chat.encode(text)?;
    match ids.first() {
        Some(&id) if (id as usize) < model.decoder.architecture().vocabulary => Ok(id),
        _ => Err(Error::input(
            "text of a token",
            format!("{text:?}, without a token of the model"),
            "text with one",
        )),
    }
}

/// Refuses more tokens than the model's context has.
pub(super) fn check_length(model: &Model, place: &str, tokens: usize) -> Result<()> {
    let longest = model.decoder.architecture().longest();
    match tokens > longest {
        true => Err(Error::input(
            place,
            format!("{tokens} tokens"),
            format!("at most {longest}, the model's context"),
        )),
        false => Ok(()),
    }
}

fn top(model: &Model, log: &[f64], count: usize) -> Result<Vec<Likely>> {
    let mut order: Vec<u32> = (0..log.len() as u32).collect();
    // Of equals the lower id, so that the order is that of every machine.
    order.sort_by(|&a, &b| log[b as usize].total_cmp(&log[a as usize]).then(a.cmp(&b)));
    let likely = |&id: &u32| {
        let text = model.chat.decode(&[id], false)?;
        Ok(Likely { id, text, probability: log[id as usize].exp() })
    };
    order.iter().take(count).map(likely).collect()
}

/// Logarithms of the probabilities of logits.
pub(super) fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let most = f64::from(most);
    let total: f64 = logits.iter().map(|&one| (f64::from(one) - most).exp()).sum();
    logits.iter().map(|&one| f64::from(one) - most - total.ln()).collect()
}

/// Divergence of `other` from `own`, both logarithms of probabilities, in nats.
fn divergence(own: &[f64], other: &[f64]) -> f64 {
    own.iter().zip(other).map(|(own, other)| own.exp() * (own - other)).sum::<f64>().max(0.0)
}
