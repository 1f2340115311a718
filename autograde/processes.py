"""How much memory processes hold."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

_REST = 50  # times as long as the exact answer took until the next one, unless more is held than ever


def memory(runner) -> float:
    """Bytes of all processes below `runner`: the kernel, its ranks and whatever else they started.

    Shared pages count once (PSS) on Linux; elsewhere each process counts all of its own (RSS), which is more.
    """
    return _below(runner, share)


def _below(runner, bytes_of: Callable) -> float:
    """What the processes below `runner` have together."""
    import psutil

    total = 0.0
    below = []
    with contextlib.suppress(psutil.Error):
        below = runner.children(recursive=True)
    for process in below:
        with contextlib.suppress(psutil.Error):  # it has just ended
            total += bytes_of(process)
    return total


def share(process) -> float:
    """Bytes of one process: its PSS, or where the system has none its RSS."""
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
        return 1024.0 * next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return _resident(process)


def _resident(process) -> float:
    return float(process.memory_info().rss)


class Peak:
    """The most that all processes below `runner` held together: `bytes`, after as many looks as one likes.

    The exact answer stops a process while the system walks through its pages (25 ms for 1.2 GB), so it is asked when
    its processes hold 1 % more than at any exact answer before, and now and then. A program of 1.2 GB that was asked
    every 50 ms ran a fifth slower.
    """

    def __init__(self, runner):
        self.bytes = 0.0
        self._runner, self._most, self._next = runner, 0.0, 0.0

    def look(self) -> None:
        """Look once; costs about a millisecond where nothing grew."""
        held = _below(self._runner, _resident)
        start = time.monotonic()
        if held > 1.01 * self._most or start >= self._next:
            self.bytes = max(self.bytes, memory(self._runner))
            self._most = max(self._most, held)
            end = time.monotonic()
            self._next = end + _REST * (end - start)
