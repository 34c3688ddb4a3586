//! The thread that renders chat templates: a closure in, its result out, unless it takes too long or no thread can be started.

use std::cell::RefCell;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::library_guard::caught;
use crate::error::Error;

/// The longest that a rendering is waited for. Fuel ends all work known to be slow within a second or two.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// Stack of the template thread: the engine walks expressions and values by recursion. Untouched pages take no memory.
const STACK_BYTES: usize = 256 << 20;

/// Why work on the template thread has no result.
pub(super) enum Unfinished {
    /// The thread can't be started, or died.
    NoThread(String),
    /// The work isn't done after [`TIMEOUT`].
    Late,
}

/// The error of a thread that can't be started.
pub(super) fn no_thread(error: &str) -> Error {
    let found = format!("no thread for the chat template can be started ({error})");
    let expected = format!(
        "{} MiB of address space, and a thread, to be free (ulimit -v, ulimit -u)",
        STACK_BYTES >> 20
    );
    Error::input("operating system", found, expected)
}

type Job = Box<dyn FnOnce() + Send>;

thread_local! {
    /// Queue of the template thread that belongs to this thread.
    static TEMPLATE_THREAD: RefCell<Option<Sender<Job>>> = const { RefCell::new(None) };
}

/// Runs `work` on a thread with a deep stack and gives its result.
///
/// Each calling thread keeps one such thread for further calls. Starting one per call costs more than most renderings, and
/// dropping the handle of a thread while it exits can read freed memory (glibc's `pthread_detach`).
pub(super) fn on_template_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unfinished> {
    let (sender, receiver) = channel();
    let ended = |_| Unfinished::NoThread("it ended".into());
    TEMPLATE_THREAD.with_borrow_mut(|queue| {
        if queue.is_none() {
            let (to, jobs) = channel::<Job>();
            let thread = std::thread::Builder::new().name("template".into()).stack_size(STACK_BYTES);
            let started = thread.spawn(move || jobs.into_iter().for_each(|job| job()));
            started.map_err(|error| Unfinished::NoThread(error.to_string()))?;
            *queue = Some(to);
        }
        // After a timeout the receiver is gone, and the result is dropped.
        let job: Job = Box::new(move || drop(sender.send(caught(work))));
        queue.as_ref().ok_or(()).map_err(ended)?.send(job).map_err(|_| ended(()))?;
        match receiver.recv_timeout(TIMEOUT) {
            Ok(result) => result.map_err(Unfinished::NoThread),
            Err(error) => {
                // The thread may not be free for a while; the next call starts another.
                *queue = None;
                match error {
                    RecvTimeoutError::Timeout => Err(Unfinished::Late),
                    RecvTimeoutError::Disconnected => Err(ended(())),
                }
            }
        }
    })
}
