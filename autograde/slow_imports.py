"""An import that takes a second for what is hardly ever asked, put off until it is."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator

_GRAMMAR = "rfc3987_syntax"  # compiles the grammar of IRIs when it is imported


@contextlib.contextmanager
def iris_put_off() -> Iterator[None]:
    """Where jsonschema is imported inside, as nbformat and nbgrader do, it can check IRIs and hasn't yet learned how.

    Neither a notebook's schema nor an exercise's has one.
    """
    late = types.ModuleType(_GRAMMAR)

    def is_valid_syntax(*asked) -> bool:
        _take_away(late)
        return importlib.import_module(_GRAMMAR).is_valid_syntax(*asked)

    late.is_valid_syntax = is_valid_syntax
    if _GRAMMAR not in sys.modules and importlib.util.find_spec(_GRAMMAR):
        sys.modules[_GRAMMAR] = late
    try:
        yield
    finally:
        _take_away(late)


def _take_away(module: types.ModuleType) -> None:
    if sys.modules.get(module.__name__) is module:
        del sys.modules[module.__name__]
