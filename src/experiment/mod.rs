//! The runners: an experiment, a steering grid or a probe folder, from its file to a folder of results. Every stage saves its
//! tables; progress goes to a callback.

pub mod boundary_stages;
mod chart_file;
mod dose_stage;
mod paths;
pub mod probe_card;
mod report_page;
pub mod rounds;
pub mod rounds_canary;
mod rounds_fit;
mod rounds_plays;
mod rounds_users;
mod runner;
pub mod steering_grid;

pub use self::report_page::headline;
pub use self::rounds_plays::merge_rounds;
pub use self::runner::{fresh, run};
pub use crate::config::Experiment;
pub use crate::progress::Progress;

/// The experiment that the program carries: the whole pipeline on the embedded model.
pub const DEMO: &str = include_str!("../../experiments/demo.toml");
