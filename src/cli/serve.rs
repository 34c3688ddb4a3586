//! `pearl serve`: an OpenAI-compatible server with steering and readings per request.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::console::Console;
use super::model::ModelChoice;
use super::output::{Outcome, print_line};
use pearlpoint::artifact;
use pearlpoint::serve::{Library, Limits, Server};

#[derive(Args)]
#[command(after_help = "Example:
  pearl serve --model organism --vectors vectors --port 8080

Then: curl http://127.0.0.1:8080/v1/chat/completions -d '{\"messages\": [{\"role\": \"user\", \"content\": \"i see .\"}]}'
docs/serve.md has the fields of requests. The key is read from --key-file or from the variable PEARL_API_KEY.")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelChoice,
    /// The model's id in requests [default: the last part of its name]
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// Address; any but this machine's own (127.0.0.1, ::1) needs a key
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port; 0 takes a free one. The address is printed
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Folder of vectors, probes (*.safetensors) and plans (*.toml, *.json), which requests name by their files' names; may be repeated
    #[arg(long, value_name = "DIR")]
    vectors: Vec<PathBuf>,
    /// File that holds the key which requests must have
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Origin whose pages may use the server, such as `https://example.org`
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Option<String>,
    /// Write a line a request to stderr: method, path, status, time; never a text
    #[arg(long)]
    log: bool,
    #[command(flatten)]
    limits: LimitArguments,
}

/// Bounds of what clients can ask for.
#[derive(Args)]
struct LimitArguments {
    /// Answers that are decoded side by side
    #[arg(long, default_value_t = Limits::default().rows as u32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    rows: u32,
    /// Answers that wait; with more, requests are refused (429)
    #[arg(long, default_value_t = Limits::default().queue)]
    queue: usize,
    /// Tokens of an answer, at most
    #[arg(long, default_value_t = Limits::default().answer_tokens)]
    max_tokens: usize,
    /// Tokens of prompt and answer together [default: the model's context]
    #[arg(long, value_name = "TOKENS")]
    context: Option<usize>,
    /// Tokens of prompts in one pass: with fewer, a long prompt keeps other answers waiting less
    #[arg(long, default_value_t = Limits::default().pass_tokens)]
    batch_tokens: usize,
    /// Memory for the beginnings of prompts, in MiB; 0 for none
    #[arg(long, default_value_t = Limits::default().cache_bytes >> 20)]
    cache: usize,
    /// Largest body of a request, in KiB
    #[arg(long, default_value_t = Limits::default().body >> 10)]
    max_body: usize,
    /// Largest size of all requests that are read, wait or are answered at a time, in MiB; with more, requests are refused (429)
    #[arg(long, default_value_t = Limits::default().held >> 20)]
    max_requests: usize,
    /// Open connections, at most
    #[arg(long, default_value_t = Limits::default().connections)]
    connections: usize,
    /// Seconds in which a request must be answered to the last token
    #[arg(long, default_value_t = Limits::default().timeout.as_secs(), value_name = "SECONDS")]
    timeout: u64,
    /// Seconds in which a request's head, and then its body, must arrive
    #[arg(long, default_value_t = Limits::default().read_timeout.as_secs(), value_name = "SECONDS")]
    read_timeout: u64,
    /// Seconds that answers under way have once the server is told to stop
    #[arg(long, default_value_t = Limits::default().drain.as_secs(), value_name = "SECONDS")]
    drain: u64,
}

impl From<LimitArguments> for Limits {
    fn from(own: LimitArguments) -> Limits {
        Limits {
            rows: own.rows as usize,
            queue: own.queue,
            answer_tokens: own.max_tokens,
            default_tokens: Limits::default().default_tokens.min(own.max_tokens),
            context: own.context,
            pass_tokens: own.batch_tokens,
            cache_bytes: own.cache.saturating_mul(1 << 20),
            body: own.max_body.saturating_mul(1 << 10),
            held: own.max_requests.saturating_mul(1 << 20),
            connections: own.connections,
            timeout: Duration::from_secs(own.timeout),
            read_timeout: Duration::from_secs(own.read_timeout),
            drain: Duration::from_secs(own.drain),
            ..Limits::default()
        }
    }
}

/// The variable that holds the key.
const KEY: &str = "PEARL_API_KEY";

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let key = match &arguments.key_file {
        Some(file) => Some(artifact::read_text(file)?.trim().to_owned()),
        None => std::env::var(KEY).ok().filter(|key| !key.is_empty()),
    };
    let model = arguments.model.load(console)?;
    model.decoder.expect_logits()?;
    let library = Library::read(&arguments.vectors, &model, &|remark| console.say(remark))?;
    let mut server = Server::new(model)
        .library(library)
        .limits(arguments.limits.into())
        .address(SocketAddr::new(arguments.host, arguments.port))
        .id(arguments.id)
        .key(key)
        .origin(arguments.allow_origin)
        .thinking(arguments.model.thinking());
    if arguments.log {
        server = server.log(super::complain);
    }
    // Ctrl-C lets the answers that are under way end; a second one doesn't.
    console.end();
    let ready = |address: SocketAddr| {
        print_line(format_args!("http://{address}"))
            .map_err(|error| pearlpoint::Error::input("stdout", error, "one that can be written"))
    };
    server.run(ready, console.stop_signal())?;
    Ok(Outcome::Done)
}
