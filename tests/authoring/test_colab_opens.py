"""A notebook opened as Colab opens it: one file alone, no nbgrader, the course fetched by its own first cell.

The kernel runs in an environment of its own with nothing but what Colab has (tests/colab.txt), what the first cell may
install, and their dependencies. Here these are links to our packages, in our versions, and pip has no index; with
AUTOGRADE_OUTSIDE=FOLDER they are Colab's versions, on its Python, and pip fetches what is lacking. Not seen at all:
Colab's own page, its other packages, GPUs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import elsewhere
import pytest
from real_course import sources

from autograde.authoring.build import as_text
from autograde.authoring.colab import LACKS
from autograde.repository import ROOT, slug

pytestmark = pytest.mark.slow
CHAPTERS = [
    "00_start_here",
    "01_transformer/01_attention",
    "02_applications/02_sampling",
    "03_data_parallel/02_all_reduce",
]
LIST = ROOT / "tests/colab.txt"


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """(a Python as Colab's, variables with which git finds the course, and that make IPython look like Colab's)."""
    folder = tmp_path_factory.mktemp("colab")
    (folder / "google/colab").mkdir(parents=True)
    (folder / "google/colab/__init__.py").touch()
    startup = folder / "ipython/profile_default/startup/colab.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("import google.colab", encoding="utf-8")
    variables = {"PYTHONPATH": str(folder), "IPYTHONDIR": str(folder / "ipython")}
    variables |= elsewhere.github(elsewhere.published(folder / "course"))
    if elsewhere.OUTSIDE:
        version = re.search(r"Python (3\.\d+)", LIST.read_text())[1]
        python = elsewhere.python_of(version)
        assert python, f"this machine has no Python {version}"
        return elsewhere.made(Path(elsewhere.OUTSIDE, "colab"), python, ["-r", str(LIST)], folder=ROOT), variables
    has = [line.partition("==")[0] for line in LIST.read_text().splitlines() if "==" in line]
    packages = elsewhere.needed([*(name for name in has if name != "pip"), *LACKS.values()])
    models = re.findall(r"^[\w-]+", (ROOT / "requirements-models.txt").read_text(), re.MULTILINE)
    # Nothing from an index: all that the first cell asks for is there. (0 means that building is not isolated.)
    variables |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    return elsewhere.linked(folder / "environment", {*packages, *models}), variables


@pytest.fixture
def fresh(colab):
    """The same, without what the notebook before has installed."""
    python, variables = colab
    pip = [str(python), "-m", "pip"]
    subprocess.run([*pip, "uninstall", "-q", "-y", "transformer-course"], capture_output=True, check=True)
    if elsewhere.OUTSIDE:
        subprocess.run([*pip, "install", "-q", "-r", str(LIST)], check=True)
    return python, variables


@pytest.mark.parametrize("path", CHAPTERS)
def test_the_file_alone_runs_and_gets_all_points(fresh, tmp_path, path):
    python, variables = fresh
    asked = "import importlib.util as u; print(*[n for n in ('autograde', 'labkit', 'nbgrader') if u.find_spec(n)])"
    found = subprocess.run([str(python), "-c", asked], cwd=tmp_path, capture_output=True, env=variables, check=True)
    assert not found.stdout.split(), "Colab has none of these"
    content = tmp_path / "content"
    content.mkdir()
    file = content / f"{path.split('/')[-1]}.ipynb"
    file.write_text(as_text(sources()[path]).replace(slug(), elsewhere.SLUG), encoding="utf-8")
    notebook = elsewhere.ran(file, [str(python)], tmp_path / "jupyter", **variables)
    earned = elsewhere.points(notebook)
    assert earned and all(got == most for got, most in earned.values()), earned
    place = subprocess.run(
        [str(python), "-c", "import autograde; print(autograde.__file__)"], cwd=tmp_path, capture_output=True, text=True
    )
    assert Path(place.stdout.strip()).is_relative_to(python.parents[1]), (
        "from the package that the first cell installed"
    )


def test_a_course_that_cannot_be_fetched_is_one_sentence(fresh, tmp_path):
    python, variables = fresh
    path = CHAPTERS[0]
    file = tmp_path / "start.ipynb"
    notebook = sources()[path]
    notebook = {**notebook, "cells": [c for c in notebook.cells if "bootstrap" in c.metadata.get("tags", [])]}
    shutil.rmtree(tmp_path / "none", ignore_errors=True)
    file.write_text(as_text(elsewhere.nbformat.from_dict(notebook)).replace(slug(), elsewhere.SLUG), encoding="utf-8")
    nowhere = {**variables, "GIT_CONFIG_KEY_0": f"url.{(tmp_path / 'none').as_uri()}.insteadOf"}
    with pytest.raises(elsewhere.CellExecutionError, match="can't be installed: check the network"):
        elsewhere.ran(file, [str(python)], tmp_path / "jupyter", **nowhere)
