# ---
# jupyter:
#   course:
#     title: "Quantization: what a weight may cost"
#     exercises: applications.quantization
#     questions: [A02, A05]
#     needs: []
# ---

# %% [markdown]
# # Quantization: what a weight may cost
#
# To write one token, a model reads all of its weights (one with experts: those of the experts it asks). So bytes decide
# how much memory it needs, and how fast it writes for a single reader. **Quantization** stores each weight in 8, 4 or
# fewer bits; the question is what it costs.
#
# The interview question: **which precisions are there, what does each cost, and how do GPTQ, AWQ and GGUF work?** You
# will round with a scale, decode a real 4-bit file byte by byte, build GPTQ and AWQ, and see what each format does to a
# real model on real text. Seven sentences of the usual answer are put to the test.
#
# One thing first. **The model of this course comes as a 4-bit file.** Its "fp32" weights are what those 4 bits stand
# for; nobody here has the weights from before. So wherever you read "fp32" below, read: *the file's numbers, unpacked*.
# What a second format costs on top of that is measured. What the first one cost can't be.

# %% tags=["setup"]
import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from gguf import GGMLQuantizationType, GGUFReader, quants

from autograde import check
from labkit import COLORS, SEQUENTIAL, evidence, figure, interval, shakespeare, show, smollm, verdict
from labkit.conversion import gguf_path

# %% [markdown]
# ## What is in the file?
#
# GGUF is the file format of llama.cpp: one file with the tokenizer, the settings and the tensors, each tensor in a
# number format of its own.

# %% tags=["demo"]
path = gguf_path()
tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
parts, numbers = {}, 0
for tensor in tensors.values():
    parts[tensor.tensor_type.name] = parts.get(tensor.tensor_type.name, 0) + int(tensor.n_bytes)
    numbers += int(tensor.n_elements)
whole = path.stat().st_size
parts["tokenizer, names"] = whole - sum(parts.values())

fig, ax = figure(width=9.5, height=2.9)
rows = {"this file": list(parts.values()), "fp16": [2 * numbers], "fp32": [4 * numbers]}
for row, sizes in enumerate(rows.values()):
    left = 0
    for i, size in enumerate(sizes):
        ax.barh(row, size / 1e6, left=left / 1e6, color=COLORS[i] if row == 0 else "#999999")
        left += size
    ax.text(left / 1e6 + 6, row, f"{left / 1e6:.0f} MB", va="center")
for i, (name, size) in enumerate(parts.items()):
    ax.barh(0, 0, color=COLORS[i], label=f"{name}, {size / 1e6:.1f} MB")
ax.set_yticks(range(3), list(rows))
ax.set(xlabel="megabytes (10⁶ bytes)", xlim=(0, 4.6 * numbers / 1e6))
ax.legend(loc="lower right")
matrices = [tensor for tensor in tensors.values() if tensor.tensor_type.name == "Q4_1"]
bits_each = 8 * sum(int(t.n_bytes) for t in matrices) / sum(int(t.n_elements) for t in matrices)
show(
    fig,
    alt=f"Bars of bytes: the file has {whole / 1e6:.0f} MB, "
    + ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in parts.items())
    + f"; the same numbers take {2 * numbers / 1e6:.0f} MB in fp16 and {4 * numbers / 1e6:.0f} MB in fp32.",
    title=f"{numbers / 1e6:.1f} M numbers in {whole / 1e6:.0f} MB: {8 * whole / numbers:.2f} bits each. "
    f"Its '4-bit' matrices take {bits_each:.2f}",
)

# %% [markdown]
# Already here a rule of thumb breaks: 4-bit weights don't take half a byte. They need scales, and these take room.
#
# ## Rounding with a scale
#
# Whole numbers are cheap. So divide by a **scale** $s$, round, and multiply by it when you need the number again:
#
# $$q = \mathrm{round}(w / s), \qquad \hat w = s\,q, \qquad s = \frac{\max|w|}{2^{b-1}-1}.$$
#
# With $b = 8$ bits, $q$ lies between −127 and 127. The largest weight decides about $s$, and with it about all the
# others. Look at a real matrix of the model, and at the 15 values that 4 bits leave of it.

# %% tags=["demo"]
model, tokenizer = smollm()
weight = model.model.layers[10].mlp.gate_proj.weight.detach()


def zeros(w, group):
    """The share of weights whose 4-bit code is 0, if `group` neighbors share a scale."""
    blocks = w.reshape(-1, group)
    return float(((blocks / (blocks.abs().amax(1, keepdim=True) / 7)).round() == 0).float().mean())


groups = [weight.numel(), weight.shape[1], 64, 32]
share = {group: zeros(weight, group) for group in groups}
step = float(weight.abs().max()) / 7
fig, (left, right) = figure(1, 2, width=10.5, height=3.6, width_ratios=[1.5, 1])
left.hist(weight.flatten(), bins=200, color=COLORS[0])
for code in range(-7, 8):
    left.axvline(code * step, color=COLORS[1], linewidth=1, linestyle="--", label=None if code else "the 15 values")
left.set(xlabel="weight", ylabel="weights", yscale="log", title="One scale for the whole matrix")
left.legend(loc="upper right", frameon=True, framealpha=1, edgecolor="white")
right.bar(["matrix", "row", "64", "32"], [100 * each for each in share.values()], color=COLORS[1])
right.set(ylabel="weights that become 0, %", xlabel="weights that share a scale", title="Codes of four bits")
ratio = float(weight.abs().max() / weight.std())
show(
    fig,
    alt=f"Histogram of a matrix's weights with the 15 values of 4 bits: the largest is {ratio:.0f} standard deviations "
    "off. Share of weights that become 0: "
    + ", ".join(f"{100 * each:.0f} % with a scale for {group:,}" for group, each in share.items())
    + ".",
    title=f"The largest weight is {ratio:.0f} standard deviations off: with one scale {share[groups[0]]:.0%} become 0",
)

# %% [markdown]
# One outlier makes the grid coarse for everybody. The cure is **granularity**: let fewer weights share a scale, a row,
# or a **group** of 32 to 128 neighbors.
#
# Small blocks can be all zeros, and then 0 / 0 is NaN unless somebody thought of it: optimum-quanto 0.2.7 makes a row
# of NaN of such a row in float8, and zeros in int8. `findings/optimum_quanto_makes_nan_of_a_row_of_zeros.sh` runs it.
#
# ## Exercise 1: symmetric codes, `quantize_absmax`


# %% exercise="quantize_absmax"
def quantize_absmax(x, bits=8, group=None):
    """Symmetric rounding: whole numbers, and one scale for each block of numbers.

    x:     float32 or float64 tensor [..., n], at least one dimension
    bits:  2 to 8. The largest code is 2 ** (bits - 1) - 1: 127 for 8 bits, 7 for 4
    group: None: the whole of x is one block. Else an int that divides n: each `group`
           neighbors of the last dimension are a block of their own
    The scale of a block is its largest |x| / the largest code; a block of zeros has scale 1.
    The codes are x / scale, rounded to the nearest whole number.
    Returns (codes, scale). codes: int8 [..., n]. scale: of x's dtype; a tensor without
    dimensions where group is None, else [..., n // group]. x is not changed.
    """
    ### BEGIN SOLUTION
    blocks = x.reshape(1, -1) if group is None else x.reshape(-1, group)
    scale = blocks.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    scale = torch.where(scale == 0, 1, scale)
    codes = (blocks / scale).round().to(torch.int8).reshape(x.shape)
    return codes, scale.reshape(() if group is None else (*x.shape[:-1], -1))
    ### END SOLUTION


# %% check="quantize_absmax"
check(quantize_absmax)

# %% [markdown]
# What does granularity buy, and what does it cost? Your function on the matrix above. A scale is stored in float16, so
# groups of 32 add half a bit a weight.

# %% tags=["payoff"]
fig, ax = figure(width=9, height=3.8)
error = {}
for bits, color, mark in ((8, COLORS[0], "o"), (4, COLORS[1], "s"), (3, COLORS[2], "D"), (2, COLORS[3], "^")):
    for group in (None, weight.shape[1], 64, 32, 16):
        codes, scale = quantize_absmax(weight, bits, group)
        stored = scale.half().float()  # the scale as a file would have it
        near = codes * stored if group is None else (codes.unflatten(-1, (-1, group)) * stored[..., None]).flatten(-2)
        size = bits + 16 * scale.numel() / weight.numel()
        error[bits, group] = size, 100 * float((near - weight).norm() / weight.norm())
    points = [error[key] for key in error if key[0] == bits]
    ax.plot(*zip(*points, strict=True), color=color, marker=mark, label=f"{bits} bits")
for group, name in ((None, "matrix"), (weight.shape[1], "row"), (16, "16")):
    ax.annotate(name, error[4, group], xytext=(6, 4), textcoords="offset points", fontsize=9)
ax.set(xlabel="bits a weight, with its share of the scales", ylabel="relative error of the weights, %", yscale="log")
ax.legend(title="codes", loc="upper right")
show(
    fig,
    alt="Relative error of a real matrix against bits a weight, for 8, 4, 3 and 2 bits and five sizes of "
    "groups. 4 bits: "
    + ", ".join(f"{error[4, g][1]:.0f} % at {error[4, g][0]:.2f} bits" for g in (None, weight.shape[1], 64, 32, 16))
    + ".",
    title=f"4 bits: {error[4, None][1]:.0f} % off with one scale, {error[4, 32][1]:.0f} % in groups of 32, "
    f"for {error[4, 32][0] - 4:.1f} bits more",
)

# %% [markdown]
# ## Where zero is not in the middle
#
# Weights lie around zero. Activations need not: behind SiLU nothing is below −0.28. How many of the symmetric codes
# does nobody use then? **Affine** quantization shifts the grid by a **zero point** $z$, the code that means 0:
#
# $$s = \frac{\max - \min}{2^b - 1}, \qquad z = \mathrm{round}(-\min / s), \qquad
# q = \mathrm{clamp}\big(\mathrm{round}(x / s) + z\big), \qquad \hat x = s\,(q - z).$$

# %% tags=["demo"]
plays = shakespeare()
places = (700_000, 2_000_000, 3_300_000)
ids = torch.tensor([tokenizer(plays[at : at + 3000]).input_ids[:512] for at in places])
seen = {}


def watch(name):
    """Keep what a module of the model gets as its input: [tokens, width]."""
    return model.model.get_submodule(name).register_forward_pre_hook(
        lambda _, given: seen.update({name: given[0].detach().flatten(0, -2)})
    )


names = [f"layers.{i}.{part}" for i in (10, 29) for part in ("self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")]
watching = [watch(name) for name in [*names, "layers.10.mlp.act_fn"]]
with torch.no_grad():
    hidden = model.get_input_embeddings()(ids)
    rotary = model.model.rotary_emb(hidden, torch.arange(512)[None])
    for number, layer in enumerate(model.model.layers):
        hidden = hidden if number < 11 else hidden[:1]  # behind layer 10 one passage will do
        hidden = layer(hidden, position_embeddings=rotary, attention_mask=None)
for handle in watching:
    handle.remove()
silu = F.silu(seen["layers.10.mlp.act_fn"])

top, low = float(silu.max()), float(silu.min())
unused = 1 - (top - low) / (2 * top)
fig, ax = figure(width=9, height=3.2)
ax.hist(silu.flatten(), bins=150, color=COLORS[0])
ax.axvspan(-top, low, color=COLORS[1], alpha=0.2, label=f"symmetric codes that nobody uses: {unused:.0%}")
ax.axvline(0, color="#444444", linestyle=":")
ax.set(xlabel="activation behind SiLU, layer 10", ylabel="activations", yscale="log", xlim=(-1.05 * top, 1.05 * top))
ax.legend(loc="upper right")
show(
    fig,
    alt=f"Histogram of activations behind SiLU, from {low:.2f} to {top:.1f}; symmetric codes would go down to "
    f"{-top:.1f}, and {unused:.0%} of them stay unused.",
    title=f"Behind SiLU numbers go from −{-low:.2f} to {top:.1f}: {unused:.0%} of symmetric codes stay unused",
)

# %% [markdown]
# Why round the zero point? So that 0 has a code of its own. Padding and ReLU give exact zeros, and a zero that comes
# back as 0.003 is a bias in every sum. For the same reason the range always has to contain 0.
#
# ## Exercise 2: a zero point, `quantize_affine`


# %% exercise="quantize_affine"
def quantize_affine(x, bits=8):
    """Asymmetric rounding: codes from 0 on, one scale, and the code that stands for zero.

    x:    float32 or float64 tensor of any shape, not empty
    bits: 2 to 8; the codes go from 0 to 2 ** bits - 1
    The range goes from low = the smallest number of x, at most 0, to high = the largest, at
    least 0. scale = (high - low) / (2 ** bits - 1); zero_point = -low / scale, rounded to the
    nearest whole number; codes = (x / scale rounded to the nearest) + zero_point, clamped.
    If x holds nothing but zeros: scale 1, zero_point 0, codes 0.
    Returns (codes, scale, zero_point): uint8 of x's shape, and two tensors without dimensions,
    scale of x's dtype and zero_point int64. x is not changed.

    Jacob et al. 2018, arXiv:1712.05877, section 2.1.
    """
    ### BEGIN SOLUTION
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale == 0, 1, scale)
    zero_point = (-low / scale).round()
    codes = ((x / scale).round() + zero_point).clamp(0, 2**bits - 1)
    return codes.to(torch.uint8), scale, zero_point.long()
    ### END SOLUTION


# %% check="quantize_affine"
check(quantize_affine)

# %% tags=["payoff"]
errors = []
for bits in (8, 6, 4):
    codes, scale = quantize_absmax(silu, bits)
    symmetric = float((codes * scale - silu).norm() / silu.norm())
    codes, scale, zero_point = quantize_affine(silu, bits)
    affine = float(((codes.long() - zero_point) * scale - silu).norm() / silu.norm())
    errors.append(f"{bits} bits: symmetric {symmetric:6.1%}, affine {affine:6.1%}")
print("Relative error of the activations above, behind SiLU", *errors, sep="\n")

# %% [markdown]
# ## Training through a step
#
# What if 2 or 3 bits have to do? Then train *with* the rounding in place, so that the weights can arrange themselves:
# **quantization-aware training** (QAT). One thing stands in the way. A staircase is flat: the gradient of
# $\mathrm{round}$ is 0 wherever it is defined.
#
# The **straight-through estimator** (Bengio et al. 2013) uses the staircase forward and the line $y = x$ backward.
# Beyond the last code, where clamping makes the line flat as well, the gradient is 0.
#
# ## Exercise 3: a staircase with a gradient, `fake_quantize`


# %% exercise="fake_quantize"
def fake_quantize(x, scale, bits=8):
    """What rounding leaves of x, with a gradient that lets one train through it.

    x:     float32 or float64 tensor of any shape
    scale: a positive float, the step between two codes
    bits:  2 to 8; the codes go from -2 ** (bits - 1) to 2 ** (bits - 1) - 1
    The value is scale * code, where code is x / scale rounded to the nearest whole number and
    clamped to that range. The gradient of x is that of the result where the rounded
    x / scale lies in that range (both ends included), and 0 where it had to be clamped.
    Returns a tensor of x's shape and dtype. x is not changed.

    Bengio et al. 2013, arXiv:1308.3432 (straight-through).
    """
    ### BEGIN SOLUTION
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    whole = (x / scale).round()
    y = whole.clamp(low, high) * scale
    kept = torch.where((whole >= low) & (whole <= high), x, x.detach())
    return kept + (y - kept).detach()
    ### END SOLUTION


# %% check="fake_quantize"
check(fake_quantize)

# %% [markdown]
# A real matrix of layer 10 with 3 bits. It shall give the same outputs as before on real inputs: 1,024 tokens of two
# plays to train on, 512 of a third to test. Rounding to the nearest is the start; your function lets Adam go on.

# %% tags=["payoff"]
target = model.model.layers[10].self_attn.o_proj.weight.detach()
x_train, x_test = seen["layers.10.self_attn.o_proj"].split([1024, 512])
step = float(target.std()) * 1.1
trained = target.clone().requires_grad_()
optimizer = torch.optim.Adam([trained])


def off(w, x):
    """Relative error of the layer's outputs."""
    return (x @ (w - target).T).norm() / (x @ target.T).norm()


curve = []
for number in range(121):
    optimizer.param_groups[0]["lr"] = 4e-4 * (1 - number / 121)
    rounded = fake_quantize(trained, step, 3)
    if number % 10 == 0:
        curve.append((number, 100 * float(off(rounded, x_train).detach()), 100 * float(off(rounded, x_test).detach())))
    optimizer.zero_grad()
    (x_train @ (rounded - target).T).square().mean().backward()
    optimizer.step()
steps, train, test = zip(*curve, strict=True)
fig, ax = figure(width=8.5, height=3.2)
ax.plot(steps, train, color=COLORS[0], marker="o", label="tokens it is trained on")
ax.plot(steps, test, color=COLORS[1], marker="s", label="other tokens")
ax.set(xlabel="step", ylabel="relative error of\nthe layer's output, %", ylim=(0, None))
ax.legend()
show(
    fig,
    alt=f"Relative error of a 3-bit layer's output against training steps: on trained tokens {train[0]:.0f} % to "
    f"{train[-1]:.0f} %, on others {test[0]:.0f} % to {test[-1]:.0f} %.",
    title=f"3 bits: rounding is {test[0]:.0f} % off, after {steps[-1]} steps of training {test[-1]:.0f} % "
    f"(other tokens)",
)

# %% [markdown]
# ## Four bits in a byte
#
# No processor addresses half a byte, so two codes share one. GGUF's **Q4_1** stores blocks of 32 weights in 20 bytes:
#
# | bytes | what | meaning |
# |---|---|---|
# | 0, 1 | $d$, float16 | the scale |
# | 2, 3 | $m$, float16 | the least weight: what code 0 stands for |
# | 4 … 19 | 32 codes $q$ of 4 bits | byte $4 + j$: code $j$ in the lower four bits, code $j + 16$ in the upper four |
#
# $$w = d\,q + m$$
#
# Here is the first block of a matrix of the first layer.

# %% tags=["demo"]
name = "blk.0.ffn_gate.weight"
block = tensors[name].data[0, :20]
d, m = (float(each) for each in block[:4].view(np.float16))
decoded = quants.dequantize(block[None], GGMLQuantizationType.Q4_1)[0]
fig, (above, below) = figure(2, 1, width=10.5, height=4.6, height_ratios=[1, 2.2])
for i, byte in enumerate(block):
    color = COLORS[1] if i < 2 else COLORS[3] if i < 4 else COLORS[0]
    above.bar(i + 0.5, 1, width=1, color=color, edgecolor="white")
    text = f"{byte:02x}" if i < 4 else f"{byte >> 4}\n{byte & 15}"
    above.text(i + 0.5, 0.5, text, ha="center", va="center", color="white", fontsize=10)
above.set(xlim=(0, 20), ylim=(0, 1), yticks=[], xticks=[i + 0.5 for i in range(20)])
above.set_xticklabels(range(20))
above.set_title(f"20 bytes: d = {d:.5f}, m = {m:.4f}, then 16 × (upper code over lower code)", fontsize=11)
colors = [COLORS[0]] * 16 + [COLORS[5]] * 16
below.bar(range(32), decoded, color=colors)
for code in range(16):
    below.axhline(d * code + m, color="#bbbbbb", linewidth=0.6, zorder=0)
below.set(xlabel="weight of the block (0–15: lower halves, 16–31: upper halves)", ylabel="d · q + m", xlim=(-0.6, 31.6))
used, least = len(set(decoded.tolist())), f"{m:.3f}".replace("-", "−")
show(
    fig,
    alt=f"Above, the 20 bytes of a block with scale {d:.5f}, least weight {m:.4f} and 32 codes. Below, its 32 weights "
    f"on a grid of 16 levels, of which {used} are used.",
    title=f"A real block: {used} of the 16 levels from {least} to {15 * d + m:.3f} are in use",
)
nearest = min((d * code + m for code in range(16)), key=abs)
print(f"The level nearest to 0 is {nearest:.4f}: that is what a weight pruned to 0 would come back as.")

# %% [markdown]
# ## Exercise 4: two codes a byte, `pack_int4`


# %% exercise="pack_int4"
def pack_int4(codes):
    """Two 4-bit codes in each byte, in the order of GGUF's blocks of 32.

    codes: int64 tensor [..., n] of whole numbers from 0 to 15; n is a multiple of 32
    Each 32 neighbors of the last dimension are a block and become 16 bytes: byte j of a block
    holds its code j in the lower four bits and its code j + 16 in the upper four.
    Returns a new uint8 tensor [..., n // 2], the bytes of the blocks one after the other.
    """
    ### BEGIN SOLUTION
    halves = codes.unflatten(-1, (-1, 2, 16))
    return (halves[..., 0, :] + 16 * halves[..., 1, :]).to(torch.uint8).flatten(-2)
    ### END SOLUTION


# %% check="pack_int4"
check(pack_int4)

# %% [markdown]
# ## Exercise 5: read the real file, `dequantize_q4_1`


# %% exercise="dequantize_q4_1"
def dequantize_q4_1(blocks):
    """The numbers that stand in GGUF's Q4_1 blocks: 20 bytes for 32 of them.

    blocks: uint8 tensor [..., 20 * b], rows of b blocks, in any memory layout
    A block is: the scale d, float16, 2 bytes; the least number m, float16, 2 bytes (both
    little-endian, as this machine has it); 16 bytes with 32 codes q from 0 to 15: byte j holds
    code j in its lower four bits and code j + 16 in its upper four. A number is d * q + m.
    d and m become float32 first, then product and sum are computed in float32, so that the
    result is the package gguf's bit for bit.
    Returns a new float32 tensor [..., 32 * b].
    """
    ### BEGIN SOLUTION
    rows = blocks.reshape(-1, 20)
    d, m = rows[:, :4].contiguous().view(torch.float16).float().split(1, 1)
    codes = torch.cat([rows[:, 4:] & 15, rows[:, 4:] >> 4], 1)
    return (d * codes + m).reshape(*blocks.shape[:-1], -1)
    ### END SOLUTION


# %% check="dequantize_q4_1"
check(dequantize_q4_1)

# %% [markdown]
# Now all of it: 210 matrices, 106 million weights, by your code and by the authors' package, on the same bytes.

# %% tags=["payoff"]
seconds = {"yours": 0.0, "gguf": 0.0}
different = total = 0
for tensor in matrices:
    stored = torch.tensor(tensor.data)
    start = time.process_time()
    mine = dequantize_q4_1(stored)
    between = time.process_time()
    theirs = quants.dequantize(stored.numpy(), GGMLQuantizationType.Q4_1)
    seconds["gguf"] += time.process_time() - between
    seconds["yours"] += between - start
    different += int((mine.view(torch.int32) != torch.from_numpy(theirs).view(torch.int32)).sum())
    total += mine.numel()
print(f"{total:,} weights, {different} of them differ in some bit")
print(
    ", ".join(f"{who}: {spent:.2f} s" for who, spent in seconds.items())
    + f"; yours takes {seconds['yours'] / seconds['gguf']:.2f} of the time of gguf"
)
gate = dequantize_q4_1(torch.tensor(tensors["blk.10.ffn_gate.weight"].data))
print(f"And the model's own matrix is these numbers: {torch.equal(gate, weight)}")
assert different == 0, "Some of your numbers are not the file's: solve exercise 5 first."
first = torch.tensor(tensors[name].data[:, :20])
codes = torch.cat([first[:, 4:] & 15, first[:, 4:] >> 4], 1).long()
print(f"Your pack_int4 writes the bytes of the file again: {torch.equal(pack_int4(codes), first[:, 4:])}")

# %% [markdown]
# ## Floating-point numbers of four and eight bits
#
# Whole numbers are evenly spaced. A floating-point number spends bits on an *exponent*: its steps grow with its size.
#
# * **bfloat16**, in which most checkpoints come: float32's range in 16 bits, and fewer digits.
# * **FP8 e4m3**: 4 bits of exponent, 3 of mantissa, up to 448. **e5m2**: coarser, up to 57,344, meant for gradients.
# * **FP4 e2m1**: eight sizes, 0, 0.5, 1, 1.5, 2, 3, 4, 6. So small blocks get a scale of their own.
# * **NF4** (QLoRA): 16 quantiles of the normal distribution, close together where such weights are many. (They aren't
#   used equally often: what is divided by its block's largest isn't normal any more.)

# %% tags=["demo"]
from experiments.quantized import E2M1, NF4

lines = {"int4": torch.arange(-7, 8) / 7, "FP4 e2m1": E2M1 / 6, "NF4": NF4}
fig, (left, right) = figure(1, 2, width=10.5, height=3.6, width_ratios=[1.1, 1])
for row, values in enumerate(lines.values()):
    left.plot(values, [row] * len(values), "|", color=COLORS[row], markersize=22, markeredgewidth=2)
left.set_yticks(range(3), list(lines))
left.set(ylim=(-0.6, 2.6), xlabel="value, where the largest is 1", title="All values of three four-bit formats")
sizes = torch.logspace(-4, 0, 400)
grids = {"int8": torch.arange(1, 128) / 127}
for label, dtype in (("FP8 e4m3", torch.float8_e4m3fn), ("FP8 e5m2", torch.float8_e5m2)):
    every = torch.arange(256, dtype=torch.uint8).view(dtype).float()
    every = every[every.isfinite() & (every > 0)].sort().values
    grids[label] = every / every.max()
steps_at = {}
for (label, grid), color, style in zip(grids.items(), (COLORS[0], COLORS[1], COLORS[3]), ("-", "-", "--"), strict=True):
    nearest = (sizes[:, None] - grid).abs().amin(1).minimum(sizes)
    steps_at[label] = 100 * float(
        nearest[(sizes > 0.01) & (sizes < 0.1)].div(sizes[(sizes > 0.01) & (sizes < 0.1)]).mean()
    )
    smooth = (nearest / sizes).unfold(0, 15, 1).mean(1)
    right.plot(sizes[7:-7], 100 * smooth, color=color, linestyle=style, label=label)
right.set(
    xscale="log", yscale="log", xlabel="size of a number, where the largest is 1", ylabel="mean relative error, %"
)
right.legend()
right.set_title("Eight bits")
told = ", ".join(f"{label} {error:.1f} %" for label, error in steps_at.items())
show(
    fig,
    alt="Left: the values of int4, e2m1 and NF4 on a line. Right: relative error of int8, e4m3 and e5m2 against "
    "the size "
    f"of a number. For numbers of a hundredth to a tenth of the largest: {told}.",
    title=f"A number of 1–10 % of the largest is off by: {told}",
)

# %% [markdown]
# So the question "FP8 or INT8?" is a question about your numbers: how evenly do they fill the range? int8 errs by a
# part of the largest number, FP8 by a part of each number itself, down to its smallest.
#
# ## Block formats: MXFP4 and NVFP4, decoded by hand
#
# gpt-oss was released in **MXFP4** (OCP Microscaling): 32 codes of e2m1 and one byte for a power of two. **NVFP4** uses
# blocks of 16 with an e4m3 scale, and a float32 for the tensor. Below, real weights in both, and a decoder from the
# table of eight numbers, compared with the libraries' own. NF4 takes its 16 values from a table of quantiles.

# %% tags=["demo"]
from scipy.stats import norm
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from experiments.quantized import FORMATS, unpacked

piece = weight[:64]
kept = FORMATS["MXFP4"].encode(piece)
codes = unpacked(kept["codes"], 4, (piece.numel() // 32, 32))
sizes = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
by_hand = torch.where(codes < 8, 1, -1) * sizes[codes % 8] * 2.0 ** (kept["scale"].float() - 127)
neighbors = (codes[:, 0::2] + 16 * codes[:, 1::2]).to(torch.uint8)  # gpt-oss: the codes 2 j and 2 j + 1 share byte j
library = convert_moe_packed_tensors(neighbors[None, None], kept["scale"].T[None], dtype=torch.float32)[0, :, 0]
halves = (codes[:, :16] + 16 * codes[:, 16:]).to(torch.uint8)  # GGUF: the codes j and j + 16 share byte j
from_gguf = quants.dequantize(torch.cat([kept["scale"], halves], 1).numpy(), GGMLQuantizationType.MXFP4)
print(f"MXFP4: 17 bytes for 32 weights, {8 * 17 / 32} bits each")
print(f"  by hand = transformers, which pairs neighbors: {torch.equal(by_hand.flatten(), library)}")
print(f"  by hand = gguf, which pairs j and j + 16: {torch.equal(by_hand, torch.from_numpy(from_gguf))}")
kept = FORMATS["NVFP4"].encode(piece)
codes = unpacked(kept["codes"], 4, (piece.numel() // 16, 16))
by_hand = torch.where(codes < 8, 1, -1) * sizes[codes % 8] * kept["scale"].float()
scales, halves = kept["scale"].view(torch.uint8).reshape(-1, 4), (codes[:, :8] + 16 * codes[:, 8:]).to(torch.uint8)
from_gguf = quants.dequantize(torch.cat([scales, halves.reshape(-1, 32)], 1).numpy(), GGMLQuantizationType.NVFP4)
print(f"NVFP4: 9 bytes for 16 weights, {8 * 9 / 16} bits each")
print(
    f"  by hand = gguf, but for the tensor's scale: {torch.equal(by_hand.reshape(-1, 64), torch.from_numpy(from_gguf))}"
)

kept = FORMATS["NF4"].encode(piece)
codes = unpacked(kept["codes"], 4, (piece.numel() // 64, 64))
by_hand = (NF4[codes] * kept["scale"]).reshape(piece.shape)
above, below = (norm.ppf(np.linspace(0.9677083, 0.5, count)[:-1]) for count in (9, 8))
table = np.sort(np.concatenate([above, -below, [0.0]]))
print(
    f"NF4: 36 bytes for 64 weights, {8 * 36 / 64} bits each; relative error "
    f"{float((by_hand - piece).norm() / piece.norm()):.1%}"
)
print(f"  its table = quantiles of the normal distribution, up to {abs(table / table.max() - NF4.numpy()).max():.0e}")

# %% [markdown]
# Two files can hold the same format in another order of nibbles. A wrong order raises no error: the numbers are merely
# in the wrong places.
#
# ## "Eight bits are a byte; there are generally four levels of precision"
#
# The notes then list five: FP32, FP16, FP8, INT8, INT4. What can torch alone store, in four bytes or less? Each row
# below is a number format that a checkpoint may have today.
#
# **Before the run:** *correct* if there are four such types, counting whole numbers of 8 and 4 bits; else *wrong*.

# %% claim="A05.7"
floats = [dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype) and dtype.is_floating_point]
floats = sorted({dtype for dtype in floats if dtype.itemsize <= 4}, key=lambda dtype: (-dtype.itemsize, str(dtype)))
print(f"{'type':18}{'bytes':>6}{'largest':>14}{'step at 1':>12}{'smallest':>12}")
for dtype in floats:
    kind = str(dtype).removeprefix("torch.")
    try:
        info = torch.finfo(dtype)
        row = f"{info.max:>14.5g}{info.eps:>12.3g}{info.smallest_normal:>12.2g}"
    except (TypeError, NotImplementedError, RuntimeError):
        row = "   two of 4 bits: 0, 0.5 … 6"
    print(f"{kind:18}{dtype.itemsize:>6}{row}")
count = len(floats) + 2
verdict(
    "A05.7",
    "correct" if count == 4 else "wrong",
    f"torch stores {len(floats)} floating-point types of four bytes or less, and whole numbers of 8 and 4 bits. "
    f"bfloat16 "
    f"is among them: largest number {torch.finfo(torch.bfloat16).max:.1e}, where float16 ends at "
    f"{torch.finfo(torch.float16).max:,.0f}.",
)

# %% [markdown]
# So much for names and sizes. What do they cost?
#
# ## The price, on real text
#
# Errors of weights are not what anybody cares about. So the model reads text: twelve passages of Shakespeare and eight
# of the manual of Python, 192 tokens each. (Its training will have held both; what counts are the differences between
# formats.) For each format all 210 matrices are encoded, and decoded again from the tensors that would be *stored*; the
# bytes are those of a file with all of them. (Below 16 bits the embedding is kept in 8-bit blocks, as the shipped file
# has it.)
#
# What is measured is the mean of $-\ln p$ of each next token, in *nats* (its *surprise*; the negative log-likelihood),
# and **perplexity**, $e$ to that mean.
#
# That takes minutes, so the results are kept with the course. A few passages are read again here.

# %% tags=["demo"]
from experiments.A05_12 import CALIBRATED, ENCODER, FOUR, OWN
from experiments.quantized import FORMATS, PLAYS, more, passages

found = evidence("A05.12")
base = found.each("fp32", "nats")[0]


@torch.inference_mode()
def nats_of(passage):
    """The model's surprise at a passage [length], nats a token; few logits at a time, to save memory."""
    states, targets = model.model(passage[None]).last_hidden_state[0, :-1], passage[1:]
    parts = zip(states.split(32), targets.split(32), strict=True)
    return sum(float(F.cross_entropy(model.lm_head(s), t, reduction="sum")) for s, t in parts) / len(targets)


here = [nats_of(passage) for passage in passages()[:4]]
apart = max(abs(a - b) for a, b in zip(here, base, strict=False))
print(
    f"Four passages, read again here: perplexity {', '.join(f'{math.exp(nats):.1f}' for nats in here)}; "
    f"{'as kept' if apart < 0.02 else f'off by {apart:.3f} nats from what is kept'}"
)


def megabytes(arm):
    return found.each(arm, "bytes")[0] / 1e6


def perplexity(arm, text=slice(None)):
    """exp of the mean surprise over the passages."""
    return math.exp(interval(found.each(arm, "nats")[0][text]).mean)


KINDS = {
    "floating point": ["fp32", "bf16", "fp16", "fp8, a tensor", "fp8, a row"],
    "int8": ["int8, a tensor", "int8, a row"],
    "int4": ["int4, a tensor", "int4, a row", "int4, groups of 64", "int4, groups of 32"],
    "4 bits, other values": ["NF4", "MXFP4", "NVFP4"],
    "int4, GPTQ or AWQ": CALIBRATED,
    "int3": ["int3, groups of 64"],
    "the file's own grid": [OWN],
}
MARKS = dict(zip(KINDS, zip(COLORS[:6] + ["#777777"], "oDs^vP*", strict=True), strict=True))
rise = {arm: more(found, arm) for arms in KINDS.values() for arm in arms}
LABELS = {  # where a label has room: its text, and its place beside the mark in points
    "MXFP4": ("MXFP4", 8, 0),
    "int4, groups of 64": ("groups of 64", 8, 0),
    "GPTQ int4, groups of 64": ("GPTQ,\ngroups of 64", -8, 3),
    "AWQ int4, groups of 64": ("AWQ,\ngroups of 64", -8, -4),
    "int4, groups of 32": ("groups of 32", 8, 0),
    "NF4": ("NF4", 8, 2),
    "NVFP4": ("NVFP4", 8, -9),
    OWN: ("Q4_1, made again", 8, 6),
    "int8, a tensor": ("one scale a matrix", -8, 0),
    "fp8, a row": ("FP8", -8, 7),
    "int8, a row": ("a scale a row", -8, -13),
}
fig, (left, right) = figure(1, 2, width=10.5, height=5.2, width_ratios=[1, 1.25])
for kind, arms in KINDS.items():
    color, mark = MARKS[kind]
    for arm in arms:
        every = [math.exp(nats) for nats in found.each(arm, "nats")[0]]
        left.plot([megabytes(arm)] * len(every), every, ".", color=color, alpha=0.25, markersize=4)
        left.plot(megabytes(arm), perplexity(arm), mark, color=color, markersize=8 if mark != "*" else 13)
    near = [arm for arm in arms if rise[arm].mean < 75 and megabytes(arm) < 160]
    for arm in near:
        each = rise[arm]
        right.plot([megabytes(arm)] * 2, [each.low, each.high], color=color, linewidth=1.5)
        right.plot(megabytes(arm), each.mean, mark, color=color, markersize=8 if mark != "*" else 13)
        if arm in LABELS:
            text, across, up = LABELS[arm]
            right.annotate(
                text,
                (megabytes(arm), each.mean),
                xytext=(across, up),
                textcoords="offset points",
                ha="left" if across > 0 else "right",
                va="center",
                fontsize=9,
            )
    left.plot([], [], mark, color=color, label=kind)
left.set(xscale="log", yscale="log", xlabel="megabytes of the file", ylabel="perplexity (faint: each passage)")
left.set_xticks([75, 100, 150, 300, 500], [75, 100, 150, 300, 500])
left.minorticks_off()
left.legend(fontsize=8.5)
right.set(
    xlabel="megabytes of the file",
    ylabel="perplexity above fp32's, % (line: 95 % interval)",
    xlim=(74, 141),
    ylim=(-6, 88),
)
right.axhline(0, color="#444444", linestyle=":")
four = {arm: rise[arm].mean for arm in (*FOUR, *CALIBRATED)}
best, worst = min(four, key=four.get), max(four, key=four.get)
show(
    fig,
    alt="Perplexity against the bytes of the file. Rise against fp32: "
    + "; ".join(f"{arm} {each.mean:+.1f} % at {megabytes(arm):.0f} MB" for arm, each in rise.items())
    + ".",
    title=f"int8 by rows: {rise['int8, a row'].mean:+.1f} %. Four bits: from {four[best]:+.0f} % ({best}) to "
    f"{four[worst]:+,.0f} % ({worst})",
)

# %% [markdown]
# Read the grey star first, the control. It is the shipped file's own format, made anew from the "fp32" numbers, which
# lie on that grid already: it should cost nothing. A second 4-bit format with another grid costs on top of the first.
# So don't read the right panel as "what INT4 costs a model": it is what INT4 costs *this* one, small and 4-bit already.
#
# And look for MXFP4, here and in the next figure. Its scale is a power of two, rounded down, so that a block's largest
# weights may be cut at 6. gpt-oss, which ships in it, was trained to live with that. These two models were not.
#
# ## "INT4: half a byte, very aggressive, probably distorts the model"
#
# That is why a second model answers as well, one that was never quantized before: all-MiniLM-L6-v2, a sentence encoder
# whose weights come in float32. It gets 200 pieces of the manual of Python and has to find the piece that follows each;
# its surprise at the right one is measured as a language model's is.
#
# **Before the run:** a setting *distorts* if perplexity rises by over 10 %, and *spares* if by less, both with the
# whole 95 % interval over passages. Seven ways to round to 4 bits, with either model, and GPTQ and AWQ with two sizes
# of groups. *Correct* if all distort, *wrong* if all spare, *imprecise* if some distort and some spare, else
# *unverifiable*.

# %% claim="A05.12"
encoder = {arm: more(found, ENCODER + arm, ENCODER + "fp32") for arm in FOUR}
tried = {**{arm: rise[arm] for arm in (*FOUR, *CALIBRATED)}, **{ENCODER + arm: each for arm, each in encoder.items()}}
distorts = [arm for arm, each in tried.items() if each.above(10)]
spares = [arm for arm, each in tried.items() if each.below(10)]
word = "correct" if len(distorts) == len(tried) else "wrong" if len(spares) == len(tried) else "unverifiable"
word = "imprecise" if distorts and spares else word


def spread(ax, number, logs, color):
    """A faint dot for each passage, in percent."""
    every = [100 * math.expm1(value) for value in logs]
    ax.plot(
        every,
        [number + 0.24 * ((7 * i) % 11 - 5) / 5 for i in range(len(every))],
        ".",
        color=color,
        alpha=0.3,
        markersize=4,
    )


def row(ax, number, each, color, mark="s"):
    """A mean with its 95 % interval, in percent."""
    ax.plot([each.low, each.high], [number, number], color=color, linewidth=3)
    ax.plot(each.mean, number, mark, color=color, markersize=7)


fig, axes = figure(1, 2, width=10.5, height=4.2, sharey=True)
order = [*FOUR, *CALIBRATED]
for number, arm in enumerate(order):
    kind = next(kind for kind, arms in KINDS.items() if arm in arms)
    logs = [a - b for a, b in zip(found.each(arm, "nats")[0], base, strict=True)]
    spread(axes[0], number, logs, MARKS[kind][0])
    row(axes[0], number, rise[arm], MARKS[kind][0], MARKS[kind][1])
    if arm in encoder:
        row(axes[1], number, encoder[arm], MARKS[kind][0], MARKS[kind][1])
axes[0].set_yticks(range(len(order)), order)
axes[0].invert_yaxis()
for ax, title in zip(axes, ("The chat model (its file is 4-bit)", "The encoder (never quantized before)"), strict=True):
    ax.axvline(10, color="#444444", linestyle=":")
    ax.axvline(0, color="#bbbbbb", linewidth=1)
    ax.set(xlabel="perplexity above fp32's, %", title=title)
    ax.set_xscale("symlog", linthresh=20)
    ax.set_xticks(
        [0, 10, 100, 1000, 10**5, 10**7] if ax is axes[0] else [-10, 0, 10, 100],
        ["0", "10", "100", "1,000", "10⁵", "10⁷"] if ax is axes[0] else ["−10", "0", "10", "100"],
    )
axes[0].set_xlim(-10, None)
show(
    fig,
    alt="Rise of perplexity by 4-bit formats, chat model and encoder, dots for passages, bars for intervals. Encoder: "
    + ", ".join(f"{arm} {each.mean:+.1f} %" for arm, each in encoder.items())
    + ". Chat model: "
    + ", ".join(f"{arm} {rise[arm].mean:+.1f} %" for arm in order)
    + ".",
    title=f"Of {len(tried)} settings with 4 bits {len(distorts)} surely cost over 10 %, {len(spares)} surely less",
)
verdict(
    "A05.12",
    word,
    f"{len(distorts)} of {len(tried)} settings distort, {len(spares)} spare. With one scale a matrix the chat model: "
    f"{tried[FOUR[0]].text('+,.0f')} %; the encoder in groups of 32: "
    f"{encoder['int4, groups of 32'].text('+.1f')} %. And "
    f"half a byte is too little: its matrices take {bits_each:.2f} bits a weight in the shipped file.",
)

# %% [markdown]
# So ask of every format: who shares a scale, and who chose the codes?
#
# ## "A 6B model in float16 is about 12 GB"
#
# **Before the run:** the file with all weights in fp16 says how many bytes a number takes. *Correct* if 6 billion
# numbers then take 12 GB, give or take 2 %, else *wrong*.

# %% claim="A05.6"
each = found.each("fp16", "bytes")[0] / numbers
gigabytes = 6e9 * each / 1e9
layers, heads, width = model.config.num_hidden_layers, model.config.num_key_value_heads, model.config.head_dim
cache = 2 * layers * heads * width * 2
verdict(
    "A05.6",
    "correct" if abs(gigabytes / 12 - 1) < 0.02 else "wrong",
    f"The fp16 file of {numbers:,} numbers has {found.each('fp16', 'bytes')[0]:,} bytes: {each:.4f} a number. "
    f"Six billion: "
    f"{gigabytes:.2f} GB, which memory tools call {6e9 * each / 2**30:.2f} GiB. Weights alone: this model's key-value "
    f"cache adds {cache:,} bytes for every token of every text.",
)

# %% [markdown]
# Arithmetic needs a count, and a count needs a source.
#
# ## "GPT-3.5 has 175 billion parameters, 350 GB in float16"
#
# The arithmetic is right. The count belongs to GPT-3 (Brown et al. 2020); OpenAI has never said how large GPT-3.5 is.
#
# ## Does it reduce the computation, too?
#
# Most 4-bit integer models are *weight-only*: weights are stored narrow, and unpacked before they are multiplied. One
# token through 256 rows of a matrix, stored in int8: what becomes of the bytes that are read, and of the floating-point
# operations?

# %% tags=["demo"]
from torch.utils.flop_counter import FlopCounterMode

token = seen["layers.10.mlp.gate_proj"][:1]
int8, some = FORMATS["int8, a row"], weight[:256]  # a few rows will do: operations and bytes go with their number
kept = int8.encode(some)


def counted(multiply):
    """Floating-point operations of a call, as torch counts them: multiplications of matrices."""
    with FlopCounterMode(display=False) as counter:
        multiply()
    return counter.get_total_flops()


work = {"fp32": counted(lambda: token @ some.T), "int8": counted(lambda: token @ int8.decode(kept, some.shape).T)}
read = {"fp32": some.numel() * 4, "int8": sum(part.numel() * part.element_size() for part in kept.values())}
for name in work:
    print(
        f"{name}: {work[name]:,} operations, {read[name]:,} bytes of weights: "
        f"{work[name] / read[name]:.2f} operations a byte"
    )
fewer = work["int8"] < work["fp32"]
told = "fewer" if fewer else "as many"
print(f"Operations: {told}, unpacking not counted. Bytes: {read['int8'] / read['fp32']:.0%} of fp32's.")

# %% [markdown]
# Why, then, do people quantize for speed?
#
# ## Waiting for memory
#
# A processor needs far more than one operation a byte to be busy; with a single text it waits for memory. So fewer
# bytes *are* speed when a model writes for one reader. In a large batch, or while it reads a long prompt, they are not:
# there only narrow *arithmetic* helps, with inputs in 8 or 4 bits as well.
#
# ## "INT8: less precise, but markedly less storage and computing"
#
# **Before the run:** three parts. *Less precise*: perplexity with int8 by rows surely rises by over 1 %. *Less
# storage*: the file is at most 60 % of the fp16 one. *Less computing*: fewer operations, counted above. *Correct* if
# all three hold, *wrong* if none does, else *imprecise*.

# %% claim="A05.11"
worse = rise["int8, a row"].above(1)
slim = found.each("int8, a row", "bytes")[0] / found.each("fp16", "bytes")[0]
held = [worse, slim < 0.6, fewer]
verdict(
    "A05.11",
    "correct" if all(held) else "imprecise" if any(held) else "wrong",
    f"Perplexity: {rise['int8, a row'].text('+.2f')} % by rows, {rise['int8, a tensor'].text('+.2f')} % with "
    f"one scale a "
    f"matrix. Bytes: {slim:.0%} of fp16's. Operations with weights alone in int8: {'fewer' if fewer else 'as many'}.",
)

# %% [markdown]
# So far every weight was rounded by itself.
#
# ## GPTQ: let the others make it good
#
# Rounding to the nearest is best for each weight by itself. But the layer's *output* is what counts, and there weights
# can stand in for each other: where two inputs rise and fall together, one weight that was rounded up is made good by
# another that is rounded down.
#
# Below, two weights of a real row, whose inputs go together; both are picked to show it, the row as the one that gains
# most. The ellipses are the error of the output.

# %% tags=["demo"]
x = seen["layers.10.mlp.gate_proj"]
hessian = x.T @ x
size = hessian.diagonal().sqrt()
cosine = (hessian / size.outer(size)).fill_diagonal_(0)
alike = (size.outer(1 / size) - 1).abs() < 0.3  # of two inputs of about the same size
i, j = divmod(int((cosine.abs() * alike).argmax()), len(cosine))
pair = hessian[[i, j]][:, [i, j]]
steps = weight.abs().amax(1) / 7
here = weight[:, [i, j]] / steps[:, None]
plain = here.round()
moved = torch.stack([plain[:, 0], (here[:, 1] + (here[:, 0] - plain[:, 0]) * pair[0, 1] / pair[1, 1]).round()], 1)


def loss(codes):
    """Error of the output, for each row: [rows]."""
    return (((codes - here) @ pair) * (codes - here)).sum(1)


gain = loss(plain) - loss(moved)
number = int(gain.argmax())
w, a, b = here[number], plain[number], moved[number]
fig, ax = figure(width=8.5, height=4.4)
span = torch.linspace(-1.6, 1.6, 200)
grid = torch.stack(torch.meshgrid(w[0] + span, w[1] + span, indexing="xy"), -1)
heights = (((grid - w) @ pair) * (grid - w)).sum(-1)
at = [float(loss(moved)[number]), float(loss(plain)[number])]
ax.contour(
    grid[..., 0], grid[..., 1], heights, levels=sorted({at[0] / 4, at[0], at[1]}), colors="#999999", linewidths=1
)
for p in range(int(w[0]) - 2, int(w[0]) + 3):
    for q in range(int(w[1]) - 2, int(w[1]) + 3):
        ax.plot(p, q, ".", color="#bbbbbb", markersize=6, zorder=0)
ax.plot(*w, "+", color="black", markersize=14, markeredgewidth=2, label="the weights")
ax.plot(*a, "o", color=COLORS[1], markersize=10, label="each to its nearest code")
ax.plot(*b, "s", color=COLORS[0], markersize=10, label="the second makes good the first")
ax.set(
    xlim=(w[0] - 1.6, w[0] + 1.6),
    ylim=(w[1] - 1.6, w[1] + 1.6),
    xlabel="first weight, in steps",
    ylabel="second weight, in steps",
)
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
show(
    fig,
    alt=f"A grid of codes for two weights, with ellipses of equal output error. The nearest codes have an error of "
    f"{at[1]:.1f}, those with compensation {at[0]:.1f}.",
    title=f"Error of the output: {at[1]:.1f} by rounding, {at[0]:.1f} with compensation "
    f"(inputs with a cosine of {float(cosine[i, j]):.2f})",
)

# %% [markdown]
# **GPTQ** (Frantar et al. 2022) does this for all columns. With inputs $X$ and $H = X^\top X$, the squared error of a
# row is $(w-\hat w) H (w-\hat w)^\top$. Go through the columns from left to right. Round column $j$, with error $e_j$;
# the columns that are still free answer with
#
# $$w_k \leftarrow w_k - e_j\, \frac{[H_{\ge j}^{-1}]_{jk}}{[H_{\ge j}^{-1}]_{jj}}, \qquad k > j,$$
#
# where $H_{\ge j}$ holds the columns from $j$ on. One order of columns for all rows, and updates in blocks, made this
# fast enough for 175 billion parameters. And all these inverses come from *one* Cholesky factor, which keeps them exact
# enough: with $H^{-1} = U^\top U$, $U$ upper triangular, the fraction is $U_{jk} / U_{jj}$.
#
# ## Exercise 6: column by column, `gptq_layer`


# %% exercise="gptq_layer"
def gptq_layer(w, hessian, scale, bits=4, damp=0.01):
    """GPTQ's codes for a layer: column by column, each error made good by the columns to come.

    w:       float64 [out, in], the layer's weight
    hessian: float64 [in, in], X^T X of its inputs: symmetric, eigenvalues at least 0
    scale:   float64 [out, 1], positive: the step between two codes of each row
    bits:    2 to 8; codes go from -(2 ** (bits - 1) - 1) to 2 ** (bits - 1) - 1
    damp:    a positive float; damp * the mean of the hessian's diagonal is added to all of
             its diagonal, once, before anything else
    For each column j from the first to the last: its codes are column / scale as it is by now,
    rounded to the nearest and clamped; its error is column - codes * scale. Every later column
    k is lessened by error * inv[j, k] / inv[j, j], where inv is the inverse of the damped
    hessian without the rows and columns before j.
    Returns the codes, int8 [out, in]. The inputs are not changed.

    Frantar et al. 2022, arXiv:2210.17323, section 3.
    """
    ### BEGIN SOLUTION
    most = 2 ** (bits - 1) - 1
    damped = hessian + damp * hessian.diagonal().mean() * torch.eye(len(hessian)).to(hessian)
    upper = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    w, step, codes = w.clone(), scale.squeeze(1), torch.zeros_like(w)
    for j in range(w.shape[1]):
        codes[:, j] = (w[:, j] / step).round().clamp(-most, most)
        error = (w[:, j] - codes[:, j] * step) / upper[j, j]
        w[:, j + 1 :] -= error[:, None] * upper[j, j + 1 :]
    return codes.to(torch.int8)
    ### END SOLUTION


# %% check="gptq_layer"
check(gptq_layer)

# %% [markdown]
# Your function on a real matrix: 1,024 tokens to calibrate, 512 of another play to judge. Look at both errors.

# %% tags=["payoff"]
steps = (target.abs().amax(1, keepdim=True) / 7).double()
ways = {
    "to the nearest": (target.double() / steps).round().clamp(-7, 7),
    "GPTQ": gptq_layer(target.double(), (x_train.T @ x_train).double(), steps).double(),
}
errors = {}
for way, codes in ways.items():
    near = (codes * steps).float()
    errors[way] = 100 * float((near - target).norm() / target.norm()), 100 * float(off(near, x_test))
fig, ax = figure(width=8, height=2.8)
for place, (way, pair_of) in enumerate(errors.items()):
    ax.barh(
        [0.2 + 0.4 * (1 - place) - 0.2, 1.4 - 0.4 * place], pair_of, height=0.36, color=COLORS[1 - place], label=way
    )
ax.set_yticks([0.2, 1.2], ["weights", "outputs of other tokens"])
ax.set(xlabel="relative error, %")
ax.legend()
(w_plain, o_plain), (w_gptq, o_gptq) = errors.values()
show(
    fig,
    alt=f"Relative errors of a 4-bit matrix. Weights: nearest {w_plain:.1f} %, GPTQ {w_gptq:.1f} %. Outputs: "
    f"{o_plain:.1f} % and {o_gptq:.1f} %.",
    title=f"Weights: {w_plain:.1f} % off by rounding, {w_gptq:.1f} % by GPTQ. Outputs: {o_plain:.1f} % and "
    f"{o_gptq:.1f} %",
)

# %% [markdown]
# ## AWQ: protect what meets large inputs
#
# **AWQ** (Lin et al. 2023) moves no weight after another. A few input channels are much larger than the rest, and an
# error in *their* weights is multiplied. So multiply the weight's column by $s_j > 1$ before rounding, and the input by
# $1/s_j$: the same product, but a finer grid for that column. Too large an $s_j$ makes the row's grid coarser for all
# others; so it is searched:
#
# $$s_j = \overline{|x_j|}^{\,\alpha}, \qquad
# \alpha^* = \arg\min_\alpha \big\| X \big(Q(W\,\mathrm{diag}(s))\,\mathrm{diag}(s)^{-1} - W\big)^\top \big\|^2 .$$
#
# ## Exercise 7: search the exponent, `awq_scale`


# %% exercise="awq_scale"
def awq_scale(w, x, exponents, bits=4):
    """AWQ's factors for a layer's input channels, and what each exponent costs.

    w: float64 [out, in], the layer's weight. x: float64 [tokens, in], its inputs
    exponents: list of floats of at least 0, not empty; bits: 2 to 8
    For each exponent: a channel's factor is the mean of its |x| over the tokens, to the power
    of the exponent, at least 1e-4; then all are divided by the root of (largest * smallest).
    w * factors is rounded row by row: step = the row's largest size / (2 ** (bits - 1) - 1),
    to the nearest multiple of it (a row of zeros stays zeros). Divided by the factors again it
    is the weight that the layer gets. The loss is the mean, over tokens and outputs, of the
    squared error of the layer's output x @ weight.T.
    Returns (factors, losses): float64 [in], those of the least loss (the first, if several
    have it), and float64 [len(exponents)], in the order given. Inputs are not changed.

    Lin et al. 2023, arXiv:2306.00978, section 3.
    """
    ### BEGIN SOLUTION
    most, best, losses = 2 ** (bits - 1) - 1, None, []
    for exponent in exponents:
        s = (x.abs().mean(0) ** exponent).clamp(min=1e-4)
        s = s / (s.max() * s.min()).sqrt()
        step = (w * s).abs().amax(1, keepdim=True) / most
        step = torch.where(step == 0, 1, step)
        near = (w * s / step).round() * step / s
        losses.append((x @ (near - w).T).square().mean())
        if losses[-1] == min(losses) and losses.index(losses[-1]) == len(losses) - 1:
            best = s
    return best, torch.stack(losses)
    ### END SOLUTION


# %% check="awq_scale"
check(awq_scale)

# %% tags=["payoff"]
exponents = [i / 10 for i in range(11)]
fig, ax = figure(width=8.5, height=3.4)
best_at = {}
for (part, layer), color, mark in zip(
    (("mlp.gate_proj", 10), ("mlp.down_proj", 10), ("mlp.down_proj", 29)), COLORS, "osD", strict=False
):
    inputs = seen[f"layers.{layer}.{part}"]
    matrix = model.model.layers[layer].get_submodule(part).weight.detach()
    _, losses = awq_scale(matrix.double(), inputs[1:300].double(), exponents)
    relative = 100 * (losses / losses[0]).sqrt()
    name = f"layer {layer}, {part.removeprefix('mlp.')}"
    best_at[name] = exponents[int(losses.argmin())], float(relative.min())
    ax.plot(exponents, relative, color=color, marker=mark, label=name)
ax.axhline(100, color="#444444", linestyle=":")
ax.set(xlabel="exponent α", ylabel="error of the output, %\n(100: plain rounding)", yscale="log")
ax.set_yticks([50, 70, 100, 200, 400], [50, 70, 100, 200, 400])
ax.minorticks_off()
ax.legend()
told = "; ".join(f"{name} {least:.0f} % at {alpha:g}" for name, (alpha, least) in best_at.items())
show(
    fig,
    alt=f"Error of three layers' outputs against AWQ's exponent, relative to plain rounding. Least: {told}.",
    title="Least error, of plain rounding's: " + "; ".join(f"{e:.0f} % (α = {a:g})" for a, e in best_at.values()),
)

# %% [markdown]
# ## "Common quantization methods: GPTQ, GGUF, AWQ"
#
# Do they help a whole model? Both methods looked at 2,304 tokens from the *other* half of Shakespeare's works (little:
# GPTQ's paper took 128 passages of 2,048). In the left panel the model reads Shakespeare, in the right one the manual,
# which the first six rows have not seen.
#
# **Before the run:** three methods are named. GPTQ and AWQ count as methods if perplexity at equal codes (groups of 64)
# is surely below plain rounding's on the text they were calibrated for. GGUF counts as one if all weights of our GGUF
# file are in one format. *Correct* with three, *imprecise* with one or two, *wrong* with none.

# %% claim="A05.15"
PLAIN, TEXTS = "int4, groups of 64", {"Shakespeare": slice(0, PLAYS), "the manual of Python": slice(PLAYS, None)}
SHOWN = {
    "nearest, a row": "int4, a row",
    "GPTQ, a row": "GPTQ int4, a row",
    "AWQ, a row": "AWQ int4, a row",
    "nearest, groups of 64": PLAIN,
    "GPTQ, groups of 64": "GPTQ int4, groups of 64",
    "AWQ, groups of 64": "AWQ int4, groups of 64",
    "GPTQ on the manual, 64": "GPTQ, the manual",
    "GPTQ on random tokens, 64": "GPTQ, random tokens",
}
fig, axes = figure(1, 2, width=10.5, height=3.9, sharey=True)
by_text = {}
for ax, (name, text) in zip(axes, TEXTS.items(), strict=True):
    for number, (label, arm) in enumerate(SHOWN.items()):
        by_text[label, name] = more(found, arm, text=text)
        color = COLORS[1] if "nearest" in label else COLORS[2] if "AWQ" in label else COLORS[0]
        logs = [a - b for a, b in zip(found.each(arm, "nats")[0][text], base[text], strict=True)]
        spread(ax, number, logs, color)
        row(ax, number, by_text[label, name], color)
    ax.axvline(0, color="#bbbbbb", linewidth=1)
    ax.set(xlabel="perplexity above fp32's, %", title=f"It reads {name}", xlim=(0, None))
axes[0].set_yticks(range(len(SHOWN)), SHOWN)
axes[0].invert_yaxis()
gained = {method: more(found, f"{method} {PLAIN}", PLAIN, TEXTS["Shakespeare"]) for method in ("GPTQ", "AWQ")}
elsewhere = {method: more(found, f"{method} {PLAIN}", PLAIN, TEXTS["the manual of Python"]) for method in gained}
formats = {
    tensor.tensor_type.name
    for tensor in tensors.values()
    if tensor.name.endswith("weight") and "norm" not in tensor.name
}
methods = [method for method, each in gained.items() if each.below(0)] + ["GGUF"] * (len(formats) == 1)
shakespeare_is, manual_is = (
    {way: by_text[f"{way}, groups of 64", name].mean for way in ("nearest", "GPTQ", "AWQ")} for name in TEXTS
)
show(
    fig,
    alt="Rise of perplexity on two texts by eight settings. "
    + "; ".join(f"{label}, {name}: {each.mean:+.0f} %" for (label, name), each in by_text.items())
    + ".",
    title="Groups of 64, nearest / GPTQ / AWQ: Shakespeare "
    + " / ".join(f"{value:+.0f}" for value in shakespeare_is.values())
    + " %, manual "
    + " / ".join(f"{value:+.0f}" for value in manual_is.values())
    + " %",
)
verdict(
    "A05.15",
    "correct" if len(methods) == 3 else "imprecise" if methods else "wrong",
    "Against plain rounding: "
    + "; ".join(
        f"{method} {each.text('+.0f')} % on the text it was calibrated for, {elsewhere[method].text('+.0f')} % "
        f"on the other"
        for method, each in gained.items()
    )
    + f". Formats of the weights in our GGUF file: {', '.join(sorted(formats))}"
    + (": it is a container." if len(formats) > 1 else "."),
)

# %% [markdown]
# Compare the two panels: what a method gains on the text that it was calibrated for need not be what it
# gains elsewhere. **Calibration text is training data.** Who quantizes a model for code should show it code, and judge
# it on what it was not shown.
#
# ## When the inputs are narrow, too
#
# So far only weights were narrow, and every product was computed in float32. To *compute* in 8 bits, the inputs have to
# be rounded as well, while the model runs. And inputs have outliers of which weights know nothing.

# %% tags=["demo"]
last = len(model.model.layers) - 1
x = seen[f"layers.{last}.mlp.down_proj"]
largest, middle = float(x.abs().max()), float(x.abs().median())
codes = {"int8": (x / (largest / 127)).round(), "e4m3": (x * (448 / largest)).to(torch.float8_e4m3fn).float()}
lost = {name: float((each == 0).float().mean()) for name, each in codes.items()}
fig, (left, right) = figure(1, 2, width=10.5, height=3.4, width_ratios=[1.4, 1])
channels = x.abs().amax(0).argsort(descending=True)[:60]
picture = left.imshow(x[:60, channels].abs().clamp(min=0.05).log10(), cmap=SEQUENTIAL, aspect="auto")
left.set(xlabel="the 60 channels with the largest inputs", ylabel="token", title=f"Size of the inputs, layer {last}")
bar = fig.colorbar(picture, ax=left, ticks=[-1, 0, 1, 2])
bar.ax.set_yticklabels(["0.1", "1", "10", "100"])
right.bar(list(lost), [100 * each for each in lost.values()], color=[COLORS[0], COLORS[1]])
right.set(ylabel="inputs that become 0, %", title="One scale for all", ylim=(0, 100))
show(
    fig,
    alt=f"Left: a map of input sizes by token and channel, with one input of {largest:.0f} where the median is "
    f"{middle:.2f}. Right: with one scale {lost['int8']:.0%} become 0 in int8, {lost['e4m3']:.1%} in e4m3.",
    title=f"One input is {largest:.0f}, the median {middle:.2f}: int8 makes {lost['int8']:.0%} of them 0, "
    f"e4m3 {lost['e4m3']:.1%}",
)

# %% [markdown]
# ## "FP8: the precision of FP16 and the speed of INT8"
#
# Now weights *and* inputs of all 210 matrices are rounded, and the model reads the same passages.
#
# On the Llama-3.1 models, of 8 to 405 billion parameters, Kurtic et al. (2024) call FP8 lossless. Ours is small, and
# 4-bit underneath.
#
# Of the speed: on paper an H100 does as many FP8 operations a second as INT8 ones, twice those of FP16. No such chip is
# here, so the precision alone is tested.
#
# **Before the run:** FP8 e4m3 with one scale a tensor. *Wrong* if perplexity surely rises by over 1 %, *correct* if it
# surely stays within 1 % of fp32's, else *unverifiable*. FP16 has to stay within 1 % as well, else the test is blunt.

# %% claim="A05.10"
from experiments.A05_10 import narrowed
from experiments.quantized import matrices

both = evidence("A05.10")
hooks = [
    layer.register_forward_pre_hook(lambda _, given: (narrowed(FORMATS["fp8, a tensor"], given[0]),))
    for _, layer in matrices(model)
]
here = nats_of(passages()[0])
for hook in hooks:
    hook.remove()
kept = both.each("fp8 inputs, one passage", "nats")[0][0]
told = "as kept" if abs(here - kept) < 0.05 else f"kept: {math.exp(kept):.2f}"
print(f"One passage read again here with inputs in FP8: perplexity {math.exp(here):.2f}; {told}")

ARMS = ["fp16", "bf16", "fp8, a row", "fp8, a tensor", "int8, a row", "int8, a tensor"]
risen = {arm: more(both, arm) for arm in ARMS}
fig, (left, right) = figure(1, 2, width=10.5, height=3.4, sharey=True)
for number, arm in enumerate(ARMS):
    color = COLORS[0] if "int8" in arm else COLORS[1] if "fp8" in arm else COLORS[2]
    logs = [a - b for a, b in zip(both.each(arm, "nats")[0], both.each("fp32", "nats")[0], strict=True)]
    spread(left, number, logs, color)
    row(left, number, risen[arm], color)
    right.barh(number, 100 * both.each(arm, "off")[0], color=color)
left.set_yticks(range(len(ARMS)), ARMS)
left.invert_yaxis()
left.axvline(1, color="#444444", linestyle=":")
left.set(xlabel="perplexity above fp32's, %")
left.set_xscale("symlog", linthresh=2)
left.set_xticks([-1, 0, 1, 10, 100], ["−1", "0", "1", "10", "100"])
right.set(xlabel="relative error of the inputs, %, mean over matrices", xscale="log")
fp8 = risen["fp8, a tensor"]
show(
    fig,
    alt="Rise of perplexity with weights and inputs narrow: "
    + ", ".join(f"{arm} {each.mean:+.1f} %" for arm, each in risen.items())
    + ". Right: the relative error of the inputs.",
    title=f"One scale a tensor: FP8 {fp8.mean:+.1f} %, int8 {risen['int8, a tensor'].mean:+.0f} %. A scale a token: "
    f"{risen['fp8, a row'].mean:+.1f} and {risen['int8, a row'].mean:+.1f} %",
)
verdict(
    "A05.10",
    "correct" if fp8.within(-1, 1) else "wrong" if fp8.above(1) else "unverifiable",
    f"Perplexity: FP8 {fp8.text('+.1f')} %, FP16 {risen['fp16'].text('+.2f')} %; int8 with one scale a tensor "
    f"{risen['int8, a tensor'].text('+.0f')} %, with one a token and row {risen['int8, a row'].text('+.1f')} %.",
)

# %% [markdown]
# Compare the two formats with one scale for all: which of them bears outliers? And mind whose verdict this is. It is a
# small model's, 4-bit underneath, where Kurtic et al. asked large ones.
#
# ## "FP8 combines the stability of FP16 with the speed of INT8"
#
# *Stability* is a word about training: are small gradients still there, and do large numbers fit? So one passage goes
# forward and back through the real model, and weights, inputs and gradients are cast as they are, without a scale.
#
# **Before the run:** a number is *lost* if it becomes 0 or lies beyond the type's largest. A type is as stable as FP16
# if it loses at most one point more, of each of the three. *Correct* if e4m3 or e5m2 is, *wrong* if neither is.

# %% claim="A02.6"
model.requires_grad_(False)  # only what is watched: less memory
watched = [model.model.layers[layer].mlp.gate_proj.weight.requires_grad_() for layer in (10, 20, 29)]
text = ids[:1, :64]
gradients = torch.autograd.grad(model(text, labels=text).loss, watched)
model.requires_grad_()
KINDS_OF = {
    "weights": torch.cat([w.detach().flatten() for w in watched]),
    "inputs": torch.cat([each[:256].flatten() for each in seen.values()]),
    "gradients": torch.cat([g.flatten() for g in gradients]),
}
TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "e5m2": torch.float8_e5m2, "e4m3": torch.float8_e4m3fn}


def losses_of(values, dtype):
    """The share of non-zero numbers that become 0, or are too large, in percent."""
    values = values[values != 0]
    gone = (values.to(dtype).float() == 0) | (values.abs() > torch.finfo(dtype).max)
    return 100 * float(gone.float().mean())


gone = {kind: {name: losses_of(values, dtype) for name, dtype in TYPES.items()} for kind, values in KINDS_OF.items()}
fig, ax = figure(width=9.5, height=3.6)
for (kind, values), color in zip(KINDS_OF.items(), COLORS, strict=False):
    sizes = values[values != 0].abs().log2()
    ax.hist(sizes, bins=120, range=(-28, 14), color=color, alpha=0.55, label=kind, density=True)
for number, (name, dtype) in enumerate(TYPES.items()):
    if name == "bf16":
        continue
    info = torch.finfo(dtype)
    low, high = math.log2(info.smallest_normal * info.eps / 2), math.log2(info.max)
    height = 0.21 + 0.02 * number
    ax.plot([low, high], [height, height], color="#444444", linewidth=4, solid_capstyle="butt")
    ax.text(low - 0.5, height, name, ha="right", va="center")
ax.set(xlabel="size of a number, as a power of 2 (bars: from what doesn't become 0 to the largest)", ylabel="density")
ax.legend(loc="upper left")
spoken = {name: gone["gradients"][name] for name in ("fp16", "e5m2", "e4m3")}
show(
    fig,
    alt="Histograms of the sizes of weights, inputs and gradients, with the ranges of fp16, e5m2 and e4m3. Lost "
    "without a "
    "scale: "
    + "; ".join(
        f"{kind} " + ", ".join(f"{name} {share:.1f} %" for name, share in of.items()) for kind, of in gone.items()
    )
    + ".",
    title="Gradients lost without a scale: " + ", ".join(f"{name} {share:.0f} %" for name, share in spoken.items()),
)
stable = [name for name in ("e4m3", "e5m2") if all(of[name] <= of["fp16"] + 1 for of in gone.values())]
verdict(
    "A02.6",
    "correct" if stable else "wrong",
    "Lost without a scale: "
    + "; ".join(
        f"{kind}: " + ", ".join(f"{name} {share:.1f} %" for name, share in of.items()) for kind, of in gone.items()
    )
    + ".",
)

# %% [markdown]
# That is why FP8 trains with scales, one for a tensor (NVIDIA's Transformer Engine) or a block (DeepSeek-V3): where a
# type loses numbers above, they have to bring it the stability. (FP16 itself trains with a scale for the loss.)
#
# ## Quantization in 2026
#
# * **Released narrow.** gpt-oss ships its experts in MXFP4, trained for it; Kimi K2 Thinking in INT4 by QAT;
#   DeepSeek-V3 was trained in FP8 with a scale for each 128 inputs and each 128 × 128 weights. For such models the
#   format is what they are, not what is done to them.
# * **Block scales in hardware.** Blackwell multiplies MXFP8, MXFP4 and NVFP4 with their scales.
# * **Outliers are rotated away** before rounding: QuaRot multiplies by Hadamard matrices, SpinQuant learns rotations.
#   Either spreads one large channel over all.
# * **The cache, too.** At long context keys and values can weigh more than the weights; 8 bits are common there, and 4
#   are to be had.
# * **Tools.** AutoGPTQ and AutoAWQ are retired: GPTQModel and llm-compressor took over; torchao is torch's own.
#
# ## What to remember
#
# * Bits alone say nothing: say bits, how many weights share a scale, who chose the codes, and what was narrow (weights,
#   inputs, cache).
# * A scale costs bits: groups of 32 with a float16 scale make 4.5, Q4_1 makes 5.
# * Weight-only quantization saves bytes, not operations. It is fast where memory is the limit.
# * GPTQ minimizes the output's error, not the weights'; AWQ makes important columns finer. Both learn from calibration
#   text.
# * Judge on text, with the spread over passages, and say what "fp32" was.
#
# **Sources.** Jacob et al. 2018, [arXiv:1712.05877](https://arxiv.org/abs/1712.05877) (scale and zero point); Bengio et
# al. 2013, [arXiv:1308.3432](https://arxiv.org/abs/1308.3432) (straight-through); Dettmers et al. 2022,
# [arXiv:2208.07339](https://arxiv.org/abs/2208.07339) (LLM.int8(), outliers); Frantar et al. 2022,
# [arXiv:2210.17323](https://arxiv.org/abs/2210.17323) (GPTQ); Lin et al. 2023,
# [arXiv:2306.00978](https://arxiv.org/abs/2306.00978) (AWQ); Dettmers et al. 2023,
# [arXiv:2305.14314](https://arxiv.org/abs/2305.14314) (NF4); Micikevicius et al. 2022,
# [arXiv:2209.05433](https://arxiv.org/abs/2209.05433) (FP8); Rouhani et al. 2023,
# [arXiv:2310.10537](https://arxiv.org/abs/2310.10537) (microscaling formats); Ashkboos et al. 2024,
# [arXiv:2404.00456](https://arxiv.org/abs/2404.00456) (QuaRot); Kurtic et al. 2024,
# [arXiv:2411.02355](https://arxiv.org/abs/2411.02355) (what each precision costs large models); the packages `gguf`
# (`quants.py`) and `transformers` (`integrations/mxfp4.py`), opened for this chapter; NVIDIA's documentation of
# Transformer Engine (FP8, MXFP8).
