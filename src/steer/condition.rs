//! Conditions for steering: bounds on probes' probabilities, joined by `and`, `or`, `not` and brackets.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::constraint::Inequality;
use super::probe_query::ProbeQuery;
use crate::error::{Error, Result};
use crate::model::Site;

/// A Boolean formula over probes' probabilities.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// A bound on one probability.
    Bound(Bound),
    /// The formula must not hold.
    Not(Box<Condition>),
    /// All of two or more formulas must hold.
    All(Vec<Condition>),
    /// One of two or more formulas must hold.
    Any(Vec<Condition>),
}

/// A bound on a class's calibrated probability: `probe FILE[:CLASS[/OTHER]] > PROBABILITY`, or `<`.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// The probability that is bounded.
    pub query: ProbeQuery,
    /// The bound, from 0 to 1.
    pub bound: Inequality,
    /// The site that the probe must read (`at SITE`); any site where none is given.
    pub site: Option<Site>,
}

const EXPECTED: &str = "probe FILE:CLASS > PROBABILITY (or <), joined by and, or, not and brackets";

impl Condition {
    /// The condition that a class's calibrated probability is above a bound.
    pub fn above(query: ProbeQuery, probability: f64) -> Condition {
        Condition::Bound(Bound { query, bound: Inequality { above: true, probability }, site: None })
    }

    /// Every bound, in the order in which they are written.
    pub fn bounds(&self) -> Vec<&Bound> {
        match self {
            Condition::Bound(bound) => vec![bound],
            Condition::Not(inner) => inner.bounds(),
            Condition::All(parts) | Condition::Any(parts) => {
                parts.iter().flat_map(Condition::bounds).collect()
            }
        }
    }

    /// Whether the condition holds, given a probability for each of [`Condition::bounds`].
    pub fn holds(&self, mut probability: impl FnMut(usize) -> f64) -> bool {
        self.walk(&mut 0, &mut |index, bound| {
            (probability(index) > bound.bound.probability) == bound.bound.above
        })
    }

    fn walk(&self, next: &mut usize, met: &mut dyn FnMut(usize, &Bound) -> bool) -> bool {
        match self {
            Condition::Bound(bound) => {
                *next += 1;
                met(*next - 1, bound)
            }
            Condition::Not(inner) => !inner.walk(next, met),
            // Without a short cut, since every bound takes an index.
            Condition::All(parts) => parts.iter().fold(true, |all, part| part.walk(next, met) & all),
            Condition::Any(parts) => parts.iter().fold(false, |any, part| part.walk(next, met) | any),
        }
    }

    /// Refuses bounds that are no probabilities, and a condition that no probabilities satisfy, such as `p > 0.7 and
    /// p < 0.3`. Each probability is tried in every interval between its bounds; those of the classes of one probe can't
    /// sum to more than 1.
    pub(super) fn check(&self) -> Result<()> {
        let outside = |bound: &&Bound| !(0.0..=1.0).contains(&bound.bound.probability);
        if let Some(bound) = self.bounds().into_iter().find(outside) {
            let found = format!("a bound of {}", bound.bound.probability);
            return Err(Error::input(
                format!("when probe {}", bound.query),
                found,
                "a probability from 0 to 1",
            ));
        }
        self.check_satisfiable()
    }

    fn check_satisfiable(&self) -> Result<()> {
        let bounds = self.bounds();
        let mut levels: BTreeMap<&ProbeQuery, Vec<f64>> = BTreeMap::new();
        for bound in &bounds {
            levels.entry(&bound.query).or_insert_with(|| vec![0.0]).push(bound.bound.probability);
        }
        for levels in levels.values_mut() {
            levels.sort_by(f64::total_cmp);
            levels.dedup();
        }
        let count = levels.values().try_fold(1usize, |count, levels| count.checked_mul(levels.len()));
        // With so many bounds that they can't all be tried, the condition is accepted.
        if count.is_none_or(|count| count > 1 << 16) {
            return Ok(());
        }
        let queries: Vec<&ProbeQuery> = levels.keys().copied().collect();
        let mut cell = vec![0; queries.len()];
        loop {
            let low = |index: usize| levels[queries[index]][cell[index]];
            let mut sums: BTreeMap<&std::path::Path, f64> = BTreeMap::new();
            for (index, query) in queries.iter().enumerate().filter(|(_, query)| query.against.is_none()) {
                *sums.entry(&query.probe).or_default() += low(index);
            }
            // A cell is the interval from its level, exclusive, to the next one, inclusive.
            let inside = |index: usize| low(index) + 1e-9;
            let place = |bound: &Bound| queries.iter().position(|query| **query == bound.query).unwrap_or(0);
            let reachable =
                (0..cell.len()).all(|index| low(index) < 1.0) && sums.values().all(|sum| *sum < 1.0);
            if reachable && self.holds(|index| inside(place(bounds[index]))) {
                return Ok(());
            }
            let Some(index) = (0..cell.len()).find(|&index| cell[index] + 1 < levels[queries[index]].len())
            else {
                let found = "no reading can ever meet it";
                return Err(Error::input(format!("when {self}"), found, "bounds that can hold together"));
            };
            cell[index] += 1;
            cell[..index].fill(0);
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, parts: &[Condition], word: &str| {
            for (index, part) in parts.iter().enumerate() {
                if index > 0 {
                    write!(f, " {word} ")?;
                }
                match part {
                    Condition::All(_) | Condition::Any(_) => write!(f, "({part})")?,
                    part => write!(f, "{part}")?,
                }
            }
            Ok(())
        };
        match self {
            Condition::Bound(Bound { query, bound, site }) => {
                write!(f, "probe {query} {bound}")?;
                site.map_or(Ok(()), |site| write!(f, " at {site}"))
            }
            Condition::Not(inner) => match **inner {
                Condition::Bound(_) => write!(f, "not {inner}"),
                _ => write!(f, "not ({inner})"),
            },
            Condition::All(parts) => joined(f, parts, "and"),
            Condition::Any(parts) => joined(f, parts, "or"),
        }
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Condition, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for Condition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Condition> {
        let wrong = |found: &str| Error::input(format!("when {text:?}"), found, EXPECTED);
        let words = words(text).ok_or_else(|| wrong("a quote that does not end"))?;
        let mut parser = Parser { words: &words, position: 0, depth: 0 };
        let condition = parser.any().map_err(|found| wrong(&found))?;
        match parser.peek() {
            None => {
                condition.check()?;
                Ok(condition)
            }
            Some(word) => Err(wrong(&format!("{word:?} where it should end"))),
        }
    }
}

/// The text split into words, brackets and comparisons; a quoted text is one word.
fn words(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                let mut closed = false;
                for inner in characters.by_ref() {
                    closed = inner == '"';
                    if closed {
                        break;
                    }
                    word.push(inner);
                }
                if !closed {
                    return None;
                }
            }
            '(' | ')' | '<' | '>' => {
                words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
                words.push(character.to_string());
            }
            space if space.is_whitespace() => {
                words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
            }
            other => word.push(other),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    Some(words)
}

/// Deepest nesting of brackets and `not`.
const MAX_DEPTH: usize = 64;

struct Parser<'a> {
    words: &'a [String],
    position: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&str> {
        self.words.get(self.position).map(String::as_str)
    }

    fn takes(&mut self, word: &str) -> bool {
        let is = self.peek() == Some(word);
        self.position += usize::from(is);
        is
    }

    fn next(&mut self) -> std::result::Result<&str, String> {
        self.position += 1;
        self.words.get(self.position - 1).map(String::as_str).ok_or_else(|| "nothing more".to_string())
    }

    fn any(&mut self) -> std::result::Result<Condition, String> {
        let mut parts = vec![self.all()?];
        while self.takes("or") {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Condition::Any(parts) })
    }

    fn all(&mut self) -> std::result::Result<Condition, String> {
        let mut parts = vec![self.one()?];
        while self.takes("and") {
            parts.push(self.one()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Condition::All(parts) })
    }

    fn one(&mut self) -> std::result::Result<Condition, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("brackets or nots inside each other, too deep".into());
        }
        let condition = if self.takes("not") {
            Condition::Not(Box::new(self.one()?))
        } else if self.takes("(") {
            let inner = self.any()?;
            if !self.takes(")") {
                return Err("a bracket that does not close".into());
            }
            inner
        } else {
            self.bound()?
        };
        self.depth -= 1;
        Ok(condition)
    }

    fn bound(&mut self) -> std::result::Result<Condition, String> {
        match self.next()? {
            "probe" => (),
            word => return Err(format!("{word:?} instead of a probe")),
        }
        let query = ProbeQuery::parse(self.next()?);
        let above = match self.next()? {
            ">" => true,
            "<" => false,
            word => return Err(format!("{word:?} instead of > or <")),
        };
        let word = self.next()?;
        let probability = word.parse().ok().filter(|number| (0.0..=1.0).contains(number));
        let probability =
            probability.ok_or_else(|| format!("{word:?} instead of a probability from 0 to 1"))?;
        let site = match self.takes("at") {
            false => None,
            true => Some(self.next()?.parse().map_err(|_| "no site after at".to_string())?),
        };
        Ok(Condition::Bound(Bound { query, bound: Inequality { above, probability }, site }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_rules_and_says_them_again() {
        let condition: Condition =
            "probe runs/demo/probes/user-type.safetensors:sensitive > 0.5".parse().unwrap();
        let [bound] = condition.bounds()[..] else { panic!("one bound") };
        assert_eq!(bound.query.class.as_deref(), Some("sensitive"));
        assert_eq!(bound.bound, Inequality { above: true, probability: 0.5 });
        for text in [
            "probe a:x > 0.7 at 9.resid_post and not probe b < 0.2",
            "(probe a:x/y > 0.1 or probe b < 0.2) and probe c > 0.3",
            "not (probe a > 0.1 and probe b > 0.1)",
        ] {
            assert_eq!(text.parse::<Condition>().unwrap().to_string(), text);
        }
        let spaced: Condition = "probe \"my runs/a b:x\">0.7".parse().unwrap();
        assert_eq!(spaced.bounds()[0].query.probe, std::path::PathBuf::from("my runs/a b"));
    }

    #[test]
    fn rules_hold_as_logic_says() {
        let condition: Condition = "probe a > 0.5 and not (probe b > 0.5 or probe c < 0.5)".parse().unwrap();
        for bits in 0..8 {
            let [a, b, c] = [0, 1, 2].map(|bit| bits >> bit & 1 == 1);
            let holds = condition.holds(|index| if [a, b, c][index] { 0.9 } else { 0.1 });
            assert_eq!(holds, a && !b && c);
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        let wrong = [
            "",
            "probe a:b",
            "probe a:b > 2",
            "a:b > 0.5",
            "probe a > NaN",
            "probe a > 0.5 and",
            "probe a > 0.5 probe b > 1",
            "(probe a > 0.5",
            "not",
            "probe \"a > 0.5",
            "probe a > 0.5 at nowhere",
        ];
        for wrong in wrong {
            assert!(wrong.parse::<Condition>().is_err(), "{wrong}");
        }
        let deep = format!("{}probe a > 0.5", "not ".repeat(100_000));
        assert!(deep.parse::<Condition>().unwrap_err().to_string().contains("too deep"));
    }

    #[test]
    fn contradictions_are_refused() {
        for wrong in [
            "probe a > 0.7 and probe a < 0.3",
            "probe a:x > 0.6 and probe a:y > 0.5",
            "probe a > 0.2 and not probe a > 0.2",
            "probe a > 1",
            "(probe a > 0.7 or probe a > 0.9) and probe a < 0.7",
        ] {
            let error = wrong.parse::<Condition>().unwrap_err().to_string();
            assert!(error.contains("no reading can ever meet it"), "{wrong}: {error}");
        }
        for right in [
            "probe a > 0.3 and probe a < 0.7",
            "probe a:x > 0.6 and probe b:y > 0.5",
            "probe a < 0.5 or probe a > 0.5",
        ] {
            assert!(right.parse::<Condition>().is_ok(), "{right}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_panic(text in "[ ()<>a-c\"/:.0-9probentd]{0,60}") {
            let _ = text.parse::<Condition>();
        }
    }
}
