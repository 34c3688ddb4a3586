//! Labelled dialogues: the type, its file formats, and the layouts of published data sets.
//!
//! Files in (JSON Lines, JSON, CSV, TSV, Parquet; compressed or not), [`Dialogue`]s out, streamed in constant memory.

mod byte_source;
mod column_map;
mod csv;
mod datasets;
#[expect(clippy::module_inception, reason = "the file of the type that the folder is named after")]
mod dialogue;
mod file_format;
mod integers;
mod json_list;
mod json_record;
mod jsonl;
mod label_choices;
#[cfg(feature = "parquet")]
mod parquet;
mod prompt_columns;
mod prompt_fields;
mod raw_record;
mod read_options;
mod reader;
mod record_guard;
mod stream;
mod zstandard;

pub use byte_source::ReadProgress;
pub use column_map::ColumnMap;
pub use dialogue::{Dialogue, Label, Message, Role};
pub use file_format::records;
pub use jsonl::write_jsonl;
pub use label_choices::{check_label, check_value};
pub use read_options::ReadOptions;
pub use reader::{DatasetSummary, Dialogues, read, summarize};
pub use stream::{DialogueStream, Skipped, stream};
