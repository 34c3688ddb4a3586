//! The same operations composed of candle's own, for gradients and other devices.

pub(crate) mod linear;
pub(crate) mod ops;
