//! Seconds of the forward pass and of its operations.
//!
//!     cargo bench --bench forward                     a table for the embedded organism
//!     cargo bench --bench forward -- MODEL DTYPE      commands on stdin, for a checkpoint in f32, bf16, f16 or `stored`
//!
//! Each line of stdin is answered with seconds:
//!
//!     prefill LENGTH …            rows of these many tokens, up to the final norm
//!     recorded LENGTH …           the same, with every `resid_post` kept until the end
//!     decode ROWS CONTEXT STEPS   greedy decoding of this many rows, after CONTEXT tokens that are not timed
//!     peak                        a product of [4096, 1024] and [1024, 3072]
//!     copy                        half a gibibyte, copied by all threads
//!     part NAME TOKENS            one operation of all blocks: products, attention, norms, rotation, activation or sums
//!
//! `scripts/compare_forward.py` asks it and transformers in turn.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use candle_core::{Device, Shape, Tensor};
use pearlpoint::Result;
use pearlpoint::dialogue::Role;
use pearlpoint::model::compute::linear::Linear;
use pearlpoint::model::compute::ops::{attention, gated, rms_norm, rotate};
use pearlpoint::model::compute::{Angles, Heads};
use pearlpoint::model::{Cache, Decoder, Dtype, Hook, Model, Phase, Point, Site, Token, Weight};
use pearlpoint::organism;
use rayon::prelude::*;

/// Tokens per batch: the default of `pearl extract --batch-tokens`.
const BATCH: usize = 2048;

/// The same allocator as the program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Keeps the final norm, and every `resid_post` if `all`.
struct Watch {
    all: bool,
    kept: Vec<Tensor>,
}

impl Hook for Watch {
    fn wants(&self, site: Site) -> bool {
        site == Site::FinalNorm || (self.all && matches!(site, Site::Block(_, Point::ResidPost)))
    }

    fn call(&mut self, _: Site, activations: Tensor, _: &[Token]) -> Result<Tensor> {
        // Tensors are immutable: a clone shares the memory.
        self.kept.push(activations.clone());
        Ok(activations)
    }
}

fn token(id: usize, row: usize, position: usize) -> Token {
    let (role, phase) = (Role::User, Phase::Prompt);
    Token {
        id: id as u32,
        row,
        position,
        role,
        turn: 0,
        phase,
        index: position,
        start: false,
        generated: false,
    }
}

/// Rows of pseudo-random ids, the same in each run.
fn tokens(decoder: &Decoder, lengths: &[usize]) -> Vec<Token> {
    let vocabulary = decoder.architecture().vocabulary;
    let row = |(row, &length): (usize, &usize)| {
        (0..length)
            .map(move |at| token((at * 7919 + row * 104_729 + 17) % vocabulary, row, at))
            .collect::<Vec<_>>()
    };
    lengths.iter().enumerate().flat_map(row).collect()
}

/// Seconds of a prefill in batches of whole rows, as extraction makes them.
fn prefill(decoder: &Decoder, lengths: &[usize], all: bool) -> Result<f64> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for &length in lengths {
        match batches.last_mut() {
            Some(batch) if batch.iter().sum::<usize>() + length <= BATCH => batch.push(length),
            _ => batches.push(vec![length]),
        }
    }
    let batches: Vec<Vec<Token>> = batches.iter().map(|lengths| tokens(decoder, lengths)).collect();
    let begin = Instant::now();
    for tokens in &batches {
        decoder.forward(tokens, None, &[], &mut Watch { all, kept: Vec::new() })?;
    }
    Ok(begin.elapsed().as_secs_f64())
}

/// Seconds of `steps` greedy steps for each of `rows` rows, after a prefill that is not timed.
fn decode(decoder: &Decoder, rows: usize, context: usize, steps: usize) -> Result<f64> {
    let mut cache = Cache::default();
    let prompt = tokens(decoder, &vec![context; rows]);
    decoder.forward(&prompt, Some(&mut cache), &[], &mut ())?;
    let mut next: Vec<Token> = (0..rows).map(|row| token(row + 1, row, context)).collect();
    let at: Vec<usize> = (0..rows).collect();
    let begin = Instant::now();
    for step in 1..=steps {
        let logits = decoder.forward(&next, Some(&mut cache), &at, &mut ())?;
        let ids: Vec<u32> = logits.argmax(1)?.to_vec1()?;
        next = ids.iter().enumerate().map(|(row, &id)| token(id as usize, row, context + step)).collect();
    }
    Ok(begin.elapsed().as_secs_f64())
}

/// A random weight matrix, packed as the model packs its own.
fn linear(dtype: Dtype, inputs: usize, outputs: usize) -> Result<Linear> {
    let weight = Tensor::randn(0f32, 1.0, (outputs, inputs), &Device::Cpu)?.to_dtype(dtype.into())?;
    Ok(Linear::new(Weight::Tensor(weight), None)?)
}

fn random(shape: impl Into<Shape>) -> Result<Tensor> {
    Ok(Tensor::randn(0f32, 1.0, shape, &Device::Cpu)?)
}

/// Seconds of `work` inside the thread pool, after one run to warm up.
fn timed(mut work: impl FnMut() -> Result<()> + Send) -> Result<f64> {
    rayon::scope(|_| {
        work()?;
        let begin = Instant::now();
        work()?;
        Ok(begin.elapsed().as_secs_f64())
    })
}

fn peak(dtype: Dtype) -> Result<f64> {
    let (linear, x) = (linear(dtype, 1024, 3072)?, random((4096, 1024))?);
    timed(|| linear.forward(&x).map(|_| ()).map_err(Into::into))
}

fn copy() -> Result<f64> {
    let (from, mut to) = (vec![1u64; 1 << 26], vec![0u64; 1 << 26]);
    timed(|| {
        to.par_chunks_mut(1 << 20)
            .zip(from.par_chunks(1 << 20))
            .for_each(|(to, from)| to.copy_from_slice(from));
        Ok(())
    })
}

/// Seconds of one operation over all blocks, for one row of `tokens` tokens.
fn part(decoder: &Decoder, dtype: Dtype, name: &str, tokens: usize) -> Result<f64> {
    let a = decoder.architecture();
    let (queries, keys) = (a.heads * a.head_width, a.kv_heads * a.head_width);
    let (x, hidden) = (random((tokens, a.width))?, random((tokens, a.hidden))?);
    let [q, k] = [a.heads, a.kv_heads].map(|heads| random((tokens, heads, a.head_width)));
    let (q, k) = (q?, k?);
    let seconds = match name {
        "products" => {
            let shapes = [
                (a.width, queries),
                (a.width, keys),
                (a.width, keys),
                (queries, a.width),
                (a.width, a.hidden),
            ];
            let shapes = shapes.into_iter().chain([(a.width, a.hidden), (a.hidden, a.width)]);
            // The matrices of four blocks, so that none is in a cache when it is used again.
            let shapes: Vec<_> = std::iter::repeat_n(shapes, 4).flatten().collect();
            let made = shapes
                .iter()
                .map(|&(inputs, outputs)| Ok((linear(dtype, inputs, outputs)?, random((tokens, inputs))?)));
            let made = made.collect::<Result<Vec<_>>>()?;
            timed(|| made.iter().try_for_each(|(linear, x)| Ok(linear.forward(x).map(|_| ())?)))? / 4.0
        }
        "attention" => {
            let heads = Heads::causal(a.heads, a.kv_heads, a.head_width);
            let rows: Vec<_> = std::iter::once(0..tokens).collect();
            timed(|| Ok(attention(&q, &k, &k, heads, None, rows.clone()).map(|_| ())?))?
        }
        "norms" => {
            let (wide, narrow) = (random(a.width)?, random(a.head_width)?);
            timed(|| {
                rms_norm(&x, &wide, 1e-6)?;
                rms_norm(&x, &wide, 1e-6)?;
                rms_norm(&q, &narrow, 1e-6)?;
                Ok(rms_norm(&k, &narrow, 1e-6).map(|_| ())?)
            })?
        }
        "rotation" => {
            let rope = &a.ropes[0];
            let angles = Angles::new((0..tokens).map(|at| (at, 0)), &[(rope.frequencies(0), 1.0)]);
            timed(|| {
                rotate(&q, &angles)?;
                Ok(rotate(&k, &angles).map(|_| ())?)
            })?
        }
        "activation" => timed(|| Ok(gated(&hidden, &hidden, a.activation).map(|_| ())?))?,
        _ => timed(|| {
            (&x + &x)?;
            Ok((&x + &x).map(|_| ())?)
        })?,
    };
    Ok(seconds * a.blocks.len() as f64)
}

/// The seconds that a command asks for; NaN for an unknown command.
fn answer(line: &str, decoder: &Decoder, dtype: Dtype) -> Result<f64> {
    let mut words = line.split_whitespace();
    let command = words.next().unwrap_or_default();
    let numbers: Vec<usize> = words.filter_map(|word| word.parse().ok()).collect();
    match (command, numbers.as_slice()) {
        ("prefill", lengths) => prefill(decoder, lengths, false),
        ("recorded", lengths) => prefill(decoder, lengths, true),
        ("decode", &[rows, context, steps]) => decode(decoder, rows, context, steps),
        ("peak", []) => peak(dtype),
        ("copy", []) => copy(),
        ("part", &[tokens]) => {
            part(decoder, dtype, line.split_whitespace().nth(1).unwrap_or_default(), tokens)
        }
        _ => Ok(f64::NAN),
    }
}

/// Commands of the table, each with the number of its tokens.
const CASES: [(&str, usize); 12] = [
    ("prefill 512", 512),
    ("prefill 128 128 128 128 128 128 128 128", 1024),
    ("recorded 512", 512),
    ("decode 1 32 32", 32),
    ("decode 8 32 32", 256),
    ("part products 512", 512),
    ("part attention 512", 512),
    ("part norms 512", 512),
    ("part rotation 512", 512),
    ("part activation 512", 512),
    ("part sums 512", 512),
    ("peak", 4096),
];

/// Prints a table for the embedded organism: medians of `runs` runs.
fn table(runs: usize) -> Result<()> {
    let model = organism::model()?;
    println!("organism, f32, {} threads, medians of {runs}\n", rayon::current_num_threads());
    println!("{:<42} {:>10} {:>12}", "case", "ms", "tokens/s");
    for (case, tokens) in CASES {
        let mut seconds =
            (0..runs).map(|_| answer(case, &model.decoder, Dtype::F32)).collect::<Result<Vec<f64>>>()?;
        seconds.sort_by(f64::total_cmp);
        let median = seconds[runs / 2];
        println!("{case:<42} {:>10.3} {:>12.0}", 1e3 * median, tokens as f64 / median);
    }
    Ok(())
}

fn main() -> Result<()> {
    // As the program does.
    // SAFETY: no other thread has been started yet.
    unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (model, dtype) = match arguments.as_slice() {
        // `cargo test --benches` runs each case once.
        [] => return table(if is_bench { 7 } else { 1 }),
        [model, dtype] => (model, dtype),
        _ => {
            eprintln!("forward [MODEL f32|bf16|f16|stored], with commands on stdin");
            return Ok(());
        }
    };
    let dtype = match dtype.as_str() {
        "f32" => Some(Dtype::F32),
        "bf16" => Some(Dtype::Bf16),
        "f16" => Some(Dtype::F16),
        _ => None,
    };
    let model = Model::open(Path::new(model), dtype)?;
    // SAFETY: the allocator takes any option and number.
    unsafe { libmimalloc_sys::mi_option_set(15, -1) };
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        println!("{}", answer(&line.unwrap_or_default(), &model.decoder, dtype.unwrap_or_default())?);
        std::io::stdout().flush().unwrap_or_default();
    }
    Ok(())
}
