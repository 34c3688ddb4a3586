//! Which model an artefact was made from: the hash of its weights, and its form (family, shape and tokenizer), which the same model
//! has in every precision.

use std::fmt;
use std::sync::Arc;

use super::{Chat, Model};
use crate::artifact::{self, Origin};
use crate::error::{Error, Result};

/// What is encoded to tell tokenizers apart: words, numbers, blanks, code, several scripts.
const SAMPLE: &str = "The quick brown fox can't jump over 12345.67 lazy dogs!\n\n  def f(x):\n\treturn x**2  # naïve café \
                      Größe 東京 привет مرحبا 🙂 https://example.org/a_b?c=1";
/// Tokens of the vocabulary that are decoded for the same end.
const TOKENS: usize = 256;

/// Whether artefacts of other weights of the same model are taken, and who hears of each. By default they are refused.
#[derive(Clone, Default)]
pub struct OtherWeights(Option<Listener>);

/// What is told of each artefact of other weights.
type Listener = Arc<dyn Fn(&str) + Send + Sync>;

impl OtherWeights {
    /// Takes them, and tells of each in a line.
    pub fn taken(tell: impl Fn(&str) + Send + Sync + 'static) -> OtherWeights {
        OtherWeights(Some(Arc::new(tell)))
    }

    /// Checks an artefact that was made from `made` for use on `used`. `place` begins the error, and `what` names the artefact.
    ///
    /// # Errors
    /// Other weights, where these aren't taken; another family, shape or tokenizer.
    pub fn check(&self, place: impl fmt::Display, what: &str, made: Origin, used: Origin) -> Result<()> {
        let is_other = match (made.hash, used.hash) {
            (Some(made), Some(used)) => made != used,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if !is_other {
            return Ok(());
        }
        let name = |origin: &Origin| origin.name.unwrap_or("an unnamed model").to_owned();
        let forms = (made.form, used.form);
        if let (Some(own), Some(other)) = forms
            && own != other
        {
            let (own, other) = difference(own, other);
            let found = format!("it was made from another model's weights ({}): {own}", name(&made));
            return Err(Error::input(place, found, format!("{what} of {}, which has {other}", name(&used))));
        }
        let Some(tell) = &self.0 else {
            let (found, flag) = match forms {
                (Some(_), Some(_)) => ("other weights of the same model", ", or --other-weights"),
                _ => ("another model's weights", ", or --other-weights where it is the same model"),
            };
            let found = format!("it was made from {found} ({})", name(&made));
            return Err(Error::input(place, found, format!("{what} of {}{flag}", name(&used))));
        };
        let checked = match forms {
            (Some(_), Some(_)) => "family, shape and tokenizer are the same",
            _ => "it does not record family, shape and tokenizer, of which the width alone is checked",
        };
        tell(&format!("{place}: made from other weights ({}) than {}; {checked}", name(&made), name(&used)));
        Ok(())
    }
}

impl Model {
    /// Family, shape and tokenizer in a line. Two files with the same model in different precisions have the same form, and so do a
    /// model and its fine-tune.
    ///
    /// # Errors
    /// A tokenizer that can't encode text.
    pub fn form(&self) -> Result<String> {
        let own = self.decoder.architecture();
        Ok(format!(
            "family {}, {} blocks of width {}, {} and {} heads of {}, {} tokens, tokenizer {}",
            own.family,
            own.blocks.len(),
            own.width,
            own.heads,
            own.kv_heads,
            own.head_width,
            own.vocabulary,
            artifact::short(&fingerprint(&self.chat, own.vocabulary)?)
        ))
    }
}

/// A hash of what a tokenizer does: a text as ids, and ids as text.
fn fingerprint(chat: &Chat, vocabulary: usize) -> Result<String> {
    let mut text = format!("{:?}", chat.encode(SAMPLE)?);
    for part in 0..TOKENS {
        // The end of a vocabulary is padding in some files, and missing in others.
        let id = (part * vocabulary / (TOKENS + 1)) as u32;
        text += &chat.decode(&[id], false).unwrap_or_default();
        text.push('\0');
    }
    Ok(artifact::sha256(text.as_bytes()))
}

/// The first parts in which two forms differ.
fn difference<'a>(own: &'a str, other: &'a str) -> (&'a str, &'a str) {
    own.split(", ").zip(other.split(", ")).find(|(own, other)| own != other).unwrap_or((own, other))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn origin<'a>(hash: &'a str, form: Option<&'a str>) -> Origin<'a> {
        Origin { name: Some("m"), hash: Some(hash), form }
    }

    #[test]
    fn other_weights_are_taken_where_asked_for_and_the_model_is_the_same() {
        let check = |others: &OtherWeights, made, used| others.check("probe p", "a probe", made, used);
        let (none, heard) = (OtherWeights::default(), Arc::new(Mutex::new(Vec::new())));
        let told = heard.clone();
        let taken = OtherWeights::taken(move |line| told.lock().unwrap().push(line.to_owned()));
        let (one, two) = (Some("family a, 3 blocks"), Some("family a, 4 blocks"));
        assert!(check(&none, origin("1", one), origin("1", one)).is_ok());
        let error = check(&none, origin("1", one), origin("2", one)).unwrap_err().to_string();
        assert_eq!(
            error,
            "probe p: it was made from other weights of the same model (m); expected a probe of m, or --other-weights"
        );
        for others in [&none, &taken] {
            let error = check(others, origin("1", one), origin("2", two)).unwrap_err().to_string();
            assert!(
                error.contains(
                    "another model's weights (m): 3 blocks; expected a probe of m, which has 4 blocks"
                ),
                "{error}"
            );
        }
        assert!(heard.lock().unwrap().is_empty());
        check(&taken, origin("1", one), origin("2", one)).unwrap();
        check(&taken, origin("1", None), origin("2", one)).unwrap();
        let heard = heard.lock().unwrap();
        assert!(heard[0].contains("the same") && heard[1].contains("does not record"), "{heard:?}");
    }
}
