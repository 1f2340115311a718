"""`confusion_matrix(targets, predictions, n_classes)`: How often each true class was taken for each class."""

from __future__ import annotations

import warnings

import torch

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.metrics.shared import ints, remembered

exercise = Draft(
    "confusion_matrix",
    points=2,
    forbid=["sklearn"],
    no_gradient="a metric: nothing is trained through it",
    hints=[
        "There are n_classes² possible pairs (truth, prediction). Can you give each pair a number?",
        "targets * n_classes + predictions is the pair's place in the matrix, row by row. Count how often each occurs.",
        "torch.bincount(targets * n_classes + predictions, minlength=n_classes**2).view(n_classes, n_classes)",
    ],
)


def _guesses(g, n, n_classes, right=0.5):
    """Targets, and predictions of which about the share `right` is right."""
    targets, other = ints(g, n_classes, n), ints(g, n_classes, n)
    return targets, torch.where(torch.rand(n, generator=g) < right, targets, other)


@exercise.cases
def confusion_cases(g):
    targets, predictions = _guesses(g, 30, 4)
    # Class 0 twice taken for class 2, once the other way: no answer is symmetric, and some pair occurs twice.
    yield case(torch.tensor([0, 0, 2, 1, 0]), torch.tensor([2, 2, 0, 1, 0]), 3, label="five examples, three classes")
    yield case(targets, predictions, 4, label="thirty examples, four classes")
    yield case(targets=ints(g, 2, 12), predictions=ints(g, 2, 12), n_classes=2, label="two classes, by keyword")
    yield case(*_guesses(g, 20, 3), 6, label="six classes, of which only three occur")
    yield case(ints(g, 3, 9) + 2, ints(g, 2, 9), 5, label="never a class that occurs is predicted")
    yield case(ints(g, 5, 1), ints(g, 5, 1), 5, label="one example")
    yield case(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), 3, label="no example")
    yield case(torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), 1, label="one class")
    pairs = torch.stack(_guesses(g, 5000, 13, right=0.8), 1).T
    yield case(*pairs, 13, label="5,000 examples, 13 classes, not contiguous")
    order, places = torch.randperm(4101, generator=g), torch.arange(4101)
    most = (places >= 4099).long()[order], (places >= 4100).long()[order]  # 4,099 of a pair: float16 has no such number
    yield case(*most, 2, label="4,101 examples, nearly all of one pair")


@exercise.oracle
@remembered
def sklearn_confusion(targets, predictions, n_classes):
    from sklearn import metrics

    if not len(targets):  # refused by scikit-learn
        return torch.zeros(n_classes, n_classes, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where there is a single class
        counts = metrics.confusion_matrix(targets.numpy(), predictions.numpy(), labels=range(n_classes))
    return torch.from_numpy(counts)


def _confusion(one):
    keys = ("targets", "predictions", "n_classes")
    return one.args if one.args else tuple(one.kwargs[key] for key in keys)


@exercise.law("The counts are int64")
def counts_are_int64(out, one, call):
    return out.dtype is torch.int64 or f"they are {out.dtype}"


@exercise.law("Every example is counted once")
def counts_everything(out, one, call):
    return int(out.sum()) == len(_confusion(one)[0])


@exercise.law("A row adds up to how often its class occurs")
def rows_are_the_truth(out, one, call):
    targets, _, n_classes = _confusion(one)
    return torch.equal(out.sum(1), torch.bincount(targets, minlength=n_classes))


@exercise.law("Truth and prediction exchanged give the transpose")
def swapping_transposes(out, one, call):
    targets, predictions, n_classes = _confusion(one)
    return same(call(predictions, targets, n_classes), out.T) and out.shape == (n_classes, n_classes)


@exercise.law("The same examples twice give twice the counts")
def twice_is_double(out, one, call):
    targets, predictions, n_classes = _confusion(one)
    return same(call(targets.repeat(2), predictions.repeat(2), n_classes), 2 * out)


@exercise.alternative
def confusion_by_bincount(targets, predictions, n_classes):
    return torch.bincount(targets * n_classes + predictions, minlength=n_classes**2).view(n_classes, n_classes)


def _spoilt_confusion(change):
    def confusion_matrix(targets, predictions, n_classes):
        return change(confusion_by_bincount(targets, predictions, n_classes))

    return confusion_matrix


exercise.mistake(
    "rows are predictions and columns the truth",
    hint="Here, as in scikit-learn, row i is true class i. Other books have it the other way round.",
)(_spoilt_confusion(lambda m: m.T.contiguous()))


@exercise.mistake(
    "a pair that occurs several times is counted once",
    hint=(
        "matrix[t, p] += 1 with tensors as indices writes a repeated place only once. Use bincount, or "
        "index_put_ with accumulate=True."
    ),
)
def confusion_assigned(targets, predictions, n_classes):
    """m[t, p] += 1 with tensors as indices: a pair that occurs twice is written twice, not counted twice."""
    matrix = torch.zeros(n_classes, n_classes, dtype=torch.int64)
    matrix[targets, predictions] += 1
    return matrix


exercise.mistake(
    "the last class stands first",
    hint="Class 0 is row 0. (Textbooks draw the positive class first; the code counts from 0.)",
)(_spoilt_confusion(lambda m: m.flip(0, 1)))


@exercise.mistake(
    "only the classes that occur get a row",
    hint="The matrix is n_classes × n_classes, with zeros for classes nobody saw.",
)
def confusion_of_present(targets, predictions, n_classes):
    seen, index = torch.cat([targets, predictions]).unique(return_inverse=True)
    return confusion_by_bincount(*index.view(2, -1), len(seen))


@exercise.mistake("bincount ends with the largest pair that occurs", hint="Give it minlength=n_classes**2.")
def confusion_without_minlength(targets, predictions, n_classes):
    return torch.bincount(targets * n_classes + predictions).view(n_classes, n_classes)


@exercise.mistake("classes are counted from 1", hint="Class 0 is the first one.")
def confusion_from_one(targets, predictions, n_classes):
    return confusion_by_bincount((targets - 1) % n_classes, (predictions - 1) % n_classes, n_classes)


exercise.mistake("only right answers are counted", hint="The errors beside the diagonal are what the matrix is for.")(
    _spoilt_confusion(lambda m: m.diag().diag())
)

exercise.mistake("only wrong answers are counted", hint="Right answers stand on the diagonal.")(
    _spoilt_confusion(lambda m: m - m.diag().diag())
)

exercise.mistake("rows are turned into shares", hint="Leave them as counts.")(
    _spoilt_confusion(lambda m: m / m.sum(1, keepdim=True).clamp(min=1))
)

exercise.mistake("columns are turned into shares", hint="Leave them as counts.")(
    _spoilt_confusion(lambda m: m / m.sum(0).clamp(min=1))
)

exercise.mistake("the counts are int32", hint="dtype=torch.int64, as bincount gives it.")(
    _spoilt_confusion(torch.Tensor.int)
)

exercise.mistake("counts beyond 255 begin at 0 again", hint="uint8 ends there: dtype=torch.int64.")(
    _spoilt_confusion(lambda m: m % 256)
)

exercise.mistake("without examples the matrix is empty", hint="n_classes × n_classes zeros.")(
    lambda targets, predictions, n_classes: confusion_by_bincount(
        targets, predictions, n_classes if len(targets) else 0
    )
)

exercise.mistake("the counts are divided by the number of examples", hint="Leave them as counts.")(
    _spoilt_confusion(lambda m: m / m.sum().clamp(min=1))
)

exercise.mistake("the counts are floating-point numbers", hint="Counts are whole numbers: dtype=torch.int64.")(
    _spoilt_confusion(torch.Tensor.float)
)

exercise.mistake(
    "each class gets its own TN, FP, FN, TP", hint="That is one 2 × 2 table a class. Here one table holds all classes."
)(
    _spoilt_confusion(
        lambda m: torch.stack(
            [m.sum() - m.sum(0) - m.sum(1) + m.diag(), m.sum(0) - m.diag(), m.sum(1) - m.diag(), m.diag()], 1
        )
    )
)


@exercise.alternative
def confusion_by_one_hot(targets, predictions, n_classes):
    index = torch.arange(n_classes)
    return (targets[:, None] == index).long().T @ (predictions[:, None] == index).long()


@exercise.alternative
def confusion_by_loop(targets, predictions, n_classes):
    counts = [[0] * n_classes for _ in range(n_classes)]
    for true, called in zip(targets.tolist(), predictions.tolist(), strict=True):
        counts[true][called] += 1
    return torch.tensor(counts)
