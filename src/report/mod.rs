//! What is shown of a run: charts, tables of figures, and one page that holds both.
//! It reads saved tables only, so that a new plot costs no model run; it knows nothing of models or probes.

mod axis;
mod bar;
mod canvas;
pub mod chart;
mod check;
mod contour;
pub mod draw;
mod frame;
mod heat;
pub mod html;
mod legend;
mod line;
mod map;
mod markup;
mod palette;
pub mod picked;
mod raster;
pub mod strip;
pub mod table;
pub mod trace;

pub use chart::{BarChart, Chart, HeatChart, LineChart, MapChart};
pub use draw::{draw, draw_all};
pub use html::{Page, Section, write};
pub use strip::Strip;
pub use table::{Results, Table};
