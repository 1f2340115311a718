"""Make an nbgrader course folder from the chapters."""

from __future__ import annotations

import os
import pathlib
import secrets
from collections.abc import Callable, Sequence

from autograde.files import replace
from autograde.repository import ROOT

CONFIG = """\
from autograde.nbgrader_config import configure

c = get_config()
c.CourseDirectory.course_id = "transformers"
configure(c)
"""
_README = """\
An nbgrader course folder. source/ holds the chapters with solutions; an assignment is a section,
or a chapter.

    autograde release 02_applications             # release/ is what learners get
    autograde roster FILE.csv                     # who is in the class: Canvas's, Moodle's, Gradescope's own list
    autograde collect 02_applications FOLDER      # a platform's zip file, or FOLDER/STUDENT/*.ipynb -> submitted/
    autograde grade 02_applications               # in a sandbox, into gradebook.db
    autograde feedback 02_applications            # feedback/ is what they get back
    autograde report 02_applications              # reports/: scores, misconceptions, similarity
    autograde export 02_applications              # export/: CSV, Canvas, Moodle, Gradescope

nbgrader's own commands and formgrader work here as well, on the same gradebook.

Keep the file `secret` to yourself and keep it: the hidden tests are drawn from it, and a regrade repeats them.
"""


def make_course(
    folder: pathlib.Path,
    root: pathlib.Path = ROOT,
    chapters: Sequence[str] = (),
    each: bool = False,
    told: Callable[[str], None] = lambda text: None,
) -> list[str]:
    """Fill a new or empty folder with source/, nbgrader_config.py, a secret and a README. Returns the assignments.

    `chapters` ("02_applications/02_sampling", or a whole section) narrows down what is in source/. An assignment is a
    section, or with `each` a chapter. Into a folder that is a course already they are added, as further assignments.
    `told` hears of each chapter as it is made.

    Raises ValueError where a chapter is unknown, an assignment is there already, or the folder is something else.
    """
    folder = pathlib.Path(folder)
    known = folder.is_dir() and (folder / "secret").is_file() and (folder / "source").is_dir()
    if folder.exists() and not (known and chapters) and (not folder.is_dir() or any(folder.iterdir())):
        more = " To add chapters to it, name them." if known else ""
        raise ValueError(f"{folder} is not an empty folder. Name a new one, so that nothing is overwritten.{more}")
    assignments = _write_source(folder / "source", root, chapters, each, told)
    if not known:
        (folder / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
        (folder / "README.md").write_text(_README, encoding="utf-8")
        handle = os.open(folder / "secret", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
    return assignments


def _write_source(
    source: pathlib.Path, root: pathlib.Path, chapters: Sequence[str], each: bool, told: Callable[[str], None]
) -> list[str]:
    """Write the wanted notebooks with solutions; gives the assignments. Only those are made, and all before any."""
    from autograde.authoring.build import as_text, sources
    from autograde.authoring.chapter import paths

    known = {path: path.split("/") for path in paths(root) if path.count("/") == 1}  # others can't be an assignment's
    names = {*known, *(section for section, _ in known.values())}
    if unknown := [name for name in chapters if name not in names]:
        raise ValueError(f"There is no chapter {unknown[0]!r}. There are {', '.join(sorted(names))}.")
    wanted = {
        path: pathlib.Path(chapter if each else section, f"{chapter}.ipynb")
        for path, (section, chapter) in known.items()
        if not chapters or {section, path} & set(chapters)
    }
    assignments = sorted({place.parts[0] for place in wanted.values()})
    if there := [name for name in assignments if (source / name).exists()]:
        raise ValueError(
            f"{source / there[0]} is there already, and an assignment that was handed in can't grow. Set further "
            "chapters as assignments of their own, with --each."
        )
    numbers = {path: number for number, path in enumerate(wanted, start=1)}
    made = sources(root, wanted, lambda path: told(f"{numbers[path]:>3}/{len(wanted)}  {path}"))
    for path, notebook in made.items():
        replace(source / wanted[path], as_text(notebook))
    return assignments
