//! Preparation of an intervention for a model: its vector, sites, probes and dialogues in, the hook that steers out.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::condition::Condition;
use super::constraint::Inequality;
use super::intervention::{EvaluateAt, Intervention};
use super::measured::doubt_of_zero;
use super::operation::{Change, CurvedFace, HalfSpace, Operation, SafeSet};
use super::probe_query::ProbeQuery;
use super::probe_reader::{ProbeReader, Probes};
use super::prompt_gate::gated_rows;
use super::site_set::SiteSet;
use super::source::VectorSource;
use super::steer_hook::SteerHook;
use super::vector::{Direction, Vector};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Model, Site};

impl Intervention {
    /// What a reader should doubt, a site each: an ablation to zero where zero is no point between the vector's classes.
    pub(super) fn doubts(&self, model: &Model) -> Result<Vec<String>> {
        let Some(source) = self.vector.as_ref().filter(|_| self.operation == Operation::ABLATE) else {
            return Ok(Vec::new());
        };
        if !self.to.is_zero() {
            return Ok(Vec::new());
        }
        let vector = source.load(model)?;
        let (vector, sites) = self.along_sites(model, &vector)?;
        let doubt = |(site, direction): (&Site, &Direction)| {
            let doubt = doubt_of_zero(direction.place_of_zero()?)?;
            Some(format!("ablate at {site}: {doubt}"))
        };
        let steered = vector.directions.iter().filter(|(site, _)| sites.contains(site));
        let mut doubts: Vec<String> = steered.filter_map(doubt).collect();
        // One direction at sixty sites is one thing to say.
        if let (Some(_), more @ 1..) = (self.from, doubts.len().saturating_sub(1)) {
            doubts.truncate(1);
            doubts[0] += &format!(" (and at {more} more sites)");
        }
        Ok(doubts)
    }

    /// The vector with a direction at every steered site, and these sites.
    fn along_sites<'a>(&self, model: &Model, vector: &'a Vector) -> Result<(Cow<'a, Vector>, Vec<Site>)> {
        let all = self.sites.as_ref().is_some_and(SiteSet::is_all);
        let Some(from) = self.from else {
            let sites = match &self.sites {
                None => vector.default_sites(),
                Some(_) if all => vector.directions.keys().copied().collect(),
                Some(sites) => sites.resolve(model)?,
            };
            return Ok((Cow::Borrowed(vector), sites));
        };
        let sites = match &self.sites {
            None => vec![from],
            Some(_) if all => model.decoder.architecture().stream_sites(),
            Some(sites) => sites.resolve(model)?,
        };
        Ok((Cow::Owned(vector.spread(from, &sites)?), sites))
    }

    /// Names the vector's best site where no sites are named.
    ///
    /// # Errors
    /// A vector with several directions of which none is known to be the best; a file that can't be read.
    pub fn at_best_site(mut self, model: &Model) -> Result<Intervention> {
        let Some(source) = self.vector.as_ref().filter(|_| self.sites.is_none() && self.from.is_none())
        else {
            return Ok(self);
        };
        let vector = source.load(model)?;
        match vector.default_sites().as_slice() {
            [site] => {
                self.sites = Some((*site).into());
                Ok(self)
            }
            sites => {
                let name = match source {
                    VectorSource::File(path) => path.display().to_string(),
                    VectorSource::Memory(_) => "vector".into(),
                };
                let found = format!("directions at {} sites, none of them known to be the best", sites.len());
                let (strength, middle) = (self.strength, sites[sites.len() / 2]);
                let expected =
                    format!("sites, as {name}:{strength}@{middle}, or {name}:{strength}@all for all of them");
                Err(Error::input(format!("vector {name}"), found, expected))
            }
        }
    }

    /// The hook for these dialogues, whose indices are the rows of the batch. `vector` replaces the intervention's own;
    /// probes are read from `probes` or, where it lacks them, from files. Conditions on the prompt are evaluated here.
    ///
    /// # Errors
    /// An intervention that [`super::Plan::check`] refuses; files that can't be read; vectors and probes of another width
    /// or of another model.
    pub fn prepare(
        &self,
        vector: Option<&Vector>,
        probes: &mut Probes,
        model: &Model,
        dialogues: &[Dialogue],
        thinking: Option<bool>,
    ) -> Result<SteerHook> {
        self.check(vector.is_some() || self.vector.is_some())?;
        let mut readers = Vec::new();
        for bound in self.when.iter().flat_map(Condition::bounds) {
            let reader = self.reader(&bound.query, probes, model)?;
            check_site(&reader, bound.site)?;
            readers.push(reader);
        }
        let mut rows = self.named_rows(dialogues)?;
        if let Some(condition) = self.when.as_ref().filter(|_| self.evaluate_at == EvaluateAt::Prompt) {
            let gated = gated_rows(condition, &readers, model, dialogues, thinking)?;
            rows = Some(match rows {
                None => gated,
                Some(named) => named.intersection(&gated).copied().collect(),
            });
        }
        let mut hook = match (vector, &self.vector) {
            (Some(vector), _) => self.hook(model, vector, rows)?,
            (None, Some(source)) => self.hook(model, source.load(model)?.as_ref(), rows)?,
            (None, None) => self.projection(probes, model, rows)?,
        };
        if let Some(schedule) = self.schedule {
            hook = hook.scheduled(schedule);
        }
        if let Some(control) = &self.control {
            hook = hook.controlled(control.controller, self.reader(&control.probe, probes, model)?)?;
        }
        match self.when.as_ref().filter(|_| self.evaluate_at == EvaluateAt::Token) {
            Some(condition) => hook.gated(condition.clone(), readers),
            None => Ok(hook),
        }
    }

    /// The hook of a vector on these rows; on all where none are given.
    ///
    /// # Errors
    /// Sites that the model or the vector lacks; a vector of another width.
    pub fn hook(&self, model: &Model, vector: &Vector, rows: Option<BTreeSet<usize>>) -> Result<SteerHook> {
        let (vector, sites) = self.along_sites(model, vector)?;
        let change = Change { operation: self.operation, strength: self.strength, to: self.to };
        SteerHook::new(&model.decoder, &vector, &sites, change, self.tokens.clone(), rows)
    }

    /// The hook of a projection onto the states that satisfy every constraint.
    fn projection(
        &self,
        probes: &mut Probes,
        model: &Model,
        rows: Option<BTreeSet<usize>>,
    ) -> Result<SteerHook> {
        let mut faces: BTreeMap<Site, (Vec<HalfSpace>, Vec<CurvedFace>)> = BTreeMap::new();
        for constraint in &self.probe {
            let reader = self.reader(&constraint.query, probes, model)?;
            let threshold = reader.threshold.map(|probability| Inequality { above: false, probability });
            let bound = constraint.bound.or(threshold).ok_or_else(|| {
                let expected =
                    format!("a bound ({constraint} < 0.5), or a probe with a threshold for the class");
                Error::input(format!("probe {constraint}"), "no bound, and no calibrated threshold", expected)
            })?;
            let (flat, curved) = faces.entry(reader.site).or_default();
            let half_spaces = reader.half_spaces(bound)?;
            match reader.curved_face(bound) {
                Some(face) => curved.push(face),
                None => flat.extend(half_spaces),
            }
        }
        if let Some(sites) = &self.sites
            && !sites.resolve(model)?.iter().eq(faces.keys())
        {
            let read: Vec<String> = faces.keys().map(Site::to_string).collect();
            let found = format!("the probes read {}", read.join(", "));
            return Err(Error::input(format!("sites {sites}"), found, "no sites: the probes' own are used"));
        }
        let safe_sets =
            faces.into_iter().map(|(site, (flat, curved))| Ok((site, SafeSet::with_curved(flat, curved)?)));
        let safe_sets = safe_sets.collect::<Result<_>>()?;
        SteerHook::project(
            &model.decoder,
            safe_sets,
            self.operation,
            self.strength,
            self.tokens.clone(),
            rows,
        )
    }

    /// The reader of a probe, from the intervention's own or the others.
    fn reader(&self, query: &ProbeQuery, probes: &mut Probes, model: &Model) -> Result<ProbeReader> {
        match self.probes.reader_in_memory(query, model) {
            Some(reader) => reader,
            None => probes.reader(query, model),
        }
    }

    /// The rows of the dialogues with the ids; none where no ids are given.
    fn named_rows(&self, dialogues: &[Dialogue]) -> Result<Option<BTreeSet<usize>>> {
        if self.ids.is_empty() {
            return Ok(None);
        }
        let mut rows = BTreeSet::new();
        for id in &self.ids {
            let before = rows.len();
            rows.extend((0..dialogues.len()).filter(|&row| dialogues[row].id == *id));
            if rows.len() == before {
                let found = format!("no dialogue {id:?}, or the id is there twice");
                return Err(Error::input("ids", found, "ids of dialogues, each once"));
            }
        }
        Ok(Some(rows))
    }
}

/// Checks the site of a condition against the one that its probe reads.
fn check_site(reader: &ProbeReader, site: Option<Site>) -> Result<()> {
    match site {
        Some(site) if site != reader.site => {
            let found = format!("it reads {}, not {site}", reader.site);
            Err(Error::input(format!("when probe {}", reader.name), found, "the probe's own site, or none"))
        }
        _ => Ok(()),
    }
}
