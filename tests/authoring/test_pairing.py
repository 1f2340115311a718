"""Two notebooks run as one: each sees what it would see on its own, and what is wrong in either comes out."""

from __future__ import annotations

import json
import re

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from toy_course import CHECK, EXERCISE, GOOD, HEADER, course

from autograde.authoring.build import released, sources
from autograde.authoring.pairing import RUNS, paired, split

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm")]
UNRUN = re.compile(r"(<p [^>]*><strong>)?The last version of the cell.*?the older one\.(</strong></p>|\\n\\n)")
TAG = '# %% tags=["{}"]\n{}\n\n'


def payoff(text: str) -> str:
    return TAG.format("payoff", text)


def demo(text: str) -> str:
    return TAG.format("demo", text)


def notebooks(folder, text: str) -> dict:
    """The released and the solved notebook of a chapter."""
    (solved,) = sources(course(folder, text)).values()
    return {"released": released(solved), "solved": solved}


def run(notebook, folder):
    place = {"metadata": {"path": folder}}
    return NotebookClient(notebook, timeout=100, kernel_name="python3", resources=place).execute()


def together(folder, text: str) -> dict:
    """Both notebooks, run as one."""
    return split(run(paired(**notebooks(folder, text)), folder))


def told(cell) -> list:
    """What a cell gave, without what differs from run to run: its number, paths in warnings and tracebacks.

    What it printed is one text, since a busy kernel may send it in pieces. A kernel of two runs has seen two cells with
    one exercise, and a check may say that the last one did not run.
    """
    shown = [output for output in cell.outputs if output.output_type != "stream"]
    kept = [{key: output[key] for key in output if key not in ("execution_count", "traceback")} for output in shown]
    return [printed_by(cell), *(UNRUN.sub("", json.dumps(each, sort_keys=True)) for each in kept)]


def printed_by(cell) -> str:
    return "".join(output.text for output in cell.get("outputs", []) if output.get("name") == "stdout").strip()


def printed(notebook) -> list[str]:
    """What the cells printed, one after the other."""
    return [text for text in map(printed_by, notebook.cells) if text]


FULL = (
    HEADER
    + demo("torch.manual_seed(1)\ndice = torch.Generator().manual_seed(0)\nsize = 3\ndef told():\n    return size")
    + EXERCISE
    + CHECK
    + payoff("drawn = torch.rand(5, generator=dice)\nsize, best = 5, softmax(drawn).max()\nprint(best)")
    + payoff("torch.rand(7)\nprint(best)")
    + payoff("try:\n    softmax(torch.ones(2))\nexcept NotImplementedError:\n    1 / 0")
    + payoff("print('no exercise')")
    + demo("print(told())")
    + demo("size = 3")
    + demo("print(told(), torch.rand(1), torch.rand(1, generator=dice))\ndel dice")
    + payoff("print(size, 'dice' in globals(), len(drawn))\nsoftmax(torch.ones(2))")
)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """FULL's two notebooks: (each run on its own, both run as one)."""
    folder = tmp_path_factory.mktemp("full")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_NO_PROGRESS", "1")
        alone = {kind: run(notebook, folder) for kind, notebook in notebooks(folder, FULL).items()}
        return alone, together(folder, FULL)


@pytest.mark.parametrize("kind", RUNS)
def test_each_gives_what_it_gives_on_its_own(full, kind):
    """Text, points, errors and the sentences of open payoffs. A demo that draws after a payoff draws as if solved."""
    alone, both = ([cell for cell in made[kind].cells if cell.cell_type == "code"] for made in full)
    for mine, its in zip(both, alone, strict=True):
        if kind == "solved" or "torch.rand(1)" not in mine.source:
            assert told(mine) == told(its), mine.source


def test_each_sees_its_own_names(full):
    """A payoff's are not there in the release; a demo that sees one, here through a function, runs in each."""
    released, solved = (printed(full[1][kind]) for kind in RUNS)
    assert [released[0], released[1], released[3]] == ["no exercise", "3", "3 False 5"]
    assert [solved[2], solved[3], solved[5]] == ["no exercise", "5", "3 False 5"]
    assert released[2] == solved[4]


def test_an_error_with_nothing_solved_comes_out(full):
    """Also one that isn't the stub's, which no sentence stands in for; and that a payoff raises nothing."""
    payoffs = [cell for cell in full[1]["released"].cells if "payoff" in cell.metadata.tags]
    names = [[output.get("ename") for output in cell.outputs] for cell in payoffs]
    stub = "NotImplementedError"
    assert names == [[stub], ["NameError"], ["ZeroDivisionError"], [None], [None, stub]]


def test_what_both_have_in_common_runs_once(tmp_path):
    made = paired(**notebooks(tmp_path, FULL))
    kinds = [(cell.metadata.tags[0], len(cell.metadata.runs)) for cell in made.cells if "runs" in cell.metadata]
    once = ["bootstrap", "setup", "demo", "payoff", "demo", "demo"]
    assert [kind for kind, runs in kinds if runs == 2] == once


def test_a_demo_that_leans_on_an_exercise_fails(tmp_path):
    """Where its source doesn't tell; where it does, the build refuses it."""
    with pytest.raises(CellExecutionError, match="softmax"):
        together(tmp_path, GOOD + demo("globals()['softmax'](torch.ones(2))"))


def test_a_demo_that_leans_on_a_payoff_fails(tmp_path):
    with pytest.raises(CellExecutionError, match="best"):
        together(tmp_path, GOOD + payoff("best = softmax(torch.ones(2))") + demo("print(globals()['best'])"))


def test_a_demo_that_leans_on_what_a_payoff_changed_fails(tmp_path):
    text = HEADER + demo("net = torch.nn.Linear(2, 2)") + EXERCISE + CHECK
    text += payoff("softmax(torch.ones(2))\nnet.eval()") + demo("print(net)")
    with pytest.raises(CellExecutionError, match="net"):
        together(tmp_path, text)


def test_an_error_with_everything_solved_fails_though_the_cell_may_raise(tmp_path):
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        together(tmp_path, GOOD + payoff("softmax(torch.ones(2))\n1 / 0"))


def test_the_notebooks_stay_as_they_are(tmp_path):
    both = notebooks(tmp_path, GOOD)
    before = {kind: nbformat.writes(notebook) for kind, notebook in both.items()}
    paired(**both)
    assert {kind: nbformat.writes(notebook) for kind, notebook in both.items()} == before
