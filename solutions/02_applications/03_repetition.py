# ---
# jupyter:
#   course:
#     title: "Repetition: loops, and what breaks them"
#     exercises: applications.repetition
#     questions: [A12]
# ---

# %% [markdown]
# # Repetition: loops, and what breaks them
#
# Leave a language model alone and it may say the same sentence again. And again. And again. Chinese interviewers call
# it the 复读机 problem, the parrot that only rewinds.
#
# The interview question: **what is the repetition problem of LLMs, and how is it solved?** The usual notes give a list
# of causes and a list of cures. Here you *measure* repetition, watch it feed itself, find the heads that do the
# copying, switch them off, and build the four cures that inference engines offer. Each cure works. Each has a price,
# and you will see it.

# %% tags=["setup"]
import contextlib

import torch
import torch.nn.functional as F
from transformers import DynamicCache

from autograde import check
from labkit import COLORS, SEQUENTIAL, figure, shakespeare, show, smollm

# %% [markdown]
# ## Watch it loop
#
# A real chat model of 135 million parameters continues six beginnings, always with its best token (**greedy
# decoding**). Each row of the figure is a text, each square a token. Dark squares end a four-token phrase that has
# stood in the text before. Below, for comparison, two passages of Shakespeare.

# %% tags=["demo"]
model, tokenizer = smollm(torch.bfloat16)
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
def write(prompts, choosers, steps, mask=None, may_end=False):
    """Continue every prompt [rows, length] once with each of `choosers`, all of them side by side.

    A chooser turns the ids so far, the logits and the prompt's length into one token a row. `mask` is False where a
    prompt is padded on the left. Returns the tokens and the model's own surprise at them, in nats, both
    [choosers, rows, steps]. Texts don't end before `steps` unless `may_end`; what follows an end means nothing.
    """
    ways, start, cache = len(choosers), prompts.shape[1], DynamicCache()
    mask = torch.ones_like(prompts, dtype=torch.bool) if mask is None else mask
    logits = model(prompts, attention_mask=mask, past_key_values=cache, logits_to_keep=1).logits
    cache.batch_repeat_interleave(ways)
    logits, ids, mask = (x.repeat_interleave(ways, 0) for x in (logits[:, -1].float(), prompts, mask))
    nats, going = [], torch.arange(len(ids))
    for step in range(steps):
        if not may_end:
            logits[:, END] = -torch.inf
        token = torch.empty(len(ids), 1, dtype=torch.int64)
        for way, choose in enumerate(choosers):
            token[way::ways, 0] = choose(ids[way::ways], logits[way::ways], start)
        nats.append(logits.logsumexp(-1, keepdim=True) - logits.gather(-1, token))
        ids, mask = torch.cat([ids, token], 1), torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        if (ended := token[going, 0] == END).any():  # the model needn't read on there
            going = going[~ended]
            cache.batch_select_indices((~ended).nonzero()[:, 0])
        if step < steps - 1 and len(going):
            read_on = model(token[going], attention_mask=mask[going], past_key_values=cache)
            logits[going] = read_on.logits[:, -1].float()
    written, nats = ids[:, start:], torch.cat(nats, 1)
    return [torch.stack([x[way::ways] for way in range(ways)]) for x in (written, nats)]


def greedy(ids, logits, start):
    return logits.argmax(-1)


def stale(text, n=4):
    """For each n-gram of a text, whether it stood there before."""
    grams = [tuple(text[i : i + n].tolist()) for i in range(len(text) - n + 1)]
    return [gram in grams[:i] for i, gram in enumerate(grams)]


def share(texts, n=4):
    """The mean over texts of the share of n-grams that stood there before."""
    return float(torch.tensor([stale(text, n) for text in texts]).float().mean())


loops, loops_nats = (found[0] for found in write(prompts, [greedy], STEPS))
both = [*loops, *passages[:2]]
dark = torch.tensor([[False] * 3 + stale(text) for text in both])
fig, ax = figure(width=10, height=3.3)
ax.imshow(~dark, cmap=SEQUENTIAL, aspect="auto", vmin=-0.1)
ax.set_yticks(range(len(both)), [f"“{text[:22]}…”" for text in OPENINGS] + ["Shakespeare"] * 2)
ax.set_xticks([i - 0.5 for i in range(0, STEPS + 1, 8)], range(0, STEPS + 1, 8))
ax.hlines([i + 0.5 for i in range(len(both) - 1)], -0.5, STEPS - 0.5, color="white", linewidth=3)
ax.set(xlabel="token of the text")
show(fig, f"Eight rows of squares, one a token. Dark squares, which end a repeated phrase, fill {share(loops):.0%} of "
          "the six greedy texts; the two passages of Shakespeare have hardly any.",
     title=f"Greedy texts: {share(loops):.0%} of the four-token phrases stood there before. "
           f"{len(passages)} passages of Shakespeare: {share(passages):.1%}")
worst = max(range(len(loops)), key=lambda i: sum(stale(loops[i])))
print(repr(tokenizer.decode([*prompts[worst], *loops[worst]])))

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
for (name, values), color, mark in zip(rates.items(), (COLORS[1], COLORS[0]), "os", strict=True):
    ax.plot(sizes, [100 * value for value in values], color=color, marker=mark, label=name)
ax.set(xlabel="n", ylabel="n-grams that stood\nthere before, %", xticks=sizes, ylim=(0, None),
       title=f"Single tokens recur in both ({rates['greedy texts'][0]:.0%}, {rates['Shakespeare'][0]:.0%}); "
             f"at n = 8 it is {rates['greedy texts'][7]:.0%} against {rates['Shakespeare'][7]:.0%}")
ax.legend()
show(fig, "Rate of repetition against n for greedy texts and Shakespeare. Both are high at n = 1; Shakespeare's falls "
          "to nearly nothing, that of the greedy texts stays up.")

# %% [markdown]
# ## Repetition feeds itself
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
    log_probs = model(ids).logits[0, :-1].float().log_softmax(-1)
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
for values, name, color, mark in ((of_sentences, "three sentences", COLORS[0], "o"),
                                  (of_strings, "three random strings", COLORS[1], "s")):
    right.plot(counts, values * 100, color=color, marker=mark, label=name)
right.set(xlabel="said for the … time", ylabel="mean probability\nof a token, %", ylim=(0, 100), title="The mean")
right.legend(loc="lower right")
verdict = "Each repetition makes the next one likelier" if (of_sentences.diff() > 0).all() else "No steady climb"
show(fig, f"Left: a heat map of the probability of each token of a sentence, brighter from row to row. Right: the mean "
          f"climbs from {of_sentences[0]:.0%} to {of_sentences[-1]:.0%}, for random tokens to {of_strings[-1]:.0%}.",
     title=f"{verdict}: {of_sentences[0]:.0%}, {of_sentences[1]:.0%}, {of_sentences[2]:.0%} … {of_sentences[-1]:.0%}")

# %% [markdown]
# They call it **self-reinforcement**. Once a sentence has slipped in twice, saying it a third time is the most
# probable thing to do, and greedy decoding does it. Sense plays no part: the random strings climb as well, only later.
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
        return torch.stack(model.model(ids, output_attentions=True).attentions).float()
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
show(fig, "Left: a map of layers by heads with a few bright spots. Right: the attention of the brightest head, with a "
          "line parallel to the diagonal in the second round.",
     title=f"{strong} of {LAYERS * HEADS} heads spend over 25 % of their attention on what comes next; "
           f"the best {induction.max():.0%}")
del weights

# %% [markdown]
# ## Does it repeat because it forgets?
#
# "Lack of memory: the model can't remember the early context, and so keeps repeating what is known." If that were so,
# then a model that is worse at looking things up would repeat itself *more*.
#
# We switch off 27 heads, a tenth of them all: the best induction heads; and, to see what any such damage does, twice
# 27 others by chance. Then we ask for the climb again, and let each model write greedily.

# %% claim="A12.6"
@contextlib.contextmanager
def without(heads):
    """Inside, these heads, given as (layer, head), say nothing."""
    hooks = []
    for layer in {layer for layer, _ in heads}:
        silent = [head for its_layer, head in heads if its_layer == layer]

        def mute(module, given, silent=silent):
            spoken = given[0].unflatten(-1, (HEADS, -1)).clone()
            spoken[..., silent, :] = 0
            return (spoken.flatten(-2),)

        hooks.append(model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(mute))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


CUT, SHORT = 27, 40
others = ranked[2 * CUT :]
cuts = {"the whole model": [], f"without {CUT} induction heads": ranked[:CUT]}
for seed in (1, 2):
    chance = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))[:CUT].tolist()
    cuts[f"without {CUT} others, draw {seed}"] = [others[i] for i in chance]
climbs, written = {}, {}
for name, heads in cuts.items():
    with without(heads):
        climbs[name] = climb(sentences)
        if len(written) < 3:
            written[name] = share(write(prompts, [greedy], SHORT)[0][0] if heads else loops[:, :SHORT])

fig, (left, right) = figure(1, 2, width=10.5, height=3.5)
for (name, values), color, mark in zip(climbs.items(), COLORS, "os^v", strict=False):
    left.plot(counts, values * 100, color=color, marker=mark, label=name)
left.set(xlabel="said for the … time", ylabel="mean probability\nof a token, %", ylim=(0, 100),
         title="How repetition feeds itself")
left.legend(fontsize=8, loc="center right", bbox_to_anchor=(1, 0.47))
bars = right.barh(list(written), [100 * value for value in written.values()], color=COLORS)
right.bar_label(bars, fmt="%.0f %%", padding=3)
right.set(xlabel="four-token phrases that stood there before, %", xlim=(0, 130 * max(written.values())),
          title=f"What it writes (six texts of {SHORT} tokens)")
right.invert_yaxis()
intact, blind = (climbs[name][-1] for name in list(cuts)[:2])
control = torch.stack([climbs[name][-1] for name in list(cuts)[2:]])
less_memory_less_loops = bool(blind < intact and blind < control.min())
show(fig, f"Left: probability of a sentence's tokens against its repetitions, for the whole model and three damaged "
          f"ones. Without induction heads it ends at {blind:.0%}, else at {intact:.0%}, {control[0]:.0%} and "
          f"{control[1]:.0%}. Right: repeated phrases in what three of them write.",
     title=(f"A model that copies worse is caught less: {blind:.0%} at the eighth time, not {intact:.0%}"
            if less_memory_less_loops else f"Without induction heads {blind:.0%} at the eighth time, with them "
                                           f"{intact:.0%}: no sign that memory feeds the loop"))

# %% [markdown]
# **Wrong**, and the wrong way round. The earlier text is not forgotten: it stands in the context, is looked up, and
# copied. Take away the heads that remember, and the climb goes with them; damage of the same size elsewhere leaves it.
# The texts on the right are only six, so read them as a hint.
#
# ## Does a better view of the context help?
#
# "Introduce a dynamic context window, so that the model better understands what came before, and avoids repetition."
# Two tests. Left: the model writes greedily, but at every step it sees only the last few tokens, or everything. Right:
# it sees everything, and gets a longer or shorter piece of Shakespeare to start from.

# %% claim="A12.9"
@torch.inference_mode()
def write_through(window, steps):
    """Greedy texts of a writer who sees only the last few tokens: [rows, steps]. After the same few comes the same."""
    texts, follows = prompts.tolist(), {}
    for _ in range(steps):
        seen = [tuple(text[-window:]) for text in texts]
        if new := sorted(set(seen) - follows.keys()):
            logits = model(torch.tensor(new), logits_to_keep=1).logits[:, -1].float()
            logits[:, END] = -torch.inf
            follows |= dict(zip(new, logits.argmax(-1).tolist(), strict=True))
        texts = [[*text, follows[tokens]] for text, tokens in zip(texts, seen, strict=True)]
    return torch.tensor(texts)[:, prompts.shape[1] :]


windows = [1, 2, 4, 12, "all"]
limited = [write_through(window, SHORT) for window in windows[:-1]]
through = [share(texts) for texts in [*limited, loops[:, :SHORT]]]
LONG = [8, 32, 128]
reading = torch.tensor([tokenizer(plays[at : at + 2_000]).input_ids[-max(LONG) :] for at in places[:4]])
seen = (torch.arange(max(LONG), 0, -1) <= torch.tensor(LONG)[:, None]).repeat_interleave(4, 0)
read_on = write(reading.repeat(len(LONG), 1), [greedy], SHORT, mask=seen)[0][0]
after = [share(texts) for texts in read_on.split(4)]

fig, (left, right) = figure(1, 2, width=10, height=3.4, sharey=True)
for ax, values, names, color in ((left, through, windows, COLORS[0]), (right, after, LONG, COLORS[2])):
    ax.bar_label(ax.bar([str(name) for name in names], [100 * v for v in values], color=color), fmt="%.0f")
left.set(xlabel="tokens that the writer sees", ylabel="phrases that stood\nthere before, %", ylim=(0, 110),
         title="The window")
right.set(xlabel="tokens of Shakespeare to start from", title="The prompt")
best = windows[min(range(len(through)), key=through.__getitem__)]
show(fig, f"Bars of the rate of repetition. By window, from one token to all: "
          f"{', '.join(f'{v:.0%}' for v in through)}. By length of the prompt: {', '.join(f'{v:.0%}' for v in after)}.",
     title=(f"The fewest loops come with a window of {best} tokens; a longer view than that doesn't end them"
            if best != "all" and after[-1] > 0.05 else f"The fewest loops come with a window of {best} tokens"))

# %% [markdown]
# A grain of truth, and it is small. Whoever sees four tokens or fewer does go in circles, since the same few tokens
# always lead on to the same next one. But that is cured by a dozen tokens. From there on more context gives the model
# more to copy from, and a prompt of hundreds of tokens doesn't keep it from looping. Models of today see thousands.
# **Imprecise**, at best: the window is not where today's loops come from. (Six and four texts: a few percent more or
# less are noise.)
#
# So the cure has to act where the loop closes: at the choice of the next token.
#
# ## Cure 1: the repetition penalty
#
# The oldest is from CTRL (Keskar et al. 2019, [arXiv:1909.05858](https://arxiv.org/abs/1909.05858), section 4.1):
# divide the logit of every token that has occurred by $\theta$, about 1.2. One line, and it has two catches. Look at
# the logits first.

# %% tags=["demo"]
with torch.inference_mode():
    scores = model(prompts, logits_to_keep=1).logits[:, -1].float()
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
     title=f"Zero is no fixed place: {negative.min():.0%} to {negative.max():.0%} of the logits are negative, "
           f"and / 1.2 takes {drop.min():.1f} to {drop.max():.1f} from the best")

# %% [markdown]
# * **Negative logits.** $-4 / 1.2 = -3.3$: a division makes a token with a negative logit *likelier*. So everybody
#   multiplies there instead (llama.cpp's comment calls it the "negative logit fix").
# * **No fixed strength.** A softmax doesn't change when the same number is added to all logits; this penalty does.
#   What it takes depends on where the model happens to put its zero.
#
# It asks whether a token occurred, not how often. And in transformers the *prompt* counts as text, too.
#
# ### Exercise 2: the repetition penalty

# %% exercise="repetition_penalty"
def repetition_penalty(logits, ids, penalty):
    """Make every token that occurred less likely: divide its logit, or multiply one below 0.

    logits:  [..., vocab], floating point, any number of leading dimensions; may hold -inf. Not
             changed.
    ids:     int64 [..., length], the text so far of each row, with the leading dimensions of
             logits; length >= 1.
    penalty: a number > 0. Above 1 it penalises, below 1 it rewards by the same formula, 1 does
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
# That all of them break loops is no news: a random generator breaks loops. So let us measure the price as well. Each
# setting writes the six texts, and does 22 small tasks, all settings side by side in one batch:
#
# * **surprise**: nats a token that the model itself finds its text strange by, before any knob;
# * **capitals**: 16 questions for a capital, some of which the model knows;
# * **copies**: six texts with a pattern in them ("1, 2, 3, 1, 2, 3") to be repeated word for word.
#
# The claim first in line: "temperature". Does it break loops? At which price?

# %% claim="A12.13"
from transformers import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

CAPITALS = {"France": "Paris", "Japan": "Tokyo", "Kenya": "Nairobi", "Australia": "Canberra", "Canada": "Ottawa",
            "Egypt": "Cairo", "Norway": "Oslo", "Ghana": "Accra", "Brazil": "Bras", "Turkey": "Ankara",
            "Mongolia": "Ulaan", "Kazakhstan": "Astana", "Vietnam": "Hanoi", "Nepal": "Kathmandu",
            "Laos": "Vientiane", "Chad": "N'Djamena"}
COPIES = ["1, 2, 3, 1, 2, 3", "x = x + 1; y = y + 1; z = z + 1", "red, blue, red, blue, red, blue",
          "The cat sat on the mat. The dog sat on the mat.",
          "for i in a: for j in b: print(i, j)", "A, B, C, A, B, C"]
ASKED = [f"What is the capital of {country}?" for country in CAPITALS]
ASKED += [f"Repeat this text exactly, and nothing else: {text}" for text in COPIES]


def chat(questions):
    """The questions as the model wants them, padded on the left: ids and mask, both [questions, length]."""
    texts = [tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False,
                                           add_generation_prompt=True) for question in questions]
    ids = [tokenizer(text).input_ids for text in texts]
    length = max(map(len, ids))
    padded = torch.tensor([[END] * (length - len(row)) + row for row in ids])
    return padded, torch.tensor([[False] * (length - len(row)) + [True] * len(row) for row in ids])


def said_by(choosers, questions):
    """What each chooser answers, up to the end: a list of tokens for each question."""
    ids, mask = chat(questions)
    replies = write(ids, choosers, 20, mask=mask, may_end=True)[0].tolist()
    return [[reply[: reply.index(END)] if END in reply else reply for reply in of] for of in replies]


def trial(settings):
    """What each setting, a name and a chooser, writes and answers after greedy decoding: name -> a dict of measures."""
    written = write(prompts, list(settings.values()), STEPS)
    choosers, wanted, results = [greedy, *settings.values()], [*CAPITALS.values(), *COPIES], {}
    facts, copies = (said_by(choosers, questions) for questions in (ASKED[: len(CAPITALS)], ASKED[len(CAPITALS) :]))
    texts, nats = (torch.stack([known, *found]) for known, found in zip((loops, loops_nats), written, strict=True))
    for name, its_texts, its_nats, *replies in zip(["greedy", *settings], texts, nats, facts, copies, strict=True):
        said = sum(replies, [])
        words = [tokenizer.decode(tokens) for tokens in said]
        right = [want.lower() in got.lower() for want, got in zip(wanted, words, strict=True)]
        results[name] = {"repeated": 100 * share(its_texts), "surprise": float(its_nats.mean()), "said": said,
                         "words": words, "right": right, "capitals": sum(right[: len(CAPITALS)]),
                         "copies": sum(right[len(CAPITALS) :]), "text": its_texts[1]}
    return results


def drawn_at(temperature, seed=0):
    chance = torch.Generator()

    def choose(ids, logits, start):
        if ids.shape[1] == start:  # whatever was drawn for other texts, these begin alike
            chance.manual_seed(seed)
        return torch.multinomial((logits / temperature).softmax(-1), 1, generator=chance)[:, 0]
    return choose


def processed(processor):
    return lambda ids, logits, start: processor(ids, logits).argmax(-1)


def counted(frequency, presence):
    """OpenAI's penalties. They count what was sampled: the prompt doesn't take part."""
    def choose(ids, logits, start):
        said = ids[:, start:]
        counts = torch.zeros_like(logits).scatter_add(-1, said, torch.ones(said.shape))
        return (logits - frequency * counts - presence * (counts > 0)).argmax(-1)
    return choose


HEATS = [0.5, 0.7, 1.0]
PENALTIES = {"repetition penalty 1.2": processed(RepetitionPenaltyLogitsProcessor(1.2)),
             "presence 1": counted(0.0, 1.0),
             "frequency 1": counted(1.0, 0.0),
             "no 4-gram twice": processed(NoRepeatNGramLogitsProcessor(4))}
results = trial({f"temperature {heat}": drawn_at(heat) for heat in HEATS} | PENALTIES)
by_cure = {name: results[name] for name in PENALTIES}
by_heat = {name: result for name, result in results.items() if name not in PENALTIES}
ground = by_heat["greedy"]
human = 100 * share(passages)

fig, axes = figure(1, 3, width=10.5, height=3.5)
heats = [0.0, *HEATS]
axes[0].plot(heats, [r["repeated"] for r in by_heat.values()], color=COLORS[0], marker="o")
axes[0].axhline(human, color="#777777", linestyle=":")
axes[0].text(0, human + 0.4, "Shakespeare", color="#555555")
axes[0].set(ylabel="four-token phrases that\nstood there before, %", title="Loops")
axes[1].plot(heats, [r["surprise"] for r in by_heat.values()], color=COLORS[1], marker="s")
axes[1].set(ylabel="nats a token", title="Surprise")
for key, color, mark in (("capitals", COLORS[2], "^"), ("copies", COLORS[3], "v")):
    of = len(CAPITALS) if key == "capitals" else len(COPIES)
    axes[2].plot(heats, [100 * r[key] / of for r in by_heat.values()], color=color, marker=mark, label=key)
axes[2].set(ylabel="solved, %", ylim=(-3, 103), title="Tasks")
axes[2].legend()
for ax in axes:
    ax.set(xlabel="temperature (0: greedy)")
solved = {name: sum(r["right"]) for name, r in by_heat.items()}
hot = by_heat["temperature 1.0"]
show(fig, "Three panels against temperature: repeated phrases, the model's surprise at its own text, and the share of "
          "solved tasks.",
     title=f"Temperature 1: repeats {ground['repeated']:.0f} % → {hot['repeated']:.0f} %, surprise "
           f"{ground['surprise']:.1f} → {hot['surprise']:.1f} nats, solved {solved['greedy']} → "
           f"{solved['temperature 1.0']} of {len(ASKED)}")
for name in ("temperature 0.5", "temperature 1.0"):
    print(f"{name}: {tokenizer.decode([*prompts[1], *by_heat[name]['text'][:48]])!r}\n")

# %% [markdown]
# **Correct**: heat breaks loops, if there is enough of it. But it strikes blindly. It makes *every* unlikely token
# likelier, not only those that lead out of the loop, so facts and copies suffer along. (One draw a setting: a task
# more or less is chance.)
#
# ## Penalties: correct, and not free either
#
# "De-duplication strategies": the last item of the list, and the only one that names what engines really do. The same
# trial for your first three cures, as transformers and OpenAI define them. Did you guess right about presence and
# frequency?

# %% claim="A12.14"
table = {"greedy": ground, "temperature 0.7": by_heat["temperature 0.7"], "temperature 1.0": hot} | by_cure
fig, axes = figure(1, 4, width=10.5, height=4.1, sharey=True)
shades = ["#777777"] + [COLORS[1]] * 2 + [COLORS[0]] * len(by_cure)
measures = [("repeated", "repeated phrases, %", "%.0f"), ("surprise", "nats a token", "%.1f"),
            ("capitals", f"known of {len(CAPITALS)}", "%d"), ("copies", f"right of {len(COPIES)}", "%d")]
for ax, (key, unit, form) in zip(axes, measures, strict=True):
    bars = ax.barh(list(table), [r[key] for r in table.values()], color=shades)
    ax.bar_label(bars, fmt=form, padding=3)
    ax.locator_params(axis="x", integer=True, nbins=4)
    ax.set(xlabel=unit, title=key, xlim=(0, 1.25 * max(r[key] for r in table.values())))
axes[0].invert_yaxis()
cured = [name for name, r in by_cure.items() if r["repeated"] < ground["repeated"] / 4]
copied = [r["copies"] for r in by_cure.values()]
show(fig, f"Bars for greedy decoding, two temperatures and {len(by_cure)} penalties: repeated phrases, surprise, "
          "capitals known, texts copied.",
     title=f"{len(cured)} of {len(by_cure)} penalties end three quarters of the loops; "
           f"of {ground['copies']} copies they leave {', '.join(map(str, copied))}")
first = len(CAPITALS)
for name in ("greedy", "repetition penalty 1.2", "no 4-gram twice"):
    print(f"{name}: asked for {COPIES[0]!r}, said {table[name]['words'][first][:70]!r}")

# %% [markdown]
# **Correct**, then. They act on what was said and on nothing else, so they cost less surprise than the temperature
# that breaks as many loops, and the facts stay. But whoever forbids repetition forbids *all* of it, also where
# repeating is the task: tables, code, quotations, a name. (Presence and frequency harm the copies less because they
# count only what was written, not the prompt.) And presence is a fixed toll: once a loop runs, its next token is
# several nats ahead, and pays it. Frequency charges again each time.
#
# De-duplication can begin earlier, too: Lee et al. (2021, [arXiv:2107.06499](https://arxiv.org/abs/2107.06499))
# remove duplicates from the *training data*. And training itself can punish repetition: unlikelihood (Welleck et
# al.), DITTO (Xu et al.).
#
# ## Is a hallucination a repetition?
#
# "Meaningless answers (hallucinations)" stand in the list of the problem's *symptoms*. If they were, false answers
# would repeat, and what stops repetition would stop them. The capitals tell: every answer is right or wrong, and says
# some three-token phrase twice or doesn't.

# %% claim="A12.2"
def judged(result):
    """Two lists for the answers on capitals: is it false, does it say a three-token phrase twice."""
    false = [not right for right in result["right"][: len(CAPITALS)]]
    return false, [any(stale(torch.tensor(said), 3)) for said in result["said"][: len(CAPITALS)]]


false, again = judged(ground)
cells = torch.tensor([[sum(f == wrong and a == twice for f, a in zip(false, again, strict=True))
                       for twice in (False, True)] for wrong in (False, True)])
banned_false, _ = judged(by_cure["no 4-gram twice"])
fig, (left, right) = figure(1, 2, width=10, height=3.2)
left.imshow(cells, cmap=SEQUENTIAL, vmin=0, vmax=len(CAPITALS))
for row in range(2):
    for column in range(2):
        dim = cells[row, column] < len(CAPITALS) / 2
        left.text(column, row, str(int(cells[row, column])), ha="center", va="center", fontsize=15,
                  color="white" if dim else "black")
left.set_xticks(range(2), ["says nothing twice", "repeats itself"])
left.set_yticks(range(2), ["right", "false"])
left.set_title(f"{len(CAPITALS)} greedy answers")
bars = right.bar(["greedy", "no 4-gram twice"], [sum(false), sum(banned_false)], color=COLORS[1::-1], width=0.5)
right.bar_label(bars)
right.set(ylabel="false answers", ylim=(0, len(CAPITALS)), title="With repetition forbidden")
apart = cells[1, 0] > cells[1, 1] and sum(banned_false) > sum(false) / 2
show(fig, f"Left: a table of right and false answers, with and without repetition: {cells.tolist()}. Right: false "
          f"answers without and with forbidden repetition, {sum(false)} and {sum(banned_false)}.",
     title=(f"{int(cells[1, 0])} of {sum(false)} false answers repeat nothing, and {sum(banned_false)} are false "
            "where repetition is forbidden" if apart else
            f"{int(cells[1, 1])} of {sum(false)} false answers repeat themselves"))
example = false.index(True)
print(f"{ASKED[example]} {ground['words'][example]!r}")

# %% [markdown]
# **Wrong**: two different failures. A hallucination is false, a loop is stale. The false answers are short, fluent and
# say nothing twice, and forbidding repetition doesn't mend them. The other way round a loop may repeat something true.
# (Hallucinations have a question of their own, A07.)
#
# ## Payoff: your code inside generate()
#
# `model.generate` takes a list of **logits processors**: at each step it hands them the ids so far and the logits. So
# your functions fit in as they are. First, are they what the library has? Greedy texts must agree token by token.

# %% tags=["payoff"]
from transformers import LogitsProcessor


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
    logits, context = out.logits[:, -1].float(), out.hidden_states[-1].float()
    for _ in range(steps):
        logits[:, END] = -torch.inf
        candidates = logits.topk(k).indices
        cache.batch_repeat_interleave(k)
        out = model(candidates.reshape(-1, 1), past_key_values=cache, output_hidden_states=True)
        states = out.hidden_states[-1].float().reshape(len(rows), k, -1)
        token = contrastive_search_step(logits, candidates, states, context, alpha)
        won = (candidates == token[:, None]).int().argmax(-1)
        cache.batch_select_indices(rows * k + won)
        logits = out.logits[rows * k + won, -1].float()
        context = torch.cat([context, states[rows, won, None]], 1)
        chosen.append(token)
    return torch.stack(chosen, 1)


mine["contrastive, alpha 0.6"] = search(prompts, SHORT)
every = {"greedy": loops[:, :SHORT]} | mine


@torch.inference_mode()
def surprise(texts):
    """Nats a token of each text, under the model itself."""
    scores = model(torch.cat([prompts, texts], 1)).logits[:, start - 1 : -1].float()
    return F.cross_entropy(scores.mT, texts, reduction="none").mean(1)


fig, axes = figure(1, 3, width=10.5, height=3.4, sharey=True)
distinct = {name: 1 - repetition_rate(texts, 1) for name, texts in every.items()}
columns = {"repeated phrases, %": {name: 100 * repetition_rate(texts) for name, texts in every.items()},
           "distinct tokens, %": {name: 100 * values for name, values in distinct.items()},
           "nats a token": {name: surprise(texts) for name, texts in every.items()}}
for ax, (label, values) in zip(axes, columns.items(), strict=True):
    means = [float(value.mean()) for value in values.values()]
    ax.barh(list(every), means, color=["#777777"] + [COLORS[0]] * len(mine))
    for row, value in enumerate(values.values()):
        ax.plot(value, [row] * len(value), "o", color="black", markersize=3, alpha=0.6)
    ax.set(xlabel=label, xlim=(0, 1.1 * max(float(value.max()) for value in values.values())))
axes[0].invert_yaxis()
rates = {name: repetition_rate(texts).mean() for name, texts in every.items()}
show(fig, "Bars for greedy decoding and your four cures, with a dot for each of the six texts: repeated four-token "
          "phrases, distinct tokens, surprise.",
     title=f"Repeated phrases: greedy {rates['greedy']:.0%}, with your four cures at most "
           f"{max(rate for name, rate in rates.items() if name != 'greedy'):.0%}")
for name, texts in every.items():
    print(f"{name}: {tokenizer.decode([*prompts[1], *texts[1]])!r}\n")

# %% [markdown]
# ## What to remember
#
# * Measure it: the share of n-grams that stood there before; $n = 4$ tells loops from style.
# * The loop feeds itself. The model *looks up* the earlier text and copies it: too good a memory, not too short a one.
# * The repetition penalty divides positive logits and multiplies negative ones, once a token; frequency subtracts by
#   count, presence once; no-repeat n-gram forbids; contrastive search compares hidden states.
# * Every cure has a price. Where the task is to repeat, the penalty is the mistake.
# * A loop is not a hallucination.
#
# **Sources.** Holtzman et al. 2020, [arXiv:1904.09751](https://arxiv.org/abs/1904.09751) (degeneration); Welleck et
# al. 2020, [arXiv:1908.04319](https://arxiv.org/abs/1908.04319) (seq-rep-n, unlikelihood training); Xu et al. 2022,
# [arXiv:2206.02369](https://arxiv.org/abs/2206.02369) (self-reinforcement, DITTO); Olsson et al. 2022,
# [arXiv:2209.11895](https://arxiv.org/abs/2209.11895) (induction heads); Keskar et al. 2019,
# [arXiv:1909.05858](https://arxiv.org/abs/1909.05858) (repetition penalty); Paulus et al. 2017,
# [arXiv:1705.04304](https://arxiv.org/abs/1705.04304) (no trigram twice); Su et al. 2022,
# [arXiv:2202.06417](https://arxiv.org/abs/2202.06417) (contrastive search); OpenAI's API reference (frequency and
# presence); Lee et al. 2021, [arXiv:2107.06499](https://arxiv.org/abs/2107.06499) (training data).
