//! Logit lens: the likeliest next token by site and position, on the colour of its probability.

use super::site_axis::axis;
use super::token_map::visible;
use crate::analysis::logit_lens::{Likely, LogitLens};
use crate::report::Chart;
use crate::report::charts::chart::{HeatChart, Scale};

/// Positions that the heat map shows at most: the last ones.
const SHOWN: usize = 40;

/// The heat map.
pub fn chart(lens: &LogitLens) -> Chart {
    let skip = lens.tokens.len().saturating_sub(SHOWN);
    let cut = if skip > 0 { format!("; the first {skip} positions are left out") } else { String::new() };
    let (subtitle, label) = match &lens.target {
        None => {
            ("the likeliest next token, had the block been the last".to_owned(), "its probability".to_owned())
        }
        Some(target) => {
            let name = visible(&target.text);
            (
                format!("the rank of {name:?} among the next tokens, had the block been the last"),
                format!("P({name})"),
            )
        }
    };
    let values = |site: usize| match &lens.target {
        None => {
            lens.likeliest[site][skip..].iter().map(|one| one.first().map(|one| one.probability)).collect()
        }
        Some(target) => target.probability[site][skip..].iter().map(|&one| Some(one)).collect(),
    };
    let words = |site: usize| match &lens.target {
        None => {
            let first = |one: &Vec<_>| one.first().map(|one: &Likely| visible(&one.text));
            lens.likeliest[site][skip..].iter().map(|one| first(one).unwrap_or_default()).collect()
        }
        Some(target) => target.rank[site][skip..].iter().map(usize::to_string).collect(),
    };
    let sites = 0..lens.sites.len();
    Chart::Heat(HeatChart {
        title: "Logit lens".into(),
        subtitle: format!("{subtitle}; dialogue {}{cut}", lens.id),
        x_label: "token".into(),
        y_label: axis(&lens.sites).0,
        columns: lens.tokens[skip..].iter().map(|one| visible(&one.text)).collect(),
        rows: axis(&lens.sites).1,
        values: sites.clone().map(values).collect(),
        words: sites.map(words).collect(),
        label,
        range: [0.0, 1.0],
        scale: Scale::Rising,
    })
}
