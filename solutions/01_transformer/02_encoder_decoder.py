# ---
# jupyter:
#   course:
#     title: "Encoder and decoder"
#     exercises: transformer.encoder_decoder
#     questions: [T01, T02]
#     needs: [01_transformer/01_attention]
# ---

# %% [markdown]
# # Encoder and decoder
#
# The Transformer of 2017 (Vaswani et al., arXiv:1706.03762) was a translator. One half of it, the **encoder**, reads a
# sentence. The other half, the **decoder**, writes another one, word by word, and looks across at what was read.
#
# Nearly every language model of today is one of these halves. To see why each part is there, we build both, and train
# them from nothing, on your own processor, to rewrite dates: `May 3, 2024` becomes `2024-05-03`. At the end *your*
# layers hold the trained weights, and your loop writes the dates.
#
# On the way we test what interview notes say about the Transformer: that both halves hold the same parts, that it
# trains in parallel, that distance is no limit to it.

# %% tags=["setup"]
import datetime
import math
import random
import time

import torch
import torch.nn.functional as F
from torch import nn

from autograde import check
from labkit import COLORS, SEQUENTIAL, figure, show, verdict

# %% [markdown]
# ## The plan of the house
#
# A layer is a short stack of **sub-layers**, and each of them does one thing to a row of vectors, one vector a token.
# *Attention* lets tokens read from each other. A *feed-forward network* works on every token by itself.
#
# In the paper's plan (figure 1) an encoder layer has two sub-layers, a decoder layer three: between the two it has a
# second attention, which reads from the encoder. That one is the only bridge between the halves.


# %% tags=["demo"]
def box(ax, x, y, text, color):
    ax.text(
        x, y, text, ha="center", va="center", bbox={"boxstyle": "round,pad=0.45", "fc": "white", "ec": color, "lw": 2}
    )


def arrow(ax, start, end, color="#555555", **style):
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": color, "lw": 1.6, **style})


def draw_plan():
    fig, ax = figure(width=9, height=5.0)
    stacks = {
        0.0: ["source tokens", "source embedding + positions", "self-attention", "feed-forward"],
        2.0: [
            "target tokens so far",
            "target embedding + positions",
            "self-attention, causal",
            "cross-attention",
            "feed-forward",
            "linear layer, softmax: the next token",
        ],
    }
    for x, texts in stacks.items():
        for y, text in enumerate(texts):
            layer = text in ("self-attention", "self-attention, causal", "cross-attention", "feed-forward")
            box(ax, x, y, text, COLORS[1] if text == "cross-attention" else COLORS[0] if layer else "#999999")
            if y:
                arrow(ax, (x, y - 0.7), (x, y - 0.28))
    arrow(ax, (0.42, 3.0), (1.66, 3.0), COLORS[1])
    ax.text(0.98, 3.12, "memory", color=COLORS[1], ha="center")
    for x, low, high, half in ((0.0, 1.62, 3.38, 0.4), (2.0, 1.62, 4.38, 0.5)):
        ax.plot(
            [x - half, x + half, x + half, x - half, x - half], [low, low, high, high, low], color="#999999", ls=":"
        )
    ax.text(-0.75, 2.5, "encoder\nlayer, × N", ha="center", va="center", color="#555555")
    ax.text(2.85, 3.0, "decoder\nlayer, × N", ha="center", va="center", color="#555555")
    ax.set(xlim=(-1.1, 3.2), ylim=(-0.5, 5.5))
    ax.axis("off")
    show(
        fig,
        alt="Two stacks of boxes. The encoder: source embedding, self-attention, feed-forward. The decoder: target "
        "embedding, causal self-attention, cross-attention, feed-forward, linear layer and softmax. An arrow leads "
        "from the top of the encoder to the cross-attention.",
        title="Two halves, and one bridge between them",
    )


draw_plan()

# %% [markdown]
# ## What the two layers really hold
#
# "Both parts contain positional encoding, multi-head attention and a feed-forward network", say the notes. The plan
# above is the paper's. Whom does torch follow? We open its layers and count. (Positions are added before the first
# layer, in both halves, so they can't be found here; norms are the business of the next claim.)
#
# **Before the run:** *correct* if both layers hold self-attention and a feed-forward network and, norms apart, nothing
# else, *imprecise* if one of them holds more, *wrong* if one of the two is missing somewhere.

# %% claim="T01.3"
def parts(layer):
    """Parameters of each sub-layer and of the norms."""
    names = {
        "self_attn": "self-attention",
        "multihead_attn": "cross-attention",
        "linear": "feed-forward",
        "norm": "norms",
    }
    count = dict.fromkeys(names.values(), 0)
    for name, p in layer.named_parameters():
        count[next(part for start, part in names.items() if name.startswith(start))] += p.numel()
    return count


inside = {"encoder layer": parts(nn.TransformerEncoderLayer(64, 4, 128))}
inside["decoder layer"] = parts(nn.TransformerDecoderLayer(64, 4, 128))

fig, ax = figure(width=9, height=2.9)
hatches = dict(zip(inside["encoder layer"], ("", "//", "..", "xx"), strict=True))
for y, (layer, count) in enumerate(inside.items()):
    left = 0
    for color, (part, size) in zip(COLORS, count.items(), strict=False):
        ax.barh(y, size, left=left, color=color, alpha=0.75, hatch=hatches[part], edgecolor="white",
                label=part if layer == "decoder layer" else None)  # fmt: skip
        left += size
    ax.text(left + 400, y, f"{left:,}", va="center")
ax.set_yticks([0, 1], list(inside))
ax.invert_yaxis()
ax.set(xlabel="parameters (width 64, inner width 128)", xlim=(0, 58_000))
fig.legend(loc="outside lower center", ncols=4)
sublayers = {name: sum(size > 0 for part, size in count.items() if part != "norms") for name, count in inside.items()}
show(
    fig,
    alt="Parameters by part. " + "; ".join(
        f"{layer}: " + ", ".join(f"{part} {size:,}" for part, size in count.items()) for layer, count in inside.items()
    ) + ".",
    title=f"An encoder layer has {sublayers['encoder layer']} sub-layers, a decoder layer "
    f"{sublayers['decoder layer']}",
)
holds = {layer: {part for part, size in count.items() if size and part != "norms"} for layer, count in inside.items()}
named = {"self-attention", "feed-forward"}
more = {layer: sorted(found - named) for layer, found in holds.items()}
verdict(
    "T01.3",
    ("imprecise" if any(more.values()) else "correct") if all(named <= found for found in holds.values()) else "wrong",
    "Beside those that the notes name there are: "
    + "; ".join(f"in the {layer} {', '.join(found) or 'none'}" for layer, found in more.items()) + ".",
)

# %% [markdown]
# The bridge isn't among the notes' parts. Take away the cross-attention, and the decoder is a language model that has
# never heard of the source sentence.
#
# ## The feed-forward network
#
# Attention mixes values *linearly*: each output is a weighted mean of vectors. To make something new of a token is the
# work of the feed-forward network (paper, section 3.3):
#
# $$\text{FFN}(x) = \max(0,\; x W_1 + b_1)\, W_2 + b_2$$
#
# Widen (in the paper from 512 to 2,048: with four matrices of 512 × 512 in attention, that makes two thirds of an
# encoder layer's weights), bend, narrow. Each token goes through by itself. The bend is what counts: without it, two
# matrices in a row are just one matrix.

# %% tags=["demo"]
torch.manual_seed(11)
line = torch.linspace(-3, 3, 300)[:, None]
first, second = nn.Linear(1, 24), nn.Linear(24, 1)
with torch.no_grad():
    first.weight.normal_()
    first.bias.copy_(first.weight[:, 0] * torch.empty(24).uniform_(-2.5, 2.5))  # kinks where we can see them
    second.weight.normal_()
    slope = second.weight[0] @ first.weight[:, 0]
    second.weight -= 0.8 * slope / first.weight.square().sum() * first.weight.T  # flatter, so that bends show
    curves = {
        "no bend": second(first(line)),
        "ReLU": second(torch.relu(first(line))),
        "GELU": second(F.gelu(first(line))),
    }


def off_straight(y):
    """The share of a curve's variance that the best straight line leaves."""
    ones = torch.cat([line, torch.ones_like(line)], 1)
    rest = y - ones @ torch.linalg.lstsq(ones, y).solution
    return float(rest.square().mean() / y.var(unbiased=False))


bent = {name: off_straight(y) for name, y in curves.items()}
fig, ax = figure(width=9, height=3.2)
for color, style, (name, y) in zip(COLORS, ("--", "-", ":"), curves.items(), strict=False):
    ax.plot(line, y, color=color, linestyle=style, label=f"{name}: {bent[name]:.0%} off the straight line")
ax.set(xlabel="x (one number a token)", ylabel="FFN(x)")
ax.legend()
show(
    fig,
    alt="Three curves of the same random network with 24 hidden units. Of their variance the best straight line leaves "
    + ", ".join(f"{share:.0%} ({name})" for name, share in bent.items()) + ".",
    title="The same random weights, off the straight line: "
    + ", ".join(f"{name} {share:.0%}" for name, share in bent.items()),
)

# %% [markdown]
# ## Exercise 1: the feed-forward network


# %% exercise="feed_forward"
def feed_forward(x, w1, b1, w2, b2, activation="relu"):
    """The feed-forward sub-layer: act(x w1 + b1) w2 + b2; no residual, no norm, no dropout.

    x:          float32 or float64 tensor [..., n, d], d being the width of the model; each
                token is worked on by itself
    w1, b1:     [d, d_ff] and [d_ff]; the matrices stand on the right of x, as in the paper
    w2, b2:     [d_ff, d] and [d]; all weights have the dtype of x
    activation: "relu", or "gelu" (the exact one, h * Phi(h), with the normal distribution
                function Phi)
    Returns a tensor of the shape and the dtype of x. Differentiable: gradients flow to x and to
    all four weights.

    Vaswani et al. 2017, arXiv:1706.03762, section 3.3. GELU: Hendrycks and Gimpel 2016,
    arXiv:1606.08415.
    """
    ### BEGIN SOLUTION
    bend = {"relu": F.relu, "gelu": F.gelu}[activation]
    return bend(x @ w1 + b1) @ w2 + b2
    ### END SOLUTION


# %% check="feed_forward"
check(feed_forward)

# %% [markdown]
# ## Residuals and norms
#
# Stack twelve such layers and train them: tokens have to come all the way up, and gradients all the way down. Two
# devices are to see to that. A **residual connection** adds what went into a sub-layer to what came out, so there is a
# road past every sub-layer, the *identity path*. A **norm** brings each token back to mean 0 and variance 1, then
# scales and shifts it by a learned gain and bias.
#
# The paper normalizes *after* the sum (post-norm), today's models mostly *before* the sub-layer (pre-norm):
#
# $$\text{post: } \text{norm}(x + \text{sublayer}(x)) \qquad\qquad \text{pre: } x + \text{sublayer}(\text{norm}(x))$$
#
# The notes say that both devices are used. Is each of them needed? We build stacks of twelve untrained layers, with and
# without, send a gradient down and tokens up, and see what arrives.
#
# **Before the run:** a device is *needed* if without it something is lost. The residual: without it the tokens at the
# top differ by less than a tenth of what they do in the paper's stack. The norm: without it, too, less than a hundredth
# of the gradient arrives that arrives with norms alone. *Correct* if both are needed, *imprecise* if one is, *wrong* if
# neither. That judges the norm where no residual helps; "no norm" shows what it adds beside one, before training.

# %% claim="T01.4"
class Block(nn.Module):
    """An encoder layer of which residual and norm can be taken away."""

    def __init__(self, kind, d=64, heads=4):
        super().__init__()
        self.kind = kind
        self.attention = nn.MultiheadAttention(d, heads, batch_first=True)
        self.ff = nn.Sequential(nn.Linear(d, 4 * d), nn.ReLU(), nn.Linear(4 * d, d))
        self.norms = nn.ModuleList([nn.LayerNorm(d), nn.LayerNorm(d)])

    def forward(self, x):
        sublayers = [lambda y: self.attention(y, y, y, need_weights=False)[0], self.ff]
        for sublayer, norm in list(zip(sublayers, self.norms, strict=True))[self.kind == "no attention" :]:
            if self.kind == "post-norm":
                x = norm(x + sublayer(x))
            elif self.kind == "pre-norm":
                x = x + sublayer(norm(x))
            elif self.kind == "no norm":
                x = x + sublayer(x)
            elif self.kind == "neither":
                x = sublayer(x)
            else:  # no residual, and in the control no attention either
                x = norm(sublayer(x))
        return x


def through(kind, layers=12, repeats=3):
    """What passes a stack: gradient at each layer's input relative to the top, how far apart its tokens are, size.

    How far apart: the distance from their mean relative to their length, 0 if all are the same. Size: length relative
    to the input's.
    """
    gradients, spreads, sizes = [], [], []
    for seed in range(repeats):
        torch.manual_seed(seed)
        blocks, x = [Block(kind) for _ in range(layers)], torch.randn(2, 16, 64, requires_grad=True)
        stops = [x]
        for block in blocks:
            stops.append(block(stops[-1]))
        arrived = torch.autograd.grad((stops[-1] * torch.randn(2, 16, 64)).sum(), stops)
        gradients.append(torch.stack([g.norm() for g in arrived]) / arrived[-1].norm())
        spreads.append(torch.stack([(y - y.mean(1, keepdim=True)).norm() / y.norm() for y in stops]).detach())
        sizes.append(torch.stack([y.norm() / x.norm() for y in stops]).detach())
    return [torch.stack(measured).log().mean(0).exp() for measured in (gradients, spreads, sizes)]


KINDS = {"post-norm": "-", "pre-norm": "--", "no residual": "-.", "neither": ":", "no norm": "-", "no attention": ":"}
passing = {kind: through(kind) for kind in KINDS}
fig, axes = figure(1, 2, width=10.5, height=3.9)
for color, (kind, measured) in zip(COLORS, passing.items(), strict=False):
    for ax, values in zip(axes, measured[:2], strict=True):
        ax.plot(range(13), values, color=color, linestyle=KINDS[kind], marker="o", markersize=4, label=kind)
axes[0].set(xlabel="below layer", ylabel="gradient, relative to the top", yscale="log", title="down: the gradient")
axes[1].set(xlabel="below layer", ylabel="distance between the tokens", yscale="log", title="up: are tokens different?")
for ax in axes:
    ax.set_xticks([0, 4, 8, 12], ["1", "5", "9", "top"])
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
spread = {kind: float(measured[1][-1]) for kind, measured in passing.items()}
show(
    fig,
    alt="Two panels over twelve layers. Gradient that arrives at the first, and distance of the tokens at the top: "
    + "; ".join(f"{kind} {float(down[0]):.1e} and {float(up[-1]):.1e}" for kind, (down, up, _) in passing.items())
    + ".",
    title=f"At the top, tokens differ by {spread['pre-norm']:.2f} (pre-norm), {spread['post-norm']:.2f} (post-norm), "
    f"{spread['no residual']:.0e} without residuals",
)
print(f"{'':14}{'gradient that arrives':>24}{'distance at the top':>22}{'size at the top':>18}")
for kind, (down, up, size) in passing.items():
    print(f"{kind:14}{float(down[0]):>24.2g}{float(up[-1]):>22.2g}{float(size[-1]):>18.2g}")
arrives = {kind: float(measured[0][0]) for kind, measured in passing.items()}
residual = spread["no residual"] < 0.1 * spread["post-norm"]
norm = arrives["neither"] < 0.01 * arrives["no residual"]
verdict(
    "T01.4",
    ("wrong", "imprecise", "correct")[residual + norm],
    f"Without residuals the tokens at the top differ by {spread['no residual']:.0e} instead of "
    f"{spread['post-norm']:.2f}. Of the gradient {arrives['no residual']:.1e} arrives with norms alone, "
    f"{arrives['neither']:.0e} with neither; with residuals alone {arrives['no norm']:.1f}, at a distance of "
    f"{spread['no norm']:.2f}.",
)

# %% [markdown]
# Read the printed table by its columns: which device minds the gradient, which the distance between the tokens, which
# the sizes? Dong et al. (2021, arXiv:2103.03404) explain the second column by attention, an average: averages of
# averages become all the same, unless what each token brought is added again. "No attention" is the control for that,
# no residual and a feed-forward network alone: whatever makes tokens alike there is no average.
#
# Pre-norm leaves the identity path entirely free, post-norm puts a norm on it at every step. Whether that is *why*
# post-norm stacks are trained with a warm-up is disputed (Xiong et al. 2020, arXiv:2002.04745, against Liu et al. 2020,
# arXiv:2004.08249). The chapter on normalization lets the two explanations compete.
#
# ## Exercise 2: the encoder layer
#
# Attention itself was the business of another chapter, so here you get it for free, and a norm as well: the two
# functions at the top of the next cell. What you write is the wiring.
#
# All weights of a layer come in one dict, so that you can later fill it from a trained model. `hidden` and `padding`
# are True where nothing may be read. Why padding at all? Sentences of a batch differ in length, and the short ones are
# filled up with tokens that mean nothing. They must not be read.


# %% exercise="encoder_layer"
def attention(x, memory, w, heads, hidden=None):
    """Multi-head attention: tokens x [..., m, d] ask, tokens memory [..., n, d] answer.

    Complete; leave it as it is. w: {"q", "k", "v", "o"}, each [d, d]. hidden: None, or bool
    that broadcasts to [..., m, n], True = may not be read.
    """
    q, k, v = x @ w["q"], memory @ w["k"], memory @ w["v"]
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(-3, -2) for t in (q, k, v))
    seen = None if hidden is None else ~hidden.unsqueeze(-3)
    heads = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    return heads.transpose(-3, -2).flatten(-2) @ w["o"]


def norm(x, w):
    """Layer norm over the last dimension, with w["gain"] and w["bias"], both [d]. Complete."""
    return F.layer_norm(x, x.shape[-1:], w["gain"], w["bias"], eps=1e-5)


def encoder_layer(x, w, heads, padding=None, norm_first=False):
    """One encoder layer: self-attention, then feed-forward (ReLU), with residuals and norms.

    x:          float32 or float64 tensor [..., n, d]; it is left as it is
    w:          {"self": weights of attention, "ff": {"w1", "b1", "w2", "b2"} as in
                feed_forward, "norm1": {"gain", "bias"}, "norm2": {"gain", "bias"}}; norm1
                belongs to the attention, norm2 to the feed-forward network; eps is 1e-5
    heads:      number of heads; divides d
    padding:    None, or bool [..., n] with the leading dimensions of x: True where a token is
                padding, which no token may read. Every sequence has at least one token that
                isn't. The rows of padded tokens are computed like all others.
    norm_first: False for post-norm, norm(x + sublayer(x)); True for pre-norm,
                x + sublayer(norm(x)), without any further norm at the end
    There is no dropout.
    Returns a tensor of the shape and the dtype of x. Differentiable: gradients flow to x and to
    all weights.

    Vaswani et al. 2017, arXiv:1706.03762, section 3.1; pre-norm: Xiong et al. 2020,
    arXiv:2002.04745.
    """
    ### BEGIN SOLUTION
    hidden = None if padding is None else padding[..., None, :]
    if norm_first:
        y = norm(x, w["norm1"])
        x = x + attention(y, y, w["self"], heads, hidden)
        return x + feed_forward(norm(x, w["norm2"]), **w["ff"])
    x = norm(x + attention(x, x, w["self"], heads, hidden), w["norm1"])
    return norm(x + feed_forward(x, **w["ff"]), w["norm2"])
    ### END SOLUTION


# %% check="encoder_layer"
check(encoder_layer)

# %% [markdown]
# ## Who may see whom
#
# In training the decoder is given the right answer, shifted by one place (*teacher forcing*): from "start, 2, 0, 2" it
# shall say "2, 0, 2, 4". All places are trained at once. So a place must not see those after it, or it would simply
# copy the next token.
#
# "The decoder uses masked attention", say the notes. It has *two* attentions. torch's decoder layer masks what it is
# told to, so we ask one that makes its masks itself: that of BART, as the transformers library builds it. We take the
# gradient of each output with respect to every target and every source token: where it is exactly 0, nothing was read.
#
# **Before the run:** *correct* if from the output of each place no later token can be reached through either of the
# two, *imprecise* if one of them is masked so and the other isn't, *wrong* if neither.

# %% claim="T01.5"
from transformers.models.bart.modeling_bart import BartConfig, BartDecoder

torch.manual_seed(0)
config = BartConfig(
    vocab_size=8, d_model=32, decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=64, init_std=0.2
)
decoder = BartDecoder(config).eval()  # random weights, no dropout
target, source = torch.randn(1, 6, 32, requires_grad=True), torch.randn(1, 8, 32, requires_grad=True)
out = decoder(inputs_embeds=target, encoder_hidden_states=source).last_hidden_state
direction = torch.randn(32)  # not ones: after a norm the plain sum of a token never changes
rows = [torch.autograd.grad(out[0, i] @ direction, [target, source], retain_graph=True) for i in range(6)]
reads = [torch.stack([row[k][0].norm(dim=-1) for row in rows]) for k in range(2)]

fig, axes = figure(1, 2, width=9.5, height=3.9)
for ax, read, name in zip(axes, reads, ("target token j", "source token j"), strict=True):
    picture = ax.imshow(torch.where(read > 0, read, torch.nan).log10(), cmap=SEQUENTIAL, vmin=-3, vmax=0.5)
    for i, j in (read == 0).nonzero().tolist():
        ax.text(j, i, "0", ha="center", va="center", color="#777777")
    ax.set(xlabel=name, ylabel="output i", xticks=range(read.shape[1]), yticks=range(6))
fig.colorbar(picture, ax=axes, label="log10 of the gradient", shrink=0.85)
zeros = [int((read == 0).sum()) for read in reads]
show(
    fig,
    alt="Two maps of gradients, for target tokens and for source tokens. Exactly zero are "
    + " and ".join(f"{zero} of {read.numel()}" for zero, read in zip(zeros, reads, strict=True)) + ".",
    title=f"Self-attention: {zeros[0]} of {reads[0].numel()} gradients are exactly 0. "
    f"Cross-attention: {zeros[1]} of {reads[1].numel()}",
)
masked = [bool((read.triu(1) == 0).all()) for read in reads]
verdict(
    "T01.5",
    ("wrong", "imprecise", "correct")[sum(masked)],
    f"Self-attention {'looks at no later token' if masked[0] else 'looks ahead'}; cross-attention "
    + ("is masked as well." if masked[1]
       else f"reads {int((reads[1][0] > 0).sum())} of {reads[1].shape[1]} source tokens for the first output."),
)

# %% [markdown]
# The paper masks the self-attention alone (section 3.2.3). The source is known from the start, so even the first output
# may read all of it.
#
# ## Exercise 3: the decoder layer
#
# Three sub-layers now. Queries of the cross-attention come from the decoder, keys and values from the `memory`: what
# the encoder made of the source. Make the causal mask yourself.


# %% exercise="decoder_layer"
def decoder_layer(y, memory, w, heads, memory_padding=None, norm_first=False):
    """One decoder layer: causal self-attention, cross-attention, feed-forward (ReLU).

    y:              float32 or float64 tensor [..., m, d], the target tokens; token i may read
                    tokens 0 to i; left as it is
    memory:         [..., n, d], the encoder's result, which the cross-attention reads, with the
                    leading dimensions of y; m and n may differ
    w:              as in encoder_layer, and also "cross" (weights of attention) and "norm3";
                    norm1 belongs to the self-attention, norm2 to the cross-attention, norm3 to
                    the feed-forward network
    heads:          number of heads, in both attentions
    memory_padding: None, or bool [..., n]: True where a source token is padding, which no
                    target token may read. Every source has at least one token that isn't.
                    Padding of the target needs no mask: it stands at the end, where no earlier
                    token looks.
    norm_first:     as in encoder_layer; the memory is never normalized here, in either order
    There is no dropout.
    Returns a tensor of the shape and the dtype of y. Differentiable: gradients flow to y, to
    the memory and to all weights.

    Vaswani et al. 2017, arXiv:1706.03762, sections 3.1 and 3.2.3.
    """
    ### BEGIN SOLUTION
    m = y.shape[-2]
    future = torch.ones(m, m, dtype=torch.bool, device=y.device).triu(1)
    hidden = None if memory_padding is None else memory_padding[..., None, :]
    sublayers = [
        (lambda x: attention(x, x, w["self"], heads, future), w["norm1"]),
        (lambda x: attention(x, memory, w["cross"], heads, hidden), w["norm2"]),
        (lambda x: feed_forward(x, **w["ff"]), w["norm3"]),
    ]
    for sublayer, n in sublayers:
        y = y + sublayer(norm(y, n)) if norm_first else norm(y + sublayer(y), n)
    return y
    ### END SOLUTION


# %% check="decoder_layer"
check(decoder_layer)

# %% [markdown]
# ## A task for both halves
#
# People write dates in many ways, computers prefer one. A program with a few rules could do it; we show our model
# examples instead, letter by letter, and tell it nothing about months. The source has letters of its own, and the
# target needs only digits and a hyphen: two alphabets.

# %% tags=["demo"]
MONTHS = [
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
]
PAD, START, END = 0, 1, 2


def written(day, style):
    """A date as people write it, in one of four styles."""
    month = MONTHS[day.month - 1]
    return [
        f"{day.day} {month} {day.year}",
        f"{month} {day.day}, {day.year}",
        f"{day.year}, {month[:3]} {day.day}",
        f"{month[:3]} {day.day} {day.year}",
    ][style]


SOURCE = {c: i + 3 for i, c in enumerate(sorted(set("".join(MONTHS) + "0123456789 ,")))}
TARGET = {c: i + 3 for i, c in enumerate("-0123456789")}


def as_tensor(rows):
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD)


def batch(days, styles):
    """Dates and styles -> source ids [batch, n] and target ids [batch, 12]: start, ten characters, end."""
    source = as_tensor([[SOURCE[c] for c in written(day, style)] for day, style in zip(days, styles, strict=True)])
    return source, as_tensor([[START, *(TARGET[c] for c in day.isoformat()), END] for day in days])


def spelled(ids):
    """Target ids -> text, without start, end and padding."""
    letters = {i: c for c, i in TARGET.items()}
    return "".join(letters.get(int(i), "") for i in ids)


FIRST, LAST = datetime.date(1900, 1, 1).toordinal(), datetime.date(2099, 12, 31).toordinal()
DAYS = [datetime.date.fromordinal(n) for n in range(FIRST, LAST + 1)]
random.Random(0).shuffle(DAYS)
HELD_OUT, KNOWN = DAYS[:1_000], DAYS[1_000:]
HELD_SOURCE, HELD_TARGET = batch(HELD_OUT, [i % 4 for i in range(len(HELD_OUT))])
for i in range(4):
    print(f"{written(HELD_OUT[i], i):>20}  ->  {HELD_OUT[i].isoformat()}")
print(f"{len(KNOWN):,} days to learn from, {len(HELD_OUT):,} that the model never sees")

# %% [markdown]
# "Both parts contain a *target* embedding layer", say the notes. We can try that: give the encoder the target's table.
# (That we have two alphabets is our choice, so this is an example, and no law.)
#
# **Before the run:** *correct* if every character of the source has a row of its own in the target's table, *wrong* if
# some have none, while all have one in the source's. *Imprecise* if they lack some in both.

# %% claim="T01.2"
rowless = {}
for name, letters in {"target": TARGET, "source": SOURCE}.items():
    try:
        outcome = f"vectors of shape {tuple(nn.Embedding(len(letters) + 3, 64)(HELD_SOURCE).shape)}"
    except IndexError as error:
        outcome = f"IndexError: {error}"
    print(f"encoder with the {name}'s table: {outcome}")
    rowless[name] = "".join(c for c in SOURCE if c not in letters)
    print(f"    source characters that have no row in it: {rowless[name]!r}")
verdict(
    "T01.2",
    "correct" if not rowless["target"] else "wrong" if not rowless["source"] else "imprecise",
    f"Of {len(SOURCE)} characters of the source {len(rowless['target'])} have no row in the target's table, "
    f"{len(rowless['source'])} have none in the source's own.",
)

# %% [markdown]
# With two alphabets each side needs a table of its own. (A model may share one if both sides share one vocabulary, as
# the paper did, section 3.4. It is then the table of both.)
#
# ## Train it
#
# One encoder layer and one decoder layer of width 64, made of torch's own parts so that this cell doesn't depend on
# your exercises. Attention here has no biases, so that its weights fit into your dict.


# %% tags=["demo"]
class Rewriter(nn.Module):
    """A Transformer with one encoder and one decoder layer: source ids and target ids -> logits of what comes next."""

    def __init__(self, d=64, heads=4, d_ff=128, longest=32):
        super().__init__()
        self.heads, self.source, self.target = heads, nn.Embedding(len(SOURCE) + 3, d), nn.Embedding(len(TARGET) + 3, d)
        self.places, self.head = nn.Embedding(longest, d), nn.Linear(d, len(TARGET) + 3)
        options = {"dropout": 0.0, "batch_first": True}
        self.encoder = nn.TransformerEncoderLayer(d, heads, d_ff, **options)
        self.decoder = nn.TransformerDecoderLayer(d, heads, d_ff, **options)
        for module in self.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.in_proj_bias.requires_grad_(False)  # torch starts them at 0, and there they stay
                module.out_proj.bias.requires_grad_(False)

    def embedded(self, table, ids):
        return table(ids) + self.places.weight[: ids.shape[1]]

    def encode(self, source):
        return self.encoder(self.embedded(self.source, source), src_key_padding_mask=source == PAD)

    def forward(self, source, tokens):
        causal = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).triu(1)
        seen = self.decoder(
            self.embedded(self.target, tokens),
            self.encode(source),
            tgt_mask=causal,
            memory_key_padding_mask=source == PAD,
        )
        return self.head(seen)


def exact_match(model, source, target):
    """The share of dates of which every character is predicted rightly from the right ones before it."""
    with torch.no_grad():
        return float((model(source, target[:, :-1]).argmax(-1) == target[:, 1:]).all(1).float().mean())


def train(steps=650, size=64, rate=3e-3):
    torch.manual_seed(0)
    model, chance, history = Rewriter(), random.Random(1), []
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, betas=(0.9, 0.98), fused=True)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
        source, target = batch(chance.sample(KNOWN, size), chance.choices(range(4), k=size))
        loss = F.cross_entropy(model(source, target[:, :-1]).flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 49:
            history.append((step + 1, loss.item(), exact_match(model, HELD_SOURCE, HELD_TARGET)))
    return model, history


begin = time.perf_counter()
model, history = train()
seconds = time.perf_counter() - begin

fig, axes = figure(1, 2, width=9.5, height=3.3)
steps, losses, matches = zip(*history, strict=True)
axes[0].plot(steps, losses, color=COLORS[0])
guessing = math.log(len(TARGET) + 1)  # ten digits, the hyphen, the end
axes[0].axhline(guessing, color="#999999", linestyle=":")
axes[0].text(steps[-1], 1.15 * guessing, "guessing", color="#777777", ha="right", va="bottom")
axes[0].set(xlabel="training step", ylabel="loss (nats a character)", yscale="log", ylim=(None, 9))
axes[1].plot(steps, matches, color=COLORS[1])
axes[1].set(xlabel="training step", ylabel="share of held-out dates\nthat are right in full", ylim=(-0.03, 1.05))
show(
    fig,
    alt=f"Loss from {losses[0]:.1f} to {losses[-1]:.4f} nats; the share of held-out dates that are right in full from "
    f"{matches[0]:.0%} to {matches[-1]:.0%}.",
    title=f"{matches[-1]:.1%} of {len(HELD_OUT):,} unseen dates are right, "
    f"after {seconds:.0f} s with {sum(p.numel() for p in model.parameters()):,} parameters",
)

# %% [markdown]
# Look at `exact_match`: it never writes a date. It gives the model the right beginning at all places at once and asks
# for the next character. If all of these are right, then the model would also write the whole date: its first
# character would be right, so its second would be predicted from the right beginning, and so on. One parallel pass
# instead of eleven steps. That is what training gains from the causal mask.
#
# ## Look across the bridge
#
# Which source characters does the decoder read while it writes? We record the weights of the cross-attention.


# %% tags=["demo"]
def cross_weights(model, source, tokens):
    """Weights of the cross-attention, mean over the heads: [m, n]."""
    kept = {}
    original = model.decoder.multihead_attn.forward

    def recording(*args, **options):
        result = original(*args, **(options | {"need_weights": True}))
        kept["weights"] = result[1]
        return result

    model.decoder.multihead_attn.forward = recording
    try:
        with torch.no_grad():
            model(source, tokens)
    finally:
        del model.decoder.multihead_attn.forward
    return kept["weights"][0]


SHOWN = datetime.date(1987, 9, 26)
fig, axes = figure(1, 2, width=10.5, height=4.4, width_ratios=[3, 2])
attended, even = {"year": [], "month": [], "day": []}, {"year": [], "month": [], "day": []}
for ax, style in zip(axes, (0, 2), strict=True):
    text, answer = written(SHOWN, style), SHOWN.isoformat()
    source, target = batch([SHOWN], [style])
    weights = cross_weights(model, source, target[:, :-1])[:10]
    picture = ax.imshow(weights, cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(range(len(text)), [c if c != " " else "␣" for c in text])
    ax.set_yticks(range(10), list(answer))
    ax.set(xlabel="it reads", title=text)
    month = next(name for name in (MONTHS[8], MONTHS[8][:3]) if name in text)
    for part, written_as, lines in (("year", "1987", (0, 4)), ("month", month, (5, 7)), ("day", "26", (8, 10))):
        at = text.index(written_as)
        attended[part].append(float(weights[slice(*lines), at : at + len(written_as)].sum(1).mean()))
        even[part].append(len(written_as) / len(text))
axes[0].set_ylabel("it is about to write")
fig.colorbar(picture, ax=axes, label="weight, mean of the heads", shrink=0.9)
show(
    fig,
    alt="Cross-attention for one date in two styles. While a part of the date is written, so much weight lies on that "
    "part in the source: "
    + "; ".join(f"{part} {first:.0%} and {second:.0%}" for part, (first, second) in attended.items()) + ".",
    title="Attention on the part that is being written, in two styles: "
    + ", ".join(f"{part} {first:.0%} and {second:.0%}" for part, (first, second) in attended.items()),
)
print("Spread evenly, they would have "
      + ", ".join(f"{part} {first:.0%} and {second:.0%}" for part, (first, second) in even.items()))

# %% [markdown]
# Nobody told it where to look, and the parts stand elsewhere in each style. Compare with the line below the figure: a
# long word gets much of an even spread as well.
#
# ## Exercise 4: writing
#
# Now the part that isn't parallel. Nobody knows the second character before the first is written. So: encode the
# source **once**, then ask the decoder again and again, each time with all that was written so far. *Greedy* means that
# the likeliest token is taken every time.
#
# In a batch, some rows end before others. They get padding until the last one is through.


# %% exercise="greedy_decode"
def greedy_decode(encode, decode, source, start, end, pad, max_tokens):
    """Write an answer to each source, taking the likeliest next token every time.

    encode:     encode(source) gives the memory, a tensor with one row a source; called once
    decode:     decode(tokens, memory), with integer tokens [batch, m], gives logits
                [batch, m, vocabulary]: those at place i are about the token that follows
                tokens[:, : i + 1]. Rows don't influence each other. It is called once for each
                column of the result.
    source:     integer tensor [batch, n]
    start:      the token with which each row begins; it isn't part of the result; in some
                models the same as `end`
    end:        the token that ends a row; it is part of the result
    pad:        what a row holds after its end; in some models the same as `end`
    max_tokens: at least 1; no row has more new tokens than this, whether it has ended or not
    Returns an int64 tensor [batch, k], where k is the length of the longest row with its end,
    at most max_tokens.
    """
    ### BEGIN SOLUTION
    memory = encode(source)
    tokens = torch.full((len(source), 1), start)
    done = torch.zeros(len(source), dtype=torch.bool)
    for _ in range(max_tokens):
        following = decode(tokens, memory)[:, -1].argmax(-1).masked_fill(done, pad)
        tokens = torch.cat([tokens, following[:, None]], 1)
        done = done | (following == end)
        if done.all():
            break
    return tokens[:, 1:]
    ### END SOLUTION


# %% check="greedy_decode"
check(greedy_decode)

# %% [markdown]
# ## All of it yours
#
# Take the trained weights out of torch's layers, put them into your dicts, and let your four functions rewrite dates
# that nobody trained on.


# %% tags=["payoff"]
def taken(module):
    """The weights of one of torch's layers, as the exercises want them."""

    def attention_of(a):
        q, k, v = a.in_proj_weight.detach().chunk(3)
        return {"q": q.T, "k": k.T, "v": v.T, "o": a.out_proj.weight.detach().T}

    def norm_of(n):
        return {"gain": n.weight.detach(), "bias": n.bias.detach()}

    inner, outer = module.linear1, module.linear2
    weights = {
        "self": attention_of(module.self_attn),
        "ff": {"w1": inner.weight.detach().T, "b1": inner.bias.detach(),
               "w2": outer.weight.detach().T, "b2": outer.bias.detach()},
        "norm1": norm_of(module.norm1),
        "norm2": norm_of(module.norm2),
    }  # fmt: skip
    if hasattr(module, "multihead_attn"):
        weights |= {"cross": attention_of(module.multihead_attn), "norm3": norm_of(module.norm3)}
    return weights


ENCODER, DECODER = taken(model.encoder), taken(model.decoder)


@torch.no_grad()
def rewritten(source):
    padding = source == PAD

    def encode(source):
        return encoder_layer(model.embedded(model.source, source), ENCODER, model.heads, padding)

    def decode(tokens, memory):
        return model.head(decoder_layer(model.embedded(model.target, tokens), memory, DECODER, model.heads, padding))

    return greedy_decode(encode, decode, source, START, END, PAD, max_tokens=12)


yours = rewritten(HELD_SOURCE)
right = [spelled(row) == day.isoformat() for row, day in zip(yours, HELD_OUT, strict=True)]
for i in range(4):
    print(f"{written(HELD_OUT[i], i):>20}  ->  {spelled(yours[i])}")
print(f"written by your layers and your loop: {sum(right) / len(right):.1%} of {len(right):,} unseen dates right")
print(f"torch's layers, all places at once:   {exact_match(model, HELD_SOURCE, HELD_TARGET):.1%}")

# %% [markdown]
# ## How parallel?
#
# "Self-attention removes the dependence on time, so the model trains in parallel." We can measure how parallel without
# a stop-watch: follow the operations from input to output and count the **longest chain** in which each needs the
# result of the one before. More processors can shorten everything but that chain.
#
# We take an LSTM cell and a causal Transformer layer, and let both *read* a text that is given, as in training, and
# *write* one, where every output is the next input.
#
# **Before the run:** a chain *grows* if it is over one and a half times as long for 64 tokens as for 4. *Correct* if a
# Transformer's grows neither in reading nor in writing, *imprecise* if in writing alone, *wrong* if even in reading.
# The control: an LSTM's has to grow.

# %% claim="T02.1"
WIDTH = 32
torch.manual_seed(0)
cell = nn.LSTMCell(WIDTH, WIDTH)
layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True)


def causal(n):
    return torch.ones(n, n, dtype=torch.bool).triu(1)


def lstm_reads(n):
    h = c = torch.zeros(1, WIDTH)
    for x in torch.randn(n, 1, WIDTH):
        h, c = cell(x, (h, c))
    return h


def lstm_writes(n):
    x = h = c = torch.zeros(1, WIDTH)
    for _ in range(n):
        h, c = cell(x, (h, c))
        x = h
    return h


def transformer_reads(n):
    return layer(torch.randn(1, n, WIDTH), src_mask=causal(n))[:, -1]


def transformer_writes(n):
    text = torch.randn(1, 1, WIDTH)
    for m in range(1, n + 1):
        following = layer(text, src_mask=causal(m))[:, -1:]
        text = torch.cat([text, following], 1)
    return following


def longest_chain(result):
    """Length of the longest path of dependent operations behind a tensor, from autograd's own record."""
    depth, waiting = {}, [result.grad_fn]
    while waiting:
        node = waiting[-1]
        below = [b for b, _ in node.next_functions if b is not None]
        open_ends = [b for b in below if b not in depth]
        if open_ends:
            waiting += open_ends
        else:
            depth[waiting.pop()] = 1 + max((depth[b] for b in below), default=0)
    return depth[result.grad_fn]


LENGTHS = [4, 8, 16, 32, 64]
WAYS = {
    "LSTM reads": (lstm_reads, COLORS[1], "-", "s"),
    "LSTM writes": (lstm_writes, COLORS[1], "--", "D"),
    "Transformer reads": (transformer_reads, COLORS[0], "-", "o"),
    "Transformer writes": (transformer_writes, COLORS[0], "--", "^"),
}
chains = {name: [longest_chain(way(n)) for n in LENGTHS] for name, (way, *_) in WAYS.items()}
fig, ax = figure(width=9, height=3.8)
for name, (_, color, style, marker) in WAYS.items():
    wide = {"linewidth": 6, "alpha": 0.35} if name == "LSTM reads" else {}  # it lies under "LSTM writes"
    ax.plot(LENGTHS, chains[name], color=color, linestyle=style, marker=marker, label=name, **wide)
ax.set(
    xlabel="length of the text (tokens)", ylabel="longest chain of\ndependent operations", xscale="log", yscale="log"
)
ax.set_xticks(LENGTHS, [str(n) for n in LENGTHS])
ax.minorticks_off()
ax.legend()
growth = {name: chain[-1] / chain[0] for name, chain in chains.items()}
show(
    fig,
    alt=f"Longest chain of dependent operations, from {LENGTHS[0]} to {LENGTHS[-1]} tokens: "
    + ", ".join(f"{name} {chain[0]} to {chain[-1]}" for name, chain in chains.items()) + ".",
    title=f"From {LENGTHS[0]} to {LENGTHS[-1]} tokens the chain grows × {growth['Transformer reads']:.0f} for a "
    f"Transformer that reads, × {growth['Transformer writes']:.0f} for one that writes",
)
grows = {name: times > 1.5 for name, times in growth.items()}
assert grows["LSTM reads"], "The control failed: this measure doesn't see a chain that must grow."
verdict(
    "T02.1",
    "wrong" if grows["Transformer reads"] else "imprecise" if grows["Transformer writes"] else "correct",
    f"From {LENGTHS[0]} to {LENGTHS[-1]} tokens the longest chain becomes "
    + ", ".join(f"{times:.1f} × as long ({name})" for name, times in growth.items()) + ".",
)

# %% [markdown]
# The paper's "O(1) sequential operations" (table 1) are those of training. In writing each token waits for the one
# before, in every network that writes so. (Diffusion models of language fill in several places at once: LLaDA, Nie et
# al. 2025, arXiv:2502.09992.)
#
# And what is a chain worth? That depends on the machine. Here it is in milliseconds on yours: a step of training, and
# the next token after n tokens. For the latter the Transformer either reads everything anew, or keeps keys and values
# in a *KV cache*.

# %% tags=["demo"]
SIZE = 128
torch.manual_seed(0)
lstm = nn.LSTM(SIZE, SIZE, batch_first=True)
block = nn.TransformerEncoderLayer(SIZE, 4, 2 * SIZE, dropout=0.0, batch_first=True)


def best_time(run, repeats=4):
    """Seconds of the fastest of some runs: the one that was disturbed least."""
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def training_step(module, n, **options):
    x = torch.randn(2, n, SIZE)

    def run():
        result = module(x, **options)
        (result[0] if isinstance(result, tuple) else result).square().mean().backward()

    return run


@torch.no_grad()
def next_with_cache(x, keys, values):
    """One new token [1, 1, d] through `block`; keys and values of the text before it are there already."""
    a = block.self_attn
    q, k, v = F.linear(x, a.in_proj_weight, a.in_proj_bias).chunk(3, -1)
    k, v = torch.cat([keys, k], 1), torch.cat([values, v], 1)
    q, k, v = (t.unflatten(-1, (4, -1)).transpose(1, 2) for t in (q, k, v))
    x = block.norm1(x + a.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)))
    return block.norm2(x + block.linear2(torch.relu(block.linear1(x))))


@torch.no_grad()
def next_without_cache(text, mask):
    return block(text, src_mask=mask)[:, -1:]


with torch.no_grad():  # the cache has to give the very token that reading all anew gives
    a, text = block.self_attn, torch.randn(1, 8, SIZE)
    _, keys, values = F.linear(text[:, :-1], a.in_proj_weight, a.in_proj_bias).chunk(3, -1)
assert torch.allclose(
    next_with_cache(text[:, -1:], keys, values), next_without_cache(text, causal(8)), atol=1e-4
), "The control failed: the two ways to the next token differ."
SIZES = [64, 128, 256, 512, 1_024]
clock = {"LSTM": [], "Transformer": []}
following = {"LSTM": [], "Transformer, all anew": [], "Transformer, cache": []}
for n in SIZES:
    clock["LSTM"].append(best_time(training_step(lstm, n)))
    clock["Transformer"].append(best_time(training_step(block, n, src_mask=causal(n))))
    text, new, state = torch.randn(1, n, SIZE), torch.randn(1, 1, SIZE), torch.zeros(1, 1, SIZE)
    with torch.no_grad():
        following["LSTM"].append(best_time(lambda new=new, state=state: lstm(new, (state, state)), 20))
    mask = causal(n)
    following["Transformer, all anew"].append(best_time(lambda t=text, m=mask: next_without_cache(t, m)))
    following["Transformer, cache"].append(best_time(lambda t=text, x=new: next_with_cache(x, t, t), 20))

fig, axes = figure(1, 2, width=10.5, height=4.0)
looks = {"LSTM": (COLORS[1], "-", "s"), "Transformer": (COLORS[0], "-", "o")}
looks |= {"Transformer, all anew": (COLORS[0], "--", "^"), "Transformer, cache": (COLORS[2], "-.", "o")}
for ax, measured, title in zip(
    axes, (clock, following), ("a training step, batch of 2", "the next token"), strict=True
):
    for name, times in measured.items():
        color, style, marker = looks[name]
        ax.plot(SIZES, [1_000 * t for t in times], color=color, linestyle=style, marker=marker, label=name)
    ax.set(xlabel="tokens", ylabel="milliseconds", xscale="log", yscale="log", title=title)
    ax.set_xticks(SIZES, [str(n) for n in SIZES])
    ax.minorticks_off()
    ax.legend()
ratio = {n: a / b for n, a, b in zip(SIZES, clock["LSTM"], clock["Transformer"], strict=True)}
show(
    fig,
    alt=f"Milliseconds on this machine, from {SIZES[0]} to {SIZES[-1]} tokens. A training step: " + "; ".join(
        f"{name} {1e3 * times[0]:.2g} to {1e3 * times[-1]:.2g}" for name, times in clock.items()
    ) + ". The next token: " + "; ".join(
        f"{name} {1e3 * times[0]:.2g} to {1e3 * times[-1]:.2g}" for name, times in following.items()
    ) + ".",
    title=f"Training: the LSTM takes {ratio[SIZES[0]]:.1f} × the Transformer's time at {SIZES[0]} tokens, "
    f"{ratio[SIZES[-1]]:.1f} × at {SIZES[-1]:,}",
)

# %% [markdown]
# The left picture depends on your processor. With few cores there is little to run in parallel, a Transformer has more
# to compute per token the longer the text is, and so the LSTM may well win here. A short chain is worth something where
# cores wait for work, and a GPU has thousands.
#
# In the right picture the machine sets the height, not what has to be done. To write a token, an LSTM needs its state,
# and what was said before costs nothing any more. A Transformer has to look back at all of it: at n keys and values
# from the cache, or through everything anew.
#
# ## "Not limited by distance"
#
# The second advantage in the notes: any two positions interact directly, whatever their distance. Two questions hide
# in that. Does a signal *survive* the distance? And what does it *cost*?
#
# **Before the run:** two things to ask of "whatever their distance". The signal *survives* if over 255 tokens a
# hundredth of the nearest one's gradient is left. The length is *free* if the multiplications grow no faster than the
# text. *Correct* if both hold, *imprecise* if one, *wrong* if neither. A third number says how much of the output is
# any one token's share.

# %% claim="T02.2"
from torch.utils.flop_counter import FlopCounterMode


def reach(module, n=256, absolute=False):
    """Size of the gradient of the last output with respect to each input: [n], relative to the last input's or not."""
    module = module.double()
    x = torch.randn(1, n, SIZE, dtype=torch.float64, requires_grad=True)
    result = module(x)
    result = result[0] if isinstance(result, tuple) else result
    size = torch.autograd.grad(result[0, -1] @ torch.randn(SIZE, dtype=torch.float64), x)[0][0].norm(dim=-1)
    return size if absolute else size / size[-1]


class PlainAttention(nn.Module):
    """One attention layer, without residual, so that the last token has no private road to itself."""

    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(SIZE, 4, batch_first=True)

    def forward(self, x):
        return self.inner(x, x, x, need_weights=False)[0]


def attention_by_the_book(q, k, v):
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v


torch.manual_seed(0)
reaches = {"RNN": nn.RNN(SIZE, SIZE, batch_first=True), "LSTM": nn.LSTM(SIZE, SIZE, batch_first=True)}
reaches = {name: reach(module) for name, module in (reaches | {"attention": PlainAttention()}).items()}
LONG = [256, 512, 1_024, 2_048]
costs = {"attention": [], "LSTM": []}
with torch.no_grad():
    for n in LONG:
        q = torch.randn(4, n, 32)
        costs["attention"].append(best_time(lambda q=q: attention_by_the_book(q, q, q)))
        x = torch.randn(1, n, SIZE)
        costs["LSTM"].append(best_time(lambda x=x: lstm(x)))
memory = [4 * n * n * 4 / 1e6 for n in LONG]  # MB of scores: heads, pairs, bytes

fig, axes = figure(1, 2, width=10.5, height=4.0)
for color, style, (name, size) in zip(
    (COLORS[2], COLORS[1], COLORS[0]), (":", "-", "--"), reaches.items(), strict=True
):
    axes[0].plot(range(255, -1, -1), size.clamp(min=1e-60), color=color, linestyle=style, label=name)
axes[0].set(xlabel="distance (tokens)", ylabel="gradient, relative to distance 0", yscale="log", ylim=(1e-40, 1e4))
axes[0].set_title("does the signal survive?")
axes[0].legend(loc="lower left")
for (name, times), color, marker in zip(costs.items(), (COLORS[0], COLORS[1]), ("o", "s"), strict=True):
    axes[1].plot(LONG, [1_000 * t for t in times], color=color, marker=marker, label=name)
for n, t, size in zip(LONG, costs["attention"], memory, strict=True):
    axes[1].annotate(f"{size:.0f} MB", (n, 1_000 * t), (0, 8), textcoords="offset points", ha="center", fontsize=9)
axes[1].set(xlabel="length (tokens)", ylabel="milliseconds", xscale="log", yscale="log", title="what does it cost?")
axes[1].set_xticks(LONG, [f"{n:,}" for n in LONG])
axes[1].minorticks_off()
axes[1].margins(y=0.15)
axes[1].legend()
times = {name: t[-1] / t[0] for name, t in costs.items()}
show(
    fig,
    alt="Left: gradients against distance; over 255 tokens there are left "
    + ", ".join(f"{name} {float(size[0]):.0e}" for name, size in reaches.items())
    + f". Right: time from {LONG[0]} to {LONG[-1]:,} tokens, attention × {times['attention']:.0f}, LSTM × "
    f"{times['LSTM']:.0f}; the scores take {memory[0]:.0f} to {memory[-1]:.0f} MB.",
    title=f"Left after 255 tokens: attention {float(reaches['attention'][0]):.2f}, "
    f"LSTM {float(reaches['LSTM'][0]):.0e}. "
    f"{LONG[-1] // LONG[0]} × the length: {times['attention']:.0f} and {times['LSTM']:.0f} × the time",
)
far = {name: float(size[0]) for name, size in reaches.items()}
plain = PlainAttention()
share = {n: float(reach(plain, n, absolute=True).median()) for n in (64, 1_024)}
work = {}
for n in (LONG[0], LONG[-1]):
    q = torch.randn(4, n, 32)
    with FlopCounterMode(display=False) as counter:
        attention_by_the_book(q, q, q)
    work[n] = counter.get_total_flops()
survives, free = far["attention"] > 0.01, work[LONG[-1]] / work[LONG[0]] <= LONG[-1] / LONG[0]
verdict(
    "T02.2",
    ("wrong", "imprecise", "correct")[survives + free],
    "Over 255 tokens this much of the gradient is left: "
    + ", ".join(f"{name} {left:.0e}" for name, left in far.items())
    + f". {LONG[-1] // LONG[0]} × the length takes attention {work[LONG[-1]] / work[LONG[0]]:.0f} × the "
    f"multiplications. From 64 to 1,024 tokens the gradient of a middling one becomes {share[1_024] / share[64]:.2f} "
    "of what it was.",
)

# %% [markdown]
# The answers belong together. The path between two tokens is one step, however far apart they are; recurrent layers
# have a step for every token between, and these here are untrained (an LSTM can learn to keep much more). But every
# pair of tokens is compared, and a softmax shares out one unit of attention among all. And a path isn't yet a skill: a
# model trained on short texts may fail on long ones; the chapter on rotary embedding tries it. A plain mean of all
# tokens has a path of one step, too: it lets every signal through and picks out none.
#
# ### And a convolution?
#
# The third way to mix tokens looks at neighbors only: a convolution of width 3 sees two tokens back. It reaches further
# with every layer, and **dilated** ones (every second token, every fourth, …) faster (WaveNet,
# arXiv:1609.03499). How many layers until the first and the last token meet? We add layers until the last output has
# any gradient with respect to the first input, and look how much arrives then.

# %% tags=["demo"]
class Convolutions(nn.Module):
    """Causal convolutions of width 3 over tokens, with tanh between; dilated: by 1, 2, 4, …"""

    def __init__(self, depth, dilated):
        super().__init__()
        self.steps = [2**i if dilated else 1 for i in range(depth)]
        self.layers = nn.ModuleList(nn.Conv1d(SIZE, SIZE, 3, dilation=step) for step in self.steps)

    def forward(self, x):
        x = x.mT
        for step, layer in zip(self.steps, self.layers, strict=True):
            x = torch.tanh(layer(F.pad(x, (2 * step, 0))))
        return x.mT


def until_they_meet(make, n):
    """The fewest layers through which the last of n tokens hears the first, and how much, relative to the loudest."""
    for depth in range(1, n + 1):
        torch.manual_seed(0)
        heard = reach(make(depth), n)
        if heard[0] > 0:
            return depth, float(heard[0] / heard.max())
    raise ValueError(f"They don't meet in {n} layers.")


MIXERS = {
    "convolution, width 3": lambda depth: Convolutions(depth, dilated=False),
    "dilated convolution": lambda depth: Convolutions(depth, dilated=True),
    "attention": lambda depth: nn.Sequential(*(PlainAttention() for _ in range(depth))),
}
SPANS = [8, 16, 32, 64]
meeting = {name: [until_they_meet(make, n) for n in SPANS] for name, make in MIXERS.items()}
fig, ax = figure(width=8.6, height=3.4)
for (name, found), color, marker in zip(meeting.items(), COLORS, "osD", strict=False):
    ax.plot(SPANS, [depth for depth, _ in found], color=color, marker=marker, label=name)
ax.set(xlabel="length (tokens)", ylabel="layers until the first\nand the last token meet", xscale="log", yscale="log")
ax.set_xticks(SPANS, [str(n) for n in SPANS])
ax.set_yticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
ax.minorticks_off()
ax.legend()
show(
    fig,
    alt=f"Layers until the first and last token meet, for {', '.join(map(str, SPANS))} tokens: "
    + "; ".join(f"{name} {', '.join(str(depth) for depth, _ in found)}" for name, found in meeting.items()) + ".",
    title=f"Layers until {SPANS[-1]} tokens have met: "
    + ", ".join(f"{found[-1][0]} ({name})" for name, found in meeting.items()),
)
for name, found in meeting.items():
    print(f"{name:21} after {found[-1][0]:2} layers the first of {SPANS[-1]} tokens has {found[-1][1]:.0e} of the "
          "gradient of the one that is heard most")

# %% [markdown]
# What does a layer cost? A convolution of width $k$ takes $k\,n\,d^2$ multiplications. Attention takes $4\,n\,d^2$ for
# its matrices and $2\,n^2 d$ for all pairs, and only the last grows with the square of the length. And for *near*
# things, a picture's edges or a word's letters, neighbors first is a good guess, an *inductive bias*. Attention pays
# for all pairs and guesses nothing.
#
# ## One architecture for many things
#
# The third advantage in the notes: it does well in vision and in language. The trick is to make *tokens* of anything.
# Cut a picture into patches, and each is a "word" (Dosovitskiy et al. 2020, arXiv:2010.11929). We try it on
# scikit-learn's 8 × 8 digits, in 16 patches of 2 × 2 pixels, against a linear classifier that sees the pixels.
#
# **Before the run:** *correct* if encoder layers as in a language model (pre-norm, two of them), with patches for
# tokens, recognize at least nine of ten unseen digits, *imprecise* if over half, *wrong* if less. *Unverifiable* if
# nine of ten are recognized without these layers. One seed and one rate, and no high bar: a linear classifier on all
# pixels stands beside it.

# %% claim="T02.3"
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

images, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
fit, test = order[:1_300], order[1_300:]


def patches(flat):
    """[batch, 64] pixels -> [batch, 16, 4]: a token for each 2 × 2 square."""
    return flat.view(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4)


class Seeing(nn.Module):
    def __init__(self, depth, d=32):
        super().__init__()
        self.patch, self.places, self.head = nn.Linear(4, d), nn.Parameter(0.02 * torch.randn(16, d)), nn.Linear(d, 10)
        self.layers = nn.Sequential(
            *[nn.TransformerEncoderLayer(d, 4, 2 * d, 0.0, batch_first=True, norm_first=True) for _ in range(depth)]
        )

    def forward(self, flat):
        return self.head(self.layers(self.patch(patches(flat)) + self.places).mean(1))


def learned_to_see(depth, epochs=25):
    """Accuracy on the test images after training a model of that many encoder layers."""
    torch.manual_seed(0)
    seeing = Seeing(depth)
    optimizer = torch.optim.AdamW(seeing.parameters(), 3e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, epochs * 21)
    for _ in range(epochs):
        for part in fit[torch.randperm(len(fit))].split(64):
            loss = F.cross_entropy(seeing(images[part]), labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return float((seeing(images[test]).argmax(-1) == labels[test]).float().mean())


linear = LogisticRegression(max_iter=2_000).fit(images[fit], labels[fit]).score(images[test], labels[test])
bare, seen = learned_to_see(0), learned_to_see(2)
accuracy = {
    "guessing": 0.1,
    "patches, no encoder layer": bare,
    "linear classifier on pixels": linear,
    "Transformer on patches": seen,
}
fig, axes = figure(1, 2, width=9.5, height=3.0, width_ratios=[1, 2.4])
axes[0].imshow(images[test[3]].view(8, 8), cmap="gray_r")
for edge in (1.5, 3.5, 5.5):
    axes[0].axhline(edge, color=COLORS[1], linewidth=1.5)
    axes[0].axvline(edge, color=COLORS[1], linewidth=1.5)
axes[0].set(xticks=[], yticks=[], title="16 tokens")
bars = axes[1].barh(list(accuracy), list(accuracy.values()), color=["#bbbbbb", COLORS[2], COLORS[4], COLORS[0]])
axes[1].bar_label(bars, [f"{value:.1%}" for value in accuracy.values()], padding=4)
axes[1].set(xlabel="share of test digits recognized", xlim=(0, 1.15))
axes[1].invert_yaxis()
show(
    fig,
    alt="Left: a digit cut into 16 patches. Right, bars of accuracy: "
    + ", ".join(f"{name} {value:.1%}" for name, value in accuracy.items()) + ".",
    title=f"Of {len(test)} digits the encoder recognizes {seen:.1%}, a linear classifier {linear:.1%}",
)
verdict(
    "T02.3",
    "unverifiable" if bare >= 0.9 else "correct" if seen >= 0.9 else "imprecise" if seen > 0.5 else "wrong",
    f"Of {len(test)} unseen digits the encoder on patches recognizes {seen:.1%}, without its layers {bare:.1%}, a "
    f"linear classifier {linear:.1%}.",
)

# %% [markdown]
# Compare the bars. Without layers the model sees the mean of its patches, the linear classifier sees each pixel in its
# place, and attention has to learn even that neighboring patches belong together. Dosovitskiy et al. say of their model
# that its strength shows after pre-training on very many pictures. These few digits and one seed can't tell how far it
# goes.
#
# ## Three families, one block
#
# "Autoencoding, autoregressive and T5 architectures", the notes conclude. The usual names are these, and they differ in
# little more than who may see whom:
#
# * **encoder-only** (BERT): everybody sees everybody; made to read a text that is there,
# * **decoder-only** (GPT, LLaMA): causal, no cross-attention; made to write, and today's standard,
# * **encoder–decoder** (the Transformer of 2017, T5, BART): what you have built. T5 is a member of this family, not the
#   family.

# %% tags=["demo"]
n_source, n_target = 5, 5
n = n_source + n_target
rows, columns = torch.arange(n)[:, None], torch.arange(n)[None, :]
reads_source = (columns < n_source) & (rows >= 0)
families = {
    "encoder-only": torch.ones(n, n, dtype=torch.bool),
    "decoder-only": columns <= rows,
    "encoder–decoder": reads_source | ((columns <= rows) & (rows >= n_source)),
}
fig, axes = figure(1, 3, width=10, height=3.9)
for ax, (name, mask) in zip(axes, families.items(), strict=True):
    ax.imshow(mask, cmap="Blues", vmin=0, vmax=1.6)
    ax.set_xticks(torch.arange(n) + 0.5, minor=True)
    ax.set_yticks(torch.arange(n) + 0.5, minor=True)
    ax.grid(which="minor", color="white")
    ax.tick_params(which="both", length=0)
    ax.set(xticks=[], yticks=[], xlabel="is read", title=f"{name}: {int(mask.sum())} of {n * n}")
    if name == "encoder–decoder":
        for draw in (ax.axhline, ax.axvline):
            draw(n_source - 0.5, color=COLORS[1], linewidth=2)
        ax.set_xlabel("source | target is read")
axes[0].set_ylabel("reads")
show(
    fig,
    alt="Three grids of who reads whom. Encoder-only: all pairs. Decoder-only: the lower triangle. Encoder–decoder: "
    "source tokens read the source, target tokens read all of the source and the target up to themselves.",
    title="Who may read whom among ten tokens",
)

# %% [markdown]
# ## What you have now
#
# * An encoder layer: self-attention and a feed-forward network. A decoder layer: a causal mask on the first, and
#   cross-attention to the memory between the two. A residual and a norm around each.
# * Training asks about all places of a known text at once; writing goes token by token, in a loop.
# * A path of one step between any two tokens, and the price of all pairs.
#
# The chapters that follow take the parts up one by one: positions, norms, what attention costs, and how all of it is
# trained.
