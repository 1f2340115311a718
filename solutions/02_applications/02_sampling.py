# ---
# jupyter:
#   course:
#     title: "Sampling: temperature, top-k, top-p, min-p"
#     exercises: applications.sampling
#     questions: [A06]
#     needs: []
# ---

# %% [markdown]
# # Sampling: temperature, top-k, top-p, min-p
#
# A language model never says a word. It gives a score to every token of its vocabulary, and then somebody has to
# choose. Is the text dull, lively or mad? Below, the very same model writes under every setting: only *how* you
# choose is different.
#
# You will build the four knobs that open inference engines have in common, and the draw behind them. At the end your
# code writes with a real model, and you can say in an interview what each knob does, what it can't do, and in which
# order they are turned.
#
# The interview question: **what are temperature, top_p and top_k?** Three details of the usual answers, study notes
# among them, are worth a second look. We put each to an experiment.

# %% tags=["setup"]
import torch

from autograde import check
from labkit import COLORS, SEQUENTIAL, figure, knobs, shakespeare, show, smollm, verdict

# %% [markdown]
# ## What a model really gives you
#
# `smollm()` is a real chat model of the LLaMA family with 135 million parameters. We show it two beginnings and look
# at the probabilities of the next token.
#
# How open a choice is, is measured by the **entropy** $H = -\sum_i p_i \log_2 p_i$ in bits: $H$ bits are as open as
# a fair choice among $2^H$ tokens.

# %% tags=["demo"]
model, tokenizer = smollm(torch.bfloat16)


@torch.inference_mode()
def next_logits(text):
    """The scores of every token that may follow `text`: [vocab], float32."""
    ids = tokenizer(text, return_tensors="pt").input_ids
    return model(ids, logits_to_keep=1).logits[0, -1].float()


def entropy(probs):
    """Bits. Tokens of probability 0 add nothing."""
    return -torch.special.xlogy(probs, probs).sum(-1) / torch.log(torch.tensor(2.0))


def spelled(token):
    """A token as it can stand in a figure: spaces and line breaks made visible."""
    return repr(tokenizer.decode([int(token)]))[1:-1].replace(" ", "␣")


contexts = {"sure": "The capital of France is", "unsure": "In the morning the children went to the"}
logits = {mood: next_logits(text) for mood, text in contexts.items()}

fig, axes = figure(1, 2, height=3.9, sharex=True)
for ax, (mood, text), color in zip(axes, contexts.items(), COLORS, strict=False):
    probs = logits[mood].softmax(-1)
    top = probs.topk(12)
    ax.barh([spelled(token) for token in top.indices], top.values * 100, color=color)
    ax.invert_yaxis()
    ax.set(title=f"“{text} …”\n{entropy(probs):.1f} bits, like {2 ** entropy(probs):.0f} equal tokens",
           xlabel="probability of the next token, %")
show(fig, "Two bar charts of the twelve likeliest next tokens. "
          + "; ".join(f"after '{text}' the first has {logits[mood].softmax(-1).max():.0%}"
                      for mood, text in contexts.items()) + ".",
     title="One model, two beginnings: "
           + " and ".join(f"{entropy(scores.softmax(-1)):.1f} bits" for scores in logits.values()))

# %% [markdown]
# ## Why not simply take the best token?
#
# Taking the best token every time is called **greedy decoding**. It sounds safe. Watch what it does over 72 tokens,
# beside plain sampling, which draws each token with its own probability.
#
# `write` is the loop inside a chat program. The model reads the prompt once; after that it reads one new token a step,
# because the keys and values of everything earlier wait in a **cache**. It also notes how probable the model itself
# found each token, before any knob (but with the end-of-text token switched off, so that no text stops early).

# %% tags=["demo"]
from transformers import DynamicCache

END = tokenizer.eos_token_id


@torch.inference_mode()
def write(prompts, choose, steps):
    """Continue every row of `prompts` [rows, length] by `steps` tokens; `choose(logits [rows, vocab])` is ids [rows].

    Returns three tensors [rows, steps]: the tokens, their log-probabilities (natural logarithms), the entropies in
    bits; both of the model's own distribution. The end-of-text token is switched off, so that all texts have the same
    length.
    """
    cache, read, steps_taken = DynamicCache(), prompts, []
    for _ in range(steps):
        scores = model(read, past_key_values=cache, logits_to_keep=1).logits[:, -1].float()
        scores[:, END] = -torch.inf
        read = choose(scores).unsqueeze(-1)
        log_probs = scores.log_softmax(-1)
        steps_taken.append((read[:, 0], log_probs.gather(-1, read)[:, 0], entropy(log_probs.exp())))
    return [torch.stack(column, dim=1) for column in zip(*steps_taken, strict=True)]


def ngrams(tokens, n):
    """How many n-grams a list of tokens has, and how many different ones."""
    found = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(found), len(set(found))


def repeated(tokens, n=4):
    """The share of n-grams that stood in the text before."""
    total, different = ngrams(tokens, n)
    return 1 - different / total


def greedy_and_drawn(scores):
    """Row 0 takes the best token, row 1 draws."""
    drawn = torch.multinomial(scores.softmax(-1), 1, generator=dice)[:, 0]
    return torch.stack([scores[0].argmax(), drawn[1]])


dice = torch.Generator().manual_seed(3)
prompt = tokenizer("The most important thing in life is to", return_tensors="pt").input_ids
tokens, log_probs, _ = write(prompt.expand(2, -1), greedy_and_drawn, 72)
loops, loops_drawn = (repeated(row.tolist()) for row in tokens)

fig, ax = figure(height=3.3, width=9)
for row, (name, color) in enumerate({"greedy": COLORS[1], "drawn": COLORS[0]}.items()):
    ax.plot(range(1, 73), log_probs[row].exp() * 100, color=color, marker="o", markersize=3, linewidth=1.3, label=name)
ax.set(xlabel="token of the text", ylabel="probability of the\nchosen token, %", ylim=(-3, 103))
ax.set_title(f"Greedy: {loops:.0%} of the 4-token phrases stood there before; drawn: {loops_drawn:.0%}")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
show(fig, f"Probability of each chosen token over 72 tokens. Repeated phrases: {loops:.0%} in the greedy text, "
          f"{loops_drawn:.0%} in the drawn one.")
for name, row in zip(("GREEDY", "DRAWN"), tokens, strict=True):
    print(f"{name}: {tokenizer.decode(row)!r}\n")

# %% [markdown]
# Compare the two lines. Where a text repeats itself, how sure is the model of its next word? (The next chapter looks
# into that.) What people write jumps: text of people is *not* the most probable text (Holtzman et al. 2020,
# [arXiv:1904.09751](https://arxiv.org/abs/1904.09751)).
#
# But a drawn text can stray. Among 49,152 tokens there are tens of thousands of bad ones. Each is improbable, but one
# wrong token can be enough to lose the thread; what the whole tail weighs, good words and bad, we measure below. So we
# want something between the two, and every knob below is a try.
#
# ## Knob 1: temperature
#
# Divide all scores, the **logits** $z_i$, by a number $T$ before the softmax:
#
# $$p_i(T) = \frac{e^{z_i/T}}{\sum_j e^{z_j/T}}, \qquad \frac{p_i(T)}{p_j(T)} = \left(\frac{p_i}{p_j}\right)^{1/T}$$
#
# The second form says it best: a temperature raises every *ratio* of probabilities to the power $1/T$. $T = 0.5$
# squares the ratios, $T = 2$ takes their root. The order of the tokens never changes, and no token ever gets
# probability 0. The name is from physics: hot systems visit unlikely states (Ackley, Hinton and Sejnowski 1985).

# %% tags=["demo"]
from transformers import TemperatureLogitsWarper

temperatures = [0.3, 0.7, 1.0, 1.5, 2.0]
fig, axes = figure(1, 2, height=3.6)
for temperature, color in zip(temperatures, COLORS, strict=False):
    probs = (logits["unsure"] / temperature).softmax(-1).sort(descending=True).values
    axes[0].plot(range(1, 1001), probs[:1000] * 100, color=color, label=f"T = {temperature}")
axes[0].set(xscale="log", yscale="log", ylim=(1e-3, 100), xlabel="rank of the token",
            ylabel="probability, %", title="Heat moves probability into the tail")
axes[0].legend(loc="lower left")

grid = torch.linspace(0.05, 2.5, 50)
for mood, color in zip(contexts, COLORS, strict=False):
    bits = [entropy((logits[mood] / t).softmax(-1)) for t in grid]
    axes[1].plot(grid, bits, color=color, label=f"“{contexts[mood][:22]}…”")
everything = torch.log2(torch.tensor(float(len(logits["sure"]))))
axes[1].axhline(everything, color="#777777", linewidth=1, linestyle=":")
axes[1].text(0.05, everything - 0.3, "all tokens alike", color="#555555", va="top", fontsize=10)
axes[1].set(xlabel="temperature", ylabel="entropy, bits", title="Entropy only ever grows with it")
axes[1].legend(loc="lower right")
show(fig, "Left: probability against rank for five temperatures, flatter as the temperature rises. Right: entropy of "
          "both contexts, which rises with the temperature towards that of a fair choice among all tokens.")
try:
    answer = f"takes it: {TemperatureLogitsWarper(0.0)}"
except ValueError as error:
    answer = f"refuses it: {error}"
print(f"Asked for temperature 0, transformers' warper {answer}")

# %% [markdown]
# ### Exercise 1: temperature, and 0
#
# At $T = 0$ the formula divides by zero. Its limit is clear, though: all probability goes to the best token. vLLM and
# llama.cpp, by their sources, treat 0 as a case of its own, and so should you. (What transformers' warper says to a 0
# stands under the figure. *Warpers* are its name for such knobs.)

# %% exercise="apply_temperature"
def apply_temperature(logits, temperature):
    """Divide the logits by the temperature; temperature 0 means greedy.

    logits:      [..., vocab], floating point, any number of leading dimensions; may hold -inf.
                 Not changed.
    temperature: a number >= 0. Only 0 itself is greedy.

    Returns a new tensor of the same shape and dtype: logits / temperature. No softmax. At
    temperature 0 the best token of each row keeps its logit and every other becomes -inf; of
    tied best tokens the one with the lowest index stays.
    Source: Ackley, Hinton and Sejnowski, "A learning algorithm for Boltzmann machines",
    Cognitive Science 9, 1985.
    """
    ### BEGIN SOLUTION
    if temperature > 0:
        return logits / temperature
    best = logits.argmax(-1, keepdim=True)
    return torch.full_like(logits, -torch.inf).scatter(-1, best, logits.gather(-1, best))
    ### END SOLUTION


# %% check="apply_temperature"
check(apply_temperature)

# %% [markdown]
# ## Knob 2: top-k
#
# Temperature leaves the tail in. Here is what the tail weighs: the probability that the first $r$ tokens hold
# together, as $r$ grows.

# %% tags=["demo"]
fig, ax = figure(height=3.7, width=8.5)
held = {}
for mood, color in zip(contexts, COLORS, strict=False):
    sums = logits[mood].softmax(-1).sort(descending=True).values.cumsum(-1)
    held[mood] = sums[49].item()
    ax.plot(range(1, len(sums) + 1), sums * 100, color=color, label=f"“{contexts[mood]} …”")
    ax.plot(50, held[mood] * 100, "o", color=color)
    ax.annotate(f"{held[mood]:.0%}", (50, held[mood] * 100), textcoords="offset points", xytext=(7, -14), color=color)
ax.axvline(50, color="#777777", linewidth=1, linestyle=":")
ax.text(50, 2, " k = 50", color="#555555")
ax.set(xscale="log", ylim=(0, 104), xlabel="number of tokens kept, the likeliest first",
       ylabel="probability they hold, %",
       title=f"Beyond the best 50 tokens lie {1 - held['sure']:.0%} of the probability, or {1 - held['unsure']:.0%}")
ax.legend(loc="lower right")
show(fig, f"Cumulative probability against the number of tokens kept. The best 50 tokens hold {held['sure']:.0%} in "
          f"the sure context and {held['unsure']:.0%} in the unsure one.")

# %% [markdown]
# **Top-k** cuts the tail at a fixed place: the $k$ likeliest tokens stay, the others can't be drawn, and the softmax
# over the survivors shares the freed probability out (Fan et al. 2018,
# [arXiv:1805.04833](https://arxiv.org/abs/1805.04833)).
#
# A token that must not be drawn gets the logit $-\infty$, since $e^{-\infty} = 0$. Not 0: that is a score like any
# other, and $e^0 = 1$ leaves it in the draw. Filters hand logits on rather than probabilities, so that they can be
# stacked, and the one softmax at the end renormalizes by itself.
#
# ### Exercise 2: top-k

# %% exercise="top_k_filter"
def top_k_filter(logits, k):
    """Keep the k likeliest tokens of each row, set the others to -inf.

    logits: [..., vocab], floating point, any number of leading dimensions; may hold -inf. Not
            changed.
    k:      an int >= 1. A k larger than the vocabulary keeps every token.

    Returns a new tensor, also where nothing is dropped, of the same shape and dtype. Survivors
    keep their logits, and every token its place; the others are -inf. Tokens that tie with the
    k-th largest logit stay as well, so more than k can survive, as in transformers'
    TopKLogitsWarper.
    Source: Fan, Lewis and Dauphin, "Hierarchical Neural Story Generation", 2018,
    arXiv:1805.04833.
    """
    ### BEGIN SOLUTION
    kth = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < kth, -torch.inf)
    ### END SOLUTION


# %% check="top_k_filter"
check(top_k_filter)

# %% [markdown]
# ## Knob 3: top-p, the nucleus
#
# A fixed $k$ can be wrong in both directions. Where only one word will do, 50 tokens are 49 too many; where hundreds
# would, 50 cut off good ones. Holtzman et al. turn it round: don't fix the *number* of tokens, fix the
# *probability* that they must hold. The **nucleus** $V^{(p)}$ is the smallest set of tokens with
#
# $$\sum_{x \in V^{(p)}} P(x \mid x_{1:i-1}) \ge p .$$
#
# The likeliest tokens make the smallest such set, so: sort, add up, stop once $p$ is reached. How many tokens is
# that? Let the model read a sentence and count, at every place.

# %% tags=["demo"]
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper


def warped(scores, *warpers):
    """What transformers makes of logits [rows, vocab] or [vocab]."""
    rows = scores.reshape(-1, scores.shape[-1])
    for warper in warpers:
        rows = warper(None, rows)
    return rows.reshape(scores.shape)


def survivors(scores):
    """How many tokens can still be drawn."""
    return (scores > -torch.inf).sum(-1)


sentence = "The Eiffel Tower is in Paris, and on a clear day you can see the whole city from the top of it."
ids = tokenizer(sentence, return_tensors="pt").input_ids
with torch.inference_mode():
    read = model(ids).logits[0, :-1].float()
sizes = survivors(warped(read, TopPLogitsWarper(0.9)))

fig, ax = figure(height=4.1, width=10.5)
places = range(len(sizes))
ax.bar(places, sizes, color=COLORS[0], label="top-p, p = 0.9")
ax.axhline(50, color=COLORS[1], label="top-k, k = 50")
ax.set(yscale="log", ylabel="tokens kept", ylim=(0.8, sizes.max() * 3),
       title=f"Within one sentence the nucleus keeps {sizes.min()} to {sizes.max():,} tokens")
ax.set_xticks(places, [spelled(token) for token in ids[0, 1:]], rotation=60, ha="right", rotation_mode="anchor")
ax.set_xlabel("token that comes next")
ax.legend(loc="upper right", ncols=2)
show(fig, f"Number of tokens that top-p 0.9 keeps at each place of a sentence, from {sizes.min()} to {sizes.max()}, "
          "against the constant 50 of top-k.")

# %% [markdown]
# ### Exercise 3: top-p
#
# Two details make or break it.
#
# * **The token that crosses $p$ stays.** Without it the set holds less than $p$. Ask of each token: do those
#   *before* it hold $p$ already?
# * **Sorting moves the tokens.** What you decide about sorted places has to travel back to where the tokens live.

# %% exercise="top_p_filter"
def top_p_filter(logits, p):
    """Keep the nucleus of each row: the smallest set of likeliest tokens that holds p in all.

    logits: [..., vocab], floating point, any number of leading dimensions; may hold -inf. Not
            changed.
    p:      a float from 0 to 1. The token with which the sum reaches p stays; where the sum
            equals p, nothing more is added. At least the best token stays, also for p = 0.
            p = 1 keeps every token, even one whose probability rounds to 0.

    Returns a new tensor, also where nothing is dropped, of the same shape and dtype. Survivors
    keep their logits, and every token its place; the others are -inf. Where equally likely
    tokens straddle the cut, as many stay as are needed, no matter which.
    Source: Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020,
    arXiv:1904.09751, section 3.1.
    """
    ### BEGIN SOLUTION
    if p >= 1:
        return logits.clone()
    ordered, order = logits.sort(-1, descending=True)
    probs = ordered.softmax(-1)
    drop = probs.cumsum(-1) - probs >= p
    drop[..., 0] = False
    return logits.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), -torch.inf)
    ### END SOLUTION


# %% check="top_p_filter"
check(top_p_filter)

# %% [markdown]
# ### What does "reach p" mean?
#
# The sentence below can be read in two ways: the words *up to* $p$ (their sum stays below), or the smallest set that
# *reaches* $p$. Which one does transformers mean? We ask it, on four toy tokens, on the real model, and on 500 random
# distributions, and count for each reading how often it predicts the number of kept tokens.
#
# **Before the run:** a reading is right if it predicts at least 99 % of the 500. Both can't be, for they differ by the
# token that crosses $p$. *Imprecise* if one is, for then the words leave open which; *wrong* if neither.

# %% claim="A06.3"
def two_readings(probs, p):
    """How many tokens each reading keeps: (up to p, the smallest set that reaches p)."""
    sums = probs.sort(descending=True).values.double().cumsum(-1)
    return int((sums <= p).sum()), int((sums < p).sum()) + 1


dice = torch.Generator().manual_seed(0)
right = torch.zeros(2)
for _ in range(500):
    random_logits = 2 * torch.randn(40, generator=dice)
    p = 0.05 + 0.9 * torch.rand((), generator=dice).item()
    kept = int(survivors(warped(random_logits, TopPLogitsWarper(p))))
    right += torch.tensor([kept == reading for reading in two_readings(random_logits.softmax(-1), p)]) / 500
up_to, reaching = right.tolist()

toy = torch.tensor([0.5, 0.3, 0.15, 0.05])
sweep = [(i + 0.5) / 200 for i in range(200)]
fig, axes = figure(1, 2, height=3.9, sharey=True)
for ax, (name, scores) in zip(axes, [("four tokens: 50, 30, 15, 5 %", toy.log()),
                                     (f"“{contexts['sure']} …”", logits["sure"])], strict=True):
    probs = scores.softmax(-1)
    sums = probs.sort(descending=True).values.cumsum(-1)
    mass = [100 * float(probs[warped(scores, TopPLogitsWarper(p)) > -torch.inf].sum()) for p in sweep]
    below = [100 * float(sums[n - 1]) if (n := two_readings(probs, p)[0]) else 0 for p in sweep]
    ax.plot([100 * p for p in sweep], mass, color=COLORS[0], label="what transformers keeps")
    ax.plot([100 * p for p in sweep], below, color=COLORS[1], linestyle="--", label="the words up to p")
    ax.plot([0, 100], [0, 100], color="#777777", linewidth=1, linestyle=":", label="exactly p")
    ax.set(title=name, xlabel="p, %")
axes[0].set_ylabel("probability of the kept tokens, %")
axes[0].legend(loc="upper left")
show(fig, "Probability held by the kept tokens against p: for what transformers keeps, and for the reading 'up to p'. "
          f"On 500 other distributions that reading is right {up_to:.0%} of the time, 'reaches p' {reaching:.0%}.",
     title="The crossing token stays: the kept tokens hold at least p" if reaching >= 0.99
     else "The crossing token goes: the kept tokens hold at most p" if up_to >= 0.99
     else "Neither reading says what is kept")
verdict("A06.3", "imprecise" if max(up_to, reaching) >= 0.99 else "wrong",
        f"On 500 random distributions 'up to p' gives the number of kept tokens {up_to:.1%} of the time, "
        f"'the smallest set that reaches p' {reaching:.1%}.")

# %% [markdown]
# "Reach", taken at its word, is the definition; read as "up to", it is another one. Where the first word alone has more
# than $p$, the words *up to* $p$ are no words at all: look at the right panel. By the definition the kept tokens hold
# *at least* $p$, and are then renormalized.
#
# ## Knob 4: min-p
#
# Top-p has a weakness: it hands out places until a *sum* is reached, however bad the tokens are by then. Heat
# flattens the distribution, so the sum grows slowly, and the nucleus swells.
#
# **Min-p** asks each token alone: are you at least `min_p` times as likely as the best one? The bar,
# $\text{min\_p} \cdot \max_i p_i$, is high when the model is sure and low when it is not (Nguyen et al. 2024,
# [arXiv:2407.01082](https://arxiv.org/abs/2407.01082)). Heat lowers this bar, too. Two settings compare only where they
# let equally many tokens through before any heat; so the dotted line is a min-p that keeps as many as top-p at
# temperature 1.

# %% tags=["demo"]
def as_lenient(scores, warper):
    """The min_p that keeps as many tokens as the warper does (a hair below, for rounding)."""
    probs = scores.softmax(-1).sort(descending=True).values
    return 0.9999 * float(probs[int(survivors(warped(scores, warper))) - 1] / probs[0])


heats = [(4 + i) / 10 for i in range(22)]
lenient = {mood: as_lenient(scores, TopPLogitsWarper(0.9)) for mood, scores in logits.items()}
filters = {"top-p, p = 0.9": TopPLogitsWarper(0.9), "min-p, min_p = 0.1": MinPLogitsWarper(0.1),
           f"min-p, min_p = {lenient['unsure']:.4f}": MinPLogitsWarper(lenient["unsure"]),
           "top-k, k = 50": TopKLogitsWarper(50)}
counts = {name: [int(survivors(warped(logits["unsure"] / t, warper))) for t in heats]
          for name, warper in filters.items()}

fig, ax = figure(height=3.7, width=8.5)
looks = zip((COLORS[0], COLORS[2], COLORS[2], COLORS[1]), "os.^", ("-", "-", ":", "-"), strict=True)
for (name, numbers), (color, mark, style) in zip(counts.items(), looks, strict=True):
    ax.plot(heats, numbers, color=color, marker=mark, linestyle=style, label=name)
swells = [f"{numbers[heats.index(1.0)]:,} to {numbers[-1]:,}" for numbers in counts.values()]
ax.set(yscale="log", xlabel="temperature (before the filter)", ylabel="tokens kept",
       title=f"From temperature 1 to 2.5 top-p goes from {swells[0]} tokens,\n"
       f"min_p = 0.1 from {swells[1]}, a min-p as lenient as top-p from {swells[2]}")
ax.legend(loc="upper left")
show(fig, "Tokens kept against temperature. From temperature 1 to 2.5: "
          + "; ".join(f"{name}: {span}" for name, span in zip(filters, swells, strict=True)) + ".")
for mood, text in contexts.items():
    kept = {t: [int(survivors(warped(logits[mood] / t, warper)))
                for warper in (TopPLogitsWarper(0.9), MinPLogitsWarper(lenient[mood]))] for t in (1.0, 2.5)}
    print(f"“{text} …”: top-p keeps {kept[1.0][0]:,} tokens at temperature 1 and {kept[2.5][0]:,} at 2.5, "
          f"as lenient a min-p {kept[1.0][1]:,} and {kept[2.5][1]:,}")

# %% [markdown]
# Set the dotted line beside top-p's, and read the lines under the figure: how much is the kind of knob, and how much
# the setting? Min-p is no magic: at `min_p` = 0.1 a token a tenth as likely as the best survives, whether it
# makes sense or not. Whether it makes *better* text is disputed: the paper says so, a re-analysis of its evidence
# finds no advantage over the others (Schaeffer et al. 2025, [arXiv:2506.13681](https://arxiv.org/abs/2506.13681)).
#
# ### Exercise 4: min-p

# %% exercise="min_p_filter"
def min_p_filter(logits, min_p):
    """Keep the tokens of each row that are at least min_p times as likely as its best token.

    logits: [..., vocab], floating point, any number of leading dimensions; may hold -inf. Not
            changed.
    min_p:  a float from 0 to 1. A token exactly at the bar stays. min_p = 0 keeps every token,
            min_p = 1 the best one and what ties with it.

    Returns a new tensor, also where nothing is dropped, of the same shape and dtype. Survivors
    keep their logits, and every token its place; the others are -inf.
    Source: Nguyen et al., "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM
    Outputs", 2024, arXiv:2407.01082.
    """
    ### BEGIN SOLUTION
    probs = logits.softmax(-1)
    return logits.masked_fill(probs < min_p * probs.amax(-1, keepdim=True), -torch.inf)
    ### END SOLUTION


# %% check="min_p_filter"
check(min_p_filter)

# %% [markdown]
# ## In which order?
#
# The knobs can be combined, as the next claim says. What it leaves out: three widely used engines turn the same
# knobs in three different orders.
#
# | engine | order |
# |---|---|
# | transformers | temperature → top-k → top-p → min-p |
# | vLLM | temperature → min-p → top-k → top-p |
# | llama.cpp (default) | top-k → top-p → min-p → temperature |
#
# We run transformers' own warpers in each of the three orders; the other engines are not run here (their orders are
# those of their sources, named at the end). A line under the figure asks transformers' `generate` which is its own.
# (Look at the defaults, too: `generate` of x-transformers 2.31.10 draws from the likeliest tenth of the vocabulary
# unless told otherwise. `findings/x_transformers_draws_from_a_tenth.sh` runs it.)
#
# If the order did not matter, all three would end at the same distribution. The right panel measures how far they
# are apart: the share of probability that sits on other tokens than in transformers (the total variation distance).
#
# **Before the run:** a combination is more flexible than its parts only if each part still does something in it. Leave
# temperature, top-k or top-p out of the three, in transformers' order. *Correct* if there is a temperature at which
# each of them moves over 1 % of the probability, *imprecise* if at best one or two do, *wrong* if none.

# %% claim="A06.7"
def distribution(order, scores, temperature):
    """The final probabilities with top_k = 200, top_p = 0.9, min_p = 0.02, in the given order."""
    steps = {"T": TemperatureLogitsWarper(temperature), "k": TopKLogitsWarper(200), "p": TopPLogitsWarper(0.9),
             "m": MinPLogitsWarper(0.02)}
    return warped(scores, *(steps[name] for name in order)).softmax(-1)


engines = {"transformers": "Tkpm", "order of vLLM": "Tmkp", "order of llama.cpp": "kpmT"}
heats = [0.5, 0.7, 0.85, 1.0, 1.25, 1.5, 1.75, 2.0]
ends = {name: [distribution(order, logits["unsure"], t) for t in heats] for name, order in engines.items()}
apart = {name: [50 * float((a - b).abs().sum()) for a, b in zip(ends["transformers"], all_, strict=True)]
         for name, all_ in ends.items()}

fig, axes = figure(1, 2, height=3.7)
for (name, all_), color, mark in zip(ends.items(), COLORS, "os^", strict=False):
    axes[0].plot(heats, [int((probs > 0).sum()) for probs in all_], color=color, marker=mark, label=name)
    axes[1].plot(heats, apart[name], color=color, marker=mark, label=name)
axes[0].set(xlabel="temperature", ylabel="tokens that can be drawn", ylim=(0, None), title="How many survive")
axes[1].set(xlabel="temperature", ylabel="probability elsewhere\nthan in transformers, %", title="How far they differ")
axes[0].legend(loc="upper left")
missed = {t: {} for t in heats}
for name, rest in {"temperature": "kp", "top-k": "Tp", "top-p": "Tk"}.items():
    for t in heats:
        all_three, two = (distribution(order, logits["unsure"], t) for order in ("Tkp", rest))
        missed[t][name] = 50 * float((all_three - two).abs().sum())
busiest = max(heats, key=lambda t: (sum(moved > 1 for moved in missed[t].values()), min(missed[t].values())))
furthest = max(max(values) for values in apart.values())
at_one = {name: values[heats.index(1.0)] for name, values in apart.items() if name != "transformers"}
show(fig, f"Survivors and distance from transformers against temperature, for three orders. The largest distance is "
          f"{furthest:.0f} %.",
     title=(f"The same settings, another order: up to {furthest:.0f} % of the probability moves" if furthest > 1
            else "The same settings, another order: no difference"))
print("At temperature 1, where its place can't matter, the distance from transformers is: "
      + ", ".join(f"{name} {value:.1f} %" for name, value in at_one.items()) + ".")
clear = max(range(len(heats)), key=lambda i: min(apart[name][i] for name in at_one))  # where the orders differ most
asked = tokenizer(contexts["unsure"], return_tensors="pt")
out = model.generate(**asked, max_new_tokens=1, pad_token_id=END, do_sample=True, temperature=heats[clear], top_k=200,
                     top_p=0.9, min_p=0.02, output_scores=True, return_dict_in_generate=True)
own = out.scores[0][0].float().softmax(-1)
print(f"Distance of generate, at temperature {heats[clear]}, from each order: "
      + ", ".join(f"{name} {50 * float((own - all_[clear]).abs().sum()):.1f} %" for name, all_ in ends.items()) + ".")
matter = sum(moved > 1 for moved in missed[busiest].values())
verdict("A06.7", "correct" if matter == 3 else "imprecise" if matter else "wrong",
        f"Left out of the three at temperature {busiest}, a knob moves this much of the probability: "
        + ", ".join(f"{name} {moved:.0f} %" for name, moved in missed[busiest].items()) + ".")

# %% [markdown]
# The title says whether **settings carry over** from one order to another. Where temperature comes first, heat widens
# what top-p and min-p let through; where it comes last, it only shares out the probability among tokens that are chosen
# already. At temperature 1 that difference vanishes; what is left, in the line under the figure, comes from the order
# of the filters (min-p before top-p, or after it).
#
# One thing the rule can't see: on a *single* distribution top-k and top-p both keep the front of the ranking, and the
# one could stand for the other. They part from place to place, as in the bars of the Eiffel Tower.
#
# ## The draw
#
# Put it together, in the order of transformers: temperature → top-k → top-p → min-p → softmax → draw.
#
# Any way to draw is fine: `torch.multinomial`, the inverse of the cumulative sum, or the Gumbel trick. It should
# take its randomness from the `generator` it is given, so that a run can be repeated.
#
# ### Exercise 5: the draw

# %% exercise="sample"
def sample(logits, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0, generator=None):
    """Draw one token from each row: temperature, top-k, top-p, min-p, softmax of what is left.

    logits:      [..., vocab], floating point, any number of leading dimensions, also none; may
                 hold -inf. Not changed.
    temperature: a number >= 0; 0 always gives the best token.
    top_k:       an int >= 1, also beyond the vocabulary, or None for no limit.
    top_p:       a float from 0 to 1; 1 is off.
    min_p:       a float from 0 to 1; 0 is off.
    generator:   a torch.Generator, the only source of randomness; None means torch's global
                 one. One state of it always gives the same tokens, and a draw moves it on.
                 Don't seed it here.

    Each filter sees what the one before it has left, renormalized. Rows are drawn
    independently.

    Returns token ids: int64, of the logits' shape without the last dimension.
    """
    ### BEGIN SOLUTION
    logits = apply_temperature(logits, temperature)
    if top_k is not None:
        logits = top_k_filter(logits, top_k)
    logits = min_p_filter(top_p_filter(logits, top_p), min_p)
    probs = logits.softmax(-1)
    rows = probs.reshape(-1, probs.shape[-1])
    return torch.multinomial(rows, 1, generator=generator).reshape(probs.shape[:-1])
    ### END SOLUTION


# %% check="sample"
check(sample)

# %% [markdown]
# ## All knobs on one page
#
# Each panel shows the 40 likeliest tokens after “In the morning the children went to the”. Colored bars can be
# drawn, grey ones were cut (they show what the token had before the cut). Where widgets work, sliders appear below
# the figure: turn them, and try the sure context, too.

# %% tags=["demo"]
def panel(ax, scores, temperature=1.0, **filters):
    """Draw the 40 likeliest tokens before and after the filters."""
    warm = scores / temperature
    kinds = {"top_k": TopKLogitsWarper, "top_p": TopPLogitsWarper, "min_p": MinPLogitsWarper}
    probs = warped(warm, *(kinds[name](value) for name, value in filters.items())).softmax(-1)
    before, order = warm.softmax(-1).sort(descending=True)
    ax.bar(range(1, 41), before[:40] * 100, color="#cccccc", width=0.9)
    ax.bar(range(1, 41), probs[order[:40]] * 100, color=COLORS[0], width=0.9)
    ax.text(0.97, 0.95, f"{int((probs > 0).sum()):,} tokens\n{entropy(probs):.1f} bits", transform=ax.transAxes,
            ha="right", va="top", fontsize=10)
    return int((probs > 0).sum())


settings = [{}, {"top_k": 20}, {"top_p": 0.9}, {"min_p": 0.1}]
left = {}
fig, axes = figure(3, 4, width=10.5, height=6.2, sharex=True, sharey="row")
for row, temperature in zip(axes, (0.5, 1.0, 2.0), strict=True):
    for ax, setting in zip(row, settings, strict=True):
        left[temperature, *setting] = panel(ax, logits["unsure"], temperature, **setting)
        if temperature == 0.5:
            ax.set_title(", ".join(f"{name} = {value}" for name, value in setting.items()) or "no filter")
        if temperature == 2.0:
            ax.set_xlabel("rank of the token")
    row[0].set_ylabel(f"T = {temperature}\nprobability, %")
show(fig, "Twelve bar charts: three temperatures by four filters, with the number of tokens that can be drawn and the "
          "entropy in each.",
     title="From T = 1 to 2 " + ", ".join(
         f"{name} = {value} goes from {left[1.0, name]:,} tokens to {left[2.0, name]:,}"
         for setting in settings[2:] for name, value in setting.items()))


def turn(context, temperature, top_k, top_p, min_p):
    """One panel for the sliders. top_k = 0, top_p = 1 and min_p = 0 are off."""
    filters = {"top_k": top_k} if top_k else {}
    filters |= {"top_p": top_p} if top_p < 1 else {}
    filters |= {"min_p": min_p} if min_p else {}
    fig, ax = figure(width=8.5, height=3.4)
    panel(ax, logits[context], temperature, **filters)
    ax.set(title=f"“{contexts[context]} …”", xlabel="rank of the token", ylabel="probability, %")
    show(fig, "The forty likeliest tokens under the chosen settings; cut tokens are grey.")


knobs(turn, context=["unsure", "sure"], temperature=(0.1, 2.5, 0.1), top_k=(0, 100, 5), top_p=(0.05, 1.0, 0.05),
      min_p=(0.0, 0.5, 0.02))

# %% [markdown]
# ## What the knobs do to text
#
# One token is not a text. So let the model write: five beginnings under five temperatures and three values of top-p,
# 48 tokens each, all texts in one batch. (Greedy decoding writes once for the three top-p: the best token is in every
# nucleus.) Four numbers a setting:
#
# * **entropy** of the model's own distribution along the way, in bits: how open did it find its own text?
# * **perplexity** of the text under the model, without any knob: $\exp$ of the mean surprise, $-\ln p$ of a token (the
#   *negative log-likelihood*, NLL). 1 is a text without surprise; the higher, the stranger.
# * **distinct-2**: the share of two-token phrases that are different within a text. 100 % is the richest.
# * **repeated 4-grams**: the share of four-token phrases that stood in the text before.

# %% tags=["demo"]
openings = ["When the two robots met for the first", "On the first day of the expedition, the",
            "My grandmother always said that the best soup", "The city council announced on Monday that the",
            "I have a dream that one day we"]
opening_ids = torch.tensor([tokenizer(text).input_ids[:8] for text in openings])
heats, ps, STEPS = [0.0, 0.3, 0.7, 1.0, 1.5], [0.5, 0.9, 1.0], 48
settings = [(0.0, 1.0), *((t, p) for t in heats[1:] for p in ps)]
heat, nucleus = (torch.tensor(column).repeat_interleave(len(openings)).unsqueeze(-1)
                 for column in zip(*settings, strict=True))  # the temperature and the top-p of each row
dice = torch.Generator().manual_seed(11)


def draw(scores):
    """One token for each row, under the row's own temperature and top-p; temperature 0 is greedy.

    A token is in the nucleus if the likelier ones hold less than p. So draw until it is: nothing has to be sorted.
    """
    probs = (scores / heat.clamp(min=1e-9)).softmax(-1)
    sums, tokens, outside = probs.cumsum(-1), scores.argmax(-1, keepdim=True), heat > 0
    while outside.any():
        drawn = torch.searchsorted(sums, torch.rand(len(sums), 1, generator=dice) * sums[:, -1:])
        tokens = torch.where(outside, drawn, tokens)
        likelier = torch.where(probs > probs.gather(-1, tokens), probs, 0).sum(-1, keepdim=True)
        outside = outside & (likelier >= nucleus) & (nucleus < 1)
    return tokens[:, 0]


def measure(tokens, log_probs, entropies):
    """The four numbers of each text: [texts, 4]."""
    rows = [row.tolist() for row in tokens]
    distinct = [different / total for total, different in (ngrams(row, 2) for row in rows)]
    return torch.stack([entropies.mean(1), (-log_probs.mean(1)).exp(), 100 * torch.tensor(distinct),
                        100 * torch.tensor([repeated(row) for row in rows])], dim=1)


written = write(opening_ids.repeat(len(settings), 1), draw, STEPS)
by_cell = dict(zip(settings, measure(*written).split(len(openings)), strict=True))  # the numbers of each text
stories = dict(zip(settings, written[0][:: len(openings)], strict=True))  # the tokens of the first text
by_cell |= {(0.0, p): by_cell[0.0, 1.0] for p in ps}

fig, axes = figure(1, 4, width=10.5, height=3.9)
names = ["entropy, bits", "perplexity", "distinct-2, %", "repeated 4-grams, %"]
for i, (ax, name) in enumerate(zip(axes, names, strict=True)):
    values = torch.tensor([[by_cell[t, p][:, i].median() for p in ps] for t in heats])
    shade = values.log() if name == "perplexity" else values
    ax.imshow(shade, cmap=SEQUENTIAL, aspect="auto")
    middle = (shade.max() + shade.min()) / 2
    for r in range(len(heats)):
        for c in range(len(ps)):
            ax.text(c, r, f"{values[r, c]:,.{0 if values[r, c] >= 10 else 1}f}", ha="center", va="center",
                    color="black" if shade[r, c] > middle else "white")
    ax.set_title(name)
    ax.set_xticks(range(len(ps)), ps)
    ax.set_yticks(range(len(heats)), ["0 (greedy)", *heats[1:]] if i == 0 else [""] * len(heats))
    ax.set_xlabel("top-p")
axes[0].set_ylabel("temperature")
cold, hot = (by_cell[t, 1.0].median(0).values.tolist() for t in (0.0, 1.5))
show(fig, "Four heat maps over temperature and top-p. From greedy to temperature 1.5, without top-p: "
          + "; ".join(f"{name}: {low:,.1f} to {high:,.1f}"
                      for name, low, high in zip(names, cold, hot, strict=True)) + ".",
     title=f"Greedy repeats {cold[3]:.0f} % of its 4-grams; at T = 1.5 without top-p perplexity is {hot[1]:,.0f}")
for t, p in [(0.0, 1.0), (0.7, 0.9), (1.0, 0.9), (1.5, 1.0)]:
    print(f"T = {t}, top-p = {p}: {tokenizer.decode([*opening_ids[0], *stories[t, p]])!r}\n")

# %% [markdown]
# The numbers are medians over five texts, so small differences are noise. Read a column downwards: what does heat
# bring, and where, if anywhere, does it turn into nonsense? Read a row across: does a smaller $p$ cool the text, too?
# (Greedy decoding can't notice it.) And is a low perplexity a good text? Look which ones have the lowest.
#
# ## Does top-p guarantee anything?
#
# "Guarantee" is a strong word, so let us define a weak test before looking. Take 24 passages of Shakespeare, as long
# as our texts. A text counts as **rich** if its distinct-2 is no lower than that of all but the poorest 5 % of the
# passages, and as **reasonable** if the model finds it no stranger than all but the strangest 5 % of them. The second
# bar is meant to be generous: to a child of the web Shakespeare should be strange (a line under the figure says how
# strange). The first may be strict for prose. Now see where the texts with top_p = 0.9 lie.
#
# **Before the run:** one passage at most fails each bar, so of the 24 at most two. *Correct* if at every temperature at
# most one of the five texts fails (first it was a tenth, so none, which the passages themselves would mostly have
# missed); *wrong* if at some temperature over half of them do; *imprecise* in between.

# %% claim="A06.5"
plays = shakespeare()
starts = torch.randint(len(plays) - 1000, (24,), generator=torch.Generator().manual_seed(5)).tolist()
passages = torch.tensor([tokenizer(plays[s : s + 1000]).input_ids[: 8 + STEPS] for s in starts])
with torch.inference_mode():
    surprise = []
    for part in passages.split(4):
        scores = model(part).logits[:, 7:-1].float()
        scores[..., END] = -torch.inf  # as for the texts
        surprise.append(torch.nn.functional.cross_entropy(scores.transpose(1, 2), part[:, 8:], reduction="none"))
    surprise = torch.cat(surprise)
real = measure(passages[:, 8:], -surprise, torch.zeros_like(surprise))
strangest = real[:, 1].quantile(0.95, interpolation="higher").item()  # a passage's own value: one lies beyond
poorest = real[:, 2].quantile(0.05, interpolation="lower").item()

at_p = {t: by_cell[t, 0.9] for t in heats[1:]}
inside, without = ({t: int(((by_cell[t, p][:, 1] <= strangest) & (by_cell[t, p][:, 2] >= poorest)).sum()) for t in at_p}
                   for p in (0.9, 1.0))
total, count = sum(inside.values()), sum(len(x) for x in at_p.values())

fig, ax = figure(width=9, height=4.2)
ax.scatter(real[:, 1], real[:, 2], s=22, color="#999999", label="Shakespeare")
for (t, x), color, mark in zip(at_p.items(), COLORS, "osD^", strict=False):
    ax.scatter(x[:, 1], x[:, 2], s=48, color=color, marker=mark, label=f"T = {t}: {inside[t]} of {len(x)} inside")
ax.fill_between([1, strangest], poorest, 103, color=COLORS[2], alpha=0.15, linewidth=0, label="rich and reasonable")
ax.set(xscale="log", xlim=(1, None), ylim=(None, 103), xlabel="perplexity of the text (to the right: stranger)",
       ylabel="distinct-2, % (up: richer)",
       title=f"With top_p = 0.9, {total} of {count} texts are both rich and reasonable")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="top_p = 0.9")
show(fig, f"Distinct-2 against perplexity of {count} texts written with top_p = 0.9 and of 24 passages of Shakespeare. "
          f"{total} of {count} texts lie in the corner that is both rich and reasonable.")
passing = int(((real[:, 1] <= strangest) & (real[:, 2] >= poorest)).sum())
print(f"reasonable: perplexity up to {strangest:.0f}; rich: distinct-2 from {poorest:.0f} %; "
      f"of the passages both: {passing} of {len(real)}")
print(f"Inside with top_p = 0.9: {total} of {count}; without top-p, at the same temperatures: {sum(without.values())}")
worst = max(len(x) - inside[t] for t, x in at_p.items())
verdict("A06.5", "correct" if worst <= 1 else "wrong" if worst > len(openings) / 2 else "imprecise",
        f"With top_p = 0.9 {count - total} of {count} texts are not both rich and reasonable; by temperature "
        + ", ".join(f"{len(x) - inside[t]} of {len(x)} ({t})" for t, x in at_p.items()) + ".")

# %% [markdown]
# Read the legend, too: it says for how many texts the claim held at each temperature (with five each, a text more or
# less means nothing; all or none does). The last line under the figure is the control: does it *help*? Top-p looks at
# one distribution at a time and knows nothing of the text: a loop can stay inside the nucleus, heat swells it, and no
# cut can tell a true sentence from a false one. This is one small model and five beginnings: a larger model may well do
# better, but no theorem helps it either.
#
# ## Payoff: your code writes
#
# First against transformers' own `generate`. Greedy decoding leaves nothing to chance, so your `sample` at
# temperature 0 should give the same tokens, one by one.

# %% tags=["payoff"]
prompt = tokenizer("When the two robots met for the first", return_tensors="pt")
mine, _, _ = write(prompt.input_ids, lambda scores: sample(scores, temperature=0), 24)
options = {"max_new_tokens": 24, "min_new_tokens": 24, "pad_token_id": END}
theirs = model.generate(**prompt, **options, do_sample=False)[:, prompt.input_ids.shape[1] :]
print(f"greedy: {int((mine == theirs).sum())} of {mine.numel()} tokens are the same")

knob = {"temperature": 0.8, "top_k": 50, "top_p": 0.9, "min_p": 0.02}
mine, _, _ = write(prompt.input_ids, lambda scores: sample(scores, **knob, generator=dice), 24)
torch.manual_seed(1)
theirs = model.generate(**prompt, **options, do_sample=True, **knob)[:, prompt.input_ids.shape[1] :]
print(f"\n{knob}\n\nyour sample: {tokenizer.decode([*prompt.input_ids[0], *mine[0]])!r}"
      f"\n\ngenerate:    {tokenizer.decode([*prompt.input_ids[0], *theirs[0]])!r}")

# %% [markdown]
# A trap before you compare sampled texts with anybody's. In the first of the two calls below nobody sets `top_k`. How
# many tokens can `generate` draw? (The last line says what the model's own configuration holds.)

# %% tags=["demo"]
kept = {}
for told, given in {"nothing said": {}, "top_k=0": {"top_k": 0}}.items():
    out = model.generate(**prompt, max_new_tokens=1, pad_token_id=END, do_sample=True, output_scores=True,
                         return_dict_in_generate=True, **given)
    kept[told] = int(out.scores[0].isfinite().sum())
    print(f"{told:14} {kept[told]:,} of {out.scores[0].shape[-1]:,} tokens can be drawn")
print(f"model.generation_config.top_k is {model.generation_config.top_k}"
      + (", and yet generate cuts." if kept["nothing said"] < kept["top_k=0"] else "."))

# %% [markdown]
# If the first number is the smaller one, a default of the library's own has cut what neither the call nor the
# configuration asked to cut. Whoever samples for statistics (self-consistency, distillation data, perplexity of
# samples) says `top_k=0`.
#
# Your two texts above are two draws and need not agree. So compare what can be compared: draw the next token 4,000
# times with your `sample`, and set the frequencies beside the exact probabilities that transformers' warpers give.
# (Only the 200 likeliest tokens take part. `top_k = 200` rules the others out anyway, and 4,000 rows of 49,152 logits
# are 0.8 GB, with a copy for every filter.)

# %% tags=["payoff"]
draws = 4000
best = logits["unsure"].topk(200)
exact = distribution("Tkpm", best.values, 0.8)
settings = {"temperature": 0.8, "top_k": 200, "top_p": 0.9, "min_p": 0.02}
drawn = sample(best.values.expand(draws, -1), **settings, generator=torch.Generator().manual_seed(0))
share = torch.bincount(drawn, minlength=200) / draws
first = exact.topk(15).indices
spread = (exact[first] * (1 - exact[first]) / draws).sqrt()

fig, ax = figure(width=9, height=3.9)
ax.bar(range(15), exact[first] * 100, color="#cccccc", label="transformers, exactly")
ax.errorbar(range(15), share[first] * 100, yerr=200 * spread, fmt="o", color=COLORS[0], capsize=3,
            label=f"your sample, {draws:,} draws (± 2 standard errors)")
ax.set_xticks(range(15), [spelled(token) for token in best.indices[first]], rotation=45, ha="right",
              rotation_mode="anchor")
outside = int(((exact == 0) & (share > 0)).sum())
near = int(((share[first] - exact[first]).abs() <= 2 * spread).sum())
ax.set(ylabel="probability, %", xlabel="next token",
       title=f"{near} of 15 bars within two standard errors, {outside} filtered tokens drawn")
ax.legend()
show(fig, f"Frequencies of 15 tokens in {draws} draws beside their exact probabilities: {near} of 15 agree within two "
          "standard errors.")

# %% [markdown]
# ## What to remember
#
# * Temperature rescales every ratio of probabilities; it cuts nothing. 0 is a case of its own: greedy.
# * Top-k fixes a number, top-p a share of probability, min-p a ratio to the best token. What is cut becomes
#   $-\infty$; the softmax renormalizes.
# * The token that crosses $p$ stays. The order of the knobs differs between engines: look it up before you carry
#   settings over.
# * No knob reads the text. Each cuts or reshapes one distribution at a time, and so none can guarantee quality.
# * You will meet more of them: *typical* sampling keeps what is about as surprising as expected (Meister et al. 2022,
#   [arXiv:2202.00666](https://arxiv.org/abs/2202.00666)), *mirostat* steers towards a set surprise (Basu et al. 2020,
#   [arXiv:2007.14966](https://arxiv.org/abs/2007.14966)), *top-nσ* cuts at a distance from the largest logit that is
#   counted in standard deviations (Tang et al. 2024, [arXiv:2411.07641](https://arxiv.org/abs/2411.07641)). How
#   *speculative* decoding draws from the same distribution with less waiting is shown in the chapter on serving.
#
# **Sources.** Holtzman et al. 2020, [arXiv:1904.09751](https://arxiv.org/abs/1904.09751) (nucleus sampling, and why
# likely text is bad text); Fan et al. 2018, [arXiv:1805.04833](https://arxiv.org/abs/1805.04833) (top-k); Nguyen et
# al. 2024, [arXiv:2407.01082](https://arxiv.org/abs/2407.01082) (min-p); Ackley et al. 1985 (temperature). Orders:
# `_get_logits_processor` in transformers' `generation/utils.py`, vLLM's `v1/sample/sampler.py`, `samplers` in
# llama.cpp's `common/common.h`.
