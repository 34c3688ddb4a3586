//! What a probe is fitted on: a matrix of activations, and for each row its class and its group.
//! It knows nothing of how the activations were read.

use linfa::DatasetView;
use ndarray::{Array2, ArrayView1, Ix1};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Selector, Site};
use crate::probe::probe::Link;

/// Where the features come from; a probe carries it on, so that it is only ever held against the same kind of reading.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    pub site: Site,
    pub tokens: Selector,
    /// The label that the classes are values of.
    pub label: String,
    pub model: Option<String>,
    /// SHA-256 of the model's weights, in hex.
    pub model_hash: Option<String>,
    /// SHA-256 of the dialogues, in hex.
    pub data_hash: Option<String>,
}

/// Each row's class and group, by name and by number. All sites of a sweep share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    pub class_names: Vec<String>,
    /// Index into `class_names`, a row.
    pub classes: Vec<usize>,
    /// How classes exclude one another, or do not.
    pub link: Link,
    /// With [`Link::MultiLabel`] all the classes that each row has, of which `classes` then has the first; empty otherwise.
    pub members: Vec<Vec<usize>>,
    pub group_names: Vec<String>,
    /// Index into `group_names`, a row. Rows of one group (a topic, say) are never on both sides of a split.
    pub groups: Vec<usize>,
}

impl Targets {
    /// Numbers the names. Classes stand in the order of `order`, or sorted where that is empty (of two classes the
    /// second is the positive one); groups are sorted.
    ///
    /// # Errors
    /// If there are not as many labels as groups, or a label is not in `order`.
    pub fn new<T: AsRef<str>>(labels: &[T], groups: &[T], order: &[&str]) -> Result<Targets> {
        if labels.len() != groups.len() {
            let expected = format!("{} groups, one a row", labels.len());
            return Err(Error::input("examples", format!("{} groups", groups.len()), expected));
        }
        let sorted = |names: &[T]| {
            let mut names: Vec<String> = names.iter().map(|name| name.as_ref().to_owned()).collect();
            names.sort();
            names.dedup();
            names
        };
        let class_names = match order {
            [] => sorted(labels),
            order => order.iter().map(|name| (*name).to_owned()).collect(),
        };
        let number = |name: &T, names: &[String]| names.iter().position(|known| known == name.as_ref());
        let classes = labels.iter().enumerate().map(|(row, label)| {
            let wrong = || {
                let found = format!("label {:?}", label.as_ref());
                Error::input(format!("example {row}"), found, format!("one of {}", class_names.join(", ")))
            };
            number(label, &class_names).ok_or_else(wrong)
        });
        let classes = classes.collect::<Result<Vec<usize>>>()?;
        let group_names = sorted(groups);
        // Every group is among its own sorted names, so none is left out here.
        let groups = groups.iter().filter_map(|group| number(group, &group_names)).collect();
        let link = Link::of(class_names.len());
        Ok(Targets { class_names, classes, link, members: Vec::new(), group_names, groups })
    }

    /// [`Targets::new`] for levels, of which `order` has the lowest first.
    ///
    /// # Errors
    /// As there.
    pub fn levels<T: AsRef<str>>(labels: &[T], groups: &[T], order: &[&str]) -> Result<Targets> {
        let mut targets = Targets::new(labels, groups, order)?;
        targets.link = Link::Ordinal;
        Ok(targets)
    }

    /// [`Targets::new`] for rows that have any number of labels each.
    ///
    /// # Errors
    /// As there; if no row has a label.
    pub fn sets<T: AsRef<str>>(labels: &[Vec<T>], groups: &[T], order: &[&str]) -> Result<Targets> {
        let names: Vec<&str> = labels.iter().flatten().map(AsRef::as_ref).collect();
        let known = Targets::new(&names, &vec![""; names.len()], order)?;
        if known.class_names.is_empty() {
            return Err(Error::input("examples", "no label on any row", "at least one"));
        }
        let mut left = known.classes.into_iter();
        let members: Vec<Vec<usize>> =
            labels.iter().map(|labels| left.by_ref().take(labels.len()).collect()).collect();
        let first = |members: &Vec<usize>| members.first().copied().unwrap_or(0);
        let groups: Vec<&str> = groups.iter().map(AsRef::as_ref).collect();
        let grouped = Targets::new(&groups, &groups, &[])?;
        if grouped.rows() != members.len() {
            let expected = format!("{} groups, one a row", members.len());
            return Err(Error::input("examples", format!("{} groups", grouped.rows()), expected));
        }
        Ok(Targets {
            classes: members.iter().map(first).collect(),
            class_names: known.class_names,
            link: Link::MultiLabel,
            members,
            ..grouped
        })
    }

    /// The same with levels as mere classes: what a baseline may use, so that it is not held to one direction.
    pub fn unordered(&self) -> Targets {
        let link = if self.link == Link::Ordinal { Link::of(self.class_names.len()) } else { self.link };
        Targets { link, ..self.clone() }
    }

    /// Whether the row is of the class.
    pub fn is(&self, row: usize, class: usize) -> bool {
        match self.link {
            Link::MultiLabel => self.members[row].contains(&class),
            _ => self.classes[row] == class,
        }
    }

    pub fn rows(&self) -> usize {
        self.classes.len()
    }

    /// The rows with these indices, in their order; names are kept whether or not a row still has them.
    pub fn select(&self, rows: &[usize]) -> Targets {
        Targets {
            class_names: self.class_names.clone(),
            classes: rows.iter().map(|&row| self.classes[row]).collect(),
            link: self.link,
            members: match self.link {
                Link::MultiLabel => rows.iter().map(|&row| self.members[row].clone()).collect(),
                _ => Vec::new(),
            },
            group_names: self.group_names.clone(),
            groups: rows.iter().map(|&row| self.groups[row]).collect(),
        }
    }

    /// How many rows each class has.
    pub fn counts(&self) -> Vec<usize> {
        let of = |class| (0..self.rows()).filter(|&row| self.is(row, class)).count();
        (0..self.class_names.len()).map(of).collect()
    }

    /// The number of a class.
    ///
    /// # Errors
    /// If there is no class of that name.
    pub fn class(&self, name: &str) -> Result<usize> {
        let index = self.class_names.iter().position(|known| known == name);
        index.ok_or_else(|| Error::input("class", format!("{name:?}"), self.class_names.join(" or ")))
    }
}

/// Activations of one site with their targets.
#[derive(Clone, Debug, PartialEq)]
pub struct Examples {
    pub source: Source,
    /// `[rows, width]`, finite.
    features: Array2<f32>,
    targets: Targets,
}

impl Examples {
    /// Takes features `[rows, width]` and a target a row.
    ///
    /// # Errors
    /// If there are no rows or no columns, the rows are not as many as the targets, or a feature is NaN or infinite.
    pub fn new(source: Source, features: Array2<f32>, targets: Targets) -> Result<Examples> {
        let place = format!("examples of {} at {}", source.label, source.site);
        if features.is_empty() {
            let found = format!("features of shape {:?}", features.shape());
            return Err(Error::input(place, found, "at least one row and one column"));
        }
        if features.nrows() != targets.rows() || targets.groups.len() != targets.rows() {
            let found = format!("{} rows of features", features.nrows());
            return Err(Error::input(place, found, format!("{} as there are labels", targets.rows())));
        }
        let strange = features.indexed_iter().find(|(_, value)| !value.is_finite());
        if let Some(((row, column), value)) = strange {
            let found = format!("{value} in row {row}, column {column}");
            return Err(Error::input(place, found, "finite activations"));
        }
        Ok(Examples { source, features, targets })
    }

    /// `[rows, width]`.
    pub fn features(&self) -> &Array2<f32> {
        &self.features
    }

    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// What they are made of.
    pub(super) fn into_parts(self) -> (Source, Array2<f32>, Targets) {
        (self.source, self.features, self.targets)
    }

    /// The same rows as linfa has them, for its methods and metrics.
    pub fn dataset(&self) -> DatasetView<'_, f32, usize, Ix1> {
        DatasetView::new(self.features.view(), ArrayView1::from(&self.targets.classes))
    }

    /// Names the examples in an error.
    pub(super) fn place(&self) -> String {
        format!("probe of {} at {}", self.source.label, self.source.site)
    }

    /// Refuses what no method can learn from these rows.
    pub(super) fn check(&self, rows: &[usize]) -> Result<()> {
        let counts = self.targets.select(rows).counts();
        let names = &self.targets.class_names;
        let wrong = |found: String, expected: &str| Err(Error::input(self.place(), found, expected));
        if self.targets.link == Link::MultiLabel {
            return match counts.iter().position(|&count| count < 2 || count + 2 > rows.len()) {
                None => Ok(()),
                Some(label) => wrong(
                    format!("label {:?} on {} of {} rows to fit on", names[label], counts[label], rows.len()),
                    "at least two rows with it and two without",
                ),
            };
        }
        if names.len() < 2 {
            return wrong(format!("one class only ({})", names.join("")), "two classes or more");
        }
        match counts.iter().position(|&count| count < 2) {
            None => Ok(()),
            Some(class) => wrong(
                format!("{} rows of class {:?} to fit on", counts[class], names[class]),
                "at least two of each class",
            ),
        }
    }

    /// Refuses features that are the same in all of these rows.
    ///
    /// # Errors
    /// If they are.
    pub fn check_spread(&self, rows: &[usize]) -> Result<()> {
        let first = rows.first().map(|&row| self.features.row(row));
        match rows.iter().all(|&row| Some(self.features.row(row)) == first) {
            false => Ok(()),
            true => {
                let found = format!("the same activations in all of {} rows", rows.len());
                Err(Error::input(
                    self.place(),
                    found,
                    "activations that vary from row to row (at a site or token that the words reach)",
                ))
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ndarray::array;

    /// Source of examples that come from no model.
    pub(crate) fn source() -> Source {
        Source {
            site: "3.resid_post".parse().unwrap(),
            tokens: Selector::UserLast,
            label: "user_type".into(),
            model: Some("organism".into()),
            model_hash: None,
            data_hash: Some("d0".into()),
        }
    }

    /// Examples with numbered classes, each row a group of its own where `groups` is `None`.
    pub(crate) fn examples(features: Array2<f32>, classes: &[usize], groups: Option<&[usize]>) -> Examples {
        let rows: Vec<usize> = (0..classes.len()).collect();
        let name = |&number: &usize| format!("{number:04}");
        let labels: Vec<String> = classes.iter().map(name).collect();
        let groups: Vec<String> = groups.unwrap_or(&rows).iter().map(name).collect();
        Examples::new(source(), features, Targets::new(&labels, &groups, &[]).unwrap()).unwrap()
    }

    #[test]
    fn names_become_numbers_in_the_order_asked_for() {
        let (labels, groups) = (["bad", "good", "bad"], ["t2", "t1", "t1"]);
        let sorted = Targets::new(&labels, &groups, &[]).unwrap();
        assert_eq!((sorted.classes, sorted.groups), (vec![0, 1, 0], vec![1, 0, 0]));
        let ordered = Targets::new(&labels, &groups, &["good", "bad"]).unwrap();
        assert_eq!((ordered.classes.clone(), ordered.counts()), (vec![1, 0, 1], vec![1, 2]));
        let error = Targets::new(&labels, &groups, &["good"]).unwrap_err();
        assert_eq!(error.to_string(), "example 0: label \"bad\"; expected one of good");
    }

    #[test]
    fn rejects_nan_and_wrong_shapes() {
        let targets = Targets::new(&["a", "b"], &["t", "t"], &[]).unwrap();
        let error = |features| {
            let refused = Examples::new(source(), features, targets.clone());
            refused.unwrap_err().to_string()
        };
        assert!(error(array![[1.0, 2.0], [f32::NAN, 0.0]]).contains("NaN in row 1, column 0"));
        assert!(error(array![[1.0]]).contains("1 rows of features; expected 2"));
        assert!(error(Array2::zeros((0, 4))).contains("at least one row"));
    }
}
