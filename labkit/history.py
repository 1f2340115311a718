"""What a learner had written before a reset, in `history.json` on this machine (`labkit.store`).

Of each exercise the last texts are kept, with the time; where nothing can be kept, they live as long as the kernel.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime

from labkit.store import Store

MOST_VERSIONS = 20  # of one exercise; the oldest go first
MOST_TEXT = 200_000  # characters of one text
_MOST_ALL = 4_000_000  # characters of all texts of all exercises


@dataclass(frozen=True)
class Version:
    """One text of an exercise's cell, and when it was put away (local time, ISO 8601, to the second)."""

    time: str
    text: str


def _entry(stored: list) -> list[list[str]]:
    return [[str(time), str(text)] for time, text in stored]


_store = Store("history", _entry)
_memory: dict[str, list[list[str]]] = {}


def keep(name: str, text: str) -> str:
    """Put a text of exercise `name` away. Says how long it is kept: "always", "this kernel", or "" for not at all.

    A text that is the last one already is not kept twice. Never raises.
    """
    if len(text) > MOST_TEXT:
        return ""
    new = [datetime.now().isoformat(sep=" ", timespec="seconds"), text]
    _memory[name] = _with(_memory.get(name, []), new)

    def change(entries: dict[str, list[list[str]]]) -> None:
        entries[name] = _with(entries.get(name, []), new)
        while sum(len(text) for texts in entries.values() for _, text in texts) > _MOST_ALL:
            oldest = min((texts[0][0], each) for each, texts in entries.items() if texts)[1]
            entries[oldest].pop(0)

    return "always" if _store.change(change) else "this kernel"


def versions(name: str) -> list[Version]:
    """The texts of exercise `name` that are kept, the newest last."""
    found = list(_memory.get(name, []))
    with contextlib.suppress(OSError):
        stored = _store.read().get(name, [])
        found = stored if all(each in stored for each in found) else sorted([*stored, *found])
    return [Version(*each) for index, each in enumerate(found) if each not in found[:index]]


def _with(texts: list[list[str]], new: list[str]) -> list[list[str]]:
    return texts if texts and texts[-1][1] == new[1] else [*texts, new][-MOST_VERSIONS:]
