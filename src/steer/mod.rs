//! Steering: directions, what is done along them, and the hook that does it.

mod hook;
mod operation;
mod vector;

pub use hook::Steer;
pub use operation::{Operation, Strength};
pub use vector::{Direction, Vector};
