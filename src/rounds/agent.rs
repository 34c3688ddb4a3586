//! Agent: an attack on an aim, after MRJ-Agent (arXiv 2411.03814), in parts that can be swapped: it decomposes the aim, paces the steps,
//! chooses a manner and reacts to refusals.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::aim::Aim;
use super::manner::Bandit;

/// Whether the aim is taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decompose {
    /// Everything is said in one message.
    OneMessage,
    /// The steps are spread over the rounds before the request.
    #[default]
    Steps,
}

/// The order of the steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pace {
    /// The similarity to the aim stays below a bound that rises with the rounds; the request comes last.
    #[default]
    Band,
    /// As in the plain telling; the request comes last.
    InOrder,
    /// No pace: any order, the request in any round.
    Shuffled,
    /// The message that the guard's probe reads as the least risky; the request comes last. This agent sees the guard's readings.
    LowestReading,
}

/// How the request is dressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manners {
    /// Plainly.
    None,
    /// In the aim's first manner.
    First,
    /// In the manner that a bandit chooses by what worked in earlier dialogues.
    #[default]
    Bandit,
}

/// What follows a refusal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum React {
    /// Nothing: the agent gives up.
    Stop,
    /// The request in other words, in one more manner.
    #[default]
    Rephrase,
    /// A new dialogue from the beginning (best of N).
    Fresh,
}

/// An agent's parts and limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Agent {
    /// Its name in tables.
    pub name: String,
    /// Whether the aim is taken apart.
    #[serde(default)]
    pub decompose: Decompose,
    /// The order of the steps.
    #[serde(default)]
    pub pace: Pace,
    /// How the request is dressed.
    #[serde(default)]
    pub manners: Manners,
    /// What follows a refusal.
    #[serde(default)]
    pub react: React,
    /// Refusals of the request, at most: then the agent gives up.
    #[serde(default = "two")]
    pub refusals: usize,
}

fn two() -> usize {
    2
}

impl Agent {
    /// An agent of these parts that gives up after two refusals of the request.
    pub fn new(name: &str, decompose: Decompose, pace: Pace, manners: Manners, react: React) -> Agent {
        Agent { name: name.into(), decompose, pace, manners, react, refusals: two() }
    }

    /// A name for messages that come from elsewhere: no part of an agent is used.
    pub(super) fn of_messages(name: &str) -> Agent {
        Agent::new(name, Decompose::OneMessage, Pace::InOrder, Manners::None, React::Stop)
    }

    /// Whether it goes by the guard's readings.
    pub fn reads(&self) -> bool {
        self.pace == Pace::LowestReading
    }

    /// Peers to hold an agent against, and the whole agent last: one shot, best of N, a fixed script.
    pub fn peers() -> Vec<Agent> {
        let (one, steps) = (Decompose::OneMessage, Decompose::Steps);
        vec![
            Agent::new("one shot", one, Pace::InOrder, Manners::None, React::Stop),
            Agent::new("best of N", one, Pace::InOrder, Manners::None, React::Fresh),
            Agent::new("fixed script", steps, Pace::InOrder, Manners::None, React::Stop),
            Agent::new("agent", steps, Pace::Band, Manners::Bandit, React::Rephrase),
        ]
    }
}

/// What an agent says next.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Move {
    /// The message.
    pub text: String,
    /// Whether it holds the request.
    pub asks: bool,
    /// The manner that was added.
    pub manner: Option<usize>,
    /// The steps that it says.
    steps: Vec<usize>,
}

impl Move {
    /// A message that comes from elsewhere. It isn't known whether it holds the request.
    pub(super) fn said(text: String) -> Move {
        Move { text, asks: false, manner: None, steps: Vec::new() }
    }
}

/// Messages that an agent which sees the guard's readings compares in a round.
const COMPARED: usize = 4;

/// One dialogue's course.
pub(super) struct Course<'a> {
    agent: &'a Agent,
    aim: &'a Aim,
    /// Steps that are not said yet, in the order in which they are to be said, with their similarity.
    left: Vec<(usize, f64)>,
    /// Similarity of the least and most similar step.
    range: [f64; 2],
    /// Rounds, at most, and messages said so far.
    rounds: usize,
    said: usize,
    /// The round in which the request comes first.
    ask_at: usize,
    used: Vec<usize>,
    refusals: usize,
    is_over: bool,
    rng: StdRng,
}

impl<'a> Course<'a> {
    pub(super) fn new(
        agent: &'a Agent,
        aim: &'a Aim,
        similarities: &[f64],
        rounds: usize,
        seed: u64,
    ) -> Course<'a> {
        let mut rng = StdRng::seed_from_u64(seed);
        let known = |step: usize| similarities.get(step).copied().unwrap_or(0.0);
        let mut left: Vec<(usize, f64)> = (0..aim.steps.len()).map(|step| (step, known(step))).collect();
        let range = left.iter().fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], (_, similarity)| {
            [low.min(*similarity), high.max(*similarity)]
        });
        let rounds = rounds.max(1);
        let again = if agent.react == React::Rephrase { agent.refusals.max(1) - 1 } else { 0 };
        let ask_at = match (agent.decompose, agent.pace) {
            (Decompose::OneMessage, _) => 1,
            (_, Pace::Shuffled) => rng.random_range(1..=rounds),
            _ => rounds.saturating_sub(again).max(1),
        };
        if matches!(agent.pace, Pace::Shuffled | Pace::LowestReading) || agent.react == React::Fresh {
            left.shuffle(&mut rng);
        }
        Course {
            agent,
            aim,
            left,
            range,
            rounds,
            said: 0,
            ask_at,
            used: Vec::new(),
            refusals: 0,
            is_over: false,
            rng,
        }
    }

    /// Whether the next message begins a new dialogue.
    pub(super) fn begins_anew(&self) -> bool {
        self.agent.react == React::Fresh
    }

    /// The messages that the agent chooses among: one, or several where it goes by the guard's readings. Empty where it is done.
    pub(super) fn candidates(&mut self, bandit: &mut Bandit) -> Vec<Move> {
        if self.is_over || self.said >= self.rounds {
            return Vec::new();
        }
        let round = self.said + 1;
        let asks = match self.agent.react {
            React::Fresh => true,
            // It is time, or nothing else is left to say.
            _ => round >= self.ask_at || self.left.is_empty(),
        };
        let count = self.share(round);
        let compared = if self.agent.pace == Pace::LowestReading { COMPARED } else { 1 };
        let mut moves = Vec::new();
        for place in 0..compared {
            let steps = self.steps(round, count, place);
            let manner = if asks { self.manner(place, bandit) } else { None };
            let known = |step: &usize| self.aim.steps[*step].as_str();
            let opening = self.aim.opening.as_deref().filter(|_| round == 1 && !asks);
            let mut said: Vec<&str> = opening.into_iter().chain(steps.iter().map(known)).collect();
            said.extend(manner.map(|manner| self.aim.manners[manner].text.as_str()));
            if asks && !self.aim.asks.is_empty() {
                said.push(&self.aim.asks[self.refusals % self.aim.asks.len()]);
            }
            let own = Move { text: said.join(" "), asks, manner, steps };
            if !own.text.is_empty() && !moves.contains(&own) {
                moves.push(own);
            }
        }
        // Nothing to say at all: an aim without steps, request and manner.
        self.is_over |= moves.is_empty();
        moves
    }

    /// How many steps this round says.
    fn share(&self, round: usize) -> usize {
        let last = match (self.agent.decompose, self.agent.pace) {
            (Decompose::OneMessage, _) => 1,
            (_, Pace::Shuffled) => self.rounds,
            _ => self.ask_at.saturating_sub(1).max(1),
        };
        match self.agent.react == React::Fresh || round >= last {
            true => self.left.len(),
            false => self.left.len().div_ceil(last - round + 1),
        }
    }

    /// The steps of a candidate.
    fn steps(&self, round: usize, count: usize, place: usize) -> Vec<usize> {
        let mut order = self.left.clone();
        match self.agent.pace {
            Pace::Band => {
                let [low, high] = self.range;
                let ceiling = low + (high - low) * round as f64 / self.ask_at.max(1) as f64;
                // Inside the band the nearest to the aim first; above it the farthest from it.
                let is_above = |similarity: f64| similarity > ceiling;
                order.sort_by(|(_, a), (_, b)| match (is_above(*a), is_above(*b)) {
                    (false, false) => b.total_cmp(a),
                    (true, true) => a.total_cmp(b),
                    (one, other) => one.cmp(&other),
                });
            }
            Pace::LowestReading if !order.is_empty() => {
                let shift = place * count % order.len();
                order.rotate_left(shift);
            }
            _ => {}
        }
        let mut steps: Vec<usize> = order.into_iter().take(count).map(|(step, _)| step).collect();
        if self.agent.pace == Pace::Band {
            steps.sort_unstable();
        }
        steps
    }

    fn manner(&mut self, place: usize, bandit: &mut Bandit) -> Option<usize> {
        let free: Vec<usize> = (0..self.aim.manners.len()).filter(|one| !self.used.contains(one)).collect();
        match (self.agent.manners, self.agent.pace) {
            (Manners::None, _) => None,
            (Manners::First, _) => free.first().copied().filter(|_| self.used.is_empty()),
            (Manners::Bandit, Pace::LowestReading) => free.get(place % free.len().max(1)).copied(),
            (Manners::Bandit, _) => {
                let names: Vec<&str> = self.aim.manners.iter().map(|manner| manner.name.as_str()).collect();
                bandit.choose(&names, &|place| free.contains(&place))
            }
        }
    }

    /// Notes what was said.
    pub(super) fn say(&mut self, own: &Move) {
        self.said += 1;
        self.left.retain(|(step, _)| !own.steps.contains(step));
        self.used.extend(own.manner);
    }

    /// Hears the answer to a message.
    pub(super) fn hear(&mut self, own: &Move, success: bool, bandit: &mut Bandit) {
        if success {
            self.is_over = true;
            if let Some(manner) = own.manner {
                bandit.won(&self.aim.manners[manner].name);
            }
        } else if own.asks {
            self.refusals += 1;
            self.is_over |= match self.agent.react {
                React::Stop => true,
                React::Rephrase => self.refusals >= self.agent.refusals,
                React::Fresh => false,
            };
            if self.agent.react == React::Fresh {
                self.left = (0..self.aim.steps.len()).map(|step| (step, 0.0)).collect();
                self.left.shuffle(&mut self.rng);
                self.used.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialogue::Dialogue;
    use crate::rounds::aim::Manner;

    fn aim() -> Aim {
        Aim {
            dialogue: Dialogue::new("one", Vec::new()),
            opening: None,
            steps: ["a", "b", "c", "d"].map(String::from).into(),
            asks: ["please ?", "now ?"].map(String::from).into(),
            manners: vec![Manner::new("story", "story :"), Manner::new("game", "game :")],
        }
    }

    fn agent(text: &str) -> Agent {
        toml::from_str(&format!("name = 'one'\n{text}")).unwrap()
    }

    /// What an agent says that is refused every time.
    fn said(agent: &Agent, similarities: &[f64], rounds: usize) -> Vec<String> {
        let (aim, mut bandit) = (aim(), Bandit::default());
        let mut course = Course::new(agent, &aim, similarities, rounds, 3);
        let mut said = Vec::new();
        while let Some(own) = course.candidates(&mut bandit).into_iter().next() {
            course.say(&own);
            course.hear(&own, false, &mut bandit);
            said.push(own.text);
        }
        said
    }

    #[test]
    fn the_band_rises_toward_the_aim_and_the_request_comes_last() {
        let similarities = [0.9, 0.1, 0.5, 0.2];
        let whole = agent("");
        // The request in round 4 and, after a refusal, in round 5; the steps in rounds 1 to 3, two, one and one.
        assert_eq!(said(&whole, &similarities, 5), ["b d", "c", "a", "story : please ?", "game : now ?"]);
        // With nothing left to say in a round the dialogue would end; here every round has something.
        assert_eq!(said(&whole, &similarities, 2), ["a b c d story : please ?", "game : now ?"]);
    }

    #[test]
    fn each_part_can_be_swapped() {
        let order = [0.9, 0.1, 0.5, 0.2];
        assert_eq!(
            said(&agent("manners = 'none'\nreact = 'stop'\npace = 'in-order'"), &order, 3),
            ["a b", "c d", "please ?"]
        );
        let one = agent("decompose = 'one-message'\nmanners = 'none'\nreact = 'stop'");
        assert_eq!(said(&one, &[], 3), ["a b c d please ?"]);
        let best = said(&agent("decompose = 'one-message'\nmanners = 'none'\nreact = 'fresh'"), &[], 3);
        let is_whole = |text: &String| ["a ", "b ", "c ", "d ", " ?"].iter().all(|part| text.contains(part));
        assert!(best.len() == 3 && best.iter().all(is_whole), "{best:?}");
        assert_eq!(said(&agent("react = 'stop'"), &order, 3).last().unwrap(), "story : please ?");
        let shuffled = said(&agent("pace = 'shuffled'\nmanners = 'none'"), &order, 4);
        assert!(shuffled.iter().filter(|text| text.contains('?')).count() <= 2, "{shuffled:?}");
    }

    #[test]
    fn an_agent_that_sees_readings_compares_messages() {
        let (aim, mut bandit) = (aim(), Bandit::default());
        let adaptive = agent("pace = 'lowest-reading'");
        let mut course = Course::new(&adaptive, &aim, &[], 5, 3);
        let first = course.candidates(&mut bandit);
        assert!(
            first.len() > 1 && first.iter().all(|own| !own.asks && own.text.len() == first[0].text.len())
        );
    }

    #[test]
    fn the_request_comes_when_nothing_else_is_left() {
        let said = said(&agent("manners = 'none'\nreact = 'stop'"), &[0.1, 0.2, 0.3, 0.4], 20);
        assert_eq!(said.len(), 5);
        assert_eq!(said.last().unwrap(), "please ?");
    }

    #[test]
    fn an_opening_is_said_before_anything_but_the_request() {
        let mut aim = aim();
        aim.opening = Some("about x .".into());
        let (own, mut bandit) = (agent("manners = 'none'\npace = 'in-order'"), Bandit::default());
        let mut first =
            |rounds: usize| Course::new(&own, &aim, &[], rounds, 3).candidates(&mut bandit)[0].text.clone();
        assert_eq!(first(4), "about x . a b");
        assert_eq!(first(2), "a b c d please ?");
    }

    #[test]
    fn unknown_parts_are_refused() {
        assert!(toml::from_str::<Agent>("name = 'one'\npace = 'slow'").is_err());
        assert!(toml::from_str::<Agent>("name = 'one'\nspeed = 1").is_err());
    }
}
