"""Whose a file is, and when it was handed in: what the paths of each platform's archives say.

Canvas       smithjane_LATE_4711_90210_work.ipynb                   all files side by side
Blackboard   Homework 2_jsmith_attempt_2026-11-01-10-00-00_work.ipynb
Moodle       Jane Smith_4711_assignsubmission_file_/work.ipynb      or side by side
Sakai        Homework 2/Smith, Jane(jsmith)/Submission attachment(s)/work.ipynb
Brightspace  4711-90210 - Jane Smith - Nov 1, 2026 1000 AM/work.ipynb
nbgrader     jsmith+02_applications+2026-11-01 10:00:00 UTC+x7/work.ipynb, the exchange's inbound folder
Classroom    Jane Smith - work.ipynb                                Google Drive's archive of the assignment
folders      jsmith/work.ipynb, whatever stands above the students' folders
"""

from __future__ import annotations

import datetime
import pathlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

Path = pathlib.PurePosixPath


@dataclass(frozen=True)
class Clue:
    """What a path says. `numbers` are the platform's own (roster column -> value); `name` may be any order of names.

    `time` is None where the path doesn't say it, and has a zone only where the path says that.
    """

    platform: str
    login: str = ""
    name: str = ""
    numbers: tuple[tuple[str, str], ...] = ()
    time: datetime.datetime | None = None
    late: bool = False
    file: str = ""


_MOODLE = re.compile(r"(?P<name>.+)_(?P<number>\d+)_assignsubmission_[a-z]+_?(?P<file>.*)", re.DOTALL)
_CANVAS = re.compile(r"(?P<login>[^_]+)(?P<late>_LATE)?_(?P<number>\d+)_\d+_(?P<file>.+)")
_BLACKBOARD = re.compile(r"(?P<login>.+)_attempt_(?P<time>\d{4}(?:-\d\d){5})(?:_(?P<file>.+)|\.txt)")
_BRIGHTSPACE = re.compile(
    r"(?P<number>\d+)-\d+ ?- ?(?P<name>.+?) ?- ?"
    r"(?P<time>(?:[^\W\d]+\.? \d{1,2}|\d{1,2} [^\W\d]+\.?),? \d{4} \d{3,4}(?: ?[AP]M)?)(?: - (?P<file>.+))?"
)
_EXCHANGE = re.compile(r"(?P<login>[^+]+)\+[^+]+\+(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? \w+)(?:\+[^+]*)?")
_SAKAI = re.compile(r"(?P<name>.+?) ?\((?P<login>[^()]+)\)")
_CLASSROOM = re.compile(r"(?P<name>.+?) - (?P<file>.+\.ipynb)", re.IGNORECASE)
_TIMES = ("%b %d %Y %I%M %p", "%b %d %Y %H%M", "%d %b %Y %I%M %p", "%d %b %Y %H%M")


def layout(paths: Iterable[Path], ours: Sequence[str], known: Iterable[str] = ()) -> dict[Path, Clue]:
    """path -> what it says about each, for the notebooks of a source. A path that says nothing is left out.

    ours:  names of folders that are no student's: the section's
    known: logins that may stand in a path
    """
    paths, known = list(paths), set(known)
    found = {path: clue for path in paths if (clue := _by_folder(path))}
    rest = [path for path in paths if path not in found]
    flat = _side_by_side(rest)
    for platform in (_canvas, _classroom):
        clues = {path: clue for path in flat if (clue := platform(path))}
        if clues and 2 * len(clues) >= len(flat):
            found |= clues
            break
    found |= _in_folders([path for path in rest if path not in found], ours, known)
    return _blackboard_logins(found, known)


def _by_folder(path: Path) -> Clue | None:
    """What the first part of a path that has a platform's shape says."""
    for number, part in enumerate(path.parts):
        below, stem = path.parts[number + 1 :], part.removesuffix(".zip")
        if found := _MOODLE.fullmatch(part):
            return Clue("Moodle", name=found["name"], numbers=(("participant", found["number"]),), file=found["file"])
        if found := _BLACKBOARD.fullmatch(part):
            time = datetime.datetime.strptime(found["time"], "%Y-%m-%d-%H-%M-%S")
            return Clue("Blackboard", login=found["login"], time=time, file=found["file"] or "")
        if found := _BRIGHTSPACE.fullmatch(stem):
            numbers = (("brightspace_id", found["number"]),)
            return Clue("Brightspace", "", found["name"], numbers, _time(found["time"]), file=found["file"] or "")
        if found := _EXCHANGE.fullmatch(part):
            time = datetime.datetime.fromisoformat(found["time"].rpartition(" ")[0])
            utc = found["time"].endswith("UTC")
            return Clue("nbgrader", found["login"], time=time.replace(tzinfo=datetime.UTC) if utc else time)
        if below and (found := _SAKAI.fullmatch(stem)) and below[0].startswith("Submission attachment"):
            return Clue("Sakai", found["login"], found["name"])
    return None


def _side_by_side(paths: Sequence[Path]) -> list[Path]:
    """The paths, where all of them (each with what it unpacked to) stand in one folder."""
    tops = {path: next((p for p in [*path.parents][::-1] if p.name.endswith(".zip")), path) for path in paths}
    return list(paths) if len({top.parent for top in tops.values()}) == 1 else []


def _canvas(path: Path) -> Clue | None:
    for part in path.parts:
        if found := _CANVAS.fullmatch(part):
            numbers = (("canvas_id", found["number"]),)
            return Clue("Canvas", found["login"], found["login"], numbers, late=bool(found["late"]), file=found["file"])
    return None


def _classroom(path: Path) -> Clue | None:
    found = _CLASSROOM.fullmatch(path.name)
    return Clue("Google Classroom", name=found["name"], file=found["file"]) if found else None


def _in_folders(paths: Sequence[Path], ours: Sequence[str], known: set[str]) -> dict[Path, Clue]:
    """Folders (or archives) a student: who is known, else the first level on which there are several folders.

    Where there are never several, the one that is nearest to the notebooks and not named like an assignment.
    """
    common = {name.casefold() for name in ours} | {"submissions", "submitted", "inbound", "assignments", "homework"}
    folders = {}
    for path in paths:
        parts = [part.removesuffix(".zip") for part in path.parts[:-1]]
        folders[path] = [part for part in parts if part.casefold() not in common]
    deepest = max(map(len, folders.values()), default=0)
    levels = [{parts[n] for parts in folders.values() if len(parts) > n} for n in range(deepest)]
    shallow = min((len(parts) for parts in folders.values() if parts), default=1) - 1
    level = next((n for n, names in enumerate(levels) if len(names) > 1), shallow)
    found = {}
    for path, parts in folders.items():
        names = [part for part in parts if part in known] or parts[level : level + 1]
        if names:
            found[path] = Clue("folders", names[0], names[0])
    return found


def _time(text: str) -> datetime.datetime | None:
    words = re.sub(r"(?<=\d)(?=[AP]M$)", " ", text.replace(",", "").replace(".", "")).split()
    words = [word[:3] if word[:1].isalpha() and len(word) > 3 else word for word in words]
    words = [word.zfill(4) if word.isdigit() and len(word) == 3 else word for word in words]
    for shape in _TIMES:
        try:
            return datetime.datetime.strptime(" ".join(words), shape)
        except ValueError:
            continue
    return None


def _blackboard_logins(found: dict[Path, Clue], known: set[str]) -> dict[Path, Clue]:
    """Blackboard writes the assignment before the login, and both may hold underscores: the roster knows, or the rest.

    Without a roster the assignment is what the most files begin with.
    """
    mine = {path: clue.login.split("_") for path, clue in found.items() if clue.platform == "Blackboard"}
    heads = Counter("_".join(words[:n]) for words in mine.values() for n in range(1, len(words)))
    most = max(heads.values(), default=0)
    head = max((h for h, count in heads.items() if count == most and most > 1), key=len, default="")
    for path, words in mine.items():
        ends = ["_".join(words[n:]) for n in range(len(words))]
        login = next((end for end in ends if end in known), words[-1])
        if login not in known and head and "_".join(words).startswith(f"{head}_"):
            login = "_".join(words).removeprefix(f"{head}_")
        found[path] = replace(found[path], login=login)
    return found
