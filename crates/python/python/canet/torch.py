"""One route of a checkpoint as a plain PyTorch module.

It is the reference for other runtimes: what it computes is what canet computes, up to float32 rounding. Weights that the route does
not use are left out, the products for query, key and value are one, and the last block computes the newest position alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

try:
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import gelu, linear
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("canet.to_torch needs PyTorch: pip install 'canet[torch]'", name="torch") from error

from ._arguments import item_ids

# Added to the attention score of a key that a query may not see. Finite, since not every runtime has a softmax of infinities.
_UNSEEN = -1e30


def to_torch(path: str | os.PathLike[str], route: str = "full", version: int | None = None) -> Slice:
    """A route of the model in the directory `path`, in a version that is the highest by default.

    `route` is `full`, `smallest` or a route's name. The module is in evaluation mode, and its weights can be trained. Raises
    `FileNotFoundError` if there is no such version, and `ValueError` if there is no such route.
    """
    from safetensors.torch import load_file

    if os.fsdecode(path)[:5].lower() == "s3://":
        raise ValueError(f"{path}: to_torch reads a directory: copy the version from the bucket first")
    # As for `Model`, other names are no versions.
    names = [entry.name for entry in Path(path).iterdir() if entry.is_dir()]
    versions = [int(name) for name in names if re.fullmatch("[1-9][0-9]*", name)]
    if not versions:
        raise FileNotFoundError(f"{path}: this directory holds no version of a model")
    directory = Path(path) / str(max(versions) if version is None else version)
    config = json.loads((directory / "canet.json").read_text(encoding="utf-8"))["config"]
    weights = load_file(directory / "weights.safetensors")
    # An id may have any character but a line break and a tab, so `splitlines` would break some.
    items = (directory / "items.tsv").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return Slice(config, weights, route, items).eval()


def sizes(config: Mapping[str, Any], route: str) -> tuple[int, int, int]:
    """Width, depth and embedding width of a route, as of `h64-l2-e64`."""
    # Without a list of embeddings, each is as wide as the hidden state.
    embedding = config["embedding"] or config["hidden"]
    if route in ("full", "smallest"):
        place = -1 if route == "full" else 0
        return config["hidden"][place], config["layers"][place], embedding[place]
    for hidden in config["hidden"]:
        for layers in config["layers"]:
            for width in config["embedding"] or [hidden]:
                if route == f"h{hidden}-l{layers}-e{width}":
                    return hidden, layers, width
    example = f"h{config['hidden'][0]}-l{config['layers'][0]}-e{embedding[0]}"
    raise ValueError(f"there is no route {route!r}: use full, smallest or a route's name, as {example}")


def window(items: Sequence[Any], max_len: int, stride: int) -> Sequence[Any]:
    """The items that a model reads of a history: at most `max_len` of the newest, from a multiple of `stride` on."""
    beyond = max(len(items) - max_len, 0)
    return items[-(-beyond // stride) * stride :]


class Slice(nn.Module):
    """Scores of the next item by one route.

    `forward` takes dense ids, [batch, length], oldest first, with 0 on the left of shorter histories; `length` is from 1 to
    `max_len`. It returns [batch, items + 1]: the score of item i is in column i, and column 0 is padding. `encode` makes dense ids.
    """

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, Tensor], route: str, items: Sequence[str]) -> None:
        """`config` and `weights` are those of a checkpoint. `items` has the id of item i at place i - 1."""
        super().__init__()
        width, depth, embedding = sizes(config, route)
        self.max_len, self.history_stride = config["max_len"], config.get("history_stride", 1)
        self.position_rule, eps = config.get("positions", "newest"), config.get("norm_eps", 1e-5)
        self.items = list(items)
        self.dense = {item: index + 1 for index, item in enumerate(self.items)}

        self.embedding = nn.Embedding.from_pretrained(_copy(weights["backbone.item_embedding"][:, :embedding]), freeze=False)
        if self.position_rule != "relative":
            self.positions = nn.Parameter(_copy(weights["backbone.position_embedding"][:, :embedding]))
        self.embedding_norm = None
        if config.get("embedding_norm", False):
            self.embedding_norm = _norm(weights, "backbone.embedding_norm", embedding, eps)
        self.input = _linear(weights["backbone.input.weight"][:width, :embedding], weights["backbone.input.bias"][:width])
        self.blocks = nn.ModuleList(Block(config, weights, layer, width, layer == depth - 1) for layer in range(depth))
        self.output = _linear(weights["backbone.output.weight"][:, :width], weights["backbone.output.bias"])

    def forward(self, histories: Tensor) -> Tensor:
        length = histories.shape[1]
        places = torch.arange(length, device=histories.device)
        x = self.embedding(histories)  # [B, L, e]
        if self.position_rule == "newest":
            x = x + self.positions[-length:]
        elif self.position_rule == "oldest":
            padding = (histories == 0).sum(1, keepdim=True)
            x = x + self.positions[(places - padding).clamp(min=0)]
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        x = self.input(x)  # [B, L, h]
        # A query sees itself and older items: [B, 1, L, L]
        seen = (places[None, :] <= places[:, None]) & (histories != 0)[:, None, None, :]
        mask = torch.where(seen, 0.0, _UNSEEN).to(x.dtype)
        for block in self.blocks:
            x = block(x, mask)
        return self.output(x[:, -1])  # [B, N + 1]

    def encode(self, histories: Iterable[Iterable[Any]]) -> Tensor:
        """The input of `forward` for histories of item ids, which are strings or integers. Unknown ids are dropped, and a history
        needs a known one."""
        rows = []
        for place, history in enumerate(histories):
            ids = map(str, item_ids(f"histories[{place}]", history))
            known = [self.dense[item] for item in ids if item in self.dense]
            if not known:
                raise ValueError(f"history {place} has no item that the model knows")
            rows.append(window(known, self.max_len, self.history_stride))
        longest = max(map(len, rows), default=1)
        padded = [[0] * (longest - len(row)) + row for row in rows]
        return torch.tensor(padded, dtype=torch.int64).reshape(len(rows), longest)


class Block(nn.Module):
    """A post-norm block: x = LN(x + a Attention(x)), x = LN(x + a FFN(x)). The scalars `a` are in the weights."""

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, Tensor], layer: int, width: int, last: bool) -> None:
        super().__init__()
        self.heads, self.width, self.last = config["heads"], width, last
        eps, full = config.get("norm_eps", 1e-5), config["hidden"][-1]
        inner = 4 * (width if config["ffn_inner"] == "slice" else full)
        self.scale = ((width if config["attention_scale"] == "slice" else full) // self.heads) ** -0.5

        def of(name: str) -> Tensor:
            return weights[f"backbone.blocks.{layer}.{name}"]

        # A head of the slice is a prefix of every head.
        rows = torch.cat([torch.arange(width // self.heads) + head * (full // self.heads) for head in range(self.heads)])
        projections = ["attention.query", "attention.key", "attention.value"]
        self.qkv = _linear(
            torch.cat([of(f"{name}.weight")[rows, :width] for name in projections]),
            torch.cat([of(f"{name}.bias")[rows] for name in projections]),
        )
        attention, ffn = of("attention_residual"), of("ffn_residual")
        self.mixed = _linear(
            attention * of("attention.output.weight")[:width, :width], attention * of("attention.output.bias")[:width]
        )
        self.inner = _linear(of("ffn.inner.weight")[:inner, :width], of("ffn.inner.bias")[:inner])
        self.outer = _linear(ffn * of("ffn.outer.weight")[:width, :inner], ffn * of("ffn.outer.bias")[:width])
        self.attention_norm = _norm(weights, f"backbone.blocks.{layer}.attention_norm", width, eps)
        self.ffn_norm = _norm(weights, f"backbone.blocks.{layer}.ffn_norm", width, eps)
        self.bias = None
        if config.get("positions") == "relative":
            # Added to the score of a key by its distance from the query: [heads, max_len, max_len]
            places = torch.arange(config["max_len"])
            distances = (places[:, None] - places[None, :]).clamp(min=0)
            self.bias = nn.Parameter(_copy(weights["backbone.position_bias"][layer][:, distances]))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, length, width = x.shape[0], x.shape[1], self.width
        if self.bias is not None:
            mask = mask + self.bias[:, -length:, -length:]
        if self.last:
            # Only the newest position is read from now on.
            asked, mask = x[:, -1:], mask[:, :, -1:]
            query = linear(asked, self.qkv.weight[:width], self.qkv.bias[:width])
            key, value = linear(x, self.qkv.weight[width:], self.qkv.bias[width:]).chunk(2, dim=-1)
        else:
            asked = x
            query, key, value = self.qkv(x).chunk(3, dim=-1)

        def heads(t: Tensor) -> Tensor:
            return t.reshape(batch, -1, self.heads, width // self.heads).transpose(1, 2)

        scores = heads(query) @ heads(key).transpose(2, 3) * self.scale + mask  # [B, heads, Q, L]
        mixed = (scores.softmax(-1) @ heads(value)).transpose(1, 2).reshape(batch, -1, width)
        x = self.attention_norm(asked + self.mixed(mixed))
        return self.ffn_norm(x + self.outer(gelu(self.inner(x))))


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight, layer.bias = nn.Parameter(_copy(weight)), nn.Parameter(_copy(bias))
    return layer


def _norm(weights: Mapping[str, Tensor], name: str, width: int, eps: float) -> nn.LayerNorm:
    layer = nn.LayerNorm(width, eps=eps)
    layer.weight = nn.Parameter(_copy(weights[f"{name}.weight"][:width]))
    layer.bias = nn.Parameter(_copy(weights[f"{name}.bias"][:width]))
    return layer
