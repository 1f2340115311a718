# ---
# jupyter:
#   course:
#     title: "Position encodings"
#     exercises: transformer.position_encodings
#     questions: [T03, T04]
# ---

# %% [markdown]
# # Position encodings
#
# *Dog bites man. Man bites dog.* The same three words, and two very different days for the dog. Attention compares
# contents, and a content doesn't say where it stood. So order has to be brought in from outside, and there are three
# places to do it: at the **input**, as a vector added to each word; in the **scores**, as a number that depends on the
# distance; or in the **queries and keys**, by turning them, which is the next chapter.
#
# Here you build two of the first kind (fixed waves, and a learned table) and two of the second (T5's buckets, ALiBi's
# slopes). Then five small models compete on texts eight times as long as those they were trained on. Interview notes
# have much to say about who wins; we look.

# %% tags=["setup"]
import math

import torch
import torch.nn.functional as F

from autograde import check
from labkit import COLORS, DIVERGING, SEQUENTIAL, figure, minilm, shakespeare, show

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
show(
    fig,
    alt="For four pairs of sentences with the same words in another order: cosine of their vectors. With positions "
    "it is below one, without positions exactly one for all.",
    title=f"Without positions all four pairs are the same sentence: cosine {min(without):.3f} at least",
)

# %% [markdown]
# With its positions the model still finds the pairs very similar, since it mostly listens to the words. But it *can*
# tell them apart. Without positions it can't, whatever its 22 million parameters are.
#
# ## "It holds no order information"
#
# That is what the bank says of the Transformer. The picture above seems to prove it, but BERT reads in both
# directions. What if a word may only look back? We shuffle the words of one layer of plain attention, without any
# positions, and ask: is the result the old one, shuffled? Once without a mask, once with a causal mask.

# %% claim="T03.1"
def shuffled_difference(causal, seed):
    """Largest difference between attention of the shuffled words and the shuffled result, in float64."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 12, 16, generator=g, dtype=torch.float64)
    w_q, w_k, w_v = torch.randn(3, 16, 16, generator=g, dtype=torch.float64) / 4
    order = torch.randperm(12, generator=g)

    def attend(x):
        return F.scaled_dot_product_attention(x @ w_q, x @ w_k, x @ w_v, is_causal=causal)

    return float((attend(x[:, order]) - attend(x)[:, order]).abs().max())


spread = {name: [shuffled_difference(causal, seed) for seed in range(20)]
          for name, causal in {"no mask": False, "causal mask": True}.items()}
fig, ax = figure(width=7.5, height=2.6)
for row, found in enumerate(spread.values()):
    ax.scatter(found, [row] * len(found), color=COLORS[row], marker="os"[row], alpha=0.6)
ax.set_yticks([0, 1], list(spread))
ax.set(xscale="log", ylim=(-0.6, 1.6), xlabel="largest difference (20 draws)")
ax.invert_yaxis()
show(
    fig,
    alt="Twenty dots each: without a mask the shuffled input gives the shuffled result up to rounding, with a causal "
    "mask the difference is of the size of the numbers themselves.",
    title="Attention alone can't feel the order; a causal mask already can",
)
print({name: f"{max(found):.0e} at most" for name, found in spread.items()})

# %% [markdown]
# **Imprecise**, then. Without a mask attention is *permutation-equivariant*: it sees a bag of words. A causal mask
# breaks the symmetry, since the third word sees three keys and the fourth sees four. That is enough for language
# models without any position encoding to learn something (Haviv et al. 2022, arXiv:2203.16634), and one of our five
# below is such a one.
#
# ## Waves
#
# The first Transformer writes the position like a clock with many hands. Pair $i$ of the $d$ columns turns with the
# speed $\theta_i = 10000^{-2i/d}$:
#
# $$PE_{p,\,2i} = \sin(p\,\theta_i), \qquad PE_{p,\,2i+1} = \cos(p\,\theta_i).$$
#
# The first hands go round every six positions, the last ones every sixty thousand. Together they name every place.

# %% tags=["demo"]
def waves(positions, d=64):
    """The formula above, for any positions, in float64: [len(positions), d]."""
    angle = positions[:, None].double() * 10_000.0 ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)


fig, ax = figure(width=9, height=3.6)
picture = ax.imshow(waves(torch.arange(120)).T, cmap=DIVERGING, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
ax.set(xlabel="position", ylabel="column of the encoding")
fig.colorbar(picture, ax=ax, label="value (no unit)")
show(
    fig,
    alt="The encoding of 120 positions in 64 columns as a map. The upper rows alternate quickly, the lower ones hardly "
    "change.",
    title="Fast waves tell neighbours apart, slow ones tell regions apart",
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
# 6, and positions 100 and 101, have similar codes, but the model can't see their distance". That can be computed. The
# dot product of two codes is
#
# $$PE_p \cdot PE_q = \sum_i \left(\sin p\theta_i \sin q\theta_i + \cos p\theta_i \cos q\theta_i\right)
# = \sum_i \cos\big((p-q)\,\theta_i\big),$$
#
# and in the last sum there is no $p$ and no $q$, only the distance.

# %% claim="T03.9"
codes = waves(torch.arange(102), 512)
print("dot product of 5 and 6:     ", f"{codes[5] @ codes[6]:.6f}")
print("dot product of 100 and 101: ", f"{codes[100] @ codes[101]:.6f}")
cosine = F.cosine_similarity(codes[5], codes[[6, 100]], dim=-1)
print(f"cosine of 5 and 6: {cosine[0]:.2f}; of 5 and 100: {cosine[1]:.2f}")

# %% [markdown]
# **Wrong**: both pairs are a distance of one apart, and their dot products agree to the last printed digit. The codes
# of 5 and 100, on the other hand, aren't that similar.
#
# What about a *learned* table? Nobody told it anything about distances. MiniLM's table has been trained, so we can ask
# it. For three starting places, the similarity to the places before and after:

# %% claim="T03.8"
STARTS, REACH = (100, 150, 200), 60
offsets = torch.arange(-REACH, REACH + 1)
tables = {"sinusoidal": waves(torch.arange(300), 384), "learned (MiniLM)": learned.double()}
fig, axes = figure(1, 2, width=9.2, height=3.5, sharey=True)
unlike = {}
for ax, (name, table) in zip(axes, tables.items(), strict=True):
    rows = table[:300] - (table[:300].mean(0) if "learned" in name else 0)
    rows = F.normalize(rows, dim=-1)
    curves = torch.stack([rows[start + offsets] @ rows[start] for start in STARTS])
    apart = curves.amax(0) - curves.amin(0)
    unlike[name] = [float(apart[offsets.abs() <= reach].max()) for reach in (5, REACH)]
    for curve, start, color, style in zip(curves, STARTS, COLORS, ["-", "--", ":"], strict=False):
        ax.plot(offsets, curve, color=color, linestyle=style, label=f"from position {start}")
    ax.set(title=name, xlabel="distance (positions)")
axes[0].set_ylabel("cosine of the codes")
axes[0].legend()
near, far = unlike["learned (MiniLM)"]
show(
    fig,
    alt="Cosine of position codes against their distance, from three starting places. For the sinusoids the three "
    "curves coincide. For the learned table they agree near zero and drift apart further away.",
    title=f"Waves know the distance alone. The learned curves differ by {near:.2f} nearby, by {far:.2f} far away",
)

g = torch.Generator().manual_seed(0)
mixed = torch.randn(384, 384, generator=g, dtype=torch.float64) / math.sqrt(384)
sines = tables["sinusoidal"]
print("through a random matrix W:")
for p in (5, 100):
    print(f"  PE({p}) W PE({p + 1}) = {sines[p] @ mixed @ sines[p + 1]:.2f}")
print("backwards is like forwards:")
for q in (53, 47):
    print(f"  PE(50)·PE({q}) = {sines[50] @ sines[q]:.3f}")

# %% [markdown]
# **Imprecise**. Waves hold the distance, and nothing else. The learned table (from which we took the mean row away
# first, since it only says "some position") has found out who its neighbours are, but far away each place has a view
# of its own. And two things are true in the notes' sentence: after learned matrices $W_Q$ and $W_K$ the score *need*
# not be a function of the distance any more, as the random matrix shows; and the plain dot product can't tell before
# from behind.
#
# The paper chose waves for another property: for each distance $k$ there is *one* matrix $M_k$ with
# $PE_{p+k} = M_k\,PE_p$, whatever $p$ is. So a layer can learn "seven words back". Is that so?

# %% claim="T03.5"
def shift_matrix(k, d):
    """The matrix that turns every pair by k positions."""
    angle = k * 10_000.0 ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    matrix = torch.zeros(d, d, dtype=torch.float64)
    even, odd = torch.arange(0, d, 2), torch.arange(1, d, 2)
    matrix[even, even] = matrix[odd, odd] = angle.cos()
    matrix[even, odd], matrix[odd, even] = angle.sin(), -angle.sin()
    return matrix


places = torch.arange(5_000)
moved = waves(places, 512) @ shift_matrix(7, 512).T
learned_shift = torch.linalg.lstsq(learned[:200].double(), learned[7:207].double()).solution
held_out = learned[207:293].double() @ learned_shift - learned[214:300].double()
size = learned[214:300].double().norm(dim=-1).mean()
print(f"waves: largest error of M_7 at 5,000 positions: {(moved - waves(places + 7, 512)).abs().max():.0e}")
miss = held_out.norm(dim=-1).mean() / size
print(f"learned table: the best M_7 for positions 0 to 199 misses positions 207 to 292 by {miss:.0%}")

# %% [markdown]
# **Correct** for the waves: one matrix for all places, up to rounding. A learned table has nothing of the kind.
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
# Your function in place of MiniLM's own: the sum of words, sentence types and your positions, through the rest of the
# model.

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
# "Beyond the training length the position information is lost", say the notes of absolute encodings in general. Whose
# information? Ask both kinds for position 512, which MiniLM has never had.

# %% claim="T03.10"
try:
    F.embedding(torch.tensor([512]), learned)
except IndexError as error:
    print(f"learned table: IndexError, {error}")
beyond = waves(torch.tensor([512, 5_000]), 384)
nearest = (waves(torch.arange(512), 384) - beyond[0]).norm(dim=-1).min()
print(f"waves: position 512 has a code, {nearest:.2f} from its nearest neighbour; so has 5,000")

# %% [markdown]
# **Wrong** for waves, true for tables. What waves lack past the trained length isn't information but *experience*: the
# model has never seen those codes. How much that matters we measure at the end.
#
# ## Numbers on the scores: T5
#
# The second place to bring in order is the score itself. Add to $q_i \cdot k_j$ a number that depends on $j - i$ alone,
# and the distance is there, undisturbed, in every layer.
#
# T5 learns these numbers, but not one for each distance. Near distances have a number each; further away they share it,
# in buckets that get wider and wider. Whether a word stands 61 or 64 places back will hardly matter.

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

    Raffel et al. 2020, arXiv:1910.10683, section 2.1, and the code published with it.
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
# ALiBi (Press et al. 2022, arXiv:2108.12409) learns nothing at all. Each step back costs a head a fixed amount, its
# slope. A head with a steep slope reads its neighbours, one with a flat slope reads far. Slopes fall geometrically from
# head to head: $2^{-8h/H}$.

# %% tags=["demo"]
back = torch.arange(0, 129)
fig, (left, right) = figure(1, 2, width=9.2, height=3.4)
for h, color in zip((1, 2, 4, 8), COLORS, strict=False):
    slope = 2.0 ** -h
    left.plot(back, -slope * back, color=color)
    right.plot(back, (-slope * back).softmax(-1).cumsum(-1), color=color, label=f"head {h}: slope 1/{2**h}")
left.set(xlabel="distance back (positions)", ylabel="bias (added to the score)", ylim=(-20, 1))
right.set(xlabel="distance back (positions)", ylabel="weight within this distance", ylim=(0, 1.05))
right.legend(fontsize=9, loc="lower right")
show(
    fig,
    alt="Left: four straight lines that fall with distance, with slopes from a half to one 256th. Right: the share of "
    "attention within a distance, if contents were all alike: the steep heads spend all on a few neighbours.",
    title="ALiBi: each head has its own range of sight, if all contents were alike",
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

    Press et al. 2022, arXiv:2108.12409, section 3, and the code published with it.
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
between = torch.arange(24)[None, :] - torch.arange(24)[:, None]
buckets = relative_position_bucket(between, num_buckets=16, max_distance=24)
weights = alibi_bias(8, 24).softmax(-1)
fig, axes = figure(1, 4, width=9.6, height=3.0, sharey=True)
axes[0].imshow(buckets, cmap=SEQUENTIAL)
axes[0].set(title="T5: bucket", xlabel="key", ylabel="query")
for ax, head in zip(axes[1:], (0, 3, 7), strict=True):
    picture = ax.imshow(weights[head], cmap=SEQUENTIAL, vmin=0, vmax=0.6)
    ax.set(title=f"ALiBi: head {head + 1}", xlabel="key")
fig.colorbar(picture, ax=axes[1:], label="weight, contents alike", shrink=0.8)
show(
    fig,
    alt="Left: T5's buckets as a map, constant along the diagonals. Right: the attention that ALiBi's bias alone "
    "gives, for a steep, a middle and a flat head: from a narrow band to the whole past.",
    title="Your two biases: constant along diagonals, so the distance is all they know",
)

# %% [markdown]
# ## Train short, test long
#
# Now the race. Five language models of the same size and the same seed learn letters of Shakespeare for the same number
# of steps, on pieces of 64 letters: no positions, waves, a learned table, ALiBi, and RoPE (next chapter). Then each
# reads pieces of 512 letters, and we plot the loss against the position.
#
# If an encoding copes with longer texts, its curve stays flat past 64. The learned table ends there: it has no rows.

# %% claim="T03.7"
TRAINED, TESTED, D, HEADS = 64, 512, 64, 4
text = shakespeare()
letters = sorted(set(text))
number = {letter: i for i, letter in enumerate(letters)}
data = torch.tensor([number[letter] for letter in text[:600_000]])
training, held = data[:500_000], data[500_000:]


def alibi_slopes():
    return torch.tensor([2.0 ** (-8 * h / HEADS) for h in range(1, HEADS + 1)])


def turned(x):
    """RoPE in pairs of halves."""
    angle = torch.arange(x.shape[-2])[:, None] * 10_000.0 ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


class Reader(torch.nn.Module):
    """Two pre-norm layers over letters, with one of five kinds of positions."""

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

    def forward(self, ids):
        n = ids.shape[1]
        x = self.embed(ids)
        if self.scheme == "sinusoidal":
            x = x + waves(torch.arange(n), D).float()
        if self.scheme == "learned":
            x = x + self.table[:n]
        offset = torch.arange(n)[None, :] - torch.arange(n)[:, None]
        slopes = alibi_slopes() if self.scheme == "ALiBi" else torch.zeros(HEADS)
        bias = (slopes[:, None, None] * offset).masked_fill(offset > 0, -torch.inf)[None]
        for block in self.blocks:
            q, k, v = block["qkv"](block["norm1"](x)).unflatten(-1, (3 * HEADS, -1)).transpose(1, 2).chunk(3, 1)
            if self.scheme == "RoPE":
                q, k = turned(q), turned(k)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
            x = x + block["out"](mixed.transpose(1, 2).flatten(-2))
            x = x + block["down"](F.gelu(block["up"](block["norm2"](x))))
        return self.head(x)


def pieces(source, count, n, g):
    starts = torch.randint(0, len(source) - n - 1, (count, 1), generator=g)
    rows = source[starts + torch.arange(n + 1)]
    return rows[:, :-1], rows[:, 1:]


def race(scheme, steps=250):
    """Trains one reader: its training losses, and its loss at each position of long texts."""
    torch.manual_seed(0)
    reader, g = Reader(scheme), torch.Generator().manual_seed(0)
    optimizer, losses = torch.optim.AdamW(reader.parameters(), 4e-3, fused=True), []
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
        x, y = pieces(held, 32, n, torch.Generator().manual_seed(1))
        by_place = F.cross_entropy(reader(x).transpose(1, 2), y, reduction="none").mean(0)
    return losses, by_place


SCHEMES = ["none", "sinusoidal", "learned", "ALiBi", "RoPE"]
runs = {scheme: race(scheme) for scheme in SCHEMES}
WIDE = 16
fig, ax = figure(width=9, height=4.2)
for (scheme, (_, by_place)), color, style, marker in zip(
    runs.items(), COLORS, ["-", "--", ":", "-", "-."], "osD^v", strict=False
):
    ax.plot(torch.arange(WIDE // 2, len(by_place), WIDE), by_place.view(-1, WIDE).mean(1), color=color, linestyle=style,
            marker=marker, markersize=4, label=scheme)
ax.axvline(TRAINED, color="#555555", linewidth=1)
ax.text(TRAINED + 6, ax.get_ylim()[1], "trained up to here", verticalalignment="top", fontsize=9)
ax.set(xlabel="position in the text", ylabel="loss on unseen text\n(nats a letter)")
ax.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.18))
near = {scheme: float(by_place[WIDE:TRAINED].mean()) for scheme, (_, by_place) in runs.items()}
far = {scheme: float(by_place[-128:].mean()) for scheme, (_, by_place) in runs.items() if scheme != "learned"}
best = min(far, key=far.get)
show(
    fig,
    alt="Loss against position for five models trained on 64 letters and tested on 512. ALiBi stays flat; the waves "
    "and RoPE get worse past the trained length; the learned table ends there.",
    title=f"Eight times further than trained, {best} loses least: {far[best] - near[best]:+.2f} nats; "
    f"waves {far['sinusoidal'] - near['sinusoidal']:+.2f}, RoPE {far['RoPE'] - near['RoPE']:+.2f}",
)
print(f"{'':12}loss within the trained length   at positions 384 to 511")
for scheme in SCHEMES:
    print(f"{scheme:12}{near[scheme]:10.2f}{'no rows' if scheme == 'learned' else f'{far[scheme]:.2f}':>34}")

# %% [markdown]
# "Sinusoids suit long sequences" is **imprecise** at best. They are *defined* everywhere, which is not the same as
# working everywhere. The paper only says they *may* allow longer texts than those of the training. RoPE, an absolute
# turning that makes relative scores, isn't spared either; ALiBi was made for this, and pays by seeing little of the far
# past. (One seed, one tiny model, 64 letters: look at the shape of the curves, not at the second digit.)
#
# ## Is a learned table unstable to train?
#
# The notes give that as its drawback. We have the training curves of all five.

# %% claim="T04.11"
fig, ax = figure(width=9, height=3.6)
jumps = {}
for (scheme, (losses, _)), color, style in zip(runs.items(), COLORS, ["-", "--", ":", "-", "-."], strict=False):
    smooth = torch.tensor(losses).unfold(0, 15, 1).mean(-1)
    jumps[scheme] = float((smooth - smooth.cummin(0).values).max())
    ax.plot(range(15, len(losses) + 1), smooth, color=color, linestyle=style, linewidth=1.6,
            label=f"{scheme}: climbs by {jumps[scheme]:.2f}")
ax.set(xlabel="training step", ylabel="training loss\n(nats a letter, mean of 15)")
ax.legend(title="largest climb above the best so far", fontsize=9)
others = [jump for scheme, jump in jumps.items() if scheme != "learned"]
show(
    fig,
    alt="Training loss of the five models against the step. All fall smoothly, the learned table among the others.",
    title=f"Largest climb in training: learned table {jumps['learned']:.2f} nats, the others "
    f"{min(others):.2f} to {max(others):.2f}",
)

# %% [markdown]
# No sign of it: **wrong**, as far as a small model can tell. The first Transformer's paper found "nearly identical
# results" with a learned table (table 3, row E), and BERT and GPT-2 were trained with one. Here it learns more slowly
# than the waves, since each of its rows starts from chance. And it has an end.
#
# ## What you have now
#
# | | acts on | parameters | past the trained length |
# |---|---|---|---|
# | waves | input, once | none | defined, but unfamiliar |
# | learned table | input, once | one row a place | no rows |
# | T5's buckets | scores, every layer | one number a bucket and head | all in the last bucket |
# | ALiBi | scores, every layer | none | made for it |
# | RoPE | queries and keys, every layer | none | unfamiliar angles; can be scaled |
#
# Why, then, do most of today's models use the last row? That is the next chapter.
