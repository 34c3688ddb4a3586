//! pearlpoint reads a language model's hidden states, maps where its risk boundary runs, and steers its reasoning
//! while it generates.
//!
//! The modules stand in the order in which data passes through them; each uses only those before it.

pub mod error;
pub mod dialogue;
pub mod model;
pub mod report;

pub use error::{Error, Result};
