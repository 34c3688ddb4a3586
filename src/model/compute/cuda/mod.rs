//! Products by cuBLAS.

#[cfg(feature = "cuda")]
pub(crate) mod bf16_gemm;
