//! Part of a run over several machines (`2/8`), and which items of the run it has, by their weights.
//!
//! Every part computes the same split from the same weights, so that parts need not talk to each other.

use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One part of a run: `2/8` is the second of eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Number of the part, from 1.
    pub number: usize,
    /// Number of parts.
    pub of: usize,
}

impl Part {
    /// The items that belong to this part, where each part has consecutive ones: those whose middle, on the line of all weights, lies
    /// in the part's share of it. So a part's weight is off its share by less than the heaviest item. An item weighs at least 1.
    pub fn range(self, weights: &[usize]) -> Range<usize> {
        let total: u128 = weights.iter().map(|&weight| weight.max(1) as u128).sum();
        let mut before = 0u128;
        let mut begin_and_end = [weights.len(); 2];
        for (item, &weight) in weights.iter().enumerate() {
            let weight = weight.max(1) as u128;
            // The middle is below total, so that the part is below `of`.
            let part = ((2 * before + weight) * self.of as u128 / (2 * total)) as usize;
            for (end, limit) in begin_and_end.iter_mut().zip([self.number - 1, self.number]) {
                if part >= limit {
                    *end = (*end).min(item);
                }
            }
            before += weight;
        }
        begin_and_end[0]..begin_and_end[1]
    }
}

/// Assignment of items to parts while their weights become known: each goes to the part that has least so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    part: Part,
    /// The weight that each part has.
    pub loads: Vec<u64>,
}

impl Assignment {
    /// An assignment in which `part` is ours; it begins with the weights that parts have already, or with none.
    pub fn new(part: Part, loads: Vec<u64>) -> Assignment {
        let loads = if loads.len() == part.of { loads } else { vec![0; part.of] };
        Assignment { part, loads }
    }

    /// Assigns the next item, and says whether it is ours. Of parts that have equally little, the first takes it.
    pub fn takes(&mut self, weight: usize) -> bool {
        let least = (0..self.loads.len()).min_by_key(|&part| self.loads[part]).unwrap_or(0);
        self.loads[least] = self.loads[least].saturating_add(weight.max(1) as u64);
        least == self.part.number - 1
    }
}

/// The most parts: each keeps a number for every other.
const MOST: usize = 100_000;

impl FromStr for Part {
    type Err = Error;

    fn from_str(text: &str) -> Result<Part> {
        let numbers = text.split_once('/').and_then(|(number, of)| {
            Some(Part { number: number.trim().parse().ok()?, of: of.trim().parse().ok()? })
        });
        numbers.filter(|part| (1..=part.of).contains(&part.number) && part.of <= MOST).ok_or_else(|| {
            let expected = format!("I/N with I from 1 to N, such as 1/4, and N up to {MOST}");
            Error::input(format!("part {text}"), "no part of a run", expected)
        })
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl Serialize for Part {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Part, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_counted_from_1() {
        assert_eq!("2/3".parse::<Part>().unwrap().to_string(), "2/3");
        for wrong in ["0/3", "4/3", "1", "1/0", "a/b", "-1/2", "1/100001", ""] {
            assert!(wrong.parse::<Part>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_heavy_item_outweighs_many_light_ones() {
        let weights = [90, 10, 10, 10, 10, 10, 10, 10, 10, 10];
        let range = |number| Part { number, of: 2 }.range(&weights);
        assert_eq!((range(1), range(2)), (0..1, 1..10));
        let mut assignment = Assignment::new(Part { number: 2, of: 2 }, Vec::new());
        let ours: Vec<bool> = weights.iter().map(|&weight| assignment.takes(weight)).collect();
        assert_eq!(ours.iter().filter(|ours| **ours).count(), 9);
        assert_eq!(assignment.loads, [90, 90]);
    }

    proptest! {
        #[test]
        fn parts_have_every_item_once_and_about_equal_weight(
            weights in proptest::collection::vec(0usize..50, 0..60), of in 1usize..9,
        ) {
            let ranges: Vec<Range<usize>> = (1..=of).map(|number| Part { number, of }.range(&weights)).collect();
            let items: Vec<usize> = ranges.iter().cloned().flatten().collect();
            prop_assert_eq!(items, (0..weights.len()).collect::<Vec<_>>());
            let weight = |item: usize| weights[item].max(1);
            let share = (0..weights.len()).map(weight).sum::<usize>() as f64 / of as f64;
            for range in ranges {
                let own: usize = range.map(weight).sum();
                prop_assert!((own as f64 - share).abs() <= 50.0, "{} {}", own, share);
            }
            let mut parts: Vec<Assignment> =
                (1..=of).map(|number| Assignment::new(Part { number, of }, Vec::new())).collect();
            for &weight in &weights {
                let takers = parts.iter_mut().map(|part| part.takes(weight)).filter(|takes| *takes).count();
                prop_assert_eq!(takers, 1);
            }
            let loads = &parts[0].loads;
            prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 50);
        }
    }
}
