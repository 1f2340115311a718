"""One student's sandbox, as the grader sees it: load a notebook, ask for outcomes, and survive whatever happens.

A notebook that crashes, hangs or talks nonsense loses its sandbox; the next question finds a fresh one, in which the
cell or check that did it is left out.
"""

from __future__ import annotations

import builtins
import inspect
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from autograde.classroom.inside.frames import BadFrame, Closed, Late
from autograde.classroom.sandbox.isolation import Limits
from autograde.classroom.sandbox.process import Sandbox
from autograde.classroom.submission import Step
from autograde.exercise import Case, Exercise, PerRank
from autograde.judging.calls import UNTOUCHED, Failure, Outcome
from autograde.judging.forbidding import UNNAMED, dont_call
from autograde.judging.running import value_of
from labkit.traffic import Message

_MOST_MESSAGES = 20_000  # of one rank
_LOAD = 120.0  # seconds for all cells of a notebook
_EXERCISE = 60.0  # seconds for all calls of one exercise, laws included
_RETRIES = 3
_KINDS = frozenset({"not implemented", "needs", "raised", "too slow", "forbidden", "too large", "ranks"})
_MOST_TEXT = 2_000


class Session:
    """Runs one student's notebooks, one after the other. Use `close` when done.

    `begin(steps, exercises)` loads a notebook; then `runner` makes what `autograde.judging.grading.grade` takes as a
    runner.
    """

    def __init__(self, kind: str, imports: str = "", limits: Limits | None = None):
        self.kind, self.imports, self.limits = kind, imports, limits or Limits()
        self.sandbox: Sandbox | None = None
        self.peak = 0
        self.starts = 0
        self._before = 0.0

    def begin(self, steps: Sequence[Step], exercises: dict[str, Exercise]) -> list[tuple[str, str]]:
        """Run a notebook's cells. Gives (label, what happened) of every cell in which something did."""
        self._end_notebook()
        self.exercises = exercises
        self.cells = [step for step in steps if step.kind != "check"]
        self.checks = _checks(steps, exercises)
        self.skips: dict[int, str] = {}
        self.serving: int | None = None
        self.failed: dict[int, Failure] = {}
        self.loaded = self._load()
        return [(label, told) for label, told in self.loaded if told]

    def runner(self, implementation: Callable, exercise: Exercise) -> Remote:
        """For `grade(…, runner=session.runner)`. The implementation is the learner's, by the exercise's name."""
        number = next((i for i, check in enumerate(self.checks) if check["name"] == exercise.name), None)
        return Remote(self, number, exercise)

    def close(self) -> None:
        """End the sandbox."""
        if self.sandbox:
            self.peak = max(self.peak, self.sandbox.measure())
            self._before += self.sandbox.clock()
            self.sandbox.close()
        self.sandbox = None

    def _drop(self, error: Exception) -> str:
        """Give up the sandbox; says why in words for a report."""
        told = self.sandbox.stopped_for or {
            Late: "did not answer in time and was stopped",
            Closed: str(error),
            BadFrame: f"sent {error}",
        }.get(type(error), str(error))
        self.close()
        return told

    def _load(self) -> list[tuple[str, str]]:
        for _ in range(_RETRIES + 1):
            at = None
            try:
                at, told = self._try_to_load()
            except _Stopped as stopped:
                at, told = stopped.at, stopped.why
            if isinstance(told, list):
                return told
            if at is None:
                break
            self.skips[at] = told
        why = told if isinstance(told, str) else "the notebook can't be loaded"
        self.failed = {number: Failure("raised", f"The notebook {why}.", "Ended") for number in range(len(self.checks))}
        return [("the notebook", why)]

    def _try_to_load(self) -> tuple[int | None, list | str]:
        """(last cell that began, what each cell did, or why the notebook ended)."""
        if self.sandbox is None:
            self.sandbox = Sandbox(self.kind, self.imports, self.limits)
            self.starts += 1
        cells = [
            {"label": c.label, "source": c.source, "limit": self.limits.cell, "skip": self.skips.get(i, "")}
            for i, c in enumerate(self.cells)
        ]
        clock = self.sandbox.clock
        at, end = None, clock() + _LOAD
        try:
            self.sandbox.channel.send({"do": "notebook", "cells": cells, "checks": self.checks}, 30)
            while True:
                wait = min(self.limits.cell + self.limits.grace, end - clock())
                said = self.sandbox.channel.receive(wait, clock)
                if "loaded" in said:
                    unsolved = _numbers(said.get("unsolved"), len(self.checks))
                    self.failed = dict.fromkeys(unsolved, UNTOUCHED) | self.failed
                    return at, _told(said["loaded"], self.cells)
                if "ended" in said:
                    return at, _text(said["ended"])
                number = said.get("at")
                if type(number) is not int or not 0 <= number < len(cells):
                    raise BadFrame("something that is no message")
                at = number
        except (Late, Closed, BadFrame) as error:
            raise _Stopped(at, self._drop(error)) from None

    def clock(self) -> float:
        """Seconds that this student's sandboxes have had, without those in which they waited for a processor."""
        return self._before + (self.sandbox.clock() if self.sandbox else 0.0)

    def outcomes(self, number: int, exercise: Exercise, cases: Sequence[Case], end: float) -> list[Outcome]:
        """What the learner's object gives for the cases; failures where the sandbox gave out. `end` is of `clock`."""
        found: list[Outcome] = []
        try:
            if number in self.failed:
                raise _Stopped(None, "")
            self._serve(number)
            message = [[list(one.args), dict(one.kwargs), one.ranks, one.backward] for one in cases]
            self.sandbox.channel.send({"do": "run", "cases": message}, 30)
            for one in cases:
                if found and found[-1].failure and found[-1].failure.kind == "too slow" and not exercise.ranks:
                    found.append(found[-1])  # once one call was too slow the rest are not waited for
                    continue
                wait = min(self._patience(exercise, cases), end - self.clock())
                said = self.sandbox.channel.receive(wait, self.sandbox.clock)
                found.append(_outcome(said, one, exercise))
            if any(o.failure and o.failure.kind == "too slow" for o in found):
                self.failed[number] = Failure("too slow", found[-1].failure.message, "TimeLimit")
                self.close()
        except (Late, Closed, BadFrame) as error:
            kind = "too slow" if isinstance(error, Late) and not self.sandbox.stopped_for else "raised"
            self.failed[number] = Failure(kind, f"The call {self._drop(error)}.", "Ended")
        except _Stopped:
            pass
        return found + [Outcome(failure=self.failed.get(number))] * (len(cases) - len(found))

    def _patience(self, exercise: Exercise, cases: Sequence[Case]) -> float:
        """Seconds to wait for the next outcome: ranks have to start first, and come home together."""
        if not exercise.ranks:
            return exercise.limit + self.limits.grace
        return 30 + len({one.ranks for one in cases}) * (6 * exercise.limit + 10)

    def _serve(self, number: int) -> None:
        """Have the copy of the notebook at check `number` answer from now on."""
        if self.sandbox is None:
            self._load()
            self.serving = None
            if number in self.failed:
                raise _Stopped(None, "")
        if self.serving == number:
            return
        self._finish_check()
        self.sandbox.channel.send({"do": "serve", "check": number}, 10)
        self.serving = number

    def _finish_check(self) -> None:
        if self.serving is not None:
            self.sandbox.channel.send({"do": "done"}, 10)
            if self.sandbox.channel.receive(10) != {"served": True}:
                raise BadFrame("something that is no message")
            self.serving = None

    def _end_notebook(self) -> None:
        """Leave the notebook that is loaded, so that the sandbox can take the next one."""
        if self.sandbox is None or not hasattr(self, "loaded"):
            return
        try:
            self._finish_check()
            self.sandbox.measure()
            self.sandbox.channel.send({"do": "end"}, 10)
            if set(self.sandbox.channel.receive(30)) != {"ended"}:
                raise BadFrame("something that is no message")
        except (Late, Closed, BadFrame):
            self.close()


class _Stopped(Exception):
    """The sandbox is gone. `at` is the cell that ran."""

    def __init__(self, at: int | None, why: str):
        super().__init__(why)
        self.at, self.why = at, why


class Remote:
    """The runner that `grade` asks: the same interface as `autograde.judging.running.Local`."""

    def __init__(self, session: Session, number: int | None, exercise: Exercise):
        self.session, self.number, self.exercise = session, number, exercise
        self.end = session.clock() + max(_EXERCISE, 8 * exercise.limit)

    def run(self, cases: Sequence[Case]) -> list[Outcome]:
        """One outcome a case."""
        if self.number is None:
            return [Outcome(failure=Failure("raised", "The release has no check for this exercise."))] * len(cases)
        return self.session.outcomes(self.number, self.exercise, cases, self.end)

    def call(self, *args, ranks: int | None = None, backward: Sequence | None = None, **kwargs) -> Any:
        """As that of Local."""
        return value_of(self.run([Case(args, kwargs, ranks=ranks, backward=backward)])[0])


def _checks(steps: Sequence[Step], exercises: dict[str, Exercise]) -> list[dict]:
    """What the worker has to know of every check: where it stands, and how the learner's object is called."""
    checks, after = [], -1
    for step in steps:
        if step.kind != "check":
            after += 1
        elif step.label in exercises:
            exercise = exercises[step.label]
            checks.append(
                {
                    "after": max(after, 0),
                    "name": exercise.name,
                    "probe": probe_source(exercise),
                    "ranks": exercise.ranks,
                    "forbid": list(exercise.forbid),
                    "mutates": exercise.mutates,
                    "limit": float(exercise.limit),
                }
            )
    return checks


def probe_source(exercise: Exercise) -> list[str] | None:
    """[name, source] of an exercise's probe, which stands alone so that it can be sent to the sandbox."""
    if exercise.probe is None:
        return None
    source = textwrap.dedent(inspect.getsource(exercise.probe))
    return [exercise.probe.__name__, source[source.index("def ") :]]  # without the decorator, which knows the exercise


# From here on everything that came out of the sandbox is looked at before it is used.
def _told(said: Any, cells: Sequence[Step]) -> list[tuple[str, str]]:
    if not isinstance(said, list) or len(said) != len(cells):
        raise BadFrame("something that is no message")
    texts = [_text(each[1] if isinstance(each, list) and len(each) == 2 else "") for each in said]
    return [(cell.label, text) for cell, text in zip(cells, texts, strict=True)]


def _numbers(said: Any, most: int) -> set[int]:
    known = said if isinstance(said, list) and len(said) <= most else []
    return {n for n in known if type(n) is int and 0 <= n < most}


def _text(said: Any) -> str:
    """A text that no terminal obeys, or an empty one."""
    known = said[:_MOST_TEXT] if isinstance(said, str) else ""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in known)


def _outcome(said: dict, one: Case, exercise: Exercise) -> Outcome:
    if set(said) != {"value", "failure", "changed", "shared", "printed", "traffic"}:
        if {"died", "ended", "served"} & set(said):
            why = said.get("died") or said.get("ended")
            raise Closed(_text(why) if isinstance(why, str) else "ended itself with the exit status 0")
        raise BadFrame("something that is no message")
    changed, shared = _texts(said["changed"]), _texts(said["shared"])
    if said["failure"] is not None:
        return Outcome(None, _failure(said["failure"], exercise), changed, _text(said["printed"]))
    value = said["value"]
    if one.ranks:
        if not isinstance(value, list) or len(value) != one.ranks:
            raise BadFrame("values that are not one a rank")
        value = PerRank(value, _traffic(said["traffic"], one.ranks))
    return Outcome(value, None, changed, _text(said["printed"]), shared)


def _texts(said: Any) -> tuple[str, ...]:
    return tuple(map(_text, said)) if isinstance(said, list) else ()


def _failure(said: Any, exercise: Exercise) -> Failure:
    if not isinstance(said, list) or len(said) != 4:
        raise BadFrame("something that is no message")
    kind, message, type_, trace = map(_text, said)
    if kind not in _KINDS:
        raise BadFrame("something that is no message")
    if kind == "forbidden":
        message = dont_call(next((name for name in exercise.forbid if f"`{name}`" in message), UNNAMED))
    known = type_ if hasattr(builtins, type_) or type_ in ("TimeLimit", "deadlock", "died", "raised") else "Exception"
    return Failure(kind, message, known if type_ else "", trace)


def _traffic(said: Any, ranks: int) -> list[list[Message]]:
    try:
        if any(len(rank) > _MOST_MESSAGES for rank in said):
            raise ValueError("more messages than any task needs")
        traffic = [[_sent(*each) for each in rank] for rank in said]
    except (TypeError, ValueError):
        raise BadFrame("messages of ranks that are none") from None
    if len(traffic) != ranks:
        raise BadFrame("messages of ranks that are none")
    return traffic


def _sent(op, shape, dtype, size, peer) -> Message:
    if not all(type(n) is int for n in [*shape, size]) or not (peer is None or type(peer) is int):
        raise ValueError("no message of a rank")
    return Message(_text(op), tuple(shape), _text(dtype), size, peer)
