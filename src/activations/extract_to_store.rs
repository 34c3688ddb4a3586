//! The run over a file of dialogues: activations are written shard by shard as they come, so that memory does not grow
//! and a run that was killed goes on with the next shard. It knows nothing of formats.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use rayon::prelude::*;

use super::batching::{Pass, Row};
use super::extract::{Activations, Reading};
use super::journal::{Entry, Found, Journal};
use super::manifest::{Manifest, Part};
use super::shard;
use crate::artifact::Header;
use crate::dialogue::{Dialogue, DialogueStream};
use crate::error::{Error, Result};
use crate::model::{Dtype, Model};

/// A shard is closed when it has so many dialogues: enough for a few batches, few enough that little is lost when a run
/// dies, that memory is the same from the start, and that a small data set too can be shared out;
const DIALOGUES: usize = 64;
/// or so many tokens;
const TOKENS: usize = 1 << 16;
/// or is of so many bytes, once it fills a batch.
const BYTES: usize = 32 << 20;

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtractProgress {
    /// Dialogues that are behind it, those of earlier runs and of other parts among them.
    pub dialogues: usize,
    /// Tokens that this run has read.
    pub tokens: usize,
}

/// What a run did.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The whole store's.
    pub manifest: Manifest,
    /// Rows that were there before.
    pub resumed: usize,
    /// Tokens of the dialogues that were read.
    pub tokens: usize,
    /// Tokens that went through the model for them.
    pub computed: usize,
}

/// A shard on its way to the writer.
struct Job {
    number: usize,
    activations: Activations,
    end: usize,
    refused: usize,
}

/// Reads dialogues into a store, or goes on where an earlier run of the same stopped: the bytes are then the same.
/// `plan` says what makes the store; `tell` hears how far the run is, and stops it by giving false.
///
/// # Errors
/// A folder that another run made; a dialogue that the template refuses, unless `chosen.skip_bad`; a selector that
/// picks nothing in any dialogue. What was written before stays, and the same run goes on from it.
pub fn extract_to(
    folder: &Path,
    model: &Model,
    reading: &Reading,
    header: &Header,
    plan: &Manifest,
    dialogues: &mut DialogueStream,
    on_progress: &mut dyn FnMut(ExtractProgress) -> bool,
) -> Result<Summary> {
    let dtype: Dtype = plan.dtype.parse()?;
    let mut journal = match Journal::open(folder, header, plan)? {
        Found::Whole(manifest) => {
            let resumed = manifest.rows;
            return Ok(Summary { manifest, resumed, tokens: 0, computed: 0 });
        }
        Found::Open(journal) => journal,
    };
    let resumed = journal.entries.iter().map(|entry| entry.shard.rows).sum();
    let last = journal.entries.last();
    let mut work = Work {
        pass: Pass::new(model, reading, &[]),
        dialogues,
        skip_bad: plan.chosen.skip_bad,
        batch_tokens: reading.batch_tokens,
        row_bytes: dtype.size(),
        waiting: VecDeque::new(),
        refused: VecDeque::new(),
        number: last.map_or(0, |entry| entry.number + 1),
        end: 0,
        pulled: 0,
        drained: false,
        heard: ExtractProgress::default(),
    };
    work.row_bytes *= work.pass.width();
    work.skip(last.map_or(0, |entry| entry.end))?;

    let failed = AtomicBool::new(false);
    let (outcome, written) = std::thread::scope(|scope| {
        // One shard waits while another is written and a third is read.
        let (send, receive) = sync_channel::<Job>(1);
        let (journal, failed) = (&mut journal, &failed);
        let writer = scope.spawn(move || {
            let mut jobs = receive.into_iter();
            jobs.try_for_each(|job| write(journal, job, dtype))
                .inspect_err(|_| failed.store(true, Ordering::Relaxed))
        });
        let should_continue = &mut |heard| on_progress(heard) && !failed.load(Ordering::Relaxed);
        let outcome = work.read_all(plan.part, send, should_continue);
        (outcome, writer.join())
    });
    match written {
        Ok(written) => written?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    outcome?;
    let rows: usize = journal.entries.iter().map(|entry| entry.shard.rows).sum();
    if rows == 0 && plan.part.is_none() {
        journal.discard()?;
        if work.pulled == 0 {
            return Err(work.dialogues.no_dialogue());
        }
        let found = format!("nothing was picked in any of {} dialogues", work.pulled);
        let expected = "a selector of tokens that they have; `pearl tokens` shows them";
        return Err(Error::input(format!("tokens {}", plan.tokens), found, expected));
    }
    let refused = if plan.part.is_none_or(|part| part.has(work.number)) { work.refused.len() } else { 0 };
    let manifest = journal.finish(refused)?;
    Ok(Summary { manifest, resumed, tokens: work.heard.tokens, computed: work.pass.computed })
}

fn write(journal: &mut Journal, job: Job, dtype: Dtype) -> Result<()> {
    let Job { number, activations, end, refused } = job;
    journal.add(|folder| {
        let shard = shard::write(folder, number, &activations, dtype)?;
        Ok(Entry { shard, number, end, tokens: activations.tokens, refused })
    })
}

/// The reading side of a run.
struct Work<'a> {
    pass: Pass<'a>,
    dialogues: &'a mut DialogueStream,
    skip_bad: bool,
    batch_tokens: usize,
    /// Bytes of a row of activations.
    row_bytes: usize,
    /// Dialogues that are tokens already, each with its place among those asked for.
    waiting: VecDeque<(usize, Row)>,
    /// Places of dialogues that were refused and belong to no shard yet.
    refused: VecDeque<usize>,
    /// The next shard's.
    number: usize,
    /// How many dialogues are in shards.
    end: usize,
    /// How many dialogues were taken from the file.
    pulled: usize,
    drained: bool,
    heard: ExtractProgress,
}

impl Work<'_> {
    /// Passes over dialogues whose shards stand already.
    fn skip(&mut self, count: usize) -> Result<()> {
        for item in self.dialogues.by_ref().take(count) {
            item?;
            self.pulled += 1;
        }
        self.end = self.pulled;
        Ok(())
    }

    fn read_all(
        &mut self,
        part: Option<Part>,
        send: SyncSender<Job>,
        on_progress: &mut dyn FnMut(ExtractProgress) -> bool,
    ) -> Result<()> {
        self.heard.dialogues = self.end;
        if !on_progress(self.heard) {
            return Err(Error::Stopped);
        }
        while let Some(count) = self.next_shard()? {
            let number = self.number;
            let (places, rows): (Vec<usize>, Vec<Row>) = self.waiting.drain(..count).unzip();
            // A shard ends where its last dialogue does; what was refused before that is its own.
            let end = places.last().map_or(self.end, |last| last + 1);
            let before = self.refused.iter().take_while(|&&place| place < end).count();
            self.refused.drain(..before);
            if part.is_none_or(|part| part.has(number)) {
                let ExtractProgress { dialogues, tokens } = self.heard;
                let mut heard = |done: usize| {
                    let tokens = tokens + rows.iter().take(done).map(|row| row.length).sum::<usize>();
                    on_progress(ExtractProgress { dialogues: dialogues + done, tokens })
                };
                let mut read = self.pass.read(&rows, &mut heard)?;
                self.heard.tokens += rows.iter().map(|row| row.length).sum::<usize>();
                let job = Job { number, activations: read.remove(0), end, refused: before };
                // The writer has stopped; it says why.
                send.send(job).map_err(|_| Error::Stopped)?;
            }
            (self.number, self.end, self.heard.dialogues) = (number + 1, end, end);
            if !on_progress(self.heard) {
                return Err(Error::Stopped);
            }
        }
        Ok(())
    }

    /// How many of the waiting dialogues are the next shard's, having taken as many as it needs from the file; none
    /// when there are no more. The answer follows from the dialogues alone.
    fn next_shard(&mut self) -> Result<Option<usize>> {
        let (mut count, mut tokens, mut bytes) = (0, 0, 0);
        loop {
            while let Some((_, row)) = self.waiting.get(count) {
                count += 1;
                tokens += row.length;
                bytes += self.pass.count(row) * self.row_bytes;
                let full = tokens >= TOKENS || (bytes >= BYTES && tokens >= self.batch_tokens);
                if full || count == DIALOGUES {
                    return Ok(Some(count));
                }
            }
            if self.drained {
                return Ok((count > 0).then_some(count));
            }
            self.pull()?;
        }
    }

    /// Takes some more dialogues from the file and makes tokens of them.
    fn pull(&mut self) -> Result<()> {
        let taken = self.dialogues.by_ref().take(DIALOGUES).collect::<Result<Vec<(usize, Dialogue)>>>()?;
        self.drained = taken.len() < DIALOGUES;
        let rows: Vec<Result<Row>> =
            taken.par_iter().map(|(line, dialogue)| self.pass.row(*line, dialogue)).collect();
        for row in rows {
            match row {
                Ok(row) => self.waiting.push_back((self.pulled, row)),
                Err(Error::Input { .. }) if self.skip_bad => self.refused.push_back(self.pulled),
                Err(error) => return Err(error),
            }
            self.pulled += 1;
        }
        Ok(())
    }
}
