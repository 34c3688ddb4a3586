//! Other tools' files of steering vectors, in and out. FORMATS lists them.
//! It knows nothing of what a vector is used for.

mod gguf;
mod lm_eval;
mod pickle;
mod torch;

pub use gguf::{read_gguf, write_gguf};
pub use lm_eval::write_harness;
pub use torch::read_torch;
