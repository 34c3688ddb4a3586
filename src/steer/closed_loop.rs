//! Control of the steering strength by a probe's reading, a closed loop where it acts at many tokens: a probe's log-odds at a token in, the strength at a token out, row by
//! row.

use std::collections::BTreeMap;

use super::pi_controller::{ErrorSum, PiController};
use super::probe_reader::ProbeReader;
use crate::error::{Error, Result};
use crate::model::{Site, Token};

/// A controller with its sensor. Where the probe reads at a steered site or before, a token's log-odds set its own
/// strength. Where it reads later in the pass, they set the strength of the next steered token: answers are then generated
/// token by token, and each token's strength is remembered, so that a row that is read again is steered in the same way.
#[derive(Clone, Debug)]
pub(super) struct ClosedLoop {
    pub(super) controller: PiController,
    pub(super) reader: ProbeReader,
    /// Whether the probe reads after the steered sites.
    late: bool,
    rows: BTreeMap<usize, RowState>,
    /// The position at which the last pass began in each row, and the state there: a pass that failed is run again.
    before: BTreeMap<usize, (usize, RowState)>,
}

/// The state of the loop in one row.
#[derive(Clone, Debug, Default)]
struct RowState {
    /// Ids of the tokens so far.
    ids: Vec<u32>,
    sum: ErrorSum,
    /// Position of the last token whose log-odds are in the sum.
    last_read: Option<usize>,
    /// Strength and error for the next token.
    next: (f32, Option<f64>),
    /// Whether no token has used `next` yet.
    fresh: bool,
    /// Position, strength and error of the tokens steered so far; kept where the loop is late.
    steered: Vec<(usize, f32, Option<f64>)>,
}

impl ClosedLoop {
    /// A loop for these steered sites.
    ///
    /// # Errors
    /// Parameters that [`PiController::check`] refuses; a probe that reads between the sites.
    pub(super) fn new(controller: PiController, reader: ProbeReader, sites: &[Site]) -> Result<ClosedLoop> {
        controller.check()?;
        let late = sites.iter().any(|site| *site < reader.site);
        if late && sites.iter().any(|site| *site >= reader.site) {
            let found = format!("it reads {}, between the sites that it steers", reader.site);
            return Err(Error::input("control", found, "a probe that reads before all of them, or after"));
        }
        Ok(ClosedLoop { controller, reader, late, rows: BTreeMap::new(), before: BTreeMap::new() })
    }

    pub(super) fn is_late(&self) -> bool {
        self.late
    }

    /// Begins a forward pass. Returns strength and error of each picked token where the loop is late, and nothing else.
    pub(super) fn begin(&mut self, tokens: &[Token], picked: &[usize]) -> Result<Vec<(f32, Option<f64>)>> {
        for row in tokens.chunk_by(|a, b| a.row == b.row) {
            let known = self.rows.entry(row[0].row).or_default();
            let ids = row.iter().map(|token| token.id);
            let begin = row[0].position;
            if begin > 0 {
                match self.before.get(&row[0].row) {
                    Some((last, before)) if *last == begin => *known = before.clone(),
                    _ => drop(self.before.insert(row[0].row, (begin, known.clone()))),
                }
                known.ids.extend(ids);
                continue;
            }
            self.before.remove(&row[0].row);
            // The row is read again, with all of its earlier tokens: it keeps their strengths. Otherwise a run begins.
            let ids: Vec<u32> = ids.collect();
            if !self.late || !ids.starts_with(&known.ids) {
                *known = RowState::default();
            }
            known.ids = ids;
        }
        if !self.late {
            return Ok(Vec::new());
        }
        let strength = |&index: &usize| {
            let token = &tokens[index];
            let row = self.rows.entry(token.row).or_default();
            if let Some(steered) = row.steered.iter().find(|(position, ..)| *position == token.position) {
                return Ok((steered.1, steered.2));
            }
            if !row.fresh {
                return Err(too_early(self.reader.site));
            }
            row.fresh = false;
            let (strength, error) = row.next;
            row.steered.push((token.position, strength, error));
            Ok((strength, error))
        };
        picked.iter().map(strength).collect()
    }

    /// Refuses a late loop for a prompt of which tokens are steered: no reading is there to set their strength.
    ///
    /// # Errors
    /// Such a loop.
    pub(super) fn check_prompt(&self, is_steered: bool) -> Result<()> {
        if self.late && is_steered { Err(too_early(self.reader.site)) } else { Ok(()) }
    }

    /// Takes the log-odds at a token, and returns the strength and the error that follow from them.
    pub(super) fn update(&mut self, token: &Token, log_odds: f64) -> (f32, Option<f64>) {
        let row = self.rows.entry(token.row).or_default();
        if row.last_read.is_none_or(|last| token.position > last) {
            let error = self.controller.error(log_odds);
            row.next = (self.controller.step(&mut row.sum, error) as f32, Some(error));
            row.last_read = Some(token.position);
            row.fresh = true;
        }
        row.next
    }
}

fn too_early(site: Site) -> Error {
    let found = format!("a steered token before the reading at {site} that sets its strength");
    let expected = "tokens = \"generated\", in answers that are generated token by token, or a probe that reads before the steered sites";
    Error::input("control", found, expected)
}
