//! Activation patching: the share of the answers' logit difference that a patched state brings back, by site and position.

use super::site_axis::axis;
use super::token_map::visible;
use crate::analysis::patching::Patching;
use crate::report::Chart;
use crate::report::charts::chart::{HeatChart, Scale};

/// The heat map: 0 is the corrupted prompt, 1 the clean one.
pub fn chart(patching: &Patching) -> Chart {
    let shares = patching.shares();
    let most = shares.iter().flatten().fold(1.0_f64, |most, share| most.max(share.abs()));
    let column = |(clean, corrupted): (&str, &str)| match clean == corrupted {
        true => visible(clean),
        false => format!("{} | {}", visible(clean), visible(corrupted)),
    };
    let texts = patching.clean.iter().map(|one| one.text.as_str());
    Chart::Heat(HeatChart {
        title: "Activation patching".into(),
        subtitle: format!(
            "share of the logit difference {:?} − {:?} ({:.2} clean, {:.2} corrupted) that the clean state brings back",
            visible(&patching.answer),
            visible(&patching.other),
            patching.clean_difference,
            patching.corrupted_difference
        ),
        x_label: "token, clean | corrupted".into(),
        y_label: axis(&patching.sites).0,
        columns: texts.zip(patching.corrupted.iter().map(|one| one.text.as_str())).map(column).collect(),
        rows: axis(&patching.sites).1,
        values: shares.into_iter().map(|row| row.into_iter().map(Some).collect()).collect(),
        words: Vec::new(),
        label: "share brought back".into(),
        range: [-most, most],
        scale: Scale::Diverging,
    })
}
