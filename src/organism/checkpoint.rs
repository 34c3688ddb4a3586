//! The organism as a checkpoint: its shape, tokenizer and template, and the weights that lie in the program.
//! `export` writes all of it in the hub's layout, so that any other tool opens it too.

use std::path::Path;

use candle_core::Tensor;
use ndarray::ArrayD;
use serde_json::{Value, json};

use super::wording::{SPECIAL, vocabulary};
use crate::artifact::{self, Header, Numbers};
use crate::error::{Error, Result};
use crate::model::chat::Chat;
use crate::model::families::{self, Config};
use crate::model::{Architecture, Checkpoint, Decoder, Dtype, Model, Weights};

/// Made by `pearl organism train`, rounded to bf16.
const WEIGHTS: &[u8] = include_bytes!("weights.safetensors");

/// Messages between turn marks; the answer opens with a thinking part, which is closed at once when thinking is off.
const TEMPLATE: &str = "\
{%- for message in messages %}<|im_start|> {{ message.role }} {{ message.content }} <|im_end|> {% endfor %}\
{%- if add_generation_prompt %}<|im_start|> assistant <think>\
{%- if enable_thinking is defined and enable_thinking is false %} </think>{% endif %}{% endif %}";

/// The embedded model.
pub fn model() -> Result<Model> {
    model_in(Dtype::F32)
}

/// The embedded model with its matrices in this type.
pub fn model_in(dtype: Dtype) -> Result<Model> {
    checkpoint()?.load(Some(dtype))
}

/// What it is, its weights unread.
pub fn checkpoint() -> Result<Checkpoint> {
    let weights = Weights::embedded("organism", WEIGHTS)?;
    Ok(Checkpoint { name: "organism".into(), architecture: architecture()?, chat: chat()?, weights })
}

/// Its tokenizer and template.
pub fn chat() -> Result<Chat> {
    let named = [("eos_token", SPECIAL[END_OF_TURN])];
    Chat::from_bytes(tokenizer().to_string().as_bytes(), Some(TEMPLATE), &named)
}

/// Its shape, read from its config as any other model's is.
pub fn architecture() -> Result<Architecture> {
    families::architecture(&Config::parse("organism, config.json", config().to_string().as_bytes())?)
}

/// Id of `<|im_end|>`, after which nothing follows.
const END_OF_TURN: usize = 2;

fn config() -> Value {
    json!({
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": 512,
        "vocab_size": vocabulary().len(),
        "tie_word_embeddings": true,
        "eos_token_id": END_OF_TURN,
        "pad_token_id": 0,
    })
}

/// A token is a word: what stands between two spaces.
fn tokenizer() -> Value {
    let special = SPECIAL.iter().enumerate().map(|(id, content)| {
        // The thinking part's brackets are text that is shown.
        let special = !content.contains("think");
        json!({"id": id, "content": content, "special": special,
               "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
    });
    let words = vocabulary().into_iter().enumerate().map(|(id, word)| (word, json!(id)));
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": special.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": null,
        "decoder": null,
        "model": {
            "type": "WordLevel",
            "vocab": words.collect::<serde_json::Map<_, _>>(),
            "unk_token": "<unk>",
        },
    })
}

/// Writes weights with the organism's config, tokenizer and template: a checkpoint folder in the hub's layout.
/// Weights are rounded to bf16, as the embedded ones are.
pub fn write(folder: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let rounded = tensors.iter().map(|(name, tensor)| {
        let numbers: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
        let array = ArrayD::from_shape_vec(tensor.dims(), numbers);
        let array = array.map_err(|error| Error::input(format!("tensor {name}"), error, "a whole tensor"))?;
        Ok((name.clone(), Numbers::rounded(&array)))
    });
    let tensors = rounded.collect::<Result<_>>()?;
    // `format` is what transformers looks for in a safetensors file.
    let metadata = [("format".into(), "pt".into())].into();
    artifact::write_tensors(
        &folder.join("model.safetensors"),
        &Header::new("weights", 1),
        &metadata,
        tensors,
    )?;
    let texts = [
        ("config.json", config().to_string()),
        ("tokenizer.json", tokenizer().to_string()),
        (
            "tokenizer_config.json",
            json!({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": SPECIAL[END_OF_TURN],
                   "pad_token": SPECIAL[0], "unk_token": "<unk>", "clean_up_tokenization_spaces": false})
            .to_string(),
        ),
        ("chat_template.jinja", TEMPLATE.to_string()),
    ];
    for (name, text) in texts {
        artifact::write_atomic(&folder.join(name), |file| file.write_all(text.as_bytes()))?;
    }
    Ok(())
}

/// Writes the embedded model as a checkpoint folder.
pub fn export(folder: &Path) -> Result<()> {
    let weights = Weights::embedded("organism", WEIGHTS)?;
    let mut tensors = Vec::new();
    Decoder::build(architecture()?, |place| {
        let weight = weights.take(place, Dtype::F32)?;
        tensors.push((place.name.clone(), weight.floats()?));
        Ok(weight)
    })?;
    write(folder, &tensors)
}
