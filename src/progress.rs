//! Progress of long work: stages call back with a [`Progress`], and stop where the answer is `false`.

/// How far a stage has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The stage, in a few words.
    pub stage: &'static str,
    /// Items that are done.
    pub done: usize,
    /// Items that there are.
    pub total: usize,
}
