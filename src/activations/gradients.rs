//! Gradients of a readout: how the class that a probe reads, or a difference of two logits, changes with the hidden states before it.
//!
//! One row of tokens in; the readout at its last token, and at each site the states and the readout's gradient, both `[tokens, width]`, out,
//! by one forward and one backward pass.

use candle_core::{Device, Tensor, Var};
use ndarray::{Array1, Array2};

use crate::error::{Error, Result};
use crate::model::{Decoder, Hook, Site, Token};

/// A number that is read at the last token of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Readout {
    /// The product of the state at a site with a direction `[width]`, such as a probe's log-odds without its bias.
    Direction(Site, Array1<f32>),
    /// The logit of the first token less that of the second.
    Logits([u32; 2]),
}

/// The states at a site, and the gradient of a readout there.
#[derive(Clone, Debug)]
pub struct SiteGradient {
    /// The site.
    pub site: Site,
    /// `[tokens, width]`.
    pub states: Array2<f32>,
    /// `[tokens, width]`; 0 for tokens that the pass has no need of at this site.
    pub gradient: Array2<f32>,
}

impl Readout {
    /// The readout of rows whose last tokens are `ends`, under a hook.
    ///
    /// # Errors
    /// As [`Decoder::forward`].
    pub fn values(
        &self,
        decoder: &Decoder,
        tokens: &[Token],
        ends: &[usize],
        hook: &mut dyn Hook,
    ) -> Result<Vec<f64>> {
        let values = self.pass(decoder, tokens, ends, hook)?;
        Ok(values.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
    }

    /// The readout at the tokens `ends`, as a tensor `[ends]`.
    fn pass(
        &self,
        decoder: &Decoder,
        tokens: &[Token],
        ends: &[usize],
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        match self {
            Readout::Logits([one, other]) => {
                let logits = decoder.forward(tokens, None, ends, hook)?;
                let column = |id: u32| logits.narrow(1, id as usize, 1)?.squeeze(1);
                Ok((column(*one)? - column(*other)?)?)
            }
            Readout::Direction(site, direction) => {
                let mut reading = Reading { site: *site, ends, direction, hook, read: None };
                decoder.forward(tokens, None, &[], &mut reading)?;
                reading.read.ok_or_else(|| {
                    Error::input(format!("readout at {site}"), "no such site", "a site of the model")
                })
            }
        }
    }

    /// The readout at the last of the tokens of one row, and its gradient at each site, in the order given.
    ///
    /// # Errors
    /// As [`Decoder::forward`]; a site after the readout; a model with experts or recurrent states, whose gradients would be in part 0.
    pub fn gradients(
        &self,
        decoder: &Decoder,
        tokens: &[Token],
        sites: &[Site],
    ) -> Result<(f64, Vec<SiteGradient>)> {
        let Some(end) = tokens.len().checked_sub(1) else {
            return Err(Error::input("readout", "no token", "a row of tokens"));
        };
        let architecture = decoder.architecture();
        if architecture.experts.is_some() || architecture.is_recurrent() {
            let found = if architecture.is_recurrent() { "recurrent states" } else { "a mixture of experts" };
            let expected =
                "a model of dense blocks with attention: routes and recurrent states have no gradient here";
            return Err(Error::input("gradient", found, expected));
        }
        let mut watched = Watched { sites, seen: Vec::new() };
        let value = self.pass(decoder, tokens, &[end], &mut watched)?.squeeze(0)?;
        let store = value.backward()?;
        let mut found = Vec::with_capacity(sites.len());
        for &site in sites {
            let seen = watched.seen.iter().find(|seen| seen.site == site);
            let gradient = seen.and_then(|seen| Some((seen, store.get(&seen.offset)?)));
            let (seen, gradient) = gradient.ok_or_else(|| {
                Error::input(
                    format!("gradient at {site}"),
                    "no way to the readout",
                    "a site before it, and operations that have gradients",
                )
            })?;
            let whole = |part: &Tensor| -> Result<Array2<f32>> {
                let rows = part.to_device(&Device::Cpu)?.to_vec2::<f32>()?;
                let mut whole = Array2::zeros((tokens.len(), rows.first().map_or(0, Vec::len)));
                for (&at, row) in seen.positions.iter().zip(rows) {
                    whole.row_mut(at).assign(&Array1::from(row));
                }
                Ok(whole)
            };
            found.push(SiteGradient { site, states: whole(&seen.states)?, gradient: whole(gradient)? });
        }
        Ok((f64::from(value.to_scalar::<f32>()?), found))
    }
}

/// Reads a direction at some tokens, after another hook.
struct Reading<'a> {
    site: Site,
    ends: &'a [usize],
    direction: &'a Array1<f32>,
    hook: &'a mut dyn Hook,
    read: Option<Tensor>,
}

impl Hook for Reading<'_> {
    fn wants(&self, site: Site) -> bool {
        site == self.site || self.hook.wants(site)
    }

    fn call(&mut self, site: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
        let activations = match self.hook.wants(site) {
            true => self.hook.call(site, activations, tokens)?,
            false => activations,
        };
        if site == self.site {
            let at: Vec<u32> = self.ends.iter().map(|&end| end as u32).collect();
            let rows = activations.index_select(&Tensor::new(at, activations.device())?, 0)?;
            let direction = Tensor::from_iter(self.direction.iter().copied(), activations.device())?;
            self.read = Some(rows.broadcast_mul(&direction)?.sum(1)?);
        }
        Ok(activations)
    }
}

/// Adds 0 to the states at some sites, by which the readout is differentiated.
struct Watched<'a> {
    sites: &'a [Site],
    seen: Vec<Seen>,
}

struct Seen {
    site: Site,
    /// Positions of the rows.
    positions: Vec<usize>,
    states: Tensor,
    offset: Var,
}

impl Hook for Watched<'_> {
    fn wants(&self, site: Site) -> bool {
        self.sites.contains(&site)
    }

    fn call(&mut self, site: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
        let offset = Var::from_tensor(&activations.zeros_like()?)?;
        let moved = (&activations + offset.as_tensor())?;
        let positions = tokens.iter().map(|token| token.position).collect();
        self.seen.push(Seen { site, positions, states: activations.detach(), offset });
        Ok(moved)
    }
}
