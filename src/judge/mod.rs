//! Response judges: a dialogue and a transcript in, a score with its reason out.
//!
//! [`JUDGES`] is the table of judges that a file may name; a new judge is one file and one line of it.

mod answer_probe;
mod appraisal;
mod command;
mod endpoint;
mod endpoint_client;
mod endpoint_verdict;
mod organism;
mod organism_appraisal;
mod refusal_patterns;
mod refusal_phrases;
mod rules;
mod rules_appraisal;
mod safety_thinking;
mod score;
mod words;

use std::path::Path;

use crate::dialogue::Dialogue;
use crate::error::{Error, Result};

pub use answer_probe::AnswerProbe;
pub use appraisal::{Appraisal, ITEMS};
pub use command::Command;
pub use endpoint::EndpointJudge;
pub use endpoint_client::{Endpoint, EndpointClient, Purpose, chat_request};
pub use organism::World;
pub use refusal_phrases::Refusals;
pub use rules::{Rules, Verdict, verdict};
pub use rules_appraisal::RulesAppraisal;
pub use score::{BROKEN, Score, Scorer, UNPARSED};
pub use words::Words;

/// What judges may need beside their name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Phrases of which every refusal holds one; the built-in ones where there is none.
    pub refusals: Vec<String>,
    /// Words of which the judge `words` looks for one.
    pub words: Vec<String>,
    /// Where the judge `endpoint` asks.
    pub endpoint: Option<Endpoint>,
    /// Whether a judge may be a command. A file that somebody else wrote may name one, so that files may only where the environment
    /// says so ([`COMMANDS`]).
    pub commands: bool,
}

/// The environment variable that lets files name a command as their judge, where it is 1.
pub const COMMANDS: &str = "PEARL_COMMANDS";

/// A line of the table.
pub struct Judge {
    /// Its name in files.
    pub name: &'static str,
    /// What follows a colon after its name, where it takes something.
    pub takes: Option<&'static str>,
    /// What it judges by.
    pub about: &'static str,
    /// The judge, from the options and from what follows the colon.
    make: fn(&Options, &str) -> Result<Box<dyn Scorer>>,
}

/// The judges that a file may name.
pub const JUDGES: [Judge; 8] = [
    Judge {
        name: "organism",
        takes: None,
        about: "the grammar and the truth of the embedded model's world",
        make: |_, _| Ok(Box::new(World)),
    },
    Judge {
        name: "refusals",
        takes: None,
        about: "the phrases that refusals hold, for any chat model",
        make: |options, _| {
            Ok(Box::new(match options.refusals.as_slice() {
                [] => Refusals::built_in(),
                phrases => Refusals::new(phrases)?,
            }))
        },
    },
    Judge {
        name: "rules",
        takes: None,
        about: "compliance, partial or full refusal, by what each sentence does",
        make: |_, _| Ok(Box::new(Rules)),
    },
    Judge {
        name: "rules",
        takes: Some("LABEL=VALUE"),
        about: "the same with satisfaction and risk, where the label says that the user asks for harm",
        make: |_, harm| Ok(Box::new(RulesAppraisal::new(harm)?)),
    },
    Judge {
        name: "words",
        takes: None,
        about: "whether an answer holds one of some words",
        make: |options, _| Ok(Box::new(Words::new(&options.words)?)),
    },
    Judge {
        name: "endpoint",
        takes: None,
        about: "a model behind an OpenAI-compatible URL, by a strict schema",
        make: |options, _| {
            let missing = || Error::input("judge", "\"endpoint\" without a URL", "--judge-url URL");
            let endpoint = options.endpoint.as_ref().ok_or_else(missing)?;
            Ok(Box::new(EndpointJudge::new(endpoint)?))
        },
    },
    Judge {
        name: "probe",
        takes: Some("FILE"),
        about: "the class that a probe of the answer's hidden states reads, with the answering model",
        make: |_, file| Ok(Box::new(AnswerProbe::new(Path::new(file))?)),
    },
    Judge {
        name: "command",
        takes: Some("COMMAND"),
        about: "a program of your own, by a line of JSON an answer",
        make: |options, command| {
            if !options.commands && std::env::var_os(COMMANDS).is_none_or(|value| value != "1") {
                let expected =
                    format!("{COMMANDS}=1 in the environment, if you trust the file that names it");
                return Err(Error::input("judge", format!("the command {command:?}"), expected));
            }
            Ok(Box::new(Command::new(command)?))
        },
    },
];

impl Judge {
    /// What a file says to have it: `words`, `probe: FILE`.
    fn form(&self) -> String {
        self.takes.map_or(self.name.into(), |takes| format!("{}: {takes}", self.name))
    }
}

/// The judge of this name; after a colon, what it takes (`probe: FILE`, `command: COMMAND`).
///
/// # Errors
/// A name that no judge has; a refusal phrase that is empty; a probe or a command that can't judge.
pub fn by_name(name: &str, options: &Options) -> Result<Box<dyn Scorer>> {
    let (kind, takes) = match name.split_once(':') {
        Some((kind, takes)) => (kind.trim(), Some(takes.trim())),
        None => (name, None),
    };
    let found = JUDGES.iter().find(|judge| judge.name == kind && judge.takes.is_some() == takes.is_some());
    let found = found.ok_or_else(|| {
        let forms: Vec<String> = JUDGES.iter().map(Judge::form).collect();
        Error::input("judge", format!("{name:?}"), forms.join(" or "))
    })?;
    (found.make)(options, takes.unwrap_or_default())
}

/// The judge of a file that may name one: by default `words` where the file has words, `refusals` where it has refusal
/// phrases or the model is not the embedded organism, and `organism` otherwise.
///
/// # Errors
/// As [`by_name`]; refusal phrases or words beside a judge that has no use for them.
pub fn of_file(name: Option<&str>, options: &Options, model: &str) -> Result<Box<dyn Scorer>> {
    let name = match name {
        Some(name) if name != "refusals" && !options.refusals.is_empty() => {
            let found = format!("{name:?} beside refusal phrases");
            return Err(Error::input("judge", found, "judge = \"refusals\", or no phrases"));
        }
        Some(name) if name != "words" && !options.words.is_empty() => {
            return Err(Error::input(
                "judge",
                format!("{name:?} beside words"),
                "judge = \"words\", or no words",
            ));
        }
        Some(name) if name != "endpoint" && options.endpoint.is_some() => {
            let found = format!("{name:?} beside a URL");
            return Err(Error::input("judge", found, "judge = \"endpoint\", or no URL"));
        }
        Some(name) => name,
        None if options.endpoint.is_some() => "endpoint",
        None if !options.words.is_empty() => "words",
        None if model == "organism" && options.refusals.is_empty() => "organism",
        None => "refusals",
    };
    by_name(name, options)
}

/// Checks that a judge tells an outcome apart from others, before any answer is generated.
///
/// # Errors
/// An outcome that is none of the judge's; `place` says where it was asked for.
pub fn check_outcome(judge: &dyn Scorer, place: &str, outcome: &str) -> Result<()> {
    if judge.outcomes().contains(&outcome) {
        return Ok(());
    }
    let expected = format!("{}: what judge = {:?} tells apart", judge.outcomes().join(" or "), judge.name());
    Err(Error::input(place, format!("outcome {outcome:?}"), expected))
}

/// Checks that a judge can judge answers to all of these dialogues, before any answer is generated.
///
/// # Errors
/// The first dialogue that it can't judge.
pub fn check_dialogues<'a>(
    judge: &dyn Scorer,
    dialogues: impl IntoIterator<Item = &'a Dialogue>,
) -> Result<()> {
    dialogues.into_iter().try_for_each(|dialogue| judge.check(dialogue))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: &str = "judge: \"NAME\"; expected organism or refusals or rules or rules: LABEL=VALUE or words or endpoint or probe: FILE or command: COMMAND";

    #[test]
    fn every_judge_of_the_table_is_made_by_its_name() {
        let endpoint = Endpoint { url: "http://localhost/v1".into(), ..Endpoint::default() };
        let options = Options { words: vec!["rest".into()], endpoint: Some(endpoint), ..Options::default() };
        let bare = JUDGES.iter().filter(|judge| judge.takes.is_none());
        for judge in bare.filter(|judge| cfg!(feature = "hub") || judge.name != "endpoint") {
            let made = by_name(judge.name, &options).unwrap();
            assert_eq!(made.name(), judge.name);
            assert!(made.outcomes().len() > 1 && !judge.about.is_empty());
            assert!(check_outcome(made.as_ref(), "goal", made.outcomes()[0]).is_ok());
            let wrong = check_outcome(made.as_ref(), "goal", "sing").unwrap_err().to_string();
            assert!(wrong.starts_with("goal: outcome \"sing\"; expected "), "{wrong}");
        }
        let unknown = by_name("crowd", &Options::default()).err().unwrap().to_string();
        assert_eq!(unknown, EXPECTED.replace("NAME", "crowd"));
        for (wrong, name) in [("words: rest", "words: rest"), ("command", "command"), ("probe", "probe")] {
            let said = by_name(wrong, &Options::default()).err().unwrap().to_string();
            assert_eq!(said, EXPECTED.replace("NAME", name));
        }
        let missing = by_name("probe: nowhere.safetensors", &Options::default()).err().unwrap().to_string();
        assert!(missing.starts_with("nowhere.safetensors: No such file"), "{missing}");
    }

    #[test]
    fn the_default_follows_the_model_and_the_phrases() {
        let phrases = Options { refusals: vec!["no".into()], ..Options::default() };
        let name = |judge: Option<&str>, options: &Options, model: &str| {
            of_file(judge, options, model).map(|judge| judge.name())
        };
        let none = Options::default();
        assert_eq!(name(None, &none, "organism").unwrap(), "organism");
        assert_eq!(name(None, &none, "Qwen/Qwen3-0.6B").unwrap(), "refusals");
        assert_eq!(name(None, &phrases, "organism").unwrap(), "refusals");
        assert_eq!(name(Some("organism"), &none, "runs/organism").unwrap(), "organism");
        assert!(name(Some("organism"), &phrases, "organism").is_err());
    }
}
