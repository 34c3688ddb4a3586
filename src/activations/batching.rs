//! Dialogues through the model, some hundred at a time: ragged batches under a budget of tokens, no deeper than the last
//! site wanted, no further than the last token wanted, and beginnings that rows share read once.
//! It knows nothing of files.

use std::ops::Range;

use candle_core::{D, Tensor};
use ndarray::Array2;

use super::extract::{Activations, Reading};
use super::recorder::{copied, pool};
use super::shared_prefix;
use super::shared_prefix::Group;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Cache, Hook, Model, Point, Pooling, Prefix, Selector, Site, Token};

/// A dialogue as the model reads it.
pub(super) struct Row {
    /// Number of the dialogue.
    pub example: usize,
    /// How many tokens the dialogue has.
    pub length: usize,
    /// Up to the last that is picked, where no later one can matter.
    tokens: Vec<Token>,
    /// For each selector, which of them it picks.
    picked: Vec<Vec<usize>>,
}

/// What is read, of which model, and the beginning that was read last.
pub(super) struct Pass<'a> {
    model: &'a Model,
    sites: Vec<Site>,
    selectors: Vec<Selector>,
    thinking: Option<bool>,
    batch_tokens: usize,
    /// Whether a token's activations follow from the tokens before it alone.
    causal: bool,
    /// How many blocks see what stands before a token, on the way to the last site.
    depth: usize,
    prefix: Option<(Vec<u32>, Prefix)>,
    /// Tokens that went through the model.
    pub computed: usize,
}

impl<'a> Pass<'a> {
    /// The reading's selector comes first, then the others.
    pub fn new(model: &'a Model, reading: &Reading, others: &[Selector]) -> Pass<'a> {
        let architecture = model.decoder.architecture();
        let mut sites = reading.sites.clone();
        sites.sort_unstable();
        sites.dedup();
        let deepest = sites.last().map(|&site| match site {
            Site::Embed => 0,
            Site::Block(block, Point::ResidPre) => block,
            Site::Block(block, _) => block + 1,
            _ => architecture.blocks.len(),
        });
        Pass {
            model,
            sites,
            // A beginning is one block deep at least: that is how a cache knows that it was read.
            depth: deepest.unwrap_or(0).max(1),
            selectors: std::iter::once(&reading.tokens).chain(others).cloned().collect(),
            thinking: reading.thinking,
            batch_tokens: reading.batch_tokens,
            causal: architecture.causal && !architecture.ropes.iter().any(|rope| rope.depends_on_length()),
            prefix: None,
            computed: 0,
        }
    }

    /// A dialogue's tokens, and which of them are wanted.
    pub fn row(&self, example: usize, dialogue: &Dialogue) -> Result<Row> {
        let mut tokens = self.model.chat.tokens(dialogue, 0, self.thinking)?;
        let length = tokens.len();
        let most = self.model.decoder.architecture().positions.unwrap_or(usize::MAX);
        if length > most {
            let expected = format!("at most {most}: the model has learnt no more positions");
            return Err(Error::input(
                format!("dialogue {}", dialogue.id),
                format!("{length} tokens"),
                expected,
            ));
        }
        let picked: Vec<Vec<usize>> = self.selectors.iter().map(|selector| selector.pick(&tokens)).collect();
        if self.causal {
            let last = picked.iter().filter_map(|picked| picked.last()).max();
            tokens.truncate(last.map_or(0, |last| last + 1));
        }
        Ok(Row { example, length, tokens, picked })
    }

    /// How many rows of activations a dialogue gives to the reading's own selector.
    pub fn count(&self, row: &Row) -> usize {
        rows_of(&self.selectors[0], &row.picked[0])
    }

    /// Numbers in a row of activations, over all sites.
    pub fn width(&self) -> usize {
        let architecture = self.model.decoder.architecture();
        self.sites.iter().map(|&site| architecture.site_width(site)).sum()
    }

    /// Reads dialogues; gives activations in their order, for each selector. `heard` is told how many of them are done,
    /// and stops the run by giving false.
    ///
    /// The result follows from the rows alone, bit for bit, whatever was read before.
    pub fn read(&mut self, rows: &[Row], heard: &mut dyn FnMut(usize) -> bool) -> Result<Vec<Activations>> {
        let mut tables: Vec<Activations> = Vec::new();
        // For each selector, where each dialogue's rows of activations begin.
        let mut places: Vec<Vec<usize>> = Vec::new();
        for number in 0..self.selectors.len() {
            let (table, place) = self.table(number, rows);
            tables.push(table);
            places.push(place);
        }
        let wanted: Vec<usize> =
            (0..rows.len()).filter(|&row| rows[row].picked.iter().any(|picked| !picked.is_empty())).collect();
        let mut done = rows.len() - wanted.len();
        let limits: Vec<(&[Token], usize)> =
            wanted.iter().map(|&row| (&rows[row].tokens[..], self.shareable(&rows[row]))).collect();
        for Group { shared, rows: members } in shared_prefix::groups(&limits) {
            let members: Vec<usize> = members.into_iter().map(|member| wanted[member]).collect();
            let prefix = match shared {
                0 => None,
                _ => Some(self.prefix(&rows[members[0]].tokens[..shared])?),
            };
            let costs: Vec<usize> = members.iter().map(|&row| rows[row].tokens.len() - shared).collect();
            for batch in batches(&costs, self.batch_tokens) {
                let members = &members[batch];
                let mut tokens = Vec::new();
                let mut picks: Vec<Picks> = self.selectors.iter().map(Picks::new).collect();
                for (number, &row) in members.iter().enumerate() {
                    for ((picks, picked), place) in picks.iter_mut().zip(&rows[row].picked).zip(&places) {
                        picks.add(picked.iter().map(|at| tokens.len() + at - shared), place[row]);
                    }
                    let own = rows[row].tokens[shared..].iter().cloned();
                    tokens.extend(own.map(|token| Token { row: number, ..token }));
                }
                let mut gather = Gather::new(&self.sites, &picks, &mut tables);
                let mut cache = prefix.clone().map(Cache::after);
                self.model.decoder.forward(&tokens, cache.as_mut(), &[], &mut gather)?;
                self.computed += tokens.len();
                done += members.len();
                if !heard(done) {
                    return Err(Error::Stopped);
                }
            }
        }
        if wanted.is_empty() && !heard(done) {
            return Err(Error::Stopped);
        }
        Ok(tables)
    }

    /// How many of a row's first tokens may be read with other rows': none that is wanted, and never all.
    fn shareable(&self, row: &Row) -> usize {
        let first = row.picked.iter().filter_map(|picked| picked.first()).min();
        if self.causal { first.copied().unwrap_or(0) } else { 0 }
    }

    /// Keys and values of a beginning.
    fn prefix(&mut self, tokens: &[Token]) -> Result<Prefix> {
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        if let Some((last, prefix)) = &self.prefix
            && *last == ids
        {
            return Ok(prefix.clone());
        }
        let mut cache = Cache::of_first(self.depth);
        self.model.decoder.forward(tokens, Some(&mut cache), &[], &mut ())?;
        self.computed += tokens.len();
        let prefix = cache.into_prefix(0);
        self.prefix = Some((ids, prefix.clone()));
        Ok(prefix)
    }

    /// Room for what one selector picks, and where in it each dialogue's part begins.
    fn table(&self, number: usize, rows: &[Row]) -> (Activations, Vec<usize>) {
        let (selector, architecture) = (&self.selectors[number], self.model.decoder.architecture());
        let (mut example, mut position, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            places.push(example.len());
            let picked = &row.picked[number];
            match selector.pooling() {
                Pooling::Each => position.extend(picked.iter().map(|&at| Some(row.tokens[at].position))),
                _ => position.extend(picked.first().map(|_| None)),
            }
            example.resize(position.len(), row.example);
        }
        let zeros = |&site: &Site| (site, Array2::zeros((example.len(), architecture.site_width(site))));
        let sites = self.sites.iter().map(zeros).collect();
        let tokens = rows.iter().map(|row| row.length).sum();
        (Activations { sites, example, position, tokens }, places)
    }
}

fn rows_of(selector: &Selector, picked: &[usize]) -> usize {
    match selector.pooling() {
        Pooling::Each => picked.len(),
        _ => usize::from(!picked.is_empty()),
    }
}

/// Rows of so many tokens in as few batches as the budget allows, of about the same size, so that none is left with a
/// few tokens. A row that is longer than the budget is a batch alone.
fn batches(costs: &[usize], budget: usize) -> Vec<Range<usize>> {
    let total: usize = costs.iter().sum();
    let target = total.div_ceil(total.div_ceil(budget.max(1)).max(1));
    let mut batches: Vec<Range<usize>> = Vec::new();
    let (mut begin, mut tokens) = (0, 0);
    for (row, cost) in costs.iter().enumerate() {
        if row > begin && (tokens + cost > budget || tokens + cost / 2 > target) {
            batches.push(begin..row);
            (begin, tokens) = (row, 0);
        }
        tokens += cost;
    }
    if begin < costs.len() {
        batches.push(begin..costs.len());
    }
    batches
}

/// Which tokens of a batch go to which rows of a table.
struct Picks {
    pooling: Pooling,
    /// Tokens of the batch.
    tokens: Vec<usize>,
    /// Stretches of `tokens`, and the row of the table that each becomes.
    rows: Vec<(Range<usize>, usize)>,
}

impl Picks {
    fn new(selector: &Selector) -> Picks {
        Picks { pooling: selector.pooling(), tokens: Vec::new(), rows: Vec::new() }
    }

    /// What is picked of one dialogue, whose rows begin at `place`.
    fn add(&mut self, picked: impl Iterator<Item = usize>, place: usize) {
        let begin = self.tokens.len();
        self.tokens.extend(picked);
        let new = begin..self.tokens.len();
        match self.pooling {
            Pooling::Each => self.rows.extend(new.zip(place..).map(|(at, row)| (at..at + 1, row))),
            _ if new.is_empty() => (),
            _ => self.rows.push((new, place)),
        }
    }
}

/// The hook that fills the tables.
struct Gather<'a> {
    sites: &'a [Site],
    /// One a selector, as are the tables.
    picks: &'a [Picks],
    tables: &'a mut [Activations],
    /// Every token that is picked, ascending.
    needed: Vec<usize>,
}

impl<'a> Gather<'a> {
    fn new(sites: &'a [Site], picks: &'a [Picks], tables: &'a mut [Activations]) -> Gather<'a> {
        let mut needed: Vec<usize> = picks.iter().flat_map(|picks| &picks.tokens).copied().collect();
        needed.sort_unstable();
        needed.dedup();
        Gather { sites, picks, tables, needed }
    }
}

impl Hook for Gather<'_> {
    fn token_indices(&self) -> Option<Vec<usize>> {
        Some(self.needed.clone())
    }

    fn wants(&self, site: Site) -> bool {
        self.sites.binary_search(&site).is_ok()
    }

    fn call(&mut self, site: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
        let Ok(number) = self.sites.binary_search(&site) else {
            return Ok(activations);
        };
        let width = activations.dim(D::Minus1)?;
        for (picks, table) in self.picks.iter().zip(&mut *self.tables) {
            if picks.tokens.is_empty() {
                continue;
            }
            // In the batch, or among those that are picked where the others did not go on.
            let place = |at: &usize| self.needed.partition_point(|needed| needed < at);
            let values = match tokens.len() == self.needed.len() {
                true => copied(&activations, &picks.tokens.iter().map(place).collect::<Vec<_>>())?,
                false => copied(&activations, &picks.tokens)?,
            };
            let table = &mut table.sites[number].1;
            for (from, to) in &picks.rows {
                let values = &values[from.start * width..from.end * width];
                // Made with rows that stand one after the other.
                if let Some(row) = table.row_mut(*to).into_slice() {
                    pool(values, picks.pooling, row);
                }
            }
        }
        Ok(activations)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn batches_hold_every_row_once_and_keep_the_budget(
            costs in proptest::collection::vec(1usize..50, 0..40), budget in 1usize..200,
        ) {
            let batches = batches(&costs, budget);
            let rows: Vec<usize> = batches.iter().cloned().flatten().collect();
            prop_assert_eq!(rows, (0..costs.len()).collect::<Vec<_>>());
            for batch in batches {
                let tokens: usize = costs[batch.clone()].iter().sum();
                prop_assert!(tokens <= budget || batch.len() == 1);
            }
        }
    }

    #[test]
    fn no_batch_is_left_with_a_few_tokens() {
        assert_eq!(batches(&[100; 45], 4096), [0..23, 23..45]);
    }
}
