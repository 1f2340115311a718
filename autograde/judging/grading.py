"""Grade one implementation: run it on the cases, ask oracle and laws, name the mistake."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import torch

from autograde.exercise import Case, Exercise, Law
from autograde.judging.calls import Outcome, copied, fixed_randomness, plain, told
from autograde.judging.comparing import compare, describe, tensors
from autograde.judging.diagnosing import Diagnosis, disagreement, does_nothing, generic, match
from autograde.judging.running import CallFailed, Local
from autograde.report import Line, Report


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
    cases = exercise.draw(public_seed(exercise) if seed is None else seed)
    running = runner(implementation, exercise)
    got = running.run(cases)
    stopped = _no_points(exercise, got)
    if stopped:
        return stopped
    expected = [_expected(exercise, one, outcome) for one, outcome in zip(cases, got, strict=True)]
    notes = [_disagreement(exercise, *each) for each in zip(cases, got, expected, strict=True)]
    unfit = _unfit(exercise, got, expected)
    verdicts = [unfit or _broken(law, cases, got, running) for law in exercise.laws]
    if not any(notes) and not any(verdicts):
        return Report(
            exercise.name,
            exercise.points,
            float(exercise.points),
            "solved",
            _lines(exercise, notes, verdicts),
            printed=_printed(got),
        )
    nothing = does_nothing(cases, got, expected) if exercise.oracle else None
    lines = _lines(exercise, notes, verdicts, nothing is not None)
    diagnosis = (
        match(
            exercise,
            cases,
            got,
            [not note for note in notes],
            [not verdict for verdict in verdicts],
            lambda outcomes, its: [not _broken(law, cases, outcomes, its) for law in exercise.laws],
            runner=own_runner,
        )
        or nothing
        or (generic(exercise, cases, got, expected) if exercise.oracle else None)
        or Diagnosis("")
    )
    return Report(
        exercise.name,
        exercise.points,
        round(sum(line.earned for line in lines), 4),
        "wrong",
        lines,
        _smallest(cases, got, expected, notes, exercise),
        diagnosis.says,
        diagnosis.hint or _next_hint(exercise, attempt),
        diagnosis.misconception.says if diagnosis.misconception else "",
        _printed(got),
    )


def _no_points(exercise: Exercise, got: Sequence[Outcome]) -> Report | None:
    """A report for what isn't worth looking at further: nothing implemented, or a forbidden call."""
    kinds = {outcome.failure.kind if outcome.failure else "" for outcome in got}
    if kinds == {"not implemented"}:
        return Report(exercise.name, exercise.points, 0.0, "not implemented")
    forbidden = next((o.failure for o in got if o.failure and o.failure.kind == "forbidden"), None)
    if forbidden:
        return Report(exercise.name, exercise.points, 0.0, "no points", diagnosis=forbidden.message)
    return None


def _expected(exercise: Exercise, one: Case, outcome: Outcome):
    if exercise.oracle is None:
        return outcome.value
    with fixed_randomness():
        return plain(exercise.oracle(*copied(one.args), **copied(one.kwargs)))


def _disagreement(exercise: Exercise, one: Case, outcome: Outcome, expected) -> str:
    """What is wrong with one outcome, or an empty text."""
    if outcome.failure:
        return outcome.failure.message
    if outcome.changed:
        return f"changes its input in place ({', '.join(outcome.changed)})"
    if exercise.oracle is None:
        return ""
    return disagreement(exercise, one, expected, outcome.value)


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


def _lines(exercise: Exercise, notes: Sequence[str], verdicts: Sequence[str], worthless: bool = False) -> list[Line]:
    """Half for agreement with the oracle, half for the laws; where one of them is missing, all for the other."""
    laws = list(exercise.laws)
    agreement = exercise.points * (0.5 if laws and exercise.oracle else 1.0 if exercise.oracle else 0.0)
    share = (exercise.points - agreement) / len(laws) if laws else 0.0
    good = sum(not note for note in notes)
    lines = []
    if exercise.oracle or any(notes):
        first = next(filter(None, notes), "")
        name = "gives the right result" if exercise.oracle else "runs and leaves its inputs alone"
        lines.append(_line(f"{name} ({good} of {len(notes)} cases)", first, agreement, worthless))
    lines += [_line(law.name, broken, share, worthless) for law, broken in zip(laws, verdicts, strict=True)]
    return lines


def _line(name: str, note: str, worth: float, worthless: bool) -> Line:
    passed = not note
    return Line(name, passed, round(worth, 4), round(worth, 4) if passed and not worthless else 0.0, note)


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
