# ---
# jupyter:
#   course:
#     title: "Position encodings"
#     exercises: transformer.position_encodings
#     questions: [T03, T04, T07]
#     needs: [01_transformer/01_attention]
# ---

# %% [markdown]
# # Position encodings
#
# *Dog bites man. Man bites dog.* The same three words, and two very different days for the dog. Attention compares
# contents, and a content doesn't say where it stood. To bring order in from outside there are three places: at the
# **input**, as a vector added to each word; in the **scores**, as a number that depends on the distance; or in the
# **queries and keys**, by turning them, which is the next chapter.
#
# Here you build two of the first kind (fixed waves, and a learned table) and three of the second (T5's buckets, ALiBi's
# slopes, vectors of distances). Then small models compete on texts eight times as long as those they were trained on.
# Interview notes have much to say about who wins; we look.

# %% tags=["setup"]
import math

import torch
import torch.nn.functional as F

from autograde import check
from labkit import COLORS, DIVERGING, SEQUENTIAL, evidence, figure, interval, minilm, shakespeare, show, verdict

# %% [markdown]
# ## A model without positions
#
# `minilm()` is a real sentence encoder of 22 million parameters, a BERT with learned positions: a table with one row
# for each of 512 places, added to the words. We compare pairs of sentences that hold the same words in another order,
# once as the model is, and once with all rows of that table set to their mean, so that every place looks the same.

# %% tags=["demo"]
encode = minilm()
TABLE = encode.model.embeddings.position_embeddings.weight
learned = TABLE.detach().clone()
PAIRS = [
    ("The dog bites the man.", "The man bites the dog."),
    ("The teacher praised the pupil.", "The pupil praised the teacher."),
    ("She is rich, not happy.", "She is happy, not rich."),
    ("The cat sat on the mat.", "On mat the sat cat the."),
]


def likeness():
    """Cosine of the two sentences of each pair."""
    return [float(a @ b) for a, b in (encode(list(pair)) for pair in PAIRS)]


as_it_is = likeness()
with torch.no_grad():
    TABLE.copy_(learned.mean(0).expand_as(learned))
    without = likeness()
    TABLE.copy_(learned)

fig, ax = figure(width=9, height=3.4)
rows = torch.arange(len(PAIRS))
ax.barh(rows - 0.2, as_it_is, 0.38, color=COLORS[0], label="with its positions")
ax.barh(rows + 0.2, without, 0.38, color=COLORS[1], hatch="//", edgecolor="white", label="every place alike")
ax.set_yticks(rows, [f"{a}\n{b}" for a, b in PAIRS], fontsize=9)
ax.invert_yaxis()
ax.set(xlabel="cosine of the two sentence vectors", xlim=(0, 1))
ax.legend(loc="upper center", bbox_to_anchor=(0.35, -0.2), ncols=2)
same = sum(cosine > 0.9999 for cosine in without)
show(
    fig,
    alt="For four pairs of sentences with the same words in another order: cosine of their vectors. With positions "
    f"between {min(as_it_is):.3f} and {max(as_it_is):.3f}, with every place alike {min(without):.3f} or more.",
    title=f"Without positions {same} of {len(PAIRS)} pairs are one sentence to the model: cosine {min(without):.3f} "
    "at least",
)

# %% [markdown]
# How far a bar stays below 1 is how much the order of the words counts for the model. Where every place looks alike,
# only rounding can part two sentences of the same words, whatever the 22 million parameters are.
#
# ## "It holds no order information"
#
# That is what the notes say of the Transformer. The picture above is of BERT, which reads in both directions. What if a
# word may only look back? We shuffle the words of one layer of plain attention, without any positions, and ask: is the
# result the old one, shuffled? Once without a mask, once with a causal mask. As a control, once without a mask, but
# with a vector for each place added: there the order has to be felt.
#
# **Before the run:** attention feels the order if the difference exceeds 0.01, and is blind to it below $10^{-10}$, in
# each of twenty draws. *Correct* if it is blind with and without the mask, *imprecise* if blind without and not with
# it, *wrong* if it isn't even blind without. *Unverifiable* if the control feels nothing.

# %% claim="T03.1"
def shuffled_difference(seed, causal=False, places=False):
    """Largest difference between attention of the shuffled words and the shuffled result, in float64."""
    g = torch.Generator().manual_seed(seed)
    x, added = torch.randn(2, 12, 16, generator=g, dtype=torch.float64)
    w_q, w_k, w_v = torch.randn(3, 16, 16, generator=g, dtype=torch.float64) / 4
    order = torch.randperm(12, generator=g)

    def attend(x):
        x = (x + added if places else x)[None]
        return F.scaled_dot_product_attention(x @ w_q, x @ w_k, x @ w_v, is_causal=causal)[0]

    return float((attend(x[order]) - attend(x)[order]).abs().max())


ARMS = {"no mask": {}, "causal mask": {"causal": True}, "no mask, places added\n(control)": {"places": True}}
spread = {name: [shuffled_difference(seed, **arm) for seed in range(20)] for name, arm in ARMS.items()}
fig, ax = figure(width=8.5, height=2.9)
for row, found in enumerate(spread.values()):
    ax.scatter(found, [row] * len(found), color=COLORS[row], marker="osD"[row], alpha=0.6)
ax.set_yticks(range(len(spread)), list(spread))
ax.set(xscale="log", ylim=(-0.6, 2.6), xlabel="largest difference (20 draws)")
ax.invert_yaxis()
bare, masked, control = spread.values()
show(
    fig,
    alt="Twenty dots each, on a logarithmic axis: the difference between attention to shuffled words and the shuffled "
    f"result. No mask: at most {max(bare):.0e}; causal mask: at least {min(masked):.1f}; places added: at least "
    f"{min(control):.1f}.",
    title=f"What shuffling changes: {max(bare):.0e} at most without a mask, {min(masked):.1f} at least with it",
)
blind = [max(found) < 1e-10 for found in (bare, masked)]
verdict(
    "T03.1",
    "unverifiable" if min(control) < 0.01 else "wrong" if not blind[0] else "correct" if blind[1] else "imprecise",
    f"Shuffled words give the shuffled result up to {max(bare):.0e} without a mask; with a causal mask the two differ "
    f"by {min(masked):.1f} or more, with places added by {min(control):.1f} or more.",
)

# %% [markdown]
# Without a mask attention is *permutation-equivariant*: it sees a bag of words. A causal mask breaks the symmetry,
# since the third word sees three keys and the fourth sees four. Language models can learn something from that without
# any position encoding (Haviv et al. 2022, arXiv:2203.16634), and one of our six below is such a one.
#
# ## Waves
#
# The first Transformer writes the position like a clock with many hands. Pair $i$ of the $d$ columns turns with the
# speed $\theta_i = 10000^{-2i/d}$:
#
# $$PE_{p,\,2i} = \sin(p\,\theta_i), \qquad PE_{p,\,2i+1} = \cos(p\,\theta_i).$$
#
# The first hands go round every six positions, the last ones, where $d$ is large, every sixty thousand.

# %% tags=["demo"]
def waves(positions, d=64):
    """The formula above, for any positions, in float64: [len(positions), d]."""
    angle = positions[:, None].double() * 10_000.0 ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)


fig, ax = figure(width=9, height=3.6)
picture = ax.imshow(waves(torch.arange(120)).T, cmap=DIVERGING, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
ax.set(xlabel="position", ylabel="column of the encoding")
fig.colorbar(picture, ax=ax, label="value (no unit)")
lazy = int((120 * 10_000.0 ** (-torch.arange(0, 64, 2) / 64) < 2 * math.pi / 10).sum())
show(
    fig,
    alt="The encoding of 120 positions in 64 columns as a map, one row a column of the encoding. Of its 32 pairs of "
    f"rows, from the fast ones above to the slow ones below, {lazy} make less than a tenth of a turn.",
    title=f"32 hands over 120 positions: {lazy} of them don't even make a tenth of a turn",
)

# %% [markdown]
# ## Exercise 1: the waves

# %% exercise="sinusoidal_encoding"
def sinusoidal_encoding(n, d):
    """The sinusoidal position encoding of the first Transformer.

    n: number of positions 0, 1, …, n - 1, an int of at least 1
    d: width, an even int of at least 2
    Returns a float32 or float64 tensor [n, d]. Row p belongs to position p; column 2i holds
    sin(p / 10000 ** (2i / d)) and column 2i + 1 the cosine of the same angle, in radians.

    Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """
    ### BEGIN SOLUTION
    angle = torch.arange(n)[:, None] / 10_000.0 ** (torch.arange(0, d, 2) / d)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)
    ### END SOLUTION


# %% check="sinusoidal_encoding"
check(sinusoidal_encoding)

# %% [markdown]
# ## Can waves express a distance?
#
# "Absolute encodings can't directly express relative positions", say the notes, and give an example: "positions 5 and
# 6, and positions 100 and 101, have similar codes, but the model can't see their distance". Attention compares by dot
# products, so we compute those of the codes, for all pairs among 300 positions, and for comparison with codes drawn by
# chance, where there is no distance to be seen.
#
# **Before the run:** the distance is visible if pairs one apart have the same dot product, to a thousandth of a code's
# squared length, and all other pairs another one. *Wrong* if it is visible for all pairs of waves, *imprecise* if only
# the two pairs of the example agree, *correct* if not even those. *Unverifiable* if codes drawn by chance pass as well.

# %% claim="T03.9"
def apart_by_one(codes):
    """Cosines of all pairs of codes that are one apart, and of all that are further apart."""
    codes = F.normalize(codes, dim=-1)
    products, distance = codes @ codes.T, (torch.arange(len(codes))[:, None] - torch.arange(len(codes))).abs()
    return products[distance == 1], products[distance > 1]


def visible(codes):
    ones, others = apart_by_one(codes)
    return bool(ones.max() - ones.min() < 1e-3) and float((others - ones.mean()).abs().min()) > 1e-3


codes = waves(torch.arange(300), 512)
chance = torch.randn(300, 512, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
example = [float(codes[p] @ codes[p + 1]) for p in (5, 100)]
cosine = F.cosine_similarity(codes[5], codes[[6, 100]], dim=-1)
ones, others = apart_by_one(codes)
print(f"waves: dot product of 5 and 6: {example[0]:.6f}; of 100 and 101: {example[1]:.6f}")
print(f"their cosines: 5 and 6, {cosine[0]:.3f}; 5 and 100, {cosine[1]:.3f}")
print(f"all pairs one apart: {ones.min():.4f} to {ones.max():.4f}; all further apart: at most {others.max():.4f}")
print("drawn by chance, one apart: {:.4f} to {:.4f}".format(*apart_by_one(chance)[0].aminmax()))
if visible(chance):
    word = "unverifiable"
else:
    word = "wrong" if visible(codes) else "imprecise" if abs(example[0] - example[1]) < 1e-3 * 256 else "correct"
verdict(
    "T03.9",
    word,
    f"Of {len(codes)} positions, neighbors have cosines from {ones.min():.4f} to {ones.max():.4f}, all other pairs "
    f"{others.max():.4f} at most. 5 and 6 have the dot product {example[0]:.4f}, 100 and 101 have {example[1]:.4f}.",
)

# %% [markdown]
# On paper the dot product of two codes is
#
# $$PE_p \cdot PE_q = \sum_i \left(\sin p\theta_i \sin q\theta_i + \cos p\theta_i \cos q\theta_i\right)
# = \sum_i \cos\big((p-q)\,\theta_i\big),$$
#
# and in the last sum there is no $p$ and no $q$, only the distance.
#
# Does that mean that attention sees the distance? Between the codes and the score stand the matrices $W_Q$ and $W_K$.
# And what about a *learned* table? Nobody told it anything about distances. MiniLM's has been trained, so we can ask it
# (without its mean row, which only says "some position"). For three starting places, the similarity to the places
# before and after.
#
# We also compute how much of the scores the distance does *not* explain: the variance among pairs of the same distance,
# before and behind told apart, as a share of all variance. It is 0 where the distance decides, and near 1 where it
# plays no part.
#
# **Before the run:** "not explained" below 1 % counts as 0. *Wrong* if it is 0 for the waves' dot products and also
# after random matrices $W_Q W_K^\top$ (the mean of eight draws), *imprecise* if only for the plain dot products,
# *correct* if not even there. *Unverifiable* if for codes drawn by chance the distance explains more than a tenth.

# %% claim="T03.8"
def unexplained(scores):
    """Variance of the scores [n, n] within each signed distance, over all their variance; distance 0 is left out."""
    n = len(scores)
    offset = torch.arange(n)[None, :] - torch.arange(n)[:, None]
    values, group = scores[offset != 0], offset[offset != 0] + n
    of_group = torch.bincount(group, values, 2 * n) / torch.bincount(group, minlength=2 * n).clamp(min=1)
    return float((values - of_group[group]).square().mean() / values.var(correction=0))


def centered(table):
    return F.normalize(table - table.mean(0), dim=-1)


STARTS, REACH = (100, 150, 200), 60
offsets = torch.arange(-REACH, REACH + 1)
g = torch.Generator().manual_seed(0)
sines = waves(torch.arange(300), 384)
views = {
    "waves": F.normalize(sines, dim=-1),
    "learned (MiniLM)": centered(learned[:300].double()),
    "drawn by chance": centered(torch.randn(300, 384, generator=g, dtype=torch.float64)),
}
left_over = {name: unexplained(rows @ rows.T) for name, rows in views.items()}
mixers = torch.randn(8, 384, 384, generator=g, dtype=torch.float64) / math.sqrt(384)
through = [unexplained(sines @ mixer @ sines.T) for mixer in mixers]
fig, axes = figure(1, 3, width=10.2, height=3.5, sharey=True)
for ax, (name, rows) in zip(axes, views.items(), strict=True):
    for start, color, style in zip(STARTS, COLORS, ["-", "--", ":"], strict=False):
        ax.plot(offsets, rows[start + offsets] @ rows[start], color=color, linestyle=style, label=f"from {start}")
    ax.set(title=name, xlabel="distance (positions)")
axes[0].set_ylabel("cosine of the codes")
axes[0].legend()
told = ", ".join(f"{name} {share:.0%}" for name, share in left_over.items())
show(
    fig,
    alt="Cosine of position codes against their distance, from three starting places, for waves, for MiniLM's learned "
    f"table and for codes drawn by chance. What the distance leaves unexplained among all pairs: {told}.",
    title=f"What the distance doesn't explain: {told}",
)
print(f"waves, through random matrices: {min(through):.0%} to {max(through):.0%} not explained")
print(f"before and behind: PE(50)·PE(53) = {sines[50] @ sines[53]:.3f}, PE(50)·PE(47) = {sines[50] @ sines[47]:.3f}")
mean_through = sum(through) / len(through)
if left_over["drawn by chance"] < 0.9:
    word = "unverifiable"
else:
    word = "correct" if left_over["waves"] > 0.01 else "imprecise" if mean_through > 0.01 else "wrong"
verdict(
    "T03.8",
    word,
    f"The distance leaves {left_over['waves']:.1%} of the waves' dot products unexplained, and {mean_through:.0%} of "
    f"the scores behind random matrices. For codes drawn by chance it leaves {left_over['drawn by chance']:.0%}.",
)

# %% [markdown]
# By the formula the waves' *codes* hold the distance. A model has to take care not to lose it: behind $W_Q$ and $W_K$
# the score need not be a function of the distance. The plain dot product has a gap of its own, since $\cos$ is even: it
# can't tell before from behind.
#
# ## What a learned table learns
#
# Look at the middle panel again, at the learned curves. Does anything swing there? We take the table's six strongest
# directions (its principal components), follow them from place to place, and ask for the period that is strongest in
# each. Two tables go through the same procedure beside it. One is drawn by chance. In the other each row is the one
# before plus a little chance: it only *drifts*, and yet the strongest directions of a drift swing, in long waves.

# %% tags=["demo"]
def principal(table, count=6):
    """The strongest components of a centered table along its positions: [positions, count]."""
    u, s, _ = torch.linalg.svd(table - table.mean(0), full_matrices=False)
    return (u * s)[:, :count]


def strongest_period(component):
    """The period with the largest share of a component's power, in positions, and that share (three frequencies)."""
    power = torch.fft.rfft(component).abs().square()
    best = int(power[1:].argmax()) + 1
    return len(component) / best, float(power[max(best - 1, 1) : best + 2].sum() / power[1:].sum())


places = torch.arange(60, 260)
components = principal(learned.double())
found = [strongest_period(component) for component in components.T]
by_chance = [strongest_period(component) for component in principal(torch.randn(512, 384, generator=g)).T]
drift = torch.randn(512, 384, generator=g, dtype=torch.float64).cumsum(0)
drifting = [strongest_period(component)[0] for component in principal(drift).T]
fig, ax = figure(width=9.5, height=4.2)
for i, (component, (period, share)) in enumerate(zip(components.T, found, strict=True)):
    ax.plot(places, component[places] / component.abs().max() - 2.2 * i, color=COLORS[i], linewidth=1.4)
    ax.text(263, -2.2 * i, f"period {period:.3g}\n{share:.0%} of the power", color=COLORS[i], fontsize=9, va="center")
ax.set_yticks([-2.2 * i for i in range(6)], [f"component {i + 1}" for i in range(6)])
ax.set(xlabel="position", xlim=(60, 259))
shares = [share for _, share in found]
told = ", ".join(f"{period:.3g}" for period, _ in found)
quick = [f"{period:.3g}" for period, _ in found if period < min(drifting)]
show(
    fig,
    alt="The six strongest components of MiniLM's position table along 200 positions, one line each. Their strongest "
    f"periods: {told} positions, with {min(shares):.0%} to {max(shares):.0%} of the power of a component; of a table "
    f"drawn by chance {max(share for _, share in by_chance):.0%} at most. Periods of a drift: "
    f"{', '.join(f'{period:.3g}' for period in drifting)}.",
    title=f"Periods {told}; of a drift {min(drifting):.3g} or more. Shorter than that: {', '.join(quick) or 'none'}",
)

# %% [markdown]
# What a drift has as well says nothing about waves. Are there lines that swing more quickly? Those nobody told MiniLM
# about. (Why can a period come twice? A hand needs a sine and a cosine.)
#
# The paper chose waves for one more property: for each distance $k$ there is *one* matrix $M_k$ with
# $PE_{p+k} = M_k\,PE_p$, whatever $p$ is. So a layer can learn "seven words back". For waves we can write $M_7$ down.
# For a table we have to *fit* it, from positions 0 to 199, and test it on 207 to 292. 200 rows don't determine 384 ×
# 384 numbers, so the fit works on the sixteen strongest components. And to know that it finds what is there, we try it
# on waves, too (sixteen columns, spread over 384 by a random matrix). It has to find nothing in a table drawn by
# chance, and nothing in one that drifts: there row $p + 7$ is near row $p$, and no matrix is needed. So what we count
# is the share that the matrix explains of what is left by the better one of two guesses: the mean row, and row $p$
# itself.
#
# **Before the run:** *correct* if the written $M_7$ fits the waves at 5,000 positions to $10^{-9}$, no two of their
# codes coincide, and the fitted one explains over half of what is left at unseen places of the learned table;
# *imprecise* if that holds for the waves alone, *wrong* if not even there. *Unverifiable* if it explains less than half
# of what is left of the waves, or over a tenth of it in one of the two tables made by chance. (An older rule, half of
# all variance, let a drift pass; this one was written after that was seen.)

# %% claim="T03.5"
def shift_matrix(k, d):
    """The matrix that turns every pair by k positions."""
    angle = k * 10_000.0 ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    matrix = torch.zeros(d, d, dtype=torch.float64)
    even, odd = torch.arange(0, d, 2), torch.arange(1, d, 2)
    matrix[even, even] = matrix[odd, odd] = angle.cos()
    matrix[even, odd], matrix[odd, even] = angle.sin(), -angle.sin()
    return matrix


def explained(table, k=7, count=16):
    """What one matrix, fitted before, explains at 86 unseen positions from k places back, of what two guesses leave."""
    table = table - table[:207].mean(0)
    directions = torch.linalg.svd(table[:207], full_matrices=False).Vh[:count].T
    ones = torch.ones(len(table), 1, dtype=table.dtype)  # for what the mean takes away
    reduced = torch.cat([table @ directions, ones], -1)
    fitted = torch.linalg.lstsq(reduced[:200], reduced[k : 200 + k, :-1]).solution
    to_find = table[207 + k : 293 + k]
    guesses = (torch.zeros_like(to_find), table[207:293])  # the mean row, and the row that stands k places back
    left = min(float((guess - to_find).square().sum()) for guess in guesses)
    return max(1 - float((reduced[207:293] @ fitted @ directions.T - to_find).square().sum()) / left, 0.0)


places = torch.arange(5_000)
codes = waves(places, 512)
error = float((codes @ shift_matrix(7, 512).T - waves(places + 7, 512)).abs().max())
closest = float((codes[:1] - codes[1:]).norm(dim=-1).min())  # the same from every place: only the distance counts
TABLES = {
    "waves": waves(torch.arange(300), 16) @ torch.randn(16, 384, generator=g, dtype=torch.float64),
    "learned (MiniLM)": learned[:300].double(),
    "drawn by chance": torch.randn(300, 384, generator=g, dtype=torch.float64),
    "drifting": drift[:300],
}
fits = {name: explained(table) for name, table in TABLES.items()}
fig, ax = figure(width=9.5, height=2.8)
ax.barh(range(len(fits)), list(fits.values()), color=COLORS[: len(fits)])
for i, share in enumerate(fits.values()):
    ax.text(share + 0.01, i, f"{share:.0%}", va="center")
ax.set_yticks(range(len(fits)), list(fits))
ax.invert_yaxis()
ax.set(xlabel="explained at unseen places, of what both guesses leave", xlim=(0, 1.08))
told = ", ".join(f"{name} {share:.0%}" for name, share in fits.items())
show(
    fig,
    alt="Bars: what one fitted matrix for seven positions explains at unseen places, of what the mean row and the row "
    f"seven places back leave: {told}.",
    title=f"One matrix for seven positions, fitted: {told}",
)
if fits["waves"] < 0.5 or max(fits["drawn by chance"], fits["drifting"]) > 0.1:
    word = "unverifiable"
elif error > 1e-9 or closest < 1e-9:
    word = "wrong"
else:
    word = "correct" if fits["learned (MiniLM)"] > 0.5 else "imprecise"
verdict(
    "T03.5",
    word,
    f"Waves: the written matrix errs by {error:.0e} at most, and no two of 5,000 codes are closer than {closest:.1f}. "
    f"What a fitted matrix explains at unseen places: {told}.",
)

# %% [markdown]
# For waves the property is exact, by construction. A learned table has to find out for itself what seven words back
# means, from texts alone; how far MiniLM's got is the second bar.
#
# ## Exercise 2: a learned table
#
# BERT, GPT-2 and GPT-3 learn their positions: a table with one row a place. It is the simplest encoding of all, with
# two traps. A token that is written after 57 others stands at position 57, though it is the only *new* one. And the
# table has an end. Python's slices don't complain about that end; your function shall.

# %% exercise="add_learned_positions"
def add_learned_positions(x, table, past=0):
    """Adds to each token the row of the table that belongs to its position.

    x:     floating-point tensor [..., n, d]: n tokens, with any number of leading (batch)
           dimensions, or none
    table: [max_positions, d], of the dtype of x
    past:  number of tokens that stand before these n, an int of at least 0: the first of them
           is at position `past`
    Returns a tensor of the shape and the dtype of x; x itself is left as it is. Differentiable:
    gradients flow to x and to the table.
    Raises ValueError where a token would stand past the end of the table.

    Devlin et al. 2018, arXiv:1810.04805, figure 2 (the position embeddings).
    """
    ### BEGIN SOLUTION
    end = past + x.shape[-2]
    if end > len(table):
        raise ValueError(f"The table has {len(table)} positions, and {end} are needed.")
    return x + table[past:end]
    ### END SOLUTION


# %% check="add_learned_positions"
check(add_learned_positions)

# %% [markdown]
# Your function in place of MiniLM's own: words, sentence types and your positions, added up and normed, have to give
# what the model's own embeddings give.

# %% tags=["payoff"]
embeddings = encode.model.embeddings
batch = encode.tokenizer([a for a, _ in PAIRS], padding=True, return_tensors="pt")
with torch.no_grad():
    words = embeddings.word_embeddings(batch.input_ids) + embeddings.token_type_embeddings.weight[0]
    mine = embeddings.LayerNorm(add_learned_positions(words, learned))
    own = embeddings(batch.input_ids)
print(f"largest difference from the library's embeddings: {(mine - own).abs().max():.0e}")
try:
    add_learned_positions(torch.zeros(1, 513, learned.shape[1]), learned)
except ValueError as error:
    print(f"a text of 513 tokens: {error}")
assert (mine - own).abs().max() < 1e-4, "These are not the model's own embeddings: solve exercise 2 first."

# %% [markdown]
# "Beyond the training length the position information is lost", say the notes of absolute encodings. Of which? Their
# paragraph is on the fixed ones, so waves have to answer. We give each of 2,560 positions its code, and look whether
# those from 512 on still tell one place from every other. A learned table is the control: for position 512, which
# MiniLM has never had, the information has to be missing.
#
# **Before the run:** *wrong* if each code from 512 on is at least half as far from its nearest neighbor as the codes
# below 512 are, *imprecise* if it has a neighbor nearer than that but none that coincides (to $10^{-6}$), *correct* if
# codes coincide. *Unverifiable* if the table has a row 512.

# %% claim="T03.10"
try:
    F.embedding(torch.tensor([512]), learned)
    ended = ""
except IndexError as error:
    ended = f"IndexError, {error}"
codes = waves(torch.arange(2_560), 384)
gaps = torch.cdist(codes, codes).fill_diagonal_(torch.inf)
within, beyond = float(gaps[:512, :512].min()), float(gaps[512:].min())
print(f"learned table, position 512: {ended or 'a row'}")
print(f"waves, nearest neighbor: {within:.3f} away below 512, {beyond:.3f} at least from 512 on")
verdict(
    "T03.10",
    "unverifiable" if not ended else "wrong" if beyond >= within / 2 else "imprecise" if beyond > 1e-6 else "correct",
    f"Wave codes of positions 512 to 2,559 are {beyond:.2f} or more from any other, those below 512 {within:.2f}. "
    f"The learned table, asked for position 512: {ended or 'it has a row'}.",
)

# %% [markdown]
# A table ends. Waves have a code for every place, and the distances above say whether it can be told from the others.
# What they lack past the trained length in any case is *experience*: the model has never seen those codes. How much
# that matters we measure at the end.
#
# ## Numbers on the scores: T5
#
# The second place to bring in order is the score itself. Add to $q_i \cdot k_j$ a number that depends on $j - i$ alone,
# and the distance is there, undisturbed, in every layer.
#
# T5 learns these numbers, but not one for each distance. Near distances have a number each; further away they share it,
# in buckets that get wider and wider. The idea: whether a word stands 60 or 63 places back should hardly matter.

# %% tags=["demo"]
from transformers.models.t5.modeling_t5 import T5Attention

reach = torch.arange(-160, 161)
fig, ax = figure(width=9, height=3.4)
for (name, both), color, style in zip({"encoder": True, "decoder": False}.items(), COLORS, ["-", "--"], strict=False):
    ax.step(reach, T5Attention._relative_position_bucket(reach, both, 32, 128), color=color, linestyle=style,
            where="mid", label=f"{name} (bidirectional={both})")
ax.set(xlabel="position of the key minus position of the query", ylabel="bucket", yticks=range(0, 33, 8))
ax.legend()
show(
    fig,
    alt="Bucket against relative position. The steps are one position wide near zero and get wider to both sides. The "
    "encoder uses half of the buckets for each side, the decoder all of them for the past.",
    title="T5: one bucket a distance nearby, wider and wider ones far away",
)

# %% [markdown]
# ## Exercise 3: the buckets

# %% exercise="relative_position_bucket"
def relative_position_bucket(
    relative_position, bidirectional=True, num_buckets=32, max_distance=128
):
    """T5's bucket of each relative position.

    relative_position: integer tensor of any shape [...]: the key's position minus the query's
                       (negative = the past)
    bidirectional:     True (encoder): the lower half of the buckets holds the past and the
                       position itself, the upper half, from num_buckets // 2 on, the future, by
                       the same rule for |relative_position|.
                       False (decoder): all buckets hold the past; the future counts as
                       distance 0
    num_buckets:       an int, divisible by 4
    max_distance:      an int greater than the number of exact buckets e (below)
    With c buckets for a direction and e = c // 2: a distance r < e is bucket r; from e on it is
    bucket e + floor(log(r / e) / log(max_distance / e) * (c - e)), but at most c - 1.
    Returns an integer tensor [...] of any integer dtype, values from 0 to num_buckets - 1.

    Raffel et al. 2019, arXiv:1910.10683, section 2.1, and the code published with it.
    """
    ### BEGIN SOLUTION
    if bidirectional:
        count, distance = num_buckets // 2, relative_position.abs()
        start = (relative_position > 0).long() * count
    else:
        count, distance, start = num_buckets, (-relative_position).clamp(min=0), 0
    exact = count // 2
    share = (distance.clamp(min=1) / exact).log() / math.log(max_distance / exact)
    far = (exact + (share * (count - exact)).long()).clamp(max=count - 1)
    return start + torch.where(distance < exact, distance, far)
    ### END SOLUTION


# %% check="relative_position_bucket"
check(relative_position_bucket)

# %% [markdown]
# ## Numbers on the scores: ALiBi
#
# ALiBi (Press et al. 2021, arXiv:2108.12409) learns nothing at all. Each step back costs a head a fixed amount, its
# slope. A head with a steep slope reads its neighbors, one with a flat slope reads far. Slopes fall geometrically from
# head to head: $2^{-8h/H}$.

# %% tags=["demo"]
back, far_back, sight = torch.arange(0, 129), torch.arange(0, 4_097), {}
fig, (left, right) = figure(1, 2, width=9.2, height=3.4)
for h, color in zip((1, 2, 4, 8), COLORS, strict=False):
    slope = 2.0 ** -h
    within = (-slope * far_back).softmax(-1).cumsum(-1)
    sight[h] = int((within < 0.95).sum())
    left.plot(back, -slope * back, color=color)
    right.plot(back, within[: len(back)], color=color, label=f"head {h}: slope 1/{2**h}")
left.set(xlabel="distance back (positions)", ylabel="bias (added to the score)", ylim=(-20, 1))
right.set(xlabel="distance back (positions)", ylabel="weight within this distance", ylim=(0, 1.05))
right.legend(fontsize=9, loc="center right", bbox_to_anchor=(1, 0.68))
show(
    fig,
    alt="Left: four straight lines that fall with distance, with slopes from a half to one 256th. Right: the share of "
    f"attention within a distance, if contents were all alike, {len(far_back):,} of them. 95 % of it lies within "
    + ", ".join(f"{reached} positions (head {h})" for h, reached in sight.items()) + ".",
    title=f"ALiBi, contents alike: head {min(sight)} sees {sight[min(sight)]} positions back, head {max(sight)} "
    f"{sight[max(sight)]} (95 % of the weight)",
)

# %% [markdown]
# ## Exercise 4: straight lines
#
# The bias of all heads at once, with the causal mask in it: what is added to the scores before the softmax.

# %% exercise="alibi_bias"
def alibi_bias(n_heads, n):
    """ALiBi's bias with the causal mask: what is added to the scores of n tokens, by head.

    n_heads: an int of at least 1, of any kind, not only a power of two
    n:       number of tokens, an int of at least 1
    Returns a float32 or float64 tensor [n_heads, n, n]: for query i and key j, -slope * (i - j)
    where j <= i, and -inf where the key comes later.
    The slopes: for m heads, m a power of two, they are 2 ** (-8h/m) for h = 1, …, m. For
    another n_heads let m be the largest power of two below it: first come the slopes for m
    heads, then, of the slopes for 2m heads, the 1st, 3rd, 5th, … until there are n_heads.

    Press et al. 2021, arXiv:2108.12409, section 3, and the code published with it.
    """
    ### BEGIN SOLUTION
    def slopes(m):
        return [2 ** (-8 * h / m) for h in range(1, m + 1)]

    below = 2 ** int(math.log2(n_heads))
    chosen = torch.tensor(slopes(below) + slopes(2 * below)[0::2][: n_heads - below])
    offset = torch.arange(n)[None, :] - torch.arange(n)[:, None]
    return (chosen[:, None, None] * offset).masked_fill(offset > 0, -torch.inf)
    ### END SOLUTION


# %% check="alibi_bias"
check(alibi_bias)

# %% tags=["payoff"]
def along(maps):
    """How much maps [heads, n, n] vary at most where the distance of query and key is the same."""
    diagonals = [maps.diagonal(-d, -2, -1) for d in range(maps.shape[-1])]
    return float(max((line.amax(-1) - line.amin(-1)).max() for line in diagonals))


between = torch.arange(24)[None, :] - torch.arange(24)[:, None]
buckets = relative_position_bucket(between, bidirectional=False, num_buckets=16, max_distance=24)
slopes = alibi_bias(8, 24)
weights = slopes.softmax(-1)
fig, axes = figure(1, 4, width=10.2, height=3.0, sharey=True)
picture = axes[0].imshow(buckets.float().masked_fill(between > 0, torch.nan), cmap=SEQUENTIAL)
fig.colorbar(picture, ax=axes[0], label="bucket", shrink=0.8)
axes[0].set(title="T5: bucket", xlabel="key", ylabel="query")
for ax, head in zip(axes[1:], (0, 3, 7), strict=True):
    picture = ax.imshow(weights[head], cmap=SEQUENTIAL, vmin=0, vmax=0.6)
    ax.set(title=f"ALiBi: head {head + 1}", xlabel="key")
fig.colorbar(picture, ax=axes[1:], label="weight, contents alike", shrink=0.8, extend="max")
show(
    fig,
    alt="Left: T5's buckets as a map. Right: the attention that ALiBi's bias alone gives, for three heads. On the key "
    "itself the last query puts " + ", ".join(f"{float(weights[head, -1, -1]):.0%}" for head in (0, 3, 7)) + ".",
    title=f"Along a diagonal, where the distance is the same, your biases vary by {along(buckets[None]):g} (T5) and "
    f"{along(slopes):g} (ALiBi)",
)

# %% [markdown]
# ## Vectors of the distance: Shaw, Transformer-XL
#
# A number for each distance is the same for every word. But perhaps a verb wants to know what stands right before it,
# and a comma doesn't care. The first relative encoding (Shaw et al. 2018, arXiv:1803.02155) gave each distance a
# learned *vector* $a_{j-i}$ beside the key, so that the query decides what a distance is worth:
#
# $$\frac{q_i \cdot (k_j + a_{j-i})}{\sqrt d} .$$
#
# Distances past $\pm L$ share the outermost vectors. Transformer-XL (Dai et al. 2019, arXiv:1901.02860) has a vector
# for every distance, made from a wave, and two learned biases $u$ and $v$ beside the query:
# $(q_i + u)\cdot k_j + (q_i + v)\cdot r_{j-i}$. The $u$ says which *contents* are worth reading for any query, the $v$
# which *distances*: if $q$ were nothing, $v \cdot r_{j-i}$ would be a bias made of the distance, as T5's is.
#
# ## Exercise 5: one function for both

# %% exercise="relative_scores"
def relative_scores(q, k, table, u=None, v=None):
    """Scores of queries with keys and with learned vectors of their distance.

    q:     floating-point tensor [..., heads, n, d], any number of batch dimensions in front
    k:     [..., heads, m, d], m >= n. The queries are the last n of the m tokens: query i
           stands at place m - n + i, key j at place j
    table: [2L + 1, d], the vectors of the distances, for all heads. Row L belongs to the
           distance 0, row 0 to keys L or more places *before* the query, row 2L to keys L or
           more places after it. L may be 0, and larger than any distance there is
    u, v:  None, or [heads, d]: what is added to each query where it meets keys (u), and where
           it meets the vectors of distances (v). Either may be given without the other
           All tensors are of one dtype
    Returns [..., heads, n, m] of the dtype of q:
    ((q[i] + u) · k[j] + (q[i] + v) · table[row of i and j]) / sqrt(d).
    No mask, no softmax. Gradients flow to all that is given.

    Shaw et al. 2018, arXiv:1803.02155, equation 4 (the keys' part; u = v = None); Dai et
    al. 2019, arXiv:1901.02860, section 3.3.
    """
    ### BEGIN SOLUTION
    n, m, reach = q.shape[-2], k.shape[-2], len(table) // 2
    content, placed = (q if bias is None else q + bias[:, None, :] for bias in (u, v))
    distance = torch.arange(m) - torch.arange(m - n, m)[:, None]
    vectors = table[distance.clamp(-reach, reach) + reach]
    positions = torch.einsum("...nd,nmd->...nm", placed, vectors)
    return (content @ k.mT + positions) / math.sqrt(q.shape[-1])
    ### END SOLUTION


# %% check="relative_scores"
check(relative_scores)

# %% [markdown]
# XLNet is Transformer-XL's heir, and the library's attention layer has all of its parts: waves for the distances, made
# into vectors by a matrix, and both biases. One with random weights reads twelve tokens. Your scores, from its own
# queries, keys, vectors and biases, have to give its weights.

# %% tags=["payoff"]
from transformers import XLNetConfig
from transformers.models.xlnet.modeling_xlnet import XLNetRelativeAttention

g = torch.Generator().manual_seed(0)
layer = XLNetRelativeAttention(XLNetConfig(d_model=32, n_head=2, d_inner=32, dropout=0.0))
places = torch.arange(12, -12, -1)  # how far back
waved = torch.cat([waves(places, 32)[:, 0::2], waves(places, 32)[:, 1::2]], -1).float()  # all sines, then all cosines
with torch.no_grad():
    for parameter in layer.parameters():
        parameter.normal_(0, 0.3, generator=g)
    x = torch.randn(12, 32, generator=g)
    q, k, vectors = (torch.einsum("ih,hnd->nid", a, w) for a, w in ((x, layer.q), (x, layer.k), (waved, layer.r)))
    theirs = layer(x[:, None], None, None, None, waved[:, None], None, output_attentions=True)[2]
    mine = torch.cat([  # a table for each head here, and the library leaves out its first row itself
        relative_scores(*(each[h : h + 1] for each in (q, k)), vectors[h, 1:], layer.r_w_bias[h : h + 1],
                        layer.r_r_bias[h : h + 1])
        for h in range(2)
    ]).softmax(-1)
apart = float((mine - theirs[:, :, 0].permute(2, 0, 1)).abs().max())
print(f"largest difference from the library's weights: {apart:.0e}, of weights up to {mine.max():.2f}")
assert apart < 1e-4, "These aren't the layer's own weights: solve exercise 5 first."

# %% [markdown]
# ### A bias for the distance?
#
# "A relative encoding is usually a bias, made of the offset, that is added to the score." Five of them give the same 24
# tokens what they add to plain scores $q \cdot k$, for 200 draws of the contents: T5's, ALiBi, Shaw's,
# Transformer-XL's, and RoPE, which turns queries and keys by an angle for each position (the next chapter). A bias made
# of the offset is the same for all pairs with one offset, whatever their contents and places. So we ask which share of
# the variance of what is added lies *within* the offsets. A sinusoid at the input is the control: what it adds knows
# the places.
#
# **Before the run:** an encoding is such a bias if that share is under 1 %. *Correct* if all five are, *wrong* if none
# is, *imprecise* if some are; *unverifiable* if the control is one, too.

# %% claim="T04.3"
SEEN, PAIRS_OF, DRAWS = 24, 16, 200
g = torch.Generator().manual_seed(2)
offset = torch.arange(SEEN)[None, :] - torch.arange(SEEN)[:, None]
numbers, (u, v) = torch.randn(32, generator=g), torch.randn(2, PAIRS_OF, generator=g)
of_distance = torch.randn(2 * SEEN - 1, PAIRS_OF, generator=g)[offset + SEEN - 1]  # [query, key, d]
spin = torch.polar(torch.ones(()), torch.arange(SEEN)[:, None] * 10_000.0 ** (-torch.arange(0, 1, 2 / PAIRS_OF)))
placed = waves(torch.arange(SEEN), PAIRS_OF).float()
learned_q, learned_k = torch.randn(2, PAIRS_OF, PAIRS_OF, generator=g)


def spun(x):
    """RoPE, the pairs being neighbors: each a complex number, turned."""
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * spin).flatten(-2)


def with_vectors(q, vectors):
    return torch.einsum("bnd,nmd->bnm", q, vectors)


ADDED = {
    "T5": lambda q, k: numbers[T5Attention._relative_position_bucket(offset, True, 32, 128)].expand(DRAWS, -1, -1),
    "ALiBi": lambda q, k: (-offset.abs() / 4).expand(DRAWS, -1, -1),
    "Shaw": lambda q, k: with_vectors(q, of_distance),
    "Transformer-XL": lambda q, k: (k @ u)[:, None] + with_vectors(q + v, of_distance),
    "RoPE": lambda q, k: spun(q) @ spun(k).mT - q @ k.mT,
    "waves at the input": lambda q, k: (q + placed @ learned_q) @ (k + placed @ learned_k).mT - q @ k.mT,
}
q, k = torch.randn(2, DRAWS, SEEN, PAIRS_OF, generator=g)
within = {}
for scheme, add in ADDED.items():
    added = add(q, k)
    same = torch.stack([(added[:, offset == d] - added[:, offset == d].mean()).square().sum() for d in offset.unique()])
    within[scheme] = float(same.sum() / (added - added.mean()).square().sum())
fig, ax = figure(width=8.4, height=3.2)
bars = ax.barh(list(within), [100 * share for share in within.values()], color=[COLORS[0]] * 5 + [COLORS[1]])
ax.bar_label(bars, [f"{share:.0%}" for share in within.values()], padding=3)
ax.invert_yaxis()
ax.set(xlabel="variance within an offset of what is added to the scores, %", xlim=(0, 112))
biases = [scheme for scheme in list(within)[:5] if within[scheme] < 0.01]
told = ", ".join(f"{scheme} {share:.0%}" for scheme, share in within.items())
show(fig, alt=f"Bars: the share of the variance within an offset, of what six encodings add to scores: {told}.",
     title=f"Made of the offset alone: {', '.join(biases) or 'none'}. Of contents or places, too: "
     f"{', '.join(scheme for scheme in within if scheme not in biases) or 'none'}")
verdict(
    "T04.3",
    "unverifiable" if within["waves at the input"] < 0.01
    else "correct" if len(biases) == 5 else "imprecise" if biases else "wrong",
    f"Of the variance of what is added to the scores this much lies within an offset: {told}.",
)

# %% [markdown]
# ## Train short, test long
#
# Now the race. Six language models, alike but for their positions and with the same seed, learn letters of Shakespeare
# for the same number of steps, on pieces of 64 letters: no positions (*NoPE*), waves, a learned table, T5's bias,
# ALiBi, and RoPE (next chapter). T5's bias has sixteen buckets, the last from 27 letters on, so that training reaches
# each of them. Then each model reads the same pieces of 512 letters, and we plot the loss against the position.
#
# If an encoding copes with longer texts (*length extrapolation*), its curve stays flat past 64. The learned table ends
# there: it has no rows.
#
# "Sinusoids suit long sequences, since different frequencies capture fine positions", say the notes. The race has one
# seed and one rate for all, so the verdict is taken from a longer one that is kept with the course
# (`experiments/T07_7.py`): three seeds, each encoding at the best of three rates. **Before the run:** the reason holds
# if within the trained length waves are surely (95 %) at least 0.05 nats better than no positions; the conclusion holds
# if at positions 384 to 511 their mean loss is at most 0.1 nats above that within. *Correct* if both hold, *imprecise*
# if one does, *wrong* if neither. One encoding at least has to stay within those 0.1 nats, or else the texts themselves
# are harder there, and the claim is *unverifiable* this way.

# %% claim="T03.7"
from experiments import T07_7 as mixing

TRAINED, TESTED, D, HEADS = 64, 512, 64, 4
text = shakespeare()
letters = sorted(set(text))
number = {letter: i for i, letter in enumerate(letters)}
data = torch.tensor([number[letter] for letter in text[:600_000]])
training, held = data[:500_000], data[500_000:]


def turned(x):
    """RoPE in pairs of halves."""
    angle = torch.arange(x.shape[-2])[:, None] * 10_000.0 ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


class Reader(torch.nn.Module):
    """Two layers over letters, norms in front of their parts, with one of six kinds of positions."""

    def __init__(self, scheme):
        super().__init__()
        self.scheme, linear = scheme, lambda i, o: torch.nn.Linear(i, o, bias=False)
        self.embed = torch.nn.Embedding(len(letters), D)
        sizes = {"qkv": (D, 3 * D), "out": (D, D), "up": (D, 4 * D), "down": (4 * D, D)}
        self.blocks = torch.nn.ModuleList(
            torch.nn.ModuleDict(
                {name: linear(*size) for name, size in sizes.items()}
                | {name: torch.nn.LayerNorm(D) for name in ("norm1", "norm2")}
            )
            for _ in range(2)
        )
        self.head = linear(D, len(letters))
        if scheme == "learned":
            self.table = torch.nn.Parameter(torch.randn(TRAINED, D) * 0.7)  # as large as the waves
        if scheme == "T5 bias":
            self.buckets = torch.nn.Parameter(torch.zeros(16, HEADS))

    def bias(self, n):
        """What is added to the scores, causal mask and all: [1, heads, n, n]."""
        offset = torch.arange(n)[None, :] - torch.arange(n)[:, None]
        bias = torch.zeros(HEADS, n, n)
        if self.scheme == "ALiBi":
            bias = 2.0 ** (-8 * torch.arange(1, HEADS + 1)[:, None, None] / HEADS) * offset
        if self.scheme == "T5 bias":
            bias = self.buckets[T5Attention._relative_position_bucket(offset, False, 16, 32)].permute(2, 0, 1)
        return bias.masked_fill(offset > 0, -torch.inf)[None]

    def pull(self, q, k):
        """What queries and keys of one layer add to its scores: nothing yet."""
        return 0.0

    def forward(self, ids):
        n = ids.shape[1]
        x = self.embed(ids)
        if self.scheme == "waves":
            x = x + waves(torch.arange(n), D).float()
        if self.scheme == "learned":
            x = x + self.table[:n]
        bias = self.bias(n)
        for block in self.blocks:
            q, k, v = block["qkv"](block["norm1"](x)).unflatten(-1, (3 * HEADS, -1)).transpose(1, 2).chunk(3, 1)
            if self.scheme == "RoPE":
                q, k = turned(q), turned(k)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias + self.pull(q, k))
            x = x + block["out"](mixed.transpose(1, 2).flatten(-2))
            x = x + block["down"](F.gelu(block["up"](block["norm2"](x))))
        return self.head(x)


def pieces(source, count, n, g):
    starts = torch.randint(0, len(source) - n - 1, (count, 1), generator=g)
    rows = source[starts + torch.arange(n + 1)]
    return rows[:, :-1], rows[:, 1:]


def race(scheme, steps=250, rate=4e-3, make=Reader):
    """Trains one reader: its training losses, and its loss at each position of long texts, the same for all."""
    torch.manual_seed(0)
    reader, g = make(scheme), torch.Generator().manual_seed(0)
    optimizer, losses = torch.optim.AdamW(reader.parameters(), rate, fused=True), []
    for _ in range(steps):
        x, y = pieces(training, 24, TRAINED, g)
        loss = F.cross_entropy(reader(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    n = TRAINED if scheme == "learned" else TESTED
    with torch.no_grad():
        x, y = pieces(held, 32, TESTED, torch.Generator().manual_seed(1))
        by_place = F.cross_entropy(reader(x[:, :n]).transpose(1, 2), y[:, :n], reduction="none").mean(0)
    return losses, by_place


SCHEMES = ["none", "waves", "learned", "ALiBi", "RoPE", "T5 bias"]
runs = {scheme: race(scheme) for scheme in SCHEMES}
WIDE = 16
fig, ax = figure(width=9, height=4.2)
for (scheme, (_, by_place)), color, style, marker in zip(
    runs.items(), COLORS, ["-", "--", ":", "-", "-.", "--"], "osD^vP", strict=False
):
    ax.plot(torch.arange(WIDE // 2, len(by_place), WIDE), by_place.view(-1, WIDE).mean(1), color=color, linestyle=style,
            marker=marker, markersize=4, label=scheme)
ax.axvline(TRAINED, color="#555555", linewidth=1)
ax.text(TRAINED + 6, ax.get_ylim()[1], "trained up to here", verticalalignment="top", fontsize=9)
ax.set(xlabel="position in the text", ylabel="loss on unseen text\n(nats a letter)")
ax.legend(ncols=6, loc="upper center", bbox_to_anchor=(0.5, -0.18))
near = {scheme: float(by_place[WIDE:TRAINED].mean()) for scheme, (_, by_place) in runs.items()}
far = {scheme: float(by_place[-128:].mean()) for scheme, (_, by_place) in runs.items() if scheme != "learned"}
rise = {scheme: far[scheme] - near[scheme] for scheme in sorted(far, key=lambda scheme: far[scheme] - near[scheme])}
told = ", ".join(f"{scheme} {by:+.2f}" for scheme, by in rise.items())
show(
    fig,
    alt=f"Loss against position for six models trained on {TRAINED} letters and tested on {TESTED}; the learned table "
    f"ends at {TRAINED}. Loss at positions 384 to 511 against that within the trained length: {told}.",
    title=f"At eight times the length: {told} nats",
)
print(f"{'':12}loss within the trained length   at positions 384 to 511")
for scheme in SCHEMES:
    print(f"{scheme:12}{near[scheme]:10.2f}{'no rows' if scheme == 'learned' else f'{far[scheme]:.2f}':>34}")
kept_race = evidence("T07.7")
gained = mixing.gain(kept_race, "waves", "none", "near")
surely = {
    scheme: interval(kept_race.each(mixing.best(kept_race, scheme), "far")).mean
    - interval(kept_race.each(mixing.best(kept_race, scheme), "near")).mean
    for scheme in mixing.ALONE
}
at_edge = [scheme.replace("none", "no positions") for scheme in (*mixing.ALONE, *mixing.MIXED)
           if mixing.best_rate(kept_race, scheme) in (mixing.RATES[0], mixing.RATES[-1])]
print(f"In the kept race, best at the edge of the rates that were tried: {', '.join(at_edge) or 'nothing'}.")
fine, long = gained.above(0.05), surely["waves"] <= 0.1
verdict(
    "T03.7",
    "unverifiable" if min(surely.values()) > 0.1 else ("wrong", "imprecise", "correct")[fine + long],
    f"Three seeds, each encoding at its best rate: within the trained length waves are {gained.text('.2f')} nats "
    "better than no positions (95 %). From there to eight times that length: "
    + ", ".join(f"{scheme} {by:+.2f}" for scheme, by in surely.items()) + ".",
)

# %% [markdown]
# Waves are *defined* everywhere, which is not the same as working everywhere; the paper's word is that they *may* do.
# ALiBi was made for this: it subtracts something for each step back, in texts of any length. (An encoding that is named
# as lying at the edge of the rates may have its optimum beyond it.)
#
# Look for the model with *no positions*, too. It has no code that could become unfamiliar, only the mask. Kazemnejad
# et al. (2023, arXiv:2305.19466) found that such decoders cope with longer problems than those with encodings. By 2026
# several models mix the two: SmolLM3 and Llama 4 have RoPE in three layers of four, and no positions in the fourth.
#
# (The picture has one seed and one rate for all, tiny models, pieces of a few dozen letters: look at the shape of the
# curves, not at the second digit.)

# %% [markdown]
# ### What your scores learn
#
# A seventh model gets your `relative_scores`: one table of vectors for up to 32 letters back, for both layers. After a
# hundred steps we ask the first layer what it has learned. Before it nothing but the letter has gone into a query, so
# each letter can have a picture of its own of which distances it wants to read. T5's bias would have the same row for
# every letter. Of the four heads we show the one in which letters differ most.

# %% tags=["payoff"]
class Shaw(Reader):
    """A reader whose queries meet a vector for each distance."""

    def __init__(self, scheme):
        super().__init__(scheme)
        self.vectors = torch.nn.Parameter(torch.zeros(2 * 32 + 1, D // HEADS))
        kept.append(self)

    def pull(self, q, k):
        return relative_scores(q, torch.zeros_like(k), self.vectors)


kept = []
relative_scores(torch.ones(1, 1, 2), torch.ones(1, 1, 2), torch.ones(1, 2))
trained_losses, shaw = race("Shaw", steps=100, rate=1e-2, make=Shaw)
with torch.no_grad():
    reader, block = kept[0], kept[0].blocks[0]
    asked = block["qkv"](block["norm1"](reader.embed.weight))[:, :D].unflatten(-1, (HEADS, 1, D // HEADS))
    wanted = reader.pull(asked, torch.zeros(len(letters), HEADS, 17, D // HEADS))[:, :, 0].flip(-1)  # 0 to 16 back
    wanted = wanted - wanted.mean(-1, keepdim=True)
varied = (wanted - wanted.mean(0)).square().mean((0, 2))
head = int(varied.argmax())
own = float(varied[head] / wanted[:, head].square().mean())
LETTERS = " ,aeiouhnrstQ\n"
rows = wanted[[number[letter] for letter in LETTERS], head]
limit = float(rows.abs().max())
fig, ax = figure(width=7.6, height=4.4)
picture = ax.imshow(rows, cmap=DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
ax.set_yticks(range(len(LETTERS)), [{" ": "space", "\n": "line end"}.get(letter, letter) for letter in LETTERS])
ax.set(xlabel="letters back", ylabel="the query's letter", xticks=range(0, 17, 4))
fig.colorbar(picture, ax=ax, label="score for the distance (mean taken off)")
show(
    fig,
    alt="A map of what the first layer's queries give each distance, a row for each letter and a column for each "
    f"distance up to 16. The letter decides {own:.0%} of the variance of these scores.",
    title=f"First layer, head {head + 1}: the letter decides {own:.0%} of what a distance is worth",
)
print(f"training loss {trained_losses[0]:.2f} -> {sum(trained_losses[-20:]) / 20:.2f}; unseen text within {TRAINED} "
      f"letters {float(shaw[WIDE:TRAINED].mean()):.2f}, at 384 to 511 {float(shaw[-128:].mean()):.2f} nats a letter")

# %% [markdown]
# The more the letter decides, the more there is that a number for each distance can't say. The price: T5's bias is one
# number a pair, looked up in a table; a dot product of each query with a vector for each distance is a second matrix of
# scores. RoPE's score depends on the query and on the distance as well, and needs no second matrix.
#
# ## Both kinds at once?
#
# "Mixed encodings combine absolute and relative ones to the advantage of both." Models with both exist: TUPE (Ke et al.
# 2020, arXiv:2006.15595), DeBERTa (He et al. 2020, arXiv:2006.03654). `experiments/T07_7.py` trains small readers with
# waves, with T5's bias, ALiBi, or Shaw's vectors, and with waves *and* one of these, each at the best of three rates
# (chosen on a validation text; the race above names those that lie at the edge), on pieces of 64 letters with three
# seeds. Two controls: T5's bias beside nothing has to show, and a code that is the same in all places, beside T5's
# bias, must not.
#
# **Before the run:** a mix *beats both* where it is surely more than 0.01 nats a letter better than each of its two
# parts alone. *Correct* if all three mixes beat both within the trained length, and at eight times that length none is
# surely more than 0.01 worse than one of its parts; *wrong* if none beats both at either length; *imprecise* otherwise.

# %% claim="T07.7"
from labkit.display import minus

found = kept_race
print(found.again())
fig, axes = figure(1, 2, width=10.6, height=4.2, sharey=True)
ROWS = [*mixing.ALONE, *mixing.MIXED]
for ax, (where, label) in zip(axes, {"near": "within 64 letters", "far": "at 384 to 511"}.items(), strict=True):
    for row, scheme in enumerate(ROWS):
        losses = found.each(mixing.best(found, scheme), where)
        ax.scatter(losses, [row] * len(losses), color=COLORS[row >= len(mixing.ALONE)], s=40,
                   marker="D" if row >= len(mixing.ALONE) else "o")
    ax.set(xlabel=f"loss on the test text, {label}\n(nats a letter)")
axes[0].set_yticks(range(len(ROWS)), [f"{scheme}\nrate {mixing.best_rate(found, scheme):g}" for scheme in ROWS])
axes[0].invert_yaxis()
worst = {}  # the gain of a mix over the better one of its parts
for mix in mixing.MIXED:
    for where in ("near", "far"):
        gains = [mixing.gain(found, mix, part, where) for part in mix.split(" + ")]
        worst[mix, where] = min(gains, key=lambda gain: gain.mean)
told = {where: "; ".join(f"{mix} {minus(worst[mix, where].text('+.2f'))}" for mix in mixing.MIXED)
        for where in ("near", "far")}
winners = {where: [mix for mix in mixing.MIXED if mixing.beats_both(found, mix, where)] for where in ("near", "far")}
behind = [mix for mix in mixing.MIXED if mixing.falls_behind(found, mix, "far")]
show(
    fig,
    alt="Dots for three seeds: the loss of five encodings alone and three mixes, within the trained length and far "
    f"beyond. Gain of each mix over the better one of its parts (95 %), within: {told['near']}; beyond: {told['far']}.",
    title=f"Better than both parts for sure: within the trained length {len(winners['near'])} of {len(mixing.MIXED)} "
    f"mixes, far beyond it {len(winners['far'])}; far beyond {len(behind)} are surely worse than one part",
)
for scheme in ("waves", "T5", "Shaw"):
    (weights,) = {*found.each(mixing.best(found, scheme), "weights")}
    (bare,) = {*found.each(mixing.best(found, "none"), "weights")}
    print(f"{scheme:6} adds {weights - bare:,} weights to {bare:,}")
verdict(
    "T07.7",
    "correct" if len(winners["near"]) == len(mixing.MIXED) and not behind
    else "imprecise" if winners["near"] or winners["far"] else "wrong",
    f"Nats a letter that a mix gains over the better one of its parts (95 %), within the trained length: "
    f"{told['near']}; at eight times that length: {told['far']}.",
)

# %% [markdown]
# Two lengths, two questions. Within the trained one: is there anything left to complement, once a relative encoding has
# the distances? Beyond it: the relative part may hold, but the absolute codes, which the model has never seen there,
# stay in the sum. Compare a mix with its relative part in the right picture.
#
# ## Three more sentences from the same runs
#
# "Relative instead of absolute encodings capture long-range dependencies better." That can mean two things: that a text
# longer than those of the training is read well, or that what stands far back, but within the trained length, is put to
# better use. The runs above have both. For the second we ask how much the loss falls from letters 16 to 31 of a piece
# to letters 48 to 63: that is what the context further back is worth to a model.
#
# "It makes the model more complex." That can be counted. And "positions have to be added explicitly" has two halves:
# that it doesn't go without any, and that they have to be added to the input.
#
# **Before the run:** T07.6 is *correct* if T5's bias, ALiBi and Shaw's vectors are each surely more than 0.01 nats a
# letter better than waves at eight times the length, *and* each surely gains more than waves from the context further
# back; *wrong* if none does either; *imprecise* otherwise. T04.5 is *correct* if each of the three adds weights to the
# model without positions, *wrong* if none adds any, *imprecise* otherwise. T03.2 is *correct* if the model without
# positions is surely more than 0.01 worse than waves at both lengths, and the three relative ones, which add nothing to
# the input, are so at one of them; *wrong* if the model without positions is so at neither; *imprecise* otherwise.

# %% claim="T07.6"
RELATIVE = ("T5", "ALiBi", "Shaw")


def context_worth(scheme):
    """Seed by seed, how much lower the loss is at letters 48 to 63 than at 16 to 31."""
    return [places[1] - places[3] for places in found.each(mixing.best(found, scheme), "by_place")]


further = {scheme: mixing.gain(found, scheme, "waves", "far") for scheme in RELATIVE}
deeper = {scheme: interval([a - b for a, b in zip(context_worth(scheme), context_worth("waves"), strict=True)])
          for scheme in RELATIVE}
reads_on = [scheme for scheme in RELATIVE if further[scheme].above(mixing.COUNTS)]
looks_back = [scheme for scheme in RELATIVE if deeper[scheme].above(0)]
fig, ax = figure(width=8.8, height=3.6)
for scheme, color, style in zip(("waves", *RELATIVE), COLORS, ("-", "--", ":", "-."), strict=False):
    curves = torch.tensor(found.each(mixing.best(found, scheme), "by_place"))
    ax.plot(8 + 16 * torch.arange(curves.shape[1]), curves.mean(0), color=color, linestyle=style, label=scheme)
ax.axvline(64, color="#777777", linewidth=1)
ax.text(67, ax.get_ylim()[1], "trained up to here", va="top", fontsize=9)
ax.set(xlabel="place in the text (letters)", ylabel="loss, mean of 16 letters\n(nats a letter)")
ax.legend(ncols=2)
far_off = {scheme: minus(further[scheme].text("+.2f")) for scheme in RELATIVE}
near_by = {scheme: minus(deeper[scheme].text("+.3f")) for scheme in RELATIVE}
show(
    fig,
    alt="Loss against the place in the text, up to eight times the trained length, for waves and three relative "
    "encodings. Nats a letter below waves at the end (95 %): "
    + "; ".join(f"{scheme} {told}" for scheme, told in far_off.items()) + ".",
    title=f"At eight times the length {len(reads_on)} of {len(RELATIVE)} relative encodings are surely ahead of waves; "
    f"of the context within the trained length {len(looks_back)} make more",
)
verdict(
    "T07.6",
    "correct" if len(reads_on) == len(looks_back) == len(RELATIVE)
    else "wrong" if not reads_on and not looks_back else "imprecise",
    "Nats a letter below waves at eight times the length (95 %): "
    + "; ".join(f"{scheme} {told}" for scheme, told in far_off.items())
    + ". More gained than waves from the context further back, within the trained length: "
    + "; ".join(f"{scheme} {told}" for scheme, told in near_by.items()) + ".",
)

# %% claim="T04.5"
(bare,) = {*found.each(mixing.best(found, "none"), "weights")}
added = {scheme: found.each(mixing.best(found, scheme), "weights")[0] - bare for scheme in RELATIVE}
verdict(
    "T04.5",
    "correct" if all(added.values()) else "imprecise" if any(added.values()) else "wrong",
    f"Weights added to {bare:,}: " + ", ".join(f"{scheme} {count:,}" for scheme, count in added.items()) + ".",
)

# %% claim="T03.2"
lost = {scheme: {where: mixing.gain(found, "waves", scheme, where) for where in ("near", "far")}
        for scheme in ("none", *RELATIVE)}
worse = {scheme: [where for where, by in of.items() if by.above(mixing.COUNTS)] for scheme, of in lost.items()}
verdict(
    "T03.2",
    "wrong" if not worse["none"]
    else "correct" if len(worse["none"]) == 2 and all(worse[scheme] for scheme in RELATIVE) else "imprecise",
    "Nats a letter worse than waves (95 %), within the trained length and at eight times it: "
    + "; ".join(f"{scheme} {minus(of['near'].text('+.2f'))}, {minus(of['far'].text('+.2f'))}"
                for scheme, of in lost.items()) + ".",
)

# %% [markdown]
# ## Is a learned table unstable to train?
#
# The notes give that as its drawback. We have the training curves of all six, and look how far each ever climbs above
# the best it had reached. As a control, a seventh run is *made* unstable: the learned table at 25 times the rate.
#
# **Before the run:** a run is unstable if its loss, as a mean over 15 steps, climbs by more than 0.3 nats. *Correct* if
# the learned table's does and that of the waves doesn't, *imprecise* if both do, *wrong* if it doesn't.
# *Unverifiable* if the control doesn't either.

# %% claim="T04.11"
fig, ax = figure(width=9, height=3.6)
jumps = {}
curves = runs | {"control": race("learned", steps=60, rate=0.1)}
STYLES = ["-", "--", ":", "-", "-.", "--", ":"]
for (scheme, (losses, _)), color, style in zip(curves.items(), COLORS, STYLES, strict=True):
    smooth = torch.tensor(losses).unfold(0, 15, 1).mean(-1)
    jumps[scheme] = float((smooth - smooth.cummin(0).values).max())
    ax.plot(range(15, len(losses) + 1), smooth, color=color, linestyle=style, linewidth=1.6,
            label=f"{scheme}: {jumps[scheme]:.2f}")
ax.set(xlabel="training step", ylabel="training loss\n(nats a letter, mean of 15)")
ax.legend(title="largest climb (nats)", fontsize=9, ncols=2)
ax.set_yscale("log")  # for the control
ax.set_yticks([2, 3, 5, 10, 30, 100], ["2", "3", "5", "10", "30", "100"])
ax.minorticks_off()
others = [jump for scheme, jump in jumps.items() if scheme not in ("learned", "control")]
late = {scheme: sum(runs[scheme][0][-50:]) / 50 for scheme in ("learned", "waves")}
show(
    fig,
    alt="Training loss of the six models and of the control against the step. Largest climb above the best so far: "
    + ", ".join(f"{scheme} {jump:.2f}" for scheme, jump in jumps.items())
    + " nats.",
    title=f"Largest climb in training: learned table {jumps['learned']:.2f} nats, the others "
    f"{min(others):.2f} to {max(others):.2f}, the control {jumps['control']:.2f}",
)
if jumps["control"] <= 0.3:
    word = "unverifiable"
else:
    word = "wrong" if jumps["learned"] <= 0.3 else "imprecise" if jumps["waves"] > 0.3 else "correct"
verdict(
    "T04.11",
    word,
    f"The learned table's loss never climbs by more than {jumps['learned']:.2f} nats, that of the control by "
    f"{jumps['control']:.2f}. Over its last 50 steps the table has {late['learned']:.2f}, the waves "
    f"{late['waves']:.2f}.",
)

# %% [markdown]
# That is a small model, one seed, and a rate that all share. The first Transformer's paper found "nearly identical
# results" with a learned table (table 3, row E), and BERT and GPT-2 were trained with one. What a table can't avoid is
# that each of its rows starts from chance and is learned from the texts that reach it. And it has an end.
#
# ## Added, and fixed?
#
# Two sentences of the notes that are quickly looked at. "The codes are added to the word vectors": we take MiniLM's own
# input, before its first norm, apart. And "sinusoids make sure that the codes don't change in training", as a property
# of absolute encodings: a reader with waves and one with a learned table are trained for 60 steps, and we look at both
# codes before and after: not at the formula or the parameter, but at what the model adds to its words.
#
# **Before the run:** T03.4 is *correct* if word vector plus the place's row (plus the row that BERT has for its
# segment) give the input to a thousandth of its size, *wrong* if not. To leave out the places, or to multiply with
# them, are the controls: if one of them is within a thousandth, too, the claim is *unverifiable* this way. T03.6 is
# *correct* if neither code changes, *imprecise* if the waves stay, to a millionth of their size, and the table moves by
# over 1 % of its own, *wrong* if the waves move.

# %% claim="T03.4"
parts = encode.model.embeddings
ids = torch.randint(1_000, 20_000, (4, 60), generator=g)
inputs = []
hook = parts.LayerNorm.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
with torch.no_grad():
    parts(input_ids=ids)
    hook.remove()
    word, place = parts.word_embeddings(ids), parts.position_embeddings(torch.arange(60))
    segment = parts.token_type_embeddings(torch.zeros(1, dtype=torch.long))
    off = {name: float((made - inputs[0]).norm() / inputs[0].norm()) for name, made in {
        "word + place + segment": word + place + segment, "without the place": word + segment,
        "word * place + segment": word * place + segment}.items()}
added_up, *others = (by < 1e-3 for by in off.values())
verdict("T03.4", "unverifiable" if any(others) else "correct" if added_up else "wrong",
        "Distance from MiniLM's own input, as a share of its size: "
        + ", ".join(f"{name} {by:.1g}" for name, by in off.items()) + ".")

# %% claim="T03.6"
class Kept(Reader):
    """A reader that remembers its code as it was."""

    def __init__(self, scheme):
        super().__init__(scheme)
        self.first = self.code()
        kept.append(self)

    @torch.no_grad()
    def code(self):
        """What is added to one letter at every place: the first block's input without the letter's own vector."""
        ids, inputs = torch.zeros(1, TRAINED, dtype=torch.long), []
        hook = self.blocks[0]["norm1"].register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
        self(ids)
        hook.remove()
        return (inputs[0] - self.embed(ids))[0].double()


kept, moved = [], {}
for scheme in ("waves", "learned"):
    race(scheme, steps=60, make=Kept)
    reader = kept[-1]
    moved[scheme] = float((reader.code() - reader.first).norm() / reader.first.norm())
stays, shifts = moved["waves"] < 1e-6, moved["learned"] > 0.01
verdict("T03.6", "wrong" if not stays else "imprecise" if shifts else "correct",
        f"After 60 steps the waves have moved by {moved['waves']:.0%} of their size, the learned table by "
        f"{moved['learned']:.0%}.")

# %% [markdown]
# ## What you have now
#
# | | acts on | parameters | past the trained length |
# |---|---|---|---|
# | waves | input, once | none | defined, but unfamiliar |
# | learned table | input, once | one row a place | no rows |
# | T5's buckets | scores, every layer | one number a bucket and head | all in the last bucket |
# | Shaw | scores, every layer | a vector a distance | the outermost vector |
# | Transformer-XL | scores, every layer | a matrix for all distances, and $u$, $v$ | vectors made, but unfamiliar |
# | ALiBi | scores, every layer | none | made for it |
# | RoPE | queries and keys, every layer | none | unfamiliar angles; can be scaled |
#
# Why, then, do most of today's models use the last row? That is the next chapter.
