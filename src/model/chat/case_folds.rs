//! Case folds of several characters, such as that of ß to ss.
//!
//! Oniguruma follows them where a pattern ignores case, so that ß matches ss and st matches ﬆ; this crate's engine folds one
//! character to one. Patterns that they concern are refused.

use std::collections::HashSet;
use std::sync::LazyLock;

/// Characters of the longest fold.
const LONGEST: usize = 3;

/// The folds of several characters.
static FOLDS: LazyLock<HashSet<String>> =
    LazyLock::new(|| ('\0'..=char::MAX).filter(|&letter| is_folded(letter)).map(fold).collect());

/// Whether a character folds to several.
pub(super) fn is_folded(letter: char) -> bool {
    let has_long_capital = |letter: char| letter.to_uppercase().count() > 1;
    let mut small = letter.to_lowercase();
    !letter.is_ascii() && (has_long_capital(letter) || small.len() > 1 || small.any(has_long_capital))
}

/// A character without its case.
pub(super) fn fold(letter: char) -> String {
    let small = letter.to_lowercase().flat_map(char::to_uppercase);
    small.flat_map(char::to_lowercase).collect()
}

/// The fold of several characters that ends a text without case, if any.
pub(super) fn at_end(text: &str) -> Option<&str> {
    let begins = text.char_indices().rev().take(LONGEST).skip(1);
    begins.map(|(begin, _)| &text[begin..]).find(|end| FOLDS.contains(*end))
}

/// Refuses a range that holds a character that folds to several.
///
/// # Errors
/// The character and its fold.
pub(super) fn refuse(first: char, last: char) -> Result<(), String> {
    match (first..=last).find(|&letter| is_folded(letter)) {
        None => Ok(()),
        Some(letter) => {
            let fold = fold(letter);
            Err(format!("{letter:?} where case is ignored, which Oniguruma finds in {fold:?} too"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folds_are_those_of_unicode() {
        // Python: sum(len(chr(c).casefold()) > 1 for c in range(0x110000)).
        assert_eq!(('\0'..=char::MAX).filter(|&letter| is_folded(letter)).count(), 104);
        let cases = [
            ('ß', "ss"),
            ('ẞ', "ss"),
            ('ﬃ', "ffi"),
            ('ﬅ', "st"),
            ('İ', "i\u{307}"),
            ('ŉ', "ʼn"),
            ('ᾳ', "αι"),
        ];
        for (letter, folded) in cases {
            assert_eq!(
                (is_folded(letter), fold(letter).as_str(), at_end(folded).is_some()),
                (true, folded, true)
            );
        }
        assert_eq!((fold('ſ'), fold('\u{212a}'), at_end("xss")), ("s".into(), "k".into(), Some("ss")));
        assert_eq!((at_end("s"), at_end("re"), at_end("")), (None, None, None));
    }
}
