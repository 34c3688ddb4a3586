//! One page that holds a whole report: text, plots, tables and dialogues, in one file that needs no network and no
//! script. It knows nothing of runs; it shows what it is given.

pub(crate) mod escape;
pub mod selected_tokens;
pub mod steering_trace;
pub mod token_strip;

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::charts::canvas::{BOLD, REGULAR};
use super::charts::chart::Chart;
use super::charts::draw::svg;
use super::table::Table;
use crate::artifact;
use crate::error::Result;
use escape::escape;
use token_strip::Strip;

/// A report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Page {
    pub title: String,
    /// What the report shows, in a sentence or two.
    pub lead: String,
    /// Names and values below the title: experiment, model, seed.
    #[serde(default)]
    pub facts: Vec<(String, String)>,
    pub sections: Vec<Section>,
}

/// A part of the report. What is empty is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Section {
    pub title: String,
    #[serde(default)]
    pub text: String,
    #[serde(default)]
    pub charts: Vec<Chart>,
    #[serde(default)]
    pub strips: Vec<Strip>,
    #[serde(default)]
    pub tables: Vec<Table>,
    #[serde(default)]
    pub cards: Vec<Card>,
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One dialogue: a prompt and the answers to it, beside each other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Card {
    pub id: String,
    #[serde(default)]
    pub tags: Vec<Tag>,
    pub prompt: String,
    pub answers: Vec<Answer>,
}

/// One answer, such as that before or after steering.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub name: String,
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// The thinking part, folded until it is asked for.
    #[serde(default)]
    pub thinking: Option<String>,
    pub text: String,
}

/// A word on a coloured ground, such as a strategy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tag {
    pub text: String,
    pub tone: Tone,
}

/// What a tag's colour says; its text says it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    Good,
    Middling,
    Bad,
    Plain,
}

impl Tag {
    pub fn new(text: impl Into<String>, tone: Tone) -> Tag {
        Tag { text: text.into(), tone }
    }
}

/// Writes the page as one self-contained HTML file. A chart or table that can't be shown is an error that names it.
pub fn write(page: &Page, path: &Path) -> Result<()> {
    let html = html(page)?;
    artifact::write_atomic(path, |file| file.write_all(html.as_bytes()))
}

/// The page as the text of an HTML file.
pub fn html(page: &Page) -> Result<String> {
    let title = escape(&page.title);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{}{STYLE}</style>\n\
         </head>\n<body>\n<header>\n<h1>{title}</h1>\n{}",
        faces(),
        paragraphs(&page.lead, "lead"),
    );
    if !page.facts.is_empty() {
        html += "<dl>";
        for (name, value) in &page.facts {
            html += &format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
        }
        html += "</dl>\n";
    }
    html += "</header>\n<main>\n";
    for section in &page.sections {
        html +=
            &format!("<section>\n<h2>{}</h2>\n{}", escape(&section.title), paragraphs(&section.text, "text"));
        for chart in &section.charts {
            html += &format!("<figure>{}</figure>\n", svg(chart)?);
        }
        for tokens in &section.strips {
            html += &token_strip::html(tokens)?;
        }
        for table in &section.tables {
            html += &table.to_html()?;
        }
        section.cards.iter().for_each(|dialogue| html += &card(dialogue));
        if !section.notes.is_empty() {
            html += "<ul class=\"notes\">";
            section.notes.iter().for_each(|note| html += &format!("<li>{}</li>", escape(note)));
            html += "</ul>\n";
        }
        html += "</section>\n";
    }
    html += "</main>\n</body>\n</html>\n";
    Ok(html)
}

/// Blank lines part paragraphs.
fn paragraphs(text: &str, class: &str) -> String {
    let parts = text.split("\n\n").map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| format!("<p class=\"{class}\">{}</p>\n", escape(part))).collect()
}

fn card(card: &Card) -> String {
    let mut html = format!(
        "<article>\n<h3>{}{}</h3>\n<p class=\"prompt\">{}</p>\n<div class=\"answers\">\n",
        escape(&card.id),
        tags(&card.tags),
        escape(&card.prompt),
    );
    for answer in &card.answers {
        html += &format!("<div><h4>{}{}</h4>", escape(&answer.name), tags(&answer.tags));
        if let Some(thinking) = &answer.thinking {
            html += &format!("<details><summary>thinking</summary><p>{}</p></details>", escape(thinking));
        }
        html += &format!("<p>{}</p></div>\n", escape(&answer.text));
    }
    html + "</div>\n</article>\n"
}

fn tags(tags: &[Tag]) -> String {
    let tag = |tag: &Tag| {
        let class = match tag.tone {
            Tone::Good => "good",
            Tone::Middling => "middling",
            Tone::Bad => "bad",
            Tone::Plain => "plain",
        };
        format!(" <span class=\"tag {class}\">{}</span>", escape(&tag.text))
    };
    tags.iter().map(tag).collect()
}

/// The plots' own font, so that their labels are as wide in every browser as they were when they were placed.
fn faces() -> String {
    let face = |weight: &str, bytes: &[u8]| {
        format!(
            "@font-face {{ font-family: Inter; font-weight: {weight}; \
             src: url(data:font/ttf;base64,{}) format(\"truetype\"); }}\n",
            base64(bytes)
        )
    };
    face("400", REGULAR) + &face("700", BOLD)
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..4 {
            let sign = SIGNS[(group >> (18 - 6 * index) & 63) as usize];
            text.push(if index <= chunk.len() { char::from(sign) } else { '=' });
        }
    }
    text
}

const STYLE: &str = include_str!("page.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_dialogue_becomes_markup() {
        let attack = "<script>alert('x')</script><img src=x onerror=\"y\">";
        let tag = || vec![Tag::new(attack, Tone::Bad)];
        let answer =
            Answer { name: attack.into(), tags: tag(), thinking: Some(attack.into()), text: attack.into() };
        let card = Card { id: attack.into(), tags: tag(), prompt: attack.into(), answers: vec![answer] };
        let section = Section {
            title: attack.into(),
            text: attack.into(),
            cards: vec![card],
            notes: vec![attack.into()],
            ..Section::default()
        };
        let facts = vec![(attack.to_string(), attack.to_string())];
        let page = Page { title: attack.into(), lead: attack.into(), facts, sections: vec![section] };
        let html = html(&page).unwrap();
        assert!(!html.contains("<script") && !html.contains("<img"));
        // Title twice, lead, fact twice; section's title, text and note; id, prompt and tag; answer's four.
        assert_eq!(html.matches("&lt;script&gt;").count(), 15);
    }

    #[test]
    fn the_page_asks_for_nothing_from_outside() {
        let html = html(&Page { title: "Empty".into(), ..Page::default() }).unwrap();
        assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("<link"));
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        // RFC 4648, section 10.
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (plain, coded) in cases {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
