//! What an experiment file may say.

pub(crate) mod experiment;
pub(crate) mod steering_grid;
