//! The rounds experiment: agents that spread an aim of the organism's world over rounds, and the defences against them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{defaults, toml_file};
use crate::error::{Error, Result};
use crate::rounds::Agent;

/// A whole experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RoundsFile {
    /// The experiment's name.
    pub name: String,
    /// The embedded model, or another that speaks the language of its world.
    #[serde(default = "defaults::model")]
    pub model: PathBuf,
    /// Seed of everything that is drawn.
    #[serde(default)]
    pub seed: u64,
    /// Dialogues of a cell.
    pub dialogues: usize,
    /// Numbers of rounds that agents are given, ascending; defences are tried at the last.
    pub rounds: Vec<usize>,
    /// Dialogues that probes and monitors are fitted on, half of them attacks.
    pub fit: usize,
    /// Calm dialogues that thresholds are set on.
    pub calibrate: usize,
    /// Share of calm dialogues in which a monitor may fire.
    pub false_alarms: f64,
    /// The site that probes read, at the token that the answer begins after.
    pub site: String,
    /// The site at which the pace compares a step with the aim.
    pub pace_site: String,
    /// Tokens of an answer, at most.
    #[serde(default = "defaults::max_tokens")]
    pub max_tokens: usize,
    /// The system message of that defence.
    pub system: String,
    /// The guard's policy, as `pearl constructive fit` writes it; fitted before anything else where there is none.
    #[serde(default)]
    pub policy: Option<PathBuf>,
    /// The agents; the one named `agent` is the one that defences are tried on.
    #[serde(rename = "agent")]
    pub agents: Vec<Agent>,
    /// Agents that see the guard's readings, tried on the undefended model and on the guard.
    #[serde(rename = "adaptive", default)]
    pub adaptive: Vec<Agent>,
}

/// The agent that defences are tried on.
pub const WHOLE: &str = "agent";

impl RoundsFile {
    /// Parses and checks a file; `place` is its name in errors.
    ///
    /// # Errors
    /// Text that is no such file; numbers that can't be run; agents of one name, or none of the name `agent`.
    pub fn parse(place: &str, text: &str) -> Result<RoundsFile> {
        let file: RoundsFile = toml_file::parse(place, text, "keys of a rounds experiment")?;
        let wrong = |key: &str, found: String, expected: &str| {
            Err(Error::input(format!("{place}, {key}"), found, expected))
        };
        let ascending = file.rounds.windows(2).all(|pair| pair[0] < pair[1]);
        if file.rounds.is_empty()
            || file.rounds[0] == 0
            || !ascending
            || file.rounds.iter().any(|&n| n > 1000)
        {
            return wrong("rounds", format!("{:?}", file.rounds), "ascending numbers from 1 to 1000");
        }
        for (key, count) in [("dialogues", file.dialogues), ("fit", file.fit), ("calibrate", file.calibrate)]
        {
            if !(8..=100_000).contains(&count) {
                return wrong(key, count.to_string(), "8 to 100,000 dialogues");
            }
        }
        if !(file.false_alarms > 0.0 && file.false_alarms < 1.0) {
            return wrong("false-alarms", file.false_alarms.to_string(), "a share between 0 and 1");
        }
        let agents: Vec<&Agent> = file.agents.iter().chain(&file.adaptive).collect();
        for (index, agent) in agents.iter().enumerate() {
            if agent.name.is_empty() || agents[..index].iter().any(|other| other.name == agent.name) {
                return wrong("agent", format!("name {:?}", agent.name), "a name of its own");
            }
        }
        match file.agents.iter().any(|agent| agent.name == WHOLE) {
            true => Ok(file),
            false => wrong("agent", format!("no agent named {WHOLE:?}"), "one: the defences are tried on it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_parses_and_wrong_ones_are_refused() {
        let text = std::fs::read_to_string("experiments/rounds.toml").unwrap();
        let file = RoundsFile::parse("rounds.toml", &text).unwrap();
        assert!(file.dialogues >= 300 && file.agents.len() >= 7 && !file.adaptive.is_empty());
        for (from, to, expected) in [
            ("rounds = [", "rounds = [0, ", "rounds"),
            ("name = \"agent\"", "name = \"other\"", "no agent named"),
            ("name = \"one shot\"", "name = \"agent\"", "a name of its own"),
            ("false-alarms = 0", "false-alarms = 1", "a share between 0 and 1"),
            ("pace = \"shuffled\"", "pace = \"slow\"", "unknown variant `slow`"),
        ] {
            let error =
                RoundsFile::parse("rounds.toml", &text.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(expected) && error.starts_with("rounds.toml"), "{error}");
        }
    }
}
