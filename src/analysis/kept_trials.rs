//! Finished trials of a steering grid on disk, so that a grid that was stopped goes on where it was.

use std::cell::Cell;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::answers::Answers;
use super::steering_effect::Effect;
use crate::artifact::{self, Header};
use crate::error::Result;

/// Kind of a trial's file.
const KIND: &str = "trial";

/// The trials of one run, by the order in which they are run.
pub struct KeptTrials {
    folder: PathBuf,
    /// What the trials depend on; a file with another is not taken.
    run: String,
    next: Cell<usize>,
}

/// A trial's file.
#[derive(Serialize, Deserialize)]
struct Kept {
    run: String,
    effect: Effect,
    answers: Answers,
}

impl KeptTrials {
    /// Trials in a folder. `run` names everything that they depend on.
    pub fn new(folder: PathBuf, run: String) -> KeptTrials {
        KeptTrials { folder, run, next: Cell::new(0) }
    }

    /// The run's next trial: that of the folder, or the one that is made and then kept there.
    ///
    /// # Errors
    /// Those of `make`; a file that can't be written.
    pub(super) fn next(&self, make: impl FnOnce() -> Result<(Effect, Answers)>) -> Result<(Effect, Answers)> {
        let path = self.folder.join(format!("{}.json", self.next.replace(self.next.get() + 1)));
        // Whatever isn't a whole trial of this run is run again.
        if let Ok((_, kept)) = artifact::read_json::<Kept>(&path, KIND, 1)
            && kept.run == self.run
        {
            return Ok((kept.effect, kept.answers));
        }
        let (effect, answers) = make()?;
        let kept = Kept { run: self.run.clone(), effect, answers };
        artifact::write_json(&path, &Header::new(KIND, 1), &kept)?;
        Ok((kept.effect, kept.answers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::stats::Interval;

    fn trial(value: f64) -> (Effect, Answers) {
        let share = Interval { value, low: 0.0, high: 1.0 };
        let effect = Effect {
            response: share,
            users: 3,
            broken: 0.1,
            repetition: 1.0 / 3.0,
            divergence: share,
            divergence_of_answer: share,
            divergence_at_first: share,
            kept: None,
            perplexity: 2.5,
            texts: 4,
        };
        (effect, Answers { numbers: vec![7], transcripts: Vec::new(), scores: Vec::new() })
    }

    #[test]
    fn a_stopped_run_goes_on_after_its_last_trial_and_another_run_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let begin = |run: &str| KeptTrials::new(folder.path().join("trials"), run.into());
        let first = begin("a");
        for value in [0.25, 0.5] {
            first.next(|| Ok(trial(value))).unwrap();
        }
        assert!(matches!(first.next(|| Err(Error::Stopped)), Err(Error::Stopped)));

        let again = begin("a");
        for value in [0.25, 0.5] {
            let (effect, answers) = again.next(|| panic!("the trial is there")).unwrap();
            assert_eq!((effect, answers.numbers), (trial(value).0, vec![7]));
        }
        assert_eq!(again.next(|| Ok(trial(0.75))).unwrap().0.response.value, 0.75);

        let other = begin("b");
        assert_eq!(other.next(|| Ok(trial(0.1))).unwrap().0.response.value, 0.1);
        // A file that was cut short counts as none.
        std::fs::write(folder.path().join("trials/1.json"), "{\"kind\": \"trial\"").unwrap();
        let cut = begin("b");
        assert_eq!(cut.next(|| panic!("the trial is there")).unwrap().0.response.value, 0.1);
        assert_eq!(cut.next(|| Ok(trial(0.2))).unwrap().0.response.value, 0.2);
    }
}
