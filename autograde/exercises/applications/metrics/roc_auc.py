"""`roc_auc(scores, labels)`: The area under the ROC curve."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.metrics.shared import ints, remembered

exercise = Draft(
    "roc_auc",
    points=3,
    forbid=["sklearn"],
    no_gradient="a metric: nothing is trained through it",
    dtypes=(torch.float64,),
    hints=[
        "Take any positive and any negative. How often does the positive have the higher score?",
        "scores[labels == 1][:, None] against scores[labels == 0] gives all pairs at once.",
        "gap = positives[:, None] - negatives; ((gap > 0) + 0.5 * (gap == 0)).mean() in floating point.",
    ],
)


def _both(g, n, share=0.5):
    """Labels of which at least two are of each kind."""
    while True:
        labels = (torch.rand(n, generator=g) < share).long()
        if 2 <= int(labels.sum()) <= n - 2:
            return labels


def _scored(g, n, better=0.8, share=0.5):
    labels = _both(g, n, share)
    return torch.randn(n, generator=g) + better * labels, labels


@exercise.cases
def auc_cases(g):
    scores, labels = _scored(g, 40, share=0.3)
    few = ints(g, 4, 30)
    order = torch.randperm(6, generator=g)
    apart = torch.tensor([0, 0, 0, 1, 1, 1])
    yield case(*_scored(g, 9), label="nine examples")
    yield case(scores, labels, label="forty examples, fewer positive")
    yield case(scores=-scores * 3 - 1, labels=labels, label="worse than chance, by keyword")
    yield case((few + _both(g, 30)).float(), _both(g, 30), label="five levels of score: many ties")
    yield case(
        torch.tensor([1.0, 1.0, 1.0, 0.0, 2.0]),
        torch.tensor([1, 0, 0, 0, 1])[torch.randperm(5, generator=g)],
        label="a tie of three",
    )
    yield case(torch.full((8,), 0.3), _both(g, 8), label="all scores alike")
    yield case((torch.arange(6.0) - 2.5)[order], apart[order], label="perfectly separated")
    yield case(torch.tensor([0.2, -0.4]), torch.tensor([0, 1]), label="one positive and one negative")
    yield case(1_000 + 20 * torch.randperm(24, generator=g).float(), _both(g, 24), label="scores in the thousands")
    yield case(torch.randperm(600, generator=g).float() ** 2 - 9, _both(g, 600, 0.05), label="600 scores, 5 % positive")
    close = 0.5 + 1e-6 * torch.randperm(40, generator=g)
    yield case(close, _both(g, 40), label="scores that differ in their sixth digit")
    yield case(scores.double().repeat_interleave(2)[::2], labels, label="float64, not contiguous")


@exercise.oracle
@remembered
def sklearn_auc(scores, labels):
    from sklearn import metrics

    return float(metrics.roc_auc_score(labels.numpy(), scores.double().numpy()))


def _scored_of(one):
    return one.args if one.args else (one.kwargs["scores"], one.kwargs["labels"])


@exercise.law("Only the order of the scores counts")
def only_order_counts(out, one, call):
    scores, labels = _scored_of(one)
    if len(scores) > 24:
        return None
    ranks = scores.unique(return_inverse=True)[1].double()
    return same(float(call(ranks * 40 - 300, labels)), float(out), atol=1e-4)


@exercise.law("Scores that tie count half")
def ties_count_half(out, one, call):
    """If every negative gets a positive twin, each pair of twins is undecided."""
    scores, labels = _scored_of(one)
    if len(scores) > 10:
        return None
    negative = scores[labels == 0]
    twins = torch.cat([negative, negative]), torch.arange(2 * len(negative)) // len(negative)
    flipped = tuple(x.flip(0) for x in twins)
    return same(float(call(*twins)), 0.5) and same(float(call(*flipped)), 0.5)


@exercise.law("Scores with the other sign give 1 minus the area")
def turning_round(out, one, call):
    scores, labels = _scored_of(one)
    if len(scores) > 30:
        return None
    return same(float(out) + float(call(-scores, labels)), 1.0, atol=1e-4)


@exercise.law("Five times as many negatives change nothing")
def rare_positives_change_nothing(out, one, call):
    """Five times as many negatives, with the same scores."""
    scores, labels = _scored_of(one)
    if len(scores) > 10:
        return None
    more = torch.cat([scores] + 4 * [scores[labels == 0]])
    return same(
        float(call(more, torch.cat([labels, torch.zeros(len(more) - len(labels), dtype=torch.int64)]))),
        float(out),
        atol=1e-4,
    )


@exercise.alternative
def auc_by_pairs(scores, labels, tie=0.5):
    """Every positive against every negative."""
    gap = scores.double()[labels == 1][:, None] - scores.double()[labels == 0]
    return ((gap > 0).double() + tie * (gap == 0)).mean()


@exercise.mistake(
    "a tie counts as won", hint="Then a model that gives everybody the same score would be perfect. A tie counts half."
)
def auc_tie_wins(scores, labels):
    return auc_by_pairs(scores, labels, tie=1.0)


@exercise.mistake("a tie counts as lost", hint="A tie counts half.")
def auc_tie_loses(scores, labels):
    return auc_by_pairs(scores, labels, tie=0.0)


@exercise.mistake(
    "tied examples are walked one by one, in the order of the input",
    hint="The order of the rows must not matter. All examples with one score make one step.",
)
def auc_in_order_of_input(scores, labels):
    """One corner for each example: tied examples are walked one after the other, as they happen to stand."""
    walked = labels[scores.argsort(descending=True, stable=True)]
    hits, alarms = (torch.cat([torch.zeros(1), (walked == side).cumsum(0) / (labels == side).sum()]) for side in (1, 0))
    return torch.trapezoid(hits, alarms)


@exercise.mistake(
    "positives and negatives are exchanged", hint="Label 1 is the positive class, and should have the higher scores."
)
def auc_upside_down(scores, labels):
    return 1 - auc_by_pairs(scores, labels)


exercise.mistake("pairs that tie are left out", hint="A tie counts half, and is a pair like the others.")(
    lambda scores, labels: _decided(scores.double()[labels == 1][:, None] - scores.double()[labels == 0])
)


def _decided(gap):
    return (gap > 0).double().sum() / (gap != 0).sum().clamp(min=1)


exercise.mistake("the pairs are added up, not averaged", hint="Divide by the number of pairs.")(
    lambda scores, labels: auc_by_pairs(scores, labels) * (labels == 1).sum() * (labels == 0).sum()
)

exercise.mistake("it is given in percent", hint="From 0 to 1 here.")(
    lambda scores, labels: 100 * auc_by_pairs(scores, labels)
)

exercise.mistake("ranks are counted from 0 in a formula that counts from 1", hint="The lowest score has rank 1.")(
    lambda scores, labels: auc_by_pairs(scores, labels) - 1 / (labels == 0).sum()
)


@exercise.mistake(
    "a hundred thresholds from 0 to 1 are tried", hint="Scores may have any size and sign. Each score is a threshold."
)
def auc_of_thresholds(scores, labels):
    called = scores >= torch.linspace(1, 0, 101)[:, None]
    hits, alarms = (called[:, labels == side].double().mean(1) for side in (1, 0))
    return torch.trapezoid(hits, alarms)


@exercise.mistake("an area below one half is turned round", hint="A model that is worse than chance should be told so.")
def auc_at_least_half(scores, labels):
    area = auc_by_pairs(scores, labels)
    return torch.maximum(area, 1 - area)


@exercise.mistake("the Gini coefficient is returned", hint="Gini = 2 AUC - 1.")
def gini(scores, labels):
    return 2 * auc_by_pairs(scores, labels) - 1


@exercise.mistake(
    "the pairs are divided by the number of all pairs, n²",
    hint="Only pairs of a positive and a negative count: divide by their number.",
)
def auc_of_all_pairs(scores, labels):
    share = (labels == 1).double().mean()
    return auc_by_pairs(scores, labels) * share * (1 - share)


@exercise.mistake(
    "a sigmoid in float32 comes first",
    hint="sigmoid(20) and sigmoid(40) are both 1.0 in float32: ties. The order is all you need.",
)
def auc_squashed(scores, labels):
    """A sigmoid in float32 first: large scores become equal."""
    return auc_by_pairs(scores.float().sigmoid(), labels)


@exercise.mistake("scores are turned into decisions first", hint="AUC looks at all thresholds. Keep the scores.")
def auc_of_decisions(scores, labels):
    return auc_by_pairs((scores > 0).float(), labels)


@exercise.mistake(
    "each positive is compared with one negative only",
    hint="Every positive against every negative: scores[:, None] - scores[None, :].",
)
def auc_of_couples(scores, labels):
    """The first positive against the first negative, the second against the second, and so on."""
    positives, negatives = scores[labels == 1].double(), scores[labels == 0].double()
    n = min(len(positives), len(negatives))
    gap = positives[:n] - negatives[:n]
    return ((gap > 0).double() + 0.5 * (gap == 0)).mean()


@exercise.mistake(
    "it is the average precision",
    hint="That is the area under the precision-recall curve: another metric, also useful.",
)
def average_precision(scores, labels):
    order = scores.argsort(descending=True, stable=True)
    hits = (labels[order] == 1).double()
    return (hits * hits.cumsum(0) / torch.arange(1, len(hits) + 1)).sum() / hits.sum()


@exercise.alternative
def auc_by_ranks(scores, labels):
    """The Mann-Whitney U statistic, with mean ranks for ties."""
    _, group, size = scores.unique(return_inverse=True, return_counts=True)
    last = size.cumsum(0).double()
    rank = (last - (size - 1) / 2)[group]
    positives, negatives = (labels == 1).sum(), (labels == 0).sum()
    return float((rank[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


@exercise.alternative
def auc_by_curve(scores, labels):
    """Trapezoids under the curve, one corner for each distinct score."""
    called = scores >= scores.unique().flip(0)[:, None]
    hits, alarms = (F.pad(called[:, labels == side].double().mean(1), (1, 0)) for side in (1, 0))
    return torch.trapezoid(hits, alarms)
