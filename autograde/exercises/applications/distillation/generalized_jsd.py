"""`generalized_jsd(student, teacher, mask, beta=0.5)`

From forward to reverse KL: the divergence of generalized knowledge distillation.
"""

from __future__ import annotations

import math

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
    "generalized_jsd",
    points=4,
    dtypes=(torch.float64,),
    hints=[
        "Three cases: beta = 0, beta = 1, and between them two divergences from one mixture m.",
        "KL(p || q) = sum p * (log p - log q), with log_softmax for both logarithms. log m is a logaddexp of "
        "log(beta) + log t and log(1 - beta) + log s.",
        "log_m = torch.logaddexp(log_t + math.log(beta), log_s + math.log(1 - beta)); "
        "each = beta * kl(log_t, log_m) + (1 - beta) * kl(log_s, log_m); return each[mask].mean()",
    ],
)


@exercise.cases
def pairs(g):
    def some(*shape, classes=6, scale=2.0):
        return randn(g, *shape, classes, scale=scale), randn(g, *shape, classes, scale=scale), some_kept(g, *shape)

    yield case(*some(3, 4), label="a batch with padding")
    yield case(*some(2, 5, classes=5), 1.0, label="beta = 1: reverse KL")
    yield case(*some(2, 4, classes=7), 0.0, label="beta = 0: forward KL")
    yield case(*some(2, 4, classes=5), 0.1, label="beta = 0.1")
    yield case(*some(2, 4, classes=5), 0.01, label="beta = 0.01: near the end, and not at it")
    yield case(*some(6, classes=4), beta=0.9, label="beta = 0.9, one text, by keyword")
    yield case(*some(2, 2, 3, classes=4), 0.3, label="two batch dimensions")
    yield case(*some(3, 4, scale=150.0), 0.4, label="logits in the hundreds")
    yield case(*some(3, 4, scale=150.0), 1.0, label="reverse KL, logits in the hundreds")
    yield case(*some(3, 4, scale=150.0), 0.0, label="forward KL, logits in the hundreds")
    student, teacher, mask = some(2, 3)
    far = torch.tensor([400.0, -200.0])[:, None, None]
    yield case(student + far, teacher - far, mask, 0.7, label="each text's logits on a level of its own")
    yield case(randn(g, 1, 1, 3), randn(g, 1, 1, 3), torch.tensor([[True]]), 0.2, label="one token")
    yield case(*some(4, 60, classes=50), 0.5, label="many tokens and classes")


def _kl(log_p, log_q):
    """KL(p || q) of each token, by F.kl_div, which takes them in the other order."""
    return F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)


@exercise.oracle
def by_kl_div(student, teacher, mask, beta=0.5):
    """Agarwal et al. 2024, from F.kl_div, in float64."""
    dtype = student.dtype
    log_s, log_t = (x.double().log_softmax(-1)[mask] for x in (student, teacher.detach()))
    if beta in (0, 1):
        return (_kl(log_t, log_s) if beta == 0 else _kl(log_s, log_t)).mean().to(dtype)
    log_m = torch.logsumexp(torch.stack([log_t + math.log(beta), log_s + math.log(1 - beta)]), 0)
    return (beta * _kl(log_t, log_m) + (1 - beta) * _kl(log_s, log_m)).mean().to(dtype)


exercise.law(teacher_is_still(1))


def _beta(one):
    return one.args[3] if len(one.args) > 3 else one.kwargs.get("beta", 0.5)


@exercise.law("Swapping teacher and student is the same as swapping beta and 1 - beta")
def turned_round(out, one, call):
    student, teacher, mask = one.args[:3]
    return None if one.made else same(call(teacher, student, mask, 1 - _beta(one)), out, 1e-3, 1e-4)


@exercise.law("Between 0 and 1, it is never above the entropy of a coin that falls by beta")
def bounded(out, one, call):
    beta = _beta(one)
    if one.made or beta in (0, 1):
        return None
    return -1e-5 <= float(out) <= -beta * math.log(beta) - (1 - beta) * math.log(1 - beta) + 1e-4


@exercise.law("What stands at padding doesn't matter")
def padding_is_silent(out, one, call):
    student, teacher, mask = one.args[:3]
    if one.made or bool(mask.all()):
        return None
    keep = mask[..., None]
    changed = torch.where(keep, student, 1 - 2 * student), torch.where(keep, teacher, teacher.flip(-1))
    return same(call(*changed, mask, _beta(one)), out)


exercise.law(OWN_DTYPE)


def _mixed(log_s, log_t, beta):
    return torch.logaddexp(log_t + math.log(beta), log_s + math.log(1 - beta))


def _jsd(
    forward=lambda s, t: _kl(t, s),
    reverse=lambda s, t: _kl(s, t),
    mixture=_mixed,
    between=lambda s, t, m, b: b * _kl(t, m) + (1 - b) * _kl(s, m),
    mean=kept_mean,
    logs=lambda x: x.log_softmax(-1),
    still=True,
    always=None,
):
    """The divergence from its parts."""

    def generalized_jsd(student, teacher, mask, beta=0.5):
        s, t = logs(student), logs(teacher.detach() if still else teacher)
        beta = beta if always is None else always
        if beta in (0, 1):
            return mean(forward(s, t) if beta == 0 else reverse(s, t), mask)
        return mean(between(s, t, mixture(s, t, beta), beta), mask)

    return generalized_jsd


right = _jsd()

exercise.mistake(
    "forward and reverse KL are swapped at the ends", hint="beta = 0 is KL(teacher || student), beta = 1 its reverse."
)(_jsd(forward=lambda s, t: _kl(s, t), reverse=lambda s, t: _kl(t, s)))
exercise.mistake("at beta = 0 the reverse KL is taken", hint="beta = 0 is KL(teacher || student).")(
    _jsd(forward=lambda s, t: _kl(s, t))
)
exercise.mistake("at beta = 1 the forward KL is taken", hint="beta = 1 is KL(student || teacher).")(
    _jsd(reverse=lambda s, t: _kl(t, s))
)
exercise.mistake(
    "the formula of the mixture is used at the ends, too", hint="There it is 0 everywhere: beta = 0 and 1 are KLs."
)(lambda student, teacher, mask, beta=0.5: right(student, teacher, mask, beta) * (0 < beta < 1))
exercise.mistake("beta and 1 - beta are swapped", hint="beta goes with the teacher, in the mixture and before its KL.")(
    lambda student, teacher, mask, beta=0.5: right(student, teacher, mask, 1 - beta)
)
exercise.mistake("beta and 1 - beta are swapped in the mixture", hint="m = beta * teacher + (1 - beta) * student.")(
    _jsd(mixture=lambda s, t, b: _mixed(s, t, 1 - b))
)
exercise.mistake("beta and 1 - beta are swapped before the two divergences", hint="beta * KL(teacher || m) + …")(
    _jsd(between=lambda s, t, m, b: (1 - b) * _kl(t, m) + b * _kl(s, m))
)
exercise.mistake("the divergences run from the mixture", hint="KL(teacher || m): m is the second one.")(
    _jsd(between=lambda s, t, m, b: b * _kl(m, t) + (1 - b) * _kl(m, s))
)
exercise.mistake("every divergence is turned round", hint="F.kl_div(b, a) is KL(a || b): the second one weighs.")(
    _jsd(
        forward=lambda s, t: _kl(s, t),
        reverse=lambda s, t: _kl(t, s),
        between=lambda s, t, m, b: b * _kl(m, t) + (1 - b) * _kl(m, s),
    )
)
exercise.mistake(
    "the two divergences are added with the same weight", hint="beta before one, 1 - beta before the other."
)(_jsd(between=lambda s, t, m, b: (_kl(t, m) + _kl(s, m)) / 2))
exercise.mistake("the two divergences are added without weights", hint="beta before one, 1 - beta before the other.")(
    _jsd(between=lambda s, t, m, b: _kl(t, m) + _kl(s, m))
)
exercise.mistake("the mixture is always half and half", hint="m = beta * teacher + (1 - beta) * student.")(
    _jsd(mixture=lambda s, t, b: _mixed(s, t, 0.5))
)
exercise.mistake("beta is always a half", hint="beta is a parameter: use it.")(_jsd(always=0.5))
exercise.mistake(
    "forward and reverse KL are mixed, without a mixture of the distributions",
    hint="Both divergences are taken from m = beta * teacher + (1 - beta) * student.",
)(_jsd(between=lambda s, t, m, b: (1 - b) * _kl(t, s) + b * _kl(s, t)))
exercise.mistake(
    "forward and reverse KL are mixed with exchanged weights, without a mixture of the distributions",
    hint="Both divergences are taken from m = beta * teacher + (1 - beta) * student.",
)(_jsd(between=lambda s, t, m, b: b * _kl(t, s) + (1 - b) * _kl(s, t)))
exercise.mistake(
    "the log-probabilities are mixed, not the probabilities", hint="log m = logaddexp of both, weighed."
)(_jsd(mixture=lambda s, t, b: b * t + (1 - b) * s))
exercise.mistake("the logits are mixed, not the probabilities", hint="log m = logaddexp of both, weighed.")(
    _jsd(mixture=lambda s, t, b: (b * t + (1 - b) * s).log_softmax(-1))
)
exercise.mistake("only the teacher's divergence is taken", hint="Both: the student's as well, weighed with 1 - beta.")(
    _jsd(between=lambda s, t, m, b: b * _kl(t, m))
)
exercise.mistake("only the student's divergence is taken", hint="Both: the teacher's as well, weighed with beta.")(
    _jsd(between=lambda s, t, m, b: (1 - b) * _kl(s, m))
)


def _weighed(log_p, log_q):
    return (log_p.exp().detach() * (log_p - log_q)).sum(-1)


exercise.mistake(
    "in the reverse KL the student's probabilities are taken as constants",
    hint="They depend on the student: the gradient goes through them as well.",
)(_jsd(reverse=_weighed, between=lambda s, t, m, b: b * _kl(t, m) + (1 - b) * _weighed(s, m)))
exercise.mistake(TEACHER_LEARNS, hint=DETACH)(_jsd(still=False))
exercise.mistake("padding is averaged, too", hint="The mask says which tokens count.")(_jsd(mean=over_all))
exercise.mistake("padding adds nothing but is counted", hint="Divide by the number of tokens that are kept.")(
    _jsd(mean=counted_all)
)
exercise.mistake("it is divided by the number of texts, not of tokens", hint="The mean over the kept tokens.")(
    _jsd(mean=by_rows)
)
exercise.mistake("the tokens are summed, not averaged", hint="The mean over the kept tokens.")(_jsd(mean=summed))
exercise.mistake("each text's mean is taken first", hint="One mean over all kept tokens of the batch.")(
    _jsd(mean=mean_of_rows)
)
exercise.mistake("it is divided by the number of classes, too", hint="Sum over the classes, mean over the tokens.")(
    lambda student, teacher, mask, beta=0.5: right(student, teacher, mask, beta) / student.shape[-1]
)
exercise.mistake("the square root is taken, as for the distance", hint="The divergence itself, without a root.")(
    lambda student, teacher, mask, beta=0.5: right(student, teacher, mask, beta).clamp(min=1e-30).sqrt()
)
exercise.mistake("it is measured in bits", hint="Nats: the natural logarithm.")(
    lambda student, teacher, mask, beta=0.5: right(student, teacher, mask, beta) / math.log(2)
)
exercise.mistake(
    "the logarithm is taken of a softmax that may have become 0", hint="log(0) is infinite: log_softmax and logaddexp."
)(_jsd(logs=lambda x: x.softmax(-1).log()))
exercise.mistake("the softmax runs over the tokens, not over the classes", hint="Classes are the last dimension.")(
    _jsd(logs=lambda x: x.log_softmax(-2))
)
exercise.mistake("the result is always float32", hint="The dtype of the student's logits.")(
    lambda student, teacher, mask, beta=0.5: right(student.float(), teacher.float(), mask, beta)
)

exercise.alternative(right)
exercise.alternative(_jsd(mixture=lambda s, t, b: _mixed(s, t, b).detach()))  # what flows through m adds up to 0


@exercise.alternative
def by_entropies(student, teacher, mask, beta=0.5):
    """Between the ends: the entropy of the mixture less the mean entropy."""
    s, t = student[mask].log_softmax(-1), teacher[mask].detach().log_softmax(-1)
    if beta == 0:
        return (t.exp() * (t - s)).sum(-1).mean()
    if beta == 1:
        return (s.exp() * (s - t)).sum(-1).mean()

    def entropy(log_p):
        return -(log_p.exp() * log_p).sum(-1)

    return (entropy(_mixed(s, t, beta)) - beta * entropy(t) - (1 - beta) * entropy(s)).mean()


@exercise.alternative
def by_weights(student, teacher, mask, beta=0.5):
    weights = mask.to(student.dtype) / mask.sum()
    s, t = torch.log_softmax(student, -1), torch.log_softmax(teacher.detach(), -1)
    m = t if beta == 1 else s if beta == 0 else _mixed(s, t, beta)
    p, q = t.exp(), s.exp()
    first = 0 if beta == 1 else torch.einsum("...v,...v->...", p, t - m)
    second = 0 if beta == 0 else torch.einsum("...v,...v->...", q, s - m)
    a, b = (1, 0) if beta == 0 else (0, 1) if beta == 1 else (beta, 1 - beta)
    return ((a * first + b * second) * weights).sum()
