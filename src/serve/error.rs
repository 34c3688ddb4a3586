//! Errors as OpenAI's clients read them: a status and `{"error": {"message", "type", "param", "code"}}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::Error;
use crate::printable::one_line;

/// A refusal.
#[derive(Clone, Debug)]
pub struct ApiError {
    status: StatusCode,
    body: ErrorBody,
    /// Seconds after which the client may try again.
    retry_after: Option<u64>,
}

/// The body of an error.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What is wrong, and what would be right.
    pub message: String,
    /// The kind: `invalid_request_error`, `authentication_error`, `rate_limit_error`, `server_error` or `timeout_error`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The field that is wrong, where one is.
    pub param: Option<String>,
    /// A word for programs.
    pub code: Option<&'static str>,
}

/// An error's body, as it is sent.
#[derive(Serialize, ToSchema)]
pub struct ErrorResponse {
    /// The error.
    pub error: ErrorBody,
}

/// Longest message, in characters.
const LONGEST: usize = 2000;

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl std::fmt::Display) -> ApiError {
        let message = one_line(&message.to_string(), LONGEST).into_owned();
        ApiError { status, body: ErrorBody { message, kind, param: None, code: None }, retry_after: None }
    }

    /// A request that is wrong.
    pub fn invalid(message: impl std::fmt::Display) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A field that is wrong: what was found, and what would be right.
    pub fn field(name: &str, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> ApiError {
        ApiError::invalid(format_args!("{name}: {found}; expected {expected}")).param(name)
    }

    /// No such thing, under this name.
    pub fn not_found(message: impl std::fmt::Display, code: &'static str) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", message).code(code)
    }

    /// A key that is missing or wrong.
    pub fn unauthorized(message: impl std::fmt::Display) -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, "authentication_error", message).code("invalid_api_key")
    }

    /// A client that may not use the server at all.
    pub fn forbidden(message: impl std::fmt::Display) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, "invalid_request_error", message)
    }

    /// A queue that is full.
    pub fn busy(message: impl std::fmt::Display, seconds: u64) -> ApiError {
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        ApiError { retry_after: Some(seconds), ..error.code("rate_limit_exceeded") }
    }

    /// Whether the client may try again soon.
    pub fn is_busy(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS
    }

    /// A server that is going away.
    pub fn stopping() -> ApiError {
        let error =
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", "the server is shutting down");
        ApiError { retry_after: Some(5), ..error }
    }

    /// A request that took too long.
    pub fn timeout(message: impl std::fmt::Display) -> ApiError {
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout_error", message).code("timeout")
    }

    /// A body that is too large.
    pub fn too_large(message: impl std::fmt::Display) -> ApiError {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
    }

    /// A body of a form that the server doesn't read.
    pub fn unsupported(message: impl std::fmt::Display) -> ApiError {
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", message)
    }

    /// A method that an address doesn't take.
    pub fn method(message: impl std::fmt::Display) -> ApiError {
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message)
    }

    /// A failure that is not the client's.
    pub fn server(message: impl std::fmt::Display) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// Names the field.
    pub fn param(mut self, name: &str) -> ApiError {
        self.body.param = Some(one_line(name, 200).into_owned());
        self
    }

    /// Sets the word for programs.
    pub fn code(mut self, code: &'static str) -> ApiError {
        self.body.code = Some(code);
        self
    }

    /// The body.
    pub fn into_body(self) -> ErrorResponse {
        ErrorResponse { error: self.body }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> ApiError {
        match error {
            Error::Input { .. } => ApiError::invalid(error),
            Error::Stopped => ApiError::stopping(),
            _ => ApiError::server(error),
        }
    }
}

/// As an error of the library: the parts of `place: found; expected expected`, where the message has them.
impl From<ApiError> for Error {
    fn from(error: ApiError) -> Error {
        let message = error.body.message;
        let (found, expected) = message.split_once("; expected ").unwrap_or((&message, "another"));
        let (place, found) = found.split_once(": ").unwrap_or(("the request", found));
        Error::input(place, found, expected)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status, self.retry_after);
        let mut response = (status, Json(self.into_body())).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
