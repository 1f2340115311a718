"""Wrong ways to write attention, its masks and its heads, and a few right ones that look different."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

# ---- scaled_dot_product_attention -----------------------------------------------------------------------------------

def _scores(q, k, mask=None):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return scores if mask is None else scores.masked_fill(~mask, -torch.inf)


def _nothing_seen_is_zero(weights):
    return weights.nan_to_num(0.0)


def attention(q, k, v, mask=None):
    return _nothing_seen_is_zero(_scores(q, k, mask).softmax(-1)) @ v


def _scaled_by(factor):
    """Attention with another scale: `factor(q, k, v)` is what every score is multiplied by."""

    def wrong(q, k, v, mask=None):
        return attention(q * (factor(q, k, v) * math.sqrt(q.shape[-1])), k, v, mask)

    return wrong


def _normalised(softmax):
    """Attention with another softmax over the masked scores."""

    def wrong(q, k, v, mask=None):
        return _nothing_seen_is_zero(softmax(_scores(q, k, mask))) @ v

    return wrong


def _masked(apply):
    """Attention whose mask is brought in by `apply(scores, mask)`, before the softmax."""

    def wrong(q, k, v, mask=None):
        scores = _scores(q, k)
        return _nothing_seen_is_zero((scores if mask is None else apply(scores, mask)).softmax(-1)) @ v

    return wrong


not_scaled = _scaled_by(lambda q, k, v: 1.0)
scaled_by_width = _scaled_by(lambda q, k, v: 1 / q.shape[-1])
scaled_up = _scaled_by(lambda q, k, v: math.sqrt(q.shape[-1]))
scaled_by_keys = _scaled_by(lambda q, k, v: 1 / math.sqrt(k.shape[-2]))
scaled_by_values = _scaled_by(lambda q, k, v: 1 / math.sqrt(v.shape[-1]))

over_queries = _normalised(lambda s: s.softmax(-2))
over_everything = _normalised(lambda s: s.flatten(-2).softmax(-1).view_as(s))
over_dim_one = _normalised(lambda s: s.softmax(1))
never_normalised = _normalised(lambda s: s.masked_fill(s.isinf(), 0))
divided_by_the_sum = _normalised(lambda s: s.masked_fill(s.isinf(), 0) / s.masked_fill(s.isinf(), 0).sum(-1, True))
unprotected_exp = _normalised(lambda s: s.double().exp().to(s.dtype) / s.double().exp().to(s.dtype).sum(-1, True))
sigmoids = _normalised(torch.sigmoid)

mask_ignored = _masked(lambda s, m: s)
mask_inverted = _masked(lambda s, m: s.masked_fill(m, -torch.inf))
mask_added = _masked(lambda s, m: s + m)
mask_multiplied = _masked(lambda s, m: s * m)
mask_weak = _masked(lambda s, m: s - 10.0 * (~m))
mask_mean = _masked(lambda s, m: s.masked_fill(~m, torch.finfo(s.dtype).min))
mask_transposed = _masked(lambda s, m: s.masked_fill(~(m.mT if m.shape[-1] == m.shape[-2] else m), -torch.inf))
mask_of_the_first = _masked(lambda s, m: s.masked_fill(~m.flatten(0, -3)[0] if m.dim() > 2 else ~m, -torch.inf))


def mask_after(q, k, v, mask=None):
    weights = _scores(q, k).softmax(-1)
    return (weights if mask is None else weights * mask) @ v


def nan_rows(q, k, v, mask=None):
    return _scores(q, k, mask).softmax(-1) @ v


def scaled_after(q, k, v, mask=None):
    weights = _nothing_seen_is_zero((_scores(q, k, mask) * math.sqrt(q.shape[-1])).softmax(-1))
    return weights / math.sqrt(q.shape[-1]) @ v


def keys_asked(q, k, v, mask=None):
    """k @ q.T, where the shapes let it pass."""
    square = q.shape == k.shape
    return attention(k, q, v, mask) if square else attention(q, k, v, mask)


def keys_returned(q, k, v, mask=None):
    return attention(q, k, k, mask)


def cosine(q, k, v, mask=None):
    scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return _nothing_seen_is_zero(scores.softmax(-1)) @ v


def hardest(q, k, v, mask=None):
    """Only the best key, as a dictionary would."""
    scores = _scores(q, k, mask)
    seen = 1.0 if mask is None else mask.any(-1, keepdim=True).to(v.dtype)
    return F.one_hot(scores.argmax(-1), k.shape[-2]).to(v.dtype) @ v * seen


def single_precision(q, k, v, mask=None):
    return attention(q.float(), k.float(), v.float(), mask)


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


def attention_by_einsum(q, k, v, mask=None):
    scores = torch.einsum("...id,...jd->...ji", q.double(), k.double()) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -1e30).mT
    weights = torch.exp(scores - scores.amax(-2, keepdim=True))
    if mask is not None:
        weights = weights * mask.mT
    weights = weights / weights.sum(-2, keepdim=True).clamp(min=1e-300)
    return torch.einsum("...ji,...jv->...iv", weights, v.double()).to(v.dtype)


# ---- causal_mask ----------------------------------------------------------------------------------------------------

def causal(n, past=0):
    return torch.ones(n, past + n, dtype=torch.bool).tril(past)


def causal_without_itself(n, past=0):
    return torch.ones(n, past + n, dtype=torch.bool).tril(past - 1)


def causal_peeks(n, past=0):
    return torch.ones(n, past + n, dtype=torch.bool).tril(past + 1)


def causal_future(n, past=0):
    return torch.ones(n, past + n, dtype=torch.bool).triu(past)


def causal_inverted(n, past=0):
    return ~causal(n, past)


def causal_upper_left(n, past=0):
    return torch.ones(n, past + n, dtype=torch.bool).tril()


def causal_past_forgotten(n, past=0):
    return causal(n)


def causal_past_hidden(n, past=0):
    return torch.cat([torch.zeros(n, past, dtype=torch.bool), causal(n)], -1)


def causal_past_behind(n, past=0):
    return torch.cat([causal(n), torch.ones(n, past, dtype=torch.bool)], -1)


def causal_all_rows(n, past=0):
    return causal(past + n)


def causal_sees_all(n, past=0):
    return torch.ones(n, past + n, dtype=torch.bool)


def causal_additive(n, past=0):
    return torch.zeros(n, past + n).masked_fill(~causal(n, past), -torch.inf)


def causal_as_numbers(n, past=0):
    return causal(n, past).float()


def causal_by_positions(n, past=0):
    keys = torch.arange(past + n)
    return keys <= keys[past:, None]


def causal_by_loop(n, past=0):
    rows = [[j <= past + i for j in range(past + n)] for i in range(n)]
    return torch.tensor(rows)


# ---- padding_mask ---------------------------------------------------------------------------------------------------

def padding(lengths, n, side="right"):
    places = torch.arange(n) if side == "right" else torch.arange(n).flip(0)
    return (places < lengths[..., None]).unsqueeze(-2)


def padding_inverted(lengths, n, side="right"):
    return ~padding(lengths, n, side)


def padding_one_too_many(lengths, n, side="right"):
    return padding(lengths + 1, n, side)


def padding_one_too_few(lengths, n, side="right"):
    return padding(lengths - 1, n, side)


def padding_without_queries(lengths, n, side="right"):
    return padding(lengths, n, side).squeeze(-2)


def padding_in_rows(lengths, n, side="right"):
    return padding(lengths, n, side).mT


def padding_both_ways(lengths, n, side="right"):
    row = padding(lengths, n, side)
    return row & row.mT


def padding_for_heads(lengths, n, side="right"):
    return padding(lengths, n, side).unsqueeze(-3)


def padding_side_ignored(lengths, n, side="right"):
    return padding(lengths, n)


def padding_always_left(lengths, n, side="right"):
    return padding(lengths, n, "left")


def padding_sides_swapped(lengths, n, side="right"):
    return padding(lengths, n, "left" if side == "right" else "right")


def padding_as_wide_as_the_longest(lengths, n, side="right"):
    return padding(lengths, int(lengths.max()), side)


def padding_left_counts_padding(lengths, n, side="right"):
    """On the left, hides the first `length` places rather than the first n - length."""
    return padding(lengths, n) if side == "right" else ~padding(lengths, n)


def padding_as_numbers(lengths, n, side="right"):
    return padding(lengths, n, side).float()


def padding_by_loop(lengths, n, side="right"):
    rows = []
    for length in lengths.flatten().tolist():
        seen, unseen = [True] * min(length, n), [False] * (n - min(length, n))
        rows.append(seen + unseen if side == "right" else unseen + seen)
    return torch.tensor(rows).view(*lengths.shape, 1, n)


def padding_by_cumsum(lengths, n, side="right"):
    out = (torch.ones(*lengths.shape, 1, n).cumsum(-1) - 0.5) < lengths[..., None, None]
    return out if side == "right" else out.flip((-1,))


# ---- multi_head_attention -------------------------------------------------------------------------------------------

def split(x, n_heads):
    """[..., n, d] to [..., heads, n, d / heads]."""
    return x.unflatten(-1, (n_heads, -1)).transpose(-3, -2)


def join(x):
    return x.transpose(-3, -2).flatten(-2)


def _for_heads(mask):
    return None if mask is None else mask.unsqueeze(-3)


def _multi_head(attend=attention, divide=split, unite=join, for_heads=_for_heads):
    def multi_head(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
        heads = [divide(x @ w, n_heads) for w in (w_q, w_k, w_v)]
        return unite(attend(*heads, for_heads(mask))) @ w_o

    return multi_head


def _split_by_view(x, n_heads):
    return x.reshape(*x.shape[:-2], n_heads, x.shape[-2], -1)


def _split_in_turn(x, n_heads):
    return x.unflatten(-1, (-1, n_heads)).movedim(-1, -3)


def _join_by_view(x):
    return x.reshape(*x.shape[:-3], x.shape[-2], -1)


def _join_in_turn(x):
    return x.movedim(-3, -1).flatten(-2)


multi_head = _multi_head()
split_by_view = _multi_head(divide=_split_by_view, unite=_join_by_view)
split_by_view_alone = _multi_head(divide=_split_by_view)
joined_by_view = _multi_head(unite=_join_by_view)
split_in_turn = _multi_head(divide=_split_in_turn, unite=_join_in_turn)
joined_in_turn = _multi_head(unite=_join_in_turn)
heads_not_scaled = _multi_head(attend=not_scaled)
heads_nan_rows = _multi_head(attend=nan_rows)
heads_mask_after = _multi_head(attend=mask_after)
heads_mask_ignored = _multi_head(attend=mask_ignored)
heads_mask_inverted = _multi_head(attend=mask_inverted)
heads_over_queries = _multi_head(attend=over_queries)
mask_without_head_dim = _multi_head(for_heads=lambda mask: mask)


def mask_of_the_first_sequence(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    first = mask if mask is None or mask.dim() == 2 else mask.flatten(0, -3)[0]
    return multi_head(x, w_q, w_k, w_v, w_o, n_heads, first)


def scaled_by_model_width(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return multi_head(x, w_q / math.sqrt(n_heads), w_k, w_v, w_o, n_heads, mask)


def one_head_only(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return multi_head(x, w_q, w_k, w_v, w_o, 1, mask)


def no_output_projection(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return multi_head(x, w_q, w_k, w_v, torch.eye(x.shape[-1], dtype=x.dtype), n_heads, mask)


def transposed_weights(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return multi_head(x, w_q.T, w_k.T, w_v.T, w_o.T, n_heads, mask)


def transposed_output(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return multi_head(x, w_q, w_k, w_v, w_o.T, n_heads, mask)


def values_not_projected(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return multi_head(x, w_q, w_k, torch.eye(x.shape[-1], dtype=x.dtype), w_o, n_heads, mask)


def keys_are_queries(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return multi_head(x, w_q, w_q, w_v, w_o, n_heads, mask)


def queries_and_keys_swapped(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return multi_head(x, w_k, w_q, w_v, w_o, n_heads, mask)


def residual_added(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    return x + multi_head(x, w_q, w_k, w_v, w_o, n_heads, mask)


def always_causal(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    past = torch.ones(x.shape[-2], x.shape[-2], dtype=torch.bool).tril()
    return multi_head(x, w_q, w_k, w_v, w_o, n_heads, past if mask is None else mask & past)


def heads_averaged(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    """Every head's result is the mean of all heads'."""
    heads = [split(x @ w, n_heads) for w in (w_q, w_k, w_v)]
    out = attention(*heads, _for_heads(mask))
    return join(out.mean(-3, keepdim=True).expand_as(out)) @ w_o


def heads_attend_to_heads(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    """No transpose: at each token the heads look at one another."""
    q, k, v = ((x @ w).unflatten(-1, (n_heads, -1)) for w in (w_q, w_k, w_v))
    return attention(q, k, v).flatten(-2) @ w_o


def multi_head_by_columns(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    """A head at a time, from slices of the matrices; each adds its part through its rows of w_o."""
    width = x.shape[-1] // n_heads
    total = torch.zeros_like(x)
    for head in range(n_heads):
        part = slice(head * width, (head + 1) * width)
        total = total + attention(x @ w_q[:, part], x @ w_k[:, part], x @ w_v[:, part], mask) @ w_o[part]
    return total


def multi_head_by_einsum(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    q, k, v = (torch.einsum("...nd,dhe->...hne", x, w.reshape(w.shape[0], n_heads, -1)) for w in (w_q, w_k, w_v))
    scores = torch.einsum("...qe,...ke->...qk", q * q.shape[-1] ** -0.5, k)
    if mask is not None:
        scores = scores.masked_fill(~mask.unsqueeze(-3), -torch.inf)
    mixed = _nothing_seen_is_zero(scores.softmax(-1)) @ v
    return torch.einsum("...hne,hed->...nd", mixed, w_o.reshape(n_heads, -1, w_o.shape[-1]))
