//! Steering as a hook: one intervention at its sites, on the tokens that its selector picks, while its condition holds.
//! It knows nothing of where directions come from or of what a plan looks like.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use candle_core::Tensor;

use super::closed_loop::Control;
use super::condition::Condition;
use super::operation::{Edit, Operation, SafeSet, Strength, dot};
use super::probe_reader::{Reader, probability};
use super::row_edit::{edit_rows, read_rows};
use super::schedule::Schedule;
use super::trace::Step;
use super::vector::Vector;
use crate::error::{Error, Result};
use crate::model::{Decoder, Hook, Selector, Site, Token};

/// One intervention, ready to run.
pub struct Steer {
    operation: Operation,
    selector: Selector,
    edits: BTreeMap<Site, Edit>,
    /// The rows that are steered; all when none is given.
    rows: Option<BTreeSet<usize>>,
    schedule: Schedule,
    gate: Option<Gate>,
    control: Option<Control>,
    /// What was done, where somebody wants to know; with the intervention's number.
    trace: Option<(usize, Vec<Step>)>,
    /// Stands for all that is done to a row that is steered.
    mark: u64,
    /// Position of each row's last token before the answer.
    starts: BTreeMap<usize, usize>,
    pass: Pass,
}

/// A condition that is read at every token.
struct Gate {
    condition: Condition,
    /// One for each of its bounds.
    readers: Vec<Reader>,
}

/// What is known of the pass that runs.
#[derive(Default)]
struct Pass {
    /// Tokens that are steered, and the factor on the change at each of them.
    picked: Vec<usize>,
    scales: Vec<f32>,
    errors: Vec<Option<f64>>,
    /// Tokens that are read for the control: the picked ones, and the last of each prompt.
    read: Vec<usize>,
    /// Probabilities, one list a bound of the gate, one number a picked token.
    gated: Vec<Vec<f64>>,
    /// Whether the gate's readings are in the scales.
    settled: bool,
}

impl Steer {
    /// `sites`: those of the vector's to use. `rows`: rows of the batch to steer, or none for all.
    ///
    /// # Errors
    /// A selector that is unknown while generating; a site that the vector or the model lacks; a vector of another
    /// width than the model's there; a strength in residual norms where the vector has none or the operation takes a
    /// share; `project`, which takes faces.
    pub fn new(
        decoder: &Decoder,
        vector: &Vector,
        sites: &[Site],
        operation: Operation,
        strength: Strength,
        selector: Selector,
        rows: Option<BTreeSet<usize>>,
    ) -> Result<Steer> {
        let mut edits = BTreeMap::new();
        for &site in sites {
            let Some(direction) = vector.directions.get(&site) else {
                let has = vector.directions.keys().map(Site::to_string).collect::<Vec<_>>();
                return Err(Error::input(format!("vector at {site}"), "no direction there", has.join(", ")));
            };
            let place = format!("vector at {site}");
            check_site(decoder, site, &place)?;
            let (found, width) = (direction.values.len(), decoder.architecture().site_width(site));
            if found != width {
                let found = format!("a direction of width {found}");
                return Err(Error::input(place, found, format!("width {width}, the model's")));
            }
            let amount = match strength {
                Strength::Raw(times) if matches!(operation, Operation::Add | Operation::AddKeepNorm) => {
                    times * direction.length()
                }
                Strength::Raw(value) => value,
                Strength::Norms(_) if operation.is_share() => return Err(no_share(operation, strength)),
                Strength::Norms(norms) => {
                    let unknown = || {
                        let found =
                            format!("strength {strength}, but the vector does not know the norm there");
                        Error::input(
                            &place,
                            found,
                            "a strength without n, or a vector that `pearl vector build` made",
                        )
                    };
                    norms * direction.residual_norm.ok_or_else(unknown)?
                }
            };
            edits.insert(site, Edit::Along { operation, unit: direction.unit()?.to_vec(), amount });
        }
        if operation == Operation::Project {
            let expected = "probes instead of a vector";
            return Err(Error::input("operation project", "a vector", expected));
        }
        Steer::of(operation, edits, selector, rows)
    }

    /// Brings states to the safe side of all faces of the polyhedron at each of some sites.
    ///
    /// # Errors
    /// A selector that is unknown while generating; a site that the model lacks; faces of another width than the model's
    /// there; a strength in residual norms.
    pub fn project(
        decoder: &Decoder,
        polyhedra: BTreeMap<Site, SafeSet>,
        strength: Strength,
        selector: Selector,
        rows: Option<BTreeSet<usize>>,
    ) -> Result<Steer> {
        let Strength::Raw(share) = strength else { return Err(no_share(Operation::Project, strength)) };
        let mut edits = BTreeMap::new();
        for (site, polyhedron) in polyhedra {
            let place = format!("project at {site}");
            check_site(decoder, site, &place)?;
            let width = decoder.architecture().site_width(site);
            if polyhedron.width() != width {
                let found = format!("probes of width {}", polyhedron.width());
                return Err(Error::input(place, found, format!("width {width}, the model's")));
            }
            edits.insert(site, Edit::Project { polyhedron, share });
        }
        Steer::of(Operation::Project, edits, selector, rows)
    }

    fn of(
        operation: Operation,
        mut edits: BTreeMap<Site, Edit>,
        selector: Selector,
        rows: Option<BTreeSet<usize>>,
    ) -> Result<Steer> {
        selector.check_steering()?;
        // Nothing is changed at strength 0, so nothing is computed either: the model is the unsteered one, bit for bit.
        edits.retain(|_, edit| !edit.is_nothing());
        let steer = Steer {
            operation,
            selector,
            edits,
            rows,
            schedule: Schedule::Constant,
            gate: None,
            control: None,
            trace: None,
            mark: 0,
            starts: BTreeMap::new(),
            pass: Pass::default(),
        };
        Ok(steer.marked())
    }

    fn marked(mut self) -> Steer {
        let mut hasher = DefaultHasher::new();
        self.selector.hash(&mut hasher);
        // What an edit, a schedule, a condition or a law is stands whole in its debug form.
        let gate = self.gate.as_ref().map(|gate| (&gate.condition, &gate.readers));
        let control = self.control.as_ref().map(|control| (&control.law, &control.reader));
        format!("{:?} {:?} {gate:?} {control:?}", self.edits, self.schedule).hash(&mut hasher);
        self.mark = if self.edits.is_empty() { 0 } else { hasher.finish().max(1) };
        self
    }

    /// With a factor that changes over the answer.
    pub fn scheduled(mut self, schedule: Schedule) -> Steer {
        self.schedule = schedule;
        self.marked()
    }

    /// Only at tokens where the condition holds; `readers` take the readings of its bounds, in their order.
    ///
    /// # Errors
    /// A reading that is taken only after the first site that is steered; a site in the condition that is not the one
    /// that its probe reads.
    pub fn gated(mut self, condition: Condition, readers: Vec<Reader>) -> Result<Steer> {
        let Some(first) = self.edits.keys().next() else { return Ok(self) };
        if let Some(late) = readers.iter().find(|reader| reader.site > *first) {
            let found = format!("it is read at {}, after {first} is steered", late.site);
            let expected =
                "a probe of the same site or an earlier one, or a condition that is read on the prompt";
            return Err(Error::input(format!("when probe {}", late.name), found, expected));
        }
        self.gate = Some(Gate { condition, readers });
        Ok(self.marked())
    }

    /// With the strength that a closed loop sets, times its own.
    ///
    /// # Errors
    /// A law that makes no sense; a reading that is taken between the sites that are steered.
    pub fn controlled(
        mut self,
        law: crate::steer::pi_controller::PiController,
        reader: Reader,
    ) -> Result<Steer> {
        let sites: Vec<Site> = self.edits.keys().copied().collect();
        self.control = Some(Control::new(law, reader, &sites)?);
        Ok(self.marked())
    }

    /// Keeping a trace of what it does, as the intervention of this number.
    pub fn traced(mut self, number: usize) -> Steer {
        self.trace = Some((number, Vec::new()));
        self
    }

    /// What was done since the trace was last taken; empty unless it is kept.
    pub fn take_trace(&mut self) -> Vec<Step> {
        self.trace.as_mut().map(|(_, steps)| std::mem::take(steps)).unwrap_or_default()
    }

    /// The first site of a pass at which it is called.
    fn first(&self) -> Option<Site> {
        let own = self.edits.keys().next().copied()?;
        let gate = self.gate.iter().flat_map(|gate| &gate.readers).map(|reader| reader.site);
        let control = self.control.iter().map(|control| control.reader.site);
        gate.chain(control).chain([own]).min()
    }

    fn is_steered(&self, row: usize) -> bool {
        self.rows.as_ref().is_none_or(|rows| rows.contains(&row))
    }

    /// A pass begins: which tokens it steers, and how strongly, as far as that is known.
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
        let gated = vec![vec![0.0; picked.len()]; bounds];
        self.pass = Pass { scales, errors, gated, read, picked, settled: false };
        Ok(())
    }

    /// Takes the readings that are due at this site.
    fn read(&mut self, site: Site, activations: &Tensor, tokens: &[Token]) -> Result<()> {
        let pass = &mut self.pass;
        for (number, reader) in self.gate.iter().flat_map(|gate| &gate.readers).enumerate() {
            if reader.site == site {
                let gated = &mut pass.gated[number];
                read_rows(activations, &pass.picked, |place, h| {
                    gated[place] = probability(reader.log_odds(h));
                })?;
            }
        }
        let Some(control) = self.control.as_mut().filter(|control| control.reader.site == site) else {
            return Ok(());
        };
        let mut readings = vec![0.0; pass.read.len()];
        read_rows(activations, &pass.read, |place, h| readings[place] = control.reader.log_odds(h))?;
        let mut place = 0;
        for (&at, reading) in pass.read.iter().zip(readings) {
            let is_picked = pass.picked.get(place) == Some(&at);
            // Of a loop that reads before it acts, only tokens that are steered count.
            if control.is_late() || is_picked {
                let (strength, error) = control.read(&tokens[at], reading);
                if is_picked && !control.is_late() {
                    pass.scales[place] *= strength;
                    pass.errors[place] = error;
                }
            }
            place += usize::from(is_picked);
        }
        Ok(())
    }

    /// Before the first change of a pass: where the condition does not hold, nothing is done.
    fn settle(&mut self) {
        let pass = &mut self.pass;
        if std::mem::replace(&mut pass.settled, true) {
            return;
        }
        if let Some(gate) = &self.gate {
            for (place, scale) in pass.scales.iter_mut().enumerate() {
                if !gate.condition.holds(|bound| pass.gated[bound][place]) {
                    *scale = 0.0;
                }
            }
        }
    }

    fn edit(&mut self, site: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
        let Some(edit) = self.edits.get(&site) else { return Ok(activations) };
        let pass = &self.pass;
        let mut pushes = Vec::new();
        if self.trace.is_none() {
            let at: Vec<usize> = (0..pass.picked.len()).filter(|&place| pass.scales[place] != 0.0).collect();
            let picked: Vec<usize> = at.iter().map(|&place| pass.picked[place]).collect();
            return edit_rows(activations, &picked, |place, h| {
                edit.apply(h, pass.scales[at[place]], &mut pushes);
            });
        }
        let mut steps = Vec::new();
        let number = self.trace.as_ref().map_or(0, |(number, _)| *number);
        let activations = edit_rows(activations, &pass.picked, |place, h| {
            let (before, scale, token) = (h.to_vec(), pass.scales[place], &tokens[pass.picked[place]]);
            pushes.clear();
            if scale != 0.0 {
                edit.apply(h, scale, &mut pushes);
            }
            let change: Vec<f32> = h.iter().zip(&before).map(|(after, before)| after - before).collect();
            let faces = match edit {
                Edit::Project { polyhedron, .. } => polyhedron.faces(),
                Edit::Along { .. } => &[],
            };
            let pushed = faces.iter().zip(&pushes).filter(|(_, push)| **push > 0.0);
            steps.push(Step {
                row: token.row,
                position: token.position,
                intervention: number,
                operation: self.operation.name().into(),
                site: site.to_string(),
                scale,
                moved: dot(&change, &change).sqrt() as f32,
                readings: self.readings(place),
                error: pass.errors[place],
                faces: pushed.map(|(face, push)| (face.name.clone(), *push)).collect(),
            });
        })?;
        if let Some((_, trace)) = &mut self.trace {
            trace.extend(steps);
        }
        Ok(activations)
    }

    /// Probabilities read at a picked token.
    fn readings(&self, place: usize) -> BTreeMap<String, f64> {
        let pass = &self.pass;
        let readers = self.gate.iter().flat_map(|gate| &gate.readers);
        let mut readings: BTreeMap<String, f64> =
            readers.zip(&pass.gated).map(|(reader, gated)| (reader.name.clone(), gated[place])).collect();
        if let (Some(control), Some(error)) = (&self.control, pass.errors[place]) {
            readings.insert(control.reader.name.clone(), control.law.reading(error));
        }
        readings
    }
}

impl Hook for Steer {
    fn wants(&self, site: Site) -> bool {
        let reads = |reader: &Reader| reader.site == site;
        // Where nothing is steered, nothing is read either.
        !self.edits.is_empty()
            && (self.edits.contains_key(&site)
                || self.gate.as_ref().is_some_and(|gate| gate.readers.iter().any(reads))
                || self.control.as_ref().is_some_and(|control| reads(&control.reader)))
    }

    fn call(&mut self, site: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
        // Tokens are picked once a pass, not at every site.
        if self.first() == Some(site) {
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
        self.settle();
        self.edit(site, activations, tokens)
    }

    fn cache_key(&self, row: usize) -> u64 {
        if self.is_steered(row) { self.mark } else { 0 }
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

fn no_share(operation: Operation, strength: Strength) -> Error {
    let place = format!("operation {}", operation.name());
    Error::input(place, format!("strength {strength}"), "a share of the change, such as 1, without n")
}
