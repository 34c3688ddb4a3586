//! Null directions: what a steering vector has to beat. Contrasts in, directions without the concept out, each as long as the
//! vector at every site.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ndarray::{Array1, Array2, Axis, concatenate};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::find_direction::ContrastSet;
use super::vector::Vector;
use crate::error::{Error, Result};
use crate::stats::principal_components;

/// A kind of null direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Null {
    /// Drawn evenly from the sphere.
    Random,
    /// As random, and orthogonal to the vector.
    Orthogonal,
    /// The difference of means between two halves that the classes' labels, shuffled over the same rows, make: it lies where
    /// the activations vary, as the vector does, without the concept.
    Shuffled,
    /// The principal components of the rows of both classes, centred, each in both directions.
    Components,
}

/// Names in files and tables.
const NAMES: [(Null, &str); 4] = [
    (Null::Random, "random"),
    (Null::Orthogonal, "orthogonal"),
    (Null::Shuffled, "shuffled labels"),
    (Null::Components, "principal components"),
];

impl fmt::Display for Null {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.iter().find(|(null, _)| null == self).map_or("", |(_, name)| name))
    }
}

/// By its word in files and on the command line: `random`, `orthogonal`, `shuffled`, `components`.
impl FromStr for Null {
    type Err = Error;

    fn from_str(text: &str) -> Result<Null> {
        let found = NAMES.iter().find(|(null, _)| null.word() == text);
        found.map(|(null, _)| *null).ok_or_else(|| {
            let expected = NAMES.map(|(null, _)| null.word()).join(", ");
            Error::input(format!("null direction {text:?}"), "no such kind", expected)
        })
    }
}

impl Null {
    /// Its word in files and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Null::Random => "random",
            Null::Orthogonal => "orthogonal",
            Null::Shuffled => "shuffled",
            Null::Components => "components",
        }
    }

    /// Whether its directions are drawn at random, so that the vector's rank among them gives a p-value.
    pub fn is_drawn(self) -> bool {
        self != Null::Components
    }

    /// Directions of this kind, each as long as `vector` at each site: `draws` of them; of components, the first
    /// `draws / 2`, each in both directions.
    ///
    /// # Errors
    /// A kind that is made from the data, where `contrasts` lacks one of the vector's sites.
    pub fn directions(
        self,
        vector: &Vector,
        contrasts: &[ContrastSet],
        draws: usize,
        seed: u64,
    ) -> Result<Vec<Vector>> {
        let numbered = |make: &dyn Fn(u64) -> Vector| (0..draws as u64).map(make).collect();
        match self {
            Null::Random => Ok(numbered(&|draw| vector.random_like(stream(seed, draw)))),
            Null::Orthogonal => Ok(numbered(&|draw| vector.orthogonal_like(stream(seed, draw)))),
            Null::Shuffled => (0..draws as u64)
                .map(|draw| {
                    let mut rng = StdRng::seed_from_u64(stream(seed, draw));
                    from_contrasts(vector, contrasts, |contrasts| shuffled(contrasts, &mut rng))
                        .map(|directions| named(vector, format!("shuffled labels, draw {draw}"), directions))
                })
                .collect(),
            Null::Components => {
                let count = draws.div_ceil(2);
                let all = from_contrasts(vector, contrasts, |contrasts| components(contrasts, count))?;
                let mut found = Vec::new();
                for number in 0..count {
                    for sign in [1.0f32, -1.0] {
                        // A site with fewer components than rows has fewer of them.
                        let own: BTreeMap<_, _> = all
                            .iter()
                            .filter_map(|(site, list)| Some((*site, list.get(number)? * sign)))
                            .collect();
                        if own.len() == all.len() {
                            let sign = if sign > 0.0 { '+' } else { '−' };
                            found.push(named(vector, format!("component {sign}{}", number + 1), own));
                        }
                    }
                }
                Ok(found)
            }
        }
    }
}

/// A seed a draw.
fn stream(seed: u64, draw: u64) -> u64 {
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ draw
}

/// What `make` makes of the contrasts at the vector's sites, by site.
fn from_contrasts<T>(
    vector: &Vector,
    contrasts: &[ContrastSet],
    make: impl FnOnce(&[&ContrastSet]) -> Result<Vec<T>>,
) -> Result<BTreeMap<crate::model::Site, T>> {
    let own: Vec<&ContrastSet> = vector
        .directions
        .keys()
        .map(|site| {
            contrasts.iter().find(|contrast| contrast.site == *site).ok_or_else(|| {
                let expected = "the rows that the vector was made from";
                Error::input(format!("null directions at {site}"), "no activations", expected)
            })
        })
        .collect::<Result<_>>()?;
    Ok(own.iter().map(|contrast| contrast.site).zip(make(&own)?).collect())
}

/// The differences of means of one shuffle of the labels, the same rows at every site.
fn shuffled(contrasts: &[&ContrastSet], rng: &mut StdRng) -> Result<Vec<Array1<f32>>> {
    let Some(first) = contrasts.first() else { return Ok(Vec::new()) };
    let (to, from) = (first.positive.nrows(), first.negative.nrows());
    let mut order: Vec<usize> = (0..to + from).collect();
    order.shuffle(rng);
    contrasts
        .iter()
        .map(|contrast| {
            let rows = pooled(contrast)?;
            let mean = |chosen: &[usize]| rows.select(Axis(0), chosen).mean_axis(Axis(0));
            let (Some(a), Some(b)) = (mean(&order[..to]), mean(&order[to..])) else {
                return Err(Error::input("shuffled labels", "an empty class", "rows of both"));
            };
            Ok((a - b).mapv(|value| value as f32))
        })
        .collect()
}

/// The first principal components at each site, of length 1.
fn components(contrasts: &[&ContrastSet], count: usize) -> Result<Vec<Vec<Array1<f32>>>> {
    contrasts
        .iter()
        .map(|contrast| {
            let mut rows = pooled(contrast)?;
            if let Some(mean) = rows.mean_axis(Axis(0)) {
                rows -= &mean;
            }
            let count = count.min(rows.nrows().saturating_sub(1));
            let found = principal_components(rows, count);
            // Where several sites are steered at once, their signs go together: the coordinates have a positive sum.
            let signed = |axis: Array1<f64>| {
                let sign = axis.sum().signum();
                axis.mapv(|value| (value * sign) as f32)
            };
            Ok(found.into_iter().map(|(axis, _)| signed(axis)).collect())
        })
        .collect()
}

/// The rows of both classes, the positive first.
fn pooled(contrast: &ContrastSet) -> Result<Array2<f64>> {
    let both = concatenate(Axis(0), &[contrast.positive.view(), contrast.negative.view()]);
    let both = both.map_err(|error| {
        Error::input(format!("vector at {}", contrast.site), error, "classes of one width")
    })?;
    Ok(both.mapv(f64::from))
}

/// The directions as a vector as long as `vector` at each site.
fn named(vector: &Vector, method: String, directions: BTreeMap<crate::model::Site, Array1<f32>>) -> Vector {
    let scaled = |(site, values): (crate::model::Site, Array1<f32>)| {
        // Every site is one of the vector's.
        let own = &vector.directions[&site];
        let length = crate::stats::norm(values.view()) as f32;
        let scale = if length > 0.0 { own.length() / length } else { 0.0 };
        (site, own.with_values(values * scale))
    };
    Vector { method, directions: directions.into_iter().map(scaled).collect(), best: None }
}

#[cfg(test)]
mod tests {
    use rand::Rng;
    use rand_distr::StandardNormal;

    use super::*;
    use crate::steer::Method;

    /// Two classes that differ along axis 0, among noise of deviation 6 along axis 1 and 1 elsewhere.
    fn contrast() -> ContrastSet {
        let mut rng = StdRng::seed_from_u64(1);
        let mut rows = |shift: f32| {
            let mut rows = Array2::from_shape_fn((200, 8), |_| rng.sample::<f32, _>(StandardNormal));
            rows.column_mut(0).mapv_inplace(|value| value + shift);
            rows.column_mut(1).mapv_inplace(|value| 6.0 * value);
            rows
        };
        let (positive, negative) = (rows(4.0), rows(0.0));
        let site = "2.resid_post".parse().unwrap();
        ContrastSet { site, positive, negative, stream_norm: None, site_norm: 1.0 }
    }

    #[test]
    fn every_null_direction_is_as_long_as_the_vector_and_no_copy_of_it() {
        let contrasts = [contrast()];
        let vector = Vector::build(Method::Means, &contrasts).unwrap();
        let length = vector.directions.values().next().unwrap().length();
        for null in [Null::Random, Null::Orthogonal, Null::Shuffled, Null::Components] {
            let found = null.directions(&vector, &contrasts, 6, 3).unwrap();
            assert_eq!(found.len(), 6, "{null}");
            for (index, one) in found.iter().enumerate() {
                let own = one.directions.values().next().unwrap();
                assert!((own.length() - length).abs() < 1e-3 * length, "{null}");
                assert!(found[..index].iter().all(|other| other != one), "{null}");
            }
            assert_eq!(found, null.directions(&vector, &contrasts, 6, 3).unwrap(), "{null}");
        }
    }

    #[test]
    fn shuffled_labels_point_where_the_rows_vary_and_components_are_the_axes_of_it() {
        let contrasts = [contrast()];
        let vector = Vector::build(Method::Means, &contrasts).unwrap();
        let share = |one: &Vector, axis: usize| {
            let own = one.directions.values().next().unwrap();
            f64::from(own.values[axis] / own.length()).powi(2)
        };
        // Axis 1 has 36 of 36 + 5 + 6 of the variance: its mean share of a shuffled difference is 0.55 to 0.65 (simulated), where a
        // random direction has 1/8.
        let shuffled = Null::Shuffled.directions(&vector, &contrasts, 40, 5).unwrap();
        let mean = shuffled.iter().map(|one| share(one, 1)).sum::<f64>() / 40.0;
        assert!((0.45..0.75).contains(&mean), "{mean}");
        let components = Null::Components.directions(&vector, &contrasts, 4, 0).unwrap();
        assert!(share(&components[0], 1) > 0.98 && share(&components[2], 0) > 0.95);
        assert_eq!(components[1].method, "component −1");
        let opposite = components[0].cosines(&components[1]).unwrap()[0].1;
        assert!((opposite + 1.0).abs() < 1e-6);
        assert!(Null::Shuffled.directions(&vector, &[], 1, 0).is_err());
        assert!(Null::Random.directions(&vector, &[], 1, 0).is_ok());
    }
}
