//! Classes (`[…]`) of regular expressions, translated from Oniguruma to fancy-regex.

use super::case_folds;
use super::patterns::{MAX_DEPTH, Translation, literal};

/// What `\w` matches inside a class.
const WORD: &str = r"[\w&&[^\x{200C}\x{200D}]]";
/// Properties that a character has whatever its case.
const CASELESS: [&str; 4] = ["{N}", "{P}", "{S}", "{Z}"];
/// What `\w` doesn't match inside a class.
const NO_WORD: &str = r"[\W\x{200C}\x{200D}]";
impl Translation<'_> {
    /// A class after its bracket.
    pub(super) fn class(&mut self, depth: usize) -> Result<String, String> {
        if depth >= MAX_DEPTH {
            return Err(format!("classes nested more than {MAX_DEPTH} deep"));
        }
        let mut class = String::from("[");
        if self.take_text("^") {
            // There, case is ignored in what a class within a class leaves; here, in what it excludes.
            self.refuse_folded(depth > self.depth(), "a negated class inside a class")?;
            class.push('^');
        }
        // Whether the last item is a set, after which a hyphen stands for itself.
        let mut set = false;
        // The last character, and whether a hyphen after it begins a range.
        let (mut last, mut ranges) = (None, false);
        if self.take_text("]") {
            class.push_str(r"\]");
        }
        loop {
            let letter = self.take().ok_or("a class without an end")?;
            match letter {
                ']' => break,
                '[' if self.rest.starts_with(':') && self.rest.contains(":]") => {
                    let is_cased = [":^", ":upper", ":lower"].iter().any(|name| self.rest.starts_with(name));
                    self.refuse_folded(is_cased, "[:…:]")?;
                    let end = self.rest.find(":]").unwrap_or_default();
                    class.push_str(&bracket(&self.rest[1..end])?);
                    self.rest = &self.rest[end + 2..];
                    set = true;
                }
                '[' if self.rest.starts_with('^') && class.starts_with("[^") => {
                    return Err("a negated class in a negated one, which Oniguruma reads otherwise".into());
                }
                '[' => {
                    class.push_str(&self.class(depth + 1)?);
                    set = true;
                }
                '&' if self.take_text("&") => {
                    self.refuse_folded(true, "&&")?;
                    class.push_str("&&");
                    set = false;
                }
                '\\' => {
                    let (escape, letter) = self.class_escape()?;
                    class.push_str(&escape);
                    set = letter.is_none();
                    if let Some(letter) = letter {
                        self.class_letter(&mut last, &mut ranges, letter)?;
                    }
                }
                '-' if class != "["
                    && class != "[^"
                    && self.rest.starts_with('-')
                    && !self.rest.starts_with("-]") =>
                {
                    return Err("-- in a class, which some engines read as subtraction".into());
                }
                '-' if set || self.rest.starts_with(']') || class == "[" || class == "[^" => {
                    class.push_str(r"\-");
                    set = false;
                }
                '-' => {
                    class.push('-');
                    ranges = true;
                }
                letter => {
                    class.push_str(&literal(letter));
                    set = false;
                    self.class_letter(&mut last, &mut ranges, letter)?;
                }
            }
        }
        class.push(']');
        Ok(class)
    }

    /// Refuses a part of a class that means something else in Oniguruma where case is ignored.
    fn refuse_folded(&self, is_there: bool, what: &str) -> Result<(), String> {
        match is_there && self.folds {
            true => Err(format!("{what} where case is ignored, which Oniguruma reads otherwise")),
            false => Ok(()),
        }
    }

    /// Notes a character of a class, which may end a range.
    ///
    /// # Errors
    /// Where case is ignored, a character that folds to several.
    fn class_letter(&self, last: &mut Option<char>, ranges: &mut bool, letter: char) -> Result<(), String> {
        let first = last.replace(letter).filter(|_| std::mem::take(ranges)).unwrap_or(letter);
        if self.folds { case_folds::refuse(first, letter) } else { Ok(()) }
    }

    /// An escape in a class, and the character that it is, if it isn't a set.
    fn class_escape(&mut self) -> Result<(String, Option<char>), String> {
        let letter = self.take().ok_or("a backslash at the end")?;
        Ok(match letter {
            'w' => (WORD.into(), None),
            'W' => (NO_WORD.into(), None),
            'h' => ("0-9A-Fa-f".into(), None),
            'H' => ("[^0-9A-Fa-f]".into(), None),
            'd' | 'D' | 's' | 'S' => (format!("\\{letter}"), None),
            'p' | 'P' if self.rest.starts_with('{') => match self.property(letter == 'P')?.as_str() {
                r"\p{Word}" => (WORD.into(), None),
                r"\P{Word}" => (NO_WORD.into(), None),
                property => {
                    let is_negated = property.starts_with(r"\P") && !CASELESS.contains(&&property[2..]);
                    self.refuse_folded(is_negated, property)?;
                    (property.into(), None)
                }
            },
            'p' | 'P' => (letter.to_string(), Some(letter)),
            'x' | 'u' => {
                let (code, letter) = self.code(letter)?;
                (code, Some(letter))
            }
            'b' => (r"\x08".into(), Some('\x08')),
            'e' => (r"\x1B".into(), Some('\x1B')),
            't' => (r"\t".into(), Some('\t')),
            'n' => (r"\n".into(), Some('\n')),
            'r' => (r"\r".into(), Some('\r')),
            'f' => (r"\f".into(), Some('\x0C')),
            'v' => (r"\v".into(), Some('\x0B')),
            'a' => (r"\a".into(), Some('\x07')),
            letter if letter.is_ascii_alphanumeric() => return Err(format!(r"\{letter} in a class")),
            letter => (literal(letter), Some(letter)),
        })
    }
}

/// A bracket expression such as `[:alpha:]`, by its name.
fn bracket(name: &str) -> Result<String, String> {
    let (positive, negative) = match name.trim_start_matches('^') {
        "alpha" => (r"\p{Alphabetic}", r"\P{Alphabetic}"),
        "digit" => (r"\p{Nd}", r"\P{Nd}"),
        "alnum" => (r"[\p{Alphabetic}\p{Nd}]", r"[^\p{Alphabetic}\p{Nd}]"),
        "upper" => (r"\p{Uppercase}", r"\P{Uppercase}"),
        "lower" => (r"\p{Lowercase}", r"\P{Lowercase}"),
        "space" => (r"\s", r"\S"),
        "punct" => (r"[\p{P}\p{S}]", r"[^\p{P}\p{S}]"),
        "cntrl" => (r"\p{Cc}", r"\P{Cc}"),
        "xdigit" => ("[0-9A-Fa-f]", "[^0-9A-Fa-f]"),
        "ascii" => (r"[\x00-\x7F]", r"[^\x00-\x7F]"),
        "word" => (WORD, NO_WORD),
        _ => return Err(format!("[:{name}:]")),
    };
    Ok(if name.starts_with('^') { negative } else { positive }.into())
}
