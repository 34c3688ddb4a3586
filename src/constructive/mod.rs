//! Constructive safety, the loop closed: who the user is, read from the prompt's hidden states, is the belief of a game; its solution is a
//! strategy; the strategy steers the answer from its first thought on, and a face keeps it on its side.
//!
//! [`fit()`] makes a [`Policy`] from a model, labelled dialogues and a judge; a policy decides for dialogues ([`Policy::decide`]) and turns
//! its decisions into a steering plan ([`Policy::plan`]). [`Ablation`]s take one part away.

mod card;
mod decision;
mod dose;
mod evaluation;
mod fit;
mod folder;
mod guard;
mod policy;

pub use decision::{Ablation, Decision};
pub use dose::DoseOptions;
pub use evaluation::evaluate;
pub use fit::{FitOptions, fit};
pub use guard::Guard;
pub use policy::{Policy, PolicySettings, StrategyDose};
