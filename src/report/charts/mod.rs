//! Charts: tables drawn as SVG and PNG.

pub(crate) mod axis;
pub(crate) mod bar;
pub(crate) mod canvas;
pub mod chart;
pub(crate) mod check;
pub(crate) mod contour;
pub mod draw;
pub(crate) mod frame;
pub(crate) mod heat_map;
pub(crate) mod layout;
pub(crate) mod legend;
pub(crate) mod line;
pub(crate) mod map;
pub(crate) mod palette;
pub(crate) mod raster;
