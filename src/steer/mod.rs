//! Steering: directions, what is done along them, where and when, and the hook that does it.
//!
//! - [`Vector`]: directions, their arithmetic and their controls; [`ContrastSet`] and [`Method`]: how they are found.
//! - [`Operation`], [`SafeSet`]: what is done to a state.
//! - [`Condition`], [`Schedule`], [`PiController`]: when, and how strongly.
//! - [`Steer`]: one intervention as a hook; [`Plan`]: several, as a file says them.

mod find_direction;
mod closed_loop;
mod condition;
mod pi_controller;
mod offset_hook;
mod row_edit;
pub mod formats;
mod steer_hook;
mod operation;
mod plan;
mod plan_builder;
mod probe_reader;
mod schedule;
mod trace;
mod vector;
mod prompt_gate;

pub use condition::{Bound, Condition};
pub use find_direction::{ContrastSet, Method};
pub use offset_hook::Displace;
pub use operation::{HalfSpace, Operation, SafeSet, Strength};
pub use pi_controller::PiController;
pub use plan::{Control, Intervention, Plan, ReadAt};
pub use probe_reader::{ProbeQuery, Probes, Reader};
pub use prompt_gate::rows;
pub use schedule::Schedule;
pub use steer_hook::Steer;
pub use trace::Step;
pub use vector::{Direction, Vector};
