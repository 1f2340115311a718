"""What solved chapters gave when they were run: kept in build/site/runs/, one file a chapter.

A kept run is good as long as its key fits: a digest of the chapter's code and of all that this code can reach in the
course. The words of a chapter, its cards and the place where the course is published don't count.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from autograde.exercises import names
from autograde.files import replace
from autograde.repository import ROOT

FOLDER = ROOT / "build" / "site" / "runs"
_LIBRARIES = ("torch", "transformers", "numpy", "matplotlib", "scikit-learn")
_NOT_REACHED = ("authoring", "classroom", "exercises")  # of autograde


@dataclass
class Run:
    """The outputs of a chapter's code cells by the cell's id. `failed`: which cell failed and how, else empty."""

    key: str
    outputs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failed: str = ""


def key(solved: NotebookNode) -> str:
    """The digest that a run of this notebook with solutions is kept under."""
    cells = [cell for cell in solved.cells if cell.cell_type == "code" and "bootstrap" not in cell.metadata["tags"]]
    marks = [cell.metadata.get("nbgrader", {}) for cell in cells]
    checked = {names()[mark.grade_id.removeprefix("check_")] for mark in marks if mark.get("grade")}
    return hashlib.sha256(repr(([c.source for c in cells], _code_of(frozenset(checked)))).encode()).hexdigest()[:16]


def read(path: str, folder: Path = FOLDER) -> Run | None:
    """The run of a chapter that is kept in `folder`, of whatever code; None where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Run(**json.loads((folder / f"{path}.json").read_text(encoding="utf-8")))
    return None


def kept(path: str, key: str, folder: Path = FOLDER) -> Run | None:
    """The run of a chapter that is kept under this key, or None."""
    run = read(path, folder)
    return run if run and run.key == key else None


def keep(path: str, run: Run, folder: Path = FOLDER) -> None:
    """Put a run in the place of the chapter's last one. Nobody ever reads half of it."""
    replace(folder / f"{path}.json", json.dumps(asdict(run), ensure_ascii=False, indent=1))


def outputs_of(executed: NotebookNode) -> dict[str, list[dict[str, Any]]]:
    """The outputs by cell. The ids are those of the source, also where two notebooks were run as one (pairing.py)."""
    cells = [cell for cell in executed.cells if cell.cell_type == "code"]
    return {cell.id.rpartition("-")[2]: [dict(output) for output in cell.get("outputs", [])] for cell in cells}


@functools.cache
def _code_of(chapters: frozenset[str]) -> str:
    """A digest of the course's code and data that the notebook of these exercises can reach, and of the libraries."""
    digest = hashlib.sha256(repr([importlib.metadata.version(name) for name in _LIBRARIES]).encode())
    for file in sorted(set(_reached(chapters))):
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _reached(chapters: frozenset[str]) -> Iterator[Path]:
    exercises = ROOT / "autograde" / "exercises"
    folders = [ROOT / "labkit", ROOT / "experiments", *(exercises.joinpath(*c.split(".")) for c in chapters)]
    folders += [f for f in (ROOT / "autograde").iterdir() if f.is_dir() and f.name not in _NOT_REACHED]
    yield from (ROOT / "autograde").glob("*.py")
    yield from exercises.rglob("shared.py")
    for folder in folders:
        for file in folder.rglob("*"):
            told = file.name != "chapters.json" or "start_here" in chapters  # it has every chapter's words in it
            if told and file.is_file() and "__pycache__" not in file.parts and ".part." not in file.name:
                yield file
