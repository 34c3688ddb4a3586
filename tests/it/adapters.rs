//! LoRA adapters: the merged model computes what peft's adapted model computes (`tests/fixtures/adapters/make.py`), and what can't be
//! merged is refused in one line.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use pearlpoint::Result;
use pearlpoint::model::families::{self, Config};
use pearlpoint::model::weights::Adapter;
use pearlpoint::model::{Decoder, Dtype, Weights};

use crate::model::{error, tokens};

fn adapted(base: &str, adapter: &Path) -> Result<Decoder> {
    let folder = Path::new("tests/fixtures/families").join(base);
    let config = Config::parse("config.json", &std::fs::read(folder.join("config.json")).unwrap())?;
    let weights = Weights::open(&folder)?.with_adapter(Adapter::open(adapter)?)?;
    let decoder = Decoder::build(families::architecture(&config)?, |place| weights.take(place, Dtype::F32))?;
    weights.refuse_extra(|name| decoder.architecture().ignores(name))?;
    Ok(decoder)
}

#[test]
fn a_merged_adapter_computes_what_peft_computes() {
    for (name, base) in
        [("llama", "llama"), ("llama-stabilised", "llama"), ("gpt2", "gpt2"), ("glm4", "glm4")]
    {
        let folder = Path::new("tests/fixtures/adapters").join(name);
        let expected =
            candle_core::safetensors::load(folder.join("expected.safetensors"), &Device::Cpu).unwrap();
        let ids: Vec<u32> = expected["ids"].to_dtype(DType::U32).unwrap().to_vec1().unwrap();
        let every: Vec<usize> = (0..ids.len()).collect();
        let logits = |decoder: Decoder| -> Tensor {
            decoder.forward(&tokens(std::slice::from_ref(&ids)), None, &every, &mut ()).unwrap()
        };
        let found = logits(adapted(base, &folder).unwrap());
        assert!(error(&found, &expected["logits"]) <= 1e-5, "{name}");
        let plain = logits(crate::model::decoder(&format!("families/{base}")));
        assert!(error(&plain, &expected["logits"]) > 1e-2, "{name}: the adapter changes nothing");
    }
}

#[test]
fn an_adapter_that_cannot_be_merged_is_refused_by_what_it_has() {
    let source = Path::new("tests/fixtures/adapters/llama");
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(source.join("adapter_config.json")).unwrap()).unwrap();
    let said = |base: &str, key: &str, value: serde_json::Value| {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config.clone();
        config[key] = value;
        std::fs::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
        std::fs::copy(
            source.join("adapter_model.safetensors"),
            folder.path().join("adapter_model.safetensors"),
        )
        .unwrap();
        adapted(base, folder.path()).map_or_else(|error| error.to_string(), |_| "fine".into())
    };
    for (key, value, expected) in [
        ("peft_type", "IA3".into(), "peft_type is IA3; expected LORA"),
        ("use_dora", true.into(), "use_dora is true"),
        ("bias", "all".into(), "bias is \"all\""),
        ("modules_to_save", serde_json::json!(["lm_head"]), "modules_to_save is [\"lm_head\"]"),
        ("init_lora_weights", "pissa".into(), "init_lora_weights is \"pissa\""),
        ("alpha_pattern", serde_json::json!({"^a$": 3}), "alpha_pattern has \"^a$\""),
        ("lora_alpha", "much".into(), "lora_alpha is \"much\""),
    ] {
        let said = said("llama", key, value);
        assert!(said.contains(expected) && !said.contains('\n'), "{key}: {said}");
    }
    // Another base model: its matrices have other names, or other shapes.
    let other = said("gpt2", "r", 3.into());
    assert!(other.contains("which no matrix of the model has a place for"), "{other}");
    let other = said("llama-linear", "r", 3.into());
    assert!(other.contains("expected one that fits the matrix of"), "{other}");
}
