"""`reset`, `history` and `reveal`, in a notebook, elsewhere and by JupyterLab's buttons: nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from IPython.core.interactiveshell import InteractiveShell

import autograde
from autograde import answers, buttons, history, keeping, reference, reset, reveal
from autograde.check import check
from autograde.exercises import find
from labkit import history as kept
from labkit import progress

MINE = "def softmax(x):\n    return x.exp()\n"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "home"))
    for name in ("LABKIT_NO_PROGRESS", "JPY_SESSION_NAME", "AUTOGRADE_NO_REVEAL", "NBGRADER_EXECUTION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(progress, "_memory", {})
    monkeypatch.setattr(progress, "_tried", {})
    monkeypatch.setattr(kept, "_memory", {})
    return tmp_path / "home"


@pytest.fixture
def told(capsys):
    def read():
        return capsys.readouterr().out

    return read


def pressed(button, name, text=""):
    return json.loads(repr(buttons.press(button, name, text)))


# -- reset and history ----------------------------------------------------------------------------------------


def test_a_reset_gives_the_stub_and_keeps_the_text():
    answer = answers.brought_back("softmax", MINE)
    assert answer.code == reference.stub("softmax") and "raise NotImplementedError" in answer.code
    assert "BEGIN SOLUTION" not in answer.code and "Probabilities" in answer.code
    assert [version.text for version in kept.versions("softmax")] == [MINE]
    assert "`reset(softmax, back=1)` brings it back" in answer.says


def test_an_earlier_text_comes_back_and_the_present_one_is_kept():
    for text in ("first", "second"):
        answers.brought_back("softmax", text)
    answer = answers.brought_back("softmax", MINE, back=2)
    assert answer.code == "first"
    assert [version.text for version in kept.versions("softmax")] == ["first", "second", MINE]
    assert answers.brought_back("softmax", "first", back=1).code == MINE


@pytest.mark.parametrize("back", [1, -1, 7, "1", None, True])
def test_a_text_that_is_not_there_is_told(back):
    answer = answers.brought_back("softmax", MINE, back=back)
    assert answer.code is None and "nothing of softmax" in answer.says and not kept.versions("softmax")


def test_a_stub_is_not_put_away():
    stub = reference.stub("softmax")
    assert "Nothing was changed" in answers.brought_back("softmax", stub + "\n").says
    assert answers.brought_back("softmax", "").code == stub
    assert not kept.versions("softmax")


def test_a_text_that_cannot_be_kept_is_not_replaced(monkeypatch):
    monkeypatch.setattr(kept, "MOST_TEXT", 10)
    answer = answers.brought_back("softmax", MINE)
    assert answer.code is None and "nothing was changed" in answer.says


def test_on_a_disk_that_cannot_be_written_it_says_for_how_long_the_text_is_kept(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "file" / "below"))
    assert "as long as this kernel runs" in answers.brought_back("softmax", MINE).says
    assert answers.brought_back("softmax", "", back=1).code == MINE


def test_an_exercise_without_a_stub_is_told(monkeypatch):
    monkeypatch.setattr(reference, "_cells", dict)
    answer = answers.brought_back("softmax", MINE)
    assert answer.code is None and answer.says.endswith("Nothing was changed.")


def test_outside_a_notebook_the_stub_is_printed(told):
    reset("softmax")
    assert reference.stub("softmax") in told()
    history("softmax")
    assert "Nothing of softmax was put away yet" in told()
    answers.brought_back("softmax", MINE)
    history("softmax")
    out = told()
    assert "  1  20" in out and "   2 lines" in out


def test_what_is_no_exercise_gets_a_sentence(told):
    for function in (reset, history, reveal):
        function("softmix")
        assert f"Did you mean `{function.__name__}(softmax)`?" in told()
        function(3)
        assert told().startswith(f"{function.__name__}: pass the function of an exercise")
        function()
        assert told().startswith(f"{function.__name__}: pass the function of an exercise")


class Kernel:
    """What is asked of IPython's shell in a kernel."""

    def __init__(self, monkeypatch, *cells):
        shell = InteractiveShell()
        shell.kernel = object()
        for cell in cells:
            shell.run_cell(cell, store_history=True)
        self.shown, self.put, self.space = [], [], shell.user_ns
        monkeypatch.setattr(shell, "set_next_input", self.put.append, raising=False)
        monkeypatch.setattr(keeping, "kernel_shell", lambda: shell)
        monkeypatch.setattr(keeping, "show_html", lambda html, text: self.shown.append(text) or True)
        monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: shell)


def test_in_jupyter_the_stub_stands_in_a_new_cell(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/ada/00_start_here.ipynb")
    kernel = Kernel(monkeypatch, "softmax = 1", MINE, "x = 1")
    reset(kernel.space["softmax"])
    assert kernel.put == [reference.stub("softmax")]
    assert [version.text for version in kept.versions("softmax")] == [MINE.rstrip()]
    assert "raise NotImplementedError" not in kernel.shown[0] and "here is the stub" in kernel.shown[0]
    reset(kernel.space["softmax"], back=1)
    assert len(kernel.put) == 1, "the cell holds it already"


@pytest.mark.parametrize("where", ["a script of cells", "Colab", "VS Code"])
def test_elsewhere_it_is_printed(monkeypatch, where):
    kernel = Kernel(monkeypatch, MINE)
    if where != "a script of cells":
        monkeypatch.setenv("JPY_SESSION_NAME", "/home/ada/00_start_here.ipynb")
    if where == "Colab":
        monkeypatch.setitem(sys.modules, "google.colab", object())
    if where == "VS Code":
        kernel.space["__vsc_ipynb_file__"] = "/home/ada/00_start_here.ipynb"
    reset("softmax")
    assert kernel.put == [] and reference.stub("softmax") in kernel.shown[0]


def test_after_the_setup_cell_a_call_is_ours_and_not_ipythons_own_reset(monkeypatch, capsys):
    shell = InteractiveShell()
    shell.kernel = object()
    monkeypatch.setattr(autograde, "kernel_shell", lambda: shell)
    monkeypatch.delattr(autograde, "check", raising=False)  # as in a kernel that has not loaded it yet
    shell.run_cell("history = [3, 2, 1]\nfrom autograde import check\nsoftmax = 'mine'")
    shell.run_cell("reset('softmax')")
    assert reference.stub("softmax") in capsys.readouterr().out
    assert shell.user_ns["softmax"] == "mine" and shell.user_ns["history"] == [3, 2, 1]
    assert "reset" in shell.user_ns_hidden and shell.user_ns["hint"] is autograde.hint


# -- reveal ---------------------------------------------------------------------------------------------------


def test_a_solution_is_shown_after_an_honest_try(told):
    def softmax(x):
        return x.exp()

    reveal(softmax)
    assert "Try softmax first" in told() and not progress.attempts("softmax").revealed
    check(softmax)
    assert progress.attempts("softmax").tried == 1
    told()
    reveal(softmax)
    assert reference.solution("softmax") in told()
    assert progress.attempts("softmax") == progress.Attempts(tried=1, revealed=True)


def test_a_stub_or_a_right_solution_is_no_failed_try(told):
    def softmax(x):
        raise NotImplementedError

    check(softmax)
    assert not progress.attempts("softmax").tried
    check(lambda x: x.softmax(-1))
    assert not progress.attempts("softmax").tried


def test_a_hidden_check_is_no_try():
    def softmax(x):
        return x.exp()

    check(softmax, hidden=True)
    assert not progress.attempts("softmax").tried


def test_without_a_try_it_is_shown_on_demand_and_recorded_as_such(told):
    reveal("softmax", anyway=True)
    assert reference.solution("softmax") in told()
    assert progress.attempts("softmax") == progress.Attempts(revealed=True, anyway=True)


def test_who_has_solved_it_may_compare(told):
    progress.record("softmax", 2, 2)
    reveal("softmax")
    assert reference.solution("softmax") in told() and not progress.attempts("softmax").revealed


def test_a_shown_solution_is_text_and_nothing_runs(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/ada/00_start_here.ipynb")
    kernel = Kernel(monkeypatch)
    reveal("softmax", anyway=True)
    assert kernel.put == [] and "softmax" not in kernel.space


@pytest.mark.parametrize("variable", [("AUTOGRADE_NO_REVEAL", "1"), ("NBGRADER_EXECUTION", "autograde")])
def test_a_teacher_can_switch_it_off_and_nbgrader_does(monkeypatch, told, variable):
    monkeypatch.setenv(*variable)
    progress.record("softmax", 2, 2)
    reveal("softmax", anyway=True)
    assert told() == "Solutions are not shown in this course.\n"
    assert not progress.attempts("softmax").revealed
    assert pressed("reveal", "softmax")["text"] == "Solutions are not shown in this course."
    assert reference.stub("softmax")


def test_a_course_built_without_solutions_shows_none(monkeypatch, told):
    monkeypatch.setattr(reference, "_cells", lambda: {"softmax": reference.stubbed(cells["softmax"])})
    cells = json.loads(reference._FILE.read_text(encoding="utf-8"))
    reveal("softmax", anyway=True)
    assert told() == "Solutions are not shown in this course.\n" and reference.stub("softmax")


# -- the buttons ----------------------------------------------------------------------------------------------


def test_what_a_button_gets_is_what_the_functions_give(told):
    answer = pressed("reset", "softmax", MINE)
    assert answer["code"] == reference.stub("softmax") and "here is the stub" in answer["text"]
    assert [version.text for version in kept.versions("softmax")] == [MINE]
    hint = pressed("hint", "softmax")
    assert hint["code"] is None and hint["text"].startswith("softmax\nHint ")
    assert any(each in hint["text"] for each in find("softmax").hints)
    assert "Try softmax first" in pressed("reveal", "softmax")["text"]
    progress.record_attempt("softmax")
    shown = pressed("reveal", "softmax")
    assert shown["code"] is None and reference.solution("softmax") in shown["text"]


def test_a_cell_whose_mark_is_no_exercise_of_the_course_is_left_alone():
    for button in ("reset", "hint", "reveal"):
        assert pressed(button, "its_old_name", "text")["code"] is None
    assert not kept.versions("its_old_name")


def test_reset_and_reveal_need_no_torch():
    code = (
        "import sys; from autograde.buttons import press; press('reset', 'softmax', ''); press('reveal', 'softmax', '')"
        "; sys.exit('torch' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.call([sys.executable, "-c", code], env=env) == 0


def test_all_of_them_are_the_package_s():
    assert {"hint", "reset", "reveal", "history"} <= set(autograde.__all__)
