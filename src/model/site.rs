//! Hook sites of the forward pass and their text form (`7.resid_post`).

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
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

/// Longest text of a set of sites, in bytes: each block of the deepest model by its number takes less.
const LONGEST_SET: usize = 1 << 18;

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
        if text.len() > LONGEST_SET {
            let found = format!("a set of {} bytes", text.len());
            return Err(Error::input("sites", found, "a set such as *.resid_post"));
        }
        let mut sites = BTreeSet::new();
        // Overlapping ranges are merged before their sites are listed.
        let mut ranges: Vec<(Point, Range<usize>)> = Vec::new();
        let mut is_all = false;
        // "3,7.mlp_out" is one item: block numbers wait for the point after them.
        let mut waiting: Vec<String> = Vec::new();
        for part in text.split([',', ' ']).filter(|part| !part.is_empty()) {
            let name = transformer_lens(part);
            match name.as_str() {
                "all" => is_all = true,
                "embed" => drop(sites.insert(Site::Embed)),
                "final_norm" => drop(sites.insert(Site::FinalNorm)),
                "logits" => drop(sites.insert(Site::Logits)),
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
                            if range.end > blocks {
                                let block = range.start.max(blocks);
                                return Err(Error::input(
                                    format!("site {part}"),
                                    format!("the model has no block {block}"),
                                    format!("a block from 0 to {}", blocks.saturating_sub(1)),
                                ));
                            }
                            ranges.push((point, range));
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
        if is_all {
            sites.extend(Site::all(blocks));
        }
        ranges.sort_unstable_by_key(|(point, range)| (*point, range.start));
        let mut listed = (Point::ResidPre, 0);
        for (point, range) in ranges {
            let first = if listed.0 == point { range.start.max(listed.1) } else { range.start };
            sites.extend((first..range.end).map(|block| Site::Block(block, point)));
            listed = (point, range.end.max(first));
        }
        Ok(sites.into_iter().collect())
    }
}

fn block_range(text: &str, blocks: usize) -> Option<Range<usize>> {
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
        // Ranges in any order, one within another, and of several points.
        assert_eq!(
            texts("3.mlp_out,0-2.resid_post,1-3.resid_post,2.resid_post,0.mlp_out,3.mlp_out", 4),
            "0.mlp_out 0.resid_post 1.resid_post 2.resid_post 3.mlp_out 3.resid_post"
        );
        assert_eq!(
            texts("0-3.attn_out 1.attn_out 2-3.attn_out", 4),
            "0.attn_out 1.attn_out 2.attn_out 3.attn_out"
        );
        assert_eq!(texts("all,0.resid_pre", 3), texts("all", 3));
        assert_eq!(Site::parse_set("all", 3).unwrap().len(), 3 + 3 * 8);
    }

    #[test]
    fn reads_transformer_lens_names() {
        assert_eq!(texts("blocks.3.hook_resid_post", 4), "3.resid_post");
        assert_eq!(texts("blocks.0.attn.hook_z", 4), "0.attn_heads");
        assert_eq!(texts("blocks.2.attn.hook_pattern", 4), "2.attn_weights");
    }

    #[test]
    fn a_long_set_is_listed_once() {
        let begin = std::time::Instant::now();
        let many = "0-9999,".repeat(30_000) + "0.mlp_out";
        assert_eq!(Site::parse_set(&many, 10_000).unwrap().len(), 10_000);
        let steps: String = (0..20_000).map(|at| format!("{}-9999,", at % 10_000)).collect();
        assert_eq!(Site::parse_set(&(steps + "0.mlp_out"), 10_000).unwrap().len(), 10_000);
        assert!(Site::parse_set(&("0,".repeat(200_000) + "0.mlp_out"), 4).is_err());
        // Expanded before they are merged, the sets would have 500 million sites.
        assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
    }

    #[test]
    fn rejects_what_is_no_site() {
        for text in ["9.resid_post", "1.nose", "resid_post", "3", "3,embed", "2-1.attn_out", "*"] {
            assert!(Site::parse_set(text, 4).is_err(), "{text}");
        }
        assert!("*.resid_post".parse::<Site>().is_err());
    }
}
