//! The operations of a block besides its matrix products, each one pass over the data, with its gradient:
//! the same forward pass reads, generates and trains. They know nothing of models.

mod activation;
mod attention;
pub(in crate::model) mod composed;
mod few;
mod lanes;
mod norm;
mod product;
mod rotation;
mod row;
mod slice;
mod sum;
#[cfg(target_arch = "x86_64")]
mod tiles;

#[cfg(target_arch = "x86_64")]
pub(in crate::model) use activation::gate_in_place;
pub use activation::{Activation, activate, gated};
pub use attention::{Heads, Stretch, attend, attention};
pub(crate) use lanes::{Once, exp, wide};
pub use norm::{layer_norm, rms_norm};
pub use rotation::{Angles, prepare_heads, rotate};
pub use row::Row;
pub(in crate::model) use slice::with as with_slices;
pub use sum::sum;
