//! A language model that can be watched.

pub mod hook;
pub mod site;
pub mod tokens;

pub use hook::{Chain, Hook};
pub use site::{Point, Site};
pub use tokens::{Phase, Pooling, Selector, Token};
