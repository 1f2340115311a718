"""`relative_position_bucket(relative_position, bidirectional=True, num_buckets=32, max_distance=128)`

T5's bucket of each relative position.
"""

from __future__ import annotations

import math

import torch

from autograde.borrowed import borrowed
from autograde.exercise import Draft, case, same

exercise = Draft(
    "relative_position_bucket",
    points=4,
    forbid=["transformers"],
    no_gradient="buckets are whole numbers",
    hints=[
        "First the direction (which half of the buckets?), then the distance, a number of at least 0.",
        "With c buckets a direction and e = c // 2: distance r < e is bucket r; else e + floor(log(r / e) / "
        "log(max_distance / e) * (c - e)), at most c - 1.",
        "r = -relative_position for a decoder, clamped at 0, or its absolute value; torch.where(r < e, r, far). Clamp "
        "r at 1 inside the logarithm.",
    ],
)


def _clear(distances, bidirectional=True, num_buckets=32, max_distance=128):
    """Distances without those on the very edge of a bucket, where float32 and float64 may round differently."""
    exact = num_buckets // (4 if bidirectional else 2)
    far = distances.abs().clamp(min=1).double() / exact
    place = far.log() / math.log(max_distance / exact) * exact
    return distances[((place - place.round()).abs() > 1e-4) | (distances.abs() < exact)]


@exercise.cases
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
    yield case(_clear(torch.arange(300)[None, :] - torch.arange(60)[:, None] * 4), label="hundreds apart")
    yield case(_clear(-torch.arange(100, 300, 7), False), bidirectional=False, label="decoder, far back")


@exercise.oracle
def t5_bucket(relative_position, bidirectional=True, num_buckets=32, max_distance=128):
    attention = borrowed("transformers.models.t5.modeling_t5", "T5Attention")
    return attention._relative_position_bucket(relative_position, bidirectional, num_buckets, max_distance)


def _options(one):
    return {"bidirectional": True, "num_buckets": 32, "max_distance": 128} | one.kwargs


@exercise.law("Buckets run from 0 to num_buckets - 1")
def in_range(out, one, call):
    return bool(((out >= 0) & (out < _options(one)["num_buckets"])).all())


@exercise.law("The nearest distances have a bucket each")
def near_are_told_apart(out, one, call):
    """The nearest distances, up to half of a direction's buckets, have one bucket each."""
    options = _options(one)
    exact = options["num_buckets"] // (4 if options["bidirectional"] else 2)
    found = call(-torch.arange(exact), **one.kwargs)
    return same(found, torch.arange(exact))


@exercise.law("Further back is never a lower bucket")
def further_is_not_lower(out, one, call):
    return bool((call(-torch.arange(0, 400), **one.kwargs).diff() >= 0).all())


@exercise.law("From max_distance on all share the last bucket")
def far_shares_the_last(out, one, call):
    options = _options(one)
    count = options["num_buckets"] // (2 if options["bidirectional"] else 1)
    limit = options["max_distance"]
    far = call(-torch.tensor([limit + 1, 2 * limit, 50 * limit]), **one.kwargs)
    return same(far, torch.full((3,), count - 1))


@exercise.law("The future has buckets of its own, or, for a decoder, bucket 0")
def future_apart(out, one, call):
    options = _options(one)
    ahead = call(torch.tensor([1, 5, 70]), **one.kwargs)
    if not options["bidirectional"]:
        return same(ahead, torch.zeros(3, dtype=torch.long))
    return same(ahead, call(-torch.tensor([1, 5, 70]), **one.kwargs) + options["num_buckets"] // 2)


def _buckets(
    sign=-1,
    exact_share=2,
    edge="floor",
    last=-1,
    log=True,
    split=True,
    future=True,
    whole=lambda max_distance, exact: math.log(max_distance / exact),
):
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
        share = ratio.log() / whole(max_distance, exact) if log else (ratio - 1) / (max_distance / exact - 1)
        steps = share * (count - exact)
        far = exact + {"floor": steps.long(), "round": steps.round().long(), "ceil": steps.ceil().long()}[edge]
        far = far.clamp(max=count + last) if last is not None else far
        return start + torch.where(back < exact, back, far)

    return bucket


exercise.mistake(
    "past and future are swapped",
    hint="relative_position is the key's position minus the query's: negative is the past.",
)(_buckets(sign=1))

exercise.mistake(
    "past and future share their buckets",
    hint="With bidirectional=True the upper half of the buckets belongs to the future.",
)(_buckets(future=False))

exercise.mistake(
    "the buckets aren't halved for the two directions",
    hint="With bidirectional=True each direction has num_buckets // 2.",
)(_buckets(split=False))

exercise.mistake(
    "only a quarter of a direction's buckets are exact", hint="Half of a direction's buckets hold one distance each."
)(_buckets(exact_share=4))

exercise.mistake("the logarithm is rounded to the nearest bucket", hint="Round down: .long().")(_buckets(edge="round"))

exercise.mistake(
    "the logarithm is divided by that of max_distance, not of max_distance / e",
    hint="At max_distance the share is 1: log(r / e) / log(max_distance / e).",
)(_buckets(whole=lambda max_distance, exact: math.log(max_distance)))


@exercise.mistake("the position itself counts as the future", hint="The upper half is for positions greater than 0.")
def itself_ahead(relative_position, bidirectional=True, num_buckets=32, max_distance=128):
    found = bucket(relative_position, bidirectional, num_buckets, max_distance)
    return found + (relative_position == 0) * (num_buckets // 2) if bidirectional else found


@exercise.mistake(
    "the buckets are halved for a decoder, too", hint="With bidirectional=False all buckets belong to the past."
)
def halved_for_a_decoder(relative_position, bidirectional=True, num_buckets=32, max_distance=128):
    if bidirectional:
        return bucket(relative_position, True, num_buckets, max_distance)
    return bucket(relative_position, False, num_buckets // 2, max_distance)


exercise.mistake("the logarithm is rounded up", hint="Round down: .long().")(_buckets(edge="ceil"))

exercise.mistake(
    "far distances run out of the buckets", hint="Beyond max_distance everything shares the last bucket: clamp."
)(_buckets(last=None))

exercise.mistake("the last bucket is one too high", hint="c buckets are numbered 0 to c - 1.")(_buckets(last=0))

exercise.mistake(
    "far distances are spaced evenly instead of by the logarithm",
    hint="Buckets get wider with distance: log(r / e) / log(max_distance / e).",
)(_buckets(log=False))


@exercise.mistake(
    "every distance has its own bucket, until they run out",
    hint="Only the nearest ones do. The other half of the buckets reaches up to max_distance.",
)
def distance_itself(relative_position, bidirectional=True, num_buckets=32, max_distance=128):
    """No logarithm at all: distances up to the last bucket."""
    count = num_buckets // 2 if bidirectional else num_buckets
    back = relative_position.abs() if bidirectional else (-relative_position).clamp(min=0)
    start = (relative_position > 0).long() * count if bidirectional else 0
    return start + back.clamp(max=count - 1)


bucket = _buckets()


@exercise.mistake(
    "`bidirectional` is ignored",
    hint="A decoder has no future: all buckets belong to the past, and the future gets bucket 0.",
)
def flag_ignored(relative_position, bidirectional=True, num_buckets=32, max_distance=128):
    return bucket(relative_position, True, num_buckets, max_distance)


@exercise.mistake("`bidirectional` is inverted", hint="bidirectional=True is the encoder, which sees both directions.")
def flag_inverted(relative_position, bidirectional=True, num_buckets=32, max_distance=128):
    return bucket(relative_position, not bidirectional, num_buckets, max_distance)


@exercise.mistake("`max_distance` is always 128", hint="It is a parameter.")
def distance_ignored(relative_position, bidirectional=True, num_buckets=32, max_distance=128):
    return bucket(relative_position, bidirectional, num_buckets, 128)


@exercise.mistake("`num_buckets` is always 32", hint="It is a parameter.")
def count_ignored(relative_position, bidirectional=True, num_buckets=32, max_distance=128):
    return bucket(relative_position, bidirectional, 32, max_distance)


exercise.alternative(bucket)


@exercise.alternative
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


@exercise.alternative
def bucket_by_edges(relative_position, bidirectional=True, num_buckets=32, max_distance=128):
    """Counts how many edges lie below each distance."""
    count = num_buckets // 2 if bidirectional else num_buckets
    exact = count // 2
    steps = torch.arange(1, count - exact, dtype=torch.float64) / (count - exact)
    edges = torch.cat([torch.arange(1, exact + 1, dtype=torch.float64), exact * (max_distance / exact) ** steps])
    back = (relative_position.abs() if bidirectional else -relative_position).double()
    found = (back[..., None] >= edges).sum(-1)
    return found + ((relative_position > 0).long() * count if bidirectional else 0)
