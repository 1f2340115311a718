"""Forbidden functions: by what they compute, and what a text says where nobody can watch."""

from __future__ import annotations

import contextlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F

from autograde import check
from autograde.exercises import find, names
from autograde.judging.forbidding import (
    EXERCISES,
    FAMILIES,
    HARMLESS,
    Watch,
    bare,
    computes,
    is_one_operator,
    is_ready_made,
)
from autograde.judging.grading import grade
from autograde.judging.suspecting import remarks, suspicions
from labkit.modes import Listener

# What a name says of an operator or function of torch that computes something of a family.
STEMS = re.compile(
    r"soft_?max|softmin|layer_?norm|rms_?norm|batch_?norm|group_?norm|instance_?norm|attention|cross_entropy|nll_loss"
    r"|kl_div|dropout|cosine|logsumexp|encoder_layer|multi_head|clip_grad"
)
LISTED = frozenset().union(*FAMILIES.values()) | set(HARMLESS)
# Namespaces whose operators take other tensors than a solution has, or run in compiled programs alone.
APART = ("quantized", "onednn", "static_runtime", "_quantized")
PYTHONS = {"gumbel_softmax", "softmin"}  # Python functions over operators that are listed: these are seen


def operators() -> set[str]:
    spaces = [schema.name for schema in torch._C._jit_get_all_schemas()]
    return {bare(name) for name in spaces if not name.startswith(APART) and "_backward" not in name}


def functions() -> set[str]:
    spaces = (torch, F, torch.Tensor, torch.special)
    found = [name for space in spaces for name in dir(space) if callable(getattr(space, name))]
    return {bare(name) for name in found if not name.startswith("_") and "_backward" not in name}


def test_every_operator_of_torch_that_sounds_like_a_family_is_listed_or_said_to_be_harmless():
    assert {name for name in operators() if STEMS.search(name)} - LISTED == set()


def test_every_function_of_torch_that_sounds_like_a_family_is_listed_or_said_to_be_harmless():
    assert {name for name in functions() if STEMS.search(name)} - LISTED - PYTHONS == set()


def test_the_lists_name_nothing_twice_and_nothing_that_torch_lacks():
    assert not set(HARMLESS) & frozenset().union(*FAMILIES.values()) and all(HARMLESS.values())
    known = operators() | functions() | {bare(name) for name in dir(torch.nn.utils)}
    later = {"linear_cross_entropy"}  # of a later torch
    assert LISTED - known <= later


X = torch.randn(3, 4)
EYE = torch.eye(4)
AS_SOFTMAX = {
    "log": lambda: X.log_softmax(-1).exp(),
    "special": lambda: torch.special.softmax(X, -1),
    "negative": lambda: F.softmin(-X, -1),
    "masked": lambda: torch.ops.aten._masked_softmax(X, torch.zeros(3, 4, dtype=torch.bool), -1),
    "safe": lambda: torch.ops.aten._safe_softmax(X, -1),
    "gumbel": lambda: F.gumbel_softmax(X),
    "attention": lambda: F.scaled_dot_product_attention(X[None], EYE[None], EYE[None], scale=1.0),
    "cross entropy": lambda: F.cross_entropy(X, torch.tensor([0, 1, 2])),
    "layer": lambda: torch.nn.LogSoftmax(-1)(X),
    "scripted": lambda: SCRIPTED(X),
    "in a thread": lambda: in_a_thread(lambda: X.softmax(-1)),
    "in a pool": lambda: ThreadPoolExecutor(1).submit(torch.softmax, X, -1).result(),
    "operator in a thread": lambda: in_a_thread(lambda: torch.ops.aten._softmax(X, -1, False)),
}
SCRIPTED = torch.jit.script(torch.nn.Softmax(-1))


def in_a_thread(function) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


@pytest.mark.parametrize("way", AS_SOFTMAX)
def test_what_computes_a_softmax_is_forbidden_with_it(way):
    with Watch(["torch.nn.functional.softmax"]) as watch:
        AS_SOFTMAX[way]()
    assert watch.used == "torch.nn.functional.softmax"


ARGUMENTS = [(X,), (X, X), (X, -1), (X, 1.5), (X, 0, 1), (EYE, EYE), (X, EYE), (X, X > 0, 0.0), ([X, X],)]


class Under(Listener):
    """The operators that run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(bare(func.__name__))
        return func(*args, **(kwargs or {}))


@pytest.mark.filterwarnings("ignore")
def test_under_functions_whose_operators_nobody_looks_at_nothing_is_forbidden():
    ran, listed = set(), frozenset().union(*FAMILIES.values())
    for space in (torch, torch.Tensor, torch.special, torch.linalg, torch._C._nn):
        for name in dir(space):
            if not callable(function := getattr(space, name)) or not is_one_operator(function):
                continue
            for given in ARGUMENTS:
                copies = [x.clone() if isinstance(x, torch.Tensor) else x for x in given]
                with contextlib.suppress(Exception), Under() as under:
                    function(*copies)
                    ran.add(name)
                assert not under.names & listed - {bare(name)}, (name, under.names)
    assert len(ran) > 300 and {"add", "exp", "sum", "matmul", "__getitem__"} <= ran
    assert not {"softmax", "layer_norm", "cross_entropy_loss", "scaled_dot_product_attention"} & ran


class Own(torch.Tensor):
    """A tensor that runs Python of its own under each operator, and shows nothing of it to torch's functions."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(cls, held.shape)

    def __init__(self, held):
        self.held = held

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return func(*(getattr(x, "held", x) for x in args), **(kwargs or {}))


def test_a_watch_changes_nothing_for_tensors_of_ones_own():
    for _ in range(3):  # by then the functions are known
        with Watch(["torch.softmax"]) as watch:
            assert torch.equal(X + 1, Own(X) + 1) and torch.equal(X.sum(-1), Own(X).sum(-1))
        assert watch.used is None
        with Watch(["torch.softmax"]) as watch:
            Own(X).softmax(-1)
        assert watch.used == "torch.softmax"


def test_who_listens_to_operators_inside_a_watch_hears_them_all():
    """Probes count operations and memory in this way."""
    for _ in range(3):  # by then the functions are known
        with Watch(["torch.softmax"]):
            X.exp()
            with Under() as under, Under() as inner:
                X.exp().sum()
            X.exp()
        assert under.names == inner.names == {"exp", "sum"}


def test_memory_is_seen_under_a_watch():
    """A solution that keeps all of a stream has right numbers: what a probe hears is all that speaks against it."""
    exercise = find("online_softmax_attention")
    (keeps_all,) = [m for m in exercise.misconceptions if "memory that grows" in m.hint]
    report = grade(exercise, keeps_all.implementation)
    assert exercise.forbid and report.misconception == keeps_all.says
    assert [line.name for line in report.lines if not line.passed] == ["Twelve blocks need no more memory than four"]


def test_who_listened_before_a_watch_hears_them_all():
    for _ in range(3):
        with Under() as under, Watch(["torch.softmax"]) as watch:
            X.exp().sum()
        assert under.names == {"exp", "sum"} and watch.used is None


def test_what_is_not_forbidden_is_not_seen():
    with Watch(["torch.nn.functional.cross_entropy"]) as watch:
        X.log_softmax(-1).exp().norm()
    assert watch.used is None
    assert "scaled_dot_product_attention" not in computes("torch.nn.TransformerEncoderLayer")


def test_threads_are_as_they_were_after_a_watch():
    before = threading.getprofile()
    with Watch(["torch.softmax"]):
        assert threading.getprofile() is not before
    assert threading.getprofile() is before


@pytest.mark.parametrize("name", ["causal_mask", "softmax"])
def test_no_solution_may_ask_the_exercises(name):
    exercise = find(name)
    asked = exercise.oracle or exercise.alternatives[0]
    report = grade(exercise, lambda *args, **kwargs: asked(*args, **kwargs))
    assert report.earned == 0 and "`autograde.exercises`" in report.text()
    assert is_ready_made(asked) and grade(exercise, exercise.alternatives[0]).solved


def test_a_probe_is_no_solution():
    exercise = find("EarlyStopping")
    own = type("EarlyStopping", (), {"__init__": lambda self, *args, **kwargs: None, "__module__": "mine"})
    assert exercise.probe and "autograde.exercises" not in grade(exercise, own).text()


SOFTMAX = ["torch.nn.functional.softmax", "scipy.special", "transformers"]
TOLD = {
    "x.softmax(-1)": "`softmax`, which",
    "getattr(x, 'softmax')(-1)": "`softmax`, which",
    "x.log_softmax(-1).exp()": "`log_softmax`, which",
    "import scipy.special": "`scipy.special`, which",
    "from transformers import pipeline": "`transformers`, `transformers.pipeline`, which",
    "import multiprocessing.pool": "`multiprocessing.pool`, by which",
    "with torch._C._DisableTorchDispatch(): pass": "`_DisableTorchDispatch`, by which",
    "import sys\nsys.setprofile(None)": "`setprofile`, by which",
    "exec('x')": "`exec`, by which",
    "from autograde.exercises import find": "`autograde.exercises`, where",
    "import autograde.exercises.transformer": "`autograde.exercises`, where",
}
NOT_TOLD = [
    "def softmax(x):\n    '''softmax of x'''\n    return softmax(x)",
    "import torch\nfrom autograde import check\nx.exp() / x.exp().sum()",
    "roles = ['system', 'user', 'compile']",
    "this is no Python",
    "",
]


@pytest.mark.parametrize("text", TOLD)
def test_a_text_that_could_use_it_is_a_remark(text):
    (told,) = remarks("softmax", text, SOFTMAX)
    assert told.startswith("softmax: its text has ") and TOLD[text] in told


@pytest.mark.parametrize("text", NOT_TOLD)
def test_other_texts_are_none(text):
    assert remarks("softmax", text, SOFTMAX) == []


def test_what_nothing_forbids_may_be_used():
    assert remarks("other", "import threading\nx.softmax(-1)", []) == []
    assert remarks("other", f"import {EXERCISES}", []) != []
    for text in ("from autograde.reference import solution", "from autograde import answers"):
        assert "where the right answers are" in remarks("other", text, [])[0]


def test_every_exercise_forbids_what_it_lists_by_name():
    for name in names():
        for forbidden in find(name).forbid:
            assert bare(forbidden.rpartition(".")[2]) in computes(forbidden)


def test_of_a_submission_solutions_and_added_cells_are_read():
    exercises = {name: find(name) for name in ("softmax", "causal_mask")}
    solutions = {"softmax": "x.softmax(-1)", "causal_mask": "x.softmax(-1)"}
    told = suspicions(solutions, [("an added cell", "import subprocess")], exercises)
    assert [text.partition(":")[0] for text in told] == ["softmax", "an added cell"]


def test_check_takes_no_ready_made_solution(capsys):
    causal_mask = find("causal_mask").oracle
    assert check(causal_mask) == check(causal_mask, hidden=True) == 0.0
    assert "autograde.exercises" in capsys.readouterr().out


def test_importing_a_forbidden_module_calls_nothing_yet(tmp_path, monkeypatch):
    """torch imports some of its modules when something else is first used: nobody is to be blamed for that."""
    (tmp_path / "ready_made").mkdir()
    (tmp_path / "ready_made/__init__.py").write_text("from ready_made.parts import half\nvalue = half(4)\n")
    (tmp_path / "ready_made/parts.py").write_text("class Part:\n    pass\n\n\ndef half(n):\n    return n / 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    with Watch(["ready_made"]) as watch:
        import ready_made
    assert watch.used is None
    with Watch(["ready_made"]) as watch:
        ready_made.half(6)
    assert watch.used == "ready_made"
