"""What every rank is doing, in a file that all of them map into memory.

A rank writes a few bytes before it waits and after; the process that launched it reads them without asking, so it can
say who waits for whom even when a rank is stuck in C++ code.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass

# Changes so far, waiting (1) and certain (2), CPU seconds, beats, bytes handed in, length of the text.
_HEAD = struct.Struct("=QBdIQH")
_SLOT = 512


@dataclass(frozen=True)
class Doing:
    """One rank's entry. `changes` grows with every call and return; `text` names the call it waits in.

    `certain` says that only other ranks can end the wait: no other thread of this rank could. `beats` grows as long as
    the rank gets any processor time, whatever it waits for. `moved` counts the bytes that it has handed in so far, to
    be sent or to be filled.
    """

    changes: int = 0
    waiting: bool = False
    certain: bool = False
    cpu: float = 0.0
    beats: int = 0
    moved: int = 0
    text: str = ""


def create(path: str, ranks: int) -> None:
    """Make the file, with an empty entry for each rank."""
    with open(path, "wb") as file:
        file.write(bytes(_SLOT * ranks))


class Board:
    """The file, mapped. A rank writes its own entry, the launcher reads all."""

    def __init__(self, path: str, rank: int = 0):
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._start = rank * _SLOT
        self._changes = self._beats = self._moved = 0

    def write(self, waiting: bool, certain: bool = True, text: str = "", size: int = 0) -> None:
        """Say that this rank begins to wait in `text`, where it hands in `size` bytes, or goes on."""
        self._changes += 1
        self._moved += size
        data = text.encode()[: _SLOT - _HEAD.size]
        end = self._start + _HEAD.size + len(data)
        self._map[self._start + _HEAD.size : end] = data
        struct.pack_into("=QB", self._map, self._start, self._changes, waiting + 2 * certain)
        struct.pack_into("=QH", self._map, self._start + _HEAD.size - 10, self._moved, len(data))

    def beat(self, seconds: float) -> None:
        """Say that this rank is alive, and how much CPU time it has used."""
        self._beats += 1
        struct.pack_into("=dI", self._map, self._start + 9, seconds, self._beats)

    def read(self, rank: int) -> Doing:
        """The entry of `rank`."""
        start = rank * _SLOT
        changes, flags, cpu, beats, moved, length = _HEAD.unpack_from(self._map, start)
        text = self._map[start + _HEAD.size : start + _HEAD.size + length]
        return Doing(changes, bool(flags & 1), bool(flags & 2), cpu, beats, moved, text.decode(errors="replace"))

    def close(self) -> None:
        self._map.close()
