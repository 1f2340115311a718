"""`regression_metrics(predictions, targets)`: Mean squared error, its root, mean absolute error, and R²."""

from __future__ import annotations

import math

import numpy as np
import torch

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.metrics.shared import randn, remembered

exercise = Draft(
    "regression_metrics",
    points=3,
    forbid=["sklearn"],
    no_gradient="a metric: nothing is trained through it",
    rtol=1e-3,
    atol=1e-4,
    dtypes=(torch.float64,),
    hints=[
        "What would the best *constant* prediction be, and how large is its squared error? R² compares with that.",
        "gap = predictions.reshape(targets.shape) - targets; SS_res = (gap**2).sum(); SS_tot = ((targets - "
        "targets.mean())**2).sum().",
        "r2 = 1 - ss_res / ss_tot if ss_tot > 0 else float(ss_res == 0)",
    ],
)


@exercise.cases
def regression_cases(g):
    targets = randn(g, 12, scale=3.0) + 1.0
    constant = torch.full((6,), 2.0)
    yield case(targets + randn(g, 12) + 0.8, targets, label="noise and a bias")
    yield case((targets + randn(g, 12))[:, None], targets, label="predictions of shape [n, 1]")
    yield case(predictions=4.0 - targets, targets=targets, label="turned round, by keyword")
    yield case(0.4 * targets + 2.5, targets, label="shrunk, on a line")
    yield case(targets - 50.0, targets, label="all 50 too low")
    yield case(targets.clone(), targets, label="perfect")
    yield case(constant.clone(), constant, label="all targets alike, perfect")
    yield case(constant + randn(g, 6), constant, label="all targets alike, not perfect")
    yield case(randn(g, 2, scale=2.0), torch.tensor([-1.0, 1.5]), label="two numbers")
    near = torch.randn(8, generator=g) / 100_000
    yield case(near + torch.randn(8, generator=g) / 200_000, near, label="targets that are nearly alike")
    yield case(constant + 1e-4 * torch.eye(6)[3], constant, label="all targets alike, nearly perfect")
    begins = torch.cat([torch.full((3,), 1.5), randn(g, 4)])
    yield case(begins + randn(g, 7), begins, label="only the first targets are alike")
    yield case(1e4 + randn(g, 30, scale=30.0), 1e4 + randn(g, 30, scale=40.0), label="in the ten thousands")
    yield case(randn(g, 9, 2)[:, 0], randn(g, 9, 2)[:, 1] - 3.0, label="negative, not contiguous")


@exercise.oracle
@remembered
def sklearn_regression(predictions, targets):
    from sklearn import metrics

    y, p = targets.double().numpy(), predictions.double().reshape(targets.shape).numpy()
    return {
        "mse": float(metrics.mean_squared_error(y, p)),
        "rmse": float(metrics.root_mean_squared_error(y, p)),
        "mae": float(metrics.mean_absolute_error(y, p)),
        "r2": float(metrics.r2_score(y, p)),
    }


@exercise.law("RMSE² is MSE, and MAE is never above RMSE")
def root_and_square(out, one, call):
    mse, rmse, mae = (float(out[name]) for name in ("mse", "rmse", "mae"))
    return same(rmse**2, mse, rtol=1e-3) and mae <= rmse * (1 + 1e-4) + 1e-6


def _pair(one):
    return one.args if one.args else (one.kwargs["predictions"], one.kwargs["targets"])


@exercise.law("In other units the errors scale, and R² stays")
def units(out, one, call):
    """Metres or centimetres: errors scale, squares scale twice, R² doesn't notice."""
    predictions, targets = _pair(one)
    if len(targets) == 12:
        return None
    larger = call(predictions.double() * 100, targets.double() * 100)
    factors = {"mse": 1e4, "rmse": 100.0, "mae": 100.0, "r2": 1.0}
    return all(same(float(larger[k]), factors[k] * float(out[k]), rtol=1e-3, atol=1e-3) for k in factors)


@exercise.law("The same number added to both sides changes nothing")
def only_gaps_count(out, one, call):
    predictions, targets = _pair(one)
    if len(targets) == 12:
        return None
    moved = call(predictions.double() + 8, targets.double() + 8)
    return all(same(float(moved[k]), float(out[k]), rtol=1e-3, atol=1e-4) for k in ("mse", "rmse", "mae", "r2"))


@exercise.law("Predicting the mean gives an R² of 0, and worse a negative one")
def mean_is_zero(out, one, call):
    """Predicting the mean of the targets has an R² of 0, and worse predictions a negative one."""
    targets = _pair(one)[1].double()
    if len(targets) not in (2, 30):
        return None
    mean = targets.mean().expand(len(targets)).clone()
    worse = call(mean + 2 * targets.std(), targets)
    return same(float(call(mean, targets)["r2"]), 0.0, atol=1e-4) and float(worse["r2"]) < -1


@exercise.law("A constant bias costs R²")
def shift_is_punished(out, one, call):
    targets = _pair(one)[1].double()
    if len(targets) not in (2, 30):
        return None
    return float(call(targets + 1, targets)["r2"]) < 1 - 1e-6


def _r2(p, y):
    residual, total = ((p - y) ** 2).sum(), ((y - y.mean()) ** 2).sum()
    if total == 0:
        return 1.0 if residual == 0 else 0.0
    return 1 - residual / total


_RIGHT = {
    "mse": lambda p, y: ((p - y) ** 2).mean(),
    "rmse": lambda p, y: ((p - y) ** 2).mean() ** 0.5,
    "mae": lambda p, y: np.abs(p - y).mean(),
    "r2": _r2,
}


@exercise.mistake(
    "[n, 1] minus [n] is left to broadcasting, which makes [n, n]",
    hint="Bring both to one shape first: predictions.reshape(targets.shape).",
)
def regression_broadcast(predictions, targets):
    """[n, 1] - [n] is [n, n]."""
    p, y = predictions.double().numpy(), targets.double().numpy()
    return {name: float(make(p, y)) for name, make in _RIGHT.items()}


def _parts(predictions, targets):
    return predictions.double().flatten().numpy(), targets.double().numpy()


def _with(**other):
    """The four metrics, some of them replaced by a function of (predictions, targets), both float64 [n]."""

    def regression_metrics(predictions, targets):
        p, y = _parts(predictions, targets)
        with np.errstate(divide="ignore", invalid="ignore"):
            return {name: float(make(p, y)) for name, make in (_RIGHT | other).items()}

    return regression_metrics


def _of_spread(ratio):
    """An R² of another formula; targets that are all alike are treated as asked."""
    return _with(r2=lambda p, y: ratio(p, y) if (y != y[0]).any() else _r2(p, y))


def _correlation(p, y):
    a, b = p - p.mean(), y - y.mean()
    return (a * b).sum() / max(((a**2).sum() * (b**2).sum()) ** 0.5, 1e-30)


exercise.mistake("targets that are nearly alike count as alike", hint="Only where SS_tot is exactly 0.")(
    _with(r2=lambda p, y: _r2(p, y) if ((y - y.mean()) ** 2).sum() > 1e-2 else _r2(p, y[:1].repeat(len(y))))
)

exercise.mistake(
    "R² is the squared correlation",
    hint=(
        "Sure to be equal only for a least-squares fit on its own data. Adding 50 to all predictions doesn't change it."
    ),
)(_of_spread(lambda p, y: _correlation(p, y) ** 2))

exercise.mistake(
    "R² is the explained variance, which forgives a constant bias",
    hint="SS_res is the sum of the squared residuals, without subtracting their mean.",
)(_of_spread(lambda p, y: 1 - (y - p).var() / y.var()))

exercise.mistake(
    "R² is the variance of the predictions over that of the targets",
    hint="The bank says so, and is wrong: predictions need not be near the targets to vary as much.",
)(_of_spread(lambda p, y: p.var() / y.var()))

exercise.mistake("a negative R² is raised to 0", hint="It isn't a square: worse than the mean is below 0.")(
    _with(r2=lambda p, y: max(_r2(p, y), 0.0))
)

exercise.mistake(
    "predictions and targets have exchanged their roles in R²", hint="SS_tot is about the targets and their mean."
)(_of_spread(lambda p, y: _r2(y, p)))


def _residual(p, y):
    return ((p - y) ** 2).sum()


exercise.mistake(
    "SS_tot is measured from 0", hint="Subtract the mean of the targets: R² compares with the best constant."
)(_of_spread(lambda p, y: 1 - _residual(p, y) / (y**2).sum()))

exercise.mistake(
    "R² divides the mean square by the unbiased variance",
    hint="Both by n, or two sums: torch.var divides by n - 1 unless it is told otherwise.",
)(_of_spread(lambda p, y: 1 - ((p - y) ** 2).mean() / y.var(ddof=1)))

exercise.mistake("R² lacks the 1 -", hint="1 - SS_res / SS_tot.")(
    _of_spread(lambda p, y: _residual(p, y) / (y.var() * len(y)))
)

exercise.mistake(
    "targets that are all alike make R² divide by 0", hint="Then R² is 1 for perfect predictions and 0 for all others."
)(_with(r2=lambda p, y: 1 - _residual(p, y) / np.float64(((y - y.mean()) ** 2).sum())))

exercise.mistake(
    "targets that are all alike give an R² of 0, perfect or not", hint="Perfect predictions get 1, always."
)(_with(r2=lambda p, y: _r2(p, y) if (y != y[0]).any() else 0.0))

exercise.mistake(
    "targets that are all alike give an R² of 1, perfect or not", hint="1 for perfect predictions, 0 for all others."
)(_with(r2=lambda p, y: _r2(p, y) if (y != y[0]).any() else 1.0))

exercise.mistake(
    "predictions that are nearly perfect count as perfect where all targets are alike", hint="Only where SS_res is 0."
)(_with(r2=lambda p, y: _r2(p, y) if (y != y[0]).any() else float(_residual(p, y) < 1e-6)))

exercise.mistake("SS_tot is measured from the mean of the predictions", hint="From the mean of the targets.")(
    _of_spread(lambda p, y: 1 - _residual(p, y) / ((y - p.mean()) ** 2).sum())
)

exercise.mistake("MSE is halved", hint="The half belongs to some losses. The mean of the squares, no more.")(
    _with(mse=lambda p, y: _RIGHT["mse"](p, y) / 2)
)

exercise.mistake("MAE is the median", hint="The M is for mean.")(_with(mae=lambda p, y: np.median(np.abs(p - y))))

exercise.mistake("the four come as a tuple", hint="A dict with the keys 'mse', 'rmse', 'mae', 'r2'.")(
    lambda predictions, targets: tuple(_with()(predictions, targets).values())
)

exercise.mistake("squares are summed, not averaged", hint="The M is for mean.")(
    _with(mse=_residual, rmse=lambda p, y: _residual(p, y) ** 0.5)
)

exercise.mistake("squares are divided by n - 1", hint="Nothing was estimated from them: by n.")(
    _with(mse=lambda p, y: _residual(p, y) / (len(y) - 1), rmse=lambda p, y: (_residual(p, y) / (len(y) - 1)) ** 0.5)
)

exercise.mistake("RMSE is the mean of the roots", hint="First the mean, then the root. The other way round is MAE.")(
    _with(rmse=lambda p, y: np.sqrt((p - y) ** 2).mean())
)

exercise.mistake(
    "RMSE is the standard deviation of the errors", hint="Don't subtract their mean: a bias is an error, too."
)(_with(rmse=lambda p, y: (p - y).std()))

exercise.mistake("MAE adds up errors with their signs", hint="The A is for absolute.")(
    _with(mae=lambda p, y: (p - y).mean())
)

exercise.mistake(
    "MAE takes the absolute value after the mean", hint="Errors of +5 and -5 don't cancel: absolute value first."
)(_with(mae=lambda p, y: abs((p - y).mean())))

exercise.alternative(_with())


@exercise.alternative
def regression_by_loop(predictions, targets):
    p, y = predictions.flatten().tolist(), targets.tolist()
    n, mean = len(y), sum(y) / len(y)
    squares = sum((a - b) ** 2 for a, b in zip(p, y, strict=True))
    total = sum((b - mean) ** 2 for b in y)
    r2 = 1 - squares / total if total else float(squares == 0)
    return {
        "r2": r2,
        "mae": sum(abs(a - b) for a, b in zip(p, y, strict=True)) / n,
        "mse": squares / n,
        "rmse": math.sqrt(squares / n),
    }


@exercise.alternative
def regression_of_tensors(predictions, targets):
    gap, spread = predictions.view(-1) - targets, targets.var(correction=0)
    mse = (gap * gap).mean()
    r2 = 1 - mse / spread if spread > 0 else (mse == 0).double()
    return {"mse": mse, "rmse": mse**0.5, "mae": gap.abs().mean(), "r2": r2}
