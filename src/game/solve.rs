//! Strong Stackelberg equilibrium by multiple linear programs (Conitzer & Sandholm 2006; the Bayesian case of Paruchuri et al.
//! 2008 by all combinations of the types' reactions).

use microlp::{ComparisonOp, OptimizationDirection, Problem, Variable};
use serde::Serialize;

use super::payoffs::Game;
use crate::error::{Error, Result};

/// The leader's best commitment, and what follows from it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Equilibrium {
    /// Probability of each action.
    pub mixture: Vec<f64>,
    /// Index of each type's reaction; of several that are as good for the user the best for the leader.
    pub reactions: Vec<usize>,
    /// The leader's expected payoff.
    pub value: f64,
    /// The leader's expected payoff by type.
    pub by_type: Vec<f64>,
}

/// Solves the game for a belief: the probability of each type.
///
/// For each combination of reactions, one a type, a linear program finds the mixture that is best for the leader among those
/// that make these reactions best for the users. The best of all is the equilibrium, with ties broken for the leader.
///
/// # Errors
/// A belief of another length, or that is no distribution.
pub fn solve(game: &Game, belief: &[f64]) -> Result<Equilibrium> {
    let sum: f64 = belief.iter().sum();
    if belief.len() != game.types.len()
        || belief.iter().any(|p| !(0.0..=1.0).contains(p))
        || (sum - 1.0).abs() > 1e-6
    {
        let expected = format!("{} numbers in [0, 1] with sum 1", game.types.len());
        return Err(Error::input("belief", format!("{belief:?}"), expected));
    }
    let (actions, reactions) = (game.actions.len(), game.reactions.len());
    let mut best: Option<Equilibrium> = None;
    let combinations = reactions.pow(game.types.len() as u32);
    for number in 0..combinations {
        let chosen: Vec<usize> =
            (0..game.types.len() as u32).map(|user| number / reactions.pow(user) % reactions).collect();
        // Every commitment of a mixture lets each type choose some reaction, so that one program has a solution.
        let Some(mixture) = best_mixture(game, belief, &chosen) else { continue };
        let payoff =
            |user: usize| (0..actions).map(|a| mixture[a] * game.leader(user, a, chosen[user])).sum::<f64>();
        let by_type: Vec<f64> = (0..game.types.len()).map(payoff).collect();
        let value = belief.iter().zip(&by_type).map(|(p, payoff)| p * payoff).sum();
        if best.as_ref().is_none_or(|best| value > best.value + 1e-12) {
            best = Some(Equilibrium { mixture, reactions: chosen, value, by_type });
        }
    }
    best.ok_or_else(|| {
        Error::input("game", "no solution within the solver's accuracy", "payoffs of a smaller range")
    })
}

/// The mixture that is best for the leader where each type's reaction is `chosen` and best for the user; none where no mixture
/// makes it so.
fn best_mixture(game: &Game, belief: &[f64], chosen: &[usize]) -> Option<Vec<f64>> {
    let actions = game.actions.len();
    let mut problem = Problem::new(OptimizationDirection::Maximize);
    let expected = |action: usize| {
        chosen
            .iter()
            .enumerate()
            .map(|(user, &reaction)| belief[user] * game.leader(user, action, reaction))
            .sum::<f64>()
    };
    let variables: Vec<Variable> =
        (0..actions).map(|action| problem.add_var(expected(action), (0.0, 1.0))).collect();
    let ones: Vec<(Variable, f64)> = variables.iter().map(|&variable| (variable, 1.0)).collect();
    problem.add_constraint(&ones, ComparisonOp::Eq, 1.0);
    for (user, &reaction) in chosen.iter().enumerate() {
        for other in (0..game.reactions.len()).filter(|&other| other != reaction) {
            let gains: Vec<f64> = (0..actions)
                .map(|a| game.follower(user, a, reaction) - game.follower(user, a, other))
                .collect();
            // The solver refuses rows without a coefficient; such a row holds anyway.
            if gains.iter().any(|gain| *gain != 0.0) {
                let row: Vec<(Variable, f64)> = variables.iter().copied().zip(gains).collect();
                problem.add_constraint(&row, ComparisonOp::Ge, 0.0);
            }
        }
    }
    let solution = problem.solve().ok()?;
    let mixture: Vec<f64> = variables.iter().map(|&variable| solution[variable].clamp(0.0, 1.0)).collect();
    let sum: f64 = mixture.iter().sum();
    Some(mixture.into_iter().map(|p| p / sum).collect())
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::super::payoffs::tests::one_type;
    use super::super::payoffs::{UserType, Weights};
    use super::*;

    /// Conitzer & Sandholm 2006, figure 1: commitment to a pure strategy is worth 2, to a mixture 2.5 (in the limit), and the
    /// simultaneous game's equilibrium 1.
    #[test]
    fn commitment_as_published() {
        let game = one_type(&[&[(1.0, 1.0), (3.0, 0.0)], &[(0.0, 0.0), (2.0, 1.0)]]);
        let equilibrium = solve(&game, &[1.0]).unwrap();
        assert!((equilibrium.value - 2.5).abs() < 1e-9, "{equilibrium:?}");
        assert!((equilibrium.mixture[0] - 0.5).abs() < 1e-9 && equilibrium.reactions == [1]);
    }

    /// Matching pennies: the leader can do no better than a half each.
    #[test]
    fn a_zero_sum_game_has_its_value() {
        let game = one_type(&[&[(1.0, -1.0), (-1.0, 1.0)], &[(-1.0, 1.0), (1.0, -1.0)]]);
        let equilibrium = solve(&game, &[1.0]).unwrap();
        assert!(equilibrium.value.abs() < 1e-9 && (equilibrium.mixture[0] - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_tie_is_broken_for_the_leader() {
        let game = one_type(&[&[(0.0, 1.0), (5.0, 1.0)]]);
        let equilibrium = solve(&game, &[1.0]).unwrap();
        assert_eq!((equilibrium.value, equilibrium.reactions), (5.0, vec![1]));
        assert!(
            solve(&game, &[0.5]).is_err()
                && solve(&game, &[0.5, 0.5]).is_err()
                && solve(&game, &[f64::NAN]).is_err()
        );
    }

    /// The best vertex over all combinations of reactions: every pair of constraints is tried as tight. It shares nothing with
    /// the linear programs.
    fn brute_force(game: &Game, belief: &[f64]) -> f64 {
        let reactions = game.reactions.len();
        let mut best = f64::NEG_INFINITY;
        for number in 0..reactions.pow(game.types.len() as u32) {
            let chosen: Vec<usize> =
                (0..game.types.len() as u32).map(|user| number / reactions.pow(user) % reactions).collect();
            // Rows a with a·x ≥ 0 for a mixture x of three actions.
            let mut rows: Vec<[f64; 3]> = vec![[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
            for (user, &own) in chosen.iter().enumerate() {
                for other in (0..reactions).filter(|&other| other != own) {
                    rows.push([0, 1, 2].map(|a| game.follower(user, a, own) - game.follower(user, a, other)));
                }
            }
            for first in 0..rows.len() {
                for second in 0..first {
                    let (a, b) = (rows[first], rows[second]);
                    // Orthogonal to both, scaled to sum 1.
                    let x = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
                    let sum: f64 = x.iter().sum();
                    if sum.abs() < 1e-12 {
                        continue;
                    }
                    let x = x.map(|value| value / sum);
                    let holds = |row: &[f64; 3]| row.iter().zip(x).map(|(a, x)| a * x).sum::<f64>() >= -1e-9;
                    if rows.iter().all(holds) {
                        let worth = |user: usize| {
                            (0..3).map(|a| x[a] * game.leader(user, a, chosen[user])).sum::<f64>()
                                * belief[user]
                        };
                        best = best.max((0..game.types.len()).map(worth).sum());
                    }
                }
            }
        }
        best
    }

    #[test]
    fn a_thousand_random_games_have_the_value_of_brute_force() {
        let mut random = StdRng::seed_from_u64(5);
        for number in 0..1000 {
            let (types, reactions) = (1 + number % 3, 2 + number % 3);
            let mut table = || -> Vec<Vec<f64>> {
                let mut cell = || {
                    if number % 5 == 0 {
                        f64::from(random.random_range(-2..3))
                    } else {
                        random.random_range(-1.0..1.0)
                    }
                };
                (0..3).map(|_| (0..reactions).map(|_| cell()).collect()).collect()
            };
            let users = (0..types).map(|user| UserType {
                name: user.to_string(),
                prior: 1.0 / types as f64,
                retention: table(),
                risk: table(),
                cost: Some(table()),
                payoff: table(),
            });
            let game = Game {
                actions: vec!["help".into(), "guide".into(), "refuse".into()],
                reactions: (0..reactions).map(|n| n.to_string()).collect(),
                types: users.collect(),
                weights: Weights { alpha: 1.0, beta: 0.7, gamma: 0.2 },
            };
            let (found, truth) = (solve(&game, &game.priors()).unwrap(), brute_force(&game, &game.priors()));
            assert!((found.value - truth).abs() < 1e-6, "game {number}: {} beside {truth}", found.value);
            // No user gains by another reaction.
            for (user, &own) in found.reactions.iter().enumerate() {
                let gain = |other: usize| {
                    (0..3).map(|a| found.mixture[a] * game.follower(user, a, other)).sum::<f64>()
                };
                assert!((0..reactions).all(|other| gain(other) <= gain(own) + 1e-6));
            }
        }
    }
}
