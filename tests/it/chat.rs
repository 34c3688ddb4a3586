//! Parity with transformers: text and tokens of chat templates in the styles of well-known families, on ordinary and awkward
//! dialogues (`tests/fixtures/chat/families/make.py`); and the annotation of each token.

use std::collections::BTreeMap;
use std::path::Path;

use pearlpoint::dialogue::{Dialogue, Message, Role};
use pearlpoint::model::{Chat, Phase, Token};
use serde::Deserialize;
use sha2::{Digest, Sha256};

const FAMILIES: [(&str, &str); 9] = [
    ("llama2", "pieces"),
    ("mistral", "pieces"),
    ("gemma", "pieces"),
    ("phi", "pieces"),
    ("zephyr", "pieces"),
    ("chatml", "bytes"),
    ("llama3", "bytes"),
    ("qwen3", "bytes"),
    ("r1", "bytes"),
];

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new("tests/fixtures/chat/families").join(name)).unwrap()
}

fn chat(family: &str, tokenizer: &str) -> Chat {
    let named: &[(&str, &str)] = match tokenizer {
        "pieces" => &[("unk_token", "<unk>"), ("bos_token", "<s>"), ("eos_token", "</s>")],
        _ => &[("bos_token", "<|begin|>"), ("eos_token", "<|im_end|>"), ("date_string", "26 Jul 2024")],
    };
    let (tokenizer, template) = (read(&format!("{tokenizer}.json")), read(&format!("{family}.jinja")));
    Chat::from_bytes(tokenizer.as_bytes(), Some(&template), named).unwrap()
}

#[derive(Deserialize)]
struct Case {
    family: String,
    messages: Vec<Message>,
    thinking: Option<bool>,
    /// transformers' error where the template refuses the dialogue.
    refused: Option<String>,
    text: Option<String>,
    ids: Option<Vec<u32>>,
    /// For a long dialogue: how often its message repeats, and the hash of text and tokens.
    times: Option<usize>,
    sha256: Option<String>,
}

#[test]
fn text_and_tokens_equal_transformers() {
    let chats: BTreeMap<&str, Chat> =
        FAMILIES.iter().map(|(family, tokenizer)| (*family, chat(family, tokenizer))).collect();
    let cases: Vec<Case> = serde_json::from_str(&read("cases.json")).unwrap();
    assert!(cases.len() > 400);
    let mut wrong = Vec::new();
    for mut case in cases {
        let chat = &chats[case.family.as_str()];
        if let Some(times) = case.times {
            case.messages[0].content = case.messages[0].content.repeat(times);
        }
        let dialogue = Dialogue::new("d", case.messages);
        let found = chat.tokens(&dialogue, 0, case.thinking);
        if let Some(refused) = case.refused {
            let error = found.unwrap_err().to_string();
            assert!(error.contains(&refused) && error.lines().count() == 1, "{error}");
            continue;
        }
        let open = dialogue.messages.last().unwrap().role != Role::Assistant;
        let text = chat.render(&dialogue.messages, open, case.thinking).unwrap();
        let tokens = match found {
            Ok(tokens) => tokens,
            Err(error) => {
                wrong.push(format!("{} {:?}: {error}", case.family, dialogue.messages));
                continue;
            }
        };
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        if let Some(expected) = case.sha256 {
            let both = serde_json::to_string(&(&text, &ids)).unwrap();
            let hash: String = Sha256::digest(both).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hash, expected, "{}", case.family);
        } else if Some(&text) != case.text.as_ref() || Some(&ids) != case.ids.as_ref() {
            let (expected, wanted) = (case.text.unwrap(), case.ids.unwrap());
            wrong.push(format!("{}\n  {text:?}\n  {expected:?}\n  {ids:?}\n  {wanted:?}", case.family));
        }
        if let Some(problem) = misattributed(chat, &tokens, &dialogue.messages) {
            wrong.push(format!("{} {:?}: {problem}", case.family, dialogue.messages));
        }
    }
    assert!(wrong.is_empty(), "{} cases\n{}", wrong.len(), wrong.join("\n"));
}

/// A single message without a template gets the tokenizer's own special tokens, whatever its kind.
#[test]
fn a_text_alone_is_read_with_the_tokenizers_own_special_tokens() {
    #[derive(Deserialize)]
    struct Case {
        tokenizer: String,
        text: String,
        ids: Vec<u32>,
    }
    let cases: Vec<Case> = serde_json::from_str(&read("plain.json")).unwrap();
    let chats = ["pieces", "bytes", "words"].map(|name| {
        let chat = Chat::from_bytes(read(&format!("{name}.json")).as_bytes(), None, &[]).unwrap();
        (name, chat)
    });
    for Case { tokenizer, text, ids } in cases {
        let (_, chat) = chats.iter().find(|(name, _)| *name == tokenizer).unwrap();
        let dialogue = Dialogue::prompt("d", &text);
        let tokens = chat.tokens(&dialogue, 0, None).unwrap();
        assert_eq!(tokens.iter().map(|token| token.id).collect::<Vec<_>>(), ids, "{tokenizer}: {text:?}");
        assert_eq!(tokens[0].phase, Phase::Template, "{tokenizer}: {text:?}");
    }
}

/// A message of calls alone has no content; its tokens are an assistant's all the same, also where the template would write a
/// thinking part if it were the last message.
#[test]
fn the_tokens_of_a_call_without_a_content_are_the_assistants() {
    let record = r#"[{"role": "user", "content": "what?"},
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "look", "arguments": {"a": 1}}}]},
        {"role": "tool", "content": "7"}, {"role": "user", "content": "so?"}]"#;
    let messages: Vec<Message> = serde_json::from_str(record).unwrap();
    let chat = chat("qwen3", "bytes");
    let tokens = chat.tokens(&Dialogue::new("d", messages), 0, None).unwrap();
    let text = |turn: usize| {
        let ids: Vec<u32> = tokens.iter().filter(|token| token.turn == turn).map(|token| token.id).collect();
        chat.decode(&ids, false).unwrap()
    };
    assert!(tokens.iter().filter(|token| token.turn == 1).all(|token| token.role == Role::Assistant));
    let call = text(1);
    assert!(call.starts_with("<|im_start|>assistant\n") && call.contains(r#""name": "look""#), "{call}");
    assert!(call.ends_with("</tool_call><|im_end|>\n"), "{call}");
    assert!(text(2).starts_with("<|im_start|>user\n<tool_response>"), "{}", text(2));
}

/// Checks that the content of each message is annotated in full, with its role.
fn misattributed(chat: &Chat, tokens: &[Token], messages: &[Message]) -> Option<String> {
    let plain = |text: &str| -> String {
        // A normaliser may compose letters, and a tokenizer of pieces may add a space in front.
        let composed = |letter| matches!(letter, 'e' | 'n');
        text.chars().filter(|&l| l.is_ascii() && !l.is_whitespace() && !composed(l)).collect()
    };
    for (turn, message) in messages.iter().enumerate() {
        let its: Vec<&Token> = tokens.iter().filter(|t| t.turn == turn && t.is_content()).collect();
        if its.iter().any(|token| token.role != message.role) {
            return Some(format!("message {turn} of another role"));
        }
        let of = |phase: Phase| {
            let ids: Vec<u32> = its.iter().filter(|t| t.phase == phase).map(|t| t.id).collect();
            plain(&chat.decode(&ids, false).unwrap())
        };
        let content = &message.content;
        let found = match message.role {
            // The template may leave out thoughts, and system messages after the first.
            Role::Assistant if content.contains("think>") => continue,
            Role::Assistant => of(Phase::Answer),
            _ => of(Phase::Prompt),
        };
        if found != plain(content) && !(found.is_empty() && message.role == Role::System) {
            return Some(format!("message {turn} says {found:?}"));
        }
    }
    (tokens.iter().filter(|token| token.start).count() > 1).then(|| "two starts".into())
}
