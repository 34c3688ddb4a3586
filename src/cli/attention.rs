//! `pearl attention`: a dialogue's attention weights.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use ndarray::Axis;

use super::console::Console;
use super::dialogues::{Prompts, by_id};
use super::model::ModelChoice;
use super::output::{Outcome, draw_and_print, header, print_exact, save_chart};
use pearlpoint::analysis::attention_pattern::attention_weights;
use pearlpoint::artifact::{self, FolderLock, Numbers};
use pearlpoint::error::Error;
use pearlpoint::plots;

#[derive(Args)]
#[command(after_help = "Examples:
  pearl attention --prompt \"my topic is music .\" --block 2 --out attention
  pearl attention --prompt \"my topic is music .\" --block 2 --head 1 --out head")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelChoice,
    #[command(flatten)]
    prompts: Prompts,
    /// The dialogue's id [default: the file's first]
    #[arg(long)]
    id: Option<String>,
    /// Blocks, counted from 0; may be repeated [default: all]
    #[arg(long = "block", value_name = "NUMBER")]
    blocks: Vec<usize>,
    /// The head that is drawn [default: the mean over all]
    #[arg(long, value_name = "NUMBER")]
    head: Option<usize>,
    /// Folder for attention.safetensors (BLOCK.attn_weights [heads, tokens, tokens]: head, query token, key token) and a heat map a block
    #[arg(long)]
    out: PathBuf,
    /// Print the drawn patterns as JSON, one a block
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let _lock = FolderLock::take(&arguments.out)?;
    let dialogues = arguments.prompts.read(console)?;
    let dialogue = match &arguments.id {
        Some(id) => by_id(&dialogues, "--id", id)?,
        None => dialogues.first().ok_or_else(|| Error::input("--data", "no dialogue", "one or more"))?,
    };
    let model = arguments.model.load(console)?;
    let weights = attention_weights(&model, dialogue, &arguments.blocks, arguments.model.thinking())?;
    let numbers = weights
        .blocks
        .iter()
        .map(|(block, weights)| (format!("{block}.attn_weights"), Numbers::floats(weights)));
    let numbers: BTreeMap<String, Numbers> = numbers.collect();
    let texts: Vec<&str> = weights.tokens.iter().map(|token| token.text.as_str()).collect();
    let metadata = BTreeMap::from([("tokens".to_owned(), serde_json::to_string(&texts)?)]);
    let out = &arguments.out;
    let patterns = weights.blocks.iter().map(|(block, _)| weights.pattern(*block, arguments.head));
    let patterns = patterns.collect::<Result<Vec<_>, _>>()?;
    artifact::write_tensors(
        &out.join("attention.safetensors"),
        &header("attention", &model),
        &metadata,
        numbers,
    )?;
    for pattern in &patterns {
        save_chart(out, &format!("block-{}", pattern.block), &plots::attention_pattern::chart(pattern))?;
    }
    if arguments.json {
        patterns.iter().try_for_each(|pattern| print_exact(serde_json::to_string(pattern)?))?;
        pearlpoint::report::draw_all(out)?;
        return Ok(Outcome::Done);
    }
    weights.blocks.iter().take(1).for_each(|(_, one)| {
        console.say(format!("{} heads, {} tokens", one.len_of(Axis(0)), one.len_of(Axis(1))));
    });
    draw_and_print(out)
}
