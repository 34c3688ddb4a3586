//! The names that a program needs for the whole pipeline: `use pearlpoint::prelude::*;`.

pub use crate::activations::Labelled;
pub use crate::boundary::RiskMap;
pub use crate::dialogue::{Dialogue, Dialogues, Label, Message, Role};
pub use crate::error::{Error, Result};
pub use crate::generate::{GenerateOptions, Sampling, Transcript};
pub use crate::model::{Dtype, Hook, Model, Selector, Site, Token};
pub use crate::pipeline::{Extraction, Loader, ProbeBuilder, ProbeSweep, VectorBuilder};
pub use crate::probe::{Probe, TargetKind};
pub use crate::progress::Progress;
pub use crate::steer::{Plan, Vector};
/// The tensors that hooks take and return, from candle.
pub use candle_core::Tensor;
