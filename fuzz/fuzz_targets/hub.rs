//! Answers of the hub: a loopback server sends the input's pieces, parted by a line `----`, one for each request.
#![no_main]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Mutex, OnceLock};

use libfuzzer_sys::fuzz_target;
use pearlpoint::model::fetch;

static ANSWERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn serve() {
    static PORT: OnceLock<()> = OnceLock::new();
    PORT.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        // No other thread runs yet.
        unsafe {
            std::env::set_var("HF_ENDPOINT", endpoint);
            std::env::set_var("HF_HOME", pearlpoint_fuzz::folder());
            std::env::set_var("HF_HUB_DOWNLOAD_TIMEOUT", "2");
        }
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let answer = ANSWERS.lock().expect("no panic inside").pop();
                let (mut request, mut head) = ([0u8; 1024], Vec::<u8>::new());
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut request) {
                        Ok(length) if length > 0 => head.extend(&request[..length]),
                        _ => break,
                    }
                }
                let _ = stream.write_all(&answer.unwrap_or_default());
            }
        });
    });
}

fuzz_target!(|bytes: &[u8]| {
    serve();
    let mut answers = vec![vec![]];
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match line {
            b"----\n" => answers.push(vec![]),
            line => answers.last_mut().expect("never empty").extend(line),
        }
    }
    answers.reverse();
    *ANSWERS.lock().expect("no panic inside") = answers;
    let _ = std::fs::remove_dir_all(pearlpoint_fuzz::folder().join("hub"));
    let _ = fetch("org/name", &mut |_| true);
});
