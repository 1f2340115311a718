"""`scaled_dot_product_attention(q, k, v, mask=None)`

For each query the values' mean, weighted by softmax(q @ k.mT / sqrt(d)) over the keys.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import randn
from autograde.exercises.transformer.attention.shared import (
    LIBRARY,
    always_causal,
    attention,
    mask_after,
    mask_ignored,
    mask_inverted,
    mask_of_the_queries,
    masked,
    mean_of_all,
    nan_gradients,
    nan_rows,
    normalized,
    not_scaled,
    nothing_seen_is_zero,
    over_queries,
    scaled_by,
    scores_of,
    some,
)
from autograde.exercises.transformer.shared import mask_of

exercise = Draft(
    "scaled_dot_product_attention",
    points=4,
    forbid=LIBRARY,
    hints=[
        "Three steps: compare every query with every key, turn each row of scores into weights, average the values.",
        "scores = q @ k.mT / sqrt(d) is [..., n, m]. Where the mask is False they become -inf, before softmax(-1).",
        "weights = scores.masked_fill(~mask, -torch.inf).softmax(-1); a row without any True has become NaN, and "
        "weights.masked_fill(~mask, 0.0) repairs it. Then weights @ v.",
    ],
)


@exercise.cases
def attention_cases(g):
    yield case(randn(g, 3, 4), randn(g, 5, 4), randn(g, 5, 6), label="more keys than queries")
    yield case(randn(g, 2, 4, 4, 8), randn(g, 2, 4, 4, 8), randn(g, 2, 4, 4, 8), some(g, 4, 4), label="a mask")
    hole = some(g, 4, 4)
    hole[2] = False
    yield case(randn(g, 2, 4, 6), randn(g, 2, 4, 6), randn(g, 2, 4, 6), hole, label="a query that may see nothing")
    yield case(
        randn(g, 2, 3, 5, 4),
        randn(g, 2, 3, 5, 4),
        randn(g, 2, 3, 5, 3),
        mask=some(g, 2, 1, 5, 5),
        label="a mask a sequence, the same for all heads",
    )
    yield case(
        randn(g, 2, 3, 3, 4),
        randn(g, 2, 3, 4, 4),
        randn(g, 2, 3, 4, 4),
        mask=some(g, 2, 1, 1, 4),
        label="a padding mask, one row for all queries",
    )
    yield case(randn(g, 1, 5), randn(g, 3, 5), randn(g, 3, 5), label="one query")
    yield case(randn(g, 3, 1, 2), randn(g, 3, 1, 2), randn(g, 3, 1, 2), label="one key")
    yield case(randn(g, 4, 1) * 3, randn(g, 4, 1), randn(g, 4, 2), label="width one")
    yield case(randn(g, 2, 3, 4) * 60, randn(g, 2, 3, 4) * 60, randn(g, 2, 3, 4) * 5, label="scores of thousands")
    yield case(
        randn(g, 2, 3, 4) * 30,
        randn(g, 2, 3, 4) * 30,
        randn(g, 2, 3, 4),
        some(g, 3, 3),
        label="large scores and a mask",
    )
    q, k = randn(g, 3, 4).double() - 90, randn(g, 3, 4).double() + 90
    yield case(q, k, randn(g, 3, 5).double(), some(g, 3, 3), label="scores of -15,000 and a mask")
    yield case(randn(g, 3, 2, 4) * 2, randn(g, 3, 300, 4), randn(g, 3, 300, 7), label="300 keys")
    yield case(
        randn(g, 5, 2, 4).transpose(0, 1),
        randn(g, 5, 2, 4).transpose(0, 1),
        randn(g, 2, 3, 5).mT,
        some(g, 5, 5).T.contiguous().T,
        label="not contiguous",
    )
    yield case(randn(g, 2, 3, 4).double(), randn(g, 2, 3, 4).double(), randn(g, 2, 3, 4).double() - 3, label="float64")
    yield case(
        torch.zeros(4, 4), torch.zeros(4, 4), randn(g, 4, 4), torch.ones(4, 4).tril().bool(), label="zeros, causal"
    )


@exercise.oracle
def torch_attention(q, k, v, mask=None):
    """torch's own in float64. A query that sees nothing gets zeros, as torch has it since 2.5."""
    out = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), attn_mask=mask)
    if mask is not None:
        out = out.masked_fill(~mask.any(-1, keepdim=True), 0.0)
    return out.to(v.dtype)


@exercise.law("Every result lies between the least and the greatest value")
def weighted_mean(out, one, call):
    """Each result lies between the least and the greatest value."""
    v = one.args[2].double()
    seen = out.double()
    mask = mask_of(one)
    if mask is not None:
        rows = mask.any(-1, keepdim=True).expand(*out.shape[:-1], 1)
        seen = torch.where(rows, seen, v.mean(-2, keepdim=True))
    low, high = v.amin(-2, keepdim=True), v.amax(-2, keepdim=True)
    slack = 1e-4 * (1 + v.abs().amax())
    return bool(((seen >= low - slack) & (seen <= high + slack)).all())


@exercise.law("Keys that are all alike share the attention equally")
def alike_keys_share(out, one, call):
    """Keys that are all alike get equal weights: the plain mean of the values that may be seen."""
    q, k, v = one.args[:3]
    mask = mask_of(one)
    allowed = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool) if mask is None else mask
    weights = allowed.double() / allowed.double().sum(-1, keepdim=True).clamp(min=1)
    weights = weights.expand(*q.shape[:-1], k.shape[-2])
    return same(call(q, torch.ones_like(k), v, mask).double(), weights @ v.double())


@exercise.law("What stands at a hidden key doesn't matter")
def hidden_is_unread(out, one, call):
    """New numbers at a key that no query may see change nothing."""
    mask = mask_of(one)
    if mask is None:
        return None
    q, k, v = one.args[:3]
    dead = ~mask.expand(*q.shape[:-1], k.shape[-2]).any(-2)
    if not dead.any():
        mask = mask & (torch.arange(k.shape[-2]) != 0)
        dead = ~mask.expand(*q.shape[:-1], k.shape[-2]).any(-2)
        out = call(q, k, v, mask)
    other = call(q, torch.where(dead[..., None], k.flip(-1) + 2, k), torch.where(dead[..., None], 9 - v, v), mask)
    return same(other, out)


@exercise.law("q and k four times as wide: the divisor grows by two")
def sharper(out, one, call):
    """The divisor is the root of q's width: q and k four times as wide (padded with zeros) halve every score."""
    q, k, v = one.args[:3]
    wide = [torch.cat([t, torch.zeros(*t.shape[:-1], 3 * t.shape[-1], dtype=t.dtype)], -1) for t in (2 * q, k)]
    return same(call(*wide, v, mask_of(one)), out)


@exercise.law("A query that may see nothing gets zeros")
def seeing_nothing_gives_zeros(out, one, call):
    q, k, v = one.args[:3]
    nothing = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool)
    nothing[-1] = False
    return bool((call(q, k, v, nothing)[..., -1, :] == 0).all())


exercise.law("The result has the dtype of the input")(keeps_dtype)

exercise.mistake(
    "the scores aren't divided by sqrt(d)",
    hint="Dot products of vectors of width d grow like sqrt(d). What does the formula divide by?",
)(not_scaled)

exercise.mistake(
    "the scores are divided by d instead of its root",
    hint="The spread of a sum of d terms grows like sqrt(d), not like d.",
)(scaled_by(lambda q, k, v: 1 / q.shape[-1]))

exercise.mistake("the scores are multiplied by sqrt(d)", hint="Divide, so that scores stay small.")(
    scaled_by(lambda q, k, v: math.sqrt(q.shape[-1]))
)

exercise.mistake(
    "the scores are divided by the root of the number of keys",
    hint="d is the width of one query, q.shape[-1], not the number of tokens.",
)(scaled_by(lambda q, k, v: 1 / math.sqrt(k.shape[-2])))

exercise.mistake(
    "the scores are divided by the root of the values' width",
    hint="Values have a width of their own. The dot product sums over q.shape[-1] terms.",
)(scaled_by(lambda q, k, v: 1 / math.sqrt(v.shape[-1])))


@exercise.mistake(
    "the softmax's result is divided by sqrt(d), not the scores",
    hint="Scale first, then softmax: the weights of a query have to sum to 1.",
)
def scaled_after(q, k, v, mask=None):
    weights = nothing_seen_is_zero((scores_of(q, k, mask) * math.sqrt(q.shape[-1])).softmax(-1))
    return weights / math.sqrt(q.shape[-1]) @ v


exercise.mistake(
    "the softmax runs over the queries",
    hint="Each query shares out its attention over the keys: the last dimension of q @ k.mT.",
)(over_queries)

exercise.mistake(
    "one softmax runs over all queries and keys together",
    hint="Each query has weights of its own that sum to 1: softmax over the last dimension.",
)(normalized(lambda s: s.flatten(-2).softmax(-1).view_as(s)))

exercise.mistake(
    "the softmax runs over dimension 1, whatever that is", hint="Leading dimensions vary. Count from the end: dim=-1."
)(normalized(lambda s: s.softmax(1)))

exercise.mistake("there is no softmax", hint="Scores become weights by softmax.")(
    normalized(lambda s: s.masked_fill(s.isinf(), 0))
)

exercise.mistake(
    "the scores are divided by their sum instead of a softmax",
    hint="Scores may be negative, and their sum near zero. Softmax takes exponentials first.",
)(normalized(lambda s: s.masked_fill(s.isinf(), 0) / s.masked_fill(s.isinf(), 0).sum(-1, True)))

exercise.mistake(
    "exp is taken without protection, and overflows",
    hint="exp(1000) is inf. torch.softmax subtracts the maximum first.",
)(normalized(lambda s: s.exp() / s.exp().sum(-1, True)))

exercise.mistake(
    "the greatest score of all is subtracted before exp, not each query's own",
    hint="A query whose scores all lie far below another's has nothing but zeros left: amax(-1, keepdim=True).",
)(normalized(lambda s: (s - s.amax()).exp() / (s - s.amax()).exp().sum(-1, True)))

exercise.mistake(
    "each score goes through a sigmoid",
    hint="The keys compete: the weights of a query sum to 1. That is what softmax does.",
)(normalized(torch.sigmoid))


@exercise.mistake(
    "the vectors are brought to length 1 first", hint="A dot product, not a cosine: a long key may shout."
)
def cosine(q, k, v, mask=None):
    scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return nothing_seen_is_zero(scores.softmax(-1)) @ v


@exercise.mistake("only the best key counts", hint="Softmax, not argmax: all keys have their share.")
def hardest(q, k, v, mask=None):
    """Only the best key, as a dictionary would."""
    scores = scores_of(q, k, mask)
    seen = 1.0 if mask is None else mask.any(-1, keepdim=True).to(v.dtype)
    return F.one_hot(scores.argmax(-1), k.shape[-2]).to(v.dtype) @ v * seen


exercise.mistake("the mask is ignored", hint="Where the mask is False, the score becomes -inf.")(mask_ignored)

exercise.mistake("the mask is inverted", hint="Here True means: may attend.")(mask_inverted)

exercise.mistake(
    "the mask is applied after the softmax",
    hint="Then the weights no longer sum to 1. Hidden keys must not take part in the softmax.",
)(mask_after)

exercise.mistake(
    "the mask is added to the scores as 0 and 1",
    hint="Hidden keys need a score of -inf. Adding 1 to the others is no mask.",
)(masked(lambda s, m: s + m))

exercise.mistake(
    "hidden keys get the score 0, or nearly 0",
    hint="exp(0) is 1, and so is exp(1e-9): an ordinary score. You want -inf.",
)(masked(lambda s, m: s * m))

exercise.mistake("hidden keys only lose 10 points", hint="A score of some hundreds doesn't mind. Use -inf.")(
    masked(lambda s, m: s - 10.0 * (~m))
)

exercise.mistake("hidden keys get the score -10,000", hint="What may be seen can have a lower score. Use -inf.")(
    masked(lambda s, m: s.masked_fill(~m, -1e4))
)

exercise.mistake(
    "the mask hides queries from keys, not keys from queries",
    hint="The mask's rows are queries, its columns keys: as it stands it fits q @ k.mT.",
)(mask_of_the_queries)

exercise.mistake(
    "all sequences use the first one's mask",
    hint="The mask broadcasts by itself: masked_fill(~mask, …) needs no index.",
)(masked(lambda s, m: s.masked_fill(~m.flatten(0, -3)[0] if m.dim() > 2 else ~m, -torch.inf)))

exercise.mistake(
    "a query that may see nothing gets NaN", hint="Softmax over nothing but -inf is 0/0. The docstring asks for zeros."
)(nan_rows)

exercise.mistake(
    "a query that may see nothing gets the mean of all values",
    hint="With the same finite number everywhere the softmax is uniform. The docstring asks for zeros.",
)(mean_of_all)

exercise.mistake(
    "the numbers are right, but a query that may see nothing makes gradients NaN",
    hint="Adding -inf leaves NaN in the softmax, and its gradient. masked_fill on the scores lets none through.",
)(nan_gradients)

exercise.mistake("a causal mask is always on", hint="Hide only what `mask` hides.")(always_causal)


@exercise.mistake("keys ask and queries answer", hint="q @ k.mT: rows are queries.")
def keys_asked(q, k, v, mask=None):
    """k @ q.T, where the shapes let it pass."""
    square = q.shape == k.shape
    return attention(k, q, v, mask) if square else attention(q, k, v, mask)


@exercise.mistake(
    "the keys are averaged instead of the values", hint="Keys are for comparing; what is handed on are the values."
)
def keys_returned(q, k, v, mask=None):
    return attention(q, k, k, mask)


@exercise.mistake(
    "everything is computed in float32, also for float64", hint="Don't cast: the result has the dtype of the input."
)
def single_precision(q, k, v, mask=None):
    return attention(q.float(), k.float(), v.float(), mask)


exercise.alternative(attention)


@exercise.alternative
def attention_by_loop(q, k, v, mask=None):
    """One query at a time, over the keys that it may see."""
    full = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool) if mask is None else mask
    full = full.expand(*q.shape[:-1], k.shape[-2])
    out = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=v.dtype)
    for place in torch.cartesian_prod(*[torch.arange(n) for n in q.shape[:-1]]).view(-1, q.dim() - 1).tolist():
        *lead, i = place
        seen = full[(*lead, i)]
        if seen.any():
            keys, values = k[tuple(lead)][seen], v[tuple(lead)][seen]
            weights = torch.softmax((keys * q[(*lead, i)]).sum(-1) * q.shape[-1] ** -0.5, 0)
            out[(*lead, i)] = (weights[:, None] * values).sum(0)
    return out


@exercise.alternative
def attention_by_einsum(q, k, v, mask=None):
    scores = torch.einsum("...id,...jd->...ji", q.double(), k.double()) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -1e30).mT
    weights = torch.exp(scores - scores.amax(-2, keepdim=True))
    if mask is not None:
        weights = weights * mask.mT
    weights = weights / weights.sum(-2, keepdim=True).clamp(min=1e-300)
    return torch.einsum("...ji,...jv->...iv", weights, v.double()).to(v.dtype)
