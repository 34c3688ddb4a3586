//! What all connections share: the model, the library, the queue, and the bounds of everything that a client can ask for.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::http::HeaderValue;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::budget::Budget;
use super::error::ApiError;
use super::job::Job;
use super::library::Library;
use super::metrics::Metrics;
use super::queue::{Places, Queue, Refused};
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
    /// Bytes of all requests that are read, wait or are answered at a time: bodies, and the tokens of their prompts.
    pub held: usize,
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
            // Several of the largest bodies and many of the usual ones.
            held: 128 << 20,
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
    pub queue: Arc<Queue<Job>>,
    /// The bytes that requests hold.
    pub budget: Arc<Budget>,
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

    /// Takes places in the queue for answers that are made ready meanwhile.
    pub fn reserve(&self, count: usize) -> std::result::Result<Places<Job>, ApiError> {
        self.queue.reserve(count).map_err(|refused| self.refusal(refused))
    }

    /// Puts work into places that were taken for it.
    pub fn fill(&self, places: Places<Job>, jobs: Vec<Job>) -> std::result::Result<(), ApiError> {
        places.fill(jobs).map_err(|refused| self.refusal(refused))
    }

    /// Puts work into the queue.
    pub fn submit(&self, job: Job) -> std::result::Result<(), ApiError> {
        self.fill(self.reserve(1)?, vec![job])
    }

    fn refusal(&self, refused: Refused) -> ApiError {
        match refused {
            Refused::Closed => ApiError::stopping(),
            Refused::Full => {
                self.metrics.refused.add(1);
                let limit = self.limits.queue;
                ApiError::busy(format_args!("the queue is full ({limit} answers wait); try again soon"), 1)
            }
        }
    }

    /// What a future gives within the time that a request has.
    pub async fn in_time<T>(&self, future: impl Future<Output = T>) -> std::result::Result<T, ApiError> {
        timeout(self.limits.timeout, future).await.map_err(|_| self.late())
    }

    /// The error of a request that took its whole time.
    pub fn late(&self) -> ApiError {
        let seconds = self.limits.timeout.as_secs();
        ApiError::timeout(format_args!("no answer within {seconds} s, the server's limit"))
    }
}

/// Requests that are read and written at once; a long one takes the processor and many times its size in memory.
static READ: Semaphore = Semaphore::const_new(4);

/// Requests whose steering is made ready at once: the model reads their prompts, beside the engine's own passes.
static STEERED: Semaphore = Semaphore::const_new(2);

/// Runs work that takes the processor for a while, away from the connections and the engine, a few at a time.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, ApiError> + Send + 'static,
) -> std::result::Result<T, ApiError> {
    blocking_of(&READ, work).await
}

/// As [`blocking`], for steering, so that it doesn't keep requests waiting that have none.
pub(super) async fn blocking_steering<T: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, ApiError> + Send + 'static,
) -> std::result::Result<T, ApiError> {
    blocking_of(&STEERED, work).await
}

async fn blocking_of<T: Send + 'static>(
    places: &'static Semaphore,
    work: impl FnOnce() -> std::result::Result<T, ApiError> + Send + 'static,
) -> std::result::Result<T, ApiError> {
    // The semaphores are never closed.
    let permit = places.acquire().await.map_err(ApiError::server)?;
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
