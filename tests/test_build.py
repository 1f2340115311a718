"""From solutions/ to notebooks/: the same bytes each time, no leak, an error with file and cell for each mistake."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest

from autograde import cli
from autograde.authoring import build
from autograde.authoring.chapter import AuthoringError, all_chapters
from autograde.repository import ROOT

HEADER = """\
# ---
# jupyter:
#   course:
#     title: "A chapter"
#     exercises: start_here
#     questions: []
# ---

# %% [markdown]
# # A chapter

# %% tags=["setup"]
import torch
from autograde import check

"""
EXERCISE = """\
# %% exercise="softmax"
def softmax(x):
    \"\"\"Probabilities.\"\"\"
    ### BEGIN SOLUTION
    return secret_recipe(x)
    ### END SOLUTION

"""
CHECK = """\
# %% check="softmax"
check(softmax)

"""
RECIPE = '# %% tags=["setup"]\nsecret_recipe = torch.nn.functional.softmax\n\n'


def course(root: pathlib.Path, text: str, name: str = "01_one/01_chapter") -> pathlib.Path:
    """A course of one chapter below `root`."""
    path = root / "solutions" / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    (root / "interview").mkdir(exist_ok=True)
    for section in ("transformer", "applications", "data_parallel"):
        (root / "interview" / f"{section}.yaml").write_text("[]\n")
    shutil.copy(ROOT / "requirements-models.txt", root)
    return root


GOOD = HEADER + RECIPE + EXERCISE + CHECK


def test_notebooks_are_up_to_date():
    assert build.stale() == [], "run `autograde build` and commit notebooks/"


def test_building_twice_gives_the_same_bytes(tmp_path):
    root = course(tmp_path, GOOD)
    assert build.build(root) == ["01_one/01_chapter.ipynb"]
    first = (root / "notebooks/01_one/01_chapter.ipynb").read_bytes()
    assert build.build(root) == []
    (root / "notebooks/01_one/01_chapter.ipynb").unlink()
    build.build(root)
    assert (root / "notebooks/01_one/01_chapter.ipynb").read_bytes() == first
    assert b"\r" not in first


def test_a_notebook_that_no_chapter_makes_is_removed(tmp_path):
    root = course(tmp_path, GOOD)
    build.build(root)
    extra = root / "notebooks/old.ipynb"
    extra.write_text("{}")
    assert build.stale(root) == ["old.ipynb"]
    build.build(root)
    assert not extra.exists()


def test_a_change_by_hand_is_found(tmp_path):
    root = course(tmp_path, GOOD)
    build.build(root)
    path = root / "notebooks/01_one/01_chapter.ipynb"
    path.write_text(path.read_text().replace("A chapter", "My chapter"))
    assert build.stale(root) == ["01_one/01_chapter.ipynb"]


def test_nbgraders_own_release_is_the_same(tmp_path):
    """Our release is what `nbgrader generate_assignment` makes of the source."""
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    from autograde.classroom.course import make_course
    from autograde.nbgrader_config import configure

    make_course(tmp_path / "class")
    c = Config()
    c.CourseDirectory.root = str(tmp_path / "class")
    configure(c)
    section = "01_transformer"
    assert NbGraderAPI(config=c).generate_assignment(section)["success"]
    for path in (tmp_path / "class/release" / section).glob("*.ipynb"):
        theirs = [cell["source"] for cell in json.loads(path.read_text())["cells"]]
        ours = [cell["source"] for cell in json.loads((ROOT / "notebooks" / section / path.name).read_text())["cells"]]
        assert theirs == ours


@pytest.mark.parametrize("chapter", all_chapters(ROOT), ids=lambda c: c.path)
def test_no_solution_leaks_into_a_release(chapter):
    text = (ROOT / "notebooks" / f"{chapter.path}.ipynb").read_text(encoding="utf-8")
    notebook = json.loads(text)
    shown = {line.strip() for cell in notebook["cells"] for line in "".join(cell["source"]).splitlines()}
    elsewhere = {line.strip() for cell in chapter.cells if cell.kind != "exercise" for line in cell.source.splitlines()}
    secret = {line.strip() for line in build.lines_of_solutions(chapter)} - elsewhere
    leaked = {line for line in secret & shown if len(line) > 6 and not line.startswith("#")}
    assert not leaked
    assert secret, "the chapter has solutions"
    assert "HIDDEN" not in text and "hidden=True" not in text and "BEGIN SOLUTION" not in text
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    stubs = [c for c in notebook["cells"] if c["metadata"].get("nbgrader", {}).get("solution")]
    assert stubs and all("raise NotImplementedError" in "".join(cell["source"]) for cell in stubs)


@pytest.mark.parametrize("chapter", all_chapters(ROOT), ids=lambda c: c.path)
def test_a_release_has_locked_checks_with_points_and_hints(chapter):
    notebook = json.loads((ROOT / "notebooks" / f"{chapter.path}.ipynb").read_text(encoding="utf-8"))
    graded = [c["metadata"]["nbgrader"] for c in notebook["cells"] if c["metadata"].get("nbgrader", {}).get("grade")]
    assert len(graded) == len(chapter.of("exercise"))
    assert all(g["points"] > 0 and g["locked"] for g in graded)
    assert len({c["id"] for c in notebook["cells"]}) == len(notebook["cells"])
    text = json.dumps(notebook)
    assert text.count("Hint 3</summary>") == len(graded)
    assert all(question in text for question in chapter.questions)
    assert text.count("google.colab") == 1


WRONG = {
    "a missing check": (HEADER + RECIPE + EXERCISE, "exercise softmax has no check cell", 4),
    "a check of nothing": (GOOD + CHECK.replace("softmax", "other"), "checks other, which no earlier cell defines", 6),
    "two checks": (GOOD + CHECK, "is checked more than once", 4),
    "a name twice": (GOOD + EXERCISE + CHECK, "exercise softmax also stands in", 6),
    "an unknown exercise": (
        GOOD.replace("softmax", "softmix"),
        "softmix is unknown in autograde.exercises.start_here",
        4,
    ),
    "an unclosed region": (GOOD.replace("    ### END SOLUTION\n", ""), "a solution region is never closed", 4),
    "an unopened region": (GOOD.replace("    ### BEGIN SOLUTION\n", ""), "closes that was never opened", 4),
    "no region": (
        GOOD.replace("    ### BEGIN SOLUTION\n", "").replace("    ### END SOLUTION\n", ""),
        "without a solution",
        4,
    ),
    "a nested region": (
        GOOD.replace("BEGIN SOLUTION\n", "BEGIN SOLUTION\n    ### BEGIN SOLUTION\n"),
        "opens inside",
        4,
    ),
    "leaning on a demo": (GOOD.replace(RECIPE, RECIPE.replace("setup", "demo")), "leans on secret_recipe", 4),
    "a demo that leans on an exercise": (
        GOOD + '# %% tags=["demo"]\nsoftmax(torch.ones(3))\n',
        "depends on the exercise",
        6,
    ),
    "an unknown tag": (GOOD + '# %% tags=["dmeo"]\n1\n', "unknown marks ['dmeo']", 6),
    "no mark": (GOOD + "# %%\n1\n", "none of the marks", 6),
    "a syntax error": (GOOD + '# %% tags=["demo"]\nx = (1,\n', "is not Python", 6),
    "an unknown claim": (GOOD + '# %% claim="T99.1"\n1\n', "claim T99.1 is not in interview/", 6),
    "an unknown question": (GOOD.replace("questions: []", "questions: [T99]"), "question T99 is not in interview/", 0),
    "no title": (GOOD.replace('title: "A chapter"', 'title: ""'), "has no title", 0),
    "an unused exercise": (HEADER, "no cell has the exercise softmax", 0),
}


@pytest.mark.parametrize(("text", "told", "cell"), WRONG.values(), ids=list(WRONG))
def test_a_mistake_in_a_source_is_named_with_file_and_cell(tmp_path, text, told, cell):
    root = course(tmp_path, text)
    with pytest.raises(AuthoringError) as error:
        build.build(root)
    found = [problem for problem in error.value.problems if told in problem]
    assert found, error.value.problems
    assert "solutions/01_one/01_chapter.py" in found[0]
    assert not cell or f"cell {cell} " in found[0]
    assert not (root / "notebooks").exists()


def test_one_name_in_two_chapters_is_an_error(tmp_path):
    course(tmp_path, GOOD, "02_two/01_chapter")
    root = course(tmp_path, GOOD)
    with pytest.raises(AuthoringError, match="exercise softmax also stands in solutions/01_one/01_chapter.py"):
        build.build(root)


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, monkeypatch, capsys):
    root = course(tmp_path, HEADER + RECIPE + EXERCISE)
    monkeypatch.setattr(build.build, "__defaults__", (root,))
    assert cli.main(["build"]) == 1
    assert "1 to mend; nothing was written" in capsys.readouterr().err


def test_check_fails_on_a_stale_notebook(tmp_path, monkeypatch, capsys):
    root = course(tmp_path, GOOD)
    monkeypatch.setattr(build.stale, "__defaults__", (root, None))
    assert cli.main(["build", "--check"]) == 1
    assert "notebooks/01_one/01_chapter.ipynb is out of date" in capsys.readouterr().err
    build.build(root)
    assert cli.main(["build", "--check"]) == 0
