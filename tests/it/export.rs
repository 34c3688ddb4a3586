//! Stores written for other programs, and the pictures that are drawn from stores.

use std::path::Path;

use pearlpoint::activations::Store;
use pearlpoint::model::Site;
use serde_json::Value;

use super::cli::{one_line, pearl};

/// A store of two blocks over 40 dialogues, and its data.
fn store(folder: &Path) -> (String, String) {
    let (data, out) =
        (folder.join("data.jsonl").display().to_string(), folder.join("store").display().to_string());
    pearl(&["organism", "sample", "--count", "40", "--seed", "3", "--out", &data]).assert().success();
    extract(&data, &out, "last(user,2)");
    (data, out)
}

fn extract(data: &str, out: &str, tokens: &str) {
    let sites = "2-3.resid_post";
    pearl(&["extract", "--data", data, "--sites", sites, "--tokens", tokens, "--out", out])
        .assert()
        .success();
}

/// Header text and bytes of a numpy array.
fn npy(path: &Path) -> (String, Vec<u8>) {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!((10 + length) % 64, 0);
    (String::from_utf8(bytes[10..10 + length].to_vec()).unwrap(), bytes[10 + length..].to_vec())
}

#[test]
fn an_export_holds_every_number_of_the_store_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (_, out) = store(folder.path());
    let whole = Store::open(Path::new(&out)).unwrap();
    let site: Site = "3.resid_post".parse().unwrap();
    let (values, example) = (whole.at(site).unwrap(), whole.example().unwrap());
    let (arrays, tables) = (folder.path().join("arrays"), folder.path().join("tables"));
    let printed =
        pearl(&["store", "export", &out, "--npy", "--out", arrays.to_str().unwrap()]).output().unwrap();
    assert_eq!(String::from_utf8(printed.stdout).unwrap().lines().count(), 4);
    let (header, bytes) = npy(&arrays.join("3.resid_post.npy"));
    assert!(header.contains(&format!("'shape': ({}, {})", values.nrows(), values.ncols())), "{header}");
    let expected: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert!(bytes == expected);
    let (header, bytes) = npy(&arrays.join("example.npy"));
    assert!(header.contains("'<i8'") && header.contains(&format!("({},)", example.len())), "{header}");
    assert_eq!(bytes.len(), 8 * example.len());

    let words =
        ["store", "export", &out, "--csv", "--sites", "3.resid_post", "--out", tables.to_str().unwrap()];
    pearl(&words).assert().success();
    assert_eq!(std::fs::read_dir(&tables).unwrap().count(), 1);
    let text = std::fs::read_to_string(tables.join("3.resid_post.csv")).unwrap();
    assert_eq!(text.lines().count(), 1 + values.nrows());
    for (row, line) in text.lines().skip(1).enumerate() {
        let mut cells = line.split(',');
        assert_eq!(cells.next().unwrap().parse::<usize>().unwrap(), example[row]);
        assert!(cells.next().unwrap().parse::<usize>().is_ok());
        assert!(cells.zip(values.row(row)).all(|(cell, value)| cell.parse::<f32>().unwrap() == *value));
    }
}

#[test]
fn an_export_that_can_not_be_made_says_why_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (_, out) = store(folder.path());
    let to = folder.path().join("to").display().to_string();
    let refused = |more: &[&str], expected: &[&str]| {
        one_line(&[&["store", "export", &out, "--out", &to], more].concat(), expected);
        assert!(!Path::new(&to).exists());
    };
    refused(&[], &["--npy", "--csv", "--parquet"]);
    refused(&["--npy", "--csv"], &["cannot be used with"]);
    refused(&["--npy", "--sites", "0.resid_post"], &["no site 0.resid_post", "2.resid_post, 3.resid_post"]);
    if cfg!(not(feature = "parquet")) {
        refused(&["--parquet"], &["without the feature `parquet`", "--features parquet", "--npy"]);
    }
    one_line(&["store", "export", "nowhere", "--npy", "--out", &to], &["nowhere", "a store"]);
}

#[test]
fn scatter_and_grid_leave_their_tables_and_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = store(folder.path());
    let second = folder.path().join("second").display().to_string();
    extract(&data, &second, "assistant.start");
    let to = folder.path().join("scatter");
    let given = ["--data", &data, "--label", "user-type", "--json", "--out"];
    let words = [&["probe", "scatter", "--store", &second], &given[..], &[to.to_str().unwrap()]].concat();
    let found: Value = serde_json::from_slice(&pearl(&words).output().unwrap().stdout).unwrap();
    assert_eq!((&found["site"], found["points"].as_array().unwrap().len()), (&"3.resid_post".into(), 40));
    let share = |number: usize| found["variance"][number].as_f64().unwrap();
    assert!(share(0) >= share(1) && share(1) > 0.0 && share(0) + share(1) <= 1.0);
    let picture = std::fs::read_to_string(to.join("scatter.svg")).unwrap();
    assert!(picture.contains("Principal components at 3.resid_post") && to.join("scatter.json").exists());

    let to = folder.path().join("grid");
    let stores = ["probe", "grid", "--store", &out, "--store", &second];
    let words = [&stores, &given[..], &[to.to_str().unwrap(), "--group", "topic"]].concat();
    let found: Value = serde_json::from_slice(&pearl(&words).output().unwrap().stdout).unwrap();
    assert_eq!(found["sites"], serde_json::json!(["2.resid_post", "3.resid_post"]));
    let tokens: Vec<&Value> = found["rows"].as_array().unwrap().iter().map(|row| &row["tokens"]).collect();
    assert_eq!(tokens, ["last(user,2)", "assistant.start"]);
    // The same figure as the sweep's own.
    let probe = folder.path().join("probe.safetensors").display().to_string();
    let words = [&["probe", "fit", "--store", &second], &given[..], &[&probe, "--group", "topic"]].concat();
    let own: Vec<Value> = serde_json::from_slice(&pearl(&words).output().unwrap().stdout).unwrap();
    let auroc = own.iter().find(|metric| metric["name"] == "2.resid_post/auroc").unwrap();
    assert_eq!(found["rows"][1]["auroc"][0]["value"], auroc["value"]);
    assert!(to.join("grid.svg").exists() && to.join("grid.json").exists());
    let twice = ["probe", "grid", "--store", &out, "--store", &out, "--data", &data, "--label", "user-type"];
    let to = folder.path().join("twice").display().to_string();
    one_line(&[&twice[..], &["--out", &to]].concat(), &["last(user,2) twice", "a selector once"]);
}
