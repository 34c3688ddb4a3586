//! Sizes that a file claims: whatever number stands under an integer key of a config or of GGUF metadata, the program
//! answers with one line and exit code 2, or with its answer, in 200 MB and 2 s.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cli::pearl;

const VALUES: [u64; 6] = [0, 1, 65_537, 40_000_000, 1 << 31, 1 << 63];
/// Bytes of memory that a child may have in use at most.
const MOST_MEMORY: u64 = 200 << 20;
/// Seconds on the processor that it may take.
const MOST_SECONDS: f64 = 2.0;
/// The time after which it is taken to hang, and killed.
const MOST_WAIT: std::time::Duration = std::time::Duration::from_secs(60);

/// Runs the program. Its peak of memory is read while it runs, for that of a child includes the parent's on Linux.
#[cfg(target_os = "linux")]
#[expect(clippy::zombie_processes, reason = "wait4 waits for it, and tells the time it took")]
fn run(arguments: &[&str]) {
    let out = tempfile::NamedTempFile::new().unwrap();
    let child = Command::new(pearl(&[]).get_program())
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::from(out.reopen().unwrap()))
        .spawn()
        .unwrap();
    let (pid, mut peak, begun) = (child.id() as libc::pid_t, 0, std::time::Instant::now());
    let status = format!("/proc/{pid}/status");
    let mut code = 0;
    // SAFETY: a zeroed rusage is valid, and the pointers live as long as the call.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    while unsafe { libc::wait4(pid, &mut code, libc::WNOHANG, &mut usage) } == 0 {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        // Until its own image is in place, the child is seen with the parent's memory and under a name of the parent.
        let is_own = status.lines().next().is_some_and(|name| name.ends_with("\tpearl"));
        let high = status.lines().filter(|_| is_own).find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = high.and_then(|high| high.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(kilobytes.unwrap_or(0) << 10);
        if peak > 4 * MOST_MEMORY || begun.elapsed() > MOST_WAIT {
            // SAFETY: the child is ours, and not waited for yet.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        std::thread::sleep(std::time::Duration::from_micros(500));
    }
    let said = std::fs::read_to_string(out.path()).unwrap();
    let seconds = [usage.ru_utime, usage.ru_stime].map(|time| time.tv_sec as f64 + time.tv_usec as f64 / 1e6);
    assert!(libc::WIFEXITED(code), "{arguments:?}: a signal, {said}");
    match libc::WEXITSTATUS(code) {
        0 => (),
        2 => assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}"),
        code => panic!("{arguments:?}: exit code {code}, {said}"),
    }
    assert!(peak <= MOST_MEMORY, "{arguments:?}: {} MB, {said}", peak >> 20);
    assert!(seconds.iter().sum::<f64>() <= MOST_SECONDS, "{arguments:?}: {seconds:?} s, {said}");
}

/// The places of all integers in a JSON value.
fn integers(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(number) if number.is_u64() || number.is_i64() => found.push(at.into()),
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| integers(value, &format!("{at}/{key}"), found));
        }
        Value::Array(list) => {
            list.iter()
                .enumerate()
                .for_each(|(index, value)| integers(value, &format!("{at}/{index}"), found));
        }
        _ => (),
    }
}

#[cfg(target_os = "linux")]
#[test]
fn every_integer_of_every_familys_config() {
    let root = tempfile::tempdir().unwrap();
    // One of each family: the others' names have a dash.
    let names = crate::model::families();
    let names = names.iter().filter(|name| !name.contains('-'));
    let mut folders: Vec<PathBuf> = names.map(|name| Path::new("tests/fixtures").join(name)).collect();
    folders.extend(["qwen3", "llama3"].map(|name| Path::new("tests/fixtures").join(name)));
    for (number, from) in folders.iter().enumerate() {
        let folder = root.path().join(number.to_string());
        std::fs::create_dir(&folder).unwrap();
        for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
            let own = from.join(file);
            let from = if own.is_file() { own } else { Path::new("tests/fixtures/qwen3").join(file) };
            std::fs::copy(from, folder.join(file)).unwrap();
        }
        let config: Value =
            serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap();
        let mut places = Vec::new();
        integers(&config, "", &mut places);
        let path = folder.display().to_string();
        let generates = from.ends_with("qwen3") || from.ends_with("llama3");
        for place in places {
            for value in VALUES {
                let mut config = config.clone();
                *config.pointer_mut(&place).unwrap() = value.into();
                std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
                match generates {
                    true => run(&["generate", "--model", &path, "--prompt", "a", "--max-tokens", "2"]),
                    false => run(&["inspect", &path]),
                }
            }
        }
    }
}

/// The places of the integers among a GGUF file's pairs: key, offset, and width in bytes.
fn pairs(bytes: &[u8]) -> Vec<(String, usize, usize)> {
    let word = |at: usize, width: usize| {
        let mut word = [0; 8];
        word[..width].copy_from_slice(&bytes[at..at + width]);
        u64::from_le_bytes(word) as usize
    };
    fn size(kind: usize) -> usize {
        match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            _ => 8,
        }
    }
    let (mut at, mut found) = (24, Vec::new());
    for _ in 0..word(16, 8) {
        let length = word(at, 8);
        let key = String::from_utf8(bytes[at + 8..at + 8 + length].to_vec()).unwrap();
        at += 8 + length;
        let kind = word(at, 4);
        at += 4;
        match kind {
            8 => at += 8 + word(at, 8),
            9 => {
                let (kind, count) = (word(at, 4), word(at + 4, 8));
                // The first value of a list, and how long it claims to be.
                found.push((format!("{key}, its length"), at + 4, 8));
                at += 12;
                if kind != 8 && kind != 6 && kind != 7 && count > 0 {
                    found.push((format!("{key}, its first"), at, size(kind)));
                }
                for _ in 0..count {
                    at += if kind == 8 { 8 + word(at, 8) } else { size(kind) };
                }
            }
            0..=5 | 10 | 11 => {
                found.push((key, at, size(kind)));
                at += size(kind);
            }
            _ => at += size(kind),
        }
    }
    found
}

#[cfg(target_os = "linux")]
#[test]
fn every_integer_of_gguf_metadata() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("model.gguf");
    let names = [
        "llama",
        "llama-yarn",
        "qwen2",
        "qwen3_moe",
        "gemma2",
        "gemma3",
        "phi3-long",
        "olmo2",
        "gpt2",
        "gpt_neox",
        "mixtral",
        "ministral3",
        "granitemoe",
        "qwen2_moe",
        "olmo3",
        "glm4_moe-groups",
        "gpt_oss",
        "cohere2",
        "stablelm-parallel",
    ];
    let mut tried = 0;
    for name in names.map(String::from).into_iter().chain(["qwen3.q4_0".into(), "llama.q8_0".into()]) {
        let whole = std::fs::read(format!("tests/fixtures/gguf/{name}.gguf")).unwrap();
        for (_, at, width) in pairs(&whole) {
            for value in VALUES {
                let mut bytes = whole.clone();
                bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
                std::fs::write(&path, bytes).unwrap();
                run(&[
                    "generate",
                    "--model",
                    &path.display().to_string(),
                    "--prompt",
                    "Hello",
                    "--max-tokens",
                    "2",
                ]);
                tried += 1;
            }
        }
    }
    assert!(tried > 1500, "{tried}");
}
