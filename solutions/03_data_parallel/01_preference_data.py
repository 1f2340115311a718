# ---
# jupyter:
#   course:
#     title: "Preference data without an army of labelers"
#     exercises: data_parallel.preference_data
#     questions: [D01]
#     needs: []
# ---

# %% [markdown]
# # Preference data without an army of labelers
#
# A chat model is tuned on **preferences**: two answers to one question, and which of them somebody liked better. People
# are slow, dear, and disagree with one another. So what replaces them? The usual list says: open data, augmentation,
# synthesis, semi-supervised learning, rules. That a model may judge a model isn't on it.
#
# This chapter puts the list to the test, in one currency: **how many labels is it worth?** You turn votes into
# strengths, measure a judge, combine rules, let a model label its own data, and at the end train on preferences with
# DPO, and see where that goes wrong.
#
# Most measurements use a small world whose truth is known: pairs of handwritten digits, of which people prefer the one
# that stands for *more*. They err now and then, as people do. A **reward model** learns from their choices to give each
# answer a number, here from pixels alone. What real chat models do is looked at with a real, very small one. There are
# no ranks in this chapter; it has its place here because the question bank asks it here.

# %% tags=["setup"]
import copy
import math

import numpy as np
import torch
import torch.nn.functional as F

from autograde import check
from labkit import COLORS, evidence, figure, interval, show, smollm, verdict, wilson

# %% [markdown]
# ## From votes to strengths
#
# Six chat models meet in pairs; for each pair people say which answer is better. Who is best? The share of wins is the
# first idea. It depends on whom one has met. Here model F has met mostly the two strongest.

# %% tags=["demo"]
NAMES = "ABCDEF"
TRUE = torch.tensor([1.4, 0.9, 0.2, -0.5, -1.4, -0.6])
MEET = torch.ones(6, 6) - torch.eye(6)
MEET[5, 2:5] = MEET[2:5, 5] = 0.05
MEET[4, :2] = MEET[:2, 4] = 0.2


def voted(count, seed):
    """Votes drawn at random: wins [6, 6], wins[i, j] = how often i was preferred to j."""
    dice = torch.Generator().manual_seed(seed)
    couple = torch.multinomial(MEET.flatten(), count, replacement=True, generator=dice)
    i, j = couple // 6, couple % 6
    won = torch.rand(count, generator=dice) < torch.sigmoid(TRUE[i] - TRUE[j])
    winner, loser = torch.where(won, i, j), torch.where(won, j, i)
    return torch.zeros(6, 6, dtype=torch.int64).index_put_((winner, loser), torch.ones_like(i), accumulate=True)


wins = voted(3000, 0)
share = wins.sum(1) / (wins.sum(1) + wins.sum(0))
by_share = [NAMES[i] for i in share.argsort(descending=True)]
by_truth = [NAMES[i] for i in TRUE.argsort(descending=True)]
fig, (left, right) = figure(1, 2, width=9.5, height=3.8)
picture = left.imshow(wins.numpy(), cmap="Blues")
for (i, j), count in np.ndenumerate(wins.numpy()):
    left.text(j, i, count, ha="center", va="center", color="white" if count > 130 else "black", fontsize=9)
left.set(xticks=range(6), yticks=range(6), xlabel="was preferred to", title="votes")
left.set_xticklabels(NAMES)
left.set_yticklabels(NAMES)
right.scatter(TRUE, share, color=COLORS[0], s=45)
for name, x, y in zip(NAMES, TRUE, share, strict=True):
    right.annotate(name, (float(x), float(y)), (6, -4), textcoords="offset points")
right.set(xlabel="true strength", ylabel="share of wins")
show(
    fig,
    alt=f"Left: a table of {int(wins.sum())} votes between six models. Right: share of wins against true strength. By "
    f"strength the order is {' '.join(by_truth)}, by share of wins {' '.join(by_share)}.",
    title=f"True order {' '.join(by_truth)}; by share of wins {' '.join(by_share)}",
)

# %% [markdown]
# **Bradley and Terry** (1952) give each model a strength $s_i$, and say
#
# $$P(i \text{ is preferred to } j) = \sigma(s_i - s_j), \qquad \sigma(x) = \frac{1}{1 + e^{-x}}.$$
#
# Arena rankings are fits of this formula, and so is the usual reward model: there $s$ is computed from the text. The
# loss is the negative log-likelihood of all votes. Only differences count, so something has to say where zero is, and
# somebody who never lost would be infinitely strong. A weak normal **prior** of precision $\lambda$ cures both:
#
# $$L(s) = -\sum_{i,j} \text{wins}_{ij} \log \sigma(s_i - s_j) + \frac{\lambda}{2} \sum_i s_i^2 .$$
#
# $L$ is convex, so Newton's method is at home here. And its curvature at the minimum says how sure the fit is: the
# inverse of the Hessian is (approximately) the **covariance** of the strengths.
#
# ### Exercise: fit the strengths

# %% exercise="bradley_terry_fit"
def bradley_terry_fit(wins, prior=0.1):
    """Strengths from pairwise votes, and how sure they are.

    wins:  [n, n], int64 or floating-point, not negative: wins[i, j] is how often i was
           preferred to j (a tie may count half on both sides). The diagonal is 0. Items may
           have no votes, or only wins; n is at least 1.
    prior: a float above 0, the precision of a normal prior with mean 0 on each strength.

    Minimizes -sum over i, j of wins[i, j] * log sigmoid(s[i] - s[j]) + prior / 2 * sum(s**2),
    a sum over the votes, not a mean.
    Returns two float64 tensors, whatever the dtype of wins: the strengths s [n] at the minimum
    (to four digits), and their covariance [n, n], the inverse of the loss's Hessian there (the
    prior's share included).
    Bradley and Terry 1952, Biometrika 39; sklearn's LogisticRegression finds the same s.
    """
    ### BEGIN SOLUTION
    wins, n = wins.double(), len(wins)
    s, games = torch.zeros(n, dtype=torch.float64), wins + wins.T
    for _ in range(30):
        p = torch.sigmoid(s[:, None] - s)
        lost = wins * (1 - p)
        curved = games * p * (1 - p)
        hessian = curved.sum(1).diag() - curved + prior * torch.eye(n, dtype=torch.float64)
        s = s - torch.linalg.solve(hessian, prior * s - lost.sum(1) + lost.sum(0))
    return s, torch.linalg.inv(hessian)
    ### END SOLUTION


# %% check="bradley_terry_fit"
check(bradley_terry_fit)

# %% [markdown]
# A leaderboard without intervals is gossip. How many votes does it take? For each number of votes the arena is drawn
# anew forty times. We look at the width of your 95 % interval for "A is stronger than B", and at how often it holds
# the truth. The variance of a difference needs the covariance: $\Sigma_{AA} + \Sigma_{BB} - 2\Sigma_{AB}$. (With a
# weak prior each single variance is huge: the votes don't say where zero is. Differences are what they know about.)

# %% tags=["payoff"]
COUNTS, AGAIN = [100, 300, 1000, 3000, 10_000], 40
half, covered, decided = {}, {}, {}
for count in COUNTS:
    found = []
    for seed in range(AGAIN):
        s, sigma = bradley_terry_fit(voted(count, seed))
        deviation = math.sqrt(sigma[0, 0] + sigma[1, 1] - 2 * sigma[0, 1])
        found.append((float(s[0] - s[1]), 1.96 * deviation))
    gap, width = np.array(found).T
    half[count] = width.mean()
    covered[count] = np.mean(abs(gap - float(TRUE[0] - TRUE[1])) < width)
    decided[count] = np.mean(gap > width)

s, sigma = bradley_terry_fit(wins)
center = torch.eye(6, dtype=torch.float64) - 1 / 6  # strengths against the mean of all six
against = (center @ sigma @ center).diag().sqrt()
fitted_order = [NAMES[i] for i in s.argsort(descending=True)]
fig, (left, right) = figure(1, 2, width=10, height=3.8)
left.errorbar(s, range(6), xerr=1.96 * against, fmt="o", color=COLORS[0], capsize=3, label="fitted, 95 %")
left.scatter(TRUE - TRUE.mean(), range(6), color=COLORS[1], marker="D", zorder=3, label="true")
left.set(yticks=range(6), xlabel="strength, against the mean", title=f"{int(wins.sum()):,} votes")
left.set_yticklabels(NAMES)
left.legend()
right.plot(COUNTS, list(half.values()), "o-", color=COLORS[0], label="± of A minus B")
right.axhline(float(TRUE[0] - TRUE[1]), color=COLORS[1], linestyle=":", label="true difference")
right.set(xscale="log", xlabel="votes in all", ylabel="strength", ylim=(0, None))
right.legend()
show(
    fig,
    alt=f"Left: fitted strengths with intervals beside the true ones; the fitted order is {' '.join(fitted_order)}. "
    "Right: half the width of the interval of A minus B against the number of votes: "
    + ", ".join(f"{count}: {value:.2f}" for count, value in half.items()),
    title=f"A is surely stronger than B in {decided[COUNTS[0]]:.0%} of arenas of {COUNTS[0]} votes, in "
    f"{decided[COUNTS[2]]:.0%} of {COUNTS[2]:,}",
)
print("The interval holds the true difference in " + ", ".join(
    f"{value:.0%} ({count:,} votes)" for count, value in covered.items()
) + f" of {AGAIN} arenas.")

# %% [markdown]
# The width goes with one over the root of the votes. To halve an interval you pay four times, and that is why
# preference data is dear.
#
# Mind what the formula can't say: a circle (rock, paper, scissors) has no strengths, and all answers to one question
# are reduced to one number. If labelers want different things, the fit is the taste of nobody in particular.
#
# ## A model as judge
#
# The answer of today that the notes' list leaves out: let a model say which answer is better (**RLAIF**, Lee et al.
# 2023; **constitutional AI**, Bai et al. 2022). Before a judge's labels are worth anything, three numbers are needed:
#
# * **position bias**: does it name the place or the answer? Ask twice, with the answers *swapped*.
# * **agreement with people**, beyond what chance gives: Cohen's $\kappa = \dfrac{p_\text{agree} - p_\text{chance}}{1 -
#   p_\text{chance}}$, where $p_\text{chance}$ multiplies the two raters' own shares, answer by answer.
# * **length bias**: how often is the longer answer named?
#
# ### Exercise: measure a judge

# %% exercise="judge_agreement"
def judge_agreement(straight, swapped, people, lengths):
    """How far a judge can be trusted, asked in both orders.

    straight: int64 [n], the place that the judge names, 0 = first, 1 = second, when answer 0 is
              shown first and answer 1 second.
    swapped:  int64 [n], the place that it names when answer 1 is shown first.
    people:   int64 [n], the answer that people prefer, 0 or 1.
    lengths:  int64 [n, 2], the lengths of answer 0 and answer 1. n is at least 1.

    An item is steady if the judge names the same answer in both orders. Returns a dict of
    floats (or tensors without dimensions):
    "first":  the share of all 2 n verdicts that name the first place
    "steady": the share of the n items that are steady
    "kappa":  Cohen's kappa between the judge's answers and people's, over steady items alone;
              0.0 if there are none, or if chance alone always agrees (0 / 0)
    "longer": of the steady items whose answers differ in length, the share in which the judge
              names the longer one; 0.5 if there are none
    Cohen 1960, Educational and Psychological Measurement 20(1).
    """
    ### BEGIN SOLUTION
    steady = straight == 1 - swapped
    judge, human = straight[steady].double(), people[steady].double()
    kappa = 0.0
    if len(judge):
        chance = judge.mean() * human.mean() + (1 - judge.mean()) * (1 - human.mean())
        kappa = (((judge == human).double().mean() - chance) / (1 - chance)).item() if chance < 1 else 0.0
    sizes = lengths[steady]
    differ = sizes[:, 0] != sizes[:, 1]
    longer = (judge == sizes.argmax(1))[differ].double()
    return {
        "first": (torch.cat([straight, swapped]) == 0).double().mean().item(),
        "steady": steady.double().mean().item(),
        "kappa": kappa,
        "longer": longer.mean().item() if len(longer) else 0.5,
    }
    ### END SOLUTION


# %% check="judge_agreement"
check(judge_agreement)

# %% [markdown]
# ## The real one
#
# Our chat model has 135 million weights, a thousandth of what one would call a judge. Forty easy questions, each with a
# right and a wrong answer of the same form ("The capital of France is Paris." / "… is Berlin."). It is asked in two
# ways:
#
# 1. **for a letter**: both answers in one prompt, A or B, in both orders;
# 2. by **likelihood**: how probable is each answer after the question, in nats a token? No place, no letter.
#
# Does the notes' list lack a source of labels? **Before the run:** it does (the claim is *imprecise*) if one of
# the ways finds the right answer more often than a coin, for the whole 95 % interval over five groups of questions.
# If neither interval reaches above the coin, the list is *correct* as far as this model goes; between the two the claim
# is *unverifiable* here. Control: the likelihood of "It's Paris." after *another* question should be no better than the
# coin. (The long wording holds its question, so it would be none; beside the control stands the short one after its
# own.)

# %% claim="D01.6"
from experiments.asking import WORDINGS
from experiments.D01_6 import likelier, places

found = evidence("D01.6")
print(found.again())
right_first, wrong_first = places(found)
named = np.concatenate([right_first, wrong_first]) > 0
steady = (right_first > 0) != (wrong_first > 0)
arms = ("likelihood", "likelihood after another question")
gaps = np.concatenate([np.subtract(*nats[0]) for nats in found.each(arms[0], "nats")])
likely, other = (interval(likelier(found, arm)) for arm in arms)
short = interval(likelier(found, arms[0], list(WORDINGS).index("shortened")))
told = [right_first > 0, wrong_first < 0]  # the letter names the right answer
letter = interval(np.mean(told, axis=0).reshape(len(likelier(found, arms[0])), -1).mean(1).tolist())


def percent(each):
    """A share with its 95 % interval, which can't go beyond 0 and 100."""
    return f"{100 * each.mean:.0f} % ({max(0, 100 * each.low):.0f} to {min(100, 100 * each.high):.0f})"


survive = f"{percent(wilson(int(steady.sum()), len(steady)))} of the verdicts survive a swap"
fig, (left, right) = figure(1, 2, width=10, height=4)
left.scatter(right_first, wrong_first, color=COLORS[1], s=28)
left.axhline(0, color="black", linewidth=1)
left.axvline(0, color="black", linewidth=1)
left.set(xlabel="log-odds of A, right answer is A", ylabel="log-odds of A, wrong answer is A",
         title=f"a letter: {survive}")
right.hist(gaps, bins=20, color=COLORS[0])
right.axvline(0, color="black", linewidth=1)
right.set(xlabel="right answer's nats a token minus the wrong one's", ylabel="questions",
          title=f"likelihood: right in {percent(likely)}")
show(
    fig,
    alt=f"Left: for {len(steady)} questions the judge's log-odds of place A when the right answer stands there and "
    f"when the wrong one does; it names A in {named.mean():.0%} of its verdicts. Right: the log-likelihood's gap "
    f"between the right and the wrong answer, above zero in {(gaps > 0).sum()} of {len(gaps)}.",
    title=f"Asked for a letter it says A in {100 * named.mean():.0f} % of its verdicts; its likelihood is right in "
    f"{percent(likely)}",
)
verdict(
    "D01.6",
    "imprecise" if likely.above(0.5) or letter.above(0.5) else "correct"
    if max(likely.high, letter.high) <= 0.5 else "unverifiable",
    f"The model's likelihood finds the right answer in {percent(likely)}, worded as short as the control in "
    f"{percent(short)}; that one, after another question, in {percent(other)}. Asked for a letter, it names A in "
    f"{100 * named.mean():.0f} % of its verdicts and is right in {percent(letter)} of both orders; {survive}.",
)

# %% [markdown]
# It is one model, asked in two ways. So before anybody says that a judge is good or bad: *asked how?* (Zheng et al.
# 2023 report a bias towards a place for large judges, too.)
#
# ### Your report on it
#
# Questions are numbered so that the right answer is in turn answer 0 and answer 1: a judge must not earn points by a
# habit. For what people prefer we take the right answer. The likelihood has no places; its report shows what agreement
# looks like.

# %% tags=["payoff"]
people = torch.arange(len(right_first)) % 2
first_0, first_1 = torch.tensor(right_first) > 0, torch.tensor(wrong_first) > 0
straight = torch.where(people == 0, (~first_0).long(), (~first_1).long())
swapped = torch.where(people == 0, (~first_1).long(), (~first_0).long())
from experiments.asking import answer
from experiments.D01_6 import items

asked = [item for group in range(len(found.each("likelihood", "nats"))) for item in items(group)]
sizes = torch.tensor([[len(answer(item, True)), len(answer(item, False))] for item in asked])
sizes = torch.where(people[:, None] == 0, sizes, sizes.flip(1))
by_likelihood = torch.where(torch.tensor(gaps) > 0, people, 1 - people)
for name, report in {
    "a letter": judge_agreement(straight, swapped, people, sizes),
    "likelihood": judge_agreement(by_likelihood, 1 - by_likelihood, people, sizes),
}.items():
    print(f"{name:11}", ", ".join(f"{key} {float(value):.2f}" for key, value in report.items()))
half, all_of_them = (wilson(share * len(people), len(people)) for share in (0.5, 1))
print(f"(95 %: of {len(people)} questions 0.50 says no more than {half.text()}, and 1.00 no more than "
      f"{all_of_them.text()}.)")

# %% [markdown]
# ## Synthesis gives candidates
#
# "GANs and VAEs make images, GPT and T5 make text." That pictures come from diffusion and autoregressive models by now
# (a VAE is often a part of them), and that T5 isn't who writes, is a matter of dates that no run decides. A run can say
# whether samples of a language model are *preference data*. We draw six answers to each of twenty of the questions and
# let a verifier (does the text name the right answer?) look at them.
#
# **Before the run:** the claim is *outdated* if samples are useful candidates: in more than a fifth of the questions
# some are right and some wrong, for the whole interval over the five groups. If the whole interval is below a fifth,
# synthesis doesn't help here, and the claim is *wrong*; if it holds the fifth, *unverifiable*.

# %% claim="D01.3"
from experiments.D01_6 import mixed, ordered

rights = [sum(row) for rows in found.each("its own samples", "holds") for row in rows]
tries = len(found.each("its own samples", "holds")[0][0])
useful, order = interval(mixed(found)), interval(ordered(found))
fig, ax = figure(width=8, height=3.4)
colors = [COLORS[4], *[COLORS[0]] * (tries - 1), COLORS[4]]
ax.bar(range(tries + 1), np.bincount(rights, minlength=tries + 1), color=colors)
ax.set(xlabel=f"right ones among {tries} samples", ylabel="questions", xticks=range(tries + 1))
show(
    fig,
    alt=f"How many of {tries} sampled answers to a question are right, as a histogram over {len(rights)} questions. Of "
    f"them {sum(0 < r < tries for r in rights)} have both right and wrong samples.",
    title=f"{percent(useful)} of {len(rights)} questions give a pair of a right and a wrong sample",
)
verdict(
    "D01.3",
    "outdated" if useful.above(0.2) else "wrong" if useful.below(0.2) else "unverifiable",
    f"{percent(useful)} of the questions have right and wrong samples. Which is which a sample doesn't say: that takes "
    f"a judge. The model's own likelihood puts {percent(order)} of such pairs in order; a coin: 50 %.",
)

# %% [markdown]
# A generator gives *candidates*; the preference is who judges them: a verifier (unit tests, a calculator, a checked
# fact), a reward model, a judge. So works RLAIF and, with a verifier, reinforcement learning with
# verifiable rewards (**RLVR**, Lambert et al. 2024). Where all samples are right, or all wrong (orange), there is
# nothing to prefer: choose questions of middling difficulty.
#
# ## Augmentation, trained with
#
# Rotate, crop, mirror; synonyms, other grammar, abbreviations. Augmentation makes more *inputs* and keeps the label.
# Does it stand in for labels that nobody bought? In the digit world a reward model is trained on $n$ labeled pairs, or
# on these and changed copies of them with the same label. (The better of two rates, and when to stop, are chosen by
# 2,000 pairs of other pictures and their true order, for each arm alike; the test is on yet others. With so few labels
# nobody has that many for choosing: what counts here are differences between the arms.) How many labels an arm is
# *worth* is read off the curve of labels alone, with an interval over the seeds' logarithms.
#
# Beside it the chat model again: how many of its preferences turn over if one answer is worded otherwise? If half of
# them do, the wording alone decides.
#
# **Before the run:** the claim is *correct* if every change (moving, turning by little or by a half, cropping,
# mirroring) gains, for the whole interval over eight seeds, on the mean of all numbers of labels; *wrong* if none does;
# *imprecise* if it depends on the change.
# Controls: as many *real* labels again must gain; unchanged copies must not.

# %% claim="D01.2"
from experiments.D01_2 import ALONE, SAME, TWICE
from experiments.D01_6 import flips
from experiments.preferring import CHANGES, SIZES, gain, points

augmented = evidence("D01.2")
print(augmented.again())
gained = {arm: gain(augmented, arm, ALONE, SIZES[-2]) for arm in (*CHANGES, SAME, TWICE)}
turn = {name: 100 * np.array(flips(found, name)) for name in WORDINGS}
sure, most = sum(gained[change].above(0) for change in CHANGES), max((gained[c] for c in CHANGES), key=lambda g: g.mean)

fig, (left, right) = figure(1, 2, width=10.5, height=4.2)
for row, (arm, each) in enumerate(gained.items()):
    color = COLORS[4] if arm in (SAME, TWICE) else COLORS[0]
    left.plot([each.low, each.high], [row, row], color=color, linewidth=7, alpha=0.35)
    left.plot(each.mean, row, "o", color=color)
left.axvline(0, color="black", linewidth=1)
left.set(xlabel="gained over labels alone, points", title="digits: copies, trained with")
left.set_yticks(range(len(gained)), gained)
left.invert_yaxis()
for row, each in enumerate(turn.values()):
    right.plot(each, [row] * len(each), "D", color=COLORS[1], alpha=0.4)
    right.plot(each.mean(), row, "D", color=COLORS[1], markersize=9)
right.set(xlabel="preferences turned over, %", title="text: one answer worded otherwise", xlim=(-2, 60))
right.set_yticks(range(len(turn)), turn)
right.invert_yaxis()
show(
    fig,
    alt="Left, points gained by training with changed copies of the labeled pairs, 95 %: "
    + "; ".join(f"{arm} {points(each)}" for arm, each in gained.items())
    + ". Right, the share of preferences by likelihood that turn over if one answer is worded otherwise: "
    + "; ".join(f"{name} {each.mean():.0f} %" for name, each in turn.items())
    + ". Small marks are groups of questions.",
    title=f"{sure} of {len(CHANGES)} kinds of copies gain surely, at most {points(most)} points; real labels "
    f"{points(gained[TWICE])}; other words turn over up to {max(each.mean() for each in turn.values()):.0f} %",
)
all_gain, some_gain = sure == len(CHANGES), sure > 0
verdict(
    "D01.2",
    "correct" if all_gain else "imprecise" if some_gain else "wrong",
    "Points gained, by change: " + ", ".join(f"{arm} {points(gained[arm])}" for arm in CHANGES)
    + f"; as many real labels again {points(gained[TWICE])}. 200 pairs moved by a pixel are worth "
    f"{augmented.numbers['worth_of_200']} ({augmented.numbers['worth_of_200_range']}). One answer worded otherwise "
    "turns over "
    + ", ".join(f"{each.mean():.0f} % ({name})" for name, each in turn.items() if name != "the same again")
    + " of the model's preferences.",
)

# %% [markdown]
# What augmentation does is stretch labels that you have; it compares nothing new. And each change asserts that the
# label holds for the copy, too: a six turned upside down is a nine. In text the risk is in the answer itself. People
# may prefer an answer *for* its words: for being brief, polite, idiomatic. A paraphrase of the chosen answer is another
# answer, and somebody has to be asked again.
#
# The pairs of the right panel differ by a fact that no rewording touches. Whatever turns over there is this judge's
# taste for words. Were it a labeler, each paraphrase would be a new question to it.
#
# ## Rules vote
#
# "Expert systems and rule engines label automatically." Today this is called **weak supervision** (Ratner et al. 2017):
# several *labeling functions*, each a few lines that somebody who knows the field wrote down, vote or keep silent. In
# the digit world: *a picture with two holes is an 8; a narrow one is a 1; a hole above means 9 …*
#
# How should votes be combined? If rules err independently, Bayes' theorem says it all: with accuracy $a_j$ and $k$
# classes, a vote of rule $j$ multiplies the class it names by $a_j$ and every other one by $\frac{1 - a_j}{k - 1}$.
#
# ### Exercise: a weighted vote

# %% exercise="weighted_vote"
def weighted_vote(votes, accuracies, prior):
    """What follows from rules that are sometimes wrong and often silent.

    votes:      int64 [n, rules]: the class that each rule names for each item, from 0 to k - 1;
                -1 where it is silent. n may be 0.
    accuracies: floating-point [rules], between 0 and 1 (neither included): how often a rule is
                right when it speaks. It may be worse than chance. Else it names one of the
                other k - 1 classes, each equally likely. Silence says nothing about the class.
    prior:      floating-point [k], positive, sums to 1: the classes' shares before any vote;
                k is at least 2.

    Returns [n, k] of the accuracies' dtype: each item's probabilities of the classes by Bayes'
    theorem, the rules' errors being independent. Where all are silent that is the prior.
    Hundreds of rules must not underflow.
    """
    ### BEGIN SOLUTION
    k = len(prior)
    named = votes[:, :, None] == torch.arange(k)
    hit, miss = accuracies.log()[:, None], ((1 - accuracies) / (k - 1)).log()[:, None]
    scores = torch.where(named, hit, miss).masked_fill(votes[:, :, None] < 0, 0.0).sum(1)
    return (scores + prior.log()).softmax(-1).to(accuracies.dtype)
    ### END SOLUTION


# %% check="weighted_vote"
check(weighted_vote)

# %% [markdown]
# Try it on the real rules: six of them, on two thousand pairs that nobody labeled. Their accuracies are measured on a
# hundred pairs that somebody did.

# %% tags=["payoff"]
from experiments.D01_5 import votes as rule_votes
from experiments.preferring import POOL, pairs, pictures, pool

dice, couples, answers = pool(0)
own, label = rule_votes(couples[:100]), (1 - answers[:100]).long()  # class 0: the first is preferred
spare = pairs(dice, 2000, 0, POOL)
said = torch.where(rule_votes(spare) < 0, -1, 1 - rule_votes(spare))
own = torch.where(own < 0, -1, 1 - own)
spoke = own >= 0
accuracies = ((own == label[:, None]).sum(0) + 2.0) / (spoke.sum(0) + 3.0)
chance = weighted_vote(said, accuracies, torch.tensor([0.5, 0.5]))
truth = (pictures()[1][spare][:, 0] < pictures()[1][spare][:, 1]).long()
sure, guess = chance.max(1)
fig, (left, right) = figure(1, 2, width=10, height=3.8)
hits = [float((said[:, j] == truth)[said[:, j] >= 0].float().mean()) for j in range(said.shape[1])]
left.scatter(hits, accuracies, color=COLORS[0], s=45)
left.plot([0.4, 1], [0.4, 1], color="black", linewidth=1)
left.set(xlabel="share right on 2,000 pairs", ylabel="measured on 100 labels", title="six rules")
edges = [0.5, 0.65, 0.8, 0.9, 1.001]
groups = [(sure > low) & (sure <= high) for low, high in zip(edges, edges[1:], strict=False)]
right.plot([float(sure[g].mean()) for g in groups if g.any()],
           [float((guess == truth)[g].float().mean()) for g in groups if g.any()], "o-", color=COLORS[1])
right.plot([0.5, 1], [0.5, 1], color="black", linewidth=1)
right.set(xlabel="how sure the vote is", ylabel="share right", title="all six together")
spoken = (said >= 0).any(1)
show(
    fig,
    alt=f"Left: each rule's accuracy as {len(own)} labels have it against its share right on {len(said)} pairs. Right: "
    "the share of pairs that the weighted vote gets right, by how sure it says it is.",
    title=f"Rules speak on {spoken.float().mean():.0%} of the pairs; their vote is right on "
    f"{(guess == truth)[spoken].float().mean():.0%} of those",
)

# %% [markdown]
# And what is a reward model worth that learns from such votes, with the labels beside them?
#
# **Before the run:** *correct* if it gains over labels alone, up to 200 labels, for the whole interval over six seeds,
# with one vote a rule or with weights; *wrong* if both lose; else *imprecise*. Controls: true labels on the same pairs
# must gain, votes by chance must not.

# %% claim="D01.5"
from experiments import D01_5

ruled = evidence("D01.5")
print(ruled.again())
weak = {arm: gain(ruled, arm, D01_5.ALONE, D01_5.FEW) for arm in (D01_5.MAJORITY, D01_5.WEIGHTED)}
late, told = gain(ruled, D01_5.WEIGHTED, D01_5.ALONE, SIZES[-1], above=D01_5.FEW), ruled.numbers
fig, ax = figure(width=8.6, height=4)
shown = (D01_5.TRUTH, D01_5.WEIGHTED, D01_5.MAJORITY, D01_5.ALONE, D01_5.CHANCE)
for arm, color, mark in zip(shown, (COLORS[4], COLORS[0], COLORS[5], COLORS[6], COLORS[3]), "^os.v", strict=True):
    values = 100 * np.array(ruled.each(arm, "right"))
    ax.plot(SIZES, values.mean(0), color=color, marker=mark, label=arm)
    ax.fill_between(SIZES, values.min(0), values.max(0), color=color, alpha=0.12, linewidth=0)
ax.set(xscale="log", xlabel="pairs labeled by people", ylabel="held-out pairs in order, %")
ax.set_xticks(SIZES, SIZES)
ax.minorticks_off()
ax.legend(loc="lower right")
show(
    fig,
    alt="Held-out pairs in order against the number of labels, with rules and without. Up to 200 labels rules gain "
    + ", ".join(f"{arm}: {points(each)}" for arm, each in weak.items())
    + f" points, beyond {points(late)}. Bands are the seeds' range.",
    title=f"With six rules {SIZES[0]} labels are worth {told['majority_of_25']} ({told['majority_of_25_range']}) at "
    f"one vote each, weighted {told['weighted_of_25']} ({told['weighted_of_25_range']})",
)
verdict(
    "D01.5",
    "correct" if any(each.above(0) for each in weak.values()) else "wrong"
    if all(each.below(0) for each in weak.values()) else "imprecise",
    f"Up to {D01_5.FEW} labels, rules with one vote each gain {points(weak[D01_5.MAJORITY])} points, weighted ones "
    f"{points(weak[D01_5.WEIGHTED])}; beyond, {points(late)}.",
)

# %% [markdown]
# Do rules help where labels are few, and what is left of them on the right? No number of pairs cures a rule's errors:
# they are the same on the next two thousand, and a model that has learned them has to be taught otherwise. Where a rule
# is exact (a proof checker, a calculator, unit tests if they are good), there is no such ceiling: that is why verified
# rewards matter so much for code and mathematics.
#
# ## Let the model label
#
# "Few labels and many unlabeled data." The plainest way is **self-training**: train on what you have, label the rest
# with the model, keep what it is sure of as **pseudo-labels**, train again.
#
# ### Exercise: pseudo-labels

# %% exercise="pseudo_label"
def pseudo_label(probabilities, labels, threshold=0.9):
    """A model's own sure answers become labels.

    probabilities: floating-point [n, k], each row a distribution over the classes; n may be 0.
    labels:        int64 [n]: a class from 0 to k - 1, or -1 where nobody has labeled the item.
    threshold:     a float.

    Returns int64 [n], a new tensor: given labels stay; an item without one gets its most
    probable class (of equally probable ones the first) if that class's probability is above
    threshold (exactly threshold is not enough), and else stays -1.
    As one round of scikit-learn's SelfTrainingClassifier.
    """
    ### BEGIN SOLUTION
    sure = probabilities.amax(-1) > threshold
    return torch.where((labels == -1) & sure, probabilities.argmax(-1), labels)
    ### END SOLUTION


# %% check="pseudo_label"
check(pseudo_label)

# %% [markdown]
# Self-training on the digits themselves, with a model that is good at them. Forty of nine hundred pictures are labeled.
# Your function labels what a logistic regression is sure of; from these it learns again, and so on.

# %% tags=["payoff"]
from sklearn.linear_model import LogisticRegression

from experiments.preferring import pictures

START, ROUNDS = 40, 6
shapes, digits = pictures()
shapes, rounds = shapes.flatten(1), []
for seed in range(5):
    labels = torch.full((900,), -1)
    some = torch.randperm(900, generator=torch.Generator().manual_seed(seed))[:START]
    labels[some] = digits[:900][some]
    scores = []
    for _ in range(ROUNDS):
        known = labels >= 0
        model = LogisticRegression(C=10.0, max_iter=100).fit(shapes[:900][known], labels[known])
        hold = (labels == digits[:900])[known].float().mean()
        scores.append((model.score(shapes[900:], digits[900:]), float(hold)))
        chances = torch.zeros(900, 10, dtype=torch.float64)
        chances[:, model.classes_] = torch.tensor(model.predict_proba(shapes[:900]))
        labels = pseudo_label(chances, labels, 0.9)
    rounds.append(scores)
test, hold = 100 * np.array(rounds).transpose(2, 0, 1)
change = interval((test[:, -1] - test[:, 0]).tolist())
fig, ax = figure(width=8, height=3.6)
ax.plot(range(ROUNDS), test.T, color=COLORS[0], alpha=0.4, linewidth=1)
ax.plot(range(ROUNDS), test.mean(0), color=COLORS[0], marker="o", label="test pictures right")
ax.plot(range(ROUNDS), hold.mean(0), color=COLORS[1], marker="s", linestyle="--", label="labels that hold")
ax.set(xlabel="round", ylabel="%")
ax.legend()
show(
    fig,
    alt=f"By the round of self-training: test pictures right, from {test[:, 0].mean():.1f} to "
    f"{test[:, -1].mean():.1f} %, and labels that hold, from {hold[:, 0].mean():.1f} to {hold[:, -1].mean():.1f} %. "
    f"{len(test)} seeds.",
    title=f"Self-training from {START} labels: {change.text('+.1f').replace('-', '−')} points, and "
    f"{hold[:, -1].mean():.0f} % of the labels hold",
)

# %% [markdown]
# ## What unlabeled data is worth, and which label to buy
#
# Back to preferences. Three ways to get more out of few labels, against plain labels:
#
# * **pseudo-labels** of which the reward model is at least 95 % sure, two rounds;
# * **clusters**: first look at the pictures without any label ($k$-means, 60 clusters), then learn a reward a cluster.
#   That is another model, too. So it is held against the same one on clusters of the labeled pictures alone;
# * **active learning**: spend the labels on the pairs whose order is least clear to the model (*uncertainty sampling*).
#   The control is what everybody should compare with: random pairs, "labels alone".
#
# **Before the run** (the claim is about unlabeled data, the first two): *correct* if one of them gains, up to 200
# labels, for the whole interval over three seeds; *wrong* if both lose; else *imprecise*. Controls: people's labels
# on the pairs that the pseudo-labels chose must gain, drawn labels must not. (The labeled pictures' clusters came after
# a first look, in which clusters were held against the other model.)

# %% claim="D01.4"
from experiments import D01_4

few = evidence("D01.4")
print(few.again())
over = {D01_4.ITSELF: D01_4.ALONE, D01_4.CLUSTERS: D01_4.OWN}  # the same model without unlabeled pictures
ways = {arm: gain(few, arm, minus, D01_4.FEW) for arm, minus in over.items()}
model = gain(few, D01_4.OWN, D01_4.ALONE, D01_4.FEW)
active = gain(few, D01_4.CLOSEST, D01_4.ALONE, SIZES[-2])
told = few.numbers
fig, ax = figure(width=8.6, height=4.2)
shown = (D01_4.CLUSTERS, D01_4.OWN, D01_4.CLOSEST, D01_4.ITSELF, D01_4.ALONE)
for arm, color, mark in zip(shown, (COLORS[2], COLORS[3], COLORS[0], COLORS[1], COLORS[6]), "^vos.", strict=True):
    values = 100 * np.array(few.each(arm, "right"))
    ax.plot(SIZES[: values.shape[1]], values.mean(0), color=color, marker=mark, label=arm)
    ax.fill_between(SIZES[: values.shape[1]], values.min(0), values.max(0), color=color, alpha=0.12, linewidth=0)
ax.set(xscale="log", xlabel="pairs labeled by people", ylabel="held-out pairs in order, %")
ax.set_xticks(SIZES[:-1], SIZES[:-1])
ax.minorticks_off()
ax.legend(loc="lower right")
show(
    fig,
    alt="Held-out pairs in order against the number of labels. Up to 200 labels the gain in points is "
    + ", ".join(f"{arm} over {over[arm]}: {points(each)}" for arm, each in ways.items())
    + f"; {D01_4.OWN} over labels alone: {points(model)}; active learning, over all sizes: {points(active)}. Bands are "
    "the seeds' range.",
    title=f"Up to {D01_4.FEW} labels unlabeled pictures gain {points(ways[D01_4.ITSELF])} points as pseudo-labels, "
    f"{points(ways[D01_4.CLUSTERS])} as clusters",
)
verdict(
    "D01.4",
    "correct" if any(each.above(0) for each in ways.values()) else "wrong"
    if all(each.below(0) for each in ways.values()) else "imprecise",
    f"Up to {D01_4.FEW} labels: pseudo-labels {points(ways[D01_4.ITSELF])} points; clusters of unlabeled pictures "
    f"{points(ways[D01_4.CLUSTERS])} over clusters of the labeled ones, and these {points(model)} over labels alone. "
    f"Pairs chosen for closeness, over all sizes: {points(active)}; {D01_4.FEW} of them are worth "
    f"{told['closest_of_200']} ({told['closest_of_200_range']}).",
)

# %% [markdown]
# So which part of the clusters' lead is the unlabeled pictures', and which is the model's? Without the second arm
# nobody could have said. A pseudo-label tells a model what it already believes, also where that is wrong. (With the
# digits themselves self-training had its own result.) What this toy can't show is **pretraining**: a reward model that
# starts from a pretrained network *is* semi-supervised learning, too.
#
# Choosing what to label costs no label, once a model is there. It has a known failure: pairs near the border are those
# on which people themselves disagree, so it buys the noisiest labels. Always keep random pairs as a control, and for
# the test.
#
# ## From preferences to a policy: DPO
#
# Now train on preferences. Reinforcement learning from human feedback (RLHF) fits a reward $r$ to the votes and then
# trains the **policy** $\pi$, the model that answers, to earn much of it. A penalty of weight $\beta$ on its KL
# divergence from a reference $\pi_\text{ref}$, the model before this training, keeps it near. The maximum has a closed
# form:
#
# $$\pi^*(y) \propto \pi_\text{ref}(y)\, e^{r(y) / \beta}.$$
#
# Rafailov et al. (2023) turn it round: $r(y) = \beta \log \frac{\pi^*(y)}{\pi_\text{ref}(y)} + \text{const}$. So the
# policy *is* a reward model. Put that into Bradley and Terry's loss, and no reward is left to fit
# (**direct preference optimization**):
#
# $$L = -\log \sigma\Big(\beta \log \frac{\pi(y_c)}{\pi_\text{ref}(y_c)}
# - \beta \log \frac{\pi(y_r)}{\pi_\text{ref}(y_r)}\Big).$$
#
# If a share $\varepsilon$ of the votes is wrong, mix in the loss of the opposite vote with that weight (conservative
# DPO). With text, $\log \pi(y)$ is a **sum** over the answer's tokens; prompt and padding stay out.
#
# Two traps in libraries (scripts in `findings/`). With an adapter one takes the model *without* it as the reference;
# PiSSA and OLoRA in peft 0.21.2 change the base as well, so keep the old model. And a reward model of transformers 5.23
# whose padding token is EOS scores a text at the token *before* its EOS: give padding a token of its own.
#
# ### Exercise: the DPO loss

# %% exercise="dpo_loss"
def dpo_loss(policy, reference, mask, beta=0.1, label_smoothing=0.0):
    """Direct preference optimization: the policy's own log-probabilities are the reward.

    policy, reference: floating-point [2, pairs, n], log-probabilities of the tokens under the
                       policy and under the reference; [0] are the chosen answers, [1] the
                       rejected ones. At least one pair.
    mask:              bool [2, pairs, n], True = a token of the answer. What stands elsewhere
                       (prompt, padding) doesn't matter; it may be -inf. An answer may be empty.
    beta:              a float above 0. label_smoothing: the share e of wrong votes.

    An answer's reward is beta times its log-ratio, policy against reference, summed over its
    tokens. A pair's loss, with the margin m = chosen reward - rejected reward, is
    -(1 - e) * log sigmoid(m) - e * log sigmoid(-m); it is finite for every finite m.
    Returns (loss, rewards) of the policy's dtype: the mean of the losses over the pairs, and
    the rewards [2, pairs], for the log. Gradients flow from the loss to policy, none to
    reference.
    Rafailov et al. 2023, arXiv:2305.18290.
    """
    ### BEGIN SOLUTION
    rewards = beta * torch.where(mask, policy - reference.detach(), 0.0).sum(-1)
    margin = rewards[0] - rewards[1]
    losses = -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
    return losses.mean(), rewards.detach()
    ### END SOLUTION


# %% check="dpo_loss"
check(dpo_loss)

# %% [markdown]
# ### Against the closed form
#
# A policy so small that we can solve it: one question, six possible answers, six logits. Votes are drawn by Bradley and
# Terry from rewards that we know. Does DPO find $\pi^*$? And how many votes does it take?

# %% tags=["payoff"]
REWARD = torch.tensor([1.0, 0.6, 0.2, -0.2, -0.6, -1.0])
REFERENCE = torch.tensor([0.05, 0.1, 0.2, 0.3, 0.2, 0.15]).log()


def tuned(votes, beta, seed=0, steps=150):
    """Six probabilities, trained by your loss on drawn votes."""
    dice = torch.Generator().manual_seed(seed)
    pair = torch.stack([torch.randperm(6, generator=dice)[:2] for _ in range(votes)])
    first = torch.rand(votes, generator=dice) < torch.sigmoid(REWARD[pair[:, 0]] - REWARD[pair[:, 1]])
    chosen = torch.where(first[:, None], pair, pair.flip(1)).T[..., None]  # [2, votes, 1]
    logits = REFERENCE.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], 0.1)
    for _ in range(steps):
        loss, _ = dpo_loss(logits.log_softmax(-1)[chosen], REFERENCE[chosen], torch.ones_like(chosen, dtype=bool), beta)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return logits.detach().softmax(-1)


VOTES, BETAS = [20, 100, 500, 2500], [0.3, 1.0, 3.0]
best = {beta: (REFERENCE + REWARD / beta).softmax(-1) for beta in BETAS}
off = {beta: [[float((tuned(n, beta, seed) - best[beta]).abs().sum() / 2) for seed in range(3)]
              for n in VOTES]
       for beta in BETAS}
fig, (left, right) = figure(1, 2, width=10.3, height=3.9)
place = np.arange(6)
left.bar(place - 0.27, REFERENCE.exp().numpy(), 0.26, color="#bbbbbb", label="reference")
left.bar(place, best[BETAS[1]].numpy(), 0.26, color=COLORS[1], label="closed form")
left.bar(place + 0.27, tuned(VOTES[-1], BETAS[1]).numpy(), 0.26, color=COLORS[0], label=f"DPO, {VOTES[-1]:,} votes")
left.set(xlabel="answer, by falling reward", ylabel="probability", title=f"β = {BETAS[1]:g}", xticks=place)
left.set_xticklabels(range(1, 7))
left.set(ylim=(0, 0.42))
left.legend(loc="upper left")
for beta, color, mark in zip(BETAS, COLORS, "os^", strict=False):
    values = np.array(off[beta])
    right.plot(VOTES, values.mean(1), color=color, marker=mark, label=f"β = {beta:g}")
    right.fill_between(VOTES, values.min(1), values.max(1), color=color, alpha=0.15, linewidth=0)
right.set(xscale="log", xlabel="votes", ylabel="distance to the closed form\n(total variation)", ylim=(0, None))
right.set_xticks(VOTES, [f"{n:,}" for n in VOTES])
right.minorticks_off()
right.legend()
show(
    fig,
    alt="Left: probabilities of six answers: reference, closed form, DPO. Right: total variation between DPO and the "
    "closed form against the number of votes: " + "; ".join(
        f"beta {beta:g}: {np.mean(row[0]):.2f} to {np.mean(row[-1]):.2f}" for beta, row in off.items()
    ),
    title=f"Distance to the closed form at β = {BETAS[0]:g}: {np.mean(off[BETAS[0]][0]):.2f} with {VOTES[0]} votes, "
    f"{np.mean(off[BETAS[0]][-1]):.2f} with {VOTES[-1]:,}",
)

# %% [markdown]
# By the algebra DPO gets there as votes and steps grow. With few votes it can't: trained to the end, an answer that has
# never won loses everything, at any $\beta$. And where all answers have won and lost, an error in the reward is divided
# by $\beta$, so that a small $\beta$ needs more votes.
#
# ### Where it fails: length
#
# Suppose labelers have a tiny taste for length, $c$ nats a token: of two answers they prefer the longer one with
# probability $\sigma(c \,\Delta)$. The closed form shows what becomes of it. With a reference that stops after each
# token with probability $p$, $\pi^*(L) \propto \big((1 - p)\, e^{c/\beta}\big)^L$: a mean length of
#
# $$\frac{1}{1 - (1 - p)\, e^{c / \beta}},$$
#
# which has no limit once $c/\beta \ge -\log(1 - p)$. Train it: a policy of one number, its probability to stop.

# %% tags=["payoff"]
STOP, BETA, LONGEST = 0.05, 1.0, 120


def lengthened(taste, votes=4000, steps=100):
    """The mean length of answers after training, from a reference with a mean of 1 / STOP tokens."""
    dice = torch.Generator().manual_seed(0)
    lengths = 1 + torch.log(torch.rand(2, votes, generator=dice)).div(math.log(1 - STOP)).floor().clamp(max=LONGEST - 1)
    longer = torch.rand(votes, generator=dice) < torch.sigmoid(taste * (lengths[0] - lengths[1]))
    lengths = torch.where(longer, lengths, lengths.flip(0))
    mask = torch.arange(LONGEST) < lengths[..., None]
    last = torch.arange(LONGEST) == lengths[..., None] - 1

    def said(stop):
        return torch.where(last, stop.log(), (1 - stop).log())

    logit = torch.tensor(STOP).logit().requires_grad_()
    optimizer = torch.optim.Adam([logit], 0.05)
    for _ in range(steps):
        loss, _ = dpo_loss(said(logit.sigmoid()), said(torch.tensor(STOP)), mask, BETA)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return 1 / float(logit.detach().sigmoid())


TASTES = [0.0, 0.01, 0.02, 0.03, 0.04]
grown = [lengthened(taste) for taste in TASTES]
finer = np.linspace(0, 0.043, 50)
prefer = {taste: 100 / (1 + math.exp(-10 * taste)) for taste in TASTES}  # percent, with ten tokens more
fig, ax = figure(width=8, height=3.7)
ax.plot(100 * torch.sigmoid(10 * torch.tensor(finer)), 1 / (1 - (1 - STOP) * np.exp(finer / BETA)), color=COLORS[1],
        label="closed form")
ax.plot(list(prefer.values()), grown, "o", color=COLORS[0], label="trained with DPO")
ax.axhline(1 / STOP, color="black", linestyle=":", linewidth=1, label="reference")
ax.set(xlabel="votes for an answer that is ten tokens longer, %", ylabel="mean length after training, tokens")
ax.legend()
show(
    fig,
    alt="Mean length after training against labelers' taste for length, closed form and trained: "
    + "; ".join(f"{prefer[taste]:.1f} %: {length:.0f}" for taste, length in zip(TASTES, grown, strict=True)),
    title=f"β = {BETA:g}: if {prefer[TASTES[-1]]:.0f} % prefer ten tokens more, {1 / STOP:.0f} tokens become "
    f"{grown[-1]:.0f}",
)

# %% [markdown]
# Only $c/\beta$ counts. At $\beta = 0.1$, a usual value, a tenth of that taste does the same: 51 votes of 100 for an
# answer that is ten tokens longer. Nobody would see it in the votes, and the luck of a thousand votes is of that size.
# Remedies divide by the length (SimPO, Meng et al. 2024) or subtract a penalty for it (R-DPO, Park et al. 2024);
# or lengths are balanced in the data.
#
# ### Where it can fail: the chosen answer gets less likely, too
#
# DPO asks for a *margin*. Nothing in the loss asks that the chosen answer become likely: both may fall, if the rejected
# one falls faster. Razin et al. (2024) call it **likelihood displacement** and find it worst where the two answers are
# similar, so that what pushes one down pulls at the other.
#
# First a toy: three words with fixed output vectors, those of "No" and "Never" similar, and a state in two dimensions
# that learns. Then the real model: eight questions whose true answer is "No". The rejected answer is once "Never", once
# "Yes". Only the last layer learns, for eight steps at one rate. Does the chosen word get likelier?

# %% tags=["payoff"]
model, tokenizer = smollm()
QUESTIONS = ["Is fire cold?", "Is the sun a planet?", "Can fish drive cars?", "Is ice hot?", "Do stones eat bread?",
             "Is the moon made of cheese?", "Can a cow fly?", "Is seven an even number?"]
prompts = [tokenizer.apply_chat_template([{"role": "user", "content": q + " Answer with one word."}], tokenize=False,
                                         add_generation_prompt=True) for q in QUESTIONS]
rows = [tokenizer(prompt, return_tensors="pt").input_ids for prompt in prompts]
word = {w: tokenizer(w, add_special_tokens=False).input_ids[0] for w in ("No", "Never", "Yes")}
learns = model.model.layers[-1:]
before = copy.deepcopy(learns.state_dict())


reached = []  # what the layers that learn are given, for each question: it never changes
hook = learns[0].register_forward_pre_hook(lambda _, given, named: reached.append((given, named)), with_kwargs=True)
with torch.no_grad():
    for row in rows:
        model(row, use_cache=False)
hook.remove()


def next_word():
    """Log-probabilities of the first word of the answer, [questions, vocabulary]."""
    ends = []
    for (state, *more), named in reached:
        for layer in learns:
            out = layer(state, *more, **named)
            state = out if torch.is_tensor(out) else out[0]
        ends.append(state[:, -1])
    return model.lm_head(model.model.norm(torch.cat(ends))).float().log_softmax(-1)


def displaced(rejected, steps=8, rate=3e-5):
    """Log-probability of each of the three words after each question, by the steps of DPO."""
    learns.load_state_dict(before)
    both, curve = torch.tensor([word["No"], word[rejected]]), []
    model.requires_grad_(False)
    learns.requires_grad_(True)
    optimizer = torch.optim.Adam(learns.parameters(), rate)
    reference = None
    for step in range(steps + 1):
        odds = next_word()
        curve.append({w: odds[:, i].tolist() for w, i in word.items()})
        if step < steps:
            policy = odds[:, both].T[..., None]
            reference = policy.detach() if reference is None else reference
            loss, _ = dpo_loss(policy, reference, torch.ones_like(policy, dtype=torch.bool), 0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    learns.load_state_dict(before)
    model.requires_grad_(True)
    return curve


def displaced_in_a_toy(steps=8):
    """The same for three words with fixed output vectors, where only the state learns."""
    vectors = torch.tensor([[1.0, 0.0], [1.8, 0.4], [-1.2, 0.3]])  # No, Never, Yes
    state = torch.tensor([0.0, -3.0], requires_grad=True)
    optimizer, curve, reference = torch.optim.Adam([state], 0.3), [], None
    for _ in range(steps + 1):
        odds = (vectors @ state).log_softmax(-1)
        curve.append({w: [each] for w, each in zip(word, odds.tolist(), strict=True)})
        policy = odds[:2, None, None]
        reference = policy.detach() if reference is None else reference
        loss, _ = dpo_loss(policy, reference, torch.ones_like(policy, dtype=torch.bool), 0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return curve


curves = {"toy: No preferred to Never": displaced_in_a_toy()}
curves |= {f"No preferred to {rejected}": displaced(rejected) for rejected in ("Never", "Yes")}
fig, axes = figure(1, 3, width=10.5, height=3.8)
for ax, (name, curve) in zip(axes, curves.items(), strict=True):
    for (w, color), mark in zip({"No": COLORS[0], "Never": COLORS[1], "Yes": COLORS[2]}.items(), "os^", strict=True):
        ax.plot([np.mean(each[w]) for each in curve], color=color, marker=mark, label="No (chosen)" if w == "No" else w)
    ax.set(xlabel="step of DPO", title=name)
axes[0].set(ylabel="log-probability")
axes[1].legend()
moved = {name: interval(np.subtract(curve[-1]["No"], curve[0]["No"])) for name, curve in curves.items()}
in_toy, never, yes = moved.values()
show(
    fig,
    alt="Log-probability of the words No, Never and Yes over the steps of DPO, in a toy and (mean of eight questions) "
    "in the real model. No, the chosen word, changes by "
    + "; ".join(f"{change.mean:+.2f} nats ({name})" for name, change in moved.items()),
    title=f"The chosen word changes by {in_toy.mean:+.1f} nats in the toy; in the real model by {never.text('+.1f')} "
    f"against Never, {yes.text('+.1f')} against Yes (95 %, eight questions)",
)

# %% [markdown]
# The loss asks for the gap between the chosen and the rejected word. Look at the blue line alone: the loss doesn't say
# where it goes, so that is up to the model and the pair. So log both log-probabilities in training, never the
# margin alone; a margin that grows says nothing about what the model will say. Cures: add the chosen answer's own
# likelihood to the loss (as in supervised fine-tuning, SFT), drop pairs whose two answers are nearly the same, or
# collect new answers from the current policy (on-policy), so that what is pushed down is what it says.
#
# ## What you have now
#
# * Strengths come with a covariance. Half the interval costs four times the votes.
# * Before you believe a judge: swap, kappa, lengths. And try another way to ask it.
# * Samples are candidates. The preference is made by whoever judges: verifier, reward model, judge, people.
# * Augmentation stretches labels, rules give a head start, unlabeled data has structure, choosing what to label
#   costs no label. Each of them is worth a number of labels, and that number can be measured.
# * DPO is a reward model in disguise, with its biases multiplied by $1/\beta$, and it wants margins, not likely
#   answers.
#
# And the first line of the notes' list, open data, is simply right: HH-RLHF (Bai et al. 2022), UltraFeedback (Cui et
# al. 2023) and their like cost nothing but reading the license, and looking at who judged: people for the first, GPT-4
# for the second.
#
# **Sources.** Bradley and Terry 1952, Biometrika 39(3/4); Cohen 1960, Educational and Psychological Measurement 20(1);
# Rafailov et al. 2023, [arXiv:2305.18290](https://arxiv.org/abs/2305.18290) (DPO); Razin et al. 2024,
# [arXiv:2410.08847](https://arxiv.org/abs/2410.08847) (likelihood displacement); Meng et al. 2024,
# [arXiv:2405.14734](https://arxiv.org/abs/2405.14734) (SimPO); Park et al. 2024,
# [arXiv:2403.19159](https://arxiv.org/abs/2403.19159) (length); Zheng et al. 2023,
# [arXiv:2306.05685](https://arxiv.org/abs/2306.05685) (judges); Lee et al. 2023,
# [arXiv:2309.00267](https://arxiv.org/abs/2309.00267) (RLAIF); Bai et al. 2022,
# [arXiv:2212.08073](https://arxiv.org/abs/2212.08073) (constitutional AI) and
# [arXiv:2204.05862](https://arxiv.org/abs/2204.05862) (HH-RLHF); Cui et al. 2023,
# [arXiv:2310.01377](https://arxiv.org/abs/2310.01377) (UltraFeedback); Ratner et al. 2017,
# [arXiv:1711.10160](https://arxiv.org/abs/1711.10160) (weak supervision); Lambert et al. 2024,
# [arXiv:2411.15124](https://arxiv.org/abs/2411.15124) (verified rewards).
