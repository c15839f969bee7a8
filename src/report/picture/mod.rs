//! The report's pictures: SVG that follows the reader's light or dark, at a width.

mod axis;
mod curve;
mod differences;
mod labels;
mod map;
mod svg;

pub(super) use curve::{By, curve};
pub(super) use differences::differences;
pub(super) use map::{map, title as map_title};
pub(super) use svg::{STYLE, Svg};

/// Widths at which each picture is drawn, so that its type is as large on a phone as elsewhere.
pub(super) const WIDTHS: [f64; 2] = [920.0, 360.0];

use svg::{Anchor, text_width};

/// A mark of a legend, by the classes of its parts.
#[derive(Clone, Copy)]
enum Key {
    Line(&'static str),
    Dot(&'static str),
    /// A line with a dot on it.
    Dotted(&'static str, &'static str),
    Diamond(&'static str),
}

/// Marks with their names in rows from the left, breaking where the picture ends; the height that they take.
fn legend(svg: &mut Svg, entries: &[(Key, &str)]) -> f64 {
    const LEFT: f64 = 2.0;
    const ROW: f64 = 18.0;
    const HALF: f64 = 10.0;
    let (mut left, mut y) = (LEFT, 12.0);
    for (key, name) in entries {
        let width = 26.0 + text_width(name);
        if left > LEFT && left + width > svg.width() {
            left = LEFT;
            y += ROW;
        }
        let x = left + HALF;
        if let Key::Line(class) | Key::Dotted(class, _) = key {
            svg.line(class, [x - HALF, y, x + HALF, y]);
        }
        match key {
            Key::Dot(class) | Key::Dotted(_, class) => svg.disc(class, [x, y], 4.0, ""),
            Key::Diamond(class) => svg.diamond(class, [x, y], 5.5, ""),
            Key::Line(_) => {}
        }
        svg.text("", Anchor::Start, [left + 26.0, y + 4.0], name);
        left += width + 16.0;
    }
    y + ROW
}
