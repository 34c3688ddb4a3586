//! Answers of a model under a steering plan.

use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::generate::{self, GenerateOptions, Transcript};
use crate::model::{Chain, Hook, Model};
use crate::steer::Plan;

impl Model {
    /// Answers every dialogue under a steering plan ([`Plan::default`] for none), sampling at temperature 1.
    ///
    /// # Errors
    /// A plan that does not fit the model; a dialogue that the chat template refuses.
    pub fn generate(&self, data: &impl AsRef<[Dialogue]>, plan: &Plan) -> Result<Vec<Transcript>> {
        self.generate_with(data, plan, &GenerateOptions::default())
    }

    /// As [`Model::generate`], with options: sampling, length, seed, …
    ///
    /// # Errors
    /// As there; options that contradict each other.
    pub fn generate_with(
        &self,
        data: &impl AsRef<[Dialogue]>,
        plan: &Plan,
        options: &GenerateOptions,
    ) -> Result<Vec<Transcript>> {
        let dialogues = data.as_ref();
        let mut hooks = plan.hooks(self, dialogues, options.thinking)?;
        let mut chain = Chain(hooks.iter_mut().map(|hook| hook as &mut dyn Hook).collect());
        generate::generate(self, dialogues, options, &mut chain, &mut |_| true)
    }
}
