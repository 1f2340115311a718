"""Wrong window masks, projected attentions and random features, and a few right ones that look different."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

# ---- sliding_window_mask --------------------------------------------------------------------------------------------


def _window(sees, square=False):
    """A mask that asks `sees(distance, window, causal)`; the distance is how far the key lies back."""

    def mask(n, window, causal=True, past=0):
        if window < 1:
            raise ValueError("a window holds at least the token itself")
        keys = n if square else past + n
        distance = torch.arange(keys - n, keys)[:, None] - torch.arange(keys)
        return sees(distance, window, causal)

    return mask


def _right(distance, window, causal):
    return (distance < window) & (distance >= (0 if causal else 1 - window))


windowed = _window(_right)
window_without_itself = _window(lambda d, w, c: (d <= w) & (d >= (0 if c else -w)))
window_too_short = _window(lambda d, w, c: _right(d, max(w - 1, 1), c))
window_skips_itself = _window(lambda d, w, c: (d <= w) & (d >= (0 if c else -w)) & (d != 0))
window_ahead = _window(lambda d, w, c: _right(-d, w, c))
window_both_ways = _window(lambda d, w, c: _right(d, w, False))
window_always_causal = _window(lambda d, w, c: _right(d, w, True))
window_unlimited_ahead = _window(lambda d, w, c: (d < w) & ((d >= 0) | (not c)))
window_halved = _window(lambda d, w, c: _right(d, w, c) if c else (2 * d.abs() <= w))
window_inverted = _window(lambda d, w, c: ~_right(d, w, c))
window_ignored = _window(lambda d, w, c: (d >= 0) | (not c))
window_of_the_far = _window(lambda d, w, c: (d >= w) if c else (d.abs() >= w))
window_additive = _window(lambda d, w, c: torch.zeros(d.shape).masked_fill(~_right(d, w, c), -torch.inf))
window_as_numbers = _window(lambda d, w, c: _right(d, w, c).float())
window_dilated = _window(lambda d, w, c: (d % w == 0) & ((d >= 0) | (not c)))
window_past_forgotten = _window(_right, square=True)


def window_upper_left(n, window, causal=True, past=0):
    return windowed(past + n, window, causal)[:n]


def window_all_rows(n, window, causal=True, past=0):
    return windowed(past + n, window, causal)


def window_past_seen(n, window, causal=True, past=0):
    return torch.cat([torch.ones(n, past, dtype=torch.bool), windowed(n, window, causal)], -1)


def window_in_blocks(n, window, causal=True, past=0):
    """Chunks of `window` tokens, each for itself."""
    places = torch.arange(past + n)
    mask = places[:, None] // window == places // window
    return (mask.tril() if causal else mask)[past:]


def window_with_sink(n, window, causal=True, past=0):
    """StreamingLLM's variant: the first token stays visible."""
    mask = windowed(n, window, causal, past)
    mask[:, 0] = True
    return mask


def window_unchecked(n, window, causal=True, past=0):
    return windowed(n, max(window, 1), causal, past)


def windowed_by_triangles(n, window, causal=True, past=0):
    if window < 1:
        raise ValueError(f"window={window}: at least 1, the token itself")
    ones = torch.ones(n, past + n, dtype=torch.bool)
    return ones.tril(past if causal else past + window - 1) & ones.triu(past - window + 1)


def windowed_by_rows(n, window, causal=True, past=0):
    if window <= 0:
        raise ValueError("no window")
    mask = torch.zeros(n, past + n, dtype=torch.bool)
    for row in range(n):
        last = past + row if causal else past + row + window - 1
        mask[row, max(0, past + row - window + 1) : last + 1] = True
    return mask


# ---- linformer_attention --------------------------------------------------------------------------------------------


def _attend(q, k, v, scale=None):
    return ((q @ k.mT) * (q.shape[-1] ** -0.5 if scale is None else scale)).softmax(-1) @ v


def linformer(q, k, v, e, f):
    return _attend(q, e @ k, f @ v)


def linformer_by_einsum(q, k, v, e, f):
    keys, values = torch.einsum("rm,...md->...rd", e, k), torch.einsum("rm,...mv->...rv", f, v)
    weights = torch.exp(torch.log_softmax(torch.einsum("...nd,...rd->...nr", q, keys) / math.sqrt(q.shape[-1]), -1))
    return torch.einsum("...nr,...rv->...nv", weights, values)


def linformer_scores_first(q, k, v, e, f):
    """(q k^T) E^T: the same numbers, and the n × m scores that Linformer wants to avoid."""
    return ((q @ k.mT) @ e.T / math.sqrt(q.shape[-1])).softmax(-1) @ (f @ v)


def linformer_one_projection(q, k, v, e, f):
    return linformer(q, k, v, e, e)


def linformer_swapped(q, k, v, e, f):
    return linformer(q, k, v, f, e)


def linformer_not_scaled(q, k, v, e, f):
    return _attend(q, e @ k, f @ v, 1.0)


def linformer_scaled_by_rank(q, k, v, e, f):
    return _attend(q, e @ k, f @ v, e.shape[0] ** -0.5)


def linformer_scaled_by_keys(q, k, v, e, f):
    return _attend(q, e @ k, f @ v, k.shape[-2] ** -0.5)


def linformer_scaled_by_width(q, k, v, e, f):
    return _attend(q, e @ k, f @ v, 1 / q.shape[-1])


def linformer_scaled_by_values(q, k, v, e, f):
    return _attend(q, e @ k, f @ v, v.shape[-1] ** -0.5)


def linformer_weights_projected(q, k, v, e, f):
    """The finished attention map is projected, when all its work has been done."""
    return _attend(q, k, e.T) @ (f @ v)


def linformer_not_projected(q, k, v, e, f):
    return _attend(q, k, v)


def linformer_first_keys(q, k, v, e, f):
    r = e.shape[0]
    return _attend(q, k[..., :r, :], v[..., :r, :])


def linformer_last_keys(q, k, v, e, f):
    r = e.shape[0]
    return _attend(q, k[..., -r:, :], v[..., -r:, :])


def linformer_pooled(q, k, v, e, f):
    def pooled(x):
        rows = x.reshape(-1, *x.shape[-2:]).mT
        return F.adaptive_avg_pool1d(rows, e.shape[0]).mT.reshape(*x.shape[:-2], -1, x.shape[-1])

    return _attend(q, pooled(k), pooled(v))


def linformer_softmaxed_projections(q, k, v, e, f):
    return linformer(q, k, v, e.softmax(-1), f.softmax(-1))


def linformer_over_queries(q, k, v, e, f):
    return (q @ (e @ k).mT / math.sqrt(q.shape[-1])).softmax(-2) @ (f @ v)


def linformer_without_softmax(q, k, v, e, f):
    return (q @ (e @ k).mT / math.sqrt(q.shape[-1])) @ (f @ v)


def linformer_keys_returned(q, k, v, e, f):
    return _attend(q, e @ k, f @ k)


def linformer_single_precision(q, k, v, e, f):
    return linformer(*(x.float() for x in (q, k, v, e, f)))


def linformer_unprotected(q, k, v, e, f):
    weights = torch.exp(q @ (e @ k).mT / math.sqrt(q.shape[-1]))
    return weights / weights.sum(-1, keepdim=True) @ (f @ v)


# ---- performer_features ---------------------------------------------------------------------------------------------


def _features(change):
    """Features `change(w·x, |x|², m)`."""

    def features(x, w):
        return change(x @ w.T, x.square().sum(-1, keepdim=True), w.shape[0])

    return features


performer = _features(lambda s, x2, m: torch.exp(s - x2 / 2) / math.sqrt(m))
no_square = _features(lambda s, x2, m: torch.exp(s) / math.sqrt(m))
whole_square = _features(lambda s, x2, m: torch.exp(s - x2) / math.sqrt(m))
square_added = _features(lambda s, x2, m: torch.exp(s + x2 / 2) / math.sqrt(m))
norm_not_squared = _features(lambda s, x2, m: torch.exp(s - x2.sqrt() / 2) / math.sqrt(m))
mean_square = _features(lambda s, x2, m: torch.exp(s - x2 / 2 / m) / math.sqrt(m))
divided_by_m = _features(lambda s, x2, m: torch.exp(s - x2 / 2) / m)
not_divided = _features(lambda s, x2, m: torch.exp(s - x2 / 2))
root_inside = _features(lambda s, x2, m: torch.exp((s - x2 / 2) / math.sqrt(m)))
by_cosine = _features(lambda s, x2, m: torch.exp(x2 / 2) * torch.cos(s) / math.sqrt(m))
by_bare_cosine = _features(lambda s, x2, m: torch.cos(s) / math.sqrt(m))
by_relu = _features(lambda s, x2, m: torch.relu(s) / math.sqrt(m))
by_elu = _features(lambda s, x2, m: (F.elu(s) + 1) / math.sqrt(m))
by_softmax = _features(lambda s, x2, m: s.softmax(-1))
shifted_by_row = _features(lambda s, x2, m: torch.exp(s - x2 / 2 - s.amax(-1, keepdim=True)) / math.sqrt(m))
shifted_by_all = _features(lambda s, x2, m: torch.exp(s - x2 / 2 - (s - x2 / 2).amax()) / math.sqrt(m))
square_unexponentiated = _features(lambda s, x2, m: (torch.exp(s) - x2 / 2) / math.sqrt(m))


def square_of_w(x, w):
    return torch.exp(x @ w.T - w.square().sum(-1) / 2) / math.sqrt(w.shape[0])


def mean_of_squares(x, w):
    return torch.exp(x @ w.T - x.square().mean(-1, keepdim=True) / 2) / math.sqrt(w.shape[0])


def divided_by_width(x, w):
    return torch.exp(x @ w.T - x.square().sum(-1, keepdim=True) / 2) / math.sqrt(x.shape[-1])


def scaled_inside(x, w):
    return performer(x * x.shape[-1] ** -0.25, w)


def unit_rows(x, w):
    return performer(x, F.normalize(w, dim=-1))


def unit_inputs(x, w):
    return performer(F.normalize(x, dim=-1), w)


def one_square_for_all(x, w):
    return torch.exp(x @ w.T - x.square().sum() / 2) / math.sqrt(w.shape[0])


def features_in_float32(x, w):
    return performer(x.float(), w.float())


def performer_by_squares(x, w):
    """w·x - |x|²/2 = (|w|² - |w - x|²) / 2."""
    apart = (x.unsqueeze(-2) - w).square().sum(-1)
    return torch.exp((w.square().sum(-1) - apart) / 2) * w.shape[0] ** -0.5


def performer_by_loop(x, w):
    columns = [torch.exp((x * row).sum(-1) - (x * x).sum(-1) / 2 - math.log(len(w)) / 2) for row in w]
    return torch.stack(columns, -1)
