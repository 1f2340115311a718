"""`grouped_query_attention(q, k, v, mask=None)`

Attention in which groups of query heads share a head of keys and values.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import randn
from autograde.exercises.transformer.efficient_attention.shared import LIBRARY, attention
from autograde.exercises.transformer.shared import mask_of

exercise = Draft(
    "grouped_query_attention",
    points=4,
    forbid=LIBRARY,
    hints=[
        "With g query heads for each key head, which key head belongs to query head h? Draw it for 6 and 2.",
        "g = heads // kv_heads. k.repeat_interleave(g, dim=-3) brings key heads into the queries' order, and then it "
        "is ordinary attention. (Without copies: q.unflatten(-3, (kv_heads, g)).)",
        "if heads % kv_heads: raise ValueError(…). k, v = (t.repeat_interleave(heads // kv_heads, -3) for t in "
        "(k, v)). Then scores, mask, softmax, nan_to_num(0), @ v.",
    ],
)


def _some(g, *shape):
    """A mask that lets each query see the first key, and others by chance."""
    mask = torch.rand(shape, generator=g) < 0.5
    mask[..., 0] = True
    return mask


def _low(g, far=256.0):
    """Scores near -far² / 4, some of them hidden: a mask that isn't -inf may be the highest of all."""
    q, k, v = _heads(g, (2,), 4, 2, 3, 5, 4)
    q, k = torch.zeros_like(q), torch.zeros_like(k)
    q[..., 0] = far / 2
    k[..., 0] = -far - torch.rand(k.shape[:-1], generator=g).argsort() / 64
    return q, k, v


def _heads(g, lead, heads, kv_heads, n, m, d, wide=None):
    return randn(g, *lead, heads, n, d), randn(g, *lead, kv_heads, m, d), randn(g, *lead, kv_heads, m, wide or d)


@exercise.cases
def grouped_cases(g):
    yield case(*_heads(g, (), 4, 2, 3, 5, 4), label="four heads share two")
    yield case(*_heads(g, (2,), 6, 2, 4, 5, 3, wide=7), label="six heads share two, a batch, wider values")
    yield case(*_heads(g, (2,), 6, 3, 3, 4, 4, wide=2), label="six heads share three, narrower values")
    yield case(*_heads(g, (2, 3), 4, 2, 2, 3, 4), label="two batch dimensions")
    yield case(*_heads(g, (2,), 4, 1, 3, 3, 4), label="one key head for all (MQA)")
    yield case(*_heads(g, (2,), 3, 3, 4, 4, 2), label="a key head each (ordinary)")
    yield case(*_heads(g, (), 1, 1, 2, 3, 4), label="one head")
    yield case(*_heads(g, (2,), 9, 3, 1, 6, 4), label="one query, nine heads share three")
    yield case(*_heads(g, (), 4, 2, 3, 1, 1), label="one key, width one")
    yield case(*_heads(g, (2,), 4, 2, 4, 4, 4), torch.ones(4, 4).tril().bool(), label="a causal mask")
    yield case(*_heads(g, (2,), 4, 2, 3, 5, 4), mask=_some(g, 2, 1, 3, 5), label="a mask a sequence")
    yield case(*_heads(g, (2,), 4, 2, 3, 5, 4), mask=_some(g, 2, 4, 3, 5), label="a mask a head")
    hole = _some(g, 4, 4)
    hole[1] = False
    yield case(*_heads(g, (2,), 6, 2, 4, 4, 4), hole, label="a query that may see nothing")
    q, k, v = _heads(g, (2,), 4, 2, 3, 4, 4)
    yield case(q * 60, k * 60, v * 5, label="scores of thousands")
    yield case(*_low(g), mask=_some(g, 3, 5), label="scores far below zero, and a mask")
    yield case(*_low(g, 2.0**17), mask=_some(g, 3, 5), label="scores lower than any number one would think of")
    yield case(*_heads(g, (), 6, 2, 130, 150, 3, wide=2), mask=_some(g, 130, 150), label="a long text")
    yield case(
        *(x.transpose(-3, -2).contiguous().transpose(-3, -2) for x in _heads(g, (2,), 4, 2, 3, 3, 4)),
        label="not contiguous",
    )
    yield case(*_heads(g, (2,), 5, 2, 3, 4, 4), label="five heads can't share two")
    yield case(*_heads(g, (), 2, 4, 3, 4, 4), label="fewer query heads than key heads")


@exercise.oracle
def torch_grouped(q, k, v, mask=None):
    """torch's own with enable_gqa, in float64; zeros for a query that sees nothing."""
    if q.shape[-3] % k.shape[-3]:
        return "ValueError"
    lead = q.shape[:-3]
    q4, k4, v4 = (x.double().reshape(-1, *x.shape[-3:]) for x in (q, k, v))
    full = None if mask is None else mask.expand(*q.shape[:-1], k.shape[-2]).reshape(-1, *q.shape[-3:-1], k.shape[-2])
    out = F.scaled_dot_product_attention(q4, k4, v4, attn_mask=full, enable_gqa=True)
    out = out.reshape(*lead, *out.shape[1:])
    return (out if mask is None else out.masked_fill(~mask.any(-1, keepdim=True), 0.0)).to(q.dtype)


@exercise.probe
def answer_or_refusal(implementation, q, k, v, mask=None):
    """The result, or the word "ValueError" where one is raised."""
    try:
        return implementation(q, k, v, mask)
    except ValueError:
        return "ValueError"


@exercise.law("The last key head speaks to the last group alone")
def groups_hear_their_own(out, one, call):
    """New numbers in the last key head change the last group's results, and no other's."""
    q, k, v = one.args[:3]
    if isinstance(out, str):
        return None
    group = q.shape[-3] // k.shape[-3]
    other = v.clone()
    other[..., -1, :, :] += 4.0
    wanted = call(q, k, v)
    wanted[..., -group:, :, :] += 4.0
    return same(call(q, k, other), wanted, rtol=1e-3, atol=1e-4)


@exercise.law("With copied key heads it is ordinary attention")
def copies_change_nothing(out, one, call):
    q, k, v = one.args[:3]
    if isinstance(out, str):
        return None
    group = q.shape[-3] // k.shape[-3]
    return same(call(q, *(torch.repeat_interleave(x, group, -3) for x in (k, v)), mask_of(one)), out)


@exercise.law("What stands at a hidden key doesn't matter")
def hidden_is_unread(out, one, call):
    """New numbers at a key that no query may see change nothing."""
    q, k, v = one.args[:3]
    if isinstance(out, str) or k.shape[-2] < 2:
        return None
    mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool)
    mask[:, -1] = False
    other_k, other_v = k.clone(), v.clone()
    other_k[..., -1, :] += 2.0
    other_v[..., -1, :] -= 9.0
    return same(call(q, other_k, other_v, mask), call(q, k, v, mask))


@exercise.law("A query that may see nothing gets zeros")
def seeing_nothing_gives_zeros(out, one, call):
    q, k, v = one.args[:3]
    if isinstance(out, str):
        return None
    nothing = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool)
    nothing[-1] = False
    return bool((call(q, k, v, nothing)[..., -1, :] == 0).all())


@exercise.law("Heads that can't be shared out are a ValueError")
def uneven_is_refused(out, one, call):
    q, k, v = one.args[:3]
    more = k.shape[-3] * 2 + 1 if k.shape[-3] > 1 else None
    return call(q[..., :1, :, :].expand(*q.shape[:-3], more, *q.shape[-2:]), k, v) == "ValueError" if more else None


@exercise.law("The result has the dtype of the input")
def result_keeps_dtype(out, one, call):
    return None if isinstance(out, str) else keeps_dtype(out, one, call)


def _in_turn(x, group):
    return torch.cat([x] * group, -3)


def _group(q, k):
    if q.shape[-3] % k.shape[-3]:
        raise ValueError(f"{q.shape[-3]} query heads can't share {k.shape[-3]} key heads")
    return q.shape[-3] // k.shape[-3]


def _shared(keys, values=None, attend=attention):
    """Attention after `keys(k, group)` and `values(v, group)` have made as many key heads as query heads."""

    def grouped_attention(q, k, v, mask=None):
        group = _group(q, k)
        return attend(q, keys(k, group), (values or keys)(v, group), mask)

    return grouped_attention


exercise.mistake(
    "key heads are dealt out in turn, like cards",
    hint="Query heads 0 to g - 1 share key head 0: each key head is repeated g times in a row.",
)(_shared(_in_turn))


def _in_groups(x, group):
    return x.repeat_interleave(group, -3)


exercise.mistake("all query heads listen to the first key head", hint="Query head h listens to key head h // g.")(
    _shared(lambda x, group: _in_groups(x[..., :1, :, :], group * x.shape[-3]))
)

exercise.mistake("all query heads listen to the last key head", hint="Query head h listens to key head h // g.")(
    _shared(lambda x, group: _in_groups(x[..., -1:, :, :], group * x.shape[-3]))
)

exercise.mistake(
    "the key heads are averaged",
    hint="Averaging is how a trained model is *converted*. Here query head h listens to head h // g.",
)(_shared(lambda x, group: _in_groups(x.mean(-3, keepdim=True), group * x.shape[-3])))

exercise.mistake("the key heads are handed out from the back", hint="Query head h listens to key head h // g.")(
    _shared(lambda x, group: _in_groups(x.flip(-3), group))
)

exercise.mistake("keys are shared in groups, values in turn", hint="Keys and values go together: treat them alike.")(
    _shared(_in_groups, _in_turn)
)

exercise.mistake("values are shared in groups, keys in turn", hint="Keys and values go together: treat them alike.")(
    _shared(_in_turn, _in_groups)
)

grouped = _shared(_in_groups)


@exercise.mistake("the queries of a group are averaged", hint="Each query head keeps its own question.")
def queries_averaged(q, k, v, mask=None):
    group = _group(q, k)
    return grouped(_in_groups(q.unflatten(-3, (-1, group)).mean(-3), group), k, v, mask)


@exercise.mistake("the scores of a group are added up", hint="Each query head has weights of its own.")
def scores_added(q, k, v, mask=None):
    group = _group(q, k)
    return grouped(_in_groups(q.unflatten(-3, (-1, group)).sum(-3), group), k, v, mask)


exercise.mistake("the scores aren't divided by sqrt(d)", hint="Scale as in ordinary attention.")(
    _shared(_in_groups, attend=lambda q, k, v, mask: attention(q, k, v, mask, 1.0))
)

exercise.mistake("the scores are divided by the root of the values' width", hint="They sum over q.shape[-1] products.")(
    _shared(_in_groups, attend=lambda q, k, v, mask: attention(q, k, v, mask, v.shape[-1] ** -0.5))
)

exercise.mistake("the width is taken from all heads together", hint="The root of one head's width, q.shape[-1].")(
    _shared(_in_groups, attend=lambda q, k, v, mask: attention(q, k, v, mask, (q.shape[-1] * q.shape[-3]) ** -0.5))
)


def _attend_with(softmax):
    """Attention by `softmax(scores, mask)`, over heads that are shared as they should be."""

    def attend(q, k, v, mask=None):
        return softmax(q @ k.mT / math.sqrt(q.shape[-1]), mask) @ v

    return _shared(_in_groups, attend=attend)


def _hidden(scores, mask):
    return scores if mask is None else scores.masked_fill(~mask, -torch.inf)


exercise.mistake("the softmax runs over the queries", hint="Over the keys: dim=-1.")(
    _attend_with(lambda s, m: _hidden(s, m).softmax(-2).nan_to_num(0.0))
)

exercise.mistake("the mask is ignored", hint="Where the mask is False, a score is -inf.")(
    _attend_with(lambda s, m: s.softmax(-1))
)

exercise.mistake("the mask is added to the scores as 0 and 1", hint="Where the mask is False, a score is -inf.")(
    _attend_with(lambda s, m: (s if m is None else s + m).softmax(-1))
)


def _not_that_low(scores, mask, low):
    if mask is None:
        return scores.softmax(-1)
    return scores.masked_fill(~mask, low).softmax(-1) * mask


for low, told in ((-1e4, "-10,000"), (-1e9, "-1,000,000,000")):
    exercise.mistake(
        f"hidden scores become {told}, and visible ones lie below that",
        hint="No number is low enough for every score but -inf.",
    )(_attend_with(functools.partial(_not_that_low, low=low)))


@exercise.mistake(
    "the first head's mask is used for all heads", hint="The mask may have heads of its own: [heads, n, m]."
)
def first_head_masks_all(q, k, v, mask=None):
    return grouped(q, k, v, mask[..., :1, :, :] if mask is not None and mask.dim() > 2 else mask)


@exercise.mistake("the first sequence's mask is used for all", hint="The mask may have the batch dimensions, too.")
def first_sequence_masks_all(q, k, v, mask=None):
    return grouped(q, k, v, mask[:1] if mask is not None and mask.dim() > 3 else mask)


exercise.mistake("the mask is inverted", hint="True means: may attend.")(
    _attend_with(lambda s, m: _hidden(s, None if m is None else ~m).softmax(-1).nan_to_num(0.0))
)

exercise.mistake("the mask is applied after the softmax", hint="Hidden keys must not take part in the softmax.")(
    _attend_with(lambda s, m: s.softmax(-1) if m is None else s.softmax(-1) * m)
)

exercise.mistake(
    "a query that may see nothing gets NaN", hint="Softmax over nothing but -inf is 0/0. The docstring asks for zeros."
)(_attend_with(lambda s, m: _hidden(s, m).softmax(-1)))

exercise.mistake(
    "a query that may see nothing gets the mean of all values",
    hint="With the same finite number everywhere the softmax is uniform. The docstring asks for zeros.",
)(_attend_with(lambda s, m: (s if m is None else s.masked_fill(~m, -1e9)).softmax(-1)))


@exercise.mistake("no gradient reaches the values", hint="Detach nothing: keys and values are learned, too.")
def values_detached(q, k, v, mask=None):
    return grouped(q, k, v.detach(), mask)


@exercise.mistake(
    "heads that don't divide are cut off silently", hint="heads % kv_heads must be 0: raise a ValueError."
)
def uneven_cut_off(q, k, v, mask=None):
    group = max(q.shape[-3] // k.shape[-3], 1)
    kept = min(group * k.shape[-3], q.shape[-3])
    return attention(q[..., :kept, :, :], *(_in_groups(x, group)[..., :kept, :, :] for x in (k, v)), mask)


@exercise.mistake(
    "heads that don't divide wrap around silently", hint="heads % kv_heads must be 0: raise a ValueError."
)
def uneven_wrapped(q, k, v, mask=None):
    heads = torch.arange(q.shape[-3]) // max(q.shape[-3] // k.shape[-3], 1) % k.shape[-3]
    return attention(q, k[..., heads, :, :], v[..., heads, :, :], mask)


@exercise.mistake(
    "everything is computed in float32, also for float64", hint="Don't cast: the result has the dtype of the input."
)
def grouped_single_precision(q, k, v, mask=None):
    return grouped(q.float(), k.float(), v.float(), mask)


exercise.alternative(grouped)


@exercise.alternative
def grouped_by_view(q, k, v, mask=None):
    """No copies: the group is a dimension of its own, over which keys and values broadcast."""
    if q.shape[-3] % k.shape[-3]:
        raise ValueError("the heads can't be shared out")
    asked = q.unflatten(-3, (k.shape[-3], -1))
    scores = torch.einsum("...hgnd,...hmd->...hgnm", asked, k) / math.sqrt(q.shape[-1])
    if mask is not None:
        full = mask.expand(*q.shape[:-1], k.shape[-2]).unflatten(-3, (k.shape[-3], -1))
        scores = torch.where(full, scores, -torch.inf)
    weights = torch.exp(scores - scores.amax(-1, keepdim=True).clamp(min=-1e30))
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-30)
    return torch.einsum("...hgnm,...hmv->...hgnv", weights, v).flatten(-4, -3)


@exercise.alternative
def grouped_by_loop(q, k, v, mask=None):
    heads, group = q.shape[-3], _group(q, k)
    full = None if mask is None else mask.expand(*q.shape[:-1], k.shape[-2])
    return torch.stack(
        [
            attention(
                q[..., h, :, :],
                k[..., h // group, :, :],
                v[..., h // group, :, :],
                None if full is None else full[..., h, :, :],
            )
            for h in range(heads)
        ],
        dim=-3,
    )
