//! AdamW (Loshchilov & Hutter, arXiv 1711.05101) over a fixed list of variables, with its state in the open,
//! so that training can stop and go on bit for bit.
//! It knows nothing of what is learnt.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use rayon::prelude::*;

use crate::error::Result;

const BETA_FIRST: f32 = 0.9;
const BETA_SECOND: f32 = 0.98;
const EPSILON: f32 = 1e-8;
/// Gradients longer than this, all together, are shortened to it.
const LONGEST: f32 = 1.0;

/// One variable with its moments.
pub struct Slot {
    pub name: String,
    pub variable: Var,
    /// Running means of the gradient and of its square.
    pub first: Vec<f32>,
    pub second: Vec<f32>,
}

impl Slot {
    pub fn new(name: String, variable: Var) -> Slot {
        let count = variable.elem_count();
        Slot {
            name,
            variable,
            first: vec![0.0; count],
            second: vec![0.0; count],
        }
    }
}

/// One step, the `number`th from 1. Matrices decay towards 0; norms do not.
pub fn step(slots: &mut [Slot], gradients: &GradStore, number: usize, rate: f32, decay: f32) -> Result<()> {
    let flat = |slot: &Slot| -> Result<Vec<f32>> {
        match gradients.get(&slot.variable) {
            Some(gradient) => Ok(gradient.flatten_all()?.to_vec1()?),
            None => Ok(vec![0.0; slot.first.len()]),
        }
    };
    let gradients: Vec<Vec<f32>> = slots.iter().map(flat).collect::<Result<_>>()?;
    let square: f64 = gradients.iter().flatten().map(|&g| (g as f64).powi(2)).sum();
    let shorten = (LONGEST / (square.sqrt() as f32 + 1e-12)).min(1.0);
    let unbias_first = 1.0 - BETA_FIRST.powi(number as i32);
    let unbias_second = 1.0 - BETA_SECOND.powi(number as i32);
    let done = slots.par_iter_mut().zip(gradients).map(|(slot, gradient)| -> Result<()> {
        let decay = if slot.variable.rank() > 1 { decay } else { 0.0 };
        let mut numbers: Vec<f32> = slot.variable.flatten_all()?.to_vec1()?;
        for i in 0..numbers.len() {
            let gradient = gradient[i] * shorten;
            slot.first[i] = BETA_FIRST * slot.first[i] + (1.0 - BETA_FIRST) * gradient;
            slot.second[i] = BETA_SECOND * slot.second[i] + (1.0 - BETA_SECOND) * gradient * gradient;
            let along = slot.first[i] / unbias_first / ((slot.second[i] / unbias_second).sqrt() + EPSILON);
            numbers[i] -= rate * (along + decay * numbers[i]);
        }
        let shape = slot.variable.shape().clone();
        slot.variable.set(&Tensor::from_vec(numbers, shape, slot.variable.device())?)?;
        Ok(())
    });
    done.collect()
}
