# ---
# jupyter:
#   course:
#     title: "Data parallel training: build your own DDP"
#     exercises: data_parallel.ddp
#     questions: [D02]
#     needs: [03_data_parallel/02_all_reduce]
# ---

# %% [markdown]
# # Data parallel training: build your own DDP
#
# One GPU works through a batch of 64 examples in a second. You have four. The oldest answer still comes first in every
# interview: give each GPU a copy of the model and a quarter of the batch. PyTorch's name for it is
# `DistributedDataParallel`, **DDP**.
#
# The idea takes one line. What makes it work takes five small pieces, and in this chapter you build all of them: the
# sampler that deals out the data, the averaged gradient, the buckets, the wrapper that talks *while* the backward pass
# still computes, and accumulation that keeps quiet until it has something to say. At the end your DDP trains a small
# GPT on four processes, beside a single process that reads the same rows, and you compare the losses step for step.
#
# The processes (**ranks**) run on your CPU and talk through `gloo`; on GPUs torch's own DDP is called in the same way,
# and talks over NCCL. Ranks that share one computer's cores can't get faster, so **no speed-up is to be seen here**.
# What can be seen, and is checked in every exercise, is what counts: the numbers, and every message that was sent. For
# time we use a model, and say so.

# %% tags=["setup"]
import contextlib
import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from autograde import check
from labkit import COLORS, RankError, figure, launch, record_traffic, shakespeare, show, verdict

# %% [markdown]
# ## The one line
#
# A training step needs the gradient of the mean loss over the batch of $B$ examples. Deal the examples out to $N$
# ranks, $b = B/N$ each. The sum can be taken shard by shard:
#
# $$
# \underbrace{\frac1B\sum_{i=1}^{B}\nabla\ell_i}_{\text{one process, whole batch}}
# \;=\;\frac1N\sum_{r=0}^{N-1}\;
# \underbrace{\frac1b\sum_{i\in\text{shard }r}\nabla\ell_i}_{\text{rank } r\text{'s own gradient}}
# $$
#
# So the **mean of the ranks' gradients is the whole batch's gradient**. Not an approximation: the same number, as long
# as all shards are equally large. It is arithmetic, so we can check it in one process first: four shards of 16
# examples, one after the other.

# %% tags=["demo"]
torch.manual_seed(0)
linear = nn.Linear(6, 1)
inputs = torch.randn(64, 6)
targets = inputs @ torch.tensor([[1.0], [-2.0], [0.5], [3.0], [0.0], [-1.0]]) + torch.randn(64, 1)


def flat_gradient(model, x, y):
    """The gradient of the mean squared error, as one vector."""
    model.zero_grad()
    F.mse_loss(model(x), y).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


whole = flat_gradient(linear, inputs, targets)
of_shards = [flat_gradient(linear, inputs[r::4], targets[r::4]) for r in range(4)]
mean = torch.stack(of_shards).mean(0)
off = float((mean - whole).abs().max())
disagree = float((torch.stack(of_shards).amax(0) - torch.stack(of_shards).amin(0)).max())

fig, ax = figure(height=3.8)
places = torch.arange(7.0)
for r, local in enumerate(of_shards):
    ax.plot(places + 0.12 * (r - 1.5), local, "o", color=COLORS[r], label=f"shard {r}, 16 examples")
ax.hlines(mean, places - 0.35, places + 0.35, color="black", linewidth=2.5, label="mean of the four")
ax.plot(places, whole, "D", markersize=11, markerfacecolor="none", markeredgecolor="#777777", markeredgewidth=1.5,
        label=f"all 64 at once (off by {off:.0e})")
ax.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
ax.set(xticks=places.tolist(), xticklabels=[*(f"weight {i}" for i in range(1, 7)), "bias"],
       ylabel="gradient of the loss",
       title=f"Four shards, up to {disagree:.1f} apart; their mean is {off:.0e} off the whole batch's gradient")
ax.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.12))
show(fig, "For each of seven parameters, four dots (the shards' gradients), a bar at their mean, and a diamond (the "
          f"whole batch's gradient). The dots are up to {disagree:.1f} apart, the diamonds {off:.0e} off their bars.")

# %% [markdown]
# ## On real ranks
#
# Now the same on four processes. `launch(fn, ranks=4)` starts them and runs the function on each. `dist.all_reduce`
# adds up a tensor over all ranks and leaves the sum on every one of them. `record_traffic()` notes each message
# that a rank sends.
#
# One all-reduce of seven numbers: that is all that data parallelism has to say in a step. No example, no activation
# and no parameter crosses.
#
# How an all-reduce moves its bytes is a story of its own: the usual ring sends $2(N-1)/N$ times the tensor's size over
# each link. Here it is one operation with a size.

# %% tags=["demo"]
def one_step():
    rank, world = dist.get_rank(), dist.get_world_size()
    gradient = flat_gradient(linear, inputs[rank::world], targets[rank::world])
    with record_traffic() as messages:
        dist.all_reduce(gradient)
    return gradient / world, messages


for rank, (gradient, messages) in enumerate(launch(one_step, ranks=4)):
    sent = ", ".join(f"{m.op} of {m.shape[0]} x {m.dtype} = {m.bytes} bytes" for m in messages)
    print(f"rank {rank} sent {sent}; its result is {float((gradient - whole).abs().max()):.0e} off the whole batch's")

# %% [markdown]
# ## 1. Who sees what
#
# The ranks must not see the same examples, must all take equally many steps, and must see new neighbors in every
# epoch. And they should manage that without talking. The trick: **every rank computes the same shuffled order** of all
# $n$ examples, from a seed that all share, and takes every $N$-th place of it.
#
# Two details matter.
#
# * $n$ may not divide evenly. Then the order is **padded** with its own beginning, so that all shards are equally
#   long (or, with `drop_last`, cut). A rank with one batch less would stop early, and the others would wait for it in
#   their next all-reduce.
# * The shuffle is seeded with `seed + epoch`. Forget to tell the sampler the epoch (`set_epoch`), and every epoch has
#   the same order: a common bug, and nothing crashes.

# %% tags=["demo"]
from matplotlib.patches import Rectangle
from torch.utils.data import DistributedSampler


def shards(n, world, epoch, drop_last=False):
    """What each rank gets from torch's own sampler: a list of indices a rank."""
    samplers = [DistributedSampler(range(n), world, r, seed=0, drop_last=drop_last) for r in range(world)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return [list(sampler) for sampler in samplers]


fig, axes = figure(1, 3, height=3.1)
counted = {}
panels = [("epoch 0", 0, False), ("epoch 1", 1, False), ("epoch 1, drop_last", 1, True)]
for ax, (title, epoch, drop) in zip(axes, panels, strict=True):
    dealt, seen = shards(10, 4, epoch, drop), set()
    for place in range(len(dealt[0])):
        for r in range(4):
            example = dealt[r][place]
            again = example in seen
            seen.add(example)
            ax.add_patch(Rectangle(
                (place - 0.46, r - 0.42), 0.92, 0.84, facecolor=COLORS[1] if again else "#cfe3f1",
                hatch="///" if again else None, edgecolor="white"))
            ax.text(place, r, example, ha="center", va="center", fontsize=13,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5} if again else None)
    ax.set(xlim=(-0.6, 2.6), ylim=(3.6, -0.6), xticks=range(len(dealt[0])), yticks=range(4),
           xlabel="place in the shard", title=f"{title}: {len(seen)} of 10 seen")
    counted[title] = len(seen), sum(map(len, dealt)) - len(seen)
    ax.set_yticklabels([f"rank {r}" for r in range(4)])
told = "; ".join(f"{name}, {count} of 10 seen, {twice} twice (hatched)" for name, (count, twice) in counted.items())
show(fig, f"Grids of ranks by places with example numbers: {told}.",
     title="Ten examples on four ranks: " + "; ".join(f"{name} sees {count}" for name, (count, _) in counted.items()))

# %% [markdown]
# ### Exercise: deal out the data
#
# Build the sampler as a function. It must agree with torch's `DistributedSampler` to the last index: a rank that
# shuffles in its own way would see other ranks' examples.

# %% exercise="shard_indices"
def shard_indices(n, rank, world_size, epoch=0, shuffle=True, seed=0, drop_last=False):
    """The examples that one rank sees in one epoch, in order.

    The common order: 0, 1, …, n - 1, or, with `shuffle`, `torch.randperm(n)` drawn from a new
    `torch.Generator` that is seeded with `seed + epoch`. It is made to fit: without `drop_last`
    it is padded up to the next multiple of `world_size` by starting it again from its beginning
    (more than once where n < world_size); with `drop_last` it is cut down to a multiple of
    `world_size`, and to nothing where n < world_size. Rank r takes places r, r + world_size,
    r + 2 * world_size, …

    n: number of examples, at least 1.  rank: 0 … world_size - 1.
    Returns a list of ints, equally long on all ranks. The ranks don't talk.
    The same as torch.utils.data.DistributedSampler after set_epoch(epoch).
    """
    ### BEGIN SOLUTION
    if shuffle:
        generator = torch.Generator().manual_seed(seed + epoch)
        order = torch.randperm(n, generator=generator).tolist()
    else:
        order = list(range(n))
    if drop_last:
        order = order[: n // world_size * world_size]
    else:
        total = math.ceil(n / world_size) * world_size
        order = (order * math.ceil(total / n))[:total]
    return order[rank::world_size]
    ### END SOLUTION

# %% check="shard_indices"
check(shard_indices)

# %% [markdown]
# ### Which batch is the 64?
#
# The division is easy. But where do you write the 64? We write it where most people do, into a `DataLoader` with a
# `DistributedSampler`, and count what arrives.
#
# **Before the run:** *correct* if 16 written for each of four ranks gives every rank 16 rows and the step 64, else
# *wrong*. (Of a global batch of 64 that is arithmetic, and fails only where torch does. Open is what a 64 in the
# loader means.)

# %% claim="D02.3"
from torch.utils.data import DataLoader


def rows_in_one_step(batch_size):
    data = range(640)
    loader = DataLoader(data, batch_size=batch_size, sampler=DistributedSampler(data))
    return len(next(iter(loader)))


seen = {}
for written, size in [("batch_size=64", 64), ("batch_size=64 // world_size", 64 // 4)]:
    rows = launch(rows_in_one_step, size, ranks=4)
    seen[size] = rows
    print(f"DataLoader({written}):  rows on the ranks {rows}, so one optimizer step sees {sum(rows)}")
of_64 = sum(seen[16]) == 64 and set(seen[16]) == {16}
verdict("D02.3", "correct" if of_64 else "wrong", f"A global batch of 64 gives the ranks {seen[16]} rows. A "
        f"DataLoader's batch_size of 64 gives them {seen[64]}, {sum(seen[64])} a step.")

# %% [markdown]
# The `batch_size` of a DDP script is the **local** one, the claim speaks of the **global** one. Say in an interview
# which of the two you mean: a learning rate belongs to the global one.
#
# ### What does DDP do for you?
#
# The next claim makes three promises in one sentence. We put each to torch's own DDP. Each rank starts with *other*
# weights, hands *64 rows* to the wrapped model, and runs a backward pass. How many rows does the model see? Which
# weights does it start from? Is every rank's gradient the mean of what each finds on its own rows? Have the weights
# moved?
#
# **Before the run:** *correct* if all three promises are kept, else *wrong*.

# %% claim="D02.6"
def what_ddp_does():
    from torch.nn.parallel import DistributedDataParallel

    rows = []

    class Spy(nn.Linear):
        def forward(self, x):
            rows.append(len(x))
            return super().forward(x)

    rank = dist.get_rank()
    torch.manual_seed(rank)
    spy = Spy(3, 1)
    own = spy.weight.detach().clone()
    ddp = DistributedDataParallel(spy)
    start, x = spy.weight.detach().clone(), torch.randn(64, 3)
    ddp(x).square().mean().backward()
    (local,) = torch.autograd.grad(spy(x).square().mean(), spy.weight)  # past the wrapper: nothing is sent
    told = {"rows": rows[0], "own": own, "start": start, "local": local}
    return told | {"gradient": spy.weight.grad, "after": spy.weight.detach()}


def same(key):
    return all(torch.allclose(ranks[0][key], r[key]) for r in ranks)


ranks = launch(what_ddp_does, ranks=4)
mean = torch.stack([r["local"] for r in ranks]).mean(0)
averaged = all(torch.allclose(r["gradient"], mean) for r in ranks) and not same("local")
yes = {True: "yes", False: "no"}
print("splits the 64 rows among the ranks:      ", yes[sum(r["rows"] for r in ranks) == 64],
      f" (the ranks saw {[r['rows'] for r in ranks]})")
print("makes all ranks start from equal weights:", yes[same("start")], f" (equal before wrapping: {yes[same('own')]})")
print("averages the gradients:                  ", yes[averaged], f" (equal before: {yes[same('local')]})")
moved = any(not torch.equal(r["start"], r["after"]) for r in ranks)
print("updates the parameters:                  ", yes[moved])
kept = [sum(r["rows"] for r in ranks) == 64, averaged, moved]
verdict("D02.6", "correct" if all(kept) else "wrong",
        f"Of the three promises (split the data, average the gradients, update the parameters) DDP keeps {sum(kept)}: "
        f"{', '.join(yes[each] for each in kept)}.")

# %% [markdown]
# Where the answer is no, somebody else does it. Data is split by the sampler, and you write it down. Parameters are
# updated by every rank's own optimizer, and the replicas stay equal because equal weights take equal steps. What the
# claim leaves out is the second line: the broadcast at the start. (The old `nn.DataParallel`, one process
# for all GPUs, did split a batch; torch's documentation advises against it.)
#
# ## 2. The average
#
# After `backward()` every parameter holds this rank's gradient in `.grad`. Make it the mean over all ranks, and any
# optimizer may go on as if it had seen the whole batch.
#
# One question decides whether your code survives a real model: **what if a parameter has no gradient on this rank?** A
# mixture of experts sends rank 0's examples to one expert and rank 1's to another; `.grad` is `None` for the unused
# one. If you skip it, you send one message less. What happens then? Collectives carry no names: the first call here
# meets the first call there. Let one rank of four skip a call.

# %% tags=["demo"]
def one_rank_skips():
    gradient = torch.ones(3)
    if dist.get_rank() != 2:
        dist.all_reduce(gradient)


try:
    launch(one_rank_skips, ranks=4, limit=10)
except RankError as error:
    print(error)

# %% [markdown]
# On a cluster this is the famous hang: no error, 0 % progress, all GPUs "busy", and a timeout in the end: after 10
# minutes with NCCL, after 30 with gloo, if you set none. `launch` saw that nobody can go on, and says who waits where.
#
# And where all ranks send equally many tensors, of the same sizes? Rank 0 has used only the first of two experts, rank
# 1 only the second, and each sends the one gradient that it has.

# %% tags=["demo"]
def each_sends_what_it_has():
    own = dist.get_rank()  # the number of the expert that this rank has used
    gradient = torch.full((3,), [1.0, 10.0][own])
    dist.all_reduce(gradient)
    return f"rank {own}: the gradient of expert {own} is now {gradient.tolist()}"


print(*launch(each_sends_what_it_has, ranks=2), sep="\n")

# %% [markdown]
# The calls pair up, nobody waits, and nothing is said: ones and tens are gradients of *different* experts. So the rule
# is: **every rank sends every trainable parameter, in the same order, zeros if it has nothing.**
#
# And torch's own DDP? Three layers; rank 0 uses the first, rank 1 the second, nobody the third.

# %% tags=["demo"]
class Expert(nn.Module):
    """Three layers, of which rank 0 uses `first`, rank 1 `second`, and nobody `third`."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(3, 1), nn.Linear(3, 1), nn.Linear(3, 1)

    def forward(self, x):
        return (self.first if dist.get_rank() == 0 else self.second)(x)


def forgotten(find):
    """What stands in .grad of each layer's bias after one backward pass, and what the next forward pass says."""
    from torch.nn.parallel import DistributedDataParallel

    ddp = DistributedDataParallel(Expert(), find_unused_parameters=find)
    ddp(torch.ones(2, 3)).mean().backward()
    biases = {name: p.grad for name, p in ddp.module.named_parameters() if "bias" in name}
    held = {name: None if gradient is None else gradient.item() for name, gradient in biases.items()}
    try:
        ddp(torch.ones(2, 3))
    except RuntimeError as error:
        return held, str(error).split(". ")[0]
    return held, "no error"


for find in (False, True):
    for rank, (held, told) in enumerate(launch(forgotten, find, ranks=2)):
        print(f"find_unused_parameters={find!s:5}  rank {rank}: {held}, then: {told}")

# %% [markdown]
# Read the lines without the flag first. Who notices, and when? As long as each rank has a gradient of its own, an
# optimizer makes the replicas differ. With the flag, DDP walks the graph after each forward pass and sends zeros where
# a rank has nothing. And what does `third` hold, which *nobody* used? If it is `None`, AdamW leaves it alone; yours
# will give it zeros, which still decay.
#
# ### Exercise: average the gradients

# %% exercise="average_gradients"
def average_gradients(model):
    """Replace the gradient of every trainable parameter of `model` by its mean over all ranks.

    Runs on every rank after backward(), with torch.distributed initialized. A trainable
    parameter (requires_grad=True) whose .grad is None on this rank counts as zeros, and has a
    gradient afterwards, even if no rank had one. Frozen parameters (requires_grad=False) are
    not sent, and what stands in their .grad, mostly None, stays. Layers may share a parameter.
    Parameters keep their values, and the model its mode (train or eval). All parameters have
    the same floating-point type; neither they nor their gradients need be contiguous.

    Traffic: every trainable gradient crosses exactly once, by all_reduce, so a rank's messages
    add up to the bytes of its trainable parameters; nothing else is called, no barrier either.
    One all_reduce a parameter, or one for all of them together, are both fine. Returns None.
    """
    ### BEGIN SOLUTION
    for p in model.parameters():
        if p.requires_grad:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()
    ### END SOLUTION

# %% check="average_gradients"
check(average_gradients)

# %% [markdown]
# ### Sum, mean, and shards of different sizes
#
# Two things to test. Is it all the same, sum or mean? And is the mean always right? We train one linear model, by
# plain gradient descent with one and the same learning rate, in five ways:
#
# * one process with all 64 rows;
# * four ranks with 16 rows each, gradients **averaged**;
# * the same, gradients **summed**;
# * four ranks with **ragged** shards of 2, 6, 16 and 40 rows, gradients averaged;
# * the same ragged shards, but each rank's loss **weighted** by its share of the rows, then summed.
#
# As for "then sent": the ranks at the top already showed one single message, the all-reduce. When it returns, every
# rank has the result. Nothing is sent afterwards.
#
# **Before the run:** a way is *exact* if no entry of its first gradient is over 1e-4 off the whole batch's. *Correct*
# if all four are exact, *imprecise* if some, *wrong* if none. (Algebra can tell you which. Try before you look.)

# %% claim="D02.5"
g = torch.Generator().manual_seed(0)
rows_x = torch.randn(64, 8, generator=g)
rows_y = rows_x @ torch.randn(8, 1, generator=g) + 5 * (rows_x[:, :1] > 0.5) + 0.3 * torch.randn(64, 1, generator=g)
by_kind = rows_x[:, 0].argsort(descending=True)  # neighbors resemble each other, as in real files
rows_x, rows_y = rows_x[by_kind], rows_y[by_kind]

WAYS = {"mean, equal shards": (16, 16, 16, 16), "sum, equal shards": (16, 16, 16, 16),
        "mean, ragged shards": (2, 6, 16, 40), "weighted, ragged shards": (2, 6, 16, 40)}


def descend(way, optimizer=torch.optim.SGD, lr=0.15, steps=40):
    """The whole batch's loss before each step, the first gradient and the final weights, on this rank."""
    model = nn.Linear(8, 1)
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    shard = list(range(64))
    if way:
        sizes = WAYS[way]
        shard = list(range(sum(sizes[: dist.get_rank()]), sum(sizes[: dist.get_rank() + 1])))
    optimizer, losses, first = optimizer(model.parameters(), lr=lr), [], None
    for _ in range(steps):
        losses.append(F.mse_loss(model(rows_x), rows_y).item())
        grad = flat_gradient(model, rows_x[shard], rows_y[shard])
        if way:
            grad *= len(shard) / 64 if way.startswith("weighted") else 1.0
            dist.all_reduce(grad)
            grad /= dist.get_world_size() if way.startswith("mean") else 1
        first = grad.clone() if first is None else first
        for p, part in zip(model.parameters(), grad.split([8, 1]), strict=True):
            p.grad = part.view_as(p)
        optimizer.step()
    return losses, first, torch.cat([p.detach().flatten() for p in model.parameters()])


def all_ways():
    adam = [descend(way, torch.optim.Adam)[2] for way in ("sum, equal shards", "mean, equal shards")]
    return descend(None), {way: descend(way) for way in WAYS}, float((adam[0] - adam[1]).abs().max())


(alone_losses, alone_first, _), ways, adam_apart = launch(all_ways, ranks=4)[0]

for way, (_, first, _) in ways.items():
    ratio, off = first @ alone_first / alone_first.square().sum(), (first - alone_first).abs().max()
    print(f"{way:24s} first gradient: {ratio:5.2f} x the whole batch's, off by {off:.0e}")
print(f"With Adam in place of SGD, sum and mean end {adam_apart:.0e} apart in any weight.")
exact = [way for way, (_, first, _) in ways.items() if (first - alone_first).abs().max() < 1e-4]
verdict("D02.5", "correct" if len(exact) == len(ways) else "imprecise" if exact else "wrong",
        f"The whole batch's gradient comes out of: {'; '.join(exact) or 'none'}. Not of: "
        f"{'; '.join(way for way in ways if way not in exact) or 'none'}.")

STYLES = dict(zip(WAYS, [("-", COLORS[0]), ("-.", COLORS[1]), (":", COLORS[3]), ("--", COLORS[2])], strict=True))
fig, (left, right) = figure(1, 2, width=10.5, height=4.2)
left.plot(alone_losses, color="#bbbbbb", linewidth=7, label="one process, 64 rows")
for way, (losses, _, _) in ways.items():
    style, color = STYLES[way]
    left.plot(losses, style, color=color, label=way)
    apart = torch.tensor(losses).sub(torch.tensor(alone_losses)).abs()
    right.plot(apart.cummax(0).values.clamp(min=1e-8), style, color=color)
top = 4 * alone_losses[0]
far = {way: max(abs(a - b) for a, b in zip(losses, alone_losses, strict=True)) for way, (losses, *_) in ways.items()}
left.set(yscale="log", ylim=(0.7 * min(alone_losses), top), xlabel="step", ylabel="loss on all 64 rows",
         title="The loss …")
left.set_yticks([2, 5, 10, 20], ["2", "5", "10", "20"])
left.yaxis.set_minor_formatter("")
right.set(yscale="log", ylim=(5e-9, 1e3), xlabel="step", ylabel="largest difference so far",
          title="… and its distance from one process's")
fig.legend(loc="outside lower center", ncols=5, columnspacing=1.2)
show(fig, "Left: loss against step, of one process and of the four ways. Right: their largest distance from the one "
          "process so far; in the end " + "; ".join(f"{way} {distance:.0e}" for way, distance in far.items()) + ".",
     title=f"The whole batch's gradient comes out of: {'; '.join(exact) or 'none'}")

# %% [markdown]
# Why "mean or sum" is not a matter of taste:
#
# * **Mean over equal shards** is one process, by the identity at the top.
# * **Sum** is the mean times $N$: with SGD, a learning rate $N$ times as large. With Adam the factor nearly
#   cancels, since Adam divides by the gradient's own size. That is why the mistake can live in a code base for
#   years, until somebody adds gradient clipping or changes to SGD.
# * **Mean over ragged shards** trains on *another loss*, in which rows of small shards count more. This happens to
#   language models daily: padded batches hold different numbers of real tokens. The cure is the last way: weight
#   each rank's loss by its share, then sum.
#
# ## 3. Buckets
#
# A real model has hundreds of parameter tensors, most of them small. Each message costs a fixed time $\alpha$ before
# the first byte moves, and then $1/\beta$ a byte:
#
# $$t(m) = \alpha + \frac{2(N-1)}{N}\cdot\frac{m}{\beta}$$
#
# One message a tensor pays $\alpha$ hundreds of times. One message for all pays it once, but then nothing can be
# sent before the very last gradient is there, and the network idles through the whole backward pass. **Buckets** of
# some MB are the compromise: large enough to make $\alpha$ small, small enough to start early. Gradients become
# ready from the last layer to the first, so buckets are filled in *reverse* order of the parameters.
#
# Here is that compromise in a **cost model**, not a measurement: a model of GPT-2's shape (its head isn't tied to the
# embedding; shapes are real, values are never allocated), 60 ms of backward pass, 8 machines, $\alpha$ = 0.1 ms and
# $\beta$ = 25 GB/s. A matrix takes time in step with its size; the embedding tables are only looked up, and take none.

# %% tags=["demo"]
from labkit.train_ddp import CharGPT


def gradient_sizes():
    """Of each gradient, in the order of the backward pass: its bytes, and whether its matrix is multiplied with."""
    with torch.device("meta"):  # shapes without memory
        model = CharGPT(vocab=50257, context=1024, width=768, layers=12, heads=12)
    looked_up = {id(p) for table in (model.tokens, model.positions) for p in table.parameters()}
    return [(4 * p.numel(), id(p) not in looked_up) for p in model.parameters()][::-1]


SIZES, COMPUTED = zip(*launch(gradient_sizes, ranks=1)[0], strict=True)
WORK = [size * computed for size, computed in zip(SIZES, COMPUTED, strict=True)]
BACKWARD, ALPHA, BETA, WORLD = 60.0, 0.1, 25e6, 8  # ms, ms, bytes a ms, ranks


def torch_buckets(sizes, cap):
    """The function of torch that fills its buckets, with one cap for all: lists of indices."""
    tensors = [torch.empty(1, dtype=torch.uint8).expand(size) for size in sizes]
    return dist._compute_bucket_assignment_by_size(tensors, [cap])[0]


def timeline(buckets, overlap=True):
    """(ready, start, end) in ms of each bucket's all-reduce; one at a time, in order."""
    done, free, spans = 0, 0.0, []
    for bucket in buckets:
        size = sum(SIZES[i] for i in bucket)
        done += sum(WORK[i] for i in bucket)
        ready = BACKWARD * done / sum(WORK) if overlap else BACKWARD
        start = max(ready, free)
        free = start + ALPHA + 2 * (WORLD - 1) / WORLD * size / BETA
        spans.append((ready, start, free))
    return spans


caps = [2 ** (k / 2) * 1024 for k in range(41)]
ends = {way: [timeline(torch_buckets(SIZES, int(cap)), way)[-1][2] for cap in caps] for way in (True, False)}
buckets = torch_buckets(SIZES, 25 * 2**20)
spans = timeline(buckets)
busy = sum(end - start for _, start, end in spans)
hidden = BACKWARD + busy - spans[-1][2]

fig, (left, right) = figure(1, 2, width=10.5, height=4.2)
mib = [cap / 2**20 for cap in caps]
left.plot(mib, ends[False], "--", color=COLORS[1], label="all sent after the backward pass")
left.plot(mib, ends[True], color=COLORS[0], label="sent during the backward pass")
left.axhline(BACKWARD, color="#777777", linestyle=":", linewidth=1.5, label="backward pass alone")
left.axvline(25, color="#999999", linewidth=1)
left.text(32, 1.31 * max(ends[False]), "torch's\n25 MiB", color="#555555", va="top")
left.set(xscale="log", xlabel="bucket cap, MiB", ylabel="backward + communication, ms",
         ylim=(0.85 * BACKWARD, 1.35 * max(ends[False])),
         title=f"A bucket a tensor: {ends[True][0]:.0f} ms. One for all: {ends[True][-1]:.0f} ms")
left.legend(loc="upper left")
right.barh(-1.2, BACKWARD, color="#cccccc", height=0.9)
right.text(1, -1.2, "backward pass", va="center")
for k, (ready, start, end) in enumerate(spans):
    right.plot([ready, start], [k, k], color=COLORS[0], linewidth=1, linestyle=":")
    right.barh(k, end - start, left=start, color=COLORS[0], height=0.8)
right.invert_yaxis()
right.set(yticks=[0, len(spans) - 1], yticklabels=["bucket 1", f"bucket {len(spans)}"], xlabel="ms",
          title=f"25 MiB: {len(spans)} buckets, done at {spans[-1][2]:.0f} ms")
late = sum(start >= BACKWARD for _, start, _ in spans)
show(fig, f"Left: modeled time against bucket cap, sent during the backward pass {ends[True][0]:.0f} ms at the "
          f"smallest cap, {min(ends[True]):.0f} at the best, {ends[True][-1]:.0f} at the largest; sent after it "
          f"{ends[False][0]:.0f}, {min(ends[False]):.0f}, {ends[False][-1]:.0f}. Right: a timeline of {len(spans)} "
          f"buckets, of which {late} start after the backward pass.",
     title=f"A cost model: with 25 MiB buckets {hidden:.0f} of {busy:.0f} ms of communication are hidden")

# %% [markdown]
# ### Exercise: fill the buckets
#
# torch's rule is the simplest that works: put the next tensor into the open bucket; if the bucket now holds `cap`
# bytes or more, close it.

# %% exercise="assign_buckets"
def assign_buckets(sizes, cap):
    """Group tensors into buckets, in order.

    sizes: bytes of each tensor, a list of ints of at least 0; it may be empty
    cap:   bytes at which a bucket is full, an int of at least 1
    Each tensor goes into the open bucket. A bucket that then holds `cap` bytes or more is
    closed (so it may exceed the cap, and a tensor is never split). What is open at the end is a
    bucket as well.
    Returns a list of lists of indices: every index once, in order, no bucket empty.
    The rule of torch.distributed._compute_bucket_assignment_by_size.
    """
    ### BEGIN SOLUTION
    buckets, held = [[]], 0
    for i, size in enumerate(sizes):
        buckets[-1].append(i)
        held += size
        if held >= cap:
            buckets.append([])
            held = 0
    return [bucket for bucket in buckets if bucket]
    ### END SOLUTION

# %% check="assign_buckets"
check(assign_buckets)

# %% tags=["payoff"]
for cap in (2**20, 25 * 2**20, 2**30):
    buckets = assign_buckets(SIZES, cap)
    print(f"your buckets for {sum(SIZES) / 4e6:.0f} M parameters, cap {cap / 2**20:5.0f} MiB: {len(buckets):3d} "
          f"messages instead of {len(SIZES)}, modeled time {timeline(buckets)[-1][2]:.0f} ms")

# %% [markdown]
# ## 4. The wrapper
#
# How can code run *during* the backward pass? Autograd offers a hook: `p.register_post_accumulate_grad_hook(fn)`
# calls `fn(p)` at the moment when `p.grad` is complete. (torch's DDP hangs on the same place, in C++.) A hook on every
# parameter counts down; when a bucket has everything, it starts `dist.all_reduce(flat, async_op=True)`, which returns
# at once with a `work` to wait for later. The backward pass goes on computing, and the bytes travel meanwhile.
#
# Watch torch's own DDP do it. We listen to a real backward pass on two ranks: a hook of our own notes when each
# layer's gradient is there, and a dispatch mode of ten lines notes every all-reduce.

# %% tags=["demo"]
from torch.utils._python_dispatch import TorchDispatchMode


def traced_backward(wrap, layers=8, width=128):
    """Events of the third backward pass on this rank, in order: ("gradient", layer) and ("all-reduce", bytes)."""
    events = []

    class Listening(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.c10d.allreduce_.default:
                events.append(("all-reduce", sum(t.numel() * t.element_size() for t in args[0])))
            return func(*args, **(kwargs or {}))

    net = nn.Sequential(*(part for _ in range(layers) for part in (nn.Linear(width, width), nn.Tanh())))
    for i in range(layers):
        net[2 * i].weight.register_post_accumulate_grad_hook(lambda p, i=i: events.append(("gradient", i + 1)))
    ddp = wrap(net)
    for _ in range(3):  # torch settles its buckets after the first
        net.zero_grad()
        events.clear()
        with Listening():
            ddp(torch.randn(32, width)).square().mean().backward()
        if hasattr(ddp, "finish"):
            ddp.finish()
    return events


def draw_trace(events, whose):
    last = max(i for i, (what, _) in enumerate(events) if what == "gradient")
    sent = [i for i, (what, _) in enumerate(events) if what == "all-reduce"]
    early = sum(i < last for i in sent)
    fig, ax = figure(width=9, height=1.0 + 0.42 * (len(sent) + 1))
    ax.barh(0, last + 1, left=-0.5, color="#dddddd", height=0.7)
    bucket = 0
    for i, (what, detail) in enumerate(events):
        color = COLORS[bucket % 6]
        if what == "gradient":
            ax.plot(i, 0, "o", color=color, markersize=19)
            ax.text(i, 0, detail, ha="center", va="center", color="white", fontweight="bold")
        else:
            bucket += 1
            ax.plot([i - 1, i - 1, i], [0.3, bucket, bucket], color=color, linewidth=1.2)
            ax.plot(i, bucket, ">", color=color, markersize=10)
            ax.text(i + 0.3, bucket, f"{detail / 1e3:,.0f} kB", va="center", color="#333333")
    ax.set(ylim=(len(sent) + 0.6, -0.7), xlim=(-0.8, len(events) + 1), xticks=[], yticks=range(len(sent) + 1),
           yticklabels=["gradient of layer …", *(f"all-reduce {k + 1}" for k in range(len(sent)))],
           xlabel="what happened, in the order of time (grey: until the last gradient is there)",
           title=f"{whose}: {early} of {len(sent)} all-reduces start while the backward pass still runs")
    order = ", ".join(f"{detail}" for what, detail in events if what == "gradient")
    show(fig, f"Events of a backward pass: the gradients of layers {order}, in this order; {early} of {len(sent)} "
              "all-reduces start in between.")


def torch_ddp(net):
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(net, bucket_cap_mb=0.1)


draw_trace(launch(traced_backward, torch_ddp, ranks=2)[0], "torch's DDP")

# %% [markdown]
# The numbers in circles are layers. Colors say which bucket a gradient went into. Each arrow is an all-reduce.
#
# That was the third step. What does DDP send in the first two, and under its other options? Eight layers of 1 MiB each;
# we only listen.

# %% tags=["demo"]
def sent_in_each_step(options, norm=False, micro=1):
    """Bytes of each all-reduce and broadcast of the first three steps, on one of two ranks."""
    from torch.nn.parallel import DistributedDataParallel

    parts = [nn.Linear(512, 512, bias=False) for _ in range(8)]
    ddp = DistributedDataParallel(nn.Sequential(*parts, *[nn.BatchNorm1d(512)] * norm), **options)
    steps = []
    for _ in range(3):
        with record_traffic() as messages:
            for k in range(micro):
                with contextlib.nullcontext() if k == micro - 1 else ddp.no_sync():  # section 5
                    ddp(torch.randn(4, 512)).square().mean().backward()
        steps.append({op: [m.bytes for m in messages if m.op == op] for op in ("all_reduce", "broadcast")})
    return steps


def sent_by_torch(ways):
    return {name: sent_in_each_step(*way) for name, way in ways.items()}


def mebibytes(size):
    return f"{size / 2**20:.0f}" if size >= 2**20 else f"{size} bytes"


WAYS = {
    "as it comes": ({},),
    "bucket_cap_mb=4": ({"bucket_cap_mb": 4},),
    "find_unused_parameters": ({"find_unused_parameters": True},),
    "static_graph": ({"static_graph": True},),
    "with a BatchNorm": ({}, True),
    "… and 4 micro-batches": ({}, True, 4),
}
sent = launch(sent_by_torch, WAYS, ranks=2)[0]
print(f"{'MiB of each all-reduce':24}", *(f"{f'step {i}':>19}" for i in (1, 2, 3)), f"{'broadcasts in step 3':>23}")
for name, steps in sent.items():
    told = [" + ".join(mebibytes(size) for size in step["all_reduce"]) for step in steps]
    print(f"{name:24}" + "".join(f"{each:>20}" for each in told) + f"{len(steps[-1]['broadcast']):>24}")

# %% [markdown]
# Habits of torch 2.13 that interviewers ask for. The first four you can find in the table; the last two aren't run
# here:
#
# * The first step is **one message for all**: nothing overlaps. In it DDP learns in which order gradients arrive, and
#   then builds its buckets anew.
# * The first of these holds **1 MiB** (`dist._DEFAULT_FIRST_BUCKET_BYTES`), so that something leaves early, the others
#   25. Who gives `bucket_cap_mb` has one cap for all (`bucket_cap_mb_list`: one a bucket).
# * With `find_unused_parameters` nothing is built anew, the small bucket is the *last*, and a few bytes more say who
#   used what. With `static_graph` the new buckets come a step later.
# * A model with **buffers** (BatchNorm's running statistics) gets rank 0's before a forward pass, unless you say
#   `broadcast_buffers=False`: before every one in plain training, not before one that follows a pass under `no_sync()`
#   (section 5; the last line of the table) or `no_grad()`.
# * With `gradient_as_bucket_view=True` every `.grad` *is* a piece of a bucket, which saves one copy of all gradients.
# * Ranks with fewer batches than others go into the `Join` context, and `torch.compile` cuts its graph where buckets
#   end, so that messages still leave early (`torch._dynamo.config.optimize_ddp`).
#
# One rule is easy to miss. Ranks may fill their buckets in a different order (think of the experts again), but
# collectives are matched by order alone. So **bucket $i$ is started only after bucket $i-1$**, on every rank, even
# if bucket $i$ is full first. Whatever has not been started by the end of the backward pass (parameters without a
# gradient) is started in `finish()`, with zeros in the gaps.
#
# ### Exercise: your own DDP
#
# torch's DDP waits for its buckets in a callback at the end of `backward()`. Ours has a method for it: call
# `ddp.finish()` after `backward()` and before `optimizer.step()`.

# %% exercise="DDP"
class DDP(nn.Module):
    """Data parallelism: after finish(), every rank holds the gradients of the whole batch.

    DDP(module, bucket_bytes=25 * 2**20), on every rank, with torch.distributed initialized:
      * overwrites all parameters and buffers of `module` with rank 0's (broadcast), here and
        never again (torch's DDP sends buffers before forward passes, too);
      * takes the trainable parameters in reverse order of module.parameters() and groups them
        with assign_buckets, a parameter's size being numel() * element_size() and the cap
        `bucket_bytes`. All have the same dtype. The module's mode (train or eval) stays.

    ddp(*args, **kwargs) runs module(*args, **kwargs).

    In the backward pass, as soon as all gradients of a bucket are there and all earlier buckets
    have been started, the bucket's gradients leave as one flat tensor, in one all_reduce with
    async_op=True. The backward pass waits for none.

    finish(), called once after the backward pass and before the optimizer's step: starts the
    buckets that have not been started (a missing gradient counts as zeros), waits for all, and
    puts the mean over the ranks into .grad of every trainable parameter, leaving the parameters
    as they are. Then all is ready for the next step. So a step sends exactly one all_reduce a
    bucket, in the order of the buckets, and calls nothing else of torch.distributed, no barrier
    either.

    with ddp.no_sync(): forward and backward passes inside send nothing; their gradients add up
    in .grad. The next backward pass outside sends the whole sum. finish() is called after that
    one only.
    """

    def __init__(self, module, bucket_bytes=25 * 2**20):
        super().__init__()
        self.module = module
        ### BEGIN SOLUTION
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor.detach(), src=0)
        params = [p for p in module.parameters() if p.requires_grad][::-1]
        sizes = [p.numel() * p.element_size() for p in params]
        groups = assign_buckets(sizes, bucket_bytes)
        self.buckets = [[params[i] for i in group] for group in groups]
        self.bucket_of = {p: b for b, bucket in enumerate(self.buckets) for p in bucket}
        self.quiet = False
        self.start_over()
        for p in params:
            p.register_post_accumulate_grad_hook(self.gradient_is_ready)

    def start_over(self):
        self.missing = [len(bucket) for bucket in self.buckets]  # gradients still to come
        self.started = []  # (flat tensor, work) of each bucket under way

    def gradient_is_ready(self, p):
        if self.quiet:
            return
        self.missing[self.bucket_of[p]] -= 1
        while len(self.started) < len(self.buckets) and self.missing[len(self.started)] == 0:
            self.start_next_bucket()

    def start_next_bucket(self):
        bucket = self.buckets[len(self.started)]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        self.started.append((flat, dist.all_reduce(flat, async_op=True)))
        ### END SOLUTION

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)

    def finish(self):
        ### BEGIN SOLUTION
        while len(self.started) < len(self.buckets):
            self.start_next_bucket()
        for bucket, (flat, work) in zip(self.buckets, self.started, strict=True):
            work.wait()
            flat /= dist.get_world_size()
            for p, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                p.grad = part.view_as(p)
        self.start_over()
        ### END SOLUTION

    @contextlib.contextmanager
    def no_sync(self):
        ### BEGIN SOLUTION
        self.quiet = True
        try:
            yield
        finally:
            self.quiet = False
        ### END SOLUTION

# %% check="DDP"
check(DDP)

# %% tags=["payoff"]
def my_ddp(net):
    return DDP(net, bucket_bytes=100_000)


draw_trace(launch(traced_backward, my_ddp, ranks=2)[0], "Your DDP")

# %% [markdown]
# ## 5. Say it once: accumulation
#
# A batch that doesn't fit into memory is cut into **micro-batches**: a backward pass each, gradients add up in
# `.grad`, one optimizer step at the end. Does DDP know that you are accumulating? It has a context manager to be
# told: `no_sync()` turns its hooks off, for all micro-batches but the last.
#
# ### Does accumulation save messages?
#
# torch's DDP, four micro-batches, one optimizer step. We count what is sent. And because its documentation wants the
# **forward** pass inside as well, we also leave that one outside.
#
# **Before the run:** *correct* if fewer than four messages leave without further ado, *imprecise* if only under
# `no_sync()`, *wrong* if not even then.

# %% claim="D02.13"
def messages_in_a_step(inside):
    """All-reduces and their bytes in the third step of four micro-batches. `inside`: which passes no_sync() holds."""
    from torch.nn.parallel import DistributedDataParallel

    torch.manual_seed(0)
    ddp = DistributedDataParallel(nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 8)))
    for _ in range(3):
        ddp.zero_grad()
        with record_traffic() as messages:
            for micro in range(4):
                held = dict.fromkeys(inside, ddp.no_sync if micro < 3 else contextlib.nullcontext)
                with held.get("forward", contextlib.nullcontext)():
                    out = ddp(torch.ones(5, 32) * micro)
                with held.get("backward", contextlib.nullcontext)():
                    (out.square().mean() / 4).backward()
    reduced = [m.bytes for m in messages if m.op == "all_reduce"]
    gradient = torch.cat([p.grad.flatten() for p in ddp.parameters()])
    return len(reduced), sum(reduced), gradient


INSIDE = {"nothing": (), "forward and backward": ("forward", "backward"), "backward alone": ("backward",)}
found = {name: launch(messages_in_a_step, inside, ranks=2)[0] for name, inside in INSIDE.items()}
for name, (count, size, _) in found.items():
    print(f"inside no_sync() {name + ':':21} {count} all-reduces, {size:,} bytes a step")
(plain, _, loud), (under, _, quiet), (half, *_) = found.values()
equal = float((loud - quiet).abs().max())
verdict("D02.13", "correct" if plain < 4 else "imprecise" if under < 4 else "wrong",
        f"Four micro-batches: {plain} all-reduces, under no_sync() {under}; the gradients differ by {equal:.0e} at "
        f"most. With the forward passes outside no_sync(): {half}.")

# %% [markdown]
# What accumulation is for is memory: only one micro-batch's activations are there at a time. Where it saves no
# messages, ask for `no_sync()`, around both passes (or take a library that calls it for you).
#
# ### Exercise: accumulate
#
# One more trap: micro-batches of different sizes. A mean of means weighs the rows of a small micro-batch too much,
# the same mistake as the ragged shards above. Weight each loss by its rows.

# %% exercise="accumulate"
def accumulate(ddp, loss_fn, batches):
    """Leave in .grad the gradient of the mean loss over all rows of `batches` and all ranks.

    ddp:     a module with the context manager no_sync(), such as yours or torch's DDP: what is
             in .grad is averaged over the ranks in each backward pass whose forward pass ran
             outside no_sync()
    loss_fn: loss_fn(output, y) is the mean loss over the rows of a micro-batch, a scalar tensor
    batches: list of (x, y), at least one; their numbers of rows len(x) may differ, but add up
             to the same on all ranks (else the ranks' means would have to be weighted, too)
    Each micro-batch has a forward and a backward pass of its own. All but the last run, forward
    and backward, inside ddp.no_sync(); the last runs outside, and it is then that ddp averages:
    you call nothing of torch.distributed. Gradients are not cleared but added to, and finish()
    is not called: the caller does that. The module keeps its weights and its mode (train or
    eval).

    Returns this rank's mean loss over all its rows, a float or a scalar tensor without a graph.
    """
    ### BEGIN SOLUTION
    rows = sum(len(x) for x, _ in batches)
    total = 0.0
    for i, (x, y) in enumerate(batches):
        last = i == len(batches) - 1
        with contextlib.nullcontext() if last else ddp.no_sync():
            loss = loss_fn(ddp(x), y) * (len(x) / rows)
            loss.backward()
        total += loss.item()
    return total
    ### END SOLUTION

# %% check="accumulate"
check(accumulate)

# %% [markdown]
# Libraries have their traps, too. In accelerate 1.15.0 every loss is divided by the micro-batches of a *whole* window,
# also in the last window of an epoch, which may be shorter: of six batches with windows of four the second step has
# half the gradient. `findings/accelerate_halves_the_last_window.sh` runs it.
#
# ### What makes the messages smaller?
#
# What do gradient clipping and mixed precision do to the bytes? torch's DDP again, one step each: plain; with
# `clip_grad_norm_`; with the forward pass under bfloat16 autocast; with the model itself in bfloat16; and with a
# **communication hook** that casts each bucket to bfloat16 for the trip.
#
# **Before the run:** *correct* if clipping and autocast both send fewer bytes than plain training, *imprecise* if one
# of them does, *wrong* if neither. *Unverifiable* if the hook doesn't either: then our count of bytes sees nothing.

# %% claim="D02.12"
def bytes_in_a_step(kind):
    from torch.nn.parallel import DistributedDataParallel

    def through_bf16(state, bucket):
        small = bucket.buffer().to(torch.bfloat16)
        work = dist.all_reduce(small, async_op=True)
        return work.get_future().then(lambda done: done.value()[0].float() / dist.get_world_size())

    net = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 8))
    dtype = torch.bfloat16 if kind == "model in bfloat16" else torch.float32
    ddp = DistributedDataParallel(net.to(dtype))
    if kind == "bfloat16 hook":
        ddp.register_comm_hook(None, through_bf16)
    for _ in range(3):
        ddp.zero_grad()
        with record_traffic() as messages:
            with torch.autocast("cpu", torch.bfloat16, enabled=kind == "bfloat16 autocast"):
                loss = ddp(torch.randn(5, 32, dtype=dtype)).float().square().mean()
            loss.backward()
            if kind == "gradient clipping":
                nn.utils.clip_grad_norm_(ddp.parameters(), 0.01)
    return sum(m.bytes for m in messages if m.op == "all_reduce")


KINDS = ["plain float32", "gradient clipping", "bfloat16 autocast", "model in bfloat16", "bfloat16 hook"]
sent = dict(zip(KINDS, launch(lambda: [bytes_in_a_step(kind) for kind in KINDS], ranks=2)[0], strict=True))

fig, ax = figure(width=8, height=2.9)
shrunk = [sent[kind] < sent[KINDS[0]] for kind in KINDS]
bars = ax.barh(KINDS, [sent[kind] / 1e3 for kind in KINDS], color=[COLORS[2] if less else COLORS[1] for less in shrunk])
ax.bar_label(bars, [f"{sent[kind]:,} bytes" for kind in KINDS], padding=4)
ax.invert_yaxis()
smaller = [kind for kind in KINDS if sent[kind] < sent[KINDS[0]]]
ax.set(xlabel="sent by a rank in one step, kB", xlim=(0, 1.3 * max(sent.values()) / 1e3),
       title=f"Fewer bytes (green): {' and '.join(smaller) or 'none'}")
show(fig, "Bars of bytes a step: " + ", ".join(f"{kind} {sent[kind]:,}" for kind in KINDS) + ".")
named = [kind for kind in ("gradient clipping", "bfloat16 autocast") if kind in smaller]
verdict("D02.12", ("wrong", "imprecise", "correct")[len(named)] if KINDS[-1] in smaller else "unverifiable",
        f"Of the two that the sentence names {' and '.join(named) or 'none'} makes messages smaller; in the run it was "
        f"{' and '.join(smaller) or 'none'}.")

# %% [markdown]
# Clipping rescales values that have already arrived. Autocast computes in bfloat16 but keeps parameters, and so
# gradients, in float32. What counts is the *gradient that travels*: that of a model held in 16 bits, or what a hook
# makes of it. Sending only the largest entries, with error feedback, or low-rank factors (PowerSGD, Vogels et al. 2019,
# arXiv:1905.13727) goes further.
#
# ### And the memory?
#
# Communication we have just seen. Memory has two parts: the tensors that the forward pass keeps for the backward
# pass (activations, and under autocast the weights' 16-bit copies), and the model's own states. We weigh both.
#
# **Before the run:** three things may shrink under autocast by over a tenth: what is kept for the backward pass, the
# model's states, the messages. *Correct* if all do, *imprecise* if some, *wrong* if none.

# %% claim="D02.16"
def memory(autocast):
    """Bytes kept for the backward pass, and bytes of parameters + gradients + Adam's two moments."""
    torch.manual_seed(0)
    net = CharGPT(vocab=64, context=64)
    optimizer, kept = torch.optim.AdamW(net.parameters()), {}
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}

    def keep(t):
        memory = t.untyped_storage()  # views of one tensor share it, and weigh once
        if memory.data_ptr() not in own:
            kept[memory.data_ptr()] = memory.nbytes()
        return t

    half = torch.autocast("cpu", torch.bfloat16, enabled=autocast)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), half:
        loss = net(torch.arange(1024).reshape(16, 64) % 64).float().logsumexp(-1).mean()
    loss.backward()
    optimizer.step()
    count = sum(p.numel() for p in net.parameters())
    states = [t for p in net.parameters() for t in (p, p.grad, *optimizer.state[p].values()) if t.numel() > 1]
    return sum(kept.values()), sum(t.numel() * t.element_size() for t in states) / count


(full, states), (half, half_states) = launch(lambda: (memory(False), memory(True)), ranks=1)[0]
print(f"kept for the backward pass:     {full / 1e6:5.1f} MB, under autocast {half / 1e6:5.1f} MB ({half / full:.0%})")
print(f"parameters, gradients, moments: {states:5.1f} bytes a parameter, under autocast {half_states:5.1f}")
saves = half < 0.9 * full, half_states < 0.9 * states, sent["bfloat16 autocast"] < 0.9 * sent["plain float32"]
verdict("D02.16", "correct" if all(saves) else "imprecise" if any(saves) else "wrong",
        f"Under autocast what is kept for the backward pass takes {half / full:.0%}, parameters with gradients and "
        f"moments {half_states / states:.0%}, messages {sent['bfloat16 autocast'] / sent['plain float32']:.0%}.")

# %% [markdown]
# Autocast lowers matrix products. The residual stream, what the norms read, and the loss stay in float32 (on GPUs the
# softmax, too): how far from half are the activations? And what a model holds besides, 16 bytes a parameter with Adam,
# is 120 GB for 7.5 billion parameters. Data parallelism copies all of it $N$ times. Cutting those copies apart is what
# ZeRO and FSDP do.
#
# ## The payoff: a GPT on four ranks
#
# Now everything at once: your sampler deals out real Shakespeare, your DDP wraps a small GPT, your `accumulate`
# runs two micro-batches a step on four ranks. Beside it, one plain process, without any of your code, takes the
# same 32 rows of each step as one batch.

# %% tags=["payoff"]
from labkit.train_ddp import Windows, loss_of

text = Windows(shakespeare()[:200_000], context=32)


def train_gpt(steps=40, rows=32, parallel=True):
    """The loss of every step: the mean over all rows of the step."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if parallel else (0, 1)
    torch.manual_seed(rank)  # the broadcast has to make up for this
    model = CharGPT(len(text.alphabet), context=32)
    wrapped = DDP(model, bucket_bytes=2**17) if parallel else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    order = shard_indices(len(text), rank, world, drop_last=True) if parallel else shards(len(text), 1, 0)[0]
    losses, mine = [], rows // world
    for step in range(steps):
        ids, targets = map(torch.stack, zip(*(text[i] for i in order[step * mine : (step + 1) * mine]), strict=True))
        optimizer.zero_grad()
        if parallel:
            halves = list(zip(ids.chunk(2), targets.chunk(2), strict=True))
            loss = torch.tensor(float(accumulate(wrapped, loss_of, halves)))
            wrapped.finish()
            dist.all_reduce(loss)  # for the curve only
        else:
            loss = loss_of(model(ids), targets)
            loss.backward()
        optimizer.step()
        losses.append(loss.item() / world)
    return losses


alone = launch(train_gpt, 40, 32, False, ranks=1)[0]
together = launch(train_gpt, ranks=4)[0]
apart = [abs(a - b) for a, b in zip(alone, together, strict=True)]

fig, (top, bottom) = figure(2, 1, width=8, height=5.0, sharex=True, height_ratios=[2, 1])
top.plot(range(1, 41), alone, color="#bbbbbb", linewidth=7, label="one process, 32 rows a step")
top.plot(range(1, 41), together, color=COLORS[0], label="your DDP: 4 ranks x 2 micro-batches x 4 rows")
top.set(ylabel="loss, nats a character", title=f"Losses step for step: never more than {max(apart):.0e} apart")
top.legend()
bottom.plot(range(1, 41), [a * 1e6 for a in apart], ".", color=COLORS[1])
bottom.set(xlabel="step", ylabel="difference,\nmillionths of a nat", xlim=(0.3, 40.7),
           ylim=(-0.06, max(1.0, 1.3e6 * max(apart))))
show(fig, f"Upper panel: the losses of one process and of your DDP; at the end {alone[-1]:.3f} and {together[-1]:.3f}. "
          f"Lower panel: their difference in each step, {max(apart):.0e} at most.")

# %% [markdown]
# Are these differences rounding? (float32 sums depend on the order of adding.) The whole promise of data parallelism is
# that it **changes where the work happens and nothing else**. If your parallel losses differ from the serial ones by
# more than some millionths, something on this page is wrong in your code.
#
# ## A script for the cluster
#
# Outside a notebook the ranks come from `torchrun`. It starts one process a GPU (or as many CPU processes as you
# like), and tells each its number through environment variables. `labkit/train_ddp.py` is a complete program of that
# kind, with torch's own DDP: accumulation under `no_sync`, clipping after the average, a step left out when the
# gradient is inf or NaN, bfloat16 on GPUs that can multiply in it, random numbers of its own on every rank (else all
# would drop out the same units). Here is its heart.

# %% tags=["demo"]
import inspect

from labkit import train_ddp

print(inspect.getsource(train_ddp.step_once))

# %% [markdown]
# Around it: a checkpoint that rank 0 writes beside the old one and then renames, so that there is always a whole one.
# A run goes on from it with the rows that come next, on as many ranks as you give it; another text or seed is refused.
# Before any collective the ranks agree whether *all* have a GPU: one that falls back to CPU alone would hang the rest.
# And when a rank fails, it says why and dies at once. To tear the process group down would be polite, and a collective:
# the others, in the middle of another one, may never join.
#
# Here it runs, on two ranks under torchrun. With two GPUs they take NCCL.

# %% tags=["demo"]
import subprocess
import sys

command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
           "-m", "labkit.train_ddp", "--steps", "60", "--every", "20", "--accumulate", "2", "--batch-size", "8"]
if torch.cuda.device_count() < 2:
    command.append("--cpu")
done = subprocess.run(command, capture_output=True, text=True)
print("$ torchrun", *command[3:])
print(done.stdout if done.returncode == 0 else done.stderr[-2000:])
if not torch.cuda.is_available():
    print("There is no GPU here, so this ran on CPUs with gloo. With a GPU for every rank it takes NCCL.")

# %% [markdown]
# The commands for several machines and for SLURM, what to check first when they don't find each other, and three
# programs of the same kind for what DDP can't hold (`train_fsdp`, `train_tp`, `train_pp`) are in `docs/cluster.md`.
#
# ## Horovod and DeepSpeed: the same step
#
# The three libraries that the interview question names do the same thing. What changes is who owns the loop. (Only
# torch's is run here.)
#
# torch's DDP wraps the model:
#
# ```python
# dist.init_process_group("nccl")
# model = DDP(model)
# opt = AdamW(model.parameters())
# loss_fn(model(x), y).backward()  # hooks average
# opt.step()
# ```
#
# Horovod wraps the optimizer:
#
# ```python
# hvd.init()
# hvd.broadcast_parameters(model.state_dict(), root_rank=0)
# opt = hvd.DistributedOptimizer(AdamW(model.parameters()), model.named_parameters())
# loss_fn(model(x), y).backward()  # hooks average
# opt.step()                       # waits first
# ```
#
# In DeepSpeed an engine owns model, optimizer and accumulation:
#
# ```python
# engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
# engine.backward(loss_fn(engine(x), y))  # the config says when to average
# engine.step()                           # does nothing before the last micro-batch
# ```
#
# * In **Horovod** the optimizer is wrapped, not the model, and the broadcast is a line that you write. It made ring
#   all-reduce popular (Sergeev & Del Balso 2018, arXiv:1802.05799) and its tensor fusion is your bucket. **It is no
#   longer maintained in any useful sense**: the last release is 0.28.1 of June 2023; Ray dropped its trainer since
#   Horovod did not work with torch above 2.3 (ray-project/ray#49454), Lightning removed it with its version 2.0
#   (#16150), Databricks calls it deprecated. Know it, don't start with it.
# * **DeepSpeed** (Microsoft's, now the deepspeedai organization's) takes over optimizer, precision and accumulation
#   from a config. Its point is not the averaging but **ZeRO**: the copies are cut apart, so that models fit that
#   DDP can't hold.
# * **torch DDP** is the standard as long as model, gradients and optimizer state fit on one GPU. Beyond that: FSDP
#   (`fully_shard`), ZeRO, tensor and pipeline parallelism.
#
# ## What you can say now
#
# * Data parallelism is one identity: the mean of the shards' gradients is the batch's gradient, *if the shards are
#   equal or weighted*.
# * DDP broadcasts parameters once and buffers before forward passes, averages in buckets (the first of 1 MiB, the
#   others of 25), and sends them while the backward pass runs. It doesn't split data and doesn't step the optimizer.
# * Collectives are matched by order. Different orders hang, or worse, mix.
# * `no_sync()` is for fewer messages, gradients of 16 bits for fewer bytes; clipping comes after both.
