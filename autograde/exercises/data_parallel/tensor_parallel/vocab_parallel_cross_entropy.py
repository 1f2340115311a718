"""`vocab_parallel_cross_entropy(logits, targets, vocab_size, ignore_index=-100)`

The mean cross-entropy, where each rank holds the logits of its own part of the vocabulary.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F

from autograde.exercise import Draft, PerRank, case
from autograde.exercises.data_parallel.shared import place
from autograde.exercises.data_parallel.tensor_parallel.shared import (
    agree_on_layer,
    cut,
    gathered,
    leave,
    size,
    total,
    total_at_rank_0,
)
from autograde.exercises.shared import integer, pick, randn

exercise = Draft(
    "vocab_parallel_cross_entropy",
    points=5,
    ranks=True,
    limit=4.0,
    dtypes=[torch.float64],
    hints=[
        "log softmax of the target = its logit - max - log(sum of exp(logit - max)). Which three numbers of a token "
        "need all ranks?",
        "all_reduce of the maximum (op=MAX, no gradient); of the sum of exponentials; of the target's logit, which one "
        "rank has and the others count as 0. The two sums go through Region.leave.",
        "first = the sizes of the parts before mine, added up; own = (targets >= first) & (targets < first + "
        "logits.shape[1]); picked = logits.gather(1, (targets - first).where(own, 0)[:, None])[:, 0].where(own, 0). "
        "loss = leave((logits - top[:, None]).exp().sum(1)).log() + top - leave(picked), mean over targets != "
        "ignore_index.",
    ],
)


@exercise.cases
def loss_cases(g):
    def some(world, vocab, tokens, label, shift=0.0, ignored=(), level=0.0, **options):
        logits = level + 2 * randn(g, tokens, vocab)
        targets = torch.randperm(vocab, generator=g)[torch.arange(tokens) % vocab]
        targets[0], targets[-1] = vocab - 1, 0  # first and last rank, whatever was drawn
        for i in ignored:
            targets[i] = options.get("ignore_index", -100)
        if shift:
            logits += shift * torch.arange(world).repeat_interleave(-(-vocab // world))[:vocab].flip(0)
        parts, pull = list(logits.tensor_split(world, 1)), 0.5 + torch.rand((), generator=g).item()
        return case(parts, targets, vocab, pull, options, ranks=world, label=label)

    v = pick(g, 3, 4)
    yield some(2, 2 * v + 1, 4, "an odd vocabulary")
    yield some(2, 2 * v, 5, "logits far apart on the ranks", shift=200.0)
    yield some(2, 2 * v + 1, 4, "large logits on every rank", level=120.0)
    yield some(2, 2 * v + 1, 6, "padding", ignored=[1, integer(g, 2, 5)])
    yield some(3, 3 * v + 1, 5, "three ranks", shift=3.0)
    yield some(3, 3 * v + 2, 7, "three ranks, padding marked by a token's number", ignored=[2, 4], ignore_index=1)


@exercise.oracle
def one_process(logits, targets, vocab_size, pull, options):
    whole = torch.cat(list(logits), 1).requires_grad_()
    loss = F.cross_entropy(whole, targets, **options)
    (loss * pull).backward()
    parts = whole.grad.tensor_split(len(logits), 1)
    return [{"loss": loss.item(), "gradient of logits": part} for part in parts]


@exercise.probe
def on_own_vocabulary(function, logits, targets, vocab_size, pull, options):
    """The loss of logits[rank], times `pull`, and its gradient."""
    import torch.distributed as dist

    from labkit import record_traffic

    own = logits[dist.get_rank()].requires_grad_()
    with record_traffic() as forwards:
        loss = function(own, targets, vocab_size, **options)
    with record_traffic() as backwards:
        if getattr(loss, "requires_grad", False):
            (loss * pull).sum().backward()
    gradient = own.grad
    own.requires_grad_(False).grad = None
    sent = {way: [(m.op, m.bytes) for m in messages] for way, messages in zip("fb", (forwards, backwards), strict=True)}
    scalar = getattr(loss, "dim", lambda: 0)() == 0
    told = {"loss": loss, "gradient of logits": gradient, "kind": str(getattr(loss, "dtype", "")), "scalar": scalar}
    return told | {"forwards": sent["f"], "backwards": sent["b"]}


_agrees = agree_on_layer(["loss", "gradient of logits"], one_process)


@exercise.agrees
def _up_to_nan(expected, got, one):
    """A mistake may give NaN, and a solution that makes it gives NaN there as well."""
    return _agrees(_nan_as_number(expected), _nan_as_number(got), one)


def _nan_as_number(ranks):
    def number(value):
        return value.nan_to_num(9e9, 8e9, 7e9) if isinstance(value, torch.Tensor) else value

    told = [{key: number(value) for key, value in of_rank.items()} for of_rank in ranks]
    return PerRank(told) if isinstance(ranks, PerRank) else told


@exercise.law("At most three all-reduces forwards, of one number a token each, and none backwards", essential=True)
def _three_small_ones(out, one, call):
    most = size(one.args[0][0][:, 0])
    for rank, told in enumerate(out):
        other = {op for op, _ in told["forwards"]} - {"all_reduce"}
        if other:
            return f"rank {rank} calls {', '.join(sorted(other))}, where all_reduce is asked for"
        if told["backwards"]:
            return f"rank {rank} sends something backwards, and what it needs is there"
        if len(told["forwards"]) > 3:
            return f"rank {rank} sends {len(told['forwards'])} messages"
        sent = sum(count for _, count in told["forwards"])
        if sent > 3 * most:
            return f"rank {rank} sends {sent} bytes; three numbers a token are {3 * most}"
    return any(told["forwards"] for told in out) or "nobody sends anything"


@exercise.law("The loss is one number of logits' dtype")
def _keeps_dtype(out, one, call):
    kind = str(one.args[0][0].dtype)
    return all(told["kind"] == kind and told["scalar"] for told in out) or f"{kind} went in, {out[0]['kind']} came out"


def first_of(vocab_size, rank, n):
    return sum(len(part) for part in torch.arange(vocab_size).tensor_split(n)[:rank])


def top_of(logits):
    top = logits.detach().amax(1)
    dist.all_reduce(top, op=dist.ReduceOp.MAX)
    return top


def loss_with(
    logits,
    targets,
    vocab_size,
    ignore_index=-100,
    *,
    top=top_of,
    first=first_of,
    add=leave,
    add_picked=leave,
    own_only=True,
    counted=None,
    reduce=None,
):
    """Right as it stands; the mistakes replace one step each."""
    rank, n = place()
    start = first(vocab_size, rank, n)
    most = top(logits)
    own = (targets >= start) & (targets < start + logits.shape[1])
    place_of = (targets - start).where(own, 0) if own_only else (targets - start).clamp(0, logits.shape[1] - 1)
    picked = logits.gather(1, place_of[:, None])[:, 0]
    picked = picked.where(own, 0.0) if own_only else picked
    losses = add((logits - most[:, None]).exp().sum(1)).log() + most - add_picked(picked)
    kept = targets != ignore_index if counted is None else counted(targets)
    losses = losses.where(kept, 0.0)
    return losses.sum() / kept.sum() if reduce is None else reduce(losses, kept)


@exercise.alternative
def three_sums(logits, targets, vocab_size, ignore_index=-100):
    """Right, as in Megatron: the maximum, the sum of exponentials, the target's logit."""
    return loss_with(logits, targets, vocab_size, ignore_index)


@exercise.alternative
def two_messages(logits, targets, vocab_size, ignore_index=-100):
    """Right: both sums in one message, only for the tokens that count, and log-sum-exp of the own part."""
    rank, n = place()
    kept = targets != ignore_index
    logits, targets = logits[kept], targets[kept]
    start = first_of(vocab_size, rank, n)
    top = top_of(logits)
    local = (logits.logsumexp(1) - top).exp()
    column = torch.arange(start, start + logits.shape[1])
    picked = (logits * (column == targets[:, None])).sum(1)
    sums, found = leave(torch.stack([local, picked]))
    return (sums.log() + top - found).mean()


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, targets, vocab_size, ignore_index):
        rank, n = place()
        kept = targets != ignore_index
        start = first_of(vocab_size, rank, n)
        shifted = logits - top_of(logits)[:, None]
        hot = (torch.arange(start, start + logits.shape[1]) == targets[:, None]).to(logits.dtype)
        exponentials = shifted.exp()
        sums, picked = total(exponentials.sum(1)), total((shifted * hot).sum(1))
        ctx.gradient = (exponentials / sums[:, None] - hot) * (kept / kept.sum())[:, None]
        return (sums.log() - picked)[kept].mean()

    @staticmethod
    def backward(ctx, pull):
        return (ctx.gradient * pull).to(ctx.gradient.dtype), None, None, None


@exercise.alternative
def fused(logits, targets, vocab_size, ignore_index=-100):
    """Right: softmax - onehot by hand, and no graph inside."""
    return _Fused.apply(logits, targets, vocab_size, ignore_index)


def _mistake(says, hint, name, **steps):
    def wrong(logits, targets, vocab_size, ignore_index=-100):
        return loss_with(logits, targets, vocab_size, ignore_index, **steps)

    wrong.__name__ = wrong.__qualname__ = name
    exercise.mistake(says, hint=hint)(wrong)


_mistake(
    "the maximum is taken over the rank's own part only",
    "exp(logit - max) of different ranks can be added only if they subtract the same max: all_reduce it with MAX.",
    "own_maximum",
    top=lambda logits: logits.detach().amax(1),
)


def _added_up(logits):
    dist.all_reduce(top := logits.detach().amax(1))
    return top


_mistake(
    "the ranks' maxima are added up, so that where all logits are large every exponential is 0",
    "all_reduce with op=dist.ReduceOp.MAX: the default is a sum.",
    "summed_maximum",
    top=_added_up,
)


def _largest(x):
    dist.all_reduce(top := x.clone(), op=dist.ReduceOp.MAX)
    return top


_mistake(
    "the maximum keeps its gradient, which reaches each rank's own largest logit",
    "In one process what flows through the maximum cancels; here each rank has a part of it only. Detach it.",
    "maximum_with_gradient",
    top=lambda logits: leave(logits.amax(1), _largest),
)
_mistake(
    "no maximum is subtracted, and large logits overflow",
    "exp(200) is more than float32 holds. Subtract the token's maximum over all ranks.",
    "no_maximum",
    top=lambda logits: torch.zeros_like(logits[:, 0]),
)
_mistake(
    "the exponentials aren't added up over the ranks",
    "The softmax has the whole vocabulary below the line: all_reduce the sum.",
    "own_sum",
    add=lambda x: x,
)
_mistake(
    "the target's logit isn't fetched from the rank that has it",
    "One rank has it, the others count 0: an all-reduce brings it to all.",
    "own_target",
    add_picked=lambda x: x,
)
_mistake(
    "a rank that hasn't the target adds the logit next to it",
    "Where the target is another rank's, the logit counts 0.",
    "clamped",
    own_only=False,
)
_mistake(
    "all parts of the vocabulary are taken to be as large as the first one",
    "Parts differ by one where ranks don't divide the vocabulary: add up the sizes of those before.",
    "equal_parts",
    first=lambda vocab, rank, n: rank * -(-vocab // n),
)
_mistake(
    "all parts of the vocabulary are taken to be as large as the last one",
    "Parts differ by one where ranks don't divide the vocabulary: add up the sizes of those before.",
    "parts_of_the_last",
    first=lambda vocab, rank, n: rank * (vocab // n),
)
_mistake(
    "the parts before a rank's own are taken to be as large as that one",
    "Parts differ by one where ranks don't divide the vocabulary: add up the sizes of those before.",
    "parts_of_the_own",
    first=lambda vocab, rank, n: rank * len(torch.arange(vocab).tensor_split(n)[rank]),
)
_mistake(
    "a rank's part is taken to begin one token later than it does",
    "Rank r's part begins at the sum of the sizes of those before, and rank 0's at 0.",
    "one_later",
    first=lambda vocab, rank, n: first_of(vocab, rank, n) + 1,
)
_mistake(
    "targets are taken as places in the rank's own part",
    "Targets count through the whole vocabulary: subtract where the rank's part begins.",
    "no_offset",
    first=lambda vocab, rank, n: 0,
)
_mistake(
    "padding counts in the mean",
    "The mean is over targets that aren't ignore_index.",
    "padding_in_the_mean",
    reduce=lambda losses, kept: losses.mean(),
)
_mistake(
    "padding isn't left out at all",
    "Targets equal to ignore_index add nothing, neither to the loss nor to the gradient.",
    "padding_counts",
    counted=lambda targets: torch.ones_like(targets, dtype=torch.bool),
)
_mistake(
    "padding isn't left out where a token's number marks it",
    "ignore_index is an argument: it may be a token's number.",
    "fixed_index",
    counted=lambda targets: targets != -100,
)
_mistake(
    "the losses are summed, not averaged",
    "Divide by the number of targets that count.",
    "summed",
    reduce=lambda losses, kept: losses.sum(),
)
_mistake(
    "the sums are all-reduced backwards as well, and the gradient comes out as many times as there are ranks",
    "All ranks hold the same loss: Region.leave hands the gradient on, as it is.",
    "sums_back",
    add=lambda x: leave(x, total, total),
    add_picked=lambda x: leave(x, total, total),
)
_mistake(
    "only rank 0 gets the sums",
    "After reduce one rank has the result, after all_reduce all have it.",
    "on_rank_0",
    add=lambda x: leave(x, total_at_rank_0),
    add_picked=lambda x: leave(x, total_at_rank_0),
)
_mistake(
    "the sum of exponentials is cut off from the graph",
    "Then nothing tells the wrong tokens to become less likely. Use Region.leave.",
    "sum_detached",
    add=lambda x: total(x.detach()),
)
_mistake(
    "the loss is computed in float64 and handed back so",
    "The loss has the dtype of logits.",
    "in_float64",
    reduce=lambda losses, kept: losses.double().sum() / kept.sum(),
)


@exercise.mistake(
    "all logits are gathered on every rank",
    hint="That is the whole vocabulary for every token: the message that this function is there to avoid.",
)
def gathers(logits, targets, vocab_size, ignore_index=-100):
    whole = leave(logits, gathered, lambda g: cut(g, -1, *place()))
    return F.cross_entropy(whole, targets, ignore_index=ignore_index)


@exercise.mistake("a number that all ranks have already, such as the loss, is sent as well", hint="Three sums did it.")
def averaged_again(logits, targets, vocab_size, ignore_index=-100):
    loss = loss_with(logits, targets, vocab_size, ignore_index)
    return leave(loss, lambda x: total(x) / place()[1])


def _by_hand(name, says, hint, losses):
    """A mistake of the formula: `losses(sum of the rank's exponentials, maximum, the target's logit or 0, own)`."""

    def wrong(logits, targets, vocab_size, ignore_index=-100):
        start, kept = first_of(vocab_size, *place()), targets != ignore_index
        most = top_of(logits)
        own = (targets >= start) & (targets < start + logits.shape[1])
        picked = logits.gather(1, (targets - start).where(own, 0)[:, None])[:, 0].where(own, 0.0)
        each, counts = losses((logits - most[:, None]).exp().sum(1), most, picked, own)
        counts = counts & kept
        return each.where(counts, 0.0).sum() / counts.sum().clamp(min=1)

    wrong.__name__ = wrong.__qualname__ = name
    exercise.mistake(says, hint=hint)(wrong)


_by_hand(
    "maximum_left_out",
    "the maximum is subtracted in the exponentials, but not from the target's logit",
    "log(sum of exp(logit - max)) + max - the target's logit: what was subtracted has to come back.",
    lambda sums, most, picked, own: (leave(sums).log() - leave(picked), own | True),
)
_by_hand(
    "logarithms_added",
    "the logarithm is taken of each rank's own sum, and the logarithms are added up",
    "log(a + b) isn't log a + log b: add up the exponentials first.",
    lambda sums, most, picked, own: (leave(sums.log()) + most - leave(picked), own | True),
)
_by_hand(
    "log_sums_added",
    "each rank's log-sum-exp of its own part is added up over the ranks",
    "log(a + b) isn't log a + log b: add up the exponentials, relative to one maximum, and take the logarithm then.",
    lambda sums, most, picked, own: (leave(sums.log() + most) - leave(picked), own | True),
)
_by_hand(
    "own_softmax",
    "each rank takes the softmax of its own part alone",
    "The probability of a token has all tokens' exponentials below the line, not only the rank's.",
    lambda sums, most, picked, own: (leave((sums.log() + most - picked).where(own, 0.0)), own | True),
)
_by_hand(
    "own_targets_only",
    "each rank averages over the targets in its own part only",
    "All ranks return the mean over all targets: where a target is another rank's, its logit comes by the all-reduce.",
    lambda sums, most, picked, own: (leave(sums).log() + most - leave(picked), own),
)
_by_hand(
    "sign_swapped",
    "the sign is the other way round",
    "The loss is MINUS the logarithm of the target's probability.",
    lambda sums, most, picked, own: (leave(picked) - most - leave(sums).log(), own | True),
)
_mistake(
    "the sum of exponentials is averaged over the ranks",
    "The softmax has the sum over the whole vocabulary below the line: a sum, no mean.",
    "sum_averaged",
    add=lambda x: leave(x, lambda x: total(x) / place()[1], lambda g: g / place()[1]),
)
