//! Monitors: a dialogue's readings round by round in; a score after each round out, which fires at a threshold that keeps a false-alarm
//! rate a dialogue.
//!
//! A score uses the rounds up to its own alone. Risks are scored as log-odds, so that probabilities near 1 stay apart.

use serde::{Deserialize, Serialize};

use super::hidden_markov::HiddenMarkov;
use crate::boundary::{ErrorKind, RiskBound, Threshold, worst_group_threshold};
use crate::error::{Error, Result};
use crate::game::Belief;

/// What was read in a round, before it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Probability that the user attacks.
    pub risk: f64,
    /// Probability that the model is about to refuse; 0 where no probe reads it.
    #[serde(default)]
    pub refusal: f64,
}

/// Bound of the log-odds: beyond it a probe's probability says nothing more.
const BOUND: f64 = 20.0;

impl Reading {
    /// Log-odds of the risk.
    pub fn log_odds(&self) -> f64 {
        log_odds(self.risk)
    }

    /// The reading as a symbol of the hidden Markov model.
    fn symbol(&self) -> usize {
        let grade = [0.1, 0.5, 0.9].iter().filter(|&&edge| self.risk >= edge).count();
        2 * grade + usize::from(self.refusal >= 0.5)
    }
}

fn log_odds(p: f64) -> f64 {
    (p.ln() - (-p).ln_1p()).clamp(-BOUND, BOUND)
}

/// A monitor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "monitor")]
pub enum Monitor {
    /// The largest reading so far.
    Largest,
    /// The mean of the last readings.
    MovingAverage {
        /// Readings, at most.
        window: usize,
    },
    /// The cumulative sum of what readings exceed a reference by, from 0 upwards (Page 1954).
    Cusum {
        /// The reference, in log-odds.
        reference: f64,
    },
    /// The attack state of a hidden Markov model over risk and refusal.
    HiddenMarkov {
        /// The model.
        model: HiddenMarkov,
    },
    /// The Bayes belief of the game between model and user, each round's reading as evidence of its own.
    Belief {
        /// Share of attacks before anything is read.
        prior: f64,
        /// Share of attacks where the probe was fitted.
        fitted: f64,
        /// Probability that the type of user changes between rounds.
        drift: f64,
    },
}

impl Monitor {
    /// Its name in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Monitor::Largest => "largest so far",
            Monitor::MovingAverage { .. } => "moving average",
            Monitor::Cusum { .. } => "CUSUM",
            Monitor::HiddenMarkov { .. } => "hidden Markov",
            Monitor::Belief { .. } => "Bayes belief",
        }
    }

    /// The five monitors, fitted on dialogues that are known to be calm or to hold an attack: the reference of CUSUM is half-way
    /// between their mean log-odds.
    ///
    /// # Errors
    /// No reading of either kind.
    pub fn fit_all(calm: &[Vec<Reading>], attack: &[Vec<Reading>]) -> Result<Vec<Monitor>> {
        let mean = |dialogues: &[Vec<Reading>]| {
            let values: Vec<f64> = dialogues.iter().flatten().map(Reading::log_odds).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let (Some(low), Some(high)) = (mean(calm), mean(attack)) else {
            let found = format!("{} calm dialogues and {} with an attack", calm.len(), attack.len());
            return Err(Error::input("monitors", found, "readings of both kinds"));
        };
        let symbols = |dialogues: &[Vec<Reading>]| -> Vec<Vec<usize>> {
            dialogues.iter().map(|readings| readings.iter().map(Reading::symbol).collect()).collect()
        };
        let fitted = attack.len() as f64 / (attack.len() + calm.len()) as f64;
        Ok(vec![
            Monitor::Largest,
            Monitor::MovingAverage { window: 3 },
            Monitor::Cusum { reference: (low + high) / 2.0 },
            Monitor::HiddenMarkov { model: HiddenMarkov::fit(&symbols(calm), &symbols(attack)) },
            Monitor::Belief { prior: fitted, fitted, drift: 0.05 },
        ])
    }

    /// The score after each round.
    ///
    /// # Errors
    /// Readings that are no probabilities, of the Bayes belief.
    pub fn scores(&self, readings: &[Reading]) -> Result<Vec<f64>> {
        let odds: Vec<f64> = readings.iter().map(Reading::log_odds).collect();
        let running = |begin: f64, next: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
            let scan = odds.iter().scan(begin, |score, &odds| {
                *score = next(*score, odds);
                Some(*score)
            });
            scan.collect()
        };
        Ok(match self {
            Monitor::Largest => running(f64::NEG_INFINITY, &f64::max),
            Monitor::MovingAverage { window } => {
                let mean = |end: usize| {
                    let last = &odds[(end + 1).saturating_sub((*window).max(1))..=end];
                    last.iter().sum::<f64>() / last.len() as f64
                };
                (0..odds.len()).map(mean).collect()
            }
            Monitor::Cusum { reference } => running(0.0, &|sum, odds| (sum + odds - reference).max(0.0)),
            Monitor::HiddenMarkov { model } => {
                let symbols: Vec<usize> = readings.iter().map(Reading::symbol).collect();
                model.filter(&symbols).into_iter().map(log_odds).collect()
            }
            Monitor::Belief { prior, fitted, drift } => {
                let mut belief = Belief::new(&[1.0 - prior, *prior])?;
                let mut scores = Vec::with_capacity(readings.len());
                for reading in readings {
                    // A reading of exactly 1 would decide for ever.
                    let risk = reading.risk.clamp(1e-6, 1.0 - 1e-6);
                    belief = belief.update(&[1.0 - risk, risk], &[1.0 - fitted, *fitted], *drift)?;
                    scores.push(log_odds(belief.probabilities()[1]));
                }
                scores
            }
        })
    }
}

/// A monitor with the score at which it fires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// The monitor.
    pub monitor: Monitor,
    /// Its threshold, by conformal risk control over whole dialogues.
    pub threshold: Threshold,
}

impl Alarm {
    /// Sets the threshold so that at most a share `rate` of calm dialogues, as many rounds long as these, is expected to fire in any
    /// round, in every one of their groups: `groups` has a group a dialogue.
    ///
    /// # Errors
    /// Too few calm dialogues in a group for the rate; a rate that is not between 0 and 1.
    pub fn calibrate(monitor: Monitor, calm: &[Vec<Reading>], groups: &[String], rate: f64) -> Result<Alarm> {
        let scores = calm
            .iter()
            .map(|readings| Ok(monitor.scores(readings)?.into_iter().fold(f64::NEG_INFINITY, f64::max)))
            .collect::<Result<Vec<f64>>>()?;
        let bound = RiskBound::expected(ErrorKind::FalseAlarm, rate);
        let threshold = worst_group_threshold(&scores, &vec![false; scores.len()], groups, bound)?;
        Ok(Alarm { monitor, threshold })
    }

    /// The first round, from 1, in which the monitor fires.
    ///
    /// # Errors
    /// As [`Monitor::scores`].
    pub fn fires(&self, readings: &[Reading]) -> Result<Option<usize>> {
        let scores = self.monitor.scores(readings)?;
        Ok(scores.iter().position(|&score| score >= self.threshold.value).map(|place| place + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(risks: &[f64]) -> Vec<Reading> {
        risks.iter().map(|&risk| Reading { risk, refusal: 0.0 }).collect()
    }

    fn close(found: &[f64], expected: &[f64]) -> bool {
        found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9)
    }

    #[test]
    fn monitors_by_hand() {
        // Log-odds 0, ln 3, −ln 3, ln 9.
        let own = readings(&[0.5, 0.75, 0.25, 0.9]);
        let three = 3f64.ln();
        let scores = |monitor: Monitor| monitor.scores(&own).unwrap();
        assert!(close(&scores(Monitor::Largest), &[0.0, three, three, 2.0 * three]));
        assert!(close(&scores(Monitor::MovingAverage { window: 2 }), &[0.0, three / 2.0, 0.0, three / 2.0]));
        assert!(close(
            &scores(Monitor::Cusum { reference: 0.5 }),
            &[0.0, three - 0.5, 0.0, 2.0 * three - 0.5]
        ));
        // Odds 1/9 before; each reading multiplies them by its odds over the fitted ones (1): 1/9, 1/3, 1/9, 1.
        let belief = Monitor::Belief { prior: 0.1, fitted: 0.5, drift: 0.0 };
        assert!(close(&scores(belief), &[-2.0 * three, -three, -2.0 * three, 0.0]));
    }

    #[test]
    fn certain_readings_stay_finite_and_do_not_decide_for_ever() {
        let own = readings(&[1.0, 0.0, 0.0, 0.0]);
        for monitor in Monitor::fit_all(&[readings(&[0.1, 0.2])], &[readings(&[0.2, 0.9])]).unwrap() {
            let scores = monitor.scores(&own).unwrap();
            assert!(scores.iter().all(|score| score.is_finite()), "{monitor:?} {scores:?}");
        }
        let belief = Monitor::Belief { prior: 0.5, fitted: 0.5, drift: 0.01 };
        assert!(belief.scores(&own).unwrap()[3] < 0.0);
        assert!(Monitor::fit_all(&[], &[readings(&[0.5])]).is_err());
    }

    #[test]
    fn a_score_does_not_know_later_rounds() {
        let calm = [readings(&[0.1, 0.3, 0.2])];
        let attack = [readings(&[0.1, 0.8, 0.95])];
        let own = readings(&[0.2, 0.9, 0.1, 0.97, 0.5]);
        for monitor in Monitor::fit_all(&calm, &attack).unwrap() {
            let all = monitor.scores(&own).unwrap();
            for end in 0..own.len() {
                assert_eq!(monitor.scores(&own[..end]).unwrap(), all[..end], "{monitor:?}");
            }
        }
    }

    #[test]
    fn the_threshold_keeps_the_rate_of_false_alarms_a_dialogue() {
        // 199 calm dialogues whose largest readings are 1/400, …, 199/400, in the second of three rounds: at a rate of 0.01, one of
        // them may fire (0.01 · 200 − 1 = 1).
        let calm: Vec<Vec<Reading>> =
            (1..200).map(|place| readings(&[0.001, place as f64 / 400.0, 0.001])).collect();
        let groups = vec!["one".to_owned(); calm.len()];
        let alarm = Alarm::calibrate(Monitor::Largest, &calm, &groups, 0.01).unwrap();
        let fired: Vec<usize> = calm.iter().filter_map(|own| alarm.fires(own).unwrap()).collect();
        assert_eq!(fired, [2]);
        assert_eq!(alarm.fires(&readings(&[0.1, 0.2, 0.6, 0.9])).unwrap(), Some(3));
        assert!(Alarm::calibrate(Monitor::Largest, &calm[..98], &groups[..98], 0.01).is_err());
    }

    #[test]
    fn the_rate_holds_in_the_group_with_most_alarms() {
        // 100 dialogues of each group allow no alarm at 0.01 · 101 − 1 = 0.01: the threshold is above the loudest of both.
        let loudest = |group: f64| (1..101).map(move |place| readings(&[place as f64 / 400.0 + group]));
        let calm: Vec<Vec<Reading>> = loudest(0.0).chain(loudest(0.5)).collect();
        let groups: Vec<String> = (0..200).map(|row| format!("topic {}", row / 100)).collect();
        let alarm = Alarm::calibrate(Monitor::Largest, &calm, &groups, 0.01).unwrap();
        assert!(calm.iter().all(|own| alarm.fires(own).unwrap().is_none()));
        assert_eq!(alarm.fires(&readings(&[0.76])).unwrap(), Some(1));
    }
}
