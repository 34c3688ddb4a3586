//! The activation functions of an MLP.

/// An elementwise activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)` (Elfwing et al., arXiv 1702.03118).
    Silu,
    /// `x · Φ(x)` (Hendrycks & Gimpel, arXiv 1606.08415).
    Gelu,
    /// The tanh approximation of GELU, from the same paper.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}
