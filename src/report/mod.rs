//! Reports: charts, tables of metrics, and self-contained HTML pages.
//!
//! Charts and pages are drawn from saved tables, so that a new plot costs no model run.

pub mod charts;
pub(crate) mod escape;
pub mod pages;
pub mod saved;
pub mod table;

pub use charts::chart::{BarChart, Chart, HeatChart, LineChart, MapChart};
pub use charts::draw::draw;
pub use pages::token_strip::Strip;
pub use pages::{Page, Section, write};
pub use saved::draw_all;
pub use table::{Results, Table};
