#!/usr/bin/env python3
"""Trains a row of the experiments, reports on it, and writes what it came to beside this file.

    make experiment ROW=beauty                       seed 1
    make experiment ROW=beauty SEEDS=1,2,3           more seeds, trained where they are not yet
    make experiment ROW=list                         the rows
    make experiment ROW=table                        the tables alone

A row's models stay in target/experiments and are not trained again; a training that was stopped goes on. The results are
ROW.json and, of models with more than one route, ROW.svg here. tables.py makes the tables of this README.md and the
repository's anew from every result. Without seed 1 the results are ROW-seed-3.json and so on, for seeds whose first models
are not at hand. DATA is the directory of the data sets (data unless told); models/experiments/README.md says where they come
from.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

from rows import DATA, ROWS
from tables import routes_of, write_tables

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
CANET = REPOSITORY / "target" / "release" / "canet"
WORK = REPOSITORY / "target" / "experiments"
# What the reports look at.
BUDGETS = "0.09,0.15,0.2,0.28,0.3,0.32,0.35,0.4,0.5"
# Where a checkpoint's manifest records what a flag said.
RECORDED = {
    **{f"--{name}": ("training", "options", name.replace("-", "_"))
       for name in ("seed", "preset", "epochs", "batch-size", "warmup-steps", "dropout", "patience", "flops-budget")},
    "--loss-positions": ("training", "options", "samples", "loss_positions"),
    "--samples-per-user": ("training", "options", "samples", "per_user"),
    "--lr": ("training", "options", "learning_rate"),
    "--tie-embeddings": ("training", "options", "tied"),
    "--weight-decay": ("training", "options", "optimizer", "weight_decay"),
    "--clip-norm": ("training", "options", "optimizer", "clip_norm"),
    "--negatives": ("training", "options", "sandwich", "negatives"),
    "--distillation": ("training", "options", "sandwich", "distillation"),
    "--narrow-boost": ("training", "options", "sandwich", "narrow_boost"),
    "--router-holdout": ("training", "options", "router", "holdout"),
    "--settle-epochs": ("training", "options", "settle", "epochs"),
    "--settle-lr": ("training", "options", "settle", "learning_rate"),
    **{f"--{name}": ("config", name.replace("-", "_")) for name in ("max-len", "hidden", "layers", "embedding", "heads", "positions")},
}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("row", choices=["list", "table", *ROWS])
    options.add_argument("--seeds", default="1", help="with commas")
    options.add_argument("--data", type=Path, default=REPOSITORY / "data", help="directory of the data sets")
    options.add_argument("--threads", type=int, help="CPU threads of a training and of the report")
    options.add_argument("--device", default="auto", help="where to train, as of canet train; the report is the CPU's")
    options.add_argument("--max-minutes", type=float, help="time limit of each training; the result tells the epochs until then")
    options = options.parse_args()
    if options.row == "list":
        for name, row in ROWS.items():
            print(f"{name:28} {row['data']}: {' '.join(row['flags'])}")
        return
    if options.row != "table":
        experiment(options)
    write_tables()


def experiment(options):
    row = ROWS[options.row]
    seeds = [int(seed) for seed in options.seeds.split(",")]
    name = options.row if 1 in seeds else f"{options.row}-seed-{'-'.join(map(str, seeds))}"
    check_seeds(name, seeds)
    data = checked(options.data / DATA[row["data"]]["file"], DATA[row["data"]]["sha256"])
    threads = ["--threads", str(options.threads)] if options.threads else []
    limit = ["--max-minutes", str(options.max_minutes)] if options.max_minutes else []
    models = [WORK / f"{options.row}-{seed}" for seed in seeds]
    for seed, model in zip(seeds, models):
        if not (model / "1").is_dir():
            how = ["--seed", seed, "--device", options.device, *threads, *limit]
            canet("train", "--data", data, "--out", model, *how, *row["flags"])
        if wrong := disagreement(json.loads((model / "1" / "canet.json").read_text()), seed, row["flags"]):
            sys.exit(f"{model} is not this row's model: {wrong}; move it away and it is trained anew")
    report = WORK / options.row
    given = [argument for model in models for argument in ("--model", model)]
    canet("report", *given, "--data", data, "--out", report, "--budgets", BUDGETS, "--device", "cpu", *threads)
    found = json.loads((report / "report.json").read_text())
    trained = [training_of(model) for model in models]
    result = reduced(name, row, seeds, found, trained)
    (HERE / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    if routes_of(result) > 1:
        (HERE / f"{name}.svg").write_bytes((report / "report-flops.svg").read_bytes())


def check_seeds(name, seeds):
    """Ends the program if the result that it would write lacks a seed that the result of that name has."""
    result = HERE / f"{name}.json"
    before = json.loads(result.read_text())["seeds"] if result.exists() else []
    if lost := sorted(set(before) - set(seeds)):
        sys.exit(f"{result.name} has seed {lost[0]}: add it to SEEDS, or remove the file if its models are gone")


def checked(path, sha256):
    if not path.exists():
        sys.exit(f"{path} is not there: models/experiments/README.md says where it comes from; or give --data DIR")
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        sys.exit(f"{path} is not the file that these experiments are about (its SHA-256 is not {sha256})")
    return path


def canet(*arguments):
    command = [str(argument) for argument in (CANET, *arguments)]
    print("+", *command, flush=True)
    ended = subprocess.run(command, check=False).returncode
    if ended:
        sys.exit(ended)


def disagreement(manifest, seed, flags):
    """The first flag of a row that a model was not trained with, where its manifest records that."""
    flags = ["--seed", str(seed), *flags]
    for flag, given in zip(flags[::2], flags[1::2]):
        found = manifest
        for key in RECORDED[flag]:
            found = found.get(key) if found else None
        if found is not None and not says(found, given):
            return f"{flag} {given}, and it was trained with {found}"
    return None


def says(found, given):
    """Whether a flag's text means what was recorded."""
    if isinstance(found, list):
        parts = given.split(",")
        return len(parts) == len(found) and all(says(*pair) for pair in zip(found, parts))
    if given == "all":
        return False
    if isinstance(found, bool) or isinstance(found, str):
        return str(found).lower() == given.lower()
    return found == float(given)


def training_of(model):
    """Minutes that a training took, where, and the epochs until its time limit ended it, if one did."""
    lines = (model / "1.train.jsonl").read_text().splitlines()
    cut_short_after = json.loads((model / "1" / "canet.json").read_text())["training"].get("cut_short_after")
    return round(json.loads(lines[-1])["elapsed_seconds"] / 60, 1), json.loads(lines[0])["device"], cut_short_after


def value(found):
    """A mean over users with its standard error, its 95 % interval over users and trainings, and the mean by seed."""
    kept = {"mean": found["mean"], "se": found["se"], "interval": found["interval"], "by_seed": found["by_model"]}
    return {name: rounded(number) for name, number in kept.items()}


def rounded(number):
    if isinstance(number, list):
        return [rounded(one) for one in number]
    return number if number is None else float(f"{number:.7g}")


def reduced(name, row, seeds, found, trained):
    full, smallest = found["routes"][-1], found["routes"][0]
    return {
        "row": name,
        "data": row["data"],
        "flags": row["flags"],
        "seeds": seeds,
        "users": found["users"],
        "training_minutes": [minutes for minutes, _, _ in trained],
        "trained_on": [device for _, device, _ in trained],
        "cut_short_after": [epochs for _, _, epochs in trained],
        "full": {"route": full["name"], "mflops": rounded(full["cost"]["flops"] / 1e6), "test": value(full["test"])},
        "smallest": {"route": smallest["name"], "saved": rounded(smallest["saved"]), "test": value(smallest["test"])},
        "strongest": {
            "routes": [model["strongest"] for model in found["models"]],
            "saved": rounded(1 - found["strongest"]["cost"]["flops"] / found["full_flops"]),
            "test": value(found["strongest"]["test"]),
        },
        "random": {
            "saved": rounded(1 - found["random"]["cost"]["flops"] / found["full_flops"]),
            "test": value(found["random"]["test"]),
        },
        "slices": [slice_of(route) for route in found["routes"]],
        "popularity": rounded(found["popularity"]["mean"]),
        "markov": rounded(found["markov"]["mean"]),
        "hulls": [model["hull"] for model in found["models"]],
        "routed": [point(one) for one in found["points"]],
    }


def slice_of(route):
    return {"route": route["name"], "mflops": rounded(route["cost"]["flops"] / 1e6), "test": value(route["test"])}


def point(found):
    return {
        "budget": found["budget"],
        "saved": rounded(found["saved"]),
        "seconds_saved": rounded(found["seconds_saved"]),
        "test": value(found["test"]),
        "over": {name: value(over) for name, over in found["over"].items()},
        "permuted_gain": {"mean": rounded(found["permuted"]["mean"]), "p": rounded(found["permuted"]["p"])},
        "routes_in_use": found["routes_in_use"],
        "shares": {route: rounded(share) for route, share in found["shares"].items()},
    }


if __name__ == "__main__":
    main()
