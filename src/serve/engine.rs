//! The engine: one thread that owns the batch. It takes work from the queue, lets rows join and leave between tokens, and tells each
//! request what happens to its rows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::error::ApiError;
use super::job::{Answer, AnswerJob, Aside, Job, Step, What, send};
use super::metrics::Metrics;
use super::prefix_store::PrefixStore;
use super::queue::Queue;
use super::row_hooks::RowHooks;
use crate::error::Error;
use crate::generate::{Batch, Decoded, Finish, Joining};
use crate::model::{Model, PromptSteering, SHORTEST_PART, same_tokens};
use crate::steer::TraceEntry;

/// Bounds of the engine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Rows that are decoded side by side.
    pub rows: usize,
    /// Tokens of prompts in one pass.
    pub pass_tokens: usize,
    /// Bytes of kept prefixes.
    pub cache_bytes: usize,
}

/// A row in the batch.
struct Live {
    job: AnswerJob,
    begun: Instant,
    /// When its last token was decoded.
    last: Option<Instant>,
    trace: Vec<TraceEntry>,
}

/// The engine's state.
pub(super) struct Engine<'a> {
    model: &'a Model,
    queue: &'a Queue<Job>,
    metrics: &'a Metrics,
    limits: Limits,
    batch: Batch<'a>,
    hooks: RowHooks,
    store: PrefixStore,
    live: BTreeMap<usize, Live>,
    /// The next answers, in the order of their arrival.
    ready: VecDeque<AnswerJob>,
    asides: VecDeque<Box<dyn Aside>>,
}

impl<'a> Engine<'a> {
    /// An engine with nothing to do.
    pub fn new(model: &'a Model, queue: &'a Queue<Job>, metrics: &'a Metrics, limits: Limits) -> Engine<'a> {
        Engine {
            model,
            queue,
            metrics,
            limits,
            batch: Batch::new(model).pass_tokens(limits.pass_tokens),
            hooks: RowHooks::default(),
            store: PrefixStore::new(limits.cache_bytes),
            live: BTreeMap::new(),
            ready: VecDeque::new(),
            asides: VecDeque::new(),
        }
    }

    /// Works until the queue is closed and everything in it is done. `is_aborted`: whether what isn't done is given up.
    pub fn run(&mut self, is_aborted: &dyn Fn() -> bool) {
        loop {
            let is_idle = self.live.is_empty() && self.ready.is_empty() && self.asides.is_empty();
            let first = match is_idle {
                false => None,
                true => {
                    self.report();
                    let Some(job) = self.queue.wait() else { return };
                    Some(job)
                }
            };
            if is_aborted() {
                return;
            }
            // A failure of one pass ends its rows, not the server.
            let passed = catch_unwind(AssertUnwindSafe(|| {
                first.into_iter().for_each(|job| self.take(job));
                self.turn();
            }));
            if passed.is_err() {
                self.fail_all();
            }
        }
    }

    /// One turn: work is taken, rows leave and join, and a pass is run.
    fn turn(&mut self) {
        while self.ready.len() + self.asides.len() < self.limits.rows {
            match self.queue.take() {
                Some(job) => self.take(job),
                None => break,
            }
        }
        let abandoned = self.live.iter().filter(|(_, live)| live.job.events.is_closed());
        for row in abandoned.map(|(row, _)| *row).collect::<Vec<_>>() {
            self.metrics.abandoned.add(1);
            self.leave(row, false);
        }
        self.admit();
        self.report();
        if let Some(mut job) = self.asides.pop_front()
            && !job.is_abandoned()
            && !catch_unwind(AssertUnwindSafe(|| job.advance(self.model))).unwrap_or(true)
        {
            self.asides.push_back(job);
        }
        if !self.live.is_empty() {
            self.pass();
        }
    }

    fn report(&self) {
        self.metrics.rows.set(self.live.len());
        self.metrics.waiting.set(self.queue.lengths().0 + self.ready.len());
        self.metrics.cache_bytes.set(self.store.bytes());
    }

    /// Takes a piece of work.
    fn take(&mut self, job: Job) {
        match job {
            Job::Aside(job) => self.asides.push_back(job),
            Job::Answer(job) if job.events.is_closed() => self.metrics.abandoned.add(1),
            Job::Answer(job) => self.ready.push_back(*job),
        }
    }

    /// Lets answers join while there are free rows.
    fn admit(&mut self) {
        while self.live.len() < self.limits.rows {
            let Some(ready) = self.ready.pop_front() else { return };
            if ready.events.is_closed() {
                self.metrics.abandoned.add(1);
                continue;
            }
            // Another row of this pass reads what this one begins with: a pass later it is there.
            if self.is_being_read(&ready) {
                self.ready.push_front(ready);
                return;
            }
            self.join(ready);
        }
    }

    /// How many tokens an answer may take of another row's or a kept prompt's, of which it shares `length`.
    fn takes(&self, ready: &AnswerJob, other: PromptSteering, length: usize) -> usize {
        let same = ready.steered.takes.same(other, length);
        match self.model.decoder.takes(ready.prompt.len(), same) {
            few if few < SHORTEST_PART => 0,
            takes => takes,
        }
    }

    /// Whether a row whose prompt isn't read yet begins as this one, further than what is there already.
    fn is_being_read(&mut self, ready: &AnswerJob) -> bool {
        let most_unread = self.live.iter().filter_map(|(row, live)| {
            let (tokens, held) = self.batch.row(*row)?;
            let length = same_tokens(&tokens[..live.job.prompt.len()], &ready.prompt);
            let takes = self.takes(ready, live.job.steered.takes, length);
            (held < takes).then_some(takes)
        });
        let Some(most_unread) = most_unread.max() else { return false };
        let kept = self.store.find(&ready.prompt, ready.steered.takes).map_or(0, |(_, length)| length);
        most_unread > self.model.decoder.takes(ready.prompt.len(), kept)
    }

    fn join(&mut self, mut job: AnswerJob) {
        self.keep_of_live(&job);
        let prompt_length = job.prompt.len();
        let (hook, takes) = (std::mem::take(&mut job.steered.hook), job.steered.takes);
        let Some(row) = (0..).find(|row| !self.live.contains_key(row)) else { return };
        let mut prompt = job.prompt.to_vec();
        prompt.iter_mut().for_each(|token| token.row = row);
        let whole = !hook.is_local();
        let hook = hook.on_row(row);
        let found = self
            .store
            .find(&job.prompt, takes)
            .map(|(prefix, length)| (prefix, self.model.decoder.takes(prompt_length, length)));
        let found = found.filter(|(_, takes)| *takes >= SHORTEST_PART);
        let cached = found.as_ref().map_or(0, |(_, takes)| *takes);
        let key = hook.key(row);
        let joining = Joining {
            prompt,
            beginning: Vec::new(),
            options: job.options.clone(),
            random_stream: job.random_stream,
            stream: job.stream,
            whole,
            prefix: found.map(|(prefix, takes)| (prefix, takes, key)),
        };
        if let Err(error) = self.batch.join(joining) {
            return send(&job, What::Failed(error.into()));
        }
        self.metrics.prompt_tokens.add(prompt_length);
        self.metrics.cached_tokens.add(cached);
        send(&job, What::Begun { cached });
        self.hooks.insert(row, hook);
        let live = Live { job, begun: Instant::now(), last: None, trace: Vec::new() };
        let is_complete = live.job.options.max_tokens == 0;
        self.live.insert(row, live);
        // No pass tells of an answer without a token.
        if is_complete {
            self.leave(row, true);
        }
    }

    /// Keeps the part of a live row's prompt that an answer takes, where that is more than what is kept.
    fn keep_of_live(&mut self, ready: &AnswerJob) {
        let prompt = &ready.prompt;
        let mut best: Option<(usize, usize)> = None;
        for (row, live) in &self.live {
            let Some((tokens, held)) = self.batch.row(*row) else { continue };
            let length = same_tokens(&tokens[..live.job.prompt.len()], prompt).min(held);
            let takes = self.takes(ready, live.job.steered.takes, length);
            if takes > best.map_or(0, |(_, most)| most) {
                best = Some((*row, takes));
            }
        }
        let Some((row, takes)) = best else { return };
        let kept = self.store.find(prompt, ready.steered.takes).map_or(0, |(_, length)| length);
        if kept < takes {
            self.keep(row);
        }
    }

    /// Keeps the prompt of a row that is read.
    fn keep(&mut self, row: usize) {
        let Some(live) = self.live.get(&row) else { return };
        let prompt = live.job.prompt.len();
        let Some((_, held)) = self.batch.row(row) else { return };
        // Of a prompt that is shorter than a part nothing can be taken.
        if held < prompt
            || self.model.decoder.prefix_tokens().is_none_or(|unit| prompt < unit.max(SHORTEST_PART))
        {
            return;
        }
        let steering = live.job.steered.steering;
        if !self.store.is_used() || self.store.holds(&live.job.prompt, steering) {
            return;
        }
        if let Ok(prefix) = self.batch.prefix(row, prompt) {
            self.store.keep(live.job.prompt.to_vec(), steering, prefix);
        }
    }

    /// One forward pass, and what follows of it.
    fn pass(&mut self) {
        let begin = Instant::now();
        let (steps, passed) = self.decode(None);
        let now = Instant::now();
        let told: BTreeSet<usize> = steps.iter().map(|(row, ..)| *row).collect();
        self.tell(now, steps);
        match passed {
            Ok(()) => self.metrics.passes.observe(now - begin),
            Err(_) => self.pass_alone(&told),
        }
    }

    /// A pass of every row on its own, after one of all of them failed: the rows whose own pass fails end, and the others go on as if
    /// nothing had been.
    fn pass_alone(&mut self, told: &BTreeSet<usize>) {
        if self.batch.undo().is_err() {
            return self.fail_all();
        }
        for row in self.live.keys().copied().filter(|row| !told.contains(row)).collect::<Vec<_>>() {
            let held = self.batch.row(row).map_or(0, |(_, held)| held);
            if let (Some(live), Some(hook)) = (self.live.get_mut(&row), self.hooks.get_mut(row)) {
                live.trace.extend(hook.take_trace());
                live.trace.retain(|entry| entry.position < held);
            }
            let (steps, passed) = self.decode(Some(row));
            self.tell(Instant::now(), steps);
            let Err(error) = passed else { continue };
            self.metrics.failed.add(1);
            self.hooks.remove(row);
            if let Some(live) = self.live.remove(&row) {
                send(&live.job, What::Failed(error));
                // The row is gone; its text is of no use.
                let _ = self.batch.leave(row, &live.job.dialogue);
            }
            if self.batch.undo().is_err() {
                return self.fail_all();
            }
        }
    }

    /// A pass of all rows, or of one: what was decoded, and whether it was run to its end.
    fn decode(&mut self, only: Option<usize>) -> (Vec<Decoding>, std::result::Result<(), ApiError>) {
        let mut steps = Vec::new();
        let Engine { batch, hooks, .. } = self;
        let passed = unless_panics(|| {
            let mut heard = |decoded: Decoded| {
                let phase = decoded.token.map(|token| token.phase);
                let (logits, read) = (decoded.logits.cloned(), Vec::new());
                steps.push((decoded.row, Step { text: decoded.text, phase, logits, read }, decoded.finish));
            };
            let passed = match only {
                None => batch.step(hooks, &mut heard),
                Some(row) => batch.step_alone(row, hooks, &mut heard),
            };
            passed.map_err(ApiError::from)
        });
        (steps, passed)
    }

    fn tell(&mut self, now: Instant, steps: Vec<Decoding>) {
        for (row, step, finish) in steps {
            self.heard(row, now, step, finish);
        }
    }

    /// Tells a request of a step.
    fn heard(&mut self, row: usize, now: Instant, mut step: Step, finish: Option<Finish>) {
        if let (Some(live), Some(hook)) = (self.live.get_mut(&row), self.hooks.get_mut(row)) {
            match live.last.replace(now) {
                None => self.metrics.first_token.observe(now - live.begun),
                Some(last) => self.metrics.tokens.observe(now - last),
            }
            self.metrics.generated.add(usize::from(step.phase.is_some()));
            if live.job.trace {
                live.trace.extend(hook.take_trace());
            }
            if live.job.stream {
                step.read = hook.take_new();
            }
            send(&live.job, What::Step(Box::new(step)));
        }
        if finish.is_some() {
            self.leave(row, true);
        }
    }

    /// Removes a row. A complete one is told to its request.
    fn leave(&mut self, row: usize, is_complete: bool) {
        self.keep(row);
        let hook = self.hooks.remove(row);
        let Some(mut live) = self.live.remove(&row) else { return };
        let tokens = self.batch.row(row).map(|(tokens, _)| tokens.to_vec()).unwrap_or_default();
        let rest = self.batch.flush_text(row);
        let left = self.batch.leave(row, &live.job.dialogue);
        if !is_complete {
            return;
        }
        self.metrics.answers.add(1);
        let what = match left {
            Ok(Some((transcript, _))) => {
                let read = hook.map(|hook| hook.read).unwrap_or_default();
                let (trace, decision) = (live.trace, live.job.steered.decision.take());
                What::Done(Box::new(Answer { transcript, tokens, read, trace, decision, rest }))
            }
            Ok(None) => What::Failed(Error::Stopped.into()),
            Err(error) => What::Failed(error.into()),
        };
        send(&live.job, what);
    }

    /// Ends every row after a failure that no row is known to have caused.
    fn fail_all(&mut self) {
        self.metrics.failed.add(self.live.len());
        for live in std::mem::take(&mut self.live).into_values() {
            send(&live.job, What::Failed(inside()));
        }
        self.hooks = RowHooks::default();
        self.batch = Batch::new(self.model).pass_tokens(self.limits.pass_tokens);
    }
}

/// What a pass decoded in a row.
type Decoding = (usize, Step, Option<Finish>);

/// A failure that isn't the client's.
fn inside() -> ApiError {
    ApiError::server("a failure inside the server")
}

/// What work gives; a panic in it ends nothing but the work.
fn unless_panics<T>(
    work: impl FnOnce() -> std::result::Result<T, ApiError>,
) -> std::result::Result<T, ApiError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(inside()))
}
