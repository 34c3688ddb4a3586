//! Python's `json.dumps` for template values, paid for with the template's fuel.

use minijinja::State;
use minijinja::value::{Kwargs, Value, ValueKind};

use super::values::{MAX_DEPTH, MAX_WIDTH, Result, float, wrong};

/// The `tojson` filter of transformers: `json.dumps(value, ensure_ascii=False, indent=None, separators=None,
/// sort_keys=False)`.
pub(crate) fn tojson(
    state: &State,
    value: &Value,
    indent: Option<Value>,
    arguments: Kwargs,
) -> Result<Value> {
    let indent = indent.map_or_else(|| arguments.get::<Option<Value>>("indent"), |value| Ok(Some(value)))?;
    let indent = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(text) if text.as_str().is_some() => Some(text.to_string()),
        Some(count) => Some(" ".repeat(usize::try_from(count).map_or(0, |count| count.min(MAX_WIDTH)))),
    };
    let separators: Option<Value> = arguments.get("separators")?;
    let [item, key] = match separators.filter(|separators| !separators.is_none()) {
        None if indent.is_some() => [",".into(), ": ".into()],
        None => [", ".into(), ": ".into()],
        Some(both) => {
            let both: Vec<String> = both.try_iter()?.map(|one| one.to_string()).collect();
            <[String; 2]>::try_from(both).map_err(|_| wrong("separators other than a pair"))?
        }
    };
    let ascii = arguments.get::<Option<bool>>("ensure_ascii")? == Some(true);
    let sorted = arguments.get::<Option<bool>>("sort_keys")? == Some(true);
    arguments.assert_all_used()?;
    let mut json = JsonWriter { state, indent, item, key, ascii, sorted, text: String::new(), paid: 0 };
    json.write(value, 0)?;
    Ok(Value::from_safe_string(json.text))
}

struct JsonWriter<'a> {
    state: &'a State<'a, 'a>,
    indent: Option<String>,
    /// Separator between items.
    item: String,
    /// Separator between a key and its value.
    key: String,
    ascii: bool,
    sorted: bool,
    text: String,
    /// Bytes of `text` that fuel was taken for.
    paid: usize,
}

impl JsonWriter<'_> {
    fn write(&mut self, value: &Value, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(wrong(format!("JSON of lists nested more than {MAX_DEPTH} deep")));
        }
        // Charged while it grows: a small template can ask for very much.
        self.state.consume_fuel(1 + ((self.text.len() - self.paid) / 16) as u64)?;
        self.paid = self.text.len();
        match value.kind() {
            ValueKind::None => self.text += "null",
            ValueKind::Bool => self.text += if value.is_true() { "true" } else { "false" },
            ValueKind::Number if value.is_integer() => self.text += &value.to_string(),
            ValueKind::Number => {
                let number = float(f64::try_from(value.clone())?);
                self.text += match number.as_str() {
                    "nan" => "NaN",
                    "inf" => "Infinity",
                    "-inf" => "-Infinity",
                    finite => finite,
                };
            }
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.map(|item| (None, item));
                self.block(['[', ']'], items, depth)?;
            }
            ValueKind::Map => {
                let mut pairs = Vec::new();
                for key in value.try_iter()? {
                    let item = value.get_item(&key)?;
                    pairs.push((Some(key), item));
                }
                if self.sorted {
                    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.block(['{', '}'], pairs.into_iter(), depth)?;
            }
            kind => return Err(wrong(format!("{kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn block(
        &mut self,
        [open, close]: [char; 2],
        items: impl Iterator<Item = (Option<Value>, Value)>,
        depth: usize,
    ) -> Result<()> {
        self.text.push(open);
        let mut any = false;
        for (key, item) in items {
            if any {
                self.text.push_str(&self.item);
            }
            any = true;
            self.line(depth + 1);
            if let Some(key) = key {
                match key.kind() {
                    ValueKind::String => self.string(key.as_str().unwrap_or_default()),
                    // Other keys are written as values in quotes.
                    _ => {
                        self.text.push('"');
                        self.write(&key, depth + 1)?;
                        self.text.push('"');
                    }
                }
                self.text.push_str(&self.key);
            }
            self.write(&item, depth + 1)?;
        }
        if any {
            self.line(depth);
        }
        self.text.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.text.push('\n');
            self.text.push_str(&indent.repeat(depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for letter in text.chars() {
            match letter {
                '"' => self.text += "\\\"",
                '\\' => self.text += "\\\\",
                '\n' => self.text += "\\n",
                '\r' => self.text += "\\r",
                '\t' => self.text += "\\t",
                '\x08' => self.text += "\\b",
                '\x0c' => self.text += "\\f",
                '\0'..='\x1f' => self.text += &format!("\\u{:04x}", letter as u32),
                '\x7f'.. if self.ascii && letter != '\x7f' => {
                    let units = &mut [0; 2];
                    letter.encode_utf16(units).iter().for_each(|unit| self.text += &format!("\\u{unit:04x}"));
                }
                _ => self.text.push(letter),
            }
        }
        self.text.push('"');
    }
}
