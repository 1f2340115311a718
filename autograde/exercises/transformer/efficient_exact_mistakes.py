"""Wrong grouped-query and online-softmax attentions, and a few right ones that look different."""

from __future__ import annotations

import math

import torch

# ---- grouped_query_attention ----------------------------------------------------------------------------------------


def _attention(q, k, v, mask=None, scale=None):
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1).nan_to_num(0.0) @ v


def _group(q, k):
    if q.shape[-3] % k.shape[-3]:
        raise ValueError(f"{q.shape[-3]} query heads can't share {k.shape[-3]} key heads")
    return q.shape[-3] // k.shape[-3]


def _in_groups(x, group):
    return x.repeat_interleave(group, -3)


def _in_turn(x, group):
    return torch.cat([x] * group, -3)


def _shared(keys, values=None, attend=_attention):
    """Attention after `keys(k, group)` and `values(v, group)` have made as many key heads as query heads."""

    def grouped_attention(q, k, v, mask=None):
        group = _group(q, k)
        return attend(q, keys(k, group), (values or keys)(v, group), mask)

    return grouped_attention


def _attend_with(softmax):
    """Attention by `softmax(scores, mask)`, over heads that are shared as they should be."""

    def attend(q, k, v, mask=None):
        return softmax(q @ k.mT / math.sqrt(q.shape[-1]), mask) @ v

    return _shared(_in_groups, attend=attend)


def _hidden(scores, mask):
    return scores if mask is None else scores.masked_fill(~mask, -torch.inf)


grouped = _shared(_in_groups)
dealt_in_turn = _shared(_in_turn)
first_head_for_all = _shared(lambda x, group: _in_groups(x[..., :1, :, :], group * x.shape[-3]))
last_head_for_all = _shared(lambda x, group: _in_groups(x[..., -1:, :, :], group * x.shape[-3]))
mean_head_for_all = _shared(lambda x, group: _in_groups(x.mean(-3, keepdim=True), group * x.shape[-3]))
handed_out_backwards = _shared(lambda x, group: _in_groups(x.flip(-3), group))
values_dealt_in_turn = _shared(_in_groups, _in_turn)
keys_dealt_in_turn = _shared(_in_turn, _in_groups)
grouped_not_scaled = _shared(_in_groups, attend=lambda q, k, v, mask: _attention(q, k, v, mask, 1.0))
grouped_scaled_by_model = _shared(
    _in_groups, attend=lambda q, k, v, mask: _attention(q, k, v, mask, (q.shape[-1] * q.shape[-3]) ** -0.5)
)
grouped_over_queries = _attend_with(lambda s, m: _hidden(s, m).softmax(-2).nan_to_num(0.0))
grouped_mask_ignored = _attend_with(lambda s, m: s.softmax(-1))
grouped_mask_inverted = _attend_with(lambda s, m: _hidden(s, None if m is None else ~m).softmax(-1).nan_to_num(0.0))
grouped_mask_after = _attend_with(lambda s, m: s.softmax(-1) if m is None else s.softmax(-1) * m)
grouped_mask_finite = _attend_with(lambda s, m: (s if m is None else s.masked_fill(~m, -1e9)).softmax(-1))
grouped_nan_rows = _attend_with(lambda s, m: _hidden(s, m).softmax(-1))


def queries_averaged(q, k, v, mask=None):
    group = _group(q, k)
    return grouped(_in_groups(q.unflatten(-3, (-1, group)).mean(-3), group), k, v, mask)


def scores_added(q, k, v, mask=None):
    group = _group(q, k)
    return grouped(_in_groups(q.unflatten(-3, (-1, group)).sum(-3), group), k, v, mask)


def uneven_cut_off(q, k, v, mask=None):
    group = max(q.shape[-3] // k.shape[-3], 1)
    kept = min(group * k.shape[-3], q.shape[-3])
    return _attention(q[..., :kept, :, :], *(_in_groups(x, group)[..., :kept, :, :] for x in (k, v)), mask)


def uneven_wrapped(q, k, v, mask=None):
    heads = torch.arange(q.shape[-3]) // max(q.shape[-3] // k.shape[-3], 1) % k.shape[-3]
    return _attention(q, k[..., heads, :, :], v[..., heads, :, :], mask)


def grouped_single_precision(q, k, v, mask=None):
    return grouped(q.float(), k.float(), v.float(), mask)


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


def grouped_by_loop(q, k, v, mask=None):
    heads, group = q.shape[-3], _group(q, k)
    full = None if mask is None else mask.expand(*q.shape[:-1], k.shape[-2])
    return torch.stack([
        _attention(q[..., h, :, :], k[..., h // group, :, :], v[..., h // group, :, :],
                   None if full is None else full[..., h, :, :])
        for h in range(heads)
    ], dim=-3)


# ---- online_softmax_attention ---------------------------------------------------------------------------------------


def _scores(q, k):
    return q @ k.mT / math.sqrt(q.shape[-1])


def _running(top=-torch.inf, larger=torch.maximum, keep_sum=None, keep_out=None, scale=_scores, end=None):
    """Online softmax in parts: where the maximum starts, how it grows, and what the old sums are multiplied by."""

    def keep(old, new):
        return torch.exp(old - new)

    def attention(q, blocks):
        largest = torch.full((*q.shape[:-1], 1), top, dtype=q.dtype)
        total, out = torch.zeros_like(largest), 0.0
        for k, v in blocks:
            scores = scale(q, k)
            new = larger(largest, scores.amax(-1, keepdim=True))
            weights = torch.exp(scores - new)
            total = total * (keep_sum or keep)(largest, new) + weights.sum(-1, keepdim=True)
            out = out * (keep_out or keep)(largest, new) + weights @ v
            largest = new
        return out / total if end is None else end(out, total)

    return attention


def _by_block(join):
    """The attention of each block by itself, joined by `join(results, sizes)`."""

    def attention(q, blocks):
        results, sizes = [], []
        for k, v in blocks:
            results.append(_scores(q, k).softmax(-1) @ v)
            sizes.append(k.shape[-2])
        return join(torch.stack(results, -1), torch.tensor(sizes, dtype=q.dtype))

    return attention


online = _running()
maximum_from_zero = _running(top=0.0)
without_maximum = _running(top=0.0, larger=lambda old, new: old)
first_maximum_kept = _running(larger=lambda old, new: torch.where(old == -torch.inf, new, old))
never_rescaled = _running(
    larger=lambda old, new: new, keep_sum=lambda old, new: 1.0, keep_out=lambda old, new: 1.0
)
sum_alone_rescaled = _running(keep_out=lambda old, new: 1.0)
values_alone_rescaled = _running(keep_sum=lambda old, new: 1.0)
rescaled_upside_down = _running(
    *[-torch.inf, torch.maximum], *[lambda old, new: torch.where(old == -torch.inf, 0.0, torch.exp(new - old))] * 2
)
maximum_of_all = _running(larger=lambda old, new: torch.maximum(old, new.amax().expand_as(old)))
never_divided = _running(end=lambda out, total: out)
online_not_scaled = _running(scale=lambda q, k: q @ k.mT)
online_scaled_by_width = _running(scale=lambda q, k: q @ k.mT / q.shape[-1])

blocks_averaged = _by_block(lambda results, sizes: results.mean(-1))
blocks_averaged_by_size = _by_block(lambda results, sizes: results @ (sizes / sizes.sum()))
blocks_added = _by_block(lambda results, sizes: results.sum(-1))
last_block_alone = _by_block(lambda results, sizes: results[..., -1])
first_block_alone = _by_block(lambda results, sizes: results[..., 0])


def own_maximum_for_weights(q, blocks):
    largest = torch.full((*q.shape[:-1], 1), -torch.inf, dtype=q.dtype)
    total, out = torch.zeros_like(largest), 0.0
    for k, v in blocks:
        scores = _scores(q, k)
        own = scores.amax(-1, keepdim=True)
        new = torch.maximum(largest, own)
        weights, keep = torch.exp(scores - own), torch.exp(largest - new)
        total, out, largest = total * keep + weights.sum(-1, keepdim=True), out * keep + weights @ v, new
    return out / total


def divided_each_time(q, blocks):
    largest = torch.full((*q.shape[:-1], 1), -torch.inf, dtype=q.dtype)
    total, out = torch.zeros_like(largest), 0.0
    for k, v in blocks:
        scores = _scores(q, k)
        new = torch.maximum(largest, scores.amax(-1, keepdim=True))
        weights, keep = torch.exp(scores - new), torch.exp(largest - new)
        total = total * keep + weights.sum(-1, keepdim=True)
        out = (out * keep + weights @ v) / total
        largest = new
    return out


def blocks_joined(q, blocks):
    keys, values = zip(*blocks, strict=True)
    return _attention(q, torch.cat(keys, -2), torch.cat(values, -2))


def read_twice(q, blocks):
    largest = torch.full((*q.shape[:-1], 1), -torch.inf, dtype=q.dtype)
    for k, _ in blocks:
        largest = torch.maximum(largest, _scores(q, k).amax(-1, keepdim=True))
    total, out = torch.zeros_like(largest), torch.zeros_like(q)
    for k, v in blocks:
        weights = torch.exp(_scores(q, k) - largest)
        total, out = total + weights.sum(-1, keepdim=True), out + weights @ v
    return out / total


def online_single_precision(q, blocks):
    return online(q.float(), ((k.float(), v.float()) for k, v in blocks))


def online_by_logsumexp(q, blocks):
    """Each block's finished attention and its log-sum-exp; two of those are joined like two blocks."""
    out = lse = None
    for k, v in blocks:
        scores = _scores(q, k)
        own, block = scores.logsumexp(-1, keepdim=True), scores.softmax(-1) @ v
        if out is None:
            out, lse = block, own
        else:
            share = torch.sigmoid(own - lse)
            out, lse = out + share * (block - out), torch.logaddexp(lse, own)
    return out


def online_by_pairs(q, blocks):
    """Two blocks at a time, joined before they are looked at."""
    stream, state = iter(blocks), None
    for k, v in stream:
        following = next(stream, None)
        if following is not None:
            k, v = torch.cat([k, following[0]], -2), torch.cat([v, following[1]], -2)
        scores = torch.einsum("...nd,...md->...nm", q, k) * q.shape[-1] ** -0.5
        top = scores.max(-1, keepdim=True).values
        state = _merged(state, (top, (scores - top).exp().sum(-1, keepdim=True), (scores - top).exp() @ v))
    return state[2] / state[1]


def _merged(a, b):
    if a is None:
        return b
    top = torch.maximum(a[0], b[0])
    left, right = torch.exp(a[0] - top), torch.exp(b[0] - top)
    return top, a[1] * left + b[1] * right, a[2] * left + b[2] * right
