# ---
# jupyter:
#   course:
#     title: "Normalisation: LayerNorm, RMSNorm, BatchNorm"
#     exercises: transformer.normalization
#     questions: [T06]
# ---

# %% [markdown]
# # Normalisation: LayerNorm, RMSNorm, BatchNorm
#
# A deep network is a long chain of multiplications, and whatever is multiplied forty times either explodes or dies.
# Normalisation brings the numbers back to one size again and again. It looks like housekeeping. But *where* it
# stands decides whether the models at the end of this chapter learn at once, late, or hardly at all.
#
# The interview question: **why do Transformers use LayerNorm, and not the BatchNorm that made deep vision models
# work?** You will build both, and RMSNorm, which took LayerNorm's place; run your RMSNorm inside a real model; and put
# five sentences of the usual answer to the test. One of them is wrong.

# %% tags=["setup"]
import time

import torch
import torch.nn.functional as F
from torch import nn

from autograde import check
from labkit import COLORS, figure, shakespeare, show, smollm

# %% [markdown]
# ## What would happen without it
#
# `smollm()` is a real chat model of LLaMA's architecture. Each of its 30 layers *adds* something to a vector of 576
# numbers, one vector a token: the **residual stream**. How large do these vectors get on the way? We measure their
# root mean square (RMS), $\sqrt{\tfrac{1}{d}\sum_i x_i^2}$, in front of each layer, and behind the norm that the layer
# begins with.

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

fig, ax = figure(width=9, height=4)
layers = range(len(before))
ax.plot(layers, before[:, 0], color=COLORS[1], label="first token")
ax.plot(layers, before[:, 1:].mean(1), color=COLORS[0], marker="o", markersize=4, label="other tokens, mean")
ax.plot(layers, after[:, 1:].mean(1), color=COLORS[0], linestyle="--", label="other tokens, behind the layer's norm")
ax.plot(layers, after[:, 0], color=COLORS[1], linestyle="--", label="first token, behind the layer's norm")
ax.set(yscale="log", xlabel="layer", ylabel="root mean square of a token's vector")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
growth, peak = before[-1, 1:].mean() / before[0, 1:].mean(), before[:, 0].max()
show(
    fig,
    alt="Size of the residual stream against depth on a logarithmic scale. It grows with depth for all tokens; the "
    "first token's vector is far larger still. Behind each layer's norm the sizes are close together.",
    title=f"Over {len(before)} layers the stream grows {growth:.0f}-fold; the first token's vector reaches {peak:.0f}",
)

# %% [markdown]
# Read the logarithmic axis twice. Every layer adds, so the sum grows. And the first token has grown a giant: a few of
# its numbers are enormous. Such *massive activations* are common in language models (Sun et al. 2024,
# [arXiv:2402.17762](https://arxiv.org/abs/2402.17762)). It would be hard to train one weight matrix for inputs of such
# different sizes. Behind the norm they lie close together.
#
# ## Which numbers belong together?
#
# A batch of text is a block of numbers: examples × positions × features. To normalise is to subtract a mean and to
# divide by a spread, and the whole question is: **the mean of which numbers?** Below, the batch lies flat, one row a
# token. Dark is the number that we want to normalise; light, the numbers whose statistics decide about it.

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
    "LayerNorm: one token": lambda x: F.layer_norm(x, (features,)),
    "BatchNorm: one feature": lambda x: F.batch_norm(x.mT, None, None, training=True).mT,
    "InstanceNorm: its part of it": lambda x: F.instance_norm(x.mT).mT,
}
fig, axes = figure(1, 3, width=10, height=4.2, sharey=True)
for ax, (name, norm) in zip(axes, norms.items(), strict=True):
    ax.imshow(who_decides(norm), cmap="Blues", vmin=0, vmax=2, aspect="auto")
    ax.set_title(name, fontsize=11)
    ax.set_xticks(range(features))
    ax.set_yticks(range(examples * positions), [f"{e}, {p}" for e in range(examples) for p in range(positions)])
    ax.set_xlabel("feature")
    for edge in range(1, examples):
        ax.axhline(edge * positions - 0.5, color="#555555", linewidth=1)
axes[0].set_ylabel("example, position")
show(
    fig,
    alt="Three grids of tokens by features. LayerNorm marks one row, BatchNorm one whole column, InstanceNorm the "
    "part of a column that belongs to one example.",
    title="LayerNorm asks the token's own features, BatchNorm asks all tokens of all examples",
)

# %% [markdown]
# The picture is measured, not drawn: a cell is coloured where the gradient of the answer isn't zero.
#
# ## Exercise 1: LayerNorm
#
# For a token $x$ with $d$ features (Ba et al. 2016):
#
# $$\mu = \frac{1}{d}\sum_i x_i, \qquad \sigma^2 = \frac{1}{d}\sum_i (x_i-\mu)^2, \qquad
# y_i = \frac{x_i-\mu}{\sqrt{\sigma^2+\epsilon}}\, w_i + b_i .$$
#
# $\epsilon$ keeps a row of equal numbers from being divided by zero. $w$ and $b$ are learned: they let the model undo
# what normalising took away, feature by feature.


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
    centred = x - x.mean(-1, keepdim=True)
    y = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    y = y if weight is None else y * weight
    return y if bias is None else y + bias
    ### END SOLUTION


# %% check="layer_norm"
check(layer_norm)

# %% [markdown]
# ## Half of LayerNorm is enough
#
# Is it the centring that helps, or the scaling? Zhang and Sennrich (2019) dropped the centring, and the bias with it:
#
# $$y_i = \frac{x_i}{\sqrt{\frac{1}{d}\sum_j x_j^2+\epsilon}}\, w_i .$$
#
# LLaMA, Mistral, Qwen and Gemma use this **RMSNorm**. How much does it leave out? In the real model, how large is a
# token's mean, compared with its RMS?

# %% tags=["demo"]
share = (stream.mean(-1).abs() / before)[:, 1:].flatten()
chance = (2 / torch.pi / stream.shape[-1]) ** 0.5  # of independent normal numbers

fig, ax = figure(width=8.5, height=3.6)
ax.hist(share * 100, bins=40, color=COLORS[0])
ax.axvline(share.median() * 100, color=COLORS[1], linewidth=2, label=f"median, {share.median():.1%}")
ax.axvline(chance * 100, color="#444444", linestyle=":", linewidth=2, label=f"random numbers, {chance:.1%}")
ax.set(xlabel="|mean| of a token's vector, in % of its root mean square", ylabel="tokens, over all layers")
ax.legend()
show(
    fig,
    alt="Histogram of the size of a token's mean relative to its root mean square, over all layers and tokens.",
    title=f"Centring would move a token by {share.median():.1%} of its size",
)

# %% [markdown]
# This model was trained with RMSNorm and had no reason to keep its means small; they are small all the same. What
# LayerNorm's centring would take away is hardly there. (In a model trained *with* LayerNorm that need not hold.)
#
# ## Exercise 2: RMSNorm
#
# One trap is not in the formula. Models run in 16 bits, and float16 ends at 65,504. The first figure had a vector with
# an RMS of hundreds: the *square* of 300 is 90,000, which float16 calls infinity, and the answer would be
# $x/\infty = 0$. LLaMA's norm therefore squares in float32 and casts back at the end. So shall yours.


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
# the scores of the next token.

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
# ## BatchNorm: ask the neighbours
#
# BatchNorm (Ioffe and Szegedy 2015) takes the other direction: one mean and one variance a *feature*, over all examples
# (and all positions) of the batch. In vision that was a revolution. It needs two modes:
#
# * in **training**, the statistics of the current batch;
# * in **evaluation**, where a single example must have an answer, *running* statistics, gathered during training:
#   $r \leftarrow (1-m)\,r + m\,\text{batch}$, with momentum $m = 0.1$.
#
# A detail that trips many: torch normalises by the *biased* variance, and gathers the *unbiased* one.
#
# ## Exercise 3: BatchNorm


# %% exercise="batch_norm"
def batch_norm(
    x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5
):
    """Normalise channels over the batch: (x - mean) / sqrt(variance + eps) * weight + bias.

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
# ## Sentences have different lengths
#
# Now the usual answer, sentence by sentence. Texts of different lengths are filled up with padding. Padding means
# nothing, and a model must not notice it. We take real sentences as real vectors (the model's own token embeddings),
# put one short sentence into a batch, and let the *other* sentence become longer and longer: the short one gets more
# and more padding.

# %% claim="T06.1"
embedding = model.get_input_embeddings().weight.detach()
short = tokenizer("The old man said that the sea was calm.", return_tensors="pt").input_ids[0]
others = tokenizer(shakespeare()[20_000:24_000], return_tensors="pt").input_ids[0]


def answer(norm, length, mask_padding=False):
    """The short sentence's vectors after `norm`, beside one of `length` tokens: [len(short), width]."""
    tokens = torch.zeros(2, length, dtype=torch.long)  # token 0 is the padding here
    tokens[0, : len(short)], tokens[1] = short, others[:length]
    x = embedding[tokens] * 10
    real = torch.ones(2, length, dtype=torch.bool)
    real[0, len(short) :] = False
    rows = x[real] if mask_padding else x.flatten(0, 1)
    return norm(rows)[: len(short)]


def layer(x):
    return F.layer_norm(x, x.shape[-1:])


def batch(x):
    return F.batch_norm(x, None, None, training=True)


lengths = [10, 20, 40, 80, 160, 320, 640]
first = {name: answer(norm, lengths[0]) for name, norm in (("layer", layer), ("batch", batch))}
moved = {
    "BatchNorm, over all positions": [root_mean_square((answer(batch, n) - first["batch"]).flatten()) for n in lengths],
    "BatchNorm, padding left out": [
        root_mean_square((answer(batch, n, True) - answer(batch, lengths[0], True)).flatten()) for n in lengths
    ],
    "LayerNorm": [root_mean_square((answer(layer, n) - first["layer"]).flatten()) for n in lengths],
}

fig, ax = figure(width=8.5, height=4)
for (name, values), color, mark in zip(moved.items(), (COLORS[1], COLORS[3], COLORS[0]), "s^o", strict=True):
    ax.plot(lengths, values, color=color, marker=mark, label=name)
ax.set(
    xscale="log",
    xlabel="length of the other sentence in the batch, tokens",
    ylabel="change of the short sentence (RMS)",
)
ax.set_xticks(lengths, lengths)
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
drift, masked, still = (values[-1].item() for values in moved.values())
show(
    fig,
    alt="How much the normalised vectors of one sentence change while its neighbour in the batch gets longer: "
    "BatchNorm changes more and more, also with the padding left out; LayerNorm stays at zero.",
    title=f"The same sentence, another neighbour: BatchNorm moves it by {drift:.2f}, LayerNorm by {still:.2f}",
)
print(f"Every number has a size of about 1, so BatchNorm moves it by {drift:.0%}; with masked padding by {masked:.0%}.")

# %% [markdown]
# The claim holds. Leaving the padding out helps, and needs a mask that ordinary BatchNorm does not take; what remains
# is that the *neighbour* decides. Shen et al. (2020) looked closer: in language the statistics of a batch fluctuate far
# more than in images, and that is what makes BatchNorm lose.
#
# ## "LayerNorm depends on a single example"
#
# Even less than that. Which answers change when one token is replaced: in another sentence, in the same sentence, or
# the token itself?

# %% claim="T06.2"
g = torch.Generator().manual_seed(1)
x = torch.randn(4, 6, 32, generator=g)
changes = {"a token of another example": (3, 0), "another token of the example": (0, 5), "the token itself": (0, 2)}


def change_of_answer(norm, where):
    other = x.clone()
    other[where] = 5 * torch.randn(32, generator=torch.Generator().manual_seed(2))
    return (norm(other.flatten(0, 1)) - norm(x.flatten(0, 1))).view_as(x)[0, 2].abs().max().item()


print(f"{'largest change of one token, if we replace …':46}{'LayerNorm':>10}{'BatchNorm':>11}")
for name, where in changes.items():
    print(f"{name:46}{change_of_answer(layer, where):10.3f}{change_of_answer(batch, where):11.3f}")

# %% [markdown]
# So it is not the *example* but the single *token* that LayerNorm depends on. That is what makes it fit for writing: a
# token's answer never changes when later ones arrive, and a KV cache may keep it.
#
# ## "BatchNorm is hard to parallelise"
#
# Is it? First we measure both on the same numbers. Then we do what training on several devices does: cut a batch of 32
# sentences into equal parts and let each part be normalised on its own. How far do the answers move? And last: which
# *other positions* does the answer of position 1 listen to?

# %% claim="T06.3"
batch_of_text = torch.randn(64, 256, 256, generator=g)


def fastest(norm, repeats=9):
    """Milliseconds of the fastest of some runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        norm(batch_of_text.flatten(0, 1))
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


milliseconds = {"LayerNorm": fastest(layer), "BatchNorm": fastest(batch)}


def listens_to(norm, position=1):
    """Size of the gradient of one position's answer with respect to every position of the sentence."""
    sentence = torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(3)).requires_grad_()
    (norm(sentence.flatten(0, 1)).view_as(sentence)[0, position].pow(3).sum()).backward()
    return sentence.grad[0].norm(dim=-1)


def moved_by_cutting(norm, devices):
    """RMS change of the answers when a batch of 32 short sentences is spread over so many devices."""
    sentences = torch.randn(32, 8, 16, generator=torch.Generator().manual_seed(4))
    parts = torch.cat([norm(part.flatten(0, 1)) for part in sentences.chunk(devices)])
    return root_mean_square((parts - norm(sentences.flatten(0, 1))).flatten()).item()


heard = {"LayerNorm": listens_to(layer), "BatchNorm": listens_to(batch)}
devices = [1, 2, 4, 8, 16, 32]
fig, (left, middle, right) = figure(1, 3, width=12, height=3.7)
left.bar(list(milliseconds), list(milliseconds.values()), color=[COLORS[0], COLORS[1]], width=0.6)
left.set(ylabel="time, ms", title=f"{batch_of_text.numel() / 1e6:.1f} million numbers, one device")
for norm, color, mark in ((layer, COLORS[0], "o"), (batch, COLORS[1], "s")):
    middle.plot(devices, [moved_by_cutting(norm, n) for n in devices], color=color, marker=mark)
middle.set(xscale="log", xlabel="devices", ylabel="change of the answers (RMS)", title="The same batch, cut up")
middle.set_xticks(devices, devices)
middle.minorticks_off()
for shift, (name, values), color in zip((-0.2, 0.2), heard.items(), COLORS, strict=False):
    right.bar(torch.arange(len(values)) + shift, values, width=0.4, color=color, label=name)
right.axvspan(1.5, 7.5, color="#999999", alpha=0.2)
right.text(4.5, right.get_ylim()[1] * 0.92, "the future", ha="center")
right.set(xlabel="position", ylabel="size of the gradient", title="What position 1 listens to")
right.legend(loc="center right")
slower = milliseconds["BatchNorm"] / milliseconds["LayerNorm"]
show(
    fig,
    alt="Left: times of LayerNorm and BatchNorm on the same tensor. Middle: cut over more and more devices, "
    "BatchNorm's answers move, LayerNorm's stay. Right: under LayerNorm the answer of position 1 depends on position 1 "
    "alone, under BatchNorm on all positions, later ones included.",
    title=f"BatchNorm takes {slower:.1f} × LayerNorm's time; its trouble is what it hears: other devices, the future",
)
print(f"Largest gradient from the future: {', '.join(f'{name} {v[2:].max():.2f}' for name, v in heard.items())}")

# %% [markdown]
# On one device neither is serial: both are sums over a dimension, and every feature (or token) can be worked on at
# once. What the sentence gropes for is *coupling*:
#
# * across **devices**: each GPU sees its own part of the batch. Either the answers depend on how it was cut, as in the
#   middle, or statistics are sent around in every layer, forward and backward (`torch.nn.SyncBatchNorm`);
# * across **positions**: a causal model may not see the future, and training-mode BatchNorm shows it. In the figure
#   position 1 hears positions 2 to 7.
#
# ## Two sets of statistics
#
# In evaluation BatchNorm uses "the statistics of the whole training set", says the bank. Frameworks keep a moving
# average instead. Does it matter? We show a BatchNorm the same 3,000 numbers twice: shuffled, and sorted.

# %% claim="T06.4"
numbers = torch.randn(3_000, 1, generator=g) * 2 + 3
orders = {"shuffled": numbers[torch.randperm(3_000, generator=g)], "sorted": numbers.sort(0).values}


def running_means(data, momentum):
    norm = nn.BatchNorm1d(1, momentum=momentum)
    means = []
    for rows in data.split(30):
        norm(rows)
        means.append(norm.running_mean.item())
    return means


fig, ax = figure(width=9, height=3.9)
for (name, data), color in zip(orders.items(), COLORS, strict=False):
    ax.plot(running_means(data, 0.1), color=color, label=f"{name}, momentum 0.1")
ax.plot(
    running_means(orders["sorted"], None), color=COLORS[1], linestyle="--", label="sorted, momentum=None (true average)"
)
ax.axhline(numbers.mean(), color="#444444", linestyle=":", label="mean of the whole training set")
ax.set(xlabel="batch of 30", ylabel="running mean")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
ends = {name: running_means(data, 0.1)[-1] for name, data in orders.items()}
show(
    fig,
    alt="Running mean against batches. On shuffled data it stays near the mean of the whole set; on sorted data it "
    "ends far above it, unless momentum is None.",
    title=f"The training set's mean is {numbers.mean():.2f}; after sorted data BatchNorm believes {ends['sorted']:.2f}",
)

# %% [markdown]
# The running mean remembers about the last ten batches: $0.9^{10}$ is a third. On shuffled data that comes close to the
# whole set. The claim is loose, not absurd: the original paper does average over many batches after training
# (algorithm 2), and `momentum=None` does it, too.
#
# ## The shift between training and evaluation
#
# Here are both modes on the same examples: how far apart are the answers of training and evaluation, if the running
# statistics are *perfect*?

# %% claim="T06.5"
sizes = [2, 4, 8, 16, 32, 64, 128]
population = torch.randn(20_000, 64, generator=g)


def gap(size, trials=30):
    """RMS difference between the two modes on batches of `size`, with exact running statistics."""
    mean, variance = population.mean(0), population.var(0)
    differences = []
    for _ in range(trials):
        rows = population[torch.randint(20_000, (size,), generator=g)]
        trained = F.batch_norm(rows, None, None, training=True)
        differences.append(trained - F.batch_norm(rows, mean, variance, training=False))
    return root_mean_square(torch.cat(differences).flatten()).item()


def layer_gap(size):
    """The same for LayerNorm, whose module is switched to training and to evaluation."""
    norm, rows = nn.LayerNorm(64), population[:size]
    return root_mean_square((norm.train()(rows) - norm.eval()(rows)).flatten()).item()


gaps = [gap(size) for size in sizes]
fig, ax = figure(width=8, height=3.8)
ax.plot(sizes, gaps, color=COLORS[1], marker="s", label="BatchNorm")
ax.plot(sizes, [layer_gap(size) for size in sizes], color=COLORS[0], marker="o", label="LayerNorm")
ax.set(xscale="log", xlabel="batch size", ylabel="training against evaluation (RMS)")
ax.set_xticks(sizes, sizes)
ax.legend()
show(
    fig,
    alt="BatchNorm's difference between training and evaluation falls with the batch size and is large for small "
    "batches. LayerNorm has none.",
    title=f"With {sizes[0]} examples a batch the two modes differ by {gaps[0]:.2f}, with {sizes[-1]} by {gaps[-1]:.2f}",
)
try:
    F.batch_norm(population[:1], None, None, training=True)
except ValueError as error:
    print(f"A batch of one: {error}")

# %% [markdown]
# The claim holds, and the numbers say when it hurts: with small batches, and large language models see few sentences a
# device. LayerNorm has one mode only. BatchNorm's noise has a good side in vision, where it works against overfitting.
#
# ## Where does the norm go?
#
# The first Transformer normalised *after* each sum: $\text{norm}(x + f(x))$, **post-norm**. Today's models normalise
# what goes into a part: $x + f(\text{norm}(x))$, **pre-norm**. The same pieces, other places:
#
# $$h = x + \text{attention}(\text{norm}_1(x)), \qquad y = h + \text{feed-forward}(\text{norm}_2(h)) .$$
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
    Returns a tensor [batch, length, d] of x's dtype: the second sum, not normalised. x is not
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
# ## What pre-norm buys: a main road for gradients
#
# In pre-norm nothing on the way of $x$ itself is ever normalised. The gradient comes back on the same road, untouched.
# We build both kinds, of three depths, from torch's own layers, and look at the gradient that reaches each layer before
# any training.


# %% tags=["demo"]
def blocks(depth, pre, width):
    """`depth` of torch's encoder layers, with Xavier's initial weights, as in the first Transformer."""
    made = nn.ModuleList(
        nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=pre)
        for _ in range(depth)
    )
    for p in made.parameters():
        if p.ndim > 1:
            nn.init.xavier_uniform_(p)
    return made


class LanguageModel(nn.Module):
    """Predicts the next character. Pre-norm needs one more norm at the end, since its sums are not normalised."""

    def __init__(self, depth, pre, vocabulary, width=32, length=32):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = blocks(depth, pre, width)
        self.last = nn.LayerNorm(width) if pre else nn.Identity()
        self.head = nn.Linear(width, vocabulary)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, tokens):
        h = self.embedding(tokens) + self.positions
        for block in self.blocks:
            h = block(h, src_mask=self.mask, is_causal=True)
        return self.head(self.last(h))


book = shakespeare()[:400_000]
alphabet = sorted(set(book))
data = torch.tensor([alphabet.index(c) for c in book])


def some_text(generator, rows=16, length=32):
    starts = torch.randint(len(data) - length - 1, (rows,), generator=generator)
    cut = torch.stack([data[s : s + length + 1] for s in starts])
    return cut[:, :-1], cut[:, 1:]


def loss_of(net, inputs, targets):
    return F.cross_entropy(net(inputs).flatten(0, 1), targets.flatten())


def gradients_by_layer(depth, pre, seeds=5):
    """The norm of the gradient of each layer's first feed-forward matrix, the mean over some initialisations."""
    sums = torch.zeros(depth)
    for seed in range(seeds):
        torch.manual_seed(seed)
        net = LanguageModel(depth, pre, len(alphabet))
        loss_of(net, *some_text(torch.Generator().manual_seed(seed))).backward()
        sums += torch.stack([block.linear1.weight.grad.norm() for block in net.blocks])
    return (sums / seeds).tolist()


norms_of = {(depth, pre): gradients_by_layer(depth, pre) for depth in (6, 12, 24) for pre in (True, False)}
fig, axes = figure(1, 2, width=10, height=3.9, sharey=True)
for ax, pre in zip(axes, (False, True), strict=True):
    for (depth, kind), color, mark in zip(norms_of, [c for c in COLORS for _ in (0, 1)], "oossDD", strict=False):
        if kind == pre:
            ax.plot(
                range(1, depth + 1),
                norms_of[depth, pre],
                color=color,
                marker=mark,
                markersize=4,
                label=f"{depth} layers",
            )
    ax.set(yscale="log", xlabel="layer", title="pre-norm" if pre else "post-norm")
    ax.legend()
axes[0].set_ylabel("gradient norm, feed-forward weights")
ratio = {pre: norms_of[24, pre][-1] / norms_of[24, pre][0] for pre in (True, False)}
show(
    fig,
    alt="Gradient norm against layer for three depths. Post-norm: gradients differ between layers and grow towards the "
    "output. Pre-norm: they fall gently and get smaller with depth.",
    title=f"24 layers, last to first layer's gradient: post-norm {ratio[False]:.1f} times, pre-norm {ratio[True]:.1f}",
)

# %% [markdown]
# Xiong et al. proved what you see on the left: at the start, post-norm's gradients near the output are large, whatever
# the depth. A full learning rate then wrecks the last layers in the first steps. That is why the first Transformer
# needed **warm-up**. Does it show in training? Eight layers, the same data, the same learning rate, three seeds each:


# %% tags=["demo"]
STEPS, SEEDS = 100, 3


def learn(pre, warmup, seed, steps=STEPS, rate=3e-3, depth=8):
    """The loss of each step. For the first `warmup` steps the learning rate grows linearly."""
    torch.manual_seed(seed)
    net = LanguageModel(depth, pre, len(alphabet))
    optimizer, generator, losses = torch.optim.AdamW(net.parameters()), torch.Generator().manual_seed(seed + 1), []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / max(warmup, 1))
        loss = loss_of(net, *some_text(generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


kinds = {
    "pre-norm, no warm-up": (True, 0),
    "post-norm, no warm-up": (False, 0),
    "post-norm, 60 steps of warm-up": (False, 60),
}
runs = {name: torch.tensor([learn(*kind, seed) for seed in range(SEEDS)]) for name, kind in kinds.items()}
end = {name: losses[:, -10:].mean(1) for name, losses in runs.items()}
shares = torch.bincount(data) / len(data)
letters_only = -(shares * shares.log()).nansum().item()

fig, ax = figure(width=9.5, height=4.2)
for (name, losses), color, style in zip(runs.items(), COLORS, ("-", "--", "-."), strict=False):
    smooth, at = losses.unfold(1, 5, 1).mean(-1), range(2, STEPS - 2)  # the mean of five steps
    ax.plot(
        at, smooth.mean(0), color=color, linestyle=style, label=f"{name}: {end[name].min():.2f}–{end[name].max():.2f}"
    )
    ax.fill_between(at, smooth.amin(0), smooth.amax(0), color=color, alpha=0.2, linewidth=0)
ax.axhline(
    letters_only, color="#444444", linestyle=":", label=f"knowing only how frequent letters are: {letters_only:.2f}"
)
ax.set(xlabel="step", ylabel="loss, nats a character")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="mean, range of the seeds; at the end")
before_warmup, with_warmup = (end[name].mean() for name in list(kinds)[1:])
show(
    fig,
    alt="Learning curves of three 8-layer models, mean and range of three seeds. The legend tells the range of the "
    "loss over the last ten steps of each.",
    title=f"After {STEPS} steps: pre-norm {end['pre-norm, no warm-up'].mean():.2f}, post-norm {before_warmup:.2f}, "
    f"with warm-up {with_warmup:.2f}",
)

# %% [markdown]
# The dotted line is the loss of someone who knows the letters' frequencies and nothing else. Compare each curve with
# it: who stays on the line has learned no context. Without warm-up, luck decides when post-norm leaves it: see how wide
# its band is. Warm-up takes small steps while the large gradients last.
#
# This is one depth and one learning rate. With a larger one even warm-up may not save post-norm; with a gentle one both
# kinds learn, and a tuned post-norm model can end as good or better. Pre-norm is first of all easier to start.
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
# feed-forward part*: a pre-norm with a misleading name. Ask that in an interview.
#
# **Sources.** Ba et al. 2016, [arXiv:1607.06450](https://arxiv.org/abs/1607.06450) (LayerNorm); Ioffe and Szegedy 2015,
# [arXiv:1502.03167](https://arxiv.org/abs/1502.03167) (BatchNorm); Zhang and Sennrich 2019,
# [arXiv:1910.07467](https://arxiv.org/abs/1910.07467) (RMSNorm); Xiong et al. 2020,
# [arXiv:2002.04745](https://arxiv.org/abs/2002.04745) (pre- and post-norm, warm-up); Shen et al. 2020,
# [arXiv:2003.07845](https://arxiv.org/abs/2003.07845) (why BatchNorm fails on language).
