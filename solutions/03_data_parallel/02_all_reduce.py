# ---
# jupyter:
#   course:
#     title: "All-reduce: a ring from send and receive"
#     exercises: data_parallel.all_reduce
#     questions: [D02]
#     needs: []
# ---

# %% [markdown]
# # All-reduce: a ring from send and receive
#
# Sixty-four GPUs have each computed a gradient of two gigabytes. Before the next step every one of them needs the sum
# of all sixty-four. Who adds them up?
#
# The first idea is a boss (a *parameter server*): all send to one machine, it adds, it sends the sum back. That machine
# then moves 63 × 2 GB in and 63 × 2 GB out, while the others wait. The second idea has no boss. The GPUs (*ranks*, in
# the jargon) sit in a **ring**, cut the gradient into pieces, and pass pieces on to their right neighbors. No rank ever
# sends more than twice its own gradient, however many there are.
#
# In this chapter you build that ring from nothing but `send` and `recv`, then a **tree** for small messages, then the
# two-parameter model that says which of them is faster. At the end your ring averages the gradients of a real training,
# and torch's own data parallelism (DDP) stands beside it.
#
# The ranks are processes on your CPU that talk through `gloo`. They share its cores and its memory, so **no speed-up
# can be seen here**, and a ring can't beat a boss in seconds. What can be seen exactly is what was sent, by whom, to
# whom, and how much. That decides the time on real links, and it is what the checks look at.

# %% tags=["setup"]
import math
import time

import torch
import torch.distributed as dist

from autograde import check
from labkit import COLORS, RankError, figure, launch, record_traffic, shakespeare, show, verdict

# %% [markdown]
# ## Before and after
#
# An **all-reduce** takes one tensor from each rank, adds them up element by element, and leaves the sum on *every*
# rank. (Other operations than a sum exist: maximum, product. Training needs the sum, divided by the number of ranks.)

# %% tags=["demo"]
def before_and_after():
    torch.manual_seed(dist.get_rank())
    own = torch.randint(0, 10, (12,))
    total = own.clone()
    dist.all_reduce(total)
    return own, total


values = launch(before_and_after, ranks=4)
right = sum(own for own, _ in values)
same = all(torch.equal(total, right) for _, total in values)

fig, axes = figure(1, 2, height=2.6)
tables = [torch.stack([value[i] for value in values]) for i in (0, 1)]
for ax, table, title in zip(axes, tables, ("before", "after"), strict=True):
    ax.imshow(table, vmin=0, vmax=36, cmap="Blues", aspect="auto")
    for r in range(4):
        for i in range(12):
            number = int(table[r, i])
            ax.text(i, r, number, ha="center", va="center", color="white" if number > 20 else "black")
    ax.set(title=title, xlabel="element", xticks=[], yticks=range(4))
    ax.set_yticklabels([f"rank {r}" for r in range(4)])
show(fig, "Two tables of four ranks by twelve elements, before and after. "
          f"Rows that hold the column sums after: {sum(torch.equal(total, right) for _, total in values)} of 4.",
     title=f"All-reduce: {'every rank ends with the sum of all' if same else 'not every rank has the sum'}")

# %% [markdown]
# ## What does it cost?
#
# Question banks say that communication "can be large". Large compared with what, and does it grow with the number of
# devices? We count bytes **on the wire**. Linux tells every process how many bytes it has written, and `gloo` writes
# into its connections as into files. So we can look over the shoulder of torch's own `all_reduce`, whose inside is
# compiled C++, and of a boss that we write ourselves.
#
# **Before the run:** *correct* if on any number of ranks the busiest one sends over nine tenths of the gradient's size
# in every step, else *wrong*. (For *wrong* torch would have to compress: section 4 has a lower bound. Open is how the
# bytes grow.)

# %% claim="D02.11"
def written():
    """Bytes that this process has written so far, to files, pipes and, as gloo does, to connections. Linux only."""
    with open("/proc/self/io") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def boss(x):
    """Rank 0 adds up what all send, and sends the sum to all."""
    if dist.get_rank():
        dist.send(x, 0)
        dist.recv(x, 0)
        return
    others = range(1, dist.get_world_size())
    came = torch.empty_like(x)
    for rank in others:
        dist.recv(came, rank)
        x += came
    for rank in others:
        dist.send(x, rank)


def tensors_sent(all_reduce, numbers=100_000):
    """How many times its own tensor this rank writes to the wire. The first call makes the connections."""
    for _ in range(2):
        x = torch.ones(numbers)
        start = written()
        all_reduce(x)
        sent = (written() - start) / (4 * numbers)
    return sent, bool((x == dist.get_world_size()).all())


RANKS = [2, 3, 4, 6, 8]
try:
    wire = {fn: [launch(tensors_sent, fn, ranks=n) for n in RANKS] for fn in (boss, dist.all_reduce)}
except RankError as error:
    wire = {}
    print("This system doesn't say what a process writes (Linux does):", error)

if wire:
    busiest = {fn: [max(sent for sent, _ in ranks) for ranks in of] for fn, of in wire.items()}
    total = {fn: [sum(sent for sent, _ in ranks) for ranks in of] for fn, of in wire.items()}
    right = all(good for of in wire.values() for ranks in of for _, good in ranks)

    fig, (left, middle) = figure(1, 2, width=10.5, height=3.9)
    styles = {boss: ("s-", COLORS[1], "a boss"), dist.all_reduce: ("o-", COLORS[0], "torch's all_reduce")}
    for fn, (style, color, name) in styles.items():
        left.plot(RANKS, busiest[fn], style, color=color, label=name)
        middle.plot(RANKS, total[fn], style, color=color, markersize=11 if fn is boss else 5)
    bound = [2 * (n - 1) / n for n in RANKS]
    left.plot(RANKS, bound, "--", color="black", linewidth=1, label="2 (n - 1) / n")
    left.set(xlabel="ranks", ylabel="sent, in tensors", xticks=RANKS,
             title=f"Busiest rank: {busiest[boss][-1]:.1f} against {busiest[dist.all_reduce][-1]:.2f}")
    left.legend()
    middle.set(xlabel="ranks", ylabel="sent, in tensors", xticks=RANKS, ylim=(0, None),
               title=f"All ranks together: {total[boss][-1]:.1f} against {total[dist.all_reduce][-1]:.1f}")
    grows = busiest[dist.all_reduce][-1] / busiest[dist.all_reduce][0]
    show(fig, "Tensors sent, against the number of ranks. " + " ".join(
             f"{name}, from {RANKS[0]} to {RANKS[-1]} ranks: the busiest rank {busiest[fn][0]:.2f} to "
             f"{busiest[fn][-1]:.2f}, all "
             f"together {total[fn][0]:.1f} to {total[fn][-1]:.1f}." for fn, (_, _, name) in styles.items()),
         title=f"From 2 to 8 ranks the boss sends {busiest[boss][-1] / busiest[boss][0]:.0f} times as much, "
               f"a rank of torch's all_reduce {grows:.2f} times")
    print("all results right:", right)
    off = max(abs(a / b - 1) for a, b in zip(busiest[dist.all_reduce], bound, strict=True))
    print(f"torch's all_reduce is within {off:.1%} of 2 (n - 1) / n on every number of ranks")
    verdict("D02.11", "correct" if min(busiest[dist.all_reduce]) > 0.9 else "wrong",
            f"In every step a rank of torch's all_reduce sends {busiest[dist.all_reduce][0]:.2f} times the gradient on "
            f"2 ranks "
            f"and {busiest[dist.all_reduce][-1]:.2f} times on {RANKS[-1]}; the busiest rank of the boss's "
            f"{busiest[boss][0]:.0f} and {busiest[boss][-1]:.0f} times.")

# %% [markdown]
# The claim needs a second half: large, **but on a ring it does not grow with the number of devices**. Each rank sends
# $2\frac{n-1}{n}$ times its tensor: once for two ranks, less than twice for a thousand. With a boss it grows in step
# with $n$, all of it over one link.
#
# The right panel is the other lesson: the sum over all ranks. Adding up on $n$ ranks and telling all
# of them takes $2(n-1)$ tensors either way; the ring only spreads them evenly. Here all bytes go through one computer,
# so the sum counts and the ring gains nothing. On a cluster every machine has a link of its own, so the busiest one
# counts.
#
# ## 1. Two neighbors
#
# A ring needs two calls. `dist.send(x, to)` sends a tensor to one rank, `dist.recv(buffer, source)` fills a buffer that
# must have the right size and dtype: a message is bytes, and nothing says what they mean.
#
# The first program that everybody writes is: send to the right, receive from the left.

# %% tags=["demo"]
def all_send_first():
    rank, n = dist.get_rank(), dist.get_world_size()
    gift, came = torch.tensor([float(rank)]), torch.empty(1)
    dist.send(gift, (rank + 1) % n)
    dist.recv(came, (rank - 1) % n)
    return came.item()


try:
    print(launch(all_send_first, ranks=4, limit=10))
except RankError as error:
    print(error)

# %% [markdown]
# Where `send` comes back only when the other side *receives*, all send, nobody receives, and nobody ever will. Was one
# number enough for that? (Some backends copy small messages into a buffer and let `send` return early. There the
# program works in the test and hangs with the real gradient.)
#
# There are three ways out:
#
# * `work = dist.isend(x, to)` only *starts* to send. Then `recv`, then `work.wait()`. Until then `x` must stay as it
#   is.
# * Odd ranks receive first. It is enough that one rank in the circle does.
# * `dist.batch_isend_irecv([...])` starts several at once. NCCL, the GPU backend, wants this one.

# %% tags=["demo"]
def pass_to_the_right():
    rank, n = dist.get_rank(), dist.get_world_size()
    gift, present = torch.tensor([float(rank)]), torch.empty(1)
    under_way = dist.isend(gift, (rank + 1) % n)
    dist.recv(present, (rank - 1) % n)
    under_way.wait()
    return present.item()


print("wanted: 3, 0, 1, 2, each rank's left neighbor; every rank got:", launch(pass_to_the_right, ranks=4))

# %% [markdown]
# ## 2. Follow a parcel
#
# Cut the tensor into $n$ **chunks**, as many as there are ranks. Chunk $c$ shall end at rank $c$, complete. The first
# half of the ring does only that, and is called **reduce-scatter**: the sum is there, scattered over the ranks.
#
# Think of each chunk as a parcel. Parcel $c$ starts one place to the right of its home, at rank $c+1$, and holds that
# rank's numbers. Then it makes $n-1$ hops to the right. Wherever it arrives, that rank's numbers for chunk $c$ are
# added. The last hop brings it home, where the last numbers are added.
#
# All $n$ parcels travel at the same time, each one place behind the next. So in every step **every link carries
# exactly one chunk**, and nobody waits.
#
# The picture follows the parcels of four ranks, one panel a step. Each box is a parcel about to leave its rank (the
# last rank sends to rank 0), with the number of its chunk; the four small squares tell whose numbers are already in it.

# %% tags=["demo"]
from matplotlib.patches import Rectangle


def draw_parcels(steps, title, alt, end=False):
    """`steps[s]`: list of (rank that has it, chunk, set of ranks whose numbers are in it), one panel a step.

    With `end` the last panel is what is there at the end, and nothing is sent any more.
    """
    n = max(rank for sent in steps for rank, _, _ in sent) + 1
    fig, axes = figure(1, len(steps), width=min(10.5, 1.1 + 1.75 * len(steps)), height=3.4, sharey=True)
    for s, (ax, sent) in enumerate(zip([axes] if len(steps) == 1 else axes, steps, strict=True)):
        for rank, chunk, inside in sent:
            ax.add_patch(Rectangle((0, rank - 0.36), 1, 0.72, facecolor=COLORS[chunk % 6], alpha=0.22))
            ax.add_patch(Rectangle((0, rank - 0.36), 1, 0.72, facecolor="none", edgecolor=COLORS[chunk % 6]))
            ax.text(0.12, rank, chunk, ha="center", va="center", fontsize=13, fontweight="bold")
            for r in range(n):
                color = COLORS[chunk % 6] if r in inside else "white"
                ax.add_patch(Rectangle((0.26 + 0.7 * r / n, rank - 0.13), 0.6 / n, 0.26, facecolor=color,
                                       edgecolor="#555555", linewidth=0.8))
            if not (end and s == len(steps) - 1):
                ax.annotate("", (0.5, rank + 0.63), (0.5, rank + 0.37), annotation_clip=False,
                            arrowprops={"arrowstyle": "->", "color": "#777777"})
        ax.set(xlim=(-0.06, 1.06), ylim=(n - 0.3, -0.6), xticks=[], yticks=range(n),
               title="at the end" if end and s == len(steps) - 1 else f"step {s}")
        ax.set_yticklabels([f"rank {r}" for r in range(n)])
        ax.spines[["left", "bottom"]].set_visible(False)
        ax.tick_params(length=0)
    show(fig, alt, title=title)


n = 4
parcels = {chunk: ((chunk + 1) % n, {(chunk + 1) % n}) for chunk in range(n)}  # where it is, what is in it
journey = []
for _ in range(n - 1):
    journey.append(sorted((place, chunk, inside) for chunk, (place, inside) in parcels.items()))
    for chunk, (place, inside) in parcels.items():
        place = (place + 1) % n
        parcels[chunk] = place, inside | {place}
journey.append(sorted((place, chunk, inside) for chunk, (place, inside) in parcels.items()))

home = all(place == chunk and len(inside) == n for chunk, (place, inside) in parcels.items())
draw_parcels(journey, f"After {n - 1} hops every parcel is {'at home and complete' if home else 'somewhere'}",
             "Four panels. In step 0 rank r sends chunk r - 1 with one square filled. In each further step the chunks "
             "have moved one rank to the right and one more square is filled. In the last panel rank r holds chunk r "
             "with all four squares filled.", end=True)

# %% [markdown]
# ### Exercise: reduce-scatter
#
# The picture follows parcels; your program is a rank. So turn the view round: read one *row* of the picture. Which
# chunk does rank $r$ send in step $s$, and which one arrives?
#
# Sizes need care. Eleven numbers make chunks of 3, 3, 3 and 2. `torch.chunk(x, 4)` is the wrong tool: it may give fewer
# than four. `x.tensor_split(4)` always gives four, the longer ones first, empty ones if need be.

# %% exercise="ring_reduce_scatter"
def ring_reduce_scatter(x):
    """This rank's chunk of the sum of x over all ranks, by a ring of sends and receives.

    x: [length], a contiguous vector of any length (0 numbers in a chunk are possible) and
       dtype, equally long and of the same dtype on all n ranks. It is not changed.
    Returns a tensor of x's dtype: chunk number `rank` of x.tensor_split(n), summed over all
    ranks. Alone (n = 1) that is x, or a copy.

    Traffic: in each of n - 1 steps every rank sends one chunk to its right neighbor
    (rank + 1) % n, and receives one from its left neighbor (rank - 1) % n. So a rank sends
    each chunk once, but its own. Empty chunks needn't be sent. Allowed are send, recv, isend,
    irecv and batch_isend_irecv of torch.distributed; none of its collectives, no barrier
    either.
    Patarasuk and Yuan 2009, J. Parallel Distrib. Comput. 69(2).
    """
    ### BEGIN SOLUTION
    rank, n = dist.get_rank(), dist.get_world_size()
    chunks = [chunk.clone() for chunk in x.tensor_split(n)]
    for step in range(n - 1):
        out, into = (rank - 1 - step) % n, (rank - 2 - step) % n
        came = torch.empty_like(chunks[into])
        sending = dist.isend(chunks[out], (rank + 1) % n)
        dist.recv(came, (rank - 1) % n)
        sending.wait()
        chunks[into] += came
    return chunks[rank]
    ### END SOLUTION

# %% check="ring_reduce_scatter"
check(ring_reduce_scatter)

# %% [markdown]
# ### What did your ranks really send?
#
# A dispatch mode reads every message as it leaves. To see whose numbers are inside, rank $r$ contributes $2^r$: the sum
# is then a list of ranks in binary. Adding $1024\,c$ in chunk $c$ tells the chunks apart.

# %% tags=["demo"]
from torch.utils._python_dispatch import TorchDispatchMode


def messages_of(all_reduce):
    """(chunk, set of ranks) for each message that this rank sends, read from the numbers inside."""
    rank, n = dist.get_rank(), dist.get_world_size()
    read = []

    class Reading(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.c10d.send.default:
                number = int(args[0][0].flatten()[0])
                inside = {r for r in range(n) if number >> r & 1}
                read.append((number // 1024 // max(len(inside), 1), inside))
            return func(*args, **(kwargs or {}))

    x = 2.0**rank + 1024.0 * torch.arange(n).repeat_interleave(2)
    with Reading():
        all_reduce(x)
    return read


def draw_messages(function, ranks, whose):
    sent = launch(messages_of, function, ranks=ranks)
    steps = max(map(len, sent))
    panels = [[(r, *of[s]) for r, of in enumerate(sent) if s < len(of)] for s in range(steps)]
    busy = sum(len(panel) == ranks for panel in panels)
    draw_parcels(panels, f"{whose}: {steps} steps, all {ranks} links busy in {busy} of them",
                 f"{steps} panels, one a step: for every rank the chunk that it sends and whose numbers are in it, "
                 "read from the messages themselves.")

# %% tags=["payoff"]
draw_messages(ring_reduce_scatter, 4, "Your reduce-scatter, read from its messages")

# %% [markdown]
# ## 3. Hand round the finished pieces
#
# Now rank $r$ has the complete chunk $r$, and everybody needs all of them. That is an **all-gather**, and it is the
# same ring without the adding: pass on to the right what has just arrived from the left. After $n-1$ steps every rank
# has seen every chunk.
#
# ### Exercise: all-gather
#
# Chunks can differ in length, so the function is told how long they are. Mind the place: they don't arrive in order.

# %% exercise="ring_all_gather"
def ring_all_gather(chunk, sizes):
    """The chunks of all ranks as one vector, in the order of the ranks, on every rank.

    chunk: [sizes[rank]], contiguous, of the same dtype on all n ranks; it may be empty, and is
           not changed.
    sizes: list of n ints, the lengths of all ranks' chunks; the same list on all ranks.
    Returns a vector [sum(sizes)] of the chunk's dtype. Alone (n = 1) that is the chunk, or a
    copy.

    Traffic: in each of n - 1 steps every rank sends one chunk to its right neighbor
    (rank + 1) % n and receives one from its left neighbor (rank - 1) % n: first its own chunk,
    then always the one that arrived in the step before. So a rank sends each chunk once, but
    its right neighbor's. Empty chunks needn't be sent. Allowed are send, recv, isend, irecv
    and batch_isend_irecv of torch.distributed; none of its collectives, no barrier either.
    """
    ### BEGIN SOLUTION
    rank, n = dist.get_rank(), dist.get_world_size()
    pieces = [None] * n
    pieces[rank] = chunk
    for step in range(n - 1):
        out, source = (rank - step) % n, (rank - 1 - step) % n
        pieces[source] = chunk.new_empty(sizes[source])
        sending = dist.isend(pieces[out], (rank + 1) % n)
        dist.recv(pieces[source], (rank - 1) % n)
        sending.wait()
    return torch.cat(pieces)
    ### END SOLUTION

# %% check="ring_all_gather"
check(ring_all_gather)

# %% [markdown]
# ## 4. The ring
#
# Reduce-scatter, then all-gather. Each half sends all chunks but one, so a rank sends
#
# $$
# 2\,\frac{n-1}{n}\,m \quad\text{bytes for a tensor of } m \text{ bytes, in } 2(n-1) \text{ messages.}
# $$
#
# As long as ranks send to ranks, the busiest of them can't do with less: each number takes $n-1$ trips to be added up
# and $n-1$ to be told to all, and the ring shares these evenly (Patarasuk and Yuan 2009). In bandwidth it is optimal,
# then. In *latency* it is not: it needs
# $2(n-1)$ steps one after the other. That bill comes in section 5.
#
# ### Exercise: all-reduce
#
# Put the halves together. A real gradient has a shape, so flatten on the way in and restore it on the way out. Divide
# if a mean is asked for.

# %% exercise="ring_all_reduce"
def ring_all_reduce(x, mean=False):
    """The sum (or mean) of x over all ranks, on every rank, by a ring of sends and receives.

    x:    a tensor of any shape, also without dimensions or not contiguous (a transposed one),
          of the same shape and dtype on all n ranks. It is not changed.
    mean: True: the mean is wanted instead of the sum. Then x has a floating-point dtype.
    Returns a new tensor of x's shape and dtype, with the very same bits on all ranks: each
    chunk is added up in one place and then copied.

    Traffic: only to the right neighbor (rank + 1) % n, from the left one (rank - 1) % n. A
    rank sends at most 2 (n - 1) messages, each of at most ceil(numel / n) numbers. Allowed are
    send, recv, isend, irecv and batch_isend_irecv of torch.distributed (and your own functions
    above); none of its collectives, no barrier either.
    Patarasuk and Yuan 2009, J. Parallel Distrib. Comput. 69(2).
    """
    ### BEGIN SOLUTION
    n = dist.get_world_size()
    flat = x.reshape(-1)
    sizes = [len(chunk) for chunk in flat.tensor_split(n)]
    total = ring_all_gather(ring_reduce_scatter(flat), sizes).reshape(x.shape)
    return total / n if mean else total
    ### END SOLUTION

# %% check="ring_all_reduce"
check(ring_all_reduce)

# %% tags=["payoff"]
draw_messages(ring_all_reduce, 4, "Your all-reduce, read from its messages")

# %% [markdown]
# In the first half the squares should fill up; in the second complete chunks go round. The title counts the steps in
# which every link works.
#
# Beside it, the boss on a time axis. Both programs ran on four ranks, and `record_traffic` noted who sent how much to
# whom. The axis is a model: a rank sends one message at a time, and a whole tensor takes one unit.

# %% tags=["demo"]
from labkit.timeline import timeline


def traffic_of(function, numbers):
    with record_traffic() as messages:
        function(torch.ones(numbers))
    return list(messages)


def draw_links(ax, function, name, numbers=1200, ranks=4):
    """Who sends when, if a whole tensor takes one unit of time and starting a message takes none."""
    trips = timeline(launch(traffic_of, function, numbers, ranks=ranks), alpha=0.0, beta=4.0 * numbers)
    end = max(trip.end for trip in trips)
    for trip in trips:
        ax.barh(trip.sender, trip.end - trip.start, left=trip.start, height=0.7, color=COLORS[trip.receiver],
                edgecolor="white")
        if trip.end - trip.start > 0.06 * end:
            ax.text((trip.start + trip.end) / 2, trip.sender, f"to {trip.receiver}", ha="center", va="center",
                    color="white", fontsize=9)
    used = sum(trip.end - trip.start for trip in trips) / (end * ranks)
    ax.set(yticks=range(ranks), ylim=(ranks - 0.4, -0.6), xlabel="time, in whole tensors over one link",
           title=f"{name}: {end:.1f} units, links busy {used:.0%}")
    ax.set_yticklabels([f"rank {r}" for r in range(ranks)])
    return end


fig, ax = figure(width=8, height=2.6)
ends = {"boss": draw_links(ax, boss, "A boss, 4 ranks")}
show(fig, "A timeline of four ranks. Ranks 1 to 3 send to rank 0, then rank 0 sends to each of them; it is over after "
          f"{ends['boss']:.1f} units.")

# %% tags=["payoff"]
fig, ax = figure(width=8, height=2.6)
ends["ring"] = draw_links(ax, ring_all_reduce, "Your ring, 4 ranks")
ax.set_xlim(0, ends["boss"])
show(fig, f"A timeline of four ranks on the same axis: the ring is over after {ends['ring']:.1f} units.",
     title=f"On links of their own the ring would be {ends['boss'] / ends['ring']:.1f} times as fast as the boss")

# %% [markdown]
# ### The same bits everywhere?
#
# The next claim sounds harmless: the parameters of the *replicas*, each rank's copy of the model, "are kept in sync".
# Nobody sends parameters during training. They stay equal only if every rank takes *exactly* the same step, for ever.
# And floating-point addition depends on the order: $(a+b)+c \ne a+(b+c)$.
#
# So we test two ways to average. One is torch's `all_reduce`. (In a ring every chunk is added up in *one* place, and
# copied.) In the other each rank collects all gradients and adds them up itself, each in an order of its own: the same
# sum on paper. Four ranks train a small network for 160 steps, in float32 and in bfloat16, and we compare their
# parameters.
#
# **Before the run:** *correct* if the replicas of torch's `all_reduce` stay equal to the bit in both types, else
# *imprecise*. *Unverifiable* if those of the other way stay equal, too: then this run can't tell.

# %% claim="D02.1"
import torch.nn.functional as F
from torch import nn


def drift(dtype, own_order, steps=160):
    """This rank's parameters after each tenth step."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)).to(dtype)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    rank, n = dist.get_rank(), dist.get_world_size()
    generator, kept = torch.Generator().manual_seed(rank), []
    for step in range(steps):
        x = torch.randn(16, 8, generator=generator).to(dtype)
        optimizer.zero_grad()
        F.mse_loss(net(x), (x[:, :1] * x[:, 1:2]).sign()).backward()
        flat = torch.cat([p.grad.flatten() for p in net.parameters()])
        if own_order:
            everyones = [torch.empty_like(flat) for _ in range(n)]
            dist.all_gather(everyones, flat)
            flat = sum(everyones[(rank + k) % n] for k in range(1, n)) + everyones[rank]
        else:
            dist.all_reduce(flat)
        for p, part in zip(net.parameters(), (flat / n).split([p.numel() for p in net.parameters()]), strict=True):
            p.grad = part.view_as(p)
        optimizer.step()
        if (step + 1) % 10 == 0:
            kept.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    return torch.stack(kept)


WAYS = {(dtype, own): f"{name}, {'every rank in its own order' if own else 'all_reduce'}"
        for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")) for own in (False, True)}
ranks = launch(lambda: {way: drift(*way).float() for way in WAYS}, ranks=4)
apart = {way: torch.stack([(r[way] - ranks[0][way]).abs().amax(1) for r in ranks]).amax(0) for way in WAYS}
worst = {own: max(float(apart[way].max()) for way in WAYS if way[1] == own) for own in (False, True)}

fig, ax = figure(width=8, height=3.6)
styles = ["o-", "s-", "^:", "D-"]
for (way, name), style, color in zip(WAYS.items(), styles, (COLORS[0], COLORS[1], "black", COLORS[3]), strict=True):
    ax.plot(torch.arange(10, 161, 10), apart[way], style, color=color, label=name)
ax.set_yscale("symlog", linthresh=1e-9)
ax.set(xlabel="step", ylabel="largest difference between\ntwo ranks' parameters", ylim=(-3e-10, 1), xlim=(0, None),
       title=f"Replicas get up to {worst[False]:.1g} apart with all_reduce, {worst[True]:.1g} each in its own order")
fig.legend(loc="outside lower center", ncols=2)
show(fig, "Largest difference between ranks' parameters against training step, four lines: "
          + ", ".join(f"{name} ends at {float(apart[way][-1]):.0e}" for way, name in WAYS.items()) + ".")
word = "correct" if worst[False] == 0 else "imprecise"
verdict("D02.1", word if worst[True] else "unverifiable", "With torch's all_reduce the replicas are "
        f"never more than {worst[False]:.1g} apart. Each rank in its own order, in the end: "
        f"{float(apart[torch.float32, True][-1]):.0e} in float32, {float(apart[torch.bfloat16, True][-1]):.0e} in "
        "bfloat16.")

# %% [markdown]
# What keeps parameters in sync is **the same bits** for all. (MPI's standard demands that an all-reduce give identical
# results on all ranks.) That every rank gets "the sum" doesn't promise them. And do the lines of the other way ever
# come back to zero? Nothing in an averaged gradient pulls replicas together again; weight decay would, slowly.
#
# That is why the check of your ring compares bits, and why ranks that collect everything and add it up themselves have
# to do so in one order, the same on all.
#
# ## 5. The bill for latency
#
# Bytes aren't everything. Each message costs a fixed time before its first byte moves: the **alpha-beta model** says
#
# $$
# t(m) = \alpha + \frac{m}{\beta},
# $$
#
# with latency $\alpha$ in seconds and bandwidth $\beta$ in bytes a second (Hockney 1994). Let us measure both here. Two
# ranks play ping-pong with messages of growing size; half a round trip is one message. We take the fastest of several
# tries, since everything else on the computer only ever adds time.

# %% tags=["demo"]
def ping_pong(sizes, tries=12):
    """Seconds a message, for each size in bytes: half the fastest round trip."""
    found = []
    for size in sizes:
        x = torch.zeros(size, dtype=torch.uint8)
        fastest = math.inf
        for _ in range(tries):
            start = time.perf_counter()
            for turn in (0, 1):
                if dist.get_rank() == turn:
                    dist.send(x, 1 - turn)
                else:
                    dist.recv(x, turn)
            fastest = min(fastest, time.perf_counter() - start)
        found.append(fastest / 2)
    return found


SIZES = [4**k for k in range(1, 12)]
seconds = launch(ping_pong, SIZES, ranks=2)[0]
ALPHA = min(seconds)
BETA = SIZES[-1] / (seconds[-1] - ALPHA)

fig, ax = figure(width=8, height=3.4)
ax.loglog(SIZES, [1e6 * s for s in seconds], "o", color=COLORS[0], label="measured: gloo, two ranks on this computer")
dense = [2 ** (k / 4) for k in range(8, 89)]
ax.loglog(dense, [1e6 * (ALPHA + m / BETA) for m in dense], color=COLORS[1], label="alpha + m / beta")
ax.axvline(ALPHA * BETA, color="#999999", linestyle=":")
ax.text(1.15 * ALPHA * BETA, 1e6 * max(seconds), f"alpha · beta\n= {ALPHA * BETA / 1e3:,.0f} kB", va="top",
        color="#555555")
ax.set(xlabel="bytes of the message", ylabel="microseconds",
       title=f"Here: alpha = {1e6 * ALPHA:.0f} µs, beta = {BETA / 1e9:.1f} GB/s")
ax.legend(loc="upper left")
model = [ALPHA + m / BETA for m in SIZES]
furthest = max(max(a / b, b / a) for a, b in zip(seconds, model, strict=True))
show(fig, f"Time of a message against its size, both logarithmic: {1e6 * seconds[0]:.0f} µs for {SIZES[0]} bytes, "
          f"{1e6 * seconds[-1]:,.0f} µs for {SIZES[-1]:,}. The model is off by a factor of {furthest:.1f} at most.")

# %% [markdown]
# At the dotted line both cost the same; far to the left a message is nearly all latency, far to the right nearly all
# bandwidth. (These are times of two
# processes that share memory and cores with everything else here, so they change from run to run. Between GPUs in one
# machine $\alpha$ is some microseconds and $\beta$ hundreds of GB/s.)
#
# A ring of 1000 ranks pays $\alpha$ 1998 times, one after the other, even for a single number. Small messages want
# **few rounds**, not few bytes.
#
# ## The tree
#
# How does a secret spread fastest, if everybody can tell one person at a time? In the first round the one who knows
# tells one. In the next both tell someone, then four do. After $k$ rounds $2^k$ know it, so $n$ ranks need $\lceil
# \log_2 n\rceil$ rounds: ten for a thousand. This is a **binomial tree**, the usual way to broadcast.
#
# Is that what torch does? We look at the wire again: how many times does each rank write the tensor in a
# `dist.broadcast` on eight ranks?

# %% tags=["demo"]
def from_rank_0(x):
    dist.broadcast(x, src=0)
    x *= dist.get_world_size()


try:
    copies = [round(sent, 1) for sent, _ in launch(tensors_sent, from_rank_0, ranks=8)]
    print("tensors written by ranks 0 to 7 in torch's broadcast:", copies)
    print(f"rank 0 writes {copies[0]:g}; log2(8) = 3 rounds would make it 3, a root that tells all 7")
except RankError:
    print("This system doesn't say what a process writes (Linux does).")

# %% [markdown]
# ### Exercise: broadcast by a tree
#
# In round $k$ (from 0) those who have it are the first $2^k$ ranks, counted from the root. Rank `me` among them tells
# rank `me + 2**k`, if there is one. Counting *from the root* is the trick that makes any root work.

# %% exercise="tree_broadcast"
def tree_broadcast(x, root=0):
    """The root's x on every rank, after ceil(log2 n) rounds of sends and receives.

    x:    a tensor of any shape, also without dimensions or not contiguous (a transposed one),
          of the same shape and dtype on all n ranks. Its values count on the root only. It is
          not changed.
    root: the rank whose x is sent, 0 … n - 1.
    Returns a tensor with the root's values, of x's shape and dtype; on the root that may be x
    itself.

    Traffic: every rank but the root receives exactly once, the whole tensor; n - 1 messages in
    all. A rank sends one message at a time; with that all have it after ceil(log2 n) rounds (n
    needn't be a power of two). Allowed are send, recv, isend, irecv and batch_isend_irecv of
    torch.distributed; none of its collectives, no barrier either.
    A binomial tree: Thakur, Rabenseifner and Gropp 2005, Int. J. High Perform. Comput.
    Appl. 19(1).
    """
    ### BEGIN SOLUTION
    rank, n = dist.get_rank(), dist.get_world_size()
    me = (rank - root) % n
    result = x.clone(memory_format=torch.contiguous_format)
    have = 1
    while have < n:
        if me < have and me + have < n:
            dist.send(result, (me + have + root) % n)
        elif have <= me < 2 * have:
            dist.recv(result, (me - have + root) % n)
        have *= 2
    return result
    ### END SOLUTION

# %% check="tree_broadcast"
check(tree_broadcast)

# %% tags=["payoff"]
def rounds_of(function, ranks):
    traffic = launch(traffic_of, function, 10, ranks=ranks)
    return round(max(trip.end for trip in timeline(traffic)))


counts = range(2, 9)
rounds = [rounds_of(tree_broadcast, n) for n in counts]
fig, ax = figure(width=8, height=3.2)
ax.plot(counts, [n - 1 for n in counts], "--", color=COLORS[1], label="the root tells everybody: n - 1")
ax.plot(counts, rounds, "o", color=COLORS[0], markersize=9, label="your tree, from its recorded messages")
ax.step(counts, [math.ceil(math.log2(n)) for n in counts], where="mid", color="black", linewidth=1,
        label="ceil(log2 n)")
ax.set(xlabel="ranks", ylabel="rounds", xticks=list(counts), ylim=(0, None),
       title=f"{counts[-1]} ranks know it after {rounds[-1]} rounds instead of {counts[-1] - 1}")
ax.legend()
show(fig, f"Rounds on {counts[0]} to {counts[-1]} ranks. Your tree: {', '.join(map(str, rounds))}. The rounded-up "
          f"logarithm: {', '.join(str(math.ceil(math.log2(n))) for n in counts)}.")

# %% [markdown]
# Run the tree backwards, with additions, and it is a reduce: the leaves send, the inner ranks add. Up and down again is
# an all-reduce in $2\lceil\log_2 n\rceil$ rounds, of *whole* tensors.
#
# ## 6. Which one?
#
# Now the model can decide. Three algorithms, each a number of messages one after the other, times what a message costs.
#
# | | messages one after the other | bytes of each |
# |---|---|---|
# | boss (server) | $n-1$ in, $n-1$ out | $m$ |
# | tree | ? up, ? down | $m$ |
# | ring | ? | ? |
#
# ### Exercise: the price of an all-reduce

# %% exercise="all_reduce_cost"
def all_reduce_cost(algorithm, ranks, size, alpha, beta):
    """Seconds that an all-reduce takes, where a message of m bytes takes alpha + m / beta.

    algorithm: "ring" (reduce-scatter and all-gather as above, chunks of exactly size / ranks
               bytes), "tree" (a binomial tree of ceil(log2 ranks) rounds up and as many down,
               whole tensors) or "server" (one of the ranks receives from all others, one after
               the other, and then sends to all, one after the other; whole tensors).
    ranks:     int, at least 1 (one rank alone pays nothing)
    size:      bytes of the tensor, 0 or more
    alpha:     seconds a message, 0 or more. beta: bytes a second
    A rank sends one message at a time and receives one at a time, and may do both at once;
    messages between different ranks travel at the same time. Adding up costs nothing.
    Returns a float.
    Hockney 1994, Parallel Computing 20(3); Thakur, Rabenseifner and Gropp 2005.
    """
    ### BEGIN SOLUTION
    if algorithm == "ring":
        steps, length = ranks - 1, size / ranks
    elif algorithm == "tree":
        steps, length = math.ceil(math.log2(ranks)), size
    else:
        steps, length = ranks - 1, size
    return 2 * steps * (alpha + length / beta)
    ### END SOLUTION

# %% check="all_reduce_cost"
check(all_reduce_cost)

# %% [markdown]
# A cluster, by your model: 64 ranks, $\alpha$ = 10 µs, $\beta$ = 25 GB/s (a 200 Gbit/s link).

# %% tags=["payoff"]
NETWORK = {"alpha": 10e-6, "beta": 25e9}
STYLES = {"server": ("-", "#f0b98d", 6, "boss"), "tree": ("--", COLORS[2], 2, "tree"),
          "ring": ("-", COLORS[0], 2, "ring")}
messages = [2**k for k in range(2, 32)]
worlds = [2**k for k in range(1, 11)]
sizes = (4 * 1.001**k for k in range(20_000))  # close enough to say where they cross
ahead = (m for m in sizes if all_reduce_cost("ring", 64, m, **NETWORK) < all_reduce_cost("tree", 64, m, **NETWORK))
crossing = next(ahead, None)

fig, (left, middle, right) = figure(1, 3, width=10.5, height=3.9)
for algorithm, (style, color, width, name) in STYLES.items():
    look = {"color": color, "linewidth": width, "label": name}
    left.loglog(messages, [1e3 * all_reduce_cost(algorithm, 64, m, **NETWORK) for m in messages], style, **look)
    for ax, size in ((middle, 4), (right, 5e8)):
        ax.loglog(worlds, [1e3 * all_reduce_cost(algorithm, n, size, **NETWORK) for n in worlds], style, **look)
few, many = (1e3 * all_reduce_cost("ring", n, 5e8, **NETWORK) for n in (8, worlds[-1]))
left.set(xlabel="bytes", ylabel="ms (model)", title="on 64 ranks")
left.legend()
middle.set(xlabel="ranks", title="one number (4 bytes)")
right.set(xlabel="ranks", title="500 MB of gradients")
where = f"from {crossing / 1e6:.1f} MB on" if crossing else "nowhere"
ms = {size: ", ".join(f"{name} {1e3 * all_reduce_cost(algorithm, 64, size, **NETWORK):,.2f}"
                      for algorithm, (*_, name) in STYLES.items()) for size in (4, 5e8)}
show(fig, "Three panels of modeled time: against size on 64 ranks, and against ranks for one number and for 500 MB. "
          f"Milliseconds on 64 ranks, one number: {ms[4]}; 500 MB: {ms[5e8]}.",
     title=f"On 64 ranks the ring beats the tree {where}; 500 MB take it {few:.0f} ms on 8 ranks, {many:.0f} ms on "
           f"{worlds[-1]}")

# %% [markdown]
# So "which is fastest?" has no answer without a size.
#
# * **Large tensors, the gradients:** the ring. Its curve in the right panel rises little up to some hundred ranks,
#   where the latency of so many steps begins to show.
# * **Small tensors:** the tree. In a ring latency and bytes cost the same when a *chunk* has $\alpha\beta$ bytes, a
#   tensor of $n\alpha\beta$: here 64 × 10 µs × 25 GB/s = 16 MB. That is one reason why DDP doesn't send gradients one
#   by one, but packs them into buckets of 25 MiB.
# * **A boss:** never. With two or three ranks it ties with the tree, and the ring sends less in as many steps. Real
#   *parameter servers* are many, each with a part of the parameters, and then they send as evenly as a ring.
#
# Libraries choose by size and topology. NCCL has rings and *double binary trees*: two trees that use all links
# (Sanders, Speck and Träff 2009, Parallel Computing 35(12)), and are pipelined, so that they beat a ring up to far
# larger tensors than the whole-tensor tree of this model. Where a switch can add (NVLink SHARP on Hopper and later,
# *NVLS* in NCCL), every rank sends its tensor once and receives the sum once. MPICH switches to recursive halving and
# doubling, which needs $2\log_2 n$ rounds *and* only $2\frac{n-1}{n}m$ bytes, where $n$ is a power of two. For
# all-gather and reduce-scatter alone NCCL has one more, PAT, whose steps grow with the logarithm of $n$ (Jeaugey 2025,
# [arXiv:2506.20252](https://arxiv.org/abs/2506.20252)). With fast links inside a machine and slow ones between
# machines, one reduces inside first, then across (hierarchical all-reduce).
#
# Benchmarks of NCCL print two bandwidths. *algbw* is size over time. *busbw* multiplies it by $2(n-1)/n$, the factor
# that you know now, so that it can be held against what the link is able to do (`doc/PERFORMANCE.md` of nccl-tests).
#
# ## The payoff: a real training step
#
# A small GPT reads Shakespeare on four ranks, eight rows each. In one run torch's DDP averages the gradients. In the
# other there is no DDP: after `backward()` all gradients are laid end to end and go through *your* ring. Same
# starting weights, same rows.

# %% tags=["payoff"]
from labkit.train_ddp import CharGPT, Windows, loss_of

text = Windows(shakespeare()[:100_000], context=32)


def train_gpt(all_reduce=None, steps=25, rows=8):
    """(loss of every step on this rank, first averaged gradient, messages of one step)."""
    from torch.nn.parallel import DistributedDataParallel

    torch.manual_seed(0)
    model = CharGPT(len(text.alphabet), context=32)
    wrapped = model if all_reduce else DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    rank, world = dist.get_rank(), dist.get_world_size()
    order = torch.randperm(len(text), generator=torch.Generator().manual_seed(0)).tolist()[rank::world]
    losses, first, params = [], None, list(model.parameters())
    for step in range(steps):
        ids, targets = map(torch.stack, zip(*(text[i] for i in order[step * rows : (step + 1) * rows]), strict=True))
        optimizer.zero_grad()
        loss = loss_of(wrapped(ids), targets)
        with record_traffic() as messages:
            loss.backward()
            if all_reduce:
                flat = all_reduce(torch.cat([p.grad.flatten() for p in params]), mean=True)
                for p, part in zip(params, flat.split([p.numel() for p in params]), strict=True):
                    p.grad = part.view_as(p)
        first = torch.cat([p.grad.flatten() for p in params]) if first is None else first
        optimizer.step()
        losses.append(loss.item())
    return losses, first, [(m.op, m.bytes) for m in messages]


theirs, mine = launch(train_gpt, ranks=4), launch(train_gpt, ring_all_reduce, ranks=4)
mean_loss = [torch.tensor([losses for losses, *_ in of]).mean(0) for of in (theirs, mine)]
apart = float((mean_loss[0] - mean_loss[1]).abs().max())
off = float((theirs[0][1] - mine[0][1]).abs().max() / theirs[0][1].abs().max())
sent = [sum(size for op, size in messages if op == "send") for *_, messages in mine]
whole = 4 * theirs[0][1].numel()

fig, (left, right) = figure(1, 2, width=10.5, height=3.8, width_ratios=[3, 2])
left.plot(mean_loss[0], color="#bbbbbb", linewidth=7, label="torch's DDP")
left.plot(mean_loss[1], color=COLORS[0], label="your ring")
left.set(xlabel="step", ylabel="loss, nats a character", title=f"Losses never more than {apart:.0e} apart")
left.legend()
right.bar(range(4), [s / whole for s in sent], color=COLORS[0], width=0.6)
right.axhline(1.5, color="black", linestyle="--", linewidth=1)
right.text(-0.4, 1.53, "2 (n - 1) / n = 1.5", va="bottom")
right.set(xlabel="rank", ylabel="sent a step, in gradients", xticks=range(4), ylim=(0, 2),
          title=f"{whole / 1e3:,.0f} kB of gradients, {max(sent) / 1e3:,.0f} kB sent")
show(fig, f"Left: the losses under DDP and under your ring, at most {apart:.0e} apart. Right: gradients sent a step by "
          f"each rank of the ring: {', '.join(f'{s / whole:.2f}' for s in sent)}.",
     title=f"A GPT on your ring: its first gradient differs from DDP's by {off:.0e} of the largest entry")

# %% [markdown]
# Do the losses agree as far as float32 can? (DDP adds the same numbers, perhaps in another order.) And are the bytes
# those of the formula, on every rank?
#
# What DDP has beyond your ring is *when* it sends: in buckets, while the backward pass still runs. That is the next
# chapter.
#
# ## What you can say now
#
# * An all-reduce is a reduce-scatter and an all-gather. Every rank sends $2\frac{n-1}{n}$ of its tensor, in $2(n-1)$
#   messages to one neighbor. Its time for large tensors hardly depends on $n$.
# * A single server moves the same number of bytes in all, but $n-1$ tensors in and out over one link.
# * A tree needs $2\lceil\log_2 n\rceil$ rounds of whole tensors: right for small ones. $\alpha\beta$ is the size at
#   which latency and bandwidth cost the same.
# * Two sends that wait for each other hang. Messages are bytes: sizes and dtypes must fit.
# * Replicas stay equal only as long as the all-reduce gives the same *bits* everywhere.
