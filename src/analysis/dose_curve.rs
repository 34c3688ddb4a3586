//! Dose–response of one vector: how often answers have each outcome, by strength.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::judge::{BROKEN, Scorer};
use crate::model::Site;
use crate::report::{Table, table::Column};
use crate::stats::{Interval, wilson};

/// Shares of answers by strength (the table of a plot).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DoseCurve {
    /// How the vector was made.
    pub vector: String,
    /// Where it was added.
    pub site: Site,
    /// The judge whose outcomes are counted.
    pub judge: String,
    /// The outcomes that some answer had, in the judge's order; broken answers last.
    pub outcomes: Vec<String>,
    /// In the order in which the strengths were given.
    pub doses: Vec<Dose>,
}

/// The answers at one strength.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dose {
    /// The strength, such as `0.5n`.
    pub strength: String,
    /// `[outcomes]`: share of answers with the outcome, with Wilson's 95 % interval; none without answers.
    pub shares: Vec<Option<Interval>>,
    /// Answers.
    pub n: usize,
}

impl DoseCurve {
    /// The curve of the outcomes of answers, a list a strength.
    pub fn new(
        vector: &str,
        site: Site,
        judge: &dyn Scorer,
        answered: &[(String, Vec<String>)],
    ) -> DoseCurve {
        let all = judge.outcomes().iter().copied().filter(|outcome| *outcome != BROKEN).chain([BROKEN]);
        let is_seen = |name: &&str| answered.iter().any(|(_, own)| own.iter().any(|outcome| outcome == name));
        let outcomes: Vec<String> = all.filter(is_seen).map(str::to_owned).collect();
        let dose = |(strength, own): &(String, Vec<String>)| {
            let share =
                |name: &String| wilson(own.iter().filter(|outcome| *outcome == name).count(), own.len());
            Dose { strength: strength.clone(), shares: outcomes.iter().map(share).collect(), n: own.len() }
        };
        let doses = answered.iter().map(dose).collect();
        DoseCurve { vector: vector.into(), site, judge: judge.name().into(), outcomes, doses }
    }

    /// A line a strength, a column an outcome.
    pub fn table(&self) -> Table {
        let mut columns = vec![Column::numbers("strength"), Column::numbers("n")];
        columns.extend(self.outcomes.iter().map(|outcome| Column::text(outcome)));
        let row = |dose: &Dose| {
            let share = |own: &Option<Interval>| match own {
                Some(own) => format!("{:.3} [{:.3}, {:.3}]", own.value, own.low, own.high),
                None => "–".into(),
            };
            let shares = dose.shares.iter().map(share);
            [dose.strength.replace('-', "−"), dose.n.to_string()].into_iter().chain(shares).collect()
        };
        let caption = format!("shares of answers, {} at {}", self.vector, self.site);
        Table { caption, columns, rows: self.doses.iter().map(row).collect() }
    }

    /// The table as text.
    ///
    /// # Errors
    /// As [`Table::to_text`].
    pub fn to_text(&self) -> Result<String> {
        self.table().to_text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::World;

    #[test]
    fn outcomes_are_counted_by_strength() {
        let own = |outcomes: &[&str]| outcomes.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let answered = [
            ("0n".into(), own(&["refuse", "refuse", "guide", "refuse"])),
            ("-1n".into(), own(&["broken", "guide"])),
        ];
        let curve = DoseCurve::new("a vector", "1.resid_post".parse().unwrap(), &World, &answered);
        assert_eq!(curve.outcomes.last().unwrap(), BROKEN);
        assert_eq!(curve.outcomes.len(), 3);
        let share = |dose: usize, name: &str| {
            let at = curve.outcomes.iter().position(|outcome| outcome == name).unwrap();
            curve.doses[dose].shares[at].unwrap().value
        };
        assert_eq!((share(0, "refuse"), share(0, "guide"), share(0, BROKEN)), (0.75, 0.25, 0.0));
        assert_eq!((share(1, "refuse"), share(1, "guide"), share(1, BROKEN)), (0.0, 0.5, 0.5));
        assert!(curve.to_text().unwrap().contains("−1n"));
    }
}
