//! The risk boundary of a probe: probes and hidden states in, tables to be saved and drawn out.
//!
//! - [`Threshold`]: a threshold with a bound on its error rate; [`Guarantee`]: on rows alike, or in every group. [`Region`], [`Margin`]: signed distances to the boundary.
//! - [`Plane`], [`RiskMap`]: the plane that a probe's decision depends on, and its probabilities there.
//! - [`flips`]: where a label changes between two states. [`PearlMap`]: the best safe point. [`compare`]: active learning.

mod threshold;
mod group_threshold;
mod region;
mod margin;
mod plane;
mod risk_map;
mod flip_search;
mod active_learning;
mod pearl_point;
mod pearl_region;

pub use active_learning::{ActiveLearning, Comparison, LearningCurve, compare};
pub use flip_search::{Classify, Flip, Search, flips};
pub use group_threshold::{
    GroupTrial, Guarantee, group_coverage, guaranteed_threshold, try_on_groups, worst_group_threshold,
};
pub use margin::{Margin, margins, nearest};
pub use pearl_point::{PearlMap, Track, pearl_map, score};
pub use pearl_region::{Pearl, PearlOptions, PearlSpread, Sample};
pub use plane::Plane;
pub use region::{Region, SignedDistance};
pub use risk_map::{Grid, MapPoint, ProjectionError, RiskMap, Surface, risk_map};
pub use threshold::{Coverage, ErrorKind, RiskBound, Threshold, coverage, threshold};

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2};
    use rand::{Rng, SeedableRng, rngs::StdRng};
    use rand_distr::StandardNormal;

    use crate::probe::{Calibration, Link, Probe, Provenance};

    /// Standard normal numbers.
    pub(super) fn cloud(rows: usize, width: usize, seed: u64) -> Array2<f32> {
        let mut random = StdRng::seed_from_u64(seed);
        Array2::from_shape_fn((rows, width), |_| random.sample(StandardNormal))
    }

    /// A probe with given weights.
    pub(super) fn probe(weight: Array2<f32>, classes: &[&str]) -> Probe {
        Probe {
            bias: Array1::from_iter((0..weight.nrows()).map(|head| head as f32 / 4.0)),
            link: if weight.nrows() == 1 { Link::Binary } else { Link::Multinomial },
            weight,
            classes: classes.iter().map(|class| (*class).to_owned()).collect(),
            source: Provenance {
                site: "2.resid_post".parse().unwrap(),
                tokens: "user.last".parse().unwrap(),
                label: "user_type".into(),
                model: None,
                model_hash: None,
                model_form: None,
                data_hash: None,
            },
            method: "none".into(),
            strength: 1.0,
            calibration: Calibration::None,
            threshold: Default::default(),
            scores: Vec::new(),
            held_out: Vec::new(),
            seed: 0,
        }
    }
}
