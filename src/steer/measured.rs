//! What a direction was measured on: the norms that its unit `n` comes from, and the means of its two classes.

use ndarray::Array1;

/// The unit `n` of strengths at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The median norm of the residual stream at the site's block, the first token of a dialogue left out: it is an
    /// attention sink in many models, with a norm of many times the others'.
    ResidualStream,
    /// The median norm of the site's own activations, the first token left out: where the site is not as wide as the residual
    /// stream, or that was not read.
    OwnSite,
}

impl Unit {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Unit::ResidualStream => "residual stream",
            Unit::OwnSite => "own site",
        }
    }

    /// The unit of that name.
    pub fn named(name: &str) -> Option<Unit> {
        [Unit::ResidualStream, Unit::OwnSite].into_iter().find(|unit| unit.name() == name)
    }
}

/// What a direction was measured on.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// What [`Direction::residual_norm`](super::Direction::residual_norm) is the norm of.
    pub unit: Unit,
    /// Median norm of the site's own activations, the first token left out.
    pub site_norm: f32,
    /// `[width]` each: the mean of the class that the direction points to, and of the one that it points away from.
    pub means: [Array1<f32>; 2],
    /// Number of rows of each class.
    pub rows: [usize; 2],
}

impl Measured {
    /// The projections of the two means on a direction of length 1.
    pub fn along(&self, unit: &[f32]) -> [f64; 2] {
        let project =
            |mean: &Array1<f32>| mean.iter().zip(unit).map(|(m, u)| f64::from(*m) * f64::from(*u)).sum();
        self.means.each_ref().map(project)
    }

    /// Where 0 lies along a direction of length 1: 0 at the mean of the class that the direction points away from, 1 at the
    /// other's. None where the means are equal along it.
    pub fn place_of_zero(&self, unit: &[f32]) -> Option<f64> {
        let [to, from] = self.along(unit);
        let place = -from / (to - from);
        place.is_finite().then_some(place)
    }
}

/// The shares of the way between the class means within which 0 is a point between the classes.
const BETWEEN: [f64; 2] = [0.25, 0.75];

/// What ablation to zero would do, where zero isn't between the classes.
pub(super) fn doubt_of_zero(place: f64) -> Option<String> {
    let what = match place {
        place if (BETWEEN[0]..=BETWEEN[1]).contains(&place) => return None,
        place if !(0.0..=1.0).contains(&place) => "outside the two class means",
        place if place < 0.5 => "near the mean of the class that the vector leads away from",
        _ => "near the mean of the class that the vector leads to",
    };
    Some(format!(
        "zero lies {what} ({place:.2} of the way from one to the other): ablation to zero moves every state there; to = \
         \"midpoint\" or \"mean\" ablates to a point between them"
    ))
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn zero_is_doubted_where_it_is_not_between_the_classes() {
        let measured = |to: f32, from: f32| Measured {
            unit: Unit::OwnSite,
            site_norm: 1.0,
            means: [array![to, 5.0], array![from, 5.0]],
            rows: [3, 4],
        };
        let place = |to: f32, from: f32| measured(to, from).place_of_zero(&[1.0, 0.0]).unwrap();
        assert_eq!(place(3.0, -1.0), 0.25);
        assert_eq!(doubt_of_zero(place(1.0, -1.0)), None);
        assert!(doubt_of_zero(place(9.0, -1.0)).unwrap().contains("leads away from"));
        assert!(doubt_of_zero(place(1.0, -9.0)).unwrap().contains("leads to"));
        assert!(doubt_of_zero(place(9.0, 4.0)).unwrap().contains("outside"));
        assert_eq!(measured(2.0, 2.0).place_of_zero(&[1.0, 0.0]), None);
        assert_eq!(Unit::named("own site"), Some(Unit::OwnSite));
    }
}
