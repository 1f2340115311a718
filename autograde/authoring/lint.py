"""Find what is wrong in the chapters before anything is written."""

from __future__ import annotations

import ast
import builtins
import symtable

from autograde.authoring.cards import Bank
from autograde.authoring.chapter import Cell, Chapter, solution_regions
from autograde.exercise import Exercise
from autograde.exercises import names, of_module


def problems(chapters: list[Chapter], bank: Bank) -> list[str]:
    """One sentence for each thing that an author has to mend, over all chapters."""
    found = [problem for chapter in chapters for problem in chapter.problems]
    owners: dict[str, str] = {}
    for chapter in chapters:
        for cell in chapter.of("exercise"):
            if cell.name in owners:
                found.append(f"{chapter.at(cell)}: exercise {cell.name} also stands in {owners[cell.name]}.")
            owners[cell.name] = f"solutions/{chapter.path}.py"
        found += _pairs(chapter) + _known(chapter) + _regions(chapter) + _questions(chapter, bank)
        found += _leaning(chapter) if not (broken := _syntax(chapter)) else broken
    return found + _tested_in(chapters, bank)


def exercises_of(chapter: Chapter) -> dict[str, Exercise]:
    """The exercises of the chapter's module, by name."""
    return {e.name: e for e in of_module(chapter.exercises)} if chapter.exercises else {}


def _pairs(chapter: Chapter) -> list[str]:
    found, defined = [], set()
    exercises, checks = chapter.of("exercise"), [c.name for c in chapter.of("check")]
    for cell in chapter.cells:
        if cell.kind == "exercise":
            defined.add(cell.name)
        if cell.kind == "check" and cell.name not in defined:
            found.append(f"{chapter.at(cell)}: checks {cell.name}, which no earlier cell defines.")
    for cell in exercises:
        if checks.count(cell.name) != 1:
            told = "has no check cell" if cell.name not in checks else "is checked more than once"
            found.append(f"{chapter.at(cell)}: exercise {cell.name} {told}.")
    return found


def _known(chapter: Chapter) -> list[str]:
    if chapter.exercises and chapter.exercises not in names().values():
        return [f"solutions/{chapter.path}.py: there is no exercise in autograde.exercises.{chapter.exercises}."]
    known, used = exercises_of(chapter), {c.name: c for c in chapter.of("exercise")}
    found = [
        f"{chapter.at(cell)}: {name} is unknown in autograde.exercises.{chapter.exercises}."
        for name, cell in used.items()
        if name not in known
    ]
    unused = sorted(known.keys() - used.keys())
    return found + [f"solutions/{chapter.path}.py: no cell has the exercise {name}." for name in unused]


def _regions(chapter: Chapter) -> list[str]:
    found = []
    for cell in chapter.cells:
        regions, wrong = solution_regions(cell.source)
        if cell.kind == "exercise" and not regions and not wrong:
            wrong = "an exercise without a solution region (### BEGIN SOLUTION … ### END SOLUTION)"
        if cell.kind != "exercise" and regions:
            wrong = "a solution region outside an exercise cell"
        if wrong:
            found.append(f"{chapter.at(cell)}: {wrong}.")
    return found


def _syntax(chapter: Chapter) -> list[str]:
    found = []
    for cell in chapter.cells:
        try:
            ast.parse(cell.source if cell.kind != "markdown" else "")
        except SyntaxError as error:
            found.append(f"{chapter.at(cell)}: line {error.lineno} is not Python: {error.msg}.")
    return found


def _leaning(chapter: Chapter) -> list[str]:
    """Exercises lean on the setup cell and earlier exercises only; demos and claims on no exercise."""
    found, setup, exercises = [], set(dir(builtins)) | {"__name__"}, set()
    for cell in chapter.cells:
        needs, gives = used_and_defined(cell.source) if cell.kind != "markdown" else (set(), set())
        if cell.kind == "setup":
            setup |= gives
        elif cell.kind in ("exercise", "check"):
            exercises |= gives if cell.kind == "exercise" else set()
            if missing := sorted(needs - setup - exercises - gives):
                found.append(
                    f"{chapter.at(cell)}: leans on {', '.join(missing)}, which no setup cell or earlier exercise gives."
                )
        elif cell.kind in ("demo", "claim"):
            mine = {c.name for c in chapter.of("exercise")}
            if leaned := sorted((needs & mine) - setup):
                found.append(f"{chapter.at(cell)}: a {cell.kind} that depends on the exercise {', '.join(leaned)}.")
    return found


def used_and_defined(source: str) -> tuple[set[str], set[str]]:
    """The global names that a cell reads without defining them, and those that it defines."""
    top = symtable.symtable(source, "cell", "exec")
    defined = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    defined |= {s.get_name() for s in top.get_symbols() if s.is_namespace()}
    used: set[str] = {s.get_name() for s in top.get_symbols() if s.is_referenced()}
    tables = list(top.get_children())
    while tables:
        table = tables.pop()
        used |= {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
        tables += table.get_children()
    return used - defined, defined


def _questions(chapter: Chapter, bank: Bank) -> list[str]:
    found = [
        f"solutions/{chapter.path}.py: question {question} is not in interview/, or has no answer there."
        for question in chapter.questions
        if not bank.is_full(question)
    ]
    for cell in chapter.of("claim"):
        if cell.name not in bank.claims:
            found.append(f"{chapter.at(cell)}: claim {cell.name} is not in interview/.")
        elif bank.claims[cell.name].get("tested_in") != chapter.path:
            found.append(f"{chapter.at(cell)}: interview/ does not say that claim {cell.name} is tested here.")
    return found


def _tested_in(chapters: list[Chapter], bank: Bank) -> list[str]:
    tested = {(cell.name, chapter.path) for chapter in chapters for cell in chapter.of("claim")}
    return [
        f"interview/: claim {name} says it is tested in {claim['tested_in']}, which has no such cell."
        for name, claim in bank.claims.items()
        if claim.get("tested_in") and (name, claim["tested_in"]) not in tested
    ]


def lines_of_solution(cell: Cell) -> list[str]:
    """The lines inside the solution regions of a cell."""
    lines = cell.source.splitlines()
    return [line for first, last in solution_regions(cell.source)[0] for line in lines[first + 1 : last]]
