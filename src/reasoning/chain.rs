//! The safety chain: user needs, risk and intent, guidelines, and response strategies of two kinds.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::organism::Intent;

/// A node of the chain, in the order of reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Node {
    /// What the user needs.
    Needs,
    /// The risk of the request, and the intent behind it.
    RiskIntent,
    /// The guidelines that apply.
    Guidelines,
    /// How the answer is made safe and useful.
    Strategies,
}

impl Node {
    /// All nodes, in order.
    pub const ALL: [Node; 4] = [Node::Needs, Node::RiskIntent, Node::Guidelines, Node::Strategies];

    /// The node's name.
    pub fn name(self) -> &'static str {
        match self {
            Node::Needs => "needs",
            Node::RiskIntent => "risk-intent",
            Node::Guidelines => "guidelines",
            Node::Strategies => "strategies",
        }
    }
}

/// What a strategy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Keeps the answer from harm.
    Safety,
    /// Makes the answer serve the user.
    Usefulness,
}

/// A strategy of an answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Strategy {
    /// What it is for.
    pub kind: Kind,
    /// What it says.
    pub text: String,
}

impl Strategy {
    /// A strategy.
    pub fn new(kind: Kind, text: impl Into<String>) -> Strategy {
        Strategy { kind, text: text.into() }
    }
}

/// A safety chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Chain {
    /// User needs.
    pub needs: String,
    /// Risk and intent; empty where there is no risk.
    pub risk_intent: String,
    /// The guidelines that apply; empty where there is no risk.
    pub guidelines: String,
    /// The strategies, in the order written.
    pub strategies: Vec<Strategy>,
    /// The speech act of the request, where the chain states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
}

impl Chain {
    /// Whether the chain states no risk: both of its risk fields are empty. Such a chain bypasses safety.
    pub fn has_no_risk(&self) -> bool {
        self.risk_intent.trim().is_empty() && self.guidelines.trim().is_empty()
    }

    /// The strategies of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Strategy> {
        self.strategies.iter().filter(move |strategy| strategy.kind == kind)
    }

    /// The text of a node.
    pub fn text(&self, node: Node) -> String {
        match node {
            Node::Needs => self.needs.clone(),
            Node::RiskIntent => self.risk_intent.clone(),
            Node::Guidelines => self.guidelines.clone(),
            Node::Strategies => {
                let texts: Vec<&str> =
                    self.strategies.iter().map(|strategy| strategy.text.as_str()).collect();
                texts.join("; ")
            }
        }
    }

    /// Refuses a chain without needs or strategies, or with one risk field alone: risk and guidelines are stated together or not at all.
    /// `place` begins the error.
    ///
    /// # Errors
    /// Such a chain, with the node that is missing.
    pub fn check(&self, place: &str) -> Result<()> {
        let empty = |text: &str| text.trim().is_empty();
        let missing = if empty(&self.needs) {
            Node::Needs
        } else if self.strategies.iter().all(|strategy| empty(&strategy.text)) {
            Node::Strategies
        } else if empty(&self.risk_intent) && !empty(&self.guidelines) {
            Node::RiskIntent
        } else if empty(&self.guidelines) && !empty(&self.risk_intent) {
            Node::Guidelines
        } else {
            return Ok(());
        };
        let expected = "needs and a strategy, and risk with guidelines or neither";
        Err(Error::input(place, format!("a chain without {}", missing.name()), expected))
    }
}

/// The speech act that a text names: declarative, inquiry (information or opinion), directive (plain or aggressive).
pub fn intent_of_text(text: &str) -> Option<Intent> {
    let text = text.to_lowercase();
    let has = |word: &str| text.contains(word);
    if has("directive") {
        return Some(if has("aggressive") { Intent::Aggressive } else { Intent::Plain });
    }
    if has("inquiry") || has("inquiring") {
        return Some(if has("opinion") { Intent::Opinion } else { Intent::Information });
    }
    has("declarative").then_some(Intent::Declarative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_without_a_node_is_named() {
        let whole = Chain {
            needs: "advice".into(),
            risk_intent: "self-harm".into(),
            guidelines: "support".into(),
            strategies: vec![Strategy::new(Kind::Safety, "listen")],
            intent: None,
        };
        whole.check("c").unwrap();
        let no_risk = Chain { risk_intent: String::new(), guidelines: " ".into(), ..whole.clone() };
        assert!(no_risk.has_no_risk() && no_risk.check("c").is_ok());
        for (broken, name) in [
            (Chain { needs: String::new(), ..whole.clone() }, "needs"),
            (Chain { strategies: Vec::new(), ..whole.clone() }, "strategies"),
            (Chain { guidelines: String::new(), ..whole.clone() }, "guidelines"),
            (Chain { risk_intent: String::new(), ..whole.clone() }, "risk-intent"),
        ] {
            let error = broken.check("line 3").unwrap_err().to_string();
            assert!(error.starts_with(&format!("line 3: a chain without {name};")), "{error}");
        }
    }

    #[test]
    fn intents_are_read_from_their_words() {
        for (text, intent) in [
            ("Declarative statement", Some(Intent::Declarative)),
            ("inquiry (seeking information)", Some(Intent::Information)),
            ("Inquiry: opinion", Some(Intent::Opinion)),
            ("directive", Some(Intent::Plain)),
            ("Directive (aggressive)", Some(Intent::Aggressive)),
            ("none", None),
        ] {
            assert_eq!(intent_of_text(text), intent, "{text}");
        }
    }
}
