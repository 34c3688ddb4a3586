//! Labelled dialogues: what one is, how files of them are read, how they are split.

mod column_map;
mod jsonl;
mod layout;
#[cfg(feature = "parquet")]
mod parquet;
mod read;
mod record;
mod source;
mod table;

pub use column_map::ColumnMap;
pub use jsonl::write_jsonl;
pub use read::{Dialogues, Options, Stream, Survey, read, stream, survey};
pub use record::{Dialogue, Label, Message, Role};
pub use source::Progress;
