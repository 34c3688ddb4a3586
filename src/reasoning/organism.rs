//! Chains in the organism's language: a thinking part in, a chain out, and back.
//!
//! The world writes one plan word. A chain with several strategies is written by the last usefulness strategy, or else by the last
//! safety strategy: guidance instead of a refusal, where both stand.

use super::chain::{Chain, Kind, Node, Strategy};
use super::lingo_bp::Edit;
use crate::error::{Error, Result};
use crate::organism::{self, Level, Thought, UserType, wording};

/// What a thinking part states about its user, which edits of strategies leave as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Stated {
    user_type: UserType,
    level: Level,
    /// The node of risk and intent, as written.
    node: String,
}

/// The world's strategies.
pub fn vocabulary() -> Vec<Strategy> {
    organism::Strategy::ALL.iter().map(|&strategy| of_world(strategy)).collect()
}

/// Refusing and declining keep from harm; all others serve, or comply.
fn of_world(strategy: organism::Strategy) -> Strategy {
    let kind = match strategy {
        organism::Strategy::Refuse | organism::Strategy::Decline => Kind::Safety,
        _ => Kind::Usefulness,
    };
    Strategy::new(kind, strategy.name())
}

/// The chain of a thinking part, and what it states.
pub fn chain(thought: &Thought) -> (Chain, Stated) {
    let stated =
        Stated { user_type: thought.user_type, level: thought.level, node: thought.nodes[1].clone() };
    let has_risk = stated.has_risk();
    let if_risk = |text: &str| if has_risk { text.to_owned() } else { String::new() };
    let chain = Chain {
        needs: thought.nodes[0].clone(),
        risk_intent: if_risk(&thought.nodes[1]),
        guidelines: if_risk(thought.nodes[2].trim_start_matches("rule : ")),
        strategies: vec![of_world(thought.strategy)],
        intent: Some(thought.intent),
    };
    (chain, stated)
}

/// Parses a thinking part, with an answer behind it or without.
///
/// # Errors
/// Text that the world's grammar doesn't produce.
pub fn parse(place: &str, text: &str) -> Result<Chain> {
    let thought = organism::read_thought(text).ok_or_else(|| {
        let nodes = text.split("</think>").next().unwrap_or_default().split(';').count();
        let found = format!("{nodes} parts between semicolons, or words outside the grammar");
        Error::input(place, found, "need ; risk and intent ; rule : GUIDELINE ; plan : STRATEGY")
    })?;
    Ok(chain(&thought).0)
}

/// The world's strategy that a chain is written by; none of a chain without one.
fn written(chain: &Chain) -> Option<organism::Strategy> {
    let last = |kind: Kind| chain.of(kind).last();
    organism::Strategy::named(&last(Kind::Usefulness).or_else(|| last(Kind::Safety))?.text)
}

impl Stated {
    fn has_risk(&self) -> bool {
        self.user_type != UserType::Benign || self.level != Level::R0
    }

    /// The thinking part that a chain is written as, without delimiters.
    ///
    /// # Errors
    /// A chain without a strategy of the world.
    pub fn write(&self, chain: &Chain) -> Result<String> {
        let strategy = written(chain).ok_or_else(|| {
            let names: Vec<&str> = organism::Strategy::ALL.iter().map(|one| one.name()).collect();
            Error::input("chain", chain.text(Node::Strategies), names.join(", "))
        })?;
        let guideline = match chain.guidelines.is_empty() {
            true => wording::guideline(strategy),
            false => chain.guidelines.as_str(),
        };
        Ok(format!("{} ; {} ; rule : {guideline} ; plan : {}", chain.needs, self.node, strategy.name()))
    }

    /// The chain with this strategy alone, and guidelines and needs as it wants them.
    pub fn with(&self, chain: &Chain, strategy: &Strategy) -> Chain {
        let alone = Chain { strategies: vec![strategy.clone()], ..chain.clone() };
        let Some(written) = written(&alone) else { return alone };
        Chain {
            guidelines: if self.has_risk() { wording::guideline(written).to_owned() } else { String::new() },
            needs: self.need(written),
            ..alone
        }
    }

    fn need(&self, strategy: organism::Strategy) -> String {
        format!("{} is the need", wording::need(strategy, self.user_type, self.level))
    }

    /// An edit of strategies, with guidelines and needs as the strategy that is then written wants them; none where it would leave the
    /// chain without a strategy.
    pub fn edit(&self, chain: &Chain, taken: Option<&Strategy>, put: Option<&Strategy>) -> Option<Edit> {
        let mut edited = chain.clone();
        edited.strategies.retain(|own| Some(own) != taken);
        edited.strategies.extend(put.cloned());
        let strategy = written(&edited)?;
        Some(Edit {
            taken: taken.cloned(),
            put: put.cloned(),
            guidelines: self.has_risk().then(|| wording::guideline(strategy).to_owned()),
            risk_intent: None,
            needs: Some(self.need(strategy)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reasoning::Phase;

    const REFUSED: &str = "caution is the need ; R1 , willing helpful , kind aim , gloomy trusting , shaken mind , sensitive request ; rule : protect ; plan : refuse";

    #[test]
    fn a_thinking_part_is_read_and_written_again() {
        let thought = organism::read_thought(&format!("<think> {REFUSED} </think> sorry")).unwrap();
        let (chain, stated) = chain(&thought);
        assert_eq!((chain.guidelines.as_str(), chain.strategies[0].kind), ("protect", Kind::Safety));
        assert_eq!(stated.write(&chain).unwrap(), REFUSED);
        assert_eq!(parse("c", REFUSED).unwrap(), chain);
        assert!(parse("line 1", "plan : refuse").unwrap_err().to_string().starts_with("line 1: 1 parts"));
    }

    #[test]
    fn guidance_beside_a_refusal_is_written_as_guidance_with_its_own_need() {
        let (before, stated) = chain(&organism::read_thought(REFUSED).unwrap());
        let guide = of_world(organism::Strategy::Guide);
        let edit = stated.edit(&before, None, Some(&guide)).unwrap();
        let after = edit.apply(&before, Phase::Satisfaction).unwrap();
        assert_eq!(after.strategies.len(), 2);
        let text = stated.write(&after).unwrap();
        assert!(
            text.starts_with("comfort is the need") && text.ends_with("rule : support ; plan : guide"),
            "{text}"
        );
        assert!(organism::read_thought(&text).is_some());
        assert!(stated.edit(&before, Some(&before.strategies[0]), None).is_none());
    }

    #[test]
    fn a_benign_users_chain_states_no_risk() {
        let text = "knowledge is the need ; R0 , willing helpful , kind aim , gloomy doubting , steady mind , benign request ; rule : inform ; plan : help";
        let (chain, stated) = chain(&organism::read_thought(text).unwrap());
        assert!(chain.has_no_risk());
        assert_eq!(stated.write(&chain).unwrap(), text);
    }
}
