//! `POST /v1/hidden_states`: dialogues, sites and a selector in, the activations that `pearl extract` records out.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use utoipa::ToSchema;
use utoipa::openapi::schema;

use super::budget::Share;
use super::chat::{ChatMessage, dialogue};
use super::error::ApiError;
use super::job::{Aside, Job};
use super::payload::Payload;
use super::request;
use super::shared::{Shared, blocking};
use crate::activations::{Activations, BATCH_TOKENS, Request, TokenisedDialogue, extract_tokenised};
use crate::artifact::Numbers;
use crate::error::Result;
use crate::model::{Model, Selector, Token};

/// A request for hidden states.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct StatesRequest {
    /// The model's id; the server's model where none is given.
    pub model: Option<String>,
    /// The dialogues, each a list of messages or an object with `messages`.
    #[schema(min_items = 1)]
    pub dialogues: Vec<OneDialogue>,
    /// Sites such as `*.resid_post` or `3,7.mlp_out`.
    #[schema(min_length = 1)]
    pub sites: String,
    /// Tokens such as `last` (the default), `assistant.start` or `mean(answer)`.
    pub tokens: Option<String>,
    /// `json` (the default) or `safetensors`.
    pub format: Option<String>,
    /// Variables of the chat template: `enable_thinking`.
    #[schema(value_type = Option<Object>)]
    pub chat_template_kwargs: Option<Value>,
    /// Not supported here, but for an empty object.
    #[schema(schema_with = no_steering, required = false)]
    pub steering: Option<Value>,
}

/// The schema of an object without a key.
fn no_steering() -> schema::Object {
    let kinds = [schema::Type::Object, schema::Type::Null];
    let builder = schema::ObjectBuilder::new().schema_type(schema::SchemaType::from_iter(kinds));
    builder.max_properties(Some(0)).description(Some("Not supported here, but for an empty object.")).build()
}

/// A dialogue of the request.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(untagged, expecting = "a list of messages, each with a role and content")]
pub enum OneDialogue {
    /// Its messages.
    Messages(Vec<ChatMessage>),
    /// An object that has them.
    Object {
        /// The messages.
        messages: Vec<ChatMessage>,
    },
}

/// A row of the activations.
#[derive(Debug, Serialize, ToSchema)]
pub struct StateRow {
    /// The number of the dialogue, from 0.
    pub dialogue: usize,
    /// The position of the token in it; none where tokens are pooled.
    pub position: Option<usize>,
}

/// Activations at one site.
#[derive(Debug, Serialize, ToSchema)]
pub struct SiteStates {
    /// The site.
    pub site: String,
    /// `[rows, width]`.
    pub values: Vec<Vec<f32>>,
}

/// Hidden states.
#[derive(Debug, Serialize, ToSchema)]
pub struct StatesResponse {
    /// `hidden_states`.
    pub object: &'static str,
    /// The model's id.
    pub model: String,
    /// SHA-256 of its weights.
    pub model_hash: String,
    /// Where each row was read.
    pub rows: Vec<StateRow>,
    /// The activations, a site each, in the order of the forward pass.
    pub sites: Vec<SiteStates>,
    /// Tokens of the dialogues.
    pub tokens: usize,
}

/// Hidden states that are read between the tokens of answers.
pub(super) struct StatesJob {
    dialogues: Vec<TokenisedDialogue>,
    request: Request,
    /// Dialogues that are read together, in order.
    slices: Vec<Range<usize>>,
    done: usize,
    read: Option<Activations>,
    reply: Option<oneshot::Sender<Result<Activations>>>,
    /// The bytes that the request holds.
    _share: Share,
}

impl Aside for StatesJob {
    fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn advance(&mut self, model: &Model) -> bool {
        let Some(slice) = self.slices.get(self.done).cloned() else { return true };
        self.done += 1;
        let reply = &self.reply;
        let is_wanted = || reply.as_ref().is_some_and(|reply| !reply.is_closed());
        let read = extract_tokenised(model, &self.dialogues[slice], &self.request, &mut |_| is_wanted());
        let joined = read.and_then(|part| {
            match &mut self.read {
                None => self.read = Some(part),
                Some(read) => read.append(&part)?,
            }
            Ok(())
        });
        let answer = match (joined, self.done == self.slices.len()) {
            (Err(error), _) => Err(error),
            (Ok(()), false) => return false,
            (Ok(()), true) => match self.read.take() {
                Some(read) => Ok(read),
                None => return true,
            },
        };
        if let Some(reply) = self.reply.take() {
            // Nobody may wait any more.
            let _ = reply.send(answer);
        }
        true
    }
}

/// Answers the request.
pub(super) async fn states(
    State(shared): State<Arc<Shared>>,
    payload: Payload,
) -> std::result::Result<Response, ApiError> {
    let (reply, answer) = oneshot::channel();
    let inner = shared.clone();
    let prepared = blocking(move || prepare(&inner, payload, reply));
    let (job, is_safetensors) = shared.in_time(prepared).await??;
    shared.submit(Job::Aside(Box::new(job)))?;
    let read = shared.in_time(answer).await?.map_err(|_| ApiError::stopping())??;
    blocking(move || match is_safetensors {
        true => safetensors(&shared, &read),
        false => Ok(Json(response(&shared, &read)).into_response()),
    })
    .await
}

fn prepare(
    shared: &Shared,
    payload: Payload,
    reply: oneshot::Sender<Result<Activations>>,
) -> std::result::Result<(StatesJob, bool), ApiError> {
    let Payload { body, mut share } = payload;
    let asked: StatesRequest = request::read(&body)?;
    drop(body);
    shared.check_model(asked.model.as_deref())?;
    let is_none =
        |steering: &Value| matches!(steering, Value::Null | Value::Bool(false)) || *steering == json!({});
    if asked.steering.as_ref().is_some_and(|steering| !is_none(steering)) {
        let expected =
            "none: hidden states are the unsteered model's (pearl extract --plan reads a steered one)";
        return Err(ApiError::field("steering", "a plan", expected));
    }
    let is_safetensors = match asked.format.as_deref() {
        None | Some("json") => false,
        Some("safetensors") => true,
        Some(other) => {
            return Err(ApiError::field("format", format_args!("{other:?}"), "json or safetensors"));
        }
    };
    if asked.dialogues.is_empty() {
        return Err(ApiError::field("dialogues", "none", "at least one"));
    }
    let architecture = shared.model.decoder.architecture();
    let named = |name: &'static str| move |error| ApiError::from(error).param(name);
    let sites = architecture.parse_sites(&asked.sites).map_err(named("sites"))?;
    if sites.is_empty() {
        return Err(ApiError::field("sites", "no site", "sites such as *.resid_post"));
    }
    let tokens: Selector = asked.tokens.as_deref().unwrap_or("last").parse().map_err(named("tokens"))?;
    let thinking = super::chat::thinking(asked.chat_template_kwargs.as_ref(), shared.thinking)?;
    let (mut dialogues, mut slices, mut begin) = (Vec::new(), Vec::new(), 0);
    let width: usize = sites.iter().map(|&site| architecture.site_width(site)).sum();
    // As text a number takes several times its four bytes.
    let most = if is_safetensors { shared.limits.state_numbers } else { shared.limits.state_numbers / 8 };
    let check = |rows: usize| match rows.saturating_mul(width) <= most {
        true => Ok(()),
        false => {
            let found = format!("{rows} rows or more, of {width} numbers each");
            Err(ApiError::field("sites", found, format_args!("at most {most} numbers in one request")))
        }
    };
    let is_pooled = tokens.pooling() != crate::model::Pooling::Each;
    // Each dialogue has a row where tokens are pooled: known before one is read.
    check(if is_pooled { asked.dialogues.len() } else { 0 })?;
    let request = Request::new(sites).tokens(tokens).thinking(thinking);
    let (mut picked, mut held) = (0, 0);
    for (number, one) in asked.dialogues.into_iter().enumerate() {
        let (OneDialogue::Messages(messages) | OneDialogue::Object { messages }) = one;
        let dialogue = dialogue(&number.to_string(), messages, &format!("dialogues[{number}]"))?;
        request::check_bytes(request::bytes_of(&dialogue), shared, "dialogues")?;
        let read = shared.model.chat.tokens(&dialogue, 0, thinking).map_err(named("dialogues"))?;
        if read.len() > shared.context() {
            let found = format!("{} tokens in dialogue {number}", read.len());
            let expected = format!("at most {}, the model's context", shared.context());
            return Err(ApiError::field("dialogues", found, expected).code("context_length_exceeded"));
        }
        if held > 0 && held + read.len() > BATCH_TOKENS {
            slices.push(begin..number);
            (begin, held) = (number, 0);
        }
        held += read.len();
        picked += if is_pooled { 1 } else { request.tokens.pick(&read).len() };
        check(picked)?;
        share.grow(read.len() * size_of::<Token>()).inspect_err(|_| shared.metrics.refused.add(1))?;
        dialogues.push(TokenisedDialogue::new(&shared.model, &request, number, &dialogue, read));
    }
    slices.push(begin..dialogues.len());
    let job =
        StatesJob { dialogues, request, slices, done: 0, read: None, reply: Some(reply), _share: share };
    Ok((job, is_safetensors))
}

fn response(shared: &Shared, read: &Activations) -> StatesResponse {
    let rows = read.example.iter().zip(&read.position);
    let sites = read.sites.iter().map(|(site, values)| SiteStates {
        site: site.to_string(),
        values: values.rows().into_iter().map(|row| row.to_vec()).collect(),
    });
    StatesResponse {
        object: "hidden_states",
        model: shared.id.clone(),
        model_hash: shared.model.hash.clone(),
        rows: rows.map(|(&dialogue, &position)| StateRow { dialogue, position }).collect(),
        sites: sites.collect(),
        tokens: read.tokens,
    }
}

/// The activations as a safetensors file: a tensor `[rows, width]` a site, `dialogue` and `position` `[rows]` (−1 where pooled).
fn safetensors(shared: &Shared, read: &Activations) -> std::result::Result<Response, ApiError> {
    let mut tensors: Vec<(String, Numbers)> =
        read.sites.iter().map(|(site, values)| (site.to_string(), Numbers::floats(values))).collect();
    let dialogue: Vec<i64> = read.example.iter().map(|&example| example as i64).collect();
    let position: Vec<i64> = read.position.iter().map(|at| at.map_or(-1, |at| at as i64)).collect();
    tensors.push(("dialogue".into(), Numbers::integers(&dialogue)));
    tensors.push(("position".into(), Numbers::integers(&position)));
    let strings = [("model", shared.id.clone()), ("model_hash", shared.model.hash.clone())];
    let strings: HashMap<String, String> =
        strings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let bytes = safetensors::serialize(tensors, Some(strings)).map_err(ApiError::server)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}
