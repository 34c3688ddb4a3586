//! The options that say which model a command opens, and how.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::model::{Checkpoint, Dtype, Model};
use crate::organism;

/// Which model.
#[derive(Args)]
pub struct Choice {
    /// `organism`, a checkpoint folder, a GGUF file, or a model in the hub's cache: ORG/NAME, with @REVISION or without
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
    pub fn open(&self) -> anyhow::Result<Model> {
        self.options.open(&self.model)
    }

    /// What the model is; its weights are not read yet.
    pub fn checkpoint(&self) -> anyhow::Result<Checkpoint> {
        self.options.checkpoint(&self.model)
    }
}

impl Options {
    pub fn open(&self, name: &Path) -> anyhow::Result<Model> {
        Ok(self.checkpoint(name)?.load(self.dtype)?)
    }

    /// What the model is; its weights are not read yet.
    pub fn checkpoint(&self, name: &Path) -> anyhow::Result<Checkpoint> {
        let template = self.chat_template.as_deref();
        if name != Path::new("organism") {
            return Ok(Checkpoint::open(name, template)?);
        }
        let mut checkpoint = organism::checkpoint()?;
        if let Some(template) = template {
            checkpoint.chat = checkpoint.chat.with_template_file(template)?;
        }
        Ok(checkpoint)
    }
}
