//! What all connections share: the model, the library, the queue, and the bounds of everything that a client can ask for.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::HeaderValue;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::error::ApiError;
use super::job::Job;
use super::library::Library;
use super::metrics::Metrics;
use super::queue::{Queue, Refused};
use crate::model::Model;

/// Bounds of the server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Rows that are decoded side by side.
    pub rows: usize,
    /// Answers that wait for a row; with more, requests are refused.
    pub queue: usize,
    /// Answers to one prompt.
    pub choices: usize,
    /// Answers of one request.
    pub request_rows: usize,
    /// Tokens of an answer, at most.
    pub answer_tokens: usize,
    /// Tokens of an answer where a request doesn't say.
    pub default_tokens: usize,
    /// Tokens of prompt and answer together, where fewer than the model's context.
    pub context: Option<usize>,
    /// Tokens of prompts in one pass.
    pub pass_tokens: usize,
    /// Bytes of a request's body.
    pub body: usize,
    /// Numbers of one request for hidden states.
    pub state_numbers: usize,
    /// Bytes of kept prefixes.
    pub cache_bytes: usize,
    /// Open connections.
    pub connections: usize,
    /// The time in which a request's head, and then its body, must arrive, and in which a client must take some of what it is sent.
    pub read_timeout: Duration,
    /// The time in which a request must be answered, to the last token.
    pub timeout: Duration,
    /// The time that running answers have once the server is told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // Decoding is bound by reading the weights, which rows share.
            rows: 32,
            queue: 256,
            choices: 16,
            request_rows: 64,
            answer_tokens: 16_384,
            default_tokens: 1024,
            context: None,
            // As many as take about as long as a few tokens of a full batch.
            pass_tokens: 512,
            body: 4 << 20,
            state_numbers: 1 << 24,
            cache_bytes: 256 << 20,
            connections: 1024,
            read_timeout: Duration::from_secs(20),
            timeout: Duration::from_secs(600),
            drain: Duration::from_secs(30),
        }
    }
}

/// What every connection sees.
pub(super) struct Shared {
    pub model: Arc<Model>,
    /// The model's id.
    pub id: String,
    /// Changes with the weights and the program's version.
    pub fingerprint: String,
    pub library: Library,
    pub queue: Queue<Job>,
    pub metrics: Metrics,
    pub limits: Limits,
    /// The template's thinking mode, where a request doesn't say.
    pub thinking: Option<bool>,
    /// The key that requests must have.
    pub key: Option<String>,
    /// The one foreign origin whose pages may read answers.
    pub origin: Option<HeaderValue>,
    /// Hears a line a request.
    pub log: Box<dyn Fn(String) + Send + Sync>,
    /// Seconds since 1970 at which the server began.
    pub created: u64,
    /// Whether what isn't done is given up.
    pub is_aborted: AtomicBool,
    /// Whether the address is this machine's own.
    pub is_loopback: bool,
}

impl Shared {
    /// Refuses another model's name.
    pub fn check_model(&self, name: Option<&str>) -> std::result::Result<(), ApiError> {
        match name {
            None | Some("") => Ok(()),
            Some(name) if name == self.id || name == self.model.name => Ok(()),
            Some(name) => {
                let message = format!("the model {name:?} does not exist; expected {}", self.id);
                Err(ApiError::not_found(message, "model_not_found").param("model"))
            }
        }
    }

    /// Tokens of prompt and answer together, at most.
    pub fn context(&self) -> usize {
        let own = self.model.decoder.architecture().longest();
        self.limits.context.map_or(own, |limit| limit.min(own))
    }

    /// Puts work into the queue.
    pub fn submit(&self, jobs: Vec<Job>) -> std::result::Result<(), ApiError> {
        self.queue.push(jobs).map_err(|refused| match refused {
            Refused::Closed => ApiError::stopping(),
            Refused::Full => {
                self.metrics.refused.add(1);
                let limit = self.limits.queue;
                ApiError::busy(format_args!("the queue is full ({limit} answers wait); try again soon"), 1)
            }
        })
    }

    /// What a future gives within the time that a request has.
    pub async fn in_time<T>(&self, future: impl Future<Output = T>) -> std::result::Result<T, ApiError> {
        let limit = self.limits.timeout;
        timeout(limit, future).await.map_err(|_| {
            ApiError::timeout(format_args!("no answer within {} s, the server's limit", limit.as_secs()))
        })
    }
}

/// Requests that are read and written at once; a long one takes the processor and many times its size in memory.
static PREPARED: Semaphore = Semaphore::const_new(4);

/// Runs work that takes the processor for a while, away from the connections, a few at a time.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, ApiError> + Send + 'static,
) -> std::result::Result<T, ApiError> {
    // The semaphore is never closed.
    let permit = PREPARED.acquire().await.map_err(ApiError::server)?;
    let work = move || {
        // Work that goes on after its client hung up still counts.
        let _permit = permit;
        work()
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::server("a failure inside the server")),
    }
}

/// The body of a request, within its limits.
pub(super) struct Payload(pub Bytes);

/// Bytes of a body that is too large that are still read, so that the client can read why it is refused.
const DRAINED: usize = 256 << 20;

impl FromRequest<Arc<Shared>> for Payload {
    type Rejection = ApiError;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> std::result::Result<Payload, ApiError> {
        let limit = shared.limits.body;
        let seconds = shared.limits.read_timeout;
        let read = timeout(seconds, read_body(request.into_body(), limit)).await;
        read.unwrap_or_else(|_| {
            Err(ApiError::timeout(format_args!("the body did not arrive within {} s", seconds.as_secs())))
        })
        .map(Payload)
    }
}

async fn read_body(mut body: Body, limit: usize) -> std::result::Result<Bytes, ApiError> {
    let (mut bytes, mut length) = (Vec::new(), 0usize);
    while let Some(frame) =
        std::future::poll_fn(|context| std::pin::Pin::new(&mut body).poll_frame(context)).await
    {
        let frame = frame.map_err(|error| ApiError::invalid(format_args!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        match length <= limit {
            true => bytes.extend_from_slice(&data),
            false => bytes = Vec::new(),
        }
        if length > DRAINED {
            break;
        }
    }
    match length <= limit {
        true => Ok(bytes.into()),
        false => {
            Err(ApiError::too_large(format_args!("a body of more than {limit} bytes, the server's limit")))
        }
    }
}
