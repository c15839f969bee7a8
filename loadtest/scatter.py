"""A picture of points, as SVG that follows the reader's light or dark, in the style of `canet report`."""

import math
from pathlib import Path

STYLE = Path(__file__).resolve().parent.parent / "src" / "report" / "plot" / "plot.css"
WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 56, 44
# Classes of the style: a dot, and the bar of its spread. A pair for each series.
MARKS = [("static-dot", "open-bar"), ("matched-dot", "matched"), ("routed-dot", "bar"), ("worse-dot", "worse-bar")]


def scatter(series, across, up, across_name, up_name):
    """`series`: name -> points; a point is its place `across`, its value `up`, and that value's `least` and `greatest`.

    Both axes begin at 0, and a line goes from there to the last point.
    """
    if len(series) > len(MARKS):
        raise SystemExit(f"{len(series)} series are too many: the picture has marks for {len(MARKS)}")
    points = [point for list_ in series.values() for point in list_]
    steps = [step(max(point[across] for point in points)), step(max(point["greatest"] for point in points))]
    ends = [5 * steps[0], 5 * steps[1]]

    def x(value):
        return LEFT + value / ends[0] * (WIDTH - LEFT - RIGHT)

    def y(value):
        return HEIGHT - BOTTOM - value / ends[1] * (HEIGHT - TOP - BOTTOM)

    def line(style, *ends_):
        return '<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'.format(style, *ends_)

    def text(left, top, said, anchor="start"):
        return f'<text x="{left:.1f}" y="{top:.1f}" text-anchor="{anchor}">{said}</text>'

    drawn = []
    for place in range(6):
        drawn += [
            line("axis" if place == 0 else "grid", LEFT, y(place * steps[1]), WIDTH - RIGHT, y(place * steps[1])),
            text(LEFT - 8, y(place * steps[1]) + 4, f"{place * steps[1]:g}", "end"),
            text(x(place * steps[0]), HEIGHT - BOTTOM + 18, f"{place * steps[0]:g}", "middle"),
        ]
    drawn.append(text(WIDTH - RIGHT, HEIGHT - 8, across_name, "end"))
    dearest = max(points, key=lambda point: point[across])
    drawn.append(line("zero", x(0), y(0), x(dearest[across]), y(dearest[up])))
    left = LEFT
    for (name, list_), (dot, bar) in zip(series.items(), MARKS):
        drawn += [f'<circle class="{dot}" cx="{left + 4}" cy="14" r="4"/>', text(left + 14, 18, name)]
        left += 96
        for point in list_:
            title = f"<title>{point[across]:g}: {point[up]:g} ({point['least']:g} to {point['greatest']:g})</title>"
            place = x(point[across])
            drawn.append(line(bar, place, y(point["least"]), place, y(point["greatest"])))
            drawn.append(f'<circle class="{dot}" cx="{place:.1f}" cy="{y(point[up]):.1f}" r="4">{title}</circle>')
    drawn += [line("zero", left, 14, left + 20, 14), text(left + 28, 18, "in proportion to the full route")]
    drawn.append(text(4, 34, up_name))
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    label = f"{up_name} against {across_name}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}" {size}>'
    ground = '<rect class="ground" width="100%" height="100%"/>'
    return "\n".join([head, f"<style>\n{STYLE.read_text()}</style>", ground, *drawn, "</svg>"]) + "\n"


def step(most):
    """The least round number of which five reach `most`."""
    power = 10.0 ** math.floor(math.log10(most / 5))
    return next(power * factor for factor in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if power * factor * 5 >= most)
