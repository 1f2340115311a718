"""The teacher's guide: its commands, run line by line in an empty folder, do what it says."""

from __future__ import annotations

import csv
import re
import shlex

import pytest

from autograde import cli
from autograde.exercises import order
from autograde.repository import ROOT

pytestmark = pytest.mark.slow
GUIDE = (ROOT / "docs/teaching.md").read_text(encoding="utf-8")
ONCE, AGAIN = [block.splitlines() for block in re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL)]
PENALTY = re.search(r"```python\n(.*?)```", GUIDE, re.DOTALL)[1]
STUDENTS = re.findall(
    r"^\| (\w+) \| [^|]+ \| [^|]+ \|$", GUIDE.split("## The sample class")[1].split("\n## ")[0], re.MULTILINE
)[1:]
SECTION = "02_applications"
NAMES = order("applications.sampling")


def walk(lines: list[str], folder) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in lines:
            name, *arguments = shlex.split(line)
            assert name == "autograde" and cli.main(arguments) == 0, line


@pytest.fixture(scope="module")
def taught(tmp_path_factory, sandbox):
    """The folder after the guide's commands."""
    folder = tmp_path_factory.mktemp("teaching")
    (folder / "docs").symlink_to(ROOT / "docs")
    graded = next(number for number, line in enumerate(ONCE) if line.startswith("autograde grade"))
    walk(ONCE[:graded], folder)
    for path in (folder / "my_class").glob(f"submitted/*/{SECTION}/timestamp.txt"):
        path.write_text("2026-11-02 23:00:00.000000 UTC\n", encoding="ascii")  # late in every zone: see the second walk
    walk(ONCE[graded:], folder)
    return folder / "my_class"


def rows_of(taught, name: str = "grades", key: str = "student") -> dict[str, dict[str, str]]:
    with open(taught / "export" / SECTION / f"{name}.csv", newline="", encoding="utf-8") as file:
        return {row[key]: row for row in csv.DictReader(file)}


def test_every_student_of_the_guide_is_graded_as_it_says(taught):
    rows = rows_of(taught)
    assert list(rows) == STUDENTS == ["ada", "bob", "cleo", "dan", "eve", "fay", "gus"]
    total = {student: float(row["points"]) for student, row in rows.items()}
    assert total["ada"] == float(rows["ada"]["of"]) > max(v for s, v in total.items() if s != "ada")
    assert total["eve"] > 0 and "ended itself" in rows["eve"]["what happened"]
    assert total["gus"] == 0 and rows["gus"]["what happened"] == "handed in nothing"


def test_the_platforms_files_have_their_own_ids(taught):
    canvas = rows_of(taught, "canvas", "ID")
    assert canvas["4707"]["Student"] == "Łuczak, Gus" and canvas["4701"][SECTION] == rows_of(taught)["ada"]["points"]
    assert rows_of(taught, "moodle", "ID number")["S06"]["Full name"] == "Fay O'Neil (Wray)"


def test_feedback_names_the_misconceptions_that_the_guide_promises(taught):
    pages = {
        s: (taught / "feedback" / s / SECTION / "02_sampling.html").read_text(encoding="utf-8") for s in STUDENTS[:-1]
    }
    promised = {"bob": 2, "cleo": 2, "dan": 1, "fay": 1}
    for student, count in promised.items():
        assert pages[student].count("our result is exactly what comes out when") == count, student
    assert "sample: 0 of 3 points" in pages["bob"] and "a call raised an error" in pages["bob"], "both mistakes at once"
    assert "not implemented yet" in pages["dan"]
    assert not any(told in page for page in pages.values() for told in ("smallest case", "first wrong", "failing("))


def test_the_report_shows_who_resembles_whom(taught):
    page = (taught / "reports" / f"{SECTION}.html").read_text(encoding="utf-8")
    alike = page.split("resemble each other</h2>")[1].split("<h2>")[0]
    assert "<td>bob · cleo</td>" in alike


def test_the_guide_s_second_walk_changes_what_it_says(taught):
    """Last, since it changes the class: all were late by then, but for dan, and one exercise is dropped."""
    before = rows_of(taught)
    with open(taught / "nbgrader_config.py", "a", encoding="utf-8") as file:
        file.write(PENALTY)
    walk(AGAIN, taught.parent)
    after = rows_of(taught)
    changed = {"sample": 4.0, "min_p_filter": 0.0}
    full = {name: changed.get(name, float(points)) for name, points in before["ada"].items() if name in NAMES}
    assert {float(row["of"]) for row in after.values()} == {sum(full.values())}
    assert {name: float(after["ada"][name]) for name in NAMES} == full
    assert float(after["ada"]["penalty"]) > 0 == float(after["dan"]["penalty"])
    for row in after.values():
        whole = sum(float(row[name]) for name in NAMES)
        assert float(row["points"]) == pytest.approx(whole - float(row["penalty"]), abs=1e-3)
