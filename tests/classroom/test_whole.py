"""`autograde submission`: what is said of notebooks as learners leave them, and of files that are none."""

from __future__ import annotations

import json
import shutil

import pytest
from test_readers import CHAPTER, NAMES, VARIANTS, Learner, handed_in
from test_readers import source as released

from autograde import cli
from autograde.classroom import whole
from autograde.classroom.whole import ODD, UNKNOWN, WHOLE, Releases, look, outline_of
from autograde.repository import ROOT

REAL = ROOT / "notebooks/02_applications/02_sampling.ipynb"
# Of test_readers.py the variants in which a mark, or a cell of the course, isn't as it was handed out.
AMISS = {
    "a_helper_in_a_check": "Changed: check_double",
    "a_helper_in_the_setup": "Changed: setup",
    "an_exercise_and_its_check_in_one_cell": "Marks that are lost: check_double",
    "a_stub_pasted_above": "more than once: double (2 times)",
    "a_stub_pasted_below": "more than once: double (2 times)",
    "copied_as_it_is": "more than once: double (2 times)",
    "cut_after_the_definition": "more than once: double (2 times)",
    "cut_between_definitions_with_marks": "more than once: double (2 times)",
    "markdown": "its cell is markdown",
    "raw": "its cell is raw",
    "solved_in_another_cell": "from a cell that has not the exercise's mark",
    "solved_twice": "it is there 2 times and the last solved one counts",
    "stripped": "Marks: all are lost",
    "stripped_with_a_helper_in_a_demo": "Marks: all are lost",
    "the_solution_in_the_check": "Changed: check_double",
    "two_exercises_in_one_cell": "it stands in the cell of double",
    "two_exercises_in_the_later_cell": "it stands in the cell of squared_double",
}


@pytest.fixture
def course(tmp_path):
    """`look` at what is handed in for a course of one chapter."""
    content = json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": released()}).encode()
    releases = Releases([outline_of(CHAPTER, NAMES)], lambda path: content)

    def looked(content: bytes, name: str = "work.ipynb"):
        (tmp_path / name).write_bytes(content)
        return look(tmp_path / name, releases)

    return looked


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_read_as_grading_reads_it(course, name):
    found = course(handed_in(name)[0])
    assert f"{CHAPTER}, 2 of 2 exercises filled in" in found.text
    assert found.code == (ODD if name in AMISS else WHOLE), found.text
    assert AMISS.get(name, "It is whole.") in found.text


def test_a_release_is_whole_and_nothing_of_it_is_filled_in():
    found = look(REAL)
    assert found.code == WHOLE and found.text.count("not started") == 5 and "0 of 5 exercises" in found.text


def test_what_is_missing_or_broken_is_named(course):
    nb = Learner()
    nb.remove("double")
    nb.write(squared_double="def squared_double(x:\n    return 4")
    found = course(nb.content())
    assert found.code == ODD and "0 of 2 exercises filled in" in found.text
    assert "Missing: double." in found.text
    assert "Its cell doesn't define it, or isn't Python: squared_double." in found.text


def test_nothing_is_run(course, tmp_path):
    nb = Learner()
    nb.put(f"open({str(tmp_path / 'ran')!r}, 'w')", before="double")
    assert course(nb.content()).code == WHOLE and not (tmp_path / "ran").exists()


def test_another_release_and_another_chapters_cells_are_told(tmp_path):
    nb = json.loads(REAL.read_text(encoding="utf-8"))
    other = json.loads((ROOT / "notebooks/01_transformer/04_rope.ipynb").read_text(encoding="utf-8"))
    check = next(c for c in nb["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id") == "check_sample")
    check["metadata"]["nbgrader"]["checksum"] = "0" * 32
    check["source"] = "check(sample, old=True)"
    nb["cells"] += [c for c in other["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id") == "apply_rope"]
    place = tmp_path / "work.ipynb"
    place.write_text(json.dumps(nb))
    found = look(place)
    assert found.code == ODD
    assert "Of another release of the course than this copy: check_sample." in found.text
    assert "Cells of another chapter, 01_transformer/04_rope: apply_rope." in found.text
    assert "Changed" not in found.text


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (b"", "work.ipynb", "The file is empty."),
        (REAL.read_bytes()[:5000], "work.ipynb", "not valid JSON"),
        (b'{"nbformat": 4, "cells": []}', "work.ipynb", "No exercise of the course is in it."),
        (b"PK", "work.zip", "`autograde collect` takes folders and zip files"),
    ],
)
def test_what_is_no_notebook_of_the_course_is_one_sentence(course, content, name, says):
    found = course(content, name)
    assert found.code == UNKNOWN and says in found.text and "\n" not in found.text


def test_several_files_and_the_exit_status(tmp_path, capsys):
    shutil.copy(REAL, tmp_path / "whole.ipynb")
    assert cli.main(["submission", str(tmp_path / "whole.ipynb")]) == WHOLE
    ada = str(ROOT / "docs/sample_class/ada/02_sampling.ipynb")
    files = [str(tmp_path / "whole.ipynb"), str(tmp_path), str(tmp_path / "none.ipynb"), ada]
    assert cli.main(["submission", *files]) == UNKNOWN
    told = capsys.readouterr().out
    assert "none.ipynb: The file can't be opened: No such file or directory." in told
    assert "5 of 5 exercises filled in" in told and "Marks that are lost: setup, check_apply_temperature" in told
    assert cli.main(["submission", ada]) == ODD


def test_without_the_courses_chapters_it_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="copy of the whole course"):
        whole._of_the_course.__wrapped__()


def test_it_is_held_against_the_release_and_not_against_the_learners_own_file(tmp_path):
    """A learner works in notebooks/ itself, so that what is missing there is missing."""
    nb = json.loads(REAL.read_text(encoding="utf-8"))
    nb["cells"] = [c for c in nb["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id") != "sample"]
    copy = tmp_path / "notebooks/02_applications/02_sampling.ipynb"
    copy.parent.mkdir(parents=True)
    copy.write_text(json.dumps(nb))
    found = look(copy)
    assert found.code == ODD and "Missing: sample." in found.text
