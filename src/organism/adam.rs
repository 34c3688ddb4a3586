//! AdamW (Loshchilov & Hutter, arXiv 1711.05101) over a fixed list of parameters.
//! Its moments are public, so that a training run can be saved and resumed bit for bit.

use candle_core::{Tensor, Var};
use rayon::prelude::*;

use crate::error::Result;

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.98;
const EPSILON: f32 = 1e-8;
/// Gradients are clipped to this global norm.
const MAX_GRADIENT_NORM: f32 = 1.0;

/// A parameter with its AdamW moments.
pub struct Parameter {
    /// Its tensor name in the checkpoint.
    pub name: String,
    pub variable: Var,
    /// Running mean of the gradient, one number per element.
    pub first_moment: Vec<f32>,
    /// Running mean of the squared gradient.
    pub second_moment: Vec<f32>,
}

impl Parameter {
    /// A parameter with moments of 0.
    pub fn new(name: String, variable: Var) -> Parameter {
        let count = variable.elem_count();
        Parameter { name, variable, first_moment: vec![0.0; count], second_moment: vec![0.0; count] }
    }
}

/// One AdamW update, in place. `number` counts steps from 1; weight decay applies to matrices, and not to norms.
/// `gradients` holds one flat gradient per parameter, in order.
pub fn step(
    parameters: &mut [Parameter],
    gradients: &[Vec<f32>],
    number: usize,
    learning_rate: f32,
    weight_decay: f32,
) -> Result<()> {
    let square: f64 = gradients.iter().flatten().map(|&g| (g as f64).powi(2)).sum();
    let clip = (MAX_GRADIENT_NORM / (square.sqrt() as f32 + 1e-12)).min(1.0);
    let bias_correction_1 = 1.0 - BETA_1.powi(number as i32);
    let bias_correction_2 = 1.0 - BETA_2.powi(number as i32);
    let updates = parameters.par_iter_mut().zip(gradients).map(|(parameter, gradient)| -> Result<()> {
        let decay = if parameter.variable.rank() > 1 { weight_decay } else { 0.0 };
        let mut values: Vec<f32> = parameter.variable.flatten_all()?.to_vec1()?;
        for i in 0..values.len() {
            let gradient = gradient[i] * clip;
            let (first, second) = (&mut parameter.first_moment[i], &mut parameter.second_moment[i]);
            *first = BETA_1 * *first + (1.0 - BETA_1) * gradient;
            *second = BETA_2 * *second + (1.0 - BETA_2) * gradient * gradient;
            let update = *first / bias_correction_1 / ((*second / bias_correction_2).sqrt() + EPSILON);
            values[i] -= learning_rate * (update + decay * values[i]);
        }
        let shape = parameter.variable.shape().clone();
        parameter.variable.set(&Tensor::from_vec(values, shape, parameter.variable.device())?)?;
        Ok(())
    });
    updates.collect()
}
