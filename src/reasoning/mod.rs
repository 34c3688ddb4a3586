//! Safety chains: the four nodes of a thinking part (needs, risk and intent, guidelines, strategies) as a type, parsers of them, and their
//! refinement by linguistic backpropagation (Lingo-BP, Oyster-I, arXiv 2509.01909).
//!
//! [`EditEngine`] is the trait of what proposes edits; [`refine`] is the loop around it, which keeps the budget. [`answering`]
//! is the forward pass of the embedded model, [`ProbeSearch`] its engine.

pub mod answering;
mod chain;
mod engines;
mod lingo_bp;
pub mod organism;
pub mod oyster;
pub mod sentences;
mod value_probes;

pub use chain::{Chain, Kind, Node, Strategy, intent_of_text};
pub use engines::{ProbeSearch, RandomEdits};
pub use lingo_bp::{Edit, EditEngine, Forward, History, Losses, Outcome, Phase, Refinement, Step, refine};
pub use value_probes::{Case, Value, ValueProbes};
