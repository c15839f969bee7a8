"""A checkpoint of canet as the peers read it: its configuration, its weights, and histories by its ids."""

import sys
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file

from package import window

sys.path.append(str(Path(__file__).resolve().parents[1]))

import model_files  # noqa: E402  (its place is known only now)
from model_files import item_ids, newest  # noqa: E402


@dataclass(frozen=True)
class Checkpoint:
    directory: Path
    config: dict
    weights: dict
    items: dict

    @classmethod
    def read(cls, model, version=None):
        """The version of `model`, the highest one unless told."""
        directory = Path(model) / str(version) if version else newest(model)
        items = {item: index + 1 for index, item in enumerate(item_ids(directory))}
        return cls(directory, model_files.config(directory), load_file(directory / "weights.safetensors"), items)

    def sequences(self, path):
        """All known items of each user in `path`: RecBole's `.inter`, `user item` lines in the order of time, or one
        `user item item ...` line a user."""
        users = {}
        with open(path) as file:
            lines = [line.split() for line in file]
        if ":token" in lines[0][0]:
            # user, item, rating, time
            lines = sorted(lines[1:], key=lambda fields: float(fields[3]))
            lines = [fields[:2] for fields in lines]
        for user, *items in lines:
            users.setdefault(user, []).extend(self.items[item] for item in items if item in self.items)
        return [items for items in users.values() if items]

    def histories(self, path):
        """What the model reads of each of these users."""
        return [self.read_part(items) for items in self.sequences(path)]

    def read_part(self, items):
        """The items that the model reads of a sequence."""
        return window(items, self.config["max_len"], self.config.get("history_stride", 1))

    def routes(self):
        """The names of all routes."""
        return model_files.route_names(self.config)
