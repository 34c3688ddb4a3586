//! The operations of a block besides its matrix products, each one pass over the data, with its gradient:
//! the same forward pass reads, generates and trains. They know nothing of models.

mod attention;
mod gate;
mod lanes;
mod norm;
mod product;
mod rotation;
mod slice;

pub use attention::{Heads, Stretch, attend, attention};
pub use gate::gated_silu;
pub use norm::rms_norm;
pub use rotation::{Angles, rotate};
