//! The closed loop on the model's side: which reading sets the strength of which token, row by row.
//! It knows nothing of how a strength becomes a change.

use std::collections::BTreeMap;

use super::pi_controller::{PiController, Sum};
use super::probe_reader::Reader;
use crate::error::{Error, Result};
use crate::model::{Site, Token};

/// A law with its reading. Where the probe reads before steering acts (or at the same site), a token's reading sets its
/// own strength. Where it reads after, in the same pass, a token's reading sets the strength of the next token that is
/// steered: then answers have to come token by token, and what was done to a token is remembered, so that the same is
/// done when the row is read anew.
#[derive(Clone, Debug)]
pub struct Control {
    pub law: PiController,
    pub(super) reader: Reader,
    /// Whether it reads after steering acts.
    late: bool,
    rows: BTreeMap<usize, Row>,
}

/// What is known of a row.
#[derive(Clone, Debug, Default)]
struct Row {
    /// Ids of its tokens so far.
    ids: Vec<u32>,
    sum: Sum,
    /// Position of the last token whose reading counts already.
    read: Option<usize>,
    /// Strength and error for the next token.
    next: (f32, Option<f64>),
    /// Whether `next` comes from a reading that no token has used yet.
    fresh: bool,
    /// Position, strength and error of the tokens steered so far; kept where the loop reads late.
    done: Vec<(usize, f32, Option<f64>)>,
}

impl Control {
    /// `sites`: where steering acts.
    ///
    /// # Errors
    /// A law that makes no sense; a reading between the sites.
    pub fn new(law: PiController, reader: Reader, sites: &[Site]) -> Result<Control> {
        law.check()?;
        let late = sites.iter().any(|site| *site < reader.site);
        if late && sites.iter().any(|site| *site >= reader.site) {
            let found = format!("it reads {}, between the sites that it steers", reader.site);
            return Err(Error::input("control", found, "a reading before all of them, or after"));
        }
        Ok(Control { law, reader, late, rows: BTreeMap::new() })
    }

    pub(super) fn is_late(&self) -> bool {
        self.late
    }

    /// A pass begins: strength and error of each picked token, where they are known before the pass is read.
    pub(super) fn begin(&mut self, tokens: &[Token], picked: &[usize]) -> Result<Vec<(f32, Option<f64>)>> {
        for row in tokens.chunk_by(|a, b| a.row == b.row) {
            let known = self.rows.entry(row[0].row).or_default();
            let ids = row.iter().map(|token| token.id);
            if row[0].position > 0 {
                known.ids.extend(ids);
                continue;
            }
            // Read anew, with all that was read before: what was done then is done again. Anything else is another run.
            let ids: Vec<u32> = ids.collect();
            if !self.late || !ids.starts_with(&known.ids) {
                *known = Row::default();
            }
            known.ids = ids;
        }
        if !self.late {
            return Ok(Vec::new());
        }
        let strength = |&at: &usize| {
            let token = &tokens[at];
            let row = self.rows.entry(token.row).or_default();
            if let Some(done) = row.done.iter().find(|(position, ..)| *position == token.position) {
                return Ok((done.1, done.2));
            }
            if !row.fresh {
                let found = format!(
                    "a steered token before the reading at {} that sets its strength",
                    self.reader.site
                );
                let expected =
                    "answers that are read token by token, or a probe that reads before steering acts";
                return Err(Error::input(format!("control, row {}", token.row), found, expected));
            }
            row.fresh = false;
            let (strength, error) = row.next;
            row.done.push((token.position, strength, error));
            Ok((strength, error))
        };
        picked.iter().map(strength).collect()
    }

    /// Takes a reading, in log-odds, at one token, and gives strength and error that follow.
    pub(super) fn read(&mut self, token: &Token, reading: f64) -> (f32, Option<f64>) {
        let row = self.rows.entry(token.row).or_default();
        if row.read.is_none_or(|read| token.position > read) {
            let error = self.law.error(reading);
            row.next = (self.law.step(&mut row.sum, error) as f32, Some(error));
            row.read = Some(token.position);
            row.fresh = true;
        }
        row.next
    }
}
