"""`top_k_accuracy(scores, targets, k)`

The share of rows whose target is among the k classes with the highest scores.
"""

from __future__ import annotations

import warnings

import torch

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.metrics.shared import remembered

exercise = Draft(
    "top_k_accuracy",
    points=2,
    forbid=["sklearn"],
    no_gradient="a metric: nothing is trained through it",
    dtypes=(torch.float64,),
    hints=[
        "Of a row, you only need to know how many classes score higher than the target.",
        "own = scores.gather(1, targets[:, None]); (scores > own).sum(1) is the number of better ones.",
        "((scores > own).sum(1) < k).double().mean()",
    ],
)


def _ranking(g, n, classes, better=1.0):
    """Scores that differ in each row, and targets that tend to be high, with every kind of rank among them."""
    targets = torch.randint(classes, (n,), generator=g)
    noise = torch.stack([torch.randperm(classes, generator=g) for _ in range(n)]).float()
    lift = better * torch.rand(n, 1, generator=g) * classes
    return noise - classes / 2 + 0.5 + lift * (torch.arange(classes) == targets[:, None]) + 0.01 * torch.rand(
        n, classes, generator=g
    ), targets


@exercise.cases
def top_k_cases(g):
    yield case(*_ranking(g, 12, 6), 2, label="twelve rows, k = 2")
    scores, targets = _ranking(g, 40, 9)
    targets[0] = scores[0].argmin()  # the first row is unlike the others
    yield case(scores, targets, 3, label="forty rows, k = 3")
    scores, targets = _ranking(g, 15, 5, better=0.2)
    yield case(scores=scores, targets=targets, k=2, label="hardly better than chance, by keyword")
    yield case(*_ranking(g, 20, 4), 1, label="k = 1: the accuracy")
    yield case(*_ranking(g, 5, 4), 4, label="k equals the number of classes")
    yield case(*_ranking(g, 5, 3), 10, label="k is larger than the number of classes")
    yield case(*_ranking(g, 1, 7), 3, label="one row")
    scores, targets = _ranking(g, 9, 8)
    many, right = _ranking(g, 700, 30, better=1.5)
    yield case(many + 3_000, right, 12, label="700 rows, 30 classes, k = 12")
    yield case((scores * 1_000 - 9_000).T.contiguous().T, targets, 5, label="negative scores, not contiguous")


@exercise.oracle
@remembered
def sklearn_top_k(scores, targets, k):
    from sklearn import metrics

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where k is no smaller than the number of classes
        return float(
            metrics.top_k_accuracy_score(targets.numpy(), scores.double().numpy(), k=k, labels=range(scores.shape[1]))
        )


def _ranked(one):
    return one.args if one.args else tuple(one.kwargs[key] for key in ("scores", "targets", "k"))


@exercise.law("It never falls with k, and ends at 1")
def grows_with_k(out, one, call):
    scores, targets, _ = _ranked(one)
    if scores.shape[1] > 5:
        return None
    found = [float(call(scores, targets, k)) for k in range(1, scores.shape[1] + 1)]
    return found == sorted(found) and found[0] >= 0 and same(found[-1], 1.0)


@exercise.law("k = 1 is the accuracy")
def one_is_accuracy(out, one, call):
    scores, targets, _ = _ranked(one)
    return same(float(call(scores, targets, 1)), float((scores.argmax(-1) == targets).double().mean()))


@exercise.law("The names of the classes don't matter")
def classes_may_be_renamed(out, one, call):
    scores, targets, k = _ranked(one)
    return same(float(call(scores.flip(1), scores.shape[1] - 1 - targets, k)), float(out))


@exercise.law("It is the mean over the rows, each judged alone")
def rows_stand_alone(out, one, call):
    """The mean of what each row gets alone."""
    scores, targets, k = _ranked(one)
    if len(targets) > 9:
        return None
    alone = [float(call(scores[i : i + 1], targets[i : i + 1], k)) for i in range(len(targets))]
    return same(sum(alone) / len(alone), float(out))


def _hits(scores, targets, k):
    """Whether each target is among the k best of its row: bool [n]."""
    best = scores.topk(min(k, scores.shape[-1]), dim=-1).indices
    return (best == targets[:, None]).any(-1)


@exercise.alternative
def topk_right(scores, targets, k):
    return _hits(scores, targets, k).double().mean()


@exercise.mistake("the k worst are taken", hint="The largest scores are the best.")
def topk_worst(scores, targets, k):
    return topk_right(-scores, targets, k)


exercise.mistake("only the first row is looked at", hint="The mean over all rows.")(
    lambda scores, targets, k: topk_right(scores[:1], targets[:1], k)
)

exercise.mistake("it is given in percent", hint="From 0 to 1 here.")(
    lambda scores, targets, k: 100 * topk_right(scores, targets, k)
)

exercise.mistake("a k larger than the number of classes gives 0", hint="Then every row is a hit: 1.")(
    lambda scores, targets, k: topk_right(scores, targets, k) * (k <= scores.shape[1])
)

exercise.mistake("more than ten places never count", hint="The first k count, whatever k is.")(
    lambda scores, targets, k: topk_right(scores, targets, min(k, 10))
)

exercise.mistake("hits are divided by the number of classes", hint="By the number of rows.")(
    lambda scores, targets, k: _hits(scores, targets, k).sum() / scores.shape[1]
)


@exercise.mistake("k is ignored", hint="The first k count, not the first alone.")
def topk_one(scores, targets, k):
    return topk_right(scores, targets, 1)


@exercise.mistake("only k - 1 places count", hint="At place k it is still a hit.")
def topk_one_less(scores, targets, k):
    own = scores.gather(1, targets[:, None])
    return ((scores > own).sum(1) < k - 1).double().mean()


@exercise.mistake("k + 1 places count", hint="Fewer than k better scores: < k, not <= k.")
def topk_one_more(scores, targets, k):
    return topk_right(scores, targets, k + 1)


@exercise.mistake("a k larger than the number of classes is passed on to topk", hint="min(k, number of classes)")
def topk_unclamped(scores, targets, k):
    return (scores.topk(k, dim=-1).indices == targets[:, None]).any(-1).double().mean()


@exercise.mistake("hits are counted, not averaged", hint="Divide by the number of rows.")
def topk_counted(scores, targets, k):
    return _hits(scores, targets, k).sum()


@exercise.mistake("hits are divided by k", hint="That is precision@k. A row is a hit or it isn't.")
def topk_precision(scores, targets, k):
    return topk_right(scores, targets, k) / k


@exercise.mistake(
    "a target counts if any row has it among its best",
    hint="Compare each row's target with that row's best: targets[:, None].",
)
def topk_of_any_row(scores, targets, k):
    best = scores.topk(min(k, scores.shape[-1]), dim=-1).indices
    return torch.isin(targets, best.flatten()).double().mean()


@exercise.mistake("the k best of the whole batch are taken", hint="Each row has its own k best.")
def topk_over_whole(scores, targets, k):
    """The k best scores of the whole batch."""
    bar = scores.flatten().topk(min(k, scores.numel())).values[-1]
    return (scores.gather(1, targets[:, None]) >= bar).double().mean()


@exercise.mistake(
    "argsort at the target's place is read as the target's rank",
    hint="argsort[i] is the class at place i. You want the place of a class: count the better scores.",
)
def topk_order_for_rank(scores, targets, k):
    """argsort gives which class is at a place, not at which place a class is."""
    place = scores.argsort(-1, descending=True).gather(1, targets[:, None])[:, 0]
    return (place < k).double().mean()


@exercise.mistake("it is the error, not the accuracy", hint="The share of hits, without 1 -.")
def topk_error(scores, targets, k):
    return 1 - topk_right(scores, targets, k)


@exercise.alternative
def topk_by_rank(scores, targets, k):
    own = scores.gather(1, targets[:, None])
    return float(((scores > own).sum(1) < k).double().mean())


@exercise.alternative
def topk_by_sorting(scores, targets, k):
    lists = [sorted(range(len(row)), key=row.__getitem__, reverse=True)[:k] for row in scores.tolist()]
    return sum(target in best for target, best in zip(targets.tolist(), lists, strict=True)) / len(lists)
