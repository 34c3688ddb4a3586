//! Policy: all that constructive steering needs, and the folder that holds it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::artifact::Header;
use crate::boundary::{Pearl, Threshold};
use crate::config::StrategySpec;
use crate::error::{Error, Result};
use crate::game::Game;
use crate::model::{Model, Selector, Site};
use crate::probe::Probe;
use crate::steer::Vector;

pub(super) const KIND: &str = "constructive";
pub(super) const VERSION: u32 = 1;

/// A strategy with the dose at which it is steered: the pearl point along its direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StrategyDose {
    /// What is steered.
    #[serde(flatten)]
    pub spec: StrategySpec,
    /// Where.
    pub site: Site,
    /// How far, in residual norms.
    pub strength: f64,
    /// The pearl point: x is the strength, y the log-odds of an attack; none where no strength was safe within the tolerance, and the
    /// strength of the best mean worth was taken.
    #[serde(default)]
    pub pearl: Option<Pearl>,
    /// Answers that the dose rests on.
    pub answers: usize,
    /// Rows of `to` and of `from` that the direction was computed from.
    pub rows: [usize; 2],
    /// Whether the risk face between the two outcomes could be fitted.
    pub has_face: bool,
}

/// The settings of a policy (`constructive.json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicySettings {
    /// The label of the user's type.
    pub label: String,
    /// Share of each type, in the game's order, in the data that the belief probe was fitted on.
    pub shares: Vec<f64>,
    /// The type that attacks.
    pub attack: String,
    /// Probability of an attack from which on the face is held, with its bound on missed attacks; none where too few rows of the
    /// validation part bound it, and 0.5 is taken.
    pub attack_threshold: Option<Threshold>,
    /// The label that fits are grouped by.
    pub group: String,
    /// Labels and values that nothing was fitted on.
    pub held_out: Vec<(String, String)>,
    /// The strategies that are steered; other actions leave the answer alone.
    pub strategies: Vec<StrategyDose>,
    /// The tokens that are steered: by default the token from which the thinking part begins.
    pub tokens: String,
    /// Mode of the chat template.
    pub thinking: Option<bool>,
    /// The judge that outcomes came from.
    pub judge: String,
}

impl PolicySettings {
    /// Probability of an attack from which on the face is held.
    pub fn attack_from(&self) -> f64 {
        self.attack_threshold.as_ref().map_or(0.5, |threshold| threshold.value)
    }
}

/// A policy: belief, game, directions, doses, faces.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Model, data and seed that it was fitted on.
    pub header: Header,
    /// Its settings.
    pub settings: PolicySettings,
    /// The probe of the user's type.
    pub belief: Probe,
    /// The probe of the risk level, where the data had one.
    pub risk: Option<Probe>,
    /// The game.
    pub game: Game,
    /// The direction of each steered action.
    pub vectors: BTreeMap<String, Vector>,
    /// The face between the two outcomes of a steered action.
    pub faces: BTreeMap<String, Probe>,
}

impl Policy {
    /// The header of a policy's files.
    pub(super) fn new_header(model: &Model, data_hash: &str, seed: u64) -> Header {
        Header {
            model: Some(model.name.clone()),
            model_hash: Some(model.hash.clone()),
            data_hash: Some(data_hash.into()),
            seed: Some(seed),
            ..Header::new(KIND, VERSION)
        }
    }

    /// Checks that belief, game and strategies fit together; errors begin with `place`.
    pub(super) fn check(&self, place: &str) -> Result<()> {
        let types: BTreeSet<&str> = self.game.types.iter().map(|kind| kind.name.as_str()).collect();
        let classes: BTreeSet<&str> = self.belief.classes.iter().map(String::as_str).collect();
        let list = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(", ");
        if types != classes {
            let found = format!("types {} in the game", list(&types));
            return Err(Error::input(place, found, format!("the belief probe's classes {}", list(&classes))));
        }
        let settings = &self.settings;
        if settings.shares.len() != types.len() || !types.contains(settings.attack.as_str()) {
            let found = format!("{} shares, attack {:?}", settings.shares.len(), settings.attack);
            return Err(Error::input(place, found, format!("a share for each of {}", list(&types))));
        }
        settings.tokens.parse::<Selector>()?.check_steering()?;
        for dose in &settings.strategies {
            if !self.game.actions.contains(&dose.spec.action) {
                let expected = self.game.actions.join(", ");
                return Err(Error::input(place, format!("strategy {:?}", dose.spec.action), expected));
            }
            if !dose.strength.is_finite() || !self.vectors.contains_key(&dose.spec.action) {
                let found = format!("strategy {:?} of strength {}", dose.spec.action, dose.strength);
                return Err(Error::input(place, found, "a direction and a finite strength"));
            }
        }
        Ok(())
    }

    /// Checks that the policy was fitted on this model.
    ///
    /// # Errors
    /// Another model's weights.
    pub fn check_model(&self, model: &Model) -> Result<()> {
        match &self.header.model_hash {
            Some(hash) if *hash != model.hash => {
                let found =
                    format!("a policy of {}", self.header.model.as_deref().unwrap_or("another model"));
                Err(Error::input("constructive", found, format!("one of {}", model.name)))
            }
            _ => Ok(()),
        }
    }
}
