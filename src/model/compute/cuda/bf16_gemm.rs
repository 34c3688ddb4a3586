//! Product of bf16 matrices on an NVIDIA device with f32 accumulation and f32 output, which candle doesn't offer.

#![cfg(feature = "cuda")]

use candle_core::backend::BackendStorage;
use candle_core::cuda::cudarc::cublas::{result, sys};
use candle_core::cuda::cudarc::driver::{DevicePtr, DevicePtrMut};
use candle_core::{CpuStorage, CudaStorage, CustomOp2, Error, Layout, Result, Shape};
use half::bf16;

/// `x · matrixᵀ`. `x`: bf16 `[tokens, inputs]`; `matrix`: bf16 `[outputs, inputs]`; gives f32 `[tokens, outputs]`.
pub(crate) struct Product;

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "product_of_bf16"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Err(Error::Msg("this product runs on NVIDIA devices only".into()))
    }

    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let ((tokens, inputs), (outputs, width)) = (l1.shape().dims2()?, l2.shape().dims2()?);
        let (Some(x), Some(matrix)) = (l1.contiguous_offsets(), l2.contiguous_offsets()) else {
            return Err(Error::Msg("an operand of the product is not contiguous".into()));
        };
        let whole = |number: usize| {
            i32::try_from(number).map_err(|_| Error::Msg(format!("a product of {number} rows or columns")))
        };
        if width != inputs {
            return Err(Error::Msg(format!("product of {:?} and {:?} transposed", l1.shape(), l2.shape())));
        }
        let (m, n, k) = (whole(outputs)?, whole(tokens)?, whole(inputs)?);
        let x = s1.as_cuda_slice::<bf16>()?.slice(x.0..x.1);
        let matrix = s2.as_cuda_slice::<bf16>()?.slice(matrix.0..matrix.1);
        let device = s1.device().clone();
        // SAFETY: the product writes every element.
        let mut out = unsafe { device.alloc::<f32>(tokens * outputs)? };
        let (one, zero) = (1f32, 0f32);
        {
            let stream = device.cuda_stream();
            let (x, _read) = x.device_ptr(&stream);
            let (matrix, _read_too) = matrix.device_ptr(&stream);
            let (to, _written) = out.device_ptr_mut(&stream);
            // cuBLAS is column-major: it sees our rows as columns, and computes `matrix · xᵀ`, whose columns are our tokens.
            // SAFETY: the three matrices have these sizes, contiguous; the scalars outlive the call.
            unsafe {
                result::gemm_ex(
                    *device.cublas_handle().handle(),
                    sys::cublasOperation_t::CUBLAS_OP_T,
                    sys::cublasOperation_t::CUBLAS_OP_N,
                    m,
                    n,
                    k,
                    (&raw const one).cast(),
                    matrix as *const _,
                    sys::cudaDataType_t::CUDA_R_16BF,
                    k,
                    x as *const _,
                    sys::cudaDataType_t::CUDA_R_16BF,
                    k,
                    (&raw const zero).cast(),
                    to as *mut _,
                    sys::cudaDataType_t::CUDA_R_32F,
                    m,
                    sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                    sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
                )
            }
            .map_err(Error::wrap)?;
        }
        Ok((CudaStorage::wrap_cuda_slice(out, device), Shape::from((tokens, outputs))))
    }
}
