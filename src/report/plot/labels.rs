use super::svg::{Anchor, Svg, text_width};

const HEIGHT: f64 = 13.0;

/// Distance of a name from its point beyond which a line joins them.
const FAR: f64 = 14.0;

/// Places names beside points so that they cover no other mark.
pub(super) struct Labels {
    /// The area for names: left, top, right, bottom.
    area: [f64; 4],
    /// Boxes that a name must not cover.
    occupied: Vec<[f64; 4]>,
    /// Boxes along lines, which a name covers only if there is no other place, with how much they count.
    lines: Vec<([f64; 4], usize)>,
}

/// How much covering a piece of a line counts. A curve is worse to cover than the grid.
const CURVE: usize = 100;
const GRID: usize = 1;

impl Labels {
    pub(super) fn new(area: [f64; 4]) -> Labels {
        Labels { area, occupied: Vec::new(), lines: Vec::new() }
    }

    /// Reserves the box around a point.
    pub(super) fn reserve(&mut self, [x, y]: [f64; 2], radius: f64) {
        self.occupied.push([x - radius, y - radius, x + radius, y + radius]);
    }

    /// Asks names to avoid a line.
    pub(super) fn avoid_line(&mut self, line: [[f64; 2]; 2]) {
        self.avoid(line, CURVE);
    }

    /// Asks names to avoid a line of the grid, if that takes them over no other line.
    pub(super) fn avoid_grid(&mut self, line: [[f64; 2]; 2]) {
        self.avoid(line, GRID);
    }

    fn avoid(&mut self, [a, b]: [[f64; 2]; 2], counts: usize) {
        let steps = ((b[0] - a[0]).hypot(b[1] - a[1]) / 6.0).ceil().max(1.0);
        for step in 0..=steps as usize {
            let share = step as f64 / steps;
            let [x, y] = [a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])];
            self.lines.push(([x - 2.0, y - 2.0, x + 2.0, y + 2.0], counts));
        }
    }

    /// Draws a name near its point. If there is no room, only the point's tooltip shows the name.
    pub(super) fn draw(&mut self, svg: &mut Svg, class: &str, point: [f64; 2], text: &str) {
        let [x, y] = point;
        let width = text_width(text);
        let places: Vec<(f64, f64, Anchor)> = [8.0, 16.0, 28.0, 40.0]
            .into_iter()
            .flat_map(|distance| {
                [
                    (x, y - distance, Anchor::Middle),
                    (x, y + distance + HEIGHT - 3.0, Anchor::Middle),
                    (x + distance, y + 4.0, Anchor::Start),
                    (x - distance, y + 4.0, Anchor::End),
                    (x + distance, y - distance, Anchor::Start),
                    (x - distance, y - distance, Anchor::End),
                    (x + distance, y + distance + 6.0, Anchor::Start),
                    (x - distance, y + distance + 6.0, Anchor::End),
                    // These places suit points at an edge of the area.
                    (x + 6.0, y - distance, Anchor::End),
                    (x - 6.0, y - distance, Anchor::Start),
                    (x + 6.0, y + distance + 6.0, Anchor::End),
                    (x - 6.0, y + distance + 6.0, Anchor::Start),
                ]
            })
            .collect();
        let covered = |(x, y, anchor): &(f64, f64, Anchor)| {
            let left = match anchor {
                Anchor::Start => *x,
                Anchor::Middle => x - width / 2.0,
                Anchor::End => x - width,
            };
            [left, y - HEIGHT + 3.0, left + width, y + 3.0]
        };
        let covers = |place: &&(f64, f64, Anchor)| -> usize {
            let own = covered(place);
            self.lines.iter().filter(|(line, _)| !apart(own, *line)).map(|(_, counts)| counts).sum()
        };
        // The first of equally good places is the nearest.
        let free = places.iter().filter(|place| self.is_free(covered(place)));
        let Some((x, y, anchor)) = free.min_by_key(covers) else { return };
        let own = covered(&(*x, *y, *anchor));
        self.occupied.push(own);
        // A name that is far from its point needs a line to it.
        let [left, top, right, bottom] = own;
        let end = [point[0].clamp(left, right), point[1].clamp(top, bottom)];
        if (end[0] - point[0]).hypot(end[1] - point[1]) > FAR {
            svg.line("leader", [point[0], point[1], end[0], end[1]]);
        }
        svg.text(class, *anchor, [*x, *y], text);
    }

    fn is_free(&self, own: [f64; 4]) -> bool {
        let ([left, top, right, bottom], [w_left, w_top, w_right, w_bottom]) = (own, self.area);
        let inside = left >= w_left && top >= w_top && right <= w_right && bottom <= w_bottom;
        inside && self.occupied.iter().all(|other| apart(own, *other))
    }
}

/// Whether two boxes do not overlap.
fn apart(one: [f64; 4], other: [f64; 4]) -> bool {
    one[0] >= other[2] || one[2] <= other[0] || one[1] >= other[3] || one[3] <= other[1]
}
