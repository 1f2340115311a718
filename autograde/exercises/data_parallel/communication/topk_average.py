"""`topk_average(gradient, residual, k)`: The ranks' mean of their k largest entries; what stays behind is kept."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist

from autograde.exercise import Draft, case, same
from autograde.exercises.data_parallel.communication.shared import gathered, mean_over_ranks, other_calls
from autograde.exercises.data_parallel.shared import agree_by_entry
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "topk_average",
    points=4,
    ranks=True,
    limit=4.0,
    dtypes=[torch.float64],
    hints=[
        "Two lists travel: the k values, and where they stand. Who gets them all can add them up by himself.",
        "corrected = gradient + residual, flat. abs().topk(k).indices says where; all_gather the values, then the "
        "indices as int32. Add every rank's values at every rank's places, divide by the number of ranks.",
        "mean = torch.zeros_like(flat); for each rank: mean.index_add_(0, indices, values), which adds up where two "
        "ranks meet. The residual is a copy of flat with zeros at this rank's own indices.",
    ],
)


@exercise.cases
def topk_cases(g):
    def some(world, shape, k, label, meet=None):
        gradient, residual = 2 * randn(g, world, *shape), randn(g, world, *shape)
        if meet is not None:  # an entry that every rank sends, and another one than each would without its residual
            gradient.flatten(1)[:, meet] = 5 + torch.rand(world, generator=g)
        return case(gradient, residual, k, ranks=world, label=label)

    rows = pick(g, 3, 5)
    yield some(2, (rows, 4), pick(g, 3, 5), "a matrix on two ranks")
    yield some(3, (8,), 3, "all three ranks send the same entry, and others", meet=pick(g, 0, 7))
    yield some(2, (1, 6), 6, "k = all: nothing stays behind")
    yield some(3, (2, 3, 3), 1, "one entry of a larger tensor")
    nothing = torch.zeros(4, rows, 3)
    yield case(randn(g, 4, rows, 3), nothing, 4, ranks=4, label="the first step: nothing is left over yet")


@exercise.oracle
def sum_of_sparse(gradient, residual, k):
    """torch's own sparse tensors add up what meets."""
    flat = (gradient + residual).flatten(1)
    places = flat.abs().topk(k).indices
    values = flat.gather(1, places)
    sent = [
        torch.sparse_coo_tensor(i[None], v, flat.shape[1:], check_invariants=True)
        for i, v in zip(places, values, strict=True)
    ]
    mean = (sum(sent[1:], sent[0]) / len(flat)).to_dense().view_as(gradient[0])
    left = [(row - one.to_dense()).view_as(gradient[0]) for row, one in zip(flat, sent, strict=True)]
    return [{"mean": mean, "residual": one} for one in left]


@exercise.probe
def topk_on_rank(function, gradient, residual, k):
    """Rank r has gradient[r] and residual[r]."""
    import torch.distributed as dist

    rank = dist.get_rank()
    mean, left = function(gradient[rank], residual[rank], k)
    return {"mean": mean, "residual": left}


exercise.agrees(agree_by_entry(["mean", "residual"], sum_of_sparse))


@exercise.law("A rank sends k values and k int32 indices, by all_gather", essential=True)
def _few_bytes(out, one, call):
    if told := other_calls(out, ["all_gather", "all_gather_into_tensor"]):
        return told
    gradient, _, k = one.args
    most = k * (gradient.element_size() + 4)
    for r, messages in enumerate(out.traffic):
        sent = sum(m.bytes for m in messages)
        if sent != most:
            kinds = " and ".join(f"{math.prod(m.shape)} {m.dtype}" for m in messages) or "nothing"
            return f"{one.label}: rank {r} sends {kinds}, {sent} bytes; with k = {k} it is {most}"
    return True


@exercise.law("What was sent and what stays behind add up to what was there")
def _nothing_lost(out, one, call):
    gradient, residual, _ = one.args
    told = len(out) * out[0]["mean"] + sum(r["residual"] for r in out)
    return same((gradient + residual).sum(0), told) or "n times the mean plus all residuals is another sum"


@exercise.law("The results have the gradient's dtype and shape")
def _keeps(out, one, call):
    like = one.args[0][0]
    found = [x for r in out for x in r.values()]
    return all(isinstance(x, torch.Tensor) and (x.dtype, x.shape) == (like.dtype, like.shape) for x in found)


def _largest(flat, k):
    return flat.abs().topk(k).indices


def _spread(values, places, like):
    """The mean of the ranks' sparse vectors, as a full one."""
    total = torch.zeros_like(like)
    for v, i in zip(values, places, strict=True):
        total.index_add_(0, i.long(), v)
    return total / len(values)


def _round(gradient, corrected, k, places=None, spread=_spread, kind=torch.int32, left=None):
    """Right as it stands, with corrected = gradient + residual; a mistake replaces a part."""
    flat = corrected.flatten()
    places = _largest(flat, k) if places is None else places(flat, k)
    values = gathered(flat[places])
    mean = spread(values, gathered(places.to(kind)), flat)
    behind = flat.clone().index_fill_(0, places, 0) if left is None else left(flat, places, mean)
    return mean.view_as(gradient), behind.view_as(gradient)


@exercise.alternative
def topk_in_steps(gradient, residual, k):
    """Right: two all_gathers, one sum."""
    return _round(gradient, gradient + residual, k)


@exercise.alternative
def topk_in_one_message(gradient, residual, k):
    """Right: values and indices travel as the bytes of one message; what is left is what wasn't sent."""
    flat = (gradient + residual).flatten()
    places = _largest(flat, k)
    packed = torch.cat([flat[places].view(torch.uint8), places.int().view(torch.uint8)])
    everyones = [torch.empty_like(packed) for _ in range(dist.get_world_size())]
    dist.all_gather(everyones, packed)
    size = k * flat.element_size()
    values = torch.stack([one[:size].clone().view(flat.dtype) for one in everyones])
    indices = torch.stack([one[size:].clone().view(torch.int32) for one in everyones]).long()
    mean = torch.zeros(len(values), len(flat), dtype=flat.dtype).scatter(1, indices, values).mean(0)
    kept = torch.ones_like(flat, dtype=torch.bool)
    kept[places] = False
    return mean.view(gradient.shape), torch.where(kept, flat, 0).view(gradient.shape)


@exercise.mistake(
    "the residual of earlier steps is never added",
    hint="What stayed behind last time belongs to this step's gradient: correct it first, then choose.",
)
def topk_forgets_residual(gradient, residual, k):
    return _round(gradient, gradient, k)


@exercise.mistake(
    "the entries are chosen by the gradient alone, before the residual is added",
    hint="An entry that was small for many steps may have become large: choose after adding.",
)
def topk_chooses_too_early(gradient, residual, k):
    return _round(gradient, gradient + residual, k, places=lambda flat, k: _largest(gradient.flatten(), k))


@exercise.mistake(
    "the residual that comes back is all of the corrected gradient, what was sent included",
    hint="What was sent has arrived: set it to 0, or it is sent again and again.",
)
def topk_keeps_what_it_sent(gradient, residual, k):
    return _round(gradient, gradient + residual, k, left=lambda flat, places, mean: flat)


@exercise.mistake(
    "the residual that comes back is this step's only: what had stayed behind before is lost",
    hint="The new residual is gradient + old residual, without what was sent.",
)
def topk_drops_the_old(gradient, residual, k):
    def left(flat, places, mean):
        return gradient.flatten().clone().index_fill_(0, places, 0)

    return _round(gradient, gradient + residual, k, left=left)


@exercise.mistake(
    "the residual is what was sent instead of what was not",
    hint="Zeros at the indices that were sent, everything else as it was.",
)
def topk_keeps_the_wrong_part(gradient, residual, k):
    def left(flat, places, mean):
        return flat - flat.clone().index_fill_(0, places, 0)

    return _round(gradient, gradient + residual, k, left=left)


@exercise.mistake(
    "the ranks' mean is subtracted in the residual, not what this rank has sent",
    hint="Each rank keeps account of its own entries: what it has sent is gone, whatever the others sent.",
)
def topk_subtracts_the_mean(gradient, residual, k):
    return _round(gradient, gradient + residual, k, left=lambda flat, places, mean: flat - mean)


@exercise.mistake("no residual is kept: zeros come back", hint="Everything that wasn't sent waits for the next step.")
def topk_without_feedback(gradient, residual, k):
    return _round(gradient, gradient + residual, k, left=lambda flat, places, mean: torch.zeros_like(flat))


@exercise.mistake(
    "the largest entries are taken instead of those that are farthest from zero",
    hint="A large negative entry counts as well: choose by absolute value.",
)
def topk_signed(gradient, residual, k):
    return _round(gradient, gradient + residual, k, places=lambda flat, k: flat.topk(k).indices)


@exercise.mistake(
    "absolute values are sent, so that the signs are lost", hint="Choose by abs(), send the entries themselves."
)
def topk_sends_sizes(gradient, residual, k):
    flat = (gradient + residual).flatten()
    places = _largest(flat, k)
    mean = _spread(gathered(flat[places].abs()), gathered(places.int()), flat)
    return mean.view_as(gradient), flat.index_fill(0, places, 0).view_as(gradient)


@exercise.mistake("the ranks' entries are summed, not averaged", hint="Divide by the number of ranks.")
def topk_sums(gradient, residual, k):
    def total(values, places, like):
        return _spread(values, places, like) * len(values)

    return _round(gradient, gradient + residual, k, spread=total)


@exercise.mistake(
    "an entry that only some ranks sent is divided by their number, not by that of all ranks",
    hint="Who didn't send an entry counts as a zero: always divide by the number of ranks.",
)
def topk_mean_of_senders(gradient, residual, k):
    def mean(values, places, like):
        senders = _spread([torch.ones_like(v) for v in values], places, like) * len(values)
        return _spread(values, places, like) * len(values) / senders.clamp(min=1)

    return _round(gradient, gradient + residual, k, spread=mean)


@exercise.mistake(
    "where two ranks send the same entry, the later one overwrites the earlier",
    hint="total[indices] += values writes once where an index comes twice; and = replaces. index_add_ adds all.",
)
def topk_overwrites(gradient, residual, k):
    def last(values, places, like):
        total = torch.zeros_like(like)
        for v, i in zip(values, places, strict=True):
            total[i.long()] = v
        return total / len(values)

    return _round(gradient, gradient + residual, k, spread=last)


@exercise.mistake(
    "the other ranks' values are put where this rank's own entries stand",
    hint="Every rank has chosen other entries: their indices have to travel, too.",
)
def topk_own_places(gradient, residual, k):
    def own(values, places, like):
        return _spread(values, [places[dist.get_rank()]] * len(values), like)

    return _round(gradient, gradient + residual, k, spread=own)


@exercise.mistake(
    "the indices travel as int64, which is twice the bytes", hint="topk gives int64. Four bytes are enough: .int()."
)
def topk_wide_indices(gradient, residual, k):
    return _round(gradient, gradient + residual, k, kind=torch.int64)


@exercise.mistake(
    "a full vector with zeros in it is all-reduced: right numbers, and nothing saved",
    hint="A zero takes as many bytes as any number. Send the k entries and their indices.",
)
def topk_all_reduces_zeros(gradient, residual, k):
    flat = (gradient + residual).flatten()
    places = _largest(flat, k)
    left = flat.clone().index_fill_(0, places, 0)
    return mean_over_ranks(flat - left).view_as(gradient), left.view_as(gradient)


@exercise.mistake(
    "everything is averaged first, and the largest entries are chosen from the mean",
    hint="Then all has been sent already. Every rank chooses from its own.",
)
def topk_of_the_mean(gradient, residual, k):
    flat = (gradient + residual).flatten()
    mean = mean_over_ranks(flat)
    places = _largest(mean, k)
    left = flat.clone().index_fill_(0, places, 0)
    return mean_over_ranks(flat - left).view_as(gradient), left.view_as(gradient)


@exercise.mistake(
    "the values travel as float32, whatever the gradient's dtype",
    hint="Values are sent in the gradient's own dtype; only the indices have one of their own.",
)
def topk_sends_float32(gradient, residual, k):
    flat = (gradient + residual).flatten()
    places = _largest(flat, k)
    mean = _spread([v.to(flat.dtype) for v in gathered(flat[places].float())], gathered(places.int()), flat)
    return mean.view_as(gradient), flat.index_fill(0, places, 0).view_as(gradient)


@exercise.mistake("the results stay flat vectors", hint="Give them the gradient's shape again: .view(gradient.shape).")
def topk_flat(gradient, residual, k):
    mean, left = _round(gradient, gradient + residual, k)
    return mean.flatten(), left.flatten()


@exercise.mistake(
    "the results are float32 where the gradient is float64",
    hint="Values and results have the gradient's own dtype.",
)
def topk_in_float32(gradient, residual, k):
    mean, left = _round(gradient.float(), (gradient + residual).float(), k)
    return mean, left


@exercise.mistake(
    "the residual that was given is written into",
    hint="gradient and residual are not to be changed: .clone() before you write.",
)
def topk_in_place(gradient, residual, k):
    mean, left = _round(gradient, gradient + residual, k)
    return mean, residual.copy_(left)
