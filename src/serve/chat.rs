//! `POST /v1/chat/completions`: dialogues in, answers out, in OpenAI's form.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::answers::{Choice, Form, Head, Part, PearlChoice, Prompt, Run, Usage};
use super::error::ApiError;
use super::payload::Payload;
use super::request::{self, Checked, Common};
use super::shared::{Shared, blocking};
use crate::dialogue::{Dialogue, Message, Role};
use crate::generate::TokenLogits;

/// A request for an answer to a dialogue.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct ChatRequest {
    /// The fields of every request for answers.
    #[serde(flatten)]
    pub common: Common,
    /// The fields of dialogues.
    #[serde(flatten)]
    pub own: ChatFields,
}

/// The fields of a request for an answer to a dialogue.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct ChatFields {
    /// The dialogue.
    #[schema(min_items = 1)]
    pub messages: Vec<ChatMessage>,
    /// Tokens of an answer, at most; it precedes `max_tokens`.
    #[serde(default, deserialize_with = "request::whole")]
    pub max_completion_tokens: Option<i64>,
    /// Whether log-probabilities of the answer's tokens are given.
    pub logprobs: Option<bool>,
    /// Of how many likeliest tokens, too.
    #[schema(minimum = 0, maximum = 20)]
    #[serde(default, deserialize_with = "request::whole")]
    pub top_logprobs: Option<usize>,
    /// Not supported, but for an empty list.
    #[schema(value_type = Option<Vec<Object>>)]
    pub tools: Option<Value>,
    /// Not supported, but for an empty list.
    #[schema(value_type = Option<Vec<Object>>)]
    pub functions: Option<Value>,
    /// `none` or `auto`, which without tools are the same.
    #[schema(value_type = Option<String>, pattern = "^(none|auto)$")]
    pub tool_choice: Option<Value>,
    /// `none` or `auto`, which without functions are the same.
    #[schema(value_type = Option<String>, pattern = "^(none|auto)$")]
    pub function_call: Option<Value>,
    /// Only `["text"]` is supported.
    #[schema(value_type = Option<Vec<String>>)]
    pub modalities: Option<Value>,
    /// Not supported.
    #[schema(schema_with = nothing, required = false)]
    pub web_search_options: Option<Value>,
    /// Variables of the chat template: `enable_thinking`.
    #[schema(value_type = Option<Object>)]
    pub chat_template_kwargs: Option<Value>,
}

/// The schema of null.
fn nothing() -> utoipa::openapi::schema::Object {
    let builder = utoipa::openapi::schema::ObjectBuilder::new();
    builder.schema_type(utoipa::openapi::schema::Type::Null).description(Some("Not supported.")).build()
}

impl ChatFields {
    /// Refuses what would change the answer and isn't there.
    fn refuse_unsupported(&self) -> Result<(), ApiError> {
        let is_text = |list: &Vec<Value>| list.iter().all(|own| own == "text");
        let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
        let is_free = |value: &Value| value == "none" || value == "auto";
        let wrong = [
            ("tools", self.tools.as_ref().filter(|own| !is_empty(own)), "none"),
            ("functions", self.functions.as_ref().filter(|own| !is_empty(own)), "none"),
            ("tool_choice", self.tool_choice.as_ref().filter(|own| !is_free(own)), "\"none\" or \"auto\""),
            (
                "function_call",
                self.function_call.as_ref().filter(|own| !is_free(own)),
                "\"none\" or \"auto\"",
            ),
            (
                "modalities",
                self.modalities.as_ref().filter(|own| !own.as_array().is_some_and(is_text)),
                "[\"text\"]",
            ),
            ("web_search_options", self.web_search_options.as_ref(), "none"),
        ];
        match wrong.into_iter().find_map(|(name, found, expected)| {
            found.filter(|found| !found.is_null()).map(|found| (name, super::steering::kind(found), expected))
        }) {
            None => Ok(()),
            Some((name, kind, expected)) => {
                let found = format!("{kind}, which this server doesn't support");
                Err(ApiError::field(name, found, expected))
            }
        }
    }
}

/// A message.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct ChatMessage {
    /// `system`, `developer`, `user`, `assistant`, `tool` or `function`, as the chat template has them.
    #[schema(pattern = "^(system|developer|user|assistant|tool|function)$")]
    pub role: String,
    /// A text, or a list of parts `{"type": "text", "text": …}`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub content: Value,
    /// What a chat template may read beside it: `name`, `reasoning_content`, `tool_calls`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub fields: Map<String, Value>,
}

/// Roles of messages.
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

/// Fields that clients send and that no template reads.
const IGNORED: [&str; 5] = ["refusal", "audio", "annotations", "function_call", "id"];

/// The dialogue of a request's messages. `place` names them in errors.
pub(super) fn dialogue(id: &str, messages: Vec<ChatMessage>, place: &str) -> Result<Dialogue, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::field(place, "no messages", "at least one"));
    }
    let mut all = Vec::with_capacity(messages.len());
    for (number, message) in messages.into_iter().enumerate() {
        let at = |field: &str| format!("{place}[{number}].{field}");
        let name = message.role;
        let Some(role) = Role::named(&name).filter(|_| ROLES.contains(&name.as_str())) else {
            return Err(ApiError::field(&at("role"), format_args!("{name:?}"), ROLES.join(", ")));
        };
        let mut fields: Map<String, Value> = message.fields;
        fields.retain(|name, value| !value.is_null() && !IGNORED.contains(&name.as_str()));
        fields.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
        let content = match message.content {
            Value::String(text) => text,
            Value::Null if role == Role::Assistant && !fields.is_empty() => {
                fields.insert("content".into(), Value::Null);
                String::new()
            }
            Value::Null => return Err(ApiError::field(&at("content"), "nothing", "a text")),
            Value::Array(parts) => text_of(&parts, &at("content"))?,
            other => {
                let found = super::steering::kind(&other);
                return Err(ApiError::field(&at("content"), found, "a text, or a list of text parts"));
            }
        };
        all.push(Message { role, content, fields }.under_role(&name));
    }
    Ok(Dialogue::new(id, all))
}

fn text_of(parts: &[Value], place: &str) -> Result<String, ApiError> {
    let mut text = String::new();
    for part in parts {
        match (part["type"].as_str(), part["text"].as_str()) {
            (Some("text"), Some(own)) => text += own,
            (kind, _) => {
                let found = format!("a part of type {:?}", kind.unwrap_or_default());
                return Err(ApiError::field(place, found, "parts {\"type\": \"text\", \"text\": …} only"));
            }
        }
    }
    Ok(text)
}

/// The template's thinking mode that a request asks for.
pub(super) fn thinking(variables: Option<&Value>, default: Option<bool>) -> Result<Option<bool>, ApiError> {
    let wrong = |found: &Value| {
        let expected = "{\"enable_thinking\": true} or false";
        ApiError::field("chat_template_kwargs", found, expected)
    };
    match variables {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Object(object)) if object.is_empty() => Ok(default),
        Some(whole @ Value::Object(object)) => match (object.len(), object.get("enable_thinking")) {
            (1, Some(Value::Bool(thinking))) => Ok(Some(*thinking)),
            (1, Some(Value::Null)) => Ok(default),
            _ => Err(wrong(whole)),
        },
        Some(other) => Err(wrong(other)),
    }
}

/// Answers the request.
pub(super) async fn completions(
    State(shared): State<Arc<Shared>>,
    payload: Payload,
) -> Result<Response, ApiError> {
    let inner = shared.clone();
    let prepared = blocking(move || {
        let (checked, prompt) = prepare(&inner, &payload.body)?;
        Ok((checked, prompt, payload.share))
    });
    let (checked, prompt, share) = shared.in_time(prepared).await??;
    let run = Run::begin(shared, checked, Box::new(ChatForm), "chatcmpl-", (vec![prompt], share));
    run.await?.respond().await
}

fn prepare(shared: &Shared, body: &[u8]) -> Result<(Checked, Prompt), ApiError> {
    let common: Common = request::read(body)?;
    let own: ChatFields = request::read(body)?;
    own.refuse_unsupported()?;
    let logprobs = match (own.logprobs.unwrap_or(false), own.top_logprobs) {
        (true, count) => Some(count.unwrap_or(0)),
        (false, None | Some(0)) => None,
        (false, Some(count)) => {
            return Err(ApiError::field("top_logprobs", count, "none without \"logprobs\": true"));
        }
    };
    let max_tokens = match own.max_completion_tokens {
        Some(count) => (Some(count), "max_completion_tokens"),
        None => (common.max_tokens, "max_tokens"),
    };
    let mut checked = common.check(shared, max_tokens, logprobs)?;
    checked.options.thinking = thinking(own.chat_template_kwargs.as_ref(), shared.thinking)?;
    // The id of `pearl generate --prompt`, by which a policy draws.
    let dialogue = dialogue("prompt", own.messages, "messages")?;
    request::check_bytes(request::bytes_of(&dialogue), shared, "messages")?;
    let tokens = shared.model.chat.tokens(&dialogue, 0, checked.options.thinking);
    let tokens = tokens.map_err(|error| ApiError::from(error).param("messages"))?;
    let options = Arc::new(request::fit(&tokens, &checked.options, shared)?);
    Ok((checked, Prompt { dialogue: Arc::new(dialogue), tokens: Arc::new(tokens), options }))
}

/// An answer to a dialogue.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatResponse {
    /// The answer's id.
    pub id: String,
    /// `chat.completion`, in a stream `chat.completion.chunk`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's id.
    pub model: String,
    /// Changes with the weights and the program's version.
    pub system_fingerprint: String,
    /// The answers; under `compare` first the steered ones, then the unsteered ones.
    pub choices: Vec<ChatChoice>,
    /// Numbers of tokens.
    pub usage: Usage,
}

/// One answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChoice {
    /// Its number, from 0.
    pub index: usize,
    /// The message.
    pub message: AnswerMessage,
    /// Log-probabilities, where they were asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// `stop`, or `length` where the limit of tokens was reached.
    pub finish_reason: &'static str,
    /// Readings and traces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pearl: Option<PearlChoice>,
}

/// The message of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnswerMessage {
    /// `assistant`.
    pub role: &'static str,
    /// The text.
    pub content: String,
    /// Always null.
    pub refusal: Option<String>,
}

/// Log-probabilities of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatLogprobs {
    /// One a token.
    pub content: Vec<ChatLogprob>,
    /// Always null.
    pub refusal: Option<String>,
}

/// The log-probability of a token.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatLogprob {
    /// Its text.
    pub token: String,
    /// Its log-probability.
    pub logprob: f64,
    /// The bytes of its text.
    pub bytes: Vec<u8>,
    /// The likeliest tokens there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    pub top_logprobs: Vec<ChatLogprob>,
}

fn logprob(own: TokenLogits) -> ChatLogprob {
    ChatLogprob {
        bytes: own.token.clone().into_bytes(),
        token: own.token,
        // JSON has no infinity.
        logprob: own.logprob.max(-9999.0),
        top_logprobs: own.top_logprobs.into_iter().map(logprob).collect(),
    }
}

fn logprobs(own: Option<Vec<TokenLogits>>) -> Option<ChatLogprobs> {
    Some(ChatLogprobs { content: own?.into_iter().map(logprob).collect(), refusal: None })
}

struct ChatForm;

impl ChatForm {
    fn chunk_of(&self, head: &Head, choices: Value, usage: Option<Usage>) -> Value {
        let mut chunk = json!({
            "id": head.id,
            "object": "chat.completion.chunk",
            "created": head.created,
            "model": head.model,
            "system_fingerprint": head.fingerprint,
            "choices": choices,
        });
        if let Some(usage) = usage {
            chunk["usage"] = json!(usage);
        }
        chunk
    }
}

impl Form for ChatForm {
    fn whole(&self, head: &Head, choices: Vec<Choice>, usage: Usage) -> Value {
        let choices = choices.into_iter().map(|choice| ChatChoice {
            index: choice.index,
            message: AnswerMessage { role: "assistant", content: choice.text, refusal: None },
            logprobs: logprobs(choice.logprobs),
            finish_reason: choice.finish,
            pearl: choice.pearl,
        });
        json!(ChatResponse {
            id: head.id.clone(),
            object: "chat.completion",
            created: head.created,
            model: head.model.clone(),
            system_fingerprint: head.fingerprint.clone(),
            choices: choices.collect(),
            usage,
        })
    }

    fn first(&self, head: &Head, index: usize) -> Option<Value> {
        let delta = json!({"role": "assistant", "content": ""});
        let choice = json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null});
        Some(self.chunk_of(head, json!([choice]), None))
    }

    fn chunk(&self, head: &Head, part: Part) -> Value {
        let delta = match (part.finish, part.text.is_empty()) {
            (Some(_), true) => json!({}),
            _ => json!({"content": part.text}),
        };
        let logprobs = logprobs(part.logprobs);
        let mut choice =
            json!({"index": part.index, "delta": delta, "logprobs": logprobs, "finish_reason": part.finish});
        if let Some(pearl) = part.pearl {
            choice["pearl"] = json!(pearl);
        }
        self.chunk_of(head, json!([choice]), None)
    }

    fn usage(&self, head: &Head, usage: Usage) -> Value {
        self.chunk_of(head, json!([]), Some(usage))
    }
}
