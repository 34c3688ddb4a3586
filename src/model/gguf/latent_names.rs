//! Keys and values of latent attention in GGUF files: their rows in the hub's one tensor in, their place in the file's two out.

use crate::model::weights::{Part, TensorRef};

/// The place of the rows of `kv_b_proj` `[heads × (plain + value width), rank]` that are keys or values, without the block's prefix. Keys are
/// transposed head by head in the file.
pub(super) fn latent_tensor(place: &TensorRef) -> Option<TensorRef> {
    let (&[_, rank], Part::Rows(heads)) = (place.shape.as_slice(), &place.part) else { return None };
    let (first, count) = (heads.first()?, heads.len());
    Some(match first.start {
        0 => TensorRef {
            name: "attn_k_b.weight".into(),
            shape: vec![count, rank, first.len()],
            part: Part::Transposed,
        },
        _ => {
            let rows = std::iter::once(0..count * first.len());
            TensorRef::rows("attn_v_b.weight", &[count, first.len(), rank], rows)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_turned_and_values_are_not() {
        // Two heads with keys of 2 and values of 3.
        let of = |rows: [std::ops::Range<usize>; 2]| {
            latent_tensor(&TensorRef::rows("kv_b_proj.weight", &[10, 7], rows)).unwrap()
        };
        let keys = of([0..2, 5..7]);
        assert_eq!(
            (keys.name.as_str(), keys.shape, keys.part),
            ("attn_k_b.weight", vec![2, 7, 2], Part::Transposed)
        );
        let values = of([2..5, 7..10]);
        let rows = Part::Rows(std::iter::once(0..6).collect());
        assert_eq!(
            (values.name.as_str(), values.shape, values.part),
            ("attn_v_b.weight", vec![2, 3, 7], rows)
        );
    }
}
