//! Forward pass of chains on free dialogues: a chain in, the answer that a chat model gives after it, with both losses, out.

use super::answering::outcome;
use super::chain::{Chain, Kind, Node};
use super::lingo_bp::{Forward, Outcome};
use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::generate::{GenerateOptions, generate};
use crate::judge::Scorer;
use crate::model::Model;

/// What stands before a chain that is not in a thinking part.
const INTRODUCTION: &str = "Answer the user as this analysis of the request says, without naming it.";

/// A user, the model that answers him, and the judge.
pub struct FreeAnswering<'a> {
    /// The model.
    pub model: &'a Model,
    /// The judge.
    pub judge: &'a dyn Scorer,
    /// The dialogue.
    pub dialogue: &'a Dialogue,
    /// How it answers.
    pub options: &'a GenerateOptions,
}

/// The chain as text, a part a line.
pub fn text(chain: &Chain) -> String {
    let of =
        |kind: Kind| chain.of(kind).map(|strategy| strategy.text.as_str()).collect::<Vec<_>>().join("; ");
    let lines = [
        ("User needs", chain.text(Node::Needs)),
        ("Risk and intent", chain.text(Node::RiskIntent)),
        ("Safety guidelines", chain.text(Node::Guidelines)),
        ("Safety strategies", of(Kind::Safety)),
        ("Usefulness strategies", of(Kind::Usefulness)),
    ];
    let line = |(name, text): (&str, String)| {
        let text = if text.is_empty() { "none" } else { text.as_str() };
        format!("{name}: {text}")
    };
    lines.map(line).join("\n")
}

impl Forward for FreeAnswering<'_> {
    /// The chain is the thinking part of a model that thinks, and a system message to any other.
    fn forward(&mut self, chain: &Chain) -> Result<Option<Outcome>> {
        let FreeAnswering { model, judge, dialogue, options } = *self;
        let prompt = model.chat.tokens(dialogue, 0, options.thinking)?;
        let (asked, options) = match model.chat.thinking_part(&prompt, &text(chain))? {
            Some(beginning) => (dialogue.clone(), options.clone().beginnings(vec![beginning])),
            None => {
                let instructed =
                    dialogue.clone().with_instruction(&format!("{INTRODUCTION}\n{}", text(chain)));
                (instructed, options.clone())
            }
        };
        let transcripts = generate(model, &[asked], &options, &mut (), &mut |_| true)?;
        outcome(judge, dialogue, &transcripts[0])
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::Strategy;
    use super::*;

    #[test]
    fn a_chain_is_written_a_part_a_line() {
        let chain = Chain {
            needs: "sleep".into(),
            strategies: vec![
                Strategy::new(Kind::Usefulness, "explain habits"),
                Strategy::new(Kind::Safety, "name no dose"),
                Strategy::new(Kind::Usefulness, "offer a list"),
            ],
            ..Chain::default()
        };
        assert_eq!(
            text(&chain),
            "User needs: sleep\nRisk and intent: none\nSafety guidelines: none\nSafety strategies: name no dose\nUsefulness strategies: explain habits; offer a list"
        );
    }
}
