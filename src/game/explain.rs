//! Explanation of an equilibrium: what each payoff is worth, and where the best strategy changes as the belief moves.

use serde::{Deserialize, Serialize};

use super::payoffs::Game;
use super::solve::{Equilibrium, solve};
use crate::error::{Error, Result};

/// A belief at which the leader's likeliest action changes, on the way from one type to another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The type with probability 1 at the way's beginning.
    pub from: usize,
    /// The type with probability 1 at its end.
    pub to: usize,
    /// Probability of `to` at the change.
    pub at: f64,
    /// The likeliest action before it.
    pub before: usize,
    /// The likeliest action after it.
    pub after: usize,
}

/// Steps of a way between two types before changes are bisected.
const STEPS: usize = 100;
/// Bisections of a step.
const BISECTIONS: usize = 20;

/// The derivative of the leader's value by its own payoff for each type and action, at the type's reaction: belief ×
/// probability of the action, where the equilibrium is unique (envelope theorem). `[types][actions]`.
pub fn leader_sensitivity(belief: &[f64], equilibrium: &Equilibrium) -> Vec<Vec<f64>> {
    belief.iter().map(|p| equilibrium.mixture.iter().map(|share| p * share).collect()).collect()
}

/// Where the likeliest action changes on the ways between every two types, as one probability grows and the other falls.
///
/// # Errors
/// As [`solve`].
pub fn changes(game: &Game) -> Result<Vec<Change>> {
    let types = game.types.len();
    let mut changes = Vec::new();
    for from in 0..types {
        for to in from + 1..types {
            let action = |at: f64| -> Result<usize> {
                let mut belief = vec![0.0; types];
                (belief[from], belief[to]) = (1.0 - at, at);
                Ok(likeliest(&solve(game, &belief)?.mixture))
            };
            let mut before = action(0.0)?;
            for step in 1..=STEPS {
                let after = action(step as f64 / STEPS as f64)?;
                if after != before {
                    let (mut low, mut high) = ((step - 1) as f64 / STEPS as f64, step as f64 / STEPS as f64);
                    for _ in 0..BISECTIONS {
                        let middle = (low + high) / 2.0;
                        if action(middle)? == before { low = middle } else { high = middle }
                    }
                    changes.push(Change { from, to, at: (low + high) / 2.0, before, after });
                    before = after;
                }
            }
        }
    }
    Ok(changes)
}

/// The model's likeliest action over a grid of beliefs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BeliefMap {
    /// Names of the three types.
    pub types: Vec<String>,
    /// Names of the actions.
    pub actions: Vec<String>,
    /// The beliefs of the grid.
    pub cells: Vec<BeliefCell>,
}

/// One belief of the grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BeliefCell {
    /// Probability of each type.
    pub belief: Vec<f64>,
    /// The likeliest action.
    pub action: usize,
    /// Its share of the mixture.
    pub share: f64,
}

/// Solves a game of three types on the beliefs whose probabilities are multiples of `1 / steps`.
///
/// # Errors
/// A game of another number of types, no steps, or as [`solve`].
pub fn belief_map(game: &Game, steps: usize) -> Result<BeliefMap> {
    if game.types.len() != 3 || steps == 0 {
        let found = format!("{} types and {steps} steps", game.types.len());
        return Err(Error::input(
            "belief map",
            found,
            "three types, whose beliefs are a triangle, and one step or more",
        ));
    }
    let mut cells = Vec::new();
    for second in 0..=steps {
        for third in 0..=steps - second {
            let belief = [steps - second - third, second, third].map(|part| part as f64 / steps as f64);
            let mixture = solve(game, &belief)?.mixture;
            let action = likeliest(&mixture);
            cells.push(BeliefCell { belief: belief.to_vec(), action, share: mixture[action] });
        }
    }
    let types = game.types.iter().map(|kind| kind.name.clone()).collect();
    Ok(BeliefMap { types, actions: game.actions.clone(), cells })
}

/// The first of the likeliest actions.
fn likeliest(mixture: &[f64]) -> usize {
    (0..mixture.len())
        .fold(0, |best, action| if mixture[action] > mixture[best] + 1e-9 { action } else { best })
}

#[cfg(test)]
mod tests {
    use super::super::payoffs::tests::TEXT;
    use super::*;

    #[test]
    fn a_belief_map_agrees_with_the_changes_on_its_edges() {
        let game = Game::load(std::path::Path::new("experiments/game.toml")).unwrap();
        let map = belief_map(&game, 10).unwrap();
        assert_eq!(map.cells.len(), 66);
        for change in changes(&game).unwrap() {
            // The grid's beliefs on this edge on either side of the change.
            for cell in
                map.cells.iter().filter(|cell| cell.belief[change.from] + cell.belief[change.to] == 1.0)
            {
                let at = cell.belief[change.to];
                let near = (at - change.at).abs() < 0.1;
                let expected = if at < change.at { change.before } else { change.after };
                assert!(!near || cell.action == expected, "{cell:?} {change:?}");
            }
        }
        assert!(belief_map(&Game::parse("game", TEXT).unwrap(), 10).is_err());
    }

    #[test]
    fn the_strategy_changes_where_the_expected_payoffs_cross() {
        let game = Game::parse("game", TEXT).unwrap();
        let found = changes(&game).unwrap();
        assert_eq!(found.len(), 1);
        // While help is likely enough that both types stay, its share h is worth (1 − p)(h + 0.1 (1 − h)) + p (−1.6 h +
        // 0.1 (1 − h)) for a share p of malicious users, which grows with h where 0.9 − 2.6 p > 0.
        assert!((found[0].at - 0.9 / 2.6).abs() < 1e-4, "{found:?}");
        assert_eq!((found[0].before, found[0].after), (0, 1));
        let equilibrium = solve(&game, &[1.0, 0.0]).unwrap();
        assert_eq!(leader_sensitivity(&[1.0, 0.0], &equilibrium)[0][0], 1.0);
    }
}
