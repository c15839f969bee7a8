#!/usr/bin/env python3
"""Times canet and its peers on one model, the same histories and the same cores, in turns, and prints ratios.

    compare.py --model models/ml-100k --histories data.txt [--workloads full,uniform,own,smallest] [--batch 1,8,32,64]
               [--threads 1] [--rounds 5] [--seconds 1] [--json FILE]

A peer runs one route, the full one unless told: score, mask what was seen, take the ten best. canet runs a workload of
`canet bench` on the same histories, its router included. Each round times everybody once, so that what slows the
machine down slows all; a ratio is canet's requests a second over the peer's in the same round, and what is printed is
the median over the rounds with the least and the greatest. Before any timing, canet must serve the peer's ten best
items.
"""

import argparse
import itertools
import json
import random
import re
import statistics
import subprocess
import time
import urllib.request
from pathlib import Path

from checkpoint import Checkpoint
from network import padded
from runtimes import PEERS

# Scores closer than this may change places: both sides round.
TIE = 1e-4
COMPARED = 64


def main():
    options = arguments()
    checkpoint = Checkpoint.read(options.model)
    histories = checkpoint.histories(options.histories)
    random.Random(1).shuffle(histories)
    peers = {name: make(checkpoint, options.route, options.threads) for name, make in PEERS.items()}
    for name, peer in peers.items():
        agree(options, checkpoint, histories[:COMPARED], name, peer)

    rows = []
    for batch in options.batch:
        ours, theirs = {name: [] for name in options.workloads}, {name: [] for name in peers}
        for _ in range(options.rounds):
            for name, peer in peers.items():
                theirs[name].append(requests_per_second(peer, histories, batch, options.seconds))
            for workload in options.workloads:
                ours[workload].append(bench(options, workload, batch))
        for (workload, mine), (name, other) in itertools.product(ours.items(), theirs.items()):
            ratios = [a["requests_per_second"] / b for a, b in zip(mine, other)]
            rows.append(
                {
                    "workload": workload,
                    "peer": f"{name} {options.route}",
                    "batch": batch,
                    "threads": options.threads,
                    "canet": statistics.median(run["requests_per_second"] for run in mine),
                    "theirs": statistics.median(other),
                    "ratio": statistics.median(ratios),
                    "least": min(ratios),
                    "greatest": max(ratios),
                    "canet_p50_ms": statistics.median(run["p50_ms"] for run in mine),
                    "mean_flops": mine[0]["mean_flops"],
                }
            )
            row = rows[-1]
            print(
                f"{workload:>9} / {row['peer']:<18} batch {batch:>3}, {options.threads} threads: "
                f"{row['ratio']:6.2f} x ({row['least']:.2f} to {row['greatest']:.2f}), "
                f"{row['canet']:.0f} against {row['theirs']:.0f} requests/s",
                flush=True,
            )
    if options.json:
        Path(options.json).write_text(json.dumps({"model": checkpoint.directory.parent.name, "rows": rows}, indent=1))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--histories", required=True, type=Path)
    parser.add_argument("--workloads", default="full,uniform,own,smallest", type=lambda text: text.split(","))
    parser.add_argument("--route", default="full", help="what the peers run")
    parser.add_argument("--batch", default="1,8,32,64", type=lambda text: [int(size) for size in text.split(",")])
    parser.add_argument("--threads", default=1, type=int)
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--seconds", default=1.0, type=float)
    parser.add_argument("--canet", default="target/release/canet")
    parser.add_argument("--json")
    return parser.parse_args()


def requests_per_second(peer, histories, batch, seconds):
    """Batches of histories as they come, padded to their longest, for about this long."""
    chosen = itertools.cycle(histories)
    batches = [padded(list(itertools.islice(chosen, batch))) for _ in range(max(1, 512 // batch))]
    peer(batches[0])
    started, ran = time.perf_counter(), 0
    for tokens in itertools.cycle(batches):
        peer(tokens)
        ran += batch
        took = time.perf_counter() - started
        if took >= seconds:
            return ran / took


def bench(options, workload, batch):
    command = [options.canet, "bench", "--model", options.model, "--histories", options.histories, "--json"]
    command += ["--workload", workload, "--batch", str(batch), "--threads", str(options.threads)]
    command += ["--seconds", str(options.seconds)]
    out = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
    (result,) = json.loads(out)["results"]
    return result


def agree(options, checkpoint, histories, name, peer):
    """Whether canet serves what the peer ranks, up to scores that are equal to rounding."""
    ids = {dense: external for external, dense in checkpoint.items.items()}
    found = peer(padded(histories))
    command = [options.canet, "serve", "--model", options.model, "--listen", "127.0.0.1:0", "--log", "info"]
    server = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    try:
        address = None
        for line in server.stderr:
            listening = re.search(r"listening on (http://\S+)", line)
            address = listening.group(1) if listening else address
            if re.search(r"\bready\b", line):
                break
        requests = [{"history": [ids[item] for item in items], "route": options.route, "k": 11} for items in histories]
        body = json.dumps({"requests": requests}).encode()
        call = urllib.request.Request(
            f"{address}/recommend/batch", data=body, headers={"content-type": "application/json"}
        )
        results = json.load(urllib.request.urlopen(call))["results"]
    finally:
        server.terminate()
        server.wait()
    for result, theirs in zip(results, found.tolist(), strict=True):
        ranked = result["items"]
        names, scores = [item["item"] for item in ranked], [item["score"] for item in ranked]
        if names[:10] == [ids[item] for item in theirs]:
            continue
        if min(a - b for a, b in itertools.pairwise(scores)) > TIE:
            raise SystemExit(f"{name} ranks {[ids[item] for item in theirs]}, canet {names[:10]}: nothing was timed")


if __name__ == "__main__":
    main()
