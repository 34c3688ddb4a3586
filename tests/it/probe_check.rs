//! `pearl probe check`: each verdict on activations that are made for it, and artefacts of other weights.

use ndarray::{Array1, Array2};
use pearlpoint::activations::{Activations, Labelled};
use pearlpoint::analysis::probe_check::{Margins, ProbeCheck, Verdict, check};
use pearlpoint::artifact::Header;
use pearlpoint::dialogue::{Dialogue, Dialogues, Label};
use pearlpoint::model::{OtherWeights, Site};
use pearlpoint::probe::{Calibration, Examples, Fit, Means, Probe, Provenance, Targets};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;

use crate::cli::pearl;

const WIDTH: usize = 4;

fn site() -> Site {
    "1.resid_post".parse().unwrap()
}

/// Prompts of two kinds in turn.
fn data(rows: usize) -> Dialogues {
    let dialogue = |row: usize| {
        let mut dialogue = Dialogue::prompt(format!("d{row}"), format!("text {row}"));
        let kind = ["safe", "risky"][row % 2];
        dialogue.labels.insert("kind".into(), Label::Text(kind.into()));
        dialogue
    };
    Dialogues::new("data", (0..rows).map(dialogue).collect()).unwrap()
}

fn normal(rows: usize, seed: u64) -> Array2<f32> {
    let mut random = StdRng::seed_from_u64(seed);
    Array2::from_shape_fn((rows, WIDTH), |_| random.sample::<f32, _>(StandardNormal))
}

/// States whose first coordinate tells the kinds apart: means ±1, deviation 1.
fn states(rows: usize) -> Array2<f32> {
    let mut values = normal(rows, 1);
    values
        .column_mut(0)
        .iter_mut()
        .enumerate()
        .for_each(|(row, h)| *h += if row % 2 == 1 { 1.0 } else { -1.0 });
    values
}

fn store(values: Array2<f32>, hash: &str) -> Labelled {
    let rows = values.nrows();
    let activations = Activations {
        sites: vec![(site(), values)],
        example: (0..rows).collect(),
        position: vec![Some(3); rows],
        tokens: 4 * rows,
    };
    let header =
        Header { model: Some("m".into()), model_hash: Some(hash.into()), ..Header::new("activations", 1) };
    let labelled = Labelled::new(header, "last".parse().unwrap(), activations, data(rows)).unwrap();
    labelled.with_other_weights(OtherWeights::taken(|_| ()))
}

/// The probe that the states were made for: log-odds 2 · h₀, which is what the means ±1 imply.
fn probe() -> Probe {
    let rows = 40;
    let labels: Vec<&str> = (0..rows).map(|row| ["safe", "risky"][row % 2]).collect();
    let source = Provenance {
        site: site(),
        tokens: "last".parse().unwrap(),
        label: "kind".into(),
        model: Some("m".into()),
        model_hash: Some("one".into()),
        model_form: None,
        data_hash: None,
    };
    let targets = Targets::new(&labels, &labels, &["safe", "risky"]).unwrap();
    let examples = Examples::new(source, states(rows), targets).unwrap();
    let mut probe = Means.fit_all(examples, 1.0).unwrap();
    probe.weight = Array2::from_shape_vec((1, WIDTH), vec![2.0, 0.0, 0.0, 0.0]).unwrap();
    probe.bias = Array1::zeros(1);
    probe.calibration = Calibration::None;
    probe.threshold.insert("risky".into(), 0.5);
    probe
}

fn checked(rows: usize, change: impl Fn(usize, f32) -> f32) -> ProbeCheck {
    let mut other = states(rows);
    other.column_mut(0).iter_mut().enumerate().for_each(|(row, h)| *h = change(row, *h));
    let stores = [store(states(rows), "one"), store(other, "two")];
    let all: Vec<usize> = (0..rows).collect();
    check(&probe(), [&stores[0], &stores[1]], &all, None, Margins::default()).unwrap()
}

#[test]
fn a_probe_that_reads_the_same_holds() {
    let noise = normal(600, 9);
    let check = checked(600, |row, h| h + 0.002 * noise[[row, 1]]);
    assert_eq!(check.verdict, Verdict::Holds, "{check:?}");
    assert!(check.reasons.is_empty() && check.readings.correlation.unwrap() > 0.999);
    // Φ(√2): the AUROC of means ±1 with deviation 1.
    assert!((check.auroc.unwrap().values[0] - 0.921).abs() < 0.03, "{check:?}");
    // Bit for bit the same on a few rows.
    assert_eq!(checked(30, |_, h| h).verdict, Verdict::Holds);
}

#[test]
fn shifted_readings_make_the_threshold_stale() {
    let check = checked(600, |_, h| h + 0.6);
    assert_eq!(check.verdict, Verdict::ThresholdStale, "{check:?}");
    assert_eq!(check.auroc.unwrap().change.value, 0.0);
    let text = check.reasons.join("\n");
    assert!(
        text.contains("false alarms of risky at 0.500") && text.contains("beyond the margin 0.05"),
        "{text}"
    );
}

#[test]
fn noisy_readings_are_degraded() {
    let noise = normal(600, 5);
    let check = checked(600, |row, h| h + 1.5 * noise[[row, 2]]);
    assert_eq!(check.verdict, Verdict::ReadingDegraded, "{check:?}");
    assert!(check.reasons[0].starts_with("AUROC: 0.9"), "{:?}", check.reasons);
}

#[test]
fn a_few_rows_are_inconclusive() {
    let noise = normal(20, 5);
    let check = checked(20, |row, h| h + 0.2 * noise[[row, 2]]);
    assert_eq!(check.verdict, Verdict::Inconclusive, "{check:?}");
    assert!(check.reasons.iter().any(|reason| reason.contains("not within the margin")), "{check:?}");
}

#[test]
fn rows_are_paired_by_their_dialogues_whatever_their_order() {
    let rows = 200;
    let mut all = data(rows);
    let order: Vec<usize> = (0..rows).rev().skip(50).collect();
    let values = states(rows).select(ndarray::Axis(0), &order);
    all.dialogues = order.iter().map(|&row| all.dialogues[row].clone()).collect();
    all.indices = (0..order.len()).collect();
    let activations = Activations {
        sites: vec![(site(), values)],
        example: (0..order.len()).collect(),
        position: vec![None; order.len()],
        tokens: 0,
    };
    let header = Header { model_hash: Some("one".into()), ..Header::new("activations", 1) };
    let second = Labelled::new(header, "last".parse().unwrap(), activations, all).unwrap();
    let first = store(states(rows), "one");
    let chosen: Vec<usize> = (0..rows).collect();
    let check = check(&probe(), [&first, &second], &chosen, None, Margins::default()).unwrap();
    assert_eq!((check.rows, check.unpaired, check.readings.largest_change), (150, 50, 0.0));
    assert_eq!(check.verdict, Verdict::Holds);
}

#[test]
fn the_command_says_its_verdict_and_ends_with_0_or_1() {
    let folder = tempfile::tempdir().unwrap();
    let run = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let output = pearl(&words).current_dir(folder.path()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let done = |line: &str| assert_eq!(run(line).0, Some(0), "{line}: {:?}", run(line));
    done("organism sample --count 200 --out data.jsonl");
    done("organism export --out copy");
    done("extract --data data.jsonl --sites 2.resid_post --tokens assistant.start --out a");
    done("probe fit --store a --data data.jsonl --label user-type --out p.safetensors");
    done(
        "extract --data data.jsonl --model copy --dtype bf16 --sites 2.resid_post --tokens assistant.start --out b",
    );
    let base =
        "probe check p.safetensors --store a --data data.jsonl --auroc-margin 1 --calibration-margin 1";
    let (code, said, _) = run(&format!("{base} --other b --rate-margin 1"));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("verdict: holds"), "{said}");
    let (code, json, _) = run(&format!("{base} --other b --rate-margin 0 --json --out check.json"));
    let value: serde_json::Value = serde_json::from_str(&json).unwrap_or_else(|_| panic!("{code:?} {json}"));
    assert!(code == Some(1) || value["verdict"] == "holds", "{json}");
    let (code, _, said) = run(&format!("{base} --other nowhere"));
    assert_eq!(code, Some(2), "{said}");
    let (code, _, said) =
        run("probe check p.safetensors --store a --other b --data data.jsonl --rate-margin 2");
    assert!(code == Some(2) && said.contains("from 0 to 1"), "{said}");
}
