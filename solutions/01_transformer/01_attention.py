# ---
# jupyter:
#   course:
#     title: "Attention"
#     exercises: transformer.attention
#     questions: [T01, T10]
#     needs: []
# ---

# %% [markdown]
# # Attention
#
# *The computer has a keyboard and a mouse. The cat ate the little mouse.* You didn't mix the two up. Before you had
# finished reading the word, something in your head had looked back, at *keyboard* in one sentence and at *cat* in the
# other.
#
# Attention is that glance, as arithmetic: every word looks at the words around it, decides how much each of them
# matters to it, and takes in a weighted mean. It is the only place in a Transformer where words meet at all. You build
# it in this chapter from two matrix products, put it into a real model of 135 million parameters, and teach a tiny
# one to write backwards with it.
#
# We start with what the real model does with the mouse.

# %% tags=["setup"]
import math

import torch
import torch.nn.functional as F

from autograde import check
from labkit import COLORS, SEQUENTIAL, figure, knobs, show, smollm, verdict

# %% [markdown]
# ## One word, two sentences
#
# The model has 30 layers with 9 attention heads each, and each of these 270 heads has weights of its own. For both
# sentences we record the weights with which the last word, *mouse*, reads the words before it. Which head to show? The
# one that looks most at the word that settles the meaning, in *other* sentences: what is chosen on a sentence proves
# nothing there.

# %% tags=["demo"]
model, tokenizer = smollm()
model.set_attn_implementation("eager")  # the one that can hand out its weights
SENTENCES = {
    "The computer has a keyboard and a mouse": " keyboard",
    "The cat ate the little mouse": " cat",
}
CHOSEN_BY = {
    "She cleaned the screen and then the mouse": " screen",
    "The owl caught a small mouse": " owl",
    "He bought a laptop and a mouse": " laptop",
    "The hawk flew away with the mouse": " hawk",
}


@torch.inference_mode()
def look(sentence):
    """The words of a sentence, and all weights of the model: [layers, heads, n, n]."""
    encoded = tokenizer(sentence, return_tensors="pt")
    attentions = model(**encoded, output_attentions=True).attentions
    return [tokenizer.decode(i) for i in encoded.input_ids[0]], torch.cat(attentions)


def on_the_clue(sentence, clue):
    """The weight with which the last word reads the clue: [layers, heads]."""
    words, weights = look(sentence)
    return weights[:, :, -1, words.index(clue)]


chosen = torch.stack([on_the_clue(*pair) for pair in CHOSEN_BY.items()]).mean(0)
LAYER, HEAD = divmod(int(chosen.argmax()), model.config.num_attention_heads)
looks = {sentence: look(sentence) for sentence in SENTENCES}
shown = {clue.strip(): float(on_the_clue(s, clue)[LAYER, HEAD]) for s, clue in SENTENCES.items()}
others = {clue.strip(): float(on_the_clue(s, clue).median()) for s, clue in SENTENCES.items()}

fig, axes = figure(1, 2, width=9, height=3.6, sharex=True)
for ax, (sentence, (words, weights)) in zip(axes, looks.items(), strict=True):
    row = weights[LAYER, HEAD, -1]
    clue = words.index(SENTENCES[sentence])
    bars = ax.barh(range(len(words)), row, color=[COLORS[1 if i == clue else 0] for i in range(len(words))])
    ax.bar_label(bars, [f"{w:.2f}" for w in row], padding=3, fontsize=9)
    ax.set_yticks(range(len(words)), [w.strip() for w in words])
    ax.invert_yaxis()
    ax.set(xlabel="attention weight of “mouse” (sums to 1)", xlim=(0, 1.05))
show(
    fig,
    alt="Two bar charts: how much the word mouse attends to each word of its sentence. To "
    + ", to ".join(f"{clue} {weight:.0%}" for clue, weight in shown.items()) + ".",
    title=f"Layer {LAYER + 1}, head {HEAD + 1}: “mouse” reads "
    + " and ".join(f"“{clue}” with {weight:.0%}" for clue, weight in shown.items()),
)
print("the median of all heads: " + ", ".join(f"{clue} {weight:.0%}" for clue, weight in others.items()))

# %% [markdown]
# Nobody told the model where to look, and we did search among 270 heads: what the clue gets in their median stands
# under the figure. But the mechanism is one and the same in all of them, and it fits into one line:
#
# $$\text{Attention}(Q, K, V) = \text{softmax}\!\left(\frac{QK^\top}{\sqrt{d}}\right) V .$$
#
# We take it apart from the inside out.
#
# ## A dictionary that takes the mean
#
# A Python dictionary compares your *query* with its *keys*, finds the one that is equal, and returns its *value*.
# Attention does the same with vectors, except that no two vectors are ever quite equal. So it compares the query with
# **all** keys by a dot product, turns the scores into weights that sum to 1, and returns the weighted mean of the
# values.
#
# The softmax does the turning: $w_j = e^{s_j} / \sum_k e^{s_k}$. Long queries make it choose, short ones make it
# hesitate. Below is a query in the plane among five keys; turn it with the slider, if you have one.

# %% tags=["demo"]
KEYS = torch.tensor([[1.0, 0.1], [0.6, 0.9], [-0.5, 0.9], [-0.9, -0.3], [0.3, -1.0]])


def draw_lookup(angle=35, lengths=(0.5, 2.0, 8.0)):
    direction = torch.tensor([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
    fig, axes = figure(1, 1 + len(lengths), width=9.6, height=3.0)
    plane = axes[0]
    for i, (x, y) in enumerate(KEYS.tolist()):
        plane.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "->", "color": COLORS[0], "linewidth": 2})
        plane.text(1.2 * x, 1.2 * y, f"k{i}", horizontalalignment="center", verticalalignment="center")
    plane.annotate("", direction.tolist(), (0, 0), arrowprops={"arrowstyle": "->", "color": COLORS[1], "linewidth": 3})
    plane.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", xticks=[], yticks=[], title="keys, and the query")
    for ax, length in zip(axes[1:], lengths, strict=True):
        weights = (KEYS @ (length * direction)).softmax(-1)
        ax.bar(range(5), weights, color=COLORS[0])
        ax.set_xticks(range(5), [f"k{i}" for i in range(5)])
        ax.set(ylim=(0, 1), title=f"query of length {length:g}", xlabel="key")
    axes[1].set_ylabel("weight")
    show(
        fig,
        alt="Left: five arrows (keys) and a thick one (the query) in the plane. Right: the weights of the keys for "
        "queries of several lengths. The greatest: "
        + ", ".join(f"{float((KEYS @ (x * direction)).softmax(-1).max()):.0%} at length {x:g}" for x in lengths) + ".",
        title="The direction of the query says which key, its length says how decidedly",
    )


draw_lookup()
knobs(draw_lookup, angle=(0, 355, 5))

# %% [markdown]
# ## Why divide by √d?
#
# A dot product sums $d$ terms. If the entries of q and k are independent, with mean 0 and variance 1, then so are their
# products, and the sum has variance $d$: scores grow like $\sqrt d$, by nothing but width. And a softmax over large
# scores is a choice of one key, whether or not the model meant it.
#
# A softmax that has made up its mind is *saturated*: the derivative of a weight by its own score is $w(1-w)$, next to
# nothing at both ends. From the score to the query comes one more factor, the keys, divided by $\sqrt d$ or not. We
# draw random queries and keys at several widths and measure the greatest weight, the slope, and the gradient at the
# query.

# %% tags=["demo"]
generator = torch.Generator().manual_seed(0)
WIDTHS = [4, 16, 64, 256, 1024]
top, slope, at_query = ({True: [], False: []} for _ in range(3))
for d in WIDTHS:
    q, k = torch.randn(2_000, 1, d, generator=generator), torch.randn(2_000, 16, d, generator=generator)
    scores = (q @ k.mT).squeeze(1)
    for scaled in top:
        w = (scores / math.sqrt(d) if scaled else scores).softmax(-1)
        top[scaled].append(float(w.amax(-1).mean()))
        slope[scaled].append(float((w * (1 - w)).sum(-1).mean()))
        spread = torch.cdist(k, w[:, None] @ k).squeeze(-1)  # the derivative of w by q: w (k - the mean key)
        at_query[scaled].append((w * spread).norm(dim=-1) / (math.sqrt(d) if scaled else 1))

fig, (left, right) = figure(1, 2, width=9, height=3.5)
for scaled, (color, style) in {True: (COLORS[0], "-"), False: (COLORS[1], "--")}.items():
    name = "divided by √d" if scaled else "as they are"
    left.plot(WIDTHS, top[scaled], color=color, linestyle=style, marker="o", label=name)
    right.plot(WIDTHS, slope[scaled], color=color, linestyle=style, marker="o", label=name)
left.set(ylabel="greatest weight of 16 (mean)", ylim=(0, 1.05))
right.set(ylabel="slope: sum of w(1 − w)", ylim=(0, 1))
for ax in (left, right):
    ax.set_xscale("log", base=2)
    ax.set_xticks(WIDTHS, [str(d) for d in WIDTHS])
    ax.set(xlabel="width d of queries and keys")
left.legend(title="scores")
show(
    fig,
    alt=f"Greatest of 16 weights, and slope of the weights, from width {WIDTHS[0]} to {WIDTHS[-1]}: " + "; ".join(
        f"{name} {top[scaled][0]:.2f} to {top[scaled][-1]:.2f}, and {slope[scaled][0]:.2f} to {slope[scaled][-1]:.2f}"
        for scaled, name in {True: "scaled", False: "as they are"}.items()
    ) + ".",
    title=f"At width 1,024 unscaled scores give one key {top[False][-1]:.0%}, and leave "
    f"{slope[False][-1] / slope[True][-1]:.0%} of the slope",
)
bare, divided = at_query[False][-1], at_query[True][-1]
print(f"Gradient at the query, undivided against divided, at width {WIDTHS[-1]:,}: "
      f"{bare.median() / divided.median():.2g} times in the median of the queries, {bare.mean() / divided.mean():.2g} "
      "times in their mean")

# %% [markdown]
# Compare the median with the mean: a query that has chosen gets next to nothing, one that hasn't gets the keys in their
# full length. The paper suspects small gradients (Vaswani et al. 2017, section 3.2.1; footnote 4 has the arithmetic).
# Mind what $d$ is: the number of terms in *this* dot product, the width of one query.
#
# ## Exercise 1: attention
#
# One convention before you start. A mask says which query may read which key; here, as in
# `F.scaled_dot_product_attention`, **True means: may attend**. (`nn.MultiheadAttention` has it the other way round. So
# many bugs live there that it is worth saying twice.) And a query that may read nothing at all gets zeros, not NaN.

# %% exercise="scaled_dot_product_attention"
def scaled_dot_product_attention(q, k, v, mask=None):
    """For each query the values' mean, weighted by softmax(q @ k.mT / sqrt(d)) over the keys.

    q:    floating-point tensor [..., n, d]: n queries; any number of leading dimensions
    k:    [..., m, d]: m keys, with the leading dimensions and the dtype of q
    v:    [..., m, d_v]: one value for each key, with the leading dimensions and the dtype of q
    mask: bool tensor that broadcasts to [..., n, m], True = this query may attend to this key;
          or None: to all. Hidden keys take no part in the softmax, however low the other scores
          are. A query that may attend to no key gets zeros.
    Returns a tensor [..., n, d_v] of the dtype of q. Scores may be as large as +-30,000.
    Nothing is changed in place. Differentiable: gradients flow to q, k and v, and none is NaN,
    also where a query may attend to no key.

    Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1.
    """
    ### BEGIN SOLUTION
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if mask is None:
        return scores.softmax(-1) @ v
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return weights.masked_fill(~mask, 0.0) @ v
    ### END SOLUTION


# %% check="scaled_dot_product_attention"
check(scaled_dot_product_attention)

# %% [markdown]
# Zeros are for a query that may read nothing. One that holds a NaN should give NaN, as the formula does, so that what
# is broken stays visible. On a CPU torch 2.13.0's own function gives zeros there, too, if there are few keys (five;
# with 64 it is NaN), and NaN as gradients: a test on a short text passes, and the training doesn't.
# `findings/torch_attention_turns_nan_into_zeros.sh` runs it.
#
# ## Your attention inside the real model
#
# The transformers library lets you register an attention function of your own. Here is yours, in all 30 layers. The
# model has 9 query heads, but only 3 heads of keys and values (grouped-query attention, a later chapter), so each of
# these is repeated three times first. We compare the *logits*, the scores of all possible next tokens, before the last
# softmax makes probabilities of them.

# %% tags=["payoff"]
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

CALLS = []


def yours(module, query, key, value, attention_mask, **_):
    groups = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(groups, 1) for t in (key, value))
    if attention_mask is None:  # the library leaves it out where causal is enough
        attention_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril(
            key.shape[2] - query.shape[2]
        )
    CALLS.append(module.layer_idx)
    return scaled_dot_product_attention(query, key, value, attention_mask).transpose(1, 2), None


scaled_dot_product_attention(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 2))
AttentionInterface.register("yours", yours)
AttentionMaskInterface.register("yours", sdpa_mask)
question = [{"role": "user", "content": "Say the days of the week."}]
text = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
prompt = tokenizer(text, return_tensors="pt")
with torch.inference_mode():
    own = model(**prompt).logits
    model.set_attn_implementation("yours")
    mine = model(**prompt).logits
    said = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt.input_ids.shape[1] :]
    model.set_attn_implementation("eager")
print(f"your function was called {len(CALLS):,} times, in {len(set(CALLS))} layers")
print(f"largest difference of a logit: {(mine - own).abs().max():.1e}")
print(f"the logits run from {own.min():.0f} to {own.max():.0f}")
print(f"the model, thinking with your attention: {tokenizer.decode(said)!r}")
assert (mine - own).abs().max() < 1e-2, "These are not the model's own logits: solve exercise 1 first."

# %% [markdown]
# ## Who may look at whom
#
# A language model learns by guessing the next word of a text, at all places at once. If a word could look ahead, it
# would see the answer. How quickly would a model find that out? We give two one-layer models **random** digits, where
# there is nothing to learn. The loss is the mean of $-\ln p$ of the right digit (the negative log-likelihood, NLL, in
# *nats*, since the logarithm is the natural one): $\ln 10 \approx 2.30$ is honest and can't be beaten. One of the two
# gets a causal mask, the other none.

# %% tags=["demo"]
DIGITS, LENGTH, WIDTH = 10, 16, 32


class Guesser(torch.nn.Module):
    """Embedding, positions, one attention head that adds to them, and a linear layer: guesses the next digit."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(DIGITS, WIDTH)
        self.place = torch.nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.5)
        self.qkv = torch.nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = torch.nn.Linear(WIDTH, DIGITS)

    def forward(self, digits, mask):
        x = self.embed(digits) + self.place
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out(x + F.scaled_dot_product_attention(q, k, v, attn_mask=mask))


def train_guesser(mask, steps=250):
    torch.manual_seed(0)
    guesser = Guesser()
    optimizer = torch.optim.Adam(guesser.parameters(), 1e-2)
    losses = []
    for _ in range(steps):
        digits = torch.randint(0, DIGITS, (64, LENGTH + 1))  # fresh ones at each step
        logits = guesser(digits[:, :-1], mask)
        loss = F.cross_entropy(logits.flatten(0, 1), digits[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


CAUSAL = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
curves = {"causal mask": train_guesser(CAUSAL), "no mask": train_guesser(None)}
fig, ax = figure(width=8, height=3.5)
for (name, losses), color, style in zip(curves.items(), COLORS, ["-", "--"], strict=False):
    ax.plot(losses, color=color, linestyle=style, label=name)
ax.axhline(math.log(DIGITS), color="#555555", linewidth=1, linestyle=":", label="ln 10: nothing to learn")
ax.set(xlabel="training step", ylabel="loss (nats a digit)", ylim=(0, 3))
ax.legend()
show(
    fig,
    alt="Loss against training step for random digits, from the first step to the last: " + "; ".join(
        f"{name} {losses[0]:.2f} to {losses[-1]:.2f}" for name, losses in curves.items()
    ) + f"; a dotted line at ln 10 = {math.log(DIGITS):.2f}.",
    title=f"At the end {curves['no mask'][-1]:.2f} nats without a mask, {curves['causal mask'][-1]:.2f} with a causal "
    f"one; {math.log(DIGITS):.2f} is honest",
)

# %% [markdown]
# A loss that is too good to be true usually is: here nothing but a look at the answer can bring it below the dotted
# line. (The last digit's answer isn't in the input: that one has to be guessed either way.)
#
# ## Exercise 2: the causal mask
#
# When a model writes, most keys are already there, in a cache, and only the last few tokens ask. So the mask isn't
# always square. The `is_causal=True` of `F.scaled_dot_product_attention` puts the triangle into the upper left corner
# of such a mask, so the first new token would read only the very oldest key. Yours belongs into the lower right.

# %% exercise="causal_mask"
def causal_mask(n, past=0):
    """Which keys each of n new tokens may read, where `past` older tokens stand before them.

    n:    number of new tokens, an int of at least 1; they are the queries
    past: number of older tokens, an int of at least 0; they are keys only
    Returns a bool tensor [n, past + n], True = may attend: the keys are in order, oldest first,
    and each new token reads itself and everything before it.

    Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3.
    """
    ### BEGIN SOLUTION
    return torch.ones(n, past + n, dtype=torch.bool).tril(past)
    ### END SOLUTION


# %% check="causal_mask"
check(causal_mask)

# %% [markdown]
# ## Padding
#
# The second thing to hide has nothing to do with time. Sequences in a batch have different lengths, so short ones are
# filled up with padding. It carries no meaning, and no query may read it.
#
# One row of the mask is enough for all queries of a sequence: broadcasting does the rest. The rows of the padding
# itself can hold what they like, since nobody reads what padding computes. Models that write are padded on the
# **left**, so that every sequence ends where its next word belongs.
#
# ## Exercise 3: the padding mask
#
# Mind the shape: the mask meets scores of shape [..., n, n], whose last dimension are the keys.

# %% exercise="padding_mask"
def padding_mask(lengths, n, side="right"):
    """Which keys are tokens, and not padding.

    lengths: int64 or int32 tensor of any shape [...], also none: the number of tokens in each
             sequence, from 0 to n
    n:       the length to which all were padded
    side:    "right": the padding comes after the tokens; "left": before them
    Returns a bool tensor [..., 1, n], True = may attend: one row for all queries of a sequence.
    """
    ### BEGIN SOLUTION
    seen = torch.arange(n) < lengths[..., None, None]
    return seen if side == "right" else seen.flip(-1)
    ### END SOLUTION


# %% check="padding_mask"
check(padding_mask)

# %% [markdown]
# Masks of this kind combine with `&`: a key has to be a token *and* not lie in the future. Here are yours, and a look
# at the corner that causes NaN: with padding on the left, the first rows of a causal mask may read nothing at all. What
# do torch's own functions say there?

# %% tags=["payoff"]
pictures = {
    "causal": causal_mask(6)[None],
    "causal, 3 in the cache": causal_mask(3, past=3)[None],
    "padding right, length 4": padding_mask(torch.tensor([4]), 6).expand(1, 6, 6),
    "causal & padding left": causal_mask(6) & padding_mask(torch.tensor([4]), 6, side="left"),
}
fig, axes = figure(1, 4, width=9.6, height=2.9)
for ax, (name, mask) in zip(axes, pictures.items(), strict=True):
    ax.imshow(mask[0], cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="auto" if mask.shape[-2] == 3 else "equal")
    ax.set(title=name, xlabel="key", xticks=range(6), yticks=range(mask.shape[-2]))
    for i, row in enumerate(mask[0].tolist()):
        for j, seen in enumerate(row):
            ax.text(j, i, "1" if seen else "·", horizontalalignment="center", verticalalignment="center",
                    color="black" if seen else "white", fontsize=9)
axes[0].set_ylabel("query")
empty = int((~pictures["causal & padding left"].any(-1)).sum())
show(
    fig,
    alt="Four masks as small grids. How many keys the rows may read, from above: " + "; ".join(
        f"{name} {', '.join(str(int(row.sum())) for row in mask[0])}" for name, mask in pictures.items()
    ) + ".",
    title=f"1 = may attend. With padding on the left {empty} queries may read nothing",
)
tokens, padding = torch.ones(1, 3, 4), torch.ones(1, 3, dtype=torch.bool)  # a sequence of padding alone
answers = {"F.scaled_dot_product_attention": F.scaled_dot_product_attention(*[tokens] * 3, attn_mask=~padding[:, None])}
module = torch.nn.MultiheadAttention(4, 1, batch_first=True)
for training in (True, False):
    for asked in (True, False):
        answer, _ = module.train(training)(*[tokens] * 3, key_padding_mask=padding, need_weights=asked)
        answers[f"nn.MultiheadAttention, {'train' if training else 'eval'}(), need_weights={asked}"] = answer
print("To a query that may read nothing, torch answers")
for name, answer in answers.items():
    print(f"    {'NaN' if answer.isnan().any() else 'no NaN'}: {name}")

# %% [markdown]
# ## Why several heads
#
# One softmax makes one choice. But the word *mouse* needs at once its article, its verb, and its computer. So the model
# has several heads: the width is cut into blocks, each block attends by itself, with queries and keys of its own, and
# at the end a matrix $W_O$ mixes the results. Below are three heads of the real model on one sentence, the ones that
# look most at the word itself, at the word before, and at the first word. (Chosen on that very sentence: the maps show
# that there are such heads. How many there are, the lines below count, with other first words as well.)

# %% tags=["demo"]
STORY = "old captain and his young cat watched the sea, and the cat was hungry."
words, weights = look(f"The {STORY}")
flat = weights.flatten(0, 1)  # [270, n, n]
kinds = {
    "itself": flat.diagonal(dim1=-2, dim2=-1)[:, 2:].mean(-1),
    "the word before": flat.diagonal(-1, dim1=-2, dim2=-1)[:, 1:].mean(-1),
    "the first word": flat[:, 2:, 0].mean(-1),
}
fig, axes = figure(1, 3, width=9.8, height=4.3, sharey=True)
for ax, (name, share) in zip(axes, kinds.items(), strict=True):
    layer, head = divmod(int(share.argmax()), model.config.num_attention_heads)
    picture = ax.imshow(weights[layer, head], cmap=SEQUENTIAL, vmin=0, vmax=1)
    ax.set_title(f"{name}: {share.max():.0%}\n(layer {layer + 1}, head {head + 1})", fontsize=11)
    ax.set_xticks(range(len(words)), [w.strip() for w in words], rotation=90, fontsize=8)
    ax.set_yticks(range(len(words)), [w.strip() for w in words], fontsize=8)
    ax.set_xlabel("read word (key)")
axes[0].set_ylabel("reading word (query)")
fig.colorbar(picture, ax=axes, label="attention weight", shrink=0.7)
show(
    fig,
    alt="Three attention maps of the same sentence, of the heads that give the most to the word itself (the diagonal), "
    "to the word before (just below it), and to the first word (the first column): "
    + ", ".join(f"{share.max():.0%}" for share in kinds.values()) + ".",
    title="The most that any head gives: " + ", ".join(f"{share.max():.0%} to {name}" for name, share in kinds.items()),
)
for start in ("My", "Green"):
    kinds[f"the first word, if it is “{start}”"] = look(f"{start} {STORY}")[1].flatten(0, 1)[:, 2:, 0].mean(-1)
even = sum(1 / (i + 1) for i in range(2, len(words))) / (len(words) - 2)
print(f"Of {len(flat)} heads, these give more than half of their attention (an even reader gives {even:.0%}) to")
for name, share in kinds.items():
    print(f"    {name}: {float((share > 0.5).float().mean()):.0%}")

# %% [markdown]
# How common is each of the three habits? And is the last one interest in the word? Then it should depend on which word
# that is. Xiao et al. (2023, arXiv:2309.17453) call it an *attention sink*: a softmax has to put its weight somewhere,
# and a head that finds nothing puts it on the first token. So an attention map shows where a head reads, which is not
# yet an explanation of what the model thinks.
#
# ## Exercise 4: several heads
#
# You have all the parts. What is left is to cut and to join, and that is where home-made Transformers like to go wrong:
# a wrong `reshape` runs without an error, and the model may even learn. (A *residual connection*, which the exercise
# leaves out, adds the input to the result: the next chapter.)

# %% exercise="multi_head_attention"
def multi_head_attention(x, w_q, w_k, w_v, w_o, n_heads, mask=None):
    """Self-attention in several heads: project, split, attend in each head, join, project.

    x:             floating-point tensor [..., n, d]: n tokens, with any number of leading
                   (batch) dimensions, or none
    w_q, w_k, w_v: [d, d], of the dtype of x, used as x @ w. Of the d columns of x @ w, head i
                   owns the block number i of d / n_heads neighboring ones
    w_o:           [d, d], used as joined @ w_o, where the heads' results stand side by side in
                   the same order
    n_heads:       an int that divides d
    mask:          bool tensor that broadcasts to [..., n, n], with the leading dimensions of x,
                   True = may attend; the same for all heads; or None. A query that may attend
                   to nothing gets zeros (before w_o).
    Returns a tensor [..., n, d] of the dtype of x. There are no biases, and no residual
    connection.
    Differentiable: gradients flow to x and to all four matrices, and none is NaN, also where a
    query may attend to nothing.

    Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2.
    """
    ### BEGIN SOLUTION
    q, k, v = ((x @ w).unflatten(-1, (n_heads, -1)).transpose(-3, -2) for w in (w_q, w_k, w_v))
    heads = scaled_dot_product_attention(q, k, v, None if mask is None else mask.unsqueeze(-3))
    return heads.transpose(-3, -2).flatten(-2) @ w_o
    ### END SOLUTION


# %% check="multi_head_attention"
check(multi_head_attention)

# %% [markdown]
# ## Teach it to write backwards
#
# Does your function learn? The task: a row of ten digits, to be given back in reverse. Without attention this is
# impossible, since the answer at each place stands somewhere else. We train one layer of four heads, and then look at
# where it looks.

# %% tags=["payoff"]
def reverser(heads=4, width=64, n=10, steps=400):
    """Trains embedding, positions, your attention and a linear layer to reverse digits: parameters and accuracy."""
    torch.manual_seed(0)
    shapes = dict.fromkeys(["w_q", "w_k", "w_v", "w_o"], (width, width))
    shapes |= {"embed": (10, width), "place": (n, width), "out": (width, 10)}
    p = {name: (torch.randn(s) * s[0] ** -0.5).requires_grad_() for name, s in shapes.items()}
    optimizer = torch.optim.Adam(p.values(), 3e-3)

    def answer(digits):
        x = p["embed"][digits] + p["place"]
        return multi_head_attention(x, p["w_q"], p["w_k"], p["w_v"], p["w_o"], heads) @ p["out"]

    for _ in range(steps):
        digits = torch.randint(0, 10, (64, n))
        loss = F.cross_entropy(answer(digits).flatten(0, 1), digits.flip(-1).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fresh = torch.randint(0, 10, (1_000, n))
    with torch.no_grad():
        right = (answer(fresh).argmax(-1) == fresh.flip(-1)).float().mean()
    return p, float(right)


parameters, right = reverser()
with torch.no_grad():
    x = parameters["embed"][torch.randint(0, 10, (200, 10))] + parameters["place"]
    q, k = ((x @ parameters[w]).unflatten(-1, (4, -1)).transpose(-3, -2) for w in ("w_q", "w_k"))
    eye = torch.eye(10).expand(200, 4, 10, 10)  # values that are the identity give back the weights themselves
    maps = scaled_dot_product_attention(q, k, eye).mean(0)
fig, axes = figure(1, 4, width=9.6, height=3.0, sharey=True)
for i, ax in enumerate(axes):
    picture = ax.imshow(maps[i], cmap=SEQUENTIAL, vmin=0, vmax=1)
    ax.set(title=f"head {i + 1}", xlabel="key: place in the input", xticks=range(0, 10, 3), yticks=range(0, 10, 3))
axes[0].set_ylabel("query: place in the answer")
fig.colorbar(picture, ax=axes, label="weight", shrink=0.8)
opposite = [float(m.flip(-1).diagonal().mean()) for m in maps]
show(
    fig,
    alt="The mean attention of four heads over 200 rows of digits. On the line from upper right to lower left lies, in "
    "each head, a share of " + ", ".join(f"{share:.0%}" for share in opposite) + ".",
    title=f"{right:.1%} of the digits reversed, with {min(opposite):.0%} to {max(opposite):.0%} of a head's weight on "
    "the opposite place",
)
assert right > 0.9, "The layer hasn't learned to reverse: solve exercises 1 and 4 first."

# %% [markdown]
# ## Can the same word have different weights?
#
# That is a question from the interview bank, and the answer that goes with it is "yes, since each word computes its
# weights from its context". The mouse was one head, and a chosen one. And for the reason a good interviewer will push:
# let us measure what the weights really depend on.
#
# First the question itself, over all heads: the same pair of words, *the cat*, after two different beginnings of equal
# length. The control: the same beginning, read twice.
#
# **Before the run:** *correct* if in over half of the heads a weight of *cat* moves by more than 0.05, *wrong* if in
# none, *imprecise* in between. *Unverifiable* if one moves so in the control.

# %% claim="T10.1"
(first_words, first), (second_words, second) = (
    look(f"{start} and then the cat") for start in ("The sun came up", "The ship went down")
)
assert len(first_words) == len(second_words), "the two beginnings should have as many tokens"
changed = (first[:, :, -1] - second[:, :, -1]).abs().amax(-1)  # [layers, heads]
again = (look("The sun came up and then the cat")[1] - first)[:, :, -1].abs().max()
moved = float((changed > 0.05).float().mean())
fig, ax = figure(width=8.4, height=3.6)
for head in range(changed.shape[1]):
    ax.scatter(range(1, len(changed) + 1), changed[:, head], color=COLORS[0], s=18, alpha=0.6)
ax.plot(range(1, len(changed) + 1), changed.median(1).values, color=COLORS[1], label="median of the nine heads")
ax.set(xlabel="layer", ylabel="largest change of a weight of “cat”")
ax.set_ylim(0, None)
ax.legend()
show(
    fig,
    alt="For each of 30 layers nine dots: how much a weight of the word cat changes when the beginning of the sentence "
    f"changes. {float((changed > 0.1).float().mean()):.0%} of the dots lie above 0.1.",
    title=f"Same word, same place, other beginning: weights move by up to {changed.max():.2f}",
)
verdict(
    "T10.1",
    "unverifiable" if again > 0.05 else "correct" if moved > 0.5 else "imprecise" if moved else "wrong",
    f"After another beginning a weight of “cat” moves by more than 0.05 in {moved:.0%} of the heads; read twice after "
    f"the same one by {again:.0e} at most.",
)

# %% [markdown]
# ## What do the weights belong to?
#
# To the word in its context, as the answer has it, and to nothing else? Three things to look at:
#
# 1. Two copies of one word in *one* sentence share the whole context. Without positions, in a first layer that sees
#    every word, are their weights different?
# 2. One word in one place: do the nine heads of a layer agree?
# 3. A word's *query*, which asks for the weights: from which layer on does it know the context at all?
#
# **Before the run:** the reason is *correct* if the context does it all: the copies have different weights (by over
# 0.01), the heads agree (to 0.05, in the median layer), and the query of layer 1 differs between the sentences (by over
# 1 %). *Imprecise* if one or two of the three hold or none does, while the queries differ at least in a later layer;
# else *wrong*. (How a layer is built settles the first and the third, the run only shows it. So what is open is
# *imprecise* or *wrong*.)

# %% claim="T10.2"
layer = model.model.layers[0].self_attn
D = model.config.head_dim


@torch.inference_mode()
def first_layer_rows(sentence, word, with_positions):
    """Head 0's weights of each copy of `word` in the first layer, if every word could see every other: [copies, n]."""
    ids = tokenizer(sentence, return_tensors="pt").input_ids
    x = model.model.layers[0].input_layernorm(model.model.embed_tokens(ids))
    q, k = (proj(x).unflatten(-1, (-1, D)).transpose(1, 2) for proj in (layer.q_proj, layer.k_proj))
    if with_positions:
        from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

        q, k = apply_rotary_pos_emb(q, k, *model.model.rotary_emb(x, torch.arange(ids.shape[1])[None]))
    places = [i for i, token in enumerate(ids[0]) if tokenizer.decode(token) == word]
    return (q[0, 0, places] @ k[0, 0].T / math.sqrt(D)).softmax(-1)


@torch.inference_mode()
def queries(sentence):
    """The query of the last word in every layer, before positions come in: [layers, heads * D]."""
    caught = []
    hooks = [
        block.self_attn.q_proj.register_forward_hook(lambda _m, _i, out: caught.append(out[0, -1]))
        for block in model.model.layers
    ]
    try:
        model(**tokenizer(sentence, return_tensors="pt"))
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(caught)


COPIES = "The cat saw that the other cat slept"
apart = {}
for with_positions in (False, True):
    one, two = first_layer_rows(COPIES, " cat", with_positions)
    apart[with_positions] = float((one - two).abs().max())
heads_apart = float((first[:, :, -1].amax(1) - first[:, :, -1].amin(1)).amax(-1).median())
one, two = (queries(s) for s in SENTENCES)
change = (one - two).norm(dim=-1) / ((one.norm(dim=-1) + two.norm(dim=-1)) / 2)

print("1. two copies of “cat” in one sentence, first layer, all words visible: largest difference of a weight")
print(f"     without positions {apart[False]:.1e}, with positions {apart[True]:.2f}")
print("2. one word, one place, nine heads of one layer: largest difference of a weight")
print(f"     {heads_apart:.2f} in the median layer")
fig, ax = figure(width=8.4, height=3.4)
ax.plot(range(1, len(change) + 1), change, color=COLORS[0], marker="o")
ax.set(xlabel="layer", ylabel="difference of the two queries\n(of their length)", ylim=(-0.02, None))
show(
    fig,
    alt="Difference between the queries of the word mouse in the two sentences, relative to their length, by layer: "
    f"{change[0]:.0%} in the first, {change[1]:.0%} in the second, {change.max():.0%} in layer "
    f"{int(change.argmax()) + 1}.",
    title=f"3. The query of “mouse” differs by {change[0]:.0%} in layer 1, by {change[1]:.1%} in layer 2, "
    f"by {change.max():.0%} at most",
)
context_does_it = apart[False] > 0.01 and heads_apart < 0.05 and float(change[0]) > 0.01
verdict(
    "T10.2",
    "correct" if context_does_it else "imprecise" if float(change.max()) > 0.01 else "wrong",
    f"Two copies in one context differ by {apart[False]:.0e} without positions and by {apart[True]:.2f} with them; the "
    f"heads of the median layer are {heads_apart:.2f} apart; the queries differ by {change[0]:.0%} in layer 1 and by "
    f"{change.max():.0%} at most.",
)

# %% [markdown]
# Why so? Without positions and mask two copies of a word are the same vector before the same keys. Each head has its
# own $W_Q$, and its own $W_K$ or, as here, one for three heads. And in the first layer a query is made of its word and
# of nothing else: what can differ there are the *keys* around it, and its place among them. What a query knows of the
# context came in through the layers below.
#
# So say it with all its parts: weights are computed from query *and* keys, in each head and layer anew, and with
# positions. "Rather than uniformly" is no contrast either: uniform is simply what a query of length 0 gives.
#
# ## Is it still an encoder and a decoder?
#
# "The Transformer consists of an encoder and a decoder", say the notes, and that is the model of 2017. What is built
# today? The installed transformers library keeps registers of what it can build. We count three of them, for text.
#
# **Before the run:** the sentence is about the paper's model, so the verdict is one by definition: *correct* if torch,
# which builds that model, makes it of an encoder and a decoder, *wrong* if not. For today the count speaks.

# %% claim="T01.1"
import transformers
from transformers.models.auto import modeling_auto as auto

FAMILIES = {
    "decoder alone\n(causal language model)": set(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    "encoder and decoder\n(text to text)": set(auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
    "encoder alone\n(masked language model)": set(auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
}
both = FAMILIES["encoder and decoder\n(text to text)"]
counts = {name: len(kinds if kinds is both else kinds - both) for name, kinds in FAMILIES.items()}
fig, ax = figure(width=8, height=2.6)
bars = ax.barh(range(3), counts.values(), color=COLORS[0])
ax.bar_label(bars, padding=4)
ax.set_yticks(range(3), counts.keys())
ax.invert_yaxis()
ax.set_xlabel(f"entries in the registers of transformers {transformers.__version__}")
ax.set_xlim(0, 1.12 * max(counts.values()))
show(
    fig,
    alt="Bar chart of entries in three registers of the library: " + ", ".join(
        f"{name.replace(chr(10), ' ')} {count}" for name, count in counts.items()
    ) + ".",
    title=f"For one entry with both halves there are {max(counts.values()) / len(both):.1f} of the commonest kind",
)
parts = [name for name, _ in torch.nn.Transformer(32, 4, batch_first=True).named_children()]
share = len(both) / sum(counts.values())
verdict(
    "T01.1",
    "correct" if parts == ["encoder", "decoder"] else "wrong",
    f"The paper's model as torch builds it has these parts: {', '.join(parts)}. Of {sum(counts.values())} entries in "
    f"three registers of transformers {share:.0%} have both halves.",
)

# %% [markdown]
# An architecture with both halves counts only there; one that is registered as a causal and as a masked model counts
# twice (BERT has a causal variant in the library, for instance); a causal one needn't have attention (Mamba); speech
# and pictures have registers of their own. So read the picture as a sketch. The next chapter builds both halves anyway,
# because cross-attention is worth knowing, and because both are still built where the input is given in full: speech
# recognition (Whisper), small translators, T5Gemma.
#
# ## What you have now
#
# * Attention: compare with all keys, softmax, mean of the values; divided by the root of the *head's* width.
# * Masks: True = may attend; causal for what comes later, padding for what isn't there; a query that may read nothing
#   gets zeros.
# * Heads: blocks of columns with a softmax each, mixed by $W_O$.
#
# One thing your functions don't have: positions. (The little models above were given a vector for each place.)
# Attention without a mask can't tell *dog bites man* from *man bites dog*, and the chapters on position encodings and
# on RoPE mend that.
