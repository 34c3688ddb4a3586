//! Generation: sampling and its filters, stop texts, the thinking budget, streaming.

use std::collections::BTreeMap;

use pearlpoint::dialogue::Dialogue;
use pearlpoint::generate::{
    Finish, GenerateOptions, LogitsProcessor, Transcript, generate, generate_streaming,
};
use pearlpoint::model::Model;
use pearlpoint::organism::{self, Split};

use crate::cli::{one_line, pearl};

fn model() -> Model {
    organism::model().unwrap()
}

fn dialogues(count: usize) -> Vec<Dialogue> {
    organism::sample(count, Split::HeldOutWording, 5).into_iter().map(|(_, dialogue)| dialogue).collect()
}

fn answers(options: &GenerateOptions, dialogues: &[Dialogue]) -> Vec<Transcript> {
    generate(&model(), dialogues, options, &mut (), &mut |_| true).unwrap()
}

fn options() -> GenerateOptions {
    GenerateOptions::default().max_tokens(60).thinking(true).seed(3)
}

fn tokens(transcripts: &[Transcript]) -> Vec<&[u32]> {
    transcripts.iter().map(|transcript| transcript.tokens.as_slice()).collect()
}

#[test]
fn the_likeliest_of_one_is_the_likeliest() {
    let dialogues = dialogues(4);
    let greedy = answers(&options().greedy(), &dialogues);
    for processor in [
        LogitsProcessor { top_k: Some(1), ..LogitsProcessor::default() },
        LogitsProcessor { top_p: Some(1e-6), ..LogitsProcessor::default() },
        LogitsProcessor { min_p: Some(1.0), ..LogitsProcessor::default() },
    ] {
        let drawn = answers(&options().logits_processor(processor), &dialogues);
        assert_eq!(tokens(&drawn), tokens(&greedy), "{processor:?}");
    }
    let plain = answers(&options(), &dialogues);
    assert_ne!(tokens(&plain), tokens(&greedy));
    let processor = LogitsProcessor {
        top_k: Some(100_000),
        top_p: Some(1.0),
        min_p: Some(0.0),
        repetition_penalty: Some(1.0),
    };
    assert_eq!(tokens(&answers(&options().logits_processor(processor), &dialogues)), tokens(&plain));
}

#[test]
fn a_row_draws_by_itself() {
    let dialogues = dialogues(5);
    let whole = answers(&options(), &dialogues);
    // Of ragged ends and of any batch, the same.
    let pairs = answers(&options().batch_rows(2), &dialogues);
    assert_eq!(tokens(&whole), tokens(&pairs));
    assert_ne!(tokens(&whole), tokens(&answers(&options().seed(4), &dialogues)));
}

#[test]
fn a_penalty_keeps_a_row_from_saying_a_thing_again() {
    let processor = LogitsProcessor { repetition_penalty: Some(1e6), ..LogitsProcessor::default() };
    let answers = answers(&options().greedy().logits_processor(processor), &dialogues(3));
    for answer in answers {
        let mut seen = std::collections::HashSet::new();
        let again = answer.tokens.iter().filter(|id| !seen.insert(**id)).count();
        assert!(again <= 1, "{}", answer.text);
    }
}

#[test]
fn an_answer_ends_before_a_stop_and_is_heard_as_it_comes() {
    let (model, dialogues) = (model(), dialogues(4));
    let greedy = options().greedy();
    let whole = answers(&greedy, &dialogues);
    for stop in [vec![";".to_string()], vec!["rule :".into(), "plan".into()], vec!["not there".into()]] {
        let options = greedy.clone().stop(stop.clone());
        let mut heard: BTreeMap<usize, String> = BTreeMap::new();
        let mut pieces = 0;
        let mut hear = |row: usize, text: &str| {
            pieces += 1;
            heard.entry(row).or_default().push_str(text);
            true
        };
        let stopped =
            generate_streaming(&model, &dialogues, &options, &mut (), &mut |_| true, &mut hear).unwrap();
        for (row, (whole, stopped)) in whole.iter().zip(&stopped).enumerate() {
            let end = stop.iter().filter_map(|stop| whole.text.find(stop)).min().unwrap_or(whole.text.len());
            assert_eq!(stopped.text, whole.text[..end], "{stop:?}");
            assert_eq!(stopped.finish, Finish::Stop);
            assert_eq!(heard[&row], stopped.text, "{stop:?}");
        }
        assert!(pieces > 3 * dialogues.len(), "{pieces}");
    }
}

#[test]
fn a_stop_may_be_a_special_token() {
    let dialogues = dialogues(3);
    // The organism closes its thinking part with a token that the answer's text doesn't show.
    let free = answers(&options(), &dialogues);
    let close = model().chat.close_thinking().unwrap();
    let stopped = answers(&options().stop(vec!["</think>".into()]), &dialogues);
    for (free, stopped) in free.iter().zip(&stopped) {
        let at = free.tokens.iter().position(|id| close.contains(id)).unwrap();
        assert_eq!((&stopped.tokens[..], stopped.finish), (&free.tokens[..=at], Finish::Stop));
        assert!(free.text.starts_with(stopped.text.trim_end()) && !stopped.text.contains("</think>"));
    }
}

#[test]
fn thinking_is_closed_at_its_budget() {
    let dialogues = dialogues(6);
    let greedy = options().greedy();
    let free = answers(&greedy, &dialogues);
    let thought = |transcript: &Transcript| {
        let words: Vec<&str> = transcript.text.split_whitespace().collect();
        words.iter().position(|word| *word == "</think>").expect("the thinking part is closed")
    };
    for budget in [0, 1, 7] {
        let short = answers(&greedy.clone().think_budget(budget), &dialogues);
        for (free, short) in free.iter().zip(&short) {
            assert_eq!(thought(short), budget.min(thought(free)), "{}", short.text);
            assert!(short.tokens.len() > budget + 2, "{}", short.text);
        }
    }
    let roomy = answers(&greedy.think_budget(1000), &dialogues);
    assert_eq!(tokens(&roomy), tokens(&free));
}

#[test]
fn the_program_streams_and_shows_what_steering_did() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = ["generate", "--prompt", "please explain pills .", "--greedy", "--quiet"];
    let run = |more: &[&str]| {
        let output = pearl(&[&prompt[..], more].concat()).output().unwrap();
        assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run(&["--stream"]), run(&[]));
    assert_eq!(
        run(&["--stop", "</think>"]).trim_end(),
        run(&[]).split("</think>").next().unwrap().trim_end()
    );
    let page = folder.path().join("trace.html").display().to_string();
    let json = run(&["--json", "--trace", &page]);
    let transcript: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(transcript["trace"]["tokens"].as_array().unwrap().len() > 10);
    assert!(std::fs::read_to_string(&page).unwrap().contains("pills"));
    one_line(&["generate", "--prompt", "a", "--top-p", "0"], &["top-p: 0", "above 0"]);
    one_line(&["generate", "--prompt", "a", "--top-k", "0"], &["top-k: 0", "1 or more"]);
    one_line(&["generate", "--prompt", "a", "--min-p", "NaN"], &["min-p: NaN"]);
    one_line(
        &["generate", "--prompt", "a", "--repetition-penalty", "0"],
        &["repetition penalty: 0", "above 0"],
    );
    one_line(&["generate", "--prompt", "a", "--stop", ""], &["stop: an empty text"]);
    one_line(&["generate", "--prompt", "a", "--temperature", "0"], &["temperature: 0"]);
}
