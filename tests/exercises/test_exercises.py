"""The tests of the grader, made from the exercises themselves.

Every misconception must lose points and be diagnosed as itself, every alternative must get full marks, on twenty seeds.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import pytest
import torch

from autograde.exercise import Case, Exercise, Law, PerRank
from autograde.exercises import find, names
from autograde.judging.calls import Outcome
from autograde.judging.comparing import rebuild, tensors
from autograde.judging.gradients import FLOWS
from autograde.judging.grading import FURTHER, Judgment, broken, public_seed, right_answer
from autograde.judging.patterns import _TRIVIAL
from autograde.judging.running import Local, run_all
from autograde.reference import stub

SEEDS = [*range(19), 2**40 + 7]
CONFIRMED = SEEDS[:2]  # on which a name has to hold on further draws, too: that costs as much as the rest
PATIENCE = 60.0  # seconds a call: a machine that runs tests may be busy, and no mistake here is one of slowness
EXERCISES = {name: find(name) for name in names()}


class Replay:
    """The cases of an exercise on some seeds, and what the oracle and every implementation gave on them.

    Each is worked out once: diagnosis holds what one mistake gives against what all others give, on the same cases.
    """

    def __init__(self, exercise: Exercise, seeds: Sequence[int], implementations: Sequence[Callable]):
        self.exercise, self._implementations = exercise, implementations
        self.cases = {seed: exercise.draw(seed) for seed in seeds}
        self._drawn = {id(one) for cases in self.cases.values() for one in cases}
        self._answers: dict[int, object] = {}
        self._outcomes: dict[tuple, Outcome] = {}
        self._verdicts: dict[tuple, str] = {}

    def judge(self, implementation: Callable, seed: int, **changes) -> Judgment:
        def more() -> list[Case]:  # the seeds that come next, for their outcomes are asked for anyway
            if seed not in CONFIRMED:
                return []
            after = [*self.cases, *self.cases][list(self.cases).index(seed) + 1 :]
            return [one for other in after[:FURTHER] for one in self.cases[other]]

        running = self.runner(implementation, self.exercise)
        exercise = replace(self.exercise, **changes)
        return Judgment(exercise, self.cases[seed], running, self.runner, self._answer, more, self._ask)

    def runner(self, implementation: Callable, exercise: Exercise) -> Local:
        return _Replayed(self, implementation, exercise)

    def _answer(self, exercise: Exercise, one: Case):
        if id(one) not in self._drawn:  # made on the way: the next one may lie in the same place
            return right_answer(exercise, one)
        if id(one) not in self._answers:
            self._answers[id(one)] = right_answer(exercise, one)
        return self._answers[id(one)]

    def _ask(self, law: Law, cases: Sequence[Case], got: Sequence[Outcome], running: Local) -> str:
        """As `broken`, which is asked of one mistake where it is judged and wherever another may be taken for it."""
        key = running.implementation, law, *map(id, cases)
        if not all(id(one) in self._drawn for one in cases):
            return broken(law, cases, got, running)
        if key not in self._verdicts:
            self._verdicts[key] = broken(law, cases, got, running)
        return self._verdicts[key]

    def outcomes(self, local: Local, cases: Sequence[Case]) -> list[Outcome]:
        if not all(id(one) in self._drawn for one in cases):  # inputs that a law made up: nobody asks for them again
            return Local.run(local, cases)
        if self.exercise.ranks and not self._outcomes:
            # Starting ranks costs, so all implementations that give values share a launch, on all seeds.
            drawn = [one for some in self.cases.values() for one in some]
            found = run_all(self._implementations, self.exercise, drawn)
            for implementation, outcomes in zip(self._implementations, found, strict=True):
                keys = [(implementation, id(one)) for one in drawn]
                self._outcomes.update(zip(keys, outcomes, strict=True))
        keys = [(local.implementation, id(one)) for one in cases]
        new = [i for i, key in enumerate(keys) if key not in self._outcomes]
        found = Local.run(local, [cases[i] for i in new]) if new else []
        self._outcomes.update((keys[i], outcome) for i, outcome in zip(new, found, strict=True))
        return [self._outcomes[key] for key in keys]


class _Replayed(Local):
    def __init__(self, replay: Replay, implementation: Callable, exercise: Exercise):
        super().__init__(implementation, exercise)
        self.replay = replay

    def run(self, cases: Sequence[Case]) -> list[Outcome]:
        return self.replay.outcomes(self, cases)


class _Reshaped(_Replayed):
    """A right solution, all tensors of whose results have been through `change`."""

    def __init__(self, replay: Replay, change: Callable):
        super().__init__(replay, replay.exercise.alternatives[0], replay.exercise)
        self.change = change

    def run(self, cases: Sequence[Case]) -> list[Outcome]:
        return [replace(outcome, value=self._changed(outcome.value)) for outcome in super().run(cases)]

    def _changed(self, value):
        if isinstance(value, PerRank):
            return PerRank(rebuild(list(value), self.change), value.traffic)
        return rebuild(value, self.change)

    def changes(self, one: Case) -> bool:
        """Whether any shape in the result becomes another one."""
        return any(self.change(x).shape != x.shape for x in self._tensors(one))

    def dimensions(self, cases: Sequence[Case]) -> int:
        """The most that a tensor in the results has."""
        return max((x.dim() for one in cases for x in self._tensors(one)), default=0)

    def _tensors(self, one: Case) -> list[torch.Tensor]:
        return list(tensors(super().run([one])[0].value))


class Replays:
    """Those of one exercise, run with nothing forbidden, as in a diagnosis: watching takes most of the time."""

    def __init__(self, exercise: Exercise):
        self.exercise = replace(exercise, forbid=(), limit=PATIENCE)

    @cached_property
    def all(self) -> Replay:
        mistakes = [m.implementation for m in self.exercise.misconceptions if not m.hangs]
        return Replay(self.exercise, SEEDS, [*self.exercise.alternatives, *mistakes])


@functools.lru_cache(maxsize=1)  # tests come exercise by exercise, and what one of them needs to remember is large
def replays_of(name: str) -> Replays:
    return Replays(EXERCISES[name])


def every(attribute: str) -> list:
    return [
        pytest.param(exercise, item, id=f"{name}-{i}")
        for name, exercise in EXERCISES.items()
        for i, item in enumerate(getattr(exercise, attribute))
    ]


@pytest.mark.parametrize(("exercise", "misconception"), every("misconceptions"))
def test_misconception_is_rejected_and_diagnosed_as_itself(exercise, misconception):
    for seed in SEEDS[: 1 if misconception.hangs else None]:
        judgment = replays_of(exercise.name).all.judge(misconception.implementation, seed)
        assert judgment.rejected, f"seed {seed}: full marks although {misconception.says}"
        assert judgment.diagnosis.misconception is misconception, f"seed {seed}:\n{judgment.report().text()}"


@pytest.mark.parametrize("exercise", [e for e in EXERCISES.values() if e.forbid], ids=lambda exercise: exercise.name)
def test_mistakes_and_alternatives_call_nothing_forbidden(exercise):
    wrong = [m.implementation for m in exercise.misconceptions if not m.hangs]
    cases = [one for seed in SEEDS[:2] for one in exercise.draw(seed)]
    found = run_all([*wrong, *exercise.alternatives], exercise, cases)
    told = {o.failure.message for outcomes in found for o in outcomes if o.failure and o.failure.kind == "forbidden"}
    assert not told


@pytest.mark.parametrize(("exercise", "alternative"), every("alternatives"))
def test_alternative_gets_full_marks(exercise, alternative):
    for seed in SEEDS:
        judgment = replays_of(exercise.name).all.judge(alternative, seed)
        assert judgment.solved, f"seed {seed}:\n{judgment.report().text()}"


TRAINED = [pytest.param(e, id=n) for n, e in EXERCISES.items() if any(law.name == FLOWS for law in e.laws)]


@pytest.mark.parametrize("exercise", TRAINED)
def test_a_right_result_that_is_cut_off_from_the_graph_is_rejected_as_that(exercise):
    @functools.wraps(exercise.alternatives[0])  # no learner's, who may not call it
    def cut(*args, **kwargs):
        with torch.no_grad():
            return exercise.alternatives[0](*args, **kwargs)

    for seed in SEEDS:
        judgment = replays_of(exercise.name).all.judge(cut, seed)
        assert "cut off from the graph" in judgment.diagnosis.says, f"seed {seed}:\n{judgment.report().text()}"


def _without_the_first(x: torch.Tensor) -> torch.Tensor:
    return x.squeeze(0) if x.dim() else x


_BY_AUTOGRAD = "the result is one number, and gradients have the shapes that autograd gives them"
_NEVER = {  # why no result can have an axis of size one
    "scale_rope": "d is at least 4, so there are two speeds or more",
    "DDP": "forward() hands on what the module says, and gradients are compared in one row",
    "pipeline_step": _BY_AUTOGRAD,
    "vocab_parallel_cross_entropy": _BY_AUTOGRAD,
    "accumulate_gradients": _BY_AUTOGRAD,
}
_SEVERAL = {"dpo_loss": "rewards are [2, pairs]", "precision_recall_f1": "precision, recall and F1 come first"}
RESHAPES = {  # what squeeze(), squeeze(0) and reshape(-1) at the end take away, and where nothing is to be taken
    "every axis of size one": (torch.squeeze, _NEVER),
    "a batch of one": (_without_the_first, _NEVER | _SEVERAL),
    "dimensions": (torch.ravel, {}),
}


@pytest.mark.parametrize("what", RESHAPES)
@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
def test_a_right_result_of_another_shape_is_rejected(exercise, what):
    """A solution that ended in squeeze() was right wherever no case had one token, one row or a batch of one."""
    change, never = RESHAPES[what]
    replay = replays_of(exercise.name).all
    running = _Reshaped(replay, change)
    least = 2 if what == "dimensions" and "[..." not in stub(exercise.name) else 1
    for seed, cases in replay.cases.items():
        changed = [one for one in cases if running.changes(one)]
        if exercise.name in never:
            assert not changed, f"seed {seed}: and yet {changed[0].label!r} has it"
        elif not changed:
            assert running.dimensions(cases) < least, f"seed {seed}: no result can lose {what}: add a case"
        else:
            judgment = Judgment(replay.exercise, changed, running, replay.runner, replay._answer)
            assert judgment.rejected, f"seed {seed}: full marks"


OF_ITS_OWN = {"fisher_diagonal": "its inputs are made by the probe, and a gradient never lies in a parameter's memory"}


def test_what_a_docstring_calls_new_is_asked_to_be_new():
    new = re.compile(r"\bnew\s+(\w+\s+)?(tensors?|lists?|dicts?)\b")
    promised = {name for name in EXERCISES if new.search(stub(name))}
    assert {name for name in promised if not EXERCISES[name].fresh} == set(OF_ITS_OWN)


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
def test_no_other_mistake_is_said_to_be_exactly_the_one(exercise):
    replay = replays_of(exercise.name).all
    for at, misconception in enumerate(exercise.misconceptions):
        others = exercise.misconceptions[:at] + exercise.misconceptions[at + 1 :]
        if misconception.hangs:
            continue
        judgment = replay.judge(misconception.implementation, SEEDS[0], misconceptions=others)
        named = None if judgment.stopped else judgment.named
        assert not named or not named.misconception or not named.says.startswith("Your result is exactly"), (
            f"where {misconception.says}: {named.says}"
        )


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
def test_every_law_can_break(exercise):
    wrong = [m.implementation for m in exercise.misconceptions if not m.hangs]
    if not exercise.probe:
        wrong += [lambda x, *_, make=make, **__: make(x) for _, make in _TRIVIAL.values()]
    found = [replays_of(exercise.name).all.judge(one, SEEDS[0]) for one in wrong]
    kept = [law.name for law in exercise.laws if not any(judgment.breaks(law) for judgment in found)]
    assert not kept, "no wrong solution breaks these"


@pytest.mark.parametrize("exercise", [e for e in EXERCISES.values() if e.oracle], ids=lambda exercise: exercise.name)
def test_every_default_is_left_to_the_function_in_some_case(exercise):
    """A metric that took 10 for its default of None was right in all cases: each of them passed a k."""
    cases = exercise.draw(SEEDS[0])
    for place, parameter in enumerate(inspect.signature(exercise.oracle).parameters.values()):
        if parameter.default is not parameter.empty:
            left = [one for one in cases if parameter.name not in one.kwargs and len(one.args) <= place]
            assert left, f"every case passes {parameter.name}"


def _otherwise(right: Callable) -> list:
    """The function with each of its defaults replaced by quite another one, and what was replaced."""
    signature, made = inspect.signature(right), []

    def replaced(name: str, value: object) -> Callable:
        @functools.wraps(right)
        def function(*args, **kwargs):
            given = signature.bind_partial(*args, **kwargs).arguments
            return right(*args, **({name: value} if name not in given else {}), **kwargs)

        return function

    for name, parameter in signature.parameters.items():
        default = parameter.default
        if isinstance(default, bool):
            made.append((f"{name}={not default}", replaced(name, not default)))
        elif isinstance(default, int | float):
            other = (default / 10 or 0.1) if isinstance(default, float) else (2 * default or 1)
            made.append((f"{name}={other}", replaced(name, other)))
    return made


@pytest.mark.parametrize(
    ("exercise", "told", "function"),
    [
        pytest.param(e, told, function, id=f"{n}-{told}")
        for n, e in EXERCISES.items()
        if e.oracle and not e.ranks
        for told, function in _otherwise(e.alternatives[0])
    ],
)
def test_another_default_is_rejected(exercise, told, function):
    """A probe passed every argument by itself, and rates were too small to be seen: wrong defaults had full marks."""
    assert replays_of(exercise.name).all.judge(function, SEEDS[0]).rejected, told


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

    def judge(implementation):
        return Judgment(exercise, exercise.draw(public_seed(exercise)), Local(implementation, exercise))

    assert judge(unsolved).report().status == "not implemented"
    assert judge(returns_none).earned == 0
    if not exercise.probe:
        for _, make in _TRIVIAL.values():
            assert judge(lambda x, *_, make=make, **__: make(x)).earned == 0
