"""Read what a learner handed in, and take from it only what a learner may write.

A submission is a file of unknown content. It is opened without following links, read up to a size, and parsed as JSON
into plain values; a notebook that can't be read is a sentence, never an error. From a readable one come the texts of
the cells whose grade_id is that of a solution cell in the release, and of the code cells that the learner added.
Everything else (order, tests, points, tags, metadata, outputs) comes from the release.
"""

from __future__ import annotations

import errno
import json
import os
import pathlib
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MOST_BYTES = 10 * 2**20
MOST_TEXT = 2**20  # characters of code in a notebook
MOST_ADDED = 500
# Cells that exercises never depend on: grading leaves them out.
SKIPPED = frozenset({"demo", "claim", "payoff"})
MISSING = "# This exercise's cell is missing from the submission."
_NAME = re.compile(r"\w[\w.@+ -]{0,98}\w|\w")


class Unreadable(ValueError):
    """A submission, or a part of it, that can't be graded; the message says why, in one sentence."""


@dataclass(frozen=True)
class Step:
    """One cell to run, or (kind "check") the place where an exercise is checked. Kinds: setup, exercise, added, check.

    `label` is the exercise's name, "setup" or "added cell N".
    """

    kind: str
    label: str
    source: str = ""


@dataclass(frozen=True)
class Outline:
    """What grading needs of a released notebook: its setup, and where its exercises and checks stand."""

    name: str
    steps: tuple[Step, ...]
    grade_ids: Mapping[str, bool]  # every grade_id of a code cell -> whether it is a solution
    cell_ids: frozenset[str]
    points: Mapping[str, float]  # of each exercise, in order


@dataclass(frozen=True)
class Taken:
    """What was taken from a submission: the steps to run, the solutions by name, and remarks for the teacher."""

    steps: tuple[Step, ...]
    solutions: Mapping[str, str]
    remarks: tuple[str, ...] = ()


@dataclass
class _Found:
    solutions: dict[str, str] = field(default_factory=dict)
    added: dict[str, list[str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def is_safe_name(name: str) -> bool:
    """Whether a student's or notebook's name is one plain path component that no shell or web page minds."""
    return bool(_NAME.fullmatch(name)) and ".." not in name


def read_bytes(path: pathlib.Path, inside: pathlib.Path) -> bytes:
    """The content of a submitted file somewhere below `inside`. Raises Unreadable.

    No link on the way is followed, nothing but a regular file is opened, and no more than MOST_BYTES is read.
    """
    folder = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
    try:
        *above, name = path.relative_to(inside).parts
        for part in above:
            deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = deeper
        number = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        raise Unreadable(_why_not_opened(error)) from None
    finally:
        os.close(folder)
    try:
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable("It is not a file.")
        if found.st_size > MOST_BYTES:
            raise Unreadable(f"The file has {found.st_size / 1e6:.0f} MB; at most {MOST_BYTES / 1e6:.0f} are read.")
        with open(number, "rb", closefd=False) as file:
            return file.read(MOST_BYTES)
    finally:
        os.close(number)


def _why_not_opened(error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "It is a link, or stands behind one; links are not followed."
    return f"The file can't be opened: {error.strerror}."


def cells_of(content: bytes) -> list[dict]:
    """The cells of a notebook as plain dicts with text in `source`. Raises Unreadable."""
    try:
        notebook = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise Unreadable("The file is not UTF-8 text.") from None
    except (ValueError, RecursionError, MemoryError):
        raise Unreadable("The file is not valid JSON: it may have been cut off, or edited by hand.") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        older = isinstance(notebook, dict) and isinstance(notebook.get("worksheets"), list)
        raise Unreadable("It is a notebook of the old format 3." if older else "It is JSON, but no notebook.")
    if notebook.get("nbformat") != 4:
        raise Unreadable("It is a notebook of another format than 4.")
    cells = [_cell(cell) for cell in notebook["cells"] if isinstance(cell, dict)]
    if sum(len(cell["source"]) for cell in cells if cell["cell_type"] == "code") > MOST_TEXT:
        raise Unreadable(f"The notebook holds more than {MOST_TEXT:,} characters of code.")
    return cells


def _cell(cell: dict) -> dict:
    source = cell.get("source", "")
    lines = source if isinstance(source, list) else [source]
    text = "".join(line for line in lines if isinstance(line, str))
    clean = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates can't be stored anywhere
    metadata = cell.get("metadata")
    return {
        "cell_type": cell.get("cell_type"),
        "source": clean,
        "metadata": metadata if isinstance(metadata, dict) else {},
        "id": str(cell.get("id", "")),
    }


def outline(name: str, cells: Sequence[Mapping]) -> Outline:
    """The outline of a released notebook, from its cells."""
    steps, ids, points = [], {}, {}
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        marks, label = marks_of(cell), grade_id(cell)
        if label:
            ids[label] = bool(marks.get("solution"))
        if marks.get("solution"):
            steps.append(Step("exercise", label))
        elif marks.get("grade"):
            steps.append(Step("check", label.removeprefix("check_")))
            points[steps[-1].label] = float(marks.get("points", 0))
        elif label and label != "bootstrap" and not SKIPPED & tags(cell):
            steps.append(Step("setup", label, cell["source"]))
    return Outline(name, tuple(steps), ids, frozenset(str(cell.get("id")) for cell in cells), points)


def take(cells: Sequence[Mapping], of: Outline) -> Taken:
    """The steps of a release with the learner's solutions and added cells in them."""
    found = find(cells, of.grade_ids, of.cell_ids)
    steps: list[Step] = []
    for step in of.steps:
        name = f"check_{step.label}" if step.kind == "check" else step.label
        if step.kind == "exercise":
            if name not in found.solutions:
                found.remarks.append(f"the cell of {name} is missing")
            step = Step("exercise", name, found.solutions.get(name, MISSING))
        steps.append(step)
        for text in found.added.get(name, []):
            steps.append(Step("added", f"added cell {sum(s.kind == 'added' for s in steps) + 1}", text))
    return Taken(tuple(steps), found.solutions, tuple(found.remarks))


def find(cells: Sequence[Mapping], known: Mapping[str, bool], ours: frozenset[str]) -> _Found:
    """The learner's solutions by grade_id, and the code cells they added, by the grade_id of the cell before.

    `known` are the release's grade_ids (and whether each is a solution), `ours` its cells' ids. A second cell with a
    solution's grade_id and another text counts as added, as it would when the learner runs it.
    """
    found, last = _Found(), "setup"
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        name = grade_id(cell)
        seen = name in found.solutions
        last = name if name in known else last
        if known.get(name) and not seen:
            found.solutions[name] = cell["source"]
        elif seen:
            found.remarks.append(f"the cell of {name} is there more than once")
        added = name not in known and str(cell.get("id")) not in ours and not SKIPPED & tags(cell)
        if added or (seen and cell["source"] != found.solutions[name]):
            found.added.setdefault(last, []).append(cell["source"])
    if sum(map(len, found.added.values())) > MOST_ADDED:
        raise Unreadable(f"The notebook has more than {MOST_ADDED} added cells.")
    return found


# A submission's metadata is whatever the learner made of it, so nothing about its types is taken for granted.
def marks_of(cell: Mapping) -> Mapping:
    """A cell's nbgrader metadata, or an empty dict."""
    found = cell["metadata"].get("nbgrader")
    return found if isinstance(found, dict) else {}


def grade_id(cell: Mapping) -> str:
    """A cell's grade_id, or an empty text."""
    return str(marks_of(cell).get("grade_id", ""))


def tags(cell: Mapping) -> set[str]:
    """A cell's tags."""
    found = cell["metadata"].get("tags")
    return {str(tag) for tag in found} if isinstance(found, list) else set()
