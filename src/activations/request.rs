//! Extraction request: the sites and tokens to record, and how dialogues are rendered and batched.

use crate::model::{Selector, Site, TooLong};

/// Tokens of a batch by default: enough to keep the matrix products of a small model efficient, and few enough that the
/// hidden states of a batch stay small beside the weights.
pub const BATCH_TOKENS: usize = 2048;

/// What to record of each dialogue.
///
/// ```
/// use pearlpoint::activations::Request;
/// use pearlpoint::model::Site;
///
/// let site: Site = "2.resid_post".parse()?;
/// let request = Request::new([site]).tokens("mean(answer)".parse()?).batch_tokens(512);
/// assert_eq!(request.sites, [site]);
/// # Ok::<(), pearlpoint::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Request {
    /// Sites to record, in any order.
    pub sites: Vec<Site>,
    /// Tokens to record: the last one by default.
    pub tokens: Selector,
    /// The mode of chat templates that have a thinking and a plain one; the template's own default where none.
    pub thinking: Option<bool>,
    /// Tokens of a batch at most, except for a dialogue that is longer alone.
    pub batch_tokens: usize,
    /// What happens to a dialogue that is longer than the model's context, when a store is written.
    pub too_long: TooLong,
}

impl Request {
    /// A request for these sites with default settings.
    pub fn new(sites: impl Into<Vec<Site>>) -> Request {
        Request { sites: sites.into(), ..Request::default() }
    }

    /// Sets the tokens to record.
    pub fn tokens(self, tokens: Selector) -> Request {
        Request { tokens, ..self }
    }

    /// Sets the template's mode.
    pub fn thinking(self, thinking: Option<bool>) -> Request {
        Request { thinking, ..self }
    }

    /// Sets the tokens of a batch.
    pub fn batch_tokens(self, batch_tokens: usize) -> Request {
        Request { batch_tokens, ..self }
    }

    /// Sets what happens to a dialogue that is longer than the model's context.
    pub fn too_long(self, too_long: TooLong) -> Request {
        Request { too_long, ..self }
    }
}

impl Default for Request {
    fn default() -> Request {
        Request {
            sites: Vec::new(),
            tokens: Selector::Last,
            thinking: None,
            batch_tokens: BATCH_TOKENS,
            too_long: TooLong::Error,
        }
    }
}
