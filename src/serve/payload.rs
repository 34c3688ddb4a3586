//! The body of a request, read within two limits: its own bytes, and the bytes of all requests that the server holds at a time.

use std::pin::Pin;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_ENCODING;
use tokio::time::timeout;

use super::budget::Share;
use super::error::ApiError;
use super::shared::Shared;

/// The body of a request, and its share of the bytes that the server holds.
pub(super) struct Payload {
    /// The bytes.
    pub body: Vec<u8>,
    /// What the request holds: its body, and what is made of it.
    pub share: Share,
}

/// Bytes of a body that is refused that are still read, so that the client can read why it is refused.
const DRAINED: usize = 256 << 20;

impl FromRequest<Arc<Shared>> for Payload {
    type Rejection = ApiError;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Payload, ApiError> {
        let coding = request
            .headers()
            .get(CONTENT_ENCODING)
            .filter(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
        let refused = coding.map(|coding| {
            let found = String::from_utf8_lossy(coding.as_bytes());
            ApiError::unsupported(format_args!(
                "a body coded as {found:?}; expected one that is not compressed"
            ))
        });
        let seconds = shared.limits.read_timeout;
        let share = Share::of(&shared.budget);
        let read =
            timeout(seconds, read_body(request.into_body(), (shared.limits.body, share), refused)).await;
        let read = read.unwrap_or_else(|_| {
            Err(ApiError::timeout(format_args!("the body did not arrive within {} s", seconds.as_secs())))
        });
        read.inspect_err(|error| shared.metrics.refused.add(usize::from(error.is_busy())))
    }
}

/// Reads a body. `refused`: why it is refused already; then it is read to its end, and nothing of it is kept.
async fn read_body(
    mut body: Body,
    (limit, share): (usize, Share),
    mut refused: Option<ApiError>,
) -> Result<Payload, ApiError> {
    let (mut payload, mut length) = (Payload { body: Vec::new(), share }, 0usize);
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|error| ApiError::invalid(format_args!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        length = length.saturating_add(data.len());
        if refused.is_none() {
            let grown = match length <= limit {
                true => payload.share.grow(data.len()),
                false => {
                    let message = format!("a body of more than {limit} bytes, the server's limit");
                    Err(ApiError::too_large(message))
                }
            };
            match grown {
                Ok(()) => payload.body.extend_from_slice(&data),
                Err(error) => {
                    // What was read of it makes room for others, while the rest of it comes in.
                    payload.body = Vec::new();
                    payload.share.clear();
                    refused = Some(error);
                }
            }
        }
        if length > DRAINED {
            break;
        }
    }
    refused.map_or(Ok(payload), Err)
}
