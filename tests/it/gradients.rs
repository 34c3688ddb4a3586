//! Gradients of a readout at the hidden states before it, against finite differences, on a checkpoint of every family.

use std::collections::BTreeMap;

use ndarray::Array1;
use pearlpoint::activations::Readout;
use pearlpoint::model::{Decoder, Site, Token};
use pearlpoint::steer::ReplaceHook;

use crate::model::{decoder, families, tokens as rows};

/// The readout with the state at a site and position moved, over twice the step.
fn difference(
    decoder: &Decoder,
    readout: &Readout,
    tokens: &[Token],
    site: Site,
    (at, state, along): (usize, &Array1<f32>, &Array1<f32>),
) -> f64 {
    let step = 1e-2 * (state.dot(state) / along.dot(along)).sqrt().max(1e-3);
    let moved = |by: f32| {
        let new = BTreeMap::from([((0, at), (state + &(along * by)).to_vec())]);
        let mut hook = ReplaceHook::new(decoder, site, new).unwrap();
        readout.values(decoder, tokens, &[tokens.len() - 1], &mut hook).unwrap()[0]
    };
    (moved(step) - moved(-step)) / f64::from(2.0 * step)
}

#[test]
fn gradients_agree_with_finite_differences_for_every_family() {
    let (mut wrong, mut compared, mut refused) = (Vec::new(), 0, 0);
    for name in ["qwen3".to_owned(), "llama3".to_owned()].into_iter().chain(families()) {
        let decoder = decoder(&name);
        let architecture = decoder.architecture();
        let tokens = rows(&[(0..7).map(|at| 1 + 3 * at).collect()]);
        let sites = architecture.parse_sites("embed,0.resid_post").unwrap();
        let last = *architecture.parse_sites("*.resid_post").unwrap().last().unwrap();
        let width = architecture.site_width(last);
        let wave = |width: usize, by: f32| Array1::from_iter((0..width).map(|i| (i as f32 * by).sin()));
        let mut readouts = vec![Readout::Direction(last, wave(width, 0.7))];
        if architecture.has(Site::Logits) {
            readouts.push(Readout::Logits([5, 9]));
        }
        for readout in readouts {
            let found = match readout.gradients(&decoder, &tokens, &sites) {
                Ok((value, found)) => {
                    let plain = readout.values(&decoder, &tokens, &[6], &mut ()).unwrap()[0];
                    assert!((value - plain).abs() < 1e-3 * (1.0 + plain.abs()), "{name}: {value} {plain}");
                    found
                }
                Err(error) => {
                    assert!(error.to_string().lines().count() == 1, "{name}: {error}");
                    assert!(architecture.experts.is_some() || architecture.is_recurrent(), "{name}: {error}");
                    refused += 1;
                    continue;
                }
            };
            for one in found {
                // The gradient there is 0 of tokens that the readout doesn't see: none of a causal model.
                for at in [1, 6] {
                    let state = one.states.row(at).to_owned();
                    let along = wave(state.len(), 1.3);
                    let expected = difference(&decoder, &readout, &tokens, one.site, (at, &state, &along));
                    let gradient = f64::from(one.gradient.row(at).dot(&along));
                    let scale = f64::from(one.gradient.row(at).mapv(|g| g * g).sum().sqrt())
                        * f64::from(along.dot(&along).sqrt());
                    if (gradient - expected).abs() > 0.02 * scale + 1e-5 {
                        let site = one.site;
                        wrong.push(format!(
                            "{name}, {site}, token {at}: {gradient}, not {expected} (of {scale})"
                        ));
                    }
                    compared += 1;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(compared > 250 && refused > 0, "{compared}, {refused}");
}
