//! Users who attack nothing: they say everything and ask last, in one to eight rounds.

use crate::config::RoundsFile;
use crate::error::Result;
use crate::generate::Sampling;
use crate::model::Model;
use crate::progress::Progress;
use crate::rounds::{
    Agent, Aim, Decompose, Defence, Manners, Pace, PlayOptions, Played, React, Reader, play, world,
};

/// Dialogues played side by side.
const WAVE: usize = 50;
/// Numbers of rounds of users who attack nothing, in turn: up to three more than the model was trained on.
pub(super) const CALM_ROUNDS: [usize; 5] = [1, 2, 3, 5, 8];

/// Rounds of the calm dialogue of this number.
pub(super) fn calm_rounds(number: usize) -> usize {
    CALM_ROUNDS[number % CALM_ROUNDS.len()]
}

/// A user who attacks nothing: steps in order, the request last, sometimes in one of the manners.
fn calm_agent(dressed: bool) -> Agent {
    let manners = if dressed { Manners::Bandit } else { Manners::None };
    Agent::new("user", Decompose::Steps, Pace::Band, manners, React::Stop)
}

pub(super) fn play_options(file: &RoundsFile, rounds: usize, seed: u64) -> PlayOptions {
    PlayOptions {
        rounds,
        wave: WAVE,
        max_tokens: file.max_tokens,
        sampling: Sampling::Temperature(1.0),
        thinking: None,
        seed: file.seed ^ seed,
    }
}

/// Plays of users who say everything and ask last, each number of rounds in turn, every other one in a manner.
pub(super) fn play_calm(
    file: &RoundsFile,
    model: &Model,
    aims: &[Aim],
    reader: Option<&Reader>,
    defence: &mut dyn Defence,
    seed: u64,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Vec<Played>> {
    let mut played: Vec<Option<Played>> = vec![None; aims.len()];
    let mut done = 0;
    for &rounds in &CALM_ROUNDS {
        for dressed in [false, true] {
            let own: Vec<usize> = (0..aims.len())
                .filter(|&number| calm_rounds(number) == rounds && (number / 5 % 2 == 1) == dressed)
                .collect();
            let chosen: Vec<Aim> = own.iter().map(|&number| aims[number].clone()).collect();
            let options = play_options(file, rounds, seed + rounds as u64);
            let total = aims.len();
            let mut on_done =
                |count| on_progress(Progress { stage: "play users", done: done + count, total });
            let (agent, task) = (calm_agent(dressed), world::WorldTask);
            let none = Vec::new();
            let plays = play(model, &chosen, &none, &agent, &task, reader, defence, &options, &mut on_done)?;
            done += chosen.len();
            own.into_iter().zip(plays).for_each(|(number, one)| played[number] = Some(one));
        }
    }
    // Every number is in one of the lists.
    Ok(played.into_iter().flatten().collect())
}
