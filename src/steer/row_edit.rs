//! Reading and editing of picked rows of an activation tensor `[tokens, width]`, on the CPU in place.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Storage, Tensor};

use crate::error::Result;

/// Calls `read` with the index among the picked and the values of each picked row of `activations` `[tokens, width]`
/// (f32).
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
    let numbers = picked_rows(&activations, picked)?;
    numbers.chunks_exact(width.max(1)).enumerate().for_each(|(place, row)| read(place, row));
    Ok(())
}

/// Calls `change` with the index among the picked and the values of each picked row of `activations` `[tokens, width]`
/// (f32), and returns the changed activations. On the CPU the tensor's own memory is changed.
pub(super) fn edit_rows(
    activations: Tensor,
    picked: &[usize],
    mut change: impl FnMut(usize, &mut [f32]),
) -> Result<Tensor> {
    if picked.is_empty() {
        return Ok(activations);
    }
    let width = activations.dim(1)?;
    if !activations.device().is_cpu() {
        // The picked rows are copied to the host, changed, appended to the tensor and gathered into their places.
        let mut numbers = picked_rows(&activations, picked)?;
        numbers.chunks_exact_mut(width.max(1)).enumerate().for_each(|(place, row)| change(place, row));
        let rows = Tensor::from_vec(numbers, (picked.len(), width), activations.device())?;
        let tokens = activations.dim(0)?;
        let mut order: Vec<u32> = (0..tokens as u32).collect();
        for (place, at) in picked.iter().enumerate() {
            order[*at] = (tokens + place) as u32;
        }
        let order = Tensor::new(order, activations.device())?;
        return Ok(Tensor::cat(&[&activations, &rows], 0)?.index_select(&order, 0)?);
    }
    let mut each = |numbers: &mut [f32]| {
        for (place, at) in picked.iter().enumerate() {
            change(place, &mut numbers[at * width..(at + 1) * width]);
        }
    };
    let activations = activations.contiguous()?;
    activations.inplace_op1(&Edit(RefCell::new(&mut each)))?;
    Ok(activations)
}

/// Copies of rows of a tensor on a device, end to end.
fn picked_rows(activations: &Tensor, picked: &[usize]) -> Result<Vec<f32>> {
    if picked.is_empty() {
        return Ok(Vec::new());
    }
    let at: Vec<u32> = picked.iter().map(|&at| at as u32).collect();
    let at = Tensor::new(at, activations.device())?;
    Ok(activations.index_select(&at, 0)?.flatten_all()?.to_vec1()?)
}

/// A change of a tensor's values, as a candle operation.
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
