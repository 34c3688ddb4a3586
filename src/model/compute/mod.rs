//! Matrix products and the other operations of a transformer block, on the CPU and on NVIDIA devices.
//!
//! [`backend`] picks the instructions or the device; [`cpu`] and [`candle`] hold the kernels; [`linear`], `norm` and
//! [`ops`] dispatch to them.

pub mod activation;
pub(crate) mod attention_weights;
pub mod backend;
pub mod delta_rule;
pub mod heads;
pub mod rotary;

pub mod cpu;
mod cuda;
pub mod candle;

pub mod linear;
pub(crate) mod norm;
pub mod ops;
mod fused_input;

pub use activation::Activation;
pub(crate) use cpu::vector_math::{exp, simd_dispatch};
pub(crate) use fused_input::Input;
pub use heads::Heads;
pub use rotary::Angles;
