# ---
# jupyter:
#   course:
#     title: "Overfitting, and what helps"
#     exercises: transformer.overfitting
#     questions: [T09, T07]
#     needs: [01_transformer/07_training_recipe]
# ---

# %% [markdown]
# # Overfitting, and what helps
#
# A model that has read the same five pages forty times may know them by heart. Ask it for the sixth page, and it may do
# worse than it did after a few readings. That is **overfitting**: the loss on what it has read goes on falling, the
# loss on what it has not read turns round and climbs.
#
# The interview question asks for the cures, and the usual list is long: data augmentation, dropout, L2, LayerNorm,
# BatchNorm, early stopping. You will build three of them, and label smoothing, let a small GPT read two pages of
# Shakespeare again and again, and measure what each cure is worth.

# %% tags=["setup"]
import math

import torch
from torch import nn

from autograde import check

# %% [markdown]
# ## Two pages, again and again
#
# Five thousand letters of a play are all that our model may read: two or three pages. Of what follows in the book the
# next ten thousand letters are the **validation** text: whatever is chosen (when to stop, which setting) is chosen on
# it. The ten thousand behind it are the **test** text, on which nothing is chosen; it is only reported.
#
# The model is a GPT with two pre-norm layers of 64 features (`experiments/overfit.py`), small enough to be trained in
# seconds. Each loss is that of 64 windows of 32 letters, spread evenly over its text.
# %% tags=["demo"]
from experiments.overfit import EVERY, GPT, LENGTH, RATE, ROWS, STEPS, batch, encoded, loss_on, pages, train
from labkit import COLORS, evidence, figure, interval, minilm, show, verdict

plain = train()
NAMES = {"known": "the text it reads", "validation": "validation text", "test": "test text"}
fig, ax = figure(width=8.5, height=4)
for (part, name), color, mark in zip(NAMES.items(), COLORS, "os^", strict=False):
    ax.plot(plain["step"], plain[part], color=color, marker=mark, label=name)
turn = min(range(len(plain["step"])), key=plain["validation"].__getitem__)
ax.axvline(plain["step"][turn], color="#777777", linestyle=":")
ax.set(xlabel="step", ylabel="loss, nats a letter")
ax.legend()
told = ", ".join(f"{name} best {min(plain[part]):.2f}, last {plain[part][-1]:.2f}" for part, name in NAMES.items())
show(
    fig,
    alt=f"Three learning curves: {told}.",
    title=f"Validation text is lowest at step {plain['step'][turn]}: there test text costs {plain['test'][turn]:.2f} "
    f"nats, at the end {plain['test'][-1]:.2f}",
)

# %% [markdown]
# Everything below tries to keep the upper curves down.
#
# ## Dropout
#
# In each step of training, every number is set to 0 with probability $p$. The idea: a network that must work with
# random parts missing can't rely on a few accomplices that know the page by heart (Srivastava et al. 2014).
#
# What remains is multiplied by $1/(1-p)$, so that sums keep their size on average:
# $E[y_i] = (1-p)\,\frac{x_i}{1-p} = x_i$. Therefore evaluation needs no change at all. To make your function
# predictable, it gets the chance from outside: `noise`, uniform in [0, 1).


# %% exercise="dropout"
def dropout(x, p, noise, training=True):
    """Set numbers to zero and scale the rest up (inverted dropout).

    x:     floating-point tensor of any shape; finite
    p:     probability of being dropped, a number from 0 to 1 (both included)
    noise: tensor of x's shape and dtype, values in [0, 1)
    In training a number is dropped where noise < p; what is kept is divided by 1 - p. With
    p = 1 all becomes 0. With training=False nothing changes.
    Returns a tensor of x's shape and dtype. x is not changed in place, and gradients flow to
    what is kept of it.

    Srivastava et al. 2014, JMLR 15; the scaling in training as in torch.nn.Dropout.
    """
    ### BEGIN SOLUTION
    if not training:
        return x
    if p == 1:
        return torch.zeros_like(x)
    return x * (noise >= p) / (1 - p)
    ### END SOLUTION


# %% check="dropout"
check(dropout)

# %% [markdown]
# ## Label smoothing
#
# Cross-entropy wants probability 1 for the right letter. It is never satisfied: a larger lead of the right logit always
# costs less. **Label smoothing** (Szegedy et al. 2015) asks for a little less. With smoothing $s$ and $V$ classes the
# target is $1-s$ for the right class, plus $s/V$ for *every* class:
#
# $$L = (1-s)\,(-\log p_{\text{right}}) + s \cdot \frac{1}{V}\sum_{c} -\log p_c .$$

# %% tags=["demo"]
gap = torch.linspace(-2, 12, 200)  # logit of the right class minus that of the others
classes = 10
log_right = -torch.log1p((classes - 1) * (-gap).exp())
log_other = log_right - gap

fig, ax = figure(width=8, height=3.8)
leads = {}
for s, color, style in zip((0.0, 0.1, 0.3), COLORS, ("-", "--", "-."), strict=False):
    curve = -(1 - s) * log_right - s * (log_right + (classes - 1) * log_other) / classes
    ax.plot(gap, curve, color=color, linestyle=style, label=f"smoothing {s}")
    if s:
        best = curve.argmin()
        leads[s] = float(gap[best])
        ax.plot(gap[best], curve[best], "o", color=color)
        ax.annotate(
            f"{gap[best]:.1f}", (gap[best], curve[best]), textcoords="offset points", xytext=(0, 8), ha="center"
        )
ax.set(xlabel="how far the right logit is above the others", ylabel="loss, nats")
ax.legend()
show(
    fig,
    alt=f"Loss against the lead of the right logit of {classes}; the lowest point of each smoothed curve is marked: "
    + ", ".join(f"smoothing {s} at {lead:.1f}" for s, lead in leads.items()) + ".",
    title="The loss is lowest at a lead of " + ", ".join(f"{lead:.1f} (smoothing {s})" for s, lead in leads.items()),
)


# %% exercise="label_smoothing_loss"
def label_smoothing_loss(logits, targets, smoothing=0.1, ignore_index=-100):
    """Cross-entropy against smoothed targets, averaged over the rows that count.

    logits:       floating-point tensor [rows, classes]; they may be large
    targets:      int64 tensor [rows]: the right class, or ignore_index where there is none
                  (padding)
    smoothing:    s from 0 to 1; the target is 1 - s for the right class, plus s / classes for
                  every class
    ignore_index: rows with this target are left out of the sum and of the number of rows; at
                  least one row counts. It may be any integer: a class, too
    Returns one number: a tensor of no dimension, of the dtype of the logits, through which
    gradients flow to them.

    Szegedy et al. 2015, arXiv:1512.00567, section 7; the same as
    torch.nn.functional.cross_entropy.
    """
    ### BEGIN SOLUTION
    live = targets != ignore_index
    logs, right = logits[live].log_softmax(-1), targets[live]
    picked = logs.gather(-1, right.unsqueeze(-1)).squeeze(-1)
    return ((1 - smoothing) * -picked + smoothing * -logs.mean(-1)).mean()
    ### END SOLUTION


# %% check="label_smoothing_loss"
check(label_smoothing_loss)

# %% [markdown]
# ## L2 and weight decay: the same?
#
# Large weights allow wiggly functions: keep them small. There are two recipes. **L2** adds $\frac{\lambda}{2}\|w\|^2$
# to the loss, hence $\lambda w$ to the gradient. **Weight decay** makes $w$ shrink by $\eta\lambda w$ in each step. For
# plain SGD they are the same line of code.
#
# For Adam they are not. Adam divides each gradient by its own typical size. With L2 the shrinking term goes through
# that division as well. Loshchilov and Hutter (2017) took the decay out of it, and called it AdamW.


# %% exercise="adam_with_decay"
def adam_with_decay(
    weight, gradients, lr=1e-3, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-8
):
    """Run Adam over a list of gradients, with either kind of decay.

    weight:    floating-point tensor of any shape, also of none
    gradients: tensor [steps, *weight.shape] of its dtype: the gradient of each step, in order,
               at least one. Entries may be 0 in all steps
    decoupled: True: AdamW. In each step first w = w - lr * weight_decay * w, then the step of
               Adam.
               False: L2. In each step first g = g + weight_decay * w, then the step of Adam
               with this g.
    The step of Adam number t = 1, 2, …:
        m = beta1 * m + (1 - beta1) * g and v = beta2 * v + (1 - beta2) * g², both from zero;
        w = w - lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps).
    Returns the weight after all steps, of its shape and dtype. Nothing that came in is changed.

    Kingma, Ba 2014, arXiv:1412.6980, algorithm 1; Loshchilov, Hutter 2017, arXiv:1711.05101,
    algorithm 2, with the decay multiplied by lr as in torch.optim.AdamW.
    """
    ### BEGIN SOLUTION
    w, m, v = weight, torch.zeros_like(weight), torch.zeros_like(weight)
    for t, g in enumerate(gradients, start=1):
        if decoupled:
            w = w - lr * weight_decay * w
        else:
            g = g + weight_decay * w
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        w = w - lr * (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
    return w
    ### END SOLUTION


# %% check="adam_with_decay"
check(adam_with_decay)

# %% [markdown]
# Is the difference large enough to matter? A hundred weights start at 1. Their gradients are pure noise of different
# sizes, so there is nothing to learn and only the decay should act. What is left of each weight?
#
# **Before the run:** a decay is *even* if it leaves less than 90 % of every weight (one that takes nothing away would
# be even, too), and what it leaves differs by less than a factor of 1.5. *Correct* if L2 under Adam is even,
# *imprecise* if only the decoupled form is, *wrong* if neither is.

# %% claim="T09.3"
sizes = torch.logspace(-2, 2, 100)


def what_is_left(kind, steps=300):
    """The mean of the weights after `steps` of noise, relative to a run without decay: [100]."""
    ends = []
    for decay in (0.5, 0.0):
        generator, w = torch.Generator().manual_seed(0), torch.ones(200, 100, requires_grad=True)
        optimizer = kind([w], lr=2e-3, weight_decay=decay)
        for _ in range(steps):
            w.grad = torch.randn(200, 100, generator=generator) * sizes
            optimizer.step()
        ends.append(w.detach().mean(0))
    return ends[0] / ends[1]


left = {"L2 in the loss (Adam)": what_is_left(torch.optim.Adam), "decoupled (AdamW)": what_is_left(torch.optim.AdamW)}
fig, ax = figure(width=8.5, height=3.9)
for (name, values), color, style in zip(left.items(), (COLORS[1], COLORS[0]), ("--", "-"), strict=True):
    ax.plot(sizes, values, color=color, linestyle=style, label=name)
ax.set(
    xscale="log", ylim=(0, 1.1), xlabel="size of the weight's gradients", ylabel="what the decay leaves of the weight"
)
ax.legend()
l2, apart = left.values()
show(
    fig,
    alt="What decay leaves of a weight, from the smallest gradients to the largest: "
    + ", ".join(f"{name} {values[0]:.0%} to {values[-1]:.0%}" for name, values in left.items()) + ".",
    title=f"Same decay: AdamW leaves {apart.min():.0%} to {apart.max():.0%}, L2 {l2.min():.0%} to {l2.max():.0%}",
)
even = {name: bool(values.max() < min(0.9, 1.5 * values.min())) for name, values in left.items()}
verdict(
    "T09.3",
    "correct" if even["L2 in the loss (Adam)"] else "imprecise" if even["decoupled (AdamW)"] else "wrong",
    f"Under Adam L2 leaves {l2[0]:.0%} of the weights with the smallest gradients and {l2[-1]:.0%} of those with the "
    f"largest; decoupled decay leaves {apart.min():.0%} to {apart.max():.0%}.",
)

# %% [markdown]
# "L2 regularization" prevents overfitting, says the list. With plain SGD the two are one. Under Adam look at the right
# end of the dashed line: that is what the weights with the largest gradients are spared. If it lies far above the solid
# one, say *decoupled weight decay* in the interview.
#
# ## The cures side by side
#
# The same model, the same pages, the same 480 steps, five seeds: once with each cure, and once with four times as much
# text, which must help, or the measurement is no good. The other control must *not* help: the same training with other
# batches. One setting a cure; a weight decay of 1.0 is strong (0.1 is usual), pulls on norms and biases, too, and by
# rate times decay: less where the rate is low. So ask whether a cure works, and don't rank the cures.
#
# Two questions to each. What does the test text cost at the **end**, when nobody stops? And what at the step that the
# validation text **chooses**? A cure for those who can't stop isn't yet one for those who can.
#
# And at which learning rate? A lower one may be a cure of its own: in as many steps it learns less, as if it had been
# stopped. So each arm is trained at several rates, and gets the one that answers the question best on the validation
# text. The last row is the rate *alone*: no cure at its best rate against no cure at the rate of the first figure. (Did
# it only stop, the right panel would show nothing in this row.) Gray diamonds, light to dark: cure and no cure at one
# and the same rate, from the lowest to the highest.
#
# **Before the run:** dropout is a cure (*correct*) if at the end it is surely lower than without by 0.05 nats a letter,
# 95 % interval over the seeds, each at its own best rate; *imprecise* if only where both share some rate; *wrong* if
# surely nowhere, else *unverifiable*. (The runs at the highest rate, and one seed at some others, were known when this
# rule replaced one for that rate alone.)

# %% claim="T09.2"
from statistics import fmean

from experiments import T09_2 as cures
from experiments.T09_2 import COUNTS, PLAIN, RATES, at_end, at_known, best_rate, gain, lower, runs, stopped

found = evidence("T09.2")
print(found.again())
LIST = [arm for arm in cures.ARMS if arm not in (PLAIN, "no norm", "BatchNorm")]
DROPOUT, MORE = cures.DROPOUT, cures.MORE
ALONE = f"the best rate alone\n(against {RATE:g})"
KINDS = {"at the end": at_end, "at the chosen step": stopped}
HOW = {arm: {"name": arm} for arm in LIST} | {ALONE: {"name": PLAIN, "over_rate": RATE}}
GRAYS = [f"{0.8 * (1 - i / (len(RATES) - 1)):.2f}" for i in range(len(RATES))]


def turns(arm, rate):
    """The step at which the validation text is lowest, the mean over the seeds."""
    return fmean(stopped(run, "step") for run in runs(found, arm, rate))


def tell_rates(kind, of, arms):
    """Print the best rate of each arm, whose is the lowest or the highest that has an answer, and where it turns."""
    best, edge = {name: best_rate(found, arm, of) for name, arm in arms.items()}, []
    for name, arm in arms.items():
        answer = [rate for rate in RATES if max(of(run) for run in runs(found, arm, rate)) < math.inf]
        edge += [name] if best[name] in (answer[0], answer[-1]) else []
    print(f"Best rates {kind}: {'; '.join(f'{name} {rate:g}' for name, rate in best.items())}.")
    print(f"  It is the lowest or the highest that can be judged for: {'; '.join(edge) or 'none'}.")
    told = "; ".join(f"{name} {turns(arms[name], rate):.0f}" for name, rate in best.items())
    print(f"  There the validation text is lowest at step, in the mean, of {STEPS}: {told}.")


fig, axes = figure(1, 2, width=10.5, height=4.6, sharey=True)
gains = {}
for ax, (kind, of), color in zip(axes, KINDS.items(), COLORS, strict=False):
    for row, (arm, how) in enumerate(HOW.items()):
        dots = lower(found, of=of, **how)
        gains[arm, kind] = each = interval(dots)
        ax.plot(dots, [row] * len(dots), "o", color=color, alpha=0.6)
        ax.plot([each.low, each.high], [row, row], color=color, linewidth=6, alpha=0.25)
        for rate, gray in zip(RATES, GRAYS, strict=True) if arm in LIST else ():
            label = None if row else f"both at {rate:g}"
            ax.scatter(gain(found, arm, of, rate=rate).mean, row + 0.33, color=gray, marker="d", s=24, label=label)
    ax.axvline(0, color="#444444", linestyle=":")
    ax.set(xlabel="nats a letter lower than without", title=f"Test text, {kind}")
axes[0].set_yticks(range(len(HOW)), list(HOW))
axes[0].invert_yaxis()
axes[1].legend(loc="upper right")
helped = {kind: [arm for arm in LIST if gains[arm, kind].above(0)] for kind in KINDS}
told = "; ".join(f"{kind} {len(arms)} of {len(LIST)}" for kind, arms in helped.items())
show(
    fig,
    alt="Gains on the test text, each arm at its own best rate, dots are seeds, bands 95 %. " + " ".join(
        f"{arm}: {', '.join(gains[arm, kind].text('+.2f') + f' {kind}' for kind in KINDS)}." for arm in HOW
    ).replace("\n", " "),
    title=f"Surely lower than without, each at its best rate: {told}\n"
    f"({', '.join(helped['at the chosen step']) or 'none'})",
)
for kind, of in KINDS.items():
    tell_rates(kind, of, {arm: arm for arm in (PLAIN, *LIST)})
own, shared = gains[DROPOUT, "at the end"], {rate: gain(found, DROPOUT, rate=rate) for rate in RATES}
count = [f"{rate:g}" for rate, each in shared.items() if each.above(COUNTS)]
verdict(
    "T09.2",
    "correct" if own.above(COUNTS) else "imprecise" if count
    else "wrong" if all(each.below(COUNTS) for each in (own, *shared.values())) else "unverifiable",
    f"Dropout at 0.2 ends {own.text('+.2f')} nats lower, each at its own best rate; more than {COUNTS} for sure where "
    f"both have a rate of {' or '.join(count) or 'none that was tried'} (at {RATE:g} {shared[RATE].text('+.2f')}). At "
    f"the step that validation chooses: {gains[DROPOUT, 'at the chosen step'].text('+.2f')}. The best rate alone, over "
    f"{RATE:g}: {gains[ALONE, 'at the end'].text('+.2f')} at the end; there validation text is lowest at step "
    f"{turns(PLAIN, best_rate(found, PLAIN)):.0f} of {STEPS}. Four times the text: "
    f"{gains[MORE, 'at the end'].text('+.2f')} and {gains[MORE, 'at the chosen step'].text('+.2f')}.",
)

# %% [markdown]
# Compare the two panels. What shrinks from the left one to the right is what early stopping would have given for free.
# What shrinks from the darkest diamonds to the dots is what a lower rate would have given for free. What stays in the
# right one makes a *better* model. And look at the printed steps: a training whose validation text is lowest at its
# last step hasn't overfitted yet, and has nothing to cure. Where does "four times the text" lie beside the others? With
# data that is read again and again, as when a language model has used up its corpus, strong weight decay is what recent
# work reaches for (Kim et al. 2025, arXiv:2509.14786; on what repeating costs, Muennighoff et al. 2023,
# arXiv:2305.16264).
#
# "Regularization and dropout *prevent* overfitting." Prevented would mean that the test loss stays where it was at the
# step that validation chooses in the same run. The same runs tell: the verdict is that at the rate of the first figure,
# and beside it stands what it would be at each other one.
#
# **Before the run:** *correct* if with dropout and with weight decay it ends less than 0.05 nats above that for sure,
# and is surely not 0.05 worse than without at the chosen steps (a model that learns nothing doesn't rise, either);
# *wrong* if neither ends surely lower than without; *imprecise* otherwise. *Unverifiable* if it doesn't surely rise by
# 0.05 without. (The runs were known when the second half of *correct* was put in.)

# %% claim="T07.12"
def prevented(rate):
    """How far the test loss rises from the chosen step to the end, by arm, and the verdict at a rate."""
    risen = {arm: interval([at_end(run) - stopped(run) for run in runs(found, arm, rate)])
             for arm in (PLAIN, DROPOUT, cures.DECAY)}
    both = [arm for arm in risen if arm != PLAIN]
    if not risen[PLAIN].above(COUNTS):
        return risen, "unverifiable"
    learns = all(gain(found, arm, stopped, rate=rate).above(-COUNTS) for arm in both)
    if learns and all(risen[arm].below(COUNTS) for arm in both):
        return risen, "correct"
    return risen, "imprecise" if any(gain(found, arm, rate=rate).above(0) for arm in both) else "wrong"


risen, word = prevented(RATE)
verdict(
    "T07.12",
    word,
    "At the end the test loss is higher than at the chosen step by (nats, 95 %): "
    + "; ".join(f"{arm} {each.text('+.2f')}" for arm, each in risen.items()) + ". The verdict at each rate: "
    + ", ".join(f"{rate:g} {prevented(rate)[1]}" for rate in RATES) + ".",
)

# %% [markdown]
# ## Is LayerNorm a cure?
#
# The list also names normalization. Dropout adds noise, weight decay a pull to zero; LayerNorm computes the same in
# training and evaluation. But a device of optimization may still lead to *other* weights. So compare like with like:
# with LayerNorm, without any norm, and with BatchNorm, at the moment when the loss on the known pages is the same.
# Each has its own best rate again; for that moment it is one at which all five runs get there.
#
# **Before the run:** LayerNorm is a cure (*correct*) if it ends surely lower on test text than no norm *and* is surely
# lower at an equal training loss of 1.8 nats; *wrong* if neither; *imprecise* if one of the two. *Unverifiable* if
# other batches alone are surely lower there, too. (The runs at one rate were known when 1.8 and the last sentence were
# written.)

# %% claim="T09.4"
norm = nn.LayerNorm(32)
x = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
print("LayerNorm, training and evaluation, the same to the bit:", torch.equal(norm.train()(x), norm.eval()(x)))

NORMED = {"LayerNorm": PLAIN, "BatchNorm": "BatchNorm", "no norm": "no norm"}
fig, (left, right) = figure(1, 2, width=10.5, height=3.8, sharey=True)
for (name, arm), color, mark in zip(NORMED.items(), COLORS, "os^", strict=False):
    rates = {ax: best_rate(found, arm, of) for ax, of in ((left, at_end), (right, at_known))}
    for ax, rate in rates.items():
        for number, run in enumerate(runs(found, arm, rate)):
            across, label = "step" if ax is left else "known", None if number else f"{name}, rate {rate:g}"
            ax.plot(run[across][1:], run["test"][1:], color=color, marker=mark, markersize=3, linewidth=1, label=label)
for ax, label in ((left, "step"), (right, "loss on the known pages (training goes to the right)")):
    ax.set(xlabel=label, ylim=(2.4, 4.2))
right.invert_xaxis()
right.axvline(cures.LEVEL, color="#777777", linestyle=":")
left.set_ylabel("loss on test text, nats a letter")
for ax in (left, right):
    ax.legend(loc="upper center")
better = {
    name: tuple(gain(found, arm, of, over="no norm") for of in (at_end, at_known))
    for name, arm in NORMED.items() if arm != "no norm"
}
told = "; ".join(f"{name} {at.text('+.2f')} at equal training loss, {end.text('+.2f')} at the end"
                 for name, (end, at) in better.items())
show(
    fig,
    alt="Loss on test text against the step, and against the loss on known pages, five seeds each. Lower than no norm "
    f"by (95 %): {told}.",
    title="Nats gained against no norm (95 %):\n" + told.replace("; ", ";\n"),
)
for kind, of in (("at the end", at_end), ("at equal training loss", at_known)):
    tell_rates(kind, of, NORMED)
end, at = better["LayerNorm"]
chance = gain(found, cures.ORDER, at_known)
verdict(
    "T09.4",
    "unverifiable" if chance.above(0) else ("wrong", "imprecise", "correct")[end.above(0) + at.above(0)],
    f"Against no norm LayerNorm ends {end.text('+.2f')} nats lower on test text; at a training loss of {cures.LEVEL} "
    f"it is {at.text('+.2f')} lower. What other batches alone change there: {chance.text('+.2f')}.",
)

# %% [markdown]
# The model *with* LayerNorm is the one whose curves opened this chapter. LayerNorm isn't designed as a regularizer:
# whatever it gives, it is another function on another path of training, and these runs can't tell the two apart. What
# it is for, the chapter on normalization measures.
#
# **BatchNorm** is another matter by design. What it gives for one example depends on who else is in the batch: noise in
# training, which is gone in evaluation. How much? That depends on the size of the batch. We ask for a few rows, and for
# as many as the small GPT has letters in a batch: that is what its BatchNorm computes on.
#
# **Before the run:** numbers of spread 1 go in. *Wrong* if one example's answer varies by less than 0.01 among batches
# as large as the GPT's. Else *correct* if the GPT with BatchNorm is surely lower than that with LayerNorm at equal
# training loss, and *imprecise* if not.

# %% claim="T09.5"
FEW, LETTERS = 16, ROWS * LENGTH
batches = torch.randn(500, LETTERS, 32, generator=torch.Generator().manual_seed(2))
batches[:, 0] = batches[0, 0]  # the same example leads every batch
fig, ax = figure(width=8, height=3.4)
spread = {}
for kind, size, color in ((nn.BatchNorm1d, FEW, COLORS[1]), (nn.BatchNorm1d, LETTERS, COLORS[2]),
                          (nn.LayerNorm, FEW, COLORS[0])):
    name, layer = f"{kind.__name__.removesuffix('1d')}, {size} rows", kind(32)
    with torch.no_grad():
        answers = torch.stack([layer(rows[:size])[0, 0] for rows in batches])
    spread[name] = answers.std().item()
    ax.hist(answers, bins=torch.linspace(-3, 3, 80), color=color, label=f"{name}: spread {spread[name]:.2f}")
ax.set(xlabel="answer for one number of one example", ylabel="batches (of 500)", yscale="log")
ax.legend()
show(
    fig,
    alt="Histogram of the answer for the same example in 500 different batches. Standard deviations: "
    + ", ".join(f"{name} {each:.2f}" for name, each in spread.items()) + ".",
    title=f"Spread of one answer over {len(batches)} batches:\n"
    + "; ".join(f"{name} {each:.2f}" for name, each in spread.items()),
)
end, at = better["BatchNorm"]
more = gain(found, "BatchNorm", at_known)
varies = spread[f"BatchNorm, {LETTERS} rows"]
verdict(
    "T09.5",
    "wrong" if varies < 0.01 else "correct" if more.above(0) else "imprecise",
    f"One example's answer varies by {varies:.2f} among batches as large as the small GPT's. In that GPT "
    f"BatchNorm is {at.text('+.2f')} nats lower than no norm at a training loss of {cures.LEVEL}, and "
    f"{more.text('+.2f')} lower than LayerNorm.",
)

# %% [markdown]
# Language models don't use it, for the reasons of the chapter on normalization; some Transformers for images and for
# time series do.
#
# ## Early stopping
#
# The cheapest cure: stop at the turning point. "Stop if there is no significant improvement for some time" is how the
# notes put it. They leave three things open: which loss has to improve; how long is "some time" (the **patience**,
# since curves are noisy); and which checkpoint is kept, the last or the **best**.


# %% exercise="EarlyStopping"
class EarlyStopping:
    """Watches a loss and says when to stop.

    EarlyStopping(patience, min_delta=0.0): patience is an int of at least 1, min_delta a float
        of at least 0.
    step(loss): to be called with each new loss, a float (steps count from 0), which may be
        negative. A loss is an improvement where it is less than best - min_delta, strictly: an
        amount, not a share of the loss; NaN never is. Returns True where the last `patience` or
        more losses in a row were no improvement, else False. The caller may go on after a True.
    best:      the loss of the last improvement; infinity before the first one
    best_step: its step; -1 before the first one

    Prechelt 1998, "Early stopping – but when?"; counts as
    torch.optim.lr_scheduler.ReduceLROnPlateau counts bad epochs.
    """

    def __init__(self, patience, min_delta=0.0):
        ### BEGIN SOLUTION
        self.patience, self.min_delta = patience, min_delta
        self.best, self.best_step = math.inf, -1
        self.steps = self.bad = 0
        ### END SOLUTION

    def step(self, loss):
        ### BEGIN SOLUTION
        if loss < self.best - self.min_delta:
            self.best, self.best_step, self.bad = loss, self.steps, 0
        else:
            self.bad += 1
        self.steps += 1
        return self.bad >= self.patience
        ### END SOLUTION


# %% check="EarlyStopping"
check(EarlyStopping)

# %% [markdown]
# Which loss should it watch? The same rule (patience 3: three measurements, 120 steps), on the training loss and on the
# validation loss. The figure shows the run at the top; the verdict counts all five at its rate, and beside it stands
# what it would be at each other one. (Where a training hasn't overfitted yet, going on is right.)
#
# **Before the run:** *wrong* if the rule on the validation loss fails to stop one of the five runs. *Imprecise* if it
# stops all of them, but none of them on the training loss: then the sentence has to say which loss. *Correct* if it
# stops any on the training loss, too.


# %% claim="T09.6"
def stops_at(losses, patience=3):
    """The index at which a run of `patience` losses without a new minimum ends, or None."""
    for i in range(patience, len(losses)):
        if losses[i - patience + 1 : i + 1].min() >= losses[: i - patience + 1].min():
            return i
    return None


fig, ax = figure(width=8.5, height=4)
told = []
for part, name, color, mark in (("known", "training", COLORS[0], "o"), ("validation", "validation", COLORS[1], "s")):
    losses, steps = torch.tensor(plain[part]), plain["step"]
    stop = stops_at(losses)
    ax.plot(steps, losses, color=color, marker=mark, label=f"{name} loss")
    told.append(f"on {name} loss it " + ("doesn't stop" if stop is None else f"stops at step {steps[stop]}"))
    if stop is not None:
        ax.axvline(steps[stop], color=color, linestyle=":")
        ax.plot(steps[losses.argmin()], losses.min(), "*", color=color, markersize=16, label=f"best {name} loss")
ax.set(xlabel="step", ylabel="loss, nats a letter")
ax.legend()
show(
    fig,
    alt=f"Training and validation loss with the points at which early stopping would stop: {'; '.join(told)}.",
    title=f"Patience 3: {told[0]}; {told[1]}",
)


def stopped_by(part, rate=RATE):
    """How many of the five runs at a rate the rule stops on the loss of a part."""
    return sum(stops_at(torch.tensor(run[part])) is not None for run in runs(found, PLAIN, rate))


def word_at(rate=RATE):
    if stopped_by("validation", rate) < len(runs(found, PLAIN, rate)):
        return "wrong"
    return "correct" if stopped_by("known", rate) else "imprecise"


verdict(
    "T09.6",
    word_at(),
    f"With a patience of 3 the rule stops {stopped_by('validation')} of {len(runs(found, PLAIN))} runs on their "
    f"validation loss, and {stopped_by('known')} on their training loss. The claim doesn't say which. The verdict at "
    f"each rate: {', '.join(f'{rate:g} {word_at(rate)}' for rate in RATES)}.",
)

# %% [markdown]
# ## Other words, same label
#
# First on the list, and last here: **data augmentation**. One way for text is to replace words by synonyms (EDA, Wei
# and Zou 2019). It rests on a promise: the meaning stays. We ask a sentence encoder. How close does each sentence stay
# to itself when two words are replaced by synonyms, and when they are replaced by random words?
#
# And does it *help*? Above, the arm "synonyms" read the pages reworded anew every 40 steps, with about half of the
# words replaced of which a list of sixty knew a synonym; the verdict says what share of all words that is. Beside it
# the arm whose letters are spoilt at random: if that gains as much, it isn't the meaning that counts.
#
# **Before the run:** *correct* if synonyms stay surely nearer than random words *and* the arm is surely lower at the
# end, each at its own best rate; *wrong* if neither; else *imprecise*. (What it gives at the highest rate was known
# when the others were added.)

# %% claim="T09.1"
from experiments.overfit import reworded

sentences = {
    "The quick meal was really good": ("quick", "fast", "good", "tasty"),
    "I bought a new car yesterday": ("bought", "purchased", "car", "automobile"),
    "The child was happy to begin school": ("child", "kid", "begin", "start"),
    "She said the film was boring": ("film", "movie", "boring", "dull"),
    "We live in a big house near the sea": ("big", "large", "sea", "ocean"),
    "The doctor helped the sick man": ("doctor", "physician", "sick", "ill"),
}
words = sorted({word for old in sentences for word in old.split()})
encode, generator = minilm(), torch.Generator().manual_seed(0)


def replaced(text, a, new_a, b, new_b):
    return " ".join({a: new_a, b: new_b}.get(word, word) for word in text.split())


def at_random():
    return words[int(torch.randint(len(words), (), generator=generator))]


before = encode(list(sentences))
kept = {
    "synonyms": encode([replaced(text, *pairs) for text, pairs in sentences.items()]),
    "random words": encode([replaced(t, a, at_random(), b, at_random()) for t, (a, _, b, _) in sentences.items()]),
}
likeness = {name: (before * after).sum(-1) for name, after in kept.items()}
fig, ax = figure(width=8.5, height=3.8)
rows = torch.arange(len(sentences))
for shift, (name, values), color in zip((-0.2, 0.2), likeness.items(), (COLORS[0], COLORS[1]), strict=True):
    ax.barh(rows + shift, values, height=0.4, color=color, label=f"{name}: mean {values.mean():.2f}")
ax.set_yticks(rows, list(sentences))
ax.invert_yaxis()
ax.set(xlim=(0, 1), xlabel="cosine similarity with the original sentence")
ax.legend(loc="upper center", bbox_to_anchor=(0.3, -0.18), ncols=2)
show(
    fig,
    alt="Similarity of six sentences with themselves after two words were replaced: " + "; ".join(
        f"by {name} {values.min():.2f} to {values.max():.2f}" for name, values in likeness.items()
    ) + ".",
    title=f"Likeness after two synonyms {likeness['synonyms'].mean():.2f}, after two random words "
    f"{likeness['random words'].mean():.2f}",
)
nearer = interval((likeness["synonyms"] - likeness["random words"]).tolist())
trained = gain(found, "synonyms")
old, new = pages()["known"].split(), reworded(pages()["known"], torch.Generator().manual_seed(0)).split()
changed = fmean(one != other for one, other in zip(old, new, strict=True))
verdict(
    "T09.1",
    ("wrong", "imprecise", "correct")[nearer.above(0) + trained.above(0)],
    f"Synonyms stay nearer than random words by {nearer.text('.2f')}. Trained on reworded pages ({changed:.0%} of the "
    f"words) the model ends {trained.text('+.2f')} nats lower on test text (where both have a rate of {RATE:g} "
    f"{gain(found, 'synonyms', rate=RATE).text('+.2f')}), at the chosen step "
    f"{gains['synonyms', 'at the chosen step'].text('+.2f')}; with 5 % wrong letters it ends "
    f"{gains[cures.WRONG, 'at the end'].text('+.2f')} lower.",
)

# %% [markdown]
# The promise needs good synonyms, and these were chosen by hand. A thesaurus that replaces *bank* by *shore* breaks it,
# so look at what your augmentation makes. (The encoder is itself only a model of meaning.) For the pretraining of
# language models the rewording is done by another model (Maini et al. 2024, arXiv:2401.16380): pages are paraphrased,
# or turned into questions and answers.
#
# ## Payoff: your cures at work
#
# One training with your own parts: your dropout inside the model, your smoothed loss, and your early stopping watching
# the validation text; the decay is that of torch's AdamW. One seed, so it shows that they work together, and not what
# they gain.


# %% tags=["payoff"]
class YourDropout(nn.Module):
    def forward(self, x):
        return dropout(x, 0.1, torch.rand_like(x), self.training)


torch.manual_seed(0)
model, generator = GPT(YourDropout()), torch.Generator().manual_seed(1)
optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.5)
stopping, known = EarlyStopping(patience=3), encoded(pages()["known"])
validation, test = (encoded(pages()[part]) for part in ("validation", "test"))
ended = "Not stopped up to"
for step in range(STEPS + 121):
    if step % EVERY == 0 and stopping.step(loss_on(model, validation)):
        ended = "Stopped at"
        break
    inputs, targets = batch(known, generator)
    loss = label_smoothing_loss(model(inputs).flatten(0, 1), targets.flatten(), smoothing=0.05)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(
    f"{ended} step {step}; best validation loss {stopping.best:.2f} at step {EVERY * stopping.best_step}, in the plain "
    f"run {min(plain['validation']):.2f}. Test text at the end: {loss_on(model, test):.2f}."
)

# %% [markdown]
# Would you have kept the checkpoint of the best step? This loop did not: `copy.deepcopy(model.state_dict())` at each
# improvement is the line that is missing. Add it.
#
# **Sources.** Srivastava et al. 2014, [JMLR 15](https://jmlr.org/papers/v15/srivastava14a.html) (dropout); Szegedy et
# al. 2015, [arXiv:1512.00567](https://arxiv.org/abs/1512.00567) (label smoothing); Loshchilov and Hutter 2017,
# [arXiv:1711.05101](https://arxiv.org/abs/1711.05101) (decoupled decay); Wei and Zou 2019,
# [arXiv:1901.11196](https://arxiv.org/abs/1901.11196) (EDA); Ba et al. 2016,
# [arXiv:1607.06450](https://arxiv.org/abs/1607.06450) (LayerNorm); Muennighoff et al. 2023,
# [arXiv:2305.16264](https://arxiv.org/abs/2305.16264) (repeated data).
