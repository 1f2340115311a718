"""`autograde collect`: from what a learning platform hands out to submitted/STUDENT/SECTION/.

Which notebook a file is, the grade ids inside say; whose it is, the path and the roster. Every file of the source ends
in one line. A student's earlier submission moves to history/ before a new one takes its place.
"""

from __future__ import annotations

import datetime
import functools
import os
import pathlib
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from autograde.classroom.folder import Course
from autograde.classroom.layouts import Clue, layout
from autograde.classroom.roster import Roster, names_of
from autograde.classroom.source import File, files_of
from autograde.classroom.submission import Outline, Unreadable, cells_of, grade_id, sources_of
from labkit.notebook import Reading

_COPIES = re.compile(r"^copy of |[ _-]*(?:\(\d+\)|-?copy ?\d*|-\d+)$", re.IGNORECASE)
_STAMP = "%Y-%m-%d %H:%M:%S.%f UTC"


@dataclass
class Collected:
    """What came of it: students with something new and those whose files were there already, and the files.

    `taken` and `left_out` have one line a file.
    """

    new: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Notebook:
    """A file that is one of the section's notebooks, and a student's."""

    file: File
    waits: pathlib.Path  # where its content is
    student: str
    name: str
    time: datetime.datetime  # with its zone
    remark: str


def collect(course: Course, section: str, source: pathlib.Path, encoding: str = "") -> Collected:
    """Copy submissions into the course folder. Raises ValueError where `source` can't be read at all."""
    with tempfile.TemporaryDirectory() as beside:
        return _Collecting(course, section, pathlib.Path(source), pathlib.Path(beside)).collect(encoding)


class _Collecting:
    """Sorts the files of one source. The notebooks of a large class wait in a folder beside, not in memory."""

    def __init__(self, course: Course, section: str, source: pathlib.Path, beside: pathlib.Path):
        self.course, self.section, self.source, self.beside = course, section, source, beside
        self.outlines = course.outlines(section)
        self.roster = Roster(course)
        self.result = Collected()
        self.stamps: dict[pathlib.PurePosixPath, datetime.datetime] = {}

    def collect(self, encoding: str) -> Collected:
        notebooks: dict[pathlib.PurePosixPath, tuple[File, Outline, str]] = {}
        for file in files_of(self.source, encoding):
            of, why = self._notebook(file)
            if of is None:
                self._leave(file, why)
            elif file.path in notebooks:
                self._leave(file, "the archive has another file of this name")
            else:
                (self.beside / str(len(notebooks))).write_bytes(file.content)
                notebooks[file.path] = replace(file, content=b""), of, why
        ours = [self.section, *(of.name for of in self.outlines)]
        clues = layout(notebooks, ours, names_of(self.roster.rows))
        found: dict[str, dict[str, list[_Notebook]]] = defaultdict(lambda: defaultdict(list))
        for number, (path, (file, of, problem)) in enumerate(notebooks.items()):
            student, why = self.roster.find(clues[path], self.section) if path in clues else ("", _NOBODY)
            if student:
                waits = self.beside / str(number)
                found[student][of.name].append(self._handed_in(file, waits, student, of.name, clues[path], problem))
            else:
                self._leave(file, why)
        if self.roster.rows:
            self.roster.save()
        for student in sorted(found):
            self._put({name: self._newest(several) for name, several in found[student].items()})
        return self.result

    def _leave(self, file: File, why: str) -> None:
        self.result.left_out.append(f"{_quoted(file.path)}: {why}")

    def _notebook(self, file: File) -> tuple[Outline | None, str]:
        """(the notebook of the section that a file is, why it can't be read) or (None, why it is none)."""
        name = file.path.name
        if file.problem:
            return None, file.problem
        if "__MACOSX" in file.path.parts or name.startswith("._") or name == ".DS_Store":
            return None, "macOS's own notes on a file"
        if ".ipynb_checkpoints" in file.path.parts:
            return None, "Jupyter's own copy of a notebook, not what was handed in"
        if name == "timestamp.txt":
            return None, self._stamp(file)
        if not name.casefold().endswith(".ipynb"):
            return None, "no notebook; grading takes .ipynb files alone"
        try:
            return self._known(cells_of(sources_of(file.content)))
        except Unreadable as error:
            of = next((of for of in self.outlines if _plain(name).endswith(_plain(of.name))), None)
            return of, f"{'but it' if of else 'it'} can't be read, ask for another copy: {error}"

    def _known(self, cells: Sequence[dict]) -> tuple[Outline | None, str]:
        """The notebook whose exercises are in these cells: by their marks, else by the names that they define."""
        if best := by_marks(self.outlines, cells):
            return best, ""
        here = {grade_id(cell) for cell in cells}
        if section := next((name for name, exercises in self.others.items() if here & exercises), ""):
            return None, f"a notebook of {section}: collect it with `autograde collect {section}`"
        if best := by_names(self.outlines, cells):
            return best, ""
        return None, f"no exercise of {self.section} is in it"

    @functools.cached_property
    def others(self) -> dict[str, set[str]]:
        """Other section -> the marks of its exercises."""
        sources = self.course.root / "source"
        others = [n for n in self.course.sections() if n != self.section and any((sources / n).glob("*.ipynb"))]
        return {name: set().union(*map(_exercises, self.course.outlines(name))) for name in others}

    def _stamp(self, file: File) -> str:
        found = _read_stamp(file.content[:100].decode("ascii", "replace").strip())
        if not found:
            return "no time of a submission could be read in it"
        self.stamps[file.path.parent] = found[0]
        return "read as the time of the submission beside it"

    def _handed_in(
        self, file: File, waits: pathlib.Path, student: str, name: str, clue: Clue, problem: str
    ) -> _Notebook:
        """With its time: what the path says, or a time stamp beside it, or the file's own."""
        beside = next((self.stamps[folder] for folder in file.path.parents if folder in self.stamps), None)
        time, remarks = clue.time or beside or file.time, [problem]
        if time is None:
            time = datetime.datetime.fromtimestamp(self.source.stat().st_mtime)
            remarks.append("the archive has no time of it, so that of the archive counts")
        if clue.late:
            remarks.append(f"{clue.platform} calls it late")
        if self.roster.listed and not self.roster.row(student).get("listed"):
            remarks.append("who is not in the roster")
        return _Notebook(file, waits, student, name, time.astimezone(datetime.UTC), "; ".join(filter(None, remarks)))

    def _newest(self, several: Sequence[_Notebook]) -> _Notebook:
        """Of several for one place the newest; the others are told."""
        newest = max(several, key=lambda one: (one.time, str(one.file.path)))
        for one in several:
            if one is not newest:
                told = f"{_quoted(newest.file.path)} of {newest.time:%d %b %H:%M} UTC"
                self._leave(one.file, f"{one.student} has a newer {one.name}, {told}")
        return newest

    def _put(self, notebooks: dict[str, _Notebook]) -> None:
        """Store one student's notebooks, except what is there already or is older than that."""
        student = next(iter(notebooks.values())).student
        folder = self.course.root / "submitted" / student / self.section
        if folder.is_symlink() or folder.parent.is_symlink():
            raise ValueError(f"{folder} is a link. Remove it: submissions are kept in the course folder itself.")
        new = {}
        for name, one in sorted(notebooks.items()):
            path = folder / f"{name}.ipynb"
            there = path.is_file() and not path.is_symlink()
            if there and path.read_bytes() == one.waits.read_bytes():
                self._take(one, "it is here already")
            elif there and path.stat().st_mtime > one.time.timestamp() + 1:
                kept = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
                told = f"{student}'s {name} of {kept:%d %b %H:%M} UTC is newer and was collected before"
                self._leave(one.file, f"{told}; remove that to take this one")
            else:
                new[name] = one
                self._take(one, f"handed in {one.time:%d %b %Y %H:%M} UTC")
        if new:
            self._store(folder, new)
        (self.result.new if new else self.result.same).append(student)

    def _take(self, one: _Notebook, told: str) -> None:
        more = f"; {one.remark}" if one.remark else ""
        self.result.taken.append(f"{one.student}, {one.name}: {_quoted(one.file.path)}, {told}{more}")

    def _store(self, folder: pathlib.Path, files: dict[str, _Notebook]) -> None:
        beside = folder.parent / f".{self.section}.new"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        times = [one.time for one in files.values()]
        if folder.is_dir():
            for path in folder.glob("*.ipynb"):  # what isn't handed in again stays
                if path.stem not in files and not path.is_symlink():
                    shutil.copy2(path, beside)
                    times += _read_stamp(self.course.submitted_at(folder.parent.name, self.section))
        for name, one in files.items():
            path = beside / f"{name}.ipynb"
            shutil.copyfile(one.waits, path)
            os.utime(path, (one.time.timestamp(), one.time.timestamp()))
        (beside / "timestamp.txt").write_text(f"{max(times):{_STAMP}}\n", encoding="ascii")
        if folder.is_dir():
            kept = self.course.root / "history" / folder.parent.name / self.section
            kept.mkdir(parents=True, exist_ok=True)
            now = datetime.datetime.now(datetime.UTC)
            os.rename(folder, kept / f"before-{now:%Y%m%d-%H%M%S-%f}")
        os.rename(beside, folder)


_NOBODY = (
    "no folder with a student's name, and the name of the file says none: put it in a folder named like the student"
)


def _read_stamp(text: str) -> list[datetime.datetime]:
    """The time in a timestamp.txt, Sakai's or nbgrader's, or none."""
    utc = text.endswith(" UTC")
    try:
        if re.fullmatch(r"\d{17}", text):
            return [datetime.datetime.strptime(text[:14], "%Y%m%d%H%M%S").astimezone(datetime.UTC)]
        time = datetime.datetime.fromisoformat(text.removesuffix(" UTC"))
    except ValueError:
        return []
    return [time.replace(tzinfo=datetime.UTC) if utc else time.astimezone(datetime.UTC)]


def by_marks(outlines: Sequence[Outline], cells: Sequence[dict]) -> Outline | None:
    """The notebook of which most marks are in these cells, or None."""
    here = {grade_id(cell) for cell in cells}
    return _most(outlines, lambda of: len(here & _exercises(of)))


def by_names(outlines: Sequence[Outline], cells: Sequence[dict]) -> Outline | None:
    """The notebook of whose exercises most are defined in these cells, or None."""
    return _most(outlines, lambda of: len(Reading(cells, sorted(of.points)).chosen))


def _most(outlines: Sequence[Outline], count) -> Outline | None:
    best = max(outlines, key=count)
    return best if count(best) else None


def _exercises(of: Outline) -> set[str]:
    return {name for name in of.grade_ids if name in of.points or name.removeprefix("check_") in of.points}


def _plain(name: str) -> str:
    """A notebook's name without what copying and platforms add to it."""
    name = name.removesuffix(".ipynb").casefold()
    while (shorter := _COPIES.sub("", name)) != name:
        name = shorter
    return name


def _quoted(path: pathlib.PurePosixPath) -> str:
    return f'"{path}"' if str(path).isprintable() else repr(str(path))
