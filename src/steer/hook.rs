//! Steering as a hook: one intervention at its sites, on the tokens that its selector picks.
//! It knows nothing of where directions come from or why a row is steered.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;

use super::operation::{Operation, Strength};
use super::vector::Vector;
use crate::error::{Error, Result};
use crate::model::{Decoder, Hook, Selector, Site, Token};

/// One intervention, ready to run.
pub struct Steer {
    operation: Operation,
    selector: Selector,
    /// Unit direction and amount along it, a site.
    pushes: BTreeMap<Site, (Vec<f32>, f32)>,
    /// The rows that are steered; all when none is given.
    rows: Option<BTreeSet<usize>>,
}

impl Steer {
    /// `sites`: those of the vector's to use. `rows`: rows of the batch to steer, or none for all.
    ///
    /// # Errors
    /// A selector that is unknown while generating; a site that the vector or the model lacks; a vector of another
    /// width than the model's there.
    pub fn new(
        decoder: &Decoder,
        vector: &Vector,
        sites: &[Site],
        operation: Operation,
        strength: Strength,
        selector: Selector,
        rows: Option<BTreeSet<usize>>,
    ) -> Result<Steer> {
        selector.check_steering()?;
        let architecture = decoder.architecture();
        let mut pushes = BTreeMap::new();
        for &site in sites {
            let Some(direction) = vector.directions.get(&site) else {
                let has = vector.directions.keys().map(Site::to_string).collect::<Vec<_>>();
                return Err(Error::input(format!("vector at {site}"), "no direction there", has.join(", ")));
            };
            if !architecture.has(site) {
                let expected = format!("a site of its {} blocks", architecture.blocks.len());
                return Err(Error::input(
                    format!("vector at {site}"),
                    "the model has no such site",
                    expected,
                ));
            }
            let (found, width) = (direction.values.len(), architecture.site_width(site));
            if found != width {
                let found = format!("a direction of width {found}");
                return Err(Error::input(
                    format!("vector at {site}"),
                    found,
                    format!("width {width}, the model's"),
                ));
            }
            let length = direction.values.dot(&direction.values).sqrt();
            let amount = match strength {
                Strength::Raw(times) if operation == Operation::Add => times * length,
                Strength::Raw(value) => value,
                Strength::Norms(norms) => norms * direction.residual_norm,
            };
            pushes.insert(site, (direction.unit().to_vec(), amount));
        }
        // Nothing is added at strength 0, so nothing is computed either: the model is the unsteered one, bit for bit.
        pushes.retain(|_, (_, amount)| operation != Operation::Add || *amount != 0.0);
        Ok(Steer { operation, selector, pushes, rows })
    }
}

impl Hook for Steer {
    fn wants(&self, site: Site) -> bool {
        self.pushes.contains_key(&site)
    }

    fn call(&mut self, site: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
        let Some((unit, amount)) = self.pushes.get(&site) else {
            return Ok(activations);
        };
        let steered = |token: &Token| self.rows.as_ref().is_none_or(|rows| rows.contains(&token.row));
        let mut picked = self.selector.pick(tokens);
        picked.retain(|&at| steered(&tokens[at]));
        if picked.is_empty() {
            return Ok(activations);
        }
        let mut numbers: Vec<f32> = activations.flatten_all()?.to_vec1()?;
        for at in picked {
            let row = &mut numbers[at * unit.len()..(at + 1) * unit.len()];
            self.operation.apply(row, unit, *amount);
        }
        Ok(Tensor::from_vec(numbers, activations.shape(), activations.device())?)
    }
}
