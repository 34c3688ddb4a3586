//! Targets of a probe: the class, or the set of labels, and the group of each row.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::probe::link::Link;

/// Target type: multiclass, ordinal or multilabel.
///
/// The earlier words `classes`, `levels` and `labels` are read too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    /// Each row has one of several classes.
    #[default]
    #[serde(alias = "classes")]
    Multiclass,
    /// Each row has one of several ordered levels.
    #[serde(alias = "levels")]
    Ordinal,
    /// Each row has any number of labels.
    #[serde(alias = "labels")]
    Multilabel,
}

impl TargetKind {
    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            TargetKind::Multiclass => "multiclass",
            TargetKind::Ordinal => "ordinal",
            TargetKind::Multilabel => "multilabel",
        }
    }
}

impl FromStr for TargetKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<TargetKind> {
        match text {
            "multiclass" | "classes" => Ok(TargetKind::Multiclass),
            "ordinal" | "levels" => Ok(TargetKind::Ordinal),
            "multilabel" | "labels" => Ok(TargetKind::Multilabel),
            _ => Err(Error::input("kind", format!("{text:?}"), "multiclass, ordinal or multilabel")),
        }
    }
}

impl std::fmt::Display for TargetKind {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Class and group of each row, as indices into lists of names. All sites of a sweep share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// Names of the classes, in the order of the columns of probabilities.
    pub class_names: Vec<String>,
    /// `[rows]`, indices into `class_names`.
    pub classes: Vec<usize>,
    /// The link that the target type implies.
    pub link: Link,
    /// With [`Link::MultiLabel`] all classes of each row, `classes` then holding the first; empty otherwise.
    pub members: Vec<Vec<usize>>,
    /// Names of the groups, sorted.
    pub group_names: Vec<String>,
    /// `[rows]`, indices into `group_names`. Rows of one group (a topic, say) are never on both sides of a split.
    pub groups: Vec<usize>,
}

impl Targets {
    /// Multiclass targets. Classes stand in the order of `order`, or sorted where that is empty (of two classes the second
    /// is the positive one).
    ///
    /// # Errors
    /// Different numbers of labels and groups; a label that is not in `order`, or a name twice in it; without an order, one
    /// number written in two ways, or a number that is missing (`NaN`) or infinite.
    pub fn new<T: AsRef<str>>(labels: &[T], groups: &[T], order: &[&str]) -> Result<Targets> {
        if labels.len() != groups.len() {
            let expected = format!("{} groups, one a row", labels.len());
            return Err(Error::input("examples", format!("{} groups", groups.len()), expected));
        }
        if let Some(twice) = order.iter().enumerate().find(|(at, name)| order[..*at].contains(name)) {
            return Err(Error::input("order", format!("{:?} twice", twice.1), "each class or level once"));
        }
        let sorted = |names: &[T]| {
            let mut names: Vec<String> = names.iter().map(|name| name.as_ref().to_owned()).collect();
            names.sort();
            names.dedup();
            names
        };
        let class_names = match order {
            [] => checked_classes(sorted(labels))?,
            order => order.iter().map(|name| (*name).to_owned()).collect(),
        };
        let index_of = |name: &T, names: &[String]| names.iter().position(|known| known == name.as_ref());
        let classes = labels.iter().enumerate().map(|(row, label)| {
            let unknown = || {
                let found = format!("label {:?}", label.as_ref());
                Error::input(format!("example {row}"), found, format!("one of {}", class_names.join(", ")))
            };
            index_of(label, &class_names).ok_or_else(unknown)
        });
        let classes = classes.collect::<Result<Vec<usize>>>()?;
        let group_names = sorted(groups);
        // Every group is among its own sorted names, so none is left out here.
        let groups = groups.iter().filter_map(|group| index_of(group, &group_names)).collect();
        let link = Link::of(class_names.len());
        Ok(Targets { class_names, classes, link, members: Vec::new(), group_names, groups })
    }

    /// Ordinal targets, `order` listing the levels from the lowest. Where it is empty, the levels are numbers, and ascend.
    ///
    /// # Errors
    /// As [`Targets::new`]; without an order, a level that is no number, or one number written in two ways.
    pub fn ordinal<T: AsRef<str>>(labels: &[T], groups: &[T], order: &[&str]) -> Result<Targets> {
        let ascending = if order.is_empty() { ascending(labels)? } else { order.to_vec() };
        let mut targets = Targets::new(labels, groups, &ascending)?;
        targets.link = Link::Ordinal;
        Ok(targets)
    }

    /// Multi-label targets: any number of labels for each row.
    ///
    /// # Errors
    /// As [`Targets::new`]; no label on any row.
    pub fn multilabel<T: AsRef<str>>(labels: &[Vec<T>], groups: &[T], order: &[&str]) -> Result<Targets> {
        let names: Vec<&str> = labels.iter().flatten().map(AsRef::as_ref).collect();
        let known = Targets::new(&names, &vec![""; names.len()], order)?;
        if known.class_names.is_empty() {
            return Err(Error::input("examples", "no label on any row", "at least one"));
        }
        let mut classes = known.classes.into_iter();
        let members: Vec<Vec<usize>> =
            labels.iter().map(|labels| classes.by_ref().take(labels.len()).collect()).collect();
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

    /// The same with ordinal levels as plain classes, for a baseline that should not be held to one direction.
    pub fn unordered(&self) -> Targets {
        let link = if self.link == Link::Ordinal { Link::of(self.class_names.len()) } else { self.link };
        Targets { link, ..self.clone() }
    }

    /// Whether the row has the class, among others in the multi-label case.
    pub fn is(&self, row: usize, class: usize) -> bool {
        match self.link {
            Link::MultiLabel => self.members[row].contains(&class),
            _ => self.classes[row] == class,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.classes.len()
    }

    /// The rows with these indices, in their order. All names are kept, even of classes that no row has any more.
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

    /// Number of rows of each class.
    pub fn counts(&self) -> Vec<usize> {
        let count = |class| (0..self.rows()).filter(|&row| self.is(row, class)).count();
        (0..self.class_names.len()).map(count).collect()
    }

    /// Index of a class in `class_names`.
    ///
    /// # Errors
    /// An unknown name.
    pub fn class(&self, name: &str) -> Result<usize> {
        let index = self.class_names.iter().position(|known| known == name);
        index.ok_or_else(|| Error::input("class", format!("{name:?}"), self.class_names.join(" or ")))
    }
}

/// Refuses names of classes that no reader of a table would tell apart or take for a class.
fn checked_classes(names: Vec<String>) -> Result<Vec<String>> {
    let mut numbers: Vec<(f64, &str)> = Vec::new();
    for name in &names {
        if name.trim().parse().is_ok_and(|value: f64| !value.is_finite()) {
            let expected = "classes, an empty cell where there is none, or --order with all of them";
            return Err(Error::input("classes", format!("{name:?}, which is no finite number"), expected));
        }
        numbers.extend(decimal(name).map(|value| (value, name.as_str())));
    }
    match one_number(numbers) {
        None => Ok(names),
        Some([one, other]) => {
            let found = format!("{one:?} and {other:?}, which are one number as classes");
            Err(Error::input("classes", found, "one spelling of a class, or --order"))
        }
    }
}

/// Two names of one number, if there are any.
fn one_number(mut numbers: Vec<(f64, &str)>) -> Option<[&str; 2]> {
    numbers.sort_by(|a, b| a.0.total_cmp(&b.0));
    let pair = numbers.windows(2).find(|pair| pair[0].0 == pair[1].0)?;
    Some([pair[0].1, pair[1].1])
}

/// The distinct levels by their numbers. Text order would put 10 before 2, and words have no order that can be told.
fn ascending<T: AsRef<str>>(labels: &[T]) -> Result<Vec<&str>> {
    let mut levels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
    levels.sort_unstable();
    levels.dedup();
    let mut numbers = Vec::with_capacity(levels.len());
    for &level in &levels {
        let Some(value) = decimal(level) else {
            let shown = levels.iter().take(SHOWN_LEVELS).copied().collect::<Vec<_>>().join(", ");
            let more = if levels.len() > SHOWN_LEVELS { ", …" } else { "" };
            let found =
                format!("the level {level:?}, which is no decimal number, and no order of the levels");
            let expected = format!("--order (or order = […]) with all of {shown}{more}, the lowest first");
            return Err(Error::input("levels", found, expected));
        };
        numbers.push((value, level));
    }
    numbers.sort_by(|a, b| a.0.total_cmp(&b.0));
    match one_number(numbers.clone()) {
        None => Ok(numbers.into_iter().map(|(_, level)| level).collect()),
        Some([one, other]) => {
            let found = format!("{one:?} and {other:?}, which are one number as levels");
            Err(Error::input("levels", found, "one spelling of a level, or --order"))
        }
    }
}

/// Levels that an error lists.
const SHOWN_LEVELS: usize = 8;

/// The value of a decimal number: a sign, digits with a point, an exponent; space around it. Nothing else that some
/// language reads as a number is one, such as `1_000`, `1,5`, `0x10`, `inf`, `nan`, or digits of other scripts.
fn decimal(text: &str) -> Option<f64> {
    let text = text.trim();
    let digits = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    text.bytes().all(digits).then(|| text.parse().ok())?.filter(|value: &f64| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_names_each_class_once() {
        let order = ["low", "low", "mid", "high"];
        for targets in [
            Targets::ordinal(&["low", "high"], &["", ""], &order),
            Targets::new(&["low", "high"], &["", ""], &order),
            Targets::multilabel(&[vec!["low"], vec!["high"]], &["", ""], &order),
        ] {
            let error = targets.unwrap_err().to_string();
            assert_eq!(error, "order: \"low\" twice; expected each class or level once");
        }
    }

    #[test]
    fn levels_without_an_order_are_numbers_that_ascend() {
        let names = |labels: &[&str]| {
            let targets = Targets::ordinal(labels, labels, &[]);
            targets.map(|targets| targets.class_names.join(" ")).map_err(|error| error.to_string())
        };
        assert_eq!(names(&["10", "9", "2", "10"]).unwrap(), "2 9 10");
        assert_eq!(
            names(&["1e3", "+1", "-2", "0.5", ".25", "5.", "2E-1"]).unwrap(),
            "-2 2E-1 .25 0.5 +1 5. 1e3"
        );
        assert_eq!(
            names(&["R10", "R9"]).unwrap_err(),
            "levels: the level \"R10\", which is no decimal number, and no order of the levels; \
            expected --order (or order = […]) with all of R10, R9, the lowest first"
        );
        for word in [
            "high",
            "1_000",
            "1,5",
            "0x10",
            "inf",
            "-Infinity",
            "nan",
            "٣",
            "３",
            "",
            " ",
            "1 000",
            "2nd",
            "½",
            "²",
            "e3",
            "1e",
            "--1",
            "1.2.3",
            "1e400",
            "true",
            "0b1",
            "1f",
            "1%",
            "−1",
        ] {
            let error = names(&["1", word, "2"]).unwrap_err();
            assert!(error.contains(&format!("the level {word:?}")) && error.contains("--order"), "{error}");
        }
        for [one, other] in [["1", "01"], ["1", "1.0"], ["1", "+1"], ["1", "1e0"], ["1", " 1"], ["0", "-0"]] {
            let error = names(&[one, other, "5"]).unwrap_err();
            assert!(error.contains(&format!("{one:?}")) && error.contains(&format!("{other:?}")), "{error}");
        }
        let ordered = Targets::ordinal(&["high", "low"], &["a", "b"], &["low", "high"]).unwrap();
        assert_eq!((ordered.class_names.join(" "), ordered.link), ("low high".into(), Link::Ordinal));
    }

    #[test]
    fn classes_are_told_apart_as_numbers_and_name_what_is_none() {
        let error = |labels: &[&str]| Targets::new(labels, labels, &[]).unwrap_err().to_string();
        for [one, other] in
            [["1", "01"], ["1", "1.0"], ["1", "+1"], ["1", "1e0"], ["1", " 1"], ["0", "-0"], ["100", "1e2"]]
        {
            for labels in [[one, other, "x"], ["5", other, one]] {
                let error = error(&labels);
                assert!(error.starts_with("classes: ") && error.contains("one number as classes"), "{error}");
                assert!(
                    error.contains(&format!("{one:?}")) && error.contains(&format!("{other:?}")),
                    "{error}"
                );
            }
        }
        for word in ["NaN", "nan", "inf", "-inf", "Infinity", " nan", "1e999"] {
            let error = error(&["1", word, "2"]);
            assert!(error.contains(&format!("{word:?}, which is no finite number")), "{error}");
        }
        let lists = [vec!["1", "a"], vec!["1.0"]];
        assert!(Targets::multilabel(&lists, &["", ""], &[]).is_err());
        // An order says which classes there are; words and versions are no numbers.
        assert!(Targets::new(&["1", "01"], &["", ""], &["1", "01"]).is_ok());
        for labels in [["1", "1.0.0"], ["a1", "a01"], ["nano", "info"], ["1", "1,0"], ["infra", "none"]] {
            assert_eq!(Targets::new(&labels, &labels, &[]).unwrap().class_names.len(), 2);
        }
    }

    #[test]
    fn names_become_indices_in_the_given_order() {
        let (labels, groups) = (["bad", "good", "bad"], ["t2", "t1", "t1"]);
        let sorted = Targets::new(&labels, &groups, &[]).unwrap();
        assert_eq!((sorted.classes, sorted.groups), (vec![0, 1, 0], vec![1, 0, 0]));
        let ordered = Targets::new(&labels, &groups, &["good", "bad"]).unwrap();
        assert_eq!((ordered.classes.clone(), ordered.counts()), (vec![1, 0, 1], vec![1, 2]));
        let error = Targets::new(&labels, &groups, &["good"]).unwrap_err();
        assert_eq!(error.to_string(), "example 0: label \"bad\"; expected one of good");
    }

    #[test]
    fn target_types_are_read_by_their_earlier_words_too() {
        let kinds = [
            (TargetKind::Multiclass, "multiclass", "classes"),
            (TargetKind::Ordinal, "ordinal", "levels"),
            (TargetKind::Multilabel, "multilabel", "labels"),
        ];
        for (kind, name, earlier) in kinds {
            for text in [name, earlier] {
                assert_eq!(text.parse::<TargetKind>().unwrap(), kind);
                let json = format!("{text:?}");
                assert_eq!(serde_json::from_str::<TargetKind>(&json).unwrap(), kind);
            }
            assert_eq!(
                (kind.to_string(), serde_json::to_string(&kind).unwrap()),
                (name.into(), format!("{name:?}"))
            );
        }
        let error = "sets".parse::<TargetKind>().unwrap_err().to_string();
        assert_eq!(error, "kind: \"sets\"; expected multiclass, ordinal or multilabel");
    }
}
