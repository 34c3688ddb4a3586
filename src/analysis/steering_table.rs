//! The table of a steering evaluation: rates, scores and null tests on the test part, the trials on the validation part, and
//! what to doubt.

use serde::{Deserialize, Serialize};

use super::null_test::NullTest;
use crate::error::Result;
use crate::model::Site;
use crate::stats::{Interval, Metric, wilson};
use crate::steer::Strength;

/// A site and a strength, tried on the validation part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The site.
    pub site: Site,
    /// The strength, as in a file: `0.5n`.
    pub strength: String,
    /// Number of users of the class.
    pub users: usize,
    /// Number of answers with the outcome steered to.
    pub reached: usize,
    /// Number of broken answers.
    pub broken: usize,
    /// What the choice goes by: the mean of satisfaction less risk, a broken answer being worth nothing, or, of a judge that
    /// does not weigh answers, the share of answers with the outcome less the share of broken ones.
    pub score: f64,
}

impl Trial {
    /// The strength, parsed.
    ///
    /// # Errors
    /// None for a trial that was run; a table that was edited may hold another text.
    pub fn strength(&self) -> Result<Strength> {
        self.strength.parse()
    }
}

/// What steering did (JSON, kind `steering`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SteeringTable {
    /// The class of users that was steered.
    pub class: String,
    /// The outcome steered from.
    pub from: String,
    /// The outcome steered to.
    pub to: String,
    /// The label that the held-out groups are values of.
    pub group: String,
    /// Trials on the validation part.
    pub trials: Vec<Trial>,
    /// Index of the trial that was chosen.
    pub chosen: usize,
    /// Results on the test part.
    pub conditions: Vec<ConditionTable>,
    /// The vector against directions without the concept, on users of the class for whom the probe switched steering on.
    #[serde(default)]
    pub nulls: Vec<NullTest>,
}

/// Results under one condition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConditionTable {
    /// The condition, in words.
    pub name: String,
    /// Its short name.
    pub short: String,
    /// Rates by class of users.
    pub rates: Vec<Rate>,
    /// Broken answers.
    pub broken: Option<Share>,
    /// Answers off topic, of those that are not broken.
    pub off_topic: Option<Share>,
    /// Mean of `S − β·R`, by β, a broken answer being worth nothing; empty where the judge does not weigh answers.
    pub scores: Vec<BetaScore>,
}

/// The rate of one outcome among users of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// The class of users.
    pub class: String,
    /// The outcome.
    pub outcome: String,
    /// Share of answers, with its Wilson interval.
    pub share: Interval,
    /// Number of users.
    pub n: usize,
}

/// A share of answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The share, with its Wilson interval.
    pub share: Interval,
    /// Number of answers.
    pub n: usize,
}

/// A mean of `S − β·R`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BetaScore {
    /// Weight of risk.
    pub beta: f64,
    /// The mean, with its bootstrap interval.
    pub score: Interval,
    /// Number of answers.
    pub n: usize,
}

impl SteeringTable {
    /// What a reader should doubt: a strength chosen at an end of those that were tried, a null direction that does as well.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if let Some(chosen) = self.trials.get(self.chosen) {
            let tried: Vec<&str> = self
                .trials
                .iter()
                .filter(|trial| trial.site == chosen.site)
                .map(|trial| trial.strength.as_str())
                .collect();
            doubts.extend(
                doubt_of_edge(&chosen.strength, &tried)
                    .map(|doubt| format!("steer at {}: {doubt}", chosen.site)),
            );
        }
        let near = |test: &&NullTest| test.at_least() > 0;
        doubts.extend(self.nulls.iter().filter(near).map(|test| {
            format!(
                "steer: {} of {} directions ({}) reach at least what the vector reaches",
                test.at_least(),
                test.draws.len(),
                test.null
            )
        }));
        doubts
    }

    /// The table's metrics under their names in a run's results: `steer/…`.
    pub fn metrics(&self) -> Vec<Metric> {
        let mut metrics = Vec::new();
        let split = format!("{} held out", self.group);
        for condition in &self.conditions {
            let mut add = |what: String, interval: Interval, n: usize| {
                metrics.push(Metric::new(format!("steer/{}/{what}", condition.short), interval, n, &split));
            };
            for rate in &condition.rates {
                add(format!("{}/{}", rate.class, rate.outcome), rate.share, rate.n);
            }
            for (what, share) in [("broken", condition.broken), ("off-topic", condition.off_topic)] {
                if let Some(Share { share, n }) = share {
                    add(what.into(), share, n);
                }
            }
            for BetaScore { beta, score, n } in &condition.scores {
                add(format!("score/beta-{beta}"), *score, *n);
            }
        }
        metrics.extend(self.nulls.iter().flat_map(|test| test.metrics("steer/null", &split)));
        let trial = &self.trials[self.chosen];
        if let Some(interval) = wilson(trial.reached, trial.users) {
            let name = format!("steer/validation/{}/{}", self.class, self.to);
            metrics.push(Metric::new(name, interval, trial.users, "validation"));
        }
        metrics
    }
}

/// A doubt about a strength that was chosen at an end of those that were tried.
pub(super) fn doubt_of_edge(chosen: &str, tried: &[&str]) -> Option<String> {
    let amount = |text: &str| match text.parse::<Strength>() {
        Ok(Strength::Raw(times) | Strength::Norms(times)) => Some(times.abs()),
        Err(_) => None,
    };
    let chosen_amount = amount(chosen)?;
    let amounts: Vec<f32> = tried.iter().filter_map(|text| amount(text)).collect();
    let [lower, higher] = [
        amounts.iter().any(|&other| other < chosen_amount),
        amounts.iter().any(|&other| other > chosen_amount),
    ];
    let end = match (lower, higher) {
        // Between others, or the only one: that was no choice.
        (true, true) | (false, false) => return None,
        (true, false) => "the highest tried; a higher one may do better",
        (false, true) => "the lowest tried; a lower one may do as well",
    };
    Some(format!("strength {chosen} is {end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strength_at_an_end_is_doubted() {
        let tried = ["0.4n", "1n", "0.8n"];
        assert_eq!(doubt_of_edge("0.8n", &tried), None);
        assert_eq!(
            doubt_of_edge("1n", &tried).unwrap(),
            "strength 1n is the highest tried; a higher one may do better"
        );
        assert!(doubt_of_edge("0.4n", &tried).unwrap().contains("lowest tried"));
        assert_eq!(doubt_of_edge("1n", &["1n"]), None);
        // Against the vector, the strongest is the most negative.
        assert!(doubt_of_edge("-2", &["-2", "-1"]).unwrap().contains("highest"));
    }
}
