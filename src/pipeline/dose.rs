//! Answers and their outcomes: what a judge says of each, and how that moves with a vector's strength.

use crate::analysis::dose_curve::{Dose, DoseCurve};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::generate::GenerateOptions;
use crate::judge::{self, BROKEN, Scorer};
use crate::model::Model;
use crate::stats::wilson;
use crate::steer::{Plan, Vector};

impl Model {
    /// The outcome of each dialogue's answer under a plan, by a judge's names: a label for [`Dialogues::set_label`](crate::dialogue::Dialogues::set_label).
    ///
    /// # Errors
    /// As [`Model::generate`]; a dialogue that the judge can't judge.
    pub fn outcomes(
        &self,
        data: &impl AsRef<[Dialogue]>,
        plan: &Plan,
        judge: &dyn Scorer,
        options: &GenerateOptions,
    ) -> Result<Vec<String>> {
        judge::check_dialogues(judge, data.as_ref())?;
        let answers = self.generate_with(data, plan, options)?;
        let score = |(dialogue, answer)| Ok(judge.score(dialogue, answer)?.strategy);
        data.as_ref().iter().zip(&answers).map(score).collect()
    }

    /// How often the answers to dialogues have an outcome at each strength of a vector, at one site. Every strength has the same random
    /// numbers.
    ///
    /// # Errors
    /// As [`Model::outcomes`]; a site that the vector lacks; a strength that is none; an outcome that the judge doesn't give.
    pub fn dose_response(
        &self,
        data: &impl AsRef<[Dialogue]>,
        (vector, site): (&Vector, &str),
        strengths: &[&str],
        (judge, outcome): (&dyn Scorer, &str),
        options: &GenerateOptions,
    ) -> Result<DoseCurve> {
        judge::check_outcome(judge, "outcome", outcome)?;
        let sites = self.decoder.architecture().parse_sites(site)?;
        let &[one] = sites.as_slice() else {
            return Err(Error::input("site", format!("{} sites", sites.len()), "one, such as 3.resid_post"));
        };
        let mut doses = Vec::new();
        for strength in strengths {
            let plan = Plan::add(vector.clone(), site, strength)?;
            let outcomes = self.outcomes(data, &plan, judge, options)?;
            let count = |name: &str| outcomes.iter().filter(|outcome| *outcome == name).count();
            doses.push(Dose {
                strength: (*strength).into(),
                reached: wilson(count(outcome), outcomes.len()),
                broken: count(BROKEN),
                n: outcomes.len(),
            });
        }
        Ok(DoseCurve { vector: vector.method.clone(), site: one, outcome: outcome.into(), doses })
    }
}
