# ---
# jupyter:
#   course:
#     title: "Overfitting, and what helps"
#     exercises: transformer.overfitting
#     questions: [T09]
# ---

# %% [markdown]
# # Overfitting, and what helps
#
# A model that has read the same five pages forty times knows them by heart. Ask it for the sixth page, and it does
# worse than it did after a few readings. That is **overfitting**: the loss on what it has read goes on falling, the
# loss on what it has not read turns round and climbs.
#
# The interview question asks for the cures, and the usual list is long: data augmentation, dropout, L2, LayerNorm,
# BatchNorm, early stopping. You will build four of them, let a small GPT overfit on Shakespeare, and measure what each
# cure is worth. Not everything on the list is a cure.

# %% tags=["setup"]
import math

import torch
import torch.nn.functional as F
from torch import nn

from autograde import check
from labkit import COLORS, figure, minilm, shakespeare, show

# %% [markdown]
# ## A model that learns by heart
#
# Five thousand letters of a play are all that our model may read: two or three pages. What follows in the book is the
# test.
# The model is a GPT with two layers, small enough to be trained in seconds, and it can do without dropout and without
# norms, since we shall want to compare.

# %% tags=["demo"]
book = shakespeare()
alphabet = sorted(set(book))
number = {letter: i for i, letter in enumerate(alphabet)}
LENGTH = 32


def encoded(text):
    return torch.tensor([number[letter] for letter in text])


known, unseen = encoded(book[20_000:25_000]), encoded(book[25_000:45_000])


class Block(nn.Module):
    """Pre-norm attention and feed-forward; `norm` makes a norm of a given width, `drop` is applied to what is added."""

    def __init__(self, width, drop, norm):
        super().__init__()
        self.norm1, self.norm2, self.drop = norm(width), norm(width), drop
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        heard = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.drop(self.out(heard))
        return x + self.drop(self.down(F.gelu(self.up(self.norm2(x)))))


class GPT(nn.Module):
    """Letters in, scores of the next letter out: [rows, LENGTH] -> [rows, LENGTH, letters]."""

    def __init__(self, drop, norm=nn.LayerNorm, width=64, depth=2):
        super().__init__()
        self.letters = nn.Embedding(len(alphabet), width)
        self.places = nn.Parameter(0.02 * torch.randn(LENGTH, width))
        self.blocks = nn.Sequential(*(Block(width, drop, norm) for _ in range(depth)))
        self.drop, self.last, self.head = drop, norm(width), nn.Linear(width, len(alphabet))

    def forward(self, letters):
        return self.head(self.last(self.blocks(self.drop(self.letters(letters) + self.places))))


def windows(data, starts):
    cut = torch.stack([data[s : s + LENGTH + 1] for s in starts])
    return cut[:, :-1], cut[:, 1:]


def loss_on(model, data, rows=64):
    """The loss on windows that are spread evenly over the text, in evaluation mode, in nats a letter."""
    model.eval()
    with torch.no_grad():
        inputs, targets = windows(data, torch.linspace(0, len(data) - LENGTH - 1, rows).long())
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).item()
    model.train()
    return loss


def train(p=0.0, norm=nn.LayerNorm, decay=0.0, smoothing=0.0, data=known, steps=480):
    """Train a new model. Returns rows of (step, loss on the known text, loss on the unseen text)."""
    torch.manual_seed(0)
    model, generator, curve = GPT(nn.Dropout(p), norm), torch.Generator().manual_seed(1), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=decay, fused=True)
    for step in range(steps + 1):
        if step % 40 == 0:
            curve.append((step, loss_on(model, known), loss_on(model, unseen)))
        inputs, targets = windows(data, torch.randint(len(data) - LENGTH - 1, (12,), generator=generator))
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), label_smoothing=smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.tensor(curve)


plain = train()
fig, ax = figure(width=8.5, height=4)
ax.plot(plain[:, 0], plain[:, 1], color=COLORS[0], marker="o", label="the text it reads")
ax.plot(plain[:, 0], plain[:, 2], color=COLORS[1], marker="s", label="the text that follows")
turn = plain[plain[:, 2].argmin()]
ax.axvline(turn[0], color="#777777", linestyle=":")
ax.set(xlabel="step", ylabel="loss, nats a letter")
ax.legend()
show(
    fig,
    alt="Two learning curves. The loss on the text that is read falls all the time; on the text that follows it falls "
    "first, then climbs.",
    title=f"By heart from step {turn[0]:.0f} on: unseen text goes from {turn[2]:.2f} to {plain[-1, 2]:.2f} nats",
)

# %% [markdown]
# Everything below tries to keep the second curve down.
#
# ## Dropout
#
# In each step of training, every number is set to 0 with probability $p$. A network that must work with random parts
# missing can't rely on a few accomplices that know the page by heart (Srivastava et al. 2014).
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
# Cross-entropy wants probability 1 for the right letter. It is never satisfied: the logits grow and grow. **Label
# smoothing** (Szegedy et al. 2015) asks for a little less. With smoothing $s$ and $V$ classes the target is $1-s$ for
# the right class, plus $s/V$ for *every* class:
#
# $$L = (1-s)\,(-\log p_{\text{right}}) + s \cdot \frac{1}{V}\sum_{c} -\log p_c .$$

# %% tags=["demo"]
gap = torch.linspace(-2, 12, 200)  # logit of the right class minus that of the others
classes = 10
log_right = -torch.log1p((classes - 1) * (-gap).exp())
log_other = log_right - gap

fig, ax = figure(width=8, height=3.8)
for s, color, style in zip((0.0, 0.1, 0.3), COLORS, ("-", "--", "-."), strict=False):
    curve = -(1 - s) * log_right - s * (log_right + (classes - 1) * log_other) / classes
    ax.plot(gap, curve, color=color, linestyle=style, label=f"smoothing {s}")
    if s:
        best = curve.argmin()
        ax.plot(gap[best], curve[best], "o", color=color)
        ax.annotate(
            f"{gap[best]:.1f}", (gap[best], curve[best]), textcoords="offset points", xytext=(0, 8), ha="center"
        )
ax.set(xlabel="how far the right logit is above the others", ylabel="loss, nats")
ax.legend()
show(
    fig,
    alt="Loss against the lead of the right logit. Without smoothing it falls for ever; with smoothing it has a "
    "minimum at a finite lead, marked by a dot.",
    title="Without smoothing the logits are pulled apart for ever; with it there is an end",
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
# Large weights make wiggly functions, so keep them small. There are two recipes. **L2** adds $\frac{\lambda}{2}\|w\|^2$
# to the loss, hence $\lambda w$ to the gradient. **Weight decay** makes $w$ shrink by $\eta\lambda w$ in each step. For
# plain SGD they are the same line of code.
#
# For Adam they are not. Adam divides each gradient by its own typical size. With L2 the shrinking term goes through
# that division as well, and where gradients are large, little is left of it. Loshchilov and Hutter (2017) took the
# decay out of it, and called it AdamW.


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
    alt="What decay leaves of a weight against the size of its gradients. AdamW leaves the same share everywhere; L2 "
    "under Adam shrinks weights with small gradients strongly and those with large gradients hardly.",
    title=f"Same decay: AdamW leaves {apart.min():.0%} to {apart.max():.0%}, L2 {l2.min():.0%} to {l2.max():.0%}",
)

# %% [markdown]
# "L2 regularisation" prevents overfitting, says the list. With SGD it does what it promises. Under Adam it spares those
# weights that get large gradients, the busiest ones. Say *decoupled weight decay* in the interview.
#
# ## The cures side by side
#
# The same model, the same pages, the same 480 steps: once with each cure, and once with four times as much text.

# %% claim="T09.2"
curves = {
    "nothing": plain,
    "dropout 0.2": train(p=0.2),
    "label smoothing 0.1": train(smoothing=0.1),
    "weight decay 1.0": train(decay=1.0),
    "four times the text": train(data=encoded(book[5_000:25_000])),
}
fig, axes = figure(1, len(curves), width=10.5, height=3.6, sharey=True)
for ax, (name, curve), color in zip(axes, curves.items(), ("#444444", *COLORS), strict=False):
    ax.plot(curve[:, 0], curve[:, 1], color=color, linestyle="--", label="read")
    ax.plot(curve[:, 0], curve[:, 2], color=color, label="unseen")
    ax.axhline(plain[-1, 2], color="#bbbbbb", linestyle=":")
    ax.set_title(f"{name}\nends at {curve[-1, 2]:.2f}", fontsize=10)
    ax.set(xlabel="step", ylim=(1.2, 3.5))
axes[0].set_ylabel("loss, nats a letter")
axes[0].legend(loc="lower left")
ends = {name: curve[-1, 2].item() for name, curve in curves.items()}
best = min(ends, key=ends.get)
show(
    fig,
    alt="Five pairs of learning curves, known and unseen text. Without a cure the unseen loss climbs most; each cure "
    "keeps it lower; more text keeps the two curves together.",
    title=f"Best on unseen text after 480 steps: {best} ({ends[best]:.2f} nats; without a cure {ends['nothing']:.2f})",
)
for name, curve in curves.items():
    lowest = curve[curve[:, 2].argmin()]
    print(f"{name:22} best {lowest[2]:.2f} at step {lowest[0]:3.0f},  at the end {curve[-1, 2]:.2f}")

# %% [markdown]
# Compare not only the ends but the *best* values in the table. Dropout and smoothing mostly keep the model from getting
# worse; more text makes it better. Data is the first cure, and all the others stand in for it. (One seed, one size, one
# setting for each: the order of the middle three is not a law.)
#
# ## Is LayerNorm a cure?
#
# The list also names normalisation. A regulariser adds noise or a penalty. Does LayerNorm do either? First: does it
# behave differently in training? Second: the same model without any norm, side by side at the same *training* loss.

# %% claim="T09.4"
x = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
norm = nn.LayerNorm(32)
print("LayerNorm, training and evaluation, the same to the bit:", torch.equal(norm.train()(x), norm.eval()(x)))

without = train(norm=lambda width: nn.Identity())
fig, ax = figure(width=8.5, height=4)
for name, curve, color, mark in (("with LayerNorm", plain, COLORS[0], "o"), ("without", without, COLORS[1], "s")):
    ax.plot(curve[1:, 1], curve[1:, 2], color=color, marker=mark, label=f"{name}: ends at {curve[-1, 2]:.2f}")
ax.invert_xaxis()
ax.set(xlabel="loss on the text that is read (training goes to the right)", ylabel="loss on unseen text")
ax.legend()
climb = plain[-1, 2] - plain[:, 2].min()
show(
    fig,
    alt="Loss on unseen text against loss on known text for the model with LayerNorm and the one without. Both fall at "
    "first and then climb as the known text is learnt by heart.",
    title=f"With LayerNorm the loss on unseen text still climbs by {climb:.2f} nats",
)

# %% [markdown]
# LayerNorm computes the same thing in training and evaluation: no noise, no penalty. The model *with* it is the one
# that we watched learning by heart all through this chapter, so it is no cure. But read the distance between the two
# curves at one and the same training loss: that much the norm is worth here, since it changes *what* is learned.
# Its real job is another one, to make training work at all (see the chapter on normalisation).
#
# **BatchNorm** is another matter. What it gives for one example depends on who else is in the batch:

# %% claim="T09.5"
batches = torch.randn(500, 16, 32, generator=torch.Generator().manual_seed(2))
batches[:, 0] = batches[0, 0]  # the same example leads every batch
fig, ax = figure(width=8, height=3.4)
spread = {}
for name, layer, color in (("BatchNorm", nn.BatchNorm1d(32), COLORS[1]), ("LayerNorm", nn.LayerNorm(32), COLORS[0])):
    with torch.no_grad():
        answers = torch.stack([layer(rows)[0, 0] for rows in batches])
    spread[name] = answers.std().item()
    ax.hist(answers, bins=torch.linspace(-3, 3, 80), color=color, label=f"{name}: spread {spread[name]:.2f}")
ax.set(xlabel="answer for one number of one example", ylabel="batches (of 500)", yscale="log")
ax.legend()
show(
    fig,
    alt="Histogram of the answer for the same example in 500 different batches: BatchNorm's answers are spread out, "
    "all of LayerNorm's are the same.",
    title=f"Same example, 500 batches: BatchNorm varies by {spread['BatchNorm']:.2f}, LayerNorm by "
    f"{spread['LayerNorm']:.2f}",
)

# %% [markdown]
# That is noise, and noise regularises: BatchNorm does work against overfitting, on the side. But Transformers don't use
# it, for the reasons of the chapter on normalisation. In a list of what *Transformers* do against overfitting it has no
# place.
#
# ## Early stopping
#
# The cheapest cure: stop at the turning point. "Stop if there is no significant improvement for some time" is how the
# bank puts it. Three words are missing, and they decide: improvement of the **validation** loss; with a **patience**,
# because curves are noisy; and take back the **best** checkpoint, not the last.


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
# Which loss should it watch? The experiment: the same rule (patience 3), on the training loss and on the validation
# loss of the run at the top.


# %% claim="T09.6"
def stops_at(losses, patience=3):
    """The index at which a run of `patience` losses without a new minimum ends, or None."""
    for i in range(patience, len(losses)):
        if losses[i - patience + 1 : i + 1].min() >= losses[: i - patience + 1].min():
            return i
    return None


fig, ax = figure(width=8.5, height=4)
told = []
for column, name, color, mark in ((1, "training", COLORS[0], "o"), (2, "validation", COLORS[1], "s")):
    losses, stop = plain[:, column], stops_at(plain[:, column])
    ax.plot(plain[:, 0], losses, color=color, marker=mark, label=f"{name} loss")
    told.append(f"on {name} loss " + ("it never stops" if stop is None else f"it stops at step {plain[stop, 0]:.0f}"))
    if stop is not None:
        ax.axvline(plain[stop, 0], color=color, linestyle=":")
        ax.plot(plain[losses.argmin(), 0], losses.min(), "*", color=color, markersize=16, label=f"best {name} loss")
ax.set(xlabel="step", ylabel="loss, nats a letter")
ax.legend()
show(
    fig,
    alt="Training and validation loss with the points at which early stopping would stop.",
    title=f"Patience 3: {told[0]}; {told[1]}",
)

# %% [markdown]
# ## Other words, same label
#
# Last on the list, though first in practice: **data augmentation**. For text the simplest is to replace words by
# synonyms (EDA, Wei and Zou 2019). It rests on a promise: the meaning stays. We ask a sentence encoder. How close does
# each sentence stay to itself when two words are replaced by synonyms, and when they are replaced by random words?

# %% claim="T09.1"
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
    alt="Similarity of six sentences with themselves after two words were replaced: by synonyms, and by random words.",
    title=f"Likeness after two synonyms {likeness['synonyms'].mean():.2f}, after two random words "
    f"{likeness['random words'].mean():.2f}",
)

# %% [markdown]
# The promise holds where the synonyms are good; these were chosen by hand. A thesaurus that replaces *bank* by *shore*
# breaks it, so look at what your augmentation makes. The encoder is itself only a model of meaning.
#
# ## Payoff: your cures at work
#
# One training with your own parts: your dropout inside the model, your smoothed loss, and your early stopping watching
# the unseen text.


# %% tags=["payoff"]
class YourDropout(nn.Module):
    def forward(self, x):
        return dropout(x, 0.1, torch.rand_like(x), self.training)


torch.manual_seed(0)
model, generator = GPT(YourDropout()), torch.Generator().manual_seed(1)
optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.5)
stopping = EarlyStopping(patience=3)
for step in range(601):
    if step % 40 == 0 and stopping.step(loss_on(model, unseen)):
        break
    inputs, targets = windows(known, torch.randint(len(known) - LENGTH - 1, (12,), generator=generator))
    loss = label_smoothing_loss(model(inputs).flatten(0, 1), targets.flatten(), smoothing=0.05)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(
    f"Stopped at step {step}; best {stopping.best:.2f} nats at step {40 * stopping.best_step}. "
    f"Without any cure the best was {plain[:, 2].min():.2f}."
)

# %% [markdown]
# Would you have kept the checkpoint of the best step? This loop did not: `copy.deepcopy(model.state_dict())` at each
# improvement is the line that is missing. Add it.
#
# **Sources.** Srivastava et al. 2014, [JMLR 15](https://jmlr.org/papers/v15/srivastava14a.html) (dropout); Szegedy et
# al. 2015, [arXiv:1512.00567](https://arxiv.org/abs/1512.00567) (label smoothing); Loshchilov and Hutter 2017,
# [arXiv:1711.05101](https://arxiv.org/abs/1711.05101) (decoupled decay); Wei and Zou 2019,
# [arXiv:1901.11196](https://arxiv.org/abs/1901.11196) (EDA); Ba et al. 2016,
# [arXiv:1607.06450](https://arxiv.org/abs/1607.06450) (LayerNorm).
