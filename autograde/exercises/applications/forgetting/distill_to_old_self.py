"""`distill_to_old_self(logits, old_logits, labels, strength=1.0, temperature=2.0)`

Learn the new labels, and go on saying about the old classes what the model said before.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.applications.forgetting.shared import CUT, stands_still
from autograde.exercises.shared import randn

exercise = Draft(
    "distill_to_old_self",
    points=4,
    dtypes=(torch.float64,),
    hints=[
        "Two losses: labels where there are some, the old self everywhere. Over which classes can the old self speak?",
        "F.cross_entropy(logits, labels) ignores -100, but gives NaN where nothing else is there. For the other part: "
        "logits[:, : old_logits.shape[1]], both sides divided by the temperature.",
        "known = labels != -100; task = F.cross_entropy(logits[known], labels[known]) if known.any() else "
        "logits.sum() * 0; soft = F.kl_div((mine / T).log_softmax(-1), (old.detach() / T).softmax(-1), "
        "reduction='batchmean'); task + strength * T**2 * soft.",
    ],
)


@exercise.cases
def lessons(g):
    def some(n, old, new=0, without=0, scale=2.0):
        """n rows for old and new classes; `without` of them have no label; the first has a label."""
        labels = torch.randint(old + new, (n,), generator=g)
        if new:
            labels[0] = old + new - 1
        hidden = 1 + torch.randperm(n - 1, generator=g)[:without] if without < n else torch.arange(n)
        labels[hidden] = -100
        return scale * randn(g, n, old + new), scale * randn(g, n, old), labels

    yield case(*some(6, 4, 3), label="three new classes")
    yield case(*some(7, 5, 2, without=3), 0.5, 3.0, label="some examples without a label")
    yield case(*some(5, 6), 2.0, label="the same classes")
    yield case(*some(4, 3, 4, without=4), 0.7, 1.5, label="no labels at all")
    yield case(*some(6, 4, 2, without=1), strength=3.0, temperature=1.0, label="T = 1")
    yield case(*some(5, 4, 1), 0.0, label="strength 0")
    yield case(*some(3, 2, 2, without=1), 1.0, 0.5, label="T below 1")
    yield case(*some(1, 3, 2), 1.3, 4.0, label="one example")
    yield case(*some(8, 5, 3, without=2, scale=120.0), 0.4, 2.0, label="logits in the hundreds")
    mine, old, labels = some(6, 4, 2, without=2)
    yield case(torch.cat([old + 5, mine[:, 4:]], 1), old, labels, 2.0, label="about old classes, nothing has changed")
    yield case(*some(50, 30, 20, without=20), 1.5, 2.5, label="many examples and classes")


@exercise.oracle
def torch_losses(logits, old_logits, labels, strength=1.0, temperature=2.0):
    mine, old = logits.double(), old_logits.detach().double()
    task = F.cross_entropy(mine, labels, ignore_index=-100, reduction="sum") / (labels != -100).sum().clamp(min=1)
    said = F.log_softmax(mine[:, : old.shape[1]] / temperature, -1)
    soft = F.kl_div(said, F.log_softmax(old / temperature, -1), log_target=True, reduction="batchmean")
    return (task + strength * temperature**2 * soft).to(logits.dtype)


exercise.law(stands_still(1, "the old self"))
exercise.law("The result has the dtype of logits")(keeps_dtype)


def _small(one):
    return not one.made and one.args[0].numel() < 200 and float(one.args[0].abs().max()) < 50


@exercise.law("About old classes only their differences matter: a level of its own for each row changes nothing")
def level_is_free(out, one, call):
    if not _small(one):
        return None
    logits, old, *rest = one.args
    return same(call(logits, old + 3 * torch.arange(len(old))[:, None], *rest, **one.kwargs), out, 1e-3, 1e-3)


@exercise.law("Without labels, a model that says what it said before loses nothing")
def nothing_lost(out, one, call):
    if not _small(one):
        return None
    logits, old, labels, *rest = one.args
    mine = torch.cat([old, logits[:, old.shape[1] :]], 1)
    return same(call(mine, old, torch.full_like(labels, -100), *rest, **one.kwargs), torch.tensor(0.0), atol=1e-4)


def _kl(s, t):
    return (t.softmax(-1) * (t.log_softmax(-1) - s.log_softmax(-1))).sum(-1)


def _task(logits, labels):
    known = labels != -100
    if not bool(known.any()):
        return logits.sum() * 0
    return F.cross_entropy(logits[known], labels[known])


def _loss(
    task=_task,
    soft=lambda s, t, T: _kl(s / T, t / T),
    mine=lambda logits, k: logits[:, :k],
    scale=lambda T: T**2,
    mean=lambda each, labels: each.mean(),
    mix=lambda task, soft, strength: task + strength * soft,
    still=True,
):
    """The loss from its parts."""

    def distill_to_old_self(logits, old_logits, labels, strength=1.0, temperature=2.0):
        old = old_logits.detach() if still else old_logits
        each = soft(mine(logits, old.shape[1]), old, temperature)
        return mix(task(logits, labels), scale(temperature) * mean(each, labels), strength)

    return distill_to_old_self


right = _loss()

exercise.mistake(
    "without any label the loss is NaN",
    hint="The mean over no examples: 0 / 0. Without labels the first part is 0.",
)(_loss(task=lambda logits, labels: F.cross_entropy(logits, labels)))
exercise.mistake(
    "the softmax runs over all classes before the old ones are taken",
    hint="The old self knows no new classes: cut the logits first, so that the old classes share the 1.",
)(
    _loss(
        soft=lambda s, t, T: (
            (t / T).softmax(-1) * ((t / T).log_softmax(-1) - (s / T).log_softmax(-1)[:, : t.shape[1]])
        ).sum(-1),
        mine=lambda logits, k: logits,
    )
)
exercise.mistake("the last classes are held against the old ones", hint="Old classes come first: logits[:, :old].")(
    _loss(mine=lambda logits, k: logits[:, logits.shape[1] - k :])
)
exercise.mistake("the factor T squared is missing", hint="Gradients of the soft part shrink with 1 / T².")(
    _loss(scale=lambda T: 1.0)
)
exercise.mistake("the soft part is multiplied by T", hint="T squared.")(_loss(scale=lambda T: T))
exercise.mistake("T has no influence", hint="Both sides are divided by T, and the part multiplied by T².")(
    _loss(soft=lambda s, t, T: _kl(s, t), scale=lambda T: 1.0)
)
exercise.mistake("only the old self is softened", hint="Both sides at the same temperature.")(
    _loss(soft=lambda s, t, T: _kl(s, t / T))
)
exercise.mistake("only the new self is softened", hint="Both sides at the same temperature.")(
    _loss(soft=lambda s, t, T: _kl(s / T, t))
)
exercise.mistake("the divergence runs the other way", hint="KL(old || new): the old probabilities are the weights.")(
    _loss(soft=lambda s, t, T: _kl(t / T, s / T))
)
exercise.mistake(
    "examples without a label aren't held to the old self",
    hint="The old self speaks about all examples: this part needs no label.",
)(
    _loss(
        mean=lambda each, labels: each[labels != -100].mean() if bool((labels != -100).any()) else each.sum() * 0,
    )
)
exercise.mistake(
    "only examples without a label are held to the old self", hint="All examples are, those with a label, too."
)(
    _loss(
        mean=lambda each, labels: each[labels == -100].mean() if bool((labels == -100).any()) else each.sum() * 0,
    )
)
exercise.mistake(
    "the old self's logits are filled up with zeros for the new classes",
    hint="The old self knows no new classes. Cut the new logits: logits[:, : old_logits.shape[1]].",
)(
    _loss(
        mine=lambda logits, k: logits,
        soft=lambda s, t, T: _kl(s / T, F.pad(t, (0, s.shape[1] - t.shape[1])) / T),
    )
)
exercise.mistake(
    "examples without a label count in the mean of the first part",
    hint="The mean over those that have a label.",
)(_loss(task=lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum") / len(labels)))
exercise.mistake("the first part is summed, not averaged", hint="The mean over the examples that have a label.")(
    _loss(task=lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum"))
)
exercise.mistake("the soft part is summed over the examples", hint="The mean over all examples: 'batchmean'.")(
    _loss(mean=lambda each, labels: each.sum())
)
exercise.mistake("the soft part is divided by the number of classes, too", hint="'batchmean', not 'mean'.")(
    _loss(soft=lambda s, t, T: _kl(s / T, t / T) / t.shape[1])
)
exercise.mistake("the labels aren't learned", hint="The first part: cross-entropy with the labels.")(
    _loss(mix=lambda task, soft, strength: 0 * task + strength * soft)
)
exercise.mistake("the old self has no influence", hint="The second part, times strength.")(
    _loss(mix=lambda task, soft, strength: task + 0 * soft)
)
exercise.mistake("strength has no influence", hint="task + strength * T² * soft.")(
    _loss(mix=lambda task, soft, strength: task + soft)
)
exercise.mistake("the first part is weighed with 1 - strength", hint="It counts in full, whatever the strength.")(
    _loss(mix=lambda task, soft, strength: (1 - strength) * task + strength * soft)
)
exercise.mistake("the labels are learned at the temperature, too", hint="They are learned at T = 1.")(
    lambda logits, old_logits, labels, strength=1.0, temperature=2.0: (
        right(logits, old_logits, labels, strength, temperature)
        - _task(logits, labels)
        + _task(logits / temperature, labels)
    )
)
exercise.mistake(
    "the cross-entropy with the old probabilities is taken, not the divergence",
    hint="It is larger by the old self's own entropy: who says the same as before would lose something.",
)(_loss(soft=lambda s, t, T: -((t / T).softmax(-1) * (s / T).log_softmax(-1)).sum(-1)))
exercise.mistake("the old self's likeliest class is learned as a label", hint="All its probabilities, softened.")(
    _loss(soft=lambda s, t, T: F.cross_entropy(s / T, t.argmax(-1), reduction="none"))
)
exercise.mistake("the squared distance of the logits is taken", hint="The divergence of the two distributions.")(
    _loss(soft=lambda s, t, T: ((s - t) / T).square().mean(-1))
)
exercise.mistake("the softmax runs over the examples", hint="Classes are the last dimension.")(
    _loss(soft=lambda s, t, T: ((t / T).softmax(0) * ((t / T).log_softmax(0) - (s / T).log_softmax(0))).sum(-1))
)
exercise.mistake("the old self learns, too", hint=CUT)(_loss(still=False))
exercise.mistake("the result is float32, whatever came in", hint="The dtype of logits.")(
    lambda logits, old_logits, *rest, **knobs: right(logits.float(), old_logits.float(), *rest, **knobs)
)


@exercise.alternative
def by_library(logits, old_logits, labels, strength=1.0, temperature=2.0):
    total = F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum") / max(int((labels >= 0).sum()), 1)
    mine = F.log_softmax(logits.narrow(1, 0, old_logits.shape[1]) / temperature, 1)
    target = F.softmax(old_logits.detach() / temperature, 1)
    return total + strength * temperature**2 * F.kl_div(mine, target, reduction="batchmean")


@exercise.alternative
def row_by_row(logits, old_logits, labels, strength=1.0, temperature=2.0):
    task, soft, known = logits.new_zeros(()), logits.new_zeros(()), 0
    with torch.no_grad():
        said = (old_logits / temperature).log_softmax(-1)
    for row, before, label in zip(logits, said, labels.tolist(), strict=True):
        if label != -100:
            task, known = task - row.log_softmax(-1)[label], known + 1
        now = torch.log_softmax(row[: len(before)] / temperature, -1)
        soft = soft + before.exp().dot(before - now)
    return task / max(known, 1) + strength * temperature**2 * soft / len(logits)
