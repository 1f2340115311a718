"""Read one chapter source (py:percent) into cells with a kind and a name."""

from __future__ import annotations

import pathlib
import re
from dataclasses import dataclass, field

import jupytext
import yaml

KINDS = ("markdown", "setup", "demo", "exercise", "check", "payoff", "claim")
_TAGS = ("setup", "demo", "payoff")
_NAMED = ("exercise", "check", "claim")
_OPEN, _CLOSE = "### BEGIN SOLUTION", "### END SOLUTION"


class AuthoringError(Exception):
    """Something in the sources that the author has to mend. `problems` holds one sentence each."""

    def __init__(self, problems: list[str]):
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Cell:
    """One cell of a source. `name` is the exercise's or the claim's, empty for others; `number` counts from 1."""

    kind: str
    source: str
    number: int
    name: str = ""


@dataclass
class Chapter:
    """One chapter: its path below solutions/ without the ending ("01_transformer/04_rope"), header and cells."""

    path: str
    title: str
    exercises: str
    questions: list[str]
    cells: list[Cell]
    problems: list[str] = field(default_factory=list)

    def of(self, kind: str) -> list[Cell]:
        return [cell for cell in self.cells if cell.kind == kind]

    def at(self, cell: Cell) -> str:
        """Where a cell stands, for an error message."""
        first = next((line for line in cell.source.splitlines() if line.strip()), "")
        return f"solutions/{self.path}.py, cell {cell.number} ({first.strip()[:60]!r})"


def read(root: pathlib.Path, path: str) -> Chapter:
    """The chapter at solutions/`path`.py; what is wrong with it stands in `problems`."""
    text = (root / "solutions" / f"{path}.py").read_text(encoding="utf-8")
    header = _header(text)
    notebook = jupytext.reads(text, fmt="py:percent")
    chapter = Chapter(
        path,
        str(header.get("title", "")),
        str(header.get("exercises", "")),
        list(header.get("questions", [])),
        [],
    )
    unknown = set(header) - {"title", "exercises", "questions"}
    if not chapter.title or unknown:
        told = f"unknown keys {sorted(unknown)}" if unknown else "no title"
        chapter.problems.append(f"solutions/{path}.py: the course header has {told}.")
    for number, cell in enumerate(notebook.cells, start=1):
        chapter.cells.append(_cell(chapter, cell, number))
    return chapter


def all_chapters(root: pathlib.Path) -> list[Chapter]:
    """Every chapter below solutions/, in order."""
    folder = root / "solutions"
    paths = sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.py"))
    return [read(root, path) for path in paths]


def _header(text: str) -> dict:
    found = re.match(r"# ---\n((?:#.*\n)*?)# ---\n", text)
    lines = found.group(1).splitlines() if found else []
    content = yaml.safe_load("\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)) or {}
    return (content.get("jupyter") or {}).get("course") or {}


def _cell(chapter: Chapter, cell, number: int) -> Cell:
    if cell.cell_type == "markdown":
        return Cell("markdown", cell.source, number)
    meta = {k: v for k, v in cell.metadata.items() if k != "lines_to_next_cell"}
    tags = meta.pop("tags", [])
    kinds = [t for t in tags if t in _TAGS] + [k for k in _NAMED if k in meta]
    made = Cell(kinds[0] if kinds else "", cell.source, number, str(meta.get(kinds[0], "")) if kinds else "")
    strange = sorted(set(tags) - set(_TAGS)) + sorted(set(meta) - set(_NAMED))
    if strange or len(kinds) != 1:
        told = (
            f"unknown marks {strange}" if strange else "none of the marks setup, demo, exercise, check, payoff, claim"
        )
        told = told if len(kinds) < 2 else f"more than one mark: {kinds}"
        chapter.problems.append(f"{chapter.at(made)}: has {told}.")
    return made


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
    return regions, "" if start is None else "a solution region is never closed"
