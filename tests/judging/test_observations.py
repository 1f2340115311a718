"""What is told of wrong results that no list explains: relations to the right ones, other questions, places, cases."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import pytest
import torch

from autograde.exercise import Draft, Exercise, case
from autograde.judging import grading, instead
from autograde.judging.calls import Failure, Outcome
from autograde.judging.diagnosing import Diagnosis, Tried
from autograde.judging.grading import OBSERVED, grade
from autograde.judging.patterns import without_influence
from autograde.judging.relations import leaning, related
from autograde.judging.running import Local


def toy(function, cases, **settings) -> Exercise:
    draft = Draft("toy", points=1, dtypes=(), strides=False, no_gradient="a toy", **settings)
    draft.cases(cases)
    draft.oracle(function)
    return draft.finished()


def told(exercise: Exercise, wrong) -> str:
    return grade(exercise, wrong).diagnosis


def rows(g):
    for n in (3, 4, 5, 7):
        yield case(torch.randn(n, n + 2, generator=g), label=f"{n} rows")


SHARES = toy(lambda x: x.softmax(-1), rows)
OF_SHARES = {
    "100 times": lambda x: 100 * x.softmax(-1),
    "-0.5 times": lambda x: -0.5 * x.softmax(-1),
    "1 minus the right one": lambda x: 1 - x.softmax(-1),
    "the square of": lambda x: x.softmax(-1) ** 2,
    "the logarithm of": lambda x: x.log_softmax(-1),
    "Each row of your result is off by a factor of its own": lambda x: x.exp(),
    "in reverse order along its first dimension": lambda x: x.softmax(-1).flip(-2),
    "sum to 1 along the last but one dimension": lambda x: x.softmax(-2),
    "after a softmax": lambda x: x.softmax(-1).softmax(-1),
    "still to go through a softmax": lambda x: x.clone() + 1,
    "added up along the last dimension": lambda x: x.softmax(-1).cumsum(-1),
    "only the first place is wrong": lambda x: torch.cat([x[:, :1], x.softmax(-1)[:, 1:]], 1),
    "only the second half is wrong": lambda x: _half(x),
    "too short": lambda x: x.softmax(-1)[:, :-1],
    "Your result is the right one's mean over the last dimension": lambda x: x.softmax(-1).mean(-1),
    "it is NaN": lambda x: x.softmax(-1) / 0 * 0,
    "near the right one, within 1 %": lambda x: x.softmax(-1) * (1 + 3e-3 * torch.rand(x.shape)),
}


def _half(x):
    out = x.softmax(-1)
    out[:, out.shape[1] // 2 :] += torch.rand(out[:, out.shape[1] // 2 :].shape)
    return out


@pytest.mark.parametrize(("says", "wrong"), OF_SHARES.items(), ids=list(OF_SHARES))
def test_numbers_are_compared_with_the_right_ones(says, wrong):
    assert says in told(SHARES, wrong)


def words(g):
    for n in (4, 5, 6, 8):
        yield case(torch.randint(0, 3, (n,), generator=g).tolist() + [0, 2, 1, 1], label=f"{n} words")


SPLIT = toy(lambda ids: [(i, a) for i, a in enumerate(ids)] + [(0, ids[0]), (9, 0)], words)
OF_ITEMS = {
    "in reverse order": lambda right: right[::-1],
    "sorted, which is not asked for": sorted,
    "ends too early": lambda right: right[:-1],
    "goes on too long": lambda right: [*right, (9, 9)],
    "its beginning is missing": lambda right: right[1:],
    "each right item once": lambda right: list(dict.fromkeys(right)),
    "Right items are missing": lambda right: [*right[:2], *right[4:]],
    "grouped in another way": lambda right: [x for pair in right for x in pair],
    "Every wrong number is 1 too large": lambda right: [(i + 1, a) for i, a in right],
    "begins right and goes wrong": lambda right: [*right[:2], (7, 7), (8, 8), *right[4:]],
}


@pytest.mark.parametrize(("says", "change"), OF_ITEMS.items(), ids=list(OF_ITEMS))
def test_lists_are_compared_with_the_right_ones(says, change):
    assert says in told(SPLIT, lambda ids: change(SPLIT.oracle(ids)))


TEXTS = {
    "but for white space at its ends": lambda right: right + "\n",
    "but for white space": lambda right: right.replace(": ", ":"),
    "but for capitals": str.upper,
    "ends too early": lambda right: right[:-3],
    "something too much stands before": lambda right: "So: " + right,
    "but for marks": lambda right: right.replace('"', "'"),
    "A piece is missing inside": lambda right: right[:4] + right[7:],
}
SPOKEN = toy(lambda text: f'He said: "{text}" loudly', lambda g: (case(text) for text in ("one", "no two", "what")))


@pytest.mark.parametrize(("says", "change"), TEXTS.items(), ids=list(TEXTS))
def test_texts_are_compared_with_the_right_ones(says, change):
    assert says in told(SPOKEN, lambda text: change(SPOKEN.oracle(text)))


PARTS = toy(lambda x: {"mean": x.mean(-1), "top": x.amax(-1), "low": x.amin(-1)}, rows)


def test_the_wrong_part_is_told_and_what_is_wrong_in_it():
    assert told(PARTS, lambda x: PARTS.oracle(x) | {"top": x.amax(-1) * 2}) == (
        "Only `top` of your result is wrong. In it: every number is the right one times 2."
    )
    assert told(PARTS, lambda x: {"top": x.amax(-1), "low": x.amin(-1)}).startswith("Keys are missing")


def masks(g):
    for n in (3, 4, 6, 9):
        yield case(n, 1 + n // 3, label=f"{n} tokens")


MASK = toy(lambda n, window: torch.ones(n, n).tril().triu(1 - window).bool(), masks)
OF_MASKS = {
    "True and False are exchanged": lambda n, window: ~MASK.oracle(n, window),
    "one diagonal, and is right elsewhere": lambda n, window: MASK.oracle(n, window) & ~torch.eye(n).bool(),
    "as numbers, where True and False are asked for": lambda n, window: MASK.oracle(n, window).float(),
    "a mask to be added": lambda n, window: torch.zeros(n, n).masked_fill(~MASK.oracle(n, window), -math.inf),
    "the right one for `window` one larger": lambda n, window: torch.ones(n, n).tril().triu(-window).bool(),
    "True where False is right": lambda n, window: MASK.oracle(n, window) | (torch.arange(n) == 0),
}


@pytest.mark.parametrize(("says", "wrong"), OF_MASKS.items(), ids=list(OF_MASKS))
def test_masks_are_compared_with_the_right_ones(says, wrong):
    assert says in told(MASK, wrong)


def scored(g):
    for n in (5, 6, 8):
        yield case(torch.randn(n, generator=g), torch.randn(n, generator=g), n / 4, label=f"{n} numbers")


WEIGHED = toy(lambda x, y, by=0.5: (by * x - y.exp()).mean(), scored)
OF_SIZES = {
    "the right one times the count of numbers in `x`": lambda x, y, by=0.5: (by * x - y.exp()).sum(),
    "the right one for `x` and `y` exchanged": lambda x, y, by=0.5: (by * y - x.exp()).mean(),
    "the right one for `by` at its default": lambda x, y, by=0.5: (0.5 * x - y.exp()).mean(),
    "the right one for `y` negated": lambda x, y, by=0.5: (by * x - (-y).exp()).mean(),
}


@pytest.mark.parametrize(("says", "wrong"), OF_SIZES.items(), ids=list(OF_SIZES))
def test_sizes_and_other_questions(says, wrong):
    assert says in told(WEIGHED, wrong)


def test_two_numbers_are_no_other_question():
    few = toy(lambda n: n % 2, lambda g: (case(n) for n in (2, 3, 4, 5)))
    assert "the right one for" not in told(few, lambda n: (n + 1) % 2)


def places(g):
    for k, n in ((0, 3), (0, 5), (1, 4), (2, 6), (3, 2)):
        yield case(torch.randn(n, generator=g), k, label=f"{n} after {k}")


SHIFTED = toy(lambda x, past: x.exp() + past**1.5, places)


def test_what_tells_wrong_cases_from_others():
    def wrong(x, past):
        return x.exp() + past**1.5 if past else x.sin()

    assert told(SHIFTED, wrong) == "Your result is wrong wherever `past` is 0, and right elsewhere."

    def fails(x, past):
        return x.exp() + past**1.5 if past else x[100]

    assert told(SHIFTED, fails) == "Your code ends in an error wherever `past` is 0, and is right elsewhere."


def test_a_single_wrong_case_is_told_by_its_label():
    def wrong(x, past):
        return x.sin() if past == 1 else x.exp() + past**1.5

    assert told(SHIFTED, wrong) == "Your result is right but for a few cases: `4 after 1`."
    assert told(SHIFTED, lambda x, past: x[100]) == "Your code ends in an error, whatever the input."


def test_of_several_broken_laws_one_is_told():
    draft = Draft("toy", points=1, dtypes=(), strides=False, no_gradient="a toy")
    draft.cases(rows)
    draft.oracle(lambda x: x.sum(-1))
    draft.law("is float64")(lambda out, one, call: out.dtype is torch.float64)
    draft.law("forgets nothing")(lambda out, one, call: out.dtype is not torch.float32)
    draft.mistake("the sum is float32", hint="no")(lambda x: x.sum(-1) * (1 if len(x) > 3 else 2))
    found = told(draft.finished(), lambda x: x.sum(-1))
    assert found == "Every result is right, but some laws don't hold, such as: is float64."


def test_of_hidden_inputs_no_observation_is_told():
    of_factor = "Every number is the same multiple of the right one."
    assert {grade(SHARES, wrong).secret_diagnosis for wrong in OF_SHARES.values()} == {OBSERVED, of_factor}


def test_nothing_is_said_where_nothing_holds():
    wrong = [(torch.randn(4), torch.randn(4)) for _ in range(4)]
    exercise = SHARES
    assert related(exercise, wrong) is None and leaning(exercise, wrong) is None
    assert related(exercise, []) is None


def test_a_relation_that_one_result_contradicts_is_none():
    right = [torch.rand(5) for _ in range(3)]
    wrong = [(2 * e, e) for e in right] + [(3 * right[0], right[0])]
    assert related(SHARES, wrong) == Diagnosis("In each call your numbers are off by one and the same factor.")
    assert related(SHARES, wrong[:3]) == Diagnosis("Every number is the right one times 2.")


def test_an_oracle_that_would_never_end_for_other_arguments_is_cut_off(monkeypatch):
    def counted(x, step=2):
        total, i = 0.0, 0
        while i < len(x):
            total, i = total + float(x[i]), i + step
        return total

    monkeypatch.setattr(grading, "_ASKING", 0.05)
    exercise = toy(
        counted, lambda g: (case(torch.rand(n, generator=g), step) for n, step in ((9, 2), (11, 3), (14, 4)))
    )
    assert told(exercise, lambda x, step=2: counted(x, step) + x.max().exp().item())


def test_other_questions_are_asked_for_a_short_time_only(monkeypatch):
    asked = []

    @functools.wraps(WEIGHED.oracle)
    def counting(x, y, by=0.5):
        asked.append(1)
        return WEIGHED.oracle(x, y, by)

    exercise = toy(counting, scored)
    monkeypatch.setattr(instead, "_SECONDS", -1.0)
    before = grade(exercise, lambda x, y, by=0.5: (by * y - x.exp()).mean()).diagnosis
    assert "exchanged" not in before and len(asked) < 60


@pytest.mark.parametrize("n", [0, 4])
def test_nothing_is_said_of_numbers_of_which_none_is_off(n):
    """Wrong by its type alone: "every wrong number is 1 too large" held, there being no wrong number."""
    cases = [case(torch.arange(n) + i, label=f"{i}") for i in range(4)]
    ids = toy(lambda x: x + 1, lambda g: iter(cases))
    assert "too large" not in told(ids, lambda x: (x + 1).float())
    listed = toy(lambda x: [t + 1 for t in x], lambda g: (case([one.args[0]] * 2, label=one.label) for one in cases))
    assert "too large" not in told(listed, lambda x: [(t + 1).float() for t in x])


class Launches(Local):
    """Runs here what is asked of ranks, and writes down what shares a launch. One that fails takes the others along."""

    def __init__(self, implementation, exercise):
        super().__init__(implementation, replace(exercise, ranks=False))
        self.launches = []

    def run(self, cases):
        self.launches.append(len(cases))
        outcomes = super().run(cases)
        failed = any(outcome.failure for outcome in outcomes)
        return [Outcome(failure=Failure("ranks", "a rank has died"))] * len(cases) if failed else outcomes


def ignores_size(x, by, size):
    return x * by + 2


def ignores_size_and_fails(x, by, size):
    return x * by + 2 / (by == 3.0)


@pytest.mark.parametrize(
    ("wrong", "launches"), [(ignores_size, [3, 1, 1]), (ignores_size_and_fails, [3, 1, 1, 1, 1, 1])]
)
def test_on_ranks_arguments_share_a_launch_and_a_failure_hides_no_other_argument(wrong, launches):
    def draws(g):
        for _ in range(4):
            yield case(torch.randn(3, generator=g), 3.0, size=2)

    exercise = replace(toy(lambda x, by, size: x * by + size, draws), ranks=True)
    cases, running = exercise.draw(0), Launches(wrong, exercise)
    got = Local.run(running, cases)
    right = [exercise.oracle(*one.args, **one.kwargs) for one in cases]
    tried = Tried(cases, got, range(len(cases)))
    found = without_influence(exercise, tried, right, running, lambda e, one: e.oracle(*one.args, **one.kwargs))
    assert "Where `size` alone changed, your result stayed the same" in found.says
    assert running.launches == launches
