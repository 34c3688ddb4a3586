//! A model's chat: its tokenizer and its chat template. Dialogues go in, marked tokens come out; what the model
//! writes is marked as it comes. It knows nothing of weights.

use std::path::Path;

use serde_json::Value;

use super::marks::{self, Continuation};
use super::spans;
use super::template::Template;
use super::tokens::Token;
use super::vocabulary::Vocabulary;
use crate::dialogue::{Dialogue, Message, Role};
use crate::error::{Error, Result};

/// A tokenizer, and the chat template if the model has one.
pub struct Chat {
    vocabulary: Vocabulary,
    template: Option<Template>,
    /// Tokens that the template may name: `bos_token` and the like.
    named: Vec<(String, String)>,
    eos: Vec<u32>,
    place: String,
}

impl Chat {
    /// Reads a model's folder in the hub's layout: `tokenizer.json`; the template from `chat_template.jinja`, or else
    /// from `tokenizer_config.json`, which also names the special tokens; and the tokens that end an answer, from there,
    /// `generation_config.json` and `config.json`.
    ///
    /// # Errors
    /// No `tokenizer.json`, or a file that is not what it should be.
    pub fn from_folder(folder: &Path) -> Result<Chat> {
        let path = folder.join("tokenizer.json");
        let tokenizer = std::fs::read(&path).map_err(Error::file(&path))?;
        let config = json(&folder.join("tokenizer_config.json"))?;
        let mut chat = Chat::new(&tokenizer, &path.display().to_string(), named_tokens(&config))?;
        let path = folder.join("chat_template.jinja");
        match read_if_any(&path)? {
            Some(source) => chat = chat.with_template(&source, &path.display().to_string())?,
            None => {
                let path = folder.join("tokenizer_config.json").display().to_string();
                if let Some(source) = default_template(&config["chat_template"], &path)? {
                    chat = chat.with_template(source, &path)?;
                }
            }
        }
        for name in ["generation_config.json", "config.json"] {
            let ids = match &json(&folder.join(name))?["eos_token_id"] {
                Value::Array(list) => list.iter().filter_map(Value::as_u64).collect(),
                one => Vec::from_iter(one.as_u64()),
            };
            chat.eos.extend(ids.into_iter().filter_map(|id| u32::try_from(id).ok()));
        }
        let mut seen = Vec::new();
        chat.eos.retain(|id| !seen.contains(id) && (seen.push(*id), true).1);
        Ok(chat)
    }

    /// A tokenizer without its folder: the bytes of a `tokenizer.json`, the template if there is one, and the tokens
    /// that the template may name, `eos_token` among them (`[("eos_token", "<|im_end|>")]`).
    pub fn from_bytes(tokenizer: &[u8], template: Option<&str>, named: &[(&str, &str)]) -> Result<Chat> {
        let named = named.iter().map(|(name, token)| (name.to_string(), token.to_string())).collect();
        let chat = Chat::new(tokenizer, "tokenizer.json", named)?;
        match template {
            Some(source) => chat.with_template(source, "chat_template.jinja"),
            None => Ok(chat),
        }
    }

    fn new(tokenizer: &[u8], place: &str, named: Vec<(String, String)>) -> Result<Chat> {
        let vocabulary = Vocabulary::new(tokenizer, place)?;
        let eos = named.iter().find(|(name, _)| name == "eos_token");
        let eos = eos.and_then(|(_, token)| vocabulary.id(token)).into_iter().collect();
        Ok(Chat { vocabulary, template: None, named, eos, place: place.into() })
    }

    /// The same tokenizer with another template. `place` is where it was found, for errors.
    pub fn with_template(mut self, source: &str, place: &str) -> Result<Chat> {
        self.template = Some(Template::new(place, source, self.named.clone())?);
        self.vocabulary.know_template(source);
        Ok(self)
    }

    /// Whether the model has a chat template.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// The chat template's source.
    pub fn template(&self) -> Option<&str> {
        self.template.as_ref().map(Template::source)
    }

    /// The text that the model reads. `thinking` is what the template sees as `enable_thinking`. Without a template it
    /// is the one message's content.
    ///
    /// # Errors
    /// Several messages without a template, and what the template refuses.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        thinking: Option<bool>,
    ) -> Result<String> {
        let messages: Vec<(&str, &str)> =
            messages.iter().map(|m| (m.role.name(), m.content.as_str())).collect();
        self.text(&messages, add_generation_prompt, thinking)
    }

    fn text(&self, messages: &[(&str, &str)], add: bool, thinking: Option<bool>) -> Result<String> {
        match (&self.template, messages) {
            (Some(template), _) => template.render(messages, add, thinking),
            (None, [(_, content)]) => Ok((*content).into()),
            (None, _) => Err(Error::input(
                &self.place,
                format!("{} messages, and no chat template", messages.len()),
                "a single message, or --chat-template FILE",
            )),
        }
    }

    /// The tokens of a dialogue, as row `row` of a batch, each with its marks: exactly those that transformers'
    /// `apply_chat_template` gives, but that no message's text is taken for a special token.
    ///
    /// A dialogue that ends with the assistant's message is read as it is, any other with the generation prompt. Its
    /// last token bears the mark `start`; in a dialogue that has its last answer it is the token with which that prompt
    /// would have ended, in the same mode of thinking, if the answer's text begins with it, and if not, the last one of
    /// the template before what the answer says. A single message without a template is read with the special tokens
    /// that the tokenizer adds; the last of all is then `start`, for there the answer begins.
    ///
    /// # Errors
    /// No message at all; several messages without a template; what the template refuses.
    pub fn tokens(&self, dialogue: &Dialogue, row: usize, thinking: Option<bool>) -> Result<Vec<Token>> {
        let messages = &dialogue.messages;
        let found = |error: Error| match error {
            Error::Input { place, found, expected } => {
                Error::input(format!("dialogue {}: {place}", dialogue.id), found, expected)
            }
            other => other,
        };
        if messages.is_empty() {
            return Err(found(Error::input("messages", "none", "at least one")));
        }
        let render = |messages: &[(&str, &str)], add: bool| self.text(messages, add, thinking);
        let rendered = spans::find(messages, &render).map_err(found)?;
        let typed: Vec<_> = rendered.spans.iter().map(|span| span.range.clone()).collect();
        let pieces =
            self.vocabulary.encode(&rendered.text, &typed, self.template.is_none()).map_err(found)?;
        let mut tokens = marks::mark(&pieces, &rendered, messages, row, &self.vocabulary);
        if self.template.is_none()
            && messages[0].role != Role::Assistant
            && let Some(last) = tokens.last_mut()
        {
            last.start = true;
        }
        Ok(tokens)
    }

    /// Marks what the model writes after `prompt`, which is one row's tokens as [`Chat::tokens`] gives them.
    pub fn continuation(&self, prompt: &[Token]) -> Continuation<'_> {
        Continuation::new(&self.vocabulary, &self.eos, prompt)
    }

    /// The text of tokens, with or without those that the tokenizer calls special.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.vocabulary.decode(ids, skip_special)
    }

    /// The tokens that end an answer.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// How many tokens of a text the model does not know; 0 where the tokenizer takes every text.
    pub fn unknown(&self, text: &str) -> Result<usize> {
        self.vocabulary.count_unknown(text)
    }
}

/// A file's text; none if there is no such file.
fn read_if_any(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(path)(error)),
    }
}

/// A file's JSON; null if there is no such file.
fn json(path: &Path) -> Result<Value> {
    let Some(text) = read_if_any(path)? else {
        return Ok(Value::Null);
    };
    serde_json::from_str(&text).map_err(|error| Error::input(path.display(), error, "JSON"))
}

/// Entries such as `"eos_token": "</s>"`, or `{"content": "</s>", …}`.
fn named_tokens(config: &Value) -> Vec<(String, String)> {
    let names = ["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"];
    let token = |name: &str| {
        let entry = &config[name];
        let text = entry.as_str().or_else(|| entry["content"].as_str())?;
        Some((name.to_owned(), text.to_owned()))
    };
    names.into_iter().filter_map(token).collect()
}

/// A template is text, or a list of `{"name", "template"}` in which one is called default.
fn default_template<'a>(entry: &'a Value, place: &str) -> Result<Option<&'a str>> {
    match entry {
        Value::Null => Ok(None),
        Value::String(source) => Ok(Some(source)),
        Value::Array(list) => {
            let default = list.iter().find(|one| one["name"] == "default");
            Ok(default.and_then(|one| one["template"].as_str()))
        }
        _ => {
            Err(Error::input(place, "a chat_template of another kind", "text, or a list of {name, template}"))
        }
    }
}
