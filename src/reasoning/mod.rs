//! Safety chains: the four nodes of a thinking part (needs, risk and intent, guidelines, strategies) as a type, parsers of them, and their
//! refinement by linguistic backpropagation (Lingo-BP, Oyster-I, arXiv 2509.01909).
//!
//! [`EditEngine`] is the trait of what proposes edits; [`refine`] is the loop around it, which keeps the budget. [`answering`]
//! is the forward pass of the embedded model, [`free_answering`] that of any chat model. Engines: [`ProbeSearch`] and [`GradientSearch`] of
//! the embedded model, [`RandomEdits`], and [`ModelEngine`], which asks a local model or an endpoint.

pub mod answering;
mod chain;
mod engines;
pub mod free_answering;
mod lingo_bp;
mod model_engine;
mod nodes;
pub mod organism;
pub mod oyster;
pub mod sentences;
mod value_probes;

pub use chain::{Chain, Kind, Node, Strategy, intent_of_text};
pub use engines::{GradientSearch, ProbeSearch, RandomEdits, Reader};
pub use lingo_bp::{
    Edit, EditEngine, FailedStep, Failure, Forward, History, Losses, Outcome, Phase, Proposal, Refinement,
    Step, refine,
};
pub use model_engine::{AskModel, EndpointModel, LocalModel, ModelEngine, Question, first_chain};
pub use nodes::{ChainForm, NodePlace, places};
pub use value_probes::{Case, Value, ValueProbes};
