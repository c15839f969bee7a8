#!/usr/bin/env python3
"""Measures the CPU that `canet serve` takes for a request outside the model, with wrk on the same machine.

    http.py --model models/ml-100k [--canet target/release/canet,OTHER] [--connections 32] [--rounds 5] [--seconds 3]
            [--json FILE]

Two kinds of request: a cold start, which runs no model, and one that names the smallest route for a history of 15 items.
CPU is that of the server's threads but the executors, as the kernel counts it for each, over the requests that wrk saw
answered. Several binaries are measured in turns, each with a server of its own, and their ratio to the first is printed
with its spread: what slows the machine down slows all.
"""

import argparse
import json
import re
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from machine import described
from serve import serving

ITEMS = 15


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", required=True, type=Path)
    options.add_argument("--canet", default="target/release/canet", type=lambda text: text.split(","))
    options.add_argument("--connections", default=32, type=int)
    options.add_argument("--rounds", default=5, type=int)
    options.add_argument("--seconds", default=3, type=int)
    options.add_argument("--json", type=Path)
    options = options.parse_args()
    version = max(int(path.name) for path in options.model.iterdir() if path.name.isdigit())
    items = (options.model / str(version) / "items.tsv").read_text().split("\n")[:ITEMS]
    requests = {
        "cold start": {"history": []},
        "smallest route": {"history": [line.split("\t")[0] for line in items], "route": "smallest"},
    }
    found = {name: {binary: [] for binary in options.canet} for name in requests}
    with ExitStack() as stack:
        servers = {
            binary: stack.enter_context(serving(binary, options.model, ["--log", "info"])) for binary in options.canet
        }
        for _ in range(options.rounds):
            for name, request in requests.items():
                for binary, server in servers.items():
                    found[name][binary].append(measure(server, request, options))
    rows = []
    for name, binaries in found.items():
        first = binaries[options.canet[0]]
        for binary, runs in binaries.items():
            cpu = [run["cpu_us"] for run in runs]
            ratios = [run["cpu_us"] / one["cpu_us"] for run, one in zip(runs, first)]
            rows.append(
                {
                    "request": name,
                    "canet": binary,
                    "cpu_us": statistics.median(cpu),
                    "least": min(cpu),
                    "greatest": max(cpu),
                    "to_first": statistics.median(ratios),
                    "to_first_least": min(ratios),
                    "to_first_greatest": max(ratios),
                    "requests_per_second": statistics.median(run["requests_per_second"] for run in runs),
                }
            )
            row = rows[-1]
            print(
                f"{name:>15}, {binary}: {row['cpu_us']:.1f} us of CPU a request outside the model "
                f"({row['least']:.1f} to {row['greatest']:.1f}), {row['requests_per_second']:.0f} requests/s, "
                f"{row['to_first']:.2f} x the first ({row['to_first_least']:.2f} to {row['to_first_greatest']:.2f})"
            )
    if options.json:
        document = {**described(), "connections": options.connections, "rounds": options.rounds, "rows": rows}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def measure(server, request, options):
    """One run of wrk: requests a second, and microseconds of CPU a request."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(
            'wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\n'
            f"wrk.body = [==[{json.dumps(request)}]==]\n"
        )
        script.flush()
        command = ["wrk", "-t1", f"-c{options.connections}", f"-d{options.seconds}s", "-s", script.name]
        command.append(f"http://{server['http']}/recommend")
        before, started = cpu_ns(server["pid"]), time.perf_counter()
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        took, spent = time.perf_counter() - started, cpu_ns(server["pid"]) - before
    if "Non-2xx" in said:
        raise SystemExit(f"not every request was answered:\n{said}")
    answered = int(re.search(r"(\d+) requests in", said)[1])
    return {"requests_per_second": answered / took, "cpu_us": spent / answered / 1e3}


def cpu_ns(pid):
    """Of the threads that run no model."""
    threads = (Path(f"/proc/{pid}/task") / name.name for name in Path(f"/proc/{pid}/task").iterdir())
    others = [task for task in threads if not (task / "comm").read_text().startswith("executor")]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in others)


if __name__ == "__main__":
    main()
