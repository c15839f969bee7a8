#!/usr/bin/env python3
"""Times many users at once: `canet.Model.recommend`, `canet rank`, and PyTorch eager on the same route.

    batch.py --model DIR --histories data.txt [--users 100000] [--routes full,auto] [--rounds 5] [--threads 1] [--clock cpu]

Run it by a Python that has the wheel, pyarrow and PyTorch, such as target/test-python/bin/python after `make test-python`; the command
`canet` is then that of the wheel, too. Users are drawn from the file, lines `user item item ...`, with replacement. Each round times
everybody once, in another order. What is printed is the median over the rounds, with the least and the greatest. On a machine that does
other work, --clock cpu counts the processors' time instead of the clock's.

`process` is a whole program, from a Parquet file to a Parquet file: `canet rank --out`, against examples/ray_rank.py's call without Ray.
`call` is `Model.recommend` on Arrow lists, against the time of `canet rank` beyond that for 100 users. PyTorch's time is that of the
forward, the mask of seen items, and the ten best, in batches of 256. Its histories are encoded and padded before.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow
import torch
from pyarrow import parquet

import canet

K, BATCH, FEW = 10, 256, 100

PROGRAM = """
import sys, canet
from pyarrow import parquet
model, data, out, route, threads = sys.argv[1:]
users = parquet.read_table(data)
found = canet.Model(model, threads=int(threads)).recommend(users["history"], k=10, route=route).to_arrow()
parquet.write_table(found.add_column(0, "user", users["user"]), out, compression="zstd")
"""


def cpu_seconds():
    """Of this process and of those that it ran."""
    return sum(os.times()[:4])


CLOCKS = {"wall": time.perf_counter, "cpu": cpu_seconds}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--histories", type=Path, required=True)
    options.add_argument("--users", type=int, default=100_000, help=f"more than {FEW}")
    options.add_argument("--torch-users", type=int, default=10_000)
    options.add_argument("--routes", default="full,auto")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--clock", choices=CLOCKS, default="wall")
    options.add_argument("--canet", type=Path, default=Path(sys.executable).with_name("canet"))
    options = options.parse_args()
    if options.users <= FEW:
        sys.exit(f"--users {options.users}: use more than {FEW}, because the time of {FEW} users is taken off")
    torch.set_num_threads(options.threads)
    lines = [line.split()[1:] for line in options.histories.read_text(encoding="utf-8").splitlines()]
    histories = random.Random(1).choices(lines, k=options.users)
    with tempfile.TemporaryDirectory() as scratch:
        for route in options.routes.split(","):
            measure(options, histories, route, Path(scratch))


def measure(options, histories, route, scratch):
    users = [f"u{place}" for place in range(len(histories))]
    events(users, histories, scratch / "log.parquet")
    events(users[:FEW], histories[:FEW], scratch / "few.parquet")
    parquet.write_table(pyarrow.table({"user": users, "history": histories}), scratch / "users.parquet")
    lists = pyarrow.array(histories, pyarrow.list_(pyarrow.string()))
    model = canet.Model(options.model, threads=options.threads)
    rank = [options.canet, "rank", "--model", options.model, "--k", K, "--route", route, "--threads", options.threads]

    def command(data, out):
        run([*rank, "--data", scratch / data, "--out", scratch / out])

    def program():
        run([sys.executable, "-c", PROGRAM, options.model, scratch / "users.parquet", scratch / "python.parquet", route, options.threads])

    timed = {
        "rank, process": lambda: command("log.parquet", "rank.parquet"),
        "rank, 100 users": lambda: command("few.parquet", "few-rank.parquet"),
        "module, process": program,
        "module, call": lambda: model.recommend(lists, k=K, route=route),
    }
    ranked_by_torch = min(options.torch_users, len(histories))
    if route != "auto":
        module = canet.to_torch(options.model, route)
        batches = encoded(module, histories[:ranked_by_torch])
        timed["torch"] = lambda: eager(module, batches)
    seconds = {name: [] for name in timed}
    for place in range(options.rounds):
        names = list(timed)
        for name in names[place % len(names) :] + names[: place % len(names)]:
            began = CLOCKS[options.clock]()
            timed[name]()
            seconds[name].append(CLOCKS[options.clock]() - began)
    same = parquet.read_table(scratch / "rank.parquet").to_pydict() == parquet.read_table(scratch / "python.parquet").to_pydict()
    print(f"route {route}, {len(histories)} users, {options.threads} threads, {options.clock} seconds; same answers: {same}")
    for name, found in seconds.items():
        count = {"torch": ranked_by_torch, "rank, 100 users": FEW}.get(name, len(histories))
        print(f"  {name:16} {spread(found)} s, {count / statistics.median(found):10.0f} users/s")
    ranked = [whole - few for whole, few in zip(seconds["rank, process"], seconds["rank, 100 users"])]
    say("module / rank, throughput of the process", divide(seconds["rank, process"], seconds["module, process"]))
    say("module / rank, throughput of the call", divide(ranked, seconds["module, call"]))
    if "torch" in seconds:
        share = len(histories) / ranked_by_torch
        say("module / PyTorch eager, throughput of the call", [share * ratio for ratio in divide(seconds["torch"], seconds["module, call"])])


def events(users, histories, path):
    """Writes a log of interactions."""
    rows = [(user, item, place) for user, items in zip(users, histories) for place, item in enumerate(items)]
    parquet.write_table(pyarrow.table(list(zip(*rows)), ["user", "item", "timestamp"]), path)


def encoded(module, histories):
    """Batches of padded histories. Histories of like length share a batch, so that little is padded."""
    histories = sorted(histories, key=len)
    return [module.encode(histories[first : first + BATCH]) for first in range(0, len(histories), BATCH)]


def eager(module, batches):
    with torch.inference_mode():
        for rows in batches:
            scores = module(rows)
            # Items of the history, and the padding in column 0.
            scores.scatter_(1, rows, float("-inf"))
            scores[:, 0] = float("-inf")
            scores.topk(K, dim=1)


def run(command):
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def divide(numerators, denominators):
    return [numerator / denominator for numerator, denominator in zip(numerators, denominators)]


def spread(values):
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def say(name, ratios):
    print(f"  {name}: {spread(ratios)}", flush=True)


if __name__ == "__main__":
    main()
