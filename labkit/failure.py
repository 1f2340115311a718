"""What `launch` raises, and the words for it."""

from __future__ import annotations

import linecache
import os
import pickle
import re
import signal
from dataclasses import dataclass

from labkit.errors import PlainError

_LOST_PARTNER = re.compile(r"closed by peer|reset by peer|Broken pipe|Socket closed|Read error|Connection refused")


class RankError(PlainError):
    """A launch that failed. The message is for the person who wrote the function; a notebook shows nothing else.

    `kind` is raised, died, deadlock or too slow. `rank` is the rank that raised or died, and `error` the exception it
    raised, where it could be sent home.
    """

    def __init__(self, message: str, kind: str = "raised", rank: int | None = None, error: BaseException | None = None):
        super().__init__(message)
        self.kind, self.rank, self.error = kind, rank, error


@dataclass(frozen=True)
class Failure:
    """Why one rank failed. The one with the lowest `rank_of_cause` is the cause of the others."""

    headline: str
    error: BaseException | None = None
    rank_of_cause: int = 0


def raised(packed: bytes | None, text: str, frames: list[tuple[str, int, str]]) -> Failure:
    """A rank's exception, as text with the lines of its own code (at most the last four)."""
    lines = [f"  line {line}, in {name}:  {_source(file, line)}".rstrip() for file, line, name in frames[-4:]]
    try:
        error = pickle.loads(packed) if packed else None
    except Exception:
        error = None
    cause = 2 if _LOST_PARTNER.search(text) else 1
    return Failure("\n".join([f"raised {text}", *lines]), error, cause)


def died(process, folder: str, rank: int) -> Failure:
    """A rank that ended without a word: how, and the last thing that C++ code printed in it."""
    process.join(2.0)
    code = process.exitcode
    if code is None:
        how = "closed its connection"
    elif code < 0:
        how = f"was killed by {_signal_name(-code)}"
        if -code == getattr(signal, "SIGKILL", 0):
            how += " (that is what the system does when memory runs out)"
    else:
        how = f"ended with exit code {code}, before the function returned"
    last = _last_words(os.path.join(folder, f"rank{rank}.log"))
    return Failure(f"{how}{': ' + last if last else ''}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_words(path: str) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - 2000))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    telling = [line.strip() for line in lines if line.strip() and not line.startswith("[Gloo]")]
    return telling[-1].removeprefix("what():").strip()[:300] if telling else ""


def explain(frames: list[tuple[str, int, str]]) -> str:
    """`, line 3 in exchange: dist.recv(x, 1)`, or nothing where the line is unknown."""
    if not frames:
        return ""
    file, line, name = frames[0]
    source = _source(file, line)
    return f", line {line} in {name}{': ' + source if source else ''}"


def _source(file: str, line: int) -> str:
    # Read here, not in the rank: only this process knows the source of notebook cells.
    return linecache.getline(file, line).strip()


def named(ranks: list[int]) -> str:
    """`Rank 2`, or `Ranks 0, 1 and 3`."""
    if len(ranks) == 1:
        return f"Rank {ranks[0]}"
    return f"Ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"
