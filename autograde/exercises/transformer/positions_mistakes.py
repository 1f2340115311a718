"""Wrong ways to encode positions, and a few right ones that look different."""

from __future__ import annotations

import math

import torch

# ---- sinusoidal_encoding --------------------------------------------------------------------------------------------

def _speeds(d, base=10_000.0):
    return base ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)


def _waves(speeds=_speeds, start=0):
    """Interleaved sines and cosines with other speeds, or another first position."""

    def encode(n, d):
        angle = torch.arange(start, start + n)[:, None] * speeds(d)
        return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2).float()

    return encode


sinusoids = _waves()
from_one = _waves(start=1)
base_thousand = _waves(lambda d: _speeds(d, 1_000.0))
rising = _waves(lambda d: 1 / _speeds(d))
half_exponent = _waves(lambda d: 10_000.0 ** (-torch.arange(d // 2, dtype=torch.float64) / d))
double_exponent = _waves(lambda d: _speeds(d) ** 2)
to_the_end = _waves(lambda d: 10_000.0 ** (-torch.arange(d // 2, dtype=torch.float64) / max(d // 2 - 1, 1)))
one_speed = _waves(lambda d: torch.ones(d // 2, dtype=torch.float64))
all_turned = _waves(lambda d: 2 * math.pi * _speeds(d))
in_degrees = _waves(lambda d: _speeds(d) * math.pi / 180)


def halves(n, d):
    """All sines first, as in tensor2tensor and Marian."""
    angle = torch.arange(n)[:, None] * _speeds(d)
    return torch.cat([angle.sin(), angle.cos()], -1).float()


def cosine_first(n, d):
    return sinusoids(n, d).unflatten(-1, (-1, 2)).flip(-1).flatten(-2)


def own_speed_each(n, d):
    """Each column has its own speed, so sine and cosine of a pair don't belong together."""
    angle = torch.arange(n)[:, None] * 10_000.0 ** (-torch.arange(d, dtype=torch.float64) / d)
    return torch.where(torch.arange(d) % 2 == 0, angle.sin(), angle.cos()).float()


def doubled_columns(n, d):
    """2i in the exponent, where i already is the number of the column, and 2(i + 1) for the cosine."""
    columns = torch.arange(d)
    angle = torch.arange(n)[:, None] * 10_000.0 ** (-2 * columns.double() / d)
    return torch.where(columns % 2 == 0, angle.sin(), angle.cos()).float()


def sines_only(n, d):
    angle = torch.arange(n)[:, None] * _speeds(d).repeat_interleave(2)
    return angle.sin().float()


def sinusoids_by_loop(n, d):
    rows = [
        [(math.cos if j % 2 else math.sin)(p / 10_000 ** (2 * (j // 2) / d)) for j in range(d)] for p in range(n)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def sinusoids_by_log(n, d):
    out = torch.zeros(n, d)
    factor = torch.exp(torch.arange(0, d, 2) * (-math.log(10_000.0) / d))
    out[:, 0::2] = torch.sin(torch.arange(n)[:, None] * factor)
    out[:, 1::2] = torch.cos(torch.arange(n)[:, None] * factor)
    return out


# ---- add_learned_positions ------------------------------------------------------------------------------------------

def _checked(rows):
    """Adds `rows(x, table, past)`, and refuses positions that the table doesn't have."""

    def add(x, table, past=0):
        if past + x.shape[-2] > len(table):
            raise ValueError("no such position")
        return rows(x, table, past)

    return add


learned = _checked(lambda x, table, past: x + table[past : past + x.shape[-2]])
past_ignored = _checked(lambda x, table, past: x + table[: x.shape[-2]])
last_rows = _checked(lambda x, table, past: x + table[len(table) - x.shape[-2] :])
one_row_for_all = _checked(lambda x, table, past: x + table[past])
reversed_rows = _checked(lambda x, table, past: x + table[past : past + x.shape[-2]].flip(0))
multiplied = _checked(lambda x, table, past: x * table[past : past + x.shape[-2]])
scaled_first = _checked(lambda x, table, past: x * math.sqrt(x.shape[-1]) + table[past : past + x.shape[-2]])
averaged = _checked(lambda x, table, past: (x + table[past : past + x.shape[-2]]) / 2)
subtracted_past = _checked(lambda x, table, past: x + table.roll(past, 0)[: x.shape[-2]])


def concatenated(x, table, past=0):
    rows = learned(torch.zeros_like(x), table, past)
    return torch.cat([x, rows], -1)


def length_alone_checked(x, table, past=0):
    """Asks whether the new tokens fit, and forgets those in the cache: what doesn't fit starts over."""
    if x.shape[-2] > len(table):
        raise ValueError("too long")
    return wraps(x, table, past)


def wraps(x, table, past=0):
    return x + table[(past + torch.arange(x.shape[-2])) % len(table)]


def sticks_to_the_last(x, table, past=0):
    return x + table[(past + torch.arange(x.shape[-2])).clamp(max=len(table) - 1)]


def nothing_past_the_end(x, table, past=0):
    padded = torch.cat([table, torch.zeros(past + x.shape[-2], table.shape[-1], dtype=table.dtype)])
    return x + padded[past : past + x.shape[-2]]


def one_too_strict(x, table, past=0):
    if past + x.shape[-2] >= len(table):
        raise ValueError("no such position")
    return learned(x, table, past)


def learned_by_index(x, table, past=0):
    n = x.shape[-2]
    if not past + n <= table.shape[0]:
        raise ValueError(f"the table has {table.shape[0]} positions")
    return torch.stack([x[..., i, :] + table[past + i] for i in range(n)], -2)


def learned_by_product(x, table, past=0):
    """One-hot rows times the table."""
    places = past + torch.arange(x.shape[-2])
    if (places >= len(table)).any():
        raise ValueError("past the table")
    return (places[:, None] == torch.arange(len(table))).to(table.dtype) @ table + x


# ---- relative_position_bucket ---------------------------------------------------------------------------------------

def _buckets(sign=-1, exact_share=2, edge="floor", last=-1, log=True, split=True, future=True):
    """The rule with one screw turned: each option's default is right."""

    def bucket(relative_position, bidirectional=True, num_buckets=32, max_distance=128):
        back = sign * relative_position
        start = torch.zeros_like(back)
        count = num_buckets
        if bidirectional:
            count = num_buckets // 2 if split else num_buckets
            start = (back < 0).long() * (num_buckets // 2) if future else start
            back = back.abs()
        else:
            back = back.clamp(min=0) if future else back.abs()
        exact = max(count // exact_share, 1)
        ratio = back.clamp(min=1).float() / exact
        share = ratio.log() / math.log(max_distance / exact) if log else (ratio - 1) / (max_distance / exact - 1)
        steps = share * (count - exact)
        far = exact + {"floor": steps.long(), "round": steps.round().long(), "ceil": steps.ceil().long()}[edge]
        far = far.clamp(max=count + last) if last is not None else far
        return start + torch.where(back < exact, back, far)

    return bucket


bucket = _buckets()
sign_swapped = _buckets(sign=1)
exact_quarter = _buckets(exact_share=4)
rounded = _buckets(edge="round")
rounded_up = _buckets(edge="ceil")
never_clamped = _buckets(last=None)
clamped_one_off = _buckets(last=0)
linear = _buckets(log=False)
directions_share = _buckets(future=False)
not_halved = _buckets(split=False)


def flag_ignored(relative_position, bidirectional=True, num_buckets=32, max_distance=128):
    return bucket(relative_position, True, num_buckets, max_distance)


def flag_inverted(relative_position, bidirectional=True, num_buckets=32, max_distance=128):
    return bucket(relative_position, not bidirectional, num_buckets, max_distance)


def distance_ignored(relative_position, bidirectional=True, num_buckets=32, max_distance=128):
    return bucket(relative_position, bidirectional, num_buckets, 128)


def count_ignored(relative_position, bidirectional=True, num_buckets=32, max_distance=128):
    return bucket(relative_position, bidirectional, 32, max_distance)


def distance_itself(relative_position, bidirectional=True, num_buckets=32, max_distance=128):
    """No logarithm at all: distances up to the last bucket."""
    count = num_buckets // 2 if bidirectional else num_buckets
    back = relative_position.abs() if bidirectional else (-relative_position).clamp(min=0)
    start = (relative_position > 0).long() * count if bidirectional else 0
    return start + back.clamp(max=count - 1)


def bucket_by_loop(relative_position, bidirectional=True, num_buckets=32, max_distance=128):
    def place(r):
        count, start = (num_buckets // 2, num_buckets // 2 * (r > 0)) if bidirectional else (num_buckets, 0)
        back = abs(r) if bidirectional else max(-r, 0)
        exact = count // 2
        if back < exact:
            return start + back
        share = math.log(back / exact) / math.log(max_distance / exact)
        return start + min(exact + int(share * (count - exact)), count - 1)

    found = [place(r) for r in relative_position.flatten().tolist()]
    return torch.tensor(found).view(relative_position.shape)


def bucket_by_edges(relative_position, bidirectional=True, num_buckets=32, max_distance=128):
    """Counts how many edges lie below each distance."""
    count = num_buckets // 2 if bidirectional else num_buckets
    exact = count // 2
    steps = torch.arange(1, count - exact, dtype=torch.float64) / (count - exact)
    edges = torch.cat([torch.arange(1, exact + 1, dtype=torch.float64), exact * (max_distance / exact) ** steps])
    back = (relative_position.abs() if bidirectional else -relative_position).double()
    found = (back[..., None] >= edges).sum(-1)
    return found + ((relative_position > 0).long() * count if bidirectional else 0)


# ---- alibi_bias -----------------------------------------------------------------------------------------------------

def _power_of_two(n_heads):
    return [2 ** (-8 * h / n_heads) for h in range(1, n_heads + 1)]


def paper_slopes(n_heads):
    below = 2 ** int(math.log2(n_heads))
    return _power_of_two(below) + _power_of_two(2 * below)[0::2][: n_heads - below]


def _lines(slopes=paper_slopes, bias=lambda offset: offset, hidden=lambda offset: offset > 0, fill=-torch.inf):
    def alibi(n_heads, n):
        offset = torch.arange(n)[None, :] - torch.arange(n)[:, None]
        lines = torch.tensor(slopes(n_heads))[:, None, None] * bias(offset)
        return lines.masked_fill(hidden(offset), fill)

    return alibi


alibi = _lines()
far_is_better = _lines(bias=lambda offset: -offset)
not_causal = _lines(bias=lambda offset: -offset.abs(), hidden=lambda offset: torch.zeros_like(offset).bool())
future_free = _lines(fill=0.0)
past_hidden = _lines(bias=lambda offset: -offset, hidden=lambda offset: offset < 0)
itself_hidden = _lines(hidden=lambda offset: offset >= 0)
counted_from_the_start = _lines(bias=lambda offset: torch.arange(offset.shape[0]).expand(offset.shape))
logarithmic = _lines(bias=lambda offset: -torch.log1p(offset.abs()))
squared = _lines(bias=lambda offset: -offset.square())
naive_slopes = _lines(_power_of_two)
halving_slopes = _lines(lambda heads: [2.0**-h for h in range(1, heads + 1)])
slopes_from_one = _lines(lambda heads: [2 ** (-8 * h / heads) for h in range(heads)])
reversed_slopes = _lines(lambda heads: paper_slopes(heads)[::-1])
same_slope = _lines(lambda heads: [2.0**-8] * heads)
sorted_slopes = _lines(lambda heads: sorted(paper_slopes(heads), reverse=True))


def wrong_extra_slopes(n_heads):
    below = 2 ** int(math.log2(n_heads))
    return _power_of_two(below) + _power_of_two(2 * below)[1::2][: n_heads - below]


extra_slopes_twice = _lines(wrong_extra_slopes)


def alibi_by_loop(n_heads, n):
    below = 1
    while 2 * below <= n_heads:
        below *= 2
    slopes = [2 ** (-8 * (h + 1) / below) for h in range(below)]
    slopes += [2 ** (-4 * (2 * h + 1) / below) for h in range(n_heads - below)]
    rows = [[[-s * (i - j) if j <= i else -math.inf for j in range(n)] for i in range(n)] for s in slopes]
    return torch.tensor(rows, dtype=torch.float64)


def alibi_by_steps(n_heads, n):
    """Adds up the cost of each step back."""
    total = torch.zeros(n, n)
    for back in range(1, n):
        total = total - torch.ones(n, n).tril(-back)
    causal = torch.full((n, n), -math.inf).triu(1)
    return torch.tensor(paper_slopes(n_heads)).view(-1, 1, 1) * total + causal
