"""What exercises of the chapter sampling share."""

from __future__ import annotations

import torch

from autograde.exercise import Law, same
from autograde.judging.comparing import compare

INF = torch.inf


def warp(warper, logits):
    rows = logits.double().reshape(-1, logits.shape[-1])
    return warper(None, rows).reshape(logits.shape).to(logits.dtype)


def randn(generator, *shape, scale=1.5):
    return torch.randn(*shape, generator=generator) * scale


def shuffled(generator, values):
    return torch.tensor(values)[torch.randperm(len(values), generator=generator)]


def many_rows(generator, x, n):
    """n rows, each one of x with its tokens in another order and a constant added."""
    rows = x[torch.randint(len(x), (n,), generator=generator)]
    order = torch.rand(rows.shape, generator=generator).argsort(-1)
    return rows.gather(-1, order) + torch.randn(n, 1, generator=generator)


def strided(x):
    """The same values, not contiguous."""
    return torch.stack([x, x], -1)[..., 0]


def logits(one):
    return one.args[0] if one.args else one.kwargs["logits"]


def knob(one, name):
    return one.args[1] if len(one.args) > 1 else one.kwargs[name]


def fits(out, one):
    """Whether the result can be set beside the logits at all."""
    return isinstance(out, torch.Tensor) and out.shape == logits(one).shape and out.is_floating_point()


def agrees(expected, got, one):
    """The same values in the dtype of the logits; bfloat16 holds three digits."""
    if isinstance(got, torch.Tensor) and got.dtype != expected.dtype:
        return f"the result should be {expected.dtype}, as the logits are, not {got.dtype}"
    digits = 4e-2 if logits(one).dtype is torch.bfloat16 else 1e-4
    mismatch = compare(expected, got, digits, digits / 10)
    return mismatch.message if mismatch else True


def only_filtered(out, one, call):
    x = logits(one)
    if not fits(out, one):
        return "the result has another shape or kind than the logits"
    if out.dtype != x.dtype:
        return f"{x.dtype} went in, {out.dtype} came out"
    return bool(((out == x) | (out == -INF)).all()) or "an entry is neither its logit nor -inf"


def best_first(out, one, call):
    """No dropped token is likelier than a kept one."""
    if not fits(out, one):
        return False
    x, kept = logits(one), out > -INF
    return bool((x.masked_fill(kept, -INF).amax(-1) <= x.masked_fill(~kept, INF).amin(-1)).all())


def row_by_row(out, one, call):
    x = logits(one)
    if x.dim() < 2:
        return None
    rows, name = x.reshape(-1, x.shape[-1]), next(iter(one.kwargs), None)
    knob = {name: one.kwargs[name]} if name else {}
    some = torch.linspace(0, len(rows) - 1, min(len(rows), 8)).long()
    alone = torch.stack([call(row, *one.args[1:], **knob) for row in rows[some]])
    return fits(out, one) and same(out.reshape(rows.shape)[some], alone)


ONLY_FILTERED = Law("Kept logits are unchanged, the others are -inf, and the dtype stays", only_filtered)

BEST_FIRST = Law("No dropped token is likelier than a kept one", best_first)

ROW_BY_ROW = Law("Each row is filtered by itself", row_by_row)


def right_greedy(logits):
    best = logits.argmax(-1, keepdim=True)
    return torch.full_like(logits, -INF).scatter(-1, best, logits.gather(-1, best))


def kth(logits, k):
    return logits.topk(min(k, logits.shape[-1])).values[..., -1:]


def right_top_k(logits, k):
    return logits.masked_fill(logits < kth(logits, k), -INF)


def softmax(logits):
    return logits.softmax(-1)


def nucleus(drops, fill=-INF, best_stays=True, likeliest_first=True, shares=softmax, one_keeps_all=True):
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


def before(sums):
    """What the tokens before each one hold."""
    return torch.cat([torch.zeros_like(sums[..., :1]), sums[..., :-1]], -1)


def reached(sums, shares, p):
    return before(sums) >= p


right_top_p = nucleus(reached)


def bar(drops, fill=-INF):
    """A min-p filter whose decision is `drops(probs, best, min_p)`."""

    def min_p_filter(logits, min_p):
        probs = logits.softmax(-1)
        return logits.masked_fill(drops(probs, probs.amax(-1, keepdim=True), min_p), fill)

    return min_p_filter


right_min_p = bar(lambda probs, best, min_p: probs < min_p * best)
