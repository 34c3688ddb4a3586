//! Choice of a manner by what has worked: a bandit of upper confidence bounds (UCB1; Auer, Cesa-Bianchi and Fischer 2002).

use std::collections::BTreeMap;

/// Tries and successes of each manner.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bandit {
    tried: BTreeMap<String, (f64, f64)>,
}

impl Bandit {
    /// The place of the manner with the highest upper bound among those that are free, the first of equals; none where none is. It
    /// counts as tried at once, so that dialogues side by side try different ones.
    pub fn choose(&mut self, names: &[&str], is_free: &dyn Fn(usize) -> bool) -> Option<usize> {
        let total: f64 = self.tried.values().map(|(tries, _)| tries).sum();
        let bound = |name: &str| match self.tried.get(name) {
            Some((tries, wins)) if *tries > 0.0 => wins / tries + (2.0 * total.ln() / tries).sqrt(),
            _ => f64::INFINITY,
        };
        let free = (0..names.len()).filter(|&place| is_free(place));
        let best = free.fold(None, |best: Option<usize>, place| match best {
            Some(other) if bound(names[other]) >= bound(names[place]) => best,
            _ => Some(place),
        })?;
        self.tried.entry(names[best].into()).or_default().0 += 1.0;
        Some(best)
    }

    /// Notes that a manner worked.
    pub fn won(&mut self, name: &str) {
        self.tried.entry(name.into()).or_default().1 += 1.0;
    }

    /// Tries and successes by name.
    pub fn counts(&self) -> impl Iterator<Item = (&str, f64, f64)> {
        self.tried.iter().map(|(name, (tries, wins))| (name.as_str(), *tries, *wins))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manner_is_tried_and_the_better_one_more_often() {
        let mut bandit = Bandit::default();
        let names = ["story", "game"];
        for round in 0..400 {
            // Story works every other time, game never.
            if bandit.choose(&names, &|_| true) == Some(0) && round % 2 == 0 {
                bandit.won("story");
            }
        }
        let counts: Vec<(&str, f64)> = bandit.counts().map(|(name, tries, _)| (name, tries)).collect();
        assert!(counts[0].0 == "game" && counts[0].1 > 10.0 && counts[1].1 > 3.0 * counts[0].1, "{counts:?}");
        assert_eq!(bandit.choose(&names, &|place| place == 1), Some(1));
        assert_eq!(bandit.choose(&names, &|_| false), None);
    }
}
