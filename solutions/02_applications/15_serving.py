# ---
# jupyter:
#   course:
#     title: "Serving: what an engine waits for"
#     exercises: applications.serving
#     questions: [A02, T07]
#     needs: [01_transformer/09_pretrain_gpt, 02_applications/01_decoder_only, 02_applications/02_sampling]
# ---

# %% [markdown]
# # Serving: what an engine waits for
#
# Two people use the same model on the same machine, and a token costs one of them many times as much time as the
# other. The difference is the **serving engine**: it decides what is computed together, what is kept, and what is
# guessed.
#
# The interview question, 大模型性能优化方向: **in which directions can a large model's performance be optimized?**
# The usual notes say: compress it, optimize its graph, compile it, buy newer hardware. Here you measure what a model
# waits for, and then build the parts of an engine that follow from it: a paged cache, a scheduler, shared prefixes,
# speculation.
#
# Everything here runs on a CPU. What needs a GPU stands there as complete code behind a check of the device, and the
# chapter says whether it has been run.

# %% tags=["setup"]
import contextlib
import copy
import logging
import math
import statistics
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from transformers import DynamicCache

from autograde import check
from labkit import COLORS, evidence, figure, give_back, own, shakespeare, show, smollm, verdict

torch.set_num_threads(1)  # times of one core: they mean the same everywhere, whoever else uses the others

# %% [markdown]
# ## One token, or sixty-four
#
# A chat model answers in two phases. **Prefill** reads the whole prompt in one forward pass. **Decode** then gives one
# token a pass. How much does a pass cost, with 1, 2, 4 … tokens in it?

# %% tags=["demo"]
model, tokenizer = smollm()
LAYERS, KV_HEADS, HEAD = len(model.model.layers), model.config.num_key_value_heads, model.config.head_dim
plays = tokenizer(shakespeare()[:6000], return_tensors="pt").input_ids


def seconds_of(work, times=2):
    """The least of several runs, in seconds of the processor: what else the machine does is not counted."""
    found = []
    for _ in range(times):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


COUNTS = [1, 2, 4, 8, 16, 32, 64]
with torch.inference_mode():
    model(plays[:, :8], use_cache=False)  # the first call makes things ready
    STEP = {n: seconds_of(lambda n=n: model(plays[:, :n], use_cache=False)) for n in COUNTS}
each = {n: 1000 * seconds / n for n, seconds in STEP.items()}
fig, (left, right) = figure(1, 2, width=10, height=3.3)
left.plot(COUNTS, [1000 * STEP[n] for n in COUNTS], "o-", color=COLORS[0])
left.set(xlabel="tokens in one pass", ylabel="a pass, ms", xscale="log", ylim=(0, None))
right.plot(COUNTS, [each[n] for n in COUNTS], "o-", color=COLORS[1])
right.set(xlabel="tokens in one pass", ylabel="a token, ms", xscale="log", ylim=(0, None))
for ax in (left, right):
    ax.set_xticks(COUNTS, COUNTS)
    ax.minorticks_off()
show(fig, f"Milliseconds of a pass against the tokens in it: {1000 * STEP[1]:.0f} for one, {1000 * STEP[64]:.0f} for "
          f"64. Right: the same for each token, {each[1]:.0f} and {each[64]:.1f}.",
     title=f"One token takes {each[1]:.0f} ms; of 64 tokens in one pass each takes {each[64]:.1f} ms")

# %% [markdown]
# ## The roofline
#
# A layer $y = xW^\top$ does two things. It moves numbers: $W$, $x$ and $y$ pass through the memory's bus. And it
# computes: two operations for every weight and every token. Williams et al.
# ([2009](https://doi.org/10.1145/1498765.1498785)) put both into one picture. The **arithmetic intensity** is
#
# $$I = \frac{\text{operations}}{\text{bytes moved}}, \qquad
# \text{speed} \le \min\,(\text{peak},\; I \cdot \text{bandwidth}).$$
#
# With one token, each weight is read for a single multiply-add: $I \approx 1$ for 2-byte numbers, and the unit that
# computes waits for memory. With a thousand tokens each weight serves a thousand times.
#
# ### Exercise 1: what does a layer wait for?

# %% exercise="roofline"
def roofline(rows, d_in, d_out, flops_per_second, bytes_per_second, number_bytes=2, weight_bytes=None):
    """What a linear layer waits for, arithmetic or memory, and how long it takes at least.

    The layer is y = x @ W.T without a bias: x [rows, d_in], W [d_out, d_in], y [rows, d_out].
    A multiply-add is two operations: the layer has 2 * rows * d_in * d_out. x and W are read
    from memory once, y is written once.

    rows, d_in, d_out: ints >= 1
    flops_per_second:  operations a second that the machine can do at most, > 0
    bytes_per_second:  bytes a second that its memory can move at most, > 0
    number_bytes:      bytes of each number of x and y, and of W unless told otherwise
    weight_bytes:      bytes of each number of W, None: number_bytes. May be a fraction (0.5 for
                       4-bit weights)

    Arithmetic and memory work at the same time: the slower of the two decides.
    Returns (intensity, seconds, bound): operations a byte and seconds as floats (or float64
    tensors); bound is "compute" or "memory", whichever takes longer, "compute" if both take
    equally long.
    Williams, Waterman and Patterson 2009, doi:10.1145/1498765.1498785.
    """
    ### BEGIN SOLUTION
    weight_bytes = number_bytes if weight_bytes is None else weight_bytes
    operations = 2 * rows * d_in * d_out
    moved = number_bytes * rows * (d_in + d_out) + weight_bytes * d_in * d_out
    compute, memory = operations / flops_per_second, moved / bytes_per_second
    bound = "compute" if compute >= memory else "memory"
    return operations / moved, max(compute, memory), bound
    ### END SOLUTION


# %% check="roofline"
check(roofline)

# %% [markdown]
# Now the roof of *this* machine. Its bandwidth: how fast is a long vector summed up? Its peak: how fast are two large
# matrices multiplied? The dots are a layer of 2048 × 2048 float32 weights, four different ones in turn, so that
# no cache holds them. Your function draws the line from the two speeds. It is a limit, not a forecast: what a layer
# loses on top (starting, packing, waiting) pushes its dot below the line.

# %% tags=["payoff"]
with torch.inference_mode():
    long, square = torch.ones(2**24), torch.randn(1024, 1024)
    BANDWIDTH = long.nbytes / seconds_of(long.sum, 5)
    PEAK = 2 * 1024**3 / seconds_of(lambda: square @ square, 5)
    del long
    width, weights = 2048, [torch.randn(2048, 2048) for _ in range(4)]
    counts, dots = [1, 2, 4, 8, 16, 32, 64, 128], {}
    for rows in counts:
        x = torch.randn(rows, width)
        dots[rows] = seconds_of(lambda x=x: [F.linear(x, w) for w in weights], 2 if rows < 64 else 1) / len(weights)
    weights = x = None
give_back()  # memory for what follows

roofs = {rows: roofline(rows, width, width, PEAK, BANDWIDTH, number_bytes=4) for rows in range(1, counts[-1] + 1)}
turn = next((rows for rows in roofs if roofs[rows][2] == "compute"), counts[-1])
fig, ax = figure(width=9, height=3.6)
ax.plot([float(intensity) for intensity, _, _ in roofs.values()],
        [2 * n * width**2 / float(seconds) / 1e9 for n, (_, seconds, _) in roofs.items()], color=COLORS[0],
        label="your roofline")
ax.plot([float(roofs[n][0]) for n in counts], [2 * n * width**2 / dots[n] / 1e9 for n in counts], "o", color=COLORS[1],
        label="measured")
for n in counts:
    ax.annotate(str(n), (float(roofs[n][0]), 2 * n * width**2 / dots[n] / 1e9), textcoords="offset points",
                xytext=(6, -12), fontsize=9, color=COLORS[1])
ax.set(xlabel="operations a byte (at each dot: tokens)", ylabel="GFLOP/s", xscale="log", yscale="log")
ax.set_ylim(0.6 * min(2 * n * width**2 / dots[n] / 1e9 for n in counts), None)
ax.legend(loc="lower right")
reached = [2 * n * width**2 / dots[n] / 1e9 for n in (1, 128)]
show(fig, f"Speed against arithmetic intensity, both logarithmic. The roof rises to {PEAK / 1e9:.0f} GFLOP/s; measured "
          f"are {reached[0]:.1f} with one token and {reached[1]:.0f} with 128.",
     title=f"{BANDWIDTH / 1e9:.0f} GB/s and {PEAK / 1e9:.0f} GFLOP/s meet at {turn} tokens. Of the peak: one token "
           f"{100 * reached[0] / (PEAK / 1e9):.0f} %, 128 {100 * reached[1] / (PEAK / 1e9):.0f} %")

# %% [markdown]
# The same function with the data sheet of an H100 (SXM: 989 · 10¹² bf16 operations and 3.35 · 10¹² bytes a second), for
# a layer of Llama 3 8B, 4096 to 14336:

# %% tags=["payoff"]
H100 = 989e12, 3.35e12
lines = ["tokens   bf16 weights             4-bit weights"]
for rows in (1, 16, 64, 256, 1024):
    both = [roofline(rows, 4096, 14336, *H100, weight_bytes=size) for size in (2, 0.5)]
    shown = [f"{1e6 * float(seconds):6.1f} µs, {bound:8}" for _, seconds, bound in both]
    lines.append(f"{rows:6}   " + "   ".join(shown))
print("\n".join(lines))

# %% [markdown]
# Read it row by row. Small weights help where *memory* is the limit, which is where chats decode; a long prompt gains
# nothing from them. These are the numbers behind "decode is memory-bound, prefill compute-bound".
#
# ## What compression saves
#
# "Quantization, distillation and pruning reduce the size of the model **and the computation**", say the notes. An MLP,
# changed in three ways: 8-bit weights (inputs are rounded to 8 bits on the way, and products taken in integers); half
# of its weights set to zero; half of its neurons taken out, as in a distilled or structurally pruned model. Guess
# first: which of the three computes less?
#
# Fixed before the run: *correct* if in all three both the bytes and the multiply-adds fall, *wrong* if neither falls
# in any, else *imprecise*. Both are counted by the shapes, and so the verdict is arithmetic; only the seconds could
# surprise. Their controls: without half of the neurons it must be faster, measured against itself it must not.

# %% claim="A02.1"
lighter = evidence("A02.1")
arms = [arm for arm in lighter.arms if arm != "the same again"]
falls = {arm: [lighter.interval(arm, what).mean < 0.99 for what in ("bytes", "multiply_adds")] for arm in arms}
word = "imprecise" if any(map(any, falls.values())) else "wrong"
word = "correct" if all(map(all, falls.values())) else word
fig, axes = figure(1, 4, width=10.5, height=2.9, sharey=True)
columns = {"bytes": "bytes", "multiply_adds": "multiply-adds", "decode": "time, one token",
           "prefill": "time, 256 tokens"}
for ax, (what, label) in zip(axes, columns.items(), strict=True):
    for row, arm in enumerate(lighter.arms):
        of = lighter.interval(arm, what)
        ax.barh(row, 100 * of.mean, color=COLORS[row], alpha=0.6)
        ax.plot([100 * value for value in lighter.each(arm, what)], [row] * of.n, "o", color="black", markersize=2.5)
    ax.axvline(100, color="black", linewidth=0.8, linestyle=":")
    ax.set(xlabel=f"{label}, %", xlim=(0, None))
axes[0].set_yticks(range(len(lighter.arms)), lighter.arms)
axes[0].invert_yaxis()
same_work = [arm for arm in arms if not falls[arm][1]]
show(fig, "Bars in percent of the MLP as it was. " + " ".join(
    f"{arm}: " + ", ".join(f"{label} {100 * lighter.interval(arm, what).mean:.0f} %" for what, label in columns.items())
    + "." for arm in arms),
     title=f"As many multiply-adds as before: {' and '.join(same_work) or 'none of the three'}")
print(lighter.again())
verdict("A02.1", word, "Of what it was: " + "; ".join(
    f"{arm}, bytes {100 * lighter.interval(arm, 'bytes').mean:.0f} %, multiply-adds "
    f"{100 * lighter.interval(arm, 'multiply_adds').mean:.0f} %" for arm in arms) + ".")

# %% [markdown]
# Bytes, operations and seconds are separate measures: ask which of them is meant.
#
# ## The KV cache
#
# Decoding needs the keys and values of all earlier tokens. Computing them again would make token $n$ cost $n$ tokens;
# so they are kept, for every layer: the **KV cache**. It is read once a step, like the weights, and it grows with
# every user. Engines give it out in **blocks** of, say, 16 tokens.
#
# ### Exercise 2: how many bytes?

# %% exercise="kv_cache_bytes"
def kv_cache_bytes(lengths, layers, kv_heads, head_dim, number_bytes=2, block=1, window=None):
    """The memory that the keys and values of all running texts take.

    lengths:      a list of ints >= 0: the tokens of each text so far; may be empty
    layers, kv_heads, head_dim: ints >= 1. Each layer keeps for each token one key and one value
                  of kv_heads * head_dim numbers
    number_bytes: bytes of one number, an int
    block:        tokens of a block, an int >= 1. A text takes whole blocks and shares none with
                  another text; a text of 0 tokens takes none
    window:       None, or an int >= 1: a text keeps at most its last `window` tokens, in all
                  layers. They take whole blocks, too

    Returns the bytes, an int (not a float).
    """
    ### BEGIN SOLUTION
    kept = [length if window is None else min(length, window) for length in lengths]
    blocks = sum(-(-length // block) for length in kept)
    return blocks * block * 2 * layers * kv_heads * head_dim * number_bytes
    ### END SOLUTION


# %% check="kv_cache_bytes"
check(kv_cache_bytes)

# %% [markdown]
# How many full contexts fit beside the weights on a GPU of 80 GB? The shapes are those of the models' published
# configurations.

# %% tags=["payoff"]
SHAPES = {  # parameters in billions, layers, heads of keys and values, head size, context
    "Llama 2 7B (every head)": (6.7, 32, 32, 128, 4096),
    "Llama 3 8B (8 of 32 heads)": (8.0, 32, 8, 128, 8192),
    "Llama 3.1 8B, 128 k": (8.0, 32, 8, 128, 131_072),
    "Qwen3 32B, 32 k": (32.8, 64, 8, 128, 32_768),
}
full = {name: kv_cache_bytes([context], layers, heads, size)
        for name, (_, layers, heads, size, context) in SHAPES.items()}
fits = {name: int((80e9 - 2e9 * SHAPES[name][0]) // full[name]) for name in SHAPES}
fig, ax = figure(width=9, height=2.7)
ax.barh(list(SHAPES), [full[name] / 2**30 for name in SHAPES], color=COLORS[0])
for row, name in enumerate(SHAPES):
    ax.text(full[name] / 2**30 + 0.15, row, f"{full[name] / 2**30:.1f} GiB: {fits[name]} fit", va="center", fontsize=10)
ax.invert_yaxis()
ax.set(xlabel="KV cache of one full context in bf16, GiB", xlim=(0, 1.3 * max(full.values()) / 2**30))
show(fig, "Bars: " + "; ".join(f"{name} {full[name] / 2**30:.1f} GiB, of which {fits[name]} fit" for name in SHAPES),
     title=f"Between {min(fits.values())} and {max(fits.values())} full contexts fit into 80 GB beside the weights")

# %% [markdown]
# ## The graph
#
# A framework runs a model line by line. An engine first looks at the whole **graph** and rewrites it: it computes what
# is constant beforehand, drops what nobody needs, and fuses neighbors into one **kernel**, one program on the
# processor. The classic is BatchNorm. In inference it multiplies and adds fixed numbers,
#
# $$\frac{(Wx + b) - \mu}{\sqrt{\sigma^2 + \varepsilon}} \cdot g + h,$$
#
# and that can be done to $W$ and $b$ once and for all.
#
# ### Exercise 3: fold it

# %% exercise="fold_batch_norm"
def fold_batch_norm(weight, bias, mean, var, gain, shift, eps=1e-5):
    """One layer that does what a linear or convolution layer and the BatchNorm behind it do.

    weight: [out, in], or of a convolution [out, in, ...] with one to three more dimensions
    bias:   [out], or None for a layer without one
    mean, var, gain, shift: [out]: BatchNorm's running mean and variance, its weight and bias.
            In inference it gives (y - mean) / sqrt(var + eps) * gain + shift for each output y
    All floating-point, of one dtype. var >= 0 and eps > 0.

    Returns (weight, bias) of the one layer, new tensors of the old shapes ([out] where bias was
    None) and of weight's dtype. Gradients flow to weight, bias, gain and shift.
    """
    ### BEGIN SOLUTION
    scale = gain * (var + eps).rsqrt()
    bias = torch.zeros_like(mean) if bias is None else bias
    return weight * scale.reshape(-1, *[1] * (weight.dim() - 1)), (bias - mean) * scale + shift
    ### END SOLUTION


# %% check="fold_batch_norm"
check(fold_batch_norm)

# %% [markdown]
# A convolution, BatchNorm and ReLU of an image model, and the same with your one layer:

# %% tags=["payoff"]
torch.manual_seed(0)
conv, bn = torch.nn.Conv2d(32, 64, 3, padding=1, bias=False), torch.nn.BatchNorm2d(64)
with torch.inference_mode():
    pictures = torch.randn(8, 32, 28, 28)
    bn(conv(pictures))  # in training mode: the statistics move
    bn.eval()
    one_weight, one_bias = fold_batch_norm(conv.weight, None, bn.running_mean, bn.running_var, bn.weight, bn.bias)
    two = bn(conv(pictures)).relu()
    one = F.conv2d(pictures, one_weight, one_bias, padding=1).relu()
    times = [1000 * seconds_of(work, 5) for work in (lambda: bn(conv(pictures)).relu(),
                                                  lambda: F.conv2d(pictures, one_weight, one_bias, padding=1).relu())]
print(f"largest difference {float((one - two).abs().max()):.0e}; two layers {times[0]:.1f} ms, one {times[1]:.1f} ms")

# %% [markdown]
# ## Your GPT, exported
#
# **ONNX** is a file format: a graph of standard operators and their weights. **ONNX Runtime** is an engine that reads
# it. Let's take the GPT that you wrote in chapter 9 of the first section there; where it isn't solved, the course's own
# stands in. A tiny one, on the bytes of Shakespeare, trained for a few seconds.

# %% tags=["demo"]
def course_gpt(ids, weights, n_heads, parts):
    """LLaMA's forward pass, as exercise gpt_forward asks for it."""
    n, x = ids.shape[-1], weights["embed"][ids]
    mask, positions = torch.ones(n, n, dtype=torch.bool).tril(), torch.arange(n)
    for layer in weights["layers"]:
        h = parts.norm(x, layer["norm1"])
        q, k, v = ((h @ layer[w].T).unflatten(-1, (n_heads, -1)).transpose(1, 2) for w in "qkv")
        heads = parts.attention(parts.rope(q, positions), parts.rope(k, positions), v, mask)
        x = x + heads.transpose(1, 2).flatten(2) @ layer["o"].T
        x = x + parts.mlp(parts.norm(x, layer["norm2"]), layer["gate"], layer["up"], layer["down"])
    return parts.norm(x, weights["norm"]) @ weights["embed"].T


def rope(x, positions):
    """Pairs (i, i + d/2), turned by the position."""
    angles = positions[:, None] * 10_000.0 ** (torch.arange(0, x.shape[-1], 2) / -x.shape[-1])
    a, b = x.chunk(2, -1)
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)


PARTS = SimpleNamespace(
    norm=lambda x, weight: F.rms_norm(x, x.shape[-1:], weight, 1e-6), rope=rope,
    attention=lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
    mlp=lambda x, gate, up, down: F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down),
)
D, INNER, DEPTH, HEADS = 128, 344, 3, 4


def new_weights(g, vocabulary=256):
    def matrix(out, into, scale=1.0):
        return torch.nn.Parameter(torch.randn(out, into, generator=g) * scale * into**-0.5)

    def layer():
        attend = {**{w: matrix(D, D) for w in "qkv"}, "o": matrix(D, D, 0.4)}
        feed = {"gate": matrix(INNER, D), "up": matrix(INNER, D), "down": matrix(D, INNER, 0.4)}
        return {norm: torch.nn.Parameter(torch.ones(D)) for norm in ("norm1", "norm2")} | attend | feed

    embed = torch.nn.Parameter(0.1 * torch.randn(vocabulary, D, generator=g))
    return {"embed": embed, "norm": torch.nn.Parameter(torch.ones(D)), "layers": [layer() for _ in range(DEPTH)]}


def flat(weights):
    return [weights["embed"], weights["norm"], *(w for layer in weights["layers"] for w in layer.values())]


g = torch.Generator().manual_seed(0)
tiny = new_weights(g)
example = torch.randint(256, (2, 5), generator=g), tiny, HEADS, PARTS
gpt_forward = own("gpt_forward", "01_transformer/09_pretrain_gpt", fallback=course_gpt, example=example)

# %% tags=["demo"]
letters = torch.frombuffer(bytearray(shakespeare().encode()[:2_000_000]), dtype=torch.uint8)
told, unseen = letters[:1_800_000], letters[1_800_000:]


def batch_of(data, rows, n=64):
    starts = torch.randint(len(data) - n - 1, (rows,), generator=g)
    return torch.stack([data[start : start + n + 1] for start in starts.tolist()]).long()


optimizer = torch.optim.AdamW(flat(tiny), 3e-3, fused=True)
for step in range(120):
    optimizer.param_groups[0]["lr"] = 1e-2 * min(1, (step + 1) / 12) * (1 - step / 125)
    rows = batch_of(told, 12)
    loss = F.cross_entropy(gpt_forward(rows[:, :-1], tiny, HEADS, PARTS).flatten(0, 1), rows[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
test = batch_of(unseen, 32)
loss = float(loss.detach())
print(f"{sum(w.numel() for w in flat(tiny)):,} weights; loss {loss:.2f} nats a byte after {step + 1} steps")
give_back()  # memory for what follows

# %% [markdown]
# An engine keeps the KV cache outside of the model: it goes in as a tensor and comes out longer. Your function knows
# nothing of a cache, but its parts came in as functions. So other parts do it: a `rope` that starts at the right
# position, and an `attention` that puts the past in front.

# %% tags=["demo"]
class Served(torch.nn.Module):
    """The GPT with its cache as an input and an output: [layers, 2, rows, heads, tokens, head size]."""

    def __init__(self, weights):
        super().__init__()
        self.names = [list(layer) for layer in weights["layers"]]
        self.flat = torch.nn.ParameterList(copy.deepcopy(flat(weights)))

    def forward(self, ids, past):
        embed, norm, *rest = self.flat
        rest, start, kept = iter(rest), past.shape[-2], []
        weights = {"embed": embed, "norm": norm, "layers": [{n: next(rest) for n in names} for names in self.names]}

        def attention(q, k, v, mask):
            i = len(kept)
            k, v = torch.cat([past[i, 0], k], -2), torch.cat([past[i, 1], v], -2)
            kept.append(torch.stack([k, v]))
            seen = torch.arange(k.shape[-2]) <= start + torch.arange(q.shape[-2])[:, None]
            return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)

        shifted = SimpleNamespace(norm=PARTS.norm, mlp=PARTS.mlp, attention=attention,
                                  rope=lambda x, positions: rope(x, positions + start))
        return gpt_forward(ids, weights, HEADS, shifted), torch.stack(kept)


served = Served(tiny).eval().requires_grad_(False)


def empty(rows=1):
    return torch.zeros(DEPTH, 2, rows, HEADS, 0, D // HEADS)


with torch.inference_mode():
    whole, _ = served(test[:4, :40], empty(4))
    first, cache = served(test[:4, :25], empty(4))
    second, _ = served(test[:4, 25:40], cache)
apart = float((torch.cat([first, second], 1) - whole).abs().max())
print(f"read at once or in two parts: largest difference {apart:.0e}")

# %% [markdown]
# The export follows one call symbolically (the `dynamo` exporter, torch's default by now). What may vary has to be
# said, or it is fixed for good: rows, the tokens of this step, and the tokens of the past.

# %% tags=["demo"]
import onnx
import onnxruntime


@contextlib.contextmanager
def in_silence():
    """Without warnings: the exporter misses packages that nobody needs here, the quantizer recommends steps."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


folder = Path(tempfile.mkdtemp(prefix="serving-"))
raw_file, plain_file = folder / "gpt.raw.onnx", folder / "gpt.onnx"
with torch.inference_mode():
    _, past = served(test[:2, :7], empty(2))
rows_vary, step_varies, past_varies = (torch.export.Dim(name) for name in ("rows", "step", "past"))
start = time.process_time()
with in_silence():
    program = torch.onnx.export(
        served, (test[:2, :5], past.clone()), dynamo=True, verbose=False, optimize=False,
        dynamic_shapes=({0: rows_vary, 1: step_varies}, {2: rows_vary, 4: past_varies}),
        input_names=["ids", "past"], output_names=["logits", "cache"],
    )
program.save(str(raw_file))  # as it was followed, for a comparison below
program.optimize()  # what the exporter does unless told otherwise: constants, and what nobody needs
program.save(str(plain_file))
del program
EXPORT = time.process_time() - start


def session_of(file, optimize=True):
    """ONNX Runtime on one thread, as torch is timed below."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.enable_cpu_mem_arena = False  # memory goes back after each call: several engines live here
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(Path(file).with_suffix(f".{'after' if optimize else 'before'}.onnx"))
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def asked(session, ids, past):
    return [torch.from_numpy(x) for x in session.run(None, {"ids": ids.numpy(), "past": past.numpy()})]


session, gaps = session_of(plain_file), {}
with torch.inference_mode():
    for rows, n, before in ((1, 40, 0), (5, 1, 9), (3, 16, 3)):
        past = served(test[:rows, :before], empty(rows))[1] if before else empty(rows)
        pairs = zip(served(test[:rows, :n], past), asked(session, test[:rows, :n], past), strict=True)
        gaps[rows, n, before] = max(float((a - b).abs().max()) for a, b in pairs)
print(f"export {EXPORT:.1f} s, file {plain_file.stat().st_size / 1e6:.1f} MB")
for (rows, n, before), gap in gaps.items():
    print(f"{rows} rows, {n:2} new tokens after {before}: largest difference {gap:.0e}")
give_back()  # memory for what follows

# %% [markdown]
# ## Hardware, or a file?
#
# Another chapter of the notes files "TensorRT, ONNX" under *hardware* optimization. If ONNX were hardware, the same
# file could not run on two unlike machines of software.
#
# Fixed before the run: *wrong* if two engines that share no code, ONNX Runtime and the reference evaluator that comes
# with the `onnx` package (plain numpy), both run the file on this CPU and agree to 1e-3; else *unverifiable* here.

# %% claim="T07.18"
from onnx.reference import ReferenceEvaluator

ids, past = test[:1, :12], empty()
numpy_engine = ReferenceEvaluator(str(plain_file))
reference = torch.from_numpy(numpy_engine.run(None, {"ids": ids.numpy(), "past": past.numpy()})[0])
agree = float((reference - asked(session, ids, past)[0]).abs().max())
word = "wrong" if agree < 1e-3 else "unverifiable"
del numpy_engine
verdict("T07.18", word, f"One file, two engines on one CPU: their logits differ by at most {agree:.0e}. ONNX is a "
        "format for graphs; TensorRT, which was not run here, is a compiler and runtime. Both are software.")

# %% [markdown]
# A file needs an engine, and an engine needs hardware: keep the three apart.
#
# The slow engine is the one to ask when the quick one looks wrong, but it isn't always right. In float16 its
# LayerNormalization (onnx 1.23.2) squares in float16: of (1000, −1000, 500, 0) it makes four zeros, where ONNX Runtime
# 1.32.0 gives the right numbers. And the quick one passes a NaN over in ArgMax unless it stands first, so that greedy
# decoding writes on from broken logits: look for NaN yourself. (Scripts for both are in `findings/`.)
#
# ## What graph optimization is
#
# "Computation-graph optimization: **data parallelism and model parallelism**", say the notes. ONNX Runtime can save the
# graph that it really runs. What does it make of yours, as the exporter first wrote it down?
#
# Fixed before the run: *wrong* if on one device, with nothing split, the optimized graph has at least a tenth fewer
# nodes and the same results to 1e-3, as have the two halves of the batch (data parallelism), run through that very
# graph. *Correct* if the number of nodes stays as it was; else *imprecise*.

# %% claim="A02.2"
before, optimized = session_of(raw_file, optimize=False), session_of(raw_file)
graphs = {name: Counter(node.op_type for node in onnx.load(raw_file.with_suffix(f".{name}.onnx")).graph.node)
          for name in ("before", "after")}
total = {name: sum(kinds.values()) for name, kinds in graphs.items()}
ids, past = test[:2, :48], empty(2)
alike = float((asked(before, ids, past)[0] - asked(optimized, ids, past)[0]).abs().max())
halves = torch.cat([asked(optimized, ids[:1], empty())[0], asked(optimized, ids[1:], empty())[0]])
split = float((halves - asked(optimized, ids, past)[0]).abs().max())
rewritten = total["after"] < 0.9 * total["before"] and alike < 1e-3
word = "wrong" if rewritten and split < 1e-3 else "correct" if total["after"] == total["before"] else "imprecise"
with torch.inference_mode():
    wait = {name: 1000 * seconds_of(lambda engine=engine: asked(engine, ids, past), 9)
            for name, engine in (("before", before), ("after", optimized))}
before = optimized = None
give_back()  # memory for what follows

kinds = [kind for kind, _ in (graphs["before"] + graphs["after"]).most_common()
         if graphs["before"][kind] != graphs["after"][kind]][:16]
fig, ax = figure(width=10, height=3.4)
for at, (name, color) in enumerate((("before", COLORS[5]), ("after", COLORS[0]))):
    ax.bar([i + 0.4 * at - 0.2 for i in range(len(kinds))], [graphs[name][kind] for kind in kinds], 0.4, color=color,
           label=f"{name}: {total[name]} nodes")
ax.set_xticks(range(len(kinds)), kinds, rotation=35, ha="right", rotation_mode="anchor")
ax.set(ylabel="nodes of this kind")
ax.legend()
new = [kind for kind in graphs["after"] if kind not in graphs["before"]]
show(fig, f"Bars: nodes by kind before and after the optimizer. In all {total['before']} and {total['after']}. New "
          f"kinds: {', '.join(new)}.",
     title=f"On one device: {total['before']} nodes become {total['after']}; new are {', '.join(sorted(new)[:4])}")
verdict("A02.2", word, f"{total['before']} nodes become {total['after']}, {wait['before']:.2f} ms become "
        f"{wait['after']:.2f} ms, and the logits move by at most {alike:.0e}; nothing was split. Halves of the batch "
        f"run through the very same graph (difference {split:.0e}).")

# %% [markdown]
# Each device of a parallel job runs a graph, and that graph is optimized in the same way.
#
# ## Eight bits, and what stays in float
#
# **Dynamic quantization** stores the weights as int8, measures the range of each activation at run time, and multiplies
# in integers. One call does it. But look into the graph: which products stayed in float?

# %% tags=["demo"]
from onnxruntime.quantization import QuantType, quantize_dynamic

int8_file = folder / "gpt.int8.onnx"
with in_silence():
    quantize_dynamic(str(plain_file), str(int8_file), weight_type=QuantType.QInt8)


def products(file):
    """Which matrix products a graph has: (in integers, in float with a weight, in float between activations)."""
    graph = onnx.load(file).graph
    constants = {tensor.name for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}

    def constant(name):  # a weight, or one that is only turned or given back as floats
        node = made.get(name)
        return name in constants if node is None else (
            node.op_type in ("Transpose", "DequantizeLinear", "Cast", "Mul", "Sub") and all(map(constant, node.input)))

    floats = [any(map(constant, node.input)) for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    integers = sum(node.op_type in ("MatMulInteger", "DynamicQuantizeMatMul") for node in graph.node)
    return integers, sum(floats), len(floats) - sum(floats)


def nats(engine):
    """The loss on text that was not trained on, in nats a byte."""
    logits = asked(engine, test[:, :-1].contiguous(), empty(len(test)))[0]
    return float(F.cross_entropy(logits.mT, test[:, 1:]))


small = session_of(int8_file)
files = {"float32": (plain_file, session), "int8": (int8_file, small)}
for name, (file, engine) in files.items():
    integers, weighed, mixed = products(file)
    print(f"{name:8} {file.stat().st_size / 1e6:.2f} MB, {nats(engine):.4f} nats a byte; products: {integers} in int8, "
          f"{weighed} with a weight in float, {mixed} between activations")
small = files = engine = None
give_back()  # memory for what follows

# %% [markdown]
# The products between activations, $QK^\top$ and the sum over values, have no weights: they stay. If one with a weight
# stayed, too, it is the head's. The embedding is **tied**: one matrix is read by rows at the input (`Gather`) and
# multiplied at the output. The tool stores it once, as bytes for `Gather`, and gives it back as floats for the product.
# A copy of the matrix for the head, made before the export, would be quantized. (A script for it is in `findings/`.)
#
# ## Does an engine pay?
#
# "Train in PyTorch, export to ONNX, run ONNX Runtime or TensorRT, and the model runs more efficiently **on the GPU**."
# A GPT of four layers on one CPU core, one token (after 128) and a prompt of 128. `torch.compile` takes part, too: it
# writes C++ here and needs a compiler on the machine; where there is none it raises an error. Starting counts: the
# export and the session, or the first call of each compiled shape.
#
# Fixed before the run: *imprecise* if ONNX Runtime is surely faster than plain torch in one of the two, for then the
# gain isn't one of GPUs alone; else *unverifiable*, since no GPU is here. Control: a model of half the layers must be
# faster, the same model must not.

# %% claim="A02.3"
engines = evidence("A02.3")
runs = {what: engines.interval("ONNX Runtime", what) for what in ("decode", "prefill")}
word = "imprecise" if any(of.above(1) for of in runs.values()) else "unverifiable"
fig, axes = figure(1, 3, width=10.5, height=2.9, sharey=True)
labels = {"decode": "times as fast,\none token", "prefill": "times as fast,\n128 tokens", "start": "until it runs, s"}
for ax, (what, label) in zip(axes, labels.items(), strict=True):
    for row, arm in enumerate(engines.arms):
        ax.barh(row, engines.interval(arm, what).mean, color=COLORS[row], alpha=0.6)
        ax.plot(engines.each(arm, what), [row] * len(engines.each(arm, what)), "o", color="black", markersize=3)
    ax.set(xlabel=label, xlim=(0, None))
    if what != "start":
        ax.axvline(1, color="black", linewidth=0.8, linestyle=":")
axes[0].set_yticks(range(len(engines.arms)), engines.arms)
axes[0].invert_yaxis()
compiled = engines.interval("torch.compile", "start").mean
saved = engines.interval("torch.compile", "saved").mean
told = f"about {float(f'{compiled / saved * 1e6:.1g}'):,.0f} tokens pay for it" if saved > 0 else "nothing pays for it"
show(fig, "Bars with a dot a run: " + "; ".join(
    f"{arm}: one token {engines.interval(arm, 'decode').mean:.1f} times, 128 tokens "
    f"{engines.interval(arm, 'prefill').mean:.1f} times as fast, "
    f"{engines.interval(arm, 'start').mean:.0f} s until it runs"
    for arm in engines.arms),
     title=f"ONNX Runtime: {runs['decode'].mean:.1f} × for one token. torch.compile starts for {compiled:.0f} s; "
           + told)
print(engines.again())
verdict("A02.3", word, f"ONNX Runtime against torch on one CPU core: one token {runs['decode'].text('.1f')} times as "
        f"fast, 128 tokens {runs['prefill'].text('.1f')} times (95 % intervals); the outputs differ by at most "
        f"{max(engines.each('ONNX Runtime', 'apart')):.0e}. No GPU was measured.")

# %% [markdown]
# A start is paid at each deployment: count it beside the gain.
#
# ## Paging
#
# Where does a text's cache lie? If each gets one piece of memory for the longest answer it might give, most of it
# stays empty. Kwon et al. (2023, [arXiv:2309.06180](https://arxiv.org/abs/2309.06180)) did as operating systems do,
# and called it **PagedAttention**: memory in small blocks, and for every text a **table** of the blocks that it has,
# in any order. Token $p$ of a text lies in
#
# $$\text{slot}(p) = \text{table}[\lfloor p / B \rfloor] \cdot B + p \bmod B.$$
#
# ### Exercise 4: the next slots

# %% exercise="append_slots"
def append_slots(tables, lengths, new, free, block):
    """Where in a paged KV cache the next tokens of every running text go.

    tables:  a list of lists of ints: the blocks of each text, in the order of its tokens
    lengths: a list of ints >= 0: how many tokens each text has stored. len(tables[i]) is
             lengths[i] / block, rounded up
    new:     a list of ints >= 0: how many tokens each text is to get now
    free:    a list of ints: the blocks that nobody has
    block:   tokens of a block, an int >= 1

    The texts are served in their order. One that needs more blocks takes them from the front of
    `free`, as many as it needs and no more. If that many are not free, it gets nothing and takes
    nothing; the texts after it are served all the same. Position p of a text (its first new
    token has position lengths[i]) lies in slot table[p // block] * block + p % block.

    Returns (slots, tables, free), new lists; the inputs are not changed. slots: for each text
    the list of its new tokens' slots, [] where it is to get none, None where it can't get its
    blocks. tables and free: as they are afterwards, each in its order.
    """
    ### BEGIN SOLUTION
    slots, after, free = [], [], list(free)
    for table, length, n in zip(tables, lengths, new, strict=True):
        lacking = -(-(length + n) // block) - len(table)
        if lacking > len(free):
            slots.append(None)
            after.append(list(table))
            continue
        table, free = [*table, *free[:lacking]], free[lacking:]
        slots.append([table[p // block] * block + p % block for p in range(length, length + n)])
        after.append(table)
    return slots, after, free
    ### END SOLUTION


# %% check="append_slots"
check(append_slots)

# %% [markdown]
# Three texts grow in one cache of 20 blocks. On the left the blocks, colored by their text, step after step. On the
# right the room that they take at the end: in one piece for each (which here has room for four times the longest text),
# in blocks, and what the tokens themselves need. And does attention over scattered blocks give what it gives over one
# piece?

# %% tags=["payoff"]
BLOCK, BLOCKS = 4, 20
tables, lengths, free = [[], [], []], [0, 0, 0], list(range(BLOCKS))
g = torch.Generator().manual_seed(1)
pool = torch.zeros(2, BLOCKS * BLOCK, 8)  # keys and values of one head, by slot
straight, pictures = [[], [], []], []
for step in range(12):
    new = [9, 3, 6] if step == 0 else [1, 2, 1]
    slots, tables, free = append_slots(tables, lengths, new, free, BLOCK)
    for i, places in enumerate(slots):
        fresh = torch.randn(2, len(places), 8, generator=g)
        pool[:, places] = fresh
        straight[i].append(fresh)
        lengths[i] += len(places)
    owner = torch.full((BLOCKS,), 3)
    for i, table in enumerate(tables):
        owner[torch.tensor(table)] = i
    pictures.append(owner)
apart = 0.0
for i, table in enumerate(tables):
    at = [table[p // BLOCK] * BLOCK + p % BLOCK for p in range(lengths[i])]
    query = torch.randn(1, 8, generator=g)
    scattered, piece = pool[:, at], torch.cat(straight[i], 1)
    answers = [F.scaled_dot_product_attention(query, keys, values) for keys, values in (scattered, piece)]
    apart = max(apart, float((answers[0] - answers[1]).abs().max()))

taken = sum(map(len, tables)) * BLOCK
reserved = 3 * 4 * max(lengths)  # a piece for each, four times as long as the longest got
from matplotlib.colors import ListedColormap

fig, (left, right) = figure(1, 2, width=10.5, height=3.1, width_ratios=[2, 1])
left.imshow(torch.stack(pictures), cmap=ListedColormap([*COLORS[:3], "#eeeeee"]), aspect="auto", vmin=0, vmax=3)
left.set(xlabel="block of the cache", ylabel="step", xticks=range(0, BLOCKS, 2), yticks=range(0, 12, 2))
bars = right.barh(["a piece for each", "blocks", "tokens"], [reserved, taken, sum(lengths)], color="#777777")
right.bar_label(bars, padding=3)
right.invert_yaxis()
right.set(xlabel="room, in tokens", xlim=(0, 1.2 * reserved))
show(fig, "Left: a row for each step, a square for each block, colored by the text that has it; grey is free. Right: "
          f"room for {reserved} tokens with a piece for each, {taken} in blocks, {sum(lengths)} needed.",
     title=f"{sum(lengths)} tokens take {taken} places in blocks. Attention through the tables differs by {apart:.1g}")

# %% [markdown]
# ## Continuous batching
#
# Many users share a batch, since one pass over eight tokens costs less than eight passes. But answers have different
# lengths. A **static** batch waits for its longest; the others' places stay empty, and who comes meanwhile waits
# outside. Yu et al. (Orca, [OSDI 2022](https://www.usenix.org/conference/osdi22/presentation/yu)) schedule anew before
# **every step**: who is done leaves, who waits comes in. This is **continuous batching**.
#
# A step's time is the roofline once more: the weights are read once, in `read` seconds; each token of the step adds
# `compute` seconds of arithmetic. The slower decides. (What reading the caches takes is left out.)
#
# ### Exercise 5: the scheduler

# %% exercise="continuous_batching"
def continuous_batching(requests, max_batch, read, compute):
    """When every request gets its first and its last token, if a scheduler decides before each step.

    requests:  a list of (arrival, prompt, output): seconds on the clock; tokens of the prompt,
               >= 1; tokens to generate, >= 1. In the order of arrival; may be empty
    max_batch: how many requests may run at once, an int >= 1
    read, compute: seconds to read the weights once; seconds of arithmetic a token

    The clock begins at 0. Before each step:
    1. If nobody runs and nobody waits who has arrived, the clock goes on to the next arrival.
    2. Requests that have arrived (arrival <= clock) enter, first come first served, as long as
       fewer than max_batch run.
    The step computes the whole prompt of each request that has just entered, and one token of
    each other one that runs. With n tokens in all it takes max(read, compute * n) seconds. At
    its end each running request has got one token, also those that have just entered (their
    first); who has got all its output leaves at once, and its place is free for the next step.

    Returns (first, last): two lists of floats, for each request the time on the clock at which
    it got its first and its last token.
    Yu et al. 2022, "Orca", OSDI: iteration-level scheduling.
    """
    ### BEGIN SOLUTION
    first, last = [0.0] * len(requests), [0.0] * len(requests)
    clock, coming, left = 0.0, 0, {}
    while coming < len(requests) or left:
        if not left:
            clock = max(clock, requests[coming][0])
        tokens, entered = len(left), []
        while coming < len(requests) and requests[coming][0] <= clock and len(left) < max_batch:
            left[coming] = requests[coming][2]
            tokens += requests[coming][1]
            entered.append(coming)
            coming += 1
        clock += max(read, compute * tokens)
        for i in entered:
            first[i] = clock
        for i in list(left):
            left[i] -= 1
            if not left[i]:
                last[i] = clock
                del left[i]
    return first, last
    ### END SOLUTION


# %% check="continuous_batching"
check(continuous_batching)

# %% [markdown]
# Now a trace: requests at random times, with prompts and answers of very different lengths, and the costs that you saw
# in the first figure: a step with one token, and what each further token adds on this machine. Three servers get the
# same requests, at rising load; three traces each (lines: the middle one; bands: all):
#
# * static batches of 8,
# * your scheduler with 8 places, each a piece of memory for the longest text,
# * your scheduler with as many places as the *same memory* holds in blocks, for texts of the mean length.
#
# A load of 100 % is what the machine could do at most: every step full of arithmetic, no token waiting for weights.

# %% tags=["payoff"]
READ = STEP[1]
COMPUTE = (STEP[64] - STEP[16]) / 48
PLACES, LONGEST = 8, 1024
SHAPE = LAYERS, KV_HEADS, HEAD


def trace(rate, n, seed):
    """Requests as they come: exponential pauses, log-normal lengths."""
    g = torch.Generator().manual_seed(seed)
    pauses = -torch.rand(n, generator=g).log() / rate
    spread = torch.exp(0.8 * torch.randn(2, n, generator=g))
    sizes = (spread * torch.tensor([[60.0], [40.0]])).clamp(1, LONGEST // 2).int()
    return list(zip(pauses.cumsum(0).tolist(), *(of.tolist() for of in sizes), strict=True))


def static_batching(requests, max_batch, read, compute):
    """The same clock and the same costs, but nobody enters before the whole batch is done."""
    first, last, clock, coming = [], [], 0.0, 0
    while coming < len(requests):
        clock = max(clock, requests[coming][0])
        batch = [request for request in requests[coming : coming + max_batch] if request[0] <= clock]
        coming += len(batch)
        clock += max(read, compute * sum(prompt for _, prompt, _ in batch))
        ends = [clock]
        first += [clock] * len(batch)
        for done in range(1, max(output for *_, output in batch)):
            ends.append(ends[-1] + max(read, compute * sum(output > done for *_, output in batch)))
        last += [ends[output - 1] for *_, output in batch]
        clock = ends[-1]
    return first, last


memory = kv_cache_bytes([LONGEST] * PLACES, *SHAPE, number_bytes=4)
mean_text = statistics.fmean(prompt + output for _, prompt, output in trace(1.0, 2000, 99))
in_blocks = memory // kv_cache_bytes([math.ceil(mean_text)], *SHAPE, number_bytes=4, block=16)
SERVERS = {"static, 8": (static_batching, PLACES), "continuous, 8": (continuous_batching, PLACES),
           f"continuous, paged, {in_blocks}": (continuous_batching, int(in_blocks))}
# what the machine can do at most, if all its steps were full of arithmetic
best = 1 / (COMPUTE * mean_text)
loads = [0.1, 0.2, 0.4, 0.6, 0.8]
found = {name: [] for name in SERVERS}
for load in loads:
    for name, (serve, places) in SERVERS.items():
        each = []
        for seed in range(3):
            requests = trace(load * best, 250, seed)
            first, last = serve(requests, places, READ, COMPUTE)
            waits = torch.tensor([t - request[0] for t, request in zip(first, requests, strict=True)])
            each.append((sum(output for *_, output in requests) / (max(last) - requests[0][0]), float(waits.median()),
                         float(waits.quantile(0.99))))
        found[name].append([sorted(of) for of in zip(*each, strict=True)])  # least, middle, most of the three traces

fig, axes = figure(1, 3, width=10.5, height=3.5)
names = ["tokens a second", "seconds to the first token,\nmedian", "seconds to the first token,\n99th percentile"]
for what, (ax, label) in enumerate(zip(axes, names, strict=True)):
    for (name, of), color, mark in zip(found.items(), COLORS, "os^", strict=False):
        percent = [100 * load for load in loads]
        ax.plot(percent, [point[what][1] for point in of], color=color, marker=mark, label=name)
        ax.fill_between(percent, [p[what][0] for p in of], [p[what][2] for p in of], color=color, alpha=0.15)
    ax.set(xlabel="load, % of the best possible", ylabel=label, yscale="log" if what else "linear")
axes[0].legend(fontsize=9)
full = {name: [middle for _, middle, _ in of[-1]] for name, of in found.items()}
gain = full[list(SERVERS)[2]][0] / full["static, 8"][0]
show(fig, "Throughput, median and 99th percentile of the time to first token against the load, three servers; bands "
          f"from the least to the most of three traces. At {100 * loads[-1]:.0f} %: " + "; ".join(
    f"{name}: {of[0]:.0f} tokens/s, {of[1]:.1f} s, {of[2]:.1f} s" for name, of in full.items()),
     title=f"At {100 * loads[-1]:.0f} % load {gain:.1f} × the tokens of static batches. 99 % have their first within "
           + ", ".join(f"{of[2]:.1f} s" for of in full.values()))

# %% [markdown]
# A median hides who waits longest, so services are judged by the 99th percentile. And note what
# continuous batching doesn't cure: in the step in which a long prompt enters, everybody else waits for it. **Chunked
# prefill** (Agrawal et al. 2024, [arXiv:2403.02310](https://arxiv.org/abs/2403.02310)) reads prompts in pieces beside
# the decoding; **disaggregation** gives the two phases to different machines (Zhong et al. 2024,
# [arXiv:2401.09670](https://arxiv.org/abs/2401.09670)).
#
# ## Shared prefixes
#
# Every request of an assistant begins with the same system prompt, and every turn of a chat with all earlier turns.
# Keys and values of a token depend on the tokens *before* it and on nothing after. So they can be kept for the next
# who begins alike. vLLM [names a block](https://docs.vllm.ai/en/latest/design/prefix_caching/) by its own tokens
# *and* everything in front; only full blocks are shared.
#
# ### Exercise 6: what is in the cache?

# %% exercise="cached_prefix"
def cached_prefix(prompts, block):
    """How many tokens of each prompt have their keys and values in the cache already.

    prompts: a list of lists of ints: the tokens of prompts that are served one after the other;
             each has at least one token, the list may be empty
    block:   tokens of a block, an int >= 1

    The cache is empty at first and never full. After a prompt is served, all its full blocks
    are in it (blocks begin at 0, block, 2 * block, …). A block can be taken from the cache if an
    earlier prompt had the same tokens in this block *and* in all places before it. The tokens
    taken are whole blocks from the start of the prompt on, as many as can be taken one after
    the other. The last token of a prompt is always computed, for its logits are needed: its
    block is not taken.

    Returns a list of ints: for each prompt the number of tokens that are taken.
    """
    ### BEGIN SOLUTION
    seen, found = set(), []
    for prompt in prompts:
        n = 0
        while n + block < len(prompt) and tuple(prompt[: n + block]) in seen:
            n += block
        found.append(n)
        seen |= {tuple(prompt[:end]) for end in range(block, len(prompt) + 1, block)}
    return found
    ### END SOLUTION


# %% check="cached_prefix"
check(cached_prefix)

# %% [markdown]
# Four questions behind one long instruction, on the real model. The cache of the tokens that your function names is cut
# out of the cache of the request before; the rest is computed. Do the logits stay the same?

# %% tags=["payoff"]
rules = " ".join(f"Rule {i}: answer in one short sentence, and name the source of point {i}." for i in range(1, 11))
questions = ["What is a roofline?", "Who wrote Hamlet?", "Why is the sky blue?", "How far away is the moon?"]
prompts = [tokenizer(f"{rules}\n{question}").input_ids for question in questions]
hits = cached_prefix(prompts, 16)
waits, moved, kept = [], 0.0, None
with torch.inference_mode():
    for prompt, n in zip(prompts, hits, strict=True):
        ids = torch.tensor([prompt])
        start = time.process_time()
        cold = DynamicCache()
        whole = model(ids, past_key_values=cold, logits_to_keep=1).logits
        without = time.process_time() - start
        start = time.process_time()
        warm = copy.deepcopy(kept) if n else DynamicCache()
        if n:
            warm.crop(n - warm.get_seq_length())  # a negative number: how many tokens to drop
        rest = model(ids[:, n:], past_key_values=warm, logits_to_keep=1).logits
        waits.append((without, time.process_time() - start))
        moved, kept = max(moved, float((rest - whole).abs().max())), cold
kept = cold = warm = None
give_back()  # memory for what follows
fig, ax = figure(width=9, height=2.9)
for at, (name, color) in enumerate((("computed", COLORS[5]), ("with the cached prefix", COLORS[0]))):
    ax.barh([row + 0.38 * at - 0.19 for row in range(4)], [1000 * wait[at] for wait in waits], 0.38, color=color,
            label=name)
ax.set_yticks(range(4), [f"{q}  ({n} of {len(p)})" for q, n, p in zip(questions, hits, prompts, strict=True)])
ax.invert_yaxis()
ax.set(xlabel="time to first token, ms (in brackets: tokens from the cache)",
       xlim=(0, 1600 * max(map(max, waits))))
ax.legend(loc="center right", fontsize=9)
faster = statistics.median(a / b for a, b in waits[1:])
show(fig, "Bars: time to first token of four prompts, computed and with the cached prefix. " + "; ".join(
    f"{1000 * a:.0f} and {1000 * b:.0f} ms" for a, b in waits),
     title=f"{sum(hits[1:]) / sum(map(len, prompts[1:])):.0%} of the later prompts' tokens come from the cache: "
           f"{faster:.1f} × sooner, logits differ by {moved:.0e}")

# %% [markdown]
# It is exact, but for rounding. So put what changes (the date, the user's name) at the *end* of a prompt: one other
# token in front, and nothing is shared.
#
# ## Speculative decoding
#
# Decoding waits for the weights, and a pass over four tokens costs less than four passes over one. So let a cheap
# **draft** propose $\gamma$ tokens, and let the model score them all in one pass. Leviathan et al. (2022,
# [arXiv:2211.17192](https://arxiv.org/abs/2211.17192)) and Chen et al. (2023,
# [arXiv:2302.01318](https://arxiv.org/abs/2302.01318)) found how to choose, so that the text has *exactly* the law of
# the large model. The draft drew $x$ from $q$; the model's law is $p$. Keep $x$ with probability
# $\min(1, p(x)/q(x))$; at the first that falls, draw instead from what is left over:
#
# $$p'(x) = \frac{\max(p(x) - q(x),\, 0)}{\sum_y \max(p(y) - q(y),\, 0)}.$$
#
# ### Exercise 7: keep or reject

# %% exercise="speculative_accept"
def speculative_accept(target, draft, tokens, uniforms):
    """How many drafted tokens stand, and the law from which the next token is to be drawn.

    target:   [gamma + 1, vocabulary], the model's probabilities at each drafted place, and in
              the last row those behind the last drafted token
    draft:    [gamma, vocabulary], the draft's probabilities; each token was drawn from its row
    tokens:   int64 [gamma], the drafted tokens; gamma >= 1. draft[i, tokens[i]] is above 0
    uniforms: [gamma], a random number from [0, 1) for each of them
    The rows of target and draft sum to 1 and may hold zeros. All are float32 or float64.

    Token i stands if uniforms[i] < target[i, tokens[i]] / draft[i, tokens[i]] and all tokens
    before it stand.
    Returns (n, law): n, an int, how many tokens stand; law [vocabulary], which sums to 1. If
    n < gamma it is max(target[n] - draft[n], 0), made to sum to 1; else target[gamma].
    Leviathan et al. 2022, arXiv:2211.17192, algorithm 1.
    """
    ### BEGIN SOLUTION
    places = torch.arange(len(tokens))
    stands = uniforms < target[places, tokens] / draft[places, tokens]
    n = int(stands.int().cumprod(0).sum())
    if n == len(tokens):
        return n, target[n]
    left = (target[n] - draft[n]).clamp(min=0)
    return n, left / left.sum()
    ### END SOLUTION


# %% check="speculative_accept"
check(speculative_accept)

# %% [markdown]
# ### Exact in law: a test, not a glance
#
# The draft is cut out of the model itself: the same weights without layers 13 to 18. After "The king and the", each
# model's twelve likeliest words form its law, and behind each of them stands another. Your function draws 6,000 *pairs*
# of words. Are they distributed as the model's pairs? A χ² test says how surprising the counts are: a p-value below one
# in a thousand means that they don't fit. Its control is a common mistake: after a rejection, draw from $p$ itself.

# %% tags=["payoff"]
from scipy.stats import chisquare

LAYER_LIST = model.model.layers


def without(first, last):
    """The model with the layers from first to last - 1 left out, for one call: `with` puts them back."""

    class Cut:
        def __enter__(self):
            model.model.layers = torch.nn.ModuleList([*LAYER_LIST[:first], *LAYER_LIST[last:]])
            model.config.num_hidden_layers = len(model.model.layers)

        def __exit__(self, *_):
            model.model.layers, model.config.num_hidden_layers = LAYER_LIST, len(LAYER_LIST)

    return Cut()


@torch.inference_mode()
def laws(ids, words):
    """The probabilities of `words` as the next one after each row of ids, among themselves."""
    return model(ids, use_cache=False, logits_to_keep=1).logits[:, -1][:, words].softmax(-1)


start_ids = tokenizer("The king and the", return_tensors="pt").input_ids
with torch.inference_mode():
    words = model(start_ids, use_cache=False).logits[0, -1].topk(12).indices
after = torch.cat([start_ids.expand(12, -1), words[:, None]], 1)
p1, p2 = laws(start_ids, words)[0].double(), laws(after, words).double()
with without(12, 18):
    q1, q2 = laws(start_ids, words)[0].double(), laws(after, words).double()


def pairs_of(accept, n, seed):
    """n pairs of words, drawn with one draft of two words and what follows from it."""
    g = torch.Generator().manual_seed(seed)
    firsts = torch.multinomial(q1, n, True, generator=g)
    seconds = torch.multinomial(q2[firsts], 1, generator=g)[:, 0]
    uniforms = torch.rand(n, 2, generator=g, dtype=torch.float64)
    counts = torch.zeros(12, 12)
    for a, b, u in zip(firsts.tolist(), seconds.tolist(), uniforms, strict=True):
        # behind a drafted word both laws are those after it; the third row is not needed for a pair
        stand, law = accept(torch.stack([p1, p2[a], p2[a]]), torch.stack([q1, q2[a]]), torch.tensor([a, b]), u)
        if stand == 0:
            a = int(torch.multinomial(law, 1, generator=g))
            law = p2[a]
        if stand < 2:
            b = int(torch.multinomial(law, 1, generator=g))
        counts[a, b] += 1
    return counts


def from_p_itself(target, draft, tokens, uniforms):
    """The mistake."""
    stand, _ = speculative_accept(target, draft, tokens, uniforms)
    return stand, target[stand]


joint, N = (p1[:, None] * p2).flatten(), 6000
order = joint.argsort(descending=True)
big = order[: int((joint[order] * N >= 5).sum())]  # cells for which the test is valid; the others together are one


def surprise(counts):
    seen, expected = counts.flatten()[big], joint[big] * N
    seen, expected = [*seen.tolist(), N - float(seen.sum())], [*expected.tolist(), N - float(expected.sum())]
    return float(chisquare(seen, expected, sum_check=False).pvalue if expected[-1] > 1 else chisquare(seen[:-1],
                 [e * sum(seen[:-1]) / sum(expected[:-1]) for e in expected[:-1]]).pvalue)


counts = {"yours": pairs_of(speculative_accept, N, 0), "from p itself": pairs_of(from_p_itself, N, 0)}
chance = {name: surprise(of) for name, of in counts.items()}
fig, axes = figure(1, 2, width=10, height=3.6, sharey=True)
top = 1.15 * N * float(joint.max())
for ax, (name, of), color in zip(axes, counts.items(), COLORS, strict=False):
    ax.plot([1, top], [1, top], color="black", linewidth=0.8)
    ax.plot(joint * N, of.flatten(), "o", color=color, markersize=4, alpha=0.7)
    ax.set(xlabel="times expected under the model", title=f"{name}: p-value {chance[name]:.2g}", xscale="log",
           yscale="log", xlim=(1, top), ylim=(1, top))
axes[0].set_ylabel("times drawn")
fits_law, caught = chance["yours"] > 0.001, chance["from p itself"] < 0.001
show(fig, f"Counts of {N} pairs of words against the counts that the model's law expects, for your function and for "
          f"the mistake. p-values {chance['yours']:.2g} and {chance['from p itself']:.2g}.",
     title=f"χ² over {len(big) + 1} kinds of pairs: yours {'fits the law' if fits_law else 'does not fit the law'}, "
           f"the mistake {'is caught' if caught else 'is not caught'}")

# %% [markdown]
# ### When does it pay?
#
# Let $\alpha$ be the chance that a drafted token stands. It is the overlap of the two laws,
# $\alpha = \sum_x \min(p(x), q(x))$. If the chance were the same at each place, a round would give
# $(1 - \alpha^{\gamma + 1})/(1 - \alpha)$ tokens. It costs $\gamma$ passes of the draft and one of the model over
# $\gamma + 1$ tokens. Leviathan et al. take that one as costing the same as over one token; on a CPU it doesn't, as the
# first figure showed. So both: their formula, and the costs of this machine, for drafts cut out of the middle.

# %% tags=["demo"]
prose = plays[:, 1000:1040]
CUTS = [(14, 16), (13, 17), (12, 18), (10, 20), (8, 22)]


@torch.inference_mode()
def law_of(cut=(0, 0)):
    """The laws of the model without some layers, one for each token of a passage."""
    layers = [layer for i, layer in enumerate(model.model.layers) if not cut[0] <= i < cut[1]]
    kept, config = model.model.layers, model.config
    model.model.layers, config.num_hidden_layers = torch.nn.ModuleList(layers), len(layers)
    try:
        return model(prose, use_cache=False).logits[0].softmax(-1)
    finally:
        model.model.layers, config.num_hidden_layers = kept, len(kept)


def step_time(n):
    """Seconds of a pass over n tokens, between the ones that were measured."""
    low = max(count for count in COUNTS if count <= n)
    high = min(count for count in COUNTS if count >= n)
    return STEP[low] + (STEP[high] - STEP[low]) * (n - low) / max(high - low, 1)


def speedup(alpha, share, gamma, costs_more):
    """How many times as fast as plain decoding; `share` is the draft's cost as a part of the model's."""
    tokens = sum(alpha**i for i in range(gamma + 1))
    verify = step_time(gamma + 1) / STEP[1] if costs_more else 1.0
    return tokens / (gamma * share + verify)


whole = law_of()
overlaps = {cut: float(torch.minimum(whole, law_of(cut)).sum(-1).mean()) for cut in CUTS}
whole = None  # memory for what follows
# Multiplications a token: what draft and model do alike is the head.
one_layer = sum(w.numel() for w in model.model.layers[0].parameters())
PART = one_layer / (LAYERS * one_layer + model.lm_head.weight.numel())
drafts = [(f"without {b - a} of {LAYERS} layers", overlaps[a, b], 1 - (b - a) * PART) for a, b in CUTS]
drafts.append(("a free guess, half right", 0.5, 0.0))
GAMMAS = [1, 2, 3, 5, 7]
fig, axes = figure(1, 2, width=10.5, height=3.6, sharey=True)
for ax, costs_more, title in zip(axes, (False, True), ("a pass costs the same for all γ", "passes as measured here"),
                                 strict=True):
    for (name, alpha, share), color in zip(drafts, COLORS, strict=False):
        ax.plot(GAMMAS, [speedup(alpha, share, gamma, costs_more) for gamma in GAMMAS], "o-", color=color,
                label=f"{name}: α = {alpha:.2f}")
    ax.axhline(1, color="black", linewidth=0.8)
    ax.set(xlabel="γ, tokens drafted", title=title, xticks=GAMMAS, ylim=(0, None))
axes[0].set_ylabel("times as fast as\nplain decoding")
axes[1].legend(fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
cuts_pay = max(speedup(alpha, share, gamma, True) for _, alpha, share in drafts[:-1] for gamma in GAMMAS)
free_pays = max(speedup(0.5, 0.0, gamma, True) for gamma in GAMMAS)
show(fig, "Expected speed-up against the number of drafted tokens, with equal costs and with the costs measured here. "
          + "; ".join(f"{name}: overlap {alpha:.2f}" for name, alpha, _ in drafts) + ".",
     title=f"By the formula, on this CPU: the best cut {cuts_pay:.2f} × plain decoding, a free guess that is half "
           f"right {free_pays:.2f} ×. A layer is 1/{1 / PART:.0f} of the work")

# %% [markdown]
# A draft has to be *much* cheaper than the model and still agree with it. A layer left out saves little, since the head
# stays, and costs agreement. Chosen well it may pay: Zhang et al. (2023) search for the layers to skip and report up to
# 1.99 times the speed with LLaMA-2. Most real drafts are small models of their own, or heads trained on the model's
# states (Medusa, EAGLE, multi-token prediction). And speculation needs spare arithmetic: on a GPU with a full batch
# there is none, either.
#
# A draft can also cost nothing. **Prompt lookup** proposes what followed the last time that the same two tokens stood
# in the text: good wherever an answer quotes its prompt. Greedy decoding, with your function deciding (a greedy law
# has a one where its likeliest token is):

# %% tags=["payoff"]
passage = ("The harbour was built in 1204 by merchants from the north. It has three basins, two cranes and a "
           "lighthouse of grey stone. Every spring the fishermen repair the wooden bridge between the basins.")
request = f"Repeat the following text word for word.\n\n{passage}"
asks = tokenizer.apply_chat_template([{"role": "user", "content": request}], add_generation_prompt=True,
                                     return_tensors="pt")["input_ids"]


def guess(text, gamma):
    """What followed the last time that the two newest tokens stood in the text."""
    for at in range(len(text) - 3, -1, -1):
        if text[at : at + 2] == text[-2:]:
            return text[at + 2 : at + 2 + gamma]
    return []


@torch.inference_mode()
def write(gamma, length=32):
    """(the tokens, seconds, passes) of greedy decoding with `gamma` guessed tokens a round."""
    cache, text, passes = DynamicCache(), asks[0].tolist(), 1
    text.append(int(model(asks, past_key_values=cache, logits_to_keep=1).logits[0, -1].argmax()))
    begin, clock = len(text), time.process_time()
    while len(text) < begin + length:
        guessed = guess(text, gamma) if gamma else []
        logits = model(torch.tensor([text[-1:] + guessed]), past_key_values=cache).logits[0]
        passes += 1
        law = F.one_hot(logits.argmax(-1), logits.shape[-1]).double()
        stand, left = 0, law[0]
        if guessed:
            tokens = torch.tensor(guessed)
            stand, left = speculative_accept(law, F.one_hot(tokens, logits.shape[-1]).double(), tokens,
                                             torch.full((len(guessed),), 0.5, dtype=torch.float64))
            cache.crop(stand - len(guessed)) if stand < len(guessed) else None
        text += [*guessed[:stand], int(left.argmax())]
    return text[begin : begin + length], time.process_time() - clock, passes


plain_text, plain_time, plain_passes = write(0)
fast_text, fast_time, fast_passes = write(5)
agreed = sum(a == b for a, b in zip(plain_text, fast_text, strict=True))
print(f"plain: {plain_passes} passes, {plain_time:.1f} s. With prompt lookup: {fast_passes} passes, {fast_time:.1f} s. "
      f"{agreed} of {len(plain_text)} tokens are the same.")
print(repr(tokenizer.decode(fast_text)))

# %% [markdown]
# ## On a GPU
#
# What follows needs an NVIDIA GPU. It is complete, and runs where a device is found; the line that it prints says which
# happened. `python course.py test gpu` runs all such paths of the course and keeps what came out. If nobody has, this
# has **not been run** by the authors of this page either.
#
# FP8 first: both matrices in 8 bits with one scale each, so that the largest number becomes 448, the largest of E4M3.

# %% tags=["demo"]
import inspect

from labkit import gpu_checks, gpu_report

print(inspect.getsource(gpu_checks.fp8_matmul))
print("What is kept:", gpu_report().line("FP8 matmul"))
if torch.cuda.is_available() and torch.cuda.get_device_capability() >= gpu_checks.FP8:
    found = gpu_checks.fp8(torch.device("cuda"))
    print(f"Here, {torch.cuda.get_device_name()}:", ", ".join(f"{what} {value:.3g}" for what, value in found.items()))
else:
    print("Here: not run, FP8 products need a GPU of compute capability 8.9 (Ada) or above.")

# %% [markdown]
# TensorRT takes the very file that you exported and builds an **engine** for one GPU: it tries kernels and keeps the
# fastest, within the shapes that the profile allows. The script:

# %% tags=["demo"]
def tensorrt_engine(file, out, layers, heads, head):
    """Build a TensorRT engine from the ONNX file of this chapter. Raises RuntimeError with the parser's words."""
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # types as the file has them
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(file)):
        raise RuntimeError("; ".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 2 << 30)
    for step, past in (((1, 64, 512), (0, 0, 0)), ((1, 1, 1), (1, 256, 1024))):  # prefill, decode: (least, usual, most)
        profile = builder.create_optimization_profile()
        profile.set_shape("ids", *[(rows, n) for rows, n in zip((1, 4, 16), step, strict=True)])
        kept = [(layers, 2, rows, heads, n, head) for rows, n in zip((1, 4, 16), past, strict=True)]
        profile.set_shape("past", *kept)
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError("TensorRT could not build an engine; its log says why.")
    Path(out).write_bytes(plan)
    return trt.Runtime(logger).deserialize_cuda_engine(plan)


try:
    import tensorrt
except ImportError:
    tensorrt = None
if tensorrt and torch.cuda.is_available():
    engine = tensorrt_engine(plain_file, folder / "gpt.plan", DEPTH, HEADS, D // HEADS)
    size = (folder / "gpt.plan").stat().st_size / 1e6
    print(f"engine with {engine.num_optimization_profiles} profiles, {size:.1f} MB")
else:
    print("Not run: TensorRT and an NVIDIA GPU are not both here.")

# %% [markdown]
# ## In 2026
#
# * **Engines.** For LLMs: vLLM, SGLang, TensorRT-LLM, llama.cpp. All batch continuously and reuse prefixes by default;
#   the first three page the cache as well. ONNX Runtime serves encoders, vision, speech and small language models, also
#   on phones and NPUs. (Some of these want an older opset. From 13 down to 11 onnx 1.23.2's `convert_version` makes a
#   softmax over an inner dimension one over several, without a word: run both files on one input.
#   `findings/onnx_version_converter_changes_the_softmax.sh` runs it.)
# * **Smaller caches.** GQA, MLA (a low-rank vector and a rotated key a token), sliding windows in most layers,
#   linear-attention layers in between: the model is designed for decoding. FP8 caches are common.
# * **Two phases, two pools.** Prefill and decode on separate machines, the cache sent between them; the targets are
#   stated for time to first token and time per output token.
# * **Speculation** by heads on the model's own states, trained with it (DeepSeek-V3's MTP) or for it afterwards
#   (EAGLE-3); its gain falls with the batch.
# * **8 and 4 bits.** FP8 weights and activations on Hopper and Ada; MXFP8 and NVFP4 with block scales on Blackwell.
#
# ## What to remember
#
# * Decode reads every weight for one token a user: memory-bound. Prefill uses each weight for many: compute-bound.
#   Ask of each technique which of the two it relieves.
# * Bytes, multiply-adds and seconds are three measures; quantization leaves the second as it is.
# * Graph optimization rewrites the graph of one device: constant folding, fusion. Splitting work over devices is
#   another matter.
# * A cache in blocks, a scheduler at each step, prefixes named by everything before them: that is an engine.
# * Speculation keeps the law if rejected tokens are replaced from $\max(p - q, 0)$. It pays if the draft is cheap,
#   agrees, and arithmetic is idle.
#
# **Sources.** Williams et al. 2009, [doi:10.1145/1498765.1498785](https://doi.org/10.1145/1498765.1498785) (roofline);
# Kwon et al. 2023, [arXiv:2309.06180](https://arxiv.org/abs/2309.06180) (PagedAttention); Yu et al. 2022, OSDI (Orca);
# Agrawal et al. 2024, [arXiv:2403.02310](https://arxiv.org/abs/2403.02310) (chunked prefill); Zhong et al. 2024,
# [arXiv:2401.09670](https://arxiv.org/abs/2401.09670) (disaggregation); Leviathan et al. 2022,
# [arXiv:2211.17192](https://arxiv.org/abs/2211.17192), and Chen et al. 2023,
# [arXiv:2302.01318](https://arxiv.org/abs/2302.01318) (speculation); Zhang et al. 2023,
# [arXiv:2309.08168](https://arxiv.org/abs/2309.08168) (drafts by leaving out layers); ONNX Runtime's pages on
# [graph optimizations](https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html); vLLM's
# on [prefix caching](https://docs.vllm.ai/en/latest/design/prefix_caching/); Transformer Engine's
# [support matrix](https://nvidia.github.io/TransformerEngine/support_matrix.html).
