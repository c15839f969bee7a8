#!/usr/bin/env python3
"""Measures what this machine serves and writes loadtest/results: report.md, a picture a model, and k6's summaries.

    make capacity                                 models/ml-100k, and a model of MovieLens-1M's shape made for it
    make capacity ARGS="--model models/mine --step-seconds 20"

For each model, routed and always full: coarse steps find where the objective breaks, fine ones draw latency over
offered load. The crossover is the lowest load from which on the routed answers' p99 is below the full model's. Then
every scenario runs against the first model. Servers are started and stopped here; nothing else should run meanwhile.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from curve import draw
from serve import serving
from shape import write_shape

REPOSITORY = Path(__file__).resolve().parent.parent
CANET = REPOSITORY / "target" / "release" / "canet"
ROUTES = {"auto": "routed", "full": "always full"}
# Coarse runs begin here and go up by this factor until the objective breaks.
FIRST_RATE, FACTOR, HIGHEST_RATE = 200, 4, 200_000


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, action="append", help="directory of a model; may be given again")
    options.add_argument("--out", type=Path, default=REPOSITORY / "loadtest" / "results")
    options.add_argument("--steps", type=int, default=16, help="of a curve")
    options.add_argument("--step-seconds", type=float, default=15)
    options.add_argument("--scenario-seconds", type=float, default=30, help="of each scenario; 0 leaves them out")
    options.add_argument("--p99-ms", type=float, default=100, help="the objective")
    options.add_argument("--serve", default="", help="further flags of canet serve")
    options = options.parse_args()
    models = options.model or [REPOSITORY / "models" / "ml-100k", shaped()]
    options.out.mkdir(parents=True, exist_ok=True)
    sections = [measure(model, options) for model in models]
    if options.scenario_seconds > 0:
        sections.append(scenarios(models[0], sections[0]["capacity"]["auto"], options))
    report = [heading(options)] + [section["text"] for section in sections]
    (options.out / "report.md").write_text("\n".join(report))
    print(f"the report is {options.out / 'report.md'}")


def shaped():
    """A model of MovieLens-1M's shape, trained for a minute on drawn users: its sizes are right, its taste is none."""
    directory = REPOSITORY / "target" / "loadtest" / "ml-1m-shaped"
    if not directory.is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            data = Path(scratch) / "users.txt"
            write_shape(data)
            train = ["train", "--data", data, "--out", directory, "--epochs", "1", "--max-minutes", "3",
                     "--router-holdout", "0", "--settle-epochs", "0",
                     "--hidden", "64,96,128", "--layers", "2,4,6,8", "--embedding", "64,96,128", "--heads", "4"]
            subprocess.run([CANET, *map(str, train)], check=True)
    return directory


def k6(out, addresses, **settings):
    """Runs one scenario and returns its summary."""
    environment = {**os.environ, "URL": f"http://{addresses['http']}", "GRPC": addresses["grpc"], "OUT": str(out)}
    environment.update({name.upper(): str(value) for name, value in settings.items()})
    out.with_suffix(".json").unlink(missing_ok=True)
    run = subprocess.run([REPOSITORY / "loadtest" / "run.sh"], env=environment, stdout=subprocess.PIPE, text=True)
    if run.returncode not in (0, 99):
        sys.exit(f"k6 ended with {run.returncode}: its message stands above")
    print(run.stdout.splitlines()[0], flush=True)
    return json.loads(out.with_suffix(".json").read_text())


def measure(model, options):
    """Curves of one model."""
    curves, capacity = {}, {}
    slo = {"slo_p99_ms": options.p99_ms, "sources": 8}
    with tempfile.TemporaryDirectory() as scratch:
        for route in ROUTES:
            with serving(CANET, model, options.serve.split()) as addresses:
                capacity[route] = coarse(Path(scratch) / "coarse", addresses, mix=route, **slo)
        highest, found = max(capacity.values()), {}
        # The coarse steps may have met a moment's noise: both curves must show their end.
        while not found or not all(end is None or end["found_the_end"] for end in found.values()):
            highest = round(1.4 * highest)
            for route in ROUTES:
                out = options.out / f"{model.name}-{route}"
                seconds = options.steps * options.step_seconds
                with serving(CANET, model, options.serve.split()) as addresses:
                    summary = k6(out, addresses, scenario="step", rate=highest, steps=options.steps,
                                 duration=f"{seconds}s", mix=route, **slo)
                out.with_suffix(".html").unlink()
                curves[route], found[route] = summary, summary["capacity"]
    picture = options.out / f"{model.name}.svg"
    draw(picture, model.name, {ROUTES[route]: summary["steps"] for route, summary in curves.items()}, options.p99_ms)
    return {"capacity": capacities(curves), "text": section(model.name, curves, options.p99_ms, picture.name)}


def capacities(curves):
    """The highest offered load of each curve at which the objective held; 0 where it never did."""
    ends = {route: summary["capacity"] for route, summary in curves.items()}
    return {route: end["offered_rps"] if end else 0 for route, end in ends.items()}


def coarse(out, addresses, **settings):
    """A rate near the highest at which the objective still holds."""
    rate = FIRST_RATE
    while True:
        found = k6(out, addresses, scenario="step", rate=rate, steps=8, duration="32s", **settings)["capacity"]
        if found is None:
            return rate / 8
        if found["found_the_end"] or rate >= HIGHEST_RATE:
            return found["offered_rps"]
        rate *= FACTOR


def crossover(steps):
    """The lowest offered load from which on the routed p99 is below the full one's; None where it never is."""
    lower = None
    for routed, full in zip(steps["auto"], steps["full"]):
        p99 = [step["latency"] and step["latency"]["p99_ms"] for step in (routed, full)]
        if None in p99 or p99[0] >= p99[1]:
            lower = None
        elif lower is None:
            lower = routed["offered_rps"]
    return lower


def section(name, curves, p99_ms, picture):
    """What the report says of a model, from k6's summaries of its curves alone."""
    capacity, steps = capacities(curves), {route: summary["steps"] for route, summary in curves.items()}
    from_here = crossover(steps)
    pays = f"from {from_here:g} requests/s on" if from_here is not None else "at no load that was tried"
    rows = [
        f"| {routed['offered_rps']:g} | {cells(routed)} | {cells(full)} |"
        for routed, full in zip(steps["auto"], steps["full"])
    ]
    return "\n".join([
        f"## {name}",
        "",
        f"Capacity at p99 <= {p99_ms:g} ms: **{capacity['auto']:g} requests/s** routed, "
        f"**{capacity['full']:g}** always full. Routing has the lower p99 {pays}.",
        "",
        *broken(curves),
        f"![Latency over offered load]({picture})",
        "",
        "| offered/s | routed: answered/s | p50 ms | p99 ms | full: answered/s | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
    ])


def broken(curves):
    """A paragraph on the objectives that curves broke, and on what late sending does to a capacity."""
    lines, late = [], False
    for route, summary in curves.items():
        for objective in summary["objectives"]:
            if objective["ok"]:
                continue
            measured = ""
            if objective["objective"].startswith("sent_late"):
                late, measured = True, f" (it was {summary['sent_late']['p99_ms']:.0f} ms)"
            lines.append(f"- {ROUTES[route]}: `{objective['objective']}`{measured}")
    if not lines:
        return []
    lines = ["Objectives that these curves broke, over all of their steps:", "", *lines, ""]
    if late:
        lines += [
            "Where requests left late k6 had too little of the machine, and the run is not valid by the rule of the load tests. "
            "Lateness is not known by step: it may have come from the steps above the capacity alone. So that curve's capacity "
            "is an indication for this machine with k6 on it, not a measurement of the server.",
            "",
        ]
    return lines


def cells(step):
    latency = step["latency"] or {"p50_ms": None, "p99_ms": None}
    times = ["-" if value is None else f"{value:.1f}" for value in (latency["p50_ms"], latency["p99_ms"])]
    return " | ".join([f"{step['answered_rps']:g}", *times])


def scenarios(model, capacity, options):
    """One line a scenario, at half of the capacity (overload: at three times, batch: at as many rows)."""
    rate = max(1, round(capacity / 2))
    lines = ["## Scenarios", "", f"Against {model.name}, R = {rate} requests/s unless said otherwise.", ""]
    names = ["smoke", "steady", "spike", "soak", "routes-one", "routes-uniform", "routes-zipf", "routes-flip", "short",
             "long", "batch", "grpc", "reload", "overload"]
    with serving(CANET, model, options.serve.split()) as addresses, \
            tempfile.TemporaryDirectory() as scratch:
        for name in names:
            own = {"batch": max(1, rate // 16), "overload": max(1, round(capacity)), "routes-one": max(1, rate // 2)}
            summary = k6(Path(scratch) / name, addresses, scenario=name, rate=own.get(name, rate), sources=8,
                         duration=f"{options.scenario_seconds}s", slo_p99_ms=options.p99_ms)
            latency = summary["latency"] or {"p50_ms": "-", "p99_ms": "-"}
            broken = [objective["objective"] for objective in summary["objectives"] if not objective["ok"]]
            lines.append(
                f"- `{name}` (R = {summary['rate']:g}): {summary['requests']} rows in {summary['seconds']:g} s, "
                f"{summary['answered_rps']:g}/s answered, {summary['refused']} refused, {summary['expired']} expired, "
                f"{summary['failed']} failed; p50 {latency['p50_ms']} ms, p99 {latency['p99_ms']} ms"
                + (f"; {summary['reloads']} reloads" if summary["reloads"] else "")
                + (f"; broken: {', '.join(broken)}" if broken else "")
            )
    return {"text": "\n".join([*lines, ""])}


def heading(options):
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    version = subprocess.run([CANET, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return "\n".join([
        "# Capacity",
        "",
        f"{version}, {date.today()}, {os.cpu_count()} cores of {cpu[1] if cpu else platform.machine()}; k6 sends from "
        f"the same machine and takes its share. Poisson arrivals, drawn histories, {options.step_seconds:g} s a step"
        + (f"; `canet serve {options.serve}`" if options.serve else "") + ". Made by `make capacity`.",
        "",
    ])


if __name__ == "__main__":
    main()
