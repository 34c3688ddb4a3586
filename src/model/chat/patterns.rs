//! Translation of regular expressions from Oniguruma to fancy-regex.
//!
//! A pattern of a tokenizer.json in, the pattern that matches the same text here out. Python's tokenizers compile patterns with
//! Oniguruma in Ruby syntax; this crate's compile them with fancy-regex, which is written in Rust. The two read some constructs
//! otherwise: `{n,m}+` repeats there and is possessive here, `^` and `$` are line anchors there, `(?m)` lets `.` match a line
//! feed, bracket expressions cover Unicode, and `\w` covers ² and ½ but not the zero-width joiners.

use super::case_folds;

/// The longest pattern accepted, in bytes: several times the longest of the hub.
const MAX_BYTES: usize = 16 << 10;

/// The deepest nesting of groups and classes accepted; the engine parses by recursion.
pub(super) const MAX_DEPTH: usize = 32;

/// The largest count in `{n,m}`.
const MAX_COUNT: u32 = 10_000;

/// What `\w` matches elsewhere, and `\b` looks for.
const WORD_ALONE: &str = r"[\w&&[^\x{200C}\x{200D}]]\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE}";

/// Translates a pattern.
///
/// # Errors
/// What the pattern has that can't be translated, or that exceeds a limit, as text.
pub(crate) fn translate(pattern: &str) -> Result<String, String> {
    if pattern.len() > MAX_BYTES {
        return Err(format!("a pattern of {} bytes, above the limit of {MAX_BYTES}", pattern.len()));
    }
    let mut translation = Translation {
        rest: pattern,
        out: String::with_capacity(pattern.len()),
        atom: None,
        groups: Vec::new(),
        folds: false,
        tail: String::new(),
    };
    while let Some(letter) = translation.take() {
        translation.step(letter)?;
    }
    Ok(translation.out)
}

pub(super) struct Translation<'a> {
    /// What is left of the pattern.
    pub(super) rest: &'a str,
    out: String,
    /// Where the last atom begins in `out`: what a quantifier repeats.
    atom: Option<usize>,
    /// For each open group, where it begins in `out`, and whether case was ignored before it.
    groups: Vec<(usize, bool)>,
    /// Whether case is ignored.
    pub(super) folds: bool,
    /// The literals before the rest, without their case, where case is ignored.
    tail: String,
}

impl Translation<'_> {
    /// Number of open groups.
    pub(super) fn depth(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn take(&mut self) -> Option<char> {
        let letter = self.rest.chars().next()?;
        self.rest = &self.rest[letter.len_utf8()..];
        Some(letter)
    }

    /// Whether the rest begins with this text, which is then taken.
    pub(super) fn take_text(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => (self.rest = rest, true).1,
            None => false,
        }
    }

    fn push_atom(&mut self, text: &str) {
        self.tail.clear();
        self.atom = Some(self.out.len());
        self.out.push_str(text);
    }

    /// Writes a character that stands for itself, as `text`.
    ///
    /// # Errors
    /// Where case is ignored, one that folds to several characters, or that ends what another folds to.
    fn push_literal(&mut self, letter: char, text: &str) -> Result<(), String> {
        let mut tail = std::mem::take(&mut self.tail);
        if self.folds {
            case_folds::refuse(letter, letter)?;
            // A repeated character is a text of its own.
            let is_repeated = self.rest.starts_with(['?', '*', '+'])
                || self.rest.strip_prefix('{').is_some_and(|rest| !matches!(bounds(rest), Ok(None)));
            if is_repeated {
                tail.clear();
            } else {
                tail.push_str(&case_folds::fold(letter));
            }
            if let Some(end) = case_folds::at_end(&tail) {
                return Err(format!(
                    "{end:?} where case is ignored, which Oniguruma finds in one character too"
                ));
            }
        }
        self.push_atom(text);
        self.tail = tail;
        Ok(())
    }

    fn step(&mut self, letter: char) -> Result<(), String> {
        match letter {
            '\\' => self.escape()?,
            '[' => {
                let class = self.class(self.groups.len())?;
                self.push_atom(&class);
            }
            '(' => self.open()?,
            ')' => {
                let (begin, folds) = self.groups.pop().ok_or("an unmatched )")?;
                self.out.push(')');
                (self.atom, self.folds) = (Some(begin), folds);
            }
            '|' => {
                self.tail.clear();
                self.out.push('|');
                self.atom = None;
            }
            '^' => self.push_atom(r"(?:\A|(?<=\n)(?!\z))"),
            '$' => self.push_atom("(?m:$)"),
            '?' | '*' | '+' => {
                self.tail.clear();
                self.out.push(letter);
                // Lazy or possessive.
                if let Some(next) = self.rest.chars().next().filter(|next| matches!(next, '?' | '+')) {
                    self.take();
                    self.out.push(next);
                    if self.rest.starts_with(['?', '*', '+']) {
                        return Err("three quantifiers in a row, which Oniguruma reads otherwise".into());
                    }
                }
                self.group_before_interval()?;
            }
            '{' => self.interval()?,
            '}' | ']' => self.push_atom(&format!("\\{letter}")),
            _ => self.push_literal(letter, letter.encode_utf8(&mut [0; 4]))?,
        }
        Ok(())
    }

    /// `{n,m}` after its brace.
    fn interval(&mut self) -> Result<(), String> {
        let Some((least, most, length)) = bounds(self.rest)? else {
            self.push_atom(r"\{");
            return Ok(());
        };
        let Some(atom) = self.atom else { return Err("{n,m} with nothing before it".into()) };
        self.rest = &self.rest[length..];
        let wrap = |out: &mut String, open: &str, count: String| {
            out.insert_str(atom, open);
            out.push_str(&count);
            out.push(')');
        };
        match most {
            // {3,1} is the possessive {1,3}.
            Some(most) if most < least => wrap(&mut self.out, "(?>", format!("{{{most},{least}}}")),
            _ => {
                let count = match most {
                    Some(most) if most == least => format!("{{{least}}}"),
                    Some(most) => format!("{{{least},{most}}}"),
                    None => format!("{{{least},}}"),
                };
                match self.rest.chars().next() {
                    // The whole is repeated; the next step writes the quantifier.
                    Some('+') => wrap(&mut self.out, "(?:", count),
                    Some('?') if most == Some(least) => wrap(&mut self.out, "(?:", count),
                    Some('?') => {
                        self.take();
                        self.out.push_str(&format!("{count}?"));
                        self.group_before_interval()?;
                    }
                    _ => {
                        self.out.push_str(&count);
                        self.group_before_interval()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts a repeated atom into a group where `{n,m}` follows: it repeats the whole.
    fn group_before_interval(&mut self) -> Result<(), String> {
        if let (Some(atom), Some(rest)) = (self.atom, self.rest.strip_prefix('{'))
            && bounds(rest)?.is_some()
        {
            self.out.insert_str(atom, "(?:");
            self.out.push(')');
        }
        Ok(())
    }

    /// A group after its parenthesis.
    fn open(&mut self) -> Result<(), String> {
        if self.groups.len() >= MAX_DEPTH {
            return Err(format!("groups nested more than {MAX_DEPTH} deep"));
        }
        let begin = self.out.len();
        if !self.take_text("?") {
            self.groups.push((begin, self.folds));
            self.out.push('(');
            self.atom = None;
            return Ok(());
        }
        if self.take_text("#") {
            let end = self.rest.find(')').ok_or("a comment without an end")?;
            self.rest = &self.rest[end + 1..];
            return Ok(());
        }
        let known = [":", "=", "!", ">", "<=", "<!"];
        if let Some(kind) = known.into_iter().find(|kind| self.take_text(kind)) {
            self.groups.push((begin, self.folds));
            self.out.push_str(&format!("(?{kind}"));
            self.atom = None;
            return Ok(());
        }
        if self.take_text("<") {
            let end = self.rest.find('>').ok_or("a name without an end")?;
            self.groups.push((begin, self.folds));
            self.out.push_str(&format!("(?<{}>", &self.rest[..end]));
            self.rest = &self.rest[end + 1..];
            self.atom = None;
            return Ok(());
        }
        let end = self.rest.find([':', ')']).ok_or("a group without an end")?;
        let (options, before) = (&self.rest[..end], self.folds);
        let (mut off, mut written) = (false, String::new());
        for option in options.chars() {
            match option {
                '-' => {
                    off = true;
                    written.push('-');
                }
                'i' => {
                    self.folds = !off;
                    written.push('i');
                }
                // There, `m` lets the dot match a line feed.
                'm' => written.push('s'),
                _ => return Err(format!("the option (?{options})")),
            }
        }
        let closed = self.rest[end..].starts_with(')');
        self.rest = &self.rest[end + 1..];
        self.out.push_str(&format!("(?{written}{}", if closed { ")" } else { ":" }));
        if !closed {
            self.groups.push((begin, before));
        }
        self.atom = None;
        Ok(())
    }

    /// An escape outside a class.
    fn escape(&mut self) -> Result<(), String> {
        let letter = self.take().ok_or("a backslash at the end")?;
        let word = format!("[{WORD_ALONE}]");
        match letter {
            'w' => self.push_atom(&word),
            'W' => self.push_atom(&format!("[^{WORD_ALONE}]")),
            'b' => self.push_atom(&format!("(?:(?<={word})(?!{word})|(?<!{word})(?={word}))")),
            'B' => self.push_atom(&format!("(?:(?<={word})(?={word})|(?<!{word})(?!{word}))")),
            'Z' => self.push_atom(r"(?=\n?\z)"),
            'R' => self.push_atom(r"(?>\r\n|[\n-\r\x{85}\x{2028}\x{2029}])"),
            'N' => self.push_atom(r"[^\n]"),
            'O' => self.push_atom("(?s:.)"),
            'h' => self.push_atom("[0-9A-Fa-f]"),
            'H' => self.push_atom("[^0-9A-Fa-f]"),
            'p' | 'P' if self.rest.starts_with('{') => {
                let property = self.property(letter == 'P')?;
                match property.as_str() {
                    r"\p{Word}" => self.push_atom(&word),
                    r"\P{Word}" => self.push_atom(&format!("[^{WORD_ALONE}]")),
                    // A property doesn't ignore case there.
                    _ if self.folds => self.push_atom(&format!("(?-i:{property})")),
                    _ => self.push_atom(&property),
                }
            }
            'p' | 'P' => self.push_atom(letter.encode_utf8(&mut [0; 4])),
            'k' if self.rest.starts_with('<') => {
                let end = self.rest.find('>').ok_or("a name without an end")?;
                let name = format!(r"\k{}", &self.rest[..=end]);
                self.rest = &self.rest[end + 1..];
                self.push_atom(&name);
            }
            'x' | 'u' => {
                let (code, letter) = self.code(letter)?;
                self.push_literal(letter, &code)?;
            }
            'd' | 'D' | 's' | 'S' | 'A' | 'z' | 't' | 'n' | 'r' | 'f' | 'v' | 'a' | '1'..='9' => {
                self.push_atom(&format!("\\{letter}"));
            }
            'e' => self.push_atom(r"\x1B"),
            letter if letter.is_ascii_alphanumeric() => return Err(format!(r"\{letter}")),
            letter => self.push_literal(letter, &literal(letter))?,
        }
        Ok(())
    }

    /// `{Name}` or `{^Name}` after `\p` or `\P`.
    pub(super) fn property(&mut self, negated: bool) -> Result<String, String> {
        let end = self.rest.find('}').ok_or("a property without an end")?;
        let name = &self.rest[1..end];
        self.rest = &self.rest[end + 1..];
        let (name, negated) = match name.strip_prefix('^') {
            Some(name) => (name, !negated),
            None => (name, negated),
        };
        let letter = if negated { 'P' } else { 'p' };
        match name.to_ascii_lowercase().as_str() {
            "word" => Ok(format!(r"\{letter}{{Word}}")),
            _ => Ok(format!(r"\{letter}{{{name}}}")),
        }
    }

    /// `\xHH`, `\x{H…}` or `\uHHHH` after its letter, and the character.
    pub(super) fn code(&mut self, letter: char) -> Result<(String, char), String> {
        let braced = letter == 'x' && self.take_text("{");
        let most = if braced {
            8
        } else if letter == 'u' {
            4
        } else {
            2
        };
        let digits: String = self.rest.chars().take(most).take_while(char::is_ascii_hexdigit).collect();
        self.rest = &self.rest[digits.len()..];
        if digits.is_empty() || (braced && !self.take_text("}")) {
            return Err(format!(r"\{letter} without a number"));
        }
        let character = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
        let character = character.ok_or_else(|| format!(r"\{letter}{digits}, which is no character"))?;
        Ok((format!(r"\x{{{digits}}}"), character))
    }
}

/// The numbers of `n}`, `n,}`, `,m}` or `n,m}`, and the length; `None` where the brace stands for itself.
fn bounds(text: &str) -> Result<Option<(u32, Option<u32>, usize)>, String> {
    let Some(end) = text.find('}') else { return Ok(None) };
    let inside = &text[..end];
    let (least, most) = inside.split_once(',').unwrap_or((inside, inside));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(least) || !digits(most) || (least.is_empty() && most.is_empty()) {
        return Ok(None);
    }
    let number = |text: &str| match text.parse::<u32>() {
        Ok(number) if number <= MAX_COUNT => Ok(number),
        _ => Err(format!("{{{inside}}}, above the limit of {MAX_COUNT}")),
    };
    let least = if least.is_empty() { 0 } else { number(least)? };
    let most = if most.is_empty() { None } else { Some(number(most)?) };
    Ok(Some((least, most, end + 1)))
}

/// A character that stands for itself, escaped where it could be read otherwise.
pub(super) fn literal(letter: char) -> String {
    match letter.is_ascii_punctuation() {
        true => format!("\\{letter}"),
        false => letter.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};

    use super::super::tests::fixture;
    use super::*;

    #[derive(serde::Deserialize)]
    struct Cases {
        texts: Vec<String>,
        /// The pattern, then for each text the lengths of its pieces in characters.
        cases: Vec<Vec<String>>,
    }

    /// The lengths of the pieces that a translated pattern cuts.
    fn cut(pattern: &str, text: &str) -> String {
        let pattern = translate(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        let split =
            json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let split: PreTokenizerWrapper =
            serde_json::from_value(split).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        let mut whole = PreTokenizedString::from(text);
        split.pre_tokenize(&mut whole).unwrap();
        let pieces = whole.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let lengths =
            pieces.iter().map(|(_, (begin, end), _)| text[*begin..*end].chars().count().to_string());
        lengths.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn odd_texts_are_cut_as_pythons_tokenizers_cut_them() {
        let Cases { texts, cases } = serde_json::from_str(&fixture("patterns.json")).unwrap();
        assert!(cases.len() > 80);
        let mut wrong = Vec::new();
        for case in &cases {
            for (text, expected) in texts.iter().zip(&case[1..]) {
                let found = cut(&case[0], text);
                if found != *expected {
                    wrong.push(format!("{} on {text:?}: {found}; expected {expected}", case[0]));
                }
            }
        }
        assert!(wrong.is_empty(), "{} cuts\n{}", wrong.len(), wrong.join("\n"));
    }

    #[test]
    fn patterns_out_of_bounds_are_refused() {
        for pattern in [
            "(".repeat(40) + "a" + &")".repeat(40),
            "[".repeat(40) + "a" + &"]".repeat(40),
            "a".repeat(20_000),
            "a{99999}".into(),
            "[a".into(),
            "a)".into(),
            "(?~a)".into(),
            "{2}".into(),
            "[[:graph:]]".into(),
            r"\".into(),
            r"\X".into(),
            r"\x{".into(),
            r"\p{L".into(),
            r"[\p{L}--[a]]".into(),
            "[a-z--[aeiou]]".into(),
            r"[\w--\d]".into(),
            "[a-z--b]".into(),
            r"\x{D800}".into(),
            r"\G\d".into(),
            "a*?+".into(),
            "[^[^a]b]".into(),
            "(?i)[[:upper:]]".into(),
            "(?i:[[^a-z]])".into(),
            "(?i)[a[^b]]".into(),
            "(?i:[a-z&&[k]])".into(),
            r"(?i)[\P{Lu}]".into(),
            r"(?i)[^\p{^Lu}x]".into(),
            "(?i:[[:^lower:]])".into(),
        ] {
            assert!(translate(&pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn characters_that_fold_to_several_are_refused_where_case_is_ignored() {
        for pattern in [
            "(?i)ß",
            "(?i:a|ẞ+)",
            r"(?i)\u00DF",
            "(?i)ss",
            "(?i)sS",
            r"(?i)\x73s",
            "(?i)s(?:s)",
            "(?i:'s|'ſt)",
            "(?i)[ß]",
            "(?i)[À-ÿ]",
            r"(?i)[a\u00C0-\u00FFz]",
            "(?i)[[ß]a]",
            "(?i)ﬁ",
            "(?i)off",
            "(?i)İ",
        ] {
            let error = translate(pattern).unwrap_err();
            assert!(error.contains("where case is ignored, which Oniguruma finds in"), "{pattern}: {error}");
        }
        for pattern in [
            "ß|ss|[À-ÿ]",
            "(?i:a)ß",
            "(?i)a(?-i)ß",
            "(?i)ss?",
            "(?i)s|s",
            "(?i)s{2}",
            "(?i)[a-zà-ÿ]",
            r"(?i)s\p{L}s",
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
            r"(?i)[\p{L}\w]+",
            r"(?i)[^\s\p{L}\P{N}\W]+",
            r"[[^a-z]&&\P{Lu}]",
        ] {
            translate(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        }
    }
}
