"""`expected_calibration_error(confidence, correct, bins=10, equal_mass=False)`: How far confidence is from accuracy."""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.hallucination.shared import judged
from autograde.exercises.shared import pick

exercise = Draft(
    "expected_calibration_error",
    points=3,
    no_gradient="answers are counted in bins: nobody trains through a count",
    dtypes=(torch.float64,),
    forbid=["sklearn"],
    hints=[
        "Of the answers of which the model was 80 to 90 % sure, how many were right? And how many answers are these?",
        "torch.bucketize(confidence, edges[1:-1]) says which bin: an answer on an edge belongs to the bin below it.",
        "For each bin that isn't empty: its share of all answers times |mean of correct - mean of confidence|; summed.",
    ],
)


@exercise.cases
def judgments(g):
    yield case(*judged(g, 60), label="60 answers, 10 bins")
    yield case(*judged(g, 80), 7, label="seven bins")
    yield case(*judged(g, 50, low=0.55), label="never below one half: empty bins")
    confidence, right = judged(g, 40, low=0.2)
    yield case(confidence, right, equal_mass=True, label="bins of equal mass")
    yield case(*judged(g, 33, high=0.7), bins=4, equal_mass=True, label="33 answers, four bins of equal mass")
    close = 0.3 + 0.15 * torch.rand(3, generator=g)
    edged = torch.cat([torch.tensor([0.5, 0.5, 0.25, 0.0, 1.0]), close, close + 0.25])
    yield case(edged, torch.tensor([1, 1, 1, 1, 0] + [0] * 6).bool(), 4, label="on edges")
    ends = torch.cat([torch.zeros(3), torch.ones(4), torch.full((2,), 0.43)])
    yield case(ends, torch.tensor([1, 0, 0, 1, 0, 0, 1, 1, 0]).bool(), 5, label="sure of it, sure that not")
    yield case(*judged(g, 30), 1, label="one bin")
    yield case(torch.tensor([0.83]), torch.tensor([bool(pick(g, 0, 1))]), label="one answer")
    yield case(torch.full((9,), 0.63), (torch.arange(9) < pick(g, 2, 4)), equal_mass=True, label="all equally sure")
    both = torch.cat([torch.full((20,), 0.31), torch.full((20,), 0.37)])
    yield case(both, torch.arange(40) % 20 < torch.tensor([14, 1]).repeat_interleave(20), label="errors that cancel")
    yield case(*judged(g, 3000), 15, label="3,000 answers, 15 bins")


@exercise.oracle
def sklearn_curve(confidence, correct, bins=10, equal_mass=False):
    """scikit-learn's calibration_curve, weighted by numpy's histogram of the same bins."""
    import numpy as np
    from sklearn.calibration import calibration_curve

    sure, right = confidence.double().clamp(0, 1).numpy(), correct.numpy().astype(int)
    edges = np.linspace(0, 1, bins + 1)
    if equal_mass:
        edges = np.percentile(sure, edges * 100)
    counts = np.bincount(np.searchsorted(edges[1:-1], sure), minlength=bins)
    if bins == 1 or len(set(right)) == 1:  # not for the library's own check of labels
        groups = [np.searchsorted(edges[1:-1], sure) == b for b in range(bins)]
        gaps = [abs(right[at].mean() - sure[at].mean()) for at in groups if at.any()]
    else:
        strategy = "quantile" if equal_mass else "uniform"
        true, predicted = calibration_curve(right, sure, n_bins=bins, strategy=strategy)
        gaps = abs(true - predicted)
    return float((counts[counts > 0] / len(sure) * gaps).sum())


@exercise.law("It lies between the gap of all answers together and 1")
def at_least_the_overall_gap(out, one, call):
    confidence, correct = one.args[:2]
    whole = float((correct.double().mean() - confidence.double().mean()).abs())
    return whole - 1e-5 <= float(out) <= 1 + 1e-6


@exercise.law("Each answer twice changes nothing, in bins of equal width")
def twice(out, one, call):
    if one.kwargs.get("equal_mass") or len(one.args[0]) > 100:
        return None
    confidence, correct = one.args[:2]
    return same(float(call(confidence.repeat(2), correct.repeat(2), *one.args[2:], **one.kwargs)), float(out))


def _ece(edge="below", weigh=True, gap=torch.abs, sure=None, mass=True, swap=False, end=float, total=None, empty=0.0):
    """`expected_calibration_error` in parts."""

    def expected_calibration_error(confidence, correct, bins=10, equal_mass=False):
        x, y = confidence.double(), correct.double()
        edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
        if equal_mass if mass is True else mass == "always":
            edges = torch.quantile(x, edges)
        which = torch.bucketize(x, edges[1:-1].contiguous(), right=edge == "above")
        parts = []
        for b in range(bins):
            at = which == b
            if not at.any():
                parts.append(torch.tensor(empty, dtype=torch.float64))
                continue
            said = x[at].mean() if sure is None else sure(x[at], edges[b], edges[b + 1])
            parts.append(gap(y[at].mean() - said) * (at.double().mean() if weigh else 1.0))
        found = torch.stack(parts)
        return end((total or torch.sum)(found))

    return expected_calibration_error


exercise.mistake(
    "an answer on an edge belongs to the bin above", hint="Bins are ]a, b]: what is on an edge goes below."
)(_ece(edge="above"))
exercise.mistake("there is one bin too few: linspace(0, 1, bins)", hint="bins bins have bins + 1 edges.")(
    lambda confidence, correct, bins=10, equal_mass=False: _ece()(confidence, correct, max(bins - 1, 1), equal_mass)
)
exercise.mistake("equal width and equal mass are exchanged", hint="equal_mass=True: edges at quantiles.")(
    lambda confidence, correct, bins=10, equal_mass=False: _ece()(confidence, correct, bins, not equal_mass)
)
exercise.mistake("all bins weigh the same", hint="A bin weighs as much as its share of the answers.")(
    _ece(weigh=False, total=lambda parts: parts[parts != 0].mean() if bool((parts != 0).any()) else parts.sum())
)
exercise.mistake(
    "gaps keep their signs and cancel, as in one bin of all",
    hint="The absolute gap of each bin: too sure here and too unsure there don't cancel.",
)(_ece(gap=lambda x: x, end=lambda x: float(x.abs())))
exercise.mistake("all bins weigh the same, empty ones too", hint="A bin weighs as much as its share of the answers.")(
    _ece(weigh=False, total=torch.mean)
)
exercise.mistake("gaps keep their signs", hint="The absolute gap of each bin: too sure and too unsure don't cancel.")(
    _ece(gap=lambda x: x)
)
exercise.mistake("the last bin is left out", hint="bins bins: edges 0 to bins.")(
    _ece(total=lambda parts: parts[:-1].sum())
)
exercise.mistake("gaps are squared", hint="Absolute gaps: a squared one has another unit.")(_ece(gap=torch.square))
exercise.mistake("the largest gap comes back", hint="That is the maximum calibration error. Here: the weighted mean.")(
    lambda *args, **kwargs: _ece(weigh=False, total=torch.max)(*args, **kwargs)
)
exercise.mistake("the middle of a bin stands for its confidence", hint="The mean confidence of the answers in it.")(
    _ece(sure=lambda x, low, high: (low + high) / 2)
)
exercise.mistake("an empty bin makes it NaN", hint="The mean of nothing is NaN: leave empty bins out.")(
    _ece(empty=float("nan"))
)
exercise.mistake("bins always have equal width", hint="equal_mass: edges at quantiles of the confidence.")(
    _ece(mass="never")
)
exercise.mistake("it is given in percent", hint="From 0 to 1.")(_ece(end=lambda x: 100 * float(x)))


@exercise.mistake("answers of confidence 1 fall out of the last bin", hint="The last bin has both: its edge 1, too.")
def without_ones(confidence, correct, bins=10, equal_mass=False):
    if equal_mass:
        return _ece()(confidence, correct, bins, True)
    inside = confidence < 1
    rest = _ece()(confidence[inside], correct[inside], bins) if inside.any() else 0.0
    return rest * float(inside.double().mean())


@exercise.mistake("answers of confidence 0 fall out of the first bin", hint="The first bin has both its edges.")
def without_zeros(confidence, correct, bins=10, equal_mass=False):
    if equal_mass:
        return _ece()(confidence, correct, bins, True)
    inside = confidence > 0
    rest = _ece()(confidence[inside], correct[inside], bins) if inside.any() else 0.0
    return rest * float(inside.double().mean())


@exercise.mistake(
    "each answer is a bin of its own", hint="|right - confidence| of one answer is never small: use bins."
)
def no_bins(confidence, correct, bins=10, equal_mass=False):
    return float((correct.double() - confidence.double()).abs().mean())


@exercise.mistake("it is the Brier score", hint="That one has no bins, and mixes calibration with how well it sorts.")
def brier(confidence, correct, bins=10, equal_mass=False):
    return float((correct.double() - confidence.double()).square().mean())


@exercise.mistake("there are always ten bins", hint="As many as `bins` says.")
def ten_bins(confidence, correct, bins=10, equal_mass=False):
    return _ece()(confidence, correct, 10, equal_mass)


@exercise.mistake("edges run from the lowest to the highest confidence", hint="Equal width means: from 0 to 1.")
def from_lowest(confidence, correct, bins=10, equal_mass=False):
    if equal_mass:
        return _ece()(confidence, correct, bins, True)
    x, y = confidence.double(), correct.double()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64) * (x.max() - x.min()) + x.min()
    which = torch.bucketize(x, edges[1:-1].contiguous())
    groups = [which == b for b in range(bins)]
    return float(sum((y[at].mean() - x[at].mean()).abs() * at.double().mean() for at in groups if at.any()))


def _between(inside):
    """Bins by `inside(values, low edge, high edge)`: what is in none is lost, what is in two counts twice."""

    def expected_calibration_error(confidence, correct, bins=10, equal_mass=False):
        x, y = confidence.double(), correct.double()
        edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
        edges = torch.quantile(x, edges) if equal_mass else edges
        gaps = torch.stack([(y - x)[inside(x, edges[b], edges[b + 1])].sum().abs() for b in range(bins)])
        return float(gaps.sum() / len(x))

    return expected_calibration_error


exercise.mistake(
    "what lies on the lowest edge falls out of the first bin", hint="What isn't above edge 1 is in the first bin."
)(_between(lambda x, low, high: (x > low) & (x <= high)))
exercise.mistake(
    "bins are [a, b[, and what lies on the highest edge falls out", hint="Bins are ]a, b], and the ends belong to them."
)(_between(lambda x, low, high: (x >= low) & (x < high)))
exercise.mistake("what lies on an edge is in two bins", hint="An inner edge belongs to the bin below it alone.")(
    _between(lambda x, low, high: (x >= low) & (x <= high))
)
exercise.mistake("the sum is divided by the number of bins", hint="The weights, n_B / n, make it a mean already.")(
    lambda confidence, correct, bins=10, equal_mass=False: _ece()(confidence, correct, bins, equal_mass) / bins
)


@exercise.mistake(
    "with equal mass, answers of equal confidence are parted by their order",
    hint="Quantiles are edges: what is equally sure lands in one bin, even if bins are uneven then.",
)
def parted_ties(confidence, correct, bins=10, equal_mass=False):
    if not equal_mass:
        return _ece()(confidence, correct, bins)
    gaps = (correct.double() - confidence.double())[confidence.argsort(stable=True)]
    return float(sum(part.sum().abs() for part in gaps.tensor_split(bins)) / len(gaps))


exercise.alternative(_ece())


@exercise.alternative
def by_index_add(confidence, correct, bins=10, equal_mass=False):
    """|sum of correct - sum of confidence| of each bin, over n; a tensor comes back."""
    steps = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    edges = torch.quantile(confidence.double(), steps) if equal_mass else steps
    which = torch.searchsorted(edges[1:-1].contiguous(), confidence.double())
    gaps = torch.zeros(bins, dtype=torch.float64).index_add(0, which, correct.double() - confidence.double())
    return gaps.abs().sum() / len(confidence)
