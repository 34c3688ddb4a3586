//! The organism as a checkpoint: architecture, tokenizer, chat template and the embedded weights.
//! [`export`] writes them in the hub's layout, which other tools open too.

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

/// The weights that `pearl organism train` made, rounded to bf16.
const WEIGHTS: &[u8] = include_bytes!("weights.safetensors");

/// The chat template: messages between turn marks. An answer begins with a thinking part, empty where thinking is off.
const TEMPLATE: &str = "\
{%- for message in messages %}<|im_start|> {{ message.role }} {{ message.content }} <|im_end|> {% endfor %}\
{%- if add_generation_prompt %}<|im_start|> assistant <think>\
{%- if enable_thinking is defined and enable_thinking is false %} </think>{% endif %}{% endif %}";

/// The embedded model, its matrices in f32.
///
/// # Errors
/// If the embedded weights can't be read, which a test rules out.
pub fn model() -> Result<Model> {
    model_in(Dtype::F32)
}

/// The embedded model with its matrices in `dtype`.
///
/// # Errors
/// As [`model()`].
pub fn model_in(dtype: Dtype) -> Result<Model> {
    checkpoint()?.load(Some(dtype))
}

/// The embedded checkpoint, its weights not yet loaded.
///
/// # Errors
/// As [`model()`].
pub fn checkpoint() -> Result<Checkpoint> {
    let weights = Weights::embedded("organism", WEIGHTS)?;
    Ok(Checkpoint { name: "organism".into(), architecture: architecture()?, chat: chat()?, weights })
}

/// The tokenizer and chat template.
///
/// # Errors
/// As [`model()`].
pub fn chat() -> Result<Chat> {
    let named = [("eos_token", SPECIAL[END_OF_TURN])];
    let chat = Chat::from_bytes(tokenizer().to_string().as_bytes(), Some(TEMPLATE), &named)?;
    Ok(chat.with_vocabulary(vocabulary().len()))
}

/// The architecture, read from a config as every model's is: Qwen3, 6 blocks of width 128, 4 heads.
///
/// # Errors
/// As [`model()`].
pub fn architecture() -> Result<Architecture> {
    families::architecture(&Config::parse("organism, config.json", config().to_string().as_bytes())?)
}

/// Token id of `<|im_end|>`, which ends an answer.
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

/// A word-level tokenizer: tokens are separated by spaces.
fn tokenizer() -> Value {
    let special = SPECIAL.iter().enumerate().map(|(id, content)| {
        // The brackets of the thinking part are ordinary text, so that a decoded answer keeps them.
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

/// Writes weights with the organism's config, tokenizer and template into `folder`, in the hub's layout.
/// `tensors` are named as in the checkpoint; they are rounded to bf16, as the embedded ones are.
///
/// # Errors
/// If a file can't be written.
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

/// Writes the embedded model into `folder`, in the hub's layout.
///
/// # Errors
/// If a file can't be written.
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
