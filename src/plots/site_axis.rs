//! Names of sites and ranges on axes.

use crate::model::{Point, Site};

/// The name of a site on an axis: the block alone where that is enough.
pub(super) fn tick(site: Site) -> String {
    match site {
        Site::Block(block, Point::ResidPost) => format!("block {block}"),
        site => site.to_string(),
    }
}

/// The first and the last of an axis's grid places.
pub(super) fn ends(places: &[f64]) -> [f64; 2] {
    [places.first().copied().unwrap_or(0.0), places.last().copied().unwrap_or(1.0)]
}

/// A token's text on an axis: spaces at its ends are left out, and a newline is shown.
pub(super) fn token(text: &str) -> String {
    match text.trim_matches(' ') {
        "" => "␣".into(),
        text => text.replace('\n', "↵").replace('\t', "→"),
    }
}
