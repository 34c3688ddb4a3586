//! The options that say which model a command opens, and how.

use std::path::{Path, PathBuf};

use clap::Args;

use super::memory::pages_go_back_after;
use super::progress::Console;
use pearlpoint::model::{Checkpoint, Dtype, Model};
use pearlpoint::organism;

/// Which model.
#[derive(Args)]
pub struct Choice {
    /// `organism`, a checkpoint folder, a GGUF file, or a model of the hub: ORG/NAME, with @REVISION or without
    #[arg(long, default_value = "organism")]
    model: PathBuf,
    #[command(flatten)]
    options: Options,
}

/// How a model is opened.
#[derive(Args)]
pub struct Options {
    /// Type that the matrices are kept in: f32, bf16 or f16. Left out, it is f32, but a quantised GGUF file's stay what
    /// they are
    #[arg(long)]
    pub dtype: Option<Dtype>,
    /// A chat template (Jinja) instead of the model's own
    #[arg(long, value_name = "FILE")]
    pub chat_template: Option<PathBuf>,
}

impl Choice {
    pub fn open(&self, talk: &Console) -> anyhow::Result<Model> {
        self.options.open(&self.model, talk)
    }

    /// What the model is; its weights are not read yet.
    pub fn checkpoint(&self, talk: &Console) -> anyhow::Result<Checkpoint> {
        self.options.checkpoint(&self.model, talk)
    }
}

impl Options {
    pub fn open(&self, name: &Path, talk: &Console) -> anyhow::Result<Model> {
        // What one matrix was read into should be gone when the next one is read; but a pass's buffers are as large as those of
        // the one before it, and their pages would only be faulted in anew: a second's wait costs 4 % of a pass in bf16.
        pages_go_back_after(0);
        let model = self.checkpoint(name, talk)?.load(self.dtype);
        pages_go_back_after(10_000);
        Ok(model?)
    }

    /// What the model is; its weights are not read yet.
    pub fn checkpoint(&self, name: &Path, talk: &Console) -> anyhow::Result<Checkpoint> {
        let template = self.chat_template.as_deref();
        if name != Path::new("organism") {
            fetch(name, talk)?;
            return Ok(Checkpoint::open(name, template)?);
        }
        let mut checkpoint = organism::checkpoint()?;
        if let Some(template) = template {
            checkpoint.chat = checkpoint.chat.with_template_file(template)?;
        }
        Ok(checkpoint)
    }
}

/// Fetches a model of the hub that is not in its cache yet.
#[cfg(feature = "hub")]
fn fetch(name: &Path, talk: &Console) -> anyhow::Result<()> {
    let bar = talk.bytes("fetching");
    let mut said = false;
    pearlpoint::model::fetch(name, &mut |fetched| {
        if fetched.total > 0 && !std::mem::replace(&mut said, true) {
            talk.say(format!("{}: {} to fetch", name.display(), indicatif::HumanBytes(fetched.total)));
        }
        bar.set_length(fetched.total);
        bar.set_position(fetched.done);
        bar.set_message(fetched.file.clone());
        talk.should_continue()
    })?;
    bar.finish_and_clear();
    Ok(())
}

#[cfg(not(feature = "hub"))]
fn fetch(_: &Path, _: &Console) -> anyhow::Result<()> {
    Ok(())
}
