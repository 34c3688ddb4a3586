//! Layouts of published data sets: which columns hold what.
//!
//! One raw record in, its dialogues out. A layout is recognised by its columns; `--map` describes any other. To add one, add
//! an entry to [`LAYOUTS`], and an example to the test that walks the table.
//!
//! A column that a layout doesn't use becomes a label of the same name, if it holds text, a number, a boolean or a list of
//! those. An empty cell is no label.

use super::column_map::ColumnMap;
use super::dialogue::{Dialogue, Label, Message, Role};
use super::raw_record::{Fields, RawRecord, label, type_name};
use crate::error::Result;

/// A known layout.
struct Layout {
    /// The data sets that use it.
    name: &'static str,
    /// The columns that recognise it: a record must have all of them.
    columns: &'static [&'static str],
    /// Those of [`PARTS`] that it reads; a record with others is refused.
    parts: &'static [&'static str],
    /// The dialogues of a record: one, or two for a contrast pair.
    read: fn(&Fields) -> Result<Vec<Dialogue>>,
}

/// Known layouts; the first whose columns a record has is taken.
const LAYOUTS: [Layout; 12] = [
    Layout { name: "chat messages", columns: &["messages"], parts: &[], read: messages },
    Layout { name: "ShareGPT", columns: &["conversations"], parts: &[], read: sharegpt },
    Layout {
        name: "contrast pairs",
        columns: &["question", "answer_matching_behavior", "answer_not_matching_behavior"],
        parts: &[],
        read: contrast_pair,
    },
    Layout { name: "SafeMTData", columns: &["multi_turn_queries"], parts: &[], read: safemtdata },
    Layout { name: "HarmBench", columns: &["Behavior", "FunctionalCategory"], parts: &[], read: harmbench },
    // Before AdvBench, whose columns differ by case only.
    Layout {
        name: "JailbreakBench",
        columns: &["Goal", "Behavior", "Category"],
        parts: &[],
        read: |fields| prompt_only(fields, "Goal", "Index"),
    },
    Layout {
        name: "AdvBench",
        columns: &["goal", "target"],
        parts: &[],
        read: |fields| prompt_only(fields, "goal", "id"),
    },
    Layout {
        name: "StrongREJECT",
        columns: &["category", "source", "forbidden_prompt"],
        parts: &[],
        read: |fields| prompt_only(fields, "forbidden_prompt", "id"),
    },
    Layout { name: "Oyster-I", columns: &["Risk_type", "Risk_intent", "Query"], parts: &[], read: oyster },
    Layout {
        name: "TRL",
        columns: &["prompt", "completion"],
        parts: &["history", "completion"],
        read: prompt_and_completion,
    },
    Layout {
        name: "XSTest, OR-Bench, BeaverTails",
        columns: &["prompt"],
        parts: &["history"],
        read: prompt_and_response,
    },
    Layout {
        name: "Alpaca, Dolly",
        columns: &["instruction"],
        parts: &["history", "instruction", "input", "context", "output"],
        read: alpaca,
    },
];

/// Columns that hold a list of messages.
const LISTS: [&str; 2] = ["messages", "conversations"];

/// The dialogues of a record: one, or two for a contrast pair. `index` is the record's index in the file.
///
/// # Errors
/// No known layout and no map; a column that is missing or of the wrong type.
pub(super) fn dialogues(record: &RawRecord, index: usize, map: Option<&ColumnMap>) -> Result<Vec<Dialogue>> {
    let fields = Fields { columns: &record.columns, index, place: &record.place };
    if let Some(map) = map {
        return Ok(vec![mapped(&fields, map)?]);
    }
    match LAYOUTS.iter().find(|layout| fields.has(layout.columns)) {
        Some(layout) => {
            let list = layout.columns.iter().copied().find(|column| LISTS.contains(column));
            fields.check_parts(layout.parts)?;
            let dialogues = (layout.read)(&fields)?;
            dialogues.into_iter().map(|dialogue| fields.with_prompt_fields(dialogue, list)).collect()
        }
        None => {
            let found = format!("columns of no known layout ({})", fields.names());
            let expected = format!("--map prompt=COLUMN,label.NAME=COLUMN, or {}", known_layouts());
            Err(fields.wrong(found, expected))
        }
    }
}

/// The known layouts and their columns, for errors.
pub(super) fn known_layouts() -> String {
    let shown = |layout: &Layout| format!("`{}` ({})", layout.columns.join("`, `"), layout.name);
    LAYOUTS.iter().map(shown).collect::<Vec<_>>().join("; ")
}

/// Chat messages with their labels in the object `labels`.
fn messages(fields: &Fields) -> Result<Vec<Dialogue>> {
    let dialogue = fields.dialogue(&["id"], fields.messages("messages")?)?;
    Ok(vec![fields.with_label_object(dialogue)?])
}

fn prompt_only(fields: &Fields, prompt: &str, id: &str) -> Result<Vec<Dialogue>> {
    let dialogue = fields.dialogue(&[id], vec![fields.user_message(prompt)?])?;
    Ok(vec![fields.with_other_labels(dialogue, &[prompt, id])])
}

/// Prompt and completion: texts, or both of them lists of messages.
fn prompt_and_completion(fields: &Fields) -> Result<Vec<Dialogue>> {
    let mut messages = fields.history()?;
    if fields.value("prompt")?.is_array() {
        messages.extend(fields.messages("prompt")?);
        messages.extend(fields.messages("completion")?);
    } else {
        messages.push(fields.user_message("prompt")?);
        let completion = fields.optional_text("completion")?;
        messages.extend(completion.map(|text| Message::new(Role::Assistant, text)));
    }
    let dialogue = fields.dialogue(&["id"], messages)?;
    Ok(vec![fields.with_labels(dialogue, &["id", "prompt", "completion", "history"])?])
}

/// Alpaca and Dolly: the instruction, then its input (Dolly's context) on a line of its own; the answer in `output` or
/// `response`.
fn alpaca(fields: &Fields) -> Result<Vec<Dialogue>> {
    let mut messages = fields.history()?;
    let mut prompt = fields.user_message("instruction")?;
    for column in ["input", "context"] {
        if let Some(text) = fields.optional_text(column)? {
            prompt.content = format!("{}\n{text}", prompt.content);
        }
    }
    messages.push(prompt);
    for column in ["output", "response"] {
        let answer = fields.optional_text(column)?;
        messages.extend(answer.map(|text| Message::new(Role::Assistant, text)));
    }
    let dialogue = fields.dialogue(&["id"], messages)?;
    let read = ["id", "instruction", "input", "context", "output", "response", "history"];
    Ok(vec![fields.with_labels(dialogue, &read)?])
}

/// XSTest, OR-Bench, BeaverTails (whose `category` is an object of booleans: the true ones are the label), and one round with
/// an object of labels.
fn prompt_and_response(fields: &Fields) -> Result<Vec<Dialogue>> {
    let mut messages = fields.history()?;
    messages.push(fields.user_message("prompt")?);
    let response = fields.optional_text("response")?;
    messages.extend(response.map(|response| Message::new(Role::Assistant, response)));
    let mut dialogue = fields.dialogue(&["id"], messages)?;
    if fields.has(&["labels"]) {
        return Ok(vec![fields.with_label_object(dialogue)?]);
    }
    dialogue = fields.with_other_labels(dialogue, &["id", "prompt", "response", "history"]);
    if let Some(categories) = fields.columns.get("category").and_then(|value| value.as_object()) {
        let held = categories.iter().filter(|(_, held)| held.as_bool() == Some(true));
        let held = held.map(|(name, _)| name.clone()).collect();
        dialogue.labels.insert("category".into(), Label::List(held));
    }
    Ok(vec![dialogue])
}

/// The pipeline of Oyster-I: the query, the first answer with its thinking part where there is one, and labels for the rest. The chain is no
/// label: `pearl reasoning parse` reads it.
fn oyster(fields: &Fields) -> Result<Vec<Dialogue>> {
    let mut messages = vec![fields.user_message("Query")?];
    let response = fields.optional_text("Initial_response")?.filter(|text| !text.trim().is_empty());
    if let Some(response) = response {
        let thinking = fields.optional_text("Initial_think")?.filter(|text| !text.trim().is_empty());
        let thinking = thinking.map_or_else(String::new, |text| format!("<think>{text}</think>"));
        messages.push(Message::new(Role::Assistant, format!("{thinking}{response}")));
    }
    let dialogue = fields.dialogue(&["id", "ID"], messages)?;
    let read = ["id", "ID", "Query", "Safety_chain", "Initial_think", "Initial_response"];
    Ok(vec![fields.with_other_labels(dialogue, &read)])
}

/// HarmBench. A context precedes the behaviour, as in its own baselines.
fn harmbench(fields: &Fields) -> Result<Vec<Dialogue>> {
    let mut message = fields.user_message("Behavior")?;
    if let Some(context) = fields.optional_text("ContextString")? {
        message.content = format!("{context}\n\n---\n\n{}", message.content);
    }
    let dialogue = fields.dialogue(&["BehaviorID"], vec![message])?;
    let mut dialogue = fields.with_other_labels(dialogue, &["Behavior", "ContextString", "BehaviorID"]);
    if let Some(Label::Text(tags)) = dialogue.labels.get("Tags") {
        let tags = tags.split(',').map(|tag| tag.trim().to_owned()).collect();
        dialogue.labels.insert("Tags".into(), Label::List(tags));
    }
    Ok(vec![dialogue])
}

fn sharegpt(fields: &Fields) -> Result<Vec<Dialogue>> {
    let dialogue = fields.dialogue(&["id"], fields.messages("conversations")?)?;
    Ok(vec![fields.with_other_labels(dialogue, &["id", "conversations"])])
}

/// One dialogue for each of the two answers; the label `answer` says which.
fn contrast_pair(fields: &Fields) -> Result<Vec<Dialogue>> {
    let sides = [("matching", "answer_matching_behavior"), ("not-matching", "answer_not_matching_behavior")];
    let dialogue = |(side, column): (&str, &str)| {
        let answer = Message::new(Role::Assistant, fields.text(column)?);
        let dialogue = fields.dialogue(&["id"], vec![fields.user_message("question")?, answer])?;
        let mut dialogue = fields.with_other_labels(dialogue, &["id", "question", sides[0].1, sides[1].1]);
        dialogue.id = format!("{}#{side}", dialogue.id);
        dialogue.labels.insert("answer".into(), Label::Text(side.into()));
        Ok(dialogue)
    };
    sides.into_iter().map(dialogue).collect()
}

/// SafeMTData: the user messages of a multi-turn attack, without answers.
fn safemtdata(fields: &Fields) -> Result<Vec<Dialogue>> {
    let column = "multi_turn_queries";
    let value = fields.value(column)?;
    let queries = value.as_array().map(|list| list.iter().map(|query| query.as_str()));
    let queries: Option<Vec<&str>> = queries.and_then(|list| list.collect());
    let queries = queries.filter(|queries| !queries.is_empty()).ok_or_else(|| {
        fields.wrong(format!("{} in `{column}`", type_name(value)), "a list of texts, at least one")
    })?;
    let messages = queries.into_iter().map(|query| Message::new(Role::User, query)).collect();
    let dialogue = fields.dialogue(&["id", "query_id"], messages)?;
    Ok(vec![fields.with_other_labels(dialogue, &["id", column])])
}

/// Any layout, described by a column map.
fn mapped(fields: &Fields, map: &ColumnMap) -> Result<Dialogue> {
    let column = |target: &str| map.column(target);
    let mut messages = Vec::new();
    if let Some(system) = column("system") {
        fields.value(system)?;
        messages.extend(fields.optional_text(system)?.map(|text| Message::new(Role::System, text)));
    }
    if let Some(prompt) = column("prompt") {
        messages.push(fields.user_message(prompt)?);
    }
    if let Some(list) = column("messages") {
        messages.extend(fields.messages(list)?);
    }
    if let Some(response) = column("response") {
        fields.value(response)?;
        messages.extend(fields.optional_text(response)?.map(|text| Message::new(Role::Assistant, text)));
    }
    if let Some(id) = column("id") {
        fields.value(id)?;
    }
    let dialogue = fields.dialogue(&[column("id").unwrap_or("id")], messages)?;
    let mut dialogue = fields.with_variables(dialogue, column("messages").is_some())?;
    for (name, column) in map.labels() {
        if let Some(label) = label(fields.value(column)?) {
            dialogue.labels.insert(name.into(), label);
        }
    }
    Ok(dialogue)
}

#[cfg(test)]
mod tests {
    use super::super::raw_record::Place;
    use super::*;

    fn here() -> Place {
        Place { path: "here".into(), line: 1, element: None }
    }

    fn read(record: &str, map: Option<&str>) -> Result<Vec<Dialogue>> {
        let record = RawRecord { place: here(), columns: serde_json::from_str(record).unwrap() };
        let map = map.map(|map| map.parse().unwrap());
        dialogues(&record, 5, map.as_ref())
    }

    #[test]
    fn every_layout_is_recognised_listed_and_documented() {
        let messages = r#"[{"role":"user","content":"p"}]"#;
        let examples = [
            ("chat messages", format!(r#"{{"messages":{messages}}}"#)),
            ("ShareGPT", format!(r#"{{"conversations":{messages}}}"#)),
            (
                "contrast pairs",
                r#"{"question":"p","answer_matching_behavior":"a","answer_not_matching_behavior":"b"}"#
                    .into(),
            ),
            ("SafeMTData", r#"{"multi_turn_queries":["p"]}"#.into()),
            ("HarmBench", r#"{"Behavior":"p","FunctionalCategory":"c"}"#.into()),
            ("JailbreakBench", r#"{"Goal":"p","Behavior":"b","Category":"c"}"#.into()),
            ("AdvBench", r#"{"goal":"p","target":"t"}"#.into()),
            ("StrongREJECT", r#"{"category":"c","source":"s","forbidden_prompt":"p"}"#.into()),
            (
                "Oyster-I",
                r#"{"Risk_type":"","Risk_intent":"","Query":"p","Safety_chain":"{}","Language":"en"}"#.into(),
            ),
            ("TRL", r#"{"prompt":"p","completion":"c"}"#.into()),
            ("XSTest, OR-Bench, BeaverTails", r#"{"prompt":"p"}"#.into()),
            ("Alpaca, Dolly", r#"{"instruction":"p","output":"c"}"#.into()),
        ];
        let documents = include_str!("../../docs/formats.md");
        let error = read(r#"{"words":"x"}"#, None).unwrap_err().to_string();
        for layout in &LAYOUTS {
            let (_, example) = examples.iter().find(|(name, _)| *name == layout.name).expect(layout.name);
            let columns = serde_json::from_str(example).unwrap();
            let fields = Fields { columns: &columns, index: 0, place: &here() };
            let first = LAYOUTS.iter().find(|layout| fields.has(layout.columns)).unwrap();
            assert_eq!(first.name, layout.name);
            assert_eq!(read(example, None).unwrap()[0].messages[0], Message::new(Role::User, "p"));
            let row = format!("| {} | `{}` |", layout.name, layout.columns.join("`, `"));
            assert!(documents.contains(&row), "docs/formats.md lacks {row}");
            assert!(error.contains(layout.name), "{error}");
        }
    }

    #[test]
    fn a_record_of_oyster_has_its_answer_and_its_labels() {
        let record = r#"{"ID":"q1","Risk_type":"self-harm","Risk_intent":"inquiry","Query":"p","Safety_chain":"{}","Initial_think":"t",
            "Initial_response":"r","Language":"en"}"#;
        assert_eq!(
            shown(record, None),
            "q1|user:p|assistant:<think>t</think>r|Language=en|Risk_intent=inquiry|Risk_type=self-harm"
        );
        let calm =
            r#"{"Risk_type":"","Risk_intent":"","Query":"p","Initial_think":"","Initial_response":""}"#;
        assert_eq!(shown(calm, None), "5|user:p");
    }

    /// `id|role:content|…|label=value|…`, one line a dialogue.
    fn shown(record: &str, map: Option<&str>) -> String {
        let show = |dialogue: &Dialogue| {
            let mut parts = vec![dialogue.id.clone()];
            let messages = dialogue.messages.iter();
            parts.extend(messages.map(|message| format!("{}:{}", message.role.name(), message.content)));
            parts.extend(dialogue.labels.iter().map(|(name, value)| format!("{name}={value}")));
            parts.join("|")
        };
        let dialogues = read(record, map).unwrap();
        dialogues.iter().map(show).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn reads_the_known_layouts() {
        let own = r#"{"id":"a","messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}],
                      "labels":{"risk":"R1","topics":["x","y"],"level":2,"ok":true,"none":null},"text":"t"}"#;
        assert_eq!(shown(own, None), "a|system:s|user:u|level=2|ok=true|risk=R1|topics=x+y");
        let round = r#"{"prompt":"p","response":"r","kind":"k","deep":{"x":1}}"#;
        assert_eq!(shown(round, None), "5|user:p|assistant:r|kind=k");
        assert_eq!(shown(r#"{"goal":"g","target":"t"}"#, None), "5|user:g|target=t");
        let harmbench = r#"{"Behavior":"b","FunctionalCategory":"contextual","SemanticCategory":"s","Tags":"x, y",
                            "ContextString":"c","BehaviorID":"b_1"}"#;
        let expected = "b_1|user:c\n\n---\n\nb|FunctionalCategory=contextual|SemanticCategory=s|Tags=x+y";
        assert_eq!(shown(harmbench, None), expected);
        let jailbreakbench =
            r#"{"Index":"3","Goal":"g","Target":"t","Behavior":"b","Category":"c","Source":"s"}"#;
        assert_eq!(shown(jailbreakbench, None), "3|user:g|Behavior=b|Category=c|Source=s|Target=t");
        let strongreject = r#"{"category":"c","source":"s","forbidden_prompt":"f"}"#;
        assert_eq!(shown(strongreject, None), "5|user:f|category=c|source=s");
        let xstest = r#"{"id":"9","prompt":"p","type":"t","label":"safe","focus":"f","note":""}"#;
        assert_eq!(shown(xstest, None), "9|user:p|focus=f|label=safe|type=t");
        let beavertails = r#"{"prompt":"p","response":"r","category":{"one":true,"two":false,"three":true},"is_safe":false}"#;
        assert_eq!(shown(beavertails, None), "5|user:p|assistant:r|category=one+three|is_safe=false");
        let sharegpt = r#"{"id":"s1","system":"be kind","conversations":[
                           {"from":"human","value":"hi"},{"from":"gpt","value":"hello"}]}"#;
        assert_eq!(shown(sharegpt, None), "s1|system:be kind|user:hi|assistant:hello");
        let safemt = r#"{"id":4,"multi_turn_queries":["one","two"],"category":"c"}"#;
        assert_eq!(shown(safemt, None), "4|user:one|user:two|category=c");
        let pair =
            r#"{"question":"q","answer_matching_behavior":"(A)","answer_not_matching_behavior":"(B)"}"#;
        let expected = "5#matching|user:q|assistant:(A)|answer=matching\n\
                        5#not-matching|user:q|assistant:(B)|answer=not-matching";
        assert_eq!(shown(pair, None), expected);
    }

    #[test]
    fn instructions_completions_and_histories_are_read() {
        for (record, expected) in [
            (r#"{"instruction":"i","input":"n","output":"o","kind":"k"}"#, "5|user:i\nn|assistant:o|kind=k"),
            (r#"{"instruction":"i","input":"","output":"o"}"#, "5|user:i|assistant:o"),
            (r#"{"instruction":"i","output":"","system":"s"}"#, "5|system:s|user:i"),
            (
                r#"{"instruction":"i","context":"c","response":"r","category":"qa"}"#,
                "5|user:i\nc|assistant:r|category=qa",
            ),
            (
                r#"{"instruction":"i","output":"o","history":[["a","b"],["c","d"]],"labels":{"risk":1}}"#,
                "5|user:a|assistant:b|user:c|assistant:d|user:i|assistant:o|risk=1",
            ),
            (r#"{"prompt":"p","completion":"c","risk":"R1"}"#, "5|user:p|assistant:c|risk=R1"),
            (
                r#"{"prompt":[{"role":"user","content":"p"}],"completion":[{"role":"assistant","content":"c"}]}"#,
                "5|user:p|assistant:c",
            ),
            (
                r#"{"prompt":"p","response":"r","history":[["a","b"]]}"#,
                "5|user:a|assistant:b|user:p|assistant:r",
            ),
            (
                r#"{"prompt":"p","history":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#,
                "5|user:a|assistant:b|user:p",
            ),
            (r#"{"prompt":"p","history":[],"context":null,"output":3}"#, "5|user:p|output=3"),
        ] {
            assert_eq!(shown(record, None), expected);
        }
    }

    #[test]
    fn parts_of_a_dialogue_that_a_layout_does_not_read_are_named() {
        for (record, found) in [
            (
                r#"{"prompt":"p","context":"c","input":"i"}"#,
                "`context`, `input`, which this layout doesn't read",
            ),
            (r#"{"prompt":"p","chosen":"c","rejected":"r"}"#, "`chosen`, `rejected`, which"),
            (r#"{"messages":[{"role":"user","content":"u"}],"history":[["a","b"]]}"#, "`history`, which"),
            (r#"{"conversations":[{"from":"human","value":"u"}],"context":"c"}"#, "`context`, which"),
            (r#"{"goal":"g","target":"t","output":"o"}"#, "`output`, which"),
            (r#"{"prompt":"p","instruction":"i"}"#, "`instruction`, which"),
            (r#"{"prompt":"p","history":"a"}"#, "text in `history`; expected pairs"),
            (r#"{"prompt":"p","history":[["a","b"],["c"]]}"#, "a list as round 1 in `history`"),
            (r#"{"prompt":"p","history":[["a",null]]}"#, "a list as round 0 in `history`"),
        ] {
            let error = read(record, None).unwrap_err().to_string();
            assert!(error.contains(found) && error.starts_with("here:1: "), "{error}");
        }
        assert_eq!(
            shown(r#"{"prompt":"p","context":"c"}"#, Some("prompt=prompt,label.context=context")),
            "5|user:p|context=c"
        );
    }

    #[test]
    fn a_role_of_another_name_keeps_it() {
        let list = r#"{"messages":[{"role":"developer","content":"d"},{"role":"user","content":"u"},
                       {"role":"function","name":"f","content":"1"},{"from":"observation","value":"2"}]}"#;
        let read = read(list, None).unwrap();
        let names: Vec<(Role, &str)> =
            read[0].messages.iter().map(|message| (message.role, message.role_name())).collect();
        let expected = [
            (Role::System, "developer"),
            (Role::User, "user"),
            (Role::Tool, "function"),
            (Role::Tool, "tool"),
        ];
        assert_eq!(names, expected);
        let written = serde_json::to_string(&read[0].messages).unwrap();
        assert!(written.starts_with(r#"[{"role":"developer","content":"d"}"#), "{written}");
        assert_eq!(serde_json::from_str::<Vec<Message>>(&written).unwrap(), read[0].messages);
    }

    #[test]
    fn maps_other_columns() {
        let record = r#"{"text":"t","reply":"r","rules":"s","n":7,"harm":"high","rest":"x"}"#;
        let map = "prompt=text, response=reply,system=rules,id=n,label.risk=harm";
        assert_eq!(shown(record, Some(map)), "7|system:s|user:t|assistant:r|risk=high");
        let error = read(record, Some("prompt=words")).unwrap_err().to_string();
        assert!(
            error.starts_with("here:1: no column `words`; expected one of the columns text, reply"),
            "{error}"
        );
    }

    #[test]
    fn says_what_is_wrong() {
        for (record, found) in [
            (r#"{"words":"x"}"#, "no known layout (words)"),
            (r#"{"prompt":3}"#, "a number in `prompt`"),
            (r#"{"prompt":""}"#, "empty text in `prompt`"),
            (r#"{"messages":[]}"#, "no message"),
            (r#"{"messages":[{"role":"judge","content":"x"}]}"#, "role `judge` of message 0 in `messages`"),
            (r#"{"messages":[{"role":"user"}]}"#, "nothing as the content of message 0 in `messages`"),
            (r#"{"prompt":"p","labels":{"a":{}}}"#, "an object in the label `a`"),
            (r#"{"multi_turn_queries":[1]}"#, "a list in `multi_turn_queries`"),
        ] {
            let error = read(record, None).unwrap_err().to_string();
            assert!(error.contains(found) && error.starts_with("here:1: "), "{error}");
        }
    }
}
