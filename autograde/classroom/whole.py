"""`autograde submission FILE`: whether a notebook that came back, from wherever, is whole.

It is held against the release, as it is made from solutions/. What it is and which cell solves what, the same reader
says that grading uses; nothing of it is run, so nothing is said about whether it is right.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autograde.classroom.collect import by_marks, by_names
from autograde.classroom.submission import (
    MOST_FILE,
    Outline,
    Unreadable,
    cells_of,
    grade_id,
    marks_of,
    outline,
    sources_of,
    take,
)
from autograde.exercises import order
from autograde.repository import ROOT
from labkit.notebook import Reading

__all__ = ["ODD", "UNKNOWN", "WHOLE", "Look", "Releases", "look", "outline_of"]

WHOLE, ODD, UNKNOWN = 0, 1, 2  # exit statuses
_SAID_ABOVE = ("the cell of ", "no cell has ")  # what grading remarks and the table, or a line on marks, has already


@dataclass(frozen=True)
class Look:
    """What there is to say of one file. `code` is WHOLE, ODD (it can be graded; something is amiss) or UNKNOWN."""

    code: int
    text: str


@dataclass(frozen=True)
class Releases:
    """What was handed out: an outline of each chapter that has its exercises' names, and how its notebook is made."""

    outlines: Sequence[Outline]
    notebook: Callable[[str], bytes]


@dataclass(frozen=True)
class Released:
    """A notebook as learners get it."""

    of: Outline  # named by the chapter's path, such as "02_applications/02_sampling"
    texts: dict[str, str]  # grade_id of the course's own cells -> their text
    sums: dict[str, str]  # grade_id -> nbgrader's checksum, which says of which release a cell is


def look(file: Path, releases: Releases | None = None) -> Look:
    """Read a notebook and say what of it is there.

    releases: what was handed out; if it is left out, the chapters of this copy of the course. Raises ValueError where
    it has none.
    """
    releases = releases or _of_the_course()
    try:
        cells = cells_of(sources_of(_content(file)))
        found = by_marks(releases.outlines, cells) or by_names(releases.outlines, cells)
        if not found:
            raise Unreadable("No exercise of the course is in it.")
        released = _released(found.name, releases.notebook(found.name))
        others = [of for of in releases.outlines if of is not found]
        return _told(str(file), released, others, cells)
    except Unreadable as error:
        return Look(UNKNOWN, f"{file}: {error}")
    except OSError as error:
        return Look(UNKNOWN, f"{file}: The file can't be opened: {error.strerror}.")


def _content(file: Path) -> bytes:
    if file.is_dir() or file.suffix.casefold() == ".zip":
        raise Unreadable("One notebook is looked at, or several; `autograde collect` takes folders and zip files.")
    if file.stat().st_size > MOST_FILE:
        raise Unreadable(f"It has {file.stat().st_size / 1e6:.0f} MB; clear the outputs, and it is smaller.")
    return file.read_bytes()


@functools.cache
def _of_the_course() -> Releases:
    """The chapters, made from solutions/: in notebooks/ is what the learner has written, who may ask about it."""
    from autograde.authoring.build import as_text, released, sources
    from autograde.authoring.chapter import exercises_of, paths

    known = [(path, order(exercises_of(ROOT, path))) for path in paths(ROOT)]
    if not known:
        raise ValueError(f"There are no chapters in {ROOT}: this works in a copy of the whole course.")

    @functools.cache
    def notebook(path: str) -> bytes:
        return as_text(released(sources(ROOT, [path])[path])).encode()

    return Releases([outline_of(path, names) for path, names in known], notebook)


def outline_of(path: str, exercises: Sequence[str]) -> Outline:
    """An outline of which no more is known than the exercises' names: enough to find out which chapter it is."""
    marks = dict.fromkeys(exercises, True) | {f"check_{name}": False for name in exercises}
    return Outline(path, (), marks, frozenset(), dict.fromkeys(exercises, 0.0), {})


def _released(path: str, content: bytes) -> Released:
    cells = cells_of(content)
    marked = {grade_id(cell): cell for cell in cells if grade_id(cell) and grade_id(cell) != "bootstrap"}
    texts = {name: cell["source"].strip() for name, cell in marked.items() if not marks_of(cell).get("solution")}
    sums = {name: str(marks_of(cell).get("checksum", "")) for name, cell in marked.items()}
    return Released(outline(path, cells), texts, sums)


def _told(name: str, released: Released, others: Sequence[Outline], cells: Sequence[dict]) -> Look:
    reading = Reading(cells, list(released.of.points))
    rows = [(exercise, *_state(reading, exercise)) for exercise in released.of.points]
    amiss = [*_missing(rows), *_marks(released, others, reading), *_changed(released, cells)]
    filled = sum(state == "filled in" for _, state, _ in rows)
    head = f"{name}: {released.of.name}, {filled} of {len(rows)} exercises filled in"
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    table = [f"  {e:{widths[0]}}  {s:{widths[1]}}  {note}".rstrip() for e, s, note in rows]
    odd = [f"  {each}" for each in amiss]
    noted = {f"{exercise}: {note}" for exercise, _, note in rows}
    remarks = [r for r in take(cells, released.of).remarks if r not in noted and not r.startswith(_SAID_ABOVE)]
    told = [f"  Note: {remark}." for remark in remarks]
    amiss += [exercise for exercise, _, note in rows if note]
    end = "It is not quite whole. Grading takes all that is there." if amiss else "It is whole."
    parts = [[head], table, odd + told, [end]]
    return Look(ODD if amiss else WHOLE, "\n\n".join("\n".join(part) for part in parts if part))


def _state(reading: Reading, name: str) -> tuple[str, str]:
    """How far an exercise is, and what is odd about its place."""
    number = reading.chosen.get(name)
    if number is None:
        elsewhere = [each for each in reading.needed([name], 0) if name in each.names]
        if not elsewhere:
            return "missing", ""
        place = reading.ids[elsewhere[0].cell]
        return "filled in", f"it stands in {f'the cell of {place}' if place else 'another cell'}"
    state = "filled in" if reading.binds(number, name) else "no function of this name"
    return "not started" if reading.is_stub(number) else state, reading.notes.get(name, "")


def _missing(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    told = {"missing": "Missing", "no function of this name": "Its cell doesn't define it, or isn't Python"}
    found = {state: [name for name, each, _ in rows if each == state] for state in told}
    return [f"{told[state]}: {', '.join(names)}." for state, names in found.items() if names]


def _marks(released: Released, others: Sequence[Outline], reading: Reading) -> list[str]:
    """Marks that are lost, that stand there twice, and that are another chapter's."""
    count = Counter(name for name in reading.ids if name)
    if reading.lost_marks:
        return ["Marks: all are lost. Exercises were found by their names."]
    told = []
    there = released.sums.keys()
    if lost := [
        name for name in there if not count[name] and (name in reading.chosen or name not in reading.exercises)
    ]:
        told.append(f"Marks that are lost: {', '.join(lost)}.")
    if twice := [f"{name} ({count[name]} times)" for name in there if count[name] > 1]:
        told.append(f"Marks that stand there more than once: {', '.join(twice)}.")
    for other in others:
        if strange := [name for name in count if name in other.grade_ids and name not in there]:
            told.append(f"Cells of another chapter, {other.name}: {', '.join(strange)}.")
    return told


def _changed(released: Released, cells: Sequence[dict]) -> list[str]:
    """The course's own cells with another text, and marks of another release."""
    marked = [(grade_id(cell), cell) for cell in cells if grade_id(cell) in released.sums]
    older = {name for name, cell in marked if str(marks_of(cell).get("checksum", "")) not in ("", released.sums[name])}
    changed = {
        name
        for name, cell in marked
        if name not in older and cell["source"].strip() != released.texts.get(name, cell["source"].strip())
    }
    told = [f"Changed: {', '.join(sorted(changed))}, which grading takes from the course."] if changed else []
    if older:
        told.append(f"Of another release of the course than this copy: {', '.join(sorted(older))}.")
    return told
