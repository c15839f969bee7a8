use std::fmt::Write as _;

use super::super::format::escaped;

/// Colours and fonts of the plots, in the page and in separate files.
pub(in crate::report) const STYLE: &str = include_str!("plot.css");

/// A plot under construction. Later elements cover earlier ones. The classes are defined in `plot.css`.
pub(in crate::report) struct Svg {
    width: f64,
    height: f64,
    /// Description for screen readers.
    label: String,
    body: String,
}

/// Which part of a text is at its point.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub(super) fn new(width: f64, label: impl Into<String>) -> Svg {
        Svg { width, height: 0.0, label: label.into(), body: String::new() }
    }

    pub(super) fn width(&self) -> f64 {
        self.width
    }

    /// Extends the plot downwards to at least this height.
    pub(super) fn reach(&mut self, height: f64) {
        self.height = self.height.max(height);
    }

    pub(super) fn line(&mut self, class: &str, [x1, y1, x2, y2]: [f64; 4]) {
        self.push(format_args!(r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#));
    }

    pub(super) fn path(&mut self, class: &str, points: &[[f64; 2]]) {
        let mut data = String::new();
        for (place, [x, y]) in points.iter().enumerate() {
            let _ = write!(data, "{}{x:.1} {y:.1}", if place == 0 { 'M' } else { 'L' });
        }
        self.push(format_args!(r#"<path class="{class}" d="{data}"/>"#));
    }

    /// A disc with a tooltip.
    pub(super) fn disc(&mut self, class: &str, [x, y]: [f64; 2], radius: f64, tip: &str) {
        let tip = escaped(tip);
        self.push(format_args!(
            r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="{radius}"><title>{tip}</title></circle>"#
        ));
    }

    /// A diamond with a tooltip.
    pub(super) fn diamond(&mut self, class: &str, [x, y]: [f64; 2], radius: f64, tip: &str) {
        let tip = escaped(tip);
        self.push(format_args!(
            r#"<path class="{class}" d="M{:.1} {y:.1}L{x:.1} {:.1}L{:.1} {y:.1}L{x:.1} {:.1}Z"><title>{tip}</title></path>"#,
            x - radius,
            y - radius,
            x + radius,
            y + radius,
        ));
    }

    /// A rectangle filled with this opacity, with a tooltip.
    pub(super) fn cell(&mut self, [x, y, width, height]: [f64; 4], opacity: f64, tip: &str) {
        let tip = escaped(tip);
        self.push(format_args!(
            r#"<rect class="empty" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="3"/>"#
        ));
        self.push(format_args!(
            r#"<rect class="field" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="3" fill-opacity="{opacity:.2}"><title>{tip}</title></rect>"#
        ));
    }

    pub(super) fn text(&mut self, class: &str, anchor: Anchor, [x, y]: [f64; 2], text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        self.push(format_args!(r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#));
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.body, "{element}");
    }

    /// The SVG element for a page that includes [`STYLE`].
    pub(in crate::report) fn inline(&self) -> String {
        let Svg { width, height, body, .. } = self;
        let label = escaped(&self.label);
        format!("<svg role=\"img\" aria-label=\"{label}\" viewBox=\"0 0 {width} {height}\">\n{body}</svg>\n")
    }

    /// The SVG document of a separate file.
    pub(in crate::report) fn file(&self) -> String {
        let Svg { width, height, body, .. } = self;
        let label = escaped(&self.label);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" aria-label=\"{label}\" width=\"{width}\" \
             height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n<style>\n{STYLE}</style>\n\
             <rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n{body}</svg>\n"
        )
    }
}

/// Approximate width of a text in pixels. It is an upper estimate, from DejaVu Sans, the widest of the usual fonts.
pub(super) fn text_width(text: &str) -> f64 {
    text.chars().map(character_width).sum()
}

/// The text, cut to a width in pixels.
pub(super) fn shortened(text: &str, room: f64) -> String {
    if text_width(text) <= room {
        return text.to_owned();
    }
    let mut left = room - character_width('…');
    let fits = |character: &char| {
        left -= character_width(*character);
        left >= 0.0
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

fn character_width(character: char) -> f64 {
    match character {
        'i' | 'j' | 'l' | 't' | 'f' | 'r' | 'I' | ' ' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | '(' | ')' => 5.0,
        'm' | 'w' | '…' | 'M' | 'W' | '%' | '@' => 12.0,
        'a'..='z' | '0'..='9' | '"' | '-' => 7.7,
        _ if character.is_ascii() => 9.4,
        _ => 12.0,
    }
}
