"""`abstain(confidence, correct)`: What share of the answers is wrong, if only those it is sure of are given."""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.applications.hallucination.shared import judged
from autograde.exercises.shared import pick

exercise = Draft(
    "abstain",
    points=3,
    no_gradient="answers are counted: nobody trains through a count",
    dtypes=(torch.float64,),
    forbid=["sklearn"],
    hints=[
        "Which thresholds make a difference at all? Only the confidences that occur, each of them once.",
        "threshold = confidence.unique().flip(0); answered = confidence >= threshold[:, None] is a table of bool.",
        "n = answered.sum(1); wrong = (answered & ~correct).sum(1); n / len(confidence) and wrong / n.",
    ],
)


@exercise.cases
def judgments(g):
    yield case(*judged(g, 30), label="30 answers")
    confidence, right = judged(g, 40, levels=6)
    yield case(confidence, right, label="few levels of confidence: many ties")
    yield case(torch.full((8,), 0.4), torch.arange(8) < pick(g, 2, 6), label="all equally sure")
    first = torch.tensor([0.9, 0.9, 0.9, 0.4, 0.2])
    yield case(first, torch.tensor([0, 1, 1, 0, 1]).bool(), label="three are the surest")
    yield case(-3 * torch.rand(12, generator=g), torch.rand(12, generator=g) < 0.6, label="log-probabilities")
    yield case(5 + judged(g, 15)[0] * 9, torch.arange(15) % 3 > 0, label="confidences above one")
    yield case(judged(g, 9)[0], torch.ones(9, dtype=torch.bool), label="all answers right")
    yield case(judged(g, 9)[0], torch.zeros(9, dtype=torch.bool), label="all answers wrong")
    yield case(torch.tensor([0.7]), torch.tensor([bool(pick(g, 0, 1))]), label="one answer")
    order = torch.randperm(20, generator=g)
    yield case((torch.arange(20.0) / 20)[order], (order < 13), label="the surer, the more often wrong")
    yield case(*judged(g, 800), label="800 answers")


@exercise.oracle
def sklearn_precision(confidence, correct):
    """Risk is 1 - precision, at each threshold that scikit-learn's precision-recall curve finds."""
    import warnings

    from sklearn.metrics import precision_recall_curve

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no answer right: recall isn't defined, and isn't asked for
        precision, _, threshold = precision_recall_curve(correct.numpy(), confidence.double().numpy())
    threshold = torch.tensor(threshold[::-1].copy())
    risk = torch.tensor(1 - precision[:-1][::-1])
    coverage = (confidence.double() >= threshold[:, None]).double().mean(1)
    return threshold.to(confidence.dtype), coverage.to(confidence.dtype), risk.to(confidence.dtype)


exercise.law("The results have the dtype of confidence")(keeps_dtype)


@exercise.law("Coverage only grows, up to 1, where the risk is the share of all wrong answers")
def ends_at_everything(out, one, call):
    _, coverage, risk = out
    wrong = 1 - one.args[1].double().mean()
    grows = bool((coverage.diff() > 0).all())
    return grows and same(float(coverage[-1]), 1.0) and same(float(risk[-1]), float(wrong))


@exercise.law("Only the order of the confidences counts")
def order_counts(out, one, call):
    confidence, correct = one.args
    if len(confidence) > 50:
        return None
    ranks = confidence.unique(return_inverse=True)[1].to(confidence.dtype)
    again = call(ranks * 7 - 30, correct)
    return same(again[1], out[1]) and same(again[2], out[2])


def _curve(above=torch.ge, ascending=False, distinct=True, total=None, wrong=True, parts=lambda t, c, r: (t, c, r)):
    """`abstain` in parts."""

    def abstain(confidence, correct):
        levels = confidence.unique() if distinct else confidence.sort().values
        levels = levels if ascending else levels.flip(0)
        answered = above(confidence, levels[:, None])
        counts = answered.sum(1)
        hits = (answered & (~correct if wrong else correct)).sum(1)
        risk = hits / (counts if total is None else total(len(confidence), counts))
        dtype = confidence.dtype
        return parts(levels, (counts / len(confidence)).to(dtype), risk.to(dtype))

    return abstain


exercise.mistake("an answer as sure as the threshold is withheld", hint="At least as sure as the threshold: >=.")(
    _curve(above=torch.gt)
)
exercise.mistake(
    "the answers below the threshold are counted", hint="It answers where it is sure, not where it isn't."
)(_curve(above=torch.le))
exercise.mistake("the curve starts at the lowest threshold", hint="The surest answers come first: thresholds fall.")(
    _curve(ascending=True)
)
exercise.mistake("risk is a share of all questions", hint="Of the answers that are given: divide by their number.")(
    _curve(total=lambda n, counts: n)
)
exercise.mistake("the share of right answers comes back as risk", hint="Risk is what goes wrong: 1 - accuracy.")(
    _curve(wrong=False)
)
exercise.mistake("a threshold stands there once for each answer that has it", hint="Each threshold once: unique().")(
    _curve(distinct=False)
)
exercise.mistake("coverage and risk are exchanged", hint="threshold, coverage, risk, in this order.")(
    _curve(parts=lambda t, c, r: (t, r, c))
)
exercise.mistake("coverage is a number of answers, not a share", hint="Divide by the number of questions.")(
    lambda confidence, correct: _curve(parts=lambda t, c, r: (t, c * len(confidence), r))(confidence, correct)
)
exercise.mistake("the share of withheld answers comes back", hint="Coverage is the share of what is answered.")(
    _curve(parts=lambda t, c, r: (t, 1 - c, r))
)


def _one_by_one(confidence, correct):
    order = confidence.argsort(descending=True, stable=True)
    n = torch.arange(1, len(order) + 1)
    risk = (~correct[order]).cumsum(0) / n
    return confidence[order], (n / len(order)).to(confidence.dtype), risk.to(confidence.dtype)


exercise.mistake(
    "answers of equal confidence enter one by one",
    hint="No threshold can part them: they are all answered, or all withheld.",
)(_one_by_one)


@exercise.mistake(
    "of answers of equal confidence only the first counts",
    hint="At a threshold all answers as sure as that are in: the numbers at the *last* of them.",
)
def first_of_equals(confidence, correct):
    levels, coverage, risk = _one_by_one(confidence, correct)
    new = torch.cat([torch.ones(1, dtype=torch.bool), levels[1:] != levels[:-1]])
    return levels[new], coverage[new], risk[new]


@exercise.mistake("risk never falls: its running maximum comes back", hint="The risk as it is: it may rise and fall.")
def only_rising(confidence, correct):
    levels, coverage, risk = _curve()(confidence, correct)
    return levels, coverage, risk.cummax(0).values


@exercise.mistake(
    "each level of confidence is looked at alone", hint="A threshold answers all that is at least as sure."
)
def level_alone(confidence, correct):
    levels = confidence.unique().flip(0)
    at = confidence == levels[:, None]
    n, dtype = at.sum(1), confidence.dtype
    return levels, (n / len(confidence)).to(dtype), ((at & ~correct).sum(1) / n).to(dtype)


@exercise.mistake(
    "a point with nothing answered comes first", hint="The highest threshold answers at least one question."
)
def with_nothing(confidence, correct):
    levels, coverage, risk = _curve()(confidence, correct)
    none = coverage[:1] * 0
    return torch.cat([levels[:1] + 1, levels]), torch.cat([none, coverage]), torch.cat([none, risk])


@exercise.mistake("eleven thresholds from 1 to 0 are tried", hint="The confidences themselves are the thresholds.")
def fixed_thresholds(confidence, correct):
    levels = torch.linspace(1, 0, 11, dtype=confidence.dtype)
    answered = confidence >= levels[:, None]
    n = answered.sum(1)
    risk = (answered & ~correct).sum(1) / n.clamp(min=1)
    return levels, (n / len(confidence)).to(confidence.dtype), risk.to(confidence.dtype)


@exercise.mistake("the point where all is answered is missing", hint="The lowest confidence is a threshold, too.")
def without_last(confidence, correct):
    return tuple(part[:-1] for part in _curve()(confidence, correct))


exercise.alternative(_curve())


@exercise.alternative
def by_sorting(confidence, correct):
    levels, counts = torch.unique(confidence, return_counts=True)
    right = torch.zeros(len(levels), dtype=torch.float64)
    right = right.index_add(0, torch.searchsorted(levels, confidence), correct.double())
    counts, right = counts.flip(0).cumsum(0), right.flip(0).cumsum(0)
    dtype = confidence.dtype
    return [levels.flip(0), (counts / len(confidence)).to(dtype), (1 - right / counts).to(dtype)]
