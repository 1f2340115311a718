# ---
# jupyter:
#   course:
#     title: "Rotary position embedding"
#     exercises: transformer.rope
#     questions: [T04, T05]
#     needs: [01_transformer/03_position_encodings]
# ---

# %% [markdown]
# # Rotary position embedding
#
# Attention by itself can't tell *dog bites man* from *man bites dog*: it compares every query with every key, and a dot
# product doesn't know where its vectors stood. Something has to bring the places in.
#
# LLaMA, Mistral, Qwen, Gemma and most of their relatives do it by **turning** queries and keys, each by an angle that
# grows with its position. That is rotary position embedding, RoPE (Su et al. 2021, arXiv:2104.09864). In this chapter
# you build it, put it into a real model of 135 million parameters, look how far that model can see with it, and stretch
# it with one line of arithmetic.
#
# On the way we test what interview notes say about it: that it decays with distance, that it is cheaper than sinusoids,
# that it works at any length.

# %% tags=["setup"]
import contextlib
import copy
import math
import time

import torch
import torch.nn.functional as F

from autograde import check
from labkit import COLORS, DIVERGING, evidence, figure, give_back, knobs, show, smollm, verdict

# %% [markdown]
# ## Rotate, don't add
#
# Take two numbers of a query, (a, b), and read them as a point of the plane: the tip of a clock hand. A token at
# position $m$ has its hand turned by $m\theta$. A key at position $n$ has its hand turned by $n\theta$.
#
# Now compare the two. A dot product of two hands depends on their lengths and on the angle *between* them, and that
# angle has changed by $m\theta - n\theta = (m-n)\,\theta$. We told each token its absolute position, and what comes out
# is the distance. Nobody had to look up a table of distances.

# %% tags=["demo"]
def hand(ax, x, y, angle, color, radius=0.4, **style):
    """A clock hand: angle 0 points to the right, and it turns counter-clockwise, as angles do in mathematics."""
    ax.plot([x, x + radius * math.cos(angle)], [y, y + radius * math.sin(angle)], color=color, **style)


def face(ax, x, y, radius=0.45):
    ring = torch.linspace(0, 2 * math.pi, 60)
    ax.plot(x + radius * ring.cos(), y + radius * ring.sin(), color="#cccccc", linewidth=1)


fig, axes = figure(1, 3, width=9, height=3.4)
for ax, (m, n) in zip(axes, [(2, 5), (12, 15), (2, 7)], strict=True):
    face(ax, 0, 0, 1.0)
    hand(ax, 0, 0, 0.3 + 0.4 * m, COLORS[0], 0.9, linewidth=4)
    hand(ax, 0, 0, 0.9 + 0.4 * n, COLORS[1], 0.9, linewidth=4)
    score = math.cos(0.3 + 0.4 * m - 0.9 - 0.4 * n)
    ax.set_title(f"query at {m}, key at {n}\ndistance {n - m}, dot product {score:+.2f}", fontsize=11)
    ax.set_aspect("equal")
    ax.axis("off")
    ax.text(-1.05, -1.2, "query", color=COLORS[0], weight="bold")
    ax.text(0.5, -1.2, "key", color=COLORS[1], weight="bold")
show(
    fig,
    alt="Three clocks with two hands each. Moving both tokens by ten positions turns both hands and leaves the angle "
    "between them, so the dot product stays. Another distance changes it.",
    title="Move both tokens: both hands turn, the angle between them stays",
)

# %% [markdown]
# ## Many clocks, at many speeds
#
# One clock isn't enough. A fast hand tells neighbors apart, but soon comes round and shows the same time again. A slow
# hand takes long to come round, but between neighbors it hardly moves. An ordinary clock solves this with three hands.
#
# RoPE splits a head of size $d$ into $d/2$ pairs, and gives pair $i$ the speed
#
# $$\theta_i = \text{base}^{-2i/d}, \qquad i = 0, \dots, d/2 - 1, \qquad \text{angle of pair } i
# \text{ at position } p = p\,\theta_i .$$
#
# Pair 0 turns by one radian a position; each further pair is slower by the same factor. The paper took base 10,000
# from the sinusoids of the first Transformer. Below, base 100, so that you can see the slow ones move at all.

# %% tags=["demo"]
def draw_clocks(base=100.0, start=0, pairs=4, columns=10):
    fig, ax = figure(width=9, height=3.9)
    for i in range(pairs):
        speed = base ** (-2 * i / (2 * pairs))
        for column in range(columns):
            face(ax, column, -i)
            hand(ax, column, -i, (start + column) * speed, COLORS[i], linewidth=3)
    ax.set_xticks(range(columns), [str(start + c) for c in range(columns)])
    speeds = [base ** (-i / pairs) for i in range(pairs)]
    ax.set_yticks([-i for i in range(pairs)], [f"pair {i}\n{s:.3g} rad" for i, s in enumerate(speeds)])
    ax.set(xlabel="position", ylabel="pair, and its turn a position", aspect="equal")
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(length=0)
    show(
        fig,
        alt=f"A grid of clocks: a row for each of {pairs} pairs, a column for each position from {start}. The hands of "
        f"the first row turn by one radian a column, those of the last by {speeds[-1]:.2g}.",
        title=f"Every position shows its own time: {pairs} pairs, base {base:g}",
    )


draw_clocks()
knobs(draw_clocks, base=[10.0, 100.0, 10_000.0], start=(0, 60))

# %% [markdown]
# ## Exercise 1: the angles
#
# Your first function gives the time on every clock. Positions come as a tensor and may be anything: the numbers
# 0, 1, 2, … of a fresh text, the single number 57 of a chat that already has 57 tokens in its cache, or fractions.

# %% exercise="rope_angles"
def rope_angles(positions, d, base=10_000.0):
    """The angle of every pair at every position, in radians: positions * base ** (-2i/d).

    positions: integer or floating-point tensor of any shape [...], in any order, of either
               sign, also between the integers
    d:         size of one head, even; its d/2 pairs are numbered i = 0, …, d/2 - 1
    base:      an int or float greater than 1
    Returns a float32 or float64 tensor [..., d/2], also where positions are integers or
    bfloat16.

    Su et al. 2021, arXiv:2104.09864, section 3.2.2 (the paper counts pairs from 1).
    """
    ### BEGIN SOLUTION
    speeds = base ** (-torch.arange(0, d, 2) / d)
    return positions[..., None].float() * speeds
    ### END SOLUTION


# %% check="rope_angles"
check(rope_angles)

# %% [markdown]
# ## Which two numbers make a pair?
#
# The paper pairs neighbors: $(x_0, x_1), (x_2, x_3), \dots$ LLaMA's code in the transformers library pairs the two
# **halves** of the head: $(x_0, x_{d/2}), (x_1, x_{d/2+1}), \dots$
#
# Both are rotary embeddings, and neither is better: to a model that is to be trained, the order of a head's dimensions
# is all the same. What if the order changes *afterwards*? That we try below. Here is the rotation as a matrix, in both
# layouts.

# %% tags=["demo"]
def rotation_matrix(first, second, position=3, base=100.0):
    """The matrix that turns dimension first[i] against second[i]."""
    d, matrix = 2 * len(first), torch.zeros(2 * len(first), 2 * len(first))
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        angle = position * base ** (-2 * i / d)
        matrix[a, a] = matrix[b, b] = math.cos(angle)
        matrix[a, b], matrix[b, a] = -math.sin(angle), math.sin(angle)
    return matrix


layouts = {
    "the paper, GPT-J: neighbors": rotation_matrix([0, 2, 4, 6], [1, 3, 5, 7]),
    "LLaMA in transformers: halves": rotation_matrix([0, 1, 2, 3], [4, 5, 6, 7]),
}
fig, axes = figure(1, 2, width=8.6, height=4.0)
for ax, (name, matrix) in zip(axes, layouts.items(), strict=True):
    picture = ax.imshow(matrix, cmap=DIVERGING, vmin=-1, vmax=1)
    ax.set(title=name, xlabel="dimension of x", ylabel="dimension of the result", xticks=range(8), yticks=range(8))
fig.colorbar(picture, ax=axes, label="entry (no unit)", shrink=0.8)
show(
    fig,
    alt="Two 8 by 8 matrices. In the left one the non-zero entries form 2 by 2 blocks along the diagonal, in the right "
    "one they lie on the diagonal and on two lines half the size away from it.",
    title="The same four rotations, two layouts",
)

# %% [markdown]
# ## Exercise 2: the rotation
#
# A point (a, b) that turns by an angle φ lands on (a cos φ − b sin φ, b cos φ + a sin φ). Do that to all pairs at once,
# in LLaMA's layout.

# %% exercise="apply_rope"
def apply_rope(x, positions, base=10_000.0):
    """Turn each pair (x[..., i], x[..., i + d/2]) counter-clockwise, by pair i of rope_angles.

    x:         floating-point tensor [..., n, d], d even; it is left as it is
    positions: integer or floating-point tensor that broadcasts to x.shape[:-1]: [n] for one row
               of positions, or [batch, 1, n] for one row a sequence, where x is
               [batch, heads, n, d]
    base:      as in rope_angles
    Returns a tensor of the shape and the dtype of x. The angles are computed in float32 or
    float64 even where x is float16 or bfloat16, which can't tell position 1,001 from 1,000.
    Differentiable: gradients flow to x.

    Su et al. 2021, arXiv:2104.09864, section 3.4.2, with the pairs laid out as in transformers'
    LLaMA.
    """
    ### BEGIN SOLUTION
    angle = rope_angles(positions, x.shape[-1], base)
    cos, sin = angle.cos(), angle.sin()
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)
    ### END SOLUTION


# %% check="apply_rope"
check(apply_rope)

# %% [markdown]
# That the angles are computed in float32 is no small print. The package rotary-embedding-torch 0.9.1 counts places in
# the type of the queries, and bfloat16 holds each integer only up to 256: with queries in bfloat16 the tokens 256 and
# 257 stand at the same place. `findings/rotary_embedding_torch_rounds_the_positions.sh` runs it.
#
# ## What the wrong pairing does to a real model
#
# `smollm()` is a chat model with LLaMA's architecture, trained with pairs of halves. We feed it the other layout. No
# error is raised, all shapes fit, vectors keep their lengths, and scores still depend on the distance alone.

# %% tags=["demo"]
model, tokenizer = smollm()
from transformers.models.llama import modeling_llama as llama

D, BASE = model.config.head_dim, model.config.rope_parameters["rope_theta"]
rotate_as_trained = llama.apply_rotary_pos_emb
NEIGHBORS = torch.arange(D).view(-1, 2).T.flatten()  # 0, 2, 4, …, 1, 3, 5, …: neighbors become halves
AS_IN_GGUF = torch.arange(D).view(2, -1).T.flatten()  # 0, D/2, 1, D/2 + 1, …: halves become neighbors


def rotating(order):
    """The usual rotation after the dimensions were put into another order. q·k doesn't feel that they stay there."""
    return lambda q, k, *angles, **options: rotate_as_trained(q[..., order], k[..., order], *angles, **options)


@contextlib.contextmanager
def changed(owner, **attributes):
    """Sets attributes of a module or an object, and puts the old ones back afterwards."""
    before = {name: getattr(owner, name) for name in attributes}
    try:
        for name, value in attributes.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


@torch.inference_mode()
def losses(ids):
    """What each token but the first costs the model, in nats: [n - 1]."""
    return F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")


@torch.inference_mode()
def answer(question, tokens=20):
    """The chat so far, and what the model says next: two rows of token ids."""
    chat = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    asked = tokenizer(text, return_tensors="pt")
    said = model.generate(**asked, max_new_tokens=tokens)
    return asked.input_ids, said[:, asked.input_ids.shape[1] :]


QUESTION = "Say the days of the week."
asked, said = answer(QUESTION)
right = losses(torch.cat([asked, said], 1))[-said.shape[1] :]
with changed(llama, apply_rotary_pos_emb=rotating(NEIGHBORS)):
    wrong = losses(torch.cat([asked, said], 1))[-said.shape[1] :]
    garbage = answer(QUESTION)[1]
with changed(llama, apply_rotary_pos_emb=rotating(AS_IN_GGUF)):
    unconverted = losses(torch.cat([asked, said], 1))[-said.shape[1] :]

fig, ax = figure(width=9, height=3.9)
ax.plot(right, color=COLORS[0], marker="o", label=f"halves, as trained: mean {right.mean():.1f}")
ax.plot(wrong, color=COLORS[1], marker="s", linestyle="--", label=f"neighbors: mean {wrong.mean():.1f}")
ax.set_xticks(range(len(right)), [repr(tokenizer.decode(t))[1:-1].strip() for t in said[0]], rotation=60, fontsize=9)
ax.set(xlabel="token of the answer", ylabel="loss (nats a token)", ylim=(-0.2, 1.3 * float(wrong.max())))
ax.legend(loc="upper right", ncols=2)
show(
    fig,
    alt="Loss of each token of the model's own answer, in nats. With halves paired, as the model was trained, the mean "
    f"is {right.mean():.1f}; with neighbors paired it is {wrong.mean():.1f}.",
    title=f"The wrong pairing: no error, and a loss of {wrong.mean():.1f} nats a token instead of {right.mean():.1f}",
)
print(f"{QUESTION}\n  halves:     {tokenizer.decode(said[0])!r}\n  neighbors: {tokenizer.decode(garbage[0])!r}")
print(f"rows left in the order of a GGUF file: {unconverted.mean():.1f} nats a token")

# %% [markdown]
# This is not a textbook worry. The GGUF files of llama.cpp store LLaMA's query and key rows in the order for neighbors;
# transformers puts them back in order when it loads such a file (`_reverse_permute_weights` in
# `modeling_gguf_pytorch_utils.py`). Whoever forgets this step turns dimension $i$ against $i + d/4$, as silently: that
# is the last line under the figure.
#
# ## Exercise 3: the scores
#
# Attention compares rotated queries with rotated keys. Two details decide whether this also works while the model
# *writes*: then there is one new query, say at position 7, and the keys of positions 0 to 7 wait in a cache. So queries
# and keys have positions of their own, and the causal mask has to go by positions, not by rows and columns.

# %% exercise="rope_attention_scores"
def rope_attention_scores(q, k, q_positions, k_positions, base=10_000.0, causal=True):
    """Attention scores before softmax: rotated queries times rotated keys, divided by sqrt(d).

    q, k:        floating-point tensors [..., n_q, d] and [..., n_k, d] of one dtype, with the
                 same leading dimensions, d even
    q_positions: integer tensor that broadcasts to q.shape[:-1]: [n_q], or [batch, 1, n_q]; in
                 any order
    k_positions: the same for the keys, in an order of their own
    base:        as in apply_rope, for queries and keys
    causal:      where True, a key at a later position than the query's gets -inf; one at the
                 same position stays
    Returns a tensor [..., n_q, n_k] of the dtype of q. Differentiable: gradients flow to q and
    k.
    """
    ### BEGIN SOLUTION
    q, k = apply_rope(q, q_positions, base), apply_rope(k, k_positions, base)
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    later = k_positions[..., None, :] > q_positions[..., :, None]
    return scores.masked_fill(later, -torch.inf) if causal else scores
    ### END SOLUTION


# %% check="rope_attention_scores"
check(rope_attention_scores)

# %% [markdown]
# ## Your rotation inside a real model
#
# Now take out the model's own rotation and put in yours, in all 30 layers. If you have built the same thing, the logits
# stay the same. Then tell the model that the text starts at position 1,000 instead of 0. If scores depend on distances
# alone, nothing may change.

# %% tags=["payoff"]
class HandsPositionsOn(torch.nn.Module):
    """Stands where the model computes cosines and sines, and passes the positions on to the rotation."""

    def forward(self, x, position_ids):
        return position_ids, position_ids


@contextlib.contextmanager
def your_rope_inside(shift=0):
    def rotate(q, k, positions, _, **options):
        places = positions[:, None] + shift
        return apply_rope(q, places, BASE), apply_rope(k, places, BASE)

    with changed(model.model, rotary_emb=HandsPositionsOn()), changed(llama, apply_rotary_pos_emb=rotate):
        yield


STORY = (
    "The harbour master counted the boats twice before he wrote the number down. Two were missing, and the barometer "
    "had been falling since noon. He sent the boy to ask at the inn, lit the lamp on the pier himself, and stood"
)
story = tokenizer(STORY, return_tensors="pt").input_ids
with torch.inference_mode():
    own = model(story).logits[0]
    with your_rope_inside():
        yours = model(story).logits[0]
    with your_rope_inside(shift=1_000):
        moved, moved_words = model(story).logits[0], answer(QUESTION)[1]

print(f"{'':28}largest difference of a logit   next token")
for name, logits in {"the model's own rotation": own, "yours": yours, "yours, all moved by 1,000": moved}.items():
    difference = f"{(logits - own).abs().max():.1e}" if logits is not own else ""
    print(f"{name:28}{difference:32}{tokenizer.decode(logits[-1].argmax())!r}")
print(f"\nThe logits run from {own.min():.0f} to {own.max():.0f}.")
print(f"{QUESTION} Moved by 1,000, the model says: {tokenizer.decode(moved_words[0])!r}")
assert (yours - own).abs().max() < 1e-2, "Your rotation is not the model's: solve exercise 2 first."
assert moved[-1].argmax() == own[-1].argmax(), "Moving all positions changed the next token."

# %% [markdown]
# The remaining difference is float32: an angle of 1,000 radians has only four digits left behind the point.
#
# ## What exactly is rotated?
#
# Study notes often say that RoPE rotates the *embeddings*. If you did that, once, at the input, the projections $W_q$
# and $W_k$ would come after the rotation and mix the pairs. Does the score still depend on the distance alone? We take
# the model's own first layer and one pair of tokens, and move both.
#
# **Before the run:** a score counts as a function of the distance if over 400 places it varies by less than a
# thousandth of its largest value. *Correct* if rotating the embeddings makes it one, *imprecise* if only rotating
# queries and keys does, *wrong* if neither (which algebra rules out, unless the library's rotation has a mistake).

# %% claim="T04.6"
def turned(x, positions):
    """Rows of x, each turned by its position, with the library's rotation in float64: [n, d]."""
    d = x.shape[-1]
    angle = positions[:, None] * BASE ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    cos, sin = (torch.cat([f(angle)] * 2, -1)[None] for f in (torch.cos, torch.sin))
    rows = x.double()[None, None]
    return rotate_as_trained(rows, rows, cos, sin)[0][0, 0]


@torch.inference_mode()
def first_layer_score(shifts, rotate_embeddings, distance=3):
    """Score of " missing" for " boats", `distance` positions earlier, in head 0 of layer 0."""
    layer, words = model.model.layers[0], [tokenizer.encode(w)[0] for w in (" missing", " boats")]
    scores, rows = [], model.model.embed_tokens(torch.tensor(words))
    for row, weight, places in zip(
        rows, (layer.self_attn.q_proj, layer.self_attn.k_proj), (shifts + distance, shifts), strict=True
    ):
        x = row.expand(len(shifts), -1)
        x = turned(x, places).float() if rotate_embeddings else x
        x = weight(layer.input_layernorm(x))[:, :D]
        scores.append(x.double() if rotate_embeddings else turned(x, places))
    return (scores[0] * scores[1]).sum(-1) / math.sqrt(D)


shifts = torch.arange(0, 400)
fig, ax = figure(width=9, height=3.6)
spreads, constant = {}, {}
for color, (name, rotate_embeddings) in zip(COLORS, [("q and k", False), ("the embeddings", True)], strict=False):
    scores = first_layer_score(shifts, rotate_embeddings)
    spreads[name] = float(scores.max() - scores.min())
    constant[name] = spreads[name] < 1e-3 * float(scores.abs().max())
    ax.plot(shifts, scores, color=color, linestyle="--" if rotate_embeddings else "-", label=f"rotating {name}")
ax.set(xlabel="position of the first token (the second stands 3 further)", ylabel="score (no unit)")
ax.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, -0.22))
show(
    fig,
    alt="The score of the same two tokens at the same distance, while both move through 400 positions. It varies by "
    f"{spreads['q and k']:.0e} where queries and keys are rotated, by {spreads['the embeddings']:.2f} where the "
    "embeddings are.",
    title=f"The score varies by {spreads['q and k']:.0e} if q and k are rotated, by {spreads['the embeddings']:.2f} if "
    "the embeddings are",
)
verdict(
    "T04.6",
    "correct" if constant["the embeddings"] else "imprecise" if constant["q and k"] else "wrong",
    "Two tokens move together through 400 places. Their score varies by "
    + ", ".join(f"{spread:.2g} when {name} are rotated" for name, spread in spreads.items())
    + ".",
)

# %% [markdown]
# So it is queries and keys that RoPE rotates, after their projections, in every layer anew. Values are not: they
# carry *what* is said, and where it stood has done its work once the attention weights are there.
#
# "RoPE captures relative positions explicitly." The same two words, rotated as the model does it, at four distances.
#
# **Before the run:** *correct* if at each distance the score varies over the 400 places by less than a thousandth of
# its largest value, and from distance to distance by more; *imprecise* if it is the same at all distances; *wrong* if
# it depends on the places (again out of reach by algebra, for a given q and k).

# %% claim="T04.7"
at_distance = {d: first_layer_score(shifts, rotate_embeddings=False, distance=d) for d in (1, 3, 10, 100)}
wobble = max(float(scores.max() - scores.min()) for scores in at_distance.values())
means = torch.stack([scores.mean() for scores in at_distance.values()])
apart, largest = float(means.max() - means.min()), float(means.abs().max())
verdict(
    "T04.7",
    "wrong" if wobble >= 1e-3 * largest else "correct" if apart >= 1e-3 * largest else "imprecise",
    f"At distances {', '.join(map(str, at_distance))} the scores are {', '.join(f'{mean:.2f}' for mean in means)}; "
    f"over {len(shifts)} places each varies by at most {wobble:.0e}.",
)

# %% [markdown]
# ## Does the score fall with distance?
#
# The paper shows an upper bound that falls with distance, and "long-term decay" has become the standard explanation of
# why RoPE works. A bound is not the thing itself. So first: what does the rotation alone do, for a query of our choice?
# Then: what do the 270 heads of the real model do? For each head we take its mean query and its mean key over a short
# text, before they are rotated, and compute their score at every distance. For comparison, we give each pair of each
# head an angle by chance, which keeps all lengths and forgets what was learned: half of such heads fall, by symmetry.
# And as a control, angles that aim every head at 1,500 tokens back.
#
# "It captures relative positions better, and *therefore* learns long-range dependencies better." **Before the run:**
# the first half holds if the score is a function of the distance, as tested above. The second would follow if heads had
# learned to prefer the far: if at most 35 % of them have a mean score 1,000 to 2,000 tokens back that is below that at
# 1 to 16. (A first rule said "at most half", which chance would pass.) *Correct* if both hold, *imprecise* if only the
# first does, *wrong* if not even that. *Unverifiable* if of the heads aimed at 1,500 more than 10 % fall: then the
# measure can't see who looks far.

# %% claim="T05.3"
distance = torch.arange(1, 4_096)
speeds = BASE ** (-torch.arange(0, D, 2) / D)
turns = torch.polar(torch.ones(1), distance[:, None] * speeds)  # [distance, pair]: how far the pairs have turned
bound = turns.cumsum(-1).abs().mean(-1) * 2 / (D / 2 + 1)  # section 3.4.3 of the paper, scaled to 1 at distance 0
aimed = (turns * turns[499].conj()).real.mean(-1)  # a query made to look 500 positions back

NEWS = (
    "The harbour master counted the boats twice before he wrote the number down. Two were missing, and the barometer "
    "had been falling since noon. He sent the boy to ask at the inn, lit the lamp on the pier himself, and stood there "
    "with his collar up, listening for oars."
)
projected = {}
hooks = [
    getattr(layer.self_attn, f"{kind}_proj").register_forward_hook(
        lambda module, args, out, key=(kind, i): projected.__setitem__(key, out[0, 1:])
    )
    for i, layer in enumerate(model.model.layers)
    for kind in "qk"
]
with torch.inference_mode():
    model(tokenizer(NEWS, return_tensors="pt").input_ids)
for hook in hooks:
    hook.remove()


def mean_pairs(kind, layer):
    """The mean query or key of each head before it is rotated, as complex pairs: [heads, d/2]."""
    mean = projected[kind, layer].mean(0).view(-1, D)
    return torch.complex(*mean.chunk(2, -1))


curves, by_chance, aimed_far = [], [], []
g = torch.Generator().manual_seed(0)
from_near_to_far = turns[1_000:2_000].mean(0) - turns[:16].mean(0)
for i in range(model.config.num_hidden_layers):
    q, k = mean_pairs("q", i), mean_pairs("k", i)
    k = k.repeat_interleave(len(q) // len(k), 0)
    product = q * k.conj()
    curves.append((product[:, None] * turns).real.sum(-1) / math.sqrt(D))
    angles = 2 * math.pi * torch.rand(10, *product.shape, generator=g)
    by_chance.append((product * torch.polar(torch.ones(()), angles) * from_near_to_far).real.sum(-1).flatten() < 0)
    aimed_far.append((product.abs() * turns[1_499].conj() * from_near_to_far).real.sum(-1) < 0)
curves = torch.cat(curves)  # [head, distance]
falling_by_chance, falling_aimed = (float(torch.cat(falls).float().mean()) for falls in (by_chance, aimed_far))
near, far = curves[:, :16].mean(1), curves[:, 1_000:2_000].mean(1)
falling = int((far < near).sum())

fig, axes = figure(1, 2, width=10.5, height=4.4)
axes[0].plot(distance, bound, color=COLORS[0], label="upper bound of the paper")
axes[0].plot(distance, aimed, color=COLORS[1], linewidth=1, label="query aimed 500 back")
axes[0].set(title="the rotation alone", ylabel="relative to the maximum", ylim=(None, 1.05))
change = curves - near[:, None]
low, middle, high = change.quantile(torch.tensor([0.05, 0.5, 0.95]), 0)
odd = int((far - near).argmax())
heads = model.config.num_attention_heads
axes[1].fill_between(distance, low, high, color=COLORS[0], alpha=0.25, linewidth=0, label="90 % of heads")
axes[1].plot(distance, middle, color=COLORS[0], label="median")
axes[1].plot(
    distance, change[odd], color=COLORS[1], linestyle="--", label=f"layer {odd // heads + 1}, head {odd % heads + 1}"
)
axes[1].set(title=f"{len(curves)} trained heads", ylabel="mean score, minus that at 1–16")
for ax in axes:
    ax.set(xlabel="distance (tokens)", xscale="log")
    ax.set_xticks([1, 10, 100, 1_000], ["1", "10", "100", "1,000"])
    ax.legend(loc="upper center", ncols=3, bbox_to_anchor=(0.5, -0.2), columnspacing=1.2, handlelength=1.5)
show(
    fig,
    alt="Left, against distance: the paper's bound, and the score of a query built to look 500 back, with its peak at "
    f"{int(distance[aimed.argmax()])}. Right: mean scores of the real heads; {falling} of {len(curves)} are lower far "
    f"away than nearby; the dashed line, the head whose change is the most positive, moves by "
    f"{far[odd] - near[odd]:+.1f}.",
    title=f"Scores that fall with distance: {falling} of {len(curves)} trained heads; with angles by chance "
    f"{falling_by_chance:.0%}, aimed far {falling_aimed:.0%}",
)
if falling_aimed > 0.1:
    word = "unverifiable"
else:
    word = "wrong" if not constant["q and k"] else "correct" if falling <= 0.35 * len(curves) else "imprecise"
verdict(
    "T05.3",
    word,
    f"Scores depend on the distance alone, up to {spreads['q and k']:.0e}. The mean score falls with distance in "
    f"{falling} of {len(curves)} heads, in {falling_by_chance:.0%} of heads with angles by chance and in "
    f"{falling_aimed:.0%} of those aimed at 1,500 tokens back.",
)

# %% [markdown]
# The rotation offers a decay, and it offers the opposite just as well (the left picture): where trained heads fall more
# often than heads with angles by chance, that is *learned*. Note also what decay means for the notes' second half: a
# score that falls with distance favors what is near. It is no argument for long-range dependencies. (Barbero et al.
# 2024, arXiv:2410.06205, look into Gemma 7B and doubt that decay is why RoPE helps.)
#
# ## What does it cost?
#
# A sinusoid is added once, at the input. RoPE works in every layer, on queries and on keys. We let the operations of
# both be counted as they are issued: every product, sum, sign, sine and cosine of an element counts one. Nothing is
# really computed: tensors on torch's `meta` device have shapes and no numbers. (The sinusoid's table stands ready;
# RoPE's is counted, once.)
#
# **Before the run:** *correct* if RoPE takes fewer operations than the sinusoid in the whole model, *imprecise* if it
# takes up to twice as many, *wrong* if more. On paper only the last can come: several operations on each element of q
# and k, layer by layer, against one addition. What is open is the factor.

# %% claim="T05.4"
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


class Elementwise(TorchDispatchMode):
    """Counts the results of elementwise arithmetic; copying, slicing and joining are free."""

    COUNTED = ("aten::mul", "aten::add", "aten::neg", "aten::sin", "aten::cos")
    total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.total += out.numel() if function._schema.name in self.COUNTED else 0
        return out


def counted(function, *args):
    with Elementwise() as mode:
        function(*args)
    return mode.total


config, N = model.config, 256
empty = torch.zeros(1, N, config.hidden_size, device="meta")
HEAD_COUNTS = (config.num_attention_heads, config.num_key_value_heads)
q, k = (torch.zeros(1, heads, N, D, device="meta") for heads in HEAD_COUNTS)
cos = sin = torch.zeros(1, N, D, device="meta")
rotary = llama.LlamaRotaryEmbedding(config).to("meta")

once = counted(lambda: empty + empty)  # token embeddings + a sinusoidal table that exists already
table = counted(rotary, empty, torch.zeros(1, N, dtype=torch.long, device="meta"))
a_layer = counted(rotate_as_trained, q, k, cos, sin)
layers = torch.arange(1, config.num_hidden_layers + 1)

with torch.device("meta"):
    skeleton = llama.LlamaForCausalLM(config)
    with FlopCounterMode(display=False) as flops:
        skeleton(torch.zeros(1, N, dtype=torch.long))

fig, ax = figure(width=9, height=3.8)
ax.plot(layers, (table + layers * a_layer) / once, color=COLORS[0], label="RoPE")
ax.axhline(1, color=COLORS[1], linestyle="--", label="sinusoid, added once")
ax.set(xlabel="layers of the model", ylabel="elementwise operations\n(sinusoid = 1)", yscale="log")
ax.legend(loc="center right")
ax.set_yticks([1, 10, 100], ["1", "10", "100"])
ratio = (table + layers[-1] * a_layer) / once
show(
    fig,
    alt="The number of elementwise operations of RoPE, relative to adding a sinusoid, against the number of layers: "
    f"{(table + a_layer) / once:.1f} at one layer, {ratio:.0f} at {config.num_hidden_layers}.",
    title=f"RoPE takes {ratio:.0f} times the operations of a sinusoid at {config.num_hidden_layers} layers",
)
verdict(
    "T05.4",
    "correct" if ratio < 1 else "imprecise" if ratio <= 2 else "wrong",
    f"RoPE takes {ratio:.0f} times the elementwise operations of adding a sinusoid in {config.num_hidden_layers} "
    f"layers, and {(table + a_layer) / once:.1f} times already in one.",
)

# %% [markdown]
# That is a comparison with one addition. Is RoPE therefore *expensive*? Against what? The next cell sets the same
# numbers beside the matrix products of the model, and takes the time on this machine (for information: times differ
# from run to run, counts don't).
#
# **Before the run:** that it needs an extra rotation is so by definition; whether that is a drawback we ask its share
# of a forward pass's operations. *Correct* if it is over 5 %, *imprecise* if under 1 %: an extra operation, and nobody
# pays for it. Between the two, *unverifiable*: then it depends on who pays.

# %% claim="T04.8"
def best_time(function, *args, repeats=9):
    """The shortest of several runs, in milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(*args)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


attention = model.model.layers[0].self_attn
x = torch.randn(1, N, config.hidden_size)
q, k = (torch.randn(1, heads, N, D) for heads in HEAD_COUNTS)
cos = sin = torch.randn(1, N, D)
depth = config.num_hidden_layers
projections = 2 * N * config.hidden_size * D * sum(HEAD_COUNTS)
with torch.inference_mode():
    rows = [
        ("sinusoid: one addition", once, best_time(torch.add, x, x)),
        ("RoPE: q and k, 30 layers", table + depth * a_layer, depth * best_time(rotate_as_trained, q, k, cos, sin)),
        (
            "projections to q and k, 30 layers",
            depth * projections,
            depth * best_time(lambda: (attention.q_proj(x), attention.k_proj(x))),
        ),
        (
            "forward pass: its matrix products",
            flops.get_total_flops(),
            best_time(lambda: model(torch.zeros(1, N, dtype=torch.long), use_cache=False), repeats=2),
        ),
    ]
names, counts, times = zip(*rows, strict=True)
share = counts[1] / counts[-1]

fig, ax = figure(width=9, height=3.2)
ax.barh(range(4), counts, color=[COLORS[1], COLORS[0], *["#bbbbbb"] * 2])
for i, (count, ms) in enumerate(zip(counts, times, strict=True)):
    size = f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.2g} million"
    ax.text(count * 1.3, i, f"{size}, {ms:.2g} ms" if ms < 10 else f"{size}, {ms:,.0f} ms", va="center")
ax.set_yticks(range(4), names)
ax.invert_yaxis()
ax.set(xscale="log", xlabel=f"operations for {N} tokens (multiplications, additions, …)", xlim=(2e4, 2e13))
show(
    fig,
    alt="Operations, as bars on a logarithmic axis: "
    + ", ".join(f"{name} {count / 1e6:,.1f} million" for name, count in zip(names, counts, strict=True))
    + ".",
    title=f"RoPE is {share:.2%} of the operations of a forward pass",
)
verdict(
    "T04.8",
    "correct" if share > 0.05 else "imprecise" if share < 0.01 else "unverifiable",
    f"The rotation has no parameters. It takes {share:.3%} of the operations of a forward pass (and, run by itself, "
    f"{times[1] / times[-1]:.1%} of the time on this machine).",
)

# %% [markdown]
# Operations aren't time: a rotation moves much memory for little arithmetic. That is why serving libraries give it a
# fused **kernel**, one program on the GPU for what would be several steps, which turns queries and keys in place
# (FlashInfer's `apply_rope_with_cos_sin_cache_inplace`).
#
# ## Clocks that never went round
#
# Now the famous weak spot. A pair with speed $\theta_i$ comes round once in $2\pi/\theta_i$ tokens, its wavelength. If
# the texts in training were shorter than that, the model has never seen the later part of this clock's face. At greater
# distances the hand points to where it never pointed before.

# %% tags=["demo"]
MODELS = [  # name, d, base, context in tokens (the last one's is what its configuration says)
    ("LLaMA", 128, 10_000.0, 2_048),
    ("Llama 3", 128, 500_000.0, 8_192),
    ("SmolLM2-135M", D, BASE, model.config.max_position_embeddings),
]
fig, axes = figure(1, 3, width=10.5, height=3.8, sharey=True)
unturned = []
for ax, (name, d, base, context) in zip(axes, MODELS, strict=True):
    wavelengths = 2 * math.pi * base ** (torch.arange(0, d, 2) / d)
    ax.plot(wavelengths, color=COLORS[0], marker=".", linewidth=1)
    ax.axhline(context, color=COLORS[1], linestyle="--")
    ax.text(0, context * 1.25, f"context: {context:,}", color=COLORS[1])
    never = wavelengths > context
    unturned.append(f"{name} {int(never.sum())} of {d // 2}")
    ax.fill_between(range(d // 2), context, wavelengths, where=never, color=COLORS[1], alpha=0.2, linewidth=0)
    ax.set(title=f"{name}: {int(never.sum())} of {d // 2} pairs\nnever go round", xlabel="pair i", yscale="log")
axes[0].set_ylabel("wavelength (tokens)")
show(
    fig,
    alt="Wavelength against the number of the pair for three models, on a logarithmic axis, and their context, a line. "
    f"Pairs with longer wavelengths: {', '.join(unturned)}.",
    title=f"No full turn within the context: {', '.join(unturned)}",
)

# %% [markdown]
# ## Stable at any length?
#
# The notes say that RoPE "works stably at different lengths". To test this on the real model, we make it remember over
# a distance. It reads a short passage, some filler, and then **the same passage again**. A model that can look back at
# the first copy predicts the second with almost no loss.
#
# Then we lie about the places: the second copy gets positions further and further away. The tokens are the same, only
# the distance grows, so fewer than 100 tokens are enough to try 32,000 positions. The dashed line is the loss of the
# passage alone: what a model pays that can't look back at all.
#
# **Before the run:** the model fails at a distance if its loss there, the mean of three passages, is over half of that
# dashed line. *Correct* if it doesn't fail up to 32,000 positions, *imprecise* if it fails only beyond the 8,192 of its
# configuration, *wrong* if within them. *Unverifiable* if it can't even copy at the shortest distance.

# %% tags=["demo"]
PASSAGES = [
    "The clerk read out the prices: nine shillings for rope, four for tar, eleven for the small anchor, and nothing at "
    "all for the parrot, which nobody would take.",
    "Seven names stood in the ledger: Orla Venn, Tobin Marsh, Ines Calder, Ruy Okafor, Petra Lund, Sami Dane and old "
    "Quill, who owed forty crowns for a mule.",
    "To open the blue door, turn the brass wheel twice, wait for the third bell, pull the shorter chain, and never say "
    "the word lantern while the cat is looking.",
]
FILLER = " It rained all night. In the morning the road was gone, and nobody was surprised."
first = torch.stack([tokenizer(p, return_tensors="pt").input_ids[0, :32] for p in PASSAGES])
filler = tokenizer(FILLER, return_tensors="pt").input_ids.expand(len(PASSAGES), -1)
twice = torch.cat([first, filler, first], 1)
LENGTH, OFFSET = first.shape[1], first.shape[1] + filler.shape[1]


class Clocks(torch.nn.Module):
    """Cosines and sines for given positions [n] and speeds [d/2], whatever the model thinks its positions are."""

    def __init__(self, positions, speeds, attention_factor=1.0):
        super().__init__()
        angle = positions[None, :, None].double() * torch.cat([speeds, speeds]).double()
        self.cos, self.sin = (attention_factor * f(angle).float() for f in (torch.cos, torch.sin))

    def forward(self, x, position_ids):
        return self.cos, self.sin


@torch.inference_mode()
def copy_losses(distances, *scaling):
    """Loss in nats a token of each passage's second copy, so many positions after the first: [distance, passage].

    `scaling` is the speeds [d/2], and the attention factor if there is one.
    """
    with changed(model.model, rotary_emb=Clocks(torch.arange(OFFSET), *scaling)):
        cache = model.model(twice[:, :OFFSET], use_cache=True).past_key_values
    rows = []
    for distance in distances:
        with changed(model.model, rotary_emb=Clocks(distance + torch.arange(LENGTH), *scaling)):
            second = model.model(twice[:, OFFSET:], past_key_values=copy.deepcopy(cache)).last_hidden_state
        # The first tokens can't be known before the model has noticed that it is reading a copy.
        logits = model.lm_head(second[:, 3:-1])
        rows.append(F.cross_entropy(logits.mT, twice[:, OFFSET + 4 :], reduction="none").mean(1))
    return torch.stack(rows)


with torch.inference_mode():
    alone = F.cross_entropy(model(first).logits[:, 3:-1].mT, first[:, 4:]).item()

# %% claim="T05.5"
DISTANCES = [OFFSET, 1_000, 2_000, 4_000, 6_000, 7_000, 8_000, 12_000, 16_000, 32_000]
plain = BASE ** (-torch.arange(0, D, 2) / D)
unscaled = copy_losses(DISTANCES, plain)

fig, ax = figure(width=9, height=4.0)
ax.plot(DISTANCES, unscaled.mean(1), color=COLORS[0], marker="o", label=f"mean of {len(PASSAGES)} passages")
best, worst = unscaled.amin(1), unscaled.amax(1)
ax.fill_between(DISTANCES, best, worst, color=COLORS[0], alpha=0.2, linewidth=0, label="their range")
ax.axhline(alone, color="#555555", linestyle="--", label="the passage alone: no looking back")
ax.axvline(model.config.max_position_embeddings, color=COLORS[1], linestyle=":", label="configured context, 8,192")
ax.set(xlabel="distance between the copies (positions)", ylabel="loss on the second copy\n(nats a token)", xscale="log")
ax.set_xticks([50, 100, 1_000, 10_000], ["50", "100", "1,000", "10,000"])
ax.set_ylim(0, None)
ax.legend(loc="upper left")
broken = next((d for d, loss in zip(DISTANCES, unscaled.mean(1), strict=True) if loss > alone / 2), None)
show(
    fig,
    alt="Loss on the second copy against the distance between the copies, in nats a token: "
    + ", ".join(f"{loss:.2f} at {d:,}" for d, loss in zip(DISTANCES, unscaled.mean(1), strict=True))
    + f"; without looking back {alone:.2f}.",
    title=f"Loss {unscaled[0].mean():.2f} at {OFFSET} positions; first failure: {f'{broken:,}' if broken else 'none'}",
)
if broken == OFFSET:
    word = "unverifiable"
else:
    word = "correct" if not broken else "wrong" if broken <= model.config.max_position_embeddings else "imprecise"
verdict(
    "T05.5",
    word,
    f"Loss on the second copy {unscaled[0].mean():.2f} nats at a distance of {OFFSET}, "
    f"{unscaled.mean(1).max():.2f} at most up to 32,000, {alone:.2f} without looking back. First failure: "
    f"{f'at {broken:,} positions' if broken else 'none'}.",
)

# %% [markdown]
# Above the dashed line a model doesn't merely forget: it would do well to ignore the first copy. Chen et al. (2023,
# arXiv:2306.15595) found what pulls it away: "catastrophically high attention scores" at distances beyond those of
# training.
#
# Where it fails left of the dotted line, its label says what it was given, not what it has learned. (Ours comes from a
# file of 4-bit weights, which may move the point where it breaks. And a jump in the positions is itself something new
# to the model: whether jumps as such do harm can be read off the left part of the curve.)
#
# ## The same on models that you can train in seconds
#
# Is this a quirk of one model? We train small ones from scratch: with RoPE, with sinusoids added at the input (absolute
# positions), and with ALiBi, which subtracts a multiple of the distance from each score (Press et al. 2021,
# arXiv:2108.12409). Each reads a random string that repeats itself with a period of 6 to 16, has two layers of
# attention, and sees 48 tokens in training. Then it reads 384. What counts is kept with the course
# (`experiments/T05_2.py`): five seeds each, at the best of three learning rates, chosen on other strings. Two with
# RoPE are trained again here, for what comes next.
#
# "RoPE handles long sequences more flexibly and effectively than absolute encodings." **Before the run:** it is more
# effective if its loss at positions 24 to 48 is surely lower than the sinusoid's (95 %, seed by seed); it handles long
# sequences if its mean loss at four to eight times the trained length is at most 0.1 nats above that. *Correct* if
# both, *imprecise* if one, *wrong* if neither. The sinusoid stands for absolute encodings (a learned table ends with
# its last row), and "flexibly" waits for the scalings below. (A first run of 300 steps was cut off while the models
# were finding out how to copy, some seeds before it and some after; this one has twice as many.)

# %% tags=["demo"]
from experiments import T05_2 as small

race = evidence("T05.2")
ENCODINGS, TRAINED, LONG, VOCAB, HEAD = small.ENCODINGS, small.TRAINED, small.LONG, small.VOCAB, small.HEAD


def plain_speeds(d, base=10_000.0):
    return base ** (-torch.arange(0, d, 2) / d)


def long_loss(weights, *scaling):
    """Mean loss of both models with RoPE at each position of long strings: [2, LONG].

    `scaling` is the speeds [HEAD/2] and the attention factor, or nothing.
    """
    return small.loss_by_place(weights, small.position_tools("RoPE", LONG, *scaling), LONG, draw=1_002)


give_back(model)  # the large one rests
weights = small.train("RoPE", small.experiment.seeds[:2], small.best_rate(race, "RoPE"))
long = long_loss(weights)
kept, here = race.interval(small.best(race, "RoPE"), "near").mean, float(long[:, 24:TRAINED].mean())
print(f"RoPE at positions 24 to {TRAINED}: {here:.2f} nats as trained here, {kept:.2f} in the kept runs; best of "
      + ", ".join(f"{rate:g}" for rate in small.RATES) + ": "
      + ", ".join(f"{name} {small.best_rate(race, name):g}" for name in ENCODINGS))

# %% claim="T05.2"
CENTRES = torch.arange(6, LONG, 12)


def windows(loss):
    """The mean over windows of 12 positions, for each model: [models, windows]."""
    return loss.view(len(loss), -1, 12).mean(-1)


def plot_seeds(ax, runs, color, label, linestyle="-"):
    """The mean of the seeds, and the range between the best and the worst, from the second period of a string on."""
    places, runs = CENTRES[1:], runs[:, 1:]
    ax.plot(places, runs.mean(0), color=color, label=label, linestyle=linestyle)
    ax.fill_between(places, runs.amin(0), runs.amax(0), color=color, alpha=0.2, linewidth=0)


def frame(ax, top):
    ax.axvline(TRAINED, color="#555555", linestyle=":")
    ax.text(TRAINED + 4, top * 0.96, "trained up to here", color="#555555", va="top")
    ax.axhline(math.log(VOCAB), color="#999999", linestyle=":")
    ax.text(250, math.log(VOCAB) - 0.03 * top, "guessing", color="#777777", va="top", ha="center")
    ax.set(xlabel="position (tokens)", ylabel="loss (nats a token)", ylim=(0, top))


fig, ax = figure(width=9, height=4.0)
for color, style, name in zip(COLORS, ("-", "--", "-."), ENCODINGS, strict=False):
    plot_seeds(ax, torch.tensor(race.each(small.best(race, name), "by_place")), color, name, style)
frame(ax, 2.9)
ax.legend(loc="upper right", ncols=3)
within, beyond = ({name: torch.tensor(race.each(small.best(race, name), where)) for name in ENCODINGS}
                  for where in ("near", "far"))
rise = {name: round(small.rise(race, name), 2) + 0.0 for name in ENCODINGS}  # no "-0.00"
told = ", ".join(f"{name} {within[name].mean():.2f} → {beyond[name].mean():.2f}" for name in ENCODINGS)
show(
    fig,
    alt="Loss against position for three encodings, five seeds each, trained on 48 tokens. Means within (24 to 48) "
    f"and at four to eight times that length: {told} nats; guessing costs {math.log(VOCAB):.2f}.",
    title=f"Loss within → far beyond: {told}",
)
ahead = small.ahead(race)
better, reaches = ahead.low > 0, rise["RoPE"] <= small.STAYS
verdict(
    "T05.2",
    ("wrong", "imprecise", "correct")[better + reaches],
    f"After {small.STEPS} steps RoPE's loss at positions 24 to 48 is {ahead.text('+.2f')} nats below the sinusoid's "
    f"(95 %). At four to eight times the trained length it is {rise['RoPE']:+.2f} nats off, the sinusoid's "
    f"{rise['sinusoid']:+.2f}.",
)

# %% [markdown]
# Both RoPE and ALiBi are *relative* encodings: scores depend on distances. So "relative encoding suits long sequences
# better" can be read off the same run. The bars are the seeds' means, the lines their ranges. (T5's bias, relative too,
# ran in the race of the chapter before.)
#
# **Before the run:** an encoding suits long sequences if its loss at four to eight times the trained length is at most
# 0.1 nats above that within, and that is under half of guessing's (added later: who only guesses keeps the loss, too).
# *Correct* if both relative ones do, *imprecise* if one does, *wrong* if neither. *Unverifiable* if the absolute one
# does: then the test is too easy. Easy it is in one way: a period is at most 16, so nothing further back is needed.

# %% claim="T04.4"
fig, ax = figure(width=9, height=3.2)
spans = {"in training (24–48)": within, "4–8 times as long (192–384)": beyond}
for shift, hatch, (name, losses_of) in zip((-0.2, 0.2), ("", "//"), spans.items(), strict=True):
    value = torch.stack(list(losses_of.values()))
    bars = [value.mean(1) - value.amin(1), value.amax(1) - value.mean(1)]
    ax.bar(
        torch.arange(3) + shift,
        value.mean(1),
        0.38,
        color=COLORS[:3],
        alpha=0.45 if hatch else 0.9,
        hatch=hatch,
        yerr=torch.stack(bars),
        capsize=4,
        edgecolor="white",
        label=name,
    )
ax.axhline(math.log(VOCAB), color="#777777", linestyle=":")
ax.text(2.4, math.log(VOCAB) - 0.05, "guessing", color="#777777", ha="right", va="top")
ax.set_xticks(range(3), ["RoPE (relative)", "sinusoid (absolute)", "ALiBi (relative)"])
ax.set(ylabel="loss (nats a token)")
ax.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, -0.12))
show(
    fig,
    alt="Bars of the loss within the trained length and at four to eight times that length, with the seeds' ranges. "
    f"The difference: {', '.join(f'{name} {by:+.2f}' for name, by in rise.items())} nats.",
    title=f"From within to far beyond: {', '.join(f'{name} {by:+.2f}' for name, by in rise.items())} nats",
)
suits = {name: rise[name] <= small.STAYS and within[name].mean() < math.log(VOCAB) / 2 for name in ENCODINGS}
suited = [name for name in ("RoPE", "ALiBi") if suits[name]]
verdict(
    "T04.4",
    "unverifiable" if suits["sinusoid"] else ("wrong", "imprecise", "correct")[len(suited)],
    f"Relative and within 0.1 nats at four to eight times the trained length: {' and '.join(suited) or 'none'}. "
    f"The differences: {', '.join(f'{name} {by:+.2f}' for name, by in rise.items())}. Nothing further back than 16 "
    "tokens was needed.",
)

# %% [markdown]
# ## Slow the clocks down
#
# The repair is as simple as the fault. If a clock must not show times that it never showed in training, make it run
# slower. For a context `factor` times as long:
#
# * **Linear**, or position interpolation (Chen et al. 2023): all clocks run `factor` times slower. Every angle is one
#   from training. But neighbors are told apart by the fast clocks, and these are squeezed too: the model needs some
#   training to get used to it.
# * **NTK-aware** (a forum post by u/bloc97, 2023; in Peng et al. 2023, arXiv:2309.00071): enlarge the base instead. The
#   fastest clock then keeps its speed, the slowest runs exactly `factor` times slower, the others are in between.
# * **YaRN** (Peng et al. 2023): sort the clocks by how often they went round in training. More than 32 times: it knows
#   every angle, leave it. Less than once: slow it down in full. In between: mix. And make attention sharper, which its
#   authors found to help: sine and cosine are multiplied by $0.1 \ln(\text{factor}) + 1$, and so scores by its
#   *square*, 1.46 at a factor of 8.
#
# The figure shows the three as transformers computes them, for our model and a factor of 8.

# %% tags=["demo"]
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS


def library_scaling(kind, factor, d, length, base):
    """Speeds and attention factor as transformers computes them."""
    dynamic = kind == "ntk"  # the library's NTK follows the length; at the new length, with factor 1, it is fixed
    rope = {"rope_type": "dynamic" if dynamic else kind, "rope_theta": base, "factor": 1.0 if dynamic else factor}
    if kind == "yarn":
        rope["original_max_position_embeddings"] = length
    config = llama.LlamaConfig(
        hidden_size=d, num_attention_heads=1, head_dim=d, max_position_embeddings=length, rope_parameters=rope
    )
    options = {"seq_len": factor * length} if dynamic else {}
    return ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, **options)


KINDS = {"linear": ("--", COLORS[1]), "ntk": ("-.", COLORS[2]), "yarn": ("-", COLORS[3])}


def draw_scalings(factor=8):
    context = model.config.max_position_embeddings
    turns = context * plain_speeds(D, BASE) / (2 * math.pi)
    fig, ax = figure(width=9, height=3.8)
    for kind, (style, color) in KINDS.items():
        speeds, attention_factor = library_scaling(kind, float(factor), D, context, BASE)
        label = f"{kind}, attention factor {attention_factor:.2f}" if kind == "yarn" else kind
        ax.plot(speeds / plain_speeds(D, BASE), linestyle=style, color=color, label=label)
    for limit in (32, 1):
        pair = int((turns > limit).sum()) - 0.5
        ax.axvline(pair, color="#999999", linestyle=":")
        ax.text(pair + 0.15, 1.1, f"{limit} turn{'s' * (limit > 1)} in training", color="#666666", va="center")
    ax.set(xlabel="pair i (fast on the left, slow on the right)", ylabel="new speed / old speed", ylim=(0, 1.18))
    ax.legend(loc="upper right", bbox_to_anchor=(1.0, 0.9))
    show(
        fig,
        alt="New speed over old speed for each pair. Linear is a flat line at one over the factor. NTK falls steadily "
        "from 1 to one over the factor. YaRN stays at 1 for the fast pairs, then falls to one over the factor.",
        title=f"Three ways to slow the clocks down by {factor}",
    )


draw_scalings()
knobs(draw_scalings, factor=(2, 32, 2))

# %% [markdown]
# What do they do to the small models, without any further training?

# %% tags=["demo"]
fig, axes = figure(1, 2, width=10.5, height=4.0, sharey=True)
twice_as_far = {"unscaled": long[:, 72:120].mean()}
for ax, factor in zip(axes, (4, 8), strict=True):
    plot_seeds(ax, windows(long), COLORS[0], "unscaled", ":")
    for kind, (style, color) in KINDS.items():
        scaling = library_scaling(kind, float(factor), HEAD, TRAINED, 10_000.0)
        scaled = long_loss(weights, *scaling)
        plot_seeds(ax, windows(scaled), color, kind, style)
        twice_as_far[f"{kind}, factor {factor}"] = scaled[:, 72:120].mean()
    frame(ax, 3.6)
    ax.set_title(f"factor {factor}")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
axes[1].set_ylabel("")
show(
    fig,
    alt="Loss against position for unscaled RoPE and three scalings with factors 4 and 8. Around twice the trained "
    f"length: {', '.join(f'{name}: {loss:.2f}' for name, loss in twice_as_far.items())} nats.",
    title=f"Loss at positions 72 to 120: unscaled {twice_as_far['unscaled']:.2f}; factor 4: "
    + ", ".join(f"{kind} {twice_as_far[f'{kind}, factor 4']:.2f}" for kind in KINDS),
)

# %% [markdown]
# The left ends of the curves say what scaling costs within the trained length, where a head of 16 with its eight clocks
# has few to spare. Linear interpolation was meant to be fine-tuned (its authors took up to 1,000 steps): "the token
# before" now stands a quarter or an eighth of a position away.
#
# ## Exercise 4: scaling
#
# The three formulas, exactly as deployed models use them. For YaRN that means the ramp of the authors' code, which is
# linear in the *number* of the pair; the paper's text has it linear in the number of turns.

# %% exercise="scale_rope"
def scale_rope(kind, factor, d, trained_length, base=10_000.0):
    """The pairs' speeds for a context `factor` times as long, and the attention factor.

    kind:           "linear", "ntk" or "yarn"
    factor:         a number, at least 1
    d:              size of one head, even, at least 4
    trained_length: the longest context in training, in tokens, at least 8, for YaRN alone
    base:           as in rope_angles
    Returns (speeds, attention_factor): a float32 or float64 tensor [d/2] in radians a position,
    and a number.

    With plain[i] = base ** (-2i/d), the speeds of rope_angles:

    linear  plain / factor                                  and 1
    ntk     plain, but with base * factor ** (d / (d - 2))  and 1
    yarn    ramp * plain / factor + (1 - ramp) * plain      and 0.1 * ln(factor) + 1
    where  pair(turns) = d * ln(trained_length / (2 pi turns)) / (2 ln base)   tells which pair
           makes so many turns,
           low = max(floor(pair(32)), 0),  high = min(ceil(pair(1)), d - 1),   and
           ramp[i] = (i - low) / (high - low), cut off below 0 and above 1. If low = high, take
           high = low + 0.001.

    Chen et al. 2023, arXiv:2306.15595 (linear); u/bloc97 2023, and Peng et al. 2023,
    arXiv:2309.00071 (NTK and YaRN).
    """
    ### BEGIN SOLUTION
    i = torch.arange(d // 2)
    if kind == "ntk":
        base = base * factor ** (d / (d - 2))
    plain = base ** (-2 * i / d)
    if kind == "ntk":
        return plain, 1.0
    if kind == "linear":
        return plain / factor, 1.0

    def pair(turns):
        return d * math.log(trained_length / (2 * math.pi * turns)) / (2 * math.log(base))

    low, high = max(math.floor(pair(32)), 0), min(math.ceil(pair(1)), d - 1)
    ramp = ((i - low) / max(high - low, 0.001)).clamp(0, 1)
    return ramp * plain / factor + (1 - ramp) * plain, 0.1 * math.log(factor) + 1
    ### END SOLUTION


# %% check="scale_rope"
check(scale_rope)

# %% [markdown]
# ## Your scaling in the real model
#
# Back to the passages that are read twice. The dotted line is how far the real model gets unscaled. We give it your
# speeds for a context eight times as long, and no training at all.

# %% tags=["payoff"]
CONTEXT, FACTOR = model.config.max_position_embeddings, 8.0
FAR = [OFFSET, 4_000, 8_000, 16_000, 32_000, 60_000]
repaired = {kind: copy_losses(FAR, *scale_rope(kind, FACTOR, D, CONTEXT, BASE)).mean(1) for kind in KINDS}
fig, ax = figure(width=9, height=4.2)
ax.plot(DISTANCES, unscaled.mean(1), color=COLORS[0], linestyle=":", marker="o", label="unscaled")
for kind, (style, color) in KINDS.items():
    ax.plot(FAR, repaired[kind], color=color, linestyle=style, marker="o", label=f"{kind}, factor {FACTOR:g}")
ax.axhline(alone, color="#555555", linestyle="--", linewidth=1, label="no looking back")
ax.set(xlabel="distance between the copies (positions)", ylabel="loss on the second copy\n(nats a token)", xscale="log")
ax.set_xticks([50, 100, 1_000, 10_000], ["50", "100", "1,000", "10,000"])
ax.set_ylim(0, None)
ax.legend(loc="upper center", ncols=3, bbox_to_anchor=(0.5, -0.2))
reach = {
    kind: max((d for d, loss in zip(FAR, runs, strict=True) if loss < alone / 2), default=0)
    for kind, runs in repaired.items()
}
show(
    fig,
    alt="Loss on the second copy against distance, unscaled and with three scalings. The largest distance tried "
    f"at which it is under half of that without looking back: {', '.join(f'{k} {d:,}' for k, d in reach.items())}.",
    title=f"Slower clocks, and how far they copy: {', '.join(f'{k} {d:,}' for k, d in reach.items())} positions",
)

# %% [markdown]
# A factor of 8 is meant to reach 65,536 positions; of a model that fails earlier than its label says, eight times that
# at best. The YaRN paper says why NTK-aware scaling may stop short of its factor: some of its pairs still point where
# they never pointed. So one chooses a larger factor than needed. YaRN treats each clock by its history; linear scaling
# relies on fine-tuning. All three slow the clocks for *every* text, short ones included; the library's `dynamic` kind
# enlarges the base only once a text is longer than in training.
#
# DeepSeek-V3 (arXiv:2412.19437) and Qwen2.5 (arXiv:2412.15115) reach their long contexts with YaRN; Llama 3.1 with a
# relative of it, which has another ramp and no attention factor (`llama3` in the library); and many models simply train
# with a larger base, from the start (Llama 3) or for the longer texts at the end (SmolLM2). By 2026 not all clocks of a
# model are alike, either: Gemma 3 (arXiv:2503.19786) has a base of 10,000 in its layers with a window and of a million
# in its global ones; GLM turns half of each head and leaves the rest still; p-RoPE stops the slowest pairs (Barbero et
# al. 2024; `proportional` in the library); and models that see give some pairs to time, height and width (M-RoPE:
# Qwen2-VL, arXiv:2409.12191).
