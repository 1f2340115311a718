"""`hint(fn)` and `failing(fn)`: what a learner asks for after a check."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from autograde.asking import MISSING, exercise_of
from autograde.exercise import Exercise
from autograde.judging.calls import copied
from autograde.judging.pointing import Pointed, shown
from autograde.report import escaped
from labkit.display import show_html
from labkit.errors import PlainError

_given: Counter[str] = Counter()
_checked: dict[str, Pointed | None] = {}  # of each exercise's last check, which was not a hidden one


def hint(exercise: Callable | str = MISSING) -> None:
    """Show the next of an exercise's hints, and how many are left.

    `exercise` is the learner's function or class, or its name: `hint(softmax)`, `hint("softmax")`. Each call gives the
    next hint, from a nudge to nearly the answer; after the last one it starts again. They are those that stand folded
    under the exercise in its notebook.
    """
    found, sentence = exercise_of(exercise, inspect.currentframe().f_back, "hint")
    if found is None:
        return _say(sentence)
    return _say(next_hint(found))


def next_hint(found: Exercise) -> str:
    """The next of an exercise's hints, in words."""
    if not found.hints:
        return f"{found.name} has no hints."
    number = _given[found.name] % len(found.hints) + 1
    _given[found.name] += 1
    more = len(found.hints) - number
    left = f"{more} more: call `hint({found.name})` again." if more else "That was the last one."
    return f"Hint {number} of {len(found.hints)}: {found.hints[number - 1]}\n{left}"


def _say(text: str) -> None:
    if not show_html("".join(f'<p style="margin:.2em 0">{escaped(line)}</p>' for line in text.split("\n")), text):
        print(text)


class NothingFails(PlainError):
    """There is no failing case to hand over. The message says why."""


def failing(exercise: Callable | str = MISSING) -> FailingCase:
    """The inputs on which an exercise's last check failed, for a cell of one's own.

    `exercise` is the learner's function or class, or its name. Gives the `FailingCase` that the check's report shows:
    the smallest whose result is wrong, or where all results are right, the first on which a law does not hold. Each
    call gives fresh copies.

        q, k, v = failing(scaled_dot_product_attention)

    Raises NothingFails, with one sentence, if the exercise was not checked, passed, or was last checked on hidden
    inputs.
    """
    found, sentence = exercise_of(exercise, inspect.currentframe().f_back, "failing")
    if found is None:
        raise NothingFails(sentence)
    if found.name not in _checked:
        raise NothingFails(f"{found.name} was not checked here yet: run check({found.name}) first.")
    pointed = _checked[found.name]
    if pointed is None:
        raise NothingFails(f"The last check of {found.name} found no case that fails, or was not to show any.")
    return FailingCase(pointed)


class FailingCase:
    """The inputs of a call that went wrong, with what was expected.

    Unpacks into all its inputs, the positional ones first, then those given by keyword, in the report's order.

    args:     the positional arguments, a tuple
    kwargs:   those given by keyword, a dict
    expected: the right result, None where only laws can tell
    label:    what is special about the case, in a few words
    ranks:    the number of processes it runs on, None for an ordinary call

    `function(*case.args, **case.kwargs)` is the call that failed; where the exercise is a class or a function that the
    check calls through code of its own, or runs on ranks, `case.run(function)` is.
    """

    def __init__(self, pointed: Pointed):
        one = pointed.case
        self.args, self.kwargs, self.label, self.ranks = copied(one.args), copied(one.kwargs), one.label, one.ranks
        self.expected = copied(pointed.expected) if pointed.exercise.oracle else None
        self._name, self._probe, self._names = pointed.exercise.name, pointed.exercise.probe, pointed.names

    def __iter__(self) -> Iterator[Any]:
        return iter([*self.args, *self.kwargs.values()])

    def __len__(self) -> int:
        return len(self.args) + len(self.kwargs)

    def __getitem__(self, which: int | slice) -> Any:
        return list(self)[which]

    def __repr__(self) -> str:
        rows = [f"  {name} = {shown(value)}" for name, value in zip([*self._names, *self.kwargs], self, strict=True)]
        return "\n".join([f"A case on which {self._name} fails{f' ({self.label})' * bool(self.label)}:", *rows])

    def run(self, function: Callable) -> Any:
        """What the check calls: the function, through the exercise's own code and on ranks where it needs them."""
        call = (self._probe, function, *self.args) if self._probe else (function, *self.args)
        if self.ranks is None:
            return call[0](*call[1:], **self.kwargs)
        from labkit.launch import launch

        return launch(_called, self.kwargs, *call, ranks=self.ranks)


def _called(kwargs: dict, function: Callable, *args) -> Any:
    return function(*args, **kwargs)


def remember(name: str, pointed: Pointed | None) -> None:
    """What `failing` hands over from now on; None after a check that passed or was hidden."""
    _checked[name] = pointed


def offered(pointed: Pointed) -> str:
    """What a report says about the two: in a form that works when it is copied."""
    exercise, one = pointed.exercise, pointed.case
    inputs = [*pointed.names, *one.kwargs]
    plain = exercise.probe is None and one.ranks is None and len(inputs) <= 5 and all(n.isidentifier() for n in inputs)
    into = f"{', '.join(inputs)}{',' * (len(inputs) == 1)}" if plain and inputs else "case"
    told = f"`from autograde import failing, hint`: `{into} = failing({exercise.name})` gives you these inputs"
    return f"{told}, `hint({exercise.name})` the next of {len(exercise.hints)} hints." if exercise.hints else f"{told}."
