//! The forward pass on a clock: opens a checkpoint once, then answers each line of stdin with the seconds that it took.
//!
//!     prefill LENGTH …            rows of so many tokens, side by side, up to the final norm
//!     recorded LENGTH …           the same, with every `resid_post` copied
//!     decode ROWS CONTEXT STEPS   greedy tokens for so many rows, after CONTEXT tokens that are not timed
//!
//! `tests/bench/forward.py` asks it and transformers in turn.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use candle_core::Tensor;
use pearlpoint::Result;
use pearlpoint::dialogue::Role;
use pearlpoint::model::{Cache, Decoder, Dtype, Hook, Model, Phase, Point, Site, Token};

/// As the program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Keeps the last norm, and every `resid_post` where it is told to.
struct Watch {
    all: bool,
    kept: Vec<Tensor>,
}

impl Hook for Watch {
    fn wants(&self, site: Site) -> bool {
        site == Site::FinalNorm || (self.all && matches!(site, Site::Block(_, Point::ResidPost)))
    }

    fn call(&mut self, _: Site, activations: Tensor, _: &[Token]) -> Result<Tensor> {
        self.kept.push(activations.copy()?);
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

/// Ids that differ, the same each time.
fn tokens(decoder: &Decoder, lengths: &[usize]) -> Vec<Token> {
    let vocabulary = decoder.architecture().vocabulary;
    let row = |(row, &length): (usize, &usize)| {
        (0..length)
            .map(move |at| token((at * 7919 + row * 104_729 + 17) % vocabulary, row, at))
            .collect::<Vec<_>>()
    };
    lengths.iter().enumerate().flat_map(row).collect()
}

fn prefill(decoder: &Decoder, lengths: &[usize], all: bool) -> Result<f64> {
    let tokens = tokens(decoder, lengths);
    let begin = Instant::now();
    decoder.forward(&tokens, None, &[], &mut Watch { all, kept: Vec::new() })?;
    Ok(begin.elapsed().as_secs_f64())
}

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

fn main() -> Result<()> {
    // As the program does.
    // SAFETY: no other thread has been started yet.
    unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [model, dtype] = arguments.as_slice() else {
        eprintln!("forward MODEL f32|bf16|f16|stored, then commands on stdin");
        return Ok(());
    };
    let dtype = match dtype.as_str() {
        "f32" => Some(Dtype::F32),
        "bf16" => Some(Dtype::Bf16),
        "f16" => Some(Dtype::F16),
        _ => None,
    };
    let model = Model::open(Path::new(model), dtype)?;
    let decoder = &model.decoder;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap_or_default();
        let mut words = line.split_whitespace();
        let command = words.next().unwrap_or_default();
        let numbers: Vec<usize> = words.filter_map(|word| word.parse().ok()).collect();
        let seconds = match (command, numbers.as_slice()) {
            ("prefill", lengths) => prefill(decoder, lengths, false)?,
            ("recorded", lengths) => prefill(decoder, lengths, true)?,
            ("decode", &[rows, context, steps]) => decode(decoder, rows, context, steps)?,
            _ => f64::NAN,
        };
        println!("{seconds}");
        std::io::stdout().flush().unwrap_or_default();
    }
    Ok(())
}
