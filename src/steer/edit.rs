//! Rows of activations, read and changed where they lie: what is not picked is neither looked at nor copied.
//! It knows nothing of what a change is for.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Storage, Tensor};

use crate::error::Result;

/// Calls `read` with each picked row of `activations` `[tokens, width]` (f32), and its place among the picked.
pub(super) fn read_rows(
    activations: &Tensor,
    picked: &[usize],
    mut read: impl FnMut(usize, &[f32]),
) -> Result<()> {
    let width = activations.dim(1)?;
    let activations = activations.contiguous()?;
    let (storage, layout) = activations.storage_and_layout();
    if let Storage::Cpu(storage) = &*storage {
        let numbers = &storage.as_slice::<f32>()?[layout.start_offset()..];
        for (place, at) in picked.iter().enumerate() {
            read(place, &numbers[at * width..(at + 1) * width]);
        }
        return Ok(());
    }
    drop(storage);
    let numbers: Vec<f32> = activations.flatten_all()?.to_vec1()?;
    for (place, at) in picked.iter().enumerate() {
        read(place, &numbers[at * width..(at + 1) * width]);
    }
    Ok(())
}

/// Calls `change` with each picked row of `activations` `[tokens, width]` (f32), and its place among the picked, and
/// gives the activations back. On the CPU the rows are changed in the memory that the tensor has.
pub(super) fn edit_rows(
    activations: Tensor,
    picked: &[usize],
    mut change: impl FnMut(usize, &mut [f32]),
) -> Result<Tensor> {
    if picked.is_empty() {
        return Ok(activations);
    }
    let width = activations.dim(1)?;
    let mut each = |numbers: &mut [f32]| {
        for (place, at) in picked.iter().enumerate() {
            change(place, &mut numbers[at * width..(at + 1) * width]);
        }
    };
    if !activations.device().is_cpu() {
        let mut numbers: Vec<f32> = activations.flatten_all()?.to_vec1()?;
        each(&mut numbers);
        return Ok(Tensor::from_vec(numbers, activations.shape(), activations.device())?);
    }
    let activations = activations.contiguous()?;
    activations.inplace_op1(&Edit(RefCell::new(&mut each)))?;
    Ok(activations)
}

/// A change of all numbers of a tensor, as candle takes it.
struct Edit<'a>(RefCell<Change<'a>>);

type Change<'a> = &'a mut dyn FnMut(&mut [f32]);

impl InplaceOp1 for Edit<'_> {
    fn name(&self) -> &'static str {
        "steer"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(numbers) = storage else {
            return Err(candle_core::Error::Msg("steering takes activations in f32".into()));
        };
        let begin = layout.start_offset();
        (self.0.borrow_mut())(&mut numbers[begin..begin + layout.shape().elem_count()]);
        Ok(())
    }
}
