# ---
# jupyter:
#   course:
#     title: "Hallucination: false, fluent, and how to notice"
#     exercises: applications.hallucination
#     questions: [A07, A01]
#     needs: [02_applications/02_sampling, 02_applications/05_rag]
# ---

# %% [markdown]
# # Hallucination
#
# Ask a language model for the capital of a country that doesn't exist, and it may well tell you. It won't blush.
#
# The interview question: **what are hallucinations of large models, and how are they reduced?** The usual notes list
# three kinds, three causes, and one cure: narrow down what the model may answer. Here you put each of these to a test,
# on a real model of 135 million parameters. And you build what the notes leave out: ways to *notice*.

# %% tags=["setup"]
import re

import torch

from autograde import check
from labkit import COLORS, evidence, figure, interval, minilm, show, smollm, verdict

GREY = "#808080"

# %% [markdown]
# ## Three countries
#
# Two of them exist. Can you hear from the tone which one doesn't? (It is taken from those for which the model named a
# city. How often it says instead that such a place isn't real, you'll see below.)

# %% tags=["demo"]
asked = evidence("A01.7")
answered = [i for i, false in enumerate(asked.each("invented", "false")[0]) if false]
PICKED = {"well known": 0, "little known": 0, "invented": answered[2]}  # of 40 each; you'll see them all below
for kind, at in PICKED.items():
    print(asked.each(kind, "said")[0][at])

# %% [markdown]
# ## Exercise 1: how undecided is it?
#
# If the words don't show it, do the numbers? Before every token the model has a distribution $p$ over its whole
# vocabulary. Its **entropy** is 0 if one token has all of it, and $\log V$ if all $V$ are alike:
#
# $$H(p) = -\sum_{v=1}^{V} p_v \log p_v$$


# %% exercise="token_entropy"
def token_entropy(logits):
    """How undecided the model is about each next token: an entropy, in nats.

    logits: floating-point tensor [..., vocab], any number of leading dimensions, also none.
            -inf stands for an impossible token, which adds 0; at least one token is possible.
    Returns a tensor [...] of the dtype of logits: minus the sum of p log p over the last
    dimension, with p = softmax(logits) and the natural logarithm.
    Differentiable: gradients flow to logits. An impossible token gets the gradient 0, not NaN.
    """
    ### BEGIN SOLUTION
    logs = logits.double().log_softmax(-1)
    terms = logs.exp() * logs.masked_fill(logs == -torch.inf, 0)
    return -terms.sum(-1).to(logits.dtype)
    ### END SOLUTION


# %% check="token_entropy"
check(token_entropy)

# %% [markdown]
# Now on the real model: one sentence for each of the three, begun by us ("The capital of … is") and ended by the model,
# and your number at every token. It is the entropy *before* the token is written.

# %% tags=["payoff"]
from experiments.knowing import GROUPS, begun

model, tokenizer = smollm()
bars = {}
for kind, at in PICKED.items():
    land, ending = GROUPS[kind][at][0], " " + asked.each(kind, "names")[0][at]
    start = begun(land).removesuffix(f"The capital of {land} is")
    before = len(tokenizer(start).input_ids)
    ids = tokenizer(begun(land) + ending, return_tensors="pt").input_ids
    with torch.inference_mode():
        states = model.model(ids).last_hidden_state[0, before - 1 : -1]
        nats = token_entropy(model.lm_head(states))
    names = [tokenizer.decode([i]).replace(" ", "␣") for i in ids[0, before:].tolist()]
    bars[land] = nats, names, len(tokenizer(begun(land)).input_ids) - before
fig, axes = figure(1, 3, width=10.5, height=3.1, sharey=True)
told = []
for ax, (land, (nats, names, first)) in zip(axes, bars.items(), strict=True):
    ax.bar(range(len(nats)), nats, color=[COLORS[1] if i >= first else COLORS[0] for i in range(len(nats))])
    ax.set_xticks(range(len(nats)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=9)
    ax.set_title(land, fontsize=11)
    told.append(f"{land} {float(nats[first]):.1f}")
axes[0].set_ylabel("entropy, nats")
show(fig, alt="Bars: entropy before each token of three answers; orange where the model goes on. At its first token: "
     + ", ".join(told) + " nats.", title="Entropy where the model goes on (orange), in nats: " + ", ".join(told))

# %% [markdown]
# A token's entropy mixes two things: not knowing *what* to say, and not caring *how* to say it ("the city of", "known
# as"). The next two exercises take them apart.
#
# ## Exercise 2: ask it several times
#
# Draw several answers at temperature 1 and let them vote. This is **self-consistency** (Wang et al. 2022). The hope:
# what a model knows it says again; what it invents, it invents anew.
#
# $$\hat a = \arg\max_a \sum_i w_i\, [a_i = a], \qquad \text{share} = \frac{\sum_i w_i\, [a_i = \hat a]}{\sum_i w_i}$$
#
# (If you draw with `generate(do_sample=True)` of transformers: it cuts to the 50 likeliest tokens unless you say
# `top_k=0`. Here nothing is cut.)


# %% exercise="self_consistency"
def self_consistency(answers, weights=None):
    """The answer that most of the samples agree on, and how many do.

    answers: list of str, or None for a sample in which no answer was found; it may be empty
    weights: list of as many floats, each at least 0: a sample's number of votes; None: 1 each
    Two answers are one if they are equal after casefold() and with white space folded: none at
    the ends, one space wherever there is some inside. Nothing else is folded: punctuation
    stays.

    Returns (answer, share). answer: the one with the greatest sum of weights, as it was written
    where it came first; of equals the one that came first. share: float, its weights divided by
    the weights of *all* samples, those without an answer too. (None, 0.0) if no sample has an
    answer, or if all weights are 0.

    Wang et al. 2022, arXiv:2203.11171.
    """
    ### BEGIN SOLUTION
    weights = [1.0] * len(answers) if weights is None else weights
    votes, first = {}, {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            key = " ".join(answer.casefold().split())
            votes[key] = votes.get(key, 0.0) + weight
            first.setdefault(key, answer)
    if not votes or sum(weights) == 0:
        return None, 0.0
    best = max(votes, key=votes.get)
    return first[best], votes[best] / sum(weights)
    ### END SOLUTION


# %% check="self_consistency"
check(self_consistency)

# %% [markdown]
# Eight answers to each of 120 questions have been drawn before. You count the votes. One dot is a country.

# %% tags=["payoff"]
from experiments.knowing import GROUPS, right

votes = {group: [self_consistency([text or None for text in texts]) for texts in asked.each(group, "samples")[0]]
         for group in GROUPS}
shares = {group: [agree for _, agree in each] for group, each in votes.items()}
hits = {group: [right(item, answer or "") for item, (answer, _) in zip(GROUPS[group], each, strict=True)]
        for group, each in votes.items()}
fig, ax = figure(width=9, height=3.4)
for row, group in enumerate(GROUPS):
    for i, (agree, hit) in enumerate(zip(shares[group], hits[group], strict=True)):
        aside, up = 0.008 * (i % 5 - 2), 0.66 * (i * 0.618 % 1 - 0.5)
        ax.plot(agree + aside, row + up, "o" if hit else "x", color=COLORS[0] if hit else COLORS[1], markersize=5)
ax.set_yticks(range(3), list(GROUPS))
ax.set(xlabel="share of eight samples that agree, spread a little (dot: right, cross: not)", ylim=(2.5, -0.5))
ax.set_xlim(0, 1.05)
means = {group: sum(each) / len(each) for group, each in shares.items()}
show(fig, alt="A row of marks for each group of countries along the share of agreeing samples. Means: "
     + ", ".join(f"{group} {mean:.2f}" for group, mean in means.items()) + ".",
     title="Mean agreement: " + ", ".join(f"{group} {mean:.0%}" for group, mean in means.items()))

# %% [markdown]
# ## "An all-knowing sage"
#
# So the notes call the pretrained model elsewhere. You have seen three answers; here are 120, asked once each without
# drawing. An answer is *right* if it names the capital; else *withheld* if it says that it doesn't know, or that the
# place isn't real ("a fictional city", even if a name follows); else *false* if it states something. (A few do none of
# these. And the judge is strict: "Ashgabad" for Ashgabat is false, and so is "Djibouti" for Djibouti City, which moves
# the second bar by a few points.) Intervals are over the countries.
#
# **Before the run:** *correct* if in both groups of real countries surely more than 95 % are right (95 % intervals).
# *Wrong* if of the little-known ones surely fewer than half are right and surely more than half are false: it doesn't
# know, and speaks. Else *imprecise*.

# %% claim="A01.7"
from experiments.knowing import share

JUDGED = {"right": (COLORS[0], ""), "withheld": (GREY, ""), "false": (COLORS[1], "//")}


def parts(ax, rows, styles):
    """A bar a row, made of parts. rows: a name and a list of percentages each; styles: kind -> (color, hatch)."""
    for row, sizes in enumerate(rows.values()):
        start = 0.0
        for size, (kind, (color, hatch)) in zip(sizes, styles.items(), strict=True):
            ax.barh(row, size, left=start, color=color, hatch=hatch, edgecolor="white", label=None if row else kind)
            if size >= 5:
                ax.text(start + size / 2, row, f"{size:.0f}", ha="center", va="center", color="white", weight="bold",
                        bbox={"facecolor": color, "edgecolor": "none", "pad": 1.5})
            start += size
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set(xlabel="answers, %", ylim=(len(rows) - 0.5, -0.5), xlim=(0, 100))
    ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9)


groups = ["well known", "little known", "invented"]
fig, ax = figure(width=9, height=2.8)
parts(ax, {group: [100 * share(asked, group, kind).mean for kind in JUDGED] for group in groups}, JUDGED)
false_shares = {group: share(asked, group, "false") for group in groups}
show(fig, alt="Bars of right, withheld and false answers for three groups of countries. False: "
     + ", ".join(f"{group} {each.mean:.0%}" for group, each in false_shares.items()) + ".",
     title="False answers: " + ", ".join(f"{group} {each.mean:.0%}" for group, each in false_shares.items()))
known, little = (share(asked, group, "right") for group in groups[:2])
if known.above(0.95) and little.above(0.95):
    word = "correct"
elif little.below(0.5) and false_shares["little known"].above(0.5):
    word = "wrong"
else:
    word = "imprecise"
verdict("A01.7", word,
        f"Right: {known.mean:.0%} of the well-known capitals, {little.mean:.0%} of the little-known ones. False: "
        f"{false_shares['little known'].mean:.0%} of the little-known ones, {false_shares['invented'].mean:.0%} of "
        "those of countries that don't exist.")

# %% [markdown]
# A text that is likely and a text that is true are two things. Training asks for the first.
#
# ## Exercise 3: the entropy of what it means
#
# "Paris", "Paris, France" and "the city of Paris" are three texts and one answer. **Semantic entropy** (Kuhn et al.
# 2023; Farquhar et al. 2024) first puts together what means the same: two answers are one if each *entails* the other.
# The probabilities of a group add up, and the entropy is that of the groups:
#
# $$p(C) = \frac{\sum_{i \in C} e^{\ell_i}}{\sum_i e^{\ell_i}}, \qquad H = -\sum_C p(C) \log p(C)$$
#
# Whether one text entails another is a question for another model. Here its answers are given.


# %% exercise="semantic_entropy"
def semantic_entropy(entails, logprobs=None):
    """How undecided the model is about what it means, over all wordings.

    entails:  bool tensor [n, n], n >= 1: entails[i, j] says that answer i implies answer j.
              What stands on the diagonal doesn't matter.
    logprobs: floating-point tensor [n]: the log-probability of each answer, which may be far
              below the point where exp gives 0; or None: all answers count the same
    Answers are put into groups in their order: answer i joins the first group whose *first*
    member f it agrees with both ways (entails[i, f] and entails[f, i]); if there is none it
    opens one. A group's probability is the sum of its answers', normalized over all n answers.

    Returns (entropy, groups). entropy: tensor without dimensions, of logprobs' dtype (float32
    for None): that of the groups' probabilities, in nats. groups: int64 tensor [n], numbered
    from 0 in the order in which they open. No gradient is needed.

    Kuhn et al. 2023, arXiv:2302.09664.
    """
    ### BEGIN SOLUTION
    firsts, groups = [], []
    for i in range(len(entails)):
        joins = (c for c, f in enumerate(firsts) if entails[i, f] and entails[f, i])
        groups.append(next(joins, len(firsts)))
        if groups[-1] == len(firsts):
            firsts.append(i)
    groups = torch.tensor(groups)
    logs = torch.zeros(len(groups)) if logprobs is None else logprobs
    mass = torch.stack([logs[groups == c].logsumexp(0) for c in range(len(firsts))])
    shares = mass.log_softmax(0)
    return -(shares.exp() * shares).sum(), groups
    ### END SOLUTION


# %% check="semantic_entropy"
check(semantic_entropy)

# %% [markdown]
# Which of the three numbers knows best when an answer is false? The question is one of ranking: draw a right and a
# wrong answer; how often is the wrong one the more uncertain? That is the **area under the ROC curve**, and 50 % is
# a coin. As a stand-in for entailment two answers count as one if the sentence encoder finds them close: rough, and
# the same both ways.

# %% tags=["payoff"]
from sklearn.metrics import roc_auc_score

encode = minilm()
REAL = ["well known", "little known"]
samples = [texts for group in REAL for texts in asked.each(group, "samples")[0]]
wrong = [not hit for group in REAL for hit in hits[group]]


different = sorted({text or "nothing" for texts in samples for text in texts})
vector_of = dict(zip(different, encode(different), strict=True))


def close(texts, at_least=0.8):
    """Which answers the encoder finds close to each other, as an entailment that goes both ways."""
    vectors = torch.stack([vector_of[text or "nothing"] for text in texts])
    return vectors @ vectors.T >= at_least


meaning = [float(semantic_entropy(close(texts))[0]) for texts in samples]
signals = {
    "entropy of the first token": [x for group in REAL for x in asked.each(group, "entropy")[0]],
    "1 − share of the vote": [1 - x for group in REAL for x in shares[group]],
    "semantic entropy": meaning,
}
dice = torch.Generator().manual_seed(0)
labels = torch.tensor(wrong)
fig, ax = figure(width=9, height=2.6)
areas = {}
for row, (name, signal) in enumerate(signals.items()):
    scores = torch.tensor(signal)
    areas[name] = roc_auc_score(labels, scores)
    drawn = [torch.randint(len(labels), (len(labels),), generator=dice) for _ in range(300)]
    again = [float(roc_auc_score(labels[i], scores[i])) for i in drawn if 0 < labels[i].sum() < len(i)]
    low, high = torch.tensor(again).quantile(torch.tensor([0.025, 0.975])).tolist()
    ax.plot([100 * low, 100 * high], [row, row], color=COLORS[0], linewidth=7, alpha=0.3)
    ax.plot(100 * areas[name], row, "o", color=COLORS[0])
ax.axvline(50, color="#444444", linestyle=":")
ax.set_yticks(range(3), list(signals))
ax.set(xlabel="pairs that are ranked rightly (area under the ROC curve), %; bands: bootstrap, 95 %", ylim=(2.5, -0.5))
told = ", ".join(f"{name} {100 * area:.0f} %" for name, area in areas.items())
show(fig, alt=f"Three rows, a dot and a band each: how often the wrong answer is the more uncertain one. {told}.",
     title=f"Ranked rightly: {told}")

# %% [markdown]
# All of these measure whether the model *agrees with itself*. A misconception that it learned firmly passes each of
# them. (Where bands overlap, these 80 questions needn't tell which number is better. And much of the ranking may be no
# more than telling well-known countries from little-known ones: what ranks well here has to be tried on *your*
# questions.)
#
# ## Exercise 4: is it as sure as it is right?
#
# To rank is one thing. To say "90 %" and be right nine times in ten is another: **calibration**. Put the answers into
# bins $B$ by confidence, and compare in each the share of right answers with the mean confidence (Guo et al. 2017):
#
# $$\text{ECE} = \sum_{B} \frac{|B|}{n}\, \bigl|\,\text{acc}(B) - \text{conf}(B)\,\bigr|$$


# %% exercise="expected_calibration_error"
def expected_calibration_error(confidence, correct, bins=10, equal_mass=False):
    """How far confidence is from accuracy, on average over bins of confidence.

    confidence: float32 or float64 tensor [n] of values from 0 to 1, n >= 1
    correct:    bool tensor [n]: whether each answer is right
    bins:       how many, at least 1
    equal_mass: False: edges i / bins for i = 0 ... bins. True: edges are the i / bins quantiles
                of confidence (linear interpolation, as torch.quantile has it by default).
    A value on an inner edge belongs to the bin below it; what isn't above edge 1 is in the
    first bin, what is above edge bins - 1 in the last. Empty bins are left out.

    Returns a float (or a tensor without dimensions): the sum over bins of
    (answers in it / n) * |share of right ones in it - mean confidence in it|. No gradient is
    needed.

    Guo et al. 2017, arXiv:1706.04599; bins as scikit-learn's calibration_curve has them.
    """
    ### BEGIN SOLUTION
    sure, good = confidence.double(), correct.double()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    if equal_mass:
        edges = sure.quantile(edges)
    which = torch.bucketize(sure, edges[1:-1].contiguous())
    gaps = torch.zeros(bins, dtype=torch.float64).index_add(0, which, good - sure)
    return float(gaps.abs().sum() / len(sure))
    ### END SOLUTION


# %% check="expected_calibration_error"
check(expected_calibration_error)

# %% [markdown]
# Left, a **reliability diagram** of two confidences of our model: the vote's share, and the probability of the first
# token. On the diagonal it is as right as it is sure. Right, a warning: a made-up model that is *perfectly*
# calibrated, measured with your function. Its true error is 0. But a mean of absolute values can't be negative: the
# noise of every bin adds up. That is the **binning bias**.

# %% tags=["payoff"]
good = ~labels
confidences = {
    "share of the vote": 1 - torch.tensor(signals["1 − share of the vote"]),
    "first token": torch.tensor([x for group in REAL for x in asked.each(group, "surest")[0]]),
}
fig, (left, right_ax) = figure(1, 2, width=10.5, height=3.6)
left.plot([0, 1], [0, 1], color="#444444", linestyle=":")
errors = {}
for (name, sure), color, mark in zip(confidences.items(), COLORS, "os", strict=False):
    errors[name] = expected_calibration_error(sure, good, 5)
    which = torch.bucketize(sure, torch.linspace(0, 1, 6)[1:-1].contiguous())
    bins = [which == b for b in range(5) if bool((which == b).any())]
    left.plot([float(sure[b].mean()) for b in bins], [float(good[b].float().mean()) for b in bins], color=color,
              marker=mark, label=f"{name}: ECE {errors[name]:.2f}")
left.set(xlabel="confidence", ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1.02))
left.legend(fontsize=9)
sizes = [30, 80, 200, 500, 2000]
bias = {}
for bins, color, mark in ((5, COLORS[0], "o"), (15, COLORS[1], "s"), (50, COLORS[2], "^")):
    bias[bins] = []
    for n in sizes:
        draws = []
        for _ in range(30):
            sure = torch.rand(n, generator=dice)
            draws.append(expected_calibration_error(sure, torch.rand(n, generator=dice) < sure, bins))
        bias[bins].append(sum(draws) / len(draws))
    right_ax.plot(sizes, bias[bins], color=color, marker=mark, label=f"{bins} bins")
right_ax.set(xscale="log", xlabel="answers", ylabel="measured ECE (true: 0)", ylim=(0, None))
right_ax.set_xticks(sizes, [f"{n:,}" for n in sizes])
right_ax.minorticks_off()
right_ax.legend()
show(fig, alt="Left: a reliability diagram of two confidences, "
     + ", ".join(f"{name} with an ECE of {e:.2f}" for name, e in errors.items())
     + f". Right: the measured ECE of a perfect model, {bias[15][1]:.2f} with 80 answers and 15 bins, "
     f"{bias[15][-1]:.2f} with 2,000.",
     title=f"A perfect model measured on 80 answers in 15 bins: ECE {bias[15][1]:.2f}; on 2,000: {bias[15][-1]:.2f}")

# %% [markdown]
# So an ECE without its number of answers and bins says little. Report the ECE that a perfect model would have on as
# many answers beside it, as the right panel does.
#
# ## Exercise 5: know when to say nothing
#
# A number is worth what you do with it: answer only where confidence reaches a threshold $t$. **Coverage** is the share
# of questions that are answered, **risk** the share of these answers that are wrong. Every threshold gives a point
# (Geifman and El-Yaniv 2017).


# %% exercise="abstain"
def abstain(confidence, correct):
    """What share of the answers is wrong, if only those it is sure of are given.

    confidence: float32 or float64 tensor [n], n >= 1, of any size and sign; values may be equal
    correct:    bool tensor [n]: whether each answer would be right
    A threshold t answers every question with confidence >= t, and withholds the others. The
    thresholds that matter are the distinct values of confidence.

    Returns (threshold, coverage, risk), three tensors [distinct values] of confidence's dtype,
    from the highest threshold to the lowest: t itself; the share of the n questions that are
    answered; the share of the answered ones that are wrong. No gradient is needed.

    Geifman and El-Yaniv 2017, arXiv:1705.08500.
    """
    ### BEGIN SOLUTION
    threshold = confidence.unique().flip(0)
    answered = confidence >= threshold[:, None]
    count = answered.sum(1)
    wrong = (answered & ~correct).sum(1)
    dtype = confidence.dtype
    return threshold, (count / len(confidence)).to(dtype), (wrong / count).to(dtype)
    ### END SOLUTION


# %% check="abstain"
check(abstain)

# %% [markdown]
# What is the best threshold? It depends on what a wrong answer costs. Where a right answer scores 1, silence 0 and a
# wrong one $-c$, answering is worth it if $p - c\,(1 - p) > 0$, so if
#
# $$p > \frac{c}{1 + c}.$$
#
# With $c = 0$, as in most benchmarks, *always*: then the best guesser wins, and this is one reason why models guess
# (Kalai et al. 2025). Left your curve for the 80 real countries, with the questions in the order of three
# confidences; right the score of every threshold, for three prices of an error.

# %% tags=["payoff"]
confidences["meaning (− semantic entropy)"] = -torch.tensor(meaning)
fig, (left, right_ax) = figure(1, 2, width=10.5, height=3.5)
for (name, sure), color, mark in zip(confidences.items(), COLORS, "os^", strict=False):
    _, coverage, risk = abstain(sure, good)
    left.plot(100 * coverage, 100 * risk, color=color, marker=mark, markersize=4, label=name)
left.axhline(100 * float(labels.float().mean()), color="#444444", linestyle=":", label="answers everything")
left.set(xlabel="coverage: questions answered, %", ylabel="risk: wrong answers among them, %", ylim=(0, 85))
left.legend(fontsize=9, loc="upper left")
threshold, coverage, risk = abstain(confidences["first token"], good)
best = {}
for cost, color, style in ((0, COLORS[0], "-"), (1, COLORS[1], "--"), (4, COLORS[3], "-.")):
    score = coverage * (1 - risk) - cost * coverage * risk
    best[cost] = float(coverage[score >= score.max() - 1e-6][-1])  # of equal scores the one that answers most
    right_ax.plot(100 * coverage, score, color=color, linestyle=style, label=f"an error costs {cost}")
    right_ax.plot(100 * best[cost], score.max(), "o", color=color)
right_ax.axhline(0, color="#444444", linewidth=0.8)
right_ax.set(xlabel="coverage, %", ylabel="mean score a question", ylim=(-1, None))
right_ax.legend(fontsize=9, loc="lower left")
told = ", ".join(f"cost {cost}: {100 * cover:.0f} %" for cost, cover in best.items())
show(fig, alt="Left: risk against coverage for three confidences. Right: the mean score against coverage for three "
     f"costs of an error; the best coverage is at {told}.", title=f"Best coverage by the cost of an error: {told}")

# %% [markdown]
# (The threshold has to be chosen on other questions than those that are reported. Here the curve itself is the point.)
#
# ## Three kinds?
#
# The notes: *absurd or against the facts*, *contradicting itself*, *beside the question*. Does that leave something
# out? We give the model a text on each of the 40 well-known countries and ask what the capital is **according to the
# text**. One text is altered ("Peru has moved its government. Today the capital of Peru is Kalvora."), one is silent
# ("Peru is a country. Many people in Peru work in trade, and most of them like music."). To both, "Lima" is true in the
# world. It contradicts no fact of the world, nor itself, and it answers the question. It only isn't what the text says.
# (Answers end after 14 tokens, and are judged by the names in them. What might be taken back later isn't seen.)
#
# **Before the run:** the list of three is *imprecise* if such answers are surely more than 5 % with one of the two
# texts; *correct* (complete, as far as this goes) if they are surely fewer with both; else *unverifiable*.

# %% claim="A07.1"
from experiments.A07_1 import SEEN

unfaithful = evidence("A07.1")
arms = {"a text that agrees": "agrees with the world", "an altered text": "is altered",
        "a text that is silent": "is silent"}
fig, ax = figure(width=9, height=2.6)
told = {"what the text says": (COLORS[0], ""), "what is true, but not in the text": (COLORS[1], "//"),
        "else": (GREY, "")}
rows = {f"the text {name}": [100 * share(unfaithful, arm, kind).mean for kind in ("text", "unfaithful")]
        for arm, name in arms.items()}
parts(ax, {name: [*sizes, 100 - sum(sizes)] for name, sizes in rows.items()}, told)
against, beyond = (share(unfaithful, arm, "unfaithful") for arm in ("an altered text", "a text that is silent"))
show(fig, alt=f"Bars of 40 answers each to three kinds of text. True in the world, but not in the text: "
     f"{against.mean:.0%} where it is altered, {beyond.mean:.0%} where it is silent.",
     title=f"True, and not in the text: {against.mean:.0%} if the text is altered, {beyond.mean:.0%} if it is silent")
print(unfaithful.again())
if against.above(SEEN) or beyond.above(SEEN):
    word = "imprecise"
else:
    word = "correct" if against.below(SEEN) and beyond.below(SEEN) else "unverifiable"
verdict("A07.1", word,
        f"What is true in the world and not what the text says: {against.mean:.0%} of the answers where the text is "
        f"altered, {beyond.mean:.0%} where it is silent ({100 * max(beyond.low, 0):.0f} to "
        f"{100 * min(beyond.high, 1):.0f} %, 95 % interval).")

# %% [markdown]
# The usual taxonomy has two axes instead. **Factuality**: against the world. **Faithfulness**: against the source, the
# instruction, or itself; *intrinsic* if the source says otherwise, *extrinsic* if it says nothing of the matter (Maynez
# et al. 2020; Huang et al. 2023). In a system with retrieval it is the second that you can check.
#
# ## Cause 1: "the data are wrong"
#
# A world small enough to own: 180 people with first and last names, and for each one of 40 birthplaces, drawn by
# chance. The "corpus" states each birthplace ten times; the model is a small network that reads a name and predicts
# the place. Then some statements are made false. Either each error is another one (carelessness), or they all say the
# same (a bias). We ask in two ways: the likeliest answer, and one drawn at temperature 1.
#
# **Before the run:** that a model "may learn and amplify" what is false in its data is *correct* if at some share of
# false statements the likeliest answers are surely false *more* often than that, and surely below 5 % where all are
# true; *imprecise* if false answers surely grow, but never above the share in the data; *wrong* if they don't grow.

# %% claim="A07.2"
import torch.nn.functional as F
from torch import nn

NAMES, PLACES, SEEDS = 30, 40, 3  # first and last names; place number PLACES means "I don't know"


def taught(people, said, seed, steps=150, batch=256, rate=5e-3):
    """A network that has read the statements `said` about `people`: it reads two names and predicts a place."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.EmbeddingBag(2 * NAMES, 64, mode="sum"), nn.Linear(64, 128), nn.ReLU(),
                        nn.Linear(128, PLACES + 1))
    optimizer = torch.optim.Adam(net.parameters(), rate)
    order = torch.cat([torch.randperm(len(said)) for _ in range(1 + steps * batch // len(said))])
    for i in order[: steps * batch].split(batch):
        optimizer.zero_grad()
        F.cross_entropy(net(people[i]), said[i]).backward()
        optimizer.step()
    return net.requires_grad_(False)


def drawn_people(count, dice):
    """People who all differ, as pairs of name numbers, and their birthplaces."""
    pairs = torch.randperm(NAMES * NAMES, generator=dice)[:count]
    return torch.stack([pairs // NAMES, NAMES + pairs % NAMES], 1), torch.randint(PLACES, (count,), generator=dice)


FALSE = [0.0, 0.2, 0.4, 0.6, 0.8]
false_answers = {}
for seed in range(SEEDS):
    dice = torch.Generator().manual_seed(seed)
    people, truth = drawn_people(180, dice)
    biased = (truth + torch.randint(1, PLACES, truth.shape, generator=dice)) % PLACES
    for kind in ("errors that differ", "one error, again and again"):
        for part in FALSE:
            said = truth.repeat(10, 1)
            lies = round(10 * part)
            slips = (truth + torch.randint(1, PLACES, (lies, len(truth)), generator=dice)) % PLACES
            said[:lies] = biased if kind.startswith("one") else slips
            logits = taught(people.repeat(10, 1), said.flatten(), seed)(people)[:, :PLACES]
            guessed = {"likeliest": logits.argmax(1), "drawn": logits.softmax(1).multinomial(1)[:, 0]}
            for way, answer in guessed.items():
                rate = float((answer != truth).float().mean())
                false_answers.setdefault((kind, way), {}).setdefault(part, []).append(rate)

fig, axes = figure(1, 2, width=10, height=3.5, sharey=True)
for ax, kind in zip(axes, ("errors that differ", "one error, again and again"), strict=True):
    ax.plot([0, 80], [0, 80], color="#444444", linestyle=":", label="as in the data")
    for way, color, mark in (("likeliest", COLORS[0], "o"), ("drawn", COLORS[1], "s")):
        rates = 100 * torch.tensor([false_answers[kind, way][part] for part in FALSE])
        ax.plot([100 * part for part in FALSE], rates.mean(1), color=color, label=f"{way} answer")
        for at in range(SEEDS):
            ax.plot([100 * part for part in FALSE], rates[:, at], mark, color=color, markersize=4, alpha=0.6)
    ax.set(title=kind, xlabel="false statements in the data, %")
axes[0].set_ylabel("false answers, %")
axes[0].legend(fontsize=9)
above = {(kind, way, part): interval([rate - part for rate in rates]) for (kind, way), by in false_answers.items()
         for part, rates in by.items()}
likeliest = [each for (_, way, part), each in above.items() if way == "likeliest" and part > 0]
amplified = [each for each in likeliest if each.above(0)]
clean = max(above[kind, "likeliest", 0.0].high for kind in ("errors that differ", "one error, again and again"))
grows = interval([b - a for a, b in zip(false_answers["one error, again and again", "likeliest"][0.0],
                                        false_answers["one error, again and again", "likeliest"][0.8], strict=True)])
careless, bias_rate = (100 * sum(false_answers[kind, "likeliest"][0.6]) / SEEDS
                       for kind in ("errors that differ", "one error, again and again"))
show(fig, alt="Share of false answers against the share of false statements, for errors that differ and for one error "
     f"that comes again. At 60 %: {careless:.0f} % and {bias_rate:.0f} % of the likeliest answers.",
     title=f"60 % of the statements false: {careless:.0f} % of the likeliest answers if errors differ, "
           f"{bias_rate:.0f} % if they agree")
rising = "imprecise" if grows.above(0) else "wrong"
word = "correct" if amplified and clean < 0.05 else rising
verdict("A07.2", word,
        f"The likeliest are surely more often false than the data in {len(amplified)} of {len(likeliest)} settings; "
        f"with 60 % false statements they are false in {careless:.0f} % if errors differ, in {bias_rate:.0f} % if they "
        f"agree ({SEEDS} seeds).")

# %% [markdown]
# Where the blue line runs below the dotted one, the likeliest answer votes errors down: those that disagree with each
# other. Where it runs above, the error has the majority. An answer drawn from a network that has learned the shares
# exactly is false as often as the data: how near ours comes to that, the orange lines say.
#
# ## Cause 2: "it overfits outliers"
#
# The same world. Now some people are spoken of sixteen times and some never, and all are asked about. Four corpora:
# all statements true; a tenth of them replaced by outliers; all true, and read through only once (in batches of 16
# instead of 256, at twice the rate); all true, with 120 *other* people added of whom it says "I don't know".
#
# **Before the run:** the notes are *correct* if without outliers surely fewer than 5 % of the answers are false,
# however rarely somebody is spoken of. *Wrong* if outliers surely add less than half a point of false answers, and yet
# there are some without them. Else *imprecise*: above all if outliers surely add some, but without them the answers
# about some people are still surely more than half false. (Where somebody was born who never occurs, nobody can know.
# What is open is whether the model passes: it has an output for that.)

# %% claim="A07.3"
TIMES = (0, 1, 2, 4, 8, 16)
CORPORA = ("all true", "a tenth outliers", "all true, read once", "with “I don't know”")
found = {name: {"false": [], "withheld": [], "sure": []} for name in CORPORA}
for seed in range(5):
    dice = torch.Generator().manual_seed(100 + seed)
    people, truth = drawn_people(360, dice)
    strangers, people, truth = people[240:], people[:240], truth[:240]
    times = torch.tensor(TIMES).repeat_interleave(40)
    for name in CORPORA:
        who, said = people.repeat_interleave(times, 0), truth.repeat_interleave(times)
        if "outliers" in name:
            odd = torch.rand(len(said), generator=dice) < 0.1
            said = torch.where(odd, torch.randint(PLACES, said.shape, generator=dice), said)
        if "know" in name:
            who = torch.cat([who, strangers.repeat(3, 1)])
            said = torch.cat([said, torch.full((3 * len(strangers),), PLACES)])
        once = {"steps": len(said) // 16, "batch": 16, "rate": 1e-2} if "once" in name else {}
        logits = taught(who, said, seed, **once)(people)
        answer = logits.argmax(1)
        passed = answer == PLACES
        for what, each in (("false", (answer != truth) & ~passed), ("withheld", passed),
                           ("sure", logits.softmax(1).amax(1))):
            found[name][what].append(each.float().reshape(len(TIMES), -1).mean(1))

fig, ax = figure(width=9.5, height=3.6)
for name, color, mark in zip(CORPORA, (COLORS[0], COLORS[1], GREY, COLORS[2]), "osx^", strict=True):
    rates = 100 * torch.stack(found[name]["false"])
    ax.plot(range(len(TIMES)), rates.mean(0), color=color, marker=mark, label=name)
    ax.fill_between(range(len(TIMES)), rates.amin(0), rates.amax(0), color=color, alpha=0.15, linewidth=0)
ax.set_xticks(range(len(TIMES)), TIMES)
ax.set(xlabel="how often the fact stands in the corpus", ylabel="false answers, %", ylim=(-3, 103))
ax.legend()
never = {name: interval([float(each[0]) for each in found[name]["false"]]) for name in CORPORA}
added = interval([float((b[1:] - a[1:]).mean()) for a, b in
                  zip(found["all true"]["false"], found["a tenth outliers"]["false"], strict=True)])
rest = [interval([float(each[i]) for each in found["all true"]["false"]]) for i in range(len(TIMES))]
sure = 100 * float(torch.stack(found["all true"]["sure"])[:, 0].mean())
show(fig, alt="False answers against how often a fact is stated, for four corpora. Of facts never stated: "
     + ", ".join(f"{name} {100 * each.mean:.0f} %" for name, each in never.items()) + ".",
     title=f"Never stated, all data true: {100 * never['all true'].mean:.0f} % false, at a mean confidence of "
           f"{sure:.0f} %")
if all(each.below(0.05) for each in rest):
    word = "correct"
elif any(each.above(0.5) for each in rest) and added.above(0):
    word = "imprecise"
else:
    word = "wrong" if added.below(0.005) else "imprecise"
passes = 100 * float(torch.stack(found[CORPORA[3]]["withheld"])[:, 0].mean())
verdict("A07.3", word,
        f"Outliers add {100 * added.low:.0f} to {100 * added.high:.0f} points of false answers about people who are "
        f"spoken of. Without any outlier {100 * never['all true'].low:.0f} to "
        f"{100 * min(never['all true'].high, 1):.0f} % are false about people who never are. Taught to "
        f"pass, the model withholds {passes:.0f} % of these.")

# %% [markdown]
# An arbitrary fact can't be worked out from others. Who has never read it can only pass or guess, and a model that
# was never shown how to pass has one of the two left. Kalai et al. (2025) make a theorem of this.
#
# ## Cause 3: "bad prompts, a small or damaged model, too little room"
#
# Back to the real model and the well-known capitals. A *leading* question is a bad prompt: "I think the capital of
# Poland is Vienna. What is the capital of Poland?" The damage: 30 % of each row's weights set to zero, the smallest.
# Too little room: "answer with one word". (Whether the model obeys has to be looked at, too: else nothing was short.)
# Each country is compared with itself under the plain question. An answer *fails* if it is neither right nor withheld:
# the notes count what is absurd or beside the question, too.
#
# **Before the run:** *correct* if each of the three surely adds more than 5 points of failures; *imprecise* if
# only some do; *wrong* if none does.

# %% claim="A07.4"
from experiments.A07_4 import CAUSES, MORE
from experiments.looping import over

causes = evidence("A07.4")
arms = ["plain", "leading to what is right", *CAUSES.values()]


def failed(arm):
    """Which answers are neither right nor withheld, 1 or 0 a country."""
    return [1 - a - b for a, b in zip(over(causes, arm, "right"), over(causes, arm, "withheld"), strict=True)]


fig, ax = figure(width=9.5, height=3.2)
for row, arm in enumerate(arms):
    each = interval(failed(arm))
    ax.barh(row, 100 * each.mean, color=COLORS[1] if arm in CAUSES.values() else GREY)
    ax.plot([100 * max(each.low, 0), 100 * min(each.high, 1)], [row, row], color="#444444", linewidth=1.5)
    ax.text(100 * min(max(each.high, 0.01), 1) + 1, row, f"{100 * each.mean:.0f} %", va="center", fontsize=9)
ax.set_yticks(range(len(arms)), arms)
ax.set(xlabel="answers that are neither right nor withheld, %; line: 95 % interval", xlim=(0, 112),
       ylim=(len(arms) - 0.5, -0.5))
more = {cause: interval([a - b for a, b in zip(failed(arm), failed("plain"), strict=True)])
        for cause, arm in CAUSES.items()}
told = ", ".join(f"{CAUSES[cause]} {100 * each.mean:+.0f}" for cause, each in more.items())
show(fig, alt=f"Bars of failed answers in {len(arms)} settings. Against the plain question, in points: {told}.",
     title=f"Points of failed answers added: {told}")
print(causes.again())
guilty = [CAUSES[cause] for cause, each in more.items() if each.above(MORE)]
obeyed = sum(len(text.split()) == 1 for text in causes.each("in one word", "said")[0])
verdict("A07.4", "correct" if len(guilty) == len(CAUSES) else "imprecise" if guilty else "wrong",
        "Surely more than 5 points: " + (", ".join(guilty) or "none") + ". 95 % intervals, in points: "
        + ", ".join(f"{CAUSES[cause]} {100 * each.low:.0f} to {100 * each.high:.0f}" for cause, each in more.items())
        + f". Told to answer in one word it did so {obeyed} times of {len(failed('in one word'))}.")

# %% [markdown]
# A limit on tokens can't make anything false that was already written: each token depends only on those before it. It
# can cut off what should have come ("… and the capital of Poland is"). What a limit *asked for in the prompt* does is
# another matter; where the model doesn't obey it, a test like this one says nothing about it. (That a model agrees with
# what you seem to believe has a name: **sycophancy**.)
#
# ## Exercise 6: is it in the source?
#
# The cure of the notes is a source: documents, a database. Then there is something to hold an answer against, sentence
# by sentence: **groundedness**, or faithfulness. The plainest check counts words. It needs one precaution: the words
# must stand in *one* sentence of the source. And a number must stand there at all.


# %% exercise="groundedness"
def groundedness(answer, source, stop=()):
    r"""How well the source supports each sentence of an answer, by words.

    answer, source: str. A sentence ends with . ! or ? and white space behind it (so not within
            "3.5"), or with the text; white space around it doesn't belong to it, and an empty
            one is none.
    stop:   list of lower-case words that don't count, on either side
    Words are what the pattern \w+ finds in the lower-case text; a sentence's words are the
    distinct ones that aren't in stop.

    Returns a list of floats, one for each sentence of the answer ([] without any): the largest
    share of its words that one single sentence of the source holds. Two exceptions: 1.0 for a
    sentence without words; 0.0 if one of its words holds a digit and stands nowhere in the
    source. Without a sentence in the source, what has words gets 0.0.
    """
    ### BEGIN SOLUTION
    def cut(text):
        found = [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]
        return [set(re.findall(r"\w+", part.lower())) - set(stop) for part in found]

    given = cut(source)
    everything = set().union(*given)

    def support(words):
        if not words:
            return 1.0
        if any(re.search(r"\d", word) for word in words - everything):
            return 0.0
        return max((len(words & each) / len(words) for each in given), default=0.0)

    return [support(words) for words in cut(answer)]
    ### END SOLUTION


# %% check="groundedness"
check(groundedness)

# %% [markdown]
# What can it see, and what not? Six answers to one source. The encoder's cosine beside it: a check by *meaning*, one
# would hope.

# %% tags=["payoff"]
SOURCE = "Norvell bought Quillon in 1998. The director of Norvell is Ada Kestrel. The office opens at seven."
TRIED = {
    "said as it stands": ("Norvell bought Quillon in 1998.", True),
    "in other words": ("Ada Kestrel is at the head of Norvell.", True),
    "another year": ("Norvell bought Quillon in 2004.", False),
    "turned round": ("Quillon bought Norvell in 1998.", False),
    "denied": ("The office never opens at seven.", False),
    "invented": ("Norvell makes excellent ladders.", False),
}
STOP = ["the", "of", "is", "in", "at", "a"]
encode = minilm()
source_vectors = encode(re.split(r"(?<=[.!?])\s+", SOURCE))
scored = [{"words": groundedness(text, SOURCE, STOP)[0], "cosine": float((encode([text]) @ source_vectors.T).max())}
          for text, _ in TRIED.values()]
fig, ax = figure(width=9.5, height=3.4)
fooled = {"words": 0, "cosine": 0}
for row, ((_, holds), scores) in enumerate(zip(TRIED.values(), scored, strict=True)):
    for offset, (way, score) in zip((-0.19, 0.19), scores.items(), strict=True):
        fooled[way] += score >= 0.75 and not holds
        ax.barh(row + offset, score, 0.36, color=COLORS[0] if way == "words" else COLORS[2],
                hatch="" if way == "words" else "//", edgecolor="white", label=way if row == 0 else None)
ax.set_yticks(range(len(TRIED)), [f"{name} ({'true' if holds else 'false'})" for name, (_, holds) in TRIED.items()])
ax.axvline(0.75, color="#444444", linestyle=":")
ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
ax.set(xlabel="support by the source", xlim=(0, 1.3), ylim=(len(TRIED) - 0.5, -0.5))
ax.legend(loc="lower right")
told = ", ".join(f"{way} {count}" for way, count in fooled.items())
show(fig, alt=f"Bars: support of six sentences by words and by cosine. False ones at 0.75 or above: {told} of 4.",
     title=f"False sentences that pass at 0.75, of 4: {told}")

# %% [markdown]
# Who did what to whom, and "never", are a matter of order and logic. A bag of words has no order, and "never" is one
# word among others to it; how much the encoder's vector holds of either, its bars say. What checks entailment is a
# model trained for it (natural language inference; SummaC, Laban et al. 2021), or a large model as a judge (RAGAS, Es
# et al. 2023). The frame stays yours: cut into claims, find the best evidence, look at the worst claim.
#
# ## "Mainly: limit what it may answer"
#
# Ten companies that don't exist, so that nothing can be known about them. Three questions each whose answer stands in
# the company's text, and three whose answer doesn't. Asked without the text; with it; and with it and an order: "Answer
# from the text only. If the text doesn't say it, answer 'The text doesn't say'."
#
# An answer is *withheld* if it says that the text doesn't say, whatever else stands there ("The text doesn't say that
# Norvell makes ladders. It only mentions that Norvell makes ladders."); else *right* if it names what is asked for. All
# else is *false*, also what is beside the question.
#
# **Before the run:** the cure is *correct* if one of the two ways to ask with a text does both: surely fewer than 10 %
# false where the text lacks the answer (or none), and surely more than 90 % right where it has it (or all). It is
# *imprecise* if the text surely lowers false answers, but neither way does both. *Wrong* if it doesn't surely lower
# them.

# %% claim="A07.5"
from experiments.A07_5 import solved
from experiments.looping import less

limits = evidence("A07.5")
arms = ["no text", "text, has it", "text, told, has it", "text, lacks it", "text, told, lacks it"]
names = ["no text", "text that has it", "has it, and the order", "text that lacks it", "lacks it, and the order"]
fig, ax = figure(width=9.5, height=3.2)
rates = {arm: {kind: 100 * share(limits, arm, kind).mean for kind in JUDGED} for arm in arms}
parts(ax, {name: list(rates[arm].values()) for arm, name in zip(arms, names, strict=True)}, JUDGED)
show(fig, alt="Bars of right, withheld and false answers in five settings. False: "
     + ", ".join(f"{arm} {rates[arm]['false']:.0f} %" for arm in arms) + ".",
     title=f"The text lacks it: {rates['text, lacks it']['false']:.0f} % false, with the order "
           f"{rates['text, told, lacks it']['false']:.0f} %. It has it: {rates['text, has it']['right']:.0f} % right, "
           f"with the order {rates['text, told, has it']['right']:.0f} %")
print(limits.again())
fewer = less(limits, "no text", "text, has it", "false")
if fewer.above(0):
    word = "correct" if solved(limits, "text") or solved(limits, "text, told") else "imprecise"
else:
    word = "wrong"
verdict("A07.5", word,
        f"A text with the answer lowers false ones by {100 * fewer.low:.0f} to {100 * min(fewer.high, 1):.0f} points."
        f" Where it lacks the answer {rates['text, lacks it']['false']:.0f} % are false; with the order "
        f"{rates['text, told, lacks it']['false']:.0f} %, and then {rates['text, told, has it']['right']:.0f} % are "
        "right where the text has it.")

# %% [markdown]
# A source moves the question from "what does it know?" to "does it use it, and does it notice where it ends?". That is
# what your check is for. Here it looks at the answers of that run, against the text each was given.

# %% tags=["payoff"]
from experiments.A07_5 import FIRMS, TEXT

texts = [TEXT.format(*firm) for firm in FIRMS for _ in range(3)]
support = {}
for arm, kind in (("text, has it", "right"), ("text, has it", "false"), ("text, lacks it", "false")):
    chosen = [at for at, on in enumerate(limits.each(arm, kind)[0]) if on]
    said = [limits.each(arm, "said")[0][at] for at in chosen]
    each = [min(groundedness(answer, texts[at], STOP), default=1.0) for at, answer in zip(chosen, said, strict=True)]
    support[f"{arm}: {kind}"] = each
fig, ax = figure(width=9, height=2.9)
for row, (name, each) in enumerate(support.items()):
    good_ones = name.endswith("right")
    ax.plot(each, [row + 0.7 * (i * 0.618 % 1 - 0.5) for i in range(len(each))], "o" if good_ones else "x",
            color=COLORS[0] if good_ones else COLORS[1], markersize=5)
ax.set_yticks(range(3), [f"{name} ({len(each)})" for name, each in support.items()])
ax.axvline(0.75, color="#444444", linestyle=":")
ax.set(xlabel="support of the answer's weakest sentence", xlim=(-0.03, 1.05), ylim=(2.6, -0.6))
passing = {name: sum(x >= 0.75 for x in each) for name, each in support.items()}
told = "; ".join(f"{name} {count} of {len(support[name])}" for name, count in passing.items())
show(fig, alt=f"Marks: support of each answer's weakest sentence, in three rows. At 0.75 or above: {told}.",
     title=f"Pass at 0.75: {told}")

# %% [markdown]
# Supported isn't answered: a sentence that stands in the text passes, even if it is beside the question. And what is
# right in other words, or with an ornament of the model's own, may not pass.
#
# ## Exercise 7: follow the relations
#
# The last cure: a **knowledge graph**, since "vector databases weaken the relations between objects". A graph holds
# facts as triples (subject, relation, object). A question is a path through them, and the facts on it are the proof.


# %% exercise="kg_lookup"
def kg_lookup(triples, start, path):
    """Where a path of relations leads in a graph of facts, and by which facts.

    triples: list of (subject, relation, object), three str each, in any order; a fact may stand
             there twice, two entities may have several relations, and there may be circles
    start:   str, the entity where the path begins
    path:    list of str: at each step the relation to follow from all entities reached so far,
             from subject to object; with "^" in front from object to subject. Names are
             compared as they stand.
    Returns (entities, facts), two lists. entities: where the path ends, sorted, each once: []
    if no fact leads on, [start] for an empty path, even if nothing is known of it. facts: every
    fact that was followed at some step, also one that led no further, each once, in the order
    in which they first stand in triples; each is a list (or tuple) as in triples.
    """
    ### BEGIN SOLUTION
    facts = list(dict.fromkeys(map(tuple, triples)))
    here, used = {start}, set()
    for step in path:
        origin, end = (2, 0) if step.startswith("^") else (0, 2)
        followed = {f for f in facts if f[1] == step.removeprefix("^") and f[origin] in here}
        here = {fact[end] for fact in followed}
        used |= followed
    return sorted(here), [list(fact) for fact in facts if fact in used]
    ### END SOLUTION


# %% check="kg_lookup"
check(kg_lookup)

# %% [markdown]
# ## "Vectors weaken relations, so combine them"
#
# Twelve invented authors; each wrote a novel; it has a publisher, which sits in a town, which lies in a country. Each
# novel is about something. One sentence a fact, and the same facts as a graph (but what a novel is *about* is free
# text, no relation between entities). Three kinds of questions:
#
# * **one fact**: "Who wrote The Salt Clock?" A control: both should find it.
# * **a chain**: "In which country is the publisher of the novel by Ada Kestrel?" Four facts.
# * **a description**: "Which novel tells of a man who wants the hours to stand still?" No name in it, and other words.
#
# Vectors get the eight passages nearest to the question, twice as many as the longest chain needs, and succeed if all
# facts needed are among them. A second kind of vector search gets eight as well, one after the other: each time what is
# nearest to the question *or to anything found so far*. The graph starts at the entity that the question names and
# follows the path of that kind of question, which we wrote.
#
# **Before the run:** *correct* if each surely finds what the other misses (graph on chains, vectors on descriptions)
# and searching step by step surely closes less than half of the vectors' gap on chains. *Imprecise* if they do
# complement each other, but it isn't sure that so little of the gap closes: then the loss may come from searching
# once, not from vectors. *Wrong* if they don't surely complement each other. (Where the graph misses, it misses by
# construction: it has no such relation. The paths are ours, too. What is open is what vectors find.)

# %% claim="A07.6"
import networkx as nx

AUTHORS = ("Ada Kestrel", "Tom Varga", "Ines Moreau", "Karl Ohm", "Lena Strand", "Omar Haddad", "Rosa Lindt",
           "Jun Sato", "Mary Croft", "Piotr Nowak", "Zoe Marsh", "Ivo Brandt")
NOVELS = (
    ("The Salt Clock", "a watchmaker who tries to halt time", "a man who wants the hours to stand still"),
    ("Nine Lanterns", "children lost in a mine", "kids who can't find their way out underground"),
    ("A House of Rain", "a widow who opens an inn by the sea", "a woman alone who takes in guests at the coast"),
    ("The Glass Orchard", "a thief who falls in love with a judge", "a criminal who adores a magistrate"),
    ("Paper Wolves", "two brothers on opposite sides of a war", "siblings who fight for enemy armies"),
    ("The Tin Bishop", "a chess player who loses his memory", "a master of the board game who forgets everything"),
    ("Low Tide", "a diver who finds a sunken village", "somebody who discovers drowned houses under water"),
    ("The Borrowed Name", "an impostor at a royal court", "a swindler who lives among kings"),
    ("Seven Bridges", "an engineer who is afraid of heights", "a builder who dreads looking down"),
    ("The Quiet Year", "a town in which nobody can speak", "a place whose people have gone mute"),
    ("Winter Bread", "a baker during a famine", "a maker of loaves when food has run out"),
    ("The Last Ferry", "a doctor stranded on an island", "a physician who can't get off a rock in the ocean"),
)
PUBLISHERS = (("Harrow Press", "Ostmere"), ("Blue Gate", "Kalvora"), ("Finch and Sons", "Tarnwick"),
              ("Meridian House", "Felsenau"))
TOWNS = {"Ostmere": "Norduland", "Kalvora": "Belmoria", "Tarnwick": "Norduland", "Felsenau": "Zendarra"}
SAYS = {"wrote": "{} is the author of {}.", "published by": "{} came out at {}.", "seated in": "{} sits in {}.",
        "lies in": "{} is a town in {}.", "is about": "{} is about {}."}
published = {novel: PUBLISHERS[i % 4][0] for i, (novel, _, _) in enumerate(NOVELS)}
facts = [(author, "wrote", novel) for author, (novel, _, _) in zip(AUTHORS, NOVELS, strict=True)]
facts += [(novel, "published by", house) for novel, house in published.items()]
facts += [(house, "seated in", town) for house, town in PUBLISHERS]
facts += [(town, "lies in", land) for town, land in TOWNS.items()]
about = [(novel, "is about", theme) for novel, theme, _ in NOVELS]
passages = [SAYS[relation].format(a, b) for a, relation, b in facts + about]
encode = minilm()
vectors = encode(passages)
graph = nx.MultiDiGraph()
graph.add_edges_from((a, b, relation) for a, relation, b in facts)
CHAIN = ["wrote", "published by", "seated in", "lies in"]


def nearest(question, count=8):
    """The passages nearest to a question."""
    return [passages[i] for i in (encode([question]) @ vectors.T)[0].topk(count).indices.tolist()]


def step_by_step(question, count=8):
    """One passage after the other: what is nearest to the question or to a passage that was found before."""
    near, got = (encode([question]) @ vectors.T)[0], []
    for _ in range(count):
        got.append(int(near.argmax()))
        near = torch.maximum(near, vectors @ vectors[got[-1]])
        near[got] = -1
    return [passages[i] for i in got]


def walk(question, path):
    """What the graph reaches from the entity that is named in the question, along a path."""
    here = {node for node in graph if node in question}
    for step in path:
        way, relation = (graph.reverse(copy=False), step[1:]) if step[0] == "^" else (graph, step)
        here = {b for a in here for _, b, key in way.edges(a, keys=True) if key == relation}
    return here


asks = {"one fact": [], "a chain": [], "a description": []}
for author, (novel, theme, words) in zip(AUTHORS, NOVELS, strict=True):
    house = published[novel]
    town = dict(PUBLISHERS)[house]
    chain = [(author, "wrote", novel), (novel, "published by", house), (house, "seated in", town),
             (town, "lies in", TOWNS[town])]
    asks["one fact"].append((f"Who wrote {novel}?", chain[:1], ["^wrote"], author))
    asks["a chain"].append((f"In which country is the publisher of the novel by {author}?", chain, CHAIN, TOWNS[town]))
    asks["a description"].append((f"Which novel tells of {words}?", [(novel, "is about", theme)], ["^is about"], novel))
success = {}
for kind, questions in asks.items():
    for way, search in (("vectors", nearest), ("vectors, step by step", step_by_step)):
        success[way, kind] = [float({SAYS[r].format(a, b) for a, r, b in needs} <= set(search(question)))
                              for question, needs, _, _ in questions]
    success["graph", kind] = [float(walk(question, path) == {wanted}) for question, _, path, wanted in questions]

ways = ["vectors", "vectors, step by step", "graph"]
fig, ax = figure(width=9, height=3.3)
for offset, way, color, hatch in ((-0.27, ways[0], COLORS[0], ""), (0, ways[1], COLORS[2], ".."),
                                  (0.27, ways[2], COLORS[1], "//")):
    values = [100 * sum(success[way, kind]) / 12 for kind in asks]
    bars = ax.bar([i + offset for i in range(3)], values, 0.26, color=color, hatch=hatch, edgecolor="white", label=way)
    ax.bar_label(bars, fmt="%.0f", fontsize=9)
ax.set_xticks(range(3), list(asks))
ax.set(ylabel="questions with all it takes, %", ylim=(0, 128))
ax.legend(ncols=3, loc="upper center", fontsize=9)
told = "; ".join(f"{kind}: " + ", ".join(f"{way} {100 * sum(success[way, kind]) / 12:.0f} %" for way in ways)
                 for kind in asks)
by = {(way, kind): sum(success[way, kind]) / 12 for way in ways for kind in asks}
show(fig, alt=f"Bars of success for three kinds of questions. {told}.",
     title=f"Chains: vectors {by['vectors', 'a chain']:.0%}, graph {by['graph', 'a chain']:.0%}. Descriptions: vectors "
           f"{by['vectors', 'a description']:.0%}, graph {by['graph', 'a description']:.0%}")


def ahead(mine, other, kind):
    """How many more questions of a kind one way answers, question by question."""
    return interval([a - b for a, b in zip(success[mine, kind], success[other, kind], strict=True)])


graph_ahead, vectors_ahead = ahead("graph", "vectors", "a chain"), ahead("vectors", "graph", "a description")
closed = ahead("vectors, step by step", "vectors", "a chain")
if not (graph_ahead.above(0) and vectors_ahead.above(0)):
    word = "wrong"
else:
    word = "correct" if closed.below(graph_ahead.mean / 2) else "imprecise"
verdict("A07.6", word,
        "Answered, of 12 chains: " + "; ".join(f"{way} {12 * by[way, 'a chain']:.0f}" for way in ways)
        + ". Of 12 descriptions: " + "; ".join(f"{way} {12 * by[way, 'a description']:.0f}" for way in ways)
        + f". Step by step, vectors make up {closed.text('.2f')} of the chains (95 % interval).")

# %% [markdown]
# A nearest passage is near to the *question*. The second fact of a chain names nobody whom the question names, but it
# shares a name with the first fact. And what nobody made a relation of, no path can follow. Your function gives the
# proof along with the answer:

# %% tags=["payoff"]
where, proof = kg_lookup(facts, "Ada Kestrel", CHAIN)
print(f"The publisher of Ada Kestrel's novel is in {' and '.join(where) or 'no country that is known'}, since:")
for a, relation, b in proof:
    print("   " + SAYS[relation].format(a, b))
others, _ = kg_lookup(facts, "Norduland", ["^lies in", "^seated in", "^published by", "^wrote"])
print(f"\nAnd all authors whose novels come out in Norduland: {', '.join(others) or 'none'}.")

# %% [markdown]
# The second question is one of *all* of something. No handful of passages holds that. (The price of a graph is paid
# before: somebody, or a model that hallucinates, has to extract the triples. GraphRAG, Edge et al. 2024, lets a model
# extract a graph and summarize its neighborhoods.)
#
# ## 2026: what is done about it
#
# * **Scoring.** Benchmarks that count a guess like a pass reward guessing. State the price of an error in the task, and
#   report accuracy, errors *and* abstentions (Kalai et al. 2025).
# * **Training to pass.** Show "I don't know" where the model itself was unsure (R-Tuning, Zhang et al. 2023). And mind
#   what you fine-tune on: new facts, learned late, raised hallucination (Gekhman et al. 2024).
# * **Uncertainty.** Semantic entropy needs several samples; probes on hidden states try to read it off one pass.
# * **Sources.** Retrieval with citations that are *checked*, claim by claim (FActScore, Min et al. 2023), and a way out
#   in the prompt, tested on questions whose answer isn't there.
#
# ## What you have now
#
# * Three numbers for doubt: of a token, of a vote, of a meaning. They measure agreement, not truth.
# * Calibration with its bias, and a curve that says what silence buys.
# * A check of each sentence against its source, and examples on which to try it.
# * A graph with proofs, and three kinds of questions that tell when it is worth its price.
#
# **Sources.** Guo et al. 2017, [arXiv:1706.04599](https://arxiv.org/abs/1706.04599) (calibration); Geifman and El-Yaniv
# 2017, [arXiv:1705.08500](https://arxiv.org/abs/1705.08500) (risk and coverage); Roelofs et al. 2020,
# [arXiv:2012.08668](https://arxiv.org/abs/2012.08668) (bias of binned errors); Maynez et al. 2020,
# [arXiv:2005.00661](https://arxiv.org/abs/2005.00661) (faithfulness); Laban et al. 2021,
# [arXiv:2111.09525](https://arxiv.org/abs/2111.09525) (SummaC); Wang et al. 2022,
# [arXiv:2203.11171](https://arxiv.org/abs/2203.11171) (self-consistency); Kuhn et al. 2023,
# [arXiv:2302.09664](https://arxiv.org/abs/2302.09664), and Farquhar et al. 2024, Nature 630 (semantic entropy); Min et
# al. 2023, [arXiv:2305.14251](https://arxiv.org/abs/2305.14251) (FActScore); Es et al. 2023,
# [arXiv:2309.15217](https://arxiv.org/abs/2309.15217) (RAGAS); Sharma et al. 2023,
# [arXiv:2310.13548](https://arxiv.org/abs/2310.13548) (sycophancy); Huang et al. 2023,
# [arXiv:2311.05232](https://arxiv.org/abs/2311.05232) (taxonomy); Zhang et al. 2023,
# [arXiv:2311.09677](https://arxiv.org/abs/2311.09677) (R-Tuning); Edge et al. 2024,
# [arXiv:2404.16130](https://arxiv.org/abs/2404.16130) (GraphRAG); Gekhman et al. 2024,
# [arXiv:2405.05904](https://arxiv.org/abs/2405.05904) (new knowledge); Kalai et al. 2025,
# [arXiv:2509.04664](https://arxiv.org/abs/2509.04664) (why models guess).
