//! Side effects of steering on text that should stay as it is: KL divergence of the steered model's next-token distribution
//! from the unsteered one's, and the surprise (negative log-likelihood) at the unsteered model's own answers; and the
//! repetition of an answer.

use std::collections::HashSet;
use std::ops::Range;

use crate::config::defaults::BATCH_TOKENS_LOGITS;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::generate::Transcript;
use crate::model::{Hook, Model, Token};

/// A dialogue with the unsteered model's own answer, as tokens of one row.
pub struct Text {
    tokens: Vec<Token>,
    /// Positions that predict the answer's tokens: from the prompt's last to the answer's last.
    predicting: Range<usize>,
}

/// Side effects on one text, summed over its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Damage {
    /// Σ KL(unsteered ‖ steered), nats.
    pub divergence: f64,
    /// KL(unsteered ‖ steered) at the answer's first token, nats.
    pub first: f64,
    /// Positions that it is summed over: the answer's tokens and its end.
    pub places: usize,
    /// Σ −log p(token) of the answer's tokens, under the steered model, nats.
    pub surprise: f64,
    /// Number of the answer's tokens.
    pub tokens: usize,
}

/// The texts of answered dialogues; a dialogue's place in the list is its row.
///
/// # Errors
/// A dialogue that the chat template refuses.
pub fn texts(
    model: &Model,
    dialogues: &[Dialogue],
    answers: &[Transcript],
    thinking: Option<bool>,
) -> Result<Vec<Text>> {
    let text = |(row, (dialogue, answer)): (usize, (&Dialogue, &Transcript))| {
        let mut tokens = model.chat.tokens(dialogue, row, thinking)?;
        let mut continuation = model.chat.continuation(&tokens);
        let prompt = tokens.len();
        tokens.extend(answer.tokens.iter().map(|id| continuation.next(*id)));
        Ok(Text { predicting: prompt - 1..tokens.len(), tokens })
    };
    dialogues.iter().zip(answers).enumerate().map(text).collect()
}

/// The damage that the hook does to each text. The unsteered and the steered model run batch by batch in turn, so that only
/// one batch's logits are held.
///
/// # Errors
/// Logits that are not finite.
pub fn damage(model: &Model, texts: &[Text], hook: &mut dyn Hook) -> Result<Vec<Damage>> {
    let mut damages = Vec::new();
    let mut begin = 0;
    while begin < texts.len() {
        let mut end = begin + 1;
        let mut count = texts[begin].tokens.len();
        while end < texts.len() && count + texts[end].tokens.len() <= BATCH_TOKENS_LOGITS {
            count += texts[end].tokens.len();
            end += 1;
        }
        let (mut tokens, mut at) = (Vec::new(), Vec::new());
        for text in &texts[begin..end] {
            at.extend(text.predicting.clone().map(|place| tokens.len() + place));
            tokens.extend_from_slice(&text.tokens);
        }
        let plain: Vec<Vec<f32>> = model.decoder.forward(&tokens, None, &at, &mut ())?.to_vec2()?;
        let steered: Vec<Vec<f32>> = model.decoder.forward(&tokens, None, &at, hook)?.to_vec2()?;
        let mut rows = plain.iter().zip(&steered);
        for text in &texts[begin..end] {
            let mut damage = Damage::default();
            for (place, (plain, steered)) in text.predicting.clone().zip(&mut rows) {
                let (plain, steered) = (log_softmax(plain), log_softmax(steered));
                let divergence =
                    plain.iter().zip(&steered).map(|(p, q)| p.exp() * (p - q)).sum::<f64>().max(0.0);
                if damage.places == 0 {
                    damage.first = divergence;
                }
                damage.divergence += divergence;
                damage.places += 1;
                if let Some(next) = text.tokens.get(place + 1) {
                    damage.surprise -= steered[next.id as usize];
                    damage.tokens += 1;
                }
            }
            damages.push(damage);
        }
        begin = end;
    }
    match damages.iter().any(|damage| !damage.divergence.is_finite()) {
        false => Ok(damages),
        true => Err(Error::input("guard", "logits that are not finite", "a smaller strength")),
    }
}

/// Logarithms of the softmax.
pub(super) fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().fold(f32::NEG_INFINITY, |most, &logit| most.max(logit));
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - most).exp()).sum();
    logits.iter().map(|&logit| f64::from(logit - most) - sum.ln()).collect()
}

/// The share of an answer's token trigrams that repeat an earlier one.
pub fn repetition(tokens: &[u32]) -> f64 {
    let mut seen = HashSet::new();
    let runs = tokens.windows(3);
    let count = runs.len();
    let repeated = runs.filter(|run| !seen.insert(*run)).count();
    if count == 0 { 0.0 } else { repeated as f64 / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{GenerateOptions, Sampling, generate};
    use crate::organism::{self, Split};

    #[test]
    fn repetition_by_hand() {
        assert_eq!(repetition(&[1, 2, 3, 4]), 0.0);
        assert_eq!(repetition(&[1, 2, 3, 1, 2, 3]), 0.25);
        assert_eq!(repetition(&[1, 2]), 0.0);
    }

    #[test]
    fn no_steering_does_no_damage_and_the_surprise_is_the_models_own() {
        let model = organism::model().unwrap();
        let dialogues: Vec<Dialogue> =
            organism::sample(3, Split::HeldOutWording, 5).into_iter().map(|(_, dialogue)| dialogue).collect();
        let options =
            GenerateOptions { sampling: Sampling::Greedy, max_tokens: 60, ..GenerateOptions::default() };
        let answers = generate(&model, &dialogues, &options, &mut (), &mut |_| true).unwrap();
        let texts = texts(&model, &dialogues, &answers, None).unwrap();
        for (damage, answer) in damage(&model, &texts, &mut ()).unwrap().iter().zip(&answers) {
            assert_eq!((damage.divergence, damage.tokens), (0.0, answer.tokens.len()));
            assert_eq!(damage.places, answer.tokens.len() + 1);
            // Greedy answers of a trained model: less than two nats a token.
            assert!(damage.surprise > 0.0 && damage.surprise < 2.0 * damage.tokens as f64);
        }
    }
}
