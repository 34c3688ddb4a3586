//! Work for the engine, and what it tells of it: an answer that is asked for, its steps and its end, and work done between them.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::budget::Share;
use super::error::ApiError;
use super::queue::Work;
use super::readings::Read;
use super::steered_row::SteeredRow;
use crate::dialogue::Dialogue;
use crate::generate::{GenerateOptions, TokenLogits, Transcript};
use crate::model::{Model, Phase, Token};
use crate::steer::TraceEntry;

/// Work for the engine.
pub(super) enum Job {
    /// An answer.
    Answer(Box<AnswerJob>),
    /// Work that is done between the tokens of answers.
    Aside(Box<dyn Aside>),
}

/// Work that is done in short parts, between the passes of the batch.
pub(super) trait Aside: Send {
    /// Whether nobody waits for it any more.
    fn is_abandoned(&self) -> bool;

    /// Does a part of it. Whether that was all.
    fn advance(&mut self, model: &Model) -> bool;
}

/// One answer that is asked for, with its steering ready.
pub(super) struct AnswerJob {
    /// The number of the answer in its request, from 0.
    pub choice: usize,
    /// The dialogue, for the transcript.
    pub dialogue: Arc<Dialogue>,
    /// The prompt's tokens, which the answers to it share.
    pub prompt: Arc<Vec<Token>>,
    /// How it is answered.
    pub options: Arc<GenerateOptions>,
    /// The number of its stream of random numbers.
    pub random_stream: usize,
    /// How it is steered, and what is read in it.
    pub steered: SteeredRow,
    /// Whether what was read and changed is kept.
    pub trace: bool,
    /// Whether the text is heard as it is decoded.
    pub stream: bool,
    /// Where the request listens.
    pub events: UnboundedSender<Event>,
    /// The bytes that the request holds.
    pub _share: Arc<Share>,
}

/// What happened to an answer.
#[derive(Debug)]
pub(super) struct Event {
    /// The number of the answer in its request.
    pub choice: usize,
    /// What happened.
    pub what: What,
}

/// What happened to an answer.
#[derive(Debug)]
pub(super) enum What {
    /// It begins; so many tokens of its prompt came from the cache.
    Begun { cached: usize },
    /// A token was decoded, or the model ended its turn.
    Step(Box<Step>),
    /// It is complete.
    Done(Box<Answer>),
    /// It can't be given.
    Failed(ApiError),
}

/// A decoded token.
#[derive(Debug)]
pub(super) struct Step {
    /// Text that can't change any more.
    pub text: String,
    /// The token's phase; none where the model ended its turn.
    pub phase: Option<Phase>,
    /// Log-probabilities, where they are kept.
    pub logits: Option<TokenLogits>,
    /// What was read in this pass, a reader each: positions and probabilities.
    pub read: Vec<Vec<(usize, f64)>>,
}

/// A complete answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// The answer with its log-probabilities.
    pub transcript: Transcript,
    /// The tokens of prompt and answer.
    pub tokens: Vec<Token>,
    /// What was read, a reader each.
    pub read: Vec<Read>,
    /// What was changed, where that is kept.
    pub trace: Vec<TraceEntry>,
    /// What a policy decided.
    pub decision: Option<serde_json::Value>,
    /// Text that was not heard yet.
    pub rest: String,
}

impl Work for Job {
    fn is_abandoned(&self) -> bool {
        match self {
            Job::Answer(job) => job.events.is_closed(),
            Job::Aside(job) => job.is_abandoned(),
        }
    }
}

/// Tells a request what happened; nobody may listen any more.
pub(super) fn send(job: &AnswerJob, what: What) {
    let _ = job.events.send(Event { choice: job.choice, what });
}
