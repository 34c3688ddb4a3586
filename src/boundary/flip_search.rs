//! Where an answer to a question changes on the way from one state to another: a look along the way, then bisection.
//! It knows nothing of what is asked: whoever calls it puts the state to a probe, or into a model.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the way is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// Equal parts that are looked at first, so that a change that is undone later is found too.
    pub parts: usize,
    /// Halvings of the part in which the first change is.
    pub halvings: usize,
}

impl Default for Search {
    fn default() -> Search {
        Search { parts: 8, halvings: 6 }
    }
}

/// The first change on a way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flip {
    /// Shares of the way, 0 at its start: the answer is still the first one at `low`, and another one at `high`.
    pub low: f64,
    pub high: f64,
    pub from: String,
    pub to: String,
    /// Whether the answer at the end of the way is `to` as well, so that the change is a passage and no island.
    pub lasts: bool,
}

impl Flip {
    /// The middle between the two.
    pub fn at(&self) -> f64 {
        (self.low + self.high) / 2.0
    }
}

/// Answers at places: a way's number, and the share of it.
pub type Ask<'a> = dyn FnMut(&[(usize, f64)]) -> Result<Vec<String>> + 'a;

/// The first change on each of `ways` ways, or none where the answers at all places looked at are one. `ask` takes places
/// (the way's number, the share of it) and gives an answer each; it is called `halvings + 1` times at most, with many
/// places at once, since models answer many rows faster than one.
///
/// # Errors
/// If `parts` is 0, `ask` gives too few answers, or what `ask` says.
pub fn flips(ways: usize, search: Search, ask: &mut Ask) -> Result<Vec<Option<Flip>>> {
    if search.parts == 0 {
        return Err(Error::input("crossing", "0 parts", "one or more"));
    }
    let mut ask = |places: &[(usize, f64)]| -> Result<Vec<String>> {
        let answers = ask(places)?;
        match answers.len() == places.len() {
            true => Ok(answers),
            false => {
                let found = format!("{} answers at {} places", answers.len(), places.len());
                Err(Error::input("crossing", found, "one at each"))
            }
        }
    };
    let share = |part: usize| part as f64 / search.parts as f64;
    let places: Vec<(usize, f64)> =
        (0..ways).flat_map(|way| (0..=search.parts).map(move |part| (way, share(part)))).collect();
    let answers = ask(&places)?;
    let first = |answers: &[String]| {
        let change = answers.iter().position(|answer| *answer != answers[0])?;
        Some(Flip {
            low: share(change - 1),
            high: share(change),
            from: answers[0].clone(),
            to: answers[change].clone(),
            lasts: answers[change..].iter().all(|answer| *answer == answers[change]),
        })
    };
    let mut found: Vec<Option<Flip>> = answers.chunks(search.parts + 1).map(first).collect();
    for _ in 0..search.halvings {
        let open: Vec<(usize, f64)> =
            found.iter().enumerate().filter_map(|(way, flip)| Some((way, flip.as_ref()?.at()))).collect();
        if open.is_empty() {
            break;
        }
        for ((way, at), answer) in open.iter().zip(ask(&open)?) {
            let Some(flip) = &mut found[*way] else { continue };
            if answer == flip.from {
                flip.low = *at;
            } else {
                flip.high = *at;
                // A third answer between the two is met first, and stays only if the end has it too.
                flip.lasts &= answer == flip.to;
                flip.to = answer;
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_change_as_finely_as_asked() {
        let asked = std::cell::Cell::new(0);
        let truth = |way: usize, at: f64| match way {
            0 if at < 0.3 => "help",
            1 if at < 0.77 => "help",
            // An island of refusals.
            2 if !(0.4..0.7).contains(&at) => "help",
            3 => "help",
            _ => "refuse",
        };
        let mut ask = |places: &[(usize, f64)]| -> Result<Vec<String>> {
            asked.set(asked.get() + 1);
            Ok(places.iter().map(|&(way, at)| truth(way, at).to_owned()).collect())
        };
        let found = flips(4, Search { parts: 4, halvings: 10 }, &mut ask).unwrap();
        for (way, expected) in [(0, 0.3), (1, 0.77), (2, 0.4)] {
            let flip = found[way].as_ref().unwrap();
            assert!(flip.low < expected && expected <= flip.high && flip.high - flip.low < 3e-4, "{flip:?}");
            assert_eq!((flip.from.as_str(), flip.to.as_str(), flip.lasts), ("help", "refuse", way != 2));
        }
        assert_eq!((found[3].as_ref(), asked.get()), (None, 11));
        let mut silent = |_: &[(usize, f64)]| -> Result<Vec<String>> { Ok(Vec::new()) };
        assert!(flips(1, Search::default(), &mut silent).is_err());
    }
}
