//! The operations of a block besides its matrix products, each one pass over the data, with its gradient:
//! the same forward pass reads, generates and trains. They know nothing of models.

pub mod candle;

pub mod cpu;

pub mod backend;
pub(crate) mod fused_input;
pub(crate) mod huge_pages;
pub mod linear;

mod activation;
mod attention;
mod norms;
mod rotary;
mod fused_row;
mod sum;

#[cfg(target_arch = "x86_64")]
pub(crate) use activation::gate_in_place;
pub use activation::{Activation, activate, gated};
pub use attention::{Heads, KvSegment, attend, attention};
pub(crate) use cpu::tensor_slice::with as with_slices;
pub(crate) use cpu::vector_math::{Once, exp, simd_dispatch};
pub use fused_row::Row;
pub use norms::{layer_norm, rms_norm};
pub use rotary::{Angles, prepare_heads, rotate};
pub use sum::sum;
