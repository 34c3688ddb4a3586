//! The embedded model organism and its synthetic world of dialogues.
//! The world's ground truth is known for every dialogue: user type, risk level, and the probability of each answer strategy.
//!
//! - [`situation`]: the latent variables of a dialogue; [`wording`]: the tables of words; [`rates`](mod@rates): strategy
//!   probabilities, satisfaction and risk.
//! - [`world`]: user messages from a situation; [`answer`](mod@answer): an answer from a situation; [`parser`]: an answer back to
//!   its parts; [`contrast`]: matched pairs.
//! - [`user`]: how a simulated user goes on after an answer.
//! - [`training`]: weights from a seed; [`checkpoint()`], [`model()`], [`export`]: the model itself.

mod adam;
pub mod answer;
mod checkpoint;
pub mod contrast;
pub mod parser;
pub mod rates;
pub mod situation;
pub mod training;
pub mod user;
pub mod wording;
pub mod world;

pub use answer::answer;
pub use checkpoint::{architecture, chat, checkpoint, export, model, model_in, write};
pub use parser::{ParsedAnswer, Thought, read, read_thought};
pub use rates::{harm_rate, rates, risk, satisfaction};
pub use situation::{Intent, Level, Situation, Strategy, UserType};
pub use user::Reaction;
pub use wording::{fit_topic, vocabulary};
pub use world::{MAX_SAMPLE, Split, check_count, draw, sample};
