//! The queue between connections and the engine: bounded, in the order of arrival.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Work that may be given up by the client that waits for it.
pub(super) trait Work {
    /// Whether nobody waits for it any more.
    fn is_abandoned(&self) -> bool;
}

/// Why work is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are as many in the queue as it holds.
    Full,
    /// The server is going away.
    Closed,
}

/// A bounded queue.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    limit: usize,
}

struct State<T> {
    work: VecDeque<T>,
    is_closed: bool,
}

impl<T: Work> Queue<T> {
    /// A queue of at most `limit` pieces of work.
    pub fn new(limit: usize) -> Queue<T> {
        let state = State { work: VecDeque::new(), is_closed: false };
        Queue { state: Mutex::new(state), changed: Condvar::new(), limit }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code panics while it holds the lock; a queue is whole after every change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds all of these, or none.
    pub fn push(&self, work: Vec<T>) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(Refused::Closed);
        }
        if state.work.len() + work.len() > self.limit {
            state.work.retain(|one| !one.is_abandoned());
            if state.work.len() + work.len() > self.limit {
                return Err(Refused::Full);
            }
        }
        state.work.extend(work);
        self.changed.notify_one();
        Ok(())
    }

    /// The next piece; none where there is none now.
    pub fn take(&self) -> Option<T> {
        self.lock().work.pop_front()
    }

    /// The next piece, once there is one; none after the queue was closed and emptied.
    pub fn wait(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.work.pop_front() {
                return Some(work);
            }
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes no more work. What is in the queue is still done.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Whether it takes no more work.
    pub fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Gives up what is in the queue.
    pub fn clear(&self) {
        self.lock().work.clear();
    }

    /// The number of pieces that wait.
    pub fn len(&self) -> usize {
        self.lock().work.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Piece(u32, bool);

    impl Work for Piece {
        fn is_abandoned(&self) -> bool {
            self.1
        }
    }

    #[test]
    fn a_full_queue_refuses_and_forgets_what_was_given_up() {
        let queue = Queue::new(3);
        assert_eq!(queue.push(vec![Piece(1, false), Piece(2, true)]), Ok(()));
        // All of a request's rows, or none; the abandoned one makes room.
        assert_eq!(queue.push(vec![Piece(3, false), Piece(4, false), Piece(5, false)]), Err(Refused::Full));
        assert_eq!(queue.push(vec![Piece(6, false), Piece(7, false)]), Ok(()));
        let left: Vec<u32> = std::iter::from_fn(|| queue.take()).map(|piece| piece.0).collect();
        assert_eq!(left, [1, 6, 7]);
        queue.push(vec![Piece(8, false)]).unwrap();
        queue.close();
        assert_eq!(queue.push(vec![Piece(9, false)]), Err(Refused::Closed));
        assert_eq!((queue.wait().map(|piece| piece.0), queue.wait().is_none()), (Some(8), true));
    }
}
