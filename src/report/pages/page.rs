//! A report page: sections of text, charts, token strips, tables and dialogues. It serializes as JSON.

use serde::{Deserialize, Serialize};

use super::token_strip::Strip;
use crate::report::charts::chart::Chart;
use crate::report::table::Table;

/// A report page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The title of the document and its first heading.
    pub title: String,
    /// What the report shows, in a sentence or two.
    pub lead: String,
    /// Names and values below the title: experiment, model, seed.
    #[serde(default)]
    pub facts: Vec<(String, String)>,
    /// In the order in which they are shown.
    pub sections: Vec<Section>,
}

/// A section of a page. Empty parts are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// Paragraphs, separated by blank lines.
    #[serde(default)]
    pub text: String,
    /// Drawn inline as SVG.
    #[serde(default)]
    pub charts: Vec<Chart>,
    /// Texts with a value for each token.
    #[serde(default)]
    pub strips: Vec<Strip>,
    /// Tables of text and numbers.
    #[serde(default)]
    pub tables: Vec<Table>,
    /// Dialogues with their answers.
    #[serde(default)]
    pub cards: Vec<Card>,
    /// Remarks in small type at the end.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One dialogue: a prompt, and the answers to it side by side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// The dialogue's id.
    pub id: String,
    /// The dialogue's labels.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// The messages before the answer.
    pub prompt: String,
    /// Answers to the prompt, such as one without steering and one with it.
    pub answers: Vec<Answer>,
}

/// One answer, such as the one before or after steering.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// How it was generated.
    pub name: String,
    /// What a judge says about it.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// The reasoning before the answer; folded on the page.
    #[serde(default)]
    pub thinking: Option<String>,
    /// The answer itself.
    pub text: String,
}

/// A word on a coloured background, such as a strategy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tag {
    /// The word.
    pub text: String,
    /// Its colour.
    pub tone: Tone,
}

/// The meaning of a tag's colour. The tag's text says it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// Green.
    Good,
    /// Amber.
    Middling,
    /// Orange.
    Bad,
    /// Grey.
    Plain,
}

impl Tag {
    /// A tag with this text and colour.
    pub fn new(text: impl Into<String>, tone: Tone) -> Tag {
        Tag { text: text.into(), tone }
    }
}

impl Page {
    /// A page that shows one token strip.
    pub fn of_strip(strip: &Strip) -> Page {
        let section =
            Section { title: strip.label.clone(), strips: vec![strip.clone()], ..Section::default() };
        Page {
            title: strip.title.clone(),
            lead: strip.lead.clone(),
            facts: Vec::new(),
            sections: vec![section],
        }
    }
}
