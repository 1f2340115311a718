# ---
# jupyter:
#   course:
#     title: "The training recipe"
#     exercises: transformer.training_recipe
#     questions: [T07, T08]
#     needs: []
# ---

# %% [markdown]
# # The training recipe
#
# Two people train the same model on the same text. One loss falls smoothly; the other jumps to infinity at step 900.
# It need not be the architecture. There is a handful of small habits: how the learning rate starts and ends, what is
# clipped, what is computed in which precision, how a batch that doesn't fit is cut up.
#
# You build four of these habits here, and two feed-forward parts of today's largest models, and measure what each is
# good for: *faster* steps, *fewer* steps, less memory, or only peace of mind. Interview answers mix these up, so we ask
# each one for its receipt.
#
# One rule for the whole chapter: two ways are compared **each at its own best learning rate**, of those that were
# tried; where not, the text says so. A habit that only looks good at a rate that suits nobody else has earned nothing.

# %% tags=["setup"]
import functools
import math
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

from autograde import check
from labkit import COLORS, evidence, figure, give_back, shakespeare, show, smollm, verdict

# %% [markdown]
# ## Activations: what is smooth, what is cheap?
#
# The notes recommend "more efficient activations (Swish, GELU), smoother than ReLU". Two claims in one sentence. GELU
# weighs its input with the normal distribution, $x\,\Phi(x)$; Swish, also called SiLU, with the sigmoid,
# $x\,\sigma(x)$.
#
# *Smooth* we measure as the jump of the slope at zero. *Efficient* as the time for four million numbers on this
# processor, turn about with ReLU, so that a busy moment hits both. (Nothing here runs on a GPU. There such a step
# waits for memory, unless a compiler fuses it into its neighbors.)
#
# **Before the run:** the claim is *correct* if both are smoother and take at most 95 % of ReLU's time, *imprecise* if
# they are smoother and nothing more, *wrong* if not even that.

# %% claim="T07.8"
ACTIVATIONS = {"ReLU": F.relu, "SiLU (Swish)": F.silu, "GELU": F.gelu}
many = torch.randn(4_000_000, generator=torch.Generator().manual_seed(0))


def seconds(function):
    start = time.perf_counter()
    function(many)
    return time.perf_counter() - start


def jump(function, step=1e-4):
    """How much the slope changes at zero, from the left to the right."""
    at = torch.tensor([-step, 0.0, step], dtype=torch.float64)
    left, middle, right = function(at)
    return float((right - middle) - (middle - left)) / step


rounds = [{name: seconds(function) for name, function in ACTIVATIONS.items()} for _ in range(15)]
ratio = {name: statistics.median(took[name] / took["ReLU"] for took in rounds) for name in ACTIVATIONS}
jumps = {name: jump(function) for name, function in ACTIVATIONS.items()}
fig, (left, right) = figure(1, 2, width=9.6, height=3.4)
xs = torch.linspace(-4, 2, 300)
for (name, function), color, style in zip(ACTIVATIONS.items(), COLORS, ["-", "--", ":"], strict=False):
    left.plot(xs, function(xs), color=color, linestyle=style, label=f"{name}: slope jumps by {jumps[name]:.2f}")
left.set(xlabel="input", ylabel="output")
left.legend()
bars = right.barh(list(ratio), list(ratio.values()), color=COLORS[: len(ratio)])
right.bar_label(bars, fmt="%.2f", padding=3)
right.invert_yaxis()
right.set(xlabel="time, as a multiple of ReLU's", xlim=(0, 1.2 * max(ratio.values())))
others = [name for name in ACTIVATIONS if name != "ReLU"]
timed = " and ".join(f"{name} {ratio[name]:.2f}" for name in others)
show(
    fig,
    alt="Left: ReLU, SiLU and GELU as curves; their slopes jump at zero by "
    + ", ".join(f"{jumps[name]:.2f}" for name in ACTIVATIONS)
    + f". Right: bars of their time: {timed} times ReLU's.",
    title=f"Of ReLU's time here: {timed}",
)
smoother = all(abs(jumps[name]) < 0.01 < abs(jumps["ReLU"]) for name in others)
cheaper = all(ratio[name] <= 0.95 for name in others)
verdict(
    "T07.8",
    "correct" if smoother and cheaper else "imprecise" if smoother else "wrong",
    f"The slope jumps by {jumps['ReLU']:.2f} with ReLU and by "
    + " and ".join(f"{jumps[name]:.2f} with {name}" for name in others)
    + f". Time on this processor, as a multiple of ReLU's: {timed}.",
)

# %% [markdown]
# What Swish and GELU do for the quality of what is learned, we measure below. Today's models go one step further and
# *gate*: SwiGLU computes two projections and lets one decide how much of the other goes on (Shazeer 2020,
# arXiv:2002.05202):
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
# For what follows we need a model that trains in a second: two layers, 64 wide, on letters of Shakespeare. This one is
# for your own functions.

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

# %% [markdown]
# ## Many feed-forward parts, few at a time: experts
#
# In a plain layer two thirds of the weights lie in the feed-forward part, and every token passes through all of them. A
# **mixture of experts** (MoE) has $E$ such parts instead of one, and a **router**, a single matrix, that sends each
# token to $k$ of them. So weights grow with $E$, and the work of a token with $k$: DeepSeek-V3 has 671 billion weights,
# of which 37 billion work for a token (arXiv:2412.19437). Mixtral's way (Jiang et al. 2024, arXiv:2401.04088, section
# 2.1): softmax over the experts, keep the $k$ largest, divide them by their sum; these **gates** weight the $k$
# answers.
#
# A router can feed on itself: experts that are chosen learn, and are then chosen more. An **auxiliary loss** pulls
# against it. Of $f_e$, the share of tokens that have $e$ among their $k$, and $P_e$, the mean probability of $e$, it is
#
# $$E \sum_e f_e P_e ,$$
#
# which is $k$ if the load is even. Counting has no gradient; it goes through $P_e$ (Fedus et al. 2021,
# arXiv:2101.03961, equations 4 to 6). DeepSeek-V3 balances by a bias on the choice instead; the chapter on scaling out
# compares the two, and sends tokens to experts on other ranks.
#
# The loss is one layer's. transformers 5.23 adds up the counts of all layers first: four layers that each use a single
# expert, but another one each, count as balanced there. Ask layer by layer (a script in `findings/` shows both).
#
# ## Exercise 2: a mixture of SwiGLUs

# %% exercise="mixture_of_experts"
def mixture_of_experts(x, router, w_gate, w_up, w_down, k):
    """A layer of gated experts of which each token visits k, and the loss for an even load.

    x:            float32 or float64 tensor [..., d]: tokens, at least one leading dimension
    router:       [E, d]: expert e's score for a token is router[e] · x
    w_gate, w_up: [E, hidden, d], w_down: [E, d, hidden]: expert e is
                  w_down[e] @ (silu(w_gate[e] @ x) * (w_up[e] @ x)). All of the dtype of x
    k:            how many experts a token visits, an int from 1 to E
    Probabilities are a softmax of the E scores. The k largest, divided by their sum, are the
    gates of a token's k experts, and its result is the sum of their answers times their gates.
    Each expert computes the tokens that chose it, and no others; it may be none.

    Returns two tensors: the result, of the shape and dtype of x; and the balance loss, of x's
    dtype and without dimensions: E * sum over e of f_e * P_e, where f_e is the share of all
    tokens that have e among their k (these shares add up to k), and P_e the mean probability of
    e over all tokens. Tokens of all leading dimensions are counted together. Gradients of both
    flow to x and to the router, those of the result also to the experts.

    Jiang et al. 2024, arXiv:2401.04088, section 2.1; Fedus et al. 2021, arXiv:2101.03961,
    equations 4 to 6.
    """
    ### BEGIN SOLUTION
    rows = x.reshape(-1, x.shape[-1])
    probabilities = (rows @ router.T).softmax(-1)
    gates, chosen = probabilities.topk(k, dim=-1)
    gates = gates / gates.sum(-1, keepdim=True)
    out = torch.zeros_like(rows)
    for e in range(len(router)):
        token, place = (chosen == e).nonzero(as_tuple=True)
        gate = rows[token] @ w_gate[e].T
        answers = (gate * gate.sigmoid() * (rows[token] @ w_up[e].T)) @ w_down[e].T
        out = out.index_add(0, token, answers * gates[token, place, None])
    shares = torch.bincount(chosen.flatten(), minlength=len(router)) / len(rows)
    balance = len(router) * (shares.to(x.dtype) * probabilities.mean(0)).sum()
    return out.reshape(x.shape), balance
    ### END SOLUTION


# %% check="mixture_of_experts"
check(mixture_of_experts)

# %% [markdown]
# Your layer in the small model: eight experts, two for each token, each half as wide as the dense part, so that a token
# costs about as much work. Three models learn the same letters: dense, and experts without and with the balance loss
# (times 0.02). One seed and one rate, so look at what is counted and at the load rather than at the last digit of a
# loss.
#
# If you count operations yourself: on a CPU torch 2.13.0's `FlopCounterMode` gives attention 0, which `labkit.flops`
# mends (`findings/torch_flop_counter_sees_no_attention.sh` runs it). The mult-adds under a summary of torchinfo 1.8.0
# count each weight once a text, however many tokens it has (`findings/torchinfo_counts_one_token.sh` runs it).

# %% tags=["payoff"]
from labkit.flops import Flops

EXPERTS, HALF = 8, 4 * D // 3


class Experts(nn.Module):
    """A feed-forward part of your experts; keeps its last balance loss."""

    def __init__(self):
        super().__init__()
        for name, shape in {"router": (EXPERTS, D), "gate": (EXPERTS, HALF, D), "up": (EXPERTS, HALF, D),
                            "down": (EXPERTS, D, HALF)}.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape) / shape[-1] ** 0.5))

    def forward(self, x):
        out, self.balance = mixture_of_experts(x, self.router, self.gate, self.up, self.down, 2)
        return out


def learned(mlp, weight, steps=100):
    """A model, its loss on unseen text, and at each step the load of its first layer's busiest expert over the mean."""
    torch.manual_seed(0)
    model, g, peaks = Small(mlp), torch.Generator().manual_seed(0), []
    chosen = []
    if mlp is Experts:  # the router's own scores, seen from outside
        model.layers[0].mlp.register_forward_pre_hook(
            lambda part, given: chosen.append((given[0] @ part.router.T).detach().flatten(0, 1).topk(2).indices)
        )
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3, weight_decay=0.0)
    for _ in range(steps):
        loss = loss_of(model, *pieces(training, ROWS, g))
        extra = sum(layer.mlp.balance for layer in model.layers) if weight else 0.0
        optimizer.zero_grad()
        (loss + weight * extra).backward()
        optimizer.step()
        if chosen:
            load = torch.bincount(chosen.pop().flatten(), minlength=EXPERTS).float()
            peaks.append(float(load.max() / load.mean()))
    with torch.no_grad():
        return model, loss_of(model, *UNSEEN).item(), peaks


KINDS = {"dense": (Gated, 0.0), "experts": (Experts, 0.0), "experts, balanced": (Experts, 0.02)}
tried = {kind: learned(*how) for kind, how in KINDS.items()}
sizes, work = {}, {}
for kind, (model, _, _) in tried.items():
    with Flops() as counter, torch.no_grad():
        model.layers[0].mlp(torch.randn(4, N, D))
    sizes[kind] = sum(p.numel() for p in model.layers[0].mlp.parameters())
    work[kind] = counter.get_total_flops() / (4 * N)
    print(f"{kind:18} {sizes[kind]:8,} weights a part, {work[kind]:8,.0f} operations a token, unseen text "
          f"{tried[kind][1]:.2f} nats a letter")
fig, ax = figure(width=8.6, height=3.6)
for (kind, (_, _, peaks)), color, style in zip(list(tried.items())[1:], COLORS, ("--", "-"), strict=False):
    ax.plot(range(10, len(peaks) + 1), torch.tensor(peaks).unfold(0, 10, 1).mean(-1), color=color, linestyle=style,
            label=kind)
ax.axhline(1, color="#777777", linestyle=":")
ax.set(xlabel="training step", ylabel="busiest expert's load\n(times the mean, mean of 10)", ylim=(0.8, EXPERTS / 2))
ax.legend()
late = {kind: statistics.mean(peaks[-30:]) for kind, (_, _, peaks) in list(tried.items())[1:]}
show(
    fig,
    alt="The load of the first layer's busiest expert, with and without the balance loss; over the last thirty steps "
    + ", ".join(f"{kind} {peak:.1f}" for kind, peak in late.items()) + " times the mean.",
    title=f"{sizes['experts'] / sizes['dense']:.1f} times the weights, {work['experts'] / work['dense']:.1f} times the "
    f"work. Busiest expert: {late['experts']:.1f} times the mean, balanced {late['experts, balanced']:.1f}",
)

# %% [markdown]
# Look at the printed losses, too: have four times the weights bought anything after so few letters? An expert sees a
# quarter of the tokens in the mean, and has to learn from these. What mixtures gain was shown on long trainings (Fedus
# et al. 2021), and it takes memory: *all* experts have to lie in it, whoever works.

# %% [markdown]
# For verdicts it takes more runs than a notebook has seconds. `experiments/T08_1.py` trains a model of the same size
# several hundred times: every part of the recipe, at several peak rates, with five seeds. For each part the rate with
# the lowest loss on the *validation* text is taken, and the loss on the *test* text is what you see. First the
# feed-forward part, with as many weights in all four.

# %% tags=["demo"]
from experiments import T08_1 as recipes
from labkit.display import minus

found = evidence("T08.1")
print(found.again())
tried = {part: recipes.rates(part) for part in (*recipes.PLANS, *recipes.PARTS) if len(recipes.rates(part)) > 1}
at_edge = [part for part, rates in tried.items() if recipes.best_rate(found, part) in (rates[0], rates[-1])]
print(f"Best at the edge of the rates that were tried: {', '.join(at_edge) or 'nothing'}.")


def ends(part):
    """The test losses of a part at its best rate, one a seed."""
    return found.each(recipes.best(found, part), "test")


def dots(ax, parts):
    """One row of dots for each part: name in the figure -> name in the experiment."""
    for row, part in enumerate(parts.values()):
        ax.scatter(ends(part), [row] * len(ends(part)), color=COLORS[row % len(COLORS)], s=45)
        ax.plot([statistics.mean(ends(part))] * 2, [row - 0.3, row + 0.3], color="black", linewidth=1.2)
    labels = [f"{name}\nrate {recipes.best_rate(found, part):g}" for name, part in parts.items()]
    ax.set_yticks(range(len(parts)), labels)
    ax.invert_yaxis()
    ax.set(xlabel="loss on the test text (nats a letter)")


def told(gain):
    """A gain with its 95 % interval, with true minus signs."""
    return minus(f"{gain.mean:+.3f} ({gain.text('+.3f')})")


MLPS = {"ReLU": "decay", "SiLU": "SiLU", "GELU": "GELU", "SwiGLU": "SwiGLU"}
fig, ax = figure(width=8, height=3.2)
dots(ax, MLPS)
gained = {name: recipes.gain(found, part, "decay") for name, part in MLPS.items() if name != "ReLU"}
paying = [name for name, gain in gained.items() if gain.above(recipes.COUNTS)]
show(
    fig,
    alt="Dots for five seeds, the test loss with four feed-forward parts, each at its own best rate. Gains over ReLU: "
    + ", ".join(f"{name} {told(gain)}" for name, gain in gained.items()),
    title=f"More than {recipes.COUNTS} nats below ReLU for sure: {' and '.join(paying) or 'none of them'}",
)
for name, gain in gained.items():
    print(f"{name:7} gains over ReLU {told(gain)} nats a letter")

# %% [markdown]
# Compare each gain with the distance between seeds before you believe in it. In a large model a few hundredths of a nat
# are worth a lot of money; Shazeer, who set five gated layers against three plain ones, offers no explanation and
# attributes their success, "as all else, to divine benevolence".
#
# ## Warm-up and decay
#
# The learning rate is not one number but a plan. It starts near zero, rises for a while, and then falls. A common plan
# is a line up and half a cosine down:
#
# $$\eta_t = \begin{cases}\eta_{\max}\, t/w & t < w\\[2pt]
# \eta_{\min} + \tfrac12(\eta_{\max}-\eta_{\min})\left(1+\cos \pi\frac{t-w}{T-w}\right) & t \ge w\end{cases}$$
#
# What is the start good for? Adam divides by the root of an average of squared gradients, so its first steps have the
# size of the rate, whatever the gradient; and a fresh model may lie where the loss is sharp (Kalra, Barkeshli 2024,
# arXiv:2406.09405), where a short step does no harm. And the end? A high rate keeps jumping across the valley; a
# falling one lets the weights settle.
#
# Both are stories about *what rate is best*. So we draw the whole curve over peak rates, and compare the lowest points.
#
# **Before the run:** "warm-up and decay speed up convergence" is *correct* if each of the two, alone, at its own best
# rate, ends surely more than 0.01 nats below the constant rate after the same steps; *wrong* if the two together surely
# gain less than that; else *imprecise*.

# %% claim="T08.1"
PLANS = ("constant", "warm-up", "decay", "warm-up, decay")
fig, (left, right) = figure(1, 2, width=10.6, height=4)
for plan, color, mark in zip(PLANS, (COLORS[1], COLORS[3], COLORS[2], COLORS[0]), "sD^o", strict=True):
    losses = [found.each(recipes.arm(plan, rate), "test") for rate in recipes.RATES]
    left.plot(recipes.RATES, [statistics.mean(each) for each in losses], color=color, marker=mark, label=plan)
    low, high = ([pick(each) for each in losses] for pick in (min, max))
    left.fill_between(recipes.RATES, low, high, color=color, alpha=0.15, linewidth=0)
left.set(xlabel="peak rate", ylabel="loss on the test text (nats a letter)", xscale="log")
left.set_xticks(recipes.RATES, [f"{rate:g}" for rate in recipes.RATES])
left.minorticks_off()
left.legend()
dots(right, {plan: plan for plan in PLANS})
warm, fall = (recipes.gain(found, plan, "constant") for plan in ("warm-up", "decay"))
both = recipes.gain(found, "warm-up, decay", "constant")
highest = recipes.RATES[-1]
saved = found.interval(recipes.arm("constant", highest), "test", minus=recipes.arm("warm-up", highest))
show(
    fig,
    alt="Left: the test loss against the peak rate for four plans, mean and range of five seeds. Right: dots for the "
    f"five seeds at each plan's best rate. At its best rate warm-up gains {told(warm)}, decay {told(fall)}, both "
    f"{told(both)} nats over the constant rate.",
    title=f"At the best rate warm-up gains {warm.mean:+.3f} nats, decay {fall.mean:+.3f}; at {highest:g} warm-up "
    f"gains {saved.mean:+.2f}",
)
each = all(gain.above(recipes.COUNTS) for gain in (warm, fall))
verdict(
    "T08.1",
    "correct" if each else "wrong" if both.below(recipes.COUNTS) else "imprecise",
    f"Nats a letter below the constant rate, each at its own best rate: warm-up {told(warm)}, decay {told(fall)}, both "
    f"{told(both)}. At a peak of {highest:g} (the constant rate's best is {recipes.best_rate(found, 'constant'):g}) "
    f"warm-up gains {told(saved)}.",
)

# %% [markdown]
# Read the left picture once more: where do the curves part, and where does each have its lowest point? If at the edge
# of the rates (the line printed above names such parts), it may go on falling beyond. (Two pre-norm layers are a mild
# case. Depth and post-norm are the hard one; the chapter on normalization trains them with and without warm-up.)
#
# "Dynamic adjustment" stands in the notes as well. The usual form is `ReduceLROnPlateau`: it looks at the validation
# loss, here every 20 steps, and halves the rate when that hasn't fallen by 0.01. (The library's own
# threshold is a share of the value to be beaten. Numbers below zero, such as rewards or log-likelihoods, always pass it
# in torch 2.13.0, and the rate stays: give `threshold_mode="abs"` there.
# `findings/torch_plateau_is_not_seen_below_zero.sh` runs it.)
#
# **Before the run:** as a habit, "warm-up, decay, dynamic adjustment" is *correct* if the plan (warm-up and decay) and
# the plateau rule both end surely below the constant rate, each at its own best rate; *wrong* if one ends surely above
# it; else *imprecise*.

# %% claim="T07.10"
fig, ax = figure(width=8, height=2.8)
dots(ax, {"constant": "constant", "warm-up, decay": "warm-up, decay", "halved on a plateau": "plateau"})
planned, watched = (recipes.gain(found, plan, "constant") for plan in ("warm-up, decay", "plateau"))
show(
    fig,
    alt="Dots for five seeds: the test loss of a constant rate, of warm-up and decay, and of a rate that is halved on "
    f"a plateau. Gains over the constant rate: {told(planned)} and {told(watched)} nats.",
    title=f"Below the constant rate: the plan by {planned.mean:.3f} nats, the plateau rule by {watched.mean:.3f}",
)
habits = (planned, watched)
helped = all(gain.above(0) for gain in habits)
verdict(
    "T07.10",
    "correct" if helped else "wrong" if any(gain.below(0) for gain in habits) else "imprecise",
    f"Over the constant rate the plan gains {told(planned)}, the plateau rule {told(watched)} nats a letter.",
)

# %% [markdown]
# ## Exercise 3: the plan

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
    alt="Two learning rate plans over 140 steps, planned for 100. Of the peak rate, yours has "
    f"{mine[100]:.2f} at step 100 and {mine[-1]:.2f} at the end, the library's {theirs[100]:.2f} and {theirs[-1]:.2f}.",
    title=f"40 steps past the plan: yours is at {mine[-1]:.2f}, the library's at {theirs[-1]:.2f}",
)

# %% [markdown]
# ## Which optimizer?
#
# "Use the more advanced optimizer AdamW." Advanced over what? Adam with a penalty in the loss mixes the penalty with
# its own scaling; AdamW keeps them apart (you build both in the chapter on overfitting). Without any decay they are
# *the same* algorithm. And AdamW isn't the end: Muon, which makes the update of a matrix orthogonal, came in 2024 and
# is in torch. All four run along half a cosine, each at its own best rate. (Muon takes the matrices inside. Beside it
# AdamW has what is left, always with a peak of 0.01, which may not be the best.)
#
# **Before the run:** "use AdamW" is *correct* if AdamW with its decay ends surely more than 0.01 nats below SGD with
# momentum *and* below Adam without decay, and Muon not surely that far below AdamW; *wrong* if it ends surely above
# SGD; else *imprecise*.

# %% claim="T07.9"
OPTIMIZERS = {
    "SGD with momentum": "SGD with momentum",
    "Adam": "decay",
    "AdamW, decay 0.1": "AdamW, decay 0.1",
    "Muon and AdamW": "Muon and AdamW",
}
fig, (left, right) = figure(1, 2, width=10.6, height=3.8)
at = range(recipes.EVERY, recipes.STEPS + 1, recipes.EVERY)
for (name, part), color, style in zip(OPTIMIZERS.items(), COLORS, ("-.", "-", "--", ":"), strict=False):
    curves = torch.tensor(found.each(recipes.best(found, part), "curve"))
    left.plot(at, curves.mean(0), color=color, linestyle=style, label=name)
left.set(xlabel="step", ylabel="validation loss (nats a letter,\nmean of five seeds)")
left.legend()
dots(right, OPTIMIZERS)
over_sgd = recipes.gain(found, "AdamW, decay 0.1", "SGD with momentum")
over_adam = recipes.gain(found, "AdamW, decay 0.1", "decay")
muon = recipes.gain(found, "Muon and AdamW", "AdamW, decay 0.1")
show(
    fig,
    alt="Left: validation loss against the step for four optimizers. Right: dots for five seeds at the end. AdamW "
    f"gains {told(over_sgd)} over SGD and {told(over_adam)} over Adam; Muon gains {told(muon)} over AdamW.",
    title=f"AdamW gains {over_sgd.mean:.2f} nats over SGD, {over_adam.mean:.3f} over Adam; Muon {muon.mean:.3f} over "
    "AdamW",
)
beats = [gain.above(recipes.COUNTS) for gain in (over_sgd, over_adam)]
verdict(
    "T07.9",
    "correct" if all(beats) and not muon.above(recipes.COUNTS) else "wrong" if over_sgd.below(0) else "imprecise",
    f"AdamW's decay gains {told(over_adam)} nats over Adam and AdamW {told(over_sgd)} over SGD with momentum; Muon "
    f"gains {told(muon)} over AdamW.",
)

# %% [markdown]
# (Two hundred steps of one small model rank nothing for good.) The vaguest line of the notes, "activations and
# optimizers speed up convergence", can be put to the same runs.
#
# **Before the run:** it is *correct* if both kinds bring a gain that is surely above 0.01 nats after the same steps,
# one of the activations over ReLU and one of the optimizers over SGD with momentum; *imprecise* if only one kind does,
# *wrong* if none.

# %% claim="T08.3"
kinds = {
    "activations": {name: recipes.gain(found, part, "decay") for name, part in list(MLPS.items())[1:]},
    "optimizers": {
        name: recipes.gain(found, part, "SGD with momentum") for name, part in list(OPTIMIZERS.items())[1:]
    },
}
helps = {kind: [name for name, gain in each.items() if gain.above(recipes.COUNTS)] for kind, each in kinds.items()}
for kind, each in kinds.items():
    for name, gain in each.items():
        print(f"{kind:12} {name:18} {told(gain)}")
verdict(
    "T08.3",
    ("wrong", "imprecise", "correct")[sum(map(bool, helps.values()))],
    f"A sure gain after the same steps: of the activations {', '.join(helps['activations']) or 'none'} (over ReLU), of "
    f"the optimizers {', '.join(helps['optimizers']) or 'none'} (over SGD with momentum).",
)

# %% [markdown]
# ## A batch that doesn't fit
#
# Large batches give quieter gradients, and need memory for the activations of every row. The way out: cut the batch
# into **micro-batches**, call `backward()` after each, and step once. `backward()` *adds* to `.grad`, so the sum
# collects itself. The notes say that this "reduces computation". We count multiplications and the bytes that wait for
# the backward pass, and add two other ways to save. **Recomputing** (checkpointing) keeps what goes into a layer alone,
# and computes the layer once more when the backward pass gets there. (For a moment its activations are back then; these
# aren't in its bar.) Half precision: inside torch's **autocast** weights stay in float32, and most products are made in
# **bfloat16**, a format of 16 bits.
#
# **Before the run:** the claim is *correct* if four micro-batches take at least 1 % fewer operations than the one
# batch, *wrong* if not.

# %% claim="T07.13"
from torch.utils.checkpoint import checkpoint

from labkit.flops import Flops


def cost(parts=1, half=False, recompute=False):
    """Floating-point operations of one step of 32 rows, and the most bytes saved for backward at one time."""
    torch.manual_seed(0)
    model = Small()
    if recompute:
        for layer in model.layers:
            layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)
    ids_targets = pieces(training, 32, torch.Generator().manual_seed(0))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def step():
        model.zero_grad()
        most = 0
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
        return most

    with Flops() as counter:
        step()
    return counter.get_total_flops(), step(), [p.grad for p in model.parameters()]  # counting saves other bytes


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
    alt="Bars of work and memory for one step: "
    + "; ".join(f"{name} {x[0] / 1e9:.2f} billion operations, {x[1] / 1e6:.2f} MB" for name, x in costs.items()),
    title=f"Accumulation: {four[0] / one[0]:.0%} of the work, {four[1] / one[1]:.0%} of the memory",
)
apart = max((a - b).abs().max() for a, b in zip(one[2], four[2], strict=True))
verdict(
    "T07.13",
    "correct" if four[0] < 0.99 * one[0] else "wrong",
    f"Four micro-batches take {four[0] / one[0]:.0%} of the operations and {four[1] / one[1]:.0%} of the memory; the "
    f"gradients agree to {apart:.0e}.",
)

# %% [markdown]
# With equal micro-batches, as here, the average of the means is the mean. With padding it isn't, and until late 2024
# transformers' Trainer averaged the means all the same
# ([mended](https://github.com/huggingface/transformers/pull/34191) in October). Don't.
#
# ## Exercise 4: accumulate

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
# ## Exercise 5: clipping
#
# Now and then a batch has a gradient ten times as long as the others. One step with it, and the work of an hour may be
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
# Mind the type of the length: torch 2.13.0 takes it in that of the gradients. Above 65504 float16's is `inf`, and
# $c / \infty$ makes every gradient 0 without a word. Clip in float32, and after a scaled loss has been scaled back.
#
# ## Half precision: what does it buy?
#
# Mixed precision computes most products in 16 bits. "Use FP16: faster, and it saves memory", say the notes, and list it
# under what "speeds up convergence" as well. Three questions, then: which memory, which format, and does the loss fall
# in fewer steps? (Whether a step is *faster* is decided by the hardware's units for it. On this processor it may well
# be slower, so we claim nothing about time.)
#
# **Before the run:** the advice is *correct* if 16 bits save memory and bfloat16, without a loss scale, ends surely
# more than 0.01 nats above float32, so that FP16 is needed; it is *outdated* if they save memory and bfloat16 is surely
# no more than that behind; *imprecise* if the seeds can't tell, *wrong* if no memory is saved.

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


states = [state_bytes(half) for half in (False, True)]
waiting = [costs[name][1] / 1e6 for name in ("one batch of 32", "bfloat16 (autocast)")]
print(f"weights, gradients, moments: {states[0]:.1f} and, with bfloat16 autocast, {states[1]:.1f} bytes a parameter")
print(f"saved activations:           {waiting[0]:.2f} MB and {waiting[1]:.2f} MB")
behind = recipes.gain(found, "decay", "bfloat16")
less = states[1] < states[0] or waiting[1] < waiting[0]
verdict(
    "T07.11",
    "wrong" if not less else "correct" if behind.above(recipes.COUNTS) else
    "outdated" if behind.below(recipes.COUNTS) else "imprecise",
    f"bfloat16 without a scale ends {told(behind)} nats above float32. State: {states[0]:.0f} and {states[1]:.0f} "
    f"bytes a parameter; activations {waiting[0]:.1f} and {waiting[1]:.1f} MB.",
)

# %% [markdown]
# (The classic recipe with a float16 copy of the weights comes to 16 bytes as well: 2 + 2 + 4 + 4 + 4; Rajbhandari et
# al. 2019, arXiv:1910.02054, section 3.1. To save there takes another recipe: moments in bfloat16 or 8 bits, or Muon,
# which keeps one. And FP16 isn't dead: reinforcement learning of language models has come back to it for its finer
# fraction; Qi et al. 2025, arXiv:2510.26788.)
#
# Autocast leaves the weights wide, and well so. Where an embedding is held in bfloat16, torch 2.13 on a CPU adds up its
# gradient in bfloat16: a token that stands 4,096 times in the batch gets the gradient of 256, since 256 + 1 is 256
# there (a script in `findings/`).
#
# Now the steps. FP16 itself is in the race, with and without a loss scale (what that is comes next), at one rate only:
# the labels on the right tell whether it is float32's best.
#
# **Before the run:** "mixed precision speeds up convergence" is *correct* if bfloat16 or FP16 ends surely more than
# 0.01 nats *below* float32 after the same steps, *wrong* if all surely don't, *imprecise* if the seeds can't tell.

# %% claim="T08.2"
PRECISIONS = {
    "float32": "decay",
    "bfloat16": "bfloat16",
    "FP16, loss scaled": "float16, scaled",
    "FP16, not scaled": "float16, not scaled",
}
fig, (left, right) = figure(1, 2, width=10.6, height=3.6)
for (name, part), color, style in zip(PRECISIONS.items(), COLORS, ("-", "--", "-.", ":"), strict=False):
    curves = torch.tensor(found.each(recipes.best(found, part), "curve"))
    left.plot(at, curves.mean(0), color=color, linestyle=style, label=name)
left.set(xlabel="step", ylabel="validation loss (nats a letter,\nmean of five seeds)")
left.legend()
dots(right, PRECISIONS)
lower = {name: recipes.gain(found, part, "decay") for name, part in list(PRECISIONS.items())[1:]}
show(
    fig,
    alt="Left: validation loss against the step in four precisions. Right: dots for five seeds at the end. Gains over "
    "float32: " + ", ".join(f"{name} {told(gain)}" for name, gain in lower.items()),
    title="Below float32 at the end: "
    + ", ".join(f"{name} {gain.mean:+.3f}" for name, gain in lower.items()),
)
verdict(
    "T08.2",
    "correct" if any(gain.above(recipes.COUNTS) for gain in lower.values()) else
    "wrong" if all(gain.below(recipes.COUNTS) for gain in lower.values()) else "imprecise",
    f"Nats below float32 after the same steps: {', '.join(f'{name} {told(gain)}' for name, gain in lower.items())}.",
)

# %% [markdown]
# ## Does FP16 need a scale?
#
# bfloat16 has the range of float32. FP16 hasn't: below $2^{-25} \approx 3\cdot10^{-8}$ a number becomes zero. How small
# are the numbers of a real model's backward pass, and does it matter if they vanish? We look at the gradients that
# SmolLM2's backward pass hands from layer to layer (FP16 in a model that is held in FP16; under autocast only those
# inside the branches are) and ask two things: what *share of the numbers* would be zero, and what *share of the
# gradient's length* they carry.

# %% tags=["demo"]
give_back()
model, tokenizer = smollm()
ids = tokenizer(text[40_000:40_150], return_tensors="pt").input_ids
SCALE = 2.0**16
layers, sizes = {}, []


def watch(number):
    """A hook on the gradient of a layer's output: what FP16 would lose of it, without and with a scale."""

    def hook(gradient):
        gone = [float((gradient - (gradient * f).half().float() / f).norm() / gradient.norm()) for f in (1.0, SCALE)]
        zero = [float(((gradient * f).half() == 0).double().mean()) for f in (1.0, SCALE)]
        layers[number] = (*zero, *gone)
        sizes.append(gradient.abs().flatten()[::200])

    return hook


def hooked(number):
    def hook(module, inputs, output):
        (output[0] if isinstance(output, tuple) else output).register_hook(watch(number))

    return hook


hooks = [layer.register_forward_hook(hooked(number)) for number, layer in enumerate(model.model.layers)]
frozen = [p for p in model.parameters() if p.requires_grad]
for p in frozen:
    p.requires_grad_(False)  # only what flows between layers is looked at
try:
    embedded = model.get_input_embeddings()(ids[:, :-1]).requires_grad_(True)
    logits = model(inputs_embeds=embedded).logits
    F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
finally:
    for p in frozen:
        p.requires_grad_(True)
    for each in hooks:
        each.remove()
del embedded, logits
give_back(model)

lost = [[100 * layers[number][which] for number in sorted(layers)] for which in range(4)]
fig, (left, right) = figure(1, 2, width=10.6, height=3.6)
sample = torch.cat(sizes)
sample = sample[sample > 0].log2()
edges = torch.arange(int(sample.min()) - 1, int(sample.max()) + 18).tolist()
left.hist(sample, edges, color=COLORS[1], histtype="step", linewidth=1.6, label="as they are")
left.hist(sample + math.log2(SCALE), edges, color=COLORS[0], histtype="step", linewidth=1.6, linestyle="--",
          label=f"loss times {SCALE:,.0f}")
left.axvspan(edges[0], -25, color="black", alpha=0.08, linewidth=0, label="zero in FP16")
left.set(xlabel="log2 of the gradient's absolute value", ylabel="numbers in a sample\nof all layers")
left.legend(loc="upper left", fontsize=8.5)
left.set_ylim(0, 1.45 * left.get_ylim()[1])
for values, color, style, name in zip(lost, (COLORS[1], COLORS[0]) * 2, ("-", "-", ":", ":"),
                                      ("zero, no scale", "zero, scaled", "length lost, no scale",
                                       "length lost, scaled"), strict=True):
    right.plot(sorted(layers), values, color=color, linestyle=style, label=name)
top = max(map(max, lost))
right.set(xlabel="layer", ylabel="share (%)", ylim=(-0.03 * top, 1.5 * top))
right.legend(loc="upper center", ncols=2, fontsize=8.5)
middle = [values[len(values) // 2] for values in lost]
show(
    fig,
    alt="Left: histogram of gradient sizes between SmolLM2's layers before and after scaling the loss, the range "
    f"that is zero in FP16 shaded. Right, by layer: without a scale {middle[0]:.1f} % of the middle layer's "
    f"numbers are zero, {middle[2]:.2g} % of the length is lost; with a scale {middle[1]:.1f} and {middle[3]:.2g} %.",
    title=f"Middle layer in FP16: {middle[0]:.0f} % zeros and {middle[2]:.2g} % of the length lost; scaled "
    f"{middle[1]:.0f} % and {middle[3]:.2g} %",
)

# %% [markdown]
# Compare the solid lines with the dotted ones: zeros count the numbers, length weighs them, and the weights' gradients
# are sums of such numbers. How much is lost depends on the model, the batch (a mean over more tokens divides by more)
# and the layer, so the race above need not need what a longer, larger training does.

# %% [markdown]
# Multiply the *loss* by a large number, and the chain rule multiplies every gradient. Before the step, divide again,
# in float32. How large? As large as goes well: if an infinity appears, the step is skipped and the scale halved;
# after many clean steps in a row it is doubled. (A fixed scale and the skipped step are Micikevicius et al. 2017,
# arXiv:1710.03740, section 3.2; halving and doubling is how torch's `GradScaler` goes on from there.)
#
# ## Exercise 6: the loss scaler

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
# Your scaler at work. A small regression, its forward and backward pass in real FP16, and targets of a few millionths:
# the smaller the error, the nearer its gradients come to FP16's smallest number. The scale starts far too high on
# purpose. Dashed: the same training at the same rate without any scale. Where does it stop?

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
right.set(xlabel="step", ylabel="error (1 = nothing learned)", ylim=(0, 1.1))
right.legend()
show(
    fig,
    alt=f"Left: the scale against the step, on a logarithmic axis: from {scales[0]:.0e} to {scales[-1]:.0e}. Right: "
    f"the error, from 1, ends at {errors[-1]:.2f} with the scaler and {alone[-1]:.2f} without a scale.",
    title=f"After 300 steps: error {errors[-1]:.2f} with your scaler, {alone[-1]:.2f} without a scale",
)

# %% [markdown]
# ## Two memories: offload
#
# "Hybrid memory: GPU and CPU train at the same time." What is meant is **offloading** (ZeRO-Offload, Ren et al. 2021,
# arXiv:2101.06840): Adam's float32 numbers are needed once a step, so they can lie in the CPU's memory, and the CPU
# makes the step. Gradients go down, new weights come up. There is no GPU here, but what matters can be counted without
# one: which bytes lie where, how many cross the bus, and who does how much of the arithmetic. We run the small model
# that way, its weights and gradients in bfloat16 on the "device", all else on the "host". The figure sets a GPU of 400
# TFLOP/s ($4\cdot10^{14}$ operations a second) and a bus of 50 GB/s beside this processor.
#
# **Before the run:** *correct* if the device keeps under half of the bytes and the host does at least a tenth of the
# arithmetic; *imprecise* if only the bytes are shared; *wrong* if the device keeps half of them or more.

# %% claim="T07.14"
from torch.utils._python_dispatch import TorchDispatchMode


class CountNumbers(TorchDispatchMode):
    """How many numbers the operations inside compute: arithmetic, entry by entry."""

    total = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.is_floating_point():
            self.total += out.numel()
        return out


def offloaded(steps=20):
    """Losses, bytes on the device and on the host, bytes over the bus a step, operations of device and host a step."""
    torch.manual_seed(0)
    model, g, losses = Small().bfloat16(), torch.Generator().manual_seed(0), []
    weights = list(model.parameters())  # on the device
    masters = [weight.detach().float() for weight in weights]  # on the host
    optimizer = torch.optim.AdamW(masters, 4e-3, foreach=False)
    with Flops() as device:
        loss_of(model, *pieces(training, ROWS, torch.Generator().manual_seed(1))).backward()
    model.zero_grad()
    for _ in range(steps):
        loss = loss_of(model, *pieces(training, ROWS, g))
        loss.backward()
        down = sum(weight.grad.nbytes for weight in weights)
        for master, weight in zip(masters, weights, strict=True):
            master.grad = weight.grad.float()
        with CountNumbers() as host:
            optimizer.step()
        with torch.no_grad():
            for master, weight in zip(masters, weights, strict=True):
                weight.copy_(master)
        up = sum(weight.nbytes for weight in weights)
        on_device = sum(weight.nbytes + weight.grad.nbytes for weight in weights)
        model.zero_grad()
        losses.append(loss.item())
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    on_host = sum(x.nbytes for x in [*masters, *moments])
    return losses, (on_device, on_host), down + up, (device.get_total_flops(), host.total)


losses, lying, crossing, worked = offloaded()
count = sum(p.numel() for p in Small().parameters())
share, by_host = lying[0] / sum(lying), worked[1] / sum(worked)
many = torch.zeros(4_000_000, requires_grad=True)
many.grad = torch.ones_like(many)
host_adam, begun = torch.optim.AdamW([many], fused=True), []
for _ in range(4):
    begun.append(time.perf_counter())
    host_adam.step()
update = min(b - a for a, b in zip(begun, begun[1:], strict=False)) / len(many)
TOKENS, SPEED, BUS = [2**i for i in range(9, 20)], 400e12, 50e9
curves = {"GPU, forward and backward": [6 * tokens / SPEED for tokens in TOKENS],
          "over the bus": [crossing / count / BUS] * len(TOKENS),
          "update on this processor": [update] * len(TOKENS)}
fig, ax = figure(width=8.8, height=3.8)
for (name, values), color, style in zip(curves.items(), COLORS, ("-", "--", ":"), strict=False):
    ax.loglog(TOKENS, [1e9 * value for value in values], color=color, linestyle=style, label=name)
ax.set(xlabel="tokens a step on one GPU", ylabel="seconds a step\nfor a billion weights")
ax.legend()
enough = (crossing / count / BUS + update) * SPEED / 6
show(
    fig,
    alt="Seconds a step for a billion weights against tokens a step, on logarithmic axes: work on a GPU rises, the bus "
    f"takes {1e9 * crossing / count / BUS:.2f} and the update on this processor {1e9 * update:.2f} seconds whatever "
    "the batch.",
    title="At 400 TFLOP/s and 50 GB/s the host's part takes as long as the GPU's at "
    f"{enough / 1e3:.0f} thousand tokens a step",
)
print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f} in {len(losses)} steps; a step takes {crossing / count:.0f} bytes a "
      "parameter over the bus")
verdict(
    "T07.14",
    "wrong" if share >= 0.5 else "correct" if by_host >= 0.1 else "imprecise",
    f"The device keeps {lying[0] / count:.0f} of {sum(lying) / count:.0f} bytes a parameter, and the host does "
    f"{by_host:.2%} of the arithmetic of a step of {ROWS * N} tokens; more tokens, less.",
)

# %% [markdown]
# Without care the two processors don't even work at the same time: the host waits for gradients, the device for
# weights. What can overlap does: a layer's gradients go down while the next are computed, and ZeRO-Offload may delay
# the update by a step. Read the crossing of the lines for the price: with few tokens a step the GPU waits. (The speeds
# of GPU and bus are round numbers, since no GPU was at hand; the update is this processor's own, and servers have many
# cores. Where a GPU is, `fully_shard(…, offload_policy=CPUOffloadPolicy())` is torch's way.)
#
# ## The whole recipe
#
# A staircase: each step keeps what stands and adds one habit, and each has its own best rate. If a habit is worth its
# line of code *here*, its dots lie to the left of those above.

# %% tags=["demo"]
STAIRS = {
    "constant rate": "constant",
    "+ decay": "decay",
    "+ warm-up": "warm-up, decay",
    "+ clipping": "warm-up, decay, clipping",
}
fig, ax = figure(width=8, height=3.2)
dots(ax, STAIRS)
below = list(STAIRS.values())
steps_down = {name: recipes.gain(found, part, below[row]) for row, (name, part) in enumerate(list(STAIRS.items())[1:])}
clipped = 100 * statistics.mean(found.each(recipes.best(found, below[-1]), "clipped"))
show(
    fig,
    alt="Dots for five seeds: the test loss of a constant rate, and with decay, warm-up and clipping added one after "
    "the other. Each step gains " + ", ".join(f"{name} {told(gain)}" for name, gain in steps_down.items()) + " nats.",
    title="Each step gains (nats): " + ", ".join(f"{name} {gain.mean:+.3f}" for name, gain in steps_down.items()),
)
print(f"clipping shortened {clipped:.0f} % of the gradients: those longer than {recipes.LIMIT:g}")

# %% [markdown]
# Now what you wrote in one training: SwiGLU in the model, the plan for the rate, two micro-batches a step, clipping.
# Beside it Adam at a constant rate, with a SwiGLU of the library's, on the same letters in the same order. Both sides
# take the rate that was best for their plan in the runs above; these were longer, so it need not be the best here.

# %% tags=["payoff"]
class Mine(Gated):
    def forward(self, x):
        return swiglu(x, self.gate.weight, self.up.weight, self.down.weight)


LIMIT = recipes.LIMIT


def recipe(seed, mine):
    """Train a new model, with the recipe or without: losses, lengths of the gradients, the loss on unseen text."""
    torch.manual_seed(seed)
    model, g, losses, lengths = Small(Mine if mine else Gated), torch.Generator().manual_seed(seed), [], []
    peak = recipes.best_rate(found, "warm-up, decay" if mine else "constant")
    optimizer = torch.optim.AdamW(model.parameters(), peak, weight_decay=0.0, fused=True)
    for step in range(1, STEPS + 1):
        ids, targets = pieces(training, ROWS, g)
        if mine:
            batch = list(zip(ids.chunk(2), targets.chunk(2), strict=True))
            losses.append(float(accumulate_gradients(model, batch)))
            gradients, length = clip_grad_norm([p.grad for p in model.parameters()], LIMIT)
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = gradient
            optimizer.param_groups[0]["lr"] = float(warmup_cosine_lr(step, peak, STEPS // 10, STEPS))
            lengths.append(float(length))
        else:
            model.zero_grad()
            loss = loss_of(model, ids, targets)
            loss.backward()
            losses.append(loss.item())
        optimizer.step()
    with torch.no_grad():
        return losses, lengths, loss_of(model, *UNSEEN).item()


mine, simple = ([recipe(seed, with_it) for seed in range(3)] for with_it in (True, False))
fig, (left, right) = figure(1, 2, width=9.6, height=3.4)
for runs, color, style in ((simple, COLORS[1], "--"), (mine, COLORS[0], "-")):
    name = "your recipe" if runs is mine else "Adam, constant rate"
    for seed, (losses, *_) in enumerate(runs):
        left.plot(losses, color=color, linestyle=style, linewidth=1.1, label=name if seed == 0 else None)
left.set(xlabel="step", ylabel="training loss (nats a letter)")
left.legend()
for _, lengths, _ in mine:
    right.plot(lengths, color=COLORS[2], linewidth=1.1)
right.axhline(LIMIT, color="black", linestyle=":")
right.text(STEPS, LIMIT + 0.02, "clipped above", fontsize=9, ha="right", va="bottom")
right.set(xlabel="step", ylabel="length of the gradient", ylim=(0, None))
both_ends = {
    name: ", ".join(f"{end:.3f}" for *_, end in runs) for name, runs in {"yours": mine, "plain": simple}.items()
}
show(
    fig,
    alt="Left: the training loss of your recipe and of Adam at a constant rate, three seeds each. Right: the length "
    f"of the gradient against the step, with the limit as a line. Unseen text, yours {both_ends['yours']}, plain "
    f"{both_ends['plain']}.",
    title=f"Unseen text, three seeds each: yours {both_ends['yours']}; plain {both_ends['plain']} nats",
)

# %% [markdown]
# ## The receipts
#
# What each habit was worth in this chapter, on this small model: nats a letter after the same steps, and what it did to
# work and memory. Where an interval doesn't lie above zero, say "no gain here", not "useless": clipping may wait for
# the bad batch of hour nine, a loss scale for gradients that vanish, warm-up for a deeper model.

# %% tags=["demo"]
def times(way, which):
    return f"{costs[way][which] / one[which]:.0%}"


RECEIPTS = [
    ("warm-up, alone", told(warm), "the same", "the same"),
    ("decay, alone", told(fall), "the same", "the same"),
    ("clipping, on top of both", told(steps_down["+ clipping"]), "the same", "the same"),
    ("SwiGLU for ReLU", told(gained["SwiGLU"]), "the same", "the same weights"),
    ("AdamW for SGD", told(over_sgd), "a little more", "one moment more"),
    ("4 micro-batches", "the same gradient", times("4 micro-batches", 0), times("4 micro-batches", 1)),
    ("recomputing", "the same gradient", times("recomputing", 0), times("recomputing", 1)),
    ("bfloat16", told(lower["bfloat16"]), times("bfloat16 (autocast)", 0), times("bfloat16 (autocast)", 1)),
]
print(f"{'habit':26}{'gain (nats a letter)':28}{'operations':16}memory (in %: for activations)")
for row in RECEIPTS:
    print("{:26}{:28}{:16}{}".format(*row))

# %% [markdown]
# What a recipe of 2026 adds for long runs: **WSD** (warm-up, stable, decay; Hu et al. 2024, arXiv:2404.06395), whose
# length needn't be known beforehand; **Muon** for the matrices (Liu et al. 2025, arXiv:2502.16982), with a guard on the
# attention's scores (QK-clip or QK-norm); FP8 products with a scale for each block (DeepSeek-V3, arXiv:2412.19437); and
# **µP**, which scales initial weights and rates with the width, and scores by $1/d$ instead of $1/\sqrt d$, so that the
# best rate of a small model is that of a large one (Yang et al. 2022, arXiv:2203.03466).
#
# Next: the same recipe, and everything else you have built, in a model that writes.
