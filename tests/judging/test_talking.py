"""How a check talks: of stubs, errors, arguments, time, cells that did not run; and what `hint` and `failing` give."""

from __future__ import annotations

import importlib
import itertools
import linecache
import re
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_output
from nbgrader.utils import determine_grade

import autograde
from autograde import asking, failing, helping, hint
from autograde.classroom.sandbox.isolation import seen_inside
from autograde.exercise import Exercise, Law, Misconception, case
from autograde.exercises import chapters, find
from autograde.judging.grading import grade, judged
from autograde.judging.limits import budget
from autograde.judging.pointing import first_wrong, shown
from autograde.report import BAD, GOOD, NEUTRAL, Line, Points, Report
from labkit.errors import PlainError
from labkit.unsolved import missing

CHECK = importlib.import_module("autograde.check")
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setenv("LABKIT_NO_PROGRESS", "1")
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.setattr(helping, "_checked", {})
    monkeypatch.setattr(helping, "_given", type(helping._given)())


class Notebook:
    """Global names, and cells that run in them with their source known, as in a kernel."""

    def __init__(self):
        self.space = {"__name__": "__main__"}
        self.run("import torch\nfrom autograde import check, failing, hint")

    def run(self, cell):
        name = f"<cell {next(_numbers)}>"
        linecache.cache[name] = len(cell), None, cell.splitlines(keepends=True), name
        exec(compile(cell, name, "exec"), self.space)


@pytest.fixture
def notebook():
    return Notebook()


STUB = "def scaled_dot_product_attention(q, k, v, mask=None):\n    # YOUR CODE HERE\n    raise NotImplementedError\n"
HEADS = """
def multi_head_attention(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    q, k, v = ((x @ w).unflatten(-1, (n_heads, -1)).transpose(-3, -2) for w in (w_q, w_k, w_v))
    seen = scaled_dot_product_attention(q, k, v, mask if mask is None else mask.unsqueeze(-3))
    return seen.transpose(-3, -2).flatten(-2) @ w_o
"""


def test_a_solution_that_calls_an_unsolved_one_is_told_which(notebook, capsys):
    notebook.run(STUB + HEADS + "check(multi_head_attention)")
    out = capsys.readouterr().out
    assert "`multi_head_attention` calls `scaled_dot_product_attention`, which isn't implemented yet" in out
    assert "0 of 4 points" in out and "multi_head_attention: not implemented yet" not in out


def test_a_solution_that_calls_what_was_not_run_is_told_which(notebook, capsys):
    notebook.run(HEADS + "check(multi_head_attention)")
    assert "calls `scaled_dot_product_attention`, whose cell was not run" in capsys.readouterr().out
    notebook.run("def softmax(x):\n    return F.softmax(x)\ncheck(softmax)")
    assert "`F` is made by the setup cell" in capsys.readouterr().out


def test_a_stub_as_released_is_not_implemented_and_no_more_is_said(notebook, capsys):
    notebook.run(STUB + "check(scaled_dot_product_attention)")
    assert capsys.readouterr().out == "scaled_dot_product_attention: not implemented yet\n"


def test_half_a_body_above_the_stubs_raise_is_told_of_the_line(notebook, capsys):
    notebook.run("def softmax(x):\n    e = x.exp()\n    raise NotImplementedError\ncheck(softmax)")
    out = capsys.readouterr().out
    assert "softmax: not implemented yet" in out and "`raise NotImplementedError` in line 3" in out


def test_a_stub_of_a_class_is_one(notebook, capsys):
    notebook.run(
        "class EarlyStopping:\n    def __init__(self, patience, min_delta=0.0):\n        raise NotImplementedError"
    )
    notebook.run("check(EarlyStopping)")
    assert capsys.readouterr().out == "EarlyStopping: not implemented yet\n"


@pytest.mark.parametrize(
    "raises",
    [
        "raise NotImplementedError(\"The operator 'aten::x' is not currently implemented for the MPS device.\")",
        "torch.nn.Module()(x)",
        "import numbers; numbers.Complex.__add__(1, 2)",
    ],
)
def test_any_other_not_implemented_error_is_an_error_like_any_other(notebook, capsys, raises):
    notebook.run(f"def softmax(x):\n    {raises}\ncheck(softmax)")
    out = capsys.readouterr().out
    assert "not implemented yet" not in out and "isn't implemented" not in out
    assert "line 2, in softmax:" in out and "NotImplementedError" in out


def test_no_hint_comes_unasked(notebook, capsys):
    for body in ("return nothing", "while True: pass", "return x * 3"):
        notebook.run(f"def softmax(x):\n    {body}\n")
        for _ in range(2):
            grade_of = replace(find("softmax"), limit=0.2)
            report = grade(grade_of, notebook.space["softmax"])
            assert not report.hint and not report.solved
    wrong = next(m for m in find("softmax").misconceptions)
    assert grade(find("softmax"), wrong.implementation).hint == wrong.hint


def test_hints_come_one_by_one_when_asked(notebook, capsys):
    hints = find("softmax").hints
    notebook.run("def softmax(x):\n    raise NotImplementedError")
    for number, left in ((1, "2 more"), (2, "1 more"), (3, "That was the last one"), (1, "2 more")):
        notebook.run("hint(softmax)")
        out = capsys.readouterr().out
        assert f"Hint {number} of 3: {hints[number - 1]}" in out and left in out
    hint("causal_mask")
    assert find("causal_mask").hints[0] in capsys.readouterr().out
    hint("casual_mask")
    assert "Did you mean `hint(causal_mask)`?" in capsys.readouterr().out


TURNED = """
def scaled_dot_product_attention(query, key, value, mask=None):
    return (query @ key.mT).softmax(-1) @ value + 1
check(scaled_dot_product_attention)
"""


def test_the_failing_case_has_the_learners_names_and_the_first_wrong_element(notebook, capsys):
    notebook.run(TURNED)
    out = capsys.readouterr().out
    assert re.search(r"^  query +a float32 tensor", out, re.MULTILINE) and "input 1" not in out
    assert re.search(r"^  first wrong +\[0, 0\]: -?\d\S* instead of -?\d", out, re.MULTILINE)
    assert "`query, key, value = failing(scaled_dot_product_attention)`" in out


def test_names_come_from_the_oracle_where_the_learner_has_none(notebook, capsys):
    notebook.run("softmax = lambda *args: args[0]\ncheck(softmax)")
    assert re.search(r"^  x +a float32 tensor", capsys.readouterr().out, re.MULTILINE)


def test_a_changed_input_is_told_by_name(notebook, capsys):
    notebook.run("def softmax(scores):\n    return scores.sub_(scores.amax(-1, keepdim=True)).softmax(-1)\n")
    allowed = replace(find("softmax"), forbid=())
    assert "changes its input in place (`scores`)" in grade(allowed, notebook.space["softmax"]).text()


def test_failing_hands_the_case_over(notebook, capsys):
    notebook.run(TURNED + "one = failing(scaled_dot_product_attention)\nq, k, v = one")
    q, k, v = notebook.space["q"], notebook.space["k"], notebook.space["v"]
    one = notebook.space["one"]
    assert torch.equal(one.args[0], q) and one.kwargs == {} and len(one) == 3
    right = find("scaled_dot_product_attention").oracle(q, k, v)
    assert torch.allclose(one.expected, right)
    assert torch.equal(one.run(notebook.space["scaled_dot_product_attention"]), (q @ k.mT).softmax(-1) @ v + 1)
    q += 1
    assert not torch.equal(failing("scaled_dot_product_attention")[0], q), "every call gives fresh copies"
    assert "query = a float32 tensor" in repr(one)


def test_failing_has_keywords_too_and_calls_what_the_check_calls():
    keyed = Exercise("toy", 1, lambda g: [case(torch.ones(2), scale=3)], oracle=lambda x, scale: x * scale)
    wrong = lambda x, *, scale: x + scale  # noqa: E731
    helping.remember("softmax", judged(keyed, wrong)[1])
    one = failing("softmax")
    x, scale = one
    assert scale == 3 and one.kwargs == {"scale": 3}
    assert torch.equal(wrong(*one.args, **one.kwargs), x + scale)
    probed = replace(keyed, probe=lambda made, x, scale: made(x).times(scale))
    helping.remember("softmax", judged(probed, lambda x: None)[1])
    with pytest.raises(AttributeError, match="times"):
        failing("softmax").run(lambda x: None)


def test_failing_hands_over_the_case_on_which_only_a_law_breaks():
    laws = [Law("has even length", lambda out, one, call: len(out) % 2 == 0)]
    lawful = Exercise("toy", 2, lambda g: [case(torch.ones(n)) for n in (2, 3, 1)], oracle=torch.exp, laws=laws)
    report, pointed = judged(lawful, lambda x: x.exp())
    assert report.earned == 1 and len(pointed.case.args[0]) == 3
    assert dict(report.failing)["expected"] == dict(report.failing)["got"]


def test_failing_says_why_it_has_nothing(notebook, capsys):
    for cell, told in (
        ("failing(softmax)", "was not checked here yet"),
        ("check(softmax); failing(softmax)", "found no case that fails"),
        ("failing(3)", "pass the function of an exercise"),
    ):
        with pytest.raises(PlainError, match=told):
            notebook.run(
                f"def softmax(x):\n    e = (x - x.amax(-1, True)).exp()\n    return e / e.sum(-1, True)\n{cell}"
            )


def test_a_hidden_check_hands_nothing_over_and_tells_nothing_of_its_inputs(notebook, capsys):
    notebook.run("def softmax(x):\n    return x * 3\ncheck(softmax)\nfailing(softmax)")
    capsys.readouterr()
    notebook.run("def softmax(x):\n    raise ValueError(str(x.tolist()))\ncheck(softmax, hidden=True)")
    out = capsys.readouterr().out
    assert "0 of 2 points" in out and "[" not in out and "failing" not in out and "ValueError" not in out
    with pytest.raises(PlainError, match="not to show any"):
        notebook.run("failing(softmax)")
    for field in ("error", "more", "notice", "printed", "failing"):
        assert not getattr(Report("f", 1, 0.0, "wrong", **{field: "secret"}).hidden(), field)


def test_one_error_is_shown_once_with_its_line_on_top(notebook):
    notebook.run("def softmax(x):\n    y = x + 1\n    return y.reshape(7, 7, len(y))")
    text = grade(find("softmax"), notebook.space["softmax"]).text()
    assert text.count("RuntimeError") == 1 and text.count("line 3, in softmax:  return y.reshape(7, 7, len(y))") == 1
    assert text.index("RuntimeError") < text.index("FAIL")


def test_an_error_that_only_a_laws_call_meets_is_shown_with_its_line(notebook):
    laws = [Law("twice", lambda out, one, call: call(one.args[0] * 2) is None)]
    lawful = Exercise("toy", 2, lambda g: [case(torch.ones(2))], oracle=lambda x: x, laws=laws)
    notebook.run("def toy(x):\n    if x[0] == 2:\n        raise ValueError('two')\n    return x")
    text = grade(lawful, notebook.space["toy"]).text()
    assert text.count("ValueError") == 2 and "line 3, in toy:  raise ValueError('two')" in text


def test_a_call_that_was_cut_shows_where_it_was(notebook):
    notebook.run("def softmax(x):\n    while True:\n        x = x + 1")
    text = grade(replace(find("softmax"), limit=0.3), notebook.space["softmax"]).text()
    assert re.search(r"line [23], in softmax:  (while True:|x = x \+ 1)\n  The call did not return within 0.3 s", text)
    assert text.count("did not return") == 1


def slow(x):
    time.sleep(0.3)
    return x.softmax(-1)


def test_a_check_ends_by_itself_with_a_verdict_on_what_was_tried(monkeypatch, capsys):
    monkeypatch.setattr(CHECK, "SECONDS", 1.0)
    monkeypatch.setattr(asking, "find", lambda name: replace(find(name), forbid=()))
    softmax = slow
    assert autograde.check(softmax) == 0.0
    out = capsys.readouterr().out
    tried = re.search(r"Stopped after 1 s: (\d+) of (\d+) cases were tried\.", out)
    assert tried and 1 <= int(tried[1]) < int(tried[2])
    assert f"({tried[1]} of {tried[2]} cases)" in out
    assert out.count("time.sleep(0.3)") <= 1


def test_what_was_tried_is_diagnosed():
    def squared(x):
        return x * x

    def slowly(x):
        time.sleep(0.3)
        return squared(x)

    known = [Misconception("it is squared", squared, "Not times itself.")]
    cases = lambda g: [case(torch.full((2,), float(n))) for n in range(9)]  # noqa: E731
    exercise = Exercise("toy", 2, cases, oracle=torch.exp, misconceptions=known)
    with budget(1.0):
        report = grade(exercise, slowly)
    assert "Stopped after 1 s" in report.diagnosis and report.misconception == "it is squared"
    assert "time.sleep" not in report.text(), "a case with a wrong result is shown, not the one that was cut"


def test_what_a_cell_may_import_is_in_the_sandbox_too():
    for name in autograde.__all__:
        home = autograde._HOME[name]
        assert seen_inside()[f"{home}.py"] == f"classroom/inside/{home}.py"
        assert callable(getattr(importlib.import_module(f"autograde.classroom.inside.{home}"), name))


def test_without_a_budget_nothing_stops():
    assert grade(replace(find("softmax"), forbid=()), lambda x: x.softmax(-1)).solved


SOLVED = "def softmax(x):\n    e = (x - x.amax(-1, True)).exp()\n    return e / e.sum(-1, True)\n"
CAUSAL = "def causal_mask(n, past=0):\n    return torch.ones(n, past + n).tril(past).bool()\n"


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("check()", "pass the function of an exercise, as in `check("),
        ("check(3)", "and not 3"),
        ("check(None)", "and not None"),
        ("check('causal_mask')", "without quotes: `check(causal_mask)`"),
        ("check('casual_mask')", "Did you mean `check(causal_mask)`"),
        (
            "check(causal_mask(3))",
            "pass the function itself, `check(causal_mask)`, and not what it gives, which is a bool",
        ),
        ("casual_maks = lambda n: n\ncasual_maks.__name__ = 'casual_maks'\ncheck(casual_maks)", "`check(causal_mask)`"),
        ("check(max)", "`max` is none of this chapter's exercises"),
        ("causal_mask = torch.ones(2)\ncheck(causal_mask)", "`causal_mask` is a float32 tensor of shape (2,) by now"),
        ("class DDP: pass\ncheck(DDP())", "pass the class itself, `check(DDP)`"),
        ("check(torch)", "pass the function of an exercise"),
    ],
)
def test_what_is_no_exercise_gets_one_sentence(notebook, capsys, cell, told):
    notebook.run(f"{CAUSAL}result = None\n")
    notebook.run(cell)
    out = capsys.readouterr().out
    assert told in out and out.count("\n") == 1


def test_the_chapter_is_known_from_the_notebook_or_from_what_it_defines(monkeypatch):
    for chapter in chapters():
        numbered = "/".join(f"0{i}_{part}" for i, part in enumerate(chapter.split(".")))
        monkeypatch.setenv("JPY_SESSION_NAME", f"/home/me/notebooks/{numbered}.ipynb")
        assert asking.chapter_of({}) == chapter
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/Untitled.ipynb")
    assert asking.chapter_of({}) is None
    assert asking.chapter_of({"causal_mask": len, "softmax": 3}) == "transformer.attention"


@pytest.fixture
def shell():
    from IPython.core.history import HistoryManager
    from IPython.core.interactiveshell import InteractiveShell

    HistoryManager.enabled = False
    shell = InteractiveShell.instance()
    shell.run_cell("import torch\nfrom autograde import check", store_history=True)
    yield lambda cell: shell.run_cell(cell, store_history=True)
    InteractiveShell.clear_instance()


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (SOLVED.replace("(x):", "(x:"), "SyntaxError: "),
        ("x = undefined\n" + SOLVED.replace("True)\n", "True) * 2\n"), "an error came before the definition"),
    ],
)
def test_a_cell_that_did_not_run_is_not_what_is_judged(shell, capsys, broken, why):
    shell(SOLVED)
    shell("check(softmax)")
    assert "did not run" not in capsys.readouterr().out
    shell(broken)
    capsys.readouterr()
    shell("check(softmax)")
    out = capsys.readouterr().out
    assert f"The last version of the cell with `softmax` did not run ({why}" in out and "2 of 2 points" in out
    shell(SOLVED + "\n# again\n")
    shell("softmax(torch.ones(2))\ncheck(softmax)")
    assert "did not run" not in capsys.readouterr().out


def test_a_function_from_elsewhere_is_not_taken_for_an_old_cell(shell, capsys):
    shell(SOLVED)
    shell(SOLVED.replace("(x):", "(x:"))
    shell("from autograde.exercises import find\nsoftmax = find('softmax').alternatives[0]")
    capsys.readouterr()
    shell("check(softmax)")
    assert "did not run" not in capsys.readouterr().out


def test_an_exercise_whose_cell_was_not_run_is_named_in_its_name_error():
    with pytest.raises(NameError) as caught:
        exec("softmax", {})
    assert "`softmax` isn't there yet: run the cell that defines it first" in missing(
        caught.value, "softmax", {"softmax": "start_here"}
    )
    assert missing(caught.value, "softmax") is None


@pytest.mark.parametrize("points", [3.6665, 0.0, 4.0])
def test_nbgrader_reads_the_points_and_a_notebook_shows_nothing(points):
    from IPython.core.formatters import DisplayFormatter

    bundle, _ = DisplayFormatter().format(Points(points))
    assert bundle == {"text/plain": str(points), "text/html": ""}
    cell = new_code_cell(metadata={"nbgrader": {"grade": True, "solution": False, "points": 4}})
    cell.outputs = [new_output("display_data", {"text/html": "x"}), new_output("execute_result", bundle)]
    assert determine_grade(cell) == (points, 4)
    assert Points(points) == points and repr(Points(points)) == str(points)


def test_points_are_shown_with_two_digits():
    assert Report("f", 4, 3.6665, "wrong").headline == "f: 3.67 of 4 points"


def luminance(color):
    levels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return np.dot(
        [0.2126, 0.7152, 0.0722], [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in levels]
    )


def contrast(a, b):
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_is_readable_in_a_light_and_a_dark_theme(notebook):
    notebook.run("def softmax(x):\n    print('hello')\n    return x * 3")
    lines = [Line("one", True, 1, 1), Line("two", False, 1, 0, "a note")]
    wrong = replace(grade(find("softmax"), notebook.space["softmax"]), lines=lines)
    pages = [
        replace(wrong, error="e", more="m", notice="n", hint="h", status=s) for s in ("wrong", "solved", "no points")
    ]
    styles = [style for page in pages for style in re.findall(r'style="([^"]*)"', page._repr_html_())]
    colored = [dict(part.split(":", 1) for part in style.split(";") if ":" in part) for style in styles]
    texts = [(s["color"], s["background"]) for s in colored if "color" in s]
    assert len(set(texts)) == 2, "a text with a color brings its ground; all others have the page's"
    assert all(contrast(text, ground) >= 4.5 for text, ground in texts)
    assert all(s["background"] == "none" for s in colored if "background" in s and "color" not in s)
    edges = {word for s in colored for word in s.get("border-left", "").split() if word.startswith("#")}
    assert edges == {GOOD, BAD}
    assert all(contrast(edge, page) >= 3 for edge in (GOOD, BAD, NEUTRAL) for page in ("#ffffff", "#111111"))


@pytest.mark.parametrize(
    ("expected", "got", "told"),
    [
        (torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.5]]), "[0, 1]: 2.5 instead of 2"),
        (torch.tensor([1.0, 2.0]), torch.full((2,), torch.nan), "all 2 values are NaN"),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, torch.nan]), "[1]: nan instead of 2"),
        (torch.tensor(1.0), torch.tensor(1.001), "1.001 instead of 1"),
        (torch.tensor(10_000.0), torch.tensor(10_000.5), "10000.5 instead of 10000"),
        ([torch.ones(1), torch.ones(2)], (torch.ones(1), torch.zeros(2)), "item 1, [0]: 0 instead of 1"),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, "'b': 3 instead of 2"),
        (torch.ones(2), torch.ones(3), ""),
        (torch.ones(2), None, ""),
    ],
)
def test_the_first_wrong_element_is_found(expected, got, told):
    assert first_wrong(expected, got, 1e-5, 1e-5) == told


def test_what_ranks_bring_home_is_shown_entry_by_entry():
    """Dictionaries of tensors were one text, broken in the middle of a word."""
    told = shown([{"mean": torch.zeros(2), "params": [torch.ones(1)], "n": 3}] * 2).split("\n")
    rows = [
        "  mean: a float32 tensor of shape (2,): [0, 0]",
        "  params: a list of 1:",
        "    a float32 tensor of shape (1,): [1]",
        "  n: 3",
    ]
    assert told == ["a list of 2:", "0:", *rows, "1:", *rows]
