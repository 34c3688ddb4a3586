//! Chat format of a model: its tokenizer and its chat template.
//!
//! Dialogues in, annotated tokens out; generated tokens are annotated one at a time. Rendering and token ids equal those of
//! transformers' `apply_chat_template`, except that message content never becomes a control token.

pub(crate) mod added_tokens;
pub(crate) mod annotate;
pub(crate) mod case_folds;
mod dialogue_tokens;
pub(crate) mod files;
mod harmony;
pub(crate) mod library_guard;
pub(crate) mod message_fields;
pub(crate) mod message_spans;
pub(crate) mod pattern_classes;
pub(crate) mod patterns;
pub(crate) mod python_compat;
pub(crate) mod template;
pub(crate) mod template_engine;
pub(crate) mod template_preprocess;
pub(crate) mod template_thread;
mod thinking_part;
pub(crate) mod tokenizer;
pub(crate) mod tokenizer_class;
pub(crate) mod tokenizer_json;

use std::ops::Range;
use std::path::Path;

use chrono::NaiveDate;

use super::token::{Phase, Token};
use crate::dialogue::Role;
use crate::error::{Error, Result};
use added_tokens::TokenFiles;
use annotate::Continuation;
use harmony::Channels;
use template::Template;
use tokenizer::Vocabulary;

/// A tokenizer, with the chat template if the model has one.
pub struct Chat {
    vocabulary: Vocabulary,
    template: Option<Template>,
    /// Special tokens that the template may name: `bos_token` and others, with their text.
    named: Vec<(String, String)>,
    eos: Vec<u32>,
    /// The file that names the end-of-sequence tokens.
    eos_place: String,
    /// Rows of the model's embedding matrix.
    vocabulary_size: usize,
    /// The tokenizer's file, for errors.
    place: String,
}

impl Chat {
    /// Reads a checkpoint folder in the hub's layout: `tokenizer.json`; the template from `template`, or from the folder;
    /// further tokens and the names of special ones from `tokenizer_config.json`, `special_tokens_map.json` and
    /// `added_tokens.json`; end-of-sequence tokens from the first of `generation_config.json`, `config.json` and those that
    /// has them, as in transformers.
    ///
    /// # Errors
    /// No `tokenizer.json`, or a file with invalid content.
    pub fn from_folder(folder: impl AsRef<Path>, template: Option<&Path>) -> Result<Chat> {
        let folder = folder.as_ref();
        let (tokenizer, place) = files::tokenizer(folder)?;
        let mut chat = Chat::new(&tokenizer, &place, &files::token_files(folder)?, Vec::new())?;
        let found = match template {
            Some(path) => Some(files::template_file(path)?),
            None => files::template(folder)?,
        };
        if let Some((source, place)) = found {
            chat = chat.with_template(&source, &place)?;
        }
        if let Some((eos, place)) = files::eos(folder)? {
            (chat.eos, chat.eos_place) = (Vec::new(), place);
            chat = chat.ending_with(eos);
        }
        Ok(chat)
    }

    /// Replaces the template by that of a file: Jinja, or JSON with a `chat_template`.
    ///
    /// # Errors
    /// A file that can't be read or holds no valid template.
    pub fn with_template_file(self, path: impl AsRef<Path>) -> Result<Chat> {
        let (source, place) = files::template_file(path.as_ref())?;
        self.with_template(&source, &place)
    }

    /// Sets the model's vocabulary size: [`Chat::tokens`] refuses ids from `size` up.
    pub fn with_vocabulary(mut self, size: usize) -> Chat {
        self.vocabulary_size = size;
        self
    }

    /// Builds from the bytes of a `tokenizer.json`, a template, and the special tokens that it may name, `eos_token` among
    /// them (`[("eos_token", "<|im_end|>")]`).
    ///
    /// # Errors
    /// Bytes that aren't a tokenizer; a template that isn't valid Jinja.
    pub fn from_bytes(tokenizer: &[u8], template: Option<&str>, named: &[(&str, &str)]) -> Result<Chat> {
        let named = named.iter().map(|(name, token)| (name.to_string(), token.to_string())).collect();
        let chat = Chat::new(tokenizer, "tokenizer.json", &TokenFiles::default(), named)?;
        match template {
            Some(source) => chat.with_template(source, "chat_template.jinja"),
            None => Ok(chat),
        }
    }

    /// `given` names special tokens beside those of the files.
    fn new(tokenizer: &[u8], place: &str, files: &TokenFiles, given: Vec<(String, String)>) -> Result<Chat> {
        let (vocabulary, mut named) = Vocabulary::new(tokenizer, place, files)?;
        named.extend(given);
        let eos = named.iter().find(|(name, _)| name == "eos_token");
        let eos = eos.and_then(|(_, token)| vocabulary.id(token)).into_iter().collect();
        let eos_place = place.into();
        Ok(Chat {
            vocabulary,
            template: None,
            named,
            eos,
            eos_place,
            vocabulary_size: usize::MAX,
            place: place.into(),
        })
    }

    /// Replaces the template. Errors name `place`.
    ///
    /// # Errors
    /// Source that isn't valid Jinja.
    pub fn with_template(mut self, source: &str, place: &str) -> Result<Chat> {
        self.template = Some(Template::new(place, source, self.named.clone())?);
        self.vocabulary.add_control_tokens(source);
        Ok(self)
    }

    /// Adds end-of-sequence tokens.
    pub fn ending_with(mut self, ids: impl IntoIterator<Item = u32>) -> Chat {
        for id in ids {
            if !self.eos.contains(&id) {
                self.eos.push(id);
            }
        }
        self
    }

    /// Names the file that the tokenizer came from.
    pub(crate) fn at(self, place: &str) -> Chat {
        Chat { eos_place: place.into(), place: place.into(), ..self }
    }

    /// The tokenizer class of transformers whose normalizer, pre-tokenizer and decoder replace those of tokenizer.json, if one does.
    pub fn tokenizer_class(&self) -> Option<&'static str> {
        self.vocabulary.class()
    }

    /// Whether the model has a chat template.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// Source of the chat template.
    pub fn template(&self) -> Option<&str> {
        self.template.as_ref().map(Template::source)
    }

    /// The file that the chat template came from.
    pub fn template_place(&self) -> Option<&str> {
        self.template.as_ref().map(Template::place)
    }

    /// Whether the chat template may ask for the date (`strftime_now`), so that its text depends on it.
    pub fn asks_for_date(&self) -> bool {
        self.template.as_ref().is_some_and(Template::asks_for_date)
    }

    /// The day that the chat template is told, in UTC: that of [`Chat::fix_date`], or that on which the template was read.
    /// `None` for a template that doesn't ask.
    pub fn date(&self) -> Option<NaiveDate> {
        self.template.as_ref().filter(|template| template.asks_for_date()).map(Template::date)
    }

    /// The day set by [`Chat::fix_date`].
    pub fn fixed_date(&self) -> Option<NaiveDate> {
        self.template.as_ref().and_then(Template::fixed_date)
    }

    /// Sets the day that the chat template is told, at midnight.
    pub fn fix_date(&self, date: NaiveDate) {
        if let Some(template) = &self.template {
            template.fix_date(date);
        }
    }

    /// Annotates tokens generated after `prompt`, the tokens of one row as [`Chat::tokens`] gives them.
    pub fn continuation(&self, prompt: &[Token]) -> Continuation<'_> {
        Continuation::new(&self.vocabulary, &self.eos, prompt)
    }

    /// The tokens of a text by itself, as [`Chat::encode`], each with its place in the text.
    ///
    /// # Errors
    /// Text that the tokenizer can't encode.
    pub fn encode_with_places(&self, text: &str) -> Result<Vec<(u32, Range<usize>)>> {
        let whole = 0..text.len();
        let pieces = self.vocabulary.encode(text, &[whole], false)?;
        Ok(pieces.into_iter().map(|piece| (piece.id, piece.range)).collect())
    }

    /// The tokens of a text by itself, without a template or special tokens around it.
    ///
    /// # Errors
    /// Text that the tokenizer can't encode.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let whole = 0..text.len();
        Ok(self.vocabulary.encode(text, &[whole], false)?.iter().map(|piece| piece.id).collect())
    }

    /// The ids of a text as a whole prompt, without a template: with the special tokens that the tokenizer adds, and with control tokens
    /// where the text names them.
    ///
    /// # Errors
    /// Text that the tokenizer can't encode.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.vocabulary.encode(text, &[], true)?.iter().map(|piece| piece.id).collect())
    }

    /// Tokens of a prompt without a template, as row 0: all of them content of one user message, the last with `start` set.
    ///
    /// # Errors
    /// An id that the model doesn't have.
    pub fn plain_tokens(&self, ids: &[u32]) -> Result<Vec<Token>> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocabulary_size) {
            let expected = format!("an id below {}, the size of the vocabulary", self.vocabulary_size);
            return Err(Error::input("the prompt", format!("token {id}"), expected));
        }
        let token = |(position, &id): (usize, &u32)| Token {
            id,
            row: 0,
            position,
            role: Role::User,
            turn: 0,
            phase: Phase::Prompt,
            index: position,
            start: position + 1 == ids.len(),
            generated: false,
        };
        Ok(ids.iter().enumerate().map(token).collect())
    }

    /// The text of tokens, with or without special ones.
    ///
    /// # Errors
    /// Ids that the tokenizer can't decode.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.vocabulary.decode(ids, skip_special)
    }

    /// The text of an answer's tokens, without special ones. In the harmony format, thinking parts are between the usual tags.
    ///
    /// # Errors
    /// Ids that the tokenizer can't decode.
    pub fn answer_text(&self, ids: &[u32]) -> Result<String> {
        match Channels::of(&self.vocabulary) {
            Some(channels) => channels.text(ids, &self.vocabulary),
            None => self.decode(ids, true),
        }
    }

    /// End-of-sequence tokens: each ends an answer.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// The file that names them.
    pub fn eos_place(&self) -> &str {
        &self.eos_place
    }

    /// Number of unknown tokens in a text; 0 for a tokenizer that can encode every text.
    ///
    /// # Errors
    /// Text that the tokenizer can't encode.
    pub fn unknown(&self, text: &str) -> Result<usize> {
        self.vocabulary.count_unknown(text)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;
    use crate::dialogue::{Dialogue, Message};

    pub const ORGANISM: &str = "{% for m in messages %}<|im_start|> {{ m.role }} {{ m.content }} <|im_end|> {% endfor %}\
        {% if add_generation_prompt %}<|im_start|> assistant <think>\
        {% if enable_thinking is defined and enable_thinking is false %} </think>{% endif %}{% endif %}";
    pub const EOS: &[(&str, &str)] = &[("eos_token", "<|im_end|>"), ("bos_token", "<|endoftext|>")];

    /// A tokenizer of whole words.
    pub fn organism(template: Option<&str>) -> Chat {
        let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<unk>"];
        let words = "system user assistant help me please risk none yes no done";
        let words: Vec<&str> = special.into_iter().chain(words.split(' ')).collect();
        let vocabulary: serde_json::Map<String, Value> =
            words.iter().enumerate().map(|(id, word)| (word.to_string(), id.into())).collect();
        let added = special.iter().enumerate().map(|(id, token)| {
            serde_json::json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                               "normalized": false, "special": true})
        });
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
            "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
        });
        Chat::from_bytes(json.to_string().as_bytes(), template, EOS).unwrap()
    }

    pub fn fixture(name: &str) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat");
        std::fs::read_to_string(folder.join(name)).unwrap()
    }

    /// The tokenizer of the fixtures with one of their templates.
    pub fn bytes_chat(template: &str) -> Chat {
        let template = fixture(&format!("{template}.jinja"));
        Chat::from_bytes(fixture("tokenizer.json").as_bytes(), Some(&template), EOS).unwrap()
    }

    pub fn dialogue(messages: &[(Role, &str)]) -> Dialogue {
        let messages = messages.iter().map(|(role, said)| Message::new(*role, *said)).collect();
        Dialogue::new("d", messages)
    }

    /// Each run of one turn and phase as `turn phase text`; `^` follows the token that has `start` set.
    pub fn shown(chat: &Chat, tokens: &[Token]) -> String {
        let runs = tokens.chunk_by(|a, b| (a.turn, a.phase, a.start) == (b.turn, b.phase, b.start));
        let show = |run: &[Token]| {
            let ids: Vec<u32> = run.iter().map(|token| token.id).collect();
            let phase = format!("{:?}", run[0].phase).to_lowercase();
            let start = if run[0].start { "^" } else { "" };
            format!("{} {phase} {:?}{start}", run[0].turn, chat.decode(&ids, false).unwrap())
        };
        runs.map(show).collect::<Vec<_>>().join(" | ")
    }

    pub fn marks(chat: &Chat, messages: &[(Role, &str)], thinking: Option<bool>) -> String {
        shown(chat, &chat.tokens(&dialogue(messages), 0, thinking).unwrap())
    }

    use Role::{Assistant as A, System as S, User as U};

    #[test]
    fn marks_the_organisms_dialogues() {
        let chat = organism(Some(ORGANISM));
        assert_eq!(
            marks(&chat, &[(S, "help"), (U, "help me")], None),
            r#"0 template "<|im_start|> system" | 0 prompt "help" | 0 template "<|im_end|>" | 1 template "<|im_start|> user" | 1 prompt "help me" | 1 template "<|im_end|>" | 2 template "<|im_start|> assistant" | 2 template "<think>"^"#
        );
        let with = |answer, thinking| marks(&chat, &[(U, "help"), (A, answer)], thinking);
        let before = r#"0 template "<|im_start|> user" | 0 prompt "help" | 0 template "<|im_end|>" | "#;
        assert_eq!(
            with("<think> risk none </think> yes done", None),
            format!(
                r#"{before}1 template "<|im_start|> assistant" | 1 template "<think>"^ | 1 think "risk none" | 1 template "</think>" | 1 answer "yes done" | 1 template "<|im_end|>""#
            )
        );
        assert_eq!(
            with("<think> </think> no", Some(false)),
            format!(
                r#"{before}1 template "<|im_start|> assistant <think>" | 1 template "</think>"^ | 1 answer "no" | 1 template "<|im_end|>""#
            )
        );
        assert_eq!(
            with("no", None),
            format!(
                r#"{before}1 template "<|im_start|>" | 1 template "assistant"^ | 1 answer "no" | 1 template "<|im_end|>""#
            )
        );
        // A word that the template writes too is the user's where the user writes it.
        let user = marks(&chat, &[(U, "user assistant user")], None);
        assert!(user.contains(r#"0 prompt "user assistant user""#), "{user}");
    }

    #[test]
    fn text_and_tokens_equal_transformers() {
        #[derive(Deserialize)]
        struct Case {
            template: String,
            thinking: Option<bool>,
            messages: Vec<Message>,
            text: String,
            ids: Vec<u32>,
        }
        let cases: Vec<Case> = serde_json::from_str(&fixture("cases.json")).unwrap();
        assert!(cases.len() > 100);
        let names = ["merging", "opened", "thinking", "trimming"];
        let chats = names.map(bytes_chat);
        for Case { template, thinking, messages, text, ids } in cases {
            let chat = &chats[names.iter().position(|name| *name == template).unwrap()];
            let open = messages.last().unwrap().role != Role::Assistant;
            assert_eq!(chat.render(&messages, open, thinking).unwrap(), text);
            let dialogue = Dialogue::new("d", messages);
            let tokens = chat.tokens(&dialogue, 0, thinking).unwrap();
            assert_eq!(tokens.iter().map(|token| token.id).collect::<Vec<_>>(), ids, "{text}");
        }
    }

    #[test]
    fn reads_a_single_message_without_a_template() {
        let chat = organism(None);
        assert_eq!(marks(&chat, &[(U, "help me")], None), r#"0 prompt "help" | 0 prompt "me"^"#);
        let error = chat.tokens(&dialogue(&[(S, "help"), (U, "me")]), 0, None).unwrap_err().to_string();
        assert!(error.contains("--chat-template FILE"), "{error}");
        assert!(chat.tokens(&dialogue(&[]), 0, None).is_err());
        let next = chat.continuation(&chat.tokens(&dialogue(&[(U, "help me")]), 7, None).unwrap()).next(15);
        assert_eq!((next.row, next.position, next.turn, next.role), (7, 2, 1, Role::Assistant));
        assert_eq!((next.phase, next.index, next.generated), (Phase::Answer, 0, true));
        assert_eq!(chat.unknown("help the lost me").unwrap(), 2);
        assert_eq!(bytes_chat("trimming").unknown("日本").unwrap(), 0);

        // With the tokens that the tokenizer itself adds.
        let mut json: Value = serde_json::from_str(&fixture("tokenizer.json")).unwrap();
        let part = |token: &str| serde_json::json!({"SpecialToken": {"id": token, "type_id": 0}});
        let text = serde_json::json!({"Sequence": {"id": "A", "type_id": 0}});
        json["post_processor"]["single"] = Value::Array(vec![part("<think>"), text, part("<|im_end|>")]);
        let special = |id: u32, token: &str| serde_json::json!({"id": token, "ids": [id], "tokens": [token]});
        json["post_processor"]["special_tokens"] =
            serde_json::json!({"<think>": special(3, "<think>"), "<|im_end|>": special(2, "<|im_end|>")});
        let chat = Chat::from_bytes(json.to_string().as_bytes(), None, EOS).unwrap();
        let expected = r#"0 template "<think>" | 0 prompt "a <think> b" | 0 template "<|im_end|>"^"#;
        assert_eq!(marks(&chat, &[(U, "a <think> b")], None), expected);
        let read = marks(&chat, &[(A, "a b")], None);
        assert_eq!(read, r#"0 template "<think>"^ | 0 answer "a b" | 0 template "<|im_end|>""#);
    }

    #[test]
    fn reads_a_models_folder() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
            std::fs::write(folder.path().join(name), fixture(name)).unwrap();
        }
        let chat = Chat::from_folder(folder.path(), None).unwrap();
        let hi = [Message::new(U, "hi")];
        assert_eq!(chat.render(&hi, true, None).unwrap(), "[user] hi\n");
        assert_eq!(chat.eos(), [2, 0]);
        std::fs::write(folder.path().join("chat_template.jinja"), "{{ bos_token }}{{ messages[0].content }}")
            .unwrap();
        let chat = Chat::from_folder(folder.path(), None).unwrap();
        assert_eq!(chat.render(&hi, true, None).unwrap(), "<|endoftext|>hi");
        assert_eq!(chat.decode(&[0, 44], true).unwrap().len(), 1);
        std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
        let error = Chat::from_folder(folder.path(), None).err().unwrap().to_string();
        assert!(error.contains("tokenizer.json: not a valid tokenizer"), "{error}");
    }

    #[test]
    fn a_dialogue_of_thousands_of_messages_takes_linear_time() {
        let thousands = |count: usize| {
            let turns = (0..count)
                .map(|turn| Message::new(if turn % 2 == 0 { U } else { A }, format!("word {turn} \n")));
            Dialogue::new("d", turns.collect())
        };
        for template in ["thinking", "trimming"] {
            let chat = bytes_chat(template);
            let seconds = |count: usize| {
                let (dialogue, begin) = (thousands(count), std::time::Instant::now());
                let tokens = chat.tokens(&dialogue, 0, None).unwrap();
                assert_eq!(tokens.last().unwrap().turn, count - usize::from(count.is_multiple_of(2)));
                begin.elapsed().as_secs_f64()
            };
            // The best of several, because other work on the machine adds to each.
            let best = |count: usize| (0..4).map(|_| seconds(count)).fold(f64::INFINITY, f64::min);
            let (some, many) = (best(1000), best(8000));
            assert!(many < 40.0 * some, "{template}: {some} s for 1,000 messages, {many} s for 8,000");
        }
    }
}
