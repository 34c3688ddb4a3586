//! Extraction of activations: into memory with their labels, or into a store.

use std::path::Path;

use super::{OnProgress, should_continue};
use crate::activations::{self, ExtractProgress, Labelled, Manifest, Part, Reading, Summary};
use crate::artifact::{self, Header};
use crate::dialogue::{self, Dialogues, Options, Survey};
use crate::error::Result;
use crate::model::{Dtype, Model};
use crate::progress::Progress;

/// Tokens of a batch where none are given: enough to fill the matrix products, few enough for a laptop's memory.
const BATCH_TOKENS: usize = 2048;

impl Model {
    /// Reads the activations of dialogues: `sites` such as `*.resid_post` or `3,5.mlp_out`, `tokens` such as `last`,
    /// `assistant.start` or `mean(answer)`.
    ///
    /// # Errors
    /// A site or selector that does not exist; a dialogue that the chat template refuses; no token that is selected.
    pub fn extract(&self, data: &Dialogues, sites: &str, tokens: &str) -> Result<Labelled> {
        self.extraction(sites, tokens)?.run(data)
    }

    /// As [`Model::extract`], with options, and with a store as a second place to write to.
    ///
    /// # Errors
    /// A site or selector that does not exist.
    pub fn extraction(&self, sites: &str, tokens: &str) -> Result<Extraction<'_>> {
        let request = Reading {
            sites: self.decoder.architecture().parse_sites(sites)?,
            tokens: tokens.parse()?,
            thinking: None,
            batch_tokens: BATCH_TOKENS,
        };
        Ok(Extraction { model: self, request, store_dtype: Dtype::F32, part: None, on_progress: None })
    }
}

/// Which activations of a model are read, and how.
#[must_use]
pub struct Extraction<'a> {
    model: &'a Model,
    request: Reading,
    store_dtype: Dtype,
    part: Option<Part>,
    on_progress: Option<OnProgress<'a>>,
}

impl<'a> Extraction<'a> {
    /// The thinking or the plain mode, for chat templates that have both.
    pub fn thinking(mut self, thinking: Option<bool>) -> Extraction<'a> {
        self.request.thinking = thinking;
        self
    }

    /// Tokens of a batch, at most, unless one dialogue alone is longer.
    pub fn batch_tokens(mut self, tokens: usize) -> Extraction<'a> {
        self.request.batch_tokens = tokens;
        self
    }

    /// The type that a store keeps activations in: f32, f16 or bf16.
    pub fn store_dtype(mut self, dtype: Dtype) -> Extraction<'a> {
        self.store_dtype = dtype;
        self
    }

    /// Records only this part of the dialogues; [`activations::merge`] joins the parts.
    pub fn part(mut self, part: Option<Part>) -> Extraction<'a> {
        self.part = part;
        self
    }

    /// Hears how many dialogues [`Extraction::run`] has read, and stops it by returning false.
    pub fn on_progress(mut self, on_progress: impl FnMut(Progress) -> bool + 'a) -> Extraction<'a> {
        self.on_progress = Some(Box::new(on_progress));
        self
    }

    /// Reads the activations into memory.
    ///
    /// # Errors
    /// A dialogue that the chat template refuses; no token that is selected.
    pub fn run(mut self, data: &Dialogues) -> Result<Labelled> {
        let total = data.dialogues.len();
        let on_progress = &mut self.on_progress;
        let read = activations::extract(self.model, &data.dialogues, &self.request, &mut |done| {
            should_continue(on_progress, "reading", done, total)
        })?;
        Labelled::new(self.header(), self.request.tokens.clone(), read, data.clone())
    }

    /// Reads the activations of a file's dialogues into the store `folder`, in memory that does not grow with the file. A
    /// run that was stopped goes on from what the folder holds. `survey` is what [`dialogue::survey`] says of the file.
    ///
    /// # Errors
    /// A folder that another run made; a dialogue that the chat template refuses, unless `options.skip_bad`.
    pub fn record(
        self,
        file: impl AsRef<Path>,
        (options, survey): (&Options, &Survey),
        folder: impl AsRef<Path>,
        on_progress: &mut dyn FnMut(ExtractProgress) -> bool,
    ) -> Result<Summary> {
        let file = file.as_ref();
        let header = Header { data_hash: Some(survey.hash.clone()), ..self.header() };
        let (model, request) = (self.model, &self.request);
        let family = &model.decoder.architecture().family;
        let manifest = Manifest {
            chosen: options.clone(),
            dtype: self.store_dtype.to_string(),
            weights: Some(model.dtype.clone()),
            template: model.chat.template().map(|source| artifact::sha256(source.as_bytes())),
            thinking: request.thinking,
            batch_tokens: Some(request.batch_tokens),
            part: self.part,
            ..Manifest::new(family, &file.display().to_string(), request.sites.clone(), &request.tokens)
        };
        let mut stream = dialogue::stream(file, options)?;
        activations::extract_to(folder.as_ref(), model, request, &header, &manifest, &mut stream, on_progress)
    }

    fn header(&self) -> Header {
        Header {
            model: Some(self.model.name.clone()),
            model_hash: Some(self.model.hash.clone()),
            ..Header::new("activations", 1)
        }
    }
}
