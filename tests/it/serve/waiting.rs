//! Requests that wait: their bodies are bounded together, and making one ready holds up no other.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use pearlpoint::organism;
use serde_json::json;

use super::attacks::memory;
use super::client::{Served, parse, response, served};
use super::steering::folder;
use super::{asked, text, with};

/// Sends the head of a request and its body but for the last byte.
fn begun(server: &Served, body: &[u8]) -> TcpStream {
    let mut stream = server.connect();
    let length = body.len();
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    )
    .unwrap();
    stream.write_all(&body[..length - 1]).unwrap();
    stream
}

fn whole(mut stream: TcpStream) -> (u16, String) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    (parse(&all).0, String::from_utf8_lossy(&all).into_owned())
}

#[test]
fn bodies_of_all_requests_together_are_bounded() {
    let server = served(&["--max-body", "1024", "--max-requests", "2"]);
    let body = with(asked("i see ."), json!({"user": "u".repeat(900 << 10)})).to_string().into_bytes();
    let before = memory(&server);
    // Two of them fill the memory for requests, before they are whole.
    let waiting: Vec<TcpStream> = (0..2).map(|_| begun(&server, &body)).collect();
    server.wait_for("pearl_request_bytes", |held| held >= 2.0 * (body.len() - 1) as f64);
    for _ in 0..5 {
        let (status, said) = whole(server.send("/v1/chat/completions", &body));
        assert_eq!(status, 429, "{said}");
        assert!(
            said.to_lowercase().contains("\r\nretry-after: ") && said.contains("rate_limit_error"),
            "{said}"
        );
    }
    assert_eq!(server.metric("pearl_requests_refused_total"), 5.0);
    // A small one still has room.
    assert!(!text(&server.chat(&asked("i see ."))).is_empty());
    for mut stream in waiting {
        stream.write_all(&body[body.len() - 1..]).unwrap();
        assert_eq!(response(stream).0, 200);
    }
    server.wait_for("pearl_request_bytes", |held| held == 0.0);
    // Many at once, of which some break off: each is answered or told to come again, and nothing stays.
    let (answered, refused) = std::thread::scope(|scope| {
        let ask = |number: usize| {
            let (server, body) = (&server, &body);
            scope.spawn(move || match number % 4 {
                0 => {
                    drop(begun(server, body));
                    None
                }
                _ => Some(whole(server.send("/v1/chat/completions", body))),
            })
        };
        let all: Vec<_> = (0..48).map(ask).collect();
        let all: Vec<(u16, String)> = all.into_iter().filter_map(|one| one.join().unwrap()).collect();
        let count = |status: u16| all.iter().filter(|(own, _)| *own == status).count();
        (count(200), count(429))
    });
    assert!(answered > 0 && answered + refused == 36, "{answered} {refused}");
    server.wait_for("pearl_request_bytes", |held| held == 0.0);
    let grown = memory(&server).saturating_sub(before) >> 20;
    assert!(grown < 100, "{grown} MiB");
    assert_eq!(whole(server.send("/v1/chat/completions", &body)).0, 200);
}

#[test]
fn a_body_that_no_memory_holds_or_that_is_packed_is_refused_for_good() {
    let server = served(&["--max-body", "4096", "--max-requests", "1"]);
    let body = with(asked("i see ."), json!({"user": "u".repeat(2 << 20)})).to_string().into_bytes();
    assert_eq!(response(server.send("/v1/chat/completions", &body)).0, 413);
    let mut stream = server.connect();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Encoding: gzip\r\n";
    write!(stream, "{head}Content-Length: 2000000\r\n\r\n").unwrap();
    stream.write_all(&vec![0x1f; 2_000_000]).unwrap();
    let (status, said) = whole(stream);
    assert!(status == 415 && said.contains("gzip") && said.contains("not compressed"), "{said}");
}

/// A plan whose conditions read a long prompt again and again is made ready while another request comes, is answered, and goes.
#[test]
fn an_answer_is_given_while_the_steering_of_another_is_made_ready() {
    let folder = folder(&organism::model().unwrap());
    let server = served(&["--vectors", folder.path().to_str().unwrap()]);
    let own = json!({"vector": "east", "sites": "1.resid_post", "strength": "0.1n", "when": "probe mood:high > 0.2"});
    let steering = json!({"interventions": vec![own; 32]});
    let said = "i see . ".repeat(150);
    let fields = json!({"n": 8, "temperature": 1, "seed": 3, "max_tokens": 4, "steering": steering});
    let slow = with(asked(&said), fields);
    let expected = server.chat(&with(slow.clone(), json!({"n": 1})));
    let stream = server.send("/v1/chat/completions", slow.to_string().as_bytes());
    server.wait_for("pearl_preparing", |count| count == 8.0);
    let quick = with(asked("i see ."), json!({"max_tokens": 1}));
    assert_eq!(server.chat(&quick)["usage"]["completion_tokens"], 1);
    assert_eq!(server.metric("pearl_preparing"), 8.0);
    stream.set_nonblocking(true).unwrap();
    assert_eq!(stream.peek(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    let (status, body) = response(stream);
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, text(&body)), (200, text(&expected)));
    assert_eq!(server.metric("pearl_preparing"), 0.0);
    // A client that hangs up meanwhile gives its places back.
    drop(server.send("/v1/chat/completions", slow.to_string().as_bytes()));
    server.wait_for("pearl_preparing", |count| count == 0.0);
    server.wait_for("pearl_request_bytes", |held| held == 0.0);
    assert_eq!(server.metric("pearl_answers_failed_total"), 0.0);
}
