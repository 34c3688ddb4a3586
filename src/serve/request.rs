//! What requests for answers have in common: the fields of decoding, steering and reading, checked, and made into options.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::error::ApiError;
use super::readings::Reader;
use super::shared::Shared;
use super::steering::{self, Steered};
use crate::dialogue::{Dialogue, Message};
use crate::generate::{GenerateOptions, KeptLogits, LogitsProcessor, Sampling};
use crate::model::Token;

/// One text or several.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(untagged, expecting = "a text or a list of texts")]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// As a list.
    pub fn list(&self) -> Vec<String> {
        match self {
            OneOrMany::One(text) => vec![text.clone()],
            OneOrMany::Many(texts) => texts.clone(),
        }
    }
}

/// How a stream is sent.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
pub struct StreamOptions {
    /// Whether a last chunk has the number of tokens.
    pub include_usage: Option<bool>,
}

/// The form of an answer's text.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct ResponseFormat {
    /// `text`.
    #[serde(rename = "type")]
    #[schema(pattern = "^text$")]
    pub kind: String,
}

/// The fields that requests for answers share. Fields that aren't listed are ignored.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
pub struct Common {
    /// The model's id, as `GET /v1/models` gives it; the server's model where none is given.
    pub model: Option<String>,
    /// Answers to each prompt.
    #[schema(minimum = 1)]
    #[serde(default, deserialize_with = "whole")]
    pub n: Option<usize>,
    /// Texts that end an answer.
    pub stop: Option<OneOrMany>,
    /// Seed of the draws. The same request with the same seed has the same answer.
    #[serde(default, deserialize_with = "whole")]
    pub seed: Option<i64>,
    /// From 0 (the likeliest token each time) to 2; 1 by default.
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f32>,
    /// Draws from the likeliest tokens whose probabilities sum to this.
    #[schema(minimum = 0, maximum = 1)]
    pub top_p: Option<f32>,
    /// Draws from this many of the likeliest tokens.
    #[serde(default, deserialize_with = "whole")]
    pub top_k: Option<i64>,
    /// Draws from tokens of at least this share of the greatest probability.
    #[schema(minimum = 0, maximum = 1)]
    pub min_p: Option<f32>,
    /// Penalty on tokens that occurred before; 1 for none.
    pub repetition_penalty: Option<f32>,
    /// Not supported, but for 0.
    pub presence_penalty: Option<f64>,
    /// Not supported, but for 0.
    pub frequency_penalty: Option<f64>,
    /// Not supported, but for an empty one.
    #[schema(value_type = Option<Object>)]
    pub logit_bias: Option<Value>,
    /// Tokens of an answer, at most.
    #[serde(default, deserialize_with = "whole")]
    pub max_tokens: Option<i64>,
    /// Whether the answer is sent as it arises, by server-sent events.
    pub stream: Option<bool>,
    /// How a stream is sent.
    pub stream_options: Option<StreamOptions>,
    /// Only `{"type": "text"}` is supported.
    #[schema(value_type = Option<ResponseFormat>)]
    pub response_format: Option<Value>,
    /// Tokens of the thinking part, at most: then it is closed.
    #[serde(default, deserialize_with = "whole")]
    pub think_budget: Option<usize>,
    /// Steering: a plan's name, `{"plan": NAME, "scale": NUMBER}`, `{"interventions": […]}`, EasySteer's `{"vectors": […]}`,
    /// or `{"constructive": NAME}`.
    #[schema(value_type = Option<Object>)]
    pub steering: Option<Value>,
    /// Probes that are read: `NAME`, `NAME:CLASS`, `NAME:CLASS/OTHER`, or `*` for all.
    pub probes: Option<OneOrMany>,
    /// Whether every token of the prompt is in the readings too.
    pub probe_prompt: Option<bool>,
    /// Whether the answer says what was read and changed at every token.
    pub trace: Option<bool>,
    /// Whether the unsteered answers are given too, after the steered ones.
    pub compare: Option<bool>,
}

/// A whole number, `5.0` among them: to JSON it is the same as `5`.
pub(super) fn whole<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Option<T>, D::Error> {
    let mut value = Value::deserialize(from)?;
    // Beyond, f64 holds no longer every whole number.
    let is_exact = |number: &f64| number.fract() == 0.0 && number.abs() < 9e15;
    if let Some(number) = value.as_f64().filter(|number| value.is_f64() && is_exact(number)) {
        value = Value::from(number as i64);
    }
    serde_json::from_value(value).map_err(serde::de::Error::custom)
}

/// Longest list of stop texts.
const MOST_STOPS: usize = 64;
/// Longest stop text, in bytes: each is looked for at every token.
const LONGEST_STOP: usize = 1024;
/// Most log-probabilities of a token.
const MOST_LOGPROBS: usize = 20;

/// A checked request.
pub(super) struct Checked {
    /// Answers to each prompt, of each kind.
    pub n: usize,
    /// How they are decoded.
    pub options: GenerateOptions,
    /// The steering, if any.
    pub steered: Steered,
    /// What is read.
    pub readers: Vec<Arc<Reader>>,
    pub probe_prompt: bool,
    pub trace: bool,
    pub compare: bool,
    pub stream: bool,
    pub include_usage: bool,
}

impl Checked {
    /// Whether each choice is steered: first the answers under the plan, then the unsteered ones.
    pub fn kinds(&self) -> Vec<bool> {
        match (self.steered.is_some(), self.compare) {
            (steered, true) => [vec![steered; self.n], vec![false; self.n]].concat(),
            (steered, false) => vec![steered; self.n],
        }
    }
}

impl Common {
    /// Checks the fields. `max_tokens`: as it was asked for, with the name of its field; `logprobs`: of how many likeliest tokens.
    pub(super) fn check(
        &self,
        shared: &Shared,
        (max_tokens, field): (Option<i64>, &str),
        logprobs: Option<usize>,
    ) -> Result<Checked, ApiError> {
        shared.check_model(self.model.as_deref())?;
        self.refuse_unsupported()?;
        let limits = &shared.limits;
        let n = self.n.unwrap_or(1);
        if n == 0 || n > limits.choices {
            return Err(ApiError::field("n", n, format_args!("from 1 to {}", limits.choices)));
        }
        let stop = self.stop.as_ref().map(OneOrMany::list).unwrap_or_default();
        if stop.len() > MOST_STOPS {
            return Err(ApiError::field(
                "stop",
                format_args!("{} texts", stop.len()),
                format_args!("at most {MOST_STOPS}"),
            ));
        }
        if stop.iter().any(String::is_empty) {
            return Err(ApiError::field("stop", "an empty text", "a text that ends an answer"));
        }
        if let Some(share) = self.min_p.filter(|share| !(0.0..=1.0).contains(share)) {
            return Err(ApiError::field("min_p", share, "from 0 to 1"));
        }
        if let Some(penalty) =
            self.repetition_penalty.filter(|penalty| !(penalty.is_finite() && *penalty > 0.0))
        {
            return Err(ApiError::field("repetition_penalty", penalty, "a number above 0; 1 for none"));
        }
        if let Some(long) = stop.iter().find(|text| text.len() > LONGEST_STOP) {
            let expected = format!("at most {LONGEST_STOP}");
            return Err(ApiError::field("stop", format_args!("a text of {} bytes", long.len()), expected));
        }
        if let Some(count) = logprobs.filter(|count| *count > MOST_LOGPROBS) {
            return Err(ApiError::field("top_logprobs", count, format_args!("from 0 to {MOST_LOGPROBS}")));
        }
        let max_tokens = match max_tokens {
            None => limits.default_tokens,
            Some(count) => match usize::try_from(count) {
                Ok(count) if count <= limits.answer_tokens => count,
                _ => {
                    let expected = format!("from 0 to {}, the server's limit", limits.answer_tokens);
                    return Err(ApiError::field(field, count, expected));
                }
            },
        };
        let temperature = self.temperature.unwrap_or(1.0);
        if !(0.0..=2.0).contains(&temperature) {
            return Err(ApiError::field("temperature", temperature, "from 0 to 2"));
        }
        let top_p = self.top_p.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&top_p) {
            return Err(ApiError::field("top_p", top_p, "from 0 to 1"));
        }
        let top_k = match self.top_k {
            // As other servers have it, neither cuts anything.
            None | Some(-1 | 0) => None,
            Some(count) => Some(
                usize::try_from(count).map_err(|_| ApiError::field("top_k", count, "1 or more, or -1"))?,
            ),
        };
        let processor = LogitsProcessor {
            repetition_penalty: self.repetition_penalty.filter(|penalty| *penalty != 1.0),
            top_k,
            // Of probability 0 there is always one token: the likeliest.
            top_p: (top_p < 1.0).then_some(top_p.max(f32::MIN_POSITIVE)),
            min_p: self.min_p.filter(|share| *share != 0.0),
        };
        let sampling = match temperature > 0.0 {
            true => Sampling::temperature(temperature)
                .map_err(|error| ApiError::from(error).param("temperature"))?,
            false => Sampling::Greedy,
        };
        let options = GenerateOptions::default()
            .sampling(sampling)
            .logits_processor(processor)
            .max_tokens(max_tokens)
            .stop(stop)
            .think_budget(self.think_budget)
            .seed(self.seed.map_or_else(rand::random, |seed| seed as u64))
            .thinking(shared.thinking)
            .logits(logprobs.map_or(KeptLogits::None, KeptLogits::Top));
        options.check()?;
        let probes = self.probes.as_ref().map(OneOrMany::list).unwrap_or_default();
        let readers = Reader::find(&shared.library, &probes)?.into_iter().map(Arc::new).collect();
        let steered = match &self.steering {
            None => Steered::default(),
            Some(field) => steering::steered(field, &shared.library)?,
        };
        if self.stream_options.is_some() && !self.stream.unwrap_or(false) {
            return Err(ApiError::field(
                "stream_options",
                "options of a stream",
                "\"stream\": true beside them",
            ));
        }
        let include_usage = self.stream_options.and_then(|options| options.include_usage).unwrap_or(false);
        Ok(Checked {
            n,
            options,
            steered,
            readers,
            probe_prompt: self.probe_prompt.unwrap_or(false),
            trace: self.trace.unwrap_or(false),
            compare: self.compare.unwrap_or(false),
            stream: self.stream.unwrap_or(false),
            include_usage,
        })
    }

    /// Refuses what would change the answer and isn't there.
    fn refuse_unsupported(&self) -> Result<(), ApiError> {
        match &self.response_format {
            None | Some(Value::Null) => {}
            Some(format) if format["type"] == "text" => {}
            Some(format) => {
                let found = match format.get("type") {
                    Some(kind) => format!("type {kind}, which this server doesn't support"),
                    None => format.to_string(),
                };
                return Err(ApiError::field("response_format", found, "{\"type\": \"text\"}"));
            }
        }
        for (name, penalty) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            if let Some(penalty) = penalty.filter(|penalty| *penalty != 0.0) {
                let found = format!("{penalty}, which this server doesn't support");
                return Err(ApiError::field(name, found, "0, or a repetition_penalty"));
            }
        }
        match &self.logit_bias {
            None | Some(Value::Null) => Ok(()),
            Some(Value::Object(bias)) if bias.is_empty() => Ok(()),
            Some(_) => {
                Err(ApiError::field("logit_bias", "a bias, which this server doesn't support", "none"))
            }
        }
    }
}

/// Reads a body as JSON.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // A list would be read as the fields in their order.
    if body.trim_ascii_start().first().is_some_and(|first| *first != b'{')
        && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
    {
        return Err(ApiError::invalid(
            "the body is no JSON object; expected one with the fields of a request",
        ));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let named = !matches!(path.as_str(), "." | "?" | "");
        let inner = error.into_inner();
        if !inner.is_data() {
            return ApiError::invalid(format_args!("the body is no JSON: {inner}"));
        }
        let message = inner.to_string();
        let quoted = |begin: &str| message.strip_prefix(begin).and_then(|rest| rest.split('`').next());
        match (quoted("missing field `"), quoted("duplicate field `")) {
            (Some(name), _) if named => ApiError::field(&format!("{path}.{name}"), "nothing", "a value"),
            (Some(name), _) => ApiError::field(name, "nothing", "a value"),
            (_, Some(name)) if named => {
                ApiError::field(&format!("{path}.{name}"), "it is there twice", "one")
            }
            (_, Some(name)) => ApiError::field(name, "it is there twice", "one"),
            _ if named => {
                let (found, expected) = plain(&message);
                ApiError::field(&path, found, expected)
            }
            _ => ApiError::invalid(message),
        }
    })?;
    reader.end().map_err(|error| ApiError::invalid(format_args!("the body is no JSON: {error}")))?;
    Ok(read)
}

/// What was found and what would be right, of serde's message about a value.
fn plain(message: &str) -> (&str, &str) {
    let message = message.split(" at line ").next().unwrap_or(message);
    let Some((found, expected)) = message.rsplit_once(", expected ") else {
        return ("another value", message);
    };
    let found =
        found.strip_prefix("invalid type: ").or(found.strip_prefix("invalid value: ")).unwrap_or(found);
    let found = match found {
        "sequence" => "a list",
        "map" => "an object",
        other => other,
    };
    let expected = match expected {
        "f32" | "f64" => "a number",
        "usize" | "u32" | "u64" => "a whole number, 0 or more",
        "i64" => "a whole number of 64 bits",
        "a boolean" => "true or false",
        "a string" => "a text",
        "a sequence" => "a list",
        other if other.starts_with("struct ") => "an object",
        other => other,
    };
    (found, expected)
}

/// Bytes of a prompt for each token of the context: tokens are shorter but for runs of spaces and unknown words.
const TOKEN_BYTES: usize = 256;
/// Bytes that a prompt may have in any context.
const SHORT_PROMPT: usize = 64 << 10;

/// Refuses a prompt that is far longer than the context, before it is cut into tokens, which takes many times its size.
pub(super) fn check_bytes(bytes: usize, shared: &Shared, name: &str) -> Result<(), ApiError> {
    let context = shared.context();
    let most = context.saturating_mul(TOKEN_BYTES).saturating_add(SHORT_PROMPT);
    if bytes <= most {
        return Ok(());
    }
    let expected = format!("at most {most}: the model's context is {context} tokens");
    Err(ApiError::field(name, format_args!("a prompt of {bytes} bytes"), expected)
        .code("context_length_exceeded"))
}

/// Bytes of a dialogue's texts.
pub(super) fn bytes_of(dialogue: &Dialogue) -> usize {
    let fields = |message: &Message| {
        message.fields.iter().map(|(name, value)| name.len() + value.to_string().len()).sum::<usize>()
    };
    dialogue.messages.iter().map(|message| message.content.len() + fields(message)).sum()
}

/// Refuses a prompt that leaves no room in the model's context, and cuts the answer to the room that there is.
pub(super) fn fit(
    prompt: &[Token],
    options: &GenerateOptions,
    shared: &Shared,
) -> Result<GenerateOptions, ApiError> {
    let context = shared.context();
    let room = context.saturating_sub(prompt.len());
    if prompt.is_empty() {
        return Err(ApiError::invalid("a prompt without a token").param("prompt"));
    }
    if room == 0 && options.max_tokens > 0 || prompt.len() > context {
        let found = format!("the prompt has {} tokens; the model's context is {context}", prompt.len());
        return Err(ApiError::invalid(found).param("messages").code("context_length_exceeded"));
    }
    Ok(options.clone().max_tokens(options.max_tokens.min(room)))
}
