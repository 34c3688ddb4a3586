//! The same operations by candle: they run on any device and record gradients.

pub(crate) mod linear;
pub(crate) mod ops;
