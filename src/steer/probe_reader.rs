//! Probe read-out: the calibrated log-odds of a class in a hidden state `[width]`, and the half-space of the states that
//! satisfy a bound on them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::constraint::Inequality;
use super::operation::{CurvedFace, HalfSpace, dot};
use super::probe_query::ProbeQuery;
use super::source::ProbeSource;
use crate::error::{Error, Result};
use crate::model::{Model, Selector, Site};
use crate::probe::{Calibration, Link, Probe};

/// Probes by file, each loaded once, and probes in memory by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Probes(BTreeMap<PathBuf, Probe>);

impl Probes {
    /// Adds a probe in memory under a name that queries may use instead of a file.
    pub fn with(mut self, path: &Path, probe: Probe) -> Probes {
        self.0.insert(path.to_owned(), probe);
        self
    }

    /// Whether there are no probes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name of a probe in queries: its path; or, of a probe in memory, its label, with a number where another probe
    /// has that name already.
    pub(super) fn name(&mut self, probe: ProbeSource) -> PathBuf {
        let probe = match probe {
            ProbeSource::File(path) => return path,
            ProbeSource::Memory(probe) => *probe,
        };
        let label = probe.source.label.clone();
        let mut name = PathBuf::from(&label);
        let mut number = 1;
        while self.0.get(&name).is_some_and(|other| *other != probe) {
            number += 1;
            name = format!("{label}#{number}").into();
        }
        self.0.insert(name.clone(), probe);
        name
    }

    /// The reader of a query, its probe loaded from the file unless it is here already.
    ///
    /// # Errors
    /// A file that is no probe; a probe of another model's weights, sites or width; a class that the probe lacks, or none
    /// named where there are several.
    pub fn reader(&mut self, query: &ProbeQuery, model: &Model) -> Result<ProbeReader> {
        if let Some(reader) = self.reader_in_memory(query, model) {
            return reader;
        }
        let probe = Probe::load(&query.probe)?;
        let reader = ProbeReader::new(query, &probe, model);
        self.0.insert(query.probe.clone(), probe);
        reader
    }

    /// The reader of a query whose probe is here already.
    pub(super) fn reader_in_memory(&self, query: &ProbeQuery, model: &Model) -> Option<Result<ProbeReader>> {
        self.0.get(&query.probe).map(|probe| ProbeReader::new(query, probe, model))
    }
}

/// A probe's class, ready to be read from hidden states.
#[derive(Clone, Debug)]
pub struct ProbeReader {
    /// The query as text: the name in traces.
    pub name: String,
    /// The site that the probe was fitted at.
    pub site: Site,
    /// The tokens that the probe was fitted on.
    pub tokens: Selector,
    /// The calibrated probability from which on the class is predicted, if the probe has one.
    pub threshold: Option<f64>,
    /// Weights and bias of each head, calibrated: `[heads]` of `[width]`.
    heads: Vec<(Vec<f32>, f64)>,
    contrast: Contrast,
}

/// How the log-odds follow from the heads.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Contrast {
    /// The logit of the one head, times 1 or −1.
    Binary { sign: f64 },
    /// The difference of two logits: one class against one other.
    OneVsOne(usize, usize),
    /// A logit minus the log-sum-exp of all others: one class against the rest.
    OneVsRest(usize),
}

impl ProbeReader {
    fn new(query: &ProbeQuery, probe: &Probe, model: &Model) -> Result<ProbeReader> {
        let place = || format!("probe {}", query.probe.display());
        model.check_origin(place(), "a probe", probe.source.origin())?;
        let architecture = model.decoder.architecture();
        let site = probe.source.site;
        if !architecture.has(site) {
            let found = format!("it reads {site}, which the model does not have");
            return Err(Error::input(place(), found, "a probe of this model"));
        }
        if probe.weight.ncols() != architecture.site_width(site) {
            let found = format!("a probe of width {}", probe.weight.ncols());
            let expected = format!("width {}, the model's at {site}", architecture.site_width(site));
            return Err(Error::input(place(), found, expected));
        }
        let class = match (&query.class, probe.classes.as_slice()) {
            (Some(class), _) => probe.class(class)?,
            (None, [_, _]) => 1,
            (None, classes) => return Err(Error::input(place(), "no class is named", classes.join(" or "))),
        };
        let against = match &query.against {
            None => None,
            Some(against) => Some(probe.class(against)?),
        };
        if against == Some(class) {
            let found = format!("{} against itself", probe.classes[class]);
            return Err(Error::input(place(), found, "another class after the /"));
        }
        let contrast = match (probe.link == Link::Binary, probe.link == Link::Multinomial, against) {
            (true, ..) => Contrast::Binary { sign: if class == 1 { 1.0 } else { -1.0 } },
            (_, true, Some(against)) => Contrast::OneVsOne(class, against),
            (_, true, None) => Contrast::OneVsRest(class),
            _ => {
                return Err(Error::input(
                    place(),
                    "its link is neither binary nor multinomial",
                    "one that is",
                ));
            }
        };
        Ok(ProbeReader {
            name: query.to_string(),
            site,
            tokens: probe.source.tokens.clone(),
            threshold: probe.threshold.get(&probe.classes[class]).copied(),
            heads: calibrated(probe, &place())?,
            contrast,
        })
    }

    /// Calibrated log-odds of the class in a state `[width]`.
    pub fn log_odds(&self, h: &[f32]) -> f64 {
        let head = |index: usize| {
            let (weight, bias) = &self.heads[index];
            dot(weight, h) + bias
        };
        match self.contrast {
            Contrast::Binary { sign } => sign * head(0),
            Contrast::OneVsOne(class, against) => head(class) - head(against),
            Contrast::OneVsRest(class) => {
                let others: Vec<f64> = (0..self.heads.len()).filter(|&i| i != class).map(head).collect();
                let most = others.iter().fold(f64::NEG_INFINITY, |most, &z| most.max(z));
                head(class) - most - others.iter().map(|z| (z - most).exp()).sum::<f64>().ln()
            }
        }
    }

    /// The curved face of a lower bound on one class of three or more against all others: the log-sum-exp of the other logits,
    /// less the class's, is at most the log-odds of the rest. None of other bounds, whose faces are flat.
    pub(super) fn curved_face(&self, bound: Inequality) -> Option<CurvedFace> {
        let Contrast::OneVsRest(class) = self.contrast else { return None };
        if !bound.above || self.heads.len() < 3 {
            return None;
        }
        let (own, own_bias) = &self.heads[class];
        let others = self.heads.iter().enumerate().filter(|(other, _)| *other != class);
        let term = |(_, (weight, bias)): (usize, &(Vec<f32>, f64))| {
            (weight.iter().zip(own).map(|(weight, own)| weight - own).collect(), bias - own_bias)
        };
        let name = format!("{} {bound}", self.name);
        Some(CurvedFace { name, terms: others.map(term).collect(), level: -log_odds(bound.probability) })
    }

    /// The half-spaces in which the class's probability satisfies the bound. One class of several is bounded from below
    /// by a half-space against each other class, at odds that suffice even if all other classes were equally probable: a
    /// polyhedron inside the curved face.
    ///
    /// # Errors
    /// A bound that is not between 0 and 1; an upper bound on one class against several others, whose states are no
    /// half-space.
    pub fn half_spaces(&self, bound: Inequality) -> Result<Vec<HalfSpace>> {
        let Inequality { above, probability } = bound;
        if !(probability > 0.0 && probability < 1.0) {
            let found = format!("a bound of {probability}");
            return Err(Error::input(&self.name, found, "a probability between 0 and 1"));
        }
        let log_odds = log_odds(probability);
        let sign = if above { -1.0 } else { 1.0 };
        let name = |against: &str| format!("{}{against} {bound}", self.name);
        // sign · (w · h + b) ≤ sign · L
        let half_space = |name: String, weight: Vec<f32>, bias: f64, log_odds: f64| HalfSpace {
            name,
            normal: weight.iter().map(|w| (sign * f64::from(*w)) as f32).collect(),
            bound: sign * (log_odds - bias),
        };
        let pair = |class: usize, against: usize| {
            let ((w, b), (v, c)) = (&self.heads[class], &self.heads[against]);
            (w.iter().zip(v).map(|(w, v)| w - v).collect::<Vec<f32>>(), b - c)
        };
        match self.contrast {
            Contrast::Binary { sign } => {
                let (weight, bias) = &self.heads[0];
                let weight = weight.iter().map(|w| (sign * f64::from(*w)) as f32).collect();
                Ok(vec![half_space(name(""), weight, sign * bias, log_odds)])
            }
            Contrast::OneVsOne(class, against) => {
                let (weight, bias) = pair(class, against);
                Ok(vec![half_space(name(""), weight, bias, log_odds)])
            }
            Contrast::OneVsRest(class) if above => {
                let others = (0..self.heads.len()).filter(|&other| other != class);
                let log_odds = log_odds + (self.heads.len() as f64 - 1.0).ln();
                let each = others.map(|other| {
                    let (weight, bias) = pair(class, other);
                    half_space(name(&format!("/{other}")), weight, bias, log_odds)
                });
                Ok(each.collect())
            }
            Contrast::OneVsRest(_) => Err(Error::input(
                name(""),
                "the boundary of these states is not flat: one of several classes against all others",
                "FILE:CLASS/OTHER, with the class to steer towards",
            )),
        }
    }
}

/// The heads with their calibration folded in.
fn calibrated(probe: &Probe, place: &str) -> Result<Vec<(Vec<f32>, f64)>> {
    let affine = probe.calibration.as_affine().filter(|(slope, _)| *slope > 0.0);
    let Some((slope, offset)) = affine else {
        let found = match probe.calibration {
            Calibration::Isotonic { .. } => "an isotonic calibration, which is no straight line",
            _ => "a calibration that does not increase",
        };
        let platt = if probe.link == Link::Binary { ", platt" } else { "" };
        let expected =
            format!("a straight line: the probe fitted with --calibration temperature{platt} or none");
        return Err(Error::input(place, found, expected));
    };
    let fold = |head: usize| {
        let weight = probe.weight.row(head).iter().map(|w| (slope * f64::from(*w)) as f32).collect();
        (weight, slope * f64::from(probe.bias[head]) + offset)
    };
    Ok((0..probe.weight.nrows()).map(fold).collect())
}

/// A probability's log-odds.
pub(super) fn log_odds(probability: f64) -> f64 {
    (probability / (1.0 - probability)).ln()
}

/// The probability of log-odds.
pub(super) fn probability(log_odds: f64) -> f64 {
    1.0 / (1.0 + (-log_odds).exp())
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2};

    use super::*;
    use crate::organism;
    use crate::probe::{Calibration, Provenance};
    use crate::steer::operation::SafeSet;

    /// A probe of the organism's width with made-up weights.
    fn probe(classes: &[&str]) -> Probe {
        let heads = if classes.len() == 2 { 1 } else { classes.len() };
        Probe {
            weight: Array2::from_shape_fn((heads, 128), |(i, j)| ((i * 128 + j) as f32 * 0.7).sin()),
            bias: Array1::from_iter((0..heads).map(|head| head as f32 / 4.0 - 0.3)),
            link: Link::of(classes.len()),
            classes: classes.iter().map(|class| class.to_string()).collect(),
            source: Provenance {
                site: "2.resid_post".parse().unwrap(),
                tokens: Selector::AssistantStart,
                label: "kind".into(),
                model: None,
                model_hash: None,
                model_form: None,
                data_hash: None,
            },
            method: "none".into(),
            strength: 1.0,
            calibration: Calibration::Temperature { temperature: 2.5 },
            threshold: Default::default(),
            scores: Vec::new(),
            held_out: Vec::new(),
            seed: 0,
        }
    }

    fn reader(probe: &Probe, query: &str) -> Result<ProbeReader> {
        let query = ProbeQuery::parse(query);
        Probes::default().with(&query.probe, probe.clone()).reader(&query, &organism::model().unwrap())
    }

    #[test]
    fn log_odds_are_those_of_the_probes_own_probabilities() {
        let h = Array2::from_shape_fn((1, 128), |(_, j)| (j as f32).cos());
        for classes in [&["a", "b"][..], &["a", "b", "c"]] {
            let mut probe = probe(classes);
            if classes.len() == 2 {
                probe.calibration = Calibration::Platt { slope: 0.4, offset: -0.2 };
            }
            let expected = probe.probabilities(h.view()).unwrap();
            for (index, class) in classes.iter().enumerate() {
                let read = reader(&probe, &format!("p:{class}")).unwrap().log_odds(h.as_slice().unwrap());
                assert!((probability(read) - expected[[0, index]]).abs() < 1e-5, "{class}");
                assert!((log_odds(expected[[0, index]]) - read).abs() < 1e-3);
            }
        }
        let three = probe(&["a", "b", "c"]);
        let p = three.probabilities(h.view()).unwrap();
        let read = reader(&three, "p:c/a").unwrap().log_odds(h.as_slice().unwrap());
        assert!((probability(read) - p[[0, 2]] / (p[[0, 2]] + p[[0, 0]])).abs() < 1e-5);
    }

    #[test]
    fn on_a_boundary_the_probability_is_the_bound() {
        let h: Vec<f32> = (0..128).map(|j| (j as f32).cos()).collect();
        let (two, three) = (probe(&["a", "b"]), probe(&["a", "b", "c"]));
        for (probe, query, above) in [
            (&two, "p", false),
            (&two, "p:a", false),
            (&two, "p:b", true),
            (&three, "p:b/c", false),
            (&three, "p:b/c", true),
        ] {
            let reader = reader(probe, query).unwrap();
            let half_spaces = reader.half_spaces(Inequality { above, probability: 0.3 }).unwrap();
            let [half_space] = half_spaces.as_slice() else { panic!("{} of them", half_spaces.len()) };
            // Along the normal onto the boundary.
            let normal = &half_space.normal;
            let by = (half_space.bound - dot(normal, &h)) / dot(normal, normal);
            let on: Vec<f32> = h.iter().zip(normal).map(|(h, n)| h + by as f32 * n).collect();
            assert!((probability(reader.log_odds(&on)) - 0.3).abs() < 1e-4, "{query} {above}");
            let inside: Vec<f32> = on.iter().zip(normal).map(|(h, n)| h - 0.01 * n).collect();
            assert_eq!(probability(reader.log_odds(&inside)) > 0.3, above, "{query} {above}");
        }
        // A lower bound on a class of three: it holds with equality in the corner of its half-spaces.
        let reader = reader(&three, "p:b").unwrap();
        let bound = |above| Inequality { above, probability: 0.8 };
        let safe_set = SafeSet::new(reader.half_spaces(bound(true)).unwrap()).unwrap();
        let mut moved = h.clone();
        safe_set.project(&mut moved, 1.0, &mut Vec::new());
        assert!(probability(reader.log_odds(&moved)) > 0.8 - 1e-4);
        let length =
            |moved: &[f32]| moved.iter().zip(&h).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
        // By its curved face the probability is the bound itself, nearer.
        let exact = SafeSet::with_curved(Vec::new(), vec![reader.curved_face(bound(true)).unwrap()]).unwrap();
        let mut nearest = h.clone();
        exact.project(&mut nearest, 1.0, &mut Vec::new());
        assert!((probability(reader.log_odds(&nearest)) - 0.8).abs() < 1e-4);
        assert!(length(&nearest) < length(&moved), "{} {}", length(&nearest), length(&moved));
        assert!(reader.curved_face(bound(false)).is_none());
        assert!(reader.half_spaces(bound(false)).unwrap_err().to_string().contains("FILE:CLASS/OTHER"));
    }

    #[test]
    fn queries_that_a_probe_can_not_answer_are_refused() {
        let three = probe(&["a", "b", "c"]);
        for (query, expected) in
            [("p", "a or b or c"), ("p:d", "no class \"d\""), ("p:a/a", "against itself")]
        {
            let error = reader(&three, query).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let mut other = three.clone();
        other.source.site = "7.resid_post".parse().unwrap();
        assert!(reader(&other, "p:a").unwrap_err().to_string().contains("7.resid_post"));
        let mut other = three.clone();
        other.source.model_hash = Some("f".into());
        assert!(reader(&other, "p:a").unwrap_err().to_string().contains("another model's weights"));
        assert!(
            reader(&three, "p:a").unwrap().half_spaces(Inequality { above: true, probability: 1.0 }).is_err()
        );
    }
}
