//! The operations of a block besides its matrix products, each one pass over the data, with its gradient:
//! the same forward pass reads, generates and trains. They know nothing of models.

mod activation;
mod attention;
mod lanes;
mod norm;
mod product;
mod rotation;
mod slice;

pub use activation::{Activation, activate, gated};
pub use attention::{Heads, Stretch, attend, attention};
pub(crate) use lanes::{exp, wide};
pub use norm::{layer_norm, rms_norm};
pub use rotation::{Angles, rotate};
