#!/usr/bin/env python3
"""Times canet and its peers on one model, the same histories and the same cores, in turns, and prints ratios.

    compare.py --histories data.txt [--model models/ml-100k] [--rounds 5] [--seconds 1] [--batch 1,8,32,64] [--json FILE]

Without --model one is trained on the histories for some minutes, of the paper's sizes, and kept in target/peers: how good
it is does not change how fast it is.

The peers run the full route on one thread: score, mask what was seen, take the ten best. canet runs workloads of `canet
bench` on the same histories, its router included, on one thread of the same core. Each round times everybody once, so
that what slows the machine down slows all; a ratio is of two runs in one round, and what is printed is the median over
the rounds with the least and the greatest. Nothing is timed before canet has served each peer's ten best items. What
LibTorch gains by lanes of a width, and two cores over one, is measured in the same rounds.
"""

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from checkpoint import Checkpoint
from network import padded
from runtimes import PEERS

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.append(str(REPOSITORY / "loadtest"))

from machine import described  # noqa: E402
from serve import serving  # noqa: E402

# Scores closer than this may change places: both sides round.
TIE = 1e-4
COMPARED = 64
# Histories whose ten best items are compared between precisions, each on one route in turn.
OVERLAPPED = 1008
# What keeps its queue full: as many requests as a batch takes.
FULL = 64

# By the number of requests in flight: how many times ONNX Runtime's requests a second are aimed at.
AIMS = {1: 1.7, 8: 1.5, 32: 1.5, 64: 1.5}


def main():
    options = arguments()
    options.model = options.model or trained(options)
    checkpoint = Checkpoint.read(options.model)
    histories = checkpoint.histories(options.histories)
    random.Random(1).shuffle(histories)
    peers = {name: make(checkpoint, "full", 1) for name, make in PEERS.items()}
    for name, peer in peers.items():
        agree(options, checkpoint, histories[:COMPARED], name, peer)
    print(f"the same ten best items of {COMPARED} histories; now {options.rounds} rounds", flush=True)

    bf16 = multiplies_bf16(options)
    ours = workloads(options.batch, bf16)
    runs = {name: [] for name in ours}
    theirs = {(name, batch): [] for name in peers for batch in options.batch}
    cores = os.sched_getaffinity(0)
    for _ in range(options.rounds):
        # On one core, theirs as ours: a thread that moves leaves its caches behind.
        os.sched_setaffinity(0, {max(cores)})
        for (name, batch), found in theirs.items():
            found.append(requests_per_second(peers[name], histories, batch, options.seconds))
        for name, flags in ours.items():
            os.sched_setaffinity(0, cores if name == "uniform, two cores" else {max(cores)})
            runs[name].append(bench(options, flags))
        os.sched_setaffinity(0, cores)
    document = {
        **described(),
        "model": checkpoint.directory.parent.name,
        "items": checkpoint.config["items"],
        "max_len": checkpoint.config["max_len"],
        "histories": len(histories),
        "mean_history": round(statistics.mean(map(len, histories)), 1),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "rows": rows(options, runs, theirs, overlaps(options, checkpoint, histories) if bf16 else {}),
    }
    for row in document["rows"]:
        print(line(row))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", required=True, type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--batch", default="1,8,32,64", type=lambda text: [int(size) for size in text.split(",")])
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--seconds", default=1.0, type=float)
    parser.add_argument("--canet", default=REPOSITORY / "target" / "release" / "canet", type=Path)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def trained(options):
    """A model of the paper's sizes, trained on the histories for some minutes unless it is there."""
    directory = REPOSITORY / "target" / "peers" / options.histories.name.split(".")[0]
    if not directory.is_dir():
        command = [options.canet, "train", "--data", options.histories, "--out", directory, "--max-minutes", "6"]
        command += ["--hidden", "64,96,128", "--layers", "2,4,6,8", "--embedding", "64,96,128", "--heads", "4"]
        command += ["--positions", "newest", "--embedding-norm", "false"]
        subprocess.run(list(map(str, command)), check=True)
    return directory


def multiplies_bf16(options):
    """Whether canet takes bf16 here: it refuses what the CPU has no instructions for."""
    command = [options.canet, "bench", "--model", options.model, "--workload", "smallest", "--batch", 1]
    command += ["--seconds", 0.01, "--precision", "bf16"]
    tried = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if tried.returncode:
        print(f"without bf16: {tried.stderr.strip()}", flush=True)
    return tried.returncode == 0


def workloads(batches, bf16):
    """What canet runs, by name: flags of `canet bench`."""
    uniform = ["--workload", "uniform", "--batch", FULL]
    own = ["--workload", "own", "--batch", FULL]
    libtorch = [*uniform, "--backend", "libtorch", "--batch-by"]
    narrow = ["--precision", "bf16"]
    return {
        **{f"full, {batch}": ["--workload", "full", "--batch", batch] for batch in batches},
        "full, longest histories": ["--workload", "full", "--batch", 32, "--histories", None],
        "smallest, 1": ["--workload", "smallest", "--batch", 1],
        "smallest, 32": ["--workload", "smallest", "--batch", 32],
        "uniform": uniform,
        "own": own,
        **({"uniform, bf16": [*uniform, *narrow], "own, bf16": [*own, *narrow]} if bf16 else {}),
        "uniform, two cores": [*uniform, "--executors", 2, "--threads", 2],
        "uniform, LibTorch by width": [*libtorch, "width"],
        "uniform, LibTorch by route": [*libtorch, "route"],
    }


def bench(options, flags):
    """One run of `canet bench`; of a flag that is given twice the last one counts, and `None` leaves it out."""
    given = {"--model": options.model, "--histories": options.histories, "--threads": 1, "--seconds": options.seconds}
    given.update(zip(flags[::2], flags[1::2]))
    command = [options.canet, "bench", "--json"]
    for flag, value in given.items():
        command += [] if value is None else [flag, value]
    document = json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)
    (result,) = document["results"]
    return {**result, "fma_gflops": document.get("fma_gflops")}


def requests_per_second(peer, histories, batch, seconds):
    """Batches of histories as they come, padded to their longest, for about this long."""
    chosen = itertools.cycle(histories)
    batches = [padded(list(itertools.islice(chosen, batch))) for _ in range(max(1, 512 // batch))]
    return rows_per_second(peer, batches, seconds)


def rows_per_second(peer, batches, seconds):
    """Batches in turn for about this long. The first calls do not count: they warm up, and may compile and record."""
    for _ in range(3):
        peer(batches[0])
    started, ran = time.perf_counter(), 0
    for tokens in itertools.cycle(batches):
        peer(tokens)
        ran += len(tokens)
        took = time.perf_counter() - started
        if took >= seconds:
            return ran / took


def rows(options, runs, theirs, overlap):
    """One a figure: its median with the least and the greatest, what is aimed at, and where it is a ratio its parts."""
    speed = {name: [run["requests_per_second"] for run in found] for name, found in runs.items()}
    onnx = {batch: theirs["onnxruntime", batch] for batch in options.batch}

    def ratio(what, ours, other, peer, aim=None):
        parts = {"canet": round(statistics.median(ours), 1), "peer": peer, "theirs": round(statistics.median(other), 1)}
        return figure(what, [a / b for a, b in zip(ours, other)], "x", aim, parts)

    found = []
    for batch in options.batch:
        what = f"full route, {batch} in flight"
        found.append(ratio(what, speed[f"full, {batch}"], onnx[batch], "ONNX Runtime, full", AIMS.get(batch)))
        found.append(ratio(what, speed[f"full, {batch}"], theirs["eager", batch], "PyTorch eager, full"))
    most = max(options.batch)
    # What routing saves of FLOPs is the model's, not the engine's: the aim for its own mix is the uniform one's by cost.
    cheaper = runs["uniform"][0]["mean_flops"] / runs["own"][0]["mean_flops"]
    for mix, what, scale in (("uniform", "uniform mix", 1), ("own", "the router's mix", cheaper)):
        for precision, aim in (("", 3.8), (", bf16", 6.0)):
            if mix + precision not in speed:
                continue
            ours = speed[mix + precision]
            found.append(ratio(what + precision, ours, onnx[most], "ONNX Runtime, full", round(aim * scale, 2)))
    if 32 in options.batch:
        what = "smallest route, 32 in flight"
        found.append(ratio(what, speed["smallest, 32"], onnx[32], "ONNX Runtime, full", 22))
    found.append(ratio("uniform mix, two cores", speed["uniform, two cores"], speed["uniform"], "one core", 1.85))
    by_width, by_route = speed["uniform, LibTorch by width"], speed["uniform, LibTorch by route"]
    found.append(ratio("uniform mix by LibTorch, lanes of a width", by_width, by_route, "lanes of a route", 1.2))

    def p50_us(name):
        return [1000 * run["p50_ms"] for run in runs[name]]

    found.append(figure("smallest route alone, median time", p50_us("smallest, 1"), "us", -60))
    found.append(figure("full route alone, median time", p50_us("full, 1"), "us", -750))
    shares = [run["gflops"] / run["fma_gflops"] for run in runs["full, longest histories"]]
    found.append(figure("full route, longest histories, share of the multiply-add peak", shares, "", 0.88))
    for mix, share in overlap.items():
        found.append(figure(f"{mix}, ten best items of bf16 that are fp32's", [share], "", 0.99))
    return found


def figure(what, values, unit, aim=None, parts=None):
    """An aim below zero is a bound from above."""
    row = {
        "what": what,
        **(parts or {}),
        "median": round(statistics.median(values), 4),
        "least": round(min(values), 4),
        "greatest": round(max(values), 4),
        "unit": unit,
    }
    if aim is not None:
        row["aim"] = abs(aim)
        row["reached"] = row["median"] >= aim if aim > 0 else row["median"] <= -aim
    return row


def line(row):
    text = f"{row['what']:>60}: {row['median']:8.3f} {row['unit']:<2} ({row['least']:.3f} to {row['greatest']:.3f})"
    if "peer" in row:
        text += f", {row['canet']:.0f} against {row['theirs']:.0f} {row.get('rate', 'requests/s')} of {row['peer']}"
    if "aim" in row:
        text += f"; aim {row['aim']:g}{'' if row['reached'] else ', not reached'}"
    return text


def ask(options, checkpoint, requests, *flags):
    """What a server of the model ranks for each request."""
    with serving(options.canet, options.model, ["--log", "info", *flags]) as server:
        results = []
        # A call takes 1,024.
        for first in range(0, len(requests), 1024):
            body = json.dumps({"requests": requests[first : first + 1024]}).encode()
            url = f"http://{server['http']}/recommend/batch"
            call = urllib.request.Request(url, data=body, headers={"content-type": "application/json"})
            results += json.load(urllib.request.urlopen(call))["results"]
    return [result["items"] for result in results]


def external(checkpoint, histories):
    """Histories as clients write them."""
    ids = {dense: name for name, dense in checkpoint.items.items()}
    return [[ids[item] for item in items] for items in histories]


def agree(options, checkpoint, histories, name, peer, *flags):
    """Whether canet serves what the peer ranks, up to scores that are equal to rounding."""
    found = external(checkpoint, peer(padded(histories)).tolist())
    asked = [{"history": items, "route": "full", "k": 11} for items in external(checkpoint, histories)]
    # The queue must take the whole call, whatever it is predicted to take.
    for ranked, theirs in zip(ask(options, checkpoint, asked, "--queue-limit-ms", "60000", *flags), found, strict=True):
        names, scores = [item["item"] for item in ranked], [item["score"] for item in ranked]
        if names[:10] == theirs:
            continue
        if min(a - b for a, b in itertools.pairwise(scores)) > TIE:
            raise SystemExit(f"{name} ranks {theirs}, canet {names[:10]}: nothing was timed")


def overlaps(options, checkpoint, histories):
    """The share of bf16's ten best items that fp32 has too, over every route in turn and over the router's choices."""
    config = checkpoint.config
    routes = [
        f"h{width}-l{depth}-e{embedding}"
        for width in config["hidden"] for depth in config["layers"] for embedding in config["embedding"]
    ]
    found = {}
    for mix, names in (("uniform mix", routes), ("the router's mix", ["auto"])):
        chosen = list(zip(external(checkpoint, histories[:OVERLAPPED]), itertools.cycle(names)))
        asked = [{"history": history, "route": route, "timeout_ms": 60000} for history, route in chosen]
        sides = [
            ask(options, checkpoint, asked, "--queue-limit-ms", "60000", "--precision", precision)
            for precision in ("fp32", "bf16")
        ]
        shared = [len({item["item"] for item in a} & {item["item"] for item in b}) / len(a) for a, b in zip(*sides)]
        found[mix] = statistics.mean(shared)
    return found


if __name__ == "__main__":
    main()
