//! Slices of the elements of CPU tensors.

use candle_core::{CpuStorage, Error, Layout, Result, Storage, Tensor};

/// The elements of a contiguous f32 tensor on the CPU.
pub(crate) fn view<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let (begin, end) =
        layout.contiguous_offsets().ok_or_else(|| Error::Msg("the tensor is not contiguous".into()))?;
    Ok(&storage.as_slice::<f32>()?[begin..end])
}

/// Calls `with` on the elements of f32 tensors on the CPU.
pub(crate) fn with<const N: usize, T>(
    tensors: [&Tensor; N],
    with: impl FnOnce([&[f32]; N]) -> Result<T>,
) -> Result<T> {
    let contiguous = tensors.map(|tensor| tensor.contiguous());
    let mut guards = Vec::with_capacity(N);
    for tensor in &contiguous {
        match tensor {
            Ok(tensor) => guards.push(tensor.storage_and_layout()),
            Err(error) => return Err(Error::Msg(error.to_string())),
        }
    }
    let mut slices = [&[] as &[f32]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        let Storage::Cpu(storage) = &**storage else {
            return Err(Error::Msg("the tensor is not on the CPU".into()));
        };
        *slice = view(storage, layout)?;
    }
    with(slices)
}
