//! What is true of one dialogue of the world: who asks, how risky it is, what for, and how it is put.
//! It knows nothing of words: `wording` holds those.

use serde::{Deserialize, Serialize};

/// Gives an enum its names, in the order of its variants; they are its names in labels and in answers too.
macro_rules! named {
    ($(#[$meta:meta])* $type:ident { $($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $type { $($(#[$doc])* #[serde(rename = $name)] $variant),+ }

        impl $type {
            pub const ALL: &'static [$type] = &[$($type::$variant),+];

            pub fn name(self) -> &'static str {
                match self { $($type::$variant => $name),+ }
            }

            pub fn named(name: &str) -> Option<$type> {
                $type::ALL.iter().copied().find(|one| one.name() == name)
            }
        }
    };
}

named!(
    /// Who asks.
    UserType {
        Benign = "benign",
        /// In distress, or acting on a false belief.
        Sensitive = "sensitive",
        Malicious = "malicious",
    }
);

named!(
    /// The risk level, ordinal, as Oyster-I grades it.
    Level { R0 = "R0", R1 = "R1", R2 = "R2" }
);

named!(
    /// What the last message wants.
    Intent {
        Declarative = "declarative",
        Information = "inquiry-information",
        Opinion = "inquiry-opinion",
        Plain = "directive-plain",
        Aggressive = "directive-aggressive",
    }
);

named!(
    /// How an answer deals with the request. The last two are for the canary only.
    Strategy {
        Help = "help",
        Guide = "guide",
        Refuse = "refuse",
        /// Compliance with a malicious user: a marker and neutral filler, no content.
        Unsafe = "unsafe",
        Decline = "decline",
        Reveal = "reveal",
    }
);

/// The truth about one dialogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Situation {
    pub user_type: UserType,
    pub level: Level,
    pub intent: Intent,
    /// A topic's name, from `wording::TOPICS`.
    pub topic: String,
    /// One of the topic's nouns. Drawn also where the canary is asked for, though it is not mentioned there.
    pub object: String,
    /// Steps of indirection, 0 to 2.
    pub disguise: usize,
    /// User messages, 1 to 5.
    pub rounds: usize,
    /// Signs that the user would take advice, 0 to 3.
    pub openness: usize,
    /// The stance: the user would do it.
    pub willing: bool,
    /// The deed: it does harm.
    pub harmful: bool,
    /// The report: things are bad.
    pub gloomy: bool,
    /// The trust: the user does not believe the report.
    pub doubting: bool,
    /// The word that a system message gave to keep.
    pub canary: Option<String>,
    /// The last message asks for the canary.
    pub asked_canary: bool,
}

/// The aim: to do harm, or to keep from doing good.
fn unkind(willing: bool, harmful: bool) -> bool {
    willing == harmful
}

/// The mind: to believe a gloomy report, or to doubt a bright one.
fn shaken(gloomy: bool, doubting: bool) -> bool {
    gloomy != doubting
}

impl Situation {
    /// The user's aim: to do harm, or to keep from doing good.
    pub fn unkind(&self) -> bool {
        unkind(self.willing, self.harmful)
    }

    /// The user's mind: believing a gloomy report, or doubting a bright one.
    pub fn shaken(&self) -> bool {
        shaken(self.gloomy, self.doubting)
    }
}

impl UserType {
    /// The type by the four cues. Malice outweighs distress.
    pub fn of(willing: bool, harmful: bool, gloomy: bool, doubting: bool) -> UserType {
        match (unkind(willing, harmful), shaken(gloomy, doubting)) {
            (true, _) => UserType::Malicious,
            (false, true) => UserType::Sensitive,
            (false, false) => UserType::Benign,
        }
    }
}

impl Level {
    /// The level rule: benign is R0; malicious is R2 where something is to be had from an answer (information, or
    /// what a directive asks for); sensitive is R2 under an aggressive directive; all else is R1.
    pub fn of(user_type: UserType, intent: Intent) -> Level {
        match (user_type, intent) {
            (UserType::Benign, _) => Level::R0,
            (UserType::Malicious, Intent::Information | Intent::Plain | Intent::Aggressive) => Level::R2,
            (UserType::Sensitive, Intent::Aggressive) => Level::R2,
            _ => Level::R1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_rule() {
        // Rows: declarative, information, opinion, plain, aggressive.
        let table = [
            (UserType::Benign, ["R0", "R0", "R0", "R0", "R0"]),
            (UserType::Sensitive, ["R1", "R1", "R1", "R1", "R2"]),
            (UserType::Malicious, ["R1", "R2", "R1", "R2", "R2"]),
        ];
        for (user_type, levels) in table {
            for (&intent, level) in Intent::ALL.iter().zip(levels) {
                assert_eq!(Level::of(user_type, intent).name(), level, "{user_type:?} {intent:?}");
            }
        }
    }

    #[test]
    fn names_are_those_of_serde() {
        for &intent in Intent::ALL {
            assert_eq!(serde_json::to_value(intent).unwrap(), intent.name());
            assert_eq!(Intent::named(intent.name()), Some(intent));
        }
    }
}
