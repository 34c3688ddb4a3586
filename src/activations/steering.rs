//! Steering of what is read: a hook a batch, made for its dialogues.

use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::model::Hook;

/// Makes the hook of dialogues, whose indices are the rows of the batch.
type MakeHook<'a> = Box<dyn Fn(&[Dialogue]) -> Result<Box<dyn Hook>> + Send + Sync + 'a>;

/// What steers the model while it is read.
pub struct Steering<'a> {
    /// A hash of the plan and of the files that it names: stores of different plans aren't put together.
    pub hash: String,
    /// The hook of a batch.
    pub make: MakeHook<'a>,
}
