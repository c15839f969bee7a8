#!/usr/bin/env python3
"""Measures the CPU that `canet serve` takes for a request outside the model, with wrk on the same machine.

    http_cost.py --model models/ml-100k [--canet target/release/canet,OTHER] [--connections 32] [--rounds 5] [--seconds 3]
                 [--answer-log] [--json FILE]

Three kinds of request: a cold start, which runs no model, and two that name the smallest and the full route for a history
of 15 items.
CPU is that of the server's threads but the executors, as the kernel counts it for each, over the requests that wrk saw
answered. Several binaries are measured in turns, each with a server of its own. Their ratios to the first within a round
are printed as a mean with its standard error: what slows the machine down slows all.

With --answer-log every request has one of many users, and each binary has two servers: one without an answer log, and one
that writes all answers to files.
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
from model_files import item_ids, newest
from serve import serving

ITEMS = 15
USERS = 5000


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", required=True, type=Path)
    options.add_argument("--canet", default="target/release/canet", type=lambda text: text.split(","))
    options.add_argument("--connections", default=32, type=int)
    options.add_argument("--rounds", default=5, type=int)
    options.add_argument("--seconds", default=3, type=int)
    options.add_argument("--answer-log", action="store_true", help="compare servers with and without an answer log")
    options.add_argument("--json", type=Path)
    options = options.parse_args()
    history = item_ids(newest(options.model))[:ITEMS]
    requests = {
        "cold start": {"history": []},
        "smallest route": {"history": history, "route": "smallest"},
        "full route": {"history": history, "route": "full"},
    }
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {
            name: stack.enter_context(serving(binary, options.model, ["--log", "info", *flags]))
            for name, binary, flags in variants(options, scratch)
        }
        found = {name: {server: [] for server in servers} for name in requests}
        for round_ in range(options.rounds):
            # Every second round goes backwards, so that none is always after the same one.
            turns = list(servers.items())[:: -1 if round_ % 2 else 1]
            for name, request in requests.items():
                for binary, server in turns:
                    found[name][binary].append(measure(server, request, options))
    rows = []
    for name, runs_by_server in found.items():
        first = next(iter(runs_by_server.values()))
        for server, runs in runs_by_server.items():
            cpu = [run["cpu_us"] for run in runs]
            ratios = [run["cpu_us"] / one["cpu_us"] for run, one in zip(runs, first)]
            rates = [run["requests_per_second"] / one["requests_per_second"] for run, one in zip(runs, first)]
            rows.append(
                {
                    "request": name,
                    "canet": server,
                    "cpu_us": statistics.median(cpu),
                    "least": min(cpu),
                    "greatest": max(cpu),
                    "to_first": statistics.mean(ratios),
                    "to_first_se": standard_error(ratios),
                    "requests_per_second": statistics.median(run["requests_per_second"] for run in runs),
                    "rate_to_first": statistics.mean(rates),
                    "rate_to_first_se": standard_error(rates),
                }
            )
            row = rows[-1]
            print(
                f"{name:>15}, {server}: {row['cpu_us']:.1f} us of CPU a request outside the model "
                f"({row['least']:.1f} to {row['greatest']:.1f}), {row['requests_per_second']:.0f} requests/s, "
                f"{with_error(row['to_first'], row['to_first_se'])} x the first's CPU, "
                f"{with_error(row['rate_to_first'], row['rate_to_first_se'])} x its rate"
            )
    if options.json:
        document = {**described(), "connections": options.connections, "rounds": options.rounds, "rows": rows}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def standard_error(values):
    """Of their mean. One round has none."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def with_error(mean, error):
    return f"{mean:.3f}" if error is None else f"{mean:.3f} ±{error:.3f}"


def variants(options, scratch):
    """`(name, binary, flags)` of every server."""
    for number, binary in enumerate(options.canet):
        if not options.answer_log:
            yield binary, binary, []
            continue
        yield f"{binary}, no answer log", binary, []
        yield f"{binary}, an answer log", binary, ["--answer-log", str(scratch / f"answers-{number}")]


def bodies(request, options):
    """The bodies that are sent in turn, as a Lua table."""
    users = [{"user": f"user-{number}"} for number in range(USERS)] if options.answer_log else [{}]
    return "{" + ",".join(f"[==[{json.dumps(request | user)}]==]" for user in users) + "}"


def measure(server, request, options):
    """One run of wrk: requests a second, and microseconds of CPU a request."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(
            'wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\n'
            f"local bodies, requests, place = {bodies(request, options)}, {{}}, 0\n"
            "function init()\n"
            "  for index, body in ipairs(bodies) do requests[index] = wrk.format(nil, nil, nil, body) end\n"
            "end\n"
            "function request()\n  place = place % #requests + 1\n  return requests[place]\nend\n"
        )
        script.flush()
        command = ["wrk", "-t1", f"-c{options.connections}", f"-d{options.seconds}s", "-s", script.name]
        command.append(f"http://{server['http']}/recommend")
        before, started = cpu_ns(server["pid"]), time.perf_counter()
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        took, spent = time.perf_counter() - started, cpu_ns(server["pid"]) - before
    # The CPU of a request that got no answer would count for those that did.
    if "Non-2xx" in said or "Socket errors" in said:
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
