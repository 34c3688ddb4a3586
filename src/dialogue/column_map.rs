//! Column maps: the user's description of a file's columns (`--map`).

use std::str::FromStr;

use crate::error::{Error, Result};

/// A map from targets to columns: `prompt=COLUMN,response=COLUMN,label.risk=COLUMN`.
///
/// Targets are `prompt` or `messages` (exactly one of them), `response`, `system`, `id` and `label.NAME`.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnMap(Vec<(String, String)>);

impl FromStr for ColumnMap {
    type Err = Error;

    fn from_str(text: &str) -> Result<ColumnMap> {
        let expected = "TARGET=COLUMN,… with a target of prompt, response, system, messages, id or label.NAME, \
                        prompt or messages among them";
        let wrong = |found: String| Error::input(format!("map {text}"), found, expected);
        let mut map: Vec<(String, String)> = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (target, column) = part.split_once('=').ok_or_else(|| wrong(format!("`{part}`")))?;
            let known = ["prompt", "response", "system", "messages", "id"].contains(&target)
                || target.strip_prefix("label.").is_some_and(|name| !name.is_empty());
            if !known || column.is_empty() {
                return Err(wrong(format!("`{part}`")));
            }
            if map.iter().any(|(other, _)| other == target) {
                return Err(wrong(format!("`{target}` twice")));
            }
            map.push((target.into(), column.into()));
        }
        let map = ColumnMap(map);
        match (map.column("prompt"), map.column("messages")) {
            (None, None) => Err(wrong("neither prompt nor messages".into())),
            (Some(_), Some(_)) => Err(wrong("both prompt and messages".into())),
            _ => Ok(map),
        }
    }
}

impl std::fmt::Display for ColumnMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|(target, column)| format!("{target}={column}")).collect();
        f.write_str(&pairs.join(","))
    }
}

impl serde::Serialize for ColumnMap {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ColumnMap {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<ColumnMap, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl ColumnMap {
    /// The column of a target.
    pub(super) fn column(&self, target: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == target).map(|(_, column)| column.as_str())
    }

    /// Label names and their columns.
    pub(super) fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(target, column)| Some((target.strip_prefix("label.")?, column.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_ambiguous_and_incomplete_maps() {
        let map: ColumnMap = "prompt=a b, label.x=c=d".parse().unwrap();
        assert_eq!((map.column("prompt"), map.labels().next()), (Some("a b"), Some(("x", "c=d"))));
        assert_eq!(map.to_string().parse::<ColumnMap>().unwrap(), map);
        let wrong = [
            "",
            "prompt",
            "label.=x,prompt=p",
            "label.a=b",
            "prompt=a,messages=b",
            "prompt=a,prompt=b",
            "x=y",
            "prompt=",
        ];
        for map in wrong {
            assert!(map.parse::<ColumnMap>().is_err(), "{map}");
        }
    }
}
