"""`distillation_loss(student, teacher, labels, temperature=2.0, alpha=0.5, ignore_index=-100)`

Hinton's loss: soft targets from the teacher, hard labels from the data, mixed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.distillation.shared import (
    DETACH,
    OWN_DTYPE,
    TEACHER_LEARNS,
    by_rows,
    counted_all,
    kept_mean,
    mean_of_rows,
    over_all,
    randn,
    some_kept,
    summed,
    teacher_is_still,
)

exercise = Draft(
    "distillation_loss",
    points=4,
    dtypes=(torch.float64,),
    hints=[
        "Two losses on the same tokens. Which of them sees the temperature, and what makes up for what a temperature "
        "does to the size of its gradient?",
        "kept = labels != ignore_index picks the tokens, for both: student[kept] is [tokens, classes]. Then "
        "F.kl_div(log-probabilities of the student, probabilities of the teacher, reduction='batchmean') is a mean "
        "over tokens, and F.cross_entropy the other half.",
        "s, t = student[kept], teacher[kept].detach(); soft = F.kl_div((s / T).log_softmax(-1), "
        "(t / T).softmax(-1), reduction='batchmean') * T**2; hard = F.cross_entropy(s, labels[kept]); "
        "return alpha * soft + (1 - alpha) * hard.",
    ],
)


@exercise.cases
def lessons(g):
    def some(*shape, classes=7, index=-100, scale=2.0):
        labels = torch.randint(classes, shape, generator=g)
        if len(shape):
            labels = labels.masked_fill(~some_kept(g, *shape), index)
        return randn(g, *shape, classes, scale=scale), randn(g, *shape, classes, scale=scale), labels

    yield case(*some(3, 5), label="a batch with padding")
    yield case(*some(2, 4, classes=6), 4.0, 0.9, label="T = 4, mostly soft")
    yield case(*some(6, classes=5), temperature=0.7, alpha=0.3, label="one text, T below 1")
    yield case(*some(classes=4), 3.0, label="one token")
    yield case(*some(2, 5), 2.0, 1.0, label="only the teacher")
    yield case(*some(2, 5), 2.0, 0.0, label="only the labels")
    yield case(*some(2, 2, 4, classes=5), 1.0, 0.5, label="T = 1, two batch dimensions")
    yield case(*some(3, 4, classes=4, index=2), 1.5, 0.4, ignore_index=2, label="class 2 is the padding")
    yield case(*some(2, 5, classes=6, index=0), ignore_index=0, label="class 0 is the padding")
    yield case(*some(3, 4, scale=150.0), 2.0, 0.6, label="logits in the hundreds")
    far = torch.tensor([500.0, -300.0])[:, None, None]
    student, teacher, labels = some(2, 3)
    yield case(student + far, teacher - far, labels, 2.5, 0.7, label="each text's logits on a level of its own")
    yield case(*some(4, 60, classes=50), 3.0, 0.5, label="many tokens and classes")
    student, teacher, labels = some(2, 3, classes=2)
    yield case(student, student.clone(), labels, 2.0, 0.8, label="the student is the teacher")


@exercise.oracle
def torch_losses(student, teacher, labels, temperature=2.0, alpha=0.5, ignore_index=-100):
    dtype, classes = student.dtype, student.shape[-1]
    student, teacher = student.double().reshape(-1, classes), teacher.detach().double().reshape(-1, classes)
    labels = labels.reshape(-1)
    kept = labels != ignore_index
    soft = F.kl_div(
        F.log_softmax(student[kept] / temperature, -1),
        F.log_softmax(teacher[kept] / temperature, -1),
        log_target=True,
        reduction="batchmean",
    )
    hard = F.cross_entropy(student, labels, ignore_index=ignore_index)
    return (alpha * temperature**2 * soft + (1 - alpha) * hard).to(dtype)


exercise.law(teacher_is_still(1))


def _small(one):
    return not one.made and one.args[0].numel() < 200 and float(one.args[0].abs().max()) < 100


def _knobs(one):
    defaults = {"temperature": 2.0, "alpha": 0.5, "ignore_index": -100}
    return defaults | dict(zip(defaults, one.args[3:], strict=False)) | one.kwargs


@exercise.law("With alpha = 0 it is the cross-entropy with the labels")
def labels_alone(out, one, call):
    if not _small(one):
        return None
    student, teacher, labels = one.args[:3]
    knobs = _knobs(one) | {"alpha": 0.0}
    rows, flat = student.reshape(-1, student.shape[-1]), labels.reshape(-1)
    wanted = F.cross_entropy(rows, flat, ignore_index=knobs["ignore_index"])
    return same(call(student, teacher, labels, **knobs), wanted, 1e-3, 1e-4)


@exercise.law("With alpha = 1 a student that agrees with its teacher loses nothing")
def nothing_to_learn(out, one, call):
    if not _small(one):
        return None
    student, _, labels = one.args[:3]
    return same(call(student, student + 3, labels, **(_knobs(one) | {"alpha": 1.0})), torch.tensor(0.0), atol=1e-4)


@exercise.law("What stands at ignored labels doesn't matter")
def padding_is_silent(out, one, call):
    student, teacher, labels = one.args[:3]
    knobs = _knobs(one)
    hidden = (labels == knobs["ignore_index"])[..., None]
    if not _small(one) or not hidden.any():
        return None
    changed = torch.where(hidden, 1 - 2 * student, student), torch.where(hidden, teacher.flip(-1) + 1, teacher)
    return same(call(*changed, labels, **knobs), out, 1e-3, 1e-4)


exercise.law(OWN_DTYPE)


def _kl(s, t):
    """KL(teacher || student) of each token, from logits."""
    return (t.softmax(-1) * (t.log_softmax(-1) - s.log_softmax(-1))).sum(-1)


def _ce(logits, labels):
    safe = labels.clamp(0, logits.shape[-1] - 1)
    return logits.logsumexp(-1) - logits.gather(-1, safe[..., None])[..., 0]


def _loss(
    soft=lambda s, t, T: _kl(s / T, t / T),
    hard=lambda s, labels, T: _ce(s, labels),
    scale=lambda T: T**2,
    mix=lambda soft, hard, a: a * soft + (1 - a) * hard,
    means=(kept_mean, kept_mean),
    kept=lambda labels, index: labels != index,
    still=True,
):
    """A loss from its parts; `means` are those of the soft and of the hard losses over tokens."""

    def distillation_loss(student, teacher, labels, temperature=2.0, alpha=0.5, ignore_index=-100):
        count = kept(labels, ignore_index)
        t = teacher.detach() if still else teacher
        soft_part = scale(temperature) * means[0](soft(student, t, temperature), count)
        return mix(soft_part, means[1](hard(student, labels, temperature), count), alpha)

    return distillation_loss


right = _loss()

exercise.mistake(
    "the divergence runs from the student to the teacher",
    hint="KL(teacher || student): the teacher's probabilities are the weights. F.kl_div takes the student first.",
)(_loss(soft=lambda s, t, T: _kl(t / T, s / T)))
exercise.mistake(
    "the factor T squared is missing", hint="Gradients of the soft part shrink with 1 / T**2: multiply by T**2."
)(_loss(scale=lambda T: 1.0))
exercise.mistake("the soft part is multiplied by T", hint="By T squared: T from each of the two softmaxes.")(
    _loss(scale=lambda T: T)
)
exercise.mistake("only the teacher is softened", hint="Both distributions at the same temperature.")(
    _loss(soft=lambda s, t, T: _kl(s, t / T))
)
exercise.mistake("only the student is softened", hint="Both distributions at the same temperature.")(
    _loss(soft=lambda s, t, T: _kl(s / T, t))
)
exercise.mistake("the hard part is softened, too", hint="The labels are learnt at temperature 1.")(
    _loss(hard=lambda s, labels, T: _ce(s / T, labels))
)
exercise.mistake("T has no influence", hint="Both logits are divided by the temperature for the soft part.")(
    _loss(soft=lambda s, t, T: _kl(s, t), scale=lambda T: 1.0)
)
exercise.mistake("T squared multiplies the hard part, too", hint="The hard part has no temperature to make up for.")(
    _loss(mix=lambda soft, hard, a: a * soft + (1 - a) * hard, hard=lambda s, labels, T: T**2 * _ce(s, labels))
)
exercise.mistake(
    "the soft part is divided by the number of texts, not of tokens",
    hint="'batchmean' divides by the first dimension. Make it tokens: [tokens, classes].",
)(_loss(means=(by_rows, kept_mean)))
exercise.mistake(
    "the soft part is divided by the number of classes as well",
    hint="reduction='mean' counts every number. Sum over the classes, mean over the tokens.",
)(_loss(soft=lambda s, t, T: _kl(s / T, t / T) / s.shape[-1]))
exercise.mistake("padding counts in the soft part", hint="The labels say which tokens count, for both parts.")(
    _loss(means=(over_all, kept_mean))
)
exercise.mistake("padding counts in both parts", hint="Leave out tokens whose label is ignore_index.")(
    _loss(means=(over_all, over_all))
)
exercise.mistake("padding adds nothing but is counted", hint="Divide by the number of tokens that are kept.")(
    _loss(means=(counted_all, counted_all))
)
exercise.mistake(
    "padding adds nothing to the soft part but is counted there", hint="Divide by the number of tokens that are kept."
)(_loss(means=(counted_all, kept_mean)))
exercise.mistake(
    "padding adds nothing to the hard part but is counted there", hint="Divide by the number of tokens that are kept."
)(_loss(means=(kept_mean, counted_all)))
exercise.mistake("losses are summed, not averaged", hint="The mean over the tokens that are kept.")(
    _loss(means=(summed, summed))
)
exercise.mistake("each text's mean is taken first", hint="One mean over all kept tokens of the batch.")(
    _loss(means=(mean_of_rows, mean_of_rows))
)
exercise.mistake("alpha and 1 - alpha are swapped", hint="alpha is the weight of the teacher.")(
    _loss(mix=lambda soft, hard, a: (1 - a) * soft + a * hard)
)
exercise.mistake("the hard part isn't weighed with 1 - alpha", hint="alpha * soft + (1 - alpha) * hard.")(
    _loss(mix=lambda soft, hard, a: a * soft + hard)
)
exercise.mistake("both parts are weighed with alpha", hint="alpha * soft + (1 - alpha) * hard.")(
    _loss(mix=lambda soft, hard, a: a * (soft + hard))
)
exercise.mistake("the labels aren't used", hint="The hard part: cross-entropy with the labels, weight 1 - alpha.")(
    _loss(mix=lambda soft, hard, a: a * soft)
)
exercise.mistake(
    "the teacher's log-probabilities stand where probabilities belong",
    hint="The teacher's probabilities are the weights. (F.kl_div takes them as such, unless log_target=True.)",
)(_loss(soft=lambda s, t, T: ((t / T).log_softmax(-1) * ((t / T).log_softmax(-1) - (s / T).log_softmax(-1))).sum(-1)))
exercise.mistake(
    "the student's probabilities stand where log-probabilities belong",
    hint="F.kl_div takes its first argument as log-probabilities: log_softmax.",
)(_loss(soft=lambda s, t, T: F.kl_div((s / T).softmax(-1), (t / T).softmax(-1), reduction="none").sum(-1)))

exercise.mistake(
    "the cross-entropy with the soft targets is taken, not the divergence",
    hint="It is larger by the teacher's own entropy: a perfect student would not reach 0.",
)(_loss(soft=lambda s, t, T: -((t / T).softmax(-1) * (s / T).log_softmax(-1)).sum(-1)))
exercise.mistake("the squared distance of the logits is taken", hint="The divergence of the two distributions.")(
    _loss(soft=lambda s, t, T: ((s - t) / T).square().mean(-1))
)
exercise.mistake(
    "the teacher's likeliest class is the hard label", hint="The hard part learns from the labels of the data."
)(
    lambda student, teacher, labels, temperature=2.0, alpha=0.5, ignore_index=-100: right(
        student, teacher, torch.where(labels == ignore_index, -100, teacher.argmax(-1)), temperature, alpha, -100
    )
)
exercise.mistake(TEACHER_LEARNS, hint=DETACH)(_loss(still=False))


@exercise.mistake("the labels are shifted by one once more", hint="logits[i] already belongs to labels[i].")
def shifted_again(student, teacher, labels, temperature=2.0, alpha=0.5, ignore_index=-100):
    if labels.dim() == 0:
        return right(student, teacher, labels, temperature, alpha, ignore_index)
    labels = labels.roll(-1, -1).clone()
    labels[..., -1] = ignore_index
    return right(student, teacher, labels, temperature, alpha, ignore_index)


exercise.mistake("-100 is ignored, whatever ignore_index says", hint="Compare the labels with ignore_index.")(
    _loss(kept=lambda labels, index: labels != -100)
)
exercise.mistake(
    "the logarithm is taken of a softmax that may have become 0",
    hint="log(0) is infinite. log_softmax stays finite; F.kl_div has log_target for the teacher.",
)(_loss(soft=lambda s, t, T: ((t / T).softmax(-1) * ((t / T).softmax(-1) / (s / T).softmax(-1)).log()).sum(-1)))
exercise.mistake("the softmax runs over the tokens, not over the classes", hint="Classes are the last dimension.")(
    _loss(soft=lambda s, t, T: ((t / T).softmax(0) * ((t / T).log_softmax(0) - (s / T).log_softmax(0))).sum(-1))
)
exercise.mistake("the result is always float32", hint="The dtype of the student's logits.")(
    lambda student, teacher, labels, *rest, **knobs: right(student.float(), teacher.float(), labels, *rest, **knobs)
)

exercise.alternative(right)


@exercise.alternative
def by_library(student, teacher, labels, temperature=2.0, alpha=0.5, ignore_index=-100):
    kept = labels != ignore_index
    s, t = student[kept], teacher[kept].detach()
    soft = F.kl_div((s / temperature).log_softmax(-1), (t / temperature).softmax(-1), reduction="batchmean")
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(s, labels[kept])


@exercise.alternative
def by_mixed_targets(student, teacher, labels, temperature=2.0, alpha=0.5, ignore_index=-100):
    """Token by token, the entropy of the teacher taken off the soft cross-entropy."""
    classes = student.shape[-1]
    total, count = student.new_zeros(()), 0
    rows = zip(student.reshape(-1, classes), teacher.reshape(-1, classes), labels.reshape(-1).tolist(), strict=True)
    for s, t, label in rows:
        if label == ignore_index:
            continue
        with torch.no_grad():
            log_p = torch.log_softmax(t / temperature, -1)
        soft = torch.dot(log_p.exp(), log_p - torch.log_softmax(s / temperature, -1))
        total = total + alpha * temperature**2 * soft - (1 - alpha) * torch.log_softmax(s, -1)[label]
        count += 1
    return total / count
