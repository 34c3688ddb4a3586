//! Extraction: the same activations in any batches, for any selectors, and after an interruption at any moment.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use pearlpoint::activations::{Activations, Labelled, Recorder, Request, Store, extract, extract_each, load};
use pearlpoint::dialogue::{Dialogue, Message, Role};
use pearlpoint::model::{Cache, Model, Pooling, Selector, Site, Token};
use pearlpoint::organism::{self, Split};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::cli::{one_line, pearl};

/// A chat model with a template of its own, small enough to be read a thousand times.
static MODEL: LazyLock<Model> =
    LazyLock::new(|| Model::open(Path::new("tests/fixtures/qwen3"), None).unwrap());

const SELECTORS: [&str; 23] = [
    "last",
    "all",
    "prompt",
    "user",
    "assistant",
    "system",
    "user.last",
    "assistant.start",
    "think",
    "answer",
    "turn(1)",
    "first(user,2)",
    "first(think,3)",
    "last(answer,2)",
    "last(user,4)",
    "every(turn)",
    "mean(user)",
    "max(answer)",
    "mean(last(all,5))",
    "generated",
    "first(all,5)",
    "first(prompt,4)",
    "first(last(user,3),2)",
];

fn selector() -> impl Strategy<Value = Selector> {
    select(&SELECTORS[..]).prop_map(|text| text.parse().unwrap())
}

/// User message, thinking part and answer.
type Round = (String, Option<String>, String);

/// Dialogues of one or two rounds, some with thinking parts, some with a system prompt that several share.
fn dialogues() -> impl Strategy<Value = Vec<Dialogue>> {
    let words =
        |count| proptest::collection::vec(select(&["the", "user", "asks", "ünder", "rest", "3"][..]), count);
    let said = move || words(1..9usize).prop_map(|words| words.join(" "));
    let round = (said(), proptest::option::of(said()), said());
    let dialogue = (0..3usize, proptest::collection::vec(round, 1..3), any::<bool>());
    let make = |(system, rounds, open): (usize, Vec<Round>, bool)| {
        let mut messages = Vec::new();
        if system > 0 {
            messages.push(Message::new(Role::System, "rest today and ask a friend ".repeat(system * 3)));
        }
        for (asked, thought, answer) in rounds {
            messages.push(Message::new(Role::User, asked));
            let thought = thought.map_or(String::new(), |said| format!("<think>\n{said}\n</think>\n\n"));
            messages.push(Message::new(Role::Assistant, format!("{thought}{answer}")));
        }
        if open {
            messages.pop();
        }
        messages
    };
    let number = |(number, messages): (usize, Vec<Message>)| Dialogue::new(number.to_string(), messages);
    proptest::collection::vec(dialogue.prop_map(make), 1..7)
        .prop_map(move |drawn| drawn.into_iter().enumerate().map(number).collect())
}

fn request(tokens: &Selector, batch_tokens: usize, sites: &str) -> Request {
    let sites = MODEL.decoder.architecture().parse_sites(sites).unwrap();
    Request::new(sites).tokens(tokens.clone()).batch_tokens(batch_tokens)
}

fn read(dialogues: &[Dialogue], tokens: &Selector, batch_tokens: usize, sites: &str) -> Activations {
    extract(&MODEL, dialogues, &request(tokens, batch_tokens, sites), &mut |_| true).unwrap()
}

/// The activations of one full forward pass over each dialogue alone: no shared prefix, no cut tokens.
fn unbatched(dialogues: &[Dialogue], tokens: &Selector, sites: &str) -> Activations {
    let sites = MODEL.decoder.architecture().parse_sites(sites).unwrap();
    let mut recorder = Recorder::new(sites, tokens.clone());
    let mut count = 0;
    for (row, dialogue) in dialogues.iter().enumerate() {
        let tokens = MODEL.chat.tokens(dialogue, row, None).unwrap();
        count += tokens.len();
        MODEL.decoder.forward(&tokens, None, &[], &mut recorder).unwrap();
    }
    let (origins, kept) = recorder.finish();
    let shaped = |(site, values): (Site, Vec<f32>)| {
        let width = MODEL.decoder.architecture().site_width(site);
        (site, ndarray::Array2::from_shape_vec((origins.len(), width), values).unwrap())
    };
    Activations {
        sites: kept.into_iter().map(shaped).collect(),
        example: origins.iter().map(|origin| origin.row).collect(),
        position: origins.iter().map(|origin| origin.position).collect(),
        tokens: count,
    }
}

/// Asserts the same rows, with values equal up to rounding.
fn same(one: &Activations, other: &Activations) -> Result<(), TestCaseError> {
    prop_assert_eq!(
        (&one.example, &one.position, one.tokens),
        (&other.example, &other.position, other.tokens)
    );
    for ((site, rows), (_, others)) in one.sites.iter().zip(&other.sites) {
        prop_assert_eq!(rows.dim(), others.dim());
        let most = others.iter().fold(1e-3f32, |most, value| most.max(value.abs()));
        let error = rows.iter().zip(others).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        prop_assert!(error <= 2e-5 * most, "{}: {} of {}", site, error, most);
    }
    Ok(())
}

const SITES: &str = "embed,0.attn_heads,0.mlp_hidden,*.resid_post";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Invariants 2 and 3, for any batches and shared prefixes.
    #[test]
    fn a_row_is_read_in_any_batch_as_it_is_alone(
        dialogues in dialogues(), selector in selector(), batch_tokens in 1usize..400,
    ) {
        same(&read(&dialogues, &selector, batch_tokens, SITES), &unbatched(&dialogues, &selector, SITES))?;
    }

    /// Recording fewer sites, or one selector of several, gives the same activations.
    #[test]
    fn other_sites_and_selectors_change_nothing(
        dialogues in dialogues(), one in selector(), other in selector(), batch_tokens in 20usize..400,
    ) {
        let deep = extract_each(
            &MODEL, &dialogues, &request(&one, batch_tokens, "all"), std::slice::from_ref(&other), &mut |_| true,
        ).unwrap();
        for (selector, deep) in [one, other].iter().zip(deep) {
            let shallow = read(&dialogues, selector, batch_tokens, "0.resid_mid");
            let site = shallow.sites[0].0;
            let at = deep.at(site).unwrap().clone();
            same(&Activations { sites: vec![(site, at)], ..deep }, &shallow)?;
        }
    }

    /// Invariant 6: extraction records what the selector picks; for steering, with and without the cache.
    #[test]
    fn a_selector_picks_the_same_tokens_everywhere(
        dialogues in dialogues(), selector in selector(), cut in any::<Index>(),
    ) {
        let read = read(&dialogues, &selector, 300, "embed");
        let mut rows: Vec<(usize, Option<usize>)> = Vec::new();
        for (row, dialogue) in dialogues.iter().enumerate() {
            let tokens = MODEL.chat.tokens(dialogue, row, None).unwrap();
            let picked = selector.pick(&tokens);
            match selector.pooling() {
                Pooling::Each => rows.extend(picked.iter().map(|&at| (row, Some(tokens[at].position)))),
                _ => rows.extend(picked.first().map(|_| (row, None))),
            }
            let start = tokens.iter().position(|token| token.start);
            if let (Ok(()), Some(start)) = (selector.check_steering(), start) {
                // As in generation: first the prompt and part of the answer, which the cache holds, then the rest.
                let cut = start + 1 + cut.index(tokens.len() - start);
                let (before, after) = tokens.split_at(cut);
                let after = selector.pick(after).into_iter().map(|at| cut + at);
                let parts: Vec<usize> = selector.pick(before).into_iter().chain(after).collect();
                prop_assert_eq!(parts, picked);
            }
        }
        prop_assert_eq!(rows, read.example.into_iter().zip(read.position).collect::<Vec<_>>());
    }

    /// A prefix shared by several rows gives the same activations as a cache for each row.
    #[test]
    fn rows_may_begin_with_one_prefix(dialogue in dialogues(), cut in any::<Index>()) {
        let tokens = MODEL.chat.tokens(&dialogue[0], 0, None).unwrap();
        prop_assume!(tokens.len() > 1);
        let cut = 1 + cut.index(tokens.len() - 1);
        let mut cache = Cache::default();
        MODEL.decoder.forward(&tokens[..cut], Some(&mut cache), &[], &mut ()).unwrap();
        let sites = MODEL.decoder.architecture().sites();
        let rest = |cache: &mut Cache, rows: usize| {
            let mut recorder = Recorder::new(sites.clone(), Selector::All);
            let again = |row| tokens[cut..].iter().map(move |token| Token { row, ..token.clone() });
            let tokens: Vec<Token> = (0..rows).flat_map(again).collect();
            MODEL.decoder.forward(&tokens, Some(cache), &[], &mut recorder).unwrap();
            recorder.finish().1
        };
        let alone = rest(&mut cache.clone(), 1);
        let both = rest(&mut Cache::after(cache.into_prefix(0)), 2);
        for ((site, alone), (_, both)) in alone.iter().zip(&both) {
            let most = alone.iter().fold(1e-3f32, |most, value| most.max(value.abs()));
            let close = |other: &[f32]| alone.iter().zip(other).all(|(a, b)| (a - b).abs() <= 2e-5 * most);
            let (first, second) = both.split_at(alone.len());
            prop_assert!(close(first) && close(second), "{}", site);
        }
    }
}

/// A file of dialogues sampled from the organism's world.
fn world(folder: &Path, count: usize) -> String {
    let path = folder.join("world.jsonl");
    let drawn = organism::sample(count, Split::HeldOutWording, 3);
    pearlpoint::dialogue::write_jsonl(&path, drawn.iter().map(|(_, dialogue)| dialogue)).unwrap();
    path.display().to_string()
}

fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| (path.file_name().unwrap().to_string_lossy().into(), std::fs::read(&path).unwrap()))
        .collect()
}

fn begin(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pearl"));
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Invariant 10. `scripts/kill_and_resume.py` does the same at more moments, on a full disk, and stops it by Ctrl-C.
#[test]
fn a_run_killed_at_any_moment_ends_byte_identical() {
    let folder = tempfile::tempdir().unwrap();
    let data = world(folder.path(), 400);
    let at = |name: &str| folder.path().join(name);
    let extract = |out: &Path| {
        let out = out.display().to_string();
        ["extract", "--data", &data, "--tokens", "assistant.start", "--out", &out].map(String::from)
    };
    let whole = at("whole");
    pearl(&extract(&whole).each_ref().map(String::as_str)).assert().success();
    let mut kills = 0;
    for (round, wait) in [40u64, 90, 150, 250].into_iter().enumerate() {
        let store = at(&format!("killed-{round}"));
        let arguments = extract(&store);
        // Later each time, until the run ends before the kill.
        for times in 1.. {
            let mut run = begin(&arguments.each_ref().map(String::as_str));
            std::thread::sleep(Duration::from_millis(wait * times));
            if run.try_wait().unwrap().is_some_and(|status| status.success()) {
                break;
            }
            run.kill().unwrap();
            run.wait().unwrap();
            kills += 1;
        }
        assert!(content(&store) == content(&whole), "round {round}");
    }
    assert!(kills > 0);
    // A repeated run reports the existing store.
    let again =
        pearl(&[&extract(&whole).each_ref().map(String::as_str)[..], &["--json"]].concat()).output().unwrap();
    let line: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(
        (line["rows"].as_u64(), line["resumed"].as_u64(), line["tokens"].as_u64()),
        (Some(400), Some(400), Some(0))
    );
}

#[test]
fn another_run_in_the_same_folder_is_refused_with_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let data = world(folder.path(), 40);
    let other = folder.path().join("other.jsonl").display().to_string();
    std::fs::write(&other, "{\"prompt\": \"i see .\"}\n").unwrap();
    let out = folder.path().join("store").display().to_string();
    pearl(&["extract", "--data", &data, "--out", &out]).assert().success();
    let run = |more: &[&str], expected: &[&str]| {
        one_line(&[&["extract", "--out", &out, "--data"], more].concat(), expected);
    };
    run(&[&other], &["begun with another `data_hash`"]);
    run(&[&data, "--sites", "embed"], &["another `sites`: 6 of them", "expected 1 of them, embed"]);
    run(&[&data, "--tokens", "mean(user)"], &["another `tokens`: last; expected mean(user)"]);
    run(&[&data, "--store-dtype", "f16"], &["another `dtype`: f32; expected f16"]);
    run(&[&data, "--limit", "3"], &["another `chosen`"]);
    run(&[&data, "--model", "tests/fixtures/qwen3", "--sites", "*.resid_post"], &["begun with another `"]);
    // A folder with shards of an unknown store is refused and left unchanged.
    let unfinished = folder.path().join("unfinished");
    std::fs::create_dir(&unfinished).unwrap();
    let shard = unfinished.join("shard-00000.safetensors");
    std::fs::copy(Path::new(&out).join("shard-00000.safetensors"), &shard).unwrap();
    let arguments = ["extract", "--data", &data, "--out", unfinished.to_str().unwrap()];
    one_line(&arguments, &["shard-00000.safetensors, and no manifest"]);
    one_line(&["extract", "--data", &data, "--out", &out, "--shard", "0/4"], &["part 0/4", "I from 1 to N"]);
    one_line(
        &["extract", "--data", &data, "--tokens", "think", "--out", &format!("{out}-think")],
        &["tokens think: nothing was picked in any of 40 dialogues"],
    );
    assert!(!Path::new(&format!("{out}-think")).exists());
}

#[test]
fn merged_parts_equal_a_whole_run_and_damage_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let data = world(folder.path(), 130);
    let at = |name: &str| folder.path().join(name).display().to_string();
    let extract = |more: &[&str]| {
        let always = ["extract", "--data", &data, "--sites", "1,3.resid_post", "--tokens", "last(user,3)"];
        pearl(&[&always, more].concat()).assert().success();
    };
    let (whole, merged) = (at("whole"), at("merged"));
    extract(&["--out", &whole]);
    let parts: Vec<String> = (1..=3).map(|number| at(&format!("part-{number}"))).collect();
    for (number, part) in (1..).zip(&parts) {
        extract(&["--out", part, "--shard", &format!("{number}/3")]);
        assert!(content(Path::new(part)).len() > 1, "each part has shards");
    }
    one_line(&["store", "merge", &parts[0], &parts[2], "--out", &merged], &["part 2/3 is missing"]);
    one_line(
        &["store", "merge", &parts[0], &parts[0], "--out", &merged],
        &["part 1/3, as", "each part once"],
    );
    one_line(&["store", "merge", &whole, "--out", &merged], &["a whole store; expected a part"]);
    pearl(&["store", "merge", &parts[1], &parts[0], &parts[2], "--out", &merged]).assert().success();
    assert!(content(Path::new(&merged)) == content(Path::new(&whole)));
    pearl(&["store", "check", &merged]).assert().success();

    let assert_fault = |expected: &str| {
        let output = pearl(&["store", "check", &merged]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected), "{said}");
    };
    let shard = Path::new(&merged).join("shard-00001.safetensors");
    let bytes = std::fs::read(&shard).unwrap();
    let end = bytes.len();
    let nan = [&bytes[..end - 4], &f32::NAN.to_le_bytes()].concat();
    std::fs::write(&shard, nan).unwrap();
    assert_fault("changed since it was written");
    assert_fault("NaN at index");
    std::fs::write(&shard, &bytes[..end / 2]).unwrap();
    assert_fault("a whole safetensors file");
    std::fs::copy(Path::new(&merged).join("shard-00000.safetensors"), &shard).unwrap();
    assert_fault("after a later one; expected rows in the order of the dialogues, each once");
    std::fs::remove_file(&shard).unwrap();
    assert_fault("No such file");
    std::fs::write(&shard, bytes).unwrap();
    std::fs::write(Path::new(&merged).join("shard-00099.safetensors"), "x").unwrap();
    assert_fault("shard-00099.safetensors: a file of a run that is not in the manifest");
}

#[test]
fn a_store_is_read_a_site_at_a_time_in_any_type() {
    let folder = tempfile::tempdir().unwrap();
    let data = world(folder.path(), 70);
    let mut read: Vec<Activations> = Vec::new();
    for dtype in ["f32", "f16", "bf16"] {
        let out = folder.path().join(dtype);
        let path = out.display().to_string();
        pearl(&["extract", "--data", &data, "--out", &path, "--store-dtype", dtype]).assert().success();
        let store = Store::open(&out).unwrap();
        let (_, manifest, activations) = load(&out).unwrap();
        assert_eq!((manifest.dtype.as_str(), manifest.rows), (dtype, 70));
        let site = manifest.sites[2];
        assert_eq!(store.at(site).unwrap(), activations.at(site).unwrap());
        assert_eq!(manifest.shards.len(), 2);
        assert!(store.at(Site::Embed).is_err());
        read.push(activations);
    }
    let model = organism::model().unwrap();
    let dialogues = pearlpoint::dialogue::read(Path::new(&data), &Default::default()).unwrap().dialogues;
    let sites: Vec<Site> = read[0].sites.iter().map(|(site, _)| *site).collect();
    let request = Request::new(sites).batch_tokens(4096);
    let direct = extract(&model, &dialogues, &request, &mut |_| true).unwrap();
    for (stored, digits) in read.iter().zip([1e-5f32, 1e-3, 8e-3]) {
        assert_eq!((&stored.example, &stored.position), (&direct.example, &direct.position));
        for ((_, rows), (_, others)) in stored.sites.iter().zip(&direct.sites) {
            let most = others.iter().fold(0f32, |most, value| most.max(value.abs()));
            assert!(rows.iter().zip(others).all(|(a, b)| (a - b).abs() <= digits * most));
        }
    }
}

/// Rows keep the index of their dialogue in the file, so that labels are found after any filter, at extraction or later.
#[test]
fn rows_find_their_dialogues_after_any_filter() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.jsonl");
    let line = |n: usize| {
        format!("{{\"id\":\"{n}\",\"prompt\":\"i see .\",\"labels\":{{\"kind\":\"{}\"}}}}\n", n % 3)
    };
    let lines: Vec<String> = (0..9).map(|n| if n == 4 { "broken\n".into() } else { line(n) }).collect();
    std::fs::write(&data, lines.concat()).unwrap();
    let (path, out) = (data.display().to_string(), folder.path().join("store"));
    let where_kind = ["--where", "kind=2", "--skip-bad"];
    let arguments = ["extract", "--data", &path, "--out", out.to_str().unwrap(), "--json"];
    one_line(&arguments, &["data.jsonl:5: invalid JSON at column 1"]);
    let output = pearl(&[&arguments[..], &where_kind].concat()).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("1 bad records were left out"));
    assert_eq!(load(&out).unwrap().2.example, [2, 5, 8]);
    let options = |kind: Option<&str>| {
        let options = pearlpoint::dialogue::ReadOptions::default().skip_bad(true);
        kind.into_iter().fold(options, |options, kind| options.where_label("kind", kind))
    };
    let of = |kind: Option<&str>| {
        let states = Labelled::open(&out, pearlpoint::dialogue::read(&data, &options(kind)).unwrap())?;
        Ok::<_, pearlpoint::Error>(
            (0..states.rows()).map(|row| states.dialogue(row).id.clone()).collect::<Vec<_>>(),
        )
    };
    assert_eq!(of(None).unwrap(), ["2", "5", "8"]);
    assert_eq!(of(Some("2")).unwrap(), ["2", "5", "8"]);
    let error = of(Some("1")).err().unwrap().to_string();
    assert!(error.contains("no row of any of these dialogues"), "{error}");
}

/// A store is joined with another file by the messages: labels, ids and order may change, messages may not.
#[test]
fn labels_can_change_without_a_new_extraction() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.jsonl");
    let write = |records: &[(&str, &str, &str)]| {
        let line = |(id, prompt, kind): &(&str, &str, &str)| {
            format!("{{\"id\":\"{id}\",\"prompt\":\"{prompt}\",\"labels\":{{\"kind\":\"{kind}\"}}}}\n")
        };
        std::fs::write(&data, records.iter().map(line).collect::<String>()).unwrap();
    };
    write(&[("a", "i see .", "x"), ("b", "rest today", "y"), ("c", "i see .", "z")]);
    let (path, out) = (data.display().to_string(), folder.path().join("store"));
    let output = pearl(&["extract", "--data", &path, "--out", out.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let join = || Labelled::open(&out, pearlpoint::dialogue::read(&data, &Default::default()).unwrap());
    // Equal messages go with each other in order.
    write(&[("new", "rest today", "1"), ("d", "i see .", "2"), ("e", "else", "3"), ("f", "i see .", "4")]);
    assert_eq!(join().unwrap().labels("kind").unwrap(), ["2", "1", "4"]);
    write(&[("new", "rest today", "1")]);
    assert_eq!(join().unwrap().labels("kind").unwrap(), ["1"]);
    write(&[("d", "i see .", "2")]);
    let error = join().err().unwrap().to_string();
    assert!(error.contains("the messages of dialogue d 2 times; expected once"), "{error}");
    write(&[("d", "i see !", "2")]);
    let error = join().err().unwrap().to_string();
    assert!(error.contains("extracted from other dialogues than these"), "{error}");
    let info = String::from_utf8(pearl(&["store", "info", out.to_str().unwrap()]).output().unwrap().stdout);
    let info = info.unwrap();
    assert!(info.contains("dialogues  3, joined with labels by their messages"), "{info}");
    assert!(info.contains("model      organism"), "{info}");
}

#[test]
fn tokens_shows_what_a_selector_picks() {
    let shown = |more: &[&str]| {
        let always = ["tokens", "--prompt", "<b> rest today", "--model", "tests/fixtures/qwen3", "--tokens"];
        String::from_utf8(pearl(&[&always, more].concat()).output().unwrap().stdout).unwrap()
    };
    let text = shown(&["user"]);
    assert!(text.contains("[[<b> rest today]]"), "{text}");
    assert!(
        text.lines().any(|line| line.contains("user") && line.contains("prompt") && line.contains("[[")),
        "{text}"
    );
    assert!(shown(&["user", "--brief"]).lines().count() < text.lines().count());
    let page = shown(&["user", "--html"]);
    assert!(
        page.starts_with("<!doctype html>")
            && page.contains("&lt;b&gt;")
            && page.contains("<mark title=\"user, turn 0")
    );
    let json: serde_json::Value = serde_json::from_str(&shown(&["assistant.start", "--json"])).unwrap();
    let last = json["tokens"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (json["picked"][0].as_u64(), last["phase"].as_str()),
        (last["position"].as_u64(), Some("template"))
    );
}
