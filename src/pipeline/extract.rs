//! Extraction of activations: into memory with their labels, or into a store.

use std::path::Path;

use super::{OnProgress, should_continue};
use crate::activations::{
    self, ExtractProgress, Labelled, Part, Request, Steering, StoreOptions, Summary, extract_steered_to_store,
};
use crate::artifact::Header;
use crate::dialogue::{Dialogue, Dialogues, ReadOptions};
use crate::error::Result;
use crate::model::{Chain, Dtype, Hook, Model, Site, Token, TooLong};
use crate::progress::Progress;
use crate::steer::{Plan, SteerHook};
use candle_core::Tensor;

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
        let sites = self.decoder.architecture().parse_sites(sites)?;
        let request = Request::new(sites).tokens(tokens.parse()?);
        Ok(Extraction {
            model: self,
            request,
            store_dtype: Dtype::F32,
            part: None,
            steering: None,
            on_progress: None,
        })
    }
}

/// Which activations of a model are read, and how.
#[must_use]
pub struct Extraction<'a> {
    model: &'a Model,
    request: Request,
    store_dtype: Dtype,
    part: Option<Part>,
    steering: Option<Steering<'a>>,
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

    /// What happens to a dialogue that is longer than the model's context, when a store is written.
    pub fn too_long(mut self, too_long: TooLong) -> Extraction<'a> {
        self.request.too_long = too_long;
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

    /// Steers the model by a plan while it is read: the states are those after steering. Its store holds the plan's hash.
    ///
    /// # Errors
    /// A plan that [`Plan::check`] refuses; a file that it names and that can't be read.
    pub fn plan(mut self, plan: &Plan) -> Result<Extraction<'a>> {
        plan.check()?;
        let (model, thinking, plan) = (self.model, self.request.thinking, plan.clone());
        let hash = plan.hash()?;
        let make = move |dialogues: &[Dialogue]| {
            let hooks = plan.of_present(dialogues).hooks(model, dialogues, thinking)?;
            Ok(Box::new(Hooks(hooks)) as Box<dyn Hook>)
        };
        self.steering = Some(Steering { hash, make: Box::new(make) });
        Ok(self)
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
        let (request, steering) = (&self.request, self.steering.as_ref());
        let read =
            activations::extract_steered(self.model, &data.dialogues, request, steering, &mut |done| {
                should_continue(on_progress, "reading", done, total)
            })?;
        Labelled::new(self.header()?, self.request.tokens.clone(), read, data.clone())
    }

    /// Extracts the activations of a file's dialogues to the store `folder`, in memory that does not grow with the file. A
    /// run that was stopped continues from what the folder holds. `data_hash` is the file's SHA-256 where it is known.
    ///
    /// # Errors
    /// A folder that another run made; a dialogue that the chat template refuses, unless `options.skip_bad`.
    pub fn record(
        self,
        file: impl AsRef<Path>,
        options: &ReadOptions,
        data_hash: Option<String>,
        folder: impl AsRef<Path>,
        on_progress: &mut dyn FnMut(ExtractProgress) -> bool,
    ) -> Result<Summary> {
        let mut store =
            StoreOptions::default().dialogues(options.clone()).dtype(self.store_dtype).part(self.part);
        store.data_hash = data_hash;
        let how = (&store, self.steering.as_ref());
        extract_steered_to_store(folder.as_ref(), self.model, file.as_ref(), &self.request, how, on_progress)
    }

    fn header(&self) -> Result<Header> {
        Ok(Header {
            model: Some(self.model.name.clone()),
            model_hash: Some(self.model.hash.clone()),
            model_form: Some(self.model.form()?),
            ..Header::new("activations", 1)
        })
    }
}

/// A plan's hooks, called in order.
struct Hooks(Vec<SteerHook>);

impl Hooks {
    fn chain(&mut self) -> Chain<'_> {
        Chain(self.0.iter_mut().map(|hook| hook as &mut dyn Hook).collect())
    }
}

impl Hook for Hooks {
    fn wants(&self, site: Site) -> bool {
        self.0.iter().any(|hook| hook.wants(site))
    }

    fn call(&mut self, site: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
        self.chain().call(site, activations, tokens)
    }
}
