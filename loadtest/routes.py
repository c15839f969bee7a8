#!/usr/bin/env python3
"""Measures the time of every route beside its FLOPs and draws it: is what routing saves of the one saved of the other?

    routes.py --model models/ml-100k [--histories FILE] [--rounds 5] [--seconds 0.4] [--batch 8] [--json FILE] [--svg FILE]

Every route is timed once a round by `canet bench` on one core, its router included, in an order drawn anew. A route's time
is the median over the rounds. Saved time is 1 - the route's time over the full route's, saved FLOPs the same of FLOPs.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
from pathlib import Path

import model_files
from machine import described
from scatter import scatter


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", required=True, type=Path)
    options.add_argument("--histories", type=Path)
    options.add_argument("--rounds", default=5, type=int)
    options.add_argument("--seconds", default=0.4, type=float)
    options.add_argument("--batch", default=8, type=int)
    options.add_argument("--canet", default="target/release/canet")
    options.add_argument("--json", type=Path)
    options.add_argument("--svg", type=Path)
    options = options.parse_args()
    config = model_files.config(model_files.newest(options.model))
    names = model_files.route_names(config)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rounds = [bench(options, names, seed) for seed in range(options.rounds)]
    full = names[-1]
    routes, shares = {}, [saved(one, names, full) for one in rounds]
    for name in names:
        times = [1e6 / one[name]["requests_per_second"] for one in rounds]
        routes[name] = {
            "mflops": round(rounds[0][name]["mean_flops"] / 1e6, 3),
            "us": round(statistics.median(times), 2),
            "least": round(min(times), 2),
            "greatest": round(max(times), 2),
        }
    document = {
        **described(),
        "model": options.model.name,
        "batch": options.batch,
        "rounds": options.rounds,
        "saved_time_of_saved_flops": {
            "median": round(statistics.median(shares), 4),
            "least": round(min(shares), 4),
            "greatest": round(max(shares), 4),
            "aim": 0.9,
        },
        "routes": routes,
    }
    print(json.dumps(document["saved_time_of_saved_flops"]))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.svg:
        by_width = {f"width {h}": [routes[name] for name in names if name.startswith(f"h{h}-")] for h in config["hidden"]}
        options.svg.write_text(scatter(by_width, "mflops", "us", "MFLOPs a request, router included", "microseconds"))


def bench(options, names, seed):
    """What each route does, by name."""
    order = random.Random(seed).sample(names, len(names))
    command = [options.canet, "bench", "--model", options.model, "--json", "--threads", "1", "--batch", options.batch]
    command += ["--seconds", options.seconds, "--workload", ",".join(order)]
    command += ["--histories", options.histories] if options.histories else []
    document = json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)
    return {result["workload"]: result for result in document["results"]}


def saved(round_, names, full):
    """Of all routes together, each as often: the share of time that is saved over the share of FLOPs."""
    time = statistics.mean(1 / round_[name]["requests_per_second"] for name in names)
    flops = statistics.mean(round_[name]["mean_flops"] for name in names)
    return (1 - time * round_[full]["requests_per_second"]) / (1 - flops / round_[full]["mean_flops"])


if __name__ == "__main__":
    main()
