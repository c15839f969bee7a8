"""Checks of arguments. Every error names the argument."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any


def item_id(name: str, value: Any) -> str | int:
    """An item id: a text, or an integer that stands for its digits. NumPy's integers become integers."""
    if isinstance(value, str):
        return value
    # A boolean counts as an integer in Python.
    if not isinstance(value, bool):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"`{name}` has {value!r} of type {type(value).__name__}: ids are strings or integers")


def item_ids(name: str, values: Iterable[Any]) -> list[str | int]:
    """The ids of a list."""
    if isinstance(values, (str, bytes, bytearray)):
        raise TypeError(f"`{name}` is a text: give a list")
    try:
        elements = iter(values)
    except TypeError:
        raise TypeError(f"`{name}` is {type(values).__name__}, not a list") from None
    return [item_id(name, value) for value in elements]


def integer(name: str, value: Any) -> int:
    """An integer. NumPy's become Python's."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"`{name}` is {type(value).__name__}, not an integer") from None


def count(name: str, value: Any, rule: str) -> int:
    """A number as the native module takes it, which knows no negative ones."""
    number = integer(name, value)
    if not 0 <= number < 1 << 63:
        raise ValueError(f"`{name}` is {number}: it must be {rule}")
    return number


def number(name: str, value: Any) -> float:
    """A number. NumPy's become Python's."""
    if not isinstance(value, (str, bytes, bytearray)):
        try:
            return float(value)
        except TypeError:
            pass
    raise TypeError(f"`{name}` is {type(value).__name__}, not a number")


def text(name: str, value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise TypeError(f"`{name}` is {type(value).__name__}, not a text")
    return value


def plain(name: str, value: Any) -> Any:
    """A filter or a limit as JSON has it: NumPy's numbers and arrays, and sets, become numbers and lists."""
    if isinstance(value, Mapping):
        return {key: plain(name, element) for key, element in value.items()}
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(name, element) for element in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise TypeError(f"`{name}` has a value of type {type(value).__name__}: use strings, integers, booleans or lists of them")
