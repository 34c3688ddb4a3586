//! Answers of a request: its prompts in, the engine's events out, told whole or as a stream of server-sent events.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

use super::budget::Share;
use super::error::ApiError;
use super::job::{Answer, AnswerJob, Event, Job, Step, What};
use super::readings::{ProbeReadings, Read};
use super::request::Checked;
use super::shared::{Shared, blocking_steering};
use super::steered_row::SteeredRow;
use super::steering::Steered;
use crate::dialogue::Dialogue;
use crate::generate::{Finish, GenerateOptions, TokenLogits};
use crate::model::{Model, Token};

/// A prompt to answer.
pub(super) struct Prompt {
    pub dialogue: Arc<Dialogue>,
    pub tokens: Arc<Vec<Token>>,
    pub options: Arc<GenerateOptions>,
}

/// What an endpoint makes of answers.
pub(super) trait Form: Send + Sync + 'static {
    /// The whole response.
    fn whole(&self, head: &Head, choices: Vec<Choice>, usage: Usage) -> Value;

    /// The chunks that begin an answer in a stream.
    fn first(&self, head: &Head, index: usize) -> Option<Value>;

    /// A chunk of a stream.
    fn chunk(&self, head: &Head, part: Part) -> Value;

    /// The last chunk, with the number of tokens.
    fn usage(&self, head: &Head, usage: Usage) -> Value;
}

/// What all chunks of a response say.
pub(super) struct Head {
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    pub model: String,
    /// Changes with the weights and the program's version.
    pub fingerprint: String,
}

/// A complete answer, in what a response says of it.
pub(super) struct Choice {
    pub index: usize,
    /// The number of its prompt.
    pub prompt: usize,
    pub text: String,
    /// The ids of the answer's tokens.
    pub tokens: Vec<u32>,
    pub finish: &'static str,
    pub logprobs: Option<Vec<TokenLogits>>,
    pub pearl: Option<PearlChoice>,
}

/// A part of an answer in a stream.
pub(super) struct Part {
    pub index: usize,
    pub text: String,
    pub finish: Option<&'static str>,
    pub logprobs: Option<Vec<TokenLogits>>,
    pub pearl: Option<PearlChoice>,
}

/// Numbers of tokens.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Usage {
    /// Tokens of the prompts.
    pub prompt_tokens: usize,
    /// Tokens of the answers.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
    /// Of the prompts' tokens.
    pub prompt_tokens_details: PromptTokens,
}

/// Numbers of tokens of prompts.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct PromptTokens {
    /// Tokens whose keys and values came from the cache.
    pub cached_tokens: usize,
}

/// What pearlpoint says of an answer.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct PearlChoice {
    /// Whether the answer was steered.
    pub steered: bool,
    /// The readings, by the probe's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readings: Option<BTreeMap<String, ProbeReadings>>,
    /// In a stream: readings of the answer's tokens that are new, by the probe's name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub new: BTreeMap<String, Vec<TokenReading>>,
    /// What was read and changed, a token each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<Vec<TraceToken>>,
    /// What a policy read, believed and chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub decision: Option<Value>,
}

/// A reading of one token of the answer.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct TokenReading {
    /// The number of the token in the answer, from 0.
    pub index: usize,
    /// The calibrated probability of the class there.
    pub probability: f64,
}

/// What was read and changed at a token.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TraceToken {
    /// Its position, from 0.
    pub position: usize,
    /// Its text.
    pub token: String,
    /// Whether the model generated it.
    pub generated: bool,
    /// What the interventions did, in order.
    #[schema(value_type = Vec<Object>)]
    pub steps: Vec<Value>,
}

/// A request whose answers are under way.
pub(super) struct Run {
    pub shared: Arc<Shared>,
    pub checked: Checked,
    pub form: Box<dyn Form>,
    pub head: Head,
    /// The prompt and the steering of each choice.
    choices: Vec<(usize, bool)>,
    /// Tokens of each prompt.
    prompts: Vec<Arc<Vec<Token>>>,
    events: mpsc::UnboundedReceiver<Event>,
    deadline: Instant,
    cached: usize,
    generated: usize,
}

impl Run {
    /// Makes a request's answers ready, and puts them into the queue. `prefix` begins its id.
    pub async fn begin(
        shared: Arc<Shared>,
        checked: Checked,
        form: Box<dyn Form>,
        prefix: &str,
        (prompts, mut share): (Vec<Prompt>, Share),
    ) -> Result<Run, ApiError> {
        let deadline = Instant::now() + shared.limits.timeout;
        let kinds = checked.kinds();
        let rows = prompts.len() * kinds.len();
        if rows > shared.limits.request_rows {
            let expected = format!("at most {} in one request", shared.limits.request_rows);
            return Err(ApiError::field("n", format_args!("{rows} answers"), expected));
        }
        // Its place in the queue is that of its arrival, however long its steering takes.
        let places = shared.reserve(rows)?;
        let tokens: usize = prompts.iter().map(|prompt| prompt.tokens.len()).sum();
        share
            .grow(tokens.saturating_mul(size_of::<Token>()))
            .inspect_err(|_| shared.metrics.refused.add(1))?;
        let (sender, events) = mpsc::unbounded_channel();
        let choices: Vec<(usize, bool)> =
            (0..prompts.len()).flat_map(|number| kinds.iter().map(move |kind| (number, *kind))).collect();
        let (wanted, share) = (Wanted { checked, prompts, choices }, Arc::new(share));
        let (wanted, jobs) = match wanted.checked.steered.is_some() {
            false => wanted.ready(&shared.model, share, sender)?,
            true => {
                let model = shared.model.clone();
                let ready = blocking_steering(move || wanted.ready(&model, share, sender));
                timeout_at(deadline, ready).await.map_err(|_| shared.late())??
            }
        };
        shared.fill(places, jobs)?;
        let Wanted { checked, prompts, choices } = wanted;
        let prompts = prompts.into_iter().map(|prompt| prompt.tokens).collect();
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let head = Head {
            id: format!("{prefix}{:032x}", rand::random::<u128>()),
            created,
            model: shared.id.clone(),
            fingerprint: shared.fingerprint.clone(),
        };
        let (cached, generated) = (0, 0);
        Ok(Run { shared, checked, form, head, choices, prompts, events, deadline, cached, generated })
    }

    /// The next event.
    async fn next(&mut self) -> Result<Event, ApiError> {
        match timeout_at(self.deadline, self.events.recv()).await {
            // The time is looked at too: a queue that holds an event gives it, however late it is.
            Ok(Some(event)) if Instant::now() < self.deadline => Ok(event),
            Ok(None) if self.shared.queue.is_closed() => Err(ApiError::stopping()),
            Ok(None) => Err(ApiError::server("a failure inside the server")),
            Ok(Some(_)) | Err(_) => Err(self.shared.late()),
        }
    }

    fn usage_of(&self) -> Usage {
        let prompt_tokens = self.prompts.iter().map(|prompt| prompt.len()).sum();
        Usage {
            prompt_tokens,
            completion_tokens: self.generated,
            total_tokens: prompt_tokens + self.generated,
            prompt_tokens_details: PromptTokens { cached_tokens: self.cached.min(prompt_tokens) },
        }
    }

    /// The response, whole or as a stream.
    pub async fn respond(self) -> Result<Response, ApiError> {
        match self.checked.stream {
            true => self.stream().await,
            false => {
                let (run, choices) = self.collect().await?;
                let usage = run.usage_of();
                Ok(axum::Json(run.form.whole(&run.head, choices, usage)).into_response())
            }
        }
    }

    /// All answers, in the order of their choices.
    async fn collect(mut self) -> Result<(Run, Vec<Choice>), ApiError> {
        let mut answers: BTreeMap<usize, Choice> = BTreeMap::new();
        while answers.len() < self.choices.len() {
            let Event { choice, what } = self.next().await?;
            match what {
                What::Begun { cached } => self.cached += cached,
                What::Step(_) => {}
                What::Done(answer) => {
                    answers.insert(choice, self.choice(choice, *answer)?);
                }
                What::Failed(error) => return Err(error),
            }
        }
        Ok((self, answers.into_values().collect()))
    }

    fn choice(&mut self, index: usize, answer: Answer) -> Result<Choice, ApiError> {
        self.generated += answer.transcript.tokens.len();
        let pearl = self.pearl(index, &answer)?;
        let finish = finish(answer.transcript.finish);
        let (text, tokens, logprobs) =
            (answer.transcript.text, answer.transcript.tokens, answer.transcript.logprobs);
        Ok(Choice { index, prompt: self.choices[index].0, text, tokens, finish, logprobs, pearl })
    }

    /// What is said of a complete answer beside its text.
    fn pearl(&self, index: usize, answer: &Answer) -> Result<Option<PearlChoice>, ApiError> {
        let checked = &self.checked;
        if !self.says() {
            return Ok(None);
        }
        let chat = &self.shared.model.chat;
        let text = |id: u32| chat.decode(&[id], false);
        let mut readings = BTreeMap::new();
        for (reader, read) in checked.readers.iter().zip(&answer.read) {
            let prompt: Option<&dyn Fn(u32) -> crate::Result<String>> =
                if checked.probe_prompt { Some(&text) } else { None };
            readings.insert(reader.name.clone(), reader.summary(read, &answer.tokens, prompt)?);
        }
        let trace = match checked.trace {
            false => None,
            true => Some(trace(answer, &text)?),
        };
        Ok(Some(PearlChoice {
            steered: self.choices[index].1,
            readings: (!checked.readers.is_empty()).then_some(readings),
            new: BTreeMap::new(),
            trace,
            decision: answer.decision.clone(),
        }))
    }

    /// Whether anything is said of an answer beside its text.
    fn says(&self) -> bool {
        let checked = &self.checked;
        checked.steered.is_some() || checked.compare || checked.trace || !checked.readers.is_empty()
    }

    async fn stream(mut self) -> Result<Response, ApiError> {
        // What is wrong with a request is said before the stream begins.
        let first = self.next().await?;
        if let What::Failed(error) = first.what {
            return Err(error);
        }
        let (sender, receiver) = mpsc::channel::<Bytes>(FRAMES);
        let deadline = self.deadline;
        tokio::spawn(async move {
            // Both ends of a stream that isn't read within the time are dropped, and with them its rows.
            let _ = timeout_at(deadline, self.send_all(first, sender)).await;
        });
        let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
        Ok((headers, Body::from_stream(Frames(receiver))).into_response())
    }

    async fn send_all(mut self, first: Event, to: mpsc::Sender<Bytes>) -> Result<(), Closed> {
        let mut next = Ok(first);
        let mut done = 0;
        let mut begun = vec![false; self.choices.len()];
        let mut read: Vec<Vec<Read>> =
            vec![vec![Read::default(); self.checked.readers.len()]; self.choices.len()];
        loop {
            let Event { choice, what } = match next {
                Ok(event) => event,
                Err(error) => return fail(&to, error).await,
            };
            if !std::mem::replace(&mut begun[choice], true)
                && let Some(chunk) = self.form.first(&self.head, choice)
            {
                send(&to, &chunk).await?;
            }
            match what {
                What::Begun { cached } => self.cached += cached,
                What::Failed(error) => return fail(&to, error).await,
                What::Step(step) => match self.part(choice, *step, &mut read[choice]) {
                    Ok(Some(part)) => send(&to, &self.form.chunk(&self.head, part)).await?,
                    Ok(None) => {}
                    Err(error) => return fail(&to, error).await,
                },
                What::Done(answer) => {
                    done += 1;
                    self.generated += answer.transcript.tokens.len();
                    let pearl = match self.pearl(choice, &answer) {
                        Ok(pearl) => pearl,
                        Err(error) => return fail(&to, error).await,
                    };
                    let finish = Some(finish(answer.transcript.finish));
                    let part = Part { index: choice, text: answer.rest, finish, logprobs: None, pearl };
                    send(&to, &self.form.chunk(&self.head, part)).await?;
                }
            }
            if done == self.choices.len() {
                break;
            }
            next = self.next().await;
        }
        if self.checked.include_usage {
            send(&to, &self.form.usage(&self.head, self.usage_of())).await?;
        }
        to.send(Bytes::from_static(b"data: [DONE]\n\n")).await.map_err(|_| Closed)
    }

    /// A step as a part of the stream; none where it has nothing to say.
    fn part(&self, index: usize, step: Step, all: &mut [Read]) -> Result<Option<Part>, ApiError> {
        let prompt = &self.prompts[self.choices[index].0];
        let mut pearl = PearlChoice { steered: self.choices[index].1, ..PearlChoice::default() };
        for ((reader, new), all) in self.checked.readers.iter().zip(step.read).zip(all) {
            let is_first = all.0.is_empty();
            let answer = new.iter().filter_map(|&(position, probability)| {
                Some(TokenReading { index: position.checked_sub(prompt.len())?, probability })
            });
            let answer: Vec<TokenReading> = answer.collect();
            all.0.extend(new);
            if is_first {
                let summary = reader.summary(all, prompt, None)?;
                pearl.readings.get_or_insert_default().insert(reader.name.clone(), summary);
            }
            if !answer.is_empty() {
                pearl.new.insert(reader.name.clone(), answer);
            }
        }
        let logprobs = step.logits.map(|logits| vec![logits]);
        let has_readings = pearl.readings.is_some() || !pearl.new.is_empty();
        if step.text.is_empty() && logprobs.is_none() && !has_readings {
            return Ok(None);
        }
        let pearl = has_readings.then_some(pearl);
        Ok(Some(Part { index, text: step.text, finish: None, logprobs, pearl }))
    }
}

/// A request whose answers are made ready.
struct Wanted {
    checked: Checked,
    prompts: Vec<Prompt>,
    /// The prompt and the steering of each choice.
    choices: Vec<(usize, bool)>,
}

impl Wanted {
    /// The answers with their steering ready, in the order of the choices.
    fn ready(
        self,
        model: &Model,
        share: Arc<Share>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<(Wanted, Vec<Job>), ApiError> {
        let (checked, unsteered) = (&self.checked, Steered::default());
        let kinds = checked.kinds().len();
        let mut jobs = Vec::with_capacity(self.choices.len());
        for (choice, &(number, is_steered)) in self.choices.iter().enumerate() {
            // The client hung up.
            if events.is_closed() {
                return Err(ApiError::stopping());
            }
            let Prompt { dialogue, tokens, options } = &self.prompts[number];
            let random_stream = choice % kinds % checked.n;
            let steered = if is_steered { &checked.steered } else { &unsteered };
            let (readers, trace) = (&checked.readers, checked.trace);
            let steered =
                SteeredRow::new(model, steered, (dialogue, tokens), options, random_stream, readers, trace)
                    .map_err(|error| ApiError::from(error).param("steering"))?;
            jobs.push(Job::Answer(Box::new(AnswerJob {
                choice,
                dialogue: dialogue.clone(),
                prompt: tokens.clone(),
                options: options.clone(),
                random_stream,
                steered,
                trace,
                stream: checked.stream,
                events: events.clone(),
                _share: share.clone(),
            })));
        }
        Ok((self, jobs))
    }
}

/// Frames of a stream that wait for a client, at most.
const FRAMES: usize = 64;

/// The client is gone.
struct Closed;

async fn send(to: &mpsc::Sender<Bytes>, chunk: &Value) -> Result<(), Closed> {
    to.send(Bytes::from(format!("data: {chunk}\n\n"))).await.map_err(|_| Closed)
}

async fn fail(to: &mpsc::Sender<Bytes>, error: ApiError) -> Result<(), Closed> {
    // Strings and nulls can be written as JSON.
    let body = serde_json::to_value(error.into_body()).unwrap_or_default();
    send(to, &body).await
}

/// The frames of a stream.
struct Frames(mpsc::Receiver<Bytes>);

impl futures_core::Stream for Frames {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}

fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::Stopped => "stop",
        Finish::Length => "length",
    }
}

/// What was read and changed, a token each.
fn trace(answer: &Answer, text: &dyn Fn(u32) -> crate::Result<String>) -> Result<Vec<TraceToken>, ApiError> {
    let mut steps: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
    for step in &answer.trace {
        let value = serde_json::to_value(step).map_err(ApiError::server)?;
        steps.entry(step.position).or_default().push(value);
    }
    let mut all = Vec::with_capacity(answer.tokens.len());
    for token in &answer.tokens {
        let steps = steps.remove(&token.position).unwrap_or_default();
        let (position, generated) = (token.position, token.generated);
        all.push(TraceToken { position, token: text(token.id)?, generated, steps });
    }
    Ok(all)
}
