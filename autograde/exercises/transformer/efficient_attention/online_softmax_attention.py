"""`online_softmax_attention(q, blocks)`

Exact attention over keys and values that come in blocks, each of which is seen once.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import randn
from autograde.exercises.transformer.efficient_attention.shared import LIBRARY, attention

exercise = Draft(
    "online_softmax_attention",
    points=4,
    forbid=LIBRARY,
    rtol=1e-3,
    atol=1e-3,
    hints=[
        "For each query keep three things: the largest score so far, the sum of exp(score - largest), and the sum of "
        "exp(score - largest) · value.",
        "When a block brings a larger score, both sums are too large by exp(new - old): multiply them by "
        "exp(old - new). Start with a largest score of -inf: exp(-inf) = 0 removes the empty sums.",
        "new = torch.maximum(top, scores.amax(-1, keepdim=True)); keep = torch.exp(top - new); p = torch.exp(scores - "
        "new); total = total * keep + p.sum(-1, keepdim=True); out = out * keep + p @ v; top = new. At the end "
        "out / total.",
    ],
)


def _stream(g, lead, n, sizes, d, wide=None):
    m = sum(sizes)
    return randn(g, *lead, n, d), randn(g, *lead, m, d), randn(g, *lead, m, wide or d), list(sizes)


def _far_below(g, sizes):
    """Scores are about -10,240, so that exp of them is 0, but for the first sequence's second query: about -2.5."""
    q, k, v, sizes = _stream(g, (2,), 2, sizes, 4)
    q, k = torch.zeros_like(q), torch.zeros_like(k)
    q[..., 0] = torch.tensor([[80.0, 0.02], [80.0, 80.0]])
    k[..., 0] = -256 - torch.rand(k.shape[:-1], generator=g).argsort() / 64
    return q, k, v, sizes


def _rising(g, sizes):
    """Each block's scores are far above the last one's."""
    q, k, v, sizes = _stream(g, (2,), 3, sizes, 4)
    q[..., 0], k[..., 0] = 10.0, torch.arange(k.shape[-2]) * 15.0 - 40
    return q, k, v, sizes


@exercise.cases
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
    yield case(
        *(x.flip(-2) if isinstance(x, torch.Tensor) else x for x in _rising(g, (3, 2, 2))),
        label="each block matches worse than the last",
    )
    yield case(*_stream(g, (), 3, (*[1, 3, 2, 4] * 6, 5), 2), label="a long stream")
    yield case(torch.zeros(3, 4), *_stream(g, (), 3, (3, 1, 2), 4)[1:], label="queries of zeros")


@exercise.oracle
def torch_online(q, k, v, sizes, peak=False):
    """torch's attention over all blocks at once, in float64."""
    return F.scaled_dot_product_attention(q.double(), k.double(), v.double()).to(q.dtype)


@exercise.probe
def streamed(implementation, q, k, v, sizes, peak=False):
    """The result over a stream of blocks of these sizes; with `peak` the most bytes that lived at once, as a number.

    The blocks are made when they are asked for, and counted as long as anybody keeps them. Who starts again after the
    last one gets an error: no blocks at all would be taken for 0/0.
    """
    from labkit import record_memory

    class Stream:
        start, cuts, over = 0, iter(sizes), False

        def __iter__(self):
            if self.over:
                raise RuntimeError("These blocks can be gone through only once.")
            return self

        def __next__(self):
            size = next(self.cuts, None)
            if size is None:
                self.over = True
                raise StopIteration
            self.start += size
            return tuple(x[..., self.start - size : self.start, :].clone() for x in (k, v))

    if not peak:
        return implementation(q, Stream())
    with record_memory() as memory:
        implementation(q, Stream())
    return memory.peak


@exercise.law("Twelve blocks need no more memory than four", essential=True)
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


def _alike(a, b):
    """Up to what logarithms of sums near -10,000 lose in float32."""
    return same(a, b, rtol=1e-2, atol=1e-2)


@exercise.law("Other blocks, the same result")
def cutting_changes_nothing(out, one, call):
    q, k, v, sizes = one.args
    if len(sizes) > 9:  # slow, and the others tell as much
        return None
    return _alike(call(q, k, v, [1] * sum(sizes)), call(q, k, v, [sum(sizes)]))


@exercise.law("The blocks' order doesn't matter")
def order_changes_nothing(out, one, call):
    q, k, v, sizes = one.args
    return _alike(call(q, k.flip(-2), v.flip(-2), sizes[::-1]), out)


@exercise.law("All keys alike: the plain mean of the values")
def alike_keys_share(out, one, call):
    q, k, v, sizes = one.args
    return same(call(q, torch.ones_like(k), v, sizes), v.mean(-2, keepdim=True).expand(out.shape))


exercise.law("The result has the dtype of the input")(keeps_dtype)


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


exercise.mistake(
    "the running maximum starts at 0, or another number that all scores may lie below",
    hint="Where all scores are far below it, exp(score - maximum) vanishes. Start from -inf.",
)(_running(top=0.0))

exercise.mistake(
    "no maximum is subtracted, and exp overflows", hint="exp(100) is beyond float32. Subtract the largest score so far."
)(_running(top=0.0, larger=lambda old, new: old))

exercise.mistake(
    "the scores are cut off so that exp doesn't overflow",
    hint="Then all large scores are alike. Subtract the largest one so far.",
)(_running(top=0.0, larger=lambda old, new: old, scale=lambda q, k: _scores(q, k).clamp(-60, 60)))

exercise.mistake(
    "the first block's maximum is kept", hint="A later block may hold a larger score: then exp overflows."
)(_running(larger=lambda old, new: torch.where(old == -torch.inf, new, old)))

exercise.mistake(
    "each block subtracts its own maximum, and nothing is rescaled",
    hint="Sums that were taken against the old maximum have to be multiplied by exp(old - new).",
)(_running(larger=lambda old, new: new, keep_sum=lambda old, new: 1.0, keep_out=lambda old, new: 1.0))

exercise.mistake(
    "only the normalizer is rescaled", hint="The weighted sum of the values was taken against the old maximum as well."
)(_running(keep_out=lambda old, new: 1.0))

exercise.mistake(
    "only the weighted sum is rescaled, not the normalizer",
    hint="The normalizer was taken against the old maximum as well.",
)(_running(keep_sum=lambda old, new: 1.0))

exercise.mistake("the rescaling is upside down", hint="The old sums shrink: exp(old - new), which is at most 1.")(
    _running(
        *[-torch.inf, torch.maximum], *[lambda old, new: torch.where(old == -torch.inf, 0.0, torch.exp(new - old))] * 2
    )
)


@exercise.mistake(
    "each block is taken against its own maximum, though the sums are rescaled",
    hint="exp(scores - new), with the maximum of all blocks so far.",
)
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


exercise.mistake(
    "one maximum serves all queries",
    hint="Where one query's scores are far below another's, exp vanishes. A maximum a query.",
)(_running(larger=lambda old, new: torch.maximum(old, new.amax().expand_as(old))))


exercise.mistake(
    "one maximum serves all queries of a sequence",
    hint="Where one query's scores are far below another's, exp vanishes. A maximum a query.",
)(_running(larger=lambda old, new: torch.maximum(old, new.amax(-2, keepdim=True).expand_as(old))))


def _by_block(join):
    """The attention of each block by itself, joined by `join(results, sizes)`."""

    def attention(q, blocks):
        results, sizes = [], []
        for k, v in blocks:
            results.append(_scores(q, k).softmax(-1) @ v)
            sizes.append(k.shape[-2])
        return join(torch.stack(results, -1), torch.tensor(sizes, dtype=q.dtype))

    return attention


exercise.mistake(
    "the blocks' attentions are averaged", hint="A block whose keys hardly match would count as much as the best one."
)(_by_block(lambda results, sizes: results.mean(-1)))

exercise.mistake(
    "the blocks' attentions are averaged by their sizes",
    hint="What counts is how well a block's keys match: its sum of exponentials.",
)(_by_block(lambda results, sizes: results @ (sizes / sizes.sum())))

exercise.mistake(
    "the blocks' attentions are added up", hint="The weights of a query sum to 1 over all blocks together."
)(_by_block(lambda results, sizes: results.sum(-1)))

exercise.mistake("only the last block counts", hint="Carry the sums from block to block.")(
    _by_block(lambda results, sizes: results[..., -1])
)

exercise.mistake("only the first block counts", hint="Go through all blocks.")(
    _by_block(lambda results, sizes: results[..., 0])
)

exercise.mistake(
    "no gradient goes through the normalizer", hint="The weights depend on q and k through it, too: don't detach it."
)(_running(end=lambda out, total: out / total.detach()))

exercise.mistake("the sum is never divided", hint="Divide by the normalizer, once, at the end.")(
    _running(end=lambda out, total: out)
)


@exercise.mistake(
    "the sum is divided after every block, and then carried on",
    hint="Divide once, at the end, or undo it before the next block.",
)
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


exercise.mistake("the scores aren't divided by sqrt(d)", hint="Scale as in ordinary attention.")(
    _running(scale=lambda q, k: q @ k.mT)
)

exercise.mistake("the scores are divided by the root of the block's size", hint="The root of q.shape[-1].")(
    _running(scale=lambda q, k: q @ k.mT / math.sqrt(k.shape[-2]))
)

exercise.mistake("the scores are divided by d instead of its root", hint="The root of q.shape[-1].")(
    _running(scale=lambda q, k: q @ k.mT / q.shape[-1])
)


@exercise.mistake(
    "all blocks, or all their scores, are kept until the end",
    hint="Right numbers, but memory that grows with the text. Three running values are enough.",
)
def blocks_joined(q, blocks):
    keys, values = zip(*blocks, strict=True)
    return attention(q, torch.cat(keys, -2), torch.cat(values, -2))


@exercise.mistake(
    "the blocks are read twice: first for the maximum",
    hint="A stream can be read only once. Correct the sums when the maximum grows.",
)
def read_twice(q, blocks):
    largest = torch.full((*q.shape[:-1], 1), -torch.inf, dtype=q.dtype)
    for k, _ in blocks:
        largest = torch.maximum(largest, _scores(q, k).amax(-1, keepdim=True))
    total, out = torch.zeros_like(largest), torch.zeros_like(q)
    for k, v in blocks:
        weights = torch.exp(_scores(q, k) - largest)
        total, out = total + weights.sum(-1, keepdim=True), out + weights @ v
    return out / total


online = _running()


@exercise.mistake(
    "everything is computed in float32, also for float64", hint="Don't cast: the result has the dtype of the input."
)
def online_single_precision(q, blocks):
    return online(q.float(), ((k.float(), v.float()) for k, v in blocks))


exercise.alternative(online)


@exercise.alternative
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


def _merged(a, b):
    if a is None:
        return b
    top = torch.maximum(a[0], b[0])
    left, right = torch.exp(a[0] - top), torch.exp(b[0] - top)
    return top, a[1] * left + b[1] * right, a[2] * left + b[2] * right


@exercise.alternative
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
