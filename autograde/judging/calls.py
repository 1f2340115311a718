"""Call a learner's implementation on one case, so that nothing it does can hurt the check.

Whatever happens inside (an exception, a print flood, an endless loop, a changed input, an exotic return value), the
caller gets an `Outcome` made of plain values.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
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
from autograde.judging.limits import TimeLimit, granted, left, time_limit
from autograde.judging.surroundings import fresh_kernel

_HERE = str(pathlib.Path(__file__).parents[1])
_LABKIT = str(pathlib.Path(__file__).parents[2] / "labkit")
_MOST_PRINTED = 2_000
_MOST_NUMBERS = 50_000_000


@dataclass(frozen=True)
class Failure:
    """Why a call gave no value. `trace` has the learner's own lines, where there are some, and ends in the error.

    `kind`: not implemented; needs (another function that isn't); raised; too slow; not tried (the check's time was
    over); forbidden; too large; ranks.
    """

    kind: str
    message: str
    type: str = ""
    trace: str = ""


UNTOUCHED = Failure("not implemented", "Not implemented yet.", "NotImplementedError")


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
    if not left():
        return Outcome(failure=over())
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
    except TimeLimit as error:
        failure = _cut(error, exercise)
    except _TooLarge as error:
        failure = Failure("too large", str(error))
    except (Exception, SystemExit) as error:
        failure = _unfinished(error, implementation, exercise) or _raised(error)
    if watch.used:
        failure = Failure("forbidden", dont_call(watch.used))
    changed = () if exercise.mutates or failure else _changed(one, args, kwargs)
    return Outcome(None if failure else value, failure, changed, out.getvalue(), () if failure else shared)


def _raised(error: BaseException) -> Failure:
    return Failure("raised", _one_line(error), type(error).__name__, short_traceback(error))


def _cut(error: TimeLimit, exercise: Exercise) -> Failure:
    """The failure of a call that was ended, with the line where it was."""
    if not left():
        return over(error)
    message = f"The call did not return within {exercise.limit:g} s."
    return Failure("too slow", message, "TimeLimit", short_traceback(error, message))


def over(error: TimeLimit | None = None) -> Failure:
    """The failure of a call for which no time was left, or which was running when none was."""
    what = "it was not tried" if error is None else "the call had not returned"
    message = f"The check's {granted():g} s were over: {what}."
    return Failure("not tried", message, "TimeLimit", short_traceback(error, message) if error else "")


def _unfinished(error: BaseException, implementation: Any, exercise: Exercise) -> Failure | None:
    """The failure where a bare `raise NotImplementedError` of the learner's own ended the call, else None.

    It may be that of the function itself, whose cell is as it was released or half written, or that of another one
    that it calls. A library's (torch's on a Mac, where an operator is missing) is an error like any other.
    """
    if type(error) is not NotImplementedError or error.args:
        return None
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    own, code = functions_of(implementation), frame.f_code
    if any(code is f.__code__ or code.co_qualname.startswith(f"{f.__qualname__}.<locals>.") for f in own):
        if code.co_names == ("NotImplementedError",):
            return UNTOUCHED
        told = f"Not implemented yet: it comes to `raise NotImplementedError` in line {line}, which still stands there."
        return Failure("not implemented", told, "NotImplementedError", short_traceback(error))
    if not any(frame.f_globals is f.__globals__ for f in own):
        return None
    other = code.co_qualname.rpartition("<locals>.")[2].split(".")[0]
    told = f"`{exercise.name}` calls `{other}`, which isn't implemented yet: solve that first."
    return Failure("needs", told, "NotImplementedError")


def functions_of(implementation: Any) -> list[Callable]:
    """The Python functions behind a callable: a function, wrapped or partial or bound, or the methods of a class."""
    while isinstance(implementation, (functools.partial, functools.partialmethod)):
        implementation = implementation.func
    held = getattr(implementation, "_orig_mod", implementation)  # what torch.compile makes of a module
    held = inspect.unwrap(getattr(held, "__func__", held)) if not isinstance(held, type) else held
    if inspect.isfunction(held):
        return [held]
    members = vars(held if isinstance(held, type) else type(held)).values()
    bare = [getattr(member, "fget", None) or getattr(member, "__func__", None) or member for member in members]
    return [f for f in map(_unwrapped, bare) if inspect.isfunction(f)]


def _unwrapped(member: Any) -> Any:
    return inspect.unwrap(member) if callable(member) else member


@contextlib.contextmanager
def _surroundings(exercise: Exercise, out, watch: Watch):
    """A fresh kernel's state, captured output, a time limit, and a watch on forbidden calls."""
    limit = None if exercise.ranks else min(exercise.limit, max(left(), 0.001))  # 0 would be no limit at all
    with contextlib.ExitStack() as stack:
        parts = contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), time_limit(limit), watch
        for part in (fresh_kernel(everything=False), *parts):
            stack.enter_context(part)
        yield


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
    handed = [value, *value] if isinstance(value, (list, tuple)) else [value]
    return tuple(
        name
        for name, given in _named(args, kwargs).items()
        if (isinstance(given, (list, dict)) and any(given is one for one in handed))
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


def short_traceback(error: BaseException, last: str = "") -> str:
    """The learner's own frames, at most the last four, and the error (or `last`); nothing of checker or libraries."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_ours(f.filename)]
    own = [f for f in frames if "site-packages" not in f.filename] or frames
    lines = []
    for frame in own[-4:]:
        source = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
        lines.append(f"line {frame.lineno}, in {frame.name}:  {source}".rstrip())
    return "\n".join([*lines, last or _one_line(error)])


def _is_ours(filename: str) -> bool:
    return filename.startswith((_HERE, _LABKIT)) and "exercises" not in filename


def told(outcome: Outcome) -> str:
    """An outcome in a few words."""
    return outcome.failure.message if outcome.failure else describe(outcome.value)
