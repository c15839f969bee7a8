//! The report's plots, as SVG that follows the reader's light or dark colour scheme.

mod accuracy_over_cost;
mod axis;
mod differences;
mod labels;
mod legend;
mod route_map;
mod svg;

pub(super) use accuracy_over_cost::{CostKind, accuracy_over_cost};
pub(super) use differences::differences;
pub(super) use route_map::{grouping_title, route_map};
pub(super) use svg::{STYLE, Svg};

/// Each plot is drawn at these widths, in pixels. The narrow one keeps the text readable on a phone.
pub(super) const WIDTHS: [f64; 2] = [920.0, 360.0];
