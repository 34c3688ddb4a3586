//! A model by its name: the embedded one, a folder, a GGUF file, or a repository of the hub.

use std::path::{Path, PathBuf};

use chrono::NaiveDate;

use crate::error::Result;
#[cfg(feature = "hub")]
use crate::model::Fetched;
use crate::model::{Checkpoint, Dtype, Model};
use crate::{organism, runtime};

/// The name of the embedded model.
const ORGANISM: &str = "organism";

impl Model {
    /// Loads a model: `organism` for the embedded one, a checkpoint folder, a GGUF file, or a repository of the hub
    /// (`ORG/NAME`, with `@REVISION` or without), which is fetched first if it is not in the hub's cache (feature `hub`).
    ///
    /// Matrices are kept in f32, or as they are stored in a quantised GGUF file; see [`Model::loader`] for the options.
    ///
    /// # Errors
    /// No model of that name; a family, a tensor or a template that can't be used; a download that fails.
    pub fn load(name: impl AsRef<Path>) -> Result<Model> {
        Model::loader(name).load()
    }

    /// As [`Model::load`], with options.
    pub fn loader<'a>(name: impl AsRef<Path>) -> Loader<'a> {
        Loader {
            name: name.as_ref().to_owned(),
            dtype: None,
            chat_template: None,
            adapter: None,
            date: None,
            #[cfg(feature = "hub")]
            on_fetch: None,
            #[cfg(not(feature = "hub"))]
            on_fetch: std::marker::PhantomData,
        }
    }
}

/// A callback that hears how much of a model is fetched, and stops the download by returning false.
#[cfg(feature = "hub")]
type OnFetch<'a> = Box<dyn FnMut(&Fetched) -> bool + 'a>;

/// How a model is loaded.
#[must_use]
pub struct Loader<'a> {
    name: PathBuf,
    dtype: Option<Dtype>,
    chat_template: Option<PathBuf>,
    adapter: Option<PathBuf>,
    date: Option<NaiveDate>,
    #[cfg(feature = "hub")]
    on_fetch: Option<OnFetch<'a>>,
    #[cfg(not(feature = "hub"))]
    on_fetch: std::marker::PhantomData<&'a ()>,
}

impl<'a> Loader<'a> {
    /// The type that matrices are kept in.
    pub fn dtype(mut self, dtype: Dtype) -> Loader<'a> {
        self.dtype = Some(dtype);
        self
    }

    /// A file with a chat template (Jinja) that replaces the model's own.
    pub fn chat_template(mut self, file: impl AsRef<Path>) -> Loader<'a> {
        self.chat_template = Some(file.as_ref().to_owned());
        self
    }

    /// A folder with a LoRA adapter (peft), merged into the weights as they are read.
    pub fn adapter(mut self, folder: impl AsRef<Path>) -> Loader<'a> {
        self.adapter = Some(folder.as_ref().to_owned());
        self
    }

    /// The day that the chat template is told where it asks for one (`strftime_now`): today in UTC by default.
    pub fn date(mut self, date: NaiveDate) -> Loader<'a> {
        self.date = Some(date);
        self
    }

    /// Hears how far a download has come, and stops it by returning false.
    #[cfg(feature = "hub")]
    pub fn on_fetch(mut self, on_fetch: impl FnMut(&Fetched) -> bool + 'a) -> Loader<'a> {
        self.on_fetch = Some(Box::new(on_fetch));
        self
    }

    /// Loads the model, weights included.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load(self) -> Result<Model> {
        let dtype = self.dtype;
        self.checkpoint()?.load(dtype)
    }

    /// Opens the checkpoint without reading its weights.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn checkpoint(self) -> Result<Checkpoint> {
        let (date, adapter) = (self.date, self.adapter.clone());
        let mut checkpoint = self.open()?;
        if let Some(folder) = adapter {
            checkpoint = checkpoint.with_adapter(&folder)?;
        }
        if let Some(date) = date {
            checkpoint.chat.fix_date(date);
        }
        Ok(checkpoint)
    }

    fn open(self) -> Result<Checkpoint> {
        runtime::set_up_threads();
        let template = self.chat_template.as_deref();
        if self.name == Path::new(ORGANISM) {
            let mut checkpoint = organism::checkpoint()?;
            if let Some(template) = template {
                checkpoint.chat = checkpoint.chat.with_template_file(template)?;
            }
            return Ok(checkpoint);
        }
        #[cfg(feature = "hub")]
        {
            let mut on_fetch = self.on_fetch;
            crate::model::fetch(&self.name, &mut |fetched| {
                on_fetch.as_mut().is_none_or(|call| call(fetched))
            })?;
        }
        Checkpoint::open(&self.name, template)
    }
}
