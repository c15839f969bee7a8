#!/usr/bin/env python3
"""Measures what one core of this machine serves and writes loadtest/results: report.md, a picture a model, and k6's summaries.

    make capacity                                 a model of MovieLens-1M's shape, which is made for it
    make capacity ARGS="--model models/mine --step-seconds 20"

The server runs on its own cores (--server-cores) and k6 on the others. For each model there are four curves of latency over
offered load: routed and always full, each with the history cache and without. Their users return with one to three new items
(80 % of the requests; RETURNING). Coarse steps find where the objective breaks, fine ones draw the curve. A curve of which
requests left late is no measurement, and the report says so. The crossover is the lowest load from which on the routed
answers' p99 is below the full model's. Then every scenario runs against the first model. Servers are started and stopped
here; nothing else should run meanwhile.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path

from curve import draw
from machine import pinned, split
from model_files import versions
from serve import serving
from shape import MAX_LEN, write_shape

REPOSITORY = Path(__file__).resolve().parent.parent
# Room for the histories of the 1,000 users who may return, up to 2 MB each.
CACHE, NO_CACHE = ["--history-cache", "2GB"], ["--history-cache", "0"]
# Of each curve: the route that requests name, and flags of the server.
CURVES = {
    "routed": ("auto", CACHE),
    "routed, no cache": ("auto", NO_CACHE),
    "always full": ("full", CACHE),
    "always full, no cache": ("full", NO_CACHE),
}
# Coarse runs begin here and go up by this factor until the objective breaks.
FIRST_RATE, FACTOR, HIGHEST_RATE = 100, 4, 200_000
COARSE_STEPS = 8
# The last step of a curve, beside what the coarse steps found, and how much further it goes if that was not the end.
BEYOND, FURTHER = 1.5, 1.4


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, action="append", help="directory of a model; may be given again")
    options.add_argument("--out", type=Path, default=REPOSITORY / "loadtest" / "results")
    options.add_argument("--server-cores", type=int, default=1)
    options.add_argument("--steps", type=int, default=12, help="of a curve")
    options.add_argument("--step-seconds", type=float, default=10)
    options.add_argument("--coarse-seconds", type=float, default=2, help="of a coarse step")
    options.add_argument("--scenario-seconds", type=float, default=10, help="of each scenario; 0 leaves them out")
    options.add_argument("--p99-ms", type=float, default=100, help="the objective")
    options.add_argument("--late-ms", type=float, default=50, help="requests that leave later than this make a run invalid")
    options.add_argument("--serve", default="", help="further flags of canet serve")
    options.add_argument("--canet", type=Path, default=REPOSITORY / "target" / "release" / "canet")
    options = options.parse_args()
    options.slo = {"slo_p99_ms": options.p99_ms, "late_ms": options.late_ms, "sources": 8}
    models = options.model or [shaped(options.canet)]
    options.out.mkdir(parents=True, exist_ok=True)
    report, first = [heading(options)], None
    for model in models:
        curves = measure(model, options)
        first = first or curves
        report.append(section(model.name, curves, options.p99_ms))
    if options.scenario_seconds > 0:
        report.append(scenarios(models[0], capacity(first["always full, no cache"]), options))
    (options.out / "report.md").write_text("\n".join(report))
    print(f"the report is {options.out / 'report.md'}")


def shaped(canet):
    """A model of MovieLens-1M's shape, trained for some minutes on drawn users: its sizes are right, its taste is none."""
    directory = REPOSITORY / "target" / "loadtest" / "ml-1m-shaped"
    if not versions(directory):
        with tempfile.TemporaryDirectory() as scratch:
            data = Path(scratch) / "users.txt"
            write_shape(data)
            train = ["train", "--data", data, "--out", directory, "--epochs", "1", "--max-minutes", "3",
                     "--router-holdout", "0", "--settle-epochs", "0",
                     "--max-len", MAX_LEN, "--history-stride", MAX_LEN // 4,
                     "--hidden", "64,96,128", "--layers", "2,4,6,8", "--embedding", "64,96,128", "--heads", "4"]
            subprocess.run([canet, *map(str, train)], check=True)
    return directory


@contextmanager
def server(model, options, flags=()):
    """A server of the model on its cores; what starts in the block runs on the others."""
    server_cores, load_cores = split(options.server_cores)
    with ExitStack() as stack:
        with pinned(server_cores):
            addresses = stack.enter_context(serving(options.canet, model, [*options.serve.split(), *flags]))
        stack.enter_context(pinned(load_cores))
        yield addresses


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
    """The summaries of k6 for the curves of one model, and their picture."""
    curves = {}
    for name, (route, flags) in CURVES.items():
        with server(model, options, flags) as addresses, tempfile.TemporaryDirectory() as scratch:
            highest = BEYOND * coarse(Path(scratch) / "coarse", addresses, options, route)
        out = options.out / f"{model.name}-{name.replace(',', '').replace(' ', '-')}"
        # The coarse steps may have met a moment's noise: the curve must show its end.
        while name not in curves or not (curves[name]["capacity"] or {"found_the_end": True})["found_the_end"]:
            with server(model, options, flags) as addresses:
                curves[name] = k6(out, addresses, scenario="step-sessions", rate=round(highest), steps=options.steps, mix=route,
                                  duration=f"{options.steps * options.step_seconds}s", **options.slo)
            out.with_suffix(".html").unlink()
            highest *= FURTHER
    draw(options.out / f"{model.name}.svg", model.name, {name: summary["steps"] for name, summary in curves.items()},
         options.p99_ms)
    return curves


def coarse(out, addresses, options, route):
    """A rate near the highest at which the objective still holds."""
    rate = FIRST_RATE
    while True:
        found = k6(out, addresses, scenario="step-sessions", rate=rate, steps=COARSE_STEPS, mix=route,
                   duration=f"{COARSE_STEPS * options.coarse_seconds}s", **options.slo)["capacity"]
        if found is None:
            return rate / COARSE_STEPS
        if found["found_the_end"] or rate >= HIGHEST_RATE:
            return found["offered_rps"]
        rate *= FACTOR


def capacity(summary):
    """The highest offered load of a curve at which the objective held; 0 where it never did."""
    return summary["capacity"]["offered_rps"] if summary["capacity"] else 0


def crossover(routed, full):
    """The lowest load from which on the routed p99 is below the full one's; None where it never is."""
    lower = None
    for step in routed["steps"]:
        load = step["offered_rps"]
        if p99_at(routed["steps"], load) >= p99_at(full["steps"], load):
            lower = None
        elif lower is None:
            lower = load
    return lower


def p99_at(steps, load):
    """Between the steps of a curve; without an answer, and beyond the last step, it has no end."""
    points = [(0, 0)]
    points += [(step["offered_rps"], step["latency"]["p99_ms"] if step["latency"] else float("inf")) for step in steps]
    for (before, low), (after, high) in zip(points, points[1:]):
        if load <= after:
            return high if before == 0 else low + (high - low) * (load - before) / (after - before)
    return float("inf")


def section(name, curves, p99_ms):
    """What the report says of a model, from k6's summaries of its curves alone."""
    from_here = crossover(curves["routed, no cache"], curves["always full, no cache"])
    pays = f"from {from_here:g} requests/s on" if from_here is not None else "at no load that was tried"
    lines = [
        f"## {name}",
        "",
        f"Capacity at p99 <= {p99_ms:g} ms. {share(curves)} of the requests are of users who return:",
        "",
        "| | capacity, requests/s | at .6 of it: p50 ms | p99 ms | sent late, p99 ms |",
        "|---|---|---|---|---|",
        *(f"| {curve} | **{capacity(summary):g}** | {planned(summary)} |" for curve, summary in curves.items()),
        "",
        f"Without the cache, routing has the lower p99 {pays}.",
        "",
        *broken(curves),
        f"![Latency over offered load]({name}.svg)",
        "",
    ]
    for curve, summary in curves.items():
        lines += [
            f"### {name}, {curve}",
            "",
            "| offered/s | answered/s | refused | p50 ms | p99 ms | sent late, p99 ms |",
            "|---|---|---|---|---|---|",
            *(f"| {step['offered_rps']:g} | {step['answered_rps']:g} | {step['refused']} | {times(step)} |"
              for step in summary["steps"]),
            "",
        ]
    return "\n".join(lines)


def share(curves):
    return f"{100 * next(iter(curves.values()))['returning']:g} %"


def planned(summary):
    """The cells of the highest step that is at most .6 of the capacity, which is what one plans with."""
    below = [step for step in summary["steps"] if step["offered_rps"] <= 0.6 * capacity(summary)]
    return times(below[-1]) if below else "- | - | -"


def times(step):
    """Cells of a step: p50, p99, and the p99 of lateness."""
    found = [step["latency"] and step["latency"]["p50_ms"], step["latency"] and step["latency"]["p99_ms"]]
    found.append(step["sent_late"] and step["sent_late"]["p99_ms"])
    return " | ".join("-" if value is None else f"{value:.1f}" for value in found)


def broken(curves):
    """A paragraph on the objectives that curves broke, and on what late sending does to a capacity."""
    lines = [
        f"- {curve}: `{objective['objective']}`"
        for curve, summary in curves.items() for objective in summary["objectives"]
        # Steps beyond the capacity may well leave late.
        if not objective["ok"] and not objective["objective"].startswith("sent_late")
    ]
    found = {curve: summary["capacity"] for curve, summary in curves.items() if summary["capacity"]}
    late = [curve for curve, capacity in found.items() if capacity["late"]]
    if late:
        lines.append(f"- Requests left late up to the capacity of: {', '.join(late)}. k6 had too little of the machine, so these "
                     "are no measurements of the server.")
    lines = ["Objectives that these curves broke:", "", *lines, ""] if lines else ["No curve broke an objective of the load test.", ""]
    if at_least := [curve for curve, capacity in found.items() if capacity["at_least"] and not capacity["late"]]:
        lines += [f"k6 was late in the first steps beyond the capacity of: {', '.join(at_least)}. The server may be capable of more.", ""]
    return lines


def scenarios(model, full, options):
    """One line a scenario, at half of what the full route answers of new users (overload: at three times that, batch: at as
    many rows)."""
    rate = max(1, round(full / 2))
    lines = ["## Scenarios", "", f"Against {model.name}, R = {rate} requests/s unless said otherwise.", ""]
    names = ["smoke", "steady", "spike", "soak", "routes-one", "routes-uniform", "routes-zipf", "routes-flip", "short",
             "long", "sessions", "batch", "grpc", "reload", "overload"]
    own = {"batch": {"rate": max(1, rate // 16)}, "overload": {"rate": max(1, round(full)), "mix": "full"}}
    with server(model, options) as addresses, tempfile.TemporaryDirectory() as scratch:
        for name in names:
            settings = {"rate": rate, "duration": f"{options.scenario_seconds}s", **options.slo, **own.get(name, {})}
            summary = k6(Path(scratch) / name, addresses, scenario=name, **settings)
            latency = summary["latency"] or {"p50_ms": "-", "p99_ms": "-"}
            broken = [objective["objective"] for objective in summary["objectives"] if not objective["ok"]]
            lines.append(
                f"- `{name}` (R = {summary['rate']:g}): {summary['requests']} rows in {summary['seconds']:g} s, "
                f"{summary['answered_rps']:g}/s answered, {summary['refused']} refused, {summary['expired']} expired, "
                f"{summary['failed']} failed; p50 {latency['p50_ms']} ms, p99 {latency['p99_ms']} ms"
                + (f"; {summary['reloads']} reloads" if summary["reloads"] else "")
                + (f"; broken: {', '.join(broken)}" if broken else "")
            )
    return "\n".join([*lines, ""])


def heading(options):
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    said = subprocess.run([options.canet, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    server_cores, load_cores = split(options.server_cores)
    shared = " It shares them with the server." if server_cores & load_cores else ""
    return "\n".join([
        "# Capacity",
        "",
        f"{said}, {date.today()}, {cpu[1] if cpu else platform.machine()}: the server has {len(server_cores)} of "
        f"{os.cpu_count()} cores, and k6 sends from {len(load_cores)} of them.{shared} Poisson arrivals, "
        f"{options.step_seconds:g} s a step"
        + (f"; `canet serve {options.serve}`" if options.serve else "") + ". Made by `make capacity`.",
        "",
    ])


if __name__ == "__main__":
    main()
