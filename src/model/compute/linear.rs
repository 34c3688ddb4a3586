//! A linear layer, `x · weightᵀ + bias`, for every storage format of its matrix: f32, bf16, f16, packed or quantised.

use candle_core::{DType, Device, Error, Result, Tensor};
use half::{bf16, f16};

use super::activation::Activation;
use super::backend;
#[cfg(target_arch = "x86_64")]
use super::backend::Backend;
use super::candle::linear::CandleLinear;
use super::cpu::gemm;
#[cfg(target_arch = "x86_64")]
use super::cpu::packed_gemm::Packed;
use super::fused_input::Input;
use crate::model::weights::Weight;

/// A linear layer: `x · weightᵀ + bias`.
pub struct Linear {
    /// `[out, in]`.
    weight: Matrix,
    bias: Option<Tensor>,
}

enum Matrix {
    /// In the layout of the checkpoint: row-major, or quantised blocks.
    Unpacked(Weight),
    #[cfg(target_arch = "x86_64")]
    Packed(Packed),
    Candle(CandleLinear),
}

impl Linear {
    /// Packs the matrix if the backend has kernels for it; the packed copy then replaces the original.
    ///
    /// # Errors
    /// A matrix that can't be packed or moved to the device.
    pub fn new(weight: Weight, bias: Option<Tensor>) -> Result<Linear> {
        if let Some(device) = candle_device_for(&weight) {
            return Ok(Linear { weight: Matrix::Candle(CandleLinear::new(&weight, device)?), bias });
        }
        #[cfg(target_arch = "x86_64")]
        if let Weight::Tensor(tensor) = &weight
            && !tensor.track_op()
            && let Some(packed) = Packed::new(tensor, Backend::current())?
        {
            return Ok(Linear { weight: Matrix::Packed(packed), bias });
        }
        Ok(Linear::unpacked(weight, bias))
    }

    /// An embedding or a vocabulary head: its rows are also looked up, or it multiplies few tokens. It is packed only if the packed
    /// copy holds the exact values of the original.
    ///
    /// # Errors
    /// A matrix that can't be packed or moved to the device.
    pub fn table(weight: Weight) -> Result<Linear> {
        if let Some(device) = candle_device_for(&weight) {
            return Ok(Linear { weight: Matrix::Candle(CandleLinear::new(&weight, device)?), bias: None });
        }
        #[cfg(target_arch = "x86_64")]
        if let Weight::Tensor(tensor) = &weight
            && !tensor.track_op()
            && tensor.dtype() == DType::BF16
            && Backend::current() == Backend::Amx
            && let Some(packed) = Packed::new(tensor, Backend::Amx)?
        {
            return Ok(Linear { weight: Matrix::Packed(packed), bias: None });
        }
        Ok(Linear::unpacked(weight, None))
    }

    /// Rows of the matrix by index, as f32 `[rows, in]`.
    ///
    /// # Errors
    /// An index outside the matrix.
    pub fn rows(&self, rows: &[u32]) -> Result<Tensor> {
        match &self.weight {
            #[cfg(target_arch = "x86_64")]
            Matrix::Packed(packed) => packed.rows(rows),
            Matrix::Candle(candle) => candle.rows(rows),
            Matrix::Unpacked(weight) => weight.rows(&Tensor::new(rows, &Device::Cpu)?),
        }
    }

    /// Keeps the matrix in the layout of the checkpoint.
    pub fn unpacked(weight: Weight, bias: Option<Tensor>) -> Linear {
        Linear { weight: Matrix::Unpacked(weight), bias }
    }

    /// `x`: f32 `[tokens, in]`; gives f32 `[tokens, out]`. Gradients flow through trainable matrices, and through `x`: of a packed or
    /// quantised matrix the values are then multiplied as f32, which takes the memory of a copy.
    ///
    /// # Errors
    /// An input of another width.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_input(&x.into())
    }

    /// [`Linear::forward`] with the norm or activation before it fused in.
    pub(crate) fn forward_input(&self, input: &Input) -> Result<Tensor> {
        let [product] = Linear::forward_all([self], input)?;
        Ok(product)
    }

    /// [`Linear::forward_input`] for several layers with one input, which packed matrices convert only once.
    pub(crate) fn forward_all<const N: usize>(all: [&Linear; N], input: &Input) -> Result<[Tensor; N]> {
        let products = match Linear::packed_products(&all, input) {
            Some(products) => products?,
            None => {
                let x = input.tensor()?;
                match Linear::unpacked_products(&all, &x) {
                    Some(products) => products?,
                    None => all.iter().map(|linear| linear.product(&x)).collect::<Result<_>>()?,
                }
            }
        };
        let whole = products.into_iter().zip(all).map(|(product, linear)| match &linear.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        });
        let whole = whole.collect::<Result<Vec<_>>>()?;
        whole.try_into().map_err(|_| Error::Msg("a matrix without a product".into()))
    }

    /// The products of packed matrices; none if one is not packed, or if a gradient is tracked.
    #[cfg(target_arch = "x86_64")]
    fn packed_products(all: &[&Linear], input: &Input) -> Option<Result<Vec<Tensor>>> {
        let packed: Vec<&Packed> = all.iter().map(|linear| linear.packed()).collect::<Option<_>>()?;
        if input.source().track_op() {
            return None;
        }
        let products = || {
            let shape = input.source().dims2()?.into();
            input.with_row(|row| Packed::products(&packed, row, shape))
        };
        Some(products())
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn packed_products(_: &[&Linear], _: &Input) -> Option<Result<Vec<Tensor>>> {
        None
    }

    /// `down · (f(gate · x) · (up · x))` in one pass, without the hidden activations in memory; none if the matrices are not
    /// packed for it, have a bias, or a gradient is tracked.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
    pub(crate) fn forward_gated(
        matrices: [&Linear; 3],
        activation: Activation,
        x: &Input,
    ) -> Option<Result<Tensor>> {
        #[cfg(target_arch = "x86_64")]
        if !x.source().track_op() && matrices.iter().all(|linear| linear.bias.is_none()) {
            let [gate, up, down] = matrices.map(Linear::packed);
            let packed = [gate?, up?, down?];
            let (tokens, inputs) = x.source().dims2().ok()?;
            if Packed::can_gate(packed, inputs) {
                return Some(x.with_row(|row| Packed::gated(packed, activation, row, [tokens, inputs])));
            }
        }
        None
    }

    /// Whether the product rounds its input to bf16.
    pub(crate) fn rounds_to_bf16(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if let Matrix::Packed(packed) = &self.weight {
            return packed.rounds_to_bf16();
        }
        false
    }

    #[cfg(target_arch = "x86_64")]
    fn packed(&self) -> Option<&Packed> {
        match &self.weight {
            Matrix::Packed(packed) => Some(packed),
            Matrix::Unpacked(_) | Matrix::Candle(_) => None,
        }
    }

    /// The products of unpacked matrices of one type, in one parallel region; none if they aren't, or if a gradient is tracked: the
    /// CPU kernels record none.
    fn unpacked_products(all: &[&Linear], x: &Tensor) -> Option<Result<Vec<Tensor>>> {
        if x.track_op() {
            return None;
        }
        let unpacked = all.iter().map(|linear| match &linear.weight {
            Matrix::Unpacked(weight) => Some(weight),
            _ => None,
        });
        let unpacked: Vec<&Weight> = unpacked.collect::<Option<_>>()?;
        let blocks = unpacked.iter().map(|weight| match weight {
            Weight::Quantized(blocks) => Some(&**blocks),
            Weight::Tensor(_) => None,
        });
        if let Some(blocks) = blocks.collect::<Option<Vec<_>>>() {
            return Some(gemm::products_with_blocks(x, &blocks));
        }
        let tensors = unpacked.iter().map(|weight| match weight {
            Weight::Tensor(tensor) if !tensor.track_op() => Some(tensor),
            _ => None,
        });
        let tensors: Vec<&Tensor> = tensors.collect::<Option<_>>()?;
        let dtype = tensors.first()?.dtype();
        if tensors.iter().any(|tensor| tensor.dtype() != dtype) {
            return None;
        }
        Some(match dtype {
            DType::BF16 => gemm::products::<bf16>(x, &tensors),
            DType::F16 => gemm::products::<f16>(x, &tensors),
            _ => gemm::products::<f32>(x, &tensors),
        })
    }

    /// The product with the matrix, without the bias.
    fn product(&self, x: &Tensor) -> Result<Tensor> {
        match &self.weight {
            #[cfg(target_arch = "x86_64")]
            Matrix::Packed(packed) if x.track_op() => x.matmul(&packed.floats()?.t()?),
            #[cfg(target_arch = "x86_64")]
            Matrix::Packed(packed) => {
                let products =
                    Input::from(x).with_row(|row| Packed::products(&[packed], row, x.dims2()?.into()))?;
                products.into_iter().next().ok_or_else(|| Error::Msg("no product of a packed matrix".into()))
            }
            Matrix::Candle(candle) => candle.product(x),
            Matrix::Unpacked(Weight::Tensor(weight)) if weight.track_op() => {
                x.matmul(&weight.to_dtype(DType::F32)?.t()?)
            }
            Matrix::Unpacked(weight) if x.track_op() => x.matmul(&weight.floats()?.t()?),
            Matrix::Unpacked(_) => {
                let products = Linear::unpacked_products(&[self], x).unwrap_or_else(|| Ok(Vec::new()))?;
                products
                    .into_iter()
                    .next()
                    .ok_or_else(|| Error::Msg("no product of an unpacked matrix".into()))
            }
        }
    }
}

/// The device that a matrix is moved to, if there is one. A trainable matrix stays on the CPU.
fn candle_device_for(weight: &Weight) -> Option<&'static Device> {
    let trained = matches!(weight, Weight::Tensor(tensor) if tensor.track_op());
    backend::candle_device().filter(|_| !trained)
}
