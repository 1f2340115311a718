"""What 01_transformer/03_position_encodings is judged by: transformers' own encodings, cases and laws."""

from __future__ import annotations

import math

import torch
from torch import nn

from autograde.exercise import case, same


def _randn(g, *shape):
    return torch.randn(*shape, generator=g)


def _int(g, low, high):
    """A random whole number from low to high - 1."""
    return int(torch.randint(low, high, (), generator=g))


# ---- sinusoidal_encoding --------------------------------------------------------------------------------------------

def marian_sinusoids(n, d):
    """Marian's table holds the same numbers with all sines first; the paper interleaves sines and cosines."""
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

    halves = MarianSinusoidalPositionalEmbedding(n, d).create_weight()
    return halves.view(n, 2, d // 2).mT.reshape(n, d)


def sinusoidal_cases(g):
    yield case(4, 8, label="four positions")
    yield case(1, 6, label="one position")
    yield case(7, 2, label="one pair")
    yield case(50, 6, label="longer than wide")
    yield case(3, 20, label="wider than long")
    yield case(300, 16, label="300 positions")
    yield case(_int(g, 10, 30), d=2 * _int(g, 3, 8), label="a random size")


def starts_at_zero(out, one, call):
    """Position 0 is (0, 1, 0, 1, …)."""
    return same(out[0].double(), torch.tensor([0.0, 1.0]).repeat(out.shape[1] // 2).double())


def lies_on_circles(out, one, call):
    return same(out.double().square().sum(-1), torch.full((out.shape[0],), out.shape[1] / 2).double(), rtol=1e-3)


def distance_alone(out, one, call):
    gram = out.double() @ out.double().T
    return same(gram[1:, 1:], gram[:-1, :-1], rtol=1e-3, atol=1e-3)


def slowest_last(out, one, call):
    """Each pair turns more slowly than the one before; the first by one radian a position."""
    if out.shape[0] < 2:
        return None
    step = torch.atan2(out[1, 0::2].double(), out[1, 1::2].double())
    return bool(abs(step[0] - 1) < 1e-3 and (step.diff() < 0).all())


# ---- add_learned_positions ------------------------------------------------------------------------------------------

def learned_probe(add, x, table, past=0):
    """The sum, or the word "ValueError" where one is raised."""
    try:
        return add(x, table, past=past)
    except ValueError:
        return "ValueError"


def torch_learned(x, table, past=0):
    if past + x.shape[-2] > table.shape[0]:
        return "ValueError"
    positions = past + torch.arange(x.shape[-2])
    return x + nn.functional.embedding(positions, table)


def learned_cases(g):
    yield case(_randn(g, 2, 4, 6), _randn(g, 9, 6), label="a batch")
    yield case(_randn(g, 3, 5), _randn(g, 3, 5), label="the whole table, no batch")
    yield case(_randn(g, 2, 3, 4), _randn(g, 9, 4), past=4, label="four tokens in the cache")
    yield case(_randn(g, 2, 1, 4), _randn(g, 7, 4), past=6, label="one token, on the last row")
    yield case(_randn(g, 4, 4, 4), _randn(g, 8, 4), past=1, label="as many sequences as tokens")
    yield case(_randn(g, 2, 3, 2, 6) * 50, _randn(g, 5, 6), past=2, label="two batch dimensions, large")
    yield case(_randn(g, 2, 5, 4), _randn(g, 4, 4), label="one token too many")
    yield case(_randn(g, 3, 4), _randn(g, 6, 4), past=5, label="the cache fills the table")
    yield case(_randn(g, 1, 4), _randn(g, 5, 4), past=5, label="one token, just past the table")
    yield case(_randn(g, 3, 4).double(), _randn(g, 5, 4).double(), past=1, label="float64")
    yield case(_randn(g, 5, 2, 4).transpose(0, 1), _randn(g, 4, 8).T, label="not contiguous")


def zeros_show_the_table(out, one, call):
    x, table = one.args
    if isinstance(out, str):
        return None
    past = one.kwargs.get("past", 0)
    return same(call(0 * x, table, past=past), table[past : past + x.shape[-2]].expand(x.shape))


def token_by_token(out, one, call):
    """The last token by itself, with the others in the cache, gets the same."""
    x, table = one.args
    if isinstance(out, str):
        return None
    past = one.kwargs.get("past", 0) + x.shape[-2] - 1
    return same(call(x[..., -1:, :], table, past=past), out[..., -1:, :])


def the_table_ends(out, one, call):
    x, table = one.args
    return call(x, table, past=table.shape[0] - x.shape[-2] + 1) == "ValueError" if len(table) >= x.shape[-2] else None


# ---- relative_position_bucket ---------------------------------------------------------------------------------------

def t5_bucket(relative_position, bidirectional=True, num_buckets=32, max_distance=128):
    from transformers.models.t5.modeling_t5 import T5Attention

    return T5Attention._relative_position_bucket(relative_position, bidirectional, num_buckets, max_distance)


def _clear(distances, bidirectional=True, num_buckets=32, max_distance=128):
    """Distances without those on the very edge of a bucket, where float32 and float64 may round differently."""
    exact = num_buckets // (4 if bidirectional else 2)
    far = distances.abs().clamp(min=1).double() / exact
    place = far.log() / math.log(max_distance / exact) * exact
    return distances[((place - place.round()).abs() > 1e-4) | (distances.abs() < exact)]


def bucket_cases(g):
    def some(count, reach, **options):
        return _clear(torch.randint(-reach, reach + 1, (8 * count,), generator=g), **options)[:count]

    near = torch.arange(5)[None, :] - torch.arange(5)[:, None]
    yield case(near, label="five tokens")
    yield case(some(60, 200).view(6, 10), label="up to 200 positions apart")
    yield case(some(40, 200, bidirectional=False), bidirectional=False, label="decoder")
    options = {"num_buckets": 16, "max_distance": 50}
    yield case(some(40, 90, **options), **options, label="16 buckets up to 50")
    options = {"bidirectional": False, "num_buckets": 8, "max_distance": 20}
    yield case(some(40, 40, **options), **options, label="decoder, 8 buckets up to 20")
    options = {"num_buckets": 64, "max_distance": 1000}
    yield case(some(60, 1500, **options).view(2, 3, 10), **options, label="64 buckets up to 1,000")
    yield case(_clear(torch.arange(-140, 141)), label="everything from -140 to 140")
    yield case(torch.tensor([[100_000, -100_000]]), label="very far")
    yield case(torch.tensor(0), label="itself, no dimension")
    yield case(_clear(-torch.arange(100, 300, 7), False), bidirectional=False, label="decoder, far back")


def _options(one):
    return {"bidirectional": True, "num_buckets": 32, "max_distance": 128} | one.kwargs


def in_range(out, one, call):
    return bool(((out >= 0) & (out < _options(one)["num_buckets"])).all())


def near_are_told_apart(out, one, call):
    """The nearest distances, up to half of a direction's buckets, have one bucket each."""
    options = _options(one)
    exact = options["num_buckets"] // (4 if options["bidirectional"] else 2)
    found = call(-torch.arange(exact), **one.kwargs)
    return same(found, torch.arange(exact))


def further_is_not_lower(out, one, call):
    return bool((call(-torch.arange(0, 400), **one.kwargs).diff() >= 0).all())


def far_shares_the_last(out, one, call):
    options = _options(one)
    count = options["num_buckets"] // (2 if options["bidirectional"] else 1)
    limit = options["max_distance"]
    far = call(-torch.tensor([limit + 1, 2 * limit, 50 * limit]), **one.kwargs)
    return same(far, torch.full((3,), count - 1))


def future_apart(out, one, call):
    options = _options(one)
    ahead = call(torch.tensor([1, 5, 70]), **one.kwargs)
    if not options["bidirectional"]:
        return same(ahead, torch.zeros(3, dtype=torch.long))
    return same(ahead, call(-torch.tensor([1, 5, 70]), **one.kwargs) + options["num_buckets"] // 2)


# ---- alibi_bias -----------------------------------------------------------------------------------------------------

def bloom_alibi(n_heads, n):
    """BLOOM's slopes, times the distance; -inf for what comes later."""
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    slopes = build_alibi_tensor(torch.ones(1, 2), n_heads, torch.float32)[:, 0, 1]
    offset = torch.arange(n)[None, :] - torch.arange(n)[:, None]
    return (slopes[:, None, None] * offset).masked_fill(offset > 0, -torch.inf)


def alibi_cases(g):
    yield case(8, 5, label="eight heads")
    yield case(4, 6, label="four heads")
    yield case(1, 4, label="one head")
    yield case(2, 1, label="one token")
    yield case(6, 4, label="six heads, not a power of two")
    yield case(12, n=7, label="twelve heads")
    yield case(16, 3, label="sixteen heads")
    yield case(9, 5, label="nine heads, as in our model")
    yield case(3, _int(g, 20, 60), label="three heads, a random length")


def _past(out):
    n = out.shape[-1]
    return torch.arange(n)[:, None] >= torch.arange(n)[None, :]


def later_is_hidden(out, one, call):
    return bool((torch.isneginf(out) == ~_past(out)).all())


def itself_is_free(out, one, call):
    return bool((out.diagonal(dim1=-2, dim2=-1) == 0).all())


def straight_lines(out, one, call):
    """One step further back always costs a head the same."""
    last = out[:, -1].double()
    if last.shape[-1] < 3:
        return None
    steps = last.diff(dim=-1)
    return same(steps, steps[:, :1].expand(steps.shape), rtol=1e-3) and bool((steps > 0).all())


def heads_differ(out, one, call):
    n_heads, n = out.shape[0], out.shape[-1]
    return len({round(v, 7) for v in out[:, -1, 0].tolist()}) == n_heads if n > 1 else None
