"""How much memory processes hold."""

from __future__ import annotations

import contextlib
from pathlib import Path


def memory(runner) -> float:
    """Bytes of all processes below `runner`: the kernel, its ranks and whatever else they started.

    Shared pages count once (PSS) on Linux; elsewhere each process counts all of its own (RSS), which is more.
    """
    import psutil

    total = 0.0
    below = []
    with contextlib.suppress(psutil.Error):
        below = runner.children(recursive=True)
    for process in below:
        with contextlib.suppress(psutil.Error):  # it has just ended
            total += share(process)
    return total


def share(process) -> float:
    """Bytes of one process: its PSS, or where the system has none its RSS."""
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
        return 1024.0 * next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return float(process.memory_info().rss)
