"""Grade one implementation: run it on the cases, ask oracle and laws, name the mistake."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from autograde.exercise import Case, Exercise, Law
from autograde.judging.calls import Failure, Outcome, copied, fixed_randomness, plain, told
from autograde.judging.comparing import compare, describe, tensors, weight
from autograde.judging.conditioning import within_rounding
from autograde.judging.diagnosing import Diagnosis, Tried, disagreement, match
from autograde.judging.gradients import FLOWS
from autograde.judging.patterns import CUT_OFF, OTHER_GRADIENTS, does_nothing, generic, without_influence
from autograde.judging.running import CallFailed, Local
from autograde.report import Line, Report

_SMALL = 100_000  # numbers: so many may be in any result
_LARGER = 4  # times what is in the right answer
FURTHER = 3  # draws that a misconception has to explain as well before it is named


def public_seed(exercise: Exercise) -> int:
    """The seed of the cases that the learner sees: the same on every machine."""
    return zlib.crc32(exercise.name.encode())


def grade(
    exercise: Exercise,
    implementation: Callable,
    seed: int | None = None,
    *,
    attempt: int = 1,
    runner: Callable = Local,
    own_runner: Callable = Local,
) -> Report:
    """Check an implementation on the cases of a seed (default: the public one).

    `attempt` counts the learner's tries and picks the hint. `runner(implementation, exercise)` decides where the code
    runs, `own_runner` where the exercise's own misconceptions do. Nothing that the implementation does raises here.
    """
    seed = public_seed(exercise) if seed is None else seed

    def more() -> list[Case]:
        return [one for k in range(1, FURTHER + 1) for one in exercise.draw(seed + k)]

    running = runner(implementation, exercise)
    return Judgement(exercise, exercise.draw(seed), running, own_runner, more=more).report(attempt)


def right_answer(exercise: Exercise, one: Case) -> Any:
    """What the oracle gives for a case."""
    with fixed_randomness():
        return plain(exercise.oracle(*copied(one.args), **copied(one.kwargs)))


class Judgement:
    """All there is to say about one implementation on some cases; each part is worked out when it is first asked for.

    So the tests of the grader, which want to know of thousands of wrong solutions whether they are rejected and as
    what, don't pay for the laws that nobody looks at. A learner's report looks at everything.
    """

    def __init__(
        self,
        exercise: Exercise,
        cases: Sequence[Case],
        running: Local,
        own_runner: Callable = Local,
        answer: Callable[[Exercise, Case], Any] = right_answer,
        more: Callable[[], Sequence[Case]] = tuple,
    ):
        self.exercise, self.cases, self.running, self.own_runner = exercise, cases, running, own_runner
        self._answer, self._more, self._verdicts = answer, more, {}

    @cached_property
    def got(self) -> list[Outcome]:
        return self._run(self.cases)

    def _run(self, cases: Sequence[Case]) -> list[Outcome]:
        """The outcomes; what is far larger than the right answer is none, since nothing here may have to work on it."""
        outcomes = self.running.run(cases) if cases else []
        return [self._sized(one, outcome) for one, outcome in zip(cases, outcomes, strict=True)]

    def _sized(self, one: Case, outcome: Outcome) -> Outcome:
        size = weight(outcome.value)
        if size <= _SMALL:
            return outcome
        asked = self._answer(self.exercise, one) if self.exercise.oracle else [list(one.args), one.kwargs]
        if size <= _LARGER * weight(asked):
            return outcome
        return replace(
            outcome, value=None, failure=Failure("too large", "The result is far larger than the task needs.")
        )

    @cached_property
    def expected(self) -> list:
        """The oracle's answers; without an oracle, whatever the implementation gave."""
        return self._answers(self.cases, self.got)

    def _answers(self, cases: Sequence[Case], got: Sequence[Outcome]) -> list:
        if self.exercise.oracle is None:
            return [outcome.value for outcome in got]
        return [self._answer(self.exercise, one) for one in cases]

    @cached_property
    def notes(self) -> list[str]:
        """For each case what is wrong with its outcome, or an empty text."""
        return self._notes(self.cases, self.got, self.expected)

    def _notes(self, cases: Sequence[Case], got: Sequence[Outcome], expected: Sequence) -> list[str]:
        each = zip(cases, got, expected, strict=True)
        return [_disagreement(self.exercise, one, outcome, right, self._answer) for one, outcome, right in each]

    @cached_property
    def tried(self) -> Tried:
        return _tried(self.cases, self.got, self.notes)

    def _further(self) -> Tried:
        """What comes out on more cases than the report tells of; none where calls are slow, or start ranks."""
        if self.exercise.ranks or any(o.failure and o.failure.kind == "too slow" for o in self.got):
            return Tried()
        cases = self._more()
        got = self._run(cases)
        expected = (
            [self._answer(self.exercise, one) for one in cases] if self.exercise.oracle else [o.value for o in got]
        )
        return _tried(cases, got, self._notes(cases, got, expected))

    def broken(self, law: Law) -> str:
        """Why a law does not hold, or an empty text."""
        if law not in self._verdicts:
            self._verdicts[law] = self._unfit or _broken(law, self.cases, self.got, self.running)
        return self._verdicts[law]

    @cached_property
    def _unfit(self) -> str:
        return _unfit(self.exercise, self.got, self.expected)

    @cached_property
    def stopped(self) -> Report | None:
        """The report for what isn't worth looking at further."""
        return _no_points(self.exercise, self.got)

    @property
    def solved(self) -> bool:
        return not self.stopped and not any(self.notes) and not any(map(self.broken, self.exercise.laws))

    @property
    def rejected(self) -> bool:
        """Whether points are lost. Asks no more laws than it takes to know."""
        if self.stopped or (self.exercise.oracle and any(self.notes)):
            return True
        return any(map(self.broken, self.exercise.laws))

    @cached_property
    def nothing(self) -> Diagnosis | None:
        """What a solution that does nothing does. Such a solution earns nothing, whatever laws it keeps."""
        return does_nothing(self.tried, self.expected) if self.exercise.oracle else None

    def breaks(self, law: Law) -> bool:
        """Whether the law's line in the report would be crossed."""
        return bool(not self.stopped and self.broken(law))

    @property
    def earned(self) -> float:
        if self.solved:
            return float(self.exercise.points)
        if self.stopped or self.nothing:
            return 0.0
        return round(sum(line.earned for line in self.lines), 4)

    @property
    def lines(self) -> list[Line]:
        verdicts = [self.broken(law) for law in self.exercise.laws]
        return _lines(self.exercise, self.notes, verdicts, self.nothing is not None)

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """The misconception behind what is wrong, or what else can be said about it."""
        if self.stopped:
            return Diagnosis(self.stopped.diagnosis)
        exercise, tried = self.exercise, self.tried
        found = match(exercise, tried, self._further, self._breaks_alike, self.own_runner) or self.nothing
        if found or not exercise.oracle:
            return found or Diagnosis("")
        if not tried.wrong:
            return self._only_gradients or Diagnosis("")
        return (
            generic(exercise, tried, self.expected)
            or without_influence(exercise, tried, self.expected, self.running, self._answer)
            or Diagnosis("")
        )

    @property
    def _only_gradients(self) -> Diagnosis | None:
        """What to say where a result is right and can't be trained through."""
        told = {law.name: self.broken(law) for law in self.exercise.laws if self.broken(law)}
        if set(told) != {FLOWS}:
            return None
        cut = "cut off from the graph" in told[FLOWS]
        return CUT_OFF if cut else OTHER_GRADIENTS

    def _breaks_alike(self, outcomes: Sequence[Outcome], running: Local) -> bool:
        """Whether another implementation keeps the laws that this one keeps, and breaks the others in the same way."""
        if [_dtypes(o) for o in outcomes] != [_dtypes(o) for o in self.got]:
            return False
        verdicts = ((self.broken(law), _broken(law, self.cases, outcomes, running)) for law in self.exercise.laws)
        return all(_gist(mine) == _gist(other) for mine, other in verdicts)

    def report(self, attempt: int = 1) -> Report:
        """Everything, for the learner."""
        if self.stopped:
            return self.stopped
        exercise, printed = self.exercise, _printed(self.got)
        if self.solved:
            return Report(exercise.name, exercise.points, self.earned, "solved", self.lines, printed=printed)
        return Report(
            exercise.name,
            exercise.points,
            self.earned,
            "wrong",
            self.lines,
            _smallest(self.cases, self.got, self.expected, self.notes, exercise),
            self.diagnosis.shown or self.diagnosis.says,
            self.diagnosis.hint or _next_hint(exercise, attempt),
            self.diagnosis.misconception.says if self.diagnosis.misconception else "",
            printed,
            secret_diagnosis=self.diagnosis.says,
        )


def _no_points(exercise: Exercise, got: Sequence[Outcome]) -> Report | None:
    """A report for what isn't worth looking at further: nothing implemented, or a forbidden call."""
    kinds = {outcome.failure.kind if outcome.failure else "" for outcome in got}
    if kinds == {"not implemented"}:
        return Report(exercise.name, exercise.points, 0.0, "not implemented")
    forbidden = next((o.failure for o in got if o.failure and o.failure.kind == "forbidden"), None)
    if forbidden:
        told = forbidden.message
        return Report(exercise.name, exercise.points, 0.0, "no points", diagnosis=told, secret_diagnosis=told)
    return None


def _tried(cases: Sequence[Case], got: Sequence[Outcome], notes: Sequence[str]) -> Tried:
    return Tried(cases, got, [i for i, note in enumerate(notes) if note])


def _dtypes(outcome: Outcome) -> list[torch.dtype]:
    return [x.dtype for x in tensors(outcome.value)]


def _gist(verdict: str) -> str:
    """A law's words without the numbers in them: those of a dtype are part of a word."""
    return re.sub(r"(?<![a-z])\d[\d.,]*(e-?\d+)?", "", verdict)


def _disagreement(exercise: Exercise, one: Case, outcome: Outcome, expected, answer: Callable) -> str:
    """What is wrong with one outcome, or an empty text."""
    if outcome.failure:
        return outcome.failure.message
    if outcome.changed:
        return f"changes its input in place ({', '.join(outcome.changed)})"
    if exercise.fresh and outcome.shared:
        return f"hands back memory of its input ({', '.join(outcome.shared)}), where a new object is asked for"
    if exercise.oracle is None:
        return ""
    told = disagreement(exercise, one, expected, outcome.value)
    return "" if told and within_rounding(exercise, one, expected, outcome.value, answer) else told


def _unfit(exercise: Exercise, got: Sequence[Outcome], expected: Sequence) -> str:
    """Why laws need not be asked: a result isn't even of the right type or shape."""
    for outcome, right in zip(got, expected, strict=True):
        mismatch = None if outcome.failure or exercise.agrees else compare(right, outcome.value)
        if mismatch and mismatch.kind in ("type", "dtype", "shape", "length", "keys"):
            return mismatch.message
    return ""


def _broken(law: Law, cases: Sequence[Case], got: Sequence[Outcome], running) -> str:
    """Why a law does not hold, or an empty text."""
    for one, outcome in zip(cases, got, strict=True):
        if outcome.failure:
            return outcome.failure.message
        if one.made and one.slack and not law.everywhere:
            continue
        try:
            verdict = law.holds(outcome.value, one, running.call)
        except CallFailed as error:
            verdict = error.failure.message
        except Exception:  # the result has a shape or type that the law can't even look at
            verdict = f"the result is {told(outcome)}"
        if verdict is not None and verdict is not True and not (isinstance(verdict, torch.Tensor) and bool(verdict)):
            return verdict if isinstance(verdict, str) else _named(one)
    return ""


def _named(one: Case) -> str:
    return f"fails for: {one.label}" if one.label else "does not hold"


def rows_of(exercise: Exercise) -> list[tuple[str, float]]:
    """What is checked, and what it is worth: the values, then each law.

    Agreement with the oracle, each essential law, and the other laws together are worth the same.
    """
    laws = list(exercise.laws)
    essential = sum(law.essential for law in laws)
    whole = exercise.points / (bool(exercise.oracle) + essential + (essential < len(laws)))
    share = whole / max(len(laws) - essential, 1)
    values = ("gives the right result", whole) if exercise.oracle else ("runs and leaves its inputs alone", 0.0)
    rows = [values, *((law.name, whole if law.essential else share) for law in laws)]
    return [(name, round(worth, 4)) for name, worth in rows]


def _lines(exercise: Exercise, notes: Sequence[str], verdicts: Sequence[str], worthless: bool = False) -> list[Line]:
    good, first = sum(not note for note in notes), next(filter(None, notes), "")
    lines = []
    for (name, worth), note in zip(rows_of(exercise), [first, *verdicts], strict=True):
        lines.append(Line(name, not note, worth, worth if not note and not worthless else 0.0, note))
    lines[0] = replace(lines[0], name=f"{lines[0].name} ({good} of {len(notes)} cases)")
    return lines if exercise.oracle or any(notes) else lines[1:]


def _smallest(cases, got, expected, notes, exercise: Exercise) -> list[tuple[str, str]]:
    """The failing case with the fewest numbers, described."""
    failing = [i for i, note in enumerate(notes) if note]
    if not failing:
        return []
    i = min(failing, key=lambda i: sum(t.numel() for t in tensors([list(cases[i].args), cases[i].kwargs])))
    one, outcome = cases[i], got[i]
    rows = [("case", one.label)] if one.label else []
    if one.ranks:
        rows.append(("ranks", str(one.ranks)))
    rows += [(f"input {k + 1}", shown(value)) for k, value in enumerate(one.args)]
    rows += [(name, shown(value)) for name, value in one.kwargs.items()]
    if exercise.oracle is not None:
        rows.append(("expected", shown(expected[i])))
    if outcome.failure:
        rows.append(("got", outcome.failure.trace or outcome.failure.message))
    else:
        value = list(outcome.value) if one.ranks else outcome.value
        rows += [("got", shown(value)), ("so", f"{notes[i]}")]
    return rows


def shown(value) -> str:
    """A value for a reader: what it is, and its first numbers."""
    if isinstance(value, torch.Tensor) and value.numel():
        numbers = value.detach().reshape(-1)[:6].tolist()
        head = ", ".join(f"{x:.4g}" if isinstance(x, float) else str(x) for x in numbers)
        return f"{describe(value)}: [{head}{', …' if value.numel() > 6 else ''}]"
    if isinstance(value, (list, tuple)) and any(True for _ in tensors(value)):
        rows = [shown(item) for item in value[:4]] + ["…"] * (len(value) > 4)
        return "\n".join([f"{describe(value)}:", *rows])
    if isinstance(value, (str, list, tuple, dict, int, float, bool)) or value is None:
        text = repr(value)
        return text if len(text) <= 300 else text[:300] + "…"
    return describe(value)


def _next_hint(exercise: Exercise, attempt: int) -> str:
    return exercise.hints[min(attempt, len(exercise.hints)) - 1] if exercise.hints else ""


def _printed(got: Sequence[Outcome]) -> str:
    text = next((outcome.printed for outcome in got if outcome.printed), "")
    return text if len(text) <= 500 else f"{text[:500]}…"
