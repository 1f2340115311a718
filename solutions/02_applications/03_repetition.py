# ---
# jupyter:
#   course:
#     title: "Repetition: loops, and what breaks them"
#     exercises: applications.repetition
#     questions: [A12]
#     needs: [02_applications/02_sampling]
# ---

# %% [markdown]
# # Repetition: loops, and what breaks them
#
# Leave a language model alone and it may say the same sentence again. And again. And again. Chinese interviewers call
# it the 复读机 problem: a 复读机 is a *repeater*, the cassette player on which language learners hear a sentence until
# they know it.
#
# The interview question: **what is the repetition problem of LLMs, and how is it solved?** The usual notes give a list
# of causes and a list of cures. Here you *measure* repetition, watch it feed itself, find the heads that do the
# copying, switch them off, and build four cures that libraries offer.
#
# Five sentences of the notes are put to a test. Most tests write 32 texts of 200 tokens for every setting, which takes
# minutes; so the results are kept with the course, and a small slice of each test runs here, before your eyes.

# %% tags=["setup"]
import torch
import torch.nn.functional as F
from transformers import DynamicCache

from autograde import check
from labkit import COLORS, SEQUENTIAL, evidence, figure, interval, shakespeare, show, smollm, verdict

# %% [markdown]
# ## Watch it loop
#
# A real chat model, SmolLM2 with 135 million weights rounded to 4 bits, continues six beginnings, always with its best
# token (**greedy decoding**). Each row of the figure is a text, each square a token. Dark squares end a four-token
# phrase that has stood in the text before. Below, for comparison, two passages of Shakespeare.

# %% tags=["demo"]
model, tokenizer = smollm()  # float32: in bf16 another machine's rounding would soon make another text of it
END = tokenizer.eos_token_id
STEPS = 64
OPENINGS = ["When the two robots met for the", "On the first day of the expedition",
            "My grandmother always said that the best", "The city council announced on Monday that",
            "I have a dream that one day", "The most important thing in life is"]
prompts = torch.tensor([tokenizer(text).input_ids[:7] for text in OPENINGS])
plays = shakespeare()
places = torch.randint(len(plays) - 1000, (24,), generator=torch.Generator().manual_seed(5)).tolist()
passages = torch.tensor([tokenizer(plays[at : at + 1000]).input_ids[:STEPS] for at in places])


@torch.inference_mode()
def greedy(prompts, steps):
    """Continue each row of `prompts` [rows, length] with the likeliest token, again and again: [rows, steps]."""
    cache, read, said = DynamicCache(), prompts, []
    for _ in range(steps):
        logits = model(read, past_key_values=cache, logits_to_keep=1).logits[:, -1]
        logits[:, END] = -torch.inf  # all texts get the same length
        read = logits.argmax(-1, keepdim=True)
        said.append(read)
    return torch.cat(said, 1)


def stale(text, n=4):
    """For each n-gram of a text, whether it stood there before."""
    grams = [tuple(text[i : i + n].tolist()) for i in range(len(text) - n + 1)]
    return [gram in grams[:i] for i, gram in enumerate(grams)]


def share(texts, n=4):
    """The mean over texts of the share of n-grams that stood there before."""
    return float(torch.tensor([stale(text, n) for text in texts]).float().mean())


loops = greedy(prompts, STEPS)
both = [*loops, *passages[:2]]
dark = torch.tensor([[False] * 3 + stale(text) for text in both])
fig, ax = figure(width=10, height=3.3)
ax.imshow(dark, cmap="Greys", aspect="auto", vmin=-0.12, vmax=1.15)
ax.set_yticks(range(len(both)), [f"“{text[:22]}…”" for text in OPENINGS] + ["Shakespeare"] * 2)
ax.set_xticks([i - 0.5 for i in range(0, STEPS + 1, 8)], range(0, STEPS + 1, 8))
ax.hlines([i + 0.5 for i in range(len(both) - 1)], -0.5, STEPS - 0.5, color="white", linewidth=3)
ax.set(xlabel="token of the text")
show(fig, f"Eight rows of squares, one a token. Dark squares, which end a repeated phrase, fill {share(loops):.0%} of "
          f"the six greedy texts and {share(passages[:2]):.0%} of the two passages of Shakespeare.",
     title=f"Greedy texts: {share(loops):.0%} of the four-token phrases stood there before. "
           f"{len(passages)} passages of Shakespeare: {share(passages):.1%}")
worst = max(range(len(loops)), key=lambda i: sum(stale(loops[i])))
print("The one that repeats most:", repr(tokenizer.decode([*prompts[worst], *loops[worst]])))

# %% [markdown]
# Six short texts are an anecdote. Here are 32 openings with 200 tokens each, from the results that are kept. A **band**
# is the 95 % confidence interval of the mean over the texts; on the right every text has its dot.

# %% tags=["demo"]
LENGTHS = [25, 50, 100, 150, 200]
heat = evidence("A12.13")


def values(found, arm, number="repeated", unit=100):
    """Every text's number (or every task's) in one arm of an experiment, in percent unless told otherwise."""
    return [unit * value for each in found.each(arm, number) for value in each]


def less(found, much, little, number="repeated", unit=100):
    """The interval of how much lower one arm is than another, text by text."""
    pairs = zip(values(found, much, number, unit), values(found, little, number, unit), strict=True)
    return interval([a - b for a, b in pairs])


def rows(ax, found, arms, number="repeated", unit=100):
    """A row for each arm: a faint dot a text, a square for their mean and a line for its 95 % interval."""
    for row, arm in enumerate(arms):
        of, color = values(found, arm, number, unit), COLORS[row % len(COLORS)]
        spread = [row + 0.25 * ((7 * i) % 11 - 5) / 5 for i in range(len(of))]
        ax.plot(of, spread, "o", color=color, markersize=3, alpha=0.35)
        each = interval(of)
        ax.plot([each.low, each.high], [row, row], color=color, linewidth=3)
        ax.plot(each.mean, row, "s", color=color, markersize=7)
    ax.set_yticks(range(len(arms)), arms)
    ax.set_ylim(len(arms) - 0.5, -0.5)


fig, (left, right) = figure(1, 2, width=10.5, height=3.4)
for arm, color, mark in (("greedy", COLORS[0], "o"), ("people", COLORS[1], "s")):
    (curves,) = heat.each(arm, "curve")
    over = [interval([100 * value for value in at]) for at in zip(*curves, strict=True)]
    left.plot(LENGTHS, [each.mean for each in over], color=color, marker=mark, label=arm)
    left.fill_between(LENGTHS, [each.low for each in over], [each.high for each in over], color=color, alpha=0.2)
left.set(xlabel="tokens of the text", ylabel="four-token phrases that\nstood there before, %", ylim=(0, 100))
left.legend()
rows(right, heat, ["greedy", "people"])
right.set(xlabel="the same at 200 tokens, %", xlim=(-3, 103))
at_25, at_200 = (interval([curve[i] for curve in heat.each("greedy", "curve")[0]]) for i in (0, -1))
grows = at_200.low > at_25.high
show(fig, f"Repeated phrases against the length of the text. Greedy texts: {at_25.mean:.0%} at 25 tokens, "
          f"{at_200.mean:.0%} at 200; people's: {interval(values(heat, 'people')).mean:.0f} % at 200. Right: a dot for "
          "each text.",
     title=f"{'Loops take time' if grows else 'Length changes little'}: {at_25.mean:.0%} repeated in 25 tokens, "
           f"{at_200.mean:.0%} in 200 (95 % interval {at_200.low:.0%} to {at_200.high:.0%})")

# %% [markdown]
# ## A number for it
#
# "It repeats itself" is no measurement. Welleck et al. (2020,
# [arXiv:1908.04319](https://arxiv.org/abs/1908.04319)) count **n-grams**, runs of $n$ tokens that follow each other:
#
# $$\text{seq-rep-}n = 1 - \frac{|\text{distinct } n\text{-grams}|}{|n\text{-grams}|}$$
#
# An n-gram that stands there five times is one new phrase and four repetitions. The fraction on the right is also
# known as *distinct-n*: the same measure, turned round.
#
# ### Exercise 1: how much is repeated?

# %% exercise="repetition_rate"
def repetition_rate(tokens, n=4):
    """The share of a text's n-grams that stood in it before: 1 - distinct n-grams / n-grams.

    tokens: int64 [..., length], one text a row, with any number of leading dimensions, also
            none; length >= 1.
    n:      tokens in an n-gram, an int >= 1. n-grams overlap: a text has length - n + 1 of
            them. Two are the same if they have the same tokens in the same order.

    Returns a float32 or float64 tensor [...]: a share from 0 to 1 for each text, counted within
    that text alone. A text of fewer than n tokens has no n-gram; its rate is 0.
    Source: seq-rep-n in Welleck et al., "Neural Text Generation with Unlikelihood Training",
    2020, arXiv:1908.04319.
    """
    ### BEGIN SOLUTION
    shares = []
    for text in tokens.reshape(-1, tokens.shape[-1]).tolist():
        grams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
        shares.append(1 - len(set(grams)) / len(grams) if grams else 0.0)
    return torch.tensor(shares).reshape(tokens.shape[:-1])
    ### END SOLUTION


# %% check="repetition_rate"
check(repetition_rate)

# %% [markdown]
# Which $n$? Every text uses "the" twice. Your measure on the loops and on Shakespeare, for each $n$:

# %% tags=["payoff"]
sizes = range(1, 13)
rates = {"greedy texts": [repetition_rate(loops, n).mean() for n in sizes],
         "Shakespeare": [repetition_rate(passages, n).mean() for n in sizes]}
fig, ax = figure(width=8.5, height=3.3)
for (name, shares), color, mark in zip(rates.items(), (COLORS[1], COLORS[0]), "os", strict=True):
    ax.plot(sizes, [100 * share for share in shares], color=color, marker=mark, label=name)
ax.set(xlabel="n", ylabel="n-grams that stood\nthere before, %", xticks=sizes, ylim=(0, None),
       title="Greedy against Shakespeare: " + "; ".join(
           f"n = {n}: {rates['greedy texts'][n - 1]:.0%}, {rates['Shakespeare'][n - 1]:.0%}" for n in (1, 4, 8)))
ax.legend()
show(fig, "Rate of repetition against n. " + "; ".join(
    f"{name}: {of[0]:.0%} at n = 1, {of[3]:.0%} at n = 4, {of[7]:.0%} at n = 8" for name, of in rates.items()))

# %% [markdown]
# ## Does repetition feed itself?
#
# Why doesn't the model notice? Xu et al. (2022, [arXiv:2206.02369](https://arxiv.org/abs/2206.02369)) asked it. They
# wrote the same sentence into the context again and again and read off how probable the model finds its tokens. We do
# the same: eight times a sentence, and eight times a string of twelve *random* tokens, which no training text has ever
# held.

# %% tags=["demo"]
TIMES = 8
SENTENCES = ["The old sailor looked at the harbour and said nothing about the storm.",
             "Solar panels turn the light of the sun into electric power.",
             "My sister keeps three cats and a parrot in her kitchen."]
sentences = [tokenizer(" " + text).input_ids for text in SENTENCES]
dice = torch.Generator().manual_seed(0)
strings = torch.randint(1_000, 40_000, (3, 12), generator=dice).tolist()


@torch.inference_mode()
def probabilities(tokens):
    """Of every token, when `tokens` are said TIMES times: [TIMES, len(tokens)]."""
    ids = torch.tensor([[tokenizer.bos_token_id, *tokens * TIMES]])
    log_probs = model(ids).logits[0, :-1].log_softmax(-1)
    return log_probs.gather(-1, ids[0, 1:, None]).exp().reshape(TIMES, -1)


def climb(texts):
    """The mean probability of a token at the first, second, … time, over all texts: [TIMES]."""
    return torch.stack([probabilities(tokens).mean(-1) for tokens in texts]).mean(0)


def spelled(token):
    """A token as it can stand in a figure."""
    return repr(tokenizer.decode([int(token)]))[1:-1].replace(" ", "␣")


one, of_sentences, of_strings = probabilities(sentences[0]), climb(sentences), climb(strings)
counts = range(1, TIMES + 1)
fig, (left, right) = figure(1, 2, width=10.5, height=3.9, width_ratios=[1.25, 1])
shown = left.imshow(one * 100, cmap=SEQUENTIAL, aspect="auto", vmin=0, vmax=100)
left.set_xticks(range(len(sentences[0])), [spelled(t) for t in sentences[0]], rotation=60, ha="right",
                rotation_mode="anchor")
left.set_yticks(range(TIMES), counts)
left.set(ylabel="said for the … time", title="One sentence, token by token")
fig.colorbar(shown, ax=left, label="probability, %")
for shares, name, color, mark in ((of_sentences, "three sentences", COLORS[0], "o"),
                                  (of_strings, "three random strings", COLORS[1], "s")):
    right.plot(counts, shares * 100, color=color, marker=mark, label=name)
right.set(xlabel="said for the … time", ylabel="mean probability\nof a token, %", ylim=(0, 100), title="The mean")
right.legend(loc="lower right")
told = "Each repetition makes the next one likelier" if (of_sentences.diff() > 0).all() else "No steady climb"
show(fig, f"Left: a heat map of the probability of each token of a sentence, time by time. Right: the mean "
          f"goes from {of_sentences[0]:.0%} to {of_sentences[-1]:.0%}, for random tokens to {of_strings[-1]:.0%}.",
     title=f"{told}: {of_sentences[0]:.0%}, {of_sentences[1]:.0%} … {of_sentences[-1]:.0%}. Random strings: "
           f"{of_strings[0]:.0%}, {of_strings[1]:.0%} … {of_strings[-1]:.0%}")

# %% [markdown]
# They call it **self-reinforcement**: each time that a sentence stands there already makes it more probable, until
# saying it again is the most probable thing to do, and greedy decoding does it.
#
# Compare the two curves. A random string has no sense and no grammar; as far as *its* curve climbs, the model can only
# be copying.
#
# ## Who does the copying?
#
# A string of random tokens can't be in the weights. To continue it, the model has to look up in its context where it
# stood before, and say what came next. Olsson et al. (2022,
# [arXiv:2209.11895](https://arxiv.org/abs/2209.11895)) found the attention heads that do it, the **induction heads**:
# at the second *A* of “A B … A” they attend to *B*, the token after the first *A*.
#
# So say 40 random tokens twice, and ask of each of the 270 heads: how much of its attention, during the second round,
# lies on the token that comes next?

# %% tags=["demo"]
LAYERS, HEADS, ROUND = len(model.model.layers), model.config.num_attention_heads, 40


@torch.inference_mode()
def attention_to(ids):
    """The attention weights of every head on a batch of texts: [layers, texts, heads, queries, keys]."""
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the fast kernels don't keep the weights
    try:
        return torch.stack(model.model(ids, output_attentions=True).attentions)
    finally:
        model.set_attn_implementation(usual)


rounds = torch.randint(1_000, 40_000, (4, ROUND), generator=dice).repeat(1, 2)
weights = attention_to(torch.cat([torch.full((4, 1), tokenizer.bos_token_id), rounds], 1))
second = torch.arange(ROUND + 1, 2 * ROUND)
induction = weights[..., second, second - ROUND + 1].mean((1, 3))  # [layers, heads]
ranked = [divmod(int(i), HEADS) for i in induction.flatten().argsort(descending=True)]
layer, head = ranked[0]

fig, (left, right) = figure(1, 2, width=10.5, height=3.7, width_ratios=[1.6, 1])
shown = left.imshow(induction.T * 100, cmap=SEQUENTIAL, aspect="auto", vmin=0)
left.set(xlabel="layer", ylabel="head", title="Attention to the token that comes next")
fig.colorbar(shown, ax=left, label="share of the head's attention, %")
right.imshow(weights[layer, 0, head].sqrt(), cmap=SEQUENTIAL)
right.axhline(ROUND + 0.5, color="white", linewidth=1, linestyle=":")
right.set(xlabel="attends to (shade: root of the weight)", ylabel="token", title=f"Layer {layer}, head {head}")
strong = int((induction > 0.25).sum())
show(fig, f"Left: a map of layers by heads with {strong} bright spots. Right: the attention of the brightest head, "
          f"of which {induction.max():.0%} lies on a line parallel to the diagonal in the second round.",
     title=f"{strong} of {LAYERS * HEADS} heads spend over 25 % of their attention on what comes next; "
           f"the best {induction.max():.0%}")
del weights

# %% [markdown]
# ## Does it repeat because it forgets?
#
# "Lack of memory: the model can't remember the early context, and so keeps repeating what is known." If that were so,
# then a model that is worse at looking things up would repeat itself *more*.
#
# So take its memory away. 27 heads, a tenth of them all, are switched off: the best in such a map, made with other
# strings. That they copy *random strings* is how they were chosen, so their loss there proves nothing about loops. The
# test is another one: **what does the damaged model write by itself, in English?**
#
# Any damage may change how it writes. So other heads are switched off for comparison: of twelve sets of 27 to 54 heads,
# drawn from the lower half of the map, the two whose harm to ordinary prose is nearest.
#
# Fixed before the run: the sentence is *correct* if without induction heads there are more repeated phrases than in
# the whole model and than with either other set, each time with the whole interval above zero; *wrong* if there are
# fewer, each time with the whole interval below zero; else it stays *unverifiable*.

# %% claim="A12.6"
memory = evidence("A12.6")
WHOLE, NO_INDUCTION = "the whole model", "no induction heads"
SETS = ["no other heads, set 1", "no other heads, set 2"]
damaged = [WHOLE, NO_INDUCTION, *SETS]
more = [less(memory, NO_INDUCTION, arm) for arm in (WHOLE, *SETS)]
if all(each.above(0) for each in more):
    word = "correct"
elif all(each.below(0) for each in more):
    word = "wrong"
else:
    word = "unverifiable"

named = {WHOLE: WHOLE, NO_INDUCTION: "without induction heads"}
named |= {arm: f"without {memory.each(arm, 'heads')[0]} others" for arm in SETS}
fig, axes = figure(1, 3, width=10.5, height=3.4, sharey=True, width_ratios=[1, 1, 1.6])
rows(axes[0], memory, damaged, "recall")
axes[0].set(xlabel="probability of a random\nstring, said again, %", xlim=(-3, 103), title="Memory")
rows(axes[1], memory, damaged, "prose", unit=1)
axes[1].set(xlabel="nats a token,\npassages of Shakespeare", title="Harm to prose")
rows(axes[2], memory, damaged)
axes[2].set(xlabel="four-token phrases that stood there before, %\n(32 greedy texts of 200 tokens)", xlim=(-3, 103),
            title="Loops")
axes[0].set_yticks(range(len(damaged)), [named[arm] for arm in damaged])
rate = {arm: interval(values(memory, arm)).mean for arm in damaged}
recalled = {arm: interval(values(memory, arm, "recall")).mean for arm in damaged}
show(fig, "Three panels, a row for the whole model and for three damaged ones. "
          + "; ".join(f"{named[arm]}: recalls {recalled[arm]:.0f} %, repeats {rate[arm]:.0f} %" for arm in damaged),
     title=f"Recall {recalled[WHOLE]:.0f} % → {recalled[NO_INDUCTION]:.0f} %, loops {rate[WHOLE]:.0f} % → "
           f"{rate[NO_INDUCTION]:.0f} %; other damage: {' and '.join(f'{rate[arm]:.0f} %' for arm in SETS)}")
print(memory.again())
verdict("A12.6", word, f"Repeated phrases without induction heads: {more[0].mean:+.0f} points against the whole model "
        f"(95 % interval {more[0].text('+.0f')}), {more[1].mean:+.0f} ({more[1].text('+.0f')}) and {more[2].mean:+.0f} "
        f"({more[2].text('+.0f')}) against other damage. Recall, in the order of the rows: "
        + ", ".join(f"{of:.0f} %" for of in recalled.values()) + ".")

# %% [markdown]
# What was written *is* in the context, and heads exist that look it up: a loop is something that the model sees.
#
# Compare *Memory* and *Loops* row by row. A cut needn't take one faculty alone: see what others do to recall. If
# recall as such set the loops, the rows would stand in one order in both panels, or in the reverse order.
#
# ## Does a better view of the context help?
#
# "Introduce a dynamic context window, so that the model better understands what came before, and avoids repetition."
# Again 32 greedy texts for each setting: of what it wrote itself the model sees only the last 32 tokens, or all. (Its
# opening it always sees: without the first tokens a model falls apart for other reasons, Xiao et al. 2023,
# [arXiv:2309.17453](https://arxiv.org/abs/2309.17453).)
#
# Fixed before the run: *correct* if the narrow view surely repeats at least 10 points more than the whole one;
# *imprecise* if it surely repeats more, but perhaps by less; *wrong* if it doesn't surely repeat more and 10 points
# are ruled out; else *unverifiable*.

# %% claim="A12.9"
view = evidence("A12.9")
VIEWS = ["sees 32", "sees all"]
narrow = less(view, *VIEWS)
if narrow.above(0):
    word = "correct" if narrow.above(10) else "imprecise"
else:
    word = "wrong" if narrow.below(10) else "unverifiable"

fig, ax = figure(width=8.5, height=2.2)
rows(ax, view, VIEWS)
ax.set(xlabel="four-token phrases that stood there before, %", xlim=(-3, 103))
wide, tight = (interval(values(view, arm)).mean for arm in reversed(VIEWS))
show(fig, f"A row of dots, one a text, for each view. Means: {tight:.0f} % with 32 tokens, {wide:.0f} % with all.",
     title=f"Repeated phrases when the model sees 32 tokens: {tight:.0f} %; when it sees all: {wide:.0f} %")
print(view.again())
verdict("A12.9", word, f"With a view of 32 tokens {narrow.mean:+.0f} points of repeated phrases against the whole view "
        f"(95 % interval {narrow.text('+.0f')}).")

# %% [markdown]
# A view is not a memory of a person: what lies outside can still arrive through thirty layers, each of which passes on
# what it saw.
#
# Now to the cures that act where a loop closes: at the choice of the next token.
#
# ## Cure 1: the repetition penalty
#
# The best known is from CTRL (Keskar et al. 2019, [arXiv:1909.05858](https://arxiv.org/abs/1909.05858)): divide the
# logit of every token that has occurred by $\theta$, about 1.2. One line, and it has two catches. Look at the logits
# first.

# %% tags=["demo"]
with torch.inference_mode():
    scores = model(prompts, logits_to_keep=1).logits[:, -1]
best = scores.amax(-1)
negative = (scores < 0).float().mean(-1)
drop = best * (1 - 1 / 1.2)
names = [f"“{text[:24]}…”" for text in OPENINGS]
fig, (left, right) = figure(1, 2, width=10.5, height=3.3, sharey=True)
left.bar_label(left.barh(names, negative * 100, color=COLORS[1]), fmt="%.0f %%", padding=3)
left.set(xlabel="tokens of the vocabulary with a negative logit, %", xlim=(0, 118), title="Below zero")
right.bar_label(right.barh(names, drop, color=COLORS[0]), fmt="%.1f", padding=3)
right.set(xlabel="what / 1.2 takes from the best token's logit", xlim=(0, 1.2 * drop.max()), title="The same penalty")
right.invert_yaxis()
show(fig, f"Bars for six contexts: between {negative.min():.0%} and {negative.max():.0%} of all logits are negative; "
          f"dividing the best logit by 1.2 takes between {drop.min():.1f} and {drop.max():.1f}.",
     title=f"{'Zero is no fixed place' if drop.max() > 1.2 * drop.min() else 'Here zero stays put'}: "
           f"{negative.min():.0%} to {negative.max():.0%} of the logits are negative, "
           f"and / 1.2 takes {drop.min():.1f} to {drop.max():.1f} from the best")

# %% [markdown]
# * **Negative logits.** $-4 / 1.2 = -3.3$: a division makes a token with a negative logit *likelier*. So transformers,
#   llama.cpp and others multiply there instead.
# * **No fixed strength.** A softmax doesn't change when the same number is added to all logits; this penalty does.
#   What it takes depends on where the model happens to put its zero.
#
# It asks whether a token occurred, not how often. And in transformers the *prompt* counts as text, too, unless told
# otherwise.
#
# ### Exercise 2: the repetition penalty

# %% exercise="repetition_penalty"
def repetition_penalty(logits, ids, penalty):
    """Make every token that occurred less likely: divide its logit, or multiply one below 0.

    logits:  [..., vocab], floating point, any number of leading dimensions; may hold -inf. Not
             changed.
    ids:     int64 [..., length], the text so far of each row, with the leading dimensions of
             logits; length >= 1.
    penalty: a number > 0. Above 1 it penalizes, below 1 it rewards by the same formula, 1 does
             nothing.

    Returns a new tensor, always, of the shape and dtype of logits. Each token that stands in
    its row of ids has logit / penalty if the logit is 0 or more, and logit * penalty if it is
    below 0; once, however often the token occurs. All other logits stay as they are. No
    softmax.
    Source: Keskar et al., "CTRL", 2019, arXiv:1909.05858, section 4.1; as
    RepetitionPenaltyLogitsProcessor has it.
    """
    ### BEGIN SOLUTION
    old = logits.gather(-1, ids)
    return logits.scatter(-1, ids, torch.where(old < 0, old * penalty, old / penalty))
    ### END SOLUTION


# %% check="repetition_penalty"
check(repetition_penalty)

# %% [markdown]
# ## Cure 2: frequency and presence
#
# OpenAI's API subtracts instead of dividing, so the zero doesn't matter. With $c_j$ the number of times that token $j$
# was sampled before:
#
# $$\mu_j \leftarrow \mu_j - c_j \cdot \alpha_{\text{frequency}} - [c_j > 0] \cdot \alpha_{\text{presence}}$$
#
# *Presence* is taken once from every token that occurred: a push towards new words. *Frequency* is taken for every
# occurrence: the longer a loop runs, the harder it is to go on. Which of the two will break a loop? (Make a guess now;
# the comparison below will tell.)
#
# ### Exercise 3: frequency and presence

# %% exercise="frequency_presence_penalty"
def frequency_presence_penalty(logits, ids, frequency=0.0, presence=0.0):
    """OpenAI's penalties: mu[j] - c[j] * frequency - (c[j] > 0) * presence.

    logits:    [..., vocab], floating point, any number of leading dimensions; may hold -inf.
               Not changed.
    ids:       int64 [..., length], the text of each row in which tokens are counted, with the
               leading dimensions of logits. length may be 0: nothing occurred yet.
    frequency: taken from the logit of token j once for each time that j stands in its row of
               ids; a number, usually between -2 and 2. A negative one rewards, by the same
               formula.
    presence:  taken once from each token that stands there at all; likewise.

    Returns a new tensor, always, of the shape and dtype of logits. Tokens that don't occur keep
    their logits. No softmax.
    Source: OpenAI's API reference, "Frequency and presence penalties".
    """
    ### BEGIN SOLUTION
    ones = torch.ones(ids.shape, dtype=logits.dtype)
    counts = torch.zeros_like(logits).scatter_add(-1, ids, ones)
    return logits - frequency * counts - presence * counts.clamp(max=1)
    ### END SOLUTION


# %% check="frequency_presence_penalty"
check(frequency_presence_penalty)

# %% [markdown]
# ## Cure 3: no n-gram twice
#
# Why not forbid it? Paulus et al. (2017, [arXiv:1705.04304](https://arxiv.org/abs/1705.04304)) never let a summary
# hold the same trigram twice. With the token to come, the last $n-1$ tokens make an n-gram: whatever followed *those*
# tokens before is forbidden now, with a logit of $-\infty$.
#
# It is the only cure with a guarantee, and a blunt one: with $n = 2$ a text on New York may say the city's name once.
#
# ### Exercise 4: no n-gram twice

# %% exercise="no_repeat_ngram"
def no_repeat_ngram(logits, ids, n):
    """Forbid every token that would complete an n-gram which stands in the text already.

    logits: [..., vocab], floating point, any number of leading dimensions; may hold -inf. Not
            changed.
    ids:    int64 [..., length], the text so far of each row, with the leading dimensions of
            logits; length >= 1.
    n:      an int >= 1. n = 1 forbids every token that occurred.

    Returns a new tensor, always, of the shape and dtype of logits: -inf for each token t such
    that the row's last n - 1 tokens, followed by t, stand somewhere in the row already (those n
    - 1 tokens themselves included); all other logits as they are. A text of fewer than n tokens
    forbids nothing.
    Source: Paulus, Xiong and Socher, 2017, arXiv:1705.04304; as NoRepeatNGramLogitsProcessor
    has it.
    """
    ### BEGIN SOLUTION
    length = ids.shape[-1]
    if length < n:
        return logits.clone()
    grams = ids.unfold(-1, n, 1)
    repeated = (grams[..., :-1] == ids[..., length - n + 1 :].unsqueeze(-2)).all(-1)
    hits = torch.zeros_like(logits).scatter_add(-1, grams[..., -1], repeated.to(logits.dtype))
    return logits.masked_fill(hits > 0, -torch.inf)
    ### END SOLUTION


# %% check="no_repeat_ngram"
check(no_repeat_ngram)

# %% [markdown]
# ## Cure 4: contrastive search
#
# All cures so far look at tokens. Su et al. (2022, [arXiv:2202.06417](https://arxiv.org/abs/2202.06417)) look at what
# the model *thinks*: when it repeats itself, its hidden states repeat, too. Among the $k$ likeliest tokens $v$ they
# take the one with the best
#
# $$(1-\alpha)\, p(v \mid x_{<t}) \;-\; \alpha \max_{j < t} \cos(h_v, h_{x_j}),$$
#
# where $h_v$ is the last layer's state at $v$, if it were said next, and $h_{x_j}$ are those of the text so far.
# Nothing is drawn: like greedy decoding it always gives the same text. To know $h_v$ the model has to read all $k$
# candidates, $k$ times the work of greedy decoding. (In transformers it is no longer built in; generate() loads it
# from the hub.)
#
# ### Exercise 5: one step of contrastive search

# %% exercise="contrastive_search_step"
def contrastive_search_step(logits, candidates, states, context, alpha):
    """Choose the next token: probable, and unlike anything that stands in the context.

    logits:     [..., vocab], floating point: the model's scores for the next token; any number
                of leading dimensions, also none. They may be large.
    candidates: int64 [..., k], different token ids, in any order.
    states:     [..., k, d], floating point: the hidden state of each candidate, were it said
                next. None is zero.
    context:    [..., length, d]: the hidden states of the text so far, length >= 1. None is
                zero.
    alpha:      a number from 0 to 1.

    Returns int64 [...]: of each row the candidate v with the largest (1 - alpha) * p(v) - alpha
    * s(v). p(v) is the model's probability of v, by a softmax over the whole vocabulary; s(v)
    is the largest of the cosines between the state of v and the states of the context. Ties
    don't occur.
    Source: Su et al., "A Contrastive Framework for Neural Text Generation", 2022,
    arXiv:2202.06417.
    """
    ### BEGIN SOLUTION
    probs = logits.softmax(-1).gather(-1, candidates)
    unit_states, unit_context = (F.normalize(x, dim=-1) for x in (states, context))
    alike = (unit_states @ unit_context.mT).amax(-1)
    best = ((1 - alpha) * probs - alpha * alike).argmax(-1, keepdim=True)
    return candidates.gather(-1, best).squeeze(-1)
    ### END SOLUTION


# %% check="contrastive_search_step"
check(contrastive_search_step)

# %% [markdown]
# ## What does a cure cost?
#
# A random generator breaks loops, too. So let us measure the price as well:
#
# * **negative log-likelihood** (NLL), in nats a token: how surprising the model itself finds its text, before any knob.
#   It says how far a text is from the model's own favorite, and not how good it is: greedy decoding looks for a low
#   NLL, people don't (Holtzman et al. 2020, [arXiv:1904.09751](https://arxiv.org/abs/1904.09751));
# * **copies**, for the penalties: 24 texts with a pattern in them ("1, 2, 3, 1, 2, 3") that the model is asked, in the
#   chat format, to repeat word for word.
#
# The claim first in line: "temperature". Fixed before the run: *correct* if at temperature 1, the model's own
# probabilities, the whole interval of repeated phrases lies below 10 %; *imprecise* if it only falls below greedy's;
# else *wrong*.

# %% claim="A12.13"
HOT = "temperature 1.0"
rate = {arm: interval(values(heat, arm)) for arm in ("greedy", HOT)}
word = "correct" if rate[HOT].below(10) else "imprecise" if less(heat, "greedy", HOT).above(0) else "wrong"


def prices(found, arms, numbers):
    """A panel for each number, a row for each arm. Gives the figure and the means: number -> arm -> mean."""
    fig, axes = figure(1, len(numbers), width=10.5, height=1.2 + 0.5 * len(arms), sharey=True)
    labels = {"repeated": "repeated phrases, %", "nll": "NLL, nats a token"}
    means = {}
    for ax, number in zip(axes, numbers, strict=True):
        unit = 1 if number == "nll" else 100
        rows(ax, found, arms, number, unit)
        ax.set(xlabel=labels.get(number, f"{number} right, %"), xlim=(0, None) if number == "nll" else (-6, 106))
        means[number] = {arm: interval(values(found, arm, number, unit)).mean for arm in arms}
    return fig, means


def in_words(means):
    """The means of `prices` in a sentence, for those who can't see the figure."""
    return "; ".join(f"{number}: " + ", ".join(f"{arm} {mean:.3g}" for arm, mean in of.items())
                     for number, of in means.items())


fig, means = prices(heat, ["greedy", HOT], ["repeated", "nll"])
show(fig, f"Two panels, a row for each setting. {in_words(means)}.",
     title=f"Temperature 1: repeats {means['repeated']['greedy']:.0f} % → {means['repeated'][HOT]:.0f} %, NLL "
           f"{means['nll']['greedy']:.1f} → {means['nll'][HOT]:.1f} nats a token")
print(heat.again())
verdict("A12.13", word, f"Repeated phrases: greedy {rate['greedy'].text('.0f')} %, at 1.0 {rate[HOT].text('.0f')} %. "
        f"The price: the NLL rises by {less(heat, HOT, 'greedy', 'nll', 1).text()} nats a token (95 % interval).")

# %% [markdown]
# A temperature strikes blindly: it changes *every* choice, not only those that close a loop.
#
# ## Penalties on what was said
#
# "De-duplication strategies" is the last item of the list. The same trial for three penalties, each at one usual
# strength, as transformers and OpenAI define them: the first counts the prompt's tokens, too, the other two only what
# was written. Did you guess about presence and frequency? (No n-gram twice isn't among them: that no four-token phrase
# comes twice where none may is no finding.)
#
# Fixed before the run: *correct* if for at least one of them the whole interval of repeated phrases lies below 10 %;
# *imprecise* if one only falls below greedy's; else *wrong*. Two penalties are told apart only where the interval of
# their difference, text by text, leaves out zero.

# %% claim="A12.14"
cures = evidence("A12.14")
PENALTIES = ["repetition penalty 1.2", "presence 1", "frequency 1"]
rate = {arm: interval(values(cures, arm)) for arm in ("greedy", *PENALTIES)}
broken = [arm for arm in PENALTIES if rate[arm].below(10)]
if broken:
    word = "correct"
else:
    word = "imprecise" if any(less(cures, "greedy", arm).above(0) for arm in PENALTIES) else "wrong"
presence = less(cures, "presence 1", "frequency 1")
if presence.above(0):
    told = "Frequency repeats less than presence"
else:
    told = "Presence repeats less than frequency" if presence.below(0) else "Presence and frequency aren't told apart"


def change(found, arm, number):
    """What an arm changes against greedy decoding in points, with its interval, and whether that is told from none."""
    each = less(found, arm, "greedy", number)
    sure = each.above(0) or each.below(0)
    return f"{each.mean:+.0f} ({each.text('+.0f')}{'' if sure else ', not told from none'})"


fig, means = prices(cures, ["greedy", *PENALTIES], ["repeated", "nll", "copies"])
show(fig, f"Three panels, a row for each setting. {in_words(means)}.",
     title=f"Surely below 10 % of repeated phrases: {len(broken)} of {len(PENALTIES)} penalties. {told}")
print(cures.again())
verdict("A12.14", word, "Repeated phrases: " + ", ".join(f"{arm} {of.text('.0f')} %" for arm, of in rate.items())
        + f". {told} (difference {presence.text('+.0f')} points). Copies against greedy, in points: "
        + ", ".join(f"{arm} {change(cures, arm, 'copies')}" for arm in PENALTIES) + ".")

# %% [markdown]
# A penalty doesn't know a loop from a repetition that is the task: tables, code, quotations, a name. Read the right
# panel with that in mind, and with the prompt: where the text to be copied stands in it, it matters who counts it.
#
# ## Is a hallucination a repetition?
#
# "Meaningless answers (hallucinations)" stand in the list of the problem's *symptoms*. If they were, they would go when
# the loops go.
#
# An answer of ten words has no room for a loop. So the model writes 200 tokens about a country first, greedily and
# with its loops, or with no four-token phrase twice; and only then comes the question, the same for both: "The capital
# of Kenya is …". It is asked about 40 countries.
#
# What repetition *can* do to an answer is the control: the model reads a false capital four times before it is asked,
# or the true one.
#
# Fixed before the run: the greedy texts must surely repeat over 20 % of their phrases, else there is little to take
# away and the sentence stays *unverifiable*. If they do, it is *correct* if the texts without repeats surely take away
# over half of the false answers; *wrong* if they surely take away less than half, and surely over 10 % of the answers
# are false there; else *unverifiable*, too.

# %% claim="A12.2"
lies = evidence("A12.2")
AFTER = ["after a greedy text", "after a text without repeats"]
false = {arm: interval(values(lies, arm, "false")) for arm in lies.arms}
mended = less(lies, *AFTER, "false")
half = false[AFTER[0]].mean / 2
looped = interval(values(lies, AFTER[0]))
if looped.above(20) and mended.above(half):
    word = "correct"
elif looped.above(20) and mended.below(half) and false[AFTER[1]].above(10):
    word = "wrong"
else:
    word = "unverifiable"

fig, (left, right) = figure(1, 2, width=10.5, height=3.4, width_ratios=[1, 1.15])
rows(left, lies, AFTER)
left.set(xlabel="four-token phrases that\nstood there before, %", xlim=(-3, 103), title="The text before the question")
for row, arm in enumerate(lies.arms):
    each, color = false[arm], COLORS[2 + row]
    right.barh(row, each.mean, color=color, alpha=0.6)
    right.plot([max(each.low, 0), min(each.high, 100)], [row, row], color="black", linewidth=2)
right.set_yticks(range(len(lies.arms)), lies.arms)
right.invert_yaxis()
right.set(xlabel="false answers, % (line: 95 % interval)", xlim=(0, 103), title="The answer")
show(fig, "Left: repeated phrases in the texts about 40 countries, greedy and without repeats. Right, false answers: "
          + ", ".join(f"{arm} {each.mean:.0f} %" for arm, each in false.items()) + ".",
     title=f"False answers: {false[AFTER[0]].mean:.0f} % after greedy texts, {false[AFTER[1]].mean:.0f} % after texts "
           "without repeats")
print(lies.again())
verdict("A12.2", word, f"Without the loops {mended.mean:.0f} points of the false answers are gone (95 % interval "
        f"{mended.text('.0f')}); half of them would be {half:.0f}. The greedy texts repeat {looped.text('.0f')} % of "
        f"their phrases{'' if looped.above(20) else ', which is not surely over 20 %'}.")

# %% [markdown]
# Note the two controls: repetition carries whatever is repeated. By definition *false* and *repeated* are two measures
# of a text, whatever the run says of how often they meet in this model. (Hallucinations have a question of their own.)
#
# ## Loops in 2026
#
# **Several turns.** "In multi-turn reasoning it returns to earlier answers": the means are there, since earlier turns
# stand in the context and can be copied. How often it happens we have not measured. Nor can anybody measure whether a
# text "exceeds the model's understanding"; the greedy texts above have 200 tokens of a window of 8,192.
#
# **Models that think.** A reasoning model may circle in its thoughts until its budget is gone. Qwen's model cards
# advise against greedy decoding in thinking mode, since it can end in endless repetitions, and name the presence
# penalty, from 0 to 2, as a remedy that may cost quality and mix languages
# ([Qwen3](https://huggingface.co/Qwen/Qwen3-235B-A22B)).
#
# **DRY** ("don't repeat yourself", in [llama.cpp](https://github.com/ggml-org/llama.cpp/pull/9702) and others) punishes
# the token that would lengthen a repeated *sequence*, exponentially in its length: no-repeat n-gram made soft. A list
# of breakers (line ends, colons, quotation marks) says where a sequence is cut. **XTC** ("exclude top choices") now and
# then strikes out all likely tokens but the least likely of them; it is meant for variety.
#
# **Before decoding.** De-duplicated training data (Lee et al. 2021,
# [arXiv:2107.06499](https://arxiv.org/abs/2107.06499)), unlikelihood training (Welleck et al.), and DITTO (Xu et al.),
# which trains on artificial repetitions.
#
# ## Payoff: your code inside generate()
#
# `model.generate` takes a list of **logits processors**: at each step it hands them the ids so far and the logits. So
# your functions fit in as they are. First, are they what the library has? Greedy texts must agree token by token.

# %% tags=["payoff"]
from transformers import LogitsProcessor, NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor


class Yours(LogitsProcessor):
    """Any function of (logits, ids, **knobs) as a processor; `after` leaves the first ids out."""

    def __init__(self, function, after=0, **knobs):
        self.function, self.after, self.knobs = function, after, knobs

    def __call__(self, input_ids, scores):
        return self.function(scores, input_ids[:, self.after :], **self.knobs)


class SideBySide(LogitsProcessor):
    """Several processors in one batch, each for as many rows as there are prompts."""

    def __init__(self, processors):
        self.processors = list(processors)

    def __call__(self, input_ids, scores):
        parts = zip(self.processors, input_ids.split(len(prompts)), scores.split(len(prompts)), strict=True)
        return torch.cat([process(ids, logits) for process, ids, logits in parts])


start = prompts.shape[1]
CURES = {"repetition_penalty 1.2": Yours(repetition_penalty, penalty=1.2),
         "frequency 0.5, presence 0.2": Yours(frequency_presence_penalty, after=start, frequency=0.5, presence=0.2),
         "no_repeat_ngram 4": Yours(no_repeat_ngram, n=4)}
LIBRARY = {"repetition_penalty 1.2": RepetitionPenaltyLogitsProcessor(1.2),
           "no_repeat_ngram 4": NoRepeatNGramLogitsProcessor(4)}
together = SideBySide([*CURES.values(), *LIBRARY.values()])
SHORT = 32
ids = prompts.repeat(len(together.processors), 1)
ids = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=SHORT, min_new_tokens=SHORT,
                     do_sample=False, logits_processor=[together])
blocks = ids[:, start:].split(len(prompts))
mine = dict(zip(CURES, blocks, strict=False))
theirs = dict(zip(LIBRARY, blocks[len(CURES) :], strict=True))
for name, its in theirs.items():
    print(f"{name}: {int((its == mine[name]).sum())} of {its.numel()} tokens as in the library")

# %% [markdown]
# Contrastive search needs a loop of its own, since the model has to try out the candidates. They share the cache of
# the text so far: copy it $k$ times, let each copy read one candidate, keep the copy that won.

# %% tags=["payoff"]
@torch.inference_mode()
def search(prompts, steps, k=4, alpha=0.6):
    """Contrastive search with your step: [rows, steps]."""
    rows, cache, chosen = torch.arange(len(prompts)), DynamicCache(), []
    out = model(prompts, past_key_values=cache, output_hidden_states=True)
    logits, context = out.logits[:, -1], out.hidden_states[-1]
    for _ in range(steps):
        logits[:, END] = -torch.inf
        candidates = logits.topk(k).indices
        cache.batch_repeat_interleave(k)
        out = model(candidates.reshape(-1, 1), past_key_values=cache, output_hidden_states=True)
        states = out.hidden_states[-1].reshape(len(rows), k, -1)
        token = contrastive_search_step(logits, candidates, states, context, alpha)
        won = (candidates == token[:, None]).int().argmax(-1)
        cache.batch_select_indices(rows * k + won)
        logits = out.logits[rows * k + won, -1]
        context = torch.cat([context, states[rows, won, None]], 1)
        chosen.append(token)
    return torch.stack(chosen, 1)


mine["contrastive, alpha 0.6"] = search(prompts, SHORT)
every = {"greedy": loops[:, :SHORT]} | mine


@torch.inference_mode()
def nll(texts):
    """Negative log-likelihood of each text under the model itself, nats a token. A token has 49,152 scores: by text."""
    states = model.model(torch.cat([prompts, texts], 1)).last_hidden_state[:, start - 1 : -1]
    return torch.stack([F.cross_entropy(model.lm_head(own), text) for own, text in zip(states, texts, strict=True)])


fig, axes = figure(1, 3, width=10.5, height=3.4, sharey=True)
distinct = {name: 100 * (1 - repetition_rate(texts, 1)) for name, texts in every.items()}
columns = {"repeated phrases, %": {name: 100 * repetition_rate(texts) for name, texts in every.items()},
           "distinct tokens, %": distinct,
           "NLL, nats a token": {name: nll(texts) for name, texts in every.items()}}
for ax, (label, column) in zip(axes, columns.items(), strict=True):
    ax.barh(list(every), [float(of.mean()) for of in column.values()], color=["#777777"] + [COLORS[0]] * len(mine))
    for row, of in enumerate(column.values()):
        ax.plot(of, [row] * len(of), "o", color="black", markersize=3, alpha=0.6)
    ax.set(xlabel=label, xlim=(-0.03 * max(of.max() for of in column.values()), None))
axes[0].invert_yaxis()
rates = {name: repetition_rate(texts).mean() for name, texts in every.items()}
show(fig, "Bars for greedy decoding and your four cures, with a dot for each of the six texts: distinct tokens, NLL, "
          "and repeated phrases: " + ", ".join(f"{name} {rate:.0%}" for name, rate in rates.items()) + ".",
     title=f"Repeated phrases: greedy {rates['greedy']:.0%}, with your four cures at most "
           f"{max(rate for name, rate in rates.items() if name != 'greedy'):.0%}")
for name, texts in every.items():
    print(f"{name}: {tokenizer.decode([*prompts[1], *texts[1]])!r}\n")

# %% [markdown]
# ## What to remember
#
# * Measure it: the share of n-grams that stood there before, usually with $n = 4$, and what people's texts have.
# * A loop feeds itself: the earlier text stands in the context, and there are heads that copy (Olsson et al.).
# * The repetition penalty divides positive logits and multiplies negative ones, once a token; frequency subtracts by
#   count, presence once; no-repeat n-gram forbids; contrastive search compares hidden states.
# * Ask every cure for its price, also where the task is to repeat, and whether it counts the prompt.
# * Stale and false are two measures of a text: test them apart.
#
# **Sources.** Holtzman et al. 2020, [arXiv:1904.09751](https://arxiv.org/abs/1904.09751) (degeneration); Welleck et
# al. 2020, [arXiv:1908.04319](https://arxiv.org/abs/1908.04319) (seq-rep-n, unlikelihood training); Xu et al. 2022,
# [arXiv:2206.02369](https://arxiv.org/abs/2206.02369) (self-reinforcement, DITTO); Olsson et al. 2022,
# [arXiv:2209.11895](https://arxiv.org/abs/2209.11895) (induction heads); Keskar et al. 2019,
# [arXiv:1909.05858](https://arxiv.org/abs/1909.05858) (repetition penalty); Paulus et al. 2017,
# [arXiv:1705.04304](https://arxiv.org/abs/1705.04304) (no trigram twice); Su et al. 2022,
# [arXiv:2202.06417](https://arxiv.org/abs/2202.06417) (contrastive search); OpenAI's API reference (frequency and
# presence); Lee et al. 2021, [arXiv:2107.06499](https://arxiv.org/abs/2107.06499) (training data); Xiao et al. 2023,
# [arXiv:2309.17453](https://arxiv.org/abs/2309.17453) (the first tokens).
