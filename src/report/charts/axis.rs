//! An axis: its range, its ticks, and the formatting of numbers.

/// A linear axis with its ticks.
#[derive(Clone, Debug)]
pub struct Axis {
    /// The value at its start.
    pub low: f64,
    /// The value at its end.
    pub high: f64,
    /// Values and their labels.
    pub ticks: Vec<(f64, String)>,
    /// Whether every tick must be labelled.
    pub whole: bool,
    /// Whether the tick labels are rotated to read upwards.
    pub turned: bool,
}

impl Axis {
    /// An axis over exactly this range, with about `count` ticks at round values.
    pub fn exact([low, high]: [f64; 2], count: usize) -> Axis {
        let [low, high] = widened([low, high]);
        let step = round_step((high - low) / count as f64);
        let ticks = (((low / step) - 1e-6).ceil() as i64..=((high / step) + 1e-6).floor() as i64)
            .map(|index| index as f64 * step)
            .map(|value| (value, grouped(&number(value, decimals(step)))))
            .collect();
        Axis { low, high, ticks, whole: false, turned: false }
    }

    /// An axis whose ends are the round values around this range.
    pub fn round([low, high]: [f64; 2], count: usize) -> Axis {
        let [low, high] = widened([low, high]);
        let step = round_step((high - low) / count as f64);
        Axis::exact([(low / step + 1e-6).floor() * step, (high / step - 1e-6).ceil() * step], count)
    }

    /// An axis of named whole numbers 0, 1, …, with half a step of space at each end.
    pub fn named(names: &[String]) -> Axis {
        let ticks = names.iter().enumerate().map(|(index, name)| (index as f64, name.clone())).collect();
        Axis { low: -0.5, high: names.len() as f64 - 0.5, ticks, whole: false, turned: false }
    }

    /// The position of a value: 0 at the start of the axis, 1 at its end.
    pub fn share(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }
}

/// The range, extended on both sides if it is empty.
fn widened([low, high]: [f64; 2]) -> [f64; 2] {
    let room = if low < high { 0.0 } else { low.abs().max(5.0) / 10.0 };
    [low - room, high + room]
}

/// A step of 1, 2 or 5 times a power of ten, near `near`.
fn round_step(near: f64) -> f64 {
    let power = 10f64.powf(near.log10().floor());
    let of = |factor: &f64| factor * power >= near * 0.8;
    [1.0, 2.0, 5.0].into_iter().find(of).unwrap_or(10.0) * power
}

/// The number of decimals that tells values `step` apart.
pub fn decimals(step: f64) -> usize {
    (0..8)
        .find(|&places| {
            let grown = step * 10f64.powi(places);
            (grown - grown.round()).abs() < 1e-6 * grown.abs().max(1.0) && grown.round() != 0.0
        })
        .map_or(2, |places| places as usize)
}

/// `value` with `places` decimals, a true minus sign, and no minus before zero.
pub fn number(value: f64, places: usize) -> String {
    let text = format!("{value:.places$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.bytes().all(|byte| matches!(byte, b'0' | b'.')) => rest.into(),
        Some(rest) => format!("−{rest}"),
        None => text,
    }
}

/// A number with a narrow space before each group of three digits, if it has five digits or more.
fn grouped(number: &str) -> String {
    let digits = number.chars().filter(char::is_ascii_digit).count();
    if number.contains('.') || digits < 5 {
        return number.into();
    }
    let signs = number.chars().rev().enumerate().flat_map(|(index, sign)| {
        let space = index > 0 && index % 3 == 0 && sign.is_ascii_digit();
        space.then_some('\u{202f}').into_iter().chain([sign])
    });
    signs.collect::<Vec<char>>().into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(axis: &Axis) -> String {
        axis.ticks.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ticks_stand_at_round_values() {
        assert_eq!(names(&Axis::exact([0.4, 1.0], 6)), "0.4 0.5 0.6 0.7 0.8 0.9 1.0");
        assert_eq!(names(&Axis::exact([-3.0, 3.0], 6)), "−3 −2 −1 0 1 2 3");
        assert_eq!(names(&Axis::round([0.0, 93.0], 5)), "0 20 40 60 80 100");
        assert_eq!(names(&Axis::round([0.0013, 0.0049], 5)), "0.001 0.002 0.003 0.004 0.005");
        assert_eq!(names(&Axis::exact([5.0, 5.0], 2)), "4.5 5.0 5.5");
    }

    #[test]
    fn numbers_have_a_true_minus_and_no_minus_zero() {
        assert_eq!(number(-1.25, 1), "−1.2");
        assert_eq!(number(-0.001, 2), "0.00");
        assert_eq!(grouped("−1234567"), "−1\u{202f}234\u{202f}567");
        assert_eq!(grouped("−123456"), "−123\u{202f}456");
        assert_eq!(grouped("1234"), "1234");
    }
}
