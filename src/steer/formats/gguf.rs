//! GGUF control vectors of llama.cpp and repeng, read and written: `direction.N` is added to the output of block N,
//! counted from 0.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use ndarray::Array1;

use super::layout::{Kind, Layout, Number, insert};
use crate::artifact::{self, GgufFile, Header};
use crate::error::{Error, Result};
use crate::model::{Point, Site};
use crate::steer::vector::{Direction, Vector};

const KIND: &str = "controlvector";
/// Additional keys of our own files; other tools ignore them.
const METHOD: &str = "pearlpoint.method";
const MODEL: &str = "pearlpoint.model";
const MODEL_HASH: &str = "pearlpoint.model_hash";
const MODEL_FORM: &str = "pearlpoint.model_form";
const NORM: &str = "pearlpoint.residual_norm.";

/// Writes a control vector.
///
/// # Errors
/// A direction at a site that is no block's output, or at block 0, whose `direction.0` llama.cpp refuses.
pub fn write_gguf(path: &Path, header: &Header, vector: &Vector, model_hint: &str) -> Result<()> {
    let mut tensors = Vec::new();
    let mut metadata = vec![
        ("general.architecture".to_string(), Value::String(KIND.into())),
        ("controlvector.model_hint".into(), Value::String(model_hint.into())),
        ("controlvector.layer_count".into(), Value::U32(vector.directions.len() as u32)),
        (METHOD.into(), Value::String(vector.method.clone())),
    ];
    for (key, value) in
        [(MODEL, &header.model), (MODEL_HASH, &header.model_hash), (MODEL_FORM, &header.model_form)]
    {
        metadata.extend(value.iter().map(|value| (key.into(), Value::String(value.clone()))));
    }
    for (site, direction) in &vector.directions {
        let Site::Block(block @ 1.., Point::ResidPost) = *site else {
            let found = "a control vector can't hold it";
            let expected = "directions at resid_post of blocks from 1 on (--sites chooses them)";
            return Err(Error::input(format!("{}, {site}", path.display()), found, expected));
        };
        let values = Tensor::from_slice(&direction.values.to_vec(), direction.values.len(), &Device::Cpu)?;
        tensors.push((format!("direction.{block}"), QTensor::quantize(&values, GgmlDType::F32)?));
        metadata.extend(direction.residual_norm.map(|norm| (format!("{NORM}{block}"), Value::F32(norm))));
    }
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<(&str, &QTensor)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut bytes = Cursor::new(Vec::new());
    gguf_file::write(&mut bytes, &metadata, &tensors)?;
    artifact::write_atomic(path, |file| file.write_all(bytes.get_ref()))
}

/// Reads a control vector; `direction.N` becomes the direction at the output of block `N − shift`.
///
/// # Errors
/// A file that is no control vector; a direction with more than one dimension, of integers or blocks, not finite, or
/// of a block below 0.
pub fn read_gguf(path: &Path, shift: i64) -> Result<(Header, Vector)> {
    let file = GgufFile::open(path)?;
    match file.text("general.architecture")? {
        Some(KIND) => (),
        other => {
            let found = format!("a file of architecture {:?}", other.unwrap_or("none"));
            return Err(file.wrong(found, format!("one of architecture {KIND:?}")));
        }
    }
    // EasySteer's own account of what its directions are.
    if let Some(own) = file.text("controlvector.easysteer")? {
        let own: serde_json::Value = serde_json::from_str(own).unwrap_or_default();
        let component = own["component"].as_str().unwrap_or("hidden_states");
        if component != "hidden_states" {
            let found = format!("directions of {component}");
            return Err(file.wrong(found, "directions of hidden_states, the output of a block"));
        }
    }
    let mut directions = BTreeMap::new();
    for (name, tensor) in file.tensors() {
        let layer: Option<i64> = name.strip_prefix("direction.").and_then(|layer| layer.parse().ok());
        let Some(layer) = layer else {
            return Err(file.wrong(format!("tensor {name}"), "direction.N alone"));
        };
        let block = layer.checked_sub(shift).and_then(|block| usize::try_from(block).ok());
        let block = block
            .ok_or_else(|| file.wrong(format!("{name} with a layer shift of {shift}"), "blocks from 0 on"))?;
        let kind = match tensor.kind.name {
            "F32" => Some(Kind::F32),
            "F16" => Some(Kind::F16),
            "BF16" => Some(Kind::Bf16),
            "F64" => Some(Kind::F64),
            _ => None,
        };
        let (Some(kind), [width] | [1, width]) = (kind, tensor.shape.as_slice()) else {
            let found = format!("{name} of type {} and shape {:?}", tensor.kind.name, tensor.shape);
            return Err(file.wrong(found, "F32, F16, BF16 or F64, and one dimension"));
        };
        let (number, bytes) = (Number::little(kind), file.tensor_bytes(tensor));
        let layout = Layout { number, bytes, offset: 0, shape: &[*width], stride: &[1] };
        let values: Array1<f32> = layout.array().unwrap_or_default().into_iter().collect();
        if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
            return Err(file.wrong(format!("{name} that is empty or not finite"), "finite numbers"));
        }
        let site: Site = format!("{block}.resid_post").parse()?;
        let norm = file.number(&format!("{NORM}{layer}"))?.map(|norm| norm as f32);
        let residual_norm = norm.filter(|norm| norm.is_finite() && *norm > 0.0);
        insert(&path.display(), &mut directions, site, Direction::new(values, residual_norm))?;
    }
    if directions.is_empty() {
        return Err(file.wrong("no direction", "direction.N, at least one"));
    }
    let text = |key: &str| file.text(key).map(|text| text.map(str::to_string));
    let (model, model_hash, model_form) = (text(MODEL)?, text(MODEL_HASH)?, text(MODEL_FORM)?);
    let header = Header { model, model_hash, model_form, ..Header::default() };
    let method = text(METHOD)?.unwrap_or_else(|| "imported from a GGUF control vector".into());
    Ok((header, Vector { method, directions, best: None }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vector(blocks: &[usize], values: &[f32], norm: Option<f32>) -> Vector {
        let direction =
            |block: &usize| Direction::new(values.iter().map(|v| v * *block as f32).collect(), norm);
        let directions = blocks.iter().map(|block| (Site::Block(*block, Point::ResidPost), direction(block)));
        Vector { method: "test".into(), directions: directions.collect(), best: None }
    }

    proptest! {
        #[test]
        fn a_vector_comes_back_as_it_was(values in prop::collection::vec(-9f32..9.0, 1..70), norm in prop::option::of(0.1f32..90.0)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("vector.gguf");
            let vector = vector(&[1, 3, 27], &values, norm);
            let header = Header { model: Some("m".into()), model_hash: Some("h".into()), ..Header::default() };
            write_gguf(&path, &header, &vector, "qwen3").unwrap();
            prop_assert_eq!(read_gguf(&path, 0).unwrap(), (header, vector.clone()));
            // Read as a file of a tool that writes block N as N + 1.
            let shifted = read_gguf(&path, 1).unwrap().1;
            let sites: Vec<String> = shifted.directions.keys().map(Site::to_string).collect();
            prop_assert_eq!(sites, ["0.resid_post", "2.resid_post", "26.resid_post"]);
            prop_assert!(read_gguf(&path, 2).is_err());
        }
    }

    #[test]
    fn sites_that_the_file_can_not_hold_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vector.gguf");
        let zero = write_gguf(&path, &Header::default(), &vector(&[0, 1], &[1.0], None), "llama");
        assert!(zero.unwrap_err().to_string().contains("0.resid_post"));
        let mut inside = vector(&[1], &[1.0], None);
        let direction = inside.directions.values().next().unwrap().clone();
        inside.directions.insert("2.mlp_out".parse().unwrap(), direction);
        assert!(
            write_gguf(&path, &Header::default(), &inside, "llama")
                .unwrap_err()
                .to_string()
                .contains("2.mlp_out")
        );
        assert!(!path.exists());
    }
}
