//! Options that say which model a command loads, and how.

use std::path::{Path, PathBuf};

use chrono::NaiveDate;
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
    /// A chat template (Jinja) that replaces the model's own
    #[arg(long, value_name = "FILE")]
    pub chat_template: Option<PathBuf>,
    /// The day that a chat template is told that asks for one [default: today, in UTC]
    #[arg(long, value_name = "YYYY-MM-DD")]
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
        if let Some(date) = self.date {
            loader = loader.date(date);
        }
        Ok(with_progress(loader, name, console).checkpoint()?)
    }
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
