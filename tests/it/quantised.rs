//! Checkpoints with a `quantization_config`, against the methods' own code (`tests/fixtures/quantised/make.py`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pearlpoint::model::{Checkpoint, Dtype, TensorRef, Weight};
use safetensors::Dtype as Kind;
use serde_json::{Value, json};

use crate::checkpoints::{Stored, changed, read, states};
use crate::model::error;

const FOLDER: &str = "tests/fixtures/quantised";

const METHODS: [&str; 15] = [
    "fp8-blocks",
    "fp8-whole",
    "float-rows",
    "float-whole",
    "int-rows",
    "packed",
    "packed-zeros",
    "packed-eight",
    "nf4",
    "nf4-nested",
    "fp4",
    "int8",
    "gptq",
    "gptq-second",
    "awq",
];

/// The tensors of a fixture under a prefix, and without it.
fn part(method: &str, prefix: &str) -> Vec<(String, Stored)> {
    let all = read(&Path::new(FOLDER).join(format!("{method}.safetensors")));
    let own =
        all.into_iter().filter_map(|(name, stored)| Some((name.strip_prefix(prefix)?.to_owned(), stored)));
    own.collect()
}

/// families/llama with block 0 as a method stores it; `change` may alter its settings and tensors.
fn quantised(
    method: &str,
    change: impl FnOnce(&mut Value, &mut BTreeMap<String, Stored>),
) -> (tempfile::TempDir, PathBuf) {
    let settings = std::fs::read(Path::new(FOLDER).join(format!("{method}.json"))).unwrap();
    changed("families/llama", |config, tensors| {
        config["quantization_config"] = serde_json::from_slice(&settings).unwrap();
        part(method, "dense.").iter().for_each(|(name, _)| drop(tensors.remove(name)));
        tensors.extend(part(method, "stored."));
        change(config, tensors);
    })
}

/// families/llama with what block 0 of a fixture stands for.
fn dense(method: &str) -> (tempfile::TempDir, PathBuf) {
    changed("families/llama", |_, tensors| tensors.extend(part(method, "dense.")))
}

fn floats(weight: Weight) -> Vec<f32> {
    weight.floats().unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn every_method_gives_the_numbers_that_its_own_code_gives() {
    for method in METHODS {
        let (_root, folder) = quantised(method, |_, _| ());
        let checkpoint = Checkpoint::open(&folder, None).unwrap();
        let matrices = part(method, "dense.");
        assert_eq!(matrices.len(), 7);
        for (name, (_, shape, bytes)) in matrices {
            let expected: Vec<f32> = bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
            let whole =
                floats(checkpoint.weights.take(&TensorRef::whole(&name, &shape), Dtype::F32).unwrap());
            for (at, (found, expected)) in whole.iter().zip(&expected).enumerate() {
                // The last digit: methods multiply in another order.
                assert!(
                    (found - expected).abs() <= 2.4e-7 * expected.abs(),
                    "{method} {name} {at}: {found}, {expected}"
                );
            }
            let rows = TensorRef::rows(&name, &shape, [4..6, 1..2]);
            let rows = floats(checkpoint.weights.take(&rows, Dtype::F32).unwrap());
            let width = shape[1];
            assert_eq!(
                rows,
                [&whole[4 * width..6 * width], &whole[width..2 * width]].concat(),
                "{method} {name}"
            );
        }
    }
}

#[test]
fn a_quantised_model_computes_what_its_numbers_compute() {
    let rows = [vec![1, 5, 39, 7, 0], vec![2; 9]];
    for method in METHODS {
        let ((_one, quantised), (_two, dense)) = (quantised(method, |_, _| ()), dense(method));
        let [found, expected] = [&quantised, &dense].map(|folder| states(folder, &rows));
        for (site, expected) in &expected {
            let error = error(&found[site], expected);
            assert!(error <= 1e-5, "{method} {site}: {error}");
        }
    }
}

/// Names of the method, what is stored and what is kept, in `pearl inspect`.
#[test]
fn inspect_says_how_weights_are_quantised_and_what_they_become() {
    let (_root, folder) = quantised("gptq", |_, _| ());
    let said = crate::cli::pearl(&["inspect", folder.to_str().unwrap(), "--json"]).output().unwrap();
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!((&said["quantisation"], &said["dtype"]), (&json!("gptq, 4 bits"), &json!("f32")));
    assert_eq!(said["stored"]["i32"], 21);
}

#[test]
fn a_head_that_is_quantised_is_a_head() {
    let (_root, folder) = quantised("fp8-whole", |_, tensors| {
        let (_, shape, bytes) = tensors["lm_head.weight"].clone();
        let bytes = bytes.chunks(2).map(|pair| if pair[1] & 0x80 == 0 { 0x38 } else { 0xB8 }).collect();
        tensors.insert("lm_head.weight".into(), (Kind::F8_E4M3, shape, bytes));
        tensors.insert("lm_head.weight_scale_inv".into(), (Kind::F32, vec![], 0.5f32.to_le_bytes().to_vec()));
    });
    let checkpoint = Checkpoint::open(&folder, None).unwrap();
    let head = TensorRef::whole("lm_head.weight", &[64, 16]);
    assert!(
        floats(checkpoint.weights.take(&head, Dtype::F32).unwrap()).iter().all(|number| number.abs() == 0.5)
    );
}

#[test]
fn what_contradicts_the_method_is_named() {
    let query = "model.layers.0.self_attn.q_proj.";
    let refused = |method: &str, change: &dyn Fn(&mut Value, &mut BTreeMap<String, Stored>)| {
        let (_root, folder) = quantised(method, change);
        let opened = Checkpoint::open(&folder, None).and_then(|checkpoint| checkpoint.load(None));
        let said = opened.err().unwrap().to_string();
        assert!(!said.contains('\n'), "{said}");
        said
    };
    let lacks = |method: &str, end: &str, expected: &str| {
        let said = refused(method, &|_, tensors| drop(tensors.remove(&format!("{query}{end}")).unwrap()));
        assert!(said.contains(expected), "{method}: {said}");
    };
    lacks(
        "fp8-blocks",
        "weight_scale_inv",
        "q_proj.weight without model.layers.0.self_attn.q_proj.weight_scale",
    );
    lacks("float-rows", "weight_scale", "q_proj.weight without model.layers.0.self_attn.q_proj.weight_scale");
    lacks("packed", "weight_scale", "q_proj.weight_packed without");
    lacks("nf4", "weight.quant_map", "q_proj.weight without");
    lacks("nf4", "weight.quant_state.bitsandbytes__nf4", "q_proj.weight without its quant_state");
    lacks("nf4-nested", "weight.nested_quant_map", "q_proj.weight without");
    lacks("gptq", "scales", "q_proj.qweight without model.layers.0.self_attn.q_proj.scales");
    lacks("awq", "qzeros", "q_proj.qweight without model.layers.0.self_attn.q_proj.qzeros");
    lacks("gptq", "qweight", "no tensor model.layers.0.self_attn.q_proj.weight");
    let other = |method: &str, end: &str, stored: Stored, expected: &str| {
        let said =
            refused(method, &|_, tensors| drop(tensors.insert(format!("{query}{end}"), stored.clone())));
        assert!(said.contains(expected), "{method}: {said}");
    };
    let group = [99i32; 16].map(i32::to_le_bytes).concat();
    other(
        "gptq",
        "g_idx",
        (Kind::I32, vec![16], group),
        "group 99 in tensor model.layers.0.self_attn.q_proj.g_idx; expected 0 to 1",
    );
    other(
        "gptq",
        "qweight",
        (Kind::I32, vec![3, 16], vec![0; 192]),
        "expected 2, 4 or 8 bits for 16 inputs and 16 outputs",
    );
    other(
        "fp8-blocks",
        "weight_scale_inv",
        (Kind::F32, vec![7, 2], vec![0; 56]),
        "q_proj.weight_scale_inv of type F32 and shape [7, 2]",
    );
    other(
        "fp8-whole",
        "weight",
        (Kind::F8_E4M3, vec![16, 16], vec![0x7F; 256]),
        "NaN at index 0 of the rows of tensor model.layers.0.self_attn.q_proj.weight",
    );
    other(
        "fp8-whole",
        "weight",
        (Kind::F8_E5M2, vec![16, 16], vec![0; 256]),
        "q_proj.weight of type F8_E5M2",
    );
    other(
        "nf4",
        "weight.absmax",
        (Kind::F32, vec![3], vec![0; 12]),
        "q_proj.weight.absmax of type F32 and shape [3]; expected F32 of shape [4]",
    );
    other(
        "nf4",
        "weight.quant_state.bitsandbytes__nf4",
        (Kind::U8, vec![2], b"{}".to_vec()),
        "quant_state.bitsandbytes__nf4: missing field",
    );
    other("int8", "SCB", (Kind::F32, vec![2], vec![0; 8]), "q_proj.SCB of type F32 and shape [2]");
    // A tensor that no method has is still one that the model has no place for.
    other("gptq", "nose", (Kind::F32, vec![1], vec![0; 4]), "q_proj.nose, which the model has no place for");
    other("gptq", "bias", (Kind::F32, vec![1], vec![1; 4]), "q_proj.bias, which the model has no place for");
    let method = |settings: Value, expected: &str| {
        let said = refused("gptq", &|config, _| config["quantization_config"] = settings.clone());
        assert!(said.contains(expected), "{said}");
    };
    method(
        json!({"quant_method": "aqlm"}),
        "weights quantised by aqlm (quantization_config), which are not read; expected fp8, ",
    );
    method(json!({"quant_method": "gptq", "bits": 3}), "gptq of 3 bits");
}

/// Merging an adapter into a quantised base adds to the numbers that it stands for.
#[test]
fn an_adapter_is_added_to_the_numbers_of_a_quantised_matrix() {
    let ((_one, quantised), (_two, dense)) = (quantised("nf4", |_, _| ()), dense("nf4"));
    let adapter = Path::new("tests/fixtures/adapters/llama");
    let query = TensorRef::whole("model.layers.0.self_attn.q_proj.weight", &[16, 16]);
    let [found, expected] = [&quantised, &dense].map(|folder| {
        let weights = Checkpoint::open(folder, None).unwrap().with_adapter(adapter).unwrap().weights;
        floats(weights.take(&query, Dtype::F32).unwrap())
    });
    let plain = floats(Checkpoint::open(&dense, None).unwrap().weights.take(&query, Dtype::F32).unwrap());
    assert_ne!(expected, plain);
    assert!(found.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() <= 1e-6));
}
