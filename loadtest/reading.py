#!/usr/bin/env python3
"""Times how canet, pandas and polars read a log and prepare it, on one thread each, in turns.

    pip install pandas polars pyarrow numpy
    reading.py [--canet target/release/canet] [--rows 1000000] [--rounds 5] [--json FILE]
    reading.py --forms DIR

Each reads the file, gives users and items dense ids, and sorts by user and time. canet does it as `canet data`, which also
computes digests of the file and of the sequences. Each run is a process of its own. Seconds are seconds of CPU, which other
programs on the machine do not change: of the whole process, and of the peers also without their imports. Memory is the peak
of what was resident.

`--forms` measures nothing: it writes one log of 3,000 users as CSV, CSV with other names and dates, Parquet, JSON lines and
RecBole's .inter. `canet data` must print one parsed digest for all of them, and `canet train --threads 1` the same weights.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import described

START = 1_700_000_000


def log(rows, users, items):
    """Users and items by Zipf's law, in the order of time, as a log has them."""
    import numpy
    import pandas

    random = numpy.random.default_rng(1)
    drawn = lambda many: (many ** random.random(rows)).astype("int64")
    return pandas.DataFrame({
        "user_id": "user" + pandas.Series(drawn(users)).astype(str),
        "item_id": "sku-" + pandas.Series(drawn(items)).astype(str),
        "timestamp": START + numpy.sort(random.integers(0, 30_000_000, rows)),
    })


def with_pandas(path):
    import pandas

    began = time.process_time()
    frame = pandas.read_csv(path) if path.suffix == ".csv" else pandas.read_parquet(path)
    frame["user"], users = pandas.factorize(frame["user_id"])
    frame["item"], items = pandas.factorize(frame["item_id"])
    frame = frame[["user", "item", "timestamp"]].sort_values(["user", "timestamp"], kind="stable")
    return time.process_time() - began, len(users), len(items), len(frame)


def with_polars(path):
    import polars

    began = time.process_time()
    frame = polars.read_csv(path) if path.suffix == ".csv" else polars.read_parquet(path)
    for name, column in [("user", "user_id"), ("item", "item_id")]:
        ids = frame.select(polars.col(column).unique(maintain_order=True)).with_row_index(name)
        frame = frame.join(ids, on=column, how="left", maintain_order="left")
    frame = frame.select("user", "item", "timestamp").sort(["user", "timestamp"], maintain_order=True)
    return time.process_time() - began, frame["user"].n_unique(), frame["item"].n_unique(), len(frame)


PEERS = {"pandas": with_pandas, "polars": with_polars}


def run(command):
    """Runs a process on one thread: its output, its seconds of CPU and its peak of memory in MB."""
    one = {name: "1" for name in ["POLARS_MAX_THREADS", "OMP_NUM_THREADS", "ARROW_NUM_THREADS", "RAYON_NUM_THREADS"]}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **one})
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = usage.ru_utime + usage.ru_stime
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{command} ended with {process.returncode}")
    return json.loads(output), seconds, usage.ru_maxrss / 1024


def write_log(options):
    """Writes the log and prints its counts."""
    frame = log(options.rows, options.users, options.items)
    frame.to_csv(options.write / "log.csv", index=False)
    frame.to_parquet(options.write / "log.parquet", index=False)
    print(json.dumps([frame["user_id"].nunique(), frame["item_id"].nunique(), len(frame)]))


def measure(options, folder):
    # A process of its own writes the log: the peak of a child counts what its parent held when it was started.
    sizes = [f"--{name}={getattr(options, name)}" for name in ["rows", "users", "items"]]
    counted = subprocess.run([sys.executable, __file__, "--write", folder, *sizes], check=True, stdout=subprocess.PIPE)
    expected = tuple(json.loads(counted.stdout))
    files = {"csv": folder / "log.csv", "parquet": folder / "log.parquet"}
    core = sorted(os.sched_getaffinity(0))[:1]
    results = []
    for form, path in files.items():
        found = {name: [] for name in ["canet", *PEERS]}
        for _ in range(options.rounds):
            for name, runs in found.items():
                command = [options.canet, "data", "--data", path, "--json"]
                if name != "canet":
                    command = [sys.executable, __file__, "--peer", name, "--file", path]
                output, seconds, memory = run(["taskset", "-c", str(core[0]), *map(str, command)])
                counts = tuple(output[key] for key in ["users", "items", "interactions"])
                assert counts == expected, f"{name} counts {counts}, not {expected}"
                runs.append({"seconds": seconds, "without_imports": output.get("seconds", seconds), "memory_mb": memory})
        medians = {
            name: {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}
            for name, runs in found.items()
        }
        for name, values in medians.items():
            results.append({"form": form, "bytes": path.stat().st_size, "reader": name, **values})
        ratio = medians["canet"]["seconds"] / medians["polars"]["without_imports"]
        results.append({"form": form, "canet_over_polars": round(ratio, 2), "aim": 3, "reached": ratio <= 3})
    return results


def write_forms(folder):
    import pandas

    folder.mkdir(parents=True, exist_ok=True)
    frame = log(60_000, 3_000, 800)
    frame.to_csv(folder / "log.csv", index=False)
    other = frame.rename(columns={"user_id": "visitorId", "item_id": "SKU", "timestamp": "event_time"})
    other["event_time"] = pandas.to_datetime(other["event_time"], unit="s", utc=True).dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    other.to_csv(folder / "iso.csv", index=False, sep=";")
    frame.assign(timestamp=pandas.to_datetime(frame["timestamp"], unit="s", utc=True)).to_parquet(folder / "log.parquet")
    frame.to_json(folder / "log.jsonl", orient="records", lines=True)
    types = {"user_id": "user_id:token", "item_id": "item_id:token", "timestamp": "timestamp:float"}
    frame.rename(columns=types).to_csv(folder / "log.inter", index=False, sep="\t")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--canet", default="target/release/canet")
    options.add_argument("--rows", default=1_000_000, type=int)
    options.add_argument("--users", default=100_000, type=int)
    options.add_argument("--items", default=20_000, type=int)
    options.add_argument("--rounds", default=5, type=int)
    options.add_argument("--json", type=Path)
    options.add_argument("--forms", type=Path, metavar="DIR", help="only write one log in five forms")
    options.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    options.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = options.parse_args()
    if options.peer:
        seconds, users, items, interactions = PEERS[options.peer](options.file)
        print(json.dumps({"seconds": seconds, "users": users, "items": items, "interactions": interactions}))
    elif options.write:
        write_log(options)
    elif options.forms:
        write_forms(options.forms)
    else:
        with tempfile.TemporaryDirectory() as folder:
            results = measure(options, Path(folder))
        for row in results:
            print(json.dumps(row))
        if options.json:
            options.json.write_text(json.dumps({**described(), "rows": options.rows, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
