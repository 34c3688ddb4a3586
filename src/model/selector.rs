//! Token selectors: which tokens of a batch are read or steered, with their text form (`user.last`, `first(think,8)`).

use std::fmt;
use std::str::FromStr;

use super::token::{Phase, Token};
use crate::dialogue::Role;
use crate::error::{Error, Result};

/// A rule that picks tokens by their records. Text forms: `user.last`, `first(think,8)`, `mean(answer)`, …
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// The last token of the row.
    Last,
    /// Every token.
    All,
    /// The tokens that were given to the model (`prompt`).
    Given,
    /// The tokens that the model generated.
    Generated,
    /// The content of the messages of one role.
    Content(Role),
    /// The last content token of the last user message.
    UserLast,
    /// The last token of the template before the last answer.
    AssistantStart,
    /// The content of the assistant's thinking parts.
    Think,
    /// The content of the assistant's answers.
    Answer,
    /// The content of one message, counted from 0.
    Turn(usize),
    /// The first N tokens that the inner selector picks: in each message's thinking part, answer or content, or else in the row.
    First(Box<Selector>, usize),
    /// The last N tokens that the inner selector picks in a row.
    LastOf(Box<Selector>, usize),
    /// The last token of each message's content.
    EveryTurn,
    /// The mean of the activations over the inner selector's tokens.
    Mean(Box<Selector>),
    /// The elementwise maximum of the activations over the inner selector's tokens.
    Max(Box<Selector>),
}

/// How the activations of several picked tokens become one or more vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// One vector per token.
    Each,
    /// The mean over the tokens.
    Mean,
    /// The elementwise maximum over the tokens.
    Max,
}

impl Selector {
    /// Indices into `tokens` of the picked tokens, ascending. `tokens` may hold several rows, each whole or a continuation; selectors
    /// that pass [`Selector::check_steering`] pick the same tokens in both cases.
    pub fn pick(&self, tokens: &[Token]) -> Vec<usize> {
        let mut picked = Vec::new();
        let mut begin = 0;
        for row in tokens.chunk_by(|a, b| a.row == b.row) {
            picked.extend(self.pick_row(row).into_iter().map(|index| begin + index));
            begin += row.len();
        }
        picked
    }

    fn pick_row(&self, row: &[Token]) -> Vec<usize> {
        let such = |test: &dyn Fn(&Token) -> bool| -> Vec<usize> {
            (0..row.len()).filter(|&index| test(&row[index])).collect()
        };
        match self {
            Selector::Last => vec![row.len() - 1],
            Selector::All => such(&|_| true),
            Selector::Given => such(&|token| !token.generated),
            Selector::Generated => such(&|token| token.generated),
            Selector::Content(role) => such(&|token| token.role == *role && token.is_content()),
            Selector::UserLast => {
                let user = such(&|token| token.role == Role::User && token.is_content());
                user.last().copied().into_iter().collect()
            }
            Selector::AssistantStart => such(&|token| token.start),
            Selector::Think => such(&|token| token.phase == Phase::Think),
            Selector::Answer => such(&|token| token.phase == Phase::Answer),
            Selector::Turn(turn) => such(&|token| token.turn == *turn && token.is_content()),
            Selector::First(inner, count) => {
                let mut picked = inner.pick_row(row);
                match picked.first().and_then(|&first| inner.ordinal(&row[first])) {
                    None => picked.truncate(*count),
                    Some(_) => {
                        picked.retain(|&at| inner.ordinal(&row[at]).is_some_and(|before| before < *count))
                    }
                }
                picked
            }
            Selector::LastOf(inner, count) => {
                let picked = inner.pick_row(row);
                picked[picked.len().saturating_sub(*count)..].to_vec()
            }
            Selector::EveryTurn => such(&|token| token.is_content())
                .chunk_by(|&a, &b| row[a].turn == row[b].turn)
                .filter_map(|turn| turn.last().copied())
                .collect(),
            Selector::Mean(inner) | Selector::Max(inner) => inner.pick_row(row),
        }
    }

    /// Number of tokens that this selector picks before `token` in its part of the message, if the token's record tells: then a
    /// continued row keeps counting.
    fn ordinal(&self, token: &Token) -> Option<usize> {
        match self {
            Selector::All | Selector::Given => Some(token.position),
            Selector::Content(_) | Selector::Think | Selector::Answer | Selector::Turn(_) => {
                Some(token.index)
            }
            Selector::First(inner, _) => inner.ordinal(token),
            _ => None,
        }
    }

    /// How the activations of a row's picked tokens are pooled.
    pub fn pooling(&self) -> Pooling {
        match self {
            Selector::Mean(_) => Pooling::Mean,
            Selector::Max(_) => Pooling::Max,
            _ => Pooling::Each,
        }
    }

    /// Whether a token's own record decides if it is picked, so that a row may be read in parts.
    pub fn is_local(&self) -> bool {
        match self {
            Selector::First(inner, _) => {
                matches!(
                    **inner,
                    Selector::All
                        | Selector::Given
                        | Selector::Content(_)
                        | Selector::Think
                        | Selector::Answer
                        | Selector::Turn(_)
                )
            }
            Selector::All
            | Selector::Given
            | Selector::Generated
            | Selector::Content(_)
            | Selector::AssistantStart
            | Selector::Think
            | Selector::Answer
            | Selector::Turn(_) => true,
            _ => false,
        }
    }

    /// Refuses a selector that pools, or whose choice isn't known while the answer is being generated: a token would then be steered
    /// with the cache and not without it, or the reverse.
    ///
    /// # Errors
    /// Such a selector, with the ones that can be used.
    pub fn check_steering(&self) -> Result<()> {
        match self {
            Selector::Last | Selector::LastOf(..) | Selector::EveryTurn => Err(Error::input(
                format!("tokens {self}"),
                "the last token is not known while the answer is being written",
                "assistant.start, generated, think, answer, first(…), user or all for steering",
            )),
            Selector::Mean(_) | Selector::Max(_) => Err(Error::input(
                format!("tokens {self}"),
                "pooling is for reading",
                "a selector without mean(…) or max(…) for steering",
            )),
            Selector::First(inner, _) if **inner == Selector::Generated => Err(Error::input(
                format!("tokens {self}"),
                "how many were generated before is not known of a token",
                "first(think,N), first(answer,N) or first(assistant,N) for steering",
            )),
            Selector::First(inner, _) => inner.check_steering(),
            _ => Ok(()),
        }
    }
}

const SIMPLE: [(&str, Selector); 13] = [
    ("last", Selector::Last),
    ("all", Selector::All),
    ("prompt", Selector::Given),
    ("generated", Selector::Generated),
    ("user", Selector::Content(Role::User)),
    ("assistant", Selector::Content(Role::Assistant)),
    ("system", Selector::Content(Role::System)),
    ("user.last", Selector::UserLast),
    ("assistant.start", Selector::AssistantStart),
    ("think", Selector::Think),
    ("answer", Selector::Answer),
    ("every(turn)", Selector::EveryTurn),
    ("tool", Selector::Content(Role::Tool)),
];

/// Maximum nesting depth.
const DEEPEST: usize = 16;

impl FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Selector> {
        let text = text.trim();
        if let Some((_, selector)) = SIMPLE.iter().find(|(name, _)| *name == text) {
            return Ok(selector.clone());
        }
        let wrong = || {
            let shown: String = text.chars().take(80).collect();
            Error::input(
                format!("tokens {shown}"),
                "no such selector",
                "last, all, prompt, generated, user, assistant, system, user.last, assistant.start, think, answer, \
                 every(turn), turn(N), first(SELECTOR,N), last(SELECTOR,N), mean(SELECTOR) or max(SELECTOR)",
            )
        };
        if text.matches('(').count() > DEEPEST {
            return Err(wrong());
        }
        let (name, rest) = text.split_once('(').ok_or_else(wrong)?;
        let argument = rest.strip_suffix(')').ok_or_else(wrong)?;
        let plain = |text: &str| -> Result<Box<Selector>> {
            let inner: Selector = text.parse()?;
            match inner.pooling() {
                Pooling::Each => Ok(Box::new(inner)),
                _ => Err(wrong()),
            }
        };
        let counted = |argument: &str| -> Result<(Box<Selector>, usize)> {
            let (inner, count) = argument.rsplit_once(',').ok_or_else(wrong)?;
            let count = count.trim().parse().ok().filter(|&count| count > 0);
            Ok((plain(inner)?, count.ok_or_else(wrong)?))
        };
        match name.trim() {
            "turn" => Ok(Selector::Turn(argument.trim().parse().map_err(|_| wrong())?)),
            "first" => counted(argument).map(|(inner, count)| Selector::First(inner, count)),
            "last" => counted(argument).map(|(inner, count)| Selector::LastOf(inner, count)),
            "mean" => Ok(Selector::Mean(plain(argument)?)),
            "max" => Ok(Selector::Max(plain(argument)?)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = SIMPLE.iter().find(|(_, selector)| selector == self) {
            return f.write_str(name);
        }
        match self {
            Selector::Turn(turn) => write!(f, "turn({turn})"),
            Selector::First(inner, count) => write!(f, "first({inner},{count})"),
            Selector::LastOf(inner, count) => write!(f, "last({inner},{count})"),
            Selector::Mean(inner) => write!(f, "mean({inner})"),
            Selector::Max(inner) => write!(f, "max({inner})"),
            // Every other selector is in SIMPLE.
            _ => f.write_str("?"),
        }
    }
}

impl serde::Serialize for Selector {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Selector {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Selector, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every selector that has a text form.
    fn selectors() -> impl Strategy<Value = Selector> {
        let simple = proptest::sample::select(SIMPLE.map(|(_, selector)| selector).to_vec());
        let plain =
            prop_oneof![simple, (0usize..9).prop_map(Selector::Turn)].prop_recursive(3, 8, 1, |inner| {
                let counted = (inner, 1usize..99);
                prop_oneof![
                    counted.clone().prop_map(|(inner, count)| Selector::First(Box::new(inner), count)),
                    counted.prop_map(|(inner, count)| Selector::LastOf(Box::new(inner), count)),
                ]
            });
        (plain, 0..3).prop_map(|(plain, pooled)| match pooled {
            0 => plain,
            1 => Selector::Mean(Box::new(plain)),
            _ => Selector::Max(Box::new(plain)),
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(selector in selectors()) {
            let text = selector.to_string();
            prop_assert_eq!(text.parse::<Selector>().unwrap(), selector.clone());
            let spaced = text.replace('(', " ( ").replace(',', " , ").replace(')', " ) ");
            prop_assert_eq!(spaced.parse::<Selector>().ok(), match selector {
                // A name with a dot or parentheses of its own is one word.
                _ if text.contains("every(turn)") => spaced.parse().ok(),
                selector => Some(selector),
            });
        }

        #[test]
        fn any_text_is_a_selector_or_an_error(text in "[a-z(),.0-9 ]{0,40}") {
            let _ = text.parse::<Selector>();
        }
    }

    #[test]
    fn rejects_what_is_no_selector() {
        let deep = format!("{}think{}", "first(".repeat(5000), ",1)".repeat(5000));
        let wrong = [
            "",
            "lasts",
            "last()",
            "last(think)",
            "last(think,0)",
            "first(,3)",
            "mean(mean(user))",
            "turn(x)",
            "turn(-1)",
            "first(max(user),2)",
            "last(think,4",
            "every(think)",
            &deep,
        ];
        for text in wrong {
            let error = text.parse::<Selector>().unwrap_err().to_string();
            assert!(error.lines().count() == 1, "{error}");
        }
    }
}
