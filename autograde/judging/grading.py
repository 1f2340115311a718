"""Grade one implementation: run it on the cases, ask oracle and laws, name the mistake."""

from __future__ import annotations

import contextlib
import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from autograde.exercise import Case, Exercise, Law
from autograde.judging.calls import Failure, Outcome, copied, plain, told
from autograde.judging.comparing import Mismatch, compare, tensors, weight
from autograde.judging.conditioning import within_rounding
from autograde.judging.diagnosing import Diagnosis, Tried, difference, match
from autograde.judging.gradients import FLOWS
from autograde.judging.instead import instead
from autograde.judging.limits import TimeLimit, budget, granted, left, time_limit
from autograde.judging.locating import at_default, elsewhere, located
from autograde.judging.patterns import (
    CUT_OFF,
    NAN_GRADIENTS,
    OTHER_GRADIENTS,
    comparable,
    does_nothing,
    first_alone,
    generic,
    without_influence,
    wrong_kind,
)
from autograde.judging.pointing import Pointed, argument_names, smallest
from autograde.judging.relations import leaning, on_ranks, related
from autograde.judging.running import CallFailed, Local, Recalled
from autograde.judging.scaling import scaled
from autograde.judging.surroundings import fixed_randomness, fresh_kernel
from autograde.report import Line, Report

_SMALL = 100_000  # numbers: so many may be in any result
_LARGER = 4  # times what is in the right answer
_ASKING = 1.0  # seconds for an oracle, where it is asked about arguments that nobody drew
FURTHER = 3  # draws that a misconception has to explain as well before it is named
UNFINISHED = "Not implemented yet: it comes to `raise NotImplementedError`, which still stands there."
NEEDS = "It calls another function, which isn't implemented yet: solve that first."
OVER = "Stopped, since the check's time was over."
OBSERVED = "How your results differ from the right ones `check` says in your notebook, where the inputs are shown."
_OFF = re.compile(r"^the gradient of .* is off by up to (\S+)$")
_ALWAYS, _SMALLEST = "Wherever your result is wrong", "On the smallest case that fails"
_MORE = 2.0  # seconds for a diagnosis once the check's time is over


def public_seed(exercise: Exercise) -> int:
    """The seed of the cases that the learner sees: the same on every machine."""
    return zlib.crc32(exercise.name.encode())


def grade(
    exercise: Exercise,
    implementation: Callable,
    seed: int | None = None,
    *,
    runner: Callable = Local,
    own_runner: Callable = Local,
) -> Report:
    """Check an implementation on the cases of a seed (default: the public one).

    `runner(implementation, exercise)` decides where the code runs, `own_runner` where the exercise's own misconceptions
    do. All of it runs in the surroundings of a fresh kernel. Nothing that the implementation does raises here.
    """
    return judged(exercise, implementation, seed, runner=runner, own_runner=own_runner)[0]


def judged(
    exercise: Exercise,
    implementation: Callable,
    seed: int | None = None,
    *,
    runner: Callable = Local,
    own_runner: Callable = Local,
) -> tuple[Report, Pointed | None]:
    """As `grade`, and the case that fails, if one does: what `failing` hands over."""
    seed = public_seed(exercise) if seed is None else seed

    def more() -> list[Case]:
        return [one for k in range(1, FURTHER + 1) for one in exercise.draw(seed + k)]

    with fresh_kernel():
        judgment = Judgment(exercise, exercise.draw(seed), runner(implementation, exercise), own_runner, more=more)
        return judgment.report(), judgment.pointed


def right_answer(exercise: Exercise, one: Case) -> Any:
    """What the oracle gives for a case."""
    with fixed_randomness():
        return plain(exercise.oracle(*copied(one.args), **copied(one.kwargs)))


class Judgment:
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
        ask: Callable[[Law, Sequence[Case], Sequence[Outcome], Local], str] | None = None,
    ):
        self.exercise, self.cases, self.running, self.own_runner = exercise, cases, running, own_runner
        self._answer, self._more, self._ask, self._verdicts = answer, more, ask or broken, {}

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

    def _asked(self, exercise: Exercise, one: Case) -> Any:
        """The oracle's answer for arguments that nobody drew. Raises ValueError where that takes too long."""
        try:
            with time_limit(_ASKING):
                return self._answer(exercise, one)
        except TimeLimit:
            raise ValueError("no answer for such arguments") from None

    @cached_property
    def _differences(self) -> list[Mismatch | None]:
        return self._compared(self.cases, self.got, self.expected)

    def _compared(self, cases: Sequence[Case], got: Sequence[Outcome], expected: Sequence) -> list[Mismatch | None]:
        each = zip(cases, got, expected, strict=True)
        return [_disagreement(self.exercise, one, outcome, right, self._answer) for one, outcome, right in each]

    @cached_property
    def notes(self) -> list[str]:
        """For each case what is wrong with its outcome, or an empty text."""
        each = zip(self._differences, self.got, strict=True)
        return [_note(difference, outcome) if difference else "" for difference, outcome in each]

    @cached_property
    def tried(self) -> Tried:
        return _tried(self.cases, self.got, self._differences)

    @cached_property
    def _further(self) -> Tried:
        """What comes out on more cases than the report tells of; none where calls are slow, or start ranks."""
        if self.exercise.ranks or any(o.failure and o.failure.kind == "too slow" for o in self.got):
            return Tried()
        cases = self._more()
        got = self._run(cases)
        return _tried(cases, got, self._compared(cases, got, self._answers(cases, got)))

    def broken(self, law: Law) -> str:
        """Why a law does not hold, or an empty text."""
        if law not in self._verdicts:
            self._verdicts[law] = self._unfit or self._ask(law, self.cases, self.got, self.running)
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
        return not self.stopped and not any(self._differences) and not any(map(self.broken, self.exercise.laws))

    @property
    def rejected(self) -> bool:
        """Whether points are lost. Asks no more laws than it takes to know."""
        if self.stopped or (self.exercise.oracle and any(self._differences)):
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
    def named(self) -> Diagnosis | None:
        """The exercise's own misconception that explains what is wrong, if one does."""
        return match(self.exercise, self.tried, lambda: self._further, self._breaks_alike, self.own_runner)

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """The misconception behind what is wrong, or what else can be said about it."""
        if self.stopped:
            return Diagnosis(self.stopped.secret_diagnosis, shown=self.stopped.diagnosis)
        found = self.named or self.nothing
        if found or not self.exercise.oracle:
            return found or Diagnosis("")
        if not self.tried.wrong:
            return self._only_laws or Diagnosis("")
        return next(filter(None, self._observations()), Diagnosis(""))

    def _observations(self) -> Iterator[Diagnosis | None]:
        """What can be said without knowing the exercise, what helps most first."""
        exercise, tried, expected = self.exercise, self.tried, self.expected
        ranks, wrong = on_ranks(exercise, comparable(exercise, tried, expected))
        looks: list[Callable[[], Diagnosis | None]] = [
            lambda: generic(exercise, tried, expected),
            lambda: first_alone(tried, lambda: self._further),
            lambda: _observed(scaled(exercise, tried, expected)),
            lambda: _observed(instead(exercise, tried, expected, lambda: self._further, self._asked)),
            lambda: _observed(at_default(exercise, tried)),
            lambda: _observed(_together(ranks, related(exercise, wrong))),
            lambda: wrong_kind(exercise, wrong),
            lambda: _observed(self._always_noted()),
            lambda: without_influence(exercise, tried, expected, self.running, self._asked),
            lambda: _observed(located(exercise, tried, [law.name for law in exercise.laws if self._crosses(law)])),
            lambda: _observed(leaning(exercise, wrong)),
            lambda: _observed(elsewhere(tried)),
            lambda: _observed(self._on_the_smallest()),
        ]
        for look in looks:
            with contextlib.suppress(Exception):  # whatever a solution gave: no observation is worth a crash
                yield look()

    def _always_noted(self) -> Diagnosis | None:
        """What the exercise's own comparison says of every wrong result, if that is one and the same."""
        told = {self.notes[i] for i in self.tried.wrong if not self.got[i].failure}
        fails = any(self.got[i].failure for i in self.tried.wrong)
        if not self.exercise.agrees or len(told) != 1 or fails or len(self.tried.wrong) < 3:
            return None
        return Diagnosis(f"{_ALWAYS}: {told.pop()}.")

    def _on_the_smallest(self) -> Diagnosis | None:
        """What relates the result of the case that is shown to the right one: little, where nothing holds for all."""
        i = smallest(self.cases, self.notes, self.got)
        if i is None:
            return None
        one = replace(self.tried, wrong=[i])
        found = related(self.exercise, comparable(self.exercise, one, self.expected))
        return found and Diagnosis(f"{_SMALLEST}: {found.says[0].lower()}{found.says[1:]}")

    def _crosses(self, law: Law) -> bool:
        return law.name != FLOWS and bool(self.broken(law))

    @property
    def _only_laws(self) -> Diagnosis | None:
        """What to say where every result is right and one law is broken: often it can't be trained through."""
        told = {law.name: self.broken(law) for law in self.exercise.laws if self.broken(law)}
        others = [name for name in told if name != FLOWS]
        if len(told) > 1:
            return some_laws(others[0])
        if others:
            return one_law(others[0])
        if not told:
            return None
        if "cut off from the graph" in told[FLOWS]:
            return CUT_OFF
        odd = re.search(r"\bNaN\b|isn't finite|are infinite", told[FLOWS])
        return NAN_GRADIENTS if odd else OTHER_GRADIENTS

    def _breaks_alike(self, outcomes: Sequence[Outcome], running: Local) -> bool:
        """Whether another implementation keeps the laws that this one keeps, and breaks the others in the same way."""
        if [(_dtypes(o), _moved(o)) for o in outcomes] != [(_dtypes(o), _moved(o)) for o in self.got]:
            return False
        verdicts = ((self.broken(law), self._ask(law, self.cases, outcomes, running)) for law in self.exercise.laws)
        return all(_gist(mine) == _gist(other) and _near(mine, other) for mine, other in verdicts)

    @cached_property
    def pointed(self) -> Pointed | None:
        """The smallest case whose result is wrong; where none is, the first on which a law does not hold."""
        if self.stopped:
            return None
        i, call = smallest(self.cases, self.notes, self.got), _Listening(self.running)
        law = next(filter(self.broken, self.exercise.laws), None) if i is None and not any(self.notes) else None
        note = "" if i is None else self.notes[i]
        for k, (one, outcome) in enumerate(zip(self.cases, self.got, strict=True)):
            if law and left() and not note:
                i, note = k, broken(law, [one], [outcome], call)
        if not note:
            return None
        one = self.cases[i]
        names = argument_names(self.exercise, getattr(self.running, "implementation", None), one)
        note = _by_name(note, names)
        return Pointed(self.exercise, one, names, self.expected[i], self.got[i], note, call.failure)

    def report(self) -> Report:
        """Everything, for the learner."""
        if self.stopped:
            return self.stopped
        exercise, printed = self.exercise, _printed(self.got)
        if self.solved:
            return Report(exercise.name, exercise.points, self.earned, "solved", self.lines, printed=printed)
        lines, over, pointed = self.lines, self._over, self.pointed
        diagnosis = self._diagnosis_in_time()
        return Report(
            exercise.name,
            exercise.points,
            self.earned,
            "wrong",
            _said_once(lines, pointed, self.got),
            pointed.rows() if pointed else (),
            f"{over} {diagnosis.shown or diagnosis.says}".strip(),
            diagnosis.hint,
            diagnosis.misconception.says if diagnosis.misconception else "",
            printed,
            error=pointed.error if pointed else "",
            secret_diagnosis=f"{OVER if over else ''} {diagnosis.says}".strip(),
        )

    @property
    def _over(self) -> str:
        """How far the check came before its time was over, or an empty text."""
        if left():
            return ""
        tried, every = len(self._tried), len(self.cases)
        laws = ", but not every law was asked" if tried == every else ""
        return f"Stopped after {granted():g} s: {tried} of {every} cases were tried{laws}."

    @property
    def _tried(self) -> list[int]:
        return [i for i, o in enumerate(self.got) if o.failure is None or o.failure.kind != "not tried"]

    def _diagnosis_in_time(self) -> Diagnosis:
        """The diagnosis; after the check's time, one from what was tried, in two seconds more."""
        if left():
            return self.diagnosis
        tried = self._tried
        if not any(self.notes[i] for i in tried):
            return Diagnosis("")
        cases, recalled = [self.cases[i] for i in tried], Recalled(self.running, [self.got[i] for i in tried])
        with budget(_MORE):
            return Judgment(self.exercise, cases, recalled, self.own_runner, self._answer).diagnosis


class _Listening:
    """Calls for a law, and keeps the first failure."""

    def __init__(self, running: Local):
        self._running, self.failure = running, None

    def call(self, *args, **kwargs) -> Any:
        try:
            return self._running.call(*args, **kwargs)
        except CallFailed as error:
            self.failure = self.failure or error.failure
            raise


def _by_name(note: str, names: Sequence[str]) -> str:
    """A note with the arguments' names for their numbers."""
    known = {str(k): f"`{name}`" for k, name in enumerate(names, start=1)}
    return re.sub(r"\bargument (\d+)", lambda found: known.get(found[1], found[0]), note)


def _said_once(lines: Sequence[Line], pointed: Pointed | None, got: Sequence[Outcome]) -> list[Line]:
    """The lines without notes that repeat what stands above: an error from the same place, another line's note."""
    failure = pointed.failure if pointed else None
    said = {failure.message} if failure else set()
    said |= {o.failure.message for o in got if failure and o.failure and _place(o.failure) == _place(failure)}
    kept = []
    for line in lines:
        note = _by_name(line.note, pointed.names) if pointed else line.note
        kept.append(replace(line, note="" if note in said else note))
        said.add(note)
    return kept


def _place(failure: Failure) -> tuple[str, str, str]:
    """The kind of a failure and the lines that led to it, without the error's own words, which may hold numbers."""
    return failure.kind, failure.type, failure.trace.rpartition("\n")[0] or failure.message


def _no_points(exercise: Exercise, got: Sequence[Outcome]) -> Report | None:
    """A report for what isn't worth looking at further: nothing implemented, or a forbidden call."""
    kinds = {outcome.failure.kind if outcome.failure else "" for outcome in got}
    if kinds == {"not implemented"}:
        written = next((o.failure.message for o in got if o.failure.trace), "")
        secret = UNFINISHED if written else ""
        return _worthless(exercise, "not implemented", written, secret)
    decided = next((o.failure for o in got if o.failure and o.failure.kind == "forbidden"), None)
    if decided:
        return _worthless(exercise, "no points", decided.message, decided.message)
    if kinds == {"needs"}:
        return _worthless(exercise, "no points", got[0].failure.message, NEEDS)
    return None


def _worthless(exercise: Exercise, status: str, shown: str, secret: str) -> Report:
    return Report(exercise.name, exercise.points, 0.0, status, diagnosis=shown, secret_diagnosis=secret)


def one_law(name: str) -> Diagnosis:
    """What to say where only the law of this name is broken."""
    return Diagnosis(f"Every result is right, and one law doesn't hold: {name}.")


def some_laws(name: str) -> Diagnosis:
    """What to say where several laws are broken, this one among them."""
    return Diagnosis(f"Every result is right, but some laws don't hold, such as: {name}.")


def _together(where: str, found: Diagnosis | None) -> Diagnosis | None:
    """What is said of the ranks, and of their results."""
    said = " ".join(filter(None, (where, found.says if found else "")))
    return Diagnosis(said) if said else None


def _observed(found: Diagnosis | None) -> Diagnosis | None:
    """An observation, for the learner's eyes. Of hidden inputs it isn't told: one of thousands could carry them out."""
    return found and Diagnosis(OBSERVED, shown=found.shown or found.says)


def _tried(cases: Sequence[Case], got: Sequence[Outcome], differences: Sequence[Mismatch | None]) -> Tried:
    return Tried(cases, got, [i for i, difference in enumerate(differences) if difference])


def _dtypes(outcome: Outcome) -> list[torch.dtype]:
    return [x.dtype for x in tensors(outcome.value)]


def _moved(outcome: Outcome) -> list[dict[str, int]]:
    """The bytes that each rank handed to each operation, in however many messages."""
    moved: list[dict[str, int]] = []
    for messages in getattr(outcome.value, "traffic", ()):
        moved.append({})
        for one in messages:
            moved[-1][one.op] = moved[-1].get(one.op, 0) + one.bytes
    return moved


def _gist(verdict: str) -> str:
    """A law's words without the numbers in them: those of a dtype are part of a word."""
    return re.sub(r"(?<![a-z])\d[\d.,]*(e-?\d+)?", "", verdict)


def _near(verdict: str, other: str) -> bool:
    """Whether two verdicts on gradients tell of the same size: another gradient is another mistake."""
    sizes = [found and float(found[1]) for found in (_OFF.search(verdict), _OFF.search(other))]
    return None in sizes or math.isclose(*sizes, rel_tol=0.02)


def _disagreement(exercise: Exercise, one: Case, outcome: Outcome, expected, answer: Callable) -> Mismatch | None:
    """What is wrong with one outcome. Put into words by `_note`, where somebody reads it: that takes its time."""
    if outcome.failure:
        return Mismatch("failure", lambda: outcome.failure.message)
    if outcome.changed:
        return Mismatch("changed", lambda: f"changes its input in place ({', '.join(outcome.changed)})")
    if exercise.fresh and outcome.shared:
        text = f"hands back memory of its input ({', '.join(outcome.shared)}), where a new object is asked for"
        return Mismatch("shared", lambda: text)
    if exercise.oracle is None:
        return None
    found = difference(exercise, one, expected, outcome.value)
    if found and within_rounding(exercise, one, expected, outcome.value, found.kind, answer):
        return None
    return found


def _note(difference: Mismatch, outcome: Outcome) -> str:
    try:
        return difference.message
    except Exception:  # a value that can't even be put into words
        return f"the result is {told(outcome)}"


def _unfit(exercise: Exercise, got: Sequence[Outcome], expected: Sequence) -> str:
    """Why laws need not be asked: a result isn't even of the right type or shape."""
    for outcome, right in zip(got, expected, strict=True):
        mismatch = None if outcome.failure or exercise.agrees else compare(right, outcome.value)
        if mismatch and mismatch.kind in ("type", "dtype", "shape", "length", "keys"):
            return mismatch.message
    return ""


def broken(law: Law, cases: Sequence[Case], got: Sequence[Outcome], running) -> str:
    """Why a law does not hold for what `running` gave on these cases, or an empty text."""
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


def _printed(got: Sequence[Outcome]) -> str:
    text = next((outcome.printed for outcome in got if outcome.printed), "")
    return text if len(text) <= 500 else f"{text[:500]}…"
