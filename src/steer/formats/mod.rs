//! Steering-vector files of other tools: GGUF control vectors, PyTorch and NumPy arrays, `.svec`, lm-evaluation-harness.

mod gguf;
mod import;
mod layout;
mod lm_eval;
mod numpy;
mod pickle;
mod pickle_objects;
mod svec;
mod torch;

pub use gguf::{read_gguf, write_gguf};
pub use import::{Placement, read};
pub use lm_eval::write_harness;
