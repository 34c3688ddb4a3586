//! An OpenAI-compatible server with steering and readings per request.
//!
//! Requests come over HTTP; one engine owns the model and decodes their rows side by side, each with its own plan. What a row is answered
//! doesn't depend on the other rows.
//!
//! - [`Library`]: the vectors, probes and plans that requests name. [`Limits`]: bounds of everything that a client can ask for.
//! - [`Session`]: a dialogue of many rounds without a server. [`Server`]: the whole; [`Server::run`] serves until it is told to stop.

mod error;
mod queue;
mod prefix_store;
mod metrics;
mod library;
mod readings;
mod steering;
mod row_hooks;
mod steered_row;
mod session;
mod budget;
mod payload;
mod job;
mod engine;
mod shared;
mod request;
mod score;
mod answers;
mod chat;
mod completions;
mod hidden_states;
mod models;
mod openapi;
mod timed_stream;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::HeaderValue;
pub use library::Library;
pub use readings::{ProbeReadings, PromptToken, Reading, TurnReading, Verdict};
pub use session::{Round, Session};
pub use shared::Limits;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::model::Model;
use engine::Engine;
use shared::Shared;

/// A server that hasn't begun.
#[must_use]
pub struct Server {
    model: Arc<Model>,
    library: Library,
    limits: Limits,
    address: SocketAddr,
    id: Option<String>,
    key: Option<String>,
    origin: Option<String>,
    thinking: Option<bool>,
    log: Box<dyn Fn(String) + Send + Sync>,
}

/// Shortest key, in characters: fewer can be guessed.
const SHORTEST_KEY: usize = 8;

impl Server {
    /// A server of a model on this machine's own address, without a key.
    pub fn new(model: Model) -> Server {
        Server {
            model: Arc::new(model),
            library: Library::default(),
            limits: Limits::default(),
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            id: None,
            key: None,
            origin: None,
            thinking: None,
            log: Box::new(|_| {}),
        }
    }

    /// Sets what requests may name.
    pub fn library(self, library: Library) -> Server {
        Server { library, ..self }
    }

    /// Sets the bounds.
    pub fn limits(self, limits: Limits) -> Server {
        Server { limits, ..self }
    }

    /// Sets the address; port 0 takes a free one.
    pub fn address(self, address: SocketAddr) -> Server {
        Server { address, ..self }
    }

    /// Sets the model's id, in place of the last part of its name.
    pub fn id(self, id: Option<String>) -> Server {
        Server { id, ..self }
    }

    /// Sets the key that requests must have.
    pub fn key(self, key: Option<String>) -> Server {
        Server { key, ..self }
    }

    /// Sets the one foreign origin whose pages may use the server.
    pub fn origin(self, origin: Option<String>) -> Server {
        Server { origin, ..self }
    }

    /// Sets the chat template's thinking mode, where a request doesn't.
    pub fn thinking(self, thinking: Option<bool>) -> Server {
        Server { thinking, ..self }
    }

    /// Hears a line a request: method, path, status and time, never a text.
    pub fn log(self, log: impl Fn(String) + Send + Sync + 'static) -> Server {
        Server { log: Box::new(log), ..self }
    }

    /// Serves until `should_continue` is false or the process is told to end (SIGTERM), and then until the answers that are under way are
    /// given. `on_ready` gets the address. The engine runs on this thread.
    ///
    /// # Errors
    /// A model that doesn't answer; an address that isn't this machine's own without a key; an address that is taken.
    pub fn run(
        self,
        on_ready: impl FnOnce(SocketAddr) -> Result<()>,
        should_continue: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<()> {
        self.model.decoder.expect_logits()?;
        let is_loopback = self.address.ip().is_loopback();
        if !is_loopback && self.key.is_none() {
            let expected = "a key (--key-file FILE or PEARL_API_KEY), or an address of this machine alone, such as 127.0.0.1";
            return Err(Error::input(format!("address {}", self.address), "no key", expected));
        }
        if let Some(key) = &self.key
            && (key.len() < SHORTEST_KEY || !key.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            let expected = format!("{SHORTEST_KEY} characters or more, visible ASCII without spaces");
            return Err(Error::input("the key", format!("{} bytes", key.len()), expected));
        }
        let origin = self.origin.as_deref().map(|origin| {
            let value = HeaderValue::from_str(origin).ok().filter(|_| origin.starts_with("http"));
            value.ok_or_else(|| {
                Error::input("--allow-origin", origin, "an origin such as https://example.org")
            })
        });
        let name = self.model.name.trim_end_matches('/');
        let id = self.id.unwrap_or_else(|| name.rsplit('/').next().unwrap_or(name).to_owned());
        let shared = Arc::new(Shared {
            id,
            fingerprint: format!(
                "pearl-{}-{}",
                env!("CARGO_PKG_VERSION"),
                crate::artifact::short(&self.model.hash)
            ),
            queue: Arc::new(queue::Queue::new(self.limits.queue)),
            budget: budget::Budget::new(self.limits.held),
            metrics: metrics::Metrics::default(),
            model: self.model,
            library: self.library,
            // A body that all memory for requests can't hold is too large.
            limits: Limits { body: self.limits.body.min(self.limits.held), ..self.limits },
            thinking: self.thinking,
            key: self.key,
            origin: origin.transpose()?,
            log: self.log,
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            is_aborted: AtomicBool::new(false),
            is_loopback,
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Error::input("threads", error, "room for two more"))?;
        let listener = runtime.block_on(server::bind(self.address))?;
        let address =
            listener.local_addr().map_err(|error| Error::input("address", error, "one that is bound"))?;
        let (stop, stopped) = watch::channel(false);
        let serving = runtime.spawn(server::serve(listener, shared.clone(), stopped));
        runtime.spawn(wait_for_end(should_continue, stop));
        on_ready(address)?;
        let limits = engine::Limits {
            rows: shared.limits.rows.max(1),
            pass_tokens: shared.limits.pass_tokens,
            cache_bytes: shared.limits.cache_bytes,
        };
        let is_aborted = || shared.is_aborted.load(Ordering::SeqCst);
        Engine::new(&shared.model, &shared.queue, &shared.metrics, limits).run(&is_aborted);
        shared.queue.clear();
        // Every connection is done, or its time is over.
        let _ = runtime.block_on(serving);
        runtime.shutdown_timeout(Duration::from_secs(1));
        Ok(())
    }
}

/// How often it is asked whether the server goes on.
const ASKED: Duration = Duration::from_millis(100);

/// Sets `stop` once the process is told to end.
async fn wait_for_end(should_continue: impl Fn() -> bool + Send + Sync, stop: watch::Sender<bool>) {
    #[cfg(unix)]
    let mut signal = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
    loop {
        #[cfg(unix)]
        let ended = match &mut signal {
            Some(signal) => tokio::time::timeout(ASKED, signal.recv()).await.is_ok(),
            None => {
                tokio::time::sleep(ASKED).await;
                false
            }
        };
        #[cfg(not(unix))]
        let ended = {
            tokio::time::sleep(ASKED).await;
            false
        };
        if ended || !should_continue() {
            // Nobody may listen any more.
            let _ = stop.send(true);
            return;
        }
    }
}
