//! Thresholds over groups: one that keeps its bound in every group, and the trial of a threshold on groups that it was not chosen on.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::threshold::{Coverage, ErrorKind, RiskBound, Threshold, threshold};
use crate::error::{Error, Result};

/// The rows over which a threshold's bound holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guarantee {
    /// Rows exchangeable with the calibration rows. It says nothing of groups unlike theirs.
    #[default]
    Exchangeable,
    /// Every one of the calibration groups, the worst too.
    WorstGroup,
}

impl std::str::FromStr for Guarantee {
    type Err = Error;

    fn from_str(text: &str) -> Result<Guarantee> {
        match text {
            "exchangeable" => Ok(Guarantee::Exchangeable),
            "worst-group" => Ok(Guarantee::WorstGroup),
            _ => Err(Error::input("guarantee", format!("{text:?}"), "exchangeable or worst-group")),
        }
    }
}

impl std::fmt::Display for Guarantee {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Guarantee::Exchangeable => "exchangeable",
            Guarantee::WorstGroup => "worst-group",
        })
    }
}

/// A threshold on one group, chosen on the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupTrial {
    /// The group that the threshold is tried on.
    pub group: String,
    /// The threshold chosen on the other groups.
    pub threshold: f64,
    /// Rows of the class that the error rate is about.
    pub n: usize,
    /// The error rate on them.
    pub rate: f64,
}

/// The threshold that keeps the bound in every group: the safest of the groups' own thresholds, each at confidence
/// 1 − `delta` / groups, so that all hold together with confidence 1 − `delta`.
///
/// In a new group that is exchangeable with these (groups drawn as these were), the bound holds with probability
/// groups / (groups + 1) − `delta` or more: the new group's own threshold is the least safe of all with probability
/// groups / (groups + 1) at least. `scores`, `positive` and `groups` have one entry a row.
///
/// # Errors
/// As [`threshold`]; a group with too few rows of the class, by name. Groups without any row of the class have no rate, and are
/// left out.
pub fn worst_group_threshold(
    scores: &[f64],
    positive: &[bool],
    groups: &[String],
    risk_bound: RiskBound,
) -> Result<Threshold> {
    let rows = rows_by_group(positive, groups, risk_bound.error);
    let own_bound =
        RiskBound { delta: risk_bound.delta.map(|delta| delta / rows.len().max(1) as f64), ..risk_bound };
    let mut safest: Option<f64> = None;
    let mut bound: f64 = 0.0;
    for (group, rows) in &rows {
        let own = chosen_on(scores, positive, rows, own_bound).map_err(|error| {
            Error::input(format!("group {group}"), error, "enough rows in every group, or merged groups")
        })?;
        bound = bound.max(own.bound);
        safest = Some(match (safest, risk_bound.error) {
            (None, _) => own.value,
            (Some(value), ErrorKind::Miss) => value.min(own.value),
            (Some(value), ErrorKind::FalseAlarm) => value.max(own.value),
        });
    }
    let Some(value) = safest else {
        // No row of the class: the plain threshold says so.
        return threshold(scores, positive, risk_bound);
    };
    let rates = |class: bool, error: ErrorKind| {
        let own = scores.iter().zip(positive).filter(|(_, is)| **is == class);
        let own: Vec<f64> = own.map(|(score, _)| *score).collect();
        (own.len(), rate(&own, value, error))
    };
    let (miss, alarm) = (rates(true, ErrorKind::Miss), rates(false, ErrorKind::FalseAlarm));
    let ((n, rate), (_, other_rate)) = match risk_bound.error {
        ErrorKind::Miss => (miss, alarm),
        ErrorKind::FalseAlarm => (alarm, miss),
    };
    Ok(Threshold { value, risk_bound, n, rate, other_rate, bound })
}

/// The threshold by a guarantee.
///
/// # Errors
/// As [`threshold`] and [`worst_group_threshold`].
pub fn guaranteed_threshold(
    scores: &[f64],
    positive: &[bool],
    groups: &[String],
    risk_bound: RiskBound,
    guarantee: Guarantee,
) -> Result<Threshold> {
    match guarantee {
        Guarantee::Exchangeable => threshold(scores, positive, risk_bound),
        Guarantee::WorstGroup => worst_group_threshold(scores, positive, groups, risk_bound),
    }
}

/// Every group with rows of the class, tried with the threshold that the other groups choose. Empty for fewer than two groups;
/// groups whose others have too few rows for the bound are left out.
pub fn try_on_groups(
    scores: &[f64],
    positive: &[bool],
    groups: &[String],
    risk_bound: RiskBound,
    guarantee: Guarantee,
) -> Vec<GroupTrial> {
    let rows = rows_by_group(positive, groups, risk_bound.error);
    if rows.len() < 2 {
        return Vec::new();
    }
    let trial = |(group, own): (&&str, &Vec<usize>)| {
        let others: Vec<usize> = (0..scores.len()).filter(|&row| groups[row] != **group).collect();
        let of = |values: &[f64]| -> Vec<f64> { others.iter().map(|&row| values[row]).collect() };
        let is: Vec<bool> = others.iter().map(|&row| positive[row]).collect();
        let names: Vec<String> = others.iter().map(|&row| groups[row].clone()).collect();
        let chosen = guaranteed_threshold(&of(scores), &is, &names, risk_bound, guarantee).ok()?;
        let class = risk_bound.error == ErrorKind::Miss;
        let own: Vec<f64> =
            own.iter().filter(|&&row| positive[row] == class).map(|&row| scores[row]).collect();
        let rate = rate(&own, chosen.value, risk_bound.error);
        Some(GroupTrial { group: (*group).to_owned(), threshold: chosen.value, n: own.len(), rate })
    };
    rows.iter().filter_map(trial).collect()
}

/// Measures the coverage of a worst-group bound: each group's rows of the class are its population, as many are drawn from it with
/// replacement, a threshold is chosen by all that is drawn, and counts where its true rate is within alpha in every group. Rates are
/// those of the worst group.
///
/// # Errors
/// As [`worst_group_threshold`]; no resampling.
pub fn group_coverage(
    scores: &[f64],
    positive: &[bool],
    groups: &[String],
    risk_bound: RiskBound,
    resamplings: usize,
    seed: u64,
) -> Result<Coverage> {
    let n = worst_group_threshold(scores, positive, groups, risk_bound)?.n;
    let class = risk_bound.error == ErrorKind::Miss;
    let populations: Vec<(&str, Vec<f64>)> = rows_by_group(positive, groups, risk_bound.error)
        .into_iter()
        .map(|(group, rows)| {
            let own = rows.into_iter().filter(|&row| positive[row] == class);
            (group, own.map(|row| scores[row]).collect())
        })
        .collect();
    let names: Vec<String> =
        populations.iter().flat_map(|(group, own)| vec![(*group).to_owned(); own.len()]).collect();
    let worst = |resampling: usize| -> Result<f64> {
        let mut random = StdRng::seed_from_u64(seed ^ (resampling as u64 + 1).rotate_left(32));
        let drawn = populations.iter().flat_map(|(_, own)| vec![own; own.len()]);
        let drawn: Vec<f64> = drawn.map(|own| own[random.random_range(0..own.len())]).collect();
        let value = worst_group_threshold(&drawn, &vec![class; drawn.len()], &names, risk_bound)?.value;
        let rates = populations.iter().map(|(_, own)| rate(own, value, risk_bound.error));
        Ok(rates.fold(0.0, f64::max))
    };
    let rates = (0..resamplings).map(worst).collect::<Result<Vec<f64>>>()?;
    if rates.is_empty() {
        return Err(Error::input("coverage of a threshold", "0 resamplings", "one or more"));
    }
    let covered = rates.iter().filter(|&&rate| rate <= risk_bound.alpha).count();
    Ok(Coverage {
        resamplings,
        n,
        coverage: covered as f64 / resamplings as f64,
        expected_coverage: None,
        mean_rate: rates.iter().sum::<f64>() / resamplings as f64,
        largest_rate: rates.iter().copied().fold(0.0, f64::max),
    })
}

/// All rows of each group that has rows of the class which the error is about.
fn rows_by_group<'a>(
    positive: &[bool],
    groups: &'a [String],
    error: ErrorKind,
) -> BTreeMap<&'a str, Vec<usize>> {
    let mut rows: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    groups.iter().enumerate().for_each(|(row, group)| rows.entry(group).or_default().push(row));
    rows.retain(|_, rows| rows.iter().any(|&row| positive[row] == (error == ErrorKind::Miss)));
    rows
}

fn chosen_on(scores: &[f64], positive: &[bool], rows: &[usize], risk_bound: RiskBound) -> Result<Threshold> {
    let own: Vec<f64> = rows.iter().map(|&row| scores[row]).collect();
    let is: Vec<bool> = rows.iter().map(|&row| positive[row]).collect();
    threshold(&own, &is, risk_bound)
}

/// Share of scores that are errors.
fn rate(scores: &[f64], value: f64, error: ErrorKind) -> f64 {
    let is_error = |score: &&f64| match error {
        ErrorKind::Miss => **score < value,
        ErrorKind::FalseAlarm => **score >= value,
    };
    scores.iter().filter(is_error).count() as f64 / scores.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_distr::StandardNormal;

    /// Positives of groups whose scores lie around means with this deviation: scores, groups, and each group's mean.
    fn world(
        groups: usize,
        rows: usize,
        deviation: f64,
        random: &mut StdRng,
    ) -> (Vec<f64>, Vec<String>, Vec<f64>) {
        let means: Vec<f64> =
            (0..groups).map(|_| deviation * random.sample::<f64, _>(StandardNormal)).collect();
        let scores = means.iter().flat_map(|mean| vec![*mean; rows]);
        let scores = scores.map(|mean| mean + random.sample::<f64, _>(StandardNormal)).collect();
        let names = (0..groups).flat_map(|group| vec![group.to_string(); rows]).collect();
        (scores, names, means)
    }

    /// The true miss rate of a threshold in a group with this mean.
    fn true_rate(value: f64, mean: f64) -> f64 {
        crate::stats::normal_cdf(value - mean)
    }

    #[test]
    fn a_worst_group_threshold_holds_in_every_group_and_mostly_in_a_new_one() {
        let mut random = StdRng::seed_from_u64(4);
        let bound = RiskBound::confident(ErrorKind::Miss, 0.1, 0.1);
        let (draws, groups) = (400, 6);
        let (mut plain, mut worst, mut new) = (0, 0, 0);
        for _ in 0..draws {
            let (scores, names, means) = world(groups, 80, 1.0, &mut random);
            let is = vec![true; scores.len()];
            let holds = |value: f64, means: &[f64]| means.iter().all(|&mean| true_rate(value, mean) <= 0.1);
            let found =
                |guarantee| guaranteed_threshold(&scores, &is, &names, bound, guarantee).unwrap().value;
            let (pooled, safest) = (found(Guarantee::Exchangeable), found(Guarantee::WorstGroup));
            plain += usize::from(holds(pooled, &means));
            worst += usize::from(holds(safest, &means));
            new += usize::from(holds(safest, &[random.sample::<f64, _>(StandardNormal)]));
        }
        // 1 − delta in all groups; groups / (groups + 1) − delta in a new one; less three points each.
        assert!(worst * 100 >= draws * 87 && plain * 2 < draws, "{worst} {plain}");
        assert!(new as f64 / draws as f64 >= 6.0 / 7.0 - 0.1 - 0.03, "{new}");
    }

    #[test]
    fn a_threshold_chosen_on_some_groups_is_seen_to_fail_on_another_kind() {
        let mut random = StdRng::seed_from_u64(9);
        let (mut scores, mut names, _) = world(4, 100, 0.0, &mut random);
        let (odd, _, _) = world(1, 100, 0.0, &mut random);
        scores.extend(odd.iter().map(|score| score - 2.0));
        names.extend(vec!["new kind".to_owned(); 100]);
        let is = vec![true; scores.len()];
        let bound = RiskBound::confident(ErrorKind::Miss, 0.2, 0.1);
        let trials = try_on_groups(&scores, &is, &names, bound, Guarantee::Exchangeable);
        assert_eq!(trials.len(), 5);
        let odd = trials.iter().find(|trial| trial.group == "new kind").unwrap();
        // Two deviations below a threshold at about the 16 % point: most are missed.
        assert!(odd.rate > 0.7 && odd.n == 100, "{odd:?}");
        assert!(trials.iter().filter(|trial| trial.group != "new kind").all(|trial| trial.rate < 0.2));
        let error =
            worst_group_threshold(&scores[..110], &is[..110], &names[..110], bound).unwrap_err().to_string();
        assert!(error.starts_with("group 1: ") && error.contains("10 rows of the class"), "{error}");
        assert!(
            try_on_groups(&scores[..100], &is[..100], &names[..100], bound, Guarantee::Exchangeable)
                .is_empty()
        );
        let safe = worst_group_threshold(&scores, &is, &names, bound).unwrap().value;
        let trial = group_coverage(&scores, &is, &names, bound, 100, 1).unwrap();
        assert!(trial.coverage >= 0.87 && safe < odd.threshold, "{trial:?}");
        assert!("worst-group".parse::<Guarantee>().is_ok() && "best".parse::<Guarantee>().is_err());
    }
}
