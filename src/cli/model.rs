//! Options that say which model a command loads, and how.

use std::path::{Path, PathBuf};

use chrono::{Datelike, NaiveDate};
use clap::Args;

use super::console::Console;
use super::memory::set_purge_delay;
use pearlpoint::model::{Checkpoint, Dtype, Model};
use pearlpoint::pipeline::Loader;

/// A model that answers or reads dialogues.
#[derive(Args)]
pub struct ModelChoice {
    /// The model: `organism` (embedded), a checkpoint folder, a GGUF file, ORG/NAME or ORG/NAME@REVISION of the hub
    #[arg(long, default_value = "organism")]
    model: PathBuf,
    #[command(flatten)]
    options: ModelOptions,
    /// Turn the chat template's thinking mode off, if it has one
    #[arg(long)]
    no_think: bool,
}

/// How a model is loaded.
#[derive(Args)]
pub struct ModelOptions {
    /// Type that matrices are kept in: f32, bf16 or f16 [default: f32; a quantised GGUF file stays quantised]
    #[arg(long)]
    pub dtype: Option<Dtype>,
    /// A folder with a LoRA adapter (peft), merged into the model's weights as they are read
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// A chat template (Jinja) that replaces the model's own
    #[arg(long, value_name = "FILE")]
    pub chat_template: Option<PathBuf>,
    /// The day that a chat template is told that asks for one [default: today, in UTC]
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    pub date: Option<NaiveDate>,
    /// Take probes and vectors of other weights of the same model: another precision, or a fine-tune
    #[arg(long)]
    pub other_weights: bool,
}

impl ModelChoice {
    pub fn load(&self, console: &Console) -> anyhow::Result<Model> {
        self.options.load(&self.model, console)
    }

    /// Opens the checkpoint without reading its weights.
    pub fn checkpoint(&self, console: &Console) -> anyhow::Result<Checkpoint> {
        self.options.checkpoint(&self.model, console)
    }

    /// The mode that is passed to the chat template; its own default without `--no-think`.
    pub fn thinking(&self) -> Option<bool> {
        self.no_think.then_some(false)
    }
}

impl ModelOptions {
    pub fn load(&self, name: &Path, console: &Console) -> anyhow::Result<Model> {
        // While weights are read, the buffer of one matrix should be gone before the next is read. Later, a forward pass takes
        // as much as the one before it, and its pages would only be faulted in again: 4 % of a pass in bf16.
        set_purge_delay(0);
        let model = self.checkpoint(name, console)?.load(self.dtype);
        set_purge_delay(10_000);
        let mut model = model?;
        model.other_weights = console.other_weights(self.other_weights);
        Ok(model)
    }

    /// Opens the checkpoint without reading its weights.
    pub fn checkpoint(&self, name: &Path, console: &Console) -> anyhow::Result<Checkpoint> {
        let mut loader = Model::loader(name);
        if let Some(file) = &self.chat_template {
            loader = loader.chat_template(file);
        }
        if let Some(folder) = &self.adapter {
            loader = loader.adapter(folder);
        }
        if let Some(date) = self.date {
            loader = loader.date(date);
        }
        Ok(with_progress(loader, name, console).checkpoint()?)
    }
}

/// A day as YYYY-MM-DD, in the years 1000 to 9999: Python writes others without leading zeros.
fn day(text: &str) -> Result<NaiveDate, String> {
    let parts: Vec<&str> = text.split('-').collect();
    let numbers = match parts.as_slice() {
        [year, month, day] if (year.len(), month.len(), day.len()) == (4, 2, 2) => {
            let number =
                |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?;
            number(year).zip(number(month)).zip(number(day))
        }
        _ => None,
    };
    let Some(((year, month), day)) = numbers else {
        return Err("not a day; expected YYYY-MM-DD, such as 2025-01-31".into());
    };
    if year < 1000 {
        return Err(format!("the year {year}; expected one from 1000 to 9999"));
    }
    let Some(first) = i32::try_from(year).ok().and_then(|year| NaiveDate::from_ymd_opt(year, month, 1))
    else {
        return Err(format!("the month {month}; expected one from 01 to 12"));
    };
    let last = u32::from(first.num_days_in_month());
    first.with_day(day).ok_or_else(|| {
        format!("the day {day}; expected one from 01 to {last}, as {} has", first.format("%B %Y"))
    })
}

/// Shows the progress of a download.
#[cfg(feature = "hub")]
fn with_progress<'a>(loader: Loader<'a>, name: &'a Path, console: &'a Console) -> Loader<'a> {
    use pearlpoint::printable::one_line;

    let (bar, mut announced) = (console.bytes("fetching"), false);
    loader.on_fetch(move |fetched| {
        if fetched.total > 0 && !std::mem::replace(&mut announced, true) {
            console.say(format!("{}: {} to fetch", name.display(), indicatif::HumanBytes(fetched.total)));
        }
        bar.bar.set_length(fetched.total);
        bar.bar.set_message(one_line(&fetched.file, 60).into_owned());
        bar.done(fetched.done as usize)
    })
}

#[cfg(not(feature = "hub"))]
fn with_progress<'a>(loader: Loader<'a>, _: &'a Path, _: &'a Console) -> Loader<'a> {
    loader
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_one_of_the_calendar() {
        assert_eq!(day("2024-02-29"), Ok(NaiveDate::from_ymd_opt(2024, 2, 29).unwrap()));
        for (text, expected) in [
            ("2024-02-30", "the day 30; expected one from 01 to 29, as February 2024 has"),
            ("2023-02-29", "from 01 to 28, as February 2023 has"),
            ("2024-04-00", "the day 0; expected one from 01 to 30"),
            ("2024-13-01", "the month 13; expected one from 01 to 12"),
            ("2024-00-01", "the month 0;"),
            ("0000-01-01", "the year 0; expected one from 1000 to 9999"),
            ("0999-01-01", "the year 999;"),
            ("-2024-01-01", "not a day; expected YYYY-MM-DD"),
            ("+2024-01-01", "not a day"),
            ("12024-01-01", "not a day"),
            ("2024-1-1", "not a day"),
            ("2024-+1-01", "not a day"),
            ("2024/01/01", "not a day"),
            ("20240101", "not a day"),
            ("", "not a day"),
            ("today", "not a day"),
            (" 2024-01-01", "not a day"),
        ] {
            let error = day(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
