"""Wrong ways to measure regression and retrieval, as complete implementations, and a few right ones."""

from __future__ import annotations

import math

import numpy as np
import torch

# ---- regression_metrics ---------------------------------------------------------------------------------------------

def _parts(predictions, targets):
    return predictions.double().flatten().numpy(), targets.double().numpy()


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


def _with(**other):
    """The four metrics, some of them replaced by a function of (predictions, targets), both float64 [n]."""
    def regression_metrics(predictions, targets):
        p, y = _parts(predictions, targets)
        with np.errstate(divide="ignore", invalid="ignore"):
            return {name: float(make(p, y)) for name, make in (_RIGHT | other).items()}
    return regression_metrics


regression_right = _with()


def regression_by_loop(predictions, targets):
    p, y = predictions.flatten().tolist(), targets.tolist()
    n, mean = len(y), sum(y) / len(y)
    squares = sum((a - b) ** 2 for a, b in zip(p, y, strict=True))
    total = sum((b - mean) ** 2 for b in y)
    r2 = 1 - squares / total if total else float(squares == 0)
    return {"r2": r2, "mae": sum(abs(a - b) for a, b in zip(p, y, strict=True)) / n, "mse": squares / n,
            "rmse": math.sqrt(squares / n)}


def regression_of_tensors(predictions, targets):
    gap, spread = predictions.view(-1) - targets, targets.var(correction=0)
    mse = (gap * gap).mean()
    r2 = 1 - mse / spread if spread > 0 else (mse == 0).double()
    return {"mse": mse, "rmse": mse**0.5, "mae": gap.abs().mean(), "r2": r2}


def regression_broadcast(predictions, targets):
    """[n, 1] - [n] is [n, n]."""
    p, y = predictions.double().numpy(), targets.double().numpy()
    return {name: float(make(p, y)) for name, make in _RIGHT.items()}


def _of_spread(ratio):
    """An R² of another formula; targets that are all alike are treated as asked."""
    return _with(r2=lambda p, y: ratio(p, y) if (y != y[0]).any() else _r2(p, y))


def _correlation(p, y):
    a, b = p - p.mean(), y - y.mean()
    return (a * b).sum() / max(((a**2).sum() * (b**2).sum()) ** 0.5, 1e-30)


def _residual(p, y):
    return ((p - y) ** 2).sum()


r2_squared_correlation = _of_spread(lambda p, y: _correlation(p, y) ** 2)
r2_explained_variance = _of_spread(lambda p, y: 1 - (y - p).var() / y.var())
r2_ratio_of_variances = _of_spread(lambda p, y: p.var() / y.var())
r2_never_negative = _with(r2=lambda p, y: max(_r2(p, y), 0.0))
r2_roles_swapped = _of_spread(lambda p, y: _r2(y, p))
r2_against_zero = _of_spread(lambda p, y: 1 - _residual(p, y) / (y**2).sum())
r2_of_unbiased_variance = _of_spread(lambda p, y: 1 - ((p - y) ** 2).mean() / y.var(ddof=1))
r2_without_one_minus = _of_spread(lambda p, y: _residual(p, y) / (y.var() * len(y)))
r2_divides_by_zero = _with(r2=lambda p, y: 1 - _residual(p, y) / np.float64(((y - y.mean()) ** 2).sum()))
r2_zero_for_constant = _with(r2=lambda p, y: _r2(p, y) if (y != y[0]).any() else 0.0)
mse_is_sum = _with(mse=_residual, rmse=lambda p, y: _residual(p, y) ** 0.5)
mse_unbiased = _with(mse=lambda p, y: _residual(p, y) / (len(y) - 1),
                     rmse=lambda p, y: (_residual(p, y) / (len(y) - 1)) ** 0.5)
rmse_is_mean_of_roots = _with(rmse=lambda p, y: np.sqrt((p - y) ** 2).mean())
rmse_without_bias = _with(rmse=lambda p, y: (p - y).std())
mae_signed = _with(mae=lambda p, y: (p - y).mean())
mae_of_sum = _with(mae=lambda p, y: abs((p - y).mean()))
# ---- cosine_similarity ----------------------------------------------------------------------------------------------

def _unit(x, dim=-1):
    norm = x.norm(dim=dim, keepdim=True)
    return x / torch.where(norm > 0, norm, 1)


def cosine_right(a, b):
    return _unit(a) @ _unit(b).T


def cosine_by_loop(a, b):
    def one(x, y):
        product = sum(u * u for u in x) * sum(v * v for v in y)
        return sum(u * v for u, v in zip(x, y, strict=True)) / math.sqrt(product) if product else 0.0
    rows = [[one(x, y) for y in b.tolist()] for x in a.tolist()]
    return torch.tensor(rows, dtype=a.dtype)


def cosine_by_normalize(a, b):
    a, b = (torch.nn.functional.normalize(x, dim=-1) for x in (a, b))
    return torch.einsum("id,jd->ij", a, b)


def dot_products(a, b):
    return a @ b.T


def cosine_of_squares(a, b):
    return (a @ b.T) / (a.square().sum(-1)[:, None] * b.square().sum(-1)).clamp(min=1e-12)


def cosine_only_b_scaled(a, b):
    return a @ _unit(b).T


def cosine_nan(a, b):
    return (a / a.norm(dim=-1, keepdim=True)) @ (b / b.norm(dim=-1, keepdim=True)).T


def cosine_distance(a, b):
    return 1 - cosine_right(a, b)


def cosine_without_sign(a, b):
    return cosine_right(a, b).abs()


def cosine_of_centred(a, b):
    return cosine_right(a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True))


def cosine_over_columns(a, b):
    return _unit(a, dim=0) @ _unit(b, dim=0).T


def cosine_of_whole(a, b):
    return a @ b.T / (a.norm() * b.norm()).clamp(min=1e-12)


def cosine_turned(a, b):
    return cosine_right(b, a)


def cosine_couples(a, b):
    n = min(len(a), len(b))
    return (_unit(a[:n]) * _unit(b[:n])).sum(-1)


def euclidean(a, b):
    return torch.cdist(a, b)


# ---- top_k_accuracy -------------------------------------------------------------------------------------------------

def _hits(scores, targets, k):
    """Whether each target is among the k best of its row: bool [n]."""
    best = scores.topk(min(k, scores.shape[-1]), dim=-1).indices
    return (best == targets[:, None]).any(-1)


def topk_right(scores, targets, k):
    return _hits(scores, targets, k).double().mean()


def topk_by_rank(scores, targets, k):
    own = scores.gather(1, targets[:, None])
    return float(((scores > own).sum(1) < k).double().mean())


def topk_by_sorting(scores, targets, k):
    lists = [sorted(range(len(row)), key=row.__getitem__, reverse=True)[:k] for row in scores.tolist()]
    return sum(target in best for target, best in zip(targets.tolist(), lists, strict=True)) / len(lists)


def topk_worst(scores, targets, k):
    return topk_right(-scores, targets, k)


def topk_one(scores, targets, k):
    return topk_right(scores, targets, 1)


def topk_one_less(scores, targets, k):
    own = scores.gather(1, targets[:, None])
    return ((scores > own).sum(1) < k - 1).double().mean()


def topk_one_more(scores, targets, k):
    return topk_right(scores, targets, k + 1)


def topk_unclamped(scores, targets, k):
    return (scores.topk(k, dim=-1).indices == targets[:, None]).any(-1).double().mean()


def topk_counted(scores, targets, k):
    return _hits(scores, targets, k).sum()


def topk_precision(scores, targets, k):
    return topk_right(scores, targets, k) / k


def topk_of_any_row(scores, targets, k):
    best = scores.topk(min(k, scores.shape[-1]), dim=-1).indices
    return torch.isin(targets, best.flatten()).double().mean()


def topk_over_whole(scores, targets, k):
    """The k best scores of the whole batch."""
    bar = scores.flatten().topk(min(k, scores.numel())).values[-1]
    return (scores.gather(1, targets[:, None]) >= bar).double().mean()


def topk_order_for_rank(scores, targets, k):
    """argsort gives which class is at a place, not at which place a class is."""
    place = scores.argsort(-1, descending=True).gather(1, targets[:, None])[:, 0]
    return (place < k).double().mean()


def topk_error(scores, targets, k):
    return 1 - topk_right(scores, targets, k)
