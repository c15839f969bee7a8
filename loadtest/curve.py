"""The picture of latency over offered load."""

import matplotlib

matplotlib.use("svg")
# The same figures make the same file.
matplotlib.rcParams["svg.hashsalt"] = "canet"
matplotlib.rcParams["svg.fonttype"] = "none"

from matplotlib import pyplot  # noqa: E402  (the backend is chosen first)

COLOURS = ["#0b6e4f", "#b3471d"]


def draw(path, title, curves, objective_ms):
    """`curves`: name -> steps of a summary."""
    figure, axes = pyplot.subplots(figsize=(7.5, 4), layout="constrained")
    for (name, steps), colour in zip(curves.items(), COLOURS):
        known = [step for step in steps if step["latency"]]
        offered = [step["offered_rps"] for step in known]
        for field, style in (("p99_ms", "-"), ("p50_ms", ":")):
            label = f"{name}, {field[:3]}"
            axes.plot(offered, [step["latency"][field] for step in known], style, color=colour, marker=".", label=label)
    axes.axhline(objective_ms, color="#777", linewidth=0.8)
    axes.annotate("objective", (0, objective_ms), textcoords="offset points", xytext=(4, 4), color="#777")
    axes.set(title=title, xlabel="offered requests/s", ylabel="ms", yscale="log", xlim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
