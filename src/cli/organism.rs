//! `pearl organism`: the embedded model and its world.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Outcome;
use super::progress::Talk;
use crate::organism;
use crate::organism::training::{self, Recipe};

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train the organism from a seed, into a checkpoint folder
    Train(Train),
}

#[derive(Args)]
struct Train {
    /// Folder for the checkpoint; the state of a training that was stopped stays there too
    #[arg(long)]
    out: PathBuf,
    #[arg(long, default_value_t = Recipe::default().seed)]
    seed: u64,
    #[arg(long, default_value_t = Recipe::default().steps)]
    steps: usize,
}

pub fn run(arguments: Arguments, talk: &Talk) -> anyhow::Result<Outcome> {
    match arguments.command {
        Command::Train(arguments) => train(arguments, talk),
    }
}

fn train(arguments: Train, talk: &Talk) -> anyhow::Result<Outcome> {
    let recipe = Recipe { seed: arguments.seed, steps: arguments.steps, ..Recipe::default() };
    let bar = talk.bar(recipe.steps, "training");
    let (mut tokens, mut smooth, begin) = (0, 0.0f32, std::time::Instant::now());
    let tensors = training::train(recipe, &arguments.out.join("training.safetensors"), &mut |progress| {
        tokens += progress.tokens;
        smooth += (progress.loss - smooth) * if smooth == 0.0 { 1.0 } else { 0.02 };
        bar.set_position(progress.step as u64);
        bar.set_message(format!("loss {smooth:.3}"));
        if progress.step % 100 == 0 && bar.is_hidden() {
            let rate = tokens as f64 / begin.elapsed().as_secs_f64();
            talk.say(format!("step {}, loss {smooth:.4}, {rate:.0} tokens/s", progress.step));
        }
        talk.goes_on()
    })?;
    bar.finish();
    organism::write(&arguments.out, &tensors)?;
    talk.say(format!("wrote {} after {:.0} s", arguments.out.display(), begin.elapsed().as_secs_f64()));
    Ok(Outcome::Done)
}
