//! GGUF files: metadata and tensor ranges, memory-mapped.
//!
//! This reader is our own because candle's allocates what a header claims. Here a claim must fit the file before anything is
//! allocated, and counts, depth and ranges are limited. Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>,
//! versions 2 and 3, little-endian.

mod file;
mod ggml_type;
mod header;
mod value;

pub use file::GgufFile;
pub use ggml_type::GgmlType;
pub use header::GgufTensor;
pub use value::GgufValue;
