# ---
# jupyter:
#   course:
#     title: "Metrics, and where they lie"
#     exercises: applications.metrics
#     questions: [A09]
#     needs: []
# ---

# %% [markdown]
# # Metrics, and where they lie
#
# A metric turns a thousand answers into one number. That is its use, and its danger: every metric was made for a
# question, and answers another one politely if you ask it.
#
# You will build the metrics of the usual interview list: counting hits, ranking, regression, BLEU, ROUGE, perplexity,
# retrieval. Each is a few lines, and each has a detail that is easily got wrong. Along the way you look for cases where
# a metric says something else than one thinks it does. At the end stand the tools that the usual list leaves out.

# %% tags=["setup"]
import math
import re
from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F

from autograde import check
from labkit import COLORS, SEQUENTIAL, figure, minilm, shakespeare, show, smollm, verdict

# %% [markdown]
# ## Accuracy, and how to be right by saying nothing
#
# Our first model is a **detector**: is this picture of a digit an 8? It is a logistic regression, and we test it on 898
# pictures that it has not seen. It is held back on purpose (`C=1e-4`): what tells all eights from the rest suits every
# metric. Then we ask how it would do where eights are rarer. For that the same pictures are counted with weights, so
# that eights make up 50 %, 10 %, 1 % of all.
#
# "Accuracy suits tasks whose classes are about equally frequent." What happens elsewhere? For each share we give the
# detector the threshold with the *highest accuracy* (on these very pictures, which flatters it a little), and then look
# how many eights it still finds.
#
# **Before the run:** accuracy *suits* a share of eights if the threshold that it likes best still finds half of them.
# *Correct* if it suits 50 % and not 1 %, *imprecise* if it suits both, *wrong* if it doesn't even suit 50 %.

# %% claim="A09.2"
SHARES = [0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005]
from sklearn import metrics as judge
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import LinearRegression, LogisticRegression

pictures, digits = load_digits(return_X_y=True)
seen = np.arange(len(digits)) % 2 == 0
detector = LogisticRegression(C=1e-4, max_iter=300).fit(pictures[seen], digits[seen] == 8)
scores, is_eight = detector.decision_function(pictures[~seen]), digits[~seen] == 8


def weights_for(share):
    """A weight for each test picture, so that eights make up `share` of the whole."""
    return np.where(is_eight, share / is_eight.mean(), (1 - share) / (1 - is_eight.mean()))


def most_accurate(share, scores=scores):
    """(accuracy, share of eights that are found) at the threshold with the highest accuracy."""
    weights, levels = weights_for(share), [*np.unique(scores), np.inf]
    right = [np.average((scores >= level) == is_eight, weights=weights) for level in levels]
    best = int(np.argmax(right))
    return right[best], np.mean(scores[is_eight] >= levels[best])


accuracy, found = np.array([most_accurate(share) for share in SHARES]).T
fig, ax = figure(width=8.6, height=3.7)
ax.plot(SHARES, 100 * accuracy, color=COLORS[0], marker="o", label="accuracy of the detector")
ax.plot(SHARES, [100 * max(s, 1 - s) for s in SHARES], color=COLORS[4], linestyle=":", label="accuracy of saying 'no'")
ax.plot(SHARES, 100 * found, color=COLORS[1], marker="s", linestyle="--", label="eights that it finds (recall)")
ax.set(xscale="log", xlabel="share of eights, %", ylabel="%", ylim=(0, 103))
ax.set_xticks(SHARES, [f"{100 * s:g}" for s in SHARES])
ax.minorticks_off()
ax.invert_xaxis()
ax.legend(loc="lower left")
show(
    fig,
    alt="By the share of eights, the accuracy of the most accurate detector and the eights that it finds: " + "; ".join(
        f"{share:.1%}: {right:.1%}, {hit:.0%}" for share, right, hit in zip(SHARES, accuracy, found, strict=True)
    ) + ". Always saying no comes to the accuracy of what is left.",
    title=f"From 50 % to 1 % eights: accuracy {accuracy[0]:.0%} to {accuracy[5]:.1%}, "
    f"eights found {found[0]:.0%} to {found[5]:.0%}",
)
strong = LogisticRegression(C=0.01, max_iter=300).fit(pictures[seen], digits[seen] == 8)
right, hit = most_accurate(0.01, strong.decision_function(pictures[~seen]))
print(f"A detector that is held back less, at 1 % eights: accuracy {right:.1%}, eights found {hit:.0%}")
suits = {share: hits >= 0.5 for share, hits in zip(SHARES, found, strict=True)}
verdict(
    "A09.2",
    "wrong" if not suits[0.5] else "imprecise" if suits[0.01] else "correct",
    f"At the most accurate threshold the detector finds {found[0]:.0%} of the eights where they are half of all, and "
    f"{found[5]:.0%} where they are 1 %; the accuracy is {accuracy[0]:.1%} and {accuracy[5]:.1%}.",
)

# %% [markdown]
# Where a class is rare, a model that always says "no" looks excellent: it errs only as often as the class occurs. What
# the favorite threshold of accuracy still finds there, the dashed line says for a detector that is often unsure, and
# the line under the figure for one that isn't.
#
# The cure is to look at *which* errors happen. The **confusion matrix** counts, for every true class, what it was
# taken for. Precision, recall and F1 are read off it.
#
# ### Exercise 1: the confusion matrix

# %% exercise="confusion_matrix"
def confusion_matrix(targets, predictions, n_classes):
    """How often each true class was taken for each class.

    targets, predictions: int64 tensors [n] of classes from 0 to n_classes - 1; n may be 0. Not
                          every class need occur
    n_classes:            an int of at least 1

    Returns int64 [n_classes, n_classes]: entry [i, j] is the number of examples of true class i
    that were predicted as j. So rows are the truth, as in scikit-learn (some books have it the
    other way round).
    """
    ### BEGIN SOLUTION
    pairs = targets * n_classes + predictions
    return torch.bincount(pairs, minlength=n_classes**2).view(n_classes, n_classes)
    ### END SOLUTION


# %% check="confusion_matrix"
check(confusion_matrix)

# %% [markdown]
# Now a classifier of all ten digits, naive Bayes. One number says how many answers are right. Your matrix says which
# are wrong.

# %% tags=["payoff"]
from sklearn.naive_bayes import GaussianNB

truth = torch.from_numpy(digits[~seen])
guesses = torch.from_numpy(GaussianNB().fit(pictures[seen], digits[seen]).predict(pictures[~seen]))
matrix = confusion_matrix(truth, guesses, 10)
errors = matrix - matrix.diag().diag()
true, called = divmod(int(errors.argmax()), 10)
fig, ax = figure(width=5.8, height=4.6)
picture = ax.imshow(matrix, cmap=SEQUENTIAL)
for (i, j), count in np.ndenumerate(matrix.numpy()):
    if count:
        ax.text(j, i, count, ha="center", va="center", fontsize=9, color="black" if count > 45 else "white")
ax.set(xlabel="predicted digit", ylabel="true digit", xticks=range(10), yticks=range(10))
fig.colorbar(picture, label="pictures")
show(
    fig,
    alt=f"The confusion matrix of ten digits. The largest number beside the diagonal: {errors.max()} times the digit "
    f"{true} was taken for the digit {called}.",
    title=f"{float(matrix.diag().sum() / matrix.sum()):.0%} right. Most frequent error: {true} is taken for {called}",
)

# %% [markdown]
# ## Precision, recall, F1
#
# For one class, three counts matter: the *hits* (on the diagonal), how often the class was *called* (its column), how
# often it *occurs* (its row).
#
# $$p = \frac{\text{hits}}{\text{called}}, \qquad r = \frac{\text{hits}}{\text{occurs}}, \qquad
# F_1 = \frac{2pr}{p + r}$$
#
# $F_1$ is the **harmonic** mean, and that is the point. A model that calls everything an 8 has a recall of 1 and a
# precision of, say, 0.01. Their arithmetic mean is a comfortable 0.5; the harmonic mean is 0.02.
#
# With several classes there are three ways to one number:
#
# * **macro**: the plain mean over the classes. A rare class counts as much as a frequent one.
# * **weighted**: the mean with each class's frequency as its weight.
# * **micro**: add up the counts of all classes, then divide. If every example gets one label, that *is* the accuracy.
#
# ### Exercise 2: precision, recall, F1

# %% exercise="precision_recall_f1"
def precision_recall_f1(matrix, average):
    """Precision, recall and F1 from a confusion matrix.

    matrix:  int64 [classes, classes], rows are the truth, columns the predictions; at least one
             example in it
    average: "none": one value a class, "macro": their plain mean over all classes of the
             matrix, "weighted": their mean weighted by how often each class occurs, "micro":
             from the counts added up over all classes

    0/0 is 0 everywhere: the precision of a class that is never predicted, the recall of one
    that never occurs, and F1 where both are 0. Such classes count in the macro mean like all
    others. Macro and weighted F1 are means of the classes' F1.

    Returns float32 or float64: [3, classes] for "none", else [3]: precision, recall, F1. As
    scikit-learn's precision_recall_fscore_support with zero_division=0 and all labels.
    """
    ### BEGIN SOLUTION
    hits, called, occurs = matrix.diag().double(), matrix.sum(0), matrix.sum(1)
    if average == "micro":
        return (hits.sum() / matrix.sum()).expand(3)
    wholes = torch.stack([called, occurs, called + occurs]).clamp(min=1)
    each = torch.stack([hits, hits, 2 * hits]) / wholes
    if average == "none":
        return each
    return each.mean(1) if average == "macro" else (each * occurs).sum(1) / occurs.sum()
    ### END SOLUTION


# %% check="precision_recall_f1"
check(precision_recall_f1)

# %% [markdown]
# The same classifier, on a test with ever fewer of the digits that it does badly. Nothing about the model changes, only
# what it is asked.

# %% tags=["payoff"]
each = precision_recall_f1(matrix, "none")
hard = each[1].argsort()[:4]
kept = [1.0, 0.5, 0.2, 0.1, 0.05]
rows = {name: [] for name in ("micro", "macro", "weighted")}
for share in kept:
    thinned = matrix.clone()
    thinned[hard] = (thinned[hard] * share).round().long()
    for name, values in rows.items():
        values.append(float(precision_recall_f1(thinned, name)[2]))
fig, ax = figure(width=8.0, height=3.5)
for (name, values), color, mark in zip(rows.items(), COLORS, "os^", strict=False):
    ax.plot([100 * share for share in kept], values, color=color, marker=mark, label=f"{name} F1")
ax.set(xscale="log", xlabel="share of the four hardest digits that stays in the test, %", ylabel="F1")
ax.set_xticks([100 * share for share in kept], [f"{100 * share:g}" for share in kept])
ax.minorticks_off()
ax.invert_xaxis()
ax.legend()
show(
    fig,
    alt="Micro, macro and weighted F1 of one classifier while its four hardest digits become rarer in the test.",
    title="One model, fewer hard digits: micro F1 "
    + ", macro F1 ".join(f"{rows[name][0]:.2f} to {rows[name][-1]:.2f}" for name in ("micro", "macro")),
)

# %% [markdown]
# So say with an F1 how it was averaged. And there are two "macro F1" about: the mean of the classes' F1, as here,
# and the F1 of mean precision and mean recall, which is never lower (Opitz and Burst 2019,
# [arXiv:1911.03347](https://arxiv.org/abs/1911.03347)). Say which.
#
# ## ROC AUC: all thresholds at once
#
# Precision and recall need a threshold. The **ROC curve** tries them all: share of positives found (the *true positive
# rate*) against share of negatives called by mistake (the *false positive rate*). The area under it has a meaning one
# can say in a sentence: take a positive and a negative at random; the AUC is the probability that the positive has the
# higher score.
#
# $$\text{AUC} = P(s^+ > s^-) + \tfrac{1}{2} P(s^+ = s^-)$$
#
# The second term is what gets forgotten. Models that give coarse scores (a judge that answers 1 to 5) tie all the time.
# A library can make ties, too: torchmetrics 1.9.0 puts scores outside 0 to 1 through a sigmoid first, in their own
# precision, and float32's log-likelihoods of −120 and −210 both become 0 ([its issue
# 2819](https://github.com/Lightning-AI/torchmetrics/issues/2819)).
#
# ### Exercise 3: the area under the ROC curve

# %% exercise="roc_auc"
def roc_auc(scores, labels):
    """The area under the ROC curve.

    scores: floating-point tensor [n], of any size and sign; higher means more likely positive.
            Scores may tie
    labels: int64 tensor [n] of 0 (negative) and 1 (positive), at least one of each

    Among all pairs of a positive and a negative: the share in which the positive has the higher
    score, a tie counting one half. The result depends neither on the order of the examples nor
    on a strictly increasing change of the scores.

    Returns a float, or a floating-point tensor of no dimension. (Memory for all pairs is fine.)

    Hanley and McNeil, "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve", 1982.
    """
    ### BEGIN SOLUTION
    gap = scores[labels == 1][:, None] - scores[labels == 0]
    return ((gap > 0).double() + 0.5 * (gap == 0)).mean()
    ### END SOLUTION


# %% check="roc_auc"
check(roc_auc)

# %% [markdown]
# ### Is the model with the larger AUC the better one?
#
# "The larger the AUC, the better the model." AUC weighs all pairs alike, also those far down the list where nobody
# ever looks. So we build two detectors for one test. The *steady* one lifts every positive a little. The *keen* one is
# sure of half the positives and blind to the rest. Then positives become rare, and we ask what a user sees: of the
# first hundred alarms, how many are real? **Average precision**, the area under the precision-recall curve drawn as
# steps, is the usual metric for that.
#
# **Before the run:** a detector is *behind* if it has at least five fewer real ones among the first hundred (one or two
# can be luck). *Correct* if the one with the larger AUC is never behind, whatever the share of positives; *wrong* if it
# is behind at every share, *imprecise* at some.

# %% claim="A09.4"
dice = np.random.default_rng(0)
N = 40_000


def two_detectors(share):
    """Labels [N], and two lists of scores for them."""
    labels = dice.random(N) < share
    noise = dice.normal(size=(2, N))
    keen = np.where(dice.random(N) < 0.5, 4.0, 0.0)
    return labels, {"steady": noise[0] + 1.3 * labels, "keen": noise[1] + keen * labels}


shares = [0.5, 0.1, 0.02, 0.005]
rows = {name: [] for name in ("steady", "keen")}
for share in shares:
    labels, detectors = two_detectors(share)
    for name, values in detectors.items():
        first = labels[np.argsort(-values)[:100]].mean()
        area, precision = judge.roc_auc_score(labels, values), judge.average_precision_score(labels, values)
        rows[name].append((area, precision, first))

fig, axes = figure(1, 3, width=10.4, height=3.5, sharex=True)
for ax, k, name in zip(axes, range(3), ("ROC AUC", "average precision", "real among the first 100"), strict=True):
    for (detector, values), color, style in zip(rows.items(), COLORS, ("-", "--"), strict=False):
        ax.plot(shares, [value[k] for value in values], color=color, linestyle=style, marker="o", label=detector)
    ax.set(xscale="log", title=name, xlabel="share of positives, %", ylim=(0, 1.03))
    ax.set_xticks(shares, [f"{100 * share:g}" for share in shares])
    ax.minorticks_off()
axes[0].invert_xaxis()
axes[0].legend(loc="lower left")
steady, keen = (rows[name][-1] for name in rows)
show(
    fig,
    alt="Three panels against the falling share of positives, for two detectors: ROC AUC, average precision, and how "
    "many of the first hundred alarms are real.",
    title=f"At 0.5 % positives: AUC {steady[0]:.2f} (steady) and {keen[0]:.2f} (keen); real among the first 100: "
    f"{steady[2]:.0%} and {keen[2]:.0%}",
)
behind = [share for share, *pair in zip(shares, *rows.values(), strict=True) if max(pair)[2] < min(pair)[2] - 0.045]
verdict(
    "A09.4",
    "correct" if not behind else "wrong" if behind == shares else "imprecise",
    "Of the first hundred the detector with the larger AUC has at least five fewer real ones at a share of positives "
    "of "
    f"{', '.join(f'{share:.1%}' for share in behind) or 'none of those tried'}.",
)

# %% [markdown]
# A larger AUC means better ranking over *all* pairs. It does not change when positives get rare, which
# is both its virtue and its blindness: the share of false alarms does change. If you only ever act on the top of the
# list, report average precision or precision at that depth (Saito and Rehmsmeier 2015, PLOS ONE 10(3)).
#
# ## Regression: how far off?
#
# MSE is the mean of the squared errors, RMSE its root (in the units of the target again), MAE the mean of the absolute
# errors. Wild errors rule the MSE: one error of 100 beside 99 of size 1 makes it 101 times as large, the MAE twice.
#
# $R^2$ asks something else: how much better than always predicting the mean $\bar y$?
#
# $$R^2 = 1 - \frac{\sum_i (y_i - \hat y_i)^2}{\sum_i (y_i - \bar y)^2}$$
#
# Despite its name $R^2$ is not the square of a number: if the predictions are worse than the mean, it is negative,
# without limit.
#
# ### Exercise 4: errors of a regression

# %% exercise="regression_metrics"
def regression_metrics(predictions, targets):
    """Mean squared error, its root, mean absolute error, and R².

    predictions: floating-point tensor [n] or [n, 1], as a linear layer gives it; n is at least
                 2
    targets:     floating-point tensor [n]

    R² is 1 - SS_res / SS_tot, where SS_res is the sum of the squared errors and SS_tot that of
    the targets' squared distances from their mean. Where SS_tot is 0 (all targets alike, unless
    rounding leaves a trace), R² is 1 for perfect predictions and 0 for others.

    Returns a dict with the keys "mse", "rmse", "mae", "r2"; the values are floats or tensors of
    no dimension. As scikit-learn's mean_squared_error, root_mean_squared_error,
    mean_absolute_error, r2_score.
    """
    ### BEGIN SOLUTION
    gap = predictions.reshape(targets.shape) - targets
    residual, total = (gap**2).sum(), ((targets - targets.mean()) ** 2).sum()
    mse = (gap**2).mean()
    r2 = 1 - residual / total if total > 0 else float(residual == 0)
    return {"mse": mse, "rmse": mse.sqrt(), "mae": gap.abs().mean(), "r2": r2}
    ### END SOLUTION


# %% check="regression_metrics"
check(regression_metrics)

# %% [markdown]
# ### "R² is the ratio of the variances"
#
# "R² is the ratio between the variance of the predictions and that of the true values." Real data: 442 diabetics, ten
# measurements each, and how far the disease had come a year later. A linear function of the ten is fitted to 40
# patients. We compute three numbers that go by the name of R², for those it was fitted to and for all others; and for
# predictions that are plainly bad.
#
# **Before the run:** *correct* if the ratio equals R², as scikit-learn has it, to 0.01 in all five situations;
# *imprecise* if at least where the fit is used, on the unseen; else *wrong*: what holds only where it was made is no
# definition.

# %% claim="A09.7"
measured, progress = load_diabetes(return_X_y=True)
line = LinearRegression().fit(measured[:40], progress[:40])
fitted, unseen = line.predict(measured[:40]), line.predict(measured[40:])
situations = {
    "the 40 it was fitted to": (fitted, progress[:40]),
    "402 unseen": (unseen, progress[40:]),
    "unseen, 100 too high": (unseen + 100, progress[40:]),
    "unseen, turned round": (2 * unseen.mean() - unseen, progress[40:]),
    "true values, shuffled": (dice.permutation(progress[40:]), progress[40:]),
}
kinds = {
    "1 - SS_res / SS_tot": lambda p, y: judge.r2_score(y, p),
    "ratio of the variances": lambda p, y: p.var() / y.var(),
    "squared correlation": lambda p, y: np.corrcoef(p, y)[0, 1] ** 2,
}
table = {kind: [make(p, y) for p, y in situations.values()] for kind, make in kinds.items()}
apart = [abs(a - b) > 0.01 for a, b in zip(*list(table.values())[:2], strict=True)]
fig, ax = figure(width=9.6, height=3.8)
styles = zip((-0.27, 0, 0.27), COLORS, ("", "//", ".."), strict=False)
for (kind, values), (offset, color, hatch) in zip(table.items(), styles, strict=True):
    places = [i + offset for i in range(len(values))]
    ax.bar(places, values, 0.25, color=color, hatch=hatch, edgecolor="white", label=kind)
    for place, value in zip(places, values, strict=True):
        ax.text(place, max(value, 0) + 0.05, f"{value:.2f}", ha="center", fontsize=8.5)
ax.axhline(0, color="black", linewidth=1)
ax.set_xticks(range(len(situations)), [name.replace(", ", ",\n").replace("it was", "\nit was") for name in situations])
ax.set(ylabel="“R²”", ylim=(None, 1.55))
ax.legend(loc="lower left", fontsize=9)
show(
    fig,
    alt="Bars of three numbers that are called R squared, in five situations: " + "; ".join(
        f"{name}: {', '.join(f'{values[i]:.2f}' for values in table.values())}" for i, name in enumerate(situations)
    ) + ".",
    title=f"The ratio of the variances is R² for the fitted line, and something else in {sum(apart)} of "
    f"{len(apart)} situations" if not apart[0] else "The ratio of the variances isn't even R² for the fitted line",
)
verdict(
    "A09.7",
    "correct" if not any(apart) else "wrong" if apart[1] else "imprecise",
    "R² and the ratio of the variances: "
    + "; ".join(
        f"{name}, {a:.2f} and {b:.2f}" for name, a, b in zip(situations, *list(table.values())[:2], strict=True)
    )
    + ".",
)

# %% [markdown]
# The three have to agree in one place: a least-squares fit with an intercept, on the very data it was fitted to. The
# sentence is true there. A model can vary as much as the truth and have nothing to do with it; the
# ratio would call it perfect.
#
# ## BLEU: overlap of phrases
#
# A translation can be right in many ways, so it is compared with one or several references by the **n-grams** it shares
# with them. Three ideas make BLEU (Papineni et al. 2002):
#
# * **Clipping.** "the the the the" would have only right words. So an n-gram counts at most as often as the reference
#   has it (the most in any single one).
# * **A geometric mean** of the precisions for n = 1 to 4. Word choice and word order both have to be right.
# * **A brevity penalty.** Precision doesn't mind what is missing, so a candidate shorter than its reference pays
#   $e^{1 - r/c}$. A longer one has paid already, in precision.
#
# $$\text{BLEU} = \min(1, e^{1 - r/c}) \cdot \Big(\prod_{n=1}^{4} p_n\Big)^{1/4}$$
#
# All counts are added up over the whole corpus before anything is divided. BLEU is *not* a mean over sentences.

# %% tags=["demo"]
from sacrebleu.metrics.bleu import BLEU


def library_bleu(candidate, reference, tokenize="13a"):
    """sacreBLEU of one text, in percent, with its own smoothing for single sentences."""
    return BLEU(effective_order=True, tokenize=tokenize).sentence_score(candidate, [reference])


reference = "the cat sat on the mat because it was tired"
for candidate in (reference, "the cat sat on the mat", "the the the the the the the the the the",
                  "the cat sat on the mat because it was tired and then it slept"):
    found = library_bleu(candidate, reference)
    print(f"BLEU {found.score:5.1f}   precisions {[round(p) for p in found.precisions]}, "
          f"penalty {found.bp:.2f}   {candidate!r}")

# %% [markdown]
# ### Exercise 5: BLEU

# %% exercise="bleu"
def bleu(candidates, references, max_n=4):
    """Corpus BLEU, without smoothing.

    candidates: a list of texts, each a list of tokens (str); a text may be empty
    references: for each candidate a list of one or more references, each a list of at least one
                token
    max_n:      n-grams of 1 to max_n tokens count, an int of at least 1

    For each n: hits are the n-grams of the candidates, each clipped to the most that any single
    one of its text's references has of it; the total is the number of n-grams of the
    candidates. Both are added up over all texts before they are divided. c adds up the
    candidates' lengths; r adds up, for each text, the length of the reference whose length is
    closest to the candidate's, of two equally close ones the shorter.

    Returns a number from 0 to 1: min(1, exp(1 - r/c)) times the geometric mean of the max_n
    precisions. It is 0 if for some n there is no hit (also if there is no n-gram at all).
    Tokens are compared as they are.

    Papineni et al. 2002, "BLEU: a method for automatic evaluation of machine translation",
    section 2.
    """
    ### BEGIN SOLUTION
    def grams(tokens, n):
        return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))

    logs, c, r = 0.0, 0, 0
    for candidate, options in zip(candidates, references, strict=True):
        c += len(candidate)
        lengths = [len(option) for option in options]
        r += min(lengths, key=lambda n: (abs(n - len(candidate)), n))
    for n in range(1, max_n + 1):
        hits = total = 0
        for candidate, options in zip(candidates, references, strict=True):
            most = Counter()
            for option in options:
                most |= grams(option, n)
            hits += (grams(candidate, n) & most).total()
            total += grams(candidate, n).total()
        if not hits:
            return 0.0
        logs += math.log(hits / total) / max_n
    return math.exp(logs + min(0.0, 1 - r / c))
    ### END SOLUTION


# %% check="bleu"
check(bleu)

# %% [markdown]
# ### What does BLEU take for good?
#
# Twelve sentences. Of each we write two others: one that says the **opposite** with nearly the same words, and one that
# says the **same** with other words. A metric of meaning would prefer the second. We ask BLEU; the overlap of words in
# order that ROUGE-L measures (next section, here by a library's routine); and an encoder of sentences, by the cosine of
# its vectors.
#
# **Before the run:** the sentence says what BLEU counts, and that this judges a text. *Correct* if it prefers the
# paraphrase to the opposite in at least nine of the twelve. *Imprecise* if in fewer, while each near copy still scores
# above a sentence about something else: then it measures overlap, and no more. *Wrong* if not even that.

# %% claim="A09.8"
from rapidfuzz.distance import LCSseq

TRIPLES = [
    ("The new drug is safe for children.", "The new drug is not safe for children.",
     "Kids can take this medicine without danger."),
    ("She passed the exam on her first attempt.", "She failed the exam on her first attempt.",
     "The test was no problem for her, one try was enough."),
    ("The company will raise its prices next year.", "The company will lower its prices next year.",
     "From next January customers have to pay more."),
    ("You should always drink the water here.", "You should never drink the water here.",
     "It is a good idea to take what comes from the tap."),
    ("The train left before we arrived.", "The train left after we arrived.",
     "When we got to the platform it was already gone."),
    ("Nobody was hurt in the accident.", "Everybody was hurt in the accident.",
     "The crash ended without injuries."),
    ("The court found the man guilty.", "The court found the man innocent.",
     "According to the judges he committed the crime."),
    ("He likes his job and wants to stay.", "He hates his job and wants to leave.",
     "The work pleases him, so he has no plans to quit."),
    ("The bridge is open to traffic.", "The bridge is closed to traffic.",
     "Cars may cross the river again."),
    ("The team won the final by two goals.", "The team lost the final by two goals.",
     "They became champions with a clear lead."),
    ("I have enough money to buy the house.", "I do not have enough money to buy the house.",
     "The home is something that we can afford."),
    ("The soup is too hot to eat.", "The soup is too cold to eat.",
     "Let the broth cool down first."),
]


def rouge_f1(candidate, reference):
    a, b = candidate.lower().split(), reference.lower().split()
    return 200 * LCSseq.similarity(a, b) / (len(a) + len(b))


encode = minilm()
vectors = encode([text for triple in TRIPLES for text in triple]).view(-1, 3, 384)
cosines = (vectors[:, :1] * vectors[:, 1:]).sum(-1) * 100
opinions = {
    "BLEU": [[library_bleu(text, first).score for text in others] for first, *others in TRIPLES],
    "ROUGE-L": [[rouge_f1(text, first) for text in others] for first, *others in TRIPLES],
    "cosine of an encoder": cosines.tolist(),
}
misled = {name: sum(opposite > same for opposite, same in pairs) for name, pairs in opinions.items()}
prefers = {name: sum(same > opposite for opposite, same in pairs) for name, pairs in opinions.items()}
fig, axes = figure(1, 3, width=10.4, height=3.9, sharex=True, sharey=True)
for ax, (name, pairs), color in zip(axes, opinions.items(), COLORS, strict=False):
    opposite, same = zip(*pairs, strict=True)
    ax.scatter(same, opposite, color=color, s=32)
    ax.plot([0, 100], [0, 100], color="#777777", linestyle=":", linewidth=1)
    ax.set(title=f"{name}: {misled[name]} of {len(TRIPLES)}", xlabel="score of the same meaning, %")
axes[0].set_ylabel("score of the opposite, %")
show(
    fig,
    alt="Three scatter plots, a dot a sentence: the score of a sentence that says the opposite against that of a "
    "paraphrase, for BLEU, ROUGE-L and the cosine of an encoder. Dots above the diagonal mean that the opposite wins.",
    title=f"How often the opposite beats the paraphrase, of {len(TRIPLES)} sentences",
)
others = [library_bleu(TRIPLES[i - 1][1], first).score for i, (first, *_) in enumerate(TRIPLES)]
overlaps = sum(near > other for (near, _), other in zip(opinions["BLEU"], others, strict=True))
verdict(
    "A09.8",
    "correct" if prefers["BLEU"] >= 9 else "imprecise" if overlaps == len(TRIPLES) else "wrong",
    f"Of {len(TRIPLES)} sentences BLEU prefers the paraphrase to the opposite {prefers['BLEU']} times, ROUGE-L "
    f"{prefers['ROUGE-L']} times, the encoder {prefers['cosine of an encoder']} times. "
    f"A sentence about something else stays below the opposite {overlaps} times.",
)

# %% [markdown]
# "Overlap of n-grams" is the idea, but clipped, a precision, a geometric mean, with a penalty, and over
# a corpus; and overlap is all it is. Our sentences were made to mislead; how often ordinary ones do, they can't say.
# But to be blind to a negation is a bias, and biases don't average out: neural metrics agree better with people, also
# on whole systems (Mathur et al. 2020, [arXiv:2006.06264](https://arxiv.org/abs/2006.06264); Freitag et al. 2022, WMT).
# Look at the encoder's panel with the same suspicion: it was trained on pairs of texts that belong together, and a
# sentence and its opposite have the same topic.
#
# One number more hides in the word *token*. BLEU of the same strings depends on how they are cut. sacreBLEU fixes the
# cutting and prints a signature (Post 2018, [arXiv:1804.08771](https://arxiv.org/abs/1804.08771)). Below, two Chinese
# sentences that differ in one character, then two that say opposite things (I bought, I sold) and have a year and a
# product's name in common. And one more thing to know of sacreBLEU: two candidates, and a reference for one of them.
# (rouge-score isn't run here; the rule of its default tokenizer is, as its source has it.)

# %% tags=["demo"]
chinese, close = "今天天气很好，我们去公园散步。", "今天天气很好，我们去公园跑步。"
for tokenize in ("13a", "zh", "char"):
    judged = BLEU(effective_order=True, tokenize=tokenize)
    score = judged.sentence_score(close, [chinese]).score
    print(f"tokenizer {tokenize:5} BLEU {score:5.1f}   {judged.get_signature()}")
bought, sold = "我在2024年买了iPhone 15", "我于2024年卖掉iPhone 15"
kept = {text: re.findall("[a-z0-9]+", text.lower()) for text in (chinese, close, bought, sold)}
for text, tokens in kept.items():
    print(f"of {text} the tokenizer of rouge-score, [a-z0-9]+, keeps {tokens}")
print(f"so for it bought and sold are {'the same text' if kept[bought] == kept[sold] else 'different texts'}")
print(f"BLEU of two texts, one without a reference: {BLEU().corpus_score([reference, 'no'], [[reference]]).score:.1f}")

# %% [markdown]
# ## ROUGE-L: the longest thread
#
# For summaries one asks the other way round: how much of the reference is there at all? ROUGE-L (Lin 2004) looks for
# the **longest common subsequence** (LCS): the most words that stand in both texts in the same order, with any gaps.
#
# $$p = \frac{\text{LCS}}{|\text{candidate}|}, \qquad r = \frac{\text{LCS}}{|\text{reference}|}, \qquad
# F_1 = \frac{2pr}{p + r}$$
#
# The LCS comes from a table. Let $L_{ij}$ be its length for the first $i$ and the first $j$ words. If word $i$ equals
# word $j$, take both: $L_{ij} = L_{i-1,j-1} + 1$. If not, one of them is left out: the larger of $L_{i-1,j}$ and
# $L_{i,j-1}$.
#
# ### Exercise 6: ROUGE-L

# %% exercise="rouge_l"
def rouge_l(candidate, reference):
    """Precision, recall and F1 of the longest common subsequence.

    candidate, reference: lists of tokens (str), possibly empty. Tokens are compared as they
                          are, capitals included

    The common subsequence is in the same order in both texts, with any gaps. Precision divides
    its length by that of the candidate, recall by that of the reference; F1 is their harmonic
    mean. If nothing is in common, or a text is empty, all three are 0.

    Returns a tuple of three numbers: (precision, recall, F1).

    Lin 2004, "ROUGE: a package for automatic evaluation of summaries", section 3, beta = 1.
    """
    ### BEGIN SOLUTION
    above = [0] * (len(reference) + 1)
    for token in candidate:
        row = [0]
        for j, other in enumerate(reference):
            row.append(above[j] + 1 if token == other else max(above[j + 1], row[j]))
        above = row
    common, n, m = above[-1], len(candidate), len(reference)
    return (common / n, common / m, 2 * common / (n + m)) if common else (0.0, 0.0, 0.0)
    ### END SOLUTION


# %% check="rouge_l"
check(rouge_l)

# %% [markdown]
# ### "Especially the recall"
#
# If recall is what counts, then say more. A system that has no idea what matters just copies the beginning of the
# article, longer and longer. Its recall can't fall, since a longer copy holds every thread of the shorter; does it keep
# rising? Here is one article, one summary of it, and what copying earns.
#
# **Before the run:** *correct* if by its recall a copy as long as the summary is as good as the whole article,
# *imprecise* if the whole article wins by recall and loses by F1: then recall says something only at a fixed length.
# *Wrong* if the whole article wins by F1, too.

# %% claim="A09.9"
NEWS = """
The city council decided on Tuesday to close the old harbour bridge for two years. Engineers had found cracks in three
of its eleven pillars during a routine inspection in March. Until the repairs are finished, trams and buses will cross
the river by the northern bridge, which adds about twelve minutes to the journey. Shop owners near the harbour fear that
they will lose customers. The mayor promised them lower rents and a free ferry, which will run every ten minutes from
six in the morning until midnight. The work will cost ninety million euros, a third of which is paid by the state.
Cyclists protested in front of the town hall, because the northern bridge has no bicycle lane. A decision about a
temporary lane is expected next month.
"""
ARTICLE = re.findall(r"\w+", NEWS.lower())
SUMMARY = re.findall(r"\w+", """
the old harbour bridge will be closed for two years because engineers found cracks in its pillars a free ferry will run
every ten minutes and the repairs cost ninety million euros
""")

lengths = range(5, len(ARTICLE) + 1, 5)
recall, precision, f1 = [], [], []
for n in lengths:
    common = LCSseq.similarity(ARTICLE[:n], SUMMARY)
    recall.append(common / len(SUMMARY))
    precision.append(common / n)
    f1.append(2 * common / (n + len(SUMMARY)))
best = lengths[int(np.argmax(f1))]
fig, ax = figure(width=8.6, height=3.6)
for values, name, color, style in ((recall, "recall", COLORS[1], "--"), (precision, "precision", COLORS[2], ":"),
                                   (f1, "F1", COLORS[0], "-")):
    ax.plot(lengths, values, color=color, linestyle=style, label=name)
ax.axvline(len(SUMMARY), color="#777777", linewidth=1, linestyle=":")
ax.text(len(SUMMARY) + 1, 0.02, "length of the summary", color="#555555", fontsize=9)
ax.set(xlabel="words copied from the beginning of the article", ylabel="ROUGE-L", ylim=(0, 1))
ax.legend()
falls = sum(b < a for a, b in zip(recall, recall[1:], strict=False))
show(
    fig,
    alt="ROUGE-L recall, precision and F1 of the first n words of an article, against n. Recall never falls.",
    title=f"Recall {f'falls {falls} times' if falls else 'never falls'} on the way to the whole article, "
    f"and ends at {recall[-1]:.0%}; "
    f"F1 is best at {best} words",
)
short = min(range(len(lengths)), key=lambda i: abs(lengths[i] - len(SUMMARY)))
verdict(
    "A09.9",
    "correct" if recall[short] >= recall[-1] else "imprecise" if f1[short] > f1[-1] else "wrong",
    f"The first {lengths[short]} words: recall {recall[short]:.0%}, F1 {f1[short]:.0%}. All {lengths[-1]}: recall "
    f"{recall[-1]:.0%}, F1 {f1[-1]:.0%}.",
)

# %% [markdown]
# ROUGE began as recall, with a fixed length for all systems, where that is fair (Lin 2004). Without such
# a limit one reports F1, and the copied beginning of a news article remains a strong opponent: journalists put the news
# first (See et al. 2017, [arXiv:1704.04368](https://arxiv.org/abs/1704.04368)).
#
# ## Perplexity: how surprised
#
# A language model gives each next token a probability $p$. How surprised it is by the token that comes is $-\log p$,
# the **negative log-likelihood** (NLL); its mean is the cross-entropy loss. **Perplexity** is $e$ to that mean:
#
# $$\text{PPL} = \exp\Big(-\frac{1}{N} \sum_{t} \log p(x_t \mid x_{<t})\Big)$$
#
# A perplexity of 20 means: as unsure as if choosing among 20 equally likely tokens at every step. $N$ counts *predicted
# tokens*: not padding, not the prompt (if that isn't judged), not the first token, which nothing predicts.
#
# ### Exercise 7: perplexity

# %% exercise="perplexity"
def perplexity(logits, labels):
    """The perplexity of a batch of texts under a causal language model.

    logits: floating-point tensor [rows, n, vocabulary], n >= 2, as the model gives it: place t
            of a row predicts the token at place t + 1. Finite, and as large as they like
            (hundreds): no overflow. bfloat16 is possible; compute in float32 at least
    labels: int64 tensor [rows, n]: the token at each place, not shifted yet; -100 where it
            doesn't count (padding, a prompt), on any side. At least one label after the first
            place counts

    exp of the mean of -log p over all labels that count and are predicted by something, each
    token with the same weight, whatever row it stands in.

    Returns a float, or a float32 or float64 tensor of no dimension: exp of the loss that
    transformers' causal models compute.
    """
    ### BEGIN SOLUTION
    targets = labels[:, 1:]
    kept = targets != -100
    log_probs = logits[:, :-1].float().log_softmax(-1)
    picked = log_probs.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return (-picked[kept].mean()).exp()
    ### END SOLUTION


# %% check="perplexity"
check(perplexity)

# %% [markdown]
# Against the real model: SmolLM computes a loss of its own when it is given labels. Six passages of Shakespeare, of
# very different lengths, padded to the longest.

# %% tags=["payoff"]
model, tokenizer = smollm(torch.bfloat16)
LENGTHS = (3, 4, 6, 12, 30, 60)
plays = tokenizer(shakespeare()[200_000:206_000]).input_ids
batch = torch.full((len(LENGTHS), max(LENGTHS)), -100)
for row, n in enumerate(LENGTHS):
    batch[row, :n] = torch.tensor(plays[200 * row : 200 * row + n])
real = batch != -100
with torch.inference_mode():
    told = model(batch.clamp(min=0), attention_mask=real.long(), labels=batch)
print(f"yours: {float(perplexity(told.logits, batch)):.2f}   transformers: {float(told.loss.exp()):.2f}")

# %% [markdown]
# ### Whose mean?
#
# "Perplexity measures how confused the model is when it generates." By its definition nothing is generated: the model
# *reads* a given text. And how confused is it? We take the six passages and average in four ways. All have been in use:
# the mean of batches' losses in gradient accumulation ([until October
# 2024](https://unsloth.ai/blog/gradient)), the mean of the texts' losses in GRPO (Shao et al. 2024,
# [arXiv:2402.03300](https://arxiv.org/abs/2402.03300)), the mean of perplexities as `mean_perplexity` in the `evaluate`
# library. Then we take the longest alone, and share its total surprise out over its tokens, its words, its characters:
# a model with another tokenizer has other tokens.
#
# **Before the run:** *correct* if the four averages agree to 5 %, for then it needs no second look what a perplexity is
# of. *Imprecise* if they don't. (Lengths as unlike as these, 3 to 60 tokens, are our choice; the control takes 60 of
# each.)

# %% claim="A09.10"
model, tokenizer = smollm(torch.bfloat16)


@torch.inference_mode()
def surprises(ids):
    """-log p of every token of a text but the first, in nats: [n - 1]."""
    ids = torch.tensor([list(ids)])
    return F.cross_entropy(model(ids).logits[0, :-1].float(), ids[0, 1:], reduction="none")


def four_means(read):
    """Four averages of the surprises of six texts, as perplexities."""
    texts = torch.stack([each.mean() for each in read])
    batches = torch.stack([torch.cat(part).mean() for part in (read[:3], read[3:])])
    return {
        "all tokens alike": float(torch.cat(read).mean().exp()),
        "mean of two batches' losses": float(batches.mean().exp()),
        "mean of the texts' losses": float(texts.mean().exp()),
        "mean of perplexities": float(texts.exp().mean()),
    }


source = tokenizer(shakespeare()[200_000:206_000]).input_ids
passages = [source[200 * i : 200 * i + n] for i, n in enumerate((3, 4, 6, 12, 30, 60))]
read_alone = [surprises(passage) for passage in passages]
means = four_means(read_alone)
alike_long = four_means([surprises(source[200 * i : 200 * i + 60]) for i in range(6)])
text = tokenizer.decode(passages[-1][1:])  # what is predicted
units = {"tokens": len(passages[-1]) - 1, "words": len(text.split()), "characters": len(text)}
total = float(read_alone[-1].sum())
shared = {name: math.exp(total / count) for name, count in units.items()}

fig, axes = figure(1, 2, width=10.4, height=3.4, width_ratios=(1.4, 1))
axes[0].barh(list(means), list(means.values()), color=[COLORS[0]] + 3 * [COLORS[1]])
axes[0].invert_yaxis()
axes[0].set(xlabel="“perplexity”, log scale", xscale="log", xlim=(1, None), title="Six texts, four means")
axes[1].bar([f"{count} {name}" for name, count in units.items()], list(shared.values()), color=COLORS[2], width=0.6)
axes[1].set(yscale="log", ylim=(1, 4 * max(shared.values())), ylabel="exp(surprise / number)",
            title="One text, one total surprise")
for i, value in enumerate(means.values()):
    axes[0].text(1.1, i, f"{value:,.0f}", va="center", color="white", fontweight="bold")
for i, value in enumerate(shared.values()):
    axes[1].text(i, value, f"{value:,.1f}", ha="center", va="bottom")
low, high = min(means.values()), max(means.values())
show(
    fig,
    alt="Left: four averages of the surprise of six texts, all called perplexity. Right: the surprise of one text "
    "divided by its tokens, its words and its characters.",
    title=f"One model, one set of texts: {low:,.0f} or {high:,.0f}. One text: {shared['tokens']:,.0f} a token, "
    f"{shared['words']:,.0f} a word, {shared['characters']:.1f} a character",
)
early, late = (torch.cat([each[span] for each in read_alone]).mean() for span in (slice(3), slice(3, None)))
print(f"The first three tokens that are predicted cost {early:.1f} nats each, all later ones {late:.1f}.")
print("With 60 tokens of each: " + "; ".join(f"{name} {value:.0f}" for name, value in alike_long.items()) + ".")
verdict(
    "A09.10",
    "correct" if high < 1.05 * low else "imprecise",
    f"The same surprises of the same texts make a perplexity of {low:,.0f} or of {high:,.0f}, depending on the "
    f"average (of texts of equal length {min(alike_long.values()):.0f} or {max(alike_long.values()):.0f}); and nothing "
    "was generated.",
)

# %% [markdown]
# Perplexity belongs to a *text* under a model, with one weight for each predicted token. It can be compared only
# between models with the same tokenizer, on the same text, with the same context. Otherwise divide by characters or
# bytes, which everybody counts alike. (What can short texts do to a mean? Each begins somewhere in a speech, without
# context: a line under the figure says what its first tokens cost.)
#
# ### "Lower perplexity is better"
#
# Of a *model* that reads a fixed text it is what training lowers, and models of one tokenizer are compared by it. Is it
# a verdict on a *text*, too? Four pages: two from scikit-learn's documentation and one by Shakespeare, which
# the model may have seen, and the article above, which was written for this chapter. Of each the model reads four
# versions: the page; its words shuffled; one sentence of it over and over; and what the model writes after its first
# six words when it takes the likeliest token each time.
#
# **Before the run:** *correct* if each page as it is has a lower perplexity than its other versions; *imprecise* if on
# one at least the repeated sentence or the model's own text is below it; *wrong* if even shuffled words are.

# %% claim="A09.11"
from sklearn.datasets import load_iris, load_wine

iris, wine = (" ".join(load().DESCR.split()) for load in (load_iris, load_wine))
play = " ".join(shakespeare()[200_000:201_200].split())
PAGES = {
    "iris": iris[iris.index("This is perhaps") :],
    "wine": wine[wine.index("The data is the results") :],
    "a play": play[play.index(". ") + 2 :],
    "news": " ".join(NEWS.split()),
}
LENGTH, END = 72, tokenizer.eos_token_id
sentences = {page: text[: text.index(". ") + 2] for page, text in PAGES.items()}
openings = tokenizer([" ".join(text.split()[:6]) for text in PAGES.values()], return_tensors="pt", padding=True,
                     padding_side="left")
written = model.generate(**openings, max_new_tokens=LENGTH, min_new_tokens=LENGTH, do_sample=False, pad_token_id=END)
KINDS = ("the page as it is", "its words, shuffled", "one sentence, again and again", "the model's likeliest")
texts = {}
for row, (page, text) in enumerate(PAGES.items()):
    read = tokenizer(text).input_ids[:LENGTH]
    shuffled = " ".join(dice.permutation(tokenizer.decode(read).split()))
    own = written[row][openings.attention_mask[row].argmax() :]
    for kind, ids in zip(KINDS, (read, tokenizer(shuffled).input_ids, tokenizer(sentences[page] * 40).input_ids,
                                 own.tolist()), strict=True):
        texts[page, kind] = ids[:LENGTH]


def new_pairs(ids):
    """The share of two-token phrases that are different (distinct-2)."""
    pairs = list(zip(ids, ids[1:], strict=False))
    return len(set(pairs)) / len(pairs)


perplexities = {name: float(surprises(ids).mean().exp()) for name, ids in texts.items()}
fig, ax = figure(width=8.6, height=3.6)
spans = {}
for kind, color, mark in zip(KINDS, COLORS, "os^D", strict=False):
    of = [perplexities[page, kind] for page in PAGES]
    spans[kind] = f"{min(of):,.0f} to {max(of):,.0f}"
    ax.scatter(of, [100 * new_pairs(texts[page, kind]) for page in PAGES], s=60, color=color, marker=mark,
               label=f"{kind}: {spans[kind]}")
ax.set(xscale="log", xlim=(1, None), ylim=(0, 105), xlabel="perplexity of the text",
       ylabel="different pairs of tokens, %")
ax.legend(title="perplexity", loc="lower right")
beaten = {kind: [page for page in PAGES if perplexities[page, kind] < perplexities[page, KINDS[0]]]
          for kind in KINDS[1:]}
show(
    fig,
    alt="Four pages in four versions each, by their perplexity and by the share of different pairs of tokens. "
    "Perplexities: " + "; ".join(f"{kind} {span}" for kind, span in spans.items()) + ".",
    title=f"Below the page as it is, of {len(PAGES)}: one sentence repeated {len(beaten[KINDS[2]])}, the model's "
    f"likeliest {len(beaten[KINDS[3]])}, shuffled words {len(beaten[KINDS[1]])}",
)
verdict(
    "A09.11",
    "wrong" if beaten[KINDS[1]] else "imprecise" if beaten[KINDS[2]] or beaten[KINDS[3]] else "correct",
    f"Perplexity on {len(PAGES)} pages: " + "; ".join(f"{kind} {span}" for kind, span in spans.items()) + ".",
)

# %% [markdown]
# Read the markers from right to left: what has a high perplexity, what a very low one, and which would you rather read?
# What people write isn't the most probable text (Holtzman et al. 2020,
# [arXiv:1904.09751](https://arxiv.org/abs/1904.09751)).
#
# ## Vectors: cosine and top-k
#
# For texts and pictures, encoders give vectors, and the **cosine** of two vectors says how alike their directions are:
#
# $$\cos(a, b) = \frac{a \cdot b}{\lVert a \rVert \, \lVert b \rVert}$$
#
# ### Exercise 8: cosine similarity

# %% exercise="cosine_similarity"
def cosine_similarity(a, b):
    """The cosine of every row of a with every row of b.

    a: floating-point tensor [n, d]
    b: floating-point tensor [m, d], of the same dtype
    A vector of zeros has similarity 0 with everything, itself included.

    Returns [n, m] of the dtype of a: entry [i, j] is the cosine between a[i] and b[j], from -1
    to 1. As sklearn.metrics.pairwise.cosine_similarity.
    """
    ### BEGIN SOLUTION
    a, b = (x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12) for x in (a, b))
    return a @ b.T
    ### END SOLUTION


# %% check="cosine_similarity"
check(cosine_similarity)

# %% [markdown]
# **Top-k accuracy** then asks whether the right answer is among the $k$ most similar. It is also called hit@k. (With
# several right answers, *recall@k*, the share of them that is found, is another number.)
#
# ### Exercise 9: top-k accuracy

# %% exercise="top_k_accuracy"
def top_k_accuracy(scores, targets, k):
    """The share of rows whose target is among the k classes with the highest scores.

    scores:  floating-point tensor [n, classes], n >= 1; the scores of one row are all different
    targets: int64 tensor [n], the right class of each row
    k:       an int of at least 1; it may be larger than the number of classes, and then every
             row is a hit

    Returns a number from 0 to 1: a float, or a floating-point tensor of no dimension.
    """
    ### BEGIN SOLUTION
    own = scores.gather(1, targets[:, None])
    return ((scores > own).sum(1) < k).double().mean()
    ### END SOLUTION


# %% check="top_k_accuracy"
check(top_k_accuracy)

# %% [markdown]
# ### Can one compare across spaces?
#
# "Cosine or Euclidean similarity measures similarity between modalities, such as text and image." The two encoders of
# an image-text pair each have a space of their own. Two text encoders with unrelated spaces stand for them here:
# MiniLM (384 numbers) and the mean of SmolLM's token embeddings (576 numbers, cut to 384). A line of
# Shakespeare in one space has to find itself among 100 lines in the other (from both the mean is taken off first). Then
# a linear map from one space into the other is fitted on 300 *other* lines, and we ask again. That, in small, is what
# CLIP is trained for.
#
# **Before the run:** by chance one line in ten is among the first ten. *Correct* if in the shared space both measures
# find over half of them there, *imprecise* if one does, *wrong* if neither. *Unverifiable* if in the unrelated spaces,
# the control, one finds over a quarter: then it isn't the sharing that does it.

# %% claim="A09.12"
lines = [line.strip() for line in shakespeare().split("\n") if 35 < len(line.strip()) < 60]
lines = [lines[i] for i in torch.randperm(len(lines), generator=torch.Generator().manual_seed(0))[:400]]
in_minilm = encode(lines)
table = model.get_input_embeddings().weight.detach().float()
in_smollm = torch.stack([table[tokenizer(line).input_ids].mean(0) for line in lines])
in_smollm, targets_space = (x - x[:300].mean(0) for x in (in_smollm, in_minilm))
fitted_on, tested = slice(0, 300), slice(300, 400)
gram = in_smollm[fitted_on].T @ in_smollm[fitted_on]
to_minilm = torch.linalg.solve(gram + 0.01 * gram.trace() / len(gram) * torch.eye(len(gram)),
                               in_smollm[fitted_on].T @ targets_space[fitted_on])
queries = {"no map": in_smollm[tested, :384], "after a fitted map": in_smollm[tested] @ to_minilm}


def ranks(query, keys, metric):
    """The place of the right answer in each row: 1 is best."""
    if metric == "cosine":
        likeness = F.normalize(query, dim=-1) @ F.normalize(keys, dim=-1).T
    else:
        likeness = -torch.cdist(query, keys)
    return (likeness > likeness.diagonal()[:, None]).sum(1) + 1


ks = [1, 2, 5, 10, 20, 50, 100]
fig, ax = figure(width=8.6, height=3.7)
at_ten = {}
for (name, query), color in zip(queries.items(), (COLORS[1], COLORS[0]), strict=True):
    for metric, style in (("cosine", "-"), ("Euclidean", ":")):
        place = ranks(query, targets_space[tested], metric)
        at_ten[name, metric] = float((place <= 10).float().mean())
        ax.plot(ks, [100 * float((place <= k).float().mean()) for k in ks], color=color, linestyle=style, marker="o",
                label=f"{name}, {metric}")
ax.plot(ks, ks, color="#777777", linewidth=1, linestyle="--", label="by chance")
ax.set(xscale="log", xlabel="k", ylabel="right line among the first k, %", ylim=(0, 103))
ax.set_xticks(ks, ks)
ax.minorticks_off()
ax.legend(fontsize=9)
show(
    fig,
    alt="Top-k accuracy of finding a line across two embedding spaces against k. Among the first ten: "
    + ", ".join(f"{name}, {metric}, {share:.0%}" for (name, metric), share in at_ten.items()) + "; by chance 10%.",
    title=f"Among the first 10 of 100: {at_ten['no map', 'cosine']:.0%} across two unrelated spaces, "
    f"{at_ten['after a fitted map', 'cosine']:.0%} after a fitted map",
)
unit = F.normalize(queries["after a fitted map"], dim=-1), F.normalize(targets_space[tested], dim=-1)
agree = float((ranks(*unit, "cosine") == ranks(*unit, "Euclidean")).float().mean())
print(f"With all vectors scaled to length 1, cosine and Euclid give the same place for {agree:.0%} of the lines.")
good = [metric for metric in ("cosine", "Euclidean") if at_ten["after a fitted map", metric] > 0.5]
by_luck = max(at_ten["no map", metric] for metric in ("cosine", "Euclidean")) > 0.25
verdict(
    "A09.12",
    "unverifiable" if by_luck else ("wrong", "imprecise", "correct")[len(good)],
    "With two encoders of text in the place of a picture's and a text's, the right line is among the first ten of a "
    "hundred: "
    + ", ".join(f"{name}, {metric}, {share:.0%}" for (name, metric), share in at_ten.items())
    + ".",
)

# %% [markdown]
# So ask first who made the space. Between vectors that were never trained together a cosine means nothing: turn one
# space round, which changes none of its own cosines, and every cosine between the two is another. (Both of ours hold
# texts. A real picture needs a larger download.) CLIP's encoders are trained until image and caption point the same way
# (Radford et al. 2021, [arXiv:2103.00020](https://arxiv.org/abs/2103.00020)). On vectors of length 1 the two measures
# rank alike, since $\lVert a - b \rVert^2 = 2 - 2 \cos(a, b)$; on others they need not.
#
# ### A search engine of your own
#
# The same lines, inside one space: ask in today's English.

# %% tags=["payoff"]
asked = ["I am jealous of my friend", "the king is dead", "she is very beautiful", "give me some money"]
likeness = cosine_similarity(encode(asked), in_minilm)
for question, row in zip(asked, likeness, strict=True):
    best = row.topk(2)
    print(question)
    for value, i in zip(best.values, best.indices, strict=True):
        print(f"    {float(value):.2f}  {lines[int(i)]}")
halves = [" ".join(line.split()[: len(line.split()) // 2]) for line in lines[:100]]
again = cosine_similarity(encode(halves), in_minilm)
for k in (1, 5, 20):
    print(f"half a line finds its line among the first {k} of {len(lines)}: "
          f"{float(top_k_accuracy(again, torch.arange(len(halves)), k)):.0%}")

# %% [markdown]
# ## What the list leaves out
#
# Every metric of the usual list is older than large models. Accuracy lives on in their reports, as the share of exam
# questions that are answered exactly. What they add is code that must pass tests, and verdicts of people or of other
# models. Three tools for that; whether the list could do without them is a claim for further down.
#
# **pass@k**: the probability that at least one of $k$ tries at a programming task passes its tests. You sample
# $n \ge k$ programs a task, $c$ of them pass. The naive way puts $\hat p = c/n$ into
# $1 - (1 - \hat p)^k$. Chen et al. (2021, [arXiv:2107.03374](https://arxiv.org/abs/2107.03374)) ask instead: if I
# draw $k$ of my $n$ programs, how likely is it that none passes?
#
# $$\text{pass@}k = 1 - \binom{n-c}{k} \Big/ \binom{n}{k}$$
#
# **Confidence.** A score on 100 questions is a draw. The **bootstrap** draws the questions again, with replacement, a
# thousand times, and looks how far the score moves.

# %% tags=["demo"]
dice = np.random.default_rng(1)
TASKS, TRIES, REPEATS = 164, 10, 500
chance = dice.beta(0.4, 0.8, size=TASKS)  # that a try passes: more tasks are hard or easy than in between
passed = dice.binomial(TRIES, chance, size=(REPEATS, TASKS))
ks = range(1, TRIES + 1)
true_rate = [np.mean(1 - (1 - chance) ** k) for k in ks]
naive = [(1 - (1 - passed / TRIES) ** k).mean(1) for k in ks]
counted = np.array([[1 - math.comb(TRIES - c, k) / math.comb(TRIES, k) for c in range(TRIES + 1)] for k in ks])
unbiased = [row[passed].mean(1) for row in counted]


def answers(strength):
    """Which test pictures a classifier of all ten digits gets right."""
    classifier = LogisticRegression(C=strength, max_iter=300).fit(pictures[seen], digits[seen])
    return classifier.predict(pictures[~seen]) == digits[~seen]


right = np.stack([answers(1e-4), answers(1e-5)]).astype(float)


def half_width(values):
    """Half of the 95 % interval of the mean of `values` [questions], in points."""
    means = values[dice.integers(len(values), size=(1000, len(values)))].mean(1)
    return 50 * float(np.subtract(*np.quantile(means, [0.975, 0.025])))


sizes = [50, 100, 200, 400]
widths = {"one score": [], "two models, other questions": [], "two models, same questions": []}
for size in sizes:
    found = []
    for _ in range(20):
        one, other = dice.permutation(right.shape[1])[: 2 * size].reshape(2, size)
        single = [half_width(right[0, one]), half_width(right[1, other])]
        found.append((single[0], math.hypot(*single), half_width(right[0, one] - right[1, one])))
    for values, width in zip(widths.values(), np.mean(found, axis=0), strict=True):
        values.append(width)

print(f"Right: {', '.join(f'{share:.0%}' for share in right.mean(1))} of {right.shape[1]} pictures.")
print(f"The interval of a difference on {sizes[1]} questions: "
      + ", ".join(f"± {values[1]:.1f} points for {name}" for name, values in list(widths.items())[1:]) + ".")
fig, axes = figure(1, 2, width=10.4, height=3.7)
for values, name, color, mark in ((naive, "naive", COLORS[1], "s"), (unbiased, "unbiased", COLORS[0], "o")):
    error = [100 * (each - t) for each, t in zip(values, true_rate, strict=True)]
    axes[0].errorbar(ks, [each.mean() for each in error], [each.std() for each in error], color=color, marker=mark,
                     capsize=3, label=name)
axes[0].axhline(0, color="black", linewidth=1)
axes[0].set(xlabel="k", ylabel="error of pass@k, points\n(mean ± standard deviation)", title=f"{TRIES} tries a task")
axes[0].legend()
for (name, values), color, style in zip(widths.items(), COLORS[2:], (":", "--", "-"), strict=False):
    axes[1].plot(sizes, values, color=color, linestyle=style, marker="o", label=name)
axes[1].set(xlabel="questions in the test", ylabel="± points (95 % interval)", xscale="log", ylim=(0, None),
            title="How sure a score is")
axes[1].set_xticks(sizes, sizes)
axes[1].minorticks_off()
axes[1].legend()
show(
    fig,
    alt="Left: the error of naive and unbiased pass@k against k. Right: half the width of the bootstrap interval "
    "against the number of questions: for one score, for two models on other questions, for two on the same ones.",
    title=f"pass@{TRIES}: naive {100 * (naive[-1].mean() - true_rate[-1]):+.1f} points on average, unbiased "
    f"{100 * (unbiased[-1].mean() - true_rate[-1]):+.1f}. A score on 100 questions: ± {widths['one score'][1]:.0f}",
)

# %% [markdown]
# Compare two models on the *same* questions, and bootstrap the difference: what is hard for both then cancels, and the
# right panel shows what that is worth. Somebody reports two models two points apart on a hundred questions: hold that
# against the lines above the figure. (Both models here are classifiers of digits; nearer to 50 % right the intervals
# are wider.)
#
# ### Is the list enough?
#
# Its metrics compare texts, or ask how surprising a text is. Some answers can be *tried*. Eight small tasks in Python:
# for each a reference, a **right** program written in another way, and a **wrong** one that looks like the reference,
# as a bug does. Which of the two would BLEU, ROUGE-L, the encoder's cosine or SmolLM's perplexity take? As a control
# each has to tell the right program from the right one of *another* task. And then we run the tests, which can't err
# here: right and wrong are what they say.
#
# **Before the run:** *correct* if one of the list's four takes the right program in at least seven of the eight tasks;
# *outdated* if none does and the tests do; *imprecise* if neither. *Unverifiable* if in the control none of the four
# reaches seven: then these programs are too strange for them.

# %% claim="A09.1"
import functools

PROGRAMS = [  # what is asked, reference, right, wrong, and tests: argument -> result
    ("the mean of a list", "def f(x):\n    return sum(x) / len(x)",
     "def f(x):\n    total = 0\n    for number in x:\n        total += number\n    return total / len(x)",
     "def f(x):\n    return sum(x) / (len(x) - 1)", [([1, 2, 6], 3), ([4], 4)]),
    ("the largest number of a list",
     "def f(x):\n    best = x[0]\n    for n in x:\n        if n > best:\n            best = n\n    return best",
     "def f(x):\n    return sorted(x)[-1]",
     "def f(x):\n    best = x[0]\n    for n in x:\n        if n < best:\n            best = n\n    return best",
     [([3, 9, 4], 9), ([-2, -5], -2)]),
    ("whether a number is even", "def f(x):\n    return x % 2 == 0",
     "def f(x):\n    half = x // 2\n    return half + half == x", "def f(x):\n    return x % 2 == 1",
     [(4, True), (7, False)]),
    ("a text backwards", "def f(x):\n    return x[::-1]", "def f(x):\n    return ''.join(reversed(x))",
     "def f(x):\n    return x[:-1]", [("abc", "cba"), ("no", "on")]),
    ("n factorial",
     "def f(x):\n    result = 1\n    for i in range(1, x + 1):\n        result *= i\n    return result",
     "def f(x):\n    return 1 if x < 2 else x * f(x - 1)",
     "def f(x):\n    result = 1\n    for i in range(1, x):\n        result *= i\n    return result", [(4, 24), (1, 1)]),
    ("how many vowels a word has", "def f(x):\n    return sum(letter in 'aeiou' for letter in x)",
     "def f(x):\n    vowels = [letter for letter in x if letter in set('aeiou')]\n    return len(vowels)",
     "def f(x):\n    return sum(letter not in 'aeiou' for letter in x)", [("banana", 3), ("try", 0)]),
    ("the last word of a text", "def f(x):\n    return x.split()[-1]",
     "def f(x):\n    words = x.split()\n    return words[len(words) - 1]", "def f(x):\n    return x.split()[0]",
     [("a b c", "c"), ("one two", "two")]),
    ("the absolute value of a number", "def f(x):\n    if x < 0:\n        return -x\n    return x",
     "def f(x):\n    return max(x, -x)", "def f(x):\n    if x > 0:\n        return -x\n    return x",
     [(-3, 3), (5, 5)]),
]


def passes(program, tests):
    space = {}
    exec(program, space)
    try:
        return all(space["f"](given) == wanted for given, wanted in tests)
    except (TypeError, AttributeError):  # a program of another task gets what it can't read
        return False


@functools.cache
def doubt(asked, program):
    """The mean NLL of a program after a line that says what it is for."""
    start = f"# {asked}\n"
    return float(surprises(tokenizer(start + program).input_ids)[len(tokenizer(start).input_ids) - 1 :].mean())


@functools.cache
def alike(program, reference):
    one, other = encode([program, reference])
    return float(one @ other)


METRICS = {
    "BLEU": lambda asked, program, reference: library_bleu(program, reference).score,
    "ROUGE-L": lambda asked, program, reference: rouge_f1(program, reference),
    "cosine of an encoder": lambda asked, program, reference: alike(program, reference),
    "perplexity": lambda asked, program, reference: -doubt(asked, program),
}
taken = {name: [0, 0] for name in METRICS}
for i, (task, solution, right_one, wrong_one, _) in enumerate(PROGRAMS):
    for column, other in enumerate((wrong_one, PROGRAMS[i - 1][2])):
        for name, of in METRICS.items():
            taken[name][column] += of(task, right_one, solution) > of(task, other, solution)
taken["running the tests"] = [
    sum(passes(row[2], row[4]) and not passes(other, row[4]) for row, other in pairs)
    for pairs in (zip(PROGRAMS, [row[3] for row in PROGRAMS], strict=True),
                  zip(PROGRAMS, [PROGRAMS[i - 1][2] for i in range(len(PROGRAMS))], strict=True))
]
fig, ax = figure(width=8.6, height=3.6)
for column, (name, color, hatch) in enumerate([("a wrong one", COLORS[0], ""), ("another task's", COLORS[1], "//")]):
    bars = ax.barh([row + 0.4 * column for row in range(len(taken))], [of[column] for of in taken.values()], 0.38,
                   color=color, hatch=hatch, edgecolor="white", label=name)
    ax.bar_label(bars, padding=3)
ax.axvline(len(PROGRAMS) / 2, color="#777777", linestyle=":", linewidth=1)
ax.set_yticks([row + 0.2 for row in range(len(taken))], list(taken))
ax.invert_yaxis()
ax.set(xlabel=f"the right program is taken, of {len(PROGRAMS)} tasks (dotted: by chance)",
       xlim=(0, 1.4 * len(PROGRAMS)))
ax.legend(title="right program against", loc="lower right")
told = ", ".join(f"{name} {against} of {len(PROGRAMS)} ({control} in the control)"
                 for name, (against, control) in taken.items())
show(fig, alt=f"Bars: how often each takes the right program rather than a wrong one: {told}.",
     title="Right program taken: " + ", ".join(f"{name} {of[0]}" for name, of in taken.items()))
enough, able = ([name for name in METRICS if taken[name][column] >= 7] for column in (0, 1))
tried = taken["running the tests"][0] >= 7
verdict(
    "A09.1",
    "unverifiable" if not able else "correct" if enough else "outdated" if tried else "imprecise",
    f"The right program is taken rather than the wrong one by {told}.",
)

# %% [markdown]
# These wrong programs were made to look right, and these right ones to look different. And those that nobody made to
# mislead? Among a model's own programs wrong ones often had a higher BLEU than right ones (Chen et al. 2021). Where an
# answer can be tried, try it; **pass@k** counts that. Real tests have holes, though: with 80 times as many, pass@k on
# HumanEval fell by up to 19 to 29 % (Liu et al. 2023, [arXiv:2305.01210](https://arxiv.org/abs/2305.01210)).
#
# ### The judge
#
# The third tool is another model that says which of two answers is better. It is cheap. Has it habits? We ask
# SmolLM eight easy questions, each with a right and a wrong answer, and then **swap** the two. A verdict that is about
# the answers survives the swap.

# %% tags=["demo"]
QUESTIONS = [
    ("What is the capital of France?", "Paris.", "Berlin."),
    ("Which planet is closest to the sun?", "Mercury.", "Neptune."),
    ("Who wrote Hamlet?", "William Shakespeare.", "Charles Darwin."),
    ("What do bees make?", "Honey.", "Bread."),
    ("How many days has a week?", "Seven.", "Nine."),
    ("Which animal barks?", "A dog.", "A fish."),
    ("What is frozen water called?", "Ice.", "Sand."),
    ("In which city is the Eiffel Tower?", "Paris.", "Madrid."),
]
ASK = ("Question: {}\nAnswer A: {}\nAnswer B: {}\nWhich answer is better? Reply with the letter A or B only.")
letters = [tokenizer(letter, add_special_tokens=False).input_ids[-1] for letter in "AB"]


@torch.inference_mode()
def prefers_first(question, first, second):
    """The log-odds that the judge names answer A."""
    chat = [{"role": "user", "content": ASK.format(question, first, second)}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    last = model.model(tokenizer(prompt, return_tensors="pt").input_ids).last_hidden_state[0, -1].float()
    return float(last @ (model.lm_head.weight[letters[0]].float() - model.lm_head.weight[letters[1]].float()))


good_first = np.array([prefers_first(question, good, bad) for question, good, bad in QUESTIONS])
good_second = np.array([prefers_first(question, bad, good) for question, good, bad in QUESTIONS])
consistent = (good_first > 0) != (good_second > 0)
named_a = ((good_first > 0).sum() + (good_second > 0).sum()) / (2 * len(QUESTIONS))
knows = (good_first - good_second) / 2  # what is left if the place is canceled out
fig, ax = figure(width=8.6, height=4.2)
for i in range(len(QUESTIONS)):
    ax.plot([good_first[i], good_second[i]], [i, i], color="#bbbbbb", zorder=1)
ax.scatter(good_first, range(len(QUESTIONS)), color=COLORS[0], s=45, label="right answer is A", zorder=2)
ax.scatter(good_second, range(len(QUESTIONS)), color=COLORS[1], s=45, marker="D", label="right answer is B", zorder=2)
ax.axvline(0, color="black", linewidth=1)
ax.set_yticks(range(len(QUESTIONS)), [question for question, *_ in QUESTIONS])
ax.invert_yaxis()
ax.set(xlabel="log-odds that the judge says A (left of 0 it says B)")
ax.legend()
show(
    fig,
    alt="For each question two dots: the judge's log-odds for answer A when the right answer is A, and when it is B. "
    "A fair judge has them on both sides of 0.",
    title=f"The judge names A in {named_a:.0%} of its verdicts; {consistent.sum()} of {len(QUESTIONS)} survive a swap",
)
print(f"Averaged over both orders it leans to the right answer {(knows > 0).sum()} times of {len(QUESTIONS)}.")

# %% [markdown]
# One very small judge on eight questions is an example. GPT-4 agreed with people about as well as people do with each
# other, and yet about a third of its verdicts did not survive a swap; a bias for length was measured as well (Zheng et
# al. 2023, [arXiv:2306.05685](https://arxiv.org/abs/2306.05685)), and one for a judge's own texts (Panickssery et al.
# 2024, [arXiv:2404.13076](https://arxiv.org/abs/2404.13076)). The remedy for the first costs a factor of two: ask in
# both orders, and count only verdicts that agree. And compare with people's verdicts, beyond chance (Cohen's $\kappa$).
#
# What else belongs on a list of today: newer exams for the old accuracy (GPQA; Humanity's Last Exam, Phan et al. 2025,
# [arXiv:2501.14249](https://arxiv.org/abs/2501.14249)), tasks in a real environment (SWE-bench), where pass^k asks that
# *all* of k tries succeed (Yao et al. 2024, [arXiv:2406.12045](https://arxiv.org/abs/2406.12045)); metrics that compare
# by an encoder (BERTScore, Zhang et al. 2019, [arXiv:1904.09675](https://arxiv.org/abs/1904.09675)) or are trained on
# people's verdicts (COMET, Rei et al. 2020, [arXiv:2009.09025](https://arxiv.org/abs/2009.09025)); pairwise votes
# turned into ratings (Bradley-Terry, "Elo"); calibration, whether of what is said with 80 % certainty 80 % is true (Guo
# et al. 2017, [arXiv:1706.04599](https://arxiv.org/abs/1706.04599)); faithfulness to sources; and always the question
# whether the test was in the training data.
#
# ## One name in two libraries
#
# A metric's name promises a formula, and a library keeps it up to its corners. What torchmetrics 1.9.0 says in three of
# them, and what another library does (each line is a script in `findings/`). chrF is an F-score of n-grams of
# characters; Matthews' correlation is that of truth and answer, 0 where the one says nothing about the other:
#
# | asked | torchmetrics | the other |
# |---|---|---|
# | BLEU smoothed by adding 1, no four-gram in common | 0: the smoothing comes too late | sacrebleu 2.6.0: 32.5 |
# | chrF of "yes", which equals its reference | 0.5: orders too long for the text count 0 | sacrebleu: 100 of 100 |
# | Matthews' correlation of a model that always says yes; of 1,000 cases 999 are | 0.998 | scikit-learn 1.9.1: 0 |
#
# And five that go wrong without a word:
#
# * **torchmetrics 1.9.0**: to its MRR, MAP, precision and recall of a ranking a document whose score isn't above 0
#   isn't found. A perfect ranking by negative logits gets 0, and an nDCG of 1. Give it probabilities, or ranks.
#   `findings/torchmetrics_finds_nothing_below_zero.sh` runs it.
# * **torcheval 0.0.7**: in a tie each is first, so a model that gives all of 100 candidates one score has a hit rate
#   and a reciprocal rank of 1. `findings/torcheval_calls_a_constant_score_perfect.sh` runs it.
# * **jiwer 4.0.0**: two words with a single line break between them are one word to its word error rate. Mend that by
#   `" ".join(text.split())`. `findings/jiwer_joins_words_at_a_line_break.sh` runs it.
# * **rouge 1.0.1**: each word counts once, so "no no no no" is a perfect summary of "no"; rouge-score gives 0.40.
#   `findings/rouge_counts_each_word_once.sh` runs it.
# * **transformers 5.23.0**: the Trainer's `eval_loss` is a mean of the batches' means. It changes with the batch size,
#   and its exponential is no perplexity. `findings/transformers_eval_loss_depends_on_the_batch.sh` runs it.
#
# Before you trust a number, ask its function for one that you know: two equal texts, a constant answer, an empty one.
#
# ## What to remember
#
# * Say what you average over: classes, tokens, texts, batches. The same data give different numbers.
# * Say what 0/0 is, how ties count, which tokenizer cut the text.
# * Accuracy doesn't say which class is missed, AUC not how rare positives are, and $R^2$ is not a square.
# * BLEU and ROUGE see words, not meaning. Perplexity sees surprise, not quality. A cosine needs a shared space.
# * A judge has habits: swap. A score has an error: bootstrap.
#
# **Sources.** Papineni et al. 2002 (BLEU); Lin 2004 (ROUGE); Post 2018,
# [arXiv:1804.08771](https://arxiv.org/abs/1804.08771) (sacreBLEU); Hanley and McNeil 1982 (AUC); Saito and Rehmsmeier
# 2015 (rare positives); Opitz and Burst 2019, [arXiv:1911.03347](https://arxiv.org/abs/1911.03347) (macro F1); Holtzman
# et al. 2020, [arXiv:1904.09751](https://arxiv.org/abs/1904.09751); Chen et al. 2021,
# [arXiv:2107.03374](https://arxiv.org/abs/2107.03374) (pass@k); Zheng et al. 2023,
# [arXiv:2306.05685](https://arxiv.org/abs/2306.05685) (judges); Radford et al. 2021,
# [arXiv:2103.00020](https://arxiv.org/abs/2103.00020) (CLIP).
