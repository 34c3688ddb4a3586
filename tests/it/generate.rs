//! Generation: sampling and its filters, stop texts, the thinking budget, streaming.

use std::collections::BTreeMap;
use std::path::Path;

use pearlpoint::artifact::TensorFile;
use pearlpoint::dialogue::{Dialogue, Role};
use pearlpoint::generate::{
    Finish, GenerateOptions, KeptLogits, LogitsProcessor, Transcript, generate, generate_streaming,
};
use pearlpoint::model::{Cache, Decoder, Model, Phase, SHORTEST_PART, Token};
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

#[test]
fn a_prompt_without_a_token_is_refused_by_name() {
    let model = "tests/fixtures/gguf/llama.gguf";
    one_line(&["generate", "--model", model, "--prompt", ""], &["dialogue prompt", "without a token"]);
}

#[test]
fn kept_logits_are_those_that_the_tokens_were_chosen_by() {
    let model = Model::open(Path::new("tests/fixtures/qwen3"), None).unwrap();
    let dialogues = [Dialogue::prompt("a", "how may a friend rest"), Dialogue::prompt("b", "the user asks")];
    let options = GenerateOptions::default().greedy().max_tokens(6);
    let run = |kept| {
        let options = options.clone().logits(kept);
        generate(&model, &dialogues, &options, &mut (), &mut |_| true).unwrap()
    };
    let (plain, all, top) = (run(KeptLogits::None), run(KeptLogits::All), run(KeptLogits::Top(3)));
    for ((plain, all), top) in plain.iter().zip(&all).zip(&top) {
        assert_eq!((&plain.tokens, &plain.tokens), (&all.tokens, &top.tokens));
        assert!(plain.logits.is_empty() && plain.logprobs.is_none() && all.logprobs.is_none());
        let logprobs = top.logprobs.as_ref().unwrap();
        assert_eq!((all.logits.len(), logprobs.len()), (plain.tokens.len(), plain.tokens.len()));
        for ((id, logits), own) in plain.tokens.iter().zip(&all.logits).zip(logprobs) {
            let chosen = logits[*id as usize];
            assert!(logits.iter().all(|other| *other <= chosen));
            // log(exp(z) / Σ exp(z)), written out.
            let sum: f64 = logits.iter().map(|z| f64::from(*z).exp()).sum();
            assert!((own.logprob - (f64::from(chosen).exp() / sum).ln()).abs() < 1e-9);
            assert_eq!((own.id, own.top_logprobs.len(), own.top_logprobs[0].id), (*id, 3, *id));
            assert!(own.top_logprobs.is_sorted_by(|a, b| a.logprob >= b.logprob));
        }
    }
}

#[test]
fn the_command_writes_logits_and_says_model_plan_and_seed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (logits, plan) = (path("logits.safetensors"), path("plan.json"));
    std::fs::write(&plan, "{\"intervention\": []}").unwrap();
    let base = [
        "generate",
        "--model",
        "tests/fixtures/qwen3",
        "--prompt",
        "how",
        "--max-tokens",
        "4",
        "--seed",
        "3",
    ];
    let run = |rest: &[&str]| {
        let output = pearl(&[&base[..], rest].concat()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let line = run(&["--json", "--logits", &logits, "--plan", &plan]);
    assert_eq!((&line["seed"], &line["id"]), (&3.into(), &"prompt".into()));
    assert_eq!(line["model"], "tests/fixtures/qwen3");
    let (header, file) = TensorFile::open_kind(Path::new(&logits), "logits", 1).unwrap();
    assert_eq!(header.seed, Some(3));
    let count = line["tokens"].as_array().unwrap().len();
    assert_eq!(file.floats("logits").unwrap().shape()[0], count);
    let line = run(&["--json", "--top-logprobs", "2"]);
    assert_eq!(line["logprobs"][0]["top_logprobs"].as_array().unwrap().len(), 2);
    one_line(&[&base[..], &["--top-logprobs", "2"]].concat(), &["--json"]);
    let many = [&base[..5], &["--max-tokens", "100000000", "--logits", &logits]].concat();
    one_line(&many, &["--logits: 1 answers of 100000000 tokens", "--top-logprobs"]);
}

#[test]
fn a_vector_without_sites_steers_its_best_one_or_asks() {
    let folder = tempfile::tempdir().unwrap();
    let run = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let output = pearl(&words).current_dir(folder.path()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let done = |line: &str| assert_eq!(run(line).0, Some(0), "{line}: {}", run(line).1);
    done("organism sample --count 120 --out data.jsonl");
    done("extract --data data.jsonl --sites 1-3.resid_post --tokens assistant.start --out store");
    let build = "vector build --store store --data data.jsonl --label user-type --from malicious --to benign";
    done(&format!("{build} --out plain.safetensors"));
    done(&format!("{build} --group topic --held-out travel,music,healthcare --out tested.safetensors"));
    let generate = "generate --prompt hello --max-tokens 3 --vector";
    let (code, said) = run(&format!("{generate} plain.safetensors:0.25n"));
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("directions at 3 sites")
            && said.contains("plain.safetensors:0.25n@2.resid_post, or plain.safetensors:0.25n@all"),
        "{said}"
    );
    done(&format!("{generate} plain.safetensors:0.25n@all"));
    done(&format!("{generate} plain.safetensors@1.resid_post:ablate@all"));
    done(&format!("{generate} plain.safetensors@1.resid_post:clamp=0.5n@*.resid_post"));
    let (code, said) = run(&format!("{generate} tested.safetensors:0.25n"));
    assert!(code == Some(0) && said.contains(".resid_post, the vector's best site"), "{said}");
    let (code, said) = run(&format!("{generate} plain.safetensors@1.resid_post:1@0.mlp_hidden"));
    assert!(code == Some(2) && said.contains("width"), "{said}");
}

/// The logits after a prompt, and the batch's forward passes, where it is read in parts of so many tokens.
fn logits_in_parts(decoder: &Decoder, tokens: &[Token], cuts: &[usize]) -> Vec<Vec<f32>> {
    let (mut cache, mut begin) = (Cache::default(), 0);
    for &end in cuts {
        decoder.forward(&tokens[begin..end], Some(&mut cache), &[], &mut ()).unwrap();
        begin = end;
    }
    decoder
        .forward(&tokens[begin..], Some(&mut cache), &[tokens.len() - begin - 1], &mut ())
        .unwrap()
        .to_vec2()
        .unwrap()
}

#[test]
fn a_prompt_read_in_parts_of_whole_blocks_has_the_same_bits() {
    let model = model();
    let vocabulary = model.decoder.architecture().vocabulary;
    let others = ["llama3", "qwen3_moe", "gpt2", "gpt_neox", "olmo2", "phi3", "gemma2", "ministral-sliding"];
    let others = others.map(|family| crate::model::decoder(&format!("families/{family}")));
    for decoder in others.iter().chain([&model.decoder]) {
        let unit = decoder.part_tokens().unwrap();
        let most = decoder.architecture().vocabulary.min(vocabulary) as u32;
        let token = |position: usize| Token {
            id: (position as u32 * 37 + 5) % most,
            row: 0,
            position,
            role: Role::User,
            turn: 0,
            phase: Phase::Prompt,
            index: position,
            start: false,
            generated: false,
        };
        for length in [unit + SHORTEST_PART, unit + 33, 2 * unit + 17, 3 * unit + 16] {
            if length > decoder.architecture().longest() {
                continue;
            }
            let tokens: Vec<Token> = (0..length).map(token).collect();
            let whole = logits_in_parts(decoder, &tokens, &[]);
            for cut in (unit..=length - SHORTEST_PART).step_by(unit) {
                let family = &decoder.architecture().family;
                assert_eq!(logits_in_parts(decoder, &tokens, &[cut]), whole, "{family} {length} {cut}");
            }
        }
    }
    // Of these the keys of a prompt's beginning depend on its length.
    for family in ["phi3-long", "llama-dynamic"] {
        assert!(crate::model::decoder(&format!("families/{family}")).part_tokens().is_none(), "{family}");
    }
}
