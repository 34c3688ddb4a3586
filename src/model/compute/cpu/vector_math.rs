//! Vectorised elementary functions and reductions, compiled for each register width and dispatched at run time. The summation
//! order is the same for every width.

/// Runs an expression with the widest vector instructions of this processor. Only code that is inlined into it benefits.
macro_rules! simd_dispatch {
    ($work:expr) => {{
        // A closure that can be called twice isn't inlined, and so is compiled for the narrowest registers.
        let once = $crate::model::compute::cpu::vector_math::CallOnce;
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                let _once = once;
                $work
            },
        )
    }};
}
pub(crate) use simd_dispatch;

/// Makes a closure that holds it `FnOnce`.
pub(crate) struct CallOnce;

/// `eˣ` to 2 ulp, without a branch; results are at least 1e-38. Adding 1.5·2²³ gives the integer part of the exponent, a polynomial
/// (Cephes' `expf`) the rest.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let whole = x * std::f32::consts::LOG2_E + ROUND;
    let count = whole - ROUND;
    let rest = x - count * 0.693_359_4 + count * 2.121_944_4e-4;
    let mut sum = 1.987_569_2e-4;
    for term in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        sum = sum * rest + term;
    }
    let mantissa = sum * rest * rest + rest + 1.0;
    f32::from_bits(mantissa.to_bits().wrapping_add(whole.to_bits() << 23))
}

#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// `1 − erf(x)` for `x` from 0 up, to 1.2e-7 of its value (Chebyshev fit, Numerical Recipes, section 6.2): near 0 it keeps its digits, which
/// `1 − erf(x)` would lose.
#[inline(always)]
pub(crate) fn erfc(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.5 * x);
    let mut sum = 0.170_872_76;
    for term in [
        -0.822_152_26,
        1.488_515_9,
        -1.135_204,
        0.278_868_08,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_95,
        1.000_023_7,
        -1.265_512_2,
    ] {
        sum = sum * t + term;
    }
    t * exp(sum - x * x)
}

/// `Σ term(i)` for `i` below `count`, in sixteen partial sums.
#[inline(always)]
pub(crate) fn sum(count: usize, term: impl Fn(usize) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0f32; LANES];
    let whole = count / LANES * LANES;
    for begin in (0..whole).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += term(begin + lane);
        }
    }
    (whole..count).map(term).sum::<f32>() + sums.iter().sum::<f32>()
}

/// The maximum.
#[inline(always)]
pub(crate) fn max(numbers: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (whole, rest) = numbers.as_chunks::<16>();
    for chunk in whole {
        for (lane, number) in lanes.iter_mut().zip(chunk) {
            *lane = if *number > *lane { *number } else { *lane };
        }
    }
    rest.iter().chain(&lanes).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Softmax in place, with an optional soft cap of the scores and an optional score that takes its share and is dropped.
#[inline(always)]
pub(crate) fn softmax(scores: &mut [f32], cap: Option<f32>, sink: Option<f32>) {
    if let Some(cap) = cap {
        for score in scores.iter_mut() {
            *score = cap * tanh(*score / cap);
        }
    }
    let sink = sink.unwrap_or(f32::NEG_INFINITY);
    let max_score = max(scores).max(sink);
    for score in scores.iter_mut() {
        *score = exp(*score - max_score);
    }
    let dropped = if sink == f32::NEG_INFINITY { 0.0 } else { exp(sink - max_score) };
    let share = 1.0 / (sum(scores.len(), |i| scores[i]) + dropped);
    for score in scores.iter_mut() {
        *score *= share;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_agree_with_double_precision() {
        for step in -8700..8800 {
            let x = step as f32 / 100.0;
            let (found, expected) = (exp(x) as f64, (x as f64).exp());
            assert!(((found - expected) / expected).abs() < 3e-7, "{x}: {found} {expected}");
            let (found, expected) = (tanh(x) as f64, (x as f64).tanh());
            assert!((found - expected).abs() < 3e-7, "{x}: {found} {expected}");
        }
        assert!(exp(-1e30) < 2e-38);
        // scipy.special.erfc
        for (x, expected) in [
            (0.0, 1.0),
            (0.5, 0.479_500_122_2),
            (1.0, 0.157_299_207_05),
            (2.0, 0.004_677_734_981),
            (3.0, 2.209_049_7e-5),
            (4.0, 1.541_725_79e-8),
        ] {
            let apart = (f64::from(erfc(x)) / expected - 1.0).abs();
            assert!(apart < 2e-6, "{x}: {} {expected}", erfc(x));
        }
    }

    #[test]
    fn sums_take_every_term_once() {
        for count in [0, 1, 15, 16, 17, 100] {
            assert_eq!(simd_dispatch!(sum(count, |i| i as f32)), (0..count).sum::<usize>() as f32);
        }
        assert_eq!(max(&[-3.0, -1.0, -2.0]), -1.0);
    }
}
