"""Right and wrong functions for the exercises of 03_data_parallel/03_ddp. The wrappers are in ddp_wrappers."""

from __future__ import annotations

import contextlib
import math

import torch
import torch.distributed as dist

# ---- shard_indices --------------------------------------------------------------------------------------------------


def _order(n, epoch, shuffle, seed):
    if not shuffle:
        return list(range(n))
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed + epoch)).tolist()


def _fill(order, total):
    """The first `total` of `order`, begun again as often as needed."""
    return (order * math.ceil(total / len(order)))[:total]


def _total(n, world_size, drop_last):
    return (n // world_size if drop_last else math.ceil(n / world_size)) * world_size


def shard_by_position(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    """Right: position i of this rank's shard is place rank + i * world_size of the common order, wrapped around."""
    order = _order(n, epoch, shuffle, seed)
    return [order[i % n] for i in range(rank, _total(n, world_size, drop_last), world_size)]


def shard_by_reshape(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    """Right: the padded order as a table with one column a rank."""
    order = torch.tensor(_order(n, epoch, shuffle, seed))
    table = order.repeat(world_size)[: _total(n, world_size, drop_last)].reshape(-1, world_size)
    return table[:, rank].tolist()


def shard_same_every_epoch(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    return shard_by_position(n, rank, world_size, 0, shuffle, seed, drop_last)


def shard_seed_by_rank(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    return shard_by_position(n, rank, world_size, epoch, shuffle, seed + rank, drop_last)


def shard_in_blocks(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    total = _total(n, world_size, drop_last)
    each = total // world_size
    return _fill(_order(n, epoch, shuffle, seed), total)[rank * each : (rank + 1) * each]


def shard_unpadded(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    order = _order(n, epoch, shuffle, seed)
    return order[: _total(n, world_size, True) if drop_last else n][rank::world_size]


def shard_padded_with_last(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    order, total = _order(n, epoch, shuffle, seed), _total(n, world_size, drop_last)
    return (order + order[-1:] * world_size)[:total][rank::world_size]


def shard_padded_with_first_examples(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    order, total = _order(n, epoch, shuffle, seed), _total(n, world_size, drop_last)
    return (order + _fill(list(range(n)), world_size))[:total][rank::world_size]


def shard_padded_before_shuffle(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    padded = _fill(list(range(n)), _total(n, world_size, drop_last))
    return [padded[i] for i in _order(len(padded), epoch, shuffle, seed)][rank::world_size]


def shard_then_shuffle(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    mine = shard_by_position(n, rank, world_size, shuffle=False, drop_last=drop_last)
    return [mine[i] for i in _order(len(mine), epoch, shuffle, seed)]


def shard_always_padded(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    return shard_by_position(n, rank, world_size, epoch, shuffle, seed, False)


def shard_always_dropped(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    return shard_by_position(n, rank, world_size, epoch, shuffle, seed, True)


def shard_always_shuffled(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    return shard_by_position(n, rank, world_size, epoch, True, seed, drop_last)


# ---- average_gradients ----------------------------------------------------------------------------------------------


def trainable(model):
    return [p for p in model.parameters() if p.requires_grad]


def grad_or_zeros(p):
    return torch.zeros_like(p) if p.grad is None else p.grad


def average_one_by_one(model):
    """Right: one all-reduce a parameter, started together and waited for together."""
    params = trainable(model)
    for p in params:
        p.grad = grad_or_zeros(p)
    for work in [dist.all_reduce(p.grad, async_op=True) for p in params]:
        work.wait()
    for p in params:
        p.grad /= dist.get_world_size()


def average_flat(model):
    """Right: one flat bucket, divided before it is sent."""
    params = trainable(model)
    flat = torch.cat([grad_or_zeros(p).flatten() for p in params]) / dist.get_world_size()
    dist.all_reduce(flat)
    for p, part in zip(params, flat.split([p.numel() for p in params]), strict=True):
        p.grad = part.view_as(p).clone()


def average_sums(model):
    average_flat(model)
    for p in trainable(model):
        p.grad *= dist.get_world_size()


def average_divides_twice(model):
    average_flat(model)
    for p in trainable(model):
        p.grad /= dist.get_world_size()


def average_weights_only(model):
    for p in trainable(model):
        p.grad = grad_or_zeros(p)
        if p.dim() > 1:
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()


def average_skips_missing(model):
    for p in trainable(model):
        if p.grad is not None:
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()


def average_forgets_to_store_missing(model):
    for p in trainable(model):
        grad = grad_or_zeros(p)
        dist.all_reduce(grad)
        grad /= dist.get_world_size()


def average_in_a_copy(model):
    for p in trainable(model):
        p.grad = grad_or_zeros(p)
        mean = p.grad / dist.get_world_size()
        dist.all_reduce(mean)


def average_the_parameters(model):
    for p in trainable(model):
        p.grad = grad_or_zeros(p)
        dist.all_reduce(p.data)
        p.data /= dist.get_world_size()


def average_takes_rank_0(model):
    for p in trainable(model):
        p.grad = grad_or_zeros(p)
        dist.broadcast(p.grad, src=0)


def average_only_on_rank_0(model):
    for p in trainable(model):
        p.grad = grad_or_zeros(p)
        total = p.grad.clone()
        dist.reduce(total, dst=0)
        if dist.get_rank() == 0:
            p.grad = total / dist.get_world_size()


def average_includes_frozen(model):
    for p in model.parameters():
        p.grad = grad_or_zeros(p)
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


def average_by_gathering(model):
    for p in trainable(model):
        everyones = [torch.empty_like(p) for _ in range(dist.get_world_size())]
        dist.all_gather(everyones, grad_or_zeros(p).contiguous())
        p.grad = torch.stack(everyones).mean(0)


# ---- assign_buckets -------------------------------------------------------------------------------------------------


def buckets_in_a_loop(sizes, cap):
    """Right: a bucket that holds `cap` bytes takes nothing more."""
    buckets = []
    for i, _ in enumerate(sizes):
        if not buckets or sum(sizes[j] for j in buckets[-1]) >= cap:
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


buckets_past_the_cap = _close_when(lambda held, size, cap, total, count: held > cap)
buckets_of_one = _close_when(lambda held, size, cap, total, count: True)
buckets_by_running_total = _close_when(lambda held, size, cap, total, count: total >= cap)
buckets_of_cap_items = _close_when(lambda held, size, cap, total, count: count >= cap)
buckets_by_last_size = _close_when(lambda held, size, cap, total, count: size >= cap)


def buckets_never_above_cap(sizes, cap):
    buckets = []
    for i, size in enumerate(sizes):
        if not buckets or sum(sizes[j] for j in buckets[-1]) + size > cap:
            buckets.append([])
        buckets[-1].append(i)
    return buckets


def buckets_without_the_rest(sizes, cap):
    return [b for b in buckets_in_a_loop(sizes, cap) if sum(sizes[i] for i in b) >= cap]


# ---- accumulate -----------------------------------------------------------------------------------------------------


def accumulate_by_rows(ddp, loss_fn, batches):
    """Right: each micro-batch counts by its rows."""
    rows, total = sum(len(x) for x, _ in batches), 0.0
    for i, (x, y) in enumerate(batches):
        with contextlib.nullcontext() if i == len(batches) - 1 else ddp.no_sync():
            loss = loss_fn(ddp(x), y) * (len(x) / rows)
            loss.backward()
        total += loss.item()
    return total


def accumulate_then_last(ddp, loss_fn, batches):
    """Right: all but the last in one no_sync block; the loss stays a tensor."""
    rows, losses = sum(len(x) for x, _ in batches), []

    def back(x, y):
        losses.append(loss_fn(ddp(x), y) * len(x) / rows)
        losses[-1].backward()

    with ddp.no_sync():
        for x, y in batches[:-1]:
            back(x, y)
    back(*batches[-1])
    return torch.stack(losses).sum().detach()


def _accumulate(ddp, loss_fn, batches, weight=None, quiet=None, forward_inside=True, only_last=False):
    """One loop for the mistakes: `weight(i)` of a micro-batch's loss, `quiet(i)`: whether it runs under no_sync."""
    rows, total = sum(len(x) for x, _ in batches), 0.0
    for i, (x, y) in enumerate(batches):
        share = weight(i) if weight else len(x) / rows
        silent = quiet(i) if quiet else i < len(batches) - 1
        early = None if forward_inside else ddp(x)
        with ddp.no_sync() if silent else contextlib.nullcontext():
            loss = loss_fn(ddp(x) if forward_inside else early, y)
            (loss * share).backward()
        total += loss.item() * share
    return loss.item() if only_last else total


def accumulate_sums(ddp, loss_fn, batches):
    return _accumulate(ddp, loss_fn, batches, weight=lambda i: 1.0)


def accumulate_mean_of_means(ddp, loss_fn, batches):
    return _accumulate(ddp, loss_fn, batches, weight=lambda i: 1 / len(batches))


def accumulate_divides_twice(ddp, loss_fn, batches):
    rows = sum(len(x) for x, _ in batches)
    return _accumulate(ddp, loss_fn, batches, weight=lambda i: len(batches[i][0]) / rows / len(batches))


def accumulate_syncs_always(ddp, loss_fn, batches):
    return _accumulate(ddp, loss_fn, batches, quiet=lambda i: False)


def accumulate_never_syncs(ddp, loss_fn, batches):
    return _accumulate(ddp, loss_fn, batches, quiet=lambda i: True)


def accumulate_syncs_first(ddp, loss_fn, batches):
    return _accumulate(ddp, loss_fn, batches, quiet=lambda i: i > 0)


def accumulate_forward_outside(ddp, loss_fn, batches):
    return _accumulate(ddp, loss_fn, batches, forward_inside=False)


def accumulate_returns_last(ddp, loss_fn, batches):
    return _accumulate(ddp, loss_fn, batches, only_last=True)
