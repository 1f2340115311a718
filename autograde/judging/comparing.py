"""Compare what a solution gave with what was expected, and say in one sentence how they differ."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

# How far a result may be off when the inputs themselves carry fewer digits.
_MARKER = -12345.0  # stands for NaN where NaN may equal NaN
_LOOSE = {torch.bfloat16: 4e-2, torch.float16: 5e-3}


@dataclass(frozen=True)
class Mismatch:
    """The first difference found. `kind` is one of type, dtype, shape, length, keys, nan, value."""

    kind: str
    message: str
    difference: float | None = None


def compare(
    expected: Any,
    got: Any,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    where: str = "the result",
    equal_nan: bool = False,
) -> Mismatch | None:
    """None where `got` agrees with `expected`, else the first `Mismatch`.

    Tensors must agree in shape, in kind of dtype (bool, integer, floating, complex; not in precision) and in value.
    Infinities agree with themselves, NaN with nothing (unless `equal_nan`). Python numbers and tensors of no
    dimension are interchangeable, and so are lists and tuples.
    """
    if equal_nan:
        expected, got = (rebuild(value, _nan_to_marker, _nan_to_number) for value in (expected, got))
    if isinstance(expected, torch.Tensor) or isinstance(got, torch.Tensor):
        return _compare_tensors(expected, got, rtol, atol, where)
    if isinstance(expected, bool) or expected is None or isinstance(expected, str):
        return _compare_exactly(expected, got, where)
    if isinstance(expected, numbers.Number):
        if isinstance(got, bool) or not isinstance(got, numbers.Number):
            return Mismatch("type", f"{where} should be a number, and is {describe(got)}")
        return _compare_tensors(torch.tensor(expected), torch.tensor(got), rtol, atol, where, kinds=False)
    if isinstance(expected, (list, tuple)):
        return _compare_sequences(expected, got, rtol, atol, where)
    if isinstance(expected, dict):
        return _compare_dicts(expected, got, rtol, atol, where)
    return _compare_exactly(expected, got, where)


def _compare_exactly(expected, got, where) -> Mismatch | None:
    if type(got) is not type(expected):
        return Mismatch("type", f"{where} should be {describe(expected)}, and is {describe(got)}")
    return None if got == expected else Mismatch("value", f"{where} should be {expected!r}, and is {got!r}")


def _compare_sequences(expected, got, rtol, atol, where) -> Mismatch | None:
    if not isinstance(got, (list, tuple)):
        return Mismatch("type", f"{where} should be {describe(expected)}, and is {describe(got)}")
    if len(got) != len(expected):
        return Mismatch("length", f"{where} should have {len(expected)} items, and has {len(got)}")
    pairs = enumerate(zip(expected, got, strict=True))
    return next(filter(None, (compare(e, g, rtol, atol, f"item {i} of {where}") for i, (e, g) in pairs)), None)


def _compare_dicts(expected, got, rtol, atol, where) -> Mismatch | None:
    if not isinstance(got, dict):
        return Mismatch("type", f"{where} should be a dict, and is {describe(got)}")
    if got.keys() != expected.keys():
        missing, extra = (
            sorted(map(repr, expected.keys() - got.keys())),
            sorted(map(repr, got.keys() - expected.keys())),
        )
        told = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has {', '.join(extra)} too many"] * bool(extra)
        return Mismatch("keys", f"{where} {' and '.join(told)}")
    found = (compare(e, got[k], rtol, atol, f"{where}[{k!r}]") for k, e in expected.items())
    return next(filter(None, found), None)


def _compare_tensors(expected, got, rtol, atol, where, kinds=True) -> Mismatch | None:
    if not isinstance(expected, torch.Tensor):
        if got.dim() or not isinstance(expected, numbers.Number):
            return Mismatch("type", f"{where} should be {describe(expected)}, and is {describe(got)}")
        expected = torch.tensor(expected)
    if not isinstance(got, torch.Tensor):
        if expected.dim() or not isinstance(got, numbers.Number):
            return Mismatch("type", f"{where} should be {describe(expected)}, and is {describe(got)}")
        got, kinds = torch.tensor(got), False
    if got.shape != expected.shape:
        return Mismatch("shape", f"{where} should have shape {tuple(expected.shape)}, and has {tuple(got.shape)}")
    if kinds and _kind(got.dtype) != _kind(expected.dtype):
        return Mismatch("dtype", f"{where} should hold {_kind(expected.dtype)} values, and holds {got.dtype}")
    return _compare_values(expected.detach().cpu(), got.detach().cpu(), rtol, atol, where)


def _compare_values(expected, got, rtol, atol, where) -> Mismatch | None:
    wide = torch.complex128 if expected.is_complex() or got.is_complex() else torch.float64
    e, g = expected.to(wide), got.to(wide)
    if torch.isnan(g).any() and not torch.isnan(e).any():
        return Mismatch("nan", f"{where} has {int(torch.isnan(g).sum())} NaN among its {g.numel()} values", math.nan)
    loose = _LOOSE.get(expected.dtype, 0.0)
    if torch.allclose(g, e, rtol=max(rtol, loose), atol=max(atol, loose)):
        return None
    finite = torch.isfinite(e) & torch.isfinite(g)
    if not torch.equal(torch.where(finite, 0, e), torch.where(finite, 0, g)):
        wrong = int((torch.isfinite(e) != torch.isfinite(g)).sum()) or "some"
        return Mismatch(
            "value",
            f"{where} has {wrong} values that are infinite where they should not be, or the reverse",
            math.inf,
        )
    worst = float((e - g)[finite].abs().max())
    return Mismatch("value", f"{where} is off by up to {worst:.3g}", worst)


def _nan_to_number(x: float) -> float:
    return _MARKER if math.isnan(x) else x


def _nan_to_marker(x: torch.Tensor) -> torch.Tensor:
    return x.nan_to_num(nan=_MARKER, posinf=torch.inf, neginf=-torch.inf) if x.is_floating_point() else x


def _kind(dtype: torch.dtype) -> str:
    if dtype.is_complex:
        return "complex"
    if dtype.is_floating_point:
        return "floating-point"
    return "bool" if dtype is torch.bool else "integer"


def describe(value: Any) -> str:
    """A value in a few words: "a float32 tensor of shape (2, 3)", "a list of 4", "None"."""
    if isinstance(value, torch.Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"a numpy array of shape {value.shape}"
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, str):
        return f"the text {value[:60]!r}{'…' * (len(value) > 60)}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, dict):
        return f"a dict with {len(value)} keys"
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"an object of type {name}"


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor inside a value, in a fixed order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)


def rebuild(value: Any, change, number=lambda x: x) -> Any:
    """The same structure with `change` applied to every tensor and `number` to every float.

    Namedtuples, dicts and lists come back as plain ones.
    """
    if isinstance(value, float):
        return number(value)
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: rebuild(item, change, number) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [rebuild(item, change, number) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value
