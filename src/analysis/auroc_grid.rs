//! AUROC by site and selector: which tokens of a dialogue hold a label, and in which block.

use serde::{Deserialize, Serialize};

use super::layer_sweep::SweepTable;
use crate::error::{Error, Result};
use crate::model::{Selector, Site};
use crate::stats::Metric;

/// AUROC of probes by selector and site (the table of a plot).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AurocGrid {
    /// The label that the probes read.
    pub label: String,
    /// The part that scores are on.
    pub split: String,
    /// Every site of a sweep, in the order of the forward pass.
    pub sites: Vec<Site>,
    /// A line a selector.
    pub rows: Vec<AurocRow>,
}

/// The probes of one selector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AurocRow {
    /// Which tokens were read.
    pub tokens: Selector,
    /// `[sites]`; none where no probe could be fitted, such as at the embedding of a template's token.
    pub auroc: Vec<Option<Metric>>,
    /// AUROC of words and bigrams on the same rows.
    pub ngram: f64,
}

impl AurocGrid {
    /// The grid of a sweep a selector.
    ///
    /// # Errors
    /// No sweep; sweeps of different labels or splits; two of one selector.
    pub fn new(sweeps: Vec<(Selector, SweepTable)>) -> Result<AurocGrid> {
        let Some((_, first)) = sweeps.first() else {
            return Err(Error::input("AUROC by selector", "no sweep", "one or more"));
        };
        let (label, split) = (first.label.clone(), first.split.clone());
        let mut sites: Vec<Site> = Vec::new();
        for (number, (tokens, sweep)) in sweeps.iter().enumerate() {
            if sweep.label != label || sweep.split != split {
                let found = format!("{} ({}) and {label} ({split})", sweep.label, sweep.split);
                return Err(Error::input("AUROC by selector", found, "one label, split in one way"));
            }
            if sweeps[..number].iter().any(|(other, _)| other == tokens) {
                let found = format!("{tokens} twice");
                return Err(Error::input("AUROC by selector", found, "a selector once"));
            }
            sites.extend(sweep.sites.iter().map(|(site, _)| *site));
        }
        sites.sort_unstable();
        sites.dedup();
        let row = |(tokens, sweep): (Selector, SweepTable)| {
            let at = |site: &Site| sweep.sites.iter().find(|(other, _)| other == site);
            let auroc = sites.iter().map(|site| at(site).map(|(_, auroc)| auroc.clone())).collect();
            AurocRow { tokens, auroc, ngram: sweep.ngram }
        };
        Ok(AurocGrid { label, split, rows: sweeps.into_iter().map(row).collect(), sites })
    }

    /// The selector, site and score of the highest AUROC; a choice made on these scores, so an optimistic one.
    pub fn highest(&self) -> Option<(&Selector, Site, &Metric)> {
        let cells = self.rows.iter().flat_map(|row| {
            self.sites
                .iter()
                .zip(&row.auroc)
                .filter_map(move |(site, auroc)| Some((&row.tokens, *site, auroc.as_ref()?)))
        });
        cells.max_by(|a, b| a.2.value.total_cmp(&b.2.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(label: &str, sites: &[(&str, f64)]) -> SweepTable {
        let auroc =
            |value| Metric { name: "auroc".into(), value, low: None, high: None, n: 9, split: "test".into() };
        SweepTable {
            label: label.into(),
            split: "topic held out".into(),
            sites: sites.iter().map(|(site, value)| (site.parse().unwrap(), auroc(*value))).collect(),
            ngram: 0.5,
            tfidf: None,
            shuffled: 0.5,
            controls: Vec::new(),
        }
    }

    #[test]
    fn sites_that_one_selector_lacks_are_empty() {
        let last = (Selector::Last, sweep("kind", &[("0.resid_post", 0.6), ("1.resid_post", 0.9)]));
        let user = ("mean(user)".parse().unwrap(), sweep("kind", &[("embed", 0.7), ("1.resid_post", 0.8)]));
        let grid = AurocGrid::new(vec![last.clone(), user]).unwrap();
        assert_eq!(
            grid.sites.iter().map(Site::to_string).collect::<Vec<_>>(),
            ["embed", "0.resid_post", "1.resid_post"]
        );
        let values = |row: usize| {
            grid.rows[row].auroc.iter().map(|auroc| auroc.as_ref().map(|a| a.value)).collect::<Vec<_>>()
        };
        assert_eq!(
            (values(0), values(1)),
            (vec![None, Some(0.6), Some(0.9)], vec![Some(0.7), None, Some(0.8)])
        );
        assert_eq!(
            grid.highest().map(|(tokens, site, _)| format!("{tokens} {site}")).unwrap(),
            "last 1.resid_post"
        );
        assert!(AurocGrid::new(vec![last.clone(), last.clone()]).is_err());
        assert!(AurocGrid::new(vec![last, ("all".parse().unwrap(), sweep("mood", &[]))]).is_err());
        assert!(AurocGrid::new(Vec::new()).is_err());
    }
}
