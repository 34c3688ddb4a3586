//! Analyses: data in, table out, one function each.

pub mod boundary_report;
pub mod cross_validation;
pub(crate) mod dataset;
pub mod interpolation;
pub mod layer_sweep;
pub(crate) mod metrics;
pub mod organism_check;
pub(crate) mod pareto;
pub mod probe_card;
pub(crate) mod side_effects;
pub(crate) mod steering_eval;
pub mod steering_grid;
pub mod token_readout;
