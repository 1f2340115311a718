"""Read what a learner handed in, and take from it only what a learner may write.

A submission is a file of unknown content. It is opened without following links, read up to a size, and parsed as JSON
into plain values; a notebook that can't be read is a sentence, never an error. From a readable one come the texts of
the cells that solve the release's exercises, the code cells that the learner added, and, where these need one, a
definition from any other cell. Everything else (order, tests, points, tags, metadata, outputs) comes from the release.
Which cell is which, `labkit.notebook` says.
"""

from __future__ import annotations

import errno
import os
import pathlib
import re
import stat
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labkit.notebook import (
    Definition,
    Reading,
    Unreadable,
    bound,
    cells_of,
    grade_id,
    marks_of,
    tags,
    unrun_magic,
)

__all__ = ["MISSING", "MOST_FILE", "SKIPPED", "Outline", "Step", "Taken", "Unreadable", "cells_of", "grade_id"]
__all__ += ["is_safe_name", "marks_of", "odd_sign", "outline", "read_bytes", "sources_of", "tags", "take"]

MOST_FILE = 100 * 2**20  # bytes of a file
MOST_BYTES = 10 * 2**20  # and of a notebook without the cells' outputs
MOST_ADDED = 500
# Cells that exercises never depend on: grading leaves them out.
SKIPPED = frozenset({"demo", "claim", "payoff"})
MISSING = "# This exercise's cell is missing from the submission."
_HIDDEN = re.compile(r"^### BEGIN HIDDEN TESTS$.*?^### END HIDDEN TESTS\n?", re.MULTILINE | re.DOTALL)
_SIGNS = r"\w.@+ ,()'’&-"
_NAME = re.compile(rf"\w(?:[{_SIGNS}]{{0,98}}[\w).])?")
# A text, to the file's end where it has none, or a bracket.
_PIECE = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)|[\[{\]}]', re.DOTALL)
_BEGINS = re.compile(rb"\s*:\s*[\[{]")
# What takes room in a notebook and is not read: how deep it stands, and its name.
_ROOM = {(3, b'"outputs"'), (3, b'"attachments"'), (2, b'"widgets"')}
_MOST_PIECES = 2_000_000


@dataclass(frozen=True)
class Step:
    """One cell to run, or (kind "check") the place where an exercise is checked.

    Kinds: setup, exercise, check; added, which is the learner's own; shown, which are definitions of the release's
    demos that a solution needs. `label` is the exercise's name, "setup", "added cell N" or "definitions for NAME".
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
    cell_ids: frozenset[str]  # of the cells that are no solutions
    points: Mapping[str, float]  # of each exercise, in order
    texts: Mapping[str, str]  # what stands in a released code cell that is no exercise -> its grade_id, or ""


@dataclass(frozen=True)
class Taken:
    """What was taken from a submission: the steps to run, the solutions by name, and remarks for the teacher."""

    steps: tuple[Step, ...]
    solutions: Mapping[str, str]
    remarks: tuple[str, ...] = ()


def is_safe_name(name: str) -> bool:
    """Whether a student's or notebook's name is one plain path component that gradebook and formgrader can hold."""
    return bool(_NAME.fullmatch(name)) and ".." not in name


def odd_sign(name: str) -> str:
    """What in a name makes it one that `is_safe_name` refuses, in words."""
    if found := re.search(f"[^{_SIGNS}]", name):
        return f"the gradebook can't hold the sign {found[0]!r}"
    if not name:
        return "it is empty"
    if ".." in name:
        return "the gradebook can't hold two dots in a row"
    if len(name) > 100:
        return f"it has {len(name)} signs, and the gradebook holds 100"
    return f"it begins or ends with {name[0] if not re.match(_NAME, name[0]) else name[-1]!r}"


def read_bytes(path: pathlib.Path, inside: pathlib.Path) -> bytes:
    """The content of a submitted file somewhere below `inside`. Raises Unreadable.

    No link on the way is followed, nothing but a regular file is opened, and no more than MOST_FILE is read.
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
        if found.st_size > MOST_FILE:
            size = f"{found.st_size / 1e6:.0f} MB, and at most {MOST_FILE / 1e6:.0f} are read"
            raise Unreadable(f"The file has {size}: without the cells' outputs it is smaller.")
        with open(number, "rb", closefd=False) as file:
            return file.read(MOST_FILE)
    finally:
        os.close(number)


def sources_of(content: bytes) -> bytes:
    """A notebook's file as it is, or where it is large without the cells' outputs. Raises Unreadable."""
    if len(content) > MOST_BYTES:
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            content = content.decode("utf-16", "replace").encode()
        content = _without_outputs(content)
    if len(content) > MOST_BYTES:
        size = f"{len(content) / 1e6:.0f} MB without the cells' outputs"
        raise Unreadable(f"The notebook has {size}, and at most {MOST_BYTES / 1e6:.0f} are read.")
    return content


def _without_outputs(content: bytes) -> bytes:
    """JSON text whose cells have no outputs and no pictures. Not one value of it is built."""
    kept, depth, begun, skipped = [], 0, 0, 0  # `skipped` is the depth of the outputs that are being left out
    for count, piece in enumerate(_PIECE.finditer(content)):
        if count > _MOST_PIECES:
            raise Unreadable("The file holds too much for a notebook.")
        sign = piece[0][:1]
        if sign in b"[{":
            depth += 1
        elif sign in b"]}":
            if depth == skipped:
                begun, skipped = piece.start(), 0
            depth -= 1
        elif not skipped and (depth, piece[0]) in _ROOM and (found := _BEGINS.match(content, piece.end())):
            kept.append(content[begun : found.end()])
            begun, skipped = found.end(), depth + 1
    return b"".join([*kept, content[begun:]]) if not skipped else content


def _why_not_opened(error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "It is a link, or stands behind one; links are not followed."
    return f"The file can't be opened: {error.strerror}."


def outline(name: str, cells: Sequence[Mapping]) -> Outline:
    """The outline of a released notebook, from its cells."""
    steps, ids, points, texts = [], {}, {}, {}
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        marks, label = marks_of(cell), grade_id(cell)
        if label:
            ids[label] = bool(marks.get("solution"))
        if marks.get("solution"):
            steps.append(Step("exercise", label))
            continue
        texts[_HIDDEN.sub("", cell["source"]).strip()] = label
        if marks.get("grade"):
            steps.append(Step("check", label.removeprefix("check_")))
            points[steps[-1].label] = float(marks.get("points", 0))
        elif label and label != "bootstrap" and not SKIPPED & tags(cell):
            steps.append(Step("setup", label, cell["source"]))
    ours = frozenset(str(cell.get("id")) for cell in cells if not marks_of(cell).get("solution"))
    return Outline(name, tuple(steps), ids, ours, points, texts)


def take(cells: Sequence[Mapping], of: Outline) -> Taken:
    """The steps of a release with the learner's solutions, added cells and what else these need. Raises Unreadable."""
    return _Taking(cells, of).taken()


class _Taking:
    """Puts a learner's cells into the places of a release."""

    def __init__(self, cells: Sequence[Mapping], of: Outline):
        self.of = of
        solved = [name for name, is_solution in of.grade_ids.items() if is_solution]
        self.reading = Reading(cells, solved, of.texts)
        self.remarks: list[str] = []
        if self.reading.lost_marks:
            self.remarks.append("no cell has an exercise's mark: exercises were found by their names")
        self.bare = not any(tags(cell) or cell["id"] in of.cell_ids for cell in self.reading.cells)
        self.added: dict[str, list[int]] = defaultdict(list)  # by what they follow
        self.before: dict[str, list[int]] = defaultdict(list)
        self.edited: set[int] = set()
        self._sort()

    def taken(self) -> Taken:
        solutions = {step.label: self._solution(step.label) for step in self.of.steps if step.kind == "exercise"}
        steps = self._with_added(solutions)
        self._tell(steps)
        steps = self._with_needed(steps)
        found = {name: text for name, text in solutions.items() if text != MISSING}
        return Taken(tuple(steps), found, tuple(self.remarks))

    def _sort(self) -> None:
        """Which cells are the learner's own, and after what they run; which of the release's cells were edited."""
        reading, last = self.reading, "setup"
        chosen = {number: name for name, number in reading.chosen.items()}
        for number, name in enumerate(reading.ids):
            text = reading.texts[number].strip()
            if name not in self.of.grade_ids:
                name = chosen.get(number) or self.of.texts.get(text, "")
            last = name or last
            if not reading.is_code(number) or not text:
                continue
            if self._is_ours(number):
                if text not in self.of.texts and name != "bootstrap":
                    self.edited.add(number)
            elif number not in chosen and not reading.is_stub(number) and text != (reading.text_of(name) or "").strip():
                is_first = name in reading.chosen and number < reading.chosen[name]
                (self.before if is_first else self.added)[last].append(number)
        if sum(map(len, [*self.added.values(), *self.before.values()])) > MOST_ADDED:
            raise Unreadable(f"The notebook has more than {MOST_ADDED} added cells.")

    def _is_ours(self, number: int) -> bool:
        """Whether a cell is one of the release's, and none for a solution."""
        cell, text, name = self.reading.cells[number], self.reading.texts[number].strip(), self.reading.ids[number]
        if name in self.of.grade_ids:
            return not self.of.grade_ids[name]
        if text in self.of.texts or cell["id"] in self.of.cell_ids or SKIPPED & tags(cell):
            return True
        return self.bare and any(_share(ours, text) >= 0.5 for ours in self.of.texts)

    def _solution(self, name: str) -> str:
        """The text that solves an exercise: of a cell that is the release's for something else, what it needs of it."""
        number = self.reading.chosen.get(name)
        if number is None:
            return MISSING
        if number in self.edited:
            return "\n".join(each.text for each in self.reading.needed([name], number) if each.cell == number)
        return self.reading.texts[number]

    def _with_added(self, solutions: Mapping[str, str]) -> list[Step]:
        steps: list[Step] = []

        def add(numbers: Sequence[int]) -> None:
            for number in numbers:
                label = f"added cell {sum(s.kind == 'added' for s in steps) + 1}"
                steps.append(Step("added", label, self.reading.texts[number]))

        for step in self.of.steps:
            name = f"check_{step.label}" if step.kind == "check" else step.label
            add(self.before.get(name, []))
            steps.append(Step("exercise", name, solutions[name]) if step.kind == "exercise" else step)
            add(self.added.get(name, []))
        return steps

    def _with_needed(self, steps: Sequence[Step]) -> list[Step]:
        """The steps, and before each exercise the definitions that it needs and no step above it gives.

        At a check its exercise is needed itself, which may stand in any other exercise's cell.
        """
        done: list[Step] = []
        given: set[str] = set()
        names = [bound(step.source) for step in steps]
        for place, step in enumerate(steps):
            if step.kind in ("exercise", "check"):
                near = self.reading.chosen.get(step.label, len(self.reading.cells))
                wanted = {step.label}
                soon: set[str] = set()
                if step.kind == "exercise":
                    wanted = self.reading.uses(near)
                    ends = next((i for i in range(place, len(steps)) if steps[i].kind == "check"), len(steps))
                    soon = set().union(*names[place:ends])
                needed = self.reading.needed(wanted, near, given | soon)
                done += self._definitions(step.label, needed)
                given = given.union(*(each.names for each in needed))
            done.append(step)
            given |= names[place]
        return done

    def _definitions(self, name: str, needed: Sequence[Definition]) -> list[Step]:
        """Definitions as steps: the release's own first, which are nobody's work."""
        shown = [each for each in needed if self.reading.texts[each.cell].strip() in self.of.texts]
        own = [each for each in needed if each not in shown]
        for each in own:
            told = f"{', '.join(sorted(each.names))} for {name}: taken from {self._where(each.cell, name)}"
            if told not in self.remarks:
                self.remarks.append(told)
        texts = {kind: "\n".join(each.text for each in found) for kind, found in (("shown", shown), ("added", own))}
        return [Step(kind, f"definitions for {name}", text) for kind, text in texts.items() if text]

    def _where(self, number: int, name: str) -> str:
        if number in self.edited:
            return f"an edited {self._kind(number)} cell"
        if not self.reading.is_code(number):
            return f"a {self.reading.cells[number]['cell_type']} cell"
        if self.reading.ids[number]:
            return f"the cell of {self.reading.ids[number]}"
        return "a cell below" if number > self.reading.chosen.get(name, number) else "a cell above"

    def _kind(self, number: int) -> str:
        name = self.reading.ids[number]
        known = sorted(SKIPPED & tags(self.reading.cells[number]))
        return "check" if name.startswith("check_") else name or (known[0] if known else "demo")

    def _tell(self, steps: Sequence[Step]) -> None:
        """Remarks on what was chosen, and on what is not run."""
        for step in steps:
            if step.kind == "exercise" and step.source == MISSING and not self.reading.needed([step.label], 0):
                self.remarks.append(f"the cell of {step.label} is missing")
            if step.kind == "exercise" and step.label in self.reading.notes:
                self.remarks.append(f"{step.label}: {self.reading.notes[step.label]}")
            if step.kind in ("exercise", "added") and (magic := unrun_magic(step.source)):
                self.remarks.append(f"{step.label}: what stands under {magic} is not run")
        if self.edited:
            kinds = ", ".join(sorted({self._kind(number) for number in self.edited}))
            self.remarks.append(
                f"edits in {len(self.edited)} of the course's own cells ({kinds}) are not run, but for what is needed"
            )


def _share(ours: str, theirs: str) -> float:
    """The share of our lines that stand in their text as well."""
    lines = {line.strip() for line in ours.splitlines()} - {""}
    return len(lines & {line.strip() for line in theirs.splitlines()}) / max(1, len(lines))
