//! Rounds: risk that is spread thin over a dialogue. Readings round by round, the agent that spreads it, monitors that notice, and the
//! sequential play of one against the other.
//!
//! - [`Condition`], [`trace`], [`Scalars`]: what is read in each round of dialogues that are there.
//! - [`Monitor`], [`Alarm`]: when a dialogue's readings are an attack, at a stated rate of false alarms.
//! - [`Aim`], [`Agent`], [`Attacker`]: what an attacker is after, and how it goes about it, in parts that can be swapped, or by messages from
//!   elsewhere.
//! - [`play`], [`Defence`]: rounds one after the other, with the model's real answers in between.
//! - [`canary`]: an aim that any chat model has a harmless stand-in for.
//!
//! Aims are harmless stand-ins: the organism's world, and a made-up word that the model is asked to keep.

mod agent;
mod aim;
mod attacker;
pub mod canary;
mod condition;
mod defence;
mod hidden_markov;
mod manner;
mod monitors;
mod pace;
mod play;
mod reader;
mod task;
mod trace;
mod trajectory;
pub mod world;

pub use agent::{Agent, Decompose, Manners, Pace, React};
pub use aim::{Aim, Manner};
pub use attacker::{Attacker, EndpointAttacker};
pub use condition::{Condition, user_messages};
pub use defence::{Choice, Defence, MessageProbe, Open, Refusing, SystemMessage, Undefended};
pub use hidden_markov::HiddenMarkov;
pub use manner::Bandit;
pub use monitors::{Alarm, Monitor, Reading};
pub use pace::{Similarities, similarities};
pub use play::{Ended, PlayOptions, Played, Turn, play, play_from};
pub use reader::Reader;
pub use task::{Task, Verdict};
pub use trace::{ProbeOfClass, RoundScore, Trace, TraceSummary, TurnRecord, trace};
pub use trajectory::Scalars;
