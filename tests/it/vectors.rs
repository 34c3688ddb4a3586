//! Other tools' vectors, in and out (invariant 7), and the vector commands as users run them.

use std::path::Path;

use pearlpoint::artifact::Header;
use pearlpoint::model::Site;
use pearlpoint::steer::formats::Placement;
use pearlpoint::steer::{Vector, formats};

use crate::cli::{one_line, pearl};

fn read(name: &str, site: Option<&str>, position: i64) -> pearlpoint::Result<Vector> {
    let path = Path::new("tests/fixtures/vectors").join(name);
    let site = site.map(|site| site.parse::<Site>().unwrap());
    let placement = Placement { site, position, ..Placement::default() };
    formats::read(&path, &placement).map(|(_, vector)| vector)
}

fn close(vector: &Vector, site: &str, expected: &[f64]) {
    let values = &vector.directions[&site.parse().unwrap()].values;
    assert_eq!(values.len(), expected.len());
    assert!(values.iter().zip(expected).all(|(v, e)| (f64::from(*v) - e).abs() < 1e-6), "{values}");
}

/// `tests/fixtures/vectors/make.py` says what is in the files.
#[test]
fn tensors_of_pt_files_are_read_as_torch_reads_them() {
    let sine =
        |range: std::ops::Range<usize>| -> Vec<f64> { range.map(|i| 3.0 * (i as f64).sin()).collect() };
    let at = Some("9.resid_post");
    close(&read("view.pt", at, -1).unwrap(), "9.resid_post", &[2.0, 3.0, 4.0]);
    close(&read("double.pt", at, -1).unwrap(), "9.resid_post", &sine(20..24));
    let column: Vec<f64> = (0..6).map(|row| 3.0 * ((4 * row + 1) as f64).sin()).collect();
    close(&read("strided.pt", at, -1).unwrap(), "9.resid_post", &column);
    close(&read("parameter.pt", at, -1).unwrap(), "9.resid_post", &[1.0; 3]);
    close(&read("half.pt", at, -1).unwrap(), "9.resid_post", &[1.5, -2.25]);
    close(&read("bfloat16.pt", at, -1).unwrap(), "9.resid_post", &[1.5, -2.25]);
    for (position, begin) in [(-1, 12), (1, 12), (0, 0), (-2, 0)] {
        let layers = read("layers.pt", None, position).unwrap();
        assert_eq!(layers.directions.len(), 3);
        for layer in 0..3 {
            let begin = begin + 4 * layer;
            close(&layers, &format!("{layer}.resid_pre"), &sine(begin..begin + 4));
        }
    }
}

#[test]
fn whatever_else_a_pt_file_holds_is_refused() {
    let at = Some("9.resid_post");
    for (name, expected) in [
        ("code.pt", "__builtin__ print"),
        ("dictionary.pt", "a dictionary instead of a tensor"),
        ("whole.pt", "torch LongStorage"),
        ("nan.pt", "not finite, at index 1"),
        ("legacy.pt", "before torch's zip format"),
        ("make.py", "a file of another format; expected a GGUF control vector"),
    ] {
        let error = read(name, at, -1).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    assert!(read("view.pt", None, -1).unwrap_err().to_string().contains("--site"));
    assert!(read("layers.pt", None, 2).unwrap_err().to_string().contains("2 positions"));
}

/// `tests/fixtures/vectors/make.py`: three layers of four numbers, in the formats of NumPy, CAST and EasySteer.
#[test]
fn a_direction_for_each_layer_is_read_in_every_format() {
    let layer =
        |layer: usize| -> Vec<f64> { (4 * layer..4 * layer + 4).map(|i| 3.0 * (i as f64).sin()).collect() };
    let arrays =
        ["rows.pt", "rows.npy", "columns.npy", "rows.npz", "rows.4.pkl", "rows.5.pkl", "fortran.5.pkl"];
    for (name, point) in arrays
        .map(|name| (name, "resid_pre"))
        .into_iter()
        .chain(["cast.svec", "easysteer.gguf"].map(|name| (name, "resid_post")))
    {
        let vector = read(name, None, -1).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(vector.directions.len(), 3, "{name}");
        (0..3).for_each(|block| close(&vector, &format!("{block}.{point}"), &layer(block)));
    }
    let (stored, folder) =
        (std::fs::read("tests/fixtures/vectors/rows.npy").unwrap(), tempfile::tempdir().unwrap());
    let table = r#"{"v":{"dtype":"F32","shape":[3,4],"data_offsets":[0,48]}}   "#;
    let bytes =
        [&(table.len() as u64).to_le_bytes()[..], table.as_bytes(), &stored[stored.len() - 48..]].concat();
    let path = folder.path().join("rows.safetensors");
    std::fs::write(&path, bytes).unwrap();
    close(&formats::read(&path, &Placement::default()).unwrap().1, "2.resid_pre", &layer(2));
    let row = read("row.svec", None, -1).unwrap();
    close(&row, "1.resid_post", &layer(1));
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out").display().to_string();
    pearl(&["vector", "import", "tests/fixtures/vectors/rows.npy", "--point", "mlp_out", "--out", &out])
        .assert()
        .success();
    close(&Vector::load(Path::new(&out)).unwrap().1, "2.mlp_out", &layer(2));
}

#[test]
fn what_is_no_array_of_numbers_is_refused_with_a_way_to_convert_it() {
    for (name, expected) in [
        ("compressed.npz", "a compressed array (savez_compressed)"),
        ("two.npz", "an archive of 2 arrays"),
        ("objects.npy", "an array of type |O"),
        ("code.pkl", "the name \"builtins print\""),
        ("positions.svec", "2 directions for layer 1"),
        ("heads.gguf", "directions of attention_heads"),
        ("legacy.pt", "before torch's zip format"),
    ] {
        let error = read(name, None, -1).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
        if !name.ends_with("svec") && !name.ends_with("gguf") {
            assert!(error.contains("numpy.save("), "{name}: {error}");
        }
    }
    let error = read("rows.npy", Some("1.resid_post"), -1).unwrap_err().to_string();
    assert!(error.contains("no --site"), "{error}");
}

#[test]
fn a_svec_file_has_each_layer_once_and_one_width() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v.svec");
    let read = |directions: &str| {
        std::fs::write(&path, format!(r#"{{"directions": {{{directions}}}}}"#)).unwrap();
        formats::read(&path, &Placement::default()).map(|read| read.1).map_err(|error| error.to_string())
    };
    assert_eq!(read(r#""1": [1, 2], "2": [[3, 4]]"#).unwrap().directions.len(), 2);
    for (directions, expected) in [
        (r#""1": [1, 2], "1": [3, 4]"#, "v.svec: two directions for 1.resid_post; expected each layer once"),
        (r#""01": [1, 2], "2": [5, 6], "1": [[3, 4]]"#, "v.svec: two directions for 1.resid_post"),
        (r#""1": [0, 0], "1": [3, 4]"#, "v.svec: two directions for 1.resid_post"),
        (
            r#""1": [1, 2], "2": [3, 4, 5]"#,
            "3 numbers at 2.resid_post, 2 at 1.resid_post; expected directions of one width",
        ),
        (r#""1": [0, 0, 0], "2": [[3, 4]]"#, "2 numbers at 2.resid_post, 3 at 1.resid_post"),
    ] {
        let error = read(directions).unwrap_err();
        assert!(error.contains(expected) && !error.contains('\n'), "{directions}: {error}");
    }
}

#[test]
fn a_changed_array_is_refused_or_read_without_harm() {
    let folder = tempfile::tempdir().unwrap();
    for name in
        ["rows.npy", "columns.npy", "rows.4.pkl", "rows.5.pkl", "cast.svec", "easysteer.gguf", "rows.npz"]
    {
        let whole = std::fs::read(Path::new("tests/fixtures/vectors").join(name)).unwrap();
        let path = folder.path().join(name);
        for at in 0..whole.len() {
            for byte in [0, 0xFF, whole[at] ^ 1] {
                let mut changed = whole.clone();
                changed[at] = byte;
                std::fs::write(&path, &changed).unwrap();
                let _ = formats::read(&path, &Placement::default());
            }
        }
        // The end of a GGUF file is padding.
        let end = if name.ends_with("gguf") { whole.len() - 32 } else { whole.len() };
        for length in 0..end {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(formats::read(&path, &Placement::default()).is_err(), "{name} cut to {length}");
        }
    }
}

#[test]
fn an_archive_that_lies_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read("tests/fixtures/vectors/view.pt").unwrap();
    let path = folder.path().join("lie.pt");
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let site = Some("1.resid_post".parse().unwrap());
        formats::read(&path, &Placement { site, ..Placement::default() }).map(|_| ())
    };
    for length in (0..whole.len()).step_by(7) {
        assert!(read(&whole[..length]).is_err(), "cut to {length}");
    }
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x15;
        // Refused or read; checksums catch most of it.
        let _ = read(&changed);
    }
}

#[test]
fn a_vector_goes_through_a_gguf_file_and_the_commands_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let layers = "import tests/fixtures/vectors/layers.pt --point resid_post --out";
    let run = |arguments: &str| {
        let mut whole = vec!["vector"];
        whole.extend(arguments.split(' '));
        let output = pearl(&whole).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    run(&format!("{layers} {}", at("a")));
    run(&format!(
        "export {} --sites 1-2.resid_post --gguf {} --harness {}",
        at("a"),
        at("a.gguf"),
        at("a.pt")
    ));
    run(&format!("import {} --out {}", at("a.gguf"), at("b")));
    let load = |name: &str| Vector::load(&folder.path().join(name)).unwrap().1;
    let (mut a, b) = (load("a"), load("b"));
    a.directions.retain(|site, _| site.block() != Some(0));
    assert_eq!(a.directions, b.directions);
    run(&format!("add {} {} --out {}", at("a"), at("b"), at("sum")));
    run(&format!("scale {} -2 --out {}", at("b"), at("less")));
    run(&format!("subtract {} {} --out {}", at("sum"), at("b"), at("again")));
    run(&format!("orthogonalise {} {} --out {}", at("b"), at("less"), at("nothing")));
    assert_eq!(load("again").directions, b.directions);
    assert!(load("nothing").directions.values().all(|direction| direction.length() < 1e-5));
    let cosines = run(&format!("cosines {} {}", at("b"), at("less")));
    assert_eq!(cosines.lines().count(), 2);
    assert!(cosines.lines().all(|line| line.contains("-1.0000")), "{cosines}");
    assert!(run(&format!("info {}", at("b"))).contains("1.resid_post     width 4"));
    one_line(&["vector", "export", &at("a"), "--gguf", &at("no.gguf")], &["0.resid_post", "--sites"]);
    one_line(
        &["vector", "import", &at("a"), "--out", &at("c")],
        &["a file that `pearl` wrote; expected a GGUF control vector"],
    );
    one_line(&["vector", "import", "nowhere.gguf", "--out", &at("c")], &["nowhere.gguf"]);
    one_line(
        &["vector", "add", &at("a"), "tests/fixtures/dialogues.jsonl", "--out", &at("c")],
        &["dialogues.jsonl"],
    );
    assert!(!folder.path().join("c").exists());
}

#[test]
fn vectors_of_two_models_are_not_put_together() {
    let folder = tempfile::tempdir().unwrap();
    let vector = read("view.pt", Some("1.resid_post"), -1).unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, hash) in [("a", "one"), ("b", "two")] {
        vector.save(&at(name), Header { model_hash: Some(hash.into()), ..Header::default() }).unwrap();
    }
    let path = |name: &str| at(name).display().to_string();
    one_line(&["vector", "add", &path("a"), &path("b"), "--out", &path("c")], &["another model's weights"]);
}

/// Line 3 of what steering must show: a vector that we exported, applied by llama.cpp to a GGUF checkpoint of four blocks
/// (`tests/fixtures/vectors/llama.py`), moves next-token logits as it does here, to the unsteered models' own parity.
#[test]
fn an_exported_vector_does_in_llama_cpp_what_it_does_here() {
    use pearlpoint::model::{Dtype, Hook, Selector};
    use pearlpoint::steer::{Operation, SteerHook, Strength};

    #[derive(serde::Deserialize)]
    struct Case {
        prompts: Vec<Vec<u32>>,
        plain: Vec<Vec<f32>>,
        steered: Vec<Vec<f32>>,
    }
    for name in ["llama", "qwen3"] {
        let folder = Path::new("tests/fixtures/vectors");
        let case: Case =
            serde_json::from_slice(&std::fs::read(folder.join(format!("{name}.json"))).unwrap()).unwrap();
        let decoder = crate::gguf::decoder(&folder.join(format!("{name}.model.gguf")), Some(Dtype::F32));
        let (_, vector) = formats::read_gguf(&folder.join(format!("{name}.vector.gguf")), 0).unwrap();
        let sites: Vec<Site> = vector.directions.keys().copied().collect();
        assert_eq!(
            sites.iter().map(Site::to_string).collect::<Vec<_>>(),
            ["1.resid_post", "2.resid_post", "3.resid_post"]
        );
        let steer = |shift: usize| {
            let directions = vector.directions.iter().map(|(site, direction)| {
                let block = site.block().unwrap() - shift;
                (format!("{block}.resid_post").parse().unwrap(), direction.clone())
            });
            let vector = Vector { method: "test".into(), directions: directions.collect(), best: None };
            let sites: Vec<Site> = vector.directions.keys().copied().collect();
            let (strength, tokens) = (Strength::Raw(1.0), Selector::All);
            SteerHook::new(&decoder, &vector, &sites, (Operation::ADD, strength), tokens, None).unwrap()
        };
        let apart = |expected: &[Vec<f32>], hook: &mut dyn Hook| -> f32 {
            let mut most = 0f32;
            for (ids, expected) in case.prompts.iter().zip(expected) {
                let tokens = crate::model::tokens(std::slice::from_ref(ids));
                let logits = decoder.forward(&tokens, None, &[tokens.len() - 1], hook).unwrap();
                let logits: Vec<f32> = logits.flatten_all().unwrap().to_vec1().unwrap();
                most = logits.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(most, f32::max);
            }
            most
        };
        let parity = apart(&case.plain, &mut ());
        let steered = apart(&case.steered, &mut steer(0));
        // Off by one block, or not steered at all, it is far away.
        let wrong = apart(&case.steered, &mut steer(1)).min(apart(&case.steered, &mut ()));
        println!(
            "{name}: unsteered {parity:.2e}, steered {steered:.2e}, a block off or unsteered {wrong:.2e}"
        );
        assert!(
            parity < 2e-4 && steered <= 2.0 * parity.max(1e-5) && wrong > 0.1,
            "{name}: {parity} {steered} {wrong}"
        );
    }
}

#[test]
fn a_vector_is_tried_on_groups_held_out_and_says_what_its_unit_is() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let run = |arguments: &[&str]| {
        let output = pearl(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let (data, store, out) = (at("data.jsonl"), at("store"), at("v.safetensors"));
    run(&["organism", "sample", "--count", "400", "--out", &data, "--quiet"]);
    run(&[
        "extract",
        "--model",
        "organism",
        "--data",
        &data,
        "--sites",
        "3.attn_out,3.resid_post",
        "--tokens",
        "assistant.start",
        "--out",
        &store,
        "--quiet",
    ]);
    let build = [
        "vector",
        "build",
        "--store",
        &store,
        "--data",
        &data,
        "--label",
        "user-type",
        "--from",
        "malicious",
        "--to",
        "benign",
        "--out",
        &out,
        "--quiet",
    ];
    let held_out =
        ["--group", "topic", "--held-out", "travel,music,gambling", "--null", "shuffled", "--draws", "3"];
    let printed = run(&[&build[..], &held_out[..]].concat());
    // Two means of one class each lie as far apart on other topics, along the vector, as on those that it was made from.
    for line in printed.lines() {
        let share: f64 = line.split("held out: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!((0.6..1.4).contains(&share), "{line}");
    }
    assert!(printed.contains("3.resid_post     held out"), "{printed}");
    assert!(folder.path().join("v-shuffled-2.safetensors").is_file());
    let (_, vector) = Vector::load(Path::new(&out)).unwrap();
    let [attention, stream] =
        ["3.attn_out", "3.resid_post"].map(|site| &vector.directions[&site.parse().unwrap()]);
    assert_eq!(attention.residual_norm, stream.residual_norm);
    let own = |direction: &pearlpoint::steer::Direction| direction.measured.as_ref().unwrap().site_norm;
    assert!(own(attention) < own(stream));
    let info = run(&["vector", "info", &out]);
    assert!(info.lines().nth(1).unwrap().starts_with("best site: 3."), "{info}");
    assert!(
        info.lines().skip(2).all(|line| line.contains("of the residual stream, position 0 left out")),
        "{info}"
    );
    // Without the residual stream the unit is the site's own, and that is said.
    run(&[
        "extract",
        "--model",
        "organism",
        "--data",
        &data,
        "--sites",
        "3.attn_out",
        "--tokens",
        "assistant.start",
        "--out",
        &at("alone"),
        "--quiet",
    ]);
    let mut alone = build.to_vec();
    let store = at("alone");
    alone[3] = &store;
    let output = pearl(&alone[..alone.len() - 1]).output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("doubt: n at 3.attn_out is the site's own norm")
    );
    one_line(
        &[&build[..], &["--group", "topic", "--held-out", "nowhere"][..]].concat(),
        &["topic = nowhere"],
    );
}
