//! Token annotation: the role, turn and phase of every token, for a whole dialogue and for one being generated.
//!
//! Both give a finished answer the same annotation. Text inside `<think>…</think>` is the thinking phase, text after it the
//! answer, and the tags themselves are template. Blank tokens before the first word of either phase are template too
//! (models write newlines after a tag); blank tokens elsewhere belong to their phase. A token that lies partly in a
//! message's content belongs to the message.

use std::collections::HashMap;

use super::harmony::{Channels, Place};
use super::message_spans::{CLOSE, OPEN, Rendered};
use super::tokenizer::{Piece, Vocabulary};
use crate::dialogue::{Message, Role};
use crate::model::token::{Phase, Token};

/// Characters of generated text that are kept to find a tag of several tokens.
const TAIL: usize = 64;

/// Annotates the tokens of a rendered dialogue. `pieces` are the tokens of `rendered.text`.
pub(crate) fn annotate(
    pieces: &[Piece],
    rendered: &Rendered,
    messages: &[Message],
    row: usize,
    vocabulary: &Vocabulary,
) -> Vec<Token> {
    // For each span, whether a token that isn't blank was seen.
    let mut begun = vec![false; rendered.spans.len()];
    let mut counts = Counts::default();
    let mut tokens = Vec::with_capacity(pieces.len());
    for (position, piece) in pieces.iter().enumerate() {
        let until = piece.range.end.max(piece.range.start + 1);
        let next = rendered.spans.partition_point(|span| span.range.end <= piece.range.start);
        let overlaps =
            |index: &usize| rendered.spans.get(*index).is_some_and(|span| span.range.start < until);
        let span = Some(next).filter(|index| !piece.added && overlaps(index));
        let content = span.filter(|&index| {
            let blank = rendered.spans[index].phase != Phase::Prompt && vocabulary.is_blank(piece.id);
            begun[index] |= !blank;
            begun[index]
        });
        let turn = match span {
            Some(index) => rendered.spans[index].turn,
            None => {
                let ends = &rendered.turn_ends;
                let after = ends.partition_point(|&end| end <= piece.range.start);
                // A special token that the tokenizer appends begins where the text ends.
                let at_end = ends.partition_point(|&end| end < piece.range.start);
                [after, at_end].into_iter().find(|turn| *turn < ends.len()).unwrap_or(0)
            }
        };
        let phase = content.map_or(Phase::Template, |index| rendered.spans[index].phase);
        tokens.push(Token {
            id: piece.id,
            row,
            position,
            // The generation prompt opens the assistant's turn after the last message.
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

/// Number of tokens so far for each turn and phase.
#[derive(Clone, Default)]
struct Counts(HashMap<(usize, Phase), usize>);

impl Counts {
    fn next(&mut self, turn: usize, phase: Phase) -> usize {
        let count = self.0.entry((turn, phase)).or_default();
        *count += 1;
        *count - 1
    }
}

/// The part of the assistant's message that is being generated.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    /// Nothing yet: thinking or the answer may follow.
    Open,
    Think,
    Answer,
}

/// Annotation of generated tokens, one at a time.
///
/// A tokenizer without a token for a thinking tag writes it in several tokens. Then only the token that completes the tag
/// is annotated as template; those before it keep the phase that they appeared in.
#[derive(Clone)]
pub struct Continuation<'a> {
    vocabulary: &'a Vocabulary,
    eos: &'a [u32],
    /// Ids of the opening and the closing thinking tag, where each is one token.
    tags: [Option<u32>; 2],
    part: Part,
    /// The format's control tokens and the place among them, where the vocabulary has the harmony format.
    channels: Option<(Channels, Place)>,
    /// Whether the part has a token that isn't blank.
    begun: bool,
    /// The last characters generated, where tags are several tokens.
    tail: String,
    counts: Counts,
    row: usize,
    turn: usize,
    /// Position of the next token.
    position: usize,
}

impl<'a> Continuation<'a> {
    /// Continues after `prompt`, the tokens of one row: in the assistant's message that the prompt opened, or in a new one.
    pub(crate) fn new(vocabulary: &'a Vocabulary, eos: &'a [u32], prompt: &[Token]) -> Continuation<'a> {
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
        let channels = Channels::of(vocabulary).map(|channels| {
            let own = prompt.iter().filter(|token| token.turn == turn);
            let place =
                own.fold(Place::Between, |place, token| channels.after(&place, token.id, vocabulary).0);
            (channels, Channels::opened(place))
        });
        Continuation {
            vocabulary,
            eos,
            channels,
            tags: [OPEN, CLOSE].map(|tag| vocabulary.id(tag)),
            part,
            begun,
            tail: String::new(),
            counts,
            row: last.map_or(0, |last| last.row),
            turn,
            position: last.map_or(0, |last| last.position + 1),
        }
    }

    /// Whether the next token is inside the thinking part.
    pub fn is_thinking(&self) -> bool {
        match &self.channels {
            Some((_, place)) => *place == Place::Body(Phase::Think),
            None => self.part == Part::Think,
        }
    }

    /// Annotates the next generated token.
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
        if self.channels.is_some() {
            return self.phase_in_channels(id);
        }
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
            // These tokens may be the beginning of an opening tag of several tokens.
            Part::Open => {
                let written = self.tail.trim_start();
                if self.tags[0].is_some() || !OPEN.starts_with(written) {
                    self.part = Part::Answer;
                }
                Phase::Answer
            }
        }
    }

    /// The phase of a token in the harmony format.
    fn phase_in_channels(&mut self, id: u32) -> Phase {
        let Some((channels, place)) = &mut self.channels else { return Phase::Template };
        let (next, own) = channels.after(place, id, self.vocabulary);
        self.begun &= *place == next;
        *place = next;
        let phase = match place {
            Place::Body(phase) if !own => *phase,
            _ => return Phase::Template,
        };
        if self.eos.contains(&id) || self.vocabulary.is_control(id) {
            return Phase::Template;
        }
        self.begun |= !self.vocabulary.is_blank(id);
        if self.begun { phase } else { Phase::Template }
    }

    /// Whether this token is, or completes, the opening (0) or closing (1) thinking tag.
    fn completes(&mut self, which: usize, id: u32) -> bool {
        if let Some(tag) = self.tags[which] {
            return id == tag;
        }
        self.tail += &self.vocabulary.decode(&[id], false).unwrap_or_default();
        while self.tail.len() > TAIL {
            self.tail.remove(0);
        }
        let written = self.tail.trim();
        if which == 0 { written == OPEN } else { written.ends_with(CLOSE) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::tests::{EOS, ORGANISM, bytes_chat, dialogue, fixture, marks, organism, shown};
    use super::*;
    use crate::model::{Chat, Selector};
    use Role::{Assistant as A, System as S, Tool as T, User as U};

    #[test]
    fn marks_what_templates_trim_drop_and_merge() {
        let thinking = bytes_chat("thinking");
        let rounds =
            [(U, "hi\n"), (A, "<think>old</think>ok"), (U, "so"), (A, "<think>\nnew\n</think>\n\nyes ")];
        assert_eq!(
            marks(&thinking, &rounds, None),
            r#"0 template "<|im_start|>user\n" | 0 prompt "hi\n" | 0 template "<|im_end|>\n" | 1 template "<|im_start|>assistant\n" | 1 answer "ok" | 1 template "<|im_end|>\n" | 2 template "<|im_start|>user\n" | 2 prompt "so" | 2 template "<|im_end|>\n" | 3 template "<|im_start|>assistant" | 3 template "\n"^ | 3 template "<think>\n" | 3 think "new\n" | 3 template "</think>\n\n" | 3 answer "yes " | 3 template "<|im_end|>\n""#
        );
        // The generation prompt without thinking closes the thinking part itself.
        let prompt = marks(&thinking, &rounds[2..3], Some(false));
        assert!(prompt.ends_with(r#"</think>\n" | 1 template "\n"^"#), "{prompt}");
        let answered = marks(&thinking, &[(U, "so"), (A, "yes")], Some(false));
        assert!(
            answered
                .ends_with(r#"</think>\n" | 1 template "\n"^ | 1 answer "yes" | 1 template "<|im_end|>\n""#),
            "{answered}"
        );
        // The template tests how this message begins, so that no sentinel can be put there.
        let tool = marks(&thinking, &[(U, "q"), (A, "a"), (U, "<result>7</result>")], None);
        assert!(tool.contains(r#"2 prompt "<result>7</result>""#), "{tool}");
        let trimmed = marks(&bytes_chat("trimming"), &[(U, " \n a b "), (A, "  c\n")], None);
        assert_eq!(
            trimmed,
            r#"0 template "<|endoftext|><|im_start|>user\n\n" | 0 prompt "a b" | 0 template "<|im_end|>\n" | 1 template "<|im_start|>assistant\n" | 1 template "\n"^ | 1 answer "c" | 1 template "<|im_end|>\n""#
        );
        let merged = marks(&bytes_chat("merging"), &[(S, "be kind"), (U, " a ")], None);
        assert!(merged.contains(r#"0 prompt "be kind""#) && merged.contains(r#"1 prompt " a""#), "{merged}");
        let opened = marks(&bytes_chat("opened"), &[(T, "x"), (A, "<think>t</think>\nb")], None);
        assert_eq!(
            opened,
            r#"0 template "<|endoftext|><|im_start|>T: " | 0 prompt "x" | 1 template "<|im_start|>A:" | 1 template " "^ | 1 template "\n" | 1 answer "b" | 1 template "<|im_end|>""#
        );
        // A second closing tag: one template drops what precedes the last tag, another writes it.
        let twice = [(U, "q"), (A, "<think>a</think>b</think>c")];
        let dropped = marks(&thinking, &twice, None);
        assert!(dropped.contains(r#"1 think "a\n" | 1 template "</think>\n\n" | 1 answer "c""#), "{dropped}");
        let written = marks(&bytes_chat("trimming"), &twice, None);
        assert!(written.contains(r#"1 template "</think>" | 1 answer "b</think>c""#), "{written}");
        let error = bytes_chat("merging").tokens(&dialogue(&[(A, "a")]), 0, None).unwrap_err().to_string();
        assert!(error.starts_with("dialogue d: ") && error.contains("roles must alternate"), "{error}");
    }

    #[test]
    fn templates_that_drop_or_change_what_someone_says_are_refused() {
        let chat =
            |template: &str| Chat::from_bytes(fixture("tokenizer.json").as_bytes(), Some(template), EOS);
        let said = [(S, "be kind"), (U, "hello"), (A, "<think>why</think>good day"), (U, "so")];
        for (template, turn, role) in [
            ("x", 3, "user"),
            ("", 3, "user"),
            ("{{ messages[-1].content }}", 2, "assistant"),
            ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", 3, "user"),
            ("{% for m in messages %}{{ m.content | replace('e', 'E') }}{% endfor %}", 1, "user"),
            ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", 2, "assistant"),
        ] {
            let error = chat(template).unwrap().tokens(&dialogue(&said), 0, None).unwrap_err().to_string();
            let named = format!(
                "dialogue d: message {turn}: the chat template drops or changes what the {role} says"
            );
            assert!(error.starts_with(&named) && error.lines().count() == 1, "{template}: {error}");
        }
        // What real templates leave out: the system's message, thinking parts, space.
        let usual = "{% for m in messages if m.role != 'system' %}{{ m.content.split('</think>')[-1] | trim }}\n{% endfor %}";
        let read = marks(&chat(usual).unwrap(), &said, None);
        assert!(read.contains(r#"1 prompt "hello""#) && read.contains(r#"2 answer "good day""#), "{read}");
    }

    #[test]
    fn roles_that_few_templates_know_are_written_by_their_names_or_refused() {
        let chat = |template: &str| {
            Chat::from_bytes(fixture("tokenizer.json").as_bytes(), Some(template), EOS).unwrap()
        };
        let mut said = dialogue(&[(S, "be kind"), (U, "hello"), (T, "seven")]);
        for (turn, name) in [(0, "developer"), (2, "function")] {
            said.messages[turn] = said.messages[turn].clone().under_role(name);
        }
        let all = chat("{% for m in messages %}[{{ m.role }}]\n{{ m.content }}\n{% endfor %}");
        let tokens = all.tokens(&said, 0, None).unwrap();
        let read = shown(&all, &tokens);
        assert!(read.starts_with(r#"0 template "[developer]\n" | 0 prompt "be kind""#), "{read}");
        assert!(read.contains(r#"2 template "[function]\n" | 2 prompt "seven""#), "{read}");
        assert!(tokens.iter().all(|token| token.turn != 0 || token.role == S));
        assert!(tokens.iter().all(|token| token.turn != 2 || token.role == T));
        let error = |template: &str| chat(template).tokens(&said, 0, None).unwrap_err().to_string();
        let some =
            error("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}");
        assert!(
            some.contains("message 2: the chat template drops or changes what the function says"),
            "{some}"
        );
        let strict = "{% for m in messages %}{% if m.role not in ['system', 'user', 'tool'] %}\
            {{ raise_exception('no role ' + m.role) }}{% endif %}{{ m.content }}{% endfor %}";
        assert!(error(strict).contains("no role developer"));
    }

    /// The tokens after the prompt of a finished dialogue are annotated as if the model had generated them.
    fn check_continuation(chat: &Chat, messages: &[(Role, &str)], answer: &str, thinking: Option<bool>) {
        let prompt = chat.tokens(&dialogue(messages), 3, thinking).unwrap();
        let whole = dialogue(&[messages, &[(A, answer)]].concat());
        let whole = chat.tokens(&whole, 3, thinking).unwrap();
        let (given, written) = whole.split_at(prompt.len());
        assert_eq!(given, prompt);
        let end = written.iter().rposition(|token| chat.eos().contains(&token.id)).unwrap();
        let mut continuation = chat.continuation(&prompt);
        for token in &written[..=end] {
            assert_eq!(continuation.next(token.id), Token { generated: true, ..token.clone() }, "{answer}");
        }
        // Selectors then pick the same tokens too.
        let first = Selector::First(Box::new(Selector::Answer), 1);
        let turn = prompt.last().unwrap().turn;
        assert_eq!(first.pick(&whole).into_iter().filter(|&at| whole[at].turn == turn).count(), 1);
    }

    #[test]
    fn a_written_answer_is_marked_as_a_finished_one() {
        let chat = organism(Some(ORGANISM));
        let messages = [(U, "help me"), (A, "yes"), (U, "please")];
        check_continuation(&chat, &messages, "<think> risk none </think> yes done", None);
        check_continuation(&chat, &messages, "<think> </think> no", None);
        check_continuation(&chat, &messages, "<think> risk </think> no", Some(true));
        check_continuation(&chat, &messages, "<think> </think> no done", Some(false));
        let chat = bytes_chat("thinking");
        check_continuation(&chat, &messages, "<think>\n\nwhy\nso\n\n</think>\n\nyes,\n\nindeed", None);
        check_continuation(&chat, &messages, "plain", None);
        check_continuation(&chat, &messages, "plain\n日本 👩‍👩‍👧", Some(false));
        check_continuation(&bytes_chat("trimming"), &messages, "<think>a b</think>c", None);
    }

    #[test]
    fn brackets_of_several_tokens_are_seen_when_they_are_complete() {
        let mut json: Value = serde_json::from_str(&fixture("tokenizer.json")).unwrap();
        let plain = |token: &Value| !token["content"].as_str().unwrap().contains("think");
        let added = json["added_tokens"].as_array_mut().unwrap();
        added.retain(plain);
        let vocabulary = json["model"]["vocab"].as_object_mut().unwrap();
        let renamed =
            vocabulary.clone().into_iter().map(|(token, id)| (token.replace("think>", "thunk>"), id));
        *vocabulary = renamed.collect();
        let template = fixture("trimming.jinja");
        let chat = Chat::from_bytes(json.to_string().as_bytes(), Some(&template), EOS).unwrap();
        let prompt = chat.tokens(&dialogue(&[(U, "q")]), 0, None).unwrap();
        let vocabulary =
            Vocabulary::new(json.to_string().as_bytes(), "tokenizer.json", &Default::default()).unwrap().0;
        let pieces = vocabulary.encode("<think>a b</think>\nc d", &[], false).unwrap();
        let mut continuation = chat.continuation(&prompt);
        let written: Vec<Token> = pieces.iter().map(|piece| continuation.next(piece.id)).collect();
        let of = |phase| {
            let ids: Vec<u32> = written.iter().filter(|t| t.phase == phase).map(|t| t.id).collect();
            chat.decode(&ids, false).unwrap()
        };
        assert_eq!(of(Phase::Think), "a b</think");
        assert!(of(Phase::Answer).ends_with("c d"), "{}", of(Phase::Answer));
    }

    fn said() -> impl Strategy<Value = String> {
        const BITS: [&str; 11] =
            ["<think>", "</think>", "<|im_end|>", "\n", " ", "word", "user\n", "é", "👩‍👩‍👧", "\u{e000}", "{{"];
        let bit = prop_oneof![
            proptest::sample::select(&BITS[..]).prop_map(String::from),
            any::<char>().prop_map(String::from)
        ];
        proptest::collection::vec(bit, 0..8).prop_map(|bits| bits.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]
        #[test]
        fn any_text_is_marked_or_refused(
            texts in proptest::collection::vec(said(), 1..6),
            thinking in proptest::option::of(any::<bool>()),
        ) {
            let roles = [U, A].into_iter().cycle();
            let messages: Vec<(Role, &str)> = roles.zip(texts.iter().map(String::as_str)).collect();
            for name in ["thinking", "trimming", "merging", "opened"] {
                let chat = bytes_chat(name);
                // A message that can't be located is an error, never a panic.
                let Ok(tokens) = chat.tokens(&dialogue(&messages), 0, thinking) else { continue };
                let open = messages.last().unwrap().0 == U;
                let all: Vec<u32> = tokens.iter().map(|token| token.id).collect();
                let written: Vec<Message> = messages.iter().map(|(role, said)| Message::new(*role, *said)).collect();
                prop_assert_eq!(chat.decode(&all, false).unwrap(), chat.render(&written, open, thinking).unwrap());
                prop_assert!(tokens.iter().filter(|token| token.start).count() <= 1);
                prop_assert!(tokens.iter().enumerate().all(|(at, token)| token.position == at));
                for (turn, (role, said)) in messages.iter().enumerate() {
                    let its: Vec<&Token> = tokens.iter().filter(|t| t.turn == turn && t.is_content()).collect();
                    prop_assert!(its.iter().all(|token| token.id > 4 && token.role == *role));
                    if *role == U {
                        // The whole user message is annotated as the user's, up to space at its ends.
                        let ids: Vec<u32> = its.iter().map(|token| token.id).collect();
                        let found = chat.decode(&ids, false).unwrap();
                        prop_assert_eq!(found.trim(), said.trim());
                    }
                    let prompt = its.iter().filter(|token| token.phase == Phase::Prompt);
                    prop_assert!(prompt.enumerate().all(|(at, token)| token.index == at));
                }
            }
        }
    }
}
