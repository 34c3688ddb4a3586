//! Moving hidden states to places of one's choice: an offset of its own for every row, to see what the model does there.
//! It knows nothing of why a row is moved.

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::model::{Decoder, Hook, Selector, Site, Token};

/// Adds each row's offset at one site, on the tokens that a selector picks.
pub struct Displace {
    site: Site,
    selector: Selector,
    /// `[width]` a row.
    offsets: BTreeMap<usize, Vec<f32>>,
}

impl Displace {
    /// # Errors
    /// A selector that is unknown while generating; an offset of another width than the model's at the site.
    pub fn new(
        decoder: &Decoder,
        site: Site,
        selector: Selector,
        offsets: BTreeMap<usize, Vec<f32>>,
    ) -> Result<Displace> {
        selector.check_steering()?;
        let width = decoder.architecture().site_width(site);
        match offsets.values().find(|offset| offset.len() != width) {
            None => Ok(Displace { site, selector, offsets }),
            Some(offset) => {
                let found = format!("an offset of width {}", offset.len());
                Err(Error::input(
                    format!("displacement at {site}"),
                    found,
                    format!("width {width}, the model's"),
                ))
            }
        }
    }
}

impl Hook for Displace {
    fn wants(&self, site: Site) -> bool {
        site == self.site
    }

    fn call(&mut self, _: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
        let picked = self.selector.pick(tokens);
        if picked.is_empty() {
            return Ok(activations);
        }
        let mut numbers: Vec<f32> = activations.flatten_all()?.to_vec1()?;
        for at in picked {
            if let Some(offset) = self.offsets.get(&tokens[at].row) {
                let row = &mut numbers[at * offset.len()..(at + 1) * offset.len()];
                row.iter_mut().zip(offset).for_each(|(number, offset)| *number += offset);
            }
        }
        Ok(Tensor::from_vec(numbers, activations.shape(), activations.device())?)
    }
}
