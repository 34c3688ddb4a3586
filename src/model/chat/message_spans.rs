//! Where each message's words stand in the text that a chat template makes of a dialogue.
//! It knows nothing of tokens.
//!
//! The template itself says it: each message's content is given to it between marks that occur nowhere else, and the
//! marks are looked for in what it makes. Without them that must be the very text that it makes of the dialogue as it
//! is; where it is not (a template that trims, or asks how a message begins), narrower marks are tried.

use std::ops::Range;

use crate::dialogue::{Message, Role};
use crate::error::{Error, Result};
use crate::model::token::Phase;

/// The brackets of a thinking part, as the models that think write them.
pub(crate) const OPEN: &str = "<think>";
pub(crate) const CLOSE: &str = "</think>";

/// An answer with more brackets than this is taken in one piece.
const MOST_BRACKETS: usize = 64;

/// What turns messages (role and content) into text, with or without a generation prompt.
pub(crate) type Render<'a> = dyn Fn(&[(&str, &str)], bool) -> Result<String> + 'a;

/// The same with the generation prompt settled.
type RenderAlike<'a> = dyn Fn(&[(&str, &str)]) -> Result<String> + 'a;

/// A stretch of text that a message says. Bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    pub turn: usize,
    pub phase: Phase,
    pub range: Range<usize>,
}

/// A dialogue as text, and what its parts are.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub text: String,
    /// What the messages say, in order, apart from each other. What the template leaves out is not here.
    pub spans: Vec<Span>,
    /// Where each message's text ends, what the template writes after it included; and then the generation prompt's.
    pub turn_ends: Vec<usize>,
    /// Where the template stops before the last answer begins.
    pub start: Option<usize>,
}

/// Renders a dialogue, with the generation prompt unless it ends with the assistant's message, and finds its parts.
///
/// `start` is where the generation prompt ends, also in a dialogue that has its last answer already, if that answer's
/// text begins with the same prompt; if not, it is where what the answer says begins (its thinking part's bracket, if
/// it has one).
///
/// # Errors
/// What `render` refuses, and a template that does not let its messages be found again.
pub(crate) fn find(messages: &[Message], render: &Render) -> Result<Rendered> {
    let plain: Vec<(&str, &str)> = messages.iter().map(|m| (m.role.name(), m.content.as_str())).collect();
    let answered = messages.last().is_some_and(|message| message.role == Role::Assistant);
    let text = render(&plain, !answered)?;
    let mut spans = locate(&text, &plain, &pieces(messages), &|messages| render(messages, !answered))?;
    spans.sort_by_key(|span| span.range.start);
    join(&text, &mut spans);
    for span in spans.iter_mut().filter(|span| span.phase == Phase::Think) {
        // The space before the closing bracket belongs to the thinking part, whoever wrote it: a model that is still
        // generating can't know that it was the last.
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

/// See [`find`]. `begin` is where the answer's turn begins, `first` what it says first.
fn answer_start(text: &str, prompt: &str, begin: usize, first: Option<&Span>) -> Option<usize> {
    let first = first?;
    if text.starts_with(prompt) && (begin + 1..=first.range.start).contains(&prompt.len()) {
        return Some(prompt.len());
    }
    let header = text.get(begin..first.range.start)?;
    let bracket = if first.phase == Phase::Think { header.rfind(OPEN) } else { None };
    Some(begin + bracket.unwrap_or(header.len()))
}

/// A part of a message that is of one phase: a range of its content, and the same without the space at its ends.
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
            for wide in if phase == Phase::Prompt { vec![part] } else { between_brackets(content, part) } {
                let said = &content[wide.clone()];
                let begin = wide.start + said.len() - said.trim_start().len();
                let narrow = begin..begin + said.trim().len();
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

/// A part of an assistant's content, cut at each further bracket in it: templates that ask for what stands after the
/// last bracket leave out what stands before.
fn between_brackets(content: &str, part: Range<usize>) -> Vec<Range<usize>> {
    let said = &content[part.clone()];
    let places = |bracket| said.match_indices(bracket).map(|(at, found): (usize, &str)| at..at + found.len());
    let mut brackets: Vec<Range<usize>> = places(OPEN).chain(places(CLOSE)).collect();
    if brackets.len() > MOST_BRACKETS {
        return vec![part];
    }
    brackets.sort_by_key(|bracket| bracket.start);
    let begins = std::iter::once(0).chain(brackets.iter().map(|bracket| bracket.end));
    let ends = brackets.iter().map(|bracket| bracket.start).chain([said.len()]);
    begins.zip(ends).map(|(begin, end)| part.start + begin..part.start + end).collect()
}

/// One part again where the template has written all of it, brackets too.
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

/// The ranges of an assistant's content inside and after its thinking part. The opening bracket may be missing, as it
/// is in what a model says whose generation prompt has it; so may the closing one, when the model did not get so far.
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

fn locate(
    text: &str,
    messages: &[(&str, &str)],
    pieces: &[Piece],
    render: &RenderAlike,
) -> Result<Vec<Span>> {
    let unfound = |place: String| {
        let found =
            "the chat template changes what is said, so that its tokens can't be told from the template's";
        Error::input(place, found, "a template that writes each message once and as it is")
    };
    let used = |mark: &char| text.contains(*mark) || messages.iter().any(|(_, said)| said.contains(*mark));
    // Characters for private use, which no text and no template has a meaning for.
    let mut marks = ('\u{e000}'..='\u{f8ff}').chain('\u{f0000}'..='\u{ffffd}');
    let mark = marks.find(|mark| !used(mark)).ok_or_else(|| unfound("messages".into()))?;
    let attempt = |ranges: &[Option<Range<usize>>]| marked(text, mark, messages, pieces, ranges, render);
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
    // The template trims something. Or it asks how some message begins or ends: then no mark may stand in that one.
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
    let mut found = found.ok_or_else(|| unfound("messages".into()))?;
    for (index, piece) in pieces.iter().enumerate() {
        // Each end may be trimmed or not.
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
        // It stands between its neighbours; there it must be found, and found once.
        let before = spans[..index].iter().rev().flatten().next().map_or(0, |span| span.range.end);
        let after = spans[index..].iter().flatten().next().map_or(text.len(), |span| span.range.start);
        let said = &messages[piece.turn].1[piece.narrow.clone()];
        let mut places = text.get(before..after).unwrap_or_default().match_indices(said);
        let (Some((place, _)), None) = (places.next(), places.next()) else {
            return Err(unfound(format!("message {}", piece.turn)));
        };
        let begin = before + place;
        spans[index] = Some(Span { turn: piece.turn, phase: piece.phase, range: begin..begin + said.len() });
    }
    Ok(spans.into_iter().flatten().collect())
}

/// Renders with marks around these ranges of the pieces, and gives for each where it stands in `text`, if the template
/// writes it. None if the marks change what the template writes, or do not come out in order.
fn marked(
    text: &str,
    mark: char,
    messages: &[(&str, &str)],
    pieces: &[Piece],
    ranges: &[Option<Range<usize>>],
    render: &RenderAlike,
) -> Option<Vec<Option<Range<usize>>>> {
    let mut contents: Vec<String> = messages.iter().map(|(_, said)| (*said).to_owned()).collect();
    // From the last to the first, so that positions still hold.
    for (index, piece) in pieces.iter().enumerate().rev() {
        let Some(range) = &ranges[index] else { continue };
        contents[piece.turn].insert_str(range.end, &format!("{mark}{}{mark}", 2 * index + 1));
        contents[piece.turn].insert_str(range.start, &format!("{mark}{}{mark}", 2 * index));
    }
    let messages: Vec<(&str, &str)> =
        messages.iter().zip(&contents).map(|((role, _), said)| (*role, said.as_str())).collect();
    let rendered = render(&messages).ok()?;

    let mut places: Vec<Option<usize>> = vec![None; 2 * pieces.len()];
    let mut plain = String::with_capacity(text.len());
    for (index, part) in rendered.split(mark).enumerate() {
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

/// Where each message's text ends: where the text of the dialogue up to it does, if that is how the whole text
/// begins. A template that writes a message otherwise when others follow may still write the same after it; else its
/// text ends with what it says.
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
        let said = spans.iter().filter(|span| span.turn <= turn).max_by_key(|span| span.range.end);
        let earliest = said.map_or(0, |span| span.range.end).max(ends.last().copied().unwrap_or(0));
        let next = spans.iter().filter(|span| span.turn > turn).map(|span| span.range.start).min();
        let latest = next.unwrap_or(text.len());
        let alone = render(&messages[..=turn], false).unwrap_or_default();
        let after =
            said.and_then(|span| alone.rsplit_once(&text[span.range.clone()])).map(|(_, after)| after);
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
