"""A course folder as nbgrader lays it out, and what grading reads from it."""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
from collections.abc import Sequence

from autograde.classroom.submission import Outline, Unreadable, cells_of, is_safe_name, outline, read_bytes, sources_of


class Course:
    """A course folder: source/, release/, submitted/, autograded/, feedback/, results/, reports/, gradebook.db."""

    def __init__(self, root: pathlib.Path):
        """Raises ValueError where `root` is no course folder."""
        self.root = pathlib.Path(root).resolve()
        if not (self.root / "nbgrader_config.py").is_file() or not (self.root / "source").is_dir():
            raise ValueError(
                f"{self.root} is no course folder. Make one with `autograde course DIR`, and run this in it or with "
                "`--course DIR`."
            )

    @property
    def database(self) -> pathlib.Path:
        return self.root / "gradebook.db"

    @functools.cached_property
    def secret(self) -> bytes:
        """The course's secret. Raises ValueError where it is missing or empty."""
        path = self.root / "secret"
        found = path.read_bytes().strip() if path.exists() else b""
        if not found:
            raise ValueError(f"{path} is missing. Put it back: without it a regrade would draw other tests.")
        return found

    def section(self, name: str) -> str:
        """The section's full name, which may be given by its beginning ("01"). Raises ValueError."""
        known = self.sections()
        found = [k for k in known if k == name] or [k for k in known if name and k.startswith(name)]
        if len(found) != 1:
            raise ValueError(f"There is no section {name!r}. The sections are {', '.join(known)}.")
        return found[0]

    def sections(self) -> list[str]:
        """The names of all sections."""
        return sorted(p.name for p in (self.root / "source").iterdir() if p.is_dir())

    def outlines(self, section: str, notebook: str = "") -> tuple[Outline, ...]:
        """The outlines of a section's notebooks, in order. Raises ValueError where `notebook` is none of them."""
        paths = sorted((self.root / "source" / section).glob("*.ipynb"))
        if notebook:
            paths = [p for p in paths if p.stem.startswith(notebook.removesuffix(".ipynb"))]
        if not paths:
            raise ValueError(f"{section} has no notebook{f' {notebook!r}' if notebook else ''}.")
        return tuple(outline(p.stem, source_cells(p)) for p in paths)

    def students(self, section: str) -> tuple[list[str], list[str]]:
        """(those who handed something in for the section, names of folders that can't be a student's)."""
        folder = self.root / "submitted"
        names = [name for name in self.folders() if (folder / name / section).is_dir()]
        good = [n for n in names if is_safe_name(n) and not (folder / n).is_symlink()]
        return good, [n for n in names if n not in good]

    def folders(self) -> list[str]:
        """The names of the folders in submitted/, of whatever section."""
        folder = self.root / "submitted"
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    def submitted(self, student: str, section: str, names: Sequence[str]) -> tuple[dict[str, bytes], dict[str, str]]:
        """(the notebooks' bytes, why others have none) of what a student handed in."""
        contents, problems = {}, {}
        for name in names:
            path = self.root / "submitted" / student / section / f"{name}.ipynb"
            try:
                contents[name] = sources_of(read_bytes(path, self.root / "submitted"))
            except Unreadable as error:
                problems[name] = str(error) if os.path.lexists(path) else "It was not handed in."
        return contents, problems

    def submitted_at(self, student: str, section: str) -> str:
        """What nbgrader's timestamp.txt says, or an empty text."""
        path = self.root / "submitted" / student / section / "timestamp.txt"
        try:
            return read_bytes(path, self.root / "submitted")[:100].decode("ascii", "replace").strip()
        except Unreadable:
            return ""


def source_cells(path: pathlib.Path) -> list[dict]:
    """The cells of one of the course's own notebooks. Raises ValueError where it is damaged."""
    try:
        return cells_of(path.read_bytes())
    except Unreadable:
        raise ValueError(f"{path} is damaged: restore it, or make a new folder with `autograde course`.") from None


def digests_of(contents: dict[str, bytes], problems: dict[str, str]) -> dict[str, str]:
    """What tells one submission of a notebook from another, by the notebook."""
    found = {name: b"problem " + problem.encode() for name, problem in problems.items()}
    found |= {name: b"content " + content for name, content in contents.items()}
    return {name: hashlib.sha256(what).hexdigest() for name, what in found.items()}
