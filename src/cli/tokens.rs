//! `pearl tokens`: each dialogue with what a selector picks marked.

use clap::Args;

use super::dialogues::Prompts;
use super::model::Choice;
use super::progress::Talk;
use super::{Outcome, print};
use crate::model::Selector;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: Choice,
    #[command(flatten)]
    prompts: Prompts,
    /// The selector to show
    #[arg(long, default_value = "last")]
    tokens: Selector,
    /// The template's plain mode, where it has one
    #[arg(long)]
    no_think: bool,
}

pub fn run(arguments: Arguments, talk: &Talk) -> anyhow::Result<Outcome> {
    let dialogues = arguments.prompts.read()?;
    let model = arguments.model.open(talk)?;
    for dialogue in &dialogues {
        let tokens = model.chat.tokens(dialogue, 0, arguments.no_think.then_some(false))?;
        let picked = arguments.tokens.pick(&tokens);
        print(format!("{}: {} of {} tokens", dialogue.id, picked.len(), tokens.len()))?;
        for (index, token) in tokens.iter().enumerate() {
            let text = model.chat.decode(&[token.id], false)?;
            let text = format!("{text:?}");
            let shown = if picked.contains(&index) { format!("[[{text}]]") } else { text };
            let phase = format!("{:?}", token.phase).to_lowercase();
            print(format!(
                "{:>6}  {:<9} turn {:<3} {phase:<9} {shown}",
                token.position,
                token.role.name(),
                token.turn
            ))?;
        }
    }
    Ok(Outcome::Done)
}
