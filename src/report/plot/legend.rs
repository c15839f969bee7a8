use super::svg::{Anchor, Svg, text_width};

/// A symbol of a legend, with the CSS classes of its parts.
#[derive(Clone, Copy)]
pub(super) enum Symbol {
    Line(&'static str),
    Dot(&'static str),
    /// A line with a dot on it.
    Dotted(&'static str, &'static str),
    Diamond(&'static str),
}

/// Draws symbols with their names in rows and returns the height of the legend.
pub(super) fn legend(svg: &mut Svg, entries: &[(Symbol, &str)]) -> f64 {
    const LEFT: f64 = 2.0;
    const ROW: f64 = 18.0;
    const HALF: f64 = 10.0;
    let (mut left, mut y) = (LEFT, 12.0);
    for (symbol, name) in entries {
        let width = 26.0 + text_width(name);
        if left > LEFT && left + width > svg.width() {
            left = LEFT;
            y += ROW;
        }
        let x = left + HALF;
        if let Symbol::Line(class) | Symbol::Dotted(class, _) = symbol {
            svg.line(class, [x - HALF, y, x + HALF, y]);
        }
        match symbol {
            Symbol::Dot(class) | Symbol::Dotted(_, class) => svg.disc(class, [x, y], 4.0, ""),
            Symbol::Diamond(class) => svg.diamond(class, [x, y], 5.5, ""),
            Symbol::Line(_) => {}
        }
        svg.text("", Anchor::Start, [left + 26.0, y + 4.0], name);
        left += width + 16.0;
    }
    y + ROW
}
