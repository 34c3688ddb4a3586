//! Batched extraction: dialogues through the model in ragged batches under a budget of tokens.
//!
//! Tokenised dialogues go in, [`Activations`] for each selector come out. Three savings leave the result unchanged up to
//! rounding: blocks above the last site are not run, tokens after the last picked one are cut (in causal models), and
//! prefixes that dialogues share are computed once.

use std::ops::Range;

use ndarray::Array2;

use super::activations::Activations;
use super::recorder::{Picks, Recorder, Table};
use super::request::Request;
use super::shared_prefix::{self, Group};
use super::steering::Steering;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{
    Cache, Chain, Model, Point, Pooling, Prefix, PromptCache, PromptSteering, Selector, Site, Token,
};

/// A dialogue as tokens, with those that are recorded.
pub struct TokenisedDialogue {
    /// Index of the dialogue.
    pub(super) example: usize,
    /// Its id.
    id: String,
    /// Fingerprint of the dialogue.
    pub(super) fingerprint: i64,
    /// Number of tokens of the whole dialogue.
    pub length: usize,
    /// All tokens, or in a causal model those up to the last picked one.
    tokens: Vec<Token>,
    /// For each selector, the indices of the tokens that it picks.
    picked: Vec<Vec<usize>>,
    /// The dialogue, where steering asks for it.
    dialogue: Option<Dialogue>,
}

impl TokenisedDialogue {
    /// A dialogue that [`extract_tokenised`](super::extract_tokenised) reads for a request, which nothing steers. `example`: its index in the
    /// result; `tokens`: all tokens of row 0, as [`crate::model::Chat::tokens`] gives them.
    pub fn new(
        model: &Model,
        request: &Request,
        example: usize,
        dialogue: &Dialogue,
        tokens: Vec<Token>,
    ) -> TokenisedDialogue {
        Extractor::new(model, request, &[]).of_tokens(example, dialogue, tokens)
    }

    /// Tokens that go through the model for it, shared prefixes apart.
    pub(super) fn cost(&self) -> usize {
        self.tokens.len()
    }
}

/// Runs a model over dialogues for one request.
pub(super) struct Extractor<'a> {
    model: &'a Model,
    /// Ascending.
    sites: Vec<Site>,
    selectors: Vec<Selector>,
    thinking: Option<bool>,
    batch_tokens: usize,
    /// Whether a token's activations depend on earlier tokens alone.
    causal: bool,
    /// Number of blocks up to the last site whose keys and values a cached prefix needs.
    depth: usize,
    /// What steers the model.
    steering: Option<&'a Steering<'a>>,
    /// Beginnings of the dialogues that were read before.
    prompts: Option<&'a mut PromptCache>,
    /// The last shared prefix: its token ids, keys and values.
    prefix: Option<(Vec<u32>, Prefix)>,
    /// Number of tokens that went through the model.
    pub computed: usize,
}

impl<'a> Extractor<'a> {
    /// An extractor for the request's selector, followed by the others.
    pub fn new(model: &'a Model, request: &Request, others: &[Selector]) -> Extractor<'a> {
        let architecture = model.decoder.architecture();
        let mut sites = request.sites.clone();
        sites.sort_unstable();
        sites.dedup();
        let deepest = sites.last().map(|&site| match site {
            Site::Embed => 0,
            Site::Block(block, Point::ResidPre) => block,
            Site::Block(block, _) => block + 1,
            _ => architecture.blocks.len(),
        });
        Extractor {
            model,
            sites,
            // At least one block, because a cache counts its tokens by the keys of a block.
            depth: deepest.unwrap_or(0).max(1),
            selectors: std::iter::once(&request.tokens).chain(others).cloned().collect(),
            thinking: request.thinking,
            batch_tokens: request.batch_tokens,
            causal: architecture.causal && !architecture.ropes.iter().any(|rope| rope.depends_on_length()),
            steering: None,
            prompts: None,
            prefix: None,
            computed: 0,
        }
    }

    /// Steers the model while it is read. Prefixes aren't shared then: what is steered may depend on the dialogue.
    pub fn steered(mut self, steering: Option<&'a Steering<'a>>) -> Extractor<'a> {
        self.steering = steering;
        self
    }

    /// Begins each dialogue with what `prompts` has of it, and keeps what is read there, of every block. Prefixes aren't shared between
    /// dialogues then.
    pub fn after(mut self, prompts: &'a mut PromptCache) -> Extractor<'a> {
        self.prompts = Some(prompts);
        self
    }

    /// A dialogue's tokens, and those that the selectors pick.
    ///
    /// # Errors
    /// A dialogue that the template refuses, or with more tokens than the model's context.
    pub fn tokenise(&self, example: usize, dialogue: &Dialogue) -> Result<TokenisedDialogue> {
        let tokens = self.model.chat.tokens(dialogue, 0, self.thinking)?;
        let architecture = self.model.decoder.architecture();
        if tokens.len() > architecture.longest() {
            return Err(architecture.too_long(dialogue, tokens.len()));
        }
        Ok(self.of_tokens(example, dialogue, tokens))
    }

    /// As [`Extractor::tokenise`], of tokens that are there already.
    fn of_tokens(&self, example: usize, dialogue: &Dialogue, mut tokens: Vec<Token>) -> TokenisedDialogue {
        let length = tokens.len();
        let picked: Vec<Vec<usize>> = self.selectors.iter().map(|selector| selector.pick(&tokens)).collect();
        if self.causal {
            let last = picked.iter().filter_map(|picked| picked.last()).max();
            tokens.truncate(last.map_or(0, |last| last + 1));
        }
        let (id, fingerprint) = (dialogue.id.clone(), dialogue.fingerprint());
        let dialogue = self.steering.map(|_| dialogue.clone());
        TokenisedDialogue { example, id, fingerprint, length, tokens, picked, dialogue }
    }

    /// Whether a dialogue has more tokens than the model's context.
    pub fn is_too_long(&self, dialogue: &Dialogue) -> bool {
        matches!(self.model.excess(dialogue, self.thinking), Ok(Some(_)))
    }

    /// Rows of activations that a dialogue gives to the request's own selector.
    pub fn row_count(&self, dialogue: &TokenisedDialogue) -> usize {
        match self.selectors[0].pooling() {
            Pooling::Each => dialogue.picked[0].len(),
            _ => usize::from(!dialogue.picked[0].is_empty()),
        }
    }

    /// Width of a row of activations, summed over the sites.
    pub fn width(&self) -> usize {
        let architecture = self.model.decoder.architecture();
        self.sites.iter().map(|&site| architecture.site_width(site)).sum()
    }

    /// The activations of dialogues, in their order, for each selector. `on_progress` gets the number of dialogues done, and
    /// stops the run by returning false.
    ///
    /// The result depends on these dialogues alone, bit for bit, not on those of earlier calls.
    pub fn extract(
        &mut self,
        rows: &[TokenisedDialogue],
        on_progress: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Vec<Activations>> {
        let layouts: Vec<RowLayout> =
            (0..self.selectors.len()).map(|number| self.layout(number, rows)).collect();
        let tables = layouts.iter().map(|layout| self.table(layout.example.len())).collect();
        let mut recorder = Recorder::into_tables(self.sites.clone(), tables);
        let with_picks: Vec<usize> =
            (0..rows.len()).filter(|&row| rows[row].picked.iter().any(|picked| !picked.is_empty())).collect();
        let mut done = rows.len() - with_picks.len();
        let limits: Vec<(&[Token], usize)> =
            with_picks.iter().map(|&row| (&rows[row].tokens[..], self.shareable(&rows[row]))).collect();
        // Kept at the end: what rows begin with stays the same until all are read, also where two have one id.
        let mut read = Vec::new();
        let groups = match self.prompts {
            None => shared_prefix::groups(&limits),
            Some(_) => vec![Group { shared: 0, rows: (0..limits.len()).collect() }],
        };
        for Group { shared, rows: members } in groups {
            let members: Vec<usize> = members.into_iter().map(|member| with_picks[member]).collect();
            let prefix = match shared {
                0 => None,
                _ => Some(self.prefix(&rows[members[0]].tokens[..shared])?),
            };
            let known: Vec<usize> = members.iter().map(|&row| shared.max(self.known(&rows[row]))).collect();
            let costs: Vec<usize> =
                members.iter().zip(&known).map(|(&row, known)| rows[row].tokens.len() - known).collect();
            for batch in batches(&costs, self.batch_tokens) {
                let (members, known) = (&members[batch.clone()], &known[batch]);
                let mut tokens = Vec::new();
                let mut picks: Vec<Picks> = self.selectors.iter().map(Picks::new).collect();
                for (number, (&row, &known)) in members.iter().zip(known).enumerate() {
                    for ((picks, picked), layout) in picks.iter_mut().zip(&rows[row].picked).zip(&layouts) {
                        let picked = picked.iter().map(|index| tokens.len() + index - known);
                        picks.add(picked, layout.first_rows[row]);
                    }
                    let own = rows[row].tokens[known..].iter().cloned();
                    tokens.extend(own.map(|token| Token { row: number, ..token }));
                }
                recorder.set_picks(picks);
                let mut cache = prefix.clone().map(Cache::after);
                if self.prompts.is_some() {
                    cache =
                        Some(self.begun(members.iter().map(|&row| &rows[row]).zip(known.iter().copied()))?);
                }
                match self.steering {
                    None => self.model.decoder.forward(&tokens, cache.as_mut(), &[], &mut recorder)?,
                    Some(steering) => {
                        let own = members.iter().filter_map(|&row| rows[row].dialogue.clone());
                        let mut steer = (steering.make)(&own.collect::<Vec<_>>())?;
                        let mut chain = Chain(vec![steer.as_mut(), &mut recorder]);
                        self.model.decoder.forward(&tokens, cache.as_mut(), &[], &mut chain)?
                    }
                };
                if let (Some(_), Some(cache)) = (&self.prompts, &mut cache) {
                    read.extend(members.iter().enumerate().map(|(number, &row)| (row, cache.take(number))));
                }
                self.computed += tokens.len();
                if let Some(prompts) = &mut self.prompts {
                    prompts.count(tokens.len());
                }
                done += members.len();
                if !on_progress(done) {
                    return Err(Error::Stopped);
                }
            }
        }
        if let Some(prompts) = &mut self.prompts {
            for (row, prefix) in read {
                prompts.keep(&rows[row].id, rows[row].tokens.clone(), PromptSteering::NONE, prefix);
            }
        }
        if with_picks.is_empty() && !on_progress(done) {
            return Err(Error::Stopped);
        }
        layouts
            .into_iter()
            .zip(recorder.finish_tables())
            .map(|(layout, table)| self.shape(layout, table))
            .collect()
    }

    /// Number of leading tokens that may come from a shared prefix: those before the first picked one.
    fn shareable(&self, dialogue: &TokenisedDialogue) -> usize {
        let first = dialogue.picked.iter().filter_map(|picked| picked.first()).min();
        if self.causal && self.steering.is_none() { first.copied().unwrap_or(0) } else { 0 }
    }

    /// Number of leading tokens that were read before.
    fn known(&self, dialogue: &TokenisedDialogue) -> usize {
        let prompts = self.prompts.as_ref().filter(|_| self.steering.is_none());
        let known = prompts.and_then(|prompts| {
            prompts.find(&self.model.decoder, &dialogue.id, &dialogue.tokens, PromptSteering::NONE)
        });
        // What is picked has to be read.
        known.map(|(_, takes)| takes).filter(|takes| *takes <= self.shareable(dialogue)).unwrap_or(0)
    }

    /// A cache whose rows begin with what was read of their dialogues before: of each so many tokens.
    fn begun<'d>(&self, rows: impl Iterator<Item = (&'d TokenisedDialogue, usize)>) -> Result<Cache> {
        let mut cache = Cache::default();
        for (number, (dialogue, known)) in rows.enumerate().filter(|(_, (_, known))| *known > 0) {
            let prompts = self.prompts.as_ref();
            let found = prompts.and_then(|prompts| {
                prompts.find(&self.model.decoder, &dialogue.id, &dialogue.tokens, PromptSteering::NONE)
            });
            if let Some((prefix, _)) = found {
                cache.begin(number, prefix, known, 0)?;
            }
        }
        Ok(cache)
    }

    /// Keys and values of a prefix.
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

    /// The rows that one selector gives.
    fn layout(&self, number: usize, rows: &[TokenisedDialogue]) -> RowLayout {
        let (mut example, mut position, mut first_rows) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            first_rows.push(example.len());
            let picked = &row.picked[number];
            match self.selectors[number].pooling() {
                Pooling::Each => {
                    position.extend(picked.iter().map(|&index| Some(row.tokens[index].position)));
                }
                _ => position.extend(picked.first().map(|_| None)),
            }
            example.resize(position.len(), row.example);
        }
        let tokens = rows.iter().map(|row| row.length).sum();
        RowLayout { example, position, first_rows, tokens }
    }

    /// A table of zeros with so many rows.
    fn table(&self, rows: usize) -> Table {
        let architecture = self.model.decoder.architecture();
        self.sites.iter().map(|&site| vec![0.0; rows * architecture.site_width(site)]).collect()
    }

    /// A filled table as activations.
    fn shape(&self, layout: RowLayout, table: Table) -> Result<Activations> {
        let architecture = self.model.decoder.architecture();
        let rows = layout.example.len();
        let matrix = |(&site, values): (&Site, Vec<f32>)| {
            let matrix = Array2::from_shape_vec((rows, architecture.site_width(site)), values);
            let wrong = |error| Error::input(format!("site {site}"), error, "a row per picked token");
            Ok((site, matrix.map_err(wrong)?))
        };
        let sites = self.sites.iter().zip(table).map(matrix).collect::<Result<_>>()?;
        let RowLayout { example, position, tokens, .. } = layout;
        Ok(Activations { sites, example, position, tokens })
    }
}

/// The rows of one selector's activations.
struct RowLayout {
    /// As in [`Activations`].
    example: Vec<usize>,
    position: Vec<Option<usize>>,
    tokens: usize,
    /// The first row of each dialogue.
    first_rows: Vec<usize>,
}

/// Ranges of rows with these numbers of tokens, as few batches as the budget allows and of about equal size, so that no
/// small one is left over. A row that is longer than the budget is a batch alone.
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
