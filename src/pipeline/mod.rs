//! The pipeline in short form: methods on the library's types that go from dialogues to a steered answer with defaults.
//!
//! Everything here is a thin layer over the other modules, which hold every option. It is one module, near the end of the
//! order, because its methods join types of stages that know nothing of each other.
//!
//! - [`Model::load`](crate::model::Model::load), [`Loader`]: a model by its name.
//! - [`Dialogues::read`](crate::dialogue::Dialogues::read): dialogues from a file, a list, or the organism's world.
//! - [`Model::extract`](crate::model::Model::extract), [`Extraction`]: activations with labels.
//! - [`Labelled::probe`](crate::activations::Labelled::probe), [`ProbeBuilder`], [`ProbeSweep`]: probes with controls.
//! - [`Probe::risk_map`](crate::probe::Probe::risk_map), [`RiskMap::save_svg`](crate::boundary::RiskMap::save_svg).
//! - [`Labelled::vector`](crate::activations::Labelled::vector), [`VectorBuilder`]: steering vectors.
//! - [`Model::generate`](crate::model::Model::generate): answers under a steering plan; [`Model::outcomes`](crate::model::Model::outcomes)
//!   and [`Model::dose_response`](crate::model::Model::dose_response): what a judge says of them.

mod dialogues;
mod dose;
mod extract;
mod generate;
mod load;
mod probe;
mod read;
mod risk_map;
mod vector;

pub use extract::Extraction;
pub use load::Loader;
pub use probe::{ProbeBuilder, ProbeSweep};
pub use read::unseen_rows;
pub use vector::{BuiltVector, HeldOutEffect, VectorBuilder};

use crate::progress::Progress;

/// A callback that hears how far a stage has come, and stops it by returning false.
pub type OnProgress<'a> = Box<dyn FnMut(Progress) -> bool + 'a>;

/// Tells a callback, if there is one, how far a stage has come.
fn should_continue(
    on_progress: &mut Option<OnProgress>,
    stage: &'static str,
    done: usize,
    total: usize,
) -> bool {
    on_progress.as_mut().is_none_or(|call| call(Progress { stage, done, total }))
}
