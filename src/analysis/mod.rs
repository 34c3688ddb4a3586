//! Analyses: a function an experiment, data in and a table out. They draw no chart and write no file.

pub mod answers;
pub mod boundary_report;
pub mod chain_refinement;
pub mod constructive_score;
mod control_text;
pub mod cross_validation;
pub mod dataset;
pub mod direction_choice;
pub mod game_estimate;
mod group_interval;
pub mod interpolation;
pub mod layer_sweep;
pub mod logit_lens;
pub mod null_test;
pub mod organism_check;
pub mod pareto;
pub mod patching;
pub mod pearl_map;
pub mod probe_card;
pub mod probe_check;
pub mod side_effects;
pub mod steering_effect;
pub mod steering_eval;
pub mod steering_grid;
pub mod steering_table;
pub mod token_readout;
