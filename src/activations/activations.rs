//! Activations in memory: a matrix `[rows, width]` for each site, with the dialogue and position of each row.

use ndarray::{Array2, Axis};

use crate::error::{Error, Result};
use crate::model::Site;

/// Activations in memory, one row per picked token (per dialogue, when pooled).
#[derive(Clone, Debug, PartialEq)]
pub struct Activations {
    /// `[rows, width]` for each site, in the order of the forward pass.
    pub sites: Vec<(Site, Array2<f32>)>,
    /// `[rows]`: index of the dialogue that the row belongs to.
    pub example: Vec<usize>,
    /// `[rows]`: position of the token in its dialogue; none when pooled.
    pub position: Vec<Option<usize>>,
    /// Number of tokens of the dialogues.
    pub tokens: usize,
}

impl Activations {
    /// The activations at one site, `[rows, width]`.
    ///
    /// # Errors
    /// A site that was not recorded.
    pub fn at(&self, site: Site) -> Result<&Array2<f32>> {
        let found = self.sites.iter().find(|(other, _)| *other == site);
        found.map(|(_, rows)| rows).ok_or_else(|| {
            let sites = self.sites.iter().map(|(site, _)| site.to_string()).collect::<Vec<_>>();
            Error::input(format!("site {site}"), "not among the activations", sites.join(", "))
        })
    }

    /// Appends rows recorded at the same sites.
    pub(crate) fn append(&mut self, others: &Activations) -> Result<()> {
        for ((site, rows), (_, more)) in self.sites.iter_mut().zip(&others.sites) {
            rows.append(Axis(0), more.view())
                .map_err(|error| Error::input(format!("site {site}"), error, "rows of one width"))?;
        }
        self.example.extend(&others.example);
        self.position.extend(&others.position);
        self.tokens += others.tokens;
        Ok(())
    }
}
