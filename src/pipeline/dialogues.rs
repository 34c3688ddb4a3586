//! Dialogues from a file, from a list, or drawn from the organism's world.

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::artifact;
use crate::dialogue::{Dialogue, Dialogues, Label};
use crate::error::{Error, Result};
use crate::organism::contrast::{Contrast, pairs};
use crate::organism::{self, Split};

impl Dialogues {
    /// Takes dialogues that are in memory; `name` stands for the file in errors. Their hash is that of their JSON.
    ///
    /// # Errors
    /// No dialogue; a label that JSON can't hold (a number that is not finite).
    pub fn new(name: &str, dialogues: Vec<Dialogue>) -> Result<Dialogues> {
        if dialogues.is_empty() {
            return Err(Error::input(name, "no dialogue", "one or more"));
        }
        let text = serde_json::to_vec(&dialogues)
            .map_err(|error| Error::input(name, error, "what JSON can hold"))?;
        Ok(Dialogues {
            path: name.into(),
            hash: artifact::sha256(&text),
            indices: (0..dialogues.len()).collect(),
            dialogues,
            skipped: Default::default(),
        })
    }

    /// Draws dialogues from the organism's world, in wordings that the embedded model was not trained on. Their labels
    /// are the world's truth (`user-type`, `risk-level`, `topic`, …), and `answer`, the strategy that the world answers by.
    ///
    /// # Errors
    /// A count of 0 or above [`organism::MAX_SAMPLE`].
    pub fn organism(count: usize, seed: u64) -> Result<Dialogues> {
        organism::check_count("the organism's world", count)?;
        let mut rng = StdRng::seed_from_u64(seed);
        let drawn = organism::sample(count, Split::HeldOutWording, seed).into_iter();
        let labelled = drawn.map(|(situation, mut dialogue)| {
            let (strategy, _) = organism::answer(&mut rng, &situation, true);
            dialogue.labels.insert("answer".into(), Label::Text(strategy.name().into()));
            dialogue
        });
        Dialogues::new("the organism's world", labelled.collect())
    }

    /// Draws matched pairs from the organism's world, which differ in one thing: `deed`, `trust` or `openness`. Both dialogues of a pair
    /// have its number as the label `pair`.
    ///
    /// # Errors
    /// Another contrast; a count of 0 or above [`organism::MAX_SAMPLE`].
    pub fn organism_pairs(contrast: &str, count: usize, seed: u64) -> Result<Dialogues> {
        organism::check_count("the organism's pairs", count)?;
        let found = Contrast::named(contrast).ok_or_else(|| {
            let expected = Contrast::ALL.map(Contrast::name).join(" or ");
            Error::input("contrast", format!("{contrast:?}"), expected)
        })?;
        let pairs = pairs(count, found, seed).into_iter().flatten();
        Dialogues::new("the organism's pairs", pairs.map(|(_, dialogue)| dialogue).collect())
    }

    /// Sets a label, one value a dialogue in their order. The hash stays that of what was read.
    ///
    /// # Errors
    /// Not as many values as dialogues.
    pub fn set_label<T: Into<String>>(
        &mut self,
        name: &str,
        values: impl IntoIterator<Item = T>,
    ) -> Result<()> {
        let values: Vec<String> = values.into_iter().map(Into::into).collect();
        if values.len() != self.dialogues.len() {
            let expected = format!("{}, one a dialogue", self.dialogues.len());
            return Err(Error::input(format!("label {name}"), format!("{} values", values.len()), expected));
        }
        for (dialogue, value) in self.dialogues.iter_mut().zip(values) {
            dialogue.labels.insert(name.into(), Label::Text(value));
        }
        Ok(())
    }
}

impl AsRef<[Dialogue]> for Dialogues {
    fn as_ref(&self) -> &[Dialogue] {
        &self.dialogues
    }
}
