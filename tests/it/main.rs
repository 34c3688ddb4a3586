//! One binary, a module a room. What one file can show by itself is tested at the end of that file;
//! here stand promises that hold across rooms, on real checkpoints and on the program as users run it.

mod activations;
mod adapters;
mod backend;
mod boundary;
#[cfg(feature = "hub")]
mod chain_engines;
mod chat;
mod checkpoints;
mod claimed_sizes;
mod chat_inputs;
mod constructive;
mod coverage;
mod direction_choice;
mod export;
mod docs;
mod game;
mod generate;
mod gradients;
mod hostile_input;
mod gguf;
mod gguf_split;
mod malformed_input;
#[cfg(feature = "hub")]
mod hub;
mod invariants;
mod judge;
#[cfg(feature = "hub")]
mod judge_endpoint;
mod model;
mod cache;
mod layering;
mod lens;
mod library;
mod organism;
mod parity;
mod interrupt;
mod real_chat;
mod rounds;
mod long_rounds;
#[cfg(feature = "hub")]
mod rounds_attacker;
mod parts;
mod probe;
mod reasoning;
mod probe_check;
mod quantised;
#[cfg(feature = "serve")]
mod serve;
mod cli;
mod steer;
mod sweep;
mod vectors;
