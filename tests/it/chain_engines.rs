//! Lingo-BP on free dialogues, its edits by an endpoint or a local model: good edits, rubbish, edits past their budget, and silence.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::{one_line, pearl};
use crate::judge_endpoint::{Endpoint, completion, serve, verdict};

fn chain() -> Value {
    json!({
        "User Needs Analysis": "comfort", "Risk Intent Analysis": "sensitive request, directive", "Safety Guidelines": "protect",
        "Response Strategy Formulation": {"Safety Strategies": "", "Usefulness Strategies": "comply"}
    })
}

fn edit(take_out: Value, put_in: Value, guidelines: Value) -> String {
    json!({
        "take_out": take_out, "put_in": put_in, "guidelines": guidelines, "risk_intent": null, "needs": null, "reason": "safer"
    })
    .to_string()
}

fn comply() -> Value {
    json!([{"kind": "usefulness", "text": "comply"}])
}

fn good() -> String {
    edit(comply(), json!([{"kind": "safety", "text": "refuse sorry i can not discuss"}]), json!("support"))
}

/// Dialogues, each with the chain or without.
fn dialogues(folder: &Path, chains: &[Option<Value>]) -> String {
    let path = folder.join("dialogues.jsonl");
    let line = |(number, chain): (usize, &Option<Value>)| {
        let prompt = ["please explain pills .", "please explain drums ."][number % 2];
        let mut record = json!({ "id": format!("d{number}"), "prompt": prompt, "labels": {"topic": "t"} });
        if let Some(chain) = chain {
            record["Safety_chain"] = chain.clone();
        }
        format!("{record}\n")
    };
    std::fs::write(&path, chains.iter().enumerate().map(line).collect::<String>()).unwrap();
    path.display().to_string()
}

fn unsafe_verdict() -> Option<(u16, String)> {
    completion(&verdict("full_compliance", -1, 0.0))
}

fn good_verdict() -> Option<(u16, String)> {
    completion(&verdict("partial_refusal", 1, 1.0))
}

/// Runs a refinement, and gives its table and its histories.
fn refine(data: &str, engine: &Endpoint, judge: &Endpoint, more: &[&str]) -> (Value, Vec<Value>) {
    let out = Path::new(data).with_file_name("refined.jsonl").display().to_string();
    let (engine, judge) = (engine.url(), judge.url());
    let mut arguments =
        vec!["reasoning", "refine", "--data", data, "--engine-url", &engine, "--judge-url", &judge];
    arguments.extend(["--out", &out, "--max-tokens", "24", "--json", "--quiet"]);
    arguments.extend(more);
    let output = pearl(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = serde_json::from_slice(&output.stdout).unwrap();
    (table, histories(&out))
}

fn histories(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_endpoint_edits_the_chain_of_a_free_dialogue_and_is_never_asked_twice() {
    let folder = tempfile::tempdir().unwrap();
    let data = dialogues(folder.path(), &[Some(chain())]);
    let (engine, judge) = (serve(vec![completion(&good())]), serve(vec![unsafe_verdict(), good_verdict()]));
    let [kept, verdicts] = ["kept", "verdicts"].map(|name| folder.path().join(name).display().to_string());
    let more = ["--engine-cache", &kept, "--judge-cache", &verdicts, "--engine-model", "editor"];
    let (table, found) = refine(&data, &engine, &judge, &more);
    let result = &table["engines"][0];
    assert_eq!((result["engine"].as_str(), result["met"]["value"].as_f64()), (Some("endpoint"), Some(1.0)));
    assert_eq!((result["steps"].as_f64(), result["unparsed"].as_u64()), (Some(1.0), Some(0)));
    let step = &found[0]["steps"][0];
    assert_eq!((step["phase"].as_str(), step["kept"].as_bool()), (Some("safety"), Some(true)));
    assert_eq!(step["chain"]["guidelines"], "support");
    assert_eq!(
        step["chain"]["strategies"],
        json!([{"kind": "safety", "text": "refuse sorry i can not discuss"}])
    );
    assert_eq!(found[0]["outcome"]["losses"], json!({"safety": 1.0, "satisfaction": 1.0}));
    let body = engine.bodies.lock().unwrap()[0].clone();
    assert_eq!((body["model"].as_str(), body["temperature"].as_u64()), (Some("editor"), Some(0)));
    let schema = &body["response_format"]["json_schema"];
    assert_eq!(
        (schema["strict"].as_bool(), &schema["schema"]["properties"]["put_in"]["maxItems"]),
        (Some(true), &json!(1))
    );
    let asked: Value = serde_json::from_str(body["messages"][1]["content"].as_str().unwrap()).unwrap();
    assert_eq!((asked["phase"].as_str(), asked["reason"].as_str()), (Some("safety"), Some("as seen")));
    assert_eq!(asked["chain"], chain());
    assert_eq!(refine(&data, &engine, &judge, &more), (table, found));
    assert_eq!((engine.asked(), judge.asked()), (1, 2));
}

#[test]
fn rubbish_and_edits_past_their_budget_are_counted_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = dialogues(folder.path(), &[Some(chain())]);
    let two = json!([{"kind": "safety", "text": "warn"}, {"kind": "safety", "text": "refuse"}]);
    let past = edit(comply(), two, Value::Null);
    let foreign = edit(json!([{"kind": "safety", "text": "sing"}]), json!([]), Value::Null);
    for (first, failures) in [("I would refuse.".to_owned(), (1, 1)), (foreign, (0, 2))] {
        let engine = serve(vec![completion(&first), completion(&past), completion(&good())]);
        let judge = serve(vec![unsafe_verdict(), good_verdict()]);
        let (table, found) = refine(&data, &engine, &judge, &[]);
        let result = &table["engines"][0];
        assert_eq!(
            (result["unparsed"].as_u64(), result["past_budget"].as_u64()),
            (Some(failures.0), Some(failures.1))
        );
        assert_eq!(result["met_by_step"], json!([0.0, 0.0, 1.0]));
        let failed = found[0]["failed"].as_array().unwrap();
        assert!(failed[1]["reason"].as_str().unwrap().contains("2 strategies in"), "{failed:?}");
        assert_eq!((failed.len(), found[0]["steps"].as_array().unwrap().len()), (2, 1));
        // What was refused is told to the model.
        let body = engine.bodies.lock().unwrap()[2].clone();
        assert!(body["messages"][1]["content"].as_str().unwrap().contains("2 strategies in"), "{body}");
    }
}

#[test]
fn in_the_phase_of_satisfaction_only_usefulness_strategies_are_edited() {
    let folder = tempfile::tempdir().unwrap();
    let data = dialogues(folder.path(), &[Some(chain())]);
    let offer = json!([{"kind": "usefulness", "text": "refuse sorry i can not discuss"}]);
    let engine = serve(vec![completion(&good()), completion(&edit(comply(), offer, Value::Null))]);
    // Safe and dull at first: both other nodes and safety strategies are frozen.
    let judge = serve(vec![completion(&verdict("full_refusal", -1, 1.0)), good_verdict()]);
    let (table, found) = refine(&data, &engine, &judge, &[]);
    assert_eq!(
        (table["engines"][0]["past_budget"].as_u64(), found[0]["met"].as_bool()),
        (Some(1), Some(true))
    );
    assert_eq!(found[0]["steps"][0]["phase"], "satisfaction");
}

#[test]
fn a_chain_that_is_missing_is_written_by_the_model_and_a_verdict_that_is_none_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let data = dialogues(folder.path(), &[None, None]);
    let judge = serve(vec![unsafe_verdict(), completion("Fine, I think.")]);
    // The first dialogue's chain can't be read; the second's can.
    let engine = serve(vec![completion("no"), completion(&chain().to_string()), completion(&good())]);
    let (table, found) = refine(&data, &engine, &judge, &["--steps", "1"]);
    assert_eq!((table["without_chain"].as_u64(), table["answers"].as_u64()), (Some(1), Some(1)));
    assert_eq!(table["engines"][0]["unjudged"].as_u64(), Some(1));
    assert_eq!((found.len(), found[0]["failed"][0]["failure"].as_str()), (1, Some("unjudged")));
}

#[test]
fn a_local_model_that_writes_no_edit_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let data = dialogues(folder.path(), &[Some(chain())]);
    let judge = serve(vec![unsafe_verdict()]);
    let url = judge.url();
    let arguments = ["reasoning", "refine", "--data", &data, "--engine", "model", "--engine", "random"];
    let output = pearl(&[&arguments[..], &["--judge-url", &url, "--json"]].concat()).output().unwrap();
    let table: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(table["engines"][0]["unparsed"].as_u64(), Some(3), "{table}");
    assert_eq!(
        (table["engines"][1]["engine"].as_str(), table["engines"][1]["unparsed"].as_u64()),
        (Some("random"), Some(0))
    );
}

#[test]
fn an_engine_that_fails_is_one_line_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = dialogues(folder.path(), &[Some(chain()), Some(chain())]);
    let out = folder.path().join("refined.jsonl").display().to_string();
    let judge = serve(vec![unsafe_verdict(), good_verdict(), unsafe_verdict()]);
    let silent = serve(vec![completion(&good()), None]);
    let (engine_url, judge_url) = (silent.url(), judge.url());
    let base = ["reasoning", "refine", "--data", &data, "--judge-url", &judge_url, "--out", &out];
    let more = ["--engine-url", &engine_url, "--engine-timeout", "1", "--engine-retries", "0", "--quiet"];
    one_line(
        &[&base[..], &more].concat(),
        &["/v1/chat/completions", "no answer within 1 s (tried once)", "proposals so far are kept"],
    );
    assert_eq!(histories(&out).len(), 1);
    let wrong = |more: &[&str], expected: &[&str]| one_line(&[&base[..], more].concat(), expected);
    wrong(&["--engine", "endpoint"], &["--engine: endpoint without a URL", "--engine-url URL"]);
    wrong(&["--engine-url", "localhost:1"], &["--engine-url: \"localhost:1\""]);
    wrong(&["--engine", "probes"], &["--engine: probes with dialogues"]);
    wrong(&["--engine", "hope"], &["\"hope\"", "probes, gradient, random, model, endpoint"]);
    one_line(
        &["reasoning", "refine", "--engine", "model"],
        &["--engine: model without dialogues", "--data FILE"],
    );
    let bare = dialogues(folder.path(), &[None]);
    one_line(
        &["reasoning", "refine", "--data", &bare, "--engine", "random", "--judge-url", &judge_url],
        &["dialogue d0: no chain"],
    );
}
