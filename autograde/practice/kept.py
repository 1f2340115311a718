"""A file of labkit.store that also remembers where nothing can be kept: a session goes on, and says so."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

from labkit.store import Store, is_off

__all__ = ["Kept"]


class Kept:
    """The file NAME.json. Where the disk can't be written, or nothing is to be kept, changes live in this object.

    made: makes an entry of what stands in the file, see `labkit.store.Store`
    """

    def __init__(self, name: str, made: Callable[[Any], Any]):
        self._store, self._own, self._unwritten = Store(name, made), {}, False

    def load(self) -> dict[str, Any]:
        """What is kept now; a copy."""
        if not (self._unwritten or is_off()):
            with contextlib.suppress(OSError):
                return self._store.read()
        return copy.deepcopy(self._own)

    def change(self, edit: Callable[[dict[str, Any]], None]) -> bool:
        """Let `edit` change what is kept, once. False where that lives on in this object alone."""
        edited = False

        def change(entries: dict[str, Any]) -> None:
            nonlocal edited
            if self._unwritten:
                entries.clear()
                entries.update(copy.deepcopy(self._own))
            edit(entries)
            self._own, edited = copy.deepcopy(entries), True

        kept = self._store.change(change)
        if not edited:
            edit(self._own)
        self._unwritten = not kept and not is_off()
        return kept
