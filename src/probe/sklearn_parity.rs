//! Parity with scikit-learn and scipy on the same rows; `tests/fixtures/probe/make.py` wrote their numbers.

use ndarray::{Array1, Array2};
use serde::Deserialize;

use super::design_matrix::Standardised;
use super::design_matrix::all_rows;
use super::examples::tests::{classes, examples, formula};
use super::loss::Loss;
use super::penalised::TOLERANCE;
use super::solver::{Problem, Solution, solve};
use super::{Fit, Lda, Link, Logistic, Probe, Ridge, Split, Targets};
use crate::stats;

#[derive(Deserialize)]
struct Expected {
    optima: Vec<Optimum>,
    folds: Vec<Areas>,
    ridge: Logits,
    lda: Logits,
    ordinal: Levels,
}

#[derive(Deserialize)]
struct Optimum {
    shape: String,
    rows: usize,
    width: usize,
    noise: f64,
    #[serde(rename = "C")]
    strength: f64,
    collinear: bool,
    classes: usize,
    objective: f64,
    first: Vec<f64>,
}

#[derive(Deserialize)]
struct Areas {
    classes: usize,
    #[serde(rename = "C")]
    strength: f64,
    auroc: Vec<f64>,
}

#[derive(Deserialize)]
struct Logits {
    #[serde(alias = "C")]
    strength: f64,
    two: Vec<f64>,
    three: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Levels {
    #[serde(rename = "C")]
    strength: f64,
    objective: f64,
    weight: Vec<f64>,
    bias: Vec<f64>,
}

fn expected() -> Expected {
    let text = std::fs::read_to_string("tests/fixtures/probe/expected.json").unwrap();
    serde_json::from_str(&text).unwrap()
}

fn optimum(x: &Array2<f32>, classes: &[usize], loss: Loss, strengths: &[f64]) -> Solution {
    let all = all_rows(x.nrows());
    let mut design = Standardised::new(x.clone(), std::slice::from_ref(&all));
    let classes: Vec<u32> = classes.iter().map(|&class| class as u32).collect();
    let subset = design.subset(&all);
    let problem = Problem { loss, classes: &classes, subset: &subset };
    solve(&mut design, &[problem], strengths, TOLERANCE).unwrap().pop().unwrap().pop().unwrap()
}

#[test]
fn reaches_the_optimum_of_scikit_learn() {
    for case in expected().optima {
        let (x, cut) = formula(case.rows, case.width, case.noise, case.collinear);
        let truth = classes(&cut, case.classes);
        let loss = if case.classes == 2 { Loss::Logistic } else { Loss::Softmax(case.classes) };
        // On a path of two strengths, so that warm starts are tested too.
        let solution = optimum(&x, &truth, loss, &[case.strength / 10.0, case.strength]);
        let gap = (solution.objective - case.objective) / case.objective;
        assert!(gap.abs() < 1e-6, "{}, {} classes: {gap:e}", case.shape, case.classes);
        let probe = Logistic::default().fit_all(examples(x, &truth, None), case.strength).unwrap();
        for (weight, expected) in probe.weight.column(0).iter().zip(case.first) {
            // The objective is flat at its minimum: a gap of 1e-7 is a weight's error of about 3e-4.
            let away = (f64::from(*weight) - expected).abs();
            assert!(away < 3e-3 * expected.abs().max(1.0), "{}: {weight} {expected}", case.shape);
        }
    }
}

#[test]
fn ranks_held_out_folds_as_scikit_learn_does() {
    for case in expected().folds {
        let (x, cut) = formula(150, 12, 1.0, false);
        let truth = classes(&cut, case.classes);
        let splits: Vec<Split> = (0..5)
            .map(|fold| {
                let (test, fit) = (0..150).partition(|row| row % 5 == fold);
                Split { fit, test }
            })
            .collect();
        // Other strengths on the same path must not change the result.
        let strengths = [1e-3, case.strength, 20.0];
        let fits = Logistic::default().fit(examples(x, &truth, None), &splits, &strengths).unwrap();
        for ((fits, split), expected) in fits.iter().zip(&splits).zip(&case.auroc) {
            let probabilities = fits[1].probe.from_logits(fits[1].logits.clone());
            let truth: Vec<usize> = split.test.iter().map(|&row| truth[row]).collect();
            let area = stats::auroc_macro(probabilities.view(), &truth).unwrap();
            assert!(
                (area - expected).abs() < 0.002,
                "{} classes, C = {}: {area} {expected}",
                case.classes,
                case.strength
            );
        }
    }
}

fn first_logits(method: &dyn Fit, strength: f64, count: usize) -> Array2<f64> {
    let (x, cut) = formula(200, 6, 0.6, false);
    let probe: Probe = method.fit_all(examples(x.clone(), &classes(&cut, count), None), strength).unwrap();
    probe.logits(x.slice(ndarray::s![..5, ..])).unwrap()
}

#[test]
fn ridge_and_lda_have_the_logits_of_scikit_learn() {
    let expected = expected();
    let methods: [(&dyn Fit, Logits); 2] =
        [(&Ridge::default(), expected.ridge), (&Lda::default(), expected.lda)];
    for (method, expected) in methods {
        let two = first_logits(method, expected.strength, 2);
        for (found, expected) in two.column(0).iter().zip(&expected.two) {
            assert!(
                (found - expected).abs() < 1e-3 * expected.abs().max(1.0),
                "{}: {found} {expected}",
                method.name()
            );
        }
        let three = first_logits(method, expected.strength, 3);
        for (found, expected) in three.rows().into_iter().zip(&expected.three) {
            // Only differences between heads count.
            let (found, expected) = (found.to_owned(), Array1::from(expected.clone()));
            let away = (&found - found[0]) - (&expected - expected[0]);
            assert!(
                away.iter().all(|d| d.abs() < 2e-3 * expected[0].abs().max(1.0)),
                "{}: {away}",
                method.name()
            );
        }
    }
}

#[test]
fn ordinal_regression_reaches_the_optimum_of_scipy() {
    let expected = expected().ordinal;
    let (x, cut) = formula(200, 6, 0.6, false);
    let solution = optimum(&x, &classes(&cut, 3), Loss::Ordinal(3), &[0.1, expected.strength]);
    let gap = (solution.objective - expected.objective) / expected.objective;
    assert!(gap.abs() < 1e-6, "{gap:e}");
    for (found, expected) in
        solution.weight.iter().zip(&expected.weight).chain(solution.bias.iter().zip(&expected.bias))
    {
        assert!((found - expected).abs() < 3e-3 * expected.abs().max(1.0), "{found} {expected}");
    }
}

#[test]
fn multilabel_heads_are_binary_fits_of_their_own() {
    let (x, cut) = formula(200, 6, 0.6, false);
    let lists: Vec<Vec<&str>> = cut
        .iter()
        .map(|&cut| {
            [("high", cut > 0.5), ("positive", cut > 0.0)].iter().filter(|l| l.1).map(|l| l.0).collect()
        })
        .collect();
    let groups: Vec<&str> = vec!["one"; 200];
    let targets = Targets::multilabel(&lists, &groups, &[]).unwrap();
    let own = examples(x.clone(), &classes(&cut, 2), None);
    let alone = Logistic::default().fit_all(own.clone(), 1.0).unwrap();
    let both = crate::probe::Examples::new(own.source.clone(), x.clone(), targets).unwrap();
    let both = Logistic::default().fit_all(both, 1.0).unwrap();
    assert_eq!(
        (both.link, both.heads()),
        (Link::MultiLabel, ["high".to_owned(), "positive".into()].as_slice())
    );
    let (probabilities, alone) =
        (both.probabilities(x.view()).unwrap(), alone.probabilities(x.view()).unwrap());
    // "positive" is the binary probe's second class; and the two columns do not sum to 1.
    assert!((&probabilities.column(1) - &alone.column(1)).iter().all(|d| d.abs() < 1e-3));
    assert!(probabilities.sum_axis(ndarray::Axis(1)).iter().any(|sum| *sum > 1.5));
}
