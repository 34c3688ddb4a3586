//! What a steering grid found: trials, picks, controls; its metrics and what to doubt.

use serde::{Deserialize, Serialize};

use super::null_test::NullTest;
use super::steering_effect::{Effect, Trial};
use super::steering_table::doubt_of_edge;
use crate::config::steering_grid::SteeringGrid;
use crate::stats::Metric;

/// All that a grid found (JSON, kind `sweep`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The unsteered model on the validation part.
    pub unsteered: Effect,
    /// Trials on the validation part, in the order in which they were run.
    pub trials: Vec<Trial>,
    /// Each arm's trial for the test part, as an index into `trials`; none where no trial of the arm is within the guard.
    pub picked: Vec<(String, Option<usize>)>,
    /// On the test part: the unsteered model, then each arm at its trial.
    pub test: Vec<(String, Effect)>,
    /// On the test part: each control, at the site and strength of the first arm's trial.
    #[serde(default)]
    pub nulls: Vec<ControlArm>,
}

/// A control: null directions of one kind beside the first arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlArm {
    /// The arm's name.
    pub arm: String,
    /// The first arm's answers beside those of the null directions.
    pub test: NullTest,
    /// For each null direction, the mean KL on the guard's texts, nats a token.
    pub divergence: Vec<f64>,
}

/// An arm's name in metrics and file names.
pub fn arm_slug(name: &str) -> String {
    name.replace([' ', ',', '/'], "-")
}

impl Found {
    /// The grid's metrics under their names in a run's results: `sweep/…`, the test part's first.
    pub fn metrics(&self, file: &SteeringGrid) -> Vec<Metric> {
        let held_out = format!("{} held out", file.data.held_out_labels());
        let test = self.test.iter();
        let mut metrics: Vec<Metric> = test
            .flat_map(|(name, effect)| effect.metrics(&format!("sweep/{}", arm_slug(name)), &held_out))
            .collect();
        for control in &self.nulls {
            metrics.extend(control.test.metrics("sweep/null", &held_out));
        }
        metrics.extend(self.unsteered.metrics("sweep/validation/unsteered", "validation"));
        for trial in &self.trials {
            let name = format!("sweep/validation/{}/{}/{}", arm_slug(&trial.arm), trial.site, trial.strength);
            metrics.extend(trial.effect.metrics(&name, "validation"));
        }
        metrics
    }

    /// What a reader should doubt: strengths chosen at an end of those that were tried, null directions that do as well as the
    /// first arm, strengths of a control, which are not used.
    pub fn doubts(&self, file: &SteeringGrid) -> Vec<String> {
        let mut doubts = Vec::new();
        for (name, pick) in &self.picked {
            let Some(chosen) = pick.and_then(|pick| self.trials.get(pick)) else { continue };
            let own = self.trials.iter().filter(|trial| trial.arm == *name && trial.site == chosen.site);
            let tried: Vec<&str> = own.map(|trial| trial.strength.as_str()).collect();
            let doubt = doubt_of_edge(&chosen.strength, &tried);
            doubts.extend(doubt.map(|doubt| format!("arm {name} at {}: {doubt}", chosen.site)));
        }
        for ControlArm { arm, test, .. } in &self.nulls {
            if test.at_least() > 0 {
                let (count, draws) = (test.at_least(), test.draws.len());
                doubts.push(format!(
                    "arm {arm}: {count} of {draws} directions reach at least what the vector reaches"
                ));
            }
        }
        let unused = file.arms.iter().filter(|arm| arm.control.is_some() && arm.strengths.is_some());
        doubts.extend(unused.map(|arm| {
            format!(
                "arm {}: its strengths are not used; a control is run at the first arm's site and strength",
                arm.name
            )
        }));
        doubts
    }
}
