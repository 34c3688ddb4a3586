//! Steering vectors: a direction `[width]` a site, with the unit of strengths there; their arithmetic and their file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ndarray::Array1;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

use super::measured::{Measured, Unit};
use crate::artifact::{self, Header, Numbers, TensorFile};
use crate::error::{Error, Result};
use crate::model::{Model, Point, Site};
use crate::stats;

const KIND: &str = "vector";
/// Version 2 has class means and medians of norms; version 1 had mean norms of the site's own rows, and is read too.
const VERSION: u32 = 2;

/// A direction a site.
#[derive(Clone, Debug, PartialEq)]
pub struct Vector {
    /// How the vector was made, in a few words.
    pub method: String,
    /// The direction at each site.
    pub directions: BTreeMap<Site, Direction>,
    /// The site that did best where sites were compared: on groups held out, in a sweep, or by `pearl vector select`. None where
    /// they weren't.
    pub best: Option<Site>,
}

/// A direction in the activation space of a site.
#[derive(Clone, Debug, PartialEq)]
pub struct Direction {
    /// `[width]`: the step of strength 1.
    pub values: Array1<f32>,
    /// The unit `n` of strengths, in activation units: a norm of the residual stream at the site's block, as
    /// [`Measured::unit`] says. Of files of version 1 it is the mean norm of the site's own activations. Unknown in other
    /// tools' files.
    pub residual_norm: Option<f32>,
    /// What the direction was measured on. Unknown in files of version 1 and in other tools' files.
    pub measured: Option<Arc<Measured>>,
}

impl Direction {
    /// A direction of which no more is known than the unit of strengths, if that.
    pub fn new(values: Array1<f32>, residual_norm: Option<f32>) -> Direction {
        Direction { values, residual_norm, measured: None }
    }

    /// The same, with other values.
    pub(super) fn with_values(&self, values: Array1<f32>) -> Direction {
        Direction { values, ..self.clone() }
    }

    /// Euclidean norm.
    pub fn length(&self) -> f32 {
        stats::norm(self.values.view()) as f32
    }

    /// What the unit `n` is the norm of, in words.
    pub fn unit_in_words(&self) -> &'static str {
        match self.measured.as_ref().map(|measured| measured.unit) {
            Some(Unit::ResidualStream) => "median norm of the residual stream, position 0 left out",
            Some(Unit::OwnSite) => "median norm of the site's own activations, position 0 left out",
            None => "mean norm of the site's own activations (a file of before, or another tool's)",
        }
    }

    /// Where 0 lies along the direction: 0 at the mean of the class that it points away from, 1 at the other's. None without
    /// class means.
    pub fn place_of_zero(&self) -> Option<f64> {
        self.measured.as_ref()?.place_of_zero(&self.unit().ok()?.to_vec())
    }

    /// The direction at length 1.
    ///
    /// # Errors
    /// A length that is 0 or not finite.
    pub fn unit(&self) -> Result<Array1<f32>> {
        let length = self.length();
        if length.is_finite() && length > 0.0 {
            return Ok(&self.values / length);
        }
        Err(Error::input("vector", format!("a direction of length {length}"), "a length above 0"))
    }

    /// A random direction of the same length.
    fn random(&self, rng: &mut StdRng) -> Direction {
        let values: Array1<f32> = StandardNormal.sample_iter(rng).take(self.values.len()).collect();
        let length = stats::norm(values.view()) as f32;
        self.with_values(values * (self.length() / length))
    }
}

impl Vector {
    /// A random vector with the same length at each site: the control that any vector must beat.
    pub fn random_like(&self, seed: u64) -> Vector {
        let mut rng = StdRng::seed_from_u64(seed);
        self.map(format!("random, seed {seed}"), |direction| direction.random(&mut rng))
    }

    /// A random vector orthogonal to this one, with the same length at each site: the control without a chance similarity.
    pub fn orthogonal_like(&self, seed: u64) -> Vector {
        let mut rng = StdRng::seed_from_u64(seed);
        self.map(format!("orthogonal, seed {seed}"), |direction| {
            let random = direction.random(&mut rng);
            let beside = without(&random.values, &direction.values);
            let length = stats::norm(beside.view()) as f32;
            // In one dimension no direction is orthogonal.
            let scale = if length > 0.0 { direction.length() / length } else { 0.0 };
            direction.with_values(beside * scale)
        })
    }

    /// What should be known before a strength in `n` is given: sites whose unit is not the residual stream's, although they
    /// write into it.
    pub fn doubt_of_unit(&self) -> Option<String> {
        let own = |(site, direction): (&Site, &Direction)| {
            let writes = matches!(site, Site::Block(_, Point::AttnOut | Point::MlpOut));
            let unit = direction.measured.as_ref()?.unit;
            (writes && unit == Unit::OwnSite).then(|| site.to_string())
        };
        let sites: Vec<String> = self.directions.iter().filter_map(own).collect();
        (!sites.is_empty()).then(|| {
            format!(
                "n at {} is the site's own norm, not the residual stream's: read resid_post of the same blocks too",
                sites.join(", ")
            )
        })
    }

    fn map(&self, method: String, mut change: impl FnMut(&Direction) -> Direction) -> Vector {
        let directions = self.directions.iter().map(|(&site, direction)| (site, change(direction)));
        Vector { method, directions: directions.collect(), best: self.best }
    }

    /// The sites that are steered where none are named: the best one, where it is known; all of them otherwise.
    pub fn default_sites(&self) -> Vec<Site> {
        match self.best.filter(|best| self.directions.contains_key(best)) {
            Some(best) => vec![best],
            None => self.directions.keys().copied().collect(),
        }
    }

    /// The direction of the site `from`, used at each of `sites`. The unit `n` and the class means are those of the site itself,
    /// where the vector has a direction there; elsewhere the unit is that of `from`, and class means are unknown.
    ///
    /// # Errors
    /// No direction at `from`.
    pub fn spread(&self, from: Site, sites: &[Site]) -> Result<Vector> {
        let direction = self.directions.get(&from).ok_or_else(|| {
            let has: Vec<String> = self.directions.keys().map(Site::to_string).collect();
            Error::input(format!("from {from}"), "the vector has no direction there", has.join(", "))
        })?;
        let at = |&site: &Site| {
            let own = self.directions.get(&site).filter(|own| own.values.len() == direction.values.len());
            let values = direction.values.clone();
            let there = match own {
                Some(own) => own.with_values(values),
                None => Direction::new(values, direction.residual_norm),
            };
            (site, there)
        };
        let method = format!("{}, from {from}", self.method);
        Ok(Vector { method, directions: sites.iter().map(at).collect(), best: None })
    }

    /// The vector times a number.
    pub fn scaled(&self, by: f32) -> Vector {
        self.map(format!("{by} × ({})", self.method), |direction| {
            direction.with_values(&direction.values * by)
        })
    }

    /// The sum, at the sites that both vectors have.
    ///
    /// # Errors
    /// No site in common; directions of different widths.
    pub fn plus(&self, other: &Vector) -> Result<Vector> {
        self.with(other, "+", |own, other| own + other)
    }

    /// The difference, at the sites that both vectors have.
    ///
    /// # Errors
    /// As [`Vector::plus`].
    pub fn minus(&self, other: &Vector) -> Result<Vector> {
        self.with(other, "−", |own, other| own - other)
    }

    /// The component orthogonal to another vector, at the sites that both vectors have.
    ///
    /// # Errors
    /// As [`Vector::plus`].
    pub fn orthogonalised(&self, other: &Vector) -> Result<Vector> {
        let mut beside = self.with(other, "without", without)?;
        // The classes are still this vector's own.
        for (site, direction) in &mut beside.directions {
            direction.measured = self.directions.get(site).and_then(|own| own.measured.clone());
        }
        Ok(beside)
    }

    fn with(
        &self,
        other: &Vector,
        word: &str,
        combine: impl Fn(&Array1<f32>, &Array1<f32>) -> Array1<f32>,
    ) -> Result<Vector> {
        let mut directions = BTreeMap::new();
        for (site, own, other) in self.shared(other)? {
            let values = combine(&own.values, &other.values);
            directions.insert(site, Direction::new(values, own.residual_norm.or(other.residual_norm)));
        }
        let best = self.best.filter(|best| directions.contains_key(best) && other.best == Some(*best));
        Ok(Vector { method: format!("({}) {word} ({})", self.method, other.method), directions, best })
    }

    /// The cosine similarity to another vector at each site that both have.
    ///
    /// # Errors
    /// As [`Vector::plus`].
    pub fn cosines(&self, other: &Vector) -> Result<Vec<(Site, f64)>> {
        let cosine = |(site, own, other): (Site, &Direction, &Direction)| {
            Ok((site, stats::cosine(own.values.view(), other.values.view())?))
        };
        self.shared(other)?.into_iter().map(cosine).collect()
    }

    fn shared<'a>(&'a self, other: &'a Vector) -> Result<Vec<(Site, &'a Direction, &'a Direction)>> {
        let pairs =
            self.directions.iter().filter_map(|(site, own)| Some((*site, own, other.directions.get(site)?)));
        let pairs: Vec<_> = pairs.collect();
        if let Some((site, own, other)) =
            pairs.iter().find(|(_, own, other)| own.values.len() != other.values.len())
        {
            let found = format!("widths {} and {}", own.values.len(), other.values.len());
            return Err(Error::input(format!("vectors at {site}"), found, "equal widths"));
        }
        if pairs.is_empty() {
            let sites = |vector: &Vector| {
                vector.directions.keys().map(Site::to_string).collect::<Vec<_>>().join(", ")
            };
            let found = format!("one at {}, the other at {}", sites(self), sites(other));
            return Err(Error::input("vectors", found, "a site that both have"));
        }
        Ok(pairs)
    }

    /// Writes the file (safetensors). `header`: provenance; its kind and version are set here.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn save(&self, path: &Path, header: Header) -> Result<()> {
        let header = Header { kind: KIND.into(), version: VERSION, ..header };
        let norms: BTreeMap<String, f32> = self
            .directions
            .iter()
            .filter_map(|(site, direction)| Some((site.to_string(), direction.residual_norm?)))
            .collect();
        let norms = serde_json::to_string(&norms)
            .map_err(|error| Error::input(path.display(), error, "finite norms"))?;
        let mut tensors: BTreeMap<String, Numbers> = BTreeMap::new();
        let mut measured: BTreeMap<String, MeasuredKeys> = BTreeMap::new();
        for (site, direction) in &self.directions {
            tensors.insert(site.to_string(), Numbers::floats(&direction.values));
            if let Some(own) = &direction.measured {
                for (suffix, mean) in MEANS.iter().zip(&own.means) {
                    tensors.insert(format!("{site}{suffix}"), Numbers::floats(mean));
                }
                let unit = own.unit.name().to_owned();
                measured.insert(
                    site.to_string(),
                    MeasuredKeys { unit, site_norm: own.site_norm, rows: own.rows },
                );
            }
        }
        let measured = serde_json::to_string(&measured)
            .map_err(|error| Error::input(path.display(), error, "finite norms"))?;
        let mut metadata = BTreeMap::from([
            ("method".into(), self.method.clone()),
            ("residual_norm".into(), norms),
            ("measured".into(), measured),
        ]);
        if let Some(best) = self.best {
            metadata.insert("best_site".into(), best.to_string());
        }
        artifact::write_tensors(path, &header, &metadata, tensors)
    }

    /// Reads a file that [`Vector::save`] wrote, of this version or the one before.
    ///
    /// # Errors
    /// A file of another kind or version; a tensor that is no direction at a site; a norm that is not above 0; class means of
    /// another width.
    pub fn load(path: &Path) -> Result<(Header, Vector)> {
        let (header, file) = TensorFile::open_kind(path, KIND, VERSION)
            .or_else(|error| TensorFile::open_kind(path, KIND, 1).map_err(|_| error))?;
        let norms: BTreeMap<String, f32> = file.json("residual_norm")?;
        let mut measured: BTreeMap<String, MeasuredKeys> = match header.version {
            1 => BTreeMap::new(),
            _ => file.json("measured")?,
        };
        let values_of =
            |name: &str| -> Result<Array1<f32>> {
                let values = file.floats(name)?;
                let shape = values.shape().to_vec();
                values
                    .into_dimensionality()
                    .map_err(|_| file.wrong(format!("tensor {name} of shape {shape:?}"), "one dimension"))
                    .and_then(|values: Array1<f32>| match values.is_empty() {
                        false => Ok(values),
                        true => Err(file
                            .wrong(format!("tensor {name} of shape {shape:?}"), "a direction of some width")),
                    })
            };
        let mut directions = BTreeMap::new();
        let is_mean = |name: &String| MEANS.iter().any(|suffix| name.ends_with(suffix));
        for name in file.names().into_iter().filter(|name| !is_mean(name)) {
            let site: Site = name.parse()?;
            let values = values_of(&name)?;
            let residual_norm = norms.get(&name).copied();
            if let Some(norm) = residual_norm.filter(|norm| !(norm.is_finite() && *norm > 0.0)) {
                return Err(file.wrong(format!("a residual_norm of {norm} at {name}"), "one above 0"));
            }
            let known = match measured.remove(&name) {
                None => None,
                Some(MeasuredKeys { unit, site_norm, rows }) => {
                    let expected = "residual stream or own site";
                    let unit = Unit::named(&unit)
                        .ok_or_else(|| file.wrong(format!("unit {unit:?} at {name}"), expected))?;
                    let mean = |suffix: &str| values_of(&format!("{name}{suffix}"));
                    let means = [mean(MEANS[0])?, mean(MEANS[1])?];
                    if means.iter().any(|mean| mean.len() != values.len()) {
                        let found = format!("class means of another width at {name}");
                        return Err(file.wrong(found, format!("width {}", values.len())));
                    }
                    Some(Arc::new(Measured { unit, site_norm, means, rows }))
                }
            };
            directions.insert(site, Direction { values, residual_norm, measured: known });
        }
        if directions.is_empty() {
            return Err(file.wrong("no direction", "one a site, at least one"));
        }
        let method = file.string("method")?.to_string();
        let best: Option<Site> = file.string("best_site").ok().map(str::parse).transpose()?;
        if let Some(best) = best.filter(|best| !directions.contains_key(best)) {
            return Err(
                file.wrong(format!("best_site {best}, where no direction is"), "a site of the vector")
            );
        }
        Ok((header, Vector { method, directions, best }))
    }

    /// Reads a vector to steer `model` with.
    ///
    /// # Errors
    /// As [`Vector::load`]; a vector of another model's weights.
    pub fn load_for(path: &Path, model: &Model) -> Result<Vector> {
        let (header, vector) = Vector::load(path)?;
        model.check_origin(path.display(), "a vector", header.origin())?;
        Ok(vector)
    }
}

/// What a file's metadata hold of [`Measured`]; the means are tensors.
#[derive(Serialize, Deserialize)]
struct MeasuredKeys {
    unit: String,
    site_norm: f32,
    rows: [usize; 2],
}

/// What follows the site in the names of the class means' tensors.
const MEANS: [&str; 2] = ["/mean.to", "/mean.from"];

/// The component of `a` orthogonal to `b`.
fn without(a: &Array1<f32>, b: &Array1<f32>) -> Array1<f32> {
    let [a, b] = [a, b].map(|values| values.mapv(f64::from));
    let square = b.dot(&b);
    if square == 0.0 {
        return a.mapv(|a| a as f32);
    }
    // Twice, to remove what rounding leaves after the first time.
    let once = &a - &b * (a.dot(&b) / square);
    let twice = &once - &b * (once.dot(&b) / square);
    twice.mapv(|a| a as f32)
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use proptest::prelude::*;

    use super::*;

    fn vector(values: &[f32]) -> Vector {
        let direction = Direction::new(Array1::from_vec(values.to_vec()), Some(20.0));
        Vector {
            method: "test".into(),
            directions: BTreeMap::from([("3.resid_post".parse().unwrap(), direction)]),
            best: None,
        }
    }

    fn values(vector: &Vector) -> Vec<f32> {
        vector.directions.values().next().unwrap().values.to_vec()
    }

    #[test]
    fn arithmetic_by_hand() {
        let (a, b) = (vector(&[3.0, 4.0]), vector(&[0.0, 2.0]));
        assert_eq!(values(&a.plus(&b).unwrap()), [3.0, 6.0]);
        assert_eq!(values(&a.minus(&b).unwrap()), [3.0, 2.0]);
        assert_eq!(values(&a.scaled(-2.0)), [-6.0, -8.0]);
        assert_eq!(values(&a.orthogonalised(&b).unwrap()), [3.0, 0.0]);
        assert_eq!(a.cosines(&b).unwrap()[0].1, 0.8);
        assert!(a.plus(&vector(&[1.0])).unwrap_err().to_string().contains("widths 2 and 1"));
        let mut elsewhere = b.clone();
        elsewhere.directions =
            BTreeMap::from([("4.mlp_out".parse().unwrap(), b.directions.values().next().unwrap().clone())]);
        assert!(
            a.minus(&elsewhere)
                .unwrap_err()
                .to_string()
                .contains("one at 3.resid_post, the other at 4.mlp_out")
        );
    }

    #[test]
    fn a_file_holds_the_class_means_and_one_of_the_version_before_is_read_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new"), folder.path().join("old"));
        let mut one = vector(&[3.0, 4.0]);
        for direction in one.directions.values_mut() {
            direction.measured = Some(Arc::new(Measured {
                unit: Unit::ResidualStream,
                site_norm: 6.5,
                means: [array![4.0, 4.0], array![1.0, 0.0]],
                rows: [7, 5],
            }));
        }
        one.save(&new, Header::default()).unwrap();
        let (header, read) = Vector::load(&new).unwrap();
        assert_eq!((header.version, &read), (2, &one));
        // Means along (0.6, 0.8): 5.6 and 0.6; zero lies 0.12 before the class that it leads away from.
        let direction = read.directions.values().next().unwrap();
        assert!((direction.place_of_zero().unwrap() + 0.12).abs() < 1e-6);
        // Sums have no classes of their own; what is left beside another vector has.
        assert!(one.plus(&one).unwrap().directions.values().all(|direction| direction.measured.is_none()));
        let beside = one.orthogonalised(&vector(&[0.0, 2.0])).unwrap();
        assert!(beside.directions.values().all(|direction| direction.measured.is_some()));

        let header = Header { kind: KIND.into(), version: 1, ..Header::default() };
        let metadata = [("method", "means"), ("residual_norm", "{\"3.resid_post\":20.0}")];
        let metadata = metadata.map(|(key, value)| (key.to_string(), value.to_string())).into();
        let tensors = [("3.resid_post".to_string(), Numbers::floats(&array![3.0f32, 4.0]))].into();
        artifact::write_tensors(&old, &header, &metadata, tensors).unwrap();
        let direction = Vector::load(&old).unwrap().1.directions.into_values().next().unwrap();
        assert_eq!(direction, Direction::new(array![3.0, 4.0], Some(20.0)));
        assert!(direction.unit_in_words().starts_with("mean norm of the site's own"));
    }

    #[test]
    fn a_direction_of_0_has_no_unit() {
        let zero = Direction::new(array![0.0, 0.0], None);
        assert!(zero.unit().is_err());
    }

    proptest! {
        #[test]
        fn the_algebra_holds(a in prop::collection::vec(-9f32..9.0, 5), b in prop::collection::vec(-9f32..9.0, 5), seed: u64) {
            prop_assume!(stats::norm(Array1::from_vec(b.clone()).view()) > 0.1);
            let (a, b) = (vector(&a), vector(&b));
            prop_assert!(values(&a.minus(&a).unwrap()).iter().all(|v| *v == 0.0));
            prop_assert_eq!(values(&a.plus(&b).unwrap()), values(&b.plus(&a).unwrap()));
            let beside = a.orthogonalised(&b).unwrap();
            prop_assert!(beside.cosines(&b).unwrap()[0].1.abs() < 1e-4);
            let twice = beside.orthogonalised(&b).unwrap();
            prop_assert!(values(&twice).iter().zip(values(&beside)).all(|(a, b)| (a - b).abs() < 1e-5));
            let length = |vector: &Vector| vector.directions.values().next().unwrap().length();
            for control in [b.random_like(seed), b.orthogonal_like(seed)] {
                prop_assert!((length(&control) - length(&b)).abs() < 1e-4 * length(&b));
            }
            prop_assert!(b.orthogonal_like(seed).cosines(&b).unwrap()[0].1.abs() < 1e-5);
        }
    }
}
