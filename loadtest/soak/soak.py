#!/usr/bin/env python3
"""Loads `canet serve` for a long time and says whether anything failed and whether its memory grows.

    soak.py --canet target/release/canet [--model models/ml-100k] [--minutes 60] [--share 0.7 | --rate 500]
            [--reload-seconds 60] [--connections 16] [--serve="--threads 2"] [--out loadtest/results]

Requests come at a share of the rate that the server answers when it is asked without pause, which is measured first. A version is
loaded every --reload-seconds, and a watched catalogue file is replaced as often. Every second has a line: requests, their
median and 99th percentile, and the resident memory. The picture has them.

Memory is judged by the slope of its least value between two reloads, with a 95 % interval. Two further processes of known
behaviour run meanwhile and are judged by the same rule: one holds its memory, and one leaks. The check fails if it does not
tell them apart, so a run that could not have found a leak is no proof.

Writes soak.json and soak.svg. Ends with 1 if a request or a reload failed or was not answered, or if memory grows. A refusal (429) fails
as well, because the server can answer at this rate. Latencies are those of requests that were answered with 200.
"""

import argparse
import http.client
import json
import math
import queue
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.append(str(REPOSITORY / "loadtest"))

from machine import described  # noqa: E402  (the path is set first)
from model_files import item_ids, newest  # noqa: E402
from serve import serving  # noqa: E402

# The leaking process takes this much a minute.
LEAK_MB_A_MINUTE = 4
CONTROL = """
import sys, time
held, leak = [bytearray(32 << 20)], float(sys.argv[1])
while True:
    if leak: held.append(bytearray(int(leak * (1 << 20) / 60)))
    time.sleep(1)
"""
# Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom; beyond, the normal one is near enough.
T = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09, 2.09,
     2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05, 2.04]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--canet", required=True)
    options.add_argument("--model", type=Path, default=REPOSITORY / "models" / "ml-100k")
    options.add_argument("--minutes", type=float, default=60)
    options.add_argument("--share", type=float, default=0.7, help="of the rate that is measured first")
    options.add_argument("--rate", type=float, help="requests a second, instead of a share")
    options.add_argument("--reload-seconds", type=float, default=60)
    options.add_argument("--connections", type=int, default=16)
    options.add_argument("--serve", default="", help="further flags of canet serve")
    options.add_argument("--out", type=Path, default=REPOSITORY / "loadtest" / "results")
    options = options.parse_args()
    version = newest(options.model)
    items = item_ids(version)
    with tempfile.TemporaryDirectory() as scratch:
        catalogue = Path(scratch) / "catalogue.csv"
        write_catalogue(catalogue, items, 0)
        flags = ["--log", "warn,canet=info", "--version", version.name, "--catalogue", catalogue, *options.serve.split()]
        with serving(options.canet, options.model, flags) as server:
            soak = Soak(server, items, catalogue, options)
            soak.run()
    result = soak.result()
    result["machine"] = described()
    options.out.mkdir(parents=True, exist_ok=True)
    draw(options.out / "soak.svg", result)
    del result["seconds"]
    (options.out / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
    del result["machine"]
    print(json.dumps(result, indent=1))
    sys.exit(0 if result["passed"] else 1)


def write_catalogue(path, items, edition):
    """Replaces the catalogue file by one of other titles. One item is hidden."""
    lines = [f"{item},Title {edition}-{place},{'true' if place == edition % len(items) else ''},c{place % 7}\n"
             for place, item in enumerate(items)]
    aside = path.with_suffix(".next")
    aside.write_text("id,title,hidden,category\n" + "".join(lines))
    aside.rename(path)


class Soak:
    def __init__(self, server, items, catalogue, options):
        self.server, self.items, self.catalogue, self.options = server, items, catalogue, options
        self.host, self.port = server["http"].split(":")
        self.lock = threading.Lock()
        self.latencies, self.statuses, self.faults = [], {}, []
        self.seconds, self.reloads = [], []
        self.offered = 0
        self.over = threading.Event()

    def run(self):
        rate = self.options.rate or self.options.share * self.capacity()
        self.rate = rate
        leaks = {"holds": 0, "leaks": LEAK_MB_A_MINUTE}
        controls = {name: subprocess.Popen([sys.executable, "-c", CONTROL, str(leak)]) for name, leak in leaks.items()}
        tickets = queue.Queue()
        workers = [threading.Thread(target=self.work, args=(tickets,), daemon=True) for _ in range(self.options.connections)]
        reloader = threading.Thread(target=self.reload, daemon=True)
        try:
            for thread in [*workers, reloader]:
                thread.start()
            self.offer(tickets, rate, {"canet": self.server["pid"], **{name: child.pid for name, child in controls.items()}})
        finally:
            self.over.set()
            for child in controls.values():
                child.kill()
                child.wait()
        for thread in [*workers, reloader]:
            thread.join(timeout=60)
        if reloader.is_alive():
            self.faults.append("a reload was not answered")

    def capacity(self):
        """Requests a second that the server answers when each connection asks again at once."""
        until, counts = time.monotonic() + 10, []

        def ask():
            connection, count = http.client.HTTPConnection(self.host, int(self.port), timeout=30), 0
            while time.monotonic() < until:
                count += self.ask(connection) == 200
            counts.append(count)

        threads = [threading.Thread(target=ask) for _ in range(self.options.connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / 10

    def body(self):
        history = random.choices(self.items, k=min(len(self.items), random.randint(1, 60)))
        request = {"history": history, "user": f"u{random.randrange(20000)}"}
        if random.random() < 0.2:
            request["filter"] = {"category": [f"c{random.randrange(7)}"]}
        return json.dumps(request)

    def ask(self, connection):
        """Sends one request and returns its status, or the name of the error."""
        try:
            connection.request("POST", "/recommend", self.body(), {"content-type": "application/json"})
            response = connection.getresponse()
            body = response.read()
            if response.status == 200 and len(json.loads(body)["items"]) != 10:
                return "short"
            return response.status
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            return type(error).__name__

    def work(self, tickets):
        connection = http.client.HTTPConnection(self.host, int(self.port), timeout=30)
        while True:
            due = tickets.get()
            if due is None:
                return
            status = self.ask(connection)
            # From when it was due: a client that is held up must not hide that.
            took = time.monotonic() - due
            with self.lock:
                if status == 200:
                    self.latencies.append(took * 1000)
                self.statuses[str(status)] = self.statuses.get(str(status), 0) + 1

    def reload(self):
        edition = 0
        while not self.over.wait(self.options.reload_seconds):
            edition += 1
            write_catalogue(self.catalogue, self.items, edition)
            connection = http.client.HTTPConnection(self.host, int(self.port), timeout=60)
            began = time.monotonic()
            try:
                connection.request("POST", "/admin/reload", "{}", {"content-type": "application/json"})
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    self.faults.append(f"reload {edition}: {response.status}")
            except (OSError, http.client.HTTPException) as error:
                self.faults.append(f"reload {edition}: {error}")
            self.reloads.append({"at": began - self.began, "seconds": time.monotonic() - began})

    def offer(self, tickets, rate, processes):
        """Hands out requests at random times of this mean rate, and writes a line a second."""
        self.began = due = time.monotonic()
        end, line = self.began + self.options.minutes * 60, self.began + 1
        while due < end:
            now = time.monotonic()
            while due <= now:
                tickets.put(due)
                self.offered += 1
                due += random.expovariate(rate)
            if now >= line:
                self.seconds.append(self.second(line - self.began, processes, tickets))
                line += 1
            time.sleep(max(0.0, min(due, line) - time.monotonic()))
        for _ in range(self.options.connections):
            tickets.put(None)

    def second(self, at, processes, tickets):
        with self.lock:
            latencies, self.latencies = sorted(self.latencies), []
        quantile = lambda share: latencies[int(share * (len(latencies) - 1))] if latencies else None
        memory = {name: resident(pid) for name, pid in processes.items()}
        return {"at": round(at), "answered": len(latencies), "waiting": tickets.qsize(),
                "p50_ms": quantile(0.5), "p99_ms": quantile(0.99), "memory_mb": memory}

    def result(self):
        judged = {name: slope(self.seconds, name, self.options.reload_seconds) for name in ("canet", "holds", "leaks")}
        # Of a worker that hangs, and of the requests that it left.
        unanswered = self.offered - sum(self.statuses.values())
        failed = unanswered > 0 or any(status != "200" for status in self.statuses)
        medians = [second["p50_ms"] for second in self.seconds if second["p50_ms"]]
        tells_apart = judged["leaks"]["grows"] and not judged["holds"]["grows"]
        return {
            "minutes": self.options.minutes,
            "offered_per_second": self.rate,
            "statuses": self.statuses,
            "unanswered": unanswered,
            "reloads": len(self.reloads),
            "slowest_reload_seconds": max((reload["seconds"] for reload in self.reloads), default=None),
            "p50_ms": statistics.median(medians) if medians else None,
            "worst_p99_ms": max((second["p99_ms"] for second in self.seconds if second["p99_ms"]), default=None),
            "memory": judged,
            "faults": self.faults,
            "tells_controls_apart": tells_apart,
            "passed": not failed and not self.faults and tells_apart and not judged["canet"]["grows"],
            "seconds": self.seconds,
        }


def resident(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"process {pid} is gone")


def slope(seconds, name, block):
    """The growth of a process's memory in MB an hour, with a 95 % interval. The first quarter is left out: caches fill.

    The least memory between two reloads is what the process cannot give back, and such values are nearly independent. Memory
    grows if the interval is above zero and the growth over the run is above 1 % of the memory and above 1 MB, since an
    allocator's pages go up and down by that much.
    """
    start = seconds[-1]["at"] / 4
    least = {}
    for second in seconds:
        if second["at"] >= start:
            place, memory = int(second["at"] // block), second["memory_mb"][name]
            least[place] = min(memory, least.get(place, math.inf))
    x = [(place + 0.5) * block / 3600 for place in least]
    y = list(least.values())
    if len(x) < 4:
        raise SystemExit("the run is too short: it needs eight reloads")
    middle, mean = statistics.fmean(x), statistics.fmean(y)
    spread = sum((value - middle) ** 2 for value in x)
    rate = sum((a - middle) * (b - mean) for a, b in zip(x, y)) / spread
    residual = sum((b - mean - rate * (a - middle)) ** 2 for a, b in zip(x, y))
    freedom = len(x) - 2
    half = (T[freedom - 1] if freedom <= len(T) else 1.96) * math.sqrt(residual / freedom / spread)
    growth = rate * (x[-1] - x[0])
    grows = rate - half > 0 and growth > max(1.0, 0.01 * mean)
    return {"mb_an_hour": rate, "low": rate - half, "high": rate + half, "blocks": len(x), "mean_mb": mean, "grows": grows}


def draw(path, result):
    """Latency and memory over time."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "canet", "svg.fonttype": "none"})
    from matplotlib import pyplot

    figure, (latency, memory) = pyplot.subplots(2, 1, figsize=(7.5, 5), sharex=True, layout="constrained")
    seconds = [second for second in result["seconds"] if second["p50_ms"]]
    minutes = [second["at"] / 60 for second in seconds]
    for field, colour in (("p99_ms", "#b3471d"), ("p50_ms", "#0b6e4f")):
        latency.plot(minutes, [second[field] for second in seconds], color=colour, linewidth=0.6, label=field[:3])
    latency.set(ylabel="ms", yscale="log")
    latency.legend(frameon=False, ncols=2)
    memory.plot(minutes, [second["memory_mb"]["canet"] for second in seconds], color="#0b6e4f", linewidth=0.8)
    memory.set(ylabel="resident MB", xlabel="minutes", ylim=(0, None))
    for axes in (latency, memory):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
