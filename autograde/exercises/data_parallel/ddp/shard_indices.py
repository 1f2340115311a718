"""`shard_indices(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False)`

The examples that one rank sees in one epoch, in order.
"""

from __future__ import annotations

import math
import random

import torch
from torch.utils.data import DistributedSampler

from autograde.exercise import Draft, case
from autograde.exercises.shared import pick

exercise = Draft(
    "shard_indices",
    points=3,
    no_gradient="indices are whole numbers",
    forbid=["torch.utils.data.distributed"],
    hints=[
        "Every rank can work out the order of all n examples by itself. Then it takes its share.",
        "Three steps: order (shuffled with seed + epoch, or not), fit (pad or cut to a multiple of world_size), take.",
        "Padding: repeat the order from its beginning as often as needed, then cut at ceil(n / world_size) · "
        "world_size. Taking: order[rank::world_size].",
    ],
)


@exercise.cases
def shard_cases(g):
    def some(low=3, high=9):
        return pick(g, low, high)

    yield case(12, 1, 3, label="divides evenly")
    yield case(some() * 4 + 2, 3, 4, label="two short of dividing evenly")
    yield case(some() * 4 + 3, 1, 4, epoch=pick(g, 1, 50), label="a later epoch")
    yield case(some() * 3 + 1, 2, 3, epoch=pick(g, 1, 50), seed=pick(g, 1, 999), label="another seed, by keyword")
    yield case(some() * 4 + 2, 3, 4, shuffle=False, label="not shuffled")
    yield case(some() * 4 + 3, 1, 4, drop_last=True, label="the odd ones dropped")
    yield case(some() * 3 + 2, 2, 3, 2, False, 0, True, label="not shuffled, the odd ones dropped")
    yield case(some() * 4, 1, 4, drop_last=True, label="nothing to drop")
    yield case(3, 7, 8, label="fewer examples than ranks: padded more than once")
    yield case(3, 1, 8, drop_last=True, label="fewer examples than ranks, dropped: nothing is left")
    yield case(pick(g, 143, 146) * 7 + 5, 6, 7, epoch=pick(g, 100, 500), label="many examples")
    yield case(some(), 0, 1, epoch=pick(g, 1, 50), label="one rank")


@exercise.oracle
def torch_sampler(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False, watched=False):
    options = {"shuffle": shuffle, "seed": seed, "drop_last": drop_last}
    sampler = DistributedSampler(range(n), num_replicas=world_size, rank=rank, **options)
    sampler.set_epoch(epoch)
    return list(sampler)


@exercise.probe
def dealt(shard_indices, *args, watched=False, **options):
    """The indices; if `watched`, whether torch's global generator is left as it was."""
    import torch

    before = torch.get_rng_state()
    found = shard_indices(*args, **options)
    return torch.equal(before, torch.get_rng_state()) if watched else found


def _arguments(one):
    names = ("n", "rank", "world_size", "epoch", "shuffle", "seed", "drop_last")
    return dict(zip(names, one.args, strict=False)) | one.kwargs


def _shards(one, call, **changes):
    given = _arguments(one) | changes
    return [call(**(given | {"rank": r})) for r in range(given["world_size"])]


@exercise.law("All ranks get the same number of examples")
def _equal_shares(out, one, call):
    return len({len(shard) for shard in _shards(one, call)}) == 1


@exercise.law("Together the ranks see every example")
def _together_all(out, one, call):
    if _arguments(one).get("drop_last"):
        return None
    seen = {i for shard in _shards(one, call) for i in shard}
    if not all(isinstance(i, int) for i in seen):
        return "the list holds other things than ints"
    return seen == set(range(one.args[0])) or f"{len(seen)} of {one.args[0]} examples are seen"


@exercise.law("With drop_last no example is seen twice")
def _nothing_twice(out, one, call):
    if one.args[0] < one.args[2]:
        return None
    seen = [i for shard in _shards(one, call, drop_last=True) for i in shard]
    return len(seen) == len(set(seen)) > 0


@exercise.law("torch's global generator is left as it was")
def _own_generator(out, one, call):
    return call(**_arguments(one), watched=True)


@exercise.law("Another epoch brings another order")
def _epochs_differ(out, one, call):
    given = _arguments(one)
    if given["n"] < 12 or not given.get("shuffle", True):
        return None
    return call(**(given | {"epoch": 7})) != call(**(given | {"epoch": 8}))


def _order(n, epoch, shuffle, seed):
    if not shuffle:
        return list(range(n))
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed + epoch)).tolist()


def _total(n, world_size, drop_last):
    return (n // world_size if drop_last else math.ceil(n / world_size)) * world_size


@exercise.alternative
def shard_by_position(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    """Right: position i of this rank's shard is place rank + i * world_size of the common order, wrapped around."""
    order = _order(n, epoch, shuffle, seed)
    return [order[i % n] for i in range(rank, _total(n, world_size, drop_last), world_size)]


@exercise.mistake(
    "the order is shuffled with the seed alone, so that every epoch has the same one",
    hint="Seed the generator with seed + epoch.",
)
def shard_same_every_epoch(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    return shard_by_position(n, rank, world_size, 0, shuffle, seed, drop_last)


@exercise.mistake(
    "each rank shuffles with a seed of its own",
    hint="The shards only fit together when all ranks cut the same order. What must the seed not depend on?",
)
def shard_seed_by_rank(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    return shard_by_position(n, rank, world_size, epoch, shuffle, seed + rank, drop_last)


def _fill(order, total):
    """The first `total` of `order`, begun again as often as needed."""
    return (order * math.ceil(total / len(order)))[:total]


@exercise.mistake(
    "each rank takes one block of the order instead of every world_size-th place",
    hint="Rank r takes places r, r + world_size, r + 2 · world_size, …",
)
def shard_in_blocks(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    total = _total(n, world_size, drop_last)
    each = total // world_size
    return _fill(_order(n, epoch, shuffle, seed), total)[rank * each : (rank + 1) * each]


@exercise.mistake(
    "the order isn't padded, so that some ranks get one example less",
    hint="A rank with fewer batches stops early, and the others wait for it in the next all-reduce. Pad first.",
)
def shard_unpadded(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    order = _order(n, epoch, shuffle, seed)
    return order[: _total(n, world_size, True) if drop_last else n][rank::world_size]


@exercise.mistake("the order is padded with its last entry", hint="Pad by starting the order again from its beginning.")
def shard_padded_with_last(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    order, total = _order(n, epoch, shuffle, seed), _total(n, world_size, drop_last)
    return (order + order[-1:] * world_size)[:total][rank::world_size]


@exercise.mistake(
    "the order is padded with examples 0, 1, … instead of with its own first entries",
    hint="What is repeated is the beginning of the shuffled order, not of the data.",
)
def shard_padded_with_first_examples(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    order, total = _order(n, epoch, shuffle, seed), _total(n, world_size, drop_last)
    return (order + _fill(list(range(n)), world_size))[:total][rank::world_size]


@exercise.mistake(
    "the order is padded from its beginning only once",
    hint="Where n is below world_size / 2 that isn't enough: start it again as often as needed.",
)
def shard_padded_once(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    order, total = _order(n, epoch, shuffle, seed), _total(n, world_size, drop_last)
    return (order + order[: max(total - n, 0)])[:total][rank::world_size]


@exercise.mistake(
    "torch's global generator is seeded anew",
    hint="Whatever is drawn after your function then follows from its seed. Seed a generator of its own.",
)
def shard_by_global_generator(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    if shuffle:
        torch.manual_seed(seed + epoch)
        torch.randperm(n)
    return shard_by_position(n, rank, world_size, epoch, shuffle, seed, drop_last)


@exercise.mistake(
    "an order that comes out even is cut all the same",
    hint="drop_last drops n % world_size examples: none where that is 0.",
)
def shard_drops_a_round(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    mine = shard_by_position(n, rank, world_size, epoch, shuffle, seed, drop_last)
    return mine[:-1] if drop_last and n % world_size == 0 else mine


@exercise.mistake("the order is padded with zeros", hint="Pad by starting the order again from its beginning.")
def shard_padded_with_zeros(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    order, total = _order(n, epoch, shuffle, seed), _total(n, world_size, drop_last)
    return (order + [0] * world_size)[:total][rank::world_size]


@exercise.mistake("the order is padded from its end", hint="Pad by starting the order again from its beginning.")
def shard_padded_from_end(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    order, total = _order(n, epoch, shuffle, seed), _total(n, world_size, drop_last)
    return (order + _fill(order[::-1], world_size))[:total][rank::world_size]


@exercise.mistake("the order is never shuffled", hint="With shuffle=True: torch.randperm(n, generator=…).")
def shard_never_shuffled(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    return shard_by_position(n, rank, world_size, epoch, False, seed, drop_last)


@exercise.mistake(
    "the order is shuffled by Python's random", hint="All ranks have to agree: torch.randperm, as the docstring says."
)
def shard_by_random(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    order = list(range(n))
    if shuffle:
        random.Random(seed + epoch).shuffle(order)
    return _fill(order, _total(n, world_size, drop_last))[rank::world_size]


@exercise.mistake("`drop_last` is inverted", hint="drop_last=True cuts, drop_last=False pads.")
def shard_drop_inverted(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    return shard_by_position(n, rank, world_size, epoch, shuffle, seed, not drop_last)


@exercise.mistake("an order that comes out even is padded all the same", hint="Up to the next multiple: n may be one.")
def shard_pads_a_round(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    if drop_last or n % world_size:
        return shard_by_position(n, rank, world_size, epoch, shuffle, seed, drop_last)
    return _fill(_order(n, epoch, shuffle, seed), n + world_size)[rank::world_size]


@exercise.mistake("seed and epoch are multiplied", hint="The generator is seeded with seed + epoch.")
def shard_seed_times_epoch(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    return shard_by_position(n, rank, world_size, 0, shuffle, seed * epoch, drop_last)


@exercise.mistake("the seed isn't used, the epoch alone is", hint="The generator is seeded with seed + epoch.")
def shard_without_seed(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    return shard_by_position(n, rank, world_size, epoch, shuffle, 0, drop_last)


@exercise.mistake("padding comes before shuffling", hint="Shuffle the n examples first, then pad the shuffled order.")
def shard_padded_before_shuffle(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    padded = _fill(list(range(n)), _total(n, world_size, drop_last))
    return [padded[i] for i in _order(len(padded), epoch, shuffle, seed)][rank::world_size]


@exercise.mistake(
    "the data is sharded first and each shard is shuffled by itself",
    hint="Shuffle all n examples first. Otherwise a rank sees the same few examples in every epoch.",
)
def shard_then_shuffle(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    mine = shard_by_position(n, rank, world_size, shuffle=False, drop_last=drop_last)
    return [mine[i] for i in _order(len(mine), epoch, shuffle, seed)]


@exercise.mistake(
    "drop_last is ignored and the order always padded",
    hint="With drop_last=True the order is cut to a multiple of world_size.",
)
def shard_always_padded(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    return shard_by_position(n, rank, world_size, epoch, shuffle, seed, False)


@exercise.mistake(
    "the odd examples are always dropped",
    hint="Without drop_last nothing may be lost: pad up to a multiple of world_size.",
)
def shard_always_dropped(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    return shard_by_position(n, rank, world_size, epoch, shuffle, seed, True)


@exercise.mistake(
    "the order is shuffled although shuffle=False", hint="With shuffle=False the order is 0, 1, …, n - 1."
)
def shard_always_shuffled(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    return shard_by_position(n, rank, world_size, epoch, True, seed, drop_last)


@exercise.alternative
def shard_by_reshape(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    """Right: the padded order as a table with one column a rank."""
    order = torch.tensor(_order(n, epoch, shuffle, seed))
    table = order.repeat(world_size)[: _total(n, world_size, drop_last)].reshape(-1, world_size)
    return table[:, rank].tolist()
