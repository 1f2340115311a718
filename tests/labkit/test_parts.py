"""`own` gives a chapter the learner's earlier solutions, and says in one line when it can't."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

import labkit.parts
from autograde.authoring.build import solution_notebooks
from autograde.repository import ROOT
from labkit import PartMissing, own

SETUP = "import math\nfrom autograde import check\nimport labkit"
STUB = 'def twice(x):\n    """Doubles."""\n    # YOUR CODE HERE\n    raise NotImplementedError\n'
TWICE = 'print("not run")\n\ndef twice(x):\n    return x * FACTOR\n\nFACTOR = int(math.sqrt(4))\ntwice.run = 1 / 0\n'
FOUR_TIMES = "def four_times(x):\n    return twice(twice(x))\n"
REAL = [
    ("scaled_dot_product_attention", "01_transformer/01_attention"),
    ("apply_rope", "01_transformer/04_rope"),  # calls rope_angles, an earlier exercise
    ("rms_norm", "01_transformer/05_normalization"),
    ("swiglu", "01_transformer/07_training_recipe"),
    ("warmup_cosine_lr", "01_transformer/07_training_recipe"),
]


def cell(source, name=None, solution=True):
    marks = {"grade_id": name, "solution": solution, "grade": False} if name else None
    metadata = {"nbgrader": marks} if marks else {}
    return {"cell_type": "code", "metadata": metadata, "source": source.splitlines(keepends=True)}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes one_section/a_chapter.ipynb with these solution cells, and works in another section beside it."""

    def write(**solutions):
        cells = [cell(SETUP, "setup", solution=False), cell("raise SystemExit('a demo')")]
        cells += [cell(source, name) for name, source in solutions.items()]
        folder = tmp_path / "one_section"
        folder.mkdir(exist_ok=True)
        (folder / "a_chapter.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4}))

    other = tmp_path / "another_section"
    other.mkdir()
    monkeypatch.chdir(other)
    monkeypatch.setattr(labkit.parts, "_REPOSITORY", tmp_path / "nowhere")
    return write


def half_of_four(x):
    return x * 2


def test_a_solution_is_run_with_its_imports_and_what_it_calls_and_nothing_else(write, capsys):
    write(twice=TWICE.replace("twice.run = 1 / 0", ""), four_times=FOUR_TIMES, broken="1 / 0\ndef broken(: pass")
    assert own("four_times", "one_section/a_chapter")(3) == 12
    assert capsys.readouterr().out == "four_times: yours, from one_section/a_chapter.ipynb.\n"


@pytest.mark.parametrize(
    ("solutions", "name", "told"),
    [
        ({"twice": STUB}, "twice", "twice isn't solved yet in one_section/a_chapter.ipynb"),
        ({"twice": STUB, "four_times": FOUR_TIMES}, "four_times", "four_times calls it"),
        ({"twice": TWICE}, "thrice", "has no exercise thrice"),
        ({"twice": TWICE}, "twice", "raises ZeroDivisionError"),
        ({"twice": "def twice(x:"}, "twice", "raises SyntaxError"),
        ({"twice": "def double(x): return 2 * x"}, "twice", "defines no twice"),
        ({"twice": "twice = 2"}, "twice", "is no function"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_sentence(write, capsys, solutions, name, told):
    write(**solutions)
    with pytest.raises(PartMissing, match=told) as error:
        own(name, "one_section/a_chapter")
    assert "\n" not in str(error.value) and str(error.value).endswith(".")
    assert own(name, "one_section/a_chapter", fallback=half_of_four) is half_of_four
    assert told in capsys.readouterr().out


def test_a_missing_or_damaged_notebook_is_told(write, tmp_path):
    with pytest.raises(PartMissing, match="There is no notebook one_section/a_chapter.ipynb"):
        own("twice", "one_section/a_chapter")
    write()
    for text in ("{", "[]", '{"cells": 3}', '{"cells": [1]}'):
        (tmp_path / "one_section/a_chapter.ipynb").write_text(text)
        with pytest.raises(PartMissing, match="can't be read"):
            own("twice", "one_section/a_chapter")


@pytest.mark.parametrize("wrong", ["3 * x", "x[:1]", "None", "undefined"])
def test_a_solution_that_disagrees_on_the_example_is_not_used(write, capsys, wrong):
    write(twice=f"def twice(x):\n    return {wrong}\n")
    found = own("twice", "one_section/a_chapter", fallback=half_of_four, example=(torch.ones(2),))
    assert found is half_of_four and "the library's, because twice in" in capsys.readouterr().out
    write(twice="def twice(x):\n    return x + x\n")
    assert own("twice", "one_section/a_chapter", half_of_four, (torch.ones(2),)) is not half_of_four
    with pytest.raises(ValueError, match="fallback"):
        own("twice", "one_section/a_chapter", example=(1,))


def test_the_notebook_may_lie_below_the_working_folder(write, tmp_path, monkeypatch):
    write(twice="def twice(x):\n    return x + x\n")
    monkeypatch.chdir(tmp_path)
    assert own("twice", "one_section/a_chapter")(2) == 4


def test_the_courses_own_solutions_are_found_and_the_released_stubs_are_not(tmp_path, monkeypatch):
    solution_notebooks(tmp_path)
    monkeypatch.chdir(tmp_path / "01_transformer")
    found = {name: own(name, notebook) for name, notebook in REAL}
    q, k, v = torch.randn(3, 2, 5, 8)
    torch.testing.assert_close(
        found["scaled_dot_product_attention"](q, k, v), torch.nn.functional.scaled_dot_product_attention(q, k, v)
    )
    assert found["apply_rope"](q, torch.arange(5)).shape == q.shape
    assert found["warmup_cosine_lr"](10, 1.0, 10, 20) == 1.0
    monkeypatch.chdir(ROOT)
    for name, notebook in REAL:
        with pytest.raises(PartMissing, match="isn't solved yet"):
            own(name, notebook)


def test_labkit_brings_no_autograde_along():
    use = f"labkit.own('rms_norm', {REAL[2][1]!r}, fallback=abs)"
    code = f"import sys, labkit; {use}; sys.exit('autograde' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
