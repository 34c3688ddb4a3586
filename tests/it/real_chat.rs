//! Chat templates of published models, rendered as transformers renders them. `scripts/real_chat.sh` fetches them and runs this.

use pearlpoint::dialogue::Message;
use pearlpoint::model::Chat;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    template: String,
    messages: serde_json::Value,
    add: bool,
    thinking: Option<bool>,
    /// What transformers renders; `None` where the template refuses the messages.
    expected: Option<String>,
}

#[test]
#[ignore = "needs cases in PEARL_TEMPLATE_CASES"]
fn published_templates_are_rendered_as_transformers_does() {
    let cases = std::fs::read(std::env::var("PEARL_TEMPLATE_CASES").unwrap()).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&cases).unwrap();
    let tokenizer = std::fs::read("tests/fixtures/chat/tokenizer.json").unwrap();
    let named = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let (mut wrong, mut right) = (Vec::new(), 0);
    for case in &cases {
        let source = std::fs::read_to_string(&case.template).unwrap();
        let dialogue = serde_json::json!({"id": "d", "messages": case.messages});
        let messages: Vec<Message> = serde_json::from_value(dialogue["messages"].clone()).unwrap();
        let rendered = Chat::from_bytes(&tokenizer, Some(&source), &named).and_then(|chat| {
            chat.fix_date("2026-11-29".parse().unwrap());
            chat.render(&messages, case.add, case.thinking)
        });
        match (&case.expected, rendered) {
            (Some(expected), Ok(found)) if *expected == found => right += 1,
            (None, Err(_)) => right += 1,
            (expected, found) => wrong.push(format!(
                "{}: {}: add {}, thinking {:?}\n  {found:?}\n  {expected:?}",
                case.template, case.messages, case.add, case.thinking
            )),
        }
    }
    println!("{right} of {} cases", cases.len());
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}
