//! Steering: directions, operations along them, conditions, schedules and doses by a reading, and the hook that applies them.
//!
//! - [`Vector`]: a direction a site, with its arithmetic and its controls; [`ContrastSet`], [`Method`]: how it is found.
//! - [`Operation`]: the table of changes; [`SafeSet`]: what `project` projects onto.
//! - [`Condition`], [`Schedule`], [`PiController`]: when, and how strongly.
//! - [`Plan`], [`Intervention`]: what a file or a caller asks for; [`SteerHook`]: one intervention as a hook.

mod measured;
mod vector;
mod find_direction;
mod null_directions;
pub mod formats;
mod operation;
mod probe_query;
mod constraint;
mod condition;
mod schedule;
mod site_set;
mod source;
mod probe_reader;
mod pi_controller;
mod closed_loop;
mod row_edit;
mod trace;
mod steer_hook;
mod offset_hook;
mod replace_hook;
mod prompt_gate;
mod intervention;
mod prepare;
mod plan;

pub use condition::{Bound, Condition};
pub use constraint::{Constraint, Inequality};
pub use find_direction::{ContrastRows, ContrastSet, Method};
pub use intervention::{Control, EvaluateAt, Intervention};
pub use measured::{Measured, Unit};
pub use null_directions::Null;
pub use offset_hook::OffsetHook;
pub use operation::{
    Change, CurvedFace, Edit, HalfSpace, Measure, OPERATIONS, Operation, Reference, SafeSet, Strength,
};
pub use pi_controller::PiController;
pub use plan::Plan;
pub use probe_query::ProbeQuery;
pub use probe_reader::{ProbeReader, Probes};
pub use prompt_gate::gated_rows;
pub use replace_hook::ReplaceHook;
pub use schedule::Schedule;
pub use site_set::SiteSet;
pub use source::{ProbeSource, VectorSource};
pub use steer_hook::SteerHook;
pub use trace::TraceEntry;
pub use vector::{Direction, Vector};
