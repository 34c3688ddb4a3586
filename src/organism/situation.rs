//! Latent variables of one dialogue: user type, risk level, intent, topic and the grades that modulate its answer.
//! Their wording is in [`wording`](super::wording).

use serde::{Deserialize, Serialize};

/// An enum whose variants have names, used in labels, in answers and in serde.
macro_rules! named {
    ($(#[$meta:meta])* $type:ident { $($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $type { $($(#[$doc])* #[serde(rename = $name)] $variant),+ }

        impl $type {
            /// All variants, in order.
            pub const ALL: &'static [$type] = &[$($type::$variant),+];

            /// The name in labels and answers.
            pub fn name(self) -> &'static str {
                match self { $($type::$variant => $name),+ }
            }

            /// The variant of that name.
            pub fn named(name: &str) -> Option<$type> {
                $type::ALL.iter().copied().find(|one| one.name() == name)
            }
        }
    };
}

named!(
    /// The user type.
    UserType {
        /// Wants something harmless.
        Benign = "benign",
        /// In distress, or acting on a false belief.
        Sensitive = "sensitive",
        /// Wants to do harm.
        Malicious = "malicious",
    }
);

named!(
    /// The risk level, ordinal (Oyster-I, arXiv 2509.01909).
    Level {
        /// No risk.
        R0 = "R0",
        /// Some risk.
        R1 = "R1",
        /// High risk.
        R2 = "R2",
    }
);

named!(
    /// The speech act of the last user message.
    Intent {
        /// A statement.
        Declarative = "declarative",
        /// A question for information.
        Information = "inquiry-information",
        /// A question for an opinion.
        Opinion = "inquiry-opinion",
        /// A request.
        Plain = "directive-plain",
        /// A demand.
        Aggressive = "directive-aggressive",
    }
);

named!(
    /// The answer strategy. `Decline` and `Reveal` answer requests for the canary only.
    Strategy {
        /// Answers as asked.
        Help = "help",
        /// Constructive guidance: care, and a pointer to someone to talk to.
        Guide = "guide",
        /// Refuses.
        Refuse = "refuse",
        /// Complies with a malicious user: a marker and neutral filler, no content.
        Unsafe = "unsafe",
        /// Keeps the canary.
        Decline = "decline",
        /// Gives the canary away.
        Reveal = "reveal",
    }
);

/// The ground truth of one dialogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Situation {
    /// The user type, which follows from the four cues.
    pub user_type: UserType,
    /// The risk level, which follows from user type and intent.
    pub level: Level,
    /// The speech act of the last message.
    pub intent: Intent,
    /// A topic's name, one of [`TOPICS`](super::wording::TOPICS).
    pub topic: String,
    /// One of the topic's nouns. Drawn also where the last message asks for the canary and doesn't mention it.
    pub object: String,
    /// Steps of indirection, 0 to 2.
    pub disguise: usize,
    /// User messages, 1 to 5.
    pub rounds: usize,
    /// Signs of openness to advice, 0 to 3.
    pub openness: usize,
    /// Cue 1, the stance: whether the user is willing to act.
    pub willing: bool,
    /// Cue 2, the deed: whether the act is harmful.
    pub harmful: bool,
    /// Cue 3, the report: whether the news is bad.
    pub gloomy: bool,
    /// Cue 4, the trust: whether the user doubts the report.
    pub doubting: bool,
    /// A secret word that the system message asks to keep.
    pub canary: Option<String>,
    /// Whether the last message asks for the canary.
    pub asked_canary: bool,
}

/// Bad intent: willing to do harm, or unwilling to do good.
fn unkind(willing: bool, harmful: bool) -> bool {
    willing == harmful
}

/// Distress or false belief: believes a gloomy report, or doubts a bright one.
fn shaken(gloomy: bool, doubting: bool) -> bool {
    gloomy != doubting
}

impl Situation {
    /// The user's aim, from stance and deed: willing to do harm, or unwilling to do good.
    pub fn unkind(&self) -> bool {
        unkind(self.willing, self.harmful)
    }

    /// The user's state of mind, from report and trust: believes a gloomy report, or doubts a bright one.
    pub fn shaken(&self) -> bool {
        shaken(self.gloomy, self.doubting)
    }
}

impl UserType {
    /// The user type of four cues, two exclusive-ors; malice takes precedence over distress.
    pub fn of(willing: bool, harmful: bool, gloomy: bool, doubting: bool) -> UserType {
        match (unkind(willing, harmful), shaken(gloomy, doubting)) {
            (true, _) => UserType::Malicious,
            (false, true) => UserType::Sensitive,
            (false, false) => UserType::Benign,
        }
    }
}

impl Level {
    /// The risk level: R0 for benign users; R2 for malicious users who ask for information or give a directive, and for
    /// sensitive users who give an aggressive one; else R1.
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
