//! Attribution of a decision to the nodes of the chain before it: dialogues with their thinking parts in; for each node what a probe reads
//! there and how much it moved the decision, by activation patching and by gradient, out.
//!
//! The decision is read at the end of the thinking part: the log-odds of a probe's class, or the logit of one answer token less that of
//! another. Patching puts the mean state of all thinking parts in place of the node's states at a site (mean ablation); what the decision
//! loses is what the node moved. The gradient estimates the same: the sum over the node's tokens of gradient times (state − mean state)
//! (attribution patching, Nanda 2023; Syed et al., arXiv 2310.10348).

use std::collections::BTreeMap;

use ndarray::Array1;
use serde::{Deserialize, Serialize};

use super::group_interval;
use super::logit_lens::{check_length, first_token};
use crate::activations::{Readout, Recorder, SiteGradient};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Decoder, Model, Selector, Site, Token};
use crate::probe::{Link, Probe};
use crate::progress::Progress;
use crate::reasoning::NodePlace;
use crate::stats::Interval;
use crate::steer::{ProbeQuery, Probes, ReplaceHook};

/// Tokens of a batch, at most.
const BATCH: usize = 2048;

/// The decision that is attributed.
#[derive(Clone, Debug)]
pub enum Decision {
    /// The log-odds of a probe's class against another.
    Probe(ProbeQuery),
    /// The logit of one text's first token less that of another's; where none is given, the likeliest token and the next likeliest.
    Logits([Option<String>; 2]),
}

/// What is attributed.
#[derive(Clone, Debug)]
pub struct AttributionOptions {
    /// The decision.
    pub decision: Decision,
    /// Sites to patch at, each alone.
    pub sites: Vec<Site>,
    /// Passed to chat templates that know a thinking and a plain mode.
    pub thinking: Option<bool>,
}

/// A dialogue with a thinking part.
#[derive(Clone, Debug)]
pub struct ChainCase {
    /// The dialogue.
    pub dialogue: Dialogue,
    /// The thinking part, without its tags.
    pub thinking: String,
    /// The nodes in it.
    pub places: Vec<NodePlace>,
}

/// What one node moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeAttribution {
    /// What the node is.
    pub part: String,
    /// Its text.
    pub text: String,
    /// Its number of tokens.
    pub tokens: usize,
    /// What the probe reads at its last token: the probability of the class; none without a probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<f64>,
    /// By site: the decision less that with the node's states patched.
    pub patched: Vec<f64>,
    /// By site: its estimate by the gradient.
    pub gradient: Vec<f64>,
}

/// One chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChainAttribution {
    /// The dialogue's id.
    pub id: String,
    /// The decision, as it was.
    pub decision: f64,
    /// What it is for, and against: two classes, or two tokens.
    pub between: [String; 2],
    /// The nodes, in order.
    pub nodes: Vec<NodeAttribution>,
}

/// Means over all nodes of a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartAttribution {
    /// The part.
    pub part: String,
    /// Its nodes.
    pub nodes: usize,
    /// Mean reading of the probe; none without a probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<f64>,
    /// By site: the mean of what patching takes away, over chains.
    pub patched: Vec<Interval>,
    /// By site: the mean of the gradient's estimates.
    pub gradient: Vec<f64>,
}

/// The table (JSON, kind `node-attribution`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttributionTable {
    /// The decision, in words.
    pub decision: String,
    /// Sites, in the order of the forward pass.
    pub sites: Vec<Site>,
    /// By site: the correlation of both attributions over all nodes; none of fewer than three nodes, or where one does not vary.
    pub agreement: Vec<Option<f64>>,
    /// By part, in the order in which they first appear.
    pub parts: Vec<PartAttribution>,
    /// The chains.
    pub chains: Vec<ChainAttribution>,
}

/// The tokens of one chain, and those of each node.
struct Row {
    tokens: Vec<Token>,
    /// Positions of the thinking part.
    thinking: std::ops::Range<usize>,
    /// Positions of each node.
    nodes: Vec<Vec<usize>>,
}

/// A probe with the class that is read, and the one that it is read against.
struct ReadClass {
    probe: Probe,
    class: usize,
    against: usize,
}

/// Attributes the decision of every chain to its nodes.
///
/// # Errors
/// No chain; a chain that is too long for the model; a probe of another model, or of several classes where no two are named; a site after
/// the decision; a model without logits, or one some of whose operations have no gradient; a stop.
pub fn attribute(
    model: &Model,
    cases: &[ChainCase],
    options: &AttributionOptions,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<AttributionTable> {
    let read = match &options.decision {
        Decision::Probe(query) => Some(read_class(model, query)?),
        Decision::Logits(_) => {
            model.decoder.expect_logits()?;
            None
        }
    };
    let mut sites = options.sites.clone();
    sites.sort_unstable();
    sites.dedup();
    if let Some(last) = sites.last().filter(|last| read.as_ref().is_some_and(|read| read.site() < **last)) {
        let expected = format!("sites up to the probe's, {}", read.as_ref().map_or(*last, ReadClass::site));
        return Err(Error::input("sites", last, expected));
    }
    if cases.is_empty() || sites.is_empty() {
        let found = format!("{} chains and {} sites", cases.len(), sites.len());
        return Err(Error::input("attribution", found, "one or more of each"));
    }
    let rows = cases.iter().map(|case| row(model, case, options.thinking)).collect::<Result<Vec<_>>>()?;
    let means = mean_states(&model.decoder, &rows, &sites)?;
    let mut chains = Vec::with_capacity(cases.len());
    for (case, row) in cases.iter().zip(&rows) {
        chains.push(one_chain(model, (case, row), (&sites, &means), (&options.decision, read.as_ref()))?);
        if !on_progress(Progress { stage: "attribute chains", done: chains.len(), total: cases.len() }) {
            return Err(Error::Stopped);
        }
    }
    let decision = match &read {
        Some(read) => format!("log-odds of {} at {}", read.probe.source.label, read.site()),
        None => "difference of two logits".into(),
    };
    let agreement = (0..sites.len()).map(|site| correlation(&chains, site)).collect();
    Ok(AttributionTable { decision, parts: parts(&chains, sites.len()), sites, agreement, chains })
}

impl ReadClass {
    fn site(&self) -> Site {
        self.probe.source.site
    }

    /// The direction of the log-odds of the class against the other, and their bias.
    fn readout(&self) -> Result<(Readout, f64)> {
        let name = |class: usize| self.probe.classes[class].as_str();
        let direction = self.probe.direction(name(self.against), name(self.class))?;
        let bias = |class: usize| match (self.probe.link, class) {
            (Link::Binary, 0) => 0.0,
            (Link::Binary, _) => f64::from(self.probe.bias[0]),
            (_, class) => f64::from(self.probe.bias[class]),
        };
        Ok((Readout::Direction(self.site(), direction), bias(self.class) - bias(self.against)))
    }
}

fn read_class(model: &Model, query: &ProbeQuery) -> Result<ReadClass> {
    // The reader checks model, width, link and the class's name.
    Probes::default().reader(query, model)?;
    let probe = Probe::load(&query.probe)?;
    let class = query.class.as_ref().map_or(Ok(1), |class| probe.class(class))?;
    let against = match (&query.against, probe.classes.len()) {
        (Some(against), _) => probe.class(against)?,
        (None, 2) => 1 - class,
        (None, _) => {
            let place = format!("probe {}", query.probe.display());
            let expected = format!("CLASS/OTHER of {}", probe.classes.join(", "));
            return Err(Error::input(place, "one class of several", expected));
        }
    };
    Ok(ReadClass { probe, class, against })
}

fn row(model: &Model, case: &ChainCase, thinking: Option<bool>) -> Result<Row> {
    let mut tokens = model.chat.tokens(&case.dialogue, 0, thinking)?;
    let [before, behind] = model.chat.thinking_tags(&tokens)?.unwrap_or_default();
    let pieces = model.chat.encode_with_places(&case.thinking)?;
    let begin = tokens.len() + before.len();
    let ids = before.into_iter().chain(pieces.iter().map(|(id, _)| *id)).chain(behind);
    let mut continuation = model.chat.continuation(&tokens);
    tokens.extend(ids.map(|id| continuation.next(id)));
    check_length(model, &format!("dialogue {} with its thinking part", case.dialogue.id), tokens.len())?;
    let mut nodes = vec![Vec::new(); case.places.len()];
    for (at, (_, range)) in pieces.iter().enumerate() {
        let shares = |place: &NodePlace| range.start.max(place.range.start) < range.end.min(place.range.end);
        if let Some(node) = case.places.iter().position(shares) {
            nodes[node].push(begin + at);
        }
    }
    Ok(Row { tokens, thinking: begin..begin + pieces.len(), nodes })
}

/// The mean state of all thinking parts, `[width]` a site.
fn mean_states(decoder: &Decoder, rows: &[Row], sites: &[Site]) -> Result<Vec<Array1<f64>>> {
    let mut sums: Vec<Array1<f64>> =
        sites.iter().map(|site| Array1::zeros(decoder.architecture().site_width(*site))).collect();
    let count: usize = rows.iter().map(|row| row.thinking.len()).sum();
    for row in rows {
        let mut recorder = Recorder::new(sites.to_vec(), Selector::All);
        decoder.forward(&row.tokens, None, &[], &mut recorder)?;
        for (sum, (_, values)) in sums.iter_mut().zip(recorder.finish().1) {
            let width = sum.len();
            let thinking = &values[row.thinking.start * width..row.thinking.end * width];
            for state in thinking.chunks_exact(width.max(1)) {
                sum.iter_mut().zip(state).for_each(|(sum, value)| *sum += f64::from(*value));
            }
        }
    }
    Ok(sums.into_iter().map(|sum| sum / count.max(1) as f64).collect())
}

fn one_chain(
    model: &Model,
    (case, row): (&ChainCase, &Row),
    (sites, means): (&[Site], &[Array1<f64>]),
    (decision, read): (&Decision, Option<&ReadClass>),
) -> Result<ChainAttribution> {
    let (readout, bias, between) = match (decision, read) {
        (Decision::Logits(given), _) => {
            let tokens = two_tokens(model, row, given)?;
            let text = |id: u32| model.chat.decode(&[id], false);
            (Readout::Logits(tokens), 0.0, [text(tokens[0])?, text(tokens[1])?])
        }
        (Decision::Probe(_), Some(read)) => {
            let (readout, bias) = read.readout()?;
            let name = |class: usize| read.probe.classes[class].clone();
            (readout, bias, [name(read.class), name(read.against)])
        }
        (Decision::Probe(_), None) => return Err(Error::input("decision", "no probe", "one")),
    };
    let (value, gradients) = readout.gradients(&model.decoder, &row.tokens, sites)?;
    let readings = match read {
        Some(read) => Some(readings(&model.decoder, row, read)?),
        None => None,
    };
    let mut nodes: Vec<NodeAttribution> = case
        .places
        .iter()
        .zip(&row.nodes)
        .enumerate()
        .map(|(number, (place, positions))| NodeAttribution {
            part: place.part.into(),
            text: case.thinking[place.range.clone()].into(),
            tokens: positions.len(),
            reading: readings.as_ref().and_then(|readings| readings[number]),
            patched: Vec::with_capacity(sites.len()),
            gradient: Vec::with_capacity(sites.len()),
        })
        .collect();
    for (own, mean) in gradients.iter().zip(means) {
        let mean = mean.mapv(|value| value as f32);
        let patched = patched(&model.decoder, &readout, row, (own.site, &mean))?;
        for ((node, positions), patched) in nodes.iter_mut().zip(&row.nodes).zip(patched) {
            node.patched.push(value - patched);
            node.gradient.push(estimate(own, &mean, positions));
        }
    }
    Ok(ChainAttribution { id: case.dialogue.id.clone(), decision: value + bias, between, nodes })
}

/// The sum over tokens of gradient times (state − mean state).
fn estimate(own: &SiteGradient, mean: &Array1<f32>, positions: &[usize]) -> f64 {
    let at = |&at: &usize| f64::from((&own.states.row(at) - mean).dot(&own.gradient.row(at)));
    positions.iter().map(at).sum()
}

/// The readout with each node's states at a site replaced by the mean state.
fn patched(
    decoder: &Decoder,
    readout: &Readout,
    row: &Row,
    (site, mean): (Site, &Array1<f32>),
) -> Result<Vec<f64>> {
    let length = row.tokens.len();
    let mut values = Vec::with_capacity(row.nodes.len());
    for nodes in row.nodes.chunks((BATCH / length).max(1)) {
        let states: BTreeMap<(usize, usize), Vec<f32>> = nodes
            .iter()
            .enumerate()
            .flat_map(|(row, positions)| positions.iter().map(move |&at| ((row, at), mean.to_vec())))
            .collect();
        let mut hook = ReplaceHook::new(decoder, site, states)?;
        let copy = |number| row.tokens.iter().map(move |token| Token { row: number, ..token.clone() });
        let tokens: Vec<Token> = (0..nodes.len()).flat_map(copy).collect();
        let ends: Vec<usize> = (0..nodes.len()).map(|number| (number + 1) * length - 1).collect();
        values.extend(readout.values(decoder, &tokens, &ends, &mut hook)?);
    }
    Ok(values)
}

/// The tokens of the two answers: those given, else the likeliest and the next likeliest.
fn two_tokens(model: &Model, row: &Row, given: &[Option<String>; 2]) -> Result<[u32; 2]> {
    let logits = model.decoder.forward(&row.tokens, None, &[row.tokens.len() - 1], &mut ())?;
    let logits = logits.squeeze(0)?.to_vec1::<f32>()?;
    let likeliest = |except: Option<u32>| {
        let others = (0..logits.len() as u32).filter(|id| Some(*id) != except);
        // Of equals the first; a model has a token.
        others.fold(None, |best: Option<u32>, id| match best {
            Some(best) if logits[best as usize] >= logits[id as usize] => Some(best),
            _ => Some(id),
        })
    };
    let token = |text: &Option<String>, except: Option<u32>| match text {
        Some(text) => first_token(model, text),
        None => likeliest(except)
            .ok_or_else(|| Error::input("decision", "a vocabulary of one token", "two or more")),
    };
    let other = given[1].as_ref().map(|_| token(&given[1], None)).transpose()?;
    let answer = token(&given[0], other)?;
    let other = other.map_or_else(|| token(&given[1], Some(answer)), Ok)?;
    match answer == other {
        true => Err(Error::input("the two answers", "one token for both", "texts of different first tokens")),
        false => Ok([answer, other]),
    }
}

/// What the probe reads at each node's last token.
fn readings(decoder: &Decoder, row: &Row, read: &ReadClass) -> Result<Vec<Option<f64>>> {
    let mut recorder = Recorder::new(vec![read.site()], Selector::All);
    decoder.forward(&row.tokens, None, &[], &mut recorder)?;
    let values: Vec<f32> = recorder.finish().1.into_iter().flat_map(|(_, values)| values).collect();
    let states = ndarray::Array2::from_shape_vec((row.tokens.len(), read.probe.weight.ncols()), values)
        .map_err(|error| Error::input("readings", error, "a row a token"))?;
    let probabilities = read.probe.probabilities(states.view())?;
    Ok(row.nodes.iter().map(|node| node.last().map(|&at| probabilities[[at, read.class]])).collect())
}

fn parts(chains: &[ChainAttribution], sites: usize) -> Vec<PartAttribution> {
    let mut names: Vec<&str> = Vec::new();
    for node in chains.iter().flat_map(|chain| &chain.nodes) {
        if !names.contains(&node.part.as_str()) {
            names.push(&node.part);
        }
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let part = |name: &&str| {
        let own: Vec<(usize, &NodeAttribution)> = chains
            .iter()
            .enumerate()
            .flat_map(|(chain, all)| all.nodes.iter().map(move |node| (chain, node)))
            .filter(|(_, node)| node.part == *name)
            .collect();
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        own.iter().enumerate().for_each(|(row, (chain, _))| groups.entry(*chain).or_default().push(row));
        let groups: Vec<Vec<usize>> = groups.into_values().collect();
        let patched = |site: usize| {
            let values: Vec<f64> = own.iter().map(|(_, node)| node.patched[site]).collect();
            let value = mean(&values);
            group_interval::mean(&values, &groups, 0).unwrap_or(Interval { value, low: value, high: value })
        };
        let gradient =
            |site: usize| mean(&own.iter().map(|(_, node)| node.gradient[site]).collect::<Vec<_>>());
        let readings: Vec<f64> = own.iter().filter_map(|(_, node)| node.reading).collect();
        PartAttribution {
            part: (*name).into(),
            nodes: own.len(),
            reading: (!readings.is_empty()).then(|| mean(&readings)),
            patched: (0..sites).map(patched).collect(),
            gradient: (0..sites).map(gradient).collect(),
        }
    };
    names.iter().map(part).collect()
}

/// Pearson's correlation of both attributions at a site, over all nodes.
fn correlation(chains: &[ChainAttribution], site: usize) -> Option<f64> {
    let pairs: Vec<[f64; 2]> = chains
        .iter()
        .flat_map(|chain| &chain.nodes)
        .map(|node| [node.patched[site], node.gradient[site]])
        .collect();
    let count = pairs.len() as f64;
    let means = [0, 1].map(|which| pairs.iter().map(|pair| pair[which]).sum::<f64>() / count);
    let product = |one: usize, other: usize| {
        pairs.iter().map(|pair| (pair[one] - means[one]) * (pair[other] - means[other])).sum::<f64>()
    };
    let scale = (product(0, 0) * product(1, 1)).sqrt();
    (pairs.len() > 2 && scale > 0.0).then(|| product(0, 1) / scale)
}
