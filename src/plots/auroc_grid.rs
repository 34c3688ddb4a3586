//! AUROC of a linear probe by site and selector: where in the model, and at which tokens, a label is.

use super::site_axis::axis;
use crate::analysis::auroc_grid::AurocGrid;
use crate::report::Chart;
use crate::report::charts::chart::{HeatChart, Scale};

/// The heat map.
pub fn chart(grid: &AurocGrid) -> Chart {
    let (x_label, columns) = axis(&grid.sites);
    // Rows are drawn from the lowest up: the first selector is on top.
    let rows = || grid.rows.iter().rev();
    let lowest = rows().flat_map(|row| row.auroc.iter().flatten()).map(|auroc| auroc.value);
    Chart::Heat(HeatChart {
        title: format!("Linear probe of {} by site and tokens", grid.label),
        subtitle: format!(
            "AUROC, {}; words and bigrams alone: {}",
            grid.split,
            grid.rows.iter().map(|row| format!("{:.3}", row.ngram)).collect::<Vec<_>>().join(", ")
        ),
        x_label,
        y_label: "tokens".into(),
        columns,
        rows: rows().map(|row| row.tokens.to_string()).collect(),
        values: rows()
            .map(|row| row.auroc.iter().map(|auroc| Some(auroc.as_ref()?.value)).collect())
            .collect(),
        words: Vec::new(),
        label: "AUROC".into(),
        range: [lowest.fold(0.5, f64::min), 1.0],
        scale: Scale::Rising,
    })
}
