//! Linear probe: logits = weight · h + bias of activations h, and its file format.
//!
//! Weights are in raw activation space (the standardisation of the fit is folded into them), so that a row can be used
//! as a direction.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};

use crate::artifact::{Header, Numbers, TensorFile, write_tensors};
use crate::error::{Error, Result};
use crate::probe::calibration::Calibration;
use crate::probe::examples::Provenance;
use crate::probe::link::{Link, NONE};
use crate::probe::targets::Targets;
use crate::stats::Metric;

const KIND: &str = "probe";
const VERSION: u32 = 1;

/// A fitted linear probe.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// `[heads, width]`, raw activation space.
    pub weight: Array2<f32>,
    /// `[heads]`.
    pub bias: Array1<f32>,
    /// From logits to probabilities.
    pub link: Link,
    /// All classes, in the order of the columns of [`Probe::probabilities`].
    pub classes: Vec<String>,
    /// The activations and the label that it was fitted on; it is valid for activations of this kind only.
    pub source: Provenance,
    /// Name of the method that fitted it.
    pub method: String,
    /// The strength that it was fitted with: the inverse penalty, where the method has one.
    pub strength: f64,
    /// Applied to logits before the link.
    pub calibration: Calibration,
    /// By class, the calibrated probability at or above which a row is assigned to it (see `boundary::threshold`).
    pub threshold: BTreeMap<String, f64>,
    /// Metrics on the test part and out of the folds, by their `split`.
    pub scores: Vec<Metric>,
    /// The groups held out of fit and choice; metrics of split `test` are on them.
    pub held_out: Vec<String>,
    /// Seed of folds and bootstrap.
    pub seed: u64,
}

impl Probe {
    /// An uncalibrated, unscored probe, as a method makes it.
    pub(super) fn new(
        (weight, bias): (Array2<f32>, Array1<f32>),
        (source, targets): (&Provenance, &Targets),
        (method, strength): (&str, f64),
    ) -> Probe {
        Probe {
            weight,
            bias,
            link: targets.link,
            classes: targets.class_names.clone(),
            source: source.clone(),
            method: method.to_owned(),
            strength,
            calibration: Calibration::None,
            threshold: BTreeMap::new(),
            scores: Vec::new(),
            held_out: Vec::new(),
            seed: 0,
        }
    }

    /// Names of the heads: every class; of two classes the second; of ordinal levels all above the lowest.
    pub fn heads(&self) -> &[String] {
        &self.classes[self.classes.len() - self.link.heads(self.classes.len())..]
    }

    /// Uncalibrated logits `[rows, heads]` of features `[rows, width]`, summed in f64.
    ///
    /// # Errors
    /// Features of another width.
    pub fn logits(&self, features: ArrayView2<f32>) -> Result<Array2<f64>> {
        if features.ncols() != self.weight.ncols() {
            return Err(Error::input(
                format!("probe of {} at {}", self.source.label, self.source.site),
                format!("activations of width {}", features.ncols()),
                format!("width {}", self.weight.ncols()),
            ));
        }
        let weight = self.weight.mapv(f64::from);
        let logits = features.mapv(f64::from).dot(&weight.t());
        Ok(logits + &self.bias.mapv(f64::from))
    }

    /// Calibrated probabilities `[rows, classes]` of features `[rows, width]`; each row sums to 1, except with
    /// [`Link::MultiLabel`].
    ///
    /// # Errors
    /// Features of another width.
    pub fn probabilities(&self, features: ArrayView2<f32>) -> Result<Array2<f64>> {
        Ok(self.from_logits(self.logits(features)?))
    }

    /// Calibrated probabilities `[rows, classes]` of logits `[rows, heads]`.
    pub fn from_logits(&self, logits: Array2<f64>) -> Array2<f64> {
        self.link.probabilities(self.calibration.apply(logits))
    }

    /// The most probable class of each row, `[rows]`, as an index into `classes`.
    ///
    /// # Errors
    /// Features of another width.
    pub fn predict(&self, features: ArrayView2<f32>) -> Result<Array1<usize>> {
        let largest = |row: ArrayView1<f64>| {
            let entries = row.into_iter().enumerate();
            let best = entries.fold(
                (0, f64::NEG_INFINITY),
                |best, (class, &p)| {
                    if p > best.1 { (class, p) } else { best }
                },
            );
            best.0
        };
        Ok(self.probabilities(features)?.map_axis(Axis(1), largest))
    }

    /// The gradient `[width]` of the log-odds of class `to` against class `from`. In the multi-label case [`NONE`] is a
    /// class too, with gradient 0.
    ///
    /// # Errors
    /// An unknown class.
    pub fn direction(&self, from: &str, to: &str) -> Result<Array1<f32>> {
        let row = |name: &str| -> Result<Array1<f32>> {
            if self.link == Link::MultiLabel && name == NONE && self.class(name).is_err() {
                return Ok(Array1::zeros(self.weight.ncols()));
            }
            let index = self.class(name)?;
            Ok(match (self.link, index) {
                (Link::Binary | Link::Ordinal, 0) => Array1::zeros(self.weight.ncols()),
                // Each level's head adds its own log-odds.
                (Link::Ordinal, index) => &self.weight.row(0) * index as f32,
                (Link::Binary, _) => self.weight.row(0).to_owned(),
                (Link::Multinomial | Link::MultiLabel, index) => self.weight.row(index).to_owned(),
            })
        };
        Ok(row(to)? - row(from)?)
    }

    /// Index of a class in `classes`.
    ///
    /// # Errors
    /// An unknown class.
    pub fn class(&self, name: &str) -> Result<usize> {
        let index = self.classes.iter().position(|class| class == name);
        index.ok_or_else(|| {
            let place = format!("probe of {}", self.source.label);
            Error::input(place, format!("no class {name:?}"), self.classes.join(" or "))
        })
    }

    /// Writes it as one safetensors file; docs/formats-probes.md describes the layout.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let header = Header {
            model: self.source.model.clone(),
            model_hash: self.source.model_hash.clone(),
            model_form: self.source.model_form.clone(),
            data_hash: self.source.data_hash.clone(),
            seed: Some(self.seed),
            ..Header::new(KIND, VERSION)
        };
        let json = |value: serde_json::Result<String>| {
            value.map_err(|problem| Error::input(path.display(), problem, "metadata that JSON can hold"))
        };
        let metadata = [
            ("site", self.source.site.to_string()),
            ("tokens", self.source.tokens.to_string()),
            ("label", self.source.label.clone()),
            ("classes", json(serde_json::to_string(&self.classes))?),
            ("heads", json(serde_json::to_string(self.heads()))?),
            ("link", self.link.name().to_owned()),
            ("method", self.method.clone()),
            ("strength", self.strength.to_string()),
            ("calibration", json(serde_json::to_string(&self.calibration))?),
            ("threshold", json(serde_json::to_string(&self.threshold))?),
            ("scores", json(serde_json::to_string(&self.scores))?),
            ("held_out", json(serde_json::to_string(&self.held_out))?),
        ];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
        let tensors = [
            ("weight".to_owned(), Numbers::floats(&self.weight)),
            ("bias".to_owned(), Numbers::floats(&self.bias)),
        ];
        write_tensors(path, &header, &metadata.into(), tensors.into())
    }

    /// Reads a file of [`Probe::save`].
    ///
    /// # Errors
    /// A file that can't be read, is no probe of this version, or whose tensors don't match its metadata.
    pub fn load(path: &Path) -> Result<Probe> {
        let (header, file) = TensorFile::open_kind(path, KIND, VERSION)?;
        let weight = file.matrix("weight")?;
        let bias = Array1::from_iter(file.floats("bias")?);
        let classes: Vec<String> = file.json("classes")?;
        let link = file.string("link")?;
        let link: Link = link.parse().map_err(|_| {
            file.wrong(format!("link {link:?}"), "binary, multinomial, multilabel or ordinal")
        })?;
        let heads = link.heads(classes.len());
        if heads == 0 || link == Link::Binary && heads != 1 {
            return Err(file.wrong(format!("{} classes", classes.len()), "two classes or more"));
        }
        if weight.nrows() != heads || bias.len() != heads || weight.ncols() == 0 {
            let found = format!("weight {:?} and bias [{}]", weight.shape(), bias.len());
            return Err(file.wrong(found, format!("{heads} heads")));
        }
        let strength = file.string("strength")?;
        Ok(Probe {
            weight,
            bias,
            link,
            classes,
            source: Provenance {
                site: file.string("site")?.parse()?,
                tokens: file.string("tokens")?.parse()?,
                label: file.string("label")?.to_owned(),
                model: header.model,
                model_hash: header.model_hash,
                model_form: header.model_form,
                data_hash: header.data_hash,
            },
            method: file.string("method")?.to_owned(),
            strength: strength
                .parse()
                .map_err(|_| file.wrong(format!("strength {strength:?}"), "a number"))?,
            calibration: file.json("calibration")?,
            threshold: file.json("threshold")?,
            scores: file.json("scores")?,
            held_out: file.json("held_out")?,
            seed: header.seed.unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::examples::tests::source;
    use crate::stats::Interval;
    use ndarray::array;

    fn probe(weight: Array2<f32>, classes: &[&str]) -> Probe {
        let bias = Array1::from_iter((0..weight.nrows()).map(|head| head as f32));
        let targets = Targets::new(classes, classes, classes).unwrap();
        Probe::new((weight, bias), (&source(), &targets), ("logistic", 0.1))
    }

    #[test]
    fn logits_and_probabilities_by_hand() {
        let two = probe(array![[2.0, -1.0]], &["safe", "risky"]);
        let features = array![[1.0f32, 2.0], [1.0, 1.0], [1e6, 0.0]];
        assert_eq!(two.logits(features.view()).unwrap(), array![[0.0], [1.0], [2e6]]);
        let probabilities = two.probabilities(features.view()).unwrap();
        assert_eq!(probabilities[[0, 1]], 0.5);
        assert!((probabilities[[1, 1]] - 0.731_058_578_630_004_9).abs() < 1e-15);
        assert_eq!(probabilities[[2, 1]], 1.0);
        assert_eq!(two.direction("safe", "risky").unwrap(), array![2.0, -1.0]);
        let three = probe(array![[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], &["a", "b", "c"]);
        // Logits (3, 1, 2): the largest first.
        assert_eq!(three.predict(array![[3.0f32, 0.0]].view()).unwrap(), array![0]);
        assert_eq!(three.direction("a", "b").unwrap(), array![-1.0, 1.0]);
        assert!(three.logits(array![[1.0f32]].view()).is_err());
    }

    #[test]
    fn comes_back_from_a_file_as_it_was() {
        let mut probe = probe(array![[0.1, 2.0], [-1.0, 3e-20], [1.0, 1.0]], &["a", "b", "c"]);
        probe.calibration = Calibration::Temperature { temperature: 1.0 / 3.0 };
        probe.threshold.insert("b".into(), 0.1 + 0.2);
        let interval = Interval { value: 0.9, low: 0.8, high: 0.95 };
        probe.scores.push(Metric::new("auroc", interval, 12, "test"));
        probe.held_out = vec!["gambling".into()];
        probe.seed = 7;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("probe.safetensors");
        probe.save(&path).unwrap();
        assert_eq!(Probe::load(&path).unwrap(), probe);
    }

    #[test]
    fn rejects_heads_that_do_not_fit() {
        let mut probe = probe(array![[0.1, 2.0]], &["a", "b"]);
        probe.classes.push("c".into());
        probe.link = Link::Multinomial;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("probe.safetensors");
        probe.save(&path).unwrap();
        let error = Probe::load(&path).unwrap_err().to_string();
        assert!(error.contains("weight [1, 2] and bias [1]; expected 3 heads"), "{error}");
    }
}
