"""What a notebook may have set for all of its code, and what a check replaces by a fresh kernel's while it runs."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

_KEEP = object()  # no fresh value: what a call changes is put back, and nothing else is done


@dataclasses.dataclass(frozen=True)
class _Setting:
    read: Callable[[], Any]
    write: Callable[[Any], Any]
    fresh: Any


def _print_options() -> dict[str, Any]:
    return vars(torch._tensor_str.PRINT_OPTS).copy()


def _precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # torch refuses to say once its newer, finer settings were used
        return "highest"


_SETTINGS = (
    _Setting(torch.is_grad_enabled, torch.set_grad_enabled, True),
    _Setting(torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    _Setting(
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda how: torch.use_deterministic_algorithms(how[0], warn_only=how[1]),
        (False, False),
    ),
    _Setting(
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda how: torch.set_anomaly_enabled(*how),
        (False, True),
    ),
    _Setting(lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on), False),
    _Setting(_precision, torch.set_float32_matmul_precision, "highest"),
    _Setting(
        _print_options,
        lambda options: torch.set_printoptions(**options),
        {field.name: field.default for field in dataclasses.fields(torch._tensor_str.PRINT_OPTS)},
    ),
    _Setting(
        np.geterr,
        lambda how: np.seterr(**how),
        {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"},
    ),
    _Setting(torch.get_num_threads, torch.set_num_threads, _KEEP),
)
_PYTHON_START, _NUMPY_START = random.Random(0).getstate(), np.random.RandomState(0).get_state()


@contextlib.contextmanager
def fresh_kernel(everything: bool = True):
    """Inside, what torch, numpy and Python's warnings do is what they do in a fresh kernel; afterwards as it was.

    Gradients are on, also in torch.no_grad() and torch.inference_mode(); numbers are float32 and on the CPU unless
    somebody says otherwise; no autocast, no anomaly mode, no deterministic algorithms, no lower precision of matrix
    products; tensors print as ever; a warning is no error, nor is a division by zero in numpy; what torch.compile made
    runs as the Python that it was made from, so that a watch sees the learner's own calls and no compiler is needed.
    The random state of torch starts from 0, and with `everything` those of numpy and Python, too. The number of
    threads is left and put back.

    Whatever the body leaves behind is undone, even if it was interrupted: a function that switches gradients off, a
    mode on torch's stacks, a profile hook.
    """
    before = [setting.read() for setting in _SETTINGS]
    with contextlib.ExitStack() as stack:
        stack.callback(_put, before)
        stack.callback(_unwind, torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack())
        stack.callback(sys.setprofile, sys.getprofile())
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if any(action == "error" for action, *_ in warnings.filters):
            stack.enter_context(warnings.catch_warnings())
            warnings.filters[:] = [rule for rule in warnings.filters if rule[0] != "error"]
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if "torch._dynamo" in sys.modules:  # else nothing has been compiled, and importing it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(fixed_randomness())
        if everything:
            stack.enter_context(_fixed_numbers())
        _put([setting.fresh for setting in _SETTINGS])
        yield


def _put(values: list) -> None:
    for setting, value in zip(_SETTINGS, values, strict=True):
        if value is not _KEEP and setting.read() != value:
            setting.write(value)


def _unwind(functions: int, operators: int) -> None:
    """Take from torch's stacks the modes that an interruption left there."""
    while torch._C._len_torch_function_stack() > functions:
        torch._C._pop_torch_function_stack()
    while torch._C._len_torch_dispatch_stack() > operators:
        torch._C._pop_torch_dispatch_stack(None)


@contextlib.contextmanager
def fixed_randomness():
    """torch's global generator starts from 0 inside, and is as it was afterwards."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(0)
    try:
        yield
    finally:
        torch.set_rng_state(before)


@contextlib.contextmanager
def _fixed_numbers():
    """The same for numpy and Python, which takes a tenth of a millisecond: once a check, not once a call."""
    before = np.random.get_state(), random.getstate()
    np.random.set_state(_NUMPY_START)
    random.setstate(_PYTHON_START)
    try:
        yield
    finally:
        np.random.set_state(before[0])
        random.setstate(before[1])
