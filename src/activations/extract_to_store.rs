//! Extraction to disk: a file of dialogues in, a store of activations out.
//!
//! Activations are written shard by shard, so that memory use is constant in the number of dialogues and an interrupted run
//! continues with the next shard.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use rayon::prelude::*;

use super::activations::Activations;
use super::batching::{Extractor, TokenisedDialogue};
use super::journal::{self, Entry, FolderState, Journal};
use super::manifest::{self, Manifest};
use super::request::Request;
use super::shard;
use super::steering::Steering;
use crate::artifact::{self, Assignment, Header, Part};
use crate::dialogue::{self, Dialogue, DialogueStream, Skipped};
use crate::error::{Error, Result};
use crate::model::{Dtype, Model, TooLong};

/// Dialogues of a shard at most: enough for a few batches; few enough that an interruption loses little work and that
/// small data sets divide into parts.
const DIALOGUES: usize = 64;
/// Tokens at which a shard is closed: eight batches, and little enough that parts of long dialogues come out even.
const TOKENS: usize = 1 << 14;
/// Dialogues whose lengths are checked at a time.
const CHECKED: usize = 1024;
/// Bytes of activations at which a shard is closed, once its tokens fill a batch.
const BYTES: usize = 32 << 20;

/// Progress of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtractProgress {
    /// Dialogues done, including those of earlier runs and of other parts.
    pub dialogues: usize,
    /// Tokens of the dialogues that this run has done.
    pub tokens: usize,
}

/// Result of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The manifest of the whole store.
    pub manifest: Manifest,
    /// Rows that earlier runs had written.
    pub resumed: usize,
    /// Tokens of the dialogues that this run extracted.
    pub tokens: usize,
    /// Tokens that went through the model for them; shared prefixes and cut ends make it smaller.
    pub computed: usize,
    /// Dialogues that the template or the model refused in this run.
    pub refused: Skipped,
}

/// A shard on its way to the writer.
struct Job {
    number: usize,
    activations: Activations,
    /// `[rows]`: fingerprints of the rows' dialogues.
    fingerprints: Vec<i64>,
    end: usize,
    refused: usize,
    unpicked: usize,
    /// Tokens that each part has up to here.
    loads: Vec<u64>,
}

/// How a store is written, and from which dialogues of a file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Which dialogues of the file, and how they are read.
    pub dialogues: dialogue::ReadOptions,
    /// The type that activations are stored in.
    pub dtype: Dtype,
    /// The part of the dialogues to extract; all of them where none.
    pub part: Option<Part>,
    /// SHA-256 of the file in hex, if known; computed otherwise.
    pub data_hash: Option<String>,
}

impl StoreOptions {
    /// Sets which dialogues to read.
    pub fn dialogues(self, dialogues: dialogue::ReadOptions) -> StoreOptions {
        StoreOptions { dialogues, ..self }
    }

    /// Sets the type that activations are stored in.
    pub fn dtype(self, dtype: Dtype) -> StoreOptions {
        StoreOptions { dtype, ..self }
    }

    /// Sets the part of the dialogues to extract.
    pub fn part(self, part: Option<Part>) -> StoreOptions {
        StoreOptions { part, ..self }
    }

    /// Sets the known SHA-256 of the file.
    pub fn data_hash(self, hash: String) -> StoreOptions {
        StoreOptions { data_hash: Some(hash), ..self }
    }
}

impl Default for StoreOptions {
    /// All dialogues, as f32: the type that the residual stream is computed in.
    fn default() -> StoreOptions {
        StoreOptions {
            dialogues: dialogue::ReadOptions::default(),
            dtype: Dtype::F32,
            part: None,
            data_hash: None,
        }
    }
}

/// What identifies the run that makes a store: model, data, request and types. A folder that another run made differs in
/// it.
///
/// Where the chat template asks for the date, that is part of it: the day that the model was given, else that of the run which
/// began the store, else today.
fn provenance(
    out: &Path,
    model: &Model,
    data: &Path,
    request: &Request,
    (options, steering): (&StoreOptions, Option<&Steering>),
) -> Result<(Header, Manifest)> {
    let data_hash = match &options.data_hash {
        Some(hash) => hash.clone(),
        None => artifact::sha256_file(data)?,
    };
    let header = Header {
        model: Some(model.name.clone()),
        model_hash: Some(model.hash.clone()),
        model_form: Some(model.form()?),
        data_hash: Some(data_hash),
        ..Header::new(manifest::KIND, manifest::VERSION)
    };
    let date = model.chat.date().map(|today| {
        let date = model.chat.fixed_date().or_else(|| journal::begun_on(out)).unwrap_or(today);
        model.chat.fix_date(date);
        date.to_string()
    });
    let family = &model.decoder.architecture().family;
    let dataset = data.display().to_string();
    let plan = Manifest {
        chosen: options.dialogues.clone(),
        dtype: options.dtype.to_string(),
        weights: Some(model.dtype.clone()),
        template: model.chat.template().map(|source| artifact::sha256(source.as_bytes())),
        thinking: request.thinking,
        date,
        batch_tokens: Some(request.batch_tokens),
        part: options.part,
        balanced_by: options.part.map(|_| manifest::BALANCE.into()),
        plan: steering.map(|steering| steering.hash.clone()),
        ..Manifest::new(family, &dataset, request.sites.clone(), &request.tokens)
    };
    Ok((header, plan))
}

/// Extracts activations of a file of dialogues to a store at `out`, or continues an interrupted run of the same request;
/// the bytes are the same either way. `on_progress` stops the run by returning false.
///
/// # Errors
/// A folder that another run made; a dialogue that the template refuses, unless `options.dialogues.skip_bad`; a selector
/// that picks nothing in any dialogue; a stopped run. Finished shards stay, and the same run continues after them.
pub fn extract_to_store(
    out: &Path,
    model: &Model,
    data: &Path,
    request: &Request,
    options: &StoreOptions,
    on_progress: &mut dyn FnMut(ExtractProgress) -> bool,
) -> Result<Summary> {
    extract_steered_to_store(out, model, data, request, (options, None), on_progress)
}

/// As [`extract_to_store`], of a model that is steered while it is read.
///
/// # Errors
/// As [`extract_to_store`]; a plan that can't be applied to some dialogue.
pub fn extract_steered_to_store(
    out: &Path,
    model: &Model,
    data: &Path,
    request: &Request,
    (options, steering): (&StoreOptions, Option<&Steering>),
    on_progress: &mut dyn FnMut(ExtractProgress) -> bool,
) -> Result<Summary> {
    let mut dialogues = dialogue::stream(data, &options.dialogues)?;
    let (header, plan) = provenance(out, model, data, request, (options, steering))?;
    let dtype = options.dtype;
    let mut journal = match Journal::open(out, &header, &plan)? {
        FolderState::Complete(manifest) => {
            let resumed = manifest.rows;
            let refused = Skipped::default();
            return Ok(Summary { manifest: *manifest, resumed, tokens: 0, computed: 0, refused });
        }
        FolderState::Open(journal) => journal,
    };
    if request.too_long == TooLong::Error && !options.dialogues.skip_bad {
        refuse_long(model, data, request, &options.dialogues)?;
    }
    let resumed = journal.entries.iter().map(|entry| entry.shard.rows).sum();
    let last = journal.entries.last();
    let mut producer = Producer {
        extractor: Extractor::new(model, request, &[]).steered(steering),
        dialogues: &mut dialogues,
        skip_bad: options.dialogues.skip_bad,
        skip_long: request.too_long == TooLong::Skip,
        batch_tokens: request.batch_tokens,
        row_bytes: dtype.size(),
        waiting: VecDeque::new(),
        refused: VecDeque::new(),
        reasons: Skipped::default(),
        number: last.map_or(0, |entry| entry.number + 1),
        end: 0,
        pulled: 0,
        is_drained: false,
        assignment: plan
            .part
            .map(|part| Assignment::new(part, last.map_or(Vec::new(), |entry| entry.loads.clone()))),
        is_ours: true,
        progress: ExtractProgress::default(),
    };
    producer.row_bytes *= producer.extractor.width();
    producer.skip(last.map_or(0, |entry| entry.end))?;

    let failed = AtomicBool::new(false);
    let (outcome, written) = std::thread::scope(|scope| {
        // One shard waits while another is written and a third is computed.
        let (send, receive) = sync_channel::<Job>(1);
        let (journal, failed) = (&mut journal, &failed);
        let writer = scope.spawn(move || {
            let mut jobs = receive.into_iter();
            jobs.try_for_each(|job| write(journal, job, dtype))
                .inspect_err(|_| failed.store(true, Ordering::Relaxed))
        });
        let should_continue = &mut |progress| on_progress(progress) && !failed.load(Ordering::Relaxed);
        let outcome = producer.run(send, should_continue);
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
        if producer.pulled == 0 {
            return Err(producer.dialogues.no_dialogue());
        }
        if producer.reasons.count == producer.pulled {
            let found = format!("none of the {} dialogues could be read", producer.pulled);
            let first = producer.reasons.reasons.first().map_or("", String::as_str);
            return Err(Error::input(data.display(), found, format!("dialogues; the first: {first}")));
        }
        let found = format!("nothing was picked in any of {} dialogues", producer.pulled);
        let expected = "a selector of tokens that they have; `pearl tokens` shows them";
        return Err(Error::input(format!("tokens {}", plan.tokens), found, expected));
    }
    // What is refused after the last shard is counted by the part that has it, or by the first where there is none.
    let is_ours = match plan.part {
        Some(part) if producer.number == 0 => part.number == 1,
        _ => producer.is_ours,
    };
    let manifest = journal.finish(if is_ours { producer.refused.len() } else { 0 })?;
    let tokens = producer.progress.tokens;
    let computed = producer.extractor.computed;
    Ok(Summary { manifest, resumed, tokens, computed, refused: producer.reasons })
}

/// Refuses a dialogue that is longer than the model's context, before anything is computed. What else is wrong with a dialogue is
/// said when its turn comes.
fn refuse_long(model: &Model, data: &Path, request: &Request, options: &dialogue::ReadOptions) -> Result<()> {
    let mut dialogues = dialogue::stream(data, options)?;
    loop {
        let chunk: Vec<Result<(usize, Dialogue)>> = dialogues.by_ref().take(CHECKED).collect();
        let long = chunk.par_iter().flatten().find_map_first(|(_, dialogue)| {
            let tokens = model.excess(dialogue, request.thinking).ok().flatten()?;
            Some(model.decoder.architecture().too_long(dialogue, tokens))
        });
        match long {
            Some(error) => return Err(error),
            None if chunk.len() < CHECKED => return Ok(()),
            None => {}
        }
    }
}

fn write(journal: &mut Journal, job: Job, dtype: Dtype) -> Result<()> {
    let Job { number, activations, fingerprints, end, refused, unpicked, loads } = job;
    journal.add(|folder| {
        let shard = shard::write(folder, number, &activations, Some(&fingerprints), dtype)?;
        Ok(Entry { shard, number, end, tokens: activations.tokens, refused, unpicked, loads })
    })
}

/// The side of a run that computes shards and sends them to the writer.
struct Producer<'a> {
    extractor: Extractor<'a>,
    dialogues: &'a mut DialogueStream,
    skip_bad: bool,
    skip_long: bool,
    batch_tokens: usize,
    /// Bytes of a row of activations.
    row_bytes: usize,
    /// Tokenised dialogues that are in no shard yet, each with its index among the requested ones.
    waiting: VecDeque<(usize, TokenisedDialogue)>,
    /// Indices of refused dialogues that belong to no shard yet.
    refused: VecDeque<usize>,
    /// All dialogues that were refused, and why.
    reasons: Skipped,
    /// Number of the next shard.
    number: usize,
    /// Dialogues that are in shards.
    end: usize,
    /// Dialogues that were taken from the file.
    pulled: usize,
    is_drained: bool,
    /// Which shards are this part's; none where the run has no parts.
    assignment: Option<Assignment>,
    /// Whether the last shard was this part's.
    is_ours: bool,
    progress: ExtractProgress,
}

impl Producer<'_> {
    /// Skips dialogues whose shards are written already.
    fn skip(&mut self, count: usize) -> Result<()> {
        for item in self.dialogues.by_ref().take(count) {
            item?;
            self.pulled += 1;
        }
        self.end = self.pulled;
        Ok(())
    }

    /// Computes all shards of this part.
    fn run(
        &mut self,
        send: SyncSender<Job>,
        on_progress: &mut dyn FnMut(ExtractProgress) -> bool,
    ) -> Result<()> {
        self.progress.dialogues = self.end;
        if !on_progress(self.progress) {
            return Err(Error::Stopped);
        }
        while let Some(count) = self.next_shard()? {
            let number = self.number;
            let (places, rows): (Vec<usize>, Vec<TokenisedDialogue>) = self.waiting.drain(..count).unzip();
            // A shard ends with its last dialogue; those refused before that are counted with it.
            let end = places.last().map_or(self.end, |last| last + 1);
            let before = self.refused.iter().take_while(|&&place| place < end).count();
            self.refused.drain(..before);
            let tokens = rows.iter().map(TokenisedDialogue::cost).sum();
            self.is_ours = self.assignment.as_mut().is_none_or(|assignment| assignment.takes(tokens));
            if self.is_ours {
                let ExtractProgress { dialogues, tokens } = self.progress;
                let mut on_batch = |done: usize| {
                    let tokens = tokens + rows.iter().take(done).map(|row| row.length).sum::<usize>();
                    on_progress(ExtractProgress { dialogues: dialogues + done, tokens })
                };
                let mut each = self.extractor.extract(&rows, &mut on_batch)?;
                self.progress.tokens += rows.iter().map(|row| row.length).sum::<usize>();
                let activations = each.remove(0);
                let known: BTreeMap<usize, i64> =
                    rows.iter().map(|row| (row.example, row.fingerprint)).collect();
                let fingerprints = activations.example.iter().map(|example| known[example]).collect();
                let unpicked = rows.iter().filter(|row| self.extractor.row_count(row) == 0).count();
                let loads = self.assignment.as_ref().map_or(Vec::new(), |own| own.loads.clone());
                let job = Job { number, activations, fingerprints, end, refused: before, unpicked, loads };
                // The channel is closed only where the writer has failed, and its own error is returned then.
                send.send(job).map_err(|_| Error::Stopped)?;
            }
            (self.number, self.end, self.progress.dialogues) = (number + 1, end, end);
            if !on_progress(self.progress) {
                return Err(Error::Stopped);
            }
        }
        Ok(())
    }

    /// Number of waiting dialogues that make the next shard, after taking as many as it needs from the file; none at the
    /// end. It depends on the dialogues alone, so that an interrupted run makes the same shards.
    fn next_shard(&mut self) -> Result<Option<usize>> {
        let (mut count, mut tokens, mut bytes) = (0, 0, 0);
        loop {
            while let Some((_, row)) = self.waiting.get(count) {
                count += 1;
                tokens += row.length;
                bytes += self.extractor.row_count(row) * self.row_bytes;
                let full = tokens >= TOKENS || (bytes >= BYTES && tokens >= self.batch_tokens);
                if full || count == DIALOGUES {
                    return Ok(Some(count));
                }
            }
            if self.is_drained {
                return Ok((count > 0).then_some(count));
            }
            self.pull()?;
        }
    }

    /// Takes more dialogues from the file and tokenises them.
    fn pull(&mut self) -> Result<()> {
        let taken = self.dialogues.by_ref().take(DIALOGUES).collect::<Result<Vec<(usize, Dialogue)>>>()?;
        self.is_drained = taken.len() < DIALOGUES;
        let rows: Vec<Result<TokenisedDialogue>> =
            taken.par_iter().map(|(line, dialogue)| self.extractor.tokenise(*line, dialogue)).collect();
        for (row, (_, dialogue)) in rows.into_iter().zip(&taken) {
            match row {
                Err(Error::Input { .. }) if self.skip_long && self.extractor.is_too_long(dialogue) => {
                    self.refused.push_back(self.pulled);
                }
                Ok(row) => self.waiting.push_back((self.pulled, row)),
                Err(error @ Error::Input { .. }) if self.skip_bad => {
                    self.refused.push_back(self.pulled);
                    self.reasons.add(&error);
                }
                Err(error) => return Err(error),
            }
            self.pulled += 1;
        }
        Ok(())
    }
}
