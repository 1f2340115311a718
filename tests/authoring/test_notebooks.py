"""Every notebook runs: the solved ones without an error, the released ones with nothing solved but the payoffs.

A chapter's two notebooks have most of their cells in common, so they run as one: autograde/authoring/pairing.py says
which cells run once and which once for each. With AUTOGRADE_APART=1 in the environment each runs on its own, from top
to bottom, in twice the time: the same tests on what a learner's kernel does.

What the solved ones gave is left for `python course.py site` (website/runs.py), which then needs to run nothing.

The first chapter of each section runs in a kernel like a learner's, the others in forks of a process that has imported
most things (warm_kernels.py). With AUTOGRADE_APART=1 or AUTOGRADE_COLD=1 all run in kernels like a learner's.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re

import nbformat
import papermill
import pytest
import warm_kernels
from real_course import chapters

from autograde.authoring import bank
from autograde.authoring.build import solution_notebooks
from autograde.authoring.pairing import paired, split
from autograde.repository import ROOT
from website.runs import Run, keep, key, outputs_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm")]
CHAPTERS = [chapter.path for chapter in chapters()]
HANGS = 600  # seconds a cell: against a hang, not a measure
COLD = {chapter.partition("/")[0]: chapter for chapter in reversed(CHAPTERS)}.values()  # the first of each section
APART = os.environ.get("AUTOGRADE_APART", "0") not in ("", "0")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """`runs(path)["solved"]` and `["released"]` are a chapter's notebooks, run once for all tests of the chapter."""
    folder = tmp_path_factory.mktemp("notebooks")
    solution_notebooks(folder / "solved")

    @functools.cache
    def runs(path: str) -> dict:
        if APART or path in COLD:
            with pytest.MonkeyPatch.context() as cold:
                cold.setenv(warm_kernels.COLD, "1")
                return run(path)
        return run(path)

    def run(path: str) -> dict:
        place = folder / path.replace("/", "-")
        place.mkdir()
        released = nbformat.read(ROOT / "notebooks" / f"{path}.ipynb", as_version=4)
        solved = nbformat.read(folder / "solved" / f"{path}.ipynb", as_version=4)
        if APART:
            made = {"released": past_payoffs(released, place), "solved": without_error(solved, place)}
        else:
            made = split(past_payoffs(paired(released, solved), place))
        with contextlib.suppress(OSError):  # the site's folder can't be written: no fault of the chapter
            keep(path, Run(key(solved), outputs_of(made["solved"])))
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_NO_PROGRESS", "1")
        # One thread a notebook: two that share two cores would wait for each other in every matrix product.
        patch.setenv("OMP_NUM_THREADS", "1")
        yield runs


def without_error(notebook, place):
    """Run a notebook with papermill, which complains of any error."""
    options = {"cwd": place, "kernel_name": "python3", "progress_bar": False, "execution_timeout": HANGS}
    out = place / "out.ipynb"
    return papermill.execute_notebook(notebook, out, request_save_on_cell_execute=False, **options)


def past_payoffs(notebook, place):
    """Run a notebook past the errors of cells that may raise: papermill goes on after them and complains at the end."""
    try:
        return without_error(notebook, place)
    except papermill.PapermillExecutionError:
        made = nbformat.read(place / "out.ipynb", as_version=4)
        strict = [cell for cell in made.cells if "raises-exception" not in cell.metadata.get("tags", [])]
        errors = [output for cell in strict for output in cell.get("outputs", []) if output.output_type == "error"]
        assert not errors, "\n".join(errors[0].traceback)
        return made


def points(notebook) -> list[tuple[float, float]]:
    """(earned, possible) of every check, in order. The last check in a cell counts, as for nbgrader."""
    found = []
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade"):
            results = [o for o in cell.outputs if o.output_type == "execute_result"]
            found.append((float(results[-1].data["text/plain"]), float(cell.metadata.nbgrader.points)))
    return found


@pytest.mark.parametrize("path", CHAPTERS)
def test_the_solution_runs_and_gets_all_points(runs, path):
    notebook = runs(path)["solved"]
    assert points(notebook)
    assert all(earned == possible for earned, possible in points(notebook)), points(notebook)


@pytest.mark.parametrize("path", CHAPTERS)
def test_the_release_runs_with_nothing_solved_and_gets_none(runs, path):
    notebook = runs(path)["released"]
    assert points(notebook)
    assert all(earned == 0.0 for earned, _ in points(notebook))


@pytest.mark.parametrize("path", CHAPTERS)
def test_an_unsolved_payoff_says_so_in_one_sentence(runs, path):
    outputs = [output for cell in runs(path)["released"].cells for output in cell.get("outputs", [])]
    errors = [output for output in outputs if output.output_type == "error"]
    here = [error for error in errors if error.ename != "RankError"]
    assert any(error.ename == "NotImplementedError" for error in here)
    assert all(len(error.traceback) == 1 and "isn't solved yet" in error.traceback[0] for error in here), here
    assert all("raised NotImplementedError" in error.evalue for error in errors if error not in here), errors


@pytest.mark.parametrize("path", CHAPTERS)
def test_every_figure_says_in_words_what_it_shows(runs, path):
    pictures = []
    for cell in runs(path)["solved"].cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            assert "image/png" not in data, "a figure without alt text: use labkit.show"
            if "<img" in data.get("text/html", ""):
                pictures.append(data["text/html"])
    assert pictures
    assert all('alt="' in picture and 'alt=""' not in picture for picture in pictures)


@pytest.mark.parametrize("path", CHAPTERS)
def test_the_verdict_of_a_run_is_the_one_of_the_question_bank(runs, path):
    claims = bank.load(ROOT).claims
    for cell in runs(path)["solved"].cells:
        for output in cell.get("outputs", []):
            text = output.get("text", "") or output.get("data", {}).get("text/plain", "")
            for claim, word in re.findall(r"^Claim ([A-Z]\d\d\.\d+): (\w+)\.", text, re.MULTILINE):
                assert word == claims[claim]["verdict"], text


@pytest.mark.parametrize("path", CHAPTERS)
def test_what_is_run_again_agrees_with_what_is_kept(runs, path):
    outputs = [output for cell in runs(path)["solved"].cells for output in cell.get("outputs", [])]
    again = [o["text"] for o in outputs if "Run again here (" in o.get("text", "")]
    assert all("They agree." in text for text in again), again
