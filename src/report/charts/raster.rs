//! Rasterization of polygons and lines.

use super::layout::Spot;
use super::palette::Colour;

/// An RGB image, rows from the top. (plotters' own polygons lose whole rows of concave shapes in bitmaps.)
pub struct Raster {
    pub pixels: Vec<u8>,
    pub width: usize,
    pub height: usize,
}

impl Raster {
    pub fn white(width: usize, height: usize) -> Raster {
        Raster { pixels: vec![255; width * height * 3], width, height }
    }

    /// Fills a polygon by the even-odd rule, row by row, sampling pixels at their centres.
    pub fn fill(&mut self, points: &[Spot], colour: Colour, opacity: f64) {
        let (low, high) =
            points.iter().fold((f64::MAX, f64::MIN), |(low, high), [_, y]| (low.min(*y), high.max(*y)));
        let first = low.floor().max(0.0) as usize;
        let last = (high.ceil().max(0.0) as usize).min(self.height);
        let mut crossings = Vec::new();
        for row in first..last {
            let middle = row as f64 + 0.5;
            crossings.clear();
            for (from, to) in points.iter().zip(points.iter().cycle().skip(1)) {
                if (from[1] <= middle) != (to[1] <= middle) {
                    crossings.push(from[0] + (to[0] - from[0]) * (middle - from[1]) / (to[1] - from[1]));
                }
            }
            crossings.sort_by(f64::total_cmp);
            for pair in crossings.chunks_exact(2) {
                let pixel = |at: f64| (at.round().max(0.0) as usize).min(self.width);
                let (from, to) = (pixel(pair[0]), pixel(pair[1]));
                for spot in self.pixels[(row * self.width + from) * 3..(row * self.width + to.max(from)) * 3]
                    .chunks_exact_mut(3)
                {
                    for (old, new) in spot.iter_mut().zip(colour) {
                        *old = (f64::from(*old) + (f64::from(new) - f64::from(*old)) * opacity).round() as u8;
                    }
                }
            }
        }
    }

    /// Draws a line with round ends and joins.
    pub fn stroke(&mut self, points: &[Spot], colour: Colour, width: f64) {
        let half = width / 2.0;
        for pair in points.windows(2) {
            let [x, y] = [pair[1][0] - pair[0][0], pair[1][1] - pair[0][1]];
            let length = x.hypot(y);
            if length > 0.0 {
                let [across, along] = [-y / length * half, x / length * half];
                let corner = |spot: Spot, side: f64| [spot[0] + side * across, spot[1] + side * along];
                let sides = [
                    corner(pair[0], 1.0),
                    corner(pair[1], 1.0),
                    corner(pair[1], -1.0),
                    corner(pair[0], -1.0),
                ];
                self.fill(&sides, colour, 1.0);
            }
        }
        if width >= 3.0 {
            for spot in points {
                let corner = |index: usize| {
                    let angle = index as f64 / 16.0 * std::f64::consts::TAU;
                    [spot[0] + half * angle.cos(), spot[1] + half * angle.sin()]
                };
                self.fill(&std::array::from_fn::<Spot, 16, _>(corner), colour, 1.0);
            }
        }
    }

    /// The image scaled down by `count`: each pixel is the mean of `count` × `count`.
    pub fn shrunk(&self, count: usize) -> Raster {
        let (width, height) = (self.width / count, self.height / count);
        let mut pixels = Vec::with_capacity(width * height * 3);
        for row in 0..height {
            for column in 0..width {
                for channel in 0..3 {
                    let of = |index: usize| {
                        let (y, x) = (row * count + index / count, column * count + index % count);
                        usize::from(self.pixels[(y * self.width + x) * 3 + channel])
                    };
                    let sum: usize = (0..count * count).map(of).sum();
                    pixels.push((sum / (count * count)) as u8);
                }
            }
        }
        Raster { pixels, width, height }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dark(raster: &Raster) -> usize {
        raster.pixels.chunks(3).filter(|pixel| pixel[0] < 128).count()
    }

    #[test]
    fn a_concave_shape_is_filled_without_gaps() {
        let mut raster = Raster::white(20, 20);
        // An L of 10 × 10 without its upper right quarter.
        let corners = [[2.0, 2.0], [7.0, 2.0], [7.0, 7.0], [12.0, 7.0], [12.0, 12.0], [2.0, 12.0]];
        raster.fill(&corners, [0, 0, 0], 1.0);
        assert_eq!(dark(&raster), 75);
    }
}
