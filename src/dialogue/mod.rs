//! Labelled dialogues: what one is, how files of them are read, how they are split.

mod record;

pub use record::{Dialogue, Label, Message, Role};
