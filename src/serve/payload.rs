//! The body of a request, read within two limits: its own bytes, and the bytes of all requests that the server holds at a time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_ENCODING;
use tokio::time::timeout;

use super::error::ApiError;
use super::shared::Shared;

/// Bytes that requests hold together, at most a limit.
pub(super) struct Budget {
    held: AtomicUsize,
    limit: usize,
}

impl Budget {
    /// A budget of `limit` bytes, none of which is held.
    pub fn new(limit: usize) -> Arc<Budget> {
        Arc::new(Budget { held: AtomicUsize::new(0), limit })
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// Bytes of a budget that one request holds, until it is dropped.
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    /// A share without a byte.
    pub fn of(budget: &Arc<Budget>) -> Share {
        Share { budget: budget.clone(), bytes: 0 }
    }

    /// Holds more bytes.
    ///
    /// # Errors
    /// More than the budget has left, or has at all; the share is then as before.
    pub fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        let limit = self.budget.limit;
        if self.bytes.saturating_add(bytes) > limit {
            let message =
                format!("a request that takes more than {limit} bytes, the server's limit for all of them");
            return Err(ApiError::too_large(message));
        }
        let grown = |held: usize| held.checked_add(bytes).filter(|held| *held <= limit);
        match self.budget.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown) {
            Ok(_) => {
                self.bytes += bytes;
                Ok(())
            }
            Err(_) => {
                let message =
                    format!("requests that wait fill {limit} bytes, the server's limit; try again soon");
                Err(ApiError::busy(message, 1))
            }
        }
    }

    fn clear(&mut self) {
        self.budget.held.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.clear();
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_bounded_together_and_given_back() {
        let budget = Budget::new(100);
        let (mut one, mut other) = (Share::of(&budget), Share::of(&budget));
        assert!(one.grow(60).is_ok() && other.grow(41).is_err() && other.grow(40).is_ok());
        assert!(other.grow(1).is_err_and(|error| error.is_busy()));
        // What never fits isn't worth another try.
        assert!(one.grow(usize::MAX).is_err_and(|error| !error.is_busy()));
        assert_eq!(budget.held(), 100);
        drop(one);
        assert_eq!(budget.held(), 40);
        assert!(other.grow(60).is_ok());
        drop(other);
        assert_eq!(budget.held(), 0);
    }
}
