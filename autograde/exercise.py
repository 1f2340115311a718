"""The vocabulary: an exercise is data, and everything else is derived from it.

An `Exercise` holds what a correct solution must do (an oracle, laws), what people get wrong (misconceptions, as
complete wrong implementations) and how to tell the two apart (cases). The learner's feedback, the hidden tests, the
classroom grader and the tests of the grader itself all read the same value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch

from autograde.judging.comparing import compare, slack, tensors
from autograde.judging.gradients import FLOWS, flows
from autograde.judging.widening import widened

__all__ = ["Case", "Draft", "Exercise", "Law", "Misconception", "PerRank", "case", "keeps_dtype", "same", "tolerances"]

Function = TypeVar("Function", bound=Callable)


@dataclass(frozen=True)
class Case:
    """The inputs of one call.

    `args` and `kwargs` hold tensors, numbers, strings, None, and lists, tuples and dicts of those. `label` says in a
    few words what is special here ("one head", "odd length"). `ranks` is the number of processes the call runs on, and
    None for an ordinary call. `trained` marks the cases on which gradients are compared, too, `wild` those of them
    where they only have to be finite, `made` those that were made from others (widening.py). `backward` asks for
    gradients instead of the result: the numbers of the result's tensors that something is trained through, and of the
    floating-point inputs that are trained.
    """

    args: tuple
    kwargs: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    ranks: int | None = None
    trained: bool = False
    wild: bool = False
    made: bool = False
    backward: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    @cached_property
    def slack(self) -> float:
        """The least tolerance there is, since the inputs themselves may carry few digits."""
        return max((slack(x.dtype) for x in tensors([list(self.args), self.kwargs])), default=0.0)


def case(*args, label: str = "", ranks: int | None = None, **kwargs) -> Case:
    """A `Case` written the way the learner's function is called: `case(x, positions, base=500.0, label="one head")`."""
    return Case(args, kwargs, label, ranks)


class PerRank(list):
    """What a call on several ranks gave: one value a rank, in rank order.

    `traffic[r]` is the list of messages (`labkit.Message`: op, shape, dtype, bytes, peer) that rank r issued.
    """

    def __init__(self, values: Iterable, traffic: Sequence[list] = ()):
        super().__init__(values)
        self.traffic = list(traffic)


@dataclass(frozen=True)
class Law:
    """A property that every correct solution has, with a name that a learner can read.

    `holds(out, case, call)` is asked on every case. `out` is what the solution gave for `case`; `call(*args, **kwargs)`
    runs the solution on other inputs (with `ranks=n` for a rank exercise). It answers True; False, or a sentence that
    says what is wrong; or None where the law does not apply to this case. An `essential` law is what the task is about
    (the memory of an online softmax, the messages of a ring): it is worth as much as all values together. Only one that
    is asked `everywhere` meets the cases in bfloat16 and float16 that were made from others: most reckon with digits.
    """

    name: str
    holds: Callable[[Any, Case, Callable], bool | str | None]
    essential: bool = False
    everywhere: bool = False


@dataclass(frozen=True)
class Misconception:
    """A mistake that people really make, as a complete wrong implementation.

    `says` completes the sentence "Your result is exactly what comes out when …". `hint` tells the learner what to look
    at, without giving the solution. `implementation` has the signature of the learner's own object.
    `hangs` marks one that gives no value on ranks, since they wait for each other, fail, or a message does not arrive:
    it is run only to explain a solution that gives none either.
    """

    says: str
    implementation: Callable
    hint: str
    hangs: bool = False


@dataclass(frozen=True)
class Exercise:
    """One graded function or class. It can't be changed; a `Draft` writes it.

    name:           the name of the learner's function, unique in the course.
    points:         full marks. Agreement with the oracle, every essential law, and the other laws together are worth
                    the same.
    cases:          `cases(generator)` draws the inputs from a seeded `torch.Generator`; one seed always gives the
                    same cases. More are made of them, see `dtypes` and `strides`.
    oracle:         `oracle(*case.args, **case.kwargs)`: the right answer, from an implementation nobody here wrote
                    where one exists. None for an exercise that only laws can judge.
    laws:           properties, see `Law`.
    misconceptions: wrong implementations, see `Misconception`. Each must be rejected, and diagnosed as itself.
    alternatives:   correct implementations that look different. Each must be accepted.
    probe:          for classes and stateful things: `probe(learners_object, *case.args, **case.kwargs)` builds and uses
                    the object and returns plain tensors. Self-contained (its imports are inside), so that it can be
                    sent to where the learner's code runs. The oracle gives what the probe should return.
    ranks:          True where each call runs on several processes: the probe (or the function itself) is called on
                    every rank with torch.distributed initialized. `out` is a `PerRank`, and the oracle gives a list
                    with one value a rank.
    forbid:         shortcuts that would make the exercise pointless, as dotted names of functions or modules
                    ("torch.nn.functional.softmax", "transformers"). Caught at run time, however they are spelled, and
                    so are torch's operators that compute the same (`FAMILIES` in judging/forbidding.py).
    hints:          three, from a nudge to nearly the answer.
    rtol, atol:     tolerance for float32 and float64; bfloat16 and float16 inputs widen it.
    dtypes:         the first cases are also drawn in these dtypes, where they have float32 tensors.
    precise:        True where the docstring promises that few digits (bfloat16, float16) are only lost at the end.
    strict:         True where 3 and 3.0 differ, as in JSON.
    strides:        False where inputs are contiguous, as the docstring says: else a case is drawn in which none is.
    no_gradient:    why nobody trains through it, or an empty text: then a law compares gradients, too.
    fresh:          True where the docstring promises a new object, which shares no memory with an input.
    mutates:        True where changing the inputs in place is part of the task.
    limit:          seconds that one call may take.
    agrees:         replaces the comparison with the oracle: `agrees(expected, got, case)` gives True, or a sentence.
                    It also decides whether a solution's results are those of a misconception (then `expected` is the
                    latter's).
    """

    name: str
    points: int
    cases: Callable[[torch.Generator], Iterable[Case]]
    oracle: Callable | None = None
    laws: tuple[Law, ...] = ()
    misconceptions: tuple[Misconception, ...] = ()
    alternatives: tuple[Callable, ...] = ()
    probe: Callable | None = None
    ranks: bool = False
    forbid: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    rtol: float = 1e-4
    atol: float = 1e-5
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.bfloat16)
    precise: bool = False
    strict: bool = False
    strides: bool = True
    no_gradient: str = ""
    fresh: bool = False
    mutates: bool = False
    limit: float = 5.0
    agrees: Callable[[Any, Any, Case], bool | str] | None = None

    def __post_init__(self):
        """Any sequence will do; what is kept can't be changed from outside."""
        for name in ("laws", "misconceptions", "alternatives", "forbid", "hints", "dtypes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def draw(self, seed: int) -> list[Case]:
        """The cases of one seed, always the same ones."""
        generator = torch.Generator().manual_seed(seed % 2**63)
        drawn = list(self.cases(generator))
        if not drawn:
            raise ValueError(f"exercise {self.name}: cases() drew no case")
        return widened(drawn, self.dtypes, self.strides, bool(self.no_gradient))


class Draft:
    """An exercise while its file is read, from top to bottom: each part is taken where it is defined.

        exercise = Draft("causal_mask", points=2, hints=["…", "…", "…"])

        @exercise.mistake("no token sees itself", hint="The token itself may be read.")
        def without_itself(n, past=0): ...

    `settings` are the fields of `Exercise` that are no functions: points, forbid, hints, rtol, dtypes, ranks … Every
    decorator gives its function back as it was, so that one can serve in several places. Laws, mistakes and
    alternatives keep the order of the file. `finished()` gives the `Exercise`; after that a Draft takes nothing more
    (RuntimeError).
    """

    def __init__(self, name: str, **settings):
        self.name, self._settings = name, settings
        self._laws: list[Law] = []
        self._mistakes: list[Misconception] = []
        self._alternatives: list[Callable] = []
        self._parts: dict[str, Callable] = {}
        self._finished: Exercise | None = None

    def finished(self) -> Exercise:
        """The exercise, the same value at every call."""
        if self._finished is None:
            if self._is_trained_through():
                self._laws.append(Law(FLOWS, flows(self._parts["oracle"])))
            many = {"laws": self._laws, "misconceptions": self._mistakes, "alternatives": self._alternatives}
            self._finished = Exercise(self.name, **self._settings, **self._parts, **many)
        return self._finished

    def _is_trained_through(self) -> bool:
        return "oracle" in self._parts and not self._settings.get("no_gradient") and not self._settings.get("ranks")

    def cases(self, function: Function) -> Function:
        """Decorates `cases(generator)`, see `Exercise`."""
        return self._part("cases", function)

    def oracle(self, function: Function) -> Function:
        """Decorates the right answer, see `Exercise`."""
        return self._part("oracle", function)

    def probe(self, function: Function) -> Function:
        """Decorates what builds and uses the learner's object, see `Exercise`."""
        return self._part("probe", function)

    def agrees(self, function: Function) -> Function:
        """Decorates what replaces the comparison with the oracle, see `Exercise`."""
        return self._part("agrees", function)

    def law(self, name: str | Law, *, essential: bool = False) -> Callable[[Function], Function] | Law:
        """Decorates a property `holds(out, case, call)` that every correct solution has, or takes a whole `Law`."""
        if isinstance(name, Law):
            return self._listed(self._laws, lambda law: law)(name)
        return self._listed(self._laws, lambda function: Law(name, function, essential, function is keeps_dtype))

    def mistake(self, says: str, *, hint: str, hangs: bool = False) -> Callable[[Function], Function]:
        """Decorates a complete wrong implementation, see `Misconception`."""
        return self._listed(self._mistakes, lambda function: Misconception(says, function, hint, hangs))

    def alternative(self, function: Function) -> Function:
        """Decorates a correct implementation that looks different, see `Exercise`."""
        return self._listed(self._alternatives, lambda function: function)(function)

    def _part(self, what: str, function: Function) -> Function:
        if what in self._parts:
            raise ValueError(f"exercise {self.name} has two of {what}: keep one.")
        self._open()
        self._parts[what] = function
        return function

    def _listed(self, items: list, made: Callable[[Callable], Any]) -> Callable[[Function], Function]:
        def take(function: Function) -> Function:
            self._open()
            items.append(made(function))
            return function

        return take

    def _open(self) -> None:
        if self._finished is not None:
            raise RuntimeError(f"exercise {self.name} is finished: its parts stand in its own file.")


def same(a: Any, b: Any, rtol: float = 1e-4, atol: float = 1e-5) -> bool:
    """Whether two results agree: shapes, kinds of dtype and values. NaN agrees with nothing."""
    return compare(b, a, rtol=rtol, atol=atol) is None


def keeps_dtype(out: Any, one: Case, call: Callable) -> bool | str | None:
    """A law for functions whose results have the dtype of their first floating-point input: comparing doesn't ask."""
    given = next((x.dtype for x in tensors([list(one.args), one.kwargs]) if x.is_floating_point()), None)
    other = next((x.dtype for x in tensors(out) if x.is_floating_point() and x.dtype != given), None)
    return None if given is None else other is None or f"{given} went in, {other} came out"


def tolerances(exercise: Exercise, one: Case) -> dict[str, Any]:
    """How `compare` has to compare: the exercise's rtol and atol, widened where the inputs carry few digits.

    Where these may only be lost at the end, that is two roundings (the weight of a norm may be multiplied after one).
    """
    if not exercise.precise:
        return {"rtol": max(exercise.rtol, one.slack), "atol": max(exercise.atol, one.slack), "strict": exercise.strict}
    digits = [2 * torch.finfo(x.dtype).eps for x in tensors([list(one.args), one.kwargs]) if x.is_floating_point()]
    rtol = max([exercise.rtol, *digits])
    return {"rtol": rtol, "atol": exercise.atol, "strict": exercise.strict, "precise": True}
