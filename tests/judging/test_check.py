"""What a check does with every kind of solution, on a small exercise made for the purpose."""

from __future__ import annotations

import functools
import importlib
import signal
import sys
import time
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from transformers.activations import ACT2FN

import autograde
from autograde import asking, exercises
from autograde.exercise import Exercise, Law, Misconception, case, same
from autograde.judging.grading import grade, public_seed
from autograde.report import Report
from autograde.wording import diagnoses
from labkit.unsolved import explain, missing, remember

CHECK = importlib.import_module("autograde.check")  # the name in the package is the function


def stable(x):
    e = (x - x.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


def over_rows(x):
    e = (x - x.amax(0, keepdim=True)).exp()
    return e / e.sum(0, keepdim=True)


def unstable(x):
    return x.exp() / x.exp().sum(-1, keepdim=True)


def draw(generator):
    for shape in [(3,), (2, 5), (2, 3, 4)]:
        yield case(torch.randn(shape, generator=generator) * 3, label=f"shape {shape}")
    yield case(torch.tensor([1e4, 0.0, -1e4]), label="huge numbers")


SOFTMAX = Exercise(
    name="toy_softmax",
    points=4,
    cases=draw,
    oracle=lambda x: F.softmax(x, -1),
    laws=[
        Law("adds up to one", lambda out, one, call: same(out.sum(-1), torch.ones(out.shape[:-1]))),
        Law("does not see a common shift", lambda out, one, call: same(call(one.args[0] + 1), out)),
    ],
    misconceptions=[
        Misconception("the sum runs over the first dimension", over_rows, "Which dimension holds the classes?"),
        Misconception("the largest number is not subtracted first", unstable, "What is exp(10000)?"),
    ],
    alternatives=[lambda x: torch.exp(x - torch.logsumexp(x, -1, keepdim=True))],
    forbid=["torch.nn.functional.softmax", "torch.softmax", "torch.nn.Softmax", "transformers", "tokenizers"],
    hints=("first", "second", "third"),
)

IMPATIENT = replace(SOFTMAX, limit=0.5)


@pytest.fixture
def known(monkeypatch):
    """Makes the toy exercise one of the course's."""
    for module in (CHECK, asking):
        monkeypatch.setattr(module, "names", lambda: {"toy_softmax": "toy"})
    monkeypatch.setattr(asking, "find", lambda name: SOFTMAX)
    monkeypatch.setattr(asking, "order", lambda chapter: ("toy_softmax",))
    monkeypatch.setenv("LABKIT_NO_PROGRESS", "1")


def contiguity_lost(x):
    return stable(x).unsqueeze(-1).expand(*x.shape, 2)[..., 0]


def as_subclass(x):
    class Odd(torch.Tensor):
        def __eq__(self, other):
            return True

    return stable(x).as_subclass(Odd)


@pytest.mark.parametrize(
    "solution",
    [
        stable,
        lambda x: stable(x.double()),
        lambda x: stable(x).requires_grad_(),
        contiguity_lost,
        as_subclass,
        functools.partial(stable),
        lambda x, dim=-1, *, note="unused": stable(x),
        torch.jit.ignore(stable),
        SOFTMAX.alternatives[0],
    ],
)
def test_correct_but_odd_solutions_are_accepted(solution):
    report = grade(SOFTMAX, solution)
    assert report.solved, report.text()
    assert report.earned == 4.0


WRONG = {
    "raises": (lambda x: stable(x)[5, 5, 5, 5], "IndexError"),
    "None": (lambda x: None, "returns None: is a `return` missing?"),
    "NaN": (lambda x: stable(x) * float("nan"), "NaN"),
    "shape": (lambda x: stable(x).unsqueeze(0), "The numbers are right and the shape is not"),
    "transposed": (lambda x: stable(x).mT if x.dim() > 1 else stable(x), "should have shape"),
    "dtype": (lambda x: stable(x).round().long(), "floating-point values"),
    "numpy": (lambda x: stable(x).numpy(), "a numpy array of shape (3,), where a torch.Tensor is asked for"),
    "list": (lambda x: stable(x).tolist(), "a list of 3, where a torch.Tensor is asked for"),
    "a lie": (lambda x: type("Any", (), {"__eq__": lambda a, b: True})(), "an object of type"),
    "sign": (lambda x: -stable(x), "the wrong sign"),
    "factor": (lambda x: 3 * stable(x), "Every number is 3 times the right one"),
    "input": (lambda x: x, "gives back its input"),
    "zeros": (torch.zeros_like, "gives back zeros"),
    "exit": (lambda x: sys.exit(3), "SystemExit"),
    "too many arguments": (lambda x, y: x, "missing 1 required positional argument"),
    "huge": (lambda x: torch.zeros(1).expand(10**9), "far more than the task needs"),
}


@pytest.mark.parametrize(("solution", "told"), WRONG.values(), ids=list(WRONG))
def test_wrong_solutions_lose_points_and_are_told_why(solution, told):
    report = grade(SOFTMAX, solution)
    assert not report.solved
    assert report.earned <= 2.0
    assert told in report.text()
    assert report.failing
    assert "autograde" not in report.text()


def test_partial_points_come_from_laws():
    report = grade(SOFTMAX, over_rows)
    assert report.earned == 1.0
    assert [line.passed for line in report.lines] == [False, False, True]
    assert report.misconception == "the sum runs over the first dimension"
    assert "Which dimension holds the classes?" in report.text()


def test_misconception_is_named_even_where_it_gives_nan():
    assert grade(SOFTMAX, unstable).misconception == "the largest number is not subtracted first"


def test_changing_the_input_in_place_costs_points():
    def in_place(x):
        x -= x.amax(-1, keepdim=True)
        return stable(x)

    report = grade(SOFTMAX, in_place)
    assert not report.solved
    assert "changes its input in place" in report.text()


def roots(x):
    if (x < 0).any():
        raise ValueError("no root")
    return x.sqrt()


def root_or_refusal(implementation, x):
    try:
        return implementation(x)
    except ValueError:
        return "ValueError"


ROOTS = Exercise(
    name="toy_roots",
    points=2,
    cases=lambda g: [*(case(torch.rand(n, generator=g) * 50 + 9) for n in (2, 3)), case(torch.tensor([4.0, -9.0]))],
    oracle=lambda x: "ValueError" if (x < 0).any() else x.sqrt(),
    probe=root_or_refusal,
    laws=[Law("gives float32", lambda out, one, call: isinstance(out, str) or out.dtype == torch.float32)],
    no_gradient="a toy",
    dtypes=(),
)


def asserting(x):
    assert (x >= 0).all()
    return x.sqrt()


def refusing(x):
    raise ValueError


UNEXPLAINED = {
    "another error": (asserting, "Where a ValueError is asked for, your code fails in another way."),
    "no error": (lambda x: x.abs().sqrt(), "Where a ValueError is asked for, none is raised."),
    "an error for all": (refusing, "A ValueError is raised where a result is asked for."),
    "whole numbers": (lambda x: roots(x).long(), "the dtype is not what is asked for"),
    "one law": (lambda x: roots(x).double(), "Every result is right, and one law doesn't hold: gives float32"),
    "in place": (lambda x: x.copy_(roots(x)), "Your function writes into its input (argument 1): work on a copy."),
}


@pytest.mark.parametrize(("solution", "told"), UNEXPLAINED.values(), ids=list(UNEXPLAINED))
def test_what_no_misconception_explains_is_told_by_what_it_does(solution, told):
    assert grade(ROOTS, roots).solved
    report = grade(ROOTS, solution)
    assert told in report.diagnosis and report.hidden().diagnosis in diagnoses(ROOTS)


@pytest.mark.parametrize("whole", [2**63, 2**64, 10**400], ids=["2**63", "2**64", "10**400"])
@pytest.mark.parametrize("right", [[2.0, 3.0], 2.0, 3, torch.ones(2)], ids=["list", "number", "whole", "tensor"])
def test_whole_numbers_beyond_torchs_are_wrong_and_no_more(right, whole):
    exercise = Exercise("toy_whole", 1, cases=lambda g: [case([1.0])], oracle=lambda x: right)
    for wrong in (whole, [whole, 1], [whole, whole]):
        assert grade(exercise, lambda x, wrong=wrong: wrong).earned == 0


def test_one_wrong_number_is_no_factor():
    mean = replace(
        ROOTS,
        name="toy_mean",
        oracle=lambda x: x.mean(),
        probe=None,
        laws=(),
        cases=lambda g: [case(torch.rand(n, generator=g)) for n in (1, 2, 2)],
    )
    assert "times the right one" in grade(mean, lambda x: 3 * x.mean()).diagnosis
    assert grade(mean, lambda x: 3 * x.mean() if len(x) == 1 else x.mean()).diagnosis == ""


@pytest.mark.parametrize(
    ("hint", "shown"),
    [
        ("sums *up to* p", "sums <em>up to</em> p"),
        ("use `a*b*c` here", "use <code>a*b*c</code> here"),
        ("x * weight + b * y, or 2*x*y, or p**2", "x * weight + b * y, or 2*x*y, or p**2"),
        ("an open ` and <b>", "an open ` and &lt;b&gt;"),
    ],
)
def test_hints_are_set_as_they_are_meant(hint, shown):
    report = Report("f", 1, 0.0, "wrong", hint=hint)
    assert f"<em>Hint:</em> {shown}</p>" in report._repr_html_()


def test_nan_among_plain_numbers_is_no_change():
    total = Exercise(
        name="toy_total",
        points=1,
        cases=lambda g: [case([1.0, float("nan"), 2.0])],
        oracle=lambda numbers: 3.0,
        misconceptions=[Misconception("NaN is added, too", sum, "Leave NaN out.")],
    )
    assert grade(total, lambda numbers: sum(x for x in numbers if x == x)).solved
    assert grade(total, lambda numbers: 0.0 + sum(numbers)).misconception == "NaN is added, too"


def test_a_flood_of_prints_is_cut():
    def chatty(x):
        for _ in range(10_000):
            print("x" * 100)
        return stable(x)

    report = grade(SOFTMAX, chatty)
    assert report.solved
    assert len(report.printed) < 600


@pytest.mark.parametrize("kind", ["loop", "sleep", "swallows exceptions"])
def test_a_call_that_never_returns_is_cut(kind):
    def loop(x):
        while True:
            if kind == "sleep" and hasattr(signal, "setitimer"):
                time.sleep(100)
            try:
                x = x + 0
            except Exception:
                assert kind == "swallows exceptions"

    report = grade(IMPATIENT, loop)
    assert report.earned == 0
    assert "did not return within 0.5 s" in report.text()


def test_the_time_limit_also_holds_off_the_main_thread():
    import threading

    found = []

    def forever(x):
        while True:
            pass

    thread = threading.Thread(target=lambda: found.append(grade(IMPATIENT, forever)))
    thread.start()
    thread.join(20)
    assert "did not return within 0.5 s" in found[0].text()


def from_import(x):
    from torch.nn.functional import softmax as innocent

    return innocent(x, -1)


def by_transformers(x):
    return stable(ACT2FN["linear"](x))


def by_compiled_library(x):
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE()).get_vocab()
    return stable(x)


FORBIDDEN = {
    "F.softmax": lambda x: F.softmax(x, dim=-1),
    "torch.softmax": lambda x: torch.softmax(x, -1),
    "method": lambda x: x.softmax(-1),
    "getattr": lambda x: getattr(x, "soft" + "max")(-1),
    "from-import": from_import,
    "operator": lambda x: torch.ops.aten.softmax.int(x, -1),
    "inner operator": lambda x: torch.ops.aten._softmax(x, -1, False),
    "layer": torch.nn.Softmax(-1),
    "unbound": lambda x: torch.Tensor.softmax(x, -1),
    "module": by_transformers,
    "compiled": by_compiled_library,
}


@pytest.mark.parametrize("solution", FORBIDDEN.values(), ids=list(FORBIDDEN))
def test_a_forbidden_shortcut_is_caught_however_it_is_spelled(solution):
    report = grade(SOFTMAX, solution)
    assert report.earned == 0
    assert "so don't call it" in report.text()


def test_unsolved_scores_zero_and_says_so():
    def toy_softmax(x):
        raise NotImplementedError

    report = grade(SOFTMAX, toy_softmax)
    assert (report.earned, report.status) == (0.0, "not implemented")
    assert "not implemented yet" in report.text()


def test_check_finds_the_exercise_by_function_or_variable_name(known, capsys):
    toy_softmax = lambda x: stable(x)  # noqa: E731
    assert autograde.check(toy_softmax) == 4.0

    def other(x):
        return stable(x)

    assert autograde.check(other) == 0.0
    assert "none of this chapter's exercises" in capsys.readouterr().out


def test_a_hidden_check_uses_other_cases_and_shows_none(known, capsys, monkeypatch):
    seen = []

    def toy_softmax(x):
        seen.append(x.sum().item())
        print("leak", x)
        return x * 3

    autograde.check(toy_softmax)
    public = list(seen)
    capsys.readouterr()
    for secret in ("a", "b"):
        monkeypatch.setenv("AUTOGRADE_SEED", secret)
        seen.clear()
        autograde.check(toy_softmax, hidden=True)
        assert seen[0] not in public
        public += seen[:1]
        out = capsys.readouterr().out
        assert "0 of 4 points" in out
        assert "first wrong" not in out and "leak" not in out and "failing(" not in out


def test_a_solution_that_hard_codes_the_public_cases_fails_the_hidden_ones(known, monkeypatch):
    answers = {tuple(c.args[0].reshape(-1).tolist()): stable(c.args[0]) for c in SOFTMAX.draw(public_seed(SOFTMAX))}

    def toy_softmax(x):
        return answers.get(tuple(x.reshape(-1).tolist()), torch.zeros_like(x))

    assert grade(SOFTMAX, toy_softmax).lines[0].passed
    monkeypatch.setenv("AUTOGRADE_SEED", "secret")
    assert autograde.check(toy_softmax, hidden=True) == 0.0


def test_the_learners_random_state_is_left_alone_and_its_calls_are_repeatable():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    grade(SOFTMAX, lambda x: stable(x) + torch.rand(1).item() * 0)
    assert torch.equal(torch.rand(3), expected)


def test_html_is_escaped_and_carries_the_same_facts():
    def shout(x):
        print("<script>alert(1)</script>")
        raise ValueError("<b>bold</b>")

    text = grade(SOFTMAX, shout)._repr_html_()
    assert "<script>" not in text and "<b>bold" not in text
    assert "&lt;b&gt;bold" in text and "0 of 4 points" in text


def test_a_traceback_shows_the_learners_frames_only():
    def inner(x):
        return x.reshape(7, 7, 7)

    def outer(x):
        return inner(x)

    text = grade(SOFTMAX, outer).text()
    assert "in inner" in text and "in outer" in text
    assert "running.py" not in text and "run_once" not in text


def test_two_exercises_of_one_name_are_an_error(tmp_path, monkeypatch):
    for chapter in "ab":
        (tmp_path / chapter).mkdir()
        (tmp_path / chapter / "twice.py").touch()
    monkeypatch.setattr(exercises, "_HERE", tmp_path)
    with pytest.raises(ValueError, match="two exercises are called twice: in a and in b"):
        exercises.names.__wrapped__()


def test_only_a_stub_of_the_notebook_counts_as_unsolved():
    def raised_by(source, call):
        space = {"__name__": "__main__"}
        exec(source, space)
        try:
            eval(call, space)
        except NotImplementedError as error:
            return error, space

    error, space = raised_by("class GPT:\n    def __init__(self):\n        raise NotImplementedError", "GPT()")
    assert "`GPT` isn't solved yet" in explain(error, space)
    assert explain(error, {}) is None, "raised by a library, not by the notebook"
    error, space = raised_by("def f():\n    raise NotImplementedError('no such kernel')", "f()")
    assert explain(error, space) is None, "an error of the learner's own, with a message of its own"


def test_a_name_that_an_unsolved_cell_would_have_made_is_told_and_no_other():
    def lacking(name):
        with pytest.raises(NameError) as caught:
            exec(name, {})
        return caught.value

    assert missing(lacking("made_by_nobody"), "later = 1") is None
    remember("made_above = 3\n\ndef also_made():\n    pass")
    assert "`made_above` isn't there" in missing(lacking("made_above"), "made_later = made_above")
    assert "`also_made`" in missing(lacking("also_made"), "x = 1")
    assert "`made_later`" in missing(lacking("made_later"), "x = 1"), "the chain goes on"
    assert missing(lacking("made_by_nobody"), "later = 1") is None


def test_a_large_number_is_not_taken_for_an_infinity_by_way_of_rounding():
    exercise = replace(exercises.find("no_repeat_ngram"), forbid=())

    @functools.wraps(exercise.alternatives[0])  # no learner's, who may not call it
    def nearly(logits, ids, n):
        return exercise.alternatives[0](logits, ids, n).clamp(min=-1e9)

    first = grade(exercise, nearly).lines[0]
    assert not first.passed and "infinite" in first.note


def test_a_text_for_a_list_carries_no_input_into_a_hidden_report():
    cases = lambda g: [case(torch.full((3,), 4321.0 + n)) for n in range(4)]  # noqa: E731
    listing = Exercise("toy", 2, cases, oracle=lambda x: x.tolist(), no_gradient="it lists", dtypes=())
    report = grade(listing, lambda x: str(x.tolist()))
    assert "the type is not what is asked for" in report.diagnosis and "4321" in report.text()
    assert "432" not in report.hidden().text()
