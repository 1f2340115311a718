"""The exercises: one file an exercise, in a folder for its chapter. `find` imports one of them and what it needs.

`SECTION/CHAPTER/EXERCISE.py` holds `exercise`, a `Draft`; the chapter's `__init__.py` holds `ORDER`, its exercises in
the order of the notebook. What several exercises of a chapter share is in its `shared.py`; what chapters share, above.
"""

from __future__ import annotations

import functools
import importlib
import pathlib

from autograde.exercise import Exercise

_HERE = pathlib.Path(__file__).parent


@functools.cache
def names() -> dict[str, str]:
    """Every exercise's name -> its chapter ("transformer.rope"), from the names of the files: nothing is imported.

    Raises ValueError where two exercises share a name.
    """
    found: dict[str, str] = {}
    for path in sorted(_HERE.rglob("*.py")):
        name, chapter = path.stem, ".".join(path.relative_to(_HERE).parts[:-1])
        if name in found:
            raise ValueError(f"two exercises are called {name}: in {found[name]} and in {chapter}. Rename one.")
        if name not in ("__init__", "shared"):
            found[name] = chapter
    return found


def chapters() -> list[str]:
    """The chapters that have exercises ("transformer.rope"), sorted."""
    return sorted(set(names().values()))


def order(chapter: str) -> tuple[str, ...]:
    """The names of a chapter's exercises, in the order of its notebook. ModuleNotFoundError where there is no such."""
    return tuple(importlib.import_module(f"{__name__}.{chapter}").ORDER)


@functools.cache
def find(name: str) -> Exercise:
    """The exercise of that name. Raises KeyError where there is none."""
    return importlib.import_module(f"{__name__}.{names()[name]}.{name}").exercise.finished()
