"""The picture of latency over offered load."""

import matplotlib

matplotlib.use("svg")
# The same figures make the same file.
matplotlib.rcParams["svg.hashsalt"] = "canet"
matplotlib.rcParams["svg.fonttype"] = "none"

from matplotlib import pyplot  # noqa: E402  (the backend is chosen first)
from matplotlib.ticker import FuncFormatter  # noqa: E402

COLOURS = ["#0b6e4f", "#5aa98b", "#b3471d", "#d9a06b"]


def draw(path, title, curves, objective_ms):
    """`curves`: name -> steps of a summary."""
    figure, axes = pyplot.subplots(figsize=(7.5, 4), layout="constrained")
    for (name, steps), colour in zip(curves.items(), COLOURS):
        known = [step for step in steps if step["latency"]]
        offered = [step["offered_rps"] for step in known]
        for field, style in (("p99_ms", "-"), ("p50_ms", ":")):
            label = name if field == "p99_ms" else None
            axes.plot(offered, [step["latency"][field] for step in known], style, color=colour, marker=".", label=label)
    axes.axhline(objective_ms, color="#777", linewidth=0.8)
    left = {"xycoords": axes.get_yaxis_transform(), "ha": "left", "color": "#777"}
    axes.annotate("objective", (0, objective_ms), textcoords="offset points", xytext=(4, 4), **left)
    axes.set_title(title, loc="right")
    axes.set(xlabel="offered requests/s", ylabel="ms: 99 % (line), 50 % (dots)", xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
