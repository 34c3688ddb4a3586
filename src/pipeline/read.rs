//! What a fitted probe reads in labelled activations: probabilities, the truth in its classes, rows that it never saw.

use ndarray::{Array2, Axis};

use crate::activations::Labelled;
use crate::error::{Error, Result};
use crate::probe::{Link, Probe, Targets};

impl Labelled {
    /// The probe's calibrated probabilities `[rows, classes]`, of these rows.
    ///
    /// # Errors
    /// Activations of another model, at other tokens or without the probe's site.
    pub fn probabilities(&self, probe: &Probe, rows: &[usize]) -> Result<Array2<f64>> {
        self.check_probe(probe)?;
        probe.probabilities(self.at(probe.source.site)?.select(Axis(0), rows).view())
    }

    /// The rows' labels as the probe's classes, the rows of a dialogue in a group of their own.
    ///
    /// # Errors
    /// Rows without the probe's label, or with a value that is none of its classes.
    pub fn truth(&self, probe: &Probe, rows: &[usize]) -> Result<Targets> {
        self.truth_by_group(probe, rows, None)
    }

    /// [`Labelled::truth`] with the values of a label as groups.
    ///
    /// # Errors
    /// As [`Labelled::truth`]; rows without the group's label.
    pub fn truth_by_group(&self, probe: &Probe, rows: &[usize], group: Option<&str>) -> Result<Targets> {
        let ids: Vec<String> = match group {
            None => rows.iter().map(|&row| self.example()[row].to_string()).collect(),
            Some(group) => {
                let groups = rows.iter().map(|&row| {
                    let missing = || {
                        let place = format!("dialogue {}", self.dialogue(row).id);
                        Error::input(place, format!("no label {group}"), "one on every dialogue")
                    };
                    self.dialogue(row).label(group).ok_or_else(missing)
                });
                groups.collect::<Result<_>>()?
            }
        };
        let order: Vec<&str> = probe.classes.iter().map(String::as_str).collect();
        if probe.link == Link::MultiLabel {
            let lists = self.label_lists(&probe.source.label)?;
            let chosen: Vec<Vec<String>> = rows.iter().map(|&row| lists[row].clone()).collect();
            return Targets::multilabel(&chosen, &ids, &order);
        }
        let labels = self.labels(&probe.source.label)?;
        let chosen: Vec<String> = rows.iter().map(|&row| labels[row].clone()).collect();
        let mut targets = Targets::new(&chosen, &ids, &order)?;
        targets.link = probe.link;
        Ok(targets)
    }

    /// Refuses a probe of other activations than these.
    ///
    /// # Errors
    /// Another model, other tokens, or a site that was not read.
    pub fn check_probe(&self, probe: &Probe) -> Result<()> {
        let place = format!("probe of {}", probe.source.label);
        if probe.source.tokens != *self.tokens() {
            let found = format!("activations at {}", self.tokens());
            return Err(Error::input(
                place,
                found,
                format!("at {}, where it was fitted", probe.source.tokens),
            ));
        }
        self.check_origin(&place, "a probe", probe.source.origin())?;
        if !self.sites().contains(&probe.source.site) {
            let sites: Vec<String> = self.sites().iter().map(ToString::to_string).collect();
            let place = format!("{place} at {}", probe.source.site);
            return Err(Error::input(
                place,
                format!("a store of {}", sites.join(", ")),
                "its site among them",
            ));
        }
        Ok(())
    }

    /// Whether these are the dialogues that the probe was fitted on.
    pub fn was_fitted_here(&self, probe: &Probe) -> bool {
        self.header().data_hash.is_some() && self.header().data_hash == probe.source.data_hash
    }
}

/// The rows whose group every probe held out, by the label that the groups are values of. Rows without the label are
/// left out.
///
/// # Errors
/// A label that no dialogue has; no such row.
pub fn unseen_rows(states: &Labelled, probes: &[&Probe], group: &str) -> Result<Vec<usize>> {
    states.check_label(group)?;
    let unseen = |row: &usize| {
        let own = states.dialogue(*row).label(group);
        own.is_some_and(|own| probes.iter().all(|probe| probe.held_out.contains(&own)))
    };
    let rows: Vec<usize> = (0..states.rows()).filter(unseen).collect();
    if rows.is_empty() {
        let held_out = probes.first().map_or(String::new(), |probe| probe.held_out.join(", "));
        let expected = match held_out.as_str() {
            "" => "a probe that was fitted with groups held out".to_owned(),
            held_out => format!("rows of {held_out}, the groups that it held out"),
        };
        return Err(Error::input(format!("group {group}"), "no row that the probe never saw", expected));
    }
    Ok(rows)
}
