//! Configuration files: the TOML of experiments, steering grids and probes, as types that are checked when a file is read.

pub mod constructive;
mod data;
pub mod defaults;
pub mod experiment;
pub mod probe;
pub mod rounds;
pub mod steering_grid;
mod toml_file;

pub use constructive::{ConstructiveFile, PolicyArm, PolicyFit, PromptContrast, StrategySpec};
pub use data::Data;
pub use experiment::Experiment;
pub use probe::ProbeFile;
pub use rounds::RoundsFile;
pub use steering_grid::SteeringGrid;
