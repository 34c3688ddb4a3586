//! How far long work has come: stages call back with a [`Progress`], and stop where the answer is `false`.

/// How far a stage has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub stage: &'static str,
    pub done: usize,
    pub total: usize,
}
