//! A server in a process of its own, and an HTTP client of a few lines.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// A running server. It is killed when it is dropped.
pub struct Served {
    pub address: String,
    pub child: Child,
    pub key: Option<String>,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server of the organism with further arguments.
pub fn served(arguments: &[&str]) -> Served {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("pearl"));
    command.args(["serve", "--port", "0", "--quiet"]).args(arguments).env_remove("PEARL_API_KEY");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("http://").unwrap_or_else(|| panic!("{line:?}")).to_owned();
    Served { address, child, key: None }
}

impl Served {
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    fn head(&self, method: &str, path: &str) -> String {
        let key = self.key.as_ref().map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
        format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{key}", self.address)
    }

    /// Sends a request with a body on a connection of its own.
    pub fn send(&self, path: &str, body: &[u8]) -> TcpStream {
        let mut stream = self.connect();
        let head = self.head("POST", path);
        write!(stream, "{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len())
            .unwrap();
        stream.write_all(body).unwrap();
        stream
    }

    pub fn post_bytes(&self, path: &str, body: &[u8]) -> (u16, String) {
        let (status, body) = response(self.send(path, body));
        (status, String::from_utf8(body).unwrap())
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, body) = self.post_bytes(path, body.to_string().as_bytes());
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status} {body}")))
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        let mut stream = self.connect();
        write!(stream, "{}\r\n", self.head("GET", path)).unwrap();
        let (status, body) = response(stream);
        (status, String::from_utf8(body).unwrap())
    }

    pub fn get_json(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.get(path);
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status} {body}")))
    }

    /// A dialogue's answer.
    pub fn chat(&self, request: &Value) -> Value {
        let (status, body) = self.post("/v1/chat/completions", request);
        assert_eq!(status, 200, "{request}: {body}");
        body
    }

    /// The chunks of a stream.
    pub fn stream(&self, path: &str, request: &Value) -> Vec<Value> {
        let (status, body) = self.post_bytes(path, request.to_string().as_bytes());
        assert_eq!(status, 200, "{request}: {body}");
        let lines: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let (last, chunks) = lines.split_last().unwrap();
        assert_eq!(*last, "[DONE]", "{body}");
        chunks.iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect()
    }

    /// A number of the metrics.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").1;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
    }

    /// Waits until a number of the metrics is as it should be.
    pub fn wait_for(&self, name: &str, is_right: impl Fn(f64) -> bool) {
        for _ in 0..400 {
            if is_right(self.metric(name)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("{name} is {}", self.metric(name));
    }
}

/// Status and body of a response, until the connection ends.
pub fn response(mut stream: TcpStream) -> (u16, Vec<u8>) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    parse(&all)
}

/// Status and body of a whole response.
pub fn parse(all: &[u8]) -> (u16, Vec<u8>) {
    let end = all
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(all)));
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut rest = &all[end + 4..];
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return (status, rest.to_vec());
    }
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|two| two == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        body.extend_from_slice(&rest[line + 2..line + 2 + length]);
        rest = &rest[line + 4 + length..];
    }
    (status, body)
}
