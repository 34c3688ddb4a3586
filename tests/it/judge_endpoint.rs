//! A judge behind an endpoint, played by a server in the test: verdicts, rubbish, failures that pass, and silence.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::cli::{one_line, pearl};

/// A server that answers each request with the next reply, and every further one with the last: a status and a body; none says nothing.
pub struct Endpoint {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    pub bodies: Arc<Mutex<Vec<Value>>>,
}

pub fn serve(replies: Vec<Option<(u16, String)>>) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, bodies) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let endpoint = Endpoint { address, asked: asked.clone(), bodies: bodies.clone() };
    std::thread::spawn(move || {
        let mut waiting = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut length, mut line) = (0, String::new());
            while reader.read_line(&mut line).unwrap() > 2 {
                if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
                    length = text.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            bodies.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            let number = asked.fetch_add(1, Ordering::SeqCst);
            match &replies[number.min(replies.len() - 1)] {
                Some((status, text)) => write!(
                    stream,
                    "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
                    text.len()
                )
                .unwrap(),
                None => waiting.push(stream),
            }
        }
    });
    endpoint
}

impl Endpoint {
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

pub fn completion(content: &str) -> Option<(u16, String)> {
    Some((200, json!({ "choices": [{ "message": { "content": content } }] }).to_string()))
}

pub(crate) fn verdict(class: &str, item: i8, safety: f64) -> String {
    json!({
        "verdict": class, "politeness": item, "willingness": item, "completion": item, "logic": item, "information": item,
        "safety": safety, "guideline": "support", "next_round": 0.5, "reason": "as seen"
    })
    .to_string()
}

/// Two answers in a file.
fn answers(folder: &tempfile::TempDir) -> String {
    let path = folder.path().join("answers.jsonl");
    let line = |id: &str, user: &str| {
        json!({ "id": id, "prompt": "how?", "completion": format!("answer {id}"), "labels": { "user-type": user } }).to_string()
    };
    std::fs::write(&path, format!("{}\n{}\n", line("a", "benign"), line("b", "malicious"))).unwrap();
    path.display().to_string()
}

#[test]
fn verdicts_are_taken_kept_and_never_asked_for_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (file, cache) = (answers(&folder), folder.path().join("cache").display().to_string());
    // The first try fails with a status that passes.
    let server = serve(vec![
        Some((503, String::new())),
        completion(&verdict("full_compliance", 1, 1.0)),
        completion(&verdict("full_refusal", -1, 0.5)),
    ]);
    let run = || {
        let url = server.url();
        let arguments = ["judge", "score", &file, "--judge-url", &url, "--judge-cache", &cache, "--json"];
        let output = pearl(&arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let table = run();
    let system = &table["parts"][0]["systems"][0];
    // By hand: S = 1 and −1, R = 0 and 0.5.
    assert_eq!(
        (system["satisfaction"]["value"].as_f64(), system["risk"]["value"].as_f64()),
        (Some(0.0), Some(0.25))
    );
    assert_eq!((table["judge"].as_str(), server.asked()), (Some("endpoint"), 3));
    let body = server.bodies.lock().unwrap()[0].clone();
    assert_eq!(body["response_format"]["json_schema"]["strict"], true);
    assert!(body["messages"][1]["content"].as_str().unwrap().contains("answer a"), "{body}");
    assert_eq!((run(), server.asked()), (table, 3));
}

#[test]
fn an_answer_that_is_no_verdict_is_counted_and_not_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let file = answers(&folder);
    let server = serve(vec![completion("I think it is fine."), completion(&verdict("full_refusal", 0, 1.0))]);
    let output = pearl(&["judge", &file, "--judge-url", &server.url()]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success()
            && said.contains("full_refusal       1")
            && said.contains("unparsed           1"),
        "{said}"
    );
    let server = serve(vec![completion("I think it is fine."), completion(&verdict("full_refusal", 0, 1.0))]);
    let output = pearl(&["judge", "score", &file, "--judge-url", &server.url(), "--json"]).output().unwrap();
    let table: Value = serde_json::from_slice(&output.stdout).unwrap();
    let system = &table["parts"][0]["systems"][0];
    assert_eq!(
        (system["answers"].as_u64(), system["rates"][0]["name"].as_str()),
        (Some(1), Some("unparsed"))
    );
    assert_eq!(system["rates"][0]["value"].as_f64(), Some(0.5));
}

#[test]
fn an_endpoint_that_fails_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = answers(&folder);
    let judge = |server: &Endpoint, more: &[&str], expected: &[&str]| {
        let url = server.url();
        one_line(&[&["judge", &file, "--judge-url", &url][..], more].concat(), expected);
    };
    let silent = serve(vec![None]);
    judge(
        &silent,
        &["--judge-timeout", "1", "--judge-retries", "0"],
        &["/v1/chat/completions", "no answer within 1 s (tried once)"],
    );
    let rubbish = serve(vec![Some((200, "<html>hello</html>".into()))]);
    judge(
        &rubbish,
        &["--judge-retries", "1"],
        &["<html>hello</html>", "no choices[0].message.content (tried 2 times)"],
    );
    // A wrong key stays wrong.
    let refusing = serve(vec![Some((401, String::new()))]);
    judge(&refusing, &[], &["status 401 (tried once)"]);
    one_line(&["judge", &file, "--judge-url", "localhost:1"], &["--judge-url: \"localhost:1\""]);
    one_line(&["judge", &file, "--judge", "endpoint"], &["--judge-url URL"]);
    one_line(&["judge", &file, "--judge", "rules", "--judge-url", "http://a"], &["beside a URL"]);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    one_line(
        &["judge", &file, "--judge-url", &format!("http://{closed}"), "--judge-retries", "0"],
        &["tried once", "verdicts so far are kept"],
    );
}
