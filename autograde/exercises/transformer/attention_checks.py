"""What 01_transformer/01_attention is judged by: torch's attention and padding, cases and laws."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.bias import causal_lower_right
from torch.nn.utils.rnn import pad_sequence

from autograde.exercise import case, same


def _randn(g, *shape):
    return torch.randn(*shape, generator=g)


def _some(g, *shape):
    """A mask that lets each query see at least one key, and hides at least one where there are two or more."""
    n = shape[-1]
    order = torch.rand(shape, generator=g).argsort(-1)
    return order < torch.randint(1, max(n, 2), (*shape[:-1], 1), generator=g)


# ---- scaled_dot_product_attention -----------------------------------------------------------------------------------

def torch_attention(q, k, v, mask=None):
    """torch's own in float64. A query that sees nothing gets zeros, as torch has it since 2.5."""
    out = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), attn_mask=mask)
    if mask is not None:
        out = out.masked_fill(~mask.any(-1, keepdim=True), 0.0)
    return out.to(v.dtype)


def attention_cases(g):
    yield case(_randn(g, 3, 4), _randn(g, 5, 4), _randn(g, 5, 6), label="more keys than queries")
    yield case(_randn(g, 2, 4, 4, 8), _randn(g, 2, 4, 4, 8), _randn(g, 2, 4, 4, 8), _some(g, 4, 4), label="a mask")
    yield case(_randn(g, 2, 3, 5, 4), _randn(g, 2, 3, 5, 4), _randn(g, 2, 3, 5, 3), mask=_some(g, 2, 1, 5, 5),
               label="a mask a sequence, the same for all heads")
    yield case(_randn(g, 2, 3, 3, 4), _randn(g, 2, 3, 4, 4), _randn(g, 2, 3, 4, 4), mask=_some(g, 2, 1, 1, 4),
               label="a padding mask, one row for all queries")
    hole = _some(g, 4, 4)
    hole[2] = False
    yield case(_randn(g, 2, 4, 6), _randn(g, 2, 4, 6), _randn(g, 2, 4, 6), hole, label="a query that may see nothing")
    yield case(_randn(g, 1, 5), _randn(g, 3, 5), _randn(g, 3, 5), label="one query")
    yield case(_randn(g, 3, 1, 2), _randn(g, 3, 1, 2), _randn(g, 3, 1, 2), label="one key")
    yield case(_randn(g, 4, 1) * 3, _randn(g, 4, 1), _randn(g, 4, 2), label="width one")
    yield case(_randn(g, 2, 3, 4) * 60, _randn(g, 2, 3, 4) * 60, _randn(g, 2, 3, 4) * 5, label="scores of thousands")
    yield case(_randn(g, 2, 3, 4) * 30, _randn(g, 2, 3, 4) * 30, _randn(g, 2, 3, 4), _some(g, 3, 3),
               label="large scores and a mask")
    yield case(_randn(g, 5, 2, 4).transpose(0, 1), _randn(g, 5, 2, 4).transpose(0, 1), _randn(g, 2, 3, 5).mT,
               _some(g, 5, 5).T.contiguous().T, label="not contiguous")
    yield case(_randn(g, 2, 3, 4).double(), _randn(g, 2, 3, 4).double(), _randn(g, 2, 3, 4).double() - 3,
               label="float64")
    yield case(torch.zeros(4, 4), torch.zeros(4, 4), _randn(g, 4, 4), torch.ones(4, 4).tril().bool(),
               label="zeros, causal")


def _mask(one):
    return one.kwargs.get("mask", one.args[3] if len(one.args) > 3 else None)


def weighted_mean(out, one, call):
    """Each result lies between the least and the greatest value."""
    v = one.args[2].double()
    seen = out.double()
    mask = _mask(one)
    if mask is not None:
        rows = mask.any(-1, keepdim=True).expand(*out.shape[:-1], 1)
        seen = torch.where(rows, seen, v.mean(-2, keepdim=True))
    low, high = v.amin(-2, keepdim=True), v.amax(-2, keepdim=True)
    slack = 1e-4 * (1 + v.abs().amax())
    return bool(((seen >= low - slack) & (seen <= high + slack)).all())


def alike_keys_share(out, one, call):
    """Keys that are all alike get equal weights: the plain mean of the values that may be seen."""
    q, k, v = one.args[:3]
    mask = _mask(one)
    allowed = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool) if mask is None else mask
    weights = allowed.double() / allowed.double().sum(-1, keepdim=True).clamp(min=1)
    weights = weights.expand(*q.shape[:-1], k.shape[-2])
    return same(call(q, torch.ones_like(k), v, mask).double(), weights @ v.double())


def hidden_is_unread(out, one, call):
    """New numbers at a key that no query may see change nothing."""
    mask = _mask(one)
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


def sharper(out, one, call):
    """The divisor is the root of q's width: q and k four times as wide (padded with zeros) halve every score."""
    q, k, v = one.args[:3]
    wide = [torch.cat([t, torch.zeros(*t.shape[:-1], 3 * t.shape[-1], dtype=t.dtype)], -1) for t in (2 * q, k)]
    return same(call(*wide, v, _mask(one)), out)


def seeing_nothing_gives_zeros(out, one, call):
    q, k, v = one.args[:3]
    nothing = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool)
    nothing[-1] = False
    return bool((call(q, k, v, nothing)[..., -1, :] == 0).all())


# ---- masks ----------------------------------------------------------------------------------------------------------

def torch_causal(n, past=0):
    return causal_lower_right(n, past + n)._materialize("cpu").bool()


def causal_cases(g):
    yield case(1, label="one token")
    yield case(2, label="two tokens")
    yield case(5, label="five tokens")
    yield case(1, past=4, label="one new token, four in the cache")
    yield case(3, past=2, label="three new tokens, two in the cache")
    yield case(4, 4, label="as many new as old")
    yield case(int(torch.randint(6, 40, (), generator=g)), label="a random length")
    yield case(int(torch.randint(3, 9, (), generator=g)), past=int(torch.randint(9, 20, (), generator=g)),
               label="a long cache")


def sees_itself(out, one, call):
    n, total = out.shape
    return bool(out[torch.arange(n), torch.arange(total - n, total)].all())


def one_more_each_row(out, one, call):
    """Row i sees past + i + 1 keys."""
    n = out.shape[0]
    return same(out.sum(-1), torch.arange(n) + out.shape[1] - n + 1)


def whole_past(out, one, call):
    past = out.shape[1] - out.shape[0]
    return bool(out[:, : past + 1].all())


def is_bool(out, one, call):
    return out.dtype is torch.bool or f"the mask should be a bool tensor, and is {out.dtype}"


def torch_padding(lengths, n, side="right"):
    """torch's pad_sequence, which pads sequences of ones up to a row of length n."""
    rows = [torch.ones(min(int(length), n)) for length in lengths.flatten()] + [torch.ones(n)]
    padded = pad_sequence(rows, batch_first=True, padding_side=side)[:-1]
    return padded.bool().reshape(*lengths.shape, 1, n)


def padding_cases(g):
    def lengths(*shape, n):
        return torch.randint(1, n, shape, generator=g)

    yield case(torch.tensor([3, 1, 4]), 4, label="three sequences")
    yield case(torch.tensor([2, 5, 3, 1]), 5, side="left", label="padded on the left")
    yield case(lengths(2, n=6), 6, label="two sequences")
    yield case(lengths(3, n=7), 9, label="wider than the longest sequence")
    yield case(torch.tensor([2]), 3, label="one sequence")
    yield case(torch.tensor(2), 5, label="lengths without a batch dimension")
    yield case(lengths(2, 3, n=5), 5, side="left", label="two batch dimensions, on the left")
    yield case(torch.tensor([0, 4, 2]), 4, label="an empty sequence")
    yield case(torch.tensor([3, 0, 1], dtype=torch.int32), 6, "left", label="int32, an empty sequence, on the left")
    yield case(torch.tensor([[1, 4, 2], [3, 2, 5]]).T, 5, label="not contiguous")


def counts(out, one, call):
    """As many keys may be seen as the sequence is long."""
    lengths, n = one.args[:2]
    return same(out.sum((-1, -2)), lengths.clamp(max=n).long())


def one_block(out, one, call):
    """Tokens stand together, at one end: the mask changes at most once along a row."""
    changes = (out[..., 1:] != out[..., :-1]).sum(-1)
    return bool((changes <= 1).all())


def one_row_for_all_queries(out, one, call):
    lengths, n = one.args[:2]
    wanted = (*lengths.shape, 1, n)
    return tuple(out.shape) == wanted or f"the mask should have shape {wanted}, and has {tuple(out.shape)}"


def sides_mirror(out, one, call):
    lengths, n = one.args[:2]
    return same(call(lengths, n, side="left"), call(lengths, n, side="right").flip(-1))


# ---- multi_head_attention -------------------------------------------------------------------------------------------

def torch_multi_head(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    """nn.MultiheadAttention in float64 with the same weights; its masks are True where nothing may be read."""
    d, n = x.shape[-1], x.shape[-2]
    module = nn.MultiheadAttention(d, n_heads, bias=False, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        module.in_proj_weight.copy_(torch.cat([w.mT for w in (w_q, w_k, w_v)]))
        module.out_proj.weight.copy_(w_o.mT)
    rows = x.double().reshape(-1, n, d)
    hidden = None
    if mask is not None:
        full = mask.expand(*x.shape[:-2], n, n).reshape(-1, 1, n, n)
        hidden = ~full.expand(-1, n_heads, n, n).reshape(-1, n, n)
    with torch.no_grad():
        out = module(rows, rows, rows, attn_mask=hidden, need_weights=False)[0].reshape(x.shape)
    if mask is not None:
        out = out.masked_fill(~mask.any(-1, keepdim=True), 0.0)
    return out.to(x.dtype)


def _matrices(g, d):
    return [_randn(g, d, d) * d**-0.5 * scale for scale in (2.0, 2.0, 1.0, 1.0)]


def multi_head_cases(g):
    yield case(_randn(g, 2, 5, 6), *_matrices(g, 6), 3, label="three heads")
    yield case(_randn(g, 4, 8), *_matrices(g, 8), 2, label="no batch")
    yield case(_randn(g, 2, 3, 5, 4), *_matrices(g, 4), n_heads=2, label="two batch dimensions")
    yield case(_randn(g, 2, 4, 6), *_matrices(g, 6), 2, torch.ones(4, 4).tril().bool(), label="a causal mask")
    yield case(_randn(g, 3, 5, 6), *_matrices(g, 6), 3, mask=_some(g, 3, 1, 5),
               label="a padding mask, as many heads as sequences")
    yield case(_randn(g, 2, 4, 8), *_matrices(g, 8), 4, mask=_some(g, 2, 4, 4), label="a mask a sequence")
    yield case(_randn(g, 2, 3, 4, 4), *_matrices(g, 4), 2, mask=_some(g, 2, 3, 4, 4),
               label="two batch dimensions, a mask a sequence")
    yield case(_randn(g, 2, 3, 4), *_matrices(g, 4), 1, label="one head")
    yield case(_randn(g, 3, 4), *_matrices(g, 4), 4, label="heads of width one")
    yield case(_randn(g, 2, 1, 6), *_matrices(g, 6), 2, label="one token")
    hole = torch.ones(4, 4).tril().bool()
    hole[1] = False
    yield case(_randn(g, 2, 4, 4), *_matrices(g, 4), 2, mask=hole, label="a query that may see nothing")
    yield case(_randn(g, 2, 4, 4).double() * 8, *[w.double() for w in _matrices(g, 4)], 2, label="float64, large")
    yield case(_randn(g, 5, 2, 6).transpose(0, 1), *[w.T.contiguous().T for w in _matrices(g, 6)], 3,
               mask=_some(g, 5, 5), label="not contiguous")


def _heads(one):
    return one.kwargs.get("n_heads", one.args[5] if len(one.args) > 5 else None)


def _mha_mask(one):
    return one.kwargs.get("mask", one.args[6] if len(one.args) > 6 else None)


def one_head_alone(out, one, call):
    """With w_o reading the last head's columns alone, the other heads' queries, keys and values don't matter."""
    x, w_q, w_k, w_v, w_o = one.args[:5]
    width = x.shape[-1] // _heads(one)
    if width == x.shape[-1]:
        return None
    last = torch.arange(x.shape[-1]) >= x.shape[-1] - width
    w_o = torch.where(last[:, None], w_o, 0)
    mixed = [torch.where(last, w, w.flip(0) * 1.5 + 0.2) for w in (w_q, w_k, w_v)]
    rest = (_heads(one), _mha_mask(one))
    return same(call(x, *mixed, w_o, *rest), call(x, w_q, w_k, w_v, w_o, *rest))


def shuffles_along(out, one, call):
    """Without a mask, shuffled tokens give the shuffled result."""
    x, *weights = one.args[:5]
    order = torch.arange(x.shape[-2]).roll(1).flip(0)
    plain = call(x, *weights, _heads(one))
    return same(call(x[..., order, :], *weights, _heads(one)), plain[..., order, :])


def later_unread(out, one, call):
    """Under a causal mask a new last token changes nothing before it."""
    x, *weights = one.args[:5]
    n = x.shape[-2]
    if n == 1:
        return None
    mask = torch.ones(n, n, dtype=torch.bool).tril()
    other = torch.cat([x[..., :-1, :], 3 - x[..., -1:, :]], -2)
    before, after = (call(rows, *weights, _heads(one), mask) for rows in (x, other))
    return same(after[..., :-1, :], before[..., :-1, :])


def output_projection(out, one, call):
    """What comes out is linear in w_o."""
    x, w_q, w_k, w_v, w_o = one.args[:5]
    other = call(x, w_q, w_k, w_v, -3 * w_o, _heads(one), _mha_mask(one))
    return same(other, -3 * out, rtol=1e-3, atol=1e-4)
