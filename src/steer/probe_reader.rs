//! What is read of a state while it passes: the log-odds that a probe gives to a class. And the half-space of states on
//! the safe side of a bound on them.
//! It knows nothing of what follows from a reading.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::operation::{HalfSpace, dot};
use crate::error::{Error, Result};
use crate::model::{Model, Selector, Site};
use crate::probe::{Link, Probe};

/// Which reading: `FILE`, `FILE:CLASS`, or `FILE:CLASS/OTHER` for the class against one other alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeQuery {
    pub probe: PathBuf,
    /// The class that is asked about; the last of a binary probe where none is named.
    pub class: Option<String>,
    /// The one class that it is held against; all others where none is named.
    pub against: Option<String>,
}

impl ProbeQuery {
    pub fn parse(text: &str) -> ProbeQuery {
        let Some((file, class)) = text.rsplit_once(':') else {
            return ProbeQuery { probe: text.into(), class: None, against: None };
        };
        let (class, against) = match class.split_once('/') {
            None => (class, None),
            Some((class, against)) => (class, Some(against.to_string())),
        };
        ProbeQuery { probe: file.into(), class: Some(class.to_string()), against }
    }
}

impl std::fmt::Display for ProbeQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.probe.display())?;
        if let Some(class) = &self.class {
            write!(f, ":{class}")?;
        }
        match &self.against {
            Some(against) => write!(f, "/{against}"),
            None => Ok(()),
        }
    }
}

/// Probes by the files that they lie in, each read once.
#[derive(Clone, Debug, Default)]
pub struct Probes(BTreeMap<PathBuf, Probe>);

impl Probes {
    /// With a probe that is at hand, as if it had been read from `path`.
    pub fn with(mut self, path: &Path, probe: Probe) -> Probes {
        self.0.insert(path.to_owned(), probe);
        self
    }

    /// The probe of a file.
    ///
    /// # Errors
    /// A file that is no probe, or one that was fitted on another model's weights.
    pub fn get(&mut self, path: &Path, model: &Model) -> Result<&Probe> {
        if !self.0.contains_key(path) {
            self.0.insert(path.to_owned(), Probe::load(path)?);
        }
        // Just put there.
        let probe = &self.0[path];
        if probe.source.model_hash.as_ref().is_some_and(|hash| *hash != model.hash) {
            let expected = format!("a probe of {}", model.name);
            let place = format!("probe {}", path.display());
            return Err(Error::input(place, "it was fitted on another model's weights", expected));
        }
        Ok(probe)
    }

    /// What is asked, ready to be read.
    ///
    /// # Errors
    /// As [`Probes::get`]; a class that the probe lacks, or none named where there are several.
    pub fn reader(&mut self, asked: &ProbeQuery, model: &Model) -> Result<Reader> {
        Reader::new(asked, self.get(&asked.probe, model)?, model)
    }
}

/// A reading, ready to be taken.
#[derive(Clone, Debug)]
pub struct Reader {
    /// As it was asked for.
    pub name: String,
    pub site: Site,
    /// The tokens that the probe was fitted to read.
    pub tokens: Selector,
    /// The calibrated probability from which on the class is called, if the probe has one.
    pub threshold: Option<f64>,
    /// Weights and bias of each head, calibrated: `[heads]` of `[width]`.
    heads: Vec<(Vec<f32>, f64)>,
    kind: Kind,
}

/// How log-odds come from the heads.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// The one head, as it is or turned round.
    Head { sign: f64 },
    /// A head against one other.
    Pair(usize, usize),
    /// A head against the sum of all others, in probability.
    Rest(usize),
}

impl Reader {
    fn new(asked: &ProbeQuery, probe: &Probe, model: &Model) -> Result<Reader> {
        let place = || format!("probe {}", asked.probe.display());
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
        let class = match (&asked.class, probe.classes.as_slice()) {
            (Some(class), _) => probe.class(class)?,
            (None, [_, _]) => 1,
            (None, classes) => return Err(Error::input(place(), "no class is named", classes.join(" or "))),
        };
        let against = match &asked.against {
            None => None,
            Some(against) => Some(probe.class(against)?),
        };
        if against == Some(class) {
            let found = format!("{} against itself", probe.classes[class]);
            return Err(Error::input(place(), found, "another class after the /"));
        }
        let kind = match (probe.link == Link::Binary, probe.link == Link::Multinomial, against) {
            (true, ..) => Kind::Head { sign: if class == 1 { 1.0 } else { -1.0 } },
            (_, true, Some(against)) => Kind::Pair(class, against),
            (_, true, None) => Kind::Rest(class),
            _ => {
                return Err(Error::input(
                    place(),
                    "its link is neither binary nor multinomial",
                    "one that is",
                ));
            }
        };
        Ok(Reader {
            name: asked.to_string(),
            site,
            tokens: probe.source.tokens.clone(),
            threshold: probe.threshold.get(&probe.classes[class]).copied(),
            heads: calibrated(probe, &place())?,
            kind,
        })
    }

    /// Calibrated log-odds of the class in a state `[width]`.
    pub fn log_odds(&self, h: &[f32]) -> f64 {
        let head = |index: usize| {
            let (weight, bias) = &self.heads[index];
            dot(weight, h) + bias
        };
        match self.kind {
            Kind::Head { sign } => sign * head(0),
            Kind::Pair(class, against) => head(class) - head(against),
            Kind::Rest(class) => {
                let others: Vec<f64> = (0..self.heads.len()).filter(|&i| i != class).map(head).collect();
                let most = others.iter().fold(f64::NEG_INFINITY, |most, &z| most.max(z));
                head(class) - most - others.iter().map(|z| (z - most).exp()).sum::<f64>().ln()
            }
        }
    }

    /// The half-spaces in which the class's probability is below `bound` (or above it). Above it, a class of several is
    /// held against each other class alone, at odds that leave it its probability even if all others had as much.
    ///
    /// # Errors
    /// A bound that is not between 0 and 1; a class of several that is to be improbable without one that it is held
    /// against, for these states have no flat edge.
    pub fn faces(&self, above: bool, bound: f64) -> Result<Vec<HalfSpace>> {
        if !(bound > 0.0 && bound < 1.0) {
            return Err(Error::input(
                &self.name,
                format!("a bound of {bound}"),
                "a probability between 0 and 1",
            ));
        }
        let log_odds = (bound / (1.0 - bound)).ln();
        let sign = if above { -1.0 } else { 1.0 };
        let name =
            |against: &str| format!("{}{against} {} {bound}", self.name, if above { '>' } else { '<' });
        // sign · (w · h + b) ≤ sign · L
        let face = |name: String, weight: Vec<f32>, bias: f64, least: f64| HalfSpace {
            name,
            normal: weight.iter().map(|w| (sign * f64::from(*w)) as f32).collect(),
            bound: sign * (least - bias),
        };
        let pair = |class: usize, against: usize| {
            let ((w, b), (v, c)) = (&self.heads[class], &self.heads[against]);
            (w.iter().zip(v).map(|(w, v)| w - v).collect::<Vec<f32>>(), b - c)
        };
        match self.kind {
            Kind::Head { sign } => {
                let (weight, bias) = &self.heads[0];
                let turned = weight.iter().map(|w| (sign * f64::from(*w)) as f32).collect();
                Ok(vec![face(name(""), turned, sign * bias, log_odds)])
            }
            Kind::Pair(class, against) => {
                let (weight, bias) = pair(class, against);
                Ok(vec![face(name(""), weight, bias, log_odds)])
            }
            Kind::Rest(class) if above => {
                let others = (0..self.heads.len()).filter(|&other| other != class);
                let least = log_odds + (self.heads.len() as f64 - 1.0).ln();
                let each = others.map(|other| {
                    let (weight, bias) = pair(class, other);
                    face(name(&format!("/{other}")), weight, bias, least)
                });
                Ok(each.collect())
            }
            Kind::Rest(_) => Err(Error::input(
                name(""),
                "the edge of these states is not flat: one of several classes against all others",
                "FILE:CLASS/OTHER, with the class to lead to",
            )),
        }
    }
}

/// The heads with their calibration folded in.
fn calibrated(probe: &Probe, place: &str) -> Result<Vec<(Vec<f32>, f64)>> {
    let affine = probe.calibration.as_affine().filter(|(slope, _)| *slope > 0.0);
    let Some((slope, offset)) = affine else {
        let found = "a calibration that is no straight line upwards";
        return Err(Error::input(place, found, "temperature or Platt scaling, or none"));
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
    use super::*;
    use crate::organism;
    use crate::probe::{Calibration, Provenance};
    use ndarray::{Array1, Array2};

    /// A probe of the organism's width that nobody fitted.
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

    fn reader(probe: &Probe, asked: &str) -> Result<Reader> {
        let asked = ProbeQuery::parse(asked);
        Probes::default().with(&asked.probe, probe.clone()).reader(&asked, &organism::model().unwrap())
    }

    #[test]
    fn readings_are_the_probes_own_probabilities() {
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
    fn on_a_face_the_probability_is_the_bound() {
        let h: Vec<f32> = (0..128).map(|j| (j as f32).cos()).collect();
        let (two, three) = (probe(&["a", "b"]), probe(&["a", "b", "c"]));
        for (probe, asked, above) in [
            (&two, "p", false),
            (&two, "p:a", false),
            (&two, "p:b", true),
            (&three, "p:b/c", false),
            (&three, "p:b/c", true),
        ] {
            let reader = reader(probe, asked).unwrap();
            let faces = reader.faces(above, 0.3).unwrap();
            let [face] = faces.as_slice() else { panic!("{} faces", faces.len()) };
            // Along the normal to the face itself.
            let by = (face.bound - dot(&face.normal, &h)) / dot(&face.normal, &face.normal);
            let on: Vec<f32> = h.iter().zip(&face.normal).map(|(h, n)| h + by as f32 * n).collect();
            assert!((probability(reader.log_odds(&on)) - 0.3).abs() < 1e-4, "{asked} {above}");
            let inside: Vec<f32> = on.iter().zip(&face.normal).map(|(h, n)| h - 0.01 * n).collect();
            assert_eq!(probability(reader.log_odds(&inside)) > 0.3, above, "{asked} {above}");
        }
        // A class of three above its bound: in the corner of its faces it has just that much.
        let reader = reader(&three, "p:b").unwrap();
        let polyhedron = crate::steer::operation::SafeSet::new(reader.faces(true, 0.8).unwrap()).unwrap();
        let mut moved = h.clone();
        polyhedron.project(&mut moved, 1.0, &mut Vec::new());
        assert!(probability(reader.log_odds(&moved)) > 0.8 - 1e-4);
        assert!(reader.faces(false, 0.8).unwrap_err().to_string().contains("FILE:CLASS/OTHER"));
    }

    #[test]
    fn what_a_probe_can_not_be_asked_is_refused() {
        let three = probe(&["a", "b", "c"]);
        for (asked, expected) in
            [("p", "a or b or c"), ("p:d", "no class \"d\""), ("p:a/a", "against itself")]
        {
            let error = reader(&three, asked).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let mut other = three.clone();
        other.source.site = "7.resid_post".parse().unwrap();
        assert!(reader(&other, "p:a").unwrap_err().to_string().contains("7.resid_post"));
        let mut other = three.clone();
        other.source.model_hash = Some("f".into());
        assert!(reader(&other, "p:a").unwrap_err().to_string().contains("another model's weights"));
        assert!(reader(&three, "p:a").unwrap().faces(true, 1.0).is_err());
    }
}
