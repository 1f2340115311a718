"""The tests of the grader, made from the exercises themselves.

Every misconception must lose points and be diagnosed as itself, every alternative must get full marks, on twenty seeds.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from autograde.compare import rebuild
from autograde.diagnose import _TRIVIAL
from autograde.exercise import Exercise
from autograde.exercises import find, names
from autograde.grading import grade
from autograde.running import Local

SEEDS = [*range(19), 2**40 + 7]
EXERCISES = {name: find(name) for name in names()}


class Replay:
    """Runs an implementation once on the cases of all seeds, and hands the outcomes out by seed.

    Diagnosis runs every misconception on the same cases again and again; and starting ranks is expensive.
    """

    def __init__(self):
        self.seed, self._ran = 0, {}

    def __call__(self, implementation, exercise):
        return _Replayed(self, implementation, exercise)

    def outcomes(self, implementation, exercise):
        key = implementation, tuple(exercise.forbid)
        if key not in self._ran:
            drawn = {seed: exercise.draw(seed) for seed in SEEDS}
            flat = Local(implementation, exercise).run([one for cases in drawn.values() for one in cases])
            # On ranks, one case that fails takes all that were launched with it along: then each seed runs by itself.
            whole = not exercise.ranks or not any(outcome.failure for outcome in flat)
            self._ran[key] = _by_seed(drawn, flat) if whole else {}
        if self.seed not in self._ran[key]:
            self._ran[key][self.seed] = Local(implementation, exercise).run(exercise.draw(self.seed))
        return self._ran[key][self.seed]


def _by_seed(drawn, flat):
    rest = iter(flat)
    return {seed: [next(rest) for _ in cases] for seed, cases in drawn.items()}


class _Replayed(Local):
    def __init__(self, replay: Replay, implementation, exercise):
        super().__init__(implementation, exercise)
        self.replay = replay

    def run(self, cases):
        if len(cases) < 2:  # a law's own call
            return super().run(cases)
        return self.replay.outcomes(self.implementation, self.exercise)


REPLAYS = {name: Replay() for name in EXERCISES}


def reports(exercise: Exercise, implementation, seeds=SEEDS):
    for seed in seeds:
        REPLAYS[exercise.name].seed = seed
        yield seed, grade(exercise, implementation, seed, runner=REPLAYS[exercise.name])


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
        for seed in SEEDS[:5]:
            report = grade(cast, alternative, seed)
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
    broken = {line.name for one in wrong for line in grade(exercise, one, 0).lines if not line.passed}
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
    assert repr(exercise.draw(3)) == repr(exercise.draw(3))
    assert repr(exercise.draw(3)) != repr(exercise.draw(4))


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
