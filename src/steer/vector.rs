//! Steering vectors: a direction `[width]` a site, with the mean norm of the activations there; their arithmetic, their
//! controls and their file.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::Array1;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};

use crate::artifact::{self, Header, Numbers, TensorFile};
use crate::error::{Error, Result};
use crate::model::{Model, Site};
use crate::stats;

const KIND: &str = "vector";
const VERSION: u32 = 1;

/// A direction a site.
#[derive(Clone, Debug, PartialEq)]
pub struct Vector {
    /// How the vector was made, in a few words.
    pub method: String,
    /// The direction at each site.
    pub directions: BTreeMap<Site, Direction>,
}

/// A direction in the activation space of a site.
#[derive(Clone, Debug, PartialEq)]
pub struct Direction {
    /// `[width]`: the step of strength 1.
    pub values: Array1<f32>,
    /// Mean Euclidean norm of the activations at the site: the unit `n` of strengths. Unknown in other tools' files.
    pub residual_norm: Option<f32>,
}

impl Direction {
    /// Euclidean norm.
    pub fn length(&self) -> f32 {
        stats::norm(self.values.view()) as f32
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
        Direction { values: values * (self.length() / length), ..*self }
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
            Direction { values: beside * scale, ..*direction }
        })
    }

    fn map(&self, method: String, mut change: impl FnMut(&Direction) -> Direction) -> Vector {
        let directions = self.directions.iter().map(|(&site, direction)| (site, change(direction)));
        Vector { method, directions: directions.collect() }
    }

    /// The vector times a number.
    pub fn scaled(&self, by: f32) -> Vector {
        self.map(format!("{by} × ({})", self.method), |direction| Direction {
            values: &direction.values * by,
            ..*direction
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
        self.with(other, "without", without)
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
            directions
                .insert(site, Direction { values, residual_norm: own.residual_norm.or(other.residual_norm) });
        }
        Ok(Vector { method: format!("({}) {word} ({})", self.method, other.method), directions })
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
        let metadata = [("method".into(), self.method.clone()), ("residual_norm".into(), norms)];
        let tensors = self
            .directions
            .iter()
            .map(|(site, direction)| (site.to_string(), Numbers::floats(&direction.values)));
        artifact::write_tensors(path, &header, &metadata.into(), tensors.collect())
    }

    /// Reads a file that [`Vector::save`] wrote.
    ///
    /// # Errors
    /// A file of another kind or version; a tensor that is no direction at a site; a norm that is not above 0.
    pub fn load(path: &Path) -> Result<(Header, Vector)> {
        let (header, file) = TensorFile::open_kind(path, KIND, VERSION)?;
        let norms: BTreeMap<String, f32> = file.json("residual_norm")?;
        let mut directions = BTreeMap::new();
        for name in file.names() {
            let site: Site = name.parse()?;
            let values = file.floats(&name)?;
            let shape = values.shape().to_vec();
            let values = values
                .into_dimensionality()
                .map_err(|_| file.wrong(format!("tensor {name} of shape {shape:?}"), "one dimension"))?;
            if shape.contains(&0) {
                return Err(
                    file.wrong(format!("tensor {name} of shape {shape:?}"), "a direction of some width")
                );
            }
            let residual_norm = norms.get(&name).copied();
            if let Some(norm) = residual_norm.filter(|norm| !(norm.is_finite() && *norm > 0.0)) {
                return Err(file.wrong(format!("a residual_norm of {norm} at {name}"), "one above 0"));
            }
            directions.insert(site, Direction { values, residual_norm });
        }
        if directions.is_empty() {
            return Err(file.wrong("no direction", "one a site, at least one"));
        }
        let method = file.string("method")?.to_string();
        Ok((header, Vector { method, directions }))
    }

    /// Reads a vector to steer `model` with.
    ///
    /// # Errors
    /// As [`Vector::load`]; a vector of another model's weights.
    pub fn load_for(path: &Path, model: &Model) -> Result<Vector> {
        let (header, vector) = Vector::load(path)?;
        if header.model_hash.as_ref().is_some_and(|hash| *hash != model.hash) {
            let made = header.model.as_deref().map_or(String::new(), |name| format!(" ({name})"));
            let found = format!("it was made from another model's weights{made}");
            return Err(Error::input(path.display(), found, format!("a vector of {}", model.name)));
        }
        Ok(vector)
    }
}

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
        let direction = Direction { values: Array1::from_vec(values.to_vec()), residual_norm: Some(20.0) };
        Vector {
            method: "test".into(),
            directions: BTreeMap::from([("3.resid_post".parse().unwrap(), direction)]),
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
    fn a_direction_of_0_has_no_unit() {
        let zero = Direction { values: array![0.0, 0.0], residual_norm: None };
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
