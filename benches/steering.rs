//! The overhead of steering: greedy decoding of one row without steering, with a vector added at every block, and with a
//! projection on four half-spaces at one block, in turn. It prints each round's ratios and their medians, and before them the
//! time of the hooks alone: the minimum of many batches, which a busy machine disturbs less.
//!
//!     cargo bench --bench steering                                          the embedded organism
//!     cargo bench --bench steering -- MODEL f32|bf16 CONTEXT STEPS ROUNDS   a checkpoint

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use ndarray::Array1;
use pearlpoint::Result;
use pearlpoint::dialogue::Role;
use pearlpoint::model::{Cache, Decoder, Dtype, Hook, Model, Phase, Point, Selector, Site, Token};
use pearlpoint::organism;
use pearlpoint::steer::{Direction, HalfSpace, Operation, SafeSet, SteerHook, Strength, Vector};

/// The same allocator as the program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn token(id: u32, position: usize, generated: bool) -> Token {
    let (role, phase) = (Role::Assistant, Phase::Answer);
    Token { id, row: 0, position, role, turn: 0, phase, index: position, start: false, generated }
}

/// Seconds of `steps` greedy steps, after a prefill that is not timed.
fn decode(decoder: &Decoder, context: usize, steps: usize, hook: &mut dyn Hook) -> Result<f64> {
    let mut cache = Cache::default();
    let prompt: Vec<Token> = (0..context).map(|at| token((at * 7919 % 1000) as u32, at, false)).collect();
    decoder.forward(&prompt, Some(&mut cache), &[], hook)?;
    let mut next = token(1, context, true);
    let begin = Instant::now();
    for step in 1..=steps {
        let logits = decoder.forward(&[next], Some(&mut cache), &[0], hook)?;
        let id = logits.argmax(1)?.to_vec1::<u32>()?[0];
        next = token(id, context + step, true);
    }
    Ok(begin.elapsed().as_secs_f64())
}

/// Seconds of a hook for one token at all of its sites: the minimum of `batches` batches.
fn alone(decoder: &Decoder, hook: &mut dyn Hook, batches: usize) -> Result<f64> {
    const PASSES: usize = 200;
    let tokens = [token(1, 0, true)];
    let wanted: Vec<Site> =
        decoder.architecture().sites().into_iter().filter(|&site| hook.wants(site)).collect();
    let mut least = f64::INFINITY;
    for _ in 0..batches {
        let begin = Instant::now();
        for _ in 0..PASSES {
            for &site in &wanted {
                // Each state has memory of its own, as in a forward pass.
                let state = Tensor::ones((1, decoder.architecture().width), DType::F32, &Device::Cpu)?;
                std::hint::black_box(hook.call(site, state, &tokens)?);
            }
        }
        least = least.min(begin.elapsed().as_secs_f64() / PASSES as f64);
    }
    Ok(least)
}

fn values(width: usize, seed: usize) -> Vec<f32> {
    (0..width).map(|i| ((i * 31 + seed * 101) as f32 * 0.37).sin()).collect()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn main() -> Result<()> {
    // As the program does.
    // SAFETY: no other thread has been started yet.
    unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let usage = "steering [MODEL f32|bf16 CONTEXT STEPS ROUNDS]";
    let (model, [context, steps, rounds]) = match arguments.as_slice() {
        // `cargo test --benches` runs one short round.
        [] if !is_bench => (organism::model()?, [16, 4, 1]),
        [] => (organism::model()?, [64, 128, 9]),
        [model, dtype, numbers @ ..] => {
            let dtype = if dtype == "bf16" { Dtype::Bf16 } else { Dtype::F32 };
            let numbers: Vec<usize> = numbers.iter().filter_map(|number| number.parse().ok()).collect();
            let Ok(numbers) = <[usize; 3]>::try_from(numbers) else {
                eprintln!("{usage}");
                return Ok(());
            };
            (Model::open(Path::new(model), Some(dtype))?, numbers)
        }
        _ => {
            eprintln!("{usage}");
            return Ok(());
        }
    };
    let batches = if is_bench { 100 } else { 1 };
    measure(&model.decoder, context, steps, rounds, batches)
}

/// Prints the time of the hooks alone, each round's ratios, and their medians.
fn measure(decoder: &Decoder, context: usize, steps: usize, rounds: usize, batches: usize) -> Result<()> {
    let (width, blocks) = (decoder.architecture().width, decoder.architecture().blocks.len());
    let sites: Vec<Site> = (0..blocks).map(|block| Site::Block(block, Point::ResidPost)).collect();
    let direction = |site: &Site| {
        let values = Array1::from_vec(values(width, site.block().unwrap_or(0)));
        (*site, Direction::new(values, None))
    };
    let directions: BTreeMap<Site, Direction> = sites.iter().map(direction).collect();
    let vector = Vector { method: "bench".into(), directions, best: None };
    let strength = Strength::Raw(0.01);
    let mut add = SteerHook::new(decoder, &vector, &sites, (Operation::ADD, strength), Selector::All, None)?;
    // Bounds far below, so that every state violates every face.
    let face = |seed: usize| HalfSpace {
        name: format!("face {seed}"),
        normal: values(width, 50 + seed),
        bound: -50.0,
    };
    let polyhedron = SafeSet::new((0..4).map(face).collect())?;
    let middle = Site::Block(blocks / 2, Point::ResidPost);
    let polyhedra = BTreeMap::from([(middle, polyhedron)]);
    let mut project =
        SteerHook::project(decoder, polyhedra, Operation::PROJECT, Strength::Raw(1.0), Selector::All, None)?;
    let spent = [alone(decoder, &mut add, batches)?, alone(decoder, &mut project, batches)?]
        .map(|seconds| 1e6 * seconds);
    println!("alone: add {:.1} µs a token, project {:.1} µs a token", spent[0], spent[1]);
    let mut ratios = [Vec::new(), Vec::new(), Vec::new()];
    decode(decoder, context, 4, &mut ())?;
    for round in 0..rounds {
        let plain = decode(decoder, context, steps, &mut ())?;
        let added = decode(decoder, context, steps, &mut add)?;
        let projected = decode(decoder, context, steps, &mut project)?;
        // The unsteered model again: how much a ratio says at all.
        let again = decode(decoder, context, steps, &mut ())?;
        let base = (plain + again) / 2.0;
        for (list, seconds) in ratios.iter_mut().zip([added, projected, again]) {
            list.push(seconds / base);
        }
        println!(
            "round {round}: {:.2} ms a token; add at {blocks} blocks {:.4}, project on 4 faces {:.4}, unsteered again {:.4}",
            1e3 * base / steps as f64,
            added / base,
            projected / base,
            again / base
        );
    }
    let [added, projected, again] = ratios.map(median);
    println!("median: add {added:.4}, project {projected:.4}, unsteered again {again:.4}");
    Ok(())
}
