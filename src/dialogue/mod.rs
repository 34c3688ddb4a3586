//! Labelled dialogues: what one is, how files of them are read, how they are split.

mod column_map;
mod jsonl;
mod datasets;
#[cfg(feature = "parquet")]
mod parquet;
mod reader;
#[expect(clippy::module_inception, reason = "the file of the type that the folder is named after")]
mod dialogue;
mod byte_source;
mod csv;

pub use byte_source::Progress;
pub use column_map::ColumnMap;
pub use dialogue::{Dialogue, Label, Message, Role};
pub use jsonl::write_jsonl;
pub use reader::{Dialogues, Options, Stream, Survey, read, stream, survey};
