//! Self-contained HTML pages: text, charts, tables and dialogues in one file, without scripts or network access.

pub mod page;
pub mod selected_tokens;
pub mod steering_trace;
mod template;
pub mod token_strip;

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use super::charts::canvas::{BOLD, REGULAR};
use super::charts::draw::svg;
use super::table::{Column, Table};
use crate::artifact;
use crate::error::Result;
pub use page::{Answer, Card, Page, Section, Tag, Tone};
use token_strip::StripView;

/// Writes the page as one self-contained HTML file.
///
/// # Errors
/// A chart, table or strip that can't be shown (the error names it); [`crate::Error::File`] if the file can't be
/// written.
pub fn write(page: &Page, path: &Path) -> Result<()> {
    artifact::write_text(path, &html(page)?)
}

/// The page as the text of an HTML file.
///
/// # Errors
/// A chart, table or strip that can't be shown; the error names it.
pub fn html(page: &Page) -> Result<String> {
    template::render("page.html", PageView::new(page)?)
}

/// The fields of `page.html`.
#[derive(Serialize)]
struct PageView<'a> {
    title: &'a str,
    lead: Vec<&'a str>,
    facts: &'a [(String, String)],
    fonts: [FontView; 2],
    sections: Vec<SectionView<'a>>,
}

#[derive(Serialize)]
struct SectionView<'a> {
    title: &'a str,
    text: Vec<&'a str>,
    /// As SVG.
    charts: Vec<String>,
    strips: Vec<StripView<'a>>,
    tables: Vec<TableView<'a>>,
    cards: &'a [Card],
    notes: &'a [String],
}

/// A face of the charts' font. The page carries it, so that labels are as wide as they were when they were placed.
#[derive(Serialize)]
struct FontView {
    weight: u32,
    base64: String,
}

#[derive(Serialize)]
struct TableView<'a> {
    caption: &'a str,
    columns: &'a [Column],
    rows: Vec<Vec<String>>,
}

impl<'a> PageView<'a> {
    fn new(page: &'a Page) -> Result<PageView<'a>> {
        Ok(PageView {
            title: &page.title,
            lead: paragraphs(&page.lead),
            facts: &page.facts,
            fonts: [(400, REGULAR), (700, BOLD)]
                .map(|(weight, bytes)| FontView { weight, base64: BASE64_STANDARD.encode(bytes) }),
            sections: page.sections.iter().map(SectionView::new).collect::<Result<_>>()?,
        })
    }
}

impl<'a> SectionView<'a> {
    fn new(section: &'a Section) -> Result<SectionView<'a>> {
        Ok(SectionView {
            title: &section.title,
            text: paragraphs(&section.text),
            charts: section.charts.iter().map(svg).collect::<Result<_>>()?,
            strips: section.strips.iter().map(StripView::new).collect::<Result<_>>()?,
            tables: section.tables.iter().map(TableView::new).collect::<Result<_>>()?,
            cards: &section.cards,
            notes: &section.notes,
        })
    }
}

impl<'a> TableView<'a> {
    fn new(table: &'a Table) -> Result<TableView<'a>> {
        // Spaces as wide as a digit and as a point keep the points in line in a font with tabular digits.
        let rows = table.aligned_rows(['\u{2007}', '\u{2008}'])?;
        Ok(TableView { caption: &table.caption, columns: &table.columns, rows })
    }
}

/// The parts of `text` between blank lines.
fn paragraphs(text: &str) -> Vec<&str> {
    text.split("\n\n").map(str::trim).filter(|part| !part.is_empty()).collect()
}

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
    fn the_style_sheet_and_the_fonts_are_in_the_page() {
        let html = html(&Page::default()).unwrap();
        // A TrueType file begins with the bytes 0, 1, 0, 0.
        assert_eq!(html.matches("url(data:font/ttf;base64,AAEAAA").count(), 2);
        assert!(html.contains("font: 16px/1.55 Inter, system-ui, \"Helvetica Neue\", Arial, sans-serif;"));
    }

    #[test]
    fn tables_are_escaped_and_their_points_align() {
        let columns = vec![Column::text("a<b"), Column::numbers("value")];
        let rows = vec![vec!["<script>".to_string(), "1.25".to_string()], vec!["&".into(), "3".into()]];
        let table = Table { caption: "\"T\"".into(), columns, rows };
        let section = Section { tables: vec![table], ..Section::default() };
        let html = html(&Page { sections: vec![section], ..Page::default() }).unwrap();
        assert!(!html.contains("<script>") && html.contains("<td>&lt;script&gt;</td>"));
        assert!(html.contains("a&lt;b") && html.contains("&quot;T&quot;"));
        assert!(html.contains("<td class=\"number\">3\u{2008}\u{2007}\u{2007}</td>"));
    }
}
