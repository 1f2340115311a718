"""Make an nbgrader course folder from the chapters."""

from __future__ import annotations

import os
import pathlib
import secrets

from autograde.repository import ROOT

CONFIG = """\
from autograde.nbgrader_config import configure

c = get_config()
c.CourseDirectory.course_id = "transformers"
configure(c)
"""
_README = """\
An nbgrader course folder. source/ holds every chapter with solutions; an assignment is a section.

    autograde release 02_applications             # release/ is what learners get
    autograde collect 02_applications FOLDER      # FOLDER/STUDENT/*.ipynb, or a zip of it -> submitted/
    autograde grade 02_applications               # in a sandbox, into gradebook.db
    autograde feedback 02_applications            # feedback/ is what they get back
    autograde report 02_applications              # reports/: scores, misconceptions, similarity
    autograde export 02_applications              # export/: CSV, Canvas, Moodle, Gradescope

nbgrader's own commands and formgrader work here as well, on the same gradebook.

Keep the file `secret` to yourself and keep it: the hidden tests are drawn from it, and a regrade repeats them.
"""


def make_course(folder: pathlib.Path, root: pathlib.Path = ROOT) -> list[str]:
    """Fill a new or empty folder with source/, nbgrader_config.py, a secret and a README. Returns the sections.

    Raises ValueError where the folder has something in it, or is a file.
    """
    from autograde.authoring.build import solution_notebooks

    folder = pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not an empty folder. Name a new one, so that nothing is overwritten.")
    notebooks = solution_notebooks(folder / "source", root)
    for path in notebooks:
        if path.parent == folder / "source":  # a notebook outside any section can't be an assignment's
            path.unlink()
    (folder / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    (folder / "README.md").write_text(_README, encoding="utf-8")
    handle = os.open(folder / "secret", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32) + "\n")
    return sorted({path.parent.name for path in notebooks if path.exists()})
