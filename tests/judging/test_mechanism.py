"""What every exercise is judged by without its author's help: precisions, strides, gradients, rounding, patterns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from autograde.exercise import Draft, Exercise, Law, Misconception, case, keeps_dtype, same
from autograde.exercises.shared import integer
from autograde.judging.gradients import FLOWS
from autograde.judging.grading import grade


def drawn(g):
    for n in (3, 4, 5, 6):
        yield case(torch.randn(n, n + 1, generator=g), float(n), label=f"{n} rows")


def scaled(x, by):
    return x * by - x.mean(-1, keepdim=True)


def exercise(function=scaled, cases=drawn, mistakes=(), **settings) -> Exercise:
    draft = Draft("toy", points=6, **settings)
    draft.cases(cases)
    draft.oracle(function)
    draft.law("keeps the dtype")(keeps_dtype)
    for says, wrong in mistakes:
        draft.mistake(says, hint="look")(wrong)
    return draft.finished()


TOY = exercise()


def line(report, name):
    return next(line for line in report.lines if line.name == name)


def test_the_first_cases_come_in_other_precisions_and_one_with_other_strides():
    cases = TOY.draw(0)
    dtypes = [one.args[0].dtype for one in cases]
    assert dtypes == [torch.float32] * 4 + [torch.float64] * 2 + [torch.bfloat16] * 2 + [torch.float32]
    assert not cases[-1].args[0].is_contiguous() and torch.equal(cases[-1].args[0], cases[0].args[0])
    assert [one.trained for one in cases] == [True] * 3 + [False] * 6
    assert [one.made for one in cases] == [False] * 4 + [True] * 5


def test_an_author_may_do_without():
    cases = exercise(dtypes=(), strides=False, no_gradient="nobody trains a toy").draw(0)
    assert len(cases) == 4 and not any(one.trained or one.made for one in cases)


def test_a_wrong_dtype_costs_the_law_alone():
    report = grade(TOY, lambda x, by: scaled(x.float(), by))
    assert "torch.float64 went in, torch.float32 came out" in line(report, "keeps the dtype").note
    assert report.earned == 4.5  # half of the points for the values, and each law a quarter


def test_bfloat16_inside_is_refused_where_precision_is_promised():
    def coarse(x, by):
        return scaled(x.bfloat16(), by).to(x.dtype)

    assert not grade(TOY, coarse).solved
    few = replace(TOY, cases=lambda g: [replace(c, args=(c.args[0].bfloat16(), c.args[1])) for c in drawn(g)])
    sums = lambda x, by: (x.bfloat16() * by).cumsum(-1).to(x.dtype)  # noqa: E731
    exact = replace(few, oracle=lambda x, by: (x.double() * by).cumsum(-1).to(x.dtype), laws=(), precise=True)
    assert not grade(exact, sums).solved
    assert grade(exact, lambda x, by: (x.float() * by).cumsum(-1).to(x.dtype)).solved


@pytest.mark.parametrize(
    "cut",
    [
        torch.no_grad()(scaled),
        lambda x, by: scaled(x.detach(), by),
        lambda x, by: scaled(x, by).detach(),
        lambda x, by: torch.tensor(scaled(x, by).tolist(), dtype=x.dtype),
    ],
)
def test_a_result_that_is_cut_off_is_named(cut):
    report = grade(TOY, cut)
    assert not report.solved and "cut off from the graph" in report.diagnosis
    assert [each.name for each in report.lines if not each.passed] == [FLOWS]


def test_a_partial_gradient_is_told():
    report = grade(TOY, lambda x, by: x * by - x.detach().mean(-1, keepdim=True))
    assert not report.solved and "gradients differ" in report.diagnosis
    assert "the gradient of `x`" in line(report, FLOWS).note


def test_gradients_are_compared_in_each_branch_and_finite_where_numbers_are_large():
    def some(g):
        for n in (2, 3, 4):
            yield case(torch.randn(n, generator=g))
        yield case(torch.randn(3, generator=g), twice=True)
        yield case(torch.randn(3, generator=g), twice=False)
        yield case(torch.tensor([900.0, -900.0]), label="large")
        yield case(torch.randn(5, generator=g))

    def silu(x, twice=False):
        return x * x.sigmoid() * (2 if twice else 1)

    one = exercise(silu, some, dtypes=(), strides=False)
    assert [(c.trained, c.wild) for c in one.draw(0)] == [(True, False)] * 5 + [(True, True), (False, False)]
    assert grade(one, lambda x, twice=False: torch.nn.functional.silu(x) * (1 + twice)).solved
    cut = grade(one, lambda x, twice=False: silu(x.detach() if twice else x, twice))
    assert "cut off from the graph" in cut.diagnosis and not line(cut, FLOWS).passed
    overflows = grade(one, lambda x, twice=False: x / (1 + torch.exp(-x)) * (1 + twice))
    assert "some gradients are NaN or infinite" in overflows.diagnosis
    assert "with large numbers the gradient of `x` isn't finite" in line(overflows, FLOWS).note


def test_gradients_are_compared_where_a_number_is_0_or_1():
    def some(g):
        for share in (0.5, 0.3, 0.7, 0.2, 1.0, 0):
            yield case(torch.randn(4, generator=g), share)

    def kept(x, share):
        return x / (1 - share) * (torch.arange(4) / 4 >= share) if share < 1 else 0 * x

    one = exercise(kept, some, dtypes=(), strides=False)
    assert [c.trained for c in one.draw(0)] == [True] * 3 + [False, True, True]
    divides = grade(one, lambda x, share: torch.where(torch.arange(4) / 4 < share, torch.zeros(4), x / (1 - share)))
    assert "some gradients are NaN or infinite" in divides.diagnosis


def test_a_name_for_a_gradient_fits_its_size():
    def cut(x, by):
        return (x - x.detach().mean(-1, keepdim=True)) * by

    def half(x, by):
        mean = x.mean(-1, keepdim=True)
        return (x - (mean + mean.detach()) / 2) * by

    asked = exercise(lambda x, by: (x - x.mean(-1, keepdim=True)) * by, mistakes=[("the mean is cut off", cut)])
    assert grade(asked, cut).misconception == "the mean is cut off"
    other = grade(asked, half)
    assert not other.misconception and "gradients differ" in other.diagnosis


def test_gradients_at_a_kink_are_not_compared():
    kinked = exercise(lambda x, by: x.relu() * by, lambda g: [case(torch.zeros(2, 2), 1.0), case(torch.ones(2), 2.0)])
    assert grade(kinked, lambda x, by: x.clamp(min=0) * by).solved


def test_what_cancels_to_nothing_has_the_rounding_of_what_is_large():
    """Attention has no gradient for its keys' bias: what comes out instead is rounding, and other ways have another."""

    def weighted(g):
        for n in (3, 4, 5):
            yield case(torch.randn(n, generator=g), torch.randn(1, generator=g), label=f"{n} scores")

    def shares(scores, bias):
        return 100 * (scores + bias).softmax(-1) * torch.linspace(1, 5, len(scores))

    def by_hand(scores, bias):
        powers = (scores + bias - (scores + bias).detach().max()).exp()
        return 100 * powers / powers.sum() * torch.linspace(1, 5, len(scores))

    def with_a_slope(scores, bias):
        return shares(scores, bias) + 0.01 * (bias - bias.detach())

    one = exercise(shares, weighted, dtypes=(), strides=False)
    for seed in range(20):
        assert grade(one, by_hand, seed=seed).solved
    assert "the gradient of `bias`" in line(grade(one, with_a_slope), FLOWS).note


def test_gradients_are_compared_where_an_entry_is_masked():
    """An input of minus infinity made every gradient look like one at a kink."""

    def masked(g):
        for n in (3, 4, 5):
            yield case(torch.cat([torch.full((1,), -torch.inf), torch.randn(n, generator=g)]), label=f"{n} and a gap")

    def entropy(x):
        logs = x.log_softmax(-1).clamp(min=-99)
        return -(logs.exp() * logs).sum()

    def without_its_slope(x):
        logs = x.log_softmax(-1).clamp(min=-99)
        return -(logs.exp().detach() * logs).sum()

    one = exercise(entropy, masked, dtypes=())
    assert grade(one, entropy).solved
    report = grade(one, without_its_slope)
    assert not line(report, FLOWS).passed and report.lines[0].passed


def test_a_result_that_can_be_asked_for_without_gradients_needs_none():
    free = exercise(no_gradient="it is a metric")
    assert grade(free, torch.no_grad()(scaled)).solved
    assert FLOWS not in [law.name for law in free.laws]


def test_an_input_that_nothing_is_learned_through_may_become_numbers():
    noisy = exercise(
        lambda x, noise: x * (noise > 0),
        lambda g: [case(*torch.randn(2, 3, 4, generator=g), label=f"{n}") for n in range(3)],
        dtypes=(),
    )
    assert grade(noisy, lambda x, noise: x * torch.from_numpy(noise.numpy() > 0)).solved


def test_the_next_best_name_is_tried_where_the_best_one_does_not_hold():
    by_chance = [True] * 9

    def lucky(x, by):  # the same as the solution, on the first nine calls
        return x * by if by_chance and by_chance.pop() else x * 0

    asked = exercise(mistakes=[("it is luck", lucky), NOT_CENTRED])
    assert "the mean is not subtracted" in grade(asked, lambda x, by: x * by).diagnosis


def test_memory_of_an_input_is_no_new_object():
    asked = exercise(lambda x, by: x * by, lambda g: [case(torch.randn(2, 3, generator=g), by) for by in (1.0, 2.0)])
    lazy = lambda x, by: x if by == 1 else x * by  # noqa: E731
    assert grade(asked, lazy).solved
    report = grade(replace(asked, fresh=True), lazy)
    assert not report.solved and "memory of its input (`x`)" in report.text()
    assert not grade(replace(asked, fresh=True), lambda x, by: x[:] if by == 1 else x * by).solved


@pytest.mark.parametrize("kind", [tuple, list, lambda kept: kept[0]])
def test_a_list_of_the_input_is_no_new_one(kind):
    some = lambda g: [case([integer(g, 0, 9)]), case([1, 2])]  # noqa: E731
    asked = exercise(lambda x: kind(([*x], len(x))), some, dtypes=(), no_gradient="lists", fresh=True)
    assert grade(asked, lambda x: kind((list(x), len(x)))).solved
    assert "memory of its input (`x`)" in grade(asked, lambda x: kind((x, len(x)))).text()


def test_view_on_other_strides_is_told():
    report = grade(TOY, lambda x, by: scaled(x.view(-1).view(x.shape), by))
    assert not report.solved and "view size is not compatible" in report.text()


def badly_conditioned(g):
    for _ in range(3):
        x = torch.randn(4, 8, generator=g)
        yield case((100 + 0.01 * x), label="far from zero")


def spread(x):
    return ((x.double() - x.double().mean(-1, keepdim=True)) / x.double().std(-1, keepdim=True)).to(x.dtype)


CONDITIONED = exercise(spread, badly_conditioned, dtypes=(), rtol=1e-6, atol=1e-7, no_gradient="it is a toy")


def test_nobody_loses_points_for_rounding():
    assert grade(CONDITIONED, lambda x: (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)).solved


def test_a_computation_that_loses_digits_by_itself_is_wrong_all_the_same():
    def canceled(x):
        mean = x.mean(-1, keepdim=True)
        variance = (x.square().mean(-1, keepdim=True) - mean.square()) * 8 / 7
        return (x - mean) / variance.clamp(min=1e-12).sqrt()

    assert not grade(CONDITIONED, canceled).solved


def test_an_edge_is_no_matter_of_rounding():
    def ties(g):
        return [case(torch.tensor([1.0, 1.0, 0.0])), case(torch.tensor([2.0, 2.0, 2.0]))]

    first = exercise(lambda x: (x == x.max()).float() * x.argmax(), ties, dtypes=(), no_gradient="no slope")
    assert not grade(first, lambda x: (x == x.max()).float() * (2 - x.flip(-1).argmax())).solved


def test_an_essential_law_is_worth_as_much_as_the_values():
    asked = replace(TOY, laws=(*TOY.laws, Law("the task", lambda out, one, call: False, essential=True)))
    report = grade(asked, scaled)
    assert line(report, "the task").worth == 2 and report.earned == 4


def test_laws_that_reckon_with_digits_are_not_asked_in_few_of_them():
    exact = Law("exactly", lambda out, one, call: same(out, scaled(*one.args), 0, 1e-6) if one.args[0].dtype else None)
    seen = []
    grade(replace(TOY, laws=(Law("sees", lambda out, one, call: seen.append(one.args[0].dtype)), exact)), scaled)
    assert torch.bfloat16 not in seen and torch.float64 in seen


PATTERNS = {
    "Every row of your result is the right first row": lambda x, by: scaled(x, by)[:1].expand(x.shape).clone(),
    "one place too late along dimension -1": lambda x, by: scaled(x, by).roll(1, -1),
    "one place too early along dimension -2": lambda x, by: scaled(x, by).roll(-1, -2),
    "the right numbers in another order": lambda x, by: scaled(x, by).flip(-1, -2),
    "Where `by` alone changed, your result stayed the same": lambda x, by: x * 3.7 - x.mean(-1, keepdim=True),
}


@pytest.mark.parametrize(("told", "wrong"), PATTERNS.items(), ids=list(PATTERNS))
def test_a_pattern_is_seen_without_a_list(told, wrong):
    assert told in grade(TOY, wrong).diagnosis


def test_only_the_first_case_right_is_told():
    kept = {}

    def once(x, by):
        return kept.setdefault("out", scaled(x, by))

    assert "Only the first call is right" in grade(exercise(dtypes=(), strides=False), once).diagnosis


NOT_CENTRED = ("the mean is not subtracted", lambda x, by: x * by)


def test_a_name_that_everything_supports_is_exact():
    report = grade(exercise(mistakes=[NOT_CENTRED]), lambda x, by: by * x)
    assert report.diagnosis == "Your result is exactly what comes out when the mean is not subtracted."


def test_a_name_says_where_it_holds():
    report = grade(exercise(mistakes=[NOT_CENTRED]), lambda x, by: x * by if len(x) < 6 else scaled(x, by))
    assert report.diagnosis.startswith("Wherever your result is wrong, it is exactly what comes out")


def test_a_name_needs_more_than_four_in_five():
    wrong = lambda x, by: x * by if len(x) < 5 else x * by + 1  # noqa: E731
    assert not grade(exercise(mistakes=[NOT_CENTRED]), wrong).misconception


def test_one_case_is_no_proof():
    once = exercise(cases=lambda g: list(drawn(g))[:1], dtypes=(), strides=False, mistakes=[NOT_CENTRED])
    by_chance = [4.2]

    def first_call_only(x, by):
        return x * by if by_chance and by_chance.pop() else x * by + 1

    assert not grade(once, first_call_only).misconception


def test_nan_alone_is_no_proof():
    nothing = ("everything becomes NaN", lambda x, by: x * float("nan"))
    assert not grade(exercise(mistakes=[nothing]), lambda x, by: (x - 100).log()).misconception


def test_an_error_of_the_same_type_is_no_proof():
    def short(x, by):
        raise ValueError("the scale is missing")

    def other(x, by):
        raise ValueError("something else")

    asked = exercise(mistakes=[("the scale is missing", short)])
    assert not grade(asked, other).misconception
    assert grade(asked, short).misconception


def test_an_error_on_exactly_the_same_cases_is_a_proof():
    def refuses(text):
        return lambda x, by: _raise(text) if len(x) == 4 else scaled(x, by)

    def _raise(text):
        raise IndexError(text)

    asked = exercise(mistakes=[("four rows are one too many", refuses("out of range"))])
    assert grade(asked, refuses("no")).misconception


def test_where_only_a_law_is_broken_the_name_fits_its_message():
    wide = Misconception("everything is computed in float32", lambda x, by: scaled(x.float(), by), "Don't cast.")
    asked = replace(TOY, misconceptions=(wide,))
    assert grade(asked, lambda x, by: scaled(x, by).float()).misconception
    assert not grade(asked, lambda x, by: scaled(x.double(), by)).misconception
