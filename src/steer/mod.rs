//! Steering: directions, what is done along them, when, and the hook that does it.

mod condition;
mod displace;
mod hook;
mod operation;
mod plan;
mod vector;

pub use condition::Condition;
pub use displace::Displace;
pub use hook::Steer;
pub use operation::{Operation, Strength};
pub use plan::{Intervention, Plan};
pub use vector::{Direction, Vector};
