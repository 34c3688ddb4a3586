//! A drawing as a list of shapes, lines and texts, and its output as SVG and PNG. Coordinates are pixels of the page, with y
//! downwards. No other file uses plotters.

use std::sync::Once;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, FontTransform, register_font};

pub use super::layout::Spot;
use super::palette::{Colour, WHITE};
use super::raster::Raster;
use crate::error::{Error, Result};
use crate::report::escape::escape;

/// The horizontal alignment of a text to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// A line of text. Its point is on the baseline; if `turned`, it reads upwards.
#[derive(Clone, Debug)]
pub struct Label {
    pub text: String,
    pub spot: Spot,
    /// Size of the em in pixels.
    pub size: f64,
    pub colour: Colour,
    pub anchor: Anchor,
    pub bold: bool,
    pub turned: bool,
}

impl Label {
    pub fn new(text: impl Into<String>, spot: Spot, size: f64, colour: Colour, anchor: Anchor) -> Label {
        Label { text: text.into(), spot, size, colour, anchor, bold: false, turned: false }
    }
}

#[derive(Clone, Debug)]
enum Mark {
    Fill { points: Vec<Spot>, colour: Colour, opacity: f64 },
    Stroke { points: Vec<Spot>, colour: Colour, width: f64 },
    Text(Label),
}

/// Marks, in the order in which they are drawn.
#[derive(Clone, Debug)]
pub struct Canvas {
    /// Width and height in pixels.
    size: [f64; 2],
    marks: Vec<Mark>,
}

/// The regular and the bold face of Inter (SIL Open Font License, see fonts/), Latin, Greek, arrows and signs.
pub const REGULAR: &[u8] = include_bytes!("../fonts/Inter-Regular.ttf");
pub const BOLD: &[u8] = include_bytes!("../fonts/Inter-Bold.ttf");
/// The font family of an SVG, and the name under which plotters knows the embedded font.
pub const FAMILY: &str = "Inter, Helvetica Neue, Helvetica, Arial, Liberation Sans, sans-serif";

/// plotters rounds coordinates to whole numbers: an SVG is drawn this much larger, and scaled down by its view box.
const SVG_SCALE: f64 = 10.0;
/// Pixels of a PNG per pixel of the page …
const PNG_SCALE: usize = 2;
/// … each the mean of this many samples squared.
const PNG_SAMPLES: usize = 2;

/// Text metrics of one of plotters' backends, in em: the font size to ask for, and how far the baseline of text that is
/// centred vertically lies below its point.
struct Type {
    size: f64,
    drop: f64,
}

/// The SVG backend writes `size / 1.24` as the font size and moves by half the height of an x.
const SVG_TYPE: Type = Type { size: 1.24, drop: 0.273 };
/// The bitmap backend takes the size for ascent plus descent (Inter: 1984 + 494 of 2048 units), puts the baseline at
/// half of it, and moves up by half of `size / 1.24`.
const PNG_TYPE: Type = Type { size: 2478.0 / 2048.0, drop: 2478.0 / 2048.0 * (0.5 - 0.5 / 1.24) };

impl Canvas {
    /// An empty white page.
    pub fn new(width: f64, height: f64) -> Canvas {
        Canvas { size: [width, height], marks: Vec::new() }
    }

    pub fn fill(&mut self, points: impl Into<Vec<Spot>>, colour: Colour, opacity: f64) {
        self.marks.push(Mark::Fill { points: points.into(), colour, opacity });
    }

    pub fn stroke(&mut self, points: impl Into<Vec<Spot>>, colour: Colour, width: f64) {
        self.marks.push(Mark::Stroke { points: points.into(), colour, width });
    }

    /// A dashed line: `on` pixels drawn, `off` pixels not.
    pub fn dashes(&mut self, points: &[Spot], colour: Colour, width: f64, [on, off]: [f64; 2]) {
        let mut drawn = true;
        let mut left = on;
        let mut dash = points.first().copied().into_iter().collect::<Vec<_>>();
        for pair in points.windows(2) {
            let length = (pair[1][0] - pair[0][0]).hypot(pair[1][1] - pair[0][1]);
            let mut done = 0.0;
            while length - done > left {
                done += left;
                let spot = std::array::from_fn(|axis| {
                    pair[0][axis] + (pair[1][axis] - pair[0][axis]) * done / length
                });
                if drawn {
                    dash.push(spot);
                    self.stroke(std::mem::take(&mut dash), colour, width);
                } else {
                    dash = vec![spot];
                }
                drawn = !drawn;
                left = if drawn { on } else { off };
            }
            left -= length - done;
            if drawn {
                dash.push(pair[1]);
            }
        }
        if drawn && dash.len() > 1 {
            self.stroke(dash, colour, width);
        }
    }

    pub fn rectangle(&mut self, [left, top]: Spot, [right, bottom]: Spot, colour: Colour, opacity: f64) {
        self.fill([[left, top], [right, top], [right, bottom], [left, bottom]], colour, opacity);
    }

    /// A shape around the origin, moved to `spot` and scaled by `radius`.
    pub fn shape(&mut self, shape: &[Spot], spot: Spot, radius: f64, colour: Colour) {
        let points: Vec<Spot> =
            shape.iter().map(|[x, y]| [spot[0] + x * radius, spot[1] + y * radius]).collect();
        self.fill(points, colour, 1.0);
    }

    /// A shape with a white rim, so that it stands out from the shapes below.
    pub fn marker(&mut self, shape: &[Spot], spot: Spot, radius: f64, colour: Colour) {
        self.shape(shape, spot, radius + 1.1, WHITE);
        self.shape(shape, spot, radius, colour);
    }

    pub fn text(&mut self, mut label: Label) {
        // A line of text holds no line breaks or control characters.
        label.text = label.text.replace(char::is_control, " ");
        if !label.text.is_empty() {
            self.marks.push(Mark::Text(label));
        }
    }

    /// The text of an SVG file. `title` is its label for screen readers.
    ///
    /// # Errors
    /// If plotters can't draw a mark.
    pub fn to_svg(&self, title: &str) -> Result<String> {
        register();
        let [width, height] = self.size;
        let unit = |length: f64| (length * SVG_SCALE).round() as i32;
        let place = |points: &[Spot]| -> Vec<(i32, i32)> {
            points.iter().map(|[x, y]| (unit(*x), unit(*y))).collect()
        };
        let mut text = String::new();
        {
            let mut backend = SVGBackend::with_string(&mut text, (unit(width) as u32, unit(height) as u32));
            for mark in &self.marks {
                match mark {
                    Mark::Fill { points, colour, opacity } => {
                        backend
                            .fill_polygon(place(points), &style(*colour, *opacity, 0.0))
                            .map_err(failed)?;
                    }
                    Mark::Stroke { points, colour, width } => {
                        let style = style(*colour, 1.0, width * SVG_SCALE);
                        backend.draw_path(place(points), &style).map_err(failed)?;
                    }
                    Mark::Text(label) => write_label(&mut backend, label, SVG_SCALE, &SVG_TYPE)?,
                }
            }
            backend.present().map_err(failed)?;
        }
        // plotters writes the size of the scaled drawing: this replaces its opening tag.
        let marks = text.split_once('>').map_or("", |(_, marks)| marks);
        Ok(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\" \
             stroke-linejoin=\"round\" stroke-linecap=\"round\">{marks}",
            unit(width),
            unit(height),
            escape(title),
        ))
    }

    /// The bytes of a PNG file, with two pixels per pixel of the page.
    ///
    /// # Errors
    /// If plotters can't draw a text.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        register();
        let scale = PNG_SCALE * PNG_SAMPLES;
        let [width, height] = self.size.map(|length| length.round() as usize * scale);
        let mut raster = Raster::white(width, height);
        let grow = |points: &[Spot]| -> Vec<Spot> {
            points.iter().map(|spot| spot.map(|at| at * scale as f64)).collect()
        };
        for mark in &self.marks {
            match mark {
                Mark::Fill { points, colour, opacity } => raster.fill(&grow(points), *colour, *opacity),
                Mark::Stroke { points, colour, width } => {
                    raster.stroke(&grow(points), *colour, width * scale as f64);
                }
                Mark::Text(label) => {
                    let size = (width as u32, height as u32);
                    let mut backend = BitMapBackend::with_buffer(&mut raster.pixels, size);
                    write_label(&mut backend, label, scale as f64, &PNG_TYPE)?;
                }
            }
        }
        let small = raster.shrunk(PNG_SAMPLES);
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, small.width as u32, small.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(&small.pixels).map_err(failed)?;
        writer.finish().map_err(failed)?;
        Ok(bytes)
    }
}

/// The width of a line of text in pixels.
pub fn text_width(text: &str, size: f64, bold: bool) -> f64 {
    register();
    // Measured at a large size, since plotters rounds to whole pixels.
    const LARGE: f64 = 1000.0;
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    let font = FontDesc::new(FontFamily::Name(FAMILY), LARGE * PNG_TYPE.size, style);
    match font.box_size(text) {
        Ok((width, _)) => f64::from(width) / LARGE * size,
        // The font is registered above; a guess is better than no drawing.
        Err(_) => 0.6 * size * text.chars().count() as f64,
    }
}

fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (style, bytes) in [(FontStyle::Normal, REGULAR), (FontStyle::Bold, BOLD)] {
            // The bytes are embedded, and a test checks that they are a font.
            let _ = register_font(FAMILY, style, bytes);
        }
    });
}

fn style([red, green, blue]: Colour, opacity: f64, width: f64) -> ShapeStyle {
    ShapeStyle {
        color: RGBColor(red, green, blue).mix(opacity),
        filled: true,
        stroke_width: width.round() as u32,
    }
}

fn write_label<B: DrawingBackend>(backend: &mut B, label: &Label, scale: f64, r#type: &Type) -> Result<()> {
    let horizontal = match label.anchor {
        Anchor::Start => HPos::Left,
        Anchor::Middle => HPos::Center,
        Anchor::End => HPos::Right,
    };
    let face = if label.bold { FontStyle::Bold } else { FontStyle::Normal };
    let font = FontDesc::new(FontFamily::Name(FAMILY), label.size * scale * r#type.size, face);
    let turn = if label.turned { FontTransform::Rotate270 } else { FontTransform::None };
    let [red, green, blue] = label.colour;
    let colour = RGBColor(red, green, blue);
    let style = TextStyle::from(font.transform(turn)).color(&colour).pos(Pos::new(horizontal, VPos::Center));
    let drop = label.size * r#type.drop;
    let [x, y] = if label.turned {
        [label.spot[0] - drop, label.spot[1]]
    } else {
        [label.spot[0], label.spot[1] - drop]
    };
    let spot = ((x * scale).round() as i32, (y * scale).round() as i32);
    backend.draw_text(&label.text, &style, spot).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::input("drawing", error, "a drawing that plotters can write")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_have_their_length_across_corners() {
        let mut canvas = Canvas::new(100.0, 100.0);
        canvas.dashes(&[[0.0, 0.0], [10.0, 0.0], [10.0, 11.0]], [0, 0, 0], 1.0, [6.0, 3.0]);
        let lengths: Vec<f64> = canvas
            .marks
            .iter()
            .map(|mark| match mark {
                Mark::Stroke { points, .. } => points
                    .windows(2)
                    .map(|pair| (pair[1][0] - pair[0][0]).hypot(pair[1][1] - pair[0][1]))
                    .sum(),
                _ => 0.0,
            })
            .collect();
        assert_eq!(lengths, [6.0, 6.0, 3.0]);
    }

    #[test]
    fn the_embedded_fonts_are_fonts() {
        // Advance widths in units of 2048 from the font's own table: "n" has no kerning with itself.
        register();
        for face in [FontStyle::Normal, FontStyle::Bold] {
            let font = FontDesc::new(FontFamily::Name(FAMILY), 100.0, face);
            assert!(font.box_size("→ β ≤ −").is_ok());
        }
        assert!(text_width("nn", 12.0, true) > text_width("nn", 12.0, false));
        let one = text_width("1", 2048.0, false);
        assert!((one - 833.0).abs() < 4.0, "{one}");
    }

    #[test]
    fn a_small_svg_is_as_it_was() {
        let mut canvas = Canvas::new(40.0, 20.0);
        canvas.rectangle([0.0, 0.0], [40.0, 20.0], [255, 255, 255], 1.0);
        canvas.stroke([[1.0, 1.0], [39.0, 1.25]], [0, 114, 178], 1.5);
        canvas.text(Label::new("a < b", [20.0, 15.0], 10.0, [26, 28, 32], Anchor::Middle));
        insta::assert_snapshot!(canvas.to_svg("R&D").unwrap(), @r##"
        <svg xmlns="http://www.w3.org/2000/svg" width="40" height="20" viewBox="0 0 400 200" role="img" aria-label="R&amp;D" stroke-linejoin="round" stroke-linecap="round">
        <polygon opacity="1" fill="#FFFFFF" points="0,0 400,0 400,200 0,200 "/>
        <polyline fill="none" opacity="1" stroke="#0072B2" stroke-width="15" points="10,10 390,13 "/>
        <text x="200" y="123" dy="0.5ex" text-anchor="middle" font-family="Inter, Helvetica Neue, Helvetica, Arial, Liberation Sans, sans-serif" font-size="100" opacity="1" fill="#1A1C20">
        a &lt; b
        </text>
        </svg>
        "##);
    }
}
