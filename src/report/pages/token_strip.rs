//! A strip of tokens, each on a background whose colour is a probability. It shows where in a dialogue a probe's reading
//! rises.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::error::{Error, Result};
use crate::report::charts::axis::number;
use crate::report::charts::palette;

/// A token strip as it is saved (`NAME.strip.json`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Strip {
    /// The title of its page.
    pub title: String,
    /// A sentence or two below the title.
    #[serde(default)]
    pub lead: String,
    /// What the value is: "probability of malicious", say.
    pub label: String,
    /// Tokens with at least this value are underlined.
    #[serde(default)]
    pub threshold: Option<f64>,
    /// In the order of the text.
    pub tokens: Vec<StripToken>,
}

/// One token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StripToken {
    /// Its text.
    pub text: String,
    /// From 0 to 1; null where the probe was not read.
    pub value: Option<f64>,
    /// Whether the chat template wrote it.
    #[serde(default)]
    pub template: bool,
    /// Whether a message begins with it. It then starts a new line.
    #[serde(default)]
    pub begins: bool,
}

impl Strip {
    /// Reads `NAME.strip.json`.
    ///
    /// # Errors
    /// If the file can't be read or is no such table; the error names the file.
    pub fn read(path: &Path) -> Result<Strip> {
        let text = artifact::read_text(path)?;
        let wrong =
            |error| Error::input(path.display(), error, "a strip: a JSON object with a list of tokens");
        serde_json::from_str(&text).map_err(wrong)
    }

    /// Refuses a strip without tokens, or with a value that is no probability. The error names the strip.
    fn check(&self) -> Result<()> {
        let place = || format!("strip \"{}\"", self.title);
        if self.tokens.is_empty() {
            return Err(Error::input(place(), "no tokens", "one or more"));
        }
        let values = self.tokens.iter().filter_map(|token| token.value).chain(self.threshold);
        match values.into_iter().find(|value| !(0.0..=1.0).contains(value)) {
            Some(value) => Err(Error::input(place(), format!("the value {value}"), "one from 0 to 1")),
            None => Ok(()),
        }
    }
}

/// The fields of `token_strip.html`.
#[derive(Debug, Serialize)]
pub(super) struct StripView<'a> {
    label: &'a str,
    /// Colours of the scale, from 0 to 1.
    stops: Vec<String>,
    threshold: Option<String>,
    tokens: Vec<TokenView<'a>>,
}

#[derive(Debug, Serialize)]
struct TokenView<'a> {
    text: &'a str,
    classes: String,
    starts_line: bool,
    value: Option<String>,
    background: String,
    ink: String,
}

impl<'a> StripView<'a> {
    /// # Errors
    /// See [`Strip::check`].
    pub(super) fn new(strip: &'a Strip) -> Result<StripView<'a>> {
        strip.check()?;
        let tokens = strip.tokens.iter().enumerate().map(|(index, token)| {
            let is_over =
                token.value.zip(strip.threshold).is_some_and(|(value, threshold)| value >= threshold);
            let classes =
                [("template", token.template), ("over", is_over), ("unread", token.value.is_none())];
            let classes = classes.into_iter().filter(|(_, applies)| *applies).map(|(class, _)| class);
            let background = background(token.value.unwrap_or_default());
            TokenView {
                text: match token.text.trim() {
                    "" => "␣",
                    text => text,
                },
                classes: classes.collect::<Vec<_>>().join(" "),
                starts_line: token.begins && index > 0,
                value: token.value.map(|value| number(value, 3)),
                background: css(background),
                ink: css(palette::ink_on(background)),
            }
        });
        Ok(StripView {
            label: &strip.label,
            stops: (0..=8).map(|step| css(background(f64::from(step) / 8.0))).collect(),
            threshold: strip.threshold.map(|threshold| number(threshold, 3)),
            tokens: tokens.collect(),
        })
    }
}

/// The background of a value: white at 0, deep blue at 1. A single hue that darkens reads alike for all kinds of colour
/// vision.
fn background(value: f64) -> palette::Colour {
    palette::mix([247, 249, 251], [0, 60, 120], value)
}

fn css([red, green, blue]: palette::Colour) -> String {
    format!("rgb({red},{green},{blue})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::pages::{self, Page};

    fn html(strip: &Strip) -> Result<String> {
        pages::html(&Page::of_strip(strip))
    }

    fn strip() -> Strip {
        let token = |text: &str, value| StripToken { text: text.into(), value, ..StripToken::default() };
        let tokens = vec![token("<b>hello</b>", Some(0.25)), token("there", Some(0.75)), token("!", None)];
        Strip {
            title: "Strip".into(),
            label: "P(risky)".into(),
            threshold: Some(0.5),
            tokens,
            ..Strip::default()
        }
    }

    #[test]
    fn a_token_has_its_colour_its_value_and_no_markup_of_its_own() {
        let html = html(&strip()).unwrap();
        assert!(!html.contains("<b>") && html.contains("&lt;b&gt;hello"));
        assert!(html.contains("title=\"0.250\"") && html.contains("class=\"unread\">!"));
        // Only the second token is over the threshold, and only there the ink is white.
        assert_eq!(html.matches("class=\"over\"").count(), 1);
        assert!(html.contains("color: rgb(255,255,255)\" title=\"0.750\""));
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        let mut strip = strip();
        strip.tokens[0].value = Some(1.5);
        assert_eq!(
            html(&strip).unwrap_err().to_string(),
            "strip \"Strip\": the value 1.5; expected one from 0 to 1"
        );
        strip.tokens.clear();
        assert!(html(&strip).is_err());
    }
}
