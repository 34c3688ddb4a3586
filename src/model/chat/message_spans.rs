//! Message spans: the byte ranges of each message's content in the text that a chat template renders.
//!
//! Messages and a renderer in, text and spans out. The template locates them itself: each content is rendered between
//! sentinels, private-use characters that occur nowhere else, and the sentinels are found in the result. With the sentinels
//! removed the result must equal the plain rendering. Where it doesn't (a template that trims, or tests how a message
//! begins), sentinels closer to the content are tried.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use serde_json::Value;

use crate::dialogue::{Message, Role};
use crate::error::{Error, Result};
use crate::model::token::Phase;

/// The tags around a thinking part, as reasoning models write them.
pub(crate) const OPEN: &str = "<think>";
pub(crate) const CLOSE: &str = "</think>";

/// An answer with more tags than this is located in one piece.
const MAX_TAGS: usize = 64;

/// Fields that hold an assistant's reasoning. Each template reads one of them; the first is the usual one.
pub(crate) const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Fields of a message with calls of tools.
pub(crate) const CALLS: [&str; 2] = ["tool_calls", "function_call"];

/// Messages with their reasoning under each name that a template may read, as transformers fills them in
/// (`_alias_reasoning_fields` in `chat_template_utils.py`).
pub(crate) fn with_reasoning(messages: &[Message]) -> Vec<Message> {
    let aliased = |message: &Message| {
        let mut message = message.clone();
        let given = |name: &&str| message.fields.get(*name).filter(|value| !value.is_null()).cloned();
        if let Some(reasoning) = REASONING.iter().find_map(given) {
            message.fields.entry("thinking").or_insert_with(|| reasoning.clone());
            message.fields.insert(REASONING[0].into(), reasoning);
        }
        message
    };
    messages.iter().map(aliased).collect()
}

/// Pieces up to which each is tried alone; of more, those of one kind are tried together, so that a dialogue of thousands of
/// messages takes a few renderings.
const MAX_ALONE: usize = 64;

/// Messages whose end is found by rendering the dialogue up to it; of later ones, only where the text between two messages is
/// new.
const MAX_PREFIXES: usize = 32;

/// Renders messages as text, with or without a generation prompt.
pub(crate) type Render<'a> = dyn Fn(&[Message], bool) -> Result<String> + 'a;

/// [`Render`] with the generation prompt fixed.
type RenderMessages<'a> = dyn Fn(&[Message]) -> Result<String> + 'a;

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
    let answered = messages.last().is_some_and(|message| message.role == Role::Assistant);
    let text = render(messages, !answered)?;
    let pieces = pieces(messages);
    let mut spans = locate(&text, messages, &pieces, &|messages| render(messages, !answered))?;
    spans.sort_by_key(|span| span.range.start);
    check_written(&text, messages, &pieces, &spans)?;
    join(&text, &mut spans);
    for span in spans.iter_mut().filter(|span| span.phase == Phase::Think) {
        // Space before the closing tag belongs to the thinking part: during generation it can't be known to be the last.
        let rest = &text[span.range.end..];
        let space = rest.len() - rest.trim_start().len();
        if rest[space..].starts_with(CLOSE) {
            span.range.end += space;
        }
    }
    let mut turn_ends = turn_ends(&text, messages, &spans, render, answered);
    let start = if answered {
        let turn = messages.len() - 1;
        let begin = turn.checked_sub(1).map_or(0, |before| turn_ends[before]);
        let prompt = render(&messages[..turn], true).unwrap_or_default();
        answer_start(&text, &prompt, begin, spans.iter().find(|span| span.turn == turn))
    } else {
        turn_ends.push(text.len());
        Some(text.len())
    };
    Ok(Rendered { text, spans, turn_ends, start })
}

/// Refuses a text that lacks the content of a user, of an assistant or of a role that few templates know (`developer`), or has it
/// only changed. The thinking part may be missing, and so may text before a further thinking tag, and what an assistant says
/// beside calls of tools.
fn check_written(text: &str, messages: &[Message], pieces: &[Piece], spans: &[Span]) -> Result<()> {
    let mut written = vec![false; messages.len()];
    let content = |piece: &Piece| &text_of(&messages[piece.turn], piece.reasoning)[piece.narrow.clone()];
    let mut spans_of: HashMap<usize, Vec<&Span>> = HashMap::new();
    spans.iter().for_each(|span| spans_of.entry(span.turn).or_default().push(span));
    let must_be_written = |piece: &&Piece| {
        let message = &messages[piece.turn];
        let calls = CALLS.iter().any(|name| message.fields.get(*name).is_some_and(|calls| !calls.is_null()));
        let is_usual = message.role_name() == message.role.name();
        let must = !is_usual || matches!(message.role, Role::User | Role::Assistant);
        piece.phase != Phase::Think && must && !calls
    };
    // The last piece of each message decides.
    for piece in pieces.iter().rev().filter(must_be_written) {
        if std::mem::replace(&mut written[piece.turn], true) {
            continue;
        }
        let content = content(piece);
        let own = spans_of.get(&piece.turn).into_iter().flatten();
        let mut own = own.map(|span| &text[span.range.clone()]);
        if !own.any(|own| own.contains(content)) && !text.contains(content) {
            let found = format!(
                "the chat template drops or changes what the {} says",
                messages[piece.turn].role_name()
            );
            let expected = "a template that writes each message once and unchanged";
            return Err(Error::input(format!("message {}", piece.turn), found, expected));
        }
    }
    Ok(())
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
    /// Whether it is in the fields for reasoning rather than in the content.
    reasoning: bool,
    phase: Phase,
    wide: Range<usize>,
    narrow: Range<usize>,
}

fn pieces(messages: &[Message]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (turn, message) in messages.iter().enumerate() {
        let Message { role, content, .. } = message;
        if *role == Role::Assistant {
            let text = text_of(message, true);
            if let Some(narrow) = trimmed(text, &(0..text.len())) {
                pieces.push(Piece {
                    turn,
                    reasoning: true,
                    phase: Phase::Think,
                    wide: 0..text.len(),
                    narrow,
                });
            }
        }
        let mut push = |phase, part: Range<usize>| {
            for wide in if phase == Phase::Prompt { vec![part] } else { between_tags(content, part) } {
                if let Some(narrow) = trimmed(content, &wide) {
                    pieces.push(Piece { turn, reasoning: false, phase, wide, narrow });
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

/// The text of a message's reasoning, or of its content.
fn text_of(message: &Message, reasoning: bool) -> &str {
    match reasoning {
        false => &message.content,
        true => message.fields.get(REASONING[0]).and_then(Value::as_str).unwrap_or_default(),
    }
}

/// A range of a text without the space at its ends; `None` where nothing is left.
fn trimmed(text: &str, range: &Range<usize>) -> Option<Range<usize>> {
    let text = &text[range.clone()];
    let begin = range.start + text.len() - text.trim_start().len();
    let end = begin + text.trim().len();
    (begin < end).then_some(begin..end)
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
pub(super) fn thinking_part(content: &str) -> Option<(Range<usize>, Range<usize>)> {
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
fn locate(text: &str, messages: &[Message], pieces: &[Piece], render: &RenderMessages) -> Result<Vec<Span>> {
    let not_located = |place: String| {
        let found =
            "the chat template changes the content, so that its tokens can't be told from the template's";
        Error::input(place, found, "a template that writes each message once and unchanged")
    };
    let has =
        |message: &Message, mark| message.content.contains(mark) || text_of(message, true).contains(mark);
    let used = |mark: &char| text.contains(*mark) || messages.iter().any(|message| has(message, *mark));
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
        for group in groups(messages, pieces) {
            let mut alone = vec![None; pieces.len()];
            group.iter().for_each(|&index| alone[index] = ranges[index].clone());
            if attempt(&alone).is_none() {
                group.iter().for_each(|&index| ranges[index] = None);
            }
        }
        found = attempt(&ranges);
    }
    let mut found = found.ok_or_else(|| not_located("messages".into()))?;
    for group in groups(messages, pieces) {
        // Either end may keep its space.
        let ends: [fn(&Piece) -> Range<usize>; 2] =
            [|piece| piece.narrow.start..piece.wide.end, |piece| piece.wide.start..piece.narrow.end];
        for end in ends {
            let mut wider = ranges.clone();
            for &index in &group {
                let end = end(&pieces[index]);
                if let Some(range) = &mut wider[index] {
                    *range = range.start.min(end.start)..range.end.max(end.end);
                }
            }
            if wider != ranges
                && let Some(better) = attempt(&wider)
            {
                (found, ranges) = (better, wider);
            }
        }
    }
    let mut spans = to_spans(found);
    for (index, piece) in pieces.iter().enumerate().filter(|(index, _)| ranges[*index].is_none()) {
        // Without sentinels, the content must occur exactly once between its neighbours.
        let before = spans[..index].iter().rev().flatten().next().map_or(0, |span| span.range.end);
        let after = spans[index..].iter().flatten().next().map_or(text.len(), |span| span.range.start);
        let content = &text_of(&messages[piece.turn], piece.reasoning)[piece.narrow.clone()];
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

/// Pieces that are tried together: each alone, or in a long dialogue those of one role and field.
fn groups(messages: &[Message], pieces: &[Piece]) -> Vec<Vec<usize>> {
    if pieces.len() <= MAX_ALONE {
        return (0..pieces.len()).map(|index| vec![index]).collect();
    }
    let mut groups: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, piece) in pieces.iter().enumerate() {
        let key = (messages[piece.turn].role_name(), piece.reasoning, piece.phase == Phase::Think);
        groups.entry(key).or_default().push(index);
    }
    groups.into_values().collect()
}

/// Renders with sentinels around `ranges` of the pieces, and gives the range of each in `text`, if the template writes it.
/// `None` if the sentinels change the rendering or come out of order.
fn locate_with_sentinels(
    text: &str,
    sentinel: char,
    messages: &[Message],
    pieces: &[Piece],
    ranges: &[Option<Range<usize>>],
    render: &RenderMessages,
) -> Option<Vec<Option<Range<usize>>>> {
    let mut written = messages.to_vec();
    // From the last to the first, so that earlier offsets stay valid.
    for (index, piece) in pieces.iter().enumerate().rev() {
        let Some(range) = &ranges[index] else { continue };
        let mark = |text: &mut String| {
            text.insert_str(range.end, &format!("{sentinel}{}{sentinel}", 2 * index + 1));
            text.insert_str(range.start, &format!("{sentinel}{}{sentinel}", 2 * index));
        };
        if !piece.reasoning {
            mark(&mut written[piece.turn].content);
            continue;
        }
        // Every copy, because any of them may be the one that the template writes.
        let reasoning = text_of(&messages[piece.turn], true);
        for name in REASONING {
            if let Some(Value::String(text)) = written[piece.turn].fields.get_mut(name)
                && text == reasoning
            {
                mark(text);
            }
        }
    }
    let rendered = render(&written).ok()?;

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
    messages: &[Message],
    spans: &[Span],
    render: &Render,
    answered: bool,
) -> Vec<usize> {
    let mut ends: Vec<usize> = Vec::with_capacity(messages.len() + 1);
    // For the roles of two messages and the text between them, how much of it belongs to the first.
    let mut known: HashMap<(&str, Option<&str>, &str), usize> = HashMap::new();
    // Spans of messages up to this one. They are in the order of the text, which a template may change.
    let mut last_of = vec![None; messages.len()];
    let mut first_of = vec![text.len(); messages.len() + 1];
    for (index, span) in spans.iter().enumerate() {
        last_of[span.turn] = Some(index);
        first_of[span.turn] = first_of[span.turn].min(span.range.start);
    }
    for turn in (0..messages.len()).rev() {
        first_of[turn] = first_of[turn].min(first_of[turn + 1]);
    }
    let mut last: Option<usize> = None;
    for turn in 0..messages.len() {
        if answered && turn + 1 == messages.len() {
            ends.push(text.len());
            break;
        }
        last = last.max(last_of[turn]);
        let span = last.map(|index| &spans[index]);
        let earliest = span.map_or(0, |span| span.range.end).max(ends.last().copied().unwrap_or(0));
        let latest = first_of[turn + 1];
        let between = text.get(earliest..latest).unwrap_or_default();
        let key = (messages[turn].role_name(), messages.get(turn + 1).map(Message::role_name), between);
        if turn >= MAX_PREFIXES
            && let Some(length) = known.get(&key)
        {
            ends.push(earliest + length);
            continue;
        }
        let alone = render(&messages[..=turn], false).unwrap_or_default();
        let after =
            span.and_then(|span| alone.rsplit_once(&text[span.range.clone()])).map(|(_, after)| after);
        let end = match after {
            _ if text.starts_with(&alone) && (earliest..=latest).contains(&alone.len()) => alone.len(),
            Some(after) if text[earliest..].starts_with(after) && earliest + after.len() <= latest => {
                earliest + after.len()
            }
            _ => end_without(text, (messages, turn), ends.last().copied(), render, answered)
                .filter(|end| (earliest..=latest).contains(end))
                .unwrap_or(earliest),
        };
        known.insert(key, end - earliest);
        ends.push(end);
    }
    ends
}

/// The end of a message by the dialogue without it: what follows the message before is then what follows this one, unless the template
/// looks further than that.
fn end_without(
    text: &str,
    (messages, turn): (&[Message], usize),
    begin: Option<usize>,
    render: &Render,
    answered: bool,
) -> Option<usize> {
    let begin = begin.unwrap_or(0);
    let without = render(&[&messages[..turn], &messages[turn + 1..]].concat(), !answered).ok()?;
    let is_same = text.get(..begin)? == without.get(..begin)? && text.ends_with(without.get(begin..)?);
    is_same.then(|| text.len() - (without.len() - begin))
}
