//! Steering plans from objects in memory, instead of from files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::plan::{Intervention, Plan};
use super::probe_reader::Probes;
use super::vector::Vector;
use crate::error::Result;
use crate::probe::Probe;

/// The vectors and probes that a plan's interventions refer to, where they are not in files.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Objects {
    /// By the number of the intervention.
    vectors: BTreeMap<usize, Vector>,
    /// By the name that conditions use for them.
    probes: Vec<(PathBuf, Probe)>,
}

impl Objects {
    pub fn vector(&self, intervention: usize) -> Option<&Vector> {
        self.vectors.get(&intervention)
    }

    pub fn probes(&self, probes: Probes) -> Probes {
        self.probes.iter().fold(probes, |probes, (name, probe)| probes.with(name, probe.clone()))
    }
}

impl Plan {
    /// Adds `vector` to the activations at these sites (`12.resid_post`), at every token of every row: a number of times
    /// the vector (`2`), or of residual norms along it (`0.5n`).
    ///
    /// # Errors
    /// A strength that is no number. Sites that the model or the vector lacks are an error of [`Plan::hooks`].
    pub fn add(vector: Vector, sites: &str, strength: &str) -> Result<Plan> {
        let intervention = Intervention {
            sites: Some(sites.into()),
            strength: strength.parse()?,
            ..Intervention::default()
        };
        let objects = Objects { vectors: [(0, vector)].into(), probes: Vec::new() };
        Ok(Plan { interventions: vec![intervention], objects })
    }

    /// Steers only the rows whose prompt the probe reads as `class` with a probability above `threshold`; together with
    /// the conditions that there are already. A class that the probe lacks is an error of [`Plan::hooks`].
    pub fn when(mut self, probe: &Probe, class: &str, threshold: f64) -> Plan {
        let name = format!("probe-{}", self.objects.probes.len() + 1);
        for intervention in &mut self.interventions {
            let condition = format!("probe \"{name}:{class}\" > {threshold}");
            intervention.when = Some(match intervention.when.take() {
                None => condition,
                Some(other) => format!("({other}) and {condition}"),
            });
        }
        self.objects.probes.push((name.into(), probe.clone()));
        self
    }
}
