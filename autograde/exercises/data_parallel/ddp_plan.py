"""Exercises of 03_data_parallel/03_ddp that need no ranks: which examples and which buckets.

The judges are torch's DistributedSampler and the bucket assignment of torch's own DistributedDataParallel.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.utils.data import DistributedSampler

from autograde.exercise import Exercise, Law, Misconception, case
from autograde.exercises.data_parallel import ddp_mistakes as wrong


def pick(generator, low, high):
    return int(torch.randint(low, high + 1, (), generator=generator))


# ---- shard_indices --------------------------------------------------------------------------------------------------


def torch_sampler(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    options = {"shuffle": shuffle, "seed": seed, "drop_last": drop_last}
    sampler = DistributedSampler(range(n), num_replicas=world_size, rank=rank, **options)
    sampler.set_epoch(epoch)
    return list(sampler)


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
    yield case(3, 4, 8, label="fewer examples than ranks: padded more than once")
    yield case(some(), 0, 1, epoch=pick(g, 1, 50), label="one rank")


def _arguments(one):
    names = ("n", "rank", "world_size", "epoch", "shuffle", "seed", "drop_last")
    return dict(zip(names, one.args, strict=False)) | one.kwargs


def _shards(one, call, **changes):
    given = _arguments(one) | changes
    return [call(**(given | {"rank": r})) for r in range(given["world_size"])]


def _equal_shares(out, one, call):
    return len({len(shard) for shard in _shards(one, call)}) == 1


def _together_all(out, one, call):
    if _arguments(one).get("drop_last"):
        return None
    seen = {i for shard in _shards(one, call) for i in shard}
    return seen == set(range(one.args[0])) or f"{len(seen)} of {one.args[0]} examples are seen"


def _nothing_twice(out, one, call):
    if one.args[0] < one.args[2]:
        return None
    seen = [i for shard in _shards(one, call, drop_last=True) for i in shard]
    return len(seen) == len(set(seen)) > 0


def _epochs_differ(out, one, call):
    given = _arguments(one)
    if given["n"] < 12 or not given.get("shuffle", True):
        return None
    return call(**(given | {"epoch": 7})) != call(**(given | {"epoch": 8}))


shard_indices = Exercise(
    name="shard_indices",
    points=3,
    cases=shard_cases,
    oracle=torch_sampler,
    laws=[
        Law("All ranks get the same number of examples", _equal_shares),
        Law("Together the ranks see every example", _together_all),
        Law("With drop_last no example is seen twice", _nothing_twice),
        Law("Another epoch brings another order", _epochs_differ),
    ],
    misconceptions=[
        Misconception(
            "the order is shuffled with the seed alone, so that every epoch has the same one",
            wrong.shard_same_every_epoch,
            "Seed the generator with seed + epoch.",
        ),
        Misconception(
            "each rank shuffles with a seed of its own",
            wrong.shard_seed_by_rank,
            "The shards only fit together when all ranks cut the same order. What must the seed not depend on?",
        ),
        Misconception(
            "each rank takes one block of the order instead of every world_size-th place",
            wrong.shard_in_blocks,
            "Rank r takes places r, r + world_size, r + 2 · world_size, …",
        ),
        Misconception(
            "the order isn't padded, so that some ranks get one example less",
            wrong.shard_unpadded,
            "A rank with fewer batches stops early, and the others wait for it in the next all-reduce. Pad first.",
        ),
        Misconception(
            "the order is padded with its last entry",
            wrong.shard_padded_with_last,
            "Pad by starting the order again from its beginning.",
        ),
        Misconception(
            "the order is padded with examples 0, 1, … instead of with its own first entries",
            wrong.shard_padded_with_first_examples,
            "What is repeated is the beginning of the shuffled order, not of the data.",
        ),
        Misconception(
            "padding comes before shuffling",
            wrong.shard_padded_before_shuffle,
            "Shuffle the n examples first, then pad the shuffled order.",
        ),
        Misconception(
            "the data is sharded first and each shard is shuffled by itself",
            wrong.shard_then_shuffle,
            "Shuffle all n examples first. Otherwise a rank sees the same few examples in every epoch.",
        ),
        Misconception(
            "drop_last is ignored and the order always padded",
            wrong.shard_always_padded,
            "With drop_last=True the order is cut to a multiple of world_size.",
        ),
        Misconception(
            "the odd examples are always dropped",
            wrong.shard_always_dropped,
            "Without drop_last nothing may be lost: pad up to a multiple of world_size.",
        ),
        Misconception(
            "the order is shuffled although shuffle=False",
            wrong.shard_always_shuffled,
            "With shuffle=False the order is 0, 1, …, n - 1.",
        ),
    ],
    alternatives=[wrong.shard_by_position, wrong.shard_by_reshape],
    forbid=["torch.utils.data.distributed"],
    hints=[
        "Every rank can work out the order of all n examples by itself. Then it takes its share.",
        "Three steps: order (shuffled with seed + epoch, or not), fit (pad or cut to a multiple of world_size), take.",
        "Padding: repeat the order from its beginning as often as needed, then cut at ceil(n / world_size) · "
        "world_size. Taking: order[rank::world_size].",
    ],
)


# ---- assign_buckets -------------------------------------------------------------------------------------------------


def torch_buckets(sizes, cap):
    tensors = [torch.empty(size, dtype=torch.uint8) for size in sizes]
    return dist._compute_bucket_assignment_by_size(tensors, [cap])[0]


def bucket_cases(g):
    def some(count, low=1, high=9):
        return [4 * pick(g, low, high) for _ in range(count)]

    yield case([8, 24, 16, 40, 4], 48, label="one bucket reaches the cap exactly")
    yield case([40, 8, 8, 8, 8, 8], 32, label="a large one, then small ones")
    yield case([4, 4, 80, 4, 4], 20, label="one tensor above the cap")
    yield case(some(9), 40, label="many")
    yield case(some(6), cap=1, label="a tiny cap, by keyword")
    yield case(some(5), 25 * 2**20, label="a cap that is never reached")
    yield case(some(1), 8, label="one tensor")
    yield case([12] * pick(g, 7, 12), 24, label="equal sizes")


def _cap(one):
    return one.kwargs.get("cap", one.args[-1])


def _in_order(out, one, call):
    return [i for bucket in out for i in bucket] == list(range(len(one.args[0])))


def _as_early_as_possible(out, one, call):
    held = [[one.args[0][i] for i in bucket] for bucket in out]
    return all(sum(h) >= _cap(one) for h in held[:-1]) and all(sum(h[:-1]) < _cap(one) for h in held)


assign_buckets = Exercise(
    name="assign_buckets",
    points=2,
    cases=bucket_cases,
    oracle=torch_buckets,
    laws=[
        Law("Every tensor is in exactly one bucket, in the given order", _in_order),
        Law("A bucket closes when it reaches the cap, not before and not later", _as_early_as_possible),
    ],
    misconceptions=[
        Misconception(
            "a bucket closes before it would exceed the cap",
            wrong.buckets_never_above_cap,
            "As in torch, a bucket is full when it holds cap bytes or more. It may exceed the cap.",
        ),
        Misconception(
            "a bucket that holds exactly cap bytes stays open",
            wrong.buckets_past_the_cap,
            "Exactly cap bytes are enough.",
        ),
        Misconception(
            "the bytes are counted on after a bucket has closed",
            wrong.buckets_by_running_total,
            "A new bucket starts at 0 bytes.",
        ),
        Misconception(
            "the last bucket is lost when it isn't full",
            wrong.buckets_without_the_rest,
            "What is left at the end makes a bucket, too. Otherwise those gradients are never averaged.",
        ),
        Misconception(
            "every tensor gets a bucket of its own",
            wrong.buckets_of_one,
            "Keep a bucket open until it holds cap bytes.",
        ),
        Misconception(
            "the cap is taken as a number of tensors",
            wrong.buckets_of_cap_items,
            "Add up the sizes: the cap is in bytes.",
        ),
        Misconception(
            "only the size of the last tensor is held against the cap",
            wrong.buckets_by_last_size,
            "Add up all sizes in the open bucket.",
        ),
    ],
    alternatives=[wrong.buckets_in_a_loop],
    hints=[
        "Go through the sizes once, with one open bucket and the bytes it holds.",
        "Put the tensor in first, then ask whether the bucket is full.",
        "After adding index i: if held >= cap, append the open bucket to the result and start an empty one at 0 bytes. "
        "At the end append what is left, if anything.",
    ],
)
