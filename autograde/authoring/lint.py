"""Find what is wrong in the chapters before anything is written."""

from __future__ import annotations

import ast
import graphlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator

from autograde.authoring import scopes
from autograde.authoring.bank import Bank
from autograde.authoring.chapter import Cell, Chapter
from autograde.exercise import Exercise
from autograde.exercises import chapters as known_chapters
from autograde.exercises import find, order
from autograde.regions import solution_regions, stubbed

# Words by which nbgrader finds regions of its own. The build writes those that are needed.
_RESERVED = ("HIDDEN TESTS", "MARK SCHEME", "### AUTOTEST", "### HASHED AUTOTEST")


def problems(chapters: list[Chapter], bank: Bank, *, some: bool = False) -> list[str]:
    """One sentence for each thing that an author has to mend, over all chapters, or if `some` over these alone."""
    found = [*bank.problems, *_same_name(chapters), *([] if some else _needs(chapters))]
    for chapter in chapters:
        found += chapter.problems + _prose(chapter)
        found += _setup(chapter) + _pairs(chapter) + _known(chapter) + _regions(chapter) + _questions(chapter, bank)
        found += _syntax(chapter) or [*_bodies(chapter), *scopes.problems(chapter)]
    return found + _tested_in(chapters, bank, some)


def exercises_of(chapter: Chapter) -> dict[str, Exercise]:
    """The exercises of the chapter's folder, by name."""
    return {name: find(name) for name in order(chapter.exercises)} if chapter.exercises else {}


def _same_name(chapters: list[Chapter]) -> list[str]:
    found, owners = [], {}
    for chapter in chapters:
        for cell in chapter.of("exercise"):
            if cell.name in owners:
                found.append(f"{chapter.at(cell)}: exercise {cell.name} also stands in {owners[cell.name]}.")
            owners[cell.name] = chapter.file
    return found


def _needs(chapters: list[Chapter]) -> list[str]:
    """What is wrong with the prerequisites: one that is no chapter, or that has to be solved after it needs it."""
    needs = {chapter.path: chapter.needs for chapter in chapters}
    found = [
        f"{chapter.file}: it needs {path}, which is no chapter."
        for chapter in chapters
        for path in chapter.needs
        if path not in needs
    ]
    if found:
        return found
    try:
        tuple(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as error:
        return [f"solutions/: these chapters need each other in a circle: {', '.join(error.args[1])}."]
    return []


def _prose(chapter: Chapter) -> list[str]:
    """Paragraphs that were run together, so that a heading is none, and one that was cut in two."""
    found = []
    for cell in chapter.of("markdown"):
        parts = [part.strip() for part in cell.source.split("\n\n")]
        if re.search(r"\S +#{2,6} ", cell.source):
            found.append(f"{chapter.at(cell)}: a heading in the middle of a line.")
        if any(re.search(r"^[^#].*[a-z,]\Z", a, re.M) and re.match("[a-z]", b) for a, b in itertools.pairwise(parts)):
            found.append(f"{chapter.at(cell)}: a sentence goes on in the next paragraph.")
    return found


def _setup(chapter: Chapter) -> list[str]:
    first, *more = [*chapter.of("setup"), None]
    if first is None:
        return [f'{chapter.file}: has no setup cell (tags=["setup"]) with the imports.']
    return [f"{chapter.at(cell)}: a second setup cell; exercises lean on one alone." for cell in more if cell]


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
    if chapter.exercises and chapter.exercises not in known_chapters():
        return [f"{chapter.file}: there is no exercise in autograde.exercises.{chapter.exercises}."]
    known, used = exercises_of(chapter), {c.name: c for c in chapter.of("exercise")}
    if list(used) != list(known) and sorted(used) == sorted(known):
        return [f"{chapter.file}: its exercises stand in another order than in autograde.exercises.{chapter.exercises}"]
    module = f"autograde.exercises.{chapter.exercises}" if chapter.exercises else "the header, which names no module"
    found = [
        f"{chapter.at(cell)}: exercise {name} is unknown in {module}."
        for name, cell in used.items()
        if name not in known
    ]
    unused = sorted(known.keys() - used.keys())
    return found + [f"{chapter.file}: no cell has the exercise {name} of {module}." for name in unused]


def _regions(chapter: Chapter) -> list[str]:
    found = []
    for cell in chapter.cells:
        regions, wrong = solution_regions(cell.source)
        if cell.kind == "exercise" and not regions and not wrong:
            wrong = "an exercise without a solution region (### BEGIN SOLUTION … ### END SOLUTION)"
        if cell.kind != "exercise" and regions:
            wrong = "a solution region outside an exercise cell"
        if reserved := [word for word in _RESERVED if word in cell.source]:
            wrong = f"the words {reserved[0]!r} are nbgrader's; the build adds hidden tests by itself"
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


def _bodies(chapter: Chapter) -> Iterator[str]:
    """Whether exercise and check cells do what they are there for. The cells have to be Python."""
    for cell in chapter.of("exercise"):
        if wrong := _stub_problem(cell):
            yield f"{chapter.at(cell)}: {wrong}."
    for cell in chapter.of("check"):
        calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
        if not any(ast.unparse(call).startswith(f"check({cell.name}") for call in calls):
            yield f"{chapter.at(cell)}: a check cell that never calls check({cell.name})."


def _stub_problem(cell: Cell) -> str:
    if cell.name not in scopes.used_and_defined(cell.source)[1]:
        return f"never defines {cell.name}"
    try:
        statements = list(ast.parse(stubbed(cell.source)).body)
    except SyntaxError as error:
        return f"without its solution the cell is not Python: {error.msg}"
    while statements:
        node = statements.pop()
        if isinstance(node, ast.Raise):
            return "a solution region outside any function, so that an unsolved cell would stop Run All"
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            statements += ast.iter_child_nodes(node)
    return ""


def _questions(chapter: Chapter, bank: Bank) -> list[str]:
    found = [
        f"{chapter.file}: question {question} is not in interview/, or has no answer there."
        for question in chapter.questions
        if not bank.is_full(question)
    ]
    times = Counter(cell.name for cell in chapter.of("claim"))
    for cell in chapter.of("claim"):
        if cell.name not in bank.claims:
            found.append(f"{chapter.at(cell)}: claim {cell.name} is not in interview/.")
        elif bank.claims[cell.name].get("tested_in") != chapter.path:
            found.append(f"{chapter.at(cell)}: interview/ does not say that claim {cell.name} is tested here.")
        elif times[cell.name] > 1:
            found.append(f"{chapter.at(cell)}: claim {cell.name} has more than one cell.")
    return found


def _tested_in(chapters: list[Chapter], bank: Bank, some: bool) -> list[str]:
    read = {chapter.path for chapter in chapters}
    tested = {(cell.name, chapter.path) for chapter in chapters for cell in chapter.of("claim")}
    return [
        f"interview/: claim {name} says it is tested in {claim['tested_in']}, which has no such cell."
        for name, claim in bank.claims.items()
        if claim.get("tested_in")
        and (name, claim["tested_in"]) not in tested
        and (not some or claim["tested_in"] in read)
    ]
