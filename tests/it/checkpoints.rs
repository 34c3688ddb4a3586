//! Checkpoints as people have them: which files are the weights, which head counts, models without a head, and files that
//! change while they are read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use pearlpoint::model::{Checkpoint, Model, Site};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::cli::{one_line, pearl};
use crate::model::{Keep, error, expected, families, tokens};

const FIXTURES: &str = "tests/fixtures";

/// Files of the small Qwen3 checkpoint besides its weights.
const COMPANIONS: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

/// A tensor of a file: type, shape and bytes.
pub(crate) type Stored = (safetensors::Dtype, Vec<usize>, Vec<u8>);

pub(crate) fn read(path: &Path) -> BTreeMap<String, Stored> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let stored = |view: TensorView| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    file.tensors().into_iter().map(|(name, view)| (name, stored(view))).collect()
}

/// A copy of a fixture with its config and its tensors changed, and with a tokenizer of enough tokens.
pub(crate) fn changed(
    name: &str,
    change: impl FnOnce(&mut Value, &mut BTreeMap<String, Stored>),
) -> (tempfile::TempDir, PathBuf) {
    let (root, from) = (tempfile::tempdir().unwrap(), Path::new(FIXTURES).join(name));
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap();
    let mut tensors = read(&from.join("model.safetensors"));
    change(&mut config, &mut tensors);
    std::fs::write(root.path().join("config.json"), config.to_string()).unwrap();
    let views: Vec<(&String, TensorView)> = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()))
        .collect();
    safetensors::serialize_to_file(views, None, &root.path().join("model.safetensors")).unwrap();
    for file in COMPANIONS {
        let own = from.join(file);
        let from = if own.is_file() { own } else { Path::new(FIXTURES).join("qwen3").join(file) };
        std::fs::copy(from, root.path().join(file)).unwrap();
    }
    let path = root.path().to_owned();
    (root, path)
}

/// Activations at every site, for rows of token ids.
pub(crate) fn states(folder: &Path, rows: &[Vec<u32>]) -> BTreeMap<Site, Tensor> {
    let model = Model::open(folder, None).unwrap();
    let mut keep = Keep::default();
    model.decoder.forward(&tokens(rows), None, &[], &mut keep).unwrap();
    keep.0.into_iter().map(|(site, mut kept)| (site, kept.remove(0))).collect()
}

/// The rows of a matrix in reverse.
fn reversed(stored: &Stored) -> Stored {
    let (dtype, shape, bytes) = stored;
    let row = bytes.len() / shape[0];
    (*dtype, shape.clone(), bytes.chunks(row).rev().flatten().copied().collect())
}

/// transformers 5.24 does not tie a head whose values differ from the embedding's. With the rows of the embedding in
/// reverse as its head, the logits are those of the tied model in reverse.
#[test]
fn a_head_of_its_own_counts_whatever_the_config_says_in_every_family() {
    let mut tried = 0;
    for name in families() {
        let config = std::fs::read(Path::new(FIXTURES).join(&name).join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        let gemma = config["model_type"].as_str().unwrap().starts_with("gemma");
        if !config["tie_word_embeddings"].as_bool().unwrap_or(gemma) || name.contains("bert") {
            continue;
        }
        tried += 1;
        let neox = config["model_type"] == "gpt_neox";
        let head = if neox { "embed_out.weight" } else { "lm_head.weight" };
        let embedding = |tensors: &BTreeMap<String, Stored>| {
            let ends = ["embed_tokens.weight", "wte.weight", "embed_in.weight"];
            tensors.iter().find(|(name, _)| ends.iter().any(|end| name.ends_with(end))).unwrap().1.clone()
        };
        let expected = expected(&name);
        let logits = &expected.sites[&Site::Logits];
        let columns: Vec<u32> = (0..logits.dims()[1] as u32).rev().collect();
        let in_reverse = logits.index_select(&Tensor::new(columns, &Device::Cpu).unwrap(), 1).unwrap();
        let with = |change: fn(&Stored) -> Stored| {
            let (_root, folder) = changed(&name, |_, tensors| {
                let stored = change(&embedding(tensors));
                tensors.insert(head.into(), stored);
            });
            states(&folder, &expected.rows())
        };
        let other = with(reversed);
        let apart = error(&other[&Site::Logits], &in_reverse);
        assert!(apart <= 1e-4, "{name}: {apart}");
        let copied = with(Clone::clone);
        let apart = error(&copied[&Site::Logits], logits);
        assert!(apart <= 1e-4, "{name}, a copy: {apart}");
        // The head alone, without the embedding: tied the other way.
        let (_root, folder) = changed(&name, |_, tensors| {
            let stored = embedding(tensors);
            tensors.retain(|_, other| *other != stored);
            tensors.insert(head.into(), stored);
        });
        let apart = error(&states(&folder, &expected.rows())[&Site::Logits], logits);
        assert!(apart <= 1e-4, "{name}, the head alone: {apart}");
    }
    assert!(tried >= 10, "{tried}");
}

/// Bare models, classifiers and reward models: hidden states as those of the whole model, and no logits.
#[test]
fn models_without_a_head_are_read_and_do_not_generate() {
    for (name, class, bare, head) in [
        ("families/qwen3", "Qwen3Model", true, None),
        ("families/qwen3", "Qwen3Model", false, None),
        ("families/llama", "LlamaForSequenceClassification", false, Some("score.weight")),
        ("families/gemma2", "Gemma2ForSequenceClassification", false, Some("score.weight")),
        ("families/gpt2", "GPT2ForTokenClassification", false, Some("classifier.weight")),
        ("families/gpt_neox", "GPTNeoXModel", true, None),
        ("families/mistral", "MistralRewardModel", false, Some("v_head.summary.weight")),
        ("qwen3", "Qwen3Model", true, Some("score.weight")),
    ] {
        let expected = expected(name);
        let (_root, folder) = changed(name, |config, tensors| {
            config["architectures"] = json!([class]);
            tensors.remove("lm_head.weight");
            tensors.remove("embed_out.weight");
            if bare {
                let strip = |name: String| name.split_once('.').unwrap().1.to_owned();
                *tensors =
                    std::mem::take(tensors).into_iter().map(|(name, stored)| (strip(name), stored)).collect();
            }
            if let Some(head) = head {
                tensors.insert(head.into(), (safetensors::Dtype::F32, vec![1, 2], vec![0; 8]));
            }
        });
        let found = states(&folder, &expected.rows());
        for (site, expected) in expected.sites.iter().filter(|(site, _)| **site != Site::Logits) {
            let apart = error(&found[site], expected);
            assert!(apart <= 1e-4, "{name} as {class}, {site}: {apart}");
        }
        assert!(!found.contains_key(&Site::Logits), "{class}");
        let folder = folder.display().to_string();
        one_line(
            &["generate", "--model", &folder, "--prompt", "a"],
            &["no vocabulary head", "for reading only", "a checkpoint with a head"],
        );
    }
    // From the command line, to a store.
    let (root, folder) = changed("qwen3", |config, tensors| {
        config["architectures"] = json!(["Qwen3Model"]);
        let strip = |name: String| name.split_once('.').unwrap().1.to_owned();
        *tensors = std::mem::take(tensors).into_iter().map(|(name, stored)| (strip(name), stored)).collect();
    });
    let (folder, out) = (folder.display().to_string(), root.path().join("store").display().to_string());
    let data = "tests/fixtures/dialogues.jsonl";
    pearl(&["extract", "--model", &folder, "--data", data, "--out", &out, "--sites", "*.resid_post"])
        .assert()
        .success();
}

/// A folder of Qwen3 with these files in place of its weights.
fn folder_of(files: &[(&str, &[u8])]) -> (tempfile::TempDir, String) {
    let root = tempfile::tempdir().unwrap();
    let from = Path::new(FIXTURES).join("qwen3");
    for file in COMPANIONS.into_iter().chain(["config.json"]) {
        std::fs::copy(from.join(file), root.path().join(file)).unwrap();
    }
    files.iter().for_each(|(name, bytes)| std::fs::write(root.path().join(name), bytes).unwrap());
    let path = root.path().display().to_string();
    (root, path)
}

const POINTER: &[u8] =
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0000000000000000000000000000000000000000000000000000000000000000\nsize 123\n";

#[test]
fn weights_of_other_kinds_are_named_with_the_way_to_convert_them() {
    for (files, expected) in [
        (&["pytorch_model.bin"][..], &["pytorch_model.bin, a pickle of PyTorch", "save_pretrained"][..]),
        (
            &["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"],
            &["pytorch_model-00001-of-00001.bin, a pickle"],
        ),
        (&["consolidated.safetensors", "params.json"], &["Mistral's own layout", "model.safetensors"]),
        (&["consolidated.00.pth"], &["Meta's own layout", "model.safetensors"]),
        (
            &["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
            &["2 parts without model.safetensors.index.json"],
        ),
        (
            &["adapter_config.json", "adapter_model.safetensors"],
            &["an adapter for another model", "merge_and_unload"],
        ),
        (
            &["model.fp16.safetensors"],
            &["model.fp16.safetensors, under a name", "model.safetensors, so named"],
        ),
        (&["tf_model.h5"], &["tf_model.h5, weights of another library"]),
        (&[], &["model.safetensors: no such file"]),
        (&["training_args.bin"], &["model.safetensors: no such file"]),
    ] {
        let files: Vec<(&str, &[u8])> = files.iter().map(|name| (*name, &b"x"[..])).collect();
        let (root, folder) = folder_of(&files);
        one_line(&["inspect", &folder], expected);
        one_line(&["generate", "--model", &folder, "--prompt", "a"], expected);
        // An adapter's folder has no config of the model.
        std::fs::remove_file(root.path().join("config.json")).unwrap();
        let expected = if files.is_empty() || files[0].0 == "training_args.bin" {
            &["no model there"]
        } else {
            expected
        };
        one_line(&["inspect", &folder], expected);
    }
    // Beside weights, transformers would apply an adapter.
    let model = std::fs::read(Path::new(FIXTURES).join("qwen3/model.safetensors")).unwrap();
    let (_root, folder) = folder_of(&[("model.safetensors", &model), ("adapter_config.json", b"{}")]);
    one_line(&["inspect", &folder], &["an adapter for another model"]);
}

#[test]
fn a_pointer_of_git_lfs_is_named_wherever_a_file_is_expected() {
    for name in
        ["model.safetensors", "config.json", "tokenizer.json", "model.safetensors.index.json", "model.gguf"]
    {
        let model = std::fs::read(Path::new(FIXTURES).join("qwen3/model.safetensors")).unwrap();
        let with_model = ["config.json", "tokenizer.json"].contains(&name);
        let mut files: Vec<(&str, &[u8])> = vec![(name, POINTER)];
        if with_model {
            files.push(("model.safetensors", &model));
        }
        let (_root, folder) = folder_of(&files);
        one_line(&["inspect", &folder], &[name, "a pointer of Git LFS", "git lfs pull"]);
    }
}

#[test]
fn quantised_tensors_are_named_where_the_config_is_silent() {
    for name in [
        "model.layers.0.self_attn.q_proj.qweight",
        "model.layers.0.mlp.up_proj.weight_scale",
        "model.layers.0.mlp.up_proj.weight.absmax",
    ] {
        let (_root, folder) = changed("families/llama", |_, tensors| {
            tensors.remove("model.layers.0.self_attn.q_proj.weight");
            tensors.insert(name.into(), (safetensors::Dtype::F32, vec![2], vec![0; 8]));
        });
        let found = Checkpoint::open(&folder, None).err().unwrap().to_string();
        assert!(
            found.contains(&format!("tensor {name} of quantised weights, which are not read")),
            "{found}"
        );
    }
}

/// The tokens of transformers 5.24, where a Mistral config with `layer_types` is Ministral's.
#[test]
fn a_mistral_with_layer_types_is_ministral() {
    let expected = expected("families/ministral");
    let (_root, folder) = changed("families/ministral", |config, _| config["model_type"] = json!("mistral"));
    let found = states(&folder, &expected.rows());
    for (site, expected) in &expected.sites {
        let apart = error(&found[site], expected);
        assert!(apart <= 1e-4, "{site}: {apart}");
    }
}

/// A model of 400 MB without content, so that it takes a while to hash it: it is cut short as soon as it is mapped.
#[cfg(target_os = "linux")]
#[test]
fn a_model_that_is_cut_short_while_it_is_read_is_one_line_and_exit_code_2() {
    use std::io::Write;

    let (root, folder) = folder_of(&[]);
    let rows = 4_000_000usize;
    let mut tensors = read(&Path::new(FIXTURES).join("qwen3/model.safetensors"));
    let (name, width) = tensors
        .iter()
        .find(|(name, _)| name.ends_with("embed_tokens.weight"))
        .map(|(name, (_, shape, _))| (name.clone(), shape[1]))
        .unwrap();
    tensors.remove(&name);
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(Path::new(&folder).join("config.json")).unwrap()).unwrap();
    config["vocab_size"] = json!(rows);
    std::fs::write(Path::new(&folder).join("config.json"), config.to_string()).unwrap();
    let (mut table, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, (_, shape, bytes)) in &tensors {
        let begin = data.len();
        data.extend(bytes);
        let dtype = if bytes.len() == shape.iter().product::<usize>() * 2 { "BF16" } else { "F32" };
        table.insert(
            name.clone(),
            json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]}),
        );
    }
    let end = data.len() + rows * width * 2;
    table.insert(name, json!({"dtype": "BF16", "shape": [rows, width], "data_offsets": [data.len(), end]}));
    let table = Value::Object(table).to_string();
    let path = root.path().join("model.safetensors");
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&(table.len() as u64).to_le_bytes()).unwrap();
    file.write_all(table.as_bytes()).unwrap();
    file.write_all(&data).unwrap();
    file.set_len((8 + table.len() + end) as u64).unwrap();
    let program = pearl(&[]).get_program().to_owned();
    let child = std::process::Command::new(program)
        .args(["inspect", "--hash", &folder])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let maps = format!("/proc/{}/maps", child.id());
    while !std::fs::read_to_string(&maps).is_ok_and(|maps| maps.contains("model.safetensors")) {
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
    // The table of tensors is read by then.
    std::thread::sleep(std::time::Duration::from_millis(20));
    file.set_len(100_000).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{:?}: {said}", output.status);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("model.safetensors: the file was cut short while it was read"), "{said}");
    assert!(output.stdout.is_empty());
}

/// The bytes of some tensors one after another, of a shape.
fn joined(parts: &[Stored], shape: Vec<usize>) -> Stored {
    let bytes = parts.iter().flat_map(|(.., bytes)| bytes.iter().copied()).collect();
    (parts[0].0, shape, bytes)
}

/// The models that transformers 5 loads with all experts of a block in one tensor, as the hub has Qwen3.5's, are read so as well; and
/// those in one tensor, as it has Gemma 4's, one by one.
#[test]
fn experts_are_read_from_one_tensor_and_from_many() {
    for name in ["families/qwen3_5_moe", "families/qwen3_moe", "families/deepseek_v3", "families/olmoe"] {
        let expected = expected(name);
        let (_root, folder) = changed(name, |_, tensors| {
            let heads: Vec<String> = tensors
                .keys()
                .filter_map(|name| Some(name.strip_suffix(".experts.0.down_proj.weight")?.to_owned()))
                .collect();
            assert!(!heads.is_empty());
            for head in heads {
                let (mut first, mut last, mut count) = (Vec::new(), Vec::new(), 0);
                let one = |number: usize, which: &str| format!("{head}.experts.{number}.{which}_proj.weight");
                while let Some(gate) = tensors.remove(&one(count, "gate")) {
                    first.extend([gate, tensors.remove(&one(count, "up")).unwrap()]);
                    last.push(tensors.remove(&one(count, "down")).unwrap());
                    count += 1;
                }
                let (hidden, width) = (first[0].1[0], first[0].1[1]);
                tensors.insert(
                    format!("{head}.experts.gate_up_proj"),
                    joined(&first, vec![count, 2 * hidden, width]),
                );
                tensors
                    .insert(format!("{head}.experts.down_proj"), joined(&last, vec![count, width, hidden]));
            }
        });
        for (site, found) in states(&folder, &expected.rows()) {
            let apart = error(&found, &expected.sites[&site]);
            assert!(apart <= 1e-4, "{name} {site}: {apart}");
        }
    }
}

/// Text models inside models for images or sound: names behind a prefix, the config in `text_config`, and towers that are ignored.
#[test]
fn a_text_model_is_read_out_of_a_model_for_images_too() {
    for (name, whole, prefix, towers) in [
        (
            "gemma3n",
            "gemma3n",
            "model.language_model.",
            &["model.vision_tower.a.weight", "model.audio_tower.b.weight"][..],
        ),
        (
            "gemma4",
            "gemma4",
            "model.language_model.",
            &["model.embed_vision.a.weight", "model.embed_audio.b.weight"],
        ),
        ("gemma4-moe", "gemma4", "model.language_model.", &["model.vision_tower.a.weight"]),
        ("qwen3_5", "qwen3_5", "model.language_model.", &["model.visual.a.weight"]),
        ("qwen3_5_moe", "qwen3_5_moe", "model.language_model.", &["model.visual.a.weight"]),
        (
            "llama4",
            "llama4",
            "language_model.model.",
            &["vision_model.a.weight", "multi_modal_projector.b.weight"],
        ),
    ] {
        let expected = expected(&format!("families/{name}"));
        let (_root, folder) = changed(&format!("families/{name}"), |config, tensors| {
            let tied = config["tie_word_embeddings"].clone();
            *config = json!({"model_type": whole, "text_config": config.clone(), "vision_config": {"depth": 1},
                             "architectures": ["AForConditionalGeneration"], "tie_word_embeddings": tied});
            let renamed = |name: String| match (name.strip_prefix("model."), prefix) {
                (Some(rest), prefix) => format!("{prefix}{rest}"),
                (None, "language_model.model.") => format!("language_model.{name}"),
                (None, _) => name,
            };
            let stored = tensors.values().next().unwrap().clone();
            *tensors =
                std::mem::take(tensors).into_iter().map(|(name, stored)| (renamed(name), stored)).collect();
            tensors.extend(towers.iter().map(|&name| (name.to_owned(), stored.clone())));
        });
        for (site, found) in states(&folder, &expected.rows()) {
            let apart = error(&found, &expected.sites[&site]);
            assert!(apart <= 1e-4, "{name} {site}: {apart}");
        }
    }
}

/// Of Gemma 3 with a tower for images, transformers gives the product with the head, without the text model's cap.
#[test]
fn the_logits_of_a_model_for_images_have_no_cap_of_its_text_model() {
    let name = "families/gemma3-wrapped";
    let expected = expected(name);
    let (_root, folder) =
        changed(name, |config, _| config["text_config"]["final_logit_softcapping"] = json!(2.0));
    let apart = error(&states(&folder, &expected.rows())[&Site::Logits], &expected.sites[&Site::Logits]);
    assert!(apart <= 1e-4, "{apart}");
}

/// A checkpoint is checked before it is loaded: what is made then of each tensor is one zero in its shape.
#[test]
fn every_family_is_loaded_as_a_checkpoint() {
    for name in families() {
        let expected = expected(&name);
        let (_root, folder) = changed(&name, |_, _| ());
        for (site, found) in states(&folder, &expected.rows()) {
            let apart = error(&found, &expected.sites[&site]);
            assert!(apart <= 1e-4, "{name} {site}: {apart}");
        }
    }
}
