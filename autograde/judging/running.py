"""Run a learner's implementation on all cases of an exercise: in this process, or on ranks started from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from autograde.exercise import Case, Exercise
from autograde.judging.calls import Failure, Outcome, run_once
from autograde.judging.ranks import run_on_ranks


class CallFailed(Exception):
    """A law called the implementation and got no value."""

    def __init__(self, failure: Failure):
        super().__init__(failure.message)
        self.failure = failure


def value_of(outcome: Outcome) -> Any:
    """What a call gave; raises CallFailed where it gave nothing."""
    if outcome.failure:
        raise CallFailed(outcome.failure)
    return outcome.value


class Local:
    """Runs an implementation in this process (or, for a rank exercise, on ranks started from it)."""

    def __init__(self, implementation: Callable, exercise: Exercise):
        self.implementation, self.exercise = implementation, exercise

    def run(self, cases: Sequence[Case]) -> list[Outcome]:
        """One outcome a case. After a call that was too slow the rest are not tried: they would be, too."""
        if self.exercise.ranks:
            return run_all([self.implementation], self.exercise, cases)[0]
        outcomes: list[Outcome] = []
        for one in cases:
            if outcomes and outcomes[-1].failure and outcomes[-1].failure.kind == "too slow":
                outcomes.append(Outcome(failure=outcomes[-1].failure))
            else:
                outcomes.append(run_once(self.implementation, self.exercise, one))
        return outcomes

    def call(self, *args, ranks: int | None = None, backward: Sequence | None = None, **kwargs) -> Any:
        """The value for other inputs, for use in laws, or with `backward` (see `Case`) gradients; raises CallFailed."""
        return value_of(self.run([Case(args, kwargs, ranks=ranks, backward=backward)])[0])


class Recalled:
    """Gives outcomes that are known; other inputs it calls as `running` does."""

    def __init__(self, running: Local, outcomes: Sequence[Outcome]):
        self.call, self._outcomes = running.call, list(outcomes)

    def run(self, cases: Sequence[Case]) -> list[Outcome]:
        """The outcomes of the cases that they were made for."""
        return self._outcomes


def run_all(implementations: Sequence[Callable], exercise: Exercise, cases: Sequence[Case]) -> list[list[Outcome]]:
    """The outcomes of several implementations on the same cases; on ranks, all of them in one go."""
    if not exercise.ranks:
        return [Local(implementation, exercise).run(cases) for implementation in implementations]
    return run_on_ranks(implementations, exercise, cases)
