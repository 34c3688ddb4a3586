//! Clients that mean harm, or that go away: limits hold, and the server goes on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::{Served, parse, response, served};
use super::{asked, text, with};
use crate::cli::one_line;

/// A request that takes a while.
fn long() -> serde_json::Value {
    with(
        asked("i see ."),
        json!({"max_tokens": 480, "temperature": 2, "seed": 1, "stream": true, "stop": null, "n": 8}),
    )
}

fn still_answers(server: &Served) {
    assert!(!text(&server.chat(&asked("i see ."))).is_empty());
}

#[test]
fn hostile_bytes_are_refused_and_the_server_goes_on() {
    let server = served(&["--max-body", "64"]);
    let deep = |open: &str, close: &str| {
        let deep = open.repeat(8_000);
        format!("{{\"messages\": [{{\"role\": \"user\", \"content\": {deep}{}}}]}}", close.repeat(8_000))
    };
    let bodies: Vec<(Vec<u8>, u16)> = vec![
        (b"".to_vec(), 400),
        (b"{".to_vec(), 400),
        (b"null".to_vec(), 400),
        (b"[1, 2".to_vec(), 400),
        (b"{\"messages\": [{\"role\": \"user\", \"content\": \"\xff\xfe\"}]}".to_vec(), 400),
        (b"{\"messages\": [{\"role\": \"user\", \"content\": \"\\ud800\"}]}".to_vec(), 400),
        (b"{\"messages\": []} {}".to_vec(), 400),
        (b"\xff\xfe\x00".to_vec(), 400),
        (deep("[", "]").into_bytes(), 400),
        (deep("{\"a\":", "}").into_bytes(), 400),
        (vec![b' '; 65 << 10], 413),
    ];
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/hidden_states"] {
        for (body, status) in &bodies {
            let (found, said) = server.post_bytes(path, body);
            assert_eq!(
                found,
                *status,
                "{path} {:?}: {said}",
                String::from_utf8_lossy(&body[..body.len().min(60)])
            );
            assert!(said.contains("\"error\""), "{said}");
        }
    }
    // A hundred megabytes, of which none is kept.
    let before = memory(&server);
    let (status, _) = server.post_bytes("/v1/chat/completions", &vec![b'['; 100 << 20]);
    assert_eq!(status, 413);
    assert!(memory(&server) < before + (32 << 20), "{} {before}", memory(&server));
    for head in [
        "GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "GET /v1/models/..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: -5\r\n\r\n",
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nhello",
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "\u{0}\u{1}\u{2}\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
    ] {
        let mut stream = server.connect();
        stream.write_all(head.as_bytes()).unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(
            said.is_empty() || (400..500).contains(&parse(&said).0),
            "{head}: {}",
            String::from_utf8_lossy(&said)
        );
        assert!(!String::from_utf8_lossy(&said).contains("root:"));
    }
    let mut stream = server.connect();
    let head = format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    let _ = stream.write_all(head.as_bytes());
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    assert!(said.is_empty() || parse(&said).0 == 431, "{}", String::from_utf8_lossy(&said));
    still_answers(&server);
}

/// Resident memory of the server, in bytes.
pub fn memory(server: &Served) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[test]
fn connections_that_dawdle_are_closed() {
    let server = served(&["--read-timeout", "1", "--connections", "8"]);
    let begin = Instant::now();
    // One sends nothing, one half a head, one a byte now and then, one half a body.
    let idle = server.connect();
    let mut half = server.connect();
    half.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nHost: loc").unwrap();
    let mut body = server.connect();
    body.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        .unwrap();
    let mut loris = server.connect();
    let dripping = std::thread::spawn(move || {
        let head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: ";
        for byte in head.iter().chain(std::iter::repeat(&b'a')) {
            if loris.write_all(&[*byte]).is_err() || begin.elapsed() > Duration::from_secs(20) {
                return begin.elapsed();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        begin.elapsed()
    });
    for mut stream in [idle, half] {
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
    }
    assert_eq!(response(body).0, 408);
    assert!(dripping.join().unwrap() < Duration::from_secs(10));
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    // The connections beyond the limit are closed at once; those within it are served again afterwards.
    let many: Vec<TcpStream> = (0..20).map(|_| server.connect()).collect();
    std::thread::sleep(Duration::from_millis(1500));
    drop(many);
    server.wait_for("pearl_connections", |open| open <= 1.0);
    still_answers(&server);
}

#[test]
fn a_client_that_hangs_up_frees_its_rows() {
    let server = served(&["--rows", "8"]);
    let mut stream = server.send("/v1/chat/completions", long().to_string().as_bytes());
    let mut first = [0; 200];
    stream.read_exact(&mut first).unwrap();
    drop(stream);
    server.wait_for("pearl_rows", |rows| rows == 0.0);
    let whole = with(long(), json!({"stream": false}));
    let stream = server.send("/v1/chat/completions", whole.to_string().as_bytes());
    std::thread::sleep(Duration::from_millis(30));
    drop(stream);
    server.wait_for("pearl_rows", |rows| rows == 0.0);
    server.wait_for("pearl_connections", |open| open <= 1.0);
    still_answers(&server);
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let server = served(&["--rows", "1", "--queue", "4"]);
    let statuses: Vec<(u16, bool)> = std::thread::scope(|scope| {
        let ask = |_| {
            scope.spawn(|| {
                let request = with(asked("i see ."), json!({"temperature": 1, "n": 2}));
                let mut all = Vec::new();
                server
                    .send("/v1/chat/completions", request.to_string().as_bytes())
                    .read_to_end(&mut all)
                    .unwrap();
                let retry = String::from_utf8_lossy(&all).to_lowercase().contains("\r\nretry-after: ");
                (parse(&all).0, retry)
            })
        };
        let asked: Vec<_> = (0..40).map(ask).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(
        statuses.iter().all(|(status, retry)| (*status == 200) != (*status == 429 && *retry)),
        "{statuses:?}"
    );
    let answered = statuses.iter().filter(|(status, _)| *status == 200).count();
    assert!((1..40).contains(&answered), "{answered}");
    assert_eq!(server.metric("pearl_requests_refused_total"), (40 - answered) as f64);
    still_answers(&server);
}

#[test]
fn a_slow_answer_ends_in_time() {
    let server = served(&["--timeout", "0"]);
    let (status, body) = server.post("/v1/chat/completions", &asked("i see ."));
    assert_eq!((status, body["error"]["type"].as_str().unwrap()), (408, "timeout_error"));
    server.wait_for("pearl_rows", |rows| rows == 0.0);
}

#[test]
fn keys_hosts_and_origins_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "secret-key-1\n").unwrap();
    let mut server = served(&["--key-file", &file.display().to_string()]);
    for key in [
        None,
        Some(""),
        Some("secret-key-2"),
        Some("secret-key-"),
        Some("secret-key-11"),
        Some("SECRET-KEY-1"),
    ] {
        server.key = key.map(str::to_owned);
        for path in ["/v1/models", "/metrics", "/v1/pearl", "/openapi.json"] {
            assert_eq!(server.get(path).0, 401, "{key:?} {path}");
        }
        let (status, body) = server.post("/v1/chat/completions", &asked("a"));
        assert_eq!((status, body["error"]["code"].as_str().unwrap()), (401, "invalid_api_key"));
        assert_eq!(server.get("/health").0, 200);
    }
    server.key = Some("secret-key-1".into());
    still_answers(&server);
    // Off this machine a key is needed, and a key that can be guessed is none.
    one_line(&["serve", "--host", "0.0.0.0", "--port", "0"], &["0.0.0.0:0", "no key", "127.0.0.1"]);
    std::fs::write(&file, "short").unwrap();
    one_line(
        &["serve", "--port", "0", "--key-file", &file.display().to_string()],
        &["the key", "8 characters"],
    );
    one_line(&["serve", "--port", "0", "--vectors", "no/such/folder"], &["no/such/folder", "No such file"]);

    let server = served(&["--allow-origin", "https://good.example"]);
    let asks = |headers: &str| {
        let mut stream = server.connect();
        write!(stream, "GET /v1/models HTTP/1.1\r\nConnection: close\r\n{headers}\r\n").unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        (
            parse(&all).0,
            String::from_utf8_lossy(&all)
                .to_lowercase()
                .contains("access-control-allow-origin: https://good.example"),
        )
    };
    let address = &server.address;
    assert_eq!(asks(&format!("Host: {address}\r\n")), (200, false));
    assert_eq!(asks(&format!("Host: {address}\r\nOrigin: http://{address}\r\n")), (200, false));
    assert_eq!(asks(&format!("Host: {address}\r\nOrigin: https://good.example\r\n")), (200, true));
    assert_eq!(asks(&format!("Host: {address}\r\nOrigin: https://bad.example\r\n")), (403, false));
    // A foreign name that was made to lead to this machine.
    assert_eq!(asks("Host: bad.example\r\n").0, 400);
}

#[cfg(unix)]
#[test]
fn a_server_that_is_told_to_end_gives_its_last_answers() {
    let mut server = served(&[]);
    let request = with(long(), json!({"n": 1, "max_tokens": 400, "stream": true}));
    let mut stream = server.send("/v1/chat/completions", request.to_string().as_bytes());
    let mut said = vec![0; 300];
    stream.read_exact(&mut said).unwrap();
    // SAFETY: the process is this test's child.
    unsafe { libc::kill(server.child.id() as i32, libc::SIGTERM) };
    stream.read_to_end(&mut said).unwrap();
    let (status, body) = parse(&said);
    assert_eq!((status, String::from_utf8(body).unwrap().trim_end().ends_with("data: [DONE]")), (200, true));
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert!(TcpStream::connect(&server.address).is_err());
}
