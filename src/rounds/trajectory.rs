//! Scalars of a trajectory: a dialogue's readings round by round in, its level, rise, largest jump, curvature, path length and turning
//! point out.

use serde::{Deserialize, Serialize};

/// A trajectory in numbers, in the unit of its readings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scalars {
    /// Rounds.
    pub rounds: usize,
    /// Mean of the readings.
    pub level: f64,
    /// Last reading less the first.
    pub rise: f64,
    /// Largest rise from one round to the next; negative where every step falls, none of a single round.
    pub largest_jump: Option<f64>,
    /// Mean absolute second difference; none below three rounds.
    pub curvature: Option<f64>,
    /// Sum of the absolute steps.
    pub path_length: f64,
    /// The round, from 1, that the largest jump leads into, the first of equals; none where no step rises.
    pub turning_point: Option<usize>,
}

impl Scalars {
    /// The scalars of readings; none without a reading.
    pub fn of(readings: &[f64]) -> Option<Scalars> {
        let (first, last) = (readings.first()?, readings.last()?);
        let steps: Vec<f64> = readings.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let bends: Vec<f64> = steps.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
        let largest = steps.iter().copied().reduce(f64::max);
        let place = largest.filter(|&jump| jump > 0.0).and_then(|jump| steps.iter().position(|&s| s == jump));
        Some(Scalars {
            rounds: readings.len(),
            level: readings.iter().sum::<f64>() / readings.len() as f64,
            rise: last - first,
            largest_jump: largest,
            curvature: (!bends.is_empty()).then(|| bends.iter().sum::<f64>() / bends.len() as f64),
            path_length: steps.iter().map(|step| step.abs()).sum(),
            turning_point: place.map(|place| place + 2),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_by_hand() {
        // Steps 0.25, −0.125, 0.5; second differences −0.375 and 0.625.
        let scalars = Scalars::of(&[0.25, 0.5, 0.375, 0.875]).unwrap();
        assert_eq!((scalars.rounds, scalars.level, scalars.rise), (4, 0.5, 0.625));
        assert_eq!((scalars.largest_jump, scalars.turning_point), (Some(0.5), Some(4)));
        assert_eq!((scalars.curvature, scalars.path_length), (Some(0.5), 0.875));
    }

    #[test]
    fn short_and_falling_trajectories_have_no_turning_point() {
        assert_eq!(Scalars::of(&[]), None);
        let one = Scalars::of(&[0.3]).unwrap();
        assert_eq!(
            (one.largest_jump, one.curvature, one.turning_point, one.path_length),
            (None, None, None, 0.0)
        );
        let falling = Scalars::of(&[0.75, 0.5, 0.0]).unwrap();
        assert_eq!((falling.largest_jump, falling.turning_point, falling.rise), (Some(-0.25), None, -0.75));
    }
}
