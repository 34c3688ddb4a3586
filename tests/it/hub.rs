//! Fetching of models, by the program, from a server in the test that answers as the hub does.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use safetensors::SafeTensors;
use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::cli::pearl;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

type Files = BTreeMap<String, Vec<u8>>;

/// How the hub behaves.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Well,
    /// Answers everything with this status.
    Refuses(u16),
    /// Lists the files, and serves them only with the token `hf_secret`.
    Gated,
    /// Sends half of the weights, once, and from then on closes without a byte.
    BreaksOff,
    /// Sends fewer bytes of the weights than it lists, as a complete answer.
    Short,
    /// Sends as many bytes of the weights as it lists, one of them wrong.
    Damaged,
    /// Sends more of the weights than it lists.
    Long,
    /// Sends those who ask for a file to another server.
    Elsewhere(SocketAddr),
    /// Redirects without saying where to.
    Nowhere,
    /// Names a commit, files and tags that lead out of the cache.
    Climbs,
    /// Takes the question and says nothing.
    Silent,
    /// Sends a byte of a file now and then.
    Trickles,
    /// Packs what it sends, though nobody asked for that.
    Packs,
    /// Lists files without end.
    ListsOn,
}

#[derive(Clone, Debug)]
struct Request {
    path: String,
    /// The first byte requested, and the last one, if there is a limit.
    range: (usize, Option<usize>),
    token: Option<String>,
}

struct Hub {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Request>>>,
    mood: Arc<Mutex<Mood>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hub {
    fn new(files: Files) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, mood, ends) = (Arc::default(), Arc::new(Mutex::new(Mood::Well)), Arc::default());
        let mut hub = Hub { address, heard, mood, ends, thread: None };
        let (heard, mood, ends) = (hub.heard.clone(), hub.mood.clone(), hub.ends.clone());
        hub.thread = Some(std::thread::spawn(move || {
            // Connections without an answer stay open until the end.
            let mut waiting = Vec::new();
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    break;
                }
                let mut stream = stream.unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                let Some(request) = read(&stream) else { continue };
                heard.lock().unwrap().push(request.clone());
                let mood = *mood.lock().unwrap();
                if mood == Mood::Trickles && request.path.contains("/resolve/") {
                    drop(std::thread::spawn(move || trickle(stream)));
                    continue;
                }
                match answer(&files, mood, &request) {
                    // The client may have disconnected.
                    Some(answer) => drop(stream.write_all(&answer)),
                    None => waiting.push(stream),
                }
            }
        }));
        hub
    }

    fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
        self.heard.lock().unwrap().clear();
    }

    fn heard(&self) -> Vec<Request> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // Wakes the server, which then sees that it is to end.
        drop(TcpStream::connect(self.address));
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut request = Request { path, range: (0, None), token: None };
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ")?;
        match name.to_lowercase().as_str() {
            "range" => {
                let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
                request.range = (first.parse().ok()?, last.parse().ok());
            }
            "authorization" => request.token = value.strip_prefix("Bearer ").map(String::from),
            _ => {}
        }
    }
    Some(request)
}

/// A file of which ten bytes come in a second, until the client has gone.
fn trickle(mut stream: TcpStream) {
    let head = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n";
    let mut sent = stream.write_all(head);
    while sent.is_ok() {
        std::thread::sleep(Duration::from_millis(100));
        sent = stream.write_all(b"x");
    }
}

fn answer(files: &Files, mood: Mood, request: &Request) -> Option<Vec<u8>> {
    let respond = |status: &str, headers: &str, length: usize, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status}\r\nX-Repo-Commit: {COMMIT}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        Some([head.as_bytes(), body].concat())
    };
    match mood {
        Mood::Silent => return None,
        Mood::Packs => return respond("200 OK", "Content-Encoding: gzip\r\n", 4, b"\x1f\x8b\x08\0"),
        Mood::ListsOn => {
            let one = br#"{"rfilename":"a"},"#.repeat(1 << 21);
            let body = [br#"{"sha":"0123456789","siblings":["#, &one[..]].concat();
            return respond("200 OK", "", body.len() + 1, &body);
        }
        Mood::Refuses(status) => return respond(&format!("{status} No"), "", 0, b""),
        _ => {}
    }
    let listed = ["main", "v1%2Fa", COMMIT].map(|name| format!("/api/models/some/model/revision/{name}"));
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    if listed.iter().any(|known| known == path) {
        assert_eq!(query, "blobs=true");
        let siblings: Vec<_> = files.iter().map(listed_file).collect();
        let sha = if mood == Mood::Climbs { "../../../x" } else { COMMIT };
        let body = json!({"sha": sha, "siblings": siblings}).to_string();
        return respond("200 OK", "", body.len(), body.as_bytes());
    }
    let file = path.strip_prefix(&format!("/some/model/resolve/{COMMIT}/"));
    let Some((name, bytes)) = file.and_then(|name| files.get_key_value(name)) else {
        return respond("404 Not Found", "", 0, b"");
    };
    if mood == Mood::Gated && request.token.as_deref() != Some("hf_secret") {
        return respond("403 Forbidden", "", 0, b"");
    }
    match mood {
        Mood::Elsewhere(other) => {
            return respond("302 Found", &format!("Location: http://{other}{path}\r\n"), 0, b"");
        }
        Mood::Nowhere => return respond("302 Found", "", 0, b""),
        _ => {}
    }
    let weights = name.ends_with(".safetensors");
    let mut bytes = bytes.clone();
    match mood {
        Mood::Short if weights => bytes.truncate(bytes.len() - 10),
        Mood::Long if weights => bytes.extend([0; 10]),
        Mood::Damaged if weights => *bytes.last_mut().unwrap() ^= 1,
        _ => {}
    }
    let (from, last) = request.range;
    let end = last.map_or(bytes.len(), |last| last + 1);
    // Nothing that these headers say is a name that a client should use.
    let tag = "/tmp/../../etag";
    let headers =
        format!("ETag: \"{tag}\"\r\nContent-Range: bytes {from}-{}/{}\r\n", end.max(1) - 1, bytes.len());
    let sent = match mood {
        Mood::BreaksOff if weights && from == 0 => end / 2,
        Mood::BreaksOff if weights => from,
        _ => end,
    };
    respond("206 Partial Content", &headers, end - from, &bytes[from..sent])
}

/// A file as the hub lists it: weights by the hash of their content, what git itself holds by git's.
fn listed_file((name, bytes): (&String, &Vec<u8>)) -> serde_json::Value {
    let blob = format!(
        "{:x}",
        Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize()
    );
    let mut file = json!({"rfilename": name, "size": bytes.len(), "blobId": blob});
    if name.ends_with(".safetensors") || name.ends_with(".gguf") {
        file["lfs"] = json!({"sha256": format!("{:x}", Sha256::digest(bytes)), "size": bytes.len()});
    }
    file
}

/// The small Qwen3 checkpoint, in a repository with further files that aren't needed.
fn repository() -> Files {
    let mut files = Files::new();
    for name in
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    {
        files.insert(name.into(), std::fs::read(Path::new("tests/fixtures/qwen3").join(name)).unwrap());
    }
    for name in ["README.md", "pytorch_model.bin", "onnx/model.safetensors"] {
        files.insert(name.into(), b"nobody needs it".to_vec());
    }
    files
}

/// The same with its weights in two files and an index.
fn sharded() -> Files {
    let mut files = repository();
    let whole = files.remove("model.safetensors").unwrap();
    let tensors = SafeTensors::deserialize(&whole).unwrap();
    let mut names = tensors.names();
    names.sort();
    let mut index = serde_json::Map::new();
    for (number, names) in names.chunks(names.len().div_ceil(2)).enumerate() {
        let file = format!("model-0000{}-of-00002.safetensors", number + 1);
        let part = names.iter().map(|name| (name.to_string(), tensors.tensor(name).unwrap()));
        files.insert(file.clone(), safetensors::serialize(part, None).unwrap());
        index.extend(names.iter().map(|name| (name.to_string(), json!(file))));
    }
    let index = json!({"weight_map": index}).to_string();
    files.insert("model.safetensors.index.json".into(), index.into_bytes());
    files
}

/// Runs `pearl inspect` with `home` as the client's folder.
fn inspect(hub: &Hub, home: &Path, name: &str, set: &[(&str, &str)]) -> Result<serde_json::Value, String> {
    let mut command = pearl(&["inspect", "--json", "--hash", name]);
    command.env_clear().env("HF_HOME", home).env("HF_ENDPOINT", format!("http://{}", hub.address));
    let output = command.envs(set.iter().copied()).timeout(Duration::from_secs(60)).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    match output.status.code() {
        Some(0) => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        code => {
            let error = said.lines().last().unwrap_or_default().to_owned();
            // The size to fetch is a remark; the error is one line.
            let errors = said.lines().filter(|line| !line.ends_with(" to fetch")).count();
            assert_eq!((code, errors, output.stdout.is_empty()), (Some(2), 1, true), "{said}");
            Err(error)
        }
    }
}

fn snapshot(home: &Path) -> PathBuf {
    home.join("hub/models--some--model/snapshots").join(COMMIT)
}

/// Files of the snapshot.
fn held(home: &Path) -> Files {
    let entries = std::fs::read_dir(snapshot(home)).unwrap().map(Result::unwrap);
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

/// The weights' hash of the small Qwen3 checkpoint.
fn hash_of_fixture() -> serde_json::Value {
    let output = pearl(&["inspect", "--json", "--hash", "tests/fixtures/qwen3"]).output().unwrap();
    serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["hash"].clone()
}

#[test]
fn a_model_is_fetched_once_and_only_what_it_needs() {
    let (hub, home) = (Hub::new(repository()), tempfile::tempdir().unwrap());
    let facts = inspect(&hub, home.path(), "some/model", &[]).unwrap();
    assert_eq!((facts["family"].as_str(), &facts["hash"]), (Some("qwen3"), &hash_of_fixture()));
    let mut expected = repository();
    expected.retain(|name, bytes| !name.contains('/') && bytes != b"nobody needs it");
    assert_eq!(held(home.path()), expected);
    let folder = home.path().join("hub/models--some--model");
    assert_eq!(std::fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(std::fs::read_dir(folder.join("refs")).unwrap().count(), 1);
    assert!(!hub.heard().is_empty() && hub.heard().iter().all(|request| request.token.is_none()));
    hub.is(Mood::Refuses(500));
    inspect(&hub, home.path(), "some/model", &[]).unwrap();
    assert_eq!(hub.heard().len(), 0, "what is in the cache is not asked for");
}

#[test]
fn shards_and_revisions_are_fetched() {
    let (hub, home) = (Hub::new(sharded()), tempfile::tempdir().unwrap());
    let facts = inspect(&hub, home.path(), "some/model@v1/a", &[]).unwrap();
    assert_eq!(facts["family"], "qwen3");
    assert_eq!(held(home.path()).keys().filter(|name| name.ends_with(".safetensors")).count(), 2);
    let refs = home.path().join("hub/models--some--model/refs");
    assert_eq!(std::fs::read_to_string(refs.join("v1/a")).unwrap(), COMMIT);
    assert!(!refs.join("main").exists());
    // A snapshot that lacks a file is incomplete.
    std::fs::remove_file(snapshot(home.path()).join("model-00002-of-00002.safetensors")).unwrap();
    hub.is(Mood::Well);
    inspect(&hub, home.path(), "some/model@v1/a", &[]).unwrap();
    assert_eq!(hub.heard().iter().filter(|request| request.path.contains("00001-of")).count(), 0);
}

#[test]
fn a_repository_of_one_gguf_file_is_that_file() {
    let gguf = |name: &str| (name.to_owned(), std::fs::read("tests/fixtures/gguf/qwen3.q4_0.gguf").unwrap());
    let (one, home) = (Hub::new([gguf("a.gguf")].into()), tempfile::tempdir().unwrap());
    assert_eq!(inspect(&one, home.path(), "some/model", &[]).unwrap()["dtype"], "q4_0");
    let (two, home) = (Hub::new([gguf("a.gguf"), gguf("b.gguf")].into()), tempfile::tempdir().unwrap());
    let error = inspect(&two, home.path(), "some/model", &[]).unwrap_err();
    assert!(error.contains("2 GGUF files") && error.contains("`hf download some/model a.gguf`"), "{error}");
    for (name, expected) in [
        ("README.md", "no safetensors and no GGUF file"),
        ("pytorch_model.bin", "pytorch_model.bin, a pickle of PyTorch, which is not read"),
        ("adapter_config.json", "an adapter for another model"),
    ] {
        let other = Hub::new(Files::from([(name.to_owned(), vec![0])]));
        let error = inspect(&other, home.path(), "some/model", &[]).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn all_parts_of_a_split_gguf_file_are_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let parts = crate::gguf_split::parts(Path::new("tests/fixtures/gguf/qwen3.q4_0.gguf"), folder.path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut files: Files = parts.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect();
    let (hub, home) = (Hub::new(files.clone()), tempfile::tempdir().unwrap());
    assert_eq!(inspect(&hub, home.path(), "some/model", &[]).unwrap()["dtype"], "q4_0");
    files.remove(&name(&parts[1]));
    let (hub, home) = (Hub::new(files), tempfile::tempdir().unwrap());
    let error = inspect(&hub, home.path(), "some/model", &[]).unwrap_err();
    assert!(error.contains("the repository has no model-00002-of-00003.gguf"), "{error}");
}

#[test]
fn a_gated_model_asks_for_a_token_where_the_client_keeps_it() {
    let (hub, home) = (Hub::new(repository()), tempfile::tempdir().unwrap());
    hub.is(Mood::Gated);
    let error = inspect(&hub, home.path(), "some/model", &[]).unwrap_err();
    let file = home.path().join("token");
    let expected = ["answers 403", "needs a token", "HF_TOKEN", &file.display().to_string()];
    assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    let error = inspect(&hub, home.path(), "some/model", &[("HF_TOKEN", "hf_other")]).unwrap_err();
    assert!(error.contains("with your token") && !error.contains("hf_other"), "{error}");
    std::fs::write(&file, "hf_secret\n").unwrap();
    inspect(&hub, home.path(), "some/model", &[]).unwrap();
}

#[test]
fn a_hub_that_has_no_answer_is_refused_in_one_line() {
    let (hub, home) = (Hub::new(repository()), tempfile::tempdir().unwrap());
    let says = |name: &str, set: &[(&str, &str)], parts: &[&str]| {
        let error = inspect(&hub, home.path(), name, set).unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{parts:?}: {error}");
    };
    says("some/other", &[], &["some/other: ", "no such model or revision"]);
    for (status, part) in [(401, "needs a token"), (503, "answers 503")] {
        hub.is(Mood::Refuses(status));
        says("some/model", &[], &["some/model: ", part]);
    }
    hub.is(Mood::Silent);
    says("some/model", &[("HF_HUB_DOWNLOAD_TIMEOUT", "1")], &["sent nothing for 1 s"]);
    hub.is(Mood::Packs);
    says("some/model", &[], &["packed as \"gzip\", which was not asked for"]);
    hub.is(Mood::ListsOn);
    says("some/model", &[], &["a list of more than 33554432 bytes"]);
    hub.is(Mood::Trickles);
    says("some/model", &[("HF_HUB_DOWNLOAD_TIMEOUT", "2")], &["bytes of a file in 2 s, fewer than 16384"]);
    hub.is(Mood::Well);
    // What trickled left a folder without a snapshot.
    says("some/model", &[("HF_HUB_OFFLINE", "1")], &["the hub's cache", "holds nothing, not main"]);
    says("some/new", &[("HF_HUB_OFFLINE", "1")], &["not in the hub's cache"]);
    assert_eq!(hub.heard().len(), 0, "the network was forbidden");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("http://{nobody}");
    says("some/model", &[("HF_ENDPOINT", &nobody)], &["can't be reached", &nobody, "not in the hub's cache"]);
}

#[test]
fn a_download_that_breaks_off_leaves_no_model_and_goes_on() {
    let (hub, home) = (Hub::new(repository()), tempfile::tempdir().unwrap());
    hub.is(Mood::BreaksOff);
    let error = inspect(&hub, home.path(), "some/model", &[]).unwrap_err();
    assert!(error.contains("download of model.safetensors broke off"), "{error}");
    assert!(!home.path().join("hub/models--some--model/refs/main").exists());
    assert!(!held(home.path()).contains_key("model.safetensors"));
    hub.is(Mood::Well);
    let facts = inspect(&hub, home.path(), "some/model", &[]).unwrap();
    assert_eq!(facts["hash"], hash_of_fixture());
    let weights = |request: &Request| request.path.ends_with(".safetensors") && request.range.1.is_none();
    let from: Vec<usize> = hub.heard().into_iter().filter(weights).map(|request| request.range.0).collect();
    assert!(matches!(from.as_slice(), [from] if *from > 0), "it went on from {from:?}");
}

#[test]
fn a_file_that_is_not_the_listed_one_is_thrown_away() {
    let (hub, home) = (Hub::new(repository()), tempfile::tempdir().unwrap());
    for (mood, part) in [
        (Mood::Short, "download of model.safetensors broke off"),
        (Mood::Long, "more than the"),
        (Mood::Damaged, "content with hash"),
    ] {
        hub.is(mood);
        let error = inspect(&hub, home.path(), "some/model", &[]).unwrap_err();
        assert!(error.contains(part), "{error}");
        assert!(!held(home.path()).contains_key("model.safetensors"));
        assert!(!home.path().join("hub/models--some--model/refs/main").exists());
    }
    hub.is(Mood::Well);
    assert_eq!(inspect(&hub, home.path(), "some/model", &[]).unwrap()["hash"], hash_of_fixture());
}

#[test]
fn the_token_stays_with_the_hub_when_it_redirects() {
    let (hub, other) = (Hub::new(repository()), Hub::new(repository()));
    let home = tempfile::tempdir().unwrap();
    hub.is(Mood::Elsewhere(other.address));
    let facts = inspect(&hub, home.path(), "some/model", &[("HF_TOKEN", "hf_secret")]).unwrap();
    assert_eq!(facts["hash"], hash_of_fixture());
    assert!(hub.heard().iter().all(|request| request.token.as_deref() == Some("hf_secret")));
    let elsewhere = other.heard();
    assert!(
        !elsewhere.is_empty() && elsewhere.iter().all(|request| request.token.is_none()),
        "{elsewhere:?}"
    );
    // A server that redirects to itself is the same origin, and no endless one.
    let home = tempfile::tempdir().unwrap();
    hub.is(Mood::Elsewhere(hub.address));
    let error = inspect(&hub, home.path(), "some/model", &[]).unwrap_err();
    assert!(error.contains("more than 10 redirects"), "{error}");
    hub.is(Mood::Nowhere);
    let error = inspect(&hub, home.path(), "some/model", &[]).unwrap_err();
    assert!(error.contains("without a Location"), "{error}");
}

#[test]
fn no_name_of_the_hub_leads_out_of_the_cache() {
    let (hub, home) = (Hub::new(repository()), tempfile::tempdir().unwrap());
    hub.is(Mood::Climbs);
    let error = inspect(&hub, home.path(), "some/model", &[]).unwrap_err();
    assert!(error.contains("answers commit \"../../../x\""), "{error}");
    let mut files = sharded();
    let index = r#"{"weight_map": {"a": "../../../../../escaped.safetensors"}}"#;
    files.insert("model.safetensors.index.json".into(), index.into());
    files.insert("../../../../../escaped.safetensors".into(), b"outside".to_vec());
    let hub = Hub::new(files);
    let error = inspect(&hub, home.path(), "some/model", &[]).unwrap_err();
    assert!(error.contains("names of files beside the index"), "{error}");
    let entries = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(entries.collect::<Vec<_>>(), ["hub"]);
}
