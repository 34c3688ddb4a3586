//! The matrix that probes are fitted on, dense and standardised or sparse, and the parts of its rows that fits take.
//! It knows nothing of classes or losses: it multiplies, and says roughly how its columns lie to one another.

use faer::Mat;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

use crate::probe::split::Split;

/// Widest matrix whose columns' products (or, with fewer rows than columns, whose rows' products) precondition a fit.
const FULL_WIDTH: usize = 2048;
/// Rows that a thread takes at once: they stay near it while they are used.
const BLOCK: usize = 256;
/// A column that varies less than this share of its size, beyond rounding, does not vary.
const STILL: f64 = 1e-10;

/// What the solver needs of a matrix `[rows, width]`. Numbers are f32: sums over rows lose about 1e-7 of their size, far
/// less than a fit's tolerance, and twice as many fit into a register.
pub(super) trait Design: Sync {
    fn rows(&self) -> usize;

    fn width(&self) -> usize;

    /// `weight · Xᵀ`, `[columns, rows]`, of weights `[columns, width]`.
    fn forward(&self, weight: ArrayView2<f32>) -> Array2<f32>;

    /// `residual · X`, `[columns, width]`, of residuals `[columns, rows]`.
    fn backward(&self, residual: ArrayView2<f32>) -> Array2<f32>;

    /// An approximate inverse of `curvature · XᵀX + 1` over the rows in use, in the memory of the one before it.
    fn inverse(&self, curvature: f64, before: Option<Inverse>) -> Inverse;
}

/// The rows that one fit takes, and how its columns differ from the design's: a column counts as
/// `(column − shift) · scale` there.
pub(super) struct Part {
    /// 1 for a row that is fitted on, 0 for the others.
    pub mask: Vec<f32>,
    pub rows: usize,
    pub shift: Array1<f32>,
    pub scale: Array1<f32>,
}

fn mask(rows: usize, split: &Split) -> Vec<f32> {
    let mut mask = vec![0.0; rows];
    split.fit.iter().for_each(|&row| mask[row] = 1.0);
    mask
}

/// Features of mean 0 and deviation 1 in every column over the rows in use, and the way back to what they were.
pub(super) struct Standardised {
    /// `[rows, width]`, all rows: those that no fit takes are only read.
    values: Array2<f32>,
    mean: Array1<f64>,
    deviation: Array1<f64>,
    moments: Moments,
}

/// Products over the rows in use.
enum Moments {
    /// `XᵀX`.
    Columns(Array2<f32>),
    /// `XXᵀ`.
    Rows(Array2<f32>),
    /// The diagonal of `XᵀX` alone.
    Diagonal(Array1<f32>),
}

impl Standardised {
    /// Standardises features `[rows, width]` by the rows that some fit takes, in place. A column that does not vary
    /// there becomes 0, so that no weight falls on it.
    pub(super) fn new(mut values: Array2<f32>, splits: &[Split]) -> Standardised {
        let mut used = vec![0f32; values.nrows()];
        splits.iter().flat_map(|split| &split.fit).for_each(|&row| used[row] = 1.0);
        let (mean, deviation) = spread(values.view(), &used);
        let scale = deviation.mapv(|deviation| if deviation > 0.0 { 1.0 / deviation } else { 0.0 });
        values.axis_chunks_iter_mut(Axis(0), BLOCK).into_par_iter().for_each(|mut block| {
            for mut row in block.rows_mut() {
                for ((value, mean), scale) in row.iter_mut().zip(&mean).zip(&scale) {
                    *value = ((f64::from(*value) - mean) * scale) as f32;
                }
            }
        });
        let deviation = deviation.mapv(|deviation| if deviation > 0.0 { deviation } else { 1.0 });
        let (rows, width) = values.dim();
        let moments = if width <= FULL_WIDTH {
            Moments::Columns(column_products(values.view(), &used))
        } else if rows <= FULL_WIDTH {
            let mut kept = values.clone();
            used.iter().zip(kept.rows_mut()).for_each(|(&used, mut row)| row *= used);
            let mut products = Array2::zeros((rows, rows));
            product(kept.view(), kept.t(), products.view_mut(), false, Threads::All);
            Moments::Rows(products)
        } else {
            Moments::Diagonal(Array1::from_elem(width, used.iter().sum()))
        };
        Standardised { values, mean, deviation, moments }
    }

    /// The part that a split's fit rows are, standardised by those rows alone.
    pub(super) fn part(&self, split: &Split) -> Part {
        let mask = mask(self.rows(), split);
        let (mean, deviation) = spread(self.values.view(), &mask);
        // The design's columns have deviation 1: what is left of a column here below 1e-5 is rounding.
        let scale = |deviation: &f64| if *deviation > 1e-5 { (1.0 / deviation) as f32 } else { 0.0 };
        Part {
            mask,
            rows: split.fit.len(),
            shift: mean.mapv(|mean| mean as f32),
            scale: deviation.map(scale),
        }
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

    /// `[rows, width]`.
    pub(super) fn values(&self) -> ArrayView2<'_, f32> {
        self.values.view()
    }
}

/// Mean and deviation of every column over the rows whose mask is 1; deviation 0 where a column does not vary.
fn spread(values: ArrayView2<f32>, mask: &[f32]) -> (Array1<f64>, Array1<f64>) {
    let count = mask.iter().map(|&m| f64::from(m)).sum::<f64>().max(1.0);
    let nothing = Array1::zeros(values.ncols());
    let mean = sums(values, mask, &nothing, |value| value) / count;
    let square = sums(values, mask, &mean, |away| away * away) / count;
    let deviation = square.iter().zip(&mean).map(|(square, mean)| {
        let deviation = square.sqrt();
        if deviation <= STILL * mean.abs() { 0.0 } else { deviation }
    });
    let deviation = deviation.collect();
    (mean, deviation)
}

/// Each column's sum of what `term` makes of a value less its column's `from`, over the rows whose mask is 1: block by
/// block, added up in order.
fn sums(
    values: ArrayView2<f32>,
    mask: &[f32],
    from: &Array1<f64>,
    term: impl Fn(f64) -> f64 + Sync,
) -> Array1<f64> {
    let blocks = values.axis_chunks_iter(Axis(0), BLOCK).into_par_iter().zip(mask.par_chunks(BLOCK));
    let blocks = blocks.map(|(block, mask)| {
        let mut sums = Array1::<f64>::zeros(from.len());
        for (row, _) in block.rows().into_iter().zip(mask).filter(|(_, mask)| **mask > 0.0) {
            let sums = sums.iter_mut().zip(row).zip(from);
            sums.for_each(|((sum, &value), from)| *sum += term(f64::from(value) - from));
        }
        sums
    });
    let nothing = Array1::zeros(from.len());
    blocks.collect::<Vec<_>>().into_iter().fold(nothing, |all: Array1<f64>, sums| all + sums)
}

/// `XᵀX` over the rows whose mask is 1.
pub(super) fn column_products(values: ArrayView2<f32>, mask: &[f32]) -> Array2<f32> {
    let width = values.ncols();
    let mut products = Array2::zeros((width, width));
    for (block, mask) in values.axis_chunks_iter(Axis(0), BLOCK).zip(mask.chunks(BLOCK)) {
        let mut kept = block.to_owned();
        mask.iter().zip(kept.rows_mut()).for_each(|(&mask, mut row)| row *= mask);
        product(kept.t(), kept.view(), products.view_mut(), true, Threads::All);
    }
    products
}

#[derive(Clone, Copy, PartialEq)]
enum Threads {
    One,
    All,
}

/// `a · b` into `out`, or added to it.
fn product(a: ArrayView2<f32>, b: ArrayView2<f32>, mut out: ArrayViewMut2<f32>, add: bool, threads: Threads) {
    let (rows, columns) = out.dim();
    assert!(a.dim() == (rows, b.nrows()) && b.ncols() == columns, "matrices that do not fit");
    if rows == 0 || columns == 0 {
        return;
    }
    let parallelism = match threads {
        Threads::One => gemm::Parallelism::None,
        Threads::All => gemm::Parallelism::Rayon(0),
    };
    let (a_strides, b_strides) = ([a.strides()[0], a.strides()[1]], [b.strides()[0], b.strides()[1]]);
    let out_strides = [out.strides()[0], out.strides()[1]];
    // SAFETY: the shapes fit, as was asserted, and strides are the views' own.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            a.ncols(),
            out.as_mut_ptr(),
            out_strides[1],
            out_strides[0],
            add,
            a.as_ptr(),
            a_strides[1],
            a_strides[0],
            b.as_ptr(),
            b_strides[1],
            b_strides[0],
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

impl Design for Standardised {
    fn rows(&self) -> usize {
        self.values.nrows()
    }

    fn width(&self) -> usize {
        self.values.ncols()
    }

    fn forward(&self, weight: ArrayView2<f32>) -> Array2<f32> {
        let columns = weight.nrows();
        let mut logits = Array2::zeros((columns, self.rows()));
        let blocks = self.values.axis_chunks_iter(Axis(0), BLOCK).into_par_iter();
        blocks.zip(logits.axis_chunks_iter_mut(Axis(1), BLOCK)).for_each(|(block, mut logits)| {
            // Row by row first, which the product is quickest at; then turned, while it is near.
            let mut near = Array2::zeros((block.nrows(), columns));
            product(block, weight.t(), near.view_mut(), false, Threads::One);
            logits.assign(&near.t());
        });
        logits
    }

    fn backward(&self, residual: ArrayView2<f32>) -> Array2<f32> {
        let mut sums = Array2::zeros((residual.nrows(), self.width()));
        product(residual, self.values.view(), sums.view_mut(), false, Threads::All);
        sums
    }

    fn inverse(&self, curvature: f64, before: Option<Inverse>) -> Inverse {
        let room = before.and_then(Inverse::room);
        let known = match &self.moments {
            Moments::Columns(products) => factor(products, curvature, room).map(Inverse::Columns),
            Moments::Rows(products) => {
                factor(products, curvature, room).map(|factor| Inverse::Rows(factor, curvature as f32))
            }
            Moments::Diagonal(squares) => Some(Inverse::diagonal(squares, curvature)),
        };
        // Never without one for finite features; a search that nothing steers still ends.
        known.unwrap_or_else(|| Inverse::Diagonal(Array1::ones(self.width())))
    }
}

/// A matrix of zeros and ones, a list of columns a row: which words a text has.
pub(super) struct Presence {
    rows: Vec<Vec<u32>>,
    width: usize,
    /// How many rows in use have each column.
    counts: Array1<f32>,
}

impl Presence {
    /// Takes for each row the columns (below `width`, each at most once) that hold a one.
    pub(super) fn new(rows: Vec<Vec<u32>>, width: usize, splits: &[Split]) -> Presence {
        let mut used = vec![false; rows.len()];
        splits.iter().flat_map(|split| &split.fit).for_each(|&row| used[row] = true);
        let mut counts = Array1::zeros(width);
        let in_use = rows.iter().zip(used).filter(|(_, used)| *used).flat_map(|(row, _)| row);
        in_use.for_each(|&column| counts[column as usize] += 1.0);
        Presence { rows, width, counts }
    }

    /// The part that a split's fit rows are, with these columns alone.
    pub(super) fn part(&self, split: &Split, columns: &[u32]) -> Part {
        let mut scale = Array1::zeros(self.width);
        columns.iter().for_each(|&column| scale[column as usize] = 1.0);
        Part {
            mask: mask(self.rows.len(), split),
            rows: split.fit.len(),
            shift: Array1::zeros(self.width),
            scale,
        }
    }
}

impl Design for Presence {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn forward(&self, weight: ArrayView2<f32>) -> Array2<f32> {
        // A word's weights of all columns side by side: one place in memory for each one of a row. Plain slices,
        // because so short a sum costs less than a view of it.
        let columns = weight.nrows();
        let by_word: Vec<f32> = weight.t().iter().copied().collect();
        let mut logits = Array2::zeros((columns, self.rows.len()));
        let blocks = self.rows.par_chunks(BLOCK).zip(logits.axis_chunks_iter_mut(Axis(1), BLOCK));
        blocks.for_each(|(rows, mut logits)| {
            let mut sums = vec![0f32; columns];
            for (row, mut logits) in rows.iter().zip(logits.columns_mut()) {
                sums.fill(0.0);
                for &word in row {
                    let weights = &by_word[word as usize * columns..][..columns];
                    sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
                }
                logits.iter_mut().zip(&sums).for_each(|(logit, sum)| *logit = *sum);
            }
        });
        logits
    }

    fn backward(&self, residual: ArrayView2<f32>) -> Array2<f32> {
        let columns = residual.nrows();
        let mut sums = vec![0f64; self.width * columns];
        for (row, residual) in self.rows.iter().zip(residual.columns()) {
            let residual = residual.to_vec();
            for &word in row {
                let sums = &mut sums[word as usize * columns..][..columns];
                sums.iter_mut().zip(&residual).for_each(|(sum, residual)| *sum += f64::from(*residual));
            }
        }
        Array2::from_shape_fn((columns, self.width), |(column, word)| sums[word * columns + column] as f32)
    }

    fn inverse(&self, curvature: f64, _: Option<Inverse>) -> Inverse {
        Inverse::diagonal(&self.counts, curvature)
    }
}

/// An approximate inverse of `curvature · XᵀX + 1`, ready to be multiplied with.
pub(super) enum Inverse {
    /// The lower triangle of the matrix's Cholesky factor.
    Columns(Mat<f32>),
    /// That of `curvature · XXᵀ + 1`, and the curvature: the other follows (Woodbury's identity).
    Rows(Mat<f32>, f32),
    Diagonal(Array1<f32>),
}

impl Inverse {
    fn diagonal(squares: &Array1<f32>, curvature: f64) -> Inverse {
        Inverse::Diagonal(squares.mapv(|square| (1.0 / (curvature * f64::from(square) + 1.0)) as f32))
    }

    /// The memory of a factor that is no longer wanted.
    fn room(self) -> Option<Mat<f32>> {
        match self {
            Inverse::Columns(factor) | Inverse::Rows(factor, _) => Some(factor),
            Inverse::Diagonal(_) => None,
        }
    }

    /// Times `vectors`, `[count, width]`.
    pub(super) fn apply(&self, design: &impl Design, vectors: Array2<f32>) -> Array2<f32> {
        let solve = |factor: &Mat<f32>, vectors: &Array2<f32>| {
            let (count, width) = vectors.dim();
            let mut x = Mat::<f32>::from_fn(width, count, |column, row| vectors[[row, column]]);
            let threads = faer::get_global_parallelism();
            let mut memory = MemBuffer::new(llt::solve::solve_in_place_scratch::<f32>(width, count, threads));
            llt::solve::solve_in_place(factor.as_ref(), x.as_mut(), threads, MemStack::new(&mut memory));
            Array2::from_shape_fn((count, width), |(row, column)| x[(column, row)])
        };
        match self {
            Inverse::Columns(factor) => solve(factor, &vectors),
            Inverse::Rows(factor, curvature) => {
                let inner = solve(factor, &design.forward(vectors.view()));
                vectors - design.backward(inner.view()) * *curvature
            }
            Inverse::Diagonal(scales) => vectors * scales,
        }
    }
}

/// The Cholesky factor of `curvature · products + 1`, in `room` where that is as large; `None` where it has none. It only
/// has to be near: it is what a search is steered by.
fn factor(products: &Array2<f32>, curvature: f64, room: Option<Mat<f32>>) -> Option<Mat<f32>> {
    let size = products.nrows();
    let mut matrix = room.filter(|room| room.nrows() == size).unwrap_or_else(|| Mat::zeros(size, size));
    let threads = faer::get_global_parallelism();
    let scratch = llt::factor::cholesky_in_place_scratch::<f32>(size, threads, Default::default());
    let mut memory = MemBuffer::new(scratch);
    let largest = products.diag().iter().copied().fold(0.0, f32::max);
    // Where the ones drown in rounding beside the products, more is added.
    let mut ridge = 1.0 + 1e-6 * curvature as f32 * largest;
    for _ in 0..12 {
        for column in 0..size {
            for row in column..size {
                matrix[(row, column)] = curvature as f32 * products[[column, row]];
            }
            matrix[(column, column)] += ridge;
        }
        let stack = MemStack::new(&mut memory);
        let none = llt::factor::LltRegularization::default();
        let done = llt::factor::cholesky_in_place(matrix.as_mut(), none, threads, stack, Default::default());
        if done.is_ok() {
            return Some(matrix);
        }
        ridge *= 10.0;
    }
    None
}

/// Solves `matrix · x = right` for symmetric positive definite `matrix` and `right` `[size, count]`, in f64; `None` where
/// the matrix is not positive definite.
pub(super) fn solve_definite(matrix: ArrayView2<f64>, right: ArrayView2<f64>) -> Option<Array2<f64>> {
    use faer::linalg::solvers::Solve;
    let own = faer::Mat::<f64>::from_fn(matrix.nrows(), matrix.ncols(), |row, column| matrix[[row, column]]);
    let mut x = faer::Mat::<f64>::from_fn(right.nrows(), right.ncols(), |row, column| right[[row, column]]);
    own.llt(faer::Side::Lower).ok()?.solve_in_place(&mut x);
    Some(Array2::from_shape_fn(right.dim(), |(row, column)| x[(row, column)]))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ndarray::array;

    /// All rows to fit on, none to test.
    pub(crate) fn all(rows: usize) -> Split {
        Split { fit: (0..rows).collect(), test: Vec::new() }
    }

    #[test]
    fn standardises_by_the_rows_in_use_and_silences_what_does_not_vary() {
        let split = Split { fit: vec![0, 1, 2], test: vec![3] };
        let features = array![[1.0, 5.1], [3.0, 5.1], [5.0, 5.1], [3.0, 900.0]];
        let design = Standardised::new(features, &[split]);
        let unit = 1.5f32.sqrt();
        let expected = array![[-unit, 0.0], [0.0, 0.0], [unit, 0.0], [0.0, 0.0]];
        assert!((&design.values - &expected).iter().all(|d| d.abs() < 1e-6), "{}", design.values);
    }

    #[test]
    fn a_part_counts_as_if_it_had_been_standardised_alone() {
        let features =
            Array2::from_shape_fn((40, 3), |(r, c)| ((r * 7 + c * 3) % 11) as f32 * 10f32.powi(c as i32));
        let split =
            Split { fit: (0..40).filter(|row| row % 4 != 0).collect(), test: (0..40).step_by(4).collect() };
        let design = Standardised::new(features.clone(), &[all(40), split.clone()]);
        let part = design.part(&split);
        let alone = Standardised::new(features.select(Axis(0), &split.fit), &[all(30)]);
        let seen = (&design.values.select(Axis(0), &split.fit) - &part.shift) * &part.scale;
        assert!((seen - &alone.values).iter().all(|d| d.abs() < 1e-5));
    }

    #[test]
    fn folded_weights_give_the_same_logits() {
        let features = Array2::from_shape_fn((6, 3), |(r, c)| {
            (((r * 7 + c * 3) % 5) as f32 + 40.0) * 10f32.powi(c as i32)
        });
        let design = Standardised::new(features.clone(), &[all(6)]);
        let (weight, bias) = (array![[0.3, -2.0, 0.7], [1.0, 0.0, -1.0]], array![0.25, -4.0]);
        let inside =
            design.forward(weight.mapv(|w: f64| w as f32).view()).reversed_axes() + &bias.mapv(|b| b as f32);
        let (weight, bias) = design.fold_back(weight.view(), bias.view());
        let outside = features.dot(&weight.t()) + &bias;
        assert!((inside - outside).iter().all(|d| d.abs() < 2e-4));
    }

    #[test]
    fn the_inverse_undoes_the_matrix() {
        let x = array![[1.0f32, 2.0, 0.0], [0.0, 1.0, -1.0], [3.0, 1.0, 1.0], [1.0, 0.0, 2.0]];
        let design = Standardised::new(x, &[all(4)]);
        let x = design.values.clone();
        let matrix: Array2<f32> = x.t().dot(&x) * 0.5 + Array2::<f32>::eye(3);
        let wanted = array![[1.0, -2.0, 3.0]];
        let asked = wanted.dot(&matrix);
        let rows = Inverse::Rows(factor(&x.dot(&x.t()), 0.5, None).unwrap(), 0.5);
        for inverse in [design.inverse(0.5, None), rows] {
            let found = inverse.apply(&design, asked.clone());
            assert!((found - &wanted).iter().all(|d| d.abs() < 1e-4));
        }
    }

    #[test]
    fn sparse_products_equal_dense_ones() {
        let split = all(3);
        let sparse = Presence::new(vec![vec![0, 2], vec![], vec![1, 2]], 3, &[split]);
        let dense = array![[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]];
        let weight = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
        let residual = array![[1.0, 7.0, -1.0], [0.5, 7.0, 2.0]];
        assert_eq!(sparse.forward(weight.view()), weight.dot(&dense.t()));
        assert_eq!(sparse.backward(residual.view()), residual.dot(&dense));
    }
}
