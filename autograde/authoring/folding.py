"""Fold away what only draws: in a long cell the code of the figure becomes a cell of its own, its input collapsed.

A reader meets the experiment and the finished figure; how the figure is drawn is one click away.
"""

from __future__ import annotations

import ast
from itertools import groupby

_LONG = 25  # lines of code that a reader takes in at once
_WORTH = 8  # lines for which a click is no nuisance
_DRAWING = frozenset({"plt", "ax", "axes", "fig", "figure", "axs"})
COLLAPSED = {"jupyter": {"source_hidden": True}, "cellView": "form"}  # JupyterLab's and VS Code's word, and Colab's


def folded(source: str) -> list[tuple[str, bool]]:
    """The parts of a cell in order, each with whether it is to be collapsed; most cells are one part, in view.

    A figure is drawn from the first statement that touches it to the last: what stands between stays with it, for a
    notebook shows a figure where the cell ends that opened it. Functions that draw may stand apart.
    """
    lines = source.splitlines()
    if sum(bool(line.strip()) for line in lines) <= _LONG:
        return [(source, False)]
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a magic
        return [(source, False)]
    starts = [_first_line(node, lines, before) for node, before in zip(statements, [None, *statements], strict=False)]
    ends = [*starts[1:], len(lines)]
    parts = []
    numbered = enumerate(_draws(statements))
    for hide, group in groupby(numbered, key=lambda pair: pair[1]):
        numbers = [i for i, _ in group]
        text = "\n".join(lines[starts[numbers[0]] : ends[numbers[-1]]]).strip("\n")
        parts.append((text, hide and len(text.splitlines()) >= _WORTH))
    return _joined(parts)


def _draws(statements: list[ast.stmt]) -> list[bool]:
    """For each statement whether it belongs to a figure."""
    found = [_touches(node) for node in statements]
    opened = [i for i, node in enumerate(statements) if found[i] and not isinstance(node, ast.FunctionDef)]
    if opened:
        found[opened[0] : opened[-1] + 1] = [True] * (opened[-1] + 1 - opened[0])
    return found


def _touches(node: ast.stmt) -> bool:
    return any(isinstance(inner, ast.Name) and inner.id in _DRAWING for inner in ast.walk(node))


def _first_line(node: ast.stmt, lines: list[str], before: ast.stmt | None) -> int:
    """Where a statement begins, decorators and the comment above it included."""
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1
    lowest = before.end_lineno if before else 0
    while first > lowest and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return first if before else 0


def _joined(parts: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Neighbors that are both in view, or both collapsed, as one."""
    groups = groupby(parts, key=lambda part: part[1])
    return [("\n\n".join(text for text, _ in group), hide) for hide, group in ((h, list(g)) for h, g in groups)]
