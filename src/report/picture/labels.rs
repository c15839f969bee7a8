use super::svg::{Anchor, Svg, text_width};

const HEIGHT: f64 = 13.0;

/// Puts names beside points where they cover nothing that was kept free before.
pub(super) struct Labels {
    /// Left, top, right, bottom.
    within: [f64; 4],
    taken: Vec<[f64; 4]>,
    /// What a name may cross where there is no better place.
    lines: Vec<[f64; 4]>,
}

impl Labels {
    pub(super) fn new(within: [f64; 4]) -> Labels {
        Labels { within, taken: Vec::new(), lines: Vec::new() }
    }

    /// Keeps a point free.
    pub(super) fn keep(&mut self, [x, y]: [f64; 2], radius: f64) {
        self.taken.push([x - radius, y - radius, x + radius, y + radius]);
    }

    /// Keeps a line free as far as there is room elsewhere.
    pub(super) fn keep_line(&mut self, [a, b]: [[f64; 2]; 2]) {
        let steps = ((b[0] - a[0]).hypot(b[1] - a[1]) / 6.0).ceil().max(1.0);
        for step in 0..=steps as usize {
            let share = step as f64 / steps;
            let [x, y] = [a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])];
            self.lines.push([x - 2.0, y - 2.0, x + 2.0, y + 2.0]);
        }
    }

    /// Writes a name near its point; where there is no room it is left to the point's tip.
    pub(super) fn name(&mut self, svg: &mut Svg, class: &str, [x, y]: [f64; 2], text: &str) {
        let width = text_width(text);
        let tries: Vec<(f64, f64, Anchor)> = [8.0, 16.0, 28.0]
            .into_iter()
            .flat_map(|far| {
                [
                    (x, y - far, Anchor::Middle),
                    (x, y + far + HEIGHT - 3.0, Anchor::Middle),
                    (x + far, y + 4.0, Anchor::Start),
                    (x - far, y + 4.0, Anchor::End),
                    (x + far, y - far, Anchor::Start),
                    (x - far, y - far, Anchor::End),
                    (x + far, y + far + 6.0, Anchor::Start),
                    (x - far, y + far + 6.0, Anchor::End),
                    // For points at the edges.
                    (x + 6.0, y - far, Anchor::End),
                    (x - 6.0, y - far, Anchor::Start),
                    (x + 6.0, y + far + 6.0, Anchor::End),
                    (x - 6.0, y + far + 6.0, Anchor::Start),
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
        let off_lines = |place: &&(f64, f64, Anchor)| self.lines.iter().all(|line| apart(covered(place), *line));
        let mut free = tries.iter().filter(|place| self.is_free(covered(place)));
        let Some((x, y, anchor)) = free.clone().find(off_lines).or_else(|| free.next()) else { return };
        self.taken.push(covered(&(*x, *y, *anchor)));
        svg.text(class, *anchor, [*x, *y], text);
    }

    fn is_free(&self, own: [f64; 4]) -> bool {
        let ([left, top, right, bottom], [w_left, w_top, w_right, w_bottom]) = (own, self.within);
        let inside = left >= w_left && top >= w_top && right <= w_right && bottom <= w_bottom;
        inside && self.taken.iter().all(|other| apart(own, *other))
    }
}

/// Whether two boxes share nothing.
fn apart(one: [f64; 4], other: [f64; 4]) -> bool {
    one[0] >= other[2] || one[2] <= other[0] || one[1] >= other[3] || one[3] <= other[1]
}
