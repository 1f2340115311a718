"""Compare what a solution gave with what was expected, and say in one sentence how they differ."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

KINDS = ("type", "dtype", "shape", "length", "keys", "value")
_MOST_TEXT = 2_000  # characters of a value in a message
_SLACK = {torch.bfloat16: 4e-2, torch.float16: 5e-3}


def slack(dtype: torch.dtype) -> float:
    """How far a result may be off, relatively and absolutely, where numbers of this dtype carry few digits."""
    return _SLACK.get(dtype, 0.0)


@dataclass(frozen=True)
class _How:
    rtol: float
    atol: float
    equal_nan: bool
    strict: bool
    precise: bool


@dataclass(frozen=True)
class Mismatch:
    """The first difference found. `kind` is one of KINDS, where `compare` has found it."""

    kind: str
    _tell: Callable[[], str]

    @property
    def message(self) -> str:
        """The difference in one sentence. Made when it is asked for: most comparisons only ask whether there is one."""
        return self._tell()


def compare(
    expected: Any,
    got: Any,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    where: str = "the result",
    equal_nan: bool = False,
    strict: bool = False,
    precise: bool = False,
) -> Mismatch | None:
    """None where `got` agrees with `expected`, else the first `Mismatch`.

    Tensors must agree in shape, in kind of dtype (bool, integer, floating, complex; not in precision) and in value.
    What is a whole number agrees with itself alone; floating-point numbers up to rtol and atol, which are widened for
    bfloat16 and float16 unless `precise`. Infinities agree with themselves, NaN with nothing (unless `equal_nan`).
    Python numbers and tensors of no dimension are interchangeable, whole numbers and equal floats as well (unless
    `strict`, as in JSON), and so are lists and tuples.
    """
    return _compare(expected, got, _How(rtol, atol, equal_nan, strict, precise), where)


def _compare(expected, got, how: _How, where: str) -> Mismatch | None:
    if isinstance(expected, torch.Tensor) or isinstance(got, torch.Tensor):
        return _compare_tensors(expected, got, how, where)
    if isinstance(expected, bool) or expected is None or isinstance(expected, str):
        return _compare_exactly(expected, got, where)
    if isinstance(expected, numbers.Number):
        return _compare_numbers(expected, got, how, where)
    if isinstance(expected, (list, tuple)):
        return _compare_sequences(expected, got, how, where)
    if isinstance(expected, dict):
        return _compare_dicts(expected, got, how, where)
    return _compare_exactly(expected, got, where)


def _compare_numbers(expected, got, how, where) -> Mismatch | None:
    if isinstance(got, bool) or not isinstance(got, numbers.Number):
        return Mismatch("type", lambda: f"{where} should be a number, and is {describe(got)}")
    if how.strict and isinstance(expected, int) != isinstance(got, int):
        return Mismatch("type", lambda: f"{where} should be {expected!r}, and is {got!r}")
    if isinstance(expected, numbers.Integral):  # of any size, so no tensor's
        return None if got == expected else Mismatch("value", lambda: f"{where} should be {expected}, and is {got}")
    if type(expected) is float and type(got) is float and _close(expected, got, how):
        return None  # as torch would say, which takes fifty times as long
    wide = torch.complex128 if isinstance(expected, complex) or isinstance(got, complex) else torch.float64
    try:
        pair = torch.tensor(expected, dtype=wide), torch.tensor(got, dtype=wide)
    except (OverflowError, RuntimeError):  # a whole number beyond all floats
        return Mismatch("value", lambda: f"{where} should be {expected}, and is a whole number beyond all floats")
    return _compare_values(*pair, how, where)


def _close(expected: float, got: float, how: _How) -> bool:
    """What torch.allclose says of two numbers."""
    if math.isnan(expected) and math.isnan(got):
        return how.equal_nan
    error = abs(got - expected)
    return got == expected or (math.isfinite(error) and error <= how.atol + abs(how.rtol * expected))


def _of_type(expected, got, where) -> Mismatch:
    return Mismatch("type", lambda: f"{where} should be {describe(expected)}, and is {describe(got)}")


def _compare_exactly(expected, got, where) -> Mismatch | None:
    if type(got) is not type(expected):
        return _of_type(expected, got, where)
    return (
        None
        if got == expected
        else Mismatch("value", lambda: f"{where} should be {_cut(expected)}, and is {_cut(got)}")
    )


def _cut(value: Any) -> str:
    text = repr(value[:_MOST_TEXT] if isinstance(value, str) else value)
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…"


def _compare_sequences(expected, got, how, where) -> Mismatch | None:
    if not isinstance(got, (list, tuple)):
        return _of_type(expected, got, where)
    if len(got) != len(expected):
        return Mismatch("length", lambda: f"{where} should have {len(expected)} items, and has {len(got)}")
    pairs = enumerate(zip(expected, got, strict=True))
    return next(filter(None, (_compare(e, g, how, f"item {i} of {where}") for i, (e, g) in pairs)), None)


def _compare_dicts(expected, got, how, where) -> Mismatch | None:
    if not isinstance(got, dict):
        return Mismatch("type", lambda: f"{where} should be a dict, and is {describe(got)}")
    if got.keys() != expected.keys():
        return Mismatch("keys", lambda: f"{where} {_other_keys(expected, got)}")
    found = (_compare(e, got[k], how, f"{where}[{k!r}]") for k, e in expected.items())
    return next(filter(None, found), None)


def _other_keys(expected: dict, got: dict) -> str:
    missing, extra = (sorted(map(repr, a.keys() - b.keys())) for a, b in ((expected, got), (got, expected)))
    told = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has {', '.join(extra)} too many"] * bool(extra)
    return " and ".join(told)


def _compare_tensors(expected, got, how, where) -> Mismatch | None:
    kinds = isinstance(got, torch.Tensor)
    if not isinstance(expected, torch.Tensor):
        if got.dim() or not isinstance(expected, numbers.Number):
            return _of_type(expected, got, where)
        expected = torch.tensor(expected, dtype=None if isinstance(expected, (bool, int)) else torch.float64)
    if not isinstance(got, torch.Tensor):
        if expected.dim() or not isinstance(got, numbers.Number):
            return _of_type(expected, got, where)
        got = torch.tensor(got, dtype=None if isinstance(got, (bool, int)) else torch.float64)
    if got.shape != expected.shape:
        told = tuple(expected.shape), tuple(got.shape)
        return Mismatch("shape", lambda: "{} should have shape {}, and has {}".format(where, *told))
    if kinds and _kind(got.dtype) != _kind(expected.dtype):
        return Mismatch("dtype", lambda: f"{where} should hold {_kind(expected.dtype)} values, and holds {got.dtype}")
    return _compare_values(expected.detach().cpu(), got.detach().cpu(), how, where)


def _compare_values(expected, got, how, where) -> Mismatch | None:
    if not expected.is_floating_point() and not expected.is_complex():
        return None if bool((got == expected).all()) else Mismatch("value", lambda: f"{where} {_unlike(expected, got)}")
    if expected.is_floating_point() and expected.dtype == got.dtype and torch.equal(expected, got):
        return None  # most agree to the last bit, and this takes a tenth of the time
    wide = torch.complex128 if expected.is_complex() or got.is_complex() else torch.float64
    e, g = expected.to(wide), got.to(wide)
    loose = 0.0 if how.precise else slack(expected.dtype)
    if torch.allclose(g, e, rtol=max(how.rtol, loose), atol=max(how.atol, loose), equal_nan=how.equal_nan):
        return None
    return Mismatch("value", lambda: f"{where} {_apart(e, g)}")


def _unlike(e: torch.Tensor, g: torch.Tensor) -> str:
    """Where whole numbers or truth values first differ."""
    at = (e != g).nonzero()[0].tolist()
    place = f" at {at}" if at else ""
    return f"is {g[tuple(at)].item()}{place} instead of {e[tuple(at)].item()}"


def _apart(e: torch.Tensor, g: torch.Tensor) -> str:
    """How far the values `g` are from the expected `e`."""
    if torch.isnan(g).any() and not torch.isnan(e).any():
        return f"has {int(torch.isnan(g).sum())} NaN among its {g.numel()} values"
    finite = torch.isfinite(e) & torch.isfinite(g)
    if not torch.equal(torch.where(finite, 0, e), torch.where(finite, 0, g)):
        wrong = int((torch.isfinite(e) != torch.isfinite(g)).sum()) or "some"
        return f"has {wrong} values that are infinite where they should not be, or the reverse"
    return f"is off by up to {float((e - g)[finite].abs().max()):.3g}"


def _kind(dtype: torch.dtype) -> str:
    if dtype.is_complex:
        return "complex"
    if dtype.is_floating_point:
        return "floating-point"
    return "bool" if dtype is torch.bool else "integer"


def describe(value: Any) -> str:
    """A value in a few words: "a float32 tensor of shape (2, 3)", "a list of 4", "None"."""
    if isinstance(value, torch.Tensor):
        return f"{_a(str(value.dtype).removeprefix('torch.'))} tensor of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"a numpy array of shape {value.shape}"
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, str):
        return f"the text {value[:60]!r}{'…' * (len(value) > 60)}"
    if isinstance(value, (list, tuple)):
        return f"{_a(type(value).__name__)} of {len(value)}"
    if isinstance(value, dict):
        return f"a dict with {len(value)} keys"
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"an object of type {name}"


def _a(name: str) -> str:
    """A type's name with its article: "a float32", "a uint8", "an int64"."""
    return f"an {name}" if name[0] in "aeioAEIO" else f"a {name}"


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


def rebuild(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same structure with `change` applied to every tensor. Namedtuples, dicts and lists become plain ones."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: rebuild(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [rebuild(item, change) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


def weight(value: Any) -> int:
    """How much is in a value: numbers of tensors, characters of texts, and each item of a container."""
    if isinstance(value, torch.Tensor):
        return value.numel()
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return 1 + sum(weight(key) + weight(item) for key, item in value.items())
    return 1 + sum(map(weight, value)) if isinstance(value, (list, tuple)) else 1
