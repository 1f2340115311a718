"""`top_k_filter(logits, k)`: Keep the k likeliest tokens of each row, set the others to -inf."""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case
from autograde.exercises.applications.sampling.shared import (
    BEST_FIRST,
    INF,
    ONLY_FILTERED,
    ROW_BY_ROW,
    agrees,
    fits,
    knob,
    kth,
    logits,
    randn,
    right_top_k,
    shuffled,
    warp,
)
from autograde.exercises.shared import logits_processor

exercise = Draft(
    "top_k_filter",
    points=2,
    forbid=["transformers"],
    no_gradient="it is used while a model writes, where nothing is trained",
    fresh=True,
    dtypes=(torch.float64, torch.bfloat16),
    hints=[
        "If you knew the k-th largest logit of a row, which comparison would tell who stays?",
        "`torch.topk(logits, k).values[..., -1:]` is that k-th largest logit, one a row. Mind k > vocabulary.",
        "`logits.masked_fill(logits < kth, -inf)` keeps ties, keeps the order, and leaves the input alone.",
    ],
)


@exercise.cases
def top_k_cases(g):
    masked = randn(g, 2, 6)
    masked[0, 2] = masked[1, 3] = -INF
    ties = shuffled(g, [2.0, 1.0, 1.0, 1.0, 0.0, -1.0])
    yield case(randn(g, 8), 3, label="one row")
    yield case(randn(g, 3, 7) - 2, 2, label="three rows, mostly negative")
    yield case(randn(g, 2, 2, 5), k=4, label="two batch dimensions, by keyword")
    yield case(randn(g, 2, 6), 1, label="k = 1")
    yield case(ties, 2, label="ties at the k-th place")
    yield case(randn(g, 4), 9, label="k larger than the vocabulary")
    yield case(masked, 3, label="-inf among the logits")
    yield case(shuffled(g, [1e4, 500.0, -1e4, 9_000.0, 0.0]), 2, label="huge logits")
    yield case(randn(g, 6, 2).t(), 2, label="not contiguous")
    yield case(randn(g, 1), 1, label="a vocabulary of one")
    yield case(randn(g, 2, 5), 5, label="k equals the vocabulary")
    yield case(masked, 6, label="-inf at the k-th place")
    yield case(randn(g, 2, 1500), 1100, label="k = 1,100 of 1,500")
    yield case(randn(g, 1100, 4), 3, label="1,100 rows")


@exercise.oracle
def hf_top_k(logits, k):
    return warp(logits_processor("TopKLogitsWarper")(k), logits)


exercise.agrees(agrees)

exercise.law(ONLY_FILTERED)


@exercise.law("k tokens stay in each row, more only where they tie with the k-th")
def count_is_k(out, one, call):
    x, k = logits(one), knob(one, "k")
    if not fits(out, one):
        return False
    kept = out > -INF
    least = out.masked_fill(~kept, INF).amin(-1, keepdim=True)
    enough = kept.sum(-1) >= (x > -INF).sum(-1).clamp(max=k)
    return bool(enough.all() and ((out > least).sum(-1) < k).all())


@exercise.law("Tokens with equal logits stay or go together")
def ties_share_fate(out, one, call):
    if not fits(out, one):
        return False
    ordered, order = logits(one).sort(-1)
    kept = (out > -INF).gather(-1, order)
    split = (ordered[..., 1:] == ordered[..., :-1]) & (kept[..., 1:] != kept[..., :-1])
    return not bool(split.any())


exercise.law(BEST_FIRST)

exercise.law(ROW_BY_ROW)


@exercise.mistake(
    "the k least likely tokens are kept", hint="Look at the direction of your sort, or at topk's `largest`."
)
def bottom_k(logits, k):
    kth = logits.topk(min(k, logits.shape[-1]), largest=False).values[..., -1:]
    return logits.masked_fill(logits > kth, -INF)


@exercise.mistake(
    "dropped tokens get the logit 0",
    hint="exp(0) = 1: a logit of 0 is a live token, often the best one. Only exp(-inf) is 0.",
)
def top_k_with_zeros(logits, k):
    return logits.masked_fill(logits < kth(logits, k), 0.0)


@exercise.mistake(
    "ties with the k-th token are dropped",
    hint="Compare every logit with the k-th largest *value*: what equals it stays, as in transformers.",
)
def top_k_by_index(logits, k):
    values, index = logits.topk(min(k, logits.shape[-1]))
    return torch.full_like(logits, -INF).scatter(-1, index, values)


@exercise.mistake("k tokens are kept in the whole batch, not in each row", hint="Sort along the last dimension only.")
def top_k_flattened(logits, k):
    return right_top_k(logits.reshape(-1), k).reshape(logits.shape)


@exercise.mistake(
    "the rows come back sorted",
    hint="Position i of the result is still token i. Use the sorted values only to find the threshold.",
)
def top_k_sorted(logits, k):
    return right_top_k(logits.sort(-1, descending=True).values, k)


@exercise.mistake(
    "only the k largest values are returned",
    hint="The shape stays [..., vocab]: what is dropped becomes -inf, not shorter.",
)
def top_k_values(logits, k):
    return logits.topk(min(k, logits.shape[-1])).values


@exercise.mistake("the k-th token itself is dropped", hint="Keep what is greater than *or equal to* the k-th largest.")
def top_k_strict(logits, k):
    return logits.masked_fill(logits <= kth(logits, k), -INF)


@exercise.mistake("k + 1 tokens are kept", hint="Sorted values count from 0: the k-th largest is at index k - 1.")
def top_k_one_more(logits, k):
    return right_top_k(logits, k + 1)


exercise.mistake("the logits are changed in place", hint="The input stays as it was: masked_fill, not masked_fill_.")(
    lambda logits, k: logits.copy_(right_top_k(logits, k))
)


@exercise.mistake("k - 1 tokens are kept", hint="The k-th largest stays as well.")
def top_k_one_less(logits, k):
    return right_top_k(logits, max(k - 1, 1))


@exercise.mistake(
    "the threshold of the first row is used for all rows", hint="Each row has its own k-th largest: [..., -1:]."
)
def top_k_first_threshold(logits, k):
    return logits.masked_fill(logits < kth(logits, k).reshape(-1)[0], -INF)


@exercise.mistake(
    "where every token stays, the logits themselves are handed back", hint="A new tensor, always: logits.clone()."
)
def top_k_handed_back(logits, k):
    return logits if k >= logits.shape[-1] else right_top_k(logits, k)


@exercise.mistake("dropped tokens get a large negative number", hint="-inf, so that their probability is 0 exactly.")
def top_k_large_negative(logits, k):
    return logits.masked_fill(logits < kth(logits, k), -1e9)


@exercise.mistake("the result is left in float32", hint="Give the result the dtype of the logits.")
def top_k_in_float32(logits, k):
    return right_top_k(logits.float(), k)


@exercise.mistake("a mask of those who stay is returned", hint="The logits of those who stay, and -inf for the others.")
def top_k_mask(logits, k):
    return logits >= kth(logits, k)


@exercise.mistake("k is taken along the first dimension", hint="The vocabulary is the last dimension: dim=-1.")
def top_k_over_rows(logits, k):
    kth = logits.topk(min(k, logits.shape[0]), dim=0).values[-1:]
    return logits.masked_fill(logits < kth, -INF)


@exercise.mistake(
    "the survivors come back as probabilities",
    hint="Leave the survivors' logits alone. The softmax comes once, at the very end.",
)
def top_k_probabilities(logits, k):
    return right_top_k(logits, k).softmax(-1)


@exercise.mistake(
    "the survivors come back as renormalized log-probabilities",
    hint="Sampling would be the same, but the task is to leave the survivors' logits alone.",
)
def top_k_log_probabilities(logits, k):
    return right_top_k(logits, k).log_softmax(-1)


@exercise.mistake("a k larger than the vocabulary is passed on to topk", hint="Use min(k, vocabulary size).")
def top_k_unclamped(logits, k):
    return logits.masked_fill(logits < logits.topk(k).values[..., -1:], -INF)


@exercise.alternative
def top_k_by_sort(logits, k):
    ordered = torch.sort(logits, dim=-1, descending=True).values
    return torch.where(logits >= ordered[..., :k][..., -1].unsqueeze(-1), logits, -INF)


@exercise.alternative
def top_k_by_loop(logits, k):
    out = logits.clone().reshape(-1, logits.shape[-1])
    for row in out:
        bar = sorted(row.tolist())[-k:][0]
        row[row < bar] = -INF
    return out.reshape(logits.shape)
