"""`label_smoothing_loss(logits, targets, smoothing=0.1, ignore_index=-100)`

Cross-entropy against smoothed targets, averaged over the rows that count.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import randn

exercise = Draft(
    "label_smoothing_loss",
    points=3,
    forbid=["torch.nn.functional.cross_entropy", "torch.nn.functional.nll_loss", "torch.nn.functional.kl_div"],
    hints=[
        "Write down the target of one row: what does the right class get, and what does every class get?",
        "The loss of a row is (1 - smoothing) * (-log p of the right class) + smoothing * (mean of -log p).",
        "logs = logits.log_softmax(-1); keep the rows with targets != ignore_index; gather the right class; "
        "combine, and take the mean.",
    ],
)


@exercise.cases
def smoothing_cases(g):
    def some(rows, vocabulary, scale=2.0, padding=(), fill=-100, **options):
        targets = torch.randint(int(fill == 0), vocabulary, (rows,), generator=g)
        targets[list(padding)] = fill
        return case(randn(g, rows, vocabulary) * scale, targets, **options)

    yield some(5, 7, label="the default, 0.1")
    yield some(4, 5, smoothing=0.3, label="smoothing=0.3")
    yield some(6, 4, padding=[1, 5], smoothing=0.2, label="two rows of padding")
    yield some(3, 6, smoothing=0.0, label="no smoothing")
    yield some(1, 9, smoothing=0.5, label="a single row")
    yield some(7, 2, padding=[0], label="two classes, one row of padding")
    yield some(4, 6, scale=100.0, label="large logits")
    yield some(5, 3, padding=[2], fill=-1, ignore_index=-1, smoothing=0.4, label="ignore_index=-1")
    yield some(3, 5, smoothing=1.0, label="smoothing=1")
    yield some(6, 5, padding=[0, 3, 4], fill=0, ignore_index=0, label="class 0 is padding: ignore_index=0")
    yield some(140, 150, padding=range(3, 140, 7), smoothing=0.15, label="many rows and classes")


@exercise.oracle
def torch_label_smoothing(logits, targets, smoothing=0.1, ignore_index=-100):
    return F.cross_entropy(logits, targets, label_smoothing=smoothing, ignore_index=ignore_index)


@exercise.law("Without smoothing it is the ordinary cross-entropy")
def plain_without_smoothing(out, one, call):
    logits, targets = one.args
    ignored = one.kwargs.get("ignore_index", -100)
    right = F.cross_entropy(logits, targets, ignore_index=ignored)
    return same(call(logits, targets, smoothing=0.0, ignore_index=ignored), right, rtol=1e-3)


@exercise.law("With smoothing 1 the targets don't matter")
def deaf_at_one(out, one, call):
    logits, targets = one.args
    ignored = one.kwargs.get("ignore_index", -100)
    classes = [i for i in range(logits.shape[-1]) if i != ignored]
    others = torch.tensor([t if t == ignored else classes[classes.index(t) - 1] for t in targets.tolist()])
    options = {"smoothing": 1.0, "ignore_index": ignored}
    return same(call(logits, others, **options), call(logits, targets, **options), rtol=1e-3)


@exercise.law("Adding one number to all logits changes nothing")
def shift_of_logits(out, one, call):
    return same(call(one.args[0] + 5, one.args[1], **one.kwargs), out, rtol=1e-3, atol=1e-3)


exercise.law("The result has the dtype of the logits")(keeps_dtype)


def smoothed(
    uniform=lambda logs, picked, s: s * -logs.mean(-1),
    true=lambda picked, s: (1 - s) * -picked,
    logs=lambda logits: logits.log_softmax(-1),
    reduce=lambda losses, live: losses[live].mean(),
):
    """`label_smoothing_loss` from its parts."""

    def label_smoothing_loss(logits, targets, smoothing=0.1, ignore_index=-100):
        live = targets != ignore_index
        scores = logs(logits)
        picked = scores.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return reduce(true(picked, smoothing) + uniform(scores, picked, smoothing), live)

    return label_smoothing_loss


exercise.mistake(
    "the smoothing is shared out among the wrong classes only",
    hint="Here (as in torch) every class gets smoothing / vocabulary, the right one as well.",
)(smoothed(uniform=lambda logs, picked, s: s * (picked - logs.sum(-1)) / max(logs.shape[-1] - 1, 1)))

exercise.mistake(
    "the right class gets 1 - smoothing and the rest of the target is lost",
    hint="The target has to add up to 1: the share `smoothing` goes to all classes evenly.",
)(smoothed(uniform=lambda logs, picked, s: 0.0))

exercise.mistake(
    "the uniform part comes on top of the whole cross-entropy",
    hint="(1 - smoothing) times one loss plus smoothing times the other.",
)(smoothed(true=lambda picked, s: -picked))

exercise.mistake(
    "the uniform part is summed over the classes instead of averaged",
    hint="Every class gets smoothing / vocabulary: a mean over the classes.",
)(smoothed(uniform=lambda logs, picked, s: s * -logs.sum(-1)))

exercise.mistake("the two shares are swapped", hint="The right class gets the large share, 1 - smoothing.")(
    smoothed(uniform=lambda logs, picked, s: (1 - s) * -logs.mean(-1), true=lambda picked, s: s * -picked)
)

exercise.mistake("the smoothing isn't used", hint="That is the ordinary cross-entropy.")(
    smoothed(uniform=lambda logs, picked, s: 0.0, true=lambda picked, s: -picked)
)

exercise.mistake("probabilities stand where their logarithms belong", hint="Cross-entropy needs log_softmax.")(
    smoothed(logs=lambda logits: logits.softmax(-1))
)

exercise.mistake("raw logits stand where log-probabilities belong", hint="logits.log_softmax(-1) first.")(
    smoothed(logs=lambda logits: logits)
)

exercise.mistake(
    "padding adds nothing, but is counted in the mean", hint="Divide by the number of rows that are not ignored."
)(smoothed(reduce=lambda losses, live: (losses * live).mean()))

exercise.mistake("padding counts as class 0", hint="Rows whose target is ignore_index are left out.")(
    smoothed(reduce=lambda losses, live: losses.mean())
)


@exercise.mistake("`ignore_index` isn't used, but always -100", hint="It is a parameter.")
def ignores_minus_100(logits, targets, smoothing=0.1, ignore_index=-100):
    live = targets != -100
    logs = logits[live].log_softmax(-1)
    picked = logs.gather(-1, targets[live].unsqueeze(-1)).squeeze(-1)
    return ((1 - smoothing) * -picked + smoothing * -logs.mean(-1)).mean()


@exercise.mistake("negative targets are left out, whatever `ignore_index` is", hint="ignore_index may be a class.")
def ignores_negatives(logits, targets, smoothing=0.1, ignore_index=-100):
    return smoothed()(logits, targets.clamp(min=-1), smoothing, -1)


@exercise.mistake("class 0 is taken for padding", hint="Padding is what ignore_index says.")
def ignores_zero(logits, targets, smoothing=0.1, ignore_index=-100):
    return smoothed()(logits, torch.where(targets == ignore_index, 0, targets), smoothing, 0)


exercise.mistake(
    "the smoothed part is averaged over padding as well", hint="Padding counts in neither of the two parts."
)(
    lambda logits, targets, smoothing=0.1, ignore_index=-100: (
        smoothed(uniform=lambda logs, picked, s: 0.0)(logits, targets, smoothing, ignore_index)
        - smoothing * logits.log_softmax(-1).mean()
    )
)

exercise.mistake(
    "logarithms are taken of a softmax, and overflow", hint="log_softmax, which is safe for large logits as well."
)(smoothed(logs=lambda logits: logits.softmax(-1).log()))

exercise.mistake(
    "each class but the right one gets smoothing / classes",
    hint="Every class gets it, the right one as well: the target adds up to 1.",
)(smoothed(uniform=lambda logs, picked, s: s * (picked / logs.shape[-1] - logs.mean(-1))))

exercise.mistake("no gradient goes through the smoothed part", hint="Both parts are learned from: detach neither.")(
    smoothed(uniform=lambda logs, picked, s: s * -logs.mean(-1).detach())
)


@exercise.mistake("the result is float32, whatever the logits are", hint="Leave the dtype alone.")
def smooths_in_float32(logits, targets, smoothing=0.1, ignore_index=-100):
    return smoothed()(logits.float(), targets, smoothing, ignore_index)


exercise.mistake("the losses are summed over the rows", hint="Take the mean over the rows.")(
    smoothed(reduce=lambda losses, live: losses[live].sum())
)

exercise.mistake("a loss per row is returned", hint="One number: the mean over the rows.")(
    smoothed(reduce=lambda losses, live: losses[live])
)


@exercise.alternative
def smooth_by_targets(logits, targets, smoothing=0.1, ignore_index=-100):
    rows = targets.ne(ignore_index).nonzero().flatten()
    wanted = torch.full_like(logits[rows], smoothing / logits.shape[-1])
    wanted[torch.arange(len(rows)), targets[rows]] += 1 - smoothing
    return torch.einsum("nv,nv->", wanted, -F.log_softmax(logits[rows], 1)) / len(rows)


@exercise.alternative
def smooth_by_loop(logits, targets, smoothing=0.1, ignore_index=-100):
    losses = []
    for row, target in zip(logits.double(), targets.tolist(), strict=True):
        if target != ignore_index:
            total = torch.logsumexp(row, 0)
            losses.append((1 - smoothing) * (total - row[target]) + smoothing * (total - row).mean())
    return (sum(losses) / len(losses)).to(logits.dtype)
