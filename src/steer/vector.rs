//! A steering vector: a direction at each of some sites, with the length of the residual stream there.
//! It knows nothing of how a direction is found or applied.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::{Array1, Array2, Axis};

use crate::artifact::{self, Header, Numbers, TensorFile};
use crate::error::{Error, Result};
use crate::model::Site;

const KIND: &str = "vector";
const VERSION: u32 = 1;

/// A direction a site.
#[derive(Clone, Debug, PartialEq)]
pub struct Vector {
    /// How it was made, in a word or two.
    pub method: String,
    pub directions: BTreeMap<Site, Direction>,
}

/// One direction in the residual stream (or whatever the site holds).
#[derive(Clone, Debug, PartialEq)]
pub struct Direction {
    /// `[width]`, as it was found: its length says how far apart the means were.
    pub values: Array1<f32>,
    /// Mean Euclidean norm of the activations there: the unit `n` of strengths.
    pub residual_norm: f32,
}

impl Direction {
    /// The direction at length 1.
    pub fn unit(&self) -> Array1<f32> {
        &self.values / norm(&self.values)
    }
}

fn norm(values: &Array1<f32>) -> f32 {
    values.dot(values).sqrt()
}

impl Vector {
    /// Difference of means, `mean(toward) − mean(away)`, at each site (Marks & Tegmark, arXiv 2310.06824; CAA,
    /// arXiv 2312.06681). Both `[rows, width]`, of the same sites.
    ///
    /// # Errors
    /// An empty side, or sides that do not differ.
    pub fn difference_of_means(sites: &[(Site, Array2<f32>, Array2<f32>)]) -> Result<Vector> {
        let mut directions = BTreeMap::new();
        for (site, toward, away) in sites {
            let (Some(to), Some(from)) = (toward.mean_axis(Axis(0)), away.mean_axis(Axis(0))) else {
                let found = format!("{} rows toward and {} away", toward.nrows(), away.nrows());
                return Err(Error::input(format!("vector at {site}"), found, "at least one of each"));
            };
            let values = to - from;
            let length = norm(&values);
            if !length.is_finite() || length == 0.0 {
                let found = format!("means that differ by {length}");
                return Err(Error::input(format!("vector at {site}"), found, "two sides that differ"));
            }
            let rows = toward.rows().into_iter().chain(away.rows());
            let total: f32 = rows.map(|row| row.dot(&row).sqrt()).sum();
            let residual_norm = total / (toward.nrows() + away.nrows()) as f32;
            directions.insert(*site, Direction { values, residual_norm });
        }
        let method = "difference of means".into();
        Ok(Vector { method, directions })
    }

    /// A random direction at every site, each as long as ours there: the control that any vector must beat.
    pub fn random_like(&self, seed: u64) -> Vector {
        use rand::SeedableRng;
        use rand_distr::{Distribution, StandardNormal};
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        let mut random = |direction: &Direction| {
            let draws = StandardNormal.sample_iter(&mut rng).take(direction.values.len());
            let values: Array1<f32> = draws.collect();
            Direction { values: &values * (norm(&direction.values) / norm(&values)), ..*direction }
        };
        Vector {
            method: format!("random, seed {seed}"),
            directions: self.directions.iter().map(|(&site, direction)| (site, random(direction))).collect(),
        }
    }

    pub fn save(&self, path: &Path, header: Header) -> Result<()> {
        let header = Header { kind: KIND.into(), version: VERSION, ..header };
        let norms: BTreeMap<String, f32> = self
            .directions
            .iter()
            .map(|(site, direction)| (site.to_string(), direction.residual_norm))
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
            let norm = norms.get(&name).copied().filter(|norm| *norm > 0.0);
            let residual_norm =
                norm.ok_or_else(|| file.wrong(format!("no residual_norm of {name}"), "one a site"))?;
            directions.insert(site, Direction { values, residual_norm });
        }
        let method = file.string("method")?.to_string();
        Ok((header, Vector { method, directions }))
    }
}
