//! What is shown of a run: charts, tables of figures, and one page that holds both.
//! It reads saved tables only, so that a new plot costs no model run; it knows nothing of models or probes.

pub mod charts;

pub mod pages;
pub mod table;

pub use charts::chart::{BarChart, Chart, HeatChart, LineChart, MapChart};
pub use charts::draw::{draw, draw_all};
pub use pages::token_strip::Strip;
pub use pages::{Page, Section, write};
pub use table::{Results, Table};
