//! Message spans: the byte ranges of each message's content in the text that a chat template renders.
//!
//! Messages and a renderer in, text and spans out. The template locates them itself: each content is rendered between
//! sentinels, private-use characters that occur nowhere else, and the sentinels are found in the result. With the sentinels
//! removed the result must equal the plain rendering. Where it doesn't (a template that trims, or tests how a message
//! begins), sentinels closer to the content are tried.

use std::ops::Range;

use crate::dialogue::{Message, Role};
use crate::error::{Error, Result};
use crate::model::token::Phase;

/// The tags around a thinking part, as reasoning models write them.
pub(crate) const OPEN: &str = "<think>";
pub(crate) const CLOSE: &str = "</think>";

/// An answer with more tags than this is located in one piece.
const MAX_TAGS: usize = 64;

/// Renders messages (role and content) as text, with or without a generation prompt.
pub(crate) type Render<'a> = dyn Fn(&[(&str, &str)], bool) -> Result<String> + 'a;

/// [`Render`] with the generation prompt fixed.
type RenderMessages<'a> = dyn Fn(&[(&str, &str)]) -> Result<String> + 'a;

/// Content of one message in one phase: a byte range of the rendered text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    pub turn: usize,
    pub phase: Phase,
    pub range: Range<usize>,
}

/// A rendered dialogue, with byte offsets into its text.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub text: String,
    /// Contents of the messages, in order and disjoint. Content that the template drops has no span.
    pub spans: Vec<Span>,
    /// End of each message, including what the template writes after it; then the end of the generation prompt.
    pub turn_ends: Vec<usize>,
    /// End of the template's text before the last answer.
    pub start: Option<usize>,
}

/// Renders a dialogue, with the generation prompt unless it ends with an assistant message, and locates its contents.
///
/// `start` is the end of the generation prompt. In a dialogue that already has its last answer, that is so if the text
/// begins with the same prompt; otherwise `start` is where the content of the answer begins (its thinking tag, if it has
/// one).
///
/// # Errors
/// What `render` refuses, and a template whose messages can't be located.
pub(crate) fn render_with_spans(messages: &[Message], render: &Render) -> Result<Rendered> {
    let plain: Vec<(&str, &str)> = messages.iter().map(|m| (m.role.name(), m.content.as_str())).collect();
    let answered = messages.last().is_some_and(|message| message.role == Role::Assistant);
    let text = render(&plain, !answered)?;
    let mut spans = locate(&text, &plain, &pieces(messages), &|messages| render(messages, !answered))?;
    spans.sort_by_key(|span| span.range.start);
    join(&text, &mut spans);
    for span in spans.iter_mut().filter(|span| span.phase == Phase::Think) {
        // Space before the closing tag belongs to the thinking part: during generation it can't be known to be the last.
        let rest = &text[span.range.end..];
        let space = rest.len() - rest.trim_start().len();
        if rest[space..].starts_with(CLOSE) {
            span.range.end += space;
        }
    }
    let mut turn_ends = turn_ends(&text, &plain, &spans, render, answered);
    let start = if answered {
        let turn = messages.len() - 1;
        let begin = turn.checked_sub(1).map_or(0, |before| turn_ends[before]);
        let prompt = render(&plain[..turn], true).unwrap_or_default();
        answer_start(&text, &prompt, begin, spans.iter().find(|span| span.turn == turn))
    } else {
        turn_ends.push(text.len());
        Some(text.len())
    };
    Ok(Rendered { text, spans, turn_ends, start })
}

/// `start` of [`render_with_spans`]. `begin` is where the turn of the answer begins, `first` its first span.
fn answer_start(text: &str, prompt: &str, begin: usize, first: Option<&Span>) -> Option<usize> {
    let first = first?;
    if text.starts_with(prompt) && (begin + 1..=first.range.start).contains(&prompt.len()) {
        return Some(prompt.len());
    }
    let header = text.get(begin..first.range.start)?;
    let tag = if first.phase == Phase::Think { header.rfind(OPEN) } else { None };
    Some(begin + tag.unwrap_or(header.len()))
}

/// Part of a message in one phase: a range of its content, with and without the space at its ends.
struct Piece {
    turn: usize,
    phase: Phase,
    wide: Range<usize>,
    narrow: Range<usize>,
}

fn pieces(messages: &[Message]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (turn, Message { role, content }) in messages.iter().enumerate() {
        let mut push = |phase, part: Range<usize>| {
            for wide in if phase == Phase::Prompt { vec![part] } else { between_tags(content, part) } {
                let text = &content[wide.clone()];
                let begin = wide.start + text.len() - text.trim_start().len();
                let narrow = begin..begin + text.trim().len();
                if !narrow.is_empty() {
                    pieces.push(Piece { turn, phase, wide, narrow });
                }
            }
        };
        match (role, thinking_part(content)) {
            (Role::Assistant, Some((thought, answer))) => {
                push(Phase::Think, thought);
                push(Phase::Answer, answer);
            }
            (Role::Assistant, None) => push(Phase::Answer, 0..content.len()),
            _ => push(Phase::Prompt, 0..content.len()),
        }
    }
    pieces
}

/// A part of an assistant's content, split at each further tag in it: templates that take what follows the last tag drop
/// what precedes it.
fn between_tags(content: &str, part: Range<usize>) -> Vec<Range<usize>> {
    let text = &content[part.clone()];
    let places = |tag| text.match_indices(tag).map(|(at, found): (usize, &str)| at..at + found.len());
    let mut tags: Vec<Range<usize>> = places(OPEN).chain(places(CLOSE)).collect();
    if tags.len() > MAX_TAGS {
        return vec![part];
    }
    tags.sort_by_key(|tag| tag.start);
    let begins = std::iter::once(0).chain(tags.iter().map(|tag| tag.end));
    let ends = tags.iter().map(|tag| tag.start).chain([text.len()]);
    begins.zip(ends).map(|(begin, end)| part.start + begin..part.start + end).collect()
}

/// Joins the pieces of one part where the template wrote all of it, tags included.
fn join(text: &str, spans: &mut Vec<Span>) {
    spans.dedup_by(|next, span| {
        let between = text.get(span.range.end..next.range.start).unwrap_or_default().trim();
        let one = (span.turn, span.phase) == (next.turn, next.phase) && [OPEN, CLOSE].contains(&between);
        if one {
            span.range.end = next.range.end;
        }
        one
    });
}

/// Ranges of an assistant's content inside and after its thinking part; `None` without one. The opening tag may be missing
/// (the generation prompt wrote it), and so may the closing one (generation ended first).
fn thinking_part(content: &str) -> Option<(Range<usize>, Range<usize>)> {
    let space = content.len() - content.trim_start().len();
    let opened = content[space..].starts_with(OPEN);
    let begin = if opened { space + OPEN.len() } else { 0 };
    match content[begin..].find(CLOSE) {
        Some(length) => {
            let end = begin + length;
            Some((begin..end, end + CLOSE.len()..content.len()))
        }
        None => opened.then_some((begin..content.len(), content.len()..content.len())),
    }
}

/// The spans of the pieces in `text`.
fn locate(
    text: &str,
    messages: &[(&str, &str)],
    pieces: &[Piece],
    render: &RenderMessages,
) -> Result<Vec<Span>> {
    let not_located = |place: String| {
        let found =
            "the chat template changes the content, so that its tokens can't be told from the template's";
        Error::input(place, found, "a template that writes each message once and unchanged")
    };
    let used =
        |mark: &char| text.contains(*mark) || messages.iter().any(|(_, content)| content.contains(*mark));
    let mut sentinels = ('\u{e000}'..='\u{f8ff}').chain('\u{f0000}'..='\u{ffffd}');
    let sentinel = sentinels.find(|mark| !used(mark)).ok_or_else(|| not_located("messages".into()))?;
    let attempt = |ranges: &[Option<Range<usize>>]| {
        locate_with_sentinels(text, sentinel, messages, pieces, ranges, render)
    };
    let to_spans = |found: Vec<Option<Range<usize>>>| -> Vec<Option<Span>> {
        let span = |(piece, range): (&Piece, Option<Range<usize>>)| {
            Some(Span { turn: piece.turn, phase: piece.phase, range: range? })
        };
        pieces.iter().zip(found).map(span).collect()
    };

    let all = |range: fn(&Piece) -> &Range<usize>| -> Vec<Option<Range<usize>>> {
        pieces.iter().map(|piece| Some(range(piece).clone())).collect()
    };
    if let Some(found) = attempt(&all(|piece| &piece.wide)) {
        return Ok(to_spans(found).into_iter().flatten().collect());
    }
    // The template trims, or it tests how some message begins or ends: that message gets no sentinels.
    let mut ranges = all(|piece| &piece.narrow);
    let mut found = attempt(&ranges);
    if found.is_none() {
        for index in 0..pieces.len() {
            let mut alone = vec![None; pieces.len()];
            alone[index] = ranges[index].clone();
            if attempt(&alone).is_none() {
                ranges[index] = None;
            }
        }
        found = attempt(&ranges);
    }
    let mut found = found.ok_or_else(|| not_located("messages".into()))?;
    for (index, piece) in pieces.iter().enumerate() {
        // Either end may keep its space.
        for end in [piece.narrow.start..piece.wide.end, piece.wide.start..piece.narrow.end] {
            let Some(tried) = ranges[index].clone() else { break };
            let wider = tried.start.min(end.start)..tried.end.max(end.end);
            if wider != tried {
                ranges[index] = Some(wider);
                match attempt(&ranges) {
                    Some(better) => found = better,
                    None => ranges[index] = Some(tried),
                }
            }
        }
    }
    let mut spans = to_spans(found);
    for (index, piece) in pieces.iter().enumerate().filter(|(index, _)| ranges[*index].is_none()) {
        // Without sentinels, the content must occur exactly once between its neighbours.
        let before = spans[..index].iter().rev().flatten().next().map_or(0, |span| span.range.end);
        let after = spans[index..].iter().flatten().next().map_or(text.len(), |span| span.range.start);
        let content = &messages[piece.turn].1[piece.narrow.clone()];
        let mut places = text.get(before..after).unwrap_or_default().match_indices(content);
        let (Some((place, _)), None) = (places.next(), places.next()) else {
            return Err(not_located(format!("message {}", piece.turn)));
        };
        let begin = before + place;
        let range = begin..begin + content.len();
        spans[index] = Some(Span { turn: piece.turn, phase: piece.phase, range });
    }
    Ok(spans.into_iter().flatten().collect())
}

/// Renders with sentinels around `ranges` of the pieces, and gives the range of each in `text`, if the template writes it.
/// `None` if the sentinels change the rendering or come out of order.
fn locate_with_sentinels(
    text: &str,
    sentinel: char,
    messages: &[(&str, &str)],
    pieces: &[Piece],
    ranges: &[Option<Range<usize>>],
    render: &RenderMessages,
) -> Option<Vec<Option<Range<usize>>>> {
    let mut contents: Vec<String> = messages.iter().map(|(_, content)| (*content).to_owned()).collect();
    // From the last to the first, so that earlier offsets stay valid.
    for (index, piece) in pieces.iter().enumerate().rev() {
        let Some(range) = &ranges[index] else { continue };
        contents[piece.turn].insert_str(range.end, &format!("{sentinel}{}{sentinel}", 2 * index + 1));
        contents[piece.turn].insert_str(range.start, &format!("{sentinel}{}{sentinel}", 2 * index));
    }
    let messages: Vec<(&str, &str)> =
        messages.iter().zip(&contents).map(|((role, _), content)| (*role, content.as_str())).collect();
    let rendered = render(&messages).ok()?;

    let mut places: Vec<Option<usize>> = vec![None; 2 * pieces.len()];
    let mut plain = String::with_capacity(text.len());
    for (index, part) in rendered.split(sentinel).enumerate() {
        if index % 2 == 0 {
            plain.push_str(part);
        } else {
            let place = places.get_mut(part.parse::<usize>().ok()?)?;
            if place.replace(plain.len()).is_some() {
                return None;
            }
        }
    }
    if plain != text {
        return None;
    }
    let mut found = Vec::with_capacity(pieces.len());
    for ends in places.chunks(2) {
        found.push(match (ends[0], ends[1]) {
            (Some(begin), Some(end)) if begin <= end => Some(begin..end),
            (None, None) => None,
            _ => return None,
        });
    }
    let mut ranges: Vec<&Range<usize>> = found.iter().flatten().collect();
    ranges.sort_by_key(|range| range.start);
    ranges.is_sorted_by(|a, b| a.end <= b.start).then_some(found)
}

/// The end of each message: the length of the rendering of all messages up to it, if the whole text begins with that
/// rendering. A template that writes a message differently when others follow may still write the same after it; failing
/// that, the message ends with its content.
fn turn_ends(
    text: &str,
    messages: &[(&str, &str)],
    spans: &[Span],
    render: &Render,
    answered: bool,
) -> Vec<usize> {
    let mut ends: Vec<usize> = Vec::with_capacity(messages.len() + 1);
    for turn in 0..messages.len() {
        if answered && turn + 1 == messages.len() {
            ends.push(text.len());
            break;
        }
        let last = spans.iter().filter(|span| span.turn <= turn).max_by_key(|span| span.range.end);
        let earliest = last.map_or(0, |span| span.range.end).max(ends.last().copied().unwrap_or(0));
        let next = spans.iter().filter(|span| span.turn > turn).map(|span| span.range.start).min();
        let latest = next.unwrap_or(text.len());
        let alone = render(&messages[..=turn], false).unwrap_or_default();
        let after =
            last.and_then(|span| alone.rsplit_once(&text[span.range.clone()])).map(|(_, after)| after);
        ends.push(match after {
            _ if text.starts_with(&alone) && (earliest..=latest).contains(&alone.len()) => alone.len(),
            Some(after) if text[earliest..].starts_with(after) && earliest + after.len() <= latest => {
                earliest + after.len()
            }
            _ => earliest,
        });
    }
    ends
}
