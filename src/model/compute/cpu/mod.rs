//! Kernels for processors.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
pub(crate) mod attention_decode;
#[cfg(target_arch = "x86_64")]
pub(crate) mod attention_prefill_amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512_microkernel;
#[cfg(target_arch = "x86_64")]
pub(crate) mod bf16;
pub(crate) mod gemm;
#[cfg(target_arch = "x86_64")]
pub(crate) mod packed_gemm;
#[cfg(target_arch = "x86_64")]
pub(crate) mod packed_input;
#[cfg(target_arch = "x86_64")]
pub(crate) mod quantized_gemm;
pub(crate) mod simd;
pub(crate) mod small_matmul;
pub(crate) mod tensor_slice;
pub(crate) mod vector_math;
