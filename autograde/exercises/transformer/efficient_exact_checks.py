"""What grouped-query and online-softmax attention are judged by: torch's attention, and the memory they need."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import case, keeps_dtype, same


def _randn(g, *shape):
    return torch.randn(*shape, generator=g)


def _some(g, *shape):
    """A mask that lets each query see the first key, and others by chance."""
    mask = torch.rand(shape, generator=g) < 0.5
    mask[..., 0] = True
    return mask


# ---- grouped_query_attention ----------------------------------------------------------------------------------------

def answer_or_refusal(implementation, q, k, v, mask=None):
    """The result, or the word "ValueError" where one is raised."""
    try:
        return implementation(q, k, v, mask)
    except ValueError:
        return "ValueError"


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


def _heads(g, lead, heads, kv_heads, n, m, d, wide=None):
    return _randn(g, *lead, heads, n, d), _randn(g, *lead, kv_heads, m, d), _randn(g, *lead, kv_heads, m, wide or d)


def grouped_cases(g):
    yield case(*_heads(g, (), 4, 2, 3, 5, 4), label="four heads share two")
    yield case(*_heads(g, (2,), 6, 2, 4, 4, 3), label="six heads share two, a batch")
    yield case(*_heads(g, (2,), 6, 3, 3, 4, 4, wide=5), label="six heads share three, wider values")
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
    yield case(*(x.double() for x in _heads(g, (2,), 6, 3, 2, 3, 4)), label="float64")
    yield case(*(x.transpose(-3, -2).contiguous().transpose(-3, -2) for x in _heads(g, (2,), 4, 2, 3, 3, 4)),
               label="not contiguous")
    yield case(*_heads(g, (2,), 5, 2, 3, 4, 4), label="five heads can't share two")
    yield case(*_heads(g, (), 2, 4, 3, 4, 4), label="fewer query heads than key heads")


def _mask(one):
    return one.kwargs.get("mask", one.args[3] if len(one.args) > 3 else None)


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


def copies_change_nothing(out, one, call):
    q, k, v = one.args[:3]
    if isinstance(out, str):
        return None
    group = q.shape[-3] // k.shape[-3]
    return same(call(q, *(torch.repeat_interleave(x, group, -3) for x in (k, v)), _mask(one)), out)


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


def seeing_nothing_gives_zeros(out, one, call):
    q, k, v = one.args[:3]
    if isinstance(out, str):
        return None
    nothing = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool)
    nothing[-1] = False
    return bool((call(q, k, v, nothing)[..., -1, :] == 0).all())


def uneven_is_refused(out, one, call):
    q, k, v = one.args[:3]
    more = k.shape[-3] * 2 + 1 if k.shape[-3] > 1 else None
    return call(q[..., :1, :, :].expand(*q.shape[:-3], more, *q.shape[-2:]), k, v) == "ValueError" if more else None


def result_keeps_dtype(out, one, call):
    return None if isinstance(out, str) else keeps_dtype(out, one, call)


# ---- online_softmax_attention ---------------------------------------------------------------------------------------

def streamed(implementation, q, k, v, sizes, peak=False):
    """The result over a stream of blocks of these sizes; with `peak` the most bytes that lived at once, as a number.

    The blocks are made when they are asked for, and counted as long as anybody keeps them.
    """
    from labkit import record_memory

    def blocks():
        start = 0
        for size in sizes:
            yield tuple(x[..., start : start + size, :].clone() for x in (k, v))
            start += size

    if not peak:
        return implementation(q, blocks())
    with record_memory() as memory:
        implementation(q, blocks())
    return memory.peak


def torch_online(q, k, v, sizes, peak=False):
    """torch's attention over all blocks at once, in float64."""
    return F.scaled_dot_product_attention(q.double(), k.double(), v.double()).to(q.dtype)


def _stream(g, lead, n, sizes, d, wide=None):
    m = sum(sizes)
    return _randn(g, *lead, n, d), _randn(g, *lead, m, d), _randn(g, *lead, m, wide or d), list(sizes)


def _far_below(g, sizes):
    """Every score is about -300, by the keys' first entry; the second query's are about -3."""
    q, k, v, sizes = _stream(g, (), 2, sizes, 4)
    q[:, 0], k[:, 0] = torch.tensor([6.0, 0.06]), -100.0
    return q, k, v, sizes


def _rising(g, sizes):
    """Each block's scores are far above the last one's."""
    q, k, v, sizes = _stream(g, (2,), 3, sizes, 4)
    q[..., 0], k[..., 0] = 10.0, torch.arange(k.shape[-2]) * 15.0 - 40
    return q, k, v, sizes


def online_cases(g):
    yield case(*_stream(g, (), 3, (2, 2), 4), label="two blocks of two")
    yield case(*_stream(g, (2,), 4, (3, 3, 3), 4, wide=5), label="three blocks, a batch, wider values")
    yield case(*_stream(g, (2, 3), 3, (4, 2, 1), 3), label="blocks of different sizes")
    yield case(*_stream(g, (), 2, (1, 1, 1, 1, 1), 4), label="blocks of one")
    yield case(*_stream(g, (2,), 3, (5,), 4), label="one block")
    yield case(*_stream(g, (), 1, (2, 3), 1), label="one query, width one")
    q, k, v, sizes = _stream(g, (2,), 3, (3, 2, 3), 4)
    yield case(q * 40, k * 40, v * 5, sizes, label="scores of thousands")
    yield case(*_far_below(g, (2, 3)), label="all scores far below zero")
    yield case(*_rising(g, (2, 2, 3)), label="each block matches better than the last")
    yield case(*(x.flip(-2) if isinstance(x, torch.Tensor) else x for x in _rising(g, (3, 2, 2))),
               label="each block matches worse than the last")
    q, k, v, sizes = _stream(g, (2,), 4, (2, 4), 2)
    yield case(q.double() * 3, k.double(), v.double() - 4, sizes, label="float64")
    yield case(torch.zeros(3, 4), *_stream(g, (), 3, (3, 1, 2), 4)[1:], label="queries of zeros")


def memory_is_flat(out, one, call):
    """Twelve blocks of eight keys, against four of them."""
    q = one.args[0]
    if q.dim() > 2:
        return None
    most = []
    for blocks in (4, 12):
        k = torch.linspace(-1, 1, 8 * blocks * q.shape[-1], dtype=q.dtype).view(-1, q.shape[-1])
        most.append(call(q, k, -k, [8] * blocks, peak=True))
    return most[1] <= 1.25 * most[0] or f"4 blocks need up to {most[0]:,} bytes at once, 12 blocks {most[1]:,}"


def cutting_changes_nothing(out, one, call):
    q, k, v, sizes = one.args
    return same(call(q, k, v, [1] * sum(sizes)), call(q, k, v, [sum(sizes)]))


def order_changes_nothing(out, one, call):
    q, k, v, sizes = one.args
    return same(call(q, k.flip(-2), v.flip(-2), sizes[::-1]), out)


def alike_keys_share(out, one, call):
    q, k, v, sizes = one.args
    return same(call(q, torch.ones_like(k), v, sizes), v.mean(-2, keepdim=True).expand(out.shape))
