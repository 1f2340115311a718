"""The teacher's guide: its commands, run line by line in an empty folder, do what it says."""

from __future__ import annotations

import csv
import re
import shlex

import pytest

from autograde import cli
from autograde.repository import ROOT

pytestmark = pytest.mark.slow
GUIDE = (ROOT / "docs/teaching.md").read_text(encoding="utf-8")
LINES = re.search(r"```bash\n(.*?)```", GUIDE, re.DOTALL)[1].splitlines()
STUDENTS = re.findall(r"^\| (\w+) \| [^|]+ \| [^|]+ \|$", GUIDE.split("## The sample class")[1], re.MULTILINE)[1:]
SECTION = "02_applications"


@pytest.fixture(scope="module")
def taught(tmp_path_factory, sandbox):
    """The folder after the guide's commands, with what they printed."""
    folder = tmp_path_factory.mktemp("teaching")
    (folder / "docs").symlink_to(ROOT / "docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in LINES:
            name, *arguments = shlex.split(line)
            assert name == "autograde" and cli.main(arguments) == 0, line
    return folder / "my_class"


def test_every_student_of_the_guide_is_graded_as_it_says(taught):
    with open(taught / "export" / SECTION / "grades.csv", newline="", encoding="utf-8") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert list(rows) == STUDENTS == ["ada", "bob", "cleo", "dan", "eve", "fay"]
    total = {student: float(row["points"]) for student, row in rows.items()}
    assert total["ada"] == float(rows["ada"]["of"]) > max(v for s, v in total.items() if s != "ada")
    assert total["eve"] > 0 and "ended itself" in rows["eve"]["what happened"]


def test_feedback_names_the_misconceptions_that_the_guide_promises(taught):
    pages = {s: (taught / "feedback" / s / SECTION / "02_sampling.html").read_text(encoding="utf-8") for s in STUDENTS}
    promised = {"bob": 3, "cleo": 2, "fay": 1}
    for student, count in promised.items():
        assert pages[student].count("our result is exactly what comes out when") == count, student
    assert "not implemented yet" in pages["dan"]
    assert not any(told in page for page in pages.values() for told in ("smallest case", "first wrong", "failing("))


def test_the_report_shows_who_resembles_whom(taught):
    page = (taught / "reports" / f"{SECTION}.html").read_text(encoding="utf-8")
    alike = page.split("resemble each other</h2>")[1].split("<h2>")[0]
    assert "<td>bob</td><td>cleo</td>" in alike
