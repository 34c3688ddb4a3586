//! Arrays of floats in memory: a type of numbers, bytes, shape and strides in; an array of f32 out; and a file's
//! directions, of one width and one a layer.

use std::collections::BTreeMap;

use ndarray::{ArrayD, Dimension, IxDyn};

use crate::error::{Error, Result};
use crate::model::Site;
use crate::steer::vector::Direction;

/// Numbers of an array in memory: their type, the bytes of all of them, and where they lie.
pub(super) struct Layout<'a> {
    pub number: Number,
    pub bytes: &'a [u8],
    /// Index of the first number.
    pub offset: usize,
    pub shape: &'a [usize],
    /// In numbers.
    pub stride: &'a [usize],
}

/// A type of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Number {
    pub kind: Kind,
    pub big_endian: bool,
}

/// A type of numbers, whatever the order of its bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    F64,
    F32,
    F16,
    Bf16,
}

impl Number {
    pub fn little(kind: Kind) -> Number {
        Number { kind, big_endian: false }
    }

    /// A type as numpy writes it: `<f4`, `>f8`, `f2`.
    pub fn of_numpy(text: &str) -> Option<Number> {
        let (big_endian, rest) = match text.as_bytes().first()? {
            b'>' => (true, &text[1..]),
            b'<' | b'=' | b'|' => (false, &text[1..]),
            _ => (false, text),
        };
        let kind = match rest {
            "f8" | "float64" => Kind::F64,
            "f4" | "float32" => Kind::F32,
            "f2" | "float16" => Kind::F16,
            _ => return None,
        };
        Some(Number { kind, big_endian })
    }

    pub fn size(self) -> usize {
        match self.kind {
            Kind::F64 => 8,
            Kind::F32 => 4,
            Kind::F16 | Kind::Bf16 => 2,
        }
    }

    fn read(self, bytes: &[u8]) -> f32 {
        // In a register, whatever the order: the lowest byte first.
        let mut low = [0; 8];
        low.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        if self.big_endian {
            low[..self.size()].reverse();
        }
        let [a, b, c, d, ..] = low;
        match self.kind {
            Kind::F64 => f64::from_le_bytes(low) as f32,
            Kind::F32 => f32::from_le_bytes([a, b, c, d]),
            Kind::F16 => half::f16::from_le_bytes([a, b]).to_f32(),
            Kind::Bf16 => half::bf16::from_le_bytes([a, b]).to_f32(),
        }
    }
}

impl Layout<'_> {
    /// The array, row-major, as f32.
    ///
    /// # Errors
    /// A shape that reaches beyond the bytes, or that is empty; a number that is not finite.
    pub fn array(&self) -> std::result::Result<ArrayD<f32>, String> {
        let Layout { number, bytes, offset, shape, stride } = self;
        let count = bytes.len() / number.size();
        let total = shape.iter().try_fold(1usize, |total, side| total.checked_mul(*side));
        // Index of the last value, by the strides.
        let reach = shape.iter().zip(*stride).try_fold(*offset, |reach, (side, step)| {
            reach.checked_add(side.saturating_sub(1).checked_mul(*step)?)
        });
        if let (Some(total), true) = (total, stride.contains(&0))
            && total > count
        {
            return Err(format!(
                "an expanded view: shape {shape:?} of {count} stored numbers (`tensor.clone()` before it is saved stores all)"
            ));
        }
        let fits = reach.is_some_and(|reach| reach < count)
            && total.is_some_and(|total| total > 0 && total <= count);
        if shape.len() != stride.len() || !fits {
            return Err(format!(
                "a tensor of shape {shape:?}, strides {stride:?} and offset {offset} beyond its storage"
            ));
        }
        let place = |index: IxDyn| {
            let steps = index.as_array_view().iter().zip(*stride).map(|(i, s)| i * s).sum::<usize>();
            (offset + steps) * number.size()
        };
        let array = ArrayD::from_shape_fn(IxDyn(shape), |index| {
            let at = place(index);
            number.read(&bytes[at..at + number.size()])
        });
        match array.iter().position(|value| !value.is_finite()) {
            None => Ok(array),
            Some(index) => Err(format!("a number that is not finite, at index {index}")),
        }
    }

    /// Strides of an array without gaps, row by row or (`by_columns`) column by column.
    pub fn strides(shape: &[usize], by_columns: bool) -> Vec<usize> {
        let mut step = 1usize;
        let mut next = |side: &usize| {
            let next = step.saturating_mul((*side).max(1));
            std::mem::replace(&mut step, next)
        };
        match by_columns {
            true => shape.iter().map(&mut next).collect(),
            false => {
                let mut strides: Vec<usize> = shape.iter().rev().map(&mut next).collect();
                strides.reverse();
                strides
            }
        }
    }
}

/// Adds the direction of a layer to those of a file at `place`.
///
/// # Errors
/// A site that has a direction already; another width than that of the others.
pub(super) fn insert(
    place: &impl std::fmt::Display,
    directions: &mut BTreeMap<Site, Direction>,
    site: Site,
    direction: Direction,
) -> Result<()> {
    let width = direction.values.len();
    if let Some((first, other)) =
        directions.first_key_value().filter(|(_, other)| other.values.len() != width)
    {
        let found = format!("{width} numbers at {site}, {} at {first}", other.values.len());
        return Err(Error::input(place, found, "directions of one width"));
    }
    match directions.insert(site, direction) {
        Some(_) => Err(Error::input(place, format!("two directions for {site}"), "each layer once")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expanded_view_is_named_with_what_would_be_right() {
        let bytes: Vec<u8> = (1..=4).flat_map(|number| (number as f32).to_le_bytes()).collect();
        let number = Number::little(Kind::F32);
        let read = |shape: &[usize], stride: &[usize]| {
            Layout { number, bytes: &bytes, offset: 0, shape, stride }.array()
        };
        let error = read(&[6, 4], &[0, 1]).unwrap_err();
        assert!(error.starts_with("an expanded view: shape [6, 4] of 4 stored numbers"), "{error}");
        assert!(error.contains("tensor.clone()"), "{error}");
        assert!(read(&[6, 4], &[4, 1]).unwrap_err().contains("beyond its storage"));
        // torch gives a side of one any stride.
        assert_eq!(read(&[1, 4], &[0, 1]).unwrap().into_raw_vec_and_offset().0, [1.0, 2.0, 3.0, 4.0]);
    }
}
