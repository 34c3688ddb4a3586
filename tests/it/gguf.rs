//! Models in GGUF files against the checkpoints that they were made from (`tests/fixtures/gguf/make.py`): activations,
//! tokens, and broken files.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{Device, Tensor};
use pearlpoint::dialogue::{Dialogue, Message, Role};
use pearlpoint::model::{Chat, Checkpoint, Decoder, Dtype, Model, Site, families, gguf};

use crate::model::{Keep, error, expected, tokens};

const FOLDER: &str = "tests/fixtures/gguf";

/// Made from `tests/fixtures/families/NAME`, in types that hold its numbers exactly.
const WHOLE: [&str; 52] = [
    "llama",
    "llama-linear",
    "llama-yarn",
    "llama3",
    "llama3-wide",
    "qwen2",
    "qwen3",
    "qwen3-single",
    "qwen3_moe",
    "gemma2",
    "gemma3",
    "phi3",
    "phi3-long",
    "olmo2",
    "gpt2",
    "gpt_neox",
    "gpt_neox-serial",
    "mixtral",
    "ministral3",
    "granite",
    "granite-bias",
    "granitemoe",
    "granitemoe-single",
    "qwen2_moe",
    "seed_oss",
    "seed_oss-bias",
    "phimoe",
    "olmo3",
    "olmoe",
    "olmoe-clipped",
    "glm4",
    "glm4-single",
    "glm4_moe",
    "glm4_moe-groups",
    "gpt_oss",
    "gpt_oss-mxfp4",
    "cohere",
    "cohere-normed",
    "stablelm",
    "stablelm-parallel",
    "glm",
    "glm-whole",
    "deepseek_v2",
    "deepseek_v2-groups",
    "deepseek_v3",
    "qwen3_next",
    "qwen3_5",
    "qwen3_5_moe",
    "gemma3n-plain",
    "gemma4",
    "gemma4-moe",
    "llama4-plain",
];

/// Made from `tests/fixtures/NAME`, with most matrices quantised.
const QUANTISED: [(&str, &str); 3] = [("llama", "q8_0"), ("qwen3", "q4_0"), ("qwen3", "q5_0")];

pub(crate) fn decoder(path: &Path, dtype: Option<Dtype>) -> Decoder {
    let gguf::Parts { config, weights, .. } = gguf::open(path).unwrap();
    let architecture = families::architecture(&config).unwrap();
    let decoder = Decoder::build(architecture, |place| weights.take(place, dtype)).unwrap();
    weights.refuse_extra(|name| decoder.architecture().ignores(name)).unwrap();
    decoder
}

/// Activations at every site.
pub(crate) fn run(decoder: &Decoder, rows: &[Vec<u32>]) -> BTreeMap<Site, Tensor> {
    let mut keep = Keep::default();
    decoder.forward(&tokens(rows), None, &[], &mut keep).unwrap();
    keep.0.into_iter().map(|(site, mut kept)| (site, kept.remove(0))).collect()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

#[test]
fn every_family_computes_what_its_checkpoint_computes() {
    for name in WHOLE {
        let expected = expected(&format!("families/{name}"));
        let found = run(&decoder(&fixture(&format!("{name}.gguf")), None), &expected.rows());
        for (site, expected) in &expected.sites {
            let error = error(&found[site], expected);
            assert!(error <= 1e-4, "{name} {site}: {error}");
        }
    }
}

/// llama.cpp leaves every fourth block of SmolLM3 unrotated and of Cohere 2 without a window, which its files don't say; so does
/// a config that doesn't.
#[test]
fn patterns_that_files_do_not_say_are_those_of_the_family() {
    for (name, key) in [("smollm3", "no_rope_layers"), ("cohere2", "layer_types")] {
        let hub = format!("families/{name}");
        let (_root, folder) = crate::checkpoints::changed(&hub, |config, _| {
            config[key] = serde_json::Value::Null;
        });
        let rows = expected(&hub).rows();
        let expected = crate::checkpoints::states(&folder, &rows);
        let found = run(&decoder(&fixture(&format!("{name}.gguf")), None), &rows);
        for (site, expected) in &expected {
            let error = error(&found[site], expected);
            assert!(error <= 1e-4, "{name} {site}: {error}");
        }
    }
}

/// The experts of gpt-oss stay in their blocks, as `pearl inspect` says.
#[test]
fn experts_in_mxfp4_are_kept_so() {
    let checkpoint = Checkpoint::open(&fixture("gpt_oss-mxfp4.gguf"), None).unwrap();
    let said = checkpoint.weights.would_keep(None);
    assert_eq!(said, "mxfp4");
    assert_eq!(checkpoint.load(None).unwrap().dtype, said);
}

#[test]
fn blocks_compute_what_the_numbers_they_stand_for_compute() {
    for (name, kind) in QUANTISED {
        let path = fixture(&format!("{name}.{kind}.gguf"));
        let rows = expected(name).rows();
        let sites = candle_core::safetensors::load(path.with_extension("safetensors"), &Device::Cpu).unwrap();
        let [blocks, wide] = [None, Some(Dtype::F32)].map(|dtype| run(&decoder(&path, dtype), &rows));
        let rounded = run(&decoder(&path, Some(Dtype::Bf16)), &rows);
        for (site, expected) in sites {
            let site = site.parse().unwrap();
            for found in [&blocks, &wide] {
                let error = error(&found[&site], &expected);
                assert!(error <= 1e-4, "{name} {kind} {site}: {error}");
            }
            // With AMX, f32 matrices are multiplied in bf16; quantised ones are not.
            let apart = error(&blocks[&site], &wide[&site]);
            assert!(apart <= 3e-5, "{name} {kind} {site}: {apart}");
            let rounded = error(&rounded[&site], &expected);
            assert!(rounded > 0.0 && rounded <= 3e-2, "{name} {kind} {site}: {rounded}");
        }
    }
    let model = Model::open(&fixture("qwen3.q5_0.gguf"), None).unwrap();
    assert_eq!(model.dtype, "q5_0");
    assert_eq!(Model::open(&fixture("qwen3.q5_0.gguf"), Some(Dtype::F16)).unwrap().dtype, "f16");
}

/// K-quants (blocks of 256), quantised by candle: one model with one matrix of each type.
#[test]
fn types_may_be_mixed_in_one_model() {
    let folder = tempfile::tempdir().unwrap();
    let (width, heads) = (256, 4);
    let kinds =
        [GgmlDType::Q4K, GgmlDType::Q5K, GgmlDType::Q6K, GgmlDType::Q8_0, GgmlDType::Q4_1, GgmlDType::Q5_1];
    let matrices = [
        ("token_embd", 40, GgmlDType::Q6K),
        ("blk.0.attn_q", width, kinds[0]),
        ("blk.0.attn_k", width, kinds[1]),
        ("blk.0.attn_v", width, kinds[2]),
        ("blk.0.attn_output", width, kinds[3]),
        ("blk.0.ffn_gate", width, kinds[4]),
        ("blk.0.ffn_up", width, kinds[5]),
        ("blk.0.ffn_down", width, GgmlDType::F16),
        ("blk.1.attn_q", width, GgmlDType::Q2K),
        ("blk.1.attn_k", width, GgmlDType::Q3K),
        ("blk.1.attn_v", width, GgmlDType::Q8_0),
        ("blk.1.attn_output", width, GgmlDType::Q8_0),
        ("blk.1.ffn_gate", width, GgmlDType::Q3K),
        ("blk.1.ffn_up", width, GgmlDType::Q2K),
        ("blk.1.ffn_down", width, GgmlDType::Q3K),
    ];
    let mut tensors: Vec<(String, QTensor)> = Vec::new();
    let mut wide: HashMap<String, Tensor> = HashMap::new();
    for (name, rows, kind) in matrices {
        let random = Tensor::randn(0f32, 0.06, (rows, width), &Device::Cpu).unwrap();
        let blocks = QTensor::quantize(&random, kind).unwrap();
        wide.insert(format!("{name}.weight"), blocks.dequantize(&Device::Cpu).unwrap());
        tensors.push((format!("{name}.weight"), blocks));
    }
    let block = |number: usize| {
        ["attn_norm", "ffn_norm", "attn_q_norm", "attn_k_norm"].map(|name| format!("blk.{number}.{name}"))
    };
    for name in std::iter::once("output_norm".to_owned()).chain((0..2).flat_map(block)) {
        let width =
            if name.ends_with("_q_norm") || name.ends_with("_k_norm") { width / heads } else { width };
        let ones = Tensor::ones(width, candle_core::DType::F32, &Device::Cpu).unwrap();
        wide.insert(format!("{name}.weight"), ones.clone());
        tensors.push((format!("{name}.weight"), QTensor::quantize(&ones, GgmlDType::F32).unwrap()));
    }
    let write = |name: &str, tensors: &[(String, QTensor)]| {
        let number = |number: usize| gguf_file::Value::U32(number as u32);
        let text = |text: &str| gguf_file::Value::String(text.into());
        let list = |texts: Vec<String>| gguf_file::Value::Array(texts.iter().map(|one| text(one)).collect());
        let pairs = [
            ("general.architecture", text("qwen3")),
            ("qwen3.block_count", number(2)),
            ("qwen3.context_length", number(64)),
            ("qwen3.embedding_length", number(width)),
            ("qwen3.feed_forward_length", number(width)),
            ("qwen3.attention.head_count", number(heads)),
            ("qwen3.attention.layer_norm_rms_epsilon", gguf_file::Value::F32(1e-6)),
            ("tokenizer.ggml.model", text("gpt2")),
            ("tokenizer.ggml.pre", text("qwen2")),
            ("tokenizer.ggml.tokens", list((0..40).map(|n| char::from(b'A' + n).to_string()).collect())),
            ("tokenizer.ggml.merges", gguf_file::Value::Array(Vec::new())),
        ];
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (*key, value)).collect();
        let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let path = folder.path().join(name);
        gguf_file::write(&mut std::fs::File::create(&path).unwrap(), &pairs, &tensors).unwrap();
        path
    };
    let plain: Vec<(String, QTensor)> = tensors
        .iter()
        .map(|(name, _)| (name.clone(), QTensor::quantize(&wide[name], GgmlDType::F32).unwrap()))
        .collect();
    let (blocks, plain) = (write("blocks.gguf", &tensors), write("plain.gguf", &plain));
    // A type that is not read is named when the file is opened, not when its weights are.
    let mut bytes = std::fs::read(&blocks).unwrap();
    let name = b"blk.0.attn_q.weight";
    let entry = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len();
    bytes[entry + 20..][..4].copy_from_slice(&16u32.to_le_bytes());
    let unread = folder.path().join("unread.gguf");
    std::fs::write(&unread, bytes).unwrap();
    let refused = Checkpoint::open(&unread, None).err().unwrap().to_string();
    assert!(
        refused.contains("tensor blk.0.attn_q.weight of type IQ2_XXS; expected F32, F16, BF16, F64, Q4_0"),
        "{refused}"
    );
    let rows = [vec![1, 5, 39, 7, 0], vec![2; 30]];
    let [blocks, plain] = [&blocks, &plain].map(|path| run(&decoder(path, None), &rows));
    for (site, expected) in &plain {
        let error = error(&blocks[site], expected);
        assert!(error <= 3e-5, "{site}: {error}");
    }
}

#[test]
fn the_tokenizer_and_the_template_are_those_of_the_checkpoint() {
    let texts = [
        "how may a friend rest today",
        "  two  spaces,\n\n\ttabs and\r\nlines ",
        "ünder 12345 moons: 三日月 🌙 don't, WE'LL",
        "<|im_start|>user\nhi<|im_end|>\n<think> a </think>",
        "",
    ];
    for (name, kind) in QUANTISED {
        let hub = Chat::from_folder(Path::new("tests/fixtures").join(name), None).unwrap();
        let own = gguf::open(&fixture(&format!("{name}.{kind}.gguf"))).unwrap().chat;
        assert_eq!(own.template(), hub.template());
        assert!(hub.eos().iter().all(|id| own.eos().contains(id)));
        let messages = texts.map(|text| Message::new(Role::User, text));
        let rounds =
            messages.iter().cloned().flat_map(|user| [user, Message::new(Role::Assistant, "the friend")]);
        let mut dialogues: Vec<Vec<Message>> =
            messages.iter().cloned().map(|message| vec![message]).collect();
        dialogues.push(rounds.collect());
        for messages in dialogues {
            for add in [false, true] {
                let [own, hub] = [&own, &hub].map(|chat| chat.render(&messages, add, None).unwrap());
                assert_eq!(own, hub);
            }
            let dialogue = Dialogue::new("0", messages);
            let [own, hub] = [&own, &hub].map(|chat| chat.tokens(&dialogue, 0, None).unwrap());
            assert_eq!(own, hub);
        }
        for ids in [vec![5, 90, 200], vec![1, 260, 2], (5..288).collect()] {
            assert_eq!(own.decode(&ids, true).unwrap(), hub.decode(&ids, true).unwrap());
        }
    }
}

#[test]
fn a_folder_with_one_file_is_that_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("qwen3.q4_0.gguf"), folder.path().join("model.gguf")).unwrap();
    assert_eq!(Model::open(folder.path(), None).unwrap().dtype, "q4_0");
    std::fs::copy(fixture("qwen3.q5_0.gguf"), folder.path().join("other.GGUF")).unwrap();
    let error = Model::open(folder.path(), None).err().unwrap().to_string();
    assert!(error.contains("2 GGUF files; expected one, or the path of one"), "{error}");
}

fn opened(bytes: &[u8]) -> Result<Model, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    let opened = Model::open(&path, None).map_err(|error| error.to_string());
    opened.inspect_err(|error| assert!(!error.contains('\n'), "{error}"))
}

#[test]
fn a_file_that_was_cut_short_is_an_error() {
    let whole = std::fs::read(fixture("qwen3.q4_0.gguf")).unwrap();
    opened(&whole).unwrap();
    let lengths = (0..64).chain((64..whole.len()).step_by(211)).chain(whole.len() - 40..whole.len() - 32);
    for length in lengths {
        let error = opened(&whole[..length]).err().unwrap();
        assert!(error.contains("model.gguf"), "{length}: {error}");
    }
}

#[test]
fn what_metadata_says_wrong_is_an_error_that_names_it() {
    let whole = std::fs::read(fixture("qwen3.q4_0.gguf")).unwrap();
    let at = |key: &str| {
        let place = whole.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
        // The type of the value stands between.
        place + key.len() + 4
    };
    let number = |key: &str, number: u32, expected: &str| {
        let mut bytes = whole.clone();
        bytes[at(key)..][..4].copy_from_slice(&number.to_le_bytes());
        let error = opened(&bytes).err().unwrap();
        assert!(error.contains(expected), "{key}: {error}");
    };
    number("qwen3.block_count", u32::MAX, "num_hidden_layers");
    number("qwen3.block_count", 9_999, "no more blocks than tensors");
    number("qwen3.block_count", 3, "no tensor blk.2.");
    number("qwen3.embedding_length", 31, "shape");
    number("qwen3.embedding_length", 0, "hidden_size");
    number("qwen3.attention.head_count", 1 << 30, "");
    number("qwen3.attention.head_count_kv", 3, "heads");
    number("qwen3.attention.key_length", 13, "as wide as keys");
    number("tokenizer.ggml.eos_token_id", 99_999, "tokenizer.ggml.eos_token_id is 99999");
    // What JSON can't hold doesn't become a default.
    for float in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for key in ["qwen3.rope.freq_base", "qwen3.attention.layer_norm_rms_epsilon"] {
            number(key, float.to_bits(), &format!("{key} is {float}; expected a finite number"));
        }
    }
    number("qwen3.rope.dimension_count", 99, "qwen3.rope.dimension_count: 99; expected at most ");
    number("qwen3.rope.freq_base", (-1f32).to_bits(), "rope_theta is -1.0; expected a number above 0");
    let text = |key: &str, length: usize, text: &str, expected: &str| {
        let mut bytes = whole.clone();
        bytes[at(key) + 8..][..length].copy_from_slice(text.as_bytes());
        let error = opened(&bytes).err().unwrap();
        assert!(error.contains(expected), "{key}: {error}");
    };
    text("general.architecture", 5, "mamba", "general.architecture \"mamba\"");
    text("tokenizer.ggml.pre", 5, "gpt-9", "tokenizer.ggml.pre \"gpt-9\"");
    text("tokenizer.ggml.model", 4, "gpt3", "tokenizer.ggml.model \"gpt3\"");
    // An infinite scale in the first block of a matrix.
    let data = whole.len() - 64;
    let mut bytes = whole.clone();
    bytes[data..].fill(0xFF);
    let error = opened(&bytes).err().unwrap();
    assert!(error.contains("NaN at index"), "{error}");
}

#[test]
fn any_changed_byte_is_an_error_or_no_harm() {
    for name in ["qwen3.q4_0", "deepseek_v3", "qwen3_5_moe", "gemma3n-plain", "gemma4-moe", "llama4-plain"] {
        let whole = std::fs::read(fixture(&format!("{name}.gguf"))).unwrap();
        let header = whole.len() - 20_000;
        for at in (0..header).step_by(97).chain(0..200) {
            for byte in [0, 0xFF, whole[at] ^ 0x10] {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                let _ = opened(&bytes);
            }
        }
    }
}

#[test]
fn what_the_metadata_of_mixed_blocks_says_wrong_is_an_error_that_names_it() {
    for (name, key, number, expected) in [
        ("deepseek_v2-groups", "deepseek2.rope.scaling.yarn_log_multiplier", 0, "a number beside yarn"),
        (
            "deepseek_v3",
            "deepseek2.rope.dimension_count",
            99,
            "deepseek2.rope.dimension_count: 99, of keys 10 wide",
        ),
        ("deepseek_v3", "deepseek2.attention.kv_lora_rank", 7, "shape"),
        ("deepseek_v3", "deepseek2.expert_gating_func", 3, "deepseek2.expert_gating_func"),
        ("qwen3_5", "qwen35.ssm.time_step_rank", 5, "heads of equal width"),
        ("qwen3_5", "qwen35.ssm.group_count", 0, "heads of equal width"),
        ("qwen3_5", "qwen35.block_count", u32::MAX, "qwen35.block_count"),
        ("qwen3_next", "qwen3next.ssm.state_size", u32::MAX, "linear_key_head_dim"),
        ("gemma3n-plain", "gemma3n.altup.num_inputs", 3, "shape"),
        ("gemma3n-plain", "gemma3n.block_count", 4, "gemma3n.attention.sliding_window_pattern"),
        ("gemma4-moe", "gemma4.attention.value_length_swa", 5, "values as wide as keys"),
        ("gemma4-moe", "gemma4.expert_used_count", 9, "no more than there are experts"),
        ("llama4-plain", "llama4.interleave_moe_layer_step", 1, "no tensor blk.0.ffn_gate_inp.weight"),
    ] {
        let mut bytes = std::fs::read(fixture(&format!("{name}.gguf"))).unwrap();
        let place = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
        // The type of the value stands between.
        bytes[place + key.len() + 4..][..4].copy_from_slice(&number.to_le_bytes());
        let error = opened(&bytes).err().unwrap();
        assert!(error.contains(expected), "{name}, {key}: {error}");
    }
}
