#!/usr/bin/env python3
"""Loads `canet serve` and Python servers of the same model from the same machine, in turns, and prints ratios.

    served.py --histories data.txt [--model DIR] [--runtimes onnxruntime,eager] [--server-cores 1] [--users 64] [--rounds 3]
              [--seconds 6] [--json FILE]

The Python servers are python_server.py: FastAPI and uvicorn around a runtime's full route, one process a core, one thread
each. Every server runs on the same cores, and k6 on the others. k6 has so many users who each ask again as soon as they
are answered; the servers that nobody asks are idle. Each side is warmed up first.

canet answers the same requests by the full route without its history cache: that is like for like. Then it answers them by
routes, each equally often and as its router chooses. Then users return (80 % of the requests) with one to three new items,
with the cache and without. Without --model it is the one that compare.py trains.
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
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from checkpoint import Checkpoint
from compare import REPOSITORY, external, figure, line, trained
from runtimes import NAMES, PEERS

from machine import described, pinned, split
from serve import serving

HERE = Path(__file__).resolve().parent
PORT = re.compile(r"Uvicorn running on (http://[\d.:]+)")
STARTED = "Application startup complete."
WARM_UP_SECONDS = 2
# A busy machine may make a server refuse some; more, and what it answers is not the load's answer.
MOST_REFUSED = 0.01
QUEUE_LIMIT_MS = 10_000
# Room for the histories of all users who may return, by the full route of the paper's sizes.
CACHE = "1GB"


@dataclass(frozen=True)
class Load:
    """Requests for one server."""

    server: str
    # Bodies that are sent in any order; none for sessions.
    bodies: str | None = None
    # The route that sessions ask for; the router's choice unless told.
    route: str = ""


# What canet is asked, by the words of the result. The first is what the Python servers are asked too.
FULL, SESSIONS = "full route", "sessions, full route"
OURS = {
    FULL: Load("canet", "full"),
    "uniform mix": Load("canet", "uniform"),
    "the router's mix": Load("canet", "own"),
    f"{SESSIONS}, without the cache": Load("canet", route="full"),
    f"{SESSIONS}, with the cache": Load("canet with the cache", route="full"),
    "sessions, the router's mix, without the cache": Load("canet"),
    "sessions, the router's mix, with the cache": Load("canet with the cache"),
}


def main():
    options = arguments()
    options.model = options.model or trained(options)
    options.k6 = k6()
    checkpoint = Checkpoint.read(options.model)
    draw = random.Random(1)
    sequences = checkpoint.sequences(options.histories)
    read = [checkpoint.read_part(items) for items in sequences]
    histories = external(checkpoint, draw.sample(read, min(len(read), 1000)))
    routes = checkpoint.routes()
    bodies = {
        "full": [{"history": items, "route": "full"} for items in histories],
        "uniform": [{"history": items, "route": draw.choice(routes)} for items in histories],
        "own": [{"history": items} for items in histories],
    }
    options.longest = checkpoint.config["max_len"]
    ours, theirs = dict(OURS), {}
    for runtime in options.runtimes:
        theirs[runtime, FULL] = Load(runtime, "full")
        theirs[runtime, SESSIONS] = Load(runtime, route="full")
    server_cores, load_cores = split(options.server_cores)
    found = {name: [] for name in [*ours, *theirs]}
    with ExitStack() as stack:
        options.scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, requests in bodies.items():
            (options.scratch / name).write_text(json.dumps(list(map(json.dumps, requests))))
        lines = (" ".join([str(user), *items]) for user, items in enumerate(external(checkpoint, sequences)))
        (options.scratch / "sequences").write_text("\n".join(lines))
        with pinned(server_cores):
            urls = {
                "canet": stack.enter_context(canet(options, "--history-cache", 0)),
                "canet with the cache": stack.enter_context(canet(options, "--history-cache", CACHE)),
                **{name: stack.enter_context(python_server(options, name)) for name in options.runtimes},
            }
        with pinned(load_cores):
            for load in [*ours.values(), *theirs.values()]:
                run(options, urls, load, min(WARM_UP_SECONDS, options.seconds))
            for _ in range(options.rounds):
                for name, load in (ours | theirs).items():
                    found[name].append(run(options, urls, load, options.seconds))
                print("a round is done", flush=True)
    rows = list(compared(options, found))
    for row in rows:
        print(line(row))
    if options.json:
        document = {**described(), "model": checkpoint.directory.parent.name, "users": options.users}
        document.update(server_cores=options.server_cores, rounds=options.rounds, seconds=options.seconds, rows=rows)
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", required=True, type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--runtimes", default=["onnxruntime", "eager"], type=lambda text: text.split(","))
    parser.add_argument("--server-cores", default=1, type=int)
    parser.add_argument("--users", default=64, type=int)
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--seconds", default=6, type=int)
    parser.add_argument("--canet", default=REPOSITORY / "target" / "release" / "canet", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not set(options.runtimes) <= set(PEERS):
        parser.error(f"--runtimes: choose from {', '.join(PEERS)}")
    return options


def compared(options, found):
    """One row a figure: what canet answers beside each peer, and the 95th percentile of everybody."""

    def values(name, field):
        return [run[field] for run in found[name]]

    for what in OURS:
        peer_is_asked = SESSIONS if what.startswith("sessions") else FULL
        for runtime in options.runtimes:
            mine, other = values(what, "requests_per_second"), values((runtime, peer_is_asked), "requests_per_second")
            parts = {
                "canet": round(statistics.median(mine), 1),
                "peer": f"FastAPI and {NAMES[runtime]}, full route",
                "theirs": round(statistics.median(other), 1),
            }
            yield figure(f"{what}, requests/s", [a / b for a, b in zip(mine, other)], "x", parts=parts)
    for name in found:
        what = name if name in OURS else f"{name[1]}, FastAPI and {NAMES[name[0]]}"
        yield figure(f"{what}: 95th percentile", values(name, "p95_ms"), "ms")
    refused = [max(run["refused"] for runs in found.values() for run in runs)]
    yield figure("largest share refused in a run", refused, "")


@contextmanager
def canet(options, *flags):
    """The URL of a server of the model."""
    # The Python servers refuse nothing, however long the queue is.
    with serving(options.canet, options.model, ["--log", "info", "--queue-limit-ms", QUEUE_LIMIT_MS, *flags]) as server:
        yield f"http://{server['http']}"


@contextmanager
def python_server(options, runtime):
    """The URL of python_server.py on a free port, which is stopped at the end."""
    command = [sys.executable, HERE / "python_server.py", "--model", options.model, "--port", 0]
    command += ["--runtime", runtime, "--workers", options.server_cores]
    server = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    try:
        url, started = None, 0
        for said in server.stderr:
            found = PORT.search(said)
            url = found[1] if found else url
            started += STARTED in said
            if url and started == options.server_cores:
                break
        else:
            sys.exit("python_server.py ended before it was ready")
        # A full pipe must not stop it.
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield url
    finally:
        server.terminate()
        server.wait()


def k6():
    """The program, which is fetched the first time."""
    tools = ["python3", REPOSITORY / "scripts" / "tools.py", REPOSITORY / "loadtest" / "requirements.txt"]
    found = subprocess.run(list(map(str, tools)), check=True, stdout=subprocess.PIPE, text=True).stdout
    return Path(found.strip()).with_name("k6")


def run(options, urls, load, seconds):
    """One run of k6: answers a second, the 95th percentile in milliseconds, and the share that was refused."""
    summary = options.scratch / "summary.json"
    url = f"{urls[load.server]}/recommend"
    environment = {"URL": url, "USERS": str(options.users), "SECONDS": str(seconds)}
    if load.bodies:
        environment["BODIES"] = str(options.scratch / load.bodies)
    else:
        environment.update(SESSIONS=str(options.scratch / "sequences"), LONGEST=str(options.longest), ROUTE=load.route)
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
