//! Chains as Oyster-I writes them: a JSON object of four nodes, strategies parted by `;`, no risk as `""`.

use serde_json::{Map, Value, json};

use super::chain::{Chain, Kind, Strategy, intent_of_text};
use crate::error::{Error, Result};

/// Keys of the nodes.
const KEYS: [&str; 4] =
    ["User Needs Analysis", "Risk Intent Analysis", "Safety Guidelines", "Response Strategy Formulation"];
/// Keys of the strategies, by kind.
const STRATEGIES: [(&str, Kind); 2] =
    [("Safety Strategies", Kind::Safety), ("Usefulness Strategies", Kind::Usefulness)];

/// Reads a chain. Keys are compared without case, blanks and punctuation; a fence of backticks around the object is taken off.
///
/// # Errors
/// Text that is no JSON object; a node that is missing; a value of another form.
pub fn parse(place: &str, text: &str) -> Result<Chain> {
    let text = unfenced(text);
    let value: Value = serde_json::from_str(text)
        .map_err(|error| Error::input(place, error, "a safety chain as a JSON object of four nodes"))?;
    let object = value.as_object().ok_or_else(|| {
        Error::input(place, "JSON that is no object", "a safety chain as a JSON object of four nodes")
    })?;
    let node = |key: &str| {
        field(object, key).ok_or_else(|| {
            let names: Vec<&str> = object.keys().map(String::as_str).take(8).collect();
            let found = format!("a chain without {key:?} among {}", names.join(", "));
            Error::input(place, found, KEYS.join(", "))
        })
    };
    let [needs, risk_intent, guidelines] =
        [KEYS[0], KEYS[1], KEYS[2]].map(|key| text_of(place, key, node(key)?));
    let (needs, risk_intent, guidelines) = (needs?, risk_intent?, guidelines?);
    let formulation = node(KEYS[3])?;
    let parts = formulation.as_object().ok_or_else(|| {
        let expected = format!("an object with {}", STRATEGIES.map(|(key, _)| key).join(" and "));
        Error::input(format!("{place}, {}", KEYS[3]), "no object", expected)
    })?;
    let mut strategies = Vec::new();
    for (key, kind) in STRATEGIES {
        let part = field(parts, key).ok_or_else(|| {
            Error::input(format!("{place}, {}", KEYS[3]), format!("no {key:?}"), "both kinds, \"\" for none")
        })?;
        let text = text_of(place, key, part)?;
        let own = text.split(';').map(str::trim).filter(|text| !text.is_empty());
        strategies.extend(own.map(|text| Strategy::new(kind, text)));
    }
    let chain = Chain { intent: intent_of_text(&risk_intent), needs, risk_intent, guidelines, strategies };
    chain.check(place)?;
    Ok(chain)
}

/// The chain as Oyster-I writes it.
pub fn to_json(chain: &Chain) -> Value {
    let of =
        |kind: Kind| chain.of(kind).map(|strategy| strategy.text.as_str()).collect::<Vec<_>>().join("; ");
    json!({
        KEYS[0]: chain.needs,
        KEYS[1]: chain.risk_intent,
        KEYS[2]: chain.guidelines,
        KEYS[3]: { STRATEGIES[0].0: of(Kind::Safety), STRATEGIES[1].0: of(Kind::Usefulness) },
    })
}

/// The text without a fence of backticks around it.
pub(super) fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let Some(inside) = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```")) else {
        return text;
    };
    inside.strip_prefix("json").unwrap_or(inside).trim()
}

/// Letters and digits of a key, in lower case.
fn plain(key: &str) -> String {
    key.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn field<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.iter().find(|(name, _)| plain(name) == plain(key)).map(|(_, value)| value)
}

/// A text, a list of texts (joined by `;`), or an object of texts (likewise); null is empty.
fn text_of(place: &str, key: &str, value: &Value) -> Result<String> {
    let wrong = || Error::input(format!("{place}, {key}"), value, "a text");
    let join = |parts: Vec<&Value>| -> Result<String> {
        let texts: Option<Vec<&str>> = parts.into_iter().map(Value::as_str).collect();
        let texts = texts.ok_or_else(wrong)?;
        Ok(texts.into_iter().map(str::trim).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; "))
    };
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.trim().to_owned()),
        Value::Array(parts) => join(parts.iter().collect()),
        Value::Object(parts) => join(parts.values().collect()),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::organism::Intent;

    const CHAIN: &str = r#"{"User Needs Analysis": "wants to sleep better", "Risk Intent Analysis": "overuse; inquiry for information",
        "Safety Guidelines": "no doses", "Response Strategy Formulation": {"Safety Strategies": "name no dose; point to a pharmacist",
        "Usefulness Strategies": "explain habits"}}"#;

    #[test]
    fn a_chain_is_read_and_written_again() {
        let chain = parse("c", CHAIN).unwrap();
        assert_eq!(
            chain.of(Kind::Safety).map(|s| s.text.as_str()).collect::<Vec<_>>(),
            ["name no dose", "point to a pharmacist"]
        );
        assert_eq!(
            (chain.needs.as_str(), chain.intent),
            ("wants to sleep better", Some(Intent::Information))
        );
        assert_eq!(parse("c", &to_json(&chain).to_string()).unwrap(), chain);
        assert_eq!(parse("c", &format!("```json\n{CHAIN}\n```")).unwrap(), chain);
    }

    #[test]
    fn no_risk_is_two_empty_fields() {
        let text = CHAIN
            .replace("overuse; inquiry for information", "")
            .replace("no doses", "")
            .replace("name no dose; point to a pharmacist", "");
        let chain = parse("c", &text).unwrap();
        assert!(chain.has_no_risk() && chain.of(Kind::Safety).next().is_none());
    }

    #[test]
    fn other_texts_are_refused_with_what_is_missing() {
        for (text, part) in [
            ("nothing".to_owned(), "JSON object of four nodes"),
            ("[1]".to_owned(), "JSON that is no object"),
            (CHAIN.replace("Safety Guidelines", "Rules"), "a chain without \"Safety Guidelines\""),
            (CHAIN.replace("\"no doses\"", "3"), "Safety Guidelines: 3"),
            (CHAIN.replace("Usefulness Strategies", "Others"), "no \"Usefulness Strategies\""),
            (CHAIN.replace("wants to sleep better", " "), "a chain without needs"),
        ] {
            let error = parse("line 2", &text).unwrap_err().to_string();
            assert!(error.starts_with("line 2") && error.contains(part), "{error}");
        }
    }
}
