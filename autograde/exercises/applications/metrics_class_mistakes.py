"""Wrong ways to count, average and rank, as complete implementations, and a few right ones that look different."""

from __future__ import annotations

import torch
import torch.nn.functional as F

# ---- confusion_matrix -----------------------------------------------------------------------------------------------

def confusion_by_bincount(targets, predictions, n_classes):
    return torch.bincount(targets * n_classes + predictions, minlength=n_classes**2).view(n_classes, n_classes)


def confusion_by_one_hot(targets, predictions, n_classes):
    index = torch.arange(n_classes)
    return (targets[:, None] == index).long().T @ (predictions[:, None] == index).long()


def confusion_by_loop(targets, predictions, n_classes):
    counts = [[0] * n_classes for _ in range(n_classes)]
    for true, called in zip(targets.tolist(), predictions.tolist(), strict=True):
        counts[true][called] += 1
    return torch.tensor(counts)


def _spoilt_confusion(change):
    def confusion_matrix(targets, predictions, n_classes):
        return change(confusion_by_bincount(targets, predictions, n_classes))
    return confusion_matrix


confusion_transposed = _spoilt_confusion(lambda m: m.T.contiguous())
confusion_flipped = _spoilt_confusion(lambda m: m.flip(0, 1))
confusion_hits_only = _spoilt_confusion(lambda m: m.diag().diag())
confusion_errors_only = _spoilt_confusion(lambda m: m - m.diag().diag())
confusion_shares = _spoilt_confusion(lambda m: m / m.sum(1, keepdim=True).clamp(min=1))
confusion_share_of_all = _spoilt_confusion(lambda m: m / m.sum().clamp(min=1))
confusion_as_floats = _spoilt_confusion(torch.Tensor.float)
confusion_one_against_rest = _spoilt_confusion(lambda m: torch.stack([
    m.sum() - m.sum(0) - m.sum(1) + m.diag(), m.sum(0) - m.diag(), m.sum(1) - m.diag(), m.diag()], 1))


def confusion_assigned(targets, predictions, n_classes):
    """m[t, p] += 1 with tensors as indices: a pair that occurs twice is written twice, not counted twice."""
    matrix = torch.zeros(n_classes, n_classes, dtype=torch.int64)
    matrix[targets, predictions] += 1
    return matrix


def confusion_of_present(targets, predictions, n_classes):
    seen, index = torch.cat([targets, predictions]).unique(return_inverse=True)
    return confusion_by_bincount(*index.view(2, -1), len(seen))


def confusion_from_one(targets, predictions, n_classes):
    return confusion_by_bincount((targets - 1) % n_classes, (predictions - 1) % n_classes, n_classes)


def confusion_without_minlength(targets, predictions, n_classes):
    return torch.bincount(targets * n_classes + predictions).view(n_classes, n_classes)


# ---- precision_recall_f1 --------------------------------------------------------------------------------------------

def _ratio(part, whole):
    return torch.where(whole > 0, part / whole.clamp(min=1), 0.0)


def _harmonic(p, r):
    return torch.where(p + r > 0, 2 * p * r / (p + r), 0.0)


def _rows(matrix):
    """Precision and recall of each class: [2, classes], float64."""
    m = matrix.double()
    return torch.stack([_ratio(m.diag(), m.sum(0)), _ratio(m.diag(), m.sum(1))])


def _averaged(each, average, matrix, weights=None):
    """The mean of per-class values over the last dimension."""
    if average == "macro":
        return each.mean(-1)
    weights = matrix.sum(1) if weights is None else weights
    return (each * weights).sum(-1) / weights.sum()


def prf_right(matrix, average):
    if average == "micro":
        return (matrix.diag().sum() / matrix.sum()).expand(3).clone()
    each = _rows(matrix)
    each = torch.cat([each, _harmonic(*each)[None]])
    return each if average == "none" else _averaged(each, average, matrix)


def prf_by_loop(matrix, average):
    counts, n = matrix.tolist(), len(matrix)
    found = []
    for i in range(n):
        hit, called, true = counts[i][i], sum(row[i] for row in counts), sum(counts[i])
        found.append((hit / called if called else 0.0, hit / true if true else 0.0,
                      2 * hit / (called + true) if called + true else 0.0))
    if average == "none":
        return torch.tensor(found).T
    total = sum(map(sum, counts))
    if average == "micro":
        return torch.tensor([sum(counts[i][i] for i in range(n)) / total] * 3)
    weights = [1 / n] * n if average == "macro" else [sum(row) / total for row in counts]
    return torch.tensor([sum(w * each[k] for w, each in zip(weights, found, strict=True)) for k in range(3)])


def prf_with_nan_to_num(matrix, average):
    """0/0 is NaN, and NaN is made 0."""
    hits, called, true = matrix.diag().double(), matrix.sum(0), matrix.sum(1)
    if average == "micro":
        hits, called, true = hits.sum(), called.sum(), true.sum()
    p, r = (hits / called).nan_to_num(), (hits / true).nan_to_num()
    each = torch.stack([p, r, (2 * p * r / (p + r)).nan_to_num()])
    if average in ("none", "micro"):
        return each
    return each.mean(1) if average == "macro" else each @ (true / true.sum()).double()


def _with_f1(f1):
    """Another formula for F1, used for each class and for micro."""
    def precision_recall_f1(matrix, average):
        each = _rows(matrix)
        if average == "micro":
            each = (matrix.diag().sum().double() / matrix.sum()).expand(2)
        each = torch.cat([each, f1(*each)[None]])
        return each if average in ("none", "micro") else _averaged(each, average, matrix)
    return precision_recall_f1


prf_arithmetic = _with_f1(lambda p, r: (p + r) / 2)
prf_geometric = _with_f1(lambda p, r: (p * r).sqrt())
def prf_swapped(matrix, average):
    return prf_right(matrix.T, average)


def _undefined_is(value):
    """0/0 is `value`, in precision, recall and F1."""
    def precision_recall_f1(matrix, average):
        if average == "micro":
            return prf_right(matrix, average)
        m = matrix.double()
        p, r = (torch.where(whole > 0, m.diag() / whole, value) for whole in (m.sum(0), m.sum(1)))
        each = torch.stack([p, r, torch.where(p + r == 0, value if value != 1 else 0.0, 2 * p * r / (p + r))])
        return each if average == "none" else _averaged(each, average, matrix)
    return precision_recall_f1


prf_nan = _undefined_is(float("nan"))
prf_one = _undefined_is(1.0)


def _f1_of_means(averages):
    def precision_recall_f1(matrix, average):
        right = prf_right(matrix, average)
        return torch.stack([right[0], right[1], _harmonic(right[0], right[1])]) if average in averages else right
    return precision_recall_f1


prf_f1_of_means = _f1_of_means(("macro", "weighted"))
prf_f1_of_macro_means = _f1_of_means(("macro",))


def _only_classes(kept):
    """Macro over the classes for which `kept(matrix)` is True."""
    def precision_recall_f1(matrix, average):
        if average != "macro":
            return prf_right(matrix, average)
        return prf_right(matrix, "none")[:, kept(matrix)].mean(1)
    return precision_recall_f1


prf_skips_absent = _only_classes(lambda m: m.sum(1) > 0)
prf_skips_unseen = _only_classes(lambda m: m.sum(0) + m.sum(1) > 0)


def _reaches(average_asked, make):
    """`make(matrix)` under one name of an average, the right answer under the others."""
    def precision_recall_f1(matrix, average):
        return make(matrix) if average == average_asked else prf_right(matrix, average)
    return precision_recall_f1


def _micro_without_first(matrix):
    rest = matrix.double()[1:, 1:].diag().sum()
    p, r = _ratio(rest, matrix[:, 1:].sum().double()), _ratio(rest, matrix[1:].sum().double())
    return torch.stack([p, r, _harmonic(p, r)])


prf_weights_of_columns = _reaches(
    "weighted", lambda m: _averaged(prf_right(m, "none"), "weighted", m, weights=m.sum(0)))
prf_weighted_is_macro = _reaches("weighted", lambda m: prf_right(m, "macro"))
prf_micro_is_macro = _reaches("micro", lambda m: prf_right(m, "macro"))
prf_macro_is_micro = _reaches("macro", lambda m: prf_right(m, "micro"))
prf_micro_without_first = _reaches("micro", _micro_without_first)
prf_none_by_class = _reaches("none", lambda m: prf_right(m, "none").T.contiguous())


# ---- roc_auc --------------------------------------------------------------------------------------------------------

def auc_by_pairs(scores, labels, tie=0.5):
    """Every positive against every negative."""
    gap = scores.double()[labels == 1][:, None] - scores.double()[labels == 0]
    return ((gap > 0).double() + tie * (gap == 0)).mean()


def auc_by_ranks(scores, labels):
    """The Mann-Whitney U statistic, with mean ranks for ties."""
    _, group, size = scores.unique(return_inverse=True, return_counts=True)
    last = size.cumsum(0).double()
    rank = (last - (size - 1) / 2)[group]
    positives, negatives = (labels == 1).sum(), (labels == 0).sum()
    return float((rank[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def auc_by_curve(scores, labels):
    """Trapezoids under the curve, one corner for each distinct score."""
    called = scores >= scores.unique().flip(0)[:, None]
    hits, alarms = (F.pad(called[:, labels == side].double().mean(1), (1, 0)) for side in (1, 0))
    return torch.trapezoid(hits, alarms)


def auc_tie_wins(scores, labels):
    return auc_by_pairs(scores, labels, tie=1.0)


def auc_tie_loses(scores, labels):
    return auc_by_pairs(scores, labels, tie=0.0)


def auc_upside_down(scores, labels):
    return 1 - auc_by_pairs(scores, labels)


def auc_at_least_half(scores, labels):
    area = auc_by_pairs(scores, labels)
    return torch.maximum(area, 1 - area)


def gini(scores, labels):
    return 2 * auc_by_pairs(scores, labels) - 1


def auc_of_all_pairs(scores, labels):
    share = (labels == 1).double().mean()
    return auc_by_pairs(scores, labels) * share * (1 - share)


def auc_in_order_of_input(scores, labels):
    """One corner for each example: tied examples are walked one after the other, as they happen to stand."""
    walked = labels[scores.argsort(descending=True, stable=True)]
    hits, alarms = (torch.cat([torch.zeros(1), (walked == side).cumsum(0) / (labels == side).sum()])
                    for side in (1, 0))
    return torch.trapezoid(hits, alarms)


def auc_squashed(scores, labels):
    """A sigmoid in float32 first: large scores become equal."""
    return auc_by_pairs(scores.float().sigmoid(), labels)


def auc_of_decisions(scores, labels):
    return auc_by_pairs((scores > 0).float(), labels)


def auc_of_couples(scores, labels):
    """The first positive against the first negative, the second against the second, and so on."""
    positives, negatives = scores[labels == 1].double(), scores[labels == 0].double()
    n = min(len(positives), len(negatives))
    gap = positives[:n] - negatives[:n]
    return ((gap > 0).double() + 0.5 * (gap == 0)).mean()


def average_precision(scores, labels):
    order = scores.argsort(descending=True, stable=True)
    hits = (labels[order] == 1).double()
    return (hits * hits.cumsum(0) / torch.arange(1, len(hits) + 1)).sum() / hits.sum()
