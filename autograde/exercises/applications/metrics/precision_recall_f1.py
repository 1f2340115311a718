"""`precision_recall_f1(matrix, average)`: Precision, recall and F1 from a confusion matrix."""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.metrics.shared import ints, remembered

exercise = Draft(
    "precision_recall_f1",
    points=4,
    forbid=["sklearn"],
    no_gradient="a metric: nothing is trained through it",
    hints=[
        "Of a class you need three numbers: hits (the diagonal), how often it was called (a column), how often it "
        "occurs (a row).",
        "F1 = 2 hits / (called + true), which is 2pr / (p + r) with less to go wrong. Divide by count.clamp(min=1), "
        "and 0/0 becomes 0/1.",
        "each = torch.stack([hits / called.clamp(min=1), hits / true.clamp(min=1), 2 * hits / (called + "
        "true).clamp(min=1)]); macro: each.mean(1); weighted: (each * true).sum(1) / true.sum(); micro: hits.sum() / "
        "matrix.sum(), three times.",
    ],
)

AVERAGES = ("none", "macro", "micro", "weighted")


def _matrix(g, n, high=9):
    """Counts that are clearly not symmetric, so that rows and columns can't be mistaken for each other."""
    matrix = ints(g, high, n * n).view(n, n) + torch.arange(1, n + 1).diag() * 3
    matrix[0, 1:] += ints(g, 5, n - 1) + 4
    return matrix


@exercise.cases
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
    yield case(torch.tensor([[7]]), "none", label="one class, none")
    yield case(_matrix(g, 5, 9) * 100_003, "weighted", label="counts in the hundred thousands, weighted")
    yield case(_matrix(g, 40).T, "macro", label="forty classes, not contiguous, macro")


@exercise.oracle
@remembered
def sklearn_prf(matrix, average):
    """The matrix as a list of weighted pairs; 0/0 is 0."""
    from sklearn import metrics

    n = len(matrix)
    true, called = torch.arange(n).repeat_interleave(n).numpy(), torch.arange(n).repeat(n).numpy()
    found = metrics.precision_recall_fscore_support(
        true,
        called,
        labels=range(n),
        sample_weight=matrix.reshape(-1).numpy(),
        average=None if average == "none" else average,
        zero_division=0,
    )
    return torch.stack([torch.as_tensor(part, dtype=torch.float64) for part in found[:3]])


@exercise.law("Every number lies between 0 and 1")
def between_zero_and_one(out, one, call):
    return bool(((out >= 0) & (out <= 1 + 1e-6)).all())


def _asked(one):
    return one.args if one.args else (one.kwargs["matrix"], one.kwargs["average"])


@exercise.law("F1 of a class lies between the smaller of the two and their geometric mean")
def harmonic_is_low(out, one, call):
    """F1 is at least the smaller of precision and recall, and below their geometric mean where they differ."""
    if _asked(one)[1] != "none":
        return None
    p, r, f1 = out.double()
    low, middle = torch.minimum(p, r), (p * r).sqrt()
    clear = ((p - r).abs() > 0.05) & (low > 0)  # where p and r are close, all means are
    below = torch.where(clear, f1 < middle - 1e-6, f1 <= middle + 1e-6)
    return bool((below & (f1 >= low - 1e-6)).all())


def _accuracy(matrix):
    return (matrix.diag().sum() / matrix.sum()).double()


@exercise.law("Micro precision, recall and F1 are all the accuracy")
def micro_is_accuracy(out, one, call):
    matrix, average = _asked(one)
    return same(out, _accuracy(matrix).expand(3)) if average == "micro" else None


@exercise.law("Macro is the plain mean over all classes, of F1 as well")
def macro_is_mean(out, one, call):
    matrix, average = _asked(one)
    return same(out, call(matrix, "none").double().mean(1)) if average == "macro" else None


@exercise.law("Weighted recall is the accuracy")
def weighted_recall_is_accuracy(out, one, call):
    matrix, average = _asked(one)
    return same(out[1], _accuracy(matrix)) if average == "weighted" else None


@exercise.law("Rows and columns exchanged exchange precision and recall")
def transposing_swaps(out, one, call):
    """And what comes out as recall is a share of the row."""
    matrix, average = _asked(one)
    if average != "none":
        return None
    p, r, f1 = call(matrix.T.contiguous(), "none")
    recall = matrix.diag().double() / matrix.sum(1).clamp(min=1)
    return same(p.double(), recall) and same(torch.stack([r, p, f1]), out)


def _harmonic(p, r):
    return torch.where(p + r > 0, 2 * p * r / (p + r), 0.0)


def _ratio(part, whole):
    return torch.where(whole > 0, part / whole.clamp(min=1), 0.0)


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


@exercise.alternative
def prf_right(matrix, average):
    if average == "micro":
        return (matrix.diag().sum() / matrix.sum()).expand(3).clone()
    each = _rows(matrix)
    each = torch.cat([each, _harmonic(*each)[None]])
    return each if average == "none" else _averaged(each, average, matrix)


@exercise.mistake(
    "precision and recall are exchanged",
    hint="Precision divides by what was *called* the class, a column; recall by what *is* it, a row.",
)
def prf_swapped(matrix, average):
    return prf_right(matrix.T, average)


def _with_f1(f1):
    """Another formula for F1, used for each class and for micro."""

    def precision_recall_f1(matrix, average):
        each = _rows(matrix)
        if average == "micro":
            each = (matrix.diag().sum().double() / matrix.sum()).expand(2)
        each = torch.cat([each, f1(*each)[None]])
        return each if average in ("none", "micro") else _averaged(each, average, matrix)

    return precision_recall_f1


exercise.mistake(
    "F1 is the arithmetic mean", hint="The harmonic mean: 2pr / (p + r). A model that finds nothing must not get 0.5."
)(_with_f1(lambda p, r: (p + r) / 2))

exercise.mistake("F1 is the geometric mean", hint="The harmonic mean: 2pr / (p + r).")(
    _with_f1(lambda p, r: (p * r).sqrt())
)


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


exercise.mistake(
    "0/0 gives NaN", hint="A class that is never predicted has precision 0 here, one that never occurs recall 0."
)(_undefined_is(float("nan")))

exercise.mistake("0/0 counts as 1", hint="In this course 0/0 is 0, scikit-learn's default as well.")(_undefined_is(1.0))


def _only_classes(kept):
    """Macro over the classes for which `kept(matrix)` is True."""

    def precision_recall_f1(matrix, average):
        if average != "macro":
            return prf_right(matrix, average)
        return prf_right(matrix, "none")[:, kept(matrix)].mean(1)

    return precision_recall_f1


exercise.mistake(
    "macro skips classes that never occur", hint="All classes of the matrix count, with 0 for what is 0/0."
)(_only_classes(lambda m: m.sum(1) > 0))

exercise.mistake(
    "macro skips classes that neither occur nor are predicted",
    hint="scikit-learn does so unless it is given `labels`. Here every class of the matrix counts.",
)(_only_classes(lambda m: m.sum(0) + m.sum(1) > 0))


def _f1_of_means(averages):
    def precision_recall_f1(matrix, average):
        right = prf_right(matrix, average)
        return torch.stack([right[0], right[1], _harmonic(right[0], right[1])]) if average in averages else right

    return precision_recall_f1


exercise.mistake(
    "macro and weighted F1 are computed from the averaged precision and recall",
    hint="Average the F1 of the classes. F1 of the averages is another number.",
)(_f1_of_means(("macro", "weighted")))

exercise.mistake(
    "macro F1 is computed from macro precision and macro recall",
    hint=(
        "Average the F1 of the classes. Both definitions are in use (Opitz and Burst 2019, "
        "arXiv:1911.03347), so say which."
    ),
)(_f1_of_means(("macro",)))


def _reaches(average_asked, make):
    """`make(matrix)` under one name of an average, the right answer under the others."""

    def precision_recall_f1(matrix, average):
        return make(matrix) if average == average_asked else prf_right(matrix, average)

    return precision_recall_f1


exercise.mistake(
    "weights are how often a class is predicted", hint="The weight is how often the class occurs: the sum of its row."
)(_reaches("weighted", lambda m: _averaged(prf_right(m, "none"), "weighted", m, weights=m.sum(0))))

exercise.mistake(
    "weighted gives all classes the same weight", hint="That is macro. Weighted counts a class as often as it occurs."
)(_reaches("weighted", lambda m: prf_right(m, "macro")))

exercise.mistake(
    "micro is the mean over the classes", hint="Micro adds up the counts of all classes first, and divides once."
)(_reaches("micro", lambda m: prf_right(m, "macro")))

exercise.mistake("macro leaves out whatever is 0/0", hint="0/0 is 0 here, and counts like everything else.")(
    _reaches("macro", lambda m: _undefined_is(float("nan"))(m, "none").nanmean(1))
)

exercise.mistake(
    "macro and weighted are exchanged", hint="Macro: all classes alike. Weighted: by how often they occur."
)(lambda matrix, average: prf_right(matrix, {"macro": "weighted", "weighted": "macro"}.get(average, average)))

exercise.mistake("micro gives one number", hint="Three of them, [3], even if they are equal.")(
    _reaches("micro", lambda m: prf_right(m, "micro")[0])
)

exercise.mistake("weighted isn't divided by the number of examples", hint="A mean: the weights add up to 1.")(
    _reaches("weighted", lambda m: prf_right(m, "weighted") * m.sum())
)

exercise.mistake("macro adds up the counts first", hint="That is micro. Macro takes the mean of the classes' values.")(
    _reaches("macro", lambda m: prf_right(m, "micro"))
)


def _micro_without_first(matrix):
    rest = matrix.double()[1:, 1:].diag().sum()
    p, r = _ratio(rest, matrix[:, 1:].sum().double()), _ratio(rest, matrix[1:].sum().double())
    return torch.stack([p, r, _harmonic(p, r)])


exercise.mistake(
    "micro leaves out class 0, as if it were the negative class",
    hint=(
        "Every class counts here. Leaving one out is usual where it means 'nothing', as in entity "
        "recognition, and has to be said."
    ),
)(_reaches("micro", _micro_without_first))

exercise.mistake('"none" has one row a class', hint="[3, classes]: precision, recall, F1.")(
    _reaches("none", lambda m: prf_right(m, "none").T.contiguous())
)


@exercise.alternative
def prf_by_loop(matrix, average):
    counts, n = matrix.tolist(), len(matrix)
    found = []
    for i in range(n):
        hit, called, true = counts[i][i], sum(row[i] for row in counts), sum(counts[i])
        found.append(
            (
                hit / called if called else 0.0,
                hit / true if true else 0.0,
                2 * hit / (called + true) if called + true else 0.0,
            )
        )
    if average == "none":
        return torch.tensor(found).T
    total = sum(map(sum, counts))
    if average == "micro":
        return torch.tensor([sum(counts[i][i] for i in range(n)) / total] * 3)
    weights = [1 / n] * n if average == "macro" else [sum(row) / total for row in counts]
    return torch.tensor([sum(w * each[k] for w, each in zip(weights, found, strict=True)) for k in range(3)])


@exercise.alternative
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
