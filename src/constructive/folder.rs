//! Folder of a policy: settings, probes, directions, faces, game and card, each a file.

use std::collections::BTreeMap;
use std::path::Path;

use super::card;
use super::policy::{KIND, Policy, PolicySettings, VERSION};
use crate::artifact::{self, FolderLock, Header};
use crate::error::Result;
use crate::game::Game;
use crate::probe::Probe;
use crate::steer::Vector;

impl Policy {
    /// Writes the folder: settings, probes, directions, faces, the game, and the card.
    ///
    /// # Errors
    /// A folder that can't be written, or that another run holds.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let _lock = FolderLock::take(folder)?;
        let at = |name: String| folder.join(name);
        self.belief.save(&at("belief.safetensors".into()))?;
        if let Some(risk) = &self.risk {
            risk.save(&at("risk.safetensors".into()))?;
        }
        for (action, vector) in &self.vectors {
            let header = Header { kind: "vector".into(), version: 1, ..self.header.clone() };
            vector.save(&at(format!("direction-{}.safetensors", artifact::foreign_name(action))), header)?;
        }
        for (action, face) in &self.faces {
            face.save(&at(format!("face-{}.safetensors", artifact::foreign_name(action))))?;
        }
        artifact::write_text(
            &at("game.toml".into()),
            &self.game.to_toml("The game of this policy: `pearl game explain` reads it.")?,
        )?;
        artifact::write_text(&at("card.md".into()), &card::card(self)?)?;
        // Last, so that a folder with settings is whole.
        artifact::write_json(&at("constructive.json".into()), &self.header, &self.settings)
    }

    /// The policy of the embedded model, which is part of the program: fitted by `experiments/constructive.toml`.
    ///
    /// # Errors
    /// None, as a test shows.
    pub fn organism() -> Result<Policy> {
        Policy::load(Path::new(artifact::ORGANISM_POLICY))
    }

    /// Reads a folder; `organism`, where no folder has this name, is the embedded model's.
    ///
    /// # Errors
    /// As [`Policy::load`].
    pub fn named(folder: &Path) -> Result<Policy> {
        match folder == Path::new("organism") && !folder.exists() {
            true => Policy::organism(),
            false => Policy::load(folder),
        }
    }

    /// Reads a folder.
    ///
    /// # Errors
    /// A file that is missing or of another kind; a game whose types the belief probe does not tell apart; a strategy that is no
    /// action of the game.
    pub fn load(folder: &Path) -> Result<Policy> {
        let at = |name: String| folder.join(name);
        let (header, settings): (Header, PolicySettings) =
            artifact::read_json(&at("constructive.json".into()), KIND, VERSION)?;
        let risk = at("risk.safetensors".into());
        let mut policy = Policy {
            header,
            belief: Probe::load(&at("belief.safetensors".into()))?,
            risk: if artifact::exists(&risk) { Some(Probe::load(&risk)?) } else { None },
            game: Game::load(&at("game.toml".into()))?,
            vectors: BTreeMap::new(),
            faces: BTreeMap::new(),
            settings,
        };
        for dose in &policy.settings.strategies {
            let action = &dose.spec.action;
            let name = artifact::foreign_name(action);
            let (_, vector) = Vector::load(&at(format!("direction-{name}.safetensors")))?;
            policy.vectors.insert(action.clone(), vector);
            if dose.has_face {
                policy.faces.insert(action.clone(), Probe::load(&at(format!("face-{name}.safetensors")))?);
            }
        }
        policy.check(&folder.display().to_string())?;
        Ok(policy)
    }
}
