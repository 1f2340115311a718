"""Wrong ways to filter logits, as complete implementations, and a few right ones that look different."""

from __future__ import annotations

import math

import torch

INF = math.inf


# ---- apply_temperature ----------------------------------------------------------------------------------------------

def right_greedy(logits):
    best = logits.argmax(-1, keepdim=True)
    return torch.full_like(logits, -INF).scatter(-1, best, logits.gather(-1, best))


def _with_greedy(warm):
    """A mistake at temperatures above 0, with 0 treated rightly."""
    def apply_temperature(logits, temperature):
        return right_greedy(logits) if temperature == 0 else warm(logits, temperature)
    return apply_temperature


def _with_warm(cold):
    """A mistake at temperature 0, with those above it treated rightly."""
    def apply_temperature(logits, temperature):
        return logits / temperature if temperature > 0 else cold(logits)
    return apply_temperature


multiplied = _with_greedy(lambda x, t: x * t)
cooled_probabilities = _with_greedy(lambda x, t: x.softmax(-1) / t)
tempered_probabilities = _with_greedy(lambda x, t: (x / t).softmax(-1))
tempered_log_probabilities = _with_greedy(lambda x, t: (x / t).log_softmax(-1))
divided_by_zero = _with_warm(lambda x: x / 0)
nearly_zero = _with_warm(lambda x: x / 1e-6)
all_tied_best = _with_warm(lambda x: x.masked_fill(x < x.amax(-1, keepdim=True), -INF))
zero_is_off = _with_warm(torch.clone)
greedy_over_batch = _with_warm(lambda x: right_greedy(x.reshape(-1)).reshape(x.shape))
one_hot = _with_warm(lambda x: torch.zeros_like(x).scatter(-1, x.argmax(-1, keepdim=True), 1.0))


def temperature_by_reciprocal(logits, temperature):
    if temperature:
        return logits.mul(1 / temperature)
    index = torch.arange(logits.shape[-1])
    return torch.where(index == logits.argmax(-1, keepdim=True), logits, -INF)


def temperature_by_loop(logits, temperature):
    out = logits.clone().reshape(-1, logits.shape[-1])
    for row in out:
        if temperature:
            row /= temperature
        else:
            best = max(range(len(row)), key=row.tolist().__getitem__)
            row[torch.arange(len(row)) != best] = -INF
    return out.reshape(logits.shape)


# ---- top_k_filter ---------------------------------------------------------------------------------------------------

def _kth(logits, k):
    return logits.topk(min(k, logits.shape[-1])).values[..., -1:]


def right_top_k(logits, k):
    return logits.masked_fill(logits < _kth(logits, k), -INF)


def bottom_k(logits, k):
    kth = logits.topk(min(k, logits.shape[-1]), largest=False).values[..., -1:]
    return logits.masked_fill(logits > kth, -INF)


def top_k_with_zeros(logits, k):
    return logits.masked_fill(logits < _kth(logits, k), 0.0)


def top_k_by_index(logits, k):
    values, index = logits.topk(min(k, logits.shape[-1]))
    return torch.full_like(logits, -INF).scatter(-1, index, values)


def top_k_flattened(logits, k):
    return right_top_k(logits.reshape(-1), k).reshape(logits.shape)


def top_k_sorted(logits, k):
    return right_top_k(logits.sort(-1, descending=True).values, k)


def top_k_values(logits, k):
    return logits.topk(min(k, logits.shape[-1])).values


def top_k_strict(logits, k):
    return logits.masked_fill(logits <= _kth(logits, k), -INF)


def top_k_one_more(logits, k):
    return right_top_k(logits, k + 1)


def top_k_over_rows(logits, k):
    kth = logits.topk(min(k, logits.shape[0]), dim=0).values[-1:]
    return logits.masked_fill(logits < kth, -INF)


def top_k_probabilities(logits, k):
    return right_top_k(logits, k).softmax(-1)


def top_k_log_probabilities(logits, k):
    return right_top_k(logits, k).log_softmax(-1)


def top_k_unclamped(logits, k):
    return logits.masked_fill(logits < logits.topk(k).values[..., -1:], -INF)


def top_k_by_sort(logits, k):
    ordered = torch.sort(logits, dim=-1, descending=True).values
    return torch.where(logits >= ordered[..., :k][..., -1].unsqueeze(-1), logits, -INF)


def top_k_by_loop(logits, k):
    out = logits.clone().reshape(-1, logits.shape[-1])
    for row in out:
        bar = sorted(row.tolist())[-k:][0]
        row[row < bar] = -INF
    return out.reshape(logits.shape)


# ---- top_p_filter ---------------------------------------------------------------------------------------------------

def _softmax(logits):
    return logits.softmax(-1)


def _nucleus(drops, fill=-INF, best_stays=True, likeliest_first=True, shares=_softmax, one_keeps_all=True):
    """A top-p filter whose decision is `drops(sums, shares, p)` on rows sorted from the likeliest token down."""
    def top_p_filter(logits, p):
        if p >= 1 and one_keeps_all:
            return logits.clone()
        ordered, order = logits.sort(-1, descending=likeliest_first)
        parts = shares(ordered)
        drop = drops(parts.cumsum(-1), parts, p)
        if best_stays:
            drop[..., 0] = False
        return logits.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), fill)
    return top_p_filter


def _before(sums):
    """What the tokens before each one hold."""
    return torch.cat([torch.zeros_like(sums[..., :1]), sums[..., :-1]], -1)


def _reached(sums, shares, p):
    return _before(sums) >= p


right_top_p = _nucleus(_reached)
crossing_dropped = _nucleus(lambda sums, shares, p: sums > p, best_stays=False)
crossing_dropped_best_kept = _nucleus(lambda sums, shares, p: sums > p)
one_too_many = _nucleus(lambda sums, shares, p: _before(_before(sums)) >= p)
one_too_many_at_equality = _nucleus(lambda sums, shares, p: _before(sums) > p)
threshold_of_p = _nucleus(lambda sums, shares, p: shares < p)
least_likely_first = _nucleus(_reached, likeliest_first=False)
logits_summed = _nucleus(_reached, shares=torch.clone)
top_p_with_zeros = _nucleus(_reached, fill=0.0)
one_is_cut = _nucleus(_reached, one_keeps_all=False)


def unsorted(logits, p):
    return logits.masked_fill(_before(logits.softmax(-1).cumsum(-1)) >= p, -INF) if p < 1 else logits.clone()


def top_p_sorted(logits, p):
    return right_top_p(logits.sort(-1, descending=True).values, p)


def mask_gathered(logits, p):
    ordered, order = logits.sort(-1, descending=True)
    dropped = (right_top_p(ordered, p) == -INF) & (ordered > -INF)
    return logits.masked_fill(dropped.gather(-1, order), -INF)


def top_p_flattened(logits, p):
    return right_top_p(logits.reshape(-1), p).reshape(logits.shape)


def top_p_in_float32(logits, p):
    return right_top_p(logits.float(), p)


def top_p_probabilities(logits, p):
    return right_top_p(logits, p).softmax(-1)


def top_p_log_probabilities(logits, p):
    return right_top_p(logits, p).log_softmax(-1)


def top_p_by_threshold(logits, p):
    """The ascending way: a token goes where it and all less likely ones hold no more than 1 - p."""
    if p >= 1:
        return logits.clone()
    ordered, order = torch.sort(logits)
    drop = ordered.softmax(-1).cumsum(-1) <= 1 - p
    drop[..., -1] = False
    return logits.masked_fill(drop.gather(-1, order.argsort(-1)), -INF)


def top_p_by_loop(logits, p):
    rows = logits.reshape(-1, logits.shape[-1])
    out = torch.full_like(rows, -INF) if p < 1 else rows.clone()
    for row, probs, kept in zip(rows, rows.float().softmax(-1).tolist(), out, strict=True):
        total = 0.0
        for token in sorted(range(len(probs)), key=probs.__getitem__, reverse=True):
            kept[token] = row[token]
            total += probs[token]
            if total >= p:
                break
    return out.reshape(logits.shape)


# ---- min_p_filter ---------------------------------------------------------------------------------------------------

def _bar(drops, fill=-INF):
    """A min-p filter whose decision is `drops(probs, best, min_p)`."""
    def min_p_filter(logits, min_p):
        probs = logits.softmax(-1)
        return logits.masked_fill(drops(probs, probs.amax(-1, keepdim=True), min_p), fill)
    return min_p_filter


right_min_p = _bar(lambda probs, best, min_p: probs < min_p * best)
absolute_min_p = _bar(lambda probs, best, min_p: probs < min_p)
absolute_min_p_best_kept = _bar(lambda probs, best, min_p: (probs < min_p) & (probs < best))
min_p_strict = _bar(lambda probs, best, min_p: probs <= min_p * best)
min_p_inverted = _bar(lambda probs, best, min_p: probs >= min_p * best)
min_p_with_zeros = _bar(lambda probs, best, min_p: probs < min_p * best, fill=0.0)
min_p_over_batch = _bar(lambda probs, best, min_p: probs < min_p * best.max())


def min_p_on_logits(logits, min_p):
    return logits.masked_fill(logits < min_p * logits.amax(-1, keepdim=True), -INF)


def min_p_as_top_p(logits, min_p):
    return right_top_p(logits, 1 - min_p)


def min_p_subtracted(logits, min_p):
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) - min_p, -INF)


def min_p_in_float32(logits, min_p):
    return right_min_p(logits.float(), min_p)


def min_p_probabilities(logits, min_p):
    return right_min_p(logits, min_p).softmax(-1)


def min_p_log_probabilities(logits, min_p):
    return right_min_p(logits, min_p).log_softmax(-1)


def min_p_by_log(logits, min_p):
    """A ratio of probabilities is a difference of logits."""
    gap = math.log(min_p) if min_p else -INF
    return torch.where(logits >= logits.amax(-1, keepdim=True) + gap, logits, -INF)


def min_p_by_loop(logits, min_p):
    out = logits.clone().reshape(-1, logits.shape[-1])
    for row in out:
        odds = (row - row.max()).exp()
        row[odds < min_p] = -INF
    return out.reshape(logits.shape)
