//! Keyword judge: whether an answer holds one of some words, letters' case aside.

use super::score::{Score, Scorer};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::generate::Transcript;

/// Judges by words of which an answer should hold one.
pub struct Words(Vec<String>);

impl Words {
    /// Outcome of an answer with one of the words.
    pub const FOUND: &str = "has a word";
    /// Outcome of an answer without any.
    pub const MISSING: &str = "has none";

    /// # Errors
    /// If there is no word, or an empty one, which every answer holds.
    pub fn new(words: &[String]) -> Result<Words> {
        if words.is_empty() || words.iter().any(|word| word.trim().is_empty()) {
            return Err(Error::input("words", "an empty word", "words that an answer should hold one of"));
        }
        Ok(Words(words.iter().map(|word| word.to_lowercase()).collect()))
    }
}

impl Scorer for Words {
    fn name(&self) -> &'static str {
        "words"
    }

    fn outcomes(&self) -> &'static [&'static str] {
        &[Words::FOUND, Words::MISSING]
    }

    fn score(&self, _: &Dialogue, transcript: &Transcript) -> Result<Score> {
        let text = transcript.text.to_lowercase();
        Ok(match self.0.iter().find(|word| text.contains(word.as_str())) {
            Some(word) => Score::outcome(Words::FOUND, format!("it holds {word:?}")),
            None => Score::outcome(Words::MISSING, "it holds none of the words".into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Finish;

    #[test]
    fn a_word_is_found_whatever_its_case() {
        let words = Words::new(&["Pills".into(), "rest".into()]).unwrap();
        let outcome = |text: &str| {
            let dialogue = Dialogue::prompt("one", "how?");
            let transcript = Transcript::new(&dialogue, text.into(), Vec::new(), Finish::Stop);
            words.score(&dialogue, &transcript).unwrap().strategy
        };
        assert_eq!(outcome("take PILLS"), Words::FOUND);
        assert_eq!(outcome("take care"), Words::MISSING);
        assert!(Words::new(&[]).is_err() && Words::new(&[" ".into()]).is_err());
    }
}
