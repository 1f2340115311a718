# ---
# jupyter:
#   course:
#     title: "Communication: fewer bytes, fewer rounds, and who waits"
#     exercises: data_parallel.communication
#     questions: [D02]
#     needs: [03_data_parallel/03_ddp]
# ---

# %% [markdown]
# # Communication: fewer bytes, fewer rounds, and who waits
#
# A model of seven billion parameters has a gradient of 28 gigabytes in float32. Data parallelism sends it round the
# cluster once a step, in a ring almost twice that. Over the links inside a machine (450 GB/s) this takes an eighth of a
# second, over 50 GB/s between machines more than one, and over 1 Gbit/s between continents seven minutes.
#
# There are three ways out: send **fewer bytes** (only the large entries, a narrow product, few digits), send **less
# often** (each replica walks alone for a while), or make sure that **nobody waits** for a message, or for a slow rank.
# You will build each of them, and put a price on it: loss against bytes sent.
#
# The ranks are processes on your CPU. They share its cores and show no speed-up, so bytes are counted, losses measured,
# and seconds come from a model. One exception: a rank that *sleeps* needs no core, and how long the others wait for it
# is real.

# %% tags=["setup"]
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from autograde import check
from labkit import COLORS, evidence, figure, interval, launch, record_traffic, shakespeare, show, verdict

# %% [markdown]
# ## Is everything in it equally important?
#
# Take a small network that reads eight letters of Shakespeare and predicts the next one. Here is one gradient of it,
# early in training: how much of its squared length do its largest entries hold? And, seen as a matrix, its largest
# singular values? Some entries are the largest in any vector, so random numbers stand beside it.

# %% tags=["demo"]
rows = torch.Generator().manual_seed(0)

from experiments.D02_17 import CONTEXT, losses, network
from experiments.normed_lm import draw

params = network(seed=0)  # four replicas, side by side
for _ in range(60):
    loss = losses(params, draw("train", 4 * 48, CONTEXT, rows).view(4, 48, -1)).sum()
    gradients = torch.autograd.grad(loss, params)
    for p, g in zip(params, gradients, strict=True):
        p.data -= 0.5 * g.mean(0)

entries = torch.cat([g[0].flatten() for g in gradients])
held = entries.square().sort(descending=True).values.cumsum(0) / entries.square().sum()
at_1 = float(held[len(entries) // 100])
matrix = gradients[1][0]
spectrum = torch.linalg.svdvals(matrix).square()
of_two = float(spectrum[:2].sum() / spectrum.sum())
chance = torch.randn(len(entries), generator=rows).square().sort(descending=True).values
by_chance = chance.cumsum(0) / chance.sum()
noise = torch.linalg.svdvals(torch.randn(matrix.shape, generator=rows)).square()
two_by_chance = float(noise[:2].sum() / noise.sum())

fig, (left, right) = figure(1, 2, width=10.5, height=3.4)
some = torch.logspace(0.5, 4.55, 200).long().clamp(max=len(entries)) - 1
left.plot(100 * (some + 1) / len(entries), 100 * held[some], color=COLORS[0], label="a gradient")
left.plot(100 * (some + 1) / len(entries), 100 * by_chance[some], color="#999999", linestyle="--",
          label="random numbers")
left.plot(1, 100 * at_1, "o", color=COLORS[1])
left.annotate(f"1 %: {at_1:.0%}", (1, 100 * at_1), (0.85, 100 * at_1 + 3), color=COLORS[1], ha="right")
left.set(xscale="log", xlabel=f"largest of the {len(entries):,} entries, %", ylabel="of the squared length, %",
         title="Its entries", ylim=(0, 102))
left.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
left.legend(loc="upper left")
right.bar(range(1, 21), (100 * spectrum / spectrum.sum())[:20], color=[COLORS[1]] * 2 + [COLORS[0]] * 18)
right.plot(range(1, 21), (100 * noise / noise.sum())[:20], "_", color="#555555", label="random numbers")
right.legend()
right.set(xlabel="singular value", ylabel="of the squared length, %", xticks=[1, 5, 10, 15, 20],
          title=f"Its {matrix.shape[0]} × {matrix.shape[1]} matrix: two hold {of_two:.0%}")
of_chance = float(by_chance[len(entries) // 100])
show(fig, alt="Left: share of a gradient's squared length against the share of its largest entries; "
     f"1 % hold {at_1:.0%}, of random numbers {of_chance:.0%}. Right: bars of the first 20 singular values' shares; "
     f"the first two hold {of_two:.0%}, of random numbers {two_by_chance:.0%}.",
     title=f"One percent of the entries holds {at_1:.0%} of this gradient's squared length (of random numbers "
           f"{of_chance:.0%})")

# %% [markdown]
# ## 1. Only the large entries
#
# So send the $k$ entries farthest from zero, each with its index. But the others aren't nothing: an entry that is
# small in every step may add up to much. So each rank keeps what it has not sent in a **residual** $e$ and adds it next
# time. That is **error feedback**:
#
# $$c = g + e, \qquad s = \text{top}_k(c), \qquad e' = c - s, \qquad \bar g = \tfrac1N\textstyle\sum_r s_r$$
#
# Each rank's $k$ entries stand elsewhere, so an all-reduce can't add them up on the way. An **all-gather** brings
# everybody's values and everybody's indices to every rank, and each adds up by itself.
#
# ### Exercise: average the k largest entries

# %% exercise="topk_average"
def topk_average(gradient, residual, k):
    """The mean over ranks of each rank's k largest entries, and what this rank has left over.

    gradient: floating-point tensor of any shape, this rank's own
    residual: tensor of the same shape and dtype: what this rank has not sent in earlier steps
    k:        how many entries each rank sends, from 1 to all; the same on all ranks
    Each rank adds its residual to its gradient, and chooses from the sum the k entries that are
    farthest from zero (no two are equally far). The mean counts an entry that a rank doesn't
    send as 0, and divides by the number of all ranks; where several ranks send the same entry,
    their values are added up.

    Traffic: a rank sends its k values, in gradient's dtype, and their k indices as int32, by
    all_gather (or all_gather_into_tensor), k * (bytes of a value + 4) bytes in all;
    nothing else is called, no barrier either.
    Returns (mean, residual): tensors of gradient's shape and dtype. mean is the same on all
    ranks. residual is gradient + residual with 0 where this rank has sent. Neither argument is
    changed.

    Stich et al. 2018, arXiv:1809.07599; Lin et al. 2018, arXiv:1712.01887.
    """
    ### BEGIN SOLUTION
    flat = (gradient + residual).flatten()
    indices = flat.abs().topk(k).indices
    values, places = flat[indices], indices.int()
    all_values = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    all_places = [torch.empty_like(places) for _ in range(dist.get_world_size())]
    dist.all_gather(all_values, values)
    dist.all_gather(all_places, places)
    mean = torch.zeros_like(flat)
    for v, i in zip(all_values, all_places, strict=True):
        mean.index_add_(0, i, v / len(all_values))
    flat[indices] = 0
    return mean.view(gradient.shape), flat.view(gradient.shape)
    ### END SOLUTION

# %% check="topk_average"
check(topk_average)

# %% [markdown]
# Does the residual matter? Three ranks fit a linear model whose features have very different sizes, and send 2 of 40
# entries a step: once with your residual, once throwing it away.

# %% tags=["payoff"]
def fit(sends, steps=100):
    """The loss after each step, and the bytes that this rank hands over in a step."""
    g = torch.Generator().manual_seed(0)
    sizes = torch.logspace(0, -1, 40)
    x = torch.randn(96, 40, generator=g) * sizes
    y = x @ (torch.randn(40, generator=g) / sizes)
    weight, left, curve = torch.zeros(40), torch.zeros(40), []
    mine = slice(dist.get_rank(), None, dist.get_world_size())
    with record_traffic() as messages:
        for _ in range(steps):
            gradient = 2 * (x[mine] @ weight - y[mine]) @ x[mine] / len(x[mine])
            if sends == "everything":
                dist.all_reduce(gradient)
                mean = gradient / dist.get_world_size()
            else:
                mean, left = topk_average(gradient, left, 2)
                left = left if sends == "2 of 40, with residual" else torch.zeros(40)
            weight = weight - 0.1 * mean
            curve.append(float((x @ weight - y).square().mean()))
    return curve, sum(m.bytes for m in messages) / steps


KINDS = ("everything", "2 of 40, with residual", "2 of 40, residual thrown away")
runs = dict(zip(KINDS, launch(lambda: [fit(kind) for kind in KINDS], ranks=3)[0], strict=True))
fig, ax = figure(width=8.5, height=3.4)
for (kind, (curve, sent)), color, style in zip(runs.items(), (COLORS[6], COLORS[0], COLORS[1]), ("-", "-", "--"),
                                                strict=True):
    ax.plot(range(1, len(curve) + 1), curve, style, color=color, label=f"{kind}: {sent:.0f} bytes a step")
ax.set(yscale="log", xlabel="step", ylabel="loss")
ax.set_yticks([2, 5, 10, 20, 40], ["2", "5", "10", "20", "40"])
ax.minorticks_off()
ax.legend()
ends = {kind: curve[-1] for kind, (curve, _) in runs.items()}
told = ", ".join(f"{kind} {end:.2g}" for kind, end in ends.items())
show(fig, alt=f"Loss against step on a logarithmic axis, three ways to send. At the end: {told}.",
     title=f"Loss after {len(curve)} steps: {ends[KINDS[1]]:.2g} with the residual, {ends[KINDS[2]]:.2g} without")

# %% [markdown]
# ## 2. A narrow product
#
# The second picture above is about the directions of a gradient *matrix* $M$. **PowerSGD** sends the strongest: a
# product of two narrow matrices, $M \approx P Q^\top$ with $r$ columns each. And unlike the largest entries, what is
# sent can be added up on the way: $M_r Q$ and $M_r^\top P$ are linear in $M_r$.
#
# $$P = \text{orthonormal}\Big(\tfrac1N\textstyle\sum_r M_r Q\Big), \qquad Q' = \tfrac1N\textstyle\sum_r M_r^\top P,
# \qquad \bar M \approx P Q'^\top$$
#
# It is one step of the power iteration that finds the vectors of the largest singular values, and since $Q'$ starts the
# next round, the iteration goes on from step to step. What the product misses goes into the residual, as before.
#
# ### Exercise: one round of PowerSGD

# %% exercise="powersgd_round"
def powersgd_round(matrix, q, residual):
    """The ranks' mean of matrix + residual, approximated by a product of two narrow matrices.

    matrix:   floating-point tensor [rows, columns], this rank's gradient
    q:        tensor [columns, r] of matrix's dtype, the same on all ranks, r <= rows and
              r <= columns; its columns are linearly independent
    residual: tensor [rows, columns]: what this rank's earlier rounds have missed
    With M = matrix + residual on each rank:
      p = M @ q, averaged over the ranks; then its columns are made orthonormal, by all ranks in
          the same way, without changing the space that they span (QR, Gram-Schmidt)
      q = M.T @ p, averaged over the ranks
      approximation = p @ q.T
    Where all gradients are 0, so is the approximation (not NaN).

    Traffic: two all_reduces, of rows * r and of columns * r numbers, and nothing else.
    Returns (approximation, q, residual), of matrix's dtype: the approximation, the same on all
    ranks; the new q [columns, r], for the next round; the new residual, this rank's M minus the
    approximation. No argument is changed.

    Vogels et al. 2019, arXiv:1905.13727; torch.distributed.algorithms.ddp_comm_hooks does it.
    """
    ### BEGIN SOLUTION
    world = dist.get_world_size()
    m = matrix + residual
    p = m @ q
    dist.all_reduce(p)
    p = torch.linalg.qr(p / world).Q
    new_q = m.T @ p
    dist.all_reduce(new_q)
    new_q = new_q / world
    approximation = p @ new_q.T
    return approximation, new_q, m - approximation
    ### END SOLUTION

# %% check="powersgd_round"
check(powersgd_round)

# %% [markdown]
# torch's DDP does this in a **communication hook**, a function that gets each bucket instead of the all-reduce. Beside
# it, your function gets the same gradients, on two ranks and for six steps.
#
# The hook of torch 2.13 has two traps. It starts with 1,000 ordinary steps by default, so a short test may never
# compress at all. And at rank 1 or 2 a gradient of zeros becomes NaN. With `orthogonalization_epsilon=1e-8` it stays
# zero, but so does $Q'$, which starts the next round: that matrix gets no gradient ever again. With `warm_start=False`
# as well, each round draws a new $Q$. From rank 3 on, in float32, the hook uses QR and has neither trouble.

# %% tags=["payoff"]
def beside_torch(steps=6, rank=2):
    """In each step: how far torch's result and yours are apart, how far from the true mean; then the bytes."""
    from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
    from torch.nn.parallel import DistributedDataParallel

    layer = nn.Linear(48, 32, bias=False)
    ddp = DistributedDataParallel(layer)
    state = PowerSGDState(None, rank, start_powerSGD_iter=2, min_compression_rate=1)
    ddp.register_comm_hook(state, powerSGD_hook)
    g, apart, off, q, left = torch.Generator().manual_seed(dist.get_rank()), [], [], None, None
    mixing = torch.randn(48, 48, generator=torch.Generator().manual_seed(9)) / torch.arange(1, 49)
    for step in range(steps + 3):
        x = torch.randn(64, 48, generator=g) @ mixing
        ddp.zero_grad()
        ddp(x).square().mean().backward()
        if step < 2:
            continue
        if q is not None:
            own = 2 * (x @ layer.weight.T).T @ x / (64 * 32)  # this rank's gradient, by hand
            true = (own + left).detach().clone()
            dist.all_reduce(true)
            yours, q, left = powersgd_round(own.detach(), q, left)
            apart.append(float((yours - layer.weight.grad).abs().max() / layer.weight.grad.abs().max()))
            off.append(float((yours - true / 2).norm() / (true / 2).norm()))
        else:
            q, left = state.q_memory_dict[0].view(48, rank).clone(), state.error_dict[0].view(32, 48).clone()
    _, full, narrow = state.compression_stats()  # numbers so far, before and after
    return apart, off, 4 * narrow // (steps + 1), 4 * full // (steps + 1)


apart, off, sent, full = launch(beside_torch, ranks=2)[0]
print(f"torch's hook sends {sent:,} bytes a step instead of {full:,}; yours 4 · 2 · (48 + 32) = {4 * 2 * 80:,}")
print(f"yours and torch's differ by {max(apart):.0e} of the largest entry at most, over {len(apart)} steps")
print("missed, and kept for later:", ", ".join(f"{o:.0%}" for o in off), "of mean gradient + residual")

# %% [markdown]
# ## 3. Fewer digits
#
# A number in float32 has 24 binary digits. Eight bits, **int8**, hold the 255 levels from -127 to 127. Rounding to the
# nearest seems the natural thing. But look what happens to a number that is 0.3 of a step, again and again:

# %% tags=["demo"]
dice = torch.Generator().manual_seed(0)
exact = torch.linspace(-1.45, 1.45, 117)
nearest = exact.round()
lucky = (exact.floor() + (torch.rand(200, 117, generator=dice) < exact - exact.floor())).mean(0)
fig, ax = figure(width=8.5, height=3.2)
ax.plot(exact, exact, color="#bbbbbb", linewidth=5, label="as it was")
ax.plot(exact, nearest, color=COLORS[1], linestyle="--", label="rounded to the nearest")
ax.plot(exact, lucky, ".", color=COLORS[0], label="rounded by lot, mean of 200")
ax.set(xlabel="number, in steps", ylabel="what arrives, in steps", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
ax.legend()
worst = [float((way - exact).abs().max()) for way in (nearest, lucky)]
show(fig, alt="What arrives against the number itself. To the nearest: a staircase, off by up to "
     f"{worst[0]:.2f} of a step. By lot: dots around the diagonal, the mean off by up to {worst[1]:.2f}.",
     title=f"Off by up to {worst[0]:.2f} of a step to the nearest, {worst[1]:.2f} by lot and on average")

# %% [markdown]
# **Stochastic rounding** decides by lot: 0.3 goes up three times in ten. Each single number is less exact, and the mean
# over ranks and steps is right. The estimate is **unbiased**, $\mathbb E[\hat x] = x$. Rounding to the nearest makes
# the same mistake with the same number, on every rank and in every step, and no averaging takes it out (a residual
# would).
#
# One outlier would stretch the steps for all, so every **block** of numbers has a scale of its own.
#
# ### Exercise: quantize a gradient

# %% exercise="quantize_gradient"
def quantize_gradient(x, noise, bits=8, block=64):
    """Whole numbers of `bits` bits and one scale a block, so that codes * scale is x on average.

    x:     floating-point tensor [n], n >= 1
    noise: float32 tensor [n], uniform in [0, 1): the lots
    bits:  2 to 8. Codes go from -levels to levels, with levels = 2**(bits - 1) - 1
    block: numbers 0 to block - 1 share a scale, the next `block` numbers the next; the last
           block may be shorter
    The scale of a block is the size of one step: its number farthest from zero, without the
    sign, divided by levels. A number of y = x / scale steps becomes floor(y), or floor(y) + 1
    where its noise is less than its fraction y - floor(y): also for negative y. The number
    farthest from zero becomes levels or -levels, never more. In a block of zeros the scale and
    all codes are 0. Computed in float32, also where x is bfloat16.

    Returns (codes, scales): int8 [n] and float32 [number of blocks]. x is not changed.

    Alistarh et al. 2017, arXiv:1610.02132 (QSGD).
    """
    ### BEGIN SOLUTION
    levels, n = 2 ** (bits - 1) - 1, len(x)
    rows, lots = (F.pad(t.float(), (0, -n % block)).view(-1, block) for t in (x, noise))
    scales = rows.abs().amax(1) / levels
    y = rows / torch.where(scales > 0, scales, 1)[:, None]
    codes = y.floor() + (lots < y - y.floor())
    return codes.clamp(-levels, levels).flatten()[:n].to(torch.int8), scales
    ### END SOLUTION

# %% check="quantize_gradient"
check(quantize_gradient)

# %% [markdown]
# More ranks, more lots. The mean over many ranks of one and the same gradient, each with lots of its own, at four bits.
# Real ranks don't have the same gradient. So a last line rounds to the nearest what differs from rank to rank by noise
# as large as the gradient itself: where the differences exceed a step, they can do the work of the lots.

# %% tags=["payoff"]
def arrives(x, noise, bits=4, block=64):
    codes, scales = quantize_gradient(x, noise, bits, block)
    return codes * scales.repeat_interleave(block)[: len(x)]


gradient = entries[-4096:]
counts = [1, 2, 4, 8, 16, 32, 64, 128, 256]
total, error, off, differing = torch.zeros_like(gradient), torch.zeros_like(gradient), {}, {}
half = torch.full((len(gradient),), 0.5)  # a lot of 1/2 rounds to the nearest
for n in range(1, counts[-1] + 1):
    total += arrives(gradient, torch.rand(len(gradient), generator=dice))
    own = gradient + gradient.std() * torch.randn(len(gradient), generator=dice)
    error += arrives(own, half) - own
    if n in counts:
        off[n] = float((total / n - gradient).norm() / gradient.norm())
        differing[n] = float((error / n).norm() / gradient.norm())
steady = arrives(gradient, half)
biased = float((steady - gradient).norm() / gradient.norm())
fig, ax = figure(width=8.5, height=3.2)
ax.plot(counts, [100 * off[n] for n in counts], "o-", color=COLORS[0], label="by lot: your function")
ax.axhline(100 * biased, color=COLORS[1], linestyle="--", label="to the nearest, the same on every rank")
ax.plot(counts, [100 * differing[n] for n in counts], "s--", color=COLORS[1], markersize=4,
        label="to the nearest, ranks differ")
ax.plot(counts, [100 * off[1] / n**0.5 for n in counts], color="#bbbbbb", linewidth=1, label="one rank's / √ranks")
ax.set(xscale="log", yscale="log", xlabel="ranks that average", ylabel="error of the mean, %")
ax.set_xticks(counts, counts)
ax.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
ax.minorticks_off()
ax.legend()
show(fig, alt="Error of the mean against the number of ranks, both logarithmic. By lot it goes from "
     f"{off[1]:.1%} on one rank to {off[256]:.1%} on 256. To the nearest it is {biased:.1%} on any number with the "
     f"same gradient; where their gradients differ, {differing[1]:.1%} and {differing[256]:.1%}.",
     title=f"Four bits by lot: {off[1]:.0%} off on one rank, {off[256]:.1%} on 256; to the nearest, ranks differing: "
           f"{differing[256]:.1%}")

# %% [markdown]
# Codes can't simply be all-reduced: int8 overflows, and each rank has other scales. So one sends codes to the rank that
# adds up this part (an **all-to-all**), which turns them back into numbers, sums, quantizes the sum, and sends that to
# all. Two hops of a quarter of the bytes.
#
# ## 4. Less often
#
# Why talk after every step? In **local SGD** each replica takes $H$ steps alone; then all take the mean of their
# parameters. One all-reduce for $H$ steps. **DiLoCo** looks at that mean with an optimizer's eyes: the way from the
# common start $\theta$ to the mean is a (large, good) step downhill, so its reverse is a gradient. Let an *outer*
# optimizer walk along it, with momentum:
#
# $$\Delta = \theta - \tfrac1N\textstyle\sum_r \theta_r, \qquad v' = \mu v + \Delta, \qquad
# \theta' = \theta - \eta\,(\Delta + \mu v')$$
#
# With $\eta = 1$ and $\mu = 0$ that is local SGD. DiLoCo's outer optimizer is Nesterov's, and $H$ is in the hundreds.
#
# ### Exercise: the outer step

# %% exercise="diloco_step"
def diloco_step(params, start, velocity, lr=0.7, momentum=0.9):
    """The outer step of DiLoCo: Nesterov's momentum along the way that the replicas have come.

    params:   list of floating-point tensors: this rank's parameters after its steps alone
    start:    list of tensors of the same shapes: the parameters from which all ranks started,
              the same on all ranks
    velocity: list of tensors of the same shapes, the same on all ranks (zeros at first)
    For each tensor: gradient = start - mean of params over the ranks; the new velocity is
    momentum * velocity + gradient; the new parameters are
    start - lr * (gradient + momentum * new velocity).

    Traffic: each parameter crosses once, by all_reduce, so a rank's messages add up to the
    bytes of its parameters (one message a tensor or one for all); nothing else is called.
    Returns (params, velocity): two lists (or tuples) of new tensors, the same on all ranks. No
    argument is changed.

    Douillard et al. 2023, arXiv:2311.08105; the step of torch.optim.SGD with nesterov=True,
    which you don't call here.
    """
    ### BEGIN SOLUTION
    new_params, new_velocity = [], []
    for p, s, v in zip(params, start, velocity, strict=True):
        gradient = s - p
        dist.all_reduce(gradient)
        gradient = gradient / dist.get_world_size()
        v = momentum * v + gradient
        new_params.append(s - lr * (gradient + momentum * v))
        new_velocity.append(v)
    return new_params, new_velocity
    ### END SOLUTION

# %% check="diloco_step"
check(diloco_step)

# %% [markdown]
# On two real ranks, the small network from above: AdamW inside, your step outside. Beside it the same 180 steps with an
# all-reduce in each of them, at the same rate. With your step the ranks meet nine times, which is few: a test of the
# machinery, not of the method.

# %% tags=["payoff"]
def letters_on_ranks(apart, steps=180, rows=96):
    """Megabytes that this rank has handed to all_reduce, and the validation loss at the end."""
    params = [p[:1].detach().clone().requires_grad_() for p in network(seed=0)]
    optimizer = torch.optim.AdamW(params, lr=0.01)
    start, velocity = [p.detach().clone() for p in params], [torch.zeros_like(p) for p in params]
    g = torch.Generator().manual_seed(dist.get_rank())
    held_out = draw("validation", 1000, CONTEXT, torch.Generator().manual_seed(5))[None]
    with record_traffic() as messages:
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            losses(params, draw("train", rows, CONTEXT, g)[None]).sum().backward()
            if apart == 1:
                for p in params:
                    dist.all_reduce(p.grad)
                    p.grad /= dist.get_world_size()
            optimizer.step()
            if apart > 1 and step % apart == 0:
                start, velocity = diloco_step([p.detach() for p in params], start, velocity)
                for p, s in zip(params, start, strict=True):
                    p.data.copy_(s)
    with torch.no_grad():
        return sum(m.bytes for m in messages) / 1e6, float(losses(params, held_out))


often, seldom = launch(lambda: (letters_on_ranks(1), letters_on_ranks(20)), ranks=2)[0]
for name, (sent, loss) in (("every step", often), ("every 20th, DiLoCo", seldom)):
    print(f"{name:20} {sent:6.2f} MB handed to all_reduce, validation loss {loss:.2f} nats a letter")

# %% [markdown]
# ## 5. The price list
#
# Now all of them on one scale. Four replicas of the small network, 600 steps, the same letters; only what is sent
# differs. Bytes are those that one rank sends: a ring's $2\frac{N-1}{N}$ times the size where sums travel, $N-1$ times
# its own message where an all-gather does. Each way has **its own best learning rate**, found on another seed and by
# validation loss; five seeds; the loss reported is the test loss. Two optimizers: SGD with momentum, for which most of
# these methods were made, and Adam.
#
# Two controls. *Top 100 %* goes through the machinery and leaves nothing out: it must lose nothing. *Random 1 %* sends
# as many entries as *top 1 %*, but any, and keeps no residual: if it lost nothing either, importance would have nothing
# to do with it. (Any entries *with* feedback weren't tried.)
#
# The claim: compression (only important gradients, or low precision) saves bandwidth. Bytes are saved by construction.
# The question is whether training still arrives. A way is **free** if it sends at most half of the bytes and surely
# (95 % interval over seeds) loses less than 0.05 nats a letter against sending everything.
#
# **Before the run:** the claim is *correct* if with SGD both kinds have a way that is free (top 1 % with or without
# feedback; bfloat16 or int8), *imprecise* if only one kind has, *wrong* if neither.

# %% claim="D02.17"
from experiments.D02_17 import ADAM_TOO, COUNTS, IMPORTANT, LOW_PRECISION, RATES, STEPS, WAYS, fewer, free, lost

found = evidence("D02.17")
print(found.again())
by_rate = {way: [found.interval(f"{way}, SGD{also}", "loss").mean for also in (", slower", "")]
           for way in ("everything", "top 1 %, feedback")}
at_edge = sum(found.each(f"{way}, SGD", "rate")[0] == min(RATES["SGD"]) for way in WAYS)
print(f"{at_edge} of {len(WAYS)} ways chose SGD's lowest rate, {min(RATES['SGD'])}. At 0.03 instead:",
      "; ".join(f"{way} {slower:.2f} nats, not {chosen:.2f}" for way, (slower, chosen) in by_rate.items()))
STYLES = {
    "everything": (COLORS[6], "-"), "bfloat16": (COLORS[3], "--"), "int8": (COLORS[3], "-"),
    "top 1 %, feedback": (COLORS[0], "-"), "top 1 %": (COLORS[0], "--"), "random 1 %": (COLORS[0], ":"),
    "PowerSGD, feedback": (COLORS[2], "-"), "PowerSGD": (COLORS[2], "--"),
    "every 8th step": (COLORS[1], "--"), "DiLoCo, every 32nd": (COLORS[1], "-"),
}
fig, (left, right) = figure(1, 2, width=10.5, height=5.2, width_ratios=[1.15, 1])
for way, (color, style) in STYLES.items():
    curves = torch.tensor(found.each(f"{way}, SGD", "curve"))
    sent = torch.arange(1, curves.shape[1] + 1) / curves.shape[1] * STEPS * found.each(f"{way}, SGD", "bytes")[0] / 1e6
    left.plot(sent, curves.mean(0), style, color=color, label=way)
    left.plot(sent[-1], curves.mean(0)[-1], "o", color=color, markersize=5)
left.set(xscale="log", xlabel="sent by one rank so far, MB", ylabel="validation loss, nats a letter",
         title="SGD, on the way")
left.set_xticks([0.5, 1, 2, 5, 10, 20, 50, 100, 200], ["0.5", "1", "2", "5", "10", "20", "50", "100", "200"])
left.minorticks_off()
ways = [way for way in WAYS if way != "everything"]
for by, mark, shift, color in (("SGD", "o", -0.14, COLORS[0]), ("Adam", "D", 0.14, COLORS[1])):
    for i, way in enumerate(ways):
        if by == "SGD" or way in ADAM_TOO:
            cost = lost(found, way, by)
            right.plot([cost.low, cost.high], [i + shift] * 2, color=color, linewidth=2.5)
            right.plot(cost.mean, i + shift, mark, color=color, label=by if i == ways.index("PowerSGD") else None)
right.axvline(0, color="#888888", linewidth=1)
right.axvline(COUNTS, color="#444444", linestyle=":", label="what counts")
right.set_yticks(range(len(ways)), [f"{way}  ({round(fewer(found, way), 0 if fewer(found, way) > 1 else 1):g} ×)"
                                    for way in ways])
right.invert_yaxis()
right.set(xlabel="lost against everything, nats a letter", title="At the end (n ×: bytes saved)")
right.legend(loc="lower right")
handles, names = left.get_legend_handles_labels()
fig.legend(handles, names, loc="outside lower center", ncols=5)
kinds = {"of the largest entries": free(found, IMPORTANT, "SGD"), "of few digits": free(found, LOW_PRECISION, "SGD")}
no_cost = [way for way in ways if fewer(found, way) >= 2 and lost(found, way, "SGD").below(COUNTS)]
show(fig, alt="Left: validation loss against megabytes sent, ten ways. Right: what each way loses at the end against "
     "sending everything, with 95 % intervals: " + "; ".join(
         f"{way} {lost(found, way, 'SGD').mean:+.2f}" for way in ways) + " with SGD.",
     title=f"Free with SGD: {', '.join(no_cost) or 'nothing'}")
word = ("wrong", "imprecise", "correct")[sum(map(bool, kinds.values()))]
told = "; ".join(f"{kind}: {', '.join(names) or 'none'}" for kind, names in kinds.items())
pair = {by: " and ".join(lost(found, way, by).text("+.2f") for way in ("top 1 %, feedback", "top 1 %")) for by in RATES}
verdict("D02.17", word, f"With SGD, free {told}. Top 1 % with and without feedback loses {pair['SGD']} nats, with Adam "
        f"{pair['Adam']}.")

# %% [markdown]
# (A small network on letters, four replicas, and a short run: what a way costs in nats is this network's. DiLoCo has
# few rounds here for its momentum, and its outer rate wasn't searched. What a way sends in bytes is arithmetic, and
# holds for yours.)
#
# ## The price grows, or it doesn't
#
# An all-reduce of any size costs a rank less than twice its bytes, on however many ranks. An all-gather brings
# everybody's message to everybody: $N-1$ of them. So sparse gradients have an end. With $k$ of $n$ entries, 8 bytes
# each, they cost as much as a plain ring when $(N-1)\,8k = 2\frac{N-1}{N}\,4n$, that is at $N = n/k$ ranks.

# %% tags=["demo"]
n, ranks = 7_000_000_000, torch.logspace(0.31, 4, 80)
k, width = n // 100, 4096
steady = 2 * (ranks - 1) / ranks
narrow = n / width**2 * 2 * width * 4 * 4  # as many square matrices as it takes, rank 4, float32
costs = {
    "plain, float32": (steady * 4 * n, COLORS[6], "-"),
    "bfloat16": (steady * 2 * n, COLORS[3], "--"),
    "top 1 %, all-gather": ((ranks - 1) * 8 * k, COLORS[0], "-"),
    "PowerSGD, rank 4": (steady * narrow, COLORS[2], "-"),
    "DiLoCo, every 100th step": (steady * 4 * n / 100, COLORS[1], "-"),
}
meet = n / k
fig, ax = figure(width=8.5, height=3.8)
for name, (cost, color, style) in costs.items():
    ax.plot(ranks, cost / 1e9, style, color=color, label=name)
ax.axvline(meet, ymax=0.6, color="#888888", linestyle=":", linewidth=1)
ax.set(xscale="log", yscale="log", xlabel="ranks", ylabel="sent by one rank a step, GB", ylim=(0.02, 9000))
ax.set_xticks([2, 10, 100, 1000, 10000], ["2", "10", "100", "1,000", "10,000"])
ax.set_yticks([0.1, 1, 10, 100, 1000], ["0.1", "1", "10", "100", "1,000"])
ax.minorticks_off()
ax.legend(ncols=2, loc="upper left")
show(fig, alt="Gigabytes that a rank sends in a step against the number of ranks, computed for seven billion "
     f"parameters. The line of top 1 % rises with the ranks and crosses plain float32 at {meet:.0f}; others level off.",
     title=f"Top 1 % by all-gather sends less than a plain ring up to {meet:.0f} ranks")

# %% [markdown]
# ## What doesn't compress
#
# Two names always come up in this place: **gradient clipping** and **mixed precision**. The chapter on DDP has put them
# to the test. Here they are once more, beside hooks that torch brings along: bytes that DDP hands to all-reduce in one
# step of one model.

# %% tags=["demo"]
def one_step(kind):
    """Bytes of the all-reduces of a step. Those of PowerSGD run in another thread: torch counts them itself."""
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
    from torch.nn.parallel import DistributedDataParallel

    ddp = DistributedDataParallel(nn.Sequential(nn.Linear(96, 128), nn.Tanh(), nn.Linear(128, 32)))
    if kind == "fp16_compress_hook":
        ddp.register_comm_hook(None, default_hooks.fp16_compress_hook)
    state = powerSGD_hook.PowerSGDState(None, 2, start_powerSGD_iter=2)
    if kind == "powerSGD_hook, rank 2":
        ddp.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    for _ in range(3):  # PowerSGD starts with two plain steps
        with record_traffic() as messages, torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast, bfloat16"):
            loss = ddp(torch.randn(8, 96)).float().square().mean()
            loss.backward()
            if kind == "clip_grad_norm_":
                nn.utils.clip_grad_norm_(ddp.parameters(), 0.01)
        ddp.zero_grad()
    return 4 * state.compression_stats()[2] or sum(m.bytes for m in messages if m.op == "all_reduce")


HOOKS = ["plain", "clip_grad_norm_", "autocast, bfloat16", "fp16_compress_hook", "powerSGD_hook, rank 2"]
for kind, sent in zip(HOOKS, launch(lambda: list(map(one_step, HOOKS)), ranks=2)[0], strict=True):
    print(f"{kind:24} {sent:8,} bytes")

# %% [markdown]
# Clipping scales what has already arrived, and autocast leaves gradients as wide as their parameters. **Accumulation**
# saves rounds only under `no_sync()`, as that chapter shows. (There is a `bf16_compress_hook`, too. It wants NCCL, so
# without a GPU it isn't run here.)
#
# ## 6. Who waits for whom
#
# A synchronous step ends when the last message of the slowest rank has come. The others wait, and no profiler calls it
# waiting: it looks like a slow all-reduce. We let one of four ranks **sleep** a little longer than the others and watch
# the clock. Sleeping needs no core, so for once these seconds are real.
#
# The claim: work should be spread evenly, so that nobody waits. The same 0.48 seconds of work in all, twice: 0.12 on
# each of four ranks, or 0.24 on one and 0.08 on the others. Other programs can only make a step longer, so a repetition
# is the faster of two tries.
#
# **Before the run:** the claim is *correct* if over five repetitions the uneven step is surely longer (95 % interval of
# the difference above 0.05 s), *wrong* if it surely isn't (interval within ±0.05 s), else *imprecise*. Twice the work
# on every rank is the control for the clock. (That an all-reduce waits for the last rank is how it is made: it would be
# odd if *correct* didn't come out. The run says how much, and what it looks like.)

# %% claim="D02.14"
def steps_asleep(plans, repeats=5):
    """For each plan, repetition and try: seconds of this rank's own work, and until its all-reduce was over."""
    told = {name: [[] for _ in range(repeats)] for name in plans}
    for repeat in range(repeats):
        for name, works in [*plans.items()] * 2:
            dist.barrier()
            start = time.perf_counter()
            time.sleep(works[dist.get_rank()])
            worked = time.perf_counter()
            dist.all_reduce(torch.ones(1000))
            told[name][repeat].append((worked - start, time.perf_counter() - start))
    return told


PLANS = {"even": [0.12] * 4, "uneven": [0.08, 0.08, 0.24, 0.08], "even, twice the work": [0.24] * 4}
slept = launch(steps_asleep, PLANS, ranks=4)
took = {}  # name -> [ranks, repetitions, 2], of the faster try
for name in PLANS:
    tries = torch.tensor([rank[name] for rank in slept])
    faster = tries[..., 1].amax(0).argmin(1)
    took[name] = tries[:, torch.arange(len(faster)), faster]
whole = {name: t[..., 1].amax(0) for name, t in took.items()}
more = interval((whole["uneven"] - whole["even"]).tolist())
clock = interval((whole["even, twice the work"] - whole["even"]).tolist())

fig, axes = figure(1, 2, width=10.5, height=2.8, sharex=True, sharey=True)
for ax, name in zip(axes, ("even", "uneven"), strict=True):
    work, end = took[name].mean(1).unbind(-1)
    ax.barh(range(4), work, color=COLORS[0], label="works")
    ax.barh(range(4), end - work, left=work, color=COLORS[1], hatch="///", edgecolor="white",
            label="waits in all_reduce")
    ax.set(xlabel="seconds", yticks=range(4), title=f"{name}: {float(whole[name].mean()):.2f} s a step")
    ax.set_yticklabels([f"rank {r}" for r in range(4)])
axes[0].invert_yaxis()
handles, names = axes[1].get_legend_handles_labels()
fig.legend(handles, names, loc="outside lower center", ncols=2)
idle = {name: float(1 - (t[..., 0].sum(0) / (4 * t[..., 1].amax(0))).mean()) for name, t in took.items()}
step = {name: float(seconds.mean()) for name, seconds in whole.items()}
show(fig, alt=f"Bars of four ranks' seconds at work and waiting, twice. Even: {step['even']:.2f} s a step, "
     f"{idle['even']:.0%} of it idle. Uneven: {step['uneven']:.2f} s, {idle['uneven']:.0%} idle.",
     title=f"The same work: {step['even']:.2f} s where it is even, {step['uneven']:.2f} s where it isn't")
print(f"twice the work on every rank takes {clock.mean:.2f} s more")
verdict("D02.14", "correct" if more.above(0.05) else "wrong" if more.within(-0.05, 0.05) else "imprecise",
        f"The same work in all, dealt out unevenly: {more.text()} s longer, and {idle['uneven']:.0%} of the ranks' "
        f"time is waiting ({idle['even']:.0%} where it is even).")

# %% [markdown]
# ## A step on paper
#
# What would a real cluster do? DDP sends a bucket as soon as *all* ranks have it, one after the other over the same
# link, while the backward pass still runs. So two things hold a bucket back: its slowest rank, and the bucket before.
# For the trip itself take the ring's time from the chapter on all-reduce, with latency $\alpha$ and bandwidth $\beta$:
#
# $$\text{start}_b = \max\big(\max_r \text{ready}_{r,b},\ \text{end}_{b-1}\big), \qquad
# \text{end}_b = \text{start}_b + 2(N-1)\Big(\alpha + \frac{\text{size}_b}{N\beta}\Big)$$
#
# ### Exercise: when does each bucket travel?

# %% exercise="bucket_timeline"
def bucket_timeline(ready, sizes, alpha, beta):
    """When each gradient bucket is on its way, and how long each rank has nothing to do.

    ready: ready[r][b] is the time, in seconds, at which rank r has bucket b; at least one rank
           and one bucket. A later bucket may be ready before an earlier one.
    sizes: sizes[b], the bytes of bucket b
    alpha, beta: a message of m bytes takes alpha + m / beta seconds
    Buckets travel in their order, 0 first, one at a time: each starts when all ranks have it
    and the bucket before it has arrived. With n ranks it takes 2 * (n - 1) messages of
    sizes[b] / n bytes, one after the other; one rank alone needs no time.

    Returns (spans, waits): spans[b] = (start, end) of bucket b; waits[r] is the time from the
    latest of rank r's ready times to the end of the last bucket. Lists (or tuples) of floats.
    """
    ### BEGIN SOLUTION
    n, free, spans = len(ready), 0.0, []
    for b, size in enumerate(sizes):
        start = max(free, max(times[b] for times in ready))
        free = start + 2 * (n - 1) * (alpha + size / (n * beta))
        spans.append((start, free))
    return spans, [free - max(times) for times in ready]
    ### END SOLUTION

# %% check="bucket_timeline"
check(bucket_timeline)

# %% [markdown]
# Four ranks, eight buckets of 50 MB, a backward pass of 0.2 seconds, drawn by your function: on a good link, on one
# a tenth as fast, and with one rank 40 % slower.

# %% tags=["payoff"]
def backward(slow=1.0):
    return [[0.025 * (b + 1) * (slow if r == 2 else 1.0) for b in range(8)] for r in range(4)]


cases = {"10 GB/s": (backward(), 10e9), "1 GB/s": (backward(), 1e9),
         "10 GB/s, rank 2 is 40 % slower": (backward(1.4), 10e9)}
found = {name: bucket_timeline(ready, [50e6] * 8, 20e-6, beta) for name, (ready, beta) in cases.items()}
ends = {name: spans[-1][1] for name, (spans, _) in found.items()}
fig, axes = figure(3, 1, width=9, height=5.4, sharex=True)
for ax, (name, (spans, waits)) in zip(axes, found.items(), strict=True):
    for r, times in enumerate(cases[name][0]):
        ax.barh(r, max(times), color=COLORS[0], height=0.7, label="computes" if r == 0 else None)
        ax.barh(r, waits[r], left=max(times), color=COLORS[1], height=0.7, hatch="///", edgecolor="white",
                label="waits" if r == 0 else None)
    for b, (start, end) in enumerate(spans):
        ax.barh(4, end - start, left=start, color=COLORS[2], height=0.7, edgecolor="white",
                label="a bucket travels" if b == 0 else None)
    ax.set(yticks=range(5), title=f"{name}: {ends[name]:.2f} s")
    ax.set_yticklabels([*(f"rank {r}" for r in range(4)), "link"])
    ax.invert_yaxis()
axes[-1].set_xlabel("seconds")
handles, names = axes[0].get_legend_handles_labels()
fig.legend(handles, names, loc="outside lower center", ncols=3)
told = ", ".join(f"{name}: {end:.2f} s" for name, end in ends.items())
show(fig, alt=f"Three timelines of four ranks and the link between them. The step ends at: {told}.",
     title=f"A backward pass of 0.20 s; the step ends at {' / '.join(f'{end:.2f}' for end in ends.values())} s")
for name, (ready, beta) in cases.items():
    quarter = bucket_timeline(ready, [12.5e6] * 8, 20e-6, beta)[0][-1][1]
    print(f"{name:31} ends at {ends[name]:.3f} s, with a quarter of the bytes at {quarter:.3f} s")

# %% [markdown]
# The first is DDP as it should be: only the last bucket is seen. In the second look at the link, in the third at rank
# 2. Where would compression help? The printed lines try a quarter of the bytes in each.
#
# ## 7. Deal out the work, not the rows
#
# A rank may be slow because of its chip, or because it got more to do. A batch of texts dealt out by *rows* gives
# every rank as many texts, and some rank the long ones. So deal out by cost. A simple rule with a guarantee (Graham
# 1969): **the dearest piece first, each to the rank with the least so far**. Its fullest rank never has more than
# $\frac43 - \frac1{3N}$ times what the fullest has in the best possible dealing.
#
# ### Exercise: deal out the work

# %% exercise="balance_work"
def balance_work(costs, ranks):
    """Deal pieces of work out to ranks, the dearest first, each to the rank with the least.

    costs: list of positive numbers: what piece i costs; it may be empty
    ranks: number of ranks, at least 1
    Take the pieces from dear to cheap, equally dear ones in their order. Each goes to the rank
    whose pieces cost least in all so far; where several have the least, to the lowest rank.

    Returns a list of `ranks` lists of ints: the numbers of each rank's pieces, in the order in
    which it got them (empty where it got none). costs is not changed.

    Graham 1969, SIAM J. Appl. Math. 17(2).
    """
    ### BEGIN SOLUTION
    loads, dealt = [0] * ranks, [[] for _ in range(ranks)]
    for i in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        r = loads.index(min(loads))
        dealt[r].append(i)
        loads[r] += costs[i]
    return dealt
    ### END SOLUTION

# %% check="balance_work"
check(balance_work)

# %% [markdown]
# Speeches of Shakespeare, 64 in a step, on eight ranks. What do 30 steps cost, in letters that each step's fullest rank
# reads? Four ways: eight rows each, padded to the longest of the rank; the same without padding ("packed", texts end
# to end); **length bucketing**, where texts of similar length share a step, padded; and each step dealt out by your
# function, packed.

# %% tags=["payoff"]
speeches = [len(part) for part in shakespeare()[:600_000].split("\n\n") if part]


def in_eights(lengths):
    return [lengths[8 * r : 8 * (r + 1)] for r in range(8)]


def costs_of_30_steps(seed):
    """Letters that the fullest ranks read, four ways, as times what even ranks would read without padding."""
    some = torch.randperm(len(speeches), generator=torch.Generator().manual_seed(seed))[: 64 * 30].tolist()
    lengths = [speeches[i] for i in some]
    steps, alike = ([kind[64 * b : 64 * (b + 1)] for b in range(30)] for kind in (lengths, sorted(lengths)))
    return {
        "in turn, padded": sum(max(8 * max(mine) for mine in in_eights(step)) for step in steps),
        "in turn, packed": sum(max(sum(mine) for mine in in_eights(step)) for step in steps),
        "similar lengths a step, padded": sum(max(8 * max(mine) for mine in in_eights(step)) for step in alike),
        "your balance_work, packed": sum(
            max(sum(step[i] for i in mine) for mine in balance_work(step, 8)) for step in steps
        ),
    }, sum(lengths) / 8


drawn = [costs_of_30_steps(seed) for seed in range(5)]
bands = {name: interval([costs[name] / even for costs, even in drawn]) for name in drawn[0][0]}
fig, ax = figure(width=8.5, height=2.9)
for i, (name, band) in enumerate(bands.items()):
    ax.barh(i, band.mean, color=COLORS[2] if "your" in name else COLORS[0])
    ax.plot([band.low, band.high], [i, i], color="black", linewidth=1.5)
    ax.text(band.high + 0.1, i, f"{band.mean:.2f}", va="center")
ax.axvline(1, color="#444444", linestyle=":")
ax.set_yticks(range(4), list(bands))
ax.invert_yaxis()
ax.set(xlabel="letters on the fullest rank, times an even share", xlim=(0, max(b.high for b in bands.values()) * 1.12))
told = ", ".join(f"{name} {band.mean:.2f} ({band.text()})" for name, band in bands.items())
show(fig, alt="Bars of the fullest rank's load as a multiple of an even share, means of five draws and 95 % intervals: "
     f"{told}.",
     title=f"Packed, times an even share: {bands['in turn, packed'].text()} in turn, "
           f"{bands['your balance_work, packed'].text()} dealt out by cost")

# %% [markdown]
# (Letters stand for work here. A step of similar lengths is no random sample: shuffle the steps.) Two things to keep in
# mind:
#
# * Ranks now have different numbers of tokens, and a mean of their means is no mean. Weight each rank's loss by its
#   tokens, or divide sums by the global count.
# * Attention costs more than in proportion to the length: hand `balance_work` a cost such as $an + bn^2$, not letters.
#   Libraries that train on long answers (verl, for reinforcement learning) deal out by a cousin of your function, the
#   differencing method of Karmarkar and Karp.
#
# ## What you can say now
#
# * **Fewer bytes**: 16-bit gradients halve them, though large runs may keep the sums in float32 (Llama 3 did,
#   Grattafiori et al. 2024, arXiv:2407.21783). Top-k and PowerSGD send a few percent, and live on error feedback. Codes
#   of 8 bits are rounded by lot (or keep a residual), and take two hops instead of an all-reduce.
# * **What adds up on the way scales**: sums (bfloat16, PowerSGD, DiLoCo) cost a rank the same on a thousand ranks. What
#   must be gathered (top-k) grows with them.
# * **Less often**: local SGD and DiLoCo divide the bytes by $H$, and the rounds too, which no compression of a step
#   does. Streaming variants send a part of the parameters at a time, in few bits, while the next steps run (Douillard
#   et al. 2025, arXiv:2501.18512). A part of the gain is the outer Nesterov itself: it helps a single replica, too
#   (Kallusky et al. 2025, arXiv:2510.15830).
# * **Nobody waits**: overlap hides messages behind the backward pass; nothing hides a slow rank. Deal out by cost.
# * Clipping and autocast send the same bytes.
#
# Where the states, and not the messages, are too large, the next chapter cuts *them* apart: ZeRO and FSDP.
