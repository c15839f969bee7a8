"""Draws panels of the dashboards from what a Prometheus recorded."""

import json
import math
from pathlib import Path

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot  # noqa: E402  (the backend is chosen first)
from matplotlib.ticker import FuncFormatter, PercentFormatter  # noqa: E402

DASHBOARDS = Path(__file__).resolve().parent / "dashboards"
PANELS = [
    ("compute-savings", "Saved over time"), ("compute-savings", "Floating-point operations a second"),
    ("compute-savings", "Saved a second, by route"), ("compute-savings", "Device time saved, by route"),
    ("latency-by-route", "Calls: latency"), ("latency-by-route", "p99 by route"),
    ("engine", "Rows a batch, by lane"), ("engine", "Rows refused or given up"),
    ("checkpoints", "Agreement with the full model"), ("checkpoints", "What the router chooses"),
]
# Series of a panel that are drawn by themselves; the others are drawn grey or added up.
NAMED = 6
COLOURS = ["#0b6e4f", "#b3471d", "#2f5d8a", "#b58900", "#7a4e8c", "#4b4b4b"]


def draw(path, history):
    """`history(expression)` gives `(labels, times, values)` of every series."""
    figure, grid = pyplot.subplots(len(PANELS) // 2, 2, figsize=(13, 15), layout="constrained")
    for axes, (dashboard, title) in zip(grid.flat, PANELS):
        panels = json.loads((DASHBOARDS / f"{dashboard}.json").read_text())["panels"]
        panel = next(panel for panel in panels if panel["title"] == title)
        draw_panel(axes, panel, history)
        axes.set_title(f"{dashboard}: {title}", loc="left", fontsize=10)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def draw_panel(axes, panel, history):
    series = []
    for target in panel["targets"]:
        for labels, times, values in history(target["expr"]):
            legend = target["legendFormat"]
            for name, value in labels.items():
                legend = legend.replace("{{" + name + "}}", value)
            series.append((legend, times, values))
    series = [one for one in series if any(value > 0 for value in one[2] if math.isfinite(value))]
    series.sort(key=lambda one: -sum(value for value in one[2] if math.isfinite(value)))
    defaults = panel["fieldConfig"]["defaults"]
    if "custom" in defaults:
        stack(axes, series)
    else:
        for place, (legend, times, values) in enumerate(series):
            named = place < NAMED
            axes.plot(times, values, color=COLOURS[place] if named else "#d0d0d0", label=legend if named else None,
                      linewidth=1.6 if named else 0.7, zorder=3 if named else 1)
    axes.yaxis.set_major_formatter({
        "percentunit": PercentFormatter(1), "s": FuncFormatter(lambda seconds, _: f"{seconds * 1000:g} ms"),
    }.get(defaults["unit"], FuncFormatter(lambda number, _: si(number))))
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_xlabel("seconds", fontsize=8)
    if len(series) > 1:
        axes.legend(fontsize=7, frameon=False, ncols=2, loc="upper left")
        axes.set_ylim(top=axes.get_ylim()[1] * 1.25)


def stack(axes, series):
    times = sorted({time for _, own, _ in series for time in own})
    rows = []
    for _, own, values in series:
        at = dict(zip(own, values))
        rows.append([at[time] if time in at and math.isfinite(at[time]) else 0.0 for time in times])
    if len(rows) > NAMED:
        rest = [sum(column) for column in zip(*rows[NAMED - 1:])]
        rows = rows[:NAMED - 1] + [rest]
        labels = [legend for legend, _, _ in series[:NAMED - 1]] + [f"{len(series) - NAMED + 1} more"]
    else:
        labels = [legend for legend, _, _ in series]
    if rows:
        axes.stackplot(times, rows, labels=labels, colors=COLOURS, alpha=0.85)


def si(number):
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:g} {unit}"
    return f"{number:g}"
