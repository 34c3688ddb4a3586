//! Names of sites and ranges on axes.

use crate::model::{Point, Site};

/// The name of a site on an axis: the block alone where that is enough.
pub(super) fn tick(site: Site) -> String {
    match site {
        Site::Block(block, Point::ResidPost) => format!("block {block}"),
        site => site.to_string(),
    }
}

/// An axis of sites: its name and that of each site, the block's number alone where every site is the output of a block.
pub(super) fn axis(sites: &[Site]) -> (String, Vec<String>) {
    let block = |site: &Site| match site {
        Site::Block(block, Point::ResidPost) => Some(block.to_string()),
        _ => None,
    };
    match sites.iter().map(block).collect() {
        Some(blocks) => ("block".into(), blocks),
        None => ("site".into(), sites.iter().map(|site| tick(*site)).collect()),
    }
}

/// The first and the last of an axis's grid places.
pub(super) fn ends(places: &[f64]) -> [f64; 2] {
    [places.first().copied().unwrap_or(0.0), places.last().copied().unwrap_or(1.0)]
}
