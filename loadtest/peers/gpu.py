#!/usr/bin/env python3
"""Times canet and PyTorch on one GPU, the same histories, in turns, and prints what each came to, with ratios.

    gpu.py --histories data.txt [--model DIR] [--rounds 3] [--seconds 1] [--batch 1,8,32,64,256] [--json FILE]

The peers run the full route: PyTorch as it is, and compiled with `mode="reduce-overhead"`, that is with CUDA graphs, one
shape a batch size; both in float32 and with bfloat16 weights. Each call takes histories from the host and gives ten items
back to it. canet runs workloads of `canet bench --device cuda`, its router included, and a uniform mix by
its LibTorch forward too. Nothing is timed before `canet serve`
on the GPU has served the ten best items that PyTorch finds. Then the model is replaced again and again under load, over
HTTP. Ends with 1 if a request failed meanwhile or was not answered within 30 s, or if a reload was refused.
"""

import argparse
import http.client
import itertools
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from checkpoint import Checkpoint
from compare import COMPARED, REPOSITORY, agree, external, figure, line, rows_per_second, trained
from network import Route, padded

from machine import described
from serve import serving

WORKLOADS = ("full", "smallest", "uniform", "own")
CALLERS = 16
RELOAD_SECONDS = 6
ANSWER_SECONDS = 30
# What else runs a uniform mix of the routes: LibTorch, by width and by route.
LIBTORCH = (("libtorch", "width"), ("libtorch", "route"))
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--histories", required=True, type=Path)
    options.add_argument("--model", type=Path)
    options.add_argument("--batch", default="1,8,32,64,256", type=lambda text: [int(size) for size in text.split(",")])
    options.add_argument("--rounds", default=3, type=int)
    options.add_argument("--seconds", default=1.0, type=float)
    options.add_argument("--canet", default=REPOSITORY / "target" / "release" / "canet", type=Path)
    options.add_argument("--json", type=Path)
    options = options.parse_args()
    options.model = options.model or trained(options)
    checkpoint = Checkpoint.read(options.model)
    histories = checkpoint.histories(options.histories)
    random.Random(1).shuffle(histories)
    peers = {
        (name, precision): make(checkpoint, kind)
        for name, make in (("eager", eager), ("compiled", compiled)) for precision, kind in PRECISIONS.items()
    }
    agree(options, checkpoint, histories[:COMPARED], "eager", peers["eager", "fp32"], "--device", "cuda")
    print(f"the same ten best items of {COMPARED} histories on the GPU", flush=True)

    runs = {}
    theirs = {(*peer, batch): [] for peer in peers for batch in options.batch}
    for _ in range(options.rounds):
        for (*peer, batch), found in theirs.items():
            tokens = full_length(checkpoint, histories, batch)
            found.append(rows_per_second(peers[tuple(peer)], tokens, options.seconds))
        for precision in PRECISIONS:
            for run in bench(options, WORKLOADS, options.batch, "--precision", precision):
                runs.setdefault((run["workload"], precision, run["batch"]), []).append(run)
        for backend, lanes in LIBTORCH:
            for run in bench(options, ["uniform"], [lanes_at(options)], "--backend", backend, "--batch-by", lanes):
                runs.setdefault((backend, lanes), []).append(run)
        print("a round is done", flush=True)
    document = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        **described(),
        "items": checkpoint.config["items"],
        "max_len": checkpoint.config["max_len"],
        "rounds": options.rounds,
        "seconds": options.seconds,
        "rows": rows(options, runs, theirs),
        "canet": {", ".join(map(str, run)): summary(found) for run, found in runs.items()},
        "reload": reload_under_load(options, checkpoint, histories),
    }
    for row in document["rows"]:
        print(line(row))
    print(json.dumps(document["reload"]))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    sys.exit(fault(document["reload"]))


def eager(checkpoint, kind):
    model = Route(checkpoint, "full").eval().to("cuda", kind)

    def rank(histories):
        with torch.inference_mode():
            return model(histories.to("cuda", non_blocking=True)).indices.cpu()

    return rank


def compiled(checkpoint, kind):
    model = torch.compile(Route(checkpoint, "full").eval().to("cuda", kind), mode="reduce-overhead")

    def rank(histories):
        with torch.inference_mode():
            torch.compiler.cudagraph_mark_step_begin()
            return model(histories.to("cuda", non_blocking=True)).indices.cpu()

    return rank


def full_length(checkpoint, histories, batch):
    """Batches in pinned memory, all of the longest history's length: a CUDA graph has one shape."""
    longest = checkpoint.config["max_len"]
    chosen = itertools.cycle(histories)
    batches = []
    for _ in range(max(1, 512 // batch)):
        tokens = padded(list(itertools.islice(chosen, batch)))
        tokens = torch.nn.functional.pad(tokens, (longest - tokens.shape[1], 0))
        batches.append(tokens.pin_memory())
    return batches


def bench(options, workloads, batches, *flags):
    """One run of `canet bench` on the GPU, of whatever waits unless told."""
    if "--batch-by" not in flags:
        flags = ("--batch-by", "all", *flags)
    command = [options.canet, "bench", "--json", "--device", "cuda", "--threads", 4, "--model", options.model]
    command += ["--histories", options.histories, "--seconds", options.seconds, *flags]
    command += ["--workload", ",".join(workloads), "--batch", ",".join(map(str, batches))]
    output = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
    return json.loads(output)["results"]


def rows(options, runs, theirs):
    speed = {name: [run["requests_per_second"] for run in found] for name, found in runs.items()}
    found = []
    for precision, batch, peer in itertools.product(PRECISIONS, options.batch, ("eager", "compiled")):
        other = theirs[peer, precision, batch]
        for workload in ("full", "uniform", "own"):
            mine = speed[workload, precision, batch]
            parts = {
                "canet": round(statistics.median(mine), 1),
                "peer": f"PyTorch {peer}, full, {precision}",
                "theirs": round(statistics.median(other), 1),
            }
            what = f"{workload}, {precision}, {batch} in flight"
            found.append(figure(what, [a / b for a, b in zip(mine, other)], "x", parts=parts))
    mixed = speed["uniform", "fp32", lanes_at(options)]
    for backend, lanes in LIBTORCH:
        ratios = [a / b for a, b in zip(mixed, speed[backend, lanes])]
        found.append(figure(f"uniform, over {backend} by {lanes}", ratios, "x"))
    return found


def lanes_at(options):
    """As many in flight for the comparison with LibTorch: the number nearest to 64."""
    return min(options.batch, key=lambda batch: abs(batch - 64))


def summary(runs):
    return {
        key: round(statistics.median(run[key] for run in runs), 4)
        for key in ("requests_per_second", "p50_ms", "p99_ms", "gflops")
    }


def reload_under_load(options, checkpoint, histories):
    """Callers who ask again as soon as they are answered, and a model that is replaced by its twin all the while."""
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        for version in ("1", "2"):
            shutil.copytree(checkpoint.directory, model / version)
        before = memory()
        with serving(options.canet, model, ["--log", "info", "--device", "cuda"]) as server:
            bodies = [json.dumps({"history": items}) for items in external(checkpoint, histories[:1000])]
            took, failed, reloads, refused, most = [], [], [], [], [memory()]
            end = time.perf_counter() + RELOAD_SECONDS

            def call():
                connection = http.client.HTTPConnection(server["http"], timeout=ANSWER_SECONDS)
                while (began := time.perf_counter()) < end:
                    body = random.choice(bodies)
                    try:
                        connection.request("POST", "/recommend", body, {"content-type": "application/json"})
                        answer = connection.getresponse()
                        answer.read()
                        outcome = took if answer.status == 200 else failed
                    except (OSError, http.client.HTTPException):
                        # The next request makes a new connection.
                        connection.close()
                        outcome = failed
                    outcome.append(time.perf_counter() - began)

            callers = [threading.Thread(target=call) for _ in range(CALLERS)]
            for caller in callers:
                caller.start()
            version = itertools.cycle(["2", "1"])
            while time.perf_counter() < end:
                connection = http.client.HTTPConnection(server["http"], timeout=ANSWER_SECONDS)
                body = json.dumps({"version": int(next(version))})
                began = time.perf_counter()
                connection.request("POST", "/admin/reload", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                (reloads if answer.status == 200 else refused).append(time.perf_counter() - began)
                most.append(memory())
                time.sleep(0.2)
            for caller in callers:
                caller.join()
    took.sort()
    return {
        "callers": CALLERS,
        "seconds": RELOAD_SECONDS,
        "requests_per_second": round(len(took) / RELOAD_SECONDS, 1),
        "p50_ms": round(1000 * took[len(took) // 2], 3) if took else None,
        "p99_ms": round(1000 * took[len(took) * 99 // 100], 3) if took else None,
        "failed": len(failed),
        "reloads": len(reloads),
        "reloads_refused": len(refused),
        "reload_seconds": round(statistics.median(reloads), 3) if reloads else None,
        "gpu_mib_serving": most[0] - before,
        "gpu_mib_most_while_reloading": max(most) - before,
    }


def fault(found):
    """What went wrong while the model was replaced; `None` if nothing did."""
    if found["failed"]:
        return f"{found['failed']} requests failed while the model was replaced"
    if found["reloads_refused"] or not found["reloads"]:
        return f"of {found['reloads'] + found['reloads_refused']} reloads {found['reloads_refused']} were refused"
    return None


def memory():
    """MiB in use on the GPU, by anybody."""
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return int(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
