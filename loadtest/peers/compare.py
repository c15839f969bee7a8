#!/usr/bin/env python3
"""Times canet and its peers on one model, the same histories and the same cores, in turns, and prints ratios.

    compare.py --histories data.txt [--model models/ml-100k] [--rounds 5] [--seconds 1] [--batch 1,8,32,64] [--json FILE]

Without --model one is trained on the histories for some minutes, of the paper's sizes, and kept in target/peers: how good
it is does not change how fast it is.

The peers run the full route on one thread: score, mask what was seen, take the ten best. canet runs workloads of `canet
bench` on the same histories, its router included, on one thread of the same core. Each round times everybody once, so
that what slows the machine down slows all; a ratio is of two runs in one round, and what is printed is the median over
the rounds with the least and the greatest. Nothing is timed before canet has served the ten best items of each peer that
computes float32. Of those that round more, the share of float32's ten best items that they find is printed.

Sessions are requests of users of whom 80 % return with one to three new items. canet runs the router's choices for them,
with and without its history cache; the peers run the full route.

What LibTorch gains by lanes of a width, and two cores over one, is measured in the same rounds.
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
from runtimes import EXACT, NAMES, PEERS, ROUNDED
from sessions import session_histories

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.append(str(REPOSITORY / "loadtest"))

from machine import described, pinned  # noqa: E402
from model_files import versions  # noqa: E402
from serve import serving  # noqa: E402

# Scores closer than this may change places: both sides round.
TIE = 1e-4
COMPARED = 64
# Histories whose ten best items are compared between precisions, each on one route in turn.
OVERLAPPED = 1008
# What keeps its queue full: as many requests as a batch takes.
FULL = 64
# Requests of sessions that the peers take in turn.
SESSION_REQUESTS = 20_000
# Budgets of the router for sessions: the default, and one that only the smallest route keeps.
BUDGETS = (0.3, 0.05)

# By the number of requests in flight: how many times ONNX Runtime's requests a second are aimed at.
AIMS = {1: 1.7, 8: 1.5, 32: 1.5, 64: 1.5}
# The same for sessions under the smallest budget.
SESSIONS_AIM = 40


def main():
    options = arguments()
    options.model = options.model or trained(options)
    checkpoint = Checkpoint.read(options.model)
    sequences = checkpoint.sequences(options.histories)
    random.Random(1).shuffle(sequences)
    histories = [checkpoint.read_part(items) for items in sequences]
    sessions = [checkpoint.read_part(items) for items in session_histories(sequences, SESSION_REQUESTS)]
    cores = os.sched_getaffinity(0)
    # On one core, theirs as ours: a thread that moves leaves its caches behind. Threads of the peers start on it too.
    with pinned({max(cores)}):
        peers = {name: PEERS[name](checkpoint, "full", 1) for name in options.peers}
        for name in set(EXACT) & set(peers):
            agree(options, checkpoint, histories[:COMPARED], name, peers[name])
        print(f"the same ten best items of {COMPARED} histories; now {options.rounds} rounds", flush=True)

        bf16, libtorch = runs_here(options, "--precision", "bf16"), runs_here(options, "--backend", "libtorch")
        ours = workloads(options, bf16, libtorch)
        runs = {name: [] for name in ours}
        theirs = {(name, batch): [] for name in peers for batch in options.batch}
        returning = {name: [] for name in peers}
        for _ in range(options.rounds):
            for (name, batch), found in theirs.items():
                found.append(requests_per_second(peers[name], histories, batch, options.seconds))
            for name, found in returning.items():
                found.append(requests_per_second(peers[name], sessions, max(options.batch), options.seconds))
            for name, flags in ours.items():
                with pinned(cores if name == "uniform, two cores" else {max(cores)}):
                    runs[name].append(bench(options, flags))
            print("a round is done", flush=True)
        overlap = {
            f"full route, {NAMES[name]}": overlap_of(peers[name], PEERS["eager"](checkpoint, "full", 1), histories)
            for name in ROUNDED if name in peers
        }
        overlap.update(overlaps(options, checkpoint, histories) if bf16 else {})
    document = {
        **described(),
        "model": checkpoint.directory.parent.name,
        "items": checkpoint.config["items"],
        "max_len": checkpoint.config["max_len"],
        "history_stride": checkpoint.config.get("history_stride", 1),
        "histories": len(histories),
        "mean_history": round(statistics.mean(map(len, histories)), 1),
        "mean_session_history": round(statistics.mean(map(len, sessions)), 1),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "rows": rows(options, runs, theirs, returning, overlap),
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
    parser.add_argument("--peers", default=list(PEERS), type=lambda text: text.split(","), help="of " + ", ".join(PEERS))
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--seconds", default=1.0, type=float)
    parser.add_argument("--session-seconds", default=6.0, type=float, help="by then users have returned several times")
    parser.add_argument("--canet", default=REPOSITORY / "target" / "release" / "canet", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not set(options.peers) <= set(PEERS):
        parser.error(f"--peers: choose from {', '.join(PEERS)}")
    return options


def trained(options):
    """A model of the paper's sizes, trained on the histories for some minutes unless it is there."""
    directory = REPOSITORY / "target" / "peers" / options.histories.name.split(".")[0]
    if not versions(directory):
        command = [options.canet, "train", "--data", options.histories, "--out", directory, "--max-minutes", "6"]
        command += ["--hidden", "64,96,128", "--layers", "2,4,6,8", "--embedding", "64,96,128", "--heads", "4"]
        # Positions from the oldest item cost as much as the paper's, from the newest, and let the history cache work.
        command += ["--positions", "oldest", "--history-stride", "12", "--embedding-norm", "false"]
        subprocess.run(list(map(str, command)), check=True)
    return directory


def runs_here(options, *flags):
    """Whether canet takes these flags here: it refuses what the CPU has no instructions for, and what it was built without."""
    command = [options.canet, "bench", "--model", options.model, "--workload", "smallest", "--batch", 1]
    command += ["--seconds", 0.01, *flags]
    tried = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if tried.returncode:
        print(f"without {' '.join(flags)}: {tried.stderr.strip()}", flush=True)
    return tried.returncode == 0


def workloads(options, bf16, libtorch):
    """What canet runs, by name: flags of `canet bench`."""
    uniform = ["--workload", "uniform", "--batch", FULL]
    own = ["--workload", "own", "--batch", FULL]
    lanes = [*uniform, "--backend", "libtorch", "--batch-by"]
    narrow = ["--precision", "bf16"]
    sessions = ["--workload", "sessions", "--batch", max(options.batch), "--seconds", options.session_seconds]
    full = {f"full, {batch}": ["--workload", "full", "--batch", batch] for batch in options.batch}
    return {
        **full,
        **({f"{name}, bf16": [*flags, *narrow] for name, flags in full.items()} if bf16 else {}),
        "full, longest histories": ["--workload", "full", "--batch", 32, "--histories", None],
        "smallest, 1": ["--workload", "smallest", "--batch", 1],
        "smallest, 32": ["--workload", "smallest", "--batch", 32],
        "uniform": uniform,
        "own": own,
        **({"uniform, bf16": [*uniform, *narrow], "own, bf16": [*own, *narrow]} if bf16 else {}),
        **{
            f"{at_budget(budget)}{cache}": [*sessions, "--flops-budget", budget, *flags]
            for budget in BUDGETS for cache, flags in ((" with the cache", []), (" without the cache", ["--history-cache", 0]))
        },
        "uniform, two cores": [*uniform, "--executors", 2, "--threads", 2],
        **({f"uniform, LibTorch by {lane}": [*lanes, lane] for lane in ("width", "route")} if libtorch else {}),
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


def rows(options, runs, theirs, returning, overlap):
    """One a figure: its median with the least and the greatest, what is aimed at, and where it is a ratio its parts."""
    speed = {name: [run["requests_per_second"] for run in found] for name, found in runs.items()}
    most, found = max(options.batch), []

    def ratio(what, ours, other, peer, aim=None):
        parts = {"canet": round(statistics.median(ours), 1), "peer": peer, "theirs": round(statistics.median(other), 1)}
        found.append(figure(what, [a / b for a, b in zip(ours, other)], "x", aim, parts))

    def full(what, ours, name, batch, aim=None):
        if name in options.peers:
            ratio(what, ours, theirs[name, batch], f"{NAMES[name]}, full", aim)

    for batch in options.batch:
        for name in EXACT:
            aim = AIMS.get(batch) if name == "onnxruntime" else None
            full(f"full route, {batch} in flight", speed[f"full, {batch}"], name, batch, aim)
        for name in ROUNDED:
            for precision in ("", ", bf16"):
                if f"full, {batch}{precision}" in speed:
                    full(f"full route{precision}, {batch} in flight", speed[f"full, {batch}{precision}"], name, batch)
    # What routing saves of FLOPs is the model's, not the engine's: the aim for its own mix is the uniform one's by cost.
    cheaper = runs["uniform"][0]["mean_flops"] / runs["own"][0]["mean_flops"]
    for mix, what, scale in (("uniform", "uniform mix", 1), ("own", "the router's mix", cheaper)):
        for precision, aim in (("", 3.8), (", bf16", 6.0)):
            for name in ("onnxruntime", "openvino"):
                if mix + precision in speed:
                    of_onnx = round(aim * scale, 2) if name == "onnxruntime" else None
                    full(what + precision, speed[mix + precision], name, most, of_onnx)
    if 32 in options.batch:
        full("smallest route, 32 in flight", speed["smallest, 32"], "onnxruntime", 32, 22)
    for budget in BUDGETS:
        what = at_budget(budget)
        ours = {cache: speed[what + cache] for cache in (" with the cache", " without the cache")}
        for cache, rates in ours.items():
            for name in ("onnxruntime", "openvino"):
                if name in options.peers:
                    aimed = (name, budget, cache) == ("onnxruntime", min(BUDGETS), " with the cache")
                    peer = f"{NAMES[name]}, full"
                    ratio(what + cache, rates, returning[name], peer, SESSIONS_AIM if aimed else None)
        ratio(f"{what} with the cache", *ours.values(), "canet without the cache")
        found.extend(kept(what, runs[f"{what} with the cache"]))
    ratio("uniform mix, two cores", speed["uniform, two cores"], speed["uniform"], "one core", 1.85)
    if "uniform, LibTorch by width" in speed:
        by_width, by_route = speed["uniform, LibTorch by width"], speed["uniform, LibTorch by route"]
        ratio("uniform mix by LibTorch, lanes of a width", by_width, by_route, "lanes of a route", 1.2)

    def p50_us(name):
        return [1000 * run["p50_ms"] for run in runs[name]]

    found.append(figure("smallest route alone, median time", p50_us("smallest, 1"), "us", -60))
    found.append(figure("full route alone, median time", p50_us("full, 1"), "us", -750))
    shares = [run["gflops"] / run["fma_gflops"] for run in runs["full, longest histories"]]
    found.append(figure("full route, longest histories, share of the multiply-add peak", shares, "", 0.88))
    for mix, share in overlap.items():
        # How much the peers round is theirs.
        found.append(figure(f"{mix}: ten best items that are fp32's", [share], "", 0.99 if "canet" in mix else None))
    return found


def at_budget(budget):
    return f"sessions, the router's mix at a budget of {budget:g},"


def kept(what, runs):
    """What the history cache did; nothing where the model has none."""
    caches = [run["history_cache"] for run in runs]
    if None in caches:
        return []

    def of_requests(cache, count):
        return count / max(1, cache["hits"] + sum(cache["misses"].values()))

    return [
        figure(f"{what} requests that reuse a history", [of_requests(cache, cache["hits"]) for cache in caches], ""),
        figure(f"{what} requests of another width", [of_requests(cache, cache["misses"]["slice"]) for cache in caches], ""),
        figure(f"{what} FLOPs reused", [run["mean_reused_flops"] / run["mean_flops"] for run in runs], ""),
        figure(f"{what} bytes of a kept history", [cache["bytes"] / max(1, cache["entries"]) for cache in caches], "B"),
    ]


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


def ask(options, requests, *flags):
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
    for ranked, theirs in zip(ask(options, asked, "--queue-limit-ms", "60000", *flags), found, strict=True):
        names, scores = [item["item"] for item in ranked], [item["score"] for item in ranked]
        if names[:10] == theirs:
            continue
        if min(a - b for a, b in itertools.pairwise(scores)) > TIE:
            raise SystemExit(f"{name} ranks {theirs}, canet {names[:10]}: nothing was timed")


def overlap_of(peer, reference, histories):
    """The share of the reference's ten best items that a peer finds."""
    shares = []
    for first in range(0, OVERLAPPED, FULL):
        tokens = padded(histories[first : first + FULL])
        shares += [len(set(a) & set(b)) / len(b) for a, b in zip(peer(tokens).tolist(), reference(tokens).tolist())]
    return statistics.mean(shares)


def overlaps(options, checkpoint, histories):
    """The share of canet's ten best items in bf16 that it has in fp32 too: over every route in turn, the full route, and the
    router's choices."""
    found = {}
    for mix, names in (("full route", ["full"]), ("uniform mix", checkpoint.routes()), ("the router's mix", ["auto"])):
        chosen = list(zip(external(checkpoint, histories[:OVERLAPPED]), itertools.cycle(names)))
        asked = [{"history": history, "route": route, "timeout_ms": 60000} for history, route in chosen]
        sides = [
            ask(options, asked, "--queue-limit-ms", "60000", "--precision", precision)
            for precision in ("fp32", "bf16")
        ]
        shared = [len({item["item"] for item in a} & {item["item"] for item in b}) / len(a) for a, b in zip(*sides)]
        found[f"{mix}, canet bf16"] = statistics.mean(shared)
    return found


if __name__ == "__main__":
    main()
