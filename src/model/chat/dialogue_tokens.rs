//! Dialogues as a chat's text and tokens.
//!
//! Messages in, the text that the chat template writes and its annotated tokens out.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::Chat;
use super::annotate;
use super::harmony::{self, Channels};
use super::message_fields;
use super::message_spans::{self, with_reasoning};
use crate::dialogue::{Dialogue, Message, Role};
use crate::error::{Error, Result};
use crate::model::token::Token;

impl Chat {
    /// Renders messages as the model's prompt text. `thinking` is the template's `enable_thinking`. Without a template, the
    /// text is the content of the single message.
    ///
    /// # Errors
    /// Several messages without a template; messages that the template refuses.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        thinking: Option<bool>,
    ) -> Result<String> {
        self.text(&with_reasoning(&self.in_channels(messages)), &Map::new(), add_generation_prompt, thinking)
    }

    /// The messages as the template takes them: in the harmony format, thinking parts have a field of their own.
    fn in_channels<'a>(&self, messages: &'a [Message]) -> Cow<'a, [Message]> {
        match Channels::of(&self.vocabulary) {
            Some(_) => harmony::with_channels(messages),
            None => messages.into(),
        }
    }

    fn text(
        &self,
        messages: &[Message],
        variables: &Map<String, Value>,
        add: bool,
        thinking: Option<bool>,
    ) -> Result<String> {
        match (&self.template, messages) {
            (Some(template), _) => template.render(messages, variables, add, thinking),
            (None, [message]) => Ok(message.content.clone()),
            (None, _) => Err(Error::input(
                &self.place,
                format!("{} messages, and no chat template", messages.len()),
                "a single message, or --chat-template FILE",
            )),
        }
    }

    /// Annotated tokens of a dialogue, as row `row` of a batch. The ids are those of transformers' `apply_chat_template`,
    /// except that message content never becomes a control token. Reasoning in a field of its own (`reasoning_content`,
    /// `reasoning`, `thinking`) is the thinking part; calls of tools are template.
    ///
    /// A dialogue that ends with an assistant message is rendered as it is, any other with the generation prompt. One token
    /// has `start` set: the last of the generation prompt. In a dialogue with its last answer, that is the token where the
    /// prompt would have ended (with the same `thinking`) if the text begins with that prompt, else the last template token
    /// before the answer's content. A single message without a template gets the special tokens that the tokenizer adds,
    /// and its last token has `start` set.
    ///
    /// # Errors
    /// No message; several messages without a template; messages that the template refuses; reasoning, calls of tools, tools or
    /// documents that the template doesn't write; a token id that the model doesn't have.
    pub fn tokens(&self, dialogue: &Dialogue, row: usize, thinking: Option<bool>) -> Result<Vec<Token>> {
        let split = self.in_channels(&dialogue.messages);
        let aliased;
        let messages = match split.iter().all(|message| message.fields.is_empty()) {
            true => &*split,
            false => {
                aliased = with_reasoning(&split);
                &aliased
            }
        };
        let in_dialogue = |error: Error| match error {
            Error::Input { place, found, expected } => {
                Error::input(format!("dialogue {}: {place}", dialogue.id), found, expected)
            }
            other => other,
        };
        if messages.is_empty() {
            return Err(in_dialogue(Error::input("messages", "none", "at least one")));
        }
        let add = messages.last().is_none_or(|last| last.role != Role::Assistant);
        let fields = message_fields::Fields {
            vocabulary: &self.vocabulary,
            template: self.template.as_ref(),
            messages,
            variables: &dialogue.variables,
            thinking,
        };
        fields
            .check(&|messages, variables| self.text(messages, variables, add, thinking))
            .map_err(in_dialogue)?;
        let render =
            |messages: &[Message], add: bool| self.text(messages, &dialogue.variables, add, thinking);
        let rendered = message_spans::render_with_spans(messages, &render).map_err(in_dialogue)?;
        let content: Vec<_> = rendered.spans.iter().map(|span| span.range.clone()).collect();
        let pieces =
            self.vocabulary.encode(&rendered.text, &content, self.template.is_none()).map_err(in_dialogue)?;
        if let Some(piece) = pieces.iter().find(|piece| piece.id as usize >= self.vocabulary_size) {
            let text = self.decode(&[piece.id], false)?;
            let expected = format!("a tokenizer of the model's {} tokens", self.vocabulary_size);
            return Err(in_dialogue(Error::input(
                &self.place,
                format!("token {} ({text:?})", piece.id),
                expected,
            )));
        }
        let mut tokens = annotate::annotate(&pieces, &rendered, messages, row, &self.vocabulary);
        if self.template.is_none()
            && messages[0].role != Role::Assistant
            && let Some(last) = tokens.last_mut()
        {
            last.start = true;
        }
        Ok(tokens)
    }
}
