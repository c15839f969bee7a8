#!/usr/bin/env python3
"""Measures how large builds of canet are, and how soon each of them serves a model, in turns.

    startup.py --model models/ml-100k [--canet target/release/canet,target/native/release/canet] [--rounds 10] [--json FILE]

The time goes from the start of the process to the line that says it is ready: LibTorch's libraries are loaded, the model
is read, checked against its probes, warmed up and timed. Memory is what is resident then. The size is that of the file
without its symbols, and of the libraries that it loads beside the system's.
"""

import argparse
import json
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from machine import described
from serve import serving

SYSTEM = ("/lib", "/usr/lib")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", required=True, type=Path)
    options.add_argument(
        "--canet", default="target/release/canet,target/native/release/canet", type=lambda text: text.split(",")
    )
    options.add_argument("--rounds", default=10, type=int)
    options.add_argument("--json", type=Path)
    options = options.parse_args()
    found = {binary: [] for binary in options.canet}
    for _ in range(options.rounds):
        for binary, starts in found.items():
            starts.append(start(binary, options.model))
    rows = []
    for binary, starts in found.items():
        seconds = [seconds for seconds, _ in starts]
        row = {
            "canet": binary,
            "ready_seconds": round(statistics.median(seconds), 3),
            "least": round(min(seconds), 3),
            "greatest": round(max(seconds), 3),
            "resident_mb": round(statistics.median(resident for _, resident in starts), 1),
            **{f"{name}_mb": round(size / 1e6, 1) for name, size in sizes(binary).items()},
        }
        rows.append(row)
        print(json.dumps(row))
    if options.json:
        document = {**described(), "model": options.model.name, "rounds": options.rounds, "rows": rows}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def start(binary, model):
    """Seconds until it is ready, and megabytes that are resident then."""
    started = time.perf_counter()
    with serving(binary, model, ["--log", "info"]) as server:
        took = time.perf_counter() - started
        resident = re.search(r"VmRSS:\s*(\d+) kB", Path(f"/proc/{server['pid']}/status").read_text())
        return took, int(resident[1]) / 1e3


def sizes(binary):
    """Bytes of the stripped file, and of the libraries beside the system's that it loads."""
    with tempfile.TemporaryDirectory() as scratch:
        stripped = Path(scratch) / "canet"
        subprocess.run(["strip", "-o", stripped, binary], check=True)
        file = stripped.stat().st_size
    linked = subprocess.run(["ldd", binary], check=True, capture_output=True, text=True).stdout
    libraries = {Path(path).resolve() for path in re.findall(r"=> (/\S+)", linked) if not path.startswith(SYSTEM)}
    return {"file": file, "libraries": sum(library.stat().st_size for library in libraries)}


if __name__ == "__main__":
    main()
