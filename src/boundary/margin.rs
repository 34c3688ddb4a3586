//! Margins: states `[rows, width]` in, the signed distance of each to the decision boundary out, and the class across it.

use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use crate::boundary::region::Region;
use crate::dialogue::Label;
use crate::error::{Error, Result};
use crate::probe::{Link, NONE, Probe};

/// The distance of one example to the decision boundary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Margin {
    /// The id of the example.
    pub id: String,
    /// The label, if there is one; a list where classes are not exclusive.
    pub label: Option<Label>,
    /// The predicted class.
    pub read: String,
    /// The calibrated probability of that class.
    pub probability: f64,
    /// Distance to the boundary of that class's region, in activation units.
    pub distance: f64,
    /// The class on the other side.
    pub across: String,
}

impl Margin {
    /// The distance, negative where the prediction is wrong; none without a label.
    pub fn signed(&self) -> Option<f64> {
        let is_right = match self.label.as_ref()? {
            Label::List(list) if list.is_empty() => self.read == NONE,
            label => label.holds(&self.read),
        };
        Some(if is_right { self.distance } else { -self.distance })
    }
}

/// The margins of states `[rows, width]`, in their order, each with an id and perhaps a label.
///
/// # Errors
/// Numbers of ids or labels other than the states'; states of another width than the probe.
pub fn margins(
    probe: &Probe,
    states: ArrayView2<f32>,
    ids: &[String],
    labels: &[Option<Label>],
) -> Result<Vec<Margin>> {
    if ids.len() != states.nrows() || labels.len() != states.nrows() {
        let found = format!("{} ids and {} labels", ids.len(), labels.len());
        return Err(Error::input("margins", found, format!("{} of each, one a row", states.nrows())));
    }
    let none = (probe.link == Link::MultiLabel).then_some(NONE);
    let names = probe.classes.iter().map(String::as_str).chain(none);
    let regions = names.map(|class| Region::of_class(probe, class));
    let regions = regions.collect::<Result<Vec<Region>>>()?;
    // The predicted class is the one whose region the state is in. Of two classes calibration may move that boundary.
    let distances = regions.iter().map(|region| region.signed_distances(states));
    let distances = distances.collect::<Result<Vec<_>>>()?;
    let probabilities = probe.probabilities(states)?;
    let margin = |row: usize| {
        let inside = |class: &usize| distances[*class][row].margin;
        let class = (0..regions.len()).max_by(|a, b| inside(a).total_cmp(&inside(b))).unwrap_or(0);
        let nearest = distances[class][row];
        Margin {
            id: ids[row].clone(),
            label: labels[row].clone(),
            read: regions[class].class.clone(),
            probability: match probabilities.get([row, class]) {
                Some(probability) => *probability,
                None => 1.0 - probabilities.row(row).fold(0.0f64, |most, &p| most.max(p)),
            },
            distance: nearest.margin.max(0.0),
            across: regions[class].across[nearest.half_space].clone(),
        }
    };
    Ok((0..states.nrows()).map(margin).collect())
}

/// Indices of the `count` least distances, in ascending order: the examples to label next.
pub fn nearest(margins: &[Margin], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..margins.len()).collect();
    order.sort_by(|&a, &b| margins[a].distance.total_cmp(&margins[b].distance));
    order.truncate(count);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boundary::tests::probe;
    use ndarray::array;

    #[test]
    fn the_nearest_half_space_and_the_nearest_examples() {
        let mut probe = probe(array![[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]], &["R0", "rumours+R1", "fraud+R2"]);
        probe.bias = array![0.0, 0.0, 0.0];
        let states = array![[-1.0f32, -4.0], [-3.0, -0.5], [5.0, 1.0], [0.25, -2.0]];
        let ids: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).into();
        let label = |name: &str| Some(Label::Text(name.into()));
        let labels = vec![label("R0"), None, label("R0"), label("rumours+R1")];
        let found = margins(&probe, states.view(), &ids, &labels).unwrap();
        let places: Vec<(&str, &str)> = found.iter().map(|m| (m.read.as_str(), m.across.as_str())).collect();
        let expected =
            [("R0", "rumours+R1"), ("R0", "fraud+R2"), ("rumours+R1", "fraud+R2"), ("rumours+R1", "R0")];
        assert_eq!(places, expected);
        // (5, 1): 2 · 5 against 2 · 1 over a normal of length √8.
        assert!((found[2].distance - 8.0 / 8f64.sqrt()).abs() < 1e-9);
        assert!(found[2].signed().unwrap() < 0.0 && found[1].signed().is_none());
        assert_eq!(nearest(&found, 3), [3, 1, 0]);
        assert!(margins(&probe, states.view(), &ids[1..], &labels).is_err());
    }

    #[test]
    fn of_several_labels_the_predicted_one_counts_and_none_is_one_of_them() {
        let mut probe = probe(array![[2.0, 0.0], [0.0, 2.0]], &["rumours", "fraud"]);
        (probe.bias, probe.link) = (array![0.0, 0.0], Link::MultiLabel);
        let states = array![[1.0f32, 3.0], [-1.0, -3.0], [-1.0, -3.0], [4.0, -1.0]];
        let ids: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).into();
        let label = |names: &[&str]| Some(Label::List(names.iter().map(|name| (*name).into()).collect()));
        let labels = vec![label(&["rumours", "fraud"]), label(&[]), label(&["fraud"]), label(&["fraud"])];
        let found = margins(&probe, states.view(), &ids, &labels).unwrap();
        let read: Vec<&str> = found.iter().map(|margin| margin.read.as_str()).collect();
        assert_eq!(read, ["fraud", NONE, NONE, "rumours"]);
        let signed: Vec<f64> = found.iter().filter_map(Margin::signed).collect();
        assert_eq!(signed, [3.0, 1.0, -1.0, -4.0]);
        assert_eq!((found[0].across.as_str(), found[1].across.as_str()), (NONE, "rumours"));
    }
}
