//! Payoff tables of a game, and the file that holds them.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::error::{Error, Result};

/// A table `[actions][reactions]`.
pub type PayoffTable = Vec<Vec<f64>>;

/// Weights of the leader's payoff Π = α·retention − β·risk − γ·cost (Oyster-I, arXiv 2509.01909).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Weight of retention.
    pub alpha: f64,
    /// Weight of risk.
    pub beta: f64,
    /// Weight of cost.
    pub gamma: f64,
}

/// One type of user: how likely it is before anything is read, and what each action and reaction is worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserType {
    /// Its name, such as `benign`.
    pub name: String,
    /// Its share of users.
    pub prior: f64,
    /// Retention `[actions][reactions]`: whether the user is served and stays, in [0, 1].
    pub retention: PayoffTable,
    /// Risk of harm `[actions][reactions]`, in [0, 1].
    pub risk: PayoffTable,
    /// Cost to the leader `[actions][reactions]`, in [0, 1]; none where it is left out.
    #[serde(default)]
    pub cost: Option<PayoffTable>,
    /// The user's own payoff `[actions][reactions]`.
    pub payoff: PayoffTable,
}

/// A Bayesian Stackelberg game.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Game {
    /// The leader's actions, such as help, guide and refuse.
    pub actions: Vec<String>,
    /// The follower's reactions, such as stay, rephrase, escalate and leave.
    pub reactions: Vec<String>,
    /// Weights of the leader's payoff.
    pub weights: Weights,
    /// The types of users.
    #[serde(rename = "type")]
    pub types: Vec<UserType>,
}

/// Bounds of a game's size, within which every combination of reactions is tried in little time.
const MAX_COMBINATIONS: usize = 100_000;

impl Game {
    /// Parses a file in TOML; errors begin with `place`.
    ///
    /// # Errors
    /// Text that isn't TOML of this layout; a table of another size; a payoff that is not finite; priors that don't sum to 1.
    pub fn parse(place: &str, text: &str) -> Result<Game> {
        let game: Game = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            let place = line.map_or_else(|| place.to_owned(), |line| format!("{place}:{line}"));
            Error::input(
                place,
                error.message().replace('\n', " "),
                "actions, reactions, weights and types of a game",
            )
        })?;
        game.check(place)?;
        Ok(game)
    }

    /// Reads a file; see [`Game::parse`].
    ///
    /// # Errors
    /// A file that can't be read, or as [`Game::parse`].
    pub fn load(path: &Path) -> Result<Game> {
        let text = artifact::read_settings(path)?;
        Game::parse(&path.display().to_string(), &text)
    }

    /// The game as a TOML file, below a comment (a line or several, without `#`).
    ///
    /// # Errors
    /// A payoff that TOML can't hold.
    pub fn to_toml(&self, comment: &str) -> Result<String> {
        let body = toml::to_string(self)
            .map_err(|error| Error::input("game", error, "names and finite numbers, as TOML holds them"))?;
        let comment: String = comment.lines().map(|line| format!("# {line}\n")).collect();
        Ok(comment + &body)
    }

    /// The priors of the types.
    pub fn priors(&self) -> Vec<f64> {
        self.types.iter().map(|user| user.prior).collect()
    }

    /// The leader's payoff for a type, an action and a reaction.
    pub fn leader(&self, user: usize, action: usize, reaction: usize) -> f64 {
        let Weights { alpha, beta, gamma } = self.weights;
        let user = &self.types[user];
        let cost = user.cost.as_ref().map_or(0.0, |cost| cost[action][reaction]);
        alpha * user.retention[action][reaction] - beta * user.risk[action][reaction] - gamma * cost
    }

    /// The follower's payoff for a type, an action and a reaction.
    pub fn follower(&self, user: usize, action: usize, reaction: usize) -> f64 {
        self.types[user].payoff[action][reaction]
    }

    fn check(&self, place: &str) -> Result<()> {
        let wrong = |what: &str, found: String, expected: &str| {
            Err(Error::input(format!("{place}, {what}"), found, expected))
        };
        for (what, names) in [("actions", &self.actions), ("reactions", &self.reactions)] {
            if names.is_empty() || (1..names.len()).any(|n| names[..n].contains(&names[n])) {
                return wrong(what, format!("{names:?}"), "one name or more, each once");
            }
        }
        if self.types.is_empty() {
            return wrong("type", "no type of user".into(), "one [[type]] or more");
        }
        let combinations = self.types.iter().try_fold(1usize, |all, _| all.checked_mul(self.reactions.len()));
        if combinations.is_none_or(|all| all > MAX_COMBINATIONS) {
            let found = format!("{} types with {} reactions each", self.types.len(), self.reactions.len());
            return wrong("type", found, "at most 100,000 combinations of reactions");
        }
        for user in &self.types {
            let tables = [
                ("retention", Some(&user.retention)),
                ("risk", Some(&user.risk)),
                ("cost", user.cost.as_ref()),
                ("payoff", Some(&user.payoff)),
            ];
            for (name, table) in tables.into_iter().filter_map(|(name, table)| Some((name, table?))) {
                let place = format!("type {}, {name}", user.name);
                let (rows, columns) = (self.actions.len(), self.reactions.len());
                if table.len() != rows || table.iter().any(|row| row.len() != columns) {
                    let sizes: Vec<usize> = table.iter().map(Vec::len).collect();
                    let expected =
                        format!("{rows} rows, one an action, of {columns} numbers, one a reaction");
                    return wrong(&place, format!("rows of {sizes:?} numbers"), &expected);
                }
                if let Some(value) = table.iter().flatten().find(|value| !value.is_finite()) {
                    return wrong(&place, format!("{value}"), "finite numbers");
                }
            }
        }
        let Weights { alpha, beta, gamma } = self.weights;
        if let Some(weight) =
            [alpha, beta, gamma].into_iter().find(|weight| !weight.is_finite() || *weight < 0.0)
        {
            return wrong("weights", format!("{weight}"), "finite numbers, 0 or more");
        }
        let priors = self.priors();
        let sum: f64 = priors.iter().sum();
        if priors.iter().any(|prior| !(0.0..=1.0).contains(prior)) || (sum - 1.0).abs() > 1e-6 {
            return wrong("type", format!("priors {priors:?}"), "numbers in [0, 1] with sum 1");
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A game of one type, from `(leader, follower)` payoffs `[actions][reactions]`.
    pub fn one_type(payoffs: &[&[(f64, f64)]]) -> Game {
        let table = |of: fn(&(f64, f64)) -> f64| {
            payoffs.iter().map(|row| row.iter().map(of).collect()).collect::<PayoffTable>()
        };
        let names = |n: usize| (0..n).map(|n| n.to_string()).collect();
        let (retention, payoff): (PayoffTable, PayoffTable) = (table(|cell| cell.0), table(|cell| cell.1));
        let risk = vec![vec![0.0; payoffs[0].len()]; payoffs.len()];
        Game {
            actions: names(payoffs.len()),
            reactions: names(payoffs[0].len()),
            weights: Weights { alpha: 1.0, beta: 1.0, gamma: 0.0 },
            types: vec![UserType { name: "one".into(), prior: 1.0, retention, risk, cost: None, payoff }],
        }
    }

    pub const TEXT: &str = r#"
actions = ["help", "refuse"]
reactions = ["stay", "leave"]
weights = { alpha = 1.0, beta = 2.0, gamma = 0.5 }

[[type]]
name = "benign"
prior = 0.75
retention = [[1.0, 0.2], [0.1, 0.0]]
risk = [[0.0, 0.0], [0.0, 0.0]]
payoff = [[1.0, 0.0], [0.2, 0.4]]

[[type]]
name = "malicious"
prior = 0.25
retention = [[0.5, 0.0], [0.1, 0.0]]
risk = [[1.0, 0.5], [0.0, 0.0]]
cost = [[0.2, 0.2], [0.0, 0.0]]
payoff = [[1.0, 0.0], [0.0, 0.1]]
"#;

    #[test]
    fn the_leaders_payoff_is_weighed() {
        let game = Game::parse("game", TEXT).unwrap();
        assert_eq!(game.leader(0, 0, 1), 0.2);
        // 0.5 − 2·1 − 0.5·0.2
        assert!((game.leader(1, 0, 0) + 1.6).abs() < 1e-12);
        assert_eq!(game.follower(1, 1, 1), 0.1);
    }

    #[test]
    fn bad_payoffs_are_named() {
        let wrong =
            |from: &str, to: &str| Game::parse("game", &TEXT.replacen(from, to, 1)).unwrap_err().to_string();
        assert_eq!(
            wrong("payoff = [[1.0, 0.0], [0.2, 0.4]]", "payoff = [[1.0, 0.0], [0.2, nan]]"),
            "game, type benign, payoff: NaN; expected finite numbers"
        );
        assert!(
            wrong("retention = [[1.0, 0.2], [0.1, 0.0]]", "retention = [[1.0, 0.2]]")
                .starts_with("game, type benign, retention: rows of [2] numbers; expected 2 rows")
        );
        assert!(
            wrong("prior = 0.75", "prior = 0.7")
                .contains("priors [0.7, 0.25]; expected numbers in [0, 1] with sum 1")
        );
        assert!(wrong("risk = [[0.0, 0.0], [0.0, 0.0]]\n", "").starts_with("game:6: missing field `risk`"));
        assert!(wrong("beta = 2.0", "beta = -1.0").starts_with("game, weights: -1"));
        assert!(wrong("\"leave\"]", "\"stay\"]").starts_with("game, reactions"));
    }
}
