"""A check gives the same result whatever the notebook has set, and leaves it as it was."""

from __future__ import annotations

import functools
import random
import signal
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import autograde
from autograde.exercises import find, names
from autograde.judging.grading import grade
from autograde.judging.surroundings import fresh_kernel

WITHOUT_RANKS = [name for name in names() if not find(name).ranks]


@pytest.fixture
def hostile():
    """What somebody may have set in a cell above: everything that torch, numpy and warnings have for all code."""
    threads, options = torch.get_num_threads(), vars(torch._tensor_str.PRINT_OPTS).copy()
    with warnings.catch_warnings(), np.errstate(all="raise"), torch.inference_mode():
        warnings.simplefilter("error")
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_printoptions(precision=1, sci_mode=True)
        torch.use_deterministic_algorithms(True)
        torch.autograd.set_detect_anomaly(True)
        torch.set_autocast_enabled("cpu", True)
        torch.set_float32_matmul_precision("medium")
        np.random.seed(3)
        random.seed(3)
        yield
        torch.set_float32_matmul_precision("highest")
        torch.set_autocast_enabled("cpu", False)
        torch.autograd.set_detect_anomaly(False)
        torch.use_deterministic_algorithms(False)
        torch.set_printoptions(**options)
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)
    torch.set_grad_enabled(True)


def state():
    return {
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "printing": vars(torch._tensor_str.PRINT_OPTS).copy(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "precision": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
        "errors": np.geterr(),
        "warnings": list(warnings.filters),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
        "torch": torch.get_rng_state().tolist(),
        "modes": (torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()),
        "profile": sys.getprofile(),
        "output": (sys.stdout, sys.stderr),
    }


@pytest.mark.parametrize("name", WITHOUT_RANKS)
def test_a_right_solution_is_right_in_a_notebook_that_has_set_everything(name, hostile):
    exercise, before = find(name), state()
    report = grade(exercise, exercise.alternatives[0])
    assert report.solved, report.text()
    assert state() == before


def test_a_hostile_notebook_is_one(hostile):
    """Else the test above would say nothing."""
    for harmful in (lambda: warnings.warn("told", stacklevel=1), lambda: np.float64(1) / np.float64(0)):
        with pytest.raises((UserWarning, FloatingPointError)):
            harmful()
        with fresh_kernel(), warnings.catch_warnings(record=True) as told:
            harmful()
            assert told
    assert torch.zeros(1).is_meta and torch.zeros(1).is_inference() and torch.zeros(1).dtype == torch.float64
    with fresh_kernel():
        x = torch.ones(2, requires_grad=True)
        (x * 2).sum().backward()
        assert x.grad.tolist() == [2, 2] and x.dtype == torch.float32
        assert f"{x.detach() / 3}" == "tensor([0.3333, 0.3333])"


def test_what_a_solution_sets_is_undone():
    before = state()

    def softmax(x):
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_printoptions(precision=1)
        np.random.seed(1)
        random.seed(1)
        np.seterr(all="raise")
        torch.overrides.BaseTorchFunctionMode().__enter__()
        return find("softmax").oracle(x)

    grade(find("softmax"), softmax)
    assert state() == before


def right_softmax(x):
    powers = (x - x.amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True)


def right_rms_norm(x, weight, eps=1e-6):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


class Softmax(torch.nn.Module):
    def __init__(self, dim=-1):
        super().__init__()
        self.dim = dim

    def forward(self, x):
        return right_softmax(x.transpose(self.dim, -1)).transpose(self.dim, -1)

    def __call__(self, x):
        return super().__call__(x)


class Callable_:
    def __call__(self, x):
        return right_softmax(x)

    def method(self, x):
        return right_softmax(x)


def compiles_inside(x):
    return torch.compile(right_softmax, backend="eager")(x)


CALLABLES = {
    "compiled": lambda: torch.compile(right_softmax, backend="eager"),
    "compiled module": lambda: torch.compile(Softmax(), backend="eager"),
    "compiled inside": lambda: compiles_inside,
    "module": Softmax,
    "partial": lambda: functools.partial(lambda dim, x: right_softmax(x), -1),
    "bound": lambda: Callable_().method,
    "callable": Callable_,
    "lambda": lambda: lambda x: right_softmax(x),
}


@pytest.mark.parametrize("made", CALLABLES.values(), ids=list(CALLABLES))
def test_whatever_can_be_called_is_judged_as_what_it_is(made, monkeypatch, capsys):
    monkeypatch.setenv("LABKIT_NO_PROGRESS", "1")
    softmax = made()
    assert autograde.check(softmax) == 2.0, capsys.readouterr().out


def test_a_compiled_function_is_not_accused_of_what_the_compiler_calls():
    exercise = find("rms_norm")
    report = grade(exercise, torch.compile(right_rms_norm, backend="eager"))
    assert report.status != "no points", report.text()
    wrong = torch.compile(lambda x: F.softmax(x, -1), backend="eager")
    assert "don't call it" in grade(find("softmax"), wrong).text(), "compiling hides nothing, either"


@pytest.mark.parametrize("where", ["in Python", "in torch"])
def test_an_interrupted_check_says_so_and_leaves_everything_as_it_was(where, monkeypatch, capsys):
    monkeypatch.setenv("LABKIT_NO_PROGRESS", "1")
    calls = []

    def softmax(x):
        calls.append(x)
        if where == "in torch":
            torch.overrides.BaseTorchFunctionMode().__enter__()
        torch.set_grad_enabled(False)
        signal.raise_signal(signal.SIGINT)
        return x

    before, stdout = state(), sys.stdout
    assert autograde.check(softmax) == 0.0
    assert len(calls) == 1 and sys.stdout is stdout
    assert state() == before
    assert capsys.readouterr().out == "softmax: the check was interrupted, so there is no result.\n"


def test_a_check_in_a_thread_is_as_any_other(hostile):
    found = []
    thread = threading.Thread(target=lambda: found.append(grade(find("softmax"), right_softmax)))
    thread.start()
    thread.join()
    assert found[0].solved
