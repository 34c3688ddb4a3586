//! `POST /v1/completions`: texts or token ids in, their continuations out, in OpenAI's older form.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::answers::{Choice, Form, Head, Part, PearlChoice, Prompt, Run, Usage};
use super::error::ApiError;
use super::job::Job;
use super::payload::Payload;
use super::request::{self, Checked, Common};
use super::score::ScoreJob;
use super::shared::{Shared, blocking};
use crate::dialogue::{Dialogue, Message, Role};
use crate::generate::TokenLogits;
use crate::model::{Chat, Model};
use crate::steer::EvaluateAt;

/// A request for the continuation of texts.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct TextRequest {
    /// The fields of every request for answers.
    #[serde(flatten)]
    pub common: Common,
    /// The fields of texts.
    #[serde(flatten)]
    pub own: TextFields,
}

/// The fields of a request for the continuation of texts.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct TextFields {
    /// A text, several texts, token ids, or several lists of token ids.
    pub prompt: TextPrompt,
    /// Of how many likeliest tokens log-probabilities are given, beside the token's own.
    #[schema(minimum = 0, maximum = 20)]
    #[serde(default, deserialize_with = "request::whole")]
    pub logprobs: Option<usize>,
    /// Whether the answer begins with the prompt; with `logprobs`, with those of its tokens.
    pub echo: Option<bool>,
    /// Not supported, but for 1 or `n`.
    #[serde(default, deserialize_with = "request::whole")]
    pub best_of: Option<usize>,
    /// Not supported, but for an empty text.
    pub suffix: Option<String>,
}

/// The prompts of a request.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(untagged, expecting = "a text, token ids, or a list of texts or of lists of token ids")]
pub enum TextPrompt {
    /// A text.
    Text(String),
    /// Token ids.
    Ids(Vec<u32>),
    /// Texts.
    Texts(Vec<String>),
    /// Lists of token ids.
    Lists(Vec<Vec<u32>>),
}

/// A token's id and text with its log-probabilities, none for the first.
type ScoredToken = (u32, String, Option<TokenLogits>);

/// What a response repeats of its prompts.
struct Echo {
    /// The ids of each prompt.
    prompts: Vec<Vec<u32>>,
    /// The tokens of each prompt, where their log-probabilities were asked for.
    scores: Vec<Option<Vec<ScoredToken>>>,
}

/// Answers the request.
pub(super) async fn completions(
    State(shared): State<Arc<Shared>>,
    payload: Payload,
) -> Result<Response, ApiError> {
    let inner = shared.clone();
    let prepared = blocking(move || Ok((prepare(&inner, &payload.body)?, payload.share)));
    let ((checked, prompts, echo, likeliest), share) = shared.in_time(prepared).await??;
    let form = match echo {
        false => None,
        true => Some(echoed(&shared, &checked, &prompts, likeliest).await?),
    };
    let form = TextForm { model: shared.model.clone(), echo: form, offsets: Mutex::default() };
    Run::begin(shared, checked, Box::new(form), "cmpl-", (prompts, share)).await?.respond().await
}

type Prepared = (Checked, Vec<Prompt>, bool, Option<usize>);

fn prepare(shared: &Shared, body: &[u8]) -> Result<Prepared, ApiError> {
    let common: Common = request::read(body)?;
    let own: TextFields = request::read(body)?;
    if own.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::field("suffix", "a text, which this server doesn't support", "none"));
    }
    if let Some(count) = own.best_of.filter(|&count| count > 1 && Some(count) != common.n) {
        let expected = "1 or n: this server doesn't choose among answers";
        return Err(ApiError::field("best_of", count, expected));
    }
    let echo = own.echo.unwrap_or(false);
    // The default of this endpoint is OpenAI's.
    let max_tokens = common.max_tokens.or(Some(16));
    let checked = common.check(shared, (max_tokens, "max_tokens"), own.logprobs)?;
    if echo && checked.stream {
        return Err(ApiError::field("echo", "true in a stream", "a whole response, or no echo"));
    }
    let reads_prompt = |plan: &Arc<crate::steer::Plan>| {
        let own = &plan.interventions;
        own.iter().any(|own| own.when.is_some() && own.evaluate_at == EvaluateAt::Prompt)
    };
    if checked.steered.policy.is_some() || checked.steered.plan.as_ref().is_some_and(reads_prompt) {
        let found = "a policy, or a condition on the prompt, which is read as a dialogue";
        return Err(ApiError::field(
            "steering",
            found,
            "POST /v1/chat/completions, or evaluate_at = \"token\"",
        ));
    }
    let chat = &shared.model.chat;
    let encode = |text: &String| -> Result<Vec<u32>, ApiError> {
        request::check_bytes(text.len(), shared, "prompt")?;
        Ok(chat.encode_prompt(text)?)
    };
    let count = match &own.prompt {
        TextPrompt::Text(_) | TextPrompt::Ids(_) => 1,
        TextPrompt::Texts(texts) => texts.len(),
        TextPrompt::Lists(lists) => lists.len(),
    };
    if count == 0 || count > shared.limits.request_rows {
        let expected = format!("from 1 to {} in one request", shared.limits.request_rows);
        return Err(ApiError::field("prompt", format_args!("{count} prompts"), expected));
    }
    let lists = match &own.prompt {
        TextPrompt::Text(text) => vec![encode(text)?],
        TextPrompt::Ids(ids) if !ids.is_empty() => vec![ids.clone()],
        TextPrompt::Ids(_) => return Err(ApiError::field("prompt", "an empty list", "a text")),
        TextPrompt::Texts(texts) => texts.iter().map(encode).collect::<Result<_, ApiError>>()?,
        TextPrompt::Lists(lists) => lists.clone(),
    };
    let mut prompts = Vec::with_capacity(lists.len());
    for (number, ids) in lists.iter().enumerate() {
        let tokens = chat.plain_tokens(ids).map_err(|error| ApiError::from(error).param("prompt"))?;
        let fitted =
            request::fit(&tokens, &checked.options, shared).map_err(|error| error.param("prompt"))?;
        let message = Message::new(Role::User, chat.decode(ids, false)?);
        let dialogue = Arc::new(Dialogue::new(format!("request-{number}"), vec![message]));
        prompts.push(Prompt { dialogue, tokens: Arc::new(tokens), options: Arc::new(fitted) });
    }
    Ok((checked, prompts, echo, own.logprobs))
}

/// What is repeated of the prompts.
async fn echoed(
    shared: &Arc<Shared>,
    checked: &Checked,
    prompts: &[Prompt],
    likeliest: Option<usize>,
) -> Result<Echo, ApiError> {
    let chat = &shared.model.chat;
    let mut echo = Echo { prompts: Vec::new(), scores: Vec::new() };
    for prompt in prompts {
        let ids: Vec<u32> = prompt.tokens.iter().map(|token| token.id).collect();
        let Some(likeliest) = likeliest else {
            echo.prompts.push(ids);
            echo.scores.push(None);
            continue;
        };
        let (reply, answer) = oneshot::channel();
        let (inner, plan) = (shared.clone(), checked.steered.plan.clone());
        let (dialogue, tokens) = (prompt.dialogue.clone(), prompt.tokens.to_vec());
        let job = blocking(move || {
            Ok(ScoreJob::new(&inner.model, plan.as_deref(), &dialogue, tokens, likeliest, reply)?)
        });
        shared.submit(Job::Aside(Box::new(shared.in_time(job).await??)))?;
        let scores = shared.in_time(answer).await?.map_err(|_| ApiError::stopping())??;
        let mut all = Vec::with_capacity(ids.len());
        let scores = std::iter::once(None).chain(scores.into_iter().map(Some));
        for (id, score) in ids.iter().zip(scores) {
            all.push((*id, chat.decode(&[*id], false)?, score));
        }
        echo.prompts.push(ids);
        echo.scores.push(Some(all));
    }
    Ok(echo)
}

/// The continuation of a text.
#[derive(Debug, Serialize, ToSchema)]
pub struct TextResponse {
    /// The answer's id.
    pub id: String,
    /// `text_completion`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's id.
    pub model: String,
    /// Changes with the weights and the program's version.
    pub system_fingerprint: String,
    /// The answers, prompt by prompt; under `compare` first the steered ones of a prompt, then the unsteered ones.
    pub choices: Vec<TextChoice>,
    /// Numbers of tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// One answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct TextChoice {
    /// Its number, from 0.
    pub index: usize,
    /// The text.
    pub text: String,
    /// Log-probabilities, where they were asked for.
    pub logprobs: Option<TextLogprobs>,
    /// `stop`, `length`, or null before the end of a stream.
    pub finish_reason: Option<&'static str>,
    /// Readings and traces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pearl: Option<PearlChoice>,
}

/// Log-probabilities of an answer.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct TextLogprobs {
    /// Texts of the tokens.
    pub tokens: Vec<String>,
    /// Their log-probabilities; null for a prompt's first token.
    pub token_logprobs: Vec<Option<f64>>,
    /// The likeliest tokens at each place, by their texts.
    #[schema(value_type = Vec<Object>)]
    pub top_logprobs: Vec<Option<Map<String, Value>>>,
    /// Where each token begins in the text, in characters.
    pub text_offset: Vec<usize>,
}

impl TextLogprobs {
    fn push(&mut self, token: String, logits: Option<TokenLogits>, offset: usize) {
        self.tokens.push(token);
        let finite = |logprob: f64| logprob.max(-9999.0);
        self.token_logprobs.push(logits.as_ref().map(|own| finite(own.logprob)));
        self.top_logprobs.push(logits.map(|own| {
            let top = own.top_logprobs.into_iter();
            top.map(|one| (one.token, json!(finite(one.logprob)))).collect()
        }));
        self.text_offset.push(offset);
    }
}

/// Where tokens begin in the text that they are decoded to together, in characters.
#[derive(Default)]
struct Offsets {
    /// The last tokens, which the next one's text may depend on.
    ids: Vec<u32>,
    /// The length of the text so far.
    end: usize,
}

/// Tokens that are decoded together; of these the last half stays.
const WINDOW: usize = 16;

impl Offsets {
    /// Where the next token begins. White space that joins it to the one before isn't its own, unless its text has it.
    fn next(&mut self, chat: &Chat, id: u32) -> usize {
        // The model's own ids can be decoded.
        let text = |ids: &[u32]| chat.decode(ids, true).unwrap_or_default();
        if self.ids.len() == WINDOW {
            self.ids.drain(..WINDOW / 2);
        }
        // An incomplete character isn't there yet.
        let before = text(&self.ids);
        self.ids.push(id);
        let after = text(&self.ids);
        let complete = |text: &str| text.trim_end_matches('\u{fffd}').len();
        let added = after[..complete(&after)].strip_prefix(&before[..complete(&before)]).unwrap_or_default();
        let joint = added.strip_suffix(&text(&[id])).unwrap_or_default();
        let begin = self.end + joint.chars().count();
        self.end += added.chars().count();
        begin
    }
}

/// A prompt and its answer as one text: what joins them is between them. `text`: the answer's, perhaps cut by a stop text.
fn joined(chat: &Chat, prompt: &[u32], answer: &[u32], text: &str) -> String {
    // The model's own ids can be decoded.
    let decoded = |ids: &[u32]| chat.decode(ids, true).unwrap_or_default();
    let (whole, own) = (decoded(&[prompt, answer].concat()), decoded(answer));
    match whole.strip_suffix(&own) {
        Some(before) => before.to_owned() + text,
        // A character begins in the prompt.
        None if own == text => whole,
        None => decoded(prompt) + text,
    }
}

struct TextForm {
    model: Arc<Model>,
    echo: Option<Echo>,
    /// In a stream, where each answer's next token begins.
    offsets: Mutex<BTreeMap<usize, Offsets>>,
}

impl TextForm {
    fn response(&self, head: &Head, choices: Vec<TextChoice>, usage: Option<Usage>) -> Value {
        json!(TextResponse {
            id: head.id.clone(),
            object: "text_completion",
            created: head.created,
            model: head.model.clone(),
            system_fingerprint: head.fingerprint.clone(),
            choices,
            usage,
        })
    }
}

impl Form for TextForm {
    fn whole(&self, head: &Head, choices: Vec<Choice>, usage: Usage) -> Value {
        let choices = choices.into_iter().map(|choice| {
            let chat = &self.model.chat;
            let (mut text, mut offsets) = (choice.text, Offsets::default());
            let mut logprobs = choice.logprobs.as_ref().map(|_| TextLogprobs::default());
            if let Some(echo) = &self.echo {
                text = joined(chat, &echo.prompts[choice.prompt], &choice.tokens, &text);
                if let (Some(logprobs), Some(scores)) = (&mut logprobs, &echo.scores[choice.prompt]) {
                    for (id, token, score) in scores {
                        logprobs.push(token.clone(), score.clone(), offsets.next(chat, *id));
                    }
                }
            }
            for own in choice.logprobs.into_iter().flatten() {
                if let Some(logprobs) = &mut logprobs {
                    let offset = offsets.next(chat, own.id);
                    logprobs.push(own.token.clone(), Some(own), offset);
                }
            }
            let (finish_reason, pearl) = (Some(choice.finish), choice.pearl);
            TextChoice { index: choice.index, text, logprobs, finish_reason, pearl }
        });
        self.response(head, choices.collect(), Some(usage))
    }

    fn first(&self, _: &Head, _: usize) -> Option<Value> {
        None
    }

    fn chunk(&self, head: &Head, part: Part) -> Value {
        let logprobs = part.logprobs.map(|all| {
            let mut logprobs = TextLogprobs::default();
            // What is there is right, whatever went wrong beside it.
            let mut offsets = self.offsets.lock().unwrap_or_else(PoisonError::into_inner);
            let offsets = offsets.entry(part.index).or_default();
            for own in all {
                let offset = offsets.next(&self.model.chat, own.id);
                logprobs.push(own.token.clone(), Some(own), offset);
            }
            logprobs
        });
        let (text, finish_reason, pearl) = (part.text, part.finish, part.pearl);
        let choice = TextChoice { index: part.index, text, logprobs, finish_reason, pearl };
        self.response(head, vec![choice], None)
    }

    fn usage(&self, head: &Head, usage: Usage) -> Value {
        self.response(head, Vec::new(), Some(usage))
    }
}
