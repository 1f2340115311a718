"""A cell's solution regions, `### BEGIN SOLUTION` to `### END SOLUTION`: with a stub in their place, or as they are."""

from __future__ import annotations

import re

STUB = "# YOUR CODE HERE\nraise NotImplementedError"
_OPEN, _CLOSE = "### BEGIN SOLUTION", "### END SOLUTION"


def solution_regions(source: str) -> tuple[list[tuple[int, int]], str]:
    """The line ranges (first, last) of the solution regions, and what is wrong with them, if anything."""
    regions, start = [], None
    for i, line in enumerate(source.splitlines()):
        if line.strip() == _OPEN:
            if start is not None:
                return regions, "a solution region opens inside another one"
            start = i
        elif line.strip() == _CLOSE:
            if start is None:
                return regions, "a solution region closes that was never opened"
            regions.append((start, i))
            start = None
        elif re.search("(BEGIN|END) SOLUTION", line):
            return regions, f"a solution region's ends are lines of their own, `{_OPEN}` and `{_CLOSE}`"
    return regions, "" if start is None else "a solution region is never closed"


def stubbed(source: str) -> str:
    """A cell as learners get it: the stub in place of each solution region."""
    lines = source.splitlines()
    for first, last in reversed(solution_regions(source)[0]):
        indent = lines[first][: len(lines[first]) - len(lines[first].lstrip())]
        lines[first : last + 1] = [indent + line for line in STUB.splitlines()]
    return "\n".join(lines)


def unmarked(source: str) -> str:
    """A cell with its solution, without the lines that mark it."""
    return "\n".join(line for line in source.splitlines() if line.strip() not in (_OPEN, _CLOSE))
