//! Answers and their outcomes: what a judge says of each, and how that moves with a vector's strength.

use crate::analysis::dose_curve::DoseCurve;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::generate::GenerateOptions;
use crate::judge::{self, Scorer};
use crate::model::Model;
use crate::steer::{Intervention, Plan, Vector};

impl Model {
    /// The outcome of each dialogue's answer under a plan, by a judge's names: a label for
    /// [`Dialogues::set_label`](crate::dialogue::Dialogues::set_label).
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
        let dialogues = data.as_ref();
        judge.check_model(Some(self))?;
        judge::check_dialogues(judge, dialogues)?;
        let answers = self.generate_with(data, plan, options)?;
        let scores = judge.score_all((self, options.thinking), dialogues, &answers)?;
        Ok(scores.into_iter().map(|score| score.strategy).collect())
    }

    /// How often the answers to dialogues have each outcome, at each strength of a vector at one site and the tokens that a selector picks
    /// (`all`, `assistant.start`, …). Every strength has the same random numbers.
    ///
    /// # Errors
    /// As [`Model::outcomes`]; several sites, or one that the vector lacks; a strength or a selector that is none.
    pub fn dose_response(
        &self,
        data: &impl AsRef<[Dialogue]>,
        (vector, site, tokens): (&Vector, &str, &str),
        strengths: &[&str],
        judge: &dyn Scorer,
        options: &GenerateOptions,
    ) -> Result<DoseCurve> {
        let sites = self.decoder.architecture().parse_sites(site)?;
        let &[one] = sites.as_slice() else {
            return Err(Error::input("site", format!("{} sites", sites.len()), "one, such as 3.resid_post"));
        };
        let mut answered = Vec::new();
        for strength in strengths {
            let plan = Intervention::add(vector.clone(), site, strength)?.tokens(tokens.parse()?).into();
            answered.push(((*strength).to_owned(), self.outcomes(data, &plan, judge, options)?));
        }
        Ok(DoseCurve::new(&vector.method, one, judge, &answered))
    }
}
