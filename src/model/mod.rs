//! A language model that can be watched.

pub mod architecture;
pub mod cache;
pub mod decoder;
pub mod families;
pub mod hook;
pub mod linear;
pub mod operations;
pub mod site;
pub mod tokens;
pub mod weights;

pub use architecture::Architecture;
pub use cache::Cache;
pub use decoder::Decoder;
pub use hook::{Chain, Hook};
pub use site::{Point, Site};
pub use tokens::{Phase, Pooling, Selector, Token};
pub use weights::Weights;
