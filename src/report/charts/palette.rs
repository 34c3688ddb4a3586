//! Colours and marker shapes that colour-blind readers can tell apart, also in greyscale print.

/// Red, green, blue.
pub type Colour = [u8; 3];

pub const WHITE: Colour = [255, 255, 255];
/// Titles.
pub const INK: Colour = [26, 28, 32];
/// Axis labels and legends.
pub const TEXT: Colour = [60, 64, 70];
/// Subtitles and tick labels.
pub const SOFT: Colour = [95, 101, 110];
pub const AXIS: Colour = [140, 146, 155];
pub const GRID: Colour = [230, 232, 236];
/// Unknown values of a surface.
pub const MASK: Colour = [240, 241, 243];

/// Okabe and Ito's palette ("Color Universal Design", 2008) without its yellow, which is lost on white, and with a grey
/// for its black.
const GROUPS: [Colour; 7] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 158, 115],
    [204, 121, 167],
    [230, 159, 0],
    [86, 180, 233],
    [90, 90, 90],
];

/// The colour of a group or series by its index.
pub fn group(index: usize) -> Colour {
    GROUPS[index % GROUPS.len()]
}

/// Colours of paths: none of a class's, dark enough for a line. A path's style differs too, so that every colour comes three times.
const PATHS: [Colour; 4] = [[26, 28, 32], [120, 40, 130], [140, 20, 30], [20, 90, 60]];

/// The colour of one of several paths by its index.
pub fn path(index: usize) -> Colour {
    PATHS[index % PATHS.len()]
}

/// Cividis (Nuñez, Anderton and Renslow, PLOS ONE 2018), even in lightness for every kind of colour sight: samples at
/// equal steps from 0 to 1, as matplotlib has them.
const CIVIDIS: [Colour; 9] = [
    [0, 34, 78],
    [24, 56, 110],
    [63, 78, 108],
    [94, 100, 111],
    [124, 123, 120],
    [157, 147, 117],
    [191, 173, 106],
    [226, 201, 85],
    [254, 232, 56],
];

/// The colour of a surface at `share` from 0 to 1.
pub fn surface(share: f64) -> Colour {
    let at = share.clamp(0.0, 1.0) * (CIVIDIS.len() - 1) as f64;
    let index = (at as usize).min(CIVIDIS.len() - 2);
    mix(CIVIDIS[index], CIVIDIS[index + 1], at - index as f64)
}

/// The colour of a diverging scale at `share` from 0 to 1: blue at 0, white in the middle, vermilion at 1. All kinds of colour
/// vision tell the two ends apart.
pub fn diverging(share: f64) -> Colour {
    let away = (2.0 * share.clamp(0.0, 1.0) - 1.0).abs();
    mix([250, 250, 250], if share < 0.5 { [0, 90, 160] } else { [190, 75, 0] }, away)
}

/// The text colour, white or dark, that is legible on a background.
pub fn ink_on(ground: Colour) -> Colour {
    let light = luminance(ground);
    // The larger of the two contrasts (WCAG 2).
    if 1.05 / (light + 0.05) > (light + 0.05) / (luminance(INK) + 0.05) { WHITE } else { INK }
}

/// Relative luminance (WCAG 2).
fn luminance(colour: Colour) -> f64 {
    let linear = colour.map(|channel| {
        let share = f64::from(channel) / 255.0;
        if share <= 0.04045 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
    });
    0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
}

/// Linear interpolation from `from` to `to`.
pub fn mix(from: Colour, to: Colour, share: f64) -> Colour {
    std::array::from_fn(|channel| {
        let [from, to] = [from, to].map(|colour| f64::from(colour[channel]));
        (from + (to - from) * share).round() as u8
    })
}

/// The marker shape of a group by its index: corners around the origin with y downwards, of similar areas.
pub fn marker(index: usize) -> Vec<[f64; 2]> {
    let regular = |corners: usize, radius: f64, turn: f64| -> Vec<[f64; 2]> {
        let angle = |corner: usize| (corner as f64 / corners as f64 + turn) * std::f64::consts::TAU;
        (0..corners).map(|corner| [radius * angle(corner).sin(), -radius * angle(corner).cos()]).collect()
    };
    match index % 6 {
        0 => regular(24, 1.0, 0.0),
        1 => regular(3, 1.4, 0.0),
        2 => regular(4, 1.2, 0.125),
        3 => regular(4, 1.3, 0.0),
        4 => regular(3, 1.4, 0.5),
        _ => {
            // An upright cross.
            let (arm, half) = (1.3, 0.42);
            let quarter = [[-half, -half], [-half, -arm], [half, -arm]];
            let turns = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]];
            let turned = turns.map(|[c, s]| quarter.map(|[x, y]| [c * x - s * y, s * x + c * y]));
            turned.concat()
        }
    }
}

/// A five-pointed star of radius 1.
pub fn star() -> Vec<[f64; 2]> {
    let ray = |index: usize| {
        let (radius, angle) =
            (if index.is_multiple_of(2) { 1.0 } else { 0.42 }, index as f64 * std::f64::consts::PI / 5.0);
        [radius * angle.sin(), -radius * angle.cos()]
    };
    (0..10).map(ray).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_surface_grows_lighter_all_the_way() {
        let steps: Vec<f64> = (0..=20).map(|step| luminance(surface(f64::from(step) / 20.0))).collect();
        assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "{steps:?}");
    }

    #[test]
    fn ink_is_legible_on_every_colour_of_both_scales() {
        for step in 0..=20 {
            for ground in [surface(f64::from(step) / 20.0), diverging(f64::from(step) / 20.0)] {
                let (a, b) = (luminance(ground), luminance(ink_on(ground)));
                assert!((a.max(b) + 0.05) / (a.min(b) + 0.05) >= 4.0, "{ground:?}");
            }
        }
    }

    #[test]
    fn every_text_colour_is_legible_on_white() {
        for colour in [INK, TEXT, SOFT] {
            assert!(1.05 / (luminance(colour) + 0.05) >= 4.5, "{colour:?}");
        }
    }
}
