"""How the metrics of regression and retrieval are judged: scikit-learn's own, cases and laws."""

from __future__ import annotations

import warnings

import torch
from sklearn import metrics
from sklearn.metrics import pairwise

from autograde.exercise import case, keeps_dtype, same
from autograde.exercises.applications.metrics_class_checks import remembered


def _randn(g, *shape, scale=1.0):
    return torch.randn(*shape, generator=g) * scale


# ---- regression_metrics ---------------------------------------------------------------------------------------------

@remembered
def sklearn_regression(predictions, targets):
    y, p = targets.double().numpy(), predictions.double().reshape(targets.shape).numpy()
    return {"mse": float(metrics.mean_squared_error(y, p)), "rmse": float(metrics.root_mean_squared_error(y, p)),
            "mae": float(metrics.mean_absolute_error(y, p)), "r2": float(metrics.r2_score(y, p))}


def regression_cases(g):
    targets = _randn(g, 12, scale=3.0) + 1.0
    constant = torch.full((6,), 2.0)
    yield case(targets + _randn(g, 12) + 0.8, targets, label="noise and a bias")
    yield case((targets + _randn(g, 12))[:, None], targets, label="predictions of shape [n, 1]")
    yield case(predictions=4.0 - targets, targets=targets, label="turned round, by keyword")
    yield case(0.4 * targets + 2.5, targets, label="shrunk, on a line")
    yield case(targets - 50.0, targets, label="all 50 too low")
    yield case(targets.clone(), targets, label="perfect")
    yield case(constant.clone(), constant, label="all targets alike, perfect")
    yield case(constant + _randn(g, 6), constant, label="all targets alike, not perfect")
    yield case(_randn(g, 2, scale=2.0), torch.tensor([-1.0, 1.5]), label="two numbers")
    yield case(1e4 + _randn(g, 30, scale=30.0), 1e4 + _randn(g, 30, scale=40.0), label="in the ten thousands")
    yield case(_randn(g, 9, 2)[:, 0], _randn(g, 9, 2)[:, 1] - 3.0, label="negative, not contiguous")


def _pair(one):
    return one.args if one.args else (one.kwargs["predictions"], one.kwargs["targets"])


def root_and_square(out, one, call):
    mse, rmse, mae = (float(out[name]) for name in ("mse", "rmse", "mae"))
    return same(rmse**2, mse, rtol=1e-3) and mae <= rmse * (1 + 1e-4) + 1e-6


def units(out, one, call):
    """Metres or centimetres: errors scale, squares scale twice, R² doesn't notice."""
    predictions, targets = _pair(one)
    if len(targets) == 12:
        return None
    larger = call(predictions.double() * 100, targets.double() * 100)
    factors = {"mse": 1e4, "rmse": 100.0, "mae": 100.0, "r2": 1.0}
    return all(same(float(larger[k]), factors[k] * float(out[k]), rtol=1e-3, atol=1e-3) for k in factors)


def only_gaps_count(out, one, call):
    predictions, targets = _pair(one)
    if len(targets) == 12:
        return None
    moved = call(predictions.double() + 8, targets.double() + 8)
    return all(same(float(moved[k]), float(out[k]), rtol=1e-3, atol=1e-4) for k in ("mse", "rmse", "mae", "r2"))


def mean_is_zero(out, one, call):
    """Predicting the mean of the targets has an R² of 0, and worse predictions a negative one."""
    targets = _pair(one)[1].double()
    if len(targets) not in (2, 30):
        return None
    mean = targets.mean().expand(len(targets)).clone()
    worse = call(mean + 2 * targets.std(), targets)
    return same(float(call(mean, targets)["r2"]), 0.0, atol=1e-4) and float(worse["r2"]) < -1


def shift_is_punished(out, one, call):
    targets = _pair(one)[1].double()
    if len(targets) not in (2, 30):
        return None
    return float(call(targets + 1, targets)["r2"]) < 1 - 1e-6


# ---- cosine_similarity ----------------------------------------------------------------------------------------------

@remembered
def sklearn_cosine(a, b):
    return torch.from_numpy(pairwise.cosine_similarity(a.double().numpy(), b.double().numpy())).to(a.dtype)


def cosine_cases(g):
    a, b = _randn(g, 3, 4), _randn(g, 5, 4)
    hollow = _randn(g, 3, 4)
    hollow[1] = 0.0
    yield case(a, b, label="three against five")
    yield case(_randn(g, 4, 6, scale=30.0) + 9, _randn(g, 4, 6), label="four against four, of other lengths")
    yield case(a=_randn(g, 1, 7), b=_randn(g, 1, 7), label="one against one, by keyword")
    yield case(hollow, b, label="a vector of zeros")
    yield case(b, hollow, label="a vector of zeros in b")
    yield case(_randn(g, 4, 1), _randn(g, 3, 1), label="one dimension: only the sign is left")
    yield case(_randn(g, 6, 3).T, _randn(g, 6, 2).T, label="not contiguous")
    yield case(_randn(g, 2, 64, scale=1e4), _randn(g, 3, 64, scale=1e-2), label="large against small")


def _two(one):
    return one.args if one.args else (one.kwargs["a"], one.kwargs["b"])


def lengths_dont_count(out, one, call):
    a, b = _two(one)
    return same(call(a * 7, b / 3), out, rtol=1e-3, atol=1e-3)


def with_itself(out, one, call):
    a = _two(one)[0]
    wanted = (a != 0).any(-1).to(out.dtype)
    return same(call(a, a).diagonal(), wanted, rtol=1e-3, atol=1e-3)


def opposite(out, one, call):
    a, b = _two(one)
    return same(call(a, -b), -out, rtol=1e-3, atol=1e-3)


def exchanged(out, one, call):
    a, b = _two(one)
    return out.shape == (len(a), len(b)) and same(call(b, a), out.T, rtol=1e-3, atol=1e-3)


def keeps_kind(out, one, call):
    return out.dtype == _two(one)[0].dtype if one.kwargs else keeps_dtype(out, one, call)


# ---- top_k_accuracy -------------------------------------------------------------------------------------------------

@remembered
def sklearn_top_k(scores, targets, k):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where k is no smaller than the number of classes
        return float(metrics.top_k_accuracy_score(
            targets.numpy(), scores.double().numpy(), k=k, labels=range(scores.shape[1])))


def _ranking(g, n, classes, better=1.0):
    """Scores that differ in each row, and targets that tend to be high, with every kind of rank among them."""
    targets = torch.randint(classes, (n,), generator=g)
    noise = torch.stack([torch.randperm(classes, generator=g) for _ in range(n)]).float()
    lift = better * torch.rand(n, 1, generator=g) * classes
    return noise - classes / 2 + 0.5 + lift * (torch.arange(classes) == targets[:, None]) + 0.01 * torch.rand(
        n, classes, generator=g), targets


def top_k_cases(g):
    yield case(*_ranking(g, 12, 6), 2, label="twelve rows, k = 2")
    yield case(*_ranking(g, 40, 9), 3, label="forty rows, k = 3")
    scores, targets = _ranking(g, 15, 5, better=0.2)
    yield case(scores=scores, targets=targets, k=2, label="hardly better than chance, by keyword")
    yield case(*_ranking(g, 20, 4), 1, label="k = 1: the accuracy")
    yield case(*_ranking(g, 5, 4), 4, label="k equals the number of classes")
    yield case(*_ranking(g, 5, 3), 10, label="k is larger than the number of classes")
    yield case(*_ranking(g, 1, 7), 3, label="one row")
    scores, targets = _ranking(g, 9, 8)
    yield case((scores * 1_000 - 9_000).T.contiguous().T, targets, 5, label="negative scores, not contiguous")


def _ranked(one):
    return one.args if one.args else tuple(one.kwargs[key] for key in ("scores", "targets", "k"))


def grows_with_k(out, one, call):
    scores, targets, _ = _ranked(one)
    if scores.shape[1] > 5:
        return None
    found = [float(call(scores, targets, k)) for k in range(1, scores.shape[1] + 1)]
    return found == sorted(found) and found[0] >= 0 and same(found[-1], 1.0)


def one_is_accuracy(out, one, call):
    scores, targets, _ = _ranked(one)
    return same(float(call(scores, targets, 1)), float((scores.argmax(-1) == targets).double().mean()))


def classes_may_be_renamed(out, one, call):
    scores, targets, k = _ranked(one)
    return same(float(call(scores.flip(1), scores.shape[1] - 1 - targets, k)), float(out))


def rows_stand_alone(out, one, call):
    """The mean of what each row gets alone."""
    scores, targets, k = _ranked(one)
    if len(targets) > 9:
        return None
    alone = [float(call(scores[i : i + 1], targets[i : i + 1], k)) for i in range(len(targets))]
    return same(sum(alone) / len(alone), float(out))
