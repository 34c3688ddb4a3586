//! Printable text: strings of files, models and servers as a terminal may show them.
//!
//! A terminal obeys control characters (colours, titles, the clipboard, moves of the cursor), and bidirectional controls
//! reorder what is read. They are written as Rust writes them in a literal: `\u{1b}`.

use std::borrow::Cow;

/// Whether a terminal or a reader's eye would obey the character instead of showing it.
fn is_control(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' // bidirectional
            | '\u{2028}' | '\u{2029}' // line and paragraph separators
            | '\u{fff9}'..='\u{fffb}' // interlinear annotation
            | '\u{e0001}') // language tag
}

/// Text of several lines with its control characters escaped; newlines and tabs stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |letter| is_control(letter) && letter != '\n' && letter != '\t')
}

/// Text as one line of at most `longest` characters: control characters, newlines and tabs are escaped, and the middle of a
/// longer text is left out.
pub fn one_line(text: &str, longest: usize) -> Cow<'_, str> {
    let line = escaped(text, is_control);
    // A text of fewer bytes has fewer characters.
    if line.len() <= longest || line.chars().count() <= longest {
        return line;
    }
    let (head, tail) = (longest * 2 / 3, longest / 3);
    let from = |count: usize| line.char_indices().rev().take(count).last().map_or(line.len(), |(at, _)| at);
    let until = line.char_indices().nth(head).map_or(line.len(), |(at, _)| at);
    Cow::Owned(format!("{}…{}", &line[..until], &line[from(tail)..]))
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match is_escaped(letter) {
            true => safe.extend(letter.escape_default()),
            false => safe.push(letter),
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        let hostile = "a\u{1b}]0;t\u{7}\u{9b}31m\u{202e}b\r\0\u{7f}\u{2028}";
        let safe = r"a\u{1b}]0;t\u{7}\u{9b}31m\u{202e}b\r\u{0}\u{7f}\u{2028}";
        assert_eq!(printable(hostile), safe);
        assert_eq!(one_line(hostile, 100), safe);
        assert_eq!(printable("a\n\tb"), "a\n\tb");
        assert_eq!(one_line("a\n\tb", 100), r"a\n\tb");
        // Letters of every script, joiners and emoji stay.
        for plain in ["größe", "日本", "👩‍👩‍👧", "क्‍ष", "سلام", "a\\b"] {
            assert_eq!(printable(plain), plain);
        }
    }

    #[test]
    fn the_middle_of_a_long_line_is_left_out() {
        let long = format!("{}:17", "ä".repeat(10_000));
        let short = one_line(&long, 60);
        assert!(short.chars().count() == 61 && short.ends_with("ä:17") && short.contains("ä…ä"), "{short}");
        assert_eq!(one_line("abc", 3), "abc");
    }
}
