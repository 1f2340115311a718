"""`assign_buckets(sizes, cap)`: Group tensors into buckets, in order."""

from __future__ import annotations

import torch
import torch.distributed as dist

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.ddp.shared import buckets_in_a_loop
from autograde.exercises.shared import pick

exercise = Draft(
    "assign_buckets",
    points=2,
    no_gradient="indices are whole numbers",
    hints=[
        "Go through the sizes once, with one open bucket and the bytes it holds.",
        "Put the tensor in first, then ask whether the bucket is full.",
        "After adding index i: if held >= cap, append the open bucket to the result and start an empty one at 0 bytes. "
        "At the end append what is left, if anything.",
    ],
)


@exercise.cases
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
    yield case([8, 0, 24, 0, 0, 16, 0], 24, label="tensors of no bytes")
    yield case([], 8, label="no tensor at all")
    yield case(some(200), 100, label="two hundred tensors")
    yield case([12] * pick(g, 7, 12), 24, label="equal sizes")


@exercise.oracle
def torch_buckets(sizes, cap):
    tensors = [torch.empty(size, dtype=torch.uint8) for size in sizes]
    return dist._compute_bucket_assignment_by_size(tensors, [cap])[0] if sizes else []


@exercise.law("Every tensor is in exactly one bucket, in the given order")
def _in_order(out, one, call):
    return [i for bucket in out for i in bucket] == list(range(len(one.args[0])))


def _cap(one):
    return one.kwargs.get("cap", one.args[-1])


@exercise.law("A bucket closes when it reaches the cap, not before and not later")
def _as_early_as_possible(out, one, call):
    held = [[one.args[0][i] for i in bucket] for bucket in out]
    return all(sum(h) >= _cap(one) for h in held[:-1]) and all(sum(h[:-1]) < _cap(one) for h in held)


@exercise.mistake(
    "a bucket closes before it would exceed the cap",
    hint="As in torch, a bucket is full when it holds cap bytes or more. It may exceed the cap.",
)
def buckets_never_above_cap(sizes, cap):
    buckets = []
    for i, size in enumerate(sizes):
        if not buckets or sum(sizes[j] for j in buckets[-1]) + size > cap:
            buckets.append([])
        buckets[-1].append(i)
    return buckets


def _close_when(is_full):
    def assign(sizes, cap):
        buckets, opened = [], []
        for i, size in enumerate(sizes):
            opened.append(i)
            if is_full(sum(sizes[j] for j in opened), size, cap, sum(sizes[: i + 1]), len(opened)):
                buckets.append(opened)
                opened = []
        return buckets + [opened] * bool(opened)

    return assign


exercise.mistake("a bucket that holds exactly cap bytes stays open", hint="Exactly cap bytes are enough.")(
    _close_when(lambda held, size, cap, total, count: held > cap)
)

exercise.mistake("the bytes are counted on after a bucket has closed", hint="A new bucket starts at 0 bytes.")(
    _close_when(lambda held, size, cap, total, count: total >= cap)
)


@exercise.mistake(
    "the last bucket is lost when it isn't full",
    hint="What is left at the end makes a bucket, too. Otherwise those gradients are never averaged.",
)
def buckets_without_the_rest(sizes, cap):
    return [b for b in buckets_in_a_loop(sizes, cap) if sum(sizes[i] for i in b) >= cap]


@exercise.mistake("the last bucket may be empty", hint="Where the last tensor fills a bucket, none is opened after it.")
def buckets_with_an_empty_one(sizes, cap):
    buckets = buckets_in_a_loop(sizes, cap)
    return buckets if buckets and sum(sizes[i] for i in buckets[-1]) < cap else [*buckets, []]


@exercise.mistake(
    "tensors of no bytes are left out", hint="Every index once: they have a gradient, though an empty one."
)
def buckets_without_empty_tensors(sizes, cap):
    buckets = [[i for i in bucket if sizes[i]] for bucket in buckets_in_a_loop(sizes, cap)]
    return [bucket for bucket in buckets if bucket]


@exercise.mistake("the buckets hold sizes instead of indices", hint="Which tensors, not how large they are.")
def buckets_of_sizes(sizes, cap):
    return [[sizes[i] for i in bucket] for bucket in buckets_in_a_loop(sizes, cap)]


@exercise.mistake("the largest tensors come first", hint="In the given order.")
def buckets_sorted(sizes, cap):
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    return [[order[i] for i in bucket] for bucket in buckets_in_a_loop([sizes[i] for i in order], cap)]


exercise.mistake("every tensor gets a bucket of its own", hint="Keep a bucket open until it holds cap bytes.")(
    _close_when(lambda held, size, cap, total, count: True)
)

exercise.mistake("the cap is taken as a number of tensors", hint="Add up the sizes: the cap is in bytes.")(
    _close_when(lambda held, size, cap, total, count: count >= cap)
)

exercise.mistake(
    "only the size of the last tensor is held against the cap", hint="Add up all sizes in the open bucket."
)(_close_when(lambda held, size, cap, total, count: size >= cap))

exercise.alternative(buckets_in_a_loop)
