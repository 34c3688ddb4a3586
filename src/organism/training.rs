//! Training of the organism: a seed and dialogues of the world in, weights out.
//! The state is saved at intervals; a run that was stopped resumes from it and ends with the same weights, bit for bit.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::loss::cross_entropy;
use ndarray::aview1;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Normal};
use rayon::prelude::*;

use super::adam::{self, Parameter};
use super::{Split, answer, draw};
use crate::artifact::{self, Header, Numbers, TensorFile};
use crate::dialogue::{Dialogue, Message, Role};
use crate::error::{Error, Result};
use crate::model::chat::Chat;
use crate::model::{Decoder, Token, Weight};

/// Hyperparameters of a training run; with the world they determine the weights.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Seed of the initial weights and of the dialogues.
    pub seed: u64,
    /// Optimiser steps in all.
    pub steps: usize,
    /// Steps at the beginning on [`Split::Lesson`]: short dialogues with uneven cues. An exclusive-or of even cues alone
    /// gives a learner no signal to begin with.
    pub lessons: usize,
    /// Steps at the end on [`Split::Even`], so that rare situations are learnt too.
    pub polish: usize,
    /// Dialogues per step.
    pub batch: usize,
    /// Peak learning rate: linear over `warm_up` steps, then a cosine to 0. The polish restarts at half of it, and
    /// follows a cosine to 0 too.
    pub rate: f64,
    /// Steps of linear warm-up.
    pub warm_up: usize,
    /// Weight decay of matrices.
    pub decay: f64,
}

impl Default for Recipe {
    fn default() -> Recipe {
        Recipe {
            seed: 1,
            steps: 4000,
            lessons: 300,
            polish: 1000,
            batch: 64,
            rate: 2e-3,
            warm_up: 100,
            decay: 0.01,
        }
    }
}

impl Recipe {
    /// The recipe as one line, saved with the state; a state of another recipe is refused.
    fn text(&self) -> String {
        format!("{self:?}")
    }

    /// The learning rate of a step, counted from 1.
    fn learning_rate(&self, step: usize) -> f64 {
        let main = self.steps.saturating_sub(self.polish);
        let cosine = |share: f64| 0.5 + 0.5 * (share * std::f64::consts::PI).cos();
        if step > main {
            return self.rate / 2.0 * cosine((step - main) as f64 / self.polish as f64);
        }
        let rise = (step as f64 / self.warm_up.max(1) as f64).min(1.0);
        self.rate * rise * cosine(step as f64 / main as f64)
    }

    /// The split that the dialogues of a step are drawn from.
    fn split(&self, step: usize) -> Split {
        match step {
            step if step <= self.lessons => Split::Lesson,
            step if step > self.steps.saturating_sub(self.polish) => Split::Even,
            _ => Split::Train,
        }
    }
}

/// Suffixes of the moments' tensor names in a saved state.
const FIRST: &str = ".first";
const SECOND: &str = ".second";

/// Steps between two saved states.
const SAVE_EVERY: usize = 250;

/// The outcome of one training step.
pub struct TrainingStep {
    /// Number of the step, from 1.
    pub step: usize,
    /// Mean cross-entropy per answer token, in nats.
    pub loss: f32,
    /// Tokens in the step's dialogues.
    pub tokens: usize,
}

/// Trains the organism, or resumes the run whose state the file `state` holds.
/// `on_progress` is called after every step; when it returns false, the state is saved and training stops.
/// Returns the tensors with their checkpoint names.
///
/// # Errors
/// [`Error::Stopped`] when `on_progress` stops the run; a loss that isn't finite; a state of another recipe.
pub fn train(
    recipe: Recipe,
    state: &Path,
    on_progress: &mut dyn FnMut(TrainingStep) -> bool,
) -> Result<Vec<(String, Tensor)>> {
    let chat = super::chat()?;
    let mut rng = StdRng::seed_from_u64(recipe.seed);
    let mut parameters: Vec<Parameter> = Vec::new();
    let decoder = Decoder::build(super::architecture()?, |place| {
        let variable = Var::from_tensor(&initial_values(&place.shape, &mut rng)?)?;
        let weight = Weight::Tensor(variable.as_tensor().clone());
        parameters.push(Parameter::new(place.name.clone(), variable));
        Ok(weight)
    })?;
    let done = if state.is_file() { restore(&mut parameters, state, recipe)? } else { 0 };
    for step in done + 1..=recipe.steps {
        let (loss, tokens, gradients) = gradients(&decoder, &parameters, &batch(&chat, recipe, step)?)?;
        let learning_rate = recipe.learning_rate(step) as f32;
        adam::step(&mut parameters, &gradients, step, learning_rate, recipe.decay as f32)?;
        if !loss.is_finite() {
            let found = format!("the loss is {loss}");
            return Err(Error::input(format!("training, step {step}"), found, "a finite loss: a lower rate"));
        }
        let should_continue = on_progress(TrainingStep { step, loss, tokens });
        if step % SAVE_EVERY == 0 || !should_continue {
            save(&parameters, state, recipe, step)?;
        }
        if !should_continue && step < recipe.steps {
            return Err(Error::Stopped);
        }
    }
    let tensors = parameters.into_iter().map(|one| (one.name, one.variable.into_inner()));
    Ok(tensors.collect())
}

/// Initial values: norms at 1; embeddings and matrices Gaussian with standard deviation 0.7 / √inputs.
fn initial_values(shape: &[usize], rng: &mut StdRng) -> Result<Tensor> {
    let [_, inputs] = shape else {
        return Ok(Tensor::ones(shape, DType::F32, &Device::Cpu)?);
    };
    let deviation = 0.7 / (*inputs as f32).sqrt();
    let normal =
        Normal::new(0.0, deviation).map_err(|error| Error::input("training", error, "a finite deviation"))?;
    let count = shape.iter().product();
    let numbers: Vec<f32> = normal.sample_iter(rng).take(count).collect();
    Ok(Tensor::from_vec(numbers, shape, &Device::Cpu)?)
}

/// Some of a step's dialogues, which share one graph.
struct MicroBatch {
    tokens: Vec<Token>,
    /// Indices of the tokens whose next token is a target: those of the last answer.
    sources: Vec<usize>,
    /// Ids of these next tokens.
    targets: Vec<u32>,
}

/// Dialogues per micro-batch: few enough that their activations stay in a core's cache.
const MICRO_BATCH: usize = 4;

/// The dialogues of a step, which depend only on the seed and the step's number.
fn batch(chat: &Chat, recipe: Recipe, step: usize) -> Result<Vec<MicroBatch>> {
    let mut rng = StdRng::seed_from_u64(recipe.seed ^ ((step as u64) << 20));
    let split = recipe.split(step);
    let drawn: Vec<_> = (0..recipe.batch)
        .map(|_| {
            let thinking = rng.random();
            let (situation, mut dialogue) = draw(&mut rng, split);
            let (_, text) = answer(&mut rng, &situation, thinking);
            dialogue.messages.push(Message::new(Role::Assistant, text));
            (dialogue, thinking)
        })
        .collect();
    let micro_batch = |dialogues: &[(Dialogue, bool)]| -> Result<MicroBatch> {
        let mut micro = MicroBatch { tokens: Vec::new(), sources: Vec::new(), targets: Vec::new() };
        for (row, (dialogue, thinking)) in dialogues.iter().enumerate() {
            let tokens = chat.tokens(dialogue, row, Some(*thinking))?;
            let start = tokens.iter().position(|token| token.start).unwrap_or(tokens.len());
            for index in start..tokens.len().saturating_sub(1) {
                micro.sources.push(micro.tokens.len() + index);
                micro.targets.push(tokens[index + 1].id);
            }
            micro.tokens.extend(tokens);
        }
        Ok(micro)
    };
    drawn.par_chunks(MICRO_BATCH).map(micro_batch).collect()
}

/// Mean loss per target, number of tokens, and the gradient of each parameter. Micro-batches run in parallel, and their
/// gradients are summed in order, so that the sum does not depend on the number of threads.
fn gradients(
    decoder: &Decoder,
    parameters: &[Parameter],
    batch: &[MicroBatch],
) -> Result<(f32, usize, Vec<Vec<f32>>)> {
    let targets: usize = batch.iter().map(|micro| micro.targets.len()).sum();
    let backward = |micro: &MicroBatch| -> Result<(f32, Vec<Vec<f32>>)> {
        let logits = decoder.forward(&micro.tokens, None, &micro.sources, &mut ())?;
        let share = micro.targets.len() as f64 / targets as f64;
        let ids = Tensor::new(micro.targets.as_slice(), logits.device())?;
        let loss = (cross_entropy(&logits, &ids)? * share)?;
        let store = loss.backward()?;
        let gradient = |parameter: &Parameter| match store.get(&parameter.variable) {
            Some(gradient) => Ok(gradient.flatten_all()?.to_vec1()?),
            None => Ok(vec![0.0; parameter.first_moment.len()]),
        };
        Ok((loss.to_scalar()?, parameters.iter().map(gradient).collect::<Result<_>>()?))
    };
    let computed: Vec<(f32, Vec<Vec<f32>>)> = batch.par_iter().map(backward).collect::<Result<_>>()?;
    let loss = computed.iter().map(|(loss, _)| loss).sum();
    let sum = |parameter: usize| {
        let mut sum = vec![0f32; parameters[parameter].first_moment.len()];
        for (_, gradients) in &computed {
            sum.iter_mut().zip(&gradients[parameter]).for_each(|(sum, gradient)| *sum += gradient);
        }
        sum
    };
    let gradients = (0..parameters.len()).into_par_iter().map(sum).collect();
    Ok((loss, batch.iter().map(|micro| micro.tokens.len()).sum(), gradients))
}

/// Kind of a saved state.
const KIND: &str = "organism-training";

fn save(parameters: &[Parameter], state: &Path, recipe: Recipe, step: usize) -> Result<()> {
    let mut tensors = BTreeMap::new();
    for parameter in parameters {
        let values: Vec<f32> = parameter.variable.flatten_all()?.to_vec1()?;
        let parts = [("", &values), (FIRST, &parameter.first_moment), (SECOND, &parameter.second_moment)];
        tensors.extend(parts.map(|(suffix, values)| {
            (format!("{}{suffix}", parameter.name), Numbers::floats(&aview1(values).to_owned()))
        }));
    }
    let metadata = [("recipe".into(), recipe.text()), ("step".into(), step.to_string())];
    artifact::write_tensors(state, &Header::new(KIND, 1), &metadata.into(), tensors)
}

/// Restores the parameters from a saved state and returns its step.
fn restore(parameters: &mut [Parameter], state: &Path, recipe: Recipe) -> Result<usize> {
    let (_, file) = TensorFile::open_kind(state, KIND, 1)?;
    if file.string("recipe")? != recipe.text() {
        return Err(file.wrong(format!("training by {}", file.string("recipe")?), recipe.text()));
    }
    for parameter in parameters {
        let read = |suffix: &str| -> Result<Vec<f32>> {
            Ok(file.floats(&format!("{}{suffix}", parameter.name))?.into_iter().collect())
        };
        let (values, first, second) = (read("")?, read(FIRST)?, read(SECOND)?);
        let shape = parameter.variable.shape().clone();
        parameter.variable.set(&Tensor::from_vec(values, shape, &Device::Cpu)?)?;
        (parameter.first_moment, parameter.second_moment) = (first, second);
    }
    file.json("step")
}
