//! Norms, cosines and projections of vectors in activation space; f32 in, sums in f64.

use ndarray::ArrayView1;

use crate::error::{Error, Result};

/// Euclidean norm.
pub fn norm(a: ArrayView1<f32>) -> f64 {
    dot(a, a).sqrt()
}

/// Cosine of the angle between two vectors; 0 where one of them is 0.
///
/// # Errors
/// Vectors of different widths.
pub fn cosine(a: ArrayView1<f32>, b: ArrayView1<f32>) -> Result<f64> {
    same_width("cosine", a, b)?;
    let lengths = norm(a) * norm(b);
    Ok(if lengths == 0.0 { 0.0 } else { dot(a, b) / lengths })
}

/// Scalar projection of `a` on `direction`: a · direction / ‖direction‖; 0 where the direction is 0.
///
/// # Errors
/// Vectors of different widths.
pub fn project(a: ArrayView1<f32>, direction: ArrayView1<f32>) -> Result<f64> {
    same_width("projection", a, direction)?;
    let length = norm(direction);
    Ok(if length == 0.0 { 0.0 } else { dot(a, direction) / length })
}

fn dot(a: ArrayView1<f32>, b: ArrayView1<f32>) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn same_width(place: &str, a: ArrayView1<f32>, b: ArrayView1<f32>) -> Result<()> {
    if a.len() == b.len() {
        return Ok(());
    }
    let found = format!("vectors of widths {} and {}", a.len(), b.len());
    Err(Error::input(place, found, "equal widths"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn lengths_and_angles() {
        let (a, b) = (array![3.0f32, 4.0], array![2.0f32, 0.0]);
        assert_eq!(norm(a.view()), 5.0);
        assert_eq!(cosine(a.view(), b.view()).unwrap(), 0.6);
        assert_eq!(project(a.view(), b.view()).unwrap(), 3.0);
        assert_eq!(project(b.view(), a.view()).unwrap(), 1.2);
        assert_eq!(cosine(a.view(), array![0.0f32, 0.0].view()).unwrap(), 0.0);
        assert!(cosine(a.view(), array![1.0f32].view()).is_err());
    }
}
