//! The queue between connections and the engine: bounded, in the order of arrival. Work that is still made ready has its place, and
//! keeps nothing behind it waiting.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

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
    /// With the number of its arrival, ascending.
    work: VecDeque<(u64, T)>,
    /// Places that are taken for work that isn't there yet.
    reserved: usize,
    /// Arrivals so far.
    arrivals: u64,
    is_closed: bool,
}

/// Places in the queue that were taken on arrival. What isn't filled is given back.
pub(super) struct Places<T: Work> {
    queue: Arc<Queue<T>>,
    arrival: u64,
    count: usize,
}

impl<T: Work> Places<T> {
    /// Puts as many pieces of work as places were taken into the queue, before what arrived later.
    ///
    /// # Errors
    /// A queue that was closed meanwhile.
    pub fn fill(mut self, work: Vec<T>) -> Result<(), Refused> {
        let queue = self.queue.clone();
        let mut state = queue.lock();
        state.reserved -= std::mem::take(&mut self.count);
        if state.is_closed {
            return Err(Refused::Closed);
        }
        let at = state.work.partition_point(|(arrival, _)| *arrival <= self.arrival);
        let later = state.work.split_off(at);
        state.work.extend(work.into_iter().map(|one| (self.arrival, one)));
        state.work.extend(later);
        queue.changed.notify_one();
        Ok(())
    }
}

impl<T: Work> Drop for Places<T> {
    fn drop(&mut self) {
        if self.count > 0 {
            self.queue.lock().reserved -= self.count;
        }
    }
}

impl<T: Work> Queue<T> {
    /// A queue of at most `limit` pieces of work.
    pub fn new(limit: usize) -> Queue<T> {
        let state = State { work: VecDeque::new(), reserved: 0, arrivals: 0, is_closed: false };
        Queue { state: Mutex::new(state), changed: Condvar::new(), limit }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code panics while it holds the lock; a queue is whole after every change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes places for so many pieces of work, or none.
    ///
    /// # Errors
    /// A queue without as many places, or that takes no more work.
    pub fn reserve(self: &Arc<Self>, count: usize) -> Result<Places<T>, Refused> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(Refused::Closed);
        }
        if state.work.len() + state.reserved + count > self.limit {
            state.work.retain(|(_, one)| !one.is_abandoned());
            if state.work.len() + state.reserved + count > self.limit {
                return Err(Refused::Full);
            }
        }
        state.reserved += count;
        state.arrivals += 1;
        Ok(Places { queue: self.clone(), arrival: state.arrivals, count })
    }

    /// The next piece; none where there is none now.
    pub fn take(&self) -> Option<T> {
        self.lock().work.pop_front().map(|(_, work)| work)
    }

    /// The next piece, once there is one; none after the queue was closed and emptied.
    pub fn wait(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some((_, work)) = state.work.pop_front() {
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

    /// The numbers of pieces that wait, and of those that are made ready.
    pub fn lengths(&self) -> (usize, usize) {
        let state = self.lock();
        (state.work.len(), state.reserved)
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

    fn push(queue: &Arc<Queue<Piece>>, work: Vec<Piece>) -> Result<(), Refused> {
        queue.reserve(work.len())?.fill(work)
    }

    fn left(queue: &Queue<Piece>) -> Vec<u32> {
        std::iter::from_fn(|| queue.take()).map(|piece| piece.0).collect()
    }

    #[test]
    fn a_full_queue_refuses_and_forgets_what_was_given_up() {
        let queue = Arc::new(Queue::new(3));
        assert_eq!(push(&queue, vec![Piece(1, false), Piece(2, true)]), Ok(()));
        // All of a request's rows, or none; the abandoned one makes room.
        let three = vec![Piece(3, false), Piece(4, false), Piece(5, false)];
        assert_eq!(push(&queue, three), Err(Refused::Full));
        assert_eq!(push(&queue, vec![Piece(6, false), Piece(7, false)]), Ok(()));
        assert_eq!(left(&queue), [1, 6, 7]);
        push(&queue, vec![Piece(8, false)]).unwrap();
        queue.close();
        assert_eq!(push(&queue, vec![Piece(9, false)]), Err(Refused::Closed));
        assert_eq!((queue.wait().map(|piece| piece.0), queue.wait().is_none()), (Some(8), true));
    }

    #[test]
    fn work_that_is_made_ready_keeps_its_place_and_nobody_waiting() {
        let queue = Arc::new(Queue::new(4));
        let slow = queue.reserve(2).unwrap();
        let given_up = queue.reserve(1).unwrap();
        push(&queue, vec![Piece(3, false)]).unwrap();
        // The places count as long as they are taken.
        assert_eq!((queue.lengths(), queue.reserve(1).err()), ((1, 3), Some(Refused::Full)));
        assert_eq!(left(&queue), [3]);
        drop(given_up);
        push(&queue, vec![Piece(4, false)]).unwrap();
        push(&queue, vec![Piece(5, false)]).unwrap();
        // What arrived first goes first as soon as it is ready.
        slow.fill(vec![Piece(1, false), Piece(2, false)]).unwrap();
        assert_eq!(left(&queue), [1, 2, 4, 5]);
        assert_eq!(queue.lengths(), (0, 0));
        let late = queue.reserve(1).unwrap();
        queue.close();
        assert_eq!((late.fill(vec![Piece(6, false)]), queue.lengths()), (Err(Refused::Closed), (0, 0)));
    }
}
