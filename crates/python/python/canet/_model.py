"""A checkpoint that ranks in this process."""

from __future__ import annotations

import json
import operator
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy
from numpy.typing import NDArray

from . import _native
from ._arguments import count, item_id, number, plain, text

if TYPE_CHECKING:
    import pyarrow

# Share of the full model's FLOPs that the router may spend, as in `canet rank`.
_BUDGET = 0.30


@dataclass(frozen=True)
class Route:
    """A slice of the weights that can run, and its cost."""

    name: str
    hidden: int
    layers: int
    embedding: int
    flops: int
    """FLOPs of a history of `max_len` items, including the router."""
    share: float
    """Share of the full route's FLOPs without a router."""


class Recommendations:
    """The best items of each history. Row i belongs to history i, and the best item comes first."""

    items: NDArray[numpy.object_]
    """Item ids as `str`, [histories, k]. `None` fills a row if fewer than k items are allowed."""
    scores: NDArray[numpy.float32]
    """Scores, [histories, k]. NaN stands beside `None`. Without a route, a score is the item's number of interactions."""
    routes: NDArray[numpy.object_]
    """Names of the routes that ran, [histories]. `None`: the model knows no item of the history, so the most popular items
    are recommended."""

    def __init__(
        self, items: NDArray[numpy.object_], scores: NDArray[numpy.float32], routes: NDArray[numpy.object_]
    ) -> None:
        self.items = items
        self.scores = scores
        self.routes = routes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> list[tuple[str, float]]:
        """The items of one history with their scores."""
        # NumPy takes slices and lists too, which would give something else.
        row = operator.index(row)
        found = zip(self.items[row].tolist(), self.scores[row].tolist())
        return [(item, score) for item, score in found if item is not None]

    def __iter__(self) -> Iterator[list[tuple[str, float]]]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        return f"Recommendations({len(self)} histories, k={self.items.shape[1]})"

    def to_arrow(self) -> pyarrow.Table:
        """A table with the columns `items` (lists of strings), `scores` (lists of floats) and `route`.

        From 2 GiB of ids on, the strings are large ones, and from 2^31 items on the lists too.
        """
        import pyarrow

        filled = numpy.not_equal(self.items, None)
        ends = numpy.concatenate([[0], filled.sum(axis=1).cumsum()])
        offsets = pyarrow.array(ends, pyarrow.int32() if ends[-1] < 2**31 else pyarrow.int64())
        lists = pyarrow.ListArray if ends[-1] < 2**31 else pyarrow.LargeListArray
        ids = pyarrow.array(self.items[filled], pyarrow.large_string())
        if ids.nbytes < 2**31:
            ids = ids.cast(pyarrow.string())
        return pyarrow.table(
            {
                "items": lists.from_arrays(offsets, ids),
                "scores": lists.from_arrays(offsets, pyarrow.array(self.scores[filled])),
                "route": pyarrow.array(self.routes, pyarrow.string()),
            }
        )


def _absolute(path: str | None) -> str | None:
    return path if path is None or path[:5].lower() == "s3://" else os.path.abspath(path)


class Model:
    """A checkpoint that ranks on the CPU, in this process.

    It computes what `canet rank` computes. Calls release the GIL, and one model may be used by several threads. A pickled
    model is its path: it is opened again where it is unpickled.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        catalogue: str | os.PathLike[str] | None = None,
        *,
        version: int | None = None,
        threads: int | None = None,
        precision: str = "fp32",
        model_cache: str | os.PathLike[str] | None = None,
    ) -> None:
        """Opens a version of the model in the directory `path`, by default the highest.

        `path` may be `s3://BUCKET/PREFIX`. The version is then copied into `model_cache`, by default that of the command
        `canet`, and the usual variables `AWS_*` say who asks.

        `catalogue` is a catalogue file with hidden items, titles and the keys of filters. `threads` limits the cores of a
        call, by default to all. `precision` is `fp32` or `bf16`.

        Raises `ModelError` if the checkpoint is missing or damaged, and `ValueError` if another argument is wrong.
        """
        options = {
            "path": os.fsdecode(path),
            "model_cache": os.fsdecode(model_cache or "") or os.environ.get("CANET_MODEL_CACHE") or None,
            "version": None if version is None else count("version", version, "the number of a version"),
            "catalogue": None if catalogue is None else os.fsdecode(catalogue),
            "threads": None if threads is None else count("threads", threads, "at least 1"),
            "precision": text("precision", precision),
        }
        self._native = _native.Model(options)
        fault = self._native.titles_fault()
        if fault is not None:
            warnings.warn(fault, stacklevel=2)
        description = json.loads(self._native.description())
        self.routes: list[Route] = [Route(name=route.pop("route"), **route) for route in description.pop("routes")]
        """Every route, the cheapest widths first."""
        # Names by index. The last one has the index -1: no route.
        self._route_names = numpy.array([*(route.name for route in self.routes), None], dtype=object)
        self.info: dict[str, Any] = description
        """Name, version, configuration, data, metrics and cost, as `canet inspect --json` prints them."""
        # A relative path means another file where the model is unpickled.
        absolute = {name: _absolute(options[name]) for name in ("path", "model_cache", "catalogue")}
        self._options = {**options, **absolute, "version": self.info["version"]}

    @cached_property
    def items(self) -> list[str]:
        """The ids of all items, in the order of the columns of `scores`."""
        return self._ids[1:].tolist()

    @cached_property
    def _ids(self) -> NDArray[numpy.object_]:
        """Ids by dense id. The id of 0, which is no item, is `None`."""
        return numpy.array([None, *self._native.ids()], dtype=object)

    def recommend(
        self,
        histories: Any,
        k: int | None = None,
        route: str = "auto",
        budget: float | None = None,
        exclude: Any = None,
        filter: Mapping[str, Any] | None = None,
        *,
        exclude_seen: bool | None = None,
        candidates: Any = None,
    ) -> Recommendations:
        """The `k` best items of each history.

        A history is a user's item ids, oldest first: strings, or integers that stand for their digits. `histories` is a
        list of lists, a matrix of integers, or an Arrow array of lists (pyarrow, polars). Ids that the model does not know
        are dropped, so -1 can fill the rows of a matrix.

        `k` is at most the number of items. Without it, it is 10, or all items of a smaller catalogue. `route` is `auto` (the
        router's choice for each history), `full`, `smallest` or a route's name. `budget` is the share of the full model's
        FLOPs that the router may spend, by default 0.30. `exclude` has ids that nobody gets, or a list of ids for each history.
        `filter` keeps items by keys of the catalogue file, as `{"category": ["a", "b"]}`. `exclude_seen` says whether items of
        the history are left out; the default is the model's rule. `candidates` has the ids to choose from, for everybody or a
        list for each history.

        Raises `ValueError` or `TypeError` if an argument is wrong, and `ModelError` if scores are not finite.
        """
        items = self.info["config"]["items"]
        options = {
            "k": min(10, items) if k is None else count("k", k, f"from 1 to {items}"),
            "route": text("route", route),
            "budget": _BUDGET if budget is None else number("budget", budget),
            "exclude_seen": exclude_seen,
            "exclude": exclude,
            "candidates": candidates,
            "filter": None if filter is None else json.dumps(plain("filter", filter)),
        }
        dense, scores, routes = self._native.recommend(histories, options)
        return Recommendations(self._ids[dense], scores, self._route_names[routes])

    def scores(self, histories: Any, route: str = "auto", budget: float | None = None) -> NDArray[numpy.float32]:
        """The score of every item for each history, [histories, items]. The columns are in the order of `items`.

        Scores are unrounded logits. The row of a history without a known item is NaN. Arguments and errors are those of
        `recommend`.
        """
        return self._native.scores(histories, text("route", route), _BUDGET if budget is None else number("budget", budget))

    def title(self, item: str | int) -> str | None:
        """An item's title: that of the catalogue file, or else the model's."""
        return self._native.title(str(item_id("item", item)))

    def __repr__(self) -> str:
        return f"Model({self.info['name']!r}, version={self.info['version']})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _open, (self._options,)


def _open(options: dict[str, Any]) -> Model:
    """Opens a pickled model."""
    return Model(**options)
