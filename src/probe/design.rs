//! The matrix that a logistic regression is fitted on: dense and standardised, or sparse.
//! It knows nothing of classes or losses: it multiplies, and says how its columns lie to one another.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

/// Widest dense matrix whose columns' products are worth their cost as a preconditioner (width³/3 operations a fit).
const FULL_WIDTH: usize = 1024;

/// What the solver needs of a matrix `[rows, width]`.
pub(super) trait Design: Sync {
    fn rows(&self) -> usize;

    fn width(&self) -> usize;

    /// `X · weightᵀ`, `[rows, heads]`, of weights `[heads, width]`.
    fn forward(&self, weight: ArrayView2<f64>) -> Array2<f64>;

    /// `residualᵀ · X`, `[heads, width]`, of residuals `[rows, heads]`.
    fn backward(&self, residual: ArrayView2<f64>) -> Array2<f64>;

    fn moments(&self) -> &Moments;
}

/// The columns' products with one another: `XᵀX`, or its diagonal alone.
pub(super) enum Moments {
    Full(Array2<f64>),
    Diagonal(Array1<f64>),
}

/// Features of mean 0 and deviation 1 in every column, and the way back to what they were.
pub(super) struct Standardised {
    /// `[rows, width]`.
    values: Array2<f64>,
    mean: Array1<f64>,
    deviation: Array1<f64>,
    moments: Moments,
}

impl Standardised {
    /// Standardises features `[rows, width]`. A column that does not vary beyond rounding becomes 0, so that no
    /// weight falls on it.
    pub(super) fn new(features: ArrayView2<f32>) -> Standardised {
        let rows = features.nrows() as f64;
        let mut values = features.mapv(f64::from);
        let mean = values.sum_axis(Axis(0)) / rows;
        values -= &mean;
        let squares = values.map_axis(Axis(0), |column| column.dot(&column));
        let mut deviation = (squares / rows).mapv(f64::sqrt);
        for ((mut column, deviation), mean) in values.columns_mut().into_iter().zip(&mut deviation).zip(&mean)
        {
            if *deviation <= 1e-10 * mean.abs() {
                column.fill(0.0);
                *deviation = 1.0;
            } else {
                column /= *deviation;
            }
        }
        let moments = if values.ncols() <= FULL_WIDTH {
            Moments::Full(values.t().dot(&values))
        } else {
            Moments::Diagonal(values.map_axis(Axis(0), |column| column.dot(&column)))
        };
        Standardised { values, mean, deviation, moments }
    }

    /// Weights and bias for the features as they were, of weights `[heads, width]` and bias `[heads]` for these.
    pub(super) fn fold_back(
        &self,
        weight: ArrayView2<f64>,
        bias: ArrayView1<f64>,
    ) -> (Array2<f32>, Array1<f32>) {
        let weight = (&weight / &self.deviation).mapv(|w| w as f32);
        // From the weights as they are saved, so that their rounding does not shift the logits of the mean.
        let bias = &bias - &weight.mapv(f64::from).dot(&self.mean);
        (weight, bias.mapv(|b| b as f32))
    }
}

impl Design for Standardised {
    fn rows(&self) -> usize {
        self.values.nrows()
    }

    fn width(&self) -> usize {
        self.values.ncols()
    }

    fn forward(&self, weight: ArrayView2<f64>) -> Array2<f64> {
        self.values.dot(&weight.t())
    }

    fn backward(&self, residual: ArrayView2<f64>) -> Array2<f64> {
        residual.t().dot(&self.values)
    }

    fn moments(&self) -> &Moments {
        &self.moments
    }
}

/// A matrix of zeros and ones, a list of columns a row: which words a text has.
pub(super) struct Presence {
    rows: Vec<Vec<u32>>,
    moments: Moments,
    width: usize,
}

impl Presence {
    /// Takes for each row the columns (below `width`, each at most once) that hold a one.
    pub(super) fn new(rows: Vec<Vec<u32>>, width: usize) -> Presence {
        let mut counts = Array1::zeros(width);
        rows.iter().flatten().for_each(|&column| counts[column as usize] += 1.0);
        Presence { rows, moments: Moments::Diagonal(counts), width }
    }
}

impl Design for Presence {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn forward(&self, weight: ArrayView2<f64>) -> Array2<f64> {
        // A column's weights of all heads side by side: one place in memory for each one of a row. Plain slices,
        // because so short a sum costs less than a view of it.
        let heads = weight.nrows();
        let by_column: Vec<f64> = weight.t().iter().copied().collect();
        let mut logits = Array2::zeros((self.rows.len(), heads));
        let mut sums = vec![0.0; heads];
        for (row, mut logits) in self.rows.iter().zip(logits.rows_mut()) {
            sums.fill(0.0);
            for &column in row {
                let weights = &by_column[column as usize * heads..][..heads];
                sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
            }
            logits.iter_mut().zip(&sums).for_each(|(logit, sum)| *logit = *sum);
        }
        logits
    }

    fn backward(&self, residual: ArrayView2<f64>) -> Array2<f64> {
        let heads = residual.ncols();
        let mut sums = vec![0.0; self.width * heads];
        for (row, residual) in self.rows.iter().zip(residual.rows()) {
            let residual = residual.to_vec();
            for &column in row {
                let sums = &mut sums[column as usize * heads..][..heads];
                sums.iter_mut().zip(&residual).for_each(|(sum, residual)| *sum += residual);
            }
        }
        Array2::from_shape_fn((heads, self.width), |(head, column)| sums[column * heads + head])
    }

    fn moments(&self) -> &Moments {
        &self.moments
    }
}

/// The inverse of `scale · moments + 1`, ready to be multiplied with.
pub(super) enum Inverse {
    /// Lower triangle L of the Cholesky factorisation L·Lᵀ.
    Factor(Array2<f64>),
    Diagonal(Array1<f64>),
}

impl Inverse {
    pub(super) fn new(moments: &Moments, scale: f64) -> Inverse {
        match moments {
            Moments::Full(products) => Inverse::Factor(cholesky(products, scale)),
            Moments::Diagonal(squares) => {
                Inverse::Diagonal(squares.mapv(|square| 1.0 / (scale * square + 1.0)))
            }
        }
    }

    /// Multiplies in place.
    pub(super) fn apply(&self, vector: &mut [f64]) {
        let factor = match self {
            Inverse::Diagonal(scales) => {
                vector.iter_mut().zip(scales).for_each(|(v, scale)| *v *= scale);
                return;
            }
            Inverse::Factor(factor) => factor,
        };
        for row in 0..vector.len() {
            let known = factor.slice(s![row, ..row]).dot(&ArrayView1::from(&vector[..row]));
            vector[row] = (vector[row] - known) / factor[[row, row]];
        }
        for row in (0..vector.len()).rev() {
            vector[row] /= factor[[row, row]];
            let known = vector[row];
            let above = factor.slice(s![row, ..row]);
            vector[..row].iter_mut().zip(above).for_each(|(v, l)| *v -= l * known);
        }
    }
}

/// Of `scale · products + 1`, which is positive definite whatever the products are.
fn cholesky(products: &Array2<f64>, scale: f64) -> Array2<f64> {
    let width = products.nrows();
    let mut factor = Array2::<f64>::zeros((width, width));
    for row in 0..width {
        let (above, mut below) = factor.view_mut().split_at(Axis(0), row);
        let mut this = below.row_mut(0);
        for column in 0..row {
            let known = above.slice(s![column, ..column]).dot(&this.slice(s![..column]));
            this[column] = (scale * products[[row, column]] - known) / above[[column, column]];
        }
        let known = this.slice(s![..row]).dot(&this.slice(s![..row]));
        // At least the one that is added, but for rounding.
        this[row] = (scale * products[[row, row]] + 1.0 - known).max(1e-3).sqrt();
    }
    factor
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn standardises_and_silences_what_does_not_vary() {
        let design = Standardised::new(array![[1.0, 5.1], [3.0, 5.1], [5.0, 5.1]].view());
        let unit = 1.5f64.sqrt();
        assert!(
            (&design.values - &array![[-unit, 0.0], [0.0, 0.0], [unit, 0.0]]).iter().all(|d| d.abs() < 1e-12)
        );
    }

    #[test]
    fn folded_weights_give_the_same_logits() {
        let features = Array2::from_shape_fn((6, 3), |(r, c)| {
            (((r * 7 + c * 3) % 5) as f32 + 40.0) * 10f32.powi(c as i32)
        });
        let design = Standardised::new(features.view());
        let (weight, bias) = (array![[0.3, -2.0, 0.7], [1.0, 0.0, -1.0]], array![0.25, -4.0]);
        let inside = design.forward(weight.view()) + &bias;
        let (weight, bias) = design.fold_back(weight.view(), bias.view());
        let outside = features.dot(&weight.t()) + &bias;
        assert!((inside.mapv(|x| x as f32) - outside).iter().all(|d| d.abs() < 2e-4));
    }

    #[test]
    fn the_inverse_undoes_the_matrix() {
        let x = array![[1.0, 2.0, 0.0], [0.0, 1.0, -1.0], [3.0, 1.0, 1.0], [1.0, 0.0, 2.0]];
        let products = x.t().dot(&x);
        let matrix: Array2<f64> = 0.5 * &products + Array2::<f64>::eye(3);
        let wanted = array![1.0, -2.0, 3.0];
        let mut vector = matrix.dot(&wanted).to_vec();
        Inverse::new(&Moments::Full(products), 0.5).apply(&mut vector);
        assert!(vector.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-12), "{vector:?}");
    }

    #[test]
    fn sparse_products_equal_dense_ones() {
        let sparse = Presence::new(vec![vec![0, 2], vec![], vec![1, 2]], 3);
        let dense = array![[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]];
        let (weight, residual) =
            (array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], array![[1.0, 0.5], [7.0, 7.0], [-1.0, 2.0]]);
        assert_eq!(sparse.forward(weight.view()), dense.dot(&weight.t()));
        assert_eq!(sparse.backward(residual.view()), residual.t().dot(&dense));
    }
}
