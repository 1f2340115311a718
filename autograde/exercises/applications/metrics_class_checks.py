"""How the metrics of classification are judged: scikit-learn's own, cases and laws."""

from __future__ import annotations

import functools
import warnings

import torch
from sklearn import metrics

from autograde.exercise import case, same


def _ints(g, high, n):
    return torch.randint(high, (n,), generator=g)


def remembered(oracle):
    """The same oracle, asked once for the same inputs: scikit-learn takes milliseconds to look at its arguments."""
    known = {}

    @functools.wraps(oracle)
    def ask(*args, **kwargs):
        key = tuple(_key(value) for value in (*args, *kwargs.values())), tuple(kwargs)
        if key not in known:
            known[key] = oracle(*args, **kwargs)
        return known[key]
    return ask


def _key(value):
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.double().numpy().tobytes()
    return value


# ---- confusion_matrix -----------------------------------------------------------------------------------------------

@remembered
def sklearn_confusion(targets, predictions, n_classes):
    if not len(targets):  # refused by scikit-learn
        return torch.zeros(n_classes, n_classes, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where there is a single class
        counts = metrics.confusion_matrix(targets.numpy(), predictions.numpy(), labels=range(n_classes))
    return torch.from_numpy(counts)


def _guesses(g, n, n_classes, right=0.5):
    """Targets, and predictions of which about the share `right` is right."""
    targets, other = _ints(g, n_classes, n), _ints(g, n_classes, n)
    return targets, torch.where(torch.rand(n, generator=g) < right, targets, other)


def confusion_cases(g):
    targets, predictions = _guesses(g, 30, 4)
    # Class 0 twice taken for class 2, once the other way: no answer is symmetric, and some pair occurs twice.
    yield case(torch.tensor([0, 0, 2, 1, 0]), torch.tensor([2, 2, 0, 1, 0]), 3, label="five examples, three classes")
    yield case(targets, predictions, 4, label="thirty examples, four classes")
    yield case(targets=_ints(g, 2, 12), predictions=_ints(g, 2, 12), n_classes=2, label="two classes, by keyword")
    yield case(*_guesses(g, 20, 3), 6, label="six classes, of which only three occur")
    yield case(_ints(g, 3, 9) + 2, _ints(g, 2, 9), 5, label="never a class that occurs is predicted")
    yield case(_ints(g, 5, 1), _ints(g, 5, 1), 5, label="one example")
    yield case(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), 3, label="no example")
    yield case(torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), 1, label="one class")
    yield case(*torch.stack(_guesses(g, 200, 9, right=0.8), 1).T, 9, label="200 examples, not contiguous")


def _confusion(one):
    keys = ("targets", "predictions", "n_classes")
    return one.args if one.args else tuple(one.kwargs[key] for key in keys)


def counts_everything(out, one, call):
    return int(out.sum()) == len(_confusion(one)[0])


def rows_are_the_truth(out, one, call):
    targets, _, n_classes = _confusion(one)
    return torch.equal(out.sum(1), torch.bincount(targets, minlength=n_classes))


def swapping_transposes(out, one, call):
    targets, predictions, n_classes = _confusion(one)
    return same(call(predictions, targets, n_classes), out.T) and out.shape == (n_classes, n_classes)


def twice_is_double(out, one, call):
    targets, predictions, n_classes = _confusion(one)
    return same(call(targets.repeat(2), predictions.repeat(2), n_classes), 2 * out)


# ---- precision_recall_f1 --------------------------------------------------------------------------------------------

@remembered
def sklearn_prf(matrix, average):
    """The matrix as a list of weighted pairs; 0/0 is 0."""
    n = len(matrix)
    true, called = torch.arange(n).repeat_interleave(n).numpy(), torch.arange(n).repeat(n).numpy()
    found = metrics.precision_recall_fscore_support(
        true, called, labels=range(n), sample_weight=matrix.reshape(-1).numpy(),
        average=None if average == "none" else average, zero_division=0,
    )
    return torch.stack([torch.as_tensor(part, dtype=torch.float64) for part in found[:3]])


AVERAGES = ("none", "macro", "micro", "weighted")


def _matrix(g, n, high=9):
    """Counts that are clearly not symmetric, so that rows and columns can't be mistaken for each other."""
    matrix = _ints(g, high, n * n).view(n, n) + torch.arange(1, n + 1).diag() * 3
    matrix[0, 1:] += _ints(g, 5, n - 1) + 4
    return matrix


def prf_cases(g):
    never_called, never_true, neither = (_matrix(g, 4) for _ in range(3))
    never_called[:, 2] = 0
    never_true[1] = 0
    neither[3] = neither[:, 3] = 0
    only_wrong = torch.tensor([[0, 4, 1], [2, 0, 0], [0, 3, 0]])
    for average in AVERAGES:
        yield case(_matrix(g, 3), average, label=f"three classes, {average}")
    for average in ("none", "macro", "weighted"):
        yield case(never_called, average, label=f"a class that is never predicted, {average}")
        yield case(never_true, average, label=f"a class that never occurs, {average}")
    yield case(neither, "macro", label="a class that neither occurs nor is predicted, macro")
    yield case(only_wrong, "none", label="nothing is right, none")
    yield case(matrix=_matrix(g, 2), average="none", label="two classes, by keyword")
    yield case(torch.tensor([[7]]), "macro", label="one class, macro")
    yield case(_matrix(g, 5, 9) * 100_003, "weighted", label="counts in the hundred thousands, weighted")
    yield case(_matrix(g, 6).T, "macro", label="six classes, not contiguous, macro")


def _asked(one):
    return one.args if one.args else (one.kwargs["matrix"], one.kwargs["average"])


def _accuracy(matrix):
    return (matrix.diag().sum() / matrix.sum()).double()


def between_zero_and_one(out, one, call):
    return bool(((out >= 0) & (out <= 1 + 1e-6)).all())


def harmonic_is_low(out, one, call):
    """F1 is at least the smaller of precision and recall, and below their geometric mean where they differ."""
    if _asked(one)[1] != "none":
        return None
    p, r, f1 = out.double()
    low, middle = torch.minimum(p, r), (p * r).sqrt()
    clear = ((p - r).abs() > 0.05) & (low > 0)  # where p and r are close, all means are
    below = torch.where(clear, f1 < middle - 1e-6, f1 <= middle + 1e-6)
    return bool((below & (f1 >= low - 1e-6)).all())


def micro_is_accuracy(out, one, call):
    matrix, average = _asked(one)
    return same(out, _accuracy(matrix).expand(3)) if average == "micro" else None


def macro_is_mean(out, one, call):
    matrix, average = _asked(one)
    return same(out, call(matrix, "none").double().mean(1)) if average == "macro" else None


def weighted_recall_is_accuracy(out, one, call):
    matrix, average = _asked(one)
    return same(out[1], _accuracy(matrix)) if average == "weighted" else None


def transposing_swaps(out, one, call):
    """And what comes out as recall is a share of the row."""
    matrix, average = _asked(one)
    if average != "none":
        return None
    p, r, f1 = call(matrix.T.contiguous(), "none")
    recall = matrix.diag().double() / matrix.sum(1).clamp(min=1)
    return same(p.double(), recall) and same(torch.stack([r, p, f1]), out)


# ---- roc_auc --------------------------------------------------------------------------------------------------------

@remembered
def sklearn_auc(scores, labels):
    return float(metrics.roc_auc_score(labels.numpy(), scores.double().numpy()))


def _both(g, n, share=0.5):
    """Labels of which at least two are of each kind."""
    while True:
        labels = (torch.rand(n, generator=g) < share).long()
        if 2 <= int(labels.sum()) <= n - 2:
            return labels


def _scored(g, n, better=0.8, share=0.5):
    labels = _both(g, n, share)
    return torch.randn(n, generator=g) + better * labels, labels


def auc_cases(g):
    scores, labels = _scored(g, 40, share=0.3)
    few = _ints(g, 4, 30)
    order = torch.randperm(6, generator=g)
    apart = torch.tensor([0, 0, 0, 1, 1, 1])
    yield case(*_scored(g, 9), label="nine examples")
    yield case(scores, labels, label="forty examples, fewer positive")
    yield case(scores=-scores * 3 - 1, labels=labels, label="worse than chance, by keyword")
    yield case((few + _both(g, 30)).float(), _both(g, 30), label="five levels of score: many ties")
    yield case(torch.tensor([1.0, 1.0, 1.0, 0.0, 2.0]), torch.tensor([1, 0, 0, 0, 1])[torch.randperm(5, generator=g)],
               label="a tie of three")
    yield case(torch.full((8,), 0.3), _both(g, 8), label="all scores alike")
    yield case((torch.arange(6.0) - 2.5)[order], apart[order], label="perfectly separated")
    yield case(torch.tensor([0.2, -0.4]), torch.tensor([0, 1]), label="one positive and one negative")
    yield case(1_000 + 20 * torch.randperm(24, generator=g).float(), _both(g, 24), label="scores in the thousands")
    yield case(torch.randperm(120, generator=g).float() ** 3 - 9, _both(g, 120, 0.05), label="120 scores, 5 % positive")
    yield case(scores.double().repeat_interleave(2)[::2], labels, label="float64, not contiguous")


def _scored_of(one):
    return one.args if one.args else (one.kwargs["scores"], one.kwargs["labels"])


def only_order_counts(out, one, call):
    scores, labels = _scored_of(one)
    if len(scores) > 24:
        return None
    ranks = scores.unique(return_inverse=True)[1].double()
    return same(float(call(ranks * 40 - 300, labels)), float(out), atol=1e-4)


def ties_count_half(out, one, call):
    """If every negative gets a positive twin, each pair of twins is undecided."""
    scores, labels = _scored_of(one)
    if len(scores) > 10:
        return None
    negative = scores[labels == 0]
    twins = torch.cat([negative, negative]), torch.arange(2 * len(negative)) // len(negative)
    flipped = tuple(x.flip(0) for x in twins)
    return same(float(call(*twins)), 0.5) and same(float(call(*flipped)), 0.5)


def turning_round(out, one, call):
    scores, labels = _scored_of(one)
    if len(scores) > 30:
        return None
    return same(float(out) + float(call(-scores, labels)), 1.0, atol=1e-4)


def rare_positives_change_nothing(out, one, call):
    """Five times as many negatives, with the same scores."""
    scores, labels = _scored_of(one)
    if len(scores) > 10:
        return None
    more = torch.cat([scores] + 4 * [scores[labels == 0]])
    return same(float(call(more, torch.cat([labels, torch.zeros(len(more) - len(labels), dtype=torch.int64)]))),
                float(out), atol=1e-4)
