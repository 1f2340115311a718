# ---
# jupyter:
#   course:
#     title: "Efficient attention"
#     exercises: transformer.efficient_attention
#     questions: [T07]
#     needs: [01_transformer/01_attention]
# ---

# %% [markdown]
# # Efficient attention
#
# Attention compares every token with every other. Twice the text, four times the comparisons: a book of 100,000 tokens
# needs ten billion of them, in every head of every layer. For years a new "efficient Transformer" appeared each month,
# and interview notes still list them side by side, as if they were all the same trick.
#
# They aren't. Some look at fewer pairs of tokens. Some mix tokens before they compare. Some replace the softmax by an
# estimate, some share keys between heads. And one changes nothing in the result at all: it only needs less memory for
# the very same numbers. You build one of each, measure what it saves, and see what it gives up.

# %% tags=["setup"]
import contextlib
import math
import time

import torch
import torch.nn.functional as F
from torch import nn

from autograde import check
from labkit import COLORS, SEQUENTIAL, figure, give_back, interval, record_memory, shakespeare, show, smollm, verdict

# %% [markdown]
# ## What n² costs
#
# First the bill. One head of width 64, without any trick, on texts that get longer. Left the time; right the memory:
# the most bytes that all tensors on the way hold at once. Both axes are logarithmic, so a straight line is a power law,
# and its slope is the exponent. (Where time grows faster than the square, think of the system: a freed tensor of more
# than 32 MB the C library of Linux hands back at once, and the next one is fetched anew, page by page.)

# %% tags=["demo"]
WIDTH = 64


def head(n, seed=0):
    """Random queries, keys and values for one head: three tensors [1, n, WIDTH]."""
    return torch.randn(3, 1, n, WIDTH, generator=torch.Generator().manual_seed(seed)).unbind()


def full_attention(q, k, v, mask=None):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1) @ v


def measured(attend, n, runs=3):
    """Seconds (the best of some runs) and peak bytes of `attend(q, k, v)` on a text of n tokens."""
    inputs, seconds = head(n), []
    with torch.inference_mode():
        for _ in range(runs):
            start = time.perf_counter()
            attend(*inputs)
            seconds.append(time.perf_counter() - start)
        with record_memory() as memory:
            attend(*inputs)
    return min(seconds), memory.peak


def slope(ns, values):
    """The exponent of the power law between the last two points."""
    return math.log(values[-1] / values[-2]) / math.log(ns[-1] / ns[-2])


LENGTHS = [256, 512, 1024, 2048, 4096]
bill = [measured(full_attention, n) for n in LENGTHS]
fig, axes = figure(1, 2, width=9.4, height=3.4)
for ax, which, unit, label in ((axes[0], 0, 1e3, "time (ms)"), (axes[1], 1, 1e-6, "memory at once (MB)")):
    values = [point[which] * unit for point in bill]
    ax.loglog(LENGTHS, values, marker="o", color=COLORS[which])
    ax.set(xlabel="tokens n", ylabel=label)
    ax.set_xticks(LENGTHS, [f"{n:,}" for n in LENGTHS])
    ax.minorticks_off()
growth = [slope(LENGTHS, [point[which] for point in bill]) for which in range(2)]
show(
    fig,
    alt="Time and memory of plain attention against the number of tokens, both on logarithmic axes. At the end the "
    f"lines have slopes of {growth[0]:.1f} and {growth[1]:.1f}.",
    title=f"Between 2,048 and 4,096 tokens: time grows like n^{growth[0]:.1f}, memory like n^{growth[1]:.1f}",
)

# %% [markdown]
# ## Look at fewer pairs
#
# The simplest cure: a token looks only at its neighbors. With a window of $w$ there are about $n\,w$ pairs instead
# of $n^2$. Longformer (Beltagy et al. 2020, arXiv:2004.05150) reads long documents so, the first Mistral 7B
# (arXiv:2310.06825) wrote so, with $w = 4096$.
#
# A window is a mask. Two details are easy to miss: does the window count the token itself, and where does a new token
# stand when the ones before it are in a cache? Here it counts itself, as in transformers, so $w = 1$ is the narrowest.
# (Where transformers looks both ways, as in ModernBERT, `sliding_window` reaches one token further on each side;
# Longformer's $w$ is both sides together.)

# %% exercise="sliding_window_mask"
def sliding_window_mask(n, window, causal=True, past=0):
    """The mask of sliding-window attention.

    n:      number of new tokens (queries), an int of at least 1
    window: how many keys a query sees at most when it looks back, itself counted: those at a
            distance below `window`. An int of at least 1; any smaller one is a ValueError
    causal: True: a query sees no key after it. False: it sees as far ahead as it sees back, at
            a distance below `window` on either side
    past:   number of keys in the cache, which stand before the new tokens; query i stands at
            place past + i. The window holds for them as well
    Returns a bool tensor [n, past + n]; True where query (row) i may attend to key (column) j.

    Beltagy et al. 2020, arXiv:2004.05150, section 3.1, whose window is both sides together;
    looking back as transformers' sliding_window counts.
    """
    ### BEGIN SOLUTION
    if window < 1:
        raise ValueError(f"A window of {window} would hide the token itself: give at least 1.")
    distance = torch.arange(past, past + n)[:, None] - torch.arange(past + n)
    return (distance < window) & (distance >= 0 if causal else distance > -window)
    ### END SOLUTION


# %% check="sliding_window_mask"
check(sliding_window_mask)

# %% [markdown]
# A narrow window isn't the end of long texts. Layer 2 sees what its neighbors saw in layer 1, and so on: after $L$
# layers a token can have heard from $L\,(w-1)$ tokens back. Multiply your mask with itself and look.

# %% tags=["payoff"]
PLACES, WINDOW = 32, 5
step = sliding_window_mask(PLACES, WINDOW)
reach, reached = step.float(), [step]
for _ in range(3):
    reach = ((reach @ step.float()) > 0).float()
    reached.append(reach.bool())
back = [int((PLACES - 1) - row[-1].int().argmax()) for row in reached]
fig, axes = figure(1, 4, width=10.2, height=3.6, sharey=True)
for layers, (ax, seen) in enumerate(zip(axes, reached, strict=True), 1):
    ax.imshow(seen, cmap=SEQUENTIAL)
    ax.set(title=f"{layers} layer{'s' * (layers > 1)}", xlabel="hears from token")
axes[0].set_ylabel("token")
show(
    fig,
    alt="Four square maps of who can have heard from whom after one to four layers with the same window. The band ends "
    + ", ".join(map(str, back)) + " tokens below the diagonal.",
    title=f"Window {WINDOW}: the last token hears from " + ", ".join(map(str, back)) + " tokens back",
)

# %% [markdown]
# ## Does a mask save work?
#
# "Restrict attention to a few nearby tokens, to reduce the amount of computation." Do masks do that? We count the
# operations of three ways, in the products of matrices: no mask; a mask of window 128; and the text cut into blocks of
# 128, where each block only ever meets itself and the one before.
#
# **Before the run:** a way *saves* if it does under half of the operations of all pairs. *Correct* if the blocks save
# and give what the mask gives, to 0.0001; *wrong* if not. What the mask does is shown beside them. (That both have to
# agree was put in after a run.)

# %% claim="T07.1"
from torch.utils.flop_counter import FlopCounterMode

W, N = 128, 2048


def in_blocks(q, k, v, w=W):
    """Causal attention with a window of w, block by block: a block of w queries meets 2w keys."""
    q, k, v = (x.unflatten(-2, (-1, w)) for x in (q, k, v))
    two = [torch.cat([F.pad(x, (0, 0, 0, 0, 1, 0))[..., :-1, :, :], x], -2) for x in (k, v)]
    distance = torch.arange(w, 2 * w)[:, None] - torch.arange(2 * w)
    allowed = ((distance >= 0) & (distance < w)).expand(q.shape[-3], w, 2 * w).clone()
    allowed[0, :, :w] = False  # the first block has none before it
    return full_attention(q, *two, allowed).flatten(-3, -2)


apart = torch.arange(N)[:, None] - torch.arange(N)
band = (apart >= 0) & (apart < W)
WAYS = {
    "all pairs": full_attention,
    f"mask, window {W}": lambda q, k, v: full_attention(q, k, v, band),
    f"blocks, window {W}": in_blocks,
}
inputs, work, times = head(N), {}, {}
for name, attend in WAYS.items():
    with FlopCounterMode(display=False) as counter:
        attend(*inputs)
    work[name], times[name] = counter.get_total_flops() / 1e9, 1e3 * measured(attend, N)[0]
masked, blocked = (WAYS[name](*inputs) for name in list(WAYS)[1:])
fig, (left, right) = figure(1, 2, width=9.8, height=2.6, sharey=True)
for ax, values, label, color in ((left, work, "work (billion operations)", COLORS[0]),
                                 (right, times, "time (ms)", COLORS[1])):
    ax.bar_label(ax.barh(list(values), list(values.values()), color=color), fmt="%.2f", padding=3)
    ax.set(xlabel=label, xlim=(0, 1.2 * max(values.values())))
left.invert_yaxis()
show(
    fig,
    alt="Bars, billion operations and ms: "
    + ", ".join(f"{name} {work[name]:.2f} and {times[name]:.1f}" for name in WAYS) + ".",
    title=f"The mask does {work[f'mask, window {W}'] / work['all pairs']:.0%} of the work, "
    f"blocks do {work[f'blocks, window {W}'] / work['all pairs']:.0%}",
)
differ = float((masked - blocked).abs().max())
print(f"mask and blocks agree to {differ:.0e}")
saved = {name: work[name] < 0.5 * work["all pairs"] for name in WAYS}
verdict(
    "T07.1",
    "correct" if saved[f"blocks, window {W}"] and differ < 1e-4 else "wrong",
    f"For {N:,} tokens and a window of {W} blocks do {work[f'blocks, window {W}'] / work['all pairs']:.0%} of the "
    "work, a mask "
    f"{work[f'mask, window {W}'] / work['all pairs']:.0%}.",
)

# %% [markdown]
# The window is a promise, and the **kernel**, the program that does the arithmetic on the processor, has to keep it: a
# mask on finished scores hides what has been paid for. (A kernel that reads the mask first can skip whole blocks.)
#
# ## Pairs or heads?
#
# "Sparse attention limits the attention *heads* that are computed." By definition these are two different knives.
# Sparse attention (Child et al. 2019, arXiv:1904.10509) leaves out *pairs of tokens* in every head; leaving out *heads*
# is called head pruning (Michel et al. 2019, arXiv:1905.10650).
#
# Do they also *act* differently? We cut a real model both ways, without any training afterwards, and like for like: a
# share chosen by chance, and a share chosen as one would. For pairs we take the far ones, as windows do: that they are
# used least is a guess. For heads we ask the gradient, as Michel et al. do: how much would the loss change if the head
# spoke a little less? It is asked on one passage and the cut is tried on another.
#
# The claim itself is settled by counting: *wrong* if under a sparse mask every head of the model still speaks,
# *correct* if heads fall silent. (By the formula none can: a token sees itself at least. Could the count see silence?
# It is tried on the model without a third of its heads.)

# %% claim="T07.3"
model, tokenizer = smollm()
passages = tokenizer(shakespeare()[20_000:24_000], return_tensors="pt").input_ids
ids, other = passages[:, :192], passages[:, 400:592]
n, heads, layers = ids.shape[1], model.config.num_attention_heads, len(model.model.layers)
distance = torch.arange(n)[:, None] - torch.arange(n)
causal = distance >= 0


def loss_with(mask=causal):
    """The real model's loss on the text, in nats a token, with the same mask in every head."""
    with torch.inference_mode():
        logits = model(ids, attention_mask=mask[None, None]).logits[0, :-1]
    return F.cross_entropy(logits.float(), ids[0, 1:]).item()


@contextlib.contextmanager
def spoken_through(change):
    """Inside, change(layer, spoken) is what the heads [1, n, heads, d] of a layer say."""
    hooks = []
    for i, layer in enumerate(model.model.layers):

        def hook(module, given, i=i):
            return (change(i, given[0].unflatten(-1, (heads, -1))).flatten(-2),)

        hooks.append(layer.self_attn.o_proj.register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def importance(part):
    """How much the loss on a part of the other passage would change if a head spoke less, [layers, heads]."""
    gates = torch.ones(layers, part.shape[1], heads, requires_grad=True)
    with spoken_through(lambda i, spoken: spoken * gates[i, :, :, None]):
        logits = model(part).logits[0, :-1]
        return torch.autograd.grad(F.cross_entropy(logits.float(), part[0, 1:]), gates)[0].abs().mean(1)


def without_heads(keep):
    """The loss with the heads alone that are kept, bool [layers, heads]."""
    with spoken_through(lambda i, spoken: spoken * keep[i, :, None]):
        return loss_with()


used = sum(importance(part) for part in other.chunk(4, 1)).flatten()  # in four parts: a quarter of the memory
g = torch.Generator().manual_seed(0)
whole, cuts = loss_with(), {}
for share in (1 / 9, 1 / 3):
    for _ in range(4):
        keep = torch.rand(layers * heads, generator=g).argsort() >= round(share * layers * heads)
        cuts.setdefault("heads, by chance", []).append((share, without_heads(keep.view(layers, heads)) - whole))
        mask = causal & ((torch.rand(n, n, generator=g) > share) | (distance == 0))
        cuts.setdefault("pairs, by chance", []).append((share, loss_with(mask) - whole))
    keep = used.argsort().argsort() >= round(share * len(used))
    cuts.setdefault("heads, the least important", []).append((share, without_heads(keep.view(layers, heads)) - whole))


def kept_for_all(token):
    return causal & (torch.arange(n) == token)


for window in (128, 80, 48, 16):
    near = causal & (distance < window)
    for name, mask in (("the farthest pairs", near), ("the same, first token kept", near | kept_for_all(0))):
        cuts.setdefault(name, []).append((1 - float(mask.sum() / causal.sum()), loss_with(mask) - whole))
no_first, of_48 = causal & ~(kept_for_all(0) & (distance > 0)), causal & (distance < 48)
others = {"token 24 kept instead": of_48 | kept_for_all(24), "no window, the first alone hidden": no_first,
          "the first hidden, the second kept": no_first & (of_48 | kept_for_all(1))}
others = {name: loss_with(mask) - whole for name, mask in others.items()}
fig, ax = figure(width=9.4, height=3.8)
for (name, points), color, marker in zip(cuts.items(), COLORS, "xosD^", strict=False):
    style = "none" if "chance" in name else "-"
    ax.plot(*zip(*points, strict=True), color=color, marker=marker, linestyle=style, label=name)
ax.axhline(0, color="#777777", linestyle=":")
ax.set(xlabel="share that is left out", ylabel="extra loss (nats a token)", xlim=(0, 1))
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
third = {name: [extra for share, extra in points if share == 1 / 3] for name, points in cuts.items()}
by_chance = {what: interval(third[f"{what}, by chance"]) for what in ("heads", "pairs")}


def speaking(mask, keep):
    """How many heads say anything under a mask, of those that are kept, bool [layers, heads]."""
    counts = []

    def count(i, spoken):
        spoken = spoken * keep[i, :, None]
        counts.append(int(spoken.abs().amax((0, 1, 3)).gt(0).sum()))
        return spoken

    with spoken_through(count):
        loss_with(mask)
    return sum(counts)


speak = speaking(near, torch.ones(layers, heads, dtype=torch.bool))
print(f"control: with {int((~keep).sum())} of {layers * heads} heads cut the count finds "
      f"{speaking(causal, keep.view(layers, heads))} that speak")
least = third["heads, the least important"][0]
(gone, far), (_, sunk) = cuts["the farthest pairs"][2], cuts["the same, first token kept"][2]
show(
    fig,
    alt="Extra loss of a real model against the share that is left out, in nats. A third by chance, 95 %: of the heads "
    f"{by_chance['heads'].text('.1f')}, of the pairs {by_chance['pairs'].text('.1f')}; of the heads by importance "
    f"{least:+.2f}; the farthest {gone:.0%} of the pairs {far:+.2f}, with the first token kept {sunk:+.2f} nats.",
    title=f"A third by chance (95 %): heads {by_chance['heads'].text('.1f')}, pairs {by_chance['pairs'].text('.1f')} "
    f"nats. Least important heads {least:+.2f}.\nThe farthest {gone:.0%} of the pairs: {far:+.2f}, {sunk:+.2f} if the "
    "first token stays",
)
print(f"window of 48: {far:+.2f} nats; the first kept {sunk:+.2f}; "
      + "; ".join(f"{name} {extra:+.2f}" for name, extra in others.items()))
verdict(
    "T07.3",
    "wrong" if speak == layers * heads else "correct",
    f"With {1 - float(near.sum() / causal.sum()):.0%} of the pairs left out {speak} of {layers * heads} heads speak. A "
    f"third cut by chance costs {by_chance['heads'].text('.1f')} nats for heads, {by_chance['pairs'].text('.1f')} for "
    "pairs.",
)
give_back()  # the scores of so many damaged models

# %% [markdown]
# Compare the last two numbers of the title: what is one token worth, the first, to those whose window doesn't reach it?
# Xiao et al. (2023, arXiv:2309.17453) named it the **attention sink**, and this is their account: heads park attention
# on it that they have no use for, and where it is out of sight, the softmax has to spend that elsewhere. Must it be the
# first? The printed line tries another one; hides the first alone; and hides the first and keeps the second, which then
# has nobody but itself to look at, as the first had. gpt-oss, with windows of 128 tokens in every second layer, gives
# each head a learned logit for it instead.
#
# ## Fewer keys: heads that share
#
# While a model writes, it keeps the keys and values of every token it has seen: the **KV cache**. Per token that is
#
# $$2 \cdot \text{layers} \cdot h_{kv} \cdot d_h \cdot \text{bytes},$$
#
# and it grows with the text, while the weights don't. Grouped-query attention (Ainslie et al. 2023,
# arXiv:2305.13245) lets a *group* of query heads share one head of keys and values. With one key head for all it is
# called multi-query attention (Shazeer 2019, arXiv:1911.02150). SmolLM2 has 9 query heads and 3 key heads.

# %% exercise="grouped_query_attention"
def grouped_query_attention(q, k, v, mask=None):
    """Attention in which groups of query heads share a head of keys and values.

    q:    floating-point tensor [..., heads, n, d], with any number of batch dimensions in front
    k:    [..., kv_heads, m, d]. v: [..., kv_heads, m, d_v]. Both of the dtype of q
    mask: None, or a bool tensor that broadcasts to [..., heads, n, m]; True: the query may
          attend to the key, and False hides it, however low the other scores are
    Query head h listens to key head h // (heads / kv_heads): the first group of query heads
    shares key head 0, the next group key head 1, and so on. Scores are divided by sqrt(d). A
    query that may see nothing gets zeros.
    Raises ValueError where heads isn't a multiple of kv_heads.
    Returns a tensor [..., heads, n, d_v] of the dtype of q. Nothing is changed in place, and
    gradients flow to q, k and v.

    Ainslie et al. 2023, arXiv:2305.13245, section 2.2.
    """
    ### BEGIN SOLUTION
    heads, kv_heads = q.shape[-3], k.shape[-3]
    if heads % kv_heads:
        raise ValueError(f"{heads} query heads can't share {kv_heads} key heads evenly.")
    k, v = (x.repeat_interleave(heads // kv_heads, dim=-3) for x in (k, v))
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(-1)
    if mask is not None:
        weights = weights.masked_fill(~mask, 0.0)
    return weights @ v
    ### END SOLUTION


# %% check="grouped_query_attention"
check(grouped_query_attention)

# %% [markdown]
# Your function in every layer of the real model: are the logits the same? And the cache that the model really fills,
# beside what it would need with a key head for every query head, or with a single one.

# %% tags=["payoff"]
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.masking_utils import sdpa_mask


def grouped(module, query, key, value, attention_mask, **_):
    if attention_mask is None:  # the library leaves it out where causal is enough
        attention_mask = torch.ones(query.shape[2], key.shape[2]).tril(key.shape[2] - query.shape[2]).bool()
    return grouped_query_attention(query, key, value, attention_mask).transpose(1, 2), None


grouped_query_attention(torch.ones(2, 1, 2), torch.ones(1, 1, 2), torch.ones(1, 1, 2))
AttentionInterface.register("grouped", grouped)
AttentionMaskInterface.register("grouped", sdpa_mask)
cache = DynamicCache()
with torch.inference_mode():
    theirs = model(ids[:, :64], past_key_values=cache).logits
    usual = model.config._attn_implementation
    model.set_attn_implementation("grouped")
    try:
        mine = model(ids[:, :64]).logits
    finally:
        model.set_attn_implementation(usual)
print(f"largest difference of a logit: {(mine - theirs).abs().max():.0e}, of logits up to {theirs.max():.0f}")
assert (mine - theirs).abs().max() < 1e-2, "These are not the model's own logits: solve the exercise first."

stored = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers) / 64
context, own = model.config.max_position_embeddings, model.config.num_key_value_heads
KINDS = {f"{heads} key heads (ordinary)": heads, f"{own} key heads (this model)": own, "1 key head (multi-query)": 1}
sizes = {kind: stored / own * number * context / 1e6 for kind, number in KINDS.items()}
weights = sum(p.nbytes for p in model.parameters()) / 1e6
fig, ax = figure(width=8.8, height=2.6)
bars = ax.barh(list(sizes), list(sizes.values()), color=[COLORS[5], COLORS[0], COLORS[5]])
ax.bar_label(bars, fmt="%.0f MB", padding=3)
ax.axvline(weights, color="black", linestyle=":")
ax.text(weights, 2.55, " weights", fontsize=9, va="bottom")
ax.set(xlabel=f"KV cache of one text of {context:,} tokens, float32 (MB)", xlim=(0, 1.2 * max(sizes.values())))
ax.invert_yaxis()
show(
    fig,
    alt="Bars of the KV cache in MB: " + ", ".join(f"{kind} {size:.0f}" for kind, size in sizes.items())
    + f". A line at the model's weights, {weights:.0f}.",
    title=f"Measured: {stored / 1e3:.0f} kB a token, {own / heads:.0%} of what {heads} key heads would need",
)
give_back(model)  # it rests while a layer of another model is looked at

# %% [markdown]
# Compare the bars with the dotted line: how many full contexts would outweigh the model itself? To keep that bill low
# nearly every recent model shares its key heads, or makes them all from one short vector.
#
# ## One short vector a token: MLA
#
# **Multi-head latent attention** (DeepSeek-V2, arXiv:2405.04434, section 2.1) caches for each token $j$ one **latent**
# vector $c_j$, from which every head makes its own key $W^K_h c_j$ and value $W^V_h c_j$. Unlike with grouped queries,
# no two heads have the same keys. But must all keys be made anew for every token that is written? No: the matrix can
# change sides,
#
# $$q_h \cdot (W^K_h c_j) = (W^{K\top}_h q_h) \cdot c_j, \qquad \sum_j a_j W^V_h c_j = W^V_h \sum_j a_j c_j ,$$
#
# and then it is applied once a query instead of once for each token in the cache: it is **absorbed**.
#
# RoPE is in the way. It puts a rotation between $q$ and $W^K$, a different one for each distance, so that nothing can
# be absorbed. So positions get a small part of their own (**decoupled RoPE**): $r$ numbers of each query and *one*
# rotated key of $r$ numbers a token, shared by all heads, whose product is added to the score.

# %% exercise="latent_attention"
def latent_attention(q, q_rope, latent, k_rope, w_k, w_v, mask=None):
    """Multi-head latent attention from its cache: no head's keys or values are ever made.

    q:      floating-point tensor [..., heads, n, d]: the part of the queries without positions,
            with any number of batch dimensions in front
    q_rope: [..., heads, n, r]: the part that knows positions; it is rotated already
    latent: [..., m, c]: the latent vector of each token in the cache, for all heads
    k_rope: [..., m, r]: the rotated part of the key of each token, for all heads
    w_k:    [heads, d, c]: head h's key of token j is w_k[h] @ latent[j], d wide, and behind it
            k_rope[j], r wide
    w_v:    [heads, d_v, c]: head h's value of token j is w_v[h] @ latent[j]
            All six are of one dtype
    mask:   None, or a bool tensor that broadcasts to [..., heads, n, m]; True: the query may
            attend to the token, and False hides it, however low the other scores are. Every
            query may attend to at least one token
    Scores are [q, q_rope] · key / sqrt(d + r), and the softmax runs over the m tokens. On the
    way there is no tensor of m * d or m * d_v numbers, the size of one head's keys or values:
    w_k is applied to the queries, w_v to what the weights have mixed.
    Returns a tensor [..., heads, n, d_v] of the dtype of q. Nothing is changed in place, and
    gradients flow to all six.

    DeepSeek-AI 2024, arXiv:2405.04434, section 2.1.
    """
    ### BEGIN SOLUTION
    keys = latent.unsqueeze(-3)  # one head, for all
    scores = q @ w_k @ keys.mT + q_rope @ k_rope.unsqueeze(-3).mT
    scores = scores / math.sqrt(q.shape[-1] + q_rope.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ keys @ w_v.mT
    ### END SOLUTION


# %% check="latent_attention"
check(latent_attention)

# %% [markdown]
# The real thing: the library's `DeepseekV3Attention`, with the sizes of DeepSeek-V2-Lite and weights drawn by chance.
# It caches latents, but then makes all keys and values from them. We put your function in its place (the layer's own
# projections, rotation and cache stay) and let both write one more token, after caches of different lengths. The left
# picture is arithmetic, for the sizes of DeepSeek-V3.

# %% tags=["payoff"]
from torch.utils.flop_counter import FlopCounterMode
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3RotaryEmbedding

V3 = DeepseekV3Config()  # the defaults are DeepSeek-V3's
LITE = DeepseekV3Config(hidden_size=2048, num_attention_heads=16, num_key_value_heads=16, q_lora_rank=None,
                        num_hidden_layers=1, attn_implementation="eager")
D_KEY, D_ROPE, D_VALUE = LITE.qk_nope_head_dim, LITE.qk_rope_head_dim, LITE.v_head_dim


def from_latents(module, query, rope, latent, attention_mask, **_):
    """Your function, with the layer's own matrices."""
    w_k, w_v = module.kv_b_proj.weight.unflatten(0, (module.num_heads, -1)).split([D_KEY, D_VALUE], 1)
    q, q_rope = query.split([D_KEY, D_ROPE], -1)
    return latent_attention(q, q_rope, latent[:, 0], rope[:, 0], w_k, w_v, attention_mask).transpose(1, 2), None


AttentionInterface.register("latent", from_latents)
torch.manual_seed(0)
deepseek, clock = DeepseekV3Attention(LITE, 0).requires_grad_(False), DeepseekV3RotaryEmbedding(LITE)
text = torch.randn(1, 2049, LITE.hidden_size)


def written(past, new, absorb):
    """What the layer says of `new` tokens after `past` ones: result, cached bytes a token, operations, peak bytes."""
    cache = DynamicCache()
    cache.update(torch.randn(1, 1, past, LITE.kv_lora_rank, generator=torch.Generator().manual_seed(1)),
                 torch.randn(1, 1, past, D_ROPE, generator=torch.Generator().manual_seed(2)), 0)
    LITE._attn_implementation = "latent" if absorb else "eager"
    if absorb:
        deepseek.expand_kv = lambda latent, rope: (rope, latent)  # expands nothing
    try:
        x, places = text[:, past : past + new], torch.arange(past, past + new)[None]
        with FlopCounterMode(display=False) as counter, record_memory() as memory:
            out, _ = deepseek(x, clock(x, places), None, cache)
    finally:
        vars(deepseek).pop("expand_kv", None)
    stored = (cache.layers[0].keys.nbytes + cache.layers[0].values.nbytes) / (past + new)
    return out, stored, counter.get_total_flops(), memory.peak


PASTS = [128, 512, 2048]
expanded, yours = ([written(past, 1, absorb) for past in PASTS] for absorb in (False, True))
apart = max(float((a[0] - b[0]).abs().max()) for a, b in zip(expanded, yours, strict=True))
print(f"largest difference from the library's layer: {apart:.0e}, of numbers up to {expanded[0][0].abs().max():.2f}")
assert apart < 1e-4, "This isn't the layer's own result: solve the exercise first."
own_keys = LITE.num_attention_heads * (D_KEY + D_ROPE + D_VALUE)
print(f"cached: {yours[0][1]:.0f} bytes a token in float32, {yours[0][1] / 4:.0f} numbers for "
      f"{LITE.num_attention_heads} heads; with their own keys and values {own_keys:,}")
whole = [written(0, 512, absorb)[2] for absorb in (False, True)]
print(f"a text of 512 tokens read at once: absorbed {whole[1] / whole[0]:.2f} times the work of making keys and values")
print(f"multiplications per pair of tokens and head: absorbed {2 * LITE.kv_lora_rank + D_ROPE:,}, with keys and values "
      f"made {D_KEY + D_ROPE + D_VALUE:,}")

numbers = {"128 key heads (ordinary)": 128 * (V3.qk_nope_head_dim + V3.qk_rope_head_dim + V3.v_head_dim),
           "8 key heads of 128": 8 * 2 * 128, "1 key head of 128": 2 * 128,
           "latent and rotated part": V3.kv_lora_rank + V3.qk_rope_head_dim}
kilobytes = {kind: 2 * V3.num_hidden_layers * count / 1e3 for kind, count in numbers.items()}
fig, (left, right) = figure(1, 2, width=10.6, height=3.4, width_ratios=[1.2, 1])
left.bar_label(left.barh(list(kilobytes), list(kilobytes.values()), color=[COLORS[5]] * 3 + [COLORS[0]]), fmt="%.0f",
               padding=3)
left.set(xscale="log", xlabel=f"cache, kB a token ({V3.num_hidden_layers} layers, bfloat16)", xlim=(10, 40_000))
left.invert_yaxis()
sides = ((expanded, "keys and values made", COLORS[1], "s"), (yours, "absorbed (yours)", COLORS[0], "o"))
for points, name, color, marker in sides:
    right.loglog(PASTS, [point[2] / 1e6 for point in points], color=color, marker=marker, label=name)
right.set(xlabel="tokens in the cache", ylabel="work for one new token\n(million operations)")
right.set_xticks(PASTS, [f"{past:,}" for past in PASTS])
right.minorticks_off()
right.legend()
less_work, less_memory = (expanded[-1][i] / yours[-1][i] for i in (2, 3))
saving = kilobytes["latent and rotated part"] / kilobytes["128 key heads (ordinary)"]
show(
    fig,
    alt="Left, kB of cache a token for DeepSeek-V3's sizes: "
    + ", ".join(f"{kind} {size:.0f}" for kind, size in kilobytes.items())
    + f". Right: operations for one new token against the tokens in the cache; at {PASTS[-1]:,} "
    f"{expanded[-1][2] / 1e6:.0f} million if keys and values are made, {yours[-1][2] / 1e6:.0f} million absorbed.",
    title=f"The cache is {saving:.1%} of an ordinary one. After {PASTS[-1]:,} tokens, absorbed: 1/{less_work:.0f} of "
    f"the work, 1/{less_memory:.0f} of the memory",
)
deepseek = text = None  # memory for what follows

# %% [markdown]
# Absorbing pays when few queries meet many cached tokens. Per pair of tokens and head it even costs *more*: products of
# width $c + r$ and $c$ instead of $d + r$ and $d_v$ (the last printed line). So serving engines absorb while they
# write, and make keys and values while they read the prompt: see the line above it. (With fewer bytes to load and more
# work on each, decoding also comes nearer to what a GPU is good at; see the chapter on serving.)
#
# ## The same numbers, one block at a time
#
# To see all pairs you needn't hold all scores. The softmax of a row needs its largest score and a sum. Both can be
# found *while the keys stream by*. Say that the keys so far had the largest score $m$, with
#
# $$\ell = \sum_j e^{s_j - m}, \qquad o = \sum_j e^{s_j - m}\, v_j .$$
#
# Now comes a block with a larger score, $m' > m$. Both sums were taken against the wrong maximum, but that is easy to
# mend: multiply them by $e^{m - m'}$ and go on. At the end, $o/\ell$ is the attention, exactly. This is the **online
# softmax** (Milakov, Gimelshein 2018, arXiv:1805.02867), and the heart of FlashAttention (Dao et al. 2022,
# arXiv:2205.14135).

# %% exercise="online_softmax_attention"
def online_softmax_attention(q, blocks):
    """Exact attention over keys and values that come in blocks, each of which is seen once.

    q:      floating-point tensor [..., n, d], with any number of leading (batch) dimensions
    blocks: an iterable of pairs (k, v), k [..., b, d] and v [..., b, d_v] of the dtype of q.
            There is at least one block; b is at least 1 and may differ from block to block. It
            can be gone through only once, has no length, and holds more than fits into memory:
            what you keep must not grow with the number of blocks
    Returns softmax(q K^T / sqrt(d)) V over the keys K and values V of all blocks,
    [..., n, d_v], of the dtype of q. Gradients flow to q and to all keys and values.
    Scores may be large or far below zero (ten thousand), of all queries or of one: nothing
    overflows, and no row turns into 0/0.

    Milakov, Gimelshein 2018, arXiv:1805.02867, algorithm 3; Dao et al. 2022, arXiv:2205.14135,
    section 3.1.
    """
    ### BEGIN SOLUTION
    largest = torch.full((*q.shape[:-1], 1), -torch.inf, dtype=q.dtype)
    total, out = 0.0, 0.0
    for k, v in blocks:
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        new = torch.maximum(largest, scores.amax(-1, keepdim=True))
        weights, keep = torch.exp(scores - new), torch.exp(largest - new)
        total = total * keep + weights.sum(-1, keepdim=True)
        out = out * keep + weights @ v
        largest = new
    return out / total
    ### END SOLUTION


# %% check="online_softmax_attention"
check(online_softmax_attention)

# %% [markdown]
# Cut the keys *and* the queries into blocks, and no piece ever holds more than one block of scores. The work stays
# the same. FlashAttention's kernel is faster as well, since on a GPU the scores then never leave the small fast memory
# of the chip (Dao et al. 2022); here we look at memory alone.

# %% tags=["payoff"]
def tiled(q, k, v, size=256):
    """Your attention, in tiles of size × size."""
    def stream():
        return zip(k.split(size, -2), v.split(size, -2), strict=True)

    return torch.cat([online_softmax_attention(part, stream()) for part in q.split(size, -2)], -2)


exact, own = full_attention(*head(4096)), tiled(*head(4096))
apart = float((exact - own).abs().max())
tiles = [measured(tiled, n, runs=1) for n in LENGTHS]
fig, ax = figure(width=8, height=3.6)
pair = ((bill, "all scores at once", COLORS[1], "--"), (tiles, "yours, in tiles", COLORS[0], "-"))
for points, name, color, style in pair:
    ax.loglog(LENGTHS, [peak / 1e6 for _, peak in points], color=color, linestyle=style, marker="o", label=name)
ax.set(xlabel="tokens n", ylabel="memory at once (MB)")
ax.set_xticks(LENGTHS, [f"{n:,}" for n in LENGTHS])
ax.minorticks_off()
ax.legend()
show(
    fig,
    alt=f"Memory of attention against the number of tokens; at the end {bill[-1][1] / 1e6:.0f} MB with all scores at "
    "once, "
    f"{tiles[-1][1] / 1e6:.0f} MB in tiles.",
    title=f"At 4,096 tokens: the same numbers to {apart:.0e}, in 1/{bill[-1][1] / tiles[-1][1]:.0f} of the memory",
)

# %% [markdown]
# And backwards? There the weights are needed once more. FlashAttention hasn't kept them: it keeps $m$ and $\ell$ of
# each query (since its second version one number, the logarithm of the softmax's denominator; Dao 2023,
# arXiv:2307.08691) and computes tile after tile anew. That is more arithmetic and less traffic, and on a GPU the
# traffic was what one waited for (Dao et al. 2022).
#
# ## Mix first, compare later
#
# Linformer (Wang et al. 2020, arXiv:2006.04768) goes another way. Two learned matrices $E, F$ of shape $r \times m$ mix
# the $m$ keys and values into $r$ of each, and the queries meet only those:
#
# $$\mathrm{softmax}\!\left(\frac{q\,(E k)^\top}{\sqrt d}\right) F v .$$
#
# The scores are $n \times r$. But note what kind of mixing this is: it runs along the *sequence*, every token goes into
# every mixture, and so a token may hear from itself only through a blend. Each blend holds the *future* as well, so no
# causal mask fits, which is why Linformer doesn't write text.

# %% exercise="linformer_attention"
def linformer_attention(q, k, v, e, f):
    """Attention over r mixtures of the keys and values.

    q:    floating-point tensor [..., n, d], with any number of leading (batch) dimensions
    k:    [..., m, d]. v: [..., m, d_v]
    e, f: [r, m]: how the m keys (e) and the m values (f) are mixed; the same for all batches.
          All five are of one dtype
    Scores are divided by sqrt(d), and the softmax runs over the r mixtures.
    Returns a tensor [..., n, d_v] of the dtype of q. Nothing is changed in place, and gradients
    flow to all five.

    Wang et al. 2020, arXiv:2006.04768, equation 7.
    """
    ### BEGIN SOLUTION
    scores = q @ (e @ k).mT / math.sqrt(q.shape[-1])
    return scores.softmax(-1) @ (f @ v)
    ### END SOLUTION


# %% check="linformer_attention"
check(linformer_attention)

# %% [markdown]
# How much is lost? Take queries, keys and values of one layer out of the real model, before they are rotated by their
# positions, and mix by the simplest rule: each mixture is the average of a run of neighboring tokens. (A trained
# Linformer learns $E$ and $F$; a model that wasn't trained for it has to live with such guesses. Both sides go without
# the causal mask.) A single mixture is the mean of all values, which looks at nobody: that has to be beaten. Beside it
# what could be done for this one text: a map of **rank** $r$ has rows that are blends of $r$ rows, and we take the
# nearest such map. The share of the squared weights that it holds is called **energy**: being of squares, 99 % of it
# leave an error of a tenth in the map.

# %% tags=["payoff"]
caught = {}
layer = model.model.layers[10].self_attn
hooks = [getattr(layer, name).register_forward_hook(lambda m, i, out, name=name: caught.update({name: out}))
         for name in ("q_proj", "k_proj", "v_proj")]
with torch.inference_mode():
    model(ids, logits_to_keep=1)
for hook in hooks:
    hook.remove()
q, k, v = (caught[name][0].unflatten(-1, (-1, layer.head_dim)).transpose(0, 1) for name in caught)
k, v = (x.repeat_interleave(len(q) // len(k), 0) for x in (k, v))


def averages(r):
    """[r, n]: mixture i is the mean of the i-th run of tokens."""
    runs = torch.arange(n) * r // n == torch.arange(r)[:, None]
    return runs / runs.sum(-1, keepdim=True)


def relative_error(estimate, right):
    return float((estimate - right).norm() / right.norm())


right, RANKS = full_attention(q, k, v), [1, 4, 12, 48, 96, n]
errors = [relative_error(linformer_attention(q, k, v, averages(r), averages(r)), right) for r in RANKS]
rows, sizes, columns = torch.linalg.svd((q @ k.mT / math.sqrt(layer.head_dim)).softmax(-1))
nearest = [relative_error((rows[..., :r] * sizes[:, None, :r]) @ columns[:, :r] @ v, right) for r in RANKS]
spectrum = sizes.square()
energy = (spectrum.cumsum(-1) / spectrum.sum(-1, keepdim=True)).mean(0)
fig, (left, right_ax) = figure(1, 2, width=9.6, height=3.4)
left.plot(RANKS, errors, marker="o", color=COLORS[0], label="averages of neighbors")
left.plot(RANKS, nearest, marker="s", color=COLORS[1], linestyle="--", label="nearest map of rank r")
left.set(xlabel=f"mixtures r, of {n} tokens", ylabel="relative error of the output", ylim=(0, None))
left.legend()
right_ax.plot(range(1, n + 1), 100 * energy, color=COLORS[1])
right_ax.set(xlabel="rank", ylabel="energy of the map (%)", ylim=(0, 102))
needed = int((energy < 0.99).sum()) + 1
show(
    fig,
    alt="Left, the error of Linformer with averaged tokens and that of the nearest map, by number of mixtures: "
    + ", ".join(f"{r}: {error:.2f} and {least:.2f}" for r, error, least in zip(RANKS, errors, nearest, strict=True))
    + f". Right: the share of an attention map's energy against the rank; 99 % at {needed}.",
    title=f"The mean of all values is off by {errors[0]:.0%}, {RANKS[3]} averages of neighbors by {errors[3]:.0%},\n"
    f"the nearest maps of rank {RANKS[3]} by {nearest[3]:.0%}. Rank {needed} of {n} holds 99 % of the maps' energy",
)
give_back(model)

# %% [markdown]
# A low rank says that so many mixtures of the values would do for *this* text, if each query could blend them as it
# likes. It doesn't say which, nor that they would do for another text. Linformer has the same $E$ and $F$ for all
# texts, so it has to learn them together with the model.
#
# ## Who meets whom: are these local?
#
# "Local attention attends to a few nearby tokens; examples are Linformer and Reformer." We can ask each method
# directly. Change the value of token $j$ a little and see whether the output of token $i$ moves: that is the
# gradient. The text for this test has *topics*: tokens of one topic have similar vectors, and stand in random places.
#
# Reformer (Kitaev et al. 2020, arXiv:2001.04451) throws tokens into buckets by a random rotation: the bucket is the
# direction that a vector points to most. Only those in one bucket meet.
#
# **Before the run:** a method is local if the tokens that meet in it are on average less than half as far apart as any
# two. *Correct* if both are local, *imprecise* if one is, *wrong* if neither is.

# %% claim="T07.2"
TOKENS, TOPICS = 96, 4
g = torch.Generator().manual_seed(0)
topic = torch.randint(TOPICS, (TOKENS,), generator=g)
centers = 3 * F.normalize(torch.randn(TOPICS, 32, generator=g), dim=-1)
qk = centers[topic] + 0.25 * torch.randn(TOKENS, 32, generator=g)  # Reformer shares queries and keys
rotation, mixing = torch.randn(32, 4, generator=g), torch.randn(12, TOKENS, generator=g) / math.sqrt(TOKENS)
buckets = torch.cat([qk @ rotation, -qk @ rotation], -1).argmax(-1)
near = (torch.arange(TOKENS)[:, None] - torch.arange(TOKENS)).abs()
METHODS = {
    "window, both ways": lambda v: full_attention(qk, qk, v, near < 9),
    "Reformer": lambda v: full_attention(qk, qk, v, buckets[:, None] == buckets),
    "Linformer": lambda v: F.scaled_dot_product_attention(qk, mixing @ qk, mixing @ v),
    "full attention": lambda v: full_attention(qk, qk, v),
}


def who_hears_whom(method):
    """[i, j]: how strongly the output of token i moves with the value of token j."""
    moved = torch.autograd.functional.jacobian(lambda v: method(v[:, None])[:, 0], torch.zeros(TOKENS))
    return moved.abs()


fig, axes = figure(1, 4, width=10.4, height=4.0, sharey=True)
mean_distance = {}
for ax, (name, method) in zip(axes, METHODS.items(), strict=True):
    meets = who_hears_whom(method) > 1e-9
    mean_distance[name] = float(near[meets].float().mean())
    ax.imshow(meets, cmap=SEQUENTIAL, vmin=0, vmax=1)
    ax.set(title=f"{name}\nmean distance {mean_distance[name]:.0f}", xlabel="token that is heard")
axes[0].set_ylabel("token that hears")
show(
    fig,
    alt="Four maps of which token hears which. Mean distance of those that do: "
    + ", ".join(f"{name} {apart:.0f}" for name, apart in mean_distance.items()) + " tokens.",
    title=f"Pairs that meet are {mean_distance['window, both ways']:.0f} tokens apart in a window, "
    f"{mean_distance['Reformer']:.0f} in Reformer, {mean_distance['Linformer']:.0f} in Linformer",
)
same = topic[:, None] == topic
shared = float(same[buckets[:, None] == buckets].float().mean())
print(f"any two tokens are {near.float().mean():.0f} apart on average, and {same.float().mean():.0%} share a topic; "
      f"of the pairs in one bucket {shared:.0%} do")
local = [name for name in ("Reformer", "Linformer") if mean_distance[name] < float(near.float().mean()) / 2]
verdict(
    "T07.2",
    ("wrong", "imprecise", "correct")[len(local)],
    f"Tokens that meet are {mean_distance['Reformer']:.0f} apart in Reformer and {mean_distance['Linformer']:.0f} in "
    f"Linformer, any two {near.float().mean():.0f}, those of a window {mean_distance['window, both ways']:.0f}.",
)

# %% [markdown]
# Reformer goes by content, wherever that stands (here the topics were placed by chance). Linformer leaves out nobody.
# Local are Longformer, Swin, and the windows in some layers of Gemma or gpt-oss. (We watch Reformer's hashing through a
# mask, which saves nothing. Its kernel sorts by bucket and works in blocks, and half of the paper is about reversible
# layers, which save the memory of activations.)
#
# ## An estimate of the softmax
#
# Performer (Choromanski et al. 2020, arXiv:2009.14794) starts from an identity. For $w$ drawn from a standard normal
# distribution,
#
# $$e^{x \cdot y} = \mathbb{E}_w\!\left[e^{w\cdot x - |x|^2/2}\; e^{w\cdot y - |y|^2/2}\right].$$
#
# So draw $m$ such vectors once, and give each query and key its $m$ **features**
# $\phi(x) = e^{\,w_i\cdot x - |x|^2/2}/\sqrt m$. Then $\phi(q)\cdot\phi(k)$ estimates $e^{q\cdot k}$, and the sum over
# all keys can be taken *before* the query comes: $\phi(q)\,\big(\phi(K)^\top V\big)$. No pair of tokens is ever looked
# at, and yet each takes part.

# %% exercise="performer_features"
def performer_features(x, w):
    """Positive random features, whose dot products estimate exp(x · y).

    x: floating-point tensor [..., d]: queries or keys. Where scores are to be divided by
       sqrt(d), the caller has scaled both by d**(-1/4) already; nothing is scaled or normalized
       here
    w: [m, d], rows drawn from a standard normal distribution, of the dtype of x
    Returns features [..., m] of the dtype of x: exp(w_i · x - |x|² / 2) / sqrt(m), exactly
    that: no maximum is subtracted, nothing is added or cut off. Gradients flow to x and w.

    Choromanski et al. 2020, arXiv:2009.14794, lemma 1 and section 2.3 (without the orthogonal
    rows).
    """
    ### BEGIN SOLUTION
    return torch.exp(x @ w.T - x.square().sum(-1, keepdim=True) / 2) / math.sqrt(w.shape[0])
    ### END SOLUTION


# %% check="performer_features"
check(performer_features)

# %% [markdown]
# Attention in linear time, from your features. How many does it take? The estimate of $e^{q \cdot k}$ is right in the
# mean for any number, but its relative variance grows like $e^{|q + k|^2}$. So we try short vectors, and the same
# vectors twice as long, which make sharper maps. To be beaten, dotted: the plain mean of all values.

# %% tags=["payoff"]
def performer_attention(q, k, v, w):
    """Attention by random features: [..., n, d_v]. No n × m scores anywhere."""
    q, k = (performer_features(x / q.shape[-1] ** 0.25, w) for x in (q, k))
    return (q @ (k.mT @ v)) / (q @ k.sum(-2, keepdim=True).mT)


COUNTS, REACHES = [16, 64, 256, 1024], {"short vectors": 0.5, "vectors twice as long": 1.0}
found, plain = {}, {}
for name, reach in REACHES.items():
    q16, k16, v16 = (x[..., :16] for x in head(256))
    truth = full_attention(reach * q16, reach * k16, v16)
    plain[name] = relative_error(v16.mean(-2, keepdim=True), truth)
    for m in COUNTS:
        draws = [torch.randn(m, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
        estimates = [performer_attention(reach * q16, reach * k16, v16, w) for w in draws]
        found[name, m] = [relative_error(estimate, truth) for estimate in estimates]
fig, ax = figure(width=8.4, height=3.6)
for name, color, marker in zip(REACHES, COLORS, "os", strict=False):
    means = [sum(found[name, m]) / 5 for m in COUNTS]
    for m in COUNTS:
        ax.scatter([m] * 5, found[name, m], color=color, marker=marker, s=14)
    ax.plot(COUNTS, means, color=color, label=f"{name} (mean of five draws)")
    ax.axhline(plain[name], color=color, linestyle=":")
ax.set_xscale("log", base=2)
ax.set_xticks(COUNTS, [f"{m:,}" for m in COUNTS])
ax.set(xlabel="features m (the head is 16 wide, the text 256 long)", ylabel="relative error", ylim=(0, None))
ax.legend()
spans = {which: f"{min(errors):.0%} to {max(errors):.0%}" for which, errors in found.items()}
short, long = (spans[name, COUNTS[-1]] for name in REACHES)
show(
    fig,
    alt="The error of attention by random features against their number, five draws each: " + "; ".join(
        f"{name} {spans[name, COUNTS[0]]} with {COUNTS[0]} features, {spans[name, COUNTS[-1]]} with {COUNTS[-1]}, and "
        f"{plain[name]:.0%} for the mean of all values" for name in REACHES
    ) + ".",
    title=f"{COUNTS[-1]:,} features, five draws: short vectors are off by {short}, long ones by {long}.\n"
    f"The mean of all values is off by {' and '.join(f'{error:.0%}' for error in plain.values())}",
)

# %% [markdown]
# "…or uses learnable attention patterns, such as Performer, to cut unnecessary work." Is there a pattern, something
# that is left out? We write Performer's attention out as a map, which it never does itself, and ask two things: how
# many entries are zero, and what rank has it? (The features here are the paper's second kind, with $e^{w\cdot x}$ and
# $e^{-w\cdot x}$ side by side.)
#
# **Before the run:** *wrong* if no entry is zero and the rank is the softmax map's own; else *imprecise*. The window
# and Linformer show what a zero and a low rank look like. (*Correct* would also need a pattern that is learned, and
# nobody trains the random vectors. We take more features than tokens: a rank can't exceed their number, so on longer
# texts it is lower than softmax's.)

# %% claim="T07.4"
def map_of(features, q, k):
    weights = features(q) @ features(k).mT
    return weights / weights.sum(-1, keepdim=True)


g = torch.Generator().manual_seed(1)
draws = torch.randn(256, 16, generator=g)


def both_signs(x):
    x = x / 2  # 16 ** (1/4)
    raised = torch.cat([x @ draws.T, -x @ draws.T], -1)
    return torch.exp(raised - x.square().sum(-1, keepdim=True) / 2) / math.sqrt(2 * len(draws))


q16, k16, _ = (x[0, :, :16].double() for x in head(192))
draws = draws.double()
local = (torch.arange(192)[:, None] - torch.arange(192)).abs() < 24
MAPS = {
    "softmax": (q16 @ k16.T / 4).softmax(-1),
    "Performer": map_of(both_signs, q16, k16),
    "window": (q16 @ k16.T / 4).masked_fill(~local, -torch.inf).softmax(-1),
    "Linformer, r = 16": (q16 @ (torch.randn(16, 192, generator=g).double() @ k16 / 8).T / 4).softmax(-1),
}
print(f"{'map':18} {'zeros':>6} {'rank':>5}")
for name, weights in MAPS.items():
    print(f"{name:18} {float((weights == 0).double().mean()):6.0%} {int(torch.linalg.matrix_rank(weights)):5}")
left_out = float((MAPS["Performer"] == 0).double().mean())
ranks = {name: int(torch.linalg.matrix_rank(weights)) for name, weights in MAPS.items()}
verdict(
    "T07.4",
    "wrong" if left_out == 0 and ranks["Performer"] == ranks["softmax"] else "imprecise",
    f"Performer's map leaves out {left_out:.0%} of the pairs and has rank {ranks['Performer']}, softmax's "
    f"{ranks['softmax']}. "
    f"A window leaves out {float((MAPS['window'] == 0).double().mean()):.0%}.",
)

# %% [markdown]
# Performer estimates the *dense* softmax, "without relying on any priors such as sparsity or low-rankness", says its
# abstract. Patterns that are learned exist, in other models: Routing Transformer (arXiv:2003.05997), or Native Sparse
# Attention (arXiv:2502.11089).
#
# ## Share across layers: what does it save?
#
# "Share attention weights between layers, to reduce the model's complexity." *Weights* has two meanings. ALBERT (Lan
# et al. 2019, arXiv:1909.11942) shares the **parameters**. Others (Xiao et al. 2019, arXiv:1906.11024) share the
# **attention maps**: compute them in one layer, reuse them in the next. Six layers, three ways:
#
# **Before the run:** one layer used six times, against six layers. *Correct* if parameters *and* work fall by over a
# tenth, *imprecise* if one of them does, *wrong* if neither.

# %% claim="T07.5"
DEPTH, D, HEADS, ROW = 6, 64, 4, 128


class Attention(nn.Module):
    """Self-attention with a residual, by a map of its own or a finished one. Returns the output and the map."""

    def __init__(self, own=True):
        super().__init__()
        self.v, self.out = (nn.Linear(D, D, bias=False) for _ in range(2))
        if own:
            self.q, self.k = (nn.Linear(D, D, bias=False) for _ in range(2))

    def forward(self, x, ready=None):
        def split(t):
            return t.unflatten(-1, (HEADS, -1)).transpose(-3, -2)

        if ready is None:
            ready = (split(self.q(x)) @ split(self.k(x)).mT / math.sqrt(D // HEADS)).softmax(-1)
        return x + self.out((ready @ split(self.v(x))).transpose(-3, -2).flatten(-2)), ready


def stack(kind):
    """Parameters, operations and milliseconds of six layers on eight texts."""
    torch.manual_seed(0)
    reused = [kind == "maps of every second layer reused" and i % 2 == 1 for i in range(DEPTH)]
    layers = [Attention()] * DEPTH if kind == "one layer, six times" else [Attention(not each) for each in reused]

    @torch.inference_mode()
    def run(x):
        ready = None
        for layer, reuse in zip(layers, reused, strict=True):
            x, ready = layer(x, ready if reuse else None)

    x, seconds = torch.randn(8, ROW, D), []
    with FlopCounterMode(display=False) as counter:
        run(x)
    for _ in range(8):
        start = time.perf_counter()
        run(x)
        seconds.append(time.perf_counter() - start)
    weights = sum(p.numel() for p in nn.ModuleList(layers).parameters())
    return weights / 1e3, counter.get_total_flops() / 1e6, 1e3 * min(seconds)


KINDS = ["six layers of their own", "one layer, six times", "maps of every second layer reused"]
costs = {kind: stack(kind) for kind in KINDS}
fig, axes = figure(1, 3, width=10.4, height=2.6, sharey=True)
labels = ("parameters (thousands)", "work (million operations)", "time (ms)")
for which, (ax, label) in enumerate(zip(axes, labels, strict=True)):
    values = [cost[which] for cost in costs.values()]
    ax.bar_label(ax.barh(KINDS, values, color=COLORS[which]), fmt="%.0f", padding=3)
    ax.set(xlabel=label, xlim=(0, 1.25 * max(values)))
axes[0].invert_yaxis()
first, shared, maps = costs.values()
show(
    fig,
    alt="Bars of parameters (thousands), work (million operations) and time (ms): " + "; ".join(
        f"{kind} {cost[0]:.0f}, {cost[1]:.0f}, {cost[2]:.0f}" for kind, cost in costs.items()
    ) + ".",
    title=f"Sharing parameters: {shared[0] / first[0]:.0%} of the parameters, {shared[1] / first[1]:.0%} of the work. "
    f"Sharing maps: {maps[0] / first[0]:.0%} and {maps[1] / first[1]:.0%}",
)
smaller, cheaper = shared[0] < 0.9 * first[0], shared[1] < 0.9 * first[1]
verdict(
    "T07.5",
    "correct" if smaller and cheaper else "imprecise" if smaller or cheaper else "wrong",
    f"One layer used six times takes {shared[0] / first[0]:.0%} of the parameters and {shared[1] / first[1]:.0%} of "
    "the work; "
    f"maps that are reused {maps[0] / first[0]:.0%} and {maps[1] / first[1]:.0%}.",
)

# %% [markdown]
# A layer used six times is stored once and computed six times: the download shrinks, the bill doesn't. Sharing maps, or
# keys and values (as in Cross-Layer Attention, arXiv:2405.12981), does save work or cache.
#
# ## The receipts: what you have built, measured
#
# Time and memory against the length of the text. Which lines rise with the square, and which don't?
# `grouped_query_attention` and `latent_attention` aren't among them, since they save cache, not scores.

# %% tags=["payoff"]
def your_window(q, k, v):
    return full_attention(q, k, v, sliding_window_mask(q.shape[-2], W))


def your_linformer(q, k, v, r=64):
    mix = torch.randn(2, r, k.shape[-2], generator=torch.Generator().manual_seed(0)) / math.sqrt(k.shape[-2])
    return linformer_attention(q, k, v, *mix)


def your_performer(q, k, v, m=256):
    return performer_attention(q, k, v, torch.randn(m, WIDTH, generator=torch.Generator().manual_seed(0)))


contestants = {"window, as a mask": your_window, "window, in blocks": in_blocks, "Linformer, r = 64": your_linformer,
               "Performer, m = 256": your_performer}
found = {name: [measured(attend, n) for n in LENGTHS] for name, attend in contestants.items()}
curves = {"plain": bill, "tiles (exact)": tiles} | found
fig, axes = figure(1, 2, width=10.4, height=4.2)
marks = zip(curves.items(), [*COLORS[:6]], "osvD^x", ("-", "--", ":", "-.", "-", "--"), strict=True)
for (name, points), color, marker, style in marks:
    for ax, which, unit in ((axes[0], 0, 1e3), (axes[1], 1, 1e-6)):
        ax.loglog(LENGTHS, [point[which] * unit for point in points], color=color, marker=marker, linestyle=style,
                  label=name)
for ax, label in zip(axes, ("time (ms)", "memory at once (MB)"), strict=True):
    ax.set(xlabel="tokens n", ylabel=label)
    ax.set_xticks(LENGTHS, [f"{n:,}" for n in LENGTHS])
    ax.minorticks_off()
axes[1].legend(fontsize=9)
exponents = {name: slope(LENGTHS, [seconds for seconds, _ in points]) for name, points in curves.items()}
show(
    fig,
    alt="Time and memory of six kinds of attention against the number of tokens. The exponents of time at the end: "
    + ", ".join(f"{name} {exponent:.1f}" for name, exponent in exponents.items()) + ".",
    title=f"From 2,048 to 4,096 tokens time grows like n^{exponents['plain']:.1f} for plain attention, "
    f"n^{exponents['window, in blocks']:.1f} in blocks, n^{exponents['Linformer, r = 64']:.1f} for Linformer",
)

# %% [markdown]
# | method | result | work | memory for scores | who meets whom |
# |---|---|---|---|---|
# | plain | exact | $n^2 d$ | $n^2$ | all |
# | online softmax, FlashAttention | exact | $n^2 d$ | one tile | all |
# | grouped queries | another model | $n^2 d$ | $n^2$; the cache shrinks | all |
# | window, in blocks | another model | $n w d$ | $n w$ | neighbors; through layers, more |
# | Reformer | another model | $n \log n$ | buckets | alike |
# | Linformer | another model | $n r d$ | $n r$ | all, mixed |
# | Performer | an estimate | $n m d$ | $n m$ | all |
#
# For some years large models mostly used rows two and three, a FlashAttention kernel and grouped queries; a few had row
# four, windows, in some layers. By 2026 relatives of the others are back, with choices that are *trained* or beside
# layers that are exact. The library that runs this chapter has them all:
#
# * **MLA** (DeepSeek-V3, arXiv:2412.19437): keys and values of all heads are made from one short vector a token; only
#   that and a small rotated key are cached. Grouped queries, taken further.
# * **Learned sparse attention** (DeepSeek-V3.2): a small indexer picks for each query the keys that it will read. What
#   Reformer did by hashing is trained.
# * **Linear hybrids** (Qwen3-Next, Kimi Linear, Nemotron-H): most layers keep a state of fixed size, with a rule for
#   forgetting; every fourth, in Nemotron-H fewer, is exact attention, since a fixed state can't recall everything.
# * **Windows with a sink** (gpt-oss): a learned extra logit takes what a head doesn't want to spend, in place of a
#   first token. Qwen3-Next gives each head's output a gate instead, which may close (Qiu et al. 2025,
#   arXiv:2505.06708).
