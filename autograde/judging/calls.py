"""Call a learner's implementation on one case, so that nothing it does can hurt the check.

Whatever happens inside (an exception, a print flood, an endless loop, a changed input, an exotic return value), the
caller gets an `Outcome` made of plain values.
"""

from __future__ import annotations

import contextlib
import copy
import io
import linecache
import pathlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from autograde.exercise import Case, Exercise
from autograde.judging.comparing import compare, describe, rebuild, tensors
from autograde.judging.forbidding import Watch, always_forbidden, dont_call, is_ready_made
from autograde.judging.gradients import gradients
from autograde.judging.limits import TimeLimit, time_limit

_HERE = str(pathlib.Path(__file__).parents[1])
_LABKIT = str(pathlib.Path(__file__).parents[2] / "labkit")
_MOST_PRINTED = 2_000
_MOST_NUMBERS = 50_000_000


@dataclass(frozen=True)
class Failure:
    """Why a call gave no value. `kind`: not implemented, raised, too slow, forbidden, too large, ranks."""

    kind: str
    message: str
    type: str = ""
    trace: str = ""


@dataclass(frozen=True)
class Outcome:
    """What one call gave: a plain value, or a failure; the inputs that it changed; what it printed.

    `shared` are the inputs in whose memory the value lay.
    """

    value: Any = None
    failure: Failure | None = None
    changed: tuple[str, ...] = ()
    printed: str = ""
    shared: tuple[str, ...] = ()


def run_once(implementation: Callable, exercise: Exercise, one: Case) -> Outcome:
    """Call the implementation (through the probe, if there is one) on a copy of the case's inputs."""
    args, kwargs = copied(one.args), copied(one.kwargs)
    target = (implementation, *args) if exercise.probe else args
    function = exercise.probe or implementation
    out = Bounded()
    value, failure, shared, watch = None, None, (), _watch(implementation, exercise)
    try:
        with _surroundings(exercise, out, watch):
            if one.backward is None:
                value = function(*target, **kwargs)
            else:
                value, _ = gradients(function, target, kwargs, one.backward)
        shared = _shared(value, args, kwargs)
        value = plain(value)
    except TimeLimit:
        failure = Failure("too slow", f"The call did not return within {exercise.limit:g} s.", "TimeLimit")
    except NotImplementedError:
        failure = Failure("not implemented", "Not implemented yet.", "NotImplementedError")
    except _TooLarge as error:
        failure = Failure("too large", str(error))
    except (Exception, SystemExit) as error:
        failure = Failure("raised", _one_line(error), type(error).__name__, short_traceback(error))
    if watch.used:
        failure = Failure("forbidden", dont_call(watch.used))
    changed = () if exercise.mutates or failure else _changed(one, args, kwargs)
    return Outcome(None if failure else value, failure, changed, out.getvalue(), () if failure else shared)


@contextlib.contextmanager
def _surroundings(exercise: Exercise, out, watch: Watch):
    """A fixed random state, captured output, a time limit, and a watch on forbidden calls."""
    grad = torch.is_grad_enabled()
    with fixed_randomness(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            with time_limit(None if exercise.ranks else exercise.limit), watch:
                yield
        finally:
            torch.set_grad_enabled(grad)


@contextlib.contextmanager
def fixed_randomness():
    """torch's global generator starts from 0 inside, and is as it was afterwards."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(0)
    try:
        yield
    finally:
        torch.set_rng_state(before)


def _watch(implementation: Callable, exercise: Exercise) -> Watch:
    """On what is forbidden here, and on the exercises themselves. Their own solutions may use each other."""
    if is_ready_made(implementation):
        return Watch(exercise.forbid)
    return Watch(always_forbidden(exercise.forbid), exercise.probe)


def copied(value: Any) -> Any:
    """A deep copy that keeps each tensor's strides, so that a non-contiguous input stays one.

    Tensors that share memory share it in the copy, too.
    """
    held = list(tensors(value))
    if all(map(_is_simple, held)) and len({x.untyped_storage().data_ptr() for x in held}) == len(held):
        return copy.deepcopy(value, {id(x): x.clone() for x in held})  # clone takes a fifth of the time
    return copy.deepcopy(value)


def _is_simple(x: torch.Tensor) -> bool:
    """Whether nothing is lost when the tensor is cloned."""
    return type(x) is torch.Tensor and x.layout is torch.strided and x.is_contiguous() and not x.requires_grad


def plain(value: Any) -> Any:
    """A value as plain tensors, numbers, texts and containers: no subclass, no graph, no shared memory."""
    if isinstance(value, torch.Tensor):
        return _plain_tensor(value)
    if isinstance(value, (list, tuple, dict)):
        return rebuild(value, _plain_tensor)
    return value


def _plain_tensor(value: torch.Tensor) -> torch.Tensor:
    if value.numel() > _MOST_NUMBERS:
        raise _TooLarge(f"The result holds {value.numel():,} numbers: far more than the task needs.")
    with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
        tensor = value.detach().as_subclass(torch.Tensor)
        tensor = tensor.to_dense() if tensor.layout is not torch.strided else tensor
        return tensor.resolve_conj().resolve_neg().to("cpu", copy=True).contiguous()


class _TooLarge(Exception):
    pass


def _named(args, kwargs) -> dict[str, Any]:
    """The inputs by "argument 1" or the keyword."""
    return {**{f"argument {i + 1}": value for i, value in enumerate(args)}, **kwargs}


def _shared(value: Any, args, kwargs) -> tuple[str, ...]:
    """The inputs that the value is, or shares memory with."""
    places = {x.untyped_storage().data_ptr() for x in tensors(value) if x.layout is torch.strided and x.numel()}
    return tuple(
        name
        for name, given in _named(args, kwargs).items()
        if (given is value and isinstance(given, (list, dict)))
        or any(x.untyped_storage().data_ptr() in places for x in tensors(given) if x.layout is torch.strided)
    )


def _changed(one: Case, args, kwargs) -> tuple[str, ...]:
    """Which inputs are no longer what they were."""
    before, after = _named(one.args, one.kwargs), _named(args, kwargs)
    return tuple(name for name in before if not _untouched(before[name], after[name]))


def _untouched(before: Any, after: Any) -> bool:
    if before is after:  # copying gives back a number or a text itself: nobody can change one
        return True
    pairs = list(zip(tensors(before), tensors(after), strict=False))
    if not all(_holds_the_same(b, a) for b, a in pairs if b.numel()):
        return False
    if pairs or isinstance(before, torch.nn.Module) or callable(before) or isinstance(before, torch.Generator):
        return True
    return compare(before, after, equal_nan=True) is None


def _holds_the_same(before: torch.Tensor, after: torch.Tensor) -> bool:
    if before.shape != after.shape or before.dtype != after.dtype:
        return False
    return torch.equal(before, after) or torch.equal(before.nan_to_num(), after.nan_to_num())


class Bounded(io.StringIO):
    """Keeps the first part of what is printed and forgets the rest."""

    def write(self, text: str) -> int:
        room = _MOST_PRINTED - self.tell()
        super().write(text[: max(room, 0)])
        return len(text)


def _one_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__


def short_traceback(error: BaseException) -> str:
    """The learner's own frames, at most the last four, and the error; nothing of the checker or of libraries."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_ours(f.filename)]
    own = [f for f in frames if "site-packages" not in f.filename] or frames
    lines = []
    for frame in own[-4:]:
        source = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
        lines.append(f"line {frame.lineno}, in {frame.name}:  {source}".rstrip())
    return "\n".join([*lines, _one_line(error)])


def _is_ours(filename: str) -> bool:
    return filename.startswith((_HERE, _LABKIT)) and "exercises" not in filename


def told(outcome: Outcome) -> str:
    """An outcome in a few words."""
    return outcome.failure.message if outcome.failure else describe(outcome.value)
