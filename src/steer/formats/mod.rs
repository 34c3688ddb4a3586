//! Steering-vector files of other tools: GGUF control vectors, PyTorch tensors, lm-evaluation-harness.

mod gguf;
mod lm_eval;
mod pickle;
mod torch;

pub use gguf::{read_gguf, write_gguf};
pub use lm_eval::write_harness;
pub use torch::read_torch;
