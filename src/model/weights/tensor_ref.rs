//! References to tensors of a checkpoint: name, shape, and the part that is used.

use std::borrow::Cow;
use std::ops::Range;

use crate::error::{Error, Result};

/// A tensor that a model takes from a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorRef {
    /// Name in the checkpoint.
    pub name: String,
    /// Shape of the whole tensor in the file.
    pub shape: Vec<usize>,
    /// The part that is used.
    pub part: Part,
}

/// The part of a tensor that is used.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// All of it.
    Whole,
    /// These rows, concatenated. The rows of `[experts, out, in]` are those of `[experts × out, in]`; the rows of a vector are its
    /// elements.
    Rows(Vec<Range<usize>>),
    /// These columns of a matrix that is stored `[in, out]` (GPT-2's `Conv1D`), transposed to `[out, in]`.
    Columns(Range<usize>),
    /// Every so many columns of one matrix of a tensor `[matrices, in, out]`, transposed; or such elements of one row of
    /// `[rows, elements]` (gpt-oss, where gate and up are in turn).
    Strided {
        /// Index of the matrix or row.
        matrix: usize,
        /// The first column.
        first: usize,
        /// Distance from one to the next.
        step: usize,
    },
    /// Every matrix of a tensor `[matrices, in, out]`, transposed, on top of each other: `[matrices × out, in]`.
    Transposed,
}

impl TensorRef {
    /// A whole tensor.
    pub fn whole(name: impl Into<String>, shape: &[usize]) -> TensorRef {
        TensorRef { name: name.into(), shape: shape.to_vec(), part: Part::Whole }
    }

    /// Some rows of a tensor, in the order given.
    pub fn rows(
        name: impl Into<String>,
        shape: &[usize],
        rows: impl IntoIterator<Item = Range<usize>>,
    ) -> TensorRef {
        let part = Part::Rows(rows.into_iter().collect());
        TensorRef { name: name.into(), shape: shape.to_vec(), part }
    }

    /// Some columns of a matrix that is stored `[in, out]`, transposed.
    pub fn columns(name: impl Into<String>, shape: [usize; 2], columns: Range<usize>) -> TensorRef {
        TensorRef { name: name.into(), shape: shape.to_vec(), part: Part::Columns(columns) }
    }

    /// Whether it is a norm's weight or a bias. Vectors are always f32: they are small, and sensitive to rounding.
    pub fn is_vector(&self) -> bool {
        self.part_shape().len() < 2
    }

    /// Shape of the part.
    pub fn part_shape(&self) -> Vec<usize> {
        match (&self.part, self.shape.as_slice()) {
            (Part::Whole, shape) => shape.to_vec(),
            (Part::Rows(rows), []) | (Part::Rows(rows), [_]) => vec![count(rows)],
            (Part::Rows(rows), [.., width]) => vec![count(rows), *width],
            (Part::Columns(columns), shape) => vec![columns.len(), shape.first().copied().unwrap_or(0)],
            (Part::Transposed, &[matrices, inputs, outputs]) => vec![matrices * outputs, inputs],
            (Part::Transposed, shape) => shape.to_vec(),
            (&Part::Strided { first, step, .. }, [_, inputs, all]) => {
                vec![all.saturating_sub(first).div_ceil(step.max(1)), *inputs]
            }
            (&Part::Strided { first, step, .. }, shape) => {
                vec![shape.last().map_or(0, |all| all.saturating_sub(first).div_ceil(step.max(1)))]
            }
        }
    }

    /// Elements of one row.
    pub(super) fn row_width(&self) -> usize {
        match self.shape.as_slice() {
            [] | [_] => 1,
            [.., width] => *width,
        }
    }

    /// Checks that the part lies within the shape.
    ///
    /// # Errors
    /// Rows or columns outside the shape.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |range: &Range<usize>, what: &str, end: usize| {
            let found = format!("{what} {range:?} of tensor {}", self.name);
            Error::input("the family's tensors", found, format!("some within 0..{end}"))
        };
        match &self.part {
            Part::Whole => Ok(()),
            Part::Rows(rows) => {
                let end = match self.shape.as_slice() {
                    [count] => *count,
                    shape => shape[..shape.len().max(1) - 1].iter().product(),
                };
                let outside = rows.iter().find(|range| range.start > range.end || range.end > end);
                outside.map_or(Ok(()), |range| Err(wrong(range, "rows", end)))
            }
            Part::Columns(columns) => match self.shape.as_slice() {
                [_, end] if columns.start <= columns.end && columns.end <= *end => Ok(()),
                shape => Err(wrong(columns, "columns", shape.get(1).copied().unwrap_or(0))),
            },
            Part::Transposed if self.shape.len() == 3 => Ok(()),
            Part::Transposed => Err(wrong(&(0..self.shape.len()), "sides", 3)),
            &Part::Strided { matrix, .. } => match self.shape.first() {
                Some(&count) if matrix < count && (2..4).contains(&self.shape.len()) => Ok(()),
                count => Err(wrong(&(matrix..matrix + 1), "matrices", count.copied().unwrap_or(0))),
            },
        }
    }
}

/// A tensor's name in the text model alone, where the checkpoint has it inside a model for images or sound as well.
pub(in crate::model) fn text_name(name: &str) -> Cow<'_, str> {
    if let Some(rest) = name.strip_prefix("model.language_model.") {
        return format!("model.{rest}").into();
    }
    name.strip_prefix("language_model.").unwrap_or(name).into()
}

fn count(rows: &[Range<usize>]) -> usize {
    rows.iter().map(Range::len).sum()
}
