//! The template engine, configured as transformers configures Jinja: filters, tests, functions, and the clock.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, Utc};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, ErrorKind, State, escape_formatter};

use super::python_compat;

/// The longest format of `strftime_now`, in bytes.
const MAX_DATE_FORMAT: usize = 1024;

/// Name of the filter that every assignment goes through; no template uses it.
pub(super) const MATERIALIZE: &str = "pearlpoint_materialize";

/// The time that `strftime_now` tells.
pub(super) struct Clock {
    /// In seconds since 1970, UTC.
    pub(super) seconds: AtomicI64,
    pub(super) fixed: AtomicBool,
}

impl Clock {
    /// Now, or the fixed time.
    pub(super) fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.seconds.load(Ordering::Relaxed), 0).unwrap_or_default()
    }
}

/// The engine as transformers configures Jinja, with the template under the name `chat`.
pub(super) fn environment(
    source: String,
    clock: Arc<Clock>,
    fuel: u64,
) -> std::result::Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_debug(false);
    environment.set_fuel(Some(fuel));
    environment.set_unknown_method_callback(python_compat::method);
    environment.set_formatter(|out, state, value| {
        let written = match value.kind() {
            ValueKind::Bool => Some(if value.is_true() { "True" } else { "False" }.to_owned()),
            ValueKind::None => Some("None".to_owned()),
            ValueKind::Number if !value.is_integer() => {
                f64::try_from(value.clone()).ok().map(python_compat::float)
            }
            // Writing a list isn't charged, and a small one can expand without limit: walk it with fuel first.
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
                return escape_formatter(out, state, &python_compat::materialize(state, value)?);
            }
            _ => None,
        };
        match written {
            Some(written) => out.write_str(&written).map_err(minijinja::Error::from),
            None => escape_formatter(out, state, value),
        }
    });
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", move |format: &str| {
        let wrong = |problem| Err(minijinja::Error::new(ErrorKind::InvalidOperation, problem));
        if format.len() > MAX_DATE_FORMAT {
            return wrong(format!(
                "strftime_now has a format of {} bytes, above the limit of {MAX_DATE_FORMAT}",
                format.len()
            ));
        }
        strftime(clock.now(), format)
            .map_or_else(|| wrong(format!("strftime_now does not know the format {format}")), Ok)
    });
    environment
        .add_filter(MATERIALIZE, |state: &State, value: &Value| python_compat::materialize(state, value));
    environment.add_filter("tojson", python_compat::tojson);
    environment.add_filter("trim", python_compat::trim);
    environment.add_filter("int", python_compat::int);
    environment.add_filter("default", python_compat::default);
    environment.add_filter("d", python_compat::default);
    environment.add_test("sequence", python_compat::is_sequence);
    environment.add_test("iterable", python_compat::is_iterable);
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    environment.add_template_owned("chat", source)?;
    Ok(environment)
}

fn raise_exception(message: &str) -> std::result::Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message.to_owned()))
}

/// Python's `strftime`. `None` for a directive that isn't known, or that Python writes otherwise than chrono.
fn strftime(time: DateTime<Utc>, format: &str) -> Option<String> {
    let items = StrftimeItems::new(format);
    // chrono's `%f` is nanoseconds, Python's microseconds; `%+` is chrono's alone.
    let differs = |item: &Item| {
        use chrono::format::{Fixed, Numeric};
        match item {
            Item::Error => true,
            Item::Numeric(kind, _) => *kind == Numeric::Nanosecond,
            Item::Fixed(kind) => !matches!(
                kind,
                Fixed::ShortMonthName
                    | Fixed::LongMonthName
                    | Fixed::ShortWeekdayName
                    | Fixed::LongWeekdayName
                    | Fixed::UpperAmPm
                    | Fixed::TimezoneName
                    | Fixed::TimezoneOffset
            ),
            _ => false,
        }
    };
    if items.clone().any(|item| differs(&item)) {
        return None;
    }
    let mut text = String::new();
    // `to_string` would panic where formatting fails.
    write!(text, "{}", time.format_with_items(items)).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn writes_dates_as_python_does() {
        // datetime.fromtimestamp(t, timezone.utc).strftime(f)
        let date = |seconds, format| strftime(at(seconds), format).unwrap();
        assert_eq!(date(1_709_164_800, "%d %b %Y"), "29 Feb 2024");
        assert_eq!(
            date(1_785_571_504, "%A, %B %-d, %Y, %I:%M %p %%"),
            "Saturday, August 1, 2026, 08:05 AM %"
        );
        assert_eq!(date(0, "%F %T %a"), "1970-01-01 00:00:00 Thu");
        assert_eq!(date(951_782_399, "%F %T %a"), "2000-02-28 23:59:59 Mon");
        assert_eq!(date(951_782_399, "%y/%m %H:%S %j %Z %-H%-M"), "00/02 23:59 059 UTC 2359");
        assert!(strftime(at(0), "%Q").is_none() && strftime(at(0), "%").is_none());
        for differs in ["%f", "%.3f", "%3f", "%+", "%#z", "%:::z", "%-", "%-p", "100%"] {
            assert_eq!(strftime(at(0), differs), None, "{differs}");
        }
    }
}
