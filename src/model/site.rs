//! Hook sites of the forward pass and their text form (`7.resid_post`).

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A hook site inside a block, in the order of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// The residual stream entering the block.
    ResidPre,
    /// The attention weights after the softmax, `heads × keys` a query token: head after head, a column for each position of the row,
    /// zero where the token doesn't look. As wide as the longest row of the batch, so it is read by a hook or one dialogue at a time,
    /// never stored in a table nor changed, and no set (`all`) holds it.
    AttnWeights,
    /// The concatenated head outputs, before the output projection.
    AttnHeads,
    /// The output of attention, before it is added to the residual stream (in Granite, times a factor).
    AttnOut,
    /// The residual stream between attention and MLP.
    ResidMid,
    /// The router's probabilities of all experts, before the top-k choice: a softmax, or a sigmoid of each score (GLM-4-MoE).
    Router,
    /// The input of the MLP's down projection.
    MlpHidden,
    /// The output of the MLP, before it is added to the residual stream.
    MlpOut,
    /// The residual stream leaving the block.
    ResidPost,
}

/// A hook site, ordered as in the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Site {
    /// The residual stream entering block 0.
    Embed,
    /// A site in a block; blocks are counted from 0.
    Block(usize, Point),
    /// The output of the final norm.
    FinalNorm,
    /// The logits over the vocabulary.
    Logits,
}

impl Point {
    /// Every point whose width is the model's alone, in the order of the forward pass.
    pub const ALL: [Point; 8] = [
        Point::ResidPre,
        Point::AttnHeads,
        Point::AttnOut,
        Point::ResidMid,
        Point::Router,
        Point::MlpHidden,
        Point::MlpOut,
        Point::ResidPost,
    ];

    /// Its name in the text form of a site.
    pub fn name(self) -> &'static str {
        match self {
            Point::ResidPre => "resid_pre",
            Point::AttnWeights => "attn_weights",
            Point::AttnHeads => "attn_heads",
            Point::AttnOut => "attn_out",
            Point::ResidMid => "resid_mid",
            Point::Router => "router",
            Point::MlpHidden => "mlp_hidden",
            Point::MlpOut => "mlp_out",
            Point::ResidPost => "resid_post",
        }
    }

    fn named(name: &str) -> Option<Point> {
        Point::ALL.into_iter().chain([Point::AttnWeights]).find(|point| point.name() == name)
    }
}

/// No model has more blocks: a file may name any number, and sets of sites are listed one by one.
const MAX_BLOCKS: usize = 10_000;

impl Site {
    /// Every site of a model with this many blocks, in the order of the forward pass.
    pub fn all(blocks: usize) -> Vec<Site> {
        let mut sites = vec![Site::Embed];
        for block in 0..blocks {
            sites.extend(Point::ALL.map(|point| Site::Block(block, point)));
        }
        sites.extend([Site::FinalNorm, Site::Logits]);
        sites
    }

    /// The block, for a site inside one.
    pub fn block(self) -> Option<usize> {
        match self {
            Site::Block(block, _) => Some(block),
            _ => None,
        }
    }

    /// Parses a list of sites and sets of sites (`4-11.resid_post`, `3,7.mlp_out`, `*.resid_post`, `embed`, `all`) for a model with
    /// `blocks` blocks. The result is in the order of the forward pass, without duplicates.
    ///
    /// # Errors
    /// Text that is no site, or a block that the model lacks.
    pub fn parse_set(text: &str, blocks: usize) -> Result<Vec<Site>> {
        let mut sites = Vec::new();
        // "3,7.mlp_out" is one item: block numbers wait for the point after them.
        let mut waiting: Vec<String> = Vec::new();
        for part in text.split([',', ' ']).filter(|part| !part.is_empty()) {
            let name = transformer_lens(part);
            match name.as_str() {
                "all" => sites.extend(Site::all(blocks)),
                "embed" => sites.push(Site::Embed),
                "final_norm" => sites.push(Site::FinalNorm),
                "logits" => sites.push(Site::Logits),
                name => match name.split_once('.') {
                    None => {
                        waiting.push(part.into());
                        continue;
                    }
                    Some((numbers, point)) => {
                        let point = Point::named(point).ok_or_else(|| unknown(part))?;
                        waiting.push(numbers.into());
                        for numbers in waiting.drain(..) {
                            let range = block_range(&numbers, blocks).ok_or_else(|| unknown(part))?;
                            if let Some(block) = range.clone().find(|&block| block >= blocks) {
                                return Err(Error::input(
                                    format!("site {part}"),
                                    format!("the model has no block {block}"),
                                    format!("a block from 0 to {}", blocks.saturating_sub(1)),
                                ));
                            }
                            sites.extend(range.map(|block| Site::Block(block, point)));
                        }
                    }
                },
            }
            if let Some(left) = waiting.first() {
                return Err(unknown(left));
            }
        }
        if let Some(left) = waiting.first() {
            return Err(unknown(left));
        }
        sites.sort_unstable();
        sites.dedup();
        Ok(sites)
    }
}

fn block_range(text: &str, blocks: usize) -> Option<std::ops::Range<usize>> {
    if text == "*" {
        return Some(0..blocks);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < usize::MAX).then_some(first..last + 1)
}

/// Translates a TransformerLens site name; other text stays unchanged.
fn transformer_lens(name: &str) -> String {
    let global = match name {
        "hook_embed" => "embed",
        "ln_final.hook_normalized" => "final_norm",
        _ => "",
    };
    if !global.is_empty() {
        return global.into();
    }
    let Some((block, hook)) = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) else {
        return name.into();
    };
    let point = match hook {
        "attn.hook_z" => "attn_heads",
        "attn.hook_pattern" => "attn_weights",
        "mlp.hook_post" => "mlp_hidden",
        _ => hook.strip_prefix("hook_").unwrap_or(hook),
    };
    format!("{block}.{point}")
}

fn unknown(text: &str) -> Error {
    let points = Point::ALL.map(Point::name).join(", ");
    Error::input(
        format!("site {text}"),
        "no such site",
        format!("BLOCK.POINT with a point of {points}; or embed, final_norm, logits, all"),
    )
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Site::Embed => f.write_str("embed"),
            Site::Block(block, point) => write!(f, "{block}.{}", point.name()),
            Site::FinalNorm => f.write_str("final_norm"),
            Site::Logits => f.write_str("logits"),
        }
    }
}

impl FromStr for Site {
    type Err = Error;

    /// Parses one site, for any model.
    fn from_str(text: &str) -> Result<Site> {
        // Sets are refused before they are expanded: "*" has no end here.
        if text == "all" || text.contains(['*', '-', ',']) {
            return Err(unknown(text));
        }
        match Site::parse_set(text, MAX_BLOCKS)?.as_slice() {
            [site] => Ok(*site),
            _ => Err(unknown(text)),
        }
    }
}

impl serde::Serialize for Site {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Site {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Site, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(set: &str, blocks: usize) -> String {
        let sites = Site::parse_set(set, blocks).unwrap();
        sites.iter().map(Site::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn reads_sets() {
        assert_eq!(texts("*.resid_post", 2), "0.resid_post 1.resid_post");
        assert_eq!(texts("3,7.mlp_out,embed", 8), "embed 3.mlp_out 7.mlp_out");
        assert_eq!(texts("1-2.attn_out", 4), "1.attn_out 2.attn_out");
        assert_eq!(Site::parse_set("all", 3).unwrap().len(), 3 + 3 * 8);
    }

    #[test]
    fn reads_transformer_lens_names() {
        assert_eq!(texts("blocks.3.hook_resid_post", 4), "3.resid_post");
        assert_eq!(texts("blocks.0.attn.hook_z", 4), "0.attn_heads");
        assert_eq!(texts("blocks.2.attn.hook_pattern", 4), "2.attn_weights");
    }

    #[test]
    fn rejects_what_is_no_site() {
        for text in ["9.resid_post", "1.nose", "resid_post", "3", "3,embed", "2-1.attn_out", "*"] {
            assert!(Site::parse_set(text, 4).is_err(), "{text}");
        }
        assert!("*.resid_post".parse::<Site>().is_err());
    }
}
