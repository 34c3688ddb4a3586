//! `GET /openapi.json`: the description of the server's addresses, made of the types that they read and write.

use axum::Json;
use serde_json::Value;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::answers::{PearlChoice, PromptTokens, TokenReading, TraceToken, Usage};
use super::chat::{
    AnswerMessage, ChatChoice, ChatFields, ChatLogprob, ChatLogprobs, ChatMessage, ChatRequest, ChatResponse,
};
use super::completions::{TextChoice, TextFields, TextLogprobs, TextPrompt, TextRequest, TextResponse};
use super::error::{ErrorBody, ErrorResponse};
use super::hidden_states::{OneDialogue, SiteStates, StateRow, StatesRequest, StatesResponse};
use super::models::{Health, LibraryList, ModelEntry, ModelList, ProbeEntry, VectorEntry};
use super::readings::{ProbeReadings, PromptToken, Reading, TurnReading, Verdict};
use super::request::{Common, OneOrMany, ResponseFormat, StreamOptions};

#[derive(OpenApi)]
#[openapi(
    info(title = "pearl serve", description = "An OpenAI-compatible server with steering and readings per request."),
    paths(chat, text, states, models, model, library, health, metrics, document_path),
    components(schemas(
        ChatRequest, ChatFields, ChatMessage, ChatResponse, ChatChoice, AnswerMessage, ChatLogprobs, ChatLogprob, Common, OneOrMany,
        ResponseFormat, StreamOptions, TextRequest, TextFields, TextPrompt, TextResponse, TextChoice, TextLogprobs, Usage, PromptTokens, PearlChoice,
        TokenReading, TraceToken, ProbeReadings, PromptToken, Reading, TurnReading, Verdict, StatesRequest, StatesResponse,
        StateRow, SiteStates, OneDialogue, ModelEntry, ModelList, LibraryList, VectorEntry, ProbeEntry, Health, ErrorBody, ErrorResponse,
    )),
    modifiers(&Key)
)]
struct Api;

struct Key;

impl Modify for Key {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// The document.
pub(super) async fn document() -> Json<Value> {
    // The document is made of strings, numbers and lists.
    Json(serde_json::to_value(Api::openapi()).unwrap_or_default())
}

macro_rules! paths {
    ($($name:ident: $method:ident $path:literal $(takes $request:ty)? => $response:ty $(, $kind:literal)? $(, wrong $wrong:literal)?;)*) => {
        $(
            #[utoipa::path($method, path = $path, $(request_body = $request,)? responses(
                (status = 200, body = $response $(, content_type = $kind)?),
                (status = "4XX", body = ErrorResponse),
                (status = "5XX", body = ErrorResponse),
            ), security((), ("key" = [])))]
            #[expect(dead_code, reason = "read by the derive above")]
            fn $name() {}
        )*
    };
}

paths! {
    chat: post "/v1/chat/completions" takes ChatRequest => ChatResponse;
    text: post "/v1/completions" takes TextRequest => TextResponse;
    states: post "/v1/hidden_states" takes StatesRequest => StatesResponse;
    models: get "/v1/models" => ModelList;
    library: get "/v1/pearl" => LibraryList;
    health: get "/health" => Health;
    metrics: get "/metrics" => String, "text/plain";
    document_path: get "/openapi.json" => Object;
}

#[utoipa::path(get, path = "/v1/models/{id}", params(("id" = String, Path)), responses(
    (status = 200, body = ModelEntry),
    (status = "4XX", body = ErrorResponse),
), security((), ("key" = [])))]
#[expect(dead_code, reason = "read by the derive above")]
fn model() {}
