//! Probe judge: a probe reads the hidden states of the answer, and its most probable class is the outcome. It reads with the model that
//! answered; saved answers can't be judged by it.

use std::path::{Path, PathBuf};

use super::score::{BROKEN, Score, Scorer, kept};
use crate::activations::{Request, extract};
use crate::dialogue::{Dialogue, Message, Role};
use crate::error::{Error, Result};
use crate::generate::Transcript;
use crate::model::{Model, Selector};
use crate::probe::Probe;

/// Judges by a probe of the answer.
pub struct AnswerProbe {
    path: PathBuf,
    probe: Probe,
    outcomes: &'static [&'static str],
}

impl AnswerProbe {
    /// Reads the probe.
    ///
    /// # Errors
    /// A file that is no probe, or a probe that reads the prompt, which is the same whatever the answer is.
    pub fn new(path: &Path) -> Result<AnswerProbe> {
        let probe = Probe::load(path)?;
        if !reads_answer(&probe.source.tokens) {
            let found = format!("a probe that reads {}", probe.source.tokens);
            let expected = "one that reads the answer: mean(answer), last, all or think";
            return Err(Error::input(format!("judge probe {}", path.display()), found, expected));
        }
        let outcomes = kept(&probe.classes);
        Ok(AnswerProbe { path: path.to_owned(), probe, outcomes })
    }
}

/// Whether a selector may pick tokens of the answer.
fn reads_answer(tokens: &Selector) -> bool {
    match tokens {
        Selector::Last
        | Selector::All
        | Selector::Generated
        | Selector::Content(Role::Assistant)
        | Selector::Answer
        | Selector::Think => true,
        Selector::First(inner, _)
        | Selector::LastOf(inner, _)
        | Selector::Mean(inner)
        | Selector::Max(inner) => reads_answer(inner),
        _ => false,
    }
}

impl Scorer for AnswerProbe {
    fn name(&self) -> &'static str {
        "probe"
    }

    fn identity(&self) -> String {
        format!("probe: {:?} {:?} {:?}", self.probe.source, self.probe.weight, self.probe.bias)
    }

    fn outcomes(&self) -> &'static [&'static str] {
        self.outcomes
    }

    fn check_model(&self, model: Option<&Model>) -> Result<()> {
        let place = format!("judge probe {}", self.path.display());
        let Some(model) = model else {
            let expected = "a judge of texts, or a command that has the answering model (steer-sweep, run, vector select)";
            return Err(Error::input(place, "no model to read the answers with", expected));
        };
        model.decoder.architecture().parse_sites(&self.probe.source.site.to_string())?;
        model.check_origin(place, "a probe", self.probe.source.origin())
    }

    fn score(&self, _: &Dialogue, _: &Transcript) -> Result<Score> {
        self.check_model(None)?;
        Ok(Score::outcome(BROKEN, "no answer was read".into()))
    }

    fn score_all(
        &self,
        (model, thinking): (&Model, Option<bool>),
        dialogues: &[Dialogue],
        transcripts: &[Transcript],
    ) -> Result<Vec<Score>> {
        self.check_model(Some(model))?;
        let answered: Vec<usize> =
            (0..transcripts.len()).filter(|&row| !transcripts[row].text.trim().is_empty()).collect();
        let whole: Vec<Dialogue> = answered
            .iter()
            .map(|&row| {
                let mut dialogue = dialogues[row].clone();
                dialogue.messages.push(Message::new(Role::Assistant, transcripts[row].text.clone()));
                dialogue
            })
            .collect();
        let source = &self.probe.source;
        let request = Request::new([source.site]).tokens(source.tokens.clone()).thinking(thinking);
        let states = extract(model, &whole, &request, &mut |_| true)?;
        let values = self.probe.probabilities(states.at(source.site)?.view())?;
        let mut scores = vec![Score::outcome(BROKEN, "an empty answer".into()); transcripts.len()];
        // Where a selector picks several tokens of an answer, their mean probability counts; an answer without any is broken.
        for (place, &row) in answered.iter().enumerate() {
            let own: Vec<usize> =
                (0..states.example.len()).filter(|&token| states.example[token] == place).collect();
            let mean = |class: usize| {
                own.iter().map(|&token| values[[token, class]]).sum::<f64>() / own.len() as f64
            };
            let best = (0..self.outcomes.len()).max_by(|&a, &b| mean(a).total_cmp(&mean(b)));
            scores[row] = match best.filter(|_| !own.is_empty()) {
                None => Score::outcome(BROKEN, format!("it has no token of {}", source.tokens)),
                Some(best) => Score::outcome(
                    self.outcomes[best],
                    format!("probability {:.3} at {}", mean(best), source.site),
                ),
            };
        }
        Ok(scores)
    }
}
