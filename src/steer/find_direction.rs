//! Direction finding: two classes of activations `[rows, width]` at each site in, a direction `[width]` at each out.
//!
//! By every method a direction points from the negative class to the positive one, and its length is the distance of the
//! two means along it, so that strength 1 moves a state from one mean to the other.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate};

use super::measured::{Measured, Unit};
use super::vector::{Direction, Vector};
use crate::error::{Error, Result};
use crate::model::{Point, Site};
use crate::probe::{Examples, Fit, Logistic, Provenance, Targets};
use crate::stats::{self, principal_component};

/// The activations of two classes at one site.
#[derive(Clone, Debug)]
pub struct ContrastSet {
    /// The site.
    pub site: Site,
    /// `[rows, width]`: the class that the direction points to.
    pub positive: Array2<f32>,
    /// `[rows, width]`: the class that the direction points away from.
    pub negative: Array2<f32>,
    /// Median norm of the residual stream at the site's block over the same rows, where it was read.
    pub stream_norm: Option<f32>,
    /// Median norm of the site's own activations over the same rows.
    pub site_norm: f32,
}

/// The activations that contrasts are drawn from.
pub struct ContrastRows<'a> {
    /// The sites that were read.
    pub sites: &'a [Site],
    /// `[rows]`: position of the row's token in its dialogue; none when pooled.
    pub position: &'a [Option<usize>],
    /// The rows of the class that a direction points to, and of the one that it points away from.
    pub rows: [&'a [usize]; 2],
}

impl ContrastRows<'_> {
    /// The contrast at a site. `at` gives the activations `[rows, width]` of a site that was read.
    ///
    /// # Errors
    /// A site that `at` can't give.
    pub fn contrast<V: Borrow<Array2<f32>>>(
        &self,
        site: Site,
        mut at: impl FnMut(Site) -> Result<V>,
    ) -> Result<ContrastSet> {
        let both: Vec<usize> = self.rows.concat();
        let stream = stream_site(site, self.sites).filter(|stream| *stream != site);
        // Dropped before the site's own are read: two matrices aren't held at once.
        let other_norm = match stream {
            None => None,
            Some(stream) => Some(median_norm(at(stream)?.borrow(), self.position, &both)),
        };
        let values = at(site)?;
        let values: &Array2<f32> = values.borrow();
        let site_norm = median_norm(values, self.position, &both);
        let [positive, negative] = self.rows.map(|rows| values.select(Axis(0), rows));
        let is_stream = stream_site(site, &[site]).is_some();
        let stream_norm = if is_stream { Some(site_norm) } else { other_norm };
        Ok(ContrastSet { site, positive, negative, stream_norm, site_norm })
    }
}

/// The site among `sites` at which the residual stream of a site's block is read: the site itself, where it is one; none where
/// the site's activations are no summand of the residual stream.
fn stream_site(site: Site, sites: &[Site]) -> Option<Site> {
    match site {
        Site::Embed | Site::Block(_, Point::ResidPre | Point::ResidMid | Point::ResidPost) => {
            sites.contains(&site).then_some(site)
        }
        Site::Block(block, Point::AttnOut | Point::MlpOut) => {
            let streams = [Point::ResidPost, Point::ResidMid, Point::ResidPre];
            streams.map(|point| Site::Block(block, point)).into_iter().find(|stream| sites.contains(stream))
        }
        _ => None,
    }
}

/// The median norm of the rows, without those at position 0 where there are others.
fn median_norm(values: &Array2<f32>, position: &[Option<usize>], rows: &[usize]) -> f32 {
    let later = |row: &&usize| position.get(**row).copied().flatten() != Some(0);
    let mut chosen: Vec<usize> = rows.iter().filter(later).copied().collect();
    if chosen.is_empty() {
        chosen = rows.to_vec();
    }
    let mut norms: Vec<f64> = chosen.iter().map(|&row| stats::norm(values.row(row))).collect();
    norms.sort_by(f64::total_cmp);
    let middle = norms.len() / 2;
    match norms.len() {
        0 => 0.0,
        count if count % 2 == 1 => norms[middle] as f32,
        _ => ((norms[middle - 1] + norms[middle]) / 2.0) as f32,
    }
}

/// A method of direction finding.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Method {
    /// `mean(positive) − mean(negative)` (Marks & Tegmark, arXiv 2310.06824; CAA, arXiv 2312.06681).
    #[default]
    Means,
    /// First principal component of the paired differences, not centred (RepE, arXiv 2310.01405), with the sign of the
    /// difference of means.
    Pca,
    /// Weight of a logistic probe between the classes, in raw activation space, with an inverse penalty of 1.
    Probe,
    /// `Σ⁻¹ (mean(positive) − mean(negative))`, Σ the within-class covariance with the shrinkage of Ledoit & Wolf (2004):
    /// the normal of linear discriminant analysis.
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
    /// Finds a direction at each site. For [`Method::Pca`], the rows of the two classes are pairs.
    ///
    /// # Errors
    /// An empty class; classes with equal means; classes of different sizes where rows are pairs; numbers that are not
    /// finite.
    pub fn build(method: Method, contrasts: &[ContrastSet]) -> Result<Vector> {
        let mut directions = BTreeMap::new();
        for contrast in contrasts {
            directions.insert(contrast.site, direction(method, contrast)?);
        }
        Ok(Vector { method: method.to_string(), directions, best: None })
    }
}

fn direction(method: Method, contrast: &ContrastSet) -> Result<Direction> {
    let place = format!("vector at {}", contrast.site);
    let (positive, negative) = (contrast.positive.mapv(f64::from), contrast.negative.mapv(f64::from));
    let (Some(to), Some(from)) = (positive.mean_axis(Axis(0)), negative.mean_axis(Axis(0))) else {
        let found = format!("{} positive and {} negative rows", positive.nrows(), negative.nrows());
        return Err(Error::input(place, found, "at least one of each"));
    };
    let difference = &to - &from;
    let length = |vector: &Array1<f64>| vector.dot(vector).sqrt();
    // Far below the precision of f32: only the order of the sums differs.
    if length(&difference) <= 1e-12 * (length(&to) + length(&from)) {
        return Err(Error::input(place, "the same mean in both classes", "two classes that differ"));
    }
    let found = match method {
        Method::Means => difference.clone(),
        Method::Pca if positive.nrows() != negative.nrows() => {
            let found = format!("{} positive and {} negative rows", positive.nrows(), negative.nrows());
            return Err(Error::input(place, found, "pairs: as many of each"));
        }
        Method::Pca => principal_component((&positive - &negative).view(), &difference),
        Method::Probe => probe_weight(contrast)?,
        Method::Whitened => whitened((&positive - &to).view(), (&negative - &from).view(), &difference),
    };
    let length = found.dot(&found).sqrt();
    let along = found.dot(&difference) / length;
    if !along.is_finite() || along == 0.0 {
        return Err(Error::input(
            place,
            format!("means that differ by {along} along the direction"),
            "two classes that differ",
        ));
    }
    // The sign of the difference of means, whatever sign the method gave.
    let values = found.mapv(|value| (value * along / length) as f32);
    let (unit, norm) = match contrast.stream_norm {
        Some(norm) => (Unit::ResidualStream, norm),
        None => (Unit::OwnSite, contrast.site_norm),
    };
    let measured = Measured {
        unit,
        site_norm: contrast.site_norm,
        means: [&to, &from].map(|mean| mean.mapv(|value| value as f32)),
        rows: [positive.nrows(), negative.nrows()],
    };
    let residual_norm = (norm.is_finite() && norm > 0.0).then_some(norm);
    Ok(Direction { values, residual_norm, measured: Some(Arc::new(measured)) })
}

/// The weight of a logistic probe.
fn probe_weight(contrast: &ContrastSet) -> Result<Array1<f64>> {
    let features =
        concatenate(Axis(0), &[contrast.negative.view(), contrast.positive.view()]).map_err(|error| {
            Error::input(format!("vector at {}", contrast.site), error, "classes of one width")
        })?;
    let labels: Vec<&str> = (0..features.nrows())
        .map(|row| if row < contrast.negative.nrows() { "negative" } else { "positive" })
        .collect();
    let source = Provenance {
        site: contrast.site,
        tokens: crate::model::Selector::All,
        label: "class".into(),
        model: None,
        model_hash: None,
        model_form: None,
        data_hash: None,
    };
    let targets = Targets::new(&labels, &labels, &["negative", "positive"])?;
    let examples = Examples::new(source, features, targets)?;
    Ok(Logistic::default().fit_all(examples, 1.0)?.weight.row(0).mapv(f64::from))
}

/// `Σ⁻¹ difference` by conjugate gradients. `positive` and `negative` are centred, each about its own mean.
fn whitened(positive: ArrayView2<f64>, negative: ArrayView2<f64>, difference: &Array1<f64>) -> Array1<f64> {
    let (rows, width) = ((positive.nrows() + negative.nrows()) as f64, difference.len() as f64);
    let both = || positive.rows().into_iter().chain(negative.rows());
    let squares: Vec<f64> = both().map(|row| row.dot(&row)).collect();
    // Mean eigenvalue of the covariance S, and the sum of its squared entries, by way of the rows' products.
    let mean = squares.iter().sum::<f64>() / (rows * width);
    let products = [positive.dot(&positive.t()), positive.dot(&negative.t()), negative.dot(&negative.t())];
    let sums = products.map(|products| products.iter().map(|p| p * p).sum::<f64>());
    let square = (sums[0] + 2.0 * sums[1] + sums[2]) / rows.powi(2);
    // Ledoit & Wolf 2004, lemma 3.2 and following: d², the distance of S from the scaled identity, and b², its share that
    // is sampling error.
    let d2 = square / width - mean.powi(2);
    let b2 = (squares.iter().map(|s| s * s).sum::<f64>() / rows - square) / (rows * width);
    let shrinkage = if d2 > 0.0 { (b2 / d2).clamp(1e-6, 1.0) } else { 1.0 };
    let multiply = |v: &Array1<f64>| {
        let covariance = (positive.t().dot(&positive.dot(v)) + negative.t().dot(&negative.dot(v))) / rows;
        covariance * (1.0 - shrinkage) + v * (shrinkage * mean)
    };
    if mean == 0.0 {
        return difference.clone();
    }
    const STEPS: usize = 1000;
    let (mut solution, mut residual) = (Array1::zeros(difference.len()), difference.clone());
    let (mut step_direction, mut square) = (residual.clone(), residual.dot(&residual));
    let tolerance = square * 1e-16;
    for _ in 0..STEPS {
        if square <= tolerance {
            break;
        }
        let image = multiply(&step_direction);
        let step = square / step_direction.dot(&image);
        solution.scaled_add(step, &step_direction);
        residual.scaled_add(-step, &image);
        let next = residual.dot(&residual);
        step_direction = &residual + &step_direction * (next / square);
        square = next;
    }
    solution
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use rand_distr::StandardNormal;

    use super::*;

    const WIDTH: usize = 12;

    /// Classes that differ by `apart` along coordinate 0, with noise of deviation 5 along coordinates 0 + 1 together (so
    /// that the difference of means has a part of the noise, too), and of 1 elsewhere; and pairs that share their noise.
    fn contrast(rows: usize, apart: f32, seed: u64) -> ContrastSet {
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
        let (positive, negative) = (side(apart), side(0.0));
        let site = "2.resid_post".parse().unwrap();
        ContrastSet { site, positive, negative, stream_norm: None, site_norm: 1.0 }
    }

    fn built(method: Method, contrast: &ContrastSet) -> Direction {
        Vector::build(method, std::slice::from_ref(contrast))
            .unwrap()
            .directions
            .remove(&contrast.site)
            .unwrap()
    }

    fn cosine(direction: &Direction, to: &[f64]) -> f64 {
        let values = direction.values.mapv(f64::from);
        let mut padded = Array1::zeros(WIDTH);
        padded.iter_mut().zip(to).for_each(|(p, t)| *p = *t);
        values.dot(&padded) / (values.dot(&values) * padded.dot(&padded)).sqrt()
    }

    #[test]
    fn the_difference_of_means_by_hand() {
        let contrast = ContrastSet {
            site: "0.mlp_out".parse().unwrap(),
            positive: ndarray::array![[3.0, 4.0], [5.0, 0.0]],
            negative: ndarray::array![[0.0, 1.0]],
            stream_norm: Some(7.0),
            site_norm: 5.0,
        };
        let direction = built(Method::Means, &contrast);
        assert_eq!(direction.values, ndarray::array![4.0, 1.0]);
        assert_eq!(direction.residual_norm, Some(7.0));
        let measured = direction.measured.unwrap();
        assert_eq!(measured.means, [ndarray::array![4.0, 2.0], ndarray::array![0.0, 1.0]]);
        assert_eq!((measured.unit, measured.site_norm, measured.rows), (Unit::ResidualStream, 5.0, [2, 1]));
    }

    #[test]
    fn classes_with_equal_means_are_named_as_such() {
        let rows = ndarray::array![[0.1, 4.0], [0.7, 0.3], [5.3, 0.9]];
        let mut backwards = rows.clone();
        backwards.invert_axis(Axis(0));
        let zeros = ndarray::Array2::zeros((3, 2));
        for (positive, negative) in [(&rows, &rows), (&rows, &backwards), (&zeros, &zeros)] {
            let contrast = ContrastSet {
                site: "0.mlp_out".parse().unwrap(),
                positive: positive.clone(),
                negative: negative.clone(),
                stream_norm: None,
                site_norm: 5.0,
            };
            for method in [Method::Means, Method::Pca, Method::Probe, Method::Whitened] {
                let error = Vector::build(method, std::slice::from_ref(&contrast)).unwrap_err().to_string();
                let expected =
                    "vector at 0.mlp_out: the same mean in both classes; expected two classes that differ";
                assert_eq!(error, expected);
            }
        }
    }

    #[test]
    fn the_unit_is_the_median_of_the_residual_stream_without_position_0() {
        let [own, stream]: [Site; 2] = ["3.attn_out", "3.resid_mid"].map(|site| site.parse().unwrap());
        let values = |scale: f32| ndarray::array![[900.0, 0.0], [3.0, 4.0], [0.0, 6.0], [8.0, 0.0]] * scale;
        let sites = [own, stream];
        let rows = ContrastRows {
            sites: &sites,
            position: &[Some(0), Some(1), Some(2), None],
            rows: [&[0, 1], &[2, 3]],
        };
        let at = |site: Site| Ok(Box::new(values(if site == own { 1.0 } else { 20.0 })));
        let contrast = rows.contrast(own, at).unwrap();
        assert_eq!((contrast.site_norm, contrast.stream_norm), (6.0, Some(120.0)));
        // Without the residual stream, the site's own; at the residual stream, both are the same.
        let alone = ContrastRows { sites: &[own], ..rows };
        let direction = built(Method::Means, &alone.contrast(own, at).unwrap());
        assert_eq!((direction.residual_norm, direction.measured.unwrap().unit), (Some(6.0), Unit::OwnSite));
        let rows = ContrastRows { sites: &sites, ..alone };
        assert_eq!(rows.contrast(stream, at).unwrap().stream_norm, Some(120.0));
    }

    #[test]
    fn whitening_and_the_probe_look_past_the_noise() {
        // Σ = I + 25 (e0 + e1)(e0 + e1)ᵀ, so Σ⁻¹ e0 is along (26, −25): by Sherman and Morrison.
        let contrast = contrast(4000, 2.0, 1);
        for method in [Method::Whitened, Method::Probe] {
            let direction = built(method, &contrast);
            assert!(cosine(&direction, &[26.0, -25.0]) > 0.98, "{method}: {:?}", direction.values);
            // As long as the means lie apart along it: about 2 · cos 45°.
            assert!((direction.length() - 2f32.sqrt()).abs() < 0.2, "{method}: {}", direction.length());
        }
        assert!(cosine(&built(Method::Means, &contrast), &[1.0]) > 0.95);
    }

    #[test]
    fn the_component_is_the_direction_that_pairs_differ_in() {
        let mut contrast = contrast(300, 0.0, 2);
        // Each pair differs along (1, 0, 2) by its own amount, mostly forwards.
        let mut rng = StdRng::seed_from_u64(3);
        contrast.positive = contrast.negative.clone();
        for mut row in contrast.positive.rows_mut() {
            let by: f32 = 1.0 + 3.0 * rng.sample::<f32, _>(StandardNormal);
            (row[0], row[2]) = (row[0] + by, row[2] + 2.0 * by);
        }
        let direction = built(Method::Pca, &contrast);
        assert!(cosine(&direction, &[1.0, 0.0, 2.0]) > 0.9999);
        // Swapped classes, the other sign.
        let swapped = ContrastSet {
            positive: contrast.negative.clone(),
            negative: contrast.positive.clone(),
            ..contrast
        };
        assert!(cosine(&built(Method::Pca, &swapped), &[1.0, 0.0, 2.0]) < -0.9999);
    }

    #[test]
    fn every_method_points_from_negative_to_positive() {
        for seed in 0..5 {
            let contrast = contrast(60, 8.0, seed);
            for (name, method) in METHODS {
                let direction = built(method, &contrast);
                let means = built(Method::Means, &contrast).values;
                assert!(direction.values.dot(&means) > 0.0, "{name}");
                assert_eq!(name.parse::<Method>().unwrap(), method);
            }
        }
    }

    #[test]
    fn classes_that_do_not_differ_are_refused() {
        let same = contrast(10, 0.0, 1);
        let equal = ContrastSet { positive: same.negative.clone(), ..same.clone() };
        assert!(
            Vector::build(Method::Means, &[equal])
                .unwrap_err()
                .to_string()
                .contains("two classes that differ")
        );
        let empty = ContrastSet { positive: Array2::zeros((0, WIDTH)), ..same.clone() };
        assert!(Vector::build(Method::Means, &[empty]).is_err());
        let odd = ContrastSet { positive: same.positive.slice(ndarray::s![..9, ..]).to_owned(), ..same };
        assert!(Vector::build(Method::Pca, &[odd]).unwrap_err().to_string().contains("pairs"));
    }
}
