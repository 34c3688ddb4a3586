//! pearlpoint reads a language model's hidden states, maps where its risk boundary runs, and steers its reasoning
//! while it generates.
//!
//! The modules stand in the order in which data passes through them; each uses only those before it.

pub mod error;
pub mod progress;
pub mod artifact;
pub mod stats;
pub mod dialogue;
pub mod report;
pub mod model;
pub mod organism;
pub mod activations;
pub mod probe;
pub mod boundary;
pub mod steer;
pub mod generate;
pub mod judge;
pub mod config;
pub mod analysis;
pub mod plots;
pub mod experiment;

pub use error::{Error, Result};
