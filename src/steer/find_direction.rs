//! How directions are found between two sides of activations: difference of means, principal component of paired
//! differences, the normal of a probe, the whitened difference.
//! It knows nothing of where the activations come from.
//!
//! Whatever the method, a direction points from `away` to `toward`, and is as long as the two means lie apart along it:
//! strength 1 goes the way from one mean to the other.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate};

use super::vector::{Direction, Vector};
use crate::error::{Error, Result};
use crate::model::Site;
use crate::probe::{Examples, Fit, Logistic, Provenance, Targets};

/// The activations of two sides at one site, each `[rows, width]`.
#[derive(Clone, Debug)]
pub struct ContrastSet {
    pub site: Site,
    pub toward: Array2<f32>,
    pub away: Array2<f32>,
}

/// A way to find a direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Method {
    /// `mean(toward) − mean(away)` (Marks & Tegmark, arXiv 2310.06824; CAA, arXiv 2312.06681).
    #[default]
    Means,
    /// First principal component of the paired differences about 0: each pair is two points around its own middle
    /// (RepE, arXiv 2310.01405). Its sign is that of the means.
    Pca,
    /// Normal of a logistic probe between the sides, in raw activation space, at an inverse penalty of 1.
    Probe,
    /// `Σ⁻¹ (mean(toward) − mean(away))`, Σ the covariance within the sides, shrunk as Ledoit & Wolf (2004) have it: the
    /// normal of linear discriminant analysis.
    Whitened,
}

const METHODS: [(&str, Method); 4] = [
    ("means", Method::Means),
    ("pca", Method::Pca),
    ("probe", Method::Probe),
    ("whitened", Method::Whitened),
];

impl FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Method> {
        let found = METHODS.iter().find(|(name, _)| *name == text);
        found.map(|(_, method)| *method).ok_or_else(|| {
            Error::input(format!("method {text}"), "no such method", "means, pca, probe or whitened")
        })
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Means => "difference of means",
            Method::Pca => "principal component of paired differences",
            Method::Probe => "probe normal",
            Method::Whitened => "whitened difference of means",
        })
    }
}

impl Vector {
    /// A direction at each site. For [`Method::Pca`], the rows of the two sides are pairs.
    ///
    /// # Errors
    /// An empty side, sides that do not differ, sides of different lengths where they are pairs, numbers that are not
    /// finite.
    pub fn build(method: Method, sites: &[ContrastSet]) -> Result<Vector> {
        let mut directions = BTreeMap::new();
        for sides in sites {
            directions.insert(sides.site, direction(method, sides)?);
        }
        Ok(Vector { method: method.to_string(), directions })
    }
}

fn direction(method: Method, sides: &ContrastSet) -> Result<Direction> {
    let place = format!("vector at {}", sides.site);
    let (toward, away) = (sides.toward.mapv(f64::from), sides.away.mapv(f64::from));
    let (Some(to), Some(from)) = (toward.mean_axis(Axis(0)), away.mean_axis(Axis(0))) else {
        let found = format!("{} rows toward and {} away", toward.nrows(), away.nrows());
        return Err(Error::input(place, found, "at least one of each"));
    };
    let apart = &to - &from;
    let found = match method {
        Method::Means => apart.clone(),
        Method::Pca if toward.nrows() != away.nrows() => {
            let found = format!("{} rows toward and {} away", toward.nrows(), away.nrows());
            return Err(Error::input(place, found, "pairs: as many of each"));
        }
        Method::Pca => component((&toward - &away).view(), &apart),
        Method::Probe => normal(sides)?,
        Method::Whitened => whitened((&toward - &to).view(), (&away - &from).view(), &apart),
    };
    let length = found.dot(&found).sqrt();
    let along = found.dot(&apart) / length;
    if !along.is_finite() || along == 0.0 {
        return Err(Error::input(
            place,
            format!("means that differ by {along} along it"),
            "two sides that differ",
        ));
    }
    let rows = toward.rows().into_iter().chain(away.rows());
    let total: f64 = rows.map(|row| row.dot(&row).sqrt()).sum();
    let residual_norm = (total / (toward.nrows() + away.nrows()) as f64) as f32;
    // Along the means, whichever way the method came to point.
    let values = found.mapv(|value| (value * along / length) as f32);
    Ok(Direction { values, residual_norm: Some(residual_norm) })
}

/// The first eigenvector of `rowsᵀ rows`, by power iteration from `start`.
fn component(rows: ArrayView2<f64>, start: &Array1<f64>) -> Array1<f64> {
    const STEPS: usize = 2000;
    let unit = |v: Array1<f64>| {
        let length = v.dot(&v).sqrt();
        if length > 0.0 { v / length } else { v }
    };
    // A hair of every coordinate besides, should the start be at right angles to what is looked for.
    let hair = start.dot(start).sqrt() * 1e-3 / (start.len() as f64).sqrt();
    let mut v = unit(start + hair);
    for _ in 0..STEPS {
        let next = unit(rows.t().dot(&rows.dot(&v)));
        let moved = &next - &v;
        v = next;
        if moved.dot(&moved) < 1e-24 {
            break;
        }
    }
    v
}

/// The normal of a logistic probe.
fn normal(sides: &ContrastSet) -> Result<Array1<f64>> {
    let features = concatenate(Axis(0), &[sides.away.view(), sides.toward.view()])
        .map_err(|error| Error::input(format!("vector at {}", sides.site), error, "sides of one width"))?;
    let labels: Vec<&str> =
        (0..features.nrows()).map(|row| if row < sides.away.nrows() { "away" } else { "toward" }).collect();
    let source = Provenance {
        site: sides.site,
        tokens: crate::model::Selector::All,
        label: "side".into(),
        model: None,
        model_hash: None,
        data_hash: None,
    };
    let targets = Targets::new(&labels, &labels, &["away", "toward"])?;
    let examples = Examples::new(source, features, targets)?;
    Ok(Logistic::default().fit_all(examples, 1.0)?.weight.row(0).mapv(f64::from))
}

/// `Σ⁻¹ apart` by conjugate gradients. `toward` and `away` are centred, each about its own mean.
fn whitened(toward: ArrayView2<f64>, away: ArrayView2<f64>, apart: &Array1<f64>) -> Array1<f64> {
    let (rows, width) = ((toward.nrows() + away.nrows()) as f64, apart.len() as f64);
    let both = || toward.rows().into_iter().chain(away.rows());
    let squares: Vec<f64> = both().map(|row| row.dot(&row)).collect();
    // Mean eigenvalue of the covariance S, and the sum of its squared entries, by way of the rows' products.
    let mean = squares.iter().sum::<f64>() / (rows * width);
    let products = [toward.dot(&toward.t()), toward.dot(&away.t()), away.dot(&away.t())];
    let sums = products.map(|products| products.iter().map(|p| p * p).sum::<f64>());
    let square = (sums[0] + 2.0 * sums[1] + sums[2]) / rows.powi(2);
    // Ledoit & Wolf 2004, lemma 3.2 and on: how far S is from its mean, and how much of that is chance.
    let spread = square / width - mean.powi(2);
    let chance = (squares.iter().map(|s| s * s).sum::<f64>() / rows - square) / (rows * width);
    let shrink = if spread > 0.0 { (chance / spread).clamp(1e-6, 1.0) } else { 1.0 };
    let times = |v: &Array1<f64>| {
        let covariance = (toward.t().dot(&toward.dot(v)) + away.t().dot(&away.dot(v))) / rows;
        covariance * (1.0 - shrink) + v * (shrink * mean)
    };
    if mean == 0.0 {
        return apart.clone();
    }
    const STEPS: usize = 1000;
    let (mut solved, mut rest) = (Array1::zeros(apart.len()), apart.clone());
    let (mut way, mut left) = (rest.clone(), rest.dot(&rest));
    let enough = left * 1e-16;
    for _ in 0..STEPS {
        if left <= enough {
            break;
        }
        let image = times(&way);
        let step = left / way.dot(&image);
        solved.scaled_add(step, &way);
        rest.scaled_add(-step, &image);
        let now = rest.dot(&rest);
        way = &rest + &way * (now / left);
        left = now;
    }
    solved
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use rand_distr::StandardNormal;

    use super::*;

    const WIDTH: usize = 12;

    /// Sides that differ by `apart` along coordinate 0, with noise of deviation 5 along coordinates 0 + 1 together (so
    /// that the means alone point to where the noise is, too), and of 1 elsewhere; and pairs that share their noise.
    fn sides(rows: usize, apart: f32, seed: u64) -> ContrastSet {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut side = |shift: f32| {
            let mut values = Array2::from_shape_fn((rows, WIDTH), |_| rng.sample::<f32, _>(StandardNormal));
            for mut row in values.rows_mut() {
                let shared: f32 = 5.0 * rng.sample::<f32, _>(StandardNormal);
                row[0] += shared + shift;
                row[1] += shared;
            }
            values
        };
        ContrastSet { site: "2.resid_post".parse().unwrap(), toward: side(apart), away: side(0.0) }
    }

    fn built(method: Method, sides: &ContrastSet) -> Direction {
        Vector::build(method, std::slice::from_ref(sides)).unwrap().directions.remove(&sides.site).unwrap()
    }

    fn cosine(direction: &Direction, to: &[f64]) -> f64 {
        let values = direction.values.mapv(f64::from);
        let mut padded = Array1::zeros(WIDTH);
        padded.iter_mut().zip(to).for_each(|(p, t)| *p = *t);
        values.dot(&padded) / (values.dot(&values) * padded.dot(&padded)).sqrt()
    }

    #[test]
    fn the_difference_of_means_by_hand() {
        let sides = ContrastSet {
            site: "0.mlp_out".parse().unwrap(),
            toward: ndarray::array![[3.0, 4.0], [5.0, 0.0]],
            away: ndarray::array![[0.0, 1.0]],
        };
        let direction = built(Method::Means, &sides);
        assert_eq!(direction.values, ndarray::array![4.0, 1.0]);
        assert!((direction.residual_norm.unwrap() - 11.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn whitening_and_the_probe_look_past_the_noise() {
        // Σ = I + 25 (e0 + e1)(e0 + e1)ᵀ, so Σ⁻¹ e0 is along (26, −25): by Sherman and Morrison.
        let sides = sides(4000, 2.0, 1);
        for method in [Method::Whitened, Method::Probe] {
            let direction = built(method, &sides);
            assert!(cosine(&direction, &[26.0, -25.0]) > 0.98, "{method}: {:?}", direction.values);
            // As long as the means lie apart along it: about 2 · cos 45°.
            assert!((direction.length() - 2f32.sqrt()).abs() < 0.2, "{method}: {}", direction.length());
        }
        assert!(cosine(&built(Method::Means, &sides), &[1.0]) > 0.95);
    }

    #[test]
    fn the_component_is_the_direction_that_pairs_differ_in() {
        let mut sides = sides(300, 0.0, 2);
        // Each pair differs along (1, 0, 2) by its own amount, mostly forwards.
        let mut rng = StdRng::seed_from_u64(3);
        sides.toward = sides.away.clone();
        for mut row in sides.toward.rows_mut() {
            let by: f32 = 1.0 + 3.0 * rng.sample::<f32, _>(StandardNormal);
            (row[0], row[2]) = (row[0] + by, row[2] + 2.0 * by);
        }
        let direction = built(Method::Pca, &sides);
        assert!(cosine(&direction, &[1.0, 0.0, 2.0]) > 0.9999);
        // Swapped sides, the other sign.
        let swapped = ContrastSet { toward: sides.away.clone(), away: sides.toward.clone(), ..sides };
        assert!(cosine(&built(Method::Pca, &swapped), &[1.0, 0.0, 2.0]) < -0.9999);
    }

    #[test]
    fn every_method_points_from_away_to_toward() {
        for seed in 0..5 {
            let sides = sides(60, 8.0, seed);
            for (name, method) in METHODS {
                let direction = built(method, &sides);
                let means = built(Method::Means, &sides).values;
                assert!(direction.values.dot(&means) > 0.0, "{name}");
                assert_eq!(name.parse::<Method>().unwrap(), method);
            }
        }
    }

    #[test]
    fn sides_that_can_not_be_told_apart_are_refused() {
        let same = sides(10, 0.0, 1);
        let equal = ContrastSet { toward: same.away.clone(), ..same.clone() };
        assert!(
            Vector::build(Method::Means, &[equal]).unwrap_err().to_string().contains("two sides that differ")
        );
        let empty = ContrastSet { toward: Array2::zeros((0, WIDTH)), ..same.clone() };
        assert!(Vector::build(Method::Means, &[empty]).is_err());
        let odd = ContrastSet { toward: same.toward.slice(ndarray::s![..9, ..]).to_owned(), ..same };
        assert!(Vector::build(Method::Pca, &[odd]).unwrap_err().to_string().contains("pairs"));
    }
}
