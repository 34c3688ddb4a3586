//! Attention pattern: which tokens each token looks at.

use super::token_map::visible;
use crate::analysis::attention_pattern::AttentionPattern;
use crate::report::Chart;
use crate::report::charts::chart::{HeatChart, Scale};

/// Tokens that the heat map shows at most: the last ones.
const SHOWN: usize = 40;

/// The heat map: a row a query token, from the first on top.
pub fn chart(pattern: &AttentionPattern) -> Chart {
    let skip = pattern.tokens.len().saturating_sub(SHOWN);
    let cut = if skip > 0 { format!("; the first {skip} tokens are left out") } else { String::new() };
    let whose = match pattern.head {
        Some(head) => format!("head {head} of {}", pattern.heads),
        None => format!("the mean over {} heads", pattern.heads),
    };
    let names = || pattern.tokens[skip..].iter().map(|one| visible(&one.text));
    Chart::Heat(HeatChart {
        title: format!("Attention in block {}", pattern.block),
        subtitle: format!("weights after the softmax, {whose}; dialogue {}{cut}", pattern.id),
        x_label: "key token".into(),
        y_label: "query token".into(),
        columns: names().collect(),
        // Rows are drawn from the lowest up.
        rows: names().rev().collect(),
        values: pattern.weights[skip..]
            .iter()
            .enumerate()
            // A later token is no token that it looks at, unless the model is an encoder.
            .map(|(query, row)| {
                let weight = |(key, &weight): (usize, &f64)| (key <= query || weight > 0.0).then_some(weight);
                row[skip..].iter().enumerate().map(weight).collect()
            })
            .rev()
            .collect(),
        words: Vec::new(),
        label: "weight".into(),
        range: [0.0, 1.0],
        scale: Scale::Rising,
    })
}
