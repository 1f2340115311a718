# ---
# jupyter:
#   course:
#     title: "Pipeline parallelism: a model on an assembly line"
#     exercises: data_parallel.pipeline_parallel
#     questions: [D03]
#     needs: [03_data_parallel/02_all_reduce]
# ---

# %% [markdown]
# # Pipeline parallelism: a model on an assembly line
#
# A model that doesn't fit on one device is cut into **stages**: the first layers here, the next ones there.
# Activations travel down, gradients travel back up. Done naively, with one batch at a time, that leaves three of four
# devices asleep.
#
# You build the cut, three schedules that wake the others up (GPipe, 1F1B, interleaved), the clock that says what they
# are worth, and a training step on real processes.

# %% tags=["setup"]
import contextlib
import io
import itertools
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from autograde import check
from labkit import COLORS, evidence, figure, launch, record_traffic, shakespeare, show, verdict

# %% [markdown]
# ## Where to cut: `split_layers`
#
# The stages work at the same time, each on something else, and every one waits for the slowest. So equal *numbers* of
# layers are not the aim: an output layer over a large vocabulary may cost as much as ten blocks.

# %% exercise="split_layers"
def split_layers(costs, n_stages):
    """How many layers each stage takes, so that the slowest stage is as fast as can be.

    costs: the layers' costs (seconds) in their order, a list of numbers >= 0. With a hundred
           layers there are too many cuts to try them all.
    n_stages: 1 … len(costs).
    Stage 0 takes the first layers, stage 1 the next ones, and so on; each takes at least one, and
    together they take all. A stage's cost is the sum of its layers' costs.
    Returns a list of n_stages whole numbers, the layers of each stage, whose largest stage cost
    is the smallest possible. Where several cuts are equally good, any of them.
    """
    ### BEGIN SOLUTION
    sums = [0, *itertools.accumulate(costs)]
    best = {(0, 0): (0, None)}  # (stages, layers) -> (slowest stage, layers of the stages before)
    for k in range(1, n_stages + 1):
        for n in range(k, len(costs) + 1):
            best[k, n] = min(
                (max(best[k - 1, m][0], sums[n] - sums[m]), m)
                for m in range(n) if (k - 1, m) in best
            )
    counts, n = [], len(costs)
    for k in range(n_stages, 0, -1):
        m = best[k, n][1]
        counts.append(n - m)
        n = m
    return counts[::-1]
    ### END SOLUTION

# %% check="split_layers"
check(split_layers)

# %% [markdown]
# ### Which nets can be cut well?
#
# The question bank says: sequential ones, such as CNNs and MLPs. What must be good about a cut? The stages should cost
# the same (here in FLOPs), and little should have to cross: bytes of activations, for what is computed in between.
#
# We count both for four nets of eight layers, cut into four stages in the best of all possible ways. And for the CNN
# with twice as many layers of the same kinds, since eight may be too few to cut evenly.
#
# **Before the run:** a net can be *cut well* if the slowest stage takes at most 1.2 times the mean. The sentence is
# *correct* if MLP and CNN (of eight layers) can both be cut well and the Transformer (its blocks alone) can't. It is
# *imprecise* if the Transformer can, too, or if one of the two named can't. It is *wrong* if neither of the two can.
# (MLP and Transformer are eight equal layers: those cut evenly whatever they are, so the last word has the CNN. What
# crosses is counted for you to see, and isn't in the rule.)

# %% claim="D03.4"
from torch.utils.flop_counter import FlopCounterMode


def conv(a, b, stride=1):
    return nn.Sequential(nn.Conv2d(a, b, 3, stride, padding=1), nn.ReLU())


def block(width, heads=4):
    return nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, batch_first=True, norm_first=True)


NETS = {
    "MLP, equal widths": ([nn.Sequential(nn.Linear(512, 512), nn.ReLU()) for _ in range(8)], (64, 512)),
    "CNN, VGG-like": ([conv(3, 32), conv(32, 32), conv(32, 64, 2), conv(64, 64), conv(64, 128, 2), conv(128, 128),
                       conv(128, 128), conv(128, 128)], (1, 3, 32, 32)),
    "the CNN, 16 layers": ([conv(3, 32), *(conv(32, 32) for _ in range(3)), conv(32, 64, 2),
                            *(conv(64, 64) for _ in range(3)), conv(64, 128, 2),
                            *(conv(128, 128) for _ in range(7))], (1, 3, 32, 32)),
    "Transformer": ([block(128) for _ in range(8)], (1, 64, 128)),
    "Transformer with its head": ([*(block(128) for _ in range(7)), nn.Linear(128, 8_000)], (1, 64, 128)),
}


def weighed(layers, shape):
    """FLOPs of each layer, and the bytes that it hands on."""
    x, flops, sizes = torch.randn(shape), [], []
    for layer in layers:
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            x = layer.train()(x)  # in evaluation mode a Transformer layer is one fused operator
        flops.append(counter.get_total_flops())
        sizes.append(4 * x.numel())
    return flops, sizes


def best_cut(flops, stages=4):
    """Of all cuts the one with the fastest slowest stage: the places of the cuts, and each stage's share."""
    def loads(cut):
        return [sum(flops[a:b]) for a, b in itertools.pairwise((0, *cut, len(flops)))]

    cut = min(itertools.combinations(range(1, len(flops)), stages - 1), key=lambda cut: max(loads(cut)))
    return cut, [load / sum(flops) for load in loads(cut)]


fig, (left, right) = figure(1, 2, width=10.5, height=4.1)
slowest, crossing = {}, {}
for row, (name, (layers, shape)) in enumerate(NETS.items()):
    flops, sizes = weighed(layers, shape)
    cut, shares = best_cut(flops)
    slowest[name] = 4 * max(shares)
    crossing[name] = sum(sizes[place - 1] for place in cut) / sum(flops) * 1e6
    start = 0.0
    for stage, share in enumerate(shares):
        left.barh(row, 100 * share, left=start, color=COLORS[stage], edgecolor="white", height=0.7)
        left.text(start + 50 * share, row, f"{100 * share:.0f}", ha="center", va="center", color="white")
        start += 100 * share
left.set(yticks=range(len(NETS)), xlabel="share of the FLOPs in stages 0 to 3, %", title="Its cut into four")
left.set_yticklabels(list(NETS))
left.invert_yaxis()
bars = right.barh(range(len(NETS)), list(crossing.values()), color=COLORS[5], height=0.7)
right.bar_label(bars, [f"{value:,.0f}" for value in crossing.values()], padding=4)
right.set(yticks=[], xlabel="bytes that cross, per million FLOPs", xlim=(0, 1.25 * max(crossing.values())),
          title="What has to travel")
right.invert_yaxis()
told = "; ".join(f"{name} {slowest[name]:.2f} times the mean, {crossing[name]:,.0f} bytes" for name in NETS)
show(fig, f"Left: each net's FLOPs in four stages. Right: bytes that cross the cuts per million FLOPs. Slowest stage "
          f"and bytes: {told}.",
     title=f"Slowest stage: between {min(slowest.values()):.2f} and {max(slowest.values()):.2f} times the mean")

good = {name: value <= 1.2 for name, value in slowest.items()}
named = [good["MLP, equal widths"], good["CNN, VGG-like"]]
verdict("D03.4", "wrong" if not any(named) else "correct" if all(named) and not good["Transformer"] else "imprecise",
        f"Slowest stage over the mean: {told}.")

# %% [markdown]
# What is needed is a chain of layers; a residual connection *inside* a layer does no harm. Look at the second row
# and the third, and then at the last two. Llama 3's 405 B model takes one layer off its last pipeline stage, where
# output layer and loss cost time, and one off the first, where memory is short (Grattafiori et al. 2024,
# arXiv:2407.21783, section 3.3.2).
#
# ## The naive way, and micro-batches
#
# With stages on four ranks, run the batch through: rank 0 forward, rank 1, 2, 3, then all back. At any time one rank
# works. If you cut the batch into **micro-batches**, rank 0 can start the second one while rank 1 has the first.
#
# Let's watch it. torch's own `torch.distributed.pipelining` runs on four processes. They share one computer's cores,
# and few cores can't show four devices at work, so each stage *sleeps* for as long as a device would compute: 10 ms a
# row forward, 20 ms a row back. Sleeping takes no core. Everything else is real: messages, order, waiting, and the
# clock (a busy machine wakes sleepers late).

# %% tags=["demo"]
from matplotlib.patches import Patch

ROWS, SECONDS = 16, 0.01  # rows of a batch; seconds a row forward, twice as long back


class Sleep(torch.autograd.Function):
    """Takes time in both directions, and notes (kind, start, end)."""

    @staticmethod
    def forward(ctx, x, log, seconds):
        ctx.log, ctx.seconds = log, 2 * seconds
        return Sleep.spend(x, "F", log, seconds)

    @staticmethod
    def backward(ctx, grad):
        return Sleep.spend(grad, "B", ctx.log, ctx.seconds), None, None

    @staticmethod
    def spend(x, kind, log, seconds):
        start = time.perf_counter()
        time.sleep(seconds * len(x))
        log.append((kind, start, time.perf_counter()))
        return x.clone()


class Device(nn.Module):
    """A stage: one linear layer that takes its time. `log` fills with what it does."""

    def __init__(self, seconds=SECONDS):
        super().__init__()
        self.layer, self.log, self.seconds = nn.Linear(8, 8), [], seconds

    def forward(self, x):
        return Sleep.apply(self.layer(x), self.log, self.seconds)


def recorded(plans):
    """Run each (schedule, micro-batches) of torch on this rank's stage; the events of each."""
    from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

    rank, world, found = dist.get_rank(), dist.get_world_size(), []
    for name, micro in plans:
        device, batch = Device(seconds=0.0), torch.randn(ROWS, 8)
        stage = PipelineStage(device, rank, world, torch.device("cpu"))
        schedule = {"GPipe": ScheduleGPipe, "1F1B": Schedule1F1B}[name](stage, micro, loss_fn=F.mse_loss)
        given = ([batch] if rank == 0 else []), ({"target": batch} if rank == world - 1 else {})
        schedule.step(*given[0], **given[1])  # the first step asks for shapes: not recorded
        device.seconds = SECONDS
        device.log.clear()
        dist.barrier()
        schedule.step(*given[0], **given[1])
        found.append(list(device.log))
    return found


PLANS = [("GPipe", 1), ("GPipe", 2), ("GPipe", 4), ("GPipe", 8), ("GPipe", 16), ("1F1B", 8)]
RUNS = dict(zip(PLANS, zip(*launch(recorded, PLANS, ranks=4), strict=True), strict=True))


def span(run):
    """First start and last end of a recorded run: one list of events a rank."""
    return min(start for rank in run for _, start, _ in rank), max(end for rank in run for *_, end in rank)


def idle(run):
    """The share of all ranks' time in which they wait."""
    start, end = span(run)
    return 1 - sum(b - a for rank in run for _, a, b in rank) / (len(run) * (end - start))


def timelines(runs, alt):
    """Timelines below one another: what each rank did when, with the numbers of the micro-batches. {title: run}"""
    fig, axes = figure(len(runs), 1, width=10, height=0.9 + 2.1 * len(runs), sharex=True)
    for ax, (title, run) in zip(axes, runs.items(), strict=True):
        draw(ax, run, title)
    axes[-1].set_xlabel("milliseconds")
    patches = [Patch(color=COLORS[0], label="forward"), Patch(color=COLORS[4], label="backward")]
    axes[0].legend(handles=patches, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    show(fig, f"Recorded timelines of four ranks, forward blue, backward orange. {alt}")


def draw(ax, run, title):
    first, _ = span(run)
    for rank, events in enumerate(run):
        count = {"F": itertools.count(), "B": itertools.count()}
        for kind, start, end in events:
            ax.barh(rank, 1e3 * (end - start), left=1e3 * (start - first), height=0.8, edgecolor="white",
                    color=COLORS[0] if kind == "F" else COLORS[4])
            ax.text(1e3 * ((start + end) / 2 - first), rank, next(count[kind]), ha="center", va="center",
                    fontsize=8, color="white" if kind == "F" else "black")
    ax.set(yticks=range(len(run)), title=title, ylim=(len(run) - 0.4, -0.6))
    ax.set_yticklabels([f"rank {r}" for r in range(len(run))])


took = {plan: span(run)[1] - span(run)[0] for plan, run in RUNS.items()}
heads = {f"{m} micro-batch{'es' if m > 1 else ''}: {took['GPipe', m]:.2f} s, ranks wait {idle(RUNS['GPipe', m]):.0%} "
         "of the time": RUNS["GPipe", m] for m in (1, 4)}
timelines(heads, f"The same {ROWS} rows. {'; '.join(heads)}.")

# %% [markdown]
# ### Layer after layer, device after device
#
# The upper timeline is what the question bank calls *layer-wise* model parallelism. Does it do what it says?
#
# **Before the run:** *correct* if in the recorded run every rank starts forward only after the rank before it has
# ended, and goes back in the opposite order, while the run with four micro-batches breaks this rule; else *wrong*.
# (With a single one nothing else is possible, since a rank waits for its input. That the other run must break it was
# added when the result was known.)

# %% claim="D03.3"
naive = RUNS["GPipe", 1]


def in_turn(run):
    """Whether each rank begins only when the one before has done all of its part, forward and then back."""
    turns = [[event for event in rank if event[0] == kind] for kind, ranks in (("F", run), ("B", run[::-1]))
             for rank in ranks]
    return all(a[-1][2] <= b[0][1] for a, b in itertools.pairwise(turns))


one, four = in_turn(naive), in_turn(RUNS["GPipe", 4])
verdict("D03.3", "correct" if one and not four else "wrong",
        f"One rank after the other, forward and back: {one}; with four micro-batches: {four}. Each rank works "
        f"{1 - idle(naive):.0%} of the time.")

# %% [markdown]
# ## GPipe: `gpipe_schedule`
#
# A **schedule** says for each rank what it does in which order. Nothing about time: a rank waits where it must. GPipe's
# is the simplest (Huang et al. 2019, arXiv:1811.06965): all micro-batches forward, then all back, then the optimizer's
# step. Since every gradient belongs to the same weights, the result is that of the whole batch.

# %% exercise="gpipe_schedule"
def gpipe_schedule(n_stages, n_micro):
    """GPipe: every rank runs all forward passes, then all backward passes.

    n_stages, n_micro: numbers of stages and of micro-batches, at least 1. Rank r owns stage r.
    An action is a tuple (kind, stage, micro-batch), kind "F" (forward) or "B" (backward).
    Returns a list with one entry a rank, rank 0 first: the list of its actions in order, forward
    for micro-batches 0 … n_micro - 1, then backward for 0 … n_micro - 1.
    """
    ### BEGIN SOLUTION
    micros = range(n_micro)
    return [[(kind, r, i) for kind in "FB" for i in micros] for r in range(n_stages)]
    ### END SOLUTION

# %% check="gpipe_schedule"
check(gpipe_schedule)

# %% [markdown]
# ## The bubble: `bubble_fraction`
#
# The time in which ranks wait is the **bubble**. Call one micro-batch's forward and backward pass on one stage a unit.
# With $p$ stages and $m$ micro-batches, alike in cost, every rank has $m$ units of work. The last rank begins $p - 1$
# forward passes late, and rank 0 ends $p - 1$ backward passes after it: $p - 1$ more units in all. So
#
# $$\text{bubble} = \frac{p-1}{m+p-1}$$
#
# (Papers also divide by the work alone: Megatron-LM's bubble is $(p-1)/m$.) The formula knows neither uneven stages nor
# slow messages nor other schedules. A clock does: play the schedule, and look who waits.

# %% exercise="bubble_fraction"
def bubble_fraction(schedule, seconds, load=None, latency=0.0):
    """The share of all ranks' time in which they wait, when a schedule is played.

    schedule: schedule[r] is the list of rank r's actions (kind, stage, micro-batch) in order.
              A rank may own several stages or none, and the ranks may own them in any order:
              a stage belongs to the rank in whose list it stands. The stages are 0 … the
              largest.
    seconds:  dict, how long an action of each kind takes, as {"F": 1.0, "B": 2.0}.
    load:     list of a factor a stage, or None (all 1): an action takes
              seconds[kind] * load[stage].
    latency:  seconds that a message takes from one rank to another; none between stages of the
              same rank. Messages keep nobody busy.

    A rank starts an action as soon as it has ended the one before and what the action needs is
    there:
      F of stage s:      F of stage s - 1, same micro-batch (stage 0 needs nothing)
      B of stage s:      F of stage s, and B (or I) of stage s + 1 (the last stage: only its F)
      I of stage s:      as B. It is B without the weights' gradients,
      W of stage s:      which follow later: I of stage s.
    Time runs from 0 to the end of the last action of all; every rank counts for all of it.
    Returns 1 - working time / all time, both summed over the ranks: a float from 0 to 1.
    Raises ValueError if ranks would wait for ever.
    """
    ### BEGIN SOLUTION
    owner = {stage: rank for rank, actions in enumerate(schedule) for _, stage, _ in actions}
    last, ended, busy = max(owner), {}, 0.0  # ended: I is entered as B
    free, queues = [0.0] * len(schedule), [list(actions) for actions in schedule]

    def needs(kind, stage, i):
        if kind == "F":
            return [("F", stage - 1, i)] if stage else []
        if kind == "W":
            return [("B", stage, i)]
        return [("F", stage, i)] + ([("B", stage + 1, i)] if stage < last else [])

    while any(queues):
        stuck = True
        for rank, queue in enumerate(queues):
            while queue and all(one in ended for one in needs(*queue[0])):
                kind, stage, i = queue.pop(0)
                there = [
                    ended[one] + latency * (owner[one[1]] != rank)
                    for one in needs(kind, stage, i)
                ]
                takes = seconds[kind] * (load[stage] if load is not None else 1)
                free[rank] = max([free[rank], *there]) + takes
                ended["B" if kind == "I" else kind, stage, i] = free[rank]
                busy += takes
                stuck = False
        if stuck:
            raise ValueError("the ranks wait for ever")
    return 1 - busy / (len(schedule) * max(free))
    ### END SOLUTION

# %% check="bubble_fraction"
check(bubble_fraction)

# %% [markdown]
# Formula, your clock, and the recorded runs, on one sheet. And what the formula can't say: the same schedule with a
# last stage that takes half as long again, as an output layer may. What is recorded has messages and late wake-ups in
# it, which weigh more the shorter the pieces are.

# %% tags=["payoff"]
cuts = [1, 2, 4, 8, 16]
BOTH = {"F": 1.0, "B": 2.0}
clock = [bubble_fraction(gpipe_schedule(4, m), BOTH) for m in cuts]
uneven = [bubble_fraction(gpipe_schedule(4, m), BOTH, load=[1, 1, 1, 1.5]) for m in cuts]
real = [idle(RUNS["GPipe", m]) for m in cuts]
formula = [3 / (m + 3) for m in cuts]

fig, ax = figure(width=8.5, height=3.8)
ax.plot(cuts, [100 * b for b in formula], "--", color="black", linewidth=1, label="(p − 1) / (m + p − 1)")
ax.plot(cuts, [100 * b for b in clock], "o", color=COLORS[0], markersize=11, markerfacecolor="none", label="your clock")
ax.plot(cuts, [100 * b for b in real], "x", color=COLORS[1], markersize=8, markeredgewidth=2, label="recorded")
ax.plot(cuts, [100 * b for b in uneven], "s-", color=COLORS[3], linewidth=1, label="your clock, with one slow stage")
ax.set(xscale="log", xlabel="micro-batches", ylabel="bubble, % of the time", ylim=(0, 85))
ax.set_xticks(cuts, [str(m) for m in cuts])
ax.minorticks_off()
ax.legend()
apart = max(abs(a - b) for a, b in zip(clock, formula, strict=True))
off = max(abs(a - b) for a, b in zip(clock, real, strict=True))
show(fig, "Bubble against the number of micro-batches, four ranks. " + "; ".join(
         f"{m}: formula {f:.0%}, clock {c:.0%}, recorded {r:.0%}, uneven {u:.0%}"
         for m, f, c, r, u in zip(cuts, formula, clock, real, uneven, strict=True)) + ".",
     title=f"Your clock and the formula: {apart:.0e} apart; recorded: up to {100 * off:.0f} points more or less")

# %% [markdown]
# ### "Resources are used maximally"
#
# So says the question bank of computing several batches at once.
#
# **Before the run:** *correct* if a recorded run with up to 16 micro-batches on four ranks keeps them at work for 95 %
# of the time; *imprecise* if it doesn't, but they work at least half as much again as without micro-batches; else
# *wrong*. (The formula gives 84 % for 16, and 95 % only from 57 on. So *correct* would mean that it is wrong.)

# %% claim="D03.8"
at_work = {m: 1 - idle(RUNS["GPipe", m]) for m in (1, 2, 4, 8, 16)}
most = max(at_work.values())
verdict("D03.8", "correct" if most >= 0.95 else "imprecise" if most >= 1.5 * at_work[1] else "wrong",
        "At work, recorded on four ranks: "
        + ", ".join(f"{share:.0%} with {m} micro-batch{'es' if m > 1 else ''}" for m, share in at_work.items()) + ".")

# %% [markdown]
# Why not hundreds of micro-batches, then? Each has to fill a device; a batch has an end; and there is the memory.
#
# ## Memory
#
# A forward pass leaves **activations** that its backward pass needs. In GPipe the first backward pass comes after the
# last forward pass: all micro-batches lie there at once.
#
# Now a real model, a small GPT of eight blocks on four ranks, two blocks each. Each rank counts what autograd keeps: it
# is told of every tensor that is saved, and of every one that is let go.

# %% tags=["demo"]
from labkit.train_ddp import CharGPT, Windows, loss_of

CONTEXT, BATCH = 32, 16


class Part(nn.Module):
    """Stage `rank` of `world` of a CharGPT: its share of the blocks, at the ends also embedding and output layer."""

    def __init__(self, model, rank, world):
        super().__init__()
        each = len(model.blocks) // world
        self.blocks = model.blocks[rank * each : (rank + 1) * each]
        if rank == 0:
            self.tokens, self.positions = model.tokens, model.positions
        if rank == world - 1:
            self.norm, self.head = model.norm, model.head

    def forward(self, x):
        if hasattr(self, "tokens"):
            x = self.tokens(x) + self.positions(torch.arange(x.shape[1]))
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        for layer in self.blocks:
            x = layer(x, src_mask=mask, is_causal=True)
        return self.head(self.norm(x)) if hasattr(self, "head") else x


class Saved:
    """Counts the bytes that autograd keeps for backward passes, parameters aside."""

    def __init__(self, module):
        self.own, self.now, self.curve = {p.data_ptr() for p in module.parameters()}, 0, [0]

    def counting(self):
        class Kept:
            def __init__(kept, tensor):
                kept.tensor = tensor
                kept.size = 0 if tensor.data_ptr() in self.own else tensor.numel() * tensor.element_size()
                self.now += kept.size

            def __del__(kept):
                self.now -= kept.size

        return torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor)

    def watch(self, output):
        """Note what is held after a forward pass, and when its backward pass begins."""
        self.curve.append(self.now)
        output.register_hook(lambda _: self.curve.append(self.now))
        return output


def held_by(model, optimizer):
    """Bytes of parameters, gradients and Adam's moments."""
    params = list(model.parameters())
    states = [t for p in params for t in (p, p.grad, *optimizer.state[p].values()) if t.numel() > 1]
    return sum(t.numel() * t.element_size() for t in states)


def batch_of(rows=BATCH):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(64, (rows, CONTEXT + 1), generator=generator)
    return ids[:, :-1], ids[:, 1:]


def whole_step(depth):
    """One process: loss, gradients by name, bytes of states, most bytes of activations."""
    torch.manual_seed(0)
    model, (ids, targets) = CharGPT(64, CONTEXT, layers=depth), batch_of()
    optimizer, saved = torch.optim.AdamW(model.parameters(), lr=0.0), Saved(model)
    with saved.counting():
        loss = loss_of(saved.watch(model(ids)), targets)
    loss.backward()
    optimizer.step()
    return {"loss": loss.item(), "gradient": {name: p.grad for name, p in model.named_parameters()},
            "states": held_by(model, optimizer), "activations": max(saved.curve)}


def staged_step(plans):
    """For each (schedule, micro-batches, depth): the same of this rank's stage, and what it saw and sent."""
    from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

    rank, world, results = dist.get_rank(), dist.get_world_size(), []
    for name, micro, depth in plans:
        torch.manual_seed(0)
        model, (ids, targets) = CharGPT(64, CONTEXT, layers=depth), batch_of()
        names = {p: key for key, p in model.named_parameters()}
        part = Part(model, rank, world)
        del model  # what other ranks hold is let go here
        saved, rows, losses = Saved(part), [], []
        part.register_forward_hook(lambda _, given, out, saved=saved, rows=rows: (
            rows.append(len(given[0])), saved.watch(out))[1])
        stage = PipelineStage(part, rank, world, torch.device("cpu"))
        schedule = {"GPipe": ScheduleGPipe, "1F1B": Schedule1F1B}[name](stage, micro, loss_fn=loss_of)
        optimizer = torch.optim.AdamW(part.parameters(), lr=0.0)
        given = ([ids] if rank == 0 else []), ({"target": targets} if rank == world - 1 else {})
        schedule.step(*given[0], **given[1])
        optimizer.zero_grad()
        rows.clear()
        saved.curve[:] = [0]
        with record_traffic() as messages, saved.counting():
            schedule.step(*given[0], **given[1], losses=losses)
        saved.curve.append(saved.now)
        optimizer.step()
        results.append({
            "loss": torch.stack(losses).mean().item() if losses else None, "rows": rows, "curve": saved.curve,
            "gradient": {names[p]: p.grad for p in part.parameters()}, "states": held_by(part, optimizer),
            "sent": [m.bytes for m in messages if m.op == "send"],
        })  # fmt: skip
    return results


GPTS = [("GPipe", 1, 8), ("GPipe", 8, 8), ("1F1B", 8, 8), ("1F1B", 8, 4), ("1F1B", 8, 12)]
STAGED = dict(zip(GPTS, zip(*launch(staged_step, GPTS, ranks=4), strict=True), strict=True))
ALONE = {depth: whole_step(depth) for depth in (4, 8, 12)}

fig, axes = figure(1, 4, height=3.2, sharey=True)
for rank, ax in enumerate(axes):
    for plan, color, style in [(("GPipe", 8, 8), COLORS[1], "-"), (("1F1B", 8, 8), COLORS[0], "-")]:
        curve = STAGED[plan][rank]["curve"]
        ax.step(range(len(curve)), [b / 1e6 for b in curve], style, where="post", color=color, label=plan[0])
    ax.set(title=f"rank {rank}", xlabel="actions done")
axes[0].set_ylabel("kept for backward, MB")
axes[0].legend(loc="upper left")
peaks = {name: [max(STAGED[name, 8, 8][r]["curve"]) / 1e6 for r in range(4)] for name in ("GPipe", "1F1B")}
show(fig, "Bytes kept for backward passes against the actions done, four ranks. Peaks: " + "; ".join(
         f"{name} {', '.join(f'{peak:.1f}' for peak in of)} MB" for name, of in peaks.items()) + ".",
     title="Eight micro-batches, most MB held by rank 0 to 3: " + "; ".join(
         f"{name} {', '.join(f'{peak:.1f}' for peak in of)}" for name, of in peaks.items()))

# %% [markdown]
# The orange curve is GPipe. The blue one is torch's `Schedule1F1B`, of which more below.
#
# ### Too large for one device?
#
# With the same numbers we can ask the notes' first two sentences. Model parallelism is for what doesn't fit, and it
# *splits the model, not the data*. Take a device with 40 % of what one process needs here (parameters, gradients,
# Adam's moments, activations at their peak). It is too small for the whole, because we made it so; the four parts may
# fit or not.
#
# **Before the run:** the first is *correct* if the whole doesn't fit on such a device and under 1F1B each of the four
# parts does, else *wrong*. The second is *correct* if every parameter is on exactly one rank and every rank's layers
# see all rows of the batch; *imprecise* if only one of the two holds; else *wrong*.

# %% claim="D03.1"
needed = ALONE[8]["states"] + ALONE[8]["activations"]
device = 0.4 * needed
parts = [r["states"] + max(r["curve"]) for r in STAGED["1F1B", 8, 8]]
fits = [size <= device for size in parts]
verdict("D03.1", "correct" if needed > device and all(fits) else "wrong",
        f"One process needs {needed / 1e6:.1f} MB, the device has {device / 1e6:.1f}. The four ranks need "
        f"{', '.join(f'{size / 1e6:.1f}' for size in parts)} MB: {sum(fits)} of 4 fit. Rank {parts.index(max(parts))} "
        "needs the most.")

# %% claim="D03.2"
homes = [set(r["gradient"]) for r in STAGED["1F1B", 8, 8]]
once = sum(map(len, homes)) == len(set().union(*homes)) == len(ALONE[8]["gradient"])
rows_seen = [sum(r["rows"]) for r in STAGED["1F1B", 8, 8]]
all_rows = set(rows_seen) == {BATCH}
verdict("D03.2", {2: "correct", 1: "imprecise", 0: "wrong"}[once + all_rows],
        f"Every parameter on exactly one rank: {once}. Rows that passed each rank's layers: {rows_seen} of {BATCH}.")

# %% [markdown]
# The ranks have equally many blocks, but not equally many micro-batches under way. (Data parallelism would deal out the
# rows, and keep every parameter everywhere.)
#
# ## 1F1B: `one_f_one_b_schedule`
#
# The last rank could go back with micro-batch 0 at once: its loss is there. So let it, and let every rank go **one
# forward, one backward** by turns as soon as gradients come (PipeDream: Harlap et al. 2018, arXiv:1806.03377; with a
# flush at the end of each batch: Narayanan et al. 2020, arXiv:2006.09503).
#
# The only question is the warm-up. A micro-batch that leaves rank $r$ has $p - r - 1$ ranks below to pass, and to come
# back through. How many does rank $r$ send before the first gradient is there?
#
# Here are both, recorded with torch's own schedules.

# %% tags=["demo"]
heads = {f"{name}, 8 micro-batches: {took[name, 8]:.2f} s, ranks wait {idle(RUNS[name, 8]):.0%}": RUNS[name, 8]
         for name in ("GPipe", "1F1B")}
timelines(heads, "; ".join(heads) + ".")

# %% [markdown]
# The numbers in the boxes are all you need for the exercise: read off what each rank does before its first backward
# pass, and after it.

# %% exercise="one_f_one_b_schedule"
def one_f_one_b_schedule(n_stages, n_micro):
    """1F1B: after a warm-up each rank goes back and forward by turns.

    n_stages, n_micro: numbers of stages and of micro-batches, at least 1; n_micro may be smaller
    than n_stages. Rank r owns stage r. Actions are as in gpipe_schedule.
    Rank r never holds more than n_stages - r micro-batches (gone forward, not yet back): it goes
    forward until it holds so many or no forward pass is left, then back and forward by turns,
    and at the end back with what is left. Forward and backward passes each take the
    micro-batches in the order 0, 1, 2 …
    Returns a list with one entry a rank, rank 0 first: the list of its actions in order.
    The bubble is GPipe's.
    """
    ### BEGIN SOLUTION
    schedule = []
    for r in range(n_stages):
        warm = min(n_stages - r, n_micro)
        actions = [("F", r, i) for i in range(warm)]
        for i in range(n_micro):
            actions.append(("B", r, i))
            if warm + i < n_micro:
                actions.append(("F", r, warm + i))
        schedule.append(actions)
    return schedule
    ### END SOLUTION

# %% check="one_f_one_b_schedule"
check(one_f_one_b_schedule)

# %% [markdown]
# What does a rank hold at most, and what does it wait? Your two schedules, by your clock, for more and more
# micro-batches.

# %% tags=["payoff"]
def most_held(actions):
    """Stages times micro-batches that have gone forward and not yet back, at most."""
    return max(itertools.accumulate(1 if kind == "F" else -1 for kind, *_ in actions if kind != "W"))


cuts = [4, 8, 16, 32, 64]
fig, (left, right) = figure(1, 2, width=10, height=3.5)
for make, name, color, mark in [(gpipe_schedule, "GPipe", COLORS[1], "s-"),
                                (one_f_one_b_schedule, "1F1B", COLORS[0], "o-")]:
    tables = [make(4, m) for m in cuts]
    held = [max(map(most_held, table)) for table in tables]
    waits = [bubble_fraction(table, BOTH) for table in tables]
    left.plot(cuts, held, mark, color=color, label=name)
    right.plot(cuts, [100 * w for w in waits], mark, color=color, markersize=10 if name == "GPipe" else 4, label=name)
    print(f"{name}: holds at most {held}, bubble {[round(w, 3) for w in waits]}")
for ax, label in [(left, "micro-batches held by rank 0"), (right, "bubble, % of the time")]:
    ax.set(xscale="log", yscale="log", xlabel="micro-batches", ylabel=label)
    ax.set_xticks(cuts, [str(m) for m in cuts])
    ax.minorticks_off()
left.set_yticks(cuts, [str(m) for m in cuts])
right.set_yticks([5, 10, 20, 40], ["5", "10", "20", "40"])
left.legend()
ratio = most_held(gpipe_schedule(4, 64)[0]) / most_held(one_f_one_b_schedule(4, 64)[0])
same = all(abs(bubble_fraction(gpipe_schedule(4, m), BOTH) - bubble_fraction(one_f_one_b_schedule(4, m), BOTH)) < 1e-9
           for m in cuts)
show(fig, f"Micro-batches held and bubble against the number of micro-batches. At 64 GPipe holds {ratio:.0f} times "
          f"what 1F1B holds; the bubbles are {'the same' if same else 'not the same'}.",
     title=f"At 64 micro-batches 1F1B holds a {ratio:.0f}th of GPipe's; {'same' if same else 'another'} bubble")

# %% [markdown]
# So 1F1B isn't faster. It makes *many* micro-batches affordable, and many micro-batches are what shrinks the bubble.
#
# ## Interleaved 1F1B: `interleaved_schedule`
#
# The bubble is $p - 1$ stages long. Make stages shorter! Give each rank $v$ thin slices, **chunks** (virtual stages),
# instead of a thick one: rank $r$ owns stages $r$, $r + p$, $r + 2p$ … A micro-batch comes by $v$ times. The bubble
# becomes $(p - 1) / (vm + p - 1)$, and $v$ times as many messages travel (Narayanan et al. 2021, arXiv:2104.04473,
# section 2.2.2).

# %% exercise="interleaved_schedule"
def interleaved_schedule(n_ranks, n_chunks, n_micro):
    """Interleaved 1F1B: every rank owns several stages.

    n_ranks, n_chunks, n_micro: at least 1; n_micro is a multiple of n_ranks.
    There are n_ranks * n_chunks stages. Chunk c of rank r is stage c * n_ranks + r.
    Micro-batches go in rounds of n_ranks. A rank's forward passes in order: for each round, chunk
    after chunk (0 first), that chunk for the round's micro-batches in ascending order. Its
    backward passes: the same, with the chunks from the last to the first.
    Rank r begins with its first w forward passes,
        w = (n_chunks - 1) * n_ranks + 2 * (n_ranks - 1 - r),
    or with all, if it has fewer. Then, by turns, the next forward and the next backward pass,
    until no forward pass is left; then the remaining backward passes.
    Returns a list with one entry a rank, rank 0 first: the list of its actions (kind, stage,
    micro-batch) in order. The same as torch's ScheduleInterleaved1F1B, without its pauses.
    """
    ### BEGIN SOLUTION
    p, v = n_ranks, n_chunks
    rounds = [range(start, start + p) for start in range(0, n_micro, p)]
    schedule = []
    for r in range(p):
        stages = [c * p + r for c in range(v)]
        forward = [("F", s, i) for some in rounds for s in stages for i in some]
        backward = [("B", s, i) for some in rounds for s in stages[::-1] for i in some]
        warm = min((v - 1) * p + 2 * (p - 1 - r), len(forward))
        pairs = zip(forward[warm:], backward, strict=False)
        steady = [one for pair in pairs for one in pair]
        schedule.append(forward[:warm] + steady + backward[len(forward) - warm :])
    return schedule
    ### END SOLUTION

# %% check="interleaved_schedule"
check(interleaved_schedule)

# %% [markdown]
# ## Zero bubble: the backward pass in two parts
#
# For $y = xW^\top$ the backward pass makes two products: $\partial L/\partial x = g\,W$, for which the rank above
# waits, and $\partial L/\partial W = g^\top x$, for which *nobody* waits before the optimizer's step. Split them into
# **I** (torch's letter; the paper writes B) and **W**, send the first at once, and do the second in what would be a
# bubble (Qi et al. 2024, arXiv:2401.10241).
#
# torch has these schedules as tables. Here are three, eight micro-batches on four ranks with two chunks each, laid out
# by torch's own `add_spacing` (one unit for F, I and W, two for a whole B). In the **V-shaped** one rank $r$ owns
# stages $r$ and $2p - 1 - r$: a micro-batch goes down the ranks and comes back up.

# %% tags=["demo"]
def torch_table(name, micro=8, chunks=2, spaced=True):
    """One of torch's schedules as a list of actions a rank; None is one unit of waiting."""
    from torch.distributed.pipelining._schedule_visualizer import get_schedule_ops

    with contextlib.redirect_stdout(io.StringIO()):  # it prints every unit
        table = get_schedule_ops(name, 4, micro, chunks, add_spacing=spaced)
    return [[one and (one.computation_type.value, one.stage_index, one.microbatch_index) for one in rank]
            for rank in table]


UNITS = {"F": 1, "B": 2, "I": 1, "W": 1}
PAINT = {"F": COLORS[0], "B": COLORS[4], "I": COLORS[1], "W": COLORS[2]}
NAMES = {"Interleaved1F1B": "Interleaved 1F1B", "InterleavedZeroBubble": "Zero bubble, ZB1P", "ZBVZeroBubble":
         "Zero bubble, V-shaped (ZBV)"}
fig, axes = figure(3, 1, width=10, height=6.8, sharex=True)
waits = {}
for ax, (name, title) in zip(axes, NAMES.items(), strict=True):
    table = torch_table(name)
    length = max(sum(UNITS[one[0]] if one else 1 for one in rank) for rank in table)
    waits[title] = 1 - sum(UNITS[one[0]] for rank in table for one in rank if one) / (4 * length)
    for rank, actions in enumerate(table):
        at = 0
        for one in actions:
            if one:
                second = one[1] >= 4  # of a rank's two chunks
                ax.barh(rank, UNITS[one[0]], left=at, height=0.84, color=PAINT[one[0]], edgecolor="white",
                        hatch="///" if second else None, linewidth=0.8)
            at += UNITS[one[0]] if one else 1
    ax.set(yticks=range(4), ylim=(3.55, -0.55), title=f"{title}: waits {waits[title]:.1%}")
    ax.set_yticklabels([f"rank {r}" for r in range(4)])
axes[-1].set_xlabel("units of time")
kinds = {"F": "forward", "B": "backward, whole", "I": "backward for the input (I)", "W": "for the weights (W)"}
axes[-1].legend(handles=[Patch(color=PAINT[kind], label=text) for kind, text in kinds.items()], ncols=4,
                loc="upper center", bbox_to_anchor=(0.5, -0.35), fontsize=9)
told = "; ".join(f"{title} {share:.1%}" for title, share in waits.items())
show(fig, f"Three timelines of four ranks; a rank's second chunk is hatched. Waiting: {told}.")

# %% [markdown]
# Which tables are worth what, and what do they hold? Your schedules and torch's, on your clock: the bubble against the
# most activations that a rank holds, in units of one micro-batch on a whole rank. (What W still needs is kept, too,
# until W has run: here a micro-batch is counted until its *last* part is done.)

# %% tags=["payoff"]
def most_kept(actions, chunks):
    """Most micro-batches that a rank keeps something of, counted in whole ranks."""
    ends = {"B", "W"} if any(kind == "W" for kind, *_ in actions) else {"B"}
    return max(itertools.accumulate((kind == "F") - (kind in ends) for kind, *_ in actions)) / chunks


TABLES = {
    "GPipe": (gpipe_schedule(4, 16), 1), "1F1B": (one_f_one_b_schedule(4, 16), 1),
    "Interleaved, 2 chunks": (interleaved_schedule(4, 2, 16), 2),
    "Interleaved, 4 chunks": (interleaved_schedule(4, 4, 16), 4),
    **{NAMES[name]: ([[one for one in rank if one] for rank in torch_table(name, 16)], 2)
       for name in ("InterleavedZeroBubble", "ZBVZeroBubble")},
}  # fmt: skip
fig, ax = figure(width=8.5, height=4.2)
points = {}
for (name, (table, chunks)), mark, color in zip(TABLES.items(), "so^vDx", COLORS, strict=False):
    each = {kind: cost / chunks for kind, cost in UNITS.items()}
    points[name] = max(most_kept(rank, chunks) for rank in table), bubble_fraction(table, each)
    ax.plot(points[name][0], 100 * points[name][1], mark, markersize=13 if mark == "D" else 8, color=color, label=name)
ax.set(xlabel="micro-batches held by the fullest rank", ylabel="bubble, % of the time", ylim=(0, 20), xlim=(0, 17.5))
ax.legend()
bubbles = [wait for _, wait in points.values()]
show(fig, "Bubble against micro-batches held: " + "; ".join(
         f"{name} {held:.1f} and {wait:.1%}" for name, (held, wait) in points.items()) + ".",
     title=f"Sixteen micro-batches on four ranks: bubbles from {min(bubbles):.1%} to {max(bubbles):.1%}")

# %% [markdown]
# ## A step on real ranks: `pipeline_step`
#
# Now run a schedule. Two things make this harder than it looks.
#
# * **Autograd ends at the process.** What comes in is a new leaf that must ask for a gradient; what comes back is a
#   gradient to start `backward` from.
# * **Both neighbors want to send.** In 1F1B rank $r$ sends an activation down while rank $r + 1$ sends a gradient up.
#   If both use a send that waits for its receiver, they wait for ever.

# %% exercise="pipeline_step"
def pipeline_step(stage, actions, shapes, inputs, targets, loss_fn):
    """This rank's part of one training step: run its actions, with activations sent down and
    gradients sent up.

    Stage r of the model is on rank r. Called on all ranks, each with its own
    stage:   module, a tensor in, a tensor out. All its parameters want gradients.
    actions: this rank's list of ("F" or "B", rank, micro-batch): run in this order, each once.
    shapes:  shapes[i] is the shape of what `stage` gets for micro-batch i, rows first. Numbers of
             rows may differ; they are the same on all ranks.
    inputs:  on rank 0 the list of the micro-batches' inputs, elsewhere None
    targets: on the last rank the list of their targets, elsewhere None
    loss_fn: loss_fn(output, target) is the mean over the rows of a micro-batch, a scalar tensor

    F i: get the input (rank 0: inputs[i]; else receive it from rank - 1, in the dtype of the
         stage's parameters), run the stage once, send the output to rank + 1.
    B i: receive the gradient for that output from rank + 1 (on the last rank: start from the
         loss), go back, send the gradient for the input to rank - 1 (not on rank 0).
    Two micro-batches may be under way at once in both directions: no send may wait for its
    receiver before the next action. Nothing but these messages is sent. What autograd keeps of a
    micro-batch is let go in its B.

    Afterwards .grad of the stage's parameters has grown by the gradient of the mean loss over
    all rows of all micro-batches. Weights and mode (train or eval) are left alone.
    Returns that mean loss on the last rank, a float or a scalar tensor without a graph; None on
    the others. With a single rank nothing would be sent.
    """
    ### BEGIN SOLUTION
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    rows = [shape[0] for shape in shapes]
    dtype = next(stage.parameters()).dtype
    kept, sending, total = {}, [], 0.0

    def send(tensor, to):
        tensor = tensor.contiguous()
        sending.append((dist.isend(tensor, to), tensor))  # it must live until it is sent

    for kind, _, i in actions:
        if kind == "F":
            x = inputs[i] if rank == 0 else torch.empty(shapes[i], dtype=dtype)
            if rank > 0:
                dist.recv(x, rank - 1)
                x.requires_grad_()
            y = stage(x)
            if rank < last:
                send(y.detach(), rank + 1)
            else:
                y = loss_fn(y, targets[i]) * (rows[i] / sum(rows))
                total += y.item()
            kept[i] = x, y
        else:
            x, y = kept.pop(i)
            grad = None
            if rank < last:
                grad = torch.empty_like(y)
                dist.recv(grad, rank + 1)
            y.backward(grad)
            if rank > 0:
                send(x.grad, rank - 1)
    for work, _ in sending:
        work.wait()
    return total if rank == last else None
    ### END SOLUTION

# %% check="pipeline_step"
check(pipeline_step)

# %% [markdown]
# Your step runs your schedules on the devices that sleep. What is recorded, beside what your clock foretold:

# %% tags=["payoff"]
def yours(tables):
    """Run each schedule with pipeline_step on this rank's sleeping stage; the events of each."""
    rank, found = dist.get_rank(), []
    for table in tables:
        micro = 1 + max(i for *_, i in table[rank])
        device, parts = Device(), torch.randn(ROWS, 8).chunk(micro)
        dist.barrier()
        pipeline_step(device, table[rank], [part.shape for part in parts], parts, parts, F.mse_loss)
        found.append(list(device.log))
    return found


tables = {"GPipe, yours": gpipe_schedule(4, 8), "1F1B, yours": one_f_one_b_schedule(4, 8)}
mine = dict(zip(tables, zip(*launch(yours, list(tables.values()), ranks=4), strict=True), strict=True))
heads = {f"{name}: ranks wait {idle(run):.0%}, your clock says {bubble_fraction(tables[name], BOTH):.0%}": run
         for name, run in mine.items()}
timelines(heads, "; ".join(heads) + ".")

# %% [markdown]
# And a GPT learns Shakespeare: eight blocks on four ranks, four micro-batches a step, 1F1B. Beside it one plain process
# with the whole model and the same rows.

# %% tags=["payoff"]
text = Windows(shakespeare()[:200_000], context=CONTEXT)


def train_gpt(parallel, steps=20):
    """The losses of all steps: of the last rank, or of one process."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if parallel else (0, 1)
    torch.manual_seed(0)
    model = CharGPT(len(text.alphabet), CONTEXT, layers=8)
    net = Part(model, rank, world) if parallel else model
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    table = one_f_one_b_schedule(world, 4) if parallel else None
    generator, losses = torch.Generator().manual_seed(1), []
    for _ in range(steps):
        picked = torch.randint(len(text), (BATCH,), generator=generator).tolist()
        ids, targets = map(torch.stack, zip(*(text[i] for i in picked), strict=True))
        optimizer.zero_grad()
        if parallel:
            parts = ids.chunk(4)
            shapes = [(*part.shape, 64) if rank else tuple(part.shape) for part in parts]
            loss = pipeline_step(net, table[rank], shapes, parts, targets.chunk(4), loss_of)
        else:
            loss = loss_of(net(ids), targets)
            loss.backward()
            loss = loss.detach()
        optimizer.step()
        losses.append(None if loss is None else float(loss))
    return losses


alone = train_gpt(False)
piped = launch(train_gpt, True, ranks=4)[-1]
apart = [abs(a - b) for a, b in zip(alone, piped, strict=True)]
fig, (top, bottom) = figure(2, 1, width=8, height=4.8, sharex=True, height_ratios=[2, 1])
steps = range(1, len(alone) + 1)
top.plot(steps, alone, color="#bbbbbb", linewidth=7, label="one process, 16 rows a step")
top.plot(steps, piped, color=COLORS[0], label="your pipeline: 4 ranks, 4 micro-batches of 4 rows")
top.set(ylabel="loss, nats a character", title=f"Your pipeline and one process: never more than {max(apart):.0e} apart")
top.legend()
bottom.plot(steps, [1e6 * a for a in apart], ".", color=COLORS[1])
bottom.set(xlabel="step", ylabel="difference,\nmillionths of a nat", ylim=(-0.06, max(1.0, 1.3e6 * max(apart))),
           xticks=range(0, len(alone) + 1, 5))
show(fig, f"Upper panel: two loss curves, of one process and of the pipeline, from {alone[0]:.2f} to {alone[-1]:.2f} "
          f"and {piped[-1]:.2f}. Lower panel: their differences, at most {max(apart):.0e} nats.")

# %% [markdown]
# ## "Different batches in turn"
#
# So the notes describe pipeline parallelism: each device gets different *batches* one after the other. Until now they
# were micro-batches of **one** batch, and all ranks stopped at its end for the optimizer's step: the **flush**. What
# if they really are batches of their own, each with its own step, and nobody ever stops? Then there is no bubble at
# all. That was PipeDream.
#
# The price: rank $r$ went forward with weights to which the gradients of the $p - 1 - r$ batches ahead had not come
# back yet. Its gradient is for **stale** weights. (PipeDream keeps the old version for the way back, *weight
# stashing*. Otherwise forward and backward use different weights, and the result is the gradient of nothing.)
#
# A small character model with eight residual layers: the same batches and numbers of updates, Adam at each arm's best
# learning rate by validation, five seeds. Controls: four micro-batches of one batch must change nothing; layers that
# are all 16 updates late must show harm.
#
# **Before the run:** the sentence is *correct* if batches of their own cost nothing (not surely above 0.02 nats a
# character, with 4 stages and with 8). It is *imprecise* if they cost more than that with one of the two, while parts
# of one batch stay within 0.02. It is *wrong* if these don't. Where the 16 updates show no harm, it is *unverifiable*
# (added when the result was known).

# %% claim="D03.7"
from experiments.D03_7 import EVERY, GAP, RATES, STEPS

stale = evidence("D03.7")
print(stale.again())
for arm in stale.arms:
    chosen = stale.each(arm, "rate")
    edge = " (at the edge of what was tried)" if {min(RATES), max(RATES)} & set(chosen) else ""
    print(f"best learning rates of {arm}: {', '.join(f'{rate:g}' for rate in chosen)}{edge}")
plain, *others = stale.arms
gaps = {arm: stale.interval(arm, "loss", minus=plain) for arm in others}
fig, (left, right) = figure(1, 2, width=10.5, height=4.0, width_ratios=[1.2, 1])
for arm, color in zip([plain, *others[1:]], [COLORS[6], COLORS[0], COLORS[1], COLORS[3]], strict=True):
    curves = torch.tensor(stale.each(arm, "curve")).clamp(max=4.2)
    at = range(EVERY, STEPS + 1, EVERY)
    left.plot(at, curves.mean(0), color=color, label=arm)
    left.fill_between(at, curves.amin(0), curves.amax(0), color=color, alpha=0.2)
left.set(xlabel="updates", ylabel="validation loss, nats (cut at 4.2)", title="Mean and range of five seeds",
         ylim=(2.4, 5.2))
left.legend(fontsize=8.5, loc="upper right")
for row, (arm, gap) in enumerate(gaps.items()):
    each = [a - b for a, b in zip(stale.each(arm, "loss"), stale.each(plain, "loss"), strict=True)]
    right.plot(each, [row] * len(each), "o", color="#999999", markersize=4)
    right.plot([gap.low, gap.high], [row, row], color=COLORS[0], linewidth=3)
    right.text(max(each) + 0.02, row, f"{gap.mean:+.3f}", va="center")
right.axvspan(-GAP, GAP, color="#dddddd", zorder=0)
right.set(yticks=range(len(gaps)), xlabel="test loss above one device's, nats", title="Seeds and intervals",
          ylim=(len(gaps) - 0.5, -0.5), xlim=(None, 1.25 * max(gap.high for gap in gaps.values())))
right.set_yticklabels([arm.replace(", ", ",\n").replace(" updates", "\nupdates") for arm in gaps], fontsize=9)
told = "; ".join(f"{arm} {gap.mean:+.3f} ({gap.text('.3f')})" for arm, gap in gaps.items())
show(fig, f"Left: validation loss against updates. Right: test loss above that of one device, {told}.",
     title="Test loss above one device's: " + "; ".join(f"{arm} {gap.mean:+.2f}" for arm, gap in gaps.items()
                                                         if "stages, a batch" in arm))
parts, four, eight, late = gaps.values()
harm = four.above(GAP) or eight.above(GAP)
word = "wrong" if not parts.within(-GAP, GAP) else "imprecise" if harm else "correct"
verdict("D03.7", word if late.above(GAP) else "unverifiable",
        f"Above one device, in nats: {told}.")

# %% [markdown]
# Per *update*, that is: batches of their own need no flush, so that no time is lost in a bubble. Large language models
# are trained with the flush. Then the result is that of one device, and the bubble is left to the schedule.
#
# ## Two more sentences
#
# ### Three separate kinds?
#
# The bank lists layer-wise, tensor and pipeline parallelism side by side. We compare the first with the last: a naive
# pass by hand, without any schedule, and torch's pipeline with *one* micro-batch. If both send the same messages and
# get the same gradients, the one is a case of the other.

# %% tags=["demo"]
def by_hand(depth=8):
    """Layer-wise model parallelism as anybody would write it: this rank's gradients, and what it sends."""
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    model, (ids, targets) = CharGPT(64, CONTEXT, layers=depth), batch_of()
    names = {p: key for key, p in model.named_parameters()}
    part, x = Part(model, rank, world), ids
    with record_traffic() as messages:
        if rank > 0:
            x = torch.empty(BATCH, CONTEXT, 64)
            dist.recv(x, rank - 1)
            x.requires_grad_()
        y, grad = part(x), None
        if rank < world - 1:
            dist.send(y.detach(), rank + 1)
            grad = torch.empty_like(y)
            dist.recv(grad, rank + 1)
        else:
            y = loss_of(y, targets)
        y.backward(grad)
        if rank > 0:
            dist.send(x.grad, rank - 1)
    return {"gradient": {names[p]: p.grad for p in part.parameters()},
            "sent": [m.bytes for m in messages if m.op == "send"]}


layerwise, pipe = launch(by_hand, ranks=4), STAGED["GPipe", 1, 8]
same_messages = [a["sent"] for a in layerwise] == [b["sent"] for b in pipe]
off = max(float((a["gradient"][name] - b["gradient"][name]).abs().max())
          for a, b in zip(layerwise, pipe, strict=True) for name in a["gradient"])
print(f"the same messages: {same_messages} ({[a['sent'] for a in layerwise]} bytes by rank)")
print(f"gradients differ by {off:.0e} at most")

# %% [markdown]
# Tensor parallelism cuts *inside* a layer and is a kind of its own. What the list lacks: cuts along the sequence
# (sequence and context parallelism) and over experts; large runs combine them.
#
# ### Suited to deep nets such as GPT?
#
# A reason would be this: compute grows with depth, but what crosses the cuts does not. Count it for 4, 8 and 12 blocks.
#
# **Before the run:** *correct* if the bytes sent stay the same at three times the depth and all gradients are those of
# one process (to 1e-5); *imprecise* if the bytes grow, but less than the parameters; else *wrong*. (What crosses a cut
# has the size that the width gives it, in any net of one width: the run can only show that nothing else is sent, and
# that the gradients are right.)

# %% claim="D03.9"
DEPTHS = [4, 8, 12]
sent = [max(sum(r["sent"]) for r in STAGED["1F1B", 8, depth]) for depth in DEPTHS]
params = [4 * sum(g.numel() for g in ALONE[depth]["gradient"].values()) for depth in DEPTHS]
reduced = [2 * 3 / 4 * size for size in params]  # a ring all-reduce of all gradients over four ranks, a rank
off = max(float((r["gradient"][name] - ALONE[depth]["gradient"][name]).abs().max())
          for depth in DEPTHS for r in STAGED["1F1B", 8, depth] for name in r["gradient"])

fig, ax = figure(width=7.5, height=3.2)
ax.plot(DEPTHS, [s / 1e6 for s in sent], "o-", color=COLORS[0], label="pipeline, counted: the busiest rank")
ax.plot(DEPTHS, [s / 1e6 for s in reduced], "s--", color=COLORS[1], label="all-reduce, reckoned: 2 · 3/4 · gradients")
ax.set(xticks=DEPTHS, xlabel="blocks", ylabel="sent by a rank in a step, MB", ylim=(0, None),
       title=f"Three times the depth: pipeline {sent[-1] / sent[0]:.1f} times the bytes, data parallel "
             f"{reduced[-1] / reduced[0]:.1f} times")
ax.legend()
show(fig, "Megabytes that a rank sends in a step, for 4, 8 and 12 blocks: pipeline "
          + ", ".join(f"{s / 1e6:.2f}" for s in sent) + "; all-reduce "
          + ", ".join(f"{s / 1e6:.2f}" for s in reduced) + ".")
constant, grows_less = sent[-1] == sent[0], sent[-1] / sent[0] < params[-1] / params[0]
verdict("D03.9", "correct" if constant and off < 1e-5 else "imprecise" if grows_less and off < 1e-5 else "wrong",
        f"Bytes sent by the busiest rank for {DEPTHS} blocks: {sent}. Gradients differ from one process's by {off:.0e} "
        "at most.")

# %% [markdown]
# ## With torch's own
#
# `torch.distributed.pipelining` has run in this chapter all along: `PipelineStage` holds a stage, a schedule object
# runs it, `schedule.step(x)` is a training step without the optimizer's. Three things to know before you rely on it,
# as they happened just now on two ranks:

# %% tags=["demo"]
def known_of_torch(micro=4):
    """Rank 0's gradients: of two steps without clearing over one's; of a summed loss over a mean's. And 1F1B."""
    from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    batch = torch.randn(8, 8)

    def norm_after(steps, loss_fn):
        torch.manual_seed(rank)
        layer = nn.Linear(8, 8)
        stage = PipelineStage(layer, rank, world, torch.device("cpu"))
        schedule = ScheduleGPipe(stage, micro, loss_fn=loss_fn)
        for _ in range(steps):
            schedule.step(*([batch] if rank == 0 else []), **({"target": batch} if rank == world - 1 else {}))
        return float(layer.weight.grad.norm())

    def summed(y, target):
        return F.mse_loss(y, target, reduction="sum")

    one, two, total = norm_after(1, F.mse_loss), norm_after(2, F.mse_loss), norm_after(1, summed)
    told = {}
    for schedule in (Schedule1F1B, ScheduleGPipe):
        try:
            schedule(PipelineStage(nn.Linear(8, 8), rank, world, torch.device("cpu")), 1, loss_fn=F.mse_loss)
            told[schedule.__name__] = "takes it"
        except ValueError:
            told[schedule.__name__] = "ValueError"
    return two / one, total / (one * batch.numel()), told


twice, of_sum, one_micro = launch(known_of_torch, ranks=2)[0]
print(f"two steps without clearing, 4 micro-batches: .grad is {twice:.2f} times that of one step")
print(f"a loss that is a sum, 4 micro-batches: {of_sum:.2f} of its gradient arrives")
print("one micro-batch on two stages:", "; ".join(f"{name} {told}" for name, told in one_micro.items()))

# %% [markdown]
# At the end of each step torch divides **all** of `.grad` by the number of micro-batches (`scale_grads=True`), also
# what earlier steps have left there. And the batch must divide evenly into micro-batches, of the same shape in every
# step: with others ranks wait for ever, or die in the middle of a message (torch 2.13). Your `pipeline_step` takes any.
#
# A script for several GPUs is `labkit/train_pp.py`: `torchrun --standalone --nproc-per-node 4 -m labkit.train_pp`. On
# GPUs messages go over NCCL, which wants sends and receives between two ranks issued in one batch
# (`batch_isend_irecv`), and an activation's trip overlaps with compute on another stream. Nothing in this notebook has
# run on a GPU.
#
# ## Where it stands
#
# * **GPipe** 2019: micro-batches and a flush; activations of all of them, so recompute them.
# * **1F1B** (PipeDream-flush, Megatron-LM 2021): the same bubble, at most $p$ micro-batches held. Interleaved: the
#   bubble divided by $v$, messages times $v$.
# * **Zero bubble** 2024, its V-shaped schedule, and **DualPipe** (DeepSeek-V3 2024, arXiv:2412.19437):
#   split the backward pass, run from both ends, hide the experts' all-to-all behind compute.
#
# Pipeline messages are small and go from point to point: this is the kind of parallelism that crosses *machines*, while
# tensor parallelism stays inside one. The flush makes it exact; the bubble, the uneven ends and the memory of rank 0
# are what you pay, and now you can reckon all three.
