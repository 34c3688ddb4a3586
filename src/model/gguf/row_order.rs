//! Orders of rows that conversions to GGUF change: a part of a tensor on the hub in, the same rows of the file out.

use std::ops::Range;

use crate::model::weights::{Part, TensorRef};

/// Permutes rows: row `r` is at `to(r)` in the file.
pub(super) fn permuted(place: TensorRef, to: impl Fn(usize) -> usize) -> TensorRef {
    let total = place.shape.first().copied().unwrap_or(0);
    let wanted: Vec<usize> = match &place.part {
        Part::Whole => (0..total).collect(),
        Part::Rows(rows) => rows.iter().cloned().flatten().collect(),
        Part::Columns(_) | Part::Strided { .. } | Part::Transposed => return place,
    };
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for row in wanted.into_iter().map(to) {
        match ranges.last_mut() {
            Some(last) if last.end == row => last.end += 1,
            _ => ranges.push(row..row + 1),
        }
    }
    TensorRef { part: Part::Rows(ranges), ..place }
}

/// Row in the layout of adjacent pairs, from the layout of two halves.
pub(super) fn interleaved(row: usize, rows: usize, heads: usize) -> usize {
    let half = (rows / heads.max(1) / 2).max(1);
    let (head, within) = (row / (2 * half), row % (2 * half));
    2 * half * head + 2 * (within % half) + within / half
}

/// Row in the layout of all queries, all keys, all values, from the layout head by head.
pub(super) fn split_by_kind(row: usize, rows: usize, heads: usize) -> usize {
    let width = (rows / heads.max(1) / 3).max(1);
    let (head, which, within) = (row / (3 * width), row / width % 3, row % width);
    (which * heads + head) * width + within
}
