# ---
# jupyter:
#   course:
#     title: "Normalization: LayerNorm, RMSNorm, BatchNorm"
#     exercises: transformer.normalization
#     questions: [T06]
#     needs: [01_transformer/01_attention]
# ---

# %% [markdown]
# # Normalization: LayerNorm, RMSNorm, BatchNorm
#
# Whatever is multiplied by the same factor forty times explodes or dies, and a deep network is a long chain of
# multiplications and sums. Normalization brings the numbers back to one size again and again. It looks like
# housekeeping. But *where* does it stand? The models of today don't agree, and you will see what hangs on it.
#
# The interview question: **why do Transformers use LayerNorm, and not the BatchNorm that made deep vision models
# work?** You will build both, and RMSNorm, which took LayerNorm's place; run your RMSNorm inside a real model; train
# the Transformer that hardly anybody trains, the one with BatchNorm; and put seven sentences of the usual answers to
# the test.

# %% tags=["setup"]
import re

import torch
import torch.nn.functional as F
from torch import nn

from autograde import check
from labkit import COLORS, evidence, figure, interval, show, smollm, verdict


def signs(text):
    """A text with true minus signs in front of its numbers, and none in front of zeros."""
    return re.sub(r"-(?=\d)", "−", re.sub(r"[+-](?=0\.0+\b)", "", text))


# %% [markdown]
# ## What a norm gets, and what it gives
#
# `smollm()` is a real chat model of LLaMA's architecture: SmolLM2, with 135 million weights rounded to 4 bits. Each of
# its 30 layers *adds* something to a vector of 576 numbers, one vector a token: the **residual stream**. How large do
# these vectors get on the way? We measure their root mean square (RMS), $\sqrt{\tfrac{1}{d}\sum_i x_i^2}$, in front of
# each layer, and behind the norm that the layer begins with. Layers are counted from 0.

# %% tags=["demo"]
model, tokenizer = smollm()
text = "The old man said that the sea was calm and the night was long, and nobody answered him for a while."
ids = tokenizer(text, return_tensors="pt").input_ids


def root_mean_square(x):
    return x.square().mean(-1).sqrt()


with torch.inference_mode():
    stream = torch.stack(model(ids, output_hidden_states=True).hidden_states[:-1])[:, 0]  # [layers, tokens, width]
    normed = torch.stack([layer.input_layernorm(x) for layer, x in zip(model.model.layers, stream, strict=True)])
before, after = root_mean_square(stream), root_mean_square(normed)
usual = before[:, 1:].mean(1)

fig, ax = figure(width=9.5, height=4)
layers = range(len(before))
ax.plot(layers, before[:, 0], color=COLORS[1], label="first token")
ax.plot(layers, usual, color=COLORS[0], marker="o", markersize=4, label="other tokens, mean")
ax.plot(layers, after[:, 1:].mean(1), color=COLORS[0], linestyle="--", label="other tokens, behind the norm")
ax.plot(layers, after[:, 0], color=COLORS[1], linestyle="--", label="first token, behind the norm")
ax.set(yscale="log", xlabel="in front of layer", ylabel="root mean square of a token's vector", ylim=(None, 20_000))
ax.legend(ncols=2, loc="upper left")
at_once, later, peak = usual[1] / usual[0], usual[-1] / usual[1], before[:, 0].max()
show(
    fig,
    alt=f"Size of the residual stream against depth on a logarithmic scale. The other tokens' goes from {usual[0]:.2f} "
    f"to {usual[-1]:.0f}, the first token's reaches {peak:.0f}. Behind each layer's norm the sizes lie between "
    f"{after.min():.2f} and {after.max():.2f}.",
    title=f"First layer: × {at_once:.0f}. The {len(before) - 2} after it: × {later:.0f}. The first token: {peak:.0f}",
)

# %% [markdown]
# Read the logarithmic axis twice. A layer can only add to the stream; nothing brings it back to one size. And compare
# the first token with the others: where it towers over them, a few of its numbers are enormous. Such *massive
# activations* are common in language models, and they are the other side of the *attention sink*: attention gathers on
# such a token (Sun et al. 2024, [arXiv:2402.17762](https://arxiv.org/abs/2402.17762)).
#
# The dashed lines are what the weight matrices get to see, the solid ones what they would have to live with.
#
# ## Which numbers belong together?
#
# A batch of text is a block of numbers: examples × positions × features. To normalize is to subtract a mean and to
# divide by a spread, and the whole question is: **the mean of which numbers?** Below, the batch lies flat, one row a
# token. Dark is the number that we want to normalize; light, the numbers whose statistics decide about it.
# (InstanceNorm, known from image generation, takes one feature of one example.)

# %% tags=["demo"]
examples, positions, features = 3, 4, 8
place = (1, 2, 5)  # example, position, feature


def who_decides(norm):
    """1 where the answer at `place` has a gradient, 2 at the place itself: [examples * positions, features]."""
    x = torch.randn(examples, positions, features, generator=torch.Generator().manual_seed(0)).requires_grad_()
    norm(x)[place].backward()
    decides = (x.grad != 0).float()
    decides[place] = 2
    return decides.flatten(0, 1)


norms = {
    "LayerNorm": lambda x: F.layer_norm(x, (features,)),
    "BatchNorm": lambda x: F.batch_norm(x.mT, None, None, training=True).mT,
    "InstanceNorm": lambda x: F.instance_norm(x.mT).mT,
}
fig, axes = figure(1, 3, width=10, height=4.2, sharey=True)
asked = {}
for ax, (name, norm) in zip(axes, norms.items(), strict=True):
    decides = who_decides(norm)
    asked[name] = f"tokens: {(decides > 0).any(1).sum()}, features: {(decides > 0).any(0).sum()}"
    ax.imshow(decides, cmap="Blues", vmin=0, vmax=2, aspect="auto")
    ax.set_title(f"{name}\n{asked[name]}", fontsize=11)
    ax.set_xticks(range(features))
    ax.set_yticks(range(examples * positions), [f"{e}, {p}" for e in range(examples) for p in range(positions)])
    ax.set_xlabel("feature")
    for edge in range(1, examples):
        ax.axhline(edge * positions - 0.5, color="#555555", linewidth=1)
axes[0].set_ylabel("example, position")
show(
    fig,
    alt="Three grids of tokens by features, marked where a norm's answer at one place depends on its input: "
    + "; ".join(f"{name} {what}" for name, what in asked.items())
    + ".",
    title="Whose numbers decide about one number of one token",
)

# %% [markdown]
# The picture is measured, not drawn: a cell is colored where the gradient of the answer isn't zero.
#
# ## Exercise 1: LayerNorm
#
# For a token $x$ with $d$ features (Ba et al. 2016):
#
# $$\mu = \frac{1}{d}\sum_i x_i, \qquad \sigma^2 = \frac{1}{d}\sum_i (x_i-\mu)^2, \qquad
# y_i = \frac{x_i-\mu}{\sqrt{\sigma^2+\epsilon}}\, w_i + b_i .$$
#
# $\epsilon$ keeps a row of equal numbers from being divided by zero. $w$ and $b$ are learned: they let the model undo
# what normalizing took away, feature by feature.


# %% exercise="layer_norm"
def layer_norm(x, weight=None, bias=None, eps=1e-5):
    """Layer norm over the last dimension: (x - mean) / sqrt(variance + eps) * weight + bias.

    x:            float32 or float64 tensor [..., d], any number of leading dimensions (also
                  none), d at least 1; also numbers around 100 which differ by 0.1 only
    weight, bias: tensors [d] of x's dtype, or None, each for itself: then nothing is
                  multiplied, or nothing added
    eps:          a small positive number, added to the variance under the root
    The variance is the biased one: the mean of the d squared distances from the mean.
    Returns a tensor [..., d] of x's dtype. x is not changed. Differentiable: gradients flow to
    x (also through mean and variance), weight and bias.

    Ba, Kiros, Hinton 2016, arXiv:1607.06450, section 3.
    """
    ### BEGIN SOLUTION
    centered = x - x.mean(-1, keepdim=True)
    y = centered / (centered.square().mean(-1, keepdim=True) + eps).sqrt()
    y = y if weight is None else y * weight
    return y if bias is None else y + bias
    ### END SOLUTION


# %% check="layer_norm"
check(layer_norm)

# %% [markdown]
# ## Half of LayerNorm: RMSNorm
#
# Is it the centering that helps, or the scaling? Zhang and Sennrich (2019) dropped the centering, and the bias with it:
#
# $$y_i = \frac{x_i}{\sqrt{\frac{1}{d}\sum_j x_j^2+\epsilon}}\, w_i .$$
#
# LLaMA, Mistral, Qwen and Gemma use this **RMSNorm**. How much does it leave out? In the real model, how large is a
# token's mean, compared with its RMS? Even random numbers have a mean that isn't quite zero; the dotted line says how
# large.

# %% tags=["demo"]
share = (stream.mean(-1).abs() / before)[:, 1:].flatten()
chance = 0.6745 / stream.shape[-1] ** 0.5  # the median of |mean| / RMS, where all numbers are normal and independent

fig, ax = figure(width=8.5, height=3.6)
ax.hist(share * 100, bins=40, color=COLORS[0])
ax.axvline(share.median() * 100, color=COLORS[1], linewidth=2, label=f"median, {share.median():.1%}")
ax.axvline(chance * 100, color="#444444", linestyle=":", linewidth=2, label=f"median of random numbers, {chance:.1%}")
ax.set(xlabel="|mean| of a token's vector, in % of its root mean square", ylabel="tokens, over all layers")
ax.legend()
show(
    fig,
    alt="Histogram of the size of a token's mean relative to its root mean square, over all layers and tokens. "
    f"Its median is {share.median():.1%}; random numbers have {chance:.1%}.",
    title=f"A token's mean: {share.median():.1%} of its size, {'less' if share.median() < chance else 'more'} than by "
    f"chance ({chance:.1%})",
)

# %% [markdown]
# That is what LayerNorm's centering would take away. This model was trained with RMSNorm, so nothing asked it to keep
# its means small. (In a model trained *with* LayerNorm the picture may be another one.)
#
# ## Exercise 2: RMSNorm
#
# One trap is not in the formula. Models run in 16 bits, and float16 ends at 65,504: the *square* of 300 is 90,000,
# which float16 calls infinity, and the answer would be $x/\infty = 0$. (How large do vectors get in the first figure?)
# LLaMA's norm therefore squares in float32 and casts back at the end. So shall yours.


# %% exercise="rms_norm"
def rms_norm(x, weight=None, eps=1e-6):
    """Divide every token by its root mean square: x / sqrt(mean(x ** 2) + eps) * weight.

    x:      floating-point tensor [..., d], any number of leading dimensions (also none), d at
            least 1; the mean goes over the last dimension
    weight: tensor [d] of x's dtype, or None: then nothing is multiplied
    eps:    a small positive number, added to the mean of the squares under the root
    No mean is subtracted, and there is no bias. Squares, root and quotient are computed in
    float32 or float64, also where x is float16 or bfloat16.
    Returns a tensor [..., d] of x's dtype. x is not changed. Differentiable: gradients flow to
    x (also through the root mean square) and weight.

    Zhang, Sennrich 2019, arXiv:1910.07467, equation 4.
    """
    ### BEGIN SOLUTION
    wide = x.float()
    y = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (y if weight is None else y * weight).to(x.dtype)
    ### END SOLUTION


# %% check="rms_norm"
check(rms_norm)

# %% [markdown]
# ## Payoff: your norm inside a real model
#
# The model holds 61 RMSNorms: two a layer, and one at the end. We let each of them call *your* function, and compare
# the scores of the next token, its *logits*.

# %% tags=["payoff"]
from transformers.models.llama.modeling_llama import LlamaRMSNorm

with torch.inference_mode():
    own = model(ids).logits
rms_norm(torch.ones(3))  # while exercise 2 is unsolved, this cell ends here
original = LlamaRMSNorm.forward
LlamaRMSNorm.forward = lambda self, x: rms_norm(x, self.weight, self.variance_epsilon)
try:
    with torch.inference_mode():
        yours = model(ids).logits
finally:
    LlamaRMSNorm.forward = original
print(
    f"{sum(isinstance(m, LlamaRMSNorm) for m in model.modules())} norms replaced; largest difference of a score: "
    f"{(yours - own).abs().max():.1e}, where scores go up to {own.abs().max():.0f}"
)
assert (yours - own).abs().max() < 0.05, "Your norm is not the model's: solve exercise 2 first."

# %% [markdown]
# ## Two ways to round an RMSNorm
#
# In bfloat16, in which models really run, one can round at different moments. `F.rms_norm` multiplies by the weight in
# float32 and rounds once. LLaMA's code rounds the normalized vector, and then again behind the weight. Does that
# matter? We give both the same bfloat16 numbers and a norm's own weights, and ask float64 who is nearer.

# %% tags=["demo"]
from transformers.models.llama.modeling_llama import LlamaRMSNorm

theirs = model.model.layers[5].post_attention_layernorm
llama = LlamaRMSNorm(len(theirs.weight), theirs.variance_epsilon).bfloat16()
llama.weight.data = theirs.weight.data.bfloat16()
tokens = torch.randn(64, len(theirs.weight), generator=torch.Generator().manual_seed(0)).bfloat16()
setting = tokens.shape[-1:], llama.weight, llama.variance_epsilon
with torch.inference_mode():
    twice, once = llama(tokens), F.rms_norm(tokens, *setting)
    exact = F.rms_norm(tokens.double(), setting[0], llama.weight.double(), setting[2])
print(f"{(twice != once).float().mean():.0%} of the numbers differ between LLaMA's code and F.rms_norm")
for name, answer in {"F.rms_norm": once, "LlamaRMSNorm": twice}.items():
    nearest = (answer == exact.bfloat16()).float().mean()
    wrong = ((answer.double() - exact) / exact).abs().max()
    print(f"{name:13} is the nearest bfloat16 number in {nearest:.0%} of the places, at worst {wrong:.2%} off")

# %% [markdown]
# Wherever numbers differ, a fused kernel that "does the same" doesn't reproduce a model's scores bit by bit, and a test
# against the reference needs a tolerance for that reason alone.
#
# ## BatchNorm: ask the neighbors
#
# BatchNorm (Ioffe and Szegedy 2015) takes the other direction: one mean and one variance a *feature*, over all examples
# (and all positions) of the batch. In vision that was a revolution. It needs two modes:
#
# * in **training**, the statistics of the current batch;
# * in **evaluation**, where a single example must have an answer, *running* statistics, gathered during training:
#   $r \leftarrow (1-m)\,r + m\,\text{batch}$, with momentum $m = 0.1$.
#
# A detail that trips many: torch normalizes by the *biased* variance, and gathers the *unbiased* one.
#
# ## Exercise 3: BatchNorm


# %% exercise="batch_norm"
def batch_norm(x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5):
    """Normalize channels over the batch: (x - mean) / sqrt(variance + eps) * weight + bias.

    x:                          float32 or float64 tensor [n, c] or [n, c, length]; channels are
                                dimension 1; also numbers around 100 which differ by 0.1 only
    running_mean, running_var:  tensors [c] of x's dtype
    weight, bias:               tensors [c] of x's dtype, or None, each for itself: then nothing
                                is multiplied, or nothing added
    training=True:  mean and biased variance (divided by the number of values) of each channel
                    in this batch, over examples and positions; at least two values a channel.
                    The new running statistics are (1 - momentum) * running + momentum * batch,
                    with the *unbiased* variance of the batch.
    training=False: running_mean and running_var are used, and come back as they are. A single
                    example is fine.
    Returns three tensors of x's dtype: the result, of x's shape; the new running mean [c]; the
    new running variance [c]. Nothing that came in is changed in place. The result is
    differentiable: gradients flow to x (in training also through the batch's mean and
    variance), weight and bias.

    Ioffe, Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2; running averages as in
    torch.nn.BatchNorm1d.
    """
    ### BEGIN SOLUTION
    dims, shape = ([0], (1, -1)) if x.ndim == 2 else ([0, 2], (1, -1, 1))
    if training:
        mean, variance = x.mean(dims), x.var(dims, correction=0)
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * x.var(dims)
    else:
        mean, variance = running_mean, running_var
    y = (x - mean.view(shape)) / (variance.view(shape) + eps).sqrt()
    y = y if weight is None else y * weight.view(shape)
    return (y if bias is None else y + bias.view(shape)), running_mean, running_var
    ### END SOLUTION


# %% check="batch_norm"
check(batch_norm)

# %% [markdown]
# ## The Transformer that hardly anybody trains
#
# The usual answer says that BatchNorm's two modes don't fit together: "a statistical shift". So we train it. A causal
# language model of 2 layers and 64 features reads Shakespeare by letters, 150 steps, with each of the three norms, on
# 2, 12 or 48 rows of 48 letters. Note what counts: a mean is taken over rows × positions, so two rows are 96 values a
# feature, not two, and even a batch of one row can be trained on. To see what a shift *would* look like, a fourth
# size cuts the two rows into parts of 6 letters.
#
# Each run has its own best of four learning rates, chosen on validation text; the test text is read in both modes.
#
# **Before the run:** a shift is a difference between the modes of more than 0.02 nats a letter, for the whole interval
# over the seeds. The claim is *correct* if all three sizes show it, *imprecise* if only some do, or none but the 6
# letters, *wrong* if nothing does.

# %% claim="T06.5"
found = evidence("T06.5")
print(found.again())
SIZES = (6, 96, 576, 2304)
shifts = {size: found.interval(f"BatchNorm, {size} tokens", "shift") for size in SIZES}
behind = {n: found.interval(f"BatchNorm, {n} tokens", "loss", minus=f"LayerNorm, {n} tokens") for n in SIZES[1:]}
for name in ("BatchNorm", "LayerNorm", "RMSNorm"):
    chosen = {size: sorted(set(found.each(f"{name}, {size} tokens", "rate"))) for size in SIZES[1:]}
    print(
        f"{name:10} chose, of 0.001 to 0.03:",
        "; ".join(f"{rates} at {size:,} letters" for size, rates in chosen.items()),
    )
print("On batches of 96 letters, test loss in nats a letter:")
for name, number, told in (
    ("BatchNorm, 6 tokens", "loss in training mode", "BatchNorm over 6 letters, training mode"),
    ("BatchNorm, 6 tokens", "loss", "BatchNorm over 6 letters, evaluation mode"),
    ("LayerNorm, 96 tokens", "loss", "LayerNorm"),
):
    print(f"    {found.interval(name, number).mean:.2f}  {told}")

fig, (left, right) = figure(1, 2, width=10.5, height=4)
for name, color, mark, shift in (
    ("LayerNorm", COLORS[0], "o", 0.93),
    ("RMSNorm", COLORS[2], "^", 1.0),
    ("BatchNorm", COLORS[1], "s", 1.07),
):
    losses = torch.tensor([found.each(f"{name}, {size} tokens", "loss") for size in SIZES[1:]])
    at = torch.tensor(SIZES[1:])[:, None] * shift
    left.plot(at, losses.mean(1), color=color, linewidth=1.5)
    left.plot(at.expand_as(losses).flatten(), losses.flatten(), mark, color=color, label=name, alpha=0.8)
left.set(xscale="log", xlabel="letters a batch", ylabel="test loss, nats a letter", title="In evaluation mode")
left.legend()
for size in SIZES:
    each = found.each(f"BatchNorm, {size} tokens", "shift")
    right.plot([size] * len(each), each, "s", color=COLORS[1], alpha=0.8)
right.plot(SIZES, [shifts[size].mean for size in SIZES], color=COLORS[1], linewidth=1.5)
right.axhline(0.02, color="#444444", linestyle=":")
right.text(SIZES[-1], 0.022, "counts from here", ha="right", va="bottom")
right.set(xscale="log", yscale="log", xlabel="letters that share statistics", ylabel="nats a letter")
right.set_title("BatchNorm: evaluation against training")
for ax, ticks in ((left, SIZES[1:]), (right, SIZES)):
    ax.set_xticks(ticks, ticks)
    ax.minorticks_off()
told = signs(", ".join(f"{behind[size].mean:+.2f} at {size:,}" for size in behind))
show(
    fig,
    alt=f"Left: test loss of models with three norms by letters a batch; BatchNorm above LayerNorm {told}. Right: "
    "difference of BatchNorm's modes by letters that share statistics: "
    + ", ".join(f"{shifts[size].mean:.3f} at {size:,}" for size in SIZES)
    + ". Dots are seeds.",
    title=f"BatchNorm's loss above LayerNorm's, by letters a batch: {told}",
)
counts = [shifts[size].above(0.02) for size in SIZES[1:]]
word = "correct" if all(counts) else "imprecise" if any(counts) or shifts[6].above(0.02) else "wrong"
verdict(
    "T06.5",
    word,
    f"The modes differ by {shifts[6].mean:.2f} nats where 6 letters share statistics, by "
    f"{shifts[96].mean:.3f} at 96 and {shifts[2304].mean:.4f} at 2,304 (the threshold is 0.02).",
)

# %% [markdown]
# Look at the last lines that were printed. Where a model knows the next letter in training mode *too* well for its
# size, it sees it: a mean over six letters holds some of those to come. That is BatchNorm's **leak to the future**.
# Training mode alone has it, and whoever has learned to use it stands without it in evaluation. In a mean over hundreds
# of letters no single one has much of a say.
#
# Read the left panel by size, and as what it is: a race that is stopped early, of a small model. In models of real
# size, trained to the end, Shen et al. saw BatchNorm degrade, and found why: in language a feature's batch statistics
# fluctuate strongly, all through training. A small batch has such noise for a simpler reason. And where a norm chose
# the last rate of the grid, see above, its optimum may lie beyond.
#
# ## Sentences have different lengths
#
# The reason that is named first. Texts of different lengths are filled up with **padding**. Padding means nothing, and
# a model must not notice it. Three things could disturb BatchNorm here, and the usual answer mixes them up: that
# *lengths* differ, that *padding* is counted, or just that there are *neighbors*, of whatever length.
#
# We part them. The same model is trained on texts of one length (26 letters), on ragged ones (4 to 48) with the padding
# in the statistics, as `torch.nn.BatchNorm1d` has it, and on ragged ones with a mask that leaves it out. Then a text of
# 8 letters stands among other short ones, and we exchange its neighbors: for other short texts where lengths are
# equal, for long ones else. How far do its scores move, in training mode?
#
# **Before the run:** lengths count if they move the text by more than neighbors of *equal* length do, by over 5 % of
# the scores' spread. The claim is *correct* if that is so with the padding left out, *imprecise* if only with the
# padding counted (then it is the padding, and a mask cures it), else *wrong*.

# %% claim="T06.1"
found = evidence("T06.1")
print(found.again())
KINDS = {
    "LayerNorm, ragged": ("LayerNorm,\nragged", "LayerNorm, ragged"),
    "BatchNorm, equal lengths": ("BatchNorm,\nequal lengths", "LayerNorm, equal lengths"),
    "BatchNorm, ragged, padding left out": ("BatchNorm, ragged,\npadding left out", "LayerNorm, ragged"),
    "BatchNorm, ragged, padding counted": ("BatchNorm, ragged,\npadding counted", "LayerNorm, ragged"),
}
moved = {kind: found.interval(kind, "moved") for kind in KINDS}
more = {kind: found.interval(kind, "moved", minus="BatchNorm, equal lengths") for kind in list(KINDS)[2:]}
cost = {kind: found.interval(kind, "loss", minus=other) for kind, (_, other) in KINDS.items()}

fig, (left, right) = figure(1, 2, width=10.5, height=3.9, sharey=True)
for row, (kind, (_, other)) in enumerate(KINDS.items()):
    color = COLORS[0] if kind.startswith("Layer") else COLORS[1]
    left.barh(row, moved[kind].mean * 100, color=color, height=0.55, alpha=0.5)
    left.plot([100 * value for value in found.each(kind, "moved")], [row] * moved[kind].n, "o", color=color)
    apart = [a - b for a, b in zip(found.each(kind, "loss"), found.each(other, "loss"), strict=True)]
    right.plot(apart, [row] * len(apart), "o", color=color)
left.set_yticks(range(len(KINDS)), [name for name, _ in KINDS.values()])
left.set(xlabel="change of a short text's scores, % of their spread", title="Other neighbors, training mode")
right.axvline(0, color="#444444", linestyle=":")
right.set(xlabel="test loss above LayerNorm's on the same texts, nats", title="What training makes of it")
masked, padded = more
equal = moved["BatchNorm, equal lengths"].mean
show(
    fig,
    alt="Left: how far a short text's scores move when its neighbors change: "
    + ", ".join(f"{kind} {moved[kind].mean:.0%}" for kind in KINDS)
    + ". Right: test loss above LayerNorm's: "
    + signs(", ".join(f"{kind} {cost[kind].mean:+.3f}" for kind in list(KINDS)[1:]))
    + ". Dots are seeds.",
    title=f"Other neighbors move a text: of equal length by {equal:.0%}, long ones by {moved[masked].mean:.0%}, with "
    f"padding by {moved[padded].mean:.0%}",
)
word = "correct" if more[masked].above(0.05) else "imprecise" if more[padded].above(0.05) else "wrong"
verdict(
    "T06.1",
    word,
    signs(
        f"Beyond what neighbors of equal length do ({equal:.0%}), lengths move a text by {more[masked].text('+.0%')} "
        f"with the padding left out and by {more[padded].text('+.0%')} with the padding counted."
    ),
)

# %% [markdown]
# torch's BatchNorm doesn't take a mask: a thing to write oneself, and to get wrong in silence. Against the neighbors
# themselves nothing helps. It is what BatchNorm *is*.
#
# ## "LayerNorm depends on a single example"
#
# Or on even less? We replace one token: in another sentence, in the same sentence, or the token itself, on twenty
# random batches, and look at one token's answer.
#
# Then the same for writing. A language model appends token after token and keeps what it has computed: the **KV
# cache**. That is sound only if an old token's vector stays as it is when new ones arrive.
#
# **Before the run:** the claim is *correct* if nothing outside the example moves LayerNorm's answer, *wrong* if
# something does.

# %% claim="T06.2"
g = torch.Generator().manual_seed(1)


def layer(x):
    return F.layer_norm(x, x.shape[-1:])


def batch(x):
    return F.batch_norm(x.flatten(0, -2), None, None, training=True).view_as(x)


PLACES = {"a token of another example": (3, 0), "another token of the example": (0, 5), "the token itself": (0, 2)}
changes = {(norm, name): 0.0 for norm in (layer, batch) for name in PLACES}
for _ in range(20):
    x, new = torch.randn(4, 6, 32, generator=g), torch.randn(32, generator=g)
    for name, where in PLACES.items():
        other = x.clone()
        other[where] = new
        for norm in (layer, batch):
            change = (norm(other) - norm(x))[0, 2].abs().max().item()
            changes[norm, name] = max(changes[norm, name], change)
print(f"{'largest change of one token, if we replace …':46}{'LayerNorm':>10}{'BatchNorm':>11}")
for name in PLACES:
    print(f"{name:46}{changes[layer, name]:10.3f}{changes[batch, name]:11.3f}")

written = model.get_input_embeddings().weight.detach()[ids[0]]  # one real sentence, token by token
lengths = range(2, len(written) + 1)
drift = {
    norm: [root_mean_square((norm(written[:n])[:2] - norm(written[:2])).flatten()).item() for n in lengths]
    for norm in (layer, batch)
}
fig, ax = figure(width=8.5, height=3.6)
ax.plot(lengths, drift[batch], "s-", color=COLORS[1], label="BatchNorm, statistics of the text so far")
ax.plot(lengths, drift[layer], "o-", color=COLORS[0], label="LayerNorm")
ax.set(xlabel="tokens written so far", ylabel="RMS change of tokens 0 and 1")
ax.legend()
show(
    fig,
    alt="How far the first two tokens' normalized vectors have moved from what they were, against the tokens written: "
    f"BatchNorm's statistics of the text so far {drift[batch][-1]:.2f} at the end, LayerNorm {drift[layer][-1]:.2f}.",
    title=f"How far the first tokens have moved: BatchNorm {drift[batch][-1]:.2f}, LayerNorm {drift[layer][-1]:.2f}",
)
outside, inside, itself = (changes[layer, name] for name in PLACES)
verdict(
    "T06.2",
    "correct" if outside == 0 < itself else "wrong",
    f"Another example moves LayerNorm's answer by {outside:.3f}, another token of the same example by {inside:.3f}, "
    f"the token itself by {itself:.1f}. Another example moves BatchNorm's by "
    f"{changes[batch, 'a token of another example']:.2f}.",
)

# %% [markdown]
# In evaluation BatchNorm is a fixed scale and shift, so a cache is sound there. But then the model that writes is never
# quite the model that was trained, and whoever trains on what it wrote, as reinforcement learning does, compares two
# different functions.
#
# ## "BatchNorm is hard to parallelize"
#
# On one device it is a sum over a dimension, like LayerNorm: nothing in it is serial. On several, each process
# (**rank**) holds a few rows and sees their statistics alone. Either nobody minds, or the statistics are exchanged in
# every layer, forward and backward (`torch.nn.SyncBatchNorm`). So: does it cost anything if nobody minds?
#
# We train on 12 rows of 48 letters, spread over 1, 4 or 12 ranks that don't talk. Running statistics are rank 0's, as
# `DistributedDataParallel` sends them to all. To see what damage would look like, 96 ranks get 6 letters each.
# (LayerNorm sums within a token, so cutting a batch changes none of its numbers: there is nothing to run.)
#
# **Before the run:** the claim is *correct* if four ranks already cost more than 0.02 nats, *wrong* if even twelve cost
# less, *imprecise* between.

# %% claim="T06.3"
from experiments.normed_lm import LanguageModel, draw, train

found = evidence("T06.3")
print(found.again())
RANKS = (4, 12, 96)
cost = {n: found.interval(f"BatchNorm, {n} ranks", "loss", minus="BatchNorm, 1 rank") for n in RANKS}

net = LanguageModel(kind="batch")
widths = [part.mean.numel() for part in net.modules() if hasattr(part, "mean")]
exchanged = sum(4 * width + 1 for width in widths)  # mean, deviation, count forward; two sums backward
gradient = sum(p.numel() for p in net.parameters())
print(
    f"In step, ranks would exchange {exchanged:,} numbers more than the gradient's {gradient:,}, in "
    f"{2 * len(widths)} rounds, each of which all wait for."
)

rates = {n: sorted(set(found.each(f"BatchNorm, {n} rank{'s' * (n > 1)}", "rate"))) for n in (1, *RANKS)}
print("Rates that were best, of 0.003, 0.01 and 0.03 (beyond the first and the last nothing was tried):")
print("; ".join(f"{n} rank{'s' * (n > 1)} {', '.join(map(str, chosen))}" for n, chosen in rates.items()))

fig, ax = figure(width=8.5, height=3.6)
for row, n in enumerate(RANKS):
    whole, cut = (found.each(f"BatchNorm, {name}", "loss") for name in ("1 rank", f"{n} ranks"))
    ax.plot([b - a for a, b in zip(whole, cut, strict=True)], [row] * len(cut), "o", color=COLORS[1])
    ax.plot([cost[n].low, cost[n].high], [row, row], color=COLORS[1], linewidth=6, alpha=0.25)
ax.axvline(0.02, color="#444444", linestyle=":", label="counts from here")
ax.set_yticks(range(len(RANKS)), [f"{n} ranks, {12 * 48 // n} letters each" for n in RANKS])
ax.set(xlabel="test loss above that of one rank with all 12 rows, nats a letter")
ax.legend(loc="lower right")
told = signs(", ".join(f"{n} ranks {cost[n].mean:+.2f}" for n in RANKS))
show(
    fig,
    alt=f"What it costs to cut BatchNorm's batch among ranks, in nats a letter: {told}. Dots are seeds, bands 95 %.",
    title=f"Nats lost by a cut among silent ranks: {told}",
)
free = all(cost[n].below(0.02) for n in (4, 12))
verdict(
    "T06.3",
    "correct" if cost[4].above(0.02) else "wrong" if free else "imprecise",
    signs(
        f"4 ranks cost {cost[4].text('+.3f')} nats, 12 ranks {cost[12].text('+.3f')}; 96 ranks would cost "
        f"{cost[96].mean:+.2f}."
    ),
)

# %% [markdown]
# What the sentence gropes for is *coupling*. Whoever wants the same model on any number of ranks must exchange
# statistics, and every exchange is a wait in the middle of the forward or backward pass, with all ranks in step.
# LayerNorm's partners are the features of one token, and they sit on one rank, unless the features themselves are
# shared out (tensor parallelism).
#
# ## Two sets of statistics
#
# In evaluation BatchNorm uses "the statistics of the whole training set", they say. Frameworks keep a moving
# average instead. Does it matter? We show a BatchNorm the same 3,000 numbers twice, shuffled and sorted, five times
# over. A control: `momentum=None` keeps a true average.
#
# **Before the run:** "whole training set" would be *correct* if the running mean ended within a tenth of the numbers'
# spread in both orders. It is *imprecise* if only shuffled numbers end there, *wrong* if not even those do.


# %% claim="T06.4"
def running_means(data, momentum):
    norm = nn.BatchNorm1d(1, momentum=momentum)
    means = []
    for rows in data.split(30):
        norm(rows)
        means.append(norm.running_mean.item())
    return torch.tensor(means)


STYLES = {"shuffled": ("shuffled", 0.1), "sorted": ("sorted", 0.1), "sorted, momentum=None": ("sorted", None)}
curves = {name: [] for name in STYLES}
for seed in range(5):
    numbers = torch.randn(3_000, 1, generator=torch.Generator().manual_seed(seed)) * 2 + 3
    orders = {"shuffled": numbers, "sorted": numbers.sort(0).values}  # independent draws are shuffled already
    for name, (order, momentum) in STYLES.items():
        off = (running_means(orders[order], momentum) - numbers.mean()) / numbers.std()
        curves[name].append(off)

fig, ax = figure(width=9, height=3.9)
for (name, lines), color, style in zip(curves.items(), COLORS, ("-", "-", "--"), strict=False):
    for line in lines:
        ax.plot(line, color=color, linestyle=style, linewidth=1, label=name if line is lines[0] else None)
ax.axhspan(-0.1, 0.1, color="#999999", alpha=0.25, label="the training set's, to a tenth")
ax.set(xlabel="batch of 30", ylabel="running − true mean, in spreads")
ax.legend()
ends = {name: interval([line[-1].item() for line in lines]) for name, lines in curves.items()}
told = "; ".join(f"{name} {abs(ends[name].mean):.2f}" for name in ends)
show(
    fig,
    alt=f"Running mean against batches, relative to the training set's mean and spread. It ends off by: {told}.",
    title=f"Off at the end, in spreads: {told}",
)
near = {name: ends[name].within(-0.1, 0.1) for name in ends}
word = "wrong" if not near["shuffled"] else "correct" if near["sorted"] else "imprecise"
verdict(
    "T06.4",
    word,
    signs(
        f"Shuffled numbers end {ends['shuffled'].text('+.2f')} spreads from the training set's mean, sorted ones "
        f"{ends['sorted'].text('+.2f')}."
    ),
)

# %% [markdown]
# The running mean forgets: after ten batches a third is left. The original paper averages over many batches once
# training is done, and `momentum=None` does so along the way.
#
# ## Where does the norm go?
#
# The first Transformer normalized *after* each sum: $\text{norm}(x + f(x))$, **post-norm**. Since GPT-2 most models
# normalize what goes into a part: $x + f(\text{norm}(x))$, **pre-norm**. The same pieces, other places:
#
# $$h = x + \text{attention}(\text{norm}_1(x)), \qquad y = h + \text{feed-forward}(\text{norm}_2(h)) .$$
#
# The last sum leaves such a block as it is. So a pre-norm model has one more norm, in front of its output layer: the
# 61st, above.
#
# ## Exercise 4: a block with the norms in front


# %% exercise="pre_norm_block"
def pre_norm_block(x, norm1, attention, norm2, feed_forward):
    """One Transformer block with the norms in front of its parts.

    x: floating-point tensor [batch, length, d]
    norm1, attention, norm2, feed_forward: functions from [batch, length, d] to [batch, length,
       d]. Each is called once, with the whole batch: first attention, on the tokens that norm1
       gives; what it returns is added to x. Then feed_forward, on what norm2 makes of that sum;
       what it returns is added to the sum.
    Returns a tensor [batch, length, d] of x's dtype: the second sum, not normalized. x is not
    changed in place. Differentiable: gradients flow to x and through all four functions.

    Xiong et al. 2020, arXiv:2002.04745, figure 1b.
    """
    ### BEGIN SOLUTION
    h = x + attention(norm1(x))
    return h + feed_forward(norm2(h))
    ### END SOLUTION


# %% check="pre_norm_block"
check(pre_norm_block)

# %% [markdown]
# ## What the place does to gradients, and what Adam does with them
#
# In pre-norm nothing on the way of $x$ itself is ever normalized: the **identity path** runs through. In post-norm
# every sum passes a norm. Xiong et al. (2020) proved that post-norm's gradients near the output are therefore large at
# the start, and explained by it why post-norm needs **warm-up**, a learning rate that grows from nothing.
#
# But look at Adam's first step. Both of its moments, the running means of $g$ and of $g^2$, hold one gradient $g$, and
#
# $$\Delta\theta = -\eta\,\frac{\hat m}{\sqrt{\hat v}+\epsilon} = -\eta\,\frac{g}{|g|+\epsilon} \approx \mp\,\eta ,$$
#
# *whatever the size of $g$*. A large gradient makes no larger step. What can differ is what the same step does to the
# model's output. We take one step at $\eta = 10^{-3}$ and measure both: the gradients by layer, and how far the scores
# of other text move, by depth.

# %% tags=["demo"]
ROWS, LENGTH = 16, 32


def first_step(depth, place, seed):
    """Of a new model: each layer's gradient (its first feed-forward matrix), and the change of scores by one step."""
    torch.manual_seed(seed)
    net = LanguageModel(depth, 32, place=place, length=LENGTH)
    generator = torch.Generator().manual_seed(seed)
    pieces, others = (draw(part, ROWS, LENGTH, generator) for part in ("train", "validation"))
    with torch.no_grad():
        before = net(others[:, :-1])
    train(net, 1e-3, 1, lambda: (pieces,))
    with torch.no_grad():
        change = net(others[:, :-1]) - before
    gradients = [block.parts[1][0].weight.grad.norm().item() for block in net.blocks]
    return gradients, (change.square().mean().sqrt() / before.std()).item()


DEPTHS, SHOWN, SEEDS = (2, 4, 8, 16, 24), 16, 3
steps = {
    (place, depth): [first_step(depth, place, s) for s in range(SEEDS)] for place in ("pre", "post") for depth in DEPTHS
}
fig, (left, right) = figure(1, 2, width=10.5, height=4)
for place, color, mark in (("post", COLORS[1], "s"), ("pre", COLORS[0], "o")):
    for gradients, _ in steps[place, SHOWN]:
        left.plot(range(SHOWN), gradients, color=color, marker=mark, markersize=3, linewidth=1)
    moves = torch.tensor([[moved for _, moved in steps[place, depth]] for depth in DEPTHS])
    right.plot(DEPTHS, moves.mean(1), color=color, label=f"{place}-norm")
    right.plot(torch.tensor(DEPTHS)[:, None].expand_as(moves).flatten(), moves.flatten(), mark, color=color)
left.set(xlabel="layer", ylabel="gradient norm", title=f"Gradients before training, {SHOWN} layers", ylim=(0, None))
right.set(xscale="log", xlabel="layers", ylabel="RMS change ÷ spread", title="Change of the scores by one Adam step")
right.set_xticks(DEPTHS, DEPTHS)
right.minorticks_off()
right.legend()
top = {p: sum(g[-1] for g, _ in steps[p, SHOWN]) / sum(g[0] for g, _ in steps[p, SHOWN]) for p in ("post", "pre")}
deep = {p: interval([moved for _, moved in steps[p, 24]]).mean for p in ("post", "pre")}
show(
    fig,
    alt="Left: gradient by layer; last against first layer, post-norm "
    f"{top['post']:.1f}, pre-norm {top['pre']:.1f}. Right: change of the scores by one step against depth; at "
    f"24 layers post-norm {deep['post']:.2f}, pre-norm {deep['pre']:.2f}. Three seeds each.",
    title=f"Last gradient ÷ first: post {top['post']:.1f}, pre {top['pre']:.1f}. "
    f"One step at 24 layers: {deep['post']:.2f} and {deep['pre']:.2f} spreads",
)

# %% [markdown]
# The left panel looks for Xiong's effect, the right one for another's. Liu et al. (2020) hold that the right one
# matters: *unbalanced gradients are not the root cause*, but post-norm leans heavily on every layer's branch, so small
# changes of the weights are **amplified** on their way to the output. (Three models a depth: see how far they lie
# apart.)
#
# ## "Post-norm needs warm-up because its gradients near the output are large"
#
# The two explanations can be told apart by running something: take away what the first one blames, and let Adam do the
# rest. If it is right, that should do what warm-up does. There are two ways:
#
# * **layers balanced**: each layer's gradient is divided by its size in the first step, so all begin with the same. A
#   fixed factor cancels in Adam's ratio, but for $\epsilon$; this arm checks that the formula holds for a whole run;
# * **one size a step**: all layers are divided by *one* number in each step, their common size, as if clipped hard.
#   Then no step has a large gradient, and Adam's averages do notice. No formula says how that ends.
#
# Six layers of 32 features for 200 steps, and twelve for 400 (there the second change alone: that the first cancels is
# algebra); warm-up over the first 35 %; grids of rates that a pilot with another seed chose. Rates are picked on
# validation text, test text is reported. At each depth we look at two spots: where each way stands at its own best
# rate, as one would use it, and at the one rate at which warm-up helps most.
#
# **Before the run:** a spot counts if warm-up surely gains more than 0.05 nats there (the whole interval over the
# seeds). The explanation is *wrong* if, at each spot that counts, the changes surely gain less than half of what
# warm-up gains; *correct* if at each one of them surely gains more than half; *unverifiable* if no spot counts; else
# *imprecise*. Post-norm *needs* warm-up at a depth if the spot of the best rates counts there.

# %% claim="T06.6"
from experiments import T06_6, T06_7
from experiments.T06_6 import COUNTS, over_seeds
from experiments.T06_7 import CHANGES, SPOTS, WARM, at_spot, explained, helped, most_helped, named, won

found, deeper = evidence("T06.6"), evidence("T06.7")
print(found.again())
RUNS = {6: (found, T06_6.RATES["post"]), T06_7.DEPTH: (deeper, T06_7.RATES["post"])}
WAYS = ("", WARM, *CHANGES)
MARKED = dict(zip(WAYS, zip((COLORS[1], COLORS[0], COLORS[3], COLORS[2]), "soD^", strict=True), strict=True))
gained = {(depth, spot): won(at_spot(RUNS[depth][0], depth, spot)) for depth in RUNS for spot in SPOTS}
most = {depth: grid[most_helped(runs, depth)] for depth, (runs, grid) in RUNS.items()}

fig, (*panels, right) = figure(1, 1 + len(RUNS), width=12, height=4.4)
for ax, (depth, (runs, grid)) in zip(panels, RUNS.items(), strict=True):
    for way, (color, mark) in MARKED.items():
        if (arm := named("post", depth, way)) in runs.arms:
            losses = over_seeds(runs, arm)
            ax.plot(grid, losses.mean(0), color=color, label=way or "as it is", marker=mark)
            ax.fill_between(grid, losses.amin(0), losses.amax(0), color=color, alpha=0.15, linewidth=0)
    ax.axvline(most[depth], color="#444444", linestyle=":")
    ax.set(xscale="log", xlabel="learning rate, thousandths", title=f"Post-norm, {depth} layers")
    ax.set_xticks(grid, [f"{1000 * rate:g}" for rate in grid])
    ax.minorticks_off()
    ax.sharey(panels[0])
panels[0].set(ylabel="test loss, nats a letter")
panels[0].legend()
for row, ((depth, spot), each) in enumerate(gained.items()):
    losses = at_spot(RUNS[depth][0], depth, spot)
    for shift, (way, gain) in zip((-0.22, 0, 0.22), each.items(), strict=False):
        color, mark = MARKED[way]
        seeds = (losses[""] - losses[way]).tolist()
        right.plot(seeds, [row + shift] * len(seeds), mark, color=color, markersize=4)
        right.plot([gain.low, gain.high], [row + shift] * 2, color=color, linewidth=6, alpha=0.25)
right.set_yticks(range(len(gained)), [f"{depth} layers\n{spot}".replace(" at ", "\nat ") for depth, spot in gained])
right.invert_yaxis()
right.axvline(0, color="#444444", linestyle=":")
right.axvline(COUNTS, color="#444444", linewidth=0.8)
right.set(xlabel="nats gained, against as it is")


def told(depth, spot, form):
    """What each way gains at a spot, in words."""
    return signs(", ".join(f"{way} {form(gain)}" for way, gain in gained[depth, spot].items()))


short = {key: told(*key, lambda gain: f"{gain.mean:+.2f}") for key in gained}
show(
    fig,
    alt=f"Loss of post-norm against rate, {len(WAYS)} ways; then gains in nats, dots for seeds and 95 % bands. "
    + " ".join(f"{depth} layers, {spot}: {text}." for (depth, spot), text in short.items()),
    title="\n".join(f"{depth} layers at rate {most[depth]:g}, nats gained: {short[depth, SPOTS[1]]}" for depth in RUNS),
)
said = [word for depth, (runs, _) in RUNS.items() for word in explained(runs, depth)]
needs = {depth: gained[depth, SPOTS[0]][WARM].above(COUNTS) for depth in RUNS}
verdict(
    "T06.6",
    said[0] if len(set(said)) == 1 else "imprecise" if said else "unverifiable",
    " ".join(
        f"{depth} layers, at rate {most[depth]:g} (tried: {', '.join(f'{rate:g}' for rate in RUNS[depth][1])}): "
        f"{told(depth, SPOTS[1], lambda gain: gain.text('+.2f'))} nats; "
        f"{SPOTS[0]}: {told(depth, SPOTS[0], lambda gain: gain.text('+.2f'))}, so post-norm "
        f"{'needs' if needs[depth] else 'is not shown to need'} it there."
        for depth in RUNS
    ),
)

# %% [markdown]
# All this is about Adam. In plain SGD a large gradient *is* a large step, and there the explanation may well hold.
#
# What else may warm-up do? By Kalra and Barkeshli it leads the weights into a flatter region of the loss, in
# which a large rate is survived. An older answer, the variance of Adam's second moment (RAdam), was contested by Ma and
# Yarats.
#
# ## "Pre-norm needs no warm-up"
#
# Now depth by rate, both places, with warm-up and without.
#
# **Before the run:** at each depth, pre-norm has its best rate (on validation text). The claim is *wrong* if warm-up
# gains more than 0.05 nats there at some depth, for the whole interval. It is *correct* if it gains less, there and at
# the next larger rate of the grid, at every depth. It is *imprecise* otherwise: at the best rate it isn't needed, and
# beyond it is of use, or the seeds don't decide.

# %% claim="T06.7"
print(deeper.again())
DEEP = {2: (found, T06_6), 6: (found, T06_6), T06_7.DEPTH: (deeper, T06_7)}
fig, axes = figure(1, len(DEEP), width=10.5, height=4, sharey=True)
there, beyond, last, chosen = {}, {}, {}, {}
for ax, (depth, (runs, of)) in zip(axes, DEEP.items(), strict=True):
    for place, color, mark in (("post", COLORS[1], "s"), ("pre", COLORS[0], "o")):
        grid = of.RATES.get(place) or of.RATES["other"]
        for way, style in (("", "-"), (WARM, "--")):
            losses = over_seeds(runs, named(place, depth, way))
            label = f"{place}-norm{', warm-up' if way else ''}"
            ax.plot(grid, losses.mean(0), color=color, linestyle=style, marker=mark, label=label)
            ax.fill_between(grid, losses.amin(0), losses.amax(0), color=color, alpha=0.12, linewidth=0)
    ax.set(xscale="log", xlabel="learning rate", title=f"{depth} layers, {of.STEPS} steps")
    here, (there[depth], beyond[depth], last[depth]) = helped(runs, depth)
    chosen[depth] = f"{grid[here]:g} of {', '.join(f'{rate:g}' for rate in grid)}"  # the last grid drawn is pre-norm's
axes[0].set(ylabel="test loss, nats a letter")
axes[0].legend()
gain_told = signs(", ".join(f"{there[d].mean:+.2f} and {beyond[d].mean:+.2f} at {d} layers" for d in there))
show(
    fig,
    alt=f"Test loss against learning rate at {len(DEEP)} depths, pre-norm and post-norm, with warm-up and without. "
    f"Warm-up gains pre-norm, at its best rate and at the next, {gain_told}. Bands are the seeds' range.",
    title="Pre-norm gains by warm-up, at its best rate, in nats: "
    + signs(", ".join(f"{gain.mean:+.2f} at {depth} layers" for depth, gain in there.items())),
)
some = any(gain.above(COUNTS) for gain in there.values())
none = all(gain.below(COUNTS) for gain in [*there.values(), *beyond.values()])


def by_depth(gains):
    """One interval a depth, in words."""
    return signs(", ".join(f"{gain.text('+.3f')} with {depth} layers" for depth, gain in gains.items()))


verdict(
    "T06.7",
    "wrong" if some else "correct" if none else "imprecise",
    f"Warm-up gains pre-norm, in nats at its best rate: {by_depth(there)}; at the next rate: {by_depth(beyond)}; at "
    f"the largest: {by_depth(last)}. The best rates: "
    + "; ".join(f"with {depth} layers {rate}" for depth, rate in chosen.items())
    + ".",
)

# %% [markdown]
# Read the picture as an engineer does: not who has the lowest point, but whose valley is wide. A model that costs
# millions is trained once.
#
# ## 2026: the norm moves again
#
# Pre-norm was not the end. Its stream is added to and never brought back (the first figure), and attention's scores may
# grow without bound: $q \cdot k$ is a product of two things that nobody normalizes. Three answers stand in today's
# models:
#
# * **QK-norm**: a norm on queries and keys, head by head in Qwen3 and Gemma 3, over all heads in OLMo 2 (Henry et al.
#   2020; on the way to a ViT of 22 billion weights it cured a divergence, Dehghani et al. 2023);
# * the **sandwich**, $x + \text{norm}(f(\text{norm}(x)))$, also called peri-norm (Kim et al. 2025);
# * the **reordered norm** of OLMo 2: $x + \text{norm}(f(x))$. Post-norm comes back, but inside the branch: the identity
#   path stays free.
#
# A fourth answer is to do without: **Dynamic Tanh** puts $\tanh(\alpha x)$ with a learned $\alpha$ in the norm's place,
# and its authors report results as good (Zhu et al. 2025). It has no statistics at all. A fifth changes the stream
# itself: **hyper-connections** keep several streams, and learn how each layer reads from them, writes to them and mixes
# them (Zhu et al. 2024, [arXiv:2409.19606](https://arxiv.org/abs/2409.19606)); DeepSeek's mHC bounds the mixing, so
# that sizes stay (Xie et al. 2025, [arXiv:2512.24880](https://arxiv.org/abs/2512.24880)).
#
# Who does what? We don't trust names such as `post_attention_layernorm`. We build one tiny layer of each family in the
# installed `transformers`, write down in which order its parts are called, and set all weights but the norms' to zero:
# if the layer then gives back its input, the identity path is free.

# %% tags=["demo"]
from transformers import AutoConfig, AutoModelForCausalLM

FAMILIES = {
    "openai-gpt": "GPT, 2018",
    "gpt2": "GPT-2, 2019",
    "llama": "Llama, 2023",
    "gemma2": "Gemma 2, 2024",
    "olmo2": "OLMo 2, 2024",
    "gemma3_text": "Gemma 3, 2025",
    "glm4": "GLM-4, 2025",
    "qwen3": "Qwen3, 2025",
    "exaone4": "EXAONE 4, 2025",
    "minimax_m2": "MiniMax M2, 2025",
    "gpt_oss": "gpt-oss, 2025",
    "olmo3": "OLMo 3, 2025",
}
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
TINY |= {"num_hidden_layers": 1, "vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TINY |= {"n_embd": 32, "n_head": 2, "n_layer": 1}


def anatomy(kind):
    """Of a family's layer: its parts in the order of their calls, whether q and k are normed, whether x passes."""
    has = AutoConfig.for_model(kind)
    small = AutoConfig.for_model(kind, **{name: value for name, value in TINY.items() if hasattr(has, name)})
    net = AutoModelForCausalLM.from_config(small)
    block = next(part for part in net.modules() if isinstance(part, nn.ModuleList))[0]
    called, ends = [], []
    for name, part in block.named_children():
        short = "norm" if "norm" in name or "ln_" in name else "attention" if "attn" in name else "feed-forward"
        part.register_forward_hook(lambda *_, short=short: called.append(short))
    block.register_forward_hook(lambda _, given, out: ends.extend([given[0], out if torch.is_tensor(out) else out[0]]))
    for name, weights in block.named_parameters():
        if "norm" not in name and "ln_" not in name:
            nn.init.zeros_(weights)
    with torch.no_grad():
        net(torch.arange(1, 4)[None])
    return " ".join(called), any("q_norm" in name for name, _ in block.named_modules()), torch.equal(*ends)


print(f"{'family':18}{'parts as they are called':56}{'QK-norm':9}identity path")
for kind, name in FAMILIES.items():
    called, qk, free = anatomy(kind)
    print(f"{name:18}{called:56}{'yes' if qk else 'no':9}{'free' if free else 'normed'}")

# %% [markdown]
# (Gemma 4 of 2026, too big for our tiny form, keeps Gemma 3's order.)
#
# What do they buy at our size? The same experiment, six layers, without warm-up, up to rates that nobody would take.

# %% tags=["demo"]
TODAY = {
    "pre-norm, 6 layers": "pre-norm",
    "pre-norm and QK-norm, 6 layers": "pre-norm and QK-norm",
    "sandwich, 6 layers": "sandwich",
    "reordered and QK-norm, 6 layers": "reordered and QK-norm",
}
TRIED = T06_6.RATES["other"]
fig, ax = figure(width=9, height=4)
for (arm, name), color, mark in zip(TODAY.items(), COLORS, "oDs^", strict=False):
    losses = over_seeds(found, arm)
    ax.plot(TRIED, losses.mean(0), color=color, marker=mark, label=name)
    ax.fill_between(TRIED, losses.amin(0), losses.amax(0), color=color, alpha=0.12, linewidth=0)
ax.set(xscale="log", xlabel="learning rate", ylabel="test loss, nats a letter")
ax.set_xticks(TRIED, [f"{rate:g}" for rate in TRIED])
ax.minorticks_off()
ax.legend()
ends = {name: over_seeds(found, arm) for arm, name in TODAY.items()}
price = {name: (losses[:, -1] - losses.amin(1)).mean().item() for name, losses in ends.items()}
dearest, cheapest = max(price, key=price.get), min(price, key=price.get)
told = ", ".join(f"{name} {cost:.2f}" for name, cost in price.items())
show(
    fig,
    alt=f"Test loss against learning rate of {len(TODAY)} places of the norm. The largest rate costs, in nats "
    f"above each one's best: {told}. Bands are the seeds' range.",
    title=f"Rate {TRIED[-1]:g} costs {dearest} {price[dearest]:.2f} nats, {cheapest} {price[cheapest]:.2f}",
)

# %% [markdown]
# Six layers and two hundred steps can't say what a norm is worth where a spike after a trillion tokens costs a month.
# OLMo 2 reports stabler training from reordered norm, QK-norm, RMSNorm and another initialization, changed together.
#
# ## Payoff: a real layer from your block
#
# One more time the real model. Its first layer is a `pre_norm_block` of your making, if you hand it the right parts.

# %% tags=["payoff"]
first_layer = model.model.layers[0]
places = torch.arange(ids.shape[1])[None]


def its_attention(h):
    mask = torch.full((1, 1, h.shape[1], h.shape[1]), -torch.inf).triu(1)
    angles = model.model.rotary_emb(h, places)
    return first_layer.self_attn(h, position_embeddings=angles, attention_mask=mask)[0]


with torch.inference_mode():
    tokens = model.get_input_embeddings()(ids)
    made = pre_norm_block(
        tokens, first_layer.input_layernorm, its_attention, first_layer.post_attention_layernorm, first_layer.mlp
    )
difference = (made[0] - stream[1]).abs().max()
print(f"Largest difference between your block and the model's first layer: {difference:.1e}")
assert difference < 1e-2, "Your block is not the model's layer: solve the last exercise first."

# %% [markdown]
# Look at what LLaMA calls the second norm: `post_attention_layernorm`. It stands *after attention* and *before the
# feed-forward part*: a pre-norm with a misleading name. In OLMo 2 the same name means what it says. Ask that in an
# interview.
#
# ## What you have now
#
# * LayerNorm asks one token, BatchNorm everybody. That decides about padding, caches, ranks and the future. What it
#   costs is a matter of how many values share a mean: measure it.
# * RMSNorm leaves out the mean. Square in float32; know where the rounding is.
# * Where the norm stands decides whether the identity path is free, and how an update is amplified on its way to the
#   output. Ask for the whole valley of learning rates, not for its lowest point, before you say what a place, or
#   warm-up, is good for.
# * Adam divides by the size of gradients. An explanation that needs them large has to say how Adam notices.
# * In 2026: RMSNorm nearly everywhere. Which families leave the identity path free, end a branch with a norm, or norm
#   queries and keys, the table above says.
#
# **Sources.** Ba et al. 2016, [arXiv:1607.06450](https://arxiv.org/abs/1607.06450) (LayerNorm); Ioffe and Szegedy 2015,
# [arXiv:1502.03167](https://arxiv.org/abs/1502.03167) (BatchNorm); Zhang and Sennrich 2019,
# [arXiv:1910.07467](https://arxiv.org/abs/1910.07467) (RMSNorm); Shen et al. 2020,
# [arXiv:2003.07845](https://arxiv.org/abs/2003.07845) (BatchNorm in language); Xiong et al. 2020,
# [arXiv:2002.04745](https://arxiv.org/abs/2002.04745) (pre- and post-norm); Liu et al. 2020,
# [arXiv:2004.08249](https://arxiv.org/abs/2004.08249) (what amplifies updates); Ma and Yarats 2019,
# [arXiv:1910.04209](https://arxiv.org/abs/1910.04209), and Kalra and Barkeshli 2024,
# [arXiv:2406.09405](https://arxiv.org/abs/2406.09405) (warm-up); Henry et al. 2020,
# [arXiv:2010.04245](https://arxiv.org/abs/2010.04245), and Dehghani et al. 2023,
# [arXiv:2302.05442](https://arxiv.org/abs/2302.05442) (QK-norm); Gemma 2, 2024,
# [arXiv:2408.00118](https://arxiv.org/abs/2408.00118), and Kim et al. 2025,
# [arXiv:2502.02732](https://arxiv.org/abs/2502.02732) (sandwich, peri-norm); OLMo 2, 2024,
# [arXiv:2501.00656](https://arxiv.org/abs/2501.00656) (reordered norm); Zhu et al. 2025,
# [arXiv:2503.10622](https://arxiv.org/abs/2503.10622) (Dynamic Tanh).
