#!/usr/bin/env python3
"""Writes the state dict and the arguments of a tiny model in the authors' layout, as torch.save and safetensors write them.

It needs no PyTorch: stand-ins give the pickle the same globals.
"""

import io
import json
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
ARGUMENTS = {
    "max_len": 4, "d_list": [4, 8], "emb_list": [4], "layer_list": [1], "dropout": 0.2, "enable_res_parameter": 1,
    "attn_heads": 2, "num_item": 12, "num_user": 5, "device": "cpu",
}
ROUTES = 2
ROUTER, ROUTER_INNER = 32, 128


def shapes():
    """The names and shapes of the state dict."""
    items, length, width, embedding = ARGUMENTS["num_item"], ARGUMENTS["max_len"], 8, 4

    def block(prefix, wide, inner, layer):
        for number in range(3):
            yield f"{prefix}.attn.linear_layers.{number}{layer}.weight", [wide, wide]
            yield f"{prefix}.attn.linear_layers.{number}{layer}.bias", [wide]
        yield f"{prefix}.attn.output_linear{layer}.weight", [wide, wide]
        yield f"{prefix}.attn.output_linear{layer}.bias", [wide]
        yield f"{prefix}.ffn.linear1{layer}.weight", [inner, wide]
        yield f"{prefix}.ffn.linear1{layer}.bias", [inner]
        yield f"{prefix}.ffn.linear2{layer}.weight", [wide, inner]
        yield f"{prefix}.ffn.linear2{layer}.bias", [wide]
        for number in (1, 2):
            yield f"{prefix}.skipconnect{number}.a", []
            yield f"{prefix}.skipconnect{number}.norm.weight", [wide]
            yield f"{prefix}.skipconnect{number}.norm.bias", [wide]

    yield "backbone.token.weight", [items + 2, embedding]
    yield "backbone.position.pe.weight", [length, embedding]
    yield "backbone.input_projection.layer.weight", [width, embedding]
    yield "backbone.input_projection.layer.bias", [width]
    yield from block("backbone.TRMs.0", width, 4 * width, ".layer")
    yield "backbone.output.layer.weight", [items + 1, width]
    yield "backbone.output.layer.bias", [items + 1]
    yield "router.token.weight", [items + 2, ROUTER]
    yield "router.position.pe.weight", [length, ROUTER]
    yield from block("router.TRMs.0", ROUTER, ROUTER_INNER, "")
    yield "router.output_emb.weight", [ROUTES, ROUTER]
    yield "router.output_emb.bias", [ROUTES]


def count(shape):
    product = 1
    for size in shape:
        product *= size
    return product


def values(place, shape):
    numbers = [((place * 31 + index * 37) % 17 - 8) / 20 for index in range(count(shape))]
    return struct.pack(f"<{len(numbers)}f", *numbers)


class Storage:
    def __init__(self, key, size):
        self.key, self.size = key, size


class Tensor:
    def __init__(self, storage, shape):
        self.storage, self.shape = storage, shape

    def __reduce_ex__(self, protocol):
        stride = [count(self.shape[axis + 1:]) for axis in range(len(self.shape))]
        hooks = OrderedDict()
        arguments = (self.storage, 0, tuple(self.shape), tuple(stride), False, hooks)
        return sys.modules["torch._utils"]._rebuild_tensor_v2, arguments


def stand_ins():
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})

    def _rebuild_tensor_v2():
        pass

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    torch._utils = utils
    sys.modules.update({"torch": torch, "torch._utils": utils})
    return torch


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, Storage):
            return ("storage", sys.modules["torch"].FloatStorage, value.key, "cpu", value.size)
        return None


def main():
    stand_ins()
    tensors = list(shapes())
    state = OrderedDict()
    for place, (name, shape) in enumerate(tensors):
        state[name] = Tensor(Storage(str(place), count(shape)), shape)
    state._metadata = OrderedDict()
    pickled = io.BytesIO()
    Pickler(pickled, protocol=2).dump(state)
    for name in ("pickle", "state-dict", "arguments"):
        (CORPUS / name).mkdir(parents=True, exist_ok=True)
    (CORPUS / "pickle" / "tiny.pkl").write_bytes(pickled.getvalue())
    with zipfile.ZipFile(CORPUS / "state-dict" / "tiny.pt", "w") as archive:
        def add(name, content):
            archive.writestr(zipfile.ZipInfo(f"tiny/{name}", (1980, 1, 1, 0, 0, 0)), content)

        add("data.pkl", pickled.getvalue())
        add("byteorder", "little")
        for place, (_, shape) in enumerate(tensors):
            add(f"data/{place}", values(place, shape))
        add("version", "3\n")
    header, blob = {}, b""
    for place, (name, shape) in enumerate(tensors):
        content = values(place, shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(blob), len(blob) + len(content)]}
        blob += content
    header = json.dumps(header).encode()
    (CORPUS / "state-dict" / "tiny.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + blob)
    (CORPUS / "arguments" / "args.json").write_text(json.dumps(ARGUMENTS))


main()
