//! What a record's columns mean: the layouts of well-known data sets, recognised by their columns, and `--map` for
//! the rest. It knows nothing of file formats.
//!
//! A column that a layout has no use for becomes a label under its own name, if it holds text, a number, a truth
//! value or a list of those; an empty cell is no label.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::column_map::ColumnMap;
use super::dialogue::{Dialogue, Label, Message, Role};
use crate::error::{Error, Result};

type Columns = Map<String, Value>;

/// The dialogues that a record holds: one, or two for a contrast pair. `number` is the record's, for those without an
/// id; `place` is for errors.
pub(super) fn dialogues(
    columns: &Columns,
    number: usize,
    place: &dyn Fn() -> String,
    map: Option<&ColumnMap>,
) -> Result<Vec<Dialogue>> {
    let row = Row { columns, number, place };
    if let Some(map) = map {
        return row.mapped(map).map(|dialogue| vec![dialogue]);
    }
    let has = |names: &[&str]| names.iter().all(|name| columns.contains_key(*name));
    let one = |dialogue: Result<Dialogue>| dialogue.map(|dialogue| vec![dialogue]);
    if has(&["messages"]) {
        let dialogue = row.dialogue(&["id"], row.messages("messages")?);
        return one(row.with_own_labels(dialogue));
    }
    if has(&["conversations"]) {
        return one(row.sharegpt());
    }
    if has(&["question", "answer_matching_behavior", "answer_not_matching_behavior"]) {
        return row.contrast_pair();
    }
    if has(&["multi_turn_queries"]) {
        return one(row.rounds_without_answers());
    }
    if has(&["Behavior", "FunctionalCategory"]) {
        return one(row.harmbench());
    }
    for (needed, prompt, id) in PROMPT_ONLY {
        if has(needed) {
            return one(row.prompt_only(prompt, id));
        }
    }
    if has(&["prompt"]) {
        return one(row.prompt_and_response());
    }
    Err(Error::input(
        place(),
        format!("columns of no known layout ({})", row.names()),
        "`messages`, `prompt`, a known data set's columns, or --map prompt=COLUMN,label.NAME=COLUMN",
    ))
}

/// Data sets of prompts alone: the columns that tell them, the prompt's, the id's.
const PROMPT_ONLY: [(&[&str], &str, &str); 3] = [
    // JailbreakBench; before AdvBench, whose columns differ from its by a capital only.
    (&["Goal", "Behavior", "Category"], "Goal", "Index"),
    // AdvBench.
    (&["goal", "target"], "goal", "id"),
    // StrongREJECT.
    (&["category", "source", "forbidden_prompt"], "forbidden_prompt", "id"),
];

/// What a JSON value is, for errors.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A record while it is being understood.
struct Row<'a> {
    columns: &'a Columns,
    number: usize,
    place: &'a dyn Fn() -> String,
}

impl Row<'_> {
    fn wrong(&self, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> Error {
        Error::input((self.place)(), found, expected)
    }

    fn names(&self) -> String {
        let mut names: Vec<&str> = self.columns.keys().take(12).map(String::as_str).collect();
        if self.columns.len() > names.len() {
            names.push("…");
        }
        names.join(", ")
    }

    fn value(&self, column: &str) -> Result<&Value> {
        self.columns.get(column).ok_or_else(|| {
            let expected = format!("one of the columns {}", self.names());
            self.wrong(format!("no column `{column}`"), expected)
        })
    }

    fn text(&self, column: &str) -> Result<&str> {
        match self.value(column)? {
            Value::String(text) => Ok(text),
            other => Err(self.wrong(format!("{} in `{column}`", kind(other)), "text")),
        }
    }

    /// The text of a column that may be missing, null or empty.
    fn text_if_any(&self, column: &str) -> Result<Option<&str>> {
        match self.columns.get(column) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => Ok(Some(self.text(column)?).filter(|text| !text.is_empty())),
        }
    }

    fn user(&self, column: &str) -> Result<Message> {
        match self.text(column)? {
            "" => Err(self.wrong(format!("nothing in `{column}`"), "a prompt")),
            text => Ok(Message::new(Role::User, text)),
        }
    }

    /// A dialogue whose id is in the first of these columns that holds one, or else the record's number.
    fn dialogue(&self, id: &[&str], messages: Vec<Message>) -> Dialogue {
        let id = id.iter().find_map(|column| match self.columns.get(*column) {
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        });
        let id = id.unwrap_or_else(|| self.number.to_string());
        Dialogue { id, messages, labels: BTreeMap::new() }
    }

    fn messages(&self, column: &str) -> Result<Vec<Message>> {
        let list = match self.value(column)? {
            Value::Array(list) => list,
            other => {
                let expected = "a list of {\"role\", \"content\"}";
                return Err(self.wrong(format!("{} in `{column}`", kind(other)), expected));
            }
        };
        if list.is_empty() {
            return Err(self.wrong(format!("no message in `{column}`"), "at least one"));
        }
        list.iter().enumerate().map(|(turn, message)| self.message(column, turn, message)).collect()
    }

    fn message(&self, column: &str, turn: usize, message: &Value) -> Result<Message> {
        let text = |names: [&str; 2]| match names.iter().find_map(|name| message.get(name)) {
            Some(Value::String(text)) => Ok(text.as_str()),
            other => {
                let found = other.map_or("nothing", kind);
                let found = format!("{found} as the {} of `{column}` {turn}", names[0]);
                Err(self.wrong(found, "{\"role\": text, \"content\": text}"))
            }
        };
        let name = text(["role", "from"])?;
        let role = match name {
            "system" | "developer" => Role::System,
            "user" | "human" | "prompter" => Role::User,
            "assistant" | "gpt" | "chatgpt" | "bing" | "bard" | "model" => Role::Assistant,
            "tool" | "function" | "observation" | "ipython" => Role::Tool,
            _ => {
                let found = format!("the role `{name}` in `{column}` {turn}");
                return Err(self.wrong(found, "system, user (human), assistant (gpt) or tool"));
            }
        };
        Ok(Message::new(role, text(["content", "value"])?))
    }

    fn label(value: &Value) -> Option<Label> {
        let plain = |value: &Value| match value {
            Value::Bool(truth) => Some(truth.to_string()),
            Value::Number(number) => Some(number.to_string()),
            Value::String(text) => Some(text.clone()),
            _ => None,
        };
        match value {
            Value::String(text) if text.is_empty() => None,
            Value::Number(number) => number.as_f64().map(Label::Number),
            Value::Array(list) => list.iter().map(plain).collect::<Option<_>>().map(Label::List),
            other => plain(other).map(Label::Text),
        }
    }

    /// Labels from the object `labels`.
    fn with_own_labels(&self, mut dialogue: Dialogue) -> Result<Dialogue> {
        let labels = match self.columns.get("labels") {
            None | Some(Value::Null) => return Ok(dialogue),
            Some(Value::Object(labels)) => labels,
            Some(other) => {
                return Err(self.wrong(format!("{} in `labels`", kind(other)), "{NAME: VALUE, …}"));
            }
        };
        for (name, value) in labels.iter().filter(|(_, value)| !value.is_null()) {
            let label = Self::label(value).or_else(|| value.as_str().map(|text| Label::Text(text.into())));
            let label = label.ok_or_else(|| {
                let expected = "text, a number or a list of those";
                self.wrong(format!("{} in the label `{name}`", kind(value)), expected)
            })?;
            dialogue.labels.insert(name.clone(), label);
        }
        Ok(dialogue)
    }

    /// Labels from every column but these.
    fn with_other_labels(&self, mut dialogue: Dialogue, used: &[&str]) -> Dialogue {
        let others = self.columns.iter().filter(|(name, _)| !used.contains(&name.as_str()));
        let labels = others.filter_map(|(name, value)| Some((name.clone(), Self::label(value)?)));
        dialogue.labels.extend(labels);
        dialogue
    }

    fn prompt_only(&self, prompt: &str, id: &str) -> Result<Dialogue> {
        let dialogue = self.dialogue(&[id], vec![self.user(prompt)?]);
        Ok(self.with_other_labels(dialogue, &[prompt, id]))
    }

    /// XSTest, OR-Bench, BeaverTails (whose `category` is an object of truth values: those that hold are the label),
    /// and records of our own with one round.
    fn prompt_and_response(&self) -> Result<Dialogue> {
        let mut messages = vec![self.user("prompt")?];
        messages
            .extend(self.text_if_any("response")?.map(|response| Message::new(Role::Assistant, response)));
        let mut dialogue = self.dialogue(&["id"], messages);
        if self.columns.contains_key("labels") {
            return self.with_own_labels(dialogue);
        }
        dialogue = self.with_other_labels(dialogue, &["id", "prompt", "response"]);
        if let Some(Value::Object(categories)) = self.columns.get("category") {
            let held = categories.iter().filter(|(_, held)| held.as_bool() == Some(true));
            let held = held.map(|(name, _)| name.clone()).collect();
            dialogue.labels.insert("category".into(), Label::List(held));
        }
        Ok(dialogue)
    }

    /// HarmBench puts the context, where there is one, before the behaviour, as its own baselines do.
    fn harmbench(&self) -> Result<Dialogue> {
        let mut message = self.user("Behavior")?;
        if let Some(context) = self.text_if_any("ContextString")? {
            message.content = format!("{context}\n\n---\n\n{}", message.content);
        }
        let dialogue = self.dialogue(&["BehaviorID"], vec![message]);
        let mut dialogue = self.with_other_labels(dialogue, &["Behavior", "ContextString", "BehaviorID"]);
        if let Some(Label::Text(tags)) = dialogue.labels.get("Tags") {
            let tags = tags.split(',').map(|tag| tag.trim().to_owned()).collect();
            dialogue.labels.insert("Tags".into(), Label::List(tags));
        }
        Ok(dialogue)
    }

    fn sharegpt(&self) -> Result<Dialogue> {
        let mut messages = self.messages("conversations")?;
        if let Some(system) = self.text_if_any("system")?
            && messages[0].role != Role::System
        {
            messages.insert(0, Message::new(Role::System, system));
        }
        let dialogue = self.dialogue(&["id"], messages);
        Ok(self.with_other_labels(dialogue, &["id", "conversations", "system"]))
    }

    /// One dialogue for each of the two answers, told apart by the label `answer`.
    fn contrast_pair(&self) -> Result<Vec<Dialogue>> {
        let sides =
            [("matching", "answer_matching_behavior"), ("not-matching", "answer_not_matching_behavior")];
        let dialogue = |(side, column): (&str, &str)| {
            let answer = Message::new(Role::Assistant, self.text(column)?);
            let dialogue = self.dialogue(&["id"], vec![self.user("question")?, answer]);
            let mut dialogue = self.with_other_labels(dialogue, &["id", "question", sides[0].1, sides[1].1]);
            dialogue.id = format!("{}#{side}", dialogue.id);
            dialogue.labels.insert("answer".into(), Label::Text(side.into()));
            Ok(dialogue)
        };
        sides.into_iter().map(dialogue).collect()
    }

    /// SafeMTData: what the user will say in each round; the answers are the model's to give.
    fn rounds_without_answers(&self) -> Result<Dialogue> {
        let column = "multi_turn_queries";
        let queries = self.value(column)?.as_array().map(|list| list.iter().map(Value::as_str));
        let queries: Option<Vec<&str>> = queries.and_then(|list| list.collect());
        let queries = queries.filter(|queries| !queries.is_empty()).ok_or_else(|| {
            let found = self.columns.get(column).map_or("nothing", kind);
            self.wrong(format!("{found} in `{column}`"), "a list of texts, at least one")
        })?;
        let messages = queries.into_iter().map(|query| Message::new(Role::User, query)).collect();
        let dialogue = self.dialogue(&["id", "query_id"], messages);
        Ok(self.with_other_labels(dialogue, &["id", column]))
    }

    fn mapped(&self, map: &ColumnMap) -> Result<Dialogue> {
        let column = |target: &str| map.column(target);
        let mut messages = Vec::new();
        if let Some(system) = column("system") {
            self.value(system)?;
            messages.extend(self.text_if_any(system)?.map(|text| Message::new(Role::System, text)));
        }
        if let Some(prompt) = column("prompt") {
            messages.push(self.user(prompt)?);
        }
        if let Some(list) = column("messages") {
            messages.extend(self.messages(list)?);
        }
        if let Some(response) = column("response") {
            self.value(response)?;
            messages.extend(self.text_if_any(response)?.map(|text| Message::new(Role::Assistant, text)));
        }
        if let Some(id) = column("id") {
            self.value(id)?;
        }
        let mut dialogue = self.dialogue(&[column("id").unwrap_or("id")], messages);
        for (name, column) in map.labels() {
            if let Some(label) = Self::label(self.value(column)?) {
                dialogue.labels.insert(name.into(), label);
            }
        }
        Ok(dialogue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(record: &str, map: Option<&str>) -> Result<Vec<Dialogue>> {
        let columns: Columns = serde_json::from_str(record).unwrap();
        let map = map.map(|map| map.parse().unwrap());
        dialogues(&columns, 5, &|| "here".into(), map.as_ref())
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
    fn recognises_the_known_layouts() {
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
    fn maps_other_columns() {
        let record = r#"{"text":"t","reply":"r","rules":"s","n":7,"harm":"high","rest":"x"}"#;
        let map = "prompt=text, response=reply,system=rules,id=n,label.risk=harm";
        assert_eq!(shown(record, Some(map)), "7|system:s|user:t|assistant:r|risk=high");
        let error = read(record, Some("prompt=words")).unwrap_err().to_string();
        assert!(
            error.starts_with("here: no column `words`; expected one of the columns text, reply"),
            "{error}"
        );
    }

    #[test]
    fn says_what_is_wrong() {
        for (record, found) in [
            (r#"{"words":"x"}"#, "no known layout (words)"),
            (r#"{"prompt":3}"#, "a number in `prompt`"),
            (r#"{"prompt":""}"#, "nothing in `prompt`"),
            (r#"{"messages":[]}"#, "no message"),
            (r#"{"messages":[{"role":"judge","content":"x"}]}"#, "the role `judge` in `messages` 0"),
            (r#"{"messages":[{"role":"user"}]}"#, "nothing as the content of `messages` 0"),
            (r#"{"prompt":"p","labels":{"a":{}}}"#, "an object in the label `a`"),
            (r#"{"multi_turn_queries":[1]}"#, "a list in `multi_turn_queries`"),
        ] {
            let error = read(record, None).unwrap_err().to_string();
            assert!(error.contains(found) && error.starts_with("here: "), "{error}");
        }
    }
}
