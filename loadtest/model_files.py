"""A model's directory, as the measurements read it."""

import json
from pathlib import Path


def versions(model):
    """The numbers of the versions in the directory, none if a training was stopped before it wrote one."""
    model = Path(model)
    return sorted(int(entry.name) for entry in model.iterdir() if entry.name.isdigit()) if model.is_dir() else []


def newest(model):
    """The directory of the highest version."""
    found = versions(model)
    if not found:
        raise SystemExit(f"{model} holds no version of a model")
    return Path(model) / str(found[-1])


def config(version):
    """The configuration of the model in a version's directory."""
    return json.loads((version / "canet.json").read_text())["config"]


def item_ids(version):
    """The external ids of the items in a version's directory, in their order."""
    # An id may have any character but a line break and a tab, so `splitlines` would break some.
    lines = (version / "items.tsv").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return [line.split("\t")[0] for line in lines]


def route_names(config):
    """The names of all routes, the cheapest first and the full one last. Without embedding widths, each is the hidden one."""
    return [
        f"h{width}-l{depth}-e{embedding}"
        for width in config["hidden"] for depth in config["layers"] for embedding in config["embedding"] or [width]
    ]
