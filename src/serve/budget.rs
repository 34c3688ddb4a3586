//! Bytes that requests hold together: a budget, and the share of it that each request has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::ApiError;

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

    /// Gives all of its bytes back.
    pub fn clear(&mut self) {
        self.budget.held.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.clear();
    }
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
