//! Marks: whose, which turn's and which phase's every token is; for a whole dialogue, and for one that a model is
//! still writing. Both mark a finished answer alike. It knows nothing of templates.
//!
//! Inside `<think>…</think>` is the thinking part, after it the answer, and the brackets themselves are template.
//! Tokens of mere space before the first word of either are template too (models write newlines after a bracket);
//! space anywhere else belongs to the part in which it stands. A token that lies half in a message's words is theirs.

use std::collections::HashMap;

use super::spans::{CLOSE, OPEN, Rendered, Span};
use super::tokens::{Phase, Token};
use super::vocabulary::{Piece, Vocabulary};
use crate::dialogue::{Message, Role};

/// The tokens of a rendered dialogue, marked. `pieces` are those of its text.
pub(super) fn mark(
    pieces: &[Piece],
    rendered: &Rendered,
    messages: &[Message],
    row: usize,
    vocabulary: &Vocabulary,
) -> Vec<Token> {
    // Whether a word of the span was seen.
    let mut begun = vec![false; rendered.spans.len()];
    let mut counts = Counts::default();
    let mut tokens = Vec::with_capacity(pieces.len());
    for (position, piece) in pieces.iter().enumerate() {
        let overlaps = |span: &Span| {
            let until = piece.range.end.max(piece.range.start + 1);
            piece.range.start < span.range.end && span.range.start < until
        };
        let span = rendered.spans.iter().position(|span| !piece.added && overlaps(span));
        let said = span.filter(|&index| {
            let blank = rendered.spans[index].phase != Phase::Prompt && vocabulary.is_blank(piece.id);
            begun[index] |= !blank;
            begun[index]
        });
        let turn = match span {
            Some(index) => rendered.spans[index].turn,
            None => {
                let ends = &rendered.turn_ends;
                let turn = ends.iter().position(|&end| piece.range.start < end);
                // What the tokenizer adds at the end of a text.
                turn.or_else(|| ends.iter().position(|&end| piece.range.start <= end)).unwrap_or(0)
            }
        };
        let phase = said.map_or(Phase::Template, |index| rendered.spans[index].phase);
        tokens.push(Token {
            id: piece.id,
            row,
            position,
            // After the last message comes the assistant's, which the generation prompt opens.
            role: messages.get(turn).map_or(Role::Assistant, |message| message.role),
            turn,
            phase,
            index: counts.next(turn, phase),
            start: false,
            generated: false,
        });
    }
    if let Some(start) = rendered.start {
        let before = |piece: &Piece| piece.range.start < start || piece.range.end <= start;
        let last = (0..tokens.len()).rfind(|&at| !tokens[at].is_content() && before(&pieces[at]));
        if let Some(last) = last {
            tokens[last].start = true;
        }
    }
    tokens
}

/// How many tokens of each turn and phase there were.
#[derive(Clone, Default)]
struct Counts(HashMap<(usize, Phase), usize>);

impl Counts {
    fn next(&mut self, turn: usize, phase: Phase) -> usize {
        let count = self.0.entry((turn, phase)).or_default();
        *count += 1;
        *count - 1
    }
}

/// Which part of its answer a model is writing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    /// Nothing yet: a thinking part may come, or the answer.
    Open,
    Think,
    Answer,
}

/// Marks the tokens that a model writes, one by one.
///
/// A tokenizer that has no token of its own for a bracket of the thinking part writes it in several: then only the
/// one that completes it is known for template, those before it belong to the part that they stand in.
#[derive(Clone)]
pub struct Continuation<'a> {
    vocabulary: &'a Vocabulary,
    eos: &'a [u32],
    brackets: [Option<u32>; 2],
    part: Part,
    /// Whether the part has a word already.
    begun: bool,
    /// The last characters written, where brackets are several tokens.
    tail: String,
    counts: Counts,
    row: usize,
    turn: usize,
    /// The next token's.
    position: usize,
}

impl<'a> Continuation<'a> {
    /// Goes on after `prompt`, one row's tokens: in the assistant's message that the prompt has opened, or else in a
    /// new one.
    pub(super) fn new(vocabulary: &'a Vocabulary, eos: &'a [u32], prompt: &[Token]) -> Continuation<'a> {
        let last = prompt.last();
        let turn = last.map_or(0, |last| last.turn + usize::from(last.role != Role::Assistant));
        let mut counts = Counts::default();
        let mut template = String::new();
        let (mut thought, mut answered) = (false, false);
        for token in prompt.iter().filter(|token| token.turn == turn) {
            counts.next(turn, token.phase);
            match token.phase {
                Phase::Template => template += &vocabulary.decode(&[token.id], false).unwrap_or_default(),
                Phase::Think => thought = true,
                Phase::Answer | Phase::Prompt => answered = true,
            }
        }
        let (part, begun) = match (template.rfind(OPEN), template.rfind(CLOSE)) {
            _ if answered => (Part::Answer, true),
            (Some(open), close) if close.is_none_or(|close| close < open) => (Part::Think, thought),
            (_, Some(_)) => (Part::Answer, false),
            _ => (Part::Open, false),
        };
        Continuation {
            vocabulary,
            eos,
            brackets: [OPEN, CLOSE].map(|bracket| vocabulary.id(bracket)),
            part,
            begun,
            tail: String::new(),
            counts,
            row: last.map_or(0, |last| last.row),
            turn,
            position: last.map_or(0, |last| last.position + 1),
        }
    }

    /// The token that the model writes next, marked.
    pub fn next(&mut self, id: u32) -> Token {
        let phase = self.phase(id);
        self.position += 1;
        Token {
            id,
            row: self.row,
            position: self.position - 1,
            role: Role::Assistant,
            turn: self.turn,
            phase,
            index: self.counts.next(self.turn, phase),
            start: false,
            generated: true,
        }
    }

    fn phase(&mut self, id: u32) -> Phase {
        let part = self.part;
        let next = match part {
            Part::Open => self.completes(0, id).then_some(Part::Think),
            Part::Think => self.completes(1, id).then_some(Part::Answer),
            Part::Answer => None,
        };
        if let Some(next) = next {
            (self.part, self.begun) = (next, false);
            self.tail.clear();
            return Phase::Template;
        }
        if self.eos.contains(&id) || self.vocabulary.is_control(id) {
            return Phase::Template;
        }
        self.begun |= !self.vocabulary.is_blank(id);
        if !self.begun {
            return Phase::Template;
        }
        match self.part {
            Part::Think => Phase::Think,
            Part::Answer => Phase::Answer,
            // A bracket of several tokens may still be in the making; it has to come first.
            Part::Open => {
                let said = self.tail.trim_start();
                if self.brackets[0].is_some() || !OPEN.starts_with(said) {
                    self.part = Part::Answer;
                }
                Phase::Answer
            }
        }
    }

    /// Whether this token is, or completes, the opening (0) or closing (1) bracket.
    fn completes(&mut self, which: usize, id: u32) -> bool {
        if let Some(bracket) = self.brackets[which] {
            return id == bracket;
        }
        self.tail += &self.vocabulary.decode(&[id], false).unwrap_or_default();
        let kept = self.tail.ceil_char_boundary(self.tail.len().saturating_sub(64));
        self.tail.drain(..kept);
        let said = self.tail.trim();
        if which == 0 { said == OPEN } else { said.ends_with(CLOSE) }
    }
}
