"""The journal of results: one line a graded submission, written once and never changed.

A grader may be killed at any moment. What stands in the journal is graded; a line that was cut off is not, and goes
when the journal is next opened for writing. Earlier results of a student stay in it: that is the history.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from autograde.classroom.folder import Course

NOTHING = "handed in nothing"  # what is told of a student who is in no journal


class Journal:
    """The results of one section. As a context manager it is open for writing, for one grader at a time."""

    def __init__(self, course: Course, section: str):
        self.path = course.root / "results" / f"{section}.jsonl"
        self._file = None

    def __enter__(self) -> Journal:
        """Raises ValueError where another grader has it."""
        import fcntl  # Windows has none; reading results needs none

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 - closed in __exit__
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ValueError(f"Another `autograde grade` works on {self.path.stem}: wait until it has ended.") from None
        self._cut(self._whole())
        return self

    def __exit__(self, *error) -> None:
        self._file.close()

    def add(self, result: dict) -> None:
        """Append a result, on the disk when this returns. On an OSError nothing of it stays."""
        before = self._file.seek(0, os.SEEK_END)
        try:
            line = json.dumps(result, separators=(",", ":")).encode() + b"\n"
            while line:  # a disk that is filling up takes a part first
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError:
            os.ftruncate(self._file.fileno(), before)
            raise

    def _whole(self) -> int:
        """The length of the part that ends in a whole line."""
        self._file.seek(0)
        content = self._file.read()
        return content.rfind(b"\n") + 1

    def _cut(self, size: int) -> None:
        if os.fstat(self._file.fileno()).st_size > size:
            os.ftruncate(self._file.fileno(), size)

    def entries(self) -> Iterator[dict]:
        """Every result, oldest first. A line that isn't whole is left out."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield json.loads(line)

    def latest(self) -> dict[str, dict]:
        """The last result of each student."""
        return {entry["student"]: entry for entry in self.entries()}


def exercises_of(result: dict) -> Iterator[dict]:
    """The exercises of all notebooks of a result."""
    for notebook in result["notebooks"].values():
        yield from notebook["exercises"]


def summary_of(result: dict) -> str:
    """What happened, in a line: of all that went wrong, what a teacher would look at first."""
    problems = [f"{name}: {n['problem']}" for name, n in result["notebooks"].items() if n["problem"]]
    ended = [f"{e['report']['exercise']}: {e['happened']}" for e in exercises_of(result) if e["ended"]]
    cells = [
        f"{name}, {cell['cell']}: {cell['happened'].splitlines()[-1]}"
        for name, n in result["notebooks"].items()
        for cell in n["cells"]
        if cell["happened"]
    ]
    noted = [f"{e['report']['exercise']}: {e['happened']}" for e in exercises_of(result) if e["happened"]]
    odd = {name: [*n.get("suspicions", ()), *n["remarks"]] for name, n in result["notebooks"].items()}
    remarks = [f"{name}: {'; '.join(told)}" for name, told in odd.items() if told]
    told = problems + ended + cells + noted + remarks
    return " | ".join(line.replace("\n", " ") for line in told[:3]) if told else "graded"
