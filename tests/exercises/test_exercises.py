"""The tests of the grader, made from the exercises themselves.

Every misconception must lose points and be diagnosed as itself, every alternative must get full marks, on twenty seeds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from autograde.exercise import Exercise
from autograde.exercises import find, names
from autograde.judging.comparing import rebuild
from autograde.judging.diagnosing import _TRIVIAL
from autograde.judging.grading import grade
from autograde.judging.running import Local

SEEDS = [*range(19), 2**40 + 7]


class Drawn(Exercise):
    """An exercise that always draws the same case objects for a seed, so that outcomes can be remembered by case."""

    _cases: ClassVar[dict] = {}

    def draw(self, seed):
        key = self.name, self.cases, seed
        if key not in self._cases:
            self._cases[key] = super().draw(seed)
        return self._cases[key]


EXERCISES = {name: Drawn(**vars(find(name))) for name in names()}


class Replay:
    """Runs an implementation once on the cases of all seeds, and remembers what came out.

    Diagnosis runs every misconception on the same cases again and again; and starting ranks is expensive.
    """

    def __init__(self, exercise: Exercise, seeds=SEEDS):
        self.drawn = [one for seed in seeds for one in exercise.draw(seed)]
        self._known: dict = {}

    def __call__(self, implementation, exercise):
        return _Replayed(self, implementation, exercise)

    def outcomes(self, local: Local, cases) -> list:
        known = self._known.setdefault(local.implementation, {})
        if not known and len(self.drawn) > len(cases):
            # On ranks, one case that fails takes all that were launched with it along: then they run by seed.
            first = Local.run(local, self.drawn)
            if not local.exercise.ranks or not any(outcome.failure for outcome in first):
                known.update(_by_case(self.drawn, first))
        new = [one for one in cases if id(one) not in known or _is_forbidden(known[id(one)][1])]
        known.update(_by_case(new, Local.run(local, new)))
        return [known[id(one)][1] for one in cases]


def _is_forbidden(outcome) -> bool:
    """Diagnosis runs misconceptions with nothing forbidden, so what was forbidden before has to be run again."""
    return outcome.failure is not None and outcome.failure.kind == "forbidden"


def _by_case(cases, outcomes) -> dict:
    return {id(one): (one, outcome) for one, outcome in zip(cases, outcomes, strict=True)}


class _Replayed(Local):
    def __init__(self, replay: Replay, implementation, exercise):
        super().__init__(implementation, exercise)
        self.replay = replay

    def run(self, cases):
        return self.replay.outcomes(self, cases)


REPLAYS = {name: Replay(exercise) for name, exercise in EXERCISES.items()}


def reports(exercise: Exercise, implementation, seeds=SEEDS):
    replay = REPLAYS[exercise.name]
    for seed in seeds:
        yield seed, grade(exercise, implementation, seed, runner=replay, own_runner=replay)


def every(attribute: str) -> list:
    return [
        pytest.param(exercise, item, id=f"{name}-{i}")
        for name, exercise in EXERCISES.items()
        for i, item in enumerate(getattr(exercise, attribute))
    ]


@pytest.mark.parametrize(("exercise", "misconception"), every("misconceptions"))
def test_misconception_is_rejected_and_diagnosed_as_itself(exercise, misconception):
    for seed, report in reports(exercise, misconception.implementation, SEEDS[: 1 if misconception.hangs else None]):
        assert report.earned < report.points, f"seed {seed}: full marks although {misconception.says}"
        assert report.misconception == misconception.says, f"seed {seed}:\n{report.text()}"


@pytest.mark.parametrize(("exercise", "alternative"), every("alternatives"))
def test_alternative_gets_full_marks(exercise, alternative):
    for seed, report in reports(exercise, alternative):
        assert report.solved, f"seed {seed}:\n{report.text()}"


@pytest.mark.parametrize(("exercise", "alternative"), every("alternatives"))
def test_alternative_gets_full_marks_in_other_precisions(exercise, alternative):
    for dtype in exercise.dtypes:
        cast = replace(exercise, cases=_cast_cases(exercise, dtype))
        replay = Replay(cast, SEEDS[:5])
        for seed in SEEDS[:5]:
            report = grade(cast, alternative, seed, runner=replay)
            assert report.solved, f"{dtype}, seed {seed}:\n{report.text()}"


def _cast_cases(exercise: Exercise, dtype: torch.dtype):
    def change(x):
        return x.to(dtype) if x.is_floating_point() else x

    def cases(generator):
        return [
            replace(c, args=rebuild(c.args, change), kwargs=rebuild(c.kwargs, change))
            for c in exercise.cases(generator)
        ]

    return cases


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
def test_every_law_can_break(exercise):
    wrong = [m.implementation for m in exercise.misconceptions if not m.hangs]
    if not exercise.probe:
        wrong += [lambda x, *_, make=make, **__: make(x) for _, make in _TRIVIAL.values()]
    broken = {line.name for one in wrong for _, r in reports(exercise, one, [0]) for line in r.lines if not line.passed}
    assert {law.name for law in exercise.laws} <= broken


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
def test_exercise_is_complete(exercise):
    assert len(exercise.misconceptions) >= 4
    assert len({m.says for m in exercise.misconceptions}) == len(exercise.misconceptions)
    assert all(m.says and m.hint and not m.says.endswith(".") for m in exercise.misconceptions)
    assert exercise.alternatives
    assert len(exercise.hints) == 3
    assert exercise.oracle or exercise.laws


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
def test_the_same_seed_draws_the_same_cases(exercise):
    first, again, other = (repr(Exercise.draw(exercise, seed)) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
def test_doing_nothing_earns_nothing(exercise):
    def unsolved(*args, **kwargs):
        raise NotImplementedError

    def returns_none(*args, **kwargs):
        return None

    assert grade(exercise, unsolved).status == "not implemented"
    assert grade(exercise, returns_none).earned == 0
    if not exercise.probe:
        for _, make in _TRIVIAL.values():
            assert grade(exercise, lambda x, *_, make=make, **__: make(x)).earned == 0
