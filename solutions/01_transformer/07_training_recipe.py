# ---
# jupyter:
#   course:
#     title: "The training recipe"
#     exercises: transformer.training_recipe
#     questions: [T07, T08]
# ---

# %% [markdown]
# # The training recipe
#
# Two people train the same model on the same text. One loss falls smoothly; the other jumps to infinity at step 900.
# The difference is rarely the architecture. It is a handful of small habits: how the learning rate starts and ends,
# what is clipped, what is computed in which precision, how a batch that doesn't fit is cut up.
#
# You build five of these habits here, and measure what each of them is good for: *faster* steps, *fewer* steps, less
# memory, or only peace of mind. Interview answers mix these up, so we ask each one for its receipt.

# %% tags=["setup"]
import math
import time

import torch
import torch.nn.functional as F
from torch import nn

from autograde import check
from labkit import COLORS, figure, shakespeare, show, smollm

# %% [markdown]
# ## Activations: smoother, and slower
#
# The notes recommend "more efficient activations (Swish, GELU), smoother than ReLU". Two claims in one sentence. The
# first picture is about *smooth*: GELU weighs its input with the normal distribution, $x\,\Phi(x)$, Swish (also called
# SiLU) with the sigmoid, $x\,\sigma(x)$. The second is about *efficient*: how long they take on four million numbers.

# %% claim="T07.8"
ACTIVATIONS = {
    "ReLU": F.relu,
    "SiLU (Swish)": F.silu,
    "GELU": F.gelu,
    "GELU, tanh form": lambda x: F.gelu(x, approximate="tanh"),
}
many = torch.randn(4_000_000, generator=torch.Generator().manual_seed(0))


def milliseconds(function, runs=15):
    """The fastest of some runs, so that other programs don't count."""
    took = []
    for _ in range(runs):
        start = time.perf_counter()
        function(many)
        took.append(time.perf_counter() - start)
    return 1_000 * min(took)


took = {name: milliseconds(function) for name, function in ACTIVATIONS.items()}
fig, (left, right) = figure(1, 2, width=9.6, height=3.4)
xs = torch.linspace(-4, 2, 300)
for (name, function), color, style in zip(list(ACTIVATIONS.items())[:3], COLORS, ["-", "--", ":"], strict=False):
    left.plot(xs, function(xs), color=color, linestyle=style, label=name)
left.set(xlabel="input", ylabel="output")
left.legend()
right.barh(list(took), list(took.values()), color=COLORS[5])
right.invert_yaxis()
right.set(xlabel="time for 4 million numbers (ms)")
slowest = max(took, key=took.get)
show(
    fig,
    alt="Left: three activation functions. ReLU has a corner at zero, the other two dip below zero and are smooth. "
    "Right: bars of their run times.",
    title=f"Smoother, yes. Cheaper, no: {slowest} takes {took[slowest] / took['ReLU']:.1f} times as long as ReLU",
)

# %% [markdown]
# **Imprecise**: no activation can be cheaper than ReLU, which only compares with zero. If Swish and GELU pay, then in
# the quality of what is learned. Today's models go one step further and *gate*: SwiGLU computes two projections and
# lets one decide how much of the other goes on (Shazeer 2020, arXiv:2002.05202):
#
# $$\mathrm{SwiGLU}(x) = \big(\mathrm{SiLU}(x W_g) \odot x W_u\big)\, W_d .$$
#
# Three matrices instead of two: to keep the number of parameters, the hidden width shrinks from $4d$ to
# $\tfrac{8}{3}d$.
#
# ## Exercise 1: SwiGLU

# %% exercise="swiglu"
def swiglu(x, w_gate, w_up, w_down):
    """The feed-forward part of LLaMA: a gated linear unit with SiLU, silu(s) = s * sigmoid(s).

    x:            floating-point tensor [..., d], with any number of leading (batch) dimensions
    w_gate, w_up: [hidden, d], as nn.Linear stores its weight, of the dtype of x
    w_down:       [d, hidden], likewise
    The gate's scores go through SiLU and are multiplied, entry by entry, with the up part.
    There are no biases. Scores may be large: nothing overflows.
    Returns a tensor of the shape and dtype of x; nothing that came in is changed, and gradients
    flow to x and to all three matrices.

    Shazeer 2020, arXiv:2002.05202, equation 6; Touvron et al. 2023, arXiv:2302.13971,
    section 2.2.
    """
    ### BEGIN SOLUTION
    gate = x @ w_gate.T
    return (gate * gate.sigmoid() * (x @ w_up.T)) @ w_down.T
    ### END SOLUTION


# %% check="swiglu"
check(swiglu)

# %% [markdown]
# Your SwiGLU in place of the real model's: SmolLM2 has 30 such layers. We replace one in the middle and compare.

# %% tags=["payoff"]
model, tokenizer = smollm()
prompt = tokenizer("The first rule of training is", return_tensors="pt")
mlp = model.model.layers[15].mlp
theirs = mlp.forward
with torch.no_grad():
    before = model(**prompt).logits
    mlp.forward = lambda x: swiglu(x, mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight)
    try:
        after = model(**prompt).logits
    finally:
        mlp.forward = theirs
print(f"largest difference of the logits: {(after - before).abs().max():.0e}")
print("next word, with yours:", repr(tokenizer.decode(after[0, -1].argmax())))
assert torch.allclose(after, before, atol=1e-2), "These are not the model's own answers: solve exercise 1 first."

# %% [markdown]
# ## A small laboratory
#
# For everything that follows we need a model that trains in a second: two layers, 64 wide, on letters of Shakespeare.
# One function trains it, with everything that we want to vary as a parameter.

# %% tags=["demo"]
D, N, ROWS, STEPS = 64, 48, 12, 80
text = shakespeare()
letters = sorted(set(text))
number = {letter: i for i, letter in enumerate(letters)}
data = torch.tensor([number[letter] for letter in text[:600_000]])
training, held = data[:550_000], data[550_000:]


class Gated(nn.Module):
    """SwiGLU with as many parameters as a plain MLP of width 4d."""

    def __init__(self):
        super().__init__()
        self.gate, self.up = nn.Linear(D, 8 * D // 3, bias=False), nn.Linear(D, 8 * D // 3, bias=False)
        self.down = nn.Linear(8 * D // 3, D, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


def plain(activation):
    return nn.Sequential(nn.Linear(D, 4 * D, bias=False), activation, nn.Linear(4 * D, D, bias=False))


class Layer(nn.Module):
    """Pre-norm attention with four heads, and the feed-forward part that it is given."""

    def __init__(self, mlp):
        super().__init__()
        self.norm1, self.norm2, self.mlp = nn.LayerNorm(D), nn.LayerNorm(D), mlp
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (12, -1)).transpose(1, 2).chunk(3, 1)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Small(nn.Module):
    """Letters [rows, n] in, scores of the next letter [rows, n, letters] out; n is at most N."""

    def __init__(self, mlp=Gated):
        super().__init__()
        self.letters, self.places = nn.Embedding(len(letters), D), nn.Embedding(N, D)
        self.layers = nn.Sequential(*(Layer(mlp()) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, len(letters), bias=False)

    def forward(self, ids):
        x = self.letters(ids) + self.places(torch.arange(ids.shape[1]))
        return self.head(self.norm(self.layers(x)))


def pieces(source, rows, generator):
    cut = source[torch.randint(0, len(source) - N - 1, (rows, 1), generator=generator) + torch.arange(N + 1)]
    return cut[:, :-1], cut[:, 1:]


def loss_of(model, ids, targets):
    return F.cross_entropy(model(ids).float().flatten(0, 1), targets.flatten())


UNSEEN = pieces(held, 96, torch.Generator().manual_seed(9))


def adamw(parameters, lr=1e-2):
    return [torch.optim.AdamW(parameters, lr, weight_decay=0.0, fused=True)]


def train(seed=0, mlp=Gated, optimizers=adamw, share=lambda step: 1.0, half=False):
    """Train a new model: the training losses, and the loss on unseen text, in nats a letter.

    share: the part of the peak rate that is used in a step. half: bfloat16 where autocast thinks it is safe.
    """
    torch.manual_seed(seed)
    model, generator, losses = Small(mlp), torch.Generator().manual_seed(seed), []
    chosen = optimizers(list(model.parameters()))
    groups = [group for optimizer in chosen for group in optimizer.param_groups]
    peaks = [group["lr"] for group in groups]
    for step in range(STEPS):
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * share(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = loss_of(model, *pieces(training, ROWS, generator))
        model.zero_grad()
        loss.backward()
        for optimizer in chosen:
            optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        return losses, loss_of(model, *UNSEEN).item()


def smoothed(runs):
    """The training loss of some runs, averaged over them and over 5 steps: the first value belongs to step 5."""
    return torch.tensor([losses for losses, _ in runs]).mean(0).unfold(0, 5, 1).mean(-1)


def unseen(runs):
    """The mean loss of some runs on unseen text."""
    return sum(end for _, end in runs) / len(runs)


def half_cosine(step):
    """The share of the rate that falls from 1 to 0 along half a cosine."""
    return (1 + math.cos(math.pi * step / STEPS)) / 2


MLPS = {"ReLU": lambda: plain(nn.ReLU()), "GELU": lambda: plain(nn.GELU()), "SwiGLU": Gated}
quality = {name: [train(seed, mlp, share=half_cosine)[1] for seed in range(3)] for name, mlp in MLPS.items()}
sizes = {name: sum(p.numel() for p in mlp().parameters()) for name, mlp in MLPS.items()}
fig, ax = figure(width=8, height=2.8)
for row, (found, marker) in enumerate(zip(quality.values(), "osD", strict=True)):
    ax.scatter(found, [row] * 3, color=COLORS[row], marker=marker, s=60)
ax.set_yticks(range(3), [f"{name}\n{sizes[name]:,} weights" for name in MLPS])
ax.set(xlabel=f"loss on unseen text after {STEPS} steps (nats a letter), three seeds", ylim=(-0.5, 2.5))
ax.invert_yaxis()
means = {name: sum(found) / 3 for name, found in quality.items()}
width = max(max(found) - min(found) for found in quality.values())
gained = means["ReLU"] - means["SwiGLU"]
show(
    fig,
    alt="Three dots each: the loss on unseen text with ReLU, GELU and SwiGLU at the same number of weights.",
    title=f"SwiGLU's mean is {gained:.3f} nats below ReLU's; seeds of one kind differ by up to {width:.3f}",
)

# %% [markdown]
# Compare the gain with the distance between seeds before you believe in it. In a large model a few hundredths of a nat
# are worth a lot of money; Shazeer, who set five gated layers against three plain ones, offers no explanation and
# attributes their success, "as all else, to divine benevolence".
#
# ## Warm-up and decay
#
# The learning rate is not one number but a plan. It starts near zero, rises for a while, and then falls. Most plans of
# the last years are a line up and half a cosine down:
#
# $$\eta_t = \begin{cases}\eta_{\max}\, t/w & t < w\\[2pt]
# \eta_{\min} + \tfrac12(\eta_{\max}-\eta_{\min})\left(1+\cos \pi\frac{t-w}{T-w}\right) & t \ge w\end{cases}$$
#
# What is the start good for? Adam divides by an average of squared gradients that it hardly knows in its first steps,
# and a fresh model's gradients are at their wildest. We try two peak rates, with and without a warm-up.

# %% claim="T08.1"
PEAKS, WARMUP = (1e-2, 1.2e-1), 30
PLANS = {"no warm-up": lambda step: 1.0, f"{WARMUP} steps of warm-up": lambda step: min(1.0, (step + 1) / WARMUP)}


def at_peak(peak):
    return lambda parameters: adamw(parameters, peak)


races = {
    (name, peak): [train(seed, optimizers=at_peak(peak), share=share) for seed in range(2)]
    for name, share in PLANS.items()
    for peak in PEAKS
}
fig, axes = figure(1, 2, width=9.4, height=3.6, sharey=True)
for ax, peak in zip(axes, PEAKS, strict=True):
    for name, color, style in zip(PLANS, (COLORS[1], COLORS[0]), ("--", "-"), strict=True):
        for losses, _ in races[name, peak]:
            ax.plot(losses, color=color, linestyle=style, linewidth=1.4, label=name)
    ax.set(title=f"peak rate {peak:g}", xlabel="step", ylim=(2.2, 6))
axes[0].set_ylabel("training loss (nats a letter)")
handles, labels = axes[0].get_legend_handles_labels()
axes[1].legend(handles[::2], labels[::2])
without, with_warmup = PLANS
gain = {peak: unseen(races[without, peak]) - unseen(races[with_warmup, peak]) for peak in PEAKS}
show(
    fig,
    alt="Training curves with and without warm-up at two peak rates, two seeds each. At the low rate they end alike; "
    "at the high rate those without warm-up stay far above.",
    title="What warm-up gains (nats): " + ", ".join(f"{gain[peak]:+.2f} at peak {peak:g}" for peak in PEAKS),
)

# %% [markdown]
# So a warm-up doesn't speed anything up by itself. It makes high rates *survivable*, and a low rate can do without it.
# The bank's "warm-up and decay" is **correct** as a habit; ask the speaker for the reason. Post-norm models need it
# most (Xiong et al. 2020, arXiv:2002.04745; try it in the chapter on normalisation), pre-norm models like ours less.
#
# And the end? A high rate keeps jumping across the valley; falling rates let it settle.

# %% claim="T07.10"
settled = {
    "constant": [end for _, end in races["no warm-up", PEAKS[0]]],
    "cosine to zero": quality["SwiGLU"][:2],
}
for name, found in settled.items():
    print(f"{name:16} unseen text, two seeds: " + ", ".join(f"{end:.3f}" for end in found))
print(f"the decay gains {sum(settled['constant']) / 2 - sum(settled['cosine to zero']) / 2:.3f} nats on average")

# %% [markdown]
# ## Exercise 2: the plan

# %% exercise="warmup_cosine_lr"
def warmup_cosine_lr(step, peak, warmup, total, floor=0.0):
    """The learning rate of a step: a linear warm-up, then half a cosine down to the floor.

    step:   number of the step, an int from 0 on; steps may be asked for in any order
    peak:   the highest rate, a float; it is reached at step `warmup`
    warmup: steps of warm-up, an int of at least 0. Before step `warmup` the rate is
            peak * step / warmup: 0 at step 0
    total:  the step at which the floor is reached, an int greater than `warmup`
    floor:  the last rate, a float from 0 to peak. From step `total` on, however far, the rate
            stays there
    Returns the rate: a float, or a tensor of no dimension.

    Loshchilov, Hutter 2016, arXiv:1608.03983, equation 5 (one period); the warm-up as in
    transformers.get_cosine_with_min_lr_schedule_with_warmup.
    """
    ### BEGIN SOLUTION
    if step < warmup:
        return peak * step / warmup
    progress = min((step - warmup) / (total - warmup), 1.0)
    return floor + (peak - floor) * (1 + math.cos(math.pi * progress)) / 2
    ### END SOLUTION


# %% check="warmup_cosine_lr"
check(warmup_cosine_lr)

# %% [markdown]
# Beside the library's plan. Look at what happens past the last planned step, when somebody trains a little longer.

# %% tags=["payoff"]
from transformers import get_cosine_schedule_with_warmup

steps = range(140)
mine = [warmup_cosine_lr(step, 1.0, 20, 100) for step in steps]
library = get_cosine_schedule_with_warmup(torch.optim.SGD([torch.zeros(1)], lr=1.0), 20, 100).lr_lambdas[0]
theirs = [library(step) for step in steps]
fig, ax = figure(width=8.5, height=3.2)
ax.plot(steps, theirs, color=COLORS[1], linestyle="--", label="transformers")
ax.plot(steps, mine, color=COLORS[0], label="yours")
ax.axvline(100, color="#777777", linestyle=":")
ax.text(101, 0.9, "planned end", fontsize=9)
ax.set(xlabel="step", ylabel="share of the peak rate")
ax.legend()
show(
    fig,
    alt="Two learning rate plans. They coincide up to step 100. Yours then stays at zero, the library's rises again.",
    title=f"40 steps past the plan: yours is at {mine[-1]:.2f}, the library's at {theirs[-1]:.2f} and rising",
)

# %% [markdown]
# ## Which optimizer?
#
# "Use the more advanced optimizer AdamW." Advanced over what? Adam with a penalty in the loss mixes the penalty with
# its own scaling; AdamW keeps them apart (you built both in the chapter on overfitting). Without any decay they are
# *the same* algorithm. And AdamW isn't the end: Muon, which makes the update of a matrix orthogonal, came in 2024 and
# is in torch.

# %% claim="T07.9"
def sgd(parameters):
    return [torch.optim.SGD(parameters, 0.3, momentum=0.9)]


def adam(parameters):
    return [torch.optim.Adam(parameters, 1e-2)]


def muon(parameters):
    """Muon for the matrices inside; AdamW for embeddings, norms and the head, as its author advises."""
    inner = [p for p in parameters if p.ndim == 2 and len(p) not in (len(letters), N)]
    chosen = {id(p) for p in inner}
    return [torch.optim.Muon(inner, 2e-2, weight_decay=0.0), *adamw([p for p in parameters if id(p) not in chosen])]


OPTIMIZERS = {"SGD with momentum": sgd, "Adam": adam, "AdamW": adamw, "Muon and AdamW": muon}
contest = {
    name: races["no warm-up", PEAKS[0]] if make is adamw else [train(seed, optimizers=make) for seed in range(2)]
    for name, make in OPTIMIZERS.items()
}
fig, ax = figure(width=8.8, height=3.8)
for (name, found), color, style in zip(contest.items(), COLORS, ("-.", "-", "--", ":"), strict=False):
    label = f"{name}: {unseen(found):.3f} on unseen text"
    ax.plot(range(5, STEPS + 1), smoothed(found), color=color, linestyle=style, label=label)
ax.set(xlabel="step", ylabel="training loss (nats a letter,\nmean of 5 steps and two seeds)", ylim=(2.2, 4.2))
ax.legend()
last = {name: unseen(found) for name, found in contest.items()}
show(
    fig,
    alt="Training curves of four optimizers: SGD with momentum, Adam, AdamW, and Muon with AdamW. Without decay "
    "Adam and AdamW coincide.",
    title=f"Without decay Adam and AdamW differ by {abs(last['Adam'] - last['AdamW']):.3f} nats; lowest of all: "
    f"{min(last, key=last.get)}",
)

# %% [markdown]
# **Imprecise**: AdamW is the default, and a good one, but "more advanced" it is over Adam only where there is decay.
# (One rate each, chosen by a short search, two seeds, eighty steps: this ranks nothing for good.)
#
# That also answers the vaguest line of the bank, "activations and optimizers speed up convergence": some do, by so
# much, on this task. Without the numbers the sentence is neither right nor wrong.

# %% claim="T08.3"
reach = max(last.values()) + 0.15
for name, found in contest.items():
    below = (smoothed(found) < reach).nonzero()
    when = f"after {int(below[0]) + 5} steps" if len(below) else "never"
    print(f"{name:18} training loss below {reach:.2f} {when}")

# %% [markdown]
# ## A batch that doesn't fit
#
# Large batches give quieter gradients, and need memory for the activations of every row. The way out: cut the batch
# into **micro-batches**, call `backward()` after each, and step once. `backward()` *adds* to `.grad`, so the sum
# collects itself. The notes say that this "reduces computation". We count multiplications and the bytes that wait for
# the backward pass, and add two other ways to save: recomputing (checkpointing) and half precision.

# %% claim="T07.13"
from torch.utils.checkpoint import checkpoint_sequential
from torch.utils.flop_counter import FlopCounterMode


def cost(parts=1, half=False, recompute=False):
    """Floating-point operations of one step of 32 rows, and the most bytes saved for backward at one time."""
    torch.manual_seed(0)
    model = Small()
    if recompute:
        model.layers.forward = lambda x: checkpoint_sequential(model.layers, 2, x, use_reentrant=False)
    most, ids_targets = 0, pieces(training, 32, torch.Generator().manual_seed(0))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    with FlopCounterMode(display=False) as counter:
        for ids, targets in zip(*(part.chunk(parts) for part in ids_targets), strict=True):
            seen = {}

            def keep(x, seen=seen):
                if x.untyped_storage().data_ptr() not in weights:
                    seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
                return x

            with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), torch.autocast(
                "cpu", torch.bfloat16, enabled=half
            ):
                loss = loss_of(model, ids, targets) / parts
            most = max(most, sum(seen.values()))
            loss.backward()
    return counter.get_total_flops(), most, [p.grad for p in model.parameters()]


WAYS = {"one batch of 32": {}, "4 micro-batches": {"parts": 4}, "recomputing": {"recompute": True},
        "bfloat16 (autocast)": {"half": True}}
costs = {name: cost(**options) for name, options in WAYS.items()}
fig, axes = figure(1, 2, width=9.8, height=3.2, sharey=True)
for ax, which, unit, label in ((axes[0], 0, 1e9, "work of a step (billion operations)"),
                               (axes[1], 1, 1e6, "saved for backward (MB)")):
    values = [found[which] / unit for found in costs.values()]
    bars = ax.barh(list(costs), values, color=COLORS[which])
    ax.bar_label(bars, fmt="%.2f", padding=3)
    ax.set(xlabel=label, xlim=(0, 1.2 * max(values)))
axes[0].invert_yaxis()
one, four = costs["one batch of 32"], costs["4 micro-batches"]
show(
    fig,
    alt="Bars of work and memory for one step. Four micro-batches need exactly the same work and about a quarter of "
    "the memory; recomputing needs more work; bfloat16 needs less memory.",
    title=f"Accumulation: {four[0] / one[0]:.0%} of the work, {four[1] / one[1]:.0%} of the memory",
)
apart = max((a - b).abs().max() for a, b in zip(one[2], four[2], strict=True))
print(f"the gradients agree to {apart:.0e}")

# %% [markdown]
# **Wrong**: the work is the same to the last multiplication. What falls is the memory for activations. (With equal
# micro-batches, as here, the average of the means is the mean. With padding it isn't, and for years libraries
# averaged the means all the same. Don't.)
#
# ## Exercise 3: accumulate

# %% exercise="accumulate_gradients"
def accumulate_gradients(model, batches):
    """The gradient of one big batch, from micro-batches, one at a time.

    model:   an nn.Module: model(ids) takes int64 [rows, n] and gives logits [rows, n, classes]
    batches: list of (ids, targets), both int64 [rows, n]; rows and n may differ between
             micro-batches. targets[r, i] is the class for logits[r, i], shifted already. One of
             -100 is padding and doesn't count. A micro-batch may be padding only; at least one
             target in the list counts
    Afterwards .grad of every parameter is the gradient of the mean cross-entropy over all
    tokens that count, in all micro-batches together; what was in .grad before is discarded. The
    graph of a micro-batch is freed before the next one is run: call backward after each. The
    weights are left alone, and so is the model's mode (train or eval).
    Returns that mean loss, in nats: a float, or a tensor of no dimension.

    The same as one batch of all the tokens,
    torch.nn.functional.cross_entropy(…, ignore_index=-100).
    """
    ### BEGIN SOLUTION
    tokens = sum(int((targets != -100).sum()) for _, targets in batches)
    model.zero_grad()
    total = 0.0
    for ids, targets in batches:
        logits = model(ids).flatten(0, 1)
        loss = F.cross_entropy(logits, targets.flatten(), reduction="sum") / tokens
        loss.backward()
        total += loss.item()
    return total
    ### END SOLUTION


# %% check="accumulate_gradients"
check(accumulate_gradients)

# %% [markdown]
# ## Exercise 4: clipping
#
# Now and then a batch has a gradient ten times as long as the others. One step with it, and the work of an hour is
# gone. Clipping makes long gradients shorter and leaves their direction: with $g$ all gradients as one long vector,
#
# $$g \leftarrow g \cdot \min\left(1, \frac{c}{\|g\|}\right).$$

# %% exercise="clip_grad_norm"
def clip_grad_norm(gradients, max_norm):
    """Shorten gradients whose common length is above a limit.

    gradients: list of floating-point tensors of any shapes (one dtype), or None for a parameter
               that took no part; at least one is a tensor. All values are finite
    max_norm:  the longest length that is allowed, a float above 0
    The length is the root of the sum of all squares, over all tensors together. Where it is
    above max_norm, all are multiplied by max_norm / length (adding 1e-6 to the length, as torch
    does, is allowed); else they stay as they are.
    Returns (clipped, length): a list with the same dtypes, and None where None was, and the
    length *before* the clipping, a float or a tensor of no dimension. Nothing that came in is
    changed.

    Pascanu et al. 2012, arXiv:1211.5063, algorithm 1; torch.nn.utils.clip_grad_norm_.
    """
    ### BEGIN SOLUTION
    live = [gradient for gradient in gradients if gradient is not None]
    length = torch.stack([gradient.norm() for gradient in live]).norm()
    factor = (max_norm / (length + 1e-6)).clamp(max=1.0)
    return [None if gradient is None else gradient * factor for gradient in gradients], length
    ### END SOLUTION


# %% check="clip_grad_norm"
check(clip_grad_norm)

# %% [markdown]
# ## Half precision: what does it buy?
#
# Mixed precision computes most products in 16 bits. "Saves memory", say the notes, and list it under what "speeds up
# convergence". Three questions, then: which memory, how many bytes a parameter, and does the loss fall in fewer steps?

# %% claim="T07.11"
def state_bytes(half):
    """Bytes a parameter after one step: weights, gradients, and Adam's two moments."""
    torch.manual_seed(0)
    model = Small()
    optimizer = torch.optim.AdamW(model.parameters())
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        loss = loss_of(model, *pieces(training, 2, torch.Generator().manual_seed(0)))
    loss.backward()
    optimizer.step()
    weights = list(model.parameters())
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    kept = [*weights, *(weight.grad for weight in weights), *moments]
    return sum(x.nbytes for x in kept) / sum(weight.numel() for weight in weights)


print(f"state, float32:            {state_bytes(False):.1f} bytes a parameter")
print(f"state, bfloat16 autocast:  {state_bytes(True):.1f} bytes a parameter")
print(f"saved activations:         {one[1] / 1e6:.2f} MB and {costs['bfloat16 (autocast)'][1] / 1e6:.2f} MB")

# %% [markdown]
# **Outdated**, twice. The weights, gradients and moments need the same 16 bytes: only *activations* shrink. (The
# classic recipe with a float16 copy of the weights comes to 16 as well: 2 + 2 + 4 + 4 + 4; Rajbhandari et al. 2019,
# arXiv:1910.02054, section 3.1.) And since GPUs know bfloat16, few people still train in FP16; the largest runs use
# FP8.

# %% claim="T08.2"
full, other = races["no warm-up", PEAKS[0]]
smooth = [smoothed([run]) for run in (full, train(0, half=True), other)]
fig, ax = figure(width=8.5, height=3.5)
for curve, color, style, name in zip(smooth, (COLORS[0], COLORS[1], "#999999"), ("-", "--", ":"),
                                     ("float32", "bfloat16 autocast", "float32, another seed"), strict=True):
    ax.plot(range(5, STEPS + 1), curve, color=color, linestyle=style, label=name)
ax.set(xlabel="step", ylabel="training loss\n(nats a letter, mean of 5)", ylim=(2.2, 4.2))
ax.legend()
gap, usual = (float((smooth[0] - curve).abs().mean()) for curve in smooth[1:])
show(
    fig,
    alt="Training loss against the step in float32 and in bfloat16, which coincide, and in float32 with another seed.",
    title=f"Step for step the same loss: {gap:.4f} nats apart on average, another seed {usual:.3f}",
)

# %% [markdown]
# **Wrong**, then: mixed precision makes *steps* cheaper where the hardware has units for it. It doesn't make fewer of
# them.
#
# ## What FP16 needs: a scale
#
# bfloat16 has the range of float32. FP16 hasn't: below $2^{-25} \approx 3\cdot10^{-8}$ a number becomes zero. The
# backward pass begins with small numbers: the gradient of a mean loss for one score is $(p - y)/n$, and most words
# have hardly any probability. How small is that in a real model? We look at the first gradient that SmolLM2's
# backward pass makes.

# %% tags=["demo"]
model, tokenizer = smollm()
ids = tokenizer(text[40_000:40_600], return_tensors="pt").input_ids
with torch.no_grad():
    scores = model(ids[:, :-1]).logits.flatten(0, 1)
scores.requires_grad_(True)
F.cross_entropy(scores, ids[:, 1:].flatten()).backward()
sizes = scores.grad.abs().flatten()

SCALE = 2.0**16
sample = sizes[sizes > 0][::50].log2()
fig, ax = figure(width=8.8, height=3.6)
bins = torch.arange(-65, 14).tolist()
ax.hist(sample, bins, color=COLORS[1], alpha=0.75, label="as they are")
ax.hist(
    sample + math.log2(SCALE), bins, color=COLORS[0], alpha=0.6, hatch="//", edgecolor="white",
    label=f"with the loss times {SCALE:,.0f}",
)
ax.axvline(-25, color="black", linestyle=":")
ax.set_ylim(0, 1.25 * ax.get_ylim()[1])
ax.text(-25.6, 0.96 * ax.get_ylim()[1], "FP16: zero", fontsize=9, ha="right", va="top")
ax.text(-24.4, 0.96 * ax.get_ylim()[1], "FP16: kept", fontsize=9, ha="left", va="top")
ax.set(xlabel="log2 of the gradient's absolute value", ylabel="scores in the sample")
ax.legend(loc="upper left", bbox_to_anchor=(0.0, 0.9))
lost, kept = (float(((sizes * factor).half() == 0).double().mean()) for factor in (1.0, SCALE))
show(
    fig,
    alt="Histogram of gradient sizes at the scores, on a logarithmic axis, before and after scaling the loss, with a "
    "line where FP16 underflows to zero. Scaling moves the histogram to the right, most of it across the line.",
    title=f"In FP16 {lost:.0%} of these gradients would be zero; with a scale {kept:.0%}",
)

# %% [markdown]
# Multiply the *loss* by a large number, and the chain rule multiplies every gradient. Before the step, divide again,
# in float32. How large? As large as goes well: if an infinity appears, the step is skipped and the scale halved;
# after many clean steps in a row it is doubled. (A fixed scale and the skipped step are Micikevicius et al. 2017,
# arXiv:1710.03740, section 3.2; halving and doubling is how torch's `GradScaler` goes on from there.)
#
# ## Exercise 5: the loss scaler

# %% exercise="grad_scaler_step"
def grad_scaler_step(
    scaled, scale, good_steps, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000
):
    """Unscale gradients, look for an overflow, and choose the next scale.

    scaled:          list of float16 or float32 tensors: the gradients of loss * scale
    scale:           the scale that was used, a float above 0
    good_steps:      clean steps in a row since the scale last changed, an int from 0 to
                     growth_interval - 1
    growth_factor:   a float above 1. backoff_factor: a float between 0 and 1
    growth_interval: an int of at least 1
    Returns (gradients, new_scale, new_good_steps):
      any entry of any tensor in scaled is infinite or NaN: (None, scale * backoff_factor, 0),
      and the caller skips the step;
      else gradients = [scaled / scale, …], computed and returned in float32, and this step
      counts as clean. If that makes growth_interval clean steps in a row:
      scale * growth_factor and 0, else the old scale and good_steps + 1.
    Nothing that came in is changed.

    Micikevicius et al. 2017, arXiv:1710.03740, section 3.2; torch.amp.GradScaler.
    """
    ### BEGIN SOLUTION
    if not all(bool(gradient.isfinite().all()) for gradient in scaled):
        return None, scale * backoff_factor, 0
    gradients = [gradient.float() / scale for gradient in scaled]
    if good_steps + 1 == growth_interval:
        return gradients, scale * growth_factor, 0
    return gradients, scale, good_steps + 1
    ### END SOLUTION


# %% check="grad_scaler_step"
check(grad_scaler_step)

# %% [markdown]
# Your scaler at work. A small regression, its forward and backward pass in real FP16, and targets so tiny that unscaled
# gradients vanish. The scale starts far too high on purpose. Dashed: the same training without any scale.

# %% tags=["payoff"]
g = torch.Generator().manual_seed(0)
inputs = torch.randn(256, 16, generator=g)
wanted = 3e-6 * inputs @ torch.randn(16, 1, generator=g)


def regress(start, adapt, steps=300):
    """Gradient descent with FP16 passes: the errors, relative to doing nothing, and the scales."""
    weight, scale, count, errors, scales = torch.zeros(16, 1), start, 0, [], []
    for _ in range(steps):
        small = weight.half().requires_grad_()
        error = (inputs.half() @ small - wanted.half()).float().square().mean()
        (error * scale).backward()
        gradients = [small.grad.float()]
        if adapt:
            gradients, scale, count = grad_scaler_step([small.grad], scale, count, growth_interval=100)
        if gradients is not None:
            weight = weight - 0.05 * gradients[0]
        errors.append(float((inputs @ weight - wanted).norm() / wanted.norm()))
        scales.append(scale)
    return errors, scales


errors, scales = regress(2.0**40, adapt=True)
alone, _ = regress(1.0, adapt=False)
fig, (left, right) = figure(1, 2, width=9.6, height=3.3)
left.plot(scales, color=COLORS[0])
left.set(xlabel="step", ylabel="scale of the loss")
left.set_yscale("log", base=2)
right.plot(alone, color=COLORS[1], linestyle="--", label="no scale")
right.plot(errors, color=COLORS[0], label="your scaler")
right.set(xlabel="step", ylabel="error (1 = nothing learnt)", ylim=(0, 1.1))
right.legend()
show(
    fig,
    alt="Left: the scale falls at first, halved at each overflow, then rises by a factor of two every hundred steps. "
    "Right: the error with the scaler falls to near zero, without a scale it stays higher.",
    title=f"After 300 steps: error {errors[-1]:.2f} with your scaler, {alone[-1]:.2f} without a scale",
)

# %% [markdown]
# ## The whole recipe
#
# Everything you wrote in one training: SwiGLU in the model, the plan for the rate, two micro-batches a step, clipping.
# It sees the same letters as the plain AdamW run above, whose unseen loss you had best beat.

# %% tags=["payoff"]
class Mine(Gated):
    def forward(self, x):
        return swiglu(x, self.gate.weight, self.up.weight, self.down.weight)


LIMIT = 0.5


def recipe(seed):
    """Train with all parts of the recipe: the losses, the gradients' lengths, the loss on unseen text."""
    torch.manual_seed(seed)
    model, g, losses, lengths = Small(Mine), torch.Generator().manual_seed(seed), [], []
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1, fused=True)
    for step in range(1, STEPS + 1):
        batch = (part.chunk(2) for part in pieces(training, ROWS, g))
        losses.append(float(accumulate_gradients(model, list(zip(*batch, strict=True)))))
        gradients, length = clip_grad_norm([p.grad for p in model.parameters()], LIMIT)
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        for group in optimizer.param_groups:
            group["lr"] = float(warmup_cosine_lr(step, 3e-2, 15, STEPS))
        optimizer.step()
        lengths.append(float(length))
    with torch.no_grad():
        return losses, lengths, loss_of(model, *UNSEEN).item()


mine = [recipe(seed) for seed in range(2)]
plain_ends = settled["constant"]
fig, (left, right) = figure(1, 2, width=9.6, height=3.4)
plain_losses, _ = races["no warm-up", PEAKS[0]][0]
left.plot(plain_losses, color=COLORS[1], linestyle="--", linewidth=1.2, label="AdamW, constant rate")
left.plot(mine[0][0], color=COLORS[0], linewidth=1.4, label="your recipe")
left.set(xlabel="step", ylabel="training loss (nats a letter)")
left.legend()
right.plot(mine[0][1], color=COLORS[2])
right.axhline(LIMIT, color="black", linestyle=":")
right.text(STEPS, LIMIT + 0.01, "clipped above", fontsize=9, ha="right", va="bottom")
right.set(xlabel="step", ylabel="length of the gradient", ylim=(0, None))
clipped = sum(length > LIMIT for length in mine[0][1])
show(
    fig,
    alt="Left: the training loss of your recipe and of AdamW at a constant rate. Right: the length of the gradient "
    "against the step, with the limit as a line.",
    title="Unseen text, two seeds each: yours "
    + " and ".join(f"{end:.2f}" for *_, end in mine)
    + ", plain "
    + " and ".join(f"{end:.2f}" for end in plain_ends)
    + f" nats; {clipped} of {STEPS} steps clipped",
)

# %% [markdown]
# ## The receipts
#
# | habit | fewer steps | cheaper steps | less memory |
# |---|---|---|---|
# | warm-up | no, but higher rates survive | | |
# | decay | better end | | |
# | SwiGLU | a little | no | |
# | AdamW instead of SGD | on Transformers mostly | no | no: two moments more |
# | accumulation | | no: the same work | activations |
# | recomputing | | no: more work | activations |
# | mixed precision | no | yes, with the hardware | activations |
# | clipping, loss scale | no, but it survives | | |
#
# Next: the same recipe, and everything else you have built, in a model that writes.
