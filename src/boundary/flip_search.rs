//! Search for the first label change on a segment between two states: a grid, then bisection. The caller labels the
//! points, by a probe or by a model's answer.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The resolution of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// Equal parts of the grid, which finds a change that is undone later too.
    pub parts: usize,
    /// Bisections of the part with the first change.
    pub halvings: usize,
}

impl Default for Search {
    fn default() -> Search {
        Search { parts: 8, halvings: 6 }
    }
}

/// The first label change on a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flip {
    /// Position of the last point with the first label, from 0 at the start to 1 at the end.
    pub low: f64,
    /// Position of the first point with another label.
    pub high: f64,
    /// The label at the start.
    pub from: String,
    /// The label at `high`.
    pub to: String,
    /// Whether all later points of the grid have the label `to` too.
    pub lasts: bool,
}

impl Flip {
    /// The midpoint of `low` and `high`.
    pub fn at(&self) -> f64 {
        (self.low + self.high) / 2.0
    }
}

/// Labels of points, each given by the index of its segment and its position on it.
pub type Classify<'a> = dyn FnMut(&[(usize, f64)]) -> Result<Vec<String>> + 'a;

/// The first label change on each of some segments; none where all points have one label. `classify` is called
/// `halvings + 1` times at most, with many points at once, since a model answers a batch faster than single rows.
///
/// # Errors
/// `parts` of 0; a wrong number of labels from `classify`, or its error.
pub fn flips(segments: usize, search: Search, classify: &mut Classify) -> Result<Vec<Option<Flip>>> {
    if search.parts == 0 {
        return Err(Error::input("flip search", "0 parts", "one or more"));
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
    let first_flip = |labels: &[String]| {
        let change = labels.iter().position(|label| *label != labels[0])?;
        Some(Flip {
            low: share(change - 1),
            high: share(change),
            from: labels[0].clone(),
            to: labels[change].clone(),
            lasts: labels[change..].iter().all(|label| *label == labels[change]),
        })
    };
    let mut found: Vec<Option<Flip>> = labels.chunks(search.parts + 1).map(first_flip).collect();
    for _ in 0..search.halvings {
        let open: Vec<(usize, f64)> =
            found.iter().enumerate().filter_map(|(way, flip)| Some((way, flip.as_ref()?.at()))).collect();
        if open.is_empty() {
            break;
        }
        for ((segment, position), label) in open.iter().zip(classify(&open)?) {
            let Some(flip) = &mut found[*segment] else { continue };
            if label == flip.from {
                flip.low = *position;
            } else {
                flip.high = *position;
                // A third label between the two comes first, and it isn't the one that the later points have.
                flip.lasts &= label == flip.to;
                flip.to = label;
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_change_to_the_resolution() {
        let asked = std::cell::Cell::new(0);
        let truth = |way: usize, at: f64| match way {
            0 if at < 0.3 => "help",
            1 if at < 0.77 => "help",
            // An island of refusals.
            2 if !(0.4..0.7).contains(&at) => "help",
            3 => "help",
            _ => "refuse",
        };
        let mut classify = |points: &[(usize, f64)]| -> Result<Vec<String>> {
            asked.set(asked.get() + 1);
            Ok(points.iter().map(|&(way, at)| truth(way, at).to_owned()).collect())
        };
        let found = flips(4, Search { parts: 4, halvings: 10 }, &mut classify).unwrap();
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
