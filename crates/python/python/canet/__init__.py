"""Recommend with CANet models: in this process, from a server, or in PyTorch.

- `Model` opens a checkpoint and ranks many histories at once on the CPU.
- `Client` and `AsyncClient` ask a running server. They need `pip install 'canet[client]'`.
- `to_torch` turns one route of a checkpoint into a `torch.nn.Module`. It needs `pip install 'canet[torch]'`.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._client import (
        Answer,
        AsyncClient,
        Client,
        ClientError,
        Compute,
        ConnectionFailed,
        HistoryUsed,
        ModelVersion,
        RankedItem,
        Refused,
        RouteTaken,
    )
    from ._model import Model, Recommendations, Route
    from ._native import ModelError
    from .torch import to_torch

# Code that is generated from canet/v1/recommender.proto is `canet.v1`, in a directory `canet` of its own.
__path__ = extend_path(__path__, __name__)

# Where each name is defined. A name is imported when it is first used, so that nobody waits for what they do not use.
_DEFINED_IN = {
    "Answer": "._client",
    "AsyncClient": "._client",
    "Client": "._client",
    "ClientError": "._client",
    "Compute": "._client",
    "ConnectionFailed": "._client",
    "HistoryUsed": "._client",
    "Model": "._model",
    "ModelError": "._native",
    "ModelVersion": "._client",
    "RankedItem": "._client",
    "Recommendations": "._model",
    "Refused": "._client",
    "Route": "._model",
    "RouteTaken": "._client",
    "to_torch": ".torch",
}

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "ClientError",
    "Compute",
    "ConnectionFailed",
    "HistoryUsed",
    "Model",
    "ModelError",
    "ModelVersion",
    "RankedItem",
    "Recommendations",
    "Refused",
    "Route",
    "RouteTaken",
    "to_torch",
]


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_DEFINED_IN[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
