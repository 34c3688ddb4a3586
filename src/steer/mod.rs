//! Steering: directions, what is done along them, where and when, and the hook that does it.
//!
//! - [`Vector`]: directions, their arithmetic and their controls; [`Sides`] and [`Method`]: how they are found.
//! - [`Operation`], [`Polyhedron`]: what is done to a state.
//! - [`Condition`], [`Schedule`], [`Law`]: when, and how strongly.
//! - [`Steer`]: one intervention as a hook; [`Plan`]: several, as a file says them.

mod build;
mod closed;
mod condition;
mod control;
mod displace;
mod edit;
pub mod formats;
mod hook;
mod operation;
mod plan;
mod reading;
mod schedule;
mod trace;
mod vector;
mod when;

pub use build::{Method, Sides};
pub use condition::{Bound, Condition};
pub use control::Law;
pub use displace::Displace;
pub use hook::Steer;
pub use operation::{Face, Operation, Polyhedron, Strength};
pub use plan::{Control, Intervention, Plan, ReadAt};
pub use reading::{Asked, Probes, Reader};
pub use schedule::Schedule;
pub use trace::Step;
pub use vector::{Direction, Vector};
pub use when::rows;
