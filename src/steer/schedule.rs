//! Steering schedules: a factor on the change as a function of the token's position in the answer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// A factor on the change at each token. Time is counted in tokens from the last one of the prompt (`assistant.start`),
/// which has time 0, as does every token before it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Schedule {
    /// 1 at every token.
    #[default]
    Constant,
    /// `2^(−time / tokens)`: half as much every so many tokens.
    Decay(f32),
    /// `min(1, time / tokens)`: from 0 to 1 over so many tokens.
    Ramp(f32),
}

impl Schedule {
    /// The factor at a time.
    pub fn factor(self, time: usize) -> f32 {
        match self {
            Schedule::Constant => 1.0,
            Schedule::Decay(tokens) => (-(time as f32) / tokens).exp2(),
            Schedule::Ramp(tokens) => (time as f32 / tokens).min(1.0),
        }
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Schedule> {
        let text = text.trim();
        let tokens = |name: &str| {
            let argument = text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')?;
            argument.trim().parse::<f32>().ok().filter(|tokens| tokens.is_finite() && *tokens > 0.0)
        };
        match (text, tokens("decay"), tokens("ramp")) {
            ("constant", ..) => Ok(Schedule::Constant),
            (_, Some(tokens), _) => Ok(Schedule::Decay(tokens)),
            (_, _, Some(tokens)) => Ok(Schedule::Ramp(tokens)),
            _ => Err(Error::input(
                format!("schedule {text:?}"),
                "no such schedule",
                "constant, decay(TOKENS) or ramp(TOKENS)",
            )),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::Constant => write!(f, "constant"),
            Schedule::Decay(tokens) => write!(f, "decay({tokens})"),
            Schedule::Ramp(tokens) => write!(f, "ramp({tokens})"),
        }
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Schedule, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_by_hand() {
        let at =
            |text: &str, times: [usize; 3]| times.map(|time| text.parse::<Schedule>().unwrap().factor(time));
        assert_eq!(at("constant", [0, 5, 500]), [1.0, 1.0, 1.0]);
        assert_eq!(at("decay(4)", [0, 4, 8]), [1.0, 0.5, 0.25]);
        assert_eq!(at("ramp( 4 )", [0, 1, 8]), [0.0, 0.25, 1.0]);
        for wrong in ["", "decay", "decay(0)", "ramp(-1)", "ramp(NaN)", "grow(3)"] {
            assert!(wrong.parse::<Schedule>().is_err(), "{wrong}");
        }
    }
}
