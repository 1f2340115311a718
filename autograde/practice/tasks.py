"""The coding tasks of the mock interview: every exercise of the course, how hard it is, and its file to fill in.

How hard follows from what an exercise is worth, which says how much there is to get right: up to 2 points easy, 3
medium, more hard; one that runs on several processes is hard. Exercises are read as text here, since importing them
brings in torch.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from autograde.regions import stubbed, unmarked
from autograde.repository import ROOT
from labkit.notebook import used_and_defined

__all__ = ["DIFFICULTIES", "Task", "task_file", "tasks"]

DIFFICULTIES = ("easy", "medium", "hard")
_DRAFT = re.compile(r"^exercise = Draft\((?:(.*)\)$|\n((?:    .*\n|\n)*)\))", re.MULTILINE)
_ALWAYS = {"torch", "F", "nn", "math", "np", "dist"}  # of the chapter's imports, also where the solution needs none
_BANNER = '''"""Mock interview, coding task: {name}

From the chapter {chapter}. Write your code where YOUR CODE HERE stands; the docstring says all
that is checked. Keep the name. You may run this file as often as you like. It is checked when you say that you
are done, or when the time is over.
"""'''
_GIVEN = "# Given: what the task builds on.\n"


@dataclass(frozen=True)
class Task:
    """name: the exercise; chapter: such as "01_transformer/04_rope"; difficulty: easy, medium or hard."""

    name: str
    chapter: str
    points: int
    difficulty: str


@cache
def tasks(root: Path = ROOT) -> tuple[Task, ...]:
    """Every exercise of a chapter that answers questions, in the course's order. ValueError where there are none."""
    files = sorted((root / "solutions").glob("*/*.py"))
    found = [task for file in files for task in _of_chapter(root, f"{file.parent.name}/{file.stem}")]
    if not found:
        raise ValueError("the coding tasks are not here: the mock interview needs the folder of the whole course.")
    return tuple(found)


def _of_chapter(root: Path, path: str) -> list[Task]:
    folder = root.joinpath("autograde", "exercises", *(part.split("_", 1)[1] for part in path.split("/")))
    return [_task(path, folder / f"{name}.py") for name in _order(folder / "__init__.py")]


def _order(file: Path) -> list[str]:
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "ORDER":
            return ast.literal_eval(statement.value)
    return []


def _task(chapter: str, file: Path) -> Task:
    found = _DRAFT.search(file.read_text(encoding="utf-8"))
    options = (found[1] or found[2]) if found else ""
    points = re.search(r"\bpoints=(\d+)", options)
    if not points:
        raise ValueError(f"{file} does not say the points of its exercise")
    worth, ranks = int(points[1]), "ranks=True" in options
    level = 2 if ranks else 0 if worth <= 2 else 1 if worth == 3 else 2
    return Task(file.stem, chapter, worth, DIFFICULTIES[level])


def task_file(task: Task, root: Path = ROOT) -> str:
    """The file that a candidate fills in: imports, what the task builds on, ready-made, and the stub with docstring."""
    cells = _cells((root / "solutions" / f"{task.chapter}.py").read_text(encoding="utf-8"))
    at = next(number for number, (name, _) in enumerate(cells) if name == task.name)
    own = cells[at][1]
    needs, _ = used_and_defined(own)
    imports, given = _given([unmarked(source) for _, source in cells[:at]], needs)
    parts = [_BANNER.format(name=task.name, chapter=task.chapter), imports]
    parts += [_GIVEN + "\n\n\n".join(given)] if given else []
    return "\n\n".join(part for part in parts if part) + f"\n\n\n{stubbed(own).strip()}\n"


def _cells(text: str) -> list[tuple[str, str]]:
    """The setup (without a name) and the exercises of a chapter's source, in order: (name, code).

    Read here line by line, since the reader for authors (`autograde.authoring.chapter`) takes a second to start.
    """
    parts = re.split(r"(?m)^# %%(.*)\n", text)[1:]
    cells = [(mark, source.strip("\n")) for mark, source in zip(parts[::2], parts[1::2], strict=True)]
    named = [(re.search(r' exercise="(\w+)"', mark), mark, source) for mark, source in cells]
    return [(name[1] if name else "", source) for name, mark, source in named if name or 'tags=["setup"]' in mark]


def _given(before: list[str], needs: set[str]) -> tuple[str, list[str]]:
    """The imports to write above a task, and the statements of the cells before that it and they build on."""
    imports: list[str] = []
    pieces: list[str] = []
    for cell in reversed(before):
        for statement in reversed(ast.parse(cell).body):
            text = ast.get_source_segment(cell, statement, padded=True)
            reads, defines = used_and_defined(text)
            if isinstance(statement, ast.Import | ast.ImportFrom):
                imports = [*_wanted(statement, needs), *imports]
            elif defines & needs:
                needs = needs | reads
                pieces.insert(0, _decorated(cell, statement))
    return "\n".join(dict.fromkeys(imports)), pieces


def _wanted(statement: ast.Import | ast.ImportFrom, needs: set[str]) -> list[str]:
    """The statement with only those of its names that are needed, as a list of one or none."""
    ours = isinstance(statement, ast.ImportFrom) and str(statement.module).split(".")[0] in ("labkit", "autograde")
    wanted = needs if ours else needs | _ALWAYS
    names = [one for one in statement.names if (one.asname or one.name.split(".")[0]) in wanted]
    if not names:
        return []
    kept = ast.Import(names) if isinstance(statement, ast.Import) else ast.ImportFrom(statement.module, names, 0)
    return [ast.unparse(kept)]


def _decorated(cell: str, statement: ast.stmt) -> str:
    first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))])
    return "\n".join(cell.splitlines()[first - 1 : statement.end_lineno])
