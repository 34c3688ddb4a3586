//! The game between a model and its user: a Bayesian Stackelberg game of Oyster-I (arXiv 2509.01909).
//!
//! The leader (the model) commits to a mixture over its actions for what it believes about the user; the follower (a benign,
//! sensitive or malicious user) reacts as is best for him. Payoffs in, the leader's best mixture with every type's reaction
//! out.

mod belief;
mod explain;
mod payoffs;
mod solve;

pub use belief::Belief;
pub use explain::{BeliefCell, BeliefMap, Change, belief_map, changes, leader_sensitivity};
pub use payoffs::{Game, UserType, Weights};
pub use solve::{Equilibrium, solve};
