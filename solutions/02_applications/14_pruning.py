# ---
# jupyter:
#   course:
#     title: "Pruning: zeros, and what is really gone"
#     exercises: applications.pruning
#     questions: [A05]
#     needs: [01_transformer/01_attention]
# ---

# %% [markdown]
# # Pruning: zeros, and what is really gone
#
# Cut a tree back, and it grows. Cut a network back, and for decades people have been astonished how much of it can go.
# And yet hardly any model that you download has a hole in it. Both are true, and this chapter measures why.
#
# The interview question: **what are quantization, distillation and pruning?** Here it is about the third. The usual
# notes spend one sentence on it: pruning works poorly and is rarely used; it removes the unimportant weights, and
# makes a model smaller and faster. You will build five ways to prune, cut up a real model, hold a stopwatch to it, and
# put the sentence to three tests.
#
# What needs minutes has been run before and is kept with the course; a slice of each runs here, before your eyes.

# %% tags=["setup"]
import math

import torch
import torch.nn.functional as F

from autograde import check
from labkit import COLORS, evidence, figure, interval, show, smollm, verdict

# %% [markdown]
# ## How much do small weights weigh?
#
# A trained weight matrix has a few large numbers and a crowd of small ones around zero. What would be missing without
# the crowd? We take one matrix of a real chat model of 135 million parameters, sort its weights by size, and ask how
# much of the sum of squares the smaller half holds; and, as a control, the smaller half of as many random numbers.

# %% tags=["demo"]
model, tokenizer = smollm()
LAYER = 10  # of 30, counted from 0
weight = model.model.layers[LAYER].mlp.down_proj.weight.detach()  # [576 outputs, 1536 inputs]
sizes = weight.abs().flatten().sort().values
half = sizes[len(sizes) // 2]
held = sizes.square().cumsum(0) / sizes.square().sum()
random = torch.randn(len(sizes), generator=torch.Generator().manual_seed(0)).square().sort().values
held_by_chance = random[: len(sizes) // 2].sum() / random.sum()

fig, (left, right) = figure(1, 2, width=10, height=3.4)
left.hist(weight.flatten(), bins=120, range=(-0.5, 0.5), color=COLORS[0])
left.axvspan(-half, half, color=COLORS[1], alpha=0.25)
left.set(xlabel="weight", ylabel="how many", title=f"Layer {LAYER}; orange: the smaller half")
shares = torch.linspace(0, 1, len(sizes))
right.plot(shares[::500] * 100, held[::500] * 100, color=COLORS[0])
right.axvline(50, color=COLORS[1], linestyle=":")
right.set(xlabel="weights, the smallest first, %", ylabel="of the sum of squares, %", title="What they hold")
show(
    fig,
    alt=f"Left: a histogram of {len(sizes):,} weights around zero; half are within {half:.3f}. Right: their share of "
    f"the sum of squares, {held[len(sizes) // 2]:.1%} at half.",
    title=f"The smaller half of {len(sizes):,} weights holds {held[len(sizes) // 2]:.0%} of their squares; of normal "
    f"random numbers {held_by_chance:.0%}",
)

# %% [markdown]
# (The model is shipped in 4-bit blocks, which were given back as numbers. Zeros are put into that.)
#
# ## Exercise 1: magnitude pruning
#
# So the oldest recipe: **remove what is near zero** (Han et al. 2015). "Remove" means: set to zero, with a mask
# $M \in \{0, 1\}$,
#
# $$W' = W \odot M, \qquad M_{ij} = 0 \text{ for the } \operatorname{round}(a \cdot n) \text{ smallest } |W_{ij}|.$$
#
# Two things are easily missed. *Among which* weights are they the smallest: in the matrix, or each row by itself? And
# how many are there, if several are equally small?


# %% exercise="magnitude_prune"
def magnitude_prune(weight, amount, per_row=False):
    """Set the smallest weights to zero: a share of the matrix, or the same share of each row.

    weight:  floating-point tensor [rows, columns], at least one of each
    amount:  a number from 0 to 1: the share that goes
    per_row: False: round(amount * rows * columns) weights of the whole matrix go. True:
             round(amount * columns) weights of each row go, in every row its own smallest.
    Small means near zero: absolute values are compared. round is Python's, which takes a half
    to the even number. Exactly so many go, also where several weights are equal (which of the
    equal ones is open) or where some are zero already: zeros are the smallest, and count.

    Returns a new tensor, always, of the shape and dtype of weight: 0 where a weight went, all
    others exactly as they were. weight is not changed. Differentiable: the gradient of a weight
    that stays flows, that of one that went is 0.

    Han et al. 2015, arXiv:1506.02626; as torch.nn.utils.prune.l1_unstructured counts.
    """
    ### BEGIN SOLUTION
    sizes = weight.abs() if per_row else weight.abs().reshape(1, -1)
    gone = sizes.argsort(-1)[:, : round(amount * sizes.shape[-1])]
    mask = torch.ones_like(sizes).scatter(-1, gone, 0).reshape(weight.shape)
    return weight * mask
    ### END SOLUTION


# %% check="magnitude_prune"
check(magnitude_prune)

# %% [markdown]
# Now into the real model, into three of its thirty layers. `pruned` lets every linear layer ask a function for its
# weights; the model itself stays whole. How surprised is it by passages of Shakespeare? Measured is the mean of
# $-\ln p$ of the next token, in *nats*; *perplexity* is $e$ to that mean.

# %% tags=["payoff"]
from experiments.pruned import linears, nats, passages, pruned

text = passages("validation", 4)
THREE = ("layers.9.", "layers.10.", "layers.11.")
three = {id(layer.weight) for name, layer in linears(model).items() if name.startswith(THREE)}


def in_three_layers(prune):
    """A choice of weights that prunes three layers and leaves the others as they are."""
    return lambda weight, norms: prune(weight, norms) if id(weight) in three else weight


before = nats(model, text).mean()
for amount in (0.3, 0.6):
    with pruned(in_three_layers(lambda weight, _, amount=amount: magnitude_prune(weight, amount))) as net:
        after = nats(net, text).mean()
    print(f"{amount:.0%} of three layers: {before:.2f} → {after:.2f} nats, perplexity × {(after - before).exp():.2f}")

# %% [markdown]
# ## A small weight may have a large input
#
# A weight is a factor. What it adds to the output is $W_{ij} x_j$, and not all inputs are alike. So we look at the
# other side: the norm of each input feature, $\lVert X_j \rVert_2$, over all tokens of some text.

# %% tags=["demo"]
from experiments.pruned import passages

reads = model.model.layers[LAYER].mlp.gate_proj
seen = []
watch = reads.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
with torch.inference_mode():
    model(passages("calibration", 4), logits_to_keep=1)
watch.remove()
inputs = seen[0].flatten(0, -2)  # [tokens, 576]
norms = inputs.norm(dim=0)
ratio = norms.max() / norms.median()

fig, ax = figure(width=8.5, height=3)
ax.plot(range(1, len(norms) + 1), norms.sort(descending=True).values, color=COLORS[0], marker=".", linewidth=1)
ax.axhline(norms.median(), color=COLORS[1], linestyle=":", label="median")
ax.set(xscale="log", xlabel=f"the {len(norms)} input features, largest first", ylabel=f"norm over {len(inputs)} tokens")
ax.set_xticks([1, 2, 5, 10, 20, 50, 100, 200, 500], ["1", "2", "5", "10", "20", "50", "100", "200", "500"])
ax.minorticks_off()
ax.legend()
show(
    fig,
    alt=f"A falling curve of the norms of {len(norms)} input features, from {norms.max():.0f} down to "
    f"{norms.min():.1f}; the median is {norms.median():.1f}.",
    title=f"Inputs of layer {LAYER}'s feed-forward part: the largest feature has {ratio:.0f} times the median's norm",
)

# %% [markdown]
# ## Exercise 2: what does the output miss?
#
# Set one weight to zero and the layer's output changes by exactly $W_{ij} X_j$, a column of numbers, one a token. Its
# length is the score of **Wanda** (Sun et al. 2023), pruning by *w*eights *and* *a*ctivations:
#
# $$S_{ij} = |W_{ij}| \cdot \lVert X_j \rVert_2$$
#
# Text comes in batches, and batches have padding. A norm over padding says what the padding likes.


# %% exercise="wanda_scores"
def wanda_scores(weight, x, mask=None):
    """How much a layer's output misses each weight: the weight's size times its input's norm.

    weight: floating-point tensor [outputs, inputs]
    x:      tensor [..., inputs] of weight's dtype: what the layer was given, a vector a token,
            with any number of leading dimensions, also none
    mask:   bool tensor [...], the leading dimensions of x: True = a token, False = padding,
            which doesn't count; or None: all are tokens
    The score of weight [i, j] is |weight[i, j]| times the L2 norm of input feature j over all
    tokens of all texts: the root of the sum, not of the mean, of its squares. Where there is no
    token at all, all scores are 0. Squares, sum and product are computed in float32 or float64,
    also where x is float16 or bfloat16.

    Returns a tensor [outputs, inputs] of weight's dtype. Nothing is changed.

    Sun et al. 2023, arXiv:2306.11695.
    """
    ### BEGIN SOLUTION
    tokens = x.float().reshape(-1, x.shape[-1])
    if mask is not None:
        tokens = tokens[mask.reshape(-1)]
    return (weight.float().abs() * tokens.norm(dim=0)).to(weight.dtype)
    ### END SOLUTION


# %% check="wanda_scores"
check(wanda_scores)

# %% [markdown]
# Does it help? For the layer whose inputs you have seen: the relative error of its output, once with the smallest
# weights gone, once with the smallest *scores*. Wanda compares within a row: each output keeps its share of inputs. Two
# of the passages make the scores, on the two others the error is measured.

# %% tags=["payoff"]
amounts = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
full = reads.weight.detach()
scored, judged = inputs.chunk(2)
scores = wanda_scores(full, scored)


def error(kept):
    """How far the layer's output is off with these weights: a share of the output's own size."""
    return float((judged @ (full - kept).T).norm() / (judged @ full.T).norm())


ways = {
    "by size (matrix)": [error(magnitude_prune(full, a)) for a in amounts],
    "by size (rows)": [error(magnitude_prune(full, a, per_row=True)) for a in amounts],
    "by Wanda (rows)": [error(full * (magnitude_prune(scores, a, per_row=True) != 0)) for a in amounts],
}
fig, ax = figure(width=8.5, height=3.4)
for (name, errors), color, mark in zip(ways.items(), (COLORS[1], COLORS[3], COLORS[0]), "s^o", strict=True):
    ax.plot([100 * a for a in amounts], [100 * e for e in errors], color=color, marker=mark, label=name)
ax.set(xlabel="weights set to zero, %", ylabel="error of the output, %", ylim=(0, None))
ax.legend()
middle = amounts.index(0.5)
told = "; ".join(f"{name} {errors[middle]:.0%}" for name, errors in ways.items())
show(fig, alt=f"Error of one layer's output against the share of zeros, three ways. At half: {told}.",
     title=f"Half of a layer gone: {told}")

# %% [markdown]
# ## "It removes the unimportant weights"
#
# Which would have to exist. So now all 210 linear layers of the model at once, and the question: how many weights can
# go before perplexity rises by ten percent? The unit of spread is a passage: 20 passages of plays from which nothing
# was calibrated, each compared with itself in the whole model. A **band** is the 95 % interval of their mean.
#
# Three ways: at random; by size, in each matrix; by Wanda, in each row. (The last two differ in two things. So at half
# there is also size, in each row.) The two lone marks are a special pattern of half zeros, of which more below. Random
# cuts were tried up to a smaller share only.
#
# **Before the run:** the sentence is *correct* if by the better of size and Wanda half of the weights can go for
# surely less than ten percent of perplexity. It is *imprecise* if only a smaller share that we try can. It is *wrong*
# if not even a tenth can.

# %% claim="A05.31"
from experiments.A05_31 import COSTS, SHARES, factor, free, rise

shares_found = evidence("A05.31")
print(shares_found.again())
fig, ax = figure(width=9, height=4)
for (how, tried), color, mark in zip(SHARES.items(), (COLORS[6], COLORS[1], COLORS[0]), "xso", strict=True):
    each = [rise(shares_found, f"{how}, {share} %") for share in tried]
    ax.plot([0, *tried], [1, *(math.exp(e.mean) for e in each)], color=color, marker=mark, label=how)
    ax.fill_between(tried, [math.exp(e.low) for e in each], [math.exp(e.high) for e in each], color=color, alpha=0.2,
                    linewidth=0)
for how, color, mark, aside in (("by size, 2:4", COLORS[1], "s", 51), ("by Wanda, 2:4", COLORS[0], "o", 51)):
    special = math.exp(rise(shares_found, how).mean)
    ax.plot(50, special, mark, color=color, markerfacecolor="white", markersize=8)
    ax.annotate("2:4", (50, special), (aside + 0.6, special), va="center", color=color)
ax.axhline(math.exp(COSTS), color="#444444", linestyle=":", label="10 % more")
ax.set(yscale="log", xlabel="weights of the linear layers set to zero, %", ylabel="perplexity, times the whole model's")
ticks = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]
ax.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
ax.minorticks_off()
ax.legend(loc="upper left")
most = {how: free(shares_found, how) for how in ("by size", "by Wanda")}
halved = {how: factor(shares_found, f"{how}, 50 %") for how in most}
show(
    fig,
    alt="Perplexity against the share of zeros on a logarithmic axis, at random, by size and by Wanda. With half gone "
    + ", ".join(f"{how} × {told}" for how, told in halved.items())
    + ".",
    title="Under 10 % of perplexity: " + ", ".join(f"{how} {share} % of the weights" for how, share in most.items()),
)
best_share = max(most.values())
verdict(
    "A05.31",
    "correct" if best_share >= 50 else "imprecise" if best_share else "wrong",
    "Surely under ten percent of perplexity: "
    + ", ".join(f"{share} % of the weights {how}" for how, share in most.items())
    + ". With half of them gone perplexity is "
    + ", ".join(f"× {told} {how}" for how, told in halved.items())
    + f" (by size in each row × {factor(shares_found, 'by size, row by row, 50 %')}), with 2:4 "
    + ", ".join(f"× {factor(shares_found, f'{how}, 2:4')} {how}" for how in most)
    + " (95 % intervals over passages).",
)

# %% [markdown]
# Wanda asks for a weight's input, size does not; and neither asks what else has gone already.
#
# ## Where the zeros stand
#
# So far nothing has become smaller: a zero takes four bytes, like any number. Whether a **kernel**, the program that
# does the arithmetic on the processor, can *skip* it depends on where the zeros stand. Three matrices, each with half
# of its weights gone:

# %% tags=["demo"]
dice = torch.Generator().manual_seed(0)
example = torch.randn(12, 16, generator=dice)
groups = example.abs().reshape(12, 4, 4)
patterns = {
    "anywhere": example.abs() > example.abs().median(),
    "2 of 4": torch.zeros_like(groups).scatter(-1, groups.topk(2).indices, 1).reshape(12, 16) > 0,
    "whole rows": (example.norm(dim=1) > example.norm(dim=1).median())[:, None].expand(12, 16),
}
skips = ["no pattern to skip by", "some GPUs skip them", "what is left is a smaller matrix"]
fig, axes = figure(1, 3, width=10.5, height=2.9)
for ax, (name, mask), who in zip(axes, patterns.items(), skips, strict=True):
    ax.imshow(mask, cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
    ax.set_xticks([i - 0.5 for i in range(0, 17, 4)], [])
    ax.set_yticks([])
    ax.set_title(name, fontsize=11)
    ax.set_xlabel(who, fontsize=10)
    if name == "2 of 4":
        for edge in (3.5, 7.5, 11.5):
            ax.axvline(edge, color="#D55E00", linewidth=1)
show(fig, alt=f"Three grids of {example.shape[0]} by {example.shape[1]} weights; kept ones are dark. " + "; ".join(
    f"{name}: {int(mask.sum())} kept" for name, mask in patterns.items()) + ".")

# %% [markdown]
# The second pattern is a treaty between pruning and hardware. In **2:4 sparsity** two of every four weights that follow
# each other in a row are zero. NVIDIA's GPUs since Ampere store the two others and, for each, two bits that say where
# it stood; their matrix units then do half of the multiplications (Mishra et al. 2021).
#
# ## Exercise 3: two of four


# %% exercise="two_four_mask"
def two_four_mask(weight):
    """Of every four weights in a row that follow each other, mark the two larger ones.

    weight: floating-point tensor [..., inputs], any number of leading dimensions, also none;
            inputs is a multiple of 4. Weights 0 to 3 of a row are a group, 4 to 7 the next, ...
    Larger means farther from zero. In each group exactly two are marked, also where several
    weights are equal, or zero; which of the equal ones is open.

    Returns a bool tensor of weight's shape: True = stays.

    Mishra et al. 2021, arXiv:2104.08378.
    """
    ### BEGIN SOLUTION
    groups = weight.abs().reshape(-1, 4)
    stays = torch.zeros_like(groups, dtype=torch.bool).scatter(-1, groups.topk(2).indices, True)
    return stays.reshape(weight.shape)
    ### END SOLUTION


# %% check="two_four_mask"
check(two_four_mask)

# %% [markdown]
# Your mask, in the format of the hardware: torch has the packing also for CPUs. Multiplying is another matter, as the
# last line says.

# %% tags=["payoff"]
from torch.sparse import _semi_structured_conversions as packing
from torch.sparse import to_sparse_semi_structured

block = reads.weight[:64].detach().half()
two_of_four = block * two_four_mask(block)
values, places = packing.sparse_semi_structured_from_dense_cutlass(two_of_four)
back = packing.sparse_semi_structured_to_dense_cutlass(values, places)
print(f"{block.nbytes:,} bytes → {values.nbytes:,} of values + {places.nbytes:,} of places: "
      f"{(values.nbytes + places.nbytes) / block.nbytes:.1%}; unpacked, the same: {torch.equal(back, two_of_four)}")
try:
    print(to_sparse_semi_structured(two_of_four))
except RuntimeError as error:
    print("to_sparse_semi_structured:", str(error).splitlines()[0])

# %% [markdown]
# ## Exercise 4: really smaller
#
# What any hardware can skip is a matrix that has fewer rows. Take a **hidden unit** out of a network: its row in the
# layer before, its number in the bias, its column in the layer behind,
#
# $$y = W_2\, f(W_1 x + b_1): \qquad W_1[\text{units}],\quad b_1[\text{units}],\quad W_2[:, \text{units}].$$
#
# A **head** of attention is the same with more units: the `size` rows of the value matrix that belong together, and as
# many columns of the output matrix. All of them go, or none.


# %% exercise="structured_prune"
def structured_prune(first, bias, second, n, size=1):
    """Remove whole hidden units, or heads of `size` units, from the layers around them.

    first:  floating-point tensor [hidden, d_in], weights of the layer before
    bias:   tensor [hidden], its bias, or None
    second: tensor [d_out, hidden], weights of the layer behind; its own bias isn't concerned
    n:      how many heads go, from 0 to all but one
    size:   units in a head, which follow each other: hidden is heads * size. With size = 1 a
            head is a single unit.
    The n heads go whose rows of `first` have the smallest L2 norm, a head's size * d_in weights
    taken together; neither bias nor second is asked. No two norms are equal.

    Returns (first, bias, second), new tensors, always, without those units: [hidden - n * size,
    d_in], [hidden - n * size] or None, [d_out, hidden - n * size]; what stays keeps its order,
    its values and its dtype. Nothing is changed. Differentiable: gradients flow to what stays.

    As torch.nn.utils.prune.ln_structured ranks, which only masks.
    """
    ### BEGIN SOLUTION
    norms = first.reshape(-1, size * first.shape[1]).norm(dim=1)
    stay = norms.argsort()[n:].sort().values
    units = (stay[:, None] * size + torch.arange(size)).flatten()
    return first[units], None if bias is None else bias[units], second[:, units]
    ### END SOLUTION


# %% check="structured_prune"
check(structured_prune)

# %% [markdown]
# In the real model a hidden unit of the feed-forward part has *two* rows: one in the gate, one in the up-projection.
# Side by side they are one row, and your function fits. The control: as many units, drawn at random.

# %% tags=["payoff"]
mlp = model.model.layers[LAYER].mlp
rows = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight], 1).detach()
smaller, _, down = structured_prune(rows, None, mlp.down_proj.weight.detach(), n=len(rows) // 2)
drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[: len(smaller)]


@torch.inference_mode()
def off(rows, down):
    """How far the output is off with these units alone: a share of its size."""
    (gate, up), whole = rows.chunk(2, 1), mlp(inputs)
    return float(((F.silu(inputs @ gate.T) * (inputs @ up.T)) @ down.T - whole).norm() / whole.norm())


parameters = sum(part.weight.numel() for part in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
print(f"{parameters:,} → {smaller.numel() + down.numel():,} parameters; output off by {off(smaller, down):.0%} of its "
      f"size, with units drawn at random by {off(rows[drawn], mlp.down_proj.weight[:, drawn]):.0%}")

# %% [markdown]
# A whole unit goes with all of its weights, the large ones among them.
#
# ## "It reduces size and compute"
#
# The stopwatch. Ten layers of the model read a prompt of 128 tokens, or a single token, as when writing. Whole and
# pruned layers run in turn, and a number is the median ratio of the two. Absolute times would be your machine's; the
# ratios are what carries over, more or less. Five repetitions, each with other tokens.
#
# Below half of the weights are zero; stored as they are, and in **CSR**, which keeps each row's values with the numbers
# of their columns. Then half of the feed-forward units really go, a third of the heads, half of the layers. The last
# one must show in the time, and the same layers once more must not.
#
# **Before the run:** on the prompt a ratio surely under 0.9 is a saving. The sentence is *correct* if zeros alone save
# time. It is *imprecise* if they surely don't, and units or layers that are really gone do. Else it is *wrong*. (Size
# needs no stopwatch: the bytes stand beside it.)

# %% claim="A05.5"
from experiments.A05_5 import HALF, HEADS, NEURONS, SAME, SAVES, SPARSE, ZEROS, percent

timed = evidence("A05.5")
print(timed.again())
kinds = [SAME, ZEROS, SPARSE, HEADS, NEURONS, HALF]
fig, (left, right) = figure(1, 2, width=10.5, height=3.8, width_ratios=[2.2, 1], sharey=True)
for row, kind in enumerate(kinds):
    for number, color, mark, shift in (("prompt", COLORS[0], "o", -0.15), ("token", COLORS[1], "s", 0.15)):
        each = timed.interval(kind, number)
        left.plot([each.low, each.high], [row + shift] * 2, color=color, linewidth=6, alpha=0.3)
        left.plot(timed.each(kind, number), [row + shift] * each.n, mark, color=color, markersize=4,
                  label=f"a {number}" if row == 0 else None)
weights = [timed.interval(kind, "bytes").mean for kind in kinds]
right.bar_label(right.barh(range(len(kinds)), weights, color=COLORS[2]), [f"{w:.2f}" for w in weights], padding=3)
left.axvline(1, color="#444444", linestyle=":")
left.set_yticks(range(len(kinds)), kinds)
left.set(xlabel="time, times the whole model's", xlim=(0, None), ylim=(len(kinds) - 0.5, -0.5), title="Time")
left.legend(loc="lower right")
right.set(xlabel="bytes, times the whole model's", xlim=(0, 1.25 * max(weights)), title="Memory")
took = {kind: timed.interval(kind, "prompt") for kind in kinds}
show(fig, alt=f"Left: ratios of time for {len(kinds)} kinds of pruning, a prompt and a token. Right: ratios of bytes. "
     f"A prompt takes: {', '.join(f'{kind} {each.mean:.2f}' for kind, each in took.items())}.",
     title=f"Half of the weights zero: time × {took[ZEROS].mean:.2f}, as CSR × {took[SPARSE].mean:.2f}. Half of the "
           f"neurons gone: × {took[NEURONS].mean:.2f}")
bytes_left = ", ".join(f"{100 * weights[kinds.index(kind)]:.0f} %" for kind in (ZEROS, SPARSE, NEURONS, HEADS, HALF))
otherwise = took[ZEROS].above(SAVES) and (took[NEURONS].below(SAVES) or took[HALF].below(SAVES))
verdict(
    "A05.5",
    "correct" if took[ZEROS].below(SAVES) else "imprecise" if otherwise else "wrong",
    f"A prompt takes, of the whole model's time: {percent(took[ZEROS])} with half the weights zero, "
    f"{percent(took[SPARSE])} with them as CSR, {percent(took[NEURONS])} with half the neurons gone, "
    f"{percent(took[HEADS])} with a third of the heads gone, {percent(took[HALF])} with half the layers gone. Of its "
    f"bytes, in the same order: {bytes_left}.",
)

# %% [markdown]
# CSR is made for matrices that are zero all but everywhere, far emptier than the ones above.
#
# ## Which layers?
#
# The largest thing to remove is a layer. Each layer *adds* something to a token's vector, so the model still runs
# without it. A cheap guess at what it matters: how far does it turn the vector? **Block influence** (Men et al. 2024)
# is $1 - \cos(x_\text{in}, x_\text{out})$, averaged over tokens. What it really matters: leave it out and measure.

# %% tags=["demo"]
from experiments.A05_31 import ONE_BY_ONE, WHOLE
from experiments.pruned import influence, least

turns = influence()  # of all layers but the last
(alone,), (whole_model,) = evidence("A05.31").each(ONE_BY_ONE, "nats"), evidence("A05.31").each(WHOLE, "nats")
costs = [interval([a - b for a, b in zip(passage, whole_model, strict=False)]) for passage in alone]
factors = torch.tensor([math.exp(each.mean) for each in costs])
guess = torch.tensor(turns)
order = [of.argsort().argsort().double() for of in (guess, factors[: len(guess)])]
agreement = float(torch.corrcoef(torch.stack(order))[0, 1])

fig, (left, right) = figure(1, 2, width=10.5, height=3.6, width_ratios=[1.3, 1])
left.bar(range(len(factors)), factors, color=[COLORS[int(i in least(turns, 6))] for i in range(len(factors))])
left.axhline(1, color="#444444", linestyle=":")
left.set(yscale="log", xlabel="layer that is left out (orange: the six of least influence)",
         ylabel="perplexity, times\nthe whole model's", ylim=(0.9, 1.3 * float(factors.max())))
right.scatter(guess, factors[: len(guess)], color=COLORS[0], s=22)
quiet = int(torch.where(guess < 0.1, factors[: len(guess)], 0).argmax())
for i in (0, 1, quiet):
    right.annotate(f"layer {i}", (float(guess[i]), float(factors[i])), (-4, 6), textcoords="offset points", ha="right",
                   fontsize=9)
right.set(xscale="log", yscale="log", xlabel="block influence, 1 − cosine", ylabel="perplexity, times")
dearest, cheapest = int(factors.argmax()), int(factors.argmin())
show(
    fig,
    alt=f"Left: perplexity without each of {len(factors)} layers; layer {dearest} × {factors[dearest]:.0f}, layer "
    f"{cheapest} × {factors[cheapest]:.2f}. Right: the same against block influence; rank correlation {agreement:.2f}.",
    title=f"One layer less costs × {factors[cheapest]:.2f} (layer {cheapest}) to × {factors[dearest]:.0f} (layer "
    f"{dearest}); influence ranks them with a correlation of {agreement:.2f}",
)

# %% [markdown]
# The guess is worth what the correlation says. A cosine can be near one where a layer matters; Hinostroza et al. (2026)
# show how badly it may fail. If you can afford it, measure.
#
# (To *write* with a cut model, number its layers anew: `layer.self_attn.layer_idx` says which place of the cache is a
# layer's own. Reading needs no cache, so perplexity won't tell you.)
#
# ## "It works poorly"
#
# Six of thirty layers go, those of least influence. That costs. Then what today's recipes do: **prune, then distil**.
# The cut model learns from the whole one, on plays that no test passage comes from, to predict each next token as the
# whole model does, by their KL divergence; only layers behind the first cut are trained. Eight steps of four passages.
#
# The rate is chosen on validation passages, the result is of test passages. Three seeds: other texts to learn from,
# and other texts to be tested on. For comparison the same, where the layers behind the first cut start from
# new random weights, with the same texts and steps, at the larger of the two rates.
#
# **Before the run:** the sentence is *wrong* if the cut alone surely costs less than ten percent of perplexity. If not,
# it is *correct* if training surely gives back less than half of what the cut took. It is *outdated* if the cut surely
# costs more and training surely gives back more than half: then it was true of cutting alone. Else *imprecise*.

# %% claim="A05.4"
from experiments.A05_4 import COSTS, CUT, FRESH, HEALED, best, regained
from experiments.A05_4 import WHOLE as UNCUT

healing = evidence("A05.4")
print(healing.again())
arms = [CUT, *HEALED.values(), FRESH]
fig, ax = figure(width=9.5, height=3)
over = {arm: healing.interval(arm, "nats", minus=UNCUT) for arm in arms}
for row, arm in enumerate(arms):
    color = COLORS[0] if arm == best(healing) else COLORS[1] if arm == CUT else COLORS[6]
    pairs = zip(healing.each(arm, "nats"), healing.each(UNCUT, "nats"), strict=True)
    dots = [math.exp(a - b) for a, b in pairs]
    ax.plot([math.exp(over[arm].low), math.exp(over[arm].high)], [row] * 2, color=color, linewidth=7, alpha=0.3)
    ax.plot(dots, [row] * len(dots), "o", color=color)
ax.set_yticks(range(len(arms)), [f"{arm} (chosen)" if arm == best(healing) else arm for arm in arms])
ax.axvline(1, color="#444444", linestyle=":")
ax.set(xscale="log", xlabel="perplexity on test passages, times the whole model's", ylim=(len(arms) - 0.5, -0.5))
ticks = [1, 2, 5, 10, 100, 1000, 10_000]
ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
ax.minorticks_off()
means = {arm: math.exp(each.mean) for arm, each in over.items()}
gained = regained(healing, best(healing))
show(fig, alt=f"A row for each of {len(arms)} models, a dot a seed. Perplexity, times the whole model's: "
     + ", ".join(f"{arm} {mean:.2f}" for arm, mean in means.items()) + ".",
     title=f"A fifth of the layers gone: perplexity × {means[CUT]:.2f}. After healing × {means[best(healing)]:.2f}, "
           f"from new weights × {means[FRESH]:,.0f}")
if over[CUT].below(COSTS):
    word = "wrong"
elif gained.below(0.5):
    word = "correct"
else:
    word = "outdated" if gained.above(0.5) and over[CUT].above(COSTS) else "imprecise"
verdict(
    "A05.4",
    word,
    f"The cut costs × {math.exp(over[CUT].low):.2f} to {math.exp(over[CUT].high):.2f} of perplexity; training gives "
    f"back {100 * gained.low:.0f} to {100 * gained.high:.0f} % of the nats (95 % intervals over {gained.n} seeds; of "
    f"two rates the {'larger' if best(healing) == HEALED[max(HEALED)] else 'smaller'}, {healing.numbers['rate']}, was "
    "the better one).",
)

# %% [markdown]
# And "rarely used"? That isn't measured but looked up. Zeros without a structure are rare in what people download, and
# vLLM, a large inference engine, has taken out its kernels for two zeros of four. Structures that are cut out, and a
# rest that is distilled, are not rare: that is how some families of models get their small members.
#
# ## Tickets
#
# One question is left, and it is a question of science rather than of speed. If a tenth of a network is enough in the
# end, why not train that tenth from the start? Usually a sparse network trained from new random weights ends up worse.
# Frankle and Carbin (2019) found: not if it gets **the same initial weights** again that it had in the large network.
# A *winning ticket* is a mask together with a start. To find one:
#
# 1. train; 2. prune a share of the living weights, the smallest over all matrices together; 3. **rewind** what lives to
# its initial values; then from the top.
#
# ## Exercise 5: rewind


# %% exercise="lottery_rewind"
def lottery_rewind(initial, trained, masks, amount):
    """One round of the search for a winning ticket: prune what training left small, and rewind.

    initial: list of floating-point tensors: the network's weights before training
    trained: list of tensors, like initial: after training. What was dead need not be 0 there.
    masks:   list of bool tensors of the same shapes: True = alive
    amount:  a number from 0 to 1: the share of the living weights that goes in this round
    Only tensors of two or more dimensions are pruned. Of all living weights in all of them, put
    in one line, round(amount * how many they are) go (Python's round: a half to the even
    number): those with the smallest absolute *trained* values. No two of these are equal. Dead
    weights aren't counted and stay dead. Vectors (biases) lose nothing, their masks stay.

    Returns (weights, masks), two lists of new tensors, always: masks as they are now, and the
    weights to go on with: the initial values (also of vectors), of initial's dtypes, and 0
    where a weight is dead. Nothing is changed.

    Frankle and Carbin 2019, arXiv:1803.03635; as torch.nn.utils.prune.global_unstructured
    counts.
    """
    ### BEGIN SOLUTION
    pairs = list(zip(trained, masks, strict=True))
    sizes = torch.cat([t.abs()[m] for t, m in pairs if t.dim() > 1]).sort().values
    count = round(amount * len(sizes))
    bound = sizes[count - 1] if count else -1
    new = [m & (t.abs() > bound) if t.dim() > 1 else m.clone() for t, m in pairs]
    return [i * m for i, m in zip(initial, new, strict=True)], new
    ### END SOLUTION


# %% check="lottery_rewind"
check(lottery_rewind)

# %% [markdown]
# A network of one hidden layer reads digits of 8 × 8 pixels. Round by round it loses half of what lives. Three ways to
# go on from each mask: your rewound weights; the same mask with new random weights; as many places, drawn at random,
# with the initial weights. All have one learning rate, without a search. In training, the mask is applied in every
# step: a dead weight must not grow back.

# %% tags=["payoff"]
from sklearn.datasets import load_digits

pixels, digits = (torch.tensor(part) for part in load_digits(return_X_y=True))
pixels = pixels.float() / 16
SHAPES, ROUNDS, SEEDS = [(64, 64), (64,), (10, 64), (10,)], 6, 3


def start(dice):
    """New weights for a network of one hidden layer."""
    return [torch.randn(shape, generator=dice) * (2 / shape[1]) ** 0.5 if len(shape) > 1 else torch.zeros(shape)
            for shape in SHAPES]


def trained(weights, masks, mixed):
    """The weights after 60 steps of Adam on two thirds of the digits, and their accuracy on the rest."""
    train, test = mixed[:1200], mixed[1200:]
    parts = [w.clone().requires_grad_() for w in weights]
    optimizer = torch.optim.Adam(parts, lr=0.01)

    def scores(x):
        w1, b1, w2, b2 = (w * m for w, m in zip(parts, masks, strict=True))
        return F.linear(F.linear(x, w1, b1).relu(), w2, b2)

    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(scores(pixels[train]), digits[train]).backward()
        optimizer.step()
    with torch.no_grad():
        return [w.detach() for w in parts], float((scores(pixels[test]).argmax(1) == digits[test]).float().mean())


accuracy = {"rewound": [], "same mask, new weights": [], "other places": []}
for seed in range(SEEDS):
    dice = torch.Generator().manual_seed(seed)
    mixed = torch.randperm(len(digits), generator=dice)
    initial = weights = start(dice)
    masks = [torch.ones(shape, dtype=torch.bool) for shape in SHAPES]
    told, left = {name: [] for name in accuracy}, []
    for _ in range(ROUNDS + 1):
        others = [m.flatten()[torch.randperm(m.numel(), generator=dice)].reshape(m.shape) for m in masks]
        ended, reached = trained(weights, masks, mixed)
        told["rewound"].append(reached)
        told["same mask, new weights"].append(trained(start(dice), masks, mixed)[1])
        told["other places"].append(trained(initial, others, mixed)[1])
        left.append(sum(int(m.sum()) for m in masks[::2]) / sum(m.numel() for m in masks[::2]))
        weights, masks = lottery_rewind(initial, ended, masks, 0.5)
    for name, each in told.items():
        accuracy[name].append(each)

fig, ax = figure(width=8.5, height=3.6)
for (name, each), color, mark in zip(accuracy.items(), (COLORS[0], COLORS[1], COLORS[6]), "osx", strict=True):
    each = 100 * torch.tensor(each)
    ax.plot([100 * share for share in left], each.mean(0), color=color, marker=mark, label=name)
    ax.fill_between([100 * share for share in left], each.amin(0), each.amax(0), color=color, alpha=0.15, linewidth=0)
ax.set(xscale="log", xlabel="weights that live, %", ylabel="digits read right, %")
ax.set_xticks([100 * share for share in left], [f"{100 * share:.3g}" for share in left])
ax.minorticks_off()
ax.invert_xaxis()
ax.legend(loc="lower left")
ends = {name: 100 * torch.tensor(each)[:, -1] for name, each in accuracy.items()}
by = interval((ends["rewound"] - ends["same mask, new weights"]).tolist())
show(fig, alt=f"Accuracy against the share of living weights, three ways. With {left[-1]:.1%} alive: "
     + ", ".join(f"{name} {float(of.mean()):.0f} %" for name, of in ends.items()) + f". Bands span {SEEDS} seeds.",
     title=f"At {left[-1]:.1%} alive: " + ", ".join(f"{name} {float(of.mean()):.0f} %" for name, of in ends.items()))
print(f"Rewound against the same mask with new weights: {by.mean:+.0f} points, 95 % interval {by.text('+.0f')}.")

# %% [markdown]
# Finding a ticket takes many whole trainings, so it saves none. And in large networks one has to rewind not to the
# start but to an early step (Frankle et al. 2020).
#
# ## 2026: who prunes, and how
#
# * **One shot, no training**: Wanda, and SparseGPT (Frantar and Alistarh 2023), which also mends the weights that stay,
#   layer by layer. What you get is zeros; what you need is a kernel that skips them.
# * **2:4**: twice the peak rate of the matrix unit on paper. vLLM has removed its kernels, and says why: the models
#   were "not widely used". (A model half of whose weights are gone competes with one whose weights have four bits.)
# * **Prune, then distil**: Minitron made 8 B and 4 B models from one of 15 B, with up to 40 times fewer training tokens
#   than from scratch; Llama-3.1-Minitron 4B came from an 8 B model. (Sheared LLaMA, before them, was cut out of LLaMA 2
#   and simply trained on.)
# * **Experts**: in a mixture of experts the unit to remove is an expert, and a model without some of them is smaller
#   for good.
#
# ## What you have now
#
# * Magnitude, Wanda, 2:4, units, layers, tickets: six things to cut, and for each a count that must be exact.
# * A zero takes as many bytes as any number. Of each pattern ask: who can skip it, and was that measured?
# * Ask what is compared with what: pruned against whole, healed against cut, a small start against an old one.
# * Of "it works poorly" ask: cut alone, or trained after it? What ships is cut *and trained*, far longer than here.
#
# **Sources.** Han et al. 2015, [arXiv:1506.02626](https://arxiv.org/abs/1506.02626) (magnitude); Frankle and Carbin
# 2019, [arXiv:1803.03635](https://arxiv.org/abs/1803.03635), and Frankle et al. 2020,
# [arXiv:1912.05671](https://arxiv.org/abs/1912.05671) (tickets, rewinding); Mishra et al. 2021,
# [arXiv:2104.08378](https://arxiv.org/abs/2104.08378) (2:4); Frantar and Alistarh 2023,
# [arXiv:2301.00774](https://arxiv.org/abs/2301.00774) (SparseGPT); Sun et al. 2023,
# [arXiv:2306.11695](https://arxiv.org/abs/2306.11695) (Wanda); Xia et al. 2023,
# [arXiv:2310.06694](https://arxiv.org/abs/2310.06694) (Sheared LLaMA); Men et al. 2024,
# [arXiv:2403.03853](https://arxiv.org/abs/2403.03853) (block influence); Gromov et al. 2024,
# [arXiv:2403.17887](https://arxiv.org/abs/2403.17887) (layers cut, then healed); Muralidharan et al. 2024,
# [arXiv:2407.14679](https://arxiv.org/abs/2407.14679) (Minitron); Sreenivas et al. 2024,
# [arXiv:2408.11796](https://arxiv.org/abs/2408.11796) (Llama-3.1-Minitron); Hinostroza et al. 2026,
# [arXiv:2605.14075](https://arxiv.org/abs/2605.14075) (cosine as a guess);
# [vLLM #36799](https://github.com/vllm-project/vllm/pull/36799), 2026 (2:4 kernels removed).
