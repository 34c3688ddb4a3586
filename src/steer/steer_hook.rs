//! The steering hook: one intervention at its sites, on the tokens that its selector picks, where its condition holds.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use candle_core::Tensor;

use super::closed_loop::ClosedLoop;
use super::condition::Condition;
use super::operation::{Change, Edit, Operation, SafeSet, Strength, dot};
use super::pi_controller::PiController;
use super::probe_reader::{ProbeReader, probability};
use super::row_edit::{edit_rows, read_rows};
use super::schedule::Schedule;
use super::trace::TraceEntry;
use super::vector::Vector;
use crate::error::{Error, Result};
use crate::model::{Decoder, Hook, PromptSteering, Selector, Site, Token};

/// One intervention, ready to run.
pub struct SteerHook {
    operation: Operation,
    selector: Selector,
    edits: BTreeMap<Site, Box<dyn Edit>>,
    /// The rows that are steered; all where none are given.
    rows: Option<BTreeSet<usize>>,
    schedule: Schedule,
    gate: Option<Gate>,
    control: Option<ClosedLoop>,
    /// The intervention's index and its trace, where one is kept.
    trace: Option<(usize, Vec<TraceEntry>)>,
    /// Hash of all that is done to a steered row; 0 where nothing is.
    cache_key: u64,
    /// Position of each row's last prompt token.
    starts: BTreeMap<usize, usize>,
    pass: Pass,
}

/// A condition that is evaluated at every token.
struct Gate {
    condition: Condition,
    /// One for each of the condition's bounds.
    readers: Vec<ProbeReader>,
}

/// The state of the current forward pass.
#[derive(Default)]
struct Pass {
    /// Indices of the steered tokens.
    picked: Vec<usize>,
    /// The factor on the change, for each picked token.
    scales: Vec<f32>,
    /// The controller's error, for each picked token.
    errors: Vec<Option<f64>>,
    /// Indices of the tokens that the controller reads: the picked ones, and the last of each prompt.
    read: Vec<usize>,
    /// `[bounds of the gate][picked tokens]`.
    probabilities: Vec<Vec<f64>>,
    /// Whether the gate is in the scales already.
    gate_applied: bool,
}

impl SteerHook {
    /// The hook of an operation along a vector. `sites`: which of the vector's sites are steered; `rows`: which rows of the
    /// batch, or all.
    ///
    /// # Errors
    /// A selector whose tokens are unknown while generating; a site that the vector or the model lacks; a vector of
    /// another width than the model's there; a strength in residual norms where the vector has none or the operation
    /// takes a share; an operation that takes probes.
    pub fn new(
        decoder: &Decoder,
        vector: &Vector,
        sites: &[Site],
        change: impl Into<Change>,
        selector: Selector,
        rows: Option<BTreeSet<usize>>,
    ) -> Result<SteerHook> {
        let change: Change = change.into();
        let mut edits = BTreeMap::new();
        for &site in sites {
            let Some(direction) = vector.directions.get(&site) else {
                let has = vector.directions.keys().map(Site::to_string).collect::<Vec<_>>();
                let expected = format!(
                    "{}; or from = \"SITE\", one of these, to use its direction there",
                    has.join(", ")
                );
                return Err(Error::input(format!("vector at {site}"), "no direction there", expected));
            };
            let place = format!("vector at {site}");
            check_site(decoder, site, &place)?;
            let (found, width) = (direction.values.len(), decoder.architecture().site_width(site));
            if found != width {
                let found = format!("a direction of width {found}");
                return Err(Error::input(place, found, format!("width {width}, the model's")));
            }
            edits.insert(site, Operation::along(change, direction, &place)?);
        }
        SteerHook::with_edits(change.operation, edits, selector, rows)
    }

    /// The hook of an operation into a set of safe states at each site, such as [`Operation::PROJECT`].
    ///
    /// # Errors
    /// A selector whose tokens are unknown while generating; a site that the model lacks; half-spaces of another width
    /// than the model's there; a strength in residual norms; an operation that takes a vector.
    pub fn project(
        decoder: &Decoder,
        safe_sets: BTreeMap<Site, SafeSet>,
        operation: Operation,
        strength: Strength,
        selector: Selector,
        rows: Option<BTreeSet<usize>>,
    ) -> Result<SteerHook> {
        let mut edits = BTreeMap::new();
        for (site, safe_set) in safe_sets {
            let place = format!("project at {site}");
            check_site(decoder, site, &place)?;
            let width = decoder.architecture().site_width(site);
            if safe_set.width() != width {
                let found = format!("probes of width {}", safe_set.width());
                return Err(Error::input(place, found, format!("width {width}, the model's")));
            }
            edits.insert(site, operation.within(safe_set, strength)?);
        }
        SteerHook::with_edits(operation, edits, selector, rows)
    }

    fn with_edits(
        operation: Operation,
        mut edits: BTreeMap<Site, Box<dyn Edit>>,
        selector: Selector,
        rows: Option<BTreeSet<usize>>,
    ) -> Result<SteerHook> {
        selector.check_steering()?;
        // An edit that changes nothing isn't run, so that strength 0 is the unsteered model bit for bit.
        edits.retain(|_, edit| !edit.is_identity());
        let hook = SteerHook {
            operation,
            selector,
            edits,
            rows,
            schedule: Schedule::Constant,
            gate: None,
            control: None,
            trace: None,
            cache_key: 0,
            starts: BTreeMap::new(),
            pass: Pass::default(),
        };
        Ok(hook.hashed())
    }

    /// Computes the cache key anew.
    fn hashed(mut self) -> SteerHook {
        let mut hasher = DefaultHasher::new();
        self.selector.hash(&mut hasher);
        // The debug form of edits, schedule, condition and controller holds all of their numbers exactly.
        let gate = self.gate.as_ref().map(|gate| (&gate.condition, &gate.readers));
        let control = self.control.as_ref().map(|control| (&control.controller, &control.reader));
        format!("{:?} {:?} {gate:?} {control:?}", self.edits, self.schedule).hash(&mut hasher);
        self.cache_key = if self.edits.is_empty() { 0 } else { hasher.finish().max(1) };
        self
    }

    /// Adds a schedule.
    pub fn scheduled(mut self, schedule: Schedule) -> SteerHook {
        self.schedule = schedule;
        self.hashed()
    }

    /// Steers only the tokens at which the condition holds. `readers`: one for each of the condition's bounds, in their
    /// order.
    ///
    /// # Errors
    /// A probe that reads after the first steered site.
    pub fn gated(mut self, condition: Condition, readers: Vec<ProbeReader>) -> Result<SteerHook> {
        let Some(first) = self.edits.keys().next() else { return Ok(self) };
        if let Some(late) = readers.iter().find(|reader| reader.site > *first) {
            let found = format!("it is read at {}, after {first} is steered", late.site);
            let expected =
                "a probe of the same site or an earlier one, or a condition that is evaluated on the prompt";
            return Err(Error::input(format!("when probe {}", late.name), found, expected));
        }
        self.gate = Some(Gate { condition, readers });
        Ok(self.hashed())
    }

    /// Lets a controller set the strength, in multiples of the hook's own.
    ///
    /// # Errors
    /// Parameters that [`PiController::check`] refuses; a probe that reads between the steered sites.
    pub fn controlled(mut self, controller: PiController, reader: ProbeReader) -> Result<SteerHook> {
        let sites: Vec<Site> = self.edits.keys().copied().collect();
        self.control = Some(ClosedLoop::new(controller, reader, &sites)?);
        Ok(self.hashed())
    }

    /// Keeps a trace, as the intervention of this index.
    pub fn traced(mut self, index: usize) -> SteerHook {
        self.trace = Some((index, Vec::new()));
        self
    }

    /// The trace since this was last called; empty unless one is kept.
    pub fn take_trace(&mut self) -> Vec<TraceEntry> {
        self.trace.as_mut().map(|(_, entries)| std::mem::take(entries)).unwrap_or_default()
    }

    /// Whether a row is changed at all.
    pub fn changes(&self, row: usize) -> bool {
        self.is_steered(row) && !self.edits.is_empty()
    }

    /// Steers one row of another batch from now on, and no other. The hook hasn't run yet.
    pub fn move_to(&mut self, row: usize) {
        self.rows = Some(BTreeSet::from([row]));
    }

    /// Refuses what would fail in the pass that reads this prompt: control by a probe that reads after the steered sites, where tokens of
    /// the prompt are steered.
    ///
    /// # Errors
    /// Such a control.
    pub fn check_prompt(&self, tokens: &[Token]) -> Result<()> {
        let Some(control) = self.control.as_ref().filter(|_| !self.edits.is_empty()) else { return Ok(()) };
        let is_steered = |&at: &usize| self.is_steered(tokens[at].row);
        control.check_prompt(self.selector.pick(tokens).iter().any(is_steered))
    }

    /// Whether a row may be read in parts: which tokens are steered follows from each token's own record.
    pub fn is_local(&self) -> bool {
        self.selector.is_local()
    }

    /// The number of a row's first tokens that the hook neither changes nor reads.
    pub fn untouched(&self, tokens: &[Token]) -> usize {
        let picked = self.selector.pick(tokens).first().copied();
        let read = tokens.iter().position(|token| token.start).filter(|_| self.control.is_some());
        picked.into_iter().chain(read).min().unwrap_or(tokens.len())
    }

    /// The number of a row's first tokens that the hook needn't see, where another row with the same hash began with the same tokens: its
    /// changes there are the same, and no later change depends on them.
    pub fn resumable(&self, tokens: &[Token]) -> usize {
        if self.control.is_some() || !self.is_local() {
            return self.untouched(tokens);
        }
        match self.schedule {
            Schedule::Constant => tokens.len(),
            _ => tokens.iter().position(|token| token.start).unwrap_or(0),
        }
    }

    /// The first site of a pass at which the hook is called.
    fn first_site(&self) -> Option<Site> {
        let own = self.edits.keys().next().copied()?;
        let gate = self.gate.iter().flat_map(|gate| &gate.readers).map(|reader| reader.site);
        let control = self.control.iter().map(|control| control.reader.site);
        gate.chain(control).chain([own]).min()
    }

    fn is_steered(&self, row: usize) -> bool {
        self.rows.as_ref().is_none_or(|rows| rows.contains(&row))
    }

    /// Begins a forward pass: picks the tokens, and sets the scales as far as they are known.
    fn begin(&mut self, tokens: &[Token]) -> Result<()> {
        let mut picked = self.selector.pick(tokens);
        picked.retain(|&at| self.is_steered(tokens[at].row));
        let mut read = picked.clone();
        for (at, token) in tokens.iter().enumerate() {
            if token.position == 0 {
                self.starts.remove(&token.row);
            }
            if token.start {
                self.starts.insert(token.row, token.position);
                if self.control.is_some() && self.is_steered(token.row) {
                    read.push(at);
                }
            }
        }
        read.sort_unstable();
        read.dedup();
        let time = |&at: &usize| {
            let token = &tokens[at];
            self.starts.get(&token.row).map_or(0, |start| token.position.saturating_sub(*start))
        };
        let mut scales: Vec<f32> = picked.iter().map(|at| self.schedule.factor(time(at))).collect();
        let mut errors = vec![None; picked.len()];
        if let Some(control) = &mut self.control {
            for (place, (strength, error)) in control.begin(tokens, &picked)?.into_iter().enumerate() {
                scales[place] *= strength;
                errors[place] = error;
            }
        }
        let bounds = self.gate.as_ref().map_or(0, |gate| gate.readers.len());
        let probabilities = vec![vec![0.0; picked.len()]; bounds];
        self.pass = Pass { scales, errors, probabilities, read, picked, gate_applied: false };
        Ok(())
    }

    /// Reads the probes of gate and controller that belong to this site.
    fn read(&mut self, site: Site, activations: &Tensor, tokens: &[Token]) -> Result<()> {
        let pass = &mut self.pass;
        for (number, reader) in self.gate.iter().flat_map(|gate| &gate.readers).enumerate() {
            if reader.site == site {
                let probabilities = &mut pass.probabilities[number];
                read_rows(activations, &pass.picked, |place, h| {
                    probabilities[place] = probability(reader.log_odds(h));
                })?;
            }
        }
        let Some(control) = self.control.as_mut().filter(|control| control.reader.site == site) else {
            return Ok(());
        };
        let mut log_odds = vec![0.0; pass.read.len()];
        read_rows(activations, &pass.read, |place, h| log_odds[place] = control.reader.log_odds(h))?;
        let mut place = 0;
        for (&at, log_odds) in pass.read.iter().zip(log_odds) {
            let is_picked = pass.picked.get(place) == Some(&at);
            // A loop that reads before it acts reads steered tokens only.
            if control.is_late() || is_picked {
                let (strength, error) = control.update(&tokens[at], log_odds);
                if is_picked && !control.is_late() {
                    pass.scales[place] *= strength;
                    pass.errors[place] = error;
                }
            }
            place += usize::from(is_picked);
        }
        Ok(())
    }

    /// Sets the scale to 0 where the condition doesn't hold, once a pass.
    fn apply_gate(&mut self) {
        let pass = &mut self.pass;
        if std::mem::replace(&mut pass.gate_applied, true) {
            return;
        }
        if let Some(gate) = &self.gate {
            for (place, scale) in pass.scales.iter_mut().enumerate() {
                if !gate.condition.holds(|bound| pass.probabilities[bound][place]) {
                    *scale = 0.0;
                }
            }
        }
    }

    fn edit(&mut self, site: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
        let Some(edit) = self.edits.get(&site) else { return Ok(activations) };
        let pass = &self.pass;
        let mut multipliers = Vec::new();
        if self.trace.is_none() {
            let steered: Vec<usize> =
                (0..pass.picked.len()).filter(|&place| pass.scales[place] != 0.0).collect();
            let picked: Vec<usize> = steered.iter().map(|&place| pass.picked[place]).collect();
            return edit_rows(activations, &picked, |place, h| {
                edit.apply(h, pass.scales[steered[place]], &mut multipliers);
            });
        }
        let mut entries = Vec::new();
        let intervention = self.trace.as_ref().map_or(0, |(index, _)| *index);
        let activations = edit_rows(activations, &pass.picked, |place, h| {
            let (before, scale, token) = (h.to_vec(), pass.scales[place], &tokens[pass.picked[place]]);
            multipliers.clear();
            if scale != 0.0 {
                edit.apply(h, scale, &mut multipliers);
            }
            let change: Vec<f32> = h.iter().zip(&before).map(|(after, before)| after - before).collect();
            let active =
                edit.half_spaces().iter().zip(&multipliers).filter(|(_, multiplier)| **multiplier > 0.0);
            entries.push(TraceEntry {
                row: token.row,
                position: token.position,
                intervention,
                operation: self.operation.name().into(),
                site: site.to_string(),
                scale,
                moved: dot(&change, &change).sqrt() as f32,
                readings: self.readings(place),
                error: pass.errors[place],
                half_spaces: active.map(|(half_space, moved)| (half_space.name.clone(), *moved)).collect(),
            });
        })?;
        if let Some((_, trace)) = &mut self.trace {
            trace.extend(entries);
        }
        Ok(activations)
    }

    /// The probabilities read at a picked token, by query.
    fn readings(&self, place: usize) -> BTreeMap<String, f64> {
        let pass = &self.pass;
        let readers = self.gate.iter().flat_map(|gate| &gate.readers);
        let mut readings: BTreeMap<String, f64> = readers
            .zip(&pass.probabilities)
            .map(|(reader, read)| (reader.name.clone(), read[place]))
            .collect();
        if let (Some(control), Some(error)) = (&self.control, pass.errors[place]) {
            readings.insert(control.reader.name.clone(), control.controller.reading(error));
        }
        readings
    }
}

impl Hook for SteerHook {
    fn wants(&self, site: Site) -> bool {
        let reads = |reader: &ProbeReader| reader.site == site;
        // Without edits no probe is read.
        !self.edits.is_empty()
            && (self.edits.contains_key(&site)
                || self.gate.as_ref().is_some_and(|gate| gate.readers.iter().any(reads))
                || self.control.as_ref().is_some_and(|control| reads(&control.reader)))
    }

    fn call(&mut self, site: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
        // Tokens are picked once a pass.
        if self.first_site() == Some(site) {
            self.begin(tokens)?;
        }
        if self.pass.picked.is_empty() && self.pass.read.is_empty() {
            return Ok(activations);
        }
        if self.gate.is_some() || self.control.is_some() {
            self.read(site, &activations, tokens)?;
        }
        if !self.edits.contains_key(&site) {
            return Ok(activations);
        }
        self.apply_gate();
        self.edit(site, activations, tokens)
    }

    fn cache_key(&self, row: usize) -> u64 {
        if self.is_steered(row) { self.cache_key } else { 0 }
    }

    fn prompt_steering(&self, row: usize, prompt: &[Token]) -> PromptSteering {
        match self.cache_key(row) {
            0 => PromptSteering::NONE,
            key => {
                PromptSteering { key, untouched: self.untouched(prompt), resumable: self.resumable(prompt) }
            }
        }
    }
}

fn check_site(decoder: &Decoder, site: Site, place: &str) -> Result<()> {
    let architecture = decoder.architecture();
    match architecture.has(site) {
        true => Ok(()),
        false => {
            let expected = format!("a site of its {} blocks", architecture.blocks.len());
            Err(Error::input(place, "the model has no such site", expected))
        }
    }
}
