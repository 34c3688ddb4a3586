//! The embedded model and the small made-up world of dialogues that it was trained on.
//! The world's truth is known: who the user is, how risky the dialogue is, how often each strategy answers it.

mod adam;
pub mod answer;
mod checkpoint;
pub mod contrast;
pub mod rates;
pub mod reading;
pub mod situation;
pub mod training;
pub mod wording;
pub mod world;

pub use answer::answer;
pub use checkpoint::{architecture, chat, checkpoint, export, model, model_in, write};
pub use rates::{rates, risk, satisfaction};
pub use reading::{Reading, read};
pub use situation::{Intent, Level, Situation, Strategy, UserType};
pub use wording::{fit_topic, vocabulary};
pub use world::{Split, draw, sample};
