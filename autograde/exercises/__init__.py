"""The exercises, one module a chapter. `find` gets one by name and imports only the module that it stands in."""

from __future__ import annotations

import ast
import functools
import importlib
import pathlib

from autograde.exercise import Exercise

_HERE = pathlib.Path(__file__).parent


@functools.lru_cache
def names() -> dict[str, str]:
    """Every exercise's name -> its module ("transformer.rope"), read from the sources without importing them.

    Raises ValueError where two exercises share a name.
    """
    found: dict[str, str] = {}
    for path in sorted(_HERE.rglob("*.py")):
        module = ".".join(path.relative_to(_HERE).with_suffix("").parts)
        for name in _names_in(path):
            if name in found:
                raise ValueError(f"two exercises are called {name}: in {found[name]} and in {module}. Rename one.")
            found[name] = module
    return found


def find(name: str) -> Exercise:
    """The exercise of that name. Raises KeyError where there is none."""
    return next(e for e in of_module(names()[name]) if e.name == name)


def of_module(module: str) -> list[Exercise]:
    """The exercises of one module ("transformer.rope"), in the order in which they are defined."""
    contents = vars(importlib.import_module(f"{__name__}.{module}"))
    return [value for value in contents.values() if isinstance(value, Exercise)]


def _names_in(path: pathlib.Path) -> list[str]:
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    made = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Exercise"]
    return [
        k.value.value for call in made for k in call.keywords if k.arg == "name" and isinstance(k.value, ast.Constant)
    ]
