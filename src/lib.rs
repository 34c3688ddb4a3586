//! pearlpoint reads a language model's hidden states, maps its risk boundary, and steers it while it generates.
//!
//! The modules stand in the order in which data passes through them; each uses only those before it.
//!
//! 1. [`dialogue`]: labelled dialogues, read from JSON Lines, CSV, Parquet, …
//! 2. [`model`]: the forward pass of many model families, with a [`Hook`](model::Hook) at every site of the residual
//!    stream, attention and MLP; [`organism`]: a small embedded model whose world, and so whose truth, is known.
//! 3. [`activations`]: hidden states at chosen sites and tokens, in memory or in a store on disk.
//! 4. [`probe`]: linear probes with held-out groups, calibration, controls and intervals.
//! 5. [`boundary`]: where a probe decides: risk map, margins, thresholds with a guarantee, what to label next.
//! 6. [`steer`]: steering vectors, and plans that say where, how strongly and when they are added.
//! 7. [`generate`](mod@generate): answers under any hook; [`judge`]: what an answer does; [`reasoning`]: the safety chain that an
//!    answer follows, and its refinement; [`rounds`]: risk over the rounds of a dialogue.
//! 8. [`analysis`], [`plots`], [`experiment`], [`report`]: tables from data, charts from tables, both on a page.
//! 9. `serve` (feature `serve`): an OpenAI-compatible server with steering and readings per request.
//!
//! [`pipeline`] joins them with defaults, so that the whole takes ten lines. Here on the embedded model; a name such as
//! `Qwen/Qwen3-0.6B`, a checkpoint folder or a GGUF file loads another, and [`Dialogues::read`](dialogue::Dialogues::read)
//! reads a file:
//!
//! ```
//! use pearlpoint::prelude::*;
//!
//! # fn main() -> Result<()> {
//! # let folder = std::env::temp_dir().join("pearlpoint-doc");
//! let model = Model::load("organism")?;
//! let data = Dialogues::organism(300, 0)?;
//! let states = model.extract(&data, "2-3.resid_post", "assistant.start")?;
//! let sweep = states.probe("user-type").group("topic").hold_out(["travel", "music"]).fit()?;
//! let probe = sweep.best();
//! probe.risk_map(&states, "benign", "malicious")?.save_svg(folder.join("map.svg"))?;
//! let vector = states.vector("answer", "refuse", "guide")?;
//! let plan = Plan::add(vector, "3.resid_post", "0.5n")?.when(probe, "sensitive", 0.5);
//! for answer in model.generate(&Dialogues::organism(2, 1)?, &plan)? {
//!     println!("{}", answer.text);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Where to go next:
//!
//! - `examples/`: `quickstart`, `record_and_probe` (a store on disk), `steer` (a dose–response), `custom_hook`.
//! - [`pipeline`]: the builders above with all their options.
//! - [`prelude`]: the names that most programs need.
//! - The program `pearl` (feature `cli`, on by default) does the same from the command line; a library leaves it out with
//!   `default-features = false`. Feature `hub` fetches models, `parquet` reads Parquet files, `cuda` runs on an NVIDIA GPU.

#![deny(missing_docs)]

pub mod printable;
pub mod error;
pub mod progress;
pub mod runtime;
pub mod artifact;
pub mod stats;
pub mod dialogue;
pub mod report;
pub mod model;
pub mod organism;
pub mod activations;
pub mod probe;
pub mod boundary;
pub mod game;
pub mod steer;
pub mod generate;
pub mod judge;
pub mod reasoning;
pub mod rounds;
pub mod config;
pub mod analysis;
pub mod plots;
pub mod pipeline;
pub mod constructive;
pub mod experiment;
#[cfg(feature = "serve")]
pub mod serve;
pub mod prelude;

pub use error::{Error, Result};
