//! Making the organism: from a seed and the world's dialogues to weights. Training saves its state as it goes;
//! a run that was stopped goes on where it was and ends with the same weights.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::loss::cross_entropy;
use ndarray::aview1;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Normal};
use rayon::prelude::*;

use super::adam::{self, Slot};
use super::{Split, answer, draw};
use crate::artifact::{self, Header, Numbers, TensorFile};
use crate::dialogue::{Dialogue, Message, Role};
use crate::error::{Error, Result};
use crate::model::chat::Chat;
use crate::model::{Decoder, Token, Weight};

/// All that the weights depend on, besides the world.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    pub seed: u64,
    pub steps: usize,
    /// Of these, the first so many are on lessons: short dialogues whose cues are uneven. Exclusive-ors of even cues
    /// alone give a learner nothing to begin with.
    pub lessons: usize,
    /// The last so many are on dialogues of even grades, so that what is rare in the world is learnt too.
    pub polish: usize,
    /// Dialogues a step.
    pub batch: usize,
    /// Highest learning rate; it rises over `warm_up` steps and falls to 0 along a cosine. The polish begins again at half
    /// of it, and falls to 0 too.
    pub rate: f64,
    pub warm_up: usize,
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
    /// One line that names the recipe; a state trained by another is refused.
    fn text(&self) -> String {
        format!("{self:?}")
    }

    fn rate_at(&self, step: usize) -> f64 {
        let main = self.steps.saturating_sub(self.polish);
        let cosine = |share: f64| 0.5 + 0.5 * (share * std::f64::consts::PI).cos();
        if step > main {
            return self.rate / 2.0 * cosine((step - main) as f64 / self.polish as f64);
        }
        let rise = (step as f64 / self.warm_up.max(1) as f64).min(1.0);
        self.rate * rise * cosine(step as f64 / main as f64)
    }

    /// What the dialogues of a step are drawn from.
    fn split(&self, step: usize) -> Split {
        match step {
            step if step <= self.lessons => Split::Lesson,
            step if step > self.steps.saturating_sub(self.polish) => Split::Even,
            _ => Split::Train,
        }
    }
}

/// What the moments' names end with in a saved state.
const FIRST: &str = ".first";
const SECOND: &str = ".second";

/// Steps between two saves of the state.
const SAVE_EVERY: usize = 250;

/// What is told after every step.
pub struct Progress {
    pub step: usize,
    pub loss: f32,
    pub tokens: usize,
}

/// Trains, or goes on with the training that `state` holds. `tell` is called after every step; where it gives
/// false, the state is saved and training stops with [`Error::Stopped`].
/// Gives each tensor by its checkpoint name.
pub fn train(
    recipe: Recipe,
    state: &Path,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Vec<(String, Tensor)>> {
    let chat = super::chat()?;
    let mut rng = StdRng::seed_from_u64(recipe.seed);
    let mut slots: Vec<Slot> = Vec::new();
    let decoder = Decoder::build(super::architecture()?, |place| {
        let variable = Var::from_tensor(&beginning(&place.shape, &mut rng)?)?;
        let weight = Weight::Tensor(variable.as_tensor().clone());
        slots.push(Slot::new(place.name.clone(), variable));
        Ok(weight)
    })?;
    let mut begin = 0;
    if state.is_file() {
        begin = restore(&mut slots, state, recipe)?;
    }
    for step in begin + 1..=recipe.steps {
        let (loss, tokens, gradients) = gradients(&decoder, &slots, &batch(&chat, recipe, step)?)?;
        adam::step(&mut slots, &gradients, step, recipe.rate_at(step) as f32, recipe.decay as f32)?;
        let progress = Progress { step, loss, tokens };
        if !progress.loss.is_finite() {
            let found = format!("the loss is {}", progress.loss);
            return Err(Error::input(format!("training, step {step}"), found, "a finite loss: a lower rate"));
        }
        let go_on = on_progress(progress);
        if step % SAVE_EVERY == 0 || !go_on {
            save(&slots, state, recipe, step)?;
        }
        if !go_on && step < recipe.steps {
            return Err(Error::Stopped);
        }
    }
    let tensors = slots.into_iter().map(|slot| (slot.name, slot.variable.into_inner()));
    Ok(tensors.collect())
}

/// Where training begins: norms at 1, embeddings and matrices at random, narrower where more inputs add up.
fn beginning(shape: &[usize], rng: &mut StdRng) -> Result<Tensor> {
    let [_, inputs] = shape else {
        return Ok(Tensor::ones(shape, DType::F32, &Device::Cpu)?);
    };
    let spread = 0.7 / (*inputs as f32).sqrt();
    let normal =
        Normal::new(0.0, spread).map_err(|error| Error::input("training", error, "a finite spread"))?;
    let count = shape.iter().product();
    let numbers: Vec<f32> = normal.sample_iter(rng).take(count).collect();
    Ok(Tensor::from_vec(numbers, shape, &Device::Cpu)?)
}

/// Some of a step's dialogues.
struct Part {
    tokens: Vec<Token>,
    /// Indices of the tokens whose next token is learnt: the last answer's.
    sources: Vec<usize>,
    /// Ids of these next tokens.
    targets: Vec<u32>,
}

/// Dialogues of a part: small enough that a part's activations stay in a core's cache.
const PART: usize = 4;

/// The dialogues of a step, which depend on the seed and its number alone.
fn batch(chat: &Chat, recipe: Recipe, step: usize) -> Result<Vec<Part>> {
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
    let part = |dialogues: &[(Dialogue, bool)]| -> Result<Part> {
        let mut part = Part { tokens: Vec::new(), sources: Vec::new(), targets: Vec::new() };
        for (row, (dialogue, thinking)) in dialogues.iter().enumerate() {
            let tokens = chat.tokens(dialogue, row, Some(*thinking))?;
            let start = tokens.iter().position(|token| token.start).unwrap_or(tokens.len());
            for at in start..tokens.len().saturating_sub(1) {
                part.sources.push(part.tokens.len() + at);
                part.targets.push(tokens[at + 1].id);
            }
            part.tokens.extend(tokens);
        }
        Ok(part)
    };
    drawn.par_chunks(PART).map(part).collect()
}

/// Loss a token, number of tokens, and the gradient of each slot. Parts run side by side, each by itself; their
/// gradients are added up in order, so that the sum does not depend on the number of threads.
fn gradients(decoder: &Decoder, slots: &[Slot], parts: &[Part]) -> Result<(f32, usize, Vec<Vec<f32>>)> {
    let learnt: usize = parts.iter().map(|part| part.targets.len()).sum();
    let one = |part: &Part| -> Result<(f32, Vec<Vec<f32>>)> {
        let logits = decoder.forward(&part.tokens, None, &part.sources, &mut ())?;
        let targets = Tensor::new(part.targets.as_slice(), logits.device())?;
        let share = part.targets.len() as f64 / learnt as f64;
        let loss = (cross_entropy(&logits, &targets)? * share)?;
        let store = loss.backward()?;
        let gradient = |slot: &Slot| match store.get(&slot.variable) {
            Some(gradient) => Ok(gradient.flatten_all()?.to_vec1()?),
            None => Ok(vec![0.0; slot.first.len()]),
        };
        Ok((loss.to_scalar()?, slots.iter().map(gradient).collect::<Result<_>>()?))
    };
    let done: Vec<(f32, Vec<Vec<f32>>)> = parts.par_iter().map(one).collect::<Result<_>>()?;
    let loss = done.iter().map(|(loss, _)| loss).sum();
    let sum = |slot: usize| {
        let mut sum = vec![0f32; slots[slot].first.len()];
        for (_, gradients) in &done {
            sum.iter_mut().zip(&gradients[slot]).for_each(|(sum, gradient)| *sum += gradient);
        }
        sum
    };
    let gradients = (0..slots.len()).into_par_iter().map(sum).collect();
    Ok((loss, parts.iter().map(|part| part.tokens.len()).sum(), gradients))
}

const KIND: &str = "organism-training";

fn save(slots: &[Slot], state: &Path, recipe: Recipe, step: usize) -> Result<()> {
    let mut tensors = BTreeMap::new();
    for slot in slots {
        let numbers: Vec<f32> = slot.variable.flatten_all()?.to_vec1()?;
        let parts = [("", &numbers), (FIRST, &slot.first), (SECOND, &slot.second)];
        tensors.extend(parts.map(|(part, numbers)| {
            (format!("{}{part}", slot.name), Numbers::floats(&aview1(numbers).to_owned()))
        }));
    }
    let metadata = [("recipe".into(), recipe.text()), ("step".into(), step.to_string())];
    artifact::write_tensors(state, &Header::new(KIND, 1), &metadata.into(), tensors)
}

/// Fills the slots from a saved state and gives its step.
fn restore(slots: &mut [Slot], state: &Path, recipe: Recipe) -> Result<usize> {
    let (_, file) = TensorFile::open_kind(state, KIND, 1)?;
    if file.string("recipe")? != recipe.text() {
        return Err(file.wrong(format!("training by {}", file.string("recipe")?), recipe.text()));
    }
    for slot in slots {
        let part = |part: &str| -> Result<Vec<f32>> {
            Ok(file.floats(&format!("{}{part}", slot.name))?.into_iter().collect())
        };
        let (numbers, first, second) = (part("")?, part(FIRST)?, part(SECOND)?);
        let shape = slot.variable.shape().clone();
        slot.variable.set(&Tensor::from_vec(numbers, shape, &Device::Cpu)?)?;
        (slot.first, slot.second) = (first, second);
    }
    file.json("step")
}
