//! Search for the label change on a segment between two states that lasts to its end: a grid, then bisection. The caller labels
//! the points, by a probe or by a model's answer.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The resolution of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// Equal parts of the grid, which finds changes that are undone later too.
    pub parts: usize,
    /// Bisections of the part with the change.
    pub halvings: usize,
}

impl Default for Search {
    fn default() -> Search {
        Search { parts: 8, halvings: 6 }
    }
}

/// A label change on a segment: the last one where the ends have different labels; where they have one label, the first, which
/// is undone later (an island).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flip {
    /// Position of the last point before the change, from 0 at the start to 1 at the end.
    pub low: f64,
    /// Position of the first point after it.
    pub high: f64,
    /// The label at the start.
    pub from: String,
    /// The label at `high`.
    pub to: String,
    /// Whether all later points have the label `to` too.
    pub lasts: bool,
    /// Whether a point before has another label than `from`: an island, or a third label on the way.
    #[serde(default)]
    pub detour: bool,
}

impl Flip {
    /// The midpoint of `low` and `high`.
    pub fn at(&self) -> f64 {
        (self.low + self.high) / 2.0
    }
}

/// Labels of points, each given by the index of its segment and its position on it.
pub type Classify<'a> = dyn FnMut(&[(usize, f64)]) -> Result<Vec<String>> + 'a;

/// The most parts of a segment; the points of all segments are classified at once.
const MAX_PARTS: usize = 10_000;

/// The most halvings of a part; a share has 53 bits.
const MAX_HALVINGS: usize = 100;

/// The label change on each of some segments; none where all points have one label. `classify` is called
/// `halvings + 1` times at most, with many points at once, since a model answers a batch faster than single rows.
///
/// # Errors
/// `parts` of 0; more parts than 10,000 or halvings than 100; a wrong number of labels from `classify`, or its error.
pub fn flips(segments: usize, search: Search, classify: &mut Classify) -> Result<Vec<Option<Flip>>> {
    if search.parts == 0 {
        return Err(Error::input("flip search", "0 parts", "one or more"));
    }
    if search.parts > MAX_PARTS || search.halvings > MAX_HALVINGS {
        let found = format!("{} parts and {} halvings", search.parts, search.halvings);
        let expected = format!("at most {MAX_PARTS} parts and {MAX_HALVINGS} halvings");
        return Err(Error::input("flip search", found, expected));
    }
    let mut classify = |points: &[(usize, f64)]| -> Result<Vec<String>> {
        let labels = classify(points)?;
        match labels.len() == points.len() {
            true => Ok(labels),
            false => {
                let found = format!("{} labels of {} points", labels.len(), points.len());
                Err(Error::input("flip search", found, "one of each"))
            }
        }
    };
    let share = |part: usize| part as f64 / search.parts as f64;
    let points: Vec<(usize, f64)> =
        (0..segments).flat_map(|way| (0..=search.parts).map(move |part| (way, share(part)))).collect();
    let labels = classify(&points)?;
    let flip = |labels: &[String]| {
        let (from, to) = (&labels[0], &labels[search.parts]);
        let is_island = from == to;
        let change = match is_island {
            true => labels.iter().position(|label| label != from)?,
            false => labels.iter().rposition(|label| label != to)? + 1,
        };
        Some(Flip {
            low: share(change - 1),
            high: share(change),
            from: from.clone(),
            to: labels[change].clone(),
            lasts: !is_island,
            detour: labels[..change].iter().any(|label| label != from),
        })
    };
    let mut found: Vec<Option<Flip>> = labels.chunks(search.parts + 1).map(flip).collect();
    for _ in 0..search.halvings {
        let open: Vec<(usize, f64)> =
            found.iter().enumerate().filter_map(|(way, flip)| Some((way, flip.as_ref()?.at()))).collect();
        if open.is_empty() {
            break;
        }
        for ((segment, position), label) in open.iter().zip(classify(&open)?) {
            let Some(flip) = &mut found[*segment] else { continue };
            match (flip.lasts, label == flip.from, label == flip.to) {
                (true, is_from, false) => {
                    flip.low = *position;
                    flip.detour |= !is_from;
                }
                (true, _, true) => flip.high = *position,
                (false, true, _) => flip.low = *position,
                (false, false, _) => {
                    flip.high = *position;
                    flip.to = label;
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_change_that_lasts_to_the_resolution() {
        let asked = std::cell::Cell::new(0);
        let truth = |way: usize, at: f64| match way {
            0 if at < 0.3 => "help",
            1 if at < 0.77 => "help",
            // An island of refusals, and nothing that lasts.
            2 if !(0.4..0.7).contains(&at) => "help",
            3 => "help",
            // An island before the change that lasts.
            4 if at < 0.2 || (0.3..0.83).contains(&at) => "help",
            // A third label on the way.
            5 if at < 0.4 => "help",
            5 if at < 0.6 => "guide",
            _ => "refuse",
        };
        let mut classify = |points: &[(usize, f64)]| -> Result<Vec<String>> {
            asked.set(asked.get() + 1);
            Ok(points.iter().map(|&(way, at)| truth(way, at).to_owned()).collect())
        };
        let found = flips(6, Search { parts: 4, halvings: 10 }, &mut classify).unwrap();
        // Way, place, whether it lasts, whether something else comes before.
        let expected = [
            (0, 0.3, true, false),
            (1, 0.77, true, false),
            (2, 0.4, false, false),
            (4, 0.83, true, true),
            (5, 0.6, true, true),
        ];
        for (way, place, lasts, detour) in expected {
            let flip = found[way].as_ref().unwrap();
            assert!(flip.low < place && place <= flip.high && flip.high - flip.low < 3e-4, "{flip:?}");
            assert_eq!((flip.from.as_str(), flip.to.as_str()), ("help", "refuse"));
            assert_eq!((flip.lasts, flip.detour), (lasts, detour), "{flip:?}");
        }
        assert_eq!((found[3].as_ref(), asked.get()), (None, 11));
        let mut silent = |_: &[(usize, f64)]| -> Result<Vec<String>> { Ok(Vec::new()) };
        assert!(flips(1, Search::default(), &mut silent).is_err());
    }
}
