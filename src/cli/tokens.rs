//! `pearl tokens`: dialogues with the tokens that a selector picks marked, and each token's role, turn and phase.

use std::io::IsTerminal;
use std::ops::Range;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::console::Console;
use super::dialogues::Prompts;
use super::model::ModelChoice;
use super::output::{Outcome, print, print_exact};
use pearlpoint::artifact;
use pearlpoint::dialogue::Dialogue;
use pearlpoint::error::Error;
use pearlpoint::model::{Chat, Phase, Selector, Token, TooLong};
use pearlpoint::printable::{one_line, printable};
use pearlpoint::report::pages::selected_tokens;
use pearlpoint::report::pages::selected_tokens::{Segment, Shown};

#[derive(Args)]
#[command(after_help = "Example:
  pearl tokens --data data.jsonl --limit 1 --tokens assistant.start --brief")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelChoice,
    #[command(flatten)]
    prompts: Prompts,
    /// The selector to show: last, assistant.start, mean(answer), …
    #[arg(long, default_value = "last", value_name = "SELECTOR")]
    tokens: Selector,
    /// What happens to a dialogue with more tokens than the model's context: error or skip
    #[arg(long, default_value = "error")]
    too_long: TooLong,
    /// Print the marked text only, without a line for each token
    #[arg(long)]
    brief: bool,
    /// Write a page instead, to stdout or into a file
    #[arg(long, value_name = "FILE", num_args = 0..=1, conflicts_with_all = ["json", "brief"])]
    html: Option<Option<PathBuf>>,
    /// Print one line of JSON a dialogue
    #[arg(long)]
    json: bool,
}

/// Longest id above a dialogue's text, in characters.
const LONGEST_ID: usize = 200;

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let thinking = arguments.model.thinking();
    let dialogues = arguments.prompts.stream(console)?;
    let checkpoint = arguments.model.checkpoint(console)?;
    let chat = &checkpoint.chat;
    let selector = &arguments.tokens;
    let colour =
        std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let mut dialogues_shown = Vec::new();
    let architecture = &checkpoint.architecture;
    let (mut read, mut unpicked, mut long) = (0, 0, 0);
    for dialogue in dialogues {
        let dialogue = dialogue?;
        let tokens = chat.tokens(&dialogue, 0, thinking)?;
        if tokens.len() > architecture.longest() {
            if arguments.too_long == TooLong::Error {
                return Err(architecture.too_long(&dialogue, tokens.len()).into());
            }
            long += 1;
            continue;
        }
        let picked = selector.pick(&tokens);
        read += 1;
        unpicked += usize::from(picked.is_empty());
        if arguments.html.is_some() {
            dialogues_shown.push(shown(chat, &dialogue, &tokens, &picked)?);
        } else if arguments.json {
            print_exact(as_json(chat, &dialogue, &tokens, &picked)?)?;
        } else {
            let marks = if colour { ["\u{1b}[30;43m", "\u{1b}[0m"] } else { ["[[", "]]"] };
            let id = one_line(&dialogue.id, LONGEST_ID);
            print(format!("{id}: {} of {} tokens", picked.len(), tokens.len()))?;
            print_exact(marked(&shown(chat, &dialogue, &tokens, &picked)?, marks))?;
            if !arguments.brief {
                table(chat, &tokens, &picked, marks)?;
            }
        }
        if !console.should_continue() {
            return Err(Error::Stopped.into());
        }
    }
    if long > 0 {
        console.say(format!("{long} dialogues of more than {} tokens were left out", architecture.longest()));
    }
    if unpicked > 0 {
        console.say(format!("{selector} picks nothing in {unpicked} of {read} dialogues"));
    }
    match arguments.html {
        None => {}
        Some(file) => {
            let page = selected_tokens::page(&selector.to_string(), &checkpoint.name, &dialogues_shown)?;
            match file {
                None => print_exact(page)?,
                Some(path) => artifact::write_text(&path, &page)?,
            }
        }
    }
    Ok(Outcome::Done)
}

/// The dialogue's text in segments of tokens of one turn, phase and choice, so that a character of several tokens stays whole.
fn shown(chat: &Chat, dialogue: &Dialogue, tokens: &[Token], picked: &[usize]) -> anyhow::Result<Shown> {
    let is_picked = |index: usize| picked.binary_search(&index).is_ok();
    let numbers: Vec<usize> = (0..tokens.len()).collect();
    let alike = |&a: &usize, &b: &usize| {
        let of = |index: usize| (tokens[index].turn, tokens[index].phase, is_picked(index));
        of(a) == of(b)
    };
    let stretch = |run: &[usize]| {
        let first = &tokens[run[0]];
        Ok(Segment {
            text: text_of(chat, tokens, run[0]..run[0] + run.len())?,
            about: format!(
                "{}, turn {}, {}, {}",
                first.role.name(),
                first.turn,
                phase(first.phase),
                match run {
                    [_] => format!("token {}", first.position),
                    run => format!("tokens {} to {}", first.position, first.position + run.len() - 1),
                }
            ),
            template: first.phase == Phase::Template,
            picked: is_picked(run[0]),
        })
    };
    let segments = numbers.chunk_by(alike).map(stretch).collect::<pearlpoint::error::Result<_>>()?;
    Ok(Shown { id: dialogue.id.clone(), picked: picked.len(), tokens: tokens.len(), segments })
}

/// The text of a range of tokens, with the space before the first of them.
fn text_of(chat: &Chat, tokens: &[Token], run: Range<usize>) -> pearlpoint::error::Result<String> {
    let decode = |from: usize, to: usize| {
        let ids: Vec<u32> = tokens[from..to].iter().map(|token| token.id).collect();
        chat.decode(&ids, false)
    };
    let before = run.start.saturating_sub(1);
    let (with, without) = (decode(before, run.end)?, decode(before, run.start)?);
    match with.strip_prefix(&without) {
        Some(text) => Ok(text.into()),
        // A character that is several tokens ends here.
        None => decode(run.start, run.end),
    }
}

/// The dialogue's text as a terminal may show it, with the picked tokens between marks; a picked new line is marked too.
fn marked(shown: &Shown, marks: [&str; 2]) -> String {
    let mut text = String::new();
    for stretch in shown.segments.chunk_by(|a, b| a.picked == b.picked) {
        let own: String = stretch.iter().map(|stretch| stretch.text.as_str()).collect();
        match stretch[0].picked {
            true => text.extend([marks[0], &printable(&own).replace('\n', "⏎\n"), marks[1]]),
            false => text += &printable(&own),
        }
    }
    text.trim_end_matches('\n').into()
}

fn table(chat: &Chat, tokens: &[Token], picked: &[usize], marks: [&str; 2]) -> anyhow::Result<()> {
    for (index, token) in tokens.iter().enumerate() {
        let text = format!("{:?}", chat.decode(&[token.id], false)?);
        let text = printable(&text);
        let text = match picked.binary_search(&index) {
            Ok(_) => format!("{}{text}{}", marks[0], marks[1]),
            Err(_) => text.into_owned(),
        };
        let (position, role, turn) = (token.position, token.role.name(), token.turn);
        print_exact(format!("{position:>6}  {role:<9} turn {turn:<3} {:<9} {text}", phase(token.phase)))?;
    }
    Ok(())
}

fn as_json(
    chat: &Chat,
    dialogue: &Dialogue,
    tokens: &[Token],
    picked: &[usize],
) -> anyhow::Result<serde_json::Value> {
    let token = |token: &Token| {
        Ok(json!({
            "id": token.id,
            "text": chat.decode(&[token.id], false)?,
            "position": token.position,
            "role": token.role.name(),
            "turn": token.turn,
            "phase": phase(token.phase),
        }))
    };
    let tokens = tokens.iter().map(token).collect::<pearlpoint::error::Result<Vec<_>>>()?;
    Ok(json!({"id": dialogue.id, "picked": picked, "tokens": tokens}))
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Template => "template",
        Phase::Prompt => "prompt",
        Phase::Think => "think",
        Phase::Answer => "answer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picked_new_line_is_visible() {
        let segment =
            |text: &str, picked| Segment { text: text.into(), about: String::new(), template: false, picked };
        let segments = vec![segment("rest\n", false), segment("\n", true), segment("today", false)];
        let shown = Shown { id: "a".into(), picked: 1, tokens: 3, segments };
        assert_eq!(marked(&shown, ["[[", "]]"]), "rest\n[[⏎\n]]today");
    }
}
