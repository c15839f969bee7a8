#!/usr/bin/env python3
"""Loads `canet serve` and a Python server of the same model from the same machine, in turns, and prints ratios.

    served.py --histories data.txt [--model DIR] [--users 64] [--rounds 3] [--seconds 6] [--json FILE]

The Python server is python_server.py: FastAPI, uvicorn with one worker, PyTorch's full route; once on one thread, and once
on every core. canet gets a uniform mix of its routes, and an executor a core. k6 has so many users who each ask again as
soon as they are answered; it shares the cores with the server that it asks, and the others are idle. Each side is warmed up
first. Without --model it is the one that compare.py trains.
"""

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

from checkpoint import Checkpoint
from compare import REPOSITORY, external, figure, line, trained

from machine import described
from serve import serving

HERE = Path(__file__).resolve().parent
PORT = re.compile(r"Uvicorn running on (http://[\d.:]+)")
WARM_UP_SECONDS = 2
# A busy machine may make a server refuse some; more, and what it answers is not the load's answer.
MOST_REFUSED = 0.01


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--histories", required=True, type=Path)
    options.add_argument("--model", type=Path)
    options.add_argument("--users", default=64, type=int)
    options.add_argument("--rounds", default=3, type=int)
    options.add_argument("--seconds", default=6, type=int)
    options.add_argument("--canet", default=REPOSITORY / "target" / "release" / "canet", type=Path)
    options.add_argument("--json", type=Path)
    options = options.parse_args()
    options.model = options.model or trained(options)
    options.k6 = k6()
    checkpoint = Checkpoint.read(options.model)
    draw = random.Random(1)
    histories = external(checkpoint, draw.sample(checkpoint.histories(options.histories), 1000))
    config = checkpoint.config
    routes = [f"h{h}-l{l}-e{e}" for h in config["hidden"] for l in config["layers"] for e in config["embedding"]]
    routed = [json.dumps({"history": items, "route": draw.choice(routes)}) for items in histories]
    full = [json.dumps({"history": items}) for items in histories]
    cores = os.cpu_count()
    found = {}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        flags = ["--log", "info", "--threads", cores, "--executors", cores]
        canet = stack.enter_context(serving(options.canet, options.model, flags))["http"]
        urls = {"canet": f"http://{canet}/recommend"}
        for threads in sorted({1, cores}):
            urls[threads] = f"{stack.enter_context(python_server(options, threads))}/recommend"
        for name, url in urls.items():
            found[name] = []
            (scratch / f"{name}").write_text(json.dumps(routed if name == "canet" else full))
            load(options, url, scratch / f"{name}", WARM_UP_SECONDS)
        for _ in range(options.rounds):
            for name, url in urls.items():
                found[name].append(load(options, url, scratch / f"{name}", options.seconds))
    ours = found.pop("canet")
    rows = [
        figure("canet, uniform mix: 95th percentile", [run["p95_ms"] for run in ours], "ms"),
        figure("canet, uniform mix: share refused", [run["refused"] for run in ours], ""),
    ]
    for threads, theirs in found.items():
        peer = f"FastAPI and PyTorch eager, full route, {threads} threads"
        parts = {
            "canet": round(statistics.median(run["requests_per_second"] for run in ours), 1),
            "peer": peer,
            "theirs": round(statistics.median(run["requests_per_second"] for run in theirs), 1),
        }
        ratios = [a["requests_per_second"] / b["requests_per_second"] for a, b in zip(ours, theirs)]
        slower = [a["p95_ms"] / b["p95_ms"] for a, b in zip(ours, theirs)]
        rows += [
            figure("uniform mix over HTTP, requests/s", ratios, "x", 12, parts),
            figure("uniform mix over HTTP, 95th percentile over theirs", slower, "x", -1),
            figure(f"{peer}: 95th percentile", [run["p95_ms"] for run in theirs], "ms"),
        ]
    for row in rows:
        print(line(row))
    if options.json:
        document = {**described(), "model": checkpoint.directory.parent.name, "users": options.users}
        document.update(rounds=options.rounds, seconds=options.seconds, rows=rows)
        options.json.write_text(json.dumps(document, indent=1) + "\n")


@contextmanager
def python_server(options, threads):
    """python_server.py on a free port, stopped at the end: its address."""
    command = [sys.executable, HERE / "python_server.py", "--model", options.model, "--port", 0]
    command += ["--threads", threads]
    server = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    try:
        for said in server.stderr:
            found = PORT.search(said)
            if found:
                yield found[1]
                return
        sys.exit("python_server.py ended before it was ready")
    finally:
        server.terminate()
        server.wait()


def k6():
    """The program, which is fetched the first time."""
    tools = ["python3", REPOSITORY / "scripts" / "tools.py", REPOSITORY / "loadtest" / "requirements.txt"]
    found = subprocess.run(list(map(str, tools)), check=True, stdout=subprocess.PIPE, text=True).stdout
    return Path(found.strip()).with_name("k6")


def load(options, url, bodies, seconds):
    """One run of k6: answers a second, the 95th percentile in milliseconds, and the share that was refused."""
    summary = bodies.with_suffix(".json")
    environment = {"URL": url, "BODIES": str(bodies), "USERS": str(options.users), "SECONDS": str(seconds)}
    command = [options.k6, "run", "--quiet", "--no-usage-report", "--summary-export", summary, HERE / "users.js"]
    subprocess.run(list(map(str, command)), check=True, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    metrics = json.loads(summary.read_text())["metrics"]
    refused = metrics["http_req_failed"]["value"]
    if refused > MOST_REFUSED:
        sys.exit(f"{url} refused {refused:.1%} of the requests")
    return {
        "requests_per_second": metrics["http_reqs"]["rate"] * (1 - refused),
        "p95_ms": metrics["http_req_duration"]["p(95)"],
        "refused": refused,
    }


if __name__ == "__main__":
    main()
