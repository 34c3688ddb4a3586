//! What a cache keeps of one row in one block: keys and values of each token, or a recurrent state of fixed size.

use candle_core::{Result, Tensor};

/// Keys and values of one row in one block, `[tokens, key heads, head width]`, flat; or a recurrent state.
#[derive(Clone, Default)]
pub(super) struct RowState {
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
    /// Keys and values on candle's backends; the vectors are empty then.
    pub tensors: Option<[Tensor; 2]>,
    /// Number of tokens, those of a pass that hasn't ended among them.
    pub held: usize,
    /// In blocks without keys and values.
    recurrent: Option<Box<Recurrent>>,
}

/// A state that each token changes in turn. It can't be cut back to fewer tokens, so a pass that fails must leave that before it.
#[derive(Clone, Default)]
struct Recurrent {
    /// After the passes that have ended; empty before the first.
    settled: Vec<f32>,
    /// That of a pass that hasn't, or room for the next.
    running: Vec<f32>,
}

impl RowState {
    /// A copy of the first `length` of `held` tokens. A recurrent state is that after the last pass that has ended.
    pub fn first(&self, length: usize, held: usize) -> Result<RowState> {
        if length == 0 {
            return Ok(RowState::default());
        }
        let part = |of: &Vec<f32>| of[..of.len() / held.max(1) * length].to_vec();
        let tensors = match &self.tensors {
            None => None,
            Some([keys, values]) => {
                Some([keys.narrow(0, 0, length)?.copy()?, values.narrow(0, 0, length)?.copy()?])
            }
        };
        let settled =
            |state: &Recurrent| Box::new(Recurrent { settled: state.settled.clone(), running: Vec::new() });
        let recurrent = self.recurrent.as_deref().map(settled);
        Ok(RowState { keys: part(&self.keys), values: part(&self.values), tensors, held: length, recurrent })
    }

    /// Whether it is a recurrent state.
    pub fn is_recurrent(&self) -> bool {
        self.recurrent.is_some()
    }

    /// The same without room for a pass.
    pub fn without_room(mut self) -> RowState {
        if let Some(state) = &mut self.recurrent {
            state.running = Vec::new();
        }
        self
    }

    /// Begins a pass with a recurrent state of `size` numbers: that of `shared`, if there is one, or this row's own, or zeros.
    pub fn begin_pass(&mut self, shared: Option<&RowState>, size: usize) {
        let state = self.recurrent.get_or_insert_default();
        let shared = shared.and_then(|shared| shared.recurrent.as_deref());
        let before = shared.map_or(&state.settled, |shared| &shared.settled);
        state.running.clear();
        state.running.extend_from_slice(before);
        state.running.resize(size, 0.0);
    }

    /// The recurrent state of a pass that hasn't ended.
    pub fn running(&mut self) -> &mut [f32] {
        self.recurrent.as_deref_mut().map_or(&mut [], |state| &mut state.running)
    }

    /// Keeps the recurrent state that a pass has come to.
    pub fn end_pass(&mut self) {
        if let Some(state) = &mut self.recurrent {
            std::mem::swap(&mut state.settled, &mut state.running);
        }
    }

    /// Size in memory.
    pub fn bytes(&self) -> usize {
        let tensors = self.tensors.iter().flatten().map(Tensor::elem_count).sum::<usize>();
        let recurrent =
            self.recurrent.as_deref().map_or(0, |state| state.settled.len() + state.running.len());
        4 * (self.keys.len() + self.values.len() + tensors + recurrent)
    }
}
