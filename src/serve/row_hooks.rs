//! The hook of a mixed batch: each row with its own steering and its own readings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use candle_core::Tensor;

use super::readings::{Read, Reader};
use crate::error::Result;
use crate::model::hook::chain_key;
use crate::model::{Architecture, Hook, PromptSteering, Site, Token};
use crate::steer::{SteerHook, TraceEntry};

/// What is done and read in one row.
#[derive(Default)]
pub(super) struct RowHook {
    /// Interventions, in the order of the plan; their row is this one.
    pub steer: Vec<SteerHook>,
    /// What is read, after it was steered.
    pub readers: Vec<Arc<Reader>>,
    /// What was read, a reader each.
    pub read: Vec<Read>,
    /// How many of each reader's readings were told.
    told: Vec<usize>,
    sites: BTreeSet<Site>,
}

impl RowHook {
    /// The hook of a row that is steered and read so.
    pub fn new(steer: Vec<SteerHook>, readers: Vec<Arc<Reader>>, architecture: &Architecture) -> RowHook {
        let sensed = readers.iter().map(|reader| reader.site);
        let steered =
            architecture.sites().into_iter().filter(|&site| steer.iter().any(|hook| hook.wants(site)));
        let sites = steered.chain(sensed).collect();
        let (read, told) = (vec![Read::default(); readers.len()], vec![0; readers.len()]);
        RowHook { steer, read, told, readers, sites }
    }

    /// The same for another row.
    pub fn on_row(mut self, row: usize) -> RowHook {
        self.steer.iter_mut().for_each(|hook| hook.move_to(row));
        self
    }

    /// What was read since this was last called, a reader each: positions and probabilities.
    pub fn take_new(&mut self) -> Vec<Vec<(usize, f64)>> {
        let each = self.read.iter().zip(&mut self.told).map(|(read, told)| {
            let new: Vec<(usize, f64)> = read.0.iter().skip(*told).map(|(at, p)| (*at, *p)).collect();
            *told = read.0.len();
            new
        });
        each.collect()
    }

    /// A hash of all steering of the row: that of a [`crate::model::Chain`] of its interventions.
    pub fn key(&self, row: usize) -> u64 {
        chain_key(self.steer.iter().map(|hook| hook.cache_key(row)))
    }

    /// What steering does to a prompt.
    pub fn steering(&self, row: usize, prompt: &[Token]) -> PromptSteering {
        PromptSteering::of_chain(self.steer.iter().map(|hook| hook.prompt_steering(row, prompt)))
    }

    /// Whether the prompt may be read in parts.
    pub fn is_local(&self) -> bool {
        self.steer.iter().all(SteerHook::is_local)
    }

    /// What was read and changed since this was last called, where a trace is kept.
    pub fn take_trace(&mut self) -> Vec<TraceEntry> {
        self.steer.iter_mut().flat_map(SteerHook::take_trace).collect()
    }
}

/// The hooks of all rows.
#[derive(Default)]
pub(super) struct RowHooks {
    rows: BTreeMap<usize, RowHook>,
    /// The rows that want a site.
    wanting: BTreeMap<Site, Vec<usize>>,
}

impl RowHooks {
    /// Sets the hook of a row.
    pub fn insert(&mut self, row: usize, hook: RowHook) {
        self.rows.insert(row, hook);
        self.list();
    }

    /// Removes the hook of a row.
    pub fn remove(&mut self, row: usize) -> Option<RowHook> {
        let hook = self.rows.remove(&row);
        self.list();
        hook
    }

    /// The hook of a row.
    pub fn get_mut(&mut self, row: usize) -> Option<&mut RowHook> {
        self.rows.get_mut(&row)
    }

    fn list(&mut self) {
        self.wanting.clear();
        for (&row, hook) in &self.rows {
            hook.sites.iter().for_each(|&site| self.wanting.entry(site).or_default().push(row));
        }
    }
}

impl Hook for RowHooks {
    fn wants(&self, site: Site) -> bool {
        self.wanting.contains_key(&site)
    }

    fn call(&mut self, site: Site, mut activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
        let mut begin = 0;
        let mut ranges = BTreeMap::new();
        for row in tokens.chunk_by(|a, b| a.row == b.row) {
            ranges.insert(row[0].row, begin..begin + row.len());
            begin += row.len();
        }
        for row in self.wanting.get(&site).into_iter().flatten() {
            let (Some(hook), Some(range)) = (self.rows.get_mut(row), ranges.get(row)) else { continue };
            for steer in hook.steer.iter_mut().filter(|steer| steer.wants(site)) {
                activations = steer.call(site, activations, tokens)?;
            }
            let reads = hook.readers.iter().zip(&mut hook.read).filter(|(reader, _)| reader.site == site);
            let mut reads = reads.peekable();
            if reads.peek().is_none() {
                continue;
            }
            let states = activations.narrow(0, range.start, range.len())?.flatten_all()?.to_vec1::<f32>()?;
            let width = (states.len() / range.len().max(1)).max(1);
            for (reader, read) in reads {
                for (token, h) in tokens[range.clone()].iter().zip(states.chunks_exact(width)) {
                    read.0.insert(token.position, reader.read(h));
                }
            }
        }
        Ok(activations)
    }

    fn cache_key(&self, row: usize) -> u64 {
        self.rows.get(&row).map_or(0, |hook| hook.key(row))
    }
}
