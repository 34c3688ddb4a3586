//! Tensors of gated delta nets in GGUF files: a tensor's place in the hub's checkpoint in, its place in the file out.

use super::row_order::permuted;
use crate::model::weights::{Part, TensorRef};

/// The heads of delta nets, which the order of rows depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct DeltaNames {
    /// Query and key heads.
    pub keys: usize,
    /// Value heads.
    pub values: usize,
    /// Width of a query or key.
    pub key_width: usize,
    /// Width of a value.
    pub value_width: usize,
    /// Whether value heads are in the file in turns of the key heads (Qwen3.5), rather than those of one key head together.
    pub tiled: bool,
}

/// The place of a tensor of `linear_attn`, without the block's prefix; none for those with a name of their own alone.
pub(super) fn delta_tensor(
    delta: DeltaNames,
    leaf: &str,
    place: &TensorRef,
    longest: usize,
) -> Option<TensorRef> {
    let named = |name: &str, place: TensorRef| Some(TensorRef { name: name.into(), ..place });
    let rows = place.shape.first().copied().unwrap_or(0);
    // A tensor that claims more rows than any has is refused for its shape.
    let tiled = |begin: usize, width: usize| match delta.tiled && rows <= longest {
        true => permuted(place.clone(), |row| delta.tiled_row(row, begin, width)),
        false => place.clone(),
    };
    let keys = delta.keys.saturating_mul(delta.key_width).saturating_mul(2);
    match leaf {
        "in_proj_qkvz.weight" => {
            // The hub has them key head by key head, the file one kind after another: queries, keys and values; gates.
            let (&[_, width], Part::Rows(ranges)) = (place.shape.as_slice(), &place.part) else {
                return None;
            };
            let name = if ranges.first()?.start == 0 { "attn_qkv.weight" } else { "attn_gate.weight" };
            Some(TensorRef::whole(name, &[ranges.iter().map(ExactSizeIterator::len).sum(), width]))
        }
        "in_proj_ba.weight" => named("ssm_ba.weight", place.clone()),
        "in_proj_qkv.weight" => named("attn_qkv.weight", tiled(keys, delta.value_width)),
        "in_proj_z.weight" => named("attn_gate.weight", tiled(0, delta.value_width)),
        "in_proj_b.weight" => named("ssm_beta.weight", tiled(0, 1)),
        "in_proj_a.weight" => named("ssm_alpha.weight", tiled(0, 1)),
        "conv1d.weight" => named("ssm_conv1d.weight", tiled(keys, delta.value_width)),
        "A_log" => named("ssm_a", tiled(0, 1)),
        "dt_bias" => named("ssm_dt.bias", tiled(0, 1)),
        _ => None,
    }
}

impl DeltaNames {
    /// The row in the file of a row on the hub, where rows of values, `width` a head, begin at `begin`.
    fn tiled_row(&self, row: usize, begin: usize, width: usize) -> usize {
        let Some(row_of_values) = row.checked_sub(begin) else { return row };
        let (head, within) = (row_of_values / width.max(1), row_of_values % width.max(1));
        let served = (self.values / self.keys.max(1)).max(1);
        begin + (head % served * self.keys + head / served) * width + within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_heads_are_found_in_turns_of_the_key_heads() {
        let delta = DeltaNames { keys: 2, values: 6, key_width: 1, value_width: 2, tiled: true };
        // On the hub 0 1 2 are of the first key head and 3 4 5 of the second; in the file 0 3 1 4 2 5.
        let found: Vec<usize> = (0..6).map(|head| delta.tiled_row(head, 0, 1)).collect();
        assert_eq!(found, [0, 2, 4, 1, 3, 5]);
        // Queries and keys stay; the second head's two rows follow the fourth's.
        assert_eq!([3, 4, 6, 7].map(|row| delta.tiled_row(row, 4, 2)), [3, 4, 8, 9]);
        let place = TensorRef::whole("in_proj_qkvz.weight", &[1, 3]);
        assert_eq!(delta_tensor(delta, "in_proj_qkvz.weight", &place, 9), None);
    }
}
