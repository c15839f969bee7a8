#!/usr/bin/env python3
"""Runs every query of the dashboards and of the alerts against a real Prometheus that scrapes a real server under load.

    live.py --canet target/release/canet --model models/ml-100k [--list FILE] [--picture FILE]

Starts the server, Prometheus with deploy/prometheus (a scrape a second) and k6, which replaces the model by a copy of
itself while it sends, and by a broken copy; large batches at one time, now and then, are more than the server may queue. Ends with 1
and names the queries that returned no number. Panels' variables stand for everything, an alert's threshold is left out, and so is
the least number of rows for which it speaks. --list writes each query with a sample, --picture draws some panels from what this Prometheus
recorded.
"""

import argparse
import json
import math
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
sys.path.insert(0, str(REPOSITORY / "loadtest"))

from model_files import item_ids, newest  # noqa: E402  (its place is known only now)
from serve import serving  # noqa: E402

VARIABLES = {
    "$__rate_interval": "10s", "$__range": "1h", "$job": ".+", "$instance": ".+", "$route": ".+", "$price": "0.04",
    "$cores": "1",
}
# The queue is short and one thread computes, so that fast machines and those of many cores refuse a part of a burst too.
FLAGS = ["--shadow", "0.5", "--version", "1", "--queue-limit-ms", "10", "--threads", "1", "--explore", "0.5"]
# Calls at one time, and the rows of each. A call fills half of the queue at most, so together they are too many.
CALLS = 8
ROWS = 128
# Users who reveal between two bursts what they took next.
USERS = 40


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--canet", type=Path, required=True)
    options.add_argument("--model", type=Path, required=True, help="its newest version serves")
    options.add_argument("--seconds", type=float, default=15, help="of load")
    options.add_argument("--rate", type=float, default=40, help="requests a second")
    options.add_argument("--list", type=Path)
    options.add_argument("--picture", type=Path)
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch, \
            serving(options.canet, staged(options.model, Path(scratch)),
                    [*FLAGS, "--answer-log", f"{scratch}/answers", "--catalogue", catalogue(options.model, scratch)]) \
            as addresses, \
            prometheus(Path(scratch), addresses["http"]) as address:
        started = time.time()
        put_under_load(Path(scratch), addresses["http"], options)
        # One moment for all of them: rates of the last seconds are none once the load is over for longer.
        ended = time.time()
        rows = [(place, expression, ask(address, expression, ended)) for place, expression in queries(address)]
        if options.picture:
            from picture import draw
            draw(options.picture, lambda query: history(address, query, started, time.time()))
    if options.list:
        options.list.write_text(listed(rows))
    empty = [f"{place}: {expression}" for place, expression, samples in rows if not samples]
    if empty:
        sys.exit("no number came back from\n" + "\n".join(empty))
    print(f"{len(rows)} queries, each with data")


def staged(model, scratch):
    """A model whose versions 1 and 2 are the newest one of `model`, and whose version 3 lacks half of its weights.

    All are without the calibration of budgets, by which one route may answer every request. Then the router would choose none,
    and its panels would have no data.
    """
    version = newest(model)
    there = scratch / model.name
    for copy in ["1", "2", "3"]:
        shutil.copytree(version, there / copy)
        manifest = json.loads((there / copy / "canet.json").read_text())
        manifest.pop("calibration", None)
        (there / copy / "canet.json").write_text(json.dumps(manifest))
    weights = there / "3" / "weights.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    return there


def catalogue(model, scratch):
    """A catalogue file that knows one item of the model."""
    item = item_ids(newest(model))[0]
    file = Path(scratch) / "catalogue.csv"
    file.write_text(f"id,category\n{item},any\n")
    return str(file)


@contextmanager
def prometheus(scratch, target):
    """A Prometheus with this repository's configuration, but for the target and the intervals."""
    config = (REPOSITORY / "deploy" / "prometheus" / "prometheus.yml").read_text()
    rules = REPOSITORY / "deploy" / "prometheus" / "rules.yml"
    for ours, here in {"server:8080": target, "- rules.yml": f"- {rules}", "_interval: 10s": "_interval: 1s"}.items():
        assert ours in config, f"prometheus.yml has no {ours}"
        config = config.replace(ours, here)
    (scratch / "prometheus.yml").write_text(config)
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={scratch / 'prometheus.yml'}", f"--storage.tsdb.path={scratch / 'data'}",
               f"--web.listen-address={address}", "--log.level=warn"]
    process = subprocess.Popen(command)
    try:
        until(lambda: call(address, "targets")["activeTargets"][0]["health"] == "up", 60)
        yield address
    finally:
        process.terminate()
        process.wait()


def free_port():
    """A port that nobody has, below those from which the system gives one to whoever asks for any meanwhile."""
    while True:
        try:
            with socket.create_server(("127.0.0.1", random.randrange(20000, 32768))) as free:
                return free.getsockname()[1]
        except OSError:
            pass


def until(condition, seconds):
    """Waits until something holds that another process brings about."""
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (urllib.error.URLError, ConnectionError, IndexError):
            pass
        if time.monotonic() > end:
            sys.exit(f"it did not happen within {seconds} s")
        time.sleep(0.2)


def put_under_load(scratch, target, options):
    """Runs k6 and sends bursts beside it, until k6 has ended."""
    environment = os.environ | {
        "SCENARIO": "reload", "URL": f"http://{target}", "RATE": str(options.rate), "DURATION": f"{options.seconds}s",
        "RELOAD": "2,1", "REFUSED": "3", "OUT": str(scratch / "load"),
        # What is tested is whether the panels show it.
        "SLO_P99_MS": "60000", "SLO_ERRORS": "1", "LATE_MS": "60000",
    }
    items = [entry["item"] for entry in get(f"http://{target}/items?q=1")["items"]]
    batch = json.dumps({"requests": [{"history": items}] * ROWS}).encode()
    pause = max(2.0, options.seconds / 12)
    # The script and its k6 are a group, which ends as one.
    script = [REPOSITORY / "loadtest" / "run.sh"]
    k6 = subprocess.Popen(script, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        while True:
            try:
                status = k6.wait(timeout=pause)
                break
            except subprocess.TimeoutExpired:
                with ThreadPoolExecutor(CALLS) as calls:
                    list(calls.map(lambda _: ask_for_many(target, batch), range(CALLS)))
                reveal(target, items)
    finally:
        if k6.poll() is None:
            os.killpg(k6.pid, signal.SIGTERM)
            k6.wait()
    if status != 0:
        sys.exit(f"the load test ended with {status}")


def ask_for_many(target, batch):
    with overload_allowed():
        get(f"http://{target}/recommend/batch", batch)


@contextmanager
def overload_allowed():
    """A burst may be too much, as a whole or for what comes after it."""
    try:
        yield
    except urllib.error.HTTPError as error:
        if error.code not in (429, 503):
            raise


def reveal(target, items):
    """Half of the users take the best item of their answer next, and the others one that they had before."""
    for number in range(USERS):
        request = {"history": items[:1], "user": f"{time.monotonic()} {number}"}
        with overload_allowed():
            best = get(f"http://{target}/recommend", json.dumps(request).encode())["items"][0]["item"]
            request["history"] = [*items[:1], best if number % 2 else items[0]]
            get(f"http://{target}/recommend", json.dumps(request).encode())


def queries(address):
    """`(where it stands, expression)` of every panel's target and of every alert."""
    for file in sorted((HERE / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{file.stem}, {panel['title']}", substituted(target["expr"])
    for group in call(address, "rules")["groups"]:
        for rule in group["rules"]:
            if rule["type"] == "alerting":
                yield f"alert {rule['name']}", without_threshold(rule["query"])
            else:
                yield f"record {rule['name']}", rule["name"]


def substituted(expression):
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression, f"a variable that is not known here: {expression}"
    return expression


def without_threshold(expression):
    found = re.fullmatch(r"(.*\S)\s*(?:==|[<>]=?)\s*[\d.* ]+", expression, re.DOTALL)
    assert found, f"an alert without a threshold: {expression}"
    return re.sub(r">= \d+", "> 0", found[1])


def ask(address, expression, moment):
    """The series with a number at a moment, as `(labels, value)`."""
    found = call(address, "query", query=expression, time=moment)["result"]
    samples = [(series["metric"], float(series["value"][1])) for series in found]
    return [(labels, value) for labels, value in samples if math.isfinite(value)]


def history(address, expression, start, end):
    """The series over time, as `(labels, times, values)`; times count from the start."""
    step = max(1, round((end - start) / 240))
    found = call(address, "query_range", query=substituted(expression), start=start, end=end, step=step)["result"]
    for series in found:
        points = [(time_ - start, float(value)) for time_, value in series["values"]]
        yield series["metric"], [point[0] for point in points], [point[1] for point in points]


def call(address, path, **parameters):
    return get(f"http://{address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")["data"]


def get(url, body=None):
    request = urllib.request.Request(url, data=body, headers={"content-type": "application/json"} if body else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        # Prometheus is not ready at once; whatever else it says is about the query.
        if "/api/v1/" in url and error.code != 503:
            sys.exit(f"{urllib.parse.unquote_plus(url)}: {error.read().decode()}")
        raise


def listed(rows):
    lines = ["| where | query | series | one of them |", "|---|---|---|---|"]
    for place, expression, samples in rows:
        labels, value = samples[0] if samples else ({}, math.nan)
        told = {name: text for name, text in labels.items() if name not in ("__name__", "instance", "job")}
        shown = ", ".join(f"{name}={text}" for name, text in told.items())
        query = " ".join(expression.split()).replace("|", "\\|")
        lines.append(f"| {place} | `{query}` | {len(samples)} | {f'{shown}: ' if shown else ''}{value:.6g} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
