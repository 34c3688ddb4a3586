//! Activation patching: the share of the answers' logit difference that a patched state brings back, by site and position.

use super::site_axis::{tick, token};
use crate::analysis::patching::Patching;
use crate::report::Chart;
use crate::report::charts::chart::{HeatChart, Scale};

/// The heat map: 0 is the corrupted prompt, 1 the clean one.
pub fn chart(patching: &Patching) -> Chart {
    let shares = patching.shares();
    let most = shares.iter().flatten().fold(1.0_f64, |most, share| most.max(share.abs()));
    let column = |(clean, corrupted): (&str, &str)| match clean == corrupted {
        true => token(clean),
        false => format!("{} | {}", token(clean), token(corrupted)),
    };
    let texts = patching.clean.iter().map(|one| one.text.as_str());
    Chart::Heat(HeatChart {
        title: "Activation patching".into(),
        subtitle: format!(
            "share of the logit difference {:?} − {:?} ({:.2} clean, {:.2} corrupted) that the clean state brings back",
            token(&patching.answer),
            token(&patching.other),
            patching.clean_difference,
            patching.corrupted_difference
        ),
        x_label: "token, clean | corrupted".into(),
        y_label: "site".into(),
        columns: texts.zip(patching.corrupted.iter().map(|one| one.text.as_str())).map(column).collect(),
        rows: patching.sites.iter().map(|site| tick(*site)).collect(),
        values: shares.into_iter().map(|row| row.into_iter().map(Some).collect()).collect(),
        words: Vec::new(),
        label: "share brought back".into(),
        range: [-most, most],
        scale: Scale::Diverging,
    })
}
