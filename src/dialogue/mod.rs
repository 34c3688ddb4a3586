//! Labelled dialogues: what one is, how files of them are read, how they are split.

mod column_map;
mod jsonl;
mod layout;
mod read;
mod record;
mod table;

pub use column_map::ColumnMap;
pub use jsonl::write_jsonl;
pub use read::{Dialogues, Options, Stream, read, stream};
pub use record::{Dialogue, Label, Message, Role};
