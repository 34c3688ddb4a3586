//! A chat template, rendered with two messages.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use pearlpoint::dialogue::Dialogue;
use pearlpoint::model::Chat;

const TOKENIZER: &[u8] = include_bytes!("../../tests/fixtures/chat/tokenizer.json");

fn dialogue() -> &'static Dialogue {
    static DIALOGUE: OnceLock<Dialogue> = OnceLock::new();
    let record = br#"{"id":"a","messages":[{"role":"user","content":"a question"},{"role":"assistant","content":"an answer"}]}"#;
    DIALOGUE.get_or_init(|| {
        let path = pearlpoint_fuzz::file("dialogue.jsonl", record);
        pearlpoint::dialogue::Dialogues::read(path).expect("one dialogue").dialogues.remove(0)
    })
}

fuzz_target!(|source: &str| {
    pearlpoint_fuzz::allow_caught_panics();
    if let Ok(chat) = Chat::from_bytes(TOKENIZER, Some(source), &[]) {
        let _ = chat.tokens(dialogue(), 0, None);
    }
});
