//! A strip of tokens, each on a ground whose colour is a probability: where in a dialogue a reading rises.
//! It knows nothing of models or probes.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::escape::escape;
use super::{Page, Section};
use crate::error::{Error, Result};
use crate::report::charts::axis::number;
use crate::report::charts::palette;

/// A strip, as it is saved (`NAME.strip.json`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Strip {
    pub title: String,
    #[serde(default)]
    pub lead: String,
    /// What the value is: "probability of malicious", say.
    pub label: String,
    /// From this value on a token is underlined.
    #[serde(default)]
    pub threshold: Option<f64>,
    pub tokens: Vec<StripToken>,
}

/// One token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StripToken {
    pub text: String,
    /// From 0 to 1; null where it was not read.
    pub value: Option<f64>,
    /// Whether the template wrote it, not a person.
    #[serde(default)]
    pub template: bool,
    /// Whether a message begins with it: it stands on a line of its own.
    #[serde(default)]
    pub begins: bool,
}

impl Strip {
    /// Reads `NAME.strip.json`. A file that is no such table is an error that names it.
    pub fn read(path: &Path) -> Result<Strip> {
        let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
        let wrong =
            |error| Error::input(path.display(), error, "a strip: a JSON object with a list of tokens");
        serde_json::from_str(&text).map_err(wrong)
    }

    /// A page that holds this strip alone.
    pub fn page(&self) -> Page {
        let section = Section { title: self.label.clone(), strips: vec![self.clone()], ..Section::default() };
        Page {
            title: self.title.clone(),
            lead: self.lead.clone(),
            facts: Vec::new(),
            sections: vec![section],
        }
    }

    /// Refuses what can't be shown. The error names the strip.
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

/// The ground of a value: white at 0, deep blue at 1. One hue that darkens reads alike for every kind of colour sight.
fn ground(value: f64) -> palette::Colour {
    palette::mix([247, 249, 251], [0, 60, 120], value)
}

fn css([red, green, blue]: palette::Colour) -> String {
    format!("rgb({red},{green},{blue})")
}

/// The strip as HTML, with its scale.
pub fn html(strip: &Strip) -> Result<String> {
    strip.check()?;
    let stops: Vec<String> = (0..=8).map(|step| css(ground(f64::from(step) / 8.0))).collect();
    let mut html = format!(
        "<div class=\"scale\"><span>0</span><i style=\"background: linear-gradient(to right, {})\"></i><span>1</span>\
         <span>{}</span></div>\n<p class=\"strip\">",
        stops.join(", "),
        escape(&strip.label),
    );
    if let Some(threshold) = strip.threshold {
        let text = format!("<p class=\"text\">Underlined from {} on.</p>\n", number(threshold, 3));
        html = html.replace("<p class=\"strip\">", &format!("{text}<p class=\"strip\">"));
    }
    for (index, token) in strip.tokens.iter().enumerate() {
        if token.begins && index > 0 {
            html += "<br>";
        }
        let mut classes = Vec::new();
        classes.extend(token.template.then_some("template"));
        let text = if token.text.trim().is_empty() { "␣".to_owned() } else { escape(token.text.trim()) };
        match token.value {
            Some(value) => {
                classes.extend(strip.threshold.is_some_and(|threshold| value >= threshold).then_some("over"));
                let ground = ground(value);
                html += &format!(
                    "<span class=\"{}\" style=\"background: {}; color: {}\" title=\"{}\">{text}</span>\n",
                    classes.join(" "),
                    css(ground),
                    css(palette::ink_on(ground)),
                    number(value, 3),
                );
            }
            None => {
                classes.push("unread");
                html += &format!("<span class=\"{}\">{text}</span>\n", classes.join(" "));
            }
        }
    }
    Ok(html + "</p>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

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
