"""What is told of wrong results that no list explains: relations to the right ones, other questions, places, cases."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from autograde.exercise import Draft, Exercise, case
from autograde.judging import grading, instead
from autograde.judging.calls import Failure, Outcome
from autograde.judging.diagnosing import Diagnosis, Tried
from autograde.judging.grading import OBSERVED, grade
from autograde.judging.locating import elsewhere
from autograde.judging.patterns import without_influence
from autograde.judging.relations import leaning, on_ranks, related
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


PLANS = toy(lambda ids: [[("F", 9, i) for i in ids], [("B", 8, i) for i in ids]], words)
OF_PLANS = {
    "Each list in your result has its right items, but not in the right order": lambda right: [
        right[0],
        right[1][::-1],
    ],
    "grouped in another way and in another order": lambda right: [right[0][1:], [*right[1], right[0][0]]],
    "the right items, grouped in another way.": lambda right: [right[0][:-1], [right[0][-1], *right[1]]],
    "their right entries in another order": lambda right: [[(k, i, s) for k, s, i in row] for row in right],
    "the right one but for capitals": lambda right: [[(k.lower(), s, i) for k, s, i in row] for row in right],
}


@pytest.mark.parametrize(("says", "change"), OF_PLANS.items(), ids=list(OF_PLANS))
def test_lists_in_lists_are_compared_with_the_right_ones(says, change):
    assert says in told(PLANS, lambda ids: change(PLANS.oracle(ids)))


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


def test_where_several_parts_are_wrong_they_are_told():
    more = toy(lambda x: {**PARTS.oracle(x), "sum": x.sum(-1)}, rows)

    def wrong(x):
        return more.oracle(x) | {"top": x.amax(-1).sin(), "low": x.amin(-1).cos()}

    assert told(more, wrong) == "Of the parts of your result these are wrong: `top`, `low`."


def test_a_part_that_is_off_by_rounding_is_none_of_the_wrong_ones():
    more = toy(lambda x: (x.mean(-1), x.amax(-1), x.amin(-1)), rows)
    found = told(more, lambda x: (x.mean(-1) + 2e-4, x.amax(-1)[None], x.amin(-1)[None]))
    assert found == "Of the parts of your result these are wrong: item 1, item 2."


def test_errors_beside_wrong_results_are_told():
    many = toy(lambda n: n * n, lambda g: (case(n, label=f"n = {n}") for n in range(20)))

    def wrong(n):
        return 1 // min(n % 7, 1) + n % 3

    assert told(many, wrong) == "Your code ends in an error on some inputs, and is wrong on others."


def test_where_one_rank_alone_is_right_that_is_told():
    said = on_ranks(replace(SHARES, ranks=True), [([1.0, 2.0, 6.0], [1.0, 4.0, 8.0]), ([1.0, 2.0], [1.0, 4.0])])
    assert said == ("Rank 0 alone has the right result.", [(2.0, 4.0), (6.0, 8.0), (2.0, 4.0)])
    assert on_ranks(replace(SHARES, ranks=True), [([3.0, 2.0], [1.0, 4.0])])[0] == ""


def test_parts_that_are_right_are_no_evidence_for_another_question():
    """A kappa that is cut off at 0 is also that of people whose votes are one larger: so is any 0."""

    def votes(g):
        for n in (2, 3, 4, 5, 6, 7):
            yield case(torch.randint(2, (n,), generator=g), n % 3 - 1.0, label=f"{n} votes")

    def report(people, kappa):
        return {"kappa": kappa if people.max() < 2 else 0.0, "share": 0.25, "first": 0.5, "count": len(people) * 1.0}

    said = told(toy(report, votes), lambda people, kappa: report(people, max(kappa, 0.0)))
    assert "one larger" not in said


def test_the_first_matrix_used_for_all_is_told():
    def batches(g):
        for n in (2, 3, 4):
            yield case(torch.randn(2, n, 3, 2, generator=g), torch.randn(2, 4, generator=g), label=f"{n} batches")

    product = toy(lambda x, w: x @ w, batches)
    told_of = told(product, lambda x, w: (x[0, 0] @ w).expand(*x.shape[:-1], 4).clone())
    assert told_of == "Wherever your result is wrong, it is the right one for `x` in its first matrix alone, for all."


def test_a_part_with_its_dimensions_exchanged_is_told():
    both = toy(lambda x: (x.sum(), x.softmax(-1)), rows)
    told_of = told(both, lambda x: (x.sum(), x.softmax(-1).mT))
    assert told_of.endswith("In it: your numbers are right, but the dimensions are in another order.")
    told_of = told(both, lambda x: (x.sum(), x.softmax(-1).flatten()))
    assert told_of.endswith("In it: your numbers are right, and the shape is not.")


def test_an_input_handed_back_on_some_cases_and_changed_on_others_is_told():
    def halves(g):
        for n in (3, 4, 5, 7):
            yield case(torch.rand(n, 2, generator=g) - float(n > 4), label=f"{n} rows")

    positive = toy(lambda x: x.abs(), halves, fresh=True)

    def wrong(x):
        return x.abs_() if (x < 0).any() else x

    assert "where a new object is asked for" in told(positive, wrong)


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


def scored_alone(g):
    return (case(one.args[0], label=one.label) for one in scored(g))


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


SUMS = {
    "a list of arrays": lambda x: [row.numpy() * len(x) for row in x.exp() / len(x)],
    "an array that can't be written to": lambda x: np.frombuffer(x.exp().numpy().tobytes(), np.float32),
    "complex numbers as an array": lambda x: (x.exp() * len(x)).numpy() * (1 + 1j),
    "complex numbers": lambda x: x.exp() * len(x) * (1 + 1j),
    "numbers and None": lambda x: [None, *x.exp().tolist()],
}


@pytest.mark.parametrize("wrong", SUMS.values(), ids=list(SUMS))
def test_what_torch_has_to_guess_at_is_judged_without_a_word_from_numpy(wrong, recwarn):
    counted = toy(lambda x: x.exp(), scored_alone)
    assert "times" not in told(counted, wrong)
    assert not [str(warning.message) for warning in recwarn]


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


def test_zeros_in_one_place_are_not_called_nothing():
    """A result without numbers was "zeros"; so was one that is right on all cases but a row of zeros."""
    sums = toy(lambda x: x.sum(-1), lambda g: (case(torch.rand(n, 3, generator=g), label=f"{n}") for n in (0, 2, 3, 4)))
    empty = grade(sums, lambda x: x.sum(-1) if len(x) else torch.zeros(0, 1))
    once = grade(sums, lambda x: torch.zeros(2) if len(x) == 2 else x.sum(-1))
    assert "zeros" not in empty.diagnosis + once.diagnosis
    assert grade(sums, lambda x: torch.zeros(len(x))).diagnosis == "Your function gives back zeros."


def test_one_number_has_no_factor_of_its_own():
    right = [torch.tensor([0.0, 0.0, x]) for x in (0.3, 0.5, 0.7)]
    found = related(SHARES, [(e * k, e) for e, k in zip(right, (2.0, 0.7, 3.0), strict=True)])
    assert found is None or "factor" not in found.says


def test_digits_that_get_lost_are_no_factor():
    assert "digits that get lost" in told(SHARES, lambda x: x.softmax(-1).half().float() * (1 + 2e-3))


def with_default(g):
    for n in (4, 5, 6, 7, 8):
        yield case(torch.rand(n, generator=g), label=f"{n} numbers")
        yield case(torch.rand(n, generator=g), n / 3, label=f"{n} numbers and a power")
    yield case(torch.ones(3), label="a power changes nothing")


def test_another_default_is_told():
    exercise = toy(lambda x, power=1.5: x**power + x.sin(), with_default)
    found = told(exercise, lambda x, power=1.2: x**power + x.sin())
    assert found.startswith("Your result is right wherever the caller gives `power`")
    assert "is your default" not in told(exercise, lambda x, power=1.5: x**power + x.cos())


def test_what_an_exercise_says_of_every_wrong_result_is_repeated():
    draft = Draft("toy", points=1, dtypes=(), strides=False, no_gradient="a toy")
    draft.cases(words)
    draft.oracle(lambda ids: [(i, a) for i, a in enumerate(ids)])
    draft.agrees(lambda expected, got, one: got == expected if isinstance(got, list) else "a list is wanted")
    found = told(draft.finished(), lambda ids: dict(enumerate(ids)))
    assert found == "Wherever your result is wrong: a list is wanted."


def test_where_nothing_holds_for_all_the_smallest_case_is_explained():
    def mixed(ids):
        right = SPLIT.oracle(ids)
        return right[::-1] if len(ids) == 8 else [right[0], (7, 7)] if len(ids) == 9 else [(8, 8), *right[2:], (8, 8)]

    found = told(SPLIT, mixed)
    assert found == "On the smallest case that fails: your result has the right items in reverse order."


def test_a_few_lost_digits_are_not_called_nan():
    """Where nothing was off by more than 1e-4, nothing was looked at, and everything held of it."""
    exact = toy(lambda x: x.double().exp(), rows, rtol=1e-9, atol=1e-12)
    assert "NaN" not in told(exact, lambda x: x.double().exp().float().double())


def test_where_only_the_first_argument_is_special_nothing_is_said_to_stay():
    steps = toy(lambda step: 0.5 + step / 7, lambda g: (case(k, label=f"step {k}") for k in (0, 3, 4, 5, 8)))
    assert "first call" not in told(steps, lambda step: 0.5 + step**1.5 / 7)


def test_a_mistake_that_is_not_made_elsewhere_is_not_named():
    """An empty list was said to be taken the wrong way round, by a solution that takes all others the right way."""
    draft = Draft("toy", points=1, dtypes=(), strides=False, no_gradient="a toy")
    draft.cases(lambda g: (case(list(range(n)), label=f"{n} items") for n in (0, 0, 0, 1, 2, 3, 4, 5, 6)))
    draft.oracle(lambda items: [*items, -1])
    draft.mistake("the order is turned round, and nothing added", hint="no")(lambda items: items[::-1])
    exercise = draft.finished()
    assert "turned round" not in told(exercise, lambda items: [*items, -1] if items else [])
    assert "turned round" in told(exercise, lambda items: items[::-1] if items else [-1])


def test_one_wrong_truth_value_is_not_called_exchanged():
    even = toy(lambda n: n % 2 == 0, lambda g: (case(n, label=f"{n}") for n in range(8)))
    assert "exchanged" not in told(even, lambda n: n % 4 == 0)


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


def test_errors_alone_are_not_called_wrong_results_too():
    cases = [case(n, label=f"number {n}") for n in range(20)]
    got = [Outcome(failure=Failure("raised", "")) if n < 4 else Outcome(value=n) for n in range(20)]
    assert elsewhere(Tried(cases, got, (0, 1, 2, 3))) is None
    got[0] = Outcome(value=5)
    assert elsewhere(Tried(cases, got, (0, 1, 2, 3))).says.startswith("Your code ends in an error on some inputs")
