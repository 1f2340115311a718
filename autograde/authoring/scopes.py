"""Which cells lean on which: exercises on the setup and earlier exercises, demos on no exercise."""

from __future__ import annotations

import builtins
import symtable

from autograde.authoring.chapter import Chapter
from labkit.notebook import globals_of, tables_below, used_and_defined

_ALWAYS = frozenset(dir(builtins)) | {"__name__", "display", "get_ipython"}
# What a cell of a kind may use from earlier cells.
_MAY_USE = {
    "setup": ("setup",),
    "exercise": ("setup", "exercise"),
    "check": ("setup", "exercise"),
    "demo": ("setup", "demo", "claim"),
    "claim": ("setup", "demo", "claim"),
    "payoff": ("setup", "exercise", "demo", "claim", "payoff"),
}


def problems(chapter: Chapter) -> list[str]:
    """One sentence for each cell that leans on what it may not. The cells have to be Python."""
    found: list[str] = []
    given: dict[str, set[str]] = {kind: set() for kind in _MAY_USE}
    exercises = {cell.name for cell in chapter.of("exercise")}
    for cell in chapter.cells:
        if cell.kind not in _MAY_USE:
            continue
        needs, gives = used_and_defined(cell.source)
        missing = needs - _ALWAYS - set().union(*(given[kind] for kind in _MAY_USE[cell.kind]))
        loose = cell.kind in ("demo", "claim")
        if loose and (leaned := sorted(missing & exercises)):
            found.append(f"{chapter.at(cell)}: a {cell.kind} that depends on the exercise {', '.join(leaned)}.")
        elif missing:
            allowed = " or ".join(_MAY_USE[cell.kind])
            found.append(f"{chapter.at(cell)}: leans on {_list(missing)}, which no earlier {allowed} cell defines.")
        if cell.kind != "exercise" and (taken := gives & exercises):
            found.append(f"{chapter.at(cell)}: defines {_list(taken)}, which is the name of an exercise.")
        given[cell.kind] |= gives
    return found


def read_inside(source: str) -> dict[str, set[str]]:
    """The global names that each function or class of a cell reads when it is used, by its name."""
    found: dict[str, set[str]] = {}
    for table in symtable.symtable(source, "cell", "exec").get_children():
        found[table.get_name()] = globals_of(table).union(*map(globals_of, tables_below(table)))
    return found


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))
