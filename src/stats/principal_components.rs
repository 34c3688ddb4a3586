//! Principal components by power iteration.

use ndarray::{Array1, Array2, ArrayView2};

/// The first eigenvector of `rowsᵀ rows`, of length 1, by power iteration from `start`: of centred rows `[row, width]`, their first
/// principal component. Zero where every row is.
pub fn principal_component(rows: ArrayView2<f64>, start: &Array1<f64>) -> Array1<f64> {
    const STEPS: usize = 2000;
    let unit = |v: Array1<f64>| {
        let length = v.dot(&v).sqrt();
        if length > 0.0 { v / length } else { v }
    };
    // A little of every coordinate, in case the start is orthogonal to the eigenvector.
    let offset = start.dot(start).sqrt() * 1e-3 / (start.len() as f64).sqrt();
    let mut v = unit(start + offset);
    for _ in 0..STEPS {
        let next = unit(rows.t().dot(&rows.dot(&v)));
        let moved = &next - &v;
        v = next;
        if moved.dot(&moved) < 1e-24 {
            break;
        }
    }
    v
}

/// The first `count` principal components of centred rows `[row, width]`, or as many as there are, each with the coordinates of the
/// rows along it. A component's largest coordinate is positive.
pub fn principal_components(mut rows: Array2<f64>, count: usize) -> Vec<(Array1<f64>, Array1<f64>)> {
    let square = |row: &ndarray::ArrayView1<f64>| row.dot(row);
    let mut found = Vec::new();
    for _ in 0..count.min(rows.ncols()).min(rows.nrows()) {
        // From the longest row, which no component of much variance is orthogonal to.
        let longest = rows.rows().into_iter().max_by(|a, b| square(a).total_cmp(&square(b)));
        let Some(start) = longest.map(|row| row.to_owned()) else { break };
        let axis = principal_component(rows.view(), &start);
        let largest = axis.fold(0.0f64, |most, &d| if d.abs() > most.abs() { d } else { most });
        let axis = axis * largest.signum();
        let along = rows.dot(&axis);
        // Without the component, the next one is the first.
        for (mut row, along) in rows.rows_mut().into_iter().zip(&along) {
            row.scaled_add(-along, &axis);
        }
        found.push((axis, along));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn components_by_hand() {
        // A cross about the origin: ±4 along (3, 4, 0)/5, ±1 along z.
        let rows = array![[2.4, 3.2, 0.0], [-2.4, -3.2, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, -1.0]];
        let found = principal_components(rows, 2);
        let expected = [[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]];
        for ((axis, _), expected) in found.iter().zip(expected) {
            assert!(axis.iter().zip(expected).all(|(a, e)| (a - e).abs() < 1e-9), "{axis}");
        }
        let along = array![4.0, -4.0, 0.0, 0.0];
        assert!((&found[0].1 - &along).iter().all(|gap| gap.abs() < 1e-9), "{}", found[0].1);
    }

    #[test]
    fn rows_without_length_have_a_component_of_zero() {
        let found = principal_components(Array2::zeros((3, 2)), 2);
        assert!(found.iter().all(|(axis, along)| axis.iter().chain(along).all(|value| *value == 0.0)));
    }
}
